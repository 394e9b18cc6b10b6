//! The gates without `Layout`, for a C library: what the preload crate builds the malloc family on.
//!
//! Nothing here unwinds, and `errno` is as it was after every call but a failed [`allocate`].

use core::ptr::NonNull;
use hakmem_base::{BinPlace, SizeClass, TINY_MAX_BYTES};
use hakmem_tiny_front::Pop;

pub use crate::gates::Freed;
pub use hakmem_base::{Door, Request};
pub use hakmem_policy::Foreign;

use crate::global::GLOBAL;
use crate::{attach, gates, global, hooks, pages, tls};

/// Alignment of every block of this module (bytes), as the C standard's `max_align_t` wants it.
pub(crate) const MIN_ALIGN: usize = 16;

/// What became of a resize.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Reallocated {
    /// The block is here now, or still.
    Moved(*mut u8),
    /// There is no memory; the block is as it was.
    OutOfMemory,
    /// The pointer is not hakmem's; nothing was done.
    Foreign,
}

/// A block of at least `bytes` bytes, aligned to 16; when out of memory null, with `errno` set to `ENOMEM` here already so
/// that `malloc` need not look at the result. Zero bytes give a block of their own.
#[inline(always)]
#[must_use]
pub fn allocate(bytes: usize, door: Door) -> *mut u8 {
    if bytes > TINY_MAX_BYTES {
        return allocate_beyond_tiny(bytes, door);
    }
    let place = BinPlace::for_tiny_aligned(bytes);
    match tls::record().heap.pop_at(place) {
        // SAFETY: no place is that of the class whose blocks are too small for a mark.
        Pop::Block(block) => unsafe { gates::hand_out_marked(block) },
        Pop::Beat(block) => gates::beat_slow(block, bytes, MIN_ALIGN, door, place.class()),
        Pop::Empty => refill_or_enomem_slow(place, bytes, door),
    }
}

#[inline(never)]
extern "C" fn allocate_beyond_tiny(bytes: usize, door: Door) -> *mut u8 {
    or_enomem(gates::allocate(bytes, 8, door))
}

#[cold]
#[inline(never)]
extern "C" fn refill_or_enomem_slow(place: BinPlace, bytes: usize, door: Door) -> *mut u8 {
    or_enomem(gates::refill_slow(place.class(), bytes, MIN_ALIGN, door))
}

#[inline]
fn or_enomem(block: *mut u8) -> *mut u8 {
    if block.is_null() {
        // SAFETY: takes no argument; the result is valid for the life of the calling thread.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: the word belongs to this thread.
        unsafe { *errno = libc::ENOMEM };
    }
    block
}

/// Like [`allocate`], reading as zero.
#[inline(always)]
#[must_use]
pub fn allocate_zeroed(bytes: usize) -> *mut u8 {
    gates::allocate_zeroed(bytes, MIN_ALIGN, Door::Malloc)
}

/// A block of at least `bytes` bytes aligned to `align` (a power of two) and at least to 16; null when out of memory.
#[inline]
#[must_use]
pub fn allocate_aligned(bytes: usize, align: usize, door: Door) -> *mut u8 {
    gates::allocate(bytes.max(1), align.max(MIN_ALIGN), door)
}

/// Frees any pointer; null and strangers' pointers are not touched. `claim` is what the caller says of the block: levels that
/// check it report what is wrong with it.
///
/// # Safety
/// - If `ptr` is hakmem's, it is the start of a block in use, which nobody uses any more.
#[inline(always)]
pub unsafe fn free(ptr: *mut u8, claim: Request) -> Freed {
    // SAFETY: passed on to the caller.
    unsafe { gates::free(ptr, claim) }
}

/// Resizes the block at `ptr` (not null) to `bytes` bytes (not 0), keeping its contents.
///
/// # Safety
/// - If `ptr` is hakmem's, it is the start of a block in use.
#[inline]
pub unsafe fn reallocate(ptr: *mut u8, bytes: usize) -> Reallocated {
    let (Some(block), Some(usable)) = (NonNull::new(ptr), gates::usable_size(ptr, Door::Malloc)) else {
        return Reallocated::Foreign;
    };
    // The block stays if its class serves the new size too: what `malloc` would hand out for it.
    if bytes <= usable
        && !tls::is_without_heap()
        && SizeClass::for_bytes(bytes.max(9)).is_some_and(|class| class.block_bytes() == usable)
    {
        return Reallocated::Moved(ptr);
    }
    // SAFETY: the block is hakmem's and `usable` bytes long; passed on to the caller.
    let moved = unsafe { gates::reallocate_slow(block, usable, MIN_ALIGN, bytes, Door::Malloc) };
    if moved.is_null() { Reallocated::OutOfMemory } else { Reallocated::Moved(moved) }
}

/// Bytes that may be used at `ptr`; `None` if it is not hakmem's. Null has 0.
///
/// # Safety
/// - If `ptr` is hakmem's, it is the start of a block in use.
#[inline]
#[must_use]
pub unsafe fn usable_size(ptr: *const u8) -> Option<usize> {
    gates::usable_size(ptr.cast_mut(), Door::Malloc)
}

/// Whether `ptr` lies in hakmem's memory.
#[inline]
#[must_use]
pub fn owns(ptr: *const u8) -> bool {
    GLOBAL.front.route_of(ptr.addr()).is_some() || GLOBAL.big.outside_find(ptr.addr()).is_some()
}

/// What to do with pointers that are not hakmem's.
#[must_use]
pub fn foreign_policy() -> Foreign {
    GLOBAL.boot().foreign
}

/// Gives back what nobody uses; true if something went back to the system.
#[must_use]
pub fn trim() -> bool {
    pages::collect() != 0
}

/// Makes the allocator ready and installs its hooks, as the first allocation does, if the environment has settings for it:
/// then complaints about them, the dump signal and exit statistics do not depend on whether the process allocates. One that
/// never does, and of which nothing is wanted, is left alone.
pub fn initialise_if_spoken_to() {
    if global::is_spoken_to() {
        let _record = attach::heap_for_thread();
    }
}

/// The library is being unloaded, or the process exits: exit statistics. Idempotent.
pub fn library_fini() {
    hooks::finish();
}
