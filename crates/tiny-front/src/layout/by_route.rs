//! The route word of a block's unit says whose the block is.

use core::ptr::NonNull;
use hakmem_base::{BinPlace, SizeClass};

use crate::front::Front;
use crate::heap::{Heap, View};

/// Whether small blocks can lie where no slab is: as guarded samples, and watched.
pub(crate) const WATCHES_SMALL: bool = true;

/// What all heaps share to label their blocks.
#[derive(Debug)]
pub(crate) struct Labels;

/// What a heap's blocks are labelled with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label;

impl Labels {
    pub(crate) const fn new() -> Self {
        Self
    }

    pub(crate) fn draw(&self, _base: *mut u8) -> Label {
        Label
    }
}

impl Label {
    pub(crate) const NONE: Self = Self;

    /// Labels `count` blocks of a slab of the heap, which follow each other from `first` on.
    ///
    /// # Safety
    /// - The blocks belong to a slab of `class` that the heap owns, or is about to.
    #[inline(always)]
    pub(crate) unsafe fn put_on(&self, _class: SizeClass, _first: *mut u8, _count: u32) {}
}

/// Place of the bin of the block at `address`, in the unit at `index`, if its slab is this heap's.
///
/// # Safety
/// - The index is below the number of units of the view's window.
#[inline(always)]
pub(crate) unsafe fn place_at(heap: &Heap, view: &View, index: usize, _address: usize) -> Option<BinPlace> {
    // SAFETY: passed on to the caller.
    heap.place_of(unsafe { view.words.route(index) }.bits())
}

/// Whether a block lies in a slab of this heap's bin of `class`, without asking whether it is ours at all.
///
/// # Safety
/// - `block` was handed out by this front and has not been freed.
#[inline(always)]
#[cfg(not(feature = "ablation-slab-tail"))]
pub(crate) unsafe fn is_own(front: &Front, heap: &Heap, class: SizeClass, block: NonNull<u8>) -> bool {
    // SAFETY: passed on to the caller.
    heap.is_own_bin(unsafe { front.route_of_own(block) }, class)
}

/// As above; a tail is looked for as for any pointer.
///
/// # Safety
/// - As above.
#[inline(always)]
#[cfg(feature = "ablation-slab-tail")]
pub(crate) unsafe fn is_own(_front: &Front, heap: &Heap, class: SizeClass, block: NonNull<u8>) -> bool {
    heap.own_place_at(block.addr().get()).is_some_and(|place| place.class() == class)
}
