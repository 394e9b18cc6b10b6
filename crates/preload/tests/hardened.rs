//! The programs of `c_programs.rs` at the hardened level, which must not find anything wrong with them.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod support;

use std::process::Command;
use std::time::Duration;

use hakmem_testkit::{Child, Ended};
use support::{compile, preload};

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

/// The number that the exit statistics give for `name`.
fn number(ended: &Ended, name: &str) -> u64 {
    let lines = ended.lines_of(&format!("  {name} "));
    lines.first().and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
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
