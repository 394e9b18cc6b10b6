//! How a slab with remote frees finds a thread that looks at it: the owner's mailbox, or the list of published slabs.
//!
//! **Not here.** Free lists, draining, owner changes: publishing is a notification and a hint. Adoption's
//! `drain -> bind -> acquire` lives in one function of the refill (tiny-front), not here.
//! **Invariants.** A slab stands in at most one mailbox or list: only the holder of its token (see remote-queue) links
//! it, and a slab that is fetched comes with its token. A closed mailbox takes nothing. Nothing is dropped: a token is
//! always in somebody's hands, in an open mailbox, or in a published list.
//! **Access.** Everything here is shared; any thread posts and publishes, a heap's own thread fetches its mailbox, and at times somebody
//! who sorts what it leaves unread.
//! **Orderings.** `post`/`publish` (release) → `fetch`/`adopt_candidate` (acquire): the slabs' link words travel.
//! **Why.** docs/decisions/0003-remote-word-with-count-and-token.md

#![cfg_attr(not(test), no_std)]

mod mailbox;
mod published;

pub use mailbox::{Mail, Mailbox, Posted};
pub use published::Published;

use hakmem_base::{SizeClass, SlabIndex};
use hakmem_ownership::{BinPtr, Route, RouteWord};
use hakmem_remote_queue::RemoteHead;

/// Where the words of a slab are found: implemented by whoever holds the tables.
pub trait SlabWords {
    /// The remote head of a slab in use.
    fn remote(&self, slab: SlabIndex) -> &RemoteHead;
    /// The route word of a slab in use.
    fn route_word(&self, slab: SlabIndex) -> &RouteWord;
    /// The mailbox of the heap that a bin belongs to. Heap records are type-stable: the mailbox can be used, and may be
    /// closed, even when the heap's thread has ended.
    fn mailbox_of(&self, bin: BinPtr) -> &Mailbox;
}

/// Where a notification ended up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notified {
    /// In the mailbox of the slab's owner.
    Owner,
    /// In the published list of its class: nobody owns it.
    Published(SizeClass),
}

/// Delivers the token of `slab`, which the caller holds: to its owner's mailbox or to the published list.
///
/// The one place where a notification is routed. When the owner leaves at the same time its mailbox closes after its
/// slabs were released, so a refused post finds a new route on the next look.
pub fn notify<W: SlabWords>(words: &W, published: &Published, slab: SlabIndex) -> Notified {
    loop {
        match words.route_word(slab).route() {
            Route::Owned(bin) => {
                if words.mailbox_of(bin).post(words, slab) == Posted::Accepted {
                    return Notified::Owner;
                }
            }
            Route::Orphan(class) => {
                published.publish(words, class, slab);
                return Notified::Published(class);
            }
            _ => {
                hakmem_base::fatal("slab was retired while its token was out");
            }
        }
        hakmem_atomic_ops::spin_hint();
    }
}
