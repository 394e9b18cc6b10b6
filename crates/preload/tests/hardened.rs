//! The programs of `c_programs.rs` at the hardened level, which must not find anything wrong with them.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod support;

use std::process::Command;
use std::time::Duration;

use hakmem_testkit::{Child, Ended};
use support::{compile, compile_with, number, preload};

fn hardened(command: &mut Command) {
    preload(command);
    command.env("HAKMEM_HARDENED", "1").env("HAKMEM_STATS", "1");
}

/// A program's end at the level. What its statistics say shows that it really ran there.
fn run(source: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Ended {
    let mut command = Command::new(compile(source));
    command.args(arguments).envs(settings.iter().copied());
    hardened(&mut command);
    Child::of(command).limit(Duration::from_secs(120)).run()
}

fn passes(source: &str, arguments: &[&str]) {
    let ended = run(source, arguments, &[]);
    ended.assert_success();
    assert!(number(&ended, "hardened_allocs") > 0, "{source} ran without the level:\n{}", ended.stderr);
    assert_eq!((number(&ended, "allocs"), number(&ended, "stranded_bytes")), (0, 0), "{source}");
}

#[test]
fn the_malloc_family_behaves_as_the_manual_says() {
    passes("malloc_family.c", &[]);
}

#[test]
fn the_cpp_operators_serve_every_form() {
    passes("new_delete.cpp", &[]);
}

#[test]
fn operators_that_the_program_has_not_replaced_call_those_that_it_has() {
    passes("replaced_operators.cpp", &[]);
}

#[test]
fn destructors_of_pthread_keys_allocate() {
    passes("thread_exit.c", &[]);
}

#[test]
fn frees_under_the_c_librarys_stack_lock_end() {
    passes("stack_cache.c", &[]);
}

#[test]
fn forks_of_a_busy_process_end() {
    passes("forks.c", &[]);
}

#[test]
fn random_threads_free_random_blocks_of_every_size() {
    passes("stress.c", &["3", "7"]);
}

#[test]
fn blocks_live_from_before_main_to_after_it() {
    passes("early_late.c", &[]);
}

#[test]
fn every_size_of_a_zeroed_block_can_be_written_to_its_last_byte() {
    passes("exact_sizes.c", &[]);
}

#[test]
fn a_process_with_little_address_space_is_served_at_the_level_too() {
    let ended = run("exact_sizes.c", &[], &[("HAKMEM_WINDOW_BYTES", "64M"), ("HAKMEM_QUARANTINE_BYTES", "0")]);
    ended.assert_success();
    assert!(number(&ended, "hardened_allocs") > 0);
}

#[test]
fn a_write_past_a_block_that_is_never_freed_is_reported_at_exit() {
    let ended = run("exact_sizes.c", &["overflow"], &[]);
    assert_eq!(ended.lines_of("hakmem: write past the end of a block: pointer ").len(), 1, "{}", ended.stderr);
    assert!(ended.status.is_some_and(|status| !status.success()));
}

/// What a program printed as `name=number`.
fn printed(ended: &Ended, name: &str) -> u64 {
    let mut pairs = ended.stdout.split_whitespace().filter_map(|word| word.split_once('='));
    pairs.find(|(found, _)| *found == name).and_then(|(_, number)| number.parse().ok()).unwrap()
}

#[test]
fn a_library_with_operators_of_its_own_shares_blocks_with_the_program() {
    // As LLVM's is linked: with a C++ runtime inside that it calls and that it exports.
    let library = compile_with("own_operators.cpp", &["-shared", "-fPIC", "-Wl,-Bsymbolic-functions"]);
    let program = compile_with("mixed_operators.cpp", &["-Wl,--no-as-needed", library.to_str().unwrap()]);
    let run = |argument: &str| {
        let mut command = Command::new(&program);
        hardened(command.arg(argument));
        Child::of(command).limit(Duration::from_secs(120)).run()
    };
    run("mix").assert_success();
    // Not everything goes there.
    let ended = run("twice");
    assert_eq!(ended.lines_of("hakmem: double free").len(), 1, "{}", ended.stderr);
}

#[test]
fn guards_leave_the_process_the_mappings_it_needs() {
    // With the kernel's own limit and more blocks than that has guards for; then with a limit of one's own.
    let most: u64 = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim().parse().unwrap();
    let blocks = (most / 4).min(20_000).to_string();
    let ended = run("guards.c", &[&blocks], &[]);
    ended.assert_success();
    assert!(printed(&ended, "full") < most / 4 * 3 + 1000, "{}", ended.stdout);
    assert_eq!(number(&ended, "guards_refused"), 0, "the limit comes before the kernel's");
    if most < 70_000 {
        assert!(number(&ended, "guards_left_out") > 0, "{}", ended.stderr);
    }
    let ended = run("guards.c", &["2000"], &[("HAKMEM_GUARDS", "1000")]);
    ended.assert_success();
    let (before, full) = (printed(&ended, "before"), printed(&ended, "full"));
    assert!(full > before + 900 && full < before + 2100, "{}", ended.stdout);
    assert!(number(&ended, "guards_left_out") > 2000 && number(&ended, "guards_standing") <= 1000);
}

#[test]
fn a_mode_that_has_no_effect_at_the_level_is_named_once() {
    const SAID: &str = "hakmem: HAKMEM_MODE has no effect at the hardened level";
    for (mode, lines) in [("FROZEN", 0), ("OBSERVE", 1), ("LEARN", 1)] {
        let ended = run("malloc_family.c", &[], &[("HAKMEM_MODE", mode)]);
        ended.assert_success();
        assert_eq!(ended.lines_of(SAID).len(), lines, "{mode}: {}", ended.stderr);
        assert_eq!(number(&ended, "learn_windows"), 0, "{mode}");
    }
}

#[test]
fn address_space_in_quarantine_is_not_reported_as_memory() {
    let ended = run("quarantined.c", &[], &[]);
    ended.assert_success();
    assert!(number(&ended, "quarantined_space_bytes") > 100 << 20, "{}", ended.stderr);
    assert!(number(&ended, "committed_bytes") < 8 << 20, "{}", ended.stderr);
}

#[test]
fn guards_that_the_kernel_put_up_by_half_are_taken_down_before_the_memory_is_used_again() {
    let ended = run("half_guards.c", &[], &[("HAKMEM_WINDOW_BYTES", "256M")]);
    ended.assert_success();
    assert!(number(&ended, "guards_refused") > 0, "{}", ended.stderr);
    assert_eq!(number(&ended, "stranded_bytes"), 0);
}

#[test]
fn a_handler_of_sigabrt_may_allocate_while_a_finding_is_reported() {
    for mistake in ["double-free", "overflow", "overflow-realloc", "overflow-at-exit", "wrong-pointer"] {
        for bytes in ["100", "9000", "50001"] {
            let ended = run("abort_handler.c", &[mistake, bytes], &[]);
            assert_eq!(ended.stdout, "handled\n", "{mistake} {bytes}: {}", ended.stderr);
            assert_eq!(ended.status.and_then(|status| status.code()), Some(7), "{mistake} {bytes}");
            // Once, or again if the handler meets the same damage.
            assert!(!ended.lines_of("hakmem: ").is_empty(), "{mistake} {bytes}: {}", ended.stderr);
        }
    }
}

/// Runs the scenario of `faults.rs` at the level, each `step`-th call of a kind refused once, and all from it on. The scenario
/// compares every byte, checks all invariants at nine places, and wants everything to work once the refusals are over. (Not
/// so if every mprotect is refused from some call on: what cannot be opened again is lost, and this window is small.)
fn survives_refusals(step: usize) {
    // No thread of the library's own and no purge that depends on the time, so that every run makes the same calls.
    let settings = [
        ("HAKMEM_WINDOW_BYTES", "128M"),
        ("HAKMEM_BIG_RETAIN_MS", "never"),
        ("HAKMEM_SCAVENGER", "off"),
        ("HAKMEM_PURGE_DELAY_MS", "never"),
    ];
    let quiet = run("faults.c", &[], &settings);
    quiet.assert_success();
    for name in ["mmap", "madvise", "mprotect"] {
        let calls = printed(&quiet, name) as usize;
        assert!(calls > 10, "the scenario makes only {calls} calls of {name}");
        // Places are random at the level, and so are a few of the calls: a run may make less than the quiet one.
        for number in (0..calls - calls / 10).step_by(step) {
            for count in if name == "mprotect" { &["1"][..] } else { &["1", "1000000"] } {
                let plan = format!("{name}:{number}:{count}:{}", libc::ENOMEM);
                let ended = run("faults.c", &[], &[&settings[..], &[("FAULT", &plan)]].concat());
                assert!(ended.status.is_some_and(|status| status.success()), "FAULT={plan}: {ended:?}");
                assert!(printed(&ended, "refused") > 0, "FAULT={plan}: nothing was refused");
                assert!(printed(&ended, "live") <= 2 * printed(&quiet, "live"), "FAULT={plan}: blocks are lost");
            }
        }
    }
}

#[test]
fn refusals_of_the_kernel_are_survived_at_the_level_too() {
    survives_refusals(23);
}

#[test]
#[ignore = "the same for every single call, for `cargo xtask health --full`"]
fn every_single_refusal_of_the_kernel_is_survived_at_the_level_too() {
    survives_refusals(1);
}
