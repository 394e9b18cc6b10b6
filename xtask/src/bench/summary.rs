//! Runs made into medians, ratios and means: what every table, plot and bar is about.
//!
//! A ratio is the subject's median by the peer's: below 1 the subject is faster or smaller. Means are geometric, over the rows that
//! both have. Points of lines (the scaling suite) are in no mean.

use super::results::{Allocator, Results, Row, Run, Suite};
use super::stats::{Spread, geometric_mean, median};

/// The peer that others are put in relation to, where it is there.
const BASE: &str = "mimalloc2";
/// The group that is in no mean over a suite: each of its programs is there for a bar of its own.
const BARS: &str = "bars";

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    Time,
    PeakRss,
}

impl Measure {
    /// In the order of reports.
    pub const ALL: [Self; 2] = [Self::Time, Self::PeakRss];

    /// As a heading.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::PeakRss => "peak RSS",
        }
    }
}

/// One benchmark under one allocator.
#[derive(Clone, Debug)]
pub struct Cell {
    pub time: Spread,
    /// What of the time the benchmark's own accesses take; 0 if it is not known.
    pub baseline: f64,
    pub peak_rss_kib: Spread,
    pub end_rss_kib: f64,
    pub virtual_kib: f64,
    pub user_s: f64,
    pub system_s: f64,
    pub minor_faults: f64,
    pub major_faults: f64,
    /// Resident bytes for each live byte, when the benchmark holds most.
    pub fragmentation: Option<f64>,
    pub kept_count: usize,
    pub run_count: usize,
}

impl Cell {
    fn of(runs: &[&Run]) -> Option<Self> {
        let kept: Vec<&Run> = runs.iter().filter(|run| run.kept).copied().collect();
        let spread = |column: fn(&Run) -> f64| Spread::of(kept.iter().map(|run| column(run)));
        let middle = |column: fn(&Run) -> f64| median(kept.iter().map(|run| column(run)));
        let holding = || kept.iter().filter(|run| run.live_bytes > 0.0);
        Some(Self {
            time: spread(|run| run.time)?,
            baseline: middle(|run| run.baseline)?,
            peak_rss_kib: spread(|run| run.peak_rss_kib)?,
            end_rss_kib: middle(|run| run.end_rss_kib)?,
            virtual_kib: middle(|run| run.virtual_kib)?,
            user_s: middle(|run| run.user_s)?,
            system_s: middle(|run| run.system_s)?,
            minor_faults: middle(|run| run.minor_faults)?,
            major_faults: middle(|run| run.major_faults)?,
            fragmentation: median(holding().map(|run| run.live_rss_kib * 1024.0 / run.live_bytes)),
            kept_count: kept.len(),
            run_count: runs.len(),
        })
    }

    /// Its spread of a measure.
    pub const fn spread(&self, measure: Measure) -> Spread {
        match measure {
            Measure::Time => self.time,
            Measure::PeakRss => self.peak_rss_kib,
        }
    }
}

/// One benchmark under every allocator.
#[derive(Clone, Debug)]
pub struct Line {
    pub row: Row,
    /// In the order of the table's allocators.
    pub cells: Vec<Option<Cell>>,
}

impl Line {
    /// The median of a measure.
    pub fn median(&self, allocator: usize, measure: Measure) -> Option<f64> {
        self.cells.get(allocator)?.as_ref().map(|cell| cell.spread(measure).median)
    }

    /// One allocator's median by another's.
    pub fn ratio(&self, over: usize, under: usize, measure: Measure) -> Option<f64> {
        Some(self.median(over, measure)? / self.median(under, measure)?)
    }

    /// The peer with the lowest median, and that median. The subject is at 0.
    pub fn best_peer(&self, measure: Measure) -> Option<(usize, f64)> {
        let medians = (1..self.cells.len()).filter_map(|peer| Some((peer, self.median(peer, measure)?)));
        medians.min_by(|one, other| one.1.total_cmp(&other.1))
    }

    /// The subject's median by the best peer's.
    pub fn ratio_to_best(&self, measure: Measure) -> Option<f64> {
        Some(self.median(0, measure)? / self.best_peer(measure)?.1)
    }

    /// An allocator's median by the lowest of all allocators'.
    pub fn ratio_to_lowest(&self, allocator: usize, measure: Measure) -> Option<f64> {
        let lowest = (0..self.cells.len()).filter_map(|other| self.median(other, measure)).min_by(f64::total_cmp)?;
        Some(self.median(allocator, measure)? / lowest)
    }
}

/// One suite.
#[derive(Clone, Debug)]
pub struct Table {
    pub suite: Suite,
    /// The subject first.
    pub allocators: Vec<Allocator>,
    pub lines: Vec<Line>,
    /// Of the machine.
    pub processors: usize,
}

impl Table {
    /// The suite's part of the results; `None` if it was not run.
    pub fn of(results: &Results, suite: Suite) -> Option<Self> {
        let facts = &results.facts;
        let mut allocators: Vec<Allocator> =
            facts.allocators.iter().filter(|allocator| allocator.suite == suite).cloned().collect();
        allocators.sort_by_key(|allocator| allocator.name != facts.subject);
        let line = |row: &Row| {
            let runs_of = |allocator: &Allocator| -> Vec<&Run> {
                let fits =
                    |run: &&Run| run.suite == suite && run.benchmark == row.name && run.allocator == allocator.name;
                results.runs.iter().filter(fits).collect()
            };
            Line { row: row.clone(), cells: allocators.iter().map(|allocator| Cell::of(&runs_of(allocator))).collect() }
        };
        let lines: Vec<Line> = facts.rows.iter().filter(|row| row.suite == suite).map(line).collect();
        (!lines.is_empty() && !allocators.is_empty()).then_some(Self {
            suite,
            allocators,
            lines,
            processors: facts.processors,
        })
    }

    /// Lines that are no points of a plotted line.
    pub fn plain_lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.row.point.is_none())
    }

    /// Groups in the order in which they first occur.
    pub fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = Vec::new();
        for line in self.plain_lines() {
            if !groups.contains(&line.row.group.as_str()) {
                groups.push(&line.row.group);
            }
        }
        groups
    }

    /// Lines of a group, or all that count.
    pub fn lines_of<'a>(&'a self, group: Option<&'a str>) -> impl Iterator<Item = &'a Line> {
        self.plain_lines().filter(move |line| group.map_or(line.row.group != BARS, |group| line.row.group == group))
    }

    /// Geometric mean of one allocator by another.
    pub fn mean(&self, group: Option<&str>, over: usize, under: usize, measure: Measure) -> Option<f64> {
        geometric_mean(self.lines_of(group).filter_map(|line| line.ratio(over, under, measure)))
    }

    /// Geometric mean of the subject by the best peer of each line: of an allocator that nobody has.
    pub fn mean_to_best_of_each(&self, group: Option<&str>, measure: Measure) -> Option<f64> {
        geometric_mean(self.lines_of(group).filter_map(|line| line.ratio_to_best(measure)))
    }

    /// The peer whose own mean is the lowest, and the subject's mean by it. It must have nearly all the lines: a peer that
    /// finished only a few easy ones is nobody's best.
    pub fn best_peer(&self, group: Option<&str>, measure: Measure) -> Option<(usize, f64)> {
        let count = self.lines_of(group).count();
        let ran = |peer: usize| self.lines_of(group).filter(|line| line.median(peer, measure).is_some()).count();
        let peers = (1..self.allocators.len()).filter(|&peer| ran(peer) * 10 >= count * 9);
        let means = peers.filter_map(|peer| Some((peer, self.mean(group, 0, peer, measure)?)));
        means.max_by(|one, other| one.1.total_cmp(&other.1))
    }

    /// The line where an allocator is furthest behind the lowest of that line, and by how much.
    pub fn worst(&self, allocator: usize, measure: Measure) -> Option<(&Line, f64)> {
        let ratios = self.lines_of(None).filter_map(|line| Some((line, line.ratio_to_lowest(allocator, measure)?)));
        ratios.max_by(|one, other| one.1.total_cmp(&other.1))
    }

    /// The allocator that the summary puts all in relation to.
    pub fn base(&self) -> usize {
        let named = self.allocators.iter().position(|allocator| allocator.name == BASE);
        named.unwrap_or_else(|| usize::from(self.allocators.len() > 1))
    }

    /// How far runs of one benchmark lie apart: the median, over an allocator's lines, of the middle half by the median.
    pub fn usual_spread(&self, allocator: usize, measure: Measure) -> Option<f64> {
        let cells = self.lines.iter().filter_map(|line| line.cells.get(allocator)?.as_ref());
        median(cells.map(|cell| cell.spread(measure).relative()))
    }

    /// Names of plotted lines, in the order in which they first occur, with what changes along them.
    pub fn series(&self) -> Vec<(&str, &str)> {
        let mut series: Vec<(&str, &str)> = Vec::new();
        for point in self.lines.iter().filter_map(|line| line.row.point.as_ref()) {
            if !series.iter().any(|(name, _)| *name == point.series) {
                series.push((&point.series, &point.parameter));
            }
        }
        series
    }

    /// The points of a plotted line for one allocator.
    pub fn points(&self, series: &str, allocator: usize, value: impl Fn(&Cell, f64) -> f64) -> Vec<(f64, f64)> {
        let of_line = |line: &Line| {
            let point = line.row.point.as_ref().filter(|point| point.series == series)?;
            Some((point.value, value(line.cells.get(allocator)?.as_ref()?, point.value)))
        };
        self.lines.iter().filter_map(of_line).collect()
    }

    /// Cost at the end of a plotted line by cost at its beginning, what the benchmark's own accesses cost left out. `None` where
    /// one of them is lost in that: then nothing is known.
    pub fn growth(&self, series: &str, allocator: usize) -> Option<f64> {
        let points = self.points(series, allocator, |cell, _| cell.time.median - cell.baseline);
        let (first, last) = (points.first()?.1, points.last()?.1);
        (first > 0.0 && last > 0.0).then(|| last / first)
    }

    /// The place of an allocator.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.allocators.iter().position(|allocator| allocator.name == name)
    }

    /// A line by its name.
    pub fn line(&self, name: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.row.name == name)
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::results::tests::{allocator, row, run};
    use super::*;

    /// Two benchmarks under three allocators.
    pub fn results() -> Results {
        let mut results = Results::default();
        results.facts.subject = "hakmem".to_owned();
        for name in ["mimalloc2", "hakmem", "system"] {
            results.facts.allocators.push(allocator(Suite::Rust, name));
        }
        for (name, group) in [("pair64", "tiny"), ("spawn", "threads")] {
            results.facts.rows.push(row(Suite::Rust, name, group));
        }
        for (benchmark, times) in [("pair64", [2.0, 4.0, 8.0]), ("spawn", [9.0, 3.0, 6.0])] {
            for (name, time) in ["hakmem", "mimalloc2", "system"].into_iter().zip(times) {
                for jitter in [0.9, 1.0, 1.2] {
                    results.runs.push(run(Suite::Rust, benchmark, name, time * jitter, 1000.0 * time));
                }
            }
        }
        results
    }

    #[test]
    fn ratios_are_of_medians_of_kept_runs() {
        let mut results = results();
        let mut slow = results.runs[0].clone();
        slow.kept = false;
        slow.time = 1e9;
        results.runs.push(slow);
        let table = Table::of(&results, Suite::Rust).unwrap();
        let line = table.line("pair64").unwrap();
        assert_eq!(table.allocators[0].name, "hakmem");
        assert_eq!(line.ratio(0, table.position("system").unwrap(), Measure::Time), Some(0.25));
        assert_eq!(line.ratio_to_best(Measure::Time), Some(0.5));
        let cell = line.cells[0].as_ref().unwrap();
        assert_eq!((cell.kept_count, cell.run_count), (3, 4));
        assert_eq!(cell.fragmentation, Some(2.0));
    }

    #[test]
    fn means_are_geometric_and_of_both_groups() {
        let table = Table::of(&results(), Suite::Rust).unwrap();
        let mimalloc = table.position("mimalloc2").unwrap();
        let mean = table.mean(None, 0, mimalloc, Measure::Time).unwrap();
        assert!((mean - (0.5_f64 * 3.0).sqrt()).abs() < 1e-9);
        assert_eq!(table.mean(Some("tiny"), 0, mimalloc, Measure::Time), Some(0.5));
        assert_eq!(table.best_peer(None, Measure::Time).unwrap().0, mimalloc);
        assert_eq!(table.groups(), ["tiny", "threads"]);
        let (worst, factor) = table.worst(0, Measure::Time).unwrap();
        assert_eq!((worst.row.name.as_str(), factor), ("spawn", 3.0));
    }

    #[test]
    fn an_allocator_that_ran_little_is_no_best_peer() {
        let mut results = results();
        results.facts.allocators.push(allocator(Suite::Rust, "quick"));
        results.runs.push(run(Suite::Rust, "pair64", "quick", 0.1, 1.0));
        let table = Table::of(&results, Suite::Rust).unwrap();
        let best = table.best_peer(None, Measure::Time).unwrap().0;
        assert_eq!(table.allocators[best].name, "mimalloc2");
        assert!(table.line("spawn").unwrap().cells[table.position("quick").unwrap()].is_none());
        assert!(Table::of(&results, Suite::Preload).is_none());
    }
}
