//! Position of a slab in the window.

use crate::{SLABS_PER_SUPERSLAB, SLABS_PER_SUPERSLAB_SHIFT};

/// Index of a slab (64 KiB unit) counted from the window's base.
///
/// Index 0 is never handed out, so that 0 can mean "none" in links (see [`SlabIndex::from_link`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(transparent)]
pub struct SlabIndex(u32);

impl SlabIndex {
    /// Wraps a raw index.
    #[inline]
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// The index as a number.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The index for addressing a table.
    #[inline]
    #[must_use]
    pub const fn to_usize(self) -> usize {
        self.0 as usize
    }

    /// Reads a link word: 0 is "none".
    #[inline]
    #[must_use]
    pub const fn from_link(word: u32) -> Option<Self> {
        if word == 0 { None } else { Some(Self(word)) }
    }

    /// The superslab this slab is part of, counted from the window's base.
    #[inline]
    #[must_use]
    pub const fn superslab(self) -> u32 {
        self.0 >> SLABS_PER_SUPERSLAB_SHIFT
    }

    /// Position inside the superslab, `0..32`.
    #[inline]
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.0 & (SLABS_PER_SUPERSLAB - 1)
    }

    /// The slab `count` places further on.
    #[inline]
    #[must_use]
    pub const fn add(self, count: u32) -> Self {
        Self(self.0 + count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superslab_and_slot_recombine() {
        let index = SlabIndex::new(3 * SLABS_PER_SUPERSLAB + 7);
        assert_eq!((index.superslab(), index.slot()), (3, 7));
    }

    #[test]
    fn zero_link_is_none() {
        assert_eq!(SlabIndex::from_link(0), None);
        assert_eq!(SlabIndex::from_link(9), Some(SlabIndex::new(9)));
    }
}
