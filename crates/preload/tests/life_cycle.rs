//! What processes and threads live through, in C and C++ programs under the preload library: forks, exits in every order,
//! signals, unusual surroundings. Each runs first without the library: what the C library fails is a wrong test.
//! What is promised is in docs/life-cycle.md.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may stop")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use hakmem_testkit::{Child, Ended, number_from_env};
use support::{compile, compile_with, library, number, preload};

fn run(program: &Path, arguments: &[&str], is_preloaded: bool, adapt: impl FnOnce(&mut Command)) -> Ended {
    let mut command = Command::new(program);
    command.args(arguments);
    if is_preloaded {
        preload(&mut command);
    }
    adapt(&mut command);
    Child::of(command).run()
}

/// Both ways, with the same output.
fn tell(source: &str, arguments: &[&str], adapt: impl Fn(&mut Command)) {
    let program = compile(source);
    let plain = run(&program, arguments, false, &adapt);
    plain.assert_success();
    let preloaded = run(&program, arguments, true, &adapt);
    preloaded.assert_success();
    assert_eq!(preloaded.stdout, plain.stdout);
    eprint!("{}", preloaded.stderr);
}

fn tell_story(arguments: &[&str]) {
    tell("life_cycle.c", arguments, |_| {});
}

/// A test that cannot do its work says so where it is seen.
fn not_run(what: &str, why: &str) {
    eprintln!("NOT RUN: {what}: {why}");
}

fn is_root() -> bool {
    // SAFETY: takes no argument.
    unsafe { libc::geteuid() == 0 }
}

#[test]
fn a_busy_process_forks_three_levels_deep() {
    tell_story(&["forks"]);
}

#[test]
fn programs_are_started_by_vfork_and_posix_spawn_while_threads_allocate() {
    tell_story(&["spawns"]);
}

#[test]
fn blocks_outlive_their_threads_in_every_order_of_ends() {
    tell_story(&["exit_orders"]);
}

#[test]
fn threads_are_detached_cancelled_and_leave_by_pthread_exit() {
    tell_story(&["exit_ways"]);
}

#[test]
fn a_thread_calls_exit_while_others_allocate_and_handlers_do_too() {
    tell_story(&["exit_in_thread"]);
}

#[test]
fn objects_of_every_storage_duration_allocate_in_constructors_and_destructors() {
    tell("static_objects.cpp", &[], |_| {});
}

#[test]
fn a_storm_of_signals_interrupts_allocations() {
    tell_story(&["signal_storm"]);
}

#[test]
fn user_code_between_allocations_is_left_by_siglongjmp() {
    tell_story(&["signal_jumps"]);
}

#[test]
fn a_thread_with_the_smallest_stack_goes_through_every_slow_path() {
    tell_story(&["small_stack"]);
}

#[test]
fn two_thousand_threads_are_alive_at_once() {
    tell_story(&["threads_at_once", "2000"]);
}

#[test]
#[ignore = "minutes in a debug build: for `cargo xtask health --full`"]
fn ten_thousand_threads_are_alive_at_once() {
    tell_story(&["threads_at_once", "10000"]);
}

#[test]
#[ignore = "minutes in a debug build: for `cargo xtask health --full`"]
fn a_hundred_thousand_threads_come_and_go() {
    tell_story(&["threads_in_a_row", "100000"]);
}

#[test]
fn threads_come_and_go_one_after_the_other() {
    let number = number_from_env("HAKTEST_THREADS_IN_A_ROW", 5_000, 100_000);
    tell_story(&["threads_in_a_row", &number.to_string()]);
}

#[test]
fn libraries_that_allocate_are_loaded_and_unloaded() {
    let plugin = compile_with("plugin.c", &["-shared", "-fPIC"]);
    tell("life_cycle.c", &["plugins"], |command| {
        command.env("LIFE_CYCLE_PLUGIN", &plugin);
    });
}

/// Hunts: an allocation that waits for the dynamic linker, which waits for that thread.
#[test]
fn a_librarys_constructor_waits_for_a_thread_that_picks_a_new_policy_up() {
    let plugin = compile_with("waiting_plugin.c", &["-shared", "-fPIC", "-pthread"]);
    tell("life_cycle.c", &["waiting_constructor"], |command| {
        command.env("LIFE_CYCLE_PLUGIN", &plugin);
    });
}

/// Also with reports and statistics, which find no stderr.
#[test]
fn a_process_without_open_descriptors_allocates() {
    tell("life_cycle.c", &["closed_descriptors"], |command| {
        command.env("HAKMEM_STATS", "1").env("HAKMEM_VERBOSE", "1");
    });
}

/// As the programs of coreutils do when they end.
#[test]
fn a_program_that_closes_its_stderr_is_told_of_a_file_that_cannot_be_written() {
    let ended = run(Path::new("sort"), &["/dev/null"], true, |command| {
        command.env("HAKMEM_STATS", "1").env("HAKMEM_STATS_FILE", "/no/such/folder/file");
    });
    ended.assert_success();
    let complaint = "hakmem: HAKMEM_STATS_FILE: cannot write /no/such/folder/file";
    assert_eq!(ended.lines_of("hakmem: HAKMEM"), [complaint], "{}", ended.stderr);
}

#[test]
fn a_sandbox_without_getrandom_is_no_obstacle() {
    tell_story(&["without_getrandom"]);
}

#[test]
fn locked_memory_is_what_is_committed_and_the_tables() {
    let ended = run(&compile("life_cycle.c"), &["locked"], true, |_| {});
    ended.assert_success();
    eprint!("{}", ended.stderr);
}

/// The reserved window must not make a core file huge.
#[test]
fn a_core_file_holds_what_was_touched() {
    let folder = fresh_folder("core");
    let ended = run(&compile("life_cycle.c"), &["core"], true, |command| {
        command.current_dir(&folder);
    });
    let status = ended.status.unwrap();
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{}", ended.stderr);
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [core] = files.as_slice() else {
        let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
        return not_run("the size of a core file", &format!("none was left here; core_pattern is {}", pattern.trim()));
    };
    let core = fs::metadata(core).unwrap();
    eprintln!("core file: {} MiB long, {} KiB on disk", core.len() >> 20, core.blocks() / 2);
    let disk_bytes = core.blocks() * 512;
    assert!((9 << 20..64 << 20).contains(&disk_bytes), "the block of 9 MiB and little else, not {disk_bytes} bytes");
    assert!(core.len() < 1 << 30, "{} bytes long", core.len());
    fs::remove_dir_all(folder).unwrap();
}

/// Neither `/proc` nor `/sys`, from the start of the process on.
#[test]
fn a_process_in_an_empty_root_directory_allocates() {
    if !is_root() {
        return not_run("a process without /proc and /sys", "chroot needs root");
    }
    let root = fresh_folder("root");
    let program = compile("life_cycle.c");
    let needed = dependencies(&program);
    for file in needed.iter().chain(&dependencies(library())).chain([&program, &library().to_owned()]) {
        let target = root.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }
    // The C library loads this one itself when a thread exits or is cancelled.
    let unwinder = Command::new("cc").arg("-print-file-name=libgcc_s.so.1").output().unwrap().stdout;
    let libc = needed.iter().find(|file| file.ends_with("libc.so.6")).unwrap();
    let target = root.join(libc.strip_prefix("/").unwrap()).with_file_name("libgcc_s.so.1");
    fs::copy(String::from_utf8(unwinder).unwrap().trim(), target).unwrap();
    let ended = run(Path::new("chroot"), &[], true, |command| {
        command.arg(&root).arg(&program).arg("exit_ways").env("HAKMEM_VERBOSE", "1").env("HAKMEM_SCAVENGER", "on");
    });
    ended.assert_success();
    assert_eq!(ended.stdout, "life_cycle: ok\n");
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn the_library_itself_is_loaded_by_dlopen_and_unloaded() {
    let library = library().to_str().unwrap();
    run(&compile("dlopened.c"), &[library, "20"], false, |_| {}).assert_success();
}

/// The thread that learns is ended and joined, wherever it is.
#[test]
fn the_library_is_unloaded_while_it_learns() {
    let library = library().to_str().unwrap();
    let learns = |command: &mut Command| {
        command.env("HAKMEM_LEARN_WINDOW_MS", "10");
    };
    run(&compile("dlopened.c"), &[library, "20", "learn"], false, learns).assert_success();
}

/// All that depends on threads, forks, signals and ends, with the thread that learns among them.
#[test]
fn programs_live_as_before_while_the_library_learns() {
    let mut windows = 0;
    for story in ["forks", "spawns", "exit_orders", "exit_ways", "exit_in_thread", "signal_storm", "plugins"] {
        let plugin = compile_with("plugin.c", &["-shared", "-fPIC"]);
        let ended = run(&compile("life_cycle.c"), &[story], true, |command| {
            command.env("HAKMEM_MODE", "LEARN").env("HAKMEM_LEARN_WINDOW_MS", "10").env("HAKMEM_STATS", "1");
            command.env("LIFE_CYCLE_PLUGIN", &plugin);
        });
        ended.assert_success();
        windows += support::number(&ended, "learn_windows");
    }
    assert!(windows > 0, "nothing was measured in any of them");
}

/// A program with raised privileges does not listen to whoever started it. It cannot be preloaded either, so it loads the
/// library itself; the same program without the privileges is the control.
#[test]
fn a_program_with_raised_privileges_ignores_its_environment() {
    if !is_root() {
        return not_run("a set-uid program", "making one needs root");
    }
    // A place that another user can reach; a file system mounted `nosuid` would show as `secure=0`.
    let folder = Path::new("/var/tmp").join(format!("hakmem-secure-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let (program, copy) = (folder.join("program"), folder.join("library.so"));
    fs::copy(compile("dlopened.c"), &program).unwrap();
    fs::copy(library(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let run_as_nobody = |mode: u32| {
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        let statistics = folder.join("statistics");
        let ended = run(&program, &[copy.to_str().unwrap(), "1"], false, |command| {
            command.env("HAKMEM_VERBOSE", "1").env("HAKMEM_STATS", "1").env("HAKMEM_STATS_FILE", statistics);
            command.env("HAKMEM_NO_SUCH_NAME", "1").uid(65_534).gid(65_534);
        });
        ended.assert_success();
        ended
    };
    let control = run_as_nobody(0o755);
    let secure = run_as_nobody(0o4755);
    fs::remove_dir_all(&folder).unwrap();
    assert!(control.stdout.starts_with("secure=0") && control.stderr.contains("hakmem: profile"), "{control:?}");
    if secure.stdout.starts_with("secure=0") {
        return not_run("a set-uid program", "the file system does not honour the bit");
    }
    assert_eq!(secure.stderr, "");
}

fn fresh_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("life-cycle-{name}"));
    let _absent = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The shared libraries of a program, and its interpreter.
fn dependencies(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

#[test]
fn handlers_of_forks_that_came_first_allocate_and_wait_for_threads_that_do() {
    tell("fork_handlers.c", &[], |_| {});
}

#[test]
fn forks_beside_threads_that_flush_all_streams_and_read_long_lines() {
    tell("fork_streams.c", &[], |_| {});
}

#[test]
fn children_of_every_kind_end_and_are_alone() {
    let program = compile("children.c");
    run(&program, &[], false, |_| {}).assert_success();
    let preloaded = run(&program, &[], true, |command| {
        command.env("HAKMEM_STATS", "1");
    });
    preloaded.assert_success();
    assert_eq!(number(&preloaded, "scavenger_starts"), 1, "the test needs a thread of the library's own");
}

#[test]
fn an_idle_program_whose_other_thread_never_allocates_gives_its_memory_back() {
    let program = compile("idle.c");
    let starts = |arguments: &[&str]| {
        let ended = run(&program, arguments, true, |command| {
            command.env("HAKMEM_STATS", "1");
        });
        ended.assert_success();
        assert_eq!(number(&ended, "peak_heaps"), 1, "the other thread has allocated");
        number(&ended, "scavenger_starts")
    };
    assert_eq!(starts(&["with a thread"]), 1);
    assert_eq!(starts(&[]), 0, "a single-threaded program was given a thread");
}
