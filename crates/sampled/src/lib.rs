//! Guarded samples: a few blocks of a running program sit alone between guard pages, and mistakes with them are proved.
//!
//! **Not here.** Which allocation is a sample (the front counts, the facade asks), the report's text, signal handlers.
//! **Invariants.** A slot is fresh, resting, or in the hands of one block's user or of one call; slots carved == resting + in
//! use + in hands. Of two frees of a block one wins. A freed slot is handed out again only when no fresh one is left, and then
//! the one that has rested longest. Every unit of a slot carries a "sampled" route for ever. Nothing here allocates.
//! **Access.** The queue of resting slots: under its lock, which is not held across a stack capture, a protection of a block's
//! pages or any call of a user's. A slot's description: written by whoever moved its state to "busy", read by any thread,
//! word by word, because a report must not wait.
//! **Degrading.** No slot free, a refused guard, a block too large: each is counted in [`SampledStats`], and the allocation
//! goes the ordinary way.
//! **Why.** docs/decisions/0012-sampled-guards.md

#![cfg_attr(not(any(test, miri)), no_std)]

mod canary;
mod context;
mod finding;
mod place;
mod pool;
mod slot;
mod stamp;
mod trace;

pub use context::{SampledContext, Wanted};
pub use finding::{Finding, Mistake};
pub use place::{MAX_ALIGN, MAX_BYTES};
pub use pool::{SampledPool, SampledStats};
pub use stamp::Stamp;
pub use trace::{FRAMES, Trace};
