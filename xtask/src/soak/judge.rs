//! Whether the memory held beyond the blocks in use grows with time.
//!
//! At the end of each cycle the program frees all but its long-lived blocks, collects, and takes a sample: the *floor*. What
//! is resident there and in no block is what the allocator keeps for good: fragments around long-lived blocks, its own
//! records, and whatever leaks. The slope of the floors over the second half of a run, when the first fragments have formed,
//! is judged. Theil and Sen's estimate, the median of the slopes of all pairs, is not moved by a few odd floors.

use anyhow::{Context, Result, ensure};

use super::samples::Samples;
use crate::bench::median;
use crate::table;

/// Growth over the second half of a run at which it fails. Noise of the floors is a few MiB, whatever the length of the run, so
/// a longer run sees a slower leak: one byte in 16 MiB per half.
const GROWTH_BOUND_BYTES: f64 = 16.0 * 1024.0 * 1024.0;
/// How that finding begins.
pub const GREW: &str = "memory beyond the blocks in use grew";
/// Fewest floors in the second half.
const LEAST_FLOORS: usize = 3;
/// Statistics that must be 0: a lost notification, an advice outside hakmem's own memory.
const NEVER: [&str; 2] = ["missed_notifications", "outside_range"];

/// What the floors say.
#[derive(Debug)]
pub struct Drift {
    /// Bytes per second, over the second half.
    pub slope: f64,
    /// Time and height of the floors of the second half.
    pub floors: Vec<(f64, f64)>,
    /// Median of those heights.
    pub level: f64,
    /// The same slope of all samples of the second half, for information: phases of a cycle move it.
    pub slope_of_all: f64,
}

impl Drift {
    /// Judges the second half of the samples.
    pub fn of(samples: &Samples) -> Result<Self> {
        let columns = "no column rss_bytes or soak_live_bytes";
        let floors = second_half(samples.overhead(Some("floor")).context(columns)?);
        let all = second_half(samples.overhead(None).context(columns)?);
        ensure!(floors.len() >= LEAST_FLOORS, "{} cycles in the second half are too few", floors.len());
        let level = median(floors.iter().map(|floor| floor.1)).unwrap_or(0.0);
        Ok(Self { slope: slope(&floors), level, slope_of_all: slope(&thinned(all, 600)), floors })
    }

    /// Time between the first and the last floor.
    fn seconds(&self) -> f64 {
        match (self.floors.first(), self.floors.last()) {
            (Some(first), Some(last)) => last.0 - first.0,
            _ => 0.0,
        }
    }

    /// Bytes by which the floor rose.
    pub fn growth(&self) -> f64 {
        self.slope * self.seconds()
    }

    /// What is wrong, if anything.
    pub fn problem(&self) -> Option<String> {
        let bound = table::bytes(GROWTH_BOUND_BYTES as u64);
        (self.growth() > GROWTH_BOUND_BYTES).then(|| format!("{GREW}: {} (bound {bound})", self.describe()))
    }

    /// In one line.
    pub fn describe(&self) -> String {
        let kib = |bytes: f64| bytes / 1024.0;
        format!(
            "floor {} over {:.0} s, slope {:+.1} KiB/min, growth {:+.0} KiB ({} cycles; slope of all samples {:+.1} KiB/min)",
            table::bytes(self.level.max(0.0) as u64),
            self.seconds(),
            kib(self.slope) * 60.0,
            kib(self.growth()),
            self.floors.len(),
            kib(self.slope_of_all) * 60.0,
        )
    }
}

/// Statistics that must not have counted and did. What the preload library's API does not tell is not judged there.
pub fn never_counted(samples: &Samples) -> Vec<String> {
    let counted = |name: &&&str| samples.last(name).is_some_and(|value| value != 0.0);
    NEVER.iter().filter(counted).map(|name| format!("{name} is not 0")).collect()
}

fn second_half(mut series: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let middle = series.last().map_or(0.0, |last| last.0 / 2.0);
    series.retain(|&(time, _)| time >= middle);
    series
}

/// Every n-th, so that at most about `most` are left.
fn thinned(series: Vec<(f64, f64)>, most: usize) -> Vec<(f64, f64)> {
    let step = series.len().div_ceil(most).max(1);
    series.into_iter().step_by(step).collect()
}

/// Median slope of all pairs.
fn slope(series: &[(f64, f64)]) -> f64 {
    let pairs = series.iter().enumerate().flat_map(|(index, first)| {
        series.iter().skip(index + 1).map(move |second| (second.1 - first.1) / (second.0 - first.0))
    });
    median(pairs.filter(|slope| slope.is_finite())).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = 1024.0 * 1024.0;

    /// A run of `cycles` cycles of 10 s whose floor is `floor(cycle)`, with busy samples far above it.
    fn run(cycles: u32, floor: impl Fn(f64) -> f64) -> Samples {
        let mut text = "seconds,phase,mark,rss_bytes,soak_live_bytes,missed_notifications\n".to_owned();
        for cycle in 0..cycles {
            let held = floor(f64::from(cycle));
            let (busy, end) = (cycle * 10 + 5, cycle * 10 + 10);
            let busy_held = held + f64::from(cycle % 7) * 50.0 * MIB;
            text += &format!("{busy},grow,,{busy_held},0,0\n{end},floor,floor,{},{},0\n", held + 5.0 * MIB, 5.0 * MIB);
        }
        Samples::parse(&text).unwrap()
    }

    #[test]
    fn a_leak_is_found_and_a_level_floor_is_none() {
        let noise = |cycle: f64| (cycle * 7.0).rem_euclid(5.0) * MIB;
        let level = Drift::of(&run(60, |cycle| 30.0 * MIB + noise(cycle))).unwrap();
        assert!(level.problem().is_none(), "{level:?}");
        let leak = Drift::of(&run(60, |cycle| 30.0 * MIB + noise(cycle) + cycle * MIB)).unwrap();
        assert!(leak.problem().is_some(), "{leak:?}");
        assert!((leak.growth() - 29.0 * MIB).abs() < 3.0 * MIB, "{leak:?}");
    }

    #[test]
    fn what_the_first_half_grew_and_a_few_odd_floors_do_not_count() {
        let settled = Drift::of(&run(60, |cycle| cycle.min(20.0) * 10.0 * MIB)).unwrap();
        assert!(settled.problem().is_none(), "{settled:?}");
        let odd = Drift::of(&run(60, |cycle| if cycle > 56.0 { 900.0 * MIB } else { 30.0 * MIB })).unwrap();
        assert!(odd.problem().is_none(), "{odd:?}");
    }

    #[test]
    fn too_few_cycles_are_not_judged() {
        assert!(Drift::of(&run(3, |_| MIB)).is_err());
        assert!(Drift::of(&run(0, |_| MIB)).is_err());
    }

    #[test]
    fn what_must_never_be_counted_is_named() {
        assert!(never_counted(&run(3, |_| MIB)).is_empty());
        let text = "seconds,phase,mark,outside_range\n1,mix,,0\n2,mix,,3\n";
        assert_eq!(never_counted(&Samples::parse(text).unwrap()), ["outside_range is not 0"]);
    }
}
