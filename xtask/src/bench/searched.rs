//! The benchmarks that a policy is searched for: programs of both suites with less work, because a search runs each some hundred times.
//!
//! **Not here.** The search: `hakmem-tune` does that, with the commands that this module prepares.
//! **Invariants.** What a suite runs is run here as well, by the same preparation; less work means smaller numbers in its arguments
//! or its script and nothing else. A number that is no longer there is an error, not a longer run.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::job::Job;
use super::programs::{Preload, Program, programs};
use super::results::Suite;
use super::switches::BENCHES;
use super::{preload, rust};
use crate::project::Project;

/// A program of the preload suite, and texts of its arguments or script with what replaces them; one that is empty is put at the end.
struct Less {
    name: &'static str,
    instead: &'static [(&'static str, &'static str)],
}

const fn less(name: &'static str, instead: &'static [(&'static str, &'static str)]) -> Less {
    Less { name, instead }
}

/// Interpreters, compilers, databases, tools, kernels, threads, and patterns that are hard on allocators. What computes for most of
/// its time is not here, nor what differs by a factor of two from run to run (`crossing-64k`), and of several of a kind one.
const PROGRAMS: &[Less] = &[
    less("redis", &[("-n 150000", "-n 20000"), ("-n 100000", "-n 20000")]),
    less("python-malloc", &[("range(30000)", "range(8000)"), ("range(400000)", "range(60000)")]),
    less("python-documents", &[("range(4)", "range(1)"), ("12000", "6000")]),
    less("sqlite3", &[("i < 250000", "i < 20000")]),
    less("cc1", &[("-O1", "-fsyntax-only")]),
    less("perl", &[("60000", "15000")]),
    less("ruby", &[("60000", "20000"), ("8.times", "4.times")]),
    less("lua", &[("1, 150", "1, 30"), ("600000", "200000"), ("500000", "100000")]),
    less("gawk", &[("250000", "80000")]),
    less("php-malloc", &[("$round < 6", "$round < 2")]),
    less("xmllint", &[]),
    less("abc", &[("-N 32", "-N 16")]),
    less("dot", &[]),
    less("ghostscript", &[("-r100", "-r50")]),
    less("rocksdb", &[("--num=150000", "--num=30000")]),
    less("bodies", &[("", "20000"), ("", "3")]),
    less("cells", &[("", "5")]),
    less("hashed", &[]),
    less("strings", &[]),
    less("service", &[]),
    less("generations", &[]),
    less("generations-wide", &[("50000", "10000")]),
    less("pipeline", &[("40000", "20000")]),
    less("batches", &[]),
    less("batches-threads", &[]),
    less("graphs", &[]),
    less("replace-100k", &[("10000000", "4000000")]),
    less("replace-wide", &[]),
    less("replace-threads", &[("4000000", "2000000")]),
    less("large", &[]),
    less("large-threads", &[]),
    less("growth", &[("6", "3")]),
    less("phases", &[("6", "2")]),
];

/// One program as `hakmem-tune --programs` reads it.
#[derive(Debug, serde::Serialize)]
pub struct Entry {
    pub name: String,
    command: Vec<String>,
    variables: BTreeMap<String, String>,
    library: &'static str,
    scratch: bool,
}

/// The programs of the preload suite that are wanted by name, prepared; what is not installed is named in the second list.
pub fn of_preload(project: &Project, is_wanted: &dyn Fn(&str) -> bool) -> Result<(Vec<Entry>, Vec<String>)> {
    let build = build_directory(project)?;
    let (mut entries, mut missing) = (Vec::new(), Vec::new());
    for less in PROGRAMS.iter().filter(|less| is_wanted(less.name)) {
        let program = programs().find(|program| program.name == less.name).context("no such program")?;
        match preload::missing(program) {
            Some(why) => missing.push(format!("{}: {why}", less.name)),
            None => entries.push(of_program(project, &build, program, less)?),
        }
    }
    Ok((entries, missing))
}

fn build_directory(project: &Project) -> Result<PathBuf> {
    let build = project.target().join("bench").join("build");
    std::fs::create_dir_all(&build).with_context(|| format!("cannot make {}", build.display()))?;
    Ok(build)
}

fn of_program(project: &Project, build: &Path, program: &Program, less: &Less) -> Result<Entry> {
    eprintln!("preparing {}", program.name);
    let inputs = preload::prepare(project, build, program)?;
    let job = preload::job(project, program, &inputs, &preload::Library::none(), &[]);
    let mut words = texts(job.command.iter().map(OsString::as_os_str))?;
    for (from, to) in less.instead {
        replace(&mut words, from, to, &inputs).with_context(|| program.name)?;
    }
    let library = if program.preload == Preload::Everything { "LD_PRELOAD" } else { preload::LIBRARY };
    Ok(Entry { variables: variables(&job), ..Entry::new(program.name, words, library) })
}

/// Those of the Rust suite, with the percent of their operations that a sweep has.
pub fn of_rust(project: &Project, is_wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Entry>> {
    let scale_of = |name: &str| BENCHES.iter().find(|(known, _)| *known == name).map_or(0, |(_, percent)| *percent);
    if !BENCHES.iter().any(|(name, _)| is_wanted(name)) {
        return Ok(Vec::new());
    }
    let variants = rust::build(project, &build_directory(project)?, &["hakmem".to_owned()])?;
    let variant = variants.first().context("no program was built")?;
    let rows = rust::rows(Suite::Rust, &rust::list(variant)?, scale_of)?;
    let wanted = rows.into_iter().filter(|(row, ..)| scale_of(&row.name) > 0 && is_wanted(&row.name));
    wanted
        .map(|(row, arguments, cpus)| {
            let job = rust::job(variant, &arguments, cpus, &[]);
            let words = texts(job.command.iter().map(OsString::as_os_str))?;
            Ok(Entry { variables: variables(&job), ..Entry::new(&format!("rust-{}", row.name), words, "inside") })
        })
        .collect()
}

impl Entry {
    /// A program that works in a directory of its own.
    pub fn new(name: &str, command: Vec<String>, library: &'static str) -> Self {
        Self { name: name.to_owned(), command, variables: BTreeMap::new(), library, scratch: true }
    }
}

fn variables(job: &Job) -> BTreeMap<String, String> {
    job.variables.iter().cloned().chain([("LC_ALL".to_owned(), "C.UTF-8".to_owned())]).collect()
}

/// A command as texts, which a file of programs needs.
pub fn texts<'a>(words: impl Iterator<Item = &'a OsStr>) -> Result<Vec<String>> {
    words.map(|word| word.to_str().map(str::to_owned).with_context(|| format!("{word:?} is no text"))).collect()
}

/// Puts `to` in the place of `from`, which is an argument, a part of one, or in a script that an argument names: then a changed copy
/// of the script is named.
pub fn replace(words: &mut Vec<String>, from: &str, to: &str, inputs: &Path) -> Result<()> {
    if from.is_empty() {
        words.push(to.to_owned());
        return Ok(());
    }
    // Of several the last: programs take the number that is turned behind those that say what is done.
    let exact = words.iter().rposition(|word| word == from);
    let place = exact.or_else(|| words.iter().rposition(|word| !word.starts_with('/') && word.contains(from)));
    if let Some(word) = place.and_then(|place| words.get_mut(place)) {
        *word = word.replace(from, to);
        return Ok(());
    }
    for word in words.iter_mut() {
        let Some((before, path)) = word.find('/').map(|start| word.split_at(start)) else { continue };
        let Some(script) = std::fs::read_to_string(path).ok().filter(|script| script.contains(from)) else { continue };
        let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy();
        let copy = inputs.join(format!("less-{}", name.trim_start_matches("less-")));
        std::fs::write(&copy, script.replace(from, to)).with_context(|| format!("cannot write {}", copy.display()))?;
        *word = format!("{before}{}", copy.display());
        return Ok(());
    }
    anyhow::bail!("{from:?} is in none of its arguments and scripts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_in_the_suite_and_only_once() {
        let mut names: Vec<&str> = PROGRAMS.iter().map(|less| less.name).collect();
        assert!(names.iter().all(|name| programs().any(|program| program.name == *name)));
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn numbers_are_made_smaller_in_arguments_and_in_a_copy_of_the_script() {
        let scratch = tempfile::tempdir().unwrap();
        let script = scratch.path().join("a.sql");
        std::fs::write(&script, "i < 100; j < 100; k < 7").unwrap();
        let mut words =
            vec!["x".to_owned(), "6".to_owned(), format!(".read {}", script.display()), "gen -N 32".to_owned()];
        for (from, to) in [("6", "2"), ("-N 32", "-N 8"), ("< 100", "< 10"), ("k < 7", "k < 2"), ("", "9")] {
            replace(&mut words, from, to, scratch.path()).unwrap();
        }
        assert_eq!((words[1].as_str(), words[3].as_str(), words[4].as_str()), ("2", "gen -N 8", "9"));
        let copy = words[2].strip_prefix(".read ").unwrap();
        assert_eq!(std::fs::read_to_string(copy).unwrap(), "i < 10; j < 10; k < 2");
        assert_eq!(std::fs::read_to_string(&script).unwrap(), "i < 100; j < 100; k < 7", "the script stays");
        assert!(replace(&mut words, "gone", "1", scratch.path()).is_err());
    }

    #[test]
    fn what_is_replaced_is_still_there() {
        let project = Project::load().unwrap();
        let scratch = tempfile::tempdir().unwrap();
        for less in PROGRAMS {
            let program = programs().find(|program| program.name == less.name).unwrap();
            let job = preload::job(&project, program, scratch.path(), &preload::Library::none(), &[]);
            let mut words = texts(job.command.iter().map(OsString::as_os_str)).unwrap();
            for (from, to) in less.instead {
                replace(&mut words, from, to, scratch.path()).unwrap_or_else(|error| panic!("{}: {error}", less.name));
            }
        }
    }
}
