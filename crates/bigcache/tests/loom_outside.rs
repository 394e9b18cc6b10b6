//! The registry of outside blocks in every order of events: who frees a block, and what walkers find meanwhile.
//!
//! All blocks stand in one bucket. loom does not see crossbeam-epoch, whose operations are one step each here; what it
//! protects, the pages of removed nodes, is really unmapped, but only when the model's threads are done: that a page outlives
//! its walkers is not shown.

#![cfg(alloc_loom)]
#![allow(clippy::unwrap_used, reason = "test helpers outside #[test] functions: a panic is the test's failure")]

use hakmem_atomic_ops::model::{Model, thread};
use hakmem_bigcache::{BigCache, BigContext, BigHint, BigPolicy};
use hakmem_ownership::RouteWord;
use hakmem_superslab_os::{FlatTable, SuperslabOs};
use std::sync::Arc;

const BYTES: usize = 3 << 20;

/// A cache without a window: everything goes outside.
struct World {
    os: SuperslabOs,
    routes: FlatTable<RouteWord>,
    cache: BigCache,
}

impl World {
    /// With a block; what comes first makes the handles of the epoch.
    fn new() -> (Arc<Self>, usize) {
        let world = Self { os: SuperslabOs::new(), routes: FlatTable::empty(), cache: BigCache::new() };
        let block = world.take();
        (Arc::new(world), block)
    }

    fn cx(&self) -> BigContext<'_> {
        let policy = BigPolicy { window_max_bytes: 0, thp_bytes: usize::MAX, ..BigPolicy::DEFAULT };
        BigContext { os: &self.os, routes: &self.routes, policy, hint: BigHint::NONE }
    }

    fn take(&self) -> usize {
        self.cache.allocate(&self.cx(), BYTES, 16, false).unwrap().ptr.as_ptr().addr()
    }

    /// Nothing is out any more.
    fn assert_nothing_is_left(&self) {
        self.cache.check_invariants();
        assert_eq!(self.cache.stats().outside_blocks, 0);
        self.cache.flush(&self.cx());
    }
}

fn model() -> Model {
    Model::preemptions(2, 3).room(100, 100).deep()
}

#[test]
fn of_two_frees_of_a_block_one_wins() {
    // Hunts: a node that two threads mark, or unlink.
    model().check(|| {
        let (world, block) = World::new();
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.cache.outside_free(block).is_some())
        };
        let is_mine = world.cache.outside_free(block).is_some();
        assert!(is_mine != other.join().unwrap());
        world.assert_nothing_is_left();
    });
}

#[test]
fn a_block_is_found_while_its_neighbours_come_and_go() {
    // Hunts: a walker that is led past a node, or to one that it does not see yet, by another thread's removal and insertion in
    // front of it.
    model().check(|| {
        let (world, first) = World::new();
        let second = world.take();
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                assert_eq!(world.cache.outside_free(second), Some(BYTES));
                world.take()
            })
        };
        assert_eq!(world.cache.outside_find(first), Some(BYTES));
        let third = other.join().unwrap();
        for block in [first, third] {
            assert_eq!(world.cache.outside_free(block), Some(BYTES));
        }
        world.assert_nothing_is_left();
    });
}

#[test]
fn a_block_that_comes_while_its_neighbour_goes_is_not_lost() {
    // Hunts: an insertion and a removal at the bucket's head that undo each other; a free that takes out another thread's new
    // and already freed node without having seen it.
    model().check(|| {
        let (world, first) = World::new();
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let second = world.take();
                assert_eq!(world.cache.outside_free(second), Some(BYTES));
            })
        };
        assert_eq!(world.cache.outside_free(first), Some(BYTES));
        other.join().unwrap();
        world.assert_nothing_is_left();
    });
}

#[test]
fn neighbours_that_are_freed_at_the_same_time_are_both_taken_out() {
    // Hunts: a node that is unlinked from one that is being removed itself, and so stays in the list, or is retired twice.
    model().check(|| {
        let (world, first) = World::new();
        let second = world.take();
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || assert_eq!(world.cache.outside_free(first), Some(BYTES)))
        };
        assert_eq!(world.cache.outside_free(second), Some(BYTES));
        other.join().unwrap();
        world.assert_nothing_is_left();
    });
}
