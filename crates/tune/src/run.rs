//! `hakmem-tune run`: a program under FROZEN and LEARN, then the search, then the policy file with its evidence; or several
//! programs, and one policy for all of them. `hakmem-tune judge`: a policy that is there, in fresh pairs with the defaults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hakmem_policy::FrozenPolicy;
use indicatif::{ProgressBar, ProgressStyle};

use crate::document::{Document, Evidence, Source};
use crate::evaluate::typical_curve;
use crate::explain::explain;
use crate::judge::{Breach, Limits, judge, warn_of_few};
use crate::knobs::{Change, DIMENSIONS, change_of, effect, group_of, named, policy_of, value_of};
use crate::measure::Usage;
use crate::plot::{self, Dot, Kind};
use crate::record::Record;
use crate::score::{Pass, Ratios, Weights, cost_of, median_usage};
use crate::search::{self, Bench, Outcome};
use crate::sites;
use crate::subject::{Program, Subject};
use crate::tables;

/// What to do.
pub struct Options {
    /// The preload library of hakmem.
    pub library: PathBuf,
    /// Runs each of FROZEN and LEARN before the search of a single program; 0 leaves LEARN out.
    pub reps: usize,
    /// Policies that are tried as a whole before steps are combined.
    pub starts: Vec<PathBuf>,
    /// How to search.
    pub search: search::Options,
    /// Go on after the passes that are in the record.
    pub resume: bool,
    /// The policy file; plot, record of passes and what LEARN came to lie beside it.
    pub output: PathBuf,
}

/// What is to be judged.
pub struct Trial {
    /// The preload library of hakmem.
    pub library: PathBuf,
    /// The policy.
    pub policy: PathBuf,
    /// Pairs of passes.
    pub pairs: usize,
    /// What counts how much.
    pub weights: Weights,
    /// What may be worse, and by how much.
    pub limits: Limits,
    /// The smallest gain that is worth a policy, as a share.
    pub least_gain: f64,
    /// Go on after the passes that are in the record.
    pub resume: bool,
    /// The record of passes.
    pub output: PathBuf,
}

/// Runs, searches, writes.
pub fn run(programs: &[Program], options: &Options) -> Result<ExitCode> {
    options.search.check()?;
    warn_of_few(options.search.pairs);
    let mut starts = Vec::new();
    for start in &options.starts {
        starts.push(start_of(&Document::read(start)?, &start.display().to_string()));
    }
    let place = Place { library: &options.library, resume: options.resume, record: &record_of(&options.output) };
    let mut bench = Runs::new(programs, &place, options.search.budget)?;
    // What LEARN leaves is a policy for one program.
    if let [program] = programs {
        starts.extend(bench.learned(program, options)?);
    }
    let outcome = search::search(&mut bench, &starts, &options.search)?;
    bench.progress.finish_and_clear();

    let document = document(programs, options, &outcome)?;
    document.write(&options.output)?;
    let picture = options.output.with_extension("svg");
    draw(&picture, programs, &outcome, &bench.learn_runs, options)?;
    print!("{}", summary(&outcome, programs));
    print!("\n{}", explain(&document, &options.output.display().to_string())?);
    println!("\nWritten: {}, {}, {}", options.output.display(), picture.display(), place.record.display());
    Ok(ExitCode::SUCCESS)
}

/// What a search may start from: knobs.
fn start_of(document: &Document, name: &str) -> Change {
    let rules = document.sites.len();
    if rules > 0 {
        eprintln!("{name} has site rules ({rules}), which the search does not measure: the result is without them");
    }
    change_of(&document.policy)
}

/// Runs a policy and the defaults in turn, and says what a search would decide. Fails if the policy would be refused.
pub fn judge_policy(programs: &[Program], trial: &Trial) -> Result<ExitCode> {
    ensure!(trial.pairs > 0, "at least one pair");
    let document = Document::read(&trial.policy)?;
    let change = change_of(&document.policy);
    ensure!(!change.is_empty() || !document.sites.is_empty(), "{} is the defaults", trial.policy.display());
    let defaults = Subject::hakmem(&trial.library, FrozenPolicy::DEFAULT).called(&named(&Change::new()));
    let name = format!("{}{}", named(&change), sites::named(&document.sites));
    let candidate = Subject::hakmem(&trial.library, document.policy).with_sites(&document.sites).called(&name);
    warn_of_few(trial.pairs);
    let place = Place { library: &trial.library, resume: trial.resume, record: &trial.output };
    let mut bench = Runs::new(programs, &place, 2 * trial.pairs)?;
    let mut pairs = Vec::new();
    for round in 0..trial.pairs {
        pairs.push(search::pair(round, &defaults, &candidate, &mut |subject| bench.pass(subject))?);
    }
    bench.progress.finish_and_clear();
    let verdict = judge(&pairs, &trial.weights, &trial.limits, trial.least_gain);
    let names = names(programs);
    print!("{}", tables::programs(&verdict, &names));
    println!("\n{}: {}", candidate.name, tables::verdict(&verdict, &names));
    println!("Passes: {}", trial.output.display());
    Ok(if verdict.refusal.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn names(programs: &[Program]) -> Vec<String> {
    programs.iter().map(Program::called).collect()
}

/// What a text about these programs calls them.
fn shown(programs: &[Program]) -> String {
    match programs {
        [program] => program.shown(),
        _ => format!("{} programs", programs.len()),
    }
}

fn record_of(output: &Path) -> PathBuf {
    output.with_extension("csv")
}

/// What LEARN came to before the search, for one that is resumed: it has to start from the same.
fn learned_of(output: &Path) -> PathBuf {
    output.with_extension("learned.toml")
}

/// Where passes come from.
struct Place<'a> {
    library: &'a Path,
    resume: bool,
    record: &'a Path,
}

/// The programs as the search sees them.
struct Runs<'a> {
    programs: &'a [Program],
    library: &'a Path,
    record: Record,
    learn_runs: Vec<Usage>,
    progress: ProgressBar,
    begin: Instant,
}

impl<'a> Runs<'a> {
    fn new(programs: &'a [Program], place: &Place<'a>, passes: usize) -> Result<Self> {
        let record = Record::open(place.record, programs, place.library, place.resume)?;
        if record.waiting() > 0 {
            eprintln!("{} recorded passes first", record.waiting());
        }
        for program in programs {
            program.check_that_it_listens(place.library)?;
        }
        let progress = ProgressBar::new(passes as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} passes, {elapsed}") {
            progress.set_style(style);
        }
        let (library, learn_runs, begin) = (place.library, Vec::new(), Instant::now());
        Ok(Self { programs, library, record, learn_runs, progress, begin })
    }

    /// One run of each program, or what the record has of it.
    fn pass(&mut self, subject: &Subject) -> Result<Pass> {
        self.progress.inc(1);
        if let Some(pass) = self.record.take(&subject.name)? {
            return Ok(pass);
        }
        let mut pass = Pass::new();
        for program in self.programs {
            let mut usage = program.run(subject)?;
            // A plot has room for the curves of one program.
            if self.programs.len() > 1 {
                usage.curve = Vec::new();
            }
            pass.push(usage);
        }
        self.record.add(&subject.name, &pass)?;
        Ok(pass)
    }

    /// What LEARN comes to, which is where the search may start, or came to before the passes that are in the record.
    fn learned(&mut self, program: &Program, options: &Options) -> Result<Option<Change>> {
        if options.reps == 0 {
            return Ok(None);
        }
        let kept = learned_of(&options.output);
        let learned = if self.record.waiting() == 0 {
            self.frozen_and_learn(program, options.reps, &options.search.weights)?
        } else if kept.is_file() {
            Some(Document::read(&kept)?)
        } else {
            None
        };
        let Some(learned) = learned else {
            // What an earlier search started from is not what this one does.
            let _absent = std::fs::remove_file(&kept);
            self.note("LEARN left no policy to start from");
            return Ok(None);
        };
        learned.write(&kept)?;
        let change = self.progress.suspend(|| start_of(&learned, &kept.display().to_string()));
        self.note(&format!("LEARN came to {}", named(&change)));
        Ok(Some(change).filter(|change| !change.is_empty()))
    }

    /// FROZEN and LEARN in turn, and what LEARN leaves.
    fn frozen_and_learn(&mut self, program: &Program, reps: usize, weights: &Weights) -> Result<Option<Document>> {
        let place = tempfile::tempdir().context("no temporary directory")?;
        let pattern = place.path().join("%p.toml");
        let library = self.library;
        let subject = || Subject::hakmem(library, FrozenPolicy::DEFAULT);
        let mut frozen = Vec::new();
        for _ in 0..reps {
            frozen.push(program.run(&subject())?);
            let learn = subject().called("hakmem LEARN").with("HAKMEM_MODE", "LEARN");
            self.learn_runs.push(program.run(&learn.with("HAKMEM_POLICY_OUT", &pattern))?);
        }
        let base = median_usage(&frozen);
        let ratios = Ratios::of(&median_usage(&self.learn_runs), &base);
        self.note(&format!("LEARN costs {:.3} of FROZEN ({})", ratios.cost(weights), tables::parts(&ratios)));
        // Each process of the command left one: the one that has seen most is the program.
        let mut files = Vec::new();
        for entry in std::fs::read_dir(place.path())? {
            files.push(Document::read(&entry?.path()).context("what LEARN wrote is no policy file")?);
        }
        Ok(files.into_iter().max_by_key(|document| document.source.windows))
    }
}

impl Bench for Runs<'_> {
    fn run(&mut self, change: &Change) -> Result<Pass> {
        self.pass(&Subject::hakmem(self.library, policy_of(change)?).called(&named(change)))
    }

    fn note(&mut self, text: &str) {
        let elapsed = Duration::from_secs(self.begin.elapsed().as_secs());
        self.progress.suspend(|| eprintln!("[{:>4} s] {text}", elapsed.as_secs()));
    }

    fn name_breach(&self, breach: &Breach) -> String {
        tables::breach(breach, &names(self.programs))
    }
}

fn summary(outcome: &Outcome, programs: &[Program]) -> String {
    let Some(verdict) = &outcome.verdict else {
        let noise = outcome.noise * 100.0;
        return format!("No step beat the defaults by more than runs differ ({noise:.1} %): the defaults stay.\n");
    };
    let (found, names) = (named(&outcome.candidate), names(programs));
    let head = if verdict.refusal.is_none() { "Found" } else { "Not taken" };
    let table = if programs.len() > 1 { format!("\n{}", tables::programs(verdict, &names)) } else { String::new() };
    format!("{head}: {found}\n{}\n{table}", tables::verdict(verdict, &names))
}

fn document(programs: &[Program], options: &Options, outcome: &Outcome) -> Result<Document> {
    let names = names(programs);
    let is_for_many = programs.len() > 1;
    let mut evidence = rejected(outcome, &names);
    for proof in &outcome.proofs {
        for field in proof.fields.iter().filter(|field| outcome.change.contains_key(*field)) {
            let before = value_of(&FrozenPolicy::DEFAULT, field);
            let now = outcome.change.get(field).cloned().unwrap_or_default();
            let buys = effect(field, &before, &now).unwrap_or("what the search was for");
            let (best, worst) = tables::extremes(&proof.programs, &names);
            let whom = if is_for_many && !best.is_empty() {
                format!(" Most for {}, least for {}.", best.join(", "), worst.join(", "))
            } else {
                String::new()
            };
            let costs = match proof.without {
                Some(without) => format!("Left out, a run costs {without:.3} instead of {:.3}", proof.with),
                None => "It came with a whole policy to start from, and was not left out by itself".to_owned(),
            };
            evidence.insert(
                (*field).to_owned(),
                Evidence {
                    reason: format!("{costs}; it buys {buys}.{whom}"),
                    before,
                    now,
                    trials: proof.runs as u64,
                    score_with: proof.with,
                    score_without: proof.without.unwrap_or(0.0),
                    dissent: Vec::new(),
                },
            );
        }
    }
    let accepted = outcome.verdict.as_ref().filter(|verdict| verdict.refusal.is_none());
    let costs: Vec<f64> =
        accepted.map_or_else(Vec::new, |verdict| verdict.programs.iter().map(|program| program.cost).collect());
    let (best, worst) = if is_for_many { tables::extremes(&costs, &names) } else { Default::default() };
    let clocks = if options.search.limits.clocks { "" } else { ", time not looked at" };
    let source = Source {
        tool: format!("hakmem-tune run {}", env!("CARGO_PKG_VERSION")),
        command: shown(programs),
        programs: if is_for_many { names } else { Vec::new() },
        host: std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
        cpus: std::thread::available_parallelism().map_or(0, |count| count.get() as u64),
        runs: outcome.log.len() as u64,
        cost: accepted.map_or(0.0, |verdict| verdict.cost),
        pairs: accepted.map_or(0, |verdict| verdict.pairs as u64),
        wins: accepted.map_or(0, |verdict| verdict.wins as u64),
        best,
        worst,
        weights: format!("{}{clocks}", options.search.weights),
        ..Source::default()
    };
    Ok(Document { policy: policy_of(&outcome.change)?, source, evidence, sites: Vec::new() })
}

/// What was tried of the knobs that keep their defaults, once for each group that is voted on when files are merged.
fn rejected(outcome: &Outcome, names: &[String]) -> BTreeMap<String, Evidence> {
    let mut evidence = BTreeMap::new();
    for first in first_of_groups() {
        let group = group_of(first);
        let has_one = |change: &Change| group.iter().any(|field| change.contains_key(field));
        let tried: Vec<_> = outcome.rejected.iter().filter(|step| has_one(&step.change)).collect();
        if tried.is_empty() || has_one(&outcome.change) {
            continue;
        }
        let before = value_of(&FrozenPolicy::DEFAULT, first);
        let said = |step: &search::Rejected| {
            let breach = step.breach.as_ref().map(|breach| format!(" ({})", tables::breach(breach, names)));
            format!("{} cost {:.3}{}", named(&step.change), step.cost, breach.unwrap_or_default())
        };
        let costs: Vec<String> = tried.iter().map(|step| said(step)).collect();
        evidence.insert(
            first.to_owned(),
            Evidence {
                now: before.clone(),
                before,
                trials: tried.iter().map(|step| step.runs as u64).sum(),
                score_with: 1.0,
                score_without: tried.iter().map(|step| step.cost).fold(f64::INFINITY, f64::min),
                reason: format!("Tried and not taken: {}.", costs.join("; ")),
                dissent: Vec::new(),
            },
        );
    }
    evidence
}

/// Of each group of knobs that the search turns the one that it names first.
fn first_of_groups() -> Vec<&'static str> {
    let mut firsts: Vec<&'static str> = Vec::new();
    for (field, _) in DIMENSIONS.iter().flat_map(|dimension| dimension.steps.iter().copied().flatten()) {
        if !firsts.iter().any(|first| group_of(first).contains(field)) {
            firsts.push(field);
        }
    }
    firsts
}

fn draw(path: &Path, programs: &[Program], outcome: &Outcome, learn: &[Usage], options: &Options) -> Result<()> {
    let kind = |change: &Change| {
        if change.is_empty() {
            Kind::Defaults
        } else if *change == outcome.candidate {
            Kind::Result
        } else {
            Kind::Other
        }
    };
    let cost = |pass: &Pass| cost_of(pass, &outcome.base, &options.search.weights);
    let dots: Vec<Dot> =
        outcome.log.iter().map(|(change, pass)| Dot { kind: kind(change), cost: cost(pass) }).collect();
    if programs.len() > 1 {
        return plot::dots(path, &shown(programs), &dots);
    }
    let runs_of = |wanted: Kind| -> Vec<Usage> {
        outcome.log.iter().filter(|(change, _)| kind(change) == wanted).flat_map(|(_, pass)| pass.clone()).collect()
    };
    let mut curves = vec![("defaults".to_owned(), typical_curve(&runs_of(Kind::Defaults)))];
    let others = [("LEARN", learn.to_vec()), ("result", runs_of(Kind::Result))];
    curves.extend(
        others
            .iter()
            .filter(|(_, runs)| !runs.is_empty())
            .map(|(name, runs)| ((*name).to_owned(), typical_curve(runs))),
    );
    plot::search(path, &shown(programs), &dots, &curves)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tried_in_vain_is_evidence_for_each_of_its_groups() {
        let tried = Change::from([("mid_cap", "15,15,15,15,15".to_owned()), ("large_cap", "4,3,2,2,1".to_owned())]);
        let rejected_with = |change: Change| {
            let step = search::Rejected { change: tried.clone(), cost: 1.1, runs: 2, breach: None };
            let candidate = change.clone();
            let outcome = Outcome {
                change,
                candidate,
                proofs: Vec::new(),
                rejected: vec![step],
                verdict: None,
                base: Pass::new(),
                noise: 0.0,
                log: Vec::new(),
            };
            rejected(&outcome, &[])
        };
        let both = rejected_with(Change::new());
        assert_eq!(both.keys().collect::<Vec<_>>(), ["large_cap", "mid_cap"]);
        assert_eq!((both["large_cap"].trials, both["mid_cap"].trials), (2, 2));
        let one = rejected_with(Change::from([("mid_budget", "1200".to_owned())]));
        assert_eq!(one.keys().collect::<Vec<_>>(), ["large_cap"], "a group that was taken has evidence of its own");
    }
}
