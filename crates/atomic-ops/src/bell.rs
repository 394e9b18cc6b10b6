//! A bell that one thread waits for and any thread rings.

use crate::futex;
use crate::words::Shared32;

const QUIET: u32 = 0;
const RUNG: u32 = 1;
const SLEEPER: u32 = 2;

/// Wakes one waiting thread; a ring that nobody waits for is kept for the next wait. Ringing takes no lock and allocates
/// nothing, so that any free may do it.
#[derive(Debug, Default)]
pub struct Bell(Shared32);

impl Bell {
    /// A bell that has not been rung.
    #[must_use]
    pub const fn new() -> Self {
        Self(Shared32::new(QUIET))
    }

    /// Wakes the waiting thread, or spares the next wait.
    #[inline]
    pub fn ring(&self) {
        if self.0.load_relaxed() != RUNG {
            self.ring_surely();
        }
    }

    /// Like [`Bell::ring`], where that may take a ring for unheard which the waiting thread is just taking: it would not see what was
    /// written before this one, and sleep on. Here it sees it.
    pub fn ring_surely(&self) {
        // ORDERING: pairs with `wait`: what was written before the ring is visible to the woken thread.
        if self.0.swap_acq_rel(RUNG) == SLEEPER {
            futex::wake_one(&self.0);
        }
    }

    /// Sleeps until a ring, at most `timeout_ms` milliseconds. True if there was one. One thread waits at a time.
    pub fn wait(&self, timeout_ms: u32) -> bool {
        // ORDERING: pairs with `ring`.
        if self.0.cas_acq_rel(QUIET, SLEEPER).is_ok() {
            futex::wait(&self.0, SLEEPER, Some(timeout_ms));
        }
        // ORDERING: pairs with `ring`.
        self.0.swap_acq_rel(QUIET) == RUNG
    }

    /// Forgets rings and sleepers: a forked child has none.
    pub fn reset(&self) {
        self.0.store_relaxed(QUIET);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_ring_is_heard_before_and_during_the_wait() {
        let bell = Bell::new();
        assert!(!bell.wait(1));
        bell.ring();
        assert!(bell.wait(60_000));
        assert!(!bell.wait(1));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                bell.ring();
            });
            // A wait may end early for no reason. A ring that is lost is a test that hangs.
            while !bell.wait(u32::MAX) {}
        });
    }
}
