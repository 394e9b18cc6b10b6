//! What is known about one phase of a program, and the proposals that follow from it.
//!
//! A program that works by day and rests by night is two programs. Each has a page: the best policy there, what was tried, and
//! why. When a phase comes back its page is opened again, its policy runs at once, and what was left to try goes on.

use crate::Window;
use crate::drift::Shape;
use crate::duel::{Duel, Side};
use crate::foresight::Foresight;
use crate::knob::{Direction, Knob};
use crate::league::{League, Match, STRATEGIES, open_candidates};
use crate::ledger::{Ledger, Reason};
use crate::math::ln;
use crate::moves::{Move, Moves};
use crate::options::Options;
use crate::random::Random;
use crate::score::{Rates, Tally, Weights};
use crate::stakes::Stakes;
use hakmem_policy::FrozenPolicy;

/// What is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Proposal {
    /// The boot policy: does what was learned still hold?
    Boot,
    /// Where the controllers of capacities have come to.
    Caps,
    /// A strategy against the best policy.
    Strategy(usize),
    /// Two strategies against each other.
    Game(usize, usize),
    /// One knob, one step.
    Step(Move),
}

/// The next thing to do.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::large_enum_variant, reason = "it lives for a moment")]
pub(crate) enum Next {
    /// Let the controllers run.
    SteerCaps,
    /// Compare two policies.
    Compare { proposal: Proposal, base: FrozenPolicy, candidate: FrozenPolicy },
    /// Nothing is left to try.
    Rest,
}

/// One phase of a program.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// What the program asks for in this phase.
    pub(crate) shape: Option<Shape>,
    /// The best policy known.
    pub(crate) best: FrozenPolicy,
    /// What the boot policy costs here.
    pub(crate) baseline: Option<Rates>,
    /// Windows spent here.
    pub(crate) windows: u64,
    /// Some knobs are set by account (`foresight.rs`) and need no trial.
    is_foreseen: bool,
    stakes: Stakes,
    noise: Noise,
    caps_are_done: bool,
    is_doubted: bool,
    league: League,
    moves: Moves,
    pub(crate) ledger: Ledger,
    /// The comparison that the end of the phase has interrupted.
    pub(crate) pending: Option<Comparison>,
}

/// How much the cost of a window differs from that of others where the same policy runs.
#[derive(Clone, Copy, Debug, Default)]
struct Noise {
    /// What the others are compared with: the first window.
    first: Option<Rates>,
    mean: f64,
    variance: f64,
    count: f64,
}

impl Noise {
    fn look(&mut self, window: &Window, weights: &Weights) {
        let mut tally = Tally::default();
        tally.add(window);
        let Some(rates) = tally.rates() else { return };
        let cost = ln(weights.cost(&rates, self.first.get_or_insert(rates)));
        // The mean of the first few, and of the latest twenty or so later.
        self.count = (self.count + 1.0).min(NOISE_WINDOWS);
        let off = cost - self.mean;
        self.mean += off / self.count;
        self.variance += (off * (cost - self.mean) - self.variance) / self.count;
    }
}

const NOISE_WINDOWS: f64 = 20.0;
/// Deviation of a turn's cost that is aimed at, and windows of a turn at most.
const TURN_DEVIATION: f64 = 0.05;
const TURN_WINDOWS: f64 = 4.0;

/// What a step must be able to gain, as a part of the score, where settings are chosen by account.
const WORTH_A_TRIAL: f64 = 0.25;

/// A comparison under way.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    pub(crate) duel: Duel,
    pub(crate) proposal: Proposal,
    pub(crate) base: FrozenPolicy,
    pub(crate) candidate: FrozenPolicy,
}

impl Comparison {
    /// What runs in the next window.
    pub(crate) const fn policy(&self) -> &FrozenPolicy {
        match self.duel.side() {
            Side::Base => &self.base,
            Side::Trial => &self.candidate,
        }
    }
}

impl Page {
    /// Nothing is known but the boot policy.
    pub(crate) fn new(boot: &FrozenPolicy, options: &Options) -> Self {
        Self {
            shape: None,
            best: boot.clone(),
            baseline: None,
            windows: 0,
            is_foreseen: false,
            stakes: Stakes::default(),
            noise: Noise::default(),
            caps_are_done: !options.cap,
            is_doubted: false,
            league: League::new(boot, options),
            moves: Moves::new(options),
            ledger: Ledger::default(),
            pending: None,
        }
    }

    pub(crate) const fn league(&self) -> &League {
        &self.league
    }

    /// Takes notice of a window of this phase, in which the best policy ran or another one.
    pub(crate) fn look(&mut self, window: &Window, is_best: bool, is_foreseen: bool, options: &Options) {
        self.windows += 1;
        self.is_foreseen = is_foreseen;
        // What is at stake is so where the best known policy runs, not in the middle of somebody's trial.
        if is_best {
            self.stakes.look(window, &self.best);
            self.noise.look(window, &options.weights);
        }
    }

    fn stake(&self, step: Move, options: &Options) -> f64 {
        let stake = self.stakes.of(step.knob, step.direction, &options.weights);
        // What an account sets is not tried, and once the large gains are had without trials the small ones are not worth any.
        let is_worth_a_trial = Foresight::leaves_to_trials(step.knob) && stake >= WORTH_A_TRIAL;
        if !self.is_foreseen || is_worth_a_trial { stake } else { 0.0 }
    }

    /// Whether another value of the knob could gain anything worth having.
    fn has_stake(&self, knob: Knob, options: &Options) -> bool {
        [Direction::Down, Direction::Up]
            .into_iter()
            .any(|direction| self.stake(Move { knob, direction }, options) >= options.limits.min_gain)
    }

    /// Windows that a turn should have, so that its cost says something.
    pub(crate) fn turn_windows(&self) -> u32 {
        (self.noise.variance / (TURN_DEVIATION * TURN_DEVIATION)).ceil().clamp(1.0, TURN_WINDOWS) as u32
    }

    /// What was learned here may not hold any more.
    pub(crate) fn doubt(&mut self, boot: &FrozenPolicy, options: &Options) {
        self.is_doubted = self.best != *boot;
        self.pending = None;
        self.caps_are_done = !options.cap;
        self.league.reopen(options);
        self.moves.reopen();
    }

    /// The next thing to do: first what is in doubt; then single steps, which gain soonest; then the capacities; then whole
    /// policies, which may lie beyond a ridge that single steps do not cross.
    pub(crate) fn next(&mut self, boot: &FrozenPolicy, options: &Options, random: &mut Random) -> Next {
        if self.is_doubted {
            let (base, candidate) = (self.best.clone(), boot.clone());
            return Next::Compare { proposal: Proposal::Boot, base, candidate };
        }
        let stake = |step: Move| self.stake(step, options);
        if let Some((step, candidate)) = self.moves.next(&self.best, options, stake, random) {
            return Next::Compare { proposal: Proposal::Step(step), base: self.best.clone(), candidate };
        }
        self.caps_are_done |= self.stake_of_caps(options) < options.limits.min_gain;
        if !self.caps_are_done {
            return Next::SteerCaps;
        }
        let candidates = self.candidates(boot, options);
        if let Some(next) = self.next_match(&candidates, boot, options, random) {
            return next;
        }
        for knob in Knob::ALL {
            let reason = if self.has_stake(knob, options) { Reason::Untried } else { Reason::NothingAtStake };
            self.ledger.explain(knob, reason);
        }
        Next::Rest
    }

    fn stake_of_caps(&self, options: &Options) -> f64 {
        [Knob::MidCap, Knob::LargeCap]
            .into_iter()
            .map(|knob| self.stake(Move { knob, direction: Direction::Up }, options))
            .fold(0.0, f64::max)
    }

    /// The strategies as they would run now, and what each could gain.
    fn candidates(&self, boot: &FrozenPolicy, options: &Options) -> [Option<(FrozenPolicy, f64)>; STRATEGIES] {
        let mut candidates = [const { None }; STRATEGIES];
        for (place, candidate) in candidates.iter_mut().enumerate() {
            *candidate = self.league.policy(place, boot, &self.best, |step| self.stake(step, options));
        }
        candidates
    }

    fn next_match(
        &mut self,
        candidates: &[Option<(FrozenPolicy, f64)>; STRATEGIES],
        boot: &FrozenPolicy,
        options: &Options,
        random: &mut Random,
    ) -> Option<Next> {
        let gain = |place: usize| candidates.get(place).and_then(Option::as_ref).map_or(0.0, |(_, gain)| *gain);
        let open = open_candidates(|place| gain(place) >= options.limits.min_gain);
        let next = self.league.next(open, gain, options, random)?;
        // After a round there are mutants among them.
        let policy = |place: usize| {
            self.league.policy(place, boot, &self.best, |step| self.stake(step, options)).map(|(policy, _)| policy)
        };
        // A mutant may have come to be what runs already; that game is against the best itself, and a draw.
        let or_best = |place: usize| policy(place).unwrap_or_else(|| self.best.clone());
        Some(match next {
            Match::Game(one, other) => {
                Next::Compare { proposal: Proposal::Game(one, other), base: or_best(one), candidate: or_best(other) }
            }
            Match::Trial(place) => Next::Compare {
                proposal: Proposal::Strategy(place),
                base: self.best.clone(),
                candidate: or_best(place),
            },
        })
    }

    /// The capacities have been steered; what came of it is on trial, or was no change.
    pub(crate) const fn caps_are_steered(&mut self) {
        self.caps_are_done = true;
    }

    /// A comparison has ended.
    pub(crate) fn ended(&mut self, outcome: &Outcome<'_>, options: &Options) {
        let Outcome { proposal, candidate, gain, with, without, is_better, is_worse } = *outcome;
        if let Proposal::Game(one, other) = proposal {
            self.league.game_ended(one, other, gain, options.limits.min_gain);
            return;
        }
        let reason = match (is_better, is_worse) {
            (true, _) if matches!(proposal, Proposal::Strategy(_)) => Reason::Strategy,
            (true, _) if matches!(proposal, Proposal::Boot) => Reason::Outdated,
            (true, _) => Reason::Better,
            (_, true) => Reason::RolledBack,
            _ => Reason::NoDifference,
        };
        let (kept, other) = if is_better { (with, without) } else { (without, with) };
        for knob in Knob::ALL {
            if knob.value(&self.best) != knob.value(candidate) {
                self.ledger.tried(knob, kept, other, reason);
            }
        }
        match proposal {
            Proposal::Boot => self.is_doubted = false,
            Proposal::Strategy(place) => self.league.trial_ended(place, gain),
            Proposal::Step(step) => self.moves.ended(step, gain, is_better),
            Proposal::Caps | Proposal::Game(..) => {}
        }
        if is_better {
            self.best.clone_from(candidate);
        }
    }
}

/// How a comparison ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome<'a> {
    pub(crate) proposal: Proposal,
    pub(crate) candidate: &'a FrozenPolicy,
    pub(crate) gain: f64,
    pub(crate) with: f64,
    pub(crate) without: f64,
    pub(crate) is_better: bool,
    pub(crate) is_worse: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page that has seen so many windows whose cost per block deviates by this part.
    fn seen(deviation: f64, windows: u32) -> Page {
        let mut random = Random::new(5);
        let mut page = Page::new(&FrozenPolicy::DEFAULT, &Options::default());
        for _ in 0..windows {
            let cpu_ns = (1e9 * (deviation * random.normal()).exp()) as u64;
            let window = Window { elapsed_ns: 100_000_000, allocs: 1_000_000, cpu_ns, ..Window::EMPTY };
            page.look(&window, true, false, &Options::default());
        }
        page
    }

    #[test]
    fn turns_are_longer_where_windows_are_less_alike() {
        let weights = Weights::default();
        let parts = weights.cpu / (weights.cpu + weights.faults);
        assert_eq!(seen(0.0, 0).turn_windows(), 1);
        assert_eq!(seen(0.01, 200).turn_windows(), 1);
        // The cost is of CPU time and of faults, of which there are none.
        let deviation = seen(0.08 / parts, 200).noise.variance.sqrt();
        assert!((0.05..0.11).contains(&deviation), "{deviation}");
        assert!((2..=4).contains(&seen(0.08 / parts, 200).turn_windows()));
        assert_eq!(seen(0.5, 200).turn_windows(), 4);
    }

    #[test]
    fn a_program_that_has_become_steady_has_short_turns_again() {
        let mut page = seen(0.5, 50);
        let window = Window { elapsed_ns: 100_000_000, allocs: 1_000_000, cpu_ns: 1_000_000_000, ..Window::EMPTY };
        (0..200).for_each(|_| page.look(&window, true, false, &Options::default()));
        assert_eq!(page.turn_windows(), 1);
        // What costs another policy's trial says nothing.
        let other = Window { cpu_ns: 9_000_000_000, ..window };
        (0..20).for_each(|_| page.look(&other, false, false, &Options::default()));
        assert_eq!(page.turn_windows(), 1);
    }

    #[test]
    fn what_is_in_doubt_is_first_compared_with_the_boot_policy_and_only_then_anything_else_is_tried() {
        let (boot, options, mut random) = (FrozenPolicy::DEFAULT, Options::none(), Random::new(1));
        let mut page = Page::new(&boot, &options);
        page.doubt(&boot, &options);
        assert_eq!(
            page.next(&boot, &options, &mut random),
            Next::Rest,
            "the boot policy runs: there is nothing to doubt"
        );
        let learned = FrozenPolicy { purge_delay_ms: 30, ..boot.clone() };
        for is_better in [false, true] {
            page.best = learned.clone();
            page.doubt(&boot, &options);
            let expected = Next::Compare { proposal: Proposal::Boot, base: learned.clone(), candidate: boot.clone() };
            assert_eq!(page.next(&boot, &options, &mut random), expected);
            let outcome = Outcome {
                proposal: Proposal::Boot,
                candidate: &boot,
                gain: 0.0,
                with: 1.0,
                without: 1.0,
                is_better,
                is_worse: !is_better,
            };
            page.ended(&outcome, &options);
            assert_eq!(page.best, if is_better { boot.clone() } else { learned.clone() });
            assert_eq!(page.next(&boot, &options, &mut random), Next::Rest);
            // The verdict is about the knobs in which the two differ.
            let reason = if is_better { Reason::Outdated } else { Reason::RolledBack };
            assert_eq!(page.ledger.of(Knob::PurgeDelay).reason, reason);
            assert_eq!(page.ledger.of(Knob::Warm).trials, 0);
        }
    }
}
