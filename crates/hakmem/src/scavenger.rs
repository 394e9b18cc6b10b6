//! The scavenger: a short-lived thread that purges when the program has gone idle.
//!
//! Started only when much memory waits and the program has more than one thread anyway (a single-threaded program may
//! fork, unshare or sandbox itself and is not surprised with a thread). It allocates nothing, holds no heap, has all
//! signals blocked, and ends when little is left to purge.

use core::ffi::c_void;
use core::ptr;
use hakmem_atomic_ops::{Flag, Shared32, SharedUsize};
use hakmem_policy::Scavenger;

use crate::global::GLOBAL;
use crate::large::big_policy_of;
use crate::pages;

/// Bytes of its stack: it calls nothing deep, but the C library's thread-local storage lives there too.
const STACK_BYTES: usize = 256 << 10;
/// Looks without anything purged after which it ends, whatever still waits.
const IDLE_LOOKS: u32 = 20;
/// It ends when less than this share of what it is started for waits.
const LEFT_SHARE: usize = 8;
/// Shortest and longest sleep (ms) between two looks.
const SLEEP_MIN_MS: u32 = 20;
const SLEEP_MAX_MS: u32 = 500;

static RUNNING: Flag = Flag::new(false);
/// The thread to join at the end, as a number; 0 is none. Written by the starter, taken by the one who joins.
static THREAD: SharedUsize = SharedUsize::new(0);
static STOP: Flag = Flag::new(false);
static STARTS: Shared32 = Shared32::new(0);

/// Starts the scavenger unless it runs, or policy or circumstances are against it.
#[cold]
#[inline(never)]
pub(crate) fn start_slow() {
    let mode = GLOBAL.scavenger_mode.load_relaxed();
    let is_threaded = GLOBAL.registry.peak.load_relaxed() > 1;
    let wanted = mode == Scavenger::On as u32 || (mode == Scavenger::Auto as u32 && is_threaded);
    if !wanted || RUNNING.is_set_relaxed() || STOP.is_set_relaxed() {
        return;
    }
    // ORDERING: one starter; pairs with the store at the thread's end.
    if !RUNNING.try_set_acq_rel() {
        return;
    }
    join_ended();
    if !spawn() {
        // ORDERING: as above.
        RUNNING.store_release(false);
    }
}

/// Times the scavenger was started.
pub(crate) fn starts() -> u32 {
    STARTS.load_relaxed()
}

/// A forked child has no scavenger, whatever the parent had.
pub(crate) fn forget_in_child() {
    THREAD.store_relaxed(0);
    // ORDERING: the child has one thread; release only because flags have no relaxed store.
    RUNNING.store_release(false);
}

/// Ends the scavenger and waits for it: its code may be about to be unloaded.
pub(crate) fn stop() {
    // ORDERING: read relaxed by the thread, which looks often.
    STOP.store_release(true);
    join_ended();
}

fn join_ended() {
    // ORDERING: pairs with `spawn`; one caller takes the number.
    let thread = THREAD.swap_acquire(0);
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
        STARTS.add_relaxed(1);
        // ORDERING: pairs with `join_ended`.
        THREAD.store_release(thread as usize);
    }
    result == 0
}

extern "C" fn run(_: *mut c_void) -> *mut c_void {
    let mut idle_looks = 0;
    let enough = GLOBAL.scavenge_min_bytes.load_relaxed() / LEFT_SHARE;
    while idle_looks < IDLE_LOOKS && pages::waiting_bytes() > enough && !STOP.is_set_relaxed() {
        sleep(GLOBAL.front.os.next_due_ms().unwrap_or(SLEEP_MAX_MS).clamp(SLEEP_MIN_MS, SLEEP_MAX_MS));
        let Some(tables) = GLOBAL.front.tables() else { break };
        let evicted = GLOBAL.big.evict_due(&GLOBAL.big_context(tables, big_policy_of(None)));
        let purged = GLOBAL.front.os.purge_due();
        idle_looks = if evicted + purged == 0 { idle_looks + 1 } else { 0 };
    }
    // What arrives from here on starts the next one: whoever frees looks after having freed.
    // ORDERING: pairs with `start_slow`: the next starter joins this thread, which has nothing left to do.
    RUNNING.store_release(false);
    ptr::null_mut()
}

fn sleep(milliseconds: u32) {
    let time = libc::timespec {
        tv_sec: libc::time_t::from(milliseconds / 1000),
        tv_nsec: libc::c_long::from(milliseconds % 1000) * 1_000_000,
    };
    // SAFETY: the time is valid; an early return only means an early look.
    unsafe { libc::nanosleep(&raw const time, ptr::null_mut()) };
}
