//! The tables in `docs/performance.md`, which a run replaces when it is told to.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::results::Results;
use super::summary::{Measure, Table};
use super::tables::{markdown, mib, ratio, summary, time, warnings};
use crate::table::placed;

const PAGE: &str = "docs/performance.md";

/// Replaces what stands at the place of that name.
pub fn write(root: &Path, place: &str, text: &str) -> Result<()> {
    let path = root.join(PAGE);
    let page = std::fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
    let page = placed(&page, place, place, text).context(PAGE)?;
    std::fs::write(&path, page).with_context(|| format!("cannot write {PAGE}"))
}

/// The name of a suite's place, which is also the command that fills it.
pub fn place(table: &Table) -> String {
    format!("bench --suite {}", table.suite.name())
}

/// When, where and under what the runs were made, and what a reader must know of them.
pub fn origin(results: &Results) -> String {
    let fact =
        |name: &str| results.facts.machine.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value);
    let mut text = format!(
        "Commit {}, {}; {}, {} processors, {}; kernel {}, huge pages {}; {}.\n",
        fact("commit"),
        fact("date").split('T').next().unwrap_or_default(),
        fact("processor"),
        fact("processors"),
        fact("memory"),
        // Without what a distributor or a host puts behind the version.
        fact("kernel").split('-').next().unwrap_or_default(),
        fact("huge pages"),
        fact("rustc")
    );
    for warning in warnings(results) {
        text.push_str(&format!("\n{warning}.\n"));
    }
    text.push('\n');
    text
}

/// A suite: every allocator in relation to one, then the subject's benchmarks beside the best peer of each.
pub fn suite(results: &Results, table: &Table) -> String {
    let mut text = origin(results);
    if table.plain_lines().next().is_some() {
        text.push_str(&markdown(&summary(table)));
        text.push('\n');
    }
    let name = |place: Option<(usize, f64)>| {
        place.and_then(|(peer, _)| table.allocators.get(peer)).map_or_else(|| "-".to_owned(), |peer| peer.name.clone())
    };
    let heading = ["benchmark", "time", "±", "/ best", "best", "peak RSS", "/ best", "best"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for line in &table.lines {
        let Some(cell) = line.cells.first().and_then(Option::as_ref) else { continue };
        rows.push(vec![
            format!("`{}`", line.row.name),
            time(cell.time.median, line.row.unit),
            format!("{:.0} %", cell.time.relative() * 50.0),
            ratio(line.ratio_to_best(Measure::Time)),
            name(line.best_peer(Measure::Time)),
            mib(cell.peak_rss_kib.median),
            ratio(line.ratio_to_best(Measure::PeakRss)),
            name(line.best_peer(Measure::PeakRss)),
        ]);
    }
    text.push_str(&markdown(&rows));
    text
}

#[cfg(test)]
mod tests {
    use super::super::results::Suite;
    use super::super::summary::tests::results;
    use super::*;

    #[test]
    fn the_page_has_a_place_for_every_suite_and_for_the_sweep() {
        let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PAGE)).unwrap();
        let suites = Suite::ALL.map(|suite| format!("bench --suite {}", suite.name()));
        for place in suites.iter().map(String::as_str).chain(["sweep"]) {
            assert!(placed(&page, place, place, "").is_ok(), "{place}");
        }
    }

    #[test]
    fn a_suite_says_where_it_ran_and_names_the_best_peer_of_each_line() {
        let mut results = results();
        results.facts.machine.push(("kernel".to_owned(), "6.18-host".to_owned()));
        let table = Table::of(&results, Suite::Rust).unwrap();
        let text = suite(&results, &table);
        assert!(text.contains("kernel 6.18, "));
        assert!(text.contains("| `pair64` | 2.00 ns |"), "{text}");
        assert!(text.contains("| 0.50 | mimalloc2 |"), "{text}");
    }
}
