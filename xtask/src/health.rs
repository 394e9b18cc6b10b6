//! `cargo xtask test` and `cargo xtask health`: every check a change must pass, judged by exit status.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::project::Project;
use crate::{checking, compat, instructions, launch, loom, soak, table, tidy};

/// A mandated profile: what the `health` binary is told and the policy profile it runs under.
struct Profile {
    name: &'static str,
    what: &'static str,
    policy: &'static str,
}

const PROFILES: [Profile; 4] = [
    Profile { name: "tiny-mixed", what: "16–1024 B, 1 M operations, 400 slots", policy: "MIXED_TINYV3_C7_SAFE" },
    Profile { name: "smallmid", what: "257–768 B", policy: "C6_HEAVY_LEGACY_POOLV1" },
    Profile { name: "superslab", what: "superslabs and madvise, OS statistics", policy: "MIXED_TINYV3_C7_SAFE" },
    Profile { name: "flatten", what: "pool flatten and its counters", policy: "C6_HEAVY_LEGACY_POOLV1" },
];

/// What Rust programs may be built for besides the machine at hand. Where rustup has added one, `health` checks that the facade
/// compiles for it without a warning.
const OTHER_TARGETS: [&str; 2] = ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-gnu"];

/// Schedules of each test under Miri in `--full`.
const FULL_SEEDS: u32 = 4;

/// Minutes of each fuzz target under `--full`.
const FULL_FUZZ_MINUTES: f64 = 2.0;
/// Seconds of each long stress run under `--full`.
const FULL_STRESS_SECONDS: u64 = 60;

/// Minutes of each long soak under `--full`.
const FULL_SOAK_MINUTES: f64 = 5.0;

/// Tests that are run once more with a feature: package, feature, test. Their expectations change with it, or it changes what they
/// run on.
const WITH_FEATURE: &[(&str, &str, &str)] = &[
    ("hakmem", "checked", "misuse"),
    ("hakmem", "ablation-slab-tail", "api"),
    ("hakmem", "ablation-slab-tail", "stress"),
    ("hakmem", "ablation-object-header", "api"),
    ("hakmem", "ablation-object-header", "stress"),
];

/// Tests that are run once more as a release is built: only there may the compiler make a jump through the dynamic linker of a call,
/// and only there do the pages of the library lie as users have them.
const AS_RELEASE: &[(&str, &str)] = &[("hakmem-preload", "life_cycle"), ("hakmem-preload", "small_process")];

/// All tests of the workspace, package by package: in one cargo call the packages' features add up, and tests of the facade run on
/// boxes in their form for tests (they pass there, too).
pub fn test(project: &Project, release: bool) -> Result<ExitCode> {
    // Tests of the preload library start programs under it.
    project.preload_library()?;
    let order = tidy::layer_order(project);
    let mut packages = project.packages();
    packages.sort_by_key(|package| order.iter().position(|name| *name == package.name.as_str()).unwrap_or(order.len()));
    let mut steps = Steps::default();
    for package in packages {
        let mut command = project.cargo(["test", "--no-fail-fast", "--package", package.name.as_str()]);
        if release {
            command.arg("--release");
        } else if package.name.as_str() == env!("CARGO_PKG_NAME") {
            // What it depends on has just been built like that, to run this.
            command.args(["--profile", "xtask"]);
        }
        steps.take_command(&package.name, &mut command);
        let package_name = package.name.as_str();
        // Cargo leaves a test out without a word when it needs a feature that was not asked for.
        let needy = package.targets.iter().filter(|target| target.is_test() && !target.required_features.is_empty());
        let mut featured: Vec<(String, &str)> =
            needy.map(|target| (target.required_features.join(","), target.name.as_str())).collect();
        let changed = WITH_FEATURE.iter().filter(|(package, ..)| *package == package_name);
        featured.extend(changed.map(|&(_, feature, test)| (feature.to_owned(), test)));
        for (features, test) in featured {
            let mut command =
                project.cargo(["test", "--package", package_name, "--features", &features, "--test", test]);
            if release {
                command.arg("--release");
            }
            steps.take_command(&format!("{package_name} {test} ({features})"), &mut command);
        }
        for &(_, test) in AS_RELEASE.iter().filter(|(package, _)| *package == package_name && !release) {
            let mut command = project.cargo(["test", "--release", "--package", package_name, "--test", test]);
            steps.take_command(&format!("{package_name} {test} (release)"), &mut command);
        }
    }
    Ok(steps.end("Tests"))
}

/// Steps of a run with their results, so that all of them are seen and not only the first bad one.
#[derive(Default)]
struct Steps {
    rows: Vec<Vec<String>>,
    failed_count: usize,
}

impl Steps {
    fn take(&mut self, name: &str, step: impl FnOnce() -> Result<bool>) {
        eprintln!("== {name}");
        let begin = Instant::now();
        let verdict = match step() {
            Ok(true) => "ok".to_owned(),
            Ok(false) => "FAILED".to_owned(),
            Err(error) => {
                eprintln!("{error:#}");
                "FAILED".to_owned()
            }
        };
        if verdict != "ok" {
            self.failed_count += 1;
        }
        self.rows.push(vec![name.to_owned(), verdict, format!("{:.1} s", begin.elapsed().as_secs_f64())]);
    }

    fn take_command(&mut self, name: &str, command: &mut Command) {
        self.take(name, || Ok(command.status().with_context(|| format!("{name} does not start"))?.success()));
    }

    fn end(&self, title: &str) -> ExitCode {
        eprintln!("\n{title}:");
        for line in table::lines(&self.rows, &[2]) {
            eprintln!("  {line}");
        }
        if self.failed_count == 0 {
            ExitCode::SUCCESS
        } else {
            eprintln!("{} of {} steps failed", self.failed_count, self.rows.len());
            ExitCode::FAILURE
        }
    }
}

/// Formatting, lints, tidy, the models, the mandated profiles, instruction counts; with `full` the long runs as well.
pub fn health(project: &Project, full: bool) -> Result<ExitCode> {
    let mut steps = Steps::default();
    steps.take_command("fmt", &mut project.cargo(["fmt", "--all", "--check"]));
    let clippy = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    steps.take_command("clippy", &mut project.cargo(clippy));
    for target in OTHER_TARGETS {
        if has_target(target) {
            let clippy =
                ["clippy", "--quiet", "--package", "hakmem", "--lib", "--target", target, "--", "--deny", "warnings"];
            steps.take_command(&format!("clippy for {target}"), &mut project.cargo(clippy));
        } else {
            eprintln!("== clippy for {target}: NOT RUN (rustup target add {target})");
        }
    }
    steps.take("tidy", || tidy::check(project));
    let mut documents = project.cargo(["doc", "--quiet", "--workspace", "--no-deps"]);
    steps.take_command("doc", documents.env("RUSTDOCFLAGS", "--deny warnings"));
    steps.take("loom models", || {
        loom::check(project, &loom::Options { weaken: full, long: full, ..loom::Options::default() })
    });
    for profile in &PROFILES {
        steps.take(&format!("profile {}", profile.name), || run_profile(project, profile));
    }
    steps.take("instructions", || instructions::is_good(project));
    steps.take("soak", || soak::is_good(project, &soak::Options::minutes(soak::QUICK_MINUTES)));
    if full {
        steps.take("clippy of the models", || loom::lint(project));
        let arguments = ["test", "--release", "--no-fail-fast", "--package", "hakmem", "--", "--ignored"];
        let mut command = project.cargo(arguments);
        command.env("HAKMEM_STRESS_SECONDS", FULL_STRESS_SECONDS.to_string());
        steps.take_command("long tests of the facade", &mut command);
        let arguments = ["test", "--no-fail-fast", "--package", "hakmem-preload", "--", "--ignored"];
        steps.take_command("long tests of the preload library", &mut project.cargo(arguments));
        let whole =
            compat::Options { full: true, stress_seconds: compat::STRESS_SECONDS, ..compat::Options::default() };
        steps.take("all programs at all levels", || Ok(compat::bad_count(project, &whole)? == 0));
        let sabotaged = compat::Options { sabotage: true, ..whole };
        steps.take("programs notice an allocator's mistakes", || Ok(compat::bad_count(project, &sabotaged)? == 0));
        steps.take("stress under preload", || {
            let only = vec!["stress".to_owned()];
            let options = compat::Options { only, stress_seconds: FULL_STRESS_SECONDS, ..compat::Options::default() };
            Ok(compat::bad_count(project, &options)? == 0)
        });
        for preload in [false, true] {
            let name = if preload { "long soak under preload" } else { "long soak" };
            let options = soak::Options { preload, ..soak::Options::minutes(FULL_SOAK_MINUTES) };
            steps.take(name, || soak::is_good(project, &options));
        }
        long_properties(project, &mut steps);
        steps.take("fuzz", || {
            let options = checking::FuzzOptions { minutes: FULL_FUZZ_MINUTES, ..checking::FuzzOptions::default() };
            Ok(checking::fuzz(project, &options)? == ExitCode::SUCCESS)
        });
        steps.take("soak that leaks is found", || soak::leak_is_found(project));
        steps.take("miri", || {
            let options = checking::MiriOptions { seeds: FULL_SEEDS, ..checking::MiriOptions::default() };
            Ok(checking::miri(project, &options)? == ExitCode::SUCCESS)
        });
        steps.take("sanitizers", || {
            Ok(checking::sanitize(project, &checking::SanitizeOptions::default())? == ExitCode::SUCCESS)
        });
        steps.take("valgrind", || {
            Ok(checking::valgrind(project, &checking::ValgrindOptions::default())? == ExitCode::SUCCESS)
        });
    }
    Ok(steps.end("Health"))
}

/// Whether there is a standard library for this target.
fn has_target(target: &str) -> bool {
    let asked = Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output();
    asked.is_ok_and(|said| said.status.success() && Path::new(String::from_utf8_lossy(&said.stdout).trim()).is_dir())
}

/// The properties of every box and of the facade, each with twenty times the cases of `cargo xtask test`.
fn long_properties(project: &Project, steps: &mut Steps) {
    let in_props = |package: &&str| project.has_target(package, "props");
    let packages = tidy::layer_order(project);
    let runs = packages.iter().map(String::as_str).filter(in_props).map(|package| (package, ["--test", "props"]));
    // The preload crate is no library that a test could link; its models are unit tests.
    for (package, which) in runs.chain([("hakmem-preload", ["--lib", "model_tests"])]) {
        let mut command = project.cargo(["test", "--package", package]);
        steps.take_command(&format!("long properties of {package}"), command.args(which).env("HAKTEST_LONG", "1"));
    }
}

fn run_profile(project: &Project, profile: &Profile) -> Result<bool> {
    project.build(&["--release", "--package", "hakmem-benches", "--bin", "health"])?;
    eprintln!("{} under {}", profile.what, profile.policy);
    let mut command = Command::new(project.target().join("release").join("health"));
    command.arg(profile.name).env("HAKMEM_PROFILE", profile.policy);
    launch::clean_environment(project, &mut command);
    let finished = launch::wait_for(&mut command).context("the health binary does not start")?;
    if !finished.status.success() {
        eprintln!("profile {}: {}", profile.name, finished.describe());
    }
    Ok(finished.status.success())
}
