//! Runs a program under callgrind and reads from its profile what each counted function cost.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Times each operation is performed on each of its blocks.
const ROUNDS: &str = "400";

/// Instructions per call, by function.
pub type Costs = BTreeMap<String, f64>;

/// What the functions of a run cost.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Profile {
    /// The counted functions, callees included, without `counted_` before their names.
    pub counted: Costs,
    /// Every function that was called, callees left out: its own path, whatever slow paths it called now and then.
    pub own: Costs,
    /// What the program wrote to stderr.
    pub said: String,
}

/// Runs `program`, with `library` preloaded if there is one and with these variables.
pub fn profile(program: &Path, library: Option<&Path>, variables: &[(&str, &str)]) -> Result<Profile> {
    let scratch = tempfile::tempdir().context("no temporary directory")?;
    let file = scratch.path().join("profile");
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", file.display()));
    command.arg(program).arg(ROUNDS).envs(variables.iter().copied());
    if let Some(library) = library {
        command.env("LD_PRELOAD", library);
    }
    let output = command.output().context("valgrind does not start (Debian package valgrind)")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{} under callgrind ended with {}: {said}", program.display(), output.status);
    let text = std::fs::read_to_string(&file).context("callgrind left no profile")?;
    let profile = Profile { said, ..read(&text) };
    ensure!(!profile.counted.is_empty(), "the profile of {} has no counted function", program.display());
    Ok(profile)
}

/// Calls of a function, what they cost, and what it cost without its callees.
#[derive(Clone, Copy, Default)]
struct Sum {
    calls: f64,
    with_callees: f64,
    own: f64,
}

/// Reads a profile: a call is three lines, `cfn=(id) name`, `calls=count …` and, after the position, what it cost; any other line
/// that begins with a position is what the function cost itself. A name stands only where its id comes first.
fn read(profile: &str) -> Profile {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    let (mut function, mut callee, mut calls) = (None, None, None);
    for line in profile.lines() {
        if let Some(named) = line.strip_prefix("cfn=").or_else(|| line.strip_prefix("fn=")) {
            let (id, name) = named.split_once(' ').unwrap_or((named, ""));
            if !name.is_empty() {
                names.insert(id, name);
            }
            *(if line.starts_with("cfn=") { &mut callee } else { &mut function }) = Some(id);
        } else if let Some(count) = line.strip_prefix("calls=") {
            calls = count.split(' ').next().and_then(|count| count.parse::<f64>().ok());
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost: f64 = line.split(' ').nth(1).and_then(|cost| cost.parse().ok()).unwrap_or(0.0);
            if let (Some(count), Some(id)) = (calls.take(), callee) {
                let sum = sums.entry(id).or_default();
                (sum.calls, sum.with_callees) = (sum.calls + count, sum.with_callees + cost);
            } else if let Some(id) = function {
                sums.entry(id).or_default().own += cost;
            }
        }
    }
    let mut read = Profile::default();
    for (id, sum) in sums.into_iter().filter(|(_, sum)| sum.calls > 0.0) {
        let Some(name) = names.get(id) else { continue };
        if let Some(counted) = name.strip_prefix("counted_") {
            read.counted.insert(counted.to_owned(), sum.with_callees / sum.calls);
        }
        read.own.insert((*name).to_owned(), sum.own / sum.calls);
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_of_all_places_of_call_add_up_under_the_name_that_stood_once() {
        let profile = "fn=(1) main\n16 4\ncfn=(2) counted_alloc\ncalls=10 0\n20 300\ncfn=(3) other\ncalls=5 0\n20 99\n\
                       fn=(2)\n7 70\ncfn=(4) malloc\ncalls=10 0\n8 200\nfn=(5) second\ncfn=(2)\ncalls=10 0\n+4 100\n";
        let read = read(profile);
        assert_eq!(read.counted, Costs::from([("alloc".to_owned(), 20.0)]));
        let own = [("counted_alloc", 3.5), ("malloc", 0.0), ("other", 0.0)];
        assert_eq!(read.own, own.map(|(name, cost)| (name.to_owned(), cost)).into());
    }
}
