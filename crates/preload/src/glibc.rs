//! Names that only glibc has: the `__libc_` aliases of the family, which old programs and libraries link to.

use crate::{family, reports};
use core::ffi::{c_int, c_void};

/// [`family::malloc`] under its internal name.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub extern "C" fn __libc_malloc(bytes: usize) -> *mut c_void {
    family::malloc(bytes)
}

/// [`family::calloc`] under its internal name.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub extern "C" fn __libc_calloc(count: usize, bytes: usize) -> *mut c_void {
    family::calloc(count, bytes)
}

/// [`family::realloc`] under its internal name.
///
/// # Safety
/// - As for [`family::realloc`].
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn __libc_realloc(block: *mut c_void, bytes: usize) -> *mut c_void {
    // SAFETY: passed on.
    unsafe { family::realloc(block, bytes) }
}

/// [`family::reallocarray`] under its internal name.
///
/// # Safety
/// - As for [`family::realloc`].
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn __libc_reallocarray(block: *mut c_void, count: usize, bytes: usize) -> *mut c_void {
    // SAFETY: passed on.
    unsafe { family::reallocarray(block, count, bytes) }
}

/// [`family::free`] under its internal name.
///
/// # Safety
/// - As for [`family::free`].
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn __libc_free(block: *mut c_void) {
    // SAFETY: passed on.
    unsafe { family::free(block) };
}

/// [`family::cfree`] under its internal name.
///
/// # Safety
/// - As for [`family::free`].
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn __libc_cfree(block: *mut c_void) {
    // SAFETY: passed on.
    unsafe { family::free(block) };
}

/// [`family::memalign`] under its internal name.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub extern "C" fn __libc_memalign(alignment: usize, bytes: usize) -> *mut c_void {
    family::memalign(alignment, bytes)
}

/// [`family::valloc`] under its internal name.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub extern "C" fn __libc_valloc(bytes: usize) -> *mut c_void {
    family::valloc(bytes)
}

/// [`family::pvalloc`] under its internal name.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub extern "C" fn __libc_pvalloc(bytes: usize) -> *mut c_void {
    family::pvalloc(bytes)
}

/// [`family::posix_memalign`] under its internal name.
///
/// # Safety
/// - As for [`family::posix_memalign`].
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn __posix_memalign(result: *mut *mut c_void, alignment: usize, bytes: usize) -> c_int {
    // SAFETY: passed on.
    unsafe { family::posix_memalign(result, alignment, bytes) }
}

/// [`reports::mallopt`] under its internal name.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub extern "C" fn __libc_mallopt(parameter: c_int, value: c_int) -> c_int {
    reports::mallopt(parameter, value)
}

/// [`reports::mallinfo`] under its internal name.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub extern "C" fn __libc_mallinfo() -> libc::mallinfo {
    reports::mallinfo()
}
