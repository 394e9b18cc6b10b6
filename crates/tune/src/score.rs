//! What a run cost, as one number: 1 is what the defaults cost on the same machine, less is better.
//!
//! **Invariants.** A cost depends on ratios only, so a faster machine does not change it. What is accepted was better in a sign
//! test over pairs of runs that stood next to each other, so one lucky run does not suffice.

use std::str::FromStr;

use anyhow::{Context as _, Result, bail, ensure};

use crate::measure::Usage;

/// How much each part counts; the parts add up to 1.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Weights {
    wall: f64,
    cpu: f64,
    faults: f64,
    memory: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { wall: 0.0, cpu: 0.4, faults: 0.3, memory: 0.3 }
    }
}

impl FromStr for Weights {
    type Err = anyhow::Error;

    /// Reads `cpu=0.4,faults=0.3,memory=0.3`; what is not named counts nothing.
    fn from_str(text: &str) -> Result<Self> {
        let mut weights = Self { wall: 0.0, cpu: 0.0, faults: 0.0, memory: 0.0 };
        for part in text.split(',') {
            let (name, value) = part.split_once('=').context("weights look like cpu=0.4,faults=0.3,memory=0.3")?;
            let value: f64 = value.trim().parse().with_context(|| format!("`{value}` is not a number"))?;
            ensure!(value.is_finite() && value >= 0.0, "a weight is 0 or more, not {value}");
            match name.trim() {
                "wall" => weights.wall = value,
                "cpu" => weights.cpu = value,
                "faults" => weights.faults = value,
                "memory" => weights.memory = value,
                other => bail!("no weight `{other}`; there are wall, cpu, faults, memory"),
            }
        }
        let sum = weights.wall + weights.cpu + weights.faults + weights.memory;
        ensure!(sum > 0.0, "all weights are 0");
        for weight in [&mut weights.wall, &mut weights.cpu, &mut weights.faults, &mut weights.memory] {
            *weight /= sum;
        }
        Ok(weights)
    }
}

impl std::fmt::Display for Weights {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [("wall", self.wall), ("cpu", self.cpu), ("faults", self.faults), ("memory", self.memory)];
        let named: Vec<_> = parts.iter().filter(|(_, weight)| *weight > 0.0).collect();
        let texts: Vec<_> = named.iter().map(|(name, weight)| format!("{name}={weight:.2}")).collect();
        out.write_str(&texts.join(","))
    }
}

/// A run beside the defaults: each part as a ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratios {
    /// Wall-clock time.
    pub wall: f64,
    /// Processor time.
    pub cpu: f64,
    /// Page faults.
    pub faults: f64,
    /// Memory over time.
    pub memory: f64,
}

impl Ratios {
    /// The parts of `usage` in relation to those of `base`.
    pub fn of(usage: &Usage, base: &Usage) -> Self {
        // So small that it matters only where there is next to nothing to compare: a millisecond, a few pages.
        let ratio = |mine: f64, theirs: f64, floor: f64| (mine + floor) / (theirs + floor);
        Self {
            wall: ratio(usage.wall, base.wall, 0.001),
            cpu: ratio(usage.cpu, base.cpu, 0.001),
            faults: ratio(usage.faults, base.faults, 64.0),
            memory: ratio(usage.mean_rss, base.mean_rss, 65_536.0),
        }
    }

    /// The parts as one number.
    pub fn cost(&self, weights: &Weights) -> f64 {
        weights.wall * self.wall + weights.cpu * self.cpu + weights.faults * self.faults + weights.memory * self.memory
    }

    /// The part that is worse than `limit`, if one is. Wall-clock time counts only over many runs: others use the machine too.
    pub fn worse_than(&self, limit: f64, with_wall: bool) -> Option<(&'static str, f64)> {
        let wall = if with_wall { self.wall } else { 0.0 };
        let parts = [("wall-clock time", wall), ("processor time", self.cpu), ("memory", self.memory)];
        parts.into_iter().filter(|(_, ratio)| *ratio > limit).max_by(|left, right| left.1.total_cmp(&right.1))
    }
}

/// The middle one; 0 of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
    let lower = sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0.0);
    (lower + upper) / 2.0
}

/// The median of each part over several runs.
pub fn median_usage(runs: &[Usage]) -> Usage {
    let middle = |part: fn(&Usage) -> f64| median(runs.iter().map(part));
    Usage {
        wall: middle(|run| run.wall),
        cpu: middle(|run| run.cpu),
        faults: middle(|run| run.faults),
        peak_rss: middle(|run| run.peak_rss),
        mean_rss: middle(|run| run.mean_rss),
        curve: Vec::new(),
    }
}

/// How far values typically are from their median.
pub fn spread(values: &[f64]) -> f64 {
    let middle = median(values.iter().copied());
    median(values.iter().map(|value| (value - middle).abs()))
}

/// How likely a fair coin shows at least `wins` heads in `total` throws.
pub fn sign_test(wins: usize, total: usize) -> f64 {
    let mut ways = 1.0;
    let mut sum = 0.0;
    for heads in 0..=total {
        if heads >= wins {
            sum += ways;
        }
        ways = ways * (total - heads) as f64 / (heads + 1) as f64;
    }
    sum / 2_f64.powi(i32::try_from(total).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_cost_one() {
        let usage = Usage { wall: 2.0, cpu: 1.0, faults: 3.0, mean_rss: 4.0, ..Usage::default() };
        assert!((Ratios::of(&usage, &usage).cost(&Weights::default()) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn weights_are_read_and_add_up_to_one() {
        let weights: Weights = "cpu=2, memory=2".parse().unwrap();
        assert_eq!(weights, Weights { wall: 0.0, cpu: 0.5, faults: 0.0, memory: 0.5 });
        assert_eq!(weights.to_string(), "cpu=0.50,memory=0.50");
        assert_eq!("cpu=0.4,faults=0.3,memory=0.3".parse::<Weights>().unwrap(), Weights::default());
        for nonsense in ["", "cpu", "cpu=x", "cpu=-1", "cpu=0", "speed=1", "cpu=NaN"] {
            assert!(nonsense.parse::<Weights>().is_err(), "{nonsense}");
        }
    }

    #[test]
    fn half_the_memory_is_worth_its_weight() {
        let base = Usage { wall: 1.0, cpu: 1.0, faults: 1e6, mean_rss: 1e9, ..Usage::default() };
        let half = Usage { mean_rss: 5e8, ..base.clone() };
        let ratios = Ratios::of(&half, &base);
        assert!((ratios.cost(&Weights::default()) - 0.85).abs() < 1e-3);
        assert_eq!(ratios.worse_than(1.05, true), None);
        assert_eq!(Ratios::of(&base, &half).worse_than(1.05, true).unwrap().0, "memory");
    }

    #[test]
    fn a_coin_seldom_falls_the_same_way_eight_times() {
        assert!((sign_test(8, 8) - 1.0 / 256.0).abs() < 1e-12);
        assert!((sign_test(7, 8) - 9.0 / 256.0).abs() < 1e-12);
        assert!((sign_test(0, 5) - 1.0).abs() < 1e-12);
        assert!(sign_test(6, 8) > 0.05 && sign_test(7, 8) < 0.05);
    }

    #[test]
    fn medians_ignore_outliers() {
        assert_eq!(median([5.0, 1.0, 1000.0]), 5.0);
        assert_eq!(median([1.0, 2.0]), 1.5);
        assert_eq!(median([]), 0.0);
        assert_eq!(spread(&[1.0, 1.0, 1.5, 9.0, 1.0]), 0.0);
    }
}
