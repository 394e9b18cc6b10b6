//! Outboxes and remote heads against plain lists: blocks of several slabs are freed, handed over, drained, and tokens go
//! round, in any order that the protocol allows. In the end every block has come back once.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may stop")]

use std::collections::BTreeSet;

use hakmem_base::{SlabIndex, read_link};
use hakmem_remote_queue::{Chain, Outbox, RemoteHead, TokenReleased};
use hakmem_testkit::cases;
use proptest::prelude::*;

const SLABS: usize = 20;
const BLOCKS: usize = 24;
const FREERS: usize = 2;

#[derive(Clone, Copy, Debug)]
enum Action {
    /// A thread that does not own the slab frees a block of it into its outbox.
    Free {
        freer: usize,
        slab: usize,
        limit: u32,
    },
    /// A thread hands over one of the chains that it has collected.
    Flush {
        freer: usize,
    },
    Drain {
        slab: usize,
    },
    TakeToken {
        slab: usize,
    },
    ReleaseToken {
        slab: usize,
    },
    Link {
        slab: usize,
        next: usize,
    },
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let slab = || prop_oneof![0_usize..3, 0..SLABS];
    let freer = || 0..FREERS;
    prop::collection::vec(
        prop_oneof![
            8 => (freer(), slab(), 1_u32..6).prop_map(|(freer, slab, limit)| Action::Free { freer, slab, limit }),
            1 => freer().prop_map(|freer| Action::Flush { freer }),
            2 => slab().prop_map(|slab| Action::Drain { slab }),
            1 => slab().prop_map(|slab| Action::TakeToken { slab }),
            2 => slab().prop_map(|slab| Action::ReleaseToken { slab }),
            1 => (slab(), slab()).prop_map(|(slab, next)| Action::Link { slab, next }),
        ],
        1..250,
    )
}

/// What a slab's head ought to say.
#[derive(Clone, Default)]
struct Model {
    in_use: BTreeSet<usize>,
    queued: BTreeSet<usize>,
    token: bool,
    link: Option<SlabIndex>,
}

struct World {
    /// Blocks of 64 bytes, slab after slab: an imaginary superslab.
    memory: Vec<[u64; 8]>,
    heads: Vec<RemoteHead>,
    outboxes: Vec<Outbox>,
    models: Vec<Model>,
    /// Blocks in an outbox.
    collected: usize,
}

impl World {
    fn new() -> Self {
        let all = Model { in_use: (0..BLOCKS).collect(), ..Model::default() };
        Self {
            memory: vec![[0; 8]; SLABS * BLOCKS],
            heads: (0..SLABS).map(|_| RemoteHead::new()).collect(),
            outboxes: (0..FREERS).map(|_| Outbox::new()).collect(),
            models: vec![all; SLABS],
            collected: 0,
        }
    }

    fn base(&mut self) -> *mut u8 {
        self.memory.as_mut_ptr().cast()
    }

    /// Slab and number of a block.
    fn place_of(&mut self, block: *mut u8) -> (usize, usize) {
        let index = (block.addr() - self.base().addr()) / 64;
        (index / BLOCKS, index % BLOCKS)
    }

    /// The blocks of a list of `count`, each of `slab`.
    fn walk(&mut self, slab: usize, first: *mut u8, count: u32) -> Vec<*mut u8> {
        let mut blocks = Vec::new();
        let mut block = first;
        for _ in 0..count {
            assert_eq!(self.place_of(block).0, slab, "a block of another slab");
            blocks.push(block);
            // SAFETY: the test holds the list, which has this many blocks.
            block = unsafe { read_link(block) };
        }
        blocks
    }

    fn hand_over(&mut self, (slab, chain): (SlabIndex, Chain)) {
        let slab = slab.to_usize() - 1;
        let blocks = self.walk(slab, chain.first, chain.count);
        assert_eq!(blocks.last(), Some(&chain.last));
        self.collected -= blocks.len();
        let base = self.base();
        // SAFETY: the chain's blocks were freed once and are on no list.
        let pushed = unsafe { self.heads[slab].push(chain, base) };
        let places: Vec<_> = blocks.into_iter().map(|block| self.place_of(block).1).collect();
        let model = &mut self.models[slab];
        for place in places {
            assert!(model.queued.insert(place), "queued twice");
        }
        assert_eq!(pushed.count as usize, model.queued.len());
        assert_eq!(pushed.token_taken, !model.token);
        model.token = true;
    }

    fn step(&mut self, action: Action) {
        let base = self.base();
        match action {
            Action::Free { freer, slab, limit } => {
                let Some(place) = self.models[slab].in_use.pop_first() else { return };
                let block = base.wrapping_add((slab * BLOCKS + place) * 64);
                self.collected += 1;
                // SAFETY: the block was in use, and is freed once.
                let full = unsafe { self.outboxes[freer].add(SlabIndex::new(slab as u32 + 1), block, limit) };
                if let Some(chain) = full {
                    self.hand_over(chain);
                }
            }
            Action::Flush { freer } => {
                if let Some(chain) = self.outboxes[freer].take_any() {
                    self.hand_over(chain);
                }
            }
            Action::Drain { slab } => {
                let drained = self.heads[slab].drain(base);
                let blocks = self.walk(slab, drained.first, drained.count);
                let found: BTreeSet<_> = blocks.into_iter().map(|block| self.place_of(block).1).collect();
                assert_eq!(found.len(), drained.count as usize, "a block twice in one list");
                let model = &mut self.models[slab];
                assert_eq!(found, std::mem::take(&mut model.queued));
                model.in_use.extend(found);
            }
            Action::TakeToken { slab } => {
                let model = &mut self.models[slab];
                assert_eq!(self.heads[slab].try_take_token(), !std::mem::replace(&mut model.token, true));
            }
            Action::ReleaseToken { slab } => {
                let model = &mut self.models[slab];
                if !model.token {
                    return;
                }
                let is_empty = model.queued.is_empty();
                let expected = if is_empty { TokenReleased::Released } else { TokenReleased::MoreFrees };
                assert_eq!(self.heads[slab].release_token(), expected);
                model.token = !is_empty;
            }
            Action::Link { slab, next } => {
                let next = SlabIndex::from_link(next as u32);
                self.heads[slab].set_link(next);
                self.models[slab].link = next;
            }
        }
    }

    fn check(&self) {
        for (head, model) in self.heads.iter().zip(&self.models) {
            assert_eq!(head.count() as usize, model.queued.len());
            assert_eq!(head.is_quiet(), model.queued.is_empty() && !model.token);
            assert_eq!(head.link(), model.link);
        }
        assert_eq!(self.outboxes.iter().map(Outbox::block_count).sum::<u32>() as usize, self.collected);
        let held: usize = self.models.iter().map(|model| model.in_use.len() + model.queued.len()).sum();
        assert_eq!(held + self.collected, SLABS * BLOCKS, "a block is lost");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(256), ..ProptestConfig::default() })]

    #[test]
    fn every_block_comes_back_once_and_the_token_is_in_one_hand(actions in actions()) {
        let mut world = World::new();
        for action in actions {
            world.step(action);
            world.check();
        }
        for freer in 0..FREERS {
            while world.outboxes[freer].block_count() > 0 {
                world.step(Action::Flush { freer });
            }
        }
        for slab in 0..SLABS {
            world.step(Action::Drain { slab });
            // A token that is lost would keep its holder waiting for ever.
            world.check();
            world.step(Action::ReleaseToken { slab });
            prop_assert!(world.heads[slab].is_quiet());
            prop_assert_eq!(world.models[slab].in_use.len(), BLOCKS);
        }
    }
}
