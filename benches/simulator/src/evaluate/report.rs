//! The evaluation: which runs there are, and what is written down of them.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use hakmem_learner::{Method, Options};
use hakmem_policy::FrozenPolicy;
use plotters::prelude::*;
use rayon::prelude::*;

use super::runs::{Learned, Subject, learned};
use super::search::Marks;
use super::{Scale, last_rounds};
use crate::model::Costs;

/// The bars: regret against the oracle, gain over the best policy that never changes, loss against the defaults where nothing changes.
const REGRET_BAR: f64 = 0.05;
const GAIN_BAR: f64 = 0.10;
const LOSS_BAR: f64 = 0.01;

/// A learner with its name.
#[derive(Clone, Debug)]
pub struct Variant {
    /// As tables call it.
    pub name: String,
    /// What it learns, and how.
    pub options: Options,
}

/// What mode LEARN runs with.
pub const DEFAULT_VARIANT: &str = "all";
/// Learns nothing: FROZEN, in the same rounds.
pub const NOTHING: &str = "none";

/// Every learner that is compared: the default one, each method of choosing, each knob alone, none.
#[must_use]
pub fn variants() -> Vec<Variant> {
    let variant = |name: &str, options: Options| Variant { name: name.to_owned(), options };
    let mut variants = vec![variant(DEFAULT_VARIANT, Options::default()), variant(NOTHING, Options::none())];
    for (name, method) in Method::ALL {
        variants.push(variant(&format!("all, {name}"), Options { method, ..Options::default() }));
    }
    type Switch = fn(&mut Options);
    let alone: [(&str, Switch); 12] = [
        ("purge and thp", |options| (options.purge, options.thp) = (true, true)),
        ("cap", |options| options.cap = true),
        ("cache", |options| options.cache = true),
        ("w_max", |options| options.w_max = true),
        ("thp", |options| options.thp = true),
        ("purge", |options| options.purge = true),
        ("refill", |options| options.refill = true),
        ("outbox", |options| options.outbox = true),
        ("warm", |options| options.warm = true),
        ("retention", |options| options.retention = true),
        ("idle_trim", |options| options.idle_trim = true),
        ("strategies", |options| options.strategies = true),
    ];
    for (name, switch_on) in alone {
        let mut options = Options::none();
        switch_on(&mut options);
        variants.push(variant(&format!("{name} alone"), options));
    }
    variants
}

/// One learner on one trace.
#[derive(Clone, Debug)]
pub struct Row {
    /// Name of the learner.
    pub variant: String,
    /// Its seed.
    pub seed: u64,
    /// Each round's score.
    pub rounds: Vec<f64>,
    /// Mean of the last rounds.
    pub score: f64,
    /// Seconds until the first policy was published, and until the learner came to rest.
    pub first_try_s: Option<f64>,
    /// The same for rest.
    pub converged_s: Option<f64>,
    /// Policies published.
    pub publications: usize,
    /// What it would export.
    pub best: FrozenPolicy,
}

impl Row {
    fn new(variant: &str, seed: u64, scale: &Scale, run: &Learned) -> Self {
        let rounds: Vec<f64> = run.rounds.iter().map(|round| scale.score(round)).collect();
        let last = last_rounds(&rounds);
        let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
        Self {
            variant: variant.to_owned(),
            seed,
            score: last.iter().sum::<f64>() / last.len().max(1) as f64,
            rounds,
            first_try_s: run.log.first().map(|step| seconds(step.at_ns)),
            converged_s: run.converged.map(|(nanoseconds, _)| seconds(nanoseconds)),
            publications: run.log.len(),
            best: run.best.clone(),
        }
    }
}

/// Everything about one trace.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Its name.
    pub name: String,
    /// Whether its load changes.
    pub changes: bool,
    /// Whether a program was recorded.
    pub is_recorded: bool,
    /// The best policy that never changes, and the oracle.
    pub best: Marks,
    /// Every learner.
    pub rows: Vec<Row>,
}

impl Judged {
    /// Runs everything.
    #[must_use]
    pub fn new(
        subject: &Subject,
        best: Marks,
        (changes, is_recorded): (bool, bool),
        variants: &[Variant],
        (rounds, seeds): (u32, u64),
        costs: &Costs,
    ) -> Self {
        let runs: Vec<(&Variant, u64)> =
            variants.iter().flat_map(|variant| (1..=seeds).map(move |seed| (variant, seed))).collect();
        let rows = runs.into_par_iter().map(|(variant, seed)| {
            let run = learned(subject, &variant.options, costs, seed, rounds);
            Row::new(&variant.name, seed, &best.scale, &run)
        });
        Self { name: subject.trace.name.clone(), changes, is_recorded, rows: rows.collect(), best }
    }

    /// The score of a learner: the mean over its seeds, where doing nothing in the same rounds is 1. (Doing nothing does not cost the
    /// same in each round: where blocks come to lie, and what is due when a phase begins, goes on changing.)
    #[must_use]
    pub fn score(&self, variant: &str) -> Option<f64> {
        let of = |variant| mean(self.of(variant).map(|row| row.score));
        Some(of(variant)? / of(NOTHING)?)
    }

    /// What it costs beyond the oracle.
    #[must_use]
    pub fn regret(&self, variant: &str) -> Option<f64> {
        Some(self.score(variant)? / self.best.oracle - 1.0)
    }

    /// What it saves against the best policy that never changes.
    #[must_use]
    pub fn gain(&self, variant: &str) -> Option<f64> {
        Some(1.0 - self.score(variant)? / self.best.score)
    }

    fn of<'j>(&'j self, variant: &'j str) -> impl Iterator<Item = &'j Row> {
        self.rows.iter().filter(move |row| row.variant == variant)
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0_u32, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / f64::from(count))
}

/// All traces.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One entry each.
    pub judged: Vec<Judged>,
}

impl Report {
    /// Every round of every learner, one a line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_csv(&self, path: &Path) -> Result<()> {
        let mut csv = csv::Writer::from_path(path).with_context(|| path.display().to_string())?;
        csv.write_record(["trace", "changes", "best_static", "oracle", "learner", "seed", "round", "score"])?;
        for judged in &self.judged {
            for row in &judged.rows {
                for (round, score) in row.rounds.iter().enumerate() {
                    csv.write_record([
                        judged.name.clone(),
                        judged.changes.to_string(),
                        format!("{:.4}", judged.best.score),
                        format!("{:.4}", judged.best.oracle),
                        row.variant.clone(),
                        row.seed.to_string(),
                        (round + 1).to_string(),
                        format!("{score:.4}"),
                    ])?;
                }
            }
        }
        Ok(csv.flush()?)
    }

    /// The tables, as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        self.write_traces(&mut out)
            .and_then(|()| self.write_ablation(&mut out))
            .map_or_else(|_| String::new(), |()| out)
    }

    fn write_traces(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "| trace | load | best static | oracle | LEARN | regret | against static | against FROZEN | first try | at rest | bars |"
        )?;
        writeln!(out, "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|")?;
        for judged in &self.judged {
            let Some(score) = judged.score(DEFAULT_VARIANT) else { continue };
            let (regret, gain) =
                (judged.regret(DEFAULT_VARIANT).unwrap_or(0.0), judged.gain(DEFAULT_VARIANT).unwrap_or(0.0));
            let bars = if judged.changes {
                format!("regret {}, static {}", met(regret <= REGRET_BAR), met(gain >= GAIN_BAR))
            } else {
                format!("loss {}", met(score <= 1.0 + LOSS_BAR))
            };
            let first = mean(judged.of(DEFAULT_VARIANT).filter_map(|row| row.first_try_s));
            let rest = mean(judged.of(DEFAULT_VARIANT).filter_map(|row| row.converged_s));
            let load = match (judged.is_recorded, judged.changes) {
                (true, _) => "recorded",
                (false, true) => "changes",
                (false, false) => "stationary",
            };
            writeln!(
                out,
                "| {} | {load} | {:.3} | {:.3} | {score:.3} | {:+.1} % | {:+.1} % | {:+.1} % | {} | {} | {bars} |",
                judged.name,
                judged.best.score,
                judged.best.oracle,
                regret * 100.0,
                -gain * 100.0,
                (score - 1.0) * 100.0,
                seconds(first),
                seconds(rest),
            )?;
        }
        writeln!(out)
    }

    fn write_ablation(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "| learner | changing load: mean score | mean regret | stationary: mean score | worst | policies published |"
        )?;
        writeln!(out, "|---|---:|---:|---:|---:|---:|")?;
        for variant in self.variants() {
            let of = |changes: bool| self.judged.iter().filter(move |judged| judged.changes == changes);
            let score = |changes: bool| mean(of(changes).filter_map(|judged| judged.score(variant)));
            let regret = mean(of(true).filter_map(|judged| judged.regret(variant)));
            let worst = of(false).filter_map(|judged| judged.score(variant)).fold(f64::NAN, f64::max);
            let published =
                mean(self.judged.iter().flat_map(|judged| judged.of(variant)).map(|row| row.publications as f64));
            writeln!(
                out,
                "| {variant} | {:.3} | {:+.1} % | {:.3} | {worst:.3} | {:.0} |",
                score(true).unwrap_or(1.0),
                regret.unwrap_or(0.0) * 100.0,
                score(false).unwrap_or(f64::NAN),
                published.unwrap_or(0.0),
            )?;
        }
        let mean_of = |pick: fn(&Judged) -> f64, changes| {
            mean(self.judged.iter().filter(|judged| judged.changes == changes).map(pick)).unwrap_or(1.0)
        };
        writeln!(
            out,
            "| best static policy of each trace | {:.3} | | {:.3} | | |",
            mean_of(|judged| judged.best.score, true),
            mean_of(|judged| judged.best.score, false)
        )?;
        writeln!(
            out,
            "| oracle of each phase | {:.3} | | {:.3} | | |",
            mean_of(|judged| judged.best.oracle, true),
            mean_of(|judged| judged.best.oracle, false)
        )
    }

    fn variants(&self) -> Vec<&str> {
        let rows = self.judged.first().map(|judged| judged.rows.as_slice()).unwrap_or_default();
        let mut names: Vec<&str> = rows.iter().map(|row| row.variant.as_str()).collect();
        names.dedup();
        names
    }

    /// How the scores of the default learner develop, as a picture: its score in each round, where the defaults are 1.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_curves(&self, path: &Path) -> Result<()> {
        let rounds = self.judged.iter().flat_map(|judged| &judged.rows).map(|row| row.rounds.len()).max().unwrap_or(1);
        let area = SVGBackend::new(path, (960, 540)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(48)
            .build_cartesian_2d(1.0..rounds as f64 + 6.0, 0.4..1.3)?;
        chart.configure_mesh().x_desc("round of the trace").y_desc("score (FROZEN defaults: 1)").draw()?;
        for (number, judged) in self.judged.iter().enumerate() {
            let colour = Palette99::pick(number).to_rgba();
            let points: Vec<(f64, f64)> = (0..rounds)
                .filter_map(|round| {
                    let of = |variant: &'static str| {
                        mean(judged.of(variant).filter_map(|row| row.rounds.get(round).copied()))
                    };
                    // The first round has first touches that later ones have not: it is compared with the defaults' first.
                    Some(((round + 1) as f64, of(DEFAULT_VARIANT)? / of(NOTHING)?))
                })
                .collect();
            let style = ShapeStyle { color: colour, filled: false, stroke_width: if judged.changes { 2 } else { 1 } };
            chart
                .draw_series(LineSeries::new(points, style))?
                .label(judged.name.clone())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
        }
        chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
        area.present().context("the picture cannot be written")
    }
}

fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "missed" }
}

fn seconds(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "never".to_owned(), |seconds| format!("{seconds:.0} s"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::Cost;
    use crate::evaluate::runs::Step;

    #[test]
    fn learners_have_names_of_their_own() {
        let names: Vec<String> = variants().into_iter().map(|variant| variant.name).collect();
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
    }

    #[test]
    fn a_score_is_judged_by_the_last_rounds() {
        let cost = |cpu_ns| vec![Cost { cpu_ns, faults: 1.0, byte_ns: 1.0 }];
        let scale = Scale::new(&cost(100.0), hakmem_learner::Weights { cpu: 1.0, faults: 0.0, memory: 0.0 });
        let run = Learned {
            rounds: [300.0, 200.0, 120.0, 80.0].map(cost).to_vec(),
            log: vec![Step {
                at_ns: 2_000_000_000,
                phase: hakmem_learner::Phase::Canary,
                policy: FrozenPolicy::DEFAULT,
            }],
            converged: None,
            best: FrozenPolicy::DEFAULT,
        };
        let row = Row::new("all", 1, &scale, &run);
        assert!((row.score - 0.8).abs() < 1e-9);
        assert_eq!(row.first_try_s, Some(2.0));
    }
}
