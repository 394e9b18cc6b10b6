//! Where in its slot a block lies. Offsets only; no memory is touched.
//!
//! ```text
//! | guard | ..no access.. | canary | block | canary | guard |    at the end: the last canary is shorter than the alignment
//! | guard | block | canary | ..no access..          | guard |    at the beginning
//! ```
//! A slot is one unit. What the block's pages do not need stays without access, so that a block of one page has fifteen pages
//! of guards.

use hakmem_base::{OS_PAGE_BYTES, SLAB_BYTES};

/// Largest block (bytes) that a slot holds.
pub const MAX_BYTES: usize = SLAB_BYTES - 2 * OS_PAGE_BYTES;
/// Largest alignment (bytes) of a block in a slot.
pub const MAX_ALIGN: usize = OS_PAGE_BYTES;

/// Offsets (bytes) from the start of the slot's unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Start of the pages that the block is in.
    pub(crate) pages: usize,
    /// Bytes of these.
    pub(crate) page_bytes: usize,
    /// Start of the block.
    pub(crate) block: usize,
}

impl Place {
    /// `None`: too large or too strictly aligned for a slot.
    pub(crate) fn of(bytes: usize, align: usize, at_end: bool) -> Option<Self> {
        if bytes > MAX_BYTES || align > MAX_ALIGN || !align.is_power_of_two() {
            return None;
        }
        let page_bytes = bytes.max(1).next_multiple_of(OS_PAGE_BYTES);
        // A block without bytes lies where the guard begins: no byte of it may be touched.
        if at_end || bytes == 0 {
            let end = SLAB_BYTES - OS_PAGE_BYTES;
            Some(Self { pages: end - page_bytes, page_bytes, block: (end - bytes) & !(align - 1) })
        } else {
            Some(Self { pages: OS_PAGE_BYTES, page_bytes, block: OS_PAGE_BYTES })
        }
    }

    /// End of the pages.
    pub(crate) fn end(&self) -> usize {
        self.pages + self.page_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_aligned_block_touches_the_guard_on_its_side() {
        let end = Place::of(48, 16, true).unwrap();
        assert_eq!(end.block + 48, SLAB_BYTES - OS_PAGE_BYTES);
        let beginning = Place::of(48, 16, false).unwrap();
        assert_eq!(beginning.block, OS_PAGE_BYTES);
    }

    #[test]
    fn what_does_not_fit_has_no_place() {
        for (bytes, align) in [(MAX_BYTES + 1, 1), (usize::MAX, 1), (1, MAX_ALIGN * 2), (1, 3)] {
            assert_eq!(Place::of(bytes, align, true), None);
        }
    }

    proptest! {
        #[test]
        fn a_block_is_aligned_and_lies_in_its_pages_between_guards(
            bytes in 0..=MAX_BYTES, shift in 0_u32..=12, at_end: bool
        ) {
            let (align, place) = (1 << shift, Place::of(bytes, 1 << shift, at_end).unwrap());
            prop_assert_eq!(place.block % align, 0);
            prop_assert!(place.block >= place.pages && place.block + bytes <= place.end());
            prop_assert!(place.pages >= OS_PAGE_BYTES && place.end() <= SLAB_BYTES - OS_PAGE_BYTES);
            prop_assert_eq!((place.pages % OS_PAGE_BYTES, place.page_bytes % OS_PAGE_BYTES), (0, 0));
            // What the guard on the block's side cannot see is less than the alignment.
            if at_end {
                prop_assert!(place.end() - (place.block + bytes) < align);
            } else if bytes > 0 {
                prop_assert_eq!(place.block, place.pages);
            }
        }
    }
}
