//! The box through its public face: tokens are neither lost nor doubled, whoever leaves or arrives.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test helpers outside #[test] functions: a panic is the test's failure"
)]

use hakmem_atomic_ops::SharedPtr;
use hakmem_base::{BIN_BYTES, HEAP_RECORD_BYTES, SizeClass, SlabIndex};
use hakmem_ownership::{Acquired, BinPtr, Route, RouteWord};
use hakmem_publish_adopt::{Mailbox, Notified, Posted, Published, SlabWords, notify};
use hakmem_remote_queue::{Chain, RemoteHead, TokenReleased};

const SLABS: usize = 33;
const HEAPS: usize = 4;

struct Words {
    remotes: Vec<RemoteHead>,
    routes: Vec<RouteWord>,
    mailboxes: Vec<Mailbox>,
}

impl Words {
    fn new() -> Self {
        Self {
            remotes: (0..SLABS).map(|_| RemoteHead::new()).collect(),
            routes: (0..SLABS).map(|_| RouteWord::new()).collect(),
            mailboxes: (0..HEAPS).map(|_| Mailbox::new()).collect(),
        }
    }
}

fn class() -> SizeClass {
    SizeClass::for_bytes(64).unwrap()
}

fn bin(heap: usize) -> BinPtr {
    BinPtr::new(core::ptr::without_provenance_mut((heap + 1) * HEAP_RECORD_BYTES + class().index() * BIN_BYTES))
}

impl SlabWords for Words {
    fn remote(&self, slab: SlabIndex) -> &RemoteHead {
        &self.remotes[slab.to_usize()]
    }
    fn route_word(&self, slab: SlabIndex) -> &RouteWord {
        &self.routes[slab.to_usize()]
    }
    fn mailbox_of(&self, bin: BinPtr) -> &Mailbox {
        &self.mailboxes[bin.addr() / HEAP_RECORD_BYTES - 1]
    }
}

#[test]
fn a_posted_slab_is_fetched_once_newest_first() {
    let words = Words::new();
    for index in [1, 2, 3] {
        assert_eq!(words.mailboxes[0].post(&words, SlabIndex::new(index)), Posted::Accepted);
    }
    let fetched: Vec<u32> = words.mailboxes[0].fetch(&words).map(SlabIndex::get).collect();
    assert_eq!(fetched, [3, 2, 1]);
    assert!(!words.mailboxes[0].has_mail());
    assert_eq!(words.mailboxes[0].fetch(&words).count(), 0);
}

#[test]
fn a_closed_mailbox_refuses_until_it_is_opened() {
    let words = Words::new();
    let mailbox = &words.mailboxes[0];
    assert_eq!(mailbox.post(&words, SlabIndex::new(1)), Posted::Accepted);
    assert_eq!(mailbox.close(&words).count(), 1);
    assert_eq!(mailbox.post(&words, SlabIndex::new(2)), Posted::Closed);
    mailbox.open();
    assert_eq!(mailbox.post(&words, SlabIndex::new(2)), Posted::Accepted);
}

#[test]
fn unread_mail_is_fetched_once_and_a_closed_mailbox_stays_closed() {
    let words = Words::new();
    let mailbox = &words.mailboxes[0];
    assert_eq!(mailbox.fetch_unread(&words).count(), 0);
    for index in [1, 2] {
        assert_eq!(mailbox.post(&words, SlabIndex::new(index)), Posted::Accepted);
    }
    assert!(mailbox.has_mail());
    assert_eq!(mailbox.fetch_unread(&words).map(SlabIndex::get).collect::<Vec<_>>(), [2, 1]);
    assert!(!mailbox.has_mail());
    assert_eq!(mailbox.fetch_unread(&words).count(), 0);
    assert_eq!(mailbox.post(&words, SlabIndex::new(3)), Posted::Accepted, "it is still open");
    assert_eq!(mailbox.close(&words).count(), 1);
    assert!(!mailbox.has_mail(), "closed is not full");
    assert_eq!(mailbox.fetch_unread(&words).count(), 0);
    assert_eq!(mailbox.post(&words, SlabIndex::new(4)), Posted::Closed);
}

#[test]
fn a_note_of_a_whole_slab_stands_until_it_is_forgotten() {
    let mailbox = Mailbox::new();
    assert!(!mailbox.has_whole());
    for has_whole in [true, true, false, false, true] {
        mailbox.set_has_whole(has_whole);
        assert_eq!(mailbox.has_whole(), has_whole);
    }
}

#[test]
fn an_orphan_is_published_and_an_owned_slab_is_posted() {
    let words = Words::new();
    let published = Published::new();
    let (orphan, owned) = (SlabIndex::new(1), SlabIndex::new(2));
    words.routes[1].release(class());
    words.routes[2].bind(bin(2));
    assert_eq!(notify(&words, &published, orphan), Notified::Published(class()));
    assert_eq!(notify(&words, &published, owned), Notified::Owner);
    assert_eq!(published.count(class()), 1);
    assert_eq!(published.take(&words, class()), Some(orphan));
    assert_eq!(published.take(&words, class()), None);
    assert_eq!(words.mailboxes[2].fetch(&words).collect::<Vec<_>>(), [owned]);
}

#[test]
fn tokens_survive_owners_that_leave_while_strangers_push() {
    // Hunts: a push that finds the old owner's route while that owner releases its slabs and closes its mailbox.
    // Every pushed block must be drained in the end, by owners, adopters or the final sweep.
    const ROUNDS: usize = if cfg!(miri) { 3 } else { 300 };
    const BLOCKS: usize = 48;
    for _ in 0..ROUNDS {
        let words = Words::new();
        let published = Published::new();
        let slab = SlabIndex::new(5);
        let mut memory = vec![[0_u64; 8]; BLOCKS];
        let base = SharedPtr::new(memory.as_mut_ptr().cast::<u8>());
        words.routes[5].bind(bin(0));
        let drained: u32 = std::thread::scope(|scope| {
            let (words, published, base) = (&words, &published, &base);
            let pushers: Vec<_> = (0..2)
                .map(|half| {
                    scope.spawn(move || {
                        let base = base.load_relaxed();
                        for index in (half * BLOCKS / 2)..((half + 1) * BLOCKS / 2) {
                            let block = base.wrapping_add(index * 64);
                            let chain = Chain { first: block, last: block, count: 1 };
                            // SAFETY: every block is pushed once.
                            let pushed = unsafe { words.remotes[5].push(chain, base) };
                            if pushed.token_taken {
                                notify(words, published, slab);
                            }
                        }
                    })
                })
                .collect();
            let base = base.load_relaxed();
            // Owner 0 reads its mail, leaves; owner 1 adopts, reads its mail, leaves; and so on.
            let mut drained = 0;
            for heap in 0..HEAPS {
                if heap > 0 {
                    let mut tries = 0;
                    let taken = loop {
                        match published.take(words, class()) {
                            Some(taken) => break Some(taken),
                            None if tries == 2000 => break None,
                            None => tries += 1,
                        }
                    };
                    let Some(taken) = taken else { break };
                    assert_eq!(taken, slab);
                    drained += words.remotes[5].drain(base).count;
                    assert_eq!(words.routes[5].try_acquire(class(), bin(heap)), Acquired::Won);
                    while words.remotes[5].release_token() == TokenReleased::MoreFrees {
                        drained += words.remotes[5].drain(base).count;
                    }
                }
                for mailed in words.mailboxes[heap].fetch(words) {
                    assert_eq!(mailed, slab);
                    loop {
                        drained += words.remotes[5].drain(base).count;
                        if words.remotes[5].release_token() == TokenReleased::Released {
                            break;
                        }
                    }
                }
                words.routes[5].release(class());
                if words.remotes[5].try_take_token() {
                    notify(words, published, slab);
                }
                for mailed in words.mailboxes[heap].close(words) {
                    notify(words, published, mailed);
                }
            }
            for pusher in pushers {
                pusher.join().unwrap();
            }
            drained
        });
        assert!(matches!(words.routes[5].route(), Route::Orphan(_)));
        assert_eq!(published.take(&words, class()), Some(slab), "the slab and its token must be findable");
        let rest = words.remotes[5].drain(base.load_relaxed()).count;
        assert_eq!(drained + rest, BLOCKS as u32);
    }
}
