//! `cargo xtask compat`: programs that nobody here wrote, with and without the preload library, must do the same.
//!
//! **Invariants.** A program that did not run is named and fails the command unless that was allowed; a run counts only if the
//! processes of the program itself reported that hakmem, at the level that was asked for, served them.

mod cases;
mod execute;
mod judge;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::level::Level;
use crate::project::Project;
use crate::table;
use cases::{CASES, Case, Share};
use execute::{Libraries, Run, execute};
use judge::Outcome;

/// Longest time one run of a program may take: far more than it needs, so that only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(1800);

/// Under the saboteur a hang is one way to be noticed, so that waiting is cut short: at this many times the undisturbed run.
const SABOTAGE_PATIENCE: u32 = 20;

/// Shortest limit of a run under the saboteur.
const SABOTAGE_LEAST_LIMIT: Duration = Duration::from_secs(60);

/// Seconds of the stress case unless the caller says otherwise.
pub const STRESS_SECONDS: u64 = 5;

/// What `cargo xtask compat` takes.
#[derive(clap::Args, Default)]
pub struct Options {
    /// A program that is not installed does not fail the command.
    #[arg(long)]
    pub allow_missing: bool,
    /// Only this program (may be repeated).
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// All programs at all levels, not only the quick selection.
    #[arg(long)]
    pub full: bool,
    /// At this level (may be repeated) instead of those of the selection.
    #[arg(long = "level", value_enum, value_name = "LEVEL")]
    pub levels: Vec<Level>,
    /// Install missing Debian packages with apt-get first.
    #[arg(long)]
    pub install: bool,
    /// Only the runs without the preload library: twice, to see that a program's output repeats.
    #[arg(long)]
    pub baseline: bool,
    /// On an allocator that hands out blocks twice: every program must come out wrong.
    #[arg(long)]
    pub sabotage: bool,
    /// How long the stress case runs.
    #[arg(long, value_name = "SECONDS", default_value_t = STRESS_SECONDS)]
    pub stress_seconds: u64,
}

/// Runs the cases; fails if one did.
pub fn compat(project: &Project, options: &Options) -> Result<ExitCode> {
    Ok(if bad_count(project, options)? == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the cases, prints a table of what came out, and returns how many did not pass.
pub fn bad_count(project: &Project, options: &Options) -> Result<usize> {
    let chosen = choose(options)?;
    if options.install {
        install(&chosen)?;
    }
    let rounds = rounds(options);
    // A baseline needs no library.
    let libraries = if options.baseline { None } else { Some(Libraries::new(project, options.sabotage)?) };
    let mut rows = vec![heading(&rounds)];
    let mut bad_count = 0;
    for case in &chosen {
        eprintln!("== {}: {}", case.name, case.what);
        let missing: Vec<&str> = case.missing().map(|(program, _)| program).collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            eprintln!("NOT RUN: {missing} not installed; `cargo xtask compat --install` installs what is missing");
            bad_count += usize::from(!options.allow_missing);
            rows.push(vec![case.name.to_owned(), format!("NOT RUN ({missing} missing)")]);
            continue;
        }
        let (row, is_good) = run_case(project, case, options, &rounds, libraries.as_ref())?;
        bad_count += usize::from(!is_good);
        rows.push(row);
    }
    eprintln!();
    let columns = 2 + rounds.len();
    for line in table::lines(&rows, &[1, columns, columns + 1, columns + 2]) {
        println!("{line}");
    }
    if bad_count > 0 {
        eprintln!("{bad_count} of {} programs did not pass", chosen.len());
    }
    Ok(bad_count)
}

/// One way in which every program is run and compared with the run without the library.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Without the library once more.
    Again,
    /// On hakmem.
    Level(Level),
    /// On hakmem behind the saboteur.
    Sabotage,
}

impl Round {
    const fn name(self) -> &'static str {
        match self {
            Self::Again => "without, again",
            Self::Level(level) => level.name(),
            Self::Sabotage => "with the saboteur",
        }
    }

    /// Whether this case runs so.
    fn is_for(self, case: &Case, options: &Options) -> bool {
        // A program that hakmem serves nothing cannot be disturbed through it.
        if self == Self::Sabotage && case.least_allocs == 0 {
            return false;
        }
        let chosen = options.full || !options.levels.is_empty() || !options.only.is_empty();
        chosen
            || case.share == Share::QuickAtAllLevels
            || !matches!(self, Self::Level(Level::Hardened | Level::Sampled))
    }
}

/// The rounds that at least one case may run.
fn rounds(options: &Options) -> Vec<Round> {
    if options.baseline {
        return vec![Round::Again];
    }
    if options.sabotage {
        return vec![Round::Sabotage];
    }
    let wanted = |level: &&Level| options.levels.is_empty() || options.levels.contains(level);
    Level::ALL.iter().filter(wanted).map(|&level| Round::Level(level)).collect()
}

fn heading(rounds: &[Round]) -> Vec<String> {
    let mut heading = ["program", "without"].map(str::to_owned).to_vec();
    heading.extend(rounds.iter().map(|round| round.name().to_owned()));
    heading.extend(["processes", "busiest", "peak RSS"].map(str::to_owned));
    heading
}

/// Runs a case without hakmem, then each round; its row in the table and whether all was well.
fn run_case(
    project: &Project,
    case: &Case,
    options: &Options,
    rounds: &[Round],
    libraries: Option<&Libraries>,
) -> Result<(Vec<String>, bool)> {
    let stress_seconds = options.stress_seconds;
    let first = execute(project, case, &Run { under: None, limit: LIMIT, stress_seconds })?;
    let mut row = vec![case.name.to_owned(), seconds(&first)];
    let flaws = judge::flaws(&first);
    explain("without hakmem", &flaws, &first);
    let mut is_good = flaws.is_empty();
    let mut numbers = None;
    for &round in rounds {
        if !round.is_for(case, options) {
            row.push("-".to_owned());
            continue;
        }
        let level = if let Round::Level(level) = round { level } else { Level::Default };
        let limit = match round {
            Round::Sabotage => SABOTAGE_LEAST_LIMIT.max(first.finished.wall * SABOTAGE_PATIENCE),
            Round::Again | Round::Level(_) => LIMIT,
        };
        let under = libraries.map(|libraries| (libraries, level));
        let second = execute(project, case, &Run { under, limit, stress_seconds })?;
        let mut problems = judge::differences(&first, &second);
        if round == Round::Sabotage {
            let noticed = problems.first().cloned();
            eprintln!("{}", noticed.as_deref().unwrap_or("NOT NOTICED"));
            is_good &= noticed.is_some();
            row.push(if noticed.is_some() { "noticed".to_owned() } else { "NOT NOTICED".to_owned() });
            continue;
        }
        if let Some(reports) = &second.reports {
            problems.extend(judge::absences(case, level, reports));
        }
        explain(round.name(), &problems, &second);
        is_good &= problems.is_empty();
        row.push(format!("{} {}", if problems.is_empty() { "same" } else { "FAILED" }, seconds(&second)));
        numbers = numbers.or_else(|| cells(case, &second));
    }
    row.extend(numbers.unwrap_or_default());
    Ok((row, is_good))
}

/// What the processes under test reported, for the table.
fn cells(case: &Case, outcome: &Outcome) -> Option<Vec<String>> {
    let summary = outcome.reports.as_ref()?.as_ref().ok()?;
    let served: Vec<u64> = judge::under_test(case, summary).map(judge::served).collect();
    let count = u64::try_from(served.len()).unwrap_or(u64::MAX);
    Some(vec![
        format!("{} {}", table::count(count), case.program),
        table::count(served.iter().copied().max().unwrap_or(0)),
        table::bytes(summary.peak_rss_bytes),
    ])
}

fn choose(options: &Options) -> Result<Vec<&'static Case>> {
    let known = CASES.iter().map(|case| case.name).collect::<Vec<_>>().join(", ");
    for name in &options.only {
        ensure!(CASES.iter().any(|case| case.name == name), "compat knows no program `{name}`; it knows {known}");
    }
    let is_wanted = |case: &&Case| match options.only.as_slice() {
        [] => options.full || case.share != Share::Full,
        only => only.iter().any(|name| name == case.name),
    };
    Ok(CASES.iter().filter(is_wanted).collect())
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

/// The cases as a table for `docs/compat.md`.
pub fn cases_markdown() -> String {
    let mut text = String::from("| program | what it does | Debian packages | quick form |\n|---|---|---|---|\n");
    for case in &CASES {
        let mut packages: Vec<&str> = case.needs.iter().map(|&(_, package)| package).collect();
        packages.dedup();
        let quick = match case.share {
            Share::QuickAtAllLevels => "all levels",
            Share::Quick => "default",
            Share::Full => "",
        };
        let _infallible = writeln!(text, "| {} | {} | {} | {quick} |", case.name, case.what, packages.join(", "));
    }
    text
}

fn explain(round: &str, problems: &[String], outcome: &Outcome) {
    for problem in problems {
        eprintln!("{round}: {problem}");
    }
    if !problems.is_empty() && !outcome.stderr.is_empty() {
        eprintln!("-- end of its stderr");
        let lines: Vec<&str> = outcome.stderr.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(30)) {
            eprintln!("   {line}");
        }
    }
}

fn seconds(outcome: &Outcome) -> String {
    format!("{:.1} s", outcome.finished.wall.as_secs_f64())
}
