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
//! A run here is a pass: one run of each of the programs that the policy is for.
//!
//! **Not here.** Processes: the caller brings a [`Bench`], so the search is tested on made-up costs. Deciding: [`judge`] does that.
//! **Invariants.** At most `budget` passes. What is returned as accepted is a valid policy that won its sign test. The same
//! usages and seed make the same search, so one that was cut short goes on where the record of its passes ends.

use anyhow::{Result, ensure};

use crate::judge::{Breach, Limits, Verdict, judge};
use crate::knobs::{Change, DIMENSIONS, group_of, named, policy_of, step};
use crate::score::{Pass, Ratios, Weights, cost_of, median, median_pass, spread};

/// Something that runs each program once under a policy.
pub trait Bench {
    /// One pass.
    fn run(&mut self, change: &Change) -> Result<Pass>;
    /// Says what happens.
    fn note(&mut self, text: &str);
    /// A broken limit in words.
    fn name_breach(&self, breach: &Breach) -> String;
}

/// How to search.
#[derive(Clone, Debug)]
pub struct Options {
    /// Passes in all.
    pub budget: usize,
    /// Pairs of passes that decide in the end.
    pub pairs: usize,
    /// What counts how much.
    pub weights: Weights,
    /// What may be worse, and by how much.
    pub limits: Limits,
    /// The smallest gain that is worth a policy, as a share.
    pub least_gain: f64,
    /// Only dimensions with these names; all if empty.
    pub only: Vec<String>,
    /// Where the random numbers begin.
    pub seed: u64,
}

impl Options {
    /// Fails if the budget leaves no pass to try anything with.
    pub fn check(&self) -> Result<()> {
        let fixed = 2 * self.pairs + FIRST_RUNS;
        ensure!(
            self.budget >= fixed + FEWEST_TRIES,
            "a budget of {} passes tries nothing: {} pairs and the defaults take {fixed}, and {FEWEST_TRIES} more are needed",
            self.budget,
            self.pairs
        );
        Ok(())
    }
}

/// All passes of one policy.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What it changes.
    pub change: Change,
    /// Its passes.
    pub runs: Vec<Pass>,
}

/// What a group of knobs does for the result.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The knobs.
    pub fields: Vec<&'static str>,
    /// Median cost with them.
    pub with: f64,
    /// Median cost of the same policy without them; `None` where nothing was run without.
    pub without: Option<f64>,
    /// Passes of both.
    pub runs: usize,
    /// What each program costs with them, by what it costs without; empty where nothing was run without.
    pub programs: Vec<f64>,
}

/// A step that was tried and is not part of the result.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// What it would have changed.
    pub change: Change,
    /// Its median cost.
    pub cost: f64,
    /// Its passes.
    pub runs: usize,
    /// The limit that it broke, if it did.
    pub breach: Option<Breach>,
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
    /// The defaults: the medians of their passes.
    pub base: Pass,
    /// How far costs of the defaults are from their median.
    pub noise: f64,
    /// Every pass in its order.
    pub log: Vec<(Change, Pass)>,
}

/// Passes per finalist of the halving, per side of a duel, and of the defaults before anything else.
const FINALIST_RUNS: usize = 4;
const DUEL_RUNS: usize = 3;
const FIRST_RUNS: usize = 5;
/// Passes without which screening has none.
const FEWEST_TRIES: usize = 2;
/// Steps between two runs of the defaults.
const BASE_EVERY: usize = 6;
/// How many steps are left when halving ends.
const FINALISTS: usize = 8;

/// Searches, starting from the defaults and from `starts`, whole policies that are tried before steps are combined.
pub fn search(bench: &mut dyn Bench, starts: &[Change], options: &Options) -> Result<Outcome> {
    let mut search = Search { bench, options, trials: Vec::new(), base: Pass::new(), log: Vec::new(), noise: 0.0 };
    search.defaults(FIRST_RUNS)?;
    let steps = search.screen()?;
    search.halve(&steps)?;
    let combined = search.combine(starts)?;
    let (candidate, proofs) = search.prune(combined)?;
    let verdict = if candidate.is_empty() { None } else { Some(search.confirm(&candidate)?) };
    let is_accepted = verdict.as_ref().is_some_and(|verdict| verdict.refusal.is_none());
    let change = if is_accepted { candidate.clone() } else { Change::new() };
    let rejected = search.rejected(&change);
    Ok(Outcome {
        change,
        candidate,
        proofs,
        rejected,
        verdict,
        base: search.base,
        noise: search.noise,
        log: search.log,
    })
}

struct Search<'a> {
    bench: &'a mut dyn Bench,
    options: &'a Options,
    /// The defaults are the first.
    trials: Vec<Trial>,
    /// The medians of their passes.
    base: Pass,
    log: Vec<(Change, Pass)>,
    noise: f64,
}

impl Search<'_> {
    fn run(&mut self, change: &Change) -> Result<Pass> {
        let pass = self.bench.run(change)?;
        self.log.push((change.clone(), pass.clone()));
        match self.trials.iter_mut().find(|trial| trial.change == *change) {
            Some(trial) => trial.runs.push(pass.clone()),
            None => self.trials.push(Trial { change: change.clone(), runs: vec![pass.clone()] }),
        }
        if change.is_empty() {
            self.base = median_pass(self.passes(change));
        }
        Ok(pass)
    }

    fn left(&self) -> usize {
        // The pairs that decide are set aside from the start.
        self.options.budget.saturating_sub(self.log.len() + 2 * self.options.pairs)
    }

    fn costs_of(&self, passes: &[Pass]) -> Vec<f64> {
        passes.iter().map(|pass| cost_of(pass, &self.base, &self.options.weights)).collect()
    }

    fn passes(&self, change: &Change) -> &[Pass] {
        self.trials.iter().find(|trial| trial.change == *change).map_or(&[], |trial| &trial.runs)
    }

    fn cost(&self, change: &Change) -> f64 {
        let passes = self.passes(change);
        if passes.is_empty() { f64::INFINITY } else { median(self.costs_of(passes)) }
    }

    fn runs(&self, change: &Change) -> usize {
        self.passes(change).len()
    }

    fn breach(&self, passes: &[Pass]) -> Option<Breach> {
        self.options.limits.broken(passes, self.passes(&Change::new()), &self.options.weights)
    }

    fn described(&self, breach: Option<Breach>) -> String {
        breach.map_or(String::new(), |breach| format!(" ({})", self.bench.name_breach(&breach)))
    }

    fn defaults(&mut self, count: usize) -> Result<()> {
        for _ in 0..count.min(self.left().max(1)) {
            self.run(&Change::new())?;
        }
        let costs = self.costs_of(self.passes(&Change::new()));
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
            let (cost, breach) = (self.cost(change), self.described(self.breach(self.passes(change))));
            let place = format!("{}/{}", position + 1, steps.len());
            self.bench.note(&format!("screen {place}: {} {cost:.3}{breach}", named(change)));
        }
        Ok(steps)
    }

    /// The better half again and again.
    fn halve(&mut self, steps: &[Change]) -> Result<()> {
        let mut rest: Vec<Change> = steps.to_vec();
        while self.left() > 0 {
            // One run does not tell bad luck from a broken limit, two do.
            let is_sure = |change: &Change| self.runs(change) > 1 && self.breach(self.passes(change)).is_some();
            rest.retain(|change| self.cost(change) < 1.0 && !is_sure(change));
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
        is_step && self.cost(change) < 1.0 - self.noise.min(0.02) && self.breach(self.passes(change)).is_none()
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
        let (mine_cost, theirs_cost) = (median(self.costs_of(&mine)), median(self.costs_of(&theirs)));
        let margin = self.options.least_gain.max(self.noise);
        let breach = self.breach(&mine);
        let is_better = mine_cost < theirs_cost * (1.0 - margin) && breach.is_none();
        let why = self.described(breach);
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
            let programs = self.programs(&candidate, &without);
            let known = is_known.then_some(without_cost);
            let proof = Proof { fields: fields.clone(), with: with_cost, without: known, runs, programs };
            if is_known && without_cost <= with_cost * (1.0 + self.options.least_gain / 2.0) {
                self.bench.note(&format!("without {}: {without_cost:.3}, no difference", fields.join(", ")));
                candidate = without;
            } else {
                proofs.push(proof);
            }
        }
        Ok((candidate, proofs))
    }

    /// What each program costs under one policy, by what it costs under another.
    fn programs(&self, with: &Change, without: &Change) -> Vec<f64> {
        let (with, without) = (self.passes(with), self.passes(without));
        if with.is_empty() || without.is_empty() {
            return Vec::new();
        }
        let costs = |passes: &[Pass]| -> Vec<f64> {
            let middle = median_pass(passes);
            middle.iter().zip(&self.base).map(|(run, base)| Ratios::of(run, base).cost(&self.options.weights)).collect()
        };
        costs(with).iter().zip(costs(without)).map(|(with, without)| with / without).collect()
    }

    /// Fresh pairs, in alternating order.
    fn confirm(&mut self, candidate: &Change) -> Result<Verdict> {
        let mut pairs = Vec::new();
        for round in 0..self.options.pairs {
            pairs.push(pair(round, &Change::new(), candidate, &mut |change| self.run(change))?);
            self.bench.note(&format!("pair {}/{}", round + 1, self.options.pairs));
        }
        Ok(judge(&pairs, &self.options.weights, &self.options.limits, self.options.least_gain))
    }

    fn rejected(&self, accepted: &Change) -> Vec<Rejected> {
        let is_part = |change: &Change| change.iter().all(|(field, value)| accepted.get(field) == Some(value));
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
                breach: self.breach(&trial.runs),
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

/// One pass under the defaults and one under `candidate`; which comes first changes from round to round.
pub fn pair<T>(
    round: usize,
    defaults: &T,
    candidate: &T,
    run: &mut dyn FnMut(&T) -> Result<Pass>,
) -> Result<(Pass, Pass)> {
    if round.is_multiple_of(2) {
        let base = run(defaults)?;
        Ok((base, run(candidate)?))
    } else {
        let pass = run(candidate)?;
        Ok((run(defaults)?, pass))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Usage;

    /// Made-up programs: processor time and memory of each per change, and noise.
    struct Made<F> {
        cost_of: F,
        noise: f64,
        random: fastrand::Rng,
        runs: usize,
    }

    impl<F: Fn(&Change) -> Vec<(f64, f64)>> Bench for Made<F> {
        fn run(&mut self, change: &Change) -> Result<Pass> {
            policy_of(change)?;
            self.runs += 1;
            let mut shaken = |value: f64| value * (1.0 + self.noise * (self.random.f64() * 2.0 - 1.0));
            let programs = (self.cost_of)(change);
            let usage = programs.into_iter().enumerate().map(|(place, (cpu, memory))| {
                let size = (place + 1) as f64;
                Usage {
                    wall: shaken(cpu * size),
                    cpu: shaken(cpu * size),
                    faults: shaken(1e5 * size),
                    mean_rss: shaken(1e8 * memory * size),
                    peak_rss: shaken(2e8 * memory * size),
                    ..Usage::default()
                }
            });
            Ok(usage.collect())
        }

        fn note(&mut self, text: &str) {
            println!("{text}");
        }

        fn name_breach(&self, breach: &Breach) -> String {
            format!("{breach:?}")
        }
    }

    fn options(seed: u64) -> Options {
        Options {
            budget: 160,
            pairs: 8,
            weights: Weights::default(),
            limits: Limits { mean: 0.05, each: 0.10, clocks: true },
            least_gain: 0.01,
            only: vec![],
            seed,
        }
    }

    fn searched<F: Fn(&Change) -> (f64, f64)>(cost_of: F, noise: f64, seed: u64, starts: &[Change]) -> Outcome {
        searched_for_all(|change| vec![cost_of(change)], noise, seed, starts)
    }

    fn searched_for_all<F>(cost_of: F, noise: f64, seed: u64, starts: &[Change]) -> Outcome
    where
        F: Fn(&Change) -> Vec<(f64, f64)>,
    {
        let mut bench = Made { cost_of, noise, random: fastrand::Rng::with_seed(seed), runs: 0 };
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
                assert!(proof.without.is_some_and(|without| proof.with < without), "{proof:?}");
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
    fn what_there_was_no_budget_to_doubt_has_no_cost_without() {
        let start = Change::from([
            ("idle_trim_ticks", "2".to_owned()),
            ("purge_delay_ms", "77".to_owned()),
            ("refill_bytes", "2K".to_owned()),
        ]);
        let cost_of = |change: &Change| vec![(1.0, if has(change, "purge_delay_ms", "77") { 0.7 } else { 1.0 })];
        let mut bench = Made { cost_of, noise: 0.001, random: fastrand::Rng::with_seed(1), runs: 0 };
        let only = vec!["tiering".to_owned()];
        let few = Options { budget: 2 * 8 + FIRST_RUNS + 1 + 2 * DUEL_RUNS, only, ..options(1) };
        let outcome = search(&mut bench, std::slice::from_ref(&start), &few).unwrap();
        assert_eq!(outcome.change, start);
        assert_eq!(outcome.proofs.len(), 3);
        for proof in &outcome.proofs {
            assert!(proof.with > 0.8 && proof.with < 0.95 && proof.without.is_none(), "{proof:?}");
        }
    }

    #[test]
    fn what_is_not_accepted_in_the_end_was_tried_in_vain() {
        // Cheaper until fresh pairs are run.
        let runs = std::cell::Cell::new(0);
        let cost_of = |change: &Change| {
            let is_step = has(change, "purge_delay_ms", "10");
            runs.set(runs.get() + usize::from(is_step));
            vec![(1.0, if is_step && runs.get() <= FINALIST_RUNS + DUEL_RUNS { 0.7 } else { 1.0 })]
        };
        let mut bench = Made { cost_of, noise: 0.005, random: fastrand::Rng::with_seed(1), runs: 0 };
        let all = Options { only: vec!["purge_delay_ms".to_owned()], ..options(1) };
        let outcome = search(&mut bench, &[], &all).unwrap();
        assert!(outcome.change.is_empty() && has(&outcome.candidate, "purge_delay_ms", "10"), "{:?}", outcome.verdict);
        assert!(outcome.rejected.iter().any(|step| step.change == outcome.candidate), "{:?}", outcome.rejected);
    }

    #[test]
    fn a_tiny_budget_is_kept() {
        let mut bench =
            Made { cost_of: |_: &Change| vec![(1.0, 1.0)], noise: 0.01, random: fastrand::Rng::with_seed(1), runs: 0 };
        let options = Options { budget: 12, pairs: 3, ..options(1) };
        search(&mut bench, &[], &options).unwrap();
        assert!(bench.runs <= 12, "{} runs", bench.runs);
    }

    #[test]
    fn the_least_budget_that_is_taken_tries_a_step() {
        let mut bench =
            Made { cost_of: |_: &Change| vec![(1.0, 1.0)], noise: 0.01, random: fastrand::Rng::with_seed(1), runs: 0 };
        let least = Options { budget: 13, pairs: 3, ..options(1) };
        least.check().unwrap();
        assert!(search(&mut bench, &[], &least).unwrap().log.iter().any(|(change, _)| !change.is_empty()));
        let error = Options { budget: 12, ..least }.check().unwrap_err();
        assert!(error.to_string().starts_with("a budget of 12 passes tries nothing: 3 pairs"), "{error}");
    }

    #[test]
    fn knobs_that_help_all_programs_are_found_and_say_whom_most() {
        for seed in 0..10 {
            let outcome = searched_for_all(
                |change| {
                    let cpu = if has(change, "refill_bytes", "16K") { 0.9 } else { 1.0 };
                    let lean = |share: f64| if has(change, "purge_delay_ms", "10") { share } else { 1.0 };
                    vec![(cpu, lean(0.9)), (cpu, lean(0.5)), (cpu, 1.0), (cpu, lean(0.8))]
                },
                0.01,
                seed,
                &[],
            );
            for (field, value) in [("purge_delay_ms", "10"), ("refill_bytes", "16K")] {
                assert!(has(&outcome.change, field, value), "{}", named(&outcome.change));
            }
            let proof = outcome.proofs.iter().find(|proof| proof.fields.contains(&"purge_delay_ms")).unwrap();
            let [few, most, none, some] = proof.programs[..] else { panic!("{proof:?}") };
            assert!(most < some && some < few && few < none, "{proof:?}");
            let verdict = outcome.verdict.unwrap();
            assert_eq!(verdict.programs.len(), 4);
            assert!(verdict.programs[1].cost < verdict.programs[2].cost, "{verdict:?}");
        }
    }

    #[test]
    fn a_knob_that_helps_one_program_much_and_ruins_another_is_refused() {
        let ruined = |change: &Change| has(change, "purge_delay_ms", "10");
        let slower = |change: &Change| {
            let refill = if has(change, "refill_bytes", "16K") { 0.9 } else { 1.0 };
            let (gain, loss) = if ruined(change) { (0.3, 1.3) } else { (1.0, 1.0) };
            vec![(gain * refill, 1.0), (loss * refill, 1.0), (refill, 1.0), (refill, 1.0)]
        };
        let larger = |change: &Change| {
            slower(change)
                .iter()
                .map(|&(time, memory)| (f64::min(time, 1.0), if time > 1.0 { 1.15 } else { memory }))
                .collect()
        };
        for seed in 0..10 {
            for outcome in [searched_for_all(slower, 0.01, seed, &[]), searched_for_all(larger, 0.01, seed, &[])] {
                assert!(!ruined(&outcome.change), "{}", named(&outcome.change));
                assert!(has(&outcome.change, "refill_bytes", "16K"), "the other one stays: {}", named(&outcome.change));
                let refused = outcome.rejected.iter().find(|step| ruined(&step.change)).unwrap();
                assert!(refused.cost < 1.0, "the mean is better");
                assert_eq!(refused.breach.as_ref().unwrap().program, Some(1));
            }
        }
    }

    #[test]
    fn noise_alone_is_hardly_ever_a_policy_for_many() {
        let none = |_: &Change| vec![(1.0, 1.0); 12];
        let found = (0..40).filter(|&seed| !searched_for_all(none, 0.05, seed, &[]).change.is_empty()).count();
        assert!(found <= 2, "a policy was found in {found} of 40 searches where there is none");
    }

    #[test]
    fn the_same_passes_make_the_same_search() {
        // The record of passes that a search was cut off with replays it because of this.
        let cost = |change: &Change| vec![(if has(change, "refill_bytes", "16K") { 0.9 } else { 1.0 }, 1.0); 3];
        let changes = |outcome: Outcome| outcome.log.into_iter().map(|(change, _)| change).collect::<Vec<_>>();
        assert_eq!(changes(searched_for_all(cost, 0.02, 7, &[])), changes(searched_for_all(cost, 0.02, 7, &[])));
    }
}
