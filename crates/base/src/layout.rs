//! What the layout of a slab takes from its blocks: nothing, unless a feature asks for one that is only there to be measured.
//!
//! A free must find out whose block it has. By default it looks into flat tables indexed by address, and a slab belongs to blocks
//! entirely. The features put what it reads at the end of the slab, or before each block (docs/decisions/0016-where-a-free-looks.md).
//! What is read there, and how, is `layout` of the tiny front.

#[cfg(all(feature = "ablation-slab-tail", feature = "ablation-object-header"))]
compile_error!("ablation-slab-tail and ablation-object-header are two layouts: at most one can be on");

/// Bytes before each small block, taken from its size class: with 8 a class of 64 bytes has blocks of 56.
pub const HEADER_BYTES: usize = if cfg!(feature = "ablation-object-header") { 8 } else { 0 };
/// Bytes at the end of a slab of one unit in which no block lies.
pub const TAIL_BYTES: usize = if cfg!(feature = "ablation-slab-tail") { 32 } else { 0 };
/// Where the first block of a slab begins (bytes from its start).
pub const FIRST_BLOCK_OFFSET: usize = HEADER_BYTES.next_multiple_of(16);
/// Alignment that blocks behind headers have, and no other: what wants more is a run.
pub const HEADED_ALIGN: usize = 16;

/// Bytes that blocks, with their headers, find in a slab of `units` units.
pub(crate) const fn bytes_for_blocks(units: usize) -> usize {
    units * crate::SLAB_BYTES - HEADER_BYTES - if units == 1 { TAIL_BYTES } else { 0 }
}
