//! The four mandated health runs. The exit status judges; throughput is printed for information.
//!
//! `tiny-mixed` and `smallmid` check every byte of every block and that nothing leaks; `superslab` forces superslabs to be
//! purged and wants no disabled and no stray madvise; `flatten` wants the flattened pool hit, with few fall-backs.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is this program's job")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use hakmem_benches::{ALLOCATOR, ALLOCATOR_NAME, Allocator};
use hakmem_testkit::{Blocks, Filled, Random, peak_rss_kib};

#[global_allocator]
static GLOBAL: Allocator = ALLOCATOR;

const OPS: usize = 1_000_000;
const SLOTS: usize = 400;
const THREADS: usize = 4;
/// What the runtime itself may keep allocated between the two readings (thread handles, output buffers).
const RUNTIME_SLACK_BYTES: u64 = 8 << 10;

type Verdict = Result<(), String>;

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let run: fn() -> Verdict = match name.as_str() {
        "tiny-mixed" => tiny_mixed,
        "smallmid" => smallmid,
        "superslab" => superslab,
        "flatten" => flatten,
        _ => {
            eprintln!("usage: health tiny-mixed|smallmid|superslab|flatten");
            return ExitCode::from(2);
        }
    };
    let verdict = nothing_leaks(run);
    let profile = std::env::var("HAKMEM_PROFILE").unwrap_or_else(|_| "default".into());
    match verdict {
        Ok(()) => {
            println!("health {name}: ok (allocator {ALLOCATOR_NAME}, profile {profile}, peak {} KiB)", peak_rss_kib());
            ExitCode::SUCCESS
        }
        Err(finding) => {
            eprintln!("health {name}: FAILED (allocator {ALLOCATOR_NAME}, profile {profile}): {finding}");
            ExitCode::FAILURE
        }
    }
}

fn tiny_mixed() -> Verdict {
    timed("1 thread, 16-1024 B", OPS, || churn(1, OPS, 16, 1024))
}

fn smallmid() -> Verdict {
    timed("1 thread, 257-768 B", OPS, || churn(2, OPS, 257, 768))?;
    timed("4 threads, 257-768 B, blocks change hands", OPS, || on_threads(OPS, 257, 768))
}

/// Blocks by the hundred thousand come and go, so that superslabs fill and empty again, with large blocks in between.
fn superslab() -> Verdict {
    let before = facts::os();
    for round in 0..4 {
        let mut random = Random::new(round);
        timed("waves of 200 000 blocks of 257-768 B and 100 large ones", 200_100, || {
            let mut wave = Vec::new();
            for index in 0..200_000_u64 {
                wave.push(Filled::new(257 + random.below(512), 8, index).ok_or("memory was refused")?);
                if index % 2000 == 0 {
                    let bytes = (32 << 10) + random.below(4 << 20);
                    wave.push(Filled::new(bytes, 8, index).ok_or("memory was refused")?);
                }
            }
            wave.into_iter().try_for_each(Filled::release)
        })?;
        facts::collect();
        // Delayed purges come due, too.
        thread::sleep(Duration::from_millis(100));
        churn(round, 20_000, 257, 768)?;
    }
    facts::judge_os(before)
}

fn flatten() -> Verdict {
    let before = facts::flatten();
    timed("1 thread, 257-768 B", OPS, || churn(3, OPS, 257, 768))?;
    facts::judge_flatten(before)?;
    // Not judged by its fall-backs: a block that another thread freed cannot be served from the freeing thread's cache.
    timed("4 threads, 257-768 B, blocks change hands", OPS, || on_threads(OPS, 257, 768))
}

/// Runs `work` and prints its throughput.
fn timed(what: &str, ops: usize, work: impl FnOnce() -> Verdict) -> Verdict {
    let start = Instant::now();
    let verdict = work();
    println!("{what}: {:.2} M ops/s, every byte checked", ops as f64 / start.elapsed().as_secs_f64() / 1e6);
    verdict
}

fn churn(seed: u64, ops: usize, low: usize, high: usize) -> Verdict {
    let mut blocks = Blocks::new(SLOTS, seed);
    for _ in 0..ops {
        blocks.replace(low, high)?;
    }
    blocks.release()
}

/// Each thread churns its own slots; every fourth block goes to a shelf that all share, where another thread frees it.
fn on_threads(ops: usize, low: usize, high: usize) -> Verdict {
    let shelf = Mutex::new(Blocks::new(SLOTS, 0));
    let work = |seed: u64| -> Verdict {
        let mut random = Random::new(seed);
        let mut blocks = Blocks::new(SLOTS / THREADS, seed);
        for op in 0..ops / THREADS {
            if op % 4 != 0 {
                blocks.replace(low, high)?;
                continue;
            }
            let bytes = low + random.below(high - low + 1);
            let mine = Filled::new(bytes, 8, random.next()).ok_or("memory was refused")?;
            let theirs = shelf.lock().map_err(|error| error.to_string())?.exchange(Some(mine));
            theirs.map_or(Ok(()), Filled::release)?;
        }
        blocks.release()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS as u64).map(|seed| scope.spawn(move || work(seed + 10))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
    })?;
    shelf.into_inner().map_err(|error| error.to_string())?.release()
}

/// Live bytes are afterwards what they were before.
fn nothing_leaks(run: fn() -> Verdict) -> Verdict {
    facts::collect();
    let before = facts::live_bytes();
    run()?;
    facts::collect();
    let after = facts::live_bytes();
    println!("live bytes: {before} before, {after} after");
    if after > before + RUNTIME_SLACK_BYTES {
        return Err(format!("{} bytes stayed live", after - before));
    }
    Ok(())
}

/// What hakmem says of itself.
#[cfg(feature = "hakmem")]
mod facts {
    use super::Verdict;

    /// Fall-backs of the flattened pool may be one in this many hits.
    const FALLBACKS_ONE_IN: u64 = 20;

    pub fn collect() {
        hakmem::collect();
    }

    pub fn live_bytes() -> u64 {
        hakmem::stats().live_bytes
    }

    pub struct Os {
        purged_bytes: u64,
    }

    pub fn os() -> Os {
        Os { purged_bytes: hakmem::stats().purged_bytes }
    }

    pub fn judge_os(before: Os) -> Verdict {
        let stats = hakmem::stats();
        println!("{stats:#?}");
        if stats.purged_bytes <= before.purged_bytes {
            return Err("no superslab was purged".into());
        }
        if stats.madvise_disabled != 0 {
            return Err(format!("madvise was disabled {} times", stats.madvise_disabled));
        }
        if stats.outside_range != 0 {
            return Err(format!("{} ranges outside the mapped memory were stopped", stats.outside_range));
        }
        Ok(())
    }

    pub struct Flatten {
        hits: u64,
        fallbacks: u64,
    }

    pub fn flatten() -> Flatten {
        let stats = hakmem::stats();
        Flatten { hits: stats.pool_flatten_hits, fallbacks: stats.pool_flatten_fallbacks }
    }

    pub fn judge_flatten(before: Flatten) -> Verdict {
        let after = flatten();
        let (hits, fallbacks) = (after.hits - before.hits, after.fallbacks - before.fallbacks);
        println!("flattened pool: {hits} hits, {fallbacks} fall-backs");
        if hits == 0 {
            return Err("the flattened pool was never hit".into());
        }
        if fallbacks * FALLBACKS_ONE_IN > hits {
            return Err(format!("{fallbacks} fall-backs beside {hits} hits: more than one in {FALLBACKS_ONE_IN}"));
        }
        Ok(())
    }
}

/// Another allocator says nothing of itself: these runs judge hakmem only.
#[cfg(not(feature = "hakmem"))]
mod facts {
    use super::Verdict;

    pub fn collect() {}

    pub fn live_bytes() -> u64 {
        0
    }

    pub struct None;

    pub fn os() -> None {
        None
    }

    pub fn judge_os(_before: None) -> Verdict {
        Err("built without hakmem: there are no facts to judge".into())
    }

    pub fn flatten() -> None {
        None
    }

    pub fn judge_flatten(_before: None) -> Verdict {
        Err("built without hakmem: there are no facts to judge".into())
    }
}
