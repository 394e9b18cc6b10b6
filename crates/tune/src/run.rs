//! `hakmem-tune run`: a program under FROZEN and LEARN, then the search, then the policy file with its evidence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hakmem_policy::FrozenPolicy;
use indicatif::{ProgressBar, ProgressStyle};

use crate::document::{Document, Evidence, Source};
use crate::evaluate::typical_curve;
use crate::explain::explain;
use crate::knobs::{Change, DIMENSIONS, change_of, effect, named, policy_of, value_of};
use crate::measure::Usage;
use crate::plot::{self, Dot, Kind};
use crate::score::{Ratios, median_usage};
use crate::search::{self, Bench, Outcome};
use crate::subject::{Program, Subject};

/// What to do.
pub struct Options {
    /// The preload library of hakmem.
    pub library: PathBuf,
    /// Runs each of FROZEN and LEARN before the search; 0 leaves LEARN out.
    pub reps: usize,
    /// How to search.
    pub search: search::Options,
    /// The policy file; the plot lies beside it.
    pub output: PathBuf,
}

/// Runs, searches, writes.
pub fn run(program: &Program, options: &Options) -> Result<ExitCode> {
    program.check_that_it_listens(&options.library)?;
    let mut bench = Runs::new(program, options);
    let learned = bench.frozen_and_learn()?;
    let outcome = search::search(&mut bench, learned.as_slice(), &options.search)?;
    bench.progress.finish_and_clear();

    let document = document(program, options, &outcome)?;
    document.write(&options.output)?;
    let picture = options.output.with_extension("svg");
    draw(&picture, program, &outcome, &bench.learn_runs, options)?;
    print!("{}", summary(&outcome));
    print!("\n{}", explain(&document, &options.output.display().to_string())?);
    println!("\nWritten: {}, {}", options.output.display(), picture.display());
    Ok(ExitCode::SUCCESS)
}

/// The program as the search sees it.
struct Runs<'a> {
    program: &'a Program,
    library: &'a Path,
    reps: usize,
    weights: crate::score::Weights,
    learn_runs: Vec<Usage>,
    progress: ProgressBar,
    begin: Instant,
}

impl<'a> Runs<'a> {
    fn new(program: &'a Program, options: &'a Options) -> Self {
        let progress = ProgressBar::new(options.search.budget as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} runs, {elapsed}") {
            progress.set_style(style);
        }
        Self {
            program,
            library: &options.library,
            reps: options.reps,
            weights: options.search.weights,
            learn_runs: Vec::new(),
            progress,
            begin: Instant::now(),
        }
    }

    /// FROZEN and LEARN in turn; what LEARN came to is where the search may start.
    fn frozen_and_learn(&mut self) -> Result<Option<Change>> {
        let place = tempfile::tempdir().context("no temporary directory")?;
        let pattern = place.path().join("%p.toml");
        let subject = || Subject::hakmem(self.library, FrozenPolicy::DEFAULT);
        let mut frozen = Vec::new();
        for _ in 0..self.reps {
            frozen.push(self.program.run(&subject())?);
            let learn = subject().called("hakmem LEARN").with("HAKMEM_MODE", "LEARN");
            self.learn_runs.push(self.program.run(&learn.with("HAKMEM_POLICY_OUT", &pattern))?);
        }
        if self.reps == 0 {
            return Ok(None);
        }
        let base = median_usage(&frozen);
        let ratios = Ratios::of(&median_usage(&self.learn_runs), &base);
        self.note(&format!("LEARN costs {:.3} of FROZEN ({})", ratios.cost(&self.weights), shown(&ratios)));
        // Each process of the command left one: the one that has seen most is the program.
        let mut files = Vec::new();
        for entry in std::fs::read_dir(place.path())? {
            files.push(Document::read(&entry?.path()).context("what LEARN wrote is no policy file")?);
        }
        let Some(most) = files.iter().max_by_key(|document| document.source.windows) else {
            self.note("LEARN left no policy to start from");
            return Ok(None);
        };
        let learned = change_of(&most.policy);
        self.note(&format!("LEARN came to {}", named(&learned)));
        Ok(Some(learned).filter(|change| !change.is_empty()))
    }
}

impl Bench for Runs<'_> {
    fn run(&mut self, change: &Change) -> Result<Usage> {
        let usage = self.program.run(&Subject::hakmem(self.library, policy_of(change)?))?;
        self.progress.inc(1);
        Ok(usage)
    }

    fn note(&mut self, text: &str) {
        let elapsed = Duration::from_secs(self.begin.elapsed().as_secs());
        self.progress.suspend(|| eprintln!("[{:>4} s] {text}", elapsed.as_secs()));
    }
}

fn shown(ratios: &Ratios) -> String {
    let Ratios { wall, cpu, faults, memory } = ratios;
    format!("wall {wall:.3}, cpu {cpu:.3}, faults {faults:.3}, memory {memory:.3}")
}

fn summary(outcome: &Outcome) -> String {
    let Some(verdict) = &outcome.verdict else {
        let noise = outcome.noise * 100.0;
        return format!("No step beat the defaults by more than runs differ ({noise:.1} %): the defaults stay.\n");
    };
    let found = named(&outcome.candidate);
    let figures = format!(
        "cost {:.3} ({}), cheaper in {} of {} pairs",
        verdict.cost,
        shown(&verdict.ratios),
        verdict.wins,
        verdict.pairs
    );
    match &verdict.refusal {
        None => format!("Found: {found}\n{figures}\n"),
        Some(why) => format!("Not taken: {found}\n{figures}: {why}. The defaults stay.\n"),
    }
}

fn document(program: &Program, options: &Options, outcome: &Outcome) -> Result<Document> {
    let mut evidence = rejected(outcome);
    for proof in &outcome.proofs {
        for field in proof.fields.iter().filter(|field| outcome.change.contains_key(*field)) {
            let before = value_of(&FrozenPolicy::DEFAULT, field);
            let now = outcome.change.get(field).cloned().unwrap_or_default();
            let buys = effect(field, &before, &now).unwrap_or("what the search was for");
            evidence.insert(
                (*field).to_owned(),
                Evidence {
                    reason: format!(
                        "Left out, a run costs {:.3} instead of {:.3}; it buys {buys}.",
                        proof.without, proof.with
                    ),
                    before,
                    now,
                    trials: proof.runs as u64,
                    score_with: proof.with,
                    score_without: proof.without,
                    dissent: Vec::new(),
                },
            );
        }
    }
    let accepted = outcome.verdict.as_ref().filter(|verdict| verdict.refusal.is_none());
    let source = Source {
        tool: format!("hakmem-tune run {}", env!("CARGO_PKG_VERSION")),
        command: program.shown(),
        host: std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
        cpus: std::thread::available_parallelism().map_or(0, |count| count.get() as u64),
        runs: outcome.log.len() as u64,
        cost: accepted.map_or(0.0, |verdict| verdict.cost),
        pairs: accepted.map_or(0, |verdict| verdict.pairs as u64),
        wins: accepted.map_or(0, |verdict| verdict.wins as u64),
        weights: options.search.weights.to_string(),
        ..Source::default()
    };
    Ok(Document { policy: policy_of(&outcome.change)?, source, evidence, sites: Vec::new() })
}

/// What was tried of the knobs that keep their defaults.
fn rejected(outcome: &Outcome) -> BTreeMap<String, Evidence> {
    let mut evidence = BTreeMap::new();
    for dimension in DIMENSIONS {
        let fields: Vec<&str> = dimension.steps.iter().copied().flatten().map(|(field, _)| *field).collect();
        let Some(first) = fields.first().filter(|_| !fields.iter().any(|field| outcome.change.contains_key(field)))
        else {
            continue;
        };
        let tried: Vec<_> =
            outcome.rejected.iter().filter(|step| step.change.keys().any(|field| fields.contains(field))).collect();
        if tried.is_empty() {
            continue;
        }
        let before = value_of(&FrozenPolicy::DEFAULT, first);
        let costs: Vec<String> =
            tried.iter().map(|step| format!("{} cost {:.3}", named(&step.change), step.cost)).collect();
        evidence.insert(
            (*first).to_owned(),
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

fn draw(path: &Path, program: &Program, outcome: &Outcome, learn: &[Usage], options: &Options) -> Result<()> {
    let kind = |change: &Change| {
        if change.is_empty() {
            Kind::Defaults
        } else if *change == outcome.candidate {
            Kind::Result
        } else {
            Kind::Other
        }
    };
    let cost = |usage: &Usage| Ratios::of(usage, &outcome.base).cost(&options.search.weights);
    let dots: Vec<Dot> =
        outcome.log.iter().map(|(change, usage)| Dot { kind: kind(change), cost: cost(usage) }).collect();
    let runs_of = |wanted: Kind| -> Vec<Usage> {
        outcome.log.iter().filter(|(change, _)| kind(change) == wanted).map(|(_, usage)| usage.clone()).collect()
    };
    let mut curves = vec![("defaults".to_owned(), typical_curve(&runs_of(Kind::Defaults)))];
    let others = [("LEARN", learn.to_vec()), ("result", runs_of(Kind::Result))];
    curves.extend(
        others
            .iter()
            .filter(|(_, runs)| !runs.is_empty())
            .map(|(name, runs)| ((*name).to_owned(), typical_curve(runs))),
    );
    plot::search(path, &program.shown(), &dots, &curves)
}
