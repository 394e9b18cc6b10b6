//! Runs one benchmark with the allocator that was compiled in and prints one line of `key=value` pairs.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is this program's job")]

use std::process::ExitCode;

use hakmem_benches::suite::Bench;
use hakmem_benches::{ALLOCATOR, ALLOCATOR_NAME, Allocator};
use hakmem_testkit::peak_rss_kib;

#[global_allocator]
static GLOBAL: Allocator = ALLOCATOR;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (bench, ops) = match words.as_slice() {
        ["--list"] => {
            for bench in Bench::ALL {
                println!("{:18} {}", bench.name, bench.operation);
            }
            return ExitCode::SUCCESS;
        }
        [name] => (Bench::named(name), None),
        [name, "--ops", ops] => match ops.parse() {
            Ok(ops) => (Bench::named(name), Some(ops)),
            Err(error) => {
                eprintln!("ratios: --ops {ops}: {error}");
                return ExitCode::from(2);
            }
        },
        _ => (None, None),
    };
    let Some(bench) = bench else {
        eprintln!("usage: ratios BENCH [--ops N]\n       ratios --list");
        return ExitCode::from(2);
    };
    let measured = bench.run(ops.unwrap_or(bench.ops));
    println!(
        "allocator={ALLOCATOR_NAME} bench={} ops={} ns_per_op={:.3} peak_rss_kib={}",
        bench.name,
        measured.ops,
        measured.ns_per_op(),
        peak_rss_kib()
    );
    ExitCode::SUCCESS
}
