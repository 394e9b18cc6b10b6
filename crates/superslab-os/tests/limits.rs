//! What only shows in a process of its own: resident memory, and a limited address space.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

mod common;

use common::{WINDOW, bytes_at, never, os_with};
use hakmem_base::{SLAB_BYTES, SUPERSLAB_BYTES};
use hakmem_superslab_os::{OsPolicy, Purge, SuperslabOs, WindowConfig};
use std::os::unix::process::CommandExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Resident memory is the process's, so one test runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Resident bytes of this process.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel about mappings and resident memory, or sets limits")]
fn resident_memory_falls_after_a_purge_and_units_read_as_zero() {
    let _alone = alone();
    let os = os_with(never());
    let bytes = 64 << 20;
    let extent = os.take_extent((bytes / SUPERSLAB_BYTES) as u32, 0, 1).unwrap();
    bytes_at(&os, extent.first, bytes).fill(0x5a);
    let before = resident_bytes();
    os.give_extent(extent.first, extent.superslabs, Purge::Later);
    assert_eq!((os.purgeable_bytes(), os.purge_due(), os.next_due_ms()), (bytes, 0, None));
    assert_eq!(os.purge_all(), bytes);
    assert!(resident_bytes() + (48 << 20) < before, "the kernel got the memory back");
    let again = os.take_extent(extent.superslabs, 0, 1).unwrap();
    assert!(again.zeroed && bytes_at(&os, again.first, bytes).iter().all(|&byte| byte == 0));
    let stats = os.stats();
    assert_eq!((stats.madvise_calls, stats.purged_bytes), (2, bytes as u64), "two batches, one range each");
    os.check_invariants();
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel about mappings and resident memory, or sets limits")]
fn the_automatic_window_costs_little_memory_before_it_is_used() {
    let _alone = alone();
    let before = resident_bytes();
    let os = SuperslabOs::new();
    assert!(os.reserve(WindowConfig::default()).is_some() && os.take_run(1, 1).is_some());
    assert!(resident_bytes() < before + (128 << 10));
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel about mappings and resident memory, or sets limits")]
fn a_growing_heap_stays_one_mapping() {
    let _alone = alone();
    let os = os_with(OsPolicy { thp_heap_bytes: usize::MAX, ..never() });
    for _ in 0..100 {
        let run = os.take_run(32, 1).unwrap();
        bytes_at(&os, run.first, 1)[0] = 1;
    }
    let window = os.window().unwrap();
    let (begin, end) = (window.base.addr(), window.base.addr() + window.slab_count as usize * SLAB_BYTES);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let starts = maps.lines().filter_map(|line| usize::from_str_radix(line.split('-').next()?, 16).ok());
    // Superslab 0, the committed part, the rest. The first may be one with something before the window.
    assert!(starts.filter(|start| (begin..end).contains(start)).count() <= 3, "{maps}");
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel about mappings and resident memory, or sets limits")]
fn memory_of_a_fragmented_superslab_falls_too() {
    let _alone = alone();
    let os = os_with(never());
    let runs: Vec<_> = (0..32 * 32).map(|_| os.take_run(1, 1).unwrap().first).collect();
    for &run in &runs {
        bytes_at(&os, run, SLAB_BYTES).fill(1);
    }
    let before = resident_bytes();
    for run in runs.iter().step_by(2) {
        os.give_run(*run, 1);
    }
    assert_eq!(os.purge_all(), 32 * SUPERSLAB_BYTES / 2);
    assert!(resident_bytes() + 31 * SUPERSLAB_BYTES / 2 < before);
    assert!(runs.iter().skip(1).step_by(2).all(|&run| bytes_at(&os, run, SLAB_BYTES).iter().all(|&byte| byte == 1)));
    os.check_invariants();
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel about mappings and resident memory, or sets limits")]
fn a_window_may_run_out_where_it_is_small_half_used_or_limited() {
    let _alone = alone();
    assert!(os_with(never()).may_run_out());
    let os = SuperslabOs::new();
    os.reserve(WindowConfig { bytes: 2 << 30 }).unwrap();
    let _few = os.take_extent(1, 0, 1).unwrap();
    assert!(!os.may_run_out());
    let many = os.take_extent(512, 0, 1).unwrap();
    assert!(os.may_run_out());
    os.give_extent(many.first, many.superslabs, Purge::Now);
    assert!(!os.may_run_out());
    os.fit(3 << 30);
    assert!(os.may_run_out());
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel about mappings and resident memory, or sets limits")]
fn a_window_that_does_not_fit_is_released_and_taken_again_bit_by_bit() {
    let _alone = alone();
    let os = os_with(never());
    let (window, run) = (os.window().unwrap(), os.take_run(1, 1).unwrap());
    let end = window.base.addr() + window.slab_count as usize * SLAB_BYTES;
    bytes_at(&os, run.first, SLAB_BYTES).fill(1);
    os.fit(2 * WINDOW.bytes);
    assert_eq!(os.stats().window_bytes, WINDOW.bytes, "it fits");
    os.fit(2 * WINDOW.bytes - 1);
    let left = os.stats();
    assert_eq!(left.window_bytes, left.committed_bytes + SUPERSLAB_BYTES);
    assert!(os.has_reserved(window.base.addr() + left.window_bytes - 1) && !os.has_reserved(end - 1));
    assert!(os.index_of(end - 1).is_none() && os.index_of(os.address_of(run.first).addr()) == Some(run.first));
    let extent = os.take_extent(20, 0, 1).unwrap();
    assert!(extent.zeroed && bytes_at(&os, extent.first, 20 * SUPERSLAB_BYTES).iter().all(|&byte| byte == 0));
    let grown = os.stats();
    assert!(left.window_bytes < grown.window_bytes && grown.window_bytes < WINDOW.bytes);
    os.fit(0);
    assert!(os.take_extent(60, 0, 1).is_none(), "others have to find some");
    os.fit(usize::MAX);
    // Somebody else maps what lies behind the one superslab that stays reserved.
    let behind = window.base.wrapping_add(os.stats().window_bytes + SUPERSLAB_BYTES).cast::<libc::c_void>();
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: a new mapping where nothing is mapped.
    let theirs = unsafe { libc::mmap(behind, 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    assert_eq!(theirs, behind);
    assert!(os.take_extent(60, 0, 1).is_none() && os.take_run(1, 1).is_some());
    // SAFETY: mapped above.
    assert_eq!(unsafe { theirs.cast::<u64>().read() }, 0);
    // SAFETY: mapped above, and nobody uses it.
    assert_eq!(unsafe { libc::munmap(theirs, 4096) }, 0);
    let all = os.take_extent(60, 0, 1).unwrap();
    bytes_at(&os, all.first, 60 * SUPERSLAB_BYTES).fill(2);
    assert!(bytes_at(&os, run.first, SLAB_BYTES).iter().all(|&byte| byte == 1));
    os.check_invariants();
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel about mappings and resident memory, or sets limits")]
fn what_is_left_behind_a_block_that_may_grow_serves_others_where_the_window_ends() {
    let _alone = alone();
    let os = os_with(never());
    os.fit(160 << 20);
    let block = os.take_extent(20, 100, 1).unwrap();
    let mut superslabs = 0;
    while os.take_run(32, 1).is_some() {
        superslabs += 1;
    }
    assert!(superslabs > 30, "{superslabs} where three quarters of the limit are more than 50, and the block has 20");
    os.give_extent(block.first, 20, Purge::Later);
    os.check_invariants();
}

const CHILD: &str = "SUPERSLAB_OS_TEST_CHILD";

/// Runs one test of this file again, in a process with this address-space limit. Returns what it wrote to stderr.
fn again_with_limit(test: &str, limit_bytes: u64) -> String {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, "1");
    let set_limit = move || {
        let limit = libc::rlimit { rlim_cur: limit_bytes, rlim_max: limit_bytes };
        // SAFETY: reads the structure it is given.
        let result = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
        if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: the closure makes one async-signal-safe call.
    unsafe { command.pre_exec(set_limit) };
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stdout));
    text
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel about mappings and resident memory, or sets limits")]
fn a_limited_address_space_is_shared_with_whoever_comes_first() {
    if std::env::var_os(CHILD).is_none() {
        let _alone = alone();
        let text = again_with_limit("a_limited_address_space_is_shared_with_whoever_comes_first", 1 << 30);
        assert!(!text.contains("of address space could be reserved"), "{text}");
        return;
    }
    let os = SuperslabOs::new();
    assert_eq!(os.reserve(WindowConfig::default()).unwrap().slab_count as usize, (3 << 28) / SLAB_BYTES);
    assert_eq!(os.stats().window_bytes, SUPERSLAB_BYTES, "nothing is reserved ahead");
    let run = os.take_run(32, 1).unwrap();
    bytes_at(&os, run.first, 32 * SLAB_BYTES).fill(7);
    let theirs = vec![1_u8; 500 << 20];
    assert!(theirs.iter().all(|&byte| byte == 1), "others get more than a half");
    let rest = os.take_extent(200, 0, 1).expect("all that they have left");
    os.give_extent(rest.first, rest.superslabs, Purge::Later);
    drop(theirs);
    let most = os.take_extent(370, 0, 1).unwrap();
    bytes_at(&os, most.first, 370 * SUPERSLAB_BYTES).fill(8);
    assert!(os.take_extent(20, 0, 1).is_none(), "more than three quarters");
    assert!(!Vec::<u8>::with_capacity(150 << 20).spare_capacity_mut().is_empty(), "who holds the rest");
    assert!(bytes_at(&os, run.first, 32 * SLAB_BYTES).iter().all(|&byte| byte == 7));
    assert!(bytes_at(&os, most.first, 370 * SUPERSLAB_BYTES).iter().all(|&byte| byte == 8));
    os.check_invariants();
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel about mappings and resident memory, or sets limits")]
fn a_window_that_does_not_fit_is_halved_until_it_does() {
    if std::env::var_os(CHILD).is_none() {
        let _alone = alone();
        again_with_limit("a_window_that_does_not_fit_is_halved_until_it_does", 1 << 30);
        return;
    }
    let _theirs = std::hint::black_box(Vec::<u8>::with_capacity(700 << 20));
    let os = SuperslabOs::new();
    assert!(os.reserve(WindowConfig::default()).is_some() && os.stats().mmap_refused > 0);
    assert!(os.take_extent(20, 0, 1).is_some() && os.take_run(1, 1).is_some());
}
