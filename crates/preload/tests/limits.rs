//! The whole allocator under the preload library within limits that the kernel really has: mappings, address space, data,
//! a sandbox that forbids madvise, locked memory, a memory cgroup. What may happen then is in docs/faults.md.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "a test may stop")]

mod support;

use std::collections::BTreeMap;
use std::process::Command;

use hakmem_testkit::{Child, Ended};
use support::{compile, library, number, preload};

/// Runs `limits.c` with these arguments and returns the numbers it printed.
fn run(arguments: &[&str]) -> BTreeMap<String, u64> {
    let mut command = Command::new(compile("limits.c"));
    preload(&mut command);
    command.args(arguments).env("HAKMEM_WINDOW_BYTES", "64M").env("HAKMEM_BIG_THP_BYTES", "8M");
    let ended = Child::of(command).run();
    ended.assert_success();
    let pairs = ended.stdout.split_whitespace().filter_map(|word| word.split_once('='));
    let numbers = pairs.map(|(name, number)| (name.to_owned(), number.parse().unwrap())).collect();
    eprintln!("{arguments:?}: {numbers:?}");
    numbers
}

/// The kernel's limit of mappings is reached with 0 to 40 to spare. Purging needs none; what cannot be moved by its page
/// tables is copied; outside blocks are refused; where nothing is committed yet, there is no memory at all.
#[test]
fn a_process_with_all_the_mappings_it_may_have_goes_on() {
    let mut copied = 0;
    for left in ["0", "1", "2", "3", "4", "6", "10", "40"] {
        for start in [&["mappings", left][..], &["mappings", left, "cold"]] {
            let numbers = run(start);
            copied += numbers["move_refused"];
            // Not the other way round: what is given back before the second try may make a refusal good.
            let is_refused = numbers["mmap_refused"] + numbers["mprotect_refused"] > 0;
            assert!(is_refused || numbers["null"] == 0, "{numbers:?}");
            assert_eq!(numbers["madvise_disabled"], 0, "{numbers:?}");
        }
    }
    assert!(copied > 0);
}

#[test]
fn limits_of_address_space_and_data_may_be_set_and_lifted_while_the_program_runs() {
    for kind in ["address-space", "data"] {
        for left in ["0", "1", "4", "10", "30", "60", "200"] {
            run(&[kind, left]);
            run(&[kind, left, "cold"]);
        }
        assert!(run(&[kind, "0", "cold"])["null"] > 0, "the limit refused nothing");
    }
}

/// What keeps the books of blocks outside the window are small blocks of the library's own.
#[test]
fn a_window_full_of_blocks_that_must_lie_in_it_leaves_others_a_place_outside() {
    for bytes in ["100", "1000", "5000", "30000", "40000", "1000000", "3145728"] {
        let mut command = Command::new(compile("full_window.c"));
        preload(&mut command);
        command.arg(bytes).env("HAKMEM_WINDOW_BYTES", "64M");
        let ended = Child::of(command).run();
        assert!(ended.status.is_some_and(|status| status.success()), "{bytes}: {}", ended.stderr);
    }
}

#[test]
fn a_memory_limit_that_is_set_later_holds_for_every_thread_at_every_level() {
    for hardened in ["0", "1"] {
        let mut command = Command::new(compile("limit_later.c"));
        preload(&mut command);
        command.env("HAKMEM_HARDENED", hardened);
        let ended = Child::of(command).run();
        assert!(ended.status.is_some_and(|status| status.success()), "hardened {hardened}: {}", ended.stderr);
    }
}

#[test]
fn a_block_outside_the_window_takes_its_pages_along_when_it_grows() {
    let mut command = Command::new(compile("sparse.c"));
    preload(&mut command);
    command.env("HAKMEM_WINDOW_BYTES", "64M");
    Child::of(command).run().assert_success();
}

#[test]
fn a_sandbox_without_madvise_costs_memory_and_nothing_else() {
    for start in [&["madvise", "0"][..], &["madvise", "0", "cold"]] {
        let numbers = run(start);
        assert_eq!(numbers["null"], 0, "{numbers:?}");
        assert!(numbers["madvise_failed"] >= 8 && numbers["madvise_disabled"] > 0, "{numbers:?}");
    }
}

/// The command has a limit of the shell's (`-v`: address space, `-d`: data) of so many KiB, and can lift it. The shell itself runs without
/// the library.
fn confined_to(limit: &str, kib: u32, source: &str) -> Command {
    let mut command = Command::new("sh");
    let script = format!("ulimit -S {limit} {kib}; LD_PRELOAD=\"$1\" exec \"$0\"");
    command.args(["-c", &script]).arg(compile(source)).arg(library());
    command.env("EXPECT_LIBRARY", library().file_name().unwrap());
    command
}

/// Hunts: a second reading of the environment at each attempt to start.
#[test]
fn wrong_variables_are_reported_once_however_often_the_start_is_refused() {
    let mut command = confined_to("-v", 24_000, "starved.c");
    command.env("HAKMEM_NOPE", "1").env("HAKMEM_CACHE_BLOCKS", "x").env("HAKMEM_POLICY", "/no/such/file");
    command.env("HAKMEM_STATS", "1");
    let ended = Child::of(command).run();
    ended.assert_success();
    for start in ["HAKMEM_NOPE is not", "HAKMEM_CACHE_BLOCKS=x is not", "HAKMEM_POLICY: cannot read"] {
        assert_eq!(ended.lines_of(&format!("hakmem: {start}")).len(), 1, "{start}: {}", ended.stderr);
    }
    assert!(number(&ended, "mmap_refused") >= 100 && number(&ended, "out_of_memory") >= 100, "{}", ended.stderr);
}

/// Hunts: tables for the address space of the whole machine, which alone were more than the limit.
#[test]
fn a_heap_has_most_of_the_data_that_a_process_is_limited_to_from_the_start() {
    for kib in [16_000, 64_000] {
        let ended = Child::of(confined_to("-d", kib, "data_limit.c")).run();
        assert!(ended.status.is_some_and(|status| status.success()), "{kib} KiB: {}", ended.stderr);
    }
}

/// Exit statistics of `refusals.c`, and how many of its requests were refused.
fn refusals(role: &str) -> (Ended, u64) {
    let mut command = Command::new(compile("refusals.c"));
    preload(&mut command);
    command.arg(role).env("HAKMEM_STATS", "1").env("HAKMEM_MEMORY_LIMIT_BYTES", "32M");
    let ended = Child::of(command).run();
    ended.assert_success();
    let refused = ended.stdout.split_whitespace().find_map(|word| word.strip_prefix("refused=")?.parse().ok());
    (ended, refused.unwrap())
}

#[test]
fn each_request_for_more_than_any_block_has_is_counted() {
    let (ended, refused) = refusals("sizes");
    assert_eq!(number(&ended, "out_of_memory"), refused, "{}", ended.stderr);
    assert_eq!(number(&ended, "limit_refused"), 0);
}

#[test]
fn what_the_memory_limit_refuses_is_told_from_what_the_kernel_does() {
    let (ended, refused) = refusals("limit");
    assert_eq!((number(&ended, "out_of_memory"), refused), (1, 1), "{}", ended.stderr);
    assert!(number(&ended, "limit_refused") > 0, "{}", ended.stderr);
    assert_eq!(number(&ended, "mmap_refused") + number(&ended, "mprotect_refused"), 0, "{}", ended.stderr);
}
