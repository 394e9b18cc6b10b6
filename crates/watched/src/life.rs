//! What is written down of a block.

/// Return addresses kept of the stack that a block was born with.
pub const FRAMES: usize = 8;

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
    /// The calls that led there, innermost first; 0 where there are no more.
    pub frames: [usize; FRAMES],
}

/// A block that has been freed, or, if it has not, its life so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Life {
    /// Bytes that were asked for.
    pub bytes: usize,
    /// For how many allocations it stands.
    pub weight: u32,
    /// How long it lived.
    pub ns: u64,
    /// The same in allocations of its heap; unknown where another thread freed it.
    pub allocs: Option<u64>,
    /// The calls that led to its allocation.
    pub frames: [usize; FRAMES],
}
