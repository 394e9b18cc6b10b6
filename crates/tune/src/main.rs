//! `hakmem-tune`: finds a policy for one program or for several from outside, judges and merges policies, says what they do, and
//! compares allocators.
//!
//! **Not here.** Learning inside a program (`HAKMEM_MODE=LEARN`): this tool runs a program many times and looks at it from
//! outside, so it can afford policies that a running program must not try.
//! **Invariants.** A policy file that is written can be read by the allocator, and what it changes won its comparison. A file that
//! cannot be read, or a run that ends badly, fails the command.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its terminal")]

mod document;
mod evaluate;
mod explain;
mod judge;
mod knobs;
mod measure;
mod merge;
mod plot;
mod programs;
mod record;
mod run;
mod score;
mod search;
mod sites;
mod subject;
mod tables;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};

use document::Document;
use judge::Limits;
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
    /// Run a program under FROZEN and LEARN, search its knobs from outside, and write a policy file. With --programs: one policy for all.
    Run {
        /// Runs each of FROZEN and LEARN before the search of a single program; 0 leaves LEARN out.
        #[arg(long, value_name = "N", default_value_t = 3)]
        reps: usize,
        /// Passes of the search in all; a pass is one run of each program.
        #[arg(long, value_name = "N", default_value_t = 140)]
        budget: usize,
        /// Pairs of passes, defaults and result, that decide in the end.
        #[arg(long, value_name = "N", default_value_t = 8)]
        pairs: usize,
        #[command(flatten)]
        measures: Measures,
        /// A policy file whose knobs are tried as a whole before steps are combined (may be repeated).
        #[arg(long, value_name = "FILE")]
        start: Vec<PathBuf>,
        /// Go on after the passes that are in the record beside the policy file.
        #[arg(long)]
        resume: bool,
        /// Only this dimension (may be repeated); a wrong name lists them.
        #[arg(long, value_name = "NAME")]
        only: Vec<String>,
        /// Where the random order of the steps begins.
        #[arg(long, value_name = "S", default_value_t = 1)]
        seed: u64,
        /// The policy file; the plot and the record of passes lie beside it.
        #[arg(long, value_name = "FILE", default_value = "policy.toml")]
        out: PathBuf,
        #[command(flatten)]
        program: Chosen,
    },
    /// Run a policy and the defaults in turn, and decide as a search does: a table of the programs; fails if the policy is refused.
    Judge {
        /// The policy file.
        #[arg(long, value_name = "FILE")]
        policy: PathBuf,
        /// Pairs of passes, defaults and policy.
        #[arg(long, value_name = "N", default_value_t = 8)]
        pairs: usize,
        #[command(flatten)]
        measures: Measures,
        /// Go on after the passes that are in the record.
        #[arg(long)]
        resume: bool,
        /// The record of passes.
        #[arg(long, value_name = "FILE", default_value = "judge.csv")]
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

/// What counts, and what may be worse.
#[derive(clap::Args)]
struct Measures {
    /// What counts how much: of wall, cpu, faults, memory (over time) and peak. Usually cpu=0.4,faults=0.3,memory=0.3; of several
    /// programs cpu=0.4,faults=0.3,memory=0.15,peak=0.15.
    #[arg(long, value_name = "WEIGHTS")]
    weights: Option<Weights>,
    /// By how many percent wall-clock time, processor time, memory, or the peak if it counts may be worse in the mean.
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, value_parser = percent)]
    tolerance: f64,
    /// The same for each single program of several.
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0, value_parser = percent)]
    tolerance_each: f64,
    /// The smallest gain, in percent, that is worth a policy.
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0, value_parser = percent)]
    least_gain: f64,
    /// Others use this machine: time neither counts nor refuses. Judge what is found once more when it is idle.
    #[arg(long)]
    busy: bool,
}

/// A limit that something can be compared with.
fn percent(text: &str) -> Result<f64> {
    let value: f64 = text.parse().with_context(|| format!("`{text}` is not a number"))?;
    ensure!(value.is_finite() && value >= 0.0, "a percentage is 0 or more, not {value}");
    Ok(value)
}

impl Measures {
    /// Weights, limits and least gain.
    fn of(&self, programs: &[Program]) -> Result<(Weights, Limits, f64)> {
        let usual = if programs.len() > 1 { Weights::SEVERAL } else { Weights::default() };
        let mut weights = self.weights.unwrap_or(usual);
        if self.busy {
            weights = weights.without_clocks().context("--busy leaves nothing that counts")?;
        }
        let limits = Limits { mean: self.tolerance / 100.0, each: self.tolerance_each / 100.0, clocks: !self.busy };
        Ok((weights, limits, self.least_gain / 100.0))
    }
}

/// A program, or several, and what they run with.
#[derive(clap::Args)]
struct Chosen {
    /// The preload library; found beside this program if not given.
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    /// Seconds after which a run is killed, and counts as failed.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    limit: u64,
    /// Programs by name, as docs/policy-file.md says.
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    programs: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(last = true, required_unless_present = "programs", value_name = "CMD")]
    command: Vec<OsString>,
}

impl Chosen {
    fn programs(self) -> Result<Vec<Program>> {
        let limit = Duration::from_secs(self.limit);
        match self.programs {
            Some(file) => programs::read(&file, limit),
            None => Ok(vec![Program { command: self.command, limit, ..Program::default() }]),
        }
    }
}

fn main() -> ExitCode {
    let done = perform(Arguments::parse().task);
    measure::end_as_asked();
    match done {
        Ok(status) => status,
        Err(error) => {
            eprintln!("hakmem-tune: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<ExitCode> {
    match task {
        Task::Run { reps, budget, pairs, measures, start, resume, only, seed, out, program } => {
            if let Some(unknown) = only.iter().find(|name| !DIMENSIONS.iter().any(|known| known.name == **name)) {
                let names: Vec<&str> = DIMENSIONS.iter().map(|dimension| dimension.name).collect();
                bail!("no dimension `{unknown}`; there are {}", names.join(", "));
            }
            let library = find_library(program.library.as_deref())?;
            let programs = program.programs()?;
            let (weights, limits, least_gain) = measures.of(&programs)?;
            let search = search::Options { budget, pairs, weights, limits, least_gain, only, seed };
            run::run(&programs, &run::Options { library, reps, starts: start, search, resume, output: out })
        }
        Task::Judge { policy, pairs, measures, resume, out, program } => {
            let library = find_library(program.library.as_deref())?;
            let programs = program.programs()?;
            let (weights, limits, least_gain) = measures.of(&programs)?;
            let trial = run::Trial { library, policy, pairs, weights, limits, least_gain, resume, output: out };
            run::judge_policy(&programs, &trial)
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
            let programs = program.programs()?;
            let [program] = &programs[..] else {
                bail!("evaluate compares allocators with one program; judge compares a policy with many")
            };
            evaluate::evaluate(program, &options)
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
