//! What each purge delay and each heap size for huge pages would have cost: a choice that needs no trial.
//!
//! A trial of a purge delay takes as long as memory waits, and one of huge pages shows nothing before the heap has grown anew. But what
//! either would have done follows from the takes and gives of memory, which do not depend on it, and the superslab box keeps account of it
//! ([`Hindsight`]). So these two knobs are not tried: each phase of the program sums up its account, and the setting that would
//! have been the cheapest is the one that runs.
//!
//! **What counts how much** is the program's affair as a whole, not a phase's: a fault saved by night is worth as much as one saved by day,
//! although it is a larger part of the night's. So all phases share one table of [`Prices`], made of what the boot policy costs per
//! second of the program.
//!
//! Huge pages stay with a superslab, whatever is said later: the choice of their heap size is one for all phases, the delay is
//! each phase's own.

use hakmem_base::{DELAYS, DELAYS_MS, HUGE_FROM_BYTES, Hindsight, LEVELS, SLAB_BYTES};
use hakmem_policy::FrozenPolicy;

use crate::Window;
use crate::knob::{Knob, NEVER};
use crate::options::Options;
use crate::score::Weights;

/// Heap sizes that may be chosen: those that are kept account of, and never.
pub(crate) const SIZES: usize = HUGE_FROM_BYTES.len() + 1;

/// A purge delay and a heap size for huge pages, by their places on the lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Setting {
    pub(crate) delay: usize,
    pub(crate) size: usize,
}

impl Setting {
    /// What is on the lists and nearest to what a policy says.
    pub(crate) fn of(policy: &FrozenPolicy) -> Self {
        let bytes = policy.thp_heap_bytes as u64;
        Self {
            delay: DELAYS_MS.iter().filter(|listed| **listed < policy.purge_delay_ms).count(),
            size: HUGE_FROM_BYTES.iter().filter(|listed| **listed < bytes).count(),
        }
    }

    /// The delay (ms), as the knob has it.
    pub(crate) fn delay_value(self) -> u64 {
        DELAYS_MS.get(self.delay).filter(|delay| **delay != u32::MAX).map_or(NEVER, |delay| u64::from(*delay))
    }

    /// The heap size, as the knob has it.
    pub(crate) fn size_value(self) -> u64 {
        HUGE_FROM_BYTES.get(self.size).copied().unwrap_or(NEVER)
    }

    /// Whether superslabs that were opened at this level have huge pages.
    const fn is_huge(self, level: usize) -> bool {
        level > self.size || level == LEVELS - 1
    }
}

/// What something costs, or would have.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Bill {
    pub(crate) cpu_ns: f64,
    pub(crate) faults: f64,
    pub(crate) byte_ms: f64,
}

/// What a part of each is worth.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Prices {
    cpu_ns: f64,
    fault: f64,
    byte_ms: f64,
}

impl Prices {
    pub(crate) fn of(self, bill: &Bill) -> f64 {
        self.cpu_ns * bill.cpu_ns + self.fault * bill.faults + self.byte_ms * bill.byte_ms
    }
}

/// Time (ms) after which an account has faded to a third.
const PAGE_MEMORY_MS: f64 = 40_000.0;
const PROGRAM_MEMORY_MS: f64 = 600_000.0;
/// An account over less (ms) says too little.
const LEAST_MS: f64 = 1500.0;
/// What the kernel takes (ns): orders of magnitude (docs/decisions/0001-founding-measurements.md).
const FAULT_NS: f64 = 2000.0;
const HUGE_FAULT_NS: f64 = 400_000.0;
const PURGE_NS: f64 = 12_000.0;
const PURGED_UNIT_NS: f64 = 2000.0;
/// OS pages of a unit that are touched when it is taken again: of sixteen, some are not written to before it is given back.
const PAGES_PER_UNIT: f64 = 12.0;
/// Part of what a season keeps that is charged to it. The rest is what the next season finds: a fault there is charged to that one's delay,
/// though it was this one's that let go.
const KEPT_SHARE: f64 = 0.5;
/// Faults whose time is less than this part of the CPU time do not count. As in `score.rs`.
const FAULT_FLOOR: f64 = 0.01;
const FLOOR_FAULT_NS: f64 = 1000.0;

/// The account of a phase, or of the program.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outlook {
    pub(crate) elapsed_ms: f64,
    refaults: [f64; DELAYS],
    firsts: [[f64; LEVELS]; DELAYS],
    openings: [[f64; LEVELS]; DELAYS],
    kept: [f64; DELAYS],
    air: [[f64; LEVELS]; DELAYS],
    purged: [f64; DELAYS],
    purges: [f64; DELAYS],
}

impl Outlook {
    /// Takes what a window says.
    pub(crate) fn look(&mut self, seen: &Hindsight) {
        let kept = crate::math::exp(-(seen.elapsed_ms as f64) / PAGE_MEMORY_MS);
        self.elapsed_ms = self.elapsed_ms * kept + seen.elapsed_ms as f64;
        for (own, seen) in [
            (&mut self.refaults, &seen.refaults),
            (&mut self.kept, &seen.kept_unit_ms),
            (&mut self.purged, &seen.purged),
            (&mut self.purges, &seen.purges),
        ] {
            own.iter_mut().zip(seen).for_each(|(own, seen)| *own = *own * kept + *seen as f64);
        }
        for (own, seen) in
            [(&mut self.firsts, &seen.firsts), (&mut self.openings, &seen.openings), (&mut self.air, &seen.air_unit_ms)]
        {
            let pairs = own.iter_mut().flatten().zip(seen.iter().flatten());
            pairs.for_each(|(own, seen)| *own = *own * kept + *seen as f64);
        }
    }

    /// Whether it says enough.
    pub(crate) fn is_known(&self) -> bool {
        self.elapsed_ms >= LEAST_MS
    }

    /// Units that fault page by page, and superslabs that fault as a whole.
    fn misses(&self, setting: Setting) -> (f64, f64) {
        let mut units = self.refaults.get(setting.delay).copied().unwrap_or(0.0);
        let mut wholes = 0.0;
        let levels = self.firsts.get(setting.delay).into_iter().flatten();
        let openings = self.openings.get(setting.delay).into_iter().flatten();
        for (level, (firsts, openings)) in levels.zip(openings).enumerate() {
            if setting.is_huge(level) {
                wholes += openings;
            } else {
                units += firsts;
            }
        }
        (units, wholes)
    }

    /// What a setting would have cost beyond what it has no part in, over the time of the account.
    pub(crate) fn bill(&self, setting: Setting) -> Bill {
        let of = |sums: &[f64; DELAYS]| sums.get(setting.delay).copied().unwrap_or(0.0);
        let (units, wholes) = self.misses(setting);
        let small = units * PAGES_PER_UNIT;
        let air = self.air.get(setting.delay).into_iter().flatten().enumerate();
        let air: f64 = air.filter(|(level, _)| setting.is_huge(*level)).map(|(_, air)| *air).sum();
        Bill {
            cpu_ns: small * FAULT_NS
                + wholes * HUGE_FAULT_NS
                + of(&self.purges) * PURGE_NS
                + of(&self.purged) * PURGED_UNIT_NS,
            faults: small + wholes,
            byte_ms: (of(&self.kept) * KEPT_SHARE + air) * SLAB_BYTES as f64,
        }
    }
}

/// What the program costs as a whole: the measure of what its parts cost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    elapsed_ms: f64,
    cpu_ns: f64,
    faults: f64,
    byte_ms: f64,
}

impl Account {
    /// Takes a window in which `running` ran.
    pub(crate) fn look(&mut self, window: &Window, running: &FrozenPolicy, boot: &FrozenPolicy) {
        let seen = &window.hindsight;
        if seen.elapsed_ms == 0 {
            return;
        }
        let mut outlook = Outlook::default();
        outlook.look(seen);
        let elapsed_ms = seen.elapsed_ms as f64;
        let kept = crate::math::exp(-elapsed_ms / PROGRAM_MEMORY_MS);
        let fade = |sum: &mut f64, more: f64| *sum = *sum * kept + more;
        let (now, then) = (outlook.bill(Setting::of(running)), outlook.bill(Setting::of(boot)));
        let resident = window.resident_bytes as f64 * elapsed_ms;
        fade(&mut self.elapsed_ms, elapsed_ms);
        fade(&mut self.cpu_ns, (window.cpu_ns as f64 + then.cpu_ns - now.cpu_ns).max(0.0));
        fade(&mut self.faults, (window.page_faults as f64 + then.faults - now.faults).max(0.0));
        fade(&mut self.byte_ms, (resident + then.byte_ms - now.byte_ms).max(resident / 4.0));
    }

    /// Whether it says enough.
    pub(crate) fn is_known(&self) -> bool {
        self.elapsed_ms >= LEAST_MS && self.cpu_ns > 0.0
    }

    /// What things are worth, for an account of one millisecond: the boot policy costs 1.
    pub(crate) fn prices(&self, weights: &Weights) -> Prices {
        let worth = |weight: f64, whole: f64| if whole > 0.0 { weight * self.elapsed_ms / whole } else { 0.0 };
        let floor = FAULT_FLOOR * self.cpu_ns / FLOOR_FAULT_NS;
        Prices {
            cpu_ns: worth(weights.cpu, self.cpu_ns),
            fault: worth(weights.faults, self.faults + floor),
            byte_ms: worth(weights.memory, self.byte_ms),
        }
    }
}

/// The values of a knob that are on its list of accounts and may run.
fn is_allowed(options: &Options, knob: Knob, value: u64, now: u64) -> bool {
    value == now || options.learns(knob) && options.bounds_of(knob).holds(value)
}

/// A phase for the choice: its account, and what runs there.
pub(crate) struct Part<'a> {
    pub(crate) outlook: &'a Outlook,
    pub(crate) best: Setting,
}

/// The cheapest delay of a phase, given the heap size, and what that costs.
pub(crate) fn cheapest(part: &Part<'_>, size: usize, prices: Prices, options: &Options) -> (usize, f64) {
    let cost = |delay| prices.of(&part.outlook.bill(Setting { delay, size }));
    let now = part.best;
    let allowed = (0..DELAYS).filter(|&delay| {
        is_allowed(options, Knob::PurgeDelay, Setting { delay, size }.delay_value(), now.delay_value())
    });
    let best = allowed.map(|delay| (delay, cost(delay))).min_by(|one, other| one.1.total_cmp(&other.1));
    let stay = (now.delay, cost(now.delay));
    best.map_or(stay, |best| if stay.1 - best.1 > WORTH_A_CHANGE * part.outlook.elapsed_ms { best } else { stay })
}

/// The heap size that is the cheapest for all phases together, each with its best delay.
pub(crate) fn cheapest_size<'a>(
    parts: impl Iterator<Item = Part<'a>> + Clone,
    now: usize,
    prices: Prices,
    options: &Options,
) -> usize {
    let at = |size: usize| Setting { delay: 0, size }.size_value();
    let cost = |size: usize| {
        let costs = parts.clone().map(|part| (cheapest(&part, size, prices, options).1, part.outlook.elapsed_ms));
        let (sum, elapsed) = costs.fold((0.0, 0.0), |(sum, elapsed), (cost, more)| (sum + cost, elapsed + more));
        if elapsed > 0.0 { sum / elapsed } else { 0.0 }
    };
    let allowed = (0..SIZES).filter(|&size| is_allowed(options, Knob::Thp, at(size), at(now)));
    let best = allowed.map(|size| (size, cost(size))).min_by(|one, other| one.1.total_cmp(&other.1));
    best.filter(|best| cost(now) - best.1 > WORTH_HUGE_PAGES).map_or(now, |best| best.0)
}

/// The same for huge pages, which stay where they are once.
const WORTH_HUGE_PAGES: f64 = 0.02;

/// A gain that is less than this part of what the program costs is not worth a change.
const WORTH_A_CHANGE: f64 = 0.004;
