//! A window with its route words, and blocks that know what stands in them.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use hakmem_base::SlabIndex;
use hakmem_mid_pool::{Block, RunContext, RunPolicy};
use hakmem_ownership::{Route, RouteWord};
use hakmem_superslab_os::{FlatTable, OsPolicy, SuperslabOs, WindowConfig};

/// Places that are written and looked at (bytes apart).
const STRIDE: usize = if cfg!(miri) { 32 << 10 } else { 512 };

pub struct Heap {
    pub os: SuperslabOs,
    pub routes: FlatTable<RouteWord>,
    pub policy: RunPolicy,
}

impl Heap {
    pub fn new(window_bytes: usize, policy: RunPolicy) -> Self {
        let os = SuperslabOs::new();
        let window = os.reserve(WindowConfig { bytes: window_bytes }).unwrap();
        os.set_policy(OsPolicy { thp_heap_bytes: usize::MAX, ..OsPolicy::default() });
        let routes = FlatTable::reserve(window.slab_count as usize).unwrap();
        Self { os, routes, policy }
    }

    pub fn cx(&self) -> RunContext<'_> {
        RunContext { os: &self.os, routes: &self.routes, policy: self.policy }
    }

    /// Index, units and usable bytes of a block, as a free finds them.
    pub fn run_of(&self, block: Block) -> (SlabIndex, u32, usize) {
        let index = self.os.index_of(block.ptr.as_ptr().addr()).unwrap();
        match self.routes.get(index.to_usize()).unwrap().route() {
            Route::Run { units, bytes } => (index, units, bytes),
            other => panic!("not a run but {other:?}"),
        }
    }

    /// Claims a block as a free does.
    pub fn claim(&self, block: Block) -> Option<(SlabIndex, u32, usize)> {
        let index = self.os.index_of(block.ptr.as_ptr().addr())?;
        let word = self.routes.get(index.to_usize())?;
        match word.route() {
            route @ Route::Run { units, bytes } if word.claim(route) => Some((index, units, bytes)),
            _ => None,
        }
    }
}

/// Writes `mark` all over a block.
pub fn fill(block: Block, from: usize, to: usize, mark: u8) {
    for offset in (from.next_multiple_of(STRIDE)..to).step_by(STRIDE) {
        // SAFETY: the test holds the block and `to` is within its usable size.
        unsafe { block.ptr.as_ptr().wrapping_add(offset).write(mark) };
    }
}

/// Whether `mark` stands all over a block.
pub fn is_filled(block: Block, to: usize, mark: u8) -> bool {
    // SAFETY: the test holds the block and `to` is within its usable size.
    (0..to).step_by(STRIDE).all(|offset| unsafe { block.ptr.as_ptr().wrapping_add(offset).read() } == mark)
}
