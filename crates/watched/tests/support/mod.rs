//! A window with its route words, and a pool in it.

use hakmem_base::SizeClass;
use hakmem_base::{Life, SITE_FRAMES};
use hakmem_ownership::{Route, RouteWord};
use hakmem_superslab_os::{FlatTable, SuperslabOs, WindowConfig};
use hakmem_watched::{Birth, WatchedContext, WatchedPool, Wrong};

pub struct World {
    pub os: SuperslabOs,
    pub routes: FlatTable<RouteWord>,
    pub pool: WatchedPool,
}

/// A birth in heap 9, after 100 of its allocations.
pub fn birth(bytes: usize, at_ns: u64) -> Birth {
    Birth { bytes, weight: 7, at_ns, heap: 9, allocs: 100, probe: 0, frames: [3; SITE_FRAMES] }
}

impl World {
    pub fn new() -> Self {
        Self::of_bytes(512 << 20)
    }

    pub fn of_bytes(bytes: usize) -> Self {
        let os = SuperslabOs::new();
        let window = os.reserve(WindowConfig { bytes }).unwrap();
        let routes = FlatTable::reserve(window.slab_count as usize).unwrap();
        let pool = WatchedPool::new();
        assert!(pool.reserve() && pool.reserve());
        Self { os, routes, pool }
    }

    pub fn try_take(&self, class_bytes: usize, birth: &Birth) -> Option<usize> {
        let cx = WatchedContext { os: &self.os, routes: &self.routes };
        let class = SizeClass::for_bytes(class_bytes).unwrap();
        Some(self.pool.allocate(&cx, class, birth)?.addr().get())
    }

    pub fn take(&self, class_bytes: usize, birth: &Birth) -> usize {
        self.try_take(class_bytes, birth).unwrap()
    }

    /// The number in the route word of the unit that the address lies in.
    pub fn note(&self, address: usize) -> usize {
        match self.routes.get(self.os.index_of(address).unwrap().to_usize()).unwrap().route() {
            Route::Watched(note) => note,
            other => panic!("not watched but {other:?}"),
        }
    }

    /// Frees as heap 9 after 125 allocations.
    pub fn give(&self, block: usize, now_ns: u64) -> Result<(), Wrong> {
        self.pool.free(self.note(block), block, now_ns, |heap| (heap == 9).then_some(125))
    }

    pub fn told(&self) -> Vec<Life> {
        let mut lives = Vec::new();
        self.pool.drain(|life| lives.push(*life));
        lives
    }

    pub fn alive(&self, now_ns: u64) -> Vec<Life> {
        let mut lives = Vec::new();
        self.pool.for_each_alive(now_ns, |_| None, |life| lives.push(*life));
        lives
    }

    /// Writes to all of a block that was taken.
    pub fn fill(&self, block: usize, bytes: usize) {
        let unit = self.os.index_of(block).unwrap();
        let start = self.os.address_of(unit);
        let offset = block - start.addr();
        // SAFETY: the block is the test's, and so many bytes long.
        unsafe { start.wrapping_add(offset).write_bytes(0x5a, bytes) };
    }
}
