//! A program that confines itself, and what the library leaves alone from then on.
//!
//! A filter of system calls (seccomp) ends a process for a call that is not on its list, and such lists name what the program does
//! and what glibc's malloc does: `mmap`, `munmap`, `mremap`, `mprotect`, `madvise`, `brk`, `futex`. So a confined process is not looked
//! at with `mincore`, gets no handlers and keeps those it has, samples do not say which thread they are of, and no thread is started.
//! One that runs already ends if it learns; the scavenger makes calls of the list only.

use hakmem_policy::Mode;

use crate::attach::heap_for_thread;
use crate::global::GLOBAL;
use crate::learning;

/// Tells hakmem that the program is about to confine itself (seccomp), which cannot be undone: from now on hakmem makes no system call
/// that glibc's malloc does not make, and the mode is FROZEN for good. The thread of OBSERVE or LEARN ends at its next step; give it a
/// moment if the filter is for all threads.
///
/// A Rust program calls this before it installs a filter. The preload library calls it by itself when a program asks `prctl` for
/// `PR_SET_SECCOMP` or `PR_SET_NO_NEW_PRIVS`.
pub fn expect_confinement() {
    // What begins with the first allocation asks for the machine's size and the address space's limit, and installs handlers.
    let _may_be_none = heap_for_thread();
    // ORDERING: a switch that is read relaxed; no data travels.
    GLOBAL.is_confined.store_release(true);
    GLOBAL.front.os.stop_looking();
    // Frozen is what it can always be.
    let _is_frozen = learning::set_mode(Mode::Frozen);
}

/// Whether the program has said so.
#[inline]
pub(crate) fn is_confined() -> bool {
    GLOBAL.is_confined.is_set_relaxed()
}
