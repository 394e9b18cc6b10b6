//! Many blocks allocated, then freed in some order.

use std::hint::black_box;

use hakmem_testkit::Random;

use super::common::{Block, block, requested, shuffled, sizes};
use super::{Bench, Group, Live, Measured};

/// In which order a batch is freed.
#[derive(Clone, Copy)]
enum Order {
    LastFirst,
    FirstFirst,
    Random,
}

const G: Group = Group::Batch;

pub(super) const BENCHES: &[Bench] = &[
    G.bench("batch100-lifo", 50_000_000, "one of 100 blocks of 16-512 B, last in, first out", |request| {
        batch(request.ops, 100, Order::LastFirst)
    }),
    G.bench("batch100-fifo", 50_000_000, "one of 100 blocks of 16-512 B, first in, first out", |request| {
        batch(request.ops, 100, Order::FirstFirst)
    }),
    G.bench("batch100-random", 50_000_000, "one of 100 blocks of 16-512 B, freed in random order", |request| {
        batch(request.ops, 100, Order::Random)
    }),
    G.bench("batch1000-lifo", 40_000_000, "one of 1000 blocks of 16-512 B, last in, first out", |request| {
        batch(request.ops, 1000, Order::LastFirst)
    }),
    G.bench("batch1000-fifo", 40_000_000, "one of 1000 blocks of 16-512 B, first in, first out", |request| {
        batch(request.ops, 1000, Order::FirstFirst)
    }),
    G.bench("batch1000-random", 40_000_000, "one of 1000 blocks of 16-512 B, freed in random order", |request| {
        batch(request.ops, 1000, Order::Random)
    }),
    G.bench("batch100k-lifo", 10_000_000, "one of 100 000 blocks of 16-512 B, last in, first out", |request| {
        batch(request.ops, 100_000, Order::LastFirst)
    }),
    G.bench("batch100k-fifo", 10_000_000, "one of 100 000 blocks of 16-512 B, first in, first out", |request| {
        batch(request.ops, 100_000, Order::FirstFirst)
    }),
    G.bench("batch100k-random", 6_000_000, "one of 100 000 blocks of 16-512 B, freed in random order", |request| {
        batch(request.ops, 100_000, Order::Random)
    }),
];

fn batch(ops: u64, blocks: usize, order: Order) -> Measured {
    let mut random = Random::new(3);
    let sizes = sizes(blocks, 16, 512, &mut random);
    let orders: Vec<Vec<u32>> = match order {
        Order::LastFirst => vec![(0..blocks as u32).rev().collect()],
        Order::FirstFirst => vec![(0..blocks as u32).collect()],
        // Several, so that the processor cannot learn one by heart.
        Order::Random => (0..16_384_usize.div_ceil(blocks).max(2)).map(|_| shuffled(blocks, &mut random)).collect(),
    };
    let mut places: Vec<Option<Block>> = (0..blocks).map(|_| None).collect();
    let fill = |places: &mut [Option<Block>]| {
        for (place, &size) in places.iter_mut().zip(&sizes) {
            *place = Some(block(size as usize));
        }
    };
    let rounds = ops.div_ceil(blocks as u64);
    let measured = Measured::timed(rounds * blocks as u64, || {
        for order in orders.iter().cycle().take(rounds as usize) {
            fill(&mut places);
            for &index in order {
                drop(black_box(places[index as usize].take()));
            }
        }
    });
    fill(&mut places);
    measured.holding(Live::now(requested(places.iter().flatten())))
}
