//! Runs `cargo test` of the nightly toolchain, shows what it prints, and reads the test harness's own count.
//!
//! **Invariants.** A run in which no test passed is an error, so that a filter which matches nothing does not look like success.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::NIGHTLY;
use crate::project::Project;

/// What the test programs of one run said.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct Counted {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that the source marks as ignored under this tool, with the reason given there.
    pub ignored: Vec<String>,
}

impl Counted {
    /// Looks at one line of the harness's output.
    fn read(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("test result: ") {
            let counts = rest.split(['.', ';']).filter_map(|part| part.trim().strip_suffix(" passed"));
            self.passed += counts.filter_map(|count| count.parse::<u64>().ok()).sum::<u64>();
        } else if let Some((name, reason)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ignored"))
        {
            let reason = reason.trim_start_matches(',').trim();
            let reason = if reason.is_empty() { "no reason given" } else { reason };
            self.ignored.push(format!("{name}: {reason}"));
        }
    }
}

/// A cargo command of the nightly toolchain in the workspace root.
pub fn nightly_cargo(project: &Project) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", NIGHTLY, "cargo"]).current_dir(project.root());
    // What the calling cargo set for its own toolchain.
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS"] {
        command.env_remove(name);
    }
    command
}

/// Runs a `cargo … test` command to its end. Its lines begin with `name`, because another one's may come between.
pub fn run(name: &str, command: &mut Command) -> Result<Counted> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("rustup does not start")?;
    let output = child.stdout.take().context("no output to read")?;
    let mut counted = Counted::default();
    for line in BufReader::new(output).lines() {
        let line = line.context("what the tests print cannot be read")?;
        if !line.is_empty() {
            eprintln!("{name}: {line}");
        }
        counted.read(&line);
    }
    let status = child.wait()?;
    ensure!(status.success(), "failed ({status})");
    ensure!(counted.passed > 0, "no test was run");
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_and_ignored_tests_are_counted() {
        let mut counted = Counted::default();
        let output = "test a::b ... ok\n\
            test forks ... ignored, Miri's programs do not fork\n\
            test long ... ignored\n\
            test result: ok. 12 passed; 0 failed; 2 ignored; 0 measured; 3 filtered out; finished in 0.20s\n\
            test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        output.lines().for_each(|line| counted.read(line));
        let ignored = ["forks: Miri's programs do not fork", "long: no reason given"].map(str::to_owned).to_vec();
        assert_eq!(counted, Counted { passed: 15, ignored });
    }
}
