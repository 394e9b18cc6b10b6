//! The records of slabs in every order of events: a thread that looks through the window while another one gives slabs back
//! and cuts others from the same units.

#![cfg(alloc_loom)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test helpers outside #[test] functions: a panic is the test's failure"
)]

use hakmem_atomic_ops::model::{Model, thread};
use hakmem_base::{Door, Request, SLAB_BYTES, SLAB_SHIFT, SUPERSLAB_BYTES};
use hakmem_hardened::{Hardened, HardenedContext, Limits};
use hakmem_ownership::{Route, RouteWord};
use hakmem_superslab_os::{FlatTable, MetaArena, OsPolicy, SuperslabOs, Window, WindowConfig};
use std::ptr::NonNull;
use std::sync::Arc;

/// Sizes of two classes. Places in a slab are random; of blocks this small all are in its first unit, so that each order of
/// events can be repeated.
const SIZES: [usize; 2] = [100, 200];

/// A level with a window of its own, given back at the end of each order of events.
struct World {
    os: SuperslabOs,
    window: Window,
    routes: FlatTable<RouteWord>,
    arena: MetaArena,
    hardened: Hardened,
}

impl World {
    fn new() -> Arc<Self> {
        let os = SuperslabOs::new();
        // The clock runs beside a model, so nothing may come due in it.
        os.set_policy(OsPolicy { purge_delay_ms: u32::MAX, ..OsPolicy::new() });
        let window = os.reserve(WindowConfig { bytes: 32 << 20 }).unwrap();
        let routes = FlatTable::reserve(window.slab_count as usize).unwrap();
        let world = Self { os, window, routes, arena: MetaArena::new(), hardened: Hardened::new() };
        let limits = Limits { quarantine_bytes: 0, quarantine_blocks: 0, guards: 1000 };
        assert!(world.hardened.start(world.cx(), limits));
        Arc::new(world)
    }

    fn cx(&self) -> HardenedContext<'_> {
        HardenedContext { os: &self.os, routes: &self.routes, arena: &self.arena, doors_mix: |_, _| false }
    }

    /// Allocates a block and frees it; the empty slab goes back.
    fn come_and_go(&self, bytes: usize) -> usize {
        let block = self.hardened.allocate(self.cx(), bytes, 16, Door::Rust).unwrap();
        self.free(block, bytes);
        self.hardened.collect(self.cx(), false);
        block.addr().get()
    }

    fn free(&self, block: NonNull<u8>, bytes: usize) {
        let unit = self.os.index_of(block.addr().get()).unwrap();
        let Route::Hardened(note) = self.routes.get(unit.to_usize()).unwrap().route() else {
            panic!("a block without a route");
        };
        self.hardened.free(self.cx(), block, note, Request::new(bytes, 16, Door::Rust));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let bytes = self.window.slab_count as usize * SLAB_BYTES + SUPERSLAB_BYTES;
        // SAFETY: the level is gone with all its blocks, and the window was its alone.
        unsafe { libc::munmap(self.window.base.cast(), bytes) };
    }
}

#[test]
fn whoever_finds_a_record_by_an_old_route_sees_all_of_it() {
    // Hunts: a sweep that has read the route of one class's slab, and then finds the record of another class's slab, which was
    // cut from the same units meanwhile: a record without its class.
    Model::preemptions(1, 2).room(400, 400).deep().check(|| {
        let world = World::new();
        let first = world.hardened.allocate(world.cx(), SIZES[0], 16, Door::Rust).unwrap();
        let other = {
            let world = Arc::clone(&world);
            let first = first.expose_provenance();
            thread::spawn(move || {
                world.free(NonNull::with_exposed_provenance(first), SIZES[0]);
                world.hardened.collect(world.cx(), false);
                let second = world.come_and_go(SIZES[1]);
                assert_eq!(second >> SLAB_SHIFT, first.get() >> SLAB_SHIFT, "the units were not used again");
            })
        };
        world.hardened.sweep(world.cx());
        other.join().unwrap();
        world.hardened.check_invariants();
        assert_eq!(world.os.stats().in_use_bytes, 0, "a slab was lost");
    });
}
