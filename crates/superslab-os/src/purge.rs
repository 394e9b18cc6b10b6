//! What is purged when: the queue of superslabs with free dirty units, and the batches taken from it.
//!
//! A unit in a batch is in the purger's hands: neither free nor handed out, so nobody writes to it while the kernel takes
//! its OS pages away outside the lock. A superslab restarts its wait with every unit given back: memory that is in
//! motion is not purged.

use crate::bits::{groups, groups_touching};
use crate::pool::{Pool, Wait};
use crate::record::{HUGE, Kind, PARKED, QUEUED, URGENT, WARM_BUCKET};
use hakmem_base::{SLABS_PER_SUPERSLAB, SlabIndex};

/// Superslabs per batch: bounds the time that one caller spends in the kernel (up to 32 MiB, about 1 ms).
const BATCH_SUPERSLABS: usize = 16;
/// Ranges after which a batch takes no further superslab: the same bound where memory is fragmented, since a call for a
/// short range costs up to 20 us.
const BATCH_RANGES: u32 = 64;

/// What has been free for so long (ms) while a big block found no place in it makes way for that block. Longer than frames
/// of a program that frees and allocates such blocks in turn, shorter than its phases.
pub(crate) const IDLE_MS: u32 = 4;
/// The same for policies that let memory wait for long, as a part of that: who waits for a minute lets nothing go that is a moment old.
const IDLE_PART: u32 = 64;

/// How long memory has to have been free to make way for growth under a purge delay; `u32::MAX`: it never does.
#[must_use]
pub const fn idle_ms(purge_delay_ms: u32) -> u32 {
    if purge_delay_ms == u32::MAX {
        return u32::MAX;
    }
    if purge_delay_ms / IDLE_PART > IDLE_MS { purge_delay_ms / IDLE_PART } else { IDLE_MS }
}

/// Units of one superslab in the purger's hands.
#[derive(Clone, Copy, Debug)]
struct Entry {
    superslab: u32,
    units: u32,
    /// Those of them that the kernel did not purge.
    refused: u32,
    /// At most half of it stays in use, and it had huge pages.
    thins: bool,
}

/// What a purger holds.
#[derive(Debug)]
pub(crate) struct Batch {
    entries: [Entry; BATCH_SUPERSLABS],
    len: usize,
    /// Contiguous ranges in the entries, before neighbours are merged.
    ranges: u32,
}

/// Which superslabs a purger takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// Those that have waited long enough; the warm pool is spared.
    Due,
    /// As many units as an extent has just made the process grow by, of what has idled ([`idle_ms`]).
    Growth(u32),
    /// All that have anything dirty.
    All,
}

impl Batch {
    pub(crate) const fn new() -> Self {
        Self {
            entries: [Entry { superslab: 0, units: 0, refused: 0, thins: false }; BATCH_SUPERSLABS],
            len: 0,
            ranges: 0,
        }
    }

    fn is_full(&self) -> bool {
        self.len == BATCH_SUPERSLABS || self.ranges >= BATCH_RANGES
    }

    fn push(&mut self, superslab: u32, units: u32, thins: bool) {
        if let Some(entry) = self.entries.get_mut(self.len) {
            *entry = Entry { superslab, units, refused: 0, thins };
            self.len += 1;
            self.ranges += groups(units).count() as u32;
        }
    }

    /// Superslabs that are to have small pages from now on: what is left of their huge ones has small ones already, of which the kernel
    /// would make huge ones again in time, and so bring back what was purged.
    pub(crate) fn thinned(&self) -> impl Iterator<Item = u32> {
        self.entries().iter().filter(|entry| entry.thins).map(|entry| entry.superslab)
    }

    fn entries(&self) -> &[Entry] {
        self.entries.get(..self.len).unwrap_or(&[])
    }

    fn entries_mut(&mut self) -> &mut [Entry] {
        self.entries.get_mut(..self.len).unwrap_or(&mut [])
    }

    /// Calls `discard` once per maximal contiguous range of the batch, neighbouring superslabs merged, and notes refusals. A range that
    /// is refused is tried in halves: one OS page that the program has locked would keep all that is behind it.
    pub(crate) fn discard_ranges(&mut self, mut discard: impl FnMut(SlabIndex, u32) -> bool) {
        self.entries_mut().sort_unstable_by_key(|entry| entry.superslab);
        let mut pending = (0_u32, 0_u32);
        // One empty range more flushes the last one.
        for at in 0..=self.len {
            let entry = self.entries().get(at).copied();
            let last = entry.is_none().then_some((0, 0));
            let first_unit = entry.map_or(0, |entry| entry.superslab * SLABS_PER_SUPERSLAB);
            for (slot, units) in groups(entry.map_or(0, |entry| entry.units)).chain(last) {
                let (start, count) = pending;
                if count != 0 && start + count == first_unit + slot {
                    pending = (start, count + units);
                    continue;
                }
                if count != 0 && !discard(SlabIndex::new(start), count) {
                    self.discard_halves(start, count, &mut discard);
                }
                pending = (first_unit + slot, units);
            }
        }
    }

    /// Both halves before a part of either: so a locked OS page does not look like a kernel that refuses whatever it is asked, of which
    /// it is asked no more for a while (`Reservation::discard`).
    fn discard_halves(&mut self, start: u32, units: u32, discard: &mut impl FnMut(SlabIndex, u32) -> bool) {
        if units == 1 {
            self.refuse(start, start + 1);
            return;
        }
        let halves = [(start, units / 2), (start + units / 2, units - units / 2)];
        let is_done = halves.map(|(start, units)| discard(SlabIndex::new(start), units));
        for ((start, units), _) in halves.into_iter().zip(is_done).filter(|(_, is_done)| !is_done) {
            self.discard_halves(start, units, discard);
        }
    }

    fn refuse(&mut self, start: u32, end: u32) {
        for entry in self.entries_mut() {
            let first_unit = entry.superslab * SLABS_PER_SUPERSLAB;
            for slot in 0..SLABS_PER_SUPERSLAB {
                if (start..end).contains(&(first_unit + slot)) {
                    entry.refused |= entry.units & (1 << slot);
                }
            }
        }
    }
}

impl Pool {
    /// Fills an empty batch; `false` if there is nothing to purge.
    pub(crate) fn collect(&mut self, batch: &mut Batch, scope: Scope, now: u32) -> bool {
        (batch.len, batch.ranges) = (0, 0);
        let mut collected = 0;
        while self.oldest != 0 && !batch.is_full() {
            let superslab = self.oldest;
            let record = self.read(superslab);
            let age_ms = now.wrapping_sub(record.freed_at);
            if let Scope::Growth(units) = scope {
                if age_ms < idle_ms(self.policy.purge_delay_ms) || collected >= units {
                    break;
                }
                collected += record.free_dirty().count_ones();
            }
            if scope == Scope::Due && !record.has(URGENT) {
                if !self.is_old_enough(age_ms) {
                    break;
                }
                if record.kind == Kind::Warm && self.parked < self.policy.warm_superslabs {
                    self.dequeue(superslab);
                    self.record(superslab).set(PARKED);
                    self.parked += 1;
                    continue;
                }
            }
            self.hold(superslab, batch);
        }
        batch.len != 0
    }

    fn is_old_enough(&self, age_ms: u32) -> bool {
        self.policy.purge_delay_ms != u32::MAX && age_ms >= self.policy.purge_delay_ms
    }

    fn hold(&mut self, superslab: u32, batch: &mut Batch) {
        let record = self.record(superslab);
        let before = record.kind;
        let units = groups_touching(record.free, record.dirty);
        let dirty_units = record.free_dirty().count_ones();
        record.kind = Kind::Slabs;
        record.free &= !units;
        record.purging = units;
        let thins = record.has(HUGE) && (1..=SLABS_PER_SUPERSLAB / 2).contains(&record.units_in_use());
        batch.push(superslab, units, thins);
        self.free_dirty_units -= u64::from(dirty_units);
        self.settle(superslab, before, Wait::Keep, 0);
    }

    /// Takes a purger's units back, clean where the kernel complied; returns how many dirty units became clean.
    pub(crate) fn finish(&mut self, batch: &mut Batch, now: u32) -> u32 {
        let mut purged = 0;
        for entry in batch.entries() {
            let record = self.record(entry.superslab);
            let before = record.kind;
            let cleaned = entry.units & !entry.refused;
            purged += (cleaned & record.dirty).count_ones();
            record.purging &= !entry.units;
            record.dirty &= !cleaned;
            record.free |= entry.units;
            let still_dirty = (entry.units & record.dirty).count_ones();
            self.free_dirty_units += u64::from(still_dirty);
            self.settle(entry.superslab, before, Wait::Keep, now);
        }
        batch.len = 0;
        purged
    }

    /// Lets the superslabs that the warm pool keeps wait for a purge again.
    pub(crate) fn unpark_all(&mut self, now: u32) {
        let mut superslab = self.head(WARM_BUCKET);
        while superslab != 0 && self.parked > 0 {
            let record = self.record(superslab);
            let next = record.next;
            if record.has(PARKED) {
                record.clear(PARKED);
                record.freed_at = now;
                self.parked -= 1;
                self.enqueue_newest(superslab);
            }
            superslab = next;
        }
    }

    /// How long (ms) until a purge is due; `None` if nothing will be without a further give.
    pub(crate) fn due_in(&self, now: u32) -> Option<u32> {
        if self.oldest == 0 {
            return None;
        }
        let record = self.read(self.oldest);
        if record.has(URGENT) {
            return Some(0);
        }
        let delay = self.policy.purge_delay_ms;
        (delay != u32::MAX).then(|| delay.saturating_sub(now.wrapping_sub(record.freed_at)))
    }

    pub(crate) fn dequeue(&mut self, superslab: u32) {
        let record = self.read(superslab);
        if !record.has(QUEUED) {
            return;
        }
        if record.older == 0 {
            self.oldest = record.newer;
        } else {
            self.record(record.older).newer = record.newer;
        }
        if record.newer == 0 {
            self.newest = record.older;
        } else {
            self.record(record.newer).older = record.older;
        }
        let record = self.record(superslab);
        (record.older, record.newer) = (0, 0);
        record.clear(QUEUED | URGENT);
    }

    pub(crate) fn enqueue_newest(&mut self, superslab: u32) {
        let older = self.newest;
        let record = self.record(superslab);
        (record.older, record.newer) = (older, 0);
        record.set(QUEUED);
        if older == 0 {
            self.oldest = superslab;
        } else {
            self.record(older).newer = superslab;
        }
        self.newest = superslab;
    }

    pub(crate) fn enqueue_oldest(&mut self, superslab: u32) {
        let newer = self.oldest;
        let record = self.record(superslab);
        (record.older, record.newer) = (0, newer);
        record.set(QUEUED);
        if newer == 0 {
            self.newest = superslab;
        } else {
            self.record(newer).older = superslab;
        }
        self.oldest = superslab;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits::{ALL, mask};

    #[test]
    fn who_lets_memory_wait_for_long_lets_nothing_young_make_way() {
        assert_eq!([0, 300, 1000, 64_000].map(idle_ms), [4, 4, 15, 1000]);
        assert_eq!(idle_ms(u32::MAX), u32::MAX, "never is never");
    }

    fn pool() -> Pool {
        let mut pool = Pool::empty();
        assert!(pool.attach(64, 0));
        pool.committed = 64;
        pool
    }

    fn open_and_give_all(pool: &mut Pool, superslab: u32, now: u32) {
        pool.take_units(superslab, 0, 32, now);
        pool.give_units(superslab, 0, 32, now);
    }

    #[test]
    fn neighbouring_free_superslabs_are_discarded_in_one_range() {
        let mut pool = pool();
        pool.policy.warm_superslabs = 0;
        for superslab in [5, 3, 4, 9] {
            open_and_give_all(&mut pool, superslab, 1000);
        }
        let mut batch = Batch::new();
        assert!(pool.collect(&mut batch, Scope::Due, 1300));
        let mut ranges = Vec::new();
        batch.discard_ranges(|first, units| {
            ranges.push((first.get(), units));
            true
        });
        assert_eq!(ranges, [(3 * 32, 96), (9 * 32, 32)]);
        assert_eq!(pool.finish(&mut batch, 1300), 4 * 32);
        assert_eq!((pool.free_dirty_units, pool.warm, pool.read(4).kind), (0, 0, Kind::Unused));
    }

    #[test]
    fn a_batch_of_fragmented_superslabs_is_bounded_by_its_ranges() {
        let mut pool = pool();
        for superslab in 1..=16 {
            pool.take_units(superslab, 0, 32, 0);
            (0..32).step_by(2).for_each(|slot| pool.give_units(superslab, slot, 1, 0));
        }
        let (mut batch, mut calls) = (Batch::new(), Vec::new());
        while pool.collect(&mut batch, Scope::All, 0) {
            let mut ranges = 0;
            batch.discard_ranges(|_, units| {
                ranges += units;
                true
            });
            calls.push(ranges);
            pool.finish(&mut batch, 0);
        }
        assert_eq!(calls, [64; 4]);
    }

    #[test]
    fn a_range_that_the_kernel_refuses_stays_dirty_and_waits_again() {
        let mut pool = pool();
        pool.policy.warm_superslabs = 0;
        open_and_give_all(&mut pool, 2, 0);
        open_and_give_all(&mut pool, 8, 0);
        let mut batch = Batch::new();
        assert!(pool.collect(&mut batch, Scope::Due, 300));
        batch.discard_ranges(|first, _units| first.superslab() == 8);
        assert_eq!(pool.finish(&mut batch, 310), 32);
        assert_eq!((pool.read(2).kind, pool.read(2).dirty), (Kind::Warm, ALL));
        assert_eq!((pool.due_in(310), pool.free_dirty_units), (Some(300), 32));
    }

    #[test]
    fn a_locked_os_page_keeps_its_own_unit_and_no_other() {
        let mut pool = pool();
        for superslab in 1..=16 {
            open_and_give_all(&mut pool, superslab, 0);
        }
        let (mut batch, mut calls) = (Batch::new(), 0);
        assert!(pool.collect(&mut batch, Scope::All, 0));
        batch.discard_ranges(|first, units| {
            calls += 1;
            !(first.get()..first.get() + units).contains(&(5 * 32 + 7))
        });
        assert_eq!((pool.finish(&mut batch, 0), calls), (16 * 32 - 1, 19));
        assert_eq!((pool.read(5).dirty, pool.free_dirty_units), (mask(7, 1), 1));
    }

    #[test]
    fn what_was_urgent_and_is_taken_again_waits_like_the_others() {
        let mut pool = pool();
        pool.policy.eager_free = true;
        open_and_give_all(&mut pool, 1, 0);
        assert_eq!(pool.due_in(0), Some(0));
        pool.take_units(1, 0, 32, 5);
        pool.give_units(1, 0, 1, 5);
        assert_eq!(pool.due_in(5), Some(300));
    }

    #[test]
    fn a_superslab_in_motion_does_not_hold_up_the_others() {
        let mut pool = pool();
        for superslab in [1, 2] {
            pool.take_units(superslab, 0, 8, 0);
            pool.give_units(superslab, 0, 1, 100);
        }
        pool.give_units(1, 1, 1, 399);
        let mut batch = Batch::new();
        assert_eq!(pool.due_in(400), Some(0));
        assert!(pool.collect(&mut batch, Scope::Due, 400));
        assert_eq!((pool.read(1).purging, pool.read(2).purging), (0, mask(0, 1)));
    }

    #[test]
    fn of_a_superslab_the_range_that_the_kernel_refuses_stays_dirty_and_no_more() {
        let mut pool = pool();
        pool.take_units(1, 0, 32, 0);
        pool.give_units(1, 0, 4, 0);
        pool.give_units(1, 8, 4, 0);
        let mut batch = Batch::new();
        assert!(pool.collect(&mut batch, Scope::All, 0));
        batch.discard_ranges(|first, _units| !(8..12).contains(&first.slot()));
        assert_eq!(pool.finish(&mut batch, 0), 4);
        assert_eq!((pool.read(1).free, pool.read(1).free_dirty()), (mask(0, 4) | mask(8, 4), mask(8, 4)));
        pool.check();
    }

    #[test]
    fn the_wait_restarts_with_each_unit_given_back() {
        let mut pool = pool();
        pool.take_units(1, 0, 8, 0);
        pool.give_units(1, 0, 1, 100);
        pool.give_units(1, 4, 1, 350);
        let mut batch = Batch::new();
        assert!(!pool.collect(&mut batch, Scope::Due, 449));
        assert_eq!(pool.due_in(449), Some(201));
        assert!(pool.collect(&mut batch, Scope::Due, 650));
        assert_eq!(pool.read(1).purging, mask(0, 1) | mask(4, 1));
    }

    #[test]
    fn the_warm_pool_keeps_its_superslabs_until_everything_is_purged() {
        let mut pool = pool();
        open_and_give_all(&mut pool, 1, 0);
        open_and_give_all(&mut pool, 2, 0);
        let mut batch = Batch::new();
        assert!(pool.collect(&mut batch, Scope::Due, 400));
        batch.discard_ranges(|_, _| true);
        assert_eq!(pool.finish(&mut batch, 400), 32);
        assert_eq!((pool.parked, pool.due_in(9999)), (1, None));
        pool.unpark_all(500);
        assert_eq!(pool.due_in(500), Some(300), "it waits anew");
        assert!(pool.collect(&mut batch, Scope::All, 500));
        batch.discard_ranges(|_, _| true);
        assert_eq!((pool.finish(&mut batch, 500), pool.free_dirty_units, pool.parked), (32, 0, 0));
    }

    #[test]
    fn a_clock_that_wraps_does_not_stop_purging() {
        let mut pool = pool();
        pool.policy.warm_superslabs = 0;
        open_and_give_all(&mut pool, 1, u32::MAX - 10);
        let mut batch = Batch::new();
        assert!(!pool.collect(&mut batch, Scope::Due, 100));
        assert!(pool.collect(&mut batch, Scope::Due, 300));
    }
}
