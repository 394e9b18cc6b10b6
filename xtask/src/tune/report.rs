//! `cargo xtask learn-report`: the long-running programs of `benches/programs/phases` under hakmem's modes, under policies that
//! were found for them, and under other allocators.
//!
//! **Not here.** Measuring: `hakmem-tune evaluate` does that, one program at a time.
//! **Invariants.** What could not be run is named in the report, and fails the command unless that was allowed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

use super::Tools;
use crate::bench::searched;
use crate::launch;
use crate::project::Project;

/// A program that runs for a while, in phases.
struct Program {
    name: &'static str,
    what: &'static str,
    /// What must be installed, with its Debian package.
    needs: &'static [(&'static str, &'static str)],
    command: &'static [&'static str],
    /// Its last argument, a file of `benches/programs/phases`; what `after` says comes behind it.
    script: &'static str,
    after: &'static [&'static str],
    /// Texts of the script with what stands for them where a search runs it some hundred times.
    less: &'static [(&'static str, &'static str)],
}

const PROGRAMS: &[Program] = &[
    Program {
        name: "redis",
        what: "redis-server: two days of load, two nights with a request now and then",
        needs: &[("redis-server", "redis-server"), ("redis-benchmark", "redis-tools"), ("redis-cli", "redis-tools")],
        command: &["bash"],
        script: "redis.sh",
        after: &[],
        less: &[("200000", "50000"), ("60000", "20000"), ("seq 30", "seq 10")],
    },
    Program {
        name: "compiler",
        what: "a compiler that stays (Python's, every object from malloc): builds, edits, breaks",
        needs: &[("/usr/bin/python3", "python3")],
        command: &["env", "PYTHONMALLOC=malloc", "/usr/bin/python3"],
        script: "compiler.py",
        after: &[],
        less: &[
            ("* 40 : branch * 40 + 80", "* 40 : branch * 40 + 30"),
            ("range(40)", "range(10)"),
            ("range(25)", "range(10)"),
        ],
    },
    Program {
        name: "batch",
        what: "a job in sqlite that loads, reports, drops and waits",
        needs: &[("sqlite3", "sqlite3")],
        command: &["sqlite3", ":memory:", "-init"],
        script: "batch.sql",
        after: &[".quit"],
        less: &[("sleep 3", "sleep 1"), ("sleep 2", "sleep 1"), ("300000", "80000"), ("200000", "80000")],
    },
    Program {
        name: "pages",
        what: "a web server's day in Ruby: pages thrown away, sessions kept",
        needs: &[("ruby", "ruby")],
        command: &["ruby"],
        script: "pages.rb",
        after: &[],
        less: &[("1500, 120", "500, 120"), ("3000, 30, 3000", "1000, 30, 1000"), ("quiet * 10", "quiet * 4")],
    },
];

/// Other allocators, as Debian packages them.
const PEERS: &[(&str, &str, &str)] = &[
    ("jemalloc", "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", "libjemalloc2"),
    ("mimalloc", "/usr/lib/x86_64-linux-gnu/libmimalloc.so.2", "libmimalloc2.0"),
];

/// What the command line chose.
#[derive(clap::Args)]
pub struct Options {
    /// Only this program (may be repeated): redis, compiler, batch, pages.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Runs of each program under each allocator.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Search a policy for each program first, with so many runs; 0 takes those that an earlier search left.
    #[arg(long, value_name = "RUNS", default_value_t = 0)]
    search: usize,
    /// Modes of hakmem.
    #[arg(long, value_name = "MODES", default_value = "FROZEN,OBSERVE,LEARN")]
    modes: String,
    /// A program or allocator that is not installed does not fail the command.
    #[arg(long)]
    allow_missing: bool,
}

/// Runs the programs and writes `target/learn/report.md`.
pub fn report(project: &Project, options: &Options) -> Result<ExitCode> {
    if let Some(unknown) = options.only.iter().find(|name| !PROGRAMS.iter().any(|program| program.name == **name)) {
        let names: Vec<&str> = PROGRAMS.iter().map(|program| program.name).collect();
        bail!("no program `{unknown}`; there are {}", names.join(", "));
    }
    let tools = Tools::build(project)?;
    let place = project.target().join("learn");
    let mut page = String::from("# Long-running programs under learning, policies and other allocators\n");
    let mut missing = Vec::new();
    let peers: Vec<_> = PEERS
        .iter()
        .filter(|(name, library, package)| {
            let is_there = Path::new(library).is_file();
            if !is_there {
                missing.push(format!("{name} ({library}, Debian package {package})"));
            }
            is_there
        })
        .collect();
    for program in PROGRAMS {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == program.name) {
            continue;
        }
        if let Some((what, package)) = program.needs.iter().find(|(name, _)| launch::find_program(name).is_none()) {
            missing.push(format!("{} ({what}, Debian package {package})", program.name));
            continue;
        }
        eprintln!("== {}: {}", program.name, program.what);
        let table = program.measure(project, &tools, &place.join(program.name), &peers, options)?;
        write!(page, "\n## {}\n\n{}\n\n{table}", program.name, program.what)?;
    }
    for name in &missing {
        eprintln!("NOT RUN: {name}");
        write!(page, "\nNOT RUN: {name}\n")?;
    }
    std::fs::create_dir_all(&place)?;
    let written = place.join("report.md");
    std::fs::write(&written, page)?;
    println!("Written: {}", written.display());
    Ok(if missing.is_empty() || options.allow_missing { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// These programs for a search, with less work and shorter nights, and what is missing.
pub fn entries(project: &Project, is_wanted: &dyn Fn(&str) -> bool) -> Result<(Vec<searched::Entry>, Vec<String>)> {
    let inputs = project.target().join("tune");
    std::fs::create_dir_all(&inputs)?;
    let (mut entries, mut missing) = (Vec::new(), Vec::new());
    for program in PROGRAMS.iter().filter(|program| is_wanted(program.name)) {
        if let Some((what, package)) = program.needs.iter().find(|(name, _)| launch::find_program(name).is_none()) {
            missing.push(format!("{} ({what}, Debian package {package})", program.name));
            continue;
        }
        let mut words = searched::texts(program.words(project).iter().map(|word| word.as_os_str()))?;
        for (from, to) in program.less {
            searched::replace(&mut words, from, to, &inputs).with_context(|| program.name)?;
        }
        entries.push(searched::Entry::new(&format!("phases-{}", program.name), words, "LD_PRELOAD"));
    }
    Ok((entries, missing))
}

impl Program {
    fn measure(
        &self,
        project: &Project,
        tools: &Tools,
        place: &Path,
        peers: &[&(&str, &str, &str)],
        options: &Options,
    ) -> Result<String> {
        std::fs::create_dir_all(place)?;
        let policy = place.join("policy.toml");
        if options.search > 0 {
            let mut command = tools.command(project, "run");
            command.arg("--budget").arg(options.search.to_string()).arg("--out").arg(&policy);
            let status = command.arg("--").args(self.words(project)).status().context("hakmem-tune does not start")?;
            ensure!(status.success(), "no policy for {}: {status}", self.name);
        }
        let mut command = tools.command(project, "evaluate");
        command
            .arg("--modes")
            .arg(&options.modes)
            .arg("--rounds")
            .arg(options.rounds.to_string())
            .arg("--out")
            .arg(place);
        if policy.is_file() {
            command.arg("--policy").arg(&policy);
        }
        for (name, library, _) in peers {
            command.arg("--peer").arg(format!("{name}={library}"));
        }
        let status = command.arg("--").args(self.words(project)).status().context("hakmem-tune does not start")?;
        ensure!(status.success(), "{} could not be compared: {status}", self.name);
        Ok(std::fs::read_to_string(place.join("table.md"))?)
    }

    fn words(&self, project: &Project) -> Vec<PathBuf> {
        let script = project.root().join("benches/programs/phases").join(self.script);
        let plain = |words: &[&str]| words.iter().map(PathBuf::from).collect::<Vec<_>>();
        [plain(self.command), vec![script], plain(self.after)].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_of_the_phases_belongs_to_a_program() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/programs/phases");
        let mut found: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        let mut known: Vec<String> = PROGRAMS.iter().map(|program| program.script.to_owned()).collect();
        found.sort();
        known.sort();
        assert_eq!(found, known);
    }

    #[test]
    fn what_a_search_replaces_is_still_there() {
        let project = Project::load().unwrap();
        let (entries, missing) = entries(&project, &|_| true).unwrap();
        assert_eq!(entries.len() + missing.len(), PROGRAMS.len());
    }
}
