//! The scavenger: a thread that purges when the program has gone idle and runs no slow path itself, and sorts the mail of threads that
//! sleep while others go on.
//!
//! It exists only while the program holds much memory and has more than one thread anyway (a single-threaded program may
//! fork, unshare or sandbox itself and is not surprised with a thread). It is started by allocations and parked; frees only
//! ring a bell. The thread allocates nothing and holds no heap.

use core::ffi::c_void;
use core::ptr;
use hakmem_atomic_ops::{Bell, Lock, LockGuard};
use hakmem_policy::Scavenger;

use crate::background::Background;
use crate::global::GLOBAL;
use crate::{pages, unread};

/// Looks without anything purged after which it parks, whatever still waits.
const IDLE_LOOKS: u32 = 20;
/// It parks when less than this share of what wakes it waits.
const LEFT_SHARE: usize = 8;
/// Shortest and longest sleep (ms) between two looks while memory waits.
const SLEEP_MIN_MS: u32 = 20;
const SLEEP_MAX_MS: u32 = 500;
/// How long (ms) it stays parked before it asks whether the program still holds much.
const PARK_MS: u32 = 10_000;

/// What is known of the thread.
pub(crate) struct State {
    background: Background,
    /// Rung by frees when much memory waits, and at the end.
    work: Bell,
    /// Rung at the end.
    end: Bell,
    /// Held while kept big blocks are in its hands, neither kept nor given back.
    giving_back: Lock<()>,
}

impl State {
    pub const fn new() -> Self {
        Self { background: Background::new(), work: Bell::new(), end: Bell::new(), giving_back: Lock::new(()) }
    }
}

/// On an allocation's slow path: has a scavenger stand by if the program holds enough memory for one to be of use.
#[inline]
#[unsafe(link_section = ".text.hot.hakmem")]
pub(crate) fn stand_by() {
    let held = GLOBAL.front.os.in_use_bytes() + GLOBAL.front.os.purgeable_bytes();
    if held >= GLOBAL.scavenge_min_bytes.load_relaxed() && !GLOBAL.scavenger.background.is_running() {
        start_slow();
    }
}

/// On any path: much memory waits to be purged.
#[inline]
pub(crate) fn wake() {
    if GLOBAL.scavenger.background.is_running() {
        GLOBAL.scavenger.work.ring();
    }
}

#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem.long")]
fn start_slow() {
    if is_wanted() {
        // Without a thread the next slow path tries again.
        let _started = GLOBAL.scavenger.background.start(run);
    }
}

/// What the policy in force says.
fn is_wanted() -> bool {
    let mode = GLOBAL.scavenger_mode.load_relaxed();
    mode == Scavenger::On as u32 || (mode == Scavenger::Auto as u32 && GLOBAL.company.is_present())
}

/// Times the scavenger was started.
pub(crate) fn starts() -> u32 {
    GLOBAL.scavenger.background.starts()
}

/// A forked child has no scavenger, whatever the parent had.
pub(crate) fn forget_in_child() {
    GLOBAL.scavenger.work.reset();
    GLOBAL.scavenger.end.reset();
    GLOBAL.scavenger.background.forget_in_child();
}

/// Keeps it from giving kept big blocks back, from now on until the guard is dropped.
pub(crate) fn hold_back() -> LockGuard<'static, ()> {
    GLOBAL.scavenger.giving_back.lock()
}

/// Before a fork, ahead of the locks of what is below.
pub(crate) fn lock_for_fork() {
    GLOBAL.scavenger.giving_back.lock_for_fork();
}

/// After it, in parent and child.
///
/// # Safety
/// - This thread (or the thread that it is a forked copy of) called [`lock_for_fork`].
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: passed on to the caller.
    unsafe { GLOBAL.scavenger.giving_back.unlock_after_fork() };
}

/// Ends the scavenger and waits for it.
pub(crate) fn stop() {
    GLOBAL.scavenger.background.stop(|| {
        GLOBAL.scavenger.work.ring_surely();
        GLOBAL.scavenger.end.ring_surely();
    });
}

/// True if anything was due. A fork waits for one batch of it at most.
fn purge_all_due() -> bool {
    let mut is_purged = false;
    while !GLOBAL.scavenger.background.is_to_stop() && GLOBAL.front.os.purge_due() > 0 {
        is_purged = true;
    }
    is_purged
}

extern "C" fn run(_: *mut c_void) -> *mut c_void {
    Background::begins(c"hakmem-scavenge");
    let mut idle_looks = 0;
    while !GLOBAL.scavenger.background.is_to_stop() && is_wanted() {
        let least = GLOBAL.scavenge_min_bytes.load_relaxed();
        let little_waits = pages::waiting_bytes() <= least / LEFT_SHARE && !unread::waits();
        if little_waits || idle_looks >= IDLE_LOOKS {
            idle_looks = 0;
            let is_needed = GLOBAL.scavenger.work.wait(PARK_MS) || pages::held_bytes() >= least;
            if !is_needed {
                break;
            }
            continue;
        }
        let next_purge_ms = GLOBAL.front.os.next_due_ms().unwrap_or(SLEEP_MAX_MS);
        let next_sort_ms = if unread::waits() { unread::pause_ms() } else { SLEEP_MAX_MS };
        GLOBAL.scavenger.end.wait(next_purge_ms.min(next_sort_ms).clamp(SLEEP_MIN_MS, SLEEP_MAX_MS));
        let Some(tables) = GLOBAL.front.tables() else { break };
        let evicted = {
            let _held = hold_back();
            GLOBAL.big.evict_due(&GLOBAL.big_context(tables, None))
        };
        let is_purged = purge_all_due();
        let sorted = unread::sort_due();
        idle_looks = if evicted + sorted == 0 && !is_purged { idle_looks + 1 } else { 0 };
    }
    GLOBAL.scavenger.background.ended();
    ptr::null_mut()
}
