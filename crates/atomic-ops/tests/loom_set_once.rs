//! The value that is set once, and the flag that one caller sets, in every order of events.

#![cfg(alloc_loom)]

use hakmem_atomic_ops::model::{Model, thread, writes};
use hakmem_atomic_ops::{Flag, SetOnce};
use std::sync::Arc;

#[test]
fn whoever_sees_the_value_sees_all_of_it_and_one_setter_wins() {
    // Hunts: a reader that finds `ready` before the value is there; two setters that both write.
    Model::exhaustive().check(|| {
        let cell = Arc::new(SetOnce::new());
        let setters: Vec<_> = (1..=2)
            .map(|value| {
                let cell = Arc::clone(&cell);
                thread::spawn(move || cell.set([value, value]))
            })
            .collect();
        if let Some(&[first, second]) = cell.get() {
            assert_eq!(first, second);
        }
        let winners = setters.into_iter().map(|setter| setter.join().unwrap()).filter(|&won| won).count();
        assert_eq!(winners, 1);
        assert!(cell.get().is_some());
    });
}

#[test]
fn a_flag_lets_one_in_at_a_time_and_hands_over_what_it_guards() {
    // Hunts: a claim right behind the store that ends the last one, without what was written in between.
    Model::preemptions(3, 5).check(|| {
        let flag = Arc::new((Flag::new(false), 0_u8));
        let enter = |flag: &(Flag, u8)| {
            if flag.0.try_set_acq_rel() {
                writes(&raw const flag.1);
                flag.0.store_release(false);
            }
        };
        let others: Vec<_> = (0..2)
            .map(|_| {
                let flag = Arc::clone(&flag);
                thread::spawn(move || enter(&flag))
            })
            .collect();
        enter(&flag);
        for other in others {
            other.join().unwrap();
        }
        assert!(flag.0.try_set_acq_rel(), "the flag stays set although everybody has left");
    });
}
