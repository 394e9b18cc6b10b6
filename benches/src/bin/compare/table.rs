//! Prints medians and ratios, and judges the bars.

use hakmem_benches::suite::Bench;

use crate::measure::{Cell, Run, median};

/// A benchmark's time must be at most `ratio` times the peer's.
struct Bar {
    bench: &'static str,
    peer: &'static str,
    ratio: f64,
}

const fn bar(bench: &'static str, peer: &'static str, ratio: f64) -> Bar {
    Bar { bench, peer, ratio }
}

/// The first ratios that the project set itself. `mimalloc` is the crate's default, version 3.
const BARS: &[Bar] = &[
    bar("pair64", "mimalloc", 0.6),
    bar("pair64", "rusty", 0.8),
    bar("replace400", "mimalloc", 0.85),
    bar("replace200k", "mimalloc", 0.6),
    bar("vec-growth", "mimalloc", 0.5),
    bar("producer-consumer", "mimalloc", 0.9),
    bar("spawn", "mimalloc", 0.8),
];
/// The peak of resident memory must be at most this many times the lowest peer's, on each benchmark that has a bar.
const PEAK_BAR: f64 = 1.05;
/// Shown, but no peer that a bar is set against.
const NO_BAR: &str = "system";

#[derive(Clone, Copy)]
struct Medians {
    ns_per_op: f64,
    peak_kib: f64,
    kept: usize,
}

/// Prints everything and says whether every bar was met.
pub fn print(benches: &[&'static Bench], allocators: &[String], cells: &[Cell], runs: &[Run]) -> bool {
    let medians = |bench: &str, allocator: &str| medians(cells, runs, bench, allocator);
    println!("\ntime, ns per operation (ratio subject/peer)");
    print_table(benches, allocators, &medians, |medians| medians.ns_per_op, 1.0);
    println!("\npeak RSS, MiB (ratio subject/peer)");
    print_table(benches, allocators, &medians, |medians| medians.peak_kib, 1024.0);
    let fewest = cells.iter().filter_map(|cell| medians(cell.bench.name, &cell.variant.allocator));
    println!("\nclean runs per cell: at least {}", fewest.map(|medians| medians.kept).min().unwrap_or(0));
    judge(benches, allocators, &medians)
}

fn medians(cells: &[Cell], runs: &[Run], bench: &str, allocator: &str) -> Option<Medians> {
    let cell = cells.iter().position(|cell| cell.bench.name == bench && cell.variant.allocator == allocator)?;
    let kept = || runs.iter().filter(move |run| run.cell == cell && run.kept);
    Some(Medians {
        ns_per_op: median(kept().map(|run| run.ns_per_op)),
        peak_kib: median(kept().map(|run| run.peak_rss_kib as f64)),
        kept: kept().count(),
    })
}

fn print_table(
    benches: &[&'static Bench],
    allocators: &[String],
    medians: &impl Fn(&str, &str) -> Option<Medians>,
    column: impl Fn(Medians) -> f64,
    unit: f64,
) {
    print!("{:18}", "");
    for allocator in allocators {
        print!(" {allocator:>18}");
    }
    println!();
    let Some(subject) = allocators.first() else { return };
    for bench in benches {
        print!("{:18}", bench.name);
        let own = medians(bench.name, subject).map_or(0.0, &column);
        for allocator in allocators {
            let value = medians(bench.name, allocator).map_or(0.0, &column);
            let ratio = if allocator == subject { String::new() } else { format!("({:.2})", own / value) };
            print!(" {:>11} {ratio:>6}", number(value / unit));
        }
        println!();
    }
}

/// Three significant digits without an exponent.
fn number(value: f64) -> String {
    match value {
        0.0..10.0 => format!("{value:.2}"),
        10.0..1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn judge(benches: &[&'static Bench], allocators: &[String], medians: &impl Fn(&str, &str) -> Option<Medians>) -> bool {
    let Some((subject, peers)) = allocators.split_first() else { return false };
    let mut all_met = true;
    let mut verdict = |what: String, ratio: f64, limit: f64| {
        let met = ratio <= limit;
        all_met &= met;
        let miss = format!("MISSED by {:.0} %", (ratio / limit - 1.0) * 100.0);
        println!("{what:48} {ratio:5.2}  bar {limit:4.2}  {}", if met { "ok" } else { &miss });
    };
    println!("\nbars for {subject}");
    for bar in BARS {
        if let (Some(own), Some(peer)) = (medians(bar.bench, subject), medians(bar.bench, bar.peer)) {
            verdict(format!("time   {} / {}", bar.bench, bar.peer), own.ns_per_op / peer.ns_per_op, bar.ratio);
        }
    }
    for bench in benches.iter().filter(|bench| BARS.iter().any(|bar| bar.bench == bench.name)) {
        let peaks = peers
            .iter()
            .filter(|peer| *peer != NO_BAR)
            .filter_map(|peer| Some((medians(bench.name, peer)?.peak_kib, peer)));
        let lowest = peaks.min_by(|one, other| one.0.total_cmp(&other.0));
        if let (Some(own), Some((peak, peer))) = (medians(bench.name, subject), lowest) {
            verdict(format!("peak   {} / {peer} (the lowest)", bench.name), own.peak_kib / peak, PEAK_BAR);
        }
    }
    all_met
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_names_a_benchmark() {
        assert!(BARS.iter().all(|bar| Bench::named(bar.bench).is_some()));
    }

    #[test]
    fn bars_are_judged_against_the_right_peer() {
        let benches = [Bench::named("pair64").unwrap()];
        let allocators = ["hakmem", "mimalloc", "rusty"].map(String::from);
        let with = |rusty: f64, own_peak: f64| {
            judge(&benches, &allocators, &|bench, allocator| {
                let (ns_per_op, peak_kib) = match allocator {
                    "hakmem" => (3.0, own_peak),
                    "mimalloc" => (5.0, 100.0),
                    _ => (rusty, 110.0),
                };
                (bench == "pair64").then_some(Medians { ns_per_op, peak_kib, kept: 7 })
            })
        };
        assert!(with(3.8, 105.0));
        assert!(!with(3.7, 105.0), "3.0 / 3.7 is above 0.8");
        assert!(!with(3.8, 105.1), "the peak is judged against the lowest");
    }
}
