//! What happens when the kernel says no.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

mod common;

use common::{WINDOW, bytes_at, never, os_with};
use hakmem_base::{SLAB_BYTES, SUPERSLAB_BYTES};
use hakmem_superslab_os::{Call, FlatTable, MetaArena, OsPolicy, Purge, SuperslabOs, refuse_calls, refuse_nothing};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The plan is global: one test at a time, which begins and ends without one.
struct Alone(#[expect(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

impl Alone {
    fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        refuse_nothing();
        Self(guard)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        refuse_nothing();
    }
}

#[test]
fn refused_reservations_are_halved_and_counted() {
    let _alone = Alone::new();
    let os = SuperslabOs::new();
    refuse_calls(Call::Mmap, 0, 2);
    let window = os.reserve(WINDOW).unwrap();
    assert_eq!(window.slab_count as usize * SLAB_BYTES, 64 << 20);
    assert_eq!(os.stats().mmap_refused, 2);
}

#[test]
fn without_any_address_space_there_is_no_window_and_a_later_try_may_get_one() {
    let _alone = Alone::new();
    let os = SuperslabOs::new();
    refuse_calls(Call::Mmap, 0, 100);
    assert!(os.reserve(WINDOW).is_none() && os.take_run(1, 1).is_none());
    refuse_nothing();
    assert!(os.reserve(WINDOW).is_some() && os.take_run(1, 1).is_some());
}

#[test]
fn without_metadata_memory_the_window_shrinks_too() {
    let _alone = Alone::new();
    // The records and the free map.
    for pass in 1..=2 {
        let os = SuperslabOs::new();
        refuse_calls(Call::Mmap, pass, 1);
        let window = os.reserve(WINDOW).unwrap();
        assert_eq!(window.slab_count as usize * SLAB_BYTES, 128 << 20, "the table number {pass} was refused");
        assert!(os.take_run(1, 1).is_some());
        os.check_invariants();
    }
}

#[test]
fn a_refused_commit_is_retried_with_the_exact_need() {
    let _alone = Alone::new();
    let os = os_with(OsPolicy { prefill_superslabs: 8, ..never() });
    refuse_calls(Call::Mprotect, 0, 1);
    assert!(os.take_run(1, 1).is_some());
    let stats = os.stats();
    assert_eq!((stats.mprotect_refused, stats.committed_bytes), (1, SUPERSLAB_BYTES));
}

#[test]
fn where_no_more_can_be_committed_what_is_serves_without_room_to_spare() {
    let _alone = Alone::new();
    let os = os_with(OsPolicy { prefill_superslabs: 1, ..never() });
    let (hole, behind) = (os.take_extent(20, 0, 1).unwrap(), os.take_extent(1, 0, 1).unwrap());
    os.give_extent(hole.first, 20, Purge::Now);
    refuse_calls(Call::Mprotect, 0, 1000);
    // With room behind it there is a place only where nothing is committed.
    let extent = os.take_extent(15, 15, 1).unwrap();
    assert_eq!(extent.first, hole.first);
    assert!(os.take_extent(6, 0, 1).is_none());
    os.check_invariants();
    // What is left of the hole is the extent's room, and serves runs all the same.
    assert!(os.take_run(1, 1).is_some_and(|run| run.first < behind.first));
    os.check_invariants();
}

#[test]
fn hints_that_are_refused_do_not_stop_purges() {
    let _alone = Alone::new();
    let os = os_with(never());
    let extent = os.take_extent(40, 0, 1).unwrap();
    refuse_calls(Call::Madvise, 0, 20);
    for _ in 0..20 {
        assert!(!os.advise_huge(extent.first, SUPERSLAB_BYTES));
    }
    assert_eq!(os.stats().madvise_disabled, 0);
    os.give_extent(extent.first, 40, Purge::Now);
    assert_eq!(os.stats().purged_bytes, 40 * SUPERSLAB_BYTES as u64);
}

#[test]
fn a_take_that_cannot_commit_fails_and_changes_nothing() {
    let _alone = Alone::new();
    let os = os_with(OsPolicy { prefill_superslabs: 8, ..never() });
    refuse_calls(Call::Mprotect, 0, 8);
    assert!(os.take_run(1, 1).is_none());
    assert!(os.take_extent(3, 2, 1).is_none());
    os.check_invariants();
    let stats = os.stats();
    assert_eq!((stats.mprotect_refused, stats.committed_bytes, stats.in_use_bytes), (8, 0, 0));
    let extent = os.take_extent(1, 0, 1).unwrap();
    refuse_calls(Call::Mprotect, 0, 4);
    assert!(os.grow_extent(extent.first, 1, 100).is_none());
    os.check_invariants();
    refuse_nothing();
    assert_eq!(os.grow_extent(extent.first, 1, 100), Some(true));
}

/// Hunts: a thread that finds nothing, where no more can be committed, while another one purges all that is left.
#[test]
#[cfg_attr(miri, ignore = "hunts by repetition")]
fn who_finds_nothing_where_no_more_can_be_committed_waits_for_the_purger() {
    let _alone = Alone::new();
    let os = os_with(OsPolicy { prefill_superslabs: 1, ..never() });
    let both = os.take_extent(2, 0, 1).unwrap();
    os.give_extent(both.first, 2, Purge::Now);
    refuse_calls(Call::Mprotect, 0, u32::MAX);
    let use_once = |touched_bytes| {
        let run = os.take_run(32, 1).expect("there is one for each thread");
        bytes_at(&os, run.first, touched_bytes).fill(1);
        os.give_run(run.first, 32);
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            for _ in 0..20_000 {
                use_once(1);
                (0..2000).for_each(|_| std::hint::spin_loop());
            }
        });
        while !other.is_finished() {
            use_once(SUPERSLAB_BYTES);
            os.purge_all();
        }
    });
    os.check_invariants();
}

#[test]
fn a_refused_guard_says_so_and_the_memory_stays_usable() {
    let _alone = Alone::new();
    let os = os_with(never());
    let run = os.take_run(1, 1).unwrap();
    refuse_calls(Call::Mprotect, 0, 1);
    assert!(!os.protect(run.first, 0, SLAB_BYTES));
    bytes_at(&os, run.first, SLAB_BYTES).fill(1);
    assert!(os.protect(run.first, 0, SLAB_BYTES));
    refuse_calls(Call::Mprotect, 0, 1);
    assert!(!os.unprotect(run.first, 0, SLAB_BYTES));
    assert!(os.unprotect(run.first, 0, SLAB_BYTES));
    bytes_at(&os, run.first, SLAB_BYTES).fill(2);
}

#[test]
fn a_refused_purge_leaves_memory_dirty_and_is_tried_again() {
    let _alone = Alone::new();
    let os = os_with(OsPolicy { warm_superslabs: 0, ..never() });
    let run = os.take_run(32, 1).unwrap();
    bytes_at(&os, run.first, SUPERSLAB_BYTES).fill(1);
    os.shrink_run(run.first, 32, 31);
    refuse_calls(Call::Madvise, 0, 1);
    assert_eq!((os.purge_all(), os.purgeable_bytes()), (0, SLAB_BYTES));
    os.check_invariants();
    let unit = run.first.add(31);
    assert_eq!(os.take_run(1, 1).unwrap(), hakmem_superslab_os::Run { first: unit, clean: 0 });
    os.give_run(unit, 1);
    assert_eq!((os.purge_all(), os.purgeable_bytes()), (SLAB_BYTES, 0));
    assert_eq!(os.stats().madvise_enomem, 1);
}

#[test]
fn a_refused_purge_of_an_extent_keeps_it_dirty() {
    let _alone = Alone::new();
    let os = os_with(never());
    let extent = os.take_extent(2, 0, 1).unwrap();
    bytes_at(&os, extent.first, SUPERSLAB_BYTES).fill(1);
    refuse_calls(Call::Madvise, 0, 1);
    os.give_extent(extent.first, 2, Purge::Now);
    assert_eq!(os.purgeable_bytes(), 2 * SUPERSLAB_BYTES);
    assert_eq!(os.take_extent(2, 0, 1).map(|extent| extent.zeroed), Some(false));
}

#[test]
fn after_eight_refusals_in_a_row_madvise_pauses_and_everything_goes_on() {
    let _alone = Alone::new();
    let os = os_with(OsPolicy { purge_delay_ms: 0, warm_superslabs: 0, ..OsPolicy::default() });
    let extent = os.take_extent(1, 0, 1).unwrap();
    refuse_calls(Call::Madvise, 0, 100);
    for _ in 0..20 {
        let run = os.take_run(1, 1).unwrap();
        os.give_run(run.first, 1);
        os.check_invariants();
    }
    let stats = os.stats();
    assert_eq!((stats.madvise_enomem, stats.madvise_disabled, stats.madvise_calls), (8, 1, 8));
    assert_eq!(os.purgeable_bytes(), SLAB_BYTES);
    refuse_nothing();
    assert_eq!(os.purge_all(), 0, "paused");
    assert!(!os.advise_huge(extent.first, SUPERSLAB_BYTES), "hints pause, too");
    assert_eq!(os.stats().madvise_calls, 8);
    assert!(os.next_due_ms().is_some_and(|wait| (1..=10_000).contains(&wait)), "{:?}", os.next_due_ms());
}

#[test]
fn one_success_forgives_earlier_refusals() {
    let _alone = Alone::new();
    let os = os_with(OsPolicy { purge_delay_ms: 0, warm_superslabs: 0, ..OsPolicy::default() });
    for _ in 0..4 {
        refuse_calls(Call::Madvise, 0, 7);
        for _ in 0..8 {
            let run = os.take_run(1, 1).unwrap();
            os.give_run(run.first, 1);
        }
    }
    assert_eq!((os.stats().madvise_enomem, os.stats().madvise_disabled, os.purgeable_bytes()), (28, 0, 0));
}

#[test]
fn pages_that_cannot_be_moved_stay_where_they_are() {
    let _alone = Alone::new();
    // The first call probes, the second moves.
    for pass in 0..2 {
        let os = os_with(never());
        let (from, to) = (os.take_extent(1, 0, 1).unwrap(), os.take_extent(1, 0, 1).unwrap());
        bytes_at(&os, from.first, SUPERSLAB_BYTES).fill(1);
        bytes_at(&os, to.first, SUPERSLAB_BYTES).fill(2);
        refuse_calls(Call::Mremap, pass, 1);
        // A refused probe looks like one that found the source in one piece.
        let moved = os.move_pages(from.first, to.first, SUPERSLAB_BYTES);
        assert_eq!(moved, pass == 0);
        let (source, target) = if moved { (0, 1) } else { (1, 2) };
        assert!(bytes_at(&os, from.first, SUPERSLAB_BYTES).iter().all(|&byte| byte == source));
        assert!(bytes_at(&os, to.first, SUPERSLAB_BYTES).iter().all(|&byte| byte == target));
        assert_eq!(os.stats().move_refused, u64::from(!moved));
    }
}

#[test]
fn tables_and_arenas_report_a_refusal_and_work_afterwards() {
    let _alone = Alone::new();
    let arena = MetaArena::new();
    refuse_calls(Call::Mmap, 0, 2);
    assert!(FlatTable::<u64>::reserve(10).is_none());
    assert!(arena.allocate(8192, 8192).is_none());
    assert!(FlatTable::<u64>::reserve(10).is_some());
    assert!(arena.allocate(8192, 8192).is_some());
}

/// A little of everything; returns what it did not manage to give back.
fn exercise(os: &SuperslabOs) {
    let mut runs = Vec::new();
    let mut extents = Vec::new();
    for round in 0..40_u32 {
        if let Some(run) = os.take_run(1 + round % 7, 1) {
            runs.push((run.first, 1 + round % 7));
        }
        if round % 5 == 0
            && let Some(extent) = os.take_extent(1 + round % 3, 1, 1)
        {
            extents.push((extent.first, extent.superslabs));
        }
        if round % 3 == 0
            && let Some((first, units)) = runs.pop()
        {
            os.give_run(first, units);
        }
        if round % 10 == 9
            && let Some((first, superslabs)) = extents.pop()
        {
            os.give_extent(first, superslabs, if round % 20 == 9 { Purge::Now } else { Purge::Later });
        }
        os.check_invariants();
    }
    runs.into_iter().for_each(|(first, units)| os.give_run(first, units));
    extents.into_iter().for_each(|(first, superslabs)| os.give_extent(first, superslabs, Purge::Later));
}

#[test]
fn whichever_call_is_refused_nothing_is_lost() {
    let _alone = Alone::new();
    for call in [Call::Mprotect, Call::Madvise] {
        for pass in 0..25 {
            let os = os_with(OsPolicy { purge_delay_ms: 0, thp_heap_bytes: 1 << 20, ..OsPolicy::default() });
            refuse_calls(call, pass, 3);
            exercise(&os);
            os.check_invariants();
            refuse_nothing();
            os.purge_all();
            os.check_invariants();
            let stats = os.stats();
            assert_eq!((stats.in_use_bytes, stats.free_dirty_bytes), (0, 0), "{call:?} {pass}");
        }
    }
}
