//! Mailboxes and published slabs against a plain note of where each slab's token is: heaps come, adopt, read mail and
//! leave, strangers free into any slab. The token is never lost and never in two places.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may stop")]

use hakmem_base::{BIN_BYTES, HEAP_RECORD_BYTES, SizeClass, SlabIndex};
use hakmem_ownership::{Acquired, BinPtr, RouteWord};
use hakmem_publish_adopt::{Mailbox, Notified, Posted, Published, SlabWords, notify};
use hakmem_remote_queue::{Chain, RemoteHead, TokenReleased};
use hakmem_testkit::cases;
use proptest::prelude::*;

const SLABS: usize = 12;
const HEAPS: usize = 3;
/// Blocks per slab; each is freed once.
const BLOCKS: usize = 16;

#[derive(Clone, Copy, Debug)]
enum Action {
    /// Anybody frees a block of the slab.
    Free {
        slab: usize,
    },
    /// The heap takes its mail, in one piece, and looks at each slab.
    ReadMail {
        heap: usize,
    },
    /// The heap adopts one published slab of a class, if there is one.
    Adopt {
        heap: usize,
        class: usize,
    },
    /// The heap's thread ends: slabs released, mailbox closed, what was in it announced again.
    Leave {
        heap: usize,
    },
    Open {
        heap: usize,
    },
    /// The heap lets one of its slabs go without ending.
    Release {
        slab: usize,
    },
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let heap = || 0..HEAPS;
    prop::collection::vec(
        prop_oneof![
            8 => (0..SLABS).prop_map(|slab| Action::Free { slab }),
            3 => heap().prop_map(|heap| Action::ReadMail { heap }),
            4 => (heap(), 0_usize..2).prop_map(|(heap, class)| Action::Adopt { heap, class }),
            1 => heap().prop_map(|heap| Action::Leave { heap }),
            2 => heap().prop_map(|heap| Action::Open { heap }),
            1 => (0..SLABS).prop_map(|slab| Action::Release { slab }),
        ],
        1..200,
    )
}

/// Where a slab's token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Token {
    Free,
    Mailbox(usize),
    Published,
}

struct World {
    memory: Vec<[u64; 8]>,
    remotes: Vec<RemoteHead>,
    routes: Vec<RouteWord>,
    mailboxes: Vec<Mailbox>,
    published: Published,
    owners: Vec<Option<usize>>,
    is_open: [bool; HEAPS],
    tokens: Vec<Token>,
    /// Published slabs by class and mail by heap, newest last.
    stacks: [Vec<usize>; 2],
    mail: [Vec<usize>; HEAPS],
    freed: Vec<usize>,
    drained: Vec<usize>,
}

fn class_of(slab: usize) -> SizeClass {
    SizeClass::for_bytes(if slab.is_multiple_of(2) { 64 } else { 48 }).unwrap()
}

fn bin(heap: usize, class: SizeClass) -> BinPtr {
    BinPtr::new(core::ptr::without_provenance_mut((heap + 1) * HEAP_RECORD_BYTES + class.index() * BIN_BYTES))
}

impl SlabWords for World {
    fn remote(&self, slab: SlabIndex) -> &RemoteHead {
        &self.remotes[slab.to_usize() - 1]
    }
    fn route_word(&self, slab: SlabIndex) -> &RouteWord {
        &self.routes[slab.to_usize() - 1]
    }
    fn mailbox_of(&self, bin: BinPtr) -> &Mailbox {
        &self.mailboxes[bin.addr() / HEAP_RECORD_BYTES - 1]
    }
}

fn index(slab: usize) -> SlabIndex {
    SlabIndex::new(slab as u32 + 1)
}

impl World {
    /// Slabs belong to the heaps in turn, all open.
    fn new() -> Self {
        let world = Self {
            memory: vec![[0; 8]; SLABS * BLOCKS],
            remotes: (0..SLABS).map(|_| RemoteHead::new()).collect(),
            routes: (0..SLABS).map(|_| RouteWord::new()).collect(),
            mailboxes: (0..HEAPS).map(|_| Mailbox::new()).collect(),
            published: Published::new(),
            owners: (0..SLABS).map(|slab| Some(slab % HEAPS)).collect(),
            is_open: [true; HEAPS],
            tokens: vec![Token::Free; SLABS],
            stacks: Default::default(),
            mail: Default::default(),
            freed: vec![0; SLABS],
            drained: vec![0; SLABS],
        };
        for slab in 0..SLABS {
            world.routes[slab].bind(bin(slab % HEAPS, class_of(slab)));
        }
        world
    }

    fn base(&mut self) -> *mut u8 {
        self.memory.as_mut_ptr().cast()
    }

    /// Delivers a token that is in the test's hands.
    fn announce(&mut self, slab: usize) {
        let notified = notify(&*self, &self.published, index(slab));
        match self.owners[slab] {
            Some(owner) => {
                assert_eq!(notified, Notified::Owner);
                self.tokens[slab] = Token::Mailbox(owner);
                self.mail[owner].push(slab);
            }
            None => {
                assert_eq!(notified, Notified::Published(class_of(slab)));
                self.tokens[slab] = Token::Published;
                self.stacks[slab % 2].push(slab);
            }
        }
    }

    /// Drains a slab and gives its token back, which is in the test's hands.
    fn settle(&mut self, slab: usize) {
        self.drain(slab);
        assert_eq!(self.remotes[slab].release_token(), TokenReleased::Released);
        self.tokens[slab] = Token::Free;
    }

    fn drain(&mut self, slab: usize) {
        let base = self.base();
        self.drained[slab] += self.remotes[slab].drain(base).count as usize;
        assert_eq!(self.drained[slab], self.freed[slab]);
    }

    /// The token first, then the route, as a leaving owner does it.
    fn release(&mut self, slab: usize) {
        let has_token = self.remotes[slab].try_take_token();
        assert_eq!(has_token, self.tokens[slab] == Token::Free);
        self.routes[slab].release(class_of(slab));
        self.owners[slab] = None;
        if has_token {
            self.announce(slab);
        }
    }

    fn step(&mut self, action: Action) {
        match action {
            Action::Free { slab } if self.freed[slab] < BLOCKS => {
                let base = self.base();
                let block = base.wrapping_add((slab * BLOCKS + self.freed[slab]) * 64);
                self.freed[slab] += 1;
                // SAFETY: every block is pushed once.
                let pushed = unsafe { self.remotes[slab].push(Chain { first: block, last: block, count: 1 }, base) };
                assert_eq!(pushed.token_taken, self.tokens[slab] == Token::Free);
                if pushed.token_taken {
                    self.announce(slab);
                }
            }
            Action::ReadMail { heap } if self.is_open[heap] => {
                assert_eq!(self.mailboxes[heap].has_mail(), !self.mail[heap].is_empty());
                let fetched: Vec<_> = self.mailboxes[heap].fetch(&*self).map(|slab| slab.to_usize() - 1).collect();
                let mut expected = std::mem::take(&mut self.mail[heap]);
                expected.reverse();
                assert_eq!(fetched, expected);
                for slab in fetched {
                    // Released since it was posted: somebody else's now.
                    if self.owners[slab] == Some(heap) { self.settle(slab) } else { self.announce(slab) }
                }
            }
            Action::Adopt { heap, class } if self.is_open[heap] => {
                let taken = self.published.take(&*self, class_of(class));
                assert_eq!(taken, self.stacks[class].pop().map(index));
                let Some(slab) = taken.map(|slab| slab.to_usize() - 1) else { return };
                self.drain(slab);
                let class = class_of(slab);
                assert_eq!(self.routes[slab].try_acquire(class, bin(heap, class)), Acquired::Won);
                self.owners[slab] = Some(heap);
                self.settle(slab);
            }
            Action::Leave { heap } if self.is_open[heap] => {
                for slab in 0..SLABS {
                    if self.owners[slab] == Some(heap) {
                        self.release(slab);
                    }
                }
                let mail: Vec<_> = self.mailboxes[heap].close(&*self).map(|slab| slab.to_usize() - 1).collect();
                let mut expected = std::mem::take(&mut self.mail[heap]);
                expected.reverse();
                assert_eq!(mail, expected);
                self.is_open[heap] = false;
                assert_eq!(self.mailboxes[heap].post(&*self, index(0)), Posted::Closed);
                for slab in mail {
                    self.announce(slab);
                }
            }
            Action::Open { heap } if !self.is_open[heap] => {
                self.mailboxes[heap].open();
                self.is_open[heap] = true;
            }
            Action::Release { slab } if self.owners[slab].is_some() => self.release(slab),
            Action::Free { .. }
            | Action::ReadMail { .. }
            | Action::Adopt { .. }
            | Action::Leave { .. }
            | Action::Open { .. }
            | Action::Release { .. } => {}
        }
    }

    fn check(&self) {
        for class in 0..2 {
            assert_eq!(self.published.count(class_of(class)) as usize, self.stacks[class].len());
        }
        for slab in 0..SLABS {
            let waiting = self.freed[slab] - self.drained[slab];
            assert_eq!(self.remotes[slab].count() as usize, waiting);
            assert_eq!(self.remotes[slab].is_quiet(), self.tokens[slab] == Token::Free);
            // Frees that wait are announced: somebody will come.
            assert!(waiting == 0 || self.tokens[slab] != Token::Free, "slab {slab} is forgotten");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(256), ..ProptestConfig::default() })]

    #[test]
    fn tokens_are_in_one_place_and_frees_that_wait_are_announced(actions in actions()) {
        let mut world = World::new();
        for action in actions {
            world.step(action);
            world.check();
        }
        // All leave; one heap finds everything.
        for heap in 0..HEAPS {
            world.step(Action::Leave { heap });
        }
        world.step(Action::Open { heap: 0 });
        for class in (0..2).cycle().take(2 * SLABS) {
            world.step(Action::Adopt { heap: 0, class });
        }
        world.check();
        prop_assert_eq!(&world.owners, &vec![Some(0); SLABS], "a slab is not to be found");
        prop_assert_eq!(&world.freed, &world.drained);
    }
}
