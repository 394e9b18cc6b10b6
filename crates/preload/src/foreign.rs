//! Pointers that hakmem did not hand out: passed on to the allocator behind this library, or refused.
//!
//! They come from memory allocated before the library was loaded, or inside libraries that carry an allocator of their own.
//! A pointer is judged by its address alone and never dereferenced here. A next allocator that has handed out nothing, as
//! is the rule when this library was there from the start, can own no pointer: then it is the program's mistake.

use crate::next::Next;
use crate::outcome::{errno, out_of_memory, set_errno};
use core::ffi::c_void;
use core::mem::transmute;
use core::ptr::NonNull;
use hakmem::raw::{self, Foreign};
use hakmem_atomic_ops::{Flag, SetOnce};
use hakmem_base::{Line, fatal_ptr};

type Free = unsafe extern "C" fn(*mut c_void);
type Realloc = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
type Mallinfo = unsafe extern "C" fn() -> libc::mallinfo2;
type UsableSize = unsafe extern "C" fn(*mut c_void) -> usize;

static FREE: Next = Next::new(c"free");
static REALLOC: Next = Next::new(c"realloc");
static USABLE_SIZE: Next = Next::new(c"malloc_usable_size");
static MALLINFO: Next = Next::new(c"mallinfo2");
/// Of the next allocator's `mallinfo2`.
static IS_BESIDE_FREE: SetOnce<bool> = SetOnce::new();
static LOSS_REPORTED: Flag = Flag::new(false);

/// Frees a foreign block, keeping `errno`.
///
/// # Safety
/// - The caller owns what `block` points to, and hakmem does not know it.
#[cold]
#[inline(never)]
pub(crate) unsafe extern "C" fn free_slow(block: *mut c_void) {
    if is_rejected() {
        fatal_ptr("free of a pointer that hakmem did not hand out", block.addr());
    }
    let kept = errno();
    match FREE.find() {
        Some(next) => {
            // SAFETY: the address is that of a function named `free`, which has this type.
            let next = unsafe { transmute::<*mut c_void, Free>(next.as_ptr()) };
            // SAFETY: the caller owns the block; that it is the next allocator's is the program's promise, as without us.
            unsafe { next(block) };
        }
        None => report_loss(block),
    }
    set_errno(kept);
}

/// Changes the size of a foreign block where it came from.
///
/// # Safety
/// - The caller owns what `block` points to, and hakmem does not know it.
#[cold]
#[inline(never)]
pub(crate) unsafe fn realloc_slow(block: *mut c_void, bytes: usize) -> *mut c_void {
    if is_rejected() {
        fatal_ptr("realloc of a pointer that hakmem did not hand out", block.addr());
    }
    let Some(next) = REALLOC.find() else {
        return out_of_memory();
    };
    // SAFETY: the address is that of a function named `realloc`, which has this type.
    let next = unsafe { transmute::<*mut c_void, Realloc>(next.as_ptr()) };
    // SAFETY: the caller owns the block; that it is the next allocator's is the program's promise, as without us.
    unsafe { next(block, bytes) }
}

/// Asks where a foreign block came from how large it is; zero if nobody can say.
///
/// # Safety
/// - The caller owns what `block` points to, and hakmem does not know it.
#[cold]
#[inline(never)]
pub(crate) unsafe fn usable_size_slow(block: *mut c_void) -> usize {
    if is_rejected() {
        fatal_ptr("malloc_usable_size of a pointer that hakmem did not hand out", block.addr());
    }
    let Some(next) = USABLE_SIZE.find() else {
        return 0;
    };
    // SAFETY: the address is that of a function named `malloc_usable_size`, which has this type.
    let next = unsafe { transmute::<*mut c_void, UsableSize>(next.as_ptr()) };
    // SAFETY: the caller owns the block; that it is the next allocator's is the program's promise, as without us.
    unsafe { next(block) }
}

/// Whether a foreign pointer cannot be anybody's. Allocators other than glibc's do not say what they have handed out, and glibc says
/// nothing of theirs: what they would do with the pointer is theirs to judge.
fn is_rejected() -> bool {
    match raw::foreign_policy() {
        Foreign::Reject => true,
        Foreign::Pass => false,
        Foreign::Auto => MALLINFO.find().filter(|next| is_beside_free(*next)).is_some_and(|next| {
            // SAFETY: the address is that of a function named `mallinfo2`, which has this type.
            let next = unsafe { transmute::<*mut c_void, Mallinfo>(next.as_ptr()) };
            // SAFETY: takes nothing and changes nothing but the other allocator's own start.
            let used = unsafe { next() };
            used.arena == 0 && used.hblkhd == 0
        }),
    }
}

/// Whether a function of the next allocator's is in the library that the next `free` is in.
fn is_beside_free(function: NonNull<c_void>) -> bool {
    if let Some(known) = IS_BESIDE_FREE.get() {
        return *known;
    }
    let Some(free) = FREE.find() else { return false };
    let library = library_of(free);
    let is_beside = library.is_some() && library_of(function) == library;
    let _is_first = IS_BESIDE_FREE.set(is_beside);
    is_beside
}

/// Where the library lies that a function is in.
fn library_of(function: NonNull<c_void>) -> Option<usize> {
    // SAFETY: all zero is a valid structure to be filled.
    let mut info = unsafe { core::mem::zeroed::<libc::Dl_info>() };
    // SAFETY: any address may be asked for.
    let is_known = unsafe { libc::dladdr(function.as_ptr(), &raw mut info) } != 0;
    is_known.then(|| info.dli_fbase.addr())
}

/// Says once that a foreign block had to be left alone.
fn report_loss(block: *mut c_void) {
    // ORDERING: decides who reports; nothing travels.
    if LOSS_REPORTED.try_set_acq_rel() {
        Line::new().text("no next allocator to free a foreign pointer, left alone: ").hex(block.addr()).write();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family;

    #[test]
    fn a_block_of_the_next_allocator_is_sized_grown_and_freed_there() {
        // SAFETY: in this test binary `libc::malloc` is glibc's own.
        let block = unsafe { libc::malloc(40) };
        assert!(!raw::owns(block.cast()));
        // SAFETY: the block is live and foreign.
        assert!(unsafe { family::malloc_usable_size(block) } >= 40);
        // SAFETY: the block is live and foreign.
        let block = unsafe { family::realloc(block, 100_000) };
        assert!(!raw::owns(block.cast()));
        set_errno(5);
        // SAFETY: the block is live and foreign.
        unsafe { family::free(block) };
        assert_eq!(errno(), 5);
    }
}
