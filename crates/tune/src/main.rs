//! `hakmem-tune`: finds a policy for a program from outside, merges policies, says what they do, and compares allocators.
//!
//! **Not here.** Learning inside a program (`HAKMEM_MODE=LEARN`): this tool runs a program many times and looks at it from
//! outside, so it can afford policies that a running program must not try.
//! **Invariants.** A policy file that is written can be read by the allocator, and what it changes won its comparison. A file that
//! cannot be read, or a run that ends badly, fails the command.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its terminal")]

mod document;
mod evaluate;
mod explain;
mod knobs;
mod measure;
mod merge;
mod plot;
mod run;
mod score;
mod search;
mod sites;
mod subject;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

use document::Document;
use knobs::DIMENSIONS;
use merge::{Member, merge};
use score::Weights;
use subject::{Program, find_library};

/// Finds, merges and explains policy files of hakmem.
#[derive(Parser)]
#[command(name = "hakmem-tune", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run a program under FROZEN and LEARN, search its knobs from outside, and write a policy file.
    Run {
        /// Runs each of FROZEN and LEARN before the search; 0 leaves LEARN out.
        #[arg(long, value_name = "N", default_value_t = 3)]
        reps: usize,
        /// Runs of the search in all.
        #[arg(long, value_name = "N", default_value_t = 140)]
        budget: usize,
        /// Pairs of runs, defaults and result, that decide in the end.
        #[arg(long, value_name = "N", default_value_t = 8)]
        pairs: usize,
        /// What counts how much: of wall, cpu, faults, memory.
        #[arg(long, value_name = "WEIGHTS", default_value_t = Weights::default())]
        weights: Weights,
        /// By how many percent wall-clock time, processor time or memory may be worse.
        #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
        tolerance: f64,
        /// The smallest gain, in percent, that is worth a policy.
        #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
        least_gain: f64,
        /// Only this dimension (may be repeated); a wrong name lists them.
        #[arg(long, value_name = "NAME")]
        only: Vec<String>,
        /// Where the random order of the steps begins.
        #[arg(long, value_name = "S", default_value_t = 1)]
        seed: u64,
        /// The policy file; the plot lies beside it.
        #[arg(long, value_name = "FILE", default_value = "policy.toml")]
        out: PathBuf,
        #[command(flatten)]
        program: Chosen,
    },
    /// Run a program under several modes, policies and allocators in turn, and compare time, faults and memory.
    Evaluate {
        /// Modes of hakmem.
        #[arg(long, value_name = "MODES", value_delimiter = ',', default_value = "FROZEN,OBSERVE,LEARN")]
        modes: Vec<String>,
        /// A policy file to run FROZEN (may be repeated).
        #[arg(long, value_name = "FILE")]
        policy: Vec<PathBuf>,
        /// Another allocator (may be repeated).
        #[arg(long, value_name = "NAME=LIBRARY")]
        peer: Vec<String>,
        /// Runs of each.
        #[arg(long, value_name = "N", default_value_t = 5)]
        rounds: usize,
        /// What counts how much: of wall, cpu, faults, memory.
        #[arg(long, value_name = "WEIGHTS", default_value_t = Weights::default())]
        weights: Weights,
        /// Directory of table, runs and plot.
        #[arg(long, value_name = "DIR", default_value = "hakmem-evaluation")]
        out: PathBuf,
        #[command(flatten)]
        program: Chosen,
    },
    /// Make one policy of several, with their evidence.
    Merge {
        /// The files; the runs behind each are its weight.
        #[arg(required = true, num_args = 2..)]
        files: Vec<PathBuf>,
        /// The policy file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Say in words what a policy changes, and why.
    Explain {
        /// The policy file.
        file: PathBuf,
    },
}

/// A program and what it runs with.
#[derive(clap::Args)]
struct Chosen {
    /// The preload library; found beside this program if not given.
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    /// Seconds after which a run is killed, and counts as failed.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    limit: u64,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Chosen {
    fn program(self) -> Program {
        Program { command: self.command, limit: Duration::from_secs(self.limit) }
    }
}

fn main() -> ExitCode {
    match perform(Arguments::parse().task) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("hakmem-tune: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<ExitCode> {
    match task {
        Task::Run { reps, budget, pairs, weights, tolerance, least_gain, only, seed, out, program } => {
            if let Some(unknown) = only.iter().find(|name| !DIMENSIONS.iter().any(|known| known.name == **name)) {
                let names: Vec<&str> = DIMENSIONS.iter().map(|dimension| dimension.name).collect();
                bail!("no dimension `{unknown}`; there are {}", names.join(", "));
            }
            let (tolerance, least_gain) = (tolerance / 100.0, least_gain / 100.0);
            let search = search::Options { budget, pairs, weights, tolerance, least_gain, only, seed };
            let library = find_library(program.library.as_deref())?;
            run::run(&program.program(), &run::Options { library, reps, search, output: out })
        }
        Task::Evaluate { modes, policy, peer, rounds, weights, out, program } => {
            let mut peers = Vec::new();
            for peer in peer {
                let Some((name, library)) = peer.split_once('=') else {
                    bail!("--peer takes NAME=LIBRARY, not {peer}")
                };
                peers.push((name.to_owned(), PathBuf::from(library)));
            }
            let library = find_library(program.library.as_deref())?;
            let options = evaluate::Options { library, modes, policies: policy, peers, rounds, weights, output: out };
            evaluate::evaluate(&program.program(), &options)
        }
        Task::Merge { files, out } => {
            let mut members = Vec::new();
            for file in files {
                members.push(Member { name: file.display().to_string(), document: Document::read(&file)? });
            }
            let (document, conflicts) = merge(&members)?;
            document.write(&out)?;
            for conflict in &conflicts {
                println!("conflict: {} ({} runs) was taken", conflict.taken, conflict.voices);
                for (name, values, runs) in &conflict.against {
                    println!("    {name}: {values} ({runs} runs)");
                }
            }
            print!("{}", explain::explain(&document, &out.display().to_string())?);
            Ok(ExitCode::SUCCESS)
        }
        Task::Explain { file } => {
            print!("{}", explain::explain(&Document::read(&file)?, &file.display().to_string())?);
            Ok(ExitCode::SUCCESS)
        }
    }
}
