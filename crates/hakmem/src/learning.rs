//! The thread that measures what the program does (OBSERVE) and publishes better policies (LEARN).
//!
//! Allocations know nothing of it: their slow paths look at one word, which says FROZEN unless somebody asked for more. The
//! thread is started by allocations when the program has become busy, takes a reading of all counters now and then, and
//! sleeps when nothing was allocated in between. It holds no lock while it decides: should it die, stall or starve, the policy
//! stays as it is and nobody waits for it but the end of the process, which joins it.
//!
//! **Not here.** How to decide (`hakmem-learner`), what is counted (`observe.rs`), what becomes of a policy (`global.rs`).
//! **Invariants.** In FROZEN there is no thread, and a mode word that says FROZEN is the only thing it takes to keep policy as
//! it is: a decision that is under way when the word changes is dropped, unless it is being published already. OBSERVE
//! publishes nothing.

use core::ffi::{c_int, c_void};
use core::ptr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hakmem_atomic_ops::{Bell, Flag, Lock, Shared32, Shared64};
use hakmem_base::{Line, report};
use hakmem_learner::{Evidence, Learner, Method, Options, Phase, Weights, Window};
use hakmem_policy::{FrozenPolicy, Mode, Settings, Strategies};

use crate::background::Background;
use crate::clock;
use crate::files;
use crate::global::{self, GLOBAL};
use crate::observe;
use crate::pages;
use crate::policy_file;
use crate::signals::Handler;
use crate::unread;
use crate::watcher;

/// Slow paths of allocations that a process has to show before a thread is worth its start, and how many of them pass from one look
/// at its age to the next.
const STIRS_TO_START: u32 = 256;
const STIRS_PER_LOOK: u32 = 64;
/// Age (ns) that it has to have, for the same reason: a start takes half a millisecond of processor time. Not where somebody waits for
/// what is found, as a policy file, or a switch says which blocks are watched.
const AGE_TO_START_NS: u64 = 100_000_000;
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

/// What is known of the thread, and what it has found.
pub(crate) struct State {
    /// The [`Mode`] as a number. All that it takes to freeze is to store 0.
    mode: Shared32,
    /// Slow paths seen while the thread was not running.
    stirs: Shared32,
    /// The thread sleeps until the program allocates again.
    is_parked: Flag,
    background: Background,
    bell: Bell,
    /// Allocations that heartbeats have counted, and how many ring the bell.
    events: Shared64,
    events_due: Shared64,
    window_ms: Shared32,
    window_allocs: Shared32,
    began_ns: Shared64,
    /// Statistics; relaxed.
    windows: Shared64,
    published: Shared64,
    refused: Shared64,
    cpu_ns: Shared64,
    /// The newest findings. Held for the time of a pointer's exchange; no allocation happens meanwhile.
    learned: Lock<Option<Arc<Learned>>>,
}

/// What the learners have found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Learned {
    /// The best policy so far.
    pub policy: FrozenPolicy,
    /// For each knob that was tried: what it was, what it is, and why.
    pub evidence: Vec<Evidence>,
    /// Which phase of learning they are in.
    pub phase: Phase,
    /// Windows that they have seen.
    pub windows: u64,
    /// Policies that they have published.
    pub published: u64,
}

impl State {
    pub const fn new() -> Self {
        Self {
            mode: Shared32::new(Mode::Frozen as u32),
            stirs: Shared32::new(0),
            is_parked: Flag::new(false),
            background: Background::new(),
            bell: Bell::new(),
            events: Shared64::new(0),
            events_due: Shared64::new(u64::MAX),
            window_ms: Shared32::new(Settings::DEFAULT.learn_window_ms),
            window_allocs: Shared32::new(Settings::DEFAULT.learn_window_allocs),
            began_ns: Shared64::new(0),
            windows: Shared64::new(0),
            published: Shared64::new(0),
            refused: Shared64::new(0),
            cpu_ns: Shared64::new(0),
            learned: Lock::new(None),
        }
    }

    /// The allocator is made ready, or is that of a forked child.
    pub fn begin(&self) {
        self.began_ns.store_relaxed(clock::monotonic_ns());
    }

    /// When that was, on the clock of [`clock::monotonic_ns`].
    pub fn began_ns(&self) -> u64 {
        self.began_ns.load_relaxed()
    }
}

/// The mode in force.
#[must_use]
pub fn mode() -> Mode {
    let number = GLOBAL.learning.mode.load_relaxed();
    Mode::ALL.iter().copied().find(|mode| *mode as u32 == number).unwrap_or(Mode::Frozen)
}

/// Changes the mode. The policy in force stays in force, whatever the mode; [`learned`] says what the learners have found.
///
/// OBSERVE and LEARN need a thread. Returns false, with FROZEN in force, if there is none to be had: the system refuses one, or the
/// program is confined ([`expect_confinement`](crate::expect_confinement)).
pub fn set_mode(mode: Mode) -> bool {
    if mode == Mode::Frozen {
        freeze();
        // The thread has nothing left to do.
        GLOBAL.learning.bell.ring_surely();
        return true;
    }
    if !GLOBAL.ensure_ready() {
        return false;
    }
    GLOBAL.learning.mode.store_relaxed(mode as u32);
    wake_or_start()
}

/// Changes the mode to FROZEN by a single store, so that signal handlers may call it, too. If a policy was just on trial, it stays in
/// force; to have the best known one instead, publish [`Learned::policy`].
pub fn freeze() {
    GLOBAL.learning.mode.store_relaxed(Mode::Frozen as u32);
}

/// What the process has done since its start, and what it holds now, in any mode. The numbers of a heap are those of its last slow
/// path; its refills and spills of a class are counted modulo 2^32.
#[must_use]
pub fn observed() -> Window {
    observe::totals()
}

/// What the learners have found so far; `None` before their first decision, and in a program that has never run LEARN.
#[must_use]
pub fn learned() -> Option<Arc<Learned>> {
    GLOBAL.learning.learned.lock().clone()
}

/// What happened since an earlier reading of [`observed`].
#[must_use]
pub fn observed_since(earlier: &Window) -> Window {
    observe::between(earlier, &observe::totals())
}

/// What the environment says about the learner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LearnerChoices {
    strategies: Strategies,
    cap_terms: bool,
    memory_permille: u32,
}

impl LearnerChoices {
    pub const fn of(settings: &Settings<'_>) -> Self {
        Self {
            strategies: settings.learn_strategies,
            cap_terms: settings.learn_cap_terms,
            memory_permille: settings.learn_memory_permille,
        }
    }

    fn options(self) -> Options {
        let method = match self.strategies {
            Strategies::Off => None,
            Strategies::Elo => Some(Method::ELO),
            Strategies::Ucb1 => Some(Method::UCB1),
            Strategies::DiscountedUcb => Some(Method::DISCOUNTED_UCB),
            Strategies::SlidingUcb => Some(Method::SLIDING_UCB),
            Strategies::Thompson => Some(Method::THOMPSON),
            Strategies::Random => Some(Method::RANDOM),
        };
        let usual = Options::default();
        Options {
            strategies: method.is_some(),
            method: method.unwrap_or(usual.method),
            cap_terms: self.cap_terms,
            weights: Weights::with_memory_permille(self.memory_permille),
            ..usual
        }
    }
}

/// What the environment asked for.
pub(crate) fn heed(settings: &Settings<'_>) {
    let state = &GLOBAL.learning;
    state.window_ms.store_relaxed(settings.learn_window_ms);
    state.window_allocs.store_relaxed(settings.learn_window_allocs);
    state.mode.store_relaxed(settings.mode as u32);
    if settings.hardened && settings.mode != Mode::Frozen {
        report("HAKMEM_MODE has no effect at the hardened level: nothing is measured, policy stays as it is");
    }
}

/// On the slow path of an allocation of so many bytes.
#[inline]
pub(crate) fn stir(bytes: usize) {
    if GLOBAL.learning.mode.load_relaxed() != Mode::Frozen as u32 {
        GLOBAL.asked.note(bytes);
        stir_slow();
    }
}

/// At a heartbeat, after so many allocations.
#[inline]
pub(crate) fn beat(allocs: u32) {
    if GLOBAL.learning.mode.load_relaxed() != Mode::Frozen as u32 {
        beat_slow(u64::from(allocs));
    }
}

#[cold]
#[inline(never)]
fn beat_slow(allocs: u64) {
    let state = &GLOBAL.learning;
    if state.events.add_relaxed(allocs) + allocs >= state.events_due.load_relaxed() {
        state.events_due.store_relaxed(u64::MAX);
        state.bell.ring();
    }
    stir_slow();
}

#[cold]
#[inline(never)]
fn stir_slow() {
    let state = &GLOBAL.learning;
    watcher::keep_pace();
    if state.is_parked.is_set_relaxed() {
        state.bell.ring();
    } else if !state.background.is_running() {
        let stirs = state.stirs.add_relaxed(1);
        if stirs >= STIRS_TO_START && stirs.is_multiple_of(STIRS_PER_LOOK) && is_of_age() {
            let _said = wake_or_start();
        }
    }
}

fn is_of_age() -> bool {
    let is_asked_for = !watcher::is_by_price() || GLOBAL.boot().policy_out.as_bytes().is_some();
    is_asked_for || clock::monotonic_ns().saturating_sub(GLOBAL.learning.began_ns()) >= AGE_TO_START_NS
}

/// False: there is no thread to be had, which is said once, because FROZEN runs then.
fn wake_or_start() -> bool {
    let state = &GLOBAL.learning;
    if state.background.is_running() {
        state.bell.ring();
        return true;
    }
    let is_there = state.background.start(run);
    if !is_there {
        freeze();
        report("no thread for the learner: policy stays as it is");
    }
    is_there
}

/// A forked child begins anew, from the policy that its parent had and when it has become busy itself.
pub(crate) fn forget_in_child() {
    let state = &GLOBAL.learning;
    state.bell.reset();
    state.stirs.store_relaxed(0);
    state.events_due.store_relaxed(u64::MAX);
    state.cpu_ns.store_relaxed(0);
    state.begin();
    // ORDERING: the child has one thread; release only because flags have no relaxed store.
    state.is_parked.store_release(false);
    state.background.forget_in_child();
}

/// And what its parent has found is the parent's to tell. After the locks are released.
pub(crate) fn forget_findings_in_child() {
    let state = &GLOBAL.learning;
    let _parents = state.learned.lock().take();
    state.windows.store_relaxed(0);
    state.published.store_relaxed(0);
}

/// Waits for the thread to end, if FROZEN runs.
pub(crate) fn wait_for_end() {
    if mode() == Mode::Frozen {
        GLOBAL.learning.bell.ring_surely();
        GLOBAL.learning.background.join_ended();
    }
}

/// The end of the process, or of the library in it: ends the thread, waits for it, and writes down what it has found.
pub(crate) fn finish() {
    let state = &GLOBAL.learning;
    state.background.stop(|| state.bell.ring_surely());
    if let Some(path) = GLOBAL.boot().policy_out.as_bytes() {
        write_policy_out(path);
    }
}

#[cold]
#[inline(never)]
fn write_policy_out(path: &[u8]) {
    let learned = learned();
    if learned.is_none() && mode() == Mode::Learn && files::is_there(path) {
        // Of a script's processes most learn nothing: what one of them has written stays.
        return;
    }
    if learned.is_some() || mode() == Mode::Learn {
        let policy = learned.as_ref().map_or_else(crate::policy, |learned| learned.policy.clone());
        policy_file::write(path, &policy, learned.as_deref());
    } else {
        report("HAKMEM_POLICY_OUT without HAKMEM_MODE=LEARN: nothing was learned, nothing is written");
    }
}

/// Before a fork.
pub(crate) fn lock_for_fork() {
    GLOBAL.learning.learned.lock_for_fork();
}

/// After it, in parent and child.
///
/// # Safety
/// - This thread (or the thread that it is a forked copy of) called [`lock_for_fork`].
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: passed on to the caller.
    unsafe { GLOBAL.learning.learned.unlock_after_fork() };
}

/// For the statistics: windows seen, policies published, microseconds of CPU time, and millionths of the process's.
pub(crate) struct Costs {
    pub windows: u64,
    pub published: u64,
    pub cpu_us: u64,
    pub share_ppm: u64,
}

pub(crate) fn costs() -> Costs {
    let state = &GLOBAL.learning;
    let cpu_ns = state.cpu_ns.load_relaxed();
    Costs {
        windows: state.windows.load_relaxed(),
        published: state.published.load_relaxed(),
        cpu_us: cpu_ns / 1000,
        share_ppm: clock::share_of_process_ppm(cpu_ns),
    }
}

extern "C" fn run(_: *mut c_void) -> *mut c_void {
    Background::begins(c"hakmem-learn");
    watch();
    GLOBAL.learning.background.ended();
    ptr::null_mut()
}

/// A mistake in a learner ends learning, not the program.
fn survive(work: impl FnOnce()) {
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

fn watch() {
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
        self.cost_ns = spent_now_ns - spent_ns;
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
        if let Some(policy) = policy.filter(|_| mode() == Mode::Learn) {
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
            self.generation = policy.generation;
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
        if let Some(policy) = decision.publish
            && mode() == Mode::Learn
        {
            self.publish(&policy);
        }
        if is_news {
            self.lay_open();
        }
    }

    fn publish(&mut self, policy: &FrozenPolicy) {
        let state = &GLOBAL.learning;
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

/// Freezes policy when this signal comes. 0 is none.
pub(crate) fn install_freeze_signal(signal: u32) {
    let Some(signal) = c_int::try_from(signal).ok().filter(|signal| *signal != 0) else { return };
    if !FREEZER.install(signal) {
        report("HAKMEM_FREEZE_SIGNAL names a signal that cannot be handled; ignored");
    }
}

/// Makes one store.
pub(crate) static FREEZER: Handler = Handler::new(on_freeze_signal);

extern "C" fn on_freeze_signal(_: c_int) {
    freeze();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_reaches_the_learner() {
        let of = |settings: &Settings<'_>| LearnerChoices::of(settings).options();
        assert_eq!(of(&Settings::DEFAULT).weights, Options::default().weights);
        assert!(!of(&Settings::DEFAULT).strategies && !of(&Settings::DEFAULT).cap_terms);
        for strategies in Strategies::ALL.iter().filter(|strategies| **strategies != Strategies::Off) {
            let options = of(&Settings { learn_strategies: *strategies, learn_cap_terms: true, ..Settings::DEFAULT });
            let named = Method::ALL.into_iter().find(|(name, _)| *name == strategies.name());
            assert_eq!(named.map(|(_, method)| method), Some(options.method));
            assert!(options.strategies && options.cap_terms);
        }
    }

    #[test]
    #[allow(clippy::panic, reason = "what is tested is that a panic ends learning and nothing else")]
    fn a_learner_that_panics_leaves_the_policy_frozen() {
        GLOBAL.learning.mode.store_relaxed(Mode::Learn as u32);
        survive(|| {});
        assert_eq!(mode(), Mode::Learn);
        survive(|| panic!("a mistake"));
        assert_eq!(mode(), Mode::Frozen);
    }
}
