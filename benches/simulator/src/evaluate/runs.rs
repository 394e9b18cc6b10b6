//! Replays: under a policy that never changes, and under a learner.

use hakmem_base::Hindsight;
use hakmem_learner::{ClassWindow, GroupWindow, Learner, Options, Phase, Window};
use hakmem_policy::FrozenPolicy;

use super::Cost;
use crate::model::{Costs, Levels, Machine, Totals};
use crate::trace::{Event, Trace, What};

/// Windows end as those of the allocator's worker do: after this time, or so many blocks, but not before the shortest time.
const WINDOW_NS: u64 = 100_000_000;
const WINDOW_SHORTEST_NS: u64 = 10_000_000;
const WINDOW_ALLOCS: u64 = 1 << 18;

/// A trace with what is needed to run it in rounds.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The trace.
    pub trace: Trace,
    tail: Vec<Event>,
}

impl Subject {
    /// Of a trace.
    #[must_use]
    pub fn new(trace: Trace) -> Self {
        let tail = trace.tail();
        Self { trace, tail }
    }

    pub(super) fn round(&self) -> impl Iterator<Item = &Event> {
        // A border at the very end is none.
        let events = self.trace.events();
        let whole = events.iter().rposition(|event| event.what != What::Phase).map_or(0, |last| last + 1);
        events.get(..whole).unwrap_or(events).iter().chain(&self.tail)
    }
}

/// What each phase of the second round costs under a policy that never changes.
#[must_use]
pub fn settled(subject: &Subject, policy: &FrozenPolicy, costs: &Costs) -> Vec<Cost> {
    settle(Machine::new(&subject.trace, policy, costs), subject)
}

/// The same while somebody learns, but nothing comes of it.
pub(super) fn attended(subject: &Subject, policy: &FrozenPolicy, costs: &Costs) -> Vec<Cost> {
    let mut machine = Machine::new(&subject.trace, policy, costs);
    machine.attend();
    settle(machine, subject)
}

fn settle(machine: Machine, subject: &Subject) -> Vec<Cost> {
    run_rounds(machine, subject, 2).pop().unwrap_or_default()
}

/// What each phase of each round costs under a policy that never changes.
pub(super) fn unchanged(subject: &Subject, policy: &FrozenPolicy, costs: &Costs, rounds: u32) -> Vec<Vec<Cost>> {
    run_rounds(Machine::new(&subject.trace, policy, costs), subject, rounds)
}

fn run_rounds(mut machine: Machine, subject: &Subject, rounds: u32) -> Vec<Vec<Cost>> {
    let mut all = Vec::new();
    let mut before = machine.totals();
    for _round in 0..rounds {
        let mut phases = Vec::new();
        for event in subject.round() {
            machine.step(event);
            if event.what == What::Phase {
                end_phase(&mut machine, &mut before, &mut phases);
            }
        }
        end_phase(&mut machine, &mut before, &mut phases);
        all.push(phases);
    }
    all
}

fn end_phase(machine: &mut Machine, before: &mut Totals, phases: &mut Vec<Cost>) {
    let now = machine.totals();
    phases.push(Cost::of(&now.since(before)));
    *before = now;
}

/// A policy that a learner published.
#[derive(Clone, Debug)]
pub struct Step {
    /// When.
    pub at_ns: u64,
    /// Where the learner was in its life then.
    pub phase: Phase,
    /// What runs from then on.
    pub policy: FrozenPolicy,
}

/// A run under a learner.
#[derive(Clone, Debug)]
pub struct Learned {
    /// What each phase of each round cost.
    pub rounds: Vec<Vec<Cost>>,
    /// Policies published.
    pub log: Vec<Step>,
    /// Time and blocks until the learner came to rest for the first time.
    pub converged: Option<(u64, u64)>,
    /// What it would export at the end.
    pub best: FrozenPolicy,
}

/// Runs a learner for some rounds.
#[must_use]
pub fn learned(subject: &Subject, options: &Options, costs: &Costs, seed: u64, rounds: u32) -> Learned {
    let boot = FrozenPolicy::DEFAULT;
    let mut machine = Machine::new(&subject.trace, &boot, costs);
    if *options != Options::none() {
        machine.attend();
    }
    let mut watch = Watch::new(Learner::new(&boot, options, seed), &mut machine);
    let mut all = Vec::new();
    let mut before = machine.totals();
    for _round in 0..rounds {
        let mut phases = Vec::new();
        for event in subject.round() {
            machine.work(event.delta_ns);
            let end_ns = machine.now_ns() + u64::from(event.delta_ns);
            while watch.due_ns <= end_ns {
                machine.pass(watch.due_ns.max(machine.now_ns()));
                watch.look(&mut machine);
            }
            machine.pass(end_ns);
            machine.happen(event);
            if machine.allocs() >= watch.due_allocs && machine.now_ns() >= watch.earliest_ns {
                watch.look(&mut machine);
            }
            if watch.is_parked && machine.allocs() > watch.before.counters.allocs {
                watch.wake(&mut machine);
            }
            if event.what == What::Phase {
                end_phase(&mut machine, &mut before, &mut phases);
            }
        }
        end_phase(&mut machine, &mut before, &mut phases);
        all.push(phases);
    }
    Learned { rounds: all, log: watch.log, converged: watch.converged, best: watch.learner.best().clone() }
}

/// What the allocator's worker does: looks now and then, hands the difference to the learner, publishes what comes back.
struct Watch {
    learner: Learner,
    before: Totals,
    classes_before: Vec<ClassWindow>,
    groups_before: Vec<GroupWindow>,
    hindsight_before: Hindsight,
    in_use_before: u64,
    due_ns: u64,
    earliest_ns: u64,
    due_allocs: u64,
    /// The program allocates nothing: the worker waits until it does, and what happens meanwhile belongs to no window.
    is_parked: bool,
    log: Vec<Step>,
    converged: Option<(u64, u64)>,
}

impl Watch {
    fn new(learner: Learner, machine: &mut Machine) -> Self {
        let mut watch = Self {
            learner,
            before: Totals::default(),
            classes_before: Vec::new(),
            groups_before: Vec::new(),
            hindsight_before: Hindsight::EMPTY,
            in_use_before: 0,
            due_ns: 0,
            earliest_ns: 0,
            due_allocs: 0,
            is_parked: false,
            log: Vec::new(),
            converged: None,
        };
        watch.wake(machine);
        watch
    }

    fn wake(&mut self, machine: &mut Machine) {
        self.before = machine.totals();
        (self.classes_before, self.groups_before) = counts(machine);
        self.is_parked = false;
        self.wind_up();
    }

    fn wind_up(&mut self) {
        self.due_ns = self.before.elapsed_ns + WINDOW_NS;
        self.earliest_ns = self.before.elapsed_ns + WINDOW_SHORTEST_NS;
        self.due_allocs = self.before.counters.allocs + WINDOW_ALLOCS;
    }

    fn look(&mut self, machine: &mut Machine) {
        let now = machine.totals();
        let flows = now.since(&self.before);
        let levels = machine.levels();
        // Memory that only goes is worth a look too.
        let moves = flows.counters.allocs + flows.counters.retired_slabs + flows.counters.purged_units;
        if moves == 0 && levels.in_use_bytes == self.in_use_before {
            self.is_parked = true;
            (self.due_ns, self.due_allocs) = (u64::MAX, u64::MAX);
            return;
        }
        let (classes, groups) = counts(machine);
        let mut window = window_of(&flows, &levels);
        self.in_use_before = levels.in_use_bytes;
        let pairs = window.classes.iter_mut().zip(classes.iter().zip(&self.classes_before));
        pairs.for_each(|(window, (now, before))| {
            *window = ClassWindow {
                allocs: now.allocs - before.allocs,
                refills: now.refills - before.refills,
                spills: now.spills - before.spills,
            };
        });
        let pairs = window.run_groups.iter_mut().zip(groups.iter().zip(&self.groups_before));
        pairs.for_each(|(window, (now, before))| {
            window.requests = now.requests - before.requests;
            window.cache_hits = now.cache_hits - before.cache_hits;
        });
        (self.before, self.classes_before, self.groups_before) = (now, classes, groups);
        let hindsight = machine.hindsight();
        window.hindsight = hindsight.since(&std::mem::replace(&mut self.hindsight_before, hindsight));
        let decision = self.learner.observe(&window);
        if decision.turns {
            machine.turn_season();
        }
        if let Some(policy) = decision.publish {
            machine.set_policy(&policy);
            self.log.push(Step { at_ns: now.elapsed_ns, phase: decision.phase, policy });
        }
        if decision.phase == Phase::Frozen {
            self.converged.get_or_insert((now.elapsed_ns, now.counters.allocs));
        }
        self.wind_up();
    }
}

fn counts(machine: &mut Machine) -> (Vec<ClassWindow>, Vec<GroupWindow>) {
    let (classes, groups) = machine.class_counts();
    let class = |class: &crate::model::ClassCounts| ClassWindow {
        allocs: class.allocs,
        refills: class.refills,
        spills: class.spills,
    };
    let group =
        |group: &crate::model::GroupCounts| GroupWindow { requests: group.requests, cache_hits: group.cache_hits };
    (classes.iter().map(class).collect(), groups.iter().map(group).collect())
}

fn window_of(flows: &Totals, levels: &Levels) -> Window {
    let counters = &flows.counters;
    let unit_bytes = hakmem_base::SLAB_BYTES as u64;
    Window {
        elapsed_ns: flows.elapsed_ns,
        cpu_ns: flows.cpu_ns as u64,
        system_ns: flows.system_ns as u64,
        page_faults: flows.faults(),
        allocs: counters.allocs,
        big_requests: counters.big_requests,
        big_cache_hits: counters.big_cache_hits,
        remote_frees: counters.remote_frees,
        remote_pushes: counters.remote_pushes,
        drained_blocks: counters.drained_blocks,
        beats: counters.beats,
        idle_trims: counters.idle_trims,
        fresh_slabs: counters.fresh_slabs,
        retired_slabs: counters.retired_slabs,
        purged_bytes: counters.purged_units * unit_bytes,
        committed_bytes: counters.committed_units * unit_bytes,
        in_use_bytes: levels.in_use_bytes,
        live_bytes: levels.live_bytes,
        cached_bytes: levels.cached_bytes,
        purgeable_bytes: levels.purgeable_bytes,
        resident_bytes: levels.resident_bytes,
        superslabs: levels.superslabs.into(),
        huge_superslabs: levels.huge_superslabs.into(),
        threads: levels.threads.into(),
        ..Window::EMPTY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;

    fn subject(name: &str) -> Subject {
        Subject::new(synthetic::find(name).unwrap().make(1).unwrap())
    }

    #[test]
    fn a_learner_that_learns_nothing_costs_what_the_defaults_cost() {
        let subject = subject("adversary");
        let defaults = settled(&subject, &FrozenPolicy::DEFAULT, &Costs::MEASURED);
        let none = learned(&subject, &Options::none(), &Costs::MEASURED, 1, 2);
        assert_eq!(none.log.len(), 0);
        let (one, other) = (Cost::sum(&defaults), Cost::sum(&none.rounds[1]));
        assert_eq!(one.faults, other.faults);
        assert!((one.byte_ns - other.byte_ns).abs() < one.byte_ns * 1e-6);
        // Huge pages' savings are counted at each look: more looks, another sum.
        assert!((one.cpu_ns - other.cpu_ns).abs() < one.cpu_ns * 0.05, "{} {}", one.cpu_ns, other.cpu_ns);
    }

    #[test]
    fn a_run_is_a_function_of_trace_options_and_seed() {
        let subject = subject("roles");
        let run = || learned(&subject, &Options::default(), &Costs::MEASURED, 5, 3);
        assert_eq!(run().rounds, run().rounds);
    }

    #[test]
    fn phases_add_up_to_the_round() {
        let subject = subject("day-night");
        let phases = settled(&subject, &FrozenPolicy::DEFAULT, &Costs::MEASURED);
        // Four days, four nights, and what is freed at the end.
        assert_eq!(phases.len(), 9);
        let mut machine = Machine::new(&subject.trace, &FrozenPolicy::DEFAULT, &Costs::MEASURED);
        subject.round().for_each(|event| machine.step(event));
        let first = machine.totals();
        subject.round().for_each(|event| machine.step(event));
        let round = Cost::of(&machine.totals().since(&first));
        let sum = Cost::sum(&phases);
        assert_eq!((sum.faults, sum.byte_ns), (round.faults, round.byte_ns));
    }
}
