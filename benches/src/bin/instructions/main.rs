//! Instructions per pair of allocation and free, counted by callgrind: the Rust front with each allocator compiled in, and
//! a C program with and without the preload library. The loop's own few instructions are included.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is this program's job")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use hakmem_benches::{build_variants, target_directory};

/// The count is the difference of two runs, so that start-up does not matter.
const FEW: u64 = 40_960;
const MANY: u64 = 204_800;

/// Counts instructions per alloc + free with callgrind (package valgrind).
#[derive(Parser)]
#[command(version, about)]
struct Options {
    /// Allocators for the Rust front, comma-separated; an empty list skips it.
    #[arg(long, value_delimiter = ',', default_value = "hakmem,mimalloc,mimalloc2,jemalloc,rusty,system")]
    allocators: Vec<String>,
    /// A preload library for the C front; without it only the C library is counted.
    #[arg(long, value_name = "FILE")]
    preload: Option<PathBuf>,
}

fn main() -> ExitCode {
    match count(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn count(options: &Options) -> Result<(), String> {
    println!("{:8} {:24} {:>10} {:>14}", "front", "allocator", "64 B", "16-1024 B");
    let allocators: Vec<String> = options.allocators.iter().filter(|name| !name.is_empty()).cloned().collect();
    for variant in build_variants(&allocators)? {
        let pair = |bench: &str| {
            per_pair(|count| {
                let mut command = callgrind();
                command.arg(&variant.program).args([bench, "--ops", &count.to_string()]);
                command
            })
        };
        row("Rust", &variant.allocator, pair("pair64")?, pair("pair-dyn")?);
    }
    let program = compile_pair()?;
    let pair = |size: &str, library: Option<&Path>| {
        per_pair(|count| {
            let mut command = callgrind();
            command.arg(&program).args([&count.to_string(), size]);
            if let Some(library) = library {
                command.env("LD_PRELOAD", library);
            }
            command
        })
    };
    row("C", "C library", pair("64", None)?, pair("0", None)?);
    if let Some(library) = &options.preload {
        let library = library.canonicalize().map_err(|error| format!("{}: {error}", library.display()))?;
        let name = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
        row("C", &name, pair("64", Some(&library))?, pair("0", Some(&library))?);
    }
    Ok(())
}

fn row(front: &str, allocator: &str, fixed: f64, mixed: f64) {
    println!("{front:8} {allocator:24} {fixed:>10.1} {mixed:>14.1}");
}

fn callgrind() -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command
}

fn per_pair(command: impl Fn(u64) -> Command) -> Result<f64, String> {
    let few = collected(command(FEW))?;
    let many = collected(command(MANY))?;
    Ok((many - few) / (MANY - FEW) as f64)
}

/// The number that callgrind prints as "Collected : N".
fn collected(mut command: Command) -> Result<f64, String> {
    let output = command.output().map_err(|error| format!("valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let number = text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match number {
        Some(number) if output.status.success() => Ok(number),
        _ => Err(format!("{command:?} ended with {}: {text}", output.status)),
    }
}

fn compile_pair() -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin/instructions/pair.c");
    let folder = target_directory().join("programs");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let program = folder.join("pair");
    let status = Command::new("cc").args(["-O2", "-fno-builtin", "-o"]).args([&program, &source]).status();
    match status {
        Ok(status) if status.success() => Ok(program),
        _ => Err("cc does not compile pair.c".into()),
    }
}
