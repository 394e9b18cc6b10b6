//! What the C library is asked to call: at a thread's end, around a fork, at exit, on SIGUSR2.

use core::ffi::{c_int, c_void};
use core::ptr;
use hakmem_atomic_ops::{Flag, Shared32};
use hakmem_base::keeping_errno;

use crate::attach::detach_thread;
use crate::dump;
use crate::finding;
use crate::global::GLOBAL;
use crate::hardened;
use crate::learning;
use crate::record::HeapRecord;
use crate::report;
use crate::sampler;
use crate::scavenger;
use crate::segv;
use crate::signals::Handler;
use crate::stderr;
use crate::stdio;
use crate::tls;
use crate::watcher;

/// Destructor rounds that a heap outlives, so that destructors of other keys, which may allocate, run before it goes.
const EXIT_ROUNDS: u8 = 2;
/// The signal that asks for a dump.
const DUMP_SIGNAL: c_int = libc::SIGUSR2;
/// No key has been created.
const NO_KEY: u32 = u32::MAX;

/// What has been asked of the C library.
pub(crate) struct Hooks {
    /// The pthread key whose destructor gives heaps up. Written once, before the first thread is watched.
    exit_key: Shared32,
    forks_are_handled: Flag,
    /// The fork at work holds the lock of all streams.
    streams_are_locked: Flag,
    are_installed: Flag,
    are_finished: Flag,
}

impl Hooks {
    pub const fn new() -> Self {
        Self {
            exit_key: Shared32::new(NO_KEY),
            forks_are_handled: Flag::new(false),
            streams_are_locked: Flag::new(false),
            are_installed: Flag::new(false),
            are_finished: Flag::new(false),
        }
    }
}

/// Creates the key. Allocates nothing.
pub(crate) fn create_exit_key() {
    let mut key: libc::pthread_key_t = 0;
    // SAFETY: the key is a local to be filled; the destructor matches the value that `watch_thread` sets.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(thread_ends)) } == 0 {
        GLOBAL.hooks.exit_key.store_relaxed(key);
    }
}

/// Has the thread's heap given up at its end. May allocate.
pub(crate) fn watch_thread(record: &'static HeapRecord) {
    let key = GLOBAL.hooks.exit_key.load_relaxed();
    if key != NO_KEY {
        // SAFETY: the key exists; the value is only compared with null.
        unsafe { libc::pthread_setspecific(key, ptr::from_ref(record).cast()) };
    }
}

#[unsafe(link_section = ".text.hot.hakmem.long")]
unsafe extern "C" fn thread_ends(_: *mut c_void) {
    let Some(record) = tls::heap() else { return };
    let rounds = record.exit_rounds.get() + 1;
    record.exit_rounds.set(rounds);
    if rounds < EXIT_ROUNDS {
        watch_thread(record);
    } else {
        detach_thread();
    }
}

/// Installs fork handlers and the dump signal, once. May allocate.
pub(crate) fn install_once() {
    // Miri's programs neither fork nor get signals.
    if cfg!(miri) {
        return;
    }
    // ORDERING: decides who installs; nothing travels.
    if GLOBAL.hooks.are_installed.is_set_relaxed() || !GLOBAL.hooks.are_installed.try_set_acq_rel() {
        return;
    }
    handle_forks();
    let boot = GLOBAL.boot();
    if boot.stats || boot.os_stats {
        stderr::keep();
    }
    if boot.dump_signal {
        let _is_there = DUMPER.install(DUMP_SIGNAL);
    }
    if boot.dump_signal && boot.freeze_signal == DUMP_SIGNAL.unsigned_abs() {
        hakmem_base::report("HAKMEM_FREEZE_SIGNAL names the signal that HAKMEM_DUMP_SIGNAL has; ignored");
    } else {
        learning::install_freeze_signal(boot.freeze_signal);
    }
}

/// Registers the fork handlers, once. Allocates nothing of the library's own, which need not be ready.
///
/// Handlers that were registered earlier run while this library's locks are held: one that allocates, or that waits for somebody who
/// does, would wait for ever. So this comes before others if they can be seen to come.
#[unsafe(link_section = ".text.hot.hakmem")]
pub(crate) fn handle_forks() {
    // ORDERING: decides who registers; nothing travels.
    if cfg!(miri) || !GLOBAL.hooks.forks_are_handled.try_set_acq_rel() {
        return;
    }
    // SAFETY: the handlers take and release locks of this library and are unregistered with it.
    let refused =
        unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork_in_parent), Some(after_fork_in_child)) };
    if refused != 0 {
        // ORDERING: as above. Whoever comes next tries again.
        GLOBAL.hooks.forks_are_handled.store_release(false);
    }
}

extern "C" fn before_fork() {
    // Not in a program of one thread: a handler of a signal that came while it wrote to a stream may fork, and goes on there.
    let has_others = GLOBAL.company.is_present();
    if has_others {
        stdio::lock();
    }
    learning::lock_for_fork();
    watcher::lock_for_fork();
    scavenger::lock_for_fork();
    GLOBAL.setup.lock_for_fork();
    // The big cache next: under its locks the epochs may allocate, which may pick up a policy, or take a heap record.
    GLOBAL.big.lock_for_fork();
    GLOBAL.applied.lock_for_fork();
    GLOBAL.front.classes.lock_for_fork();
    GLOBAL.hardened.lock_for_fork();
    GLOBAL.registry.free.lock_for_fork();
    GLOBAL.arena.lock_for_fork();
    GLOBAL.sampled.lock_for_fork();
    GLOBAL.watcher.pool.lock_for_fork();
    GLOBAL.unread.lock_for_fork();
    GLOBAL.front.os.lock_for_fork();
    // ORDERING: forks come one at a time, by the locks; flags have no relaxed store.
    GLOBAL.hooks.streams_are_locked.store_release(has_others);
}

fn release_fork_locks() {
    // SAFETY: `before_fork` took it in this thread or in the thread that this one is a copy of; so for all of them.
    unsafe { GLOBAL.front.os.unlock_after_fork() };
    // SAFETY: as above.
    unsafe { GLOBAL.unread.unlock_after_fork() };
    // SAFETY: as above.
    unsafe { GLOBAL.watcher.pool.unlock_after_fork() };
    // SAFETY: as above.
    unsafe { GLOBAL.sampled.unlock_after_fork() };
    // SAFETY: as above.
    unsafe { GLOBAL.arena.unlock_after_fork() };
    // SAFETY: as above.
    unsafe { GLOBAL.registry.free.unlock_after_fork() };
    // SAFETY: as above.
    unsafe { GLOBAL.hardened.unlock_after_fork() };
    // SAFETY: as above.
    unsafe { GLOBAL.front.classes.unlock_after_fork() };
    // SAFETY: as above.
    unsafe { GLOBAL.applied.unlock_after_fork() };
    // SAFETY: as above.
    unsafe { GLOBAL.big.unlock_after_fork() };
    // SAFETY: as above.
    unsafe { GLOBAL.setup.unlock_after_fork() };
    // SAFETY: as above.
    unsafe { scavenger::unlock_after_fork() };
    // SAFETY: as above.
    unsafe { watcher::unlock_after_fork() };
    // SAFETY: as above.
    unsafe { learning::unlock_after_fork() };
}

extern "C" fn after_fork_in_parent() {
    let has_streams = GLOBAL.hooks.streams_are_locked.is_set_relaxed();
    release_fork_locks();
    if has_streams {
        stdio::unlock();
    }
}

extern "C" fn after_fork_in_child() {
    if GLOBAL.hooks.streams_are_locked.is_set_relaxed() {
        stdio::reset();
    }
    scavenger::forget_in_child();
    learning::forget_in_child();
    GLOBAL.front.forget_in_child();
    // Only the forking thread lives on. The others' heaps stay behind: their state may be half-changed.
    let own = u32::from(tls::heap().is_some());
    GLOBAL.registry.peak.store_relaxed(own);
    GLOBAL.registry.live.store_relaxed(own);
    GLOBAL.company.forget_in_child();
    release_fork_locks();
    learning::forget_findings_in_child();
    GLOBAL.hardened.stir_in_child();
    finding::forget_in_child();
    sampler::differ_in_child();
    watcher::forget_in_child();
}

/// The process exits or the library is unloaded: exit statistics, and nothing may call into it afterwards.
pub(crate) fn finish() {
    // A process that has never allocated has nothing to finish, and writes to no page of its own for it.
    // ORDERING: decides who finishes; nothing travels.
    if GLOBAL.is_ready() && GLOBAL.hooks.are_finished.try_set_acq_rel() {
        learning::finish();
        report::at_exit();
        hardened::sweep();
        sampler::sweep();
        scavenger::stop();
        segv::uninstall();
        DUMPER.uninstall();
        learning::FREEZER.uninstall();
        let key = GLOBAL.hooks.exit_key.load_relaxed();
        if key != NO_KEY {
            GLOBAL.hooks.exit_key.store_relaxed(NO_KEY);
            // SAFETY: the key exists; its destructor, which lies in this library, is not called any more.
            unsafe { libc::pthread_key_delete(key) };
        }
    }
}

#[unsafe(link_section = ".text.hot.hakmem")]
extern "C" fn at_load() {
    handle_forks();
}

// SAFETY: the section holds pointers to functions that run when the program or library is loaded, those with small numbers first.
#[used]
#[unsafe(link_section = ".init_array.00099")]
static AT_LOAD: extern "C" fn() = at_load;

#[unsafe(link_section = ".text.hot.hakmem")]
extern "C" fn at_unload() {
    finish();
}

// SAFETY: the section holds pointers to functions without arguments that run at exit or unload.
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_UNLOAD: extern "C" fn() = at_unload;

/// Calls async-signal-safe functions only.
static DUMPER: Handler = Handler::new(on_dump_signal);

extern "C" fn on_dump_signal(_: c_int) {
    keeping_errno(dump::to_files);
}
