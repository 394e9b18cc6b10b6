//! The life of a learner: a baseline, trials, and a watch over what was learned.
//!
//! ```text
//!   LEARN: baseline --> next proposal --> CANARY: trial --+--> better: it is the best now
//!              ^            |   ^                         |
//!              |            |   +-------------------------+--> worse or a tie: the best runs again
//!              |            v
//!              |        FROZEN: nothing left to try; watch
//!              +--- the program has changed ----+
//! ```
//!
//! One window goes in, and what must run in the next one comes out. There is no clock but the windows' own.

use crate::Window;
use crate::drift::{PageHinkley, Shape, ShapeWatch};
use crate::duel::{Duel, Pace, Side, Verdict};
use crate::knob::Knob;
use crate::ledger::{Evidence, Ledger, Reason};
use crate::moves::{Move, Moves};
use crate::options::Options;
use crate::random::Random;
use crate::score::{Rates, Tally};
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
}

/// Learns a policy from windows.
#[derive(Clone, Debug)]
pub struct Learner {
    options: Options,
    rng: Random,
    boot: FrozenPolicy,
    best: FrozenPolicy,
    running: FrozenPolicy,
    baseline: Option<Rates>,
    /// Knobs (one bit each) whose mechanism has worked since the phase began.
    exercised: u32,
    shape: ShapeWatch,
    cost: PageHinkley,
    stage: Stage,
    moves: Moves,
    ledger: Ledger,
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one, and it must not be allocated")]
enum Stage {
    Baseline { to_settle: u32, tally: Tally },
    Trial { duel: Duel, candidate: FrozenPolicy, proposal: Proposal },
    Watch { tally: Tally },
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Proposal {
    /// Does what was learned still hold?
    Boot,
    Step(Move),
}

/// Windows after a start or a change that are not like those that follow.
const SETTLE_WINDOWS: u32 = 1;
/// A rise of the cost's logarithm that is let pass, and the sum of rises that is not.
const COST_TOLERANCE: f64 = 0.02;
const COST_THRESHOLD: f64 = 0.5;

impl Learner {
    /// A learner that begins with the policy that runs. The same windows and seed give the same decisions.
    #[must_use]
    pub fn new(boot: &FrozenPolicy, options: &Options, seed: u64) -> Self {
        Self {
            options: options.clone(),
            rng: Random::new(seed),
            boot: boot.clone(),
            best: boot.clone(),
            running: boot.clone(),
            baseline: None,
            exercised: 0,
            shape: ShapeWatch::default(),
            cost: PageHinkley::new(COST_TOLERANCE, COST_THRESHOLD),
            stage: Stage::BEGIN,
            moves: Moves::new(options),
            ledger: Ledger::default(),
        }
    }

    /// Takes a window, which the policy ran in that was published last.
    pub fn observe(&mut self, window: &Window) -> Decision {
        for knob in Knob::ALL {
            self.exercised |= u32::from(knob.is_exercised(window)) << knob.index();
        }
        if self.shape.observe(&Shape::of(window)).is_some() {
            self.program_has_changed();
        } else {
            self.advance(window);
        }
        let wanted = self.wanted();
        let publish = (*wanted != self.running && wanted.validate().is_ok()).then(|| wanted.clone());
        if let Some(policy) = &publish {
            self.running.clone_from(policy);
        }
        Decision { publish, phase: self.phase() }
    }

    /// Where it is in its life.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match self.stage {
            Stage::Baseline { .. } => Phase::Learn,
            Stage::Trial { .. } => Phase::Canary,
            Stage::Watch { .. } => Phase::Frozen,
        }
    }

    /// The best policy known: what is exported.
    #[must_use]
    pub const fn best(&self) -> &FrozenPolicy {
        &self.best
    }

    /// What is known about each knob.
    pub fn evidence(&self) -> impl Iterator<Item = Evidence> {
        Knob::ALL.into_iter().map(|knob| {
            let entry = self.ledger.of(knob);
            let untried = if self.options.learns(knob) { entry.reason } else { Reason::Off };
            Evidence {
                knob,
                before: knob.value(&self.boot),
                now: knob.value(&self.best),
                trials: entry.trials,
                with: entry.with,
                without: entry.without,
                reason: if entry.trials == 0 { untried } else { entry.reason },
            }
        })
    }

    fn wanted(&self) -> &FrozenPolicy {
        match &self.stage {
            Stage::Trial { duel, candidate, .. } if duel.side() == Side::Trial => candidate,
            _ => &self.best,
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
                    self.baseline = tally.rates();
                    self.next_trial();
                }
            }
            Stage::Trial { duel, candidate, proposal } => {
                let Some(verdict) = duel.observe(window) else { return };
                let (duel, candidate, proposal) = (duel.clone(), candidate.clone(), *proposal);
                self.end_trial(&duel, verdict, candidate, proposal);
                self.next_trial();
            }
            Stage::Watch { tally } => {
                tally.add(window);
                if tally.events < self.options.turn_events {
                    return;
                }
                let rates = core::mem::take(tally).rates();
                let (Some(rates), Some(baseline)) = (rates, self.baseline) else { return };
                if self.cost.observe(self.options.weights.cost(&rates, &baseline).ln()) {
                    self.moves.reopen();
                    self.stage = Stage::BEGIN;
                    if self.best != self.boot {
                        self.begin(Proposal::Boot, self.boot.clone());
                    }
                }
            }
        }
    }

    fn next_trial(&mut self) {
        let exercised = self.exercised;
        let is_exercised = |knob: Knob| exercised >> knob.index() & 1 == 1;
        match self.moves.next(&self.best, &self.options, is_exercised, &mut self.rng) {
            Some((step, candidate)) => self.begin(Proposal::Step(step), candidate),
            None => {
                for knob in Knob::ALL {
                    let reason = if is_exercised(knob) { Reason::NoDifference } else { Reason::NotExercised };
                    self.ledger.explain(knob, reason);
                }
                self.cost = PageHinkley::new(COST_TOLERANCE, COST_THRESHOLD);
                self.stage = Stage::Watch { tally: Tally::default() };
            }
        }
    }

    fn begin(&mut self, proposal: Proposal, candidate: FrozenPolicy) {
        let Some(baseline) = self.baseline else { return };
        let pace = pace_of(&self.best, &candidate, &self.options);
        let limits = self.options.limits;
        let duel = if self.running == self.best {
            Duel::new(pace, limits, self.options.weights, baseline)
        } else {
            Duel::from_elsewhere(pace, limits, self.options.weights, baseline)
        };
        self.stage = Stage::Trial { duel, candidate, proposal };
    }

    fn end_trial(&mut self, duel: &Duel, verdict: Verdict, candidate: FrozenPolicy, proposal: Proposal) {
        let is_better = verdict == Verdict::Better;
        let reason = match verdict {
            Verdict::Better => Reason::Better,
            Verdict::Worse => Reason::RolledBack,
            Verdict::Tie => Reason::NoDifference,
        };
        for knob in Knob::ALL {
            if knob.value(&self.best) != knob.value(&candidate) {
                self.ledger.tried(knob, duel.mean_cost(Side::Trial), duel.mean_cost(Side::Base), reason);
            }
        }
        if let Proposal::Step(step) = proposal {
            self.moves.ended(step, duel.gains().median(), is_better);
        }
        if is_better {
            self.best = candidate;
        }
    }

    /// A new phase of the program: what was learned was learned about another one.
    fn program_has_changed(&mut self) {
        self.best.clone_from(&self.boot);
        self.exercised = 0;
        self.moves.reopen();
        self.stage = Stage::BEGIN;
    }
}

impl Stage {
    const BEGIN: Self = Self::Baseline { to_settle: SETTLE_WINDOWS, tally: Tally::EMPTY };
}

/// How long turns must be for the difference between two policies to show.
fn pace_of(base: &FrozenPolicy, candidate: &FrozenPolicy, options: &Options) -> Pace {
    // Memory that is kept or given back shows after the delays that both policies have.
    let keeps_other_memory = [Knob::PurgeDelay, Knob::Warm, Knob::BigRetain, Knob::CacheBytes]
        .into_iter()
        .any(|knob| knob.value(base) != knob.value(candidate));
    let delay_ms = |policy: &FrozenPolicy| policy.purge_delay_ms.max(policy.big_retain_ms);
    let delay_ns = u64::from(delay_ms(base).max(delay_ms(candidate))).saturating_mul(1_000_000);
    let elapsed_ns = if keeps_other_memory { delay_ns.min(options.turn_longest_ns) } else { 0 };
    Pace { settle_windows: SETTLE_WINDOWS, settle_ns: elapsed_ns, windows: 1, events: options.turn_events, elapsed_ns }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A steady program whose cost per event depends on the purge delay: best at 30 ms, by 20 %.
    fn window(policy: &FrozenPolicy, rng: &mut Random) -> Window {
        let away = (f64::from(policy.purge_delay_ms) / 30.0).log10().abs();
        let cpu = 100.0 * (0.8 + 0.2 * away) * (1.0 + 0.01 * rng.normal());
        let allocs = 100_000;
        let mut window = Window {
            elapsed_ns: 100_000_000,
            cpu_ns: (cpu * allocs as f64) as u64,
            allocs,
            purged_bytes: 1 << 20,
            live_bytes: 8 << 20,
            resident_bytes: 16 << 20,
            ..Window::EMPTY
        };
        window.classes[5].allocs = allocs;
        window
    }

    fn run(learner: &mut Learner, windows: u32, rng: &mut Random) -> Option<u32> {
        let mut policy = FrozenPolicy::DEFAULT;
        for number in 0..windows {
            let decision = learner.observe(&window(&policy, rng));
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
        let mut learner = Learner::new(&FrozenPolicy::DEFAULT, &Options::default(), 1);
        let windows = run(&mut learner, 2000, &mut Random::new(2));
        assert!(windows.is_some());
        assert_eq!(learner.best().purge_delay_ms, 30);
        let evidence = learner.evidence().find(|evidence| evidence.knob == Knob::PurgeDelay).unwrap();
        assert_eq!(evidence.reason, Reason::Better);
        assert!(evidence.trials >= 2 && evidence.with < evidence.without, "{evidence:?}");
        let outbox = learner.evidence().find(|evidence| evidence.knob == Knob::Outbox).unwrap();
        assert_eq!((outbox.reason, outbox.trials), (Reason::NotExercised, 0));
    }

    #[test]
    fn what_is_switched_off_stays() {
        let mut learner = Learner::new(&FrozenPolicy::DEFAULT, &Options::none(), 1);
        assert!(run(&mut learner, 50, &mut Random::new(2)).is_some());
        assert_eq!(*learner.best(), FrozenPolicy::DEFAULT);
        assert!(learner.evidence().all(|evidence| evidence.reason == Reason::Off));
    }
}
