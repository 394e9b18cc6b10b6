//! `cargo xtask compat`: programs that nobody here wrote, with and without the preload library, must do the same.
//!
//! **Invariants.** A program that did not run is named and fails the command unless that was allowed; a run in which hakmem hardly
//! allocated anything does not count as a pass.

mod cases;
mod judge;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::launch::{self, Preload};
use crate::project::Project;
use crate::report::Summary;
use crate::table;
use cases::{CASES, Case};
use judge::{Outcome, Verdict};

/// Longest time one run of a program may take: far more than it needs, so that only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(240);

/// Seconds of the stress case unless the caller says otherwise.
pub const STRESS_SECONDS: u64 = 5;

/// What the caller asked for.
#[derive(Default)]
pub struct Options {
    /// A program that is not installed does not fail the command.
    pub allow_missing: bool,
    /// Only these cases; all when empty.
    pub only: Vec<String>,
    /// Install missing Debian packages first.
    pub install: bool,
    /// Compare two runs without the preload library.
    pub baseline: bool,
    /// How long the stress case runs.
    pub stress_seconds: u64,
}

/// Runs the cases; fails if one did.
pub fn compat(project: &Project, options: &Options) -> Result<ExitCode> {
    Ok(if bad_count(project, options)? == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the cases, prints a table of what came out, and returns how many did not pass.
pub fn bad_count(project: &Project, options: &Options) -> Result<usize> {
    let chosen = choose(&options.only)?;
    if options.install {
        install(&chosen)?;
    }
    let library = if options.baseline { None } else { Some(project.preload_library()?) };
    let mut rows = vec![
        ["program", "result", "without", "with", "processes", "allocations", "peak RSS"].map(str::to_owned).to_vec(),
    ];
    let mut bad_count = 0;
    for case in &chosen {
        eprintln!("== {}: {}", case.name, case.what);
        let missing: Vec<&str> = case.missing().map(|(program, _)| program).collect();
        if !missing.is_empty() {
            eprintln!("not run: {} not installed", missing.join(", "));
            bad_count += usize::from(!options.allow_missing);
            rows.push(vec![case.name.to_owned(), format!("not run ({} missing)", missing.join(", "))]);
            continue;
        }
        let first = execute(project, case, None, options.stress_seconds)?;
        let second = execute(project, case, library.as_deref(), options.stress_seconds)?;
        let verdict = judge::compare(case, &first, &second);
        bad_count += usize::from(!verdict.problems.is_empty());
        explain(&verdict, &second);
        rows.push(row(case, &verdict, &first, &second));
    }
    eprintln!();
    for line in table::lines(&rows, &[2, 3, 4, 5, 6]) {
        println!("{line}");
    }
    if bad_count > 0 {
        eprintln!("{bad_count} of {} programs did not pass", chosen.len());
    }
    Ok(bad_count)
}

fn choose(only: &[String]) -> Result<Vec<&'static Case>> {
    let known = CASES.iter().map(|case| case.name).collect::<Vec<_>>().join(", ");
    for name in only {
        ensure!(CASES.iter().any(|case| case.name == name), "compat knows no program `{name}`; it knows {known}");
    }
    Ok(CASES.iter().filter(|case| only.is_empty() || only.iter().any(|name| name == case.name)).collect())
}

fn install(chosen: &[&Case]) -> Result<()> {
    let packages: BTreeSet<&str> = chosen.iter().flat_map(|case| case.missing()).map(|(_, package)| package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    let apt_get = |arguments: &[&str]| -> Result<()> {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        let status = command.status().context("apt-get does not start: install the programs by hand")?;
        if !status.success() {
            bail!("apt-get {} failed ({status})", arguments.join(" "));
        }
        Ok(())
    };
    apt_get(&["update", "--quiet"])?;
    let mut arguments = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
    arguments.extend(&packages);
    apt_get(&arguments)
}

/// Runs a case in an empty directory; its output and reports go to files beside that directory, so that no pipe can fill up.
fn execute(project: &Project, case: &Case, library: Option<&Path>, stress_seconds: u64) -> Result<Outcome> {
    let directory = tempfile::Builder::new().prefix("hakmem-compat-").tempdir().context("no temporary directory")?;
    let inside = |name: &str| directory.path().join(name);
    std::fs::create_dir(inside("work"))?;
    std::fs::create_dir(inside("reports"))?;
    let inputs = project.root().join("compat").join(case.name);
    let mut command = Command::new("bash");
    command
        .arg(inputs.join("run.sh"))
        .current_dir(inside("work"))
        .env("COMPAT_DIR", &inputs)
        .env("TMPDIR", inside("work"))
        .env("COMPAT_STRESS_SECONDS", stress_seconds.to_string())
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(inside("stdout"))?)
        .stderr(std::fs::File::create(inside("stderr"))?);
    launch::clean_environment(project, &mut command);
    if let Some(library) = library {
        Preload::new(library.to_owned(), inside("reports"))?.apply(&mut command);
    }
    let limit = LIMIT + Duration::from_secs(stress_seconds);
    let finished = launch::wait_for_at_most(&mut command, limit).context("bash does not start")?;
    Ok(Outcome {
        finished,
        stdout: std::fs::read(inside("stdout"))?,
        stderr: String::from_utf8_lossy(&std::fs::read(inside("stderr"))?).into_owned(),
        reports: library.map(|_| Summary::read(&inside("reports"))),
    })
}

fn explain(verdict: &Verdict, second: &Outcome) {
    for problem in &verdict.problems {
        eprintln!("{problem}");
    }
    if !verdict.problems.is_empty() && !second.stderr.is_empty() {
        eprintln!("-- end of its stderr");
        let lines: Vec<&str> = second.stderr.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(30)) {
            eprintln!("   {line}");
        }
    }
}

fn row(case: &Case, verdict: &Verdict, first: &Outcome, second: &Outcome) -> Vec<String> {
    let result = match verdict.problems.len() {
        0 => "same".to_owned(),
        _ => "FAILED".to_owned(),
    };
    let seconds = |outcome: &Outcome| format!("{:.1} s", outcome.finished.wall.as_secs_f64());
    let mut row = vec![case.name.to_owned(), result, seconds(first), seconds(second)];
    if let Some(Ok(summary)) = &second.reports {
        row.push(table::count(summary.process_count));
        row.push(table::count(summary.allocs));
        row.push(table::bytes(summary.peak_rss_bytes));
    }
    row
}
