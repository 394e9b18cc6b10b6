//! One size class of one heap: the thread cache's list and the lists of slabs behind it.

use core::cell::Cell;
use hakmem_atomic_ops::{Owned32, Owned64};
use hakmem_base::{BIN_BYTES, SizeClass};
use hakmem_ownership::{BinPtr, class_of_bin};
use static_assertions::const_assert;

use crate::policy::FrontPolicy;

/// A cache line of state for one size class. All zero is a bin that was never used: its list is empty, so the first
/// allocation takes the slow path, which sets it up.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Bin {
    /// First block of the cache's list, or null. Last in, first out.
    pub(crate) head: Cell<*mut u8>,
    /// Blocks that may still be pushed. One up per pop, one down per push; negative only inside the slow path or when the
    /// class is routed past the cache.
    pub(crate) room: Cell<i32>,
    /// Value of `room` when the list is empty, so that `full_room - room` is the length of the list.
    pub(crate) full_room: Cell<i32>,
    /// Allocations left until the next heartbeat. Not beside `room`: the compiler would count both with one wide load, which
    /// stalls behind the narrow store of a free just before (3 ns a pair).
    pub(crate) ticks: Cell<u32>,
    /// Most blocks that the list holds after a refill or flush; grows on use.
    pub(crate) cap: Cell<u32>,
    /// First slab with blocks on its free list (link word; 0 is none).
    pub(crate) partial: Owned32,
    /// First slab without: all its blocks are out, or have not been carved yet.
    pub(crate) full: Owned32,
    /// The slab that fresh blocks are carved from (link word); it stands in one of the two lists.
    pub(crate) carve: Owned32,
    /// Blocks returned to their slabs, because the list had no room, since the cap last changed.
    pub(crate) spills: Cell<u32>,
    /// Allocations up to the last time that `ticks` was wound up.
    pub(crate) allocs: Owned64,
    /// Blocks of this bin's slabs that are not on a slab's free list: the sum of `used`.
    pub(crate) delivered: Owned32,
    /// Where `ticks` starts from.
    pub(crate) reload: Cell<u32>,
    /// Length of the list when it was last looked at, for statistics of other threads.
    pub(crate) cached_seen: Owned32,
    /// Spills without a refill after which the cache is taken to be of no use at present.
    pub(crate) spill_run: Cell<u32>,
}

/// Spills without a refill, in caps, that make a run.
const SPILL_RUN: u32 = 4;

const_assert!(size_of::<Bin>() == BIN_BYTES);

/// What a bin has handed out, as of its last slow path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BinCounts {
    /// Blocks out of their slabs.
    pub delivered: u32,
    /// Of these, blocks in the thread cache.
    pub cached: u32,
    /// Allocations so far.
    pub allocs: u64,
}

impl Bin {
    /// A bin that was never used.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            head: Cell::new(core::ptr::null_mut()),
            room: Cell::new(0),
            ticks: Cell::new(0),
            full_room: Cell::new(0),
            cap: Cell::new(0),
            partial: Owned32::new(0),
            full: Owned32::new(0),
            carve: Owned32::new(0),
            spills: Cell::new(0),
            allocs: Owned64::new(0),
            delivered: Owned32::new(0),
            reload: Cell::new(0),
            cached_seen: Owned32::new(0),
            spill_run: Cell::new(0),
        }
    }

    /// The class that this bin of a heap record serves: its position in the record.
    #[inline]
    #[must_use]
    pub fn class(&self) -> Option<SizeClass> {
        class_of_bin(BinPtr::new(core::ptr::from_ref(self).cast_mut().cast()))
    }

    /// Blocks in the cache's list.
    #[inline]
    #[must_use]
    pub fn cached(&self) -> u32 {
        self.full_room.get().wrapping_sub(self.room.get()).max(0).cast_unsigned()
    }

    /// What a dump shows of the bin; any thread may ask.
    #[must_use]
    pub fn counts(&self) -> BinCounts {
        BinCounts { delivered: self.delivered.get(), cached: self.cached_seen.get(), allocs: self.allocs.get() }
    }

    /// Whether the slow path has set this bin up.
    #[inline]
    pub(crate) fn is_set_up(&self) -> bool {
        self.reload.get() != 0
    }

    /// First use, or a new policy: copies the numbers that the fast path compares with.
    pub(crate) fn set_up(&self, policy: &FrontPolicy, class: SizeClass) {
        let first = !self.is_set_up();
        self.wind_up(policy.heartbeat_allocs);
        let cap = policy.initial_cap(class);
        if first || policy.bypasses_cache(class) || cap > self.cap.get() || self.cap.get() > policy.max_cap(class) {
            self.set_cap(if policy.bypasses_cache(class) { 0 } else { cap });
            if self.head.get().is_null() {
                self.install(core::ptr::null_mut(), 0);
            }
        }
    }

    /// The list becomes `first`, `count` blocks long; the cache had been empty.
    pub(crate) fn install(&self, first: *mut u8, count: u32) {
        let cap = self.cap.get();
        // A class routed past the cache never has room, so that every free visits its slab.
        let room = if cap == 0 { i32::MIN / 2 } else { cap.saturating_sub(count).max(cap / 2).cast_signed() };
        self.head.set(first);
        self.room.set(room);
        self.full_room.set(room.wrapping_add(count.cast_signed()));
        self.cached_seen.set(count);
    }

    /// Changes the cap; the room changes with it, so that the length of the list stays what it is.
    pub(crate) fn set_cap(&self, cap: u32) {
        let change = cap.cast_signed().wrapping_sub(self.cap.get().cast_signed());
        self.cap.set(cap);
        self.spill_run.set(cap.saturating_mul(SPILL_RUN));
        if cap != 0 {
            self.room.set(self.room.get().wrapping_add(change));
            self.full_room.set(self.full_room.get().wrapping_add(change));
        }
    }

    /// Counts the allocations since the last time and starts `ticks` again.
    pub(crate) fn wind_up(&self, reload: u32) {
        self.allocs.add(u64::from(self.reload.get().wrapping_sub(self.ticks.get())));
        self.reload.set(reload);
        self.ticks.set(reload);
        self.cached_seen.set(self.cached());
    }
}

impl Default for Bin {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_the_list_follows_from_the_room() {
        let bin = Bin::new();
        bin.set_up(&FrontPolicy::DEFAULT, SizeClass::for_tiny(64));
        assert_eq!(bin.cached(), 0);
        bin.install(core::ptr::without_provenance_mut(64), 10);
        assert_eq!(bin.cached(), 10);
        bin.room.set(bin.room.get() - 3);
        assert_eq!(bin.cached(), 13);
        bin.set_cap(bin.cap.get() * 2);
        assert_eq!(bin.cached(), 13);
    }

    #[test]
    fn winding_up_counts_allocations() {
        let bin = Bin::new();
        bin.wind_up(100);
        bin.ticks.set(70);
        bin.wind_up(50);
        assert_eq!(bin.allocs.get(), 30);
        bin.ticks.set(0);
        bin.wind_up(50);
        assert_eq!(bin.allocs.get(), 80);
    }
}
