//! What broke other allocators: allocation while a thread is being destroyed, forks of a busy process, large blocks freed by
//! another thread, large alignments, and misuse, which must end in one clear line and an abort.
//!
//! `HAKTEST_HANDOVERS` and `HAKTEST_FORKS` set the lengths; `HAKTEST_LONG=1` sets the long ones.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may stop")]
#![allow(clippy::disallowed_types, reason = "a test is no box")]

use std::alloc::{Layout, alloc, dealloc};
use std::cell::RefCell;
use std::ffi::c_void;
use std::os::unix::process::ExitStatusExt;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use hakmem_testkit::{Blocks, Child, Filled, Memory, Random, number_from_env};

#[global_allocator]
static GLOBAL: hakmem::Hakmem = hakmem::Hakmem;

/// Allocates, fills, checks and frees a few blocks of each kind.
fn exercise(seed: u64) {
    let mut random = Random::new(seed);
    let sizes = [8, 64, 500, 1024, 5000, 40_000, 300_000];
    let blocks: Vec<Filled> = sizes.iter().map(|&size| Filled::new(size, 8, random.next()).unwrap()).collect();
    blocks.into_iter().try_for_each(Filled::release).unwrap();
}

// ---- threads that are being destroyed ----

static KEY: AtomicU32 = AtomicU32::new(u32::MAX);
static KEY_RUNS: AtomicU32 = AtomicU32::new(0);

/// Runs at thread exit, frees what the thread left, allocates anew, and asks to be called again.
unsafe extern "C" fn at_exit_of_thread(value: *mut c_void) {
    // SAFETY: only `leave_block_under_key` sets values, each from `Box::into_raw` of this type.
    let left = unsafe { Box::from_raw(value.cast::<(u32, Vec<Filled>)>()) };
    let (rounds, blocks) = *left;
    blocks.into_iter().try_for_each(Filled::release).unwrap();
    exercise(u64::from(rounds));
    KEY_RUNS.fetch_add(1, Ordering::Relaxed);
    if rounds > 0 {
        leave_block_under_key(rounds - 1);
    }
}

fn leave_block_under_key(rounds: u32) {
    let blocks: Vec<Filled> = (1..40).map(|index| Filled::new(index * 25, 8, 3).unwrap()).collect();
    let value = Box::into_raw(Box::new((rounds, blocks)));
    // SAFETY: the key was created before any thread came here; the destructor takes the value over.
    let status = unsafe { libc::pthread_setspecific(KEY.load(Ordering::Relaxed), value.cast()) };
    assert_eq!(status, 0);
}

#[test]
fn pthread_key_destructors_allocate_and_free() {
    let mut key = 0;
    // SAFETY: a place for the key, and a destructor that takes over what it is given.
    assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(at_exit_of_thread)) }, 0);
    KEY.store(key, Ordering::Relaxed);
    for number in 0..50 {
        let thread = thread::spawn(move || {
            // Some threads meet the allocator for the first time in the destructor's set-up, others long before.
            if number % 2 == 0 {
                exercise(number);
            }
            leave_block_under_key(2);
        });
        thread.join().unwrap();
    }
    assert_eq!(KEY_RUNS.load(Ordering::Relaxed), 150, "each of 50 destructors runs three times");
}

struct AllocatesWhenDropped(u64, Vec<Filled>);

static DROPS: AtomicU32 = AtomicU32::new(0);

impl Drop for AllocatesWhenDropped {
    fn drop(&mut self) {
        self.1.drain(..).try_for_each(Filled::release).unwrap();
        exercise(self.0);
        let _already_destroyed = LATE.try_with(|late| late.borrow_mut().push(vec![1; 100]));
        DROPS.fetch_add(1, Ordering::Relaxed);
    }
}

thread_local! {
    static FIRST: RefCell<Option<AllocatesWhenDropped>> = const { RefCell::new(None) };
    static SECOND: RefCell<Option<AllocatesWhenDropped>> = const { RefCell::new(None) };
    // Created by the drop of the others: its own destructor is registered while destructors run.
    static LATE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

#[test]
fn destructors_of_thread_locals_allocate_and_free() {
    for number in 0..50 {
        let thread = thread::spawn(move || {
            let kept = || (0..20).map(|index| Filled::new(index * 60, 8, 4).unwrap()).collect();
            FIRST.set(Some(AllocatesWhenDropped(number, kept())));
            exercise(number);
            SECOND.set(Some(AllocatesWhenDropped(number, kept())));
        });
        thread.join().unwrap();
    }
    // A join may come back before the last destructors have run.
    let end = Instant::now() + Duration::from_secs(60);
    while DROPS.load(Ordering::Relaxed) < 100 && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(DROPS.load(Ordering::Relaxed), 100);
}

// ---- forks ----

#[test]
fn forks_of_a_busy_process_allocate_free_and_end() {
    if Child::role().is_some() {
        return fork_often(number_from_env("HAKTEST_FORKS", 300, 300));
    }
    let ended = Child::of_test("forks_of_a_busy_process_allocate_free_and_end", "forker").run();
    ended.assert_success();
    eprint!("{}", ended.stderr);
}

fn fork_often(forks: u64) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 0..3 {
            let stop = &stop;
            scope.spawn(move || {
                let mut blocks = Blocks::new(500, seed);
                while !stop.load(Ordering::Relaxed) {
                    blocks.replace(16, 2000).unwrap();
                    exercise(seed);
                }
                blocks.release().unwrap();
            });
        }
        let result = (0..forks).try_for_each(|number| {
            let inherited: Vec<Filled> = (0..50).map(|index| Filled::new(index * 40, 8, number).unwrap()).collect();
            one_fork(inherited)
        });
        stop.store(true, Ordering::Relaxed);
        result.unwrap();
    });
}

fn one_fork(inherited: Vec<Filled>) -> Result<(), String> {
    // SAFETY: the child touches only memory, the allocator and `_exit`; no lock of the standard library is needed there.
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(format!("fork: {}", std::io::Error::last_os_error())),
        0 => {
            let worked = inherited.into_iter().try_for_each(Filled::release).is_ok() && {
                exercise(1);
                let mut blocks = Blocks::new(100, 2);
                (0..1000).try_for_each(|_| blocks.replace(16, 2000)).is_ok() && blocks.release().is_ok()
            };
            // SAFETY: ends the child without running what belongs to the parent.
            unsafe { libc::_exit(i32::from(!worked)) }
        }
        child => {
            inherited.into_iter().try_for_each(Filled::release)?;
            wait_for(child, Duration::from_secs(120))
        }
    }
}

fn wait_for(child: i32, limit: Duration) -> Result<(), String> {
    let end = Instant::now() + limit;
    let mut status = 0;
    loop {
        // SAFETY: our own child and a place for its status.
        let waited = unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) };
        if waited == child {
            return if status == 0 { Ok(()) } else { Err(format!("a forked child ended with status {status:#x}")) };
        }
        if Instant::now() > end {
            // SAFETY: our own child, not yet reaped.
            unsafe { libc::kill(child, libc::SIGKILL) };
            return Err("a forked child hangs".into());
        }
        thread::sleep(Duration::from_micros(200));
    }
}

// ---- large blocks that change hands ----

/// The bound: with at most 18 blocks of 1 MiB alive, resident memory peaks below its start plus 192 MiB.
#[test]
fn large_blocks_freed_by_another_thread_do_not_pile_up() {
    if Child::role().is_none() {
        let ended = Child::of_test("large_blocks_freed_by_another_thread_do_not_pile_up", "alone").run();
        ended.assert_success();
        return eprint!("{}", ended.stderr);
    }
    let handovers = number_from_env("HAKTEST_HANDOVERS", 20_000, 100_000);
    let start = Memory::now();
    let (give, take) = sync_channel::<Box<[u8]>>(16);
    let consumer = thread::spawn(move || {
        take.iter().map(|block| u64::from(block[0]) + u64::from(block[block.len() - 1])).sum::<u64>()
    });
    for number in 0..handovers {
        let mut block = Box::new_uninit_slice(1 << 20);
        for page in block.chunks_mut(4096) {
            // SAFETY: the chunk is not empty and any byte is a valid value; the rest of the block is never read.
            unsafe { page.as_mut_ptr().cast::<u8>().write(1) };
        }
        block[(1 << 20) - 1].write((number % 2) as u8);
        // SAFETY: the consumer reads only the first and the last byte, which are written; `u8` has no invalid value.
        give.send(unsafe { block.assume_init() }).unwrap();
    }
    drop(give);
    assert_eq!(consumer.join().unwrap(), handovers + handovers / 2);
    let peak = Memory::now().peak_kib;
    eprintln!("handovers: {handovers}; {} KiB at the start, peak {peak} KiB", start.resident_kib);
    assert!(peak < start.resident_kib + (192 << 10), "the peak is {peak} KiB");
}

// ---- alignments ----

#[test]
fn every_alignment_to_64_mib_is_served() {
    for align in (0..=26).map(|shift| 1_usize << shift) {
        for bytes in [1, 100, align / 2 + 1, align, align + 1, 3 * align] {
            let bytes = bytes.min(80 << 20);
            let layout = Layout::from_size_align(bytes, align).unwrap();
            let blocks: Vec<NonNull<u8>> = (0..3).map(|_| aligned_block(layout)).collect();
            let mut addresses: Vec<usize> = blocks.iter().map(|block| block.addr().get()).collect();
            addresses.sort_unstable();
            assert!(addresses.windows(2).all(|pair| pair[1] - pair[0] >= bytes), "{layout:?}: {addresses:x?}");
            for block in blocks {
                // SAFETY: allocated with this layout by `aligned_block`, freed once.
                unsafe { dealloc(block.as_ptr(), layout) };
            }
        }
    }
}

/// A block whose first and last byte have been written.
fn aligned_block(layout: Layout) -> NonNull<u8> {
    // SAFETY: no layout here has size zero.
    let block = NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| panic!("{layout:?} was refused"));
    assert!(block.addr().get().is_multiple_of(layout.align()), "{layout:?}: {block:?}");
    // SAFETY: the first byte of a block that is ours.
    unsafe { block.write(1) };
    // SAFETY: the size is at least one, so the last byte is in the block.
    let last = unsafe { block.add(layout.size() - 1) };
    // SAFETY: the last byte of a block that is ours.
    unsafe { last.write(2) };
    block
}

#[test]
fn patterned_blocks_of_large_alignment_keep_their_bytes() {
    let mut blocks = Vec::new();
    for align in (12..=24).map(|shift| 1_usize << shift) {
        for bytes in [1, 4097, 100_000] {
            blocks.push(Filled::new(bytes, align, bytes as u64).unwrap());
            blocks.push(Filled::zeroed(bytes, align, 1).unwrap().unwrap());
        }
    }
    let grown: Vec<Filled> = blocks
        .into_iter()
        .map(|block| {
            let bytes = block.len() + 50_000;
            block.resize(bytes).unwrap()
        })
        .collect();
    grown.into_iter().try_for_each(Filled::release).unwrap();
}

// ---- misuse ----

/// Sizes of the blocks that are misused: tiny, tiny of odd size, mid, a run of slabs, whole superslabs.
const MISUSED: [usize; 5] = [64, 336, 5000, 300_000, 5 << 20];

/// Blocks below this come from slabs.
const SMALL_BELOW: usize = (32 << 10) + 1;

/// Does it; comes back only if the allocator did not stop it.
fn misuse(role: &str) {
    // A core file of each child would only take time.
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid limit.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
    let (kind, bytes) = role.split_once(' ').unwrap();
    let layout = Layout::from_size_align(bytes.parse().unwrap(), 8).unwrap();
    // Neighbours, so that the slab is in ordinary use.
    let _neighbours: Vec<NonNull<u8>> = (0..4).map(|_| aligned_block(layout)).collect();
    let block = aligned_block(layout).as_ptr();
    match kind {
        "double" => {
            free(block, layout);
            free(block, layout);
        }
        "misaligned" => free(block.wrapping_add(1), layout),
        "interior" => free(block.wrapping_add((layout.size() / 2).next_multiple_of(16)), layout),
        "foreign-heap" => {
            // SAFETY: no condition.
            let other = unsafe { libc::malloc(layout.size()) };
            free(other.cast(), layout);
        }
        "foreign-stack" => {
            let mut local = [0_u64; 16];
            free(ptr::from_mut(&mut local).cast(), layout);
        }
        _ => panic!("{kind}?"),
    }
}

fn free(block: *mut u8, layout: Layout) {
    // SAFETY: none: this is the misuse that the allocator must stop.
    unsafe { dealloc(std::hint::black_box(block), layout) };
}

#[track_caller]
fn is_stopped(test: &str, kind: &str) {
    if let Some(role) = Child::role() {
        return misuse(&role);
    }
    let mut unstopped = Vec::new();
    for bytes in MISUSED {
        let ended = Child::of_test(test, &format!("{kind} {bytes}")).run();
        let signal = ended.status.and_then(|status| status.signal());
        let lines = ended.lines_of("hakmem: ");
        // The sized free of a small block looks its route up without a comparison, which would cost each free: a stranger's
        // address may fault there instead of being reported. It never goes unnoticed.
        let faulted = kind.starts_with("foreign") && bytes < SMALL_BELOW && signal == Some(libc::SIGSEGV);
        if faulted {
            eprintln!("{kind} free of a block of {bytes} bytes: SIGSEGV");
        } else if signal != Some(libc::SIGABRT) || lines.len() != 1 {
            unstopped.push(format!("{kind} free of a block of {bytes} bytes: signal {signal:?}, lines {lines:?}"));
        } else {
            eprintln!("{}", lines.concat());
        }
    }
    assert!(unstopped.is_empty(), "{unstopped:#?}");
}

#[test]
fn an_immediate_double_free_aborts_with_one_line() {
    is_stopped("an_immediate_double_free_aborts_with_one_line", "double");
}

#[test]
fn a_misaligned_free_aborts_with_one_line() {
    is_stopped("a_misaligned_free_aborts_with_one_line", "misaligned");
}

#[test]
fn an_interior_free_aborts_with_one_line() {
    is_stopped("an_interior_free_aborts_with_one_line", "interior");
}

#[test]
fn a_free_of_another_allocators_block_is_stopped() {
    is_stopped("a_free_of_another_allocators_block_is_stopped", "foreign-heap");
}

#[test]
fn a_free_of_a_stack_address_is_stopped() {
    is_stopped("a_free_of_a_stack_address_is_stopped", "foreign-stack");
}
