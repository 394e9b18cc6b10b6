//! Blocks up to 32 KiB: the thread cache (HOT), its refill (WARM) and the bookkeeping of slabs (COLD).
//!
//! **Not here.** System calls, runs and big blocks, thread-local storage, policy decisions, statics.
//! **Invariants.** A block is in exactly one place: its user's hands, one thread cache, one slab free list, one outbox or
//! one remote queue. `used` of a slab counts its carved blocks that are not on its own free list, so a slab is free
//! exactly when `used == 0`. A slab with free blocks on its list stands in its bin's partial list, every other slab of
//! the heap in the full list. A slab is given back only when no block of it is out and nobody holds its token.
//! The order `drain -> bind -> acquire` is in one function: [`Front::adopt`](struct.Front.html).
//! **Access.** A heap's cells and the state of the slabs it owns: the heap's thread. Mailbox and remote heads: anybody.
//! **Why.** docs/decisions/0001-founding-measurements.md (the hybrid cache), 0003 (tokens), docs/life-of-a-block.md

#![cfg_attr(not(test), no_std)]

mod balance;
mod bin;
mod class_map;
mod cold;
mod counters;
mod front;
mod heap;
mod layout;
mod leave;
mod pace;
mod policy;
mod raw;
mod remote;
mod ring;
mod slab_state;
mod unread;
mod warm;

pub use bin::{Bin, BinCounts};
pub use class_map::{ClassMap, DynamicSet};
pub use counters::{ClassFlow, ClassReport, FrontCounters, FrontReport};
pub use front::{Front, Tables};
pub use heap::{Heap, Pop, View};
pub use leave::Beat;
pub use policy::FrontPolicy;
pub use ring::{Ring, RingEvent};
pub use slab_state::SlabState;
pub use unread::{Look, Unread};
