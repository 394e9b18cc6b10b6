//! What a pass cost, as one number: 1 is what the defaults cost on the same machine, less is better.
//!
//! A pass is one run of each program. Each is measured by itself under the defaults, so a program that runs for long counts no more
//! than a short one, and the cost of a pass is the geometric mean.
//!
//! **Invariants.** A cost depends on ratios only, so a faster machine does not change it. The programs of a pass stand in the
//! order of those of its base.

use std::str::FromStr;

use anyhow::{Context as _, Result, bail, ensure};

use crate::measure::Usage;

/// One run of each program.
pub type Pass = Vec<Usage>;

/// How much each part counts; the parts add up to 1.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Weights {
    wall: f64,
    cpu: f64,
    faults: f64,
    memory: f64,
    peak: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { wall: 0.0, cpu: 0.4, faults: 0.3, memory: 0.3, peak: 0.0 }
    }
}

impl Weights {
    /// For several programs. What a short one holds at its peak decides whether it fits, and what a server holds over time what it
    /// costs; a policy for both has to answer for both: it could buy one with the other.
    pub const SEVERAL: Self = Self { wall: 0.0, cpu: 0.4, faults: 0.3, memory: 0.15, peak: 0.15 };

    /// The same without what a clock says; `None` where nothing else counts.
    pub fn without_clocks(self) -> Option<Self> {
        Self { wall: 0.0, cpu: 0.0, ..self }.normalised()
    }

    /// Whether the peak counts.
    pub fn has_peak(&self) -> bool {
        self.peak > 0.0
    }

    fn normalised(mut self) -> Option<Self> {
        let sum = self.wall + self.cpu + self.faults + self.memory + self.peak;
        for weight in [&mut self.wall, &mut self.cpu, &mut self.faults, &mut self.memory, &mut self.peak] {
            *weight /= sum;
        }
        (sum > 0.0).then_some(self)
    }
}

impl FromStr for Weights {
    type Err = anyhow::Error;

    /// Reads `cpu=0.4,faults=0.3,memory=0.3`; what is not named counts nothing.
    fn from_str(text: &str) -> Result<Self> {
        let mut weights = Self { wall: 0.0, cpu: 0.0, faults: 0.0, memory: 0.0, peak: 0.0 };
        for part in text.split(',') {
            let (name, value) = part.split_once('=').context("weights look like cpu=0.4,faults=0.3,memory=0.3")?;
            let value: f64 = value.trim().parse().with_context(|| format!("`{value}` is not a number"))?;
            ensure!(value.is_finite() && value >= 0.0, "a weight is 0 or more, not {value}");
            match name.trim() {
                "wall" => weights.wall = value,
                "cpu" => weights.cpu = value,
                "faults" => weights.faults = value,
                "memory" => weights.memory = value,
                "peak" => weights.peak = value,
                other => bail!("no weight `{other}`; there are wall, cpu, faults, memory, peak"),
            }
        }
        weights.normalised().context("all weights are 0")
    }
}

impl std::fmt::Display for Weights {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [
            ("wall", self.wall),
            ("cpu", self.cpu),
            ("faults", self.faults),
            ("memory", self.memory),
            ("peak", self.peak),
        ];
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
    /// Memory at the peak.
    pub peak: f64,
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
            peak: ratio(usage.peak_rss, base.peak_rss, 65_536.0),
        }
    }

    /// Geometric means over the programs of a pass.
    pub fn mean_of(pass: &[Usage], base: &[Usage]) -> Self {
        let all = pass.iter().zip(base).map(|(usage, base)| Self::of(usage, base));
        let mean = |part: fn(&Self) -> f64| geometric_mean(all.clone().map(|ratios| part(&ratios)));
        Self {
            wall: mean(|ratios| ratios.wall),
            cpu: mean(|ratios| ratios.cpu),
            faults: mean(|ratios| ratios.faults),
            memory: mean(|ratios| ratios.memory),
            peak: mean(|ratios| ratios.peak),
        }
    }

    /// The parts as one number.
    pub fn cost(&self, weights: &Weights) -> f64 {
        weights.wall * self.wall
            + weights.cpu * self.cpu
            + weights.faults * self.faults
            + weights.memory * self.memory
            + weights.peak * self.peak
    }

    /// One of them.
    pub fn part(&self, part: Part) -> f64 {
        match part {
            Part::Wall => self.wall,
            Part::Cpu => self.cpu,
            Part::Memory => self.memory,
            Part::Peak => self.peak,
        }
    }

    /// The watched parts that are worse than `limit`.
    pub fn all_worse_than(&self, limit: f64, watched: &Watched) -> impl Iterator<Item = (Part, f64)> + use<> {
        let parts =
            [(Part::Wall, watched.wall), (Part::Cpu, watched.cpu), (Part::Memory, true), (Part::Peak, watched.peak)];
        let worse = parts.map(|(part, is_watched)| (part, self.part(part), is_watched));
        worse
            .into_iter()
            .filter(move |(_, ratio, is_watched)| *is_watched && *ratio > limit)
            .map(|(part, ratio, _)| (part, ratio))
    }

    /// The worst of them.
    pub fn worse_than(&self, limit: f64, watched: &Watched) -> Option<(Part, f64)> {
        self.all_worse_than(limit, watched).max_by(|left, right| left.1.total_cmp(&right.1))
    }
}

/// What may have a limit. Faults have none: what they are worth, processor time says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Wall-clock time.
    Wall,
    /// Processor time.
    Cpu,
    /// Memory over time.
    Memory,
    /// Memory at the peak.
    Peak,
}

impl std::fmt::Display for Part {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Wall => "wall-clock time",
            Self::Cpu => "processor time",
            Self::Memory => "memory",
            Self::Peak => "peak memory",
        })
    }
}

/// Parts that have a limit; memory over time always has.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    /// Wall-clock time: only over many runs, because others use the machine too.
    pub wall: bool,
    /// Processor time.
    pub cpu: bool,
    /// Memory at the peak.
    pub peak: bool,
}

/// What a pass cost beside the defaults.
pub fn cost_of(pass: &[Usage], base: &[Usage], weights: &Weights) -> f64 {
    geometric_mean(pass.iter().zip(base).map(|(usage, base)| Ratios::of(usage, base).cost(weights)))
}

/// 1 of none.
pub fn geometric_mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value.ln(), count + 1));
    if count == 0 { 1.0 } else { (sum / f64::from(count)).exp() }
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
    each_part(runs.iter(), |values| median(values.iter().copied()))
}

/// The same for each program.
pub fn median_pass(passes: &[Pass]) -> Pass {
    each_program(passes, |values| median(values.iter().copied()))
}

/// The least of each part, for each program.
pub fn least_pass(passes: &[Pass]) -> Pass {
    each_program(passes, |values| values.iter().copied().fold(f64::INFINITY, f64::min))
}

/// The most of each part, for each program.
pub fn most_pass(passes: &[Pass]) -> Pass {
    each_program(passes, |values| values.iter().copied().fold(0.0, f64::max))
}

fn each_program(passes: &[Pass], of: impl Fn(&[f64]) -> f64) -> Pass {
    let count = passes.first().map_or(0, Vec::len);
    (0..count).map(|place| each_part(passes.iter().filter_map(|pass| pass.get(place)), &of)).collect()
}

fn each_part<'a>(runs: impl Iterator<Item = &'a Usage> + Clone, of: impl Fn(&[f64]) -> f64) -> Usage {
    let all = |part: fn(&Usage) -> f64| of(&runs.clone().map(part).collect::<Vec<f64>>());
    Usage {
        wall: all(|run| run.wall),
        cpu: all(|run| run.cpu),
        faults: all(|run| run.faults),
        peak_rss: all(|run| run.peak_rss),
        mean_rss: all(|run| run.mean_rss),
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
    let (mut ways, mut sum, mut all) = (1.0, 0.0, 0.0);
    for heads in 0..=total {
        all += ways;
        if heads >= wins {
            sum += ways;
        }
        ways = ways * (total - heads) as f64 / (heads + 1) as f64;
        // From 1024 throws on no float holds all ways. Their ratio is what counts.
        if ways > 1e100 {
            (ways, sum, all) = (ways / 1e100, sum / 1e100, all / 1e100);
        }
    }
    sum / all
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
        assert_eq!(weights, Weights { wall: 0.0, cpu: 0.5, faults: 0.0, memory: 0.5, peak: 0.0 });
        assert_eq!(weights.to_string(), "cpu=0.50,memory=0.50");
        assert_eq!("cpu=0.4,faults=0.3,memory=0.3".parse::<Weights>().unwrap(), Weights::default());
        let quiet = Weights::SEVERAL.without_clocks().unwrap();
        assert_eq!(quiet.to_string(), "faults=0.50,memory=0.25,peak=0.25");
        assert_eq!("cpu=1,wall=1".parse::<Weights>().unwrap().without_clocks(), None);
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
        let watched = Watched { wall: true, cpu: true, peak: false };
        assert_eq!(ratios.worse_than(1.05, &watched), None);
        assert_eq!(Ratios::of(&base, &half).worse_than(1.05, &watched).unwrap().0, Part::Memory);
    }

    #[test]
    fn the_peak_counts_where_several_programs_are_measured() {
        let base = Usage { wall: 1.0, cpu: 1.0, faults: 1e6, mean_rss: 1e9, peak_rss: 1e9, ..Usage::default() };
        let twice = Ratios::of(&Usage { peak_rss: 2e9, ..base.clone() }, &base);
        assert!((twice.cost(&Weights::SEVERAL) - 1.15).abs() < 1e-3 && Weights::SEVERAL.has_peak());
        assert!((twice.cost(&Weights::default()) - 1.0).abs() < 1e-9 && !Weights::default().has_peak());
    }

    #[test]
    fn a_part_has_a_limit_only_where_it_is_looked_at() {
        let even = Ratios { wall: 1.0, cpu: 1.0, faults: 1.0, memory: 1.0, peak: 1.0 };
        let all = Watched { wall: true, cpu: true, peak: true };
        let none = Watched { wall: false, cpu: false, peak: false };
        for worse in [Ratios { wall: 2.0, ..even }, Ratios { cpu: 2.0, ..even }, Ratios { peak: 2.0, ..even }] {
            assert!(worse.worse_than(1.1, &all).is_some() && worse.worse_than(1.1, &none).is_none());
        }
        assert!(Ratios { faults: 2.0, ..even }.worse_than(1.1, &all).is_none(), "faults cost, but have no limit");
    }

    #[test]
    fn each_program_of_a_pass_counts_by_what_it_costs_itself() {
        let run = |cpu| Usage { wall: 1.0, cpu, faults: 1e6, mean_rss: 1e9, peak_rss: 1e9, ..Usage::default() };
        let weights: Weights = "cpu=1".parse().unwrap();
        let base = [run(100.0), run(0.5)];
        assert!((cost_of(&[run(50.0), run(1.0)], &base, &weights) - 1.0).abs() < 1e-3, "a half and a double");
        assert!(
            (cost_of(&[run(50.0), run(0.5)], &base, &weights) - 0.5_f64.sqrt()).abs() < 1e-3,
            "a half and the same"
        );
        assert!((Ratios::mean_of(&[run(50.0), run(0.5)], &base).cpu - 0.5_f64.sqrt()).abs() < 1e-3);
        let passes = [vec![run(3.0), run(9.0)], vec![run(1.0), run(5.0)], vec![run(2.0), run(7.0)]];
        let cpus = |pass: Pass| pass.iter().map(|run| run.cpu).collect::<Vec<f64>>();
        assert_eq!((cpus(median_pass(&passes)), cpus(least_pass(&passes))), (vec![2.0, 7.0], vec![1.0, 5.0]));
    }

    #[test]
    fn a_coin_seldom_falls_the_same_way_eight_times() {
        assert!((sign_test(8, 8) - 1.0 / 256.0).abs() < 1e-12);
        assert!((sign_test(7, 8) - 9.0 / 256.0).abs() < 1e-12);
        assert!((sign_test(0, 5) - 1.0).abs() < 1e-12);
        assert!(sign_test(6, 8) > 0.05 && sign_test(7, 8) < 0.05);
        for total in [1001, 1025, 4001, 100_001] {
            assert!((sign_test(total / 2 + 1, total) - 0.5).abs() < 1e-9, "{total} throws");
            assert!(sign_test(total, total) < 1e-9 && (sign_test(0, total) - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn medians_ignore_outliers() {
        assert_eq!(median([5.0, 1.0, 1000.0]), 5.0);
        assert_eq!(median([1.0, 2.0]), 1.5);
        assert_eq!(median([]), 0.0);
        assert_eq!(spread(&[1.0, 1.0, 1.5, 9.0, 1.0]), 0.0);
        assert_eq!(spread(&[1.0, 2.0, 3.0, 5.0, 90.0]), 2.0);
    }
}
