//! How a call ends that could not be served: `errno` and a null pointer.

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use hakmem::raw;

/// Largest size that any call grants: the difference of two pointers into one object must not overflow.
pub(crate) const MAX_BYTES: usize = isize::MAX as usize;

/// Result of a failed allocation: `errno` is `ENOMEM`, the pointer is null. `extern "C"`, so that it cannot unwind and callers jump to
/// it.
#[cold]
#[inline(never)]
pub(crate) extern "C" fn out_of_memory() -> *mut c_void {
    set_errno(libc::ENOMEM);
    null_mut()
}

/// [`out_of_memory`] for a size that no block has, which the allocator never sees but counts.
#[cold]
#[inline(never)]
pub(crate) extern "C" fn too_large() -> *mut c_void {
    let _null = raw::too_large();
    out_of_memory()
}

/// Result of a request with an impossible argument: `errno` is `EINVAL`, the pointer is null.
#[cold]
#[inline(never)]
pub(crate) fn invalid_argument() -> *mut c_void {
    set_errno(libc::EINVAL);
    null_mut()
}

/// The calling thread's `errno`.
pub(crate) fn errno() -> c_int {
    // SAFETY: takes no argument; the result is valid for the life of the calling thread.
    let location = unsafe { libc::__errno_location() };
    // SAFETY: the word belongs to this thread.
    unsafe { *location }
}

/// Sets the calling thread's `errno`.
pub(crate) fn set_errno(value: c_int) {
    // SAFETY: takes no argument; the result is valid for the life of the calling thread.
    let location = unsafe { libc::__errno_location() };
    // SAFETY: the word belongs to this thread.
    unsafe { *location = value };
}

/// Hands a block to C, or reports that there was none.
#[inline(always)]
pub(crate) fn block_or_enomem(block: *mut u8) -> *mut c_void {
    if block.is_null() { out_of_memory() } else { block.cast() }
}
