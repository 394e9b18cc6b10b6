//! The level through its public face: what a right program gets, and what each mistake is answered with.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

mod support;

use core::ptr::NonNull;
use hakmem_base::{Door, OS_PAGE_BYTES, Request, SLAB_BYTES, SLABS_PER_SUPERSLAB, SUPERSLAB_BYTES};
use hakmem_hardened::{Hardened, HardenedContext, Limits};
use hakmem_superslab_os::Purge;
use std::collections::BTreeSet;
#[cfg(not(miri))]
use support::is_readable;
use support::{LIMITS, Level, bytes_of, finding, poke};

/// Small, mid, the largest slot, one above, a run, an extent.
const SIZES: [usize; 7] = [24, 5000, 32_760, 32_761, 300_001, 2_090_000, 5_000_001];

/// A block that ends at its guard page has no byte behind it to write to.
fn with_a_byte_behind(bytes: usize) -> usize {
    if bytes > 32_760 && bytes.is_multiple_of(16) { bytes - 1 } else { bytes }
}

fn inside(block: NonNull<u8>, offset: isize) -> NonNull<u8> {
    NonNull::new(block.as_ptr().wrapping_offset(offset)).unwrap()
}

#[test]
fn a_level_that_is_off_serves_nothing() {
    let level = Level::new(LIMITS);
    let off = Hardened::new();
    assert!(!off.is_on() && off.allocate(level.cx(), 8, 8, Door::Rust).is_none());
    assert_eq!(off.stats(), hakmem_hardened::HardenedStats::default());
}

#[test]
fn blocks_are_aligned_zeroed_and_as_large_as_asked_for() {
    let level = Level::new(LIMITS);
    for bytes in [0, 1, 8, 9, 16, 1000].into_iter().chain(SIZES) {
        for align in [1, 16, 64, 4096, 8192, SLAB_BYTES, 1 << 20, 1 << 22] {
            for _ in 0..3 {
                let block = level.allocate(bytes, align).unwrap();
                assert_eq!(
                    (block.addr().get() % align.max(16), level.usable_size(block)),
                    (0, bytes),
                    "{bytes} {align}"
                );
                let contents = bytes_of(block, bytes);
                assert!(contents.iter().all(|&byte| byte == 0));
                contents.fill(0xff);
                level.free(block, bytes, align);
            }
        }
    }
    level.hardened.sweep(level.cx());
    level.hardened.check_invariants();
    let stats = level.hardened.stats();
    assert_eq!((stats.live_bytes, stats.allocs), (0, (6 + SIZES.len() as u64) * 8 * 3));
}

#[test]
fn a_write_behind_the_last_byte_is_found_when_the_block_is_freed() {
    for bytes in SIZES.map(with_a_byte_behind) {
        for value in [0, b'A'] {
            let level = Level::new(LIMITS);
            let block = level.allocate(bytes, 8).unwrap();
            poke(block, bytes as isize, value);
            assert_eq!(finding(|| level.free(block, bytes, 8)), "write past the end of a block", "{bytes}");
        }
    }
}

#[test]
fn a_write_behind_a_block_that_is_never_freed_is_found_by_the_sweep() {
    for bytes in [24, 5000, 300_001] {
        let level = Level::new(LIMITS);
        let block = level.allocate(bytes, 8).unwrap();
        level.hardened.sweep(level.cx());
        poke(block, bytes as isize, 1);
        assert_eq!(finding(|| level.hardened.sweep(level.cx())), "write past the end of a block");
    }
}

#[test]
fn a_write_before_the_first_byte_is_found_when_the_block_is_freed() {
    for bytes in [24, 5000, 300_001] {
        let level = Level::new(LIMITS);
        // The first slot of a slab has a guard page before it.
        let block = (0..20)
            .map(|_| level.allocate(bytes, 8).unwrap())
            .find(|block| bytes > 100_000 || block.addr().get() % SLAB_BYTES != OS_PAGE_BYTES)
            .unwrap();
        poke(block, -1, 1);
        assert_eq!(finding(|| level.free(block, bytes, 8)), "write before the start of a block");
    }
}

#[test]
fn a_write_from_one_block_into_the_next_is_the_first_ones_mistake_and_one_back_the_second_ones() {
    for (offset, found) in [(0, "write past the end of a block"), (7, "write before the start of a block")] {
        let level = Level::new(LIMITS);
        let mut blocks: Vec<_> = (0..200).map(|_| level.allocate(24, 8).unwrap()).collect();
        blocks.sort_unstable();
        let pair = blocks.windows(2).find(|pair| pair[1].addr().get() - pair[0].addr().get() == 32).unwrap();
        poke(pair[0], 24 + offset, 0);
        assert_eq!(finding(|| level.free(pair[1], 24, 8)), found);
    }
}

#[test]
fn a_second_free_is_found_in_quarantine_and_after_it() {
    for bytes in SIZES {
        let level = Level::new(LIMITS);
        let block = level.allocate(bytes, 8).unwrap();
        level.free(block, bytes, 8);
        let found = finding(|| level.free(block, bytes, 8));
        assert_eq!(found, "double free (the block is in quarantine)");
    }
    let level = Level::new(Limits { quarantine_bytes: 0, quarantine_blocks: 0, ..LIMITS });
    let block = level.allocate(24, 8).unwrap();
    level.free(block, 24, 8);
    let found = finding(|| level.free(block, 24, 8));
    assert_eq!(found, "double free (the block left quarantine and was not handed out again)");
}

#[test]
fn a_pointer_into_a_block_is_found_wherever_it_points() {
    for bytes in SIZES {
        for offset in [1, 8, 16, bytes as isize - 1] {
            let level = Level::new(LIMITS);
            let block = level.allocate(bytes, 8).unwrap();
            let found = finding(|| level.free(inside(block, offset), bytes, 8));
            let is_expected = found == "free of a pointer into a block, not to its start"
                || found == "free of a pointer to a block that was never handed out";
            assert!(is_expected, "{bytes} {offset}: {found}");
            level.free(block, bytes, 8);
        }
    }
}

#[test]
fn a_slot_that_was_never_handed_out_cannot_be_freed() {
    let level = Level::new(LIMITS);
    let block = level.allocate(24, 8).unwrap();
    let slot = if block.addr().get() % SLAB_BYTES == OS_PAGE_BYTES { inside(block, 32) } else { inside(block, -32) };
    let found = finding(|| level.free(slot, 24, 8));
    assert_eq!(found, "free of a pointer to a block that was never handed out");
}

#[test]
fn a_write_to_a_freed_block_is_found_by_reuse_by_the_sweep_and_when_its_slab_goes() {
    let level = Level::new(LIMITS);
    let block = level.allocate(1000, 8).unwrap();
    level.free(block, 1000, 8);
    poke(block, 500, 1);
    let reuse = || {
        for _ in 0..10_000 {
            let other = level.allocate(1000, 8).unwrap();
            level.free(other, 1000, 8);
        }
    };
    assert_eq!(finding(reuse), "write to a freed block");
    let level = Level::new(LIMITS);
    let block = level.allocate(1000, 8).unwrap();
    level.free(block, 1000, 8);
    poke(block, 999, 1);
    assert_eq!(finding(|| level.hardened.sweep(level.cx())), "write to a freed block");
    assert_eq!(finding(|| _ = level.hardened.collect(level.cx(), true)), "write to a freed block");
    // Beside a block in use the slab stays, and only the way out of quarantine leads past the damage.
    let level = Level::new(LIMITS);
    let [_kept, block] = [(); 2].map(|()| level.allocate(1000, 8).unwrap());
    level.free(block, 1000, 8);
    poke(block, 0, 1);
    assert_eq!(finding(|| _ = level.hardened.collect(level.cx(), true)), "write to a freed block");
    let level = Level::new(Limits { quarantine_bytes: 0, quarantine_blocks: 0, ..LIMITS });
    let block = level.allocate(1000, 8).unwrap();
    level.free(block, 1000, 8);
    poke(block, 0, 1);
    assert_eq!(finding(|| _ = level.hardened.collect(level.cx(), false)), "write to a freed block");
    // It has left quarantine already; the last look is that at what is handed out.
    let level = Level::new(Limits { quarantine_bytes: 0, quarantine_blocks: 0, ..LIMITS });
    let block = level.allocate(1000, 8).unwrap();
    level.free(block, 1000, 8);
    poke(block, 999, 1);
    assert_eq!(finding(|| (0..300).for_each(|_| _ = level.allocate(1000, 8))), "write to a freed block");
}

#[test]
fn what_a_free_says_of_its_block_must_be_true() {
    for bytes in SIZES {
        let wrong = |claim: Request, door: Door| {
            let level = Level::new(LIMITS);
            let block = level.hardened.allocate(level.cx(), bytes, 32, door).unwrap();
            finding(|| level.free_as(block, claim))
        };
        let (size, align, door) = (
            "block freed with another size than it was asked for",
            "block freed with another alignment than it was asked for",
            "block freed through another door than it came from",
        );
        assert_eq!(wrong(Request::new(bytes - 1, 32, Door::Rust), Door::Rust), size);
        assert_eq!(wrong(Request::new(bytes, 16, Door::Rust), Door::Rust), align);
        assert_eq!(wrong(Request::new(bytes, 64, Door::Malloc), Door::Malloc), align);
        assert_eq!(wrong(Request::unsized_from(Door::New), Door::Malloc), door);
        assert_eq!(wrong(Request::unsized_from(Door::NewArray), Door::New), door);
        assert_eq!(wrong(Request::unsized_from(Door::Malloc), Door::NewArray), door);
        let level = Level::new(LIMITS);
        let block = level.hardened.allocate(level.cx(), bytes, 32, Door::Malloc).unwrap();
        level.free_as(block, Request::new(bytes, 1, Door::Malloc));
    }
}

#[test]
fn where_doors_mix_a_block_comes_back_by_another_one_and_of_any_size_that_is_named_there() {
    for bytes in SIZES {
        let free = |claim: Request, door: Door| {
            let level = Level::new(LIMITS);
            let cx =
                HardenedContext { doors_mix: |out, back| out == Door::Malloc || back == Door::Malloc, ..level.cx() };
            let block = level.hardened.allocate(cx, bytes, 16, door).unwrap();
            level.hardened.free(cx, block, level.note(block.addr().get()).unwrap(), claim);
        };
        free(Request::unsized_from(Door::New), Door::Malloc);
        free(Request::new(0, 1, Door::New), Door::Malloc);
        free(Request::unsized_from(Door::Malloc), Door::NewArray);
        let door = "block freed through another door than it came from";
        assert_eq!(finding(|| free(Request::unsized_from(Door::NewArray), Door::New)), door);
        let size = "block freed with another size than it was asked for";
        assert_eq!(finding(|| free(Request::new(bytes - 1, 1, Door::Malloc), Door::Malloc)), size);
    }
}

#[test]
fn a_resize_in_place_keeps_contents_and_canary_and_shows_nothing() {
    for (bytes, new_bytes) in [(100, 104), (104, 98), (5000, 5090), (300_001, 300_008), (300_008, 300_001)] {
        // A level for each: the block that is damaged at the end stays where it is.
        let level = Level::new(LIMITS);
        let block = level.allocate(bytes, 8).unwrap();
        bytes_of(block, bytes).fill(7);
        assert!(level.resize(block, bytes, 8, new_bytes), "{bytes} -> {new_bytes}");
        let contents = bytes_of(block, new_bytes);
        let kept = bytes.min(new_bytes);
        assert!(contents[..kept].iter().all(|&byte| byte == 7) && contents[kept..].iter().all(|&byte| byte == 0));
        assert_eq!(level.usable_size(block), new_bytes);
        poke(block, new_bytes as isize, 0);
        assert_eq!(finding(|| level.free(block, new_bytes, 8)), "write past the end of a block");
    }
    let level = Level::new(LIMITS);
    let block = level.allocate(100, 8).unwrap();
    assert!(!level.resize(block, 100, 8, 10_000));
    assert_eq!(finding(|| _ = level.resize(block, 101, 8, 99)), "block freed with another size than it was asked for");
    level.free(block, 100, 8);
    assert_eq!(finding(|| _ = level.resize(block, 100, 8, 99)), "realloc of a freed block");
    assert_eq!(finding(|| _ = level.usable_size(block)), "realloc or malloc_usable_size of a freed block");
}

#[test]
fn a_resize_looks_at_its_block_as_a_free_does() {
    for bytes in SIZES.map(with_a_byte_behind) {
        for new_bytes in [bytes, 2 * bytes] {
            let level = Level::new(LIMITS);
            let block = level.allocate(bytes, 8).unwrap();
            let resize = |block, bytes| finding(|| _ = level.resize(block, bytes, 8, new_bytes));
            assert_eq!(resize(block, bytes - 1), "block freed with another size than it was asked for");
            let found = resize(inside(block, 16), bytes);
            let is_expected = found == "realloc of a pointer into a block, not to its start"
                || found == "realloc of a block that was never handed out";
            assert!(is_expected, "{bytes}: {found}");
            poke(block, bytes as isize, 0);
            assert_eq!(resize(block, bytes), "write past the end of a block", "{bytes} -> {new_bytes}");
        }
        let level = Level::new(LIMITS);
        let block = level.allocate(bytes, 8).unwrap();
        level.free(block, bytes, 8);
        assert_eq!(finding(|| _ = level.resize(block, bytes, 8, bytes)), "realloc of a freed block");
        assert_eq!(finding(|| _ = level.usable_size(block)), "realloc or malloc_usable_size of a freed block");
    }
}

#[test]
fn what_somebody_else_has_left_in_memory_is_not_handed_out() {
    let level = Level::new(LIMITS);
    let run = level.os.take_run(SLABS_PER_SUPERSLAB, 1).unwrap();
    let extent = level.os.take_extent(4, 0, 1).unwrap();
    let of_run = NonNull::new(level.os.address_of(run.first)).unwrap();
    let of_extent = NonNull::new(level.os.address_of(extent.first)).unwrap();
    bytes_of(of_run, SUPERSLAB_BYTES).fill(0xee);
    bytes_of(of_extent, 4 * SUPERSLAB_BYTES).fill(0xee);
    level.os.give_run(run.first, SLABS_PER_SUPERSLAB);
    level.os.give_extent(extent.first, 4, Purge::Later);
    let left = of_run.addr().get().min(of_extent.addr().get())..;
    for bytes in SIZES {
        for _ in 0..3 {
            let block = level.allocate(bytes, 8).unwrap();
            assert!(left.contains(&block.addr().get()), "{bytes} bytes elsewhere");
            assert!(bytes_of(block, bytes).iter().all(|&byte| byte == 0), "{bytes} bytes of somebody else's");
        }
    }
    level.hardened.sweep(level.cx());
}

#[test]
fn an_empty_slab_goes_back_at_once_if_another_has_room() {
    let level = Level::new(Limits { quarantine_bytes: 0, quarantine_blocks: 0, ..LIMITS });
    let first = level.allocate(1000, 8).unwrap();
    let one_slab = level.os.in_use_bytes();
    let blocks: Vec<_> = (0..1000).map(|_| level.allocate(1000, 8).unwrap()).collect();
    assert!(level.os.in_use_bytes() >= 4 * one_slab);
    blocks.into_iter().for_each(|block| level.free(block, 1000, 8));
    assert!(level.os.in_use_bytes() <= 2 * one_slab, "that of the block in use, and one with nothing in it");
    level.free(first, 1000, 8);
    assert_eq!(level.os.in_use_bytes(), one_slab);
}

#[test]
fn places_are_not_foreseen_and_not_reused_at_once() {
    let level = Level::new(LIMITS);
    let places: Vec<usize> = (0..60).map(|_| level.allocate(64, 8).unwrap().addr().get()).collect();
    assert!(!places.is_sorted() && places.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) == 80).count() < 20);
    for bytes in [64, 5000, 300_000] {
        let mut freed = BTreeSet::new();
        for round in 0..5 {
            let block = level.allocate(bytes, 8).unwrap();
            assert!(freed.insert(block), "round {round}: {bytes} bytes at the same place again");
            level.free(block, bytes, 8);
        }
    }
}

#[test]
fn memory_comes_back_when_nothing_is_in_use() {
    let level = Level::new(LIMITS);
    let blocks: Vec<_> = (0..300)
        .flat_map(|round| SIZES[..5].iter().map(move |&bytes| bytes + round % 7))
        .map(|bytes| (level.allocate(bytes, 8).unwrap(), bytes))
        .collect();
    assert!(level.os.in_use_bytes() > 32 << 20);
    for (block, bytes) in blocks {
        level.free(block, bytes, 8);
    }
    assert!(level.hardened.stats().quarantined_bytes > 0 && level.hardened.stats().quarantined_space_bytes > 0);
    assert!(level.hardened.collect(level.cx(), true));
    assert_eq!(level.os.in_use_bytes(), 0);
    let stats = level.hardened.stats();
    assert_eq!((stats.quarantined_bytes, stats.quarantined_space_bytes, stats.stranded_bytes), (0, 0, 0));
    level.os.check_invariants();
}

#[test]
fn large_blocks_wait_within_their_share_of_the_window() {
    let level = Level::new(Limits { quarantine_bytes: 64 << 10, quarantine_blocks: 1 << 20, ..LIMITS });
    for _ in 0..500 {
        let block = level.allocate(1 << 20, 8).unwrap();
        level.free(block, 1 << 20, 8);
        assert!(level.hardened.stats().quarantined_space_bytes <= 8 << 20);
    }
}

#[test]
fn a_full_window_is_no_memory_and_nothing_is_lost() {
    let level = Level::new(LIMITS);
    let mut blocks = Vec::new();
    while let Some(block) = level.allocate(3 << 20, 8) {
        blocks.push(block);
    }
    assert!(
        blocks.len() > 50 && level.allocate(usize::MAX - 5000, 8).is_none() && level.allocate(1, 1 << 62).is_none()
    );
    for block in blocks {
        level.free(block, 3 << 20, 8);
    }
    level.hardened.collect(level.cx(), true);
    assert_eq!(level.os.in_use_bytes(), 0);
}

#[test]
fn threads_free_each_others_blocks_and_every_byte_stays_theirs() {
    let level = Level::new(LIMITS);
    std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::channel::<(usize, usize, u8)>();
        for thread in 0..3_u8 {
            let (sender, level) = (sender.clone(), &level);
            scope.spawn(move || {
                for round in 0..4000_usize {
                    let bytes = (round * 37 + usize::from(thread)) % 3000 + if round % 100 == 0 { 60_000 } else { 0 };
                    let block = level.allocate(bytes, 8).unwrap();
                    bytes_of(block, bytes).fill(thread + 1);
                    sender.send((block.as_ptr().expose_provenance(), bytes, thread + 1)).unwrap();
                }
            });
        }
        drop(sender);
        for (address, bytes, mark) in receiver {
            let block = NonNull::new(core::ptr::with_exposed_provenance_mut(address)).unwrap();
            assert!(bytes_of(block, bytes).iter().all(|&byte| byte == mark));
            level.free(block, bytes, 8);
        }
    });
    level.hardened.check_invariants();
    level.hardened.sweep(level.cx());
    assert_eq!(level.hardened.stats().live_bytes, 0);
}

#[test]
fn guards_stand_up_to_their_limit_and_the_rest_does_without() {
    let level = Level::new(Limits { guards: 5, quarantine_bytes: 0, quarantine_blocks: 0 });
    // A slab, a large block, and one for which a single guard is left; then one without any.
    let sizes = [3000, 40_000, 50_000, 60_000];
    let blocks = sizes.map(|bytes| level.allocate(bytes, 8).unwrap());
    let stats = level.hardened.stats();
    assert_eq!((stats.guards_standing, stats.guards_left_out), (5, 3));
    for (block, bytes) in blocks.into_iter().zip(sizes) {
        bytes_of(block, bytes).fill(1);
        // The canaries do not depend on guards.
        assert!(level.resize(block, bytes, 8, bytes - 1));
        level.free(block, bytes - 1, 8);
        assert!(level.hardened.stats().guards_standing <= 5);
    }
    level.hardened.collect(level.cx(), true);
    let stats = level.hardened.stats();
    assert_eq!((stats.guards_standing, stats.stranded_bytes, level.os.in_use_bytes()), (0, 0, 0));
}

#[test]
fn a_freed_large_block_closes_with_the_guards_that_it_has() {
    let level = Level::new(Limits { guards: 2, ..LIMITS });
    let guarded = level.allocate(40_000, 8).unwrap();
    let without = level.allocate(40_000, 8).unwrap();
    level.free(without, 40_000, 8);
    assert_eq!(level.hardened.stats().guards_left_out, 3, "two when it was handed out, one when it was freed");
    level.free(guarded, 40_000, 8);
    let stats = level.hardened.stats();
    assert_eq!((stats.guards_standing, stats.guards_left_out, stats.guards_refused), (2, 3, 0));
    level.hardened.collect(level.cx(), true);
    let late = level.allocate(40_000, 8).unwrap();
    assert!(bytes_of(late, 40_000).iter().all(|&byte| byte == 0));
    assert_eq!(level.hardened.stats().guards_standing, 2);
}

#[test]
#[cfg(not(miri))]
fn guards_cannot_be_read_and_freed_large_blocks_cannot_either() {
    let level = Level::new(LIMITS);
    for bytes in [24, 5000] {
        let page = level.allocate(bytes, 8).unwrap().addr().get() & !(OS_PAGE_BYTES - 1);
        assert!(is_readable(page));
        let closed =
            |pages: Vec<usize>| pages.into_iter().find(|page| !is_readable(*page)).map(|page| page % SLAB_BYTES);
        // The first page of a unit below, the last one above. What is not committed yet has the opposite ends.
        let below = closed((0..256).map(|number| page - number * OS_PAGE_BYTES).collect());
        let above = closed((0..256).map(|number| page + number * OS_PAGE_BYTES).collect());
        assert_eq!((below, above), (Some(0), Some(SLAB_BYTES - OS_PAGE_BYTES)), "{bytes}");
    }
    for bytes in [40_000, 300_000, 5_000_000] {
        let block = level.allocate(bytes, 16).unwrap();
        let start = block.addr().get();
        assert!(is_readable(start) && is_readable(start + bytes - 1));
        assert!(!is_readable((start + bytes).next_multiple_of(16)), "{bytes}: the byte behind");
        assert!(!is_readable((start & !(OS_PAGE_BYTES - 1)) - 1), "{bytes}: the page before");
        level.free(block, bytes, 16);
        assert!(!is_readable(start) && !is_readable(start + bytes - 1), "{bytes}: freed");
    }
}
