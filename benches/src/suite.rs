//! The benchmarks. Each runs alone in a fresh process, because what ran before shapes an allocator's later speed and memory.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use hakmem_testkit::Random;

/// One benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Bench {
    /// Its name on the command line and in tables.
    pub name: &'static str,
    /// What one operation is.
    pub operation: &'static str,
    /// Operations of a run that takes a fraction of a second.
    pub ops: u64,
    run: fn(u64) -> Measured,
}

/// How long how many operations took.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Operations in the measured time; may differ a little from what was asked for.
    pub ops: u64,
    /// Wall time.
    pub time: Duration,
}

impl Measured {
    /// Nanoseconds per operation.
    #[must_use]
    pub fn ns_per_op(self) -> f64 {
        self.time.as_nanos() as f64 / self.ops.max(1) as f64
    }
}

impl Bench {
    /// Every benchmark, in the order of tables.
    pub const ALL: &'static [Self] = &[
        Self::new("pair64", "alloc + free of 64 B", 60_000_000, pair64),
        Self::new("pair-dyn", "alloc + free of 16-1024 B", 40_000_000, pair_dyn),
        Self::new("replace400", "replace one of 400 blocks, 16-1024 B", 20_000_000, |ops| replace(ops, 400, 16, 1024)),
        Self::new("replace400-mid", "replace one of 400 blocks, 257-768 B", 20_000_000, |ops| {
            replace(ops, 400, 257, 768)
        }),
        Self::new("replace8k", "replace one of 8192 blocks, 16-1024 B", 12_000_000, |ops| replace(ops, 8192, 16, 1024)),
        Self::new("replace200k", "replace one of 200 000 blocks, 16-512 B", 6_000_000, |ops| {
            replace(ops, 200_000, 16, 512)
        }),
        Self::new("batch1000", "one of 1000 blocks, 16-512 B, freed in random order", 20_000_000, batch1000),
        Self::new("vec-growth", "growth of a Vec<u8> to 256 MiB", 3, vec_growth),
        Self::new("producer-consumer", "block freed by another thread, 16-512 B", 6_000_000, producer_consumer),
        Self::new("spawn", "thread with 2000 allocations of 16-1024 B", 3_000, spawn),
        Self::new("large", "replace one of 32 blocks, 64 KiB-2 MiB, each page touched", 40_000, large),
        Self::new("list", "node of a list of 1 M nodes, built and dropped", 10_000_000, list),
        Self::new("btree", "insert into a BTreeMap of 500 k, then drop", 1_500_000, btree),
    ];

    const fn new(name: &'static str, operation: &'static str, ops: u64, run: fn(u64) -> Measured) -> Self {
        Self { name, operation, ops, run }
    }

    /// The benchmark of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|bench| bench.name == name)
    }

    /// Runs about `ops` operations.
    #[must_use]
    pub fn run(&self, ops: u64) -> Measured {
        (self.run)(ops)
    }
}

type Block = Box<[MaybeUninit<u8>]>;

/// A block of `bytes` bytes whose first byte has been written, as any real use would.
#[inline(always)]
fn block(bytes: usize) -> Block {
    let mut block = Box::new_uninit_slice(bytes);
    if let Some(first) = block.first_mut() {
        first.write(1);
    }
    block
}

fn timed(ops: u64, work: impl FnOnce()) -> Measured {
    let start = Instant::now();
    work();
    Measured { ops, time: start.elapsed() }
}

fn pair64(ops: u64) -> Measured {
    timed(ops, || {
        for _ in 0..ops {
            drop(black_box(Box::<[u64; 8]>::new_uninit()));
        }
    })
}

fn pair_dyn(ops: u64) -> Measured {
    let mut random = Random::new(1);
    let sizes: Vec<u16> = (0..4096).map(|_| 16 + random.below(1009) as u16).collect();
    let rounds = ops.div_ceil(4096);
    timed(rounds * 4096, || {
        for _ in 0..rounds {
            for &size in &sizes {
                drop(black_box(block(usize::from(size))));
            }
        }
    })
}

fn replace(ops: u64, slots: usize, low: usize, high: usize) -> Measured {
    let mut random = Random::new(2);
    let mut blocks: Vec<Block> = (0..slots).map(|_| block(low + random.below(high - low + 1))).collect();
    let mut churn = |count| {
        for _ in 0..count {
            let (slot, size) = random.slot_and_size(slots, low, high);
            if let Some(place) = blocks.get_mut(slot) {
                *place = black_box(block(size));
            }
        }
    };
    // Each slot replaced about twice: from a fresh heap's order to a used one's.
    churn(2 * slots as u64);
    timed(ops, || churn(ops))
}

fn batch1000(ops: u64) -> Measured {
    const BLOCKS: usize = 1000;
    let mut random = Random::new(3);
    let orders: Vec<Vec<usize>> = (0..16).map(|_| shuffled(BLOCKS, &mut random)).collect();
    let sizes: Vec<usize> = (0..BLOCKS).map(|_| 16 + random.below(497)).collect();
    let mut blocks: Vec<Option<Block>> = (0..BLOCKS).map(|_| None).collect();
    let rounds = ops.div_ceil(BLOCKS as u64);
    timed(rounds * BLOCKS as u64, || {
        for order in orders.iter().cycle().take(rounds as usize) {
            for (place, &size) in blocks.iter_mut().zip(&sizes) {
                *place = Some(block(size));
            }
            for &index in order {
                drop(black_box(blocks[index].take()));
            }
        }
    })
}

fn shuffled(len: usize, random: &mut Random) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    for index in (1..len).rev() {
        order.swap(index, random.below(index + 1));
    }
    order
}

fn vec_growth(ops: u64) -> Measured {
    let chunk = [7_u8; 64 << 10];
    timed(ops, || {
        for _ in 0..ops {
            let mut bytes: Vec<u8> = Vec::new();
            while bytes.len() < 256 << 20 {
                black_box(&mut bytes).extend_from_slice(&chunk);
            }
        }
    })
}

fn producer_consumer(ops: u64) -> Measured {
    const BATCH: usize = 256;
    let batches = ops.div_ceil(BATCH as u64);
    let (to_consumer, from_producer) = sync_channel::<Vec<Block>>(8);
    // Emptied batches go back, so that the channel's own vectors are not part of the measurement.
    let (to_producer, from_consumer) = sync_channel::<Vec<Block>>(16);
    for _ in 0..10 {
        let _room_for_all = to_producer.send(Vec::with_capacity(BATCH));
    }
    let mut random = Random::new(4);
    timed(batches * BATCH as u64, || {
        let consumer = thread::spawn(move || {
            for mut batch in from_producer {
                batch.clear();
                if to_producer.send(batch).is_err() {
                    break;
                }
            }
        });
        for _ in 0..batches {
            let Ok(mut batch) = from_consumer.recv() else { break };
            batch.extend((0..BATCH).map(|_| block(16 + random.below(497))));
            if to_consumer.send(batch).is_err() {
                break;
            }
        }
        drop(to_consumer);
        while from_consumer.recv().is_ok() {}
        let _ended = consumer.join();
    })
}

fn spawn(ops: u64) -> Measured {
    timed(ops, || {
        for seed in 0..ops {
            let worker = thread::spawn(move || {
                let mut random = Random::new(seed);
                let blocks: Vec<Block> = (0..2000).map(|_| block(16 + random.below(1009))).collect();
                drop(black_box(blocks));
            });
            let _ended = worker.join();
        }
    })
}

fn large(ops: u64) -> Measured {
    const SLOTS: usize = 32;
    let mut random = Random::new(5);
    let mut blocks: Vec<Block> = (0..SLOTS).map(|_| block(64 << 10)).collect();
    timed(ops, || {
        for _ in 0..ops {
            let (slot, size) = random.slot_and_size(SLOTS, 64 << 10, 2 << 20);
            let mut fresh: Block = Box::new_uninit_slice(size);
            for page in fresh.chunks_mut(4096) {
                page[0].write(1);
            }
            blocks[slot] = black_box(fresh);
        }
    })
}

struct Node {
    next: Option<Box<Node>>,
    _payload: [u64; 2],
}

fn list(ops: u64) -> Measured {
    const NODES: u64 = 1_000_000;
    let lists = ops.div_ceil(NODES);
    timed(lists * NODES, || {
        for _ in 0..lists {
            let mut head = None;
            for number in 0..NODES {
                head = Some(Box::new(Node { next: head, _payload: [number; 2] }));
            }
            let mut rest = black_box(head);
            // Node by node: the derived drop would recurse a million frames deep.
            while let Some(mut node) = rest {
                rest = node.next.take();
            }
        }
    })
}

fn btree(ops: u64) -> Measured {
    const KEYS: u64 = 500_000;
    let trees = ops.div_ceil(KEYS);
    let mut random = Random::new(6);
    timed(trees * KEYS, || {
        for _ in 0..trees {
            let mut tree = BTreeMap::new();
            for number in 0..KEYS {
                tree.insert(random.next(), number);
            }
            drop(black_box(tree));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_benchmark_is_found_by_its_name_and_runs() {
        for bench in Bench::ALL {
            assert_eq!(Bench::named(bench.name).unwrap().name, bench.name);
            if bench.ops > 10_000 {
                let measured = bench.run(1000);
                assert!(measured.ops >= 1000 && measured.ns_per_op() > 0.0, "{}", bench.name);
            }
        }
    }

    #[test]
    fn a_shuffled_order_holds_each_index_once() {
        let mut order = shuffled(100, &mut Random::new(9));
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
