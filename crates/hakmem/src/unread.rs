//! When mail is looked at that owners leave unread (see tiny-front's `unread`): beside purges, and as often as their delay allows.

use hakmem_atomic_ops::{Lock, Shared32};
use hakmem_tiny_front::{Look, Unread};

use crate::clock;
use crate::global::GLOBAL;

const NS_PER_MS: u64 = 1_000_000;
/// Least time (ms) between two looks: an owner that reads no mail for so long has had the time to.
const LEAST_PAUSE_MS: u32 = 20;

/// What is known of looks.
pub(crate) struct State {
    /// Held during a look, whose hands are full of tokens: a fork waits for it. When (ms) the last one was.
    looked_at: Lock<u64>,
    /// The policy's purge delay (ms): mail that has waited for so long is old enough to be sorted. `u32::MAX`: none is.
    pub delay_ms: Shared32,
}

impl State {
    pub const fn new() -> Self {
        Self { looked_at: Lock::new(0), delay_ms: Shared32::new(u32::MAX) }
    }

    pub fn lock_for_fork(&self) {
        self.looked_at.lock_for_fork();
    }

    /// # Safety
    /// - This thread (or the thread that it is a forked copy of) called [`State::lock_for_fork`].
    pub unsafe fn unlock_after_fork(&self) {
        // SAFETY: passed on to the caller.
        unsafe { self.looked_at.unlock_after_fork() };
    }
}

/// Whether there is something for [`sort_due`] to do, now or after a while.
#[inline]
pub(crate) fn waits() -> bool {
    GLOBAL.front.has_unread() && GLOBAL.unread.delay_ms.load_relaxed() != u32::MAX
}

/// How long (ms) from one look to the next.
pub(crate) fn pause_ms() -> u32 {
    GLOBAL.unread.delay_ms.load_relaxed().max(LEAST_PAUSE_MS)
}

/// Looks, if the last time was long enough ago. Returns the bytes let go.
#[inline]
pub(crate) fn sort_due() -> usize {
    if waits() { sort_due_slow() } else { 0 }
}

#[cold]
#[inline(never)]
fn sort_due_slow() -> usize {
    let Some(mut looked_at) = GLOBAL.unread.looked_at.try_lock() else { return 0 };
    let now = clock::monotonic_ns() / NS_PER_MS;
    if now < *looked_at + u64::from(pause_ms()) {
        return 0;
    }
    *looked_at = now;
    look(Unread::SinceLastLook).bytes
}

/// Sorts all mail, however young.
pub(crate) fn sort_all() {
    while {
        let _held = GLOBAL.unread.looked_at.lock();
        look(Unread::All).is_cut_short
    } {}
}

/// Waits until no mail is in a sorter's hands.
pub(crate) fn wait_for_sorter() {
    drop(GLOBAL.unread.looked_at.lock());
}

/// Called with the lock held.
fn look(which: Unread) -> Look {
    GLOBAL.front.sort_unread(GLOBAL.records().map(|record| &record.heap), which)
}
