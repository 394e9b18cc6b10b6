//! What a policy costs: CPU, page faults and memory, per event and relative to a baseline.
//!
//! A program that idles must not look cheap, so CPU time and faults are divided by the blocks handed out, not by time. Memory is
//! what is resident for each byte the program holds, as a mean over time: an idle program that keeps memory pays for it. Each of
//! the three is divided by its baseline; a cost of 1 is the baseline, lower is better.
//!
//! CPU time is the program's, not the allocator's: a policy that saves a third of the slow paths of a program that spends 5 % of
//! its time in them changes it by less than the noise. So there are two costs. The **measured** one takes CPU time from the
//! clock: unbiased and noisy. The **modelled** one takes the baseline's CPU time and adds what the slow paths' counts differ by,
//! each at a price: nearly free of noise, and wrong by as much as the prices are. A trial looks at both (`duel.rs`).

use crate::Window;
use hakmem_base::OS_PAGE_BYTES;
use hakmem_policy::SIZE_GROUPS;

/// What counts how much. What the windows do not tell is left out, and the others count in proportion.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Weights {
    /// CPU time per event.
    pub cpu: f64,
    /// Page faults per event.
    pub faults: f64,
    /// Resident bytes per live byte.
    pub memory: f64,
}

impl Default for Weights {
    /// The composite score of the founding documents.
    fn default() -> Self {
        Self { cpu: 0.4, faults: 0.3, memory: 0.3 }
    }
}

impl Weights {
    /// Memory counts this many thousandths (at most 1000); the others have the rest, and among themselves what they have by default.
    #[must_use]
    pub fn with_memory_permille(permille: u32) -> Self {
        let usual = Self::default();
        let memory = f64::from(permille.min(1000)) / 1000.0;
        let rest = (1.0 - memory) / (usual.cpu + usual.faults);
        Self { cpu: usual.cpu * rest, faults: usual.faults * rest, memory }
    }
}

/// Sums over some windows under one policy.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Tally {
    /// Windows.
    pub windows: u32,
    /// Events: blocks handed out.
    pub events: u64,
    /// Time.
    pub elapsed_ns: u64,
    cpu_ns: u64,
    page_faults: u64,
    live_byte_ns: f64,
    resident_byte_ns: f64,
    slow_ns: f64,
    work: f64,
}

/// What a tally comes to, per event.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rates {
    /// CPU time per event; 0 if unknown.
    pub cpu_ns: f64,
    /// Page faults per event.
    pub faults: f64,
    /// Resident bytes per live byte; 0 if unknown.
    pub resident_per_live: f64,
    /// What the counted slow paths cost per event by their prices, faults left out.
    pub slow_ns: f64,
}

/// Added to both sides of resident / live: below this, libraries and stacks are what is resident.
const MEMORY_FLOOR_BYTES: f64 = (1 << 20) as f64;
/// What a page fault costs at least (docs/decisions/0001-founding-measurements.md): puts faults on the scale of CPU time.
const FAULT_NS: f64 = 1000.0;
/// Faults whose time is less than this part of the CPU time do not count: a ratio of two numbers near 0 says nothing.
const FAULT_FLOOR: f64 = 0.01;

impl Tally {
    pub(crate) const EMPTY: Self = Self {
        windows: 0,
        events: 0,
        elapsed_ns: 0,
        cpu_ns: 0,
        page_faults: 0,
        live_byte_ns: 0.0,
        resident_byte_ns: 0.0,
        slow_ns: 0.0,
        work: 0.0,
    };

    /// Adds a window. A window without a clock counts as one nanosecond, so that its levels count at all.
    pub fn add(&mut self, window: &Window) {
        let elapsed_ns = window.elapsed_ns.max(1);
        self.windows = self.windows.saturating_add(1);
        self.events = self.events.saturating_add(window.allocs);
        self.elapsed_ns = self.elapsed_ns.saturating_add(elapsed_ns);
        self.cpu_ns = self.cpu_ns.saturating_add(window.cpu_ns);
        self.page_faults = self.page_faults.saturating_add(window.page_faults);
        self.live_byte_ns += window.live_bytes as f64 * elapsed_ns as f64;
        self.resident_byte_ns += window.resident_bytes as f64 * elapsed_ns as f64;
        self.slow_ns += slow_ns(window);
        self.work += work(window);
    }

    /// What it comes to; nothing without an event.
    #[must_use]
    pub fn rates(&self) -> Option<Rates> {
        if self.events == 0 {
            return None;
        }
        let events = self.work;
        let floor = MEMORY_FLOOR_BYTES * self.elapsed_ns as f64;
        let knows_memory = self.live_byte_ns > 0.0 && self.resident_byte_ns > 0.0;
        Some(Rates {
            cpu_ns: self.cpu_ns as f64 / events,
            faults: self.page_faults as f64 / events,
            resident_per_live: if knows_memory {
                (self.resident_byte_ns + floor) / (self.live_byte_ns + floor)
            } else {
                0.0
            },
            slow_ns: self.slow_ns / events,
        })
    }
}

/// Events in units of small blocks. A large block is more work, for the allocator and for the program that fills it; counted as
/// one, a window with a few more of them would look like a worse policy.
fn work(window: &Window) -> f64 {
    let runs = window.run_groups.iter().zip(RUN_WORK).map(|(group, work)| group.requests as f64 * work).sum::<f64>();
    window.allocs as f64 + runs + window.big_requests as f64 * BIG_WORK
}

/// Units of a typical run of each group, twice.
const RUN_WORK: [f64; SIZE_GROUPS] = [3.0, 6.0, 12.0, 24.0, 48.0];
/// The same for a big block of 4 MiB.
const BIG_WORK: f64 = 128.0;

/// What a window's slow paths cost. The prices are orders of magnitude from the project's benchmarks, not measurements of this
/// machine: they decide only where the clock sees no difference, and the clock can veto them.
fn slow_ns(window: &Window) -> f64 {
    [
        (window.refills(), 40.0),
        (window.spills(), 8.0),
        (window.run_misses(), 500.0),
        (window.big_requests.saturating_sub(window.big_cache_hits), 3000.0),
        (window.remote_pushes, 40.0),
        (window.fresh_slabs.saturating_add(window.retired_slabs), 300.0),
        (window.idle_trims, 1000.0),
        // One `madvise` over a long range (docs/decisions/0001-founding-measurements.md).
        (window.purged_bytes / OS_PAGE_BYTES as u64, 140.0),
    ]
    .into_iter()
    .map(|(count, price)| count as f64 * price)
    .sum()
}

impl Weights {
    /// The cost of `rates` by the prices of slow paths in place of the clock; the same as [`Weights::cost`] without a clock.
    #[must_use]
    pub fn modelled_cost(&self, rates: &Rates, baseline: &Rates) -> f64 {
        if rates.cpu_ns <= 0.0 || baseline.cpu_ns <= 0.0 {
            return self.cost(rates, baseline);
        }
        // The prices may be too high, but nothing costs less than nothing.
        let cpu_ns = (baseline.cpu_ns + rates.slow_ns - baseline.slow_ns).max(baseline.cpu_ns * MIN_CPU_SHARE);
        self.cost(&Rates { cpu_ns, ..*rates }, baseline)
    }

    /// The cost of `rates` where `baseline` costs 1. Always positive and finite.
    #[must_use]
    pub fn cost(&self, rates: &Rates, baseline: &Rates) -> f64 {
        let fault_floor = FAULT_FLOOR * baseline.cpu_ns / FAULT_NS;
        let knows_cpu = rates.cpu_ns > 0.0 && baseline.cpu_ns > 0.0;
        let knows_faults = baseline.faults + fault_floor > 0.0;
        let knows_memory = rates.resident_per_live > 0.0 && baseline.resident_per_live > 0.0;
        let mut sum = 0.0;
        let mut weight = 0.0;
        for (known, part, ratio) in [
            (knows_cpu, self.cpu, rates.cpu_ns / baseline.cpu_ns),
            (knows_faults, self.faults, (rates.faults + fault_floor) / (baseline.faults + fault_floor)),
            (knows_memory, self.memory, rates.resident_per_live / baseline.resident_per_live),
        ] {
            if known && part > 0.0 {
                sum += part * ratio;
                weight += part;
            }
        }
        let cost = sum / weight;
        if cost.is_finite() { cost.max(MIN_COST) } else { 1.0 }
    }
}

/// Of the baseline's CPU time, what the model leaves at least.
const MIN_CPU_SHARE: f64 = 0.1;
/// Costs are compared by their logarithm, so none is 0.
const MIN_COST: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window(allocs: u64, cpu_ns: u64, page_faults: u64, live_bytes: u64, resident_bytes: u64) -> Window {
        Window { elapsed_ns: 1000, allocs, cpu_ns, page_faults, live_bytes, resident_bytes, ..Window::EMPTY }
    }

    fn rates(window: &Window) -> Rates {
        let mut tally = Tally::default();
        tally.add(window);
        tally.rates().unwrap()
    }

    #[test]
    fn memory_may_count_more_or_less_and_the_others_share_the_rest() {
        assert_eq!(Weights::with_memory_permille(300), Weights::default());
        assert_eq!(Weights::with_memory_permille(1000), Weights { cpu: 0.0, faults: 0.0, memory: 1.0 });
        let none = Weights::with_memory_permille(0);
        assert!(
            (none.cpu + none.faults - 1.0).abs() < 1e-9 && (none.cpu / none.faults - 4.0 / 3.0).abs() < 1e-9,
            "{none:?}"
        );
    }

    #[test]
    fn the_baseline_costs_one() {
        let base = rates(&window(1000, 100_000, 50, 10 << 20, 20 << 20));
        assert!((Weights::default().cost(&base, &base) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn each_part_counts_with_its_weight() {
        let base = rates(&window(1000, 100_000, 500, 10 << 20, 21 << 20));
        let weights = Weights::default();
        let cpu = rates(&window(1000, 200_000, 500, 10 << 20, 21 << 20));
        assert!((weights.cost(&cpu, &base) - 1.4).abs() < 1e-9);
        let faults = rates(&window(1000, 100_000, 1000, 10 << 20, 21 << 20));
        assert!((weights.cost(&faults, &base) - 1.3).abs() < 1e-3);
        let memory = rates(&window(1000, 100_000, 500, 10 << 20, 43 << 20));
        assert!((weights.cost(&memory, &base) - 1.3).abs() < 1e-9);
    }

    #[test]
    fn the_same_work_in_more_time_costs_the_same() {
        let busy = rates(&window(1000, 100_000, 50, 10 << 20, 20 << 20));
        let slow = rates(&Window { elapsed_ns: 50_000, ..window(1000, 100_000, 50, 10 << 20, 20 << 20) });
        assert!((Weights::default().cost(&slow, &busy) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_handful_of_faults_after_none_is_no_disaster() {
        let base = rates(&window(100_000, 10_000_000, 0, 10 << 20, 20 << 20));
        let few = rates(&window(100_000, 10_000_000, 5, 10 << 20, 20 << 20));
        let cost = Weights::default().cost(&few, &base);
        assert!(cost < 1.02, "{cost}");
    }

    #[test]
    fn what_is_unknown_is_left_out() {
        let base = rates(&window(1000, 0, 100, 0, 20 << 20));
        let twice = rates(&window(1000, 0, 200, 0, 90 << 20));
        assert!((Weights::default().cost(&twice, &base) - 2.0).abs() < 1e-12);
    }

    #[test]
    fn what_only_one_side_knows_is_left_out() {
        let base = rates(&window(1000, 100_000, 500, 10 << 20, 21 << 20));
        let no_clock = rates(&window(1000, 0, 500, 10 << 20, 21 << 20));
        let no_memory = rates(&window(1000, 100_000, 500, 0, 21 << 20));
        let weights = Weights::default();
        for (one, other) in [(&no_clock, &base), (&base, &no_clock), (&no_memory, &base), (&base, &no_memory)] {
            assert!((weights.cost(one, other) - 1.0).abs() < 1e-9, "{one:?} {other:?}");
        }
    }

    #[test]
    fn without_a_clock_the_model_says_what_the_clock_would() {
        let slow_paths = |cpu_ns, page_faults, refills| {
            let mut window = window(1000, cpu_ns, page_faults, 10 << 20, 21 << 20);
            window.classes[3].refills = refills;
            rates(&window)
        };
        let weights = Weights::default();
        for (cpu_ns, base_cpu_ns) in [(0, 0), (0, 100_000), (100_000, 0)] {
            let (base, other) = (slow_paths(base_cpu_ns, 500, 0), slow_paths(cpu_ns, 700, 900));
            assert_eq!(weights.modelled_cost(&other, &base), weights.cost(&other, &base), "{cpu_ns} {base_cpu_ns}");
        }
    }

    #[test]
    fn large_blocks_are_more_work_than_small_ones() {
        let cpu_of_each = |work: u64, window: Window| rates(&Window { cpu_ns: 100 * work, ..window }).cpu_ns;
        let small = window(1000, 0, 0, 0, 0);
        assert_eq!(cpu_of_each(1000, small.clone()), 100.0);
        let mut runs = small.clone();
        runs.run_groups[2].requests = 100;
        assert_eq!(cpu_of_each(1000 + 12 * 100, runs), 100.0);
        assert_eq!(cpu_of_each(1000 + 128 * 5, Window { big_requests: 5, ..small }), 100.0);
    }

    #[test]
    fn what_a_tiny_program_has_resident_is_measured_beside_a_mebibyte() {
        let seen = rates(&window(1000, 0, 0, 1 << 19, 3 << 19));
        assert!((seen.resident_per_live - 2.5 / 1.5).abs() < 1e-12, "{seen:?}");
    }

    #[test]
    fn purging_is_priced_by_the_page() {
        let pages =
            |count: u64| rates(&Window { purged_bytes: count * OS_PAGE_BYTES as u64, ..window(1000, 0, 0, 0, 0) });
        assert_eq!((pages(0).slow_ns, pages(50).slow_ns), (0.0, 50.0 * 140.0 / 1000.0));
    }

    #[test]
    fn fewer_slow_paths_cost_less_by_the_model_whatever_the_clock_says() {
        let with_refills = |refills: u64, cpu_ns: u64| {
            let mut window = window(100_000, cpu_ns, 0, 0, 0);
            window.classes[3].refills = refills;
            rates(&window)
        };
        let weights = Weights { cpu: 1.0, faults: 0.0, memory: 0.0 };
        let base = with_refills(10_000, 10_000_000);
        let better = with_refills(5_000, 12_000_000);
        // 5000 refills less at 40 ns, of 10 ms.
        assert!((weights.modelled_cost(&better, &base) - 0.98).abs() < 1e-9);
        assert!((weights.cost(&better, &base) - 1.2).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn a_cost_is_positive_and_finite(numbers in prop::array::uniform8(any::<u64>()), allocs in 1..u64::MAX) {
            let [a, b, c, d, e, f, g, h] = numbers;
            let base = rates(&window(allocs, a, b, c, d));
            let other = rates(&window(allocs / 2 + 1, e, f, g, h));
            let cost = Weights::default().cost(&other, &base);
            prop_assert!(cost.is_finite() && cost > 0.0, "{}", cost);
            let modelled = Weights::default().modelled_cost(&other, &base);
            prop_assert!(modelled.is_finite() && modelled > 0.0, "{}", modelled);
        }
    }
}
