//! Builds the benchmarks once per allocator, runs them interleaved, and prints medians, ratios and the bars they must meet.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is this program's job")]

mod measure;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use hakmem_benches::build_variants;
use hakmem_benches::suite::Bench;

use measure::Cell;

/// hakmem beside its peers: time and peak memory, interleaved runs in fresh processes.
#[derive(Parser)]
#[command(version, about)]
struct Options {
    /// Clean runs wanted of each benchmark with each allocator.
    #[arg(long, default_value_t = 7)]
    reps: usize,
    /// Benchmarks, comma-separated; all of them by default.
    #[arg(long = "bench", value_delimiter = ',', value_name = "NAME")]
    benches: Vec<String>,
    /// Allocators beside the subject, comma-separated.
    #[arg(long, value_delimiter = ',', default_value = "mimalloc,mimalloc2,jemalloc,rusty,system")]
    peers: Vec<String>,
    /// The allocator that is compared with the peers.
    #[arg(long, default_value = "hakmem")]
    subject: String,
    /// Percent of each benchmark's usual operations.
    #[arg(long, default_value_t = 100)]
    scale: u64,
    /// Writes every run, kept or dropped, as CSV.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Seed of the order of runs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Does not write three quarters of the free memory once beforehand (first touches are slower on a cold machine).
    #[arg(long)]
    no_pretouch: bool,
    /// Fails when a bar is missed, instead of only saying so.
    #[arg(long)]
    judge: bool,
    #[arg(long, hide = true, value_name = "KIB")]
    pretouch_child: Option<u64>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(kib) = options.pretouch_child {
        measure::touch(kib);
        return ExitCode::SUCCESS;
    }
    match compare(&options) {
        Ok(met) if met || !options.judge => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether every bar was met.
fn compare(options: &Options) -> Result<bool, String> {
    let benches = chosen_benches(&options.benches)?;
    let mut allocators = vec![options.subject.clone()];
    allocators.extend(options.peers.iter().filter(|peer| **peer != options.subject).cloned());
    eprintln!("building {}", allocators.join(", "));
    let variants = build_variants(&allocators)?;

    if !options.no_pretouch {
        measure::pretouch()?;
    }
    let cells: Vec<Cell> = benches
        .iter()
        .flat_map(|bench| variants.iter().map(|variant| Cell::new(bench, variant, options.scale)))
        .collect();
    let runs = measure::interleaved(&cells, options.reps.max(1), options.seed)?;
    if let Some(file) = &options.csv {
        std::fs::write(file, measure::csv(&cells, &runs)).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(table::print(&benches, &allocators, &cells, &runs))
}

fn chosen_benches(names: &[String]) -> Result<Vec<&'static Bench>, String> {
    if names.is_empty() {
        return Ok(Bench::all().collect());
    }
    let known = || Bench::all().map(|bench| bench.name).collect::<Vec<_>>().join(", ");
    names
        .iter()
        .map(|name| Bench::named(name).ok_or_else(|| format!("no benchmark is called {name}; there are {}", known())))
        .collect()
}
