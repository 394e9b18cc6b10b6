//! C and C++ programs under the preload library. Each runs first without it: what the C library fails is a wrong test.
//!
//! `HAKTEST_PRELOAD_LIBRARY` names a library that is built already. `HAKMEM_STRESS_SECONDS` sets the stress's length.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may stop")]

mod support;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use hakmem_testkit::{Child, number_from_env};
use support::{compile, number, preload};

#[test]
fn the_malloc_family_behaves_as_the_manual_says() {
    passes_with_and_without("malloc_family.c", &[]);
}

#[test]
fn the_cpp_operators_serve_every_form() {
    passes_with_and_without("new_delete.cpp", &[]);
}

#[test]
fn operators_that_the_program_has_not_replaced_call_those_that_it_has() {
    passes_with_and_without("replaced_operators.cpp", &[]);
}

#[test]
fn destructors_of_pthread_keys_allocate() {
    passes_with_and_without("thread_exit.c", &[]);
}

#[test]
fn threads_that_only_the_c_library_frees_for_leave_no_heaps_behind() {
    passes_with_and_without("idle_threads.c", &[]);
    let mut command = Command::new(compile("idle_threads.c"));
    preload(&mut command);
    command.env("HAKMEM_STATS", "1");
    let ended = Child::of(command).run();
    ended.assert_success();
    let heaps = number(&ended, "live_heaps");
    assert!((1..=2).contains(&heaps), "{heaps} heaps of 640 threads");
}

#[test]
fn frees_under_the_c_librarys_stack_lock_end() {
    passes_with_and_without("stack_cache.c", &[]);
}

#[test]
fn forks_of_a_busy_process_end() {
    passes_with_and_without("forks.c", &[]);
}

#[test]
fn random_threads_free_random_blocks_of_every_size() {
    let seconds = number_from_env("HAKMEM_STRESS_SECONDS", 4, 60);
    let seed = {
        let random = u64::from(std::process::id());
        number_from_env("HAKTEST_SEED", random, random)
    };
    passes_with_and_without("stress.c", &[seconds.to_string(), seed.to_string()]);
}

#[test]
fn blocks_live_from_before_main_to_after_it() {
    passes_with_and_without("early_late.c", &[]);
}

/// Hunts: a system call that glibc's malloc does not make, after the program has said that it allows no others.
#[test]
fn a_program_that_confines_itself_goes_on() {
    passes_with_and_without("confined.c", &[]);
    passes_with_and_without("confined.c", &["first".into()]);
    passes_with_and_without("confined.c", &["exit".into()]);
}

/// The threads that measure and learn end, and nobody takes samples, watches blocks or takes handlers away by means that a filter does
/// not know.
#[test]
fn a_program_that_confines_itself_goes_on_at_every_level_and_in_every_mode() {
    let program = compile("confined.c");
    for (name, value) in [
        ("HAKMEM_MODE", "OBSERVE"),
        ("HAKMEM_MODE", "LEARN"),
        ("HAKMEM_SAMPLE", "100"),
        ("HAKMEM_HARDENED", "1"),
        ("HAKMEM_SCAVENGER", "on"),
        ("HAKMEM_DUMP_SIGNAL", "1"),
        ("HAKMEM_FREEZE_SIGNAL", "10"),
        ("HAKMEM_STATS", "1"),
    ] {
        for role in ["first", "exit"] {
            let mut command = Command::new(&program);
            preload(&mut command);
            command.arg(role).env(name, value);
            let ended = Child::of(command).run();
            eprint!("{name}={value} {role}: {}{}", ended.stdout, ended.stderr);
            ended.assert_success();
        }
    }
}

/// Hunts: a reserved window that leaves the program's own mappings no room under a limit, and a block that is not known where the
/// window has been released.
#[test]
fn a_program_that_limits_its_address_space_goes_on() {
    passes_with_and_without("address_limit.c", &[]);
}

/// A tiny, a mid, a large and a big block.
const SIZES: [&str; 4] = ["64", "5000", "300000", "5242880"];

/// Runs `misuse.c` under the library for blocks of these sizes, and returns what was not stopped by an abort with exactly
/// one line of ours.
fn unstopped(kind: &str, sizes: &[&str], variable: Option<(&str, &str)>) -> Vec<String> {
    let program = compile("misuse.c");
    let mut unstopped = Vec::new();
    for bytes in sizes {
        let mut command = Command::new(&program);
        command.args([kind, bytes]);
        preload(&mut command);
        command.envs(variable);
        let ended = Child::of(command).run();
        let signal = ended.status.and_then(|status| status.signal());
        let lines = ended.lines_of("hakmem: ");
        if signal == Some(ABORT_SIGNAL) && lines.len() == 1 {
            eprintln!("{}", lines.concat());
        } else {
            unstopped.push(format!("{kind} free, {bytes} bytes: {:?}, {}", ended.status, ended.stderr));
        }
    }
    unstopped
}

/// SIGABRT.
const ABORT_SIGNAL: i32 = 6;

/// Hunts: a large block that is resized where a pointer into it points, or copied from there and reported as a free.
#[test]
fn a_realloc_of_an_interior_pointer_aborts_whether_or_not_the_block_would_move() {
    for kind in ["realloc", "realloc-moving"] {
        assert_eq!(unstopped(kind, &SIZES, None), [""; 0]);
    }
}

#[test]
fn an_immediate_double_free_aborts_with_one_line() {
    assert_eq!(unstopped("double", &SIZES, None), [""; 0]);
}

/// Hunts: a report that is a cancellation point: the thread ends there, and the process goes on with a damaged heap.
#[test]
fn a_thread_that_is_about_to_be_cancelled_does_not_escape_its_report() {
    assert_eq!(unstopped("cancelled", &SIZES, None), [""; 0]);
    assert_eq!(unstopped("cancelled", &SIZES, Some(("HAKMEM_HARDENED", "1"))), [""; 0]);
    let mut command = Command::new(compile("misuse.c"));
    preload(&mut command);
    command.args(["cancelled", "64"]).env("HAKMEM_SAMPLE", "1");
    let ended = Child::of(command).run();
    assert_eq!(ended.status.and_then(|status| status.signal()), Some(ABORT_SIGNAL), "{}", ended.stderr);
    assert_eq!(ended.lines_of("hakmem: end of report").len(), 1, "{}", ended.stderr);
}

#[test]
fn a_misaligned_free_aborts_with_one_line() {
    assert_eq!(unstopped("misaligned", &SIZES, None), [""; 0]);
}

/// Inside a slab the default build does not look for the start of the block: a division on each free would pay for it.
#[test]
fn an_interior_free_of_a_large_block_aborts_with_one_line() {
    assert_eq!(unstopped("interior", &SIZES[2..], None), [""; 0]);
}

#[test]
fn a_foreign_free_aborts_with_one_line_when_it_is_to_be_rejected() {
    assert_eq!(unstopped("foreign", &SIZES, Some(("HAKMEM_FOREIGN", "reject"))), [""; 0]);
}

fn passes_with_and_without(source: &str, arguments: &[String]) {
    let program = compile(source);
    let run = |is_preloaded: bool| {
        let mut command = Command::new(&program);
        command.args(arguments);
        if is_preloaded {
            preload(&mut command);
        }
        Child::of(command).limit(Duration::from_secs(600 + number_from_env("HAKMEM_STRESS_SECONDS", 0, 60))).run()
    };
    let plain = if source.starts_with("stress") { None } else { Some(run(false)) };
    if let Some(plain) = &plain {
        plain.assert_success();
    }
    let preloaded = run(true);
    preloaded.assert_success();
    if let Some(plain) = plain {
        assert_eq!(preloaded.stdout, plain.stdout);
    }
    eprint!("{}{}", preloaded.stdout, preloaded.stderr);
}
