//! The malloc family as the C standards, POSIX and glibc's manual describe it.
//!
//! Where they leave a choice, glibc 2.36 decides: `realloc(p, 0)` frees, `aligned_alloc` is `memalign`, and `memalign`
//! rounds an alignment that is no power of two up to the next one.

use crate::foreign;
use crate::outcome::{MAX_BYTES, block_or_enomem, invalid_argument, out_of_memory, too_large};
use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use hakmem::raw::{self, Door, Freed, Reallocated, Request};

/// Allocates `bytes` bytes, aligned to 16. Zero bytes give a block of its own.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub extern "C" fn malloc(bytes: usize) -> *mut c_void {
    // `errno` is set there: a look at the result here would cost every call a stack frame.
    raw::allocate(bytes, Door::Malloc).cast()
}

/// Allocates `count * bytes` bytes, all zero.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub extern "C" fn calloc(count: usize, bytes: usize) -> *mut c_void {
    match count.checked_mul(bytes) {
        // `errno` is set there.
        Some(bytes) => raw::allocate_zeroed(bytes).cast(),
        None => too_large(),
    }
}

/// Frees a block; null is allowed. `errno` stays as it was.
///
/// # Safety
/// - `block` is null or was handed out by this family and not freed since.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn free(block: *mut c_void) {
    // SAFETY: the caller hands back a block, or a pointer that the callee recognises as foreign by its address.
    unsafe { free_as(block, || Request::unsized_from(Door::Malloc)) };
}

/// Frees a block; null is allowed. `errno` stays as it was.
///
/// # Safety
/// - As for [`free`].
#[inline(always)]
pub(crate) unsafe fn free_as(block: *mut c_void, claim: impl Fn() -> Request) {
    // SAFETY: passed on.
    match unsafe { raw::free(block.cast(), claim) } {
        Freed::Done => {}
        // SAFETY: the caller owns what the pointer points to; it is foreign.
        Freed::Foreign(block) => unsafe { foreign::free_slow(block.as_ptr().cast()) },
    }
}

/// Changes the size of a block, which may move it. A null `block` allocates, zero `bytes` free.
///
/// # Safety
/// - `block` is null or was handed out by this family and not freed since.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn realloc(block: *mut c_void, bytes: usize) -> *mut c_void {
    // Interpreters allocate through this door too: the way to `malloc` must be as short here.
    if block.is_null() {
        return raw::allocate(bytes, Door::Malloc).cast();
    }
    // SAFETY: the caller owns the block, or the callee recognises it as foreign by its address.
    if unsafe { raw::stays(block.cast(), bytes) } {
        return block;
    }
    // SAFETY: passed on.
    unsafe { realloc_slow(block, bytes) }
}

/// A block that moves, or of which more than its address must be looked at.
///
/// # Safety
/// - As for [`realloc`]; `block` is not null.
#[inline(never)]
unsafe extern "C" fn realloc_slow(block: *mut c_void, bytes: usize) -> *mut c_void {
    if bytes == 0 {
        // SAFETY: passed on.
        unsafe { free(block) };
        return null_mut();
    }
    if bytes > MAX_BYTES {
        return too_large();
    }
    // SAFETY: the block is not null, `bytes` is not zero, and the caller owns the block.
    match unsafe { raw::reallocate(block.cast(), bytes) } {
        Reallocated::Moved(moved) => moved.cast(),
        Reallocated::OutOfMemory => out_of_memory(),
        // SAFETY: the caller owns what the pointer points to; it is foreign.
        Reallocated::Foreign => unsafe { foreign::realloc_slow(block, bytes) },
    }
}

/// `realloc(block, count * bytes)`, refusing a product that overflows.
///
/// # Safety
/// - As for [`realloc`].
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn reallocarray(block: *mut c_void, count: usize, bytes: usize) -> *mut c_void {
    match count.checked_mul(bytes) {
        // SAFETY: passed on.
        Some(bytes) => unsafe { realloc(block, bytes) },
        None => too_large(),
    }
}

/// Allocates with an alignment. Returns an error number instead of setting `errno`, and then leaves `*result` alone.
///
/// # Safety
/// - `result` may be written.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn posix_memalign(result: *mut *mut c_void, alignment: usize, bytes: usize) -> c_int {
    if !alignment.is_power_of_two() || alignment < size_of::<*mut c_void>() {
        return libc::EINVAL;
    }
    let block = allocate_aligned(bytes, alignment, Door::Malloc);
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller vouches for `result`.
    unsafe { result.write(block.cast()) };
    0
}

/// Allocates with an alignment; as in glibc 2.36 the same as [`memalign`].
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub extern "C" fn aligned_alloc(alignment: usize, bytes: usize) -> *mut c_void {
    memalign(alignment, bytes)
}

/// Allocates with an alignment, rounded up to a power of two.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub extern "C" fn memalign(alignment: usize, bytes: usize) -> *mut c_void {
    match alignment.checked_next_power_of_two() {
        Some(alignment) => block_or_enomem(allocate_aligned(bytes, alignment, Door::Malloc)),
        None => invalid_argument(),
    }
}

/// Allocates whole-page aligned memory.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub extern "C" fn valloc(bytes: usize) -> *mut c_void {
    memalign(hakmem_base::OS_PAGE_BYTES, bytes)
}

/// Allocates whole pages: [`valloc`] with `bytes` rounded up to a multiple of the page.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub extern "C" fn pvalloc(bytes: usize) -> *mut c_void {
    match bytes.checked_next_multiple_of(hakmem_base::OS_PAGE_BYTES) {
        Some(bytes) => memalign(hakmem_base::OS_PAGE_BYTES, bytes),
        None => too_large(),
    }
}

/// The name that `free` had in SunOS; programs from before glibc 2.26 still call it.
///
/// # Safety
/// - As for [`free`].
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn cfree(block: *mut c_void) {
    // SAFETY: passed on.
    unsafe { free(block) };
}

/// C23: frees a block whose size the caller knows. Only the hardened and the sampled level look whether it is right.
///
/// # Safety
/// - As for [`free`].
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn free_sized(block: *mut c_void, bytes: usize) {
    // SAFETY: passed on.
    unsafe { free_as(block, || Request::new(bytes, 1, Door::Malloc)) };
}

/// C23: frees a block of [`aligned_alloc`] whose alignment and size the caller knows. Only the hardened level looks whether
/// they are right.
///
/// # Safety
/// - As for [`free`].
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn free_aligned_sized(block: *mut c_void, alignment: usize, bytes: usize) {
    // SAFETY: passed on.
    unsafe { free_as(block, || Request::new(bytes, alignment, Door::Malloc)) };
}

/// Bytes that the user may write at `block`: at least what was asked for. Zero for null.
///
/// # Safety
/// - `block` is null or was handed out by this family and not freed since.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    // SAFETY: the caller owns the block, or the callee recognises it as foreign by its address.
    match unsafe { raw::usable_size(block.cast::<u8>().cast_const()) } {
        Some(bytes) => bytes,
        // SAFETY: the caller owns what the pointer points to; it is foreign.
        None => unsafe { foreign::usable_size_slow(block) },
    }
}

/// A block of `bytes` bytes at a multiple of `alignment`, a power of two; null when there is none or the sum of both
/// exceeds [`MAX_BYTES`].
#[inline]
pub(crate) fn allocate_aligned(bytes: usize, alignment: usize, door: Door) -> *mut u8 {
    // Not `raw::allocate`, whatever the alignment: that sets `errno`, which `posix_memalign` must leave alone.
    if bytes > MAX_BYTES.saturating_sub(alignment) {
        raw::too_large()
    } else {
        raw::allocate_aligned(bytes, alignment, door)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{errno, set_errno};

    /// Runs `call` with `errno` cleared and returns its result with the `errno` it left.
    fn with_errno<T>(call: impl FnOnce() -> T) -> (T, c_int) {
        set_errno(0);
        let result = call();
        (result, errno())
    }

    fn release(block: *mut c_void) {
        assert!(!block.is_null());
        // SAFETY: the tests hand in a block that they have just been given.
        unsafe { free(block) };
    }

    #[test]
    fn sizes_beyond_ptrdiff_max_are_refused_with_enomem() {
        for bytes in [MAX_BYTES + 1, usize::MAX - 4096, usize::MAX] {
            assert_eq!(with_errno(|| malloc(bytes)), (null_mut(), libc::ENOMEM));
            assert_eq!(with_errno(|| calloc(1, bytes)), (null_mut(), libc::ENOMEM));
            assert_eq!(with_errno(|| memalign(64, bytes)), (null_mut(), libc::ENOMEM));
            assert_eq!(with_errno(|| valloc(bytes)), (null_mut(), libc::ENOMEM));
            assert_eq!(with_errno(|| pvalloc(bytes)), (null_mut(), libc::ENOMEM));
        }
    }

    #[test]
    fn products_that_overflow_are_refused_and_leave_the_old_block_alone() {
        let half = 1_usize << 32;
        assert_eq!(with_errno(|| calloc(half, half)), (null_mut(), libc::ENOMEM));
        let block = malloc(100);
        // SAFETY: 100 bytes are ours.
        unsafe { block.cast::<u8>().write_bytes(7, 100) };
        // SAFETY: the block is live.
        assert_eq!(with_errno(|| unsafe { reallocarray(block, half, half) }), (null_mut(), libc::ENOMEM));
        // SAFETY: the block is live.
        assert_eq!(with_errno(|| unsafe { realloc(block, usize::MAX) }), (null_mut(), libc::ENOMEM));
        // SAFETY: a refused `realloc` leaves the block as it was.
        let bytes = unsafe { core::slice::from_raw_parts(block.cast::<u8>(), 100) };
        assert!(bytes.iter().all(|&byte| byte == 7));
        release(block);
    }

    #[test]
    fn zero_bytes_give_distinct_blocks() {
        let (first, second) = (malloc(0), calloc(0, 8));
        assert!(first != second);
        release(first);
        release(second);
    }

    #[test]
    fn realloc_of_null_allocates_and_to_zero_bytes_frees() {
        // SAFETY: null is allowed.
        let block = unsafe { realloc(null_mut(), 40) };
        assert!(!block.is_null());
        // SAFETY: the block is live and not used afterwards.
        assert_eq!(with_errno(|| unsafe { realloc(block, 0) }), (null_mut(), 0));
    }

    #[test]
    fn posix_memalign_refuses_bad_alignments_without_touching_errno_or_the_result() {
        for alignment in [0, 1, 2, 4, 12, 24, 4097] {
            let mut result = core::ptr::without_provenance_mut::<c_void>(0x77);
            // SAFETY: `result` is a live local.
            assert_eq!(with_errno(|| unsafe { posix_memalign(&raw mut result, alignment, 10) }), (libc::EINVAL, 0));
            assert_eq!(result.addr(), 0x77);
        }
        let mut result = core::ptr::without_provenance_mut::<c_void>(0x77);
        for alignment in [8, 16, 64] {
            // SAFETY: `result` is a live local.
            let refused = with_errno(|| unsafe { posix_memalign(&raw mut result, alignment, usize::MAX) });
            assert_eq!(refused, (libc::ENOMEM, 0), "{alignment}");
            assert_eq!(result.addr(), 0x77);
        }
    }

    #[test]
    fn memalign_rounds_odd_alignments_up_and_refuses_those_beyond_half_the_address_space() {
        for (asked, given) in [(0, 16), (1, 16), (17, 32), (24, 32), (48, 64), (4097, 8192)] {
            let block = memalign(asked, 100);
            assert_eq!(block.addr() % given, 0);
            release(block);
        }
        assert_eq!(with_errno(|| memalign((1 << 63) + 1, 1)), (null_mut(), libc::EINVAL));
        assert_eq!(with_errno(|| memalign(1 << 63, 1)), (null_mut(), libc::ENOMEM));
    }

    #[test]
    fn pvalloc_gives_whole_pages() {
        let block = pvalloc(5000);
        assert_eq!(block.addr() % 4096, 0);
        // SAFETY: the block is live.
        assert!(unsafe { malloc_usable_size(block) } >= 8192);
        release(block);
    }

    #[test]
    fn usable_size_covers_the_request_and_is_zero_for_null() {
        // SAFETY: null is allowed.
        assert_eq!(unsafe { malloc_usable_size(null_mut()) }, 0);
        for bytes in [0, 1, 16, 1000, 40_000, 3 << 20] {
            let block = malloc(bytes);
            // SAFETY: the block is live.
            assert!(unsafe { malloc_usable_size(block) } >= bytes);
            release(block);
        }
    }

    #[test]
    fn free_keeps_errno() {
        set_errno(77);
        release(malloc(10));
        // SAFETY: null is allowed.
        unsafe { free(null_mut()) };
        assert_eq!(errno(), 77);
    }
}
