//! A model of hakmem: the mechanisms that policy turns, driven by a trace.
//!
//! What it has: threads' lists with caps and their growth, refills, spills, outboxes and mail, idle trims, slabs, runs with their
//! caches, big blocks with their shelf, superslabs with dirty units, purge delay, warm pool, growth and scavenger, huge pages by
//! threshold, and which pages are resident. Time is the trace's: costs are counted and change nothing of when something happens.
//!
//! What it has not: blocks' contents (a block is written from end to end when it is handed out, which overstates what a program
//! touches of a large table that it asks zeroed), alignment, threads that end, prefilled superslabs, the hardened level, samples.

#![expect(clippy::indexing_slicing, reason = "a model that is wrong shall stop; indices are of its own making")]

mod costs;
mod front;
mod large;
mod machine;
mod os;

pub use costs::{Costs, Counters};
pub use front::ClassCounts;
pub use large::GroupCounts;
pub use machine::{Levels, Machine, Totals};
