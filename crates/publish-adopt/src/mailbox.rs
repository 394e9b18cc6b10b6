//! One heap's mailbox: a stack of its slabs that have remote frees.

use crate::SlabWords;
use hakmem_atomic_ops::{Flag, Shared32};
use hakmem_base::SlabIndex;

const EMPTY: u32 = 0;
const CLOSED: u32 = u32::MAX;

/// Stack of slabs, linked through their remote heads. Strangers push, the heap's own thread takes all at once; while it sleeps,
/// somebody else may.
///
/// All zero is open and empty. Has its own cache line, because strangers write it.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Mailbox {
    head: Shared32,
    /// Every block of a slab of the heap has come back, and nobody has sorted the mail since. A hint.
    has_whole: Flag,
}

/// Outcome of [`Mailbox::post`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Posted {
    /// The slab stands in the mailbox; the token with it.
    Accepted,
    /// The heap's thread has left. The caller keeps the token and looks at the route again.
    Closed,
}

/// Slabs taken out of a mailbox, each with its token. Iterate to the end: what is left behind is lost.
#[derive(Debug)]
#[must_use]
pub struct Mail<'a, W> {
    words: &'a W,
    next: Option<SlabIndex>,
}

impl Mailbox {
    /// An open, empty mailbox.
    #[must_use]
    pub const fn new() -> Self {
        Self { head: Shared32::new(EMPTY), has_whole: Flag::new(false) }
    }

    /// Whether something has been posted that nobody has fetched.
    #[inline]
    #[must_use]
    pub fn has_mail(&self) -> bool {
        // One compare for both: closed is the last number, empty the first.
        const { assert!(CLOSED.wrapping_add(1) == EMPTY) };
        self.head.load_relaxed().wrapping_add(1) > EMPTY + 1
    }

    /// Whether a slab of the heap has come back as a whole since the mail was last sorted.
    #[inline]
    #[must_use]
    pub fn has_whole(&self) -> bool {
        self.has_whole.is_set_relaxed()
    }

    /// Takes note of it, or forgets it before the mail is sorted.
    pub fn set_has_whole(&self, has_whole: bool) {
        if self.has_whole.is_set_relaxed() != has_whole {
            // ORDERING: a hint; release only because flags have no relaxed store.
            self.has_whole.store_release(has_whole);
        }
    }

    /// Puts `slab`, whose token the caller holds, into the mailbox.
    pub fn post<W: SlabWords>(&self, words: &W, slab: SlabIndex) -> Posted {
        // ORDERING: pairs with `close`: a poster that finds the mailbox closed sees the released routes.
        let mut head = self.head.load_acquire();
        loop {
            if head == CLOSED {
                return Posted::Closed;
            }
            words.remote(slab).set_link(SlabIndex::from_link(head));
            // ORDERING: pairs with `fetch` and `close`: the slab's link travels.
            match self.head.cas_weak_acq_rel(head, slab.get()) {
                Ok(_) => return Posted::Accepted,
                Err(found) => head = found,
            }
        }
    }

    /// Takes everything out. Called by the heap's own thread while the mailbox is open.
    #[inline]
    pub fn fetch<'a, W: SlabWords>(&self, words: &'a W) -> Mail<'a, W> {
        // ORDERING: pairs with `post`.
        let head = self.head.swap_acq_rel(EMPTY);
        hakmem_base::invariant!(head != CLOSED, "mail fetched from a closed mailbox");
        Mail { words, next: SlabIndex::from_link(head) }
    }

    /// Takes everything out of a mailbox that its heap's thread does not come to, on behalf of whoever sorts it; nothing if the
    /// thread has left. The slabs' tokens are the caller's, who posts them again.
    pub fn fetch_unread<'a, W: SlabWords>(&self, words: &'a W) -> Mail<'a, W> {
        let mut head = self.head.load_relaxed();
        while head != EMPTY && head != CLOSED {
            // ORDERING: pairs with `post`.
            match self.head.cas_weak_acq_rel(head, EMPTY) {
                Ok(_) => return Mail { words, next: SlabIndex::from_link(head) },
                Err(found) => head = found,
            }
        }
        Mail { words, next: None }
    }

    /// Takes everything out and refuses further posts. Called by the heap's thread after it has released all its slabs.
    pub fn close<'a, W: SlabWords>(&self, words: &'a W) -> Mail<'a, W> {
        // ORDERING: pairs with `post`, both ways: links come in, released routes go out.
        Mail { words, next: SlabIndex::from_link(self.head.swap_acq_rel(CLOSED)) }
    }

    /// Accepts posts again: the heap record has a new thread.
    pub fn open(&self) {
        // ORDERING: pairs with `post`: the record's new state is visible to whoever posts.
        self.head.store_release(EMPTY);
    }
}

impl<W: SlabWords> Iterator for Mail<'_, W> {
    type Item = SlabIndex;

    #[inline]
    fn next(&mut self) -> Option<SlabIndex> {
        let slab = self.next?;
        // Read before the caller gives the token back, after which the link may change.
        self.next = self.words.remote(slab).link();
        Some(slab)
    }
}
