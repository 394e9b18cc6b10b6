//! Blocks above 2 MiB: whole superslabs each, a cache of freed ones, and a registry for those that the window has no place for.
//!
//! **Not here.** Superslabs and their purging (the OS box), smaller blocks, deciding whether a realloc moves.
//! **Invariants.** A block of `bytes` bytes (whole OS pages) holds exactly `ceil(bytes / 2 MiB)` superslabs, so its route
//! word says all there is to know, beside it the number of the hint that it was allocated with. A cached extent's route is "unused": a second free of a block is caught by `claim`. An
//! extent is held by a block or by the cache or by the OS box, never by two. An outside block is found by its address from
//! before `allocate` returns it until one `outside_free` wins.
//! **Access.** The cache's list: any thread, under its lock, never across a system call or a call to another box. The
//! registry of outside blocks: any thread, read without a lock under an epoch pin.
//! **Orderings.** `set_big` (release) → `claim` (acquire) in the ownership box; registry: insert (release) → find (acquire).
//! **Re-entry.** crossbeam-epoch allocates when it is set up and once per batch of retired nodes. Both happen with no lock
//! of this box held but a pin slot's; see `pins`.
//! **Why.** A free of a pointer outside the window must find its block without a lock, while the block next to it in the
//! registry is freed: that is what epochs are for. A block's pages go at once; only its record's page waits.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod cache;
mod context;
mod density;
mod node;
mod outside;
mod pins;
mod shelf;
#[cfg(not(miri))]
mod sys;
#[cfg(miri)]
#[path = "sys_fake.rs"]
mod sys;

pub use cache::{BigCache, BigStats};
pub use context::{BigContext, BigHint, BigPolicy, HintedPages, SharedBigPolicy};
pub use hakmem_mid_pool::Block;
