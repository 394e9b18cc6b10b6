//! Blocks that grow.

use std::hint::black_box;

use hakmem_testkit::Random;

use super::{Bench, Group, Measured};

const G: Group = Group::Growth;

pub(super) const BENCHES: &[Bench] = &[
    G.bench("vec-growth", 3, "growth of a Vec<u8> to 256 MiB by doubling", |request| vec_growth(request.ops)),
    G.bench("realloc-steps", 6_000, "growth of a Vec<u8> from 1 to 64 KiB in exact steps of 64 B", |request| {
        exact_steps(request.ops, 1 << 10, 64 << 10, 64)
    }),
    G.bench("realloc-large", 12, "growth of a Vec<u8> from 1 to 32 MiB in exact steps of 256 KiB, filled", |request| {
        exact_steps(request.ops, 1 << 20, 32 << 20, 256 << 10)
    }),
    G.bench(
        "vecs-interleaved",
        30_000_000,
        "push of a u64 to a random one of 1000 vectors, up to 4 KiB each",
        |request| interleaved(request.ops),
    ),
    G.bench("shrink", 5_000_000, "Vec<u8> of 1-8 KiB filled by a quarter and shrunk to fit, 64 live", |request| {
        shrink(request.ops)
    }),
];

fn vec_growth(ops: u64) -> Measured {
    let chunk = [7_u8; 64 << 10];
    Measured::timed(ops, || {
        for _ in 0..ops {
            let mut bytes: Vec<u8> = Vec::new();
            while bytes.len() < 256 << 20 {
                black_box(&mut bytes).extend_from_slice(&chunk);
            }
        }
    })
}

fn exact_steps(ops: u64, from: usize, to: usize, step: usize) -> Measured {
    Measured::timed(ops, || {
        for _ in 0..ops {
            let mut bytes = vec![1_u8; from];
            while bytes.len() < to {
                bytes.reserve_exact(step);
                let len = bytes.len() + step;
                black_box(&mut bytes).resize(len, 1);
            }
        }
    })
}

fn interleaved(ops: u64) -> Measured {
    const VECTORS: usize = 1000;
    let mut random = Random::new(7);
    let mut vectors: Vec<Vec<u64>> = (0..VECTORS).map(|_| Vec::new()).collect();
    Measured::timed(ops, || {
        for number in 0..ops {
            let vector = &mut vectors[random.below(VECTORS)];
            if vector.len() == 512 {
                *vector = Vec::new();
            }
            vector.push(number);
        }
    })
}

fn shrink(ops: u64) -> Measured {
    const LIVE: usize = 64;
    let mut random = Random::new(8);
    let mut vectors: Vec<Vec<u8>> = (0..LIVE).map(|_| Vec::new()).collect();
    Measured::timed(ops, || {
        for _ in 0..ops {
            let (slot, size) = random.slot_and_size(LIVE, 1 << 10, 8 << 10);
            let mut vector = Vec::with_capacity(size);
            vector.resize(size / 4, 1_u8);
            vector.shrink_to_fit();
            vectors[slot] = black_box(vector);
        }
    })
}
