//! Watched blocks: a few blocks of a running program whose size, birthplace, life and death are written down.
//!
//! A watched block lies in a unit whose route names this box, so that its free, by whichever thread, takes the way that frees of
//! strangers' blocks take anyway: no fast path asks whether a block is watched. What is known of it lies apart from it.
//!
//! **Not here.** Which allocation is watched (the front counts, the facade asks), clocks, stacks, what is made of the lives.
//! **Invariants.** A slot is fresh, free, or in the hands of one block's user or of one call; slots carved == free + in use + in
//! hands. Of two frees of a block one wins. Every unit of slots carries a "watched" route for ever. A life is told once or
//! counted as lost. Nothing here allocates but units and tables of its own; without a watched block it has none.
//! **Access.** Free slots: under a lock, which is held across nothing but the taking of a unit. A slot's description: written by
//! whoever moved its state to "busy", read by any thread, word by word. The ring: any thread writes, one at a time reads.
//! **Degrading.** No slot, no unit, no room in the ring: counted in [`WatchedStats`], and the allocation goes the ordinary way.
//! **Why.** docs/decisions/0015-watched-blocks.md

#![cfg_attr(not(any(test, miri)), no_std)]

mod group;
mod life;
mod pool;
mod ring;
mod slot;

pub use life::Birth;
pub use pool::{WatchedContext, WatchedPool, WatchedStats, Wrong};
