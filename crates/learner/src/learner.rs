//! The life of a learner: a baseline, trials, and a watch over what was learned.
//!
//! ```text
//!   LEARN: baseline --> what next? --> CANARY: trial --+--> better: it is the best now
//!              ^          |    ^                       |
//!              |          |    +-----------------------+--> worse or a tie: the best runs again
//!              |          v
//!              |      FROZEN: nothing left to try; watch
//!              +---------+--- the cost has risen, or another phase of the program has begun
//! ```
//!
//! One window goes in, and what must run in the next one comes out. There is no clock but the windows' own.

use crate::Window;
use crate::cap::{CapController, CapOptions};
use crate::drift::{Fit, PageHinkley, Shape, ShapeWatch};
use crate::duel::{Duel, Limits, Pace, Side, Verdict};
use crate::dynamic::DynamicClasses;
use crate::foresight::Foresight;
use crate::knob::Knob;
use crate::league::Candidate;
use crate::ledger::{Evidence, Reason};
use crate::math::ln;
use crate::options::Options;
use crate::page::{Comparison, Next, Outcome, Page, Proposal};
use crate::random::Random;
use crate::score::Tally;
use crate::sizes::Sizes;
use crate::window::{mid_demands, run_demands};
use hakmem_base::CLASS_COUNT;
use hakmem_policy::FrozenPolicy;

/// Where a learner is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Measures what runs, or thinks.
    Learn,
    /// Another policy is on trial, and is taken back if it is worse.
    Canary,
    /// Nothing is left to try; it watches whether the program changes.
    Frozen,
}

/// What follows from a window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The policy that must run from now on, if it is another one than before. Always valid.
    pub publish: Option<FrozenPolicy>,
    /// Where the learner is.
    pub phase: Phase,
    /// Another season of the program has begun: who keeps account of what other policies would have led to must know before the
    /// policy is published.
    pub turns: bool,
}

/// Learns a policy from windows.
#[derive(Clone, Debug)]
pub struct Learner {
    options: Options,
    random: Random,
    boot: FrozenPolicy,
    running: FrozenPolicy,
    /// The best policy known for the present, and the one to export.
    settled: FrozenPolicy,
    exported: FrozenPolicy,
    shape: ShapeWatch,
    cost: PageHinkley,
    stage: Stage,
    foresight: Foresight,
    dynamic: DynamicClasses,
    page: Page,
    /// The pages of other phases: all the memory that a learner ever has is taken when it is made.
    others: Vec<Page>,
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one, and it must not be allocated")]
enum Stage {
    Baseline { to_settle: u32, tally: Tally },
    Steer(Steering),
    Compare(Comparison),
    Rest { tally: Tally },
}

/// The controllers of capacities at work.
#[derive(Clone, Debug)]
struct Steering {
    mid: CapController,
    large: CapController,
    draft: FrozenPolicy,
    windows: u32,
    /// Windows since a capacity was last moved.
    still: u32,
}

/// Phases of a program that are remembered, the present one included.
const PAGES: usize = 8;
/// Two shapes this near are the same phase.
const SAME_PHASE: f64 = 0.35;
/// Windows after a start or a change that are not like those that follow.
const SETTLE_WINDOWS: u32 = 1;
/// A rise of the cost's logarithm that is let pass, and the sum of rises that is not.
const COST_TOLERANCE: f64 = 0.02;
const COST_THRESHOLD: f64 = 0.5;
/// Capacities are steered until nothing has moved for some windows, or for so many.
const STEER_STILL: u32 = 3;
const STEER_WINDOWS: u32 = 24;
/// Pairs of turns in a game between two strategies.
const GAME_PAIRS: usize = 3;

impl Learner {
    /// A learner that begins with the policy that runs. The same windows and seed give the same decisions. Everything that it
    /// will ever need is allocated here.
    #[must_use]
    pub fn new(boot: &FrozenPolicy, options: &Options, seed: u64) -> Self {
        Self {
            options: options.clone(),
            random: Random::new(seed),
            boot: boot.clone(),
            running: boot.clone(),
            settled: boot.clone(),
            exported: boot.clone(),
            shape: ShapeWatch::default(),
            cost: PageHinkley::new(COST_TOLERANCE, COST_THRESHOLD),
            stage: Stage::BEGIN,
            foresight: Foresight::new(boot),
            dynamic: DynamicClasses::new(boot),
            page: Page::new(boot, options),
            others: Vec::with_capacity(PAGES - 1),
        }
    }

    /// Takes a window, which the policy ran in that was published last.
    pub fn observe(&mut self, window: &Window) -> Decision {
        self.foresight.look(window, &self.running, &self.boot, &self.options);
        // A program that only frees has a season, but nothing by which a policy could be judged.
        let fit = if window.allocs == 0 { Fit::Strange } else { self.shape.observe(&Shape::of(window)) };
        match fit {
            Fit::Same => {
                self.page.shape = self.shape.phase().copied();
                let is_best = self.running == self.settled;
                self.page.look(window, is_best, self.foresight.is_active(), &self.options);
                self.advance(window);
            }
            // Whatever it was, it says nothing about what is on trial.
            Fit::Strange => {}
            Fit::Another(shape) => self.turn_to(&shape),
        }
        let mut wanted = self.wanted().clone();
        self.foresight.apply(&mut wanted, &self.options);
        self.settled.clone_from(&self.page.best);
        self.foresight.apply(&mut self.settled, &self.options);
        let longest = self.longest().best.clone();
        self.exported = longest;
        self.foresight.apply_longest(&mut self.exported, &self.options);
        if self.options.dynamic {
            [&mut wanted, &mut self.settled, &mut self.exported]
                .into_iter()
                .for_each(|policy| self.dynamic.apply(policy));
        }
        let publish = (wanted != self.running && wanted.validate().is_ok()).then_some(wanted);
        if let Some(policy) = &publish {
            self.running.clone_from(policy);
        }
        Decision { publish, phase: self.phase(), turns: self.foresight.turns() }
    }

    /// Takes a look at the blocks up to 32 KiB that live, in a program with so many live bytes: how many of the sizes of each fixed class,
    /// and what refills were asked for since the last look. What follows from it is part of the next decision.
    pub fn look_at_live_blocks(&mut self, live_bytes: u64, blocks: &[u64; CLASS_COUNT], asked: &Sizes) {
        self.dynamic.look(live_bytes, blocks, asked);
    }

    /// The program has allocated nothing for long. The policy that must run until it does again, if it is another one: what memory
    /// it keeps is no use to anybody meanwhile.
    pub fn fall_silent(&mut self) -> Option<FrozenPolicy> {
        if self.running.purge_delay_ms <= self.boot.purge_delay_ms {
            return None;
        }
        self.running.purge_delay_ms = self.boot.purge_delay_ms;
        Some(self.running.clone())
    }

    /// Where it is in its life.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match self.stage {
            Stage::Baseline { .. } | Stage::Steer(_) => Phase::Learn,
            Stage::Compare(_) => Phase::Canary,
            Stage::Rest { .. } => Phase::Frozen,
        }
    }

    /// What is exported: the best policy known for the phase in which the program has spent most windows.
    #[must_use]
    pub const fn best(&self) -> &FrozenPolicy {
        &self.exported
    }

    /// The best policy known for the present phase of the program.
    #[must_use]
    pub const fn best_now(&self) -> &FrozenPolicy {
        &self.settled
    }

    /// How many phases of the program are remembered.
    #[must_use]
    pub const fn phases(&self) -> usize {
        self.others.len() + 1
    }

    /// What is known about each knob, in the phase whose policy is exported.
    pub fn evidence(&self) -> impl Iterator<Item = Evidence> {
        let page = self.longest();
        Knob::ALL.into_iter().map(move |knob| {
            let entry = page.ledger.of(knob);
            let is_off = entry.trials == 0 && !self.options.learns(knob);
            let by_account = self.foresight.reason(knob);
            let is_left_alone = self.foresight.is_active() && Foresight::leaves_alone(knob) && entry.trials == 0;
            let is_counted = knob == Knob::DynamicClasses && self.dynamic.is_active();
            let reason = match (is_off, by_account) {
                (true, _) => Reason::Off,
                (_, Some(reason)) => reason,
                _ if is_left_alone => Reason::LeftAlone,
                _ if is_counted => Reason::Counted,
                _ => entry.reason,
            };
            // What a trial cost says nothing of a value that comes from elsewhere.
            let is_by_trial = by_account.is_none() && reason != Reason::Counted;
            let (with, without) = if is_by_trial { (entry.with, entry.without) } else { (0.0, 0.0) };
            let (before, now) = (knob.value(&self.boot), knob.value(&self.exported));
            Evidence { knob, before, now, trials: entry.trials, with, without, reason }
        })
    }

    /// The strategies of the present phase, with their ratings (or mean rewards, when a bandit chooses).
    pub fn standings(&self) -> impl Iterator<Item = (&Candidate, f64)> {
        self.page.league().standings()
    }

    fn longest(&self) -> &Page {
        self.others.iter().fold(&self.page, |most, page| if page.windows > most.windows { page } else { most })
    }

    fn wanted(&self) -> &FrozenPolicy {
        match &self.stage {
            Stage::Compare(comparison) => comparison.policy(),
            Stage::Steer(steering) => &steering.draft,
            // A sum of ratios favours whom it is relative to: a policy must not be judged by its own baseline.
            Stage::Baseline { .. } => &self.boot,
            Stage::Rest { .. } => &self.page.best,
        }
    }

    fn advance(&mut self, window: &Window) {
        match &mut self.stage {
            Stage::Baseline { to_settle, tally } => {
                if *to_settle > 0 {
                    *to_settle -= 1;
                    return;
                }
                tally.add(window);
                if tally.windows >= self.options.baseline_windows && tally.events >= self.options.turn_events {
                    self.page.baseline = tally.rates();
                    self.go_on();
                }
            }
            Stage::Steer(steering) => {
                if steering.observe(window) {
                    let draft = steering.draft.clone();
                    self.page.caps_are_steered();
                    if draft == self.page.best {
                        self.go_on();
                    } else {
                        self.compare(Proposal::Caps, self.page.best.clone(), draft);
                    }
                }
            }
            Stage::Compare(Comparison { duel, candidate, proposal, .. }) => {
                let Some(verdict) = duel.observe(window) else { return };
                let outcome = Outcome {
                    proposal: *proposal,
                    candidate,
                    gain: duel.gain(),
                    with: duel.mean_cost(Side::Trial),
                    without: duel.mean_cost(Side::Base),
                    is_better: verdict == Verdict::Better,
                    is_worse: verdict == Verdict::Worse,
                };
                self.page.ended(&outcome, &self.options);
                self.go_on();
            }
            Stage::Rest { tally } => {
                tally.add(window);
                if tally.events < self.options.turn_events {
                    return;
                }
                let rates = core::mem::take(tally).rates();
                let Some((rates, baseline)) = rates.zip(self.page.baseline) else { return };
                if self.cost.observe(ln(self.options.weights.cost(&rates, &baseline))) {
                    self.page.doubt(&self.boot, &self.options);
                    self.stage = Stage::BEGIN;
                }
            }
        }
    }

    /// Begins what comes next on this page.
    fn go_on(&mut self) {
        match self.page.next(&self.boot, &self.options, &mut self.random) {
            Next::SteerCaps => self.stage = Stage::Steer(Steering::new(&self.page.best, &self.options)),
            Next::Compare { proposal, base, candidate } => self.compare(proposal, base, candidate),
            Next::Rest => {
                self.cost = PageHinkley::new(COST_TOLERANCE, COST_THRESHOLD);
                self.stage = Stage::Rest { tally: Tally::EMPTY };
            }
        }
    }

    fn compare(&mut self, proposal: Proposal, base: FrozenPolicy, candidate: FrozenPolicy) {
        let Some(baseline) = self.page.baseline else { return };
        let pace = Pace { windows: self.page.turn_windows(), ..pace_of(&base, &candidate, &self.options) };
        let limits = match proposal {
            Proposal::Game(..) => Limits { pairs: GAME_PAIRS, ..self.options.limits },
            _ => self.options.limits,
        };
        let mut runs_there = base.clone();
        self.foresight.apply(&mut runs_there, &self.options);
        if self.options.dynamic {
            self.dynamic.apply(&mut runs_there);
        }
        let make = if self.running == runs_there { Duel::new } else { Duel::from_elsewhere };
        let duel = make(pace, limits, self.options.weights, baseline);
        self.stage = Stage::Compare(Comparison { duel, proposal, base, candidate });
    }

    /// The program has entered another phase: opens its page, if it was there before, or a new one.
    fn turn_to(&mut self, shape: &Shape) {
        if let Stage::Compare(comparison) = core::mem::replace(&mut self.stage, Stage::BEGIN) {
            self.page.pending = Some(comparison);
        }
        let distance = |page: &Page| page.shape.map_or(1.0, |known| known.distance(shape));
        let nearest = self.others.iter_mut().min_by(|one, other| distance(one).total_cmp(&distance(other)));
        match nearest.filter(|page| distance(page) <= SAME_PHASE) {
            Some(known) => core::mem::swap(&mut self.page, known),
            None => {
                let left = core::mem::replace(&mut self.page, Page::new(&self.boot, &self.options));
                if self.others.len() + 1 < PAGES {
                    self.others.push(left);
                } else if let Some(shortest) = self.others.iter_mut().min_by_key(|page| page.windows) {
                    // Moments between two phases have pages too; a phase that lasted is worth more than the latest one.
                    *shortest = left;
                }
            }
        }
        if let Some(mut comparison) = self.page.pending.take() {
            comparison.duel.resume();
            self.stage = Stage::Compare(comparison);
        } else if self.page.baseline.is_some() {
            self.go_on();
        }
    }
}

impl Stage {
    const BEGIN: Self = Self::Baseline { to_settle: SETTLE_WINDOWS, tally: Tally::EMPTY };
}

impl Steering {
    fn new(best: &FrozenPolicy, options: &Options) -> Self {
        Self {
            mid: CapController::new(within(CapOptions::MID, Knob::MidCap, options)),
            large: CapController::new(within(CapOptions::LARGE, Knob::LargeCap, options)),
            draft: best.clone(),
            windows: 0,
            still: 0,
        }
    }

    /// Takes a window; true when the controllers have come to rest, or had their time.
    fn observe(&mut self, window: &Window) -> bool {
        let before = (self.draft.mid_cap, self.draft.large_cap);
        let draft = &mut self.draft;
        draft.mid_cap = self.mid.step(&draft.mid_cap, &mid_demands(window), draft.mid_budget);
        draft.large_cap = self.large.step(&draft.large_cap, &run_demands(window), draft.large_budget);
        self.windows += 1;
        self.still = if before == (draft.mid_cap, draft.large_cap) { self.still + 1 } else { 0 };
        self.still >= STEER_STILL || self.windows >= STEER_WINDOWS
    }
}

/// The controller's options within a knob's bounds, which hold for each capacity.
fn within(cap: CapOptions, knob: Knob, options: &Options) -> CapOptions {
    let bounds = options.bounds_of(knob);
    let short = |bound: u64| u32::try_from(bound).unwrap_or(u32::MAX);
    let cap = if options.cap_terms { cap.with_all_terms() } else { cap };
    CapOptions { min: cap.min.max(short(bounds.min)), max: cap.max.min(short(bounds.max)), ..cap }
}

/// How long turns must be for the difference between two policies to show.
fn pace_of(base: &FrozenPolicy, candidate: &FrozenPolicy, options: &Options) -> Pace {
    // Memory that is kept or given back shows after the delays that both policies have.
    let keeps_other_memory = [Knob::PurgeDelay, Knob::Warm, Knob::BigRetain, Knob::CacheBytes]
        .into_iter()
        .any(|knob| knob.value(base) != knob.value(candidate));
    let delay_ms = |policy: &FrozenPolicy| policy.purge_delay_ms.max(policy.big_retain_ms);
    let delay_ns = u64::from(delay_ms(base).max(delay_ms(candidate))).saturating_mul(1_000_000);
    let settle_ns = if keeps_other_memory { delay_ns.min(options.settle_longest_ns) } else { 0 };
    Pace {
        settle_windows: SETTLE_WINDOWS,
        settle_ns,
        windows: 1,
        events: options.turn_events,
        longest_ns: options.turn_longest_ns,
        elapsed_ns: settle_ns / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A steady program whose cost per event depends on the purge delay: best at 30 ms, by 20 %.
    fn window(policy: &FrozenPolicy, random: &mut Random) -> Window {
        let away = (f64::from(policy.purge_delay_ms) / 30.0).log10().abs();
        let cpu = 100.0 * (0.8 + 0.2 * away) * (1.0 + 0.01 * random.normal());
        let allocs = 100_000;
        let mut window = Window {
            elapsed_ns: 100_000_000,
            cpu_ns: (cpu * allocs as f64) as u64,
            allocs,
            purged_bytes: 64 << 20,
            purgeable_bytes: 8 << 20,
            live_bytes: 8 << 20,
            resident_bytes: 16 << 20,
            ..Window::EMPTY
        };
        window.classes[5].allocs = allocs;
        window
    }

    fn run(learner: &mut Learner, windows: u32, random: &mut Random) -> Option<u32> {
        let mut policy = FrozenPolicy::DEFAULT;
        for number in 0..windows {
            let decision = learner.observe(&window(&policy, random));
            if let Some(published) = decision.publish {
                assert_eq!(published.validate(), Ok(()));
                policy = published;
            }
            if decision.phase == Phase::Frozen {
                return Some(number + 1);
            }
        }
        None
    }

    #[test]
    fn a_better_value_is_found_and_the_learner_comes_to_rest() {
        let options = Options { strategies: false, ..Options::default() };
        let mut learner = Learner::new(&FrozenPolicy::DEFAULT, &options, 1);
        let windows = run(&mut learner, 2000, &mut Random::new(2));
        assert!(windows.is_some());
        assert_eq!(learner.best().purge_delay_ms, 30);
        let evidence = learner.evidence().find(|evidence| evidence.knob == Knob::PurgeDelay).unwrap();
        assert_eq!(evidence.reason, Reason::Better);
        assert!(evidence.trials >= 2 && evidence.with < evidence.without, "{evidence:?}");
        let outbox = learner.evidence().find(|evidence| evidence.knob == Knob::Outbox).unwrap();
        assert_eq!((outbox.reason, outbox.trials), (Reason::NothingAtStake, 0));
    }

    #[test]
    fn what_is_switched_off_stays() {
        let mut learner = Learner::new(&FrozenPolicy::DEFAULT, &Options::none(), 1);
        assert!(run(&mut learner, 50, &mut Random::new(2)).is_some());
        assert_eq!(*learner.best(), FrozenPolicy::DEFAULT);
        assert!(learner.evidence().all(|evidence| evidence.reason == Reason::Off));
    }

    #[test]
    fn a_silent_program_keeps_no_memory_for_longer_than_the_boot_policy_says() {
        let mut learner = Learner::new(&FrozenPolicy::DEFAULT, &Options::default(), 1);
        assert_eq!(learner.fall_silent(), None);
        learner.running.purge_delay_ms = 30;
        assert_eq!(learner.fall_silent(), None, "a shorter delay stays");
        learner.running.purge_delay_ms = 3000;
        assert_eq!(learner.fall_silent(), Some(FrozenPolicy::DEFAULT));
        assert_eq!(learner.fall_silent(), None);
        // What is wanted runs again with the first window.
        learner.page.best.purge_delay_ms = 3000;
        learner.stage = Stage::Rest { tally: Tally::EMPTY };
        let wanted = FrozenPolicy { purge_delay_ms: 3000, ..FrozenPolicy::DEFAULT };
        assert_eq!(learner.observe(&window(&FrozenPolicy::DEFAULT, &mut Random::new(1))).publish, Some(wanted));
    }

    /// Windows of a phase that allocates at so many times the usual rate: three doublings apart are another one.
    fn phase(times: u64, policy: &FrozenPolicy, random: &mut Random) -> Window {
        let usual = window(policy, random);
        Window { elapsed_ns: usual.elapsed_ns / times, ..usual }
    }

    /// The program is in such a phase for so many windows.
    fn stay(learner: &mut Learner, random: &mut Random, times: u64, windows: u32) {
        for _ in 0..windows {
            learner.observe(&phase(times, &FrozenPolicy::DEFAULT, random));
        }
    }

    #[test]
    fn what_is_exported_is_of_the_phase_that_has_lasted_longest() {
        let mut learner = Learner::new(&FrozenPolicy::DEFAULT, &Options::none(), 1);
        let mut random = Random::new(2);
        stay(&mut learner, &mut random, 1, 50);
        learner.page.best.purge_delay_ms = 100;
        stay(&mut learner, &mut random, 100, 30);
        learner.page.best.purge_delay_ms = 1000;
        stay(&mut learner, &mut random, 100, 5);
        assert_eq!((learner.best().purge_delay_ms, learner.best_now().purge_delay_ms), (100, 1000));
        stay(&mut learner, &mut random, 100, 50);
        assert_eq!((learner.best().purge_delay_ms, learner.best_now().purge_delay_ms), (1000, 1000));
        stay(&mut learner, &mut random, 1, 5);
        assert_eq!((learner.best().purge_delay_ms, learner.best_now().purge_delay_ms), (1000, 100));
    }

    #[test]
    fn eight_phases_are_remembered_and_the_shortest_is_forgotten_for_a_ninth() {
        let mut learner = Learner::new(&FrozenPolicy::DEFAULT, &Options::none(), 1);
        let mut random = Random::new(3);
        for number in 0..8 {
            stay(&mut learner, &mut random, 8_u64.pow(number), if number == 3 { 10 } else { 30 });
            learner.page.best.purge_delay_ms = 100 + number;
            assert_eq!(learner.phases(), number as usize + 1);
        }
        let room = learner.others.capacity();
        // One that is not like any of them, and each of the others again.
        stay(&mut learner, &mut random, 1 << 26, 20);
        assert_eq!((learner.phases(), learner.others.capacity()), (8, room));
        for number in (0..8).filter(|number| *number != 3) {
            stay(&mut learner, &mut random, 8_u64.pow(number), 5);
            assert_eq!((learner.best_now().purge_delay_ms, learner.phases()), (100 + number, 8));
        }
    }

    #[test]
    fn a_peak_of_live_blocks_gets_a_class_of_its_own_and_its_evidence_says_counted() {
        let options = Options { dynamic: true, ..Options::none() };
        let mut learner = Learner::new(&FrozenPolicy::DEFAULT, &options, 1);
        let mut blocks = [0; CLASS_COUNT];
        blocks[hakmem_base::SizeClass::for_bytes(4360).unwrap().index()] = 8000;
        let mut asked = Sizes::new();
        asked.record(4360, 3.0);
        (0..5).for_each(|_| learner.look_at_live_blocks(64 << 20, &blocks, &asked));
        let published = learner.observe(&window(&FrozenPolicy::DEFAULT, &mut Random::new(4))).publish;
        assert_eq!(published.map(|policy| policy.dynamic_classes[0]), Some(4368));
        for evidence in learner.evidence() {
            let is_counted = evidence.knob == Knob::DynamicClasses;
            assert_eq!(evidence.reason, if is_counted { Reason::Counted } else { Reason::Off }, "{evidence:?}");
        }
    }

    #[test]
    fn capacities_are_steered_until_they_stand_still_or_have_had_their_time() {
        let options = Options::default();
        let ends = |steering: &mut Steering, window: &Window| (1..100).find(|_| steering.observe(window));
        let mut steering = Steering::new(&FrozenPolicy::DEFAULT, &options);
        assert_eq!(ends(&mut steering, &Window::EMPTY), Some(STEER_STILL));
        // Hit rates just below the target: a small step in each window, for longer than there is.
        let mut missing = Window::EMPTY;
        for class in &mut missing.classes {
            (class.allocs, class.refills) = (1000, 420);
        }
        let mut steering =
            Steering::new(&FrozenPolicy { mid_cap: [4; 5], mid_budget: 5000, ..FrozenPolicy::DEFAULT }, &options);
        assert_eq!(ends(&mut steering, &missing), Some(STEER_WINDOWS));
        assert!(steering.draft.mid_cap.iter().all(|cap| (50..250).contains(cap)), "{:?}", steering.draft.mid_cap);
        // Three windows in a row, not in all.
        let mut steering =
            Steering::new(&FrozenPolicy { mid_cap: [4; 5], mid_budget: 5000, ..FrozenPolicy::DEFAULT }, &options);
        for _ in 0..4 {
            assert!(
                !steering.observe(&Window::EMPTY) && !steering.observe(&Window::EMPTY) && !steering.observe(&missing)
            );
        }
    }

    #[test]
    fn turns_between_policies_that_keep_other_memory_wait_for_the_longer_delay() {
        let (boot, options) = (FrozenPolicy::DEFAULT, Options::default());
        let keeps = FrozenPolicy { purge_delay_ms: boot.purge_delay_ms + 100, ..boot.clone() };
        let refills = FrozenPolicy { refill_bytes: 8192, ..boot.clone() };
        let never = FrozenPolicy { purge_delay_ms: u32::MAX, ..boot.clone() };
        let waits = |base, candidate| {
            let pace = pace_of(base, candidate, &options);
            (pace.settle_ns, pace.elapsed_ns)
        };
        let longer_ns = u64::from(keeps.purge_delay_ms) * 1_000_000;
        assert_eq!(waits(&boot, &keeps), (longer_ns, longer_ns / 2));
        assert_eq!(waits(&keeps, &boot), (longer_ns, longer_ns / 2));
        assert_eq!(waits(&boot, &refills), (0, 0));
        assert_eq!(waits(&boot, &never), (options.settle_longest_ns, options.settle_longest_ns / 2));
    }
}
