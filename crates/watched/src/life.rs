//! What is written down of a block.

use hakmem_base::Frames;

/// A block that is handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Birth {
    /// Bytes that were asked for.
    pub bytes: usize,
    /// For how many allocations it stands.
    pub weight: u32,
    /// When, in nanoseconds of whatever clock the caller has.
    pub at_ns: u64,
    /// Whose allocation it was: a number that names the heap.
    pub heap: usize,
    /// Allocations of that heap until then.
    pub allocs: u64,
    /// The superslab of a big block, counted from 1, whose pages are looked at when it ends; 0: none.
    pub probe: u32,
    /// The calls that led there, innermost first; 0 where there are no more.
    pub frames: Frames,
}
