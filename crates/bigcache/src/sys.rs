//! The system calls of the box, for memory outside the window, and its clock.
//!
//! **Invariants.** `errno` is the same after a call as before it.

use core::ffi::c_void;
use core::ptr::NonNull;
use hakmem_base::keeping_errno;

/// A number that is different for every living thread and never 0.
pub(crate) fn thread_mark() -> usize {
    // SAFETY: always returns this thread's errno location, which no other thread shares.
    unsafe { libc::__errno_location() }.addr()
}

/// Zeroed, lazily touched memory of `bytes` bytes, a whole number of OS pages. The kernel's rule against obvious overcommit
/// applies: a block larger than the machine is refused.
pub(crate) fn map(bytes: usize) -> Option<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new anonymous mapping at a place that the kernel chooses changes no existing memory.
    let address = keeping_errno(|| unsafe { libc::mmap(core::ptr::null_mut(), bytes, protection, flags, -1, 0) });
    if address == libc::MAP_FAILED { None } else { NonNull::new(address.cast::<u8>()) }
}

/// Gives a mapping or a part of one back. False if the kernel refuses (it can, when that would split a mapping); then the
/// range stays mapped, and its memory at least is given back.
///
/// # Safety
/// - The range was mapped by [`map`], and nobody uses it any more.
pub(crate) unsafe fn unmap(start: *mut u8, bytes: usize) -> bool {
    if bytes == 0 {
        return true;
    }
    // SAFETY: the caller guarantees that the range is ours and idle.
    if keeping_errno(|| unsafe { libc::munmap(start.cast::<c_void>(), bytes) }) == 0 {
        return true;
    }
    // SAFETY: as above: the content is dead.
    keeping_errno(|| unsafe { libc::madvise(start.cast::<c_void>(), bytes, libc::MADV_DONTNEED) });
    false
}

/// Grows a mapping in place. False if something is in the way.
///
/// # Safety
/// - `start..start + old_bytes` was mapped by [`map`].
pub(crate) unsafe fn grow_mapping(start: *mut u8, old_bytes: usize, new_bytes: usize) -> bool {
    // SAFETY: without MAYMOVE the existing part stays as and where it is.
    let result = keeping_errno(|| unsafe { libc::mremap(start.cast::<c_void>(), old_bytes, new_bytes, 0) });
    result != libc::MAP_FAILED
}

/// Grows a mapping, wherever there is a place for it, with its OS pages. `None`: refused, and the mapping stays as and where it is.
///
/// # Safety
/// - `start..start + old_bytes` was mapped by [`map`], and nobody else uses it.
pub(crate) unsafe fn move_mapping(start: *mut u8, old_bytes: usize, new_bytes: usize) -> Option<NonNull<u8>> {
    let flags = libc::MREMAP_MAYMOVE;
    // SAFETY: the caller holds the part; it moves to a place that the kernel chooses, where nothing is.
    let moved = keeping_errno(|| unsafe { libc::mremap(start.cast::<c_void>(), old_bytes, new_bytes, flags) });
    if moved == libc::MAP_FAILED { None } else { NonNull::new(moved.cast::<u8>()) }
}

/// Asks for huge pages behind the range. A hint: a refusal changes nothing.
pub(crate) fn advise_huge(start: *mut u8, bytes: usize) {
    // SAFETY: MADV_HUGEPAGE changes how memory is backed, never what it holds.
    keeping_errno(|| unsafe { libc::madvise(start.cast::<c_void>(), bytes, libc::MADV_HUGEPAGE) });
}

/// Monotonic milliseconds, a few behind: reads memory shared with the kernel, no system call.
pub(crate) fn coarse_clock_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the timespec it is given; the clock exists on every Linux.
    let _result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}
