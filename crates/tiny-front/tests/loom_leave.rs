//! The whole front in every order of events around the adoption boundary: an owner that leaves, a stranger that frees, an
//! adopter, a reaper. The code is the one that ships, from `free_remote` down to the window's tables.
//!
//! Blocks are real memory, which loom does not see: users probe them by address. What the owner knows about a slab and a bin
//! stands in owned words, which are probed by themselves.

#![cfg(alloc_loom)]
#![allow(clippy::unwrap_used, reason = "test helpers outside #[test] functions: a panic is the test's failure")]

mod common;

use common::{give, take};
use hakmem_atomic_ops::model::{Model, thread, writes};
use hakmem_base::{HEAP_RECORD_BYTES, MarkKey, SLAB_BYTES, SUPERSLAB_BYTES, SizeClass};
use hakmem_superslab_os::OsPolicy;
use hakmem_tiny_front::{Front, FrontPolicy, Heap, Unread};
use std::ptr::NonNull;
use std::sync::Arc;

const HEAPS: usize = 2;

/// A heap where the facade keeps it: aligned to its record.
#[repr(C, align(32768))]
struct Record(Heap);

const _: () = assert!(align_of::<Record>() == HEAP_RECORD_BYTES && size_of::<Record>() == HEAP_RECORD_BYTES);

/// A front and two heaps, given back at the end of each order of events.
struct World {
    front: Front,
    heaps: Box<[Record; HEAPS]>,
}

// SAFETY: each heap is used by one thread of the model at a time, which is what the models check.
unsafe impl Send for World {}
// SAFETY: as above.
unsafe impl Sync for World {}

/// A block that travels to another thread.
#[derive(Clone, Copy)]
struct Block(NonNull<u8>);

// SAFETY: a block may be freed by any thread.
unsafe impl Send for Block {}

impl World {
    fn new() -> Arc<Self> {
        let world = Self { front: Front::new(), heaps: Box::new([Record(Heap::new()), Record(Heap::new())]) };
        // The clock runs beside a model, so nothing may come due in it.
        world.front.os.set_policy(OsPolicy { purge_delay_ms: u32::MAX, ..OsPolicy::new() });
        assert!(world.front.reserve(32 << 20, MarkKey::NONE));
        let policy = FrontPolicy { refill_one: true, keep_empty_slabs: false, ..FrontPolicy::DEFAULT };
        for heap in &*world.heaps {
            heap.0.set_policy(policy);
        }
        Arc::new(world)
    }

    fn heap(&self, index: usize) -> &Heap {
        &self.heaps.get(index).unwrap().0
    }

    /// An allocation, and what its user writes.
    fn take(&self, heap: usize) -> Block {
        let block = take(&self.front, self.heap(heap), class());
        writes(block.as_ptr());
        Block(block)
    }

    /// A user's last write and the free, by the thread of a heap or by one that has none.
    fn free(&self, heap: Option<usize>, block: Block) {
        writes(block.0.as_ptr());
        give(&self.front, heap.map(|index| self.heap(index)), block.0);
    }

    /// A slab of heap 0 all of whose blocks a stranger has freed.
    fn with_whole_slab() -> Arc<Self> {
        let world = Self::new();
        let blocks = [(); 8].map(|()| world.take(0));
        assert_eq!(blocks.len(), usize::from(class().geometry().capacity));
        blocks.into_iter().for_each(|block| world.free(None, block));
        world
    }

    /// Sorts all mail, as somebody in the background does.
    fn sort(&self) {
        let heaps = self.heaps.iter().map(|record| &record.0);
        let _look = self.front.sort_unread(heaps, Unread::All);
    }

    /// Nothing is out any more: every slab goes back.
    fn assert_nothing_is_lost(&self) {
        let heap = self.heap(1);
        self.front.check_invariants(heap);
        self.front.collect(heap);
        self.front.leave(heap);
        heap.open(self.front.view());
        self.front.collect(heap);
        assert_eq!(self.front.orphans(), (0, 0), "an orphan was lost");
        assert_eq!(self.front.os.stats().in_use_bytes, 0, "a slab was lost");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let Some(window) = self.front.tables().map(|tables| tables.window) else { return };
        let bytes = window.slab_count as usize * SLAB_BYTES + SUPERSLAB_BYTES;
        // SAFETY: the front is gone with all its blocks, and the window was its alone.
        unsafe { libc::munmap(window.base.cast(), bytes) };
    }
}

/// Eight blocks in a slab of one unit.
fn class() -> SizeClass {
    SizeClass::for_bytes(8192).unwrap()
}

fn model() -> Model {
    Model::preemptions(2, 3).room(200, 600).deep()
}

#[test]
fn an_owner_leaves_while_a_stranger_frees_and_the_block_is_found_by_the_adopter() {
    // Hunts: the stranger's push and notification at every point of the owner's leaving: a free that nobody finds, a slab in
    // two lists, an adopter that does not see what the owner left or what the block's user wrote.
    model().check(|| {
        let world = World::new();
        let (first, second) = (world.take(0), world.take(0));
        let stranger = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.free(None, first))
        };
        world.front.leave(world.heap(0));
        stranger.join().unwrap();
        let again = world.take(1);
        assert_eq!(again.0, first.0, "the freed block was not found");
        world.free(Some(1), again);
        world.free(Some(1), second);
        world.assert_nothing_is_lost();
    });
}

#[test]
fn an_owner_leaves_while_its_last_block_comes_back_and_is_reaped() {
    // Hunts: the slab becomes an orphan, a stranger empties it, a reaper gives it back, and only then its owner looks at it
    // once more.
    model().check(|| {
        let world = World::new();
        let only = world.take(0);
        let stranger = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.free(None, only);
                world.front.collect(world.heap(1));
            })
        };
        world.front.leave(world.heap(0));
        stranger.join().unwrap();
        world.assert_nothing_is_lost();
    });
}

#[test]
fn an_owner_reads_its_mail_and_goes_on_while_strangers_free() {
    // Hunts: a mail that arrives while the owner drains, retires or carves the slab anew; a slab given back with a token out.
    model().check(|| {
        let world = World::new();
        let blocks = [world.take(0), world.take(0)];
        let strangers: Vec<_> = blocks
            .into_iter()
            .map(|block| {
                let world = Arc::clone(&world);
                thread::spawn(move || world.free(None, block))
            })
            .collect();
        world.front.collect(world.heap(0));
        for stranger in strangers {
            stranger.join().unwrap();
        }
        world.front.collect(world.heap(0));
        world.front.check_invariants(world.heap(0));
        assert_eq!(world.front.os.stats().in_use_bytes, 0, "a slab was lost");
    });
}

#[test]
fn two_heaps_adopt_what_two_have_left() {
    // Hunts: an adopter between a leaver's publication and the closing of its mailbox; two adopters of one slab.
    model().check(|| {
        let world = World::new();
        let left = world.take(0);
        let adopter = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let block = world.take(1);
                world.free(Some(1), block);
            })
        };
        world.front.leave(world.heap(0));
        adopter.join().unwrap();
        world.free(Some(1), left);
        world.assert_nothing_is_lost();
    });
}

#[test]
fn two_reapers_give_each_orphan_back_once() {
    // Hunts: two reapers that take the same orphans, put them back under each other, or give one back twice.
    model().check(|| {
        let world = World::new();
        let blocks = [world.take(0), world.take(0)];
        world.front.leave(world.heap(0));
        world.heap(0).open(world.front.view());
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.free(None, blocks[0]);
                world.front.collect(world.heap(0));
            })
        };
        world.free(None, blocks[1]);
        world.front.collect(world.heap(1));
        other.join().unwrap();
        world.assert_nothing_is_lost();
    });
}

#[test]
fn an_owner_reads_its_mail_while_somebody_sorts_it() {
    // Hunts: a slab that its owner carves anew or gives back while the sorter drops its contents; a slab that neither posts again.
    model().check(|| {
        let world = World::with_whole_slab();
        let sorter = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.sort())
        };
        let again = world.take(0);
        sorter.join().unwrap();
        world.free(Some(0), again);
        world.front.collect(world.heap(0));
        world.front.check_invariants(world.heap(0));
        assert_eq!(world.front.os.stats().in_use_bytes, 0, "a slab was lost");
    });
}

#[test]
fn an_owner_leaves_while_somebody_sorts_its_mail() {
    // Hunts: a sorter that posts to a closed mailbox, or to an orphan whose token somebody else has.
    model().check(|| {
        let world = World::with_whole_slab();
        let sorter = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.sort())
        };
        world.front.leave(world.heap(0));
        sorter.join().unwrap();
        world.assert_nothing_is_lost();
    });
}
