//! Short threads that allocate, some of whose blocks outlive them, do not make resident memory grow without bound.
//!
//! The bound: once a fifth of the threads have come and gone, resident memory grows by at most 10 % + 8 MiB until the last
//! one has. `HAKTEST_CHURN_THREADS` sets their number.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::indexing_slicing, reason = "a test may stop")]

use std::sync::Mutex;
use std::thread;

use hakmem_testkit::{Filled, Memory, Random, number_from_env};

#[global_allocator]
static GLOBAL: hakmem::Hakmem = hakmem::Hakmem;

const AT_ONCE: u64 = 8;
const SURVIVORS: usize = 2000;

#[test]
fn short_threads_whose_blocks_outlive_them_do_not_grow_memory() {
    churn(number_from_env("HAKTEST_CHURN_THREADS", 5000, 100_000));
}

#[test]
#[ignore = "long: 100 000 threads, or HAKTEST_CHURN_THREADS"]
fn a_hundred_thousand_short_threads_do_not_grow_memory() {
    churn(number_from_env("HAKTEST_CHURN_THREADS", 100_000, 100_000));
}

fn churn(threads: u64) {
    let survivors: Vec<Mutex<Option<Filled>>> = (0..SURVIVORS).map(|_| Mutex::new(None)).collect();
    let waves = threads.div_ceil(AT_ONCE).max(10);
    let mut settled = Memory::default();
    for wave in 0..waves {
        if wave == waves / 5 {
            settled = Memory::now();
        }
        thread::scope(|scope| {
            let threads: Vec<_> = (0..AT_ONCE)
                .map(|number| {
                    let survivors = &survivors;
                    scope.spawn(move || short_life(wave * AT_ONCE + number, survivors))
                })
                .collect();
            // The end of a scope does not wait until a thread has given its heap up; a join does.
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }
    let end = Memory::now();
    let bound = settled.resident_kib + settled.resident_kib / 10 + (8 << 10);
    eprintln!(
        "churn: {} threads; {} KiB resident after a fifth, {} KiB at the end, bound {bound} KiB; {:?}",
        waves * AT_ONCE,
        settled.resident_kib,
        end.resident_kib,
        hakmem::stats()
    );
    for slot in survivors {
        slot.into_inner().unwrap().map_or(Ok(()), Filled::release).unwrap();
    }
    assert!(end.resident_kib <= bound, "{} KiB are resident, the bound is {bound} KiB", end.resident_kib);
}

/// Fifty blocks, mostly small; four of them stay behind and push four older ones out, which this thread frees.
fn short_life(seed: u64, survivors: &[Mutex<Option<Filled>>]) {
    let mut random = Random::new(seed);
    let mut blocks: Vec<Filled> = Vec::new();
    for _ in 0..50 {
        let doublings = if random.below(25) == 0 { 16 } else { 11 };
        blocks.push(Filled::new(8 + random.below(1 << doublings), 8, random.next()).unwrap());
    }
    for block in blocks.drain(..4) {
        let older = survivors[random.below(SURVIVORS)].lock().unwrap().replace(block);
        older.map_or(Ok(()), Filled::release).unwrap();
    }
    blocks.into_iter().try_for_each(Filled::release).unwrap();
}
