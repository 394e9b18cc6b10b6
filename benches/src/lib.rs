//! What the benchmark programs share: the allocator under test and the benchmarks.
//!
//! **Not here.** Statistics over runs (`cargo xtask bench`), judgement of a health run (the `health` program).
//! **Invariants.** Exactly one allocator is compiled in, named by [`ALLOCATOR_NAME`]; a benchmark allocates nothing but
//! what it measures between the two readings of its clock.

#![allow(clippy::indexing_slicing, reason = "programs that may stop; no box, and not on the path of malloc")]

mod chosen;
pub mod suite;

#[cfg(test)]
#[global_allocator]
static GLOBAL: Allocator = ALLOCATOR;

pub use chosen::{ALLOCATOR, ALLOCATOR_NAME, Allocator};
