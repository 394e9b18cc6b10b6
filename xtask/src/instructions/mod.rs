//! `cargo xtask instructions`: how many instructions the fast paths execute, kept in `benches/instructions.toml`.
//!
//! Counts do not depend on the load of a machine, so they can be held fast where times cannot.
//!
//! **Not here.** Times (`cargo xtask bench`), slow paths: what is counted finds a block in the thread's cache.
//! **Invariants.** A count is that of the operation alone; the function around it is subtracted. A count that is missing on
//! either side is a failure. A mode (FROZEN, OBSERVE, LEARN) that executes another number of instructions is one, too.

mod callgrind;
mod modes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};

use crate::project::Project;
use crate::table;
use callgrind::Costs;

/// Where the counts are kept.
const FILE: &str = "benches/instructions.toml";
const HEAD: &str =
    "# Instructions of the fast paths, as callgrind counts them: 64 bytes, in the thread's cache; realloc to 60;
# run: a pair of 48 KiB.
# Written by `cargo xtask instructions --fix`; `cargo xtask health` fails when one grows by more than 1.
# No count depends on HAKMEM_MODE: `cargo xtask instructions` compares the modes.
# rust-constant: the layout is known to the compiler. rust-dynamic: it is not. preload: a C program under LD_PRELOAD.
";
/// A front's operations, in the order of the file.
const OPERATIONS: [&str; 6] = ["pair", "alloc", "free", "zeroed", "realloc", "run"];
/// A count may grow so much without failing: slow paths take their turn among thousands, and not every machine copies alike.
const SLACK: f64 = 1.0;

/// Operations of one front.
type Front = BTreeMap<String, f64>;
/// All fronts.
type Counts = BTreeMap<String, Front>;

/// What `cargo xtask instructions` takes.
#[derive(clap::Args)]
pub struct Options {
    /// Write the counts into benches/instructions.toml.
    #[arg(long)]
    fix: bool,
    /// Also count the Rust front of these allocators, features of `hakmem-benches`, comma-separated.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    peers: Vec<String>,
    /// Also count the C front with this library (may be repeated) and with none.
    #[arg(long = "library", value_name = "FILE")]
    libraries: Vec<PathBuf>,
}

/// Counts, prints, and compares with the file or writes it.
pub fn instructions(project: &Project, options: &Options) -> Result<ExitCode> {
    let counts = count(project)?;
    let mut all: Vec<(String, Front)> = counts.iter().map(|(name, front)| (name.clone(), front.clone())).collect();
    for peer in &options.peers {
        match build_counted(project, peer).and_then(|program| rust_fronts(&program)) {
            Ok(fronts) => all.extend(fronts.into_iter().map(|(name, front)| (format!("{name} {peer}"), front))),
            Err(error) => eprintln!("{peer} is left out: {error:#}"),
        }
    }
    // Not every allocator runs under valgrind: snmalloc reserves more addresses than it has.
    for library in &options.libraries {
        match library.canonicalize().context("no such file").and_then(|library| c_front(project, Some(&library))) {
            Ok(front) => all.push((format!("preload {}", library.display()), front)),
            Err(error) => eprintln!("{} is left out: {error:#}", library.display()),
        }
    }
    if !options.libraries.is_empty() {
        all.push(("C library".to_owned(), c_front(project, None)?));
    }
    print(&all);
    let file = project.root().join(FILE);
    if options.fix {
        std::fs::write(&file, text(&counts)).with_context(|| format!("cannot write {}", file.display()))?;
        println!("wrote {FILE}");
        return Ok(ExitCode::SUCCESS);
    }
    let is_good = judge(&kept(&file)?, &counts);
    Ok(if modes::are_equal(project)? && is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether no count has grown, nor depends on the mode.
pub fn is_good(project: &Project) -> Result<bool> {
    let is_good = judge(&kept(&project.root().join(FILE))?, &count(project)?);
    Ok(modes::are_equal(project)? && is_good)
}

fn count(project: &Project) -> Result<Counts> {
    let program = build_counted(project, "hakmem")?;
    let mut counts = rust_fronts(&program)?;
    counts.insert("preload".to_owned(), c_front(project, Some(&project.preload_library()?))?);
    Ok(counts)
}

/// The Rust program with this allocator, in the build directory of `hakmem` or, for others, one of their own.
fn build_counted(project: &Project, allocator: &str) -> Result<PathBuf> {
    let directory = if allocator == "hakmem" { project.target().to_owned() } else { project.target().join("compare") };
    let target = directory.to_string_lossy();
    let what = ["--release", "--package", "hakmem-benches", "--bin", "counted", "--target-dir", &target];
    project.build(&[&what[..], &["--no-default-features", "--features", allocator]].concat())?;
    Ok(directory.join("release").join("counted"))
}

fn rust_fronts(program: &Path) -> Result<Counts> {
    let costs = callgrind::profile(program, None, &[])?.counted;
    let mut fronts = Counts::new();
    for kind in ["constant", "dynamic"] {
        fronts.insert(format!("rust-{kind}"), front(&costs, &format!("_{kind}"))?);
    }
    Ok(fronts)
}

fn c_front(project: &Project, library: Option<&Path>) -> Result<Front> {
    front(&callgrind::profile(&build_counted_c(project)?, library, &[])?.counted, "")
}

/// The C program.
fn build_counted_c(project: &Project) -> Result<PathBuf> {
    let source = project.root().join("benches/programs/counted.c");
    let program = project.target().join("counted-c");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-g", "-fno-builtin", "-Wl,-z,now", "-o"]).arg(&program).arg(&source);
    ensure!(compiler.status().context("cc does not start")?.success(), "cc does not compile {}", source.display());
    Ok(program)
}

/// The operations whose function ends so, without what the function itself costs.
fn front(costs: &Costs, suffix: &str) -> Result<Front> {
    let cost = |operation: &str| {
        let name = format!("{operation}{suffix}");
        costs.get(&name).copied().with_context(|| format!("callgrind saw no counted_{name}"))
    };
    let around = cost("nothing")?;
    let counted = OPERATIONS.iter().map(|operation| Ok(((*operation).to_owned(), rounded(cost(operation)? - around))));
    counted.collect()
}

fn rounded(count: f64) -> f64 {
    (count * 10.0).round() / 10.0
}

fn kept(file: &Path) -> Result<Counts> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {FILE}"))?;
    toml::from_str(&text).with_context(|| format!("{FILE} is no list of counts"))
}

fn text(counts: &Counts) -> String {
    let lines = counts.iter().flat_map(|(name, front)| {
        let counts =
            OPERATIONS.iter().filter_map(|operation| Some(format!("{operation} = {:.1}", front.get(*operation)?)));
        std::iter::once(format!("\n[{name}]")).chain(counts)
    });
    lines.fold(HEAD.to_owned(), |text, line| text + &line + "\n")
}

fn print(fronts: &[(String, Front)]) {
    let heading = ["instructions"].into_iter().chain(OPERATIONS).map(str::to_owned).collect();
    let rows = fronts.iter().map(|(name, front)| {
        let numbers = OPERATIONS
            .iter()
            .map(|operation| front.get(*operation).map_or_else(String::new, |count| format!("{count:.1}")));
        std::iter::once(name.clone()).chain(numbers).collect()
    });
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(rows).collect();
    for line in table::lines(&rows, &[1, 2, 3, 4, 5, 6]) {
        println!("{line}");
    }
}

/// Says what has grown or is missing, and whether that is nothing. What has shrunk is named too: the file should follow.
fn judge(kept: &Counts, now: &Counts) -> bool {
    let mut good = true;
    let names: std::collections::BTreeSet<(&str, &str)> = [kept, now]
        .into_iter()
        .flat_map(|counts| {
            counts.iter().flat_map(|(front, all)| all.keys().map(|name| (front.as_str(), name.as_str())))
        })
        .collect();
    for (front, operation) in names {
        let look = |counts: &Counts| counts.get(front).and_then(|all| all.get(operation)).copied();
        match (look(kept), look(now)) {
            (Some(before), Some(after)) if after > before + SLACK => {
                eprintln!("{front} {operation}: {before:.1} instructions have become {after:.1}");
                good = false;
            }
            (Some(before), Some(after)) if after < before - SLACK => {
                eprintln!(
                    "{front} {operation}: only {after:.1} instructions, {FILE} says {before:.1}: `cargo xtask instructions --fix` keeps that"
                );
            }
            (Some(_), Some(_)) => {}
            _ => {
                eprintln!("{front} {operation}: counted or kept, but not both: `cargo xtask instructions --fix`");
                good = false;
            }
        }
    }
    good
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(front: &str, numbers: &[(&str, f64)]) -> Counts {
        let front_counts = numbers.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
        Counts::from([(front.to_owned(), front_counts)])
    }

    #[test]
    fn count_that_grows_or_is_missing_fails_and_one_that_shrinks_does_not() {
        let kept = counts("preload", &[("pair", 40.0), ("free", 20.0)]);
        assert!(judge(&kept, &kept));
        assert!(judge(&kept, &counts("preload", &[("pair", 30.0), ("free", 20.9)])));
        assert!(!judge(&kept, &counts("preload", &[("pair", 41.1), ("free", 20.0)])));
        assert!(!judge(&kept, &counts("preload", &[("pair", 40.0)])));
        assert!(!judge(&counts("preload", &[("pair", 40.0)]), &kept));
    }

    #[test]
    fn file_that_is_written_is_read_back_the_same() {
        let counts = counts(
            "rust-constant",
            &[("pair", 17.0), ("alloc", 8.1), ("free", 9.0), ("zeroed", 20.0), ("realloc", 3.0), ("run", 90.0)],
        );
        assert_eq!(toml::from_str::<Counts>(&text(&counts)).unwrap(), counts);
    }
}
