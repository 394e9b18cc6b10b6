//! `cargo xtask miri`: tests under the interpreter that checks each access, pointer and hand-over between threads.
//!
//! **Invariants.** Every package of the layers that the interpreter can run has a run here; those that it cannot are named with
//! the reason.

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};

use super::{Tally, harness, missing_from_nightly, not_run};
use crate::project::Project;
use crate::tidy;

/// What `cargo xtask miri` takes.
#[derive(clap::Args, Default)]
pub struct Options {
    /// Schedules that each test runs under.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seeds: u32,
    /// Only this package (may be repeated).
    #[arg(long = "package", value_name = "NAME")]
    pub packages: Vec<String>,
    /// Only the tests in which threads meet.
    #[arg(long)]
    pub quick: bool,
    /// A toolchain without Miri does not fail the command.
    #[arg(long)]
    pub allow_missing: bool,
}

/// Tests of a package that run with the same flags.
struct Run {
    package: &'static str,
    targets: &'static [&'static str],
    /// Beyond the common ones.
    flags: &'static [&'static str],
    /// Names of the tests that `--quick` runs; without names it runs none.
    quick: &'static [&'static str],
}

/// A pointer keeps what it may be used for; numbers do not become pointers.
const STRICT: &str = "-Zmiri-strict-provenance";
/// arc-swap's helping path makes a pointer of a number. Its accesses are checked all the same, with less certainty.
const PERMISSIVE: &str = "-Zmiri-permissive-provenance";
/// Metadata arenas give nothing back, and tests keep heaps for ever as programs do.
const NO_LEAKS: &str = "-Zmiri-ignore-leaks";
/// One allocation in five alone between guard pages.
const SAMPLED: &str = "-Zmiri-env-set=HAKMEM_SAMPLE=5";
/// See the header of the test that needs it.
const NO_ALIASING: &str = "-Zmiri-disable-stacked-borrows";

const ALL: &[&str] = &["--lib", "--tests"];

const RUNS: &[Run] = &[
    Run { package: "hakmem-base", targets: ALL, flags: &[STRICT], quick: &[] },
    Run { package: "hakmem-atomic-ops", targets: ALL, flags: &[STRICT], quick: &[] },
    Run {
        package: "hakmem-policy",
        targets: &["--lib", "--test", "no_allocation", "--test", "props"],
        flags: &[STRICT],
        quick: &[],
    },
    Run { package: "hakmem-policy", targets: &["--test", "stress"], flags: &[PERMISSIVE], quick: &[] },
    Run { package: "hakmem-ownership", targets: ALL, flags: &[STRICT], quick: &[] },
    Run { package: "hakmem-remote-queue", targets: ALL, flags: &[STRICT], quick: &["queue::"] },
    Run { package: "hakmem-superslab-os", targets: ALL, flags: &[STRICT, NO_LEAKS], quick: &[] },
    Run { package: "hakmem-sampled", targets: ALL, flags: &[STRICT, NO_LEAKS], quick: &[] },
    Run { package: "hakmem-watched", targets: ALL, flags: &[STRICT, NO_LEAKS], quick: &[] },
    Run { package: "hakmem-publish-adopt", targets: ALL, flags: &[STRICT], quick: &["mailbox", "tokens", "orphan"] },
    Run {
        package: "hakmem-tiny-front",
        targets: ALL,
        flags: &[STRICT, NO_LEAKS],
        quick: &["an_owner_may_leave", "reap_finds"],
    },
    Run { package: "hakmem-mid-pool", targets: ALL, flags: &[STRICT], quick: &[] },
    Run { package: "hakmem-bigcache", targets: ALL, flags: &[STRICT, NO_LEAKS], quick: &[] },
    Run { package: "hakmem-hardened", targets: ALL, flags: &[STRICT, NO_LEAKS], quick: &[] },
    Run {
        package: "hakmem",
        targets: &["--test", "model_checked"],
        flags: &[STRICT, NO_LEAKS],
        quick: &["change_hands", "an_owner_ends", "needs_blocks"],
    },
    Run { package: "hakmem", targets: &["--test", "whole_lives"], flags: &[STRICT, NO_LEAKS, NO_ALIASING], quick: &[] },
    Run {
        package: "hakmem",
        targets: &["--features", "checked", "--test", "model_checked"],
        flags: &[STRICT, NO_LEAKS],
        quick: &[],
    },
    Run { package: "hakmem", targets: &["--test", "model_checked"], flags: &[STRICT, NO_LEAKS, SAMPLED], quick: &[] },
    Run {
        package: "hakmem",
        targets: &["--features", "hardened", "--test", "model_checked"],
        flags: &[STRICT, NO_LEAKS],
        quick: &[],
    },
];

/// What the interpreter cannot run at all.
const LEFT_OUT: &[(&str, &str)] = &[
    ("hakmem-learner", "safe code without threads, and much arithmetic"),
    ("hakmem-tune", "a tool that starts programs; no part of the allocator"),
    ("hakmem-preload", "a shared library: assembly for its thread-local word, symbols that C programs call"),
    (
        "hakmem (tests other than model_checked and whole_lives)",
        "start processes, fork, load libraries, read /proc, or work for seconds of real time",
    ),
];

/// Runs the tests; fails if one did, or if Miri is not there.
pub fn miri(project: &Project, options: &Options) -> Result<ExitCode> {
    let layers = tidy::layer_order(project);
    for package in &options.packages {
        ensure!(layers.iter().any(|known| known == package), "no package `{package}` in the layers");
    }
    if let Some(why) = missing_from_nightly(&["miri", "rust-src"]) {
        return Ok(not_run("Miri", &why, options.allow_missing));
    }
    let mut tally = Tally::new("Miri");
    let chosen = RUNS.iter().filter(|run| {
        let is_chosen = options.packages.is_empty() || options.packages.iter().any(|name| name == run.package);
        is_chosen && !(options.quick && run.quick.is_empty())
    });
    let ignored = Mutex::new(Vec::new());
    // The interpreter has one thread. The facade's runs are the longest, so that they come first.
    let runs = chosen.rev().map(|run| {
        let sampled = if run.flags.contains(&SAMPLED) { " (sampled)" } else { "" };
        let name = format!("{} {}{sampled}", run.package, run.targets.join(" "));
        let ignored = &ignored;
        let step = move || {
            let counted = harness::run(run.package, &mut command(project, run, options))?;
            let tests = counted.ignored.iter().map(|test| format!("{}: {test}", run.package));
            ignored.lock().unwrap_or_else(PoisonError::into_inner).extend(tests);
            Ok(format!("{} passed, seeds: {}", counted.passed, options.seeds))
        };
        (name, step)
    });
    tally.take_at_once(runs.collect());
    for test in ignored.into_inner().unwrap_or_else(PoisonError::into_inner) {
        tally.leave_out(test);
    }
    for (what, why) in LEFT_OUT {
        tally.leave_out(format!("{what}: {why}"));
    }
    Ok(tally.end())
}

fn command(project: &Project, run: &Run, options: &Options) -> std::process::Command {
    // proptest looks for its regression files, which needs a current directory; the interpreter has none.
    let mut flags = vec![
        "-Zmiri-env-set=PROPTEST_DISABLE_FAILURE_PERSISTENCE=1".to_owned(),
        "-Zmiri-env-set=PROPTEST_CASES=4".to_owned(),
    ];
    flags.extend(run.flags.iter().map(|&flag| flag.to_owned()));
    if options.seeds > 1 {
        flags.push(format!("-Zmiri-many-seeds=0..{}", options.seeds));
    }
    let mut command = harness::nightly_cargo(project);
    command.args(["miri", "test", "--quiet", "--no-fail-fast", "--package", run.package]).args(run.targets);
    // `--quiet` is cargo's; the harness names every test.
    command.args(["--", "--format", "pretty"]);
    if options.quick {
        command.args(run.quick);
    }
    command.env("MIRIFLAGS", flags.join(" "));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_of_the_layers_is_run_or_named_as_left_out() {
        let project = Project::load().unwrap();
        for package in tidy::layer_order(&project) {
            let is_run = RUNS.iter().any(|run| run.package == package);
            let is_named = LEFT_OUT.iter().any(|(what, _)| *what == package);
            assert!(is_run || is_named, "{package}");
        }
    }
}
