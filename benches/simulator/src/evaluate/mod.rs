//! What learning is worth: the same trace under the defaults, under the best policy that never changes, under an oracle that knows
//! the phases, and under learners.
//!
//! **The score.** CPU time, page faults and resident memory over time, each divided by what the defaults cost on the same trace, and
//! weighted as [`hakmem_learner::Weights`] says: 1 is the defaults, lower is better. It is a sum over phases, so the oracle is the sum of the
//! best phases that any policy had: it changes policy at no cost and at once, which nobody can. Regret is what a learner costs
//! beyond it.
//! **Rounds.** A trace is replayed many times in a row, as a load that comes back. Learners are judged by their last ones, when they have had
//! the time to converge, and by all of them for the curve; policies that never change by the same ones, because where blocks come to
//! lie goes on changing: what keeps memory for long may hold a third more after a dozen rounds. A search for such
//! policies goes by their second round.

mod account;
mod report;
mod runs;
mod search;

pub use account::{Said, account};
pub use report::{DEFAULT_VARIANT, Judged, NOTHING, Report, Row, Variant, variants};
pub use runs::{Learned, Step, Subject, learned, settled};
pub use search::{Best, BestOfPhase, KnownMarks, Marks, search};

use hakmem_learner::Weights;

use crate::model::Totals;

/// Rounds at the end that are judged: one in so many.
const JUDGED_SHARE: usize = 4;

/// The rounds that are judged.
fn last_rounds<T>(rounds: &[T]) -> &[T] {
    let judged = (rounds.len() / JUDGED_SHARE).max(1);
    rounds.get(rounds.len().saturating_sub(judged)..).unwrap_or(rounds)
}

/// Added to what is resident: below this, libraries and stacks are. As in the learners' score (bytes).
const MEMORY_FLOOR_BYTES: f64 = (1 << 20) as f64;
/// Faults whose time is less than this part of the CPU time do not count, at this price (ns). As in the learners' score.
const FAULT_FLOOR: f64 = 0.01;
const FAULT_NS: f64 = 1000.0;

/// What a phase or a round cost.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Cost {
    /// CPU time.
    pub cpu_ns: f64,
    /// Page faults.
    pub faults: f64,
    /// Memory over time.
    pub byte_ns: f64,
}

impl Cost {
    fn of(totals: &Totals) -> Self {
        Self {
            cpu_ns: totals.cpu_ns,
            faults: totals.faults() as f64,
            byte_ns: totals.resident_byte_ns + MEMORY_FLOOR_BYTES * totals.elapsed_ns as f64,
        }
    }

    /// The sum of some.
    pub fn sum<'c>(costs: impl IntoIterator<Item = &'c Self>) -> Self {
        costs.into_iter().fold(Self::default(), |sum, cost| Self {
            cpu_ns: sum.cpu_ns + cost.cpu_ns,
            faults: sum.faults + cost.faults,
            byte_ns: sum.byte_ns + cost.byte_ns,
        })
    }
}

/// What the defaults cost in a round: the measure of all others.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    defaults: Cost,
    weights: Weights,
}

impl Scale {
    /// By the phases of a round under the defaults.
    #[must_use]
    pub fn new(defaults: &[Cost], weights: Weights) -> Self {
        Self { defaults: Cost::sum(defaults), weights }
    }

    /// A round's score.
    #[must_use]
    pub fn score(&self, phases: &[Cost]) -> f64 {
        self.constant() + phases.iter().map(|phase| self.share(phase)).sum::<f64>()
    }

    /// A phase's share of a score.
    #[must_use]
    pub fn share(&self, phase: &Cost) -> f64 {
        let Weights { cpu, faults, memory } = self.weights;
        cpu * phase.cpu_ns / self.defaults.cpu_ns
            + faults * phase.faults / (self.defaults.faults + self.fault_floor())
            + memory * phase.byte_ns / self.defaults.byte_ns
    }

    /// CPU time, faults and memory of a round, each in relation to the defaults.
    #[must_use]
    pub fn ratios(&self, phases: &[Cost]) -> [f64; 3] {
        let sum = Cost::sum(phases);
        let floor = self.fault_floor();
        [
            sum.cpu_ns / self.defaults.cpu_ns,
            (sum.faults + floor) / (self.defaults.faults + floor),
            sum.byte_ns / self.defaults.byte_ns,
        ]
    }

    /// What belongs to no phase.
    fn constant(&self) -> f64 {
        self.weights.faults * self.fault_floor() / (self.defaults.faults + self.fault_floor())
    }

    fn fault_floor(&self) -> f64 {
        FAULT_FLOOR * self.defaults.cpu_ns / FAULT_NS
    }

    /// The score of an oracle that has, in each phase, the best of these policies.
    #[must_use]
    pub fn oracle(&self, policies: &[Vec<Cost>]) -> f64 {
        let phases = policies.iter().map(Vec::len).min().unwrap_or(0);
        let best = |phase: usize| {
            let shares = policies.iter().filter_map(|costs| costs.get(phase)).map(|cost| self.share(cost));
            shares.fold(f64::INFINITY, f64::min)
        };
        self.constant() + (0..phases).map(best).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_score_one_and_an_oracle_is_never_worse_than_the_best_policy() {
        let cost = |cpu_ns, faults, byte_ns| Cost { cpu_ns, faults, byte_ns };
        let defaults = vec![cost(1e9, 500.0, 1e18), cost(2e9, 100.0, 3e18)];
        let other = vec![cost(0.5e9, 900.0, 1e18), cost(3e9, 50.0, 2e18)];
        let scale = Scale::new(&defaults, Weights::default());
        assert!((scale.score(&defaults) - 1.0).abs() < 1e-12);
        let oracle = scale.oracle(&[defaults.clone(), other.clone()]);
        assert!(oracle <= scale.score(&defaults).min(scale.score(&other)));
    }
}
