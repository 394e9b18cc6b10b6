//! Who may touch a slab: the route word, one per 64 KiB unit of the window, and its transitions.
//!
//! **Not here.** Lists, remote frees, memory. The remote queue never calls this box.
//! **Invariants.** A slab has at most one owner. `try_acquire` succeeds only from "orphan", for exactly one caller.
//! Only the owner releases. All units of a slab name the same class.
//! **Access.** Any thread reads a route word at any time; the owner (or whoever holds an unused unit) writes it.
//! **Orderings.** `release`/`retire` (release) → `try_acquire`/`bind` (acquire): the owner-only state of the slab travels.
//! A free that finds its own bin in the word needs no ordering: only this thread could have put it there or taken it away.
//! **Why.** docs/decisions/0002-route-word-is-the-bin.md

#![cfg_attr(not(test), no_std)]

mod route;

pub use route::{Acquired, BIG_NOTES, BinPtr, Kept, Route, RouteWord, RunWord, class_of_bin};
