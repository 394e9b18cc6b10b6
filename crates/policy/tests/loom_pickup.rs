//! Policy publication and pick-up in every order of events of our own word, the generation.
//!
//! The snapshots stand in `arc-swap`, whose atomics loom does not see: in a model each of its operations is one step, as if
//! it were sequentially consistent. So these models prove the protocol around it (swap first, then the generation as a
//! maximum; readers remember the snapshot's own number), not arc-swap.

#![cfg(alloc_loom)]
#![allow(clippy::unwrap_used, reason = "test helpers outside #[test] functions: a panic is the test's failure")]

use hakmem_atomic_ops::model::{Model, thread};
use hakmem_policy::{FrozenPolicy, PolicyCell};
use std::sync::Arc;

fn numbered(blocks: u32) -> FrozenPolicy {
    FrozenPolicy { cache_blocks: blocks, cache_max_blocks: blocks, ..FrozenPolicy::DEFAULT }
}

/// What a heap has picked up: the snapshot's own generation and a number that belongs to it.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Held {
    generation: u32,
    blocks: u32,
}

/// The first step of a slow path, as the facade does it.
fn pick_up(cell: &PolicyCell, held: &mut Held) {
    if cell.generation() == held.generation {
        return;
    }
    let before = *held;
    cell.with(|policy| *held = Held { generation: policy.generation, blocks: policy.cache_blocks });
    // The same one again, if its number is not visible yet: the reader looks once more at its next chance.
    assert!(held.generation >= before.generation, "{before:?} was replaced by {held:?}");
}

fn boot() -> Held {
    Held { generation: 0, blocks: FrozenPolicy::DEFAULT.cache_blocks }
}

#[test]
fn a_reader_never_goes_back_and_ends_with_the_last_policy() {
    // Hunts: a generation that is visible before its snapshot, so that a reader remembers a policy it does not have; a
    // reader that keeps the older of two policies for good.
    Model::exhaustive().check(|| {
        let cell = Arc::new(PolicyCell::new());
        let publisher = {
            let cell = Arc::clone(&cell);
            thread::spawn(move || {
                for blocks in [10, 20] {
                    cell.publish(numbered(blocks)).unwrap();
                }
            })
        };
        let mut held = boot();
        for _ in 0..2 {
            pick_up(&cell, &mut held);
            assert!([(0, boot().blocks), (1, 10), (2, 20)].contains(&(held.generation, held.blocks)), "{held:?}");
        }
        publisher.join().unwrap();
        pick_up(&cell, &mut held);
        assert_eq!(held, Held { generation: 2, blocks: 20 });
    });
}

#[test]
fn two_publishers_leave_the_later_ones_policy_and_its_number() {
    // Hunts: the publisher that swapped first announces last: the word must not go back, or readers of the newer snapshot
    // would never look again, or look at every step.
    Model::exhaustive().check(|| {
        let cell = Arc::new(PolicyCell::new());
        let publishers: Vec<_> = [10, 20]
            .map(|blocks| {
                let cell = Arc::clone(&cell);
                thread::spawn(move || (cell.publish(numbered(blocks)).unwrap(), blocks))
            })
            .into();
        let mut held = boot();
        pick_up(&cell, &mut held);
        let published: Vec<(u32, u32)> = publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect();
        let last = published.iter().max().copied().unwrap();
        assert_eq!(last.0, 2);
        assert_eq!(cell.generation(), 2);
        pick_up(&cell, &mut held);
        assert_eq!((held.generation, held.blocks), last);
        assert_eq!(cell.generation(), held.generation, "a reader that is up to date looks again for ever");
    });
}
