//! The lock in every order of events: its state word, its sleepers, and the data that it hands over.
//!
//! The futex is a model of the kernel's (`src/model/futex.rs`); a wake-up that is lost shows as a deadlock.

#![cfg(alloc_loom)]

use hakmem_atomic_ops::Lock;
use hakmem_atomic_ops::model::{Model, thread};
use std::sync::Arc;

#[test]
fn what_is_written_under_the_lock_reaches_its_next_holder() {
    // Hunts: a holder that enters by the first look, by the spin or after a sleep, and does not see the last holder's
    // writes; two holders at once; a sleeper that nobody wakes because the waker saw the lock as not contended.
    Model::preemptions(2, 4).check(|| {
        let lock = Arc::new(Lock::new(0));
        let others: Vec<_> = (0..2)
            .map(|_| {
                let lock = Arc::clone(&lock);
                thread::spawn(move || *lock.lock() += 1)
            })
            .collect();
        *lock.lock() += 1;
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(*lock.lock(), 3);
    });
}

#[test]
fn a_try_that_succeeds_sees_the_last_holders_writes() {
    // Hunts: `try_lock` right behind a release, without the data.
    Model::exhaustive().check(|| {
        let lock = Arc::new(Lock::new(0));
        let other = {
            let lock = Arc::clone(&lock);
            thread::spawn(move || {
                if let Some(mut data) = lock.try_lock() {
                    *data += 1;
                    return true;
                }
                false
            })
        };
        let mine = lock.try_lock().map(|mut data| *data += 1).is_some();
        let theirs = other.join().unwrap();
        assert!(mine || theirs, "the first to try finds the lock free");
        assert_eq!(*lock.lock(), u32::from(mine) + u32::from(theirs));
    });
}

#[test]
fn a_sleeper_wakes_after_two_releases_in_a_row() {
    // Hunts: the lock goes free, held and free again between a waiter's exchange and its sleep; the second release must
    // know of the sleeper although its taker found the lock free.
    Model::preemptions(2, 3).check(|| {
        let lock = Arc::new(Lock::new(0));
        let waiter = {
            let lock = Arc::clone(&lock);
            thread::spawn(move || *lock.lock() += 1)
        };
        for _ in 0..2 {
            *lock.lock() += 1;
        }
        waiter.join().unwrap();
        assert_eq!(*lock.lock(), 3);
    });
}
