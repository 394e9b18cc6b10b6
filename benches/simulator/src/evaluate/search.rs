//! The best policies that never change: for a trace as a whole, and for each of its phases.
//!
//! A descent over single knobs, for all goals at once: each round tries every neighbour of the policies that are best for
//! something, and ends when nothing is better for anything. Each policy is replayed once, and judged by all goals.

use std::path::PathBuf;

use anyhow::Result;
use hakmem_learner::{Knob, Weights};
use hakmem_policy::FrozenPolicy;
use rayon::prelude::*;

use super::runs::{Subject, settled, unchanged};
use super::{Cost, Scale, last_rounds};
use crate::model::Costs;

/// Policies tried at most, where the trace is long, and where it is short; between them, as many as replay so many events.
const TRIES: std::ops::RangeInclusive<usize> = 120..=600;
const REPLAYED_EVENTS: usize = 120_000_000;
/// Policies that are the best for the whole trace by their second round, one of which may be the best by later ones.
const CONTENDERS: usize = 16;
/// What counts as better: less is the noise of a sum.
const BETTER: f64 = 1e-4;

/// What a search found.
#[derive(Clone, Debug)]
pub struct Best {
    /// The measure.
    pub scale: Scale,
    /// The best policy for the whole trace, and its score.
    pub policy: FrozenPolicy,
    /// Its score.
    pub score: f64,
    /// The score of an oracle with the best policy for each phase.
    pub oracle: f64,
    /// For each phase its share of the score under the defaults, the best policy there, and its share under that.
    pub phases: Vec<BestOfPhase>,
    /// What the best policy for the whole trace costs.
    pub costs: Vec<Cost>,
    /// Policies tried.
    pub tried: usize,
    /// The best for each phase, and the best ones for the whole trace.
    pub contenders: Vec<FrozenPolicy>,
}

/// What an oracle would run in a phase.
#[derive(Clone, Debug)]
pub struct BestOfPhase {
    /// Share of the score under the defaults.
    pub defaults: f64,
    /// Share of the score under the best policy for the whole trace.
    pub static_best: f64,
    /// Share of the score under the phase's best policy.
    pub best: f64,
    /// That policy.
    pub policy: FrozenPolicy,
}

/// What learners are held against on a trace, in the rounds that they are judged by.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    /// The measure.
    pub scale: Scale,
    /// The score of the best policy that never changes.
    pub score: f64,
    /// The score of an oracle.
    pub oracle: f64,
}

impl Marks {
    /// Of the best policies that a search finds.
    fn find(subject: &Subject, costs: &Costs, rounds: u32) -> Self {
        let best = search(subject, costs);
        let policies = std::iter::once(&FrozenPolicy::DEFAULT).chain(&best.contenders).collect::<Vec<_>>();
        let runs = policies.into_par_iter().map(|policy| unchanged(subject, policy, costs, rounds));
        Self::of(&runs.collect::<Vec<_>>())
    }

    /// By what each phase of each round cost under some policies, the defaults first.
    fn of(runs: &[Vec<Vec<Cost>>]) -> Self {
        let judged: Vec<Vec<Cost>> = runs.iter().map(|rounds| mean_of_rounds(last_rounds(rounds))).collect();
        let scale = Scale::new(judged.first().map_or(&[], Vec::as_slice), Weights::default());
        let score = judged.iter().map(|phases| scale.score(phases)).fold(f64::INFINITY, f64::min);
        Self { scale, score, oracle: scale.oracle(&judged) }
    }
}

/// Phase by phase.
fn mean_of_rounds(rounds: &[Vec<Cost>]) -> Vec<Cost> {
    let phases = rounds.iter().map(Vec::len).min().unwrap_or(0);
    let count = rounds.len() as f64;
    let mean = |phase: usize| {
        let sum = Cost::sum(&rounds.iter().filter_map(|costs| costs.get(phase).copied()).collect::<Vec<_>>());
        Cost { cpu_ns: sum.cpu_ns / count, faults: sum.faults / count, byte_ns: sum.byte_ns / count }
    };
    (0..phases).map(mean).collect()
}

/// Marks that were found before, one line for each trace: a search takes longer than learners do, and does not depend on them.
#[derive(Debug)]
pub struct KnownMarks {
    path: Option<PathBuf>,
    rows: Vec<MarksRow>,
}

#[derive(Clone, Debug)]
struct MarksRow {
    /// Name and events.
    trace: (String, usize),
    numbers: [f64; 5],
}

impl KnownMarks {
    /// Those of a file, if there is one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(path: Option<PathBuf>) -> Result<Self> {
        let mut rows = Vec::new();
        if let Some(path) = path.as_ref().filter(|path| path.exists()) {
            for line in csv::Reader::from_path(path)?.deserialize() {
                let (name, events, a, b, c, d, e): (String, usize, f64, f64, f64, f64, f64) = line?;
                rows.push(MarksRow { trace: (name, events), numbers: [a, b, c, d, e] });
            }
        }
        Ok(Self { path, rows })
    }

    /// The marks of a trace; searched if they are not known.
    ///
    /// # Errors
    /// If they cannot be written down.
    pub fn of(&mut self, subject: &Subject, costs: &Costs, rounds: u32) -> Result<Marks> {
        let trace = (subject.trace.name.clone(), subject.trace.events().len());
        if let Some(row) = self.rows.iter().find(|row| row.trace == trace) {
            let [score, oracle, cpu_ns, faults, byte_ns] = row.numbers;
            let scale = Scale::new(&[Cost { cpu_ns, faults, byte_ns }], Weights::default());
            return Ok(Marks { scale, score, oracle });
        }
        let marks = Marks::find(subject, costs, rounds);
        let Cost { cpu_ns, faults, byte_ns } = marks.scale.defaults;
        self.rows.push(MarksRow { trace, numbers: [marks.score, marks.oracle, cpu_ns, faults, byte_ns] });
        self.write()?;
        Ok(marks)
    }

    fn write(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut file = csv::Writer::from_path(path)?;
        file.write_record(["trace", "events", "best_static", "oracle", "cpu_ns", "faults", "byte_ns"])?;
        for MarksRow { trace: (name, events), numbers } in &self.rows {
            file.serialize((name, events, numbers))?;
        }
        Ok(file.flush()?)
    }
}

/// Values that capacities are tried with: the defaults halved and doubled, as one.
const CAP_PERCENT: [u32; 4] = [25, 50, 200, 400];

/// Every policy that differs from this one in one knob.
fn neighbours(policy: &FrozenPolicy) -> Vec<FrozenPolicy> {
    let mut found = Vec::new();
    for knob in Knob::ALL {
        for &arm in knob.arms() {
            let mut other = policy.clone();
            knob.set(&mut other, arm);
            found.push(other);
        }
    }
    for percent in CAP_PERCENT {
        let scaled = |caps: [u32; 5]| caps.map(|cap| cap * percent / 100);
        let mid_cap = scaled(FrozenPolicy::DEFAULT.mid_cap);
        let mid_budget = mid_cap.iter().sum::<u32>().max(policy.mid_budget);
        found.push(FrozenPolicy { mid_cap, mid_budget, ..policy.clone() });
        let large_cap = scaled(FrozenPolicy::DEFAULT.large_cap);
        let large_budget = large_cap.iter().sum::<u32>().max(policy.large_budget);
        found.push(FrozenPolicy { large_cap, large_budget, ..policy.clone() });
    }
    found.retain(|other| other != policy && other.validate().is_ok());
    found
}

/// Searches.
#[must_use]
pub fn search(subject: &Subject, costs: &Costs) -> Best {
    let defaults = settled(subject, &FrozenPolicy::DEFAULT, costs);
    let scale = Scale::new(&defaults, Weights::default());
    let budget = (REPLAYED_EVENTS / subject.trace.events().len().max(1)).clamp(*TRIES.start(), *TRIES.end());
    let mut known: Vec<(FrozenPolicy, Vec<Cost>)> = vec![(FrozenPolicy::DEFAULT, defaults)];
    let mut expanded: Vec<usize> = Vec::new();
    loop {
        let winners = winners(&scale, &known);
        let open: Vec<usize> = winners.into_iter().filter(|winner| !expanded.contains(winner)).collect();
        let mut fresh: Vec<FrozenPolicy> = Vec::new();
        for winner in open {
            expanded.push(winner);
            let Some((policy, _)) = known.get(winner) else { continue };
            for other in neighbours(policy) {
                if !fresh.contains(&other) && !known.iter().any(|(policy, _)| *policy == other) {
                    fresh.push(other);
                }
            }
        }
        fresh.truncate(budget.saturating_sub(known.len()));
        if fresh.is_empty() {
            break;
        }
        let tried: Vec<_> = fresh
            .into_par_iter()
            .map(|policy| {
                let phases = settled(subject, &policy, costs);
                (policy, phases)
            })
            .collect();
        known.extend(tried);
    }
    let best = known.iter().min_by(|(_, one), (_, other)| scale.score(one).total_cmp(&scale.score(other)));
    let (policy, score) =
        best.map_or((FrozenPolicy::DEFAULT, 1.0), |(policy, phases)| (policy.clone(), scale.score(phases)));
    let tried = known.len();
    let costs_of_best =
        known.iter().find(|(known, _)| *known == policy).map(|(_, costs)| costs.clone()).unwrap_or_default();
    let phases = best_of_phases(&scale, &known, &policy);
    let contenders = contenders(&scale, &known);
    let costs: Vec<Vec<Cost>> = known.into_iter().map(|(_, phases)| phases).collect();
    Best { oracle: scale.oracle(&costs), scale, policy, score, phases, costs: costs_of_best, tried, contenders }
}

/// Those that may turn out to be the best for the whole trace or for a phase.
fn contenders(scale: &Scale, known: &[(FrozenPolicy, Vec<Cost>)]) -> Vec<FrozenPolicy> {
    let mut places: Vec<usize> = (0..known.len()).collect();
    let score = |place: usize| known.get(place).map_or(f64::INFINITY, |(_, phases)| scale.score(phases));
    places.sort_by(|one, other| score(*one).total_cmp(&score(*other)));
    places.truncate(CONTENDERS);
    for winner in winners(scale, known) {
        if !places.contains(&winner) {
            places.push(winner);
        }
    }
    places.into_iter().filter_map(|place| known.get(place)).map(|(policy, _)| policy.clone()).collect()
}

/// What an oracle would run in each phase.
fn best_of_phases(scale: &Scale, known: &[(FrozenPolicy, Vec<Cost>)], whole: &FrozenPolicy) -> Vec<BestOfPhase> {
    let count = known.iter().map(|(_, phases)| phases.len()).min().unwrap_or(0);
    let share = |costs: &[Cost], phase: usize| costs.get(phase).map_or(f64::INFINITY, |cost| scale.share(cost));
    let under = |wanted: &FrozenPolicy, phase: usize| {
        known.iter().find(|(policy, _)| policy == wanted).map_or(0.0, |(_, costs)| share(costs, phase))
    };
    let of = |phase: usize| {
        let (policy, costs) =
            known.iter().min_by(|(_, one), (_, other)| share(one, phase).total_cmp(&share(other, phase)))?;
        Some(BestOfPhase {
            defaults: under(&FrozenPolicy::DEFAULT, phase),
            static_best: under(whole, phase),
            best: share(costs, phase),
            policy: policy.clone(),
        })
    };
    (0..count).filter_map(of).collect()
}

/// The policies that are the best for the whole or for a phase.
fn winners(scale: &Scale, known: &[(FrozenPolicy, Vec<Cost>)]) -> Vec<usize> {
    let phases = known.iter().map(|(_, phases)| phases.len()).min().unwrap_or(0);
    let best_by = |cost: &dyn Fn(&[Cost]) -> f64| {
        let mut best = (0, f64::INFINITY);
        for (place, (_, costs)) in known.iter().enumerate() {
            let cost = cost(costs);
            if cost < best.1 * (1.0 - BETTER) {
                best = (place, cost);
            }
        }
        best.0
    };
    let mut winners = vec![best_by(&|costs| scale.score(costs))];
    for phase in 0..phases {
        let winner = best_by(&|costs| costs.get(phase).map_or(f64::INFINITY, |cost| scale.share(cost)));
        if !winners.contains(&winner) {
            winners.push(winner);
        }
    }
    winners
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run whose rounds have two phases, which cost so much.
    fn run(rounds: &[[f64; 2]]) -> Vec<Vec<Cost>> {
        rounds
            .iter()
            .map(|phases| phases.map(|cost| Cost { cpu_ns: cost, faults: cost, byte_ns: cost }).to_vec())
            .collect()
    }

    #[test]
    fn policies_that_never_change_are_judged_by_the_rounds_that_learners_are_judged_by() {
        let defaults = run(&[[1e9, 1e9]; 8]);
        // Half as dear at first, twice as dear in the end.
        let spoils =
            run(&[[5e8, 5e8], [5e8, 5e8], [1e9, 1e9], [1e9, 1e9], [1e9, 1e9], [1e9, 1e9], [2e9, 2e9], [2e9, 2e9]]);
        let steady = run(&[[8e8, 1e9]; 8]);
        let marks = Marks::of(&[defaults.clone(), spoils, steady]);
        assert!((marks.score - 0.9).abs() < 1e-3, "{marks:?}");
        // In one phase one policy, in the other another one.
        let other = run(&[[1.2e9, 6e8]; 8]);
        let marks = Marks::of(&[defaults, run(&[[8e8, 1e9]; 8]), other]);
        assert!((marks.score - 0.9).abs() < 1e-3 && (marks.oracle - 0.7).abs() < 1e-3, "{marks:?}");
    }
}
