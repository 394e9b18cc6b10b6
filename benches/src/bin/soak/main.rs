//! The program of `cargo xtask soak`: every pattern of use at once for as long as it is told, every byte of every block checked.
//!
//! Workers allocate and free all sizes in all ways; a churner starts threads that leave blocks behind; a director changes
//! the phase, the policy and the limit on memory, and starts children; a sampler writes what memory is held to a CSV file.
//! Whatever is wrong ends the process at once with one line on stderr (`shared::fail`).
//!
//! **Not here.** The judgement over time and the report: `cargo xtask soak` makes them from the CSV file.
//! **Invariants.** Blocks in use stay below `LIVE_CAP_BYTES`. A refusal is accepted only while memory is limited. When all
//! blocks are freed, the allocator's live bytes are what they were at the start.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is this program's job")]
#![allow(clippy::indexing_slicing, reason = "a program that may stop; no box, and not on the path of malloc")]

mod children;
mod churner;
mod director;
mod facts;
mod sampler;
mod shared;
mod sizes;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use clap::Parser;
use hakmem_benches::{ALLOCATOR, ALLOCATOR_NAME, Allocator};

use director::Director;
use sampler::Sampler;
use shared::{Phase, Shared, fail};

#[global_allocator]
static GLOBAL: Allocator = ALLOCATOR;

/// What the runtime itself may keep allocated between the two readings: thread handles, buffers, nodes of the policy's readers.
const RUNTIME_SLACK_BYTES: u64 = 256 << 10;

/// Every pattern of use at once.
#[derive(Parser, Clone)]
struct Arguments {
    /// How long.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// The choices of all threads follow from it; what they meet depends on timing, too.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads that allocate, beside the churner's.
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// One round of all phases.
    #[arg(long, default_value_t = 2.0)]
    cycle_seconds: f64,
    /// Where the samples go.
    #[arg(long, default_value = "soak.csv")]
    csv: PathBuf,
    /// Bytes to lose in every cycle, to see that the judgement notices.
    #[arg(long, default_value_t = 0)]
    leak_bytes: usize,
    /// Be the child that runs out of address space.
    #[arg(long, hide = true)]
    confined: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.confined {
        children::be_confined(arguments.seed);
        return ExitCode::SUCCESS;
    }
    let live_before = settled_live_bytes();
    let shared = Shared::new(arguments.threads);
    let sampler = match Sampler::create(&arguments.csv, &shared) {
        Ok(sampler) => Mutex::new(sampler),
        Err(error) => fail(&format!("{}: {error}", arguments.csv.display())),
    };
    run(&arguments, &shared, &sampler);
    shared.release_shelves();
    let live_after = settled_live_bytes();
    sampler::take(&sampler, "end");
    println!("allocator {ALLOCATOR_NAME}: {}", shared.counts());
    println!("live bytes: {live_before} before, {live_after} after");
    if live_after > live_before + RUNTIME_SLACK_BYTES + shared.leaked.load_relaxed() {
        fail(&format!("{} bytes stayed live after everything was freed", live_after - live_before));
    }
    if let Some(idle) = shared.what_never_happened() {
        fail(&format!("a run that proves nothing: there was no {idle}"));
    }
    ExitCode::SUCCESS
}

fn run<'a>(arguments: &Arguments, shared: &'a Shared, sampler: &'a Mutex<Sampler<'a>>) {
    thread::scope(|scope| {
        for number in 0..arguments.threads {
            scope.spawn(move || worker::Worker::new(shared, arguments.seed, number).run());
        }
        scope.spawn(|| churner::run(shared, arguments.seed));
        scope.spawn(|| {
            while shared.phase() != Phase::Stop {
                sampler::take(sampler, "");
                thread::sleep(Duration::from_secs_f64((arguments.cycle_seconds / 10.0).min(1.0)));
            }
        });
        Director::new(shared, sampler, arguments).run();
    });
}

/// The allocator's live bytes once this thread has given back and taken in what it can.
fn settled_live_bytes() -> u64 {
    facts::switch_back(0);
    facts::collect();
    facts::value("live_bytes")
}
