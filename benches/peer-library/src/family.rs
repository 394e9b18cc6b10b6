//! The exported symbols, in terms of the six functions that each peer has.
//!
//! **Invariants.** `reallocarray` and `pvalloc` never ask for a size that has wrapped around.

use crate::peer;
use core::ffi::{c_int, c_void};
use libc::{EINVAL, ENOMEM};

const PAGE_BYTES: usize = 4096;

macro_rules! exported {
    ($(fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? $body:block)*) => {$(
        /// As its manual page or, for an operator, the C++ standard says.
        ///
        /// # Safety
        /// - A block that is passed in comes from this library and was not returned before.
        /// - A place for a result can be written.
        #[allow(non_snake_case, reason = "the name that C++ compilers give an operator")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? {
            #[allow(unused_unsafe, reason = "some need it")]
            // SAFETY: the peer's conditions are those of the malloc family, which the caller keeps.
            unsafe { $body }
        }
    )*};
}

exported! {
    fn malloc(bytes: usize) -> *mut c_void { peer::allocate(bytes) }
    fn calloc(count: usize, bytes: usize) -> *mut c_void { peer::allocate_zeroed(count, bytes) }
    fn realloc(block: *mut c_void, bytes: usize) -> *mut c_void { peer::resize(block, bytes) }
    fn free(block: *mut c_void) { peer::free(block) }
    fn cfree(block: *mut c_void) { peer::free(block) }
    fn malloc_usable_size(block: *mut c_void) -> usize { peer::usable_size(block) }
    fn memalign(alignment: usize, bytes: usize) -> *mut c_void { peer::allocate_aligned(alignment, bytes) }
    fn aligned_alloc(alignment: usize, bytes: usize) -> *mut c_void { peer::allocate_aligned(alignment, bytes) }
    fn valloc(bytes: usize) -> *mut c_void { peer::allocate_aligned(PAGE_BYTES, bytes) }
    fn pvalloc(bytes: usize) -> *mut c_void {
        match bytes.max(1).checked_next_multiple_of(PAGE_BYTES) {
            Some(bytes) => peer::allocate_aligned(PAGE_BYTES, bytes),
            None => core::ptr::null_mut(),
        }
    }
    fn reallocarray(block: *mut c_void, count: usize, bytes: usize) -> *mut c_void {
        match count.checked_mul(bytes) {
            Some(bytes) => peer::resize(block, bytes),
            None => core::ptr::null_mut(),
        }
    }
    fn posix_memalign(place: *mut *mut c_void, alignment: usize, bytes: usize) -> c_int {
        posix(place, alignment, bytes)
    }
    fn _Znwm(bytes: usize) -> *mut c_void { or_abort(peer::allocate(bytes)) }
    fn _Znam(bytes: usize) -> *mut c_void { or_abort(peer::allocate(bytes)) }
    fn _ZnwmRKSt9nothrow_t(bytes: usize, _nothrow: *const c_void) -> *mut c_void { peer::allocate(bytes) }
    fn _ZnamRKSt9nothrow_t(bytes: usize, _nothrow: *const c_void) -> *mut c_void { peer::allocate(bytes) }
    fn _ZdlPv(block: *mut c_void) { peer::free(block) }
    fn _ZdaPv(block: *mut c_void) { peer::free(block) }
    fn _ZdlPvm(block: *mut c_void, _bytes: usize) { peer::free(block) }
    fn _ZdaPvm(block: *mut c_void, _bytes: usize) { peer::free(block) }
}

/// `posix_memalign`, whose conditions glibc checks and not every peer does.
unsafe fn posix(place: *mut *mut c_void, alignment: usize, bytes: usize) -> c_int {
    if !alignment.is_power_of_two() || !alignment.is_multiple_of(size_of::<*mut c_void>()) {
        return EINVAL;
    }
    // SAFETY: the alignment is a power of two.
    let block = unsafe { peer::allocate_aligned(alignment, bytes) };
    if block.is_null() {
        return ENOMEM;
    }
    // SAFETY: the caller's place can be written.
    unsafe { place.write(block) };
    0
}

/// Where C++ would throw. Nothing that is measured runs out of memory; what did would be no result.
fn or_abort(block: *mut c_void) -> *mut c_void {
    if block.is_null() {
        std::process::abort();
    }
    block
}
