//! The scavenger: a thread that purges when the program has gone idle and runs no slow path itself.
//!
//! It exists only while the program holds much memory and has more than one thread anyway (a single-threaded program may
//! fork, unshare or sandbox itself and is not surprised with a thread). It is started by allocations and parked; frees only
//! ring a bell. A free must not start a thread: the C library frees with its own stack lock held, which `pthread_create`
//! takes too. The thread allocates nothing, holds no heap, and has all signals blocked.

use core::ffi::c_void;
use core::ptr;
use hakmem_atomic_ops::{Bell, Flag, Shared32, SharedUsize};
use hakmem_base::keeping_errno;
use hakmem_policy::Scavenger;

use crate::global::GLOBAL;
use crate::large::big_policy_of;
use crate::pages;

/// Bytes of its stack: it calls nothing deep, but the C library's thread-local storage lives there too.
const STACK_BYTES: usize = 256 << 10;
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
    running: Flag,
    /// The thread to join at the end, as a number; 0 is none. Written by the starter, taken by the one who joins.
    thread: SharedUsize,
    stop: Flag,
    /// Rung by frees when much memory waits, and at the end.
    work: Bell,
    /// Rung at the end.
    end: Bell,
    starts: Shared32,
}

impl State {
    pub const fn new() -> Self {
        Self {
            running: Flag::new(false),
            thread: SharedUsize::new(0),
            stop: Flag::new(false),
            work: Bell::new(),
            end: Bell::new(),
            starts: Shared32::new(0),
        }
    }
}

/// On an allocation's slow path: has a scavenger stand by if the program holds enough memory for one to be of use.
#[inline]
pub(crate) fn stand_by() {
    let held = GLOBAL.front.os.in_use_bytes() + GLOBAL.front.os.purgeable_bytes();
    if held >= GLOBAL.scavenge_min_bytes.load_relaxed() && !GLOBAL.scavenger.running.is_set_relaxed() {
        start_slow();
    }
}

/// On any path: much memory waits to be purged.
#[inline]
pub(crate) fn wake() {
    if GLOBAL.scavenger.running.is_set_relaxed() {
        GLOBAL.scavenger.work.ring();
    }
}

#[cold]
#[inline(never)]
fn start_slow() {
    let mode = GLOBAL.scavenger_mode.load_relaxed();
    let is_threaded = GLOBAL.registry.peak.load_relaxed() > 1;
    let wanted = mode == Scavenger::On as u32 || (mode == Scavenger::Auto as u32 && is_threaded);
    if !wanted || GLOBAL.scavenger.stop.is_set_relaxed() {
        return;
    }
    // ORDERING: one starter; pairs with the store at the thread's end.
    if !GLOBAL.scavenger.running.try_set_acq_rel() {
        return;
    }
    let started = keeping_errno_uncancelled(|| {
        join_ended();
        spawn()
    });
    if !started {
        // ORDERING: as above.
        GLOBAL.scavenger.running.store_release(false);
    }
}

/// An allocation is no cancellation point and leaves `errno` alone, whatever it starts.
fn keeping_errno_uncancelled<R>(work: impl FnOnce() -> R) -> R {
    unsafe extern "C" {
        fn pthread_setcancelstate(state: core::ffi::c_int, old: *mut core::ffi::c_int) -> core::ffi::c_int;
    }
    const PTHREAD_CANCEL_DISABLE: core::ffi::c_int = 1;
    let mut before = 0;
    // SAFETY: changes this thread's own state, and back below.
    unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut before) };
    let result = keeping_errno(work);
    // SAFETY: as above.
    unsafe { pthread_setcancelstate(before, ptr::null_mut()) };
    result
}

/// Times the scavenger was started.
pub(crate) fn starts() -> u32 {
    GLOBAL.scavenger.starts.load_relaxed()
}

/// A forked child has no scavenger, whatever the parent had.
pub(crate) fn forget_in_child() {
    GLOBAL.scavenger.thread.store_relaxed(0);
    GLOBAL.scavenger.work.reset();
    GLOBAL.scavenger.end.reset();
    // ORDERING: the child has one thread; release only because flags have no relaxed store.
    GLOBAL.scavenger.running.store_release(false);
}

/// Ends the scavenger and waits for it: its code may be about to be unloaded.
pub(crate) fn stop() {
    // ORDERING: pairs with the bells, which the thread looks at next.
    GLOBAL.scavenger.stop.store_release(true);
    GLOBAL.scavenger.work.ring();
    GLOBAL.scavenger.end.ring();
    join_ended();
}

fn join_ended() {
    // ORDERING: pairs with `spawn`; one caller takes the number.
    let thread = GLOBAL.scavenger.thread.swap_acquire(0);
    if thread != 0 {
        // SAFETY: the number came from pthread_create, and only one caller takes it.
        unsafe { libc::pthread_join(thread as libc::pthread_t, ptr::null_mut()) };
    }
}

/// Creates the thread with all signals blocked. May allocate: called with no lock held.
fn spawn() -> bool {
    // SAFETY: an all-zero signal set is a valid place for the calls below to fill.
    let (mut all, mut before) = unsafe { core::mem::zeroed::<(libc::sigset_t, libc::sigset_t)>() };
    // SAFETY: an all-zero attribute is a valid place for pthread_attr_init to fill.
    let mut attributes = unsafe { core::mem::zeroed::<libc::pthread_attr_t>() };
    // SAFETY: the set is this function's.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: both sets are this function's.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) };
    // SAFETY: the attribute is this function's.
    unsafe { libc::pthread_attr_init(&raw mut attributes) };
    // SAFETY: initialised in the line before.
    unsafe { libc::pthread_attr_setstacksize(&raw mut attributes, STACK_BYTES) };
    let mut thread: libc::pthread_t = 0;
    // SAFETY: the attribute is initialised; the function takes no argument and lives as long as the library, which
    // joins the thread before it goes.
    let result = unsafe { libc::pthread_create(&raw mut thread, &raw const attributes, run, ptr::null_mut()) };
    // SAFETY: initialised above, not used afterwards.
    unsafe { libc::pthread_attr_destroy(&raw mut attributes) };
    // SAFETY: restores what was there.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
    if result == 0 {
        GLOBAL.scavenger.starts.add_relaxed(1);
        // ORDERING: pairs with `join_ended`.
        GLOBAL.scavenger.thread.store_release(thread as usize);
    }
    result == 0
}

extern "C" fn run(_: *mut c_void) -> *mut c_void {
    let least = GLOBAL.scavenge_min_bytes.load_relaxed();
    let mut idle_looks = 0;
    while !GLOBAL.scavenger.stop.is_set_relaxed() {
        if pages::waiting_bytes() <= least / LEFT_SHARE || idle_looks >= IDLE_LOOKS {
            idle_looks = 0;
            let is_needed =
                GLOBAL.scavenger.work.wait(PARK_MS) || GLOBAL.front.os.in_use_bytes() + pages::waiting_bytes() >= least;
            if !is_needed {
                break;
            }
            continue;
        }
        GLOBAL
            .scavenger
            .end
            .wait(GLOBAL.front.os.next_due_ms().unwrap_or(SLEEP_MAX_MS).clamp(SLEEP_MIN_MS, SLEEP_MAX_MS));
        let Some(tables) = GLOBAL.front.tables() else { break };
        let evicted = GLOBAL.big.evict_due(&GLOBAL.big_context(tables, big_policy_of(None)));
        let purged = GLOBAL.front.os.purge_due();
        idle_looks = if evicted + purged == 0 { idle_looks + 1 } else { 0 };
    }
    // ORDERING: pairs with `start_slow`: the next starter joins this thread, which has nothing left to do.
    GLOBAL.scavenger.running.store_release(false);
    ptr::null_mut()
}
