//! The system calls of the box for Miri, which knows no reservations, advice or moves: on the heap of the interpreter, and
//! not on the global one, which may be built on this box.
//!
//! Same functions and same contracts as `sys`; what the kernel would do to memory happens by writing to it.

use crate::faults::{Call, is_refused};
use core::ptr::NonNull;
use hakmem_base::SUPERSLAB_BYTES;
use std::alloc::{GlobalAlloc, Layout, System};

/// Why the kernel would not do it: always `ENOMEM`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refusal;

impl Refusal {
    pub(crate) fn is_enomem(self) -> bool {
        true
    }
}

fn allowed(call: Call) -> Result<(), Refusal> {
    if is_refused(call) { Err(Refusal) } else { Ok(()) }
}

/// Every fake mapping is aligned alike, so that `unmap` need not be told.
fn layout(bytes: usize) -> Result<Layout, Refusal> {
    Layout::from_size_align(bytes, SUPERSLAB_BYTES).map_err(|_| Refusal)
}

pub(crate) fn map_memory(bytes: usize) -> Result<NonNull<u8>, Refusal> {
    allowed(Call::Mmap)?;
    let layout = layout(bytes)?;
    // SAFETY: no mapping of the box is empty.
    NonNull::new(unsafe { System.alloc_zeroed(layout) }).ok_or(Refusal)
}

pub(crate) fn reserve_aligned(bytes: usize, _align: usize) -> Result<NonNull<u8>, Refusal> {
    map_memory(bytes)
}

/// A part of a mapping cannot be given up here, nor taken again.
pub(crate) fn reserve_at(_start: *mut u8, _bytes: usize) -> Result<(), Refusal> {
    Err(Refusal)
}

/// # Safety
/// - The range is a whole mapping of this module, and nobody uses it any more.
pub(crate) unsafe fn unmap(start: *mut u8, bytes: usize) {
    if bytes != 0
        && let Ok(layout) = layout(bytes)
    {
        // SAFETY: the caller names a whole mapping; all have this layout.
        unsafe { System.dealloc(start, layout) };
    }
}

/// # Safety
/// - As in `sys`.
pub(crate) unsafe fn make_writable(_start: *mut u8, _bytes: usize) -> Result<(), Refusal> {
    allowed(Call::Mprotect)
}

/// # Safety
/// - As in `sys`.
pub(crate) unsafe fn make_inaccessible(_start: *mut u8, _bytes: usize) -> Result<(), Refusal> {
    allowed(Call::Mprotect)
}

/// # Safety
/// - As in `sys`.
pub(crate) unsafe fn discard(start: *mut u8, bytes: usize) -> Result<(), Refusal> {
    allowed(Call::Madvise)?;
    // SAFETY: the caller guarantees that the range is ours and its content dead.
    unsafe { start.write_bytes(0, bytes) };
    Ok(())
}

pub(crate) fn advise_huge(_start: *mut u8, _bytes: usize) -> Result<(), Refusal> {
    allowed(Call::Madvise)
}

pub(crate) fn advise_small(_start: *mut u8, _bytes: usize) -> Result<(), Refusal> {
    allowed(Call::Madvise)
}

pub(crate) fn look_at(_start: *mut u8, _bytes: usize, _pages: &mut [u8]) -> Result<(), Refusal> {
    Err(Refusal)
}

/// # Safety
/// - As in `sys`.
pub(crate) unsafe fn move_pages(from: *mut u8, to: *mut u8, bytes: usize) -> Result<(), Refusal> {
    allowed(Call::Mremap)?;
    // SAFETY: the caller guarantees two idle ranges of ours that do not overlap.
    unsafe { core::ptr::copy_nonoverlapping(from, to, bytes) };
    // SAFETY: the same for the source alone.
    unsafe { from.write_bytes(0, bytes) };
    Ok(())
}

pub(crate) fn coarse_clock_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the timespec it is given.
    let _result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// Unknown.
#[must_use]
pub fn physical_bytes() -> usize {
    0
}

/// Small enough that the automatic window is one that the interpreter can hold.
pub(crate) fn address_space_limit() -> Option<usize> {
    Some(64 << 20)
}

/// None.
pub(crate) fn data_limit() -> Option<usize> {
    None
}
