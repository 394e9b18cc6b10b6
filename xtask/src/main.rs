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
    Instructions(instructions::Options),
    /// Run the fuzz targets of `fuzz/` on top of the corpus that is kept there.
    Fuzz(checking::FuzzOptions),
    /// Run tests under Miri, which checks each access, pointer and hand-over between threads.
    Miri(checking::MiriOptions),
    /// Run tests compiled with ThreadSanitizer and AddressSanitizer.
    Sanitize(checking::SanitizeOptions),
    /// Run C and C++ programs on the preload library under valgrind's memcheck.
    Valgrind(checking::ValgrindOptions),
    /// Run the loom models of every box.
    Loom(loom::Options),
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
    Compat(compat::Options),
    /// Benchmarks under hakmem and other allocators, interleaved: tables, CSV and a report.
    Bench(bench::Options),
    /// What each of hakmem's switches does to time and memory: one at a time, beside the default.
    Sweep(bench::sweep::Options),
    /// What the levels cost in time and memory: benchmarks and real programs at each level, interleaved.
    Levels(levels::Options),
    /// Run programs with one mistake each, at every level of hakmem, and compare with docs/misuse-table.md what is caught.
    Misuse(misuse::Options),
    /// Every pattern of use at once, every byte checked; fails if the memory held beyond the blocks in use grows.
    Soak(soak::Options),
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
        Task::Instructions(options) => instructions::instructions(&project, &options),
        Task::Fuzz(options) => checking::fuzz(&project, &options),
        Task::Miri(options) => checking::miri(&project, &options),
        Task::Sanitize(options) => checking::sanitize(&project, &options),
        Task::Valgrind(options) => checking::valgrind(&project, &options),
        Task::Loom(options) => loom::loom(&project, &options),
        Task::Tune(options) => tune::tune(&project, &options),
        Task::LearnReport(options) => tune::report(&project, &options),
        Task::Dist => dist::dist(&project),
        Task::Tidy { fix } => tidy::tidy(&project, fix),
        Task::Compat(options) => compat::compat(&project, &options),
        Task::Bench(options) => bench::bench(&project, &options),
        Task::Sweep(options) => bench::sweep::sweep(&project, &options),
        Task::Levels(options) => levels::levels(&project, &options),
        Task::Misuse(options) => misuse::misuse(&project, &options),
        Task::Soak(options) => soak::soak(&project, &options),
    }
}
