//! What a process pays for the library when it needs little memory or none.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "a test may stop")]

mod support;

use std::collections::BTreeMap;
use std::process::Command;

use hakmem_testkit::Child;
use support::{compile, library, preload};

/// KiB that 100 KB of blocks may cost in anonymous memory beyond what they cost under glibc.
const MORE_ANONYMOUS_KIB: u64 = 220;
/// KiB of the library that are in memory afterwards. The kernel brings the file in by windows of 64 KiB: a release, whose hot code
/// and data lie together, has one to spare here, and not two. A debug build has more code for the same work, and no such layout.
const RESIDENT_KIB: u64 = if cfg!(debug_assertions) { 900 } else { 300 };
/// KiB of that which may be constants, unwinding tables and what the dynamic linker reads (`layout.ld` sets apart what nobody reads).
const CONSTANT_KIB: u64 = if cfg!(debug_assertions) { 400 } else { 120 };
/// No mapping of a process without hakmem's window is this large (KiB).
const WINDOW_KIB: u64 = 32 << 10;

/// Runs `small.c`, with or without the library and with these variables, and returns the numbers it printed.
fn run(bytes: Option<&str>, with_library: bool, variables: &[(&str, &str)]) -> BTreeMap<String, u64> {
    let mut command = Command::new(compile("small.c"));
    if with_library {
        preload(&mut command);
    }
    command.args(bytes).envs(variables.iter().copied());
    let ended = Child::of(command).run();
    ended.assert_success();
    let pairs = ended.stdout.split_whitespace().filter_map(|word| word.split_once('='));
    let numbers = pairs.map(|(name, number)| (name.to_owned(), number.parse().unwrap())).collect();
    eprintln!("{bytes:?} {with_library} {variables:?}: {numbers:?}");
    numbers
}

#[test]
fn a_process_with_little_memory_pays_little_for_the_library() {
    let (without, with) = (run(Some("100000"), false, &[]), run(Some("100000"), true, &[]));
    assert!(with["largest"] >= WINDOW_KIB, "the window has been reserved: {with:?}");
    assert!(with["anonymous"] <= without["anonymous"] + MORE_ANONYMOUS_KIB, "{with:?}, without {without:?}");
    assert!(with["library"] <= RESIDENT_KIB, "{with:?}");
    assert!(with["constants"] <= CONSTANT_KIB, "{with:?}");
}

#[test]
fn a_process_that_allocates_nothing_gets_no_window() {
    assert!(run(None, true, &[])["largest"] < WINDOW_KIB);
    assert!(run(None, true, &[("UNHAKMEM_STATS", "1")])["largest"] < WINDOW_KIB, "not addressed to the library");
}

#[test]
fn settings_are_heard_in_a_process_that_allocates_nothing() {
    assert!(run(None, true, &[("HAKMEM_STATS", "1")])["largest"] >= WINDOW_KIB);
    let mut command = Command::new("/bin/true");
    command.env("LD_PRELOAD", library()).env("HAKMEM_STATS", "perhaps");
    let ended = Child::of(command).run();
    ended.assert_success();
    assert!(ended.stderr.contains("HAKMEM_STATS=perhaps is not understood"), "{}", ended.stderr);
}

#[test]
fn the_library_needs_the_c_library_and_nothing_else() {
    let mut command = Command::new("/bin/true");
    command.env("LD_PRELOAD", library()).env("LD_TRACE_LOADED_OBJECTS", "1");
    let ended = Child::of(command).run();
    ended.assert_success();
    let name = library().file_name().unwrap().to_str().unwrap();
    assert!(ended.stdout.contains(name) && ended.stdout.contains("libc.so"), "{}", ended.stdout);
    // The kernel's own, the C library, the loader, and this one.
    let others = ["linux-vdso.so", "libc.so", "ld-linux", name];
    let strange: Vec<&str> =
        ended.stdout.lines().filter(|line| !others.iter().any(|other| line.contains(other))).collect();
    assert!(strange.is_empty(), "{strange:?}");
}
