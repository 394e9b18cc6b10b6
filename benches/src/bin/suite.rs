//! Runs one benchmark with the allocator that was compiled in and prints one line of `key=value` pairs:
//! `bench`, `allocator`, `ops` (done), `ns_per_op` (wall time), `peak_rss_kib`, `end_rss_kib` (after all was freed), `virtual_kib`
//! (the most address space), `live_bytes` and `live_rss_kib` (requested and resident at the moment at which the benchmark
//! holds most; 0 when it has no such moment), and `baseline_ns_per_op` of benchmarks that touch the same memory without allocating.
//!
//! `--list` prints one line per benchmark: `name`, `group`, `threads` (its default), `ops` (its default), `parameter` and `values`
//! (an option to run it with and values for it) where it has any, and `operation` in quotes.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is this program's job")]

use std::process::ExitCode;

use hakmem_benches::suite::{Bench, Request};
use hakmem_benches::{ALLOCATOR, ALLOCATOR_NAME, Allocator};
use hakmem_testkit::Memory;
use lexopt::{Arg, Parser, ValueExt as _};

#[global_allocator]
static GLOBAL: Allocator = ALLOCATOR;

const USAGE: &str = "usage: suite BENCH [--ops N] [--threads N] [--live-bytes N]\n       suite --list";

fn main() -> ExitCode {
    match asked() {
        Ok(Some((bench, request))) => run(bench, &request),
        Ok(None) => list(),
        Err(error) => {
            eprintln!("suite: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// The benchmark that the command line names; none when the list was asked for.
fn asked() -> Result<Option<(&'static Bench, Request)>, lexopt::Error> {
    let mut bench = None;
    let (mut ops, mut threads, mut live_bytes) = (None, None, None);
    let mut arguments = Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("list") => return Ok(None),
            Arg::Long("ops") => ops = Some(arguments.value()?.parse()?),
            Arg::Long("threads") => threads = Some(arguments.value()?.parse()?),
            Arg::Long("live-bytes") => live_bytes = Some(arguments.value()?.parse()?),
            Arg::Value(name) if bench.is_none() => {
                let name = name.string()?;
                bench = Some(Bench::named(&name).ok_or_else(|| format!("no benchmark is called {name}"))?);
            }
            other => return Err(other.unexpected()),
        }
    }
    let bench = bench.ok_or("which benchmark?")?;
    Ok(Some((bench, Request { ops: ops.unwrap_or(bench.ops), threads: threads.unwrap_or(bench.threads), live_bytes })))
}

fn list() {
    for Bench { name, group, ops, operation, threads, parameter, .. } in Bench::all() {
        let parameter = parameter.map(|(option, values)| format!(" parameter={option} values={values}"));
        let parameter = parameter.unwrap_or_default();
        println!("name={name} group={} threads={threads} ops={ops}{parameter} operation=\"{operation}\"", group.name());
    }
}

fn run(bench: &Bench, request: &Request) {
    let measured = bench.run(request);
    let memory = Memory::now();
    let (live_bytes, live_rss_kib) = measured.live.map_or((0, 0), |live| (live.bytes, live.rss_kib));
    let baseline = measured.baseline_ns_per_op().map(|ns| format!(" baseline_ns_per_op={ns:.3}"));
    println!(
        "bench={} allocator={ALLOCATOR_NAME} ops={} ns_per_op={:.3} peak_rss_kib={} end_rss_kib={} virtual_kib={} \
         live_bytes={live_bytes} live_rss_kib={live_rss_kib}{}",
        bench.name,
        measured.ops,
        measured.ns_per_op(),
        memory.peak_kib,
        memory.resident_kib,
        memory.virtual_kib,
        baseline.unwrap_or_default(),
    );
}
