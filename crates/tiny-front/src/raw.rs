//! The one place of this box where raw memory is touched: table entries, bins behind route words, links of blocks.

use core::ptr::{self, NonNull};
use hakmem_atomic_ops::Owned8;
use hakmem_base::{
    BIN_BYTES, BinPlace, HEADER_BYTES, HEAP_RECORD_BYTES, MARKED_MIN_BYTES, MarkKey, SizeClass, read_link, write_link,
};
use hakmem_ownership::BinPtr;

use crate::bin::Bin;
use crate::heap::Heap;

/// The entry `index` of a flat table.
///
/// # Safety
/// - `table` points to at least `index + 1` entries that live as long as `'t`.
#[inline(always)]
pub(crate) unsafe fn entry<'t, T>(table: *const T, index: usize) -> &'t T {
    // SAFETY: a table of at least one entry is not null. Spares `Option<&T>` a test of its own.
    unsafe { core::hint::assert_unchecked(!table.is_null()) };
    // SAFETY: the caller vouches for the table's length.
    let entry = unsafe { table.add(index) };
    // SAFETY: entries are initialised (all zero is valid) and shared only through atomics.
    unsafe { &*entry }
}

/// The class that an entry of a class map names, for a size above the tiny ones.
///
/// # Safety
/// - `entry` is below the number of entries, and this one the index of a class for such sizes.
#[inline(always)]
pub(crate) unsafe fn class_at(entries: &[Owned8], entry: usize) -> SizeClass {
    // SAFETY: the caller vouches for the table's length.
    let index = unsafe { entries.get_unchecked(entry) }.get();
    // SAFETY: such a class is not the one of the smallest blocks. Spares those who ask what its blocks have room for.
    unsafe { core::hint::assert_unchecked(index != 0) };
    // SAFETY: the caller vouches for what the entry holds.
    unsafe { SizeClass::from_index_unchecked(index) }
}

/// The bin at a place of the heap's record.
///
/// # Safety
/// - `place` is below the bytes of the heap's bins, as every [`BinPlace`] is.
#[inline(always)]
pub(crate) unsafe fn bin_at(heap: &Heap, place: BinPlace) -> &Bin {
    let bin = ptr::from_ref(heap).cast::<Bin>();
    // SAFETY: bins are at the start of the heap, and the caller vouches for the offset.
    let bin = unsafe { bin.byte_add(place.bytes()) };
    // SAFETY: as above.
    unsafe { &*bin }
}

/// The heap record that a bin belongs to.
///
/// # Safety
/// - `bin` came from a route word that named an owner: it points into a heap record, which is never unmapped.
#[inline]
pub(crate) unsafe fn heap_of<'h>(bin: BinPtr) -> &'h Heap {
    let record = bin.as_ptr().map_addr(|address| address & !(HEAP_RECORD_BYTES - 1)).cast::<Heap>();
    // SAFETY: records are aligned to their size and type-stable; strangers touch only the record's shared fields.
    unsafe { &*record }
}

/// The bin at `index` of the heap's bins, as the address that route words carry.
#[inline]
pub(crate) fn bin_ptr(heap: &Heap, index: usize) -> BinPtr {
    BinPtr::new(ptr::from_ref(heap).cast_mut().cast::<()>().wrapping_byte_add(index * BIN_BYTES))
}

/// Links `count` blocks of `block_bytes` bytes that lie one behind the other from `first`, and marks them: nobody has a right to free
/// them. The list begins with the one at index `start`, goes on behind the last with the first, and ends, its link being null, with the
/// one before `start`. Returns the list's first block.
///
/// # Safety
/// - The memory of these blocks, at least one, belongs to the caller's slab and to nobody else; `start` is below `count`.
pub(crate) unsafe fn link_fresh(first: *mut u8, count: u32, block_bytes: usize, start: u32, key: MarkKey) -> *mut u8 {
    let at = |index: u32| first.wrapping_add(index as usize * block_bytes);
    let last = at(count - 1);
    let mut block = first;
    loop {
        if block_bytes >= MARKED_MIN_BYTES + HEADER_BYTES {
            // SAFETY: the block is part of the caller's fresh memory, which does not begin at null.
            let marked = unsafe { NonNull::new_unchecked(block) };
            // SAFETY: as above, and large enough.
            unsafe { key.put_on(marked) };
        }
        if block == last {
            break;
        }
        let next = block.wrapping_add(block_bytes);
        // SAFETY: as above.
        unsafe { write_link(block, next) };
        block = next;
    }
    let end = if start == 0 { last } else { at(start - 1) };
    // SAFETY: as above.
    unsafe { write_link(last, first) };
    // SAFETY: as above.
    unsafe { write_link(end, ptr::null_mut()) };
    at(start)
}

/// The block that follows `head` in its list, or null.
///
/// # Safety
/// - `head` is a free block on a list that the caller holds.
#[inline(always)]
pub(crate) unsafe fn behind(head: *mut u8) -> *mut u8 {
    // SAFETY: the caller holds the list.
    unsafe { read_link(head) }
}

/// Makes `head`, the first block of a list or null, follow `block`, which becomes the first one.
///
/// # Safety
/// - The caller holds `block`, which is on no list, and the list of `head`.
#[inline(always)]
pub(crate) unsafe fn link_before(block: *mut u8, head: *mut u8) {
    // SAFETY: the caller holds the block.
    unsafe { write_link(block, head) };
}
