//! Leads the soak through its phases, and turns everything that can be turned while the workers are busy.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use hakmem_testkit::{Filled, Random};

use crate::sampler::{self, Sampler};
use crate::shared::{Phase, Shared, fail};
use crate::{Arguments, children, facts};

const MIB: u64 = 1 << 20;
/// Bytes beyond what is in use that memory is limited to in the pressure phase.
const PRESSURE_ROOM_BYTES: u64 = 24 * MIB;
/// Bytes in use at which the limit can be lifted: whoever does it allocates.
const RELIEVED_BYTES: u64 = 40 * MIB;
/// Far more than the workers need to do what a phase wants.
const PATIENCE: Duration = Duration::from_secs(120);
/// Half of them are judged.
const LEAST_CYCLES: u64 = 8;

/// The thread that leads.
pub struct Director<'a> {
    shared: &'a Shared,
    sampler: &'a Mutex<Sampler<'a>>,
    random: Random,
    cycle: Duration,
    end: Instant,
    leak_bytes: usize,
}

impl<'a> Director<'a> {
    /// Ready to begin.
    pub fn new(shared: &'a Shared, sampler: &'a Mutex<Sampler<'a>>, arguments: &Arguments) -> Self {
        Self {
            shared,
            sampler,
            random: Random::new(arguments.seed.wrapping_mul(77)),
            cycle: Duration::from_secs_f64(arguments.cycle_seconds),
            end: Instant::now() + Duration::from_secs_f64(arguments.seconds),
            leak_bytes: arguments.leak_bytes,
        }
    }

    /// Whole cycles until the time is up, and as many as the judgement of a slope needs: on a busy machine they are long.
    pub fn run(&mut self) {
        while Instant::now() < self.end || self.shared.cycles.load_relaxed() < LEAST_CYCLES {
            self.busy(Phase::Mix, 150 * MIB, 0.15);
            let most = (300 + self.random.below(500) as u64) * MIB;
            self.busy(Phase::Grow, most, 0.25);
            self.busy(Phase::HandOver, 200 * MIB, 0.12);
            self.pressure();
            self.busy(Phase::Churn, 60 * MIB, 0.15);
            self.lose();
            self.floor();
            self.shared.cycles.add_relaxed(1);
        }
        self.shared.enter(Phase::Stop, 0);
    }

    /// A phase of all patterns, with switches, collections and children in between.
    fn busy(&mut self, phase: Phase, target_bytes: u64, share: f64) {
        self.shared.enter(phase, target_bytes);
        let end = Instant::now() + self.cycle.mul_f64(share);
        if phase == Phase::Grow {
            children::start_confined(self.shared, self.random.next() >> 32);
        }
        while Instant::now() < end {
            facts::switch(&mut self.random);
            self.shared.switches.add_relaxed(1);
            if self.random.below(4) == 0 {
                facts::collect();
                self.shared.collections.add_relaxed(1);
            }
            self.shared.fork_tickets.store_relaxed(1);
            thread::sleep(self.cycle.mul_f64(0.01).max(Duration::from_millis(50)));
        }
    }

    /// Memory is limited to a little more than is in use, until it has been refused for a while.
    fn pressure(&mut self) {
        let shared = self.shared;
        let Ok(_nobody_else) = shared.infallible.lock() else { fail("a thread panicked while it started threads") };
        shared.set_limited(true);
        let in_use = facts::value("committed_bytes");
        facts::switch_back(in_use + PRESSURE_ROOM_BYTES);
        shared.enter(Phase::Pressure, u64::MAX);
        let refused_before = shared.refusals.load_relaxed();
        wait_until("memory was refused", || shared.refusals.load_relaxed() > refused_before + 100);
        shared.fork_tickets.store_relaxed(1);
        thread::sleep(self.cycle.mul_f64(0.05));
        shared.enter(Phase::Relief, 0);
        wait_until("enough was freed", || shared.live.load_relaxed() < RELIEVED_BYTES);
        facts::switch_back(0);
        shared.set_limited(false);
    }

    /// What the judgement has to notice when the caller wants that seen.
    fn lose(&mut self) {
        if self.leak_bytes == 0 {
            return;
        }
        let Some(block) = Filled::new(self.leak_bytes, 16, 1) else { fail("a block to lose was refused") };
        // A filled block has no destructor: it is lost.
        self.shared.leaked.add_relaxed(block.len() as u64);
    }

    /// All but the long-lived blocks is free, everything collected, nobody works: what is held now is what stays.
    fn floor(&mut self) {
        facts::switch_back(0);
        self.shared.enter(Phase::Floor, 0);
        let shared = self.shared;
        wait_until("the workers rest", || shared.resting.load_relaxed() == shared.worker_count);
        {
            let Ok(_nobody_else) = shared.infallible.lock() else { fail("a thread panicked while it started threads") };
            shared.release_shelves();
        }
        facts::collect();
        // What waits for its purge delay comes due.
        thread::sleep(self.cycle.mul_f64(0.15).clamp(Duration::from_millis(350), Duration::from_secs(1)));
        facts::collect();
        self.shared.collections.add_relaxed(2);
        sampler::take(self.sampler, "floor");
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > end {
            fail(&format!("waited {PATIENCE:?} in vain until {what}"));
        }
        thread::sleep(Duration::from_millis(1));
    }
}
