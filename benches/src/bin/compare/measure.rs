//! Runs the programs in shuffled order, round by round, and drops runs beside which the machine was slow.

use std::fmt::Write as _;
use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use hakmem_benches::Variant;
use hakmem_benches::suite::Bench;
use hakmem_testkit::{Random, available_kib};

/// A run is dropped when the spin beside it took this much longer than the median spin.
const SLOW_SPIN: f64 = 1.15;
/// Rounds beyond those asked for, to replace dropped runs.
const EXTRA_ROUNDS: usize = 3;

/// One benchmark with one allocator.
#[derive(Debug)]
pub struct Cell<'a> {
    pub bench: &'static Bench,
    pub variant: &'a Variant,
    ops: u64,
}

impl<'a> Cell<'a> {
    pub fn new(bench: &'static Bench, variant: &'a Variant, scale_percent: u64) -> Self {
        Self { bench, variant, ops: (bench.ops * scale_percent / 100).max(1) }
    }
}

/// One run of one cell.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub cell: usize,
    round: usize,
    pub ns_per_op: f64,
    pub peak_rss_kib: u64,
    spin_ms: f64,
    pub kept: bool,
}

/// Runs every cell once per round until each has `reps` clean runs or the extra rounds are used up. A cell without any
/// clean run keeps all its runs.
pub fn interleaved(cells: &[Cell], reps: usize, seed: u64) -> Result<Vec<Run>, String> {
    let mut random = Random::new(seed);
    let mut runs: Vec<Run> = Vec::new();
    for round in 0..reps + EXTRA_ROUNDS {
        let mut order: Vec<usize> = (0..cells.len()).filter(|&cell| clean(&runs, cell) < reps).collect();
        if order.is_empty() {
            break;
        }
        for index in (1..order.len()).rev() {
            order.swap(index, random.below(index + 1));
        }
        for (done, &cell) in order.iter().enumerate() {
            eprint!("\rround {}: {done} of {} ", round + 1, order.len());
            runs.push(run(cells, cell, round)?);
        }
        drop_slow(&mut runs);
    }
    eprintln!();
    for cell in 0..cells.len() {
        if clean(&runs, cell) == 0 {
            runs.iter_mut().filter(|run| run.cell == cell).for_each(|run| run.kept = true);
        }
    }
    Ok(runs)
}

fn clean(runs: &[Run], cell: usize) -> usize {
    runs.iter().filter(|run| run.cell == cell && run.kept).count()
}

fn run(cells: &[Cell], index: usize, round: usize) -> Result<Run, String> {
    let cell = cells.get(index).ok_or("no such cell")?;
    let before = spin();
    let output = Command::new(&cell.variant.program)
        .args([cell.bench.name, "--ops", &cell.ops.to_string()])
        .output()
        .map_err(|error| format!("{}: {error}", cell.variant.program.display()))?;
    let after = spin();
    let text = String::from_utf8_lossy(&output.stdout);
    let what = || format!("{} with {}", cell.bench.name, cell.variant.allocator);
    if !output.status.success() {
        return Err(format!("{} ended with {}: {}", what(), output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let number = |key| value(&text, key).ok_or_else(|| format!("{} printed no {key}: {text}", what()));
    Ok(Run {
        cell: index,
        round,
        ns_per_op: number("ns_per_op")?,
        peak_rss_kib: number("peak_rss_kib")? as u64,
        spin_ms: before.max(after),
        kept: true,
    })
}

fn value(text: &str, key: &str) -> Option<f64> {
    text.split_whitespace().find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
}

/// Milliseconds that fixed work takes, on two threads at once because some benchmarks use two; the slower counts.
fn spin() -> f64 {
    fn work() -> f64 {
        let start = Instant::now();
        let mut value = 1_u64;
        for _ in 0..4_000_000 {
            value = black_box(value.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7));
        }
        start.elapsed().as_secs_f64() * 1000.0
    }
    let other = std::thread::spawn(work);
    let here = work();
    other.join().map_or(here, |there| here.max(there))
}

fn drop_slow(runs: &mut [Run]) {
    let limit = median(runs.iter().map(|run| run.spin_ms)) * SLOW_SPIN;
    for run in runs {
        run.kept = run.spin_ms <= limit;
    }
}

/// The median; the mean of the middle two for an even count, zero for none.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (None, _) => 0.0,
        (Some(&high), 1) => high,
        (Some(&high), _) => values.get(middle - 1).map_or(high, |low| (low + high) / 2.0),
    }
}

/// All runs, one line each.
pub fn csv(cells: &[Cell], runs: &[Run]) -> String {
    let mut text = String::from("round,bench,allocator,ops,ns_per_op,peak_rss_kib,spin_ms,kept\n");
    for run in runs {
        let Some(cell) = cells.get(run.cell) else { continue };
        let _written = writeln!(
            text,
            "{},{},{},{},{:.3},{},{:.3},{}",
            run.round,
            cell.bench.name,
            cell.variant.allocator,
            cell.ops,
            run.ns_per_op,
            run.peak_rss_kib,
            run.spin_ms,
            run.kept
        );
    }
    text
}

/// Lets a child write three quarters of the free memory, so that no later run pays for the machine's first touch.
pub fn pretouch() -> Result<(), String> {
    let kib = available_kib() / 4 * 3;
    eprintln!("touching {} MiB once", kib / 1024);
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    // A child that was killed for memory has still warmed what it reached.
    let status = Command::new(program).args(["--pretouch-child", &kib.to_string()]).status();
    status.map(|_| ()).map_err(|error| error.to_string())
}

/// Allocates and writes `kib` KiB, page by page.
pub fn touch(kib: u64) {
    let chunks: Vec<Vec<u8>> = (0..kib / 1024).map(|_| vec![1_u8; 1 << 20]).collect();
    black_box(&chunks);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(cell: usize, spin_ms: f64) -> Run {
        Run { cell, round: 0, ns_per_op: 1.0, peak_rss_kib: 1, spin_ms, kept: true }
    }

    #[test]
    fn runs_beside_a_slow_spin_are_dropped() {
        let mut runs = [run(0, 10.0), run(0, 10.1), run(0, 9.9), run(1, 11.4), run(1, 11.7)];
        drop_slow(&mut runs);
        assert_eq!(runs.map(|run| run.kept), [true, true, true, true, false]);
        assert_eq!(clean(&runs, 1), 1);
    }

    #[test]
    fn medians_of_odd_even_and_no_values() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(median(std::iter::empty()), 0.0);
    }

    #[test]
    fn values_are_found_by_their_whole_key() {
        assert_eq!(value("x=1 ns_per_op=2.5 op=3\n", "op"), Some(3.0));
        assert_eq!(value("x=1 ns_per_op=2.5", "ns_per_op"), Some(2.5));
        assert_eq!(value("x=1", "op"), None);
    }
}
