//! C and C++ programs while every allocation, or one in three, is a guarded sample: right ones pass, and a wrong one's report
//! does not depend on where and how the fault finds it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "a test may stop")]

mod support;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use hakmem_testkit::{Child, Ended};
use support::{compile, number, preload};

fn run(source: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Ended {
    let mut command = Command::new(compile(source));
    preload(&mut command);
    command.args(arguments).env("HAKMEM_STATS", "1").env("HAKMEM_SAMPLE", "1").envs(settings.iter().copied());
    Child::of(command).limit(Duration::from_secs(120)).run()
}

/// The program passes with samples that are short (and so reused at once) and with many, and statistics show them.
fn passes(source: &str, arguments: &[&str]) {
    for (mean, slots) in [("1", "64"), ("3", "8192")] {
        let ended = run(source, arguments, &[("HAKMEM_SAMPLE", mean), ("HAKMEM_SAMPLE_SLOTS", slots)]);
        ended.assert_success();
        assert!(number(&ended, "samples") > 0, "{source} ran without samples:\n{}", ended.stderr);
        assert_eq!(number(&ended, "sample_findings"), 0, "{source}");
    }
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
    passes("stress.c", &["2", "11"]);
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
fn refused_guards_leave_blocks_unguarded_and_nothing_else() {
    const SETTINGS: [(&str, &str); 3] =
        [("HAKMEM_SAMPLE", "1"), ("HAKMEM_SAMPLE_SLOTS", "100"), ("HAKMEM_SCAVENGER", "off")];
    let quiet = run("faults.c", &[], &SETTINGS);
    quiet.assert_success();
    let calls: u64 = {
        let word = quiet.stdout.split_whitespace().find_map(|word| word.strip_prefix("mprotect="));
        word.unwrap().parse().unwrap()
    };
    assert!(calls > 100, "samples are guarded by {calls} calls of mprotect");
    // Which allocations are samples is random, and so is the number of calls: the last ones may not come.
    for from in (0..8).map(|step| calls * step / 10) {
        for count in [1, u32::MAX] {
            let plan = format!("mprotect:{from}:{count}:{}", libc::ENOMEM);
            let ended = run("faults.c", &[], &[&SETTINGS[..], &[("FAULT", plan.as_str())]].concat());
            assert!(ended.status.is_some_and(|status| status.success()), "{plan}\n{}{}", ended.stdout, ended.stderr);
            assert_eq!(number(&ended, "sample_findings"), 0, "{plan}");
            let refused = number(&ended, "sample_guards_refused") + number(&ended, "mprotect_refused");
            assert!(refused > 0, "{plan}: nothing was refused\n{}", ended.stderr);
        }
    }
}

/// A report from its first line to its last, and the abort.
#[track_caller]
fn assert_reported(ended: &Ended, first_words: &str) {
    let lines = ended.lines_of("hakmem: ");
    assert_eq!(lines.len(), 2, "one report:\n{}", ended.stderr);
    assert!(lines[0].starts_with(first_words), "{}", ended.stderr);
    assert!(lines[1].starts_with("hakmem: end of report"), "{}", ended.stderr);
    for heading in ["  accessed by thread ", "  freed ", "  allocated "] {
        assert_eq!(ended.lines_of(heading).len(), 1, "{heading}:\n{}", ended.stderr);
    }
    assert_eq!(ended.status.and_then(|status| status.signal()), Some(libc::SIGABRT), "{}", ended.stderr);
}

#[test]
fn the_report_fits_on_an_alternate_stack_of_eight_kilobytes() {
    // What the kernel puts on the stack first depends on the processor; the classic size is meant for one that puts 2048.
    // SAFETY: asks for a number.
    let kernel = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) }.max(2048);
    let bytes = (8192 - 2048 + kernel).to_string();
    let ended = run("sampled.c", &["alternate", &bytes], &[]);
    assert_reported(&ended, "hakmem: use after free: write at ");
}

#[test]
fn two_threads_that_make_a_mistake_at_once_make_one_report() {
    let ended = run("sampled.c", &["together"], &[]);
    assert_reported(&ended, "hakmem: use after free: write at ");
}

/// Hunts: a child that waits for the end of a report that only its parent writes.
#[test]
fn a_forked_child_reports_its_mistake_while_its_parent_reports_one() {
    let ended = run("sampled.c", &["fork while reporting"], &[]);
    ended.assert_success();
    assert_eq!(ended.lines_of("hakmem: use after free: write at ").len(), 1, "{}", ended.stderr);
}

#[test]
fn a_mistake_is_reported_in_a_program_with_a_handler_of_its_own_and_signals_blocked() {
    let ended = run("sampled.c", &["late"], &[]);
    assert_reported(&ended, "hakmem: use after free: write at ");
}

#[test]
fn a_program_that_goes_on_after_its_faults_does_so() {
    for role in ["go on", "go on, alternate"] {
        run("sampled.c", &[role], &[]).assert_success();
    }
}

#[test]
fn a_fault_in_a_thread_without_a_heap_reaches_the_handler_that_took_our_place() {
    run("sampled.c", &["without a heap"], &[]).assert_success();
}

/// Hunts: two handlers that pass a fault to each other for ever.
#[test]
fn a_handler_that_passes_a_fault_of_a_thread_without_a_heap_back_ends_the_process() {
    let ended = run("sampled.c", &["without a heap, chained"], &[]);
    assert_eq!(ended.status.and_then(|status| status.signal()), Some(libc::SIGSEGV), "{}", ended.stderr);
    assert!(ended.lines_of("hakmem: ").is_empty(), "{}", ended.stderr);
}

#[test]
fn a_program_that_keeps_itself_out_of_its_own_block_sees_its_faults() {
    run("sampled.c", &["own pages"], &[]).assert_success();
}

#[test]
fn a_stack_overflow_reaches_the_programs_handler() {
    let ended = run("sampled.c", &["overflow"], &[]);
    assert_eq!(ended.status.and_then(|status| status.code()), Some(7), "{}", ended.stderr);
    assert!(ended.lines_of("hakmem: ").is_empty(), "{}", ended.stderr);
}
