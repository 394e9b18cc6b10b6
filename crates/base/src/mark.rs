//! The mark of a free block: what a second free of it finds.
//!
//! A free block of 16 bytes or more carries, behind its link, its own address with the bits of a per-process secret turned
//! over. Doors that check frees write it when a block comes back and wipe it when the block is handed out; a block that
//! comes back with its mark on is free already. A copy of the mark anywhere else is none, and nobody who does not know
//! the secret writes one by chance: what is found is certain, whichever thread or list holds the block
//! (docs/decisions/0011-marks-of-free-blocks.md).

use core::ptr::NonNull;

/// The per-process secret in marks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct MarkKey(usize);

/// Where the mark stands: behind the link.
const MARK_OFFSET: usize = size_of::<*mut u8>();
/// Smallest block (bytes) that has room for a mark.
pub const MARKED_MIN_BYTES: usize = 2 * MARK_OFFSET;

impl MarkKey {
    /// Before there is a secret. Must not mark anything: a program may well keep a block's own address in it.
    pub const NONE: Self = Self(0);

    /// A key from random bits. No mark is an address then.
    #[must_use]
    pub const fn from_random(bits: u64) -> Self {
        Self((bits | 1 << 63) as usize)
    }

    #[inline(always)]
    fn mark_of(self, block: NonNull<u8>) -> usize {
        block.addr().get() ^ self.0
    }

    /// Whether `block` carries its mark.
    ///
    /// # Safety
    /// - `block` is the start of a block of ours of at least [`MARKED_MIN_BYTES`] bytes, eight-byte aligned.
    #[inline(always)]
    #[must_use]
    pub unsafe fn is_on(self, block: NonNull<u8>) -> bool {
        let place = block.as_ptr().wrapping_add(MARK_OFFSET).cast::<usize>();
        // SAFETY: the block's second eight bytes. Whatever stands there is a number.
        unsafe { place.read() == self.mark_of(block) }
    }

    /// Marks a block as free.
    ///
    /// # Safety
    /// - As for [`MarkKey::is_on`]; the calling thread holds the block.
    #[inline(always)]
    pub unsafe fn put_on(self, block: NonNull<u8>) {
        let place = block.as_ptr().wrapping_add(MARK_OFFSET).cast::<usize>();
        // SAFETY: the block's second eight bytes, which the caller holds.
        unsafe { place.write(self.mark_of(block)) };
    }

    /// Wipes the mark of a block that is handed out.
    ///
    /// # Safety
    /// - As for [`MarkKey::put_on`].
    #[inline(always)]
    pub unsafe fn wipe(block: NonNull<u8>) {
        let place = block.as_ptr().wrapping_add(MARK_OFFSET).cast::<usize>();
        // SAFETY: the block's second eight bytes, which the caller holds.
        unsafe { place.write(0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_seen_where_it_was_put_and_nowhere_else() {
        let mut blocks = [[0_usize; 2]; 2];
        let [first, second] = blocks.each_mut().map(|block| NonNull::from(block).cast::<u8>());
        let second_word = first.as_ptr().wrapping_add(MARK_OFFSET).cast::<usize>();
        for bits in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            let key = MarkKey::from_random(bits);
            // SAFETY: both blocks are the test's, sixteen bytes each.
            unsafe { key.put_on(first) };
            // SAFETY: as above.
            assert!(unsafe { key.is_on(first) });
            // SAFETY: as above.
            unsafe { second.copy_from_nonoverlapping(first, 16) };
            // SAFETY: as above.
            assert!(!unsafe { key.is_on(second) }, "a copy of a free block's contents is no mark");
            // SAFETY: as above.
            unsafe { MarkKey::wipe(first) };
            // SAFETY: as above.
            assert!(!unsafe { key.is_on(first) });
            // SAFETY: as above.
            unsafe { second_word.write(first.addr().get()) };
            // SAFETY: as above.
            assert!(!unsafe { key.is_on(first) }, "a block may hold its own address");
        }
    }
}
