//! Bandits: which of several things to try next, when each try is a noisy reward between 0 and 1.
//!
//! - UCB1: Auer, Cesa-Bianchi and Fischer, "Finite-time analysis of the multiarmed bandit problem", 2002. The founding documents
//!   use a constant of 1.5 where the paper has √2; it is an option here.
//! - Discounted and sliding-window UCB: Garivier and Moulines, "On upper-confidence bound policies for switching bandit
//!   problems", 2011. They forget, because the program changes.
//! - Thompson sampling (1933) with a normal posterior whose variance is that of the rewards seen, as in Agrawal and Goyal,
//!   "Further optimal regret bounds for Thompson sampling", 2013.
//! - Random choice: what the others have to beat.

use crate::math::ln;
use crate::random::{Random, members};

/// Arms at most: one bit each of the set of those that may be chosen.
pub const MAX_ARMS: usize = 32;
/// Rewards that the sliding window holds at most.
const MAX_HORIZON: usize = 128;

/// How the next arm is chosen.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Rule {
    /// Largest upper confidence bound.
    Ucb1 {
        /// Factor of the confidence term.
        exploration: f64,
    },
    /// The same, with rewards that fade.
    DiscountedUcb {
        /// Factor of the confidence term.
        exploration: f64,
        /// What a reward is worth after each later one.
        discount: f64,
    },
    /// The same, over the latest rewards only.
    SlidingUcb {
        /// Factor of the confidence term.
        exploration: f64,
        /// How many rewards; at most 128.
        horizon: usize,
    },
    /// Largest draw from the posteriors.
    Thompson,
    /// Any.
    Random,
}

/// What is known of an arm.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Arm {
    /// Rewards, faded ones in part.
    pub pulls: f64,
    /// Their sum.
    pub sum: f64,
    squares: f64,
}

impl Arm {
    /// Mean reward; 0 of none.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.pulls > 0.0 { self.sum / self.pulls } else { 0.0 }
    }

    fn add(&mut self, reward: f64, weight: f64) {
        self.pulls += weight;
        self.sum += weight * reward;
        self.squares += weight * reward * reward;
    }

    fn fade(&mut self, factor: f64) {
        self.pulls *= factor;
        self.sum *= factor;
        self.squares *= factor;
    }
}

/// A bandit over up to [`MAX_ARMS`] arms.
#[derive(Clone, Debug)]
pub struct Bandit {
    rule: Rule,
    arms: [Arm; MAX_ARMS],
    latest: Latest,
}

/// The latest rewards, for the sliding window.
#[derive(Clone, Debug)]
struct Latest {
    rewards: [(u8, f32); MAX_HORIZON],
    next: usize,
    count: usize,
}

impl Bandit {
    /// A bandit that knows nothing.
    #[must_use]
    pub const fn new(rule: Rule) -> Self {
        const NOTHING: Arm = Arm { pulls: 0.0, sum: 0.0, squares: 0.0 };
        Self { rule, arms: [NOTHING; MAX_ARMS], latest: Latest { rewards: [(0, 0.0); MAX_HORIZON], next: 0, count: 0 } }
    }

    /// What is known of an arm.
    #[must_use]
    pub fn arm(&self, arm: usize) -> Arm {
        self.arms.get(arm).copied().unwrap_or_default()
    }

    /// The next arm of those whose bit is set in `eligible`; none of none. Of those that were never tried, the one with most
    /// at stake.
    pub fn choose(&self, eligible: u64, stake: impl Fn(usize) -> f64, random: &mut Random) -> Option<usize> {
        let eligible = eligible & ((1 << MAX_ARMS) - 1);
        if self.rule == Rule::Random {
            return random.member(eligible);
        }
        // What was never tried, or has faded away, comes first.
        let fresh = members(eligible).filter(|arm| self.arm(*arm).pulls < MIN_PULLS).fold(0, |set, arm| set | 1 << arm);
        if fresh != 0 {
            return random.worthiest(fresh, stake);
        }
        let total: f64 = members(eligible).map(|arm| self.arm(arm).pulls).sum();
        let mut best = None;
        for place in members(eligible) {
            let index = self.index(&self.arm(place), total, random);
            if best.is_none_or(|(_, most)| index > most) {
                best = Some((place, index));
            }
        }
        best.map(|(place, _)| place)
    }

    /// What an arm is ranked by.
    fn index(&self, arm: &Arm, total: f64, random: &mut Random) -> f64 {
        let confidence = |exploration: f64| exploration * (ln(total.max(1.0)) / arm.pulls).sqrt();
        match self.rule {
            Rule::Ucb1 { exploration }
            | Rule::DiscountedUcb { exploration, .. }
            | Rule::SlidingUcb { exploration, .. } => arm.mean() + confidence(exploration),
            Rule::Thompson => {
                // One imagined reward at each end and one in the middle keep the variance of few rewards from being 0.
                let (pulls, sum, squares) = (arm.pulls + 3.0, arm.sum + 1.5, arm.squares + 1.25);
                let mean = sum / pulls;
                let variance = (squares / pulls - mean * mean).max(1e-9);
                mean + (variance / pulls).sqrt() * random.normal()
            }
            Rule::Random => 0.0,
        }
    }

    /// An arm was tried; the reward is clamped to 0..=1.
    pub fn reward(&mut self, arm: usize, reward: f64) {
        let reward = if reward.is_finite() { reward.clamp(0.0, 1.0) } else { 0.0 };
        if let Rule::DiscountedUcb { discount, .. } = self.rule {
            self.fade(discount);
        }
        let Some(known) = self.arms.get_mut(arm) else { return };
        known.add(reward, 1.0);
        if let Rule::SlidingUcb { horizon, .. } = self.rule
            && let Some((gone, reward)) = self.latest.push((arm as u8, reward as f32), horizon)
            && let Some(known) = self.arms.get_mut(usize::from(gone))
        {
            known.add(f64::from(reward), -1.0);
        }
    }

    /// Makes all that is known count less: the program has changed.
    pub fn fade(&mut self, factor: f64) {
        self.arms.iter_mut().for_each(|arm| arm.fade(factor));
        // What is left of a window's rewards cannot be taken out again, reward by reward.
        self.latest.count = 0;
    }
}

/// Below this an arm counts as untried.
const MIN_PULLS: f64 = 0.05;

impl Latest {
    /// Puts one in; the one that falls out of the horizon comes out.
    fn push(&mut self, entry: (u8, f32), horizon: usize) -> Option<(u8, f32)> {
        let horizon = horizon.clamp(1, MAX_HORIZON);
        let oldest = (self.next + MAX_HORIZON - horizon) % MAX_HORIZON;
        let gone = if self.count >= horizon { self.rewards.get(oldest).copied() } else { None };
        if let Some(place) = self.rewards.get_mut(self.next) {
            *place = entry;
        }
        self.next = (self.next + 1) % MAX_HORIZON;
        self.count = (self.count + 1).min(horizon);
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULES: [Rule; 5] = [
        Rule::Ucb1 { exploration: 1.5 },
        Rule::DiscountedUcb { exploration: 0.6, discount: 0.98 },
        Rule::SlidingUcb { exploration: 0.6, horizon: 100 },
        Rule::Thompson,
        Rule::Random,
    ];
    const MEANS: [f64; 5] = [0.3, 0.5, 0.45, 0.8, 0.2];

    /// Mean reward over the pulls in `range`, where `means` may change with time.
    fn play(rule: Rule, pulls: u32, counted_from: u32, means: impl Fn(u32) -> [f64; 5]) -> f64 {
        let mut random = Random::new(11);
        let mut bandit = Bandit::new(rule);
        let mut sum = 0.0;
        for pull in 0..pulls {
            let arm = bandit.choose(0b11111, |_| 0.0, &mut random).unwrap();
            let mean = means(pull)[arm];
            bandit.reward(arm, mean + 0.1 * random.normal());
            if pull >= counted_from {
                sum += mean;
            }
        }
        sum / f64::from(pulls - counted_from)
    }

    #[test]
    fn every_rule_but_chance_finds_the_best_of_five() {
        for rule in RULES {
            let mean = play(rule, 1500, 1000, |_| MEANS);
            if rule == Rule::Random {
                assert!(mean < 0.6, "{mean}");
            } else {
                assert!(mean > 0.65, "{rule:?}: {mean}");
            }
        }
    }

    #[test]
    fn rules_that_forget_follow_a_change_that_the_others_sleep_through() {
        let changing = |pull: u32| if pull < 5000 { MEANS } else { [0.3, 0.5, 0.45, 0.7, 1.0] };
        let after = |rule| play(rule, 5300, 5000, changing);
        let remembers = after(Rule::Ucb1 { exploration: 0.6 });
        let fades = after(Rule::DiscountedUcb { exploration: 0.6, discount: 0.98 });
        let slides = after(Rule::SlidingUcb { exploration: 0.6, horizon: 100 });
        assert!(fades > remembers + 0.05, "{fades} {remembers}");
        assert!(slides > remembers + 0.05, "{slides} {remembers}");
    }

    #[test]
    fn ucb1_pulls_a_worse_arm_about_as_often_as_its_bound_says() {
        // Auer et al.: at most 8 ln(n) / Δ² + 1 + π²/3 pulls with the constant √2.
        let mut random = Random::new(2);
        let mut bandit = Bandit::new(Rule::Ucb1 { exploration: core::f64::consts::SQRT_2 });
        for _ in 0..10_000 {
            let arm = bandit.choose(0b11, |_| 0.0, &mut random).unwrap();
            let p = [0.4, 0.8][arm];
            bandit.reward(arm, f64::from(u8::from(random.uniform() < p)));
        }
        let bound = 8.0 * 10_000_f64.ln() / 0.16 + 4.3;
        let pulls = bandit.arm(0).pulls;
        assert!(pulls > 10.0 && pulls < bound, "{pulls} {bound}");
    }

    #[test]
    fn the_sliding_window_holds_exactly_its_horizon() {
        let mut bandit = Bandit::new(Rule::SlidingUcb { exploration: 1.0, horizon: 7 });
        let reward = |pull: usize| (pull % 11) as f64 / 16.0;
        for pull in 0..1000_usize {
            bandit.reward(pull % 3, reward(pull));
            let held: f64 = (0..3).map(|arm| bandit.arm(arm).pulls).sum();
            assert_eq!(held, (pull + 1).min(7) as f64);
            let sum: f64 = (0..3).map(|arm| bandit.arm(arm).sum).sum();
            assert_eq!(sum, (pull.saturating_sub(6)..=pull).map(reward).sum::<f64>());
        }
    }

    #[test]
    fn a_reward_of_no_arm_changes_nothing() {
        for rule in RULES {
            let mut bandit = Bandit::new(rule);
            for _ in 0..2 * MAX_HORIZON {
                bandit.reward(MAX_ARMS, 1.0);
            }
            assert!((0..=MAX_ARMS).all(|arm| bandit.arm(arm) == Arm::default()), "{rule:?}");
        }
    }

    #[test]
    fn arms_that_were_never_tried_come_first_and_those_with_most_at_stake_before_the_others() {
        let stake = |arm: usize| [1.0, 3.0, 2.0, 9.0][arm];
        for rule in RULES.into_iter().filter(|rule| *rule != Rule::Random) {
            let (mut bandit, mut random) = (Bandit::new(rule), Random::new(4));
            for _ in 0..20 {
                bandit.reward(3, 1.0);
            }
            for expected in [1, 2, 0] {
                assert_eq!(bandit.choose(0b1111, stake, &mut random), Some(expected), "{rule:?}");
                bandit.reward(expected, 0.0);
            }
            // What has faded away is as good as never tried.
            for _ in 0..200 {
                bandit.reward(2, 1.0);
            }
            bandit.fade(0.01);
            assert_eq!(bandit.choose(0b0101, stake, &mut random), Some(0), "{rule:?}");
        }
    }

    #[test]
    fn thompson_draws_around_the_mean_and_wider_the_less_is_known() {
        let (mut bandit, mut random) = (Bandit::new(Rule::Thompson), Random::new(9));
        for reward in [0.2, 0.6].repeat(50) {
            bandit.reward(0, reward);
        }
        let mut draws = |bandit: &Bandit| {
            let draws: Vec<f64> = (0..4000).map(|_| bandit.index(&bandit.arm(0), 100.0, &mut random)).collect();
            let mean = draws.iter().sum::<f64>() / 4000.0;
            (mean, (draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / 4000.0).sqrt())
        };
        // Rewards spread by 0.2, and there are a hundred of them: their mean is known to 0.02.
        let (mean, error) = draws(&bandit);
        assert!((mean - 0.4).abs() < 0.005 && (0.018..0.023).contains(&error), "{mean} {error}");
        // A quarter of that knowledge is half as sharp.
        bandit.fade(0.25);
        let (mean, error) = draws(&bandit);
        assert!((mean - 0.4).abs() < 0.02 && (0.038..0.048).contains(&error), "{mean} {error}");
    }

    proptest! {
        #[test]
        fn a_choice_is_eligible_whatever_the_rewards(
            rewards in prop::collection::vec((0..MAX_ARMS + 3, prop::num::f64::ANY), 0..200),
            eligible in any::<u64>(),
            seed in any::<u64>(),
        ) {
            for rule in RULES {
                let mut bandit = Bandit::new(rule);
                let mut random = Random::new(seed);
                for &(arm, reward) in &rewards {
                    bandit.reward(arm, reward);
                }
                match bandit.choose(eligible, |_| 0.0, &mut random) {
                    Some(arm) => prop_assert!(arm < MAX_ARMS && eligible >> arm & 1 == 1),
                    None => prop_assert_eq!(eligible as u32, 0),
                }
            }
        }
    }
}
