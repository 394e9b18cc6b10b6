//! Learners compared without noise: allocation traces, and a model of hakmem that replays them under any policy.
//!
//! **Not here.** Timing (a machine that is busy gives the same numbers as an idle one), and the allocator itself: what is replayed
//! is a model of the mechanisms that policy turns, with a table of measured unit costs. [`execute`] runs a trace against the real
//! allocator, to say how far the model can be believed.
//! **Invariants.** A replay is a function of trace, policy, costs and seed. What the model hands out it gets back: every
//! unit, block and page is in one place (`Machine::check`). A trace names each block once while it lives.

pub mod evaluate;
pub mod execute;
pub mod model;
pub mod raw_log;
pub mod synthetic;
pub mod trace;
pub mod validate;
