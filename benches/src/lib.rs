//! What the benchmark programs share: the allocator under test, the benchmarks, a random source, memory readings.
//!
//! **Not here.** Statistics over runs (the `compare` program), judgement of a health run (the `health` program).
//! **Invariants.** Exactly one allocator is compiled in, named by [`ALLOCATOR_NAME`]; a benchmark allocates nothing but
//! what it measures between the two readings of its clock; every [`Blocks`] byte is checked before its block is freed.

#![allow(clippy::indexing_slicing, reason = "programs that may stop; no box, and not on the path of malloc")]

mod blocks;
mod chosen;
mod memory;
mod random;
pub mod suite;

pub use blocks::{Blocks, Filled};
pub use chosen::{ALLOCATOR, ALLOCATOR_NAME, Allocator};
pub use memory::{Memory, available_kib, peak_rss_kib};
pub use random::Random;
