//! Sizes that the boxes share. All are powers of two, in bytes unless the name says otherwise.

/// log2 of [`SLAB_BYTES`].
pub const SLAB_SHIFT: u32 = 16;
/// Bytes of one slab, the unit in which superslabs are cut.
pub const SLAB_BYTES: usize = 1 << SLAB_SHIFT;
/// log2 of [`SUPERSLAB_BYTES`].
pub const SUPERSLAB_SHIFT: u32 = 21;
/// Bytes of one superslab: an aligned part of the window, as large as a huge page.
pub const SUPERSLAB_BYTES: usize = 1 << SUPERSLAB_SHIFT;
/// log2 of [`SLABS_PER_SUPERSLAB`].
pub const SLABS_PER_SUPERSLAB_SHIFT: u32 = SUPERSLAB_SHIFT - SLAB_SHIFT;
/// Slabs in a superslab; one bit each of a `u32`.
pub const SLABS_PER_SUPERSLAB: u32 = 1 << SLABS_PER_SUPERSLAB_SHIFT;
/// Bytes of an OS page. Larger OS pages are refused at start-up.
pub const OS_PAGE_BYTES: usize = 4096;
/// Largest size (bytes) that the tiny route serves; above it, up to [`crate::MAX_SLAB_BLOCK_BYTES`], blocks count as mid.
pub const TINY_MAX_BYTES: usize = 1024;
/// Largest size (bytes) served by a run of slabs inside one superslab; above it a block takes whole superslabs.
pub const RUN_MAX_BYTES: usize = SUPERSLAB_BYTES;
/// Alignment and upper bound (bytes) of a heap record. A route word with its low bits cleared is the record's address.
///
/// Address space: most bins are those of dynamic classes, whose OS pages nobody touches until one is in force.
pub const HEAP_RECORD_BYTES: usize = 32 * 1024;
/// Bytes of one bin inside a heap record: a cache line.
pub const BIN_BYTES: usize = 64;

const _: () = assert!(SLABS_PER_SUPERSLAB == 32, "superslab bitmaps are u32");
const _: () = assert!(OS_PAGE_BYTES < SLAB_BYTES);
