//! Single steps: one knob, one neighbour of its present value.
//!
//! A policy is learned by steps that each had to win a trial. A selector says which step looks most promising; a step that won is
//! tried once more in the same direction at once, one that did not is not tried again until the program changes. When no step is
//! left the policy is better than all its neighbours, as far as anybody can tell: it has converged.

use crate::knob::{Direction, KNOBS, Knob};
use crate::options::Options;
use crate::random::Random;
use crate::selector::{Selector, reward_of};
use hakmem_policy::FrozenPolicy;

/// A knob and a direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Move {
    /// The knob.
    pub knob: Knob,
    /// Where to.
    pub direction: Direction,
}

const MOVES: usize = 2 * KNOBS;
const _: () = assert!(MOVES <= crate::bandit::MAX_ARMS, "one arm for each step");

impl Move {
    const fn arm(self) -> usize {
        2 * self.knob.index() + self.direction as usize
    }

    const fn opposite(self) -> Self {
        let direction = match self.direction {
            Direction::Down => Direction::Up,
            Direction::Up => Direction::Down,
        };
        Self { direction, ..self }
    }

    fn all() -> impl Iterator<Item = Self> {
        Knob::ALL
            .into_iter()
            .flat_map(|knob| [Direction::Down, Direction::Up].map(|direction| Self { knob, direction }))
    }

    /// The policy one step from `policy`, if there is a valid one.
    #[must_use]
    pub fn applied_to(self, policy: &FrozenPolicy, options: &Options) -> Option<FrozenPolicy> {
        let value = self.knob.neighbour(policy, self.direction, options.bounds_of(self.knob))?;
        let mut moved = policy.clone();
        self.knob.set(&mut moved, value);
        moved.validate().is_ok().then_some(moved)
    }
}

/// Which steps were tried, and which looks best.
#[derive(Clone, Debug)]
pub struct Moves {
    selector: Selector,
    tried: u64,
    /// The step that has just won: what was good once is likely to be good twice.
    again: Option<Move>,
}

/// What is left of what was known, when the program has changed.
const KEPT: f64 = 0.3;

impl Moves {
    /// No step was tried.
    #[must_use]
    pub const fn new(options: &Options) -> Self {
        Self { selector: Selector::new(options.method), tried: 0, again: None }
    }

    /// The next step from a policy, with its result; none when all were tried that could gain enough. `stake` says how much.
    pub fn next(
        &self,
        policy: &FrozenPolicy,
        options: &Options,
        stake: impl Fn(Move) -> f64,
        random: &mut Random,
    ) -> Option<(Move, FrozenPolicy)> {
        let is_open = |step: &Move| {
            self.tried >> step.arm() & 1 == 0
                && options.learns(step.knob)
                && stake(*step) >= options.limits.min_gain
                && step.applied_to(policy, options).is_some()
        };
        let open = Move::all().filter(|step| is_open(step)).fold(0, |set, step| set | 1_u64 << step.arm());
        if let Some(step) = self.again.filter(is_open) {
            return Some((step, step.applied_to(policy, options)?));
        }
        let arm = self.selector.choose(open, |arm| Self::step(arm).map_or(0.0, &stake), random)?;
        let step = Self::step(arm)?;
        Some((step, step.applied_to(policy, options)?))
    }

    fn step(arm: usize) -> Option<Move> {
        Move::all().nth(arm)
    }

    /// A step's trial has ended with this gain.
    pub fn ended(&mut self, step: Move, gain: f64, was_accepted: bool) {
        self.selector.reward(step.arm(), reward_of(gain));
        // Going on in the same direction stays open; going back does not.
        let done = if was_accepted { step.opposite() } else { step };
        self.tried |= 1 << done.arm();
        self.again = was_accepted.then_some(step);
    }

    /// The program has changed: every step may be worth a try again.
    pub fn reopen(&mut self) {
        (self.tried, self.again) = (0, None);
        self.selector.fade(KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_tried(moves: &Moves, options: &Options) -> bool {
        moves.next(&FrozenPolicy::DEFAULT, options, |_| 1.0, &mut Random::new(1)).is_none()
    }

    #[test]
    fn each_step_is_offered_once_and_again_after_a_change() {
        let options = Options::default();
        let mut moves = Moves::new(&options);
        let mut random = Random::new(1);
        let mut seen = Vec::new();
        while let Some((step, policy)) = moves.next(&FrozenPolicy::DEFAULT, &options, |_| 1.0, &mut random) {
            assert_eq!(policy.validate(), Ok(()));
            assert_ne!(policy, FrozenPolicy::DEFAULT);
            assert!(!seen.contains(&step), "{step:?} twice");
            seen.push(step);
            moves.ended(step, 0.0, false);
        }
        // Two for each knob with a list, less those at the end of theirs: big blocks are not retained at all.
        assert_eq!(seen.len(), 2 * 10 - 1);
        moves.reopen();
        assert!(!all_tried(&moves, &options));
    }

    #[test]
    fn a_step_that_won_is_offered_again_and_the_way_back_is_not() {
        let options = Options { purge: true, ..Options::none() };
        let mut moves = Moves::new(&options);
        let mut policy = FrozenPolicy::DEFAULT;
        let step = Move { knob: Knob::PurgeDelay, direction: Direction::Down };
        policy = step.applied_to(&policy, &options).unwrap();
        moves.ended(step, 0.1, true);
        let (next, _) = moves.next(&policy, &options, |_| 1.0, &mut Random::new(1)).unwrap();
        assert_eq!(next, step);
        moves.ended(next, -0.1, false);
        assert!(moves.next(&policy, &options, |_| 1.0, &mut Random::new(1)).is_none());
    }

    #[test]
    fn knobs_that_are_off_or_have_nothing_at_stake_are_left_alone() {
        let moves = Moves::new(&Options::none());
        assert!(all_tried(&moves, &Options::none()));
        let moves = Moves::new(&Options::default());
        let only = moves.next(
            &FrozenPolicy::DEFAULT,
            &Options::default(),
            |step| f64::from(u8::from(step.knob == Knob::Warm)),
            &mut Random::new(3),
        );
        assert_eq!(only.unwrap().0.knob, Knob::Warm);
    }
}
