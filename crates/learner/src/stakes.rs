//! What a step could gain at most, from counts: the reason to try one before another, and most of them not at all.
//!
//! Each trial costs: for some windows something worse may run. So before anything is tried its stake is asked for: if larger
//! caches saved *every* refill and spill, what would the score gain by? Where the answer is less than the smallest gain worth
//! having, a trial could only find noise, and the value stays. The prices are generous (three times those of the model in `score.rs`),
//! because a stake that is too high costs a trial, and one that is too low costs what would have been learned.

use crate::Window;
use crate::knob::{Direction, Knob};
use crate::score::Weights;
use hakmem_base::SUPERSLAB_BYTES;
use hakmem_policy::FrozenPolicy;

/// Shares of the program's CPU time, faults and resident memory that mechanisms account for: means over the latest windows.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Stakes {
    refills: Share,
    spills: Share,
    run_misses: Share,
    big_misses: Share,
    big_faults: Share,
    remote: Share,
    trims: Share,
    purges: Share,
    refaults: Share,
    fresh_faults: Share,
    huge_faults: Share,
    cached: Share,
    purgeable: Share,
    warm: Share,
    huge: Share,
}

/// A part of a whole, both summed up and faded alike.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Share {
    part: f64,
    whole: f64,
}

impl Share {
    fn add(&mut self, part: f64, whole: u64) {
        self.part = KEPT * self.part + part;
        self.whole = KEPT * self.whole + whole as f64;
    }

    fn get(self) -> f64 {
        if self.whole > 0.0 { (self.part / self.whole).min(1.0) } else { f64::from(u8::from(self.part > 0.0)) }
    }
}

/// What is left of a window's sums after the next one.
const KEPT: f64 = 0.95;
/// Above the model's prices by this factor.
const GENEROUS: f64 = 3.0;
/// Superslabs that may be warm, for the memory that they hold.
const SUPERSLAB: f64 = SUPERSLAB_BYTES as f64;

impl Stakes {
    /// Takes a window in which a policy ran.
    pub fn look(&mut self, window: &Window, policy: &FrozenPolicy) {
        let cpu = window.cpu_ns;
        let price = |share: &mut Share, count: u64, ns: f64| share.add(count as f64 * ns * GENEROUS, cpu);
        price(&mut self.refills, window.refills(), 40.0);
        price(&mut self.spills, window.spills(), 8.0);
        price(&mut self.run_misses, window.run_misses(), 500.0);
        let big_misses = window.big_requests.saturating_sub(window.big_cache_hits);
        price(&mut self.big_misses, big_misses, 3000.0);
        price(&mut self.remote, window.remote_pushes.max(window.remote_frees / 16), 40.0);
        price(&mut self.trims, window.idle_trims, 1000.0);
        // A page that was purged costs the advice and, if it is wanted again, a fault.
        price(&mut self.purges, window.purged_bytes / PAGE, 1000.0);
        let faults = window.page_faults;
        self.refaults.add((window.purged_bytes / PAGE) as f64, faults);
        self.fresh_faults.add((window.committed_bytes / PAGE) as f64, faults);
        // A threshold that the heap does not come near is none: the next lower one is a half or more of it.
        let is_near = window.in_use_bytes == 0 || window.in_use_bytes > policy.thp_heap_bytes as u64 / 4;
        let fresh = if is_near { window.committed_bytes / PAGE } else { 0 };
        self.huge_faults.add(fresh as f64, faults);
        self.big_faults.add(big_misses as f64 * (SUPERSLAB_BYTES as u64 / PAGE) as f64, faults);
        let resident = window.resident_bytes;
        self.cached.add(window.cached_bytes as f64, resident);
        self.purgeable.add(window.purgeable_bytes as f64, resident);
        self.warm
            .add((f64::from(policy.warm_superslabs) * SUPERSLAB).min(window.purgeable_bytes.max(1) as f64), resident);
        self.huge.add(window.huge_superslabs as f64 * SUPERSLAB, resident);
    }

    /// The most that a step could gain, as a part of the score.
    #[must_use]
    pub fn of(&self, knob: Knob, direction: Direction, weights: &Weights) -> f64 {
        use Direction::{Down, Up};
        let (cpu, faults, memory) = match (knob, direction) {
            (Knob::CacheBytes, Up) => (self.refills.get() + self.spills.get(), 0.0, 0.0),
            (Knob::CacheBytes, Down) => (0.0, 0.0, self.cached.get()),
            (Knob::RefillBytes, Up) => (self.refills.get(), 0.0, 0.0),
            // Blocks that were carved and not yet used are pages that were touched in vain.
            (Knob::RefillBytes, Down) => (0.0, self.fresh_faults.get() / 2.0, self.cached.get() / 2.0),
            (Knob::IdleTrim, Up) => (self.trims.get() + self.refills.get() / 4.0, 0.0, 0.0),
            (Knob::IdleTrim, Down) => (0.0, 0.0, self.cached.get()),
            (Knob::MidCap | Knob::LargeCap, _) => (self.refills.get() + self.run_misses.get(), 0.0, self.cached.get()),
            (Knob::WMaxMid | Knob::DynamicClasses, _) => (0.0, 0.0, 0.0),
            (Knob::WMaxLarge, Up) => (self.run_misses.get(), 0.0, 0.0),
            (Knob::WMaxLarge, Down) => (0.0, 0.0, self.cached.get() / 4.0),
            (Knob::Outbox, Up) => (self.remote.get(), 0.0, 0.0),
            // Blocks reach their owner sooner, who needs fewer fresh ones.
            (Knob::Outbox, Down) => (0.0, 0.0, self.remote.get().min(self.cached.get())),
            (Knob::PurgeDelay | Knob::Warm, Up) => (self.purges.get(), self.refaults.get(), 0.0),
            (Knob::PurgeDelay, Down) => (0.0, 0.0, self.purgeable.get()),
            (Knob::Warm, Down) => (0.0, 0.0, self.warm.get()),
            (Knob::Thp, Down) => (self.huge_faults.get() / 4.0, self.huge_faults.get(), 0.0),
            (Knob::Thp, Up) => (0.0, 0.0, self.huge.get()),
            (Knob::BigRetain, Up) => (self.big_misses.get(), self.big_faults.get(), 0.0),
            (Knob::BigRetain, Down) => (0.0, 0.0, self.purgeable.get()),
        };
        weights.cpu * cpu.min(1.0) + weights.faults * faults + weights.memory * memory
    }
}

const PAGE: u64 = hakmem_base::OS_PAGE_BYTES as u64;

#[cfg(test)]
mod tests {
    use super::*;

    fn stakes(window: &Window) -> Stakes {
        let mut stakes = Stakes::default();
        stakes.look(window, &FrozenPolicy::DEFAULT);
        stakes
    }

    fn quiet() -> Window {
        Window { cpu_ns: 100_000_000, page_faults: 100, allocs: 1_000_000, resident_bytes: 1 << 30, ..Window::EMPTY }
    }

    #[test]
    fn where_nothing_happens_nothing_is_at_stake() {
        let stakes = stakes(&quiet());
        for knob in Knob::ALL {
            for direction in [Direction::Down, Direction::Up] {
                assert!(stakes.of(knob, direction, &Weights::default()) < 0.005, "{knob:?} {direction:?}");
            }
        }
    }

    #[test]
    fn what_a_program_suffers_from_is_at_stake() {
        let most = |window: &Window| {
            let stakes = stakes(window);
            let stake = |(knob, direction): &(Knob, Direction)| stakes.of(*knob, *direction, &Weights::default());
            let mut all: Vec<_> =
                Knob::ALL.into_iter().flat_map(|knob| [(knob, Direction::Down), (knob, Direction::Up)]).collect();
            all.sort_by(|a, b| stake(b).total_cmp(&stake(a)));
            all[0]
        };
        assert_eq!(most(&Window { purgeable_bytes: 700 << 20, ..quiet() }), (Knob::PurgeDelay, Direction::Down));
        let purges = Window { purged_bytes: 400 << 10, ..quiet() };
        assert_eq!(most(&purges), (Knob::PurgeDelay, Direction::Up));
        let messages = Window { remote_frees: 900_000, remote_pushes: 300_000, ..quiet() };
        assert_eq!(most(&messages), (Knob::Outbox, Direction::Up));
        let mut misses = quiet();
        misses.classes[10].spills = 800_000;
        assert_eq!(most(&misses), (Knob::CacheBytes, Direction::Up));
    }
}
