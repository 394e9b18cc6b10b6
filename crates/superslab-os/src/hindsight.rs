//! What other purge delays and huge-page sizes would have done with the same takes and gives.
//!
//! Beside each superslab's record stands a ghost: for every delay of a short list, which of its units would have pages now. Takes
//! and gives move all of them at once. A ghost is brought up to date when its superslab is next touched or read, so that it costs
//! nothing while nothing happens to it, and it exists only while somebody watches.
//!
//! There are two kinds of worlds ([`Hindsight`]): one delay in this season, and one in the season before it. When a season ends,
//! its worlds live on beside those of the next, all under the delay that really runs, until that one ends too: what its delay let
//! go is missed by then, or hardly ever. The worlds of the next begin with what there really is.
//!
//! Who learns also gives back what is due, at once, so that memory goes when its delay has passed. One more world says what would have
//! been without: under the first delay, of memory that goes when the program next takes or gives some. (OBSERVE watches and gives
//! nothing back; nobody reads the account there.)
//!
//! What it leaves out: that other pages being there would have changed where units are taken, that a unit may be touched in
//! part, and the warm pool.
//!
//! **Invariants.** A longer delay never has fewer units present than a shorter one of its kind; what is used is present with all of
//! them.

use hakmem_base::{DELAYS, DELAYS_MS, Flow, Hindsight, LEVELS, ZeroValid};

use crate::bits::ALL;
use crate::purge::idle_ms;
use crate::table::FlatTable;

/// The level of a superslab that has huge pages whatever the size of the heap is.
pub const ALWAYS_HUGE: u8 = LEVELS as u8 - 1;
/// Worlds: those of each kind, one after the other, and the one in which nobody learns.
pub const WORLDS: usize = 2 * DELAYS + 1;
const BEFORE: usize = DELAYS;
const UNLEARNED: usize = 2 * DELAYS;
/// Times without any visit that are remembered, and the shortest (ms) that is.
const GAPS: usize = 32;
const GAP_MS: u32 = 8;

/// When the program took or gave memory, and would have purged what was due: while it rests, only who learns does.
#[derive(Clone, Copy, Debug)]
struct Visits {
    last: u32,
    /// Begin and end, oldest first.
    gaps: [(u32, u32); GAPS],
}

impl Visits {
    /// Nobody came.
    const NONE: Self = Self { last: 0, gaps: [(0, 0); GAPS] };

    /// Somebody is here now (ms, of a clock that may come round).
    fn note(&mut self, now: u32) {
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

/// What all ghosts have in common: what really runs.
#[derive(Clone, Copy, Debug)]
pub struct Era {
    visits: Visits,
    /// The delay (ms) of the world in which nobody learns.
    first_delay_ms: u32,
    /// The purge delay (ms) that is in force; `u32::MAX`: never.
    delay_ms: u32,
    /// Its place on the list, or that of the next longer one.
    delay: u8,
    /// Counts seasons.
    season: u8,
    /// The delay that was in force when this one began.
    delay_before: u8,
}

impl Era {
    /// Nothing is purged.
    pub const NONE: Self = Self {
        visits: Visits::NONE,
        first_delay_ms: u32::MAX,
        delay_ms: u32::MAX,
        delay: DELAYS as u8 - 1,
        season: 0,
        delay_before: 0,
    };

    /// Begins, with this delay.
    #[must_use]
    pub fn new(delay_ms: u32) -> Self {
        let mut era = Self { first_delay_ms: delay_ms, ..Self::NONE };
        era.set_delay(delay_ms);
        era
    }

    /// The program takes or gives memory (ms, of a clock that may come round).
    pub fn visit(&mut self, now: u32) {
        self.visits.note(now);
    }

    /// Another delay is in force.
    pub fn set_delay(&mut self, delay_ms: u32) {
        let shorter = DELAYS_MS.iter().filter(|listed| **listed < delay_ms).count();
        (self.delay_ms, self.delay) = (delay_ms, shorter.min(DELAYS - 1) as u8);
    }

    /// Another season begins, in which another delay may be in force.
    pub const fn turn(&mut self) {
        (self.season, self.delay_before) = (self.season.wrapping_add(1), self.delay);
    }

    /// The delay of a world (ms); none if nothing is purged there.
    fn delay_of(&self, world: usize) -> Option<u32> {
        let delay_ms = match world {
            0..BEFORE => DELAYS_MS.get(world).copied().unwrap_or(u32::MAX),
            UNLEARNED => self.first_delay_ms,
            _ => self.delay_ms,
        };
        Some(delay_ms).filter(|delay_ms| *delay_ms != u32::MAX)
    }
}

/// What would be of one superslab in each world.
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
    /// The season that its worlds are of.
    season: u8,
    /// Units with pages, by world, if none of them is huge.
    there: [u32; WORLDS],
    /// Units that were touched, or purged, since the superslab was last without any page.
    known: [u32; WORLDS],
}

// SAFETY: every field is a number.
unsafe impl ZeroValid for Ghost {}

impl Ghost {
    /// A superslab that was in use before anybody watched.
    #[must_use]
    pub fn seen(held: u32, dirty: u32, is_huge: bool, now: u32, era: &Era) -> Self {
        let level = if is_huge { ALWAYS_HUGE.into() } else { 0 };
        let known = if is_huge { ALL } else { dirty | held };
        Self {
            held,
            freed_at: now,
            settled_at: now,
            level,
            is_reused: true,
            season: era.season,
            there: [dirty | held; WORLDS],
            known: [if dirty | held == 0 { 0 } else { known }; WORLDS],
        }
    }

    /// Units are handed out, in a heap of this level, and those that are also in `touched` will be used. The worlds (one bit each)
    /// in which the superslab had no page.
    pub fn take(&mut self, units: u32, touched: u32, level: u8, now: u32, era: &Era, sums: &mut Hindsight) -> u32 {
        self.settle(now, era, sums);
        self.held |= units;
        let (mut opened, units) = (0, units & touched);
        // With the shortest delays fewest are there.
        let everywhere =
            [0, BEFORE, UNLEARNED].iter().filter_map(|world| self.there.get(*world)).fold(ALL, |all, one| all & one);
        if units & !everywhere == 0 {
            return 0;
        }
        let pages = self.there.iter_mut().zip(&mut self.known);
        for (world, ((there, known), flow)) in pages.zip(sums.worlds()).enumerate() {
            let is_opened = *known == 0;
            if is_opened {
                self.level = self.level.max(level.into());
                opened |= 1 << world;
            }
            let missing = units & !*there;
            if missing != 0 {
                if self.is_reused {
                    add(&mut flow.openings, self.level, u64::from(is_opened));
                    add(&mut flow.firsts, self.level, count(missing & !*known));
                }
                flow.refaults += count(missing & *known);
            }
            *there |= units;
            *known |= units;
        }
        opened
    }

    /// Gives up what has idled for `least_ms`, and for as long as its world asks, while `debts` has units that the process grew by there.
    pub fn make_way(&mut self, debts: &mut [u32; WORLDS], least_ms: u32, now: u32, era: &Era, sums: &mut Hindsight) {
        let age_ms = now.wrapping_sub(self.freed_at);
        if age_ms < least_ms {
            return;
        }
        self.settle(now, era, sums);
        let held = self.held;
        let pages = self.there.iter_mut().zip(&mut self.known);
        for (world, ((debt, (there, known)), flow)) in debts.iter_mut().zip(pages).zip(sums.worlds()).enumerate() {
            let is_old = era.delay_of(world).is_some_and(|delay_ms| age_ms >= idle_ms(delay_ms));
            if *debt > 0 && is_old && *there & !held != 0 {
                *debt = debt.saturating_sub((*there & !held).count_ones());
                purge(there, known, held, flow);
                self.is_reused |= held == 0;
            }
        }
    }

    /// Units come back, with their contents or without.
    pub fn give(&mut self, units: u32, is_clean: bool, now: u32, era: &Era, sums: &mut Hindsight) {
        self.settle(now, era, sums);
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
    pub fn settle(&mut self, now: u32, era: &Era, sums: &mut Hindsight) {
        // Most takes and gives follow each other closely, and nothing is due in no time.
        if now == self.settled_at && self.season == era.season {
            return;
        }
        let since = core::mem::replace(&mut self.settled_at, now);
        let held = self.held;
        let pages = self.there.iter_mut().zip(&mut self.known);
        for (world, ((there, known), flow)) in pages.zip(sums.worlds()).enumerate() {
            let waiting = *there & !held;
            let air = if *known == 0 { 0 } else { !*known };
            if waiting | air == 0 {
                continue;
            }
            let delay_ms = era.delay_of(world).filter(|_| waiting != 0);
            let due = delay_ms.map(|delay_ms| self.freed_at.wrapping_add(delay_ms));
            let gone_at = due.and_then(|due| if world == UNLEARNED { era.visits.first_since(due) } else { Some(due) });
            let gone_at = gone_at.filter(|at| !is_before(now, *at));
            let end = gone_at.map_or(now, |at| if is_before(at, since) { since } else { at });
            let elapsed = u64::from(end.wrapping_sub(since));
            add(&mut flow.air_unit_ms, self.level, count(air) * elapsed);
            flow.kept_unit_ms += count(waiting) * elapsed;
            if gone_at.is_some() {
                purge(there, known, held, flow);
                self.is_reused |= held == 0;
            }
        }
        self.turn(era);
    }

    /// If another season has begun: the worlds of the last one go on as those before, and all new ones are as it really is.
    fn turn(&mut self, era: &Era) {
        if self.season == era.season {
            return;
        }
        self.season = era.season;
        for pages in [&mut self.there, &mut self.known] {
            let (here, others) = pages.split_at_mut(BEFORE);
            others.iter_mut().zip(&*here).for_each(|(before, here)| *before = *here);
            let real = here.get(usize::from(era.delay_before)).copied().unwrap_or(0);
            here.fill(real);
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
fn purge(there: &mut u32, known: &mut u32, held: u32, flow: &mut Flow) {
    flow.purged += count(*there & !held);
    flow.purges += 1;
    // Part of a huge page is gone: what is left has small ones.
    (*there, *known) = if held == 0 { (0, 0) } else { (*there & held, *known | !held) };
}

/// The ghosts of a window while somebody watches.
#[derive(Debug)]
pub(crate) struct Watch {
    ghosts: FlatTable<Ghost>,
    is_on: bool,
    era: Era,
    sums: Hindsight,
    read_at: u32,
    /// Where readings and growth go on.
    hand: u32,
}

/// Ghosts that one reading brings up to date, and that one growth looks at: the pool's lock is held meanwhile.
const GHOSTS_PER_READING: u32 = 4096;
const GHOSTS_PER_GROWTH: u32 = 256;
/// Ages (ms) from which on memory makes way for growth, longest first: the purger takes what is oldest.
pub const IDLE_MS: [u32; 5] = [10_000, 2000, 1000, 200, 0];

impl Watch {
    pub(crate) const fn new() -> Self {
        Self { ghosts: FlatTable::empty(), is_on: false, era: Era::NONE, sums: Hindsight::EMPTY, read_at: 0, hand: 0 }
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.is_on
    }

    /// Begins anew with these superslabs, or ends. Without memory for the ghosts nobody watches.
    pub(crate) fn set(&mut self, is_on: bool, superslabs: u32, delay_ms: u32, now: u32) {
        self.is_on = false;
        if !is_on {
            return;
        }
        if self.ghosts.is_empty() {
            let Some(ghosts) = FlatTable::reserve(superslabs as usize) else { return };
            self.ghosts = ghosts;
        }
        let season = self.era.season;
        (self.is_on, self.read_at, self.era) = (true, now, Era { season, ..Era::new(delay_ms) });
    }

    /// What a superslab is like when watching begins.
    pub(crate) fn begin(&mut self, superslab: u32, held: u32, dirty: u32, is_huge: bool, now: u32) {
        if let Some(ghost) = self.ghosts.get_mut(superslab as usize) {
            *ghost = Ghost::seen(held, dirty, is_huge, now, &self.era);
        }
    }

    /// Another delay is in force.
    pub(crate) fn set_delay(&mut self, delay_ms: u32) {
        self.era.set_delay(delay_ms);
    }

    /// Another season has begun.
    pub(crate) const fn turn(&mut self) {
        self.era.turn();
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn take(&mut self, superslab: u32, units: u32, touched: u32, level: u8, now: u32) -> u32 {
        let Some(ghost) = self.ghosts.get_mut(superslab as usize).filter(|_| self.is_on) else { return 0 };
        self.era.visit(now);
        ghost.take(units, touched, level, now, &self.era, &mut self.sums)
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn give(&mut self, superslab: u32, units: u32, is_clean: bool, now: u32) {
        let Some(ghost) = self.ghosts.get_mut(superslab as usize).filter(|_| self.is_on) else { return };
        self.era.visit(now);
        ghost.give(units, is_clean, now, &self.era, &mut self.sums);
    }

    /// An extent was taken that made the process grow by so many units in each world: what has idled makes way.
    pub(crate) fn make_way(&mut self, mut debts: [u32; WORLDS], committed: u32, now: u32) {
        let first = self.hand;
        for least_ms in IDLE_MS {
            for step in 0..committed.min(GHOSTS_PER_GROWTH) {
                if !self.is_on || debts == [0; WORLDS] {
                    return;
                }
                self.hand = (first + step) % committed.max(1);
                if let Some(ghost) = self.ghosts.get_mut(self.hand as usize) {
                    ghost.make_way(&mut debts, least_ms, now, &self.era, &mut self.sums);
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
                    ghost.settle(now, &self.era, &mut self.sums);
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

fn add(sums: &mut [u64; LEVELS], level: u16, more: u64) {
    if let Some(sum) = sums.get_mut(usize::from(level)) {
        *sum += more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits::mask;
    use proptest::prelude::*;

    /// The only superslab.
    struct Alone {
        ghost: Ghost,
        era: Era,
        sums: Hindsight,
    }

    impl Alone {
        fn new() -> Self {
            Self { ghost: Ghost::default(), era: Era::new(300), sums: Hindsight::EMPTY }
        }

        fn take(&mut self, units: u32, now: u32) {
            self.era.visit(now);
            self.ghost.take(units, ALL, 1, now, &self.era, &mut self.sums);
        }

        fn give(&mut self, units: u32, now: u32) {
            self.era.visit(now);
            self.ghost.give(units, false, now, &self.era, &mut self.sums);
        }
    }

    const PLACE_OF_300_MS: usize = 3;
    const PLACE_OF_A_MINUTE: usize = 7;

    #[test]
    fn what_comes_back_after_a_while_would_have_been_gone_with_shorter_delays() {
        let mut alone = Alone::new();
        alone.take(ALL, 1000);
        alone.give(mask(0, 8), 1000);
        alone.take(mask(0, 8), 1500);
        assert_eq!(alone.sums.here.map(|flow| flow.refaults), [8, 8, 8, 8, 0, 0, 0, 0]);
        assert_eq!(alone.sums.here.map(|flow| flow.firsts), [[0; LEVELS]; DELAYS], "the first time is nobody's");
        assert_eq!(alone.sums.here[PLACE_OF_300_MS].kept_unit_ms, 8 * 300);
        assert_eq!(alone.sums.here[DELAYS - 1].kept_unit_ms, 8 * 500);
        assert_eq!(alone.sums.here.map(|flow| flow.purges), [1, 1, 1, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn memory_of_a_program_that_rests_would_be_purged_by_who_comes_next_if_nobody_learned() {
        let mut alone = Alone::new();
        alone.take(ALL, 1000);
        alone.give(mask(0, 8), 1000);
        alone.take(mask(31, 1), 1900);
        assert_eq!(alone.sums.here[PLACE_OF_300_MS].kept_unit_ms, 8 * 300);
        assert_eq!(alone.sums.unlearned.kept_unit_ms, 8 * 900, "nobody was there after 300 ms");
        assert_eq!(alone.sums.unlearned.purges, 1);
        alone.era.set_delay(10);
        alone.era.turn();
        alone.give(mask(8, 8), 2000);
        alone.take(mask(8, 8), 2200);
        assert_eq!(alone.sums.unlearned.refaults, 0, "the first delay stays in force");
        assert_eq!(alone.sums.here[0].refaults, 8);
    }

    #[test]
    fn a_free_superslab_that_is_purged_is_opened_anew_and_with_huge_pages_its_air_counts() {
        let mut alone = Alone::new();
        alone.take(mask(0, 4), 1000);
        alone.give(mask(0, 4), 1000);
        alone.take(mask(0, 4), 1500);
        assert_eq!(alone.sums.here[0].openings[1], 1);
        assert_eq!(alone.sums.here[0].firsts[1], 4);
        assert_eq!((alone.sums.here[DELAYS - 1].openings[1], alone.sums.here[0].refaults), (0, 0));
        // 28 units of air, until the pages of the shortest delay went.
        assert_eq!(alone.sums.here[0].air_unit_ms[1], 28 * 10);
        assert_eq!(alone.sums.here[DELAYS - 1].air_unit_ms[1], 28 * 500);
        assert!(!alone.ghost.is_at_rest(), "air takes memory as long as it is there");
    }

    #[test]
    fn what_idles_makes_way_for_growth() {
        let mut alone = Alone::new();
        alone.take(ALL, 1000);
        alone.give(ALL, 1000);
        let mut debts = [0; WORLDS];
        (debts[0], debts[PLACE_OF_300_MS], debts[PLACE_OF_A_MINUTE]) = (32, 32, 32);
        let before = debts;
        alone.ghost.make_way(&mut debts, 100, 1050, &alone.era, &mut alone.sums);
        assert_eq!(debts, before, "too young");
        alone.ghost.make_way(&mut debts, 20, 1050, &alone.era, &mut alone.sums);
        let left = [debts[0], debts[PLACE_OF_300_MS], debts[PLACE_OF_A_MINUTE]];
        assert_eq!(left, [32, 0, 32], "with the shortest delay nothing was left, with the longest it is too young");
        alone.take(ALL, 1060);
        assert_eq!(alone.sums.here.map(|flow| flow.openings[1]), [1, 1, 0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn what_a_season_lets_go_and_the_next_one_misses_is_charged_to_the_first() {
        let mut alone = Alone::new();
        alone.era.set_delay(100);
        alone.take(ALL, 1000);
        alone.give(mask(0, 8), 1000);
        alone.ghost.settle(1500, &alone.era, &mut alone.sums);
        alone.era.turn();
        alone.era.set_delay(10_000);
        alone.ghost.settle(1500, &alone.era, &mut alone.sums);
        let until_now = alone.sums;
        alone.take(mask(0, 8), 1600);
        let later = alone.sums.since(&until_now);
        assert_eq!(later.before.map(|flow| flow.refaults), [8, 8, 8, 8, 0, 0, 0, 0]);
        assert_eq!(later.here.map(|flow| flow.refaults), [8; DELAYS], "with 100 ms it was gone, whatever runs now");
    }

    #[test]
    fn what_waits_when_a_season_begins_waits_as_long_as_that_one_says() {
        let mut alone = Alone::new();
        alone.era.set_delay(10_000);
        alone.take(ALL, 1000);
        alone.give(mask(0, 8), 1000);
        alone.ghost.settle(1500, &alone.era, &mut alone.sums);
        alone.era.turn();
        alone.ghost.settle(1500, &alone.era, &mut alone.sums);
        let until_now = alone.sums;
        alone.take(mask(0, 8), 3000);
        let then = alone.sums.since(&until_now);
        assert_eq!(then.here.map(|flow| flow.refaults), [8, 8, 8, 8, 8, 0, 0, 0]);
        assert_eq!(then.here.map(|flow| flow.kept_unit_ms), [0, 0, 0, 0, 8 * 500, 8 * 1500, 8 * 1500, 8 * 1500]);
        assert_eq!(
            then.before.map(|flow| flow.refaults),
            [8, 8, 8, 8, 0, 0, 0, 0],
            "10 s are in force: what was there is there"
        );
    }

    #[test]
    fn what_is_given_back_clean_has_no_pages() {
        let mut alone = Alone::new();
        alone.take(ALL, 1000);
        alone.ghost.give(ALL, true, 1001, &alone.era, &mut alone.sums);
        assert!(alone.ghost.is_at_rest());
        alone.take(ALL, 1002);
        assert_eq!(alone.sums.here.map(|flow| flow.openings[1]), [1; DELAYS]);
    }

    #[test]
    fn a_clock_that_comes_round_makes_no_difference() {
        let run = |start: u32| {
            let mut alone = Alone::new();
            alone.era.visit(start);
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
                for kind in alone.ghost.there.chunks(DELAYS) {
                    prop_assert!(kind.is_sorted_by(|shorter, longer| shorter & !longer == 0));
                }
                prop_assert_eq!(alone.ghost.there[0] & alone.ghost.held, alone.ghost.held);
            }
            let sums = &alone.sums;
            prop_assert!(sums.here.is_sorted_by_key(|flow| core::cmp::Reverse(flow.refaults)) || sums.here[0].firsts[1] > 0);
            prop_assert!(sums.here.is_sorted_by_key(|flow| flow.kept_unit_ms));
        }
    }
}
