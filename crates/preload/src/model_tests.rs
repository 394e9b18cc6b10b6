//! The malloc family against its model: random scripts, and those that the fuzzer kept.
//!
//! Each test runs alone in a child process, because it wants all of the allocator's memory back in the end.

#[path = "../../../fuzz/table.rs"]
mod table;

use hakmem_testkit::model::family::{Report, run};
use hakmem_testkit::model::{corpus, small_pages_only};
use hakmem_testkit::{Child, Random, cases, number_from_env};
use table::{FAMILY, leftover};

/// Longest random script.
const SCRIPT_BYTES: usize = 3000;

fn replay(name: &str, script: &[u8], seen: &mut Report) {
    let report = run(&FAMILY, script).unwrap_or_else(|damage| panic!("{name}: {damage}"));
    leftover().unwrap_or_else(|damage| panic!("{name}: {damage}"));
    seen.calls += report.calls;
    seen.served.extend(report.served);
    seen.refused.extend(report.refused);
}

/// Names of all functions, and of those that can refuse.
fn functions() -> (usize, usize) {
    let refusing = [FAMILY.malloc.len(), FAMILY.calloc.len(), FAMILY.aligned.len(), FAMILY.posix_memalign.len()];
    let pages = FAMILY.valloc.len() + FAMILY.pvalloc.len();
    let refusing = refusing.iter().sum::<usize>() + pages + FAMILY.realloc.len() + FAMILY.reallocarray.len();
    (refusing + FAMILY.free.len() + FAMILY.usable_size.len() + FAMILY.others.len(), refusing)
}

#[test]
fn random_calls_are_served_or_refused_as_the_manuals_say() {
    Child::alone("model_tests::random_calls_are_served_or_refused_as_the_manuals_say", || {
        small_pages_only();
        let mut seen = Report::default();
        let first = number_from_env("HAKTEST_SEED", u64::from(std::process::id()) << 20, 0);
        let wanted = u64::from(cases(60));
        for seed in first..first + 20 * wanted {
            // Chance may take longer to come to the rarest refusal.
            if seed >= first + wanted && (seen.served.len(), seen.refused.len()) == functions() {
                break;
            }
            let mut random = Random::new(seed);
            let bytes = random.below(SCRIPT_BYTES);
            let script: Vec<u8> = (0..bytes).map(|_| (random.next() >> 32) as u8).collect();
            replay(&format!("HAKTEST_SEED={seed}"), &script, &mut seen);
        }
        assert_eq!((seen.served.len(), seen.refused.len()), functions(), "{seen:?}");
    });
}

#[test]
fn the_fuzzers_corpus_is_replayed() {
    Child::alone("model_tests::the_fuzzers_corpus_is_replayed", || {
        small_pages_only();
        let mut seen = Report::default();
        for (name, script) in corpus("family") {
            replay(&name, &script, &mut seen);
        }
        assert_eq!(
            (seen.served.len(), seen.refused.len()),
            functions(),
            "the corpus does not meet all functions: {seen:?}"
        );
    });
}
