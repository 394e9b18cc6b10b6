//! What other purge delays and huge-page sizes would have done with the same takes and gives.
//!
//! Beside each superslab's record stands a ghost: for every delay of a short list, which of its units would have pages now. Takes
//! and gives move all of them at once. A ghost is brought up to date when its superslab is next touched or read, so that it costs
//! nothing while nothing happens to it, and it exists only while somebody watches.
//!
//! What it leaves out: that other pages being there would have changed where units are taken, that a unit may be touched in
//! part, and the warm pool.
//!
//! **Invariants.** A longer delay never has fewer units present than a shorter one; what is used is present with all of them.

use hakmem_base::{DELAYS, DELAYS_MS, Hindsight, LEVELS, ZeroValid};

use crate::bits::ALL;
use crate::table::FlatTable;

/// The level of a superslab that has huge pages whatever the size of the heap is.
pub const ALWAYS_HUGE: u8 = LEVELS as u8 - 1;
/// Times without any visit that are remembered, and the shortest (ms) that is.
const GAPS: usize = 32;
const GAP_MS: u32 = 8;

/// When somebody came by who would have purged what was due. In band nobody does while the program rests.
#[derive(Clone, Copy, Debug)]
pub struct Visits {
    last: u32,
    /// Begin and end, oldest first.
    gaps: [(u32, u32); GAPS],
}

impl Visits {
    /// Nobody came.
    pub const NONE: Self = Self { last: 0, gaps: [(0, 0); GAPS] };

    /// Somebody is here now (ms, of a clock that may come round).
    pub fn note(&mut self, now: u32) {
        if now.wrapping_sub(self.last) >= GAP_MS {
            self.gaps.rotate_left(1);
            let [.., newest] = &mut self.gaps;
            *newest = (self.last, now);
        }
        self.last = now;
    }

    /// When what is due at `due` goes; `None`: not yet.
    fn first_since(&self, due: u32) -> Option<u32> {
        if is_before(self.last, due) {
            return None;
        }
        let gap = self.gaps.iter().rev().find(|(begin, end)| is_before(*begin, due) && !is_before(*end, due));
        Some(gap.map_or(due, |(_, end)| *end))
    }
}

/// Whether a time is before another one, less than half a turn of the clock away.
const fn is_before(time: u32, other: u32) -> bool {
    (time.wrapping_sub(other) as i32) < 0
}

/// What would be of one superslab under each delay.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Ghost {
    /// Units handed out.
    held: u32,
    freed_at: u32,
    settled_at: u32,
    level: u16,
    /// It has been without any page again since it was first taken from.
    is_reused: bool,
    reserved: u8,
    /// Units with pages, by delay, if none of them is huge.
    there: [u32; DELAYS],
    /// Units that were touched, or purged, since the superslab was last without any page.
    known: [u32; DELAYS],
}

// SAFETY: every field is a number.
unsafe impl ZeroValid for Ghost {}

impl Ghost {
    /// A superslab that was in use before anybody watched.
    #[must_use]
    pub fn seen(held: u32, dirty: u32, is_huge: bool, now: u32) -> Self {
        let level = if is_huge { ALWAYS_HUGE.into() } else { 0 };
        let known = if is_huge { ALL } else { dirty | held };
        Self {
            held,
            freed_at: now,
            settled_at: now,
            level,
            is_reused: true,
            reserved: 0,
            there: [dirty | held; DELAYS],
            known: [if dirty | held == 0 { 0 } else { known }; DELAYS],
        }
    }

    /// Units are handed out, in a heap of this level, and those that are also in `touched` will be used. The delays (one bit each)
    /// with which the superslab had no page.
    pub fn take(
        &mut self,
        units: u32,
        touched: u32,
        level: u8,
        now: u32,
        visits: &Visits,
        sums: &mut Hindsight,
    ) -> u32 {
        self.settle(now, visits, sums);
        self.held |= units;
        let (mut opened, units) = (0, units & touched);
        if units == 0 {
            return 0;
        }
        for (delay, (there, known)) in self.there.iter_mut().zip(&mut self.known).enumerate() {
            let is_opened = *known == 0;
            if is_opened {
                self.level = self.level.max(level.into());
                opened |= 1 << delay;
            }
            let missing = units & !*there;
            let place = (delay, self.level as usize);
            let firsts = count(missing & !*known);
            if self.is_reused {
                add(&mut sums.openings, place, u64::from(is_opened));
                add(&mut sums.firsts, place, firsts);
            }
            sum(&mut sums.refaults, delay, count(missing & *known));
            *there |= units;
            *known |= units;
        }
        opened
    }

    /// Gives up what has idled for `idle_ms`, as long as `debts` has units that the process grew by with a delay.
    pub fn make_way(
        &mut self,
        debts: &mut [u32; DELAYS],
        idle_ms: u32,
        now: u32,
        visits: &Visits,
        sums: &mut Hindsight,
    ) {
        if now.wrapping_sub(self.freed_at) < idle_ms {
            return;
        }
        self.settle(now, visits, sums);
        let held = self.held;
        for (delay, debt) in debts.iter_mut().enumerate().filter(|(_, debt)| **debt > 0) {
            let pair = self.there.get_mut(delay).zip(self.known.get_mut(delay));
            if let Some((there, known)) = pair.filter(|(there, _)| **there & !held != 0) {
                *debt = debt.saturating_sub((*there & !held).count_ones());
                purge(there, known, held, delay, sums);
                self.is_reused |= held == 0;
            }
        }
    }

    /// Units come back, with their contents or without.
    pub fn give(&mut self, units: u32, is_clean: bool, now: u32, visits: &Visits, sums: &mut Hindsight) {
        self.settle(now, visits, sums);
        self.held &= !units;
        self.freed_at = now;
        if is_clean {
            for (there, known) in self.there.iter_mut().zip(&mut self.known) {
                *there &= !units;
                *known = if *there == 0 { 0 } else { *known };
            }
            self.is_reused |= self.held == 0;
        }
    }

    /// Accounts for the time up to now.
    pub fn settle(&mut self, now: u32, visits: &Visits, sums: &mut Hindsight) {
        let since = core::mem::replace(&mut self.settled_at, now);
        let (held, level) = (self.held, self.level as usize);
        for (delay, (there, known)) in self.there.iter_mut().zip(&mut self.known).enumerate() {
            let waiting = *there & !held;
            let air = if *known == 0 { 0 } else { !*known };
            if waiting | air == 0 {
                continue;
            }
            let delay_ms = DELAYS_MS.get(delay).copied().filter(|delay_ms| waiting != 0 && *delay_ms != u32::MAX);
            let due = delay_ms.map(|delay_ms| self.freed_at.wrapping_add(delay_ms));
            let gone_at = due.and_then(|due| visits.first_since(due)).filter(|at| !is_before(now, *at));
            let end = gone_at.map_or(now, |at| if is_before(at, since) { since } else { at });
            let elapsed = u64::from(end.wrapping_sub(since));
            add(&mut sums.air_unit_ms, (delay, level), count(air) * elapsed);
            sum(&mut sums.kept_unit_ms, delay, count(waiting) * elapsed);
            if gone_at.is_some() {
                purge(there, known, held, delay, sums);
                self.is_reused |= held == 0;
            }
        }
    }

    /// Whether time changes nothing: no reading needs to settle it.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let waits = |there: &u32| there & !self.held != 0;
        let has_air = |known: &u32| *known != 0 && *known != ALL;
        !self.there.iter().any(waits) && !self.known.iter().any(has_air)
    }
}

/// What is free of a superslab goes.
fn purge(there: &mut u32, known: &mut u32, held: u32, delay: usize, sums: &mut Hindsight) {
    sum(&mut sums.purged, delay, count(*there & !held));
    sum(&mut sums.purges, delay, 1);
    // Part of a huge page is gone: what is left has small ones.
    (*there, *known) = if held == 0 { (0, 0) } else { (*there & held, *known | !held) };
}

fn sum(sums: &mut [u64; DELAYS], delay: usize, more: u64) {
    if let Some(sum) = sums.get_mut(delay) {
        *sum += more;
    }
}

/// The ghosts of a window while somebody watches.
#[derive(Debug)]
pub(crate) struct Watch {
    ghosts: FlatTable<Ghost>,
    is_on: bool,
    visits: Visits,
    sums: Hindsight,
    read_at: u32,
    /// Where readings and growth go on.
    hand: u32,
}

/// Ghosts that one reading brings up to date, and that one growth looks at: the pool's lock is held meanwhile.
const GHOSTS_PER_READING: u32 = 4096;
const GHOSTS_PER_GROWTH: u32 = 256;
/// Ages (ms) at which memory makes way for growth, longest first; the last one is the purger's.
const IDLE_MS: [u32; 3] = [2000, 200, crate::purge::IDLE_MS];

impl Watch {
    pub(crate) const fn new() -> Self {
        Self {
            ghosts: FlatTable::empty(),
            is_on: false,
            visits: Visits::NONE,
            sums: Hindsight::EMPTY,
            read_at: 0,
            hand: 0,
        }
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.is_on
    }

    /// Begins anew with these superslabs, or ends. Without memory for the ghosts nobody watches.
    pub(crate) fn set(&mut self, is_on: bool, superslabs: u32, now: u32) {
        self.is_on = false;
        if !is_on {
            return;
        }
        if self.ghosts.is_empty() {
            let Some(ghosts) = FlatTable::reserve(superslabs as usize) else { return };
            self.ghosts = ghosts;
        }
        (self.is_on, self.visits, self.read_at) = (true, Visits::NONE, now);
        self.visits.note(now);
    }

    /// What a superslab is like when watching begins.
    pub(crate) fn begin(&mut self, superslab: u32, held: u32, dirty: u32, is_huge: bool, now: u32) {
        if let Some(ghost) = self.ghosts.get_mut(superslab as usize) {
            *ghost = Ghost::seen(held, dirty, is_huge, now);
        }
    }

    /// Somebody purges what is due.
    pub(crate) fn visit(&mut self, now: u32) {
        if self.is_on {
            self.visits.note(now);
        }
    }

    pub(crate) fn take(&mut self, superslab: u32, units: u32, touched: u32, level: u8, now: u32) -> u32 {
        let Some(ghost) = self.ghosts.get_mut(superslab as usize).filter(|_| self.is_on) else { return 0 };
        self.visits.note(now);
        ghost.take(units, touched, level, now, &self.visits, &mut self.sums)
    }

    pub(crate) fn give(&mut self, superslab: u32, units: u32, is_clean: bool, now: u32) {
        let Some(ghost) = self.ghosts.get_mut(superslab as usize).filter(|_| self.is_on) else { return };
        self.visits.note(now);
        ghost.give(units, is_clean, now, &self.visits, &mut self.sums);
    }

    /// An extent was taken that made the process grow by so many units with each delay: what has idled makes way.
    pub(crate) fn make_way(&mut self, mut debts: [u32; DELAYS], committed: u32, now: u32) {
        let [.., never] = &mut debts;
        *never = 0;
        let first = self.hand;
        for idle_ms in IDLE_MS {
            for step in 0..committed.min(GHOSTS_PER_GROWTH) {
                if !self.is_on || debts == [0; DELAYS] {
                    return;
                }
                self.hand = (first + step) % committed.max(1);
                if let Some(ghost) = self.ghosts.get_mut(self.hand as usize) {
                    ghost.make_way(&mut debts, idle_ms, now, &self.visits, &mut self.sums);
                }
            }
        }
    }

    /// Everything up to now; of a large window in turns.
    pub(crate) fn read(&mut self, committed: u32, now: u32) -> Hindsight {
        if self.is_on {
            for _ in 0..committed.min(GHOSTS_PER_READING) {
                self.hand = (self.hand + 1) % committed.max(1);
                if let Some(ghost) = self.ghosts.get_mut(self.hand as usize).filter(|ghost| !ghost.is_at_rest()) {
                    ghost.settle(now, &self.visits, &mut self.sums);
                }
            }
            let since = core::mem::replace(&mut self.read_at, now);
            self.sums.elapsed_ms += u64::from(now.wrapping_sub(since));
        }
        self.sums
    }
}

fn count(units: u32) -> u64 {
    u64::from(units.count_ones())
}

fn add(sums: &mut [[u64; LEVELS]; DELAYS], (delay, level): (usize, usize), more: u64) {
    if let Some(sum) = sums.get_mut(delay).and_then(|levels| levels.get_mut(level)) {
        *sum += more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits::mask;
    use proptest::prelude::*;

    /// A superslab that somebody visits all the time, one that nobody does while it rests.
    struct Alone {
        ghost: Ghost,
        visits: Visits,
        sums: Hindsight,
    }

    impl Alone {
        fn new() -> Self {
            Self { ghost: Ghost::default(), visits: Visits::NONE, sums: Hindsight::EMPTY }
        }

        fn take(&mut self, units: u32, now: u32) {
            self.visits.note(now);
            self.ghost.take(units, ALL, 1, now, &self.visits, &mut self.sums);
        }

        fn give(&mut self, units: u32, now: u32) {
            self.visits.note(now);
            self.ghost.give(units, false, now, &self.visits, &mut self.sums);
        }

        fn visit_until(&mut self, from: u32, to: u32) {
            (from..=to).for_each(|now| self.visits.note(now));
        }
    }

    const PLACE_OF_300_MS: usize = 3;

    #[test]
    fn what_comes_back_after_a_while_would_have_been_gone_with_shorter_delays() {
        let mut alone = Alone::new();
        alone.take(ALL, 1000);
        alone.give(mask(0, 8), 1000);
        alone.visit_until(1001, 1500);
        alone.take(mask(0, 8), 1500);
        assert_eq!(alone.sums.refaults, [8, 8, 8, 8, 0, 0, 0, 0]);
        assert_eq!(alone.sums.firsts, [[0; LEVELS]; DELAYS], "the first time is nobody's");
        assert_eq!(alone.sums.kept_unit_ms[PLACE_OF_300_MS], 8 * 300);
        assert_eq!(alone.sums.kept_unit_ms[DELAYS - 1], 8 * 500);
        assert_eq!(alone.sums.purges, [1, 1, 1, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn memory_of_a_program_that_rests_is_purged_by_who_comes_next() {
        let mut alone = Alone::new();
        alone.take(ALL, 1000);
        alone.give(mask(0, 8), 1000);
        alone.take(mask(31, 1), 1900);
        assert_eq!(alone.sums.kept_unit_ms[0], 8 * 900, "nobody was there after 10 ms");
        assert_eq!(alone.sums.purges, [1, 1, 1, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn a_free_superslab_that_is_purged_is_opened_anew_and_with_huge_pages_its_air_counts() {
        let mut alone = Alone::new();
        alone.take(mask(0, 4), 1000);
        alone.give(mask(0, 4), 1000);
        alone.visit_until(1001, 1500);
        alone.take(mask(0, 4), 1500);
        assert_eq!(alone.sums.openings[0][1], 1);
        assert_eq!(alone.sums.firsts[0][1], 4);
        assert_eq!((alone.sums.openings[DELAYS - 1][1], alone.sums.refaults[0]), (0, 0));
        // 28 units of air, until the pages of the shortest delay went.
        assert_eq!(alone.sums.air_unit_ms[0][1], 28 * 10);
        assert_eq!(alone.sums.air_unit_ms[DELAYS - 1][1], 28 * 500);
        assert!(!alone.ghost.is_at_rest(), "air takes memory as long as it is there");
    }

    #[test]
    fn what_idles_makes_way_for_growth() {
        let mut alone = Alone::new();
        alone.take(ALL, 1000);
        alone.give(ALL, 1000);
        let mut debts = [32, 0, 0, 32, 32, 0, 0, 0];
        alone.visits.note(1050);
        alone.ghost.make_way(&mut debts, 100, 1050, &alone.visits, &mut alone.sums);
        assert_eq!(debts, [32, 0, 0, 32, 32, 0, 0, 0], "too young");
        alone.ghost.make_way(&mut debts, 20, 1050, &alone.visits, &mut alone.sums);
        assert_eq!(debts, [32, 0, 0, 0, 0, 0, 0, 0], "with the shortest delay nothing was left");
        alone.take(ALL, 1060);
        assert_eq!(alone.sums.openings.map(|levels| levels[1]), [1, 1, 0, 1, 1, 0, 0, 0]);
    }

    #[test]
    fn what_is_given_back_clean_has_no_pages() {
        let mut alone = Alone::new();
        alone.take(ALL, 1000);
        alone.ghost.give(ALL, true, 1001, &alone.visits, &mut alone.sums);
        assert!(alone.ghost.is_at_rest());
        alone.take(ALL, 1002);
        assert_eq!(alone.sums.openings.map(|levels| levels[1]), [1; DELAYS]);
    }

    #[test]
    fn a_clock_that_comes_round_makes_no_difference() {
        let run = |start: u32| {
            let mut alone = Alone::new();
            alone.visits.note(start);
            alone.take(ALL, start);
            alone.give(mask(3, 5), start.wrapping_add(10));
            alone.take(mask(3, 5), start.wrapping_add(700));
            alone.sums
        };
        assert_eq!(run(1000), run(u32::MAX - 300));
    }

    proptest! {
        #[test]
        fn a_longer_delay_never_has_fewer_pages(
            steps in prop::collection::vec((any::<bool>(), 0..32_u32, 1..=32_u32, 0..2000_u32), 1..60)
        ) {
            let mut alone = Alone::new();
            let mut now = 5000;
            for (is_take, slot, units, wait) in steps {
                now += wait;
                let units = mask(slot, units.min(32 - slot));
                if is_take {
                    alone.take(units & !alone.ghost.held, now);
                } else {
                    alone.give(units & alone.ghost.held, now);
                }
                prop_assert!(alone.ghost.there.is_sorted_by(|shorter, longer| shorter & !longer == 0));
                prop_assert_eq!(alone.ghost.there[0] & alone.ghost.held, alone.ghost.held);
            }
            prop_assert!(alone.sums.refaults.is_sorted_by(|shorter, longer| shorter >= longer) || alone.sums.firsts[0][1] > 0);
            prop_assert!(alone.sums.kept_unit_ms.is_sorted());
        }
    }
}
