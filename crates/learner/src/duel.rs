//! A trial: two policies take turns, and the differences decide.
//!
//! One window under the new policy compared with one under the old compares two moments of the program, not two policies. So the
//! two run in the order A B, B A, A B, …: each pair lies close together in time, and a steady trend of the program cancels out
//! over two pairs. What is kept of a pair is one number, the gain `ln(cost of A / cost of B)`.
//!
//! The number of pairs is not fixed: after each the gains are judged, and the trial ends as soon as they say something. Two
//! judges look at them, and either may find the new policy better:
//! - **Student's t** (1908), at a level of 0.2 % for one look: quick where the effect is large beside the noise;
//! - **a bet on the signs** (Ville 1939; Shafer and Vovk, "Game-theoretic probability", 2019): a gambler bets a part of his
//!   wealth on "B is better" at each pair. If B is not better more often than every other time, his wealth reaches 1 / α with a
//!   probability of at most α, however often one looks. It asks nothing of the noise but its median: one window in which
//!   the program did something else cannot decide, and cannot hide what all other pairs show.
//!
//! Gains are counted twice, by the measured and by the modelled cost (`score.rs`). Either may win or lose the trial; a win by the
//! model alone does not count where the clock shows a loss beyond the limit.
//!
//! A policy that is worse by more than a limit (2 %), by the median and beyond one standard error, or by far in a single turn, is
//! taken back at once. A trial in which a gain worth having has become unlikely ends too: a tie,
//! as is what stays undecided to the end, and the old policy stays.

use crate::Window;
use crate::math::{exp, ln};
use crate::score::{Rates, Tally, Weights};

/// Pairs at most.
pub const MAX_PAIRS: usize = 32;

/// Which of the two policies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// A, the old one.
    Base,
    /// B, the one on trial.
    Trial,
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::Base => Self::Trial,
            Self::Trial => Self::Base,
        }
    }
}

/// How a trial ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// B is better by at least the smallest gain worth having.
    Better,
    /// B is worse by more than the limit: a rollback.
    Worse,
    /// Nothing that could be told.
    Tie,
}

/// How long the turns are. A turn ends when all its conditions are met.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pace {
    /// Windows that are left out after a change of sides, because they still see the other side's work.
    pub settle_windows: u32,
    /// Time that is left out after a change of sides.
    pub settle_ns: u64,
    /// Windows of a turn, at least.
    pub windows: u32,
    /// Events of a turn, at least, unless they take too long to come.
    pub events: u64,
    /// What is too long.
    pub longest_ns: u64,
    /// Time of a turn, at least.
    pub elapsed_ns: u64,
}

/// When a trial ends.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Limits {
    /// Gains below this are not worth a change (0.005 is half a percent).
    pub min_gain: f64,
    /// Losses above this end the trial (0.02).
    pub rollback: f64,
    /// A turn that costs more than the old policy's worst by this ends it (0.5).
    pub brake: f64,
    /// Pairs at most; up to [`MAX_PAIRS`].
    pub pairs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { min_gain: 0.005, rollback: 0.02, brake: 0.5, pairs: MAX_PAIRS }
    }
}

/// The gains of the pairs so far.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Gains {
    values: [f64; MAX_PAIRS],
    count: usize,
}

impl Gains {
    /// Adds one; beyond [`MAX_PAIRS`] it is forgotten.
    pub fn push(&mut self, gain: f64) {
        if let Some(place) = self.values.get_mut(self.count) {
            *place = gain;
            self.count += 1;
        }
    }

    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[f64] {
        self.values.get(..self.count).unwrap_or(&[])
    }

    /// Their median; 0 of none.
    #[must_use]
    pub fn median(&self) -> f64 {
        let mut sorted = self.values;
        let Some(sorted) = sorted.get_mut(..self.count) else { return 0.0 };
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = sorted.get(middle).copied().unwrap_or(0.0);
        if sorted.len() % 2 == 1 {
            return upper;
        }
        let lower = middle.checked_sub(1).and_then(|index| sorted.get(index)).copied().unwrap_or(0.0);
        (lower + upper) / 2.0
    }

    /// Their mean and its standard error; none of fewer than two.
    fn mean_and_error(&self) -> Option<(f64, f64)> {
        let (count, freedom) = (self.count as f64, self.count.checked_sub(1).filter(|freedom| *freedom > 0)? as f64);
        let mean = self.as_slice().iter().sum::<f64>() / count;
        let squares: f64 = self.as_slice().iter().map(|gain| (gain - mean) * (gain - mean)).sum();
        Some((mean, (squares / freedom / count).sqrt()))
    }

    /// Whether Student's t finds the mean above 0.
    fn t_test_is_won(&self) -> bool {
        let critical = self.count.checked_sub(1).and_then(|freedom| T_CRITICAL.get(freedom));
        let Some((critical, (mean, error))) = critical.zip(self.mean_and_error()) else { return false };
        mean > critical * error
    }

    /// Whether a gain worth having has become unlikely.
    fn is_hopeless(&self, limits: &Limits) -> bool {
        let near_all = self.mean_and_error().is_some_and(|(mean, error)| mean + 2.0 * error < limits.min_gain);
        self.count >= 4 && near_all
    }

    /// Whether the gambler on signs has multiplied his wealth by 1 / α.
    fn bet_is_won(&self) -> bool {
        let mut wealth = 1.0;
        self.as_slice().iter().any(|&gain| {
            wealth *= if gain > 0.0 { 1.0 + STAKE } else { 1.0 - STAKE };
            wealth >= WEALTH_THAT_CONVINCES
        })
    }

    /// Whether they show a loss beyond the limit.
    fn is_loss(&self, limits: &Limits) -> bool {
        let is_beyond_noise = self.mean_and_error().is_some_and(|(mean, error)| mean + error < -limits.rollback);
        is_beyond_noise && self.median() < -limits.rollback
    }

    /// Whether they show a gain worth having.
    fn is_gain(&self, limits: &Limits) -> bool {
        self.count >= MIN_PAIRS && self.median() >= limits.min_gain && (self.t_test_is_won() || self.bet_is_won())
    }
}

/// Pairs before anything is accepted.
const MIN_PAIRS: usize = 3;
/// Pairs that the clock gets to find a gain that the model does not see.
const PAIRS_AGAINST_THE_MODEL: usize = 12;
/// Part of his wealth that the gambler bets.
const STAKE: f64 = 0.7;
/// 1 / α for α = 1.5 %: eight pairs in a row, or twelve with one against.
const WEALTH_THAT_CONVINCES: f64 = 66.0;
/// One-sided 0.2 % points of Student's t by degrees of freedom; below two, never.
const T_CRITICAL: [f64; MAX_PAIRS] = [
    f64::INFINITY,
    f64::INFINITY,
    15.764,
    8.053,
    5.951,
    5.030,
    4.524,
    4.207,
    3.991,
    3.835,
    3.716,
    3.624,
    3.550,
    3.489,
    3.438,
    3.395,
    3.358,
    3.326,
    3.298,
    3.273,
    3.250,
    3.230,
    3.212,
    3.196,
    3.181,
    3.168,
    3.155,
    3.144,
    3.133,
    3.124,
    3.115,
    3.107,
];

/// A trial under way.
#[derive(Clone, Debug)]
pub struct Duel {
    pace: Pace,
    limits: Limits,
    weights: Weights,
    baseline: Rates,
    side: Side,
    to_settle: Settle,
    tally: Tally,
    /// The first turn of the pair under way.
    first: Option<Cost>,
    gains: Gains,
    modelled: Gains,
    costs: [CostSum; 2],
}

/// What a turn cost.
#[derive(Clone, Copy, Debug)]
struct Cost {
    measured: f64,
    modelled: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Settle {
    windows: u32,
    elapsed_ns: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct CostSum {
    sum: f64,
    most: f64,
    turns: u32,
}

impl Duel {
    /// A trial that begins with A, which runs already.
    #[must_use]
    pub fn new(pace: Pace, limits: Limits, weights: Weights, baseline: Rates) -> Self {
        Self {
            pace,
            limits,
            weights,
            baseline,
            side: Side::Base,
            to_settle: Settle::default(),
            tally: Tally::default(),
            first: None,
            gains: Gains::default(),
            modelled: Gains::default(),
            costs: [CostSum::default(); 2],
        }
    }

    /// The same, where something else ran before.
    #[must_use]
    pub fn from_elsewhere(pace: Pace, limits: Limits, weights: Weights, baseline: Rates) -> Self {
        let to_settle = Settle { windows: pace.settle_windows, elapsed_ns: pace.settle_ns };
        Self { to_settle, ..Self::new(pace, limits, weights, baseline) }
    }

    /// The policy that has to run in the next window.
    #[must_use]
    pub const fn side(&self) -> Side {
        self.side
    }

    /// The gains so far, by the clock.
    #[must_use]
    pub const fn gains(&self) -> &Gains {
        &self.gains
    }

    /// The gains so far, by the prices of slow paths.
    #[must_use]
    pub const fn modelled_gains(&self) -> &Gains {
        &self.modelled
    }

    /// The gain that the verdict goes by: the clock's median, or the model's where that is a loss or the clock shows none beyond
    /// the limit and no gain.
    #[must_use]
    pub fn gain(&self) -> f64 {
        let (measured, modelled) = (self.gains.median(), self.modelled.median());
        if measured < -self.limits.rollback || modelled < -self.limits.rollback {
            measured.min(modelled)
        } else {
            measured.max(modelled)
        }
    }

    /// Mean cost of a side's turns; 0 before its first.
    #[must_use]
    pub fn mean_cost(&self, side: Side) -> f64 {
        let [base, trial] = self.costs;
        let costs = if side == Side::Base { base } else { trial };
        if costs.turns == 0 { 0.0 } else { costs.sum / f64::from(costs.turns) }
    }

    /// Takes a window that [`Duel::side`]'s policy ran in. The verdict, when there is one.
    pub fn observe(&mut self, window: &Window) -> Option<Verdict> {
        if self.to_settle.windows > 0 || self.to_settle.elapsed_ns > 0 {
            self.to_settle.windows = self.to_settle.windows.saturating_sub(1);
            self.to_settle.elapsed_ns = self.to_settle.elapsed_ns.saturating_sub(window.elapsed_ns.max(1));
            return None;
        }
        self.tally.add(window);
        let pace = &self.pace;
        let is_whole = self.tally.windows >= pace.windows
            && self.tally.elapsed_ns >= pace.elapsed_ns
            && self.tally.events > 0
            && (self.tally.events >= pace.events || self.tally.elapsed_ns >= pace.longest_ns);
        if !is_whole {
            return None;
        }
        let rates = self.tally.rates()?;
        self.tally = Tally::EMPTY;
        self.end_of_turn(Cost {
            measured: self.weights.cost(&rates, &self.baseline),
            modelled: self.weights.modelled_cost(&rates, &self.baseline),
        })
    }

    fn end_of_turn(&mut self, cost: Cost) -> Option<Verdict> {
        let [base, trial] = &mut self.costs;
        let costs = if self.side == Side::Base { base } else { trial };
        costs.sum += cost.measured;
        costs.most = costs.most.max(cost.measured);
        costs.turns += 1;
        if self.side == Side::Trial
            && cost.measured > exp(self.limits.brake) * self.costs.first().map_or(0.0, |base| base.most)
        {
            return Some(Verdict::Worse);
        }
        let Some(first) = self.first.take() else {
            self.first = Some(cost);
            self.change_sides();
            return None;
        };
        // The second turn of this pair is also the side on which the next one begins: A B, B A.
        let (base, trial) = if self.side == Side::Trial { (first, cost) } else { (cost, first) };
        self.gains.push(ln(base.measured / trial.measured));
        self.modelled.push(ln(base.modelled / trial.modelled));
        self.verdict()
    }

    fn verdict(&self) -> Option<Verdict> {
        let (limits, measured, modelled) = (&self.limits, &self.gains, &self.modelled);
        if measured.is_loss(limits) || modelled.is_loss(limits) {
            Some(Verdict::Worse)
        } else if measured.is_gain(limits) || (modelled.is_gain(limits) && measured.median() > -limits.rollback) {
            Some(Verdict::Better)
        } else {
            // The model has little noise: what it does not see must be large to be worth a long wait for the clock.
            let is_hopeless = modelled.is_hopeless(limits)
                && (measured.is_hopeless(limits) || measured.count >= PAIRS_AGAINST_THE_MODEL);
            (is_hopeless || measured.count >= limits.pairs.min(MAX_PAIRS)).then_some(Verdict::Tie)
        }
    }

    /// The program did something else for a while. The pairs that are whole stay; the one under way begins anew, because its
    /// turns would not be neighbours.
    pub const fn resume(&mut self) {
        self.first = None;
        self.tally = Tally::EMPTY;
        self.to_settle = Settle { windows: self.pace.settle_windows, elapsed_ns: self.pace.settle_ns };
    }

    fn change_sides(&mut self) {
        self.side = self.side.other();
        self.to_settle = Settle { windows: self.pace.settle_windows, elapsed_ns: self.pace.settle_ns };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use proptest::prelude::*;

    const PACE: Pace =
        Pace { settle_windows: 1, settle_ns: 0, windows: 1, events: 1, longest_ns: u64::MAX, elapsed_ns: 0 };
    const BASELINE: Rates = Rates { cpu_ns: 100.0, faults: 0.0, resident_per_live: 0.0, slow_ns: 0.0 };

    fn duel() -> Duel {
        Duel::new(PACE, Limits::default(), Weights { cpu: 1.0, faults: 0.0, memory: 0.0 }, BASELINE)
    }

    fn window(cpu_per_event: f64) -> Window {
        Window { elapsed_ns: 1000, allocs: 100_000, cpu_ns: (cpu_per_event * 100_000.0) as u64, ..Window::EMPTY }
    }

    /// Runs a trial in a program whose cost per event in a window is `cost(side, number of the window)`.
    fn run(mut cost: impl FnMut(Side, u32) -> f64) -> (Verdict, u32, Duel) {
        let mut duel = duel();
        for number in 0.. {
            if let Some(verdict) = duel.observe(&window(cost(duel.side(), number))) {
                return (verdict, number + 1, duel);
            }
        }
        unreachable!("a trial has an end");
    }

    fn of(base: f64, trial: f64) -> impl Fn(Side) -> f64 {
        move |side| if side == Side::Base { base } else { trial }
    }

    #[test]
    fn a_clear_gain_is_accepted_after_three_pairs() {
        let cost = of(100.0, 90.0);
        let mut random = Random::new(1);
        let (verdict, windows, duel) = run(|side, _| cost(side) * (1.0 + 0.005 * random.normal()));
        assert_eq!(verdict, Verdict::Better);
        assert!(windows <= 16, "{windows}");
        assert!((duel.gains().median() - 0.105).abs() < 0.02);
        assert!(duel.mean_cost(Side::Trial) < duel.mean_cost(Side::Base));
    }

    #[test]
    fn a_loss_is_taken_back_after_two_pairs_and_a_disaster_after_one_turn() {
        let cost = of(100.0, 105.0);
        let (verdict, windows, _) = run(|side, _| cost(side));
        assert_eq!(verdict, Verdict::Worse);
        assert_eq!(windows, 6);
        let cost = of(100.0, 300.0);
        let (verdict, windows, _) = run(|side, _| cost(side));
        assert_eq!(verdict, Verdict::Worse);
        assert_eq!(windows, 3);
    }

    #[test]
    fn a_gain_that_drowns_in_the_clocks_noise_is_found_by_the_model_unless_the_clock_shows_a_loss() {
        let refills = |side: Side| if side == Side::Base { 20_000 } else { 10_000 };
        let play = |cpu: [f64; 2]| {
            let mut random = Random::new(12);
            let mut duel = duel();
            loop {
                let side = duel.side();
                let mean = if side == Side::Base { cpu[0] } else { cpu[1] };
                let mut now = window(mean * (0.03 * random.normal()).exp());
                now.classes[5].refills = refills(side);
                if let Some(verdict) = duel.observe(&now) {
                    return verdict;
                }
            }
        };
        // 10,000 refills less of 100,000 allocations, at 40 ns: 4 of 100 ns.
        assert_eq!(play([100.0, 100.0]), Verdict::Better);
        assert_eq!(play([100.0, 112.0]), Verdict::Worse);
    }

    /// The program does something else for a while between the two turns of a pair, and is twice as dear from then on.
    #[test]
    fn a_pair_that_was_interrupted_begins_anew_and_those_before_it_count() {
        let mut duel = duel();
        let mut turn = |cost: f64, is_interrupted: bool| {
            if is_interrupted {
                duel.resume();
            }
            // One window to settle in after each change of sides, and after the interruption.
            let mut windows = 0;
            let (side, gains) = (duel.side(), duel.gains().as_slice().len());
            while duel.side() == side && duel.gains().as_slice().len() == gains && windows < 9 {
                assert_eq!(duel.observe(&window(cost)), None);
                windows += 1;
            }
            (side, windows, duel.gains().as_slice().len())
        };
        assert_eq!(turn(100.0, false), (Side::Base, 1, 0));
        assert_eq!(turn(99.0, false), (Side::Trial, 2, 1));
        // The second pair begins with the trial's side, and its first turn is forgotten.
        assert_eq!(turn(99.0, false), (Side::Trial, 1, 1));
        assert_eq!(turn(100.0, true), (Side::Base, 2, 1));
        assert_eq!(turn(99.0, false), (Side::Trial, 2, 2));
        assert!(
            duel.gains().as_slice().iter().all(|gain| (gain - ln(100.0 / 99.0)).abs() < 1e-3),
            "{:?}",
            duel.gains()
        );
    }

    #[test]
    fn what_makes_no_difference_is_a_tie() {
        let (verdict, ..) = run(|_, _| 100.0);
        assert_eq!(verdict, Verdict::Tie);
        // Better, but by too little to be worth a change.
        let cost = of(100.0, 99.8);
        assert_eq!(run(|side, _| cost(side)).0, Verdict::Tie);
    }

    #[test]
    fn a_trend_of_the_program_is_no_difference_between_policies() {
        for trend in [0.97, 1.03_f64] {
            let (verdict, ..) = run(|_, number| 100.0 * trend.powi(number as i32));
            assert_ne!(verdict, Verdict::Better, "trend {trend}");
        }
    }

    #[test]
    fn one_outlier_neither_decides_nor_hides() {
        let (verdict, ..) = run(|_, number| if number == 5 { 40.0 } else { 100.0 });
        assert_eq!(verdict, Verdict::Tie);
        let cost = of(100.0, 95.0);
        let (verdict, ..) = run(|side, number| if number == 6 { 120.0 } else { cost(side) });
        assert_eq!(verdict, Verdict::Better);
    }

    /// How many of 2000 trials between equal policies end as "better", in permille.
    fn false_gains(mut noise: impl FnMut(&mut Random) -> f64) -> u32 {
        let mut random = Random::new(77);
        let mut better = 0;
        for _ in 0..2000 {
            let (verdict, ..) = run(|_, _| 100.0 * noise(&mut random).exp());
            better += u32::from(verdict == Verdict::Better);
        }
        better / 2
    }

    #[test]
    fn noise_alone_is_rarely_taken_for_a_gain() {
        let normal = false_gains(|random| 0.05 * random.normal());
        assert!(normal < 25, "{normal}");
        // Heavy tails: one window in ten is out by a fifth.
        let heavy =
            false_gains(|random| if random.below(10) == 0 { 0.2 * random.normal() } else { 0.01 * random.normal() });
        assert!(heavy < 25, "{heavy}");
        // Phases that last many windows.
        let mut level = 0.0;
        let wandering = false_gains(|random| {
            level = 0.95 * level + 0.03 * random.normal();
            level
        });
        assert!(wandering < 25, "{wandering}");
    }

    #[test]
    fn noise_that_the_model_has_too_is_rarely_taken_for_a_gain() {
        let mut random = Random::new(78);
        let weights = Weights { cpu: 0.0, faults: 0.0, memory: 1.0 };
        let baseline = Rates { resident_per_live: 2.0, ..BASELINE };
        let mut better = 0;
        for _ in 0..2000 {
            let mut duel = Duel::new(PACE, Limits::default(), weights, baseline);
            let verdict = loop {
                let resident_bytes = (2e9 * (0.05 * random.normal()).exp()) as u64;
                let now = Window { live_bytes: 1_000_000_000, resident_bytes, ..window(100.0) };
                if let Some(verdict) = duel.observe(&now) {
                    break verdict;
                }
            };
            better += u32::from(verdict == Verdict::Better);
        }
        assert!(better / 2 < 35, "{better} of 2000");
    }

    #[test]
    fn a_gain_as_large_as_the_noise_of_a_pair_is_mostly_found() {
        let mut random = Random::new(3);
        let cost = of(100.0, 95.0);
        let found = (0..200)
            .filter(|_| run(|side, _| cost(side) * (0.03 * random.normal()).exp()).0 == Verdict::Better)
            .count();
        assert!(found > 120, "{found}");
    }

    proptest! {
        #[test]
        fn a_trial_ends_within_its_pairs(costs in prop::collection::vec(1.0..1e6_f64, 1..50)) {
            let (_, windows, duel) = run(|_, number| costs[number as usize % costs.len()]);
            prop_assert!(duel.gains().as_slice().len() <= MAX_PAIRS);
            // Two measured windows and at most one settling window a pair.
            prop_assert!(windows as usize <= 3 * MAX_PAIRS + 1);
        }
    }
}
