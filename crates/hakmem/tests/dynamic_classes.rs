//! Dynamic classes come into force and leave it again while blocks of theirs live: each block stays what it was when it was handed out.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::indexing_slicing, reason = "a test may stop")]

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use hakmem::FrozenPolicy;
use hakmem_atomic_ops::Flag;
use hakmem_base::SizeClass;
use hakmem_testkit::{Damage, Filled, Random, number_from_env};

#[global_allocator]
static GLOBAL: hakmem::Hakmem = hakmem::Hakmem;

/// There is one policy, so tests take turns.
static TURN: Mutex<()> = Mutex::new(());

/// What SQLite asks for, for a page of its cache; the fixed class for it has 4608 bytes.
const PAGE: usize = 4360;

fn take_turn() -> MutexGuard<'static, ()> {
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    bring_into_force(&[]);
    turn
}

fn bring_into_force(sizes: &[u32]) {
    let mut dynamic_classes = [0; hakmem_policy::SIZES];
    dynamic_classes[..sizes.len()].copy_from_slice(sizes);
    hakmem::publish_policy(&FrozenPolicy { dynamic_classes, ..hakmem::policy() }).unwrap();
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).unwrap()
}

fn take(bytes: usize) -> *mut u8 {
    // SAFETY: the size is not zero.
    let block = unsafe { alloc(layout(bytes)) };
    assert!(!block.is_null());
    block
}

fn give(block: *mut u8, bytes: usize) {
    // SAFETY: callers hand back what `take` gave them for as many bytes.
    unsafe { dealloc(block, layout(bytes)) };
}

fn usable(block: *mut u8) -> usize {
    // SAFETY: callers pass blocks in use.
    unsafe { hakmem::usable_size(block) }.unwrap()
}

/// Whether a block in use begins with so many of these bytes.
fn begins_with(block: *const u8, bytes: usize, byte: u8) -> bool {
    // SAFETY: callers pass blocks that are as long and whose bytes they have written, or got written.
    unsafe { std::slice::from_raw_parts(block, bytes) }.iter().all(|found| *found == byte)
}

fn fixed_bytes(bytes: usize) -> usize {
    SizeClass::for_bytes(bytes).unwrap().block_bytes()
}

#[test]
fn a_dynamic_class_serves_its_sizes_while_it_is_in_force_and_no_longer() {
    let _turn = take_turn();
    let before = take(PAGE);
    bring_into_force(&[PAGE as u32]);
    let during = take(PAGE);
    let larger = take(PAGE + 100);
    bring_into_force(&[]);
    let after = take(PAGE);
    assert_eq!([before, during, larger, after].map(usable), [4608, 4368, 4608, 4608]);
    assert_eq!(usable(during), SizeClass::dynamic(PAGE).unwrap().block_bytes());
    give(larger, PAGE + 100);
    // Freed by the same size, whichever class it stands for by now.
    [before, during, after].into_iter().for_each(|block| give(block, PAGE));
    hakmem::collect();
    hakmem::check_invariants();
}

#[test]
fn what_wants_an_alignment_of_its_own_gets_fixed_classes() {
    let _turn = take_turn();
    bring_into_force(&[PAGE as u32]);
    for align in [16, 64, 256] {
        let layout = Layout::from_size_align(PAGE, align).unwrap();
        // SAFETY: the size is not zero.
        let block = unsafe { alloc(layout) };
        assert!(block.addr().is_multiple_of(align));
        assert_eq!(usable(block), 4608, "{align}");
        // SAFETY: allocated with this layout.
        unsafe { dealloc(block, layout) };
    }
}

/// The sizes before and after are of one fixed class, which the block is not of: to leave it where it is would be to lend out its
/// neighbour's bytes.
#[test]
fn a_block_of_a_class_that_has_left_force_does_not_grow_in_place_beyond_its_end() {
    let _turn = take_turn();
    bring_into_force(&[PAGE as u32]);
    let block = take(PAGE);
    assert_eq!(usable(block), 4368);
    // SAFETY: as long as this.
    unsafe { block.write_bytes(7, PAGE) };
    bring_into_force(&[]);
    // SAFETY: allocated with this layout.
    let grown = unsafe { realloc(block, layout(PAGE), 4600) };
    assert!(usable(grown) >= 4600);
    assert!(begins_with(grown, PAGE, 7));
    give(grown, 4600);
    // The other way round: a block of the fixed class, and sizes that are of two classes by now.
    let block = take(4600);
    bring_into_force(&[PAGE as u32]);
    // SAFETY: allocated with this size.
    let shrunk = unsafe { realloc(block, layout(4600), PAGE) };
    assert_eq!((shrunk, usable(shrunk)), (block, 4608));
    give(shrunk, PAGE);
}

#[test]
fn zeroed_blocks_of_a_dynamic_class_read_as_zero() {
    let _turn = take_turn();
    bring_into_force(&[PAGE as u32, 9000]);
    for bytes in [PAGE, 9000] {
        let used = take(bytes);
        // SAFETY: as long as this.
        unsafe { used.write_bytes(0xff, bytes) };
        give(used, bytes);
        // SAFETY: the size is not zero.
        let zeroed = unsafe { alloc_zeroed(layout(bytes)) };
        assert!(usable(zeroed) < fixed_bytes(bytes));
        assert!(begins_with(zeroed, bytes, 0));
        give(zeroed, bytes);
    }
}

#[test]
fn slabs_of_a_class_that_has_left_force_go_back_when_their_blocks_do() {
    let _turn = take_turn();
    hakmem::collect();
    let before = hakmem::observed().in_use_bytes;
    bring_into_force(&[PAGE as u32]);
    // From another thread, whose slabs find themselves without an owner.
    let blocks = thread::spawn(|| (0..500).map(|_| take(PAGE).addr()).collect::<Vec<_>>()).join().unwrap();
    bring_into_force(&[]);
    let during = hakmem::observed().in_use_bytes;
    // Two MiB, of which slabs of earlier tests may have had some.
    assert!(during >= before + (1 << 20), "{before} {during}");
    blocks.into_iter().for_each(|address| give(std::ptr::with_exposed_provenance_mut(address), PAGE));
    hakmem::collect();
    let after = hakmem::observed().in_use_bytes;
    assert!(after <= before + (512 << 10), "{before} {after}");
    hakmem::check_invariants();
}

/// No time is asserted: the learner gets as many windows as it takes, until nobody would wait any longer.
#[test]
fn learn_finds_the_size_of_many_live_blocks() {
    let _turn = take_turn();
    assert_eq!(hakmem::policy().dynamic_classes[0], 0);
    hakmem::set_mode(hakmem::Mode::Learn);
    let mut blocks: Vec<*mut u8> = (0..8000).map(|_| take(PAGE)).collect();
    let end = Instant::now() + Duration::from_secs(120);
    let mut found = 0;
    while found == 0 && Instant::now() < end {
        // The program goes on working, with as many live blocks.
        for slot in blocks.iter_mut().step_by(7) {
            give(std::mem::replace(slot, take(PAGE)), PAGE);
        }
        thread::sleep(Duration::from_millis(2));
        found = hakmem::policy().dynamic_classes[0];
    }
    hakmem::set_mode(hakmem::Mode::Frozen);
    blocks.into_iter().for_each(|block| give(block, PAGE));
    assert_eq!(found, 4368);
}

/// Sizes that the sets below make classes of, and others.
fn some_size(random: &mut Random) -> usize {
    match random.below(4) {
        0 => 1 + random.below(1024),
        1 => PAGE - 8 + random.below(16),
        2 => 8193 + random.below(1000),
        _ => 1025 + random.below(31 << 10),
    }
}

const SETS: [&[u32]; 6] =
    [&[], &[4360], &[4240, 4360, 4500, 8400], &[1100, 2100, 8700, 30_000], &[4500], &[8400, 9000]];
const SLOTS: usize = 128;

/// Threads allocate, resize, free their own and each other's blocks, and end, while classes come and go every few milliseconds.
#[test]
fn classes_come_and_go_under_threads_that_allocate_resize_and_end() {
    let _turn = take_turn();
    let seconds = number_from_env("HAKTEST_DYNAMIC_SECONDS", 3, 3);
    let seed = number_from_env("HAKTEST_SEED", u64::from(std::process::id()), 7);
    eprintln!("dynamic classes: HAKTEST_SEED={seed} HAKTEST_DYNAMIC_SECONDS={seconds}");
    let shared: Vec<Mutex<Option<Filled>>> = (0..SLOTS).map(|_| Mutex::new(None)).collect();
    let (shared, done) = (shared.as_slice(), Flag::new(false));
    let lives: u64 = thread::scope(|scope| {
        let lines: Vec<_> = (0..4)
            .map(|line| {
                let done = &done;
                scope.spawn(move || {
                    let mut random = Random::new(seed ^ line << 32);
                    let mut lives = 0;
                    while !done.is_set_relaxed() {
                        let one = random.next();
                        thread::scope(|inner| inner.spawn(|| life(one, shared)).join().unwrap()).unwrap();
                        lives += 1;
                    }
                    lives
                })
            })
            .collect();
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut random = Random::new(seed);
        while Instant::now() < end {
            bring_into_force(SETS[random.below(SETS.len())]);
            thread::sleep(Duration::from_micros(500 + random.below(3000) as u64));
        }
        // ORDERING: pairs with nothing: the others look at each round, and nothing travels.
        done.store_release(true);
        lines.into_iter().map(|line| line.join().unwrap()).sum()
    });
    for slot in shared {
        slot.lock().unwrap().take().map_or(Ok(()), Filled::release).unwrap();
    }
    hakmem::collect();
    hakmem::check_invariants();
    assert!(lives > 4, "only {lives} threads have lived: nothing was stressed");
}

/// One thread: a few thousand steps. What it leaves in the shared slots others free.
fn life(seed: u64, shared: &[Mutex<Option<Filled>>]) -> Result<(), Damage> {
    let mut random = Random::new(seed);
    let mut own: Vec<Filled> = Vec::new();
    for step in 0..2000_u64 {
        match random.below(8) {
            0..=2 => own.extend(Filled::new(some_size(&mut random), 8 << random.below(2), seed ^ step)),
            3 => own.extend(Filled::zeroed(some_size(&mut random), 8, seed ^ step)?),
            4 | 5 if !own.is_empty() => own.swap_remove(random.below(own.len())).release()?,
            6 if !own.is_empty() => {
                let block = own.swap_remove(random.below(own.len()));
                let bytes = if random.below(2) == 0 { block.len() + 100 } else { some_size(&mut random) };
                own.push(block.resize(bytes)?);
            }
            _ => {
                let older = own.pop().and_then(|block| shared[random.below(SLOTS)].lock().unwrap().replace(block));
                older.map_or(Ok(()), Filled::release)?;
            }
        }
        if own.len() > 64 {
            own.swap_remove(random.below(own.len())).release()?;
        }
    }
    own.into_iter().try_for_each(Filled::release)
}
