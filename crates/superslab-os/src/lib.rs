//! Address space and what stands behind it: the window, superslabs, runs of slabs, purging and huge pages.
//!
//! **Not here.** Blocks, size classes, owners, threads, caches of freed blocks; when to call `purge_due` from outside.
//! **Invariants.** Units in use + free + in a purger's hands == 32 x committed superslabs. A unit reported clean reads as
//! zero. No advice reaches the kernel for an address that this box did not commit. `errno` survives every call. Nothing
//! here allocates; metadata lies in tables of its own, out of reach of an overflowing block.
//! **Access.** One lock covers the pool of superslabs. A second one, taken first, is held while units are in a purger's
//! hands, so that a fork waits for them. madvise and mremap happen outside the pool's lock; mprotect, which grows the
//! committed part in doubling steps, happens under it; that of guards, within units that the caller holds, outside it.
//! **Degrading.** A refused reservation is halved; a refused commit is retried with the exact need, then the take fails;
//! after eight consecutive refusals madvise pauses for ten seconds and free memory stays dirty; pages that cannot be
//! moved are copied by the caller. Each is counted in [`OsStats`].

#![cfg_attr(not(any(test, miri, feature = "testing")), no_std)]

mod arena;
mod bits;
mod check;
#[cfg(any(test, miri, feature = "testing"))]
mod faults;
mod free_map;
mod hindsight;
mod os;
mod policy;
mod pool;
mod probe;
mod purge;
mod record;
mod residence;
mod stats;
#[cfg(not(miri))]
mod sys;
#[cfg(miri)]
#[path = "sys_fake.rs"]
mod sys;
mod table;
mod window;

pub use arena::MetaArena;
#[cfg(any(test, miri, feature = "testing"))]
pub use faults::{Call, refuse_calls, refuse_nothing};
pub use hakmem_base::ZeroValid;
pub use hindsight::{ALWAYS_HUGE, Era, Ghost, IDLE_MS, WORLDS};
pub use os::{Extent, Purge, Run, SuperslabOs};
pub use policy::{OsPolicy, WindowConfig};
pub use purge::idle_ms;
pub use stats::OsStats;
pub use sys::physical_bytes;
pub use table::FlatTable;
pub use window::Window;
