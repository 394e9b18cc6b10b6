//! The gates: where a request gets its size class, and where a pointer is normalised, range-checked and routed. Once.

use core::ptr::NonNull;
use hakmem_base::{
    BinPlace, Door, HEADED_ALIGN, HEADER_BYTES, MARKED_MIN_BYTES, MAX_SLAB_BLOCK_BYTES, MarkKey, OS_PAGE_BYTES,
    Request, SLAB_BYTES, SizeClass, TINY_MAX_BYTES, fatal_block, fatal_ptr,
};
use hakmem_ownership::{BinPtr, Route};
use hakmem_tiny_front::{Heap, Pop};

use crate::attach::{heap_for_free, heap_for_thread, pick_up_policy, with_passing_heap};
use crate::global::GLOBAL;
use crate::record::HeapRecord;
use crate::{hardened, large, learning, pages, raw, sampler, scavenger, tls, watcher};

/// What became of a pointer that was to be freed or resized.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Freed {
    /// It was hakmem's block (or null) and is free now.
    Done,
    /// This pointer is not hakmem's; nothing was done. It travels back so that the caller need not keep it over the call.
    Foreign(NonNull<u8>),
}

/// The class that serves `bytes` bytes aligned to `align` at present, or `None` if slabs do not. A moment later another one may: what
/// a block is, its slab's route word says.
///
/// Dynamic classes serve what asks for no alignment of its own. They are for sizes above 1 KiB, so that smaller constant ones still
/// fold to a class at compile time.
#[inline(always)]
pub(crate) fn class_for(bytes: usize, align: usize) -> Option<SizeClass> {
    if align <= 8 {
        return GLOBAL.front.classes.for_bytes(bytes);
    }
    if HEADER_BYTES != 0 {
        return if align <= HEADED_ALIGN { GLOBAL.front.classes.for_bytes(bytes) } else { None };
    }
    SizeClass::for_bytes(rounded_up(bytes, align)?)
}

/// The smallest class that can ever have served `bytes` bytes aligned to `align`, whatever was in force then: what is true of its
/// blocks' size is true of the block that was handed out. Constants, so that nothing changes it between an allocation and a free.
#[inline(always)]
pub(crate) fn finest_for(bytes: usize, align: usize) -> Option<SizeClass> {
    if align <= 8 {
        return SizeClass::finest(bytes);
    }
    if HEADER_BYTES != 0 {
        return if align <= HEADED_ALIGN { SizeClass::finest(bytes) } else { None };
    }
    SizeClass::finest(rounded_up(bytes, align)?)
}

/// Classes of a multiple of the alignment have aligned blocks. Larger alignments than a slab's end above every class.
#[inline(always)]
fn rounded_up(bytes: usize, align: usize) -> Option<usize> {
    Some(bytes.max(1).checked_add(align - 1)? & !(align - 1))
}

/// A block of `bytes` bytes aligned to `align` (a power of two), or null.
#[inline(always)]
pub(crate) fn allocate(bytes: usize, align: usize, door: Door) -> *mut u8 {
    match class_for(bytes, align) {
        Some(class) => allocate_class(class, bytes, align, door),
        None => large::allocate_slow(bytes, align, door),
    }
}

/// Like [`allocate`], reading as zero.
#[inline(always)]
pub(crate) fn allocate_zeroed(bytes: usize, align: usize, door: Door) -> *mut u8 {
    match class_for(bytes, align) {
        Some(class) => {
            let block = allocate_class(class, bytes, align, door);
            if !block.is_null() {
                // SAFETY: the block is at least `bytes` bytes long and nobody else's.
                unsafe { block.write_bytes(0, bytes) };
            }
            block
        }
        None => large::allocate_zeroed_slow(bytes, align, door),
    }
}

/// A block of a class, or null. Only slow paths look at what exactly was asked for.
#[inline(always)]
pub(crate) fn allocate_class(class: SizeClass, bytes: usize, align: usize, door: Door) -> *mut u8 {
    match tls::record().heap.pop(class) {
        Pop::Block(block) => hand_out(block, class, door),
        Pop::Beat(block) => beat_slow(bytes, class, align, door, block),
        Pop::Empty => refill_slow(bytes, class, align, door),
    }
}

/// The last step of every way to a small block: it is in use from here on, and does not look free.
#[inline(always)]
pub(crate) fn hand_out(block: NonNull<u8>, class: SizeClass, door: Door) -> *mut u8 {
    if door.is_checked() && class.block_bytes() >= MARKED_MIN_BYTES {
        // SAFETY: the block is large enough.
        return unsafe { hand_out_marked(block) };
    }
    block.as_ptr()
}

/// [`hand_out`] where door and size are known to go with marks.
///
/// # Safety
/// - `block` is at least [`MARKED_MIN_BYTES`] long, and nobody else's.
#[inline(always)]
pub(crate) unsafe fn hand_out_marked(block: NonNull<u8>) -> *mut u8 {
    // SAFETY: passed on to the caller.
    unsafe { MarkKey::wipe(block) };
    block.as_ptr()
}

/// The cache is empty.
///
/// This and the other slow paths behind a fast one are `extern "C"`: they cannot unwind, so that a C symbol into which the
/// fast path is inlined jumps to them and needs no frame.
#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem")]
pub(crate) extern "C" fn refill_slow(bytes: usize, class: SizeClass, align: usize, door: Door) -> *mut u8 {
    let front = &GLOBAL.front;
    let Some(record) = heap_for_thread() else {
        if hardened::is_on() {
            return hardened::allocate(bytes, align, door);
        }
        return match with_passing_heap(|record| front.refill_slow(&record.heap, class)) {
            Some(Some(block)) => hand_out(block, class, door),
            // The passing heap has counted it.
            Some(None) => core::ptr::null_mut(),
            None => large::refused(),
        };
    };
    pick_up_policy(record);
    // Here as well as at a heartbeat, which a class that refills often seldom comes to.
    scavenger::stand_by();
    learning::stir(bytes);
    let slabs = record.heap.counters.fresh_slabs.get();
    let block = front.refill_slow(&record.heap, class).or_else(|| {
        pages::reclaim(Some(record));
        front.refill_slow(&record.heap, class)
    });
    if record.heap.counters.fresh_slabs.get() != slabs {
        pages::trim_runs_in_growth(record);
        pages::look_ahead(record);
    }
    match block {
        Some(block) if record.heap.is_at_beat(class) => {
            let floor = 0_u8;
            beat(Request::new(bytes, align, door), class, block, core::hint::black_box(&raw const floor))
        }
        Some(block) => hand_out(block, class, door),
        None => core::ptr::null_mut(),
    }
}

/// A heartbeat: some thousand allocations of a class have passed, or one is to be a guarded sample. What [`refill_slow`]
/// wants as well stands in the same registers, so that the fast path does not move it.
#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem")]
pub(crate) extern "C" fn beat_slow(
    bytes: usize,
    class: SizeClass,
    align: usize,
    door: Door,
    block: NonNull<u8>,
) -> *mut u8 {
    let floor = 0_u8;
    let block = beat(Request::new(bytes, align, door), class, block, core::hint::black_box(&raw const floor));
    // Not seen as the argument: the fast path would keep that in a register, and save the register on every allocation.
    core::hint::black_box(block)
}

/// What [`beat_slow`] and [`refill_slow`] do at a heartbeat. `floor` lies in the frame of either: behind it stands who allocates.
#[unsafe(link_section = ".text.hot.hakmem")]
fn beat(request: Request, class: SizeClass, block: NonNull<u8>, floor: *const u8) -> *mut u8 {
    let record = tls::record();
    pick_up_policy(record);
    let beat = GLOBAL.front.beat_slow(&record.heap, class);
    if beat.is_routine {
        pages::maintain();
        scavenger::stand_by();
        learning::beat(record.heap.policy().heartbeat_allocs);
    }
    let other = if !beat.is_due {
        None
    } else if record.heap.policy().sample != 0 {
        sampler::allocate(record, request)
    } else {
        watcher::allocate(record, class, request, floor)
    };
    if let Some(other) = other {
        // SAFETY: popped just now, and nobody has seen it.
        unsafe { put_back(record, class, block) };
        return other.as_ptr();
    }
    hand_out(block, class, request.door())
}

/// The allocation is served otherwise: the block goes back to the cache.
///
/// # Safety
/// - `block` was popped from the bin of `class` of this thread's heap, and has not been handed out.
unsafe fn put_back(record: &HeapRecord, class: SizeClass, block: NonNull<u8>) {
    // SAFETY: the slab is this heap's, the block the caller's.
    unsafe { push_or_spill(&record.heap, BinPlace::of_class(class), block) };
}

/// The last step of a free of an own block: into the cache, or to its slab where the cache has no room.
///
/// # Safety
/// - `block` lies in a slab of this heap's bin at `place`, and is held by the caller: its user has freed it.
#[inline(always)]
unsafe fn push_or_spill(heap: &Heap, place: BinPlace, block: NonNull<u8>) {
    // SAFETY: passed on to the caller.
    if !unsafe { heap.push(heap.bin_at(place), block) } {
        // SAFETY: as above; push found no room.
        unsafe { spill_slow(block, place) };
    }
}

/// Frees a block of which size and alignment are known, and that is known to be hakmem's.
///
/// # Safety
/// - `block` was handed out for this size and alignment and has not been freed.
#[inline(always)]
pub(crate) unsafe fn free_sized(block: NonNull<u8>, bytes: usize, align: usize) {
    let Some(class) = class_for(bytes, align) else {
        // SAFETY: passed on to the caller.
        unsafe { free_large_slow(block, Request::new(bytes, align, Door::Rust)) };
        return;
    };
    let heap = &tls::record().heap;
    // SAFETY: the caller's block is hakmem's, and small blocks live in the window.
    let is_own = unsafe { GLOBAL.front.is_own(heap, class, block) };
    let claim = Request::new(bytes, align, Door::Rust);
    // SAFETY: the slab that the block lies in is of this heap's bin.
    if !(is_own && unsafe { is_in_order(heap, class, block, claim) }) {
        // SAFETY: passed on to the caller.
        unsafe { free_or_report_slow(block, claim) };
        return;
    }
    // Not `push_or_spill`: by its place the bin is found in two instructions more than by its class, which the comparison has used.
    // SAFETY: the slab is this heap's, the block its user's until now.
    if !unsafe { heap.push(heap.bin(class), block) } {
        // SAFETY: as above; push found no room.
        unsafe { spill_slow(block, BinPlace::of_class(class)) };
    }
}

/// Whether a sized free may take the fast path: always, unless sized frees are checked.
///
/// # Safety
/// - `block` lies in a slab of this heap's bin of `class`.
#[inline(always)]
unsafe fn is_in_order(heap: &Heap, class: SizeClass, block: NonNull<u8>, claim: Request) -> bool {
    !claim.door().is_checked()
        // SAFETY: where a step is, a block begins that has room for a mark.
        || heap.is_step(heap.bin(class), block.addr().get()) && unsafe { mark_free(heap.mark_key(), block, claim) }
}

/// Frees any pointer: null, hakmem's, or a stranger's (which is not touched). Only slow paths look at `claim`, and each makes its own:
/// a size that the caller names is put into the word of a [`Request`] nowhere else.
///
/// # Safety
/// - If `ptr` is hakmem's, it is the start of a block in use, which nobody uses any more. (What is not is reported where
///   it can be told; see docs/misuse.md.)
#[inline(always)]
pub(crate) unsafe fn free(ptr: *mut u8, claim: impl Fn() -> Request) -> Freed {
    let heap = &tls::record().heap;
    // Null lies outside the window, like a stranger's pointer: the slow path tells them apart.
    if let Some((place, unit)) = heap.own_at(ptr.addr()) {
        // SAFETY: the pointer lies in the window, so it is not null.
        let block = unsafe { NonNull::new_unchecked(ptr) };
        let is_step = heap.is_step(heap.bin_at(place), ptr.addr());
        // SAFETY: where a step is, a block begins that has room for a mark.
        if !is_step || !unsafe { mark_free(heap.mark_key(), block, claim()) } {
            core::hint::cold_path();
            // SAFETY: the route says that the block lies in a slab of this heap's bin.
            unsafe { free_own_slow(block, place.class(), claim()) };
        // SAFETY: the slab is this heap's, the block its user's until now.
        } else if !unsafe { heap.push(heap.bin_at(place), block) } {
            // SAFETY: as above; push found no room.
            unsafe { spill_at_slow(block, place, unit, heap) };
        }
        return Freed::Done;
    }
    core::hint::cold_path();
    // SAFETY: passed on to the caller.
    unsafe { free_any_slow(ptr, claim()) }
}

/// Place of the bin of the small block at `ptr`, if it is this thread's and in use, and an address alone tells that it begins there.
///
/// # Safety
/// - If `ptr` is hakmem's, it is the start of a block in use. (What is not gets `None`, where it can be told.)
#[inline(always)]
pub(crate) unsafe fn own_place_in_use(ptr: *mut u8, door: Door) -> Option<BinPlace> {
    // SAFETY: passed on to the caller.
    unsafe { own_place_if(ptr, door, |block, place| place.class().is_unmarked_start(block.addr().get())) }
}

/// The same in slabs of several units too, where an address alone does not tell.
///
/// # Safety
/// - As for [`own_place_in_use`].
#[inline(always)]
pub(crate) unsafe fn own_place_in_any_slab(ptr: *mut u8, door: Door) -> Option<BinPlace> {
    // SAFETY: passed on to the caller.
    unsafe { own_place_if(ptr, door, |block, place| flaw_slow(block, place.class(), door).is_none()) }
}

/// Place of the bin of the small block at `ptr`, if it is this thread's and in use; where the bin's step does not tell, `is_in_use` does.
///
/// # Safety
/// - As for [`own_place_in_use`].
#[inline(always)]
unsafe fn own_place_if(
    ptr: *mut u8,
    door: Door,
    is_in_use: impl Fn(NonNull<u8>, BinPlace) -> bool,
) -> Option<BinPlace> {
    let heap = &tls::record().heap;
    let place = heap.own_place_at(ptr.addr())?;
    // SAFETY: the pointer lies in the window, so it is not null.
    let block = unsafe { NonNull::new_unchecked(ptr) };
    let is_in_use = if heap.is_step(heap.bin_at(place), ptr.addr()) {
        // SAFETY: where a step is, a block begins that has room for a mark.
        !(door.is_checked() && unsafe { heap.mark_key().is_on(block) })
    } else {
        is_in_use(block, place)
    };
    is_in_use.then_some(place)
}

/// What is wrong with a pointer into a slab of `class`; `None` if a block begins there that is in use, as far as this door tells.
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem.long")]
fn flaw_slow(block: NonNull<u8>, class: SizeClass, door: Door) -> Option<&'static str> {
    if !GLOBAL.front.is_block_of(block.addr().get(), class) {
        return Some("pointer into a block, not to its start");
    }
    let is_marked = door.is_checked()
        && class.block_bytes() >= MARKED_MIN_BYTES
        // SAFETY: a block begins there, large enough for a mark.
        && unsafe { GLOBAL.front.mark_key().is_on(block) };
    is_marked.then_some("pointer to a block that has been freed")
}

/// Whether a block of `usable` bytes that is to have `bytes` bytes stays: it moves to a smaller class for a quarter less at least;
/// less than that is not worth a copy.
#[inline(always)]
pub(crate) const fn is_worth_keeping(usable: usize, bytes: usize) -> bool {
    bytes <= usable && bytes > usable - usable / 4
}

/// The first step of every free of a small block: from here on it looks free. False if it did already; never, where the door does not
/// check.
///
/// # Safety
/// - `block` is the start of a block of at least [`MARKED_MIN_BYTES`] bytes.
#[inline(always)]
unsafe fn mark_free(key: MarkKey, block: NonNull<u8>, claim: Request) -> bool {
    if claim.door().is_checked() {
        // SAFETY: passed on to the caller.
        if unsafe { key.is_on(block) } {
            return false;
        }
        // SAFETY: passed on to the caller; the block is not free, so its user has just handed it back.
        unsafe { key.put_on(block) };
    }
    true
}

/// [`mark_free`] for a block of `class`, whatever its size; reports one that looks free already.
///
/// # Safety
/// - `block` is the start of a block of `class` in the window.
#[inline]
unsafe fn mark_free_or_report(block: NonNull<u8>, class: SizeClass, claim: Request) {
    // SAFETY: a block begins there, large enough for a mark.
    if class.block_bytes() >= MARKED_MIN_BYTES && !unsafe { mark_free(GLOBAL.front.mark_key(), block, claim) } {
        GLOBAL.front.fatal_in_slab("double free", block.addr().get());
    }
}

/// Null, or a pointer for [`free_slow`].
///
/// # Safety
/// - As for [`free`].
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem")]
unsafe extern "C" fn free_any_slow(ptr: *mut u8, claim: Request) -> Freed {
    match NonNull::new(ptr) {
        // SAFETY: passed on to the caller.
        Some(block) => unsafe { free_slow(block, claim) },
        None => Freed::Done,
    }
}

/// The cache has no room for a block of this heap.
///
/// # Safety
/// - As for [`hakmem_tiny_front::Front::spill`].
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem")]
unsafe extern "C" fn spill_slow(block: NonNull<u8>, place: BinPlace) {
    let heap = &tls::record().heap;
    // SAFETY: passed on to the caller.
    unsafe { spill(block, place, heap.unit_of(block.addr().get()), heap, false) };
}

/// The same for [`free`], which has found `unit` and `heap` already, and that a block begins there.
///
/// # Safety
/// - As above.
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem")]
unsafe extern "C" fn spill_at_slow(block: NonNull<u8>, place: BinPlace, unit: usize, heap: &Heap) {
    // SAFETY: passed on to the caller.
    unsafe { spill(block, place, unit, heap, true) };
}

/// Returns a block to its slab. `is_step`: the caller knows that [`Heap::is_step`] holds of it.
///
/// # Safety
/// - As above.
#[inline(always)]
unsafe fn spill(block: NonNull<u8>, place: BinPlace, unit: usize, heap: &Heap, is_step: bool) {
    // SAFETY: passed on to the caller.
    if !unsafe { GLOBAL.front.spill(heap, place, unit, block, is_step) } {
        // SAFETY: passed on to the caller.
        unsafe { spill_undecided_slow(block, place) };
    }
}

/// A spill that [`hakmem_tiny_front::Front::spill`] has left undecided.
///
/// # Safety
/// - As for [`hakmem_tiny_front::Front::spill_slow`].
#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem")]
unsafe extern "C" fn spill_undecided_slow(block: NonNull<u8>, place: BinPlace) {
    let heap = &tls::record().heap;
    // SAFETY: passed on to the caller.
    if unsafe { GLOBAL.front.spill_slow(heap, heap.bin_at(place), place.class(), block) } {
        pages::watch_purgeable();
    }
}

/// Frees a block that no slab serves, and that cannot be anybody else's.
///
/// # Safety
/// - As for [`free`].
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem.long")]
unsafe extern "C" fn free_large_slow(block: NonNull<u8>, claim: Request) {
    let address = block.addr().get();
    if GLOBAL.front.unit_at(address).is_some_and(|(index, word)| large::free_again(address, index, word)) {
        return;
    }
    // SAFETY: passed on to the caller.
    unsafe { free_or_report_slow(block, claim) };
}

/// Frees a block that cannot be anybody else's: there is no other allocator to pass it on to.
///
/// # Safety
/// - As for [`free`].
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem")]
unsafe extern "C" fn free_or_report_slow(block: NonNull<u8>, claim: Request) {
    // SAFETY: passed on to the caller.
    if unsafe { free_slow(block, claim) } != Freed::Done {
        fatal_ptr("free of a pointer that is not hakmem's", block.addr().get());
    }
}

/// Everything that is not a block of the thread's own slabs: the free gate's routing, once. Slabs first.
///
/// # Safety
/// - As for [`free`].
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem")]
unsafe extern "C" fn free_slow(block: NonNull<u8>, claim: Request) -> Freed {
    let address = block.addr().get();
    if let Some((index, word)) = GLOBAL.front.unit_at(address) {
        if let Some(bin) = word.owner() {
            // SAFETY: passed on to the caller.
            return unsafe { free_owned_slow(block, bin, claim) };
        }
        if large::free_again(address, index, word) {
            return Freed::Done;
        }
    }
    // SAFETY: passed on to the caller.
    unsafe { free_unowned_slow(block, claim) }
}

/// A block of a slab that belongs to the heap of `bin`. A function of its own, so that runs, which are freed on the way here too, do
/// not pay for the registers that it needs.
///
/// # Safety
/// - As for [`free`].
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem")]
unsafe extern "C" fn free_owned_slow(block: NonNull<u8>, bin: BinPtr, claim: Request) -> Freed {
    let Some(class) = hakmem_ownership::class_of_bin(bin) else {
        // SAFETY: passed on to the caller.
        return unsafe { free_unowned_slow(block, claim) };
    };
    if tls::record().heap.own_bin(bin).is_some() {
        // SAFETY: passed on to the caller.
        unsafe { free_own_slow(block, class, claim) };
    } else {
        // SAFETY: the route says that the block lies in a slab of this class, which is another heap's.
        unsafe { free_remote(block, class, claim) };
    }
    Freed::Done
}

/// What lies in no slab that has an owner.
///
/// # Safety
/// - As for [`free`].
#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem")]
unsafe fn free_unowned_slow(block: NonNull<u8>, claim: Request) -> Freed {
    let address = block.addr().get();
    let Some(word) = GLOBAL.front.route_of(address) else {
        return if GLOBAL.big.outside_free(address).is_some() { Freed::Done } else { Freed::Foreign(block) };
    };
    match word.route() {
        // SAFETY: the route says that the block lies in a slab of this class, which is nobody's.
        Route::Orphan(class) => unsafe { free_remote(block, class, claim) },
        // Adopted since the look in `free_slow`.
        Route::Owned(bin) if hakmem_ownership::class_of_bin(bin).is_some() => {
            // SAFETY: passed on to the caller.
            return unsafe { free_slow(block, claim) };
        }
        Route::Owned(_) => fatal_ptr("the route of a slab names no bin: metadata is damaged", address),
        route @ (Route::Run { bytes, .. } | Route::Big { bytes, .. }) => {
            if !address.is_multiple_of(SLAB_BYTES) {
                fatal_block("free of a pointer into a block, not to its start", address, bytes);
            }
            if !word.claim(route) {
                fatal_block("double free", address, bytes);
            }
            large::free_claimed_slow(block, route);
        }
        Route::Hardened(note) => hardened::free(block, note, claim),
        Route::Sampled(note) => sampler::free(block, note, claim),
        Route::Watched(note) => watcher::free(block, note),
        Route::Unused => fatal_ptr("free of a pointer to no block (freed before, or into the middle of one)", address),
    }
    Freed::Done
}

/// Frees a block of a slab that is not this thread's.
///
/// # Safety
/// - As for [`free`]; the block lies in a slab of `class`.
#[inline(always)]
unsafe fn free_remote(block: NonNull<u8>, class: SizeClass, claim: Request) {
    let front = &GLOBAL.front;
    let Some(slab) = front.slab_of(class, block) else { return };
    // SAFETY: a block of this class begins there.
    unsafe { mark_free_or_report(block, class, claim) };
    let heap = heap_for_free().map(|record| &record.heap);
    // SAFETY: the block is one of the slab's, the slab somebody else's; the caller hands the block over.
    if unsafe { front.free_remote(heap, slab, class, block) } {
        pages::watch_purgeable();
    }
}

/// Frees a block of an own slab that the fast path had doubts about: its slab has several units, or something is wrong.
///
/// # Safety
/// - As for [`free`]; the block lies in a slab of this heap's bin of `class`.
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem")]
unsafe extern "C" fn free_own_slow(block: NonNull<u8>, class: SizeClass, claim: Request) {
    let address = block.addr().get();
    if !GLOBAL.front.is_block_of(address, class) {
        GLOBAL.front.fatal_in_slab("free of a pointer into a block, not to its start", address);
    }
    // SAFETY: a block of the class begins there; passed on to the caller.
    unsafe { free_own(block, BinPlace::of_class(class), claim) };
}

/// Frees a block of an own slab; reports one that is free already.
///
/// # Safety
/// - As for [`free`]; a block of this heap's bin at `place` begins there.
#[inline(always)]
unsafe fn free_own(block: NonNull<u8>, place: BinPlace, claim: Request) {
    // SAFETY: a block of the class begins there.
    unsafe { mark_free_or_report(block, place.class(), claim) };
    // SAFETY: the slab is this heap's, the block its user's until now.
    unsafe { push_or_spill(&tls::record().heap, place, block) };
}

/// Usable bytes of the block at `ptr`, `None` if it is not hakmem's. Doors that check frees report a freed one.
#[unsafe(link_section = ".text.hot.hakmem.long")]
pub(crate) fn usable_size(ptr: *mut u8, door: Door) -> Option<usize> {
    let Some(block) = NonNull::new(ptr) else { return Some(0) };
    let address = ptr.addr();
    let front = &GLOBAL.front;
    let Some(word) = front.route_of(address) else { return GLOBAL.big.outside_find(address) };
    let route = word.route();
    if let Some(class) = route.slab_class() {
        if door.is_checked()
            && let Some(flaw) = flaw_slow(block, class, door)
        {
            front.fatal_in_slab(flaw, address);
        }
        return Some(class.block_bytes());
    }
    match route {
        Route::Run { bytes, .. } | Route::Big { bytes, .. } => Some(bytes),
        Route::Owned(_) | Route::Orphan(_) => None,
        Route::Hardened(note) => hardened::usable_size(address, note),
        Route::Sampled(note) => Some(sampler::usable_size(address, note)),
        Route::Watched(note) => Some(watcher::usable_size(address, note)),
        Route::Unused => fatal_ptr("pointer to no block (freed before, or into the middle of one)", address),
    }
}

/// Bytes to ask for when a block of `bytes` bytes moves to have `new_bytes` bytes. Who grows by less than a size class does so again
/// soon: from an OS page on such a block gets a quarter more, of which whole pages hold no memory until they are used.
const fn with_room_to_step(bytes: usize, new_bytes: usize) -> usize {
    let is_step = new_bytes > bytes && new_bytes - bytes < bytes / 8;
    let with_room = new_bytes + new_bytes / 4;
    if is_step && bytes >= OS_PAGE_BYTES && with_room <= MAX_SLAB_BLOCK_BYTES { with_room } else { new_bytes }
}

/// What to ask for to get `align`: above 1 KiB every block has the alignment that the malloc family promises by itself.
const fn least_align(bytes: usize, align: usize, door: Door) -> usize {
    if bytes > TINY_MAX_BYTES && align == raw::MIN_ALIGN && !matches!(door, Door::Rust) { 8 } else { align }
}

/// Resizes a block of which size and alignment are known. Null: out of memory, the block is as it was.
///
/// # Safety
/// - `block` was handed out for this size and alignment and has not been freed.
#[inline(always)]
pub(crate) unsafe fn reallocate_sized(block: NonNull<u8>, bytes: usize, align: usize, new_bytes: usize) -> *mut u8 {
    // Not the classes that serve these sizes now: the block may be from a smaller one that did when it was allocated.
    if let (Some(old), Some(new)) = (finest_for(bytes, align), finest_for(new_bytes, align))
        && old == new
        && !tls::is_without_heap()
    {
        return block.as_ptr();
    }
    // SAFETY: passed on to the caller.
    unsafe { reallocate_slow(block, bytes, align, new_bytes, Door::Rust) }
}

/// Resizes a block of hakmem's: in place where its slab, run or extent allows it, else by moving. `bytes` are worth keeping. Whatever
/// grows by and by in small blocks comes here at each step.
///
/// # Safety
/// - `block` is a block of hakmem's in use, at least `bytes` bytes long and aligned to `align`.
#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem")]
pub(crate) unsafe fn reallocate_slow(
    block: NonNull<u8>,
    bytes: usize,
    align: usize,
    new_bytes: usize,
    door: Door,
) -> *mut u8 {
    // SAFETY: passed on to the caller.
    let own = unsafe { own_place_in_any_slab(block.as_ptr(), door) };
    let stays = match own {
        Some(place) => is_worth_keeping(place.class().block_bytes(), new_bytes).then_some(block.as_ptr()),
        // SAFETY: passed on to the caller.
        None => unsafe { resize_in_place(block, bytes, align, new_bytes, door) },
    };
    // SAFETY: passed on to the caller; the place is the block's.
    stays.unwrap_or_else(|| unsafe { move_to_fit(block, own, bytes, align, new_bytes, door) })
}

/// Resizes a block of an own slab, all of whose bytes are worth keeping. Null: out of memory, the block is as it was.
///
/// # Safety
/// - `block` is in use, and at `place` as [`own_place_in_any_slab`] has found.
#[inline(always)]
pub(crate) unsafe fn resize_own(block: NonNull<u8>, place: BinPlace, new_bytes: usize, door: Door) -> *mut u8 {
    let usable = place.class().block_bytes();
    if is_worth_keeping(usable, new_bytes) {
        return block.as_ptr();
    }
    if new_bytes > TINY_MAX_BYTES {
        // SAFETY: passed on to the caller.
        return unsafe { move_to_fit(block, Some(place), usable, raw::MIN_ALIGN, new_bytes, door) };
    }
    // The same in short: most blocks that grow go through this first, and by `move_to_fit` a step takes 72 instructions more.
    let moved = raw::allocate(new_bytes, door);
    if !moved.is_null() {
        // SAFETY: both blocks are at least this long, and they are two blocks.
        unsafe { moved.copy_from_nonoverlapping(block.as_ptr(), usable.min(new_bytes)) };
        // SAFETY: the caller's block, whose contents have moved; its slab was this heap's and, with a block in use, still is.
        unsafe { free_own(block, place, Request::unsized_from(door)) };
    }
    moved
}

/// The contents of `block` in a new block of `new_bytes` bytes, and `block` freed. Null: out of memory, the block is as it was.
///
/// # Safety
/// - As for [`reallocate_slow`]; if there is `own`, it is what [`own_place_in_any_slab`] has found.
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem")]
pub(crate) unsafe fn move_to_fit(
    block: NonNull<u8>,
    own: Option<BinPlace>,
    bytes: usize,
    align: usize,
    new_bytes: usize,
    door: Door,
) -> *mut u8 {
    let moved = if new_bytes > MAX_SLAB_BLOCK_BYTES && new_bytes > bytes {
        large::allocate_growing_slow(new_bytes, align, door)
    } else {
        let align = least_align(new_bytes, align, door);
        // The room is the class's: what slow paths see is what was asked for, to which the free of a guarded sample is compared.
        match class_for(with_room_to_step(bytes, new_bytes), align) {
            Some(class) => allocate_class(class, new_bytes, align, door),
            None => large::allocate_slow(new_bytes, align, door),
        }
    };
    if let Some(moved) = NonNull::new(moved) {
        // SAFETY: both blocks are at least this long, and they are two blocks.
        unsafe { moved.as_ptr().copy_from_nonoverlapping(block.as_ptr(), bytes.min(new_bytes)) };
        let claim = Request::unsized_from(door);
        if let Some(place) = own {
            // SAFETY: the caller's block, whose contents have moved; its slab was this heap's and, with a block in use, still is.
            unsafe { free_own(block, place, claim) };
        } else {
            // SAFETY: the caller's block, whose contents have moved.
            let _freed = unsafe { free(block.as_ptr(), || claim) };
        }
    }
    moved
}

/// The block at its new size where it need not move for that, which may be another block of its kind's (or null, at the hardened
/// level); `None` if it has to move.
///
/// # Safety
/// - As for [`reallocate_slow`].
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem.long")]
unsafe fn resize_in_place(
    block: NonNull<u8>,
    bytes: usize,
    align: usize,
    new_bytes: usize,
    door: Door,
) -> Option<*mut u8> {
    let address = block.addr().get();
    let route = GLOBAL.front.route_of(address).map_or(Route::Unused, |word| word.route());
    if let Route::Hardened(note) = route {
        return Some(hardened::reallocate(block, note, Request::new(bytes, align, door), new_bytes));
    }
    let paused = if let Route::Watched(note) = route { watcher::pause(block, note) } else { None };
    let route = paused.as_ref().map_or(route, watcher::Paused::route);
    let is_large = matches!(route, Route::Run { .. } | Route::Big { .. });
    if is_large && !address.is_multiple_of(SLAB_BYTES) {
        fatal_ptr("realloc of a pointer into a block, not to its start", address);
    }
    let resized = if is_large { large::resize(block, route, align, new_bytes) } else { None };
    if let Some(paused) = paused {
        paused.go_on(resized.unwrap_or(block), resized.map(|_| new_bytes));
    }
    if let Some(resized) = resized {
        return Some(resized.as_ptr());
    }
    if let Route::Sampled(note) = route {
        // It moves, whatever the sizes: guards fit one size. Here it is only looked whether there is such a block.
        sampler::usable_size(address, note);
    }
    let class = route.slab_class();
    if class.is_some_and(|class| !GLOBAL.front.is_block_of(address, class)) {
        GLOBAL.front.fatal_in_slab("realloc of a pointer into a block, not to its start", address);
    }
    if class.is_some() || matches!(route, Route::Watched(_)) {
        let usable = usable_size(block.as_ptr(), door).unwrap_or(0);
        if is_worth_keeping(usable, new_bytes) {
            return Some(block.as_ptr());
        }
    }
    // An outside block that shrinks to a size that slabs serve moves: sized frees look for such a block in the window.
    if route != Route::Unused || class_for(new_bytes, align).is_some() {
        return None;
    }
    if GLOBAL.big.outside_resize(address, new_bytes) {
        return Some(block.as_ptr());
    }
    // The kernel moves it to any OS page.
    let moved = if align <= OS_PAGE_BYTES { GLOBAL.big.outside_move(address, new_bytes) } else { None };
    moved.map(NonNull::as_ptr)
}
