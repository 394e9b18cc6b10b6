//! The system calls of the box for Miri, which maps and unmaps whole anonymous mappings and nothing else.
//!
//! Same functions and same contracts as `sys`. Unmapping a part of a mapping makes it uninitialised, so that Miri stops
//! whoever reads it.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use hakmem_atomic_ops::Lock;
use hakmem_base::OS_PAGE_BYTES;

/// The kernel refuses blocks that are larger than the machine; this one is small.
const MACHINE_BYTES: usize = 1 << 30;

/// Start and bytes of mappings that are whole. What finds no place here is never unmapped.
static MAPPINGS: Lock<[(usize, usize); 256]> = Lock::new([(0, 0); 256]);

pub(crate) fn thread_mark() -> usize {
    // SAFETY: always returns this thread's errno location, which no other thread shares.
    unsafe { libc::__errno_location() }.addr()
}

fn replace_entry(old: (usize, usize), new: (usize, usize)) -> bool {
    let mut mappings = MAPPINGS.lock();
    mappings.iter_mut().find(|entry| **entry == old).map(|entry| *entry = new).is_some()
}

pub(crate) fn map(bytes: usize) -> Option<NonNull<u8>> {
    if bytes > MACHINE_BYTES {
        return None;
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new anonymous mapping changes no existing memory.
    let address = unsafe { libc::mmap(core::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return None;
    }
    replace_entry((0, 0), (address.addr(), bytes));
    NonNull::new(address.cast::<u8>())
}

/// # Safety
/// - As in `sys`.
pub(crate) unsafe fn unmap(start: *mut u8, bytes: usize) -> bool {
    if bytes != 0 && replace_entry((start.addr(), bytes), (0, 0)) {
        // SAFETY: a whole mapping, which the caller guarantees is idle.
        return unsafe { libc::munmap(start.cast::<c_void>(), bytes) == 0 };
    }
    for offset in (0..bytes).step_by(OS_PAGE_BYTES) {
        let page = start.wrapping_add(offset).cast::<[MaybeUninit<u8>; OS_PAGE_BYTES]>();
        // SAFETY: the caller guarantees that the range, whole pages, is ours and idle.
        unsafe { page.write([MaybeUninit::uninit(); OS_PAGE_BYTES]) };
    }
    true
}

/// # Safety
/// - As in `sys`.
pub(crate) unsafe fn grow_mapping(_start: *mut u8, _old_bytes: usize, _new_bytes: usize) -> bool {
    false
}

/// # Safety
/// - As in `sys`.
pub(crate) unsafe fn move_mapping(_start: *mut u8, _old_bytes: usize, _new_bytes: usize) -> Option<NonNull<u8>> {
    None
}

pub(crate) fn advise_huge(_start: *mut u8, _bytes: usize) {}

pub(crate) fn coarse_clock_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the timespec it is given.
    let _result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}
