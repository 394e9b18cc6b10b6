//! A program that confines itself, and what the library leaves alone from then on.
//!
//! A filter of system calls (seccomp) ends a process for a call that is not on its list, and such lists name what the program does
//! and what glibc's malloc does: `mmap`, `munmap`, `mremap`, `mprotect`, `madvise`, `brk`, `futex`. So a confined process is not looked
//! at with `mincore`, gets no handlers and keeps those it has, samples do not say which thread they are of, and no thread is started.
//! One that runs already ends if it learns; the scavenger makes calls of the list only.

use hakmem_atomic_ops::Flag;
use hakmem_policy::Mode;

use crate::attach::heap_for_thread;
use crate::global::GLOBAL;
use crate::learning;

/// Whether the program has said so.
pub(crate) struct State {
    is_confined: Flag,
}

impl State {
    pub const fn new() -> Self {
        Self { is_confined: Flag::new(false) }
    }
}

/// The program is about to confine itself, for good: from now on hakmem makes no system call that glibc's malloc does not make, and
/// policy is frozen and stays so. The thread that measures or learns ends at its next step; give it a moment if the filter is for all threads.
///
/// The preload library calls this by itself when a program asks `prctl` for `PR_SET_SECCOMP` or `PR_SET_NO_NEW_PRIVS`. A Rust program
/// calls it before it installs a filter.
pub fn expect_confinement() {
    // What begins with the first allocation asks for the machine's size and the address space's limit, and installs handlers.
    let _may_be_none = heap_for_thread();
    // ORDERING: a switch that is read relaxed; no data travels.
    GLOBAL.confined.is_confined.store_release(true);
    GLOBAL.front.os.stop_looking();
    // Frozen is what it can always be.
    let _is_frozen = learning::set_mode(Mode::Frozen);
}

#[inline]
pub(crate) fn is_confined() -> bool {
    GLOBAL.confined.is_confined.is_set_relaxed()
}
