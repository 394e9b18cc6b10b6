//! Blocks freed soon after their allocation.

use std::hint::black_box;

use hakmem_testkit::Random;

use super::common::{block, sizes};
use super::{Bench, Group, Measured};

const G: Group = Group::Tiny;

pub(super) const BENCHES: &[Bench] = &[
    G.bench("tiny-hot", 100_000_000, "one of 100 blocks of 32 B, freed last in, first out", |request| {
        tiny_hot(request.ops)
    }),
    G.bench("pair16", 120_000_000, "alloc + free of 16 B", |request| pair::<2>(request.ops)),
    G.bench("pair64", 120_000_000, "alloc + free of 64 B", |request| pair::<8>(request.ops)),
    G.bench("pair1k", 120_000_000, "alloc + free of 1 KiB", |request| pair::<128>(request.ops)),
    G.bench("pair-dyn", 80_000_000, "alloc + free of 16-1024 B", |request| pair_dyn(request.ops, 16, 1024)),
    G.bench("pair-mid", 80_000_000, "alloc + free of 257-768 B", |request| pair_dyn(request.ops, 257, 768)),
    G.bench("pair-8k-64k", 20_000_000, "alloc + free of 8-64 KiB", |request| pair_dyn(request.ops, 8 << 10, 64 << 10)),
    G.bench("pair-zeroed", 30_000_000, "alloc_zeroed + free of 16-1024 B", |request| pair_zeroed(request.ops)),
];

fn tiny_hot(ops: u64) -> Measured {
    const BLOCKS: u64 = 100;
    let mut blocks: Vec<Box<[u64; 4]>> = Vec::with_capacity(BLOCKS as usize);
    let rounds = ops.div_ceil(BLOCKS);
    Measured::timed(rounds * BLOCKS, || {
        for _ in 0..rounds {
            for number in 0..BLOCKS {
                blocks.push(black_box(Box::new([number; 4])));
            }
            while let Some(last) = blocks.pop() {
                drop(black_box(last));
            }
        }
    })
}

fn pair<const WORDS: usize>(ops: u64) -> Measured {
    Measured::timed(ops, || {
        for _ in 0..ops {
            drop(black_box(Box::<[u64; WORDS]>::new_uninit()));
        }
    })
}

/// How many sizes are drawn beforehand.
const SIZES: u64 = 4096;

fn pair_dyn(ops: u64, low: usize, high: usize) -> Measured {
    let sizes = sizes(SIZES as usize, low, high, &mut Random::new(1));
    let rounds = ops.div_ceil(SIZES);
    Measured::timed(rounds * SIZES, || {
        for _ in 0..rounds {
            for &size in &sizes {
                drop(black_box(block(size as usize)));
            }
        }
    })
}

fn pair_zeroed(ops: u64) -> Measured {
    let sizes = sizes(SIZES as usize, 16, 1024, &mut Random::new(1));
    let rounds = ops.div_ceil(SIZES);
    Measured::timed(rounds * SIZES, || {
        for _ in 0..rounds {
            for &size in &sizes {
                drop(black_box(vec![0_u8; size as usize]));
            }
        }
    })
}
