//! `cargo xtask soak`: every pattern of use at once, for minutes or hours, and whether the memory held beyond the blocks in use grows.
//!
//! **Not here.** The patterns and the checks of every byte: the `soak` program of `hakmem-benches`.
//! **Invariants.** A run that ended badly, that was too short to be judged, or in which hakmem said anything unexpected, fails.

mod judge;
mod plots;
mod samples;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::launch::{self, Preload};
use crate::level::Level;
use crate::project::Project;
use judge::Drift;
use samples::Samples;

/// Beyond the asked time: cycles are finished, and a loaded machine is slow.
const GRACE: Duration = Duration::from_secs(300);
/// A short run with enough cycles for a slope.
pub const QUICK_MINUTES: f64 = 0.33;

/// What `cargo xtask soak` takes.
#[derive(clap::Args)]
pub struct Options {
    /// How long.
    #[arg(long, value_name = "N", default_value_t = QUICK_MINUTES)]
    pub minutes: f64,
    /// Where the program's random numbers begin.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Threads that allocate, beside those that come and go.
    #[arg(long, default_value_t = 2)]
    pub threads: u64,
    /// How much hakmem looks for misuse.
    #[arg(long, value_enum, default_value = "default")]
    pub level: Level,
    /// Through the malloc family of the preload library instead of `#[global_allocator]`.
    #[arg(long)]
    pub preload: bool,
    /// Lose this many bytes in each cycle, to see that the judgement notices.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub leak_bytes: u64,
    /// Where the report goes, instead of target/soak.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Judge the samples of a run that is over, and write its report, instead of a new run.
    #[arg(long, value_name = "CSV")]
    pub samples: Option<PathBuf>,
}

impl Options {
    /// A run of that length and nothing special.
    pub const fn minutes(minutes: f64) -> Self {
        let (seed, threads, level, preload, leak_bytes) = (1, 2, Level::Default, false, 0);
        Self { minutes, seed, threads, level, preload, leak_bytes, output: None, samples: None }
    }
}

/// Runs it, or judges the samples of a run that is over; fails if the program or the judgement does.
pub fn soak(project: &Project, options: &Options) -> Result<ExitCode> {
    let problems = match &options.samples {
        Some(samples) => judge_file(samples, Vec::new())?,
        None => run(project, options)?,
    };
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs it, writes the report, and says whether all was well.
pub fn is_good(project: &Project, options: &Options) -> Result<bool> {
    Ok(run(project, options)?.is_empty())
}

/// A run that loses 8 MiB in each cycle must be found bad, for that reason alone: a judgement that nothing fails proves nothing.
pub fn leak_is_found(project: &Project) -> Result<bool> {
    let output = tempfile::Builder::new().prefix("hakmem-leak-").tempdir().context("no temporary directory")?;
    let leak =
        Options { leak_bytes: 8 << 20, output: Some(output.path().to_owned()), ..Options::minutes(QUICK_MINUTES) };
    let problems = run(project, &leak)?;
    Ok(matches!(problems.as_slice(), [problem] if problem.starts_with(judge::GREW)))
}

/// The program's run and everything that was wrong with it.
fn run(project: &Project, options: &Options) -> Result<Vec<String>> {
    ensure!(options.minutes > 0.0, "a soak takes time: --minutes must be above 0");
    let seconds = options.minutes * 60.0;
    let output = options.output.clone().unwrap_or_else(|| project.target().join("soak"));
    std::fs::create_dir_all(&output)?;
    let kind = if options.preload { "preload" } else { "global" };
    let name = format!("{kind}-{}-seed{}", options.level.name(), options.seed);
    let file = |extension: &str| output.join(format!("{name}.{extension}"));

    let program = project.bench_program("soak", if options.preload { "system" } else { "hakmem" })?;
    let mut command = Command::new(&program);
    launch::clean_environment(project, &mut command);
    let reports = tempfile::Builder::new().prefix("hakmem-soak-").tempdir().context("no temporary directory")?;
    if options.preload {
        Preload::new(project.preload_library()?, reports.path().to_owned())?.apply(&mut command);
    }
    if let Some((name, value)) = options.level.variable() {
        command.env(name, value);
    }
    command
        .args(["--seconds", &seconds.to_string(), "--seed", &options.seed.to_string()])
        .args(["--threads", &options.threads.to_string(), "--leak-bytes", &options.leak_bytes.to_string()])
        .args(["--cycle-seconds", &cycle_seconds(seconds).to_string(), "--csv"])
        .arg(file("csv"))
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(file("stderr"))?);
    eprintln!("soak: {name}, {:.1} minutes", options.minutes);
    let finished = launch::wait_for_at_most(&mut command, Duration::from_secs_f64(seconds) + GRACE)
        .with_context(|| format!("{} does not start", program.display()))?;

    let mut problems = complaints(&file("stderr"))?;
    if !finished.status.success() || finished.timed_out {
        problems.push(format!("the program: {}", finished.describe()));
    }
    judge_file(&file("csv"), problems)
}

/// Judges samples, writes the report beside them, and adds what is wrong to `problems`.
fn judge_file(path: &Path, mut problems: Vec<String>) -> Result<Vec<String>> {
    let samples = Samples::read(path)?;
    let drift = Drift::of(&samples);
    match &drift {
        Ok(drift) => {
            println!("{}", drift.describe());
            problems.extend(drift.problem());
        }
        Err(error) => problems.push(format!("the samples cannot be judged: {error:#}")),
    }
    problems.extend(judge::never_counted(&samples));
    let report = path.with_extension("html");
    let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    plots::write(&report, &name, &samples, drift.as_ref().ok(), &problems)?;
    for problem in &problems {
        eprintln!("soak: {problem}");
    }
    println!("soak: {}; report: {}", if problems.is_empty() { "ok" } else { "FAILED" }, report.display());
    Ok(problems)
}

/// Enough cycles for a slope even in a short run, and not more often than every twenty seconds in a long one.
fn cycle_seconds(seconds: f64) -> f64 {
    (seconds / 15.0).clamp(1.0, 20.0)
}

/// Lines on the program's stderr.
fn complaints(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read(path)?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().take(20).map(|line| format!("stderr: {line}")).collect())
}
