//! Every atomic operation and lock of the workspace. No other crate spells `Ordering`.
//!
//! **Not here.** Protocols: which word means what belongs to the box that holds the word.
//! **Invariants.** The ordering of an operation stands in its name; a [`Lock`] is released by the thread that took it
//! (or by its copy in a forked child); nothing here allocates.
//! **Access.** [`Owned8`], [`Owned32`] and [`Owned64`] are written by one thread at a time and may be read by any (statistics).
//! **Models.** Under `--cfg alloc_loom` the shared words stand on loom's and `model` runs the tests in `tests/loom_*.rs`
//! of all boxes; layout and constructors stay as they are. See docs/models.md.
//! **Why.** Box 1 of the founding documents: weaker orderings do not leak out of the box that needs them.

#![cfg_attr(not(any(test, alloc_loom)), no_std)]

mod bell;
#[cfg_attr(alloc_loom, path = "model/futex.rs")]
mod futex;
mod lock;
#[cfg(alloc_loom)]
pub mod model;
pub mod probe;
mod set_once;
mod words;

pub use bell::Bell;
pub use lock::{Lock, LockGuard};
pub use set_once::SetOnce;
pub use words::{Flag, Owned8, Owned32, Owned64, Shared32, Shared64, SharedPtr, SharedUsize, spin_hint};
