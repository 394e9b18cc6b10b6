//! `cargo xtask fuzz`, `miri`, `sanitize` and `valgrind`: the same code under tools that see more than a test does.
//!
//! **Invariants.** A tool that is not there is reported as `NOT RUN`, and that is a failure unless the caller allowed it. A run
//! in which nothing was tested is a failure. What is left out under a tool is printed with its reason.
//! **Why.** docs/checking-tools.md

mod fuzz;
mod harness;
mod miri;
mod sanitize;
mod valgrind;

use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::{available_parallelism, scope};
use std::time::Instant;

pub use fuzz::{Options as FuzzOptions, fuzz};
pub use miri::{Options as MiriOptions, miri};
pub use sanitize::{Options as SanitizeOptions, sanitize};
pub use valgrind::{Options as ValgrindOptions, valgrind};

use crate::table;

/// The toolchain that has the tools; the project itself is built with the one that `rust-toolchain.toml` names.
const NIGHTLY: &str = "nightly";

/// Runs of a tool with their results, and what it did not do.
struct Tally {
    tool: &'static str,
    rows: Vec<Vec<String>>,
    left_out: Vec<String>,
    bad_count: usize,
}

impl Tally {
    fn new(tool: &'static str) -> Self {
        Self { tool, rows: Vec::new(), left_out: Vec::new(), bad_count: 0 }
    }

    /// One run; `step` returns what to print of it, or what is wrong.
    fn take(&mut self, name: &str, step: impl FnOnce() -> anyhow::Result<String>) {
        let (row, is_good) = timed(self.tool, name, step);
        self.rows.push(row);
        self.bad_count += usize::from(!is_good);
    }

    /// Runs that do not disturb each other, as many at a time as there are processors, begun in this order.
    fn take_at_once(&mut self, runs: Vec<(String, impl FnOnce() -> anyhow::Result<String> + Send)>) {
        let tool = self.tool;
        let lanes = available_parallelism().map_or(1, usize::from).min(runs.len());
        let (waiting, done) = (Mutex::new(runs.into_iter().enumerate()), Mutex::new(Vec::new()));
        let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
        scope(|scope| {
            for _ in 0..lanes {
                scope.spawn(|| {
                    while let Some((index, (name, step))) = next() {
                        let (row, is_good) = timed(tool, &name, step);
                        done.lock().unwrap_or_else(PoisonError::into_inner).push((index, row, is_good));
                    }
                });
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|&(index, ..)| index);
        for (_, row, is_good) in done {
            self.rows.push(row);
            self.bad_count += usize::from(!is_good);
        }
    }

    /// Something that this tool does not check, and why; each once.
    fn leave_out(&mut self, text: String) {
        if !self.left_out.contains(&text) {
            self.left_out.push(text);
        }
    }

    fn end(&self) -> ExitCode {
        eprintln!("\n{}:", self.tool);
        for line in table::lines(&self.rows, &[2]) {
            eprintln!("  {line}");
        }
        if !self.left_out.is_empty() {
            eprintln!("{} left out:", self.left_out.len());
            for line in &self.left_out {
                eprintln!("  {line}");
            }
        }
        if self.rows.is_empty() {
            eprintln!("{}: nothing was run", self.tool);
            return ExitCode::FAILURE;
        }
        if self.bad_count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// The row of a run in its tool's table, and whether nothing was wrong.
fn timed(tool: &str, name: &str, step: impl FnOnce() -> anyhow::Result<String>) -> (Vec<String>, bool) {
    eprintln!("== {tool}: {name}");
    let begin = Instant::now();
    let (verdict, text) = match step() {
        Ok(text) => ("ok", text),
        Err(error) => {
            eprintln!("{tool}: {name}: {error:#}");
            ("FAILED", format!("{error:#}"))
        }
    };
    let seconds = format!("{:.1} s", begin.elapsed().as_secs_f64());
    (vec![name.to_owned(), verdict.to_owned(), seconds, text], verdict == "ok")
}

/// Says loudly that a tool is not there. A line that begins with `NOT RUN` is what `.ci/run` repeats at its end.
fn not_run(tool: &str, why: &str, allow_missing: bool) -> ExitCode {
    eprintln!("NOT RUN: {tool}: {why}");
    if allow_missing { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Why the nightly toolchain cannot do it: `None` if it can.
fn missing_from_nightly(components: &[&str]) -> Option<String> {
    let list = Command::new("rustup").args(["component", "list", "--installed", "--toolchain", NIGHTLY]).output();
    let Ok(list) = list else {
        return Some("rustup does not start, and it is what finds the nightly toolchain".into());
    };
    if !list.status.success() {
        return Some(format!("no toolchain `{NIGHTLY}`: rustup toolchain install {NIGHTLY}"));
    }
    let installed = String::from_utf8_lossy(&list.stdout).into_owned();
    let absent: Vec<_> = components.iter().filter(|component| !installed.contains(**component)).copied().collect();
    let command = format!("rustup component add --toolchain {NIGHTLY} {}", absent.join(" "));
    (!absent.is_empty()).then(|| format!("the {NIGHTLY} toolchain has no {}: {command}", absent.join(", ")))
}

/// Whether a program starts and answers `--version`.
fn starts(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_is_not_there_fails_unless_that_was_allowed() {
        assert_eq!(not_run("tool", "not installed", false), ExitCode::FAILURE);
        assert_eq!(not_run("tool", "not installed", true), ExitCode::SUCCESS);
        assert!(!starts("no-such-program-anywhere"));
        assert!(missing_from_nightly(&["no-such-component"]).is_some());
    }

    #[test]
    fn a_tally_without_a_run_or_with_a_bad_one_fails() {
        let mut tally = Tally::new("tool");
        assert_eq!(tally.end(), ExitCode::FAILURE);
        tally.take("good", || Ok("fine".into()));
        assert_eq!(tally.end(), ExitCode::SUCCESS);
        tally.take("bad", || Err(anyhow::anyhow!("wrong")));
        assert_eq!(tally.end(), ExitCode::FAILURE);
    }

    #[test]
    fn runs_at_the_same_time_are_counted_one_by_one_and_listed_in_their_order() {
        let mut tally = Tally::new("tool");
        let run = |name: &'static str| {
            let step = move || if name == "bad" { Err(anyhow::anyhow!("wrong")) } else { Ok("fine".into()) };
            (name.to_owned(), step)
        };
        tally.take_at_once(["one", "bad", "two", "three"].map(run).into());
        let names: Vec<_> = tally.rows.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(names, ["one", "bad", "two", "three"]);
        assert_eq!(tally.bad_count, 1);
    }
}
