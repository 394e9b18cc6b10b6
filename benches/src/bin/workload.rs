//! A mixed multi-threaded workload: local churn of small, mid and large blocks, blocks that wander between threads,
//! growing vectors, threads that come and go. A line of every page of every block carries a pattern, checked at its free.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is this program's job")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use hakmem_benches::{ALLOCATOR, ALLOCATOR_NAME, Allocator};
use hakmem_testkit::{Blocks, Filled, Random, peak_rss_kib};

#[global_allocator]
static GLOBAL: Allocator = ALLOCATOR;

/// Slots through which blocks wander, per shelf.
const SHELF_SLOTS: usize = 256;
/// Shelves, each behind its own lock, so that the locks are seldom contended.
const SHELVES: usize = 16;
/// How long one thread lives before another takes its place.
const LIFE: Duration = Duration::from_millis(300);

type Shelf = Mutex<Blocks>;

fn main() -> ExitCode {
    let Some((seconds, threads)) = options() else {
        eprintln!("usage: workload [--seconds N] [--threads N]");
        return ExitCode::from(2);
    };
    let shelves: Vec<Shelf> = (0..SHELVES).map(|seed| Mutex::new(Blocks::light(SHELF_SLOTS, seed as u64))).collect();
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(seconds);
    let shared = &shelves;
    let result: Result<u64, String> = thread::scope(|scope| {
        let lines: Vec<_> = (0..threads).map(|line| scope.spawn(move || line_of_threads(line, shared, end))).collect();
        lines.into_iter().map(|line| line.join().unwrap_or_else(|_| Err("a thread panicked".into()))).sum()
    });
    let elapsed = start.elapsed().as_secs_f64();
    let emptied = shelves.iter().try_for_each(|shelf| shelf.lock().map_err(|error| error.to_string())?.release());
    match result.and_then(|ops| emptied.map(|()| ops)) {
        Ok(ops) => {
            println!(
                "allocator={ALLOCATOR_NAME} threads={threads} ops_per_s={:.0} peak_rss_kib={}",
                ops as f64 / elapsed,
                peak_rss_kib()
            );
            #[cfg(feature = "hakmem")]
            if ALLOCATOR_NAME == "hakmem" {
                println!("{:#?}", hakmem::stats());
            }
            ExitCode::SUCCESS
        }
        Err(damage) => {
            eprintln!("workload: {damage}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Option<(f64, u64)> {
    let (mut seconds, mut threads) = (5.0, 4);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next()?;
        match name.as_str() {
            "--seconds" => seconds = value.parse().ok().filter(|seconds| (0.0..1e6).contains(seconds))?,
            "--threads" => threads = value.parse().ok().filter(|&threads| threads > 0)?,
            _ => return None,
        }
    }
    Some((seconds, threads))
}

/// Short-lived threads, one after the other, until `end`. Returns the number of allocations.
fn line_of_threads(line: u64, shelves: &[Shelf], end: Instant) -> Result<u64, String> {
    let mut ops = 0;
    let mut generation = 0;
    while Instant::now() < end {
        generation += 1;
        let life = end.min(Instant::now() + LIFE);
        let worked = thread::scope(|scope| scope.spawn(|| work(line << 32 | generation, shelves, life)).join().ok());
        ops += worked.unwrap_or_else(|| Err("a thread panicked".into()))?;
    }
    Ok(ops)
}

fn work(seed: u64, shelves: &[Shelf], end: Instant) -> Result<u64, String> {
    let mut random = Random::new(seed);
    let mut small = Blocks::light(4000, seed ^ 1);
    let mut mid = Blocks::light(200, seed ^ 2);
    let mut large = Blocks::light(8, seed ^ 3);
    let mut ops = 0;
    while Instant::now() < end {
        for _ in 0..64 {
            for _ in 0..12 {
                small.replace(8, 512)?;
            }
            mid.replace(512, 16 << 10)?;
            wander(&mut random, shelves)?;
        }
        ops += 64 * 14;
        large.replace(32 << 10, 1 << 20)?;
        if random.below(64) == 0 {
            large.replace(2 << 20, 8 << 20)?;
        }
        grow(&mut random)?;
        ops += 11;
    }
    small.release()?;
    mid.release()?;
    large.release()?;
    Ok(ops)
}

/// Leaves a block for others and frees the one that lay there.
fn wander(random: &mut Random, shelves: &[Shelf]) -> Result<(), String> {
    let bytes = 16 << random.below(8);
    let mine = Filled::light(bytes + random.below(bytes), 16, random.next()).ok_or("memory was refused")?;
    let shelf = shelves.get(random.below(shelves.len())).ok_or("there are no shelves")?;
    let theirs = shelf.lock().map_err(|error| error.to_string())?.exchange(Some(mine));
    theirs.map_or(Ok(()), Filled::release)
}

/// A block that grows as vectors do.
fn grow(random: &mut Random) -> Result<(), String> {
    let mut block = Filled::light(64, 8, random.next()).ok_or("memory was refused")?;
    for _ in 0..9 {
        let doubled = block.len() * 2;
        block = block.resize(doubled)?;
    }
    block.release()
}
