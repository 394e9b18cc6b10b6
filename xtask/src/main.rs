//! `cargo xtask`: the tasks of the project, each one command that a person or a machine runs and judges by its exit status.
//!
//! **Not here.** Anything that a user of the allocator needs at run time.
//! **Invariants.** A task that could not do its work fails; what was skipped is named and, unless the caller allowed it, counts as a failure.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its terminal")]

mod bench;
mod checking;
mod compat;
mod dist;
mod health;
mod instructions;
mod launch;
mod level;
mod levels;
mod loom;
mod misuse;
mod project;
mod report;
mod run;
mod soak;
mod table;
mod tidy;
mod tune;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use project::Project;

/// Tasks of the hakmem workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run a program under the preload library and say what hakmem did; without a program, compare a built-in workload.
    Run {
        /// Program and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Run every test of the workspace.
    Test {
        /// Test the optimised build.
        #[arg(long)]
        release: bool,
    },
    /// Formatting, lints, tidy and the mandated profiles.
    Health {
        /// Also the long stress runs.
        #[arg(long)]
        full: bool,
    },
    /// Count the instructions of the fast paths with callgrind; one more than benches/instructions.toml says is a failure.
    Instructions {
        /// Write the counts into benches/instructions.toml.
        #[arg(long)]
        fix: bool,
        /// Also count the Rust front of these allocators, features of `hakmem-benches`, comma-separated.
        #[arg(long, value_delimiter = ',', value_name = "NAME")]
        peers: Vec<String>,
        /// Also count the C front with this library (may be repeated) and with none.
        #[arg(long, value_name = "FILE")]
        library: Vec<PathBuf>,
    },
    /// Run the fuzz targets of `fuzz/` on top of the corpus that is kept there.
    Fuzz {
        /// Only this target (may be repeated): family, facade, environment, policy_file.
        #[arg(long, value_name = "NAME")]
        target: Vec<String>,
        /// How long each target runs.
        #[arg(long, value_name = "N", default_value_t = 1.0)]
        minutes: f64,
        /// Install cargo-fuzz if it is not there.
        #[arg(long)]
        install: bool,
        /// Take inputs that cover something new over into fuzz/corpus.
        #[arg(long)]
        keep: bool,
        /// A machine without nightly or cargo-fuzz does not fail the command.
        #[arg(long)]
        allow_missing: bool,
    },
    /// Run tests under Miri, which checks each access, pointer and hand-over between threads.
    Miri {
        /// Schedules that each test runs under.
        #[arg(long, value_name = "N", default_value_t = 1)]
        seeds: u32,
        /// Only this package (may be repeated).
        #[arg(long, value_name = "NAME")]
        package: Vec<String>,
        /// Only the tests in which threads meet.
        #[arg(long)]
        quick: bool,
        /// A toolchain without Miri does not fail the command.
        #[arg(long)]
        allow_missing: bool,
    },
    /// Run tests compiled with ThreadSanitizer and AddressSanitizer.
    Sanitize {
        /// Only ThreadSanitizer.
        #[arg(long)]
        thread: bool,
        /// Only AddressSanitizer.
        #[arg(long)]
        address: bool,
        /// Only the facade's short tests with threads.
        #[arg(long)]
        quick: bool,
        /// A toolchain without the standard library's sources does not fail the command.
        #[arg(long)]
        allow_missing: bool,
    },
    /// Run C and C++ programs on the preload library under valgrind's memcheck.
    Valgrind {
        /// Only the short programs.
        #[arg(long)]
        quick: bool,
        /// A machine without valgrind does not fail the command.
        #[arg(long)]
        allow_missing: bool,
    },
    /// Run the loom models of every box.
    Loom {
        /// Then relax each documented ordering in turn: some model must fail.
        #[arg(long)]
        weaken: bool,
        /// Explore the longer bounds.
        #[arg(long)]
        long: bool,
        /// Only models whose name contains this.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
    },
    /// Search a policy for a program, or one for all benchmarks of a suite: `hakmem-tune run` with a fresh library; write policy.toml
    /// with its evidence.
    Tune(tune::Options),
    /// Long-running programs in phases under hakmem's modes, policies found for them, and other allocators: tables and plots.
    LearnReport(tune::ReportOptions),
    /// Put libhakmem.so and hakmem.h into target/dist.
    Dist,
    /// Check layers, headers of the sources and generated documents.
    Tidy {
        /// Rewrite the generated documents.
        #[arg(long)]
        fix: bool,
    },
    /// Run real programs with and without the preload library and compare what they print.
    Compat {
        /// A program that is not installed does not fail the command.
        #[arg(long)]
        allow_missing: bool,
        /// Only this program (may be repeated).
        #[arg(long, value_name = "NAME")]
        only: Vec<String>,
        /// All programs at all levels, not only the quick selection.
        #[arg(long)]
        full: bool,
        /// At this level (may be repeated) instead of those of the selection.
        #[arg(long, value_enum, value_name = "LEVEL")]
        level: Vec<level::Level>,
        /// Install missing Debian packages with apt-get first.
        #[arg(long)]
        install: bool,
        /// Only the runs without the preload library: twice, to see that a program's output repeats.
        #[arg(long)]
        baseline: bool,
        /// On an allocator that hands out blocks twice: every program must come out wrong.
        #[arg(long)]
        sabotage: bool,
        /// How long the stress case runs.
        #[arg(long, value_name = "SECONDS", default_value_t = compat::STRESS_SECONDS)]
        stress_seconds: u64,
    },
    /// Benchmarks under hakmem and other allocators, interleaved: tables, CSV and a report.
    Bench(bench::Options),
    /// What each of hakmem's switches does to time and memory: one at a time, beside the default.
    Sweep(bench::sweep::Options),
    /// What the levels cost in time and memory: benchmarks and real programs at each level, interleaved.
    Levels {
        /// Runs of each row at each level.
        #[arg(long, value_name = "N", default_value_t = 5)]
        rounds: usize,
        /// Percent of each benchmark's operations.
        #[arg(long, value_name = "PERCENT", default_value_t = 100)]
        scale: u64,
        /// Write the table into docs/hardening.md.
        #[arg(long)]
        fix: bool,
    },
    /// Run programs with one mistake each, at every level of hakmem, and compare with docs/misuse-table.md what is caught.
    Misuse {
        /// Only this level (may be repeated): default, hardened, sampled.
        #[arg(long, value_name = "LEVEL")]
        level: Vec<String>,
        /// Only this mistake (may be repeated).
        #[arg(long, value_name = "NAME")]
        only: Vec<String>,
        /// Also under the other allocators that are installed.
        #[arg(long)]
        peers: bool,
        /// Write what came out into docs/misuse-table.md; what was not run stays as it is there.
        #[arg(long)]
        fix: bool,
        /// Run each case so often and count the worst outcome.
        #[arg(long, value_name = "TIMES", default_value_t = 1)]
        repeat: u32,
    },
    /// Every pattern of use at once, every byte checked; fails if the memory held beyond the blocks in use grows.
    Soak {
        /// How long.
        #[arg(long, value_name = "N", default_value_t = soak::QUICK_MINUTES)]
        minutes: f64,
        /// Where the program's random numbers begin.
        #[arg(long, value_name = "S", default_value_t = 1)]
        seed: u64,
        /// Threads that allocate, beside those that come and go.
        #[arg(long, default_value_t = 2)]
        threads: u64,
        /// How much hakmem looks for misuse.
        #[arg(long, value_enum, default_value = "default")]
        level: level::Level,
        /// Through the malloc family of the preload library instead of `#[global_allocator]`.
        #[arg(long)]
        preload: bool,
        /// Lose this many bytes in each cycle, to see that the judgement notices.
        #[arg(long, value_name = "BYTES", default_value_t = 0)]
        leak_bytes: u64,
        /// Where the report goes, instead of target/soak.
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
        /// Judge the samples of a run that is over, and write its report, instead of a new run.
        #[arg(long, value_name = "CSV")]
        samples: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match perform(arguments.task) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<ExitCode> {
    let project = Project::load()?;
    match task {
        Task::Run { command } => run::run(&project, &command),
        Task::Test { release } => health::test(&project, release),
        Task::Health { full } => health::health(&project, full),
        Task::Instructions { fix, peers, library: libraries } => {
            instructions::instructions(&project, &instructions::Options { fix, peers, libraries })
        }
        Task::Fuzz { target, minutes, install, keep, allow_missing } => {
            checking::fuzz(&project, &checking::FuzzOptions { target, minutes, install, keep, allow_missing })
        }
        Task::Miri { seeds, package, quick, allow_missing } => {
            let share = checking::Share::from_quick(quick);
            checking::miri(&project, &checking::MiriOptions { seeds, packages: package, share, allow_missing })
        }
        Task::Sanitize { thread, address, quick, allow_missing } => {
            let share = checking::Share::from_quick(quick);
            checking::sanitize(&project, &checking::SanitizeOptions { thread, address, share, allow_missing })
        }
        Task::Valgrind { quick, allow_missing } => {
            let share = checking::Share::from_quick(quick);
            checking::valgrind(&project, &checking::ValgrindOptions { share, allow_missing })
        }
        Task::Loom { weaken, long, only } => loom::loom(&project, &loom::Options { weaken, long, only }),
        Task::Tune(options) => tune::tune(&project, &options),
        Task::LearnReport(options) => tune::report(&project, &options),
        Task::Dist => dist::dist(&project),
        Task::Tidy { fix } => tidy::tidy(&project, fix),
        Task::Compat { allow_missing, only, full, level: levels, install, baseline, sabotage, stress_seconds } => {
            let options =
                compat::Options { allow_missing, only, full, levels, install, baseline, sabotage, stress_seconds };
            compat::compat(&project, &options)
        }
        Task::Bench(options) => bench::bench(&project, &options),
        Task::Sweep(options) => bench::sweep::sweep(&project, &options),
        Task::Levels { rounds, scale, fix } => levels::levels(&project, &levels::Options { rounds, scale, fix }),
        Task::Misuse { level, only, peers, fix, repeat } => {
            misuse::misuse(&project, &misuse::Options { levels: level, only, peers, fix, repeat })
        }
        Task::Soak { minutes, seed, threads, level, preload, leak_bytes, output, samples } => {
            let options = soak::Options { minutes, seed, threads, level, preload, leak_bytes, output };
            soak::soak(&project, &options, samples.as_deref())
        }
    }
}
