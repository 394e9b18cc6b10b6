//! What a heap counts, on slow paths only.

use core::cell::Cell;
use hakmem_atomic_ops::{Owned32, Owned64};

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident),* $(,)?) => {
        /// Counters of one heap: written by its thread, read by any. They survive the thread: a recycled record goes on.
        #[derive(Debug, Default)]
        pub struct FrontCounters {
            $($(#[doc = $doc])* pub $name: Owned64,)*
        }

        /// Sums of [`FrontCounters`] over heaps.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct FrontReport {
            $($(#[doc = $doc])* pub $name: u64,)*
            /// Allocations served, as far as counted (batches of a heartbeat; exact for the calling thread).
            pub allocs: u64,
            /// Pool-routed allocations that the flattened pool served from the thread cache.
            pub pool_flatten_hits: u64,
            /// Bytes of blocks that are out of their slabs: live, cached, or waiting in outboxes and queues.
            pub delivered_bytes: u64,
            /// Bytes of blocks in thread caches, as of each class's last slow path.
            pub cached_bytes: u64,
        }

        impl FrontCounters {
            /// All zero.
            #[must_use]
            pub const fn new() -> Self {
                Self { $($name: Owned64::new(0),)* }
            }

            /// Adds these counters to a report.
            pub fn add_to(&self, report: &mut FrontReport) {
                $(report.$name = report.$name.wrapping_add(self.$name.get());)*
            }
        }
    };
}

counters! {
    /// Slow-path visits because a class's cache was empty.
    refills,
    /// Refills served by carving fresh blocks.
    carves,
    /// Blocks returned to their slab because the cache had no room.
    spills,
    /// Fresh slabs taken from the superslab box.
    fresh_slabs,
    /// Slabs given back to the superslab box.
    retired_slabs,
    /// Slabs that could not be given back yet because their token was out.
    guarded_slabs,
    /// Slabs adopted.
    adopts,
    /// Slabs released without an owner.
    released_slabs,
    /// Blocks freed that another thread owns.
    remote_frees,
    /// Chains of such blocks handed over.
    remote_pushes,
    /// Blocks drained from remote queues.
    drained_blocks,
    /// Slabs received by mail.
    mails,
    /// Remote frees found without a notification (only counted with `force_notify`).
    missed_notifications,
    /// Blocks borrowed from a larger class.
    borrowed,
    /// Heartbeats.
    beats,
    /// Classes trimmed because they were idle.
    idle_trims,
    /// Pool-routed allocations and frees that the flattened pool could not serve from the thread cache.
    pool_flatten_fallbacks,
    /// Refills that found no memory.
    out_of_memory,
}

/// What slow paths note of one class of one heap. Together, so that a refill finds it in one cache line.
#[derive(Debug)]
pub(crate) struct ClassTally {
    /// Blocks returned to their slabs, because the list had no room, since the last refill.
    pub(crate) spills: Cell<u32>,
    /// Low bits of the allocation count at the last look at idle classes, a heartbeat's or one before growth.
    pub(crate) trimmed_at: Cell<u32>,
    /// Refills so far; wraps.
    pub(crate) refills: Owned32,
    /// Spills up to the last refill or flush; wraps.
    pub(crate) spilled: Owned32,
    /// Allocations between what the bin is wound up for and the next block to be looked at. 0: the beat that comes is its.
    pub(crate) left: Cell<u32>,
}

impl ClassTally {
    pub(crate) const fn new() -> Self {
        Self {
            spills: Cell::new(0),
            trimmed_at: Cell::new(0),
            refills: Owned32::new(0),
            spilled: Owned32::new(0),
            left: Cell::new(0),
        }
    }
}

/// What has gone through one class of one heap since the record was made, whichever threads held it. A reader takes
/// differences: the 32-bit counts wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassFlow {
    /// Allocations.
    pub allocs: u64,
    /// Of these, allocations that found the cache empty.
    pub refills: u32,
    /// Blocks that went back to their slab because the cache had no room.
    pub spills: u32,
}

/// One class of one heap, for tests. A dump, which any thread may make, shows [`BinCounts`](crate::BinCounts).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassReport {
    /// Slabs of the class that the heap owns.
    pub slabs: u32,
    /// Of these, slabs with blocks on their free list.
    pub partial_slabs: u32,
    /// Blocks out of their slabs.
    pub delivered: u32,
    /// Blocks in the thread cache when it was last looked at.
    pub cached: u32,
    /// Present cap of the cache, in blocks.
    pub cap: u32,
}
