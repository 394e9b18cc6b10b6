//! `cargo xtask run`: one program under hakmem, or the built-in workload under hakmem and under the system allocator.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::bench::{median, pairs};
use crate::launch::{self, Preload};
use crate::project::Project;
use crate::report::Summary;
use crate::table;

/// Rounds of the built-in comparison: an odd number, so that the median is a measured value.
const ROUND_COUNT: usize = 3;

/// Runs `command`, or the comparison when it is empty.
pub fn run(project: &Project, command: &[OsString]) -> Result<ExitCode> {
    match command.split_first() {
        Some((program, arguments)) => run_program(project, program, arguments),
        None => compare_workload(project),
    }
}

fn run_program(project: &Project, program: &OsString, arguments: &[OsString]) -> Result<ExitCode> {
    let library = project.preload_library()?;
    let directory = tempfile::Builder::new().prefix("hakmem-run-").tempdir().context("no temporary directory")?;
    let preload = Preload::new(library, directory.path().to_owned())?;

    let mut command = Command::new(program);
    command.args(arguments);
    launch::clean_environment(project, &mut command);
    preload.apply(&mut command);
    launch::leave_interrupts_to_the_program();
    let name = program.to_string_lossy();
    let finished = match launch::wait_for(&mut command) {
        Ok(finished) => finished,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("xtask: {name}: no such program");
            return Ok(ExitCode::from(127));
        }
        Err(error) => {
            eprintln!("xtask: {name} cannot be started: {error}");
            return Ok(ExitCode::from(126));
        }
    };

    eprintln!("\nhakmem under {name}: {}, {:.2} s", finished.describe(), finished.wall.as_secs_f64());
    match Summary::read(preload.reports()) {
        Ok(summary) => {
            for line in summary.lines() {
                eprintln!("  {line}");
            }
        }
        // The program's own status still counts more than an unreadable report.
        Err(error) => eprintln!("  reports cannot be read: {error:#}"),
    }
    Ok(ExitCode::from(finished.shell_code()))
}

struct Measured {
    ops_per_second: f64,
    peak_rss_bytes: f64,
}

fn compare_workload(project: &Project) -> Result<ExitCode> {
    ensure!(
        project.has_target("hakmem-benches", "workload"),
        "package hakmem-benches has no binary `workload`, the built-in workload; name a program: cargo xtask run -- CMD"
    );
    let hakmem = project.bench_program("workload", "hakmem")?;
    let system = project.bench_program("workload", "system")?;
    let mut of_hakmem = Vec::new();
    let mut of_system = Vec::new();
    for round in 1..=ROUND_COUNT {
        eprintln!("round {round} of {ROUND_COUNT}");
        of_hakmem.push(measure(project, &hakmem)?);
        of_system.push(measure(project, &system)?);
    }
    println!("Mixed multi-threaded workload, median of {ROUND_COUNT} interleaved runs:");
    let ours = medians(&of_hakmem).context("nothing was measured")?;
    let theirs = medians(&of_system).context("nothing was measured")?;
    let mut rows = vec![vec!["allocator".to_owned(), "M ops/s".to_owned(), "peak RSS".to_owned()]];
    for (name, measured) in [("hakmem", &ours), ("system", &theirs)] {
        let speed = format!("{:.2}", measured.ops_per_second / 1e6);
        rows.push(vec![name.to_owned(), speed, table::bytes(measured.peak_rss_bytes as u64)]);
    }
    let memory = ours.peak_rss_bytes / theirs.peak_rss_bytes;
    let speed = ours.ops_per_second / theirs.ops_per_second;
    rows.push(vec!["hakmem / system".to_owned(), format!("{speed:.2}x"), format!("{memory:.2}x")]);
    for line in table::lines(&rows, &[1, 2]) {
        println!("  {line}");
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(project: &Project, program: &Path) -> Result<Measured> {
    let mut output = tempfile::tempfile().context("no temporary file")?;
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(output.try_clone()?);
    launch::clean_environment(project, &mut command);
    let finished = launch::wait_for(&mut command).with_context(|| format!("{} does not start", program.display()))?;
    let text = {
        use std::io::{Read as _, Seek as _};
        let mut text = String::new();
        output.rewind()?;
        output.read_to_string(&mut text)?;
        text
    };
    if !finished.status.success() {
        bail!("{}: {}\n{text}", program.display(), finished.describe());
    }
    let Some(ops_per_second) = find_rate(&text) else {
        bail!("{} printed no `ops_per_s=…`:\n{text}", program.display());
    };
    #[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
    Ok(Measured { ops_per_second, peak_rss_bytes: finished.peak_rss_bytes as f64 })
}

/// The number behind `ops_per_s=`.
fn find_rate(text: &str) -> Option<f64> {
    pairs(text).get("ops_per_s").copied().filter(|rate| rate.is_finite() && *rate > 0.0)
}

fn medians(measured: &[Measured]) -> Option<Measured> {
    let of = |column: fn(&Measured) -> f64| median(measured.iter().map(column));
    Some(Measured { ops_per_second: of(|run| run.ops_per_second)?, peak_rss_bytes: of(|run| run.peak_rss_bytes)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_read_and_nonsense_is_not() {
        assert_eq!(find_rate("allocator=x threads=4 ops_per_s=12345678 peak_rss_kib=1\nmore\n"), Some(12_345_678.0));
        assert_eq!(find_rate("ops_per_s=0"), None);
        assert_eq!(find_rate("ops_per_s=NaN"), None);
        assert_eq!(find_rate("12 ops/s"), None);
    }

    #[test]
    fn median_is_not_moved_by_one_outlier() {
        let run = |speed, peak| Measured { ops_per_second: speed, peak_rss_bytes: peak };
        let median = medians(&[run(5.0, 7.0), run(1000.0, 1.0), run(6.0, 9.0)]).unwrap();
        assert_eq!((median.ops_per_second, median.peak_rss_bytes), (6.0, 7.0));
        assert!(medians(&[]).is_none());
    }
}
