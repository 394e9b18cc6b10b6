//! Tables for terminals and for Markdown.

use std::fmt::Write as _;

use super::results::{Results, Suite, Unit};
use super::summary::{Line, Measure, Table};
use crate::table;

/// A figure for a person: three digits, without an exponent.
pub fn figure(value: f64) -> String {
    match value.abs() {
        0.0..0.995 => format!("{value:.3}"),
        0.995..9.995 => format!("{value:.2}"),
        9.995..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A ratio, or nothing.
pub fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
}

/// A time with its unit.
pub fn time(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Seconds if value < 1.0 => format!("{} ms", figure(value * 1e3)),
        Unit::Seconds => format!("{} s", figure(value)),
        Unit::NsPerOp if value < 1e3 => format!("{} ns", figure(value)),
        Unit::NsPerOp if value < 1e6 => format!("{} µs", figure(value / 1e3)),
        Unit::NsPerOp => format!("{} ms", figure(value / 1e6)),
    }
}

/// Memory in MiB.
pub fn mib(kib: f64) -> String {
    format!("{} MiB", figure(kib / 1024.0))
}

/// A median in its unit.
pub fn value(line: &Line, allocator: usize, measure: Measure) -> String {
    line.median(allocator, measure).map_or_else(
        || "-".to_owned(),
        |median| if measure == Measure::Time { time(median, line.row.unit) } else { mib(median) },
    )
}

/// The table that the whole comparison comes down to: every allocator in relation to one.
pub fn summary(table: &Table) -> Vec<Vec<String>> {
    let base = table.base();
    let names = table.allocators.iter().map(|allocator| allocator.name.clone());
    let base_name = table.allocators.get(base).map_or("", |allocator| allocator.name.as_str());
    let mut rows = vec![std::iter::once(format!("geometric mean / {base_name}")).chain(names).collect::<Vec<_>>()];
    let mut add = |name: String, cell: &dyn Fn(usize) -> String| {
        rows.push(std::iter::once(name).chain((0..table.allocators.len()).map(cell)).collect());
    };
    let groups = table.groups();
    for measure in Measure::ALL {
        add(measure.name().to_owned(), &|allocator| ratio(table.mean(None, allocator, base, measure)));
        for group in groups.iter().filter(|_| groups.len() > 1 && measure == Measure::Time) {
            add(format!("  {group}"), &|allocator| ratio(table.mean(Some(group), allocator, base, measure)));
        }
    }
    for measure in Measure::ALL {
        add(format!("worst row / row's best, {}", measure.name()), &|allocator| {
            ratio(table.worst(allocator, measure).map(|(_, factor)| factor))
        });
    }
    add("usual spread of time".to_owned(), &|allocator| {
        table
            .usual_spread(allocator, Measure::Time)
            .map_or_else(|| "-".to_owned(), |spread| format!("{:.1} %", spread * 100.0))
    });
    rows
}

/// The subject beside each peer, benchmark by benchmark.
pub fn ratios(table: &Table, measure: Measure) -> Vec<Vec<String>> {
    let mut heading = vec![measure.name().to_owned()];
    heading.extend(table.allocators.first().map(|subject| subject.name.clone()));
    heading.extend(["±".to_owned(), "/ best".to_owned(), "best".to_owned()]);
    heading.extend(table.allocators.iter().skip(1).map(|peer| format!("/ {}", peer.name)));
    let mut rows = vec![heading];
    for line in &table.lines {
        let best = line.best_peer(measure).and_then(|(peer, _)| table.allocators.get(peer));
        let spread = line.cells.first().and_then(Option::as_ref).map(|cell| cell.spread(measure).relative() / 2.0);
        let mut row = vec![line.row.name.clone(), value(line, 0, measure)];
        row.push(spread.map_or_else(String::new, |spread| format!("{:.0} %", spread * 100.0)));
        row.push(ratio(line.ratio_to_best(measure)));
        row.push(best.map_or_else(|| "-".to_owned(), |peer| peer.name.clone()));
        row.extend((1..table.allocators.len()).map(|peer| ratio(line.ratio(0, peer, measure))));
        rows.push(row);
    }
    let mean = |name: &str, group: Option<&str>| {
        let mut row = vec![name.to_owned(), String::new(), String::new()];
        row.push(ratio(table.mean_to_best_of_each(group, measure)));
        row.push("of each".to_owned());
        row.extend((1..table.allocators.len()).map(|peer| ratio(table.mean(group, 0, peer, measure))));
        row
    };
    if table.plain_lines().next().is_some() {
        let groups = table.groups();
        rows.extend(
            groups.iter().filter(|_| groups.len() > 1).map(|group| mean(&format!("mean of {group}"), Some(group))),
        );
        rows.push(mean("geometric mean", None));
    }
    rows
}

/// What a reader must know before any number: what failed, what is not there, how calm the machine was.
pub fn warnings(results: &Results) -> Vec<String> {
    let facts = &results.facts;
    let mut warnings: Vec<String> = Vec::new();
    warnings.extend(facts.missing.iter().map(|(name, why)| format!("NOT RUN: {name}: {why}")));
    warnings.extend(facts.failures.iter().map(|failure| {
        format!(
            "FAILED: {} of the {} suite under {}: {}",
            failure.benchmark,
            failure.suite.name(),
            failure.allocator,
            failure.why
        )
    }));
    let dropped = results.runs.iter().filter(|run| !run.kept).count();
    if dropped > 0 {
        warnings.push(format!("{dropped} of {} runs stood beside a slow spin and were dropped", results.runs.len()));
    }
    let (others, wall) =
        results.runs.iter().fold((0.0, 0.0), |(others, wall), run| (others + run.others_s, wall + run.wall_s));
    if wall > 0.0 && others / wall > 0.05 {
        let share = others / wall * 100.0;
        warnings
            .push(format!("the machine was busy: other processes used {share:.0} % of a processor during the runs"));
    }
    warnings
}

/// Everything, on the terminal.
pub fn print(results: &Results) {
    for suite in Suite::ALL {
        let Some(table) = Table::of(results, suite) else { continue };
        let right: Vec<usize> = (1..table.allocators.len() + 5).collect();
        for measure in Measure::ALL {
            println!(
                "\n{} suite, {}: {} and its ratio to each peer",
                suite.name(),
                measure.name(),
                results.facts.subject
            );
            table::lines(&ratios(&table, measure), &right).iter().for_each(|line| println!("  {line}"));
        }
        if table.plain_lines().next().is_some() {
            println!("\n{} suite, every allocator", suite.name());
            table::lines(&summary(&table), &right).iter().for_each(|line| println!("  {line}"));
        }
    }
    println!();
    warnings(results).iter().for_each(|warning| println!("{warning}"));
}

/// Rows as a Markdown table, the first column left, the others right.
pub fn markdown(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (place, row) in rows.iter().enumerate() {
        let _row = writeln!(text, "| {} |", row.join(" | "));
        if place == 0 {
            let _rule = writeln!(text, "|---|{}", "---:|".repeat(row.len().saturating_sub(1)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::results;
    use super::*;

    #[test]
    fn figures_have_three_digits_and_times_their_unit() {
        assert_eq!([0.0123, 1.234, 12.34, 123.4].map(figure), ["0.012", "1.23", "12.3", "123"]);
        assert_eq!(time(0.25, Unit::Seconds), "250 ms");
        assert_eq!(time(2500.0, Unit::NsPerOp), "2.50 µs");
        assert_eq!(mib(1536.0), "1.50 MiB");
    }

    #[test]
    fn the_table_of_ratios_names_the_best_peer_and_ends_with_means() {
        let table = Table::of(&results(), Suite::Rust).unwrap();
        let rows = ratios(&table, Measure::Time);
        assert_eq!(rows[0], ["time", "hakmem", "±", "/ best", "best", "/ mimalloc2", "/ system"]);
        assert_eq!(rows[1][3..], ["0.50", "mimalloc2", "0.50", "0.25"]);
        assert_eq!(rows.last().unwrap()[5..], ["1.22", "0.61"]);
        assert!(rows.iter().all(|row| row.len() == rows[0].len()));
    }

    #[test]
    fn the_summary_puts_everyone_in_relation_to_one_peer() {
        let rows = summary(&Table::of(&results(), Suite::Rust).unwrap());
        assert_eq!(rows[0][1..], ["hakmem", "mimalloc2", "system"]);
        assert_eq!(rows[1], ["time", "1.22", "1.00", "2.00"]);
    }

    #[test]
    fn what_spoils_a_comparison_is_said() {
        let mut results = results();
        assert!(warnings(&results).is_empty());
        results.runs[0].kept = false;
        results.runs[1].others_s = 100.0;
        results.facts.missing.push(("sefer".to_owned(), "no such feature".to_owned()));
        let warnings = warnings(&results).join("\n");
        assert!(warnings.contains("sefer") && warnings.contains("dropped") && warnings.contains("busy"), "{warnings}");
    }

    #[test]
    fn markdown_tables_have_a_rule_below_the_heading() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned(), "1".to_owned()]];
        assert_eq!(markdown(&rows), "| a | b |\n|---|---:|\n| c | 1 |\n");
    }
}
