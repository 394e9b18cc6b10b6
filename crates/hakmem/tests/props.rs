//! The facade against the lock-step model: live threads that free each other's blocks, end and are born, while the policy
//! changes. In the end no block, slab, heap or committed byte is left.
//!
//! Each level of checking runs in a child process of its own, because the environment is read once.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test may stop"
)]

#[path = "support/facade.rs"]
mod facade;

use facade::Facade;
use hakmem_testkit::model::threads::{Report, Step, THREADS, decode, run, show};
use hakmem_testkit::model::{SIZE_MAX, corpus, small_pages_only};
use hakmem_testkit::{Child, cases};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Environments that the same test runs under.
const LEVELS: [&[(&str, &str)]; 5] = [
    &[],
    &[("HAKMEM_SLAB_REUSE_GUARD", "1"), ("HAKMEM_FORCE_NOTIFY", "1"), ("HAKMEM_MADVISE_GUARD_ABORT", "1")],
    &[("HAKMEM_HARDENED", "1")],
    &[("HAKMEM_HARDENED", "1"), ("HAKMEM_QUARANTINE_BLOCKS", "0")],
    &[("HAKMEM_SAMPLE", "20")],
];

/// Tests find their process's allocator to themselves: the levels one after the other, each in a child.
fn at_every_level(test: &str, body: fn()) {
    if Child::role().is_some() {
        small_pages_only();
        return body();
    }
    for level in LEVELS {
        let child = level.iter().fold(Child::of_test(test, "alone"), |child, (name, value)| child.env(name, value));
        let ended = child.run();
        eprintln!("{test} with {level:?}: {}", ended.stderr.trim());
        ended.assert_success();
    }
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => 1_usize..=1100,
        4 => 1000_usize..=40_000,
        2 => 30_000_usize..=400_000,
        1 => (1_usize << 20)..=(5 << 20),
        1 => Just(SIZE_MAX),
        // Borders of the routes, and their neighbours.
        2 => (prop::sample::select(vec![8_usize, 256, 1024, 32 << 10, 64 << 10, 2 << 20]), 0_usize..3)
            .prop_map(|(border, step)| border - 1 + step),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let thread = || 0..THREADS;
    let align_shift = prop_oneof![6 => 0_u8..5, 2 => 5_u8..13, 1 => 13_u8..23];
    let step = prop_oneof![
        10 => (thread(), sizes(), align_shift, any::<bool>(), 1_u8..40).prop_map(
            |(thread, bytes, align_shift, zeroed, count)| Step::Allocate { thread, bytes, align_shift, zeroed, count }
        ),
        10 => (thread(), any::<u16>(), any::<u8>(), 1_u8..60)
            .prop_map(|(thread, place, stride, count)| Step::Free { thread, place, stride, count }),
        4 => (thread(), any::<u16>(), sizes()).prop_map(|(thread, place, bytes)| Step::Resize { thread, place, bytes }),
        1 => (thread(), any::<u16>()).prop_map(|(thread, place)| Step::Usable { thread, place }),
        1 => thread().prop_map(|thread| Step::Collect { thread }),
        2 => thread().prop_map(|thread| Step::Exit { thread }),
        2 => (thread(), any::<u16>(), any::<u64>()).prop_map(|(thread, knob, value)| Step::Turn { thread, knob, value }),
        1 => Just(Step::Check),
    ];
    prop::collection::vec(step, 1..160)
}

#[test]
fn threads_that_share_blocks_find_them_whole_and_leave_nothing_behind() {
    at_every_level("threads_that_share_blocks_find_them_whole_and_leave_nothing_behind", || {
        let config = ProptestConfig {
            cases: cases(80),
            // A failure prints its shortest script, which is what a test of its own begins with.
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let (seen, is_first) = (std::cell::Cell::new(Report::default()), std::cell::Cell::new(true));
        let outcome = TestRunner::new(config).run(&steps(), |steps| {
            let report = run(Facade, &steps).map_err(|damage| {
                // What one script has left behind, the shorter ones find too: only the first is known to be at fault.
                if is_first.replace(false) {
                    eprintln!("first failure: {damage}\n{}", show(&steps));
                }
                TestCaseError::fail(format!("{damage}\n{}", show(&steps)))
            })?;
            seen.set(seen.get() + report);
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{error}"));
        eprintln!("{:?}", seen.get());
        assert!(seen.get().remote > seen.get().threads, "blocks did not change hands: {:?}", seen.get());
    });
}

#[test]
fn the_fuzzers_corpus_is_replayed() {
    at_every_level("the_fuzzers_corpus_is_replayed", || {
        let mut seen = Report::default();
        for (name, script) in corpus("facade") {
            let steps = decode(&script);
            seen = seen + run(Facade, &steps).unwrap_or_else(|damage| panic!("{name}: {damage}\n{}", show(&steps)));
        }
        eprintln!("{seen:?}");
        assert!(seen.remote > 100, "the corpus does next to nothing: {seen:?}");
    });
}
