//! Watched blocks in every order of events: who takes a block back, what the ring hands over, and a look at those in use.

#![cfg(alloc_loom)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test helpers outside #[test] functions: a panic is the test's failure"
)]

use hakmem_atomic_ops::model::{Model, thread};
use hakmem_base::{Life, SITE_FRAMES};
use hakmem_base::{SLAB_BYTES, SUPERSLAB_BYTES, SizeClass, SlabIndex};
use hakmem_ownership::{Route, RouteWord};
use hakmem_superslab_os::{FlatTable, OsPolicy, SuperslabOs, Window, WindowConfig};
use hakmem_watched::{Birth, WatchedContext, WatchedPool, Wrong};
use std::sync::Arc;

/// A pool with a window of its own, given back at the end of each order of events.
struct World {
    os: SuperslabOs,
    window: Window,
    routes: FlatTable<RouteWord>,
    pool: WatchedPool,
}

impl World {
    fn new() -> Arc<Self> {
        let os = SuperslabOs::new();
        // The clock runs beside a model, so nothing may come due in it.
        os.set_policy(OsPolicy { purge_delay_ms: u32::MAX, ..OsPolicy::new() });
        let window = os.reserve(WindowConfig { bytes: 32 << 20 }).unwrap();
        let routes = FlatTable::reserve(window.slab_count as usize).unwrap();
        let world = Self { os, window, routes, pool: WatchedPool::new() };
        assert!(world.pool.reserve());
        Arc::new(world)
    }

    /// A block that says its number wherever it can.
    fn take(&self, number: usize) -> usize {
        let cx = WatchedContext { os: &self.os, routes: &self.routes };
        let birth = Birth {
            bytes: number,
            weight: number as u32,
            at_ns: 0,
            heap: 0,
            allocs: 0,
            probe: 0,
            frames: [number; SITE_FRAMES],
        };
        let class = SizeClass::from_index(hakmem_base::CLASS_COUNT - 1).unwrap();
        self.pool.allocate(&cx, class, &birth).unwrap().addr().get()
    }

    fn free(&self, block: usize) -> Result<(), Wrong> {
        match self.routes.get(self.os.index_of(block).unwrap().to_usize()).unwrap().route() {
            Route::Watched(note) => self.pool.free(note, block, 9, |_heap| None),
            other => panic!("not watched but {other:?}"),
        }
    }

    /// Watches a run that begins at `unit`.
    fn watch(&self, unit: SlabIndex) -> usize {
        let word = self.routes.get(unit.to_usize()).unwrap();
        word.set_run(1, 60_000);
        assert!(self.pool.watch(unit, word, &Birth::default()));
        match word.route() {
            Route::Watched(note) => note,
            other => panic!("not watched but {other:?}"),
        }
    }

    fn free_elsewhere(&self, unit: SlabIndex, note: usize) -> Result<Route, Wrong> {
        let word = self.routes.get(unit.to_usize()).unwrap();
        self.pool.free_elsewhere(unit, word, note, 9, |_heap| None, |_unit| None)
    }

    fn told(&self) -> Vec<usize> {
        let mut numbers = Vec::new();
        self.pool.drain(|life| numbers.push(number(life)));
        numbers
    }
}

/// A life says the same number everywhere, or it is torn.
fn number(life: &Life) -> usize {
    let Life { bytes, weight, frames, .. } = life;
    assert!(*weight as usize == *bytes && *frames == [*bytes; SITE_FRAMES], "a torn life: {life:?}");
    *bytes
}

impl Drop for World {
    fn drop(&mut self) {
        let bytes = self.window.slab_count as usize * SLAB_BYTES + SUPERSLAB_BYTES;
        // SAFETY: the pool is gone with all its blocks, and the window was its alone.
        unsafe { libc::munmap(self.window.base.cast(), bytes) };
    }
}

fn model() -> Model {
    Model::preemptions(2, 3).room(200, 100).deep()
}

#[test]
fn of_two_frees_one_wins_and_the_life_is_told_once() {
    // Hunts: two frees that both win; a winner that does not see the description.
    model().check(|| {
        let world = World::new();
        let block = world.take(5);
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.free(block))
        };
        let results = [world.free(block), other.join().unwrap()];
        assert!(results.contains(&Ok(())) && results.contains(&Err(Wrong::Freed)), "{results:?}");
        assert_eq!(world.told(), [5]);
        world.pool.check_invariants();
    });
}

#[test]
fn a_second_free_of_a_block_elsewhere_never_takes_the_next_block_of_its_slot() {
    // Hunts: a second free that has found the slot to be its block's, and claims it when it is another one's.
    model().check(|| {
        let world = World::new();
        let (first, next) = (SlabIndex::new(40), SlabIndex::new(50));
        let note = world.watch(first);
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.free_elsewhere(first, note).is_ok())
        };
        let won = world.free_elsewhere(first, note).is_ok();
        let next_note = world.watch(next);
        assert_ne!(won, other.join().unwrap(), "not one of two frees won");
        assert!(world.free_elsewhere(next, next_note).is_ok(), "a block was taken from its user");
    });
}

#[test]
fn lives_arrive_whole_while_the_ring_goes_round() {
    // Hunts: a cell that is read before it is written, written before it is read, or written by two; a full ring that is not seen.
    model().check(|| {
        let world = World::new();
        let blocks = [world.take(1), world.take(2)];
        let writer = {
            let world = Arc::clone(&world);
            thread::spawn(move || blocks.map(|block| world.free(block).unwrap()))
        };
        let mut told = world.told();
        world.free(world.take(3)).unwrap();
        told.extend(world.told());
        writer.join().unwrap();
        told.extend(world.told());
        let lost = world.pool.stats().lost as usize;
        told.sort_unstable();
        let mut distinct = told.clone();
        distinct.dedup();
        assert!(distinct == told && told.len() + lost == 3, "{told:?} told, {lost} lost");
    });
}

#[test]
fn a_look_at_the_living_sees_whole_ones() {
    // Hunts: a description that is seen before it is written, where the place had no block before.
    model().check(|| {
        let world = World::new();
        let user = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.take(4))
        };
        let mut seen = Vec::new();
        world.pool.for_each_alive(9, |_| None, |life| seen.push(number(life)));
        assert!(seen.is_empty() || seen == [4]);
        let block = user.join().unwrap();
        assert_eq!(world.free(block), Ok(()));
    });
}
