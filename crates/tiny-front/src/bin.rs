//! One size class of one heap: the thread cache's list and the lists of slabs behind it.

use core::cell::Cell;
use hakmem_atomic_ops::{Owned32, Owned64};
use hakmem_base::{BIN_BYTES, SizeClass, invariant};
use static_assertions::const_assert;

use crate::policy::FrontPolicy;

/// A cache line of state for one size class. All zero is a bin that was never used: its list is empty, so the first
/// allocation takes the slow path, which sets it up.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Bin {
    /// First block of the cache's list, or null. Last in, first out.
    pub(crate) head: Cell<*mut u8>,
    /// Pushes left until the next look at the length of the list: one down per push. Below zero it counts the blocks that found no
    /// room and went back to their slabs; they are taken off `delivered` at the next slow path ([`Bin::take_spills`]).
    pub(crate) room: Cell<i32>,
    /// What `room` was at the last look.
    pub(crate) granted: Cell<i32>,
    /// Allocations left until the next heartbeat: one down per pop. A pop does not touch `room`: two counts a pair on one
    /// word are a chain of two store-to-load forwards, the longest of the whole pair (docs/decisions/0008).
    pub(crate) ticks: Cell<u32>,
    /// What `ticks` was at the last look.
    pub(crate) ticks_seen: Cell<u32>,
    /// First slab with blocks on its free list (link word; 0 is none).
    pub(crate) partial: Owned32,
    /// First slab without: all its blocks are out, or have not been carved yet.
    pub(crate) full: Owned32,
    /// The slab that fresh blocks are carved from (link word); it stands in one of the two lists.
    pub(crate) carve: Owned32,
    /// The class's [`hakmem_base::Geometry::step`]: tells at a free whether a block can begin at an address.
    pub(crate) step: Cell<u32>,
    /// Allocations up to the last time that `ticks` was wound up.
    pub(crate) allocs: Owned64,
    /// Blocks of this bin's slabs that are not on a slab's free list: the sum of `used`, and the spills that `room` counts.
    pub(crate) delivered: Owned32,
    /// Where `ticks` starts from.
    pub(crate) reload: Cell<u32>,
    /// Length of the list at the last look; other threads' statistics read it.
    pub(crate) cached_seen: Owned32,
    /// Most blocks that the list should hold after a refill or flush; grows on use. 0: routed past the cache.
    pub(crate) cap: Cell<u16>,
    /// Length above which a push spills: `cap`, or what a refill brought and half a cap more.
    pub(crate) limit: Cell<u16>,
}

const_assert!(size_of::<Bin>() == BIN_BYTES);

/// Most caps that a refill lifts the limit to: a class whose cap has become small is to cache little.
const LIMIT_CAPS: u16 = 4;
/// Pops that make a thread look whether there is room again. Where a class with a small cap frees more than it allocates, a look at
/// each of them would cost more than the spills that it spares.
const POPS_PER_LOOK: u32 = 4;
/// Spills that `room` counts before a slow path looks at them.
const SPILLS_UNSEEN: i32 = 64;

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
            granted: Cell::new(0),
            ticks: Cell::new(0),
            ticks_seen: Cell::new(0),
            partial: Owned32::new(0),
            full: Owned32::new(0),
            carve: Owned32::new(0),
            step: Cell::new(0),
            allocs: Owned64::new(0),
            delivered: Owned32::new(0),
            reload: Cell::new(0),
            cached_seen: Owned32::new(0),
            cap: Cell::new(0),
            limit: Cell::new(0),
        }
    }

    /// Blocks in the cache's list: as many as at the last look, and the pushes since that found room, less the pops since.
    #[inline]
    #[must_use]
    pub fn cached(&self) -> u32 {
        let pushes = (self.granted.get().max(0) - self.room.get().max(0)).cast_unsigned();
        let pops = self.ticks_seen.get().wrapping_sub(self.ticks.get());
        self.cached_seen.get().wrapping_add(pushes).wrapping_sub(pops)
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

    /// First use, or a new policy: copies the numbers that the slow paths compare with. The first heartbeat comes after
    /// `reload` allocations.
    #[unsafe(link_section = ".text.hot.hakmem")]
    pub(crate) fn set_up(&self, policy: &FrontPolicy, class: SizeClass, reload: u32) {
        let (first, cap) = (!self.is_set_up(), self.cap.get());
        self.step.set(class.geometry().step());
        self.wind_up(reload);
        if first || policy.bypasses_cache(class) || !(policy.initial_cap(class)..=policy.max_cap(class)).contains(&cap)
        {
            self.cap.set(if policy.bypasses_cache(class) { 0 } else { policy.initial_cap(class) });
            self.limit.set(self.cap.get());
            self.grant();
        }
    }

    /// The list becomes `first`, `count` blocks long; the cache had been empty.
    pub(crate) fn install(&self, first: *mut u8, count: u32) {
        let cap = self.cap.get();
        let with_half_a_cap = u16::try_from(count).unwrap_or(u16::MAX).saturating_add(cap / 2);
        self.limit.set(with_half_a_cap.clamp(cap, cap.saturating_mul(LIMIT_CAPS)));
        self.head.set(first);
        self.cached_seen.set(count);
        self.ticks_seen.set(self.ticks.get());
        self.grant();
    }

    /// Takes the length of the list down.
    pub(crate) fn look(&self) -> u32 {
        let cached = self.cached();
        self.cached_seen.set(cached);
        self.ticks_seen.set(self.ticks.get());
        self.granted.set(self.room.get());
        cached
    }

    /// After [`Bin::look`]: lets as many pushes pass as the limit has room for, and at least a quarter of the cap where it
    /// has any, so that a thread at the limit does not look again at every push.
    fn grant(&self) {
        let (limit, length) = (u32::from(self.limit.get()), self.cached_seen.get());
        let room = match limit.checked_sub(length) {
            // A class routed past the cache never has room: its limit is 0, and every free visits its slab.
            None | Some(0) => 0,
            Some(left) => left.max(u32::from(self.cap.get() / 4)).cast_signed(),
        };
        invariant!(self.room.get() >= 0, "spills are forgotten");
        self.room.set(room);
        self.granted.set(room);
    }

    /// The last push found no room, and is judged by a slow path: it does not count as a spill yet.
    pub(crate) fn take_push_back(&self) {
        self.room.set(self.room.get() + 1);
    }

    /// Spills since the last time: off `delivered` and out of `room`. [`Heap::settle`](crate::Heap) keeps the sum.
    pub(crate) fn take_spills(&self) -> u32 {
        let spills = self.room.get().min(0).unsigned_abs();
        if spills != 0 {
            self.room.set(0);
            self.delivered.sub(spills);
        }
        spills
    }

    /// Whether a slow path should look at the spills that `room` counts.
    #[inline(always)]
    pub(crate) fn has_many_spills(&self) -> bool {
        self.room.get() < -SPILLS_UNSEEN
    }

    /// A push found `room` used up. Whether the list has become so much shorter since the last look that another one is due.
    #[inline(always)]
    pub(crate) fn may_have_room(&self) -> bool {
        self.ticks_seen.get().wrapping_sub(self.ticks.get()) >= POPS_PER_LOOK
    }

    /// A push found `room` used up. True if the list has become shorter since the last look: there is room again.
    #[inline]
    pub(crate) fn has_room_after_all(&self) -> bool {
        if self.ticks.get() == self.ticks_seen.get() || self.cap.get() == 0 {
            return false;
        }
        self.look();
        self.grant();
        self.room.get() > 0
    }

    /// Allocations since `ticks` was wound up.
    #[inline]
    pub(crate) fn passed(&self) -> u32 {
        self.reload.get().wrapping_sub(self.ticks.get())
    }

    /// Counts the allocations since the last time and starts `ticks` again. The spills have been taken.
    pub(crate) fn wind_up(&self, reload: u32) {
        self.look();
        self.allocs.add(u64::from(self.passed()));
        self.reload.set(reload);
        self.ticks.set(reload);
        self.ticks_seen.set(reload);
        self.grant();
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

    fn pop(bin: &Bin) {
        bin.ticks.set(bin.ticks.get() - 1);
    }

    /// One push as the fast path does it, and the spill behind it; false when the block spills.
    fn push(bin: &Bin) -> bool {
        bin.room.set(bin.room.get() - 1);
        if bin.room.get() >= 0 {
            return true;
        }
        if !bin.may_have_room() {
            return false;
        }
        bin.take_push_back();
        bin.take_spills();
        let has_room = bin.has_room_after_all();
        bin.room.set(bin.room.get() - 1);
        has_room
    }

    fn new_bin() -> Bin {
        let bin = Bin::new();
        bin.set_up(&FrontPolicy::DEFAULT, SizeClass::for_tiny(64), 4096);
        bin
    }

    #[test]
    fn the_length_of_the_list_follows_from_room_and_ticks() {
        let bin = new_bin();
        assert_eq!(bin.cached(), 0);
        bin.install(core::ptr::without_provenance_mut(64), 10);
        assert_eq!(bin.cached(), 10);
        (0..3).for_each(|_| pop(&bin));
        assert!(push(&bin));
        assert_eq!(bin.cached(), 8);
        bin.wind_up(500);
        assert_eq!(bin.cached(), 8);
        (0..8).for_each(|_| pop(&bin));
        assert_eq!(bin.cached(), 0);
        bin.install(core::ptr::without_provenance_mut(64), 5);
        assert_eq!(bin.cached(), 5);
        pop(&bin);
        assert!(push(&bin) && push(&bin));
        assert_eq!(bin.cached(), 6);
        assert_eq!(bin.look(), 6);
        pop(&bin);
        assert!(push(&bin) && push(&bin));
        assert_eq!(bin.cached(), 7);
    }

    #[test]
    fn another_policy_changes_a_cap_that_it_does_not_allow_and_no_other_one() {
        let (class, default) = (SizeClass::for_tiny(64), FrontPolicy::DEFAULT);
        let (initial, largest) = (default.initial_cap(class), default.max_cap(class));
        let bin = new_bin();
        assert_eq!(bin.cap.get(), initial);
        bin.cap.set(largest);
        bin.set_up(&default, class, 4096);
        assert_eq!(bin.cap.get(), largest, "it has grown to where it is");
        let smaller = FrontPolicy { cache_blocks: 4, cache_max_blocks: 8, ..default };
        assert!(smaller.max_cap(class) < initial, "the test needs this");
        bin.set_up(&smaller, class, 4096);
        assert_eq!(bin.cap.get(), smaller.initial_cap(class));
        bin.set_up(&default, class, 4096);
        assert_eq!(bin.cap.get(), initial);
        bin.set_up(&FrontPolicy { pool_classes: u128::MAX, ..default }, class, 4096);
        assert_eq!(bin.cap.get(), 0);
        assert!(!push(&bin), "the class is routed past the cache");
    }

    #[test]
    fn pushes_spill_at_the_limit_and_pairs_there_mostly_do_not() {
        let bin = new_bin();
        let mut pushed = 0;
        while push(&bin) {
            pushed += 1;
        }
        assert_eq!(pushed, u32::from(bin.limit.get()));
        assert!(!push(&bin));
        let (mut looks, mut spills) = (0, 0);
        for _ in 0..1000 {
            pop(&bin);
            looks += u32::from(bin.room.get() <= 0 && bin.may_have_room());
            spills += u32::from(!push(&bin));
        }
        assert!((1..50).contains(&looks) && spills < 100, "{looks} looks, {spills} spills");
        while push(&bin) {}
        assert!(bin.cached() <= u32::from(bin.limit.get() + bin.cap.get() / 4));
    }

    #[test]
    fn blocks_that_found_no_room_are_not_counted_as_cached() {
        let bin = new_bin();
        while push(&bin) {}
        let cached = bin.cached();
        (0..100).for_each(|_| assert!(!push(&bin)));
        assert_eq!(bin.cached(), cached);
        bin.delivered.set(500);
        assert_eq!(bin.take_spills(), 101);
        assert_eq!((bin.delivered.get(), bin.take_spills()), (399, 0));
        assert_eq!(bin.cached(), cached);
        assert!(!push(&bin));
        (0..POPS_PER_LOOK).for_each(|_| pop(&bin));
        assert!(push(&bin));
        assert_eq!(bin.cached(), cached + 1 - POPS_PER_LOOK);
    }

    #[test]
    fn a_refill_does_not_lift_a_small_cap_far() {
        let bin = new_bin();
        bin.install(core::ptr::without_provenance_mut(64), 500);
        assert_eq!(bin.limit.get(), 500 + bin.cap.get() / 2);
        bin.cap.set(8);
        bin.install(core::ptr::without_provenance_mut(64), 500);
        assert_eq!(bin.limit.get(), 8 * LIMIT_CAPS);
    }

    #[test]
    fn a_bypassed_class_never_has_room() {
        let bin = Bin::new();
        let policy = FrontPolicy { pool_classes: u128::MAX, ..FrontPolicy::DEFAULT };
        bin.set_up(&policy, SizeClass::for_tiny(64), 4096);
        bin.install(core::ptr::without_provenance_mut(64), 1);
        pop(&bin);
        assert!(!push(&bin));
        assert_eq!(bin.cached(), 0);
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
