//! What a policy costs: CPU, page faults and memory, per event and relative to a baseline.
//!
//! A program that idles must not look cheap, so CPU time and faults are divided by the blocks handed out, not by time. Memory is
//! what is resident for each byte the program holds, as a mean over time: an idle program that keeps memory pays for it. Each of
//! the three is divided by its baseline; a cost of 1 is the baseline, lower is better.

use crate::Window;

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
    }

    /// What it comes to; nothing without an event.
    #[must_use]
    pub fn rates(&self) -> Option<Rates> {
        if self.events == 0 {
            return None;
        }
        let events = self.events as f64;
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
        })
    }
}

impl Weights {
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

    proptest! {
        #[test]
        fn a_cost_is_positive_and_finite(numbers in prop::array::uniform8(any::<u64>()), allocs in 1..u64::MAX) {
            let [a, b, c, d, e, f, g, h] = numbers;
            let base = rates(&window(allocs, a, b, c, d));
            let other = rates(&window(allocs / 2 + 1, e, f, g, h));
            let cost = Weights::default().cost(&other, &base);
            prop_assert!(cost.is_finite() && cost > 0.0, "{}", cost);
        }
    }
}
