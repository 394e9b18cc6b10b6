//! `cargo xtask fuzz`: runs the targets of `fuzz/` for a while, on top of the corpus that is kept there.
//!
//! **Invariants.** A missing tool is reported as `NOT RUN` and fails, unless the caller allowed it. What a run finds new
//! stays out of the repository until `--keep`, which takes over only what adds coverage. An input that crashes fails the
//! command and is named with the command that runs it again.
//! **Why.** docs/fuzzing.md

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use super::harness::nightly_cargo;
use super::{NIGHTLY, missing_from_nightly, not_run};
use crate::project::Project;
use crate::table;

/// Names of the targets; each has its corpus under that name.
pub const TARGETS: [&str; 4] = ["family", "facade", "environment", "policy_file"];

/// Longest input (bytes): long ones say little more and take long to understand.
const INPUT_BYTES: u32 = 1000;
/// A process that becomes this large (MiB) is reported: no input asks for that much to be written.
const RESIDENT_MIB: u32 = 3000;
/// An input that runs this long (seconds) is reported, even on a machine that is busy otherwise.
const INPUT_SECONDS: u32 = 200;
/// What all kept inputs may add up to (bytes).
const CORPUS_BYTES: u64 = 300 << 10;

/// What `cargo xtask fuzz` takes.
#[derive(clap::Args, Default)]
pub struct Options {
    /// Only this target (may be repeated): family, facade, environment, policy_file.
    #[arg(long, value_name = "NAME")]
    pub target: Vec<String>,
    /// How long each target runs.
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    pub minutes: f64,
    /// Install cargo-fuzz if it is not there.
    #[arg(long)]
    pub install: bool,
    /// Take inputs that cover something new over into fuzz/corpus.
    #[arg(long)]
    pub keep: bool,
    /// A machine without nightly or cargo-fuzz does not fail the command.
    #[arg(long)]
    pub allow_missing: bool,
}

/// Runs the chosen targets one after the other.
pub fn fuzz(project: &Project, options: &Options) -> Result<ExitCode> {
    if let Some(unknown) = options.target.iter().find(|name| !TARGETS.contains(&name.as_str())) {
        bail!("no fuzz target `{unknown}`; there are {}", TARGETS.join(", "));
    }
    ensure!(options.minutes > 0.0, "a fuzzer takes time: --minutes must be above 0");
    if let Some(why) = missing(project, options.install)? {
        return Ok(not_run("fuzz", &why, options.allow_missing));
    }
    let mut rows = Vec::new();
    let mut bad_count = 0;
    for name in TARGETS {
        if !options.target.is_empty() && !options.target.iter().any(|chosen| chosen == name) {
            continue;
        }
        let target = Target::new(project, name)?;
        eprintln!("== fuzz {name} for {} minutes", options.minutes);
        let found = target.run((options.minutes * 60.0).ceil() as u64)?;
        bad_count += usize::from(found.is_some());
        if options.keep && found.is_none() {
            target.keep()?;
        }
        rows.push(vec![name.to_owned(), found.unwrap_or_else(|| "nothing found".to_owned())]);
    }
    eprintln!("\nFuzzing:");
    for line in table::lines(&rows, &[]) {
        eprintln!("  {line}");
    }
    check_size(&corpus(project))?;
    Ok(if bad_count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is missing, and how to get it.
fn missing(project: &Project, install: bool) -> Result<Option<String>> {
    if let Some(why) = missing_from_nightly(&[]) {
        return Ok(Some(why));
    }
    let is_there =
        |mut command: Command| command.args(["fuzz", "--version"]).output().is_ok_and(|it| it.status.success());
    if is_there(nightly_cargo(project)) {
        return Ok(None);
    }
    if !install {
        return Ok(Some("no cargo-fuzz: cargo install --locked cargo-fuzz, or cargo xtask fuzz --install".into()));
    }
    let status = project.cargo(["install", "--locked", "cargo-fuzz"]).status().context("cargo does not start")?;
    ensure!(status.success() && is_there(nightly_cargo(project)), "cargo-fuzz could not be installed");
    Ok(None)
}

fn corpus(project: &Project) -> PathBuf {
    project.root().join("fuzz").join("corpus")
}

/// One fuzz target and the directories that it works in.
struct Target<'a> {
    project: &'a Project,
    name: &'static str,
    kept: PathBuf,
    /// Inputs found by earlier runs on this machine.
    found: PathBuf,
    /// Inputs that crashed.
    artifacts: PathBuf,
}

impl<'a> Target<'a> {
    fn new(project: &'a Project, name: &'static str) -> Result<Self> {
        let work = project.target().join("fuzz").join("work").join(name);
        let target = Self {
            project,
            name,
            kept: corpus(project).join(name),
            found: work.join("found"),
            artifacts: work.join("artifacts"),
        };
        for directory in [&target.found, &target.artifacts] {
            std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        Ok(target)
    }

    /// `cargo fuzz run` with the directories that are given, without a sanitizer: they watch an allocator that hakmem is
    /// not, and cost most of the speed. The boxes' own checks are compiled in.
    fn command(&self, directories: &[&Path]) -> Command {
        let mut command = nightly_cargo(self.project);
        command.args(["fuzz", "run", "--fuzz-dir", "fuzz", "--sanitizer", "none", "--target-dir"]);
        command.arg(self.project.target().join("fuzz")).arg(self.name).args(directories).arg("--");
        let mut prefix = std::ffi::OsString::from("-artifact_prefix=");
        prefix.push(&self.artifacts);
        prefix.push("/");
        command.arg(prefix);
        command.args([
            format!("-max_len={INPUT_BYTES}"),
            format!("-rss_limit_mb={RESIDENT_MIB}"),
            format!("-timeout={INPUT_SECONDS}"),
        ]);
        command
    }

    /// What the run found, if it found something.
    fn run(&self, seconds: u64) -> Result<Option<String>> {
        let before = files_in(&self.artifacts)?;
        let mut command = self.command(&[&self.found, &self.kept]);
        command.args([&format!("-max_total_time={seconds}"), "-print_final_stats=1"]);
        let status = command.status().context("rustup does not start")?;
        let new: Vec<_> = files_in(&self.artifacts)?.into_iter().filter(|file| !before.contains(file)).collect();
        // Inputs that are merely slow are written down without an end to the run.
        let Some(file) = new.iter().find(|file| !is_slow(file)) else {
            ensure!(status.success(), "fuzz {} ended with {status} and left no input", self.name);
            return Ok(None);
        };
        Ok(Some(format!(
            "FOUND {}; again: cargo +{NIGHTLY} fuzz run --sanitizer none {} {}",
            file.display(),
            self.name,
            file.display()
        )))
    }

    /// Copies the inputs that reach code which the kept ones do not: few, because how often code was reached is not counted.
    fn keep(&self) -> Result<()> {
        let mut command = self.command(&[&self.kept, &self.found]);
        command.args(["-set_cover_merge=1", "-use_counters=0"]);
        let status = command.status().context("rustup does not start")?;
        ensure!(status.success(), "the corpora of {} cannot be merged ({status})", self.name);
        Ok(())
    }
}

fn is_slow(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("slow-unit"))
}

fn files_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// The corpus is part of every checkout, so it stays small.
fn check_size(corpus: &Path) -> Result<()> {
    let mut bytes = 0;
    for target in TARGETS {
        for file in files_in(&corpus.join(target))? {
            bytes += std::fs::metadata(&file)?.len();
        }
    }
    ensure!(bytes <= CORPUS_BYTES, "the corpus has {bytes} bytes; {CORPUS_BYTES} are enough: see docs/fuzzing.md");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_is_there_and_small() {
        check_size(&corpus(&Project::load().unwrap())).unwrap();
    }

    #[test]
    fn a_slow_input_is_told_from_a_crash() {
        assert!(is_slow(Path::new("artifacts/slow-unit-12")));
        assert!(!is_slow(Path::new("artifacts/crash-12")) && !is_slow(Path::new("artifacts/timeout-12")));
    }

    #[test]
    fn the_fuzzed_preload_crate_has_the_dependencies_of_the_real_one() {
        let root = Project::load().unwrap().root().to_owned();
        let dependencies = |path: &str| {
            let manifest = std::fs::read_to_string(root.join(path)).unwrap();
            let section = manifest.split("\n[").find_map(|section| section.strip_prefix("dependencies]\n")).unwrap();
            let mut names: Vec<_> =
                section.lines().filter_map(|line| line.split([' ', '.', '=']).next()).map(str::to_owned).collect();
            names.retain(|name| !name.is_empty());
            names.sort();
            names
        };
        assert_eq!(dependencies("fuzz/preload/Cargo.toml"), dependencies("crates/preload/Cargo.toml"));
    }

    #[test]
    fn every_target_of_the_manifest_is_known() {
        let project = Project::load().unwrap();
        let manifest = std::fs::read_to_string(project.root().join("fuzz/Cargo.toml")).unwrap();
        assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
        for target in TARGETS {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
        }
    }
}
