//! A thread of the library's own: one that no program notices, started by an allocation and joined at the end.
//!
//! It has all signals blocked and a small stack. A free must not start one: the C library frees with its own stack lock held,
//! which `pthread_create` takes too. A forked child has none, whatever its parent had.
//!
//! **Not here.** What the thread does, what wakes it, whether the program should have it.
//! **Invariants.** At most one thread runs per [`Background`]. Who starts one joins its predecessor, which has nothing left to do.

use core::ffi::{CStr, c_int, c_void};
use core::ptr;
use hakmem_atomic_ops::{Flag, Shared32, Shared64, SharedUsize, spin_hint};
use hakmem_base::keeping_errno;

use crate::clock;
use crate::confined::is_confined;
use crate::global::GLOBAL;

/// Bytes of its stack: it calls nothing deep, but the C library's thread-local storage lives there too. In a program with much of
/// that the stack is made as large as it takes, up to the second number.
const STACK_BYTES: usize = 256 << 10;
const STACK_MAX_BYTES: usize = 64 << 20;

/// What is known of the thread.
pub(crate) struct Background {
    running: Flag,
    /// The thread to join at the end, as a number; 0 is none, [`COMING`] one whose number its starter does not know yet. Written by the
    /// starter, taken by the one who joins.
    thread: SharedUsize,
    /// The process that it runs in: a child that was made behind the C library's back has a copy of these words and no thread.
    process: Shared32,
    stop: Flag,
    starts: Shared32,
    /// When (ns) another start may be tried, after one that failed.
    retry_at_ns: Shared64,
}

/// No thread has this number: it is an address.
const COMING: usize = 1;

/// How long (ns) after a failed start: a process at its limit of threads would try with every allocation.
const RETRY_NS: u64 = 1_000_000_000;

/// What such a thread runs. It calls [`Background::begins`] first and [`Background::ended`] last.
pub(crate) type Body = extern "C" fn(*mut c_void) -> *mut c_void;

impl Background {
    pub const fn new() -> Self {
        Self {
            running: Flag::new(false),
            thread: SharedUsize::new(0),
            process: Shared32::new(0),
            stop: Flag::new(false),
            starts: Shared32::new(0),
            retry_at_ns: Shared64::new(0),
        }
    }

    #[inline]
    pub fn is_running(&self) -> bool {
        self.running.is_set_relaxed()
    }

    /// Whether the library is about to go.
    pub fn is_to_stop(&self) -> bool {
        self.stop.is_set_relaxed()
    }

    /// Times that a thread was started.
    pub fn starts(&self) -> u32 {
        self.starts.load_relaxed()
    }

    /// Starts the thread unless it runs or the library is about to go. False: there is none, because the system has no thread to give
    /// or the program is confined. That the library is about to go is no failure: true, though there may be none.
    pub fn start(&self, body: Body) -> bool {
        if is_confined() {
            return self.is_running();
        }
        let retry_at_ns = self.retry_at_ns.load_relaxed();
        if retry_at_ns != 0 && clock::monotonic_ns() < retry_at_ns {
            return false;
        }
        // ORDERING: one starter; pairs with the store at the thread's end.
        if self.is_to_stop() || !self.running.try_set_acq_rel() {
            return true;
        }
        GLOBAL.company.expect_own_thread();
        let started = keeping_errno_uncancelled(|| {
            self.join_ended();
            self.spawn(body)
        });
        if !started {
            self.retry_at_ns.store_relaxed(clock::monotonic_ns() + RETRY_NS);
            self.ended();
        }
        started
    }

    /// The thread's first act: the name under which tools show it, at most fifteen bytes of it.
    pub fn begins(name: &CStr) {
        // SAFETY: reads the name, of this thread alone.
        let _unnamed_if_refused = unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    }

    /// The thread's last act.
    pub fn ended(&self) {
        // Else the starter might store this thread's number over that of the next one.
        while self.thread.load_relaxed() == COMING {
            spin_hint();
        }
        // ORDERING: pairs with `start`: the next starter joins this thread, which has nothing left to do.
        self.running.store_release(false);
    }

    /// Ends the thread, which `wake` wakes, and waits for it: its code may be about to be unloaded.
    pub fn stop(&self, wake: impl FnOnce()) {
        // ORDERING: pairs with what wakes the thread, which looks at the flag next.
        self.stop.store_release(true);
        wake();
        self.join_ended();
    }

    /// In a forked child, which has no such thread.
    pub fn forget_in_child(&self) {
        self.thread.store_relaxed(0);
        self.ended();
    }

    /// Waits for the thread, which ends or has ended, unless somebody else has.
    pub fn join_ended(&self) {
        let thread = self.thread.load_relaxed();
        // ORDERING: pairs with `spawn`; one caller takes the number.
        if thread <= COMING || self.thread.cas_acq_rel(thread, 0).is_err() {
            return;
        }
        // A confined process may not be allowed to ask which one it is, and made no children behind anybody's back.
        if is_confined() || self.process.load_relaxed() == this_process() {
            // SAFETY: the number came from pthread_create, and only one caller takes it.
            unsafe { libc::pthread_join(thread as libc::pthread_t, ptr::null_mut()) };
        }
    }

    /// Creates the thread with all signals blocked. May allocate: called with no lock held.
    fn spawn(&self, body: Body) -> bool {
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
        // SAFETY: a number with glibc, a pointer with musl; zero is one of either.
        let mut thread = unsafe { core::mem::zeroed::<libc::pthread_t>() };
        let mut stack_bytes = STACK_BYTES;
        self.thread.store_relaxed(COMING);
        let result = loop {
            // SAFETY: initialised above.
            unsafe { libc::pthread_attr_setstacksize(&raw mut attributes, stack_bytes) };
            // SAFETY: the attribute is initialised; the function takes no argument and lives as long as the library, which
            // joins the thread before it goes.
            let result = unsafe { libc::pthread_create(&raw mut thread, &raw const attributes, body, ptr::null_mut()) };
            if result != libc::EINVAL || stack_bytes >= STACK_MAX_BYTES {
                break result;
            }
            stack_bytes *= 2;
        };
        // SAFETY: initialised above, not used afterwards.
        unsafe { libc::pthread_attr_destroy(&raw mut attributes) };
        if result == 0 {
            self.starts.add_relaxed(1);
            self.process.store_relaxed(this_process());
        }
        // ORDERING: pairs with `join_ended`. Before a signal's handler may keep this thread: the other one's end waits for it.
        self.thread.store_release(if result == 0 { thread as usize } else { 0 });
        // SAFETY: restores what was there.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
        result == 0
    }
}

fn this_process() -> u32 {
    // SAFETY: no preconditions.
    unsafe { libc::getpid() }.unsigned_abs()
}

/// An allocation is no cancellation point and leaves `errno` alone, whatever it starts.
fn keeping_errno_uncancelled<R>(work: impl FnOnce() -> R) -> R {
    unsafe extern "C" {
        fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
    }
    const PTHREAD_CANCEL_DISABLE: c_int = 1;
    let mut before = 0;
    // SAFETY: changes this thread's own state, and back below.
    unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut before) };
    let result = keeping_errno(work);
    // SAFETY: as above.
    unsafe { pthread_setcancelstate(before, ptr::null_mut()) };
    result
}
