//! `cargo xtask sanitize`: tests compiled with ThreadSanitizer and AddressSanitizer, the standard library included.
//!
//! **Invariants.** The whole program is instrumented: a hand-over in uninstrumented code would look like a race.

use std::process::{Command, ExitCode};

use anyhow::Result;

use super::{Tally, harness, missing_from_nightly, not_run};
use crate::project::Project;

/// What `cargo xtask sanitize` takes.
#[derive(clap::Args, Default)]
pub struct Options {
    /// Only ThreadSanitizer.
    #[arg(long)]
    pub thread: bool,
    /// Only AddressSanitizer.
    #[arg(long)]
    pub address: bool,
    /// Only the facade's short tests with threads.
    #[arg(long)]
    pub quick: bool,
    /// A toolchain without the standard library's sources does not fail the command.
    #[arg(long)]
    pub allow_missing: bool,
}

struct Tool {
    name: &'static str,
    /// For `-Zsanitizer=`.
    flag: &'static str,
    /// Its options, in the variable of this name.
    variable: &'static str,
    options: &'static str,
    /// Tests that cannot work under it, by name.
    skipped: &'static [(&'static str, &'static str)],
}

const THREAD: Tool = Tool {
    name: "ThreadSanitizer",
    flag: "thread",
    variable: "TSAN_OPTIONS",
    // A child of a program with threads does no more here than allocate; the tests want it to live.
    options: "die_after_fork=0:second_deadlock_stack=1",
    skipped: &[SHADOW, RESIDENT, RESIDENT_FRAGMENTED, ONE_MAPPING, AUTOMATIC],
};

const ADDRESS: Tool = Tool {
    name: "AddressSanitizer",
    flag: "address",
    variable: "ASAN_OPTIONS",
    // Tests keep heaps for ever, as programs do. A request that cannot be met is null, as in a program without the tool.
    options: "detect_leaks=0:allocator_may_return_null=1",
    skipped: &[SHADOW, RESIDENT, RESIDENT_FRAGMENTED, ONE_MAPPING, AUTOMATIC],
};

const SHADOW: (&str, &str) = ("a_limited_address_space", "the tool's shadow memory exceeds any limit");
const AUTOMATIC: (&str, &str) = ("a_window_that_does_not_fit", "as above");
const RESIDENT: (&str, &str) = ("resident_memory_falls", "the tool's shadow memory is resident too");
const RESIDENT_FRAGMENTED: (&str, &str) = ("memory_of_a_fragmented_superslab_falls", "as above");
const ONE_MAPPING: (&str, &str) = ("costs_little_memory_before", "as above");

/// Tests of a package: with `--quick` too if `is_quick`.
struct Run {
    package: &'static str,
    targets: &'static [&'static str],
    is_quick: bool,
}

const ALL: &[&str] = &["--lib", "--tests"];

const RUNS: &[Run] = &[
    Run { package: "hakmem-atomic-ops", targets: ALL, is_quick: false },
    Run { package: "hakmem-policy", targets: ALL, is_quick: false },
    Run { package: "hakmem-ownership", targets: ALL, is_quick: false },
    Run { package: "hakmem-remote-queue", targets: ALL, is_quick: false },
    Run { package: "hakmem-superslab-os", targets: ALL, is_quick: false },
    Run { package: "hakmem-sampled", targets: ALL, is_quick: false },
    Run { package: "hakmem-watched", targets: ALL, is_quick: false },
    Run { package: "hakmem-publish-adopt", targets: ALL, is_quick: false },
    Run { package: "hakmem-tiny-front", targets: ALL, is_quick: false },
    Run { package: "hakmem-mid-pool", targets: ALL, is_quick: false },
    Run { package: "hakmem-bigcache", targets: ALL, is_quick: false },
    Run { package: "hakmem-hardened", targets: ALL, is_quick: false },
    Run { package: "hakmem", targets: &["--test", "model_checked", "--test", "whole_lives"], is_quick: true },
    Run { package: "hakmem", targets: &["--test", "stress"], is_quick: false },
    Run {
        package: "hakmem",
        targets: &["--features", "hardened", "--test", "model_checked", "--test", "whole_lives"],
        is_quick: false,
    },
];

/// What is not under either tool.
const LEFT_OUT: &[(&str, &str)] = &[
    (
        "hakmem-preload",
        "it takes the place of malloc, and so do the tools' runtimes; its own code is seen by `cargo xtask valgrind`",
    ),
    ("hakmem-learner", "safe code without threads"),
    ("hakmem-base", "has no threads, and no memory but its callers'"),
    ("hakmem (other tests)", "measure resident memory, load libraries, or run the same code for longer"),
];

/// Runs the tests; fails if one did, or if a tool is not there.
pub fn sanitize(project: &Project, options: &Options) -> Result<ExitCode> {
    let both = options.thread == options.address;
    if let Some(why) = missing_from_nightly(&["rust-src"]) {
        return Ok(not_run("the sanitizers", &why, options.allow_missing));
    }
    let mut tally = Tally::new("Sanitizers");
    for (tool, is_asked_for) in [(&THREAD, options.thread), (&ADDRESS, options.address)] {
        if !both && !is_asked_for {
            continue;
        }
        for run in RUNS.iter().filter(|run| run.is_quick || !options.quick) {
            let name = format!("{}: {} {}", tool.name, run.package, run.targets.join(" "));
            let mut ignored = Vec::new();
            tally.take(&name, || {
                let counted = harness::run(run.package, &mut command(project, tool, run))?;
                ignored = counted.ignored;
                Ok(format!("{} passed", counted.passed))
            });
            for test in ignored {
                tally.leave_out(format!("{}: {test}", run.package));
            }
        }
        for (test, why) in tool.skipped {
            tally.leave_out(format!("{}: {test}…: {why}", tool.name));
        }
    }
    for (what, why) in LEFT_OUT {
        tally.leave_out(format!("{what}: {why}"));
    }
    Ok(tally.end())
}

fn command(project: &Project, tool: &Tool, run: &Run) -> Command {
    let mut command = harness::nightly_cargo(project);
    // Another target directory for each tool: flags that change would rebuild the standard library every time.
    let target = project.target().join(format!("sanitize-{}", tool.flag));
    command.args(["test", "--quiet", "-Zbuild-std", "--target", TARGET, "--no-fail-fast", "--package", run.package]);
    command.arg("--target-dir").arg(target).args(run.targets).args(["--", "--format", "pretty"]);
    for (test, _) in tool.skipped {
        command.args(["--skip", test]);
    }
    command.env("RUSTFLAGS", format!("-Zsanitizer={}", tool.flag)).env(tool.variable, tool.options);
    // Enough for the tools' stack traces, and half the work of compiling.
    command.env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
    command
}

/// The tools' runtimes come with the toolchain for this target.
const TARGET: &str = "x86_64-unknown-linux-gnu";
