//! snmalloc with its own C interface (feature `libc-api` of its crate), which looks after its threads itself.

pub use snmalloc_sys::{sn_calloc as allocate_zeroed, sn_free as free, sn_malloc as allocate, sn_realloc as resize};

use core::ffi::c_void;

unsafe extern "C" {
    // The library has it; the crate does not declare it.
    fn sn_memalign(alignment: usize, bytes: usize) -> *mut c_void;
}

/// # Safety
/// - The alignment is a power of two.
#[inline(always)]
pub unsafe fn allocate_aligned(alignment: usize, bytes: usize) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { sn_memalign(alignment, bytes) }
}

/// # Safety
/// - The block is this library's.
#[inline(always)]
pub unsafe fn usable_size(block: *mut c_void) -> usize {
    // SAFETY: the caller's promise.
    unsafe { snmalloc_sys::sn_malloc_usable_size(block) }
}

// The two names that snmalloc wants of the C++ runtime. Were libstdc++ to bring them, it would be loaded into every program
// under snmalloc, and its pages and its start-up would count as snmalloc's. No exception passes through snmalloc, so its
// tables' personality is never called; destructors of thread-local variables are the C library's business, as in libstdc++.
core::arch::global_asm!(
    ".text",
    ".globl __gxx_personality_v0",
    ".hidden __gxx_personality_v0",
    ".type __gxx_personality_v0, @function",
    "__gxx_personality_v0:",
    "ud2",
    ".globl __cxa_thread_atexit",
    ".hidden __cxa_thread_atexit",
    ".type __cxa_thread_atexit, @function",
    "__cxa_thread_atexit:",
    "jmp qword ptr [rip + __cxa_thread_atexit_impl@GOTPCREL]",
);
