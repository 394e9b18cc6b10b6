//! Builds the `suite` program once per allocator.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A `suite` program with one allocator compiled in.
#[derive(Debug)]
pub struct Variant {
    /// The feature that chose its allocator.
    pub allocator: String,
    /// Where it lies.
    pub program: PathBuf,
}

/// Builds them all. They share one target directory, so that only what the features change is compiled again, and each
/// program is copied out before the next build overwrites it.
///
/// # Errors
/// Says which build or copy failed.
pub fn build_variants(allocators: &[String]) -> Result<Vec<Variant>, String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let target = target_directory();
    let programs = target.join("programs");
    fs::create_dir_all(&programs).map_err(|error| format!("{}: {error}", programs.display()))?;
    allocators
        .iter()
        .map(|allocator| {
            build(&manifest, &target, allocator)?;
            let program = programs.join(format!("suite-{allocator}"));
            // Removed first: a program that still runs cannot be overwritten.
            let _was_there = fs::remove_file(&program);
            fs::copy(target.join("release/suite"), &program)
                .map_err(|error| format!("{}: {error}", program.display()))?;
            Ok(Variant { allocator: allocator.clone(), program })
        })
        .collect()
}

/// Where the programs that are compared are built.
#[must_use]
pub fn target_directory() -> PathBuf {
    let outer = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    outer.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target")).join("compare")
}

fn build(manifest: &Path, target: &Path, allocator: &str) -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(&cargo)
        .args(["build", "--quiet", "--release", "--package", "hakmem-benches", "--bin", "suite"])
        .args(["--no-default-features", "--features", allocator, "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(target)
        .status()
        .map_err(|error| format!("{}: {error}", cargo.to_string_lossy()))?;
    if status.success() { Ok(()) } else { Err(format!("building suite with {allocator} failed ({status})")) }
}
