//! What a call of the command runs: which benchmarks under which allocators; builds them and carries the plan out.
//!
//! **Invariants.** A benchmark or an allocator that was asked for and cannot run is named, never left out in silence. Every program of
//! the preload suite has first run once under the C library's allocator, and must then print the same under all others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use super::job::{Expected, Job, Launcher};
use super::plan::{self, Outcome, Planned};
use super::programs::{Program, programs};
use super::results::{Allocator, Facts, Failure, Results, Row, Run, Suite};
use super::{machine, preload, rust};
use crate::project::Project;

/// What every program runs under first.
const REFERENCE: &str = "the C library's malloc, beforehand";

/// hakmem under some of its variables, or built otherwise.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Setting {
    pub name: String,
    /// One of its layouts that are there to be measured (the feature without `ablation-`).
    pub layout: Option<String>,
    pub variables: Vec<(String, String)>,
}

/// What is run.
pub struct Choice {
    /// hakmem itself, once for each setting; the first is the subject.
    pub settings: Vec<Setting>,
    /// Other allocators; `None` is all of the suite.
    pub peers: Option<Vec<String>>,
    /// Programs and libraries that were built before, as further peers.
    pub kept: Vec<(String, PathBuf)>,
    /// Only benchmarks whose name contains one of these; all when empty.
    pub only: Vec<String>,
    /// Names in `only` are whole ones.
    pub whole_names: bool,
    /// Percent of each Rust benchmark's usual operations.
    pub scale: u64,
    /// The same for some benchmarks, of which `scale` is percents then.
    pub scales: &'static [(&'static str, u64)],
}

impl Choice {
    fn wants(&self, name: &str) -> bool {
        let is_meant = |part: &String| if self.whole_names { name == part } else { name.contains(part.as_str()) };
        self.only.is_empty() || self.only.iter().any(is_meant)
    }

    /// Percent of a benchmark's usual operations.
    fn scale_of(&self, name: &str) -> u64 {
        let own = self.scales.iter().find(|(known, _)| *known == name);
        own.map_or(self.scale, |(_, percent)| self.scale * percent / 100)
    }

    /// Layouts that the settings want, each once.
    fn layouts(&self) -> Vec<&str> {
        let mut layouts: Vec<&str> = self.settings.iter().filter_map(|setting| setting.layout.as_deref()).collect();
        layouts.sort_unstable();
        layouts.dedup();
        layouts
    }

    fn peers_of(&self, all: &[&str]) -> Vec<String> {
        self.peers.clone().unwrap_or_else(|| all.iter().map(|&name| name.to_owned()).collect())
    }
}

/// One benchmark under one allocator.
struct Cell {
    row: usize,
    allocator: String,
    job: Job,
}

/// What is to be run, built and ready.
pub struct Session<'a> {
    project: &'a Project,
    launcher: Launcher<'a>,
    build: PathBuf,
    facts: Facts,
    cells: Vec<Cell>,
    /// What each program of the preload suite must print.
    references: BTreeMap<usize, String>,
}

impl<'a> Session<'a> {
    /// One without anything to run yet.
    pub fn new(project: &'a Project, subject: &str, arguments: &str) -> Result<Self> {
        let machine = machine::facts(project, arguments);
        let build = project.target().join("bench").join("build");
        std::fs::create_dir_all(&build).with_context(|| format!("cannot make {}", build.display()))?;
        let launcher = Launcher::new(project, &build)?;
        let facts =
            Facts { machine, processors: machine::processors(), subject: subject.to_owned(), ..Facts::default() };
        Ok(Self { project, launcher, build, facts, cells: Vec::new(), references: BTreeMap::new() })
    }

    /// What is known of the machine and of what is to be run.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// States one more of what the runs are made with.
    pub fn state(&mut self, name: &str, value: String) {
        self.facts.machine.push((name.to_owned(), value));
    }

    /// Adds a suite.
    pub fn add(&mut self, suite: Suite, choice: &Choice) -> Result<()> {
        match suite {
            Suite::Rust | Suite::Scaling => self.add_rust(suite, choice),
            Suite::Preload => self.add_preload(choice),
        }
    }

    fn add_rust(&mut self, suite: Suite, choice: &Choice) -> Result<()> {
        let (mut names, unknown) = rust::known(self.project, &choice.peers_of(&rust::PEERS));
        for name in unknown {
            self.miss(&name, "hakmem-benches has no such feature");
        }
        names.insert(0, "hakmem".to_owned());
        let mut variants = rust::build(self.project, &self.build, &names)?;
        let mut layouts = BTreeMap::new();
        for layout in choice.layouts() {
            let built = rust::build(self.project, &self.build, &[format!("hakmem-{layout}")])?;
            layouts.extend(built.into_iter().map(|variant| (layout.to_owned(), variant)));
        }
        for (name, path) in choice.kept.iter().filter(|(_, path)| !is_library(path)) {
            variants.push(rust::kept(name, path)?);
        }
        let Some((hakmem, peers)) = variants.split_first() else { return Ok(()) };
        let listed = rust::list(hakmem)?;
        for setting in &choice.settings {
            self.facts.allocators.push(Allocator { name: setting.name.clone(), ..rust::described(hakmem, suite) });
        }
        self.facts.allocators.extend(peers.iter().map(|peer| rust::described(peer, suite)));
        for (row, arguments, cpus) in rust::rows(suite, &listed, |name| choice.scale_of(name))? {
            if !choice.wants(&row.name) {
                continue;
            }
            let place = self.add_row(row);
            for setting in &choice.settings {
                let variant = setting.layout.as_ref().and_then(|layout| layouts.get(layout)).unwrap_or(hakmem);
                let job = rust::job(variant, &arguments, cpus, &setting.variables);
                self.cells.push(Cell { row: place, allocator: setting.name.clone(), job });
            }
            for peer in peers {
                let job = rust::job(peer, &arguments, cpus, &[]);
                self.cells.push(Cell { row: place, allocator: peer.name.clone(), job });
            }
        }
        Ok(())
    }

    fn add_preload(&mut self, choice: &Choice) -> Result<()> {
        let hakmem = preload::hakmem(self.project, &self.build)?;
        let mut layouts = BTreeMap::new();
        for layout in choice.layouts() {
            layouts.insert(layout, preload::with_layout(self.project, &self.build, layout)?);
        }
        let mut peers = Vec::new();
        for name in choice.peers_of(&preload::PEERS) {
            match preload::peer(self.project, &self.build, &name) {
                Ok(library) => peers.push(library),
                Err(error) => self.miss(&name, &format!("{error:#}")),
            }
        }
        for (name, path) in choice.kept.iter().filter(|(_, path)| is_library(path)) {
            peers.push(preload::kept(name, path)?);
        }
        for setting in &choice.settings {
            self.facts.allocators.push(Allocator { name: setting.name.clone(), ..hakmem.described() });
        }
        self.facts.allocators.extend(peers.iter().map(preload::Library::described));
        for program in programs().filter(|program| choice.wants(program.name)) {
            if let Some(why) = preload::missing(program) {
                self.miss(program.name, &why);
                continue;
            }
            eprintln!("preparing {}", program.name);
            let (inputs, text) = match self.reference(program) {
                Ok(found) => found,
                Err(error) => {
                    eprintln!("FAILED: {}: {error:#}", program.name);
                    self.facts.failures.push(Failure {
                        suite: Suite::Preload,
                        benchmark: program.name.to_owned(),
                        allocator: REFERENCE.to_owned(),
                        why: format!("{error:#}"),
                    });
                    continue;
                }
            };
            let place = self.add_row(preload::row(program));
            self.references.insert(place, text);
            for setting in &choice.settings {
                let library = setting.layout.as_deref().and_then(|layout| layouts.get(layout)).unwrap_or(&hakmem);
                let job = preload::job(self.project, program, &inputs, library, &setting.variables);
                self.cells.push(Cell { row: place, allocator: setting.name.clone(), job });
            }
            for peer in &peers {
                let job = preload::job(self.project, program, &inputs, peer, &[]);
                self.cells.push(Cell { row: place, allocator: peer.name.clone(), job });
            }
        }
        Ok(())
    }

    /// A program's inputs, and what it prints under the C library's allocator: a run that also warms what it reads.
    fn reference(&self, program: &Program) -> Result<(PathBuf, String)> {
        let inputs = preload::prepare(self.project, &self.build, program)?;
        let plain = preload::job(self.project, program, &inputs, &preload::Library::none(), &[]);
        Ok((inputs, self.launcher.run(&plain)?.text))
    }

    fn add_row(&mut self, row: Row) -> usize {
        self.facts.rows.push(row);
        self.facts.rows.len() - 1
    }

    /// Names the benchmarks that were chosen by their whole names and that no suite has.
    pub fn miss_what_is_not_there(&mut self, choice: &Choice) {
        for name in &choice.only {
            let known = self.facts.rows.iter().any(|row| row.name == *name);
            if !known && !self.facts.missing.iter().any(|(missing, _)| missing == name) {
                self.miss(name, "no suite has such a benchmark");
            }
        }
    }

    fn miss(&mut self, name: &str, why: &str) {
        eprintln!("NOT RUN: {name}: {why}");
        self.facts.missing.push((name.to_owned(), why.to_owned()));
    }

    /// Writes this much memory before each run instead of the usual.
    pub fn warm(&mut self, mib: u64) {
        self.launcher.warmed_mib = mib;
    }

    /// Runs everything. Now and then what there is so far is saved, for a run that does not come to its end.
    pub fn run(self, reps: usize, seed: u64, touch: bool, directory: &Path) -> Result<Results> {
        self.go_on(reps, seed, touch, directory, &Results::default())
    }

    /// As [`Session::run`], after the runs that are there already.
    pub fn go_on(self, reps: usize, seed: u64, touch: bool, directory: &Path, begun: &Results) -> Result<Results> {
        ensure!(!self.cells.is_empty(), "no benchmark has such a name");
        if touch {
            self.launcher.touch()?;
        }
        let progress = ProgressBar::new((self.cells.len() * reps) as u64);
        progress.set_style(ProgressStyle::with_template("{elapsed} {bar:30} {pos}/{len} runs, {eta} left: {msg}")?);
        let perform = |cell, done: f64| {
            let run = self.perform(cell, &progress);
            // Rounds that replace dropped runs make the bar longer, so it goes by the plan and not by the count.
            progress.set_position((done * progress.length().unwrap_or(0) as f64) as u64);
            if let Err(error) = &run {
                progress.suspend(|| eprintln!("FAILED: {error:#}"));
            }
            run
        };
        let round_done = |outcome: &Outcome<Run>| self.results(outcome).save(directory);
        let begun = self.planned(begun);
        let outcome = plan::interleaved(self.cells.len(), reps, seed, begun, perform, round_done)?;
        progress.finish_and_clear();
        Ok(self.results(&outcome))
    }

    /// Runs of an earlier call, as far as this one has such cells.
    fn planned(&self, begun: &Results) -> Vec<Planned<Run>> {
        let cell_of = |run: &Run| {
            self.cells.iter().position(|cell| {
                let row = self.facts.rows.get(cell.row);
                cell.allocator == run.allocator
                    && row.is_some_and(|row| row.suite == run.suite && row.name == run.benchmark)
            })
        };
        let planned =
            |run: &Run| Some(Planned { cell: cell_of(run)?, round: run.round, kept: run.kept, run: run.clone() });
        begun.runs.iter().filter_map(planned).collect()
    }

    fn results(&self, outcome: &Outcome<Run>) -> Results {
        let as_run = |planned: &Planned<Run>| Run { round: planned.round, kept: planned.kept, ..planned.run.clone() };
        let mut results = Results { facts: self.facts.clone(), runs: outcome.runs.iter().map(as_run).collect() };
        let as_failure = |(cell, error): &(usize, anyhow::Error)| {
            let cell = self.cells.get(*cell)?;
            let row = self.facts.rows.get(cell.row)?;
            let (suite, benchmark) = (row.suite, row.name.clone());
            let why = format!("{:#}", error.root_cause());
            Some(Failure { suite, benchmark, allocator: cell.allocator.clone(), why })
        };
        results.facts.failures.extend(outcome.failures.iter().filter_map(as_failure));
        results
    }

    fn perform(&self, cell: usize, progress: &ProgressBar) -> Result<Run> {
        let cell = self.cells.get(cell).context("no such cell")?;
        let row = self.facts.rows.get(cell.row).context("no such row")?;
        let what = || format!("{} under {}", row.name, cell.allocator);
        progress.set_message(what());
        let measured = self.launcher.run(&cell.job).with_context(what)?;
        if cell.job.expected == Expected::Same {
            let reference = self.references.get(&cell.row).map(String::as_str).unwrap_or_default();
            check_same(&measured.text, reference).with_context(what)?;
        }
        measured.into_run(row.suite, row.unit, &row.name, &cell.allocator, cell.job.cpus).with_context(what)
    }
}

fn check_same(text: &str, reference: &str) -> Result<()> {
    let differs = text.lines().zip(reference.lines()).find(|(one, other)| one != other);
    if let Some((one, other)) = differs {
        anyhow::bail!("it printed {one:?} where it prints {other:?} under the C library's malloc");
    }
    let (lines, expected) = (text.lines().count(), reference.lines().count());
    ensure!(lines == expected, "it printed {lines} lines where it prints {expected} under the C library's malloc");
    Ok(())
}

fn is_library(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "so")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_by_any_part_and_none_chooses_all() {
        let choice = |only: &[&str]| Choice {
            settings: Vec::new(),
            peers: None,
            kept: Vec::new(),
            only: only.iter().map(|&name| name.to_owned()).collect(),
            whole_names: false,
            scale: 100,
            scales: &[],
        };
        assert!(choice(&[]).wants("replace400") && choice(&["list", "replace"]).wants("replace400"));
        assert!(!choice(&["list"]).wants("replace400"));
        let whole = Choice { whole_names: true, ..choice(&["replace400"]) };
        assert!(whole.wants("replace400") && !whole.wants("replace400-mid"));
    }

    #[test]
    fn a_benchmark_may_have_a_scale_of_its_own() {
        let choice = Choice {
            settings: ["a", "b", "b"]
                .map(|layout| Setting { layout: Some(layout.to_owned()), ..Setting::default() })
                .to_vec(),
            peers: None,
            kept: Vec::new(),
            only: Vec::new(),
            whole_names: true,
            scale: 50,
            scales: &[("list", 30)],
        };
        assert_eq!((choice.scale_of("list"), choice.scale_of("lists")), (15, 50));
        assert_eq!(choice.layouts(), ["a", "b"]);
    }

    #[test]
    fn output_that_differs_is_an_error_that_shows_where() {
        assert!(check_same("a\nb", "a\nb").is_ok());
        assert!(check_same("a\nc", "a\nb").unwrap_err().to_string().contains("\"c\""));
        assert!(check_same("a", "a\nb").is_err());
    }
}
