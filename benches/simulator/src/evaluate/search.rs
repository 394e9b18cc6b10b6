//! The best policies that never change: for a trace as a whole, and for each of its phases.
//!
//! A descent over single knobs, for all goals at once: each round tries every neighbour of the policies that are best for
//! something, and ends when nothing is better for anything. Each policy is replayed once, and judged by all goals.

use hakmem_learner::Knob;
use hakmem_policy::FrozenPolicy;
use rayon::prelude::*;

use super::runs::{Subject, settled};
use super::{Cost, Scale};
use crate::model::Costs;

/// Policies tried at most, where the trace is long, and where it is short; between them, as many as replay so many events.
const TRIES: std::ops::RangeInclusive<usize> = 120..=600;
const REPLAYED_EVENTS: usize = 120_000_000;
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
    /// Policies tried.
    pub tried: usize,
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
    let scale = Scale::new(&defaults, hakmem_learner::Weights::default());
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
    let phases: Vec<Vec<Cost>> = known.into_iter().map(|(_, phases)| phases).collect();
    Best { oracle: scale.oracle(&phases), scale, policy, score, tried }
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
