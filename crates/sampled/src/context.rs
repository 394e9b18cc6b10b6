//! What a call brings along: the box below and the route words; and what an allocation asks for.

use hakmem_base::Door;
use hakmem_ownership::RouteWord;
use hakmem_superslab_os::{FlatTable, SuperslabOs};

/// Where slots come from and how they are recorded.
#[derive(Clone, Copy)]
pub struct SampledContext<'a> {
    /// The box that owns the units.
    pub os: &'a SuperslabOs,
    /// One route word per unit of the window.
    pub routes: &'a FlatTable<RouteWord>,
}

/// An allocation that is to be a sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Bytes that the user may touch. Not one more.
    pub bytes: usize,
    /// A power of two.
    pub align: usize,
    /// Against the guard behind it, where an overflow hits, or else against the one before it, where an underflow does.
    pub at_end: bool,
    /// Through which door it leaves.
    pub door: Door,
}
