//! Blocks freed by threads that do not own them, waiting for their owner.
//!
//! **Not here.** Owners, free lists, size classes, mailboxes, system calls. A push writes the link words of its own chain
//! and the queue's head, nothing else.
//! **Invariants.** A block is linked at most once; `pushed == drained + queued`, and the count in the head word is exact;
//! the count is 0 after a drain; a head always lies inside the slab (it is stored as an offset in it), unless the queue is *bare*:
//! every block of the slab has come back, and a stranger who held the token has dropped their contents, links included.
//! At most one *token* is out per slab: whoever took it (the push that found it free, or an owner that leaves) must see
//! to it that the slab is looked at, and only the one who holds it links the slab into a mailbox or published list.
//! **Access.** `word`: any thread, atomically. `link`: the token's holder. A block's link word: the pusher until its
//! compare-and-swap wins, then whoever drains, or takes them all as the token's holder.
//! **Orderings.** `push` (release) → `drain` (acquire): the last writes of the freeing threads reach the next user.
//! **Why.** docs/decisions/0003-remote-word-with-count-and-token.md

#![cfg_attr(not(test), no_std)]

mod outbox;
mod queue;

pub use outbox::Outbox;
pub use queue::{Chain, Drained, Pushed, RemoteHead, TokenReleased};
