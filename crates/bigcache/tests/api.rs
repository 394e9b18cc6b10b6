//! The box through its public face.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use hakmem_atomic_ops::{Flag, SharedPtr};
use hakmem_base::SUPERSLAB_BYTES;
use hakmem_bigcache::{BigCache, BigHint, BigPolicy, Block, HintedPages};
use std::sync::Barrier;
use support::{Heap, Place, address_of, fill, is_filled};

const MIB: usize = 1 << 20;

fn heap() -> Heap {
    let policy = BigPolicy { thp_bytes: usize::MAX, retain_ms: 60_000, slack_permille: 125, ..BigPolicy::DEFAULT };
    Heap::new(1 << 30, policy)
}

fn take(heap: &Heap, cache: &BigCache, bytes: usize) -> Block {
    cache.allocate(&heap.cx(), bytes, 16, false).unwrap()
}

#[test]
fn a_freed_block_is_kept_and_serves_the_next_of_its_size() {
    let (heap, cache) = (heap(), BigCache::new());
    let block = take(&heap, &cache, 5 * MIB + 1);
    assert!(block.zeroed);
    assert_eq!(heap.bytes_of(&cache, block), 5 * MIB + 4096);
    fill(block, 0, 5 * MIB, 7);
    assert!(heap.free(&cache, address_of(block)));
    assert!(!heap.free(&cache, address_of(block)), "a kept extent is nobody's block");
    assert_eq!(cache.cached_bytes(), 5 * MIB + 4096);
    let again = take(&heap, &cache, 4 * MIB + 1);
    assert_eq!((again.ptr, again.zeroed), (block.ptr, false));
    assert_eq!(cache.cached_bytes(), 0);
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.evictions), (1, 1, 0));
    assert_eq!((stats.allocated_bytes, stats.freed_bytes), (9 * MIB as u64 + 8192, 5 * MIB as u64 + 4096));
    cache.check_invariants();
}

#[test]
fn a_longer_extent_within_the_slack_is_cut_to_size() {
    let (heap, cache) = (heap(), BigCache::new());
    let block = take(&heap, &cache, 18 * MIB);
    let wide = take(&heap, &cache, 22 * MIB);
    heap.free(&cache, address_of(wide));
    heap.free(&cache, address_of(block));
    let cut = take(&heap, &cache, 16 * MIB);
    assert_eq!(cut.ptr, block.ptr, "nine superslabs for eight are within an eighth");
    assert_eq!(cache.cached_bytes(), 22 * MIB);
    assert_eq!(heap.os.stats().in_use_bytes, 38 * MIB);
    heap.free(&cache, address_of(cut));
    cache.flush(&heap.cx());
    heap.os.check_invariants();
    assert_eq!(heap.os.stats().in_use_bytes, 0);
}

#[test]
fn memory_kept_in_vain_joins_what_a_larger_block_is_made_of() {
    let (heap, cache) = (heap(), BigCache::new());
    let small = take(&heap, &cache, 10 * MIB);
    let other = take(&heap, &cache, 40 * MIB);
    heap.free(&cache, address_of(small));
    heap.free(&cache, address_of(other));
    let large = take(&heap, &cache, 60 * MIB);
    assert_eq!((cache.cached_bytes(), cache.stats().evictions), (0, 2));
    assert_eq!(large.ptr, small.ptr, "the two are neighbours, and five superslabs more make thirty");
    let stats = heap.os.stats();
    assert_eq!((stats.in_use_bytes, stats.warm_hits, stats.purged_bytes), (60 * MIB, 25, 0));
    heap.free(&cache, address_of(large));
}

#[test]
fn what_is_kept_is_bounded_by_bytes_by_use_and_by_time() {
    let policy = BigPolicy { retain_bytes: 20 * MIB, slack_permille: 125, ..heap().policy };
    let (mut heap, cache) = (Heap::new(4 << 30, policy), BigCache::new());
    let blocks: Vec<_> = (0..5).map(|_| take(&heap, &cache, 8 * MIB)).collect();
    for &block in &blocks {
        heap.free(&cache, address_of(block));
        assert!(cache.cached_bytes() <= 20 * MIB);
        cache.check_invariants();
    }
    assert_eq!(cache.cached_bytes(), 16 * MIB);
    let large = take(&heap, &cache, 30 * MIB);
    heap.free(&cache, address_of(large));
    assert_eq!(cache.cached_bytes(), 0, "given up for the large one, which is too large to keep");
    // An eighth of 320 MiB in use: 40 MiB.
    let held = take(&heap, &cache, 320 * MIB);
    let large = take(&heap, &cache, 30 * MIB);
    heap.free(&cache, address_of(large));
    assert_eq!(cache.cached_bytes(), 30 * MIB);
    assert_eq!(cache.evict_due(&heap.cx()), 0);
    heap.policy.retain_ms = 20;
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(cache.evict_due(&heap.cx()), 30 * MIB);
    heap.policy.retain_ms = 0;
    heap.free(&cache, address_of(held));
    assert_eq!((cache.cached_bytes(), heap.os.stats().in_use_bytes), (0, 0));
    heap.os.check_invariants();
}

#[test]
fn what_may_be_kept_is_kept_to_the_last_byte() {
    let (mut heap, cache) = (heap(), BigCache::new());
    heap.policy.retain_bytes = 16 * MIB;
    let halves = [(); 2].map(|()| take(&heap, &cache, 8 * MIB));
    halves.iter().for_each(|block| assert!(heap.free(&cache, address_of(*block))));
    assert_eq!((cache.cached_bytes(), cache.kept_superslabs()), (16 * MIB, 8));
    let whole = take(&heap, &cache, 16 * MIB);
    assert!(heap.free(&cache, address_of(whole)));
    assert_eq!((cache.cached_bytes(), cache.kept_superslabs()), (16 * MIB, 8));
    cache.check_invariants();
}

#[test]
fn a_full_shelf_gives_the_oldest_back() {
    const BLOCKS: usize = 70;
    let policy = BigPolicy { retain_bytes: 1 << 30, ..heap().policy };
    let (heap, cache) = (Heap::new(if cfg!(miri) { 512 * MIB } else { 1 << 30 }, policy), BigCache::new());
    let blocks = [(); BLOCKS].map(|()| take(&heap, &cache, 3 * MIB));
    for block in blocks {
        assert!(heap.free(&cache, address_of(block)));
        cache.check_invariants();
    }
    let (kept, evictions) = (cache.cached_bytes() / (3 * MIB), cache.stats().evictions as usize);
    assert!(evictions > 0, "the test needs a shelf that is full");
    assert_eq!(kept + evictions, BLOCKS);
    assert_eq!(heap.os.stats().in_use_bytes, kept * 4 * MIB, "what is not kept was given back");
    for block in blocks[evictions..].iter().rev() {
        assert_eq!(take(&heap, &cache, 3 * MIB).ptr, block.ptr);
    }
    assert_eq!(cache.cached_bytes(), 0);
}

#[test]
fn what_is_due_goes_when_a_block_comes_or_goes() {
    let (mut heap, cache) = (heap(), BigCache::new());
    heap.policy.retain_ms = 20;
    heap.hints = vec![BigHint { note: 1, pages: None, keep_ms: 60_000 }];
    let wait = || std::thread::sleep(std::time::Duration::from_millis(50));
    let [old, other] = [20, 4].map(|mib| take(&heap, &cache, mib * MIB));
    let hinted = take_hinted(&heap, &cache, 1, 8 * MIB);
    assert!(heap.free(&cache, address_of(old)));
    wait();
    assert!(heap.free(&cache, address_of(other)));
    assert!(cache.cached_bytes() <= 4 * MIB, "a block was freed");
    let old = take(&heap, &cache, 20 * MIB);
    assert!(heap.free(&cache, address_of(old)));
    wait();
    assert!(heap.free(&cache, address_of(hinted)));
    assert_eq!(cache.cached_bytes(), 8 * MIB, "one with a hint was freed");
    let old = take(&heap, &cache, 20 * MIB);
    assert!(heap.free(&cache, address_of(old)));
    wait();
    let hinted = take_hinted(&heap, &cache, 1, 8 * MIB);
    assert_eq!((cache.stats().hits, cache.cached_bytes()), (1, 0), "one was taken");
    assert!(heap.free(&cache, address_of(hinted)));
    cache.check_invariants();
}

#[test]
fn a_block_is_resized_inside_into_room_and_back() {
    let (heap, cache) = (heap(), BigCache::new());
    let block = cache.allocate(&heap.cx(), 5 * MIB, 16, true).unwrap();
    let index = heap.index_of(block);
    fill(block, 0, 5 * MIB, 9);
    assert!(cache.resize_in_place(&heap.cx(), index, 5 * MIB, 6 * MIB));
    assert!(cache.resize_in_place(&heap.cx(), index, 6 * MIB, 11 * MIB));
    assert_eq!(heap.place_of(&cache, address_of(block)), Some(Place::Window(index, 11 * MIB)));
    assert_eq!(heap.os.stats().in_use_bytes, 12 * MIB);
    assert!(is_filled(block, 5 * MIB, 9));
    fill(block, 5 * MIB, 11 * MIB, 9);
    assert!(cache.resize_in_place(&heap.cx(), index, 11 * MIB, 3 * MIB));
    assert_eq!(heap.os.stats().in_use_bytes, 4 * MIB);
    assert!(is_filled(block, 3 * MIB, 9));
    // SAFETY: the block's superslabs go on behind its bytes.
    assert_eq!(unsafe { block.ptr.as_ptr().wrapping_add(3 * MIB + 4096).read() }, 0, "the tail was not given back");
    assert!(!cache.resize_in_place(&heap.cx(), index, 3 * MIB, 1 << 40));
    assert_eq!(heap.bytes_of(&cache, block), 3 * MIB);
    heap.free(&cache, address_of(block));
    let stats = cache.stats();
    assert_eq!(stats.allocated_bytes, stats.freed_bytes);
}

#[test]
fn room_is_left_behind_a_block_that_grows_as_policy_says() {
    for (room_permille, reach) in [(0, 0), (500, 4), (1000, 8)] {
        let (mut heap, cache) = (heap(), BigCache::new());
        heap.policy.room_permille = room_permille;
        let block = cache.allocate(&heap.cx(), 8 * MIB, 16, true).unwrap();
        let wall = take(&heap, &cache, 3 * MIB);
        assert_eq!(address_of(wall) - address_of(block), (8 + reach) * MIB, "{room_permille}");
        let grow = |from, to| cache.resize_in_place(&heap.cx(), heap.index_of(block), from, to);
        assert!(grow(8 * MIB, (8 + reach) * MIB) && !grow((8 + reach) * MIB, (9 + reach) * MIB), "{room_permille}");
        heap.os.check_invariants();
    }
}

#[test]
fn a_block_grows_into_a_kept_extent_behind_it() {
    let (heap, cache) = (heap(), BigCache::new());
    let (block, behind) = (take(&heap, &cache, 4 * MIB), take(&heap, &cache, 6 * MIB));
    let (first, second) = (heap.index_of(block), heap.index_of(behind));
    assert_eq!(second, first.add(64), "the test needs neighbours");
    let third = take(&heap, &cache, 4 * MIB);
    assert!(!cache.resize_in_place(&heap.cx(), first, 4 * MIB, 8 * MIB));
    heap.free(&cache, address_of(behind));
    assert!(cache.resize_in_place(&heap.cx(), first, 4 * MIB, 10 * MIB));
    assert_eq!(cache.cached_bytes(), 0);
    heap.free(&cache, address_of(block));
    heap.free(&cache, address_of(third));
    cache.flush(&heap.cx());
    heap.os.check_invariants();
    assert_eq!(heap.os.stats().in_use_bytes, 0);
}

#[test]
fn moving_carries_the_contents_without_copying() {
    let (heap, cache) = (heap(), BigCache::new());
    for old_bytes in [8 * MIB, 7 * MIB + 4096] {
        let block = take(&heap, &cache, old_bytes);
        let wall = take(&heap, &cache, 4 * MIB);
        fill(block, 0, old_bytes, 3);
        let moved = cache.move_to(&heap.cx(), heap.index_of(block), old_bytes, 20 * MIB).unwrap();
        assert!(!moved.zeroed && moved.ptr != block.ptr);
        assert!(is_filled(moved, old_bytes, 3));
        assert!(!heap.free(&cache, address_of(block)), "the old block is gone");
        assert!(heap.os.stats().moved_pages_bytes > 0);
        let reused = take(&heap, &cache, old_bytes);
        assert!(!reused.zeroed || is_filled(reused, old_bytes, 0));
        for block in [moved, wall, reused] {
            assert!(heap.free(&cache, address_of(block)));
        }
    }
    let small = take(&heap, &cache, 3 * MIB);
    assert!(cache.move_to(&heap.cx(), heap.index_of(small), 3 * MIB, 9 * MIB).is_none(), "cheaper to copy");
    heap.free(&cache, address_of(small));
    assert_eq!(cache.stats().moved, 2);
    cache.flush(&heap.cx());
    heap.os.check_invariants();
    assert_eq!(heap.os.stats().in_use_bytes, 0);
    let stats = cache.stats();
    assert_eq!(stats.allocated_bytes, stats.freed_bytes);
}

#[test]
fn a_block_cut_into_several_mappings_is_moved_piece_by_piece() {
    let (heap, cache) = (heap(), BigCache::new());
    let bytes = 11 * MIB;
    let block = take(&heap, &cache, bytes);
    let index = heap.index_of(block);
    fill(block, 0, bytes, 6);
    assert!(heap.os.advise_huge(index.add(64), 4 * MIB));
    let target = heap.index_of(take(&heap, &cache, bytes));
    assert!(!heap.os.move_pages(index, target, bytes), "the test needs a block that cannot be moved at once");
    let moved = cache.move_to(&heap.cx(), index, bytes, 20 * MIB).unwrap();
    assert!(is_filled(moved, bytes, 6));
    assert_eq!(heap.os.stats().moved_pages_bytes, bytes.next_multiple_of(SUPERSLAB_BYTES) as u64);
    heap.free(&cache, address_of(moved));
    let reused = take(&heap, &cache, bytes);
    assert!(!reused.zeroed || is_filled(reused, bytes, 0));
}

#[test]
fn a_block_of_broken_superslabs_that_moves_again_and_again_is_never_copied() {
    // A part of a superslab that moved would be a mapping of its own, across whose end the kernel moves nothing.
    let (heap, cache) = (heap(), BigCache::new());
    let (mut bytes, mut moved_bytes) = (5 * MIB, 0);
    let mut block = take(&heap, &cache, bytes);
    fill(block, 0, bytes, 6);
    for _ in 0..3 {
        let wanted = 2 * bytes + MIB / 2;
        moved_bytes += bytes.next_multiple_of(SUPERSLAB_BYTES);
        block = cache.move_to(&heap.cx(), heap.index_of(block), bytes, wanted).unwrap();
        assert!(is_filled(block, bytes, 6));
        fill(block, bytes, wanted, 6);
        bytes = wanted;
    }
    assert_eq!(heap.os.stats().moved_pages_bytes, moved_bytes as u64);
    assert!(heap.free(&cache, address_of(block)));
    heap.os.check_invariants();
}

/// Not under Miri, which cannot tell what is in memory.
#[cfg(not(miri))]
#[test]
fn huge_pages_go_where_the_blocks_freed_before_were_used_densely() {
    let policy = BigPolicy { thp_bytes: 4 * MIB, ..BigPolicy::DEFAULT };
    let (heap, cache) = (Heap::new(1 << 30, policy), BigCache::new());
    let advised = || heap.os.stats().huge_advised_bytes as usize;
    let first = take(&heap, &cache, 16 * MIB);
    assert_eq!(advised(), 14 * MIB, "all but the first superslab, while nothing is known");
    assert!(heap.free(&cache, address_of(first)));
    for _ in 0..2 {
        let sparse = take(&heap, &cache, 32 * MIB);
        fill(sparse, 0, 4096, 7);
        assert!(heap.free(&cache, address_of(sparse)));
    }
    assert_eq!(advised(), 14 * MIB, "blocks are used sparsely");
    for _ in 0..5 {
        let dense = take(&heap, &cache, 32 * MIB);
        fill(dense, 0, 32 * MIB, 7);
        assert!(heap.free(&cache, address_of(dense)));
    }
    // What was advised before is not advised again, so the fresh block must not lie there.
    let wall = take(&heap, &cache, 32 * MIB);
    let before = advised();
    let fresh = cache.allocate(&heap.cx(), 64 * MIB, 128 * MIB, false).unwrap();
    assert_eq!(advised() - before, 64 * MIB, "blocks are used densely");
    assert!(heap.free(&cache, address_of(fresh)) && heap.free(&cache, address_of(wall)));
    heap.os.check_invariants();
}

/// Not under Miri, which cannot tell what is in memory.
#[cfg(not(miri))]
#[test]
fn blocks_that_huge_pages_are_not_for_say_nothing_about_the_others() {
    let policy = BigPolicy { thp_bytes: 4 * MIB, ..BigPolicy::DEFAULT };
    let (mut heap, cache) = (Heap::new(1 << 30, policy), BigCache::new());
    heap.hints = vec![BigHint { note: 3, pages: Some(HintedPages::Small), keep_ms: 0 }];
    for _ in 0..8 {
        let blocks = [take(&heap, &cache, 3 * MIB), take_hinted(&heap, &cache, 3, 20 * MIB)];
        blocks.iter().for_each(|block| assert!(heap.free(&cache, address_of(*block))));
    }
    assert_eq!(heap.os.stats().huge_advised_bytes, 0);
    let _first = take(&heap, &cache, 16 * MIB);
    assert_eq!(heap.os.stats().huge_advised_bytes as usize, 14 * MIB, "as if no block had been freed");
}

#[cfg(not(miri))]
#[test]
fn a_block_that_grows_has_huge_pages_from_where_it_had_none() {
    let policy = BigPolicy { thp_bytes: 8 * MIB, ..BigPolicy::DEFAULT };
    let (heap, cache) = (Heap::new(1 << 30, policy), BigCache::new());
    let block = cache.allocate(&heap.cx(), 4 * MIB, 16, true).unwrap();
    let grow = |from, to| {
        let before = heap.os.stats().huge_advised_bytes as usize;
        assert!(cache.resize_in_place(&heap.cx(), heap.index_of(block), from, to));
        heap.os.stats().huge_advised_bytes as usize - before
    };
    assert_eq!(grow(4 * MIB, 7 * MIB), 0, "still too small");
    assert_eq!(grow(7 * MIB, 9 * MIB), 8 * MIB, "all of its whole superslabs");
    assert_eq!(grow(9 * MIB, 15 * MIB), 6 * MIB, "those that it has become longer by");
    heap.os.check_invariants();
}

/// What it lacks is memory that nobody asked for.
#[cfg(not(miri))]
#[test]
fn a_last_superslab_has_huge_pages_if_the_block_nearly_fills_it() {
    for (bytes, advised) in
        [(3 * MIB + MIB / 2, 2 * MIB), (3 * MIB + MIB / 2 - 4096, 0), (7 * MIB, 4 * MIB), (8 * MIB, 6 * MIB)]
    {
        let policy = BigPolicy { thp_bytes: 2 * MIB, ..BigPolicy::DEFAULT };
        let (heap, cache) = (Heap::new(1 << 30, policy), BigCache::new());
        let _block = take(&heap, &cache, bytes);
        assert_eq!(
            heap.os.stats().huge_advised_bytes as usize,
            advised,
            "of {bytes} bytes, all but the first superslab"
        );
    }
}

#[cfg(not(miri))]
#[test]
fn a_block_that_grows_has_the_pages_that_its_hint_says() {
    for (pages, expected) in [(HintedPages::Small, 0), (HintedPages::Huge, 6 * MIB)] {
        let (mut heap, cache) = (heap(), BigCache::new());
        heap.policy.thp_bytes = if pages == HintedPages::Small { 4 * MIB } else { usize::MAX };
        heap.hints = vec![BigHint { note: 3, pages: Some(pages), keep_ms: 0 }];
        let block = cache.allocate(&heap.cx_of(3), 8 * MIB, 16, true).unwrap();
        let before = heap.os.stats().huge_advised_bytes as usize;
        assert!(cache.resize_in_place(&heap.cx_of(3), heap.index_of(block), 8 * MIB, 14 * MIB));
        assert_eq!(heap.os.stats().huge_advised_bytes as usize - before, expected);
    }
}

#[cfg(not(miri))]
#[test]
fn a_kept_extent_gets_huge_pages_for_a_block_that_is_to_have_them() {
    let (mut heap, cache) = (heap(), BigCache::new());
    let block = take(&heap, &cache, 16 * MIB);
    assert!(heap.free(&cache, address_of(block)));
    heap.policy.thp_bytes = 4 * MIB;
    let block = take(&heap, &cache, 16 * MIB);
    assert_eq!((cache.stats().hits, heap.os.stats().huge_advised_bytes as usize), (1, 16 * MIB));
    assert!(heap.free(&cache, address_of(block)));
    let _again = take(&heap, &cache, 16 * MIB);
    assert_eq!((cache.stats().hits, heap.os.stats().huge_advised_bytes as usize), (2, 16 * MIB));
}

#[test]
fn alignment_of_many_superslabs_is_kept_by_fresh_and_kept_extents() {
    let (heap, cache) = (heap(), BigCache::new());
    for shift in 21..26 {
        for _ in 0..2 {
            let block = cache.allocate(&heap.cx(), 3 * MIB, 1 << shift, false).unwrap();
            assert_eq!(address_of(block) % (1 << shift), 0);
            heap.free(&cache, address_of(block));
        }
    }
    assert!(cache.stats().hits >= 5);
}

#[test]
fn a_full_window_sends_blocks_outside_and_takes_back_what_is_kept_first() {
    let (heap, cache) = (Heap::new(32 * MIB, BigPolicy { retain_ms: 60_000, ..BigPolicy::DEFAULT }), BigCache::new());
    let kept = take(&heap, &cache, 4 * MIB);
    heap.free(&cache, address_of(kept));
    let inside = take(&heap, &cache, 26 * MIB);
    assert!(heap.os.index_of(address_of(inside)).is_some());
    assert_eq!(cache.cached_bytes(), if heap.os.stats().in_use_bytes == 26 * MIB { 0 } else { 4 * MIB });
    let outside = take(&heap, &cache, 26 * MIB);
    assert_eq!(heap.os.index_of(address_of(outside)), None);
    assert!(outside.zeroed && is_filled(outside, 26 * MIB, 0));
    fill(outside, 0, 26 * MIB, 4);
    assert_eq!(heap.place_of(&cache, address_of(outside)), Some(Place::Outside(26 * MIB)));
    assert!(cache.outside_resize(address_of(outside), 9 * MIB));
    assert_eq!((cache.stats().outside_blocks, cache.stats().outside_bytes), (1, 9 * MIB));
    assert!(is_filled(outside, 9 * MIB, 4));
    let aligned = cache.allocate(&heap.cx(), 26 * MIB, 64 * MIB, false).unwrap();
    assert_eq!(address_of(aligned) % (64 * MIB), 0);
    cache.check_invariants();
    for block in [outside, aligned, inside] {
        assert!(heap.free(&cache, address_of(block)));
        assert!(!heap.free(&cache, address_of(block)));
    }
    let stats = cache.stats();
    assert_eq!((stats.outside_blocks, stats.outside_bytes), (0, 0));
    assert_eq!(stats.allocated_bytes, stats.freed_bytes);
    cache.flush(&heap.cx());
    cache.check_invariants();
    heap.os.check_invariants();
}

/// Not under Miri, whose mappings do not move.
#[cfg(not(miri))]
#[test]
fn a_block_outside_that_moves_is_found_where_it_is_then_with_its_contents() {
    let (heap, cache) = (Heap::new(32 * MIB, BigPolicy::DEFAULT), BigCache::new());
    let block = take(&heap, &cache, 40 * MIB);
    fill(block, 0, 40 * MIB, 5);
    let before = cache.stats();
    for refused in [40 * MIB, 39 * MIB, 0, usize::MAX] {
        assert!(cache.outside_move(address_of(block), refused).is_none(), "only larger ones are made");
    }
    assert!(cache.outside_move(address_of(block) + 4096, 90 * MIB).is_none(), "no block begins there");
    assert_eq!((cache.outside_find(address_of(block)), cache.stats()), (Some(40 * MIB), before));
    let moved = Block { ptr: cache.outside_move(address_of(block), 90 * MIB - 1).unwrap(), zeroed: false };
    assert!(is_filled(moved, 40 * MIB, 5));
    fill(moved, 40 * MIB, 90 * MIB, 5);
    assert_eq!(cache.outside_find(address_of(moved)), Some(90 * MIB));
    let stats = cache.stats();
    assert_eq!((stats.moved, stats.outside_blocks, stats.outside_bytes), (1, 1, 90 * MIB));
    assert_eq!(stats.allocated_bytes - before.allocated_bytes, 50 * MIB as u64);
    cache.check_invariants();
    assert!(heap.free(&cache, address_of(moved)));
    assert!(!heap.free(&cache, address_of(block)) && !heap.free(&cache, address_of(moved)));
    let stats = cache.stats();
    assert_eq!((stats.outside_blocks, stats.allocated_bytes), (0, stats.freed_bytes));
}

/// Not under Miri, whose mappings do not move.
#[cfg(not(miri))]
#[test]
fn what_the_kernel_will_not_map_is_counted_and_changes_nothing() {
    // More than the addresses of a process.
    const TOO_MUCH: usize = 1 << 47;
    let (heap, cache) = (Heap::new(32 * MIB, BigPolicy::DEFAULT), BigCache::new());
    let block = take(&heap, &cache, 40 * MIB);
    fill(block, 0, 40 * MIB, 8);
    let before = cache.stats();
    assert!(cache.allocate(&heap.cx(), TOO_MUCH, 16, false).is_none());
    assert!(!cache.outside_resize(address_of(block), TOO_MUCH));
    assert!(cache.outside_move(address_of(block), TOO_MUCH).is_none());
    let after = cache.stats();
    assert_eq!((after.maps_refused, after.moves_refused, after.unmaps_refused), (1, 1, 0));
    assert_eq!((after.allocated_bytes, after.outside_bytes), (before.allocated_bytes, before.outside_bytes));
    assert!(is_filled(block, 40 * MIB, 8) && heap.free(&cache, address_of(block)));
    assert_eq!(cache.stats().unmaps_refused, 0);
    cache.check_invariants();
}

#[test]
fn a_block_that_belongs_outside_by_its_size_does_not_grow_into_the_window_either() {
    let policy = BigPolicy { window_max_bytes: 16 * MIB, ..BigPolicy::DEFAULT };
    let (heap, cache) = (Heap::new(64 * MIB, policy), BigCache::new());
    let block = take(&heap, &cache, 6 * MIB);
    let index = heap.os.index_of(address_of(block)).unwrap();
    assert!(cache.resize_in_place(&heap.cx(), index, 6 * MIB, 15 * MIB));
    assert!(!cache.resize_in_place(&heap.cx(), index, 15 * MIB, 17 * MIB));
    assert!(cache.move_to(&heap.cx(), index, 15 * MIB, 17 * MIB).is_none());
    assert!(heap.free(&cache, address_of(block)));
    heap.os.check_invariants();
}

#[test]
fn without_leave_to_go_outside_a_full_window_gives_none() {
    let (heap, cache) = (Heap::new(32 * MIB, BigPolicy { outside: false, ..BigPolicy::DEFAULT }), BigCache::new());
    assert!(cache.allocate(&heap.cx(), 40 * MIB, 16, false).is_none());
    assert!(cache.allocate(&heap.cx(), usize::MAX, 16, false).is_none());
    assert!(cache.allocate(&heap.cx(), 0, 16, false).is_none());
    assert_eq!(cache.stats().allocated_bytes, 0);
}

/// Hunts: an extent that two threads hold at once, because a free by a stranger and a reuse overlap.
#[test]
fn blocks_freed_by_strangers_come_back_whole() {
    const THREADS: usize = if cfg!(miri) { 2 } else { 4 };
    const STEPS: u64 = if cfg!(miri) { 6 } else { 120 };
    let (heap, cache) = (
        Heap::new(
            if cfg!(miri) { 128 * MIB } else { 2 << 30 },
            BigPolicy { thp_bytes: usize::MAX, ..BigPolicy::DEFAULT },
        ),
        BigCache::new(),
    );
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..THREADS).map(|_| std::sync::mpsc::sync_channel::<(SharedPtr<u8>, usize, u8)>(4)).unzip();
    std::thread::scope(|scope| {
        for (number, receiver) in receivers.into_iter().enumerate() {
            let next = senders[(number + 1) % THREADS].clone();
            let (heap, cache) = (&heap, &cache);
            scope.spawn(move || {
                let mut random = 0x51_u64 + number as u64;
                let take_in = |(shared, bytes, mark): (SharedPtr<u8>, usize, u8)| {
                    let block = block_of(&shared);
                    assert!(is_filled(block, bytes, mark), "a block changed under its holder");
                    assert!(heap.free(cache, address_of(block)));
                };
                for step in 0..STEPS {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step | 1);
                    let bytes = SUPERSLAB_BYTES + 1 + (random >> 33) as usize % (6 * MIB);
                    let block = take(heap, cache, bytes);
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
            });
        }
        drop(senders);
    });
    cache.check_invariants();
    cache.flush(&heap.cx());
    heap.os.check_invariants();
    assert_eq!(heap.os.stats().in_use_bytes, 0);
}

/// A block that came from another test thread.
fn block_of(shared: &SharedPtr<u8>) -> Block {
    let ptr = std::ptr::NonNull::new(shared.load_relaxed()).unwrap();
    Block { ptr, zeroed: false }
}

#[test]
fn exactly_one_of_many_threads_frees_a_block() {
    let (heap, cache) = (Heap::new(32 * MIB, BigPolicy::DEFAULT), BigCache::new());
    for _ in 0..if cfg!(miri) { 2 } else { 50 } {
        for bytes in [3 * MIB, 40 * MIB] {
            let address = address_of(take(&heap, &cache, bytes));
            let wins = std::thread::scope(|scope| {
                let tries: Vec<_> = (0..3).map(|_| scope.spawn(|| heap.free(&cache, address))).collect();
                tries.into_iter().filter(|_| true).map(|thread| usize::from(thread.join().unwrap())).sum::<usize>()
            });
            assert_eq!(wins, 1);
        }
    }
    cache.check_invariants();
}

/// Hunts: a lookup that walks over a node whose page is unmapped meanwhile (a crash), one that finds a freed block's size
/// under the address of a new one, and one that misses a block because a neighbour in its bucket is being taken out.
#[test]
fn outside_blocks_are_found_while_others_come_and_go() {
    let (heap, cache) =
        (Heap::new(32 * MIB, BigPolicy { thp_bytes: usize::MAX, ..BigPolicy::DEFAULT }), BigCache::new());
    let steady: Vec<_> = (0..if cfg!(miri) { 6 } else { 200 })
        .map(|step| (address_of(take(&heap, &cache, 33 * MIB + step * 4096)), step))
        .collect();
    let stop = std::sync::Mutex::new(false);
    let steps = if cfg!(miri) { 20 } else { 3000 };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3_usize)
            .map(|number| {
                let (heap, cache) = (&heap, &cache);
                scope.spawn(move || {
                    let mut mine = std::collections::VecDeque::new();
                    for step in 0..steps {
                        let bytes = 40 * MIB + (step % 7 + number * 10) * 4096;
                        mine.push_back((address_of(take(heap, cache, bytes)), bytes));
                        if mine.len() > step % 20 {
                            let (address, bytes) = mine.pop_front().unwrap();
                            assert_eq!(cache.outside_find(address), Some(bytes));
                            assert_eq!(cache.outside_free(address), Some(bytes));
                        }
                    }
                    assert!(mine.into_iter().all(|(address, _)| heap.free(cache, address)));
                })
            })
            .collect();
        scope.spawn(|| {
            while !*stop.lock().unwrap() {
                for &(address, step) in &steady {
                    assert_eq!(cache.outside_find(address), Some(33 * MIB + step * 4096));
                    assert_eq!(cache.outside_find(address + 4096), None);
                }
            }
        });
        let joined: Vec<_> = workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        *stop.lock().unwrap() = true;
        assert!(joined.into_iter().all(|result| result.is_ok()));
    });
    cache.check_invariants();
    for (address, _) in steady {
        assert!(heap.free(&cache, address));
    }
    cache.flush(&heap.cx());
    assert_eq!(cache.stats().outside_blocks, 0);
}

#[test]
fn locks_taken_for_a_fork_are_free_afterwards() {
    let (heap, cache) = (Heap::new(32 * MIB, BigPolicy::DEFAULT), BigCache::new());
    let outside = take(&heap, &cache, 40 * MIB);
    cache.lock_for_fork();
    // SAFETY: this thread took them in the line before.
    unsafe { cache.unlock_after_fork() };
    assert!(heap.free(&cache, address_of(outside)));
    let inside = take(&heap, &cache, 4 * MIB);
    assert!(heap.free(&cache, address_of(inside)));
}

#[test]
fn what_is_locked_for_a_fork_waits_until_it_is_over() {
    let cache = BigCache::new();
    let (meeting, is_over) = (Barrier::new(2), Flag::new(false));
    cache.lock_for_fork();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            meeting.wait();
            assert_eq!(cache.kept_superslabs(), 0);
            assert!(is_over.is_set_relaxed(), "the shelf was looked at meanwhile");
        });
        meeting.wait();
        (0..200).for_each(|_| std::thread::yield_now());
        assert!(is_over.try_set_acq_rel());
        // SAFETY: this thread took them above.
        unsafe { cache.unlock_after_fork() };
    });
}

fn hinted() -> Heap {
    let mut heap = heap();
    heap.policy.retain_ms = 0;
    heap.hints = vec![
        BigHint { note: 1, pages: None, keep_ms: 60_000 },
        BigHint { note: 2, pages: None, keep_ms: 60_000 },
        BigHint { note: 3, pages: Some(HintedPages::Huge), keep_ms: 0 },
    ];
    heap
}

fn take_hinted(heap: &Heap, cache: &BigCache, note: u16, bytes: usize) -> Block {
    cache.allocate(&heap.cx_of(note), bytes, 16, false).unwrap()
}

#[test]
fn a_block_with_a_hint_waits_for_the_next_one_with_it_and_for_nobody_else() {
    let (heap, cache) = (hinted(), BigCache::new());
    let block = take_hinted(&heap, &cache, 1, 20 * MIB);
    assert!(heap.free(&cache, address_of(block)));
    assert_eq!(cache.cached_bytes(), 20 * MIB);
    let others = [take(&heap, &cache, 20 * MIB), take_hinted(&heap, &cache, 2, 20 * MIB)];
    assert!(others.iter().all(|other| other.ptr != block.ptr), "neither a block without a hint nor one with another");
    assert_eq!(cache.cached_bytes(), 20 * MIB, "their misses leave it where it is");
    let again = take_hinted(&heap, &cache, 1, 20 * MIB);
    assert_eq!((again.ptr, again.zeroed), (block.ptr, false));
    for block in [others[0], others[1], again] {
        assert!(heap.free(&cache, address_of(block)));
    }
    cache.check_invariants();
    assert_eq!(cache.cached_bytes(), 40 * MIB, "one of each hint waits, and none without");
    assert_eq!(cache.flush(&heap.cx()), 40 * MIB);
    heap.os.check_invariants();
    assert_eq!(heap.os.stats().in_use_bytes, 0);
}

#[test]
fn one_block_of_a_hint_waits_whatever_its_size_and_more_within_the_bound() {
    let (mut heap, cache) = (hinted(), BigCache::new());
    heap.policy.retain_bytes = 10 * MIB;
    let blocks = [(); 3].map(|()| take_hinted(&heap, &cache, 1, 20 * MIB));
    blocks.iter().for_each(|block| assert!(heap.free(&cache, address_of(*block))));
    assert_eq!(cache.cached_bytes(), 20 * MIB);
    heap.policy.retain_bytes = 64 * MIB;
    let blocks = [(); 4].map(|()| take_hinted(&heap, &cache, 1, 20 * MIB));
    blocks.iter().for_each(|block| assert!(heap.free(&cache, address_of(*block))));
    assert_eq!(cache.cached_bytes(), 60 * MIB);
    cache.check_invariants();
}

#[test]
fn what_waits_for_a_hint_takes_nothing_from_what_others_may_keep() {
    let (mut heap, cache) = (hinted(), BigCache::new());
    (heap.policy.retain_bytes, heap.policy.retain_ms) = (40 * MIB, 60_000);
    let hinted = [(); 2].map(|()| take_hinted(&heap, &cache, 1, 20 * MIB));
    let plain = [(); 2].map(|()| take(&heap, &cache, 20 * MIB));
    hinted.iter().chain(&plain).for_each(|block| assert!(heap.free(&cache, address_of(*block))));
    assert_eq!(cache.cached_bytes(), 80 * MIB, "the bound holds for either");
    cache.check_invariants();
}

#[test]
fn what_waits_for_a_hint_is_given_up_before_a_request_fails() {
    let (mut heap, cache) = (Heap::new(32 * MIB, hinted().policy), BigCache::new());
    (heap.hints, heap.policy.outside) = (hinted().hints, false);
    let block = take_hinted(&heap, &cache, 1, 20 * MIB);
    assert!(heap.free(&cache, address_of(block)));
    assert_eq!(cache.cached_bytes(), 20 * MIB);
    let other = take(&heap, &cache, 20 * MIB);
    assert_eq!((other.ptr, cache.cached_bytes()), (block.ptr, 0));
    assert!(cache.allocate(&heap.cx(), 20 * MIB, 16, false).is_none());
}

#[test]
fn a_hint_ends_when_its_time_is_over() {
    let (mut heap, cache) = (hinted(), BigCache::new());
    heap.hints[0].keep_ms = 1;
    let block = take_hinted(&heap, &cache, 1, 20 * MIB);
    assert!(heap.free(&cache, address_of(block)));
    // The clock is coarse.
    while cache.evict_due(&heap.cx()) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!((cache.cached_bytes(), cache.stats().evictions), (0, 1));
    cache.check_invariants();
}

/// The note is what a free, a resize and a move go by, so it stays with the block.
#[test]
fn a_block_carries_its_hint_through_growing_and_moving() {
    let (heap, cache) = (hinted(), BigCache::new());
    let block = take_hinted(&heap, &cache, 1, 20 * MIB);
    let wall = take(&heap, &cache, 4 * MIB);
    assert!(cache.resize_in_place(&heap.cx_of(1), heap.index_of(block), 20 * MIB, 19 * MIB));
    let moved = cache.move_to(&heap.cx_of(1), heap.index_of(block), 19 * MIB, 40 * MIB).unwrap();
    assert!(heap.free(&cache, address_of(moved)));
    assert_eq!(cache.cached_bytes(), 40 * MIB, "it is kept as its hint says");
    assert!(heap.free(&cache, address_of(wall)));
    cache.check_invariants();
    assert_eq!(cache.flush(&heap.cx()), 40 * MIB);
    heap.os.check_invariants();
}

#[test]
fn hinted_pages_come_whatever_policy_says_of_sizes() {
    let (heap, cache) = (hinted(), BigCache::new());
    let before = heap.os.stats().huge_advised_bytes;
    let _plain = take(&heap, &cache, 20 * MIB);
    assert_eq!(heap.os.stats().huge_advised_bytes, before, "policy gives no block huge pages here");
    let _huge = take_hinted(&heap, &cache, 3, 20 * MIB);
    let advised = heap.os.stats().huge_advised_bytes - before;
    assert!(advised == 20 * MIB as u64 || cfg!(miri), "{advised}");
}
