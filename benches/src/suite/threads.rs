//! Several threads: blocks that stay with their thread, and blocks that another one frees.

use std::hint::black_box;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use hakmem_testkit::Random;

use super::common::{Block, Slots, block, random_block, requested};
use super::{Bench, Group, Live, Measured, Request};

const G: Group = Group::Threads;

pub(super) const BENCHES: &[Bench] = &[
    G.bench("replace-mt", 30_000_000, "replace one of a thread's 400 blocks, 16-1024 B", |request| {
        replace(request, 400, 16, 1024)
    })
    .on(2),
    G.bench("replace-mt-mid", 20_000_000, "replace one of a thread's 256 blocks, 8-32 KiB", |request| {
        replace(request, 256, 8 << 10, 32 << 10)
    })
    .on(2),
    G.bench("larson", 20_000_000, "replace one of 1000 blocks of 16-512 B inherited from a thread that ended", larson)
        .on(2),
    G.bench("producer-consumer", 6_000_000, "block of 16-512 B freed by another thread; 1:1", producer_consumer).on(2),
    G.bench("producers-consumers", 6_000_000, "block of 16-512 B freed by another thread; 2:2", producers_consumers)
        .on(4),
    G.bench("ring", 8_000_000, "replace half of a batch of 256 blocks of 16-512 B and hand it on", ring).on(4),
    G.bench("exchange", 12_000_000, "replace one of 4096 blocks of 16-512 B that all threads share", exchange).on(2),
    G.bench("spawn", 3_000, "thread with 2000 allocations of 16-1024 B; one at a time", spawn),
];

/// Runs `work` with the number of its thread on each of them at once, and returns when all have ended.
fn on_all(threads: u64, work: impl Fn(u64) + Sync) {
    thread::scope(|scope| {
        for number in 0..threads {
            let work = &work;
            scope.spawn(move || work(number));
        }
    });
}

pub(super) fn replace(request: &Request, slots: usize, low: usize, high: usize) -> Measured {
    let threads = request.threads.max(1) as u64;
    let ops = request.ops.div_ceil(threads);
    let live = Mutex::new(Vec::new());
    let measured = Measured::timed(ops * threads, || {
        on_all(threads, |number| {
            let mut slots = Slots::new(slots, low, high, number);
            slots.replace(ops);
            // Kept until the others have ended too.
            live.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(slots);
        });
    });
    let live = live.into_inner().unwrap_or_default();
    let bytes = live.iter().map(|slots| requested(slots.blocks())).sum();
    measured.holding(Live::now(bytes))
}

/// Larson's server: a thread replaces blocks for a while, starts a successor that inherits them, and ends.
pub(super) fn larson(request: &Request) -> Measured {
    const OPS_PER_THREAD: u64 = 50_000;
    fn generation(mut blocks: Vec<Block>, mut random: Random, rest: u64, ended: Sender<Vec<Block>>) {
        for _ in 0..OPS_PER_THREAD {
            let (slot, size) = random.slot_and_size(blocks.len(), 16, 512);
            if let Some(place) = blocks.get_mut(slot) {
                *place = black_box(block(size));
            }
        }
        if rest == 0 {
            let _received = ended.send(blocks);
        } else {
            thread::spawn(move || generation(blocks, random, rest - 1, ended));
        }
    }
    let chains = request.threads.max(1) as u64;
    let generations = request.ops.div_ceil(chains * OPS_PER_THREAD);
    let (ended, all) = channel();
    let mut last = Vec::new();
    let measured = Measured::timed(chains * generations * OPS_PER_THREAD, || {
        for number in 0..chains {
            let ended = ended.clone();
            thread::spawn(move || {
                let mut random = Random::new(number);
                let blocks = (0..1000).map(|_| random_block(&mut random, 16, 512)).collect();
                generation(blocks, random, generations - 1, ended);
            });
        }
        drop(ended);
        last.extend(all);
    });
    measured.holding(Live::now(requested(last.iter().flatten())))
}

/// Blocks of one hand-over.
const BATCH: usize = 256;

fn producer_consumer(request: &Request) -> Measured {
    let pairs = (request.threads as u64 / 2).max(1);
    let batches = request.ops.div_ceil(pairs * BATCH as u64);
    Measured::timed(pairs * batches * BATCH as u64, || on_all(pairs, |pair| hand_over(batches, pair)))
}

fn hand_over(batches: u64, seed: u64) {
    let (to_consumer, from_producer) = sync_channel::<Vec<Block>>(8);
    // Emptied batches go back, so that the channel's own vectors are not part of the measurement.
    let (to_producer, from_consumer) = sync_channel::<Vec<Block>>(16);
    for _ in 0..10 {
        let _room_for_all = to_producer.send(Vec::with_capacity(BATCH));
    }
    let consumer = thread::spawn(move || {
        for mut batch in from_producer {
            batch.clear();
            if to_producer.send(batch).is_err() {
                break;
            }
        }
    });
    let mut random = Random::new(seed);
    for _ in 0..batches {
        let Ok(mut batch) = from_consumer.recv() else { break };
        batch.extend((0..BATCH).map(|_| random_block(&mut random, 16, 512)));
        if to_consumer.send(batch).is_err() {
            break;
        }
    }
    drop(to_consumer);
    while from_consumer.recv().is_ok() {}
    let _ended = consumer.join();
}

/// Half of the threads allocate, the other half frees, through one queue.
fn producers_consumers(request: &Request) -> Measured {
    let each = (request.threads as u64 / 2).max(1);
    let batches = request.ops.div_ceil(each * BATCH as u64);
    Measured::timed(each * batches * BATCH as u64, || {
        let (send, receive) = sync_channel::<Vec<Block>>(8 * each as usize);
        let receive = Arc::new(Mutex::new(receive));
        thread::scope(|scope| {
            for seed in 0..each {
                let (send, receive) = (send.clone(), Arc::clone(&receive));
                scope.spawn(move || {
                    let mut random = Random::new(seed);
                    for _ in 0..batches {
                        let batch = (0..BATCH).map(|_| random_block(&mut random, 16, 512)).collect();
                        if send.send(batch).is_err() {
                            break;
                        }
                    }
                });
                scope.spawn(move || {
                    while let Some(batch) = next(&receive) {
                        drop(black_box(batch))
                    }
                });
            }
            drop(send);
        });
    })
}

/// The lock is held while waiting, so that consumers take turns.
fn next(receive: &Mutex<Receiver<Vec<Block>>>) -> Option<Vec<Block>> {
    receive.lock().ok()?.recv().ok()
}

/// Each thread frees half of the blocks of each batch that reaches it, allocates others in their place and hands it on.
fn ring(request: &Request) -> Measured {
    let threads = request.threads.max(1) as u64;
    let rounds = request.ops.div_ceil(threads * BATCH as u64 / 2);
    Measured::timed(rounds * threads * BATCH as u64 / 2, || {
        let (mut senders, receivers): (Vec<_>, Vec<_>) =
            (0..threads).map(|_| sync_channel::<Vec<Block>>(threads as usize)).unzip();
        senders.rotate_left(1);
        thread::scope(|scope| {
            for (seed, (to_next, from_last)) in senders.into_iter().zip(receivers).enumerate() {
                scope.spawn(move || pass_on(&to_next, &from_last, rounds, seed as u64));
            }
        });
    })
}

fn pass_on(to_next: &SyncSender<Vec<Block>>, from_last: &Receiver<Vec<Block>>, rounds: u64, seed: u64) {
    let mut random = Random::new(seed);
    let mut batch: Vec<Block> = (0..BATCH).map(|_| random_block(&mut random, 16, 512)).collect();
    for round in 0..rounds {
        for place in batch.iter_mut().skip(round as usize % 2).step_by(2) {
            *place = black_box(random_block(&mut random, 16, 512));
        }
        if to_next.send(batch).is_err() {
            return;
        }
        match from_last.recv() {
            Ok(next) => batch = next,
            Err(_) => return,
        }
    }
}

/// Nearly every block is freed by a thread that did not allocate it, one at a time.
pub(super) fn exchange(request: &Request) -> Measured {
    const SLOTS: usize = 4096;
    let threads = request.threads.max(1) as u64;
    let ops = request.ops.div_ceil(threads);
    let slots: Vec<Mutex<Block>> = (0..SLOTS).map(|_| Mutex::new(block(16))).collect();
    let measured = Measured::timed(ops * threads, || {
        on_all(threads, |number| {
            let mut random = Random::new(number);
            for _ in 0..ops {
                let (slot, size) = random.slot_and_size(SLOTS, 16, 512);
                let mut fresh = block(size);
                if let Ok(mut place) = slots[slot].lock() {
                    std::mem::swap(&mut *place, &mut fresh);
                }
                drop(black_box(fresh));
            }
        });
    });
    let bytes = slots.iter().map(|slot| slot.lock().map_or(0, |block| block.len() as u64)).sum();
    measured.holding(Live::now(bytes))
}

pub(super) fn spawn(request: &Request) -> Measured {
    let threads = request.threads.max(1) as u64;
    let ops = request.ops.div_ceil(threads);
    Measured::timed(ops * threads, || {
        on_all(threads, |number| {
            for seed in 0..ops {
                let worker = thread::spawn(move || {
                    let mut random = Random::new(seed + number * ops);
                    let blocks: Vec<Block> = (0..2000).map(|_| random_block(&mut random, 16, 1024)).collect();
                    drop(black_box(blocks));
                });
                let _ended = worker.join();
            }
        });
    })
}
