//! The route word in every order of events: who wins a slab, who frees a run, and what they see then.

#![cfg(alloc_loom)]
#![allow(clippy::unwrap_used, reason = "test helpers outside #[test] functions: a panic is the test's failure")]

use hakmem_atomic_ops::model::{Model, reads, thread, writes};
use hakmem_base::{BIN_BYTES, HEAP_RECORD_BYTES, SizeClass};
use hakmem_ownership::{Acquired, BinPtr, Kept, Route, RouteWord};
use std::sync::Arc;

/// A unit with its word, and what its holder writes without atomics.
struct Unit {
    word: RouteWord,
    state: u8,
}

fn unit() -> Arc<Unit> {
    Arc::new(Unit { word: RouteWord::new(), state: 0 })
}

fn class() -> SizeClass {
    SizeClass::from_index(7).unwrap()
}

fn bin(heap: usize) -> BinPtr {
    BinPtr::new(core::ptr::without_provenance_mut((heap + 1) * HEAP_RECORD_BYTES + 7 * BIN_BYTES))
}

#[test]
fn one_of_two_heaps_acquires_an_orphan_and_sees_the_last_owners_state() {
    // Hunts: an acquire right behind the release, without the old owner's writes; two winners.
    Model::exhaustive().check(|| {
        let unit = unit();
        unit.word.bind(bin(0));
        let heaps: Vec<_> = (1..=2)
            .map(|heap| {
                let unit = Arc::clone(&unit);
                thread::spawn(move || {
                    let won = unit.word.try_acquire(class(), bin(heap)) == Acquired::Won;
                    if won {
                        writes(&raw const unit.state);
                    }
                    won
                })
            })
            .collect();
        writes(&raw const unit.state);
        unit.word.release(class());
        let winners = heaps.into_iter().map(|heap| heap.join().unwrap()).filter(|&won| won).count();
        assert!(winners <= 1);
        assert_eq!(winners == 0, unit.word.route() == Route::Orphan(class()));
    });
}

#[test]
fn whoever_finds_a_route_sees_what_its_writer_prepared() {
    // Hunts: a stranger that reads each kind of route and then what belongs to it: a bound slab's first state, the state
    // that an owner left behind, the size of a run, of a big block, the end of a unit's use.
    type Kind = (fn(&RouteWord), fn() -> Route);
    let kinds: [Kind; 8] = [
        (|word| word.bind(bin(1)), || Route::Owned(bin(1))),
        (|word| word.release(class()), || Route::Orphan(class())),
        (|word| word.set_run(3, 150_000), || Route::Run { units: 3, bytes: 150_000 }),
        (|word| word.set_big(1 << 23, 7), || Route::Big { bytes: 1 << 23, note: 7 }),
        (|word| word.set_hardened(9), || Route::Hardened(9)),
        (|word| word.set_sampled(9), || Route::Sampled(9)),
        (|word| word.set_watched(9), || Route::Watched(9)),
        (RouteWord::retire, || Route::Unused),
    ];
    for (write, wanted) in kinds {
        Model::exhaustive().check(move || {
            let unit = unit();
            unit.word.bind(bin(0));
            let writer = {
                let unit = Arc::clone(&unit);
                thread::spawn(move || {
                    writes(&raw const unit.state);
                    write(&unit.word);
                })
            };
            let found = unit.word.route();
            if found == wanted() {
                reads(&raw const unit.state);
            } else {
                assert_eq!(found, Route::Owned(bin(0)));
            }
            writer.join().unwrap();
        });
    }
}

#[test]
fn a_run_is_claimed_once_by_someone_who_sees_what_its_user_wrote() {
    // Hunts: two frees of one run at the same time; a claim that overtakes what the allocating thread recorded.
    Model::exhaustive().check(|| {
        let unit = unit();
        let wanted = || Route::Run { units: 2, bytes: 100_000 };
        let frees: Vec<_> = [false, true]
            .map(|keeps| {
                let unit = Arc::clone(&unit);
                thread::spawn(move || {
                    let keep =
                        || unit.word.run().is_some_and(|run| unit.word.claim_to_keep(run, Kept::new(1).before(9)));
                    let claimed = if keeps { keep() } else { unit.word.claim(wanted()) };
                    if claimed {
                        writes(&raw const unit.state);
                    }
                    claimed
                })
            })
            .into();
        writes(&raw const unit.state);
        unit.word.set_run(2, 100_000);
        let claims = frees.into_iter().map(|free| free.join().unwrap()).filter(|&claimed| claimed).count();
        assert!(claims <= 1);
        assert_eq!(unit.word.claim(wanted()), claims == 0);
        assert_eq!(unit.word.route(), Route::Unused);
    });
}
