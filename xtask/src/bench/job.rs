//! One run: a fresh process below `measured`, and the figures of what it cost.
//!
//! **Invariants.** Nothing of the caller's environment tunes an allocator. A run that ends badly, or whose output is not what it
//! must be, is an error and gives no number.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::programs::Cpus;
use super::results::{Run, Suite, Unit, pairs};
use crate::launch;
use crate::project::Project;

/// Longest time one run may take: far more than it needs, so that only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(600);

/// Variables with these beginnings tune an allocator.
const TUNING: [&str; 7] = ["HAKMEM_", "MALLOC_", "MIMALLOC_", "TCMALLOC_", "GLIBC_TUNABLES", "SNMALLOC_", "LD_PRELOAD"];

/// Memory (MiB) that is warm when a run begins, unless the caller says otherwise.
pub const WARMED_MIB: u64 = 1024;

/// The line of a program's output that holds figures instead of output.
const FIGURES: &str = "figures:";

/// One benchmark under one allocator, as a process.
#[derive(Clone, Debug)]
pub struct Job {
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// Variables of that process alone.
    pub variables: Vec<(String, String)>,
    pub cpus: Cpus,
    pub expected: Expected,
}

/// What the process must print.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expected {
    /// One line of figures.
    Figures,
    /// The same in every run; the line of figures apart.
    Same,
    /// A text with this in it.
    Contains(String),
}

/// What one process cost, and what it printed.
#[derive(Debug)]
pub struct Measured {
    figures: BTreeMap<String, f64>,
    /// Its output without figures.
    pub text: String,
}

/// Starts jobs.
pub struct Launcher<'a> {
    project: &'a Project,
    measured: PathBuf,
    /// Memory that is written before each run.
    pub warmed_mib: u64,
}

impl<'a> Launcher<'a> {
    /// Builds the small process that stands between.
    pub fn new(project: &'a Project, build: &Path) -> Result<Self> {
        let directory = build.to_string_lossy().into_owned();
        let package = ["--release", "--package", "hakmem-benches", "--bin", "measured", "--target-dir", &directory];
        project.build(&[&package[..], &["--no-default-features", "--features", "system"]].concat())?;
        Ok(Self { project, measured: build.join("release").join("measured"), warmed_mib: WARMED_MIB })
    }

    /// Writes most of the free memory once: on a machine whose huge pages are cold the first touch takes 25 times the second.
    pub fn touch(&self) -> Result<()> {
        eprintln!("touching most of the free memory once");
        // Killed for want of memory it has still warmed what it reached.
        Command::new(&self.measured).arg("touch").status().map(|_| ()).context("measured does not start")
    }

    /// Runs a job to its end.
    pub fn run(&self, job: &Job) -> Result<Measured> {
        let scratch = tempfile::Builder::new().prefix("hakmem-bench-").tempdir().context("no temporary directory")?;
        let work = scratch.path().join("work");
        std::fs::create_dir(&work)?;
        let written = scratch.path().join("figures");
        let (mut output, mut errors) = (tempfile::tempfile()?, tempfile::tempfile()?);

        let mut command = Command::new(&self.measured);
        launch::clean_environment(self.project, &mut command);
        for (name, _) in std::env::vars_os() {
            if TUNING.iter().any(|beginning| name.to_string_lossy().starts_with(beginning)) {
                command.env_remove(&name);
            }
        }
        command.arg(&written).arg(if job.cpus == Cpus::One { "one" } else { "all" });
        command.arg(self.warmed_mib.to_string());
        command.args(job.variables.iter().map(|(name, value)| format!("{name}={value}"))).arg("--").args(&job.command);
        command.current_dir(&work).env("TMPDIR", &work).env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(errors.try_clone()?);
        let finished = launch::wait_for_at_most(&mut command, LIMIT).context("measured does not start")?;

        let read = |file: &mut std::fs::File| -> Result<String> {
            let mut bytes = Vec::new();
            file.rewind()?;
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let (text, said) = (read(&mut output)?, read(&mut errors)?);
        ensure!(finished.status.success(), "{}: {}", finished.describe(), last_lines(&said, &text));
        let cost = std::fs::read_to_string(&written).context("measured left no figures")?;
        Measured::read(&cost, &text, &job.expected)
    }
}

/// The end of what a process said, which is where it says why it ended.
fn last_lines(said: &str, printed: &str) -> String {
    let lines: Vec<&str> = said.lines().chain(printed.lines().rev().take(3)).filter(|line| !line.is_empty()).collect();
    lines.iter().skip(lines.len().saturating_sub(4)).copied().collect::<Vec<_>>().join("; ")
}

impl Measured {
    fn read(cost: &str, text: &str, expected: &Expected) -> Result<Self> {
        let mut figures = pairs(cost);
        let is_figures = |line: &&str| *expected == Expected::Figures || line.starts_with(FIGURES);
        for line in text.lines().filter(is_figures) {
            figures.append(&mut pairs(line));
        }
        let kept: Vec<&str> = text.lines().filter(|line| !is_figures(line)).collect();
        if let Expected::Contains(part) = expected {
            ensure!(text.contains(part), "it printed no {part:?}, but {:?}", last_lines("", text));
        }
        Ok(Self { figures, text: kept.join("\n") })
    }

    /// As a line of the table of runs.
    pub fn into_run(self, suite: Suite, unit: Unit, benchmark: &str, allocator: &str, cpus: Cpus) -> Result<Run> {
        let number = |key: &str| self.figures.get(key).copied();
        let needed = |key: &str| number(key).with_context(|| format!("no {key} in {:?}", self.figures));
        let time = match unit {
            Unit::NsPerOp => needed("ns_per_op")?,
            Unit::Seconds => number("seconds").map_or_else(|| needed("wall_s"), Ok)?,
        };
        ensure!(time.is_finite() && time > 0.0, "its time is {time}");
        Ok(Run {
            suite,
            benchmark: benchmark.to_owned(),
            allocator: allocator.to_owned(),
            round: 0,
            kept: true,
            time,
            baseline: number("baseline_ns_per_op").unwrap_or(0.0),
            wall_s: needed("wall_s")?,
            user_s: needed("user_s")?,
            system_s: needed("system_s")?,
            peak_rss_kib: needed("peak_rss_kib")?,
            end_rss_kib: needed("end_rss_kib")?,
            virtual_kib: needed("virtual_kib")?,
            minor_faults: needed("minor_faults")?,
            major_faults: needed("major_faults")?,
            live_bytes: number("live_bytes").unwrap_or(0.0),
            live_rss_kib: number("live_rss_kib").unwrap_or(0.0),
            spin_ms: needed("spin_ms")?,
            cpus: if cpus == Cpus::One { "one" } else { "all" }.to_owned(),
            others_s: needed("others_s")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: &str = "wall_s=0.5 user_s=0.4 system_s=0.1 peak_rss_kib=3000 end_rss_kib=2000 virtual_kib=9000 minor_faults=5 \
                        major_faults=0 spin_ms=9.5 others_s=0.00\n";

    #[test]
    fn what_a_benchmark_prints_of_itself_replaces_what_was_seen_from_outside() {
        let measured =
            Measured::read(COST, "bench=a ops=5 ns_per_op=2.5 end_rss_kib=2500\n", &Expected::Figures).unwrap();
        let run = measured.into_run(Suite::Rust, Unit::NsPerOp, "a", "hakmem", Cpus::One).unwrap();
        assert_eq!((run.time, run.end_rss_kib, run.peak_rss_kib), (2.5, 2500.0, 3000.0));
        assert_eq!((run.live_bytes, run.cpus.as_str()), (0.0, "one"));
    }

    #[test]
    fn a_program_is_timed_from_outside_unless_it_says_better() {
        let plain = Measured::read(COST, "seconds=9 is output here\n", &Expected::Same).unwrap();
        assert_eq!(plain.text, "seconds=9 is output here");
        assert_eq!(plain.into_run(Suite::Preload, Unit::Seconds, "a", "b", Cpus::All).unwrap().time, 0.5);
        let better = Measured::read(COST, "out\nfigures: seconds=0.25\n", &Expected::Same).unwrap();
        assert_eq!(better.text, "out");
        assert_eq!(better.into_run(Suite::Preload, Unit::Seconds, "a", "b", Cpus::All).unwrap().time, 0.25);
    }

    #[test]
    fn a_run_without_its_time_or_its_text_gives_no_number() {
        let silent = Measured::read(COST, "nothing\n", &Expected::Figures).unwrap();
        assert!(silent.into_run(Suite::Rust, Unit::NsPerOp, "a", "b", Cpus::One).is_err());
        let expected = Expected::Contains("42".to_owned());
        assert!(Measured::read(COST, "41\n", &expected).is_err());
        assert!(Measured::read(COST, "42\n", &expected).is_ok());
    }
}
