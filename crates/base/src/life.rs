//! What is told of a block that somebody watched: a few numbers on their way from the box of watched blocks to the learners.

/// Calls that tell one site from another.
pub const SITE_FRAMES: usize = 8;

/// The calls that led to an allocation, innermost first; 0 where there are no more.
pub type Frames = [usize; SITE_FRAMES];

/// A block that has been freed, or, if it has not, its life so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Life {
    /// Bytes that were asked for.
    pub bytes: usize,
    /// For how many allocations it stands.
    pub weight: u32,
    /// How long it lived, in nanoseconds.
    pub ns: u64,
    /// The same in allocations of its heap; unknown where another thread freed it.
    pub allocs: Option<u64>,
    /// When it ended, or was looked at, in nanoseconds of the clock that its time was taken with.
    pub at_ns: u64,
    /// Thousandths of it that were in memory then, as a part with small pages tells; unknown where nobody looked.
    pub touched_permille: Option<u16>,
    /// The calls that led to its allocation.
    pub frames: Frames,
}
