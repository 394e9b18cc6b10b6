//! Everything at once: every size to 8 MiB, every kind of request, blocks that change hands, threads that come and go.
//! Every byte of every block is checked before the block is freed.
//!
//! `HAKMEM_STRESS_SECONDS` sets the length, `HAKTEST_SEED` and `HAKTEST_THREADS` the rest; the seed is printed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test may stop"
)]

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use hakmem_testkit::{Damage, Filled, Random, number_from_env};

#[global_allocator]
static GLOBAL: hakmem::Hakmem = hakmem::Hakmem;

const SHARED_SLOTS: usize = 256;
const OWN_SLOTS: usize = 64;

type Shared = [Mutex<Option<Filled>>];

#[test]
fn random_threads_free_random_blocks_of_every_size() {
    stress(number_from_env("HAKMEM_STRESS_SECONDS", 5, 60));
}

#[test]
#[ignore = "long: a minute, or HAKMEM_STRESS_SECONDS"]
fn random_threads_free_random_blocks_for_a_minute() {
    stress(number_from_env("HAKMEM_STRESS_SECONDS", 60, 60));
}

/// Hunts: a slab whose contents go although a block of it is in use, because its owner woke up or ended while its mail was sorted.
#[test]
fn slabs_that_come_back_whole_keep_what_comes_into_them_next() {
    const BLOCKS: usize = 2000;
    let end = Instant::now() + Duration::from_secs(2);
    let batches: [Mutex<Vec<Filled>>; 2] = Default::default();
    let batches = &batches;
    // Fills one batch, and releases what the other line has filled, so that most slabs come back whole, by strangers.
    let one_life = move |line: usize, seed: u64| -> Result<usize, Damage> {
        let mut random = Random::new(seed);
        let (bytes, mut released) = (16 << random.below(7), 0);
        for _ in 0..1 + random.below(20) {
            let filled = (0..BLOCKS).filter_map(|_| Filled::new(bytes, 8, random.next())).collect();
            let before = std::mem::replace(&mut *batches[line].lock().unwrap(), filled);
            let others = std::mem::take(&mut *batches[1 - line].lock().unwrap());
            released += before.len() + others.len();
            before.into_iter().chain(others).try_for_each(Filled::release)?;
            thread::sleep(Duration::from_micros(random.below(300) as u64));
        }
        Ok(released)
    };
    let released: usize = thread::scope(|scope| {
        let lines = [0, 1].map(|line| {
            scope.spawn(move || {
                let lives = (0..).take_while(|_| Instant::now() < end);
                let released = lives.map(|life| {
                    let life = thread::scope(|scope| scope.spawn(|| one_life(line, life)).join());
                    life.unwrap().unwrap_or_else(|damage| panic!("line {line}: {damage}"))
                });
                released.sum::<usize>()
            })
        });
        while Instant::now() < end {
            hakmem::collect();
        }
        lines.into_iter().map(|line| line.join().unwrap()).sum()
    });
    eprintln!("whole slabs: {released} blocks released; {:?}", hakmem::stats());
    assert!(released > 10 * BLOCKS, "only {released} blocks were released");
}

fn stress(seconds: u64) {
    let clock = Instant::now();
    let random_seed = u64::from(std::process::id()) << 20 | u64::from(clock_nanoseconds());
    let seed = number_from_env("HAKTEST_SEED", random_seed, random_seed);
    let threads = number_from_env("HAKTEST_THREADS", 4, 6).max(4);
    eprintln!("stress: HAKTEST_SEED={seed} HAKTEST_THREADS={threads} HAKMEM_STRESS_SECONDS={seconds}");

    let end = clock + Duration::from_secs(seconds);
    let shared: Vec<Mutex<Option<Filled>>> = (0..SHARED_SLOTS).map(|_| Mutex::new(None)).collect();
    let shared = shared.as_slice();
    let ops: u64 = thread::scope(|scope| {
        let lines: Vec<_> =
            (0..threads).map(|line| scope.spawn(move || line_of_threads(seed, line, shared, end))).collect();
        lines.into_iter().map(|line| line.join().unwrap()).sum()
    });
    for slot in shared {
        slot.lock().unwrap().take().map_or(Ok(()), Filled::release).unwrap();
    }
    eprintln!("stress: {ops} operations, no damage; {:?}", hakmem::stats());
    assert!(ops > 1000, "only {ops} operations: nothing was stressed");
}

fn clock_nanoseconds() -> u32 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.subsec_nanos())
}

/// Threads one after the other; each lives 20 to 200 ms and leaves blocks in the shared slots.
fn line_of_threads(seed: u64, line: u64, shared: &Shared, end: Instant) -> u64 {
    let mut ops = 0;
    for generation in 0.. {
        if Instant::now() >= end {
            break;
        }
        let seed = seed ^ line << 48 ^ generation << 24;
        let thread = thread::scope(|scope| scope.spawn(|| one_thread(seed, shared, end)).join());
        match thread.unwrap() {
            Ok(count) => ops += count,
            Err(damage) => panic!("line {line}, generation {generation}, seed {seed}: {damage}"),
        }
    }
    ops
}

fn one_thread(seed: u64, shared: &Shared, end: Instant) -> Result<u64, Damage> {
    let mut random = Random::new(seed);
    let end = end.min(Instant::now() + Duration::from_millis(20 + random.below(180) as u64));
    let mut own: Vec<Option<Filled>> = (0..OWN_SLOTS).map(|_| None).collect();
    let mut ops = 0;
    while Instant::now() < end {
        for _ in 0..32 {
            let slot = random.below(OWN_SLOTS);
            let held = own[slot].take();
            own[slot] = one_operation(&mut random, shared, held)?;
            ops += 1;
        }
    }
    own.into_iter().flatten().try_for_each(Filled::release)?;
    Ok(ops)
}

fn one_operation(random: &mut Random, shared: &Shared, held: Option<Filled>) -> Result<Option<Filled>, Damage> {
    match random.below(20) {
        // A block is replaced; half of the new ones must read as zero.
        action @ 0..=9 => {
            held.map_or(Ok(()), Filled::release)?;
            let (bytes, align, stamp) = (any_size(random), any_alignment(random), random.next());
            if action % 2 == 0 { Ok(Filled::new(bytes, align, stamp)) } else { Filled::zeroed(bytes, align, stamp) }
        }
        10..=12 if held.is_some() => held.map(|block| block.resize(any_size(random))).transpose(),
        // Growth and shrinking by a little, where a block can stay in place.
        13 if held.is_some() => held
            .map(|block| {
                let bytes = block.len() / 2 + random.below(block.len() + 1);
                block.resize(bytes)
            })
            .transpose(),
        10..=18 => Ok(std::mem::replace(&mut *shared[random.below(SHARED_SLOTS)].lock().unwrap(), held)),
        _ => held.map_or(Ok(None), |block| block.release().map(|()| None)),
    }
}

/// Sizes even on a logarithmic scale: mostly to 32 KiB, one in sixteen to 8 MiB.
fn any_size(random: &mut Random) -> usize {
    let doublings = if random.below(16) == 0 { 23 } else { 15 };
    let low = 1 << random.below(doublings);
    low + random.below(low + 1)
}

/// Mostly what Rust types need; one in eight up to a page, one in sixty-four up to 4 MiB.
fn any_alignment(random: &mut Random) -> usize {
    match random.below(64) {
        0 => 1 << random.below(23),
        1..=8 => 1 << random.below(13),
        _ => 1 << random.below(5),
    }
}
