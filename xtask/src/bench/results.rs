//! What was run, on what, and what came out: kept as `runs.csv` and `facts.json`, from which every report can be made again.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::plan::Spun;

const RUNS: &str = "runs.csv";
const FACTS: &str = "facts.json";

/// Benchmarks that belong together: run by one kind of program, under one set of peers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Suite {
    /// Rust programs, the allocator compiled in.
    Rust,
    /// Programs under `LD_PRELOAD`.
    Preload,
    /// Rust programs again, over threads and sizes.
    Scaling,
}

impl Suite {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 3] = [Self::Rust, Self::Preload, Self::Scaling];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Preload => "preload",
            Self::Scaling => "scaling",
        }
    }
}

/// What the times of a benchmark are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Unit {
    /// Nanoseconds per operation.
    #[serde(rename = "ns/op")]
    NsPerOp,
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
}

/// One benchmark.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Row {
    pub suite: Suite,
    pub name: String,
    pub group: String,
    /// What one operation is, or what the program does.
    pub what: String,
    pub unit: Unit,
    /// The line of a plot that it is a point of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<Point>,
}

/// A point of a line.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Point {
    /// The name of the line.
    pub series: String,
    /// What changes along it, as the benchmark's option is called.
    pub parameter: String,
    /// Its value here.
    pub value: f64,
}

/// One allocator of a suite, or one setting of hakmem.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Allocator {
    pub suite: Suite,
    pub name: String,
    /// Its version, or where it comes from.
    pub version: String,
}

/// One run, as a line of the table of runs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Run {
    pub suite: Suite,
    pub benchmark: String,
    pub allocator: String,
    pub round: usize,
    /// Not beside a slow spin.
    pub kept: bool,
    /// In the benchmark's unit.
    pub time: f64,
    /// The part of it that the same accesses take without any allocation; 0 where the benchmark does not know.
    pub baseline: f64,
    pub wall_s: f64,
    pub user_s: f64,
    pub system_s: f64,
    pub peak_rss_kib: f64,
    pub end_rss_kib: f64,
    pub virtual_kib: f64,
    pub minor_faults: f64,
    pub major_faults: f64,
    /// Bytes asked for when the benchmark held most; 0 if it has no such moment.
    pub live_bytes: f64,
    /// Resident memory at that moment.
    pub live_rss_kib: f64,
    pub spin_ms: f64,
    /// Processors that were spun.
    pub cpus: String,
    /// Seconds of processor time that went to other processes meanwhile.
    pub others_s: f64,
}

impl Spun for Run {
    fn spin_kind(&self) -> usize {
        usize::from(self.cpus == "one")
    }

    fn spin_ms(&self) -> f64 {
        self.spin_ms
    }
}

/// A benchmark that an allocator did not finish.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    pub suite: Suite,
    pub benchmark: String,
    pub allocator: String,
    pub why: String,
}

/// Everything but the runs.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Facts {
    /// Machine, kernel, versions, commit, date: name and value, in the order of the report.
    pub machine: Vec<(String, String)>,
    /// That the machine has.
    pub processors: usize,
    /// The allocator that is compared with the others.
    pub subject: String,
    pub rows: Vec<Row>,
    pub allocators: Vec<Allocator>,
    /// Allocators that were asked for and are not there, with why.
    pub missing: Vec<(String, String)>,
    pub failures: Vec<Failure>,
}

/// What a report is made of.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Results {
    pub facts: Facts,
    pub runs: Vec<Run>,
}

impl Results {
    /// Writes both files.
    pub fn save(&self, directory: &Path) -> Result<()> {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let path = directory.join(RUNS);
        let mut writer = csv::Writer::from_path(&path).with_context(|| format!("cannot write {}", path.display()))?;
        for run in &self.runs {
            writer.serialize(run)?;
        }
        writer.flush()?;
        std::fs::write(directory.join(FACTS), serde_json::to_string_pretty(&self.facts)? + "\n")?;
        Ok(())
    }

    /// Reads both files.
    pub fn load(directory: &Path) -> Result<Self> {
        let path = directory.join(FACTS);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let facts = serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
        let path = directory.join(RUNS);
        let mut reader = csv::Reader::from_path(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let runs: csv::Result<Vec<Run>> = reader.deserialize().collect();
        Ok(Self { facts, runs: runs.with_context(|| format!("{} is damaged", path.display()))? })
    }
}

/// The numbers of `key=value` pairs that stand between blanks.
pub fn pairs(text: &str) -> BTreeMap<String, f64> {
    let pairs = text.split_whitespace().filter_map(|word| word.split_once('='));
    pairs.filter_map(|(key, value)| Some((key.to_owned(), value.parse().ok()?))).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A run with little in it.
    pub fn run(suite: Suite, benchmark: &str, allocator: &str, time: f64, peak_rss_kib: f64) -> Run {
        Run {
            suite,
            benchmark: benchmark.to_owned(),
            allocator: allocator.to_owned(),
            round: 0,
            kept: true,
            time,
            baseline: 0.0,
            wall_s: 0.5,
            user_s: 0.4,
            system_s: 0.1,
            peak_rss_kib,
            end_rss_kib: peak_rss_kib / 2.0,
            virtual_kib: peak_rss_kib * 10.0,
            minor_faults: 100.0,
            major_faults: 0.0,
            live_bytes: 1024.0 * 512.0,
            live_rss_kib: 1024.0,
            spin_ms: 9.0,
            cpus: "one".to_owned(),
            others_s: 0.0,
        }
    }

    /// A benchmark.
    pub fn row(suite: Suite, name: &str, group: &str) -> Row {
        let (name, group) = (name.to_owned(), group.to_owned());
        Row { suite, name, group, what: "what it does".to_owned(), unit: Unit::NsPerOp, point: None }
    }

    /// An allocator.
    pub fn allocator(suite: Suite, name: &str) -> Allocator {
        Allocator { suite, name: name.to_owned(), version: "1.0".to_owned() }
    }

    #[test]
    fn what_is_saved_is_loaded_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut results = Results::default();
        results.runs.push(run(Suite::Rust, "a, with a comma", "hakmem", 1.25, 2048.0));
        results.facts.subject = "hakmem".to_owned();
        results.facts.rows.push(row(Suite::Rust, "a, with a comma", "tiny"));
        results.facts.machine.push(("kernel".to_owned(), "6".to_owned()));
        results.save(directory.path()).unwrap();
        assert_eq!(Results::load(directory.path()).unwrap(), results);
    }

    #[test]
    fn a_missing_column_is_an_error_and_not_a_zero() {
        let directory = tempfile::tempdir().unwrap();
        Results::default().save(directory.path()).unwrap();
        std::fs::write(directory.path().join(RUNS), "suite,benchmark\nrust,a\n").unwrap();
        assert!(Results::load(directory.path()).is_err());
    }

    #[test]
    fn pairs_are_found_by_their_whole_key() {
        let found = pairs("x=1 ns_per_op=2.5 op=3 bench=name\nline=4");
        assert_eq!(found.get("op"), Some(&3.0));
        assert_eq!(found.get("ns_per_op"), Some(&2.5));
        assert_eq!((found.get("bench"), found.get("line")), (None, Some(&4.0)));
    }
}
