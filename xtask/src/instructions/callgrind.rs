//! Runs a program under callgrind and reads from its profile what each counted function cost.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Times each operation is performed on each of its blocks.
const ROUNDS: &str = "400";

/// Instructions per call, by function, callees included.
pub type Costs = BTreeMap<String, f64>;

/// Runs `program`, with `library` preloaded if there is one.
pub fn costs(program: &Path, library: Option<&Path>) -> Result<Costs> {
    let scratch = tempfile::tempdir().context("no temporary directory")?;
    let profile = scratch.path().join("profile");
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", profile.display()));
    command.arg(program).arg(ROUNDS);
    if let Some(library) = library {
        command.env("LD_PRELOAD", library);
    }
    let output = command.output().context("valgrind does not start (Debian package valgrind)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} under callgrind ended with {}: {said}", program.display(), output.status);
    let text = std::fs::read_to_string(&profile).context("callgrind left no profile")?;
    let costs = read(&text);
    ensure!(!costs.is_empty(), "the profile of {} has no counted function", program.display());
    Ok(costs)
}

/// Reads a profile: a call is three lines, `cfn=(id) name`, `calls=count …` and, after the position, what it cost. A name stands
/// only where its id comes first.
fn read(profile: &str) -> Costs {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let mut totals: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    let mut callee = None;
    let mut calls = None;
    for line in profile.lines() {
        if let Some(function) = line.strip_prefix("cfn=").or_else(|| line.strip_prefix("fn=")) {
            let (id, name) = function.split_once(' ').unwrap_or((function, ""));
            if !name.is_empty() {
                names.insert(id, name);
            }
            callee = line.starts_with("cfn=").then_some(id);
        } else if let Some(count) = line.strip_prefix("calls=") {
            calls = count.split(' ').next().and_then(|count| count.parse::<f64>().ok());
        } else if let (Some(count), Some(id)) = (calls.take(), callee) {
            let cost: f64 = line.split(' ').nth(1).and_then(|cost| cost.parse().ok()).unwrap_or(0.0);
            let total = totals.entry(id).or_default();
            *total = (total.0 + count, total.1 + cost);
        }
    }
    let counted = totals.into_iter().filter_map(|(id, (count, cost))| {
        let name = names.get(id)?.strip_prefix("counted_")?;
        (count > 0.0).then(|| (name.to_owned(), cost / count))
    });
    counted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_of_all_places_of_call_add_up_under_the_name_that_stood_once() {
        let profile = "fn=(1) main\n16 4\ncfn=(2) counted_alloc\ncalls=10 0\n20 300\ncfn=(3) other\ncalls=5 0\n20 99\n\
                       fn=(2)\n7 70\ncfn=(4) malloc\ncalls=10 0\n8 200\nfn=(5) second\ncfn=(2)\ncalls=10 0\n+4 100\n";
        let costs = read(profile);
        assert_eq!(costs, Costs::from([("alloc".to_owned(), 20.0)]));
    }
}
