//! Words in flat tables, one entry for each unit: 32 bytes, out of reach of an overflowing block, eight route words to a line.

#![cfg_attr(
    feature = "ablation-object-header",
    expect(dead_code, reason = "a header spares heaps the look at route words")
)]

use hakmem_base::SlabIndex;
use hakmem_ownership::RouteWord;
use hakmem_remote_queue::RemoteHead;

use crate::front::{Front, Tables};
use crate::raw;
use crate::slab_state::SlabState;

/// Whether a slab none of whose blocks is out may lose its contents.
pub(crate) const MAY_BE_BARE: bool = true;

/// What the window's tables hold beside the three of them.
#[derive(Debug)]
pub(crate) struct OfSlabs;

impl OfSlabs {
    pub(crate) fn reserve(_slab_count: usize) -> Option<Self> {
        Some(Self)
    }
}

/// What a heap has to know to find the words of its slabs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words {
    routes: *const RouteWord,
    slabs: *const SlabState,
}

impl Words {
    pub(crate) const NONE: Self = Self { routes: core::ptr::null(), slabs: core::ptr::null() };

    pub(crate) fn of(tables: &Tables) -> Self {
        Self { routes: tables.routes.as_ptr(), slabs: tables.slabs.as_ptr() }
    }

    /// Route word of the unit at `index`.
    ///
    /// # Safety
    /// - The index is below the number of units of the window, which is known.
    #[inline(always)]
    pub(crate) unsafe fn route(&self, index: usize) -> &RouteWord {
        // SAFETY: passed on to the caller.
        unsafe { raw::entry(self.routes, index) }
    }

    /// State of the slab of one unit at `index`.
    ///
    /// # Safety
    /// - As for [`Words::route`].
    #[inline(always)]
    pub(crate) unsafe fn state(&self, index: usize) -> &SlabState {
        // SAFETY: passed on to the caller.
        unsafe { raw::entry(self.slabs, index) }
    }
}

/// State of a slab in use.
#[inline]
pub(crate) fn state(tables: &Tables, slab: SlabIndex) -> &SlabState {
    // SAFETY: slab indices are made from addresses inside the window or come from the superslab box: below the length.
    unsafe { raw::entry(tables.slabs.as_ptr(), slab.to_usize()) }
}

/// Remote head of a slab in use.
#[inline]
pub(crate) fn remote(tables: &Tables, slab: SlabIndex) -> &RemoteHead {
    // SAFETY: as for `state`.
    unsafe { raw::entry(tables.remotes.as_ptr(), slab.to_usize()) }
}

/// Route word of any unit of the window.
#[inline]
pub(crate) fn route(tables: &Tables, unit: SlabIndex) -> &RouteWord {
    // SAFETY: as for `state`.
    unsafe { raw::entry(tables.routes.as_ptr(), unit.to_usize()) }
}

/// As [`route`], where the tables are not at hand.
///
/// # Safety
/// - The index is below the number of units of the front's window.
#[inline(always)]
pub(crate) unsafe fn route_of_unit(front: &Front, index: usize) -> &RouteWord {
    // SAFETY: passed on to the caller.
    unsafe { raw::entry(front.routes.load_relaxed(), index) }
}

/// The units of a fresh slab become its words' place.
#[inline(always)]
pub(crate) fn begin(_tables: &Tables, _slab: SlabIndex, _units: u32) {}

/// They are that no longer.
#[inline(always)]
pub(crate) fn end(_tables: &Tables, _slab: SlabIndex, _units: u32) {}
