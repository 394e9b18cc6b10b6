//! How densely slabs and runs use the superslabs that they lie in: whether the next ones get huge pages.
//!
//! Behind a heap of small blocks nearly every page is written to; behind blocks of some OS pages each that are filled in part, huge pages
//! are mostly air. So a superslab with small pages is looked at some time after it was opened, and the verdict holds until another
//! one is. Where all get huge pages a few are left without, to be looked at. Why: docs/decisions/0014.

use hakmem_base::SLABS_PER_SUPERSLAB;

/// One in this many superslabs keeps small pages where the others get huge ones.
const SMALL_SHARE: u32 = 16;
/// How many are opened between one and the look at it: the newest have slabs that are not carved yet.
const LAG: usize = 4;
/// Units in use below which a superslab says nothing.
const LEAST_UNITS: u32 = SLABS_PER_SUPERSLAB / 4;
/// In memory of the units in use (thousandths) below which the use is sparse.
const DENSE_PERMILLE: u32 = 500;

/// The superslabs to look at, and the verdict.
#[derive(Debug)]
pub(crate) struct Probe {
    /// The last ones opened with small pages, oldest first; 0: none yet.
    small: [u32; LAG],
    opened: u32,
    sparse: bool,
}

impl Probe {
    pub(crate) const fn new() -> Self {
        Self { small: [0; LAG], opened: 0, sparse: false }
    }

    /// A superslab is about to be opened that would get huge pages. Whether it does.
    pub(crate) fn allows_huge(&mut self) -> bool {
        self.opened = self.opened.wrapping_add(1);
        !self.sparse && !self.opened.is_multiple_of(SMALL_SHARE)
    }

    /// A superslab was opened with small pages.
    pub(crate) fn note_small(&mut self, superslab: u32) {
        self.small.rotate_left(1);
        let [.., newest] = &mut self.small;
        *newest = superslab;
    }

    /// The superslab that may be looked at; 0: none.
    pub(crate) fn superslab(&self) -> u32 {
        self.small.first().copied().unwrap_or(0)
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
            probe.note_small(superslab);
        });
        assert_eq!(probe.superslab(), 1);
        probe.note_small(9);
        assert_eq!(probe.superslab(), 2);
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
        assert_eq!((0..160).filter(|_| !probe.allows_huge()).count(), 10);
    }
}
