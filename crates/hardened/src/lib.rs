//! The hardened level: every block is checked when it comes back, and damage is looked for in between.
//!
//! Blocks of a size class lie at random places of slabs with a guard page at either end; larger ones have units of their own
//! between two guards. Behind each block's last byte begins a secret canary. A freed block is zeroed, waits in quarantine, and
//! must still be zero when it is handed out again. What is known of a block lies out of reach of blocks.
//!
//! **Not here.** Speed: no thread caches, one lock per class. Whether the level is on, statics, fork hooks (the facade).
//! **Invariants.** A slot not in use reads as zero; one in use holds its canary from its last byte to the slot's end. All
//! blocks are handed out zeroed. A slab's used, free and unopened slots add up to its capacity. A unit given back to the box
//! below is writable; one that cannot be made so is kept and counted.
//! **Access.** A slab's record and its slots' bytes outside of blocks in use: the lock of its class. Large blocks: one lock.
//! No lock here is taken while another one of this box is held; those of the OS box and the arena come after them.
//! **Degrading.** A refused guard page, and one beyond the limit, is counted and done without; a refused seed is made of clock and addresses. Without
//! memory for a quarantine blocks are reused at once. Out of memory is `None`.
//! **Why.** docs/decisions/0010-hardened-level.md

#![cfg_attr(not(any(test, miri, feature = "testing")), no_std)]

mod class;
mod context;
mod findings;
mod guards;
mod large;
mod level;
mod quarantine;
mod raw;
mod secret;
mod slab;
mod slot;
mod stats;

pub use context::HardenedContext;
pub use level::{Hardened, Limits};
pub use stats::HardenedStats;
