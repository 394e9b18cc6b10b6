//! Slots in every order of events: who takes a block back, what a report of it shows, and the look around blocks in use at
//! the end of the process.
//!
//! The pages are real: who touches them while they have no access ends the model with a signal.

#![cfg(alloc_loom)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test helpers outside #[test] functions: a panic is the test's failure"
)]
#![allow(clippy::result_large_err, reason = "a finding ends a process; here it is looked at")]

use hakmem_atomic_ops::model::{Model, thread};
use hakmem_base::{Door, Request, SLAB_BYTES, SUPERSLAB_BYTES};
use hakmem_ownership::{Route, RouteWord};
use hakmem_sampled::{Finding, Mistake, SampledContext, SampledPool, Stamp, Wanted};
use hakmem_superslab_os::{FlatTable, OsPolicy, SuperslabOs, Window, WindowConfig};
use std::sync::Arc;

/// A pool with a window of its own, given back at the end of each order of events.
struct World {
    os: SuperslabOs,
    window: Window,
    routes: FlatTable<RouteWord>,
    pool: SampledPool,
}

impl World {
    fn new() -> Arc<Self> {
        let os = SuperslabOs::new();
        // The clock runs beside a model, so nothing may come due in it.
        os.set_policy(OsPolicy { purge_delay_ms: u32::MAX, ..OsPolicy::new() });
        let window = os.reserve(WindowConfig { bytes: 32 << 20 }).unwrap();
        let routes = FlatTable::reserve(window.slab_count as usize).unwrap();
        let world = Self { os, window, routes, pool: SampledPool::new() };
        assert!(world.pool.reserve(1));
        Arc::new(world)
    }

    fn cx(&self) -> SampledContext<'_> {
        SampledContext { os: &self.os, routes: &self.routes }
    }

    fn take(&self, thread: u32) -> Option<usize> {
        self.take_of(thread, 100)
    }

    fn take_of(&self, thread: u32, bytes: usize) -> Option<usize> {
        let wanted = Wanted { bytes, align: 16, at_end: true, door: Door::New };
        Some(self.pool.allocate(&self.cx(), wanted, || stamp(thread))?.addr().get())
    }

    fn note(&self, block: usize) -> usize {
        match self.routes.get(self.os.index_of(block).unwrap().to_usize()).unwrap().route() {
            Route::Sampled(note) => note,
            other => panic!("not a sample but {other:?}"),
        }
    }

    fn free(&self, thread: u32, block: usize) -> Result<(), Finding> {
        self.pool.free(&self.cx(), self.note(block), block, Request::unsized_from(Door::New), || stamp(thread))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let bytes = self.window.slab_count as usize * SLAB_BYTES + SUPERSLAB_BYTES;
        // SAFETY: the pool is gone with all its blocks, and the window was its alone.
        unsafe { libc::munmap(self.window.base.cast(), bytes) };
    }
}

fn stamp(thread: u32) -> Stamp {
    Stamp { thread, at_ms: u64::from(thread), trace: (1..=2).map(|frame| frame * thread as usize).collect() }
}

fn model() -> Model {
    Model::preemptions(2, 3).room(100, 100).deep()
}

#[test]
fn of_two_frees_one_is_good_and_the_other_names_both_calls() {
    // Hunts: two frees that both win; a report that knows of a free and not who made it.
    model().check(|| {
        let world = World::new();
        let block = world.take(1).unwrap();
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.free(3, block))
        };
        let results = [world.free(2, block), other.join().unwrap()];
        let findings: Vec<&Finding> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        let [finding] = findings.as_slice() else { panic!("{results:?}") };
        assert_eq!((finding.mistake, finding.allocated.as_ref()), (Mistake::DoubleFree, Some(&stamp(1))));
        let winner = if results[0].is_ok() { 2 } else { 3 };
        assert_eq!(finding.freed, Some(stamp(winner)));
        world.pool.check_invariants();
    });
}

#[test]
fn a_sweep_sees_all_of_what_it_looks_at_and_a_free_that_meets_it_is_good() {
    // Hunts: a sweep that takes a block whose description it does not see, or whose pages are closed while it looks; a rightful
    // free that finds its slot in the sweep's hands and calls that a mistake.
    model().check(|| {
        let world = World::new();
        let user = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let block = world.take(1).unwrap();
                assert!(world.free(1, block).is_ok(), "a rightful free was reported");
            })
        };
        assert_eq!(world.pool.sweep(&world.cx()), None, "the sweep found damage where there is none");
        user.join().unwrap();
    });
}

#[test]
fn a_slot_that_is_used_again_has_one_user() {
    // Hunts: a slot that rests and is taken before its pages are closed, or by two; the next user's description mixed with the
    // last one's.
    model().check(|| {
        let world = World::new();
        let first = world.take(1).unwrap();
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                if let Some(block) = world.take(2) {
                    assert_eq!(world.pool.usable_bytes(world.note(block), block), Ok(100));
                    world.free(2, block).unwrap();
                }
            })
        };
        world.free(1, first).unwrap();
        if let Some(block) = world.take(3) {
            world.free(3, block).unwrap();
        }
        other.join().unwrap();
        world.pool.check_invariants();
        assert_eq!(world.pool.stats().live, 0);
    });
}

#[test]
fn a_second_free_that_comes_late_leaves_the_next_block_of_the_slot_alone() {
    // Hunts: a free that has seen its block in use, and takes the slot when another free and another allocation have come between.
    Model::preemptions(1, 1).room(100, 100).deep().check(|| {
        let world = World::new();
        let block = world.take(1).unwrap();
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.free(3, block).is_ok())
        };
        let first = world.free(2, block).is_ok();
        let next = world.take_of(2, 200);
        assert_ne!(first, other.join().unwrap(), "of two frees one is good");
        assert!(next.is_none_or(|next| world.free(2, next).is_ok()), "a free of one block took another");
    });
}
