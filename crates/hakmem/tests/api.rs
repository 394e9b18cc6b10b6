//! The contract of `GlobalAlloc`, and what `stats`, `collect` and `usable_size` promise.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may stop")]

use std::alloc::{GlobalAlloc, Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::sync::mpsc::sync_channel;
use std::thread;

use hakmem::FrozenPolicy;
use hakmem_testkit::{Child, Damage, Filled, Memory, Random};
use proptest::prelude::*;

#[global_allocator]
static GLOBAL: hakmem::Hakmem = hakmem::Hakmem;

#[derive(Clone, Debug)]
enum Action {
    New { slot: usize, bytes: usize, align: usize },
    Zeroed { slot: usize, bytes: usize, align: usize },
    Resize { slot: usize, bytes: usize },
    Free { slot: usize },
}

const SLOTS: usize = 12;

fn bytes() -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => 1_usize..=1100,
        4 => 1000_usize..=40_000,
        2 => 30_000_usize..=400_000,
        1 => (1_usize << 20)..=(5 << 20),
        // Borders of the routes, and their neighbours.
        2 => (prop::sample::select(vec![8_usize, 256, 1024, 32 << 10, 64 << 10, 2 << 20]), 0_usize..3)
            .prop_map(|(border, step)| border - 1 + step),
    ]
}

fn align() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0_u32..5, 2 => 5_u32..13, 1 => 13_u32..23].prop_map(|shift| 1 << shift)
}

fn action() -> impl Strategy<Value = Action> {
    let slot = 0..SLOTS;
    prop_oneof![
        3 => (slot.clone(), bytes(), align()).prop_map(|(slot, bytes, align)| Action::New { slot, bytes, align }),
        2 => (slot.clone(), bytes(), align()).prop_map(|(slot, bytes, align)| Action::Zeroed { slot, bytes, align }),
        4 => (slot.clone(), bytes()).prop_map(|(slot, bytes)| Action::Resize { slot, bytes }),
        2 => slot.prop_map(|slot| Action::Free { slot }),
    ]
}

fn apply(action: Action, stamp: u64, slots: &mut [Option<Filled>]) -> Result<(), Damage> {
    let refused = || Damage::from("refused");
    let (Action::New { slot, .. } | Action::Zeroed { slot, .. } | Action::Resize { slot, .. } | Action::Free { slot }) =
        action;
    let place = slots.get_mut(slot).ok_or_else(refused)?;
    let old = place.take();
    if let Action::Resize { bytes, .. } = action {
        *place = old.map(|block| block.resize(bytes)).transpose()?;
        return Ok(());
    }
    old.map_or(Ok(()), Filled::release)?;
    *place = match action {
        Action::New { bytes, align, .. } => Some(Filled::new(bytes, align, stamp).ok_or_else(refused)?),
        Action::Zeroed { bytes, align, .. } => Some(Filled::zeroed(bytes, align, stamp)?.ok_or_else(refused)?),
        Action::Resize { .. } | Action::Free { .. } => None,
    };
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Blocks are aligned, do not overlap (their patterns differ), keep their contents through `realloc`, and
    /// `alloc_zeroed` gives zeros, whatever was there before.
    #[test]
    fn blocks_keep_every_byte_through_any_list_of_actions(actions in prop::collection::vec(action(), 1..60)) {
        let mut slots: Vec<Option<Filled>> = (0..SLOTS).map(|_| None).collect();
        for (action, stamp) in actions.into_iter().zip(0..) {
            apply(action, stamp, &mut slots).map_err(TestCaseError::fail)?;
        }
        for block in slots.into_iter().flatten() {
            block.release().map_err(TestCaseError::fail)?;
        }
    }

    #[test]
    fn all_usable_bytes_may_be_written(sizes in prop::collection::vec((bytes(), align()), 1..20)) {
        let blocks: Vec<(*mut u8, Layout, u8)> = sizes.iter().zip(1..).map(|(&(bytes, align), mark)| {
            let layout = Layout::from_size_align(bytes, align).unwrap();
            // SAFETY: the size is not zero.
            let block = unsafe { alloc(layout) };
            assert!(!block.is_null());
            let usable = usable(block);
            assert!(usable >= bytes, "{usable} of {bytes}");
            // SAFETY: the allocator says that this many bytes are usable.
            unsafe { block.write_bytes(mark, usable) };
            (block, layout, mark)
        }).collect();
        for (block, layout, mark) in blocks {
            // SAFETY: these bytes were written above.
            let bytes = unsafe { std::slice::from_raw_parts(block, usable(block)) };
            prop_assert!(bytes.iter().all(|&byte| byte == mark), "{:?} was overwritten by a neighbour", layout);
            // SAFETY: allocated with this layout.
            unsafe { dealloc(block, layout) };
        }
    }
}

fn usable(block: *mut u8) -> usize {
    // SAFETY: callers pass a live block.
    unsafe { hakmem::usable_size(block) }.unwrap()
}

#[test]
fn huge_requests_are_refused_without_a_panic() {
    for bytes in [1_usize << 46, 1 << 47, 1 << 60, isize::MAX as usize - 4095] {
        for align in [1, 4096] {
            let Ok(layout) = Layout::from_size_align(bytes, align) else { continue };
            // SAFETY: the size is not zero.
            let block = unsafe { alloc(std::hint::black_box(layout)) };
            assert!(block.is_null(), "{bytes} bytes were granted at {block:?}");
            // SAFETY: the size is not zero.
            let block = unsafe { std::alloc::alloc_zeroed(std::hint::black_box(layout)) };
            // Seen: an allocation that is only compared with null may be left out by the compiler.
            assert!(std::hint::black_box(block).is_null());
        }
    }
    assert!(Vec::<u8>::new().try_reserve_exact(isize::MAX as usize).is_err());
    let impossible = Layout::from_size_align(8, 1 << 62).unwrap();
    // SAFETY: the size is not zero.
    assert!(std::hint::black_box(unsafe { alloc(std::hint::black_box(impossible)) }).is_null());
}

#[test]
fn a_refused_realloc_leaves_the_block_as_it_was() {
    for bytes in [10_usize, 5000, 100_000, 3 << 20] {
        let layout = Layout::from_size_align(bytes, 8).unwrap();
        // SAFETY: the size is not zero.
        let block = unsafe { alloc(layout) };
        // SAFETY: the block holds `bytes` bytes.
        unsafe { block.write_bytes(9, bytes) };
        // SAFETY: allocated with this layout; the new size is below `isize::MAX` rounded to the alignment.
        let moved = unsafe { realloc(block, layout, isize::MAX as usize - 15) };
        assert!(moved.is_null());
        // SAFETY: the bytes were written above, and a refused realloc leaves the block alive.
        let kept = unsafe { std::slice::from_raw_parts(block, bytes) };
        assert!(kept.iter().all(|&byte| byte == 9));
        // SAFETY: allocated with this layout, still alive.
        unsafe { dealloc(block, layout) };
    }
}

#[test]
fn a_block_that_grows_in_small_steps_seldom_moves() {
    const STEP: usize = 64;
    let layout = |bytes| Layout::from_size_align(bytes, 8).unwrap();
    let mut bytes = 4096;
    // SAFETY: the size is not zero.
    let mut block = unsafe { alloc_zeroed(layout(bytes)) };
    let mut moves = 0;
    while bytes < 32 << 10 {
        // SAFETY: allocated with this layout.
        let grown = unsafe { realloc(block, layout(bytes), bytes + STEP) };
        moves += usize::from(grown != block);
        (block, bytes) = (grown, bytes + STEP);
        // SAFETY: these are the last bytes of the block.
        unsafe { block.wrapping_add(bytes - STEP).write_bytes(7, STEP) };
    }
    // SAFETY: the block is as long, all of it written.
    let contents = unsafe { std::slice::from_raw_parts(block, bytes) };
    assert!(contents[..4096].iter().all(|&byte| byte == 0) && contents[4096..].iter().all(|&byte| byte == 7));
    // SAFETY: allocated with this layout, still alive.
    unsafe { dealloc(block, layout(bytes)) };
    assert!(moves <= 12, "{moves} moves; each of the 24 size classes would be one");
}

/// The contract leaves zero bytes undefined; C programs and careless wrappers ask for them all the same.
#[test]
fn zero_bytes_are_served_and_freed() {
    for align in [1, 8, 64, 4096] {
        let layout = Layout::from_size_align(0, align).unwrap();
        let blocks: Vec<*mut u8> = (0..100)
            .map(|_| {
                // SAFETY: hakmem serves a size of zero like one of a byte.
                unsafe { GLOBAL.alloc(std::hint::black_box(layout)) }
            })
            .collect();
        for block in blocks.into_iter().filter(|block| !block.is_null()) {
            assert!(block.addr().is_multiple_of(align));
            // SAFETY: allocated with this layout.
            unsafe { GLOBAL.dealloc(block, layout) };
        }
    }
    let units = vec![(); 1000];
    assert_eq!(units.into_boxed_slice().len(), 1000);
}

/// What the test harness and the runtime may keep between two readings.
const RUNTIME_BYTES: i64 = 16 << 10;

#[test]
fn live_bytes_return_to_where_they_were() {
    Child::alone("live_bytes_return_to_where_they_were", || {
        let live = || {
            hakmem::collect();
            hakmem::stats().live_bytes as i64
        };
        thread::spawn(|| ()).join().unwrap();
        let start = live();
        let mut random = Random::new(1);
        let mut held = Vec::with_capacity(20_000);
        let mut bytes = 0;
        let before = live();
        for number in 0..20_000 {
            let size = if number % 500 == 0 { 1 << (15 + random.below(8)) } else { 8 + random.below(2000) };
            bytes += size as i64;
            held.push(Filled::new(size, 8, number).unwrap());
        }
        let full = live();
        assert!(full - before >= bytes, "{} bytes are live, {bytes} were asked for", full - before);
        assert!(full - before <= bytes + bytes / 3, "{} bytes are live, {bytes} were asked for", full - before);
        // A quarter is freed by another thread, which then ends.
        let theirs = held.split_off(15_000);
        thread::spawn(|| theirs.into_iter().try_for_each(Filled::release).unwrap()).join().unwrap();
        held.into_iter().try_for_each(Filled::release).unwrap();
        let end = live();
        eprintln!("live bytes: {start} at the start, {full} in between ({bytes} asked for), {end} at the end");
        assert!((end - start).abs() <= RUNTIME_BYTES, "{start} bytes became {end}");
    });
}

/// Hunts: what was freed so far ahead of what was allocated, because heaps are looked at one after the other, and a sum that wraps.
#[test]
fn blocks_that_change_hands_while_they_are_counted_are_not_fewer_than_none() {
    Child::alone("blocks_that_change_hands_while_they_are_counted_are_not_fewer_than_none", || {
        thread::scope(|scope| {
            let (give, take) = sync_channel::<Vec<u8>>(1);
            let (meet, met) = sync_channel(0);
            scope.spawn(move || {
                // Its heap is the older one, so that it is looked at last.
                drop(vec![1_u8; 100_000]);
                meet.send(()).unwrap();
                take.iter().for_each(drop);
            });
            met.recv().unwrap();
            let giver =
                scope.spawn(move || (0..50_000).for_each(|_| give.send(Vec::with_capacity(2_000_000)).unwrap()));
            let mut most = 0;
            while !giver.is_finished() {
                most = most.max(hakmem::stats().live_bytes);
            }
            assert!(most < 1 << 30, "{most} bytes");
        });
    });
}

#[test]
fn counters_rise_with_use() {
    Child::alone("counters_rise_with_use", || {
        let before = hakmem::stats();
        let blocks: Vec<Filled> = (0..10_000).map(|number| Filled::new(300, 8, number).unwrap()).collect();
        thread::spawn(|| blocks.into_iter().try_for_each(Filled::release).unwrap()).join().unwrap();
        hakmem::collect();
        let after = hakmem::stats();
        assert!(after.refills > before.refills, "{after:?}");
        assert!(after.remote_frees >= before.remote_frees + 9_000, "{after:?}");
        assert!(after.committed_bytes >= after.live_bytes, "{after:?}");
    });
}

#[test]
fn a_huge_zeroed_block_over_dirty_superslabs_stays_untouched() {
    // A program that fills some megabytes, frees them, and asks `calloc` for a sparse table of gigabytes.
    Child::alone("a_huge_zeroed_block_over_dirty_superslabs_stays_untouched", || {
        let policy = FrozenPolicy { run_cache_runs: 0, purge_delay_ms: u32::MAX, ..hakmem::policy() };
        hakmem::publish_policy(&policy).unwrap();
        let filled: Vec<Filled> = (0..24).map(|number| Filled::new(1 << 20, 8, number).unwrap()).collect();
        filled.into_iter().try_for_each(Filled::release).unwrap();
        assert!(hakmem::stats().free_dirty_bytes >= 20 << 20, "nothing dirty was left: {:?}", hakmem::stats());
        let layout = Layout::from_size_align(2 << 30, 8).unwrap();
        let before = Memory::now().resident_kib;
        // SAFETY: the layout has a size.
        let blocks: Vec<*mut u8> = (0..2).map(|_| unsafe { alloc_zeroed(std::hint::black_box(layout)) }).collect();
        for &block in &blocks {
            assert!(!block.is_null());
            for offset in (0..layout.size()).step_by(1 << 20) {
                // SAFETY: the offset is inside the block.
                let byte = unsafe { block.add(offset) };
                // SAFETY: as above.
                assert_eq!(unsafe { byte.read() }, 0, "{offset}");
            }
        }
        let grown = Memory::now().resident_kib.saturating_sub(before);
        assert!(grown < 64 << 10, "{grown} KiB became resident");
        for block in blocks {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(block, layout) };
        }
    });
}
