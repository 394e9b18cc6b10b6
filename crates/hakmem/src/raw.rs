//! The gates without `Layout`, for a C library: what the preload crate builds the malloc family on.
//!
//! Nothing here unwinds, and `errno` is as it was after every call but a failed [`allocate`].

use core::ptr::NonNull;
use hakmem_base::{BinPlace, HEADER_BYTES, TINY_MAX_BYTES};
use hakmem_tiny_front::Pop;

pub use crate::gates::Freed;
pub use crate::operators::{are_replaced as operators_are_replaced, note_help_of_runtime};
pub use hakmem_base::{Door, Request};
pub use hakmem_policy::Foreign;

use crate::global::GLOBAL;
use crate::{attach, gates, global, hooks, large, pages, tls};

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
        Pop::Beat(block) => beat_slow(bytes, place, door, block),
        Pop::Empty => refill_or_enomem_slow(bytes, place, door),
    }
}

#[inline(never)]
extern "C" fn allocate_beyond_tiny(bytes: usize, door: Door) -> *mut u8 {
    let Some(place) = GLOBAL.front.classes.place_beyond_tiny(bytes) else {
        return or_enomem(large::allocate_slow(bytes, 8, door));
    };
    match tls::record().heap.pop_at(place) {
        // SAFETY: a block of a class above the tiny ones.
        Pop::Block(block) => unsafe { gates::hand_out_marked(block) },
        Pop::Beat(block) => beat_slow(bytes, place, door, block),
        Pop::Empty => refill_or_enomem_slow(bytes, place, door),
    }
}

#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem")]
extern "C" fn refill_or_enomem_slow(bytes: usize, place: BinPlace, door: Door) -> *mut u8 {
    or_enomem(gates::refill_slow(bytes, place.class(), MIN_ALIGN, door))
}

#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem")]
extern "C" fn beat_slow(bytes: usize, place: BinPlace, door: Door, block: NonNull<u8>) -> *mut u8 {
    gates::beat_slow(bytes, place.class(), MIN_ALIGN, door, block)
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
    if bytes > TINY_MAX_BYTES {
        core::hint::cold_path();
        return allocate_zeroed_beyond_tiny(bytes);
    }
    let place = BinPlace::for_tiny_aligned(bytes);
    match tls::record().heap.pop_at(place) {
        // SAFETY: popped just now; a block of this place is as long.
        Pop::Block(block) => unsafe { zero(block, bytes) },
        Pop::Beat(block) => zeroed_slow(bytes, place, Some(block)),
        Pop::Empty => zeroed_slow(bytes, place, None),
    }
}

/// Makes a block read as zero, its mark included. Small blocks without a call: by stores that overlap.
///
/// # Safety
/// - `block` is nobody else's, at least `bytes` bytes long and at least sixteen, and begins at a multiple of sixteen.
#[inline(always)]
unsafe fn zero(block: NonNull<u8>, bytes: usize) -> *mut u8 {
    const PIECE: usize = MIN_ALIGN;
    let zero_piece = |offset: usize| {
        let piece = block.as_ptr().wrapping_add(offset).cast::<u128>();
        // SAFETY: blocks are whole pieces, and every offset below lies in the pieces that `bytes` begins.
        unsafe { piece.write(0) };
    };
    if HEADER_BYTES != 0 {
        // Behind the block stands the next one's header, not at a multiple of sixteen.
        // SAFETY: blocks of these places are at least sixteen bytes long.
        unsafe { block.as_ptr().write_bytes(0, bytes.max(PIECE)) };
        return block.as_ptr();
    }
    let last = bytes.saturating_sub(1) & !(PIECE - 1);
    if bytes > 4 * PIECE {
        // SAFETY: `last` is the offset of the block's last piece that is asked for.
        unsafe { block.as_ptr().write_bytes(0, last + PIECE) };
        return block.as_ptr();
    }
    zero_piece(0);
    zero_piece(last);
    if bytes > 2 * PIECE {
        zero_piece(PIECE);
        zero_piece(last - PIECE);
    }
    block.as_ptr()
}

/// The slow ways of [`allocate_zeroed`]: a heartbeat if there is a block, else a refill.
#[cold]
#[inline(never)]
extern "C" fn zeroed_slow(bytes: usize, place: BinPlace, block: Option<NonNull<u8>>) -> *mut u8 {
    let block = match block {
        Some(block) => beat_slow(bytes, place, Door::Malloc, block),
        None => refill_or_enomem_slow(bytes, place, Door::Malloc),
    };
    if !block.is_null() {
        // Not `zero`: a guarded sample, or a block of the hardened level, is as long as was asked for.
        // SAFETY: handed out just now for that size.
        unsafe { block.write_bytes(0, bytes) };
    }
    block
}

#[inline(never)]
extern "C" fn allocate_zeroed_beyond_tiny(bytes: usize) -> *mut u8 {
    or_enomem(gates::allocate_zeroed(bytes, 8, Door::Malloc))
}

/// A block of at least `bytes` bytes aligned to `align` (a power of two) and at least to 16; null when out of memory.
#[inline]
#[must_use]
pub fn allocate_aligned(bytes: usize, align: usize, door: Door) -> *mut u8 {
    gates::allocate(bytes.max(1), align.max(MIN_ALIGN), door)
}

/// Null, counted as out of memory: for a request that is refused before it comes here, because no block is as large.
#[must_use]
pub fn too_large() -> *mut u8 {
    large::refused()
}

/// Frees any pointer; null and strangers' pointers are not touched. `claim` is what the caller says of the block: levels that
/// check it report what is wrong with it. It is made where somebody looks at it, not on the fast path.
///
/// # Safety
/// - If `ptr` is hakmem's, it is the start of a block in use, which nobody uses any more.
#[inline(always)]
pub unsafe fn free(ptr: *mut u8, claim: impl Fn() -> Request) -> Freed {
    // SAFETY: passed on to the caller.
    unsafe { gates::free(ptr, claim) }
}

/// The block at `ptr` if it stays where it is when it is resized to `bytes` bytes: small, this thread's, in use, and of the class
/// that [`allocate`] would serve it from.
///
/// # Safety
/// - If `ptr` is hakmem's, it is the start of a block in use.
#[inline(always)]
#[must_use]
pub unsafe fn stays(ptr: *mut u8, bytes: usize) -> bool {
    // Zero bytes are none of ours: the first compare sorts them out with the large sizes.
    bytes.wrapping_sub(1) < TINY_MAX_BYTES
        // SAFETY: passed on to the caller.
        && unsafe { gates::own_place_in_use(ptr, Door::Malloc) } == Some(BinPlace::for_tiny_aligned(bytes))
}

/// Resizes the block at `ptr` (not null) to `bytes` bytes (not 0), keeping its contents.
///
/// # Safety
/// - If `ptr` is hakmem's, it is the start of a block in use.
#[inline]
pub unsafe fn reallocate(ptr: *mut u8, bytes: usize) -> Reallocated {
    // SAFETY: passed on to the caller.
    let own = unsafe { gates::own_place_in_any_slab(ptr, Door::Malloc) };
    let Some(block) = NonNull::new(ptr) else { return Reallocated::Foreign };
    let resized = if let Some(place) = own {
        // SAFETY: the block is hakmem's and at this place; passed on to the caller.
        unsafe { gates::resize_own(block, place, bytes, Door::Malloc) }
    } else {
        let Some(usable) = gates::usable_size(ptr, Door::Malloc) else { return Reallocated::Foreign };
        // SAFETY: the block is hakmem's and `usable` bytes long; passed on to the caller.
        unsafe { gates::reallocate_slow(block, usable, MIN_ALIGN, bytes, Door::Malloc) }
    };
    if resized.is_null() { Reallocated::OutOfMemory } else { Reallocated::Moved(resized) }
}

/// Bytes that may be used at `ptr`; `None` if it is not hakmem's. Null has 0.
///
/// # Safety
/// - If `ptr` is hakmem's, it is the start of a block in use.
#[inline]
#[must_use]
pub unsafe fn usable_size(ptr: *const u8) -> Option<usize> {
    let ptr = ptr.cast_mut();
    // SAFETY: passed on to the caller.
    match unsafe { gates::own_place_in_use(ptr, Door::Malloc) } {
        Some(place) => Some(place.class().block_bytes()),
        None => gates::usable_size(ptr, Door::Malloc),
    }
}

/// Whether `ptr` lies in hakmem's memory.
#[inline]
#[must_use]
pub fn owns(ptr: *const u8) -> bool {
    GLOBAL.front.route_of(ptr.addr()).is_some() || GLOBAL.big.outside_find(ptr.addr()).is_some()
}

/// What the environment wants done with pointers that are not hakmem's.
#[must_use]
pub fn foreign_policy() -> Foreign {
    GLOBAL.boot().foreign
}

/// Gives back what nobody uses; true if something went back to the system.
#[must_use]
pub fn trim() -> bool {
    pages::collect() != 0
}

/// Makes the allocator ready and installs its hooks, as the first allocation does, if the environment has settings for it, so that
/// complaints about them, the dump signal and exit statistics do not depend on whether the process allocates. A process without such
/// settings that never allocates gets nothing but the fork handlers.
pub fn initialise_if_spoken_to() {
    if global::is_spoken_to() {
        let _record = attach::heap_for_thread();
    }
}

/// Registers this library's fork handlers, if that has not happened yet: for whoever is about to register others, which have to come
/// behind them.
pub fn expect_fork_handlers() {
    hooks::handle_forks();
}

/// Writes exit statistics, and ends what may not outlive the library: for its unloading, and for the exit of the process. Idempotent.
pub fn library_fini() {
    hooks::finish();
}
