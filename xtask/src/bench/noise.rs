//! What in a sweep is more than noise: a setting beside the default and beside settings that change nothing.
//!
//! **Invariants.** Only runs of one benchmark are compared. A run beside a slow spin has no time, but its memory is as good as any.

use super::results::{Results, Run};

/// What is looked at, and the least change of its median (a share) that is worth telling.
struct Figure {
    name: &'static str,
    of: fn(&Run) -> Option<f64>,
    least: f64,
}

const FIGURES: [Figure; 3] = [
    Figure { name: "time", of: |run| run.kept.then_some(run.time), least: 0.03 },
    Figure { name: "RSS", of: |run| Some(run.peak_rss_kib), least: 0.01 },
    Figure { name: "faults", of: |run| Some(run.minor_faults), least: 0.02 },
];

/// Runs of a setting below which nothing is told: a few runs lie on one side by chance.
const LEAST_RUNS: usize = 3;

/// What a setting does beyond noise, as words: of how many benchmarks time, RSS and faults are lower (`-`) or higher (`+`). A
/// benchmark counts when all runs of the setting lie on one side of all runs of `unchanged`, the default and its like. Empty: nothing.
pub fn told(results: &Results, setting: &str, unchanged: &[&str]) -> String {
    let mut words = Vec::new();
    for figure in &FIGURES {
        let (mut lower, mut higher) = (0, 0);
        for row in &results.facts.rows {
            let values = |names: &[&str]| -> Vec<f64> {
                let is_of = |run: &&Run| run.suite == row.suite && run.benchmark == row.name;
                let runs = results.runs.iter().filter(is_of).filter(|run| names.contains(&run.allocator.as_str()));
                runs.filter_map(figure.of).collect()
            };
            match side(&values(&[setting]), &values(unchanged), figure.least) {
                Some(Side::Lower) => lower += 1,
                Some(Side::Higher) => higher += 1,
                None => {}
            }
        }
        let mut counts = Vec::new();
        if lower > 0 {
            counts.push(format!("{lower}-"));
        }
        if higher > 0 {
            counts.push(format!("{higher}+"));
        }
        if !counts.is_empty() {
            words.push(format!("{} {}", figure.name, counts.join(" ")));
        }
    }
    words.join(", ")
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Lower,
    Higher,
}

/// On which side of all `unchanged` values all `values` lie, if they do, and by `least` of them at least.
fn side(values: &[f64], unchanged: &[f64], least: f64) -> Option<Side> {
    let lowest = |of: &[f64]| of.iter().copied().min_by(f64::total_cmp);
    let highest = |of: &[f64]| of.iter().copied().max_by(f64::total_cmp);
    if values.len() < LEAST_RUNS {
        return None;
    }
    let (low, high) = (lowest(values)?, highest(values)?);
    let (floor, ceiling) = (lowest(unchanged)?, highest(unchanged)?);
    if high < floor * (1.0 - least) {
        Some(Side::Lower)
    } else if low > ceiling * (1.0 + least) {
        Some(Side::Higher)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::Suite;
    use super::super::results::tests::{row, run};
    use super::*;

    #[test]
    fn only_what_lies_beyond_every_unchanged_run_is_told() {
        assert_eq!(side(&[1.0, 1.1, 1.0], &[1.2, 1.3], 0.03), Some(Side::Lower));
        assert_eq!(side(&[1.0, 1.25, 1.0], &[1.2, 1.3], 0.03), None, "it overlaps");
        assert_eq!(side(&[1.31; 3], &[1.2, 1.3], 0.03), None, "it is too little");
        assert_eq!(side(&[1.4; 3], &[1.2, 1.3], 0.03), Some(Side::Higher));
        assert_eq!(side(&[1.4; 2], &[1.2, 1.3], 0.03), None, "they are too few");
        assert_eq!(side(&[1.0; 3], &[], 0.0), None);
    }

    #[test]
    fn benchmarks_are_counted_and_times_beside_a_slow_spin_are_not() {
        let mut results = Results::default();
        for benchmark in ["a", "b"] {
            results.facts.rows.push(row(Suite::Rust, benchmark, "group"));
            for (name, time, rss) in [("default", 1.0, 100.0), ("nothing=1", 1.1, 100.0), ("x=1", 2.0, 100.0)] {
                results.runs.extend((0..3).map(|_| run(Suite::Rust, benchmark, name, time, rss)));
            }
        }
        assert_eq!(told(&results, "x=1", &["default", "nothing=1"]), "time 2+");
        assert_eq!(told(&results, "nothing=1", &["default", "nothing=1"]), "");
        results.runs.push(Run { kept: false, ..run(Suite::Rust, "a", "default", 3.0, 100.0) });
        results.runs.push(run(Suite::Rust, "b", "default", 3.0, 200.0));
        assert_eq!(told(&results, "x=1", &["default"]), "time 1+");
    }
}
