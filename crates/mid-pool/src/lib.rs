//! Runs: blocks above 32 KiB and up to 2 MiB, each in 1..=32 contiguous slabs of one superslab, and the thread's cache of freed ones.
//!
//! **Not here.** System calls and purging (the OS box), ownership (a run has no owner), smaller and bigger blocks.
//! **Invariants.** The head unit of a run in use carries its route, all other units and all cached runs read as "unused":
//! a second free of a block finds no route and is caught. `cached bytes == 64 KiB x sum of the cached runs' units`,
//! bounded by [`RunPolicy::cache_bytes`]. A block is called zeroed only when every unit it touches is known to be.
//! **Access.** A [`RunCache`] belongs to one thread; others read its counters. Blocks may be freed by any thread: the one
//! that wins `RouteWord::claim` keeps the run in its own cache, or gives it back.
//! **Orderings.** None of its own: `set_run` (release) → `claim` (acquire) in the ownership box carries a run's contents
//! from the allocating to the freeing thread, the OS box's lock from cache to cache.
//! **Why.** No owner, because a run is one block: there is no free list to hand over, so whoever frees it can keep it. Not at
//! the first free of its length: what nobody asks for again serves better in the OS box (docs/decisions/0020).

#![cfg_attr(not(test), no_std)]

mod cache;
mod context;
mod lanes;
mod raw;
pub mod shared;

pub use cache::{RunCache, RunFlow};
pub use context::{Block, LARGE_CLASS_COUNT, RunContext, RunPolicy, large_class, most_units};
