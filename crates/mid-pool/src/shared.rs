//! Runs straight from the OS box, for threads that have no cache (before initialisation, after the end of thread storage).

use crate::context::{Block, RunContext, Shape};
use core::ptr::NonNull;
use hakmem_base::{SLABS_PER_SUPERSLAB, SlabIndex};
use hakmem_ownership::Route;

/// A block's size before and after it was resized in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resized {
    /// Usable bytes before.
    pub old_bytes: usize,
    /// Usable bytes now.
    pub new_bytes: usize,
}

/// A block of at least `bytes` bytes (1..=2 MiB), aligned to `align` (a power of two up to 2 MiB).
#[must_use]
pub fn allocate(cx: &RunContext<'_>, bytes: usize, align: usize) -> Option<Block> {
    let shape = Shape::of(bytes, align)?;
    let run = cx.os.take_run(shape.units, shape.align_units)?;
    hand_out(cx, run.first, shape.units, &shape, run.clean & low_bits(shape.units) == low_bits(shape.units))
}

/// Takes the run of a freed block back. The caller has won `claim`.
pub fn free(cx: &RunContext<'_>, index: SlabIndex, units: u32) {
    cx.os.give_run(index, units);
}

/// Changes the size of the block at `index`, which has `units` units, without moving it. Grows into free units behind the
/// run; gives units back when at least a quarter gets free. `None`: nothing changed, the caller moves the block.
#[must_use]
#[unsafe(link_section = ".text.hot.hakmem.long")]
pub fn resize_in_place(cx: &RunContext<'_>, index: SlabIndex, units: u32, new_bytes: usize) -> Option<Resized> {
    let shape = Shape::of(new_bytes, 1)?;
    let word = cx.word(index)?;
    let Route::Run { units: known_units, bytes: old_bytes } = word.route() else { return None };
    hakmem_base::invariant!(known_units == units, "resized run has other units than its route says");
    let resized = Resized { old_bytes, new_bytes: shape.bytes };
    if shape.units > units {
        // The caller holds the block, so its route is the caller's to change; the new units stay "unused" behind it.
        cx.os.grow_run(index, units, shape.units)?;
        word.set_run(shape.units, shape.bytes);
        return Some(resized);
    }
    let spare_units = units - shape.units;
    if spare_units > 0 && spare_units * 4 >= units {
        // The route shrinks first: once the units are free, they may be another block's.
        word.set_run(shape.units, shape.bytes);
        cx.os.shrink_run(index, units, shape.units);
    } else {
        word.set_run(units, shape.bytes);
    }
    Some(resized)
}

/// Records a taken run of `units` units as the block of the request `shape`.
#[inline]
pub(crate) fn hand_out(
    cx: &RunContext<'_>,
    first: SlabIndex,
    units: u32,
    shape: &Shape,
    zeroed: bool,
) -> Option<Block> {
    let (Some(word), Some(ptr)) = (cx.word(first), NonNull::new(cx.os.address_of(first))) else {
        hakmem_base::fatal("a run lies outside the window");
    };
    hakmem_base::invariant!(word.route() == Route::Unused, "a run was handed out twice");
    word.set_run(units, shape.bytes);
    Some(Block { ptr, zeroed })
}

/// The `units` lowest bits.
#[inline]
pub(crate) const fn low_bits(units: u32) -> u32 {
    if units >= SLABS_PER_SUPERSLAB { u32::MAX } else { (1 << units) - 1 }
}
