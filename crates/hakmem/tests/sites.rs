//! Site rules in a Rust program: what one process learned about two places, the next one goes by.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "a test may stop")]

#[path = "support/at_rest.rs"]
mod at_rest;

use std::hint::black_box;
use std::path::{Path, PathBuf};

use at_rest::check_at_rest;
use hakmem_testkit::{Child, Ended};

#[global_allocator]
static ALLOCATOR: hakmem::Hakmem = hakmem::Hakmem;

const BLOCK: usize = 16 << 20;
const TABLES: usize = 8;
const ROUNDS: usize = 20;

/// A table of which one page in 64 is touched.
#[inline(never)]
fn table() -> Vec<u8> {
    let mut table = Vec::with_capacity(BLOCK);
    for place in table.spare_capacity_mut().iter_mut().step_by(256 << 10) {
        place.write(1);
    }
    black_box(table)
}

/// A buffer that is filled.
#[inline(never)]
fn buffer() -> Vec<u8> {
    let mut buffer: Vec<u8> = Vec::with_capacity(BLOCK);
    buffer.resize(BLOCK, 2);
    black_box(buffer)
}

/// The program. The learning thread waits for slow paths, so it makes some first.
fn work() {
    loop {
        let runs: Vec<Vec<u8>> = (0..400).map(|number| Vec::with_capacity(40_000 + number * 200)).collect();
        drop(black_box(runs));
        if hakmem::mode() == hakmem::Mode::Frozen || hakmem::observed_blocks().is_some() {
            break;
        }
    }
    // Each function is called at one place: optimised, a second one would be told apart.
    let mut tables = [const { Vec::new() }; TABLES];
    for round in 0..ROUNDS {
        let filled = buffer();
        tables[round % TABLES] = Vec::new();
        tables[round % TABLES] = table();
        drop(filled);
    }
    let stats = hakmem::stats();
    eprintln!("told {} {} {}", stats.site_rules, stats.site_hits, stats.peak_rss_bytes >> 20);
    drop(tables);
    check_at_rest();
}

/// Rules in force, blocks that they were for, peak of resident memory (MiB).
fn told(ended: &Ended) -> [u64; 3] {
    ended.assert_success();
    let line = ended.lines_of("told ");
    let numbers: Vec<u64> = line[0].split(' ').skip(1).map(|number| number.parse().unwrap()).collect();
    [numbers[0], numbers[1], numbers[2]]
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[test]
fn two_places_of_a_rust_program_are_told_apart_and_treated_as_each_wants() {
    if Child::role().is_some() {
        return work();
    }
    let test = "two_places_of_a_rust_program_are_told_apart_and_treated_as_each_wants";
    let path = file("learned-sites.toml");
    let learn = Child::of_test(test, "learn")
        .env("HAKMEM_MODE", "LEARN")
        .env("HAKMEM_WATCH", "1")
        .env("HAKMEM_POLICY_OUT", path.to_str().unwrap());
    let free = told(&learn.run());
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    if setting.contains("[never]") || setting.is_empty() {
        eprintln!("this machine has no huge pages: what they cost and save is not looked at");
        return;
    }
    let learned = std::fs::read_to_string(&path).unwrap();
    let ruled = || told(&Child::of_test(test, "ruled").env("HAKMEM_POLICY", path.to_str().unwrap()).run());
    let (first, second) = (ruled(), ruled());
    let blocks = 2 * ROUNDS as u64;
    assert!(first[0] >= 2 && first[1] == blocks, "{first:?}: {learned}");
    assert_eq!(first[..2], second[..2], "the addresses of another run make no difference");
    assert!(free[2] > 2 * first[2], "{free:?} {first:?}: {learned}");
}
