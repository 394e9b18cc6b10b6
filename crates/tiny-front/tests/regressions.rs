//! Bugs that were found, each with the test that would have seen it.

#![allow(clippy::unwrap_used, reason = "test helpers: a panic is the test's failure")]

mod common;

use common::{give, new_front, new_heap, take, try_take};
use hakmem_atomic_ops::SharedPtr;
use hakmem_base::{BinPlace, SizeClass};
use hakmem_ownership::Route;
use hakmem_publish_adopt::SlabWords;
use hakmem_remote_queue::TokenReleased;
use hakmem_superslab_os::OsPolicy;
use hakmem_tiny_front::FrontPolicy;
use std::ptr::NonNull;

fn class(bytes: usize) -> SizeClass {
    SizeClass::for_bytes(bytes).unwrap()
}

#[test]
fn reap_finds_empty_orphans_below_one_that_is_in_use() {
    let front = new_front(256 << 20);
    let heap = new_heap(front, FrontPolicy::DEFAULT);
    let mut blocks: Vec<_> = (0..64 * 4).map(|_| take(front, heap, class(1024))).collect();
    front.leave(heap);
    assert_eq!(front.orphans().0, 4);
    blocks.sort();
    // All blocks of three slabs come back, and one of the last.
    for block in blocks.drain(..64 * 3 + 1) {
        give(front, None, block);
    }
    front.collect(new_heap(front, FrontPolicy::DEFAULT));
    assert_eq!(front.orphans().0, 1, "entirely free orphans were not given back");
}

#[test]
fn the_few_blocks_left_of_many_orphans_free_them_all() {
    let front = new_front(256 << 20);
    let heap = new_heap(front, FrontPolicy::DEFAULT);
    let mut blocks: Vec<_> = (0..64 * 200).map(|_| take(front, heap, class(1024))).collect();
    blocks.sort();
    // One block of each slab outlives the thread.
    for index in (0..blocks.len()).filter(|index| index % 64 != 0) {
        give(front, Some(heap), blocks[index]);
    }
    front.leave(heap);
    assert_eq!(front.orphans().0, 200);
    for block in blocks.iter().step_by(64) {
        give(front, None, *block);
    }
    assert!(front.orphans().0 < 100, "{} slabs of which nothing is in use stay behind", front.orphans().0);
}

#[test]
fn a_refill_of_a_cache_that_a_nested_allocation_has_filled_loses_nothing() {
    let front = new_front(256 << 20);
    let heap = new_heap(front, FrontPolicy::DEFAULT);
    let nested = front.refill_slow(heap, class(256)).unwrap();
    let outer = front.refill_slow(heap, class(256)).unwrap();
    give(front, Some(heap), nested);
    give(front, Some(heap), outer);
    front.leave(heap);
    assert_eq!(front.orphans().0, 0, "a slab stays behind although every block was freed");
}

#[test]
fn a_borrowed_block_is_aligned_like_its_class() {
    let front = new_front(256 << 20);
    let heap = new_heap(front, FrontPolicy::DEFAULT);
    let mut larger: Vec<_> = (0..6).map(|_| take(front, heap, class(4608))).collect();
    for block in larger.drain(..) {
        give(front, Some(heap), block);
    }
    front.os.set_policy(OsPolicy { memory_limit_bytes: 1, ..OsPolicy::new() });
    while let Some(block) = try_take(front, heap, class(4096)) {
        assert_eq!(block.addr().get() % 4096, 0);
    }
}

#[test]
fn an_owner_may_leave_while_its_last_block_comes_back_and_is_reaped() {
    // Hunts: the slab becomes an orphan, a stranger empties and reaps it, and only then the owner takes its token.
    let front = new_front(256 << 20);
    for _ in 0..if cfg!(miri) { 4 } else { 200 } {
        let heap = new_heap(front, FrontPolicy::DEFAULT);
        let mut blocks: Vec<_> = (0..40).map(|_| take(front, heap, class(1024))).collect();
        let last = SharedPtr::new(blocks.pop().unwrap().as_ptr());
        for block in blocks {
            give(front, Some(heap), block);
        }
        let leaver = SharedPtr::new(std::ptr::from_ref(heap).cast_mut());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mine = new_heap(front, FrontPolicy::DEFAULT);
                let last = NonNull::new(last.load_relaxed()).unwrap();
                while !matches!(front.route_of(last.addr().get()).unwrap().route(), Route::Orphan(_)) {
                    std::hint::spin_loop();
                }
                give(front, Some(mine), last);
                front.collect(mine);
            });
            scope.spawn(move || {
                // SAFETY: heaps of this test live for ever, and only this thread uses this one from here on.
                front.leave(unsafe { &*leaver.load_relaxed() });
            });
        });
    }
}

#[test]
fn a_slab_that_an_idle_class_only_caches_serves_another_class_before_memory_grows() {
    let front = new_front(256 << 20);
    let heap = new_heap(front, FrontPolicy::DEFAULT);
    let blocks: Vec<_> = (0..64).map(|_| take(front, heap, class(1024))).collect();
    for block in blocks {
        give(front, Some(heap), block);
    }
    let held = |class_bytes| (take(front, heap, class(class_bytes)), front.os.stats().in_use_bytes >> 16);
    assert_eq!(held(512).1, 2, "the class of 1024 bytes has just been busy");
    assert_eq!(held(256).1, 2, "its slab serves now");
    assert_eq!(front.os.stats().in_use_peak_bytes >> 16, 2);
}

#[test]
fn a_slab_that_cannot_go_yet_is_counted_once() {
    let front = new_front(256 << 20);
    let heap = new_heap(front, FrontPolicy { cache_blocks: 8, cache_growth: false, ..FrontPolicy::DEFAULT });
    let blocks: Vec<_> = (0..64).map(|_| take(front, heap, class(1024))).collect();
    let slab = front.index_of(blocks[0].addr().get()).unwrap();
    for block in blocks {
        give(front, Some(heap), block);
    }
    let report = front.class_report(heap, class(1024));
    assert_eq!((report.slabs, report.partial_slabs, report.cached), (1, 1, report.delivered), "the test needs this");
    let remote = front.tables().unwrap().remote(slab);
    assert!(remote.try_take_token());
    front.collect(heap);
    front.check_invariants(heap);
    assert_eq!((heap.counters.guarded_slabs.get(), heap.counters.retired_slabs.get()), (1, 0));
    assert_eq!(remote.release_token(), TokenReleased::Released);
    front.collect(heap);
    assert_eq!((heap.counters.guarded_slabs.get(), heap.counters.retired_slabs.get()), (1, 1));
}

#[test]
fn slabs_do_not_wander_between_classes_that_take_turns() {
    let front = new_front(256 << 20);
    let heap = new_heap(front, FrontPolicy::DEFAULT);
    // Each class is idle between its turns, and a look at that moment finds its slab unused.
    let turns = if cfg!(miri) { 400 } else { 20_000 };
    for turn in 0..turns {
        let block = take(front, heap, class(16 + turn * 7919 % 63 * 16));
        give(front, Some(heap), block);
    }
    let fresh = heap.counters.fresh_slabs.get();
    assert!(fresh < 200, "{fresh} slabs were taken for 32 classes with one block each");
}

#[test]
fn a_class_that_is_freed_in_long_runs_caches_little_until_it_is_used_otherwise() {
    // What such a class caches has to be given back at the end of each run, block by block, when it is cold.
    let front = new_front(256 << 20);
    let heap = new_heap(front, FrontPolicy::DEFAULT);
    let first = FrontPolicy::DEFAULT.initial_cap(class(64));
    let turn = |count: usize| {
        let blocks: Vec<_> = (0..count).map(|_| take(front, heap, class(64))).collect();
        let cap = front.class_report(heap, class(64)).cap;
        for block in blocks {
            give(front, Some(heap), block);
        }
        cap
    };
    let long = usize::from(FrontPolicy::DEFAULT.max_cap(class(64))) * 6;
    assert_eq!(turn(long), u32::from(first));
    for _ in 0..3 {
        assert!(turn(long) < u32::from(first) / 8, "the cap is back at its first value after a long run");
        front.check_invariants(heap);
    }
    // A shorter run, which a cache would have held a good part of.
    let caps = [(); 4].map(|()| turn(long / 4));
    assert_eq!(caps[3], u32::from(first), "the cap stays small although a larger cache would serve: {caps:?}");
}

#[test]
fn spills_are_counted_though_the_fast_path_does_not_count_them() {
    let front = new_front(256 << 20);
    // Without free runs, after which cached blocks go back that are no spills.
    let heap = new_heap(front, FrontPolicy { cache_growth: false, ..FrontPolicy::DEFAULT });
    let blocks: Vec<_> = (0..3000).map(|_| take(front, heap, class(64))).collect();
    let left_over = front.class_report(heap, class(64)).cached;
    for block in blocks.into_iter().rev() {
        give(front, Some(heap), block);
        if front.class_report(heap, class(64)).delivered.is_multiple_of(97) {
            front.check_invariants(heap);
        }
    }
    front.check_invariants(heap);
    let cached = front.class_report(heap, class(64)).cached;
    // The counter is brought up to date by the next refill.
    for _ in 0..=cached {
        take(front, heap, class(64));
    }
    assert_eq!(heap.counters.spills.get(), 3000 - u64::from(cached - left_over));
}

#[test]
fn blocks_without_room_for_a_mark_spill_on_the_short_way_too() {
    let front = new_front(256 << 20);
    for bytes in [8, 16] {
        let heap = new_heap(front, FrontPolicy { cache_growth: false, ..FrontPolicy::DEFAULT });
        let blocks: Vec<_> = (0..5000).map(|_| take(front, heap, class(bytes))).collect();
        let (mut short, mut long) = (0, 0);
        for block in blocks.into_iter().rev() {
            // SAFETY: the block is freed once, by its holder.
            if unsafe { heap.push(heap.bin(class(bytes)), block) } {
                continue;
            }
            // SAFETY: push had no room.
            if unsafe {
                front.spill(heap, BinPlace::of_class(class(bytes)), heap.unit_of(block.addr().get()), block, false)
            } {
                short += 1;
            } else {
                // SAFETY: the spill left the block to this.
                let _emptied = unsafe { front.spill_slow(heap, heap.bin(class(bytes)), class(bytes), block) };
                long += 1;
            }
        }
        front.check_invariants(heap);
        assert!(short > 20 * long, "of blocks of {bytes} bytes {long} of {} took the long way", short + long);
    }
}

#[test]
fn a_heap_that_follows_another_one_finds_its_slabs_where_those_were() {
    // Threads that come and go allocate their classes in any order: slabs that changed classes each time would all be touched to
    // their ends after a few threads.
    let front = new_front(256 << 20);
    let sizes = [64, 128, 256, 512, 1024];
    let life = |sizes: &[usize]| {
        let heap = new_heap(front, FrontPolicy::DEFAULT);
        let blocks: Vec<_> = sizes.iter().map(|&bytes| take(front, heap, class(bytes))).collect();
        let mut places: Vec<_> = sizes.iter().zip(&blocks).map(|(&bytes, block)| (bytes, *block)).collect();
        for block in blocks {
            give(front, Some(heap), block);
        }
        front.leave(heap);
        places.sort();
        places
    };
    let before = life(&sizes);
    let backwards: Vec<_> = sizes.iter().rev().copied().collect();
    assert_eq!(life(&backwards), before);
}
