//! Mailboxes, published slabs and the notification between them in every order of events.
//!
//! The race "an owner leaves while a stranger pushes" is here with the smallest owner there can be: one slab, its token,
//! its route, a mailbox (docs/decisions/0003). The same race with the real owner is in tiny-front.

#![cfg(alloc_loom)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test helpers outside #[test] functions: a panic is the test's failure"
)]

use hakmem_atomic_ops::model::{Model, reads, thread, writes};
use hakmem_base::{BIN_BYTES, HEAP_RECORD_BYTES, SizeClass, SlabIndex, read_link};
use hakmem_ownership::{Acquired, BinPtr, Route, RouteWord};
use hakmem_publish_adopt::{Mailbox, Notified, Posted, Published, SlabWords, notify};
use hakmem_remote_queue::{Chain, RemoteHead, TokenReleased};
use std::sync::Arc;

const SLABS: usize = 4;
const HEAPS: usize = 2;
const BLOCKS: usize = 4;

/// The shared words of a few slabs and heaps, and the blocks of slab 1.
struct World {
    remotes: [RemoteHead; SLABS],
    routes: [RouteWord; SLABS],
    mailboxes: [Mailbox; HEAPS],
    published: Published,
    /// Touched through probes only: each slab's plain state, the owner's or the token holder's.
    states: [u8; SLABS],
    /// Touched through probes only: what a heap's thread prepares before it opens its mailbox.
    records: [u8; HEAPS],
    memory: *mut [u64; 8],
}

// SAFETY: the blocks are handed from thread to thread by the boxes, which is what the models check.
unsafe impl Send for World {}
// SAFETY: as above.
unsafe impl Sync for World {}

impl SlabWords for World {
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

fn class() -> SizeClass {
    SizeClass::from_index(5).unwrap()
}

fn bin(heap: usize) -> BinPtr {
    BinPtr::new(core::ptr::without_provenance_mut((heap + 1) * HEAP_RECORD_BYTES + 5 * BIN_BYTES))
}

fn slab(index: u32) -> SlabIndex {
    SlabIndex::new(index)
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            remotes: Default::default(),
            routes: Default::default(),
            mailboxes: Default::default(),
            published: Published::new(),
            states: [0; SLABS],
            records: [0; HEAPS],
            memory: Box::leak(Box::new([[0_u64; 8]; BLOCKS])).as_mut_ptr(),
        })
    }

    fn touch(&self, slab: SlabIndex) {
        writes(&raw const self.states[slab.to_usize()]);
    }

    /// A user's last write to block `index` of slab 1, and its free by a stranger.
    fn free(&self, index: usize) {
        let block: *mut u8 = self.memory.wrapping_add(index).cast();
        writes(block);
        let chain = Chain { first: block, last: block, count: 1 };
        // SAFETY: the models free each block once.
        let pushed = unsafe { self.remotes[1].push(chain, self.memory.cast()) };
        if pushed.token_taken {
            notify(self, &self.published, slab(1));
        }
    }

    /// Drains slab 1, as its owner or as the holder of an orphan's token. Returns the blocks found.
    fn drain(&self) -> u32 {
        self.touch(slab(1));
        let drained = self.remotes[1].drain(self.memory.cast());
        let mut block = drained.first;
        for _ in 0..drained.count {
            writes(block);
            // SAFETY: drained blocks belong to this thread.
            block = unsafe { read_link(block) };
        }
        drained.count
    }

    /// The owner reads its mail.
    fn read_mail(&self, heap: usize) -> u32 {
        let mut drained = 0;
        for slab in self.mailboxes[heap].fetch(self) {
            assert!(self.routes[slab.to_usize()].is_mine(bin(heap)), "mail for somebody else");
            loop {
                drained += self.drain();
                if self.remotes[slab.to_usize()].release_token() == TokenReleased::Released {
                    break;
                }
            }
        }
        drained
    }

    /// The owner of slab 1 leaves: token, then route, then mailbox, as `release_slab` and `leave` of tiny-front do.
    fn leave(&self, heap: usize, offers: bool) {
        self.touch(slab(1));
        let is_held = self.remotes[1].try_take_token();
        self.routes[1].release(class());
        if is_held && (offers || self.remotes[1].release_token() == TokenReleased::MoreFrees) {
            notify(self, &self.published, slab(1));
        }
        for slab in self.mailboxes[heap].close(self) {
            notify(self, &self.published, slab);
        }
    }

    /// Adopts slab 1 if it is published, drain -> bind -> acquire, and gives the token back. Returns the blocks found.
    fn adopt(&self, heap: usize) -> Option<u32> {
        let slab = self.published.take(self, class())?;
        let mut drained = self.drain();
        assert_eq!(self.routes[1].try_acquire(class(), bin(heap)), Acquired::Won, "an orphan with two adopters");
        self.touch(slab);
        while self.remotes[1].release_token() == TokenReleased::MoreFrees {
            drained += self.drain();
        }
        Some(drained)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // SAFETY: leaked by `new`, and no thread of the model has it any more.
        drop(unsafe { Box::from_raw(self.memory.cast::<[[u64; 8]; BLOCKS]>()) });
    }
}

#[test]
fn a_slab_that_is_posted_is_fetched_once_with_what_its_poster_did() {
    // Hunts: two posters between the reader's fetches; a fetched slab without its link, so that the one below is lost.
    Model::preemptions(2, 4).check(|| {
        let world = World::new();
        let posters: Vec<_> = (1..=2)
            .map(|index| {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    world.touch(slab(index));
                    assert_eq!(world.mailboxes[0].post(&*world, slab(index)), Posted::Accepted);
                })
            })
            .collect();
        let mut seen = Vec::new();
        for slab in world.mailboxes[0].fetch(&*world) {
            world.touch(slab);
            seen.push(slab.get());
        }
        for poster in posters {
            poster.join().unwrap();
        }
        seen.extend(world.mailboxes[0].fetch(&*world).map(SlabIndex::get));
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
    });
}

#[test]
fn mail_that_somebody_else_fetches_is_fetched_once_with_what_its_poster_did() {
    // Hunts: a sorter that fetches what the owner is fetching, or a slab without the link to the one below; mail that is lost or
    // refused for ever because the owner closes its mailbox meanwhile.
    Model::preemptions(2, 4).check(|| {
        let world = World::new();
        let poster = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                for index in 1..=2 {
                    world.touch(slab(index));
                    assert_eq!(world.mailboxes[0].post(&*world, slab(index)), Posted::Accepted);
                }
            })
        };
        let fetch = |world: &World| -> Vec<u32> {
            let mail = world.mailboxes[0].fetch_unread(world);
            mail.inspect(|slab| world.touch(*slab)).map(SlabIndex::get).collect()
        };
        let sorter = {
            let world = Arc::clone(&world);
            thread::spawn(move || fetch(&world))
        };
        let mut seen: Vec<u32> =
            world.mailboxes[0].fetch(&*world).inspect(|slab| world.touch(*slab)).map(SlabIndex::get).collect();
        poster.join().unwrap();
        seen.extend(sorter.join().unwrap());
        seen.extend(world.mailboxes[0].close(&*world).map(SlabIndex::get));
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
        assert!(fetch(&world).is_empty(), "mail from a closed mailbox");
    });
}

#[test]
fn a_refused_poster_sees_the_released_route() {
    // Hunts: a poster that finds the mailbox closed, looks at the route again, and still finds the owner that has left:
    // it would post for ever.
    Model::exhaustive().check(|| {
        let world = World::new();
        world.routes[1].bind(bin(0));
        let owner = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.touch(slab(1));
                world.routes[1].release(class());
                world.mailboxes[0].close(&*world).count()
            })
        };
        let posted = world.mailboxes[0].post(&*world, slab(1)) == Posted::Accepted;
        if !posted {
            assert_eq!(world.routes[1].route(), Route::Orphan(class()));
            world.touch(slab(1));
        }
        assert_eq!(owner.join().unwrap(), usize::from(posted), "mail that nobody takes, or that was refused and taken");
    });
}

#[test]
fn a_slab_that_was_refused_after_another_attempt_is_refused_with_the_routes_too() {
    // Hunts: the same as above where the poster's first exchange fails because the mailbox has closed under it: it learns of
    // the closing from the failed exchange and not from its first look.
    Model::exhaustive().check(|| {
        let world = World::new();
        world.routes[1].bind(bin(0));
        world.routes[2].bind(bin(0));
        let owner = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                for slab in world.mailboxes[0].fetch(&*world) {
                    world.touch(slab);
                }
                world.routes[1].release(class());
                world.touch(slab(1));
                world.mailboxes[0].close(&*world).count()
            })
        };
        world.touch(slab(2));
        let first = world.mailboxes[0].post(&*world, slab(2));
        if first == Posted::Closed {
            assert_eq!(world.routes[1].route(), Route::Orphan(class()));
            world.touch(slab(1));
        }
        owner.join().unwrap();
    });
}

#[test]
fn whoever_posts_to_a_reopened_mailbox_sees_the_records_new_state() {
    // Hunts: a poster that finds the mailbox open before it can see what the record's new thread prepared.
    Model::exhaustive().check(|| {
        let world = World::new();
        assert_eq!(world.mailboxes[0].close(&*world).count(), 0);
        let newcomer = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                writes(&raw const world.records[0]);
                world.mailboxes[0].open();
            })
        };
        if world.mailboxes[0].post(&*world, slab(1)) == Posted::Accepted {
            reads(&raw const world.records[0]);
        }
        newcomer.join().unwrap();
    });
}

#[test]
fn a_published_slab_is_taken_once_with_what_its_publisher_did() {
    // Hunts: two takers of one slab; a taker that reads a link which the publisher has not written yet; a taker without
    // the publisher's last writes.
    Model::preemptions(3, 4).check(|| {
        let world = World::new();
        let publisher = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                for index in 1..=2 {
                    world.touch(slab(index));
                    world.published.publish(&*world, class(), slab(index));
                }
            })
        };
        let take = |world: &World| {
            let taken = world.published.take(world, class());
            if let Some(slab) = taken {
                world.touch(slab);
            }
            taken.map(SlabIndex::get)
        };
        let taker = {
            let world = Arc::clone(&world);
            thread::spawn(move || take(&world))
        };
        let mut seen = vec![take(&world)];
        publisher.join().unwrap();
        seen.push(taker.join().unwrap());
        seen.extend([take(&world), take(&world)]);
        let mut seen: Vec<u32> = seen.into_iter().flatten().collect();
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
        assert_eq!(world.published.take(&*world, class()), None);
    });
}

#[test]
fn a_pop_that_was_overtaken_by_a_pop_and_a_push_of_the_same_slab_fails() {
    // Hunts: ABA. A taker has read slab 2 and the link behind it (slab 1); another one takes both and puts slab 2 back;
    // the first one's exchange must not bring slab 1 back to the list's top.
    Model::preemptions(3, 4).check(|| {
        let world = World::new();
        for index in 1..=2 {
            world.published.publish(&*world, class(), slab(index));
        }
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let taken = [(); 2].map(|()| world.published.take(&*world, class()));
                if let [Some(first), Some(_)] = taken {
                    world.published.publish(&*world, class(), first);
                }
                taken
            })
        };
        let mine = world.published.take(&*world, class());
        let theirs = other.join().unwrap();
        let mut held: Vec<SlabIndex> = mine.into_iter().collect();
        held.extend(if let [Some(_), Some(second)] = theirs {
            vec![second]
        } else {
            theirs.into_iter().flatten().collect()
        });
        while let Some(slab) = world.published.take(&*world, class()) {
            held.push(slab);
        }
        let mut held: Vec<u32> = held.into_iter().map(SlabIndex::get).collect();
        held.sort_unstable();
        assert_eq!(held, [1, 2], "a slab is in two hands or in none");
    });
}

#[test]
fn an_owner_that_leaves_loses_no_block_of_a_stranger() {
    // Hunts: the stranger's push and notification at every point of the owner's leaving. Afterwards every block must be
    // reachable: in a published slab whose token is out, or nowhere.
    for offers in [false, true] {
        Model::preemptions(2, 4).check(move || {
            let world = World::new();
            world.touch(slab(1));
            world.routes[1].bind(bin(0));
            let strangers: Vec<_> = (0..2)
                .map(|index| {
                    let world = Arc::clone(&world);
                    thread::spawn(move || world.free(index))
                })
                .collect();
            let mut drained = world.read_mail(0);
            world.leave(0, offers);
            for stranger in strangers {
                stranger.join().unwrap();
            }
            if drained < 2 || offers {
                drained += world.adopt(1).unwrap();
            }
            assert_eq!(drained, 2, "a free was lost");
            assert_eq!(world.published.take(&*world, class()), None, "published twice");
        });
    }
}

#[test]
fn an_adopter_takes_a_slab_over_while_its_owner_is_still_leaving() {
    // Hunts: the adopter sees the published slab before the leaver has closed its mailbox, while a stranger's notification
    // is under way to that mailbox; the token's holders follow each other without seeing each other's writes.
    Model::preemptions(2, 3).check(|| {
        let world = World::new();
        world.touch(slab(1));
        world.routes[1].bind(bin(0));
        let stranger = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.free(0))
        };
        let adopter = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let adopted = world.adopt(1);
                (adopted.is_some(), adopted.unwrap_or(0) + if adopted.is_some() { world.read_mail(1) } else { 0 })
            })
        };
        world.leave(0, true);
        stranger.join().unwrap();
        let (adopted, mut drained) = adopter.join().unwrap();
        if adopted {
            drained += world.read_mail(1);
        } else {
            drained += world.adopt(1).unwrap();
        }
        assert_eq!(drained, 1, "a free was lost");
        assert!(world.remotes[1].is_quiet());
    });
}

#[test]
fn a_notification_goes_to_exactly_one_place() {
    // Hunts: a token that is delivered to a mailbox which closes in that moment and to the list as well, or to neither.
    Model::exhaustive().check(|| {
        let world = World::new();
        world.routes[1].bind(bin(0));
        assert!(world.remotes[1].try_take_token());
        let owner = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.routes[1].release(class());
                let mail: Vec<_> = world.mailboxes[0].close(&*world).collect();
                mail.len()
            })
        };
        let notified = notify(&*world, &world.published, slab(1));
        let in_mail = owner.join().unwrap();
        let in_list = usize::from(world.published.take(&*world, class()).is_some());
        let expected = if notified == Notified::Owner { (1, 0) } else { (0, 1) };
        assert_eq!((in_mail, in_list), expected);
    });
}
