//! Patterns of kinds of programs: the four scenarios by size of their buffers, and ten by what they do.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::collections::VecDeque;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::thread;

use hakmem_testkit::Random;

use super::common::{Block, Slots, block, random_block, requested, shuffled, touched};
use super::{Bench, Group, Live, Measured, Request};

const G: Group = Group::Scenario;

pub(super) const BENCHES: &[Bench] = &[
    G.bench("json", 1_500_000, "buffer of 64 KiB, each page touched, 32 live, the oldest freed", |request| {
        buffers(request.ops, 32, &[64 << 10])
    }),
    G.bench("mir", 400_000, "buffer of 256 KiB, each page touched, 16 live, the oldest freed", |request| {
        buffers(request.ops, 16, &[256 << 10])
    }),
    G.bench("vm", 40_000, "buffer of 2 MiB, each page touched, 8 live, the oldest freed", |request| {
        buffers(request.ops, 8, &[2 << 20])
    }),
    G.bench("mixed", 300_000, "buffer of 64 KiB, 256 KiB or 2 MiB (8:4:1), each page touched, 26 live", |request| {
        // One round of the thirteen, spread as evenly as they go.
        let sizes = [16, 16, 18, 16, 16, 18, 21, 16, 16, 18, 16, 16, 18].map(|shift| 1 << shift);
        buffers(request.ops, 26, &sizes)
    }),
    G.bench(
        "multithreaded",
        16_000_000,
        "replace one of a thread's 256 blocks of 16-4096 B, 1 in 16 handed on",
        multithreaded,
    )
    .on(4),
    G.bench(
        "fragmentation",
        4_000_000,
        "one block: 50 000 small ones, half freed, 12 500 larger ones into the holes",
        |request| fragmentation(request.ops),
    ),
    G.bench(
        "long-running",
        6_000_000,
        "replace one of 20 000 blocks, the range of sizes changes 50 times",
        |request| long_running(request.ops),
    ),
    G.bench(
        "web-server",
        800_000,
        "request: 20 strings, a body of 4-16 KiB, an answer of 1-64 KiB; 64 in flight",
        |request| web_server(request.ops),
    ),
    G.bench(
        "lifetime-mix",
        20_000_000,
        "block of 16-512 B that lives for 16 (90 %), 1000 (9 %) or 100 000 others",
        |request| lifetime_mix(request.ops),
    ),
    G.bench("sequential-access", 3_000_000, "block of 16-256 B of 100 000, written four times in order", |request| {
        access(request.ops, false)
    }),
    G.bench(
        "random-access",
        1_500_000,
        "block of 16-256 B of 100 000, written four times in random order",
        |request| access(request.ops, true),
    ),
    G.bench("realloc-heavy", 2_000_000, "resize of one of 1000 vectors to 16-4096 B, 1 in 16 to 64 KiB", |request| {
        realloc_heavy(request.ops)
    }),
    G.bench(
        "zero-sized",
        10_000_000,
        "vector that is empty, gets 1-8 B, is emptied, shrunk to nothing and grown again",
        |request| zero_sized(request.ops),
    ),
    G.bench("strict-alignment", 10_000_000, "replace one of 400 blocks of 1-2048 B aligned to 16-4096 B", |request| {
        strict_alignment(request.ops)
    }),
];

fn buffers(ops: u64, live: usize, sizes: &[usize]) -> Measured {
    let mut buffers: VecDeque<Block> = VecDeque::with_capacity(live + 1);
    let measured = Measured::timed(ops, || {
        for &size in sizes.iter().cycle().take(ops as usize) {
            buffers.push_back(black_box(touched(size)));
            if buffers.len() > live {
                drop(buffers.pop_front());
            }
        }
    });
    measured.holding(Live::now(requested(&buffers)))
}

fn multithreaded(request: &Request) -> Measured {
    const OWN: u64 = 15;
    let threads = request.threads.max(1) as u64;
    let rounds = request.ops.div_ceil(threads * (OWN + 1));
    let shared: Vec<Mutex<Block>> = (0..1024).map(|_| Mutex::new(block(16))).collect();
    Measured::timed(rounds * threads * (OWN + 1), || {
        thread::scope(|scope| {
            for number in 0..threads {
                let shared = &shared;
                scope.spawn(move || {
                    let mut own = Slots::new(256, 16, 4096, number);
                    let mut random = Random::new(number);
                    for _ in 0..rounds {
                        own.replace(OWN);
                        let (slot, size) = random.slot_and_size(shared.len(), 16, 4096);
                        let mut fresh = block(size);
                        if let Ok(mut place) = shared[slot].lock() {
                            std::mem::swap(&mut *place, &mut fresh);
                        }
                        drop(black_box(fresh));
                    }
                });
            }
        });
    })
}

fn fragmentation(ops: u64) -> Measured {
    const SMALL: usize = 50_000;
    const LARGER: usize = SMALL / 4;
    let mut random = Random::new(11);
    let order = shuffled(SMALL, &mut random);
    let mut small: Vec<Option<Block>> = (0..SMALL).map(|_| None).collect();
    let mut larger: Vec<Block> = Vec::with_capacity(LARGER);
    let mut fill = |small: &mut [Option<Block>], larger: &mut Vec<Block>| {
        for place in small.iter_mut() {
            *place = Some(random_block(&mut random, 16, 256));
        }
        for &index in order.iter().take(SMALL / 2) {
            small[index as usize] = None;
        }
        larger.extend((0..LARGER).map(|_| random_block(&mut random, 257, 1024)));
    };
    let blocks = (SMALL + LARGER) as u64;
    let rounds = ops.div_ceil(blocks);
    let measured = Measured::timed(rounds * blocks, || {
        for _ in 0..rounds {
            fill(&mut small, &mut larger);
            for &index in order.iter().skip(SMALL / 2) {
                drop(black_box(small[index as usize].take()));
            }
            larger.clear();
        }
    });
    fill(&mut small, &mut larger);
    measured.holding(Live::now(requested(small.iter().flatten().chain(&larger))))
}

fn long_running(ops: u64) -> Measured {
    const SLOTS: usize = 20_000;
    const EPOCHS: u64 = 50;
    const RANGES: [(usize, usize); 5] = [(16, 64), (64, 256), (16, 1024), (256, 4096), (16, 128)];
    let mut random = Random::new(12);
    let mut blocks: Vec<Block> = (0..SLOTS).map(|_| random_block(&mut random, 16, 64)).collect();
    let each = ops.div_ceil(EPOCHS);
    let measured = Measured::timed(each * EPOCHS, || {
        for &(low, high) in RANGES.iter().cycle().take(EPOCHS as usize) {
            for _ in 0..each {
                let (slot, size) = random.slot_and_size(SLOTS, low, high);
                blocks[slot] = black_box(block(size));
            }
        }
    });
    measured.holding(Live::now(requested(&blocks)))
}

/// What a server holds for one request.
struct InFlight {
    head: Vec<Block>,
    body: Block,
    answer: Block,
}

fn web_server(ops: u64) -> Measured {
    const IN_FLIGHT: usize = 64;
    let mut random = Random::new(13);
    let mut requests: VecDeque<InFlight> = VecDeque::with_capacity(IN_FLIGHT + 1);
    let measured = Measured::timed(ops, || {
        for _ in 0..ops {
            let head = (0..20).map(|_| random_block(&mut random, 16, 256)).collect();
            let body = random_block(&mut random, 4 << 10, 16 << 10);
            let answer = random_block(&mut random, 1 << 10, 64 << 10);
            requests.push_back(black_box(InFlight { head, body, answer }));
            if requests.len() > IN_FLIGHT {
                drop(requests.pop_front());
            }
        }
    });
    let blocks = requests.iter().flat_map(|request| request.head.iter().chain([&request.body, &request.answer]));
    measured.holding(Live::now(requested(blocks)))
}

fn lifetime_mix(ops: u64) -> Measured {
    const LIVES: [usize; 3] = [16, 1000, 100_000];
    let mut random = Random::new(14);
    // The oldest of each is replaced next.
    let mut rings = LIVES.map(|len| (0, (0..len).map(|_| random_block(&mut random, 16, 512)).collect::<Vec<_>>()));
    let measured = Measured::timed(ops, || {
        for _ in 0..ops {
            let (percent, size) = random.slot_and_size(100, 16, 512);
            let (oldest, ring) = &mut rings[usize::from(percent >= 90) + usize::from(percent == 99)];
            ring[*oldest] = black_box(block(size));
            *oldest = if *oldest + 1 == ring.len() { 0 } else { *oldest + 1 };
        }
    });
    measured.holding(Live::now(rings.iter().map(|(_, ring)| requested(ring)).sum()))
}

fn access(ops: u64, in_random_order: bool) -> Measured {
    const BLOCKS: usize = 100_000;
    let mut random = Random::new(15);
    let order = if in_random_order { shuffled(BLOCKS, &mut random) } else { (0..BLOCKS as u32).collect() };
    let rounds = ops.div_ceil(BLOCKS as u64);
    let mut blocks: Vec<Option<Block>> = (0..BLOCKS).map(|_| None).collect();
    let mut fill = |blocks: &mut [Option<Block>]| {
        for place in blocks {
            *place = Some(random_block(&mut random, 16, 256));
        }
    };
    let measured = Measured::timed(rounds * BLOCKS as u64, || {
        for _ in 0..rounds {
            fill(&mut blocks);
            for pass in 0..4 {
                for &index in &order {
                    if let Some(block) = &mut blocks[index as usize] {
                        block.fill(MaybeUninit::new(pass));
                    }
                }
            }
            for &index in &order {
                drop(black_box(blocks[index as usize].take()));
            }
        }
    });
    fill(&mut blocks);
    measured.holding(Live::now(requested(blocks.iter().flatten())))
}

fn realloc_heavy(ops: u64) -> Measured {
    const VECTORS: usize = 1000;
    let mut random = Random::new(16);
    let mut vectors: Vec<Vec<u8>> = (0..VECTORS).map(|_| vec![1; 64]).collect();
    let measured = Measured::timed(ops, || {
        for number in 0..ops {
            let high = if number % 16 == 0 { 64 << 10 } else { 4 << 10 };
            let (slot, size) = random.slot_and_size(VECTORS, 16, high);
            let vector = &mut vectors[slot];
            if size > vector.len() {
                vector.reserve_exact(size - vector.len());
                vector.resize(size, 1);
            } else {
                vector.truncate(size);
                vector.shrink_to_fit();
            }
        }
    });
    measured.holding(Live::now(vectors.iter().map(|vector| vector.capacity() as u64).sum()))
}

fn zero_sized(ops: u64) -> Measured {
    Measured::timed(ops, || {
        for number in 0..ops {
            let mut bytes: Vec<u8> = Vec::with_capacity(0);
            black_box(&mut bytes).reserve_exact(1 + (number % 8) as usize);
            black_box(&mut bytes).push(1);
            bytes.clear();
            // Frees the block: a vector without capacity has none.
            black_box(&mut bytes).shrink_to_fit();
            black_box(&mut bytes).push(2);
            drop(black_box(Box::new(())));
        }
    })
}

/// A block with an alignment of its own.
struct Aligned {
    start: NonNull<u8>,
    layout: Layout,
}

impl Aligned {
    fn new(bytes: usize, alignment: usize) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.max(1), alignment).ok()?;
        // SAFETY: the layout has at least one byte.
        let start = unsafe { alloc(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        assert!(start.addr().get().is_multiple_of(alignment), "{start:?} is not aligned to {alignment}");
        // SAFETY: the block is ours and has at least one byte.
        unsafe { start.write(1) };
        Some(Self { start, layout })
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

fn strict_alignment(ops: u64) -> Measured {
    const SLOTS: usize = 400;
    let mut random = Random::new(17);
    let mut blocks: Vec<Option<Aligned>> = (0..SLOTS).map(|_| None).collect();
    let measured = Measured::timed(ops, || {
        for number in 0..ops {
            let (slot, size) = random.slot_and_size(SLOTS, 1, 2048);
            blocks[slot] = Aligned::new(size, 16 << (number % 9));
        }
    });
    measured.holding(Live::now(blocks.iter().flatten().map(|block| block.layout.size() as u64).sum()))
}
