//! Ablation: a header of eight bytes before each small block says whose the block is.
//!
//! It is written when the block is carved and when its slab is adopted, not at each allocation. It holds the place of the bin in its
//! heap's record and the heap's serial number, which is another one whenever a thread takes the record over: the header of a block
//! that has outlived its heap is nobody's, and the free goes the slow way, which asks the route word as ever. So do frees of blocks
//! at the very start of a unit, which are runs. Not told apart from small blocks are guarded samples and small watched blocks;
//! there are none in this layout. A pointer to no block at all may be taken for one: it is not as good at finding mistakes.

use core::ptr::NonNull;
use hakmem_atomic_ops::Shared64;
use hakmem_base::{BIN_BYTES, BinPlace, FIRST_BLOCK_OFFSET, HEADER_BYTES, HEAP_RECORD_BYTES, SLAB_BYTES, SizeClass};
use static_assertions::const_assert;

use crate::front::Front;
use crate::heap::{Heap, View};

const_assert!(size_of::<Shared64>() == HEADER_BYTES);
const_assert!(FIRST_BLOCK_OFFSET >= HEADER_BYTES);

/// Whether small blocks can lie where no slab is: as guarded samples, and watched.
pub(crate) const WATCHES_SMALL: bool = false;

/// What all heaps share to label their blocks: the serial number drawn last.
#[derive(Debug)]
pub(crate) struct Labels(Shared64);

/// What a heap's blocks are labelled with: its serial number in units of a record's bytes, to which places are added.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label {
    serial: u64,
    base: *mut u8,
}

impl Labels {
    pub(crate) const fn new() -> Self {
        Self(Shared64::new(0))
    }

    pub(crate) fn draw(&self, base: *mut u8) -> Label {
        Label { serial: (self.0.add_relaxed(1) + 1) * HEAP_RECORD_BYTES as u64, base }
    }
}

impl Label {
    pub(crate) const NONE: Self = Self { serial: 0, base: core::ptr::null_mut() };

    /// Labels `count` blocks of a slab of the heap, which follow each other from `first` on.
    ///
    /// # Safety
    /// - The blocks belong to a slab of `class` that the heap owns, or is about to.
    pub(crate) unsafe fn put_on(&self, class: SizeClass, first: *mut u8, count: u32) {
        let label = self.serial + (class.index() * BIN_BYTES) as u64;
        for number in 0..count as usize {
            let block = first.wrapping_add(number * class.geometry().block_bytes as usize);
            // SAFETY: the header of a block of the caller's slab. Others only read it.
            unsafe { header_of(block) }.store_relaxed(label);
        }
    }
}

/// # Safety
/// - Behind a header lies `block`, or at least behind eight bytes of the window that can be read.
#[inline(always)]
unsafe fn header_of<'b>(block: *mut u8) -> &'b Shared64 {
    let header = block.wrapping_sub(HEADER_BYTES).cast::<Shared64>();
    // SAFETY: passed on to the caller; eight-byte aligned like the block.
    unsafe { &*header }
}

/// Place of the bin of the block at `address`, in the unit at `index`, if its slab is this heap's.
///
/// # Safety
/// - The index is below the number of units of the view's window.
#[inline(always)]
pub(crate) unsafe fn place_at(_heap: &Heap, view: &View, _index: usize, address: usize) -> Option<BinPlace> {
    if address & (SLAB_BYTES - 1) < HEADER_BYTES || !address.is_multiple_of(HEADER_BYTES) {
        return None;
    }
    let block = view.label.base.wrapping_add(address.wrapping_sub(view.base));
    // SAFETY: the address lies in the window, in a unit with blocks, and not at its start: the bytes before it are there.
    let header = unsafe { header_of(block) }.load_relaxed();
    BinPlace::of_bin(header.wrapping_sub(view.label.serial) as usize)
}

/// Whether a block lies in a slab of this heap's bin of `class`.
///
/// # Safety
/// - `block` was handed out by this front and has not been freed.
#[inline(always)]
pub(crate) unsafe fn is_own(_front: &Front, heap: &Heap, class: SizeClass, block: NonNull<u8>) -> bool {
    heap.own_place_at(block.addr().get()).is_some_and(|place| place.class() == class)
}
