//! `cargo xtask bench`: every benchmark under every allocator, interleaved, each run in a fresh process; what came out as a
//! table, as CSV and as a report. `cargo xtask sweep`: the same with hakmem's own switches instead of other allocators.
//!
//! `session` says what is run, `plan` when, `job` how; `results` keeps it, `summary` makes medians and ratios of it, and `tables`,
//! `plots` and `page` show them. `bars` are what the project demands of itself.

mod bars;
mod document;
mod job;
mod machine;
mod noise;
mod page;
mod plan;
mod plots;
mod preload;
mod programs;
mod results;
mod rust;
pub mod searched;
mod session;
mod stats;
mod summary;
pub mod sweep;
mod switches;
mod tables;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::project::Project;
use crate::table;
pub use results::pairs;
use results::{Results, Suite};
use session::{Choice, Session, Setting};
pub use stats::median;
use summary::Table;

/// The allocator that is compared with the others.
const SUBJECT: &str = "hakmem";

/// Suites as they are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Asked {
    Rust,
    Preload,
    Scaling,
    All,
}

/// What `cargo xtask bench` takes.
#[derive(clap::Args)]
pub struct Options {
    /// Which suites (may be repeated).
    #[arg(long, value_enum, default_value = "rust")]
    suite: Vec<Asked>,
    /// Allocators to compare with, comma-separated, or `none`; all of the suite unless given.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    peers: Option<Vec<String>>,
    /// A `suite` program or a library that was built before, as one more peer: how two versions are compared.
    #[arg(long, value_name = "NAME=PATH", value_parser = name_and_path)]
    with: Vec<(String, PathBuf)>,
    /// Only benchmarks whose name contains this, comma-separated.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
    /// Clean runs wanted of each benchmark under each allocator.
    #[arg(long, default_value_t = 7)]
    reps: usize,
    /// Percent of each Rust benchmark's usual operations.
    #[arg(long, value_name = "PERCENT", default_value_t = 100)]
    scale: u64,
    /// Seed of the order of runs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where runs.csv, facts.json, the plots and report.html go, instead of target/bench/SUITE.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Do not write most of the free memory once beforehand.
    #[arg(long)]
    no_touch: bool,
    /// A peer that fails is named, but does not fail the command.
    #[arg(long)]
    allow_failures: bool,
    /// Fail when a bar is missed.
    #[arg(long)]
    judge: bool,
    /// Write the tables of these suites into docs/performance.md.
    #[arg(long)]
    fix: bool,
    /// Make tables and report of a run that is over, from the files in its directory.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

fn name_and_path(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("it has no `=`")?;
    if name.is_empty() || name == SUBJECT {
        Err("it needs a name of its own".to_owned())
    } else {
        Ok((name.to_owned(), path.into()))
    }
}

impl Options {
    fn suites(&self) -> Vec<Suite> {
        let wants = |suite: Suite| {
            self.suite.iter().any(|asked| match asked {
                Asked::All => true,
                Asked::Rust => suite == Suite::Rust,
                Asked::Preload => suite == Suite::Preload,
                Asked::Scaling => suite == Suite::Scaling,
            })
        };
        Suite::ALL.into_iter().filter(|suite| wants(*suite)).collect()
    }

    fn choice(&self) -> Choice {
        let peers = self
            .peers
            .clone()
            .map(|names| names.into_iter().filter(|name| name != "none" && name != SUBJECT).collect());
        Choice {
            settings: vec![Setting { name: SUBJECT.to_owned(), ..Setting::default() }],
            peers,
            kept: self.with.clone(),
            only: self.only.clone(),
            whole_names: false,
            scale: self.scale,
            scales: &[],
        }
    }
}

/// Runs and reports.
pub fn bench(project: &Project, options: &Options) -> Result<ExitCode> {
    let (results, directory) = match &options.report {
        Some(directory) => (Results::load(directory)?, directory.clone()),
        None => {
            let directory = directory(project, options);
            (run(project, options, &directory)?, directory)
        }
    };
    let verdicts = bars::judge(&results);
    page::write(&directory, &results, &verdicts)?;
    if options.fix {
        for table in Suite::ALL.into_iter().filter_map(|suite| Table::of(&results, suite)) {
            document::write(project.root(), &document::place(&table), &document::suite(&results, &table))?;
        }
    }
    tables::print(&results);
    print_verdicts(&verdicts);
    println!("\n{}", directory.join("report.html").display());

    let partial = !options.only.is_empty();
    let all_met = verdicts.iter().all(|verdict| verdict.is_met() || (partial && verdict.value.is_none()));
    let fatal = |failure: &results::Failure| !options.allow_failures || failure.allocator == results.facts.subject;
    let failed = results.facts.failures.iter().any(fatal) || (options.judge && !all_met);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn run(project: &Project, options: &Options, directory: &Path) -> Result<Results> {
    ensure!(options.reps > 0 && options.scale > 0, "nothing to measure");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut session = Session::new(project, SUBJECT, &format!("cargo xtask {}", arguments.join(" ")))?;
    let choice = options.choice();
    for suite in options.suites() {
        session.add(suite, &choice).with_context(|| format!("the {} suite", suite.name()))?;
    }
    session.run(options.reps, options.seed, !options.no_touch, directory)
}

fn directory(project: &Project, options: &Options) -> PathBuf {
    let names: Vec<&str> = options.suites().into_iter().map(Suite::name).collect();
    options.output.clone().unwrap_or_else(|| project.target().join("bench").join(names.join("-")))
}

fn print_verdicts(verdicts: &[bars::Verdict]) {
    let row = |verdict: &bars::Verdict| {
        let value = verdict.value.map_or_else(|| "-".to_owned(), tables::figure);
        vec![verdict.what.clone(), value, tables::figure(verdict.limit), verdict.describe()]
    };
    let rows: Vec<Vec<String>> = verdicts.iter().map(row).collect();
    println!("\nbars: measured, at most");
    table::lines(&rows, &[1, 2]).iter().for_each(|line| println!("  {line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_by_path_needs_a_name_of_its_own() {
        assert_eq!(name_and_path("old=/a/b=c").unwrap(), ("old".to_owned(), PathBuf::from("/a/b=c")));
        assert!(name_and_path("hakmem=/a").is_err() && name_and_path("/a").is_err());
    }
}
