//! Every pass of a search or a comparison in a file, so that what was cut short goes on where it ended.
//!
//! A search does the same again when it sees the same figures, so a resumed one asks for the recorded passes in their order, gets
//! them without running anything, and runs from where they end. One that asks for something else is another one.
//!
//! **Invariants.** A pass is in the file as a whole or will be taken out of it. Passes of other programs, of programs that were
//! run in another way, of another library or in another order are refused, never mixed in.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::measure::Usage;
use crate::score::Pass;
use crate::subject::Program;

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
    setup: String,
    /// Where it ends in the file.
    #[serde(skip)]
    end: u64,
}

/// The passes of a command.
pub struct Record {
    writer: csv::Writer<File>,
    /// Passes of an earlier call that have not been asked for, with their policies.
    earlier: VecDeque<(String, Pass)>,
    /// What each program is called, and how it is run.
    programs: Vec<(String, String)>,
    library: String,
    count: u64,
}

impl Record {
    /// Begins one, or goes on with the one that is there.
    pub fn open(path: &Path, programs: &[Program], library: &Path, resume: bool) -> Result<Self> {
        let library = stamp(library)?;
        let programs: Vec<_> = programs.iter().map(|program| (program.called(), program.setup())).collect();
        let lines = if resume && path.is_file() { read(path)? } else { Vec::new() };
        let (mut earlier, mut end) = (VecDeque::new(), 0);
        for lines in lines.chunk_by(|one, next| one.pass == next.pass) {
            let pass = whole(lines, &programs, &library);
            if let Some(pass) = pass.with_context(|| format!("{} cannot be resumed", path.display()))? {
                earlier.push_back(pass);
                end = lines.last().map_or(end, |line| line.end);
            }
        }
        let count = earlier.len() as u64;
        // A file that is refused stays as it is, and of one that is not only what is no whole pass goes: hours of runs are not written anew.
        let file = File::options().create(true).append(true).open(path);
        let file = file.and_then(|file| file.set_len(end).map(|()| file));
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        let writer = csv::WriterBuilder::new().has_headers(end == 0).from_writer(file);
        Ok(Self { writer, earlier, programs, library, count })
    }

    /// How many passes of an earlier call there are still.
    pub fn waiting(&self) -> usize {
        self.earlier.len()
    }

    /// The next recorded pass, which has to be of this policy; `None` where they end.
    pub fn take(&mut self, policy: &str) -> Result<Option<Pass>> {
        let Some((recorded, pass)) = self.earlier.pop_front() else { return Ok(None) };
        ensure!(
            recorded == policy,
            "this cannot be resumed: it needs a pass of {policy}, recorded is one of {recorded}"
        );
        Ok(Some(pass))
    }

    /// Writes a pass down.
    pub fn add(&mut self, policy: &str, pass: &[Usage]) -> Result<()> {
        for ((program, setup), run) in self.programs.iter().zip(pass) {
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
                setup: setup.clone(),
                end: 0,
            };
            self.writer.serialize(line)?;
        }
        self.count += 1;
        self.writer.flush().context("cannot write the record of passes")
    }
}

/// The pass that these lines are; `None` where the last are missing.
fn whole(lines: &[Line], programs: &[(String, String)], library: &str) -> Result<Option<(String, Pass)>> {
    let Some(first) = lines.first() else { return Ok(None) };
    ensure!(first.library == library, "it was measured with another library");
    let are_same =
        lines.iter().zip(programs).all(|(line, (program, setup))| line.program == *program && line.setup == *setup);
    ensure!(
        are_same && lines.len() <= programs.len(),
        "it is of other programs, or of other commands or variables for them"
    );
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
    parse(lines).with_context(|| format!("{} is no record of passes", path.display()))
}

fn parse(text: &str) -> Result<Vec<Line>, csv::Error> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let (names, mut record) = (reader.headers()?.clone(), csv::StringRecord::new());
    let mut lines = Vec::new();
    while reader.read_record(&mut record)? {
        lines.push(Line { end: reader.position().byte(), ..record.deserialize(Some(&names))? });
    }
    Ok(lines)
}

/// What tells a library from the one that is built after it.
fn stamp(library: &Path) -> Result<String> {
    let found = library.metadata().with_context(|| format!("cannot look at {}", library.display()))?;
    let built = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Ok(format!("{} bytes of {}", found.len(), built.as_secs()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::subject::Library;

    fn pass(cpu: f64) -> Pass {
        vec![Usage { cpu, ..Usage::default() }, Usage { cpu: cpu * 2.0, ..Usage::default() }]
    }

    fn programs(names: &[&str]) -> Vec<Program> {
        names.iter().map(|&name| Program { name: name.to_owned(), ..Program::default() }).collect()
    }

    /// A directory, a record's place and a library in it.
    fn place() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let (path, library) = (directory.path().join("passes.csv"), directory.path().join("lib.so"));
        std::fs::write(&library, "x").unwrap();
        (directory, path, library)
    }

    #[test]
    fn a_record_goes_on_after_its_last_whole_pass() {
        let (_directory, path, library) = place();
        let open = |resume| Record::open(&path, &programs(&["a", "b"]), &library, resume);
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
        assert_eq!(record.take("defaults").unwrap().unwrap()[1].cpu, 2.0);
        assert_eq!(record.take("x=1").unwrap().unwrap()[1].cpu, 4.0);
        assert!(record.take("defaults").unwrap().is_none() && record.take("y=1").unwrap().is_none());
        record.add("defaults", &pass(4.0)).unwrap();
        drop(record);
        let again = std::fs::read_to_string(&path).unwrap();
        assert_eq!(again.lines().count(), 1 + 2 * 3, "{again}");
        // What was measured is kept, not written anew, which could be cut short.
        let kept = again.replace(",2.0,", ",2.00,");
        assert_ne!(kept, again);
        std::fs::write(&path, &kept).unwrap();
        assert_eq!(open(true).unwrap().waiting(), 3);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), kept);
        assert_eq!(open(false).unwrap().waiting(), 0, "a new record forgets");
    }

    #[test]
    fn a_pass_of_another_policy_than_the_recorded_one_is_refused() {
        let (_directory, path, library) = place();
        let open = |resume| Record::open(&path, &programs(&["a", "b"]), &library, resume);
        let mut record = open(false).unwrap();
        for policy in ["defaults", "x=1", "x=1", "defaults"] {
            record.add(policy, &pass(1.0)).unwrap();
        }
        drop(record);
        let mut record = open(true).unwrap();
        record.take("defaults").unwrap();
        let error = record.take("y=1").unwrap_err();
        assert!(error.to_string().ends_with("it needs a pass of y=1, recorded is one of x=1"), "{error}");
        drop(record);
        assert_eq!(open(true).unwrap().waiting(), 4, "what is refused stays");
    }

    #[test]
    fn passes_of_something_else_are_refused() {
        let (_directory, path, library) = place();
        let both = programs(&["a", "b"]);
        let mut record = Record::open(&path, &both, &library, false).unwrap();
        record.add("defaults", &pass(1.0)).unwrap();
        drop(record);
        let kept = std::fs::read(&path).unwrap();
        let mut others = [&["a"][..], &["a", "c"], &["b", "a"]].map(programs).to_vec();
        let changed = |change: &dyn Fn(&mut Program)| {
            let mut programs = both.clone();
            programs.iter_mut().for_each(change);
            programs
        };
        others.push(changed(&|program| program.command.push("x".into())));
        others.push(changed(&|program| program.variables.push(("X".to_owned(), "1".to_owned()))));
        others.push(changed(&|program| program.library = Library::Inside));
        others.push(changed(&|program| program.scratch = true));
        for others in others {
            assert!(Record::open(&path, &others, &library, true).is_err(), "{others:?}");
            assert_eq!(std::fs::read(&path).unwrap(), kept, "what is refused stays");
        }
        // Passes that ended within one limit are the same within another.
        Record::open(&path, &changed(&|program| program.limit *= 2), &library, true).unwrap();
        std::fs::write(&library, "another").unwrap();
        let error = Record::open(&path, &both, &library, true).map(|_| ()).unwrap_err();
        assert!(format!("{error:#}").contains("another library"), "{error:#}");
    }
}
