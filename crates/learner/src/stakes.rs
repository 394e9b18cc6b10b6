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

    /// One count at a time, and what each step could gain by it: thrice the price, of a second of processor time.
    #[test]
    fn each_count_is_at_stake_for_the_steps_that_would_change_it() {
        use Direction::{Down, Up};
        use Knob::{
            BigRetain, CacheBytes, IdleTrim, LargeCap, MidCap, Outbox, PurgeDelay, RefillBytes, Thp, WMaxLarge, Warm,
        };
        let second =
            || Window { cpu_ns: 1_000_000_000, page_faults: 100_000, resident_bytes: 1 << 30, ..Window::EMPTY };
        let with = |change: fn(&mut Window)| {
            let mut window = second();
            change(&mut window);
            let stakes = stakes(&window);
            let mut found: Vec<_> = Knob::ALL
                .into_iter()
                .flat_map(|knob| [(knob, Down), (knob, Up)])
                .map(|(knob, direction)| (knob, direction, stakes.of(knob, direction, &Weights::default())))
                .filter(|(.., stake)| *stake > 1e-6)
                .collect();
            found.sort_by(|a, b| b.2.total_cmp(&a.2));
            found
        };
        let near = |found: Vec<(Knob, Direction, f64)>, expected: &[(Knob, Direction, f64)]| {
            let is_near = found.len() == expected.len()
                && expected.iter().all(|(knob, direction, stake)| {
                    found
                        .iter()
                        .any(|seen| seen.0 == *knob && seen.1 == *direction && (seen.2 / stake - 1.0).abs() < 1e-3)
                });
            assert!(is_near, "{found:?}, not {expected:?}");
        };
        // 40 ns each: a million are 4 % of the second, thrice that 12 %, which is 0.048 of the score.
        let refills = 0.4 * 0.12;
        near(
            with(|window| window.classes[3].refills = 1_000_000),
            &[
                (CacheBytes, Up, refills),
                (RefillBytes, Up, refills),
                (MidCap, Down, refills),
                (MidCap, Up, refills),
                (LargeCap, Down, refills),
                (LargeCap, Up, refills),
                (IdleTrim, Up, refills / 4.0),
            ],
        );
        near(with(|window| window.classes[3].spills = 1_000_000), &[(CacheBytes, Up, 0.4 * 0.024)]);
        let misses = 0.4 * 0.15;
        near(
            with(|window| window.run_groups[1] = crate::GroupWindow { requests: 150_000, cache_hits: 50_000 }),
            &[
                (MidCap, Down, misses),
                (MidCap, Up, misses),
                (LargeCap, Down, misses),
                (LargeCap, Up, misses),
                (WMaxLarge, Up, misses),
            ],
        );
        // 3 us each, and 512 faults of 100,000.
        let big = 0.4 * 90.0 * 3000.0 * 3.0 / 1e9 + 0.3 * 90.0 * 512.0 / 100_000.0;
        near(with(|window| (window.big_requests, window.big_cache_hits) = (100, 10)), &[(BigRetain, Up, big)]);
        near(with(|window| window.remote_pushes = 1_000_000), &[(Outbox, Up, 0.4 * 0.12)]);
        near(with(|window| window.remote_frees = 1_600_000), &[(Outbox, Up, 0.4 * 0.012)]);
        near(with(|window| window.idle_trims = 10_000), &[(IdleTrim, Up, 0.4 * 0.03)]);
        let purged = 0.4 * 0.03 + 0.3 * 0.1;
        near(with(|window| window.purged_bytes = 10_000 * PAGE), &[(PurgeDelay, Up, purged), (Warm, Up, purged)]);
        near(
            with(|window| window.committed_bytes = 10_000 * PAGE),
            &[(RefillBytes, Down, 0.3 * 0.05), (Thp, Down, 0.4 * 0.025 + 0.3 * 0.1)],
        );
        let held = 0.3 / 8.0;
        near(
            with(|window| window.cached_bytes = 128 << 20),
            &[
                (CacheBytes, Down, held),
                (RefillBytes, Down, held / 2.0),
                (IdleTrim, Down, held),
                (MidCap, Down, held),
                (MidCap, Up, held),
                (LargeCap, Down, held),
                (LargeCap, Up, held),
                (WMaxLarge, Down, held / 4.0),
            ],
        );
        // One warm superslab of two MiB.
        near(
            with(|window| window.purgeable_bytes = 128 << 20),
            &[(PurgeDelay, Down, held), (BigRetain, Down, held), (Warm, Down, 0.3 / 512.0)],
        );
        near(with(|window| window.huge_superslabs = 64), &[(Thp, Up, held)]);
        // A heap that is far below the threshold has no huge pages below the next lower one either.
        near(
            with(|window| (window.committed_bytes, window.in_use_bytes) = (10_000 * PAGE, 2 << 20)),
            &[(RefillBytes, Down, 0.3 * 0.05)],
        );
    }

    #[test]
    fn what_is_at_stake_fades_with_each_window_in_which_it_is_not_seen() {
        let mut stakes = stakes(&Window { cached_bytes: 512 << 20, ..quiet() });
        let stake = |stakes: &Stakes| stakes.of(Knob::CacheBytes, Direction::Down, &Weights::default());
        assert!((stake(&stakes) - 0.15).abs() < 1e-9);
        for _ in 0..14 {
            stakes.look(&quiet(), &FrozenPolicy::DEFAULT);
        }
        // What the first window said has faded fourteen times, and there are fifteen.
        let (part, whole) = (0.95_f64.powi(14), (1.0 - 0.95_f64.powi(15)) / 0.05);
        assert!((stake(&stakes) - 0.15 * part / whole).abs() < 1e-9, "{}", stake(&stakes));
    }
}
