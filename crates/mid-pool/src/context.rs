//! What a call brings along: the box below, the route words, the numbers of the present policy.

use core::ptr::NonNull;
use hakmem_base::{OS_PAGE_BYTES, RUN_MAX_BYTES, SLAB_BYTES, SLAB_SHIFT, SLABS_PER_SUPERSLAB, SlabIndex};
use hakmem_ownership::RouteWord;
use hakmem_superslab_os::{FlatTable, SuperslabOs};

/// Classes of runs that have a cap of their own: up to 64, 128, 256, 512 KiB, and above.
pub const LARGE_CLASS_COUNT: usize = 5;
/// Usable sizes are multiples of this (bytes): of what is used of a page the rest costs nothing, and a block that grows step by step
/// changes its word once a page.
pub(crate) const GRAIN_BYTES: usize = OS_PAGE_BYTES;

/// A block handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    /// Its first byte.
    pub ptr: NonNull<u8>,
    /// Whether all of it is known to read as zero.
    pub zeroed: bool,
}

/// How much a thread's cache of runs may hold, and how it is filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunPolicy {
    /// Bytes of runs that a thread keeps.
    pub cache_bytes: u32,
    /// Runs that a thread keeps.
    pub cache_runs: u32,
    /// `W_MAX`: a cached run serves a request if it is at most this many thousandths of the requested bytes.
    pub w_max_permille: u32,
    /// Runs taken at once after repeated misses of one small size; 0 and 1 mean one.
    pub bundle_runs: u32,
    /// CAP: runs that a thread keeps per class, see [`large_class`].
    pub large_cap: [u32; LARGE_CLASS_COUNT],
}

impl RunPolicy {
    /// What a cache's owner holds before it is told a policy: all zero.
    pub const UNSET: Self =
        Self { cache_bytes: 0, cache_runs: 0, w_max_permille: 0, bundle_runs: 0, large_cap: [0; LARGE_CLASS_COUNT] };

    /// The numbers used when nobody says otherwise.
    pub const DEFAULT: Self = Self {
        cache_bytes: 2 << 20,
        cache_runs: 16,
        w_max_permille: 1500,
        bundle_runs: 1,
        large_cap: [16, 12, 8, 6, 4],
    };
}

impl Default for RunPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Where runs come from and how they are recorded.
#[derive(Clone, Copy)]
pub struct RunContext<'a> {
    /// The box that owns the superslabs.
    pub os: &'a SuperslabOs,
    /// One route word per unit of the window.
    pub routes: &'a FlatTable<RouteWord>,
    /// The present numbers.
    pub policy: RunPolicy,
}

impl<'a> RunContext<'a> {
    #[inline]
    pub(crate) fn word(&self, index: SlabIndex) -> Option<&'a RouteWord> {
        self.routes.get(index.to_usize())
    }
}

/// The class of a run of `units` units for [`RunPolicy::large_cap`]: 1, 2, 3..=4, 5..=8, 9..=32 units.
#[inline]
#[must_use]
pub const fn large_class(units: u32) -> usize {
    let class = u32::BITS - units.saturating_sub(1).leading_zeros();
    if class < LARGE_CLASS_COUNT as u32 { class as usize } else { LARGE_CLASS_COUNT - 1 }
}

/// Units of the longest runs of which [`large_class`] says `class`.
#[must_use]
pub const fn most_units(class: usize) -> u32 {
    if class + 1 < LARGE_CLASS_COUNT { 1 << class } else { SLABS_PER_SUPERSLAB }
}

/// A request in units.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    /// Units needed.
    pub(crate) units: u32,
    /// The head unit's place in its superslab is a multiple of this power of two.
    pub(crate) align_units: u32,
    /// Bytes usable by the block.
    pub(crate) bytes: usize,
}

impl Shape {
    /// The run that a request needs; none if it needs more than a superslab, or nothing.
    #[inline]
    pub(crate) fn of(bytes: usize, align: usize) -> Option<Self> {
        if bytes == 0 || bytes > RUN_MAX_BYTES || align > RUN_MAX_BYTES {
            return None;
        }
        let align_units = (align >> SLAB_SHIFT).max(1) as u32;
        Some(Self { units: bytes.div_ceil(SLAB_BYTES) as u32, align_units, bytes: bytes.next_multiple_of(GRAIN_BYTES) })
    }

    /// The longest cached run that may serve the request.
    #[inline]
    pub(crate) fn widest(&self, w_max_permille: u32) -> u32 {
        let bytes = (self.bytes as u64 * u64::from(w_max_permille)) / 1000;
        ((bytes >> SLAB_SHIFT).min(u64::from(SLABS_PER_SUPERSLAB)) as u32).max(self.units)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_double_up_to_the_last() {
        let classes = [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4), (16, 4), (32, 4)];
        for (units, class) in classes {
            assert_eq!(large_class(units), class, "{units} units");
        }
    }

    #[test]
    fn shapes_cover_the_request_and_refuse_the_rest() {
        let shape = Shape::of(40_001, 16).unwrap();
        assert_eq!((shape.units, shape.align_units, shape.bytes), (1, 1, 40_960));
        assert_eq!(
            Shape::of(RUN_MAX_BYTES, RUN_MAX_BYTES).map(|shape| (shape.units, shape.align_units)),
            Some((32, 32))
        );
        assert_eq!(Shape::of(65_537, 128 << 10).map(|shape| (shape.units, shape.align_units)), Some((2, 2)));
        assert_eq!(Shape::of(0, 16), None);
        assert_eq!(Shape::of(RUN_MAX_BYTES + 1, 16), None);
        assert_eq!(Shape::of(40_000, 2 * RUN_MAX_BYTES), None);
    }

    #[test]
    fn the_rounding_limit_counts_requested_bytes() {
        let shape = Shape::of(4 * SLAB_BYTES, 16).unwrap();
        assert_eq!(shape.widest(1500), 6);
        assert_eq!(shape.widest(0), 4);
        assert_eq!(Shape::of(100_000, 16).unwrap().widest(1500), 2);
        assert_eq!(Shape::of(RUN_MAX_BYTES, 16).unwrap().widest(4000), 32);
    }
}
