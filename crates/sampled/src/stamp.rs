//! Who did something with a block, when, and from where.

use crate::trace::Trace;

/// An allocation or a free of a sampled block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The kernel's id of the thread; 0 where it may not be asked.
    pub thread: u32,
    /// Monotonic milliseconds.
    pub at_ms: u64,
    /// The calls that led there.
    pub trace: Trace,
}

impl Stamp {
    /// Something that this thread does now.
    #[must_use]
    pub fn now(thread: u32, trace: Trace) -> Self {
        Self { thread, at_ms: clock_ms(), trace }
    }
}

/// Monotonic milliseconds, a few behind: reads memory shared with the kernel, no system call.
fn clock_ms() -> u64 {
    let clock = if cfg!(miri) { libc::CLOCK_MONOTONIC } else { libc::CLOCK_MONOTONIC_COARSE };
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the timespec it is given; the clock exists on every Linux.
    let _result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}
