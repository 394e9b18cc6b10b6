//! The box through its public face, with real guard pages.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a panic is how a test fails")]
#![allow(clippy::result_large_err, reason = "a finding ends a process; here it is looked at")]

mod support;

use hakmem_base::{Door, OS_PAGE_BYTES, Request, SLAB_BYTES};
use hakmem_sampled::{MAX_ALIGN, MAX_BYTES, Mistake, SampledPool, Stamp, Trace, Wanted};
use support::{Guarded, poke, stamp};

#[test]
fn a_block_is_usable_to_its_last_byte_and_counted() {
    let guarded = Guarded::new(8);
    for (bytes, at_end) in [(1, true), (100, false), (4096, true), (5000, true), (MAX_BYTES, false)] {
        let block = guarded.take(bytes, 1, at_end).unwrap();
        // SAFETY: the block is the test's, and so many bytes long.
        unsafe { block.write_bytes(7, bytes) };
        let address = block.addr().get();
        assert_eq!(guarded.pool.usable_bytes(guarded.note(address), address), Ok(bytes));
        assert_eq!((guarded.pool.stats().live, guarded.pool.stats().live_bytes), (1, bytes as u64));
        assert_eq!(guarded.give(address), Ok(()));
        guarded.pool.check_invariants();
    }
    assert_eq!((guarded.pool.stats().samples, guarded.pool.stats().live_bytes), (5, 0));
}

#[test]
#[cfg_attr(miri, ignore = "the interpreter's memory is always accessible")]
fn nothing_but_the_blocks_pages_can_be_touched_and_after_the_free_not_these_either() {
    let guarded = Guarded::new(8);
    let block = guarded.take(32, 16, true).unwrap().addr().get();
    let readable = |address: usize| guarded.is_readable(address);
    assert!(readable(block) && readable(block + 31));
    assert!(!readable(block + 32), "one byte behind it");
    assert!(!readable((block & !(OS_PAGE_BYTES - 1)) - 1), "one byte before its page");
    let left = guarded.take(32, 16, false).unwrap().addr().get();
    assert!(readable(left) && !readable(left - 1));
    let unit = block & !(SLAB_BYTES - 1);
    assert_eq!((unit..unit + SLAB_BYTES).step_by(OS_PAGE_BYTES).filter(|&page| readable(page)).count(), 1);
    guarded.give(block).unwrap();
    guarded.give(left).unwrap();
    assert!(!readable(block) && !readable(left));
}

#[test]
fn a_second_free_is_reported_with_both_stamps() {
    let guarded = Guarded::new(8);
    let block = guarded.take(48, 8, true).unwrap().addr().get();
    guarded.give(block).unwrap();
    let finding = guarded.give(block).unwrap_err();
    assert_eq!((finding.mistake, finding.block, finding.bytes), (Mistake::DoubleFree, block, 48));
    assert_eq!((finding.allocated, finding.freed), (Some(stamp(1)), Some(stamp(2))));
    let resized = guarded.pool.usable_bytes(guarded.note(block), block).unwrap_err();
    assert_eq!(resized.mistake, Mistake::ResizeAfterFree);
    guarded.pool.check_invariants();
}

#[test]
fn pointers_that_are_no_start_of_a_block_are_reported() {
    let guarded = Guarded::new(40);
    let block = guarded.take(48, 8, true).unwrap().addr().get();
    for wrong in [block + 1, block + 16, block - 16, block & !(SLAB_BYTES - 1)] {
        assert_eq!(guarded.give(wrong).unwrap_err().mistake, Mistake::InvalidFree);
        let finding = guarded.pool.usable_bytes(guarded.note(wrong), wrong).unwrap_err();
        assert_eq!((finding.mistake, finding.freed), (Mistake::InvalidResize, None));
    }
    // A unit whose slot has never been used.
    let finding = guarded.give(block + SLAB_BYTES).unwrap_err();
    assert_eq!((finding.mistake, finding.allocated), (Mistake::InvalidFree, None));
    assert_eq!(guarded.give(block), Ok(()));
}

#[test]
fn writes_around_a_block_that_no_guard_saw_are_reported_at_its_free() {
    let guarded = Guarded::new(8);
    for (at_end, offset, mistake) in [
        (true, 20, Mistake::OverflowSeenLate),
        (true, 31, Mistake::OverflowSeenLate),
        (true, -1, Mistake::UnderflowSeenLate),
        (true, -4000, Mistake::UnderflowSeenLate),
        (false, 20, Mistake::OverflowSeenLate),
        (false, 4095, Mistake::OverflowSeenLate),
    ] {
        let block = guarded.take(20, 16, at_end).unwrap();
        let address = block.addr().get();
        poke(block, offset, 0);
        let finding = guarded.give(address).unwrap_err();
        assert_eq!((finding.mistake, finding.address), (mistake, address.wrapping_add_signed(offset)));
        poke(block, offset, 0xb7);
        assert_eq!(guarded.give(address), Ok(()));
    }
}

#[test]
fn a_free_that_names_another_size_is_reported_and_the_block_stays() {
    let guarded = Guarded::new(8);
    let block = guarded.take(20, 16, true).unwrap().addr().get();
    let free = |claimed, door| {
        guarded.pool.free(&guarded.cx(), guarded.note(block), block, Request::new(claimed, 1, door), || stamp(2))
    };
    assert_eq!(free(24, Door::New).unwrap_err().mistake, Mistake::WrongSize { claimed: 24 });
    assert_eq!(free(20, Door::New), Ok(()));
    let block = guarded.take(20, 16, true).unwrap().addr().get();
    let of_another_door = Request::new(24, 1, Door::Malloc);
    assert_eq!(guarded.pool.free(&guarded.cx(), guarded.note(block), block, of_another_door, || stamp(2)), Ok(()));
}

#[test]
fn a_free_of_the_malloc_family_names_the_size_that_was_asked_for() {
    let guarded = Guarded::new(8);
    for (bytes, claimed, is_wrong) in [
        (64, 64, false),
        (64, 63, true),
        (63, 64, true),
        (0, 1, false),
        (40_000, 40_000, false),
        (40_000, 40_001, true),
    ] {
        let wanted = Wanted { bytes, align: 16, at_end: true, door: Door::Malloc };
        let block = guarded.pool.allocate(&guarded.cx(), wanted, || stamp(1)).unwrap().addr().get();
        let claim = Request::new(claimed, 1, Door::Malloc);
        let freed = guarded.pool.free(&guarded.cx(), guarded.note(block), block, claim, || stamp(2));
        let mistake = freed.err().map(|finding| finding.mistake);
        assert_eq!(mistake, is_wrong.then_some(Mistake::WrongSize { claimed }), "{bytes} bytes freed as {claimed}");
    }
}

#[test]
fn a_sweep_finds_damage_around_a_block_in_use_and_nothing_else() {
    for (offset, mistake) in
        [(20, Some(Mistake::OverflowSeenAtExit)), (-1, Some(Mistake::UnderflowSeenAtExit)), (0, None)]
    {
        let guarded = Guarded::new(8);
        let blocks: Vec<_> = (0..3).map(|_| guarded.take(20, 16, true).unwrap()).collect();
        guarded.give(blocks[2].addr().get()).unwrap();
        poke(blocks[1], offset, 1);
        let found = guarded.pool.sweep(&guarded.cx());
        assert_eq!(found.map(|finding| finding.mistake), mistake);
        assert!(found.is_none_or(|finding| finding.block == blocks[1].addr().get() && finding.freed.is_none()));
        // The block is as it was: the damage is found again at the free.
        assert_eq!(guarded.give(blocks[1].addr().get()).is_err(), mistake.is_some());
        guarded.pool.check_invariants();
    }
}

#[test]
fn blocks_can_be_freed_while_a_sweep_is_at_work() {
    for _ in 0..if cfg!(miri) { 5 } else { 200 } {
        let guarded = Guarded::new(32);
        let blocks: Vec<usize> = (0..32).map(|_| guarded.take(20, 16, true).unwrap().addr().get()).collect();
        std::thread::scope(|scope| {
            let frees = scope.spawn(|| blocks.iter().all(|&block| guarded.give(block).is_ok()));
            assert_eq!(guarded.pool.sweep(&guarded.cx()), None);
            assert!(frees.join().unwrap());
        });
        guarded.pool.check_invariants();
    }
}

#[test]
fn accesses_are_judged_by_the_block_that_lies_nearest() {
    let guarded = Guarded::new(8);
    let block = guarded.take(4096, 16, true).unwrap().addr().get();
    let next = guarded.take(4096, 16, true).unwrap().addr().get();
    assert_eq!(next, block + SLAB_BYTES, "slots are handed out one behind the other");
    let judged = |address| guarded.judge(address).map(|found| (found.mistake, found.block)).unwrap();
    assert_eq!(judged(block + 4096), (Mistake::Overflow, block));
    assert_eq!(judged(block - 1), (Mistake::Underflow, block));
    // Far behind the first block, in the unit of the second.
    assert_eq!(judged(block + 3 * 4096), (Mistake::Overflow, block));
    assert_eq!(judged(next - 4096), (Mistake::Underflow, next));
    guarded.give(block).unwrap();
    assert_eq!(judged(block + 8), (Mistake::UseAfterFree, block));
    assert_eq!(judged(block + 3 * 4096), (Mistake::UseAfterFree, block));
    assert_eq!(judged(next - 4096), (Mistake::Underflow, next));
    let never_used = guarded.judge(next + 3 * SLAB_BYTES).unwrap();
    assert_eq!((never_used.mistake, never_used.allocated, never_used.freed), (Mistake::Unknown, None, None));
}

/// A program may take access to its own pages away, to see who touches them.
#[test]
fn an_access_inside_a_block_in_use_is_no_mistake_of_its_user() {
    let guarded = Guarded::new(8);
    let block = guarded.take(8192, 4096, false).unwrap().addr().get();
    assert_eq!([block, block + 4096, block + 8191].map(|address| guarded.judge(address)), [None; 3]);
    assert_eq!(guarded.judge(block + 8192).unwrap().mistake, Mistake::Overflow);
    guarded.give(block).unwrap();
    assert_eq!(guarded.judge(block + 4096).unwrap().mistake, Mistake::UseAfterFree);
    // Of no bytes none is inside.
    let nothing = guarded.take(0, 16, true).unwrap().addr().get();
    assert_eq!(guarded.judge(nothing).unwrap().mistake, Mistake::Overflow);
}

#[test]
fn a_freed_slot_rests_until_all_others_have_been_used_and_the_oldest_goes_first() {
    let guarded = Guarded::new(40);
    let take = || guarded.take(16, 16, false).unwrap().addr().get();
    let mut seen: Vec<usize> = Vec::new();
    for _ in 0..40 {
        let block = take();
        assert!(!seen.contains(&block), "a slot came back before its turn");
        seen.push(block);
        guarded.give(block).unwrap();
    }
    let second_round: Vec<usize> = (0..40).map(|_| take()).collect();
    assert_eq!(second_round, seen);
    assert!(guarded.take(16, 16, false).is_none());
    assert_eq!(guarded.pool.stats().no_slot, 1);
    guarded.give(second_round[17]).unwrap();
    assert_eq!(take(), second_round[17]);
    guarded.pool.check_invariants();
}

#[test]
#[cfg_attr(miri, ignore = "the interpreter's memory is always there")]
fn a_freed_block_of_many_pages_keeps_no_memory() {
    let guarded = Guarded::new(8);
    for bytes in [5 * OS_PAGE_BYTES, MAX_BYTES] {
        let block = guarded.take(bytes, 16, true).unwrap();
        // SAFETY: the block is the test's, and so many bytes long.
        unsafe { block.write_bytes(7, bytes) };
        let unit = guarded.os.index_of(block.addr().get()).unwrap();
        assert!(guarded.os.resident_permille(unit, SLAB_BYTES).unwrap() > 0);
        guarded.give(block.addr().get()).unwrap();
        assert_eq!(guarded.os.resident_permille(unit, SLAB_BYTES), Some(0));
    }
}

#[test]
fn nobody_gets_a_slot_while_a_fork_is_prepared() {
    let guarded = Guarded::new(8);
    guarded.pool.lock_for_fork();
    let is_taken = hakmem_atomic_ops::Flag::new(false);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            assert!(guarded.take(16, 16, true).is_some());
            // ORDERING: tells that there is a block; nothing travels.
            is_taken.store_release(true);
        });
        // Most of the time the other one looks for a slot meanwhile.
        for _ in 0..200 {
            assert!(!is_taken.is_set_relaxed());
            std::thread::yield_now();
        }
        // SAFETY: taken above.
        unsafe { guarded.pool.unlock_after_fork() };
        other.join().unwrap();
    });
}

#[test]
fn what_does_not_fit_is_counted_and_takes_no_slot() {
    let guarded = Guarded::new(1);
    for (bytes, align) in [(MAX_BYTES + 1, 16), (16, MAX_ALIGN * 2)] {
        assert!(guarded.take(bytes, align, true).is_none());
    }
    let stats = guarded.pool.stats();
    assert_eq!((stats.unfit, stats.no_slot, stats.samples), (2, 0, 0));
    assert!(guarded.take(MAX_BYTES, MAX_ALIGN, true).is_some());
}

#[test]
fn a_pool_without_slots_hands_out_nothing() {
    let guarded = Guarded::new(1);
    let pool = SampledPool::new();
    let wanted = Wanted { bytes: 1, align: 1, at_end: true, door: Door::Rust };
    assert!(pool.allocate(&guarded.cx(), wanted, || Stamp::now(1, Trace::EMPTY)).is_none());
    pool.check_invariants();
}

#[test]
fn of_two_threads_that_free_a_block_one_wins() {
    let guarded = Guarded::new(4);
    for _ in 0..200 {
        let block = guarded.take(64, 16, true).unwrap().addr().get();
        let findings: Vec<_> = std::thread::scope(|scope| {
            let frees: Vec<_> = (0..2).map(|_| scope.spawn(|| guarded.give(block).err())).collect();
            frees.into_iter().filter_map(|free| free.join().unwrap()).collect()
        });
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].mistake, findings[0].block), (Mistake::DoubleFree, block));
        guarded.pool.check_invariants();
    }
}

#[test]
fn threads_never_share_a_slot() {
    let guarded = Guarded::new(6);
    std::thread::scope(|scope| {
        for mark in 1..=4_u8 {
            let guarded = &guarded;
            scope.spawn(move || {
                for round in 0..if cfg!(miri) { 20 } else { 2000 } {
                    let Some(block) = guarded.take(100, 4, round % 2 == 0) else { continue };
                    // SAFETY: the block is this thread's.
                    unsafe { block.write_bytes(mark, 100) };
                    std::thread::yield_now();
                    // SAFETY: as above.
                    let bytes = unsafe { core::slice::from_raw_parts(block.as_ptr(), 100) };
                    assert!(bytes.iter().all(|&byte| byte == mark));
                    guarded.give(block.addr().get()).unwrap();
                }
            });
        }
    });
    guarded.pool.check_invariants();
    assert_eq!(guarded.pool.stats().live, 0);
}
