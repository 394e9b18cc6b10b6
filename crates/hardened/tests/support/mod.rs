//! A level with a window of its own, and blocks as their user sees them.

#![allow(dead_code, reason = "each test program uses its part")]

use core::ptr::NonNull;
use hakmem_base::{Door, Request};
use hakmem_hardened::{Hardened, HardenedContext, Limits};
use hakmem_ownership::{Route, RouteWord};
use hakmem_superslab_os::{FlatTable, MetaArena, OsPolicy, SuperslabOs, WindowConfig};
use std::panic::{AssertUnwindSafe, catch_unwind};

pub const LIMITS: Limits = Limits { quarantine_bytes: 64 << 10, quarantine_blocks: 64, guards: u64::MAX };

pub struct Level {
    pub os: SuperslabOs,
    pub routes: FlatTable<RouteWord>,
    pub arena: MetaArena,
    pub hardened: Hardened,
}

impl Level {
    pub fn new(limits: Limits) -> Self {
        let os = SuperslabOs::new();
        os.set_policy(OsPolicy { thp_heap_bytes: usize::MAX, ..OsPolicy::default() });
        let window = os.reserve(WindowConfig { bytes: if cfg!(miri) { 32 << 20 } else { 512 << 20 } }).unwrap();
        let routes = FlatTable::reserve(window.slab_count as usize).unwrap();
        let level = Self { os, routes, arena: MetaArena::new(), hardened: Hardened::new() };
        assert!(level.hardened.start(level.cx(), limits));
        level
    }

    pub fn cx(&self) -> HardenedContext<'_> {
        HardenedContext { os: &self.os, routes: &self.routes, arena: &self.arena, doors_mix: |_, _| false }
    }

    pub fn allocate(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        self.hardened.allocate(self.cx(), bytes, align, Door::Rust)
    }

    /// What the route word of the address's unit says; `None` if it is not this level's.
    pub fn note(&self, address: usize) -> Option<usize> {
        match self.routes.get(self.os.index_of(address)?.to_usize())?.route() {
            Route::Hardened(note) => Some(note),
            _ => None,
        }
    }

    pub fn free(&self, block: NonNull<u8>, bytes: usize, align: usize) {
        self.free_as(block, Request::new(bytes, align, Door::Rust));
    }

    pub fn free_as(&self, block: NonNull<u8>, claim: Request) {
        let note = self.note(block.addr().get()).expect("no block of this level");
        self.hardened.free(self.cx(), block, note, claim);
    }

    pub fn resize(&self, block: NonNull<u8>, bytes: usize, align: usize, new_bytes: usize) -> bool {
        let note = self.note(block.addr().get()).expect("no block of this level");
        self.hardened.resize(self.cx(), block, note, Request::new(bytes, align, Door::Rust), new_bytes)
    }

    pub fn usable_size(&self, block: NonNull<u8>) -> usize {
        let note = self.note(block.addr().get()).expect("no block of this level");
        self.hardened.usable_size(self.cx(), block.addr().get(), note).unwrap()
    }
}

/// Writes a byte next to or into a block, as a program with a mistake would.
pub fn poke(block: NonNull<u8>, offset: isize, value: u8) {
    // SAFETY: tests poke memory that is mapped and that nobody else uses at the same time.
    unsafe { block.as_ptr().wrapping_offset(offset).write(value) };
}

/// The bytes of a block.
pub fn bytes_of<'a>(block: NonNull<u8>, bytes: usize) -> &'a mut [u8] {
    // SAFETY: the test holds the block, which is this long.
    unsafe { core::slice::from_raw_parts_mut(block.as_ptr(), bytes) }
}

/// The text of the finding that `mistake` leads to.
#[track_caller]
pub fn finding(mistake: impl FnOnce()) -> String {
    let caught = catch_unwind(AssertUnwindSafe(mistake)).expect_err("nothing was found");
    caught
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| caught.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap()
}

/// Whether a byte can be read, asked of the kernel: a pipe takes it or says `EFAULT`.
#[cfg(not(miri))]
pub fn is_readable(address: usize) -> bool {
    let mut ends = [0; 2];
    // SAFETY: room for both ends.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    // SAFETY: the kernel reads the byte, or refuses.
    let written = unsafe { libc::write(ends[1], core::ptr::without_provenance(address), 1) };
    for end in ends {
        // SAFETY: opened above.
        unsafe { libc::close(end) };
    }
    written == 1
}
