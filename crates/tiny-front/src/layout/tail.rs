//! Ablation: the words of a slab in its own last 32 bytes.
//!
//! Slabs of one unit only. Those of several units, runs and all that is not a slab keep their words in the tables, because from an
//! address alone nobody can tell where such a slab ends; and for the same reason something must say that a unit has a tail: one
//! byte for each, of which a line covers 4 MiB. A stranger who looks at a slab once more after handing a block over may find it given
//! back, and reads what is at its end by then: a number, which can only mislead a count.

use hakmem_atomic_ops::Flag;
use hakmem_base::{SLAB_BYTES, SlabIndex, TAIL_BYTES, ZeroValid};
use hakmem_ownership::RouteWord;
use hakmem_remote_queue::RemoteHead;
use hakmem_superslab_os::FlatTable;
use static_assertions::const_assert;

use crate::front::{Front, Tables};
use crate::raw;
use crate::slab_state::SlabState;

/// The last bytes of a slab.
#[derive(Debug)]
#[repr(C)]
struct Tail {
    route: RouteWord,
    state: SlabState,
    remote: RemoteHead,
}

const_assert!(size_of::<Tail>() <= TAIL_BYTES);
const_assert!(TAIL_BYTES.is_multiple_of(align_of::<Tail>()));

/// Whether a unit ends with a tail. Relaxed in effect: whoever has a block of a slab got it after the owner set this.
#[derive(Debug)]
struct HasTail(Flag);

// SAFETY: zero is "no", and nothing is dropped.
unsafe impl ZeroValid for HasTail {}

/// Whether a slab none of whose blocks is out may lose its contents: its words are among them.
pub(crate) const MAY_BE_BARE: bool = false;

/// What the window's tables hold beside the three of them.
#[derive(Debug)]
pub(crate) struct OfSlabs {
    has_tail: FlatTable<HasTail>,
}

impl OfSlabs {
    pub(crate) fn reserve(slab_count: usize) -> Option<Self> {
        Some(Self { has_tail: FlatTable::reserve(slab_count)? })
    }
}

/// What a heap has to know to find the words of its slabs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words {
    routes: *const RouteWord,
    has_tail: *const HasTail,
    base: *mut u8,
}

impl Words {
    pub(crate) const NONE: Self =
        Self { routes: core::ptr::null(), has_tail: core::ptr::null(), base: core::ptr::null_mut() };

    pub(crate) fn of(tables: &Tables) -> Self {
        Self { routes: tables.routes.as_ptr(), has_tail: tables.of_slabs.has_tail.as_ptr(), base: tables.window.base }
    }

    /// Route word of the unit at `index`.
    ///
    /// # Safety
    /// - The index is below the number of units of the window, which is known.
    #[inline(always)]
    pub(crate) unsafe fn route(&self, index: usize) -> &RouteWord {
        // SAFETY: passed on to the caller.
        if unsafe { raw::entry(self.has_tail, index) }.0.is_set_relaxed() {
            // SAFETY: the unit has a tail.
            return &unsafe { tail_of(self.base, index) }.route;
        }
        // SAFETY: passed on to the caller.
        unsafe { raw::entry(self.routes, index) }
    }

    /// State of the slab of one unit at `index`.
    ///
    /// # Safety
    /// - As for [`Words::route`], and there is such a slab.
    #[inline(always)]
    pub(crate) unsafe fn state(&self, index: usize) -> &SlabState {
        // SAFETY: every slab of one unit has a tail.
        &unsafe { tail_of(self.base, index) }.state
    }
}

/// The tail of the unit at `index` of the window at `base`.
///
/// # Safety
/// - That unit has one.
#[inline(always)]
unsafe fn tail_of<'t>(base: *mut u8, index: usize) -> &'t Tail {
    let tail = base.wrapping_add((index + 1) * SLAB_BYTES - TAIL_BYTES).cast::<Tail>();
    // SAFETY: no block lies there, the memory is there as long as the window, and everything in it is atomic.
    unsafe { &*tail }
}

fn tail(tables: &Tables, slab: SlabIndex) -> Option<&Tail> {
    let index = slab.to_usize();
    // SAFETY: slab indices are made from addresses inside the window or come from the superslab box: below the length.
    let has_tail = unsafe { raw::entry(tables.of_slabs.has_tail.as_ptr(), index) };
    // SAFETY: asked for just now.
    has_tail.0.is_set_relaxed().then(|| unsafe { tail_of(tables.window.base, index) })
}

/// State of a slab in use.
#[inline]
pub(crate) fn state(tables: &Tables, slab: SlabIndex) -> &SlabState {
    // SAFETY: as in `tail`.
    tail(tables, slab).map_or_else(|| unsafe { raw::entry(tables.slabs.as_ptr(), slab.to_usize()) }, |tail| &tail.state)
}

/// Remote head of a slab in use.
#[inline]
pub(crate) fn remote(tables: &Tables, slab: SlabIndex) -> &RemoteHead {
    let in_table = || {
        // SAFETY: as in `tail`.
        unsafe { raw::entry(tables.remotes.as_ptr(), slab.to_usize()) }
    };
    tail(tables, slab).map_or_else(in_table, |tail| &tail.remote)
}

/// Route word of any unit of the window.
#[inline]
pub(crate) fn route(tables: &Tables, unit: SlabIndex) -> &RouteWord {
    let in_table = || {
        // SAFETY: as in `tail`.
        unsafe { raw::entry(tables.routes.as_ptr(), unit.to_usize()) }
    };
    tail(tables, unit).map_or_else(in_table, |tail| &tail.route)
}

/// As [`route`], where the tables are not at hand.
///
/// # Safety
/// - The index is below the number of units of the front's window.
#[inline(always)]
pub(crate) unsafe fn route_of_unit(front: &Front, index: usize) -> &RouteWord {
    match front.tables() {
        Some(tables) => route(tables, SlabIndex::new(index as u32)),
        // SAFETY: passed on to the caller.
        None => unsafe { raw::entry(front.routes.load_relaxed(), index) },
    }
}

/// The units of a fresh slab become its words' place.
pub(crate) fn begin(tables: &Tables, slab: SlabIndex, units: u32) {
    if units != 1 {
        return;
    }
    let tail = tables.address_of(slab).wrapping_add(SLAB_BYTES - TAIL_BYTES);
    // SAFETY: the unit is the caller's, who has just taken it.
    unsafe { tail.write_bytes(0, TAIL_BYTES) };
    mark(tables, slab, true);
}

/// They are that no longer.
pub(crate) fn end(tables: &Tables, slab: SlabIndex, units: u32) {
    if units == 1 {
        mark(tables, slab, false);
    }
}

fn mark(tables: &Tables, slab: SlabIndex, has_tail: bool) {
    if let Some(mark) = tables.of_slabs.has_tail.get(slab.to_usize()) {
        // ORDERING: none needed (see `HasTail`); release only because flags have no relaxed store.
        mark.0.store_release(has_tail);
    }
}
