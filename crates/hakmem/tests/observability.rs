//! What the allocator says about itself: exit statistics, dumps on SIGUSR2, the tiny ring, complaints about variables.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "a test may stop")]

use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::thread;

use hakmem_testkit::Child;
use serde_json::Value;

#[global_allocator]
static ALLOCATOR: hakmem::Hakmem = hakmem::Hakmem;

/// An empty folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("observability-{name}"));
    let _absent = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn files(folder: &PathBuf, ending: &str) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(ending))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    found.sort();
    found
}

/// Blocks that other threads free, and slabs that outlive their thread and are adopted.
fn exchange() {
    let (give, take) = channel::<Vec<Box<[u64; 10]>>>();
    let freer = thread::spawn(move || take.iter().map(|blocks| blocks.len()).sum::<usize>());
    let left: Vec<Box<[u64; 10]>> = thread::spawn(move || {
        for _ in 0..20 {
            give.send((0..2000).map(|number| Box::new([number; 10])).collect()).unwrap();
        }
        (0..500).map(|number| Box::new([number; 10])).collect()
    })
    .join()
    .unwrap();
    assert_eq!(freer.join().unwrap(), 40_000);
    let adopter =
        thread::spawn(|| black_box((0..5000_u64).map(|number| Box::new([number; 10])).collect::<Vec<_>>()).len());
    assert_eq!(adopter.join().unwrap(), 5000);
    drop(left);
}

#[test]
fn a_signal_writes_both_dumps_with_the_ring() {
    if Child::role().is_some() {
        exchange();
        // SAFETY: the handler is installed: the child was started with HAKMEM_DUMP_SIGNAL.
        unsafe { libc::raise(libc::SIGUSR2) };
        return;
    }
    let folder = folder("signal");
    let ended = Child::of_test("a_signal_writes_both_dumps_with_the_ring", "raise")
        .env("HAKMEM_DUMP_SIGNAL", "1")
        .env("HAKMEM_DUMP_DIR", folder.to_str().unwrap())
        .env("HAKMEM_TINY_RING", "1")
        .run();
    ended.assert_success();
    let json = files(&folder, ".json");
    let dump: Value = serde_json::from_str(&json[0]).unwrap();
    assert!(dump["stats"]["remote_frees"].as_u64().unwrap() > 0);
    assert!(dump["heaps"].as_array().unwrap().iter().any(|heap| !heap["classes"].as_array().unwrap().is_empty()));
    let ring = dump["ring"].as_array().unwrap();
    for event in ["REMOTE_PUSH", "REMOTE_DRAIN", "MAILBOX_PUBLISH", "MAILBOX_FETCH", "BIND"] {
        assert!(ring.iter().any(|entry| entry["event"] == event), "no {event} among {} events", ring.len());
    }
    let dot = files(&folder, ".dot");
    assert!(dot[0].starts_with("digraph hakmem {") && dot[0].trim_end().ends_with('}'));
}

/// Hunts: a number that is taken by one dump and read by another.
#[test]
fn dumps_of_several_threads_at_once_are_files_of_their_own() {
    const TEST: &str = "dumps_of_several_threads_at_once_are_files_of_their_own";
    const THREADS: usize = 4;
    const ROUNDS: usize = 50;
    if Child::role().is_some() {
        let begin = std::sync::Barrier::new(THREADS);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        begin.wait();
                        // SAFETY: the handler is installed: the child was started with HAKMEM_DUMP_SIGNAL.
                        unsafe { libc::raise(libc::SIGUSR2) };
                    }
                });
            }
        });
        return;
    }
    let folder = folder("at-once");
    let child = Child::of_test(TEST, "dumps").env("HAKMEM_DUMP_SIGNAL", "1");
    child.env("HAKMEM_DUMP_DIR", folder.to_str().unwrap()).run().assert_success();
    let counts = [".json", ".dot"].map(|ending| files(&folder, ending).len());
    assert_eq!(counts, [THREADS * ROUNDS; 2]);
}

#[test]
fn a_dump_holds_runs_big_blocks_and_slabs_without_an_owner() {
    if Child::role().is_some() {
        let left =
            thread::spawn(|| (vec![Box::new([0_u8; 64]); 5000], vec![Box::new([0_u8; 20_000]); 30])).join().unwrap();
        let runs = [100 << 10, 100 << 10, 1 << 20].map(|bytes| black_box(vec![1_u8; bytes]));
        let big = black_box(vec![1_u8; 5 << 20]);
        println!("{:p}", big.as_ptr());
        std::io::Write::flush(&mut std::io::stdout()).unwrap();
        hakmem::dump_json(2);
        drop((left, runs, big));
        return;
    }
    let ended = Child::of_test("a_dump_holds_runs_big_blocks_and_slabs_without_an_owner", "dump").run();
    ended.assert_success();
    let dump: Value = serde_json::from_str(ended.stderr.trim()).unwrap();
    let big = dump["big"].as_array().unwrap();
    assert!(
        big.iter().any(|block| block["bytes"] == 5 << 20 && ended.stdout.contains(block["address"].as_str().unwrap())),
        "{big:?}"
    );
    let runs_to = |most_bytes: u64| {
        dump["runs"].as_array().unwrap().iter().find(|runs| runs["most_bytes"] == most_bytes).cloned().unwrap()
    };
    assert!(runs_to(128 << 10)["blocks"].as_u64().unwrap() >= 2);
    assert!(runs_to(2 << 20)["bytes"].as_u64().unwrap() >= 1 << 20);
    let orphans = dump["orphans"].as_array().unwrap();
    assert!(
        orphans.iter().any(|slabs| slabs["block_bytes"] == 64 && slabs["slabs"].as_u64().unwrap() >= 4),
        "{orphans:?}"
    );
}

#[test]
fn exit_statistics_are_written_as_text_and_json() {
    if Child::role().is_some() {
        exchange();
        return;
    }
    let folder = folder("exit");
    let ended = Child::of_test("exit_statistics_are_written_as_text_and_json", "exit")
        .env("HAKMEM_STATS", "1")
        .env("HAKMEM_STATS_FILE", &format!("{}/%p.json", folder.display()))
        .run();
    ended.assert_success();
    let json = files(&folder, ".json");
    assert_eq!(json.len(), 1);
    let stats: Value = serde_json::from_str(&json[0]).unwrap();
    assert!(stats["allocs"].as_u64().unwrap() > 45_000);
    assert!(stats["adopts"].as_u64().unwrap() > 0);
    assert_eq!(stats["outside_range"], 0);
    let program = std::env::current_exe().unwrap();
    let program = program.file_name().unwrap().to_str().unwrap();
    assert_eq!(stats["program"], program);
    let begin = format!("hakmem: statistics\n  pid {}\n  program {program}\n  mode FROZEN\n", stats["pid"]);
    assert!(ended.stderr.contains(&begin), "{}", ended.stderr);
}

#[test]
fn a_verbose_start_says_which_level_and_which_file_are_in_force() {
    if Child::role().is_some() {
        exchange();
        return;
    }
    let policy = folder("verbose").join("policy.toml");
    std::fs::write(&policy, "version = 1\n[knobs]\npurge_delay_ms = 50\n").unwrap();
    let policy = policy.to_str().unwrap();
    let said = |variables: &[(&str, &str)]| {
        let child = Child::of_test("a_verbose_start_says_which_level_and_which_file_are_in_force", "run");
        let child = child.env("HAKMEM_VERBOSE", "1");
        let ended = variables.iter().fold(child, |child, (name, value)| child.env(name, value)).run();
        ended.assert_success();
        ended.lines_of("hakmem: profile DEFAULT").join("")
    };
    let version = env!("CARGO_PKG_VERSION");
    let level = if cfg!(feature = "hardened") { "hardened level, " } else { "" };
    assert_eq!(said(&[]), format!("hakmem: profile DEFAULT, mode FROZEN, {level}version {version}"));
    assert!(said(&[("HAKMEM_HARDENED", "1"), ("HAKMEM_SAMPLE", "10")]).contains("FROZEN, hardened level, version"));
    let sampled = said(&[("HAKMEM_HARDENED", "0"), ("HAKMEM_SAMPLE", "10"), ("HAKMEM_POLICY", policy)]);
    let (level, file) = sampled.split_once(", version ").unwrap();
    assert!(level.ends_with("FROZEN, one allocation in 10 sampled"), "{sampled}");
    // The line is cut where a path is too long for it.
    assert!(file.contains(", policy file /") && policy.contains(file.rsplit("file ").next().unwrap()), "{sampled}");
    assert!(!said(&[("HAKMEM_POLICY", "/no/such/file")]).contains("policy file"));
}

#[test]
fn bad_variables_are_reported_once_each_and_the_program_runs() {
    if Child::role().is_some() {
        exchange();
        return;
    }
    let ended = Child::of_test("bad_variables_are_reported_once_each_and_the_program_runs", "run")
        .env("HAKMEM_CACHE_BLOKS", "8")
        .env("HAKMEM_PURGE_DELAY_MS", "soon")
        .env("HAKMEM_PROFILE", "NO_SUCH_PROFILE")
        .env("HAKMEM_MODE", "THAW")
        .run();
    ended.assert_success();
    let lines = ended.lines_of("hakmem: ");
    eprintln!("{}", lines.join("\n"));
    assert_eq!(lines.len(), 4);
    for part in ["did you mean HAKMEM_CACHE_BLOCKS", "HAKMEM_PURGE_DELAY_MS", "NO_SUCH_PROFILE", "HAKMEM_MODE"] {
        assert!(lines.iter().any(|line| line.contains(part)), "nothing about {part}");
    }
}

#[test]
fn a_published_policy_is_picked_up_and_a_bad_one_refused() {
    if Child::role().is_some() {
        let policy = hakmem::FrozenPolicy { refill_one: true, cache_blocks: 8, ..hakmem::policy() };
        let before = hakmem::stats();
        assert!(hakmem::publish_policy(&hakmem::FrozenPolicy { outbox_blocks: 0, ..policy.clone() }).is_err());
        let generation = hakmem::publish_policy(&policy).unwrap();
        assert_eq!(hakmem::policy().generation, generation);
        let blocks: Vec<Box<[u64; 33]>> = (0..2000).map(|number| Box::new([number; 33])).collect();
        let after = hakmem::stats();
        drop(blocks);
        // One block a refill, after the few that were cached or carved before.
        assert!(after.refills - before.refills > 1500, "{} refills", after.refills - before.refills);
        return;
    }
    Child::of_test("a_published_policy_is_picked_up_and_a_bad_one_refused", "publish").run().assert_success();
}
