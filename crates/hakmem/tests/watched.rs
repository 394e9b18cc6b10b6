//! Watched blocks in living processes: what is said of a program whose blocks are known, and that watching is no harm.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test may stop"
)]

#[path = "support/at_rest.rs"]
mod at_rest;

use std::alloc::{Layout, alloc, dealloc, realloc};
use std::collections::VecDeque;
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::sync::mpsc;
use std::thread;

use at_rest::check_at_rest;
use hakmem::learner::{GroupSummary, SiteSummary};
use hakmem::{Mode, ObservedBlocks};
use hakmem_testkit::{Blocks, Child};

#[global_allocator]
static ALLOCATOR: hakmem::Hakmem = hakmem::Hakmem;

/// Runs `body` in a process of its own, in which one allocation in `distance` is watched.
#[track_caller]
fn watched(test: &str, distance: &str, body: fn()) {
    if Child::role().is_some() {
        return body();
    }
    let ended = Child::of_test(test, "alone").env("HAKMEM_MODE", "OBSERVE").env("HAKMEM_WATCH", distance).run();
    ended.assert_success();
    eprint!("{}", ended.stderr);
}

/// What is known now. Asked for often, because what happens in between has to fit the ring.
fn observed() -> ObservedBlocks {
    hakmem::observed_blocks().unwrap()
}

fn group(of: &ObservedBlocks, bytes: usize) -> GroupSummary {
    *of.summary.groups.iter().find(|group| bytes <= group.up_to_bytes).unwrap()
}

/// Whether the site is in this function: one of its calls returns there.
fn is_in(site: &SiteSummary, function: fn(usize) -> Vec<u8>) -> bool {
    let begin = function as *const () as usize;
    site.frames.iter().any(|frame| (1..600).contains(&frame.wrapping_sub(begin)))
}

#[track_caller]
fn assert_near(found: f64, expected: f64, tolerance: f64) {
    assert!((found / expected - 1.0).abs() < tolerance, "{found}, not {expected}");
}

#[inline(never)]
fn short_lived(bytes: usize) -> Vec<u8> {
    let block = Vec::with_capacity(bytes);
    black_box(block)
}

#[inline(never)]
fn long_lived(bytes: usize) -> Vec<u8> {
    let mut block = Vec::with_capacity(bytes);
    block.push(1);
    black_box(block)
}

#[inline(never)]
fn kept_for_ever(bytes: usize) -> Vec<u8> {
    let mut block = Vec::with_capacity(bytes);
    block.extend([1, 2]);
    black_box(block)
}

/// A program of which everything is known: two hundred thousand blocks of 100 bytes that go at once, as many of 3000 bytes of which a
/// thousand are there at a time, and ten thousand of 600 bytes that stay.
#[test]
fn sizes_lifetimes_and_sites_are_those_of_the_program() {
    const ROUNDS: usize = 200_000;
    watched("sizes_lifetimes_and_sites_are_those_of_the_program", "16", || {
        let (mut queue, mut kept) = (VecDeque::with_capacity(1001), Vec::with_capacity(ROUNDS / 20));
        for round in 0..ROUNDS {
            drop(short_lived(100));
            queue.push_back(long_lived(3000));
            if queue.len() > 1000 {
                queue.pop_front();
            }
            if round % 20 == 0 {
                kept.push(kept_for_ever(600));
            }
            if round % 1000 == 0 {
                let _seen = hakmem::observed_blocks();
            }
        }
        let found = observed();
        assert_eq!(found.lost, 0, "the ring was emptied in time");
        let rounds = ROUNDS as f64;
        let (short, long, stays) = (group(&found, 100), group(&found, 3000), group(&found, 600));
        // A 25th of 12 500 samples is four and a half times their standard deviation.
        assert_near(short.blocks, rounds, 0.04);
        assert_near(long.blocks, rounds, 0.04);
        assert_near(long.bytes, rounds * 3000.0, 0.04);
        assert_near(stays.blocks, rounds / 20.0, 0.2);
        assert!(short.alive_share < 0.01 && stays.alive_share > 0.95, "{short:?} {stays:?}");
        assert_near(long.alive_share, 1000.0 / rounds, 0.7);
        assert_eq!((short.stranger_share, long.stranger_share), (0.0, 0.0));
        // A thousand rounds of two allocations and a twentieth.
        assert_near(long.median_allocs.unwrap(), 2050.0, 0.02);
        assert!(short.median_allocs.unwrap() <= 1.0, "{short:?}");
        assert!(short.lifetime_ns[0] < long.lifetime_ns[0] && long.lifetime_ns[0] < stays.lifetime_ns[0]);
        let sites: Vec<_> = found.summary.sites.iter().flatten().collect();
        for (number, function, bytes) in
            [(0, long_lived as fn(usize) -> Vec<u8>, 3000.0), (1, short_lived, 100.0), (2, kept_for_ever, 600.0)]
        {
            let site = sites[number];
            assert!(is_in(site, function), "{number}: {site:x?}");
            assert!(site.bytes / site.blocks == bytes && site.error_bytes == 0.0, "{site:?}");
        }
        assert!(sites[2].alive_bytes > 5_000_000.0 && sites[2].lifetime_ns.is_none(), "{:?}", sites[2]);
        // 3000 bytes lie in blocks of 3072.
        assert!(found.summary.wanted.iter().flatten().all(|wanted| wanted.saved_share < 0.05), "{found:?}");
        let stats = hakmem::stats();
        assert!(stats.watched >= found.watched && stats.watched_lost == 0);
        assert!(found.spent_ns > 0 && stats.watch_cpu_ppm > 0);
        drop((queue, kept));
        check_at_rest();
    });
}

#[test]
fn frozen_watches_nothing_and_has_no_memory_for_it() {
    Child::alone("frozen_watches_nothing_and_has_no_memory_for_it", || {
        let before = hakmem::stats();
        let _seen: Vec<_> = (0..300_000).map(|_| drop(short_lived(100))).collect();
        assert!(hakmem::observed_blocks().is_none());
        let after = hakmem::stats();
        assert_eq!((after.watched, after.metadata_bytes), (0, before.metadata_bytes));
    });
}

/// Left to itself it watches some blocks, runs among them, and goes on when it has begun.
#[test]
fn the_distance_is_found_by_the_price() {
    watched("the_distance_is_found_by_the_price", "0", || {
        let (mut seen, mut runs) = (0, 0.0);
        while seen < 50 || runs == 0.0 {
            (0..10_000).for_each(|number| drop((short_lived(100), (number % 10 == 0).then(|| a_run(50_000)))));
            if let Some(found) = hakmem::observed_blocks() {
                (seen, runs) = (found.summary.deaths, group(&found, 50_000).blocks);
            }
        }
        assert!(observed().distance >= 64);
    });
}

#[test]
fn never_is_never() {
    watched("never_is_never", "never", || {
        (0..300_000).for_each(|_| drop(short_lived(100)));
        assert!(hakmem::observed_blocks().is_none());
    });
}

#[test]
fn modes_change_at_run_time_and_frozen_watches_nothing_more() {
    Child::alone("modes_change_at_run_time_and_frozen_watches_nothing_more", || {
        let some = || (0..50_000).for_each(|_| drop(short_lived(100)));
        some();
        for _ in 0..3 {
            assert!(hakmem::set_mode(Mode::Observe));
            let before = hakmem::stats().watched;
            while hakmem::stats().watched < before + 10 {
                some();
            }
            hakmem::freeze();
            // What was due under OBSERVE comes once more, and finds that nobody wants it.
            some();
            let watched = hakmem::stats().watched;
            (0..20).for_each(|_| some());
            assert_eq!(hakmem::stats().watched, watched);
        }
    });
}

#[test]
fn blocks_that_other_threads_free_are_told_apart_and_outlive_their_thread() {
    watched("blocks_that_other_threads_free_are_told_apart_and_outlive_their_thread", "4", || {
        let (sender, receiver) = mpsc::channel();
        let worker = thread::spawn(move || {
            for _ in 0..2000 {
                sender.send(long_lived(700)).unwrap();
            }
        });
        worker.join().unwrap();
        let alive = group(&observed(), 700);
        assert_near(alive.blocks, 2000.0, 0.3);
        assert!(alive.alive_share > 0.98, "{alive:?}");
        for (number, block) in receiver.into_iter().enumerate() {
            assert_eq!(block, [1]);
            drop(block);
            if number % 100 == 0 {
                let _seen = observed();
            }
        }
        let dead = group(&observed(), 700);
        assert!(dead.alive_share < 0.02 && dead.stranger_share > 0.98, "{dead:?}");
    });
}

/// Every block of every size is watched, in several threads at once; what is in them stays.
#[test]
fn blocks_keep_what_is_in_them_when_all_are_watched() {
    watched("blocks_keep_what_is_in_them_when_all_are_watched", "1", || {
        thread::scope(|scope| {
            for seed in 0..3 {
                scope.spawn(move || {
                    let mut blocks = Blocks::new(100, seed);
                    (0..3000).for_each(|_| blocks.replace(1, 40_000).unwrap());
                });
            }
        });
        let mut growing = Vec::new();
        (0..20_000_u32).for_each(|number| growing.push(black_box(number)));
        assert!((0..20_000).eq(growing));
        let layout = Layout::from_size_align(50, 8).unwrap();
        // SAFETY: the layout is not empty.
        let mut block = unsafe { alloc(layout) };
        for bytes in [60, 64, 20, 30_000, 3] {
            // SAFETY: the block has the layout of the last round, whose first bytes are kept.
            block = unsafe { realloc(black_box(block), layout, bytes) };
            // SAFETY: as above.
            block = unsafe { realloc(black_box(block), Layout::from_size_align(bytes, 8).unwrap(), 50) };
        }
        // SAFETY: as above.
        unsafe { dealloc(block, layout) };
        let watched = hakmem::stats().watched;
        assert!(watched > 4000, "{watched}");
        check_at_rest();
    });
}

#[inline(never)]
fn a_run(bytes: usize) -> Vec<u8> {
    let block = Vec::with_capacity(bytes);
    black_box(block)
}

#[inline(never)]
fn a_big_one(bytes: usize) -> Vec<u8> {
    let mut block = Vec::with_capacity(bytes);
    block.push(1);
    black_box(block)
}

/// A hundred thousand runs that come and go, one at a time, on the way that knows no countdown; two hundred big blocks of which ten are
/// there at a time; and small blocks, which choose the runs.
#[test]
fn large_blocks_are_watched_where_they_are() {
    watched("large_blocks_are_watched_where_they_are", "64", || {
        let mut queue = VecDeque::with_capacity(11);
        for round in 0..100_000 {
            drop(short_lived(100));
            drop(a_run(100_000));
            if round % 500 == 0 {
                queue.push_back(a_big_one(5 << 20));
                if queue.len() > 10 {
                    queue.pop_front();
                }
                let _seen = observed();
            }
        }
        let found = observed();
        let (run, big) = (group(&found, 100_000), group(&found, 5 << 20));
        assert_eq!(found.lost, 0);
        // What has passed since the last one is missing, and the first one stands for all before it.
        assert_near(run.blocks, 100_000.0, 0.02);
        assert_near(run.bytes, 1e10, 0.02);
        assert!((150.0..=200.0).contains(&big.blocks), "one in 64, and each for those before it: {big:?}");
        assert!(run.alive_share < 0.01 && run.median_allocs.unwrap() <= 1.0, "{run:?}");
        assert!(run.lifetime_ns[0] < big.lifetime_ns[0]);
        for (function, bytes) in [(a_run as fn(usize) -> Vec<u8>, 1e5), (a_big_one, 5.0 * 1048576.0)] {
            let site = found.summary.sites.iter().flatten().find(|site| is_in(site, function)).unwrap();
            assert!((site.bytes / site.blocks / bytes - 1.0).abs() < 1e-9, "{site:?}");
        }
        drop(queue);
        hakmem::freeze();
        (0..10).for_each(|_| drop((a_run(100_000), a_big_one(3 << 20))));
        check_at_rest();
    });
}

/// A large block that grows and shrinks, in place, by moved pages and by a copy, is one block as long as it stays where it is.
#[test]
fn large_blocks_are_resized_and_freed_by_others_while_they_are_watched() {
    watched("large_blocks_are_resized_and_freed_by_others_while_they_are_watched", "1", || {
        const MIB: usize = 1 << 20;
        let layout = |bytes| Layout::from_size_align(bytes, 8).unwrap();
        for round in 0..50_usize {
            let mut bytes = 40_000;
            // SAFETY: the layout is not empty.
            let mut block = unsafe { alloc(layout(bytes)) };
            // SAFETY: so long it is.
            unsafe { block.write_bytes(round as u8, 40_000) };
            for next in [50_000, 300_000, 290_000, MIB, 3 * MIB, 20 * MIB, 50 * MIB, 4 * MIB, 100_000, 20_000] {
                // SAFETY: the block has the layout of the last round.
                block = unsafe { realloc(black_box(block), layout(bytes), next) };
                bytes = next;
                let kept = bytes.min(20_000);
                // SAFETY: so long it has been all the time.
                let bytes = unsafe { std::slice::from_raw_parts(block, kept) };
                assert!(bytes.iter().all(|byte| *byte == round as u8));
            }
            // SAFETY: as above.
            unsafe { dealloc(block, layout(bytes)) };
            let freed_elsewhere = [a_run(70_000), a_big_one(3 << 20)];
            thread::spawn(move || drop(freed_elsewhere)).join().unwrap();
            let _seen = observed();
        }
        let found = observed();
        let (run, big) = (group(&found, 70_000), group(&found, 3 << 20));
        assert!(run.blocks >= 100.0 && big.blocks >= 100.0, "{run:?} {big:?}");
        assert!(run.stranger_share > 0.1 && big.stranger_share > 0.1, "{run:?} {big:?}");
        check_at_rest();
    });
}

/// What does not fit the ring is counted, and what is told is told right.
#[test]
fn lives_that_find_no_room_are_counted() {
    watched("lives_that_find_no_room_are_counted", "1", || {
        for _ in 0..20 {
            let many: Vec<_> = (0..2000).map(|_| short_lived(100)).collect();
            drop(many);
        }
        let found = observed();
        let told = found.summary.deaths + found.summary.alive;
        assert!(found.lost > 0, "two thousand fitted a ring of five hundred: {found:?}");
        // A life may be begun while they are counted.
        assert!((told + found.lost).abs_diff(found.watched) < 5, "{found:?}");
    });
}

#[test]
fn forked_children_free_what_is_watched_and_begin_anew() {
    watched("forked_children_free_what_is_watched_and_begin_anew", "2", || {
        let blocks: Vec<_> = (0..2000).map(|_| long_lived(100)).collect();
        (0..800).for_each(|_| drop(short_lived(3000)));
        assert!(group(&observed(), 3000).blocks > 200.0);
        for number in 0..10 {
            // SAFETY: the child allocates and ends; no lock of the test is held by another thread.
            let process = unsafe { libc::fork() };
            if process == 0 {
                let inherited = hakmem::observed_blocks().unwrap();
                assert_eq!((inherited.summary.deaths, group(&inherited, 3000).blocks), (0, 0.0));
                assert!(group(&inherited, 100).blocks > 1000.0);
                (0..10).for_each(|_| drop(short_lived(20_000)));
                drop(blocks);
                let own = observed();
                assert!(own.summary.deaths > 100 && own.summary.deaths + own.lost > 800, "{own:?}");
                // SAFETY: takes a number.
                unsafe { libc::_exit(number) };
            }
            let mut status = 0;
            // SAFETY: waits for a child of this process.
            assert_eq!(unsafe { libc::waitpid(process, &raw mut status, 0) }, process);
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == number, "a child ended with {status:#x}");
        }
        assert!(group(&observed(), 100).alive_share > 0.95);
    });
}

/// Frees one of two watched runs twice, the second time so far behind its start. (The first one tells which way the second comes.)
fn free_large_wrongly(offset: usize) {
    let layout = Layout::from_size_align(50_000, 8).unwrap();
    // SAFETY: the layout is not empty.
    let blocks = [0; 3].map(|_| unsafe { alloc(layout) });
    assert!(hakmem::stats().watched > 2);
    let before = hakmem::observed_blocks().map_or(0.0, |found| group(&found, 50_000).alive_share);
    assert!(before > 0.0, "no run is watched");
    if offset == 0 {
        // SAFETY: the block is in use.
        unsafe { dealloc(blocks[2], layout) };
    }
    // SAFETY: as wrong as the test wants it.
    unsafe { dealloc(blocks[2].wrapping_add(offset), layout) };
}

/// What a process leaves behind at its end: text on stderr, and JSON that a parser takes.
#[test]
fn the_exit_statistics_say_what_was_seen() {
    const TEST: &str = "the_exit_statistics_say_what_was_seen";
    if Child::role().is_some() {
        // What the harness has freed so far fills the ring, if the thread that empties it has not come to it yet.
        let _seen = hakmem::observed_blocks();
        let kept: Vec<_> = (0..300).map(|_| kept_for_ever(600)).collect();
        (0..100).for_each(|_| drop(a_run(50_000)));
        black_box(std::mem::ManuallyDrop::new(kept));
        return;
    }
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("watched-statistics.json");
    let child = Child::of_test(TEST, "end").env("HAKMEM_MODE", "OBSERVE").env("HAKMEM_WATCH", "1");
    let ended = child.env("HAKMEM_STATS", "1").env("HAKMEM_STATS_FILE", file.to_str().unwrap()).run();
    ended.assert_success();
    assert_eq!(ended.lines_of("hakmem: blocks, by ").len(), 1, "{}", ended.stderr);
    // Of a Rust program the loader knows no names; the offsets are what addr2line takes.
    assert!(ended.stderr.contains(" in use\n    #0 0x") && ended.stderr.contains("watched-"), "{}", ended.stderr);
    let statistics: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let blocks = &statistics["blocks"];
    let groups = blocks["groups"].as_array().unwrap();
    let of = |bytes: u64| groups.iter().find(|group| bytes <= group["up_to"].as_u64().unwrap()).unwrap();
    assert!(of(600)["blocks"].as_u64().unwrap() >= 250 && of(600)["alive_share"].as_f64().unwrap() > 0.5);
    assert!(of(50_000)["blocks"].as_u64().unwrap() >= 90 && of(50_000)["lived_ns"].as_array().unwrap().len() == 3);
    let site = &blocks["sites"][0];
    assert!(site["bytes"].as_u64().unwrap() > 4_000_000 && site["calls"][0].as_str().unwrap().starts_with("0x"));
    assert!(statistics["watched"].as_u64().unwrap() > 300 && statistics["watch_cpu_ppm"].as_u64().unwrap() > 0);
}

/// A mistake with a watched block is found as well as with any other, or better: nothing of it depends on its contents.
#[test]
fn mistakes_with_watched_blocks_are_reported() {
    const TEST: &str = "mistakes_with_watched_blocks_are_reported";
    let layout = Layout::from_size_align(100, 8).unwrap();
    match Child::role().as_deref() {
        Some(role) => {
            // SAFETY: the layout is not empty.
            let block = unsafe { alloc(layout) };
            let (first, second) = match role {
                "twice" => (block, block),
                "inside" => (block.wrapping_add(8), block),
                "far" => (block.wrapping_add(1 << 14), block),
                "large" => return free_large_wrongly(0),
                "large, inside" => return free_large_wrongly(16),
                _ => panic!("no role {role}"),
            };
            // SAFETY: as wrong as the test wants it.
            unsafe { dealloc(black_box(first), layout) };
            // SAFETY: as above.
            unsafe { dealloc(black_box(second), layout) };
        }
        None => {
            for (role, words) in [
                ("twice", "double free"),
                ("inside", "free of a pointer into a block, not to its start"),
                ("far", "free of a pointer into a block, not to its start"),
                ("large", "free of a pointer to no block (freed before"),
                ("large, inside", "free of a pointer into a block, not to its start"),
            ] {
                let child = Child::of_test(TEST, role).env("HAKMEM_MODE", "OBSERVE").env("HAKMEM_WATCH", "1");
                let ended = child.run();
                assert_eq!(ended.status.and_then(|status| status.signal()), Some(libc::SIGABRT), "{role}");
                assert!(ended.stderr.contains(&format!("hakmem: {words}")), "{role}: {}", ended.stderr);
            }
        }
    }
}
