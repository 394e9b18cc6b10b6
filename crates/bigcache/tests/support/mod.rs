//! A window with its route words, and blocks that know what stands in them.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use hakmem_base::SlabIndex;
use hakmem_bigcache::{BigCache, BigContext, BigHint, BigPolicy, Block};
use hakmem_ownership::{Route, RouteWord};
use hakmem_superslab_os::{FlatTable, OsPolicy, SuperslabOs, WindowConfig};

/// Places that are written and looked at (bytes apart).
const STRIDE: usize = if cfg!(miri) { 512 << 10 } else { 4096 };

pub struct Heap {
    pub os: SuperslabOs,
    pub routes: FlatTable<RouteWord>,
    pub policy: BigPolicy,
    /// The hints that blocks are allocated with, by their note.
    pub hints: Vec<BigHint>,
}

/// What a free finds behind an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Window(SlabIndex, usize),
    Outside(usize),
}

impl Heap {
    pub fn new(window_bytes: usize, policy: BigPolicy) -> Self {
        let os = SuperslabOs::new();
        let window = os.reserve(WindowConfig { bytes: window_bytes }).unwrap();
        os.set_policy(OsPolicy { thp_heap_bytes: usize::MAX, ..OsPolicy::default() });
        let routes = FlatTable::reserve(window.slab_count as usize).unwrap();
        Self { os, routes, policy, hints: Vec::new() }
    }

    pub fn cx(&self) -> BigContext<'_> {
        self.cx_of(0)
    }

    /// For a block with this note.
    pub fn cx_of(&self, note: u16) -> BigContext<'_> {
        let hint = self.hints.iter().copied().find(|hint| hint.note == note).unwrap_or(BigHint::NONE);
        BigContext { os: &self.os, routes: &self.routes, policy: self.policy, hint }
    }

    /// Where a block lies and how many bytes it has.
    pub fn place_of(&self, cache: &BigCache, address: usize) -> Option<Place> {
        let Some(index) = self.os.index_of(address) else { return cache.outside_find(address).map(Place::Outside) };
        match self.routes.get(index.to_usize()).unwrap().route() {
            Route::Big { bytes, .. } => Some(Place::Window(index, bytes)),
            _ => None,
        }
    }

    pub fn bytes_of(&self, cache: &BigCache, block: Block) -> usize {
        match self.place_of(cache, address_of(block)).unwrap() {
            Place::Window(_, bytes) | Place::Outside(bytes) => bytes,
        }
    }

    pub fn index_of(&self, block: Block) -> SlabIndex {
        self.os.index_of(address_of(block)).unwrap()
    }

    /// Frees as the facade does. False: there is no such block.
    pub fn free(&self, cache: &BigCache, address: usize) -> bool {
        match self.place_of(cache, address) {
            Some(Place::Window(index, bytes)) => {
                let word = self.routes.get(index.to_usize()).unwrap();
                let route = word.route();
                let won = word.claim(route);
                if won && let Route::Big { note, .. } = route {
                    cache.free(&self.cx_of(note), index, bytes);
                }
                won
            }
            Some(Place::Outside(_)) => cache.outside_free(address).is_some(),
            None => false,
        }
    }
}

pub fn address_of(block: Block) -> usize {
    block.ptr.as_ptr().addr()
}

/// Writes `mark` all over a part of a block.
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
