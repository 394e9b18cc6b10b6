//! The route word against a plain state: whatever heaps and strangers do with it, in any order that the protocol allows.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may stop")]

use hakmem_base::{BIN_BYTES, BIN_COUNT, HEAP_RECORD_BYTES, OS_PAGE_BYTES, RUN_MAX_BYTES, SizeClass};
use hakmem_ownership::{Acquired, BIG_NOTES, BinPtr, Route, RouteWord, class_of_bin};
use hakmem_testkit::cases;
use proptest::prelude::*;

const HEAPS: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Action {
    Bind {
        heap: usize,
        class: usize,
    },
    /// Any heap may try at any time, with any class.
    Acquire {
        heap: usize,
        class: usize,
    },
    Release,
    Retire,
    SetRun {
        units: u32,
        bytes: usize,
    },
    SetBig {
        pages: usize,
    },
    /// A unit of the hardened level, of guarded samples, or of watched blocks.
    SetNote {
        level: u8,
        note: usize,
    },
    /// A free of what is there, or of what was there before.
    Claim {
        is_present: bool,
    },
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let class = || 0..BIN_COUNT;
    prop::collection::vec(
        prop_oneof![
            1 => (0..HEAPS, class()).prop_map(|(heap, class)| Action::Bind { heap, class }),
            3 => (0..HEAPS, prop_oneof![Just(0), Just(1), class()]).prop_map(|(heap, class)| Action::Acquire { heap, class }),
            3 => Just(Action::Release),
            1 => Just(Action::Retire),
            1 => (1_u32..=32, 1..=RUN_MAX_BYTES).prop_map(|(units, bytes)| Action::SetRun { units, bytes }),
            1 => (1_usize..1 << 35).prop_map(|pages| Action::SetBig { pages }),
            1 => (0_u8..3, prop_oneof![0_usize..40, Just((1 << 61) - 1)])
                .prop_map(|(level, note)| Action::SetNote { level, note }),
            3 => any::<bool>().prop_map(|is_present| Action::Claim { is_present }),
        ],
        1..80,
    )
}

fn class_of(index: usize) -> SizeClass {
    SizeClass::from_index(index).unwrap()
}

fn bin(heap: usize, class: SizeClass) -> BinPtr {
    BinPtr::new(core::ptr::without_provenance_mut((heap + 1) * HEAP_RECORD_BYTES + class.index() * BIN_BYTES))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(400), ..ProptestConfig::default() })]

    #[test]
    fn the_word_says_what_was_last_done_and_only_orphans_are_acquired(actions in actions()) {
        let word = RouteWord::new();
        let mut model = Route::Unused;
        let mut former = Route::Unused;
        for action in actions {
            let before = model;
            match action {
                // Whoever has just taken the unit, binds it.
                Action::Bind { heap, class } if before == Route::Unused => {
                    model = Route::Owned(bin(heap, class_of(class)));
                    word.bind(bin(heap, class_of(class)));
                }
                Action::Acquire { heap, class } => {
                    let class = class_of(class);
                    let wins = before == Route::Orphan(class);
                    let outcome = word.try_acquire(class, bin(heap, class));
                    prop_assert_eq!(outcome, if wins { Acquired::Won } else { Acquired::Lost });
                    if wins {
                        model = Route::Owned(bin(heap, class));
                    }
                }
                // Only the owner releases.
                Action::Release => {
                    if let Route::Owned(owner) = before {
                        let class = class_of_bin(owner).unwrap();
                        model = Route::Orphan(class);
                        word.release(class);
                    }
                }
                Action::Retire if !matches!(before, Route::Run { .. } | Route::Big { .. }) => {
                    model = Route::Unused;
                    word.retire();
                }
                Action::SetRun { units, bytes } if before == Route::Unused => {
                    model = Route::Run { units, bytes };
                    word.set_run(units, bytes);
                }
                Action::SetBig { pages } if before == Route::Unused => {
                    let note = (pages % usize::from(BIG_NOTES)) as u16;
                    model = Route::Big { bytes: pages * OS_PAGE_BYTES, note };
                    word.set_big(pages * OS_PAGE_BYTES, note);
                }
                Action::SetNote { level, note } if before == Route::Unused => match level {
                    0 => {
                        model = Route::Sampled(note);
                        word.set_sampled(note);
                    }
                    1 => {
                        model = Route::Watched(note);
                        word.set_watched(note);
                    }
                    _ => {
                        model = Route::Hardened(note);
                        word.set_hardened(note);
                    }
                },
                Action::Claim { is_present } => {
                    let expected = if is_present { before } else { former };
                    let is_block = matches!(before, Route::Run { .. } | Route::Big { .. });
                    prop_assert_eq!(word.claim(expected), is_block && expected == before);
                    if is_block && expected == before {
                        model = Route::Unused;
                        prop_assert!(!word.claim(expected), "claimed twice");
                    }
                }
                // The unit is in use for something else.
                Action::Bind { .. }
                | Action::Retire
                | Action::SetRun { .. }
                | Action::SetBig { .. }
                | Action::SetNote { .. } => {}
            }
            if model != before {
                former = before;
            }
            prop_assert_eq!(word.route(), model);
            prop_assert_eq!(word.owner(), if let Route::Owned(owner) = model { Some(owner) } else { None });
            for heap in 0..HEAPS {
                for class in [0, 1, BIN_COUNT - 1] {
                    let mine = bin(heap, class_of(class));
                    prop_assert_eq!(word.is_mine(mine), model == Route::Owned(mine));
                }
            }
        }
    }
}
