//! The bell in every order of events: no ring is lost, and what was written before a ring is seen after the wait.
//!
//! Time does not pass in a model: a wait that misses its ring sleeps for ever, which is a deadlock that loom reports.

#![cfg(alloc_loom)]

use hakmem_atomic_ops::model::{Model, reads, thread, writes};
use hakmem_atomic_ops::{Bell, Flag, Shared32};
use std::sync::Arc;

/// A bell and the work that it announces.
#[derive(Default)]
struct Post {
    bell: Bell,
    work: u8,
}

const LONG_MS: u32 = 60_000;

#[test]
fn a_ring_before_at_or_during_the_wait_is_heard_and_its_work_seen() {
    // Hunts: a ring between the waiter's exchange and its sleep; a waiter that leaves without the ringer's writes.
    Model::exhaustive().check(|| {
        let post = Arc::new(Post::default());
        let ringer = {
            let post = Arc::clone(&post);
            thread::spawn(move || {
                writes(&raw const post.work);
                post.bell.ring();
            })
        };
        while !post.bell.wait(LONG_MS) {}
        reads(&raw const post.work);
        ringer.join().unwrap();
    });
}

#[test]
fn of_two_ringers_none_is_overheard() {
    // Hunts: a ringer that sees the bell as rung and goes, while the waiter is just taking that ring: the waiter would have
    // to see its work, or sleep once more and be woken.
    Model::preemptions(2, 3).check(|| {
        let post = Arc::new((Bell::new(), Shared32::new(0)));
        let ringers: Vec<_> = (0..2)
            .map(|_| {
                let post = Arc::clone(&post);
                thread::spawn(move || {
                    post.1.add_relaxed(1);
                    post.0.ring();
                })
            })
            .collect();
        while !post.0.wait(LONG_MS) {}
        assert!(post.1.load_relaxed() >= 1, "woken without work");
        for ringer in ringers {
            ringer.join().unwrap();
        }
    });
}

#[test]
fn what_was_written_before_a_ring_for_sure_is_seen_though_another_ring_came_first() {
    // Hunts: a ringer that finds the bell rung and leaves it at that, while the waiter is taking the other one's ring: it sees that it
    // is not to stop, and sleeps for ever.
    Model::preemptions(2, 3).check(|| {
        let post = Arc::new((Bell::new(), Flag::new(false)));
        let other = {
            let post = Arc::clone(&post);
            thread::spawn(move || post.0.ring())
        };
        let stopper = {
            let post = Arc::clone(&post);
            thread::spawn(move || {
                // Models want flags set by exchange.
                let _first = post.1.try_set_acq_rel();
                post.0.ring_surely();
            })
        };
        while !post.1.is_set_relaxed() {
            post.0.wait(LONG_MS);
        }
        other.join().unwrap();
        stopper.join().unwrap();
    });
}
