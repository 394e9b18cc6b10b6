//! How densely slabs and runs use the superslabs that they lie in: whether the next ones get huge pages.
//!
//! Behind a heap of small blocks nearly every page is written to; behind blocks of some OS pages each that are filled in part, huge pages
//! are mostly air. So a superslab with small pages is looked at some time after it was opened, and the verdict holds until another
//! one is. Where all get huge pages a few are left without, to be looked at. Why: docs/decisions/0014.

use hakmem_base::SLABS_PER_SUPERSLAB;

/// One in this many superslabs keeps small pages where the others get huge ones, and of the first ones those whose number is a power
/// of two, beginning with this one.
const SMALL_SHARE: u32 = 64;
const FIRST_SMALL: u32 = 8;
/// How many are opened between one and the look at it: the newest have slabs that are not carved yet.
const LAG: usize = 4;
/// Units in use below which a superslab says nothing.
const LEAST_UNITS: u32 = SLABS_PER_SUPERSLAB / 4;
/// In memory of the units in use (thousandths) below which the use is sparse.
const DENSE_PERMILLE: u32 = 500;

/// The superslabs to look at, and the verdict.
#[derive(Debug)]
pub(crate) struct Probe {
    /// The last ones opened, oldest first; 0: none yet, or one with huge pages.
    recent: [u32; LAG],
    /// The last one with small pages that is old enough to be looked at; 0: none yet.
    aged: u32,
    /// How many might have got huge pages.
    candidates: u32,
    sparse: bool,
}

impl Probe {
    pub(crate) const fn new() -> Self {
        Self { recent: [0; LAG], aged: 0, candidates: 0, sparse: false }
    }

    /// A superslab is about to be opened that would get huge pages. Whether it does.
    pub(crate) fn allows_huge(&mut self) -> bool {
        self.candidates = self.candidates.wrapping_add(1);
        let is_early_look = self.candidates.is_power_of_two() && self.candidates >= FIRST_SMALL;
        !self.sparse && !is_early_look && !self.candidates.is_multiple_of(SMALL_SHARE)
    }

    /// A superslab was opened, with huge pages or small ones.
    pub(crate) fn note_opened(&mut self, superslab: u32, is_huge: bool) {
        self.recent.rotate_left(1);
        let [oldest, .., newest] = &mut self.recent;
        *newest = if is_huge { 0 } else { superslab };
        if *oldest != 0 {
            self.aged = *oldest;
        }
    }

    /// The superslab that may be looked at; 0: none.
    pub(crate) fn superslab(&self) -> u32 {
        self.aged
    }

    /// So much of a superslab (thousandths) is in memory, of which `units` units are in use.
    pub(crate) fn judge(&mut self, resident_permille: u32, units: u32) {
        if units >= LEAST_UNITS {
            self.sparse = resident_permille * SLABS_PER_SUPERSLAB < DENSE_PERMILLE * units;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_at_was_opened_some_time_before() {
        let mut probe = Probe::new();
        (1..=LAG as u32).for_each(|superslab| {
            assert_eq!(probe.superslab(), 0);
            probe.note_opened(superslab, false);
        });
        assert_eq!(probe.superslab(), 1);
        probe.note_opened(8, true);
        probe.note_opened(9, false);
        assert_eq!(probe.superslab(), 3);
        (10..14).for_each(|superslab| probe.note_opened(superslab, true));
        assert_eq!(probe.superslab(), 9, "the last one with small pages, until there is another");
    }

    #[test]
    fn sparse_use_ends_huge_pages_until_it_is_dense_again() {
        let mut probe = Probe::new();
        assert!(probe.allows_huge());
        probe.judge(300, 32);
        assert!(!probe.allows_huge());
        probe.judge(300, LEAST_UNITS - 1);
        assert!(!probe.allows_huge(), "too little in use to tell");
        probe.judge(300, 18);
        assert!(probe.allows_huge());
    }

    #[test]
    fn some_keep_small_pages_to_be_looked_at() {
        let mut probe = Probe::new();
        let small: Vec<u32> = (1..=256).filter(|_| !probe.allows_huge()).collect();
        assert_eq!(small, [8, 16, 32, 64, 128, 192, 256]);
    }
}
