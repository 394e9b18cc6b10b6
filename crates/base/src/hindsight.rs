//! What other values of two knobs would have cost, as plain counts.
//!
//! Which memory a program takes and gives back does not depend on how long freed memory keeps its OS pages, nor on which of it has
//! huge ones. So whoever sees the takes and gives can say what each purge delay and each heap size for huge pages would have led to.
//! The superslab box counts it (`superslab-os/src/hindsight.rs`), the learners read it.

/// Purge delays that are kept account of (ms). "Never" is none of them: under it no idle memory makes way for big blocks, and whatever
/// the heap was scattered by stays.
pub const DELAYS_MS: [u32; 8] = [10, 30, 100, 300, 1000, 3000, 10_000, 60_000];
/// How many.
pub const DELAYS: usize = DELAYS_MS.len();
/// Heap sizes that are kept account of, from which on fresh superslabs would have huge pages.
pub const HUGE_FROM_BYTES: [u64; 6] = [4 << 20, 8 << 20, 16 << 20, 32 << 20, 64 << 20, 256 << 20];
/// Levels of the heap when a superslab was opened: how many of those sizes it was above. The last one is for superslabs that have
/// huge pages whatever the heap size is.
pub const LEVELS: usize = HUGE_FROM_BYTES.len() + 2;

/// Counts of what one purge delay would have led to. They only rise; a window is a difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// Units taken whose pages would have been purged while other units of their superslab were in use.
    pub refaults: u64,
    /// Units taken for the first time since their superslab was last without any page, by the level of the heap when that was opened;
    /// not those of its first time.
    pub firsts: [u64; LEVELS],
    /// Times that a superslab without any page was taken from, by level; not the first one.
    pub openings: [u64; LEVELS],
    /// Free units with pages, times milliseconds.
    pub kept_unit_ms: u64,
    /// Units that were not touched since their superslab was opened, times milliseconds, by level: with huge pages they are there.
    pub air_unit_ms: [u64; LEVELS],
    /// Units purged.
    pub purged: u64,
    /// Superslabs visited by purges.
    pub purges: u64,
}

/// What would have been, by purge delay: in two kinds of worlds, and in one where nobody learns.
///
/// A program has seasons (`hakmem-learner`), and each of them a delay of its own. Memory that one season gives back may expire in the
/// next and be missed in a third, so a season's delay cannot be judged by what happens while it lasts. All worlds of a kind
/// differ by one delay from what really runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hindsight {
    /// Time that is accounted for.
    pub elapsed_ms: u64,
    /// Had it been this delay since the present season began.
    pub here: [Flow; DELAYS],
    /// Had it been this delay in the season before, and since then what really runs: what follows from it now.
    pub before: [Flow; DELAYS],
    /// Had the first policy run all the time, and nobody given back what is due while the program rests.
    pub unlearned: Flow,
}

impl Flow {
    /// Nothing has happened.
    pub const EMPTY: Self = Self {
        refaults: 0,
        firsts: [0; LEVELS],
        openings: [0; LEVELS],
        kept_unit_ms: 0,
        air_unit_ms: [0; LEVELS],
        purged: 0,
        purges: 0,
    };

    /// Calls `change` with every count and its counterpart.
    fn each(&mut self, other: &Self, change: &impl Fn(&mut u64, u64)) {
        change(&mut self.refaults, other.refaults);
        change(&mut self.kept_unit_ms, other.kept_unit_ms);
        change(&mut self.purged, other.purged);
        change(&mut self.purges, other.purges);
        for (own, other) in [
            (&mut self.firsts, &other.firsts),
            (&mut self.openings, &other.openings),
            (&mut self.air_unit_ms, &other.air_unit_ms),
        ] {
            own.iter_mut().zip(other).for_each(|(own, other)| change(own, *other));
        }
    }
}

impl Hindsight {
    /// Nothing has happened.
    pub const EMPTY: Self =
        Self { elapsed_ms: 0, here: [Flow::EMPTY; DELAYS], before: [Flow::EMPTY; DELAYS], unlearned: Flow::EMPTY };

    /// How many of the heap sizes a heap is above.
    #[must_use]
    pub fn level_of(heap_bytes: u64) -> u8 {
        HUGE_FROM_BYTES.iter().filter(|from| heap_bytes > **from).count() as u8
    }

    /// What happened since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut flow = *self;
        flow.each(earlier, &|now, before| *now = now.saturating_sub(before));
        flow
    }

    /// The flows of every world: those of all kinds, one after the other.
    pub fn worlds(&mut self) -> impl Iterator<Item = &mut Flow> {
        self.here.iter_mut().chain(&mut self.before).chain([&mut self.unlearned])
    }

    /// Calls `change` with every count and its counterpart.
    fn each(&mut self, other: &Self, change: &impl Fn(&mut u64, u64)) {
        change(&mut self.elapsed_ms, other.elapsed_ms);
        let others = other.here.iter().chain(&other.before).chain([&other.unlearned]);
        self.worlds().zip(others).for_each(|(own, other)| own.each(other, change));
    }
}

impl Default for Hindsight {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Default for Flow {
    fn default() -> Self {
        Self::EMPTY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_rise_and_levels_count_what_a_heap_is_above() {
        assert!(DELAYS_MS.is_sorted() && HUGE_FROM_BYTES.is_sorted());
        assert_eq!(Hindsight::level_of(0), 0);
        assert_eq!(Hindsight::level_of(4 << 20), 0);
        assert_eq!(Hindsight::level_of((4 << 20) + 1), 1);
        assert_eq!(usize::from(Hindsight::level_of(u64::MAX)), LEVELS - 2);
    }

    /// Counts that are `by` times as large as with 1, no two of one flow alike.
    fn readings(by: u64) -> Hindsight {
        let list = |from: u64| core::array::from_fn(|level| (from + level as u64) * by);
        let flow = |from: u64| Flow {
            refaults: from * by,
            firsts: list(from + 10),
            openings: list(from + 20),
            kept_unit_ms: (from + 1) * by,
            air_unit_ms: list(from + 30),
            purged: (from + 2) * by,
            purges: (from + 3) * by,
        };
        Hindsight {
            elapsed_ms: 1000 * by,
            here: core::array::from_fn(|delay| flow(100 + delay as u64)),
            before: core::array::from_fn(|delay| flow(200 + delay as u64)),
            unlearned: flow(300),
        }
    }

    #[test]
    fn a_difference_is_one_of_every_count() {
        assert_eq!(readings(7).since(&readings(3)), readings(4));
        assert_eq!(readings(3).since(&readings(7)), Hindsight::EMPTY, "counts do not fall below nothing");
    }

    #[test]
    fn worlds_are_those_of_all_kinds_one_after_the_other() {
        let mut now = readings(1);
        let expected = (100..100 + DELAYS as u64).chain(200..200 + DELAYS as u64).chain([300]);
        assert!(now.worlds().map(|flow| flow.refaults).eq(expected));
    }
}
