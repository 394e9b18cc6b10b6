//! How densely the program uses its big blocks, as far as those tell that were freed: whether the next ones get huge pages.
//!
//! A dense block gains a lot by them (one fault instead of 512, fewer misses of the TLB); in a sparse one (a table or arena of which
//! little is used) each byte that is touched brings 2 MiB. Nobody says beforehand which it will be, but programs repeat themselves.

use hakmem_atomic_ops::Shared32;

/// Judgements beyond which more of the same change nothing: as many of the other kind turn the tide.
const SURE: u32 = 4;
/// The score of a program that has freed nothing yet. Below: sparse, above: dense.
const UNKNOWN: u32 = SURE;
const MOST: u32 = UNKNOWN + SURE;
/// Once all have been alike for a while, one in this many is looked at.
const LOOKS: u32 = 16;
/// A block of which so much (thousandths) was in memory is dense, one of which less than so much was is sparse.
const DENSE_PERMILLE: u32 = 500;
const SPARSE_PERMILLE: u32 = 250;

/// How a fresh big block is to be backed. Why: docs/decisions/0014.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Backing {
    /// By small pages.
    Small,
    /// By huge pages behind its first superslab: who touches no more than the block's beginning pays for no more, and the
    /// others lose little.
    AllButFirst,
    /// By huge pages.
    Huge,
}

/// What is known. Relaxed: a judgement that gets lost in a race is one of many.
#[derive(Debug)]
pub(crate) struct Density {
    /// `0..=MOST`.
    score: Shared32,
    freed: Shared32,
}

impl Density {
    pub(crate) const fn new() -> Self {
        Self { score: Shared32::new(UNKNOWN), freed: Shared32::new(0) }
    }

    pub(crate) fn backing(&self) -> Backing {
        match self.score.load_relaxed() {
            0..UNKNOWN => Backing::Small,
            UNKNOWN => Backing::AllButFirst,
            _ => Backing::Huge,
        }
    }

    /// Counts a freed block. True if it is worth a look.
    pub(crate) fn count(&self) -> bool {
        let freed = self.freed.add_relaxed(1);
        let is_sure = matches!(self.score.load_relaxed(), 0 | MOST);
        !is_sure || freed.is_multiple_of(LOOKS)
    }

    /// So much of a freed block (thousandths) was in memory.
    pub(crate) fn note(&self, resident_permille: u32) {
        let score = self.score.load_relaxed();
        if resident_permille >= DENSE_PERMILLE {
            self.score.store_relaxed((score + 1).min(MOST));
        } else if resident_permille < SPARSE_PERMILLE {
            self.score.store_relaxed(score.saturating_sub(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_backed_as_the_freed_ones_were_used() {
        let density = Density::new();
        assert_eq!(density.backing(), Backing::AllButFirst);
        density.note(1);
        assert_eq!(density.backing(), Backing::Small);
        density.note(400);
        assert_eq!(density.backing(), Backing::Small, "neither dense nor sparse");
        (0..2).for_each(|_| density.note(1000));
        assert_eq!(density.backing(), Backing::Huge);
    }

    #[test]
    fn a_long_history_is_outweighed_by_a_few_of_the_other_kind() {
        let density = Density::new();
        for (permille, backing) in [(1000, Backing::Huge), (0, Backing::Small), (1000, Backing::Huge)] {
            (0..100).for_each(|_| density.note(permille));
            assert_eq!(density.backing(), backing);
            (0..=SURE).for_each(|_| density.note(1000 - permille));
            assert_ne!(density.backing(), backing);
        }
    }

    #[test]
    fn once_all_have_been_alike_some_are_looked_at() {
        for permille in [0, 1000] {
            let density = Density::new();
            assert!((0..20).all(|_| density.count()));
            (0..SURE).for_each(|_| density.note(permille));
            assert_eq!((0..160).filter(|_| density.count()).count(), 10);
        }
    }
}
