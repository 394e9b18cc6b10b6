//! A short list of runs in the order in which they were freed.

use crate::context::{LARGE_CLASS_COUNT, large_class};
use core::cell::Cell;
use hakmem_atomic_ops::Owned32;
use hakmem_base::{SLABS_PER_SUPERSLAB, SlabIndex};

/// Runs that the list can hold; policy bounds it further.
pub(crate) const SLOT_COUNT: usize = 56;

/// A run that is in nobody's use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CachedRun {
    pub(crate) first: SlabIndex,
    pub(crate) units: u8,
    /// All of it is known to read as zero: it was taken from the OS box in a bundle and never handed out.
    pub(crate) zeroed: bool,
    /// Value of the cache's tick when the run came here.
    pub(crate) tick: bool,
}

impl CachedRun {
    const NONE: Self = Self { first: SlabIndex::new(0), units: 0, zeroed: false, tick: false };
}

/// The list. Places `0..len` are filled, the newest last.
pub(crate) struct Slots {
    runs: [Cell<CachedRun>; SLOT_COUNT],
    len: Cell<u32>,
    /// Bit `u - 1`: a run of `u` units is here.
    present: Cell<u32>,
    /// Units of all runs. Other threads read it.
    units: Owned32,
    by_units: [Cell<u8>; SLABS_PER_SUPERSLAB as usize],
    by_class: [Cell<u8>; LARGE_CLASS_COUNT],
}

impl Slots {
    pub(crate) const fn new() -> Self {
        Self {
            runs: [const { Cell::new(CachedRun::NONE) }; SLOT_COUNT],
            len: Cell::new(0),
            present: Cell::new(0),
            units: Owned32::new(0),
            by_units: [const { Cell::new(0) }; SLABS_PER_SUPERSLAB as usize],
            by_class: [const { Cell::new(0) }; LARGE_CLASS_COUNT],
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len.get() as usize
    }

    #[inline]
    pub(crate) fn units(&self) -> u32 {
        self.units.get()
    }

    #[inline]
    pub(crate) fn class_len(&self, class: usize) -> u32 {
        self.by_class.get(class).map_or(0, |count| u32::from(count.get()))
    }

    /// Appends the newest run. False if the list is full.
    pub(crate) fn push(&self, run: CachedRun) -> bool {
        let Some(place) = self.runs.get(self.len()) else { return false };
        place.set(run);
        self.len.set(self.len.get() + 1);
        self.units.add(u32::from(run.units));
        self.count(run.units, 1);
        true
    }

    /// The newest of the shortest runs of `units..=widest` units that begin at a multiple of `align_units`.
    #[inline]
    pub(crate) fn take_fit(&self, units: u32, widest: u32, align_units: u32) -> Option<CachedRun> {
        let mut fitting = self.present.get() & units_mask(units, widest);
        while fitting != 0 {
            let wanted = fitting.trailing_zeros() + 1;
            let fits = |run: CachedRun| u32::from(run.units) == wanted && run.first.get() & (align_units - 1) == 0;
            if let Some(run) = self.take_newest(fits) {
                return Some(run);
            }
            fitting &= fitting - 1;
        }
        None
    }

    pub(crate) fn take_oldest(&self) -> Option<CachedRun> {
        self.take_first(|_| true)
    }

    pub(crate) fn take_oldest_of(&self, class: usize) -> Option<CachedRun> {
        self.take_first(|run| large_class(u32::from(run.units)) == class)
    }

    /// The run that begins at `first`.
    pub(crate) fn take_at(&self, first: SlabIndex) -> Option<CachedRun> {
        self.take_first(|run| run.first == first)
    }

    /// A run that came at another tick than this one.
    pub(crate) fn take_stale(&self, tick: bool) -> Option<CachedRun> {
        self.take_first(|run| run.tick != tick)
    }

    fn take_first(&self, wanted: impl Fn(CachedRun) -> bool) -> Option<CachedRun> {
        let position = self.filled().iter().position(|run| wanted(run.get()))?;
        self.remove(position)
    }

    #[inline]
    fn take_newest(&self, wanted: impl Fn(CachedRun) -> bool) -> Option<CachedRun> {
        let position = self.filled().iter().rposition(|run| wanted(run.get()))?;
        self.remove(position)
    }

    #[inline]
    fn filled(&self) -> &[Cell<CachedRun>] {
        self.runs.get(..self.len()).unwrap_or(&[])
    }

    #[inline]
    fn remove(&self, position: usize) -> Option<CachedRun> {
        let tail = self.filled().get(position..)?;
        let run = tail.first()?.get();
        for pair in tail.windows(2) {
            if let [place, next] = pair {
                place.set(next.get());
            }
        }
        self.len.set(self.len.get() - 1);
        self.units.sub(u32::from(run.units));
        self.count(run.units, u8::MAX);
        Some(run)
    }

    /// Adds `change` (wrapping: 255 is minus one) to the counts of runs of `units` units.
    #[inline]
    fn count(&self, units: u8, change: u8) {
        if let Some(count) = self.by_class.get(large_class(u32::from(units))) {
            count.set(count.get().wrapping_add(change));
        }
        let bit = u32::from(units).wrapping_sub(1);
        if let Some(count) = self.by_units.get(bit as usize) {
            count.set(count.get().wrapping_add(change));
            let others = self.present.get() & !(1 << bit);
            self.present.set(if count.get() == 0 { others } else { others | (1 << bit) });
        }
    }

    /// Panics (tests) or aborts if the counts do not agree with the runs.
    pub(crate) fn check_invariants(&self) {
        let runs = || self.filled().iter().map(Cell::get);
        let fact = |holds: bool, what: &'static str| {
            if !holds {
                hakmem_base::fatal(what);
            }
        };
        let units = runs().map(|run| u32::from(run.units)).sum::<u32>();
        fact(units == self.units.get(), "run cache: units do not balance");
        fact(
            runs().all(|run| (1..=SLABS_PER_SUPERSLAB).contains(&u32::from(run.units))),
            "run cache: a run has no units",
        );
        for bit in 0..SLABS_PER_SUPERSLAB {
            let here = runs().any(|run| u32::from(run.units) == bit + 1);
            fact(here == (self.present.get() & (1 << bit) != 0), "run cache: bitmap disagrees with the runs");
        }
        for class in 0..LARGE_CLASS_COUNT {
            let count = runs().filter(|run| large_class(u32::from(run.units)) == class).count();
            fact(count as u32 == self.class_len(class), "run cache: class count disagrees with the runs");
        }
    }
}

/// Bits `units - 1 ..= widest - 1`.
#[inline]
const fn units_mask(units: u32, widest: u32) -> u32 {
    let from = u32::MAX << (units - 1);
    let to = if widest >= u32::BITS { u32::MAX } else { (1 << widest) - 1 };
    from & to
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u32, units: u8) -> CachedRun {
        CachedRun { first: SlabIndex::new(first), units, zeroed: false, tick: false }
    }

    #[test]
    fn the_newest_of_the_tightest_fits_is_taken() {
        let slots = Slots::new();
        for cached in [run(32, 2), run(64, 3), run(96, 2), run(128, 4)] {
            assert!(slots.push(cached));
        }
        slots.check_invariants();
        assert_eq!(slots.take_fit(1, 1, 1), None);
        assert_eq!(slots.take_fit(2, 4, 1), Some(run(96, 2)));
        assert_eq!(slots.take_fit(2, 4, 1), Some(run(32, 2)));
        assert_eq!(slots.take_fit(2, 4, 1), Some(run(64, 3)));
        assert_eq!(slots.take_fit(2, 3, 1), None);
        assert_eq!(slots.take_fit(4, 32, 1), Some(run(128, 4)));
        slots.check_invariants();
        assert_eq!((slots.len(), slots.units()), (0, 0));
    }

    #[test]
    fn alignment_rules_out_the_tighter_fit() {
        let slots = Slots::new();
        assert!(slots.push(run(33, 2)));
        assert!(slots.push(run(64, 3)));
        assert_eq!(slots.take_fit(2, 3, 2), Some(run(64, 3)));
        assert_eq!(slots.take_fit(2, 3, 2), None);
        assert_eq!(slots.take_at(SlabIndex::new(33)), Some(run(33, 2)));
    }

    #[test]
    fn a_full_list_refuses() {
        let slots = Slots::new();
        for first in 1..=SLOT_COUNT as u32 {
            assert!(slots.push(run(first, 1)));
        }
        assert!(!slots.push(run(1000, 1)));
        assert_eq!(slots.take_oldest(), Some(run(1, 1)));
        assert!(slots.push(run(1000, 1)));
        slots.check_invariants();
    }

    #[test]
    fn oldest_and_stale_runs_leave_first() {
        let slots = Slots::new();
        assert!(slots.push(run(1, 1)));
        assert!(slots.push(CachedRun { tick: true, ..run(2, 9) }));
        assert!(slots.push(run(3, 12)));
        assert_eq!(slots.class_len(4), 2);
        assert_eq!(slots.take_oldest_of(4).map(|run| run.first.get()), Some(2));
        assert_eq!(slots.take_stale(true).map(|run| run.first.get()), Some(1));
        assert_eq!(slots.take_stale(true).map(|run| run.first.get()), Some(3));
        assert_eq!(slots.take_stale(true), None);
        slots.check_invariants();
    }

    #[test]
    fn masks_reach_the_last_bit() {
        assert_eq!(units_mask(1, 1), 1);
        assert_eq!(units_mask(32, 32), 1 << 31);
        assert_eq!(units_mask(1, 32), u32::MAX);
        assert_eq!(units_mask(3, 4), 0b1100);
    }
}
