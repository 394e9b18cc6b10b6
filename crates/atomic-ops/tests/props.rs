//! Each word and lock against the plain value that it stands for, one thread at a time: what a method does, apart from
//! its ordering, which only models can judge.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may stop")]

use hakmem_atomic_ops::{Bell, Flag, Lock, Owned32, Owned64, SetOnce, Shared32, Shared64, SharedPtr, SharedUsize};
use hakmem_testkit::cases;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Change {
    Store(u64),
    Swap(u64),
    /// A compare-and-swap that expects the present value, or another one.
    Exchange {
        is_expected: bool,
        new: u64,
    },
    Add(u64),
    Sub(u64),
    Max(u64),
    Or(u64),
    And(u64),
}

/// Small values and those at the ends, so that operations meet.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..8, any::<u64>(), (0_u64..4).prop_map(|below| u64::MAX - below)]
}

fn changes() -> impl Strategy<Value = Vec<(Change, usize)>> {
    let change = prop_oneof![
        value().prop_map(Change::Store),
        value().prop_map(Change::Swap),
        (any::<bool>(), value()).prop_map(|(is_expected, new)| Change::Exchange { is_expected, new }),
        value().prop_map(Change::Add),
        value().prop_map(Change::Sub),
        value().prop_map(Change::Max),
        value().prop_map(Change::Or),
        value().prop_map(Change::And),
    ];
    // The number picks one of the methods that differ in their ordering alone.
    vec((change, 0_usize..4), 1..60)
}

macro_rules! word_test {
    ($name:ident, $word:ident, $value:ty) => {
        proptest! {
            #![proptest_config(ProptestConfig { cases: cases(256), ..ProptestConfig::default() })]

            #[test]
            fn $name(start in value(), changes in changes()) {
                let mut model = start as $value;
                let word = $word::new(model);
                for (change, variant) in changes {
                    let before = model;
                    match change {
                        Change::Store(new) => {
                            model = new as $value;
                            match variant {
                                0 | 1 => word.store_relaxed(model),
                                _ => word.store_release(model),
                            }
                        }
                        Change::Swap(new) => {
                            model = new as $value;
                            prop_assert_eq!(word.swap_acq_rel(model), before);
                        }
                        Change::Exchange { is_expected, new } => {
                            let expected = if is_expected { before } else { before.wrapping_add(1) };
                            let new = new as $value;
                            // A weak exchange may fail without a reason; then the next try is the one to judge.
                            let done = std::iter::repeat_with(|| match variant {
                                0 | 1 => word.cas_weak_acq_rel(expected, new),
                                _ => word.cas_acq_rel(expected, new),
                            })
                            .find(|done| *done != Err(expected));
                            prop_assert_eq!(done, Some(if is_expected { Ok(before) } else { Err(before) }));
                            model = if is_expected { new } else { before };
                        }
                        Change::Add(by) => {
                            model = before.wrapping_add(by as $value);
                            prop_assert_eq!(word.add_relaxed(by as $value), before);
                        }
                        Change::Sub(by) => {
                            model = before.wrapping_sub(by as $value);
                            prop_assert_eq!(word.sub_relaxed(by as $value), before);
                        }
                        Change::Max(other) => {
                            model = before.max(other as $value);
                            word.max_relaxed(other as $value);
                        }
                        Change::Or(bits) => {
                            model = before | bits as $value;
                            prop_assert_eq!(word.or_acq_rel(bits as $value), before);
                        }
                        Change::And(mask) => {
                            model = before & mask as $value;
                            prop_assert_eq!(word.and_acq_rel(mask as $value), before);
                        }
                    }
                    prop_assert_eq!([word.load_relaxed(), word.load_acquire()], [model; 2]);
                }
            }
        }
    };
}

word_test!(a_32_bit_word_does_as_a_plain_one, Shared32, u32);
word_test!(a_64_bit_word_does_as_a_plain_one, Shared64, u64);
word_test!(a_pointer_sized_word_does_as_a_plain_one, SharedUsize, usize);

#[derive(Clone, Copy, Debug)]
enum Use {
    Lock,
    Try,
    LockForFork,
    Release,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(256), ..ProptestConfig::default() })]

    #[test]
    fn a_pointer_does_as_a_plain_one(changes in vec((0_usize..4, 0_usize..8, any::<bool>()), 1..60)) {
        let mut places = [0_u8; 8];
        let base = places.as_mut_ptr();
        let mut model = base;
        let word = SharedPtr::new(base);
        for (change, place, is_expected) in changes {
            let (before, new) = (model, base.wrapping_add(place));
            match change {
                0 => word.store_relaxed(new),
                1 => word.store_release(new),
                2 => prop_assert_eq!(word.swap_acq_rel(new), before),
                _ => {
                    let expected = if is_expected { before } else { base.wrapping_add(9) };
                    prop_assert_eq!(word.cas_acq_rel(expected, new), if is_expected { Ok(before) } else { Err(before) });
                }
            }
            model = if change == 3 && !is_expected { before } else { new };
            prop_assert_eq!([word.load_relaxed(), word.load_acquire()], [model; 2]);
        }
    }

    #[test]
    fn an_owners_word_counts_and_wraps(start in value(), changes in vec((0_u8..3, value()), 1..60)) {
        let (narrow, wide) = (Owned32::new(start as u32), Owned64::new(start));
        let mut model = start;
        for (change, value) in changes {
            match change {
                0 => {
                    model = value;
                    narrow.set(value as u32);
                    wide.set(value);
                }
                1 => {
                    model = model.wrapping_add(value);
                    narrow.add(value as u32);
                    wide.add(value);
                }
                _ => {
                    model = model.wrapping_sub(value);
                    narrow.sub(value as u32);
                    wide.sub(value);
                }
            }
            prop_assert_eq!((narrow.get(), wide.get()), (model as u32, model));
        }
    }

    #[test]
    fn a_flag_is_set_by_one_caller_until_it_is_cleared(start in any::<bool>(), changes in vec(0_u8..3, 1..40)) {
        let (flag, mut model) = (Flag::new(start), start);
        for change in changes {
            match change {
                0 => prop_assert_eq!(flag.try_set_acq_rel(), !std::mem::replace(&mut model, true)),
                _ => {
                    model = change == 1;
                    flag.store_release(model);
                }
            }
            prop_assert_eq!((flag.is_set_relaxed(), flag.is_set_acquire()), (model, model));
        }
    }

    #[test]
    fn a_lock_is_had_by_one_holder_and_keeps_its_data(uses in vec(prop_oneof![
        Just(Use::Lock), Just(Use::Try), Just(Use::LockForFork), Just(Use::Release), Just(Use::Release),
    ], 1..60)) {
        let lock = Lock::new(0_u32);
        let (mut guard, mut is_for_fork, mut count) = (None, false, 0);
        for step in uses {
            let is_held = guard.is_some() || is_for_fork;
            match step {
                Use::Lock if !is_held => guard = Some(lock.lock()),
                Use::LockForFork if !is_held => {
                    lock.lock_for_fork();
                    is_for_fork = true;
                }
                Use::Try => {
                    let tried = lock.try_lock();
                    prop_assert_eq!(tried.is_some(), !is_held);
                    if tried.is_some() {
                        guard = tried;
                    }
                }
                // The holder would wait for itself.
                Use::Lock | Use::LockForFork => {}
                Use::Release if is_for_fork => {
                    // SAFETY: this thread took the lock with `lock_for_fork`.
                    unsafe { lock.unlock_after_fork() };
                    is_for_fork = false;
                }
                Use::Release => drop(guard.take()),
            }
            if let Some(data) = &mut guard {
                prop_assert_eq!(**data, count);
                **data += 1;
                count += 1;
            }
        }
    }

    #[test]
    fn what_is_set_once_stays(values in vec(any::<u32>(), 0..10)) {
        let place = SetOnce::new();
        prop_assert_eq!(place.get(), None);
        for (position, value) in values.iter().enumerate() {
            prop_assert_eq!(place.set(*value), position == 0);
            prop_assert_eq!(place.get(), values.first());
        }
    }

    #[test]
    fn a_ring_is_kept_for_one_wait(rings in vec(0_u8..3, 1..20)) {
        let (bell, mut is_rung) = (Bell::new(), false);
        for ring in rings {
            match ring {
                0 => {
                    bell.ring();
                    is_rung = true;
                }
                1 => prop_assert_eq!(bell.wait(1), std::mem::replace(&mut is_rung, false)),
                _ => {
                    bell.reset();
                    is_rung = false;
                }
            }
        }
    }
}
