//! A steady number of blocks, replaced at random.

use std::hint::black_box;

use hakmem_testkit::Random;

use super::common::{Block, Slots, block, random_block, requested, touched};
use super::{Bench, Group, Live, Measured};

const G: Group = Group::Replace;

pub(super) const BENCHES: &[Bench] = &[
    G.bench("replace400", 40_000_000, "replace one of 400 blocks, 16-1024 B", |request| {
        replace(request.ops, 400, 16, 1024)
    }),
    G.bench("replace400-mid", 40_000_000, "replace one of 400 blocks, 257-768 B", |request| {
        replace(request.ops, 400, 257, 768)
    }),
    G.bench("replace400-8k-64k", 10_000_000, "replace one of 400 blocks, 8-64 KiB", |request| {
        replace(request.ops, 400, 8 << 10, 64 << 10)
    }),
    G.bench("replace8k", 20_000_000, "replace one of 8192 blocks, 16-1024 B", |request| {
        replace(request.ops, 8192, 16, 1024)
    }),
    G.bench("replace8k-mid", 20_000_000, "replace one of 8192 blocks, 257-768 B", |request| {
        replace(request.ops, 8192, 257, 768)
    }),
    G.bench("replace200k", 6_000_000, "replace one of 200 000 blocks, 16-512 B", |request| {
        replace(request.ops, 200_000, 16, 512)
    }),
    G.bench("mixed400", 30_000_000, "allocate into or free one of 400 slots, 16-1024 B", |request| {
        mixed(request.ops, 400, 16, 1024)
    }),
    G.bench("mixed400-mid", 30_000_000, "allocate into or free one of 400 slots, 257-768 B", |request| {
        mixed(request.ops, 400, 257, 768)
    }),
    G.bench("mixed400-8k-64k", 10_000_000, "allocate into or free one of 400 slots, 8-64 KiB", |request| {
        mixed(request.ops, 400, 8 << 10, 64 << 10)
    }),
    G.bench("mixed8k", 25_000_000, "allocate into or free one of 8192 slots, 16-1024 B", |request| {
        mixed(request.ops, 8192, 16, 1024)
    }),
    G.bench("mixed200k", 10_000_000, "allocate into or free one of 200 000 slots, 16-512 B", |request| {
        mixed(request.ops, 200_000, 16, 512)
    }),
    G.bench("large", 100_000, "replace one of 32 blocks, 64 KiB-2 MiB, each page touched", |request| {
        large(request.ops, 32, 16, 5)
    }),
    G.bench("large-1m-64m", 300, "replace one of 8 blocks, 1-64 MiB, each page touched", |request| {
        large(request.ops, 8, 20, 6)
    }),
    G.bench("large-untouched", 6_000, "replace one of 8 blocks, 1-64 MiB, only the first byte written", |request| {
        large_untouched(request.ops)
    }),
];

fn replace(ops: u64, slots: usize, low: usize, high: usize) -> Measured {
    let mut slots = Slots::used(slots, low, high, 2);
    Measured::timed(ops, || slots.replace(ops)).holding(Live::now(requested(slots.blocks())))
}

/// A random slot is emptied when it is full and filled when it is empty, so about half of them are full.
fn mixed(ops: u64, slots: usize, low: usize, high: usize) -> Measured {
    let mut random = Random::new(2);
    let mut places: Vec<Option<Block>> =
        (0..slots).map(|slot| (slot % 2 == 0).then(|| random_block(&mut random, low, high))).collect();
    let mut churn = |places: &mut [Option<Block>], count| {
        for _ in 0..count {
            let (slot, size) = random.slot_and_size(slots, low, high);
            if let Some(place) = places.get_mut(slot) {
                *place = if place.is_some() { None } else { Some(black_box(block(size))) };
            }
        }
    };
    churn(&mut places, 4 * slots as u64);
    let measured = Measured::timed(ops, || churn(&mut places, ops));
    measured.holding(Live::now(requested(places.iter().flatten())))
}

/// Sizes are drawn so that each of the `doublings` above `1 << shift` is as likely as any other.
fn doubling(random: &mut Random, shift: usize, doublings: usize) -> usize {
    let low = 1 << (shift + random.below(doublings));
    low + random.below(low)
}

fn large(ops: u64, slots: usize, shift: usize, doublings: usize) -> Measured {
    let mut random = Random::new(5);
    let mut blocks: Vec<Block> = (0..slots).map(|_| touched(doubling(&mut random, shift, doublings))).collect();
    let measured = Measured::timed(ops, || {
        for _ in 0..ops {
            let (slot, size) = (random.below(slots), doubling(&mut random, shift, doublings));
            blocks[slot] = black_box(touched(size));
        }
    });
    measured.holding(Live::now(requested(&blocks)))
}

fn large_untouched(ops: u64) -> Measured {
    let mut random = Random::new(5);
    let mut blocks: Vec<Block> = (0..8).map(|_| block(doubling(&mut random, 20, 6))).collect();
    Measured::timed(ops, || {
        for _ in 0..ops {
            let (slot, size) = (random.below(8), doubling(&mut random, 20, 6));
            blocks[slot] = black_box(block(size));
        }
    })
}
