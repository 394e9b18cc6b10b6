//! mimalloc 3 or 2.3, which looks after its threads itself.

pub use libmimalloc_sys::{
    mi_calloc as allocate_zeroed, mi_free as free, mi_malloc as allocate, mi_realloc as resize,
    mi_usable_size as usable_size,
};

use core::ffi::c_void;

/// # Safety
/// - The alignment is a power of two.
#[inline(always)]
pub unsafe fn allocate_aligned(alignment: usize, bytes: usize) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { libmimalloc_sys::mi_malloc_aligned(bytes, alignment) }
}
