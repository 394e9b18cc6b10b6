//! The box through its public face, with real memory.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

mod common;

use common::{bytes_at, never, os_with};
use hakmem_base::{OS_PAGE_BYTES, SLAB_BYTES, SLABS_PER_SUPERSLAB, SUPERSLAB_BYTES, SlabIndex};
use hakmem_superslab_os::{MetaArena, OsPolicy, Purge, SuperslabOs, WindowConfig};
use std::sync::Barrier;

#[test]
fn nothing_can_be_had_before_the_window_is_reserved() {
    let os = SuperslabOs::new();
    assert!(os.window().is_none() && os.take_run(1, 1).is_none() && os.take_extent(1, 0, 1).is_none());
    assert!(os.index_of(0).is_none() && os.index_of(usize::MAX).is_none());
    os.check_invariants();
}

#[test]
fn reserving_twice_gives_the_same_window() {
    let os = os_with(never());
    let (first, second) = (os.window().unwrap(), os.reserve(WindowConfig::default()).unwrap());
    assert_eq!((first.base, first.slab_count), (second.base, second.slab_count));
    assert_eq!(first.base.addr() % SUPERSLAB_BYTES, 0);
}

#[test]
fn the_automatic_window_is_large() {
    let os = SuperslabOs::new();
    let window = os.reserve(WindowConfig::default()).unwrap();
    let bytes = window.slab_count as usize * SLAB_BYTES;
    assert!(bytes >= 64 << 30 && bytes.is_power_of_two());
    assert!(os.take_run(1, 1).is_some());
}

#[test]
fn addresses_and_indices_are_inverse_inside_the_window_only() {
    let os = os_with(never());
    let window = os.window().unwrap();
    let run = os.take_run(3, 1).unwrap();
    let address = os.address_of(run.first).addr();
    assert_eq!(os.index_of(address + 3 * SLAB_BYTES - 1), Some(run.first.add(2)));
    assert_eq!(os.index_of(window.base.addr() - 1), None);
    assert_eq!(os.index_of(window.base.addr() + window.slab_count as usize * SLAB_BYTES), None);
}

#[test]
fn superslab_zero_is_never_handed_out() {
    let os = os_with(never());
    let mut lowest = u32::MAX;
    while let Some(run) = os.take_run(32, 1) {
        lowest = lowest.min(run.first.get());
    }
    assert_eq!(lowest, 32);
    assert_eq!(os.stats().in_use_bytes, (256 << 20) - SUPERSLAB_BYTES);
    os.check_invariants();
}

#[test]
fn a_run_is_had_again_while_it_waits_dirty() {
    let os = os_with(never());
    let [first, second] = [(); 2].map(|()| os.take_run(2, 1).unwrap());
    os.give_run(first.first, 2);
    os.give_run(second.first, 2);
    assert_eq!(os.take_run_again(2, Some(second.first)).unwrap().first, second.first, "not the lowest place");
    let other = os.take_run_again(2, Some(second.first)).unwrap();
    assert_eq!(other.first, first.first, "it is in use");
    os.give_run(second.first, 2);
    assert!(os.purge_all() > 0);
    assert_eq!(
        os.take_run_again(1, Some(second.first.add(1))).unwrap().first,
        second.first,
        "it is clean: any place will do"
    );
    assert!(os.take_run_again(2, Some(SlabIndex::new(u32::MAX))).is_some(), "no such unit");
    os.check_invariants();
}

#[test]
fn a_run_takes_the_first_superslab_of_what_a_big_block_has_left() {
    let os = os_with(never());
    let [clean, big] = [1, 4].map(|superslabs| os.take_extent(superslabs, 0, 1).unwrap().first);
    os.give_extent(clean, 1, Purge::Now);
    os.give_extent(big, 4, Purge::Later);
    assert_eq!(os.take_run(SLABS_PER_SUPERSLAB, 1).unwrap().first, big, "what is dirty, and not in its midst");
    os.check_invariants();
}

#[test]
fn a_dirty_unit_is_reused_before_a_clean_one() {
    let os = os_with(never());
    let runs: Vec<_> = (0..4).map(|_| os.take_run(1, 1).unwrap()).collect();
    assert!(runs.iter().all(|run| run.clean == 1));
    os.give_run(runs[2].first, 1);
    assert_eq!(os.take_run(1, 1).unwrap(), hakmem_superslab_os::Run { first: runs[2].first, clean: 0 });
    os.check_invariants();
}

#[test]
fn the_fullest_superslab_is_preferred() {
    let os = os_with(never());
    let full: Vec<_> = (0..3).map(|_| os.take_run(32, 1).unwrap().first).collect();
    os.shrink_run(full[0], 32, 4);
    os.shrink_run(full[1], 32, 28);
    os.shrink_run(full[2], 32, 20);
    assert_eq!(os.take_run(2, 1).unwrap().first, full[1].add(28));
    assert_eq!(os.take_run(3, 1).unwrap().first, full[2].add(20), "the fullest that has three units in a row");
    let stats = os.stats();
    assert_eq!((stats.hot_superslabs, stats.draining_superslabs), (2, 1));
}

#[test]
fn space_that_was_listed_without_tiers_is_found_with_them() {
    let os = os_with(OsPolicy { tiering: false, ..never() });
    let held: Vec<_> = (0..8).map(|_| os.take_run(32, 1).unwrap().first).collect();
    for &first in &held {
        os.shrink_run(first, 32, 1);
    }
    for tiering in [true, false, true] {
        os.set_policy(OsPolicy { tiering, ..never() });
        os.check_invariants();
    }
    let runs: Vec<_> = (0..8).map(|_| os.take_run(16, 1).unwrap()).collect();
    assert!(runs.iter().all(|run| run.clean == 0), "memory that was there already");
    assert_eq!(os.stats().fresh_superslabs, 8);
    os.check_invariants();
}

#[test]
fn runs_grow_in_place_while_neighbours_are_free() {
    let os = os_with(never());
    let run = os.take_run(4, 1).unwrap();
    assert_eq!(os.grow_run(run.first, 4, 10), Some(0b11_1111));
    let next = os.take_run(1, 1).unwrap();
    assert_eq!(next.first, run.first.add(10));
    assert_eq!(os.grow_run(run.first, 10, 11), None);
    assert_eq!(os.grow_run(next.first, 1, 23), None, "a run does not leave its superslab");
    os.shrink_run(run.first, 10, 4);
    assert_eq!(os.grow_run(run.first, 4, 10), Some(0), "given back means dirty");
    os.check_invariants();
}

#[test]
fn extents_keep_room_and_grow_into_it() {
    let os = os_with(never());
    let extent = os.take_extent(2, 3, 1).unwrap();
    let other = os.take_extent(1, 0, 1).unwrap();
    let run = os.take_run(1, 1).unwrap();
    assert!(extent.zeroed && other.first.superslab() == extent.first.superslab() + 5);
    assert!(run.first.superslab() > other.first.superslab());
    assert_eq!(os.grow_extent(extent.first, 2, 5), Some(true));
    assert_eq!(os.grow_extent(extent.first, 5, 6), None);
    os.shrink_extent(extent.first, 5, 1);
    assert_eq!(os.grow_extent(extent.first, 1, 2), Some(false));
    os.give_extent(extent.first, 2, Purge::Now);
    assert_eq!(os.take_extent(2, 0, 1).map(|extent| extent.zeroed), Some(true));
    os.check_invariants();
}

#[test]
fn room_is_used_when_nothing_else_is_left() {
    let os = os_with(never());
    assert!(os.take_extent(1, 120, 1).is_some());
    let mut count = 1;
    while os.take_extent(1, 0, 1).is_some() {
        count += 1;
    }
    assert_eq!(count, 127);
    os.check_invariants();
}

#[test]
fn room_ends_with_its_extent() {
    let os = os_with(never());
    let extent = os.take_extent(1, 3, 1).unwrap();
    let behind = os.take_extent(1, 0, 1).unwrap();
    assert_eq!(behind.first.superslab(), extent.first.superslab() + 4);
    os.give_extent(extent.first, 1, Purge::Later);
    let third = os.take_extent(4, 0, 1).unwrap();
    assert_eq!(third.first, extent.first, "the room of the extent that is gone is free for all");
}

#[test]
fn extents_are_aligned_by_address() {
    let os = os_with(never());
    for align in [1_u32, 2, 4, 8, 16] {
        let extent = os.take_extent(1, 0, align).unwrap();
        assert_eq!(os.address_of(extent.first).addr() % (align as usize * SUPERSLAB_BYTES), 0);
    }
}

#[test]
#[should_panic(expected = "not handed out")]
fn a_run_given_back_twice_is_fatal() {
    let os = os_with(never());
    let run = os.take_run(2, 1).unwrap();
    let _keeps_superslab_cut = os.take_run(1, 1);
    os.give_run(run.first, 2);
    os.give_run(run.first, 2);
}

#[test]
#[should_panic(expected = "not handed out")]
fn an_extent_named_with_the_wrong_length_is_fatal() {
    let os = os_with(never());
    let extent = os.take_extent(2, 0, 1).unwrap();
    os.give_extent(extent.first, 1, Purge::Later);
}

#[test]
fn the_memory_limit_refuses_and_counts() {
    let os = os_with(OsPolicy { memory_limit_bytes: 4 << 20, ..never() });
    let extent = os.take_extent(1, 0, 1).unwrap();
    let run = os.take_run(31, 1).unwrap();
    assert!(os.take_run(2, 1).is_none() && os.take_extent(1, 0, 1).is_none());
    assert!(os.grow_run(run.first, 31, 32).is_some() && os.grow_extent(extent.first, 1, 2).is_none());
    assert_eq!(os.stats().limit_refused, 3);
}

#[test]
fn memory_that_is_free_for_longer_than_the_delay_is_purged_by_the_next_operation() {
    // First a delay that this thread is not held up for on any machine, then one that is over.
    let patient = OsPolicy { purge_delay_ms: 3_600_000, warm_superslabs: 0, ..OsPolicy::default() };
    let os = os_with(patient);
    let keep = os.take_run(1, 1).unwrap();
    let run = os.take_run(8, 1).unwrap();
    bytes_at(&os, run.first, 8 * SLAB_BYTES).fill(1);
    os.give_run(run.first, 8);
    assert!(os.next_due_ms().is_some_and(|wait| (1..=3_600_000).contains(&wait)));
    assert_eq!(os.purge_due(), 0);
    os.set_policy(OsPolicy { purge_delay_ms: 40, ..patient });
    std::thread::sleep(std::time::Duration::from_millis(90));
    assert_eq!(os.purge_due(), 8 * SLAB_BYTES);
    assert_eq!((os.next_due_ms(), os.purgeable_bytes()), (None, 0));
    assert_eq!(os.grow_run(keep.first, 1, 9), Some(0xff));
    os.check_invariants();
}

#[test]
fn a_request_that_no_superslab_can_serve_gives_none_and_changes_nothing() {
    let os = os_with(never());
    for (units, align_units) in [(0, 1), (33, 1), (u32::MAX, 1), (1, 0), (1, 3), (1, 64), (4, 24)] {
        assert!(os.take_run(units, align_units).is_none(), "{units} units at a multiple of {align_units}");
    }
    for (superslabs, align) in [(0, 1), (1, 0), (1, 3), (2, 6), (u32::MAX, 1)] {
        assert!(os.take_extent(superslabs, 0, align).is_none(), "{superslabs} superslabs at a multiple of {align}");
    }
    assert_eq!((os.stats().in_use_peak_bytes, os.stats().limit_refused), (0, 0));
    assert!(os.take_run(32, 32).is_some());
    os.check_invariants();
}

#[test]
fn the_memory_limit_counts_every_unit_of_an_extent() {
    let os = os_with(OsPolicy { memory_limit_bytes: 10 * SUPERSLAB_BYTES, ..never() });
    assert!(os.take_extent(11, 0, 1).is_none());
    let extent = os.take_extent(9, 0, 1).unwrap();
    assert!(os.take_extent(2, 0, 1).is_none() && os.grow_extent(extent.first, 9, 11).is_none());
    assert!(os.grow_extent(extent.first, 9, 10).is_some() && os.take_run(1, 1).is_none());
    assert_eq!((os.stats().limit_refused, os.stats().in_use_bytes), (4, 10 * SUPERSLAB_BYTES));
}

#[test]
fn what_waits_to_be_purged_is_known_after_every_step() {
    let os = os_with(never());
    let keep = os.take_run(1, 1).unwrap();
    let run = os.take_run(8, 1).unwrap();
    os.give_run(run.first, 8);
    assert_eq!(os.purgeable_bytes(), 8 * SLAB_BYTES);
    assert!(os.grow_run(keep.first, 1, 3).is_some());
    assert_eq!(os.purgeable_bytes(), 6 * SLAB_BYTES);
    let again = os.take_run(4, 1).unwrap();
    assert_eq!(os.purgeable_bytes(), 2 * SLAB_BYTES);
    os.shrink_run(again.first, 4, 1);
    assert_eq!(os.purgeable_bytes(), 5 * SLAB_BYTES);
    let extent = os.take_extent(3, 0, 1).unwrap();
    os.shrink_extent(extent.first, 3, 2);
    assert_eq!(os.purgeable_bytes(), 5 * SLAB_BYTES + SUPERSLAB_BYTES);
    assert!(os.grow_extent(extent.first, 2, 3).is_some());
    assert_eq!(os.purgeable_bytes(), 5 * SLAB_BYTES);
    os.give_extent(extent.first, 3, Purge::Later);
    assert_eq!(os.purgeable_bytes(), 5 * SLAB_BYTES + 3 * SUPERSLAB_BYTES);
    assert_eq!(os.purge_all(), 5 * SLAB_BYTES + 3 * SUPERSLAB_BYTES);
    assert_eq!(os.purgeable_bytes(), 0);
    os.check_invariants();
}

#[test]
fn what_the_warm_pool_keeps_is_purged_once_policy_keeps_less() {
    let keeping = OsPolicy { purge_delay_ms: 0, warm_superslabs: 2, ..OsPolicy::default() };
    let os = os_with(keeping);
    let runs = [(); 3].map(|()| os.take_run(32, 1).unwrap());
    runs.iter().for_each(|run| os.give_run(run.first, 32));
    let purged = || os.stats().purged_bytes as usize / SUPERSLAB_BYTES;
    assert_eq!(purged(), 1);
    for (warm_superslabs, expected) in [(2, 1), (1, 2), (0, 3)] {
        os.set_policy(OsPolicy { warm_superslabs, ..keeping });
        let _bytes = os.purge_due();
        assert_eq!(purged(), expected, "{warm_superslabs} are kept");
        os.check_invariants();
    }
    assert_eq!((os.purgeable_bytes(), os.stats().in_use_bytes), (0, 0));
}

#[test]
fn a_delay_of_zero_purges_at_once_and_eager_free_only_whole_superslabs() {
    let os = os_with(OsPolicy { purge_delay_ms: 0, warm_superslabs: 0, ..OsPolicy::default() });
    let run = os.take_run(3, 1).unwrap();
    os.give_run(run.first, 3);
    assert_eq!((os.purgeable_bytes(), os.stats().purged_bytes), (0, 3 * SLAB_BYTES as u64));

    let os = os_with(OsPolicy { eager_free: true, ..OsPolicy::default() });
    let (first, second) = (os.take_run(3, 1).unwrap(), os.take_run(3, 1).unwrap());
    os.give_run(first.first, 3);
    assert_eq!(os.purgeable_bytes(), 3 * SLAB_BYTES);
    os.give_run(second.first, 3);
    assert_eq!((os.purgeable_bytes(), os.stats().free_clean_superslabs), (0, 1));
    os.check_invariants();
}

#[test]
fn moved_pages_arrive_and_leave_zeros() {
    let os = os_with(never());
    let bytes = 4 << 20;
    let (from, to) = (os.take_extent(2, 0, 1).unwrap(), os.take_extent(3, 0, 1).unwrap());
    bytes_at(&os, from.first, bytes).fill(0x77);
    bytes_at(&os, to.first, 3 * SUPERSLAB_BYTES).fill(0x11);
    assert!(os.move_pages(from.first, to.first, bytes));
    assert!(bytes_at(&os, to.first, bytes).iter().all(|&byte| byte == 0x77));
    assert!(bytes_at(&os, to.first.add(64), SUPERSLAB_BYTES).iter().all(|&byte| byte == 0x11));
    assert!(bytes_at(&os, from.first, bytes).iter().all(|&byte| byte == 0));
    assert!(!os.move_pages(to.first, to.first.add(32), bytes), "overlapping");
    os.give_extent(from.first, 2, Purge::Clean);
    assert_eq!(os.take_extent(2, 0, 1), Some(from));
    assert_eq!(os.stats().moved_pages_bytes, bytes as u64);
    os.check_invariants();
}

#[test]
fn a_source_across_two_mappings_is_refused_and_both_sides_stay_intact() {
    let os = os_with(never());
    let (from, to) = (os.take_extent(2, 0, 1).unwrap(), os.take_extent(2, 0, 1).unwrap());
    bytes_at(&os, from.first, 4 << 20).fill(0x77);
    bytes_at(&os, to.first, 4 << 20).fill(0x11);
    // The advice splits the mapping in the middle of the source.
    if !os.advise_huge(from.first, SUPERSLAB_BYTES) {
        return;
    }
    let moved = os.move_pages(from.first, to.first, 4 << 20);
    let expected = if moved { 0x77 } else { 0x11 };
    assert!(bytes_at(&os, to.first, 4 << 20).iter().all(|&byte| byte == expected));
    assert!(moved || bytes_at(&os, from.first, 4 << 20).iter().all(|&byte| byte == 0x77));
    assert_eq!(os.stats().move_refused, u64::from(!moved));
}

#[test]
fn decommit_zeroes_whole_pages_inside_the_range_only() {
    let os = os_with(never());
    let run = os.take_run(2, 1).unwrap();
    bytes_at(&os, run.first, 2 * SLAB_BYTES).fill(9);
    assert!(os.decommit(run.first, 100, 3 * 4096));
    let bytes = bytes_at(&os, run.first, 2 * SLAB_BYTES);
    assert!(bytes[..4096].iter().all(|&byte| byte == 9) && bytes[3 * 4096..].iter().all(|&byte| byte == 9));
    assert!(bytes[4096..3 * 4096].iter().all(|&byte| byte == 0));
    assert!(!os.decommit(run.first, 1, 4096), "no whole page");
}

/// Not under Miri, whose memory has no pages to drop.
#[cfg(not(miri))]
#[test]
fn contents_that_are_dropped_read_as_zero_and_their_neighbours_do_not() {
    let os = os_with(never());
    let (run, extent) = (os.take_run(4, 1).unwrap(), os.take_extent(2, 0, 1).unwrap());
    bytes_at(&os, run.first, 4 * SLAB_BYTES).fill(3);
    bytes_at(&os, extent.first, 2 * SUPERSLAB_BYTES).fill(4);
    assert!(os.discard_units(run.first.add(1), 2));
    let bytes = bytes_at(&os, run.first, 4 * SLAB_BYTES);
    assert!(bytes[SLAB_BYTES..3 * SLAB_BYTES].iter().all(|byte| *byte == 0));
    assert!(bytes[..SLAB_BYTES].iter().chain(&bytes[3 * SLAB_BYTES..]).all(|byte| *byte == 3));
    assert!(os.zero_extent(extent.first, SUPERSLAB_BYTES + OS_PAGE_BYTES));
    let (zeroed, rest) = bytes_at(&os, extent.first, 2 * SUPERSLAB_BYTES).split_at(SUPERSLAB_BYTES + OS_PAGE_BYTES);
    assert!(zeroed.iter().all(|byte| *byte == 0) && rest.iter().all(|byte| *byte == 4));
    assert_eq!(os.in_use_bytes(), 4 * SLAB_BYTES + 2 * SUPERSLAB_BYTES, "they are still the holder's");
    os.check_invariants();
}

#[cfg(not(miri))]
#[test]
fn huge_page_advice_is_given_once_can_be_taken_back_and_moves_with_the_pages() {
    let os = os_with(never());
    let [here, there, plain] = [(); 3].map(|()| os.take_extent(4, 0, 1).unwrap().first);
    let advised = |first, bytes| {
        let before = os.stats().huge_advised_bytes as usize;
        os.advise_huge(first, bytes);
        os.stats().huge_advised_bytes as usize - before
    };
    let all = 4 * SUPERSLAB_BYTES;
    assert!(!os.advise_huge(here, SUPERSLAB_BYTES - 1), "there is no whole superslab in it");
    assert_eq!(advised(here, all - 1), 3 * SUPERSLAB_BYTES);
    assert_eq!((advised(here, all), advised(here, all)), (SUPERSLAB_BYTES, 0));
    assert!(os.advise_small(here, 2));
    assert_eq!((advised(here, all), advised(here, all)), (2 * SUPERSLAB_BYTES, 0));
    bytes_at(&os, here, all).fill(5);
    assert!(os.move_pages(here, there, all));
    assert_eq!((advised(there, all), advised(here, all)), (0, 0));
    assert!(bytes_at(&os, there, all).iter().all(|byte| *byte == 5));
    assert!(os.move_pages(plain, there.add(64), 2 * SUPERSLAB_BYTES));
    assert_eq!(advised(there, all), 2 * SUPERSLAB_BYTES, "pages without it have come");
    os.check_invariants();
}

#[test]
fn counters_are_read_without_waiting_for_whoever_holds_the_lock() {
    let os = os_with(never());
    let _run = os.take_run(3, 1).unwrap();
    assert_eq!(os.try_stats().map(|stats| stats.in_use_bytes), Some(3 * SLAB_BYTES));
    os.lock_for_fork();
    assert!(os.try_stats().is_none());
    assert_eq!(os.in_use_bytes(), 3 * SLAB_BYTES);
    // SAFETY: this thread took them above.
    unsafe { os.unlock_after_fork() };
    assert!(os.try_stats().is_some());
}

/// Whether the kernel can read the byte on this process's behalf; it says so instead of faulting.
fn is_readable(address: *const u8) -> bool {
    let mut ends = [0; 2];
    // SAFETY: fills the array it is given.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    // SAFETY: the kernel checks the address.
    let written = unsafe { libc::write(ends[1], address.cast(), 1) };
    for end in ends {
        // SAFETY: opened above and used no more.
        unsafe { libc::close(end) };
    }
    written == 1
}

#[test]
#[cfg_attr(miri, ignore = "the interpreter's memory is always accessible")]
fn protected_pages_cannot_be_touched_until_they_are_unprotected_and_keep_their_content() {
    let os = os_with(never());
    let run = os.take_run(1, 1).unwrap();
    bytes_at(&os, run.first, SLAB_BYTES).fill(7);
    assert!(os.protect(run.first, OS_PAGE_BYTES, 2 * OS_PAGE_BYTES));
    let readable = |page: usize| is_readable(os.address_of(run.first).wrapping_add(page * OS_PAGE_BYTES));
    assert_eq!([0, 1, 2, 3].map(readable), [true, false, false, true]);
    assert!(os.unprotect(run.first, OS_PAGE_BYTES, 2 * OS_PAGE_BYTES));
    assert!(bytes_at(&os, run.first, SLAB_BYTES).iter().all(|&byte| byte == 7));
}

#[test]
fn ranges_outside_the_committed_window_never_reach_the_kernel() {
    let os = os_with(never());
    let run = os.take_run(1, 1).unwrap();
    let committed_units = (os.stats().committed_bytes / SLAB_BYTES) as u32 + 32;
    assert!(!os.decommit(SlabIndex::new(committed_units), 0, 4096));
    assert!(!os.decommit(SlabIndex::new(0), 0, 4096), "superslab 0");
    assert!(!os.decommit(run.first, usize::MAX & !0xffff, 1 << 20));
    let stats = os.stats();
    assert_eq!((stats.outside_range, stats.madvise_calls), (3, 0));
}

#[test]
#[should_panic(expected = "outside the committed window")]
fn a_range_outside_aborts_on_request() {
    let os = os_with(OsPolicy { madvise_guard_abort: true, ..never() });
    let _never_returns = os.decommit(SlabIndex::new(4000), 0, 4096);
}

#[test]
fn large_heaps_get_huge_pages_before_the_first_touch() {
    let os = os_with(OsPolicy { thp_heap_bytes: 4 << 20, ..never() });
    for _ in 0..4 {
        assert!(os.take_run(32, 1).is_some());
    }
    let stats = os.stats();
    // Where the kernel lacks huge pages every advice fails.
    assert_eq!(stats.huge_advised_bytes / SUPERSLAB_BYTES as u64 + stats.madvise_failed, 2);
}

/// Not under Miri, which cannot tell what is in memory.
#[cfg(not(miri))]
#[test]
fn a_heap_of_which_little_is_touched_gets_no_huge_pages() {
    for (touched_bytes, gets_any) in [(4096, false), (SUPERSLAB_BYTES, true)] {
        let os = os_with(OsPolicy { thp_heap_bytes: 16 << 20, ..never() });
        for _ in 0..12 {
            let run = os.take_run(32, 1).unwrap();
            bytes_at(&os, run.first, touched_bytes).fill(1);
        }
        assert_eq!(os.stats().huge_advised_bytes > 0, gets_any, "{touched_bytes} bytes of each superslab touched");
    }
}

#[test]
fn a_superslab_that_was_touched_gets_no_huge_pages_when_the_heap_becomes_large() {
    let os = os_with(never());
    let (first, whole) = (os.take_run(1, 1).unwrap(), os.take_run(32, 1).unwrap());
    os.give_run(whole.first, 32);
    os.set_policy(OsPolicy { thp_heap_bytes: 0, ..never() });
    assert_eq!(os.take_run(32, 1).map(|run| (run.first, run.clean)), Some((whole.first, 0)));
    assert_eq!(os.take_run(1, 1).map(|run| run.first), Some(first.first.add(1)));
    assert_eq!((os.stats().madvise_calls, os.stats().warm_hits, os.stats().fresh_superslabs), (0, 1, 2));
    assert!(os.take_run(32, 1).is_some());
    assert_eq!((os.stats().madvise_calls, os.stats().warm_hits, os.stats().fresh_superslabs), (1, 1, 3));
}

#[test]
fn filled_superslabs_get_huge_pages_once() {
    let os = os_with(OsPolicy { thp_fill_units: 16, ..never() });
    for _ in 0..32 {
        assert!(os.take_run(1, 1).is_some());
    }
    assert_eq!(os.stats().madvise_calls, 1);
}

#[test]
#[cfg_attr(miri, ignore = "Miri's programs do not fork")]
fn the_arena_and_the_window_survive_a_fork_with_purges_in_flight() {
    let os = os_with(OsPolicy { purge_delay_ms: 0, warm_superslabs: 0, ..OsPolicy::default() });
    let arena = MetaArena::new();
    let stop = hakmem_atomic_ops::Flag::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.is_set_relaxed() {
                    let run = os.take_run(5, 1).unwrap();
                    bytes_at(&os, run.first, SLAB_BYTES).fill(3);
                    os.give_run(run.first, 5);
                }
            });
        }
        for _ in 0..50 {
            os.lock_for_fork();
            arena.lock_for_fork();
            // SAFETY: the child uses this box only, whose locks are held by this thread, and leaves with `_exit`.
            let child = unsafe { libc::fork() };
            // SAFETY: this thread, or the one that it is a copy of, took the locks above.
            unsafe { arena.unlock_after_fork() };
            // SAFETY: as above.
            unsafe { os.unlock_after_fork() };
            if child == 0 {
                let works = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    os.check_invariants();
                    os.purge_all();
                    let run = os.take_run(32, 1).is_some();
                    os.check_invariants();
                    let stats = os.stats();
                    let free = stats.committed_bytes - stats.in_use_bytes;
                    run && arena.allocate(64, 8).is_some() && free <= stats.committed_bytes
                }));
                // SAFETY: ends the child without running what the parent's threads left half done.
                unsafe { libc::_exit(i32::from(!works.unwrap_or(false))) };
            }
            let mut status = 0;
            // SAFETY: waits for the child just made.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!((waited, status), (child, 0));
        }
        stop.store_release(true);
    });
    os.check_invariants();
}

#[test]
fn threads_never_share_a_unit() {
    let os = os_with(OsPolicy { purge_delay_ms: 1, ..OsPolicy::default() });
    std::thread::scope(|scope| {
        for thread in 1..=4_u8 {
            let os = &os;
            scope.spawn(move || {
                let mut held = Vec::new();
                let mut random = u32::from(thread) * 7919;
                for _ in 0..if cfg!(miri) { 40 } else { 4000 } {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    if random >> 31 == 0 || held.len() > 40 {
                        if let Some((first, units)) = held.pop() {
                            let slice = bytes_at(os, first, units as usize * SLAB_BYTES);
                            assert!(slice.iter().step_by(4096).all(|&byte| byte == thread));
                            os.give_run(first, units);
                        }
                    } else if let Some(run) = os.take_run(1 + (random >> 20) % 6, 1) {
                        let units = 1 + (random >> 20) % 6;
                        let slice = bytes_at(os, run.first, units as usize * SLAB_BYTES);
                        for unit in 0..units as usize {
                            let is_zero =
                                slice[unit * SLAB_BYTES..][..SLAB_BYTES].iter().step_by(4096).all(|&byte| byte == 0);
                            assert!(is_zero || run.clean & (1 << unit) == 0, "reported clean");
                        }
                        slice.iter_mut().step_by(4096).for_each(|byte| *byte = thread);
                        held.push((run.first, units));
                    }
                }
            });
        }
    });
    os.check_invariants();
}

#[test]
fn what_idles_makes_way_for_an_extent_that_finds_no_place_in_it() {
    let os = os_with(OsPolicy { purge_delay_ms: 10_000, ..never() });
    let idle = os.take_run(31, 1).unwrap();
    let _held = os.take_run(1, 1).unwrap();
    os.give_run(idle.first, 31);
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(os.purge_due(), 0, "the delay is far from over");
    assert!(os.take_extent(2, 0, 1).is_some());
    assert_eq!((os.stats().purged_bytes, os.purgeable_bytes()), (31 * SLAB_BYTES as u64, 0));
}

#[test]
fn what_idles_makes_way_for_a_run_that_finds_no_place_in_it() {
    let os = os_with(OsPolicy { purge_delay_ms: 10_000, ..never() });
    let idle = os.take_run(8, 1).unwrap();
    let _held = os.take_run(24, 1).unwrap();
    os.give_run(idle.first, 8);
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(os.take_run(3, 1).unwrap().clean, 0, "it fits");
    assert_eq!(os.stats().purged_bytes, 0);
    assert_eq!(os.take_run(6, 1).unwrap().clean, 0x3f);
    assert_eq!((os.stats().purged_bytes, os.purgeable_bytes()), (5 * SLAB_BYTES as u64, 0));
}

#[test]
fn what_idles_makes_way_for_an_extent_that_grows_in_place_however_much_it_is() {
    let os = os_with(OsPolicy { purge_delay_ms: 10_000, ..never() });
    let scattered: Vec<_> = (0..40).map(|_| (os.take_run(31, 1).unwrap(), os.take_run(1, 1).unwrap())).collect();
    let extent = os.take_extent(1, 64, 1).unwrap();
    scattered.iter().for_each(|(idle, _held)| os.give_run(idle.first, 31));
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(os.grow_extent(extent.first, 1, 5), Some(true));
    assert_eq!(os.stats().purged_bytes, 5 * 31 * SLAB_BYTES as u64, "superslabs, until there is as much as the growth");
    assert_eq!(os.grow_extent(extent.first, 5, 65), Some(true));
    assert_eq!(os.purgeable_bytes(), 0, "more than fits one batch");
}

#[test]
fn units_are_cut_from_the_lowest_free_superslab_so_that_a_large_one_stays_whole() {
    let os = os_with(never());
    let extent = os.take_extent(40, 0, 1).unwrap();
    os.give_extent(extent.first, 40, Purge::Later);
    let run = os.take_run(3, 1).unwrap();
    assert_eq!((run.first.superslab(), run.clean), (extent.first.superslab(), 0), "not the superslab given back last");
    assert_ne!(run.first, extent.first, "a second free of the extent's block would free the run");
    let again = os.take_extent(39, 0, 1).unwrap();
    assert_eq!((again.first.superslab(), again.zeroed), (extent.first.superslab() + 1, false));
    os.give_extent(again.first, 39, Purge::Clean);
    os.give_run(run.first, 3);
    os.check_invariants();
}

#[test]
fn units_of_a_small_heap_do_not_get_the_huge_pages_that_a_large_block_left() {
    let os = os_with(OsPolicy { thp_fill_units: 0, thp_heap_bytes: 8 << 20, ..never() });
    let again = |os: &SuperslabOs| {
        let extent = os.take_extent(4, 0, 1).unwrap();
        assert!(os.advise_huge(extent.first, 4 << 21));
        os.give_extent(extent.first, 4, Purge::Later);
        os.stats().huge_advised_bytes
    };
    assert_eq!(again(&os), 4 << 21);
    assert_eq!(again(&os), 4 << 21, "the advice stays");
    let run = os.take_run(1, 1).unwrap();
    os.give_run(run.first, 1);
    assert_eq!(again(&os), 5 << 21, "but not where a unit was cut");
}

#[test]
fn no_change_is_stamped_earlier_than_the_one_before_it() {
    // Hunts: who has looked at the clock and waits for the lock, while another thread changes the same superslab.
    let os = os_with(never());
    let runs: Vec<_> = (0..20).map(|_| os.take_run(1, 1).unwrap().first).collect();
    os.watch(true);
    for pair in runs.chunks_exact(2) {
        let meeting = Barrier::new(2);
        os.lock_for_fork();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                meeting.wait();
                os.give_run(pair[0], 1);
            });
            meeting.wait();
            std::thread::sleep(std::time::Duration::from_millis(30));
            // SAFETY: this thread took them above.
            unsafe { os.unlock_after_fork() };
            os.give_run(pair[1], 1);
        });
    }
    let account = os.hindsight();
    let all_ms = account.elapsed_ms * u64::from(SLABS_PER_SUPERSLAB);
    let kept_ms = account.here.map(|flow| flow.kept_unit_ms);
    assert!(kept_ms.iter().all(|kept_ms| *kept_ms <= all_ms), "{kept_ms:?} of {all_ms}");
}

#[test]
fn in_a_full_window_units_are_had_wherever_there_are_as_many_in_a_row() {
    let os = os_with(never());
    let runs: Vec<_> = std::iter::from_fn(|| os.take_run(32, 1)).map(|run| run.first).collect();
    // Each but the first has as many units free as that one, and no two in a row.
    for (at, first) in runs.iter().enumerate() {
        for unit in (0..32).step_by(2) {
            let moved = u32::from(at == 0 && unit == 16);
            os.give_run(first.add(unit - moved), 1);
        }
    }
    assert_eq!(os.take_run(3, 1), None);
    assert_eq!(os.take_run(2, 1).map(|run| run.first), Some(runs[0].add(14)));
    assert_eq!(os.take_run(2, 1), None);
    os.check_invariants();
}

#[test]
fn room_stays_room_while_what_lies_in_it_is_purged() {
    let os = os_with(never());
    let before = os.take_extent(4, 0, 1).unwrap();
    os.give_extent(before.first, 4, Purge::Later);
    let extent = os.take_extent(1, 3, 1).unwrap();
    assert_eq!((extent.first, os.purge_all()), (before.first, 3 * SUPERSLAB_BYTES));
    assert_eq!(os.take_extent(1, 0, 1).map(|other| other.first), Some(extent.first.add(4 * SLABS_PER_SUPERSLAB)));
    assert_eq!(os.grow_extent(extent.first, 1, 4), Some(true));
    os.check_invariants();
}

/// Not under Miri, which cannot tell what is in memory.
#[cfg(not(miri))]
#[test]
fn a_heap_that_has_become_sparse_gets_small_pages_where_it_had_huge_ones() {
    let os = os_with(OsPolicy { thp_heap_bytes: 16 << 20, ..never() });
    let fill = |touched_bytes| {
        let runs = [(); 40].map(|()| {
            let run = os.take_run(32, 1).unwrap();
            bytes_at(&os, run.first, touched_bytes).fill(1);
            run.first
        });
        let resident = runs.map(|first| os.resident_permille(first, SUPERSLAB_BYTES).unwrap());
        runs.iter().for_each(|first| os.give_run(*first, 32));
        os.purge_all();
        resident
    };
    assert_eq!(fill(SUPERSLAB_BYTES), [1000; 40]);
    assert!(os.stats().huge_advised_bytes > 0);
    assert_eq!(fill(OS_PAGE_BYTES), [1; 40], "a page of each superslab");
    os.check_invariants();
}

#[test]
fn what_is_writable_grows_by_twice_as_much_each_time_and_at_least_by_what_policy_says() {
    let os = os_with(never());
    let committed = |os: &SuperslabOs| os.stats().committed_bytes / SUPERSLAB_BYTES;
    for taken in 1..=127_usize {
        assert!(os.take_run(32, 1).is_some());
        let rest = taken.saturating_sub(31).next_multiple_of(32);
        assert_eq!(committed(&os), (taken.min(31) + 1).next_power_of_two() - 1 + rest, "{taken} are taken");
    }
    let os = os_with(OsPolicy { prefill_superslabs: 20, ..never() });
    for expected in [20, 20] {
        assert!(os.take_run(32, 1).is_some());
        assert_eq!(committed(&os), expected);
    }
}

#[test]
fn the_peak_is_what_was_handed_out_at_one_time_at_most() {
    let os = os_with(never());
    let peak = || os.stats().in_use_peak_bytes;
    let run = os.take_run(8, 1).unwrap();
    os.give_run(run.first, 8);
    assert_eq!(peak(), 8 * SLAB_BYTES);
    let (run, extent) = (os.take_run(3, 1).unwrap(), os.take_extent(2, 0, 1).unwrap());
    assert_eq!(peak(), 2 * SUPERSLAB_BYTES + 3 * SLAB_BYTES);
    assert!(os.grow_run(run.first, 3, 4).is_some() && os.grow_extent(extent.first, 2, 3).is_some());
    os.give_extent(extent.first, 3, Purge::Later);
    assert_eq!((peak(), os.in_use_bytes()), (3 * SUPERSLAB_BYTES + 4 * SLAB_BYTES, 4 * SLAB_BYTES));
}

/// Not under Miri, whose memory cannot be locked.
#[cfg(not(miri))]
#[test]
fn an_os_page_that_the_program_has_locked_keeps_its_own_unit_and_no_other() {
    let bytes = 16 * SUPERSLAB_BYTES;
    for locked_unit in [0, 200, 511] {
        let os = os_with(never());
        let extent = os.take_extent(16, 0, 1).unwrap().first;
        bytes_at(&os, extent, bytes).fill(9);
        let page = os.address_of(extent.add(locked_unit)).cast::<libc::c_void>();
        // SAFETY: a page of memory that the test holds.
        if unsafe { libc::mlock(page, OS_PAGE_BYTES) } != 0 {
            return;
        }
        os.give_extent(extent, 16, Purge::Later);
        assert_eq!((os.purge_all(), os.purgeable_bytes()), (bytes - SLAB_BYTES, SLAB_BYTES));
        // Ten for the extent, and six for the superslab that is tried once more.
        let stats = os.stats();
        assert_eq!((stats.madvise_failed, stats.madvise_disabled), (16, 0), "no reason to stop purging");
        os.check_invariants();
        // SAFETY: as above.
        assert_eq!(unsafe { libc::munlock(page, OS_PAGE_BYTES) }, 0);
        assert_eq!((os.purge_all(), os.purgeable_bytes()), (SLAB_BYTES, 0));
        assert_eq!(os.take_extent(16, 0, 1).map(|extent| extent.zeroed), Some(true));
        assert!(bytes_at(&os, extent, bytes).iter().all(|byte| *byte == 0));
    }
}

#[test]
fn an_account_is_kept_of_what_shorter_delays_would_have_purged() {
    const SHORTEST: usize = 0;
    const LONGEST: usize = hakmem_base::DELAYS - 1;
    let os = os_with(never());
    let mut seen = os.hindsight();
    let mut news = |os: &SuperslabOs| {
        let now = os.hindsight();
        let news = now.since(&seen);
        seen = now;
        let sum = |flow: &hakmem_base::Flow| [flow.refaults, flow.firsts.iter().sum(), flow.openings.iter().sum()];
        (sum(&news.here[SHORTEST]), sum(&news.here[LONGEST]), sum(&news.unlearned))
    };
    // Longer than the shortest delay, shorter than the longest.
    let wait = || std::thread::sleep(std::time::Duration::from_millis(50));
    let first = os.take_run(4, 1).unwrap().first;
    os.give_run(first, 1);
    os.watch(true);
    wait();
    assert_eq!(os.take_run(1, 1).map(|run| run.first), Some(first));
    assert_eq!(news(&os), ([1, 0, 0], [0; 3], [0; 3]), "what was there before is known");
    let run = os.take_run(8, 1).unwrap();
    assert_eq!(news(&os), ([8, 0, 0], [0, 8, 0], [0, 8, 0]), "after a purge there are no huge pages in it");
    os.give_run(run.first, 8);
    wait();
    assert!(os.grow_run(first, 4, 6).is_some());
    assert_eq!(news(&os), ([2, 0, 0], [0; 3], [0; 3]));
    let extent = os.take_extent(2, 0, 1).unwrap();
    assert_eq!(news(&os), ([0; 3], [0; 3], [0; 3]), "the first time is nobody's");
    os.give_extent(extent.first, 2, Purge::Later);
    wait();
    let extent = os.take_extent_for(2, 0, 1, 33).unwrap();
    assert_eq!(news(&os), ([0, 33, 2], [0; 3], [0; 3]), "of two superslabs 33 units are used");
    os.give_extent(extent.first, 2, Purge::Clean);
    let extent = os.take_extent(1, 0, 1).unwrap();
    assert_eq!(news(&os), ([0, 32, 1], [0, 32, 1], [0, 32, 1]), "given back without its pages");
    assert!(os.grow_extent(extent.first, 1, 2).is_some());
    assert_eq!(news(&os), ([0, 32, 1], [0, 32, 1], [0, 32, 1]));
    os.shrink_extent(extent.first, 2, 1);
    wait();
    os.watch(false);
    let _unseen = os.take_extent(1, 0, 1).unwrap();
    assert_eq!(news(&os), ([0; 3], [0; 3], [0; 3]), "nobody watches");
    os.check_invariants();
}

#[cfg(not(miri))]
#[test]
fn a_superslab_of_which_half_is_left_after_a_purge_has_huge_pages_no_more() {
    let os = os_with(OsPolicy { thp_heap_bytes: 0, ..never() });
    let [half, more, none] = [(); 3].map(|()| os.take_run(32, 1).unwrap().first);
    let advised = |first| {
        let before = os.stats().huge_advised_bytes as usize;
        os.advise_huge(first, SUPERSLAB_BYTES);
        os.stats().huge_advised_bytes as usize - before
    };
    assert_eq!([half, more, none].map(advised), [0; 3], "they have huge pages");
    os.give_run(none, 32);
    assert_eq!(os.take_run(32, 1).map(|run| run.first), Some(none));
    assert_eq!(advised(none), 0, "they are still there");
    os.shrink_run(half, 32, 16);
    os.shrink_run(more, 32, 17);
    os.give_run(none, 32);
    os.purge_all();
    assert_eq!([half, more].map(advised), [SUPERSLAB_BYTES, 0]);
    let calls = os.stats().madvise_calls;
    assert_eq!(
        (os.take_run(32, 1).map(|run| run.first), os.stats().madvise_calls),
        (Some(none), calls),
        "nothing was left of it"
    );
    os.check_invariants();
}

#[test]
fn beside_a_big_block_a_small_heap_is_still_small() {
    let os = os_with(OsPolicy { thp_heap_bytes: 8 << 20, ..never() });
    let _big = os.take_extent(20, 0, 1).unwrap();
    for calls in [0, 0, 0, 0, 1] {
        let run = os.take_run(32, 1).unwrap();
        bytes_at(&os, run.first, SUPERSLAB_BYTES).fill(1);
        assert_eq!(os.stats().madvise_calls, calls);
    }
}

#[test]
fn what_has_just_come_does_not_make_way() {
    // A delay that what makes way has to wait for a part of, longer than this thread is held up on any machine.
    let os = os_with(OsPolicy { purge_delay_ms: 3_600_000, warm_superslabs: 0, ..OsPolicy::default() });
    let (young, held) = (os.take_run(31, 1).unwrap(), os.take_run(1, 1).unwrap());
    os.give_run(young.first, 31);
    let extent = os.take_extent(2, 0, 1).unwrap();
    assert_eq!(os.grow_extent(extent.first, 2, 3), Some(true));
    assert_eq!(os.take_run(32, 1).map(|run| run.clean), Some(u32::MAX));
    assert_eq!((os.purgeable_bytes(), os.stats().purges), (31 * SLAB_BYTES, 0));
    os.give_run(held.first, 1);
}

#[test]
fn an_extent_waits_for_as_long_as_policy_says_and_with_eager_free_not_at_all() {
    let waits = OsPolicy { purge_delay_ms: 60_000, warm_superslabs: 0, ..OsPolicy::default() };
    let os = os_with(waits);
    let extents = [(); 2].map(|()| os.take_extent(2, 0, 1).unwrap().first);
    os.give_extent(extents[0], 2, Purge::Later);
    assert_eq!((os.purge_due(), os.purgeable_bytes()), (0, 2 * SUPERSLAB_BYTES));
    os.set_policy(OsPolicy { eager_free: true, ..waits });
    os.give_extent(extents[1], 2, Purge::Later);
    assert_eq!(os.purgeable_bytes(), 2 * SUPERSLAB_BYTES, "what came before waits");
    os.check_invariants();
}

#[test]
fn what_is_due_goes_with_whatever_is_taken_or_given_next() {
    let os = os_with(never());
    let units: Vec<_> = (0..12).map(|_| os.take_run(1, 1).unwrap().first).collect();
    let [one, three] = [1, 3].map(|superslabs| os.take_extent(superslabs, 0, 1).unwrap().first);
    let mut waiting = units.chunks_exact(2);
    let mut all_goes_when = |what: &str, before: &dyn Fn(), act: &dyn Fn()| {
        os.set_policy(never());
        waiting.next().unwrap().iter().for_each(|unit| os.give_run(*unit, 1));
        before();
        os.set_policy(OsPolicy { purge_delay_ms: 0, warm_superslabs: 0, ..never() });
        act();
        assert_eq!(os.purgeable_bytes(), 0, "{what}");
        os.check_invariants();
    };
    all_goes_when("a run is taken", &|| (), &|| assert_eq!(os.take_run(1, 1).map(|run| run.clean), Some(0)));
    all_goes_when("a run is given", &|| (), &|| os.give_run(units[11], 1));
    let give_one = || os.give_extent(one, 1, Purge::Later);
    all_goes_when("an extent is taken", &give_one, &|| {
        assert_eq!(os.take_extent(1, 0, 1).map(|one| one.zeroed), Some(false))
    });
    all_goes_when("an extent is given", &|| (), &give_one);
    all_goes_when("an extent is cut", &|| (), &|| os.shrink_extent(three, 3, 1));
}

#[test]
fn the_account_knows_how_large_the_heap_was_and_what_made_way() {
    let os = os_with(never());
    os.watch(true);
    let takes = || [(); 3].map(|()| os.take_run(32, 1).unwrap().first);
    let gives = |firsts: [SlabIndex; 3]| firsts.iter().for_each(|first| os.give_run(*first, 32));
    let wait = || std::thread::sleep(std::time::Duration::from_millis(50));
    gives(takes());
    wait();
    let runs = takes();
    let shortest = os.hindsight().here[0];
    assert_eq!(shortest.openings[..2], [2, 1], "one of three was opened in a heap above 4 MiB");
    os.advise_huge(runs[0], SUPERSLAB_BYTES);
    gives(runs);
    wait();
    let _runs = takes();
    let shortest = os.hindsight().here[0];
    let huge = shortest.openings[usize::from(hakmem_superslab_os::ALWAYS_HUGE)];
    assert_eq!((&shortest.openings[..2], huge), (&[3, 2][..], 1), "one had huge pages");
    os.shrink_run(runs[0], 32, 8);
    // What would wait for ten seconds makes way for growth once it has idled for 156 ms.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let before = os.hindsight();
    assert!(os.take_extent(2, 0, 1).is_some());
    let news = os.hindsight().since(&before);
    assert_eq!((hakmem_base::DELAYS_MS[6], news.here[6].purged, news.unlearned.purged), (10_000, 24, 0));
}

#[test]
fn a_reading_brings_the_account_up_to_date_and_a_season_goes_on_beside_the_next() {
    const UNITS: u32 = 8;
    let os = os_with(never());
    let begin = std::time::Instant::now();
    let wait = || std::thread::sleep(std::time::Duration::from_millis(50));
    let run = os.take_run(UNITS + 1, 1).unwrap().first;
    let (give, take) = (|| os.give_run(run.add(1), UNITS), || os.take_run_again(UNITS, Some(run.add(1))).unwrap());
    os.watch(true);
    give();
    wait();
    let first = os.hindsight();
    assert_eq!(first.here[0].purged, 8, "nothing but time has passed");
    os.turn_season();
    let second = os.hindsight();
    // The clock is coarse.
    assert!(u128::from(second.elapsed_ms) <= begin.elapsed().as_millis() + 20, "each millisecond once");
    let _taken = take();
    let third = os.hindsight();
    let missed = third.since(&second).before.map(|flow| flow.refaults);
    assert_eq!((missed[0], missed[7]), (8, 0), "as it would be after a season of 10 ms and after one of a minute");
    give();
    os.set_policy(OsPolicy { purge_delay_ms: 10, ..never() });
    wait();
    let _taken = take();
    let news = os.hindsight().since(&third);
    assert_eq!(
        (news.before[7].refaults, news.unlearned.refaults),
        (8, 0),
        "10 ms are in force; the first delay was never"
    );
}

#[test]
fn what_grows_keeps_the_rest_of_its_room_and_to_the_memory_limit() {
    let os = os_with(OsPolicy { memory_limit_bytes: 3 * SUPERSLAB_BYTES + 30 * SLAB_BYTES, ..never() });
    let extent = os.take_extent(1, 3, 1).unwrap().first;
    assert_eq!(os.grow_extent(extent, 1, 2), Some(true));
    assert_eq!(os.take_extent(1, 0, 1).map(|other| other.first), Some(extent.add(4 * SLABS_PER_SUPERSLAB)));
    let run = os.take_run(30, 1).unwrap().first;
    assert_eq!((os.grow_run(run, 30, 31), os.stats().limit_refused), (None, 1));
    os.set_policy(never());
    assert_eq!((os.grow_run(run, 30, 30), os.grow_run(run, 30, 31)), (None, Some(1)));
    os.check_invariants();
}
