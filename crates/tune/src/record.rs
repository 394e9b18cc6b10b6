//! Every pass of a search or a comparison in a file, so that what was cut short goes on where it ended.
//!
//! A search does the same again when it sees the same figures, so a resumed one asks for the recorded passes in their order, gets
//! them without running anything, and runs from where they end.
//!
//! **Invariants.** A pass is in the file as a whole or will be taken out of it. Passes of other programs or of another library
//! are refused, never mixed in.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::measure::Usage;
use crate::score::Pass;

/// One run of one program, as a line.
#[derive(Clone, Serialize, Deserialize)]
struct Line {
    pass: u64,
    policy: String,
    program: String,
    wall_s: f64,
    cpu_s: f64,
    faults: f64,
    mean_rss_bytes: f64,
    peak_rss_bytes: f64,
    library: String,
}

/// The passes of a command.
pub struct Record {
    writer: csv::Writer<File>,
    /// Passes of an earlier call that have not been asked for, by policy.
    earlier: BTreeMap<String, VecDeque<Pass>>,
    programs: Vec<String>,
    library: String,
    count: u64,
}

impl Record {
    /// Begins one, or goes on with the one that is there.
    pub fn open(path: &Path, programs: Vec<String>, library: &Path, resume: bool) -> Result<Self> {
        let library = stamp(library)?;
        let lines = if resume && path.is_file() { read(path)? } else { Vec::new() };
        // Before anything is written: a file that is refused stays as it is.
        let mut passes = Vec::new();
        for lines in lines.chunk_by(|one, next| one.pass == next.pass) {
            let pass = whole(lines, &programs, &library);
            passes.extend(pass.with_context(|| format!("{} cannot be resumed", path.display()))?);
        }
        let writer = csv::Writer::from_path(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut record = Self { writer, earlier: BTreeMap::new(), programs, library, count: 0 };
        for (policy, pass) in passes {
            record.add(&policy, &pass)?;
            record.earlier.entry(policy).or_default().push_back(pass);
        }
        Ok(record)
    }

    /// How many passes of an earlier call there are still.
    pub fn waiting(&self) -> usize {
        self.earlier.values().map(VecDeque::len).sum()
    }

    /// The next recorded pass of a policy.
    pub fn take(&mut self, policy: &str) -> Option<Pass> {
        self.earlier.get_mut(policy)?.pop_front()
    }

    /// Writes a pass down.
    pub fn add(&mut self, policy: &str, pass: &[Usage]) -> Result<()> {
        for (program, run) in self.programs.iter().zip(pass) {
            let line = Line {
                pass: self.count,
                policy: policy.to_owned(),
                program: program.clone(),
                wall_s: run.wall,
                cpu_s: run.cpu,
                faults: run.faults,
                mean_rss_bytes: run.mean_rss,
                peak_rss_bytes: run.peak_rss,
                library: self.library.clone(),
            };
            self.writer.serialize(line)?;
        }
        self.count += 1;
        self.writer.flush().context("cannot write the record of passes")
    }
}

/// The pass that these lines are; `None` where the last are missing.
fn whole(lines: &[Line], programs: &[String], library: &str) -> Result<Option<(String, Pass)>> {
    let Some(first) = lines.first() else { return Ok(None) };
    ensure!(first.library == library, "it was measured with another library");
    let are_same = lines.iter().zip(programs).all(|(line, program)| line.program == *program);
    ensure!(are_same && lines.len() <= programs.len(), "it is of other programs");
    let run = |line: &Line| Usage {
        wall: line.wall_s,
        cpu: line.cpu_s,
        faults: line.faults,
        mean_rss: line.mean_rss_bytes,
        peak_rss: line.peak_rss_bytes,
        curve: Vec::new(),
    };
    Ok((lines.len() == programs.len()).then(|| (first.policy.clone(), lines.iter().map(run).collect())))
}

fn read(path: &Path) -> Result<Vec<Line>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    // A line without its end was cut off, and its pass with it.
    let lines = text.rfind('\n').map_or("", |end| text.split_at(end + 1).0);
    let mut reader = csv::Reader::from_reader(lines.as_bytes());
    let lines: Result<Vec<Line>, csv::Error> = reader.deserialize().collect();
    lines.with_context(|| format!("{} is no record of passes", path.display()))
}

/// What tells a library from the one that is built after it.
fn stamp(library: &Path) -> Result<String> {
    let found = library.metadata().with_context(|| format!("cannot look at {}", library.display()))?;
    let built = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Ok(format!("{} bytes of {}", found.len(), built.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(cpu: f64) -> Pass {
        vec![Usage { cpu, ..Usage::default() }, Usage { cpu: cpu * 2.0, ..Usage::default() }]
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_record_goes_on_after_its_last_whole_pass() {
        let directory = tempfile::tempdir().unwrap();
        let (path, library) = (directory.path().join("passes.csv"), directory.path().join("lib.so"));
        std::fs::write(&library, "x").unwrap();
        let open = |resume| Record::open(&path, names(&["a", "b"]), &library, resume);
        let mut record = open(true).unwrap();
        for (policy, cpu) in [("defaults", 1.0), ("x=1", 2.0), ("defaults", 3.0)] {
            record.add(policy, &pass(cpu)).unwrap();
        }
        drop(record);
        let whole = std::fs::read_to_string(&path).unwrap();
        // Cut in the midst of the last line, as a killed run leaves it.
        std::fs::write(&path, &whole[..whole.len() - 30]).unwrap();
        let mut record = open(true).unwrap();
        assert_eq!(record.waiting(), 2);
        assert_eq!(record.take("defaults").unwrap()[1].cpu, 2.0);
        assert!(record.take("defaults").is_none() && record.take("y=1").is_none());
        record.add("defaults", &pass(4.0)).unwrap();
        drop(record);
        let mut record = open(true).unwrap();
        assert_eq!((record.waiting(), record.take("x=1").unwrap()[0].cpu), (3, 2.0));
        drop(record);
        assert_eq!(open(false).unwrap().waiting(), 0, "a new record forgets");
    }

    #[test]
    fn passes_of_something_else_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (path, library) = (directory.path().join("passes.csv"), directory.path().join("lib.so"));
        std::fs::write(&library, "x").unwrap();
        let mut record = Record::open(&path, names(&["a", "b"]), &library, false).unwrap();
        record.add("defaults", &pass(1.0)).unwrap();
        drop(record);
        let kept = std::fs::read(&path).unwrap();
        for others in [&["a"][..], &["a", "c"], &["b", "a"]] {
            assert!(Record::open(&path, names(others), &library, true).is_err(), "{others:?}");
            assert_eq!(std::fs::read(&path).unwrap(), kept, "what is refused stays");
        }
        std::fs::write(&library, "another").unwrap();
        let error = Record::open(&path, names(&["a", "b"]), &library, true).map(|_| ()).unwrap_err();
        assert!(format!("{error:#}").contains("another library"), "{error:#}");
    }
}
