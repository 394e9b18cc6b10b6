//! Ratings from games between pairs.
//!
//! Elo, "The Rating of Chessplayers" (1978): each player has a number, 1500 at first; the difference of two says who should win
//! how often, and after a game both move towards what happened. A player's wins count by whom it has beaten, so not every pair
//! has to play. The pairs of the founding documents are epsilon-greedy: mostly the leader against one drawn by softmax of the
//! ratings, now and then two at random.

use crate::bandit::MAX_ARMS;
use crate::math::exp;
use crate::random::{Random, members};
use core::f64::consts::LN_10;

/// Where everyone starts.
pub(crate) const START: f64 = 1500.0;
/// Difference of ratings at which the stronger wins ten games for each one it loses.
const TEN_TO_ONE: f64 = 400.0;

/// How ratings move and pairs are made.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct EloOptions {
    /// Most points that a game moves.
    pub k_factor: f64,
    /// How often a pair is made by chance alone.
    pub epsilon: f64,
    /// Points that make a player e times as likely to be drawn.
    pub temperature: f64,
}

impl Default for EloOptions {
    fn default() -> Self {
        Self { k_factor: 32.0, epsilon: 0.15, temperature: 100.0 }
    }
}

/// A rating and what it stands on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rating {
    /// The number.
    pub points: f64,
    /// Games played.
    pub games: u32,
}

impl Rating {
    /// Of a player who has not played.
    pub const NEW: Self = Self { points: START, games: 0 };
}

/// Ratings of up to [`MAX_ARMS`] players.
#[derive(Clone, Debug)]
pub struct Elo {
    options: EloOptions,
    ratings: [Rating; MAX_ARMS],
}

impl Elo {
    /// Everyone at the start.
    #[must_use]
    pub const fn new(options: EloOptions) -> Self {
        Self { options, ratings: [Rating::NEW; MAX_ARMS] }
    }

    /// A player's rating.
    #[must_use]
    pub fn rating(&self, player: usize) -> Rating {
        self.ratings.get(player).copied().unwrap_or(Rating::NEW)
    }

    /// A newcomer takes a player's place with these points.
    pub fn replace(&mut self, player: usize, points: f64) {
        if let Some(rating) = self.ratings.get_mut(player) {
            *rating = Rating { points, games: 0 };
        }
    }

    /// The best of the set.
    #[must_use]
    pub fn leader(&self, players: u64) -> Option<usize> {
        members(players)
            .take_while(|player| *player < MAX_ARMS)
            .reduce(|best, player| if self.rating(player).points > self.rating(best).points { player } else { best })
    }

    /// Who should play next: two different ones of the set.
    pub fn pair(&self, players: u64, stake: impl Fn(usize) -> f64, random: &mut Random) -> Option<(usize, usize)> {
        let first =
            if random.uniform() < self.options.epsilon { random.member(players) } else { self.leader(players) }?;
        let others = players & !(1_u64 << first);
        let second = if random.uniform() < self.options.epsilon {
            random.member(others)
        } else {
            self.draw(others, stake, random)
        }?;
        Some((first, second))
    }

    /// One of the set, by softmax of the ratings; while there are some who have not played, that one of them with most at stake.
    pub fn draw(&self, players: u64, stake: impl Fn(usize) -> f64, random: &mut Random) -> Option<usize> {
        let fresh =
            members(players).filter(|player| self.rating(*player).games == 0).fold(0, |set, player| set | 1 << player);
        if fresh != 0 {
            return random.worthiest(fresh, stake);
        }
        let most = self.rating(self.leader(players)?).points;
        let weight = |player: usize| exp((self.rating(player).points - most) / self.options.temperature);
        let mut left = random.uniform() * members(players).map(weight).sum::<f64>();
        let drawn = members(players).find(|player| {
            left -= weight(*player);
            left < 0.0
        });
        // Rounding may leave a little.
        drawn.or_else(|| self.leader(players))
    }

    /// How often the first should win, from 0 to 1.
    #[must_use]
    pub fn expected(&self, first: usize, second: usize) -> f64 {
        expected(self.rating(first).points, self.rating(second).points)
    }

    /// A game was played; `outcome` is 1 when the first won, 0 when the second did, and a half for a draw.
    pub fn game(&mut self, first: usize, second: usize, outcome: f64) {
        if first == second {
            return;
        }
        let moved = self.options.k_factor * (outcome.clamp(0.0, 1.0) - self.expected(first, second));
        for (player, points) in [(first, moved), (second, -moved)] {
            if let Some(rating) = self.ratings.get_mut(player) {
                rating.points += points;
                rating.games = rating.games.saturating_add(1);
            }
        }
    }

    /// A game against somebody who always stands at 1500: the policy that runs.
    pub fn game_against_the_house(&mut self, player: usize, outcome: f64) {
        if let Some(rating) = self.ratings.get_mut(player) {
            rating.points += self.options.k_factor * (outcome.clamp(0.0, 1.0) - expected(rating.points, START));
            rating.games = rating.games.saturating_add(1);
        }
    }

    /// Draws all ratings towards the start: the program has changed. 1 keeps them, 0 forgets them.
    pub fn fade(&mut self, factor: f64) {
        for rating in &mut self.ratings {
            rating.points = START + factor * (rating.points - START);
        }
    }
}

fn expected(first: f64, second: f64) -> f64 {
    1.0 / (1.0 + exp(LN_10 * (second - first) / TEN_TO_ONE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn expectations_are_those_of_the_published_table() {
        assert_eq!(expected(1500.0, 1500.0), 0.5);
        assert!((expected(1700.0, 1500.0) - 0.76).abs() < 0.005);
        assert!((expected(1900.0, 1500.0) - 10.0 / 11.0).abs() < 1e-12);
    }

    #[test]
    fn a_win_between_equals_moves_half_the_k_factor() {
        let mut elo = Elo::new(EloOptions::default());
        elo.game(0, 1, 1.0);
        assert_eq!((elo.rating(0).points, elo.rating(1).points), (1516.0, 1484.0));
    }

    #[test]
    fn a_game_against_the_house_is_one_against_1500() {
        let mut elo = Elo::new(EloOptions::default());
        elo.game_against_the_house(0, 1.0);
        assert_eq!(elo.rating(0), Rating { points: 1516.0, games: 1 });
        elo.replace(1, 1900.0);
        elo.game_against_the_house(1, 1.0);
        elo.game_against_the_house(1, 0.5);
        let expected = 1900.0 + 32.0 / 11.0;
        let drawn = expected + 32.0 * (0.5 - super::expected(expected, START));
        assert!((elo.rating(1).points - drawn).abs() < 1e-9 && drawn < 1900.0, "{:?}", elo.rating(1));
    }

    #[test]
    fn ratings_fade_towards_the_start_and_a_newcomer_has_not_played() {
        let mut elo = Elo::new(EloOptions::default());
        elo.game(0, 1, 1.0);
        elo.fade(1.0);
        assert_eq!((elo.rating(0).points, elo.rating(1).points), (1516.0, 1484.0));
        elo.fade(0.25);
        assert_eq!((elo.rating(0).points, elo.rating(1).points), (1504.0, 1496.0));
        elo.fade(0.0);
        assert_eq!((elo.rating(0).points, elo.rating(1).points), (START, START));
        elo.replace(0, 1512.0);
        assert_eq!(elo.rating(0), Rating { points: 1512.0, games: 0 });
    }

    /// Players who have played, with these points.
    fn rated(points: &[f64]) -> Elo {
        let mut elo = Elo::new(EloOptions::default());
        elo.ratings.iter_mut().zip(points).for_each(|(rating, points)| *rating = Rating { points: *points, games: 1 });
        elo
    }

    #[test]
    fn whoever_has_not_played_is_drawn_first_by_what_is_at_stake() {
        let mut elo = rated(&[1500.0, 1600.0, 1700.0, 1800.0]);
        elo.replace(0, 1500.0);
        elo.replace(2, 1500.0);
        let drawn = |stake: [f64; 4]| elo.draw(0b1111, |player| stake[player], &mut Random::new(7));
        assert_eq!(drawn([2.0, 9.0, 1.0, 9.0]), Some(0));
        assert_eq!(drawn([1.0, 9.0, 2.0, 9.0]), Some(2));
    }

    #[test]
    fn a_hundred_points_more_are_drawn_e_times_as_often() {
        let (elo, mut random) = (rated(&[1500.0, 1600.0, 9000.0, 1400.0]), Random::new(3));
        let mut drawn = [0_u32; 4];
        for _ in 0..10_000 {
            drawn[elo.draw(0b1011, |_| 0.0, &mut random).unwrap()] += 1;
        }
        let total = 1.0 + (-1.0_f64).exp() + (-2.0_f64).exp();
        for (player, weight) in [(1, 1.0), (0, (-1.0_f64).exp()), (3, (-2.0_f64).exp())] {
            assert!((f64::from(drawn[player]) - 10_000.0 * weight / total).abs() < 200.0, "{drawn:?}");
        }
        assert_eq!(drawn[2], 0, "not of the set");
    }

    #[test]
    fn a_pair_is_mostly_the_leader_and_a_strong_one_and_now_and_then_chance() {
        let (elo, mut random) = (rated(&[1500.0, 1500.0, 1600.0, 500.0]), Random::new(5));
        let (mut led, mut weak) = (0, 0);
        for _ in 0..10_000 {
            let (first, second) = elo.pair(0b1111, |_| 0.0, &mut random).unwrap();
            led += u32::from(first == 2);
            weak += u32::from(first == 2 && second == 3);
        }
        // 85 % and a quarter of the rest; of these, a third of 15 %.
        assert!((8600..9000).contains(&led), "{led}");
        assert!((350..530).contains(&weak), "{weak}");
    }

    #[test]
    fn the_strongest_of_eight_leads_after_a_hundred_games() {
        let strength = [0.0, 0.2, -0.3, 0.1, 0.9, -0.1, 0.3, 0.0];
        let mut led = 0;
        for seed in 0..20 {
            let mut random = Random::new(seed);
            let mut elo = Elo::new(EloOptions::default());
            for _ in 0..100 {
                let (a, b) = elo.pair(0xff, |_| 0.0, &mut random).unwrap();
                let a_wins = strength[a] + 0.3 * random.normal() > strength[b] + 0.3 * random.normal();
                elo.game(a, b, f64::from(u8::from(a_wins)));
            }
            led += u32::from(elo.leader(0xff) == Some(4));
        }
        assert!(led >= 18, "{led}");
    }

    proptest! {
        #[test]
        fn games_between_players_keep_the_sum_of_points(games in prop::collection::vec((0..8_usize, 0..8_usize, 0.0..=1.0_f64), 0..200)) {
            let mut elo = Elo::new(EloOptions::default());
            for (a, b, outcome) in games {
                elo.game(a, b, outcome);
            }
            let sum: f64 = (0..8).map(|player| elo.rating(player).points).sum();
            prop_assert!((sum - 8.0 * START).abs() < 1e-6);
        }

        #[test]
        fn a_pair_is_two_of_the_set(players in any::<u32>(), seed in any::<u64>()) {
            let players = u64::from(players);
            let pair = Elo::new(EloOptions::default()).pair(players, |_| 0.0, &mut Random::new(seed));
            prop_assert_eq!(pair.is_some(), players.count_ones() >= 2);
            if let Some((a, b)) = pair {
                prop_assert!(a != b && players >> a & 1 == 1 && players >> b & 1 == 1);
            }
        }
    }
}
