//! `cargo xtask sweep`: what each of hakmem's switches does to time and memory, one switch at a time, beside the default.
//!
//! The settings are allocators to the runner: hakmem, its environment apart. So they are interleaved like any others. Two of them
//! change nothing: what they show is noise. A round of all switches takes five minutes of processor time, because each run is
//! short; what a run of full length is needed for, `--scale`, `--only` and `--switch` say.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use maud::{Markup, PreEscaped, html};

use super::machine::CHANGED;
use super::plots::{self, Plot};
use super::results::{Facts, Results, Suite};
use super::session::{Choice, Session, Setting};
use super::summary::{Cell, Measure, Table};
use super::switches::{BENCHES, LAYOUT, PROGRAMS, SWITCHES};
use super::tables;
use super::{document, noise, page};
use crate::project::Project;
use crate::table;

const DEFAULT: &str = "default";
/// The switch that turns nothing, and how often the default is measured once more under its name.
const NOTHING: &str = "nothing";
const NOTHINGS: usize = 2;
/// Memory (MiB) that is written before each run: what the largest of them needs. The runs follow each other so closely that the host
/// has no time to take it away.
const WARMED_MIB: u64 = 256;

/// The facts that runs must share to be in one table.
const COMMIT: &str = "commit";
const SCALE: &str = "scale";

/// What `cargo xtask sweep` takes.
#[derive(clap::Args)]
pub struct Options {
    /// Only switches whose variable contains this, comma-separated.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    switch: Vec<String>,
    /// A setting of one's own, instead of the switches (may be repeated): variables with blanks between. LAYOUT=NAME is hakmem with
    /// the feature ablation-NAME.
    #[arg(long, value_name = "NAME=VALUE …")]
    set: Vec<String>,
    /// These benchmarks, comma-separated, instead of the usual ones.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
    /// Clean runs wanted of each benchmark at each setting.
    #[arg(long, default_value_t = 3)]
    reps: usize,
    /// Percent of the operations that a Rust benchmark has in a sweep, which take about a tenth of a second.
    #[arg(long, value_name = "PERCENT", default_value_t = 100)]
    scale: u64,
    /// Seed of the order of runs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where runs.csv, sweep.csv, the plots and report.html go, instead of target/bench/sweep.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Do not write most of the free memory once beforehand.
    #[arg(long)]
    no_touch: bool,
    /// Go on after the runs that are in the output directory already, if they are of the same commit, without changes, and of the
    /// same scale.
    #[arg(long)]
    resume: bool,
    /// Write the table into docs/performance.md.
    #[arg(long)]
    fix: bool,
    /// Make tables and report of a sweep that is over, from the files in its directory.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

/// Runs and reports.
pub fn sweep(project: &Project, options: &Options) -> Result<ExitCode> {
    let usual = || options.output.clone().unwrap_or_else(|| project.target().join("bench").join("sweep"));
    let (results, directory) = match &options.report {
        Some(directory) => (Results::load(directory)?, directory.clone()),
        None => (run(project, options, &usual())?, usual()),
    };
    let table = merged(&results)?;
    std::fs::write(directory.join("sweep.csv"), csv(&table)).context("cannot write sweep.csv")?;
    let rows = rows(&results, &table);
    table::lines(&rows, &[1, 2, 3, 4]).iter().for_each(|line| println!("{line}"));
    tables::warnings(&results).iter().for_each(|warning| println!("{warning}"));
    write_page(&directory, &results, &table)?;
    if options.fix {
        let text = document::origin(&results) + &tables::markdown(&rows);
        document::write(project.root(), "sweep", &text)?;
    }
    println!("\n{}", directory.join("report.html").display());
    Ok(if results.facts.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(project: &Project, options: &Options, directory: &Path) -> Result<Results> {
    ensure!(options.reps > 0 && options.scale > 0, "nothing to measure");
    let settings = if options.set.is_empty() { of_switches(&options.switch)? } else { of_texts(&options.set)? };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut session = Session::new(project, DEFAULT, &format!("cargo xtask {}", arguments.join(" ")))?;
    session.warm(WARMED_MIB);
    session.state(SCALE, format!("{} %", options.scale));
    let begun = if options.resume { begun(directory, session.facts())? } else { Results::default() };
    let benches: Vec<&str> = BENCHES.iter().map(|(name, _)| *name).collect();
    for (suite, usual) in [(Suite::Rust, benches.as_slice()), (Suite::Preload, PROGRAMS)] {
        let usual = usual.iter().map(|&name| name.to_owned()).collect();
        let choice = Choice {
            settings: settings.clone(),
            peers: Some(Vec::new()),
            kept: Vec::new(),
            only: if options.only.is_empty() { usual } else { options.only.clone() },
            whole_names: true,
            scale: options.scale,
            scales: BENCHES,
        };
        session.add(suite, &choice)?;
        if options.only.is_empty() || suite == Suite::Preload {
            session.miss_what_is_not_there(&choice);
        }
    }
    session.go_on(options.reps, options.seed, !options.no_touch, directory, &begun)
}

/// What an earlier call has left, if it measured the same.
fn begun(directory: &Path, now: &Facts) -> Result<Results> {
    let begun = Results::load(directory)?;
    for name in [COMMIT, SCALE] {
        ensure!(fact(&begun.facts, name) == fact(now, name), "what there is was measured at another {name}");
    }
    let is_changed = fact(now, COMMIT).is_some_and(|commit| commit.ends_with(CHANGED));
    ensure!(!is_changed, "files differ from the commit: what there is may have been measured with others");
    Ok(begun)
}

fn fact<'a>(facts: &'a Facts, name: &str) -> Option<&'a str> {
    facts.machine.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// The default, and each value of the switches that were asked for.
fn of_switches(only: &[String]) -> Result<Vec<Setting>> {
    let wanted =
        |variable: &str| only.is_empty() || only.iter().any(|part| variable.contains(&part.to_ascii_uppercase()));
    let chosen = SWITCHES.iter().filter(|switch| wanted(switch.variable));
    let texts: Vec<String> =
        chosen.flat_map(|switch| switch.values.iter().map(|value| format!("{}={value}", switch.variable))).collect();
    ensure!(!texts.is_empty(), "no switch has such a name");
    of_texts(&texts)
}

fn of_texts(texts: &[String]) -> Result<Vec<Setting>> {
    let plain = |name: String| Setting { name, ..Setting::default() };
    let mut settings = vec![plain(DEFAULT.to_owned())];
    settings.extend((1..=NOTHINGS).map(|number| plain(format!("{NOTHING}={number}"))));
    for text in texts {
        let mut setting = plain(text.replace("HAKMEM_", ""));
        for word in text.split_whitespace() {
            let (name, value) = word.split_once('=').with_context(|| format!("{word:?} is no NAME=VALUE"))?;
            if name == LAYOUT {
                setting.layout = Some(value.to_owned());
            } else {
                setting.variables.push((name.to_owned(), value.to_owned()));
            }
        }
        settings.push(setting);
    }
    Ok(settings)
}

/// Both suites as one table.
fn merged(results: &Results) -> Result<Table> {
    let mut tables = [Suite::Rust, Suite::Preload].into_iter().filter_map(|suite| Table::of(results, suite));
    let mut all = tables.next().context("there are no runs")?;
    for table in tables {
        ensure!(table.allocators.len() == all.allocators.len(), "the suites ran at different settings");
        all.lines.extend(table.lines);
    }
    Ok(all)
}

/// The switch that a setting turns.
fn switch_of(setting: &str) -> &str {
    setting.split('=').next().unwrap_or(setting)
}

/// Switches with the places of their settings.
fn switches(table: &Table) -> Vec<(&str, Vec<usize>)> {
    let mut switches: Vec<(&str, Vec<usize>)> = Vec::new();
    for (place, setting) in table.allocators.iter().enumerate().skip(1) {
        let name = switch_of(&setting.name);
        match switches.iter_mut().find(|(known, _)| *known == name) {
            Some((_, places)) => places.push(place),
            None => switches.push((name, vec![place])),
        }
    }
    switches
}

/// One line for each setting and benchmark, ratios to the default.
fn csv(table: &Table) -> String {
    let mut text =
        String::from("setting,suite,benchmark,time_ratio,time_spread,peak_rss_ratio,system_s,default_system_s\n");
    for (place, setting) in table.allocators.iter().enumerate().skip(1) {
        for line in &table.lines {
            let system = |place: usize| line.cells.get(place).and_then(Option::as_ref).map(|cell| cell.system_s);
            let spread = line.cells.get(place).and_then(Option::as_ref).map(|cell| cell.time.relative());
            let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.4}"));
            let _line = writeln!(
                text,
                "\"{}\",{},{},{},{},{},{},{}",
                setting.name,
                line.row.suite.name(),
                line.row.name,
                number(line.ratio(place, 0, Measure::Time)),
                number(spread),
                number(line.ratio(place, 0, Measure::PeakRss)),
                number(system(place)),
                number(system(0)),
            );
        }
    }
    text
}

/// One row for each setting: means, the benchmarks whose time it does most for and against, and what is more than noise.
fn rows(results: &Results, table: &Table) -> Vec<Vec<String>> {
    let heading = ["setting", "time", "peak RSS", "faults", "system time", "best for", "worst for", "beyond noise"];
    let is_unchanged = |name: &&str| *name == DEFAULT || switch_of(name) == NOTHING;
    let unchanged: Vec<&str> =
        table.allocators.iter().map(|setting| setting.name.as_str()).filter(is_unchanged).collect();
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for (place, setting) in table.allocators.iter().enumerate().skip(1) {
        let mut ratios: Vec<(f64, &str)> = table
            .lines
            .iter()
            .filter_map(|line| Some((line.ratio(place, 0, Measure::Time)?, line.row.name.as_str())))
            .collect();
        ratios.sort_by(|one, other| one.0.total_cmp(&other.0));
        let end =
            |found: Option<&(f64, &str)>| found.map_or_else(String::new, |(ratio, name)| format!("{name} {ratio:.2}"));
        let mean = |measure| tables::ratio(table.mean(None, place, 0, measure));
        let (time, peak) = (mean(Measure::Time), mean(Measure::PeakRss));
        let (best, worst) = (end(ratios.first()), end(ratios.last()));
        let faults = tables::ratio(sum_ratio(table, place, |cell| cell.minor_faults));
        let system = tables::ratio(sum_ratio(table, place, |cell| cell.system_s));
        let others: Vec<&str> = unchanged.iter().copied().filter(|name| *name != setting.name).collect();
        let told = noise::told(results, &setting.name, &others);
        rows.push(vec![setting.name.clone(), time, peak, faults, system, best, worst, told]);
    }
    rows
}

/// A figure of all benchmarks together that were run at both, by that at the default.
fn sum_ratio(table: &Table, place: usize, figure: impl Fn(&Cell) -> f64) -> Option<f64> {
    let both = table.lines.iter().filter_map(|line| {
        let at = |place: usize| Some(figure(line.cells.get(place)?.as_ref()?));
        Some((at(place)?, at(0)?))
    });
    let (own, default) = both.fold((0.0, 0.0), |sums, pair| (sums.0 + pair.0, sums.1 + pair.1));
    (default > 0.0).then(|| own / default)
}

fn write_page(directory: &Path, results: &Results, table: &Table) -> Result<()> {
    let drawings = directory.join("plots");
    std::fs::create_dir_all(&drawings).with_context(|| format!("cannot make {}", drawings.display()))?;
    let mut sections: Vec<(Plot, Vec<Vec<String>>)> = Vec::new();
    let all = rows(results, table);
    for (name, places) in switches(table) {
        let plot = plots::switch(table, name, &places)?;
        plot.save(&drawings)?;
        let heading = all.first().cloned();
        sections.push((
            plot,
            heading.into_iter().chain(places.iter().filter_map(|&place| all.get(place).cloned())).collect(),
        ));
    }
    let page = page::shell("What each switch of hakmem does", results, &body(table, &sections));
    std::fs::write(directory.join("report.html"), page.into_string()).context("cannot write the report")
}

fn body(table: &Table, sections: &[(Plot, Vec<Vec<String>>)]) -> Markup {
    let benches: Vec<&str> = table.lines.iter().map(|line| line.row.name.as_str()).collect();
    html! {
        p {
            "One switch at a time, everything else at its default; ratios to the default, below 1 is faster or smaller. `nothing` is the default "
            "once more: what it shows is noise. The large dot is the "
            "geometric mean, each small dot one benchmark: " (benches.join(", ")) ". "
            @if let Some(spread) = table.usual_spread(0, Measure::Time) {
                "Runs of one benchmark at the default usually lie ±" (format!("{:.1}", spread * 50.0)) " % apart: less than that is nothing."
            }
        }
        @for (plot, rows) in sections {
            h3 { (plot.title) }
            figure { (PreEscaped(&plot.svg)) }
            (page::plain(rows))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::{allocator, row, run};
    use super::*;

    fn results() -> Results {
        let mut results = Results::default();
        results.facts.subject = DEFAULT.to_owned();
        for (suite, benchmark) in [(Suite::Rust, "pair64"), (Suite::Preload, "redis")] {
            results.facts.rows.push(row(suite, benchmark, "group"));
            for (name, time) in [(DEFAULT, 2.0), ("PURGE_DELAY_MS=0", 4.0), ("PURGE_DELAY_MS=never", 1.0)] {
                results.facts.allocators.push(allocator(suite, name));
                results.runs.extend((0..3).map(|_| run(suite, benchmark, name, time, 1000.0 / time)));
            }
        }
        results
    }

    #[test]
    fn settings_are_compared_with_the_default_over_both_suites() {
        let table = merged(&results()).unwrap();
        assert_eq!(table.lines.len(), 2);
        assert_eq!(switches(&table), [("PURGE_DELAY_MS", vec![1, 2])]);
        let rows = rows(&results(), &table);
        assert_eq!(rows[1][..5], ["PURGE_DELAY_MS=0", "2.00", "0.50", "1.00", "1.00"]);
        assert_eq!(rows[1][7], "time 2+, RSS 2-");
        assert!(csv(&table).contains("\"PURGE_DELAY_MS=never\",preload,redis,0.5000,0.0000,2.0000"));
    }

    #[test]
    fn a_benchmark_that_a_setting_did_not_finish_is_in_none_of_its_sums() {
        let mut results = results();
        results.runs.iter_mut().filter(|run| run.benchmark == "redis").for_each(|run| run.minor_faults = 1e6);
        results.runs.retain(|run| run.benchmark != "redis" || run.allocator != "PURGE_DELAY_MS=0");
        let table = merged(&results).unwrap();
        assert_eq!(sum_ratio(&table, 1, |cell| cell.minor_faults), Some(1.0));
    }

    #[test]
    fn a_sweep_goes_on_after_runs_of_the_same_commit_and_scale_only() {
        let directory = tempfile::tempdir().unwrap();
        let of = |commit: &str, scale: &str| {
            let machine = [(COMMIT, commit), (SCALE, scale)].map(|(name, value)| (name.to_owned(), value.to_owned()));
            Facts { machine: machine.to_vec(), ..Facts::default() }
        };
        let goes_on = |before: Facts, now: Facts| {
            Results { facts: before, ..results() }.save(directory.path()).unwrap();
            begun(directory.path(), &now).is_ok()
        };
        assert!(goes_on(of("abc", "100 %"), of("abc", "100 %")));
        assert!(!goes_on(of("abc", "100 %"), of("def", "100 %")));
        assert!(!goes_on(of("abc", "100 %"), of("abc", "30 %")));
        let changed = format!("abc{CHANGED}");
        assert!(!goes_on(of(&changed, "100 %"), of(&changed, "100 %")), "nobody knows whether these are the same");
    }

    #[test]
    fn a_setting_may_have_several_variables() {
        let settings = of_texts(&["HAKMEM_A=1 HAKMEM_B=2".to_owned()]).unwrap();
        let setting = settings.last().unwrap();
        assert_eq!((setting.name.as_str(), setting.variables.len()), ("A=1 B=2", 2));
        assert!(settings[..=NOTHINGS].iter().all(|setting| setting.variables.is_empty()), "they change nothing");
        let layout = of_texts(&["LAYOUT=slab-tail".to_owned()]).unwrap().pop().unwrap();
        assert_eq!((layout.layout.as_deref(), layout.variables.len()), (Some("slab-tail"), 0));
        assert!(of_texts(&["HAKMEM_A".to_owned()]).is_err());
        assert!(of_switches(&["no-such".to_owned()]).is_err());
        assert!(of_switches(&["purge".to_owned()]).unwrap().len() > 2 + NOTHINGS);
    }

    #[test]
    fn the_report_has_a_drawing_for_each_switch() {
        let results = results();
        let directory = tempfile::tempdir().unwrap();
        write_page(directory.path(), &results, &merged(&results).unwrap()).unwrap();
        let page = std::fs::read_to_string(directory.path().join("report.html")).unwrap();
        assert_eq!(page.matches("<svg").count(), 1);
        assert!(page.contains("PURGE_DELAY_MS=never"));
    }
}
