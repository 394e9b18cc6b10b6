//! The free runs that one thread keeps: a lane for each length, the newest run first, linked through the route words of the runs.
//!
//! A run that is taken leaves *room* in its lane: the next one of its length may come without another look at the bounds of the
//! cache, which hold for runs and room together. So a request and a free of one length cost a few words each, in whatever
//! order they come. Room is also left by a request that would have found a run that was *turned away* for want of room: so what a
//! thread frees and never asks for again (the places that a growing block has left) is not kept.
//!
//! **Invariants.** `held == runs in the lane + room`, for each lane and in the sums. From the newest run of a lane to its oldest no age falls.

use crate::context::{LARGE_CLASS_COUNT, RunContext, large_class};
use core::cell::Cell;
use hakmem_atomic_ops::{Owned32, Owned64};
use hakmem_base::{SLABS_PER_SUPERSLAB, SlabIndex, fatal};
use hakmem_ownership::{Kept, RouteWord};

/// Runs of 1 to 32 units.
const LANES: usize = SLABS_PER_SUPERSLAB as usize;
/// Runs and room in all lanes together, at most; policy bounds them further. Looks for the oldest run go through all.
pub(crate) const MAX_RUNS: u32 = 64;
/// In a kept run's note: all of it is known to read as zero. It came in a bundle and was never handed out.
const ZEROED: u32 = 1 << 30;
/// The rest of the note: steps of the cache's clock when the run came.
const AGE_MASK: u32 = ZEROED - 1;

/// One in this many requests of a lane that has runs is sent on.
const TAKES_PER_REFUSAL: u64 = 1024;

const HELD_SHIFT: u32 = 16;
const ROOM_MASK: u32 = (1 << HELD_SHIFT) - 1;

/// A run that is in nobody's use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FreeRun {
    pub(crate) first: SlabIndex,
    pub(crate) units: u32,
    /// All of it is known to read as zero.
    pub(crate) zeroed: bool,
}

/// A set of lengths: bit `u - 1` stands for `u` units.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lengths(u32);

impl Lengths {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const ALL: Self = Self(u32::MAX);

    /// From `least` to `most` units, both within 1..=32.
    pub(crate) const fn between(least: u32, most: u32) -> Self {
        Self((u32::MAX << (least - 1)) & (u32::MAX >> (SLABS_PER_SUPERSLAB - most)))
    }

    const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    pub(crate) const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    const fn and(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }
}

/// The runs of one length.
struct Lane {
    /// First unit of the newest run; 0: none.
    head: Cell<u32>,
    /// `held << 16 | room`: runs and room, and of these the room: runs that may come without a look at the bounds. Other threads
    /// read it.
    balance: Owned32,
    /// Runs asked for in [`Lanes::take`] while there were some.
    taken: Owned64,
}

impl Lane {
    #[inline(always)]
    fn room(&self) -> u32 {
        self.balance.get() & ROOM_MASK
    }

    fn runs(&self) -> u32 {
        let balance = self.balance.get();
        (balance >> HELD_SHIFT) - (balance & ROOM_MASK)
    }
}

/// All lanes. All-zero bytes are empty ones.
pub(crate) struct Lanes {
    lanes: [Lane; LANES],
    /// Lengths of which there are runs or room.
    held_lengths: Cell<Lengths>,
    held_by_class: [Cell<u32>; LARGE_CLASS_COUNT],
    held_runs: Cell<u32>,
    held_units: Cell<u32>,
    /// What stands in the word of a run that comes now and finds its lane empty: its age. Set by the first room or run.
    stamp: Cell<Kept>,
    /// Age of the runs that came right behind the last trim.
    trimmed: Cell<u32>,
    /// For each length, runs since the last trim that found no room, and that no request has missed yet.
    turned_away: [Cell<u8>; LANES],
}

impl Lanes {
    pub(crate) const fn new() -> Self {
        Self {
            lanes: [const { Lane { head: Cell::new(0), balance: Owned32::new(0), taken: Owned64::new(0) } }; LANES],
            held_lengths: Cell::new(Lengths::NONE),
            held_by_class: [const { Cell::new(0) }; LARGE_CLASS_COUNT],
            held_runs: Cell::new(0),
            held_units: Cell::new(0),
            stamp: Cell::new(Kept::UNSET),
            trimmed: Cell::new(0),
            turned_away: [const { Cell::new(0) }; LANES],
        }
    }

    /// Takes the newest run of `place + 1` units; its word is `word_of(first unit)`. Now and then there is none all the same: who looks
    /// further then comes by where it is seen to what is due.
    #[inline(always)]
    pub(crate) fn take<'w>(
        &self,
        place: usize,
        word_of: impl Fn(u32) -> &'w RouteWord,
    ) -> Option<(u32, &'w RouteWord)> {
        let lane = self.lanes.get(place)?;
        let first = lane.head.get();
        if first == 0 {
            return None;
        }
        let word = word_of(first);
        lane.taken.add(1);
        if lane.taken.get().is_multiple_of(TAKES_PER_REFUSAL) {
            return None;
        }
        lane.head.set(word.kept().next());
        lane.balance.add(1);
        Some((first, word))
    }

    /// Puts a run of `place + 1` units into its lane if there is room, and if `keep` writes to its word what it is given.
    #[inline(always)]
    pub(crate) fn put(&self, place: usize, first: SlabIndex, keep: impl FnOnce(Kept) -> bool) -> bool {
        let Some(lane) = self.lanes.get(place) else { return false };
        if lane.room() == 0 || !keep(self.stamp.get().before(lane.head.get())) {
            return false;
        }
        lane.balance.sub(1);
        lane.head.set(first.get());
        true
    }

    /// Puts a run, whose word says "unused", into its lane if there is room.
    pub(crate) fn put_in_room(&self, cx: &RunContext<'_>, run: FreeRun) -> bool {
        let Some(lane) = self.lane(run.units).filter(|lane| lane.room() != 0) else { return false };
        lane.balance.sub(1);
        self.link(cx, run);
        true
    }

    /// Puts a run, whose word says "unused", into its lane. The caller has looked at the bounds.
    pub(crate) fn put_new(&self, cx: &RunContext<'_>, run: FreeRun) {
        self.hold(run.units, 1);
        self.link(cx, run);
    }

    fn link(&self, cx: &RunContext<'_>, run: FreeRun) {
        let age = (self.stamp.get().note() + 1) & AGE_MASK;
        self.stamp.set(Kept::new(age));
        let note = Kept::new(age | if run.zeroed { ZEROED } else { 0 });
        let Some(lane) = self.lane(run.units) else { return };
        word(cx, run.first).keep(note.before(lane.head.get()));
        lane.head.set(run.first.get());
    }

    /// A run of `units` units is given back that found no room.
    pub(crate) fn turn_away(&self, units: u32) {
        if let Some(count) = self.turned_away(units) {
            count.set((count.get() + 1).min(MAX_RUNS as u8));
        }
    }

    /// Whether a request for `units` units, which no run serves, would have found one that was turned away. Each counts once.
    pub(crate) fn is_missed(&self, units: u32) -> bool {
        let Some(count) = self.turned_away(units) else { return false };
        let before = count.get();
        count.set(before.saturating_sub(1));
        before != 0
    }

    /// Leaves room for one run of this length. The caller has looked at the bounds.
    pub(crate) fn leave_room(&self, units: u32) {
        // The run that comes may be the first of all, by the short way, which does not set it.
        self.stamp.set(Kept::new(self.stamp.get().note()));
        self.hold(units, 1);
        if let Some(lane) = self.lane(units) {
            lane.balance.add(1);
        }
    }

    /// The newest of the shortest runs of `units..=widest` units that begin at a multiple of `align_units`. It leaves room.
    pub(crate) fn take_fit(&self, cx: &RunContext<'_>, units: u32, widest: u32, align_units: u32) -> Option<FreeRun> {
        let is_aligned = |first: SlabIndex, _| first.get() & (align_units - 1) == 0;
        let wanted = Lengths::between(units, widest);
        self.held(wanted).find_map(|units| self.take_where(cx, units, is_aligned))
    }

    /// The run that begins at `first`. It leaves none.
    pub(crate) fn remove_at(&self, cx: &RunContext<'_>, wanted: SlabIndex) -> Option<FreeRun> {
        self.held(Lengths::ALL).find_map(|units| self.remove_where(cx, units, |first, _| first == wanted))
    }

    /// Any run.
    pub(crate) fn remove_any(&self, cx: &RunContext<'_>) -> Option<FreeRun> {
        self.held(Lengths::ALL).find_map(|units| self.remove_where(cx, units, |_, _| true))
    }

    /// The run of one of these lengths that came first.
    pub(crate) fn remove_oldest(&self, cx: &RunContext<'_>, lengths: Lengths) -> Option<FreeRun> {
        let oldest_of = |units| self.walk(cx, units).last().map(|(_, kept)| (self.age(kept), units));
        let (_, units) = self.held(lengths).filter_map(oldest_of).max()?;
        self.remove_where(cx, units, |_, kept| kept.next() == 0)
    }

    /// A run that came before the last trim.
    pub(crate) fn remove_stale(&self, cx: &RunContext<'_>) -> Option<FreeRun> {
        let fresh_age = self.age(Kept::new(self.trimmed.get()));
        let is_stale = |_, kept| self.age(kept) > fresh_age;
        self.held(Lengths::ALL).find_map(|units| self.remove_where(cx, units, is_stale))
    }

    /// What comes from now on is fresh at the next trim, and what was turned away before is missed no more.
    pub(crate) fn note_trim(&self) {
        let age = (self.stamp.get().note() + 1) & AGE_MASK;
        self.stamp.set(Kept::new(age));
        self.trimmed.set(age);
        self.turned_away.iter().for_each(|count| count.set(0));
    }

    /// Forgets the room for runs of these lengths: what comes next looks at the bounds. False: there was none.
    pub(crate) fn forget_room(&self, lengths: Lengths) -> bool {
        let mut forgotten = 0;
        for units in self.held(lengths) {
            let Some(lane) = self.lane(units) else { continue };
            let room = lane.room();
            if room != 0 {
                lane.balance.sub(room);
                self.hold(units, room.wrapping_neg());
                forgotten += room;
            }
        }
        forgotten != 0
    }

    /// Runs and room.
    pub(crate) fn held_runs(&self) -> u32 {
        self.held_runs.get()
    }

    /// Units of runs and room.
    pub(crate) fn held_units(&self) -> u32 {
        self.held_units.get()
    }

    /// Runs and room of a class.
    pub(crate) fn held_of(&self, class: usize) -> u32 {
        self.held_by_class.get(class).map_or(0, Cell::get)
    }

    /// Units of the runs. Other threads ask too.
    pub(crate) fn units(&self) -> u32 {
        (1..).zip(&self.lanes).map(|(units, lane)| units * lane.runs()).sum()
    }

    /// Runs taken by [`Lanes::take`], with their units. Other threads ask too.
    pub(crate) fn taken(&self) -> impl Iterator<Item = (u32, u64)> {
        (1..).zip(self.lanes.iter().map(|lane| lane.taken.get() - lane.taken.get() / TAKES_PER_REFUSAL))
    }

    /// Panics (tests) or aborts if the counts do not agree with the runs.
    pub(crate) fn check_invariants(&self, cx: &RunContext<'_>) {
        let fact = |holds: bool, what: &'static str| {
            if !holds {
                fatal(what);
            }
        };
        let (mut held_runs, mut held_units, mut held_by_class) = (0, 0, [0; LARGE_CLASS_COUNT]);
        for (units, lane) in (1..).zip(&self.lanes) {
            let runs = self.walk(cx, units).take(MAX_RUNS as usize + 1).count() as u32;
            fact(lane.runs() == runs, "run cache: a lane's runs and room do not balance");
            let ages = || self.walk(cx, units).map(|(_, kept)| self.age(kept));
            fact(ages().is_sorted(), "run cache: an older run stands before a newer one");
            let is_held = self.held_lengths.get().and(Lengths::between(units, units)) != Lengths::NONE;
            fact(is_held == (runs + lane.room() != 0), "run cache: a length is held that is not, or is not that is");
            held_runs += runs + lane.room();
            held_units += (runs + lane.room()) * units;
            if let Some(sum) = held_by_class.get_mut(large_class(units)) {
                *sum += runs + lane.room();
            }
        }
        fact((held_runs, held_units) == (self.held_runs(), self.held_units()), "run cache: sums do not balance");
        fact(held_runs <= MAX_RUNS, "run cache: more runs than the cache may have");
        fact(held_by_class == self.held_by_class.each_ref().map(Cell::get), "run cache: class sums do not balance");
    }

    fn turned_away(&self, units: u32) -> Option<&Cell<u8>> {
        self.turned_away.get(units.wrapping_sub(1) as usize)
    }

    fn lane(&self, units: u32) -> Option<&Lane> {
        self.lanes.get(units.wrapping_sub(1) as usize)
    }

    /// Steps of the clock since a run came.
    fn age(&self, kept: Kept) -> u32 {
        self.stamp.get().note().wrapping_sub(kept.note()) & AGE_MASK
    }

    /// Counts `change` (wrapping) more runs and room of one length.
    fn hold(&self, units: u32, change: u32) {
        let add = |sum: &Cell<u32>, change: u32| sum.set(sum.get().wrapping_add(change));
        if let Some(lane) = self.lane(units) {
            lane.balance.add(change << HELD_SHIFT);
            let (this, others) = (Lengths::between(units, units), self.held_lengths.get());
            self.held_lengths.set(if lane.balance.get() == 0 { others.without(this) } else { others.with(this) });
        }
        if let Some(sum) = self.held_by_class.get(large_class(units)) {
            add(sum, change);
        }
        add(&self.held_runs, change);
        add(&self.held_units, change.wrapping_mul(units));
    }

    /// Those of `lengths` of which there are runs or room, shortest first.
    fn held(&self, lengths: Lengths) -> impl Iterator<Item = u32> {
        let mut rest = self.held_lengths.get().and(lengths).0;
        core::iter::from_fn(move || {
            let units = (rest != 0).then(|| rest.trailing_zeros() + 1);
            rest &= rest.wrapping_sub(1);
            units
        })
    }

    /// The runs of one length, newest first.
    fn walk<'a>(&'a self, cx: &'a RunContext<'_>, units: u32) -> impl Iterator<Item = (SlabIndex, Kept)> + 'a {
        let mut next = self.lane(units).map_or(0, |lane| lane.head.get());
        core::iter::from_fn(move || {
            let first = SlabIndex::from_link(next)?;
            let kept = word(cx, first).kept();
            next = kept.next();
            Some((first, kept))
        })
    }

    /// Takes the newest run of this length that `wanted` agrees to out of its lane; it leaves room.
    fn take_where(&self, cx: &RunContext<'_>, units: u32, wanted: impl Fn(SlabIndex, Kept) -> bool) -> Option<FreeRun> {
        let lane = self.lane(units)?;
        let mut before = None;
        for (first, kept) in self.walk(cx, units) {
            if !wanted(first, kept) {
                before = Some((first, kept));
                continue;
            }
            match before {
                None => lane.head.set(kept.next()),
                Some((newer, note)) => word(cx, newer).keep(Kept::new(note.note()).before(kept.next())),
            }
            word(cx, first).retire();
            lane.balance.add(1);
            return Some(FreeRun { first, units, zeroed: kept.note() & ZEROED != 0 });
        }
        None
    }

    /// As [`Lanes::take_where`], but no room is left.
    fn remove_where(
        &self,
        cx: &RunContext<'_>,
        units: u32,
        wanted: impl Fn(SlabIndex, Kept) -> bool,
    ) -> Option<FreeRun> {
        let run = self.take_where(cx, units, wanted)?;
        self.lane(units)?.balance.sub(1);
        self.hold(units, 1_u32.wrapping_neg());
        Some(run)
    }
}

fn word<'a>(cx: &RunContext<'a>, first: SlabIndex) -> &'a RouteWord {
    match cx.word(first) {
        Some(word) => word,
        None => fatal("a kept run lies outside the window"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_reach_from_the_first_to_the_last() {
        assert_eq!(Lengths::between(1, 1).0, 1);
        assert_eq!(Lengths::between(32, 32).0, 1 << 31);
        assert_eq!(Lengths::between(1, 32), Lengths::ALL);
        assert_eq!(Lengths::between(3, 4).0, 0b1100);
        assert_eq!(Lengths::between(4, 3), Lengths::NONE);
    }
}
