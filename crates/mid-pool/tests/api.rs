//! The box through its public face.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use hakmem_atomic_ops::SharedPtr;
use hakmem_base::{OS_PAGE_BYTES, RUN_MAX_BYTES, SLAB_BYTES, SLABS_PER_SUPERSLAB, fatal};
use hakmem_mid_pool::{RunCache, RunFlow, RunPolicy, large_class, shared};
use hakmem_ownership::Route;
use support::{Heap, fill, is_filled};

const WINDOW: usize = 64 << 20;

fn heap() -> Heap {
    Heap::new(WINDOW, RunPolicy::DEFAULT)
}

fn free(heap: &Heap, cache: &RunCache, block: hakmem_mid_pool::Block) {
    let (index, units, bytes) = heap.claim(block).unwrap();
    cache.free(&heap.cx(), index, units, bytes);
}

fn allocate_again(cache: &RunCache, bytes: usize) -> Option<std::ptr::NonNull<u8>> {
    // SAFETY: each test has one heap, which lives longer than its cache is used.
    unsafe { cache.allocate_again(bytes) }
}

fn free_again(heap: &Heap, cache: &RunCache, block: hakmem_mid_pool::Block) -> bool {
    let address = block.ptr.addr().get();
    let index = heap.os.index_of(address).unwrap();
    cache.free_again(address, index, heap.routes.get(index.to_usize()).unwrap())
}

/// Blocks of these lengths (units), freed and asked for again until no fresh memory is needed: the cache has room for them.
fn take_wanted(heap: &Heap, cache: &RunCache, units: &[usize]) -> Vec<hakmem_mid_pool::Block> {
    let take = || -> Vec<_> {
        units.iter().map(|units| cache.allocate(&heap.cx(), units * SLAB_BYTES, 16).unwrap()).collect()
    };
    for _ in 0..2 {
        take().into_iter().for_each(|block| free(heap, cache, block));
    }
    take()
}

#[test]
fn a_run_is_kept_once_its_length_was_asked_for_again() {
    let (heap, cache) = (heap(), RunCache::new());
    let take = |units| cache.allocate(&heap.cx(), units * SLAB_BYTES, 16).unwrap();
    let free_all = |blocks: Vec<_>| blocks.into_iter().for_each(|block| free(&heap, &cache, block));
    let _first = take(1);
    free_all(vec![take(2), take(2), take(3)]);
    assert_eq!((cache.cached_bytes(), heap.os.stats().in_use_bytes), (0, SLAB_BYTES), "nobody has missed them yet");
    free_all(vec![take(2), take(1)]);
    assert_eq!(cache.cached_bytes(), 2 * SLAB_BYTES, "one unit was never missed");
    free_all(vec![take(2), take(2), take(2)]);
    assert_eq!(cache.cached_bytes(), 2 * 2 * SLAB_BYTES, "two were turned away in all");
    cache.check_invariants(&heap.cx());
}

#[test]
fn what_was_turned_away_before_a_trim_is_missed_no_more() {
    let (heap, cache) = (heap(), RunCache::new());
    let take = || cache.allocate(&heap.cx(), SLAB_BYTES, 16).unwrap();
    free(&heap, &cache, take());
    cache.trim(&heap.cx());
    free(&heap, &cache, take());
    assert_eq!(cache.cached_bytes(), 0);
    free(&heap, &cache, take());
    assert_eq!(cache.cached_bytes(), SLAB_BYTES);
}

#[test]
fn who_takes_the_cache_over_has_missed_nothing() {
    let (heap, cache) = (heap(), RunCache::new());
    let take = || cache.allocate(&heap.cx(), SLAB_BYTES, 16).unwrap();
    free(&heap, &cache, take());
    cache.flush(&heap.cx());
    free(&heap, &cache, take());
    assert_eq!(cache.cached_bytes(), 0);
}

#[test]
fn a_freed_run_is_the_next_one_of_its_size() {
    let (heap, cache) = (heap(), RunCache::new());
    let first = cache.allocate(&heap.cx(), 200_000, 16).unwrap();
    assert!(first.zeroed);
    free(&heap, &cache, first);
    let first = cache.allocate(&heap.cx(), 200_000, 16).unwrap();
    assert_eq!(heap.run_of(first), (heap.os.index_of(first.ptr.as_ptr().addr()).unwrap(), 4, 49 * OS_PAGE_BYTES));
    free(&heap, &cache, first);
    assert_eq!(cache.cached_bytes(), 4 * SLAB_BYTES);
    let second = cache.allocate(&heap.cx(), 230_000, 16).unwrap();
    assert_eq!(second.ptr, first.ptr);
    assert!(!second.zeroed);
    assert_eq!((cache.hits(), cache.misses(), cache.cached_bytes()), (1, 2, 0));
    assert_eq!(
        (cache.allocated_bytes(), cache.freed_bytes()),
        ((49 + 49 + 57) * OS_PAGE_BYTES as u64, (49 + 49) * OS_PAGE_BYTES as u64)
    );
    let of_class = large_class(4);
    for (class, flow) in cache.flow().into_iter().enumerate() {
        let expected = if class == of_class { RunFlow { requests: 3, hits: 1 } } else { RunFlow::default() };
        assert_eq!(flow, expected, "class {class}");
    }
    assert_eq!(heap.run_of(second).2, 57 * OS_PAGE_BYTES);
}

#[test]
fn a_run_that_is_taken_leaves_room_for_one_of_its_length() {
    let (heap, cache) = (heap(), RunCache::new());
    let blocks: Vec<_> = (0..3).map(|_| cache.allocate(&heap.cx(), 40_000, 16).unwrap()).collect();
    assert!(!free_again(&heap, &cache, blocks[0]), "nothing was missed");
    free(&heap, &cache, blocks[0]);
    free(&heap, &cache, blocks[1]);
    let again = [0, 1].map(|_| cache.allocate(&heap.cx(), 40_000, 16).unwrap());
    assert!(free_again(&heap, &cache, again[0]));
    assert!(free_again(&heap, &cache, again[1]));
    assert!(!free_again(&heap, &cache, blocks[2]), "two were missed");
    assert_eq!(allocate_again(&cache, 50_000), Some(again[1].ptr));
    assert_eq!(allocate_again(&cache, 60_000), Some(again[0].ptr));
    assert_eq!(allocate_again(&cache, 40_000), None);
    assert_eq!(allocate_again(&cache, 70_000), None, "other lengths are found by `allocate` only");
    assert!(free_again(&heap, &cache, blocks[2]), "two were taken");
    assert!(free_again(&heap, &cache, again[1]));
    assert!(!free_again(&heap, &cache, again[0]), "not three");
    assert_eq!(cache.cached_bytes(), 2 * SLAB_BYTES);
    free(&heap, &cache, again[0]);
    assert_eq!(cache.cached_bytes(), 2 * SLAB_BYTES);
    assert_eq!((cache.hits(), cache.misses()), (2, 5));
    cache.check_invariants(&heap.cx());
}

#[test]
fn after_a_look_at_the_bounds_nothing_comes_by_the_short_way() {
    let (heap, cache) = (heap(), RunCache::new());
    let blocks = take_wanted(&heap, &cache, &[1, 1]);
    free(&heap, &cache, blocks[0]);
    assert_eq!(allocate_again(&cache, SLAB_BYTES), Some(blocks[0].ptr));
    cache.fit(&heap.cx());
    assert!(!free_again(&heap, &cache, blocks[0]));
    assert_eq!(heap.run_of(blocks[0]).1, 1, "the block is as it was");
    cache.check_invariants(&heap.cx());
}

#[test]
fn a_cached_run_serves_smaller_requests_up_to_the_limit() {
    let (heap, cache) = (heap(), RunCache::new());
    let block = take_wanted(&heap, &cache, &[6])[0];
    free(&heap, &cache, block);
    let half = cache.allocate(&heap.cx(), 3 * SLAB_BYTES, 16).unwrap();
    assert_ne!(half.ptr, block.ptr, "1.5 times three units are less than six");
    let near = cache.allocate(&heap.cx(), 4 * SLAB_BYTES, 16).unwrap();
    assert_eq!(near.ptr, block.ptr);
    assert_eq!((heap.run_of(near).1, heap.run_of(near).2), (6, 4 * SLAB_BYTES));
}

#[test]
fn alignment_is_kept_by_fresh_and_cached_runs() {
    let (heap, cache) = (heap(), RunCache::new());
    let odd = cache.allocate(&heap.cx(), 40_000, 16).unwrap();
    for align in [1 << 16, 1 << 18, 1 << 21] {
        let block = cache.allocate(&heap.cx(), 100_000, align).unwrap();
        assert_eq!(block.ptr.as_ptr().addr() % align, 0);
        free(&heap, &cache, block);
        let again = cache.allocate(&heap.cx(), 100_000, align).unwrap();
        assert_eq!(again.ptr.as_ptr().addr() % align, 0);
    }
    free(&heap, &cache, odd);
    assert!(cache.allocate(&heap.cx(), 100_000, 1 << 22).is_none());
    assert!(cache.allocate(&heap.cx(), RUN_MAX_BYTES + 1, 16).is_none());
    assert!(cache.allocate(&heap.cx(), 0, 16).is_none());
}

#[test]
fn the_cache_keeps_within_every_bound_and_lets_the_oldest_go() {
    let policy = RunPolicy { cache_bytes: 8 << 16, cache_runs: 5, large_cap: [3, 5, 5, 5, 0], ..RunPolicy::DEFAULT };
    let (heap, cache) = (Heap::new(WINDOW, policy), RunCache::new());
    let wanted = |units: &[usize]| take_wanted(&heap, &cache, units);
    let free_all = |blocks: &[_]| {
        for &block in blocks {
            free(&heap, &cache, block);
            cache.check_invariants(&heap.cx());
        }
    };
    free_all(&wanted(&[1; 5]));
    assert_eq!(cache.cached_bytes(), 3 * SLAB_BYTES, "the cap of the class");
    free_all(&wanted(&[20]));
    assert_eq!(cache.cached_bytes(), 3 * SLAB_BYTES, "a class with cap 0 is not cached");
    let wide = wanted(&[3; 3]);
    free_all(&wide);
    assert_eq!(cache.cached_bytes(), 6 * SLAB_BYTES, "a third wide run is too many, and the small ones were older");
    let take = || cache.allocate(&heap.cx(), 3 * SLAB_BYTES, 16).unwrap();
    assert_eq!(take().ptr, wide[1].ptr);
    assert_eq!(take().ptr, wide[0].ptr);
    cache.flush(&heap.cx());
    assert_eq!(cache.cached_bytes(), 0);
    heap.os.check_invariants();
}

#[test]
fn a_run_that_fills_the_cache_is_kept_and_a_longer_one_is_not() {
    let policy = RunPolicy { cache_bytes: 4 << 16, cache_runs: 3, ..RunPolicy::DEFAULT };
    let (heap, cache) = (Heap::new(WINDOW, policy), RunCache::new());
    let wanted = |units: &[usize]| take_wanted(&heap, &cache, units);
    free(&heap, &cache, wanted(&[5])[0]);
    assert_eq!(cache.cached_bytes(), 0);
    free(&heap, &cache, wanted(&[4])[0]);
    assert_eq!(cache.cached_bytes(), 4 * SLAB_BYTES);
    for block in wanted(&[1; 5]) {
        free(&heap, &cache, block);
    }
    assert_eq!(cache.cached_bytes(), 3 * SLAB_BYTES, "not more runs than policy says");
    cache.check_invariants(&heap.cx());
}

#[test]
fn room_goes_before_a_run_does() {
    let policy = RunPolicy { cache_runs: 2, ..RunPolicy::DEFAULT };
    let (heap, cache) = (Heap::new(WINDOW, policy), RunCache::new());
    let narrow = take_wanted(&heap, &cache, &[1, 1]);
    let (taken, kept) = (narrow[0], narrow[1]);
    free(&heap, &cache, kept);
    free(&heap, &cache, taken);
    assert_eq!(allocate_again(&cache, SLAB_BYTES), Some(taken.ptr));
    free(&heap, &cache, take_wanted(&heap, &cache, &[2])[0]);
    assert_eq!(cache.cached_bytes(), 3 * SLAB_BYTES);
    assert_eq!(allocate_again(&cache, SLAB_BYTES), Some(kept.ptr));
    cache.check_invariants(&heap.cx());
}

#[test]
fn bounds_that_have_become_smaller_hold_for_what_is_kept_already() {
    let (mut heap, cache) = (heap(), RunCache::new());
    for block in take_wanted(&heap, &cache, &[4; 8]) {
        free(&heap, &cache, block);
    }
    assert_eq!(cache.cached_bytes(), 8 * 4 * SLAB_BYTES);
    let default = RunPolicy::DEFAULT;
    for (kept, policy) in [
        (8, default),
        (5, RunPolicy { cache_runs: 5, ..default }),
        (3, RunPolicy { large_cap: [16, 12, 3, 6, 4], ..default }),
        (2, RunPolicy { cache_bytes: 11 << 16, ..default }),
        (0, RunPolicy { cache_bytes: 3 << 16, ..default }),
    ] {
        heap.policy = policy;
        cache.fit(&heap.cx());
        assert_eq!(cache.cached_bytes(), kept * 4 * SLAB_BYTES, "{policy:?}");
        cache.check_invariants(&heap.cx());
    }
    assert_eq!(heap.os.stats().in_use_bytes, 0);
}

#[test]
fn pairs_that_never_look_at_the_bounds_keep_nothing_when_nothing_is_to_be_kept() {
    let (default, rounds) = (RunPolicy::DEFAULT, if cfg!(miri) { 20 } else { 3000 });
    for none in [
        RunPolicy { cache_bytes: 0, ..default },
        RunPolicy { cache_runs: 0, ..default },
        RunPolicy { large_cap: [0; 5], ..default },
    ] {
        let (mut heap, cache) = (heap(), RunCache::new());
        let pair = |heap: &Heap| {
            let ptr = allocate_again(&cache, 250_000);
            let block = ptr.map(|ptr| hakmem_mid_pool::Block { ptr, zeroed: false });
            let block = block.or_else(|| cache.allocate(&heap.cx(), 250_000, 16)).unwrap();
            if !free_again(heap, &cache, block) {
                free(heap, &cache, block);
            }
        };
        (0..4).for_each(|_| pair(&heap));
        assert_eq!(cache.cached_bytes(), 4 * SLAB_BYTES);
        heap.policy = none;
        cache.fit(&heap.cx());
        for _ in 0..rounds {
            pair(&heap);
            assert_eq!(cache.cached_bytes(), 0, "{none:?}");
        }
        cache.check_invariants(&heap.cx());
    }
}

#[test]
fn trim_lets_go_what_was_not_used_since_the_last_one() {
    let (heap, cache) = (heap(), RunCache::new());
    free(&heap, &cache, take_wanted(&heap, &cache, &[1])[0]);
    cache.trim(&heap.cx());
    assert_eq!(cache.cached_bytes(), SLAB_BYTES);
    free(&heap, &cache, take_wanted(&heap, &cache, &[2])[0]);
    cache.trim(&heap.cx());
    assert_eq!(cache.cached_bytes(), 2 * SLAB_BYTES);
    cache.trim(&heap.cx());
    assert_eq!(cache.cached_bytes(), 0);
    assert_eq!(heap.os.stats().in_use_bytes, 0);
}

#[test]
fn trim_leaves_what_came_by_the_short_way_since_the_last_one() {
    let (heap, cache) = (heap(), RunCache::new());
    let block = take_wanted(&heap, &cache, &[1])[0];
    free(&heap, &cache, block);
    cache.trim(&heap.cx());
    assert_eq!(allocate_again(&cache, SLAB_BYTES), Some(block.ptr));
    assert!(free_again(&heap, &cache, block));
    cache.trim(&heap.cx());
    assert_eq!(cache.cached_bytes(), SLAB_BYTES);
    cache.trim(&heap.cx());
    assert_eq!(cache.cached_bytes(), 0);
}

#[test]
fn every_request_is_counted_once_by_whichever_way_it_goes() {
    let (heap, cache) = (heap(), RunCache::new());
    let rounds = if cfg!(miri) { 20 } else { 3000 };
    let mut was_sent_on = 0;
    for round in 0..rounds {
        let again = allocate_again(&cache, 40_000).map(|ptr| hakmem_mid_pool::Block { ptr, zeroed: false });
        was_sent_on += u32::from(round > 1 && again.is_none());
        let block = again.or_else(|| cache.allocate(&heap.cx(), 40_000, 16)).unwrap();
        if !free_again(&heap, &cache, block) {
            free(&heap, &cache, block);
        }
    }
    assert!(cfg!(miri) || was_sent_on > 0, "the test needs some requests that were sent on");
    assert_eq!(cache.flow()[0], RunFlow { requests: rounds, hits: rounds - 2 });
    let bytes = rounds * 10 * OS_PAGE_BYTES as u64;
    assert_eq!((cache.allocated_bytes(), cache.freed_bytes()), (bytes, bytes));
}

#[test]
fn growth_lets_go_what_was_not_used_since_the_last_growth() {
    let (heap, cache) = (heap(), RunCache::new());
    let take = |units| cache.allocate(&heap.cx(), units * SLAB_BYTES, 16).unwrap();
    for block in take_wanted(&heap, &cache, &[2, 3]) {
        free(&heap, &cache, block);
    }
    assert_eq!(cache.cached_bytes(), 5 * SLAB_BYTES);
    for units in 4..7 {
        let _grown = take(units);
        free(&heap, &cache, take(3));
    }
    assert_eq!(cache.cached_bytes(), 3 * SLAB_BYTES);
    cache.check_invariants(&heap.cx());
}

#[test]
fn a_block_grows_into_free_units_and_into_a_cached_run_behind_it() {
    let (heap, cache) = (heap(), RunCache::new());
    let block = cache.allocate(&heap.cx(), 2 * SLAB_BYTES, 16).unwrap();
    let behind = cache.allocate(&heap.cx(), 3 * SLAB_BYTES, 16).unwrap();
    let (index, units, bytes) = heap.run_of(block);
    assert_eq!(heap.run_of(behind).0, index.add(2), "the test needs neighbours");
    fill(block, 0, bytes, 0x5a);
    assert!(!cache.resize_in_place(&heap.cx(), index, units, 4 * SLAB_BYTES));
    assert_eq!(heap.run_of(block), (index, units, bytes));
    free(&heap, &cache, behind);
    assert!(cache.resize_in_place(&heap.cx(), index, units, 4 * SLAB_BYTES + 1));
    assert_eq!(heap.run_of(block), (index, 5, 4 * SLAB_BYTES + OS_PAGE_BYTES));
    assert_eq!(cache.cached_bytes(), 0);
    assert!(is_filled(block, bytes, 0x5a));
    assert!(cache.resize_in_place(&heap.cx(), index, 5, 32 * SLAB_BYTES) == (index.slot() == 0));
    assert!(!cache.resize_in_place(&heap.cx(), index, heap.run_of(block).1, RUN_MAX_BYTES + 1));
    heap.os.check_invariants();
}

#[test]
fn a_block_grows_over_a_cached_run_up_to_the_end_of_its_superslab() {
    let (heap, cache) = (heap(), RunCache::new());
    let block = cache.allocate(&heap.cx(), SLAB_BYTES, 16).unwrap();
    let (index, ..) = heap.run_of(block);
    let rest = SLABS_PER_SUPERSLAB - index.slot();
    let behind = cache.allocate(&heap.cx(), (rest as usize - 1) * SLAB_BYTES, 16).unwrap();
    assert_eq!(heap.run_of(behind).0, index.add(1), "the test needs neighbours");
    free(&heap, &cache, behind);
    assert!(!cache.resize_in_place(&heap.cx(), index, 1, (rest as usize + 1) * SLAB_BYTES));
    assert!(cache.resize_in_place(&heap.cx(), index, 1, rest as usize * SLAB_BYTES));
    assert_eq!(heap.run_of(block), (index, rest, rest as usize * SLAB_BYTES));
    assert_eq!((cache.cached_bytes(), heap.os.stats().in_use_bytes), (0, rest as usize * SLAB_BYTES));
    heap.os.check_invariants();
}

#[test]
fn a_shrunk_block_gives_units_back_when_it_is_worth_it() {
    let (heap, cache) = (heap(), RunCache::new());
    let block = cache.allocate(&heap.cx(), 16 * SLAB_BYTES, 16).unwrap();
    let (index, ..) = heap.run_of(block);
    assert!(cache.resize_in_place(&heap.cx(), index, 16, 15 * SLAB_BYTES));
    assert_eq!(heap.run_of(block), (index, 16, 15 * SLAB_BYTES));
    assert!(cache.resize_in_place(&heap.cx(), index, 16, 12 * SLAB_BYTES));
    assert_eq!(heap.run_of(block), (index, 12, 12 * SLAB_BYTES));
    assert_eq!(heap.os.stats().in_use_bytes, 12 * SLAB_BYTES);
    free(&heap, &cache, block);
    assert_eq!(cache.allocated_bytes(), cache.freed_bytes());
}

#[test]
fn misses_of_one_size_are_served_in_bundles_of_clean_runs() {
    let policy = RunPolicy { bundle_runs: 4, ..RunPolicy::DEFAULT };
    let (heap, cache) = (Heap::new(WINDOW, policy), RunCache::new());
    let blocks: Vec<_> = (0..9).map(|_| cache.allocate(&heap.cx(), 100_000, 16).unwrap()).collect();
    assert_eq!((cache.misses(), cache.hits(), cache.bundles()), (3, 6, 2));
    for (mark, &block) in blocks.iter().enumerate() {
        assert!(block.zeroed && is_filled(block, 100_000, 0));
        fill(block, 0, 100_000, mark as u8 + 1);
    }
    for (mark, &block) in blocks.iter().enumerate() {
        assert!(is_filled(block, 100_000, mark as u8 + 1));
        free(&heap, &cache, block);
    }
    cache.flush(&heap.cx());
    heap.os.check_invariants();
    assert_eq!(heap.os.stats().in_use_bytes, 0);
}

#[test]
fn a_bundle_follows_a_second_miss_of_one_length_and_never_one_of_another() {
    let policy = RunPolicy { bundle_runs: 2, ..RunPolicy::DEFAULT };
    let (heap, cache) = (Heap::new(WINDOW, policy), RunCache::new());
    for units in [1, 2, 3, 1, 2, 3] {
        cache.allocate(&heap.cx(), units * SLAB_BYTES, 16).unwrap();
        assert_eq!((cache.bundles(), cache.cached_bytes()), (0, 0));
    }
    cache.allocate(&heap.cx(), 3 * SLAB_BYTES, 16).unwrap();
    assert_eq!((cache.bundles(), cache.cached_bytes()), (1, 3 * SLAB_BYTES));
    for _ in 0..3 {
        cache.allocate(&heap.cx(), 5 * SLAB_BYTES, 16).unwrap();
    }
    assert_eq!(cache.bundles(), 1, "longer runs come one by one");
}

#[test]
fn a_bundle_is_no_longer_than_a_superslab() {
    let policy =
        RunPolicy { cache_bytes: 64 << 20, cache_runs: 64, bundle_runs: 64, large_cap: [64; 5], ..RunPolicy::DEFAULT };
    let (heap, cache) = (Heap::new(WINDOW, policy), RunCache::new());
    for _ in 0..2 {
        cache.allocate(&heap.cx(), 4 * SLAB_BYTES, 16).unwrap();
    }
    assert_eq!((cache.bundles(), cache.cached_bytes()), (1, 7 * 4 * SLAB_BYTES));
    cache.check_invariants(&heap.cx());
}

#[test]
fn what_asks_for_an_alignment_gets_it_however_often_it_misses() {
    let policy = RunPolicy { bundle_runs: 4, ..RunPolicy::DEFAULT };
    let (heap, cache) = (Heap::new(WINDOW, policy), RunCache::new());
    for _ in 0..6 {
        let block = cache.allocate(&heap.cx(), SLAB_BYTES, 4 * SLAB_BYTES).unwrap();
        assert!(block.ptr.as_ptr().addr().is_multiple_of(4 * SLAB_BYTES));
    }
    assert_eq!((cache.bundles(), cache.cached_bytes()), (0, 0));
}

#[test]
fn a_block_freed_twice_is_claimed_once() {
    let (heap, cache) = (heap(), RunCache::new());
    let block = cache.allocate(&heap.cx(), 70_000, 16).unwrap();
    let shared = SharedPtr::new(block.ptr.as_ptr());
    let wins = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..4).map(|_| scope.spawn(|| heap.claim(block_of(&shared)))).collect();
        tries.into_iter().filter_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(wins.len(), 1);
    let (index, units, bytes) = wins[0];
    cache.free(&heap.cx(), index, units, bytes);
    assert_eq!(heap.routes.get(index.to_usize()).unwrap().route(), Route::Unused);
    assert_eq!(heap.claim(block), None, "a cached run is nobody's block");
}

/// A block that came from another test thread.
fn block_of(shared: &SharedPtr<u8>) -> hakmem_mid_pool::Block {
    let ptr = std::ptr::NonNull::new(shared.load_relaxed()).unwrap();
    hakmem_mid_pool::Block { ptr, zeroed: false }
}

/// Hunts: a run that two threads hold at once, because a free by a stranger and a reuse overlap.
#[test]
fn blocks_freed_by_strangers_come_back_whole() {
    const THREADS: usize = if cfg!(miri) { 2 } else { 4 };
    const STEPS: u64 = if cfg!(miri) { 20 } else { 2000 };
    let heap = Heap::new(256 << 20, RunPolicy { bundle_runs: 3, ..RunPolicy::DEFAULT });
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..THREADS).map(|_| std::sync::mpsc::sync_channel::<(SharedPtr<u8>, usize, u8)>(8)).unzip();
    std::thread::scope(|scope| {
        for (number, receiver) in receivers.into_iter().enumerate() {
            let next = senders[(number + 1) % THREADS].clone();
            let heap = &heap;
            scope.spawn(move || {
                let cache = RunCache::new();
                let mut random = 0x9e37_u64 + number as u64;
                let take_in = |(shared, bytes, mark): (SharedPtr<u8>, usize, u8)| {
                    let block = block_of(&shared);
                    assert!(is_filled(block, bytes, mark), "a block changed under its holder");
                    free(heap, &cache, block);
                };
                for step in 0..STEPS {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step | 1);
                    let bytes = 32_769 + (random >> 33) as usize % 400_000;
                    let block = cache.allocate(&heap.cx(), bytes, 16).unwrap();
                    assert!(!block.zeroed || is_filled(block, bytes, 0));
                    let mark = number as u8 + 1 + (step % 50) as u8 * 4;
                    fill(block, 0, bytes, mark);
                    let mut parcel = (SharedPtr::new(block.ptr.as_ptr()), bytes, mark);
                    while let Err(std::sync::mpsc::TrySendError::Full(back)) = next.try_send(parcel) {
                        parcel = back;
                        receiver.try_iter().for_each(take_in);
                        std::thread::yield_now();
                    }
                }
                drop(next);
                receiver.iter().for_each(take_in);
                cache.check_invariants(&heap.cx());
                cache.flush(&heap.cx());
            });
        }
        drop(senders);
    });
    heap.os.check_invariants();
    assert_eq!(heap.os.stats().in_use_bytes, 0);
}

#[test]
fn a_thread_without_a_cache_uses_the_shared_functions() {
    let heap = heap();
    let block = shared::allocate(&heap.cx(), 300_000, 1 << 17).unwrap();
    assert!(block.zeroed && block.ptr.as_ptr().addr().is_multiple_of(1 << 17));
    let (index, units, _) = heap.run_of(block);
    let resized = shared::resize_in_place(&heap.cx(), index, units, 100_000).unwrap();
    assert_eq!((resized.old_bytes, resized.new_bytes), (74 * OS_PAGE_BYTES, 25 * OS_PAGE_BYTES));
    let (index, units, _) = heap.claim(block).unwrap();
    shared::free(&heap.cx(), index, units);
    assert_eq!(heap.os.stats().in_use_bytes, 0);
}

#[test]
fn a_full_window_gives_none_and_the_cache_is_emptied_for_the_last_block() {
    let heap = Heap::new(32 << 20, RunPolicy { cache_bytes: 16 << 20, ..RunPolicy::DEFAULT });
    let cache = RunCache::new();
    let mut blocks = Vec::new();
    while let Some(block) = cache.allocate(&heap.cx(), RUN_MAX_BYTES, 16) {
        blocks.push(block);
        assert!(blocks.len() < 32, "more blocks than the window has place for");
    }
    assert!(!blocks.is_empty());
    for block in blocks.drain(..2) {
        free(&heap, &cache, block);
    }
    for block in take_wanted(&heap, &cache, &[17, 17]) {
        free(&heap, &cache, block);
    }
    assert_eq!(cache.cached_bytes(), 2 * 17 * SLAB_BYTES);
    blocks.push(
        cache.allocate(&heap.cx(), RUN_MAX_BYTES, 16).unwrap_or_else(|| fatal("cached runs were not given back")),
    );
    assert_eq!(cache.cached_bytes(), 0);
    blocks.push(cache.allocate(&heap.cx(), RUN_MAX_BYTES, 16).unwrap());
    for block in blocks {
        free(&heap, &cache, block);
    }
    cache.flush(&heap.cx());
    heap.os.check_invariants();
}

#[test]
fn the_first_run_of_all_may_come_by_the_short_way() {
    let (heap, cache) = (heap(), RunCache::new());
    let dirty = heap.os.take_run(8, 1).unwrap();
    heap.os.give_run(dirty.first, 8);
    free(&heap, &cache, cache.allocate(&heap.cx(), SLAB_BYTES, 16).unwrap());
    let block = cache.allocate(&heap.cx(), SLAB_BYTES, 16).unwrap();
    assert!(free_again(&heap, &cache, block));
    assert_eq!(
        heap.routes.get(heap.os.index_of(block.ptr.addr().get()).unwrap().to_usize()).unwrap().route(),
        Route::Unused
    );
    assert_eq!(allocate_again(&cache, SLAB_BYTES), Some(block.ptr));
    cache.check_invariants(&heap.cx());
}
