//! What each purge delay and each heap size for huge pages would have cost: a choice that needs no trial.
//!
//! A trial of a purge delay takes as long as memory waits, and one of huge pages shows nothing before the heap has grown anew. But what
//! either would have done follows from the takes and gives of memory, which do not depend on it, and the superslab box keeps account of it
//! ([`hakmem_base::Hindsight`]). So these two knobs are not tried: each phase of the program sums up its account, and the setting that would
//! have been the cheapest is the one that runs.
//!
//! **What counts how much** is the program's affair as a whole, not a phase's: a fault saved by night is worth as much as one saved by day,
//! although it is a larger part of the night's. So all phases share one table of [`Prices`], made of what the boot policy costs per
//! second of the program.
//!
//! Huge pages stay with a superslab, whatever is said later: the choice of their heap size is one for all phases, the delay is
//! each phase's own.

use hakmem_base::{DELAYS, DELAYS_MS, Flow, HUGE_FROM_BYTES, LEVELS, SLAB_BYTES};
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
        Self {
            delay: DELAYS_MS.iter().filter(|listed| **listed < policy.purge_delay_ms).count().min(DELAYS - 1),
            size: size_of(policy.thp_heap_bytes as u64),
        }
    }

    /// The delay (ms), as the knob has it.
    pub(crate) fn delay_value(self) -> u64 {
        DELAYS_MS.get(self.delay).map_or(NEVER, |delay| u64::from(*delay))
    }

    /// The heap size, as the knob has it.
    pub(crate) fn size_value(self) -> u64 {
        HUGE_FROM_BYTES.get(self.size).copied().unwrap_or(NEVER)
    }
}

/// Whether superslabs that were opened at this level have huge pages.
const fn is_huge(size: usize, level: usize) -> bool {
    level > size || level == LEVELS - 1
}

/// What something costs, or would have.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Bill {
    /// The kernel's time.
    pub cpu_ns: f64,
    /// Page faults.
    pub faults: f64,
    /// Memory kept, over time.
    pub byte_ms: f64,
}

impl Bill {
    /// What the account of one delay comes to, where superslabs have huge pages from this heap size on.
    #[must_use]
    pub fn of(flow: &Flow, huge_from_bytes: u64) -> Self {
        let mut sums = Sums::default();
        sums.add(flow, 0.0);
        sums.bill(size_of(huge_from_bytes))
    }
}

/// The place on the list of a heap size.
fn size_of(huge_from_bytes: u64) -> usize {
    HUGE_FROM_BYTES.iter().filter(|listed| **listed < huge_from_bytes).count()
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
pub(crate) const LEAST_MS: f64 = 1500.0;
/// What the kernel takes (ns): orders of magnitude (docs/decisions/0001-founding-measurements.md).
pub(crate) const FAULT_NS: f64 = 2000.0;
pub(crate) const HUGE_FAULT_NS: f64 = 400_000.0;
const PURGE_NS: f64 = 12_000.0;
const PURGED_UNIT_NS: f64 = 2000.0;
/// OS pages of a unit that are touched when it is taken again: of sixteen, some are not written to before it is given back.
const PAGES_PER_UNIT: f64 = 12.0;
/// Faults whose time is less than this part of the CPU time do not count. As in `score.rs`.
const FAULT_FLOOR: f64 = 0.01;
const FLOOR_FAULT_NS: f64 = 1000.0;

/// Sums of what a delay would have led to.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    refaults: f64,
    firsts: [f64; LEVELS],
    openings: [f64; LEVELS],
    kept: f64,
    air: [f64; LEVELS],
    purged: f64,
    purges: f64,
}

impl Sums {
    fn add(&mut self, flow: &Flow, kept: f64) {
        let add = |sum: &mut f64, more: u64| *sum = *sum * kept + more as f64;
        add(&mut self.refaults, flow.refaults);
        add(&mut self.kept, flow.kept_unit_ms);
        add(&mut self.purged, flow.purged);
        add(&mut self.purges, flow.purges);
        for (own, seen) in
            [(&mut self.firsts, &flow.firsts), (&mut self.openings, &flow.openings), (&mut self.air, &flow.air_unit_ms)]
        {
            own.iter_mut().zip(seen).for_each(|(own, seen)| add(own, *seen));
        }
    }

    /// Units that fault page by page, and superslabs that fault as a whole.
    fn misses(&self, size: usize) -> (f64, f64) {
        let (mut units, mut wholes) = (self.refaults, 0.0);
        for (level, (firsts, openings)) in self.firsts.iter().zip(&self.openings).enumerate() {
            if is_huge(size, level) {
                wholes += openings;
            } else {
                units += firsts;
            }
        }
        (units, wholes)
    }

    fn bill(&self, size: usize) -> Bill {
        let (units, wholes) = self.misses(size);
        let small = units * PAGES_PER_UNIT;
        let air: f64 =
            self.air.iter().enumerate().filter(|(level, _)| is_huge(size, *level)).map(|(_, air)| *air).sum();
        Bill {
            cpu_ns: small * FAULT_NS + wholes * HUGE_FAULT_NS + self.purges * PURGE_NS + self.purged * PURGED_UNIT_NS,
            faults: small + wholes,
            byte_ms: (self.kept + air) * SLAB_BYTES as f64,
        }
    }
}

/// What a list of delays would have led to, over some time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outlook {
    pub(crate) elapsed_ms: f64,
    sums: [Sums; DELAYS],
    later: [Sums; DELAYS],
}

impl Outlook {
    /// Takes what a window says.
    pub(crate) fn look(&mut self, seen: &[Flow; DELAYS], elapsed_ms: f64) {
        let kept = crate::math::exp(-elapsed_ms / PAGE_MEMORY_MS);
        self.elapsed_ms = self.elapsed_ms * kept + elapsed_ms;
        self.sums.iter_mut().zip(seen).for_each(|(sums, flow)| sums.add(flow, kept));
        self.later.iter_mut().for_each(|sums| sums.add(&Flow::EMPTY, kept));
    }

    /// Takes what a window of the season after says.
    pub(crate) fn look_back(&mut self, seen: &[Flow; DELAYS]) {
        self.later.iter_mut().zip(seen).for_each(|(sums, flow)| sums.add(flow, 1.0));
    }

    /// Whether it says enough.
    pub(crate) fn is_known(&self) -> bool {
        self.elapsed_ms >= LEAST_MS
    }

    /// What a setting would have cost beyond what it has no part in, over the time of the account.
    pub(crate) fn bill(&self, setting: Setting) -> Bill {
        self.sums.get(setting.delay).map_or_else(Bill::default, |sums| sums.bill(setting.size))
    }

    /// What it costs the season after: all that happens there, with this as its past.
    fn bill_of_later(&self, setting: Setting) -> Bill {
        self.later.get(setting.delay).map_or_else(Bill::default, |sums| sums.bill(setting.size))
    }
}

/// What the program would cost as a whole if nobody learned: the measure of what its parts cost.
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
        let elapsed_ms = seen.elapsed_ms as f64;
        outlook.look(&seen.here, elapsed_ms);
        let mut unlearned = Sums::default();
        unlearned.add(&seen.unlearned, 0.0);
        let kept = crate::math::exp(-elapsed_ms / PROGRAM_MEMORY_MS);
        let fade = |sum: &mut f64, more: f64| *sum = *sum * kept + more;
        let (now, then) = (outlook.bill(Setting::of(running)), unlearned.bill(Setting::of(boot).size));
        let resident = resident_byte_ms(window, running);
        fade(&mut self.elapsed_ms, elapsed_ms);
        fade(&mut self.cpu_ns, (window.cpu_ns as f64 + then.cpu_ns - now.cpu_ns).max(0.0));
        fade(&mut self.faults, (window.page_faults as f64 + then.faults - now.faults).max(0.0));
        fade(&mut self.byte_ms, (resident + then.byte_ms - now.byte_ms).max(resident / 4.0));
    }

    /// Whether it says enough.
    pub(crate) fn is_known(&self) -> bool {
        self.elapsed_ms >= LEAST_MS && self.cpu_ns > 0.0
    }

    /// What things are worth, for an account of one millisecond: the whole program costs 1.
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

/// Resident memory over the time of a window in which `running` ran. The level is of its end: of what waits to be purged, the account knows
/// what came and went.
pub(crate) fn resident_byte_ms(window: &Window, running: &FrozenPolicy) -> f64 {
    let lasting = window.resident_bytes.saturating_sub(window.purgeable_bytes);
    let waited = window.hindsight.here.get(Setting::of(running).delay).map_or(0, |flow| flow.kept_unit_ms);
    lasting as f64 * window.hindsight.elapsed_ms as f64 + (waited * SLAB_BYTES as u64) as f64
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

/// The cheapest delay of a phase, given the heap size, and what the phase costs with it.
pub(crate) fn cheapest(part: &Part<'_>, size: usize, prices: Prices, options: &Options) -> (usize, f64) {
    let cost = |delay| {
        let setting = Setting { delay, size };
        prices.of(&part.outlook.bill(setting)) + prices.of(&part.outlook.bill_of_later(setting))
    };
    let now = part.best;
    let allowed = (0..DELAYS).filter(|&delay| {
        is_allowed(options, Knob::PurgeDelay, Setting { delay, size }.delay_value(), now.delay_value())
    });
    let best = allowed.map(|delay| (delay, cost(delay))).min_by(|one, other| one.1.total_cmp(&other.1));
    let stay = (now.delay, cost(now.delay));
    let gain = |best: &(usize, f64)| stay.1 - best.1;
    let chosen = best.filter(|best| gain(best) > WORTH_A_CHANGE * part.outlook.elapsed_ms).unwrap_or(stay).0;
    (chosen, prices.of(&part.outlook.bill(Setting { delay: chosen, size })))
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
    if parts.clone().map(|part| part.outlook.elapsed_ms).sum::<f64>() < MS_FOR_HUGE_PAGES {
        return now;
    }
    let allowed = (0..SIZES).filter(|&size| is_allowed(options, Knob::Thp, at(size), at(now)));
    let best = allowed.map(|size| (size, cost(size))).min_by(|one, other| one.1.total_cmp(&other.1));
    best.filter(|best| cost(now) - best.1 > WORTH_HUGE_PAGES).map_or(now, |best| best.0)
}

/// A gain that is less than this part of what the program costs is not worth a change.
const WORTH_A_CHANGE: f64 = 0.004;
/// The same for huge pages, and the time (ms) that all accounts together must cover: they stay where they are once, and the first
/// seconds of a program are like none of the later ones.
const WORTH_HUGE_PAGES: f64 = 0.05;
pub(crate) const MS_FOR_HUGE_PAGES: f64 = 20_000.0;

#[cfg(test)]
mod tests {
    use super::*;
    use hakmem_base::Hindsight;

    const HUGE: Setting = Setting { delay: 3, size: 0 };
    const NEVER_HUGE: Setting = Setting { delay: 3, size: SIZES - 1 };

    /// The same under every delay.
    fn everywhere(flow: Flow) -> [Flow; DELAYS] {
        [flow; DELAYS]
    }

    #[test]
    fn a_setting_is_what_the_lists_have_nearest_to_a_policy() {
        let of = |purge_delay_ms, thp_heap_bytes| {
            let setting = Setting::of(&FrozenPolicy { purge_delay_ms, thp_heap_bytes, ..FrozenPolicy::DEFAULT });
            (setting.delay_value(), setting.size_value())
        };
        for (delay, size) in DELAYS_MS.into_iter().zip(HUGE_FROM_BYTES) {
            assert_eq!(of(delay, size as usize), (u64::from(delay), size));
        }
        // What is beyond the lists: the longest delay, and huge pages never.
        assert_eq!(of(u32::MAX, usize::MAX), (60_000, NEVER));
        assert_eq!(of(0, 0), (10, 4 << 20));
    }

    #[test]
    fn a_bill_has_each_count_at_its_price() {
        let mut flow = Flow { refaults: 10, purged: 5, purges: 2, kept_unit_ms: 100, ..Flow::EMPTY };
        (flow.firsts[1], flow.openings[1], flow.air_unit_ms[1]) = (20, 3, 7);
        // Above the first heap size, below the second: huge pages from the first on make the units of that level whole superslabs.
        let huge = Bill::of(&flow, HUGE_FROM_BYTES[0]);
        let expected = Bill {
            cpu_ns: 120.0 * 2000.0 + 3.0 * 400_000.0 + 2.0 * 12_000.0 + 5.0 * 2000.0,
            faults: 120.0 + 3.0,
            byte_ms: 107.0 * 65_536.0,
        };
        assert_eq!(huge, expected);
        let expected =
            Bill { cpu_ns: 360.0 * 2000.0 + 2.0 * 12_000.0 + 5.0 * 2000.0, faults: 360.0, byte_ms: 100.0 * 65_536.0 };
        assert_eq!(Bill::of(&flow, HUGE_FROM_BYTES[1]), expected);
        assert_eq!(Bill::of(&flow, u64::MAX), expected);
        // Those of the last level have huge pages whatever the heap size.
        let mut always = Flow::EMPTY;
        (always.firsts[LEVELS - 1], always.openings[LEVELS - 1]) = (20, 3);
        assert_eq!(Bill::of(&always, u64::MAX).faults, 3.0);
    }

    #[test]
    fn an_account_fades_to_a_third_in_forty_seconds_and_so_does_its_time() {
        let mut outlook = Outlook::default();
        outlook.look(&everywhere(Flow { refaults: 1000, ..Flow::EMPTY }), 1400.0);
        outlook.look_back(&everywhere(Flow { refaults: 500, ..Flow::EMPTY }));
        assert!(!outlook.is_known());
        let before = (outlook.bill(HUGE).faults, outlook.bill_of_later(HUGE).faults);
        assert_eq!(before, (12_000.0, 6000.0));
        outlook.look(&everywhere(Flow::EMPTY), 200.0);
        assert!(outlook.is_known());
        (0..398).for_each(|_| outlook.look(&everywhere(Flow::EMPTY), 100.0));
        let third = (-1.0_f64).exp();
        assert!((outlook.bill(HUGE).faults - third * before.0).abs() < 1.0);
        assert!((outlook.bill_of_later(HUGE).faults - third * before.1).abs() < 1.0);
        let time = 40_000.0 * (1.0 - third) + 1400.0 * third;
        assert!((outlook.elapsed_ms - time).abs() < 200.0, "{} {time}", outlook.elapsed_ms);
    }

    /// A tenth of a second of a program that does this besides what `flow` costs it, and the account of another delay.
    fn window(flow: &Flow, unlearned: &Flow) -> Window {
        let bill = Bill::of(flow, NEVER);
        let hindsight =
            Hindsight { elapsed_ms: 100, here: everywhere(*flow), unlearned: *unlearned, ..Hindsight::EMPTY };
        Window {
            cpu_ns: 10_000_000 + bill.cpu_ns as u64,
            page_faults: 5000 + bill.faults as u64,
            resident_bytes: 80 << 20,
            purgeable_bytes: 16 << 20,
            hindsight,
            ..Window::EMPTY
        }
    }

    fn account(flow: &Flow, unlearned: &Flow) -> Account {
        let policy = FrozenPolicy { thp_heap_bytes: usize::MAX, ..FrozenPolicy::DEFAULT };
        let mut account = Account::default();
        assert!(!account.is_known());
        (0..30).for_each(|_| account.look(&window(flow, unlearned), &policy, &policy));
        assert!(account.is_known());
        account
    }

    const PURGES: Flow = Flow { refaults: 400, purged: 300, purges: 20, kept_unit_ms: 20_000, ..Flow::EMPTY };
    const KEEPS: Flow = Flow { refaults: 40, purged: 30, purges: 10, kept_unit_ms: 60_000, ..Flow::EMPTY };

    #[test]
    fn a_millisecond_of_the_whole_program_costs_one() {
        let prices = account(&PURGES, &PURGES).prices(&Weights::default());
        let (seen, bill) = (window(&PURGES, &PURGES), Bill::of(&PURGES, NEVER));
        // Resident is what does not wait to be purged, and what has waited.
        let byte_ms = (64 << 20) as f64 * 100.0 + bill.byte_ms;
        let whole = Bill { cpu_ns: seen.cpu_ns as f64, faults: seen.page_faults as f64, byte_ms };
        assert!((prices.of(&whole) / 100.0 - 1.0).abs() < 0.01, "{}", prices.of(&whole));
        let weights = Weights { cpu: 0.0, faults: 0.0, memory: 1.0 };
        let memory = account(&PURGES, &PURGES).prices(&weights).of(&whole);
        assert!((memory / 100.0 - 1.0).abs() < 1e-6, "{memory}");
    }

    #[test]
    fn prices_are_those_of_the_program_if_nobody_learned_whatever_runs() {
        let (boot, learned) = (account(&PURGES, &PURGES), account(&KEEPS, &PURGES));
        for (one, other) in
            [(boot.cpu_ns, learned.cpu_ns), (boot.faults, learned.faults), (boot.byte_ms, learned.byte_ms)]
        {
            assert!((one / other - 1.0).abs() < 1e-6, "{boot:?} {learned:?}");
        }
    }

    #[test]
    fn a_program_without_a_clock_or_of_a_second_has_no_account() {
        let policy = FrozenPolicy::DEFAULT;
        let (mut short, mut clockless) = (Account::default(), Account::default());
        for number in 0..30 {
            let seen = Window { cpu_ns: 0, ..window(&Flow::EMPTY, &Flow::EMPTY) };
            clockless.look(&seen, &policy, &policy);
            if number < 10 {
                short.look(&window(&Flow::EMPTY, &Flow::EMPTY), &policy, &policy);
            }
        }
        assert!(!clockless.is_known() && !short.is_known());
    }

    /// An account over this time (ms) in which units come back for the first time, a hundred in every tenth of a second.
    fn fresh_units(elapsed_ms: u64) -> Outlook {
        let mut flow = Flow::EMPTY;
        (flow.firsts[LEVELS - 2], flow.openings[LEVELS - 2]) = (100, 1);
        let mut outlook = Outlook::default();
        (0..elapsed_ms / 100).for_each(|_| outlook.look(&everywhere(flow), 100.0));
        outlook
    }

    #[test]
    fn huge_pages_come_when_twenty_seconds_say_that_they_save_a_twentieth() {
        let chosen = |outlooks: &[Outlook], fault: f64| {
            let parts = outlooks.iter().map(|outlook| Part { outlook, best: NEVER_HUGE });
            let prices = Prices { fault, ..Prices::default() };
            cheapest_size(parts, NEVER_HUGE.size, prices, &Options::default())
        };
        // A millisecond has twelve faults more without.
        let (worth, not_worth) = (0.06 / 12.0, 0.04 / 12.0);
        assert_eq!(chosen(&[fresh_units(15_000)], worth), NEVER_HUGE.size);
        assert_ne!(chosen(&[fresh_units(40_000)], worth), NEVER_HUGE.size);
        assert_ne!(chosen(&[fresh_units(15_000), fresh_units(15_000)], worth), NEVER_HUGE.size);
        assert_eq!(chosen(&[fresh_units(40_000)], not_worth), NEVER_HUGE.size);
        assert_eq!(chosen(&[fresh_units(15_000), fresh_units(15_000)], not_worth), NEVER_HUGE.size);
        // Half of the time does not need them.
        let mut other = Outlook::default();
        (0..400).for_each(|_| other.look(&everywhere(Flow::EMPTY), 100.0));
        assert_eq!(chosen(&[fresh_units(40_000), other.clone()], worth), NEVER_HUGE.size);
        assert_ne!(chosen(&[fresh_units(40_000), other], 2.0 * worth), NEVER_HUGE.size);
    }

    #[test]
    fn a_delay_is_chosen_for_what_it_costs_here_and_in_the_season_after_if_that_is_worth_a_change() {
        let chosen = |here: u64, later: u64| {
            let mut outlook = Outlook::default();
            // Delays below a second miss so many units here, and so many later.
            let missed = |units: u64| {
                let mut flows = everywhere(Flow::EMPTY);
                flows.iter_mut().take(4).for_each(|flow| flow.refaults = units);
                flows
            };
            for _ in 0..20 {
                outlook.look(&missed(here), 100.0);
                outlook.look_back(&missed(later));
            }
            let prices = Prices { fault: 0.001 / 12.0, ..Prices::default() };
            cheapest(&Part { outlook: &outlook, best: HUGE }, 0, prices, &Options::default()).0
        };
        assert_eq!(chosen(0, 0), HUGE.delay);
        assert_eq!(DELAYS_MS[chosen(450, 0)], 1000);
        assert_eq!(DELAYS_MS[chosen(0, 450)], 1000);
        assert_eq!(DELAYS_MS[chosen(250, 250)], 1000);
        // Less than four thousandths.
        assert_eq!(chosen(350, 0), HUGE.delay);
    }
}
