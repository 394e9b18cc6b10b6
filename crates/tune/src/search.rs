//! The search: steps of single dimensions, halved to the promising ones, combined, pruned, and tried against the defaults.
//!
//! 1. **Screen.** Every step once, in random order, among runs of the defaults.
//! 2. **Halve.** The better half of what beats the defaults runs again, until a few remain with several runs each.
//! 3. **Combine.** Starting from the best whole policy that is at hand, the best steps join one by one; each stays only if the
//!    whole is better with it, by more than runs differ, in runs that alternate.
//! 4. **Prune.** Each group of knobs is left out once more; what makes no difference goes. What remains has its evidence.
//! 5. **Confirm.** Fresh pairs of runs, defaults and result in turn. Only a sign test over these pairs accepts the result; the
//!    runs that chose it do not count, because the luckiest of many is lucky.
//!
//! **Not here.** Processes: the caller brings a [`Bench`], so the search is tested on made-up costs.
//! **Invariants.** At most `budget` runs. What is returned as accepted is a valid policy that won its sign test.

use anyhow::Result;

use crate::knobs::{Change, DIMENSIONS, group_of, named, policy_of, step};
use crate::measure::Usage;
use crate::score::{Ratios, Weights, median, median_usage, sign_test, spread};

/// Something that runs a policy once.
pub trait Bench {
    /// One run.
    fn run(&mut self, change: &Change) -> Result<Usage>;
    /// Says what happens.
    fn note(&mut self, text: &str);
}

/// How to search.
#[derive(Clone, Debug)]
pub struct Options {
    /// Runs in all.
    pub budget: usize,
    /// Pairs of runs that decide in the end.
    pub pairs: usize,
    /// What counts how much.
    pub weights: Weights,
    /// By how much wall-clock time, processor time or memory may be worse, as a share.
    pub tolerance: f64,
    /// The smallest gain that is worth a policy, as a share.
    pub least_gain: f64,
    /// Only dimensions with these names; all if empty.
    pub only: Vec<String>,
    /// Where the random numbers begin.
    pub seed: u64,
}

/// All runs of one policy.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What it changes.
    pub change: Change,
    /// Its runs.
    pub runs: Vec<Usage>,
}

/// What a group of knobs does for the result.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The knobs.
    pub fields: Vec<&'static str>,
    /// Median cost with them, and without.
    pub with: f64,
    /// Median cost of the same policy without them.
    pub without: f64,
    /// Runs of both.
    pub runs: usize,
}

/// A step that was tried and is not part of the result.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// What it would have changed.
    pub change: Change,
    /// Its median cost.
    pub cost: f64,
    /// Its runs.
    pub runs: usize,
}

/// The pairs that decided.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Pairs in which the result was cheaper.
    pub wins: usize,
    /// Pairs.
    pub pairs: usize,
    /// Median over the pairs of cost with the result by cost with the defaults.
    pub cost: f64,
    /// Median ratios of the parts.
    pub ratios: Ratios,
    /// Why the result is not accepted, if it is not.
    pub refusal: Option<String>,
}

/// What a search came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it changes; nothing if nothing was found or accepted.
    pub change: Change,
    /// What was tried in the end, accepted or not.
    pub candidate: Change,
    /// What each group of knobs of the candidate does.
    pub proofs: Vec<Proof>,
    /// Steps that are not part of it.
    pub rejected: Vec<Rejected>,
    /// The pairs that decided, if there was anything to decide.
    pub verdict: Option<Verdict>,
    /// The defaults: the median of their runs.
    pub base: Usage,
    /// How far costs of the defaults are from their median.
    pub noise: f64,
    /// Every run in its order: policy and usage.
    pub log: Vec<(Change, Usage)>,
}

/// Runs per finalist of the halving, per side of a duel, and of the defaults before anything else.
const FINALIST_RUNS: usize = 4;
const DUEL_RUNS: usize = 3;
const FIRST_RUNS: usize = 5;
/// Steps between two runs of the defaults.
const BASE_EVERY: usize = 6;
/// How many steps are left when halving ends.
const FINALISTS: usize = 8;

/// Searches, starting from the defaults and from `starts`, whole policies that are tried before steps are combined.
pub fn search(bench: &mut dyn Bench, starts: &[Change], options: &Options) -> Result<Outcome> {
    let mut search = Search { bench, options, trials: Vec::new(), log: Vec::new(), noise: 0.0 };
    search.defaults(FIRST_RUNS)?;
    let steps = search.screen()?;
    search.halve(&steps)?;
    let combined = search.combine(starts)?;
    let (candidate, proofs) = search.prune(combined)?;
    let verdict = if candidate.is_empty() { None } else { Some(search.confirm(&candidate)?) };
    let is_accepted = verdict.as_ref().is_some_and(|verdict| verdict.refusal.is_none());
    let rejected = search.rejected(&candidate);
    Ok(Outcome {
        change: if is_accepted { candidate.clone() } else { Change::new() },
        candidate,
        proofs,
        rejected,
        verdict,
        base: search.base(),
        noise: search.noise,
        log: search.log,
    })
}

struct Search<'a> {
    bench: &'a mut dyn Bench,
    options: &'a Options,
    /// The defaults are the first.
    trials: Vec<Trial>,
    log: Vec<(Change, Usage)>,
    noise: f64,
}

impl Search<'_> {
    fn run(&mut self, change: &Change) -> Result<Usage> {
        let usage = self.bench.run(change)?;
        self.log.push((change.clone(), usage.clone()));
        match self.trials.iter_mut().find(|trial| trial.change == *change) {
            Some(trial) => trial.runs.push(usage.clone()),
            None => self.trials.push(Trial { change: change.clone(), runs: vec![usage.clone()] }),
        }
        Ok(usage)
    }

    fn left(&self) -> usize {
        // The pairs that decide are set aside from the start.
        self.options.budget.saturating_sub(self.log.len() + 2 * self.options.pairs)
    }

    fn base(&self) -> Usage {
        self.trials.first().map(|trial| median_usage(&trial.runs)).unwrap_or_default()
    }

    fn cost_of(&self, usage: &Usage) -> f64 {
        Ratios::of(usage, &self.base()).cost(&self.options.weights)
    }

    fn cost(&self, change: &Change) -> f64 {
        let trial = self.trials.iter().find(|trial| trial.change == *change);
        trial.map_or(f64::INFINITY, |trial| median(trial.runs.iter().map(|run| self.cost_of(run))))
    }

    fn runs(&self, change: &Change) -> usize {
        self.trials.iter().find(|trial| trial.change == *change).map_or(0, |trial| trial.runs.len())
    }

    fn defaults(&mut self, count: usize) -> Result<()> {
        for _ in 0..count.min(self.left().max(1)) {
            self.run(&Change::new())?;
        }
        let costs: Vec<f64> =
            self.trials.first().map_or_else(Vec::new, |trial| trial.runs.iter().map(|run| self.cost_of(run)).collect());
        self.noise = spread(&costs);
        self.bench.note(&format!("defaults: {} runs, which differ by {:.1} %", costs.len(), self.noise * 100.0));
        Ok(())
    }

    /// Every step once, as far as half of the budget goes.
    fn screen(&mut self) -> Result<Vec<Change>> {
        let is_chosen = |name: &str| self.options.only.is_empty() || self.options.only.iter().any(|only| only == name);
        let chosen = DIMENSIONS.iter().filter(|dimension| is_chosen(dimension.name));
        let mut steps: Vec<Change> =
            chosen.flat_map(|dimension| dimension.steps.iter().map(|settings| step(settings))).collect();
        // The dimensions that tend to matter stand first.
        steps.truncate(self.left() * 6 / 10);
        fastrand::Rng::with_seed(self.options.seed).shuffle(&mut steps);
        for (position, change) in steps.iter().enumerate() {
            if position % BASE_EVERY == BASE_EVERY - 1 {
                self.run(&Change::new())?;
            }
            self.run(change)?;
            self.bench.note(&format!(
                "screen {}/{}: {} {:.3}",
                position + 1,
                steps.len(),
                named(change),
                self.cost(change)
            ));
        }
        Ok(steps)
    }

    /// The better half again and again.
    fn halve(&mut self, steps: &[Change]) -> Result<()> {
        let mut rest: Vec<Change> = steps.to_vec();
        while self.left() > 0 {
            rest.retain(|change| self.cost(change) < 1.0);
            rest.sort_by(|left, right| self.cost(left).total_cmp(&self.cost(right)));
            let is_done = rest.iter().all(|change| self.runs(change) >= FINALIST_RUNS);
            // The rest of the budget is for combining.
            if rest.is_empty() || is_done || self.left() < 4 * DUEL_RUNS {
                break;
            }
            rest.truncate((rest.len() / 2).max(FINALISTS));
            for change in rest.clone() {
                if self.left() >= 4 * DUEL_RUNS && self.runs(&change) < FINALIST_RUNS {
                    self.run(&change)?;
                }
            }
            self.bench.note(&format!("{} steps remain", rest.len()));
        }
        Ok(())
    }

    /// The steps that look good join the best policy one by one.
    fn combine(&mut self, starts: &[Change]) -> Result<Change> {
        let mut best = Change::new();
        for start in starts.iter().filter(|start| !start.is_empty()) {
            if self.beats(start, &best)? {
                best = start.clone();
            }
        }
        let mut promising: Vec<Change> =
            self.trials.iter().map(|trial| trial.change.clone()).filter(|change| self.is_promising(change)).collect();
        promising.sort_by(|left, right| self.cost(left).total_cmp(&self.cost(right)));
        for change in promising {
            // A dimension whose better step is in already, or that the start has turned as well, is not turned again.
            if change.keys().any(|field| best.contains_key(field)) {
                continue;
            }
            let mut with = best.clone();
            with.extend(change);
            // What joins others has to be doubted once more later.
            let groups = groups_of(&with).len();
            let doubts = if groups > 1 { groups } else { 0 };
            if self.left() < 2 * DUEL_RUNS * (1 + doubts) {
                break;
            }
            if policy_of(&with).is_ok() && self.beats(&with, &best)? {
                best = with;
            }
        }
        Ok(best)
    }

    fn is_promising(&self, change: &Change) -> bool {
        let is_step =
            DIMENSIONS.iter().any(|dimension| dimension.steps.iter().any(|settings| step(settings) == *change));
        is_step && self.cost(change) < 1.0 - self.noise.min(0.02)
    }

    /// Whether one policy is better than another, by more than runs differ, and no worse in any part than may be.
    fn beats(&mut self, challenger: &Change, holder: &Change) -> Result<bool> {
        if self.left() < 2 {
            return Ok(false);
        }
        let (mut mine, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..DUEL_RUNS.min(self.left() / 2) {
            theirs.push(self.run(holder)?);
            mine.push(self.run(challenger)?);
        }
        let cost = |runs: &[Usage]| median(runs.iter().map(|run| self.cost_of(run)));
        let (mine_cost, theirs_cost) = (cost(&mine), cost(&theirs));
        let margin = self.options.least_gain.max(self.noise);
        let worse = Ratios::of(&median_usage(&mine), &self.base()).worse_than(1.0 + self.options.tolerance, false);
        let is_better = mine_cost < theirs_cost * (1.0 - margin) && worse.is_none();
        let why = worse.map_or(String::new(), |(part, ratio)| format!(" ({part} {ratio:.2})"));
        let outcome = if is_better { "better" } else { "not better" };
        self.bench.note(&format!(
            "{}: {mine_cost:.3} against {theirs_cost:.3} of {}: {outcome}{why}",
            named(challenger),
            named(holder)
        ));
        Ok(is_better)
    }

    /// Leaves each group of knobs out once, and for good where that makes no difference.
    fn prune(&mut self, mut candidate: Change) -> Result<(Change, Vec<Proof>)> {
        let mut proofs = Vec::new();
        for fields in groups_of(&candidate) {
            let mut without = candidate.clone();
            without.retain(|field, _| !fields.contains(field));
            // A policy of one group has been compared with the defaults already.
            let duel = if without.is_empty() { 0 } else { DUEL_RUNS.min(self.left() / 2) };
            let before = (self.runs(&candidate), self.runs(&without));
            for _ in 0..duel {
                self.run(&candidate)?;
                self.run(&without)?;
            }
            let (with_cost, without_cost) = (self.cost(&candidate), self.cost(&without));
            // Without runs of its own a group keeps its place: there was no budget to doubt it.
            let is_known = before.1 + duel > 0;
            let runs = before.0 + before.1 + 2 * duel;
            let proof = Proof { fields: fields.clone(), with: with_cost, without: without_cost, runs };
            if is_known && without_cost <= with_cost * (1.0 + self.options.least_gain / 2.0) {
                self.bench.note(&format!("without {}: {without_cost:.3}, no difference", fields.join(", ")));
                candidate = without;
            } else {
                proofs.push(proof);
            }
        }
        Ok((candidate, proofs))
    }

    /// Fresh pairs, in alternating order.
    fn confirm(&mut self, candidate: &Change) -> Result<Verdict> {
        let mut pairs = Vec::new();
        for round in 0..self.options.pairs {
            let pair = if round % 2 == 0 {
                let base = self.run(&Change::new())?;
                (base, self.run(candidate)?)
            } else {
                let usage = self.run(candidate)?;
                (self.run(&Change::new())?, usage)
            };
            self.bench.note(&format!("pair {}/{}", round + 1, self.options.pairs));
            pairs.push(pair);
        }
        Ok(judge(&pairs, self.options))
    }

    fn rejected(&self, candidate: &Change) -> Vec<Rejected> {
        let is_part = |change: &Change| change.iter().all(|(field, value)| candidate.get(field) == Some(value));
        let tried = self.trials.iter().filter(|trial| !trial.change.is_empty() && !is_part(&trial.change));
        let is_step = |change: &Change| {
            DIMENSIONS.iter().any(|dimension| dimension.steps.iter().any(|settings| step(settings) == *change))
        };
        tried
            .filter(|trial| is_step(&trial.change))
            .map(|trial| Rejected {
                change: trial.change.clone(),
                cost: self.cost(&trial.change),
                runs: trial.runs.len(),
            })
            .collect()
    }
}

/// The knobs of a change, those together that are meant for each other.
fn groups_of(change: &Change) -> Vec<Vec<&'static str>> {
    let mut groups: Vec<Vec<&'static str>> = Vec::new();
    for field in change.keys().copied() {
        match groups.iter_mut().find(|group| group.first().is_some_and(|first| group_of(first).contains(&field))) {
            Some(group) => group.push(field),
            None => groups.push(vec![field]),
        }
    }
    groups
}

/// What pairs of runs, defaults and candidate, say.
pub fn judge(pairs: &[(Usage, Usage)], options: &Options) -> Verdict {
    let bases: Vec<Usage> = pairs.iter().map(|(base, _)| base.clone()).collect();
    let usages: Vec<Usage> = pairs.iter().map(|(_, usage)| usage.clone()).collect();
    let base = median_usage(&bases);
    let cost_of = |usage: &Usage| Ratios::of(usage, &base).cost(&options.weights);
    let relative: Vec<f64> = pairs.iter().map(|(base, usage)| cost_of(usage) / cost_of(base)).collect();
    let wins = relative.iter().filter(|cost| **cost < 1.0).count();
    let cost = median(relative.iter().copied());
    let ratios = Ratios::of(&median_usage(&usages), &base);
    let chance = sign_test(wins, pairs.len());
    let refusal = if cost > 1.0 - options.least_gain {
        Some(format!("the gain of {:.1} % is not worth a policy", (1.0 - cost) * 100.0))
    } else if chance > 0.05 {
        Some(format!("cheaper in {wins} of {} pairs only, which chance does too", pairs.len()))
    } else {
        let worse = ratios.worse_than(1.0 + options.tolerance, true);
        worse.map(|(part, ratio)| format!("{part} is {:.1} % worse", (ratio - 1.0) * 100.0))
    };
    Verdict { wins, pairs: pairs.len(), cost, ratios, refusal }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A made-up program: a cost per change, and noise.
    struct Made<F> {
        cpu_of: F,
        noise: f64,
        random: fastrand::Rng,
        runs: usize,
    }

    impl<F: Fn(&Change) -> (f64, f64)> Bench for Made<F> {
        fn run(&mut self, change: &Change) -> Result<Usage> {
            policy_of(change)?;
            self.runs += 1;
            let (cpu, memory) = (self.cpu_of)(change);
            let mut shaken = |value: f64| value * (1.0 + self.noise * (self.random.f64() * 2.0 - 1.0));
            Ok(Usage {
                wall: shaken(cpu),
                cpu: shaken(cpu),
                faults: shaken(1e5),
                mean_rss: shaken(1e8 * memory),
                ..Usage::default()
            })
        }

        fn note(&mut self, text: &str) {
            println!("{text}");
        }
    }

    fn options(seed: u64) -> Options {
        Options {
            budget: 160,
            pairs: 8,
            weights: Weights::default(),
            tolerance: 0.05,
            least_gain: 0.01,
            only: vec![],
            seed,
        }
    }

    fn searched<F: Fn(&Change) -> (f64, f64)>(cpu_of: F, noise: f64, seed: u64, starts: &[Change]) -> Outcome {
        let mut bench = Made { cpu_of, noise, random: fastrand::Rng::with_seed(seed), runs: 0 };
        let outcome = search(&mut bench, starts, &options(seed)).unwrap();
        assert!(bench.runs <= options(seed).budget && bench.runs == outcome.log.len(), "{} runs", bench.runs);
        outcome
    }

    fn has(change: &Change, field: &str, value: &str) -> bool {
        change.get(field).is_some_and(|set| set == value)
    }

    #[test]
    fn two_knobs_that_help_are_found_and_nothing_else_is_taken() {
        for seed in 0..20 {
            let outcome = searched(
                |change| {
                    let cpu = if has(change, "refill_bytes", "16K") { 0.9 } else { 1.0 };
                    let memory = if has(change, "purge_delay_ms", "10") { 0.8 } else { 1.0 };
                    (cpu, memory)
                },
                0.01,
                seed,
                &[],
            );
            let expected = Change::from([("purge_delay_ms", "10".to_owned()), ("refill_bytes", "16K".to_owned())]);
            assert!(
                expected.iter().all(|(field, value)| has(&outcome.change, field, value)),
                "{}",
                named(&outcome.change)
            );
            assert!(outcome.change.len() <= 3, "{}", named(&outcome.change));
            for field in expected.keys() {
                let proof = outcome.proofs.iter().find(|proof| proof.fields.contains(field)).unwrap();
                assert!(proof.with < proof.without, "{proof:?}");
            }
        }
    }

    #[test]
    fn noise_alone_is_hardly_ever_a_policy() {
        let found = (0..100).filter(|&seed| !searched(|_| (1.0, 1.0), 0.05, seed, &[]).change.is_empty()).count();
        assert!(found <= 5, "a policy was found in {found} of 100 searches where there is none");
    }

    #[test]
    fn memory_bought_with_time_is_refused() {
        let outcome =
            searched(|change| if has(change, "purge_delay_ms", "10") { (1.2, 0.3) } else { (1.0, 1.0) }, 0.005, 1, &[]);
        assert!(outcome.change.is_empty(), "{}", named(&outcome.change));
    }

    #[test]
    fn steps_that_spoil_each_other_are_not_both_taken() {
        let outcome = searched(
            |change| {
                let (one, two) = (has(change, "purge_delay_ms", "10"), has(change, "warm_superslabs", "0"));
                (
                    1.0,
                    if one && two {
                        1.1
                    } else if one || two {
                        0.8
                    } else {
                        1.0
                    },
                )
            },
            0.005,
            3,
            &[],
        );
        assert_eq!(outcome.change.len(), 1, "{}", named(&outcome.change));
    }

    #[test]
    fn a_whole_policy_to_start_from_is_used_and_pruned() {
        let learned = Change::from([("idle_trim_ticks", "2".to_owned()), ("purge_delay_ms", "77".to_owned())]);
        let outcome = searched(
            |change| (1.0, if has(change, "purge_delay_ms", "77") { 0.7 } else { 1.0 }),
            0.005,
            5,
            std::slice::from_ref(&learned),
        );
        assert_eq!(named(&outcome.change), "purge_delay_ms=77");
    }

    #[test]
    fn a_tiny_budget_is_kept() {
        let mut bench =
            Made { cpu_of: |_: &Change| (1.0, 1.0), noise: 0.01, random: fastrand::Rng::with_seed(1), runs: 0 };
        let options = Options { budget: 12, pairs: 3, ..options(1) };
        search(&mut bench, &[], &options).unwrap();
        assert!(bench.runs <= 12, "{} runs", bench.runs);
    }
}
