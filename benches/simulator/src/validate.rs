//! How far the model can be believed: the same traces under the same policies, in the model and with the real allocator.
//!
//! What a learner needs of a model is that it puts policies in the right order. So what is stated is Spearman's rank correlation over
//! policies, per trace: of page faults, of resident memory over time, and of the kernel's CPU time (the last one is noisy on a
//! machine that does other things).

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use hakmem_policy::FrozenPolicy;

use crate::model::{Costs, Machine};
use crate::trace::Trace;

/// Policies that pull at different mechanisms: a name, and the variables that the real allocator is told.
pub const POLICIES: &[(&str, &[(&str, &str)])] = &[
    ("defaults", &[]),
    ("purge at once", &[("HAKMEM_PURGE_DELAY_MS", "0")]),
    ("purge after 30 ms", &[("HAKMEM_PURGE_DELAY_MS", "30")]),
    ("purge after 3 s", &[("HAKMEM_PURGE_DELAY_MS", "3000")]),
    ("purge never", &[("HAKMEM_PURGE_DELAY_MS", "never")]),
    ("no huge pages", &[("HAKMEM_THP_HEAP_BYTES", "never"), ("HAKMEM_BIG_THP_BYTES", "never")]),
    ("huge pages at once", &[("HAKMEM_THP_HEAP_BYTES", "0")]),
    ("big blocks kept for 1 s", &[("HAKMEM_BIG_RETAIN_MS", "1000")]),
    ("16 warm superslabs", &[("HAKMEM_WARM_SUPERSLABS", "16")]),
    ("no runs cached", &[("HAKMEM_RUN_CACHE_RUNS", "0")]),
];

/// One trace under one policy.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pair {
    /// Page faults, in the model and measured.
    pub faults: [f64; 2],
    /// Resident MiB beyond those at the beginning, averaged over time.
    pub memory: [f64; 2],
    /// The kernel's CPU time in milliseconds.
    pub system: [f64; 2],
}

/// Runs a trace under one policy in the model, and in a process of its own (`simulator execute`) with the real allocator.
///
/// # Errors
/// If the process fails, or says something else.
pub fn compare(program: &Path, name: &str, trace: &Trace, variables: &[(&str, &str)], speed: u32) -> Result<Pair> {
    let mut child = Command::new(program);
    // The model is told of no others.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"HAKMEM_")) {
        child.env_remove(name);
    }
    child.args(["execute", "--csv", "--speed", &speed.to_string(), name]).envs(variables.iter().copied());
    let output = child.output().context("simulator execute")?;
    ensure!(output.status.success(), "simulator execute {name}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let numbers =
        text.trim().split(',').map(str::parse).collect::<Result<Vec<f64>, _>>().with_context(|| text.clone())?;
    let [faults, memory, system] = numbers.as_slice() else { anyhow::bail!("simulator execute said {text}") };
    let pairs = variables.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let policy: FrozenPolicy = hakmem_policy::parse_environment(pairs, &mut |_| {}).policy;
    let mut machine = Machine::new(trace, &policy, &Costs::MEASURED);
    let own_bytes = machine.levels().resident_bytes as f64;
    trace.events().iter().for_each(|event| machine.step(event));
    let totals = machine.totals();
    Ok(Pair {
        faults: [totals.faults() as f64, *faults],
        memory: [(totals.mean_resident_bytes() - own_bytes) / f64::from(1 << 20), *memory],
        system: [totals.system_ns / 1e6, *system],
    })
}

/// Spearman's rank correlation of pairs: Pearson's of their ranks, ties sharing theirs. 0 where one side is all the same.
#[must_use]
pub fn rank_correlation(pairs: &[[f64; 2]]) -> f64 {
    let ranks = [0, 1].map(|side| ranks(&pairs.iter().filter_map(|pair| pair.get(side).copied()).collect::<Vec<_>>()));
    let [one, other] = &ranks;
    let mean = (pairs.len() as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum() };
    let spread = (product(one, one) * product(other, other)).sqrt();
    if spread == 0.0 { 0.0 } else { product(one, other) / spread }
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let below = |value: f64| values.iter().filter(|other| **other < value).count() as f64;
    let equal = |value: f64| values.iter().filter(|other| **other == value).count() as f64;
    values.iter().map(|value| below(*value) + (equal(*value) - 1.0) / 2.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_agree_disagree_or_say_nothing() {
        let of = |other: [f64; 4]| rank_correlation(&std::array::from_fn::<_, 4, _>(|at| [at as f64, other[at]]));
        assert!((of([10.0, 20.0, 25.0, 90.0]) - 1.0).abs() < 1e-12);
        assert!((of([4.0, 3.0, 2.0, 1.0]) + 1.0).abs() < 1e-12);
        assert_eq!(of([5.0; 4]), 0.0);
        assert!(of([1.0, 2.0, 2.0, 3.0]) > 0.9);
    }

    #[test]
    fn the_policies_are_what_the_registry_accepts() {
        for (name, variables) in POLICIES {
            let mut complaints = 0;
            let pairs = variables.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            let policy = hakmem_policy::parse_environment(pairs, &mut |_| complaints += 1).policy;
            assert_eq!((complaints, policy == FrozenPolicy::DEFAULT), (0, variables.is_empty()), "{name}");
        }
    }
}
