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

mod session;

use core::ffi::{c_int, c_void};
use core::ptr;
use std::sync::Arc;

use hakmem_atomic_ops::{Bell, Flag, Lock, Shared32, Shared64};
use hakmem_base::report;
use hakmem_learner::{Evidence, Method, Options, Phase, Weights, Window};
use hakmem_policy::{FrozenPolicy, Mode, Settings, Strategies};

use crate::background::Background;
use crate::clock;
use crate::files;
use crate::global::GLOBAL;
use crate::hardened;
use crate::observe;
use crate::policy_file;
use crate::signals::Handler;
use crate::watcher;

/// Slow paths of allocations that a process has to show before a thread is worth its start, and how many of them pass from one look
/// at its age to the next.
const STIRS_TO_START: u32 = 256;
const STIRS_PER_LOOK: u32 = 64;
/// Age (ns) that it has to have, for the same reason: a start takes half a millisecond of processor time. Not where somebody waits for
/// what is found, as a policy file, or a switch says which blocks are watched.
const AGE_TO_START_NS: u64 = 100_000_000;

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
    /// For each knob: what it was, what it is, and why.
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
/// OBSERVE and LEARN need a thread. Returns false, with FROZEN in force, if there is none to be had: the system refuses one, the
/// program is confined ([`expect_confinement`](crate::expect_confinement)), or it runs at the hardened level, which has nothing to measure.
pub fn set_mode(mode: Mode) -> bool {
    if mode == Mode::Frozen {
        freeze();
        // The thread has nothing left to do.
        GLOBAL.learning.bell.ring_surely();
        return true;
    }
    if !GLOBAL.ensure_ready() || hardened::is_on() {
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
            weights: self.weights(),
            ..usual
        }
    }

    pub fn weights(self) -> Weights {
        Weights::with_memory_permille(self.memory_permille)
    }
}

/// What the environment asked for.
pub(crate) fn heed(settings: &Settings<'_>) {
    let state = &GLOBAL.learning;
    state.window_ms.store_relaxed(settings.learn_window_ms);
    state.window_allocs.store_relaxed(settings.learn_window_allocs);
    if !settings.hardened {
        state.mode.store_relaxed(settings.mode as u32);
    } else if settings.mode != Mode::Frozen {
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
    GLOBAL.front.os.watch(false);
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
    if learned.is_none() && mode() != Mode::Learn {
        report("HAKMEM_POLICY_OUT: LEARN did not run, so nothing was learned and nothing is written");
        return;
    }
    let policy = learned.as_ref().map_or_else(crate::policy, |learned| learned.policy.clone());
    // Of a script's processes most learn nothing: what one of them has written stays.
    if has_learned(learned.as_deref()) || watcher::has_hints(policy.purge_delay_ms) || !files::is_there(path) {
        policy_file::write(path, &policy, learned.as_deref());
    }
}

/// Whether anything has become of the windows: a policy that was tried, or the finding that none is worth it.
fn has_learned(learned: Option<&Learned>) -> bool {
    learned.is_some_and(|learned| learned.published > 0 || learned.phase != Phase::Learn)
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
    session::watch();
    GLOBAL.learning.background.ended();
    ptr::null_mut()
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
        session::survive(|| {});
        assert_eq!(mode(), Mode::Learn);
        session::survive(|| panic!("a mistake"));
        assert_eq!(mode(), Mode::Frozen);
    }
}
