//! What the project demands of itself beside its peers, as data, and the judgement.
//!
//! **Invariants.** A bar whose benchmark was not run is not met: only a call that chose some benchmarks passes over it.

use super::results::{Results, Suite};
use super::summary::{Measure, Table};

/// One demand.
#[derive(Clone, Copy, Debug)]
enum Bar {
    /// Geometric mean over the suite, by the peer whose own is the lowest.
    MeanToBest { suite: Suite, measure: Measure, limit: f64 },
    /// Geometric mean over the suite, by this peer's.
    MeanTo { suite: Suite, peer: &'static str, measure: Measure, limit: f64 },
    /// No benchmark may be above this, by its best peer.
    EachRow { suite: Suite, measure: Measure, limit: f64 },
    /// One benchmark, by its best peer.
    Row { suite: Suite, name: &'static str, limit: f64 },
    /// What one benchmark takes more than under a peer, in seconds or KiB.
    Beyond { suite: Suite, name: &'static str, peer: &'static str, measure: Measure, limit: f64 },
    /// What one benchmark takes, whatever the peers do: the program says in its figures what that is.
    AtMost { suite: Suite, name: &'static str, measure: Measure, limit: f64 },
    /// Cost per operation, beyond the benchmark's own accesses, at the end of a line of the scaling suite by that at its beginning;
    /// and that by the flattest peer's, because what caches and the TLB do to metadata, they do to everyone's.
    Flat { series: &'static str, limit: f64 },
}

const fn row(name: &'static str, limit: f64) -> Bar {
    Bar::Row { suite: Suite::Rust, name, limit }
}

const BARS: &[Bar] = &[
    Bar::MeanTo { suite: Suite::Preload, peer: "mimalloc2", measure: Measure::Time, limit: 0.96 },
    Bar::MeanTo { suite: Suite::Preload, peer: "mimalloc2", measure: Measure::PeakRss, limit: 0.74 },
    // The version of the design's first measurements, and the harder one in time.
    Bar::MeanTo { suite: Suite::Preload, peer: "mimalloc2.3", measure: Measure::Time, limit: 0.96 },
    Bar::MeanTo { suite: Suite::Preload, peer: "mimalloc2.3", measure: Measure::PeakRss, limit: 0.74 },
    Bar::EachRow { suite: Suite::Preload, measure: Measure::Time, limit: 1.10 },
    Bar::MeanToBest { suite: Suite::Rust, measure: Measure::Time, limit: 0.85 },
    Bar::MeanToBest { suite: Suite::Rust, measure: Measure::PeakRss, limit: 0.95 },
    Bar::EachRow { suite: Suite::Rust, measure: Measure::Time, limit: 1.10 },
    // The rows of the design's first measurements: at or below the best peer.
    row("pair64", 1.0),
    row("batch1000-random", 1.0),
    row("replace400", 1.0),
    row("replace400-mid", 1.0),
    row("producer-consumer", 1.0),
    row("vec-growth", 1.0),
    row("spawn", 1.0),
    // A pair of malloc and free in C.
    Bar::Row { suite: Suite::Preload, name: "loops", limit: 0.8 },
    // A hundred processes, each at most 300 µs.
    Bar::Beyond { suite: Suite::Preload, name: "true", peer: "glibc", measure: Measure::Time, limit: 0.03 },
    // Anonymous memory.
    Bar::Beyond {
        suite: Suite::Preload,
        name: "little",
        peer: "glibc",
        measure: Measure::PeakRss,
        limit: 0.3 * 1024.0,
    },
    // Resident beyond 1.1 times what it was before.
    Bar::AtMost { suite: Suite::Preload, name: "spike", measure: Measure::PeakRss, limit: 16.0 * 1024.0 },
    // A ratio of system times.
    Bar::AtMost { suite: Suite::Preload, name: "paced", measure: Measure::Time, limit: 1.2 },
    Bar::Flat { series: "heap-size", limit: 1.15 },
    Bar::Flat { series: "superslabs", limit: 1.15 },
    Bar::Flat { series: "threads-ever", limit: 1.15 },
    Bar::Flat { series: "threads-ever-spawn", limit: 1.15 },
];

/// A bar with what was measured.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// What was compared with what.
    pub what: String,
    /// `None` if it was not run.
    pub value: Option<f64>,
    pub limit: f64,
}

impl Verdict {
    /// Whether it was run and met.
    pub fn is_met(&self) -> bool {
        self.value.is_some_and(|value| value <= self.limit)
    }

    /// In a word or two.
    pub fn describe(&self) -> String {
        match self.value {
            None => "not run".to_owned(),
            Some(_) if self.is_met() => "met".to_owned(),
            Some(value) => format!("missed by {:.0} %", (value / self.limit - 1.0) * 100.0),
        }
    }
}

/// Every bar of the suites that were run.
pub fn judge(results: &Results) -> Vec<Verdict> {
    judged(BARS, results)
}

fn judged(bars: &[Bar], results: &Results) -> Vec<Verdict> {
    let tables: Vec<Table> = Suite::ALL.into_iter().filter_map(|suite| Table::of(results, suite)).collect();
    bars.iter().filter_map(|bar| bar.verdict(tables.iter().find(|table| table.suite == bar.suite())?)).collect()
}

impl Bar {
    const fn suite(&self) -> Suite {
        match *self {
            Self::MeanToBest { suite, .. }
            | Self::MeanTo { suite, .. }
            | Self::EachRow { suite, .. }
            | Self::Row { suite, .. }
            | Self::Beyond { suite, .. }
            | Self::AtMost { suite, .. } => suite,
            Self::Flat { .. } => Suite::Scaling,
        }
    }

    fn verdict(&self, table: &Table) -> Option<Verdict> {
        let name = |allocator: usize| table.allocators.get(allocator).map_or("", |allocator| allocator.name.as_str());
        let suite = self.suite().name();
        let verdict = |what: String, value: Option<f64>, limit: f64| Some(Verdict { what, value, limit });
        match *self {
            Self::MeanToBest { measure, limit, .. } => {
                let best = table.best_peer(None, measure);
                let by = best.map_or("the best peer", |(peer, _)| name(peer));
                verdict(format!("{suite}: mean of {} by {by}", measure.name()), best.map(|(_, ratio)| ratio), limit)
            }
            Self::MeanTo { peer, measure, limit, .. } => {
                let ratio = table.position(peer).and_then(|peer| table.mean(None, 0, peer, measure));
                verdict(format!("{suite}: mean of {} by {peer}", measure.name()), ratio, limit)
            }
            Self::EachRow { measure, limit, .. } => {
                let ratios = table.lines_of(None).filter_map(|line| Some((line, line.ratio_to_best(measure)?)));
                let worst = ratios.max_by(|one, other| one.1.total_cmp(&other.1));
                let row = worst.map_or("any row", |(line, _)| line.row.name.as_str());
                let what = format!("{suite}: worst row's {} by its best peer ({row})", measure.name());
                verdict(what, worst.map(|(_, ratio)| ratio), limit)
            }
            Self::Row { name: row, limit, .. } => {
                let line = table.line(row);
                let by =
                    line.and_then(|line| line.best_peer(Measure::Time)).map_or("best peer", |(peer, _)| name(peer));
                let ratio = line.and_then(|line| line.ratio_to_best(Measure::Time));
                verdict(format!("{suite}: time of {row} by {by}"), ratio, limit)
            }
            Self::Beyond { name: row, peer, measure, limit, .. } => {
                let of = |allocator: usize| table.line(row)?.median(allocator, measure);
                let beyond = table.position(peer).and_then(|peer| Some(of(0)? - of(peer)?));
                verdict(format!("{suite}: {} of {row} beyond that under {peer}", measure.name()), beyond, limit)
            }
            Self::AtMost { name: row, measure, limit, .. } => {
                let own = table.line(row).and_then(|line| line.median(0, measure));
                verdict(format!("{suite}: {} that {row} prints", measure.name()), own, limit)
            }
            Self::Flat { series, limit } => {
                let growth = |allocator| table.growth(series, allocator);
                let flattest = (1..table.allocators.len()).filter_map(growth).min_by(f64::total_cmp);
                let ratio = growth(0).and_then(|own| Some(own / flattest?));
                verdict(format!("{suite}: growth along {series} by the flattest peer's"), ratio, limit)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::Point;
    use super::super::results::tests::{allocator, row as benchmark, run};
    use super::super::summary::tests::results;
    use super::*;

    fn only(bar: Bar) -> Verdict {
        judged(&[bar], &results()).remove(0)
    }

    #[test]
    fn bars_are_judged_against_the_right_peer() {
        let mean = only(Bar::MeanToBest { suite: Suite::Rust, measure: Measure::Time, limit: 1.23 });
        assert!(mean.is_met() && mean.what.ends_with("mimalloc2"), "{mean:?}");
        let worst = only(Bar::EachRow { suite: Suite::Rust, measure: Measure::Time, limit: 1.1 });
        assert!(!worst.is_met() && worst.what.contains("spawn"), "{worst:?}");
        assert_eq!(worst.describe(), "missed by 173 %");
        assert!(only(row("pair64", 0.5)).is_met());
        assert!(!only(row("pair64", 0.49)).is_met());
        let longer =
            Bar::Beyond { suite: Suite::Rust, name: "spawn", peer: "system", measure: Measure::Time, limit: 3.0 };
        assert_eq!(only(longer).value, Some(3.0));
        let own = Bar::AtMost { suite: Suite::Rust, name: "pair64", measure: Measure::Time, limit: 1e9 };
        assert!(only(own).value.is_some_and(|value| value > 0.0));
    }

    #[test]
    fn a_bar_whose_benchmark_was_not_run_is_not_met() {
        let absent = only(row("no-such-row", 1.0));
        assert!(!absent.is_met());
        assert_eq!(absent.describe(), "not run");
        let preload = Bar::MeanTo { suite: Suite::Preload, peer: "x", measure: Measure::Time, limit: 1.0 };
        assert!(judged(&[preload], &results()).is_empty(), "the suite was not asked for");
    }

    /// A line of hakmem's and a peer's, the first and the last cost of each.
    fn line(own: [f64; 2], peer: [f64; 2]) -> Results {
        let mut results = results();
        for name in ["hakmem", "peer"] {
            results.facts.allocators.push(allocator(Suite::Scaling, name));
        }
        for (value, own, peer) in [(1.0, own[0], peer[0]), (1024.0, own[1], peer[1])] {
            let name = format!("heap/{value}");
            let mut row = benchmark(Suite::Scaling, &name, "scaling");
            row.point = Some(Point { series: "heap".to_owned(), parameter: "live-bytes".to_owned(), value });
            results.facts.rows.push(row);
            results.runs.push(run(Suite::Scaling, &name, "hakmem", own, 1.0));
            results.runs.push(run(Suite::Scaling, &name, "peer", peer, 1.0));
        }
        results
    }

    #[test]
    fn growth_is_judged_beside_what_the_flattest_peer_grows() {
        let results = line([10.0, 33.0], [20.0, 60.0]);
        let verdict = judged(&[Bar::Flat { series: "heap", limit: 1.15 }], &results).remove(0);
        assert!((verdict.value.unwrap() - 1.1).abs() < 1e-9 && verdict.is_met(), "{verdict:?}");
    }

    #[test]
    fn a_line_that_begins_below_its_baseline_grows_by_no_known_factor() {
        for (own, peer) in [([10.0, 33.0], [2.0, 60.0]), ([2.0, 33.0], [20.0, 60.0]), ([2.0, 1.0], [20.0, 60.0])] {
            let mut results = line(own, peer);
            results.runs.iter_mut().for_each(|run| run.baseline = 5.0);
            let verdict = judged(&[Bar::Flat { series: "heap", limit: 1.15 }], &results).remove(0);
            assert_eq!((verdict.value, verdict.is_met()), (None, false));
        }
    }
}
