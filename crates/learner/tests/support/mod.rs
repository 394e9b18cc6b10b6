//! A program as the learner sees one: a few causes, from which a policy makes windows.

#![allow(dead_code, reason = "each test and example uses a part")]

use hakmem_base::{DELAYS_MS, Flow, Hindsight, SLAB_BYTES};
use hakmem_learner::{Decision, Knob, Learner, Options, Phase, Random, Rates, Tally, Weights, Window};
use hakmem_policy::FrozenPolicy;

const OS_PAGE: f64 = 4096.0;

/// What a program does.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// First of the ten size classes that it uses.
    pub first_class: usize,
    /// Blocks a second.
    pub rate: f64,
    /// Bytes that it holds.
    pub live: f64,
    /// Bytes that it frees and wants again.
    pub idle: f64,
    /// How soon it wants them again.
    pub reuse_ms: f64,
    /// CPU time of its own work per block.
    pub work_ns: f64,
    /// Deviation of that, from window to window.
    pub noise: f64,
    /// Runs a second, and how many cached ones serve two thirds of them.
    pub runs: f64,
    pub runs_scale: f64,
    /// What a longer purge delay costs besides, per factor of 10 from 300 ms: for programs made to punish.
    pub trap: f64,
}

/// A server by day: memory that idles is wanted again soon.
pub const DAY: Program = Program {
    first_class: 5,
    rate: 1e6,
    live: 60e6,
    idle: 40e6,
    reuse_ms: 500.0,
    work_ns: 150.0,
    noise: 0.02,
    runs: 2000.0,
    runs_scale: 12.0,
    trap: 0.0,
};

/// The same by night: little to do, and much that idles.
pub const NIGHT: Program = Program { first_class: 30, rate: 1e5, live: 20e6, idle: 100e6, reuse_ms: 2000.0, ..DAY };

impl Program {
    /// A tenth of a second under a policy.
    pub fn window(&self, policy: &FrozenPolicy, random: &mut Random) -> Window {
        let seconds = 0.1;
        let allocs = self.rate * seconds;
        let cache = f64::from(policy.cache_max_bytes);
        let small_cache = (131_072.0 / cache).sqrt();
        let refills = 0.03 * allocs * small_cache * (4096.0 / f64::from(policy.refill_bytes)).sqrt();
        let spills = 0.03 * allocs * small_cache;
        // Memory that waits longer than the delay is purged, and its pages are faulted in again.
        let purged_share = self.purged_share(policy.purge_delay_ms);
        let faults = self.idle / OS_PAGE / (self.reuse_ms / 1000.0).max(0.1) * purged_share * seconds;
        let resident =
            self.live + 20.0 * cache + self.idle * (1.0 - purged_share) + f64::from(policy.warm_superslabs) * 2e6;
        let runs = self.runs * seconds;
        let hit_rate = |cap: u32| 1.0 - (-f64::from(cap) / self.runs_scale).exp();
        let away = f64::from(policy.purge_delay_ms.max(1)).log10() - 300_f64.log10();
        let work = allocs * self.work_ns * (self.noise * random.normal()).exp() * (1.0 + self.trap * away.abs());
        let mut window = Window {
            elapsed_ns: 100_000_000,
            page_faults: faults as u64,
            allocs: allocs as u64,
            purged_bytes: (faults * OS_PAGE) as u64,
            purgeable_bytes: (self.idle * (1.0 - purged_share)) as u64,
            cached_bytes: (20.0 * cache) as u64,
            live_bytes: self.live as u64,
            resident_bytes: resident as u64,
            beats: 100,
            ..Window::EMPTY
        };
        for class in window.classes.iter_mut().skip(self.first_class).take(10) {
            class.allocs = (allocs / 10.0) as u64;
            class.refills = (refills / 10.0) as u64;
            class.spills = (spills / 10.0) as u64;
        }
        let mut run_misses = 0.0;
        for (group, cap) in window.run_groups.iter_mut().zip(policy.large_cap) {
            group.requests = (runs / 5.0) as u64;
            group.cache_hits = (runs / 5.0 * hit_rate(cap)) as u64;
            run_misses += (group.requests - group.cache_hits) as f64;
        }
        window.cpu_ns = (work + refills * 40.0 + spills * 8.0 + run_misses * 2000.0 + faults * 1500.0) as u64;
        window
    }

    /// Of the memory that idles, what has lost its pages.
    fn purged_share(&self, delay_ms: u32) -> f64 {
        (-f64::from(delay_ms) / self.reuse_ms).exp()
    }

    /// What each delay would have led to in a tenth of a second.
    pub fn hindsight(&self) -> Hindsight {
        let units = self.idle / SLAB_BYTES as f64;
        let flow = |delay_ms| {
            let purged_share = self.purged_share(delay_ms);
            let refaults = (units / (self.reuse_ms / 1000.0).max(0.1) * purged_share * 0.1) as u64;
            let kept_unit_ms = (units * (1.0 - purged_share) * 100.0) as u64;
            Flow { refaults, purged: refaults, purges: refaults / 8, kept_unit_ms, ..Flow::EMPTY }
        };
        let unlearned = flow(FrozenPolicy::DEFAULT.purge_delay_ms);
        Hindsight { elapsed_ms: 100, here: DELAYS_MS.map(flow), unlearned, ..Hindsight::EMPTY }
    }

    /// The same without noise.
    pub fn rates(&self, policy: &FrozenPolicy) -> Rates {
        let mut tally = Tally::default();
        tally.add(&Self { noise: 0.0, ..*self }.window(policy, &mut Random::new(0)));
        tally.rates().unwrap_or(Rates { cpu_ns: 0.0, faults: 0.0, resident_per_live: 0.0, slow_ns: 0.0 })
    }

    /// What a policy truly costs here, where the defaults cost 1.
    pub fn cost(&self, policy: &FrozenPolicy) -> f64 {
        Weights::default().cost(&self.rates(policy), &self.rates(&FrozenPolicy::DEFAULT))
    }
}

/// A learner and the policy that it last published.
pub struct Run {
    pub learner: Learner,
    pub policy: FrozenPolicy,
    pub random: Random,
    pub windows: u32,
    /// The window in which it first came to rest.
    pub rested: Option<u32>,
    /// Sum of the true costs of all windows.
    pub cost: f64,
    /// Whether windows have an account of other delays.
    pub has_account: bool,
}

impl Run {
    pub fn new(learner: Learner, seed: u64) -> Self {
        let policy = FrozenPolicy::DEFAULT;
        Self { learner, policy, random: Random::new(seed), windows: 0, rested: None, cost: 0.0, has_account: false }
    }

    /// One window of a program.
    pub fn step(&mut self, program: &Program) -> Phase {
        self.cost += program.cost(&self.policy);
        let mut window = program.window(&self.policy, &mut self.random);
        if self.has_account {
            window.hindsight = program.hindsight();
        }
        let Decision { publish, phase, .. } = self.learner.observe(&window);
        self.windows += 1;
        if let Some(published) = publish {
            assert_eq!(published.validate(), Ok(()));
            self.policy = published;
        }
        if phase == Phase::Frozen && self.rested.is_none() {
            self.rested = Some(self.windows);
        }
        phase
    }

    /// Mean true cost over some windows of a program.
    pub fn mean_cost(&mut self, program: &Program, windows: u32) -> f64 {
        let before = self.cost;
        for _ in 0..windows {
            self.step(program);
        }
        (self.cost - before) / f64::from(windows)
    }
}

/// The best policy that the knobs' lists can make of the defaults, by true cost: what a learner is compared with.
pub fn best_policy(program: &Program, options: &Options) -> FrozenPolicy {
    let mut best = FrozenPolicy::DEFAULT;
    loop {
        let before = program.cost(&best);
        for knob in Knob::ALL.into_iter().filter(|knob| options.learns(*knob)) {
            for &arm in knob.arms() {
                let mut policy = best.clone();
                knob.set(&mut policy, arm);
                if program.cost(&policy) < program.cost(&best) {
                    best = policy;
                }
            }
        }
        if program.cost(&best) >= before {
            return best;
        }
    }
}

/// How one life went.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    /// Windows until the best policy known stayed within a fifth of what there is to gain.
    pub near: Option<u32>,
    /// Windows until nothing was left to try.
    pub rested: Option<u32>,
    /// Part of what there is to gain that was gained.
    pub gained: f64,
    /// Mean true cost of all windows, trials included, where the boot policy costs 1.
    pub mean_cost: f64,
}

/// One life of so many windows; `costs` receives the true cost of each.
pub fn settle(program: &Program, options: &Options, seed: u64, windows: u32, costs: &mut Vec<f64>) -> Settled {
    let least = program.cost(&best_policy(program, options));
    let mut run = Run::new(Learner::new(&FrozenPolicy::DEFAULT, options, seed), seed ^ 0x5555);
    let mut near = None;
    for window in 1..=windows {
        let before = run.cost;
        run.step(program);
        costs.push(run.cost - before);
        let cost = program.cost(run.learner.best_now());
        if cost > least + 0.2 * (1.0 - least) {
            near = None;
        } else if near.is_none() {
            near = Some(window);
        }
    }
    let gained = if least < 1.0 { (1.0 - program.cost(run.learner.best())) / (1.0 - least) } else { 1.0 };
    Settled { near, rested: run.rested, gained, mean_cost: run.cost / f64::from(windows) }
}
