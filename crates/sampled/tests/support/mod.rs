//! A window with its route words, and a pool in it.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::result_large_err, reason = "a finding ends a process; here it is looked at")]

use std::ptr::NonNull;

use hakmem_base::{Door, Request};
use hakmem_ownership::{Route, RouteWord};
use hakmem_sampled::{Finding, SampledContext, SampledPool, Stamp, Trace, Wanted};
use hakmem_superslab_os::{FlatTable, SuperslabOs, WindowConfig};

pub struct Guarded {
    pub os: SuperslabOs,
    pub routes: FlatTable<RouteWord>,
    pub pool: SampledPool,
}

impl Guarded {
    pub fn new(slots: u32) -> Self {
        let os = SuperslabOs::new();
        let window = os.reserve(WindowConfig { bytes: 64 << 20 }).unwrap();
        let routes = FlatTable::reserve(window.slab_count as usize).unwrap();
        let pool = SampledPool::new();
        assert!(pool.reserve(slots));
        Self { os, routes, pool }
    }

    pub fn cx(&self) -> SampledContext<'_> {
        SampledContext { os: &self.os, routes: &self.routes }
    }

    pub fn take(&self, bytes: usize, align: usize, at_end: bool) -> Option<NonNull<u8>> {
        self.pool.allocate(&self.cx(), Wanted { bytes, align, at_end, door: Door::New }, || stamp(1))
    }

    /// Whether a unit of the window is one of samples.
    pub fn is_sampled(&self, unit: u32) -> bool {
        matches!(self.routes.get(unit as usize).unwrap().route(), Route::Sampled(_))
    }

    /// The number in the route word of the unit that the address lies in.
    pub fn note(&self, address: usize) -> usize {
        match self.routes.get(self.os.index_of(address).unwrap().to_usize()).unwrap().route() {
            Route::Sampled(note) => note,
            other => panic!("not a sample but {other:?}"),
        }
    }

    pub fn give(&self, address: usize) -> Result<(), Finding> {
        self.pool.free(&self.cx(), self.note(address), address, Request::unsized_from(Door::New), || stamp(2))
    }

    pub fn judge(&self, address: usize) -> Option<Finding> {
        self.pool.judge_access(self.note(address), address)
    }

    /// Whether the kernel can read a byte on this process's behalf; it says so instead of faulting.
    pub fn is_readable(&self, address: usize) -> bool {
        let mut ends = [0; 2];
        // SAFETY: fills the array it is given.
        assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
        let byte = std::ptr::with_exposed_provenance::<libc::c_void>(address);
        // SAFETY: the kernel checks the address.
        let written = unsafe { libc::write(ends[1], byte, 1) };
        for end in ends {
            // SAFETY: opened above and used no more.
            unsafe { libc::close(end) };
        }
        written == 1
    }
}

/// A stamp that a test recognises.
pub fn stamp(thread: u32) -> Stamp {
    Stamp { thread, at_ms: u64::from(thread) * 10, trace: [0x1000 * thread as usize].into_iter().collect::<Trace>() }
}

/// Writes one byte at an offset from a block.
pub fn poke(block: NonNull<u8>, offset: isize, byte: u8) {
    // SAFETY: the test writes within the pages of a block in use.
    unsafe { block.as_ptr().wrapping_offset(offset).write(byte) };
}
