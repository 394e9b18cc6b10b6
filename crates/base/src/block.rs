//! The link word that a free block carries in its first eight bytes.
//!
//! All lists of free blocks (thread cache, slab free list, outbox chain, remote queue) use this one format, so that a
//! whole list changes hands by its head alone.

/// Reads the link of a free block: the next free block, or null.
///
/// # Safety
/// - `block` is the start of a free block of ours, at least eight bytes long and eight-byte aligned.
/// - The calling thread holds the list that the block is on.
#[inline(always)]
#[must_use]
pub unsafe fn read_link(block: *mut u8) -> *mut u8 {
    // SAFETY: the caller vouches for the block and for holding its list.
    unsafe { block.cast::<*mut u8>().read() }
}

/// Writes the link of a free block.
///
/// # Safety
/// - `block` is the start of a block of ours, at least eight bytes long and eight-byte aligned.
/// - The calling thread holds the block: it was handed back by its user, or stands on a list that this thread holds.
#[inline(always)]
pub unsafe fn write_link(block: *mut u8, next: *mut u8) {
    // SAFETY: the caller vouches for the block and for holding it.
    unsafe { block.cast::<*mut u8>().write(next) };
}
