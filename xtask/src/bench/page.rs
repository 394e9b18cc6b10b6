//! The report: one HTML file with everything in it, summary first, then groups, then each benchmark.

use std::path::Path;

use anyhow::{Context as _, Result};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::bars::Verdict;
use super::plots::{self, Plot};
use super::results::{Results, Suite};
use super::summary::{Cell, Line, Measure, Table};
use super::tables;

const CSS: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Writes `report.html`, and each drawing as a file of its own beside it.
pub fn write(directory: &Path, results: &Results, verdicts: &[Verdict]) -> Result<()> {
    let drawings = directory.join("plots");
    std::fs::create_dir_all(&drawings).with_context(|| format!("cannot make {}", drawings.display()))?;
    let mut sections = Vec::new();
    for suite in Suite::ALL {
        let Some(table) = Table::of(results, suite) else { continue };
        let section = Section::of(table)?;
        section.plots().try_for_each(|plot| plot.save(&drawings))?;
        sections.push(section);
    }
    let page = page(results, verdicts, &sections).into_string();
    std::fs::write(directory.join("report.html"), page).context("cannot write the report")
}

/// A suite with its drawings.
struct Section {
    table: Table,
    scatter: Option<Plot>,
    /// Of each group.
    lanes: Vec<Plot>,
    curves: Vec<Plot>,
}

impl Section {
    fn of(table: Table) -> Result<Self> {
        let mut lanes = Vec::new();
        for group in table.groups() {
            for measure in Measure::ALL {
                lanes.push(plots::lanes(&table, group, measure)?);
            }
        }
        let mut curves = Vec::new();
        for (series, parameter) in table.series() {
            curves.extend(plots::series(&table, series, parameter)?);
        }
        Ok(Self { scatter: plots::scatter(&table)?, lanes, curves, table })
    }

    fn plots(&self) -> impl Iterator<Item = &Plot> {
        self.scatter.iter().chain(&self.lanes).chain(&self.curves)
    }
}

fn page(results: &Results, verdicts: &[Verdict], sections: &[Section]) -> Markup {
    let body = html! {
        nav {
            @for section in sections {
                a href={ "#" (section.table.suite.name()) } { (section.table.suite.name()) " suite" }
            }
            a href="#machine" { "machine and versions" }
            a href="#reading" { "how to read this" }
        }
        h2 { "In short" }
        @for section in sections.iter().filter(|section| section.scatter.is_some()) {
            h3 { (section.table.suite.name()) " suite: every allocator" }
            (plain(&tables::summary(&section.table)))
            (figure(section.scatter.as_ref()))
        }
        @if !verdicts.is_empty() { h3 { "Bars" } (bars(verdicts)) }
        @for section in sections { (suite(section)) }
        (machine(results))
        (reading())
    };
    shell(&format!("{} beside its peers", results.facts.subject), results, &body)
}

/// What stands around every report: title, where and when, warnings.
pub fn shell(title: &str, results: &Results, body: &Markup) -> Markup {
    let facts = &results.facts;
    let fact =
        |name: &str| facts.machine.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
    let warnings = tables::warnings(results);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(CSS)) }
            }
            body {
                h1 { (title) }
                p.pale {
                    (fact("date")) " · commit " (fact("commit")) " · " (fact("processor")) ", " (fact("processors")) " processors · kernel "
                    (fact("kernel")) ", huge pages: " (fact("huge pages"))
                }
                @if !warnings.is_empty() {
                    div.warnings { @for warning in &warnings { div { (warning) } } }
                }
                (body)
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

fn figure(plot: Option<&Plot>) -> Markup {
    html! {
        @if let Some(plot) = plot {
            figure { (PreEscaped(&plot.svg)) figcaption { (plot.title) } }
        }
    }
}

fn bars(verdicts: &[Verdict]) -> Markup {
    html! {
        div.wide { table {
            thead { tr { th { "bar" } th { "measured" } th { "at most" } th {} } }
            tbody { @for verdict in verdicts {
                tr {
                    td { (verdict.what) }
                    td { (verdict.value.map_or_else(|| "-".to_owned(), tables::figure)) }
                    td { (tables::figure(verdict.limit)) }
                    td class=(if verdict.is_met() { "met" } else { "missed" }) { (verdict.describe()) }
                }
            } }
        } }
    }
}

/// Rows as they are, the first one a heading.
pub fn plain(rows: &[Vec<String>]) -> Markup {
    html! {
        @if let Some((heading, rows)) = rows.split_first() {
            div.wide { table {
                thead { tr { @for cell in heading { th { (cell) } } } }
                tbody { @for row in rows { tr { @for cell in row { td { (cell) } } } } }
            } }
        }
    }
}

fn suite(section: &Section) -> Markup {
    let table = &section.table;
    html! {
        h2 id=(table.suite.name()) { (table.suite.name()) " suite" }
        (legend(table))
        @for pair in section.curves.chunks(2) { div.pair { @for plot in pair { (figure(Some(plot))) } } }
        @if table.plain_lines().next().is_some() {
            @for measure in Measure::ALL {
                h3 { (measure.name()) ": ratios to each peer" }
                (ratios(table, measure))
            }
        }
        @for (group, pair) in table.groups().iter().zip(section.lanes.chunks(Measure::ALL.len())) {
            h3 { (group) }
            div.pair { @for plot in pair { (figure(Some(plot))) } }
        }
        h3 { "Each benchmark" }
        @for line in &table.lines { (benchmark(table, line)) }
    }
}

fn legend(table: &Table) -> Markup {
    html! {
        p.legend { @for (place, allocator) in table.allocators.iter().enumerate() {
            span { i style={ "background:" (plots::css(plots::colour(&allocator.name, place))) } {} (allocator.name) }
        } }
    }
}

/// The shade behind a ratio.
fn shade(ratio: f64) -> &'static str {
    match ratio {
        ..0.7 => "g3",
        0.7..0.9 => "g2",
        0.9..0.98 => "g1",
        0.98..1.02 => "",
        1.02..1.1 => "b1",
        1.1..1.4 => "b2",
        _ => "b3",
    }
}

fn ratio_cell(ratio: Option<f64>) -> Markup {
    html! {
        @match ratio {
            Some(ratio) => td class=(shade(ratio)) data-value=(ratio) { (tables::ratio(Some(ratio))) },
            None => td data-value="1e9" { "-" },
        }
    }
}

fn ratios(table: &Table, measure: Measure) -> Markup {
    let peers = 1..table.allocators.len();
    let groups: Vec<Option<&str>> = table.groups().into_iter().map(Some).chain([None]).collect();
    html! {
        div.wide { table.sorts {
            thead { tr {
                th { "benchmark" }
                th.subject { (table.allocators.first().map_or("", |subject| subject.name.as_str())) }
                th { "±" } th { "/ best" } th { "best" }
                @for peer in table.allocators.iter().skip(1) { th { "/ " (peer.name) } }
            } }
            tbody { @for line in table.plain_lines() {
                tr {
                    td title=(line.row.what) { (line.row.name) }
                    td.subject data-value=(line.median(0, measure).unwrap_or(0.0)) { (tables::value(line, 0, measure)) }
                    @let half = line.cells.first().and_then(Option::as_ref).map_or(0.0, |cell| cell.spread(measure).relative() * 50.0);
                    td data-value=(half) { (format!("{half:.0} %")) }
                    (ratio_cell(line.ratio_to_best(measure)))
                    td { (line.best_peer(measure).and_then(|(peer, _)| table.allocators.get(peer)).map_or("-", |peer| peer.name.as_str())) }
                    @for peer in peers.clone() { (ratio_cell(line.ratio(0, peer, measure))) }
                }
            } }
            tfoot { @for group in &groups {
                tr {
                    td { @match group { Some(group) => { "mean of " (group) } None => "geometric mean" } }
                    td {} td {}
                    (ratio_cell(table.mean_to_best_of_each(*group, measure)))
                    td { "of each" }
                    @for peer in peers.clone() { (ratio_cell(table.mean(*group, 0, peer, measure))) }
                }
            } }
        } }
    }
}

fn benchmark(table: &Table, line: &Line) -> Markup {
    let unit = line.row.unit;
    html! {
        details {
            summary { b { (line.row.name) } " " span.pale { (line.row.what) } }
            div.wide { table.sorts {
                thead { tr {
                    th { "allocator" } th { "time" } th { "middle half" } th { "user" } th { "system" } th { "peak RSS" } th { "end RSS" }
                    th { "virtual" } th { "minor faults" } th { "major" } th { "RSS / live" } th { "clean runs" }
                } }
                tbody { @for (place, allocator) in table.allocators.iter().enumerate() {
                    @if let Some(cell) = line.cells.get(place).and_then(Option::as_ref) { (benchmark_row(&allocator.name, cell, unit)) }
                } }
            } }
        }
    }
}

fn benchmark_row(name: &str, cell: &Cell, unit: super::results::Unit) -> Markup {
    let kib = |kib: f64| html! { td data-value=(kib) { (tables::mib(kib)) } };
    let seconds =
        |seconds: f64| html! { td data-value=(seconds) { (tables::time(seconds, super::results::Unit::Seconds)) } };
    html! {
        tr {
            td { (name) }
            td data-value=(cell.time.median) { (tables::time(cell.time.median, unit)) }
            td data-value=(cell.time.low) { (tables::time(cell.time.low, unit)) " – " (tables::time(cell.time.high, unit)) }
            (seconds(cell.user_s)) (seconds(cell.system_s))
            (kib(cell.peak_rss_kib.median)) (kib(cell.end_rss_kib)) (kib(cell.virtual_kib))
            td data-value=(cell.minor_faults) { (format!("{:.0}", cell.minor_faults)) }
            td data-value=(cell.major_faults) { (format!("{:.0}", cell.major_faults)) }
            td data-value=(cell.fragmentation.unwrap_or(1e9)) { (tables::ratio(cell.fragmentation)) }
            td data-value=(cell.kept_count) { (cell.kept_count) " of " (cell.run_count) }
        }
    }
}

fn machine(results: &Results) -> Markup {
    html! {
        h2 id="machine" { "Machine and versions" }
        dl { @for (name, value) in &results.facts.machine { dt { (name) } dd { (value) } } }
        @for suite in Suite::ALL {
            @let of_suite: Vec<_> = results.facts.allocators.iter().filter(|allocator| allocator.suite == suite).collect();
            @if !of_suite.is_empty() {
                h3 { "Allocators of the " (suite.name()) " suite" }
                dl { @for allocator in of_suite { dt { (allocator.name) } dd { (allocator.version) } } }
            }
        }
    }
}

fn reading() -> Markup {
    html! {
        h2 id="reading" { "How to read this" }
        ul {
            li { "Every figure is the median of the clean runs. A run is clean when fixed work beside it took no longer than usual; others were
                  dropped and made up for. Runs of all allocators alternate in shuffled order, each in a fresh process, on the same processors." }
            li { "A ratio is the first allocator's median by the peer's: below 1, on green, it is faster or smaller. “Best” is the peer with the
                  lowest median of that benchmark; nobody is all of these at once. Means are geometric." }
            li { "± is half of the middle half of the runs, as a share of the median. A difference smaller than that says nothing." }
            li { "In the drawings of ratios a dot is a median, the line through it the middle half of the runs, a cross what lies beyond the edge." }
            li { "RSS / live is resident memory by requested bytes at the moment at which the benchmark holds most. Virtual is the most address
                  space. User and system time are those of the whole process." }
            li { "A click on a heading sorts." }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::results;
    use super::super::{bars, results::Failure};
    use super::*;

    #[test]
    fn a_report_holds_its_numbers_its_drawings_and_nothing_from_outside() {
        let mut results = results();
        results.facts.machine.push(("kernel".to_owned(), "6.18".to_owned()));
        results.facts.failures.push(Failure {
            suite: Suite::Rust,
            benchmark: "spawn".to_owned(),
            allocator: "sefer".to_owned(),
            why: "a < b".to_owned(),
        });
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &results, &bars::judge(&results)).unwrap();
        let page = std::fs::read_to_string(directory.path().join("report.html")).unwrap();
        // One scatter, and two lanes for each of two groups.
        assert_eq!(page.matches("<svg").count(), 5);
        assert!(page.contains("a &lt; b") && page.contains("mimalloc2") && page.contains("6.18"));
        assert!(page.contains("missed by") && page.contains("3.00"));
        let outside = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains("http:") && !outside.contains("https:") && !outside.contains("src="));
        assert!(directory.path().join("plots").join("rust-time-memory.svg").is_file());
    }

    #[test]
    fn a_ratio_is_shaded_by_how_far_it_is_from_one() {
        assert_eq!([0.5, 0.8, 0.95, 1.0, 1.05, 1.2, 9.0].map(shade), ["g3", "g2", "g1", "", "b1", "b2", "b3"]);
        assert!(ratio_cell(Some(0.5)).into_string().contains("data-value=\"0.5\""));
    }
}
