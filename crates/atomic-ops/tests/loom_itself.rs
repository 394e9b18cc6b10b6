//! The models' own support: what a model must be able to see, it sees. A model that cannot fail proves nothing.

#![cfg(alloc_loom)]
#![allow(clippy::unwrap_used, reason = "test helpers outside #[test] functions: a panic is the test's failure")]

use hakmem_atomic_ops::model::{Model, reads, thread, writes};
use hakmem_atomic_ops::{Bell, Flag, Owned32, Shared32, Shared64, SharedPtr};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// Runs a scenario and collects what its runs returned.
fn outcomes<T: Ord + Send + 'static>(scenario: impl Fn() -> T + Send + Sync + 'static) -> BTreeSet<T> {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let all = Arc::clone(&seen);
    Model::exhaustive().check(move || {
        let outcome = scenario();
        all.lock().unwrap().insert(outcome);
    });
    Arc::into_inner(seen).unwrap().into_inner().unwrap()
}

#[test]
fn a_load_is_also_run_after_another_threads_load_and_store() {
    // Hunts: an order of events that loom alone leaves out, because it remembers one last load of a word.
    let seen = outcomes(|| {
        let word = Arc::new(Shared32::new(0));
        let other = {
            let word = Arc::clone(&word);
            thread::spawn(move || {
                let before = word.load_relaxed();
                word.store_relaxed(before + 1);
            })
        };
        let (first, second) = (word.load_relaxed(), word.load_relaxed());
        other.join().unwrap();
        (first, second)
    });
    assert_eq!(seen, BTreeSet::from([(0, 0), (0, 1), (1, 1)]));
}

#[test]
fn a_relaxed_store_is_seen_late_and_a_released_one_in_time() {
    // Hunts: a switch to loom's words that loses orderings, or adds some.
    let message = |released: bool| {
        outcomes(move || {
            let words = Arc::new((Shared64::new(7), Flag::new(false), Shared32::new(0)));
            let writer = {
                let words = Arc::clone(&words);
                thread::spawn(move || {
                    words.0.store_relaxed(8);
                    if released {
                        words.1.store_release(true);
                    } else {
                        words.2.store_relaxed(1);
                    }
                })
            };
            let told = if released { words.1.is_set_acquire() } else { words.2.load_relaxed() == 1 };
            let found = words.0.load_relaxed();
            writer.join().unwrap();
            (told, found)
        })
    };
    assert_eq!(message(true), BTreeSet::from([(false, 7), (false, 8), (true, 8)]));
    assert_eq!(message(false), BTreeSet::from([(false, 7), (false, 8), (true, 7), (true, 8)]));
}

#[test]
fn words_begin_with_the_value_that_they_were_made_with() {
    // Hunts: the difference that a loom atomic holds, read as a value.
    Model::exhaustive().check(|| {
        let (number, pointer) = (Shared32::new(u32::MAX), 5_u8);
        let (flag, pointer) = (Flag::new(true), SharedPtr::new((&raw const pointer).cast_mut()));
        assert_eq!(number.add_relaxed(2), u32::MAX);
        assert_eq!(number.cas_acq_rel(0, 3), Err(1));
        assert_eq!(number.cas_acq_rel(1, 3), Ok(1));
        assert_eq!(number.load_acquire(), 3);
        assert!(!flag.try_set_acq_rel());
        flag.store_release(false);
        assert!(flag.try_set_acq_rel());
        let first = pointer.load_relaxed();
        assert_eq!(pointer.swap_acq_rel(core::ptr::null_mut()), first);
        assert_eq!(pointer.cas_acq_rel(first, first), Err(core::ptr::null_mut()));
        // Another word at the same place is another word.
        let mut place = Shared64::new(1);
        place.store_relaxed(2);
        place = Shared64::new(9);
        assert_eq!(place.load_relaxed(), 9);
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn two_accesses_that_nothing_orders_are_a_race() {
    // Hunts: probes that see nothing.
    Model::exhaustive().check(|| {
        let place = Arc::new(0_u8);
        let other = {
            let place = Arc::clone(&place);
            thread::spawn(move || writes(&raw const *place))
        };
        reads(&raw const *place);
        other.join().unwrap();
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn two_writers_of_an_owned_word_that_nothing_orders_are_a_race() {
    // Hunts: owned words that are not probed.
    Model::exhaustive().check(|| {
        let word = Arc::new(Owned32::new(0));
        let other = {
            let word = Arc::clone(&word);
            thread::spawn(move || word.add(1))
        };
        word.add(1);
        other.join().unwrap();
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_ring_that_is_missing_is_a_deadlock() {
    // Hunts: a futex that lets sleepers go by themselves.
    Model::exhaustive().check(|| {
        let bell = Bell::new();
        while !bell.wait(1) {}
    });
}
