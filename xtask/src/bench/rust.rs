//! The Rust suite and the scaling suite: the program `suite`, built once per allocator.
//!
//! All that is known of its benchmarks is what `suite --list` prints, one line of `key=value` pairs for each; values with blanks
//! stand in quotes:
//! - `name= group= ops= operation=`: always. Group `scaling` is the scaling suite, all others are the Rust suite.
//! - `threads=N`: above 1 it may use all processors. Without it the group decides ([`ON_ONE`]).
//! - `parameter=threads values=1,2,4,8,16`: it is run once for each value as `suite NAME --threads 1`, and these are the points of
//!   a line. Any option of `suite` can be the parameter; K, M and G behind a value are powers of 1024. A name that ends with
//!   `-threads` says that the threads run at the same time: of these the report draws the efficiency.
//!
//! A run prints one line of such pairs: `ns_per_op=` and whatever else `results::Run` has a column for.
//!
//! **Invariants.** Every allocator's program is built from the same sources with the same profile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::job::{Expected, Job};
use super::machine::forget_how_written;
use super::programs::Cpus;
use super::results::{Allocator, Point, Row, Suite, Unit};
use crate::project::{Project, copied};

/// Peers unless the caller names others, as features of the package.
pub const PEERS: [&str; 10] =
    ["mimalloc2", "mimalloc", "jemalloc", "snmalloc", "rpmalloc", "tcmalloc", "rusty", "sefer", "ferroc", "system"];

const PACKAGE: &str = "hakmem-benches";

/// Groups whose benchmarks have a single thread unless they say otherwise.
const ON_ONE: [&str; 4] = ["tiny", "batch", "replace", "growth"];

/// A line of `suite --list`.
#[derive(Clone, PartialEq, Debug)]
pub struct Listed {
    name: String,
    group: String,
    operation: String,
    ops: u64,
    cpus: Cpus,
    parameter: Option<(String, Vec<String>)>,
}

/// A `suite` program.
pub struct Variant {
    /// Its allocator.
    pub name: String,
    /// Of the allocator's crate.
    pub version: String,
    program: PathBuf,
}

/// Builds `suite` with each of these features and copies it out before the next build overwrites it. All share a target
/// directory, so that only what the features change is compiled again.
pub fn build(project: &Project, build: &Path, allocators: &[String]) -> Result<Vec<Variant>> {
    let directory = build.to_string_lossy();
    allocators
        .iter()
        .map(|name| {
            eprintln!("building the Rust suite with {name}");
            let package = ["--release", "--package", PACKAGE, "--bin", "suite", "--target-dir", &directory];
            project.build(&[&package[..], &["--no-default-features", "--features", name]].concat())?;
            let program =
                copied(&build.join("release").join("suite"), &build.join("programs"), &format!("suite-{name}"))?;
            forget_how_written(&program)?;
            Ok(Variant { name: name.clone(), version: version(project, name), program })
        })
        .collect()
}

/// Those of `names` that the package has a feature for, and the others.
pub fn known(project: &Project, names: &[String]) -> (Vec<String>, Vec<String>) {
    let features = project.package(PACKAGE).map(|package| &package.features);
    names.iter().cloned().partition(|name| features.is_some_and(|features| features.contains_key(name)))
}

/// A program that was built before, from other sources: `name=path`.
pub fn kept(name: &str, path: &Path) -> Result<Variant> {
    let program = path.canonicalize().with_context(|| format!("{name}: there is no {}", path.display()))?;
    forget_how_written(&program)?;
    Ok(Variant { name: name.to_owned(), version: "a program that was kept".to_owned(), program })
}

/// The version of the crate behind a feature, from the lock file.
fn version(project: &Project, feature: &str) -> String {
    let package = project.package(PACKAGE);
    let enabled = package.and_then(|package| package.features.get(feature)).cloned().unwrap_or_default();
    let crates: Vec<&str> = enabled.iter().filter_map(|name| name.strip_prefix("dep:")).collect();
    let found: Vec<String> = crates.iter().map(|name| locked_version(project, name)).collect();
    if found.is_empty() { "the C library's".to_owned() } else { found.join(", ") }
}

/// A crate and its version in the lock file.
pub fn locked_version(project: &Project, name: &str) -> String {
    let lock = std::fs::read_to_string(project.root().join("Cargo.lock")).unwrap_or_default();
    format!("{name} {}", locked(&lock, name).unwrap_or_else(|| "of an unknown version".to_owned()))
}

fn locked(lock: &str, name: &str) -> Option<String> {
    let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    Some(rest.split('"').next()?.to_owned())
}

/// What the program of the subject offers.
pub fn list(variant: &Variant) -> Result<Vec<Listed>> {
    let output = Command::new(&variant.program).arg("--list").output().context("suite does not start")?;
    ensure!(output.status.success(), "suite --list: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    let listed: Result<Vec<Listed>> = text.lines().filter(|line| !line.trim().is_empty()).map(parse).collect();
    let listed = listed?;
    ensure!(!listed.is_empty(), "suite --list prints nothing");
    Ok(listed)
}

fn parse(line: &str) -> Result<Listed> {
    let pairs = quoted_pairs(line);
    let text = |key: &str| pairs.get(key).cloned().with_context(|| format!("no {key}= in {line:?}"));
    let group = text("group")?;
    let many = pairs.get("threads").map_or_else(|| !ON_ONE.contains(&group.as_str()), |threads| threads != "1");
    let parameter = match (pairs.get("parameter"), pairs.get("values")) {
        (Some(parameter), Some(values)) => Some((parameter.clone(), values.split(',').map(str::to_owned).collect())),
        (None, None) => None,
        _ => bail!("only one of parameter= and values= in {line:?}"),
    };
    Ok(Listed {
        name: text("name")?,
        group,
        operation: text("operation")?,
        ops: number(&text("ops")?)?,
        cpus: if many { Cpus::All } else { Cpus::One },
        parameter,
    })
}

/// A number, with K, M or G behind it for powers of 1024.
fn number(text: &str) -> Result<u64> {
    let (digits, shift) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(digits) if text.ends_with('K') => (digits, 10),
        Some(digits) if text.ends_with('M') => (digits, 20),
        Some(digits) => (digits, 30),
        None => (text, 0),
    };
    Ok(digits.parse::<u64>().with_context(|| format!("{text:?} is no number"))? << shift)
}

/// `key=value` and `key="value with blanks"`.
fn quoted_pairs(line: &str) -> BTreeMap<String, String> {
    let mut pairs = BTreeMap::new();
    let mut rest = line.trim_start();
    while let Some((key, value)) = rest.split_once('=') {
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => value.split_once(char::is_whitespace).unwrap_or((value, "")),
        };
        pairs.insert(key.trim().to_owned(), value.to_owned());
        rest = after.trim_start();
    }
    pairs
}

/// The rows of a suite, each with the arguments that run it. `scale_of` a benchmark is the percent of its usual operations.
pub fn rows(suite: Suite, listed: &[Listed], scale_of: impl Fn(&str) -> u64) -> Result<Vec<(Row, Vec<String>, Cpus)>> {
    let mut rows = Vec::new();
    for bench in listed.iter().filter(|bench| (bench.group == "scaling") == (suite == Suite::Scaling)) {
        let ops = (bench.ops * scale_of(&bench.name) / 100).max(1).to_string();
        let mut add = |name: String, point: Option<Point>, option: Vec<String>| {
            let arguments = [vec![bench.name.clone(), "--ops".to_owned(), ops.clone()], option].concat();
            let (group, what) = (bench.group.clone(), bench.operation.clone());
            rows.push((Row { suite, name, group, what, unit: Unit::NsPerOp, point }, arguments, bench.cpus));
        };
        let Some((parameter, values)) = &bench.parameter else {
            add(bench.name.clone(), None, Vec::new());
            continue;
        };
        for text in values {
            let value = number(text)?;
            let point = Point { series: bench.name.clone(), parameter: parameter.clone(), value: value as f64 };
            add(format!("{}/{text}", bench.name), Some(point), vec![format!("--{parameter}"), value.to_string()]);
        }
    }
    Ok(rows)
}

/// One of its runs.
pub fn job(variant: &Variant, arguments: &[String], cpus: Cpus, variables: &[(String, String)]) -> Job {
    let mut command = vec![variant.program.clone().into_os_string()];
    command.extend(arguments.iter().map(Into::into));
    Job { command, variables: variables.to_vec(), cpus, expected: Expected::Figures }
}

/// As an entry of the results.
pub fn described(variant: &Variant, suite: Suite) -> Allocator {
    Allocator { suite, name: variant.name.clone(), version: variant.version.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_list_is_read_with_its_quotes() {
        let listed = parse("name=pair64 group=tiny ops=60000000 operation=\"alloc + free of 64 B\"").unwrap();
        assert_eq!((listed.name.as_str(), listed.ops, listed.cpus), ("pair64", 60_000_000, Cpus::One));
        assert_eq!(listed.operation, "alloc + free of 64 B");
        assert_eq!(parse("name=a group=tiny threads=2 ops=1 operation=x").unwrap().cpus, Cpus::All);
        assert_eq!(parse("name=a group=threads ops=1 operation=x").unwrap().cpus, Cpus::All);
        assert!(parse("name=a group=tiny ops=1").is_err(), "no operation");
        assert!(parse("name=a group=tiny ops=many operation=x").is_err());
        assert!(parse("name=a group=tiny ops=1 operation=x values=1").is_err(), "values of what?");
    }

    #[test]
    fn a_parameter_makes_one_row_of_each_value() {
        let list = [
            parse("name=pair64 group=tiny ops=200 operation=x").unwrap(),
            parse("name=heap group=scaling ops=100 operation=x parameter=live-bytes values=1M,8G").unwrap(),
        ];
        let rust = rows(Suite::Rust, &list, |_| 50).unwrap();
        assert_eq!(rust.len(), 1);
        assert_eq!(rust[0].1, ["pair64", "--ops", "100"]);
        let scaling = rows(Suite::Scaling, &list, |_| 1).unwrap();
        assert_eq!(scaling.len(), 2);
        assert_eq!(scaling[1].0.name, "heap/8G");
        assert_eq!(scaling[1].0.point.as_ref().unwrap().value, 8.0 * 1024.0 * 1024.0 * 1024.0);
        assert_eq!(scaling[0].1, ["heap", "--ops", "1", "--live-bytes", "1048576"]);
    }

    #[test]
    fn versions_come_from_the_lock_file() {
        let lock = "[[package]]\nname = \"mimalloc\"\nversion = \"0.1.52\"\nsource = \"x\"\n";
        assert_eq!(locked(lock, "mimalloc").unwrap(), "0.1.52");
        assert_eq!(locked(lock, "malloc"), None);
    }
}
