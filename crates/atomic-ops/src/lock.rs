//! A futex lock: three states, no allocation, usable in statics and across `fork`.
//!
//! The standard library's mutex makes no promise about allocating or about `fork`; this one can be taken before `fork`
//! and released in parent and child. States and transitions follow U. Drepper, "Futexes Are Tricky", mutex 2.

use crate::futex;
use crate::probe;
use crate::words::{Shared32, spin_hint};
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody may be sleeping.
const CONTENDED: u32 = 2;
/// Looks at the lock before sleeping: about as long as the shortest critical sections here take.
const SPINS: u32 = if cfg!(alloc_loom) { 1 } else { 60 };

/// Data behind a lock.
#[derive(Debug)]
pub struct Lock<T> {
    state: Shared32,
    data: UnsafeCell<T>,
}

// SAFETY: the data is reached only through a guard (one at a time), so sharing the lock shares `T` by moving access to it.
unsafe impl<T: Send> Sync for Lock<T> {}

/// Exclusive access to the data of a [`Lock`]; released when dropped.
#[derive(Debug)]
pub struct LockGuard<'a, T> {
    lock: &'a Lock<T>,
}

impl<T> Lock<T> {
    /// A free lock around `data`.
    pub const fn new(data: T) -> Self {
        Self { state: Shared32::new(FREE), data: UnsafeCell::new(data) }
    }

    /// Waits for the lock.
    #[inline]
    pub fn lock(&self) -> LockGuard<'_, T> {
        // ORDERING: pairs with `release`; the data written under the lock travels.
        if self.state.cas_acq_rel(FREE, HELD).is_err() {
            self.lock_slow();
        }
        LockGuard { lock: self }
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<LockGuard<'_, T>> {
        // ORDERING: pairs with `release`, as in `lock`.
        self.state.cas_acq_rel(FREE, HELD).is_ok().then(|| LockGuard { lock: self })
    }

    /// Takes the lock and leaves it taken, for a `fork` handler.
    pub fn lock_for_fork(&self) {
        core::mem::forget(self.lock());
    }

    /// Releases what [`Lock::lock_for_fork`] took, in the parent or in the child.
    ///
    /// # Safety
    /// - The calling thread (or the thread that it is a forked copy of) took the lock with `lock_for_fork`.
    pub unsafe fn unlock_after_fork(&self) {
        self.release();
    }

    #[inline]
    fn release(&self) {
        // ORDERING: pairs with `lock`; the data written under the lock travels.
        if self.state.swap_acq_rel(FREE) == CONTENDED {
            self.wake_slow();
        }
    }

    #[cold]
    #[inline(never)]
    fn lock_slow(&self) {
        for _ in 0..SPINS {
            spin_hint();
            // ORDERING: pairs with `release`, as in `lock`.
            if self.state.load_relaxed() == FREE && self.state.cas_acq_rel(FREE, HELD).is_ok() {
                return;
            }
        }
        // ORDERING: pairs with `release`, as in `lock`. Taken as CONTENDED: other sleepers may exist.
        while self.state.swap_acq_rel(CONTENDED) != FREE {
            futex::wait(&self.state, CONTENDED, None);
        }
    }

    #[cold]
    #[inline(never)]
    fn wake_slow(&self) {
        futex::wake_one(&self.state);
    }
}

impl<T> Deref for LockGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        probe::reads(&self.lock.data);
        // SAFETY: the guard proves that this thread holds the lock.
        unsafe { &*self.lock.data.get() }
    }
}

impl<T> DerefMut for LockGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        probe::writes(&self.lock.data);
        // SAFETY: the guard proves that this thread holds the lock, and it is borrowed exclusively.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<T> Drop for LockGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn increments_under_the_lock_are_not_lost() {
        let lock = Lock::new(0_u64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        *lock.lock() += 1;
                    }
                });
            }
        });
        assert_eq!(*lock.lock(), 80_000);
    }

    #[test]
    fn who_finds_the_lock_held_waits_until_it_is_free() {
        let (lock, meeting) = (Lock::new(0), Barrier::new(4));
        std::thread::scope(|scope| {
            let mut guard = lock.lock();
            for _ in 0..3 {
                scope.spawn(|| {
                    meeting.wait();
                    assert!(*lock.lock() >= 10, "entered while the lock was held");
                    *lock.lock() += 1;
                });
            }
            meeting.wait();
            // Most of the time the others look at the lock meanwhile, and go to sleep.
            for _ in 0..200 {
                assert_eq!(*guard, 0);
                std::thread::yield_now();
            }
            *guard = 10;
        });
        assert_eq!(*lock.lock(), 13);
    }

    #[test]
    fn try_lock_fails_while_held() {
        let lock = Lock::new(());
        let guard = lock.lock();
        assert!(lock.try_lock().is_none());
        drop(guard);
        assert!(lock.try_lock().is_some());
    }

    #[test]
    fn a_lock_kept_for_fork_can_be_released() {
        let lock = Lock::new(1);
        lock.lock_for_fork();
        assert!(lock.try_lock().is_none());
        // SAFETY: this thread took it for fork in the line before.
        unsafe { lock.unlock_after_fork() };
        assert_eq!(*lock.lock(), 1);
    }
}
