//! Memory of blocks as bytes, and metadata that lives as long as the process: the only raw accesses of the box.
//!
//! **Invariants.** Whoever calls holds the bytes: by the class's lock, or because the block has just been taken from its user.
//! What a user writes there all the same is the misuse that is looked for.

use core::ptr::NonNull;
use hakmem_atomic_ops::probe;
use hakmem_base::ZeroValid;
use hakmem_superslab_os::MetaArena;

/// Bytes that the box holds at this moment.
///
/// # Safety
/// - `bytes` bytes at `start` are readable and writable memory of a run or extent that the caller holds, initialised, and
///   nobody has another reference into them during `'a`.
#[inline]
pub(crate) unsafe fn bytes_at<'a>(start: *mut u8, bytes: usize) -> &'a mut [u8] {
    // SAFETY: the caller vouches for the range.
    unsafe { core::slice::from_raw_parts_mut(start, bytes) }
}

/// Whether all bytes are zero. Word by word where they are aligned.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // SAFETY: any eight bytes are a number.
    let (head, words, tail) = unsafe { bytes.align_to::<u64>() };
    head.iter().all(|&byte| byte == 0)
        && words.chunks(8).all(|chunk| chunk.iter().fold(0, |seen, word| seen | word) == 0)
        && tail.iter().all(|&byte| byte == 0)
}

/// Fills the bytes with a word, each byte by its address, so that any part of the pattern can be looked at alone.
pub(crate) fn fill(bytes: &mut [u8], word: u64) {
    let pattern = word.to_ne_bytes();
    let phase = bytes.as_ptr().addr() % 8;
    // SAFETY: any eight bytes are a number.
    let (head, words, tail) = unsafe { bytes.align_to_mut::<u64>() };
    for (byte, value) in head.iter_mut().zip(pattern.iter().skip(phase)) {
        *byte = *value;
    }
    words.fill(word);
    for (byte, value) in tail.iter_mut().zip(pattern.iter()) {
        *byte = *value;
    }
}

/// Offset of the first byte that is not as [`fill`] left it.
pub(crate) fn first_difference(bytes: &[u8], word: u64) -> Option<usize> {
    let pattern = word.to_ne_bytes();
    let phase = bytes.as_ptr().addr() % 8;
    // SAFETY: any eight bytes are a number.
    let (head, words, tail) = unsafe { bytes.align_to::<u64>() };
    let is_whole = head.iter().zip(pattern.iter().skip(phase)).all(|(byte, value)| byte == value)
        && words.iter().all(|found| *found == word)
        && tail.iter().zip(pattern.iter()).all(|(byte, value)| byte == value);
    if is_whole {
        return None;
    }
    bytes.iter().enumerate().position(|(offset, byte)| pattern.get((phase + offset) % 8) != Some(byte))
}

/// `len` zeros that are never given back; `None` if there is no memory.
pub(crate) fn zeros<T: ZeroValid>(arena: &MetaArena, len: usize) -> Option<&'static mut [T]> {
    let bytes = len.checked_mul(size_of::<T>())?;
    let start: NonNull<T> = arena.allocate(bytes, align_of::<T>())?.cast();
    // SAFETY: fresh memory of this size and alignment, zero (which is a value of `T`), and never taken back by the arena.
    Some(unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), len) })
}

/// A value that is never given back; `None` if there is no memory.
pub(crate) fn keep<T>(arena: &MetaArena, value: T) -> Option<&'static T> {
    let place: NonNull<T> = arena.allocate(size_of::<T>(), align_of::<T>())?.cast();
    // SAFETY: fresh memory of this size and alignment.
    unsafe { place.write(value) };
    // SAFETY: written in the line before, and never taken back by the arena.
    let kept = unsafe { place.as_ref() };
    probe::writes(kept);
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_reads_back_from_any_part_and_shows_the_first_damaged_byte() {
        let mut memory = [0_u64; 16];
        // SAFETY: the array's own bytes.
        let bytes = unsafe { bytes_at(memory.as_mut_ptr().cast(), 128) };
        let word = 0x8192_a3b4_c5d6_e7f8;
        for begin in 0..24 {
            for end in begin..64 {
                bytes.fill(0);
                fill(&mut bytes[begin..end], word);
                assert!(is_zero(&bytes[..begin]) && is_zero(&bytes[end..]));
                assert_eq!(first_difference(&bytes[begin..end], word), None);
                for damaged in begin..end {
                    bytes[damaged] ^= 1;
                    assert_eq!(first_difference(&bytes[begin..end], word), Some(damaged - begin));
                    assert_eq!(first_difference(&bytes[damaged + 1..end], word), None);
                    bytes[damaged] ^= 1;
                }
            }
        }
    }

    #[test]
    fn one_byte_that_is_not_zero_is_seen_anywhere() {
        let mut bytes = [0_u8; 200];
        for begin in 0..9 {
            for at in begin..200 {
                bytes[at] = 1;
                assert!(!is_zero(&bytes[begin..]) && is_zero(&bytes[begin..at]));
                bytes[at] = 0;
            }
        }
    }
}
