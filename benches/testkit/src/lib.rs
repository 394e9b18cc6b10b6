//! What the tests and benchmarks of hakmem share: patterned blocks, random numbers, memory readings, child processes, names of threads.
//!
//! **Not here.** The allocator: everything here allocates from whichever the program has made its global one.
//! **Invariants.** Every byte of a [`Filled`] block is checked before the block is freed; a child never outlives its
//! time limit; the same seed gives the same numbers.

#![allow(clippy::indexing_slicing, reason = "programs that may stop; no box, and not on the path of malloc")]

mod blocks;
mod child;
mod counting;
mod memory;
pub mod model;
mod random;
mod threads;

pub use blocks::{Blocks, Damage, Filled};
pub use child::{Child, Ended};
pub use counting::Counting;
pub use memory::{Memory, available_kib, peak_rss_kib};
pub use random::{Random, cases, number_from_env};
pub use threads::thread_names;
