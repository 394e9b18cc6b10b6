//! The decision: what fresh pairs of passes, defaults and candidate, say about a policy, for all programs and for each.
//!
//! **Invariants.** What is accepted was better in a sign test over pairs of passes that stood next to each other, so one lucky pass
//! does not suffice. It is not much worse in any limited part: not in the mean over the programs, and, by a wider limit, for none
//! of them, so that a policy for many does not live at the cost of one.

use crate::measure::Usage;
use crate::score::{
    Part, Pass, Ratios, Watched, Weights, cost_of, least_pass, median, median_pass, median_usage, most_pass, sign_test,
};

/// How many times in a hundred chance may do what a policy did.
const CHANCE: f64 = 0.05;

/// What may be worse, and by how much, as shares.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The geometric mean of a part over all programs.
    pub mean: f64,
    /// A part of a single program, where there are several. Wider, because nothing averages it out.
    pub each: f64,
    /// Clocks are believed. On a machine that others use they are not, and time has neither weight nor limit.
    pub clocks: bool,
}

/// A limit that was broken.
#[derive(Clone, PartialEq, Debug)]
pub struct Breach {
    /// The program, by its place; `None` is the mean over all.
    pub program: Option<usize>,
    /// The part.
    pub part: Part,
    /// How much of it there is beside the defaults.
    pub ratio: f64,
}

/// What the pairs say of one program.
#[derive(Clone, Debug)]
pub struct ProgramVerdict {
    /// Median over the pairs of its cost with the result by that with the defaults.
    pub cost: f64,
    /// Median ratios of the parts.
    pub ratios: Ratios,
    /// Pairs in which it was cheaper.
    pub wins: usize,
}

/// What the pairs say.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Pairs in which the result was cheaper.
    pub wins: usize,
    /// Pairs.
    pub pairs: usize,
    /// Median over the pairs of cost with the result by cost with the defaults.
    pub cost: f64,
    /// Median ratios of the parts; of several programs, geometric means.
    pub ratios: Ratios,
    /// The same for each program.
    pub programs: Vec<ProgramVerdict>,
    /// Why the result is not accepted, if it is not.
    pub refusal: Option<Refusal>,
}

/// Why a result is not accepted.
#[derive(Clone, PartialEq, Debug)]
pub enum Refusal {
    /// The gain, as a share, is too small.
    NotWorthIt(f64),
    /// Chance would do the same too often.
    Chance,
    /// A limit is broken.
    Limit(Breach),
}

impl Limits {
    fn watched(&self, weights: &Weights, with_wall: bool) -> Watched {
        Watched { wall: with_wall && self.clocks, cpu: self.clocks, peak: weights.has_peak() }
    }

    /// The limit that a few passes break, beside those of the defaults. Of a single program its best run has to break it, and to be
    /// worse than the worst that it had with the defaults: of many programs one always has bad luck, and threads that race each
    /// other may hold twice as much memory in one run as in the next.
    pub fn broken(&self, passes: &[Pass], defaults: &[Pass], weights: &Weights) -> Option<Breach> {
        if passes.is_empty() {
            return None;
        }
        let (base, watched) = (median_pass(defaults), self.watched(weights, false));
        let mean = Ratios::mean_of(&median_pass(passes), &base).worse_than(1.0 + self.mean, &watched);
        if let Some((part, ratio)) = mean {
            return Some(Breach { program: None, part, ratio });
        }
        let (least, most) = (least_pass(passes), most_pass(defaults));
        let singles = least.iter().zip(&base).map(|(run, base)| Ratios::of(run, base));
        let is_sure = |place: usize, part: Part| {
            least.get(place).zip(most.get(place)).is_some_and(|(run, most)| Ratios::of(run, most).part(part) > 1.0)
        };
        self.worst(singles, &watched, is_sure)
    }

    /// The single program that breaks its limit most, if there are several programs.
    fn worst(
        &self,
        programs: impl Iterator<Item = Ratios> + Clone,
        watched: &Watched,
        is_sure: impl Fn(usize, Part) -> bool,
    ) -> Option<Breach> {
        if programs.clone().count() < 2 {
            return None;
        }
        let broken = programs.enumerate().flat_map(|(place, ratios)| {
            let worse = ratios.all_worse_than(1.0 + self.each, watched);
            worse.map(move |(part, ratio)| Breach { program: Some(place), part, ratio })
        });
        let is_sure = |breach: &Breach| breach.program.is_some_and(|place| is_sure(place, breach.part));
        broken.filter(is_sure).max_by(|left, right| left.ratio.total_cmp(&right.ratio))
    }
}

/// Says that so few pairs accept nothing, if they do.
pub fn warn_of_few(pairs: usize) {
    if sign_test(pairs, pairs) > CHANCE {
        eprintln!("{pairs} pairs can confirm nothing: a sign test at 5 % needs five at least");
    }
}

/// What pairs of passes, defaults and candidate, say.
pub fn judge(pairs: &[(Pass, Pass)], weights: &Weights, limits: &Limits, least_gain: f64) -> Verdict {
    let bases: Vec<Pass> = pairs.iter().map(|(base, _)| base.clone()).collect();
    let passes: Vec<Pass> = pairs.iter().map(|(_, pass)| pass.clone()).collect();
    let (base, middle) = (median_pass(&bases), median_pass(&passes));
    let relative: Vec<f64> =
        pairs.iter().map(|(own, pass)| cost_of(pass, &base, weights) / cost_of(own, &base, weights)).collect();
    let wins = relative.iter().filter(|cost| **cost < 1.0).count();
    let cost = median(relative);
    let programs: Vec<ProgramVerdict> = (0..base.len()).map(|place| of_program(place, pairs, weights)).collect();
    let ratios = Ratios::mean_of(&middle, &base);

    let watched = limits.watched(weights, true);
    let refusal = if cost > 1.0 - least_gain {
        Some(Refusal::NotWorthIt(1.0 - cost))
    } else if sign_test(wins, pairs.len()) > CHANCE {
        Some(Refusal::Chance)
    } else if let Some((part, ratio)) = ratios.worse_than(1.0 + limits.mean, &watched) {
        Some(Refusal::Limit(Breach { program: None, part, ratio }))
    } else {
        // Worse in the median of the pairs, and in so many of them that it was not bad luck.
        let is_sure = |place: usize, part: Part| {
            let ratio = |(base, pass): &(Pass, Pass)| Some(Ratios::of(pass.get(place)?, base.get(place)?).part(part));
            let worse = pairs.iter().filter_map(ratio).filter(|ratio| *ratio > 1.0).count();
            sign_test(worse, pairs.len()) <= CHANCE
        };
        limits.worst(programs.iter().map(|program| program.ratios), &watched, is_sure).map(Refusal::Limit)
    };
    Verdict { wins, pairs: pairs.len(), cost, ratios, programs, refusal }
}

fn of_program(place: usize, pairs: &[(Pass, Pass)], weights: &Weights) -> ProgramVerdict {
    let both = pairs.iter().filter_map(|(base, pass)| Some((base.get(place)?, pass.get(place)?)));
    let bases: Vec<Usage> = both.clone().map(|(base, _)| base.clone()).collect();
    let runs: Vec<Usage> = both.map(|(_, run)| run.clone()).collect();
    let base = median_usage(&bases);
    let costs = |runs: &[Usage]| -> Vec<f64> { runs.iter().map(|run| Ratios::of(run, &base).cost(weights)).collect() };
    let relative: Vec<f64> = costs(&runs).iter().zip(costs(&bases)).map(|(run, own)| run / own).collect();
    let wins = relative.iter().filter(|cost| **cost < 1.0).count();
    ProgramVerdict { cost: median(relative), ratios: Ratios::of(&median_usage(&runs), &base), wins }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { mean: 0.05, each: 0.10, clocks: true };

    fn run(cpu: f64, memory: f64, peak: f64) -> Usage {
        Usage { wall: cpu, cpu, faults: 1e6, mean_rss: memory * 1e9, peak_rss: peak * 1e9, ..Usage::default() }
    }

    /// Eight pairs in which the defaults cost 1 in everything, for each program.
    fn pairs(candidate: impl Fn(usize) -> Pass) -> Vec<(Pass, Pass)> {
        (0..8).map(|round| (candidate(round).iter().map(|_| run(1.0, 1.0, 1.0)).collect(), candidate(round))).collect()
    }

    fn refusal(candidate: impl Fn(usize) -> Pass, limits: &Limits) -> Option<Refusal> {
        judge(&pairs(candidate), &Weights::SEVERAL, limits, 0.01).refusal
    }

    #[test]
    fn what_is_better_for_all_is_accepted() {
        let verdict = judge(&pairs(|_| vec![run(0.9, 1.0, 1.0), run(0.8, 0.9, 1.0)]), &Weights::SEVERAL, &LIMITS, 0.01);
        assert_eq!((verdict.refusal, verdict.wins, verdict.pairs), (None, 8, 8));
        assert!((verdict.programs[0].cost - 0.96).abs() < 1e-3 && verdict.programs[1].cost < 0.91);
        assert_eq!(verdict.programs[1].wins, 8);
    }

    #[test]
    fn a_mean_beyond_its_limit_is_refused_by_its_part() {
        let refused = refusal(|_| vec![run(0.5, 1.0, 1.08), run(0.5, 1.0, 1.06)], &LIMITS).unwrap();
        assert!(matches!(&refused, Refusal::Limit(Breach { program: None, part: Part::Peak, .. })), "{refused:?}");
    }

    #[test]
    fn one_program_may_lose_a_little_and_no_more() {
        let with = |loss: f64| move |_| vec![run(0.5, 1.0, 1.0), run(1.0, 1.0, loss), run(1.0, 1.0, 1.0)];
        assert_eq!(refusal(with(1.09), &LIMITS), None);
        let refused = refusal(with(1.12), &LIMITS).unwrap();
        assert!(matches!(&refused, Refusal::Limit(Breach { program: Some(1), part: Part::Peak, .. })), "{refused:?}");
    }

    #[test]
    fn one_program_with_bad_luck_in_half_of_its_runs_is_no_reason() {
        let unlucky = |round: usize| vec![run(0.5, 1.0, 1.0), run(if round < 4 { 1.3 } else { 0.99 }, 1.0, 1.0)];
        assert_eq!(refusal(unlucky, &LIMITS), None);
        assert!(
            refusal(|round| vec![run(0.5, 1.0, 1.0), run(if round < 7 { 1.3 } else { 0.99 }, 1.0, 1.0)], &LIMITS)
                .is_some()
        );
    }

    #[test]
    fn clocks_that_are_not_believed_refuse_nothing() {
        let slow = |_| vec![run(1.5, 0.5, 1.0), run(1.5, 0.5, 1.0)];
        let weights = Weights::SEVERAL.without_clocks().unwrap();
        let limits = Limits { clocks: false, ..LIMITS };
        assert_eq!(judge(&pairs(slow), &weights, &limits, 0.01).refusal, None);
        assert!(judge(&pairs(slow), &weights, &LIMITS, 0.01).refusal.is_some());
    }

    #[test]
    fn chance_and_small_gains_are_named() {
        let small = refusal(|_| vec![run(0.99, 1.0, 1.0)], &LIMITS);
        // A hundredth of the processor time, which is four tenths of the score.
        assert!(matches!(small, Some(Refusal::NotWorthIt(gain)) if (gain - 0.004).abs() < 1e-4), "{small:?}");
        let swaying = |round: usize| vec![run(if round < 5 { 0.5 } else { 1.2 }, 1.0, 1.0)];
        assert_eq!(refusal(swaying, &LIMITS), Some(Refusal::Chance));
    }

    #[test]
    fn a_machine_that_becomes_slower_says_the_same_of_its_pairs() {
        let pairs: Vec<(Pass, Pass)> = (0..8)
            .map(|round| {
                let slower = 1.0 + 0.3 * f64::from(round);
                let both = |cpu: f64| vec![run(cpu * slower, 1.0, 1.0), run(10.0 * cpu * slower, 1.0, 1.0)];
                (both(100.0), both(90.0))
            })
            .collect();
        let verdict = judge(&pairs, &"cpu=1".parse().unwrap(), &LIMITS, 0.01);
        assert_eq!((verdict.refusal, verdict.wins), (None, 8));
        for cost in [verdict.cost, verdict.programs[0].cost, verdict.programs[1].cost] {
            assert!((cost - 0.9).abs() < 1e-3, "{cost}");
        }
    }

    #[test]
    fn in_a_few_passes_the_best_run_of_a_program_has_to_break_the_limit() {
        let base = [vec![run(1.0, 1.0, 1.0), run(1.0, 1.0, 1.0)]];
        let passes = |last: f64| [1.4, 1.3, last].map(|cpu| vec![run(0.6, 1.0, 1.0), run(cpu, 1.0, 1.0)]);
        assert_eq!(LIMITS.broken(&passes(1.05), &base, &Weights::SEVERAL), None);
        let breach = LIMITS.broken(&passes(1.2), &base, &Weights::SEVERAL).unwrap();
        assert_eq!((breach.program, breach.part), (Some(1), Part::Cpu));
        assert_eq!(LIMITS.broken(&[], &base, &Weights::SEVERAL), None);
    }

    #[test]
    fn what_a_program_does_with_the_defaults_now_and_then_breaks_no_limit() {
        // Two programs have no mean to speak of.
        let limits = Limits { mean: 1.0, ..LIMITS };
        let steady = run(1.0, 1.0, 1.0);
        let defaults = [1.0, 1.0, 2.3].map(|peak| vec![steady.clone(), run(1.0, 1.0, peak)]);
        let with =
            |peak: f64| limits.broken(&[vec![run(0.5, 1.0, 1.0), run(1.0, 1.0, peak)]], &defaults, &Weights::SEVERAL);
        assert_eq!(with(2.2), None);
        assert_eq!(with(2.5).unwrap().part, Part::Peak);
        // A part that is worse for sure is seen beside one that is worse still, but by luck.
        let both = limits.broken(&[vec![run(0.3, 0.7, 1.0), run(1.0, 1.2, 2.2)]], &defaults, &Weights::SEVERAL);
        assert_eq!(both.unwrap().part, Part::Memory);
    }
}
