//! What the thread of OBSERVE and LEARN does: waits, takes a reading, and in LEARN has the learners decide and publishes.
//!
//! **Not here.** Starting and waking it, the mode, what others may ask of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hakmem_base::{Line, report};
use hakmem_learner::{Learner, Phase, Window};
use hakmem_policy::{FrozenPolicy, Mode};

use super::{Learned, freeze, mode};
use crate::clock;
use crate::global::{self, GLOBAL};
use crate::observe;
use crate::pages;
use crate::unread;
use crate::watcher;

/// No window is shorter (ms): CPU time and faults of less say little.
const WINDOW_MIN_MS: u32 = 10;
/// A window lasts at least so many times the CPU time that the last look took, which bounds the thread's share of one CPU.
const COST_FACTOR: u64 = 250;
/// How long (ms) it stays parked, when nothing is allocated, before it looks whether the mode is still the same.
const PARK_MS: u32 = 10_000;
/// The shortest sleep (ms) while memory waits to be given back.
const NAP_MIN_MS: u32 = 20;
/// Windows from one look at the sizes of live blocks to the next.
const WINDOWS_PER_LIVE_BLOCKS: u32 = 4;
/// Windows after which the evidence is laid open again though no policy was published.
const WINDOWS_PER_REPORT: u64 = 64;

/// A mistake in a learner ends learning, not the program.
pub(super) fn survive(work: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        freeze();
        report("the learner has failed: policy stays as it is");
    }
}

/// The mode, while there is something to do for this thread.
fn wanted() -> Option<Mode> {
    let is_over = GLOBAL.learning.background.is_to_stop();
    Some(mode()).filter(|mode| *mode != Mode::Frozen && !is_over)
}

/// What the thread does, to its end.
pub(super) fn watch() {
    GLOBAL.front.os.watch(true);
    survive(look_again_and_again);
    GLOBAL.front.os.watch(false);
}

fn look_again_and_again() {
    let mut session = Session {
        before: observe::totals(),
        learner: None,
        generation: 0,
        phase: Phase::Learn,
        cost_ns: 0,
        blocks: watcher::Look::begin(),
        windows_to_live_blocks: WINDOWS_PER_LIVE_BLOCKS,
    };
    let mut seen = 0;
    while wanted().is_some() {
        session.wait();
        let Some(mode) = wanted() else { break };
        give_back_if_learning();
        session.look(mode);
        seen += 1;
        if seen % WINDOWS_PER_REPORT == 0 {
            session.lay_open();
        }
    }
    session.lay_open();
}

/// Under LEARN there is a second thread in any case, so it gives back what is due, however little: the scavenger stands by for
/// programs that hold much, and a program that rests runs no slow path. OBSERVE changes nothing.
fn give_back_if_learning() {
    if mode() == Mode::Learn {
        while GLOBAL.front.os.purge_due() > 0 {}
        unread::sort_due();
        pages::maintain();
    }
}

/// Sleeps until the bell rings or [`PARK_MS`] have passed, and gives back what falls due meanwhile. True if the bell was rung.
fn doze() -> bool {
    let mut left_ms = PARK_MS;
    while left_ms > 0 {
        let sort_ms = unread::waits().then(unread::pause_ms);
        let due_ms = GLOBAL.front.os.next_due_ms().into_iter().chain(sort_ms).min().filter(|_| mode() == Mode::Learn);
        let nap_ms = due_ms.map_or(left_ms, |due_ms| due_ms.clamp(NAP_MIN_MS, left_ms.max(NAP_MIN_MS)));
        if GLOBAL.learning.bell.wait(nap_ms) {
            return true;
        }
        give_back_if_learning();
        left_ms = left_ms.saturating_sub(nap_ms);
    }
    false
}

/// What the thread knows. It lives on its stack and on the heap, and ends with it: the next one starts from the policy that is
/// in force then.
struct Session {
    /// The reading at the end of the last window.
    before: Window,
    learner: Option<Box<Learner>>,
    /// Generation of the policy that the learner knows to be in force.
    generation: u32,
    phase: Phase,
    /// CPU time that the last look took.
    cost_ns: u64,
    blocks: watcher::Look,
    windows_to_live_blocks: u32,
}

impl Session {
    /// Until the window is over: by time, or in LEARN by allocations once the shortest time has passed. Nobody acts upon what OBSERVE sees,
    /// so that it has no hurry.
    fn wait(&self) {
        let state = &GLOBAL.learning;
        let (begin, first_event) = (clock::monotonic_ns(), state.events.load_relaxed());
        let affordable_ms = u32::try_from(self.cost_ns * COST_FACTOR / 1_000_000).unwrap_or(u32::MAX);
        let window_ms = state.window_ms.load_relaxed();
        let shortest_ms = affordable_ms.max(if mode() == Mode::Learn { WINDOW_MIN_MS } else { window_ms });
        let longest_ms = shortest_ms.max(window_ms);
        let left_ms = |limit_ms: u32| {
            let passed_ms = (clock::monotonic_ns() - begin) / 1_000_000;
            u32::try_from(u64::from(limit_ms).saturating_sub(passed_ms)).unwrap_or(0)
        };
        // A bell that was rung for something else does not end the window.
        while wanted().is_some() && left_ms(shortest_ms) > 0 {
            state.bell.wait(left_ms(shortest_ms));
        }
        let due = first_event + u64::from(state.window_allocs.load_relaxed());
        state.events_due.store_relaxed(due);
        if state.events.load_relaxed() < due && wanted().is_some() && left_ms(longest_ms) > 0 {
            state.bell.wait(left_ms(longest_ms));
        }
        state.events_due.store_relaxed(u64::MAX);
    }

    fn look(&mut self, mode: Mode) {
        let state = &GLOBAL.learning;
        let spent_ns = clock::thread_cpu_ns();
        let now = observe::totals();
        let window = observe::between(&self.before, &now);
        // Memory that only goes is worth a look too.
        let moves = window.allocs + window.retired_slabs + window.purged_bytes;
        if moves == 0 && window.in_use_bytes == self.before.in_use_bytes {
            return self.park();
        }
        self.before = now;
        state.windows.add_relaxed(1);
        self.blocks.next(&window);
        match mode {
            Mode::Learn => self.decide(&window),
            Mode::Observe | Mode::Frozen => self.learner = None,
        }
        let spent_now_ns = clock::thread_cpu_ns();
        self.cost_ns = spent_now_ns.saturating_sub(spent_ns);
        state.cpu_ns.add_relaxed(self.cost_ns);
    }

    /// The program does nothing with its memory: waits until it allocates. What happens meanwhile belongs to no window. Slow paths ring; a program
    /// that takes none is noticed at the next look whether there is still something to do.
    fn park(&mut self) {
        let state = &GLOBAL.learning;
        // ORDERING: a hint; who misses it rings at its next slow path.
        state.is_parked.store_release(true);
        while wanted().is_some() && !doze() && observe::totals().allocs == self.before.allocs {
            self.fall_silent();
        }
        // ORDERING: as above.
        state.is_parked.store_release(false);
        // What memory did meanwhile counts: it was kept, or given back.
        let hindsight = self.before.hindsight;
        self.before = Window { hindsight, ..observe::totals() };
    }

    /// The program rests for longer than its memory should be kept on the strength of what it did when it worked.
    fn fall_silent(&mut self) {
        // Somebody else's policy is not ours to change: learning starts anew from it.
        if GLOBAL.policy.generation() != self.generation {
            self.learner = None;
        }
        let policy = self.learner.as_mut().and_then(|learner| learner.fall_silent());
        if let Some(policy) = policy {
            self.publish(&policy);
        }
    }

    fn decide(&mut self, window: &Window) {
        // Somebody else's policy is where learning starts anew.
        if GLOBAL.policy.generation() != self.generation {
            self.learner = None;
        }
        let learner = self.learner.get_or_insert_with(|| {
            let policy = GLOBAL.policy.with(Clone::clone);
            // The account's first policy is the learner's.
            if policy.generation != core::mem::replace(&mut self.generation, policy.generation) {
                GLOBAL.front.os.watch(true);
            }
            Box::new(Learner::new(&policy, &GLOBAL.boot().learner.options(), global::random_bits()))
        });
        if self.windows_to_live_blocks == 0 {
            self.windows_to_live_blocks = WINDOWS_PER_LIVE_BLOCKS;
            let asked = GLOBAL.asked.take();
            learner.look_at_live_blocks(window.live_bytes, &observe::live_blocks(), &asked);
        }
        self.windows_to_live_blocks -= 1;
        let decision = learner.observe(window);
        let is_news = decision.phase != self.phase || decision.publish.is_some();
        self.phase = decision.phase;
        if decision.turns {
            GLOBAL.front.os.turn_season();
        }
        if let Some(policy) = decision.publish {
            self.publish(&policy);
        }
        if is_news {
            self.lay_open();
        }
    }

    fn publish(&mut self, policy: &FrozenPolicy) {
        let state = &GLOBAL.learning;
        if mode() != Mode::Learn {
            // Frozen meanwhile. What it has found stays; what it believes to run does not, should LEARN come back before the thread ends.
            self.lay_open();
            self.learner = None;
            return;
        }
        match global::publish_after(self.generation, policy) {
            Ok(Some(generation)) => {
                self.generation = generation;
                state.published.add_relaxed(1);
                // Who shortens a delay purges what is due by the new one.
                give_back_if_learning();
            }
            // Somebody else's policy is where learning starts anew.
            Ok(None) => self.learner = None,
            Err(error) => {
                if state.refused.add_relaxed(1) == 0 {
                    Line::new().text("a learned policy is refused because of ").text(error.field()).write();
                }
                self.learner = None;
            }
        }
    }

    /// Lets others see what was found.
    fn lay_open(&self) {
        let Some(learner) = &self.learner else { return };
        let state = &GLOBAL.learning;
        let learned = Arc::new(Learned {
            policy: learner.best().clone(),
            evidence: learner.evidence().collect(),
            phase: self.phase,
            windows: state.windows.load_relaxed(),
            published: state.published.load_relaxed(),
        });
        // The former one is dropped after the lock.
        let _former = state.learned.lock().replace(learned);
    }
}
