//! Settings that are chosen without a trial: the purge delay of each season, and the heap size for huge pages.
//!
//! **Seasons** are the phases of a program as its memory sees them: how many bytes of which kind come and go. They are told
//! apart by the flows of the last second or so, because a program that works in bursts has windows that are never alike. Each
//! season has an account (`outlook.rs`), and the delay that would have been the cheapest runs as soon as the season is back.

use crate::Window;
use crate::canary::{Canary, Clocked};
use crate::knob::Knob;
use crate::ledger::Reason;
use crate::math::{exp, log2};
use crate::options::Options;
use crate::outlook::{Account, LEAST_MS, MS_FOR_HUGE_PAGES, Outlook, Part, Setting, cheapest, cheapest_size};
use hakmem_policy::FrozenPolicy;

/// Kinds of memory: blocks up to 1 KiB and up to 32 KiB, runs, big blocks.
const KINDS: usize = 4;
/// Time (ms) over which flows are averaged: what happened before counts a third.
const FLOW_MS: f64 = 200.0;
/// Flows below this (bytes a second) are none.
const FLOOR: f64 = (1 << 20) as f64;
/// Doublings of a flow outside its range at which a season does not fit any more, and within which a known one does.
const LEAVES: f64 = 1.0;
const FITS: f64 = 0.75;
/// Parts by which the ends of a range follow a flow that is outside, and give way to one that is inside.
const WIDENS: f64 = 0.3;
const NARROWS: f64 = 0.005;
/// Windows that a known season has to fit, and time (ms) that a new one has to last.
const WINDOWS_TO_RETURN: u32 = 2;
const MS_TO_BEGIN: f64 = 1000.0;
/// How long (ms) a kind is believed to rest between bursts before anything is known, how fast that is unlearned, and when a rest is
/// more than one.
const REST_MS: f64 = 700.0;
const RESTS_FOLLOW: f64 = 0.03;
const RESTS: f64 = 1.25;
const SLACK_MS: f64 = 50.0;
/// Seasons that are remembered.
pub(crate) const SEASONS: usize = 12;

/// What comes and goes: log2 of bytes a second, by kind.
type Flows = [f64; KINDS];

/// From where to where the flows of a season range. Bursts make ranges wide; what lies between bursts belongs to the season.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Range {
    least: Flows,
    most: Flows,
}

impl Range {
    const fn at(flows: &Flows) -> Self {
        Self { least: *flows, most: *flows }
    }

    /// In doublings: how far the kind that fits least is outside.
    fn distance(&self, flows: &Flows) -> f64 {
        let ends = self.least.iter().zip(&self.most);
        ends.zip(flows).fold(0.0, |most, ((low, high), flow)| f64::max(most, f64::max(low - flow, flow - high)))
    }

    /// Whether some kind flows more than ever.
    fn has_risen(&self, flows: &Flows) -> bool {
        self.most.iter().zip(flows).any(|(high, flow)| *flow > high + LEAVES)
    }

    /// How wide it is.
    fn width(&self) -> f64 {
        self.least.iter().zip(&self.most).map(|(low, high)| high - low).sum()
    }

    fn follow(&mut self, flows: &Flows) {
        for ((low, high), flow) in self.least.iter_mut().zip(&mut self.most).zip(flows) {
            *low += (flow - *low) * if flow < low { WIDENS } else { NARROWS };
            *high += (flow - *high) * if flow > high { WIDENS } else { NARROWS };
        }
    }
}

#[derive(Clone, Debug)]
struct Season {
    range: Range,
    /// How long (ms) each kind may rest between two bursts.
    rests: [f64; KINDS],
    elapsed_ms: f64,
    clocked: Clocked,
    outlook: Outlook,
    delay: usize,
}

impl Season {
    fn new(range: Range, delay: usize) -> Self {
        Self {
            range,
            rests: [REST_MS; KINDS],
            elapsed_ms: 0.0,
            clocked: Clocked::default(),
            outlook: Outlook::default(),
            delay,
        }
    }

    /// A kind flows again after a rest of so long.
    fn note_rest(&mut self, kind: usize, rest_ms: f64) {
        if let Some(known) = self.rests.get_mut(kind) {
            *known = if rest_ms > *known { rest_ms } else { *known + RESTS_FOLLOW * (rest_ms - *known) };
        }
    }
}

/// What is known of all seasons.
#[derive(Clone, Debug)]
pub(crate) struct Foresight {
    account: Account,
    canary: Canary,
    /// Bytes by kind and milliseconds, both faded alike.
    recent: [f64; KINDS],
    recent_ms: f64,
    /// How long (ms) each kind has rested, if it did flow in this season.
    resting_ms: [Option<f64>; KINDS],
    seasons: Vec<Season>,
    now: usize,
    /// The season before this one.
    before: usize,
    /// Whether the latest window began another season.
    turns: bool,
    size: usize,
    /// A season that the latest windows fit better, and how long.
    candidate: Option<usize>,
    windows: u32,
    strange_ms: f64,
    strange: Range,
}

impl Foresight {
    /// Nothing is known. Everything that it will ever need is allocated here.
    pub(crate) fn new(boot: &FrozenPolicy) -> Self {
        let mut seasons = Vec::with_capacity(SEASONS);
        let setting = Setting::of(boot);
        seasons.push(Season::new(Range::default(), setting.delay));
        Self {
            account: Account::default(),
            canary: Canary::new(),
            recent: [0.0; KINDS],
            recent_ms: 0.0,
            resting_ms: [None; KINDS],
            seasons,
            now: 0,
            before: usize::MAX,
            turns: false,
            size: setting.size,
            candidate: None,
            windows: 0,
            strange_ms: 0.0,
            strange: Range::default(),
        }
    }

    /// Whether the latest window began another season.
    pub(crate) const fn turns(&self) -> bool {
        self.turns
    }

    /// Whether there is an account to go by.
    pub(crate) fn is_active(&self) -> bool {
        self.account.is_known()
    }

    /// Why a knob has its value, if that is the account's affair.
    pub(crate) fn reason(&self, knob: Knob) -> Option<Reason> {
        if !self.is_active() || !Self::may_set(knob) {
            return None;
        }
        let known = self.seasons.iter().filter(|season| season.outlook.is_known());
        let covered_ms: f64 = known.map(|season| season.outlook.elapsed_ms).sum();
        let enough_ms = if knob == Knob::Thp { MS_FOR_HUGE_PAGES } else { LEAST_MS };
        Some(if self.canary.has_failed() {
            Reason::Outdated
        } else if covered_ms < enough_ms {
            Reason::Untried
        } else {
            Reason::Foreseen
        })
    }

    /// Whether a knob is set by account where there is one.
    const fn may_set(knob: Knob) -> bool {
        matches!(knob, Knob::PurgeDelay | Knob::Thp)
    }

    /// Whether nobody tries a knob for the account's sake. Warm superslabs and kept big blocks are other ways to keep memory,
    /// which would hide it from the account: they stay as they are.
    pub(crate) const fn leaves_alone(knob: Knob) -> bool {
        matches!(knob, Knob::Warm | Knob::BigRetain)
    }

    /// Whether trials may change a knob.
    pub(crate) const fn leaves_to_trials(knob: Knob) -> bool {
        !Self::may_set(knob) && !Self::leaves_alone(knob)
    }

    /// Takes a window in which `running` ran.
    pub(crate) fn look(&mut self, window: &Window, running: &FrozenPolicy, boot: &FrozenPolicy, options: &Options) {
        let elapsed_ms = window.hindsight.elapsed_ms as f64;
        self.turns = false;
        if elapsed_ms == 0.0 {
            return;
        }
        self.account.look(window, running, boot);
        let flows = self.flows(window, elapsed_ms);
        // Who ran pays: what a new season costs until it is noticed belongs to the delay of the one before.
        let before = self.now;
        if let Some(season) = self.seasons.get_mut(before) {
            season.outlook.look(&window.hindsight.here, elapsed_ms);
            let has_chosen = season.outlook.is_known() && !self.canary.rests();
            let is_boot = Setting::of(running) == Setting::of(boot) && self.canary.is_settled();
            season.clocked.add(window, elapsed_ms, is_boot, has_chosen);
        }
        self.canary.judge(self.seasons.iter_mut().map(|season| &mut season.clocked), elapsed_ms, &options.weights);
        if let Some(season) = self.seasons.get_mut(self.before) {
            season.outlook.look_back(&window.hindsight.before);
        }
        let is_at_home = self.find_season(&flows, elapsed_ms, boot);
        self.turns = self.now != before;
        if self.turns {
            self.before = before;
            self.resting_ms = [None; KINDS];
        }
        if let Some(season) = self.seasons.get_mut(self.now).filter(|_| is_at_home) {
            season.elapsed_ms += elapsed_ms;
            season.range.follow(&flows);
        }
        self.choose(options);
    }

    fn flows(&mut self, window: &Window, elapsed_ms: f64) -> Flows {
        let mut bytes = [0.0; KINDS];
        let [tiny, mid, runs, big] = &mut bytes;
        for (class, seen) in window.by_class() {
            let each = class.block_bytes();
            let sum = if each <= hakmem_base::TINY_MAX_BYTES { &mut *tiny } else { &mut *mid };
            *sum += seen.allocs as f64 * each as f64;
        }
        for (group, seen) in window.run_groups.iter().enumerate() {
            *runs += seen.requests as f64 * (96_u64 << (10 + group)) as f64;
        }
        *big = window.big_requests as f64 * (4 << 20) as f64;
        self.rest(&bytes, elapsed_ms);
        let kept = exp(-elapsed_ms / FLOW_MS);
        // What a window of some length brings is spread over it.
        let weight = if elapsed_ms > 0.0 { FLOW_MS * (1.0 - kept) / elapsed_ms } else { 0.0 };
        self.recent.iter_mut().zip(&bytes).for_each(|(sum, more)| *sum = *sum * kept + more * weight);
        self.recent_ms = self.recent_ms * kept + FLOW_MS * (1.0 - kept);
        let seconds = self.recent_ms / 1000.0;
        self.recent.map(|bytes| log2(1.0 + bytes / seconds / FLOOR))
    }

    /// A kind that rests for longer than it does between bursts has ended, however much it was.
    fn rest(&mut self, bytes: &[f64; KINDS], elapsed_ms: f64) {
        let Some(season) = self.seasons.get_mut(self.now) else { return };
        let kinds = self.resting_ms.iter_mut().zip(&mut self.recent).zip(bytes);
        for (kind, ((resting_ms, recent), bytes)) in kinds.enumerate() {
            if *bytes > 0.0 {
                if let Some(rested_ms) = resting_ms.replace(0.0) {
                    season.note_rest(kind, rested_ms);
                }
            } else if let Some(resting_ms) = resting_ms {
                *resting_ms += elapsed_ms;
                let longest = season.rests.get(kind).copied().unwrap_or(REST_MS);
                if *resting_ms > RESTS * longest + SLACK_MS {
                    *recent = 0.0;
                }
            }
        }
    }

    /// Finds the season that the flows belong to; whether the present one is it.
    fn find_season(&mut self, flows: &Flows, elapsed_ms: f64, boot: &FrozenPolicy) -> bool {
        let Some(here) = self.seasons.get_mut(self.now) else { return false };
        if here.elapsed_ms == 0.0 {
            here.range = Range::at(flows);
        }
        // A young season is still finding out how wide it is.
        let leaves = if here.elapsed_ms < MS_TO_BEGIN { 3.0 * LEAVES } else { LEAVES };
        if here.range.distance(flows) <= leaves {
            (self.candidate, self.windows, self.strange_ms) = (None, 0, 0.0);
            return true;
        }
        let has_risen = here.range.has_risen(flows);
        let fitting = self.seasons.iter().enumerate().filter(|(_, season)| season.range.distance(flows) <= FITS);
        let narrowest = fitting.min_by(|(_, one), (_, other)| one.range.width().total_cmp(&other.range.width()));
        let known = narrowest.map(|(place, _)| place);
        self.windows = if known.is_some() && known == self.candidate { self.windows + 1 } else { 1 };
        self.candidate = known;
        if let Some(place) = known {
            // What falls passes by other seasons on its way; what rises is there at once.
            if self.windows >= WINDOWS_TO_RETURN || has_risen {
                self.now = place;
                (self.candidate, self.windows, self.strange_ms) = (None, 0, 0.0);
                return true;
            }
            return false;
        }
        // On the way from one season to another the flows do not stand still.
        if self.strange_ms == 0.0 || self.strange.distance(flows) > LEAVES {
            (self.strange, self.strange_ms) = (Range::at(flows), 0.0);
        }
        self.strange.follow(flows);
        self.strange_ms += elapsed_ms;
        if self.strange_ms < MS_TO_BEGIN {
            return false;
        }
        self.strange_ms = 0.0;
        let fresh = Season::new(self.strange, Setting::of(boot).delay);
        if self.seasons.len() < SEASONS {
            self.now = self.seasons.len();
            self.seasons.push(fresh);
        } else {
            // Not the one that ends: it may go on as the season before.
            let others = self.seasons.iter().enumerate().filter(|(place, _)| *place != self.now);
            let shortest = others.min_by(|(_, one), (_, other)| one.elapsed_ms.total_cmp(&other.elapsed_ms));
            self.now = shortest.map_or(0, |(place, _)| place);
            if let Some(place) = self.seasons.get_mut(self.now) {
                *place = fresh;
            }
        }
        true
    }

    fn choose(&mut self, options: &Options) {
        if !self.is_active() {
            return;
        }
        let prices = self.account.prices(&options.weights);
        let size = self.size;
        let parts = self
            .seasons
            .iter()
            .filter(|season| season.outlook.is_known())
            .map(|season| Part { outlook: &season.outlook, best: Setting { delay: season.delay, size } });
        self.size = cheapest_size(parts, size, prices, options);
        let size = self.size;
        if let Some(season) = self.seasons.get_mut(self.now).filter(|season| season.outlook.is_known()) {
            let part = Part { outlook: &season.outlook, best: Setting { delay: season.delay, size } };
            season.delay = cheapest(&part, size, prices, options).0;
        }
    }

    /// Puts the chosen settings of the present season into a policy.
    pub(crate) fn apply(&self, policy: &mut FrozenPolicy, options: &Options) {
        if !self.canary.rests() {
            self.apply_season(self.now, policy, options);
        }
    }

    /// The same for the season that has lasted longest. A check is no verdict: what is known stays so meanwhile.
    pub(crate) fn apply_longest(&self, policy: &mut FrozenPolicy, options: &Options) {
        let longest =
            self.seasons.iter().enumerate().max_by(|(_, one), (_, other)| one.elapsed_ms.total_cmp(&other.elapsed_ms));
        if !self.canary.has_failed() {
            self.apply_season(longest.map_or(self.now, |(place, _)| place), policy, options);
        }
    }

    fn apply_season(&self, place: usize, policy: &mut FrozenPolicy, options: &Options) {
        let Some(season) = self.seasons.get(place).filter(|_| self.is_active()) else { return };
        let (now, chosen) = (Setting::of(policy), Setting { delay: season.delay, size: self.size });
        for (knob, is_set, value) in [
            (Knob::PurgeDelay, now.delay == chosen.delay, chosen.delay_value()),
            (Knob::Thp, now.size == chosen.size, chosen.size_value()),
        ] {
            if options.learns(knob) && !is_set {
                knob.set(policy, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hakmem_base::{DELAYS, DELAYS_MS, Hindsight};

    /// A tenth of a second in which so many big blocks were asked for, and `units` units were freed that are wanted again after `wait_ms`.
    fn window(big_requests: u64, units: u64, wait_ms: u32, policy: &FrozenPolicy) -> Window {
        let mut hindsight = Hindsight { elapsed_ms: 100, ..Hindsight::EMPTY };
        for (delay, delay_ms) in DELAYS_MS.into_iter().enumerate() {
            let is_gone = delay_ms < wait_ms;
            hindsight.here[delay].refaults = if is_gone { units } else { 0 };
            hindsight.here[delay].kept_unit_ms = units * u64::from(delay_ms.min(wait_ms));
        }
        hindsight.unlearned = hindsight.here[Setting::of(&FrozenPolicy::DEFAULT).delay];
        let now = Setting::of(policy).delay;
        let kept = hindsight.here[now].kept_unit_ms / 100 * 65_536;
        Window {
            elapsed_ns: 100_000_000,
            cpu_ns: 10_000_000 + hindsight.here[now].refaults * 16 * 2000,
            page_faults: hindsight.here[now].refaults * 16,
            allocs: 10_000,
            big_requests,
            resident_bytes: (100 << 20) + kept,
            live_bytes: 16 << 20,
            hindsight,
            ..Window::EMPTY
        }
    }

    struct Life {
        foresight: Foresight,
        policy: FrozenPolicy,
        options: Options,
    }

    impl Life {
        fn new(options: Options) -> Self {
            let policy = FrozenPolicy::DEFAULT;
            Self { foresight: Foresight::new(&policy), policy, options }
        }

        fn run(&mut self, windows: u32, big_requests: u64, units: u64, wait_ms: u32) -> u32 {
            for _ in 0..windows {
                let seen = window(big_requests, units, wait_ms, &self.policy);
                self.foresight.look(&seen, &self.policy, &FrozenPolicy::DEFAULT, &self.options);
                self.foresight.apply(&mut self.policy, &self.options);
            }
            self.policy.purge_delay_ms
        }
    }

    #[test]
    fn memory_that_is_wanted_again_soon_is_kept_and_memory_that_is_not_goes_soon() {
        let mut life = Life::new(Options::default());
        assert!(life.run(40, 10, 200, 700) >= 1000);
        let mut life = Life::new(Options::default());
        assert!(life.run(40, 10, 200, 3_600_000) <= 30);
    }

    #[test]
    fn a_season_that_comes_back_finds_its_delay_within_three_windows() {
        let mut life = Life::new(Options::default());
        // Before the first check.
        for _ in 0..2 {
            life.run(45, 20, 200, 700);
            life.run(45, 0, 200, 3_600_000);
        }
        assert!(life.run(3, 20, 200, 700) >= 1000);
        // What was averaged over the last windows has to fade first.
        assert!(life.run(12, 0, 200, 3_600_000) <= 30);
        assert_eq!(life.foresight.seasons.len(), 2);
    }

    #[test]
    fn an_account_that_lies_is_not_listened_to_for_a_while() {
        let mut life = Life::new(Options::default());
        let mut delays = Vec::new();
        for _ in 0..400 {
            let truth = window(10, 400, 200, &life.policy);
            let mut seen = truth.clone();
            // It says that nothing is ever wanted again.
            seen.hindsight.here.iter_mut().for_each(|flow| flow.refaults = 0);
            life.foresight.look(&seen, &life.policy, &FrozenPolicy::DEFAULT, &life.options);
            life.policy = FrozenPolicy::DEFAULT;
            life.foresight.apply(&mut life.policy, &life.options);
            // But memory that is purged at once costs ten times as many faults.
            delays.push(life.policy.purge_delay_ms);
        }
        let believed = delays.iter().filter(|delay| **delay < 300).count();
        assert!((1..200).contains(&believed), "{believed} of 400 windows");
    }

    #[test]
    fn flows_are_bytes_a_second_of_each_kind_whatever_the_length_of_windows() {
        let index = |bytes| hakmem_base::SizeClass::for_bytes(bytes).unwrap().index();
        let near = |flows: Flows, expected: [f64; KINDS]| {
            flows.iter().zip(expected).all(|(flow, bytes)| (flow - log2(1.0 + bytes / FLOOR)).abs() < 1e-3)
        };
        for (elapsed_ms, parts) in [(100.0, 1), (50.0, 2)] {
            let mut seen = Window { big_requests: 10 / parts, ..Window::EMPTY };
            seen.classes[index(1024)].allocs = 60_000 / parts;
            seen.classes[index(2048)].allocs = 40_000 / parts;
            seen.classes[index(4096)].allocs = 10_000 / parts;
            seen.run_groups[2].requests = 100 / parts;
            let mut foresight = Foresight::new(&FrozenPolicy::DEFAULT);
            let mut flows = [0.0; KINDS];
            (0..20 * parts).for_each(|_| flows = foresight.flows(&seen, elapsed_ms));
            let each_100_ms =
                [60_000.0 * 1024.0, 40_000.0 * 2048.0 + 10_000.0 * 4096.0, 100.0 * 393_216.0, 10.0 * 4_194_304.0];
            let rates = each_100_ms.map(|bytes| 10.0 * bytes);
            assert!(near(flows, rates), "{flows:?} {rates:?}");
            // What happened before the last fifth of a second counts a third.
            for _ in 0..2 * parts {
                flows = foresight.flows(&Window::EMPTY, elapsed_ms);
            }
            assert!(near(flows, rates.map(|rate| rate * exp(-1.0))), "{flows:?}");
        }
    }

    #[test]
    fn a_range_widens_soon_and_narrows_slowly() {
        let mut range = Range::at(&[5.0; KINDS]);
        assert_eq!((range.width(), range.distance(&[5.0; KINDS])), (0.0, 0.0));
        assert_eq!(range.distance(&[5.0, 5.0, 3.0, 6.0]), 2.0, "the kind that fits least");
        range.follow(&[7.0, 3.0, 5.0, 5.0]);
        let near = |one: f64, other: f64| (one - other).abs() < 1e-9;
        assert!(near(range.most[0], 5.0 + 2.0 * WIDENS) && near(range.least[0], 5.0 + 2.0 * NARROWS), "{range:?}");
        assert!(near(range.least[1], 5.0 - 2.0 * WIDENS) && near(range.most[1], 5.0 - 2.0 * NARROWS), "{range:?}");
        assert!(near(range.width(), 4.0 * (WIDENS - NARROWS)), "{range:?}");
        // More of some kind than ever, not less of another.
        let high = range.most;
        assert!(!range.has_risen(&high.map(|high| high + 0.9)) && !range.has_risen(&[0.0; KINDS]));
        assert!(range.has_risen(&[0.0, 0.0, 0.0, high[3] + 1.1]));
    }

    #[test]
    fn a_longer_rest_between_bursts_is_believed_at_once_and_a_shorter_one_slowly() {
        let mut season = Season::new(Range::default(), 0);
        season.note_rest(1, 2000.0);
        assert_eq!(season.rests, [REST_MS, 2000.0, REST_MS, REST_MS]);
        season.note_rest(1, 1000.0);
        assert_eq!(season.rests[1], 2000.0 - 1000.0 * RESTS_FOLLOW);
        (0..200).for_each(|_| season.note_rest(1, 1000.0));
        assert!((season.rests[1] - 1000.0).abs() < 10.0, "{:?}", season.rests);
    }

    #[test]
    fn purge_delay_and_huge_pages_are_set_by_account_while_it_is_listened_to() {
        let mut life = Life::new(Options::default());
        life.run(20, 10, 200, 700);
        assert_ne!(life.policy, FrozenPolicy::DEFAULT);
        // A check: the boot policy's settings are back.
        while !life.foresight.canary.rests() {
            life.run(1, 10, 200, 700);
        }
        let mut policy = FrozenPolicy::DEFAULT;
        life.foresight.apply(&mut policy, &life.options);
        assert_eq!(policy, FrozenPolicy::DEFAULT);
    }

    #[test]
    fn a_check_changes_nothing_of_what_is_exported_and_a_failure_does() {
        let exported = |life: &Life| {
            let mut policy = FrozenPolicy::DEFAULT;
            life.foresight.apply_longest(&mut policy, &life.options);
            policy.purge_delay_ms
        };
        let mut life = Life::new(Options::default());
        life.run(100, 10, 200, 700);
        let kept = exported(&life);
        assert!(kept >= 1000);
        while !life.foresight.canary.rests() {
            life.run(1, 10, 200, 700);
        }
        let mut running = FrozenPolicy::DEFAULT;
        life.foresight.apply(&mut running, &life.options);
        assert_eq!((exported(&life), running), (kept, FrozenPolicy::DEFAULT));
        life.foresight.canary.rest();
        assert_eq!(exported(&life), 300);
    }

    #[test]
    fn a_setting_that_is_not_on_the_lists_stays_when_the_other_one_is_changed() {
        let boot = FrozenPolicy { thp_heap_bytes: 10 << 20, ..FrozenPolicy::DEFAULT };
        let (mut foresight, mut policy) = (Foresight::new(&boot), boot.clone());
        for _ in 0..40 {
            let seen = window(10, 200, 3_600_000, &policy);
            foresight.look(&seen, &policy, &boot, &Options::default());
            foresight.apply(&mut policy, &Options::default());
        }
        assert!(policy.purge_delay_ms <= 30);
        assert_eq!(policy.thp_heap_bytes, boot.thp_heap_bytes);
    }

    #[test]
    fn the_account_says_why_a_knob_has_its_value_once_it_says_enough_about_it() {
        let reasons = |life: &Life| [Knob::PurgeDelay, Knob::Thp, Knob::Warm].map(|knob| life.foresight.reason(knob));
        let mut life = Life::new(Options::default());
        assert_eq!(reasons(&life), [None; 3]);
        life.run(20, 10, 200, 700);
        assert_eq!(reasons(&life), [Some(Reason::Foreseen), Some(Reason::Untried), None]);
        life.run(300, 10, 200, 700);
        assert_eq!(reasons(&life), [Some(Reason::Foreseen), Some(Reason::Foreseen), None]);
        life.foresight.canary.rest();
        assert_eq!(reasons(&life), [Some(Reason::Outdated), Some(Reason::Outdated), None]);
    }

    #[test]
    fn a_new_season_takes_the_place_of_the_shortest_one_but_not_of_the_one_that_ends() {
        let boot = FrozenPolicy::DEFAULT;
        let (mut foresight, options) = (Foresight::new(&boot), Options::default());
        foresight.seasons = (0..SEASONS)
            .map(|place| {
                let mut season = Season::new(Range::at(&[20.0 + 3.0 * place as f64; KINDS]), 0);
                (season.elapsed_ms, season.delay) = (10_000.0 + place as f64, place % DELAYS);
                season
            })
            .collect();
        // The one that ends was the shortest of all.
        foresight.now = 5;
        foresight.seasons[5].elapsed_ms = 5000.0;
        let mut turns = 0;
        for _ in 0..30 {
            foresight.look(&window(10, 200, 700, &boot), &boot, &boot, &options);
            turns += u32::from(foresight.turns());
        }
        assert_eq!((turns, foresight.now, foresight.before, foresight.seasons.len()), (1, 0, 5, SEASONS));
        assert_eq!(foresight.seasons[5].elapsed_ms, 5000.0);
    }

    #[test]
    fn what_is_exported_is_set_for_the_season_that_has_lasted_longest() {
        let mut life = Life::new(Options::default());
        life.run(90, 20, 200, 700);
        let kept = life.policy.purge_delay_ms;
        life.run(40, 0, 200, 3_600_000);
        assert!(kept >= 1000 && life.policy.purge_delay_ms <= 30, "{kept} {}", life.policy.purge_delay_ms);
        let mut longest = FrozenPolicy::DEFAULT;
        life.foresight.apply_longest(&mut longest, &life.options);
        assert_eq!(longest.purge_delay_ms, kept);
    }

    #[test]
    fn bursts_are_one_season() {
        let mut life = Life::new(Options::default());
        for _ in 0..100 {
            life.run(1, 50, 500, 700);
            life.run(4, 0, 0, 700);
        }
        assert_eq!(life.foresight.seasons.len(), 1);
        assert!(life.policy.purge_delay_ms >= 1000);
    }

    #[test]
    fn nothing_is_chosen_without_an_account_or_outside_of_bounds_or_where_it_is_off() {
        let mut options = Options::default();
        options.bounds[Knob::PurgeDelay.index()] = crate::knob::Bounds { min: 100, max: 400 };
        assert_eq!(Life::new(options).run(40, 10, 200, 3_600_000), 100);
        let off = Options { purge: false, ..Options::default() };
        assert_eq!(Life::new(off).run(40, 10, 200, 3_600_000), 300);
        let mut life = Life::new(Options::default());
        life.foresight.look(&Window { allocs: 5, ..Window::EMPTY }, &life.policy, &life.policy, &life.options);
        assert!(!life.foresight.is_active());
    }

    #[test]
    fn noise_about_what_makes_no_difference_changes_nothing() {
        let mut life = Life::new(Options::default());
        for number in 0..400_u32 {
            let delay = life.run(1, 10, u64::from(number % 2), 40);
            assert_eq!(delay, 300, "after {number} windows");
        }
        assert_eq!(DELAYS, DELAYS_MS.len());
    }
}
