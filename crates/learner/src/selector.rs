//! Which try comes next: one face for bandits and ratings, so that the choice between them is tested and not believed.

use crate::bandit::{Bandit, Rule};
use crate::elo::{Elo, EloOptions};
use crate::random::Random;

/// A method of choosing what to try.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Method {
    /// Ratings from games.
    Elo(EloOptions),
    /// A bandit's rule.
    Bandit(Rule),
}

impl Method {
    /// Ratings with the defaults.
    pub const ELO: Self = Self::Elo(EloOptions { k_factor: 32.0, epsilon: 0.15, temperature: 100.0 });
    /// UCB1 with the constant of the founding documents.
    pub const UCB1: Self = Self::Bandit(Rule::Ucb1 { exploration: 1.5 });
    /// UCB whose rewards fade.
    pub const DISCOUNTED_UCB: Self = Self::Bandit(Rule::DiscountedUcb { exploration: 0.6, discount: 0.98 });
    /// UCB over the latest rewards.
    pub const SLIDING_UCB: Self = Self::Bandit(Rule::SlidingUcb { exploration: 0.6, horizon: 100 });
    /// Draws from the posterior.
    pub const THOMPSON: Self = Self::Bandit(Rule::Thompson);
    /// Chance.
    pub const RANDOM: Self = Self::Bandit(Rule::Random);

    /// All that are compared, with their names.
    pub const ALL: [(&'static str, Self); 6] = [
        ("elo", Self::ELO),
        ("ucb1", Self::UCB1),
        ("discounted-ucb", Self::DISCOUNTED_UCB),
        ("sliding-ucb", Self::SLIDING_UCB),
        ("thompson", Self::THOMPSON),
        ("random", Self::RANDOM),
    ];
}

/// A method at work. A try is always against the policy that runs; its reward is 0.5 when it makes no difference.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there are few, and none must be allocated")]
pub enum Selector {
    /// Ratings; the policy that runs is a player who never moves.
    Elo(Elo),
    /// A bandit.
    Bandit(Bandit),
}

impl Selector {
    /// A method that knows nothing yet.
    #[must_use]
    pub const fn new(method: Method) -> Self {
        match method {
            Method::Elo(options) => Self::Elo(Elo::new(options)),
            Method::Bandit(rule) => Self::Bandit(Bandit::new(rule)),
        }
    }

    /// The next try of those whose bit is set; none of none. Of those that were never tried, the one with most at stake.
    pub fn choose(&self, eligible: u64, stake: impl Fn(usize) -> f64, random: &mut Random) -> Option<usize> {
        match self {
            Self::Elo(elo) => elo.draw(eligible, stake, random),
            Self::Bandit(bandit) => bandit.choose(eligible, stake, random),
        }
    }

    /// A try had this reward.
    pub fn reward(&mut self, arm: usize, reward: f64) {
        match self {
            Self::Elo(elo) => elo.game_against_the_house(arm, reward),
            Self::Bandit(bandit) => bandit.reward(arm, reward),
        }
    }

    /// Makes all that is known count less: the program has changed.
    pub fn fade(&mut self, factor: f64) {
        match self {
            Self::Elo(elo) => elo.fade(factor),
            Self::Bandit(bandit) => bandit.fade(factor),
        }
    }
}

/// The reward of a gain (a difference of logarithms of cost): 0.5 for none, 1 for a tenth or more, 0 for as great a loss.
#[must_use]
pub fn reward_of(gain: f64) -> f64 {
    (0.5 + gain / (2.0 * FULL_REWARD_GAIN)).clamp(0.0, 1.0)
}

const FULL_REWARD_GAIN: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_but_chance_tries_what_pays_more_often() {
        for (name, method) in Method::ALL {
            let mut random = Random::new(21);
            let mut selector = Selector::new(method);
            let mut tries = [0_u32; 4];
            for _ in 0..400 {
                let arm = selector.choose(0b1111, |_| 0.0, &mut random).unwrap();
                tries[arm] += 1;
                let gain = if arm == 2 { 0.08 } else { -0.05 };
                selector.reward(arm, reward_of(gain + 0.01 * random.normal()));
            }
            let share = f64::from(tries[2]) / 400.0;
            if name == "random" {
                assert!(share < 0.35, "{share}");
            } else {
                assert!(share > 0.4, "{name}: {share}");
            }
        }
    }

    #[test]
    fn rewards_are_centred_on_no_difference() {
        assert_eq!([reward_of(0.0), reward_of(0.1), reward_of(-3.0)], [0.5, 1.0, 0.0]);
    }
}
