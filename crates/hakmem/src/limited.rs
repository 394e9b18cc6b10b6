//! A program that limits its address space while it runs.
//!
//! The kernel counts the whole window towards `RLIMIT_AS`, though next to nothing of it is in use: under a limit that is lower, the
//! program could map nothing any more. So what is not in use is released, and taken again bit by bit as the heap grows.

use hakmem_atomic_ops::Shared32;

use crate::global::GLOBAL;

/// Whose window it is.
pub(crate) struct State {
    /// Process in which the fork handlers ran last; 0 before they are installed. Relaxed: written where there is one thread, or the
    /// same number by each.
    process: Shared32,
}

impl State {
    pub const fn new() -> Self {
        Self { process: Shared32::new(0) }
    }
}

fn process() -> u32 {
    // SAFETY: no preconditions.
    unsafe { libc::getpid() }.cast_unsigned()
}

/// The fork handlers are installed, or run in a child.
pub(crate) fn note_process() {
    GLOBAL.limited.process.store_relaxed(process());
}

/// The address space of this process (`RLIMIT_AS`) is limited to `limit_bytes` bytes, or is about to be: if hakmem reserves more
/// than half of them, it releases what it does not use. From then on it reserves as it grows, and shares the limit with everybody
/// else, like an allocator without a window. There is no way back, and nothing is lost: a later, higher limit has its effect at once.
///
/// The preload library calls this by itself when a program sets the limit by `setrlimit` or `prlimit`. A Rust program calls it before
/// it does so. Does nothing in a child that shares its parent's memory (`vfork`): the limit is the child's, the window the parent's.
pub fn expect_address_limit(limit_bytes: usize) {
    let here = GLOBAL.limited.process.load_relaxed();
    if here == 0 || here == process() {
        GLOBAL.front.os.fit(limit_bytes);
    }
}
