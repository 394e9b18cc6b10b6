//! `cargo xtask levels`: what the levels of protection cost, in time and in memory, against the default level.
//!
//! Benchmarks and real programs run under the preload library, one process per run, the levels in turn: round after round, each
//! row at each level, so that what the machine does besides meets all of them. Printed are medians of the rounds.
//!
//! **Invariants.** A run that fails, or that did not run at its level, fails the command: no number is made of it.

use std::fmt::Write as _;
use std::io::{Read as _, Seek as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bench::{median, pairs};
use crate::launch::{self, Finished, Preload};
use crate::level::Level;
use crate::project::Project;
use crate::report::Summary;
use crate::table::placed;

/// The page with the table, and its place there, which has the name of the command.
const PAGE: &str = "docs/hardening.md";
const PLACE: &str = "levels";

/// One allocation in so many is sampled: as in production, not as often as tests do it.
const SAMPLED_ONE_IN: &str = "1000";

/// Longest time one run may take: far more than it needs, so that only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(600);

/// Benchmarks of the program `suite`, each with operations that take about a second at the slowest level.
const BENCHES: [(&str, u64); 8] = [
    ("pair64", 8_000_000),
    ("replace400", 4_000_000),
    ("replace200k", 2_000_000),
    ("producer-consumer", 1_500_000),
    ("spawn", 500),
    ("vec-growth", 4),
    ("large", 10_000),
    ("list", 3_000_000),
];

/// Programs of `cargo xtask compat`, whose inputs they use.
const PROGRAMS: [&str; 4] = ["python3", "sqlite3", "redis", "gcc"];

/// What `cargo xtask levels` takes.
#[derive(clap::Args)]
pub struct Options {
    /// Runs of each row at each level; an odd number has a measured value as its median.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Percent of each benchmark's operations.
    #[arg(long, value_name = "PERCENT", default_value_t = 100)]
    scale: u64,
    /// Write the table into docs/hardening.md.
    #[arg(long)]
    fix: bool,
}

/// One line of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Row {
    Bench(&'static str, u64),
    Program(&'static str),
}

impl Row {
    const fn name(self) -> &'static str {
        match self {
            Self::Bench(name, _) | Self::Program(name) => name,
        }
    }
}

/// What one run came to. The time is in whatever unit its row has.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Run {
    time: f64,
    peak_rss_bytes: f64,
}

/// Measures and prints the table.
pub fn levels(project: &Project, options: &Options) -> Result<ExitCode> {
    ensure!(options.rounds > 0 && options.scale > 0, "nothing to measure");
    let library = project.preload_library()?;
    // On the C library's malloc, in whose place the preload library steps.
    let suite = project.bench_program("suite", "system")?;
    let rows: Vec<Row> = BENCHES
        .iter()
        .map(|&(name, ops)| Row::Bench(name, (ops * options.scale / 100).max(1)))
        .chain(PROGRAMS.map(Row::Program))
        .collect();
    let mut runs = vec![[const { Vec::new() }; Level::ALL.len()]; rows.len()];
    for round in 0..options.rounds {
        for (row, of_row) in rows.iter().zip(&mut runs) {
            eprint!("\rround {} of {}: {:<24}", round + 1, options.rounds, row.name());
            // Another level begins each round.
            for step in 0..Level::ALL.len() {
                let chosen = (round + step) % Level::ALL.len();
                if let (Some(level), Some(of_level)) = (Level::ALL.get(chosen), of_row.get_mut(chosen)) {
                    let run = measure(project, &library, &suite, *row, *level);
                    of_level.push(run.with_context(|| format!("{} at level {}", row.name(), level.name()))?);
                }
            }
        }
    }
    eprintln!();
    let table = markdown(&rows, &runs, options.rounds);
    print!("{table}");
    if options.fix {
        let path = project.root().join(PAGE);
        let page = std::fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
        let page = placed(&page, PLACE, PLACE, &table).context(PAGE)?;
        std::fs::write(&path, page).with_context(|| format!("cannot write {PAGE}"))?;
        println!("wrote {PAGE}");
    }
    Ok(ExitCode::SUCCESS)
}

/// A process under the library at a level, and what it wrote.
fn run(project: &Project, library: &Path, level: Level, command: &mut Command) -> Result<(Finished, String)> {
    let scratch = tempfile::Builder::new().prefix("hakmem-levels-").tempdir().context("no temporary directory")?;
    let inside = |name: &str| scratch.path().join(name);
    std::fs::create_dir(inside("work"))?;
    std::fs::create_dir(inside("reports"))?;
    let mut output = tempfile::tempfile().context("no temporary file")?;
    command.current_dir(inside("work")).env("TMPDIR", inside("work")).env("LC_ALL", "C.UTF-8");
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(Stdio::null());
    launch::clean_environment(project, command);
    Preload::new(library.to_owned(), inside("reports"))?.apply(command);
    for (name, _) in Level::ALL.iter().filter_map(|level| level.variable()) {
        command.env_remove(name);
    }
    command.envs(level.variable_sampling(SAMPLED_ONE_IN));
    let finished = launch::wait_for_at_most(command, LIMIT).context("it does not start")?;
    let mut text = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    ensure!(finished.status.success(), "{}\n{text}", finished.describe());
    let summary = Summary::read(&inside("reports"))?;
    let is_hardened = summary.hardened_allocs > 0 && summary.allocs == 0;
    ensure!(is_hardened == (level == Level::Hardened), "it ran at another level, or not under hakmem");
    Ok((finished, text))
}

fn measure(project: &Project, library: &Path, suite: &Path, row: Row, level: Level) -> Result<Run> {
    let (finished, time) = match row {
        Row::Bench(name, ops) => {
            let mut command = Command::new(suite);
            let (finished, text) = run(project, library, level, command.args([name, "--ops", &ops.to_string()]))?;
            (finished, pairs(&text).get("ns_per_op").copied().with_context(|| format!("no ns_per_op in {text:?}"))?)
        }
        Row::Program(name) => {
            let inputs = project.root().join("compat").join(name);
            let mut command = Command::new("bash");
            command.arg(inputs.join("run.sh")).env("COMPAT_DIR", &inputs);
            let (finished, _) = run(project, library, level, &mut command)?;
            let seconds = finished.wall.as_secs_f64();
            (finished, seconds)
        }
    };
    #[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
    Ok(Run { time, peak_rss_bytes: finished.peak_rss_bytes as f64 })
}

/// The table as Markdown: the default level in numbers, the others as ratios to it.
fn markdown(rows: &[Row], runs: &[[Vec<Run>; Level::ALL.len()]], rounds: usize) -> String {
    let mut text = format!(
        "Medians of {rounds} interleaved runs under the preload library; hardened and sampled (one in 1000) as ratios to default.\n\n\
         | what | default | hardened | sampled | peak, default | peak, hardened | peak, sampled |\n\
         |---|---:|---:|---:|---:|---:|---:|\n"
    );
    for (row, of_row) in rows.iter().zip(runs) {
        let medians =
            |column: fn(&Run) -> f64| of_row.each_ref().map(|runs| median(runs.iter().map(column)).unwrap_or(f64::NAN));
        let (times, peaks) = (medians(|run| run.time), medians(|run| run.peak_rss_bytes));
        let time = match row {
            Row::Bench(..) => format!("{:.1} ns", times[0]),
            Row::Program(_) => format!("{:.2} s", times[0]),
        };
        let ratios = |numbers: [f64; 3]| format!("{:.2} | {:.2}", numbers[1] / numbers[0], numbers[2] / numbers[0]);
        let peak = format!("{:.1} MiB", peaks[0] / f64::from(1 << 20));
        let _ok = writeln!(text, "| `{}` | {time} | {} | {peak} | {} |", row.name(), ratios(times), ratios(peaks));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_gives_the_default_in_numbers_and_the_rest_as_ratios() {
        let run = |time, peak_rss_bytes| vec![Run { time, peak_rss_bytes }];
        let mib = f64::from(1 << 20);
        let runs = [[run(10.0, mib), run(45.0, 3.0 * mib), run(10.0, mib)]];
        let text = markdown(&[Row::Bench("pair64", 5)], &runs, 1);
        assert!(text.ends_with("| `pair64` | 10.0 ns | 4.50 | 1.00 | 1.0 MiB | 3.00 | 1.00 |\n"), "{text}");
    }

    #[test]
    fn the_page_has_the_place_and_the_programs_are_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        assert!(placed(&std::fs::read_to_string(root.join(PAGE)).unwrap(), PLACE, PLACE, "").is_ok());
        assert!(PROGRAMS.iter().all(|name| root.join("compat").join(name).join("run.sh").is_file()));
    }
}
