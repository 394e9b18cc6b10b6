//! Cost against the size of the heap, the threads that run, the threads that ever lived, and the superslabs that are held.

use std::thread;

use hakmem_testkit::Random;

use super::common::{Block, Slots, random_block, requested};
use super::{Bench, Group, Live, Measured, Request, threads};

const G: Group = Group::Scaling;

/// Numbers of threads; time is wall time over the operations of all threads, so it falls with threads where it scales.
const THREADS: &str = "1,2,4,8,16";

pub(super) const BENCHES: &[Bench] = &[
    G.bench(
        "heap-size",
        5_000_000,
        "replace one of the blocks, 16-1024 B, that make up --live-bytes (64 MiB)",
        heap_size,
    )
    .over("live-bytes", "1M,8M,64M,512M,2G,8G"),
    G.bench(
        "superslabs",
        4_000_000,
        "one of 50 000 blocks, while 1 in 64 of --live-bytes (512 MiB) of blocks is live",
        superslabs,
    )
    .over("live-bytes", "2M,64M,512M,4G"),
    G.bench("threads-ever", 40_000_000, "replace one of 400 blocks after --threads threads have ended", threads_ever)
        .over("threads", "1,100,1000,10000"),
    G.bench(
        "threads-ever-spawn",
        3_000,
        "thread with 200 allocations after --threads threads have ended",
        threads_ever_spawn,
    )
    .over("threads", "1,100,1000,10000"),
    G.bench("replace-threads", 60_000_000, "replace one of a thread's 400 blocks, 16-1024 B", |request| {
        threads::replace(request, 400, 16, 1024)
    })
    .on(2)
    .over("threads", THREADS),
    G.bench(
        "larson-threads",
        20_000_000,
        "replace one of 1000 blocks of 16-512 B inherited from a thread that ended",
        threads::larson,
    )
    .on(2)
    .over("threads", THREADS),
    G.bench(
        "exchange-threads",
        12_000_000,
        "replace one of 4096 blocks of 16-512 B that all threads share",
        threads::exchange,
    )
    .on(2)
    .over("threads", THREADS),
    G.bench(
        "spawn-threads",
        6_000,
        "thread with 2000 allocations of 16-1024 B, one at a time from each",
        threads::spawn,
    )
    .on(2)
    .over("threads", THREADS),
];

/// The baseline draws the same slots and writes to their blocks, so that its misses are the user's own.
fn heap_size(request: &Request) -> Measured {
    const MEAN: u64 = (16 + 1024) / 2;
    let slots = request.live_bytes.unwrap_or(64 << 20) / MEAN;
    let mut slots = Slots::used(slots.max(1) as usize, 16, 1024, 21);
    let baseline = Measured::timed(request.ops, || slots.touch(request.ops));
    let measured = Measured::timed(request.ops, || slots.replace(request.ops));
    Measured { baseline: Some(baseline.time), ..measured }.holding(Live::now(requested(slots.blocks())))
}

/// Blocks that a thread leaves behind, so that its slabs stay in use without it.
const LEFT_BEHIND: usize = 4;
/// Threads that live at the same time.
const AT_ONCE: usize = 8;

/// Lets as many threads live and end as were asked for; each leaves blocks behind.
fn past_threads(request: &Request) -> Vec<Block> {
    let threads = request.threads;
    let mut left = Vec::with_capacity(threads * LEFT_BEHIND);
    for first in (0..threads).step_by(AT_ONCE) {
        thread::scope(|scope| {
            let wave = first..threads.min(first + AT_ONCE);
            let wave: Vec<_> = wave.map(|number| scope.spawn(move || life(number as u64))).collect();
            left.extend(wave.into_iter().filter_map(|thread| thread.join().ok()).flatten());
        });
    }
    left
}

fn life(seed: u64) -> Vec<Block> {
    let mut random = Random::new(seed);
    let mut blocks: Vec<Block> = (0..200).map(|_| random_block(&mut random, 16, 1024)).collect();
    blocks.truncate(LEFT_BEHIND);
    blocks
}

fn threads_ever(request: &Request) -> Measured {
    let left = past_threads(request);
    let mut slots = Slots::used(400, 16, 1024, 22);
    let measured = Measured::timed(request.ops, || slots.replace(request.ops));
    measured.holding(Live::now(requested(slots.blocks()) + requested(&left)))
}

fn threads_ever_spawn(request: &Request) -> Measured {
    let left = past_threads(request);
    let measured = Measured::timed(request.ops, || {
        for seed in 0..request.ops {
            let _blocks = thread::spawn(move || life(seed)).join();
        }
    });
    measured.holding(Live::now(requested(&left)))
}

fn superslabs(request: &Request) -> Measured {
    const BATCH: u64 = 50_000;
    const MEAN: u64 = (16 + 1024) / 2;
    let mut random = Random::new(23);
    let held = request.live_bytes.unwrap_or(512 << 20) / MEAN;
    let mut held: Vec<Block> = (0..held).map(|_| random_block(&mut random, 16, 1024)).collect();
    held.retain(|_| random.below(64) == 0);
    held.shrink_to_fit();
    let live = Live::now(requested(&held));
    let mut batch: Vec<Block> = Vec::with_capacity(BATCH as usize);
    let rounds = request.ops.div_ceil(BATCH);
    let measured = Measured::timed(rounds * BATCH, || {
        for _ in 0..rounds {
            batch.extend((0..BATCH).map(|_| random_block(&mut random, 16, 1024)));
            batch.clear();
        }
    });
    measured.holding(live)
}
