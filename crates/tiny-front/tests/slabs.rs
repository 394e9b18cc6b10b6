//! Slabs that get another owner, that are kept empty, and that are given back.

#![allow(clippy::unwrap_used, reason = "test helpers: a panic is the test's failure")]

mod common;

use common::{give, new_front, new_heap, take};
use hakmem_base::{BinPlace, SLAB_BYTES, SizeClass};
use hakmem_ownership::{BinPtr, Route};
#[cfg(not(any(miri, feature = "ablation-object-header")))]
use hakmem_testkit::Child;
use hakmem_tiny_front::{Front, FrontPolicy, Heap};
use std::ptr::NonNull;

fn class(bytes: usize) -> SizeClass {
    SizeClass::for_bytes(bytes).unwrap()
}

fn capacity(class: SizeClass) -> usize {
    usize::from(class.geometry().capacity)
}

/// Past the cache: a block that comes back goes to its slab.
fn uncached(keep_empty_slabs: bool) -> FrontPolicy {
    FrontPolicy { pool_classes: u128::MAX, keep_empty_slabs, ..FrontPolicy::DEFAULT }
}

/// The routes of all units between the first and the last of these blocks of one slab.
fn routes_of(front: &Front, class: SizeClass, blocks: &[NonNull<u8>]) -> Vec<Route> {
    let first = blocks.iter().map(|block| block.addr().get()).min().unwrap() & !(SLAB_BYTES - 1);
    let units = usize::from(class.geometry().units);
    (0..units).map(|unit| front.route_of(first + unit * SLAB_BYTES).unwrap().route()).collect()
}

fn bin_ptr(heap: &Heap, class: SizeClass) -> BinPtr {
    BinPtr::new(std::ptr::from_ref(heap.bin(class)).cast_mut().cast())
}

/// Hunts: units of a slab that the adopter does not own, blocks that nobody carves any more, and a slab taken where one would do.
#[test]
fn who_adopts_a_slab_owns_all_of_it_and_has_all_its_blocks() {
    for bytes in [64, 1024, 9000, 20_000] {
        let (front, class) = (new_front(256 << 20), class(bytes));
        let [leaver, adopter] = [(); 2].map(|()| new_heap(front, uncached(true)));
        let (count, mut held) = (capacity(class), vec![take(front, leaver, class)]);
        let back = take(front, leaver, class);
        give(front, Some(leaver), back);
        front.leave(leaver);
        assert_eq!(front.orphans(), (1, class.block_bytes() as u64), "{bytes}");
        assert!(routes_of(front, class, &held).iter().all(|route| *route == Route::Orphan(class)), "{bytes}");
        held.extend((1..count).map(|_| take(front, adopter, class)));
        held.sort();
        held.dedup();
        assert_eq!(held.len(), count, "{bytes}: a block was handed out twice");
        let counters = &adopter.counters;
        assert_eq!((counters.adopts.get(), counters.fresh_slabs.get(), front.orphans()), (1, 0, (0, 0)), "{bytes}");
        let owner = Route::Owned(bin_ptr(adopter, class));
        assert!(routes_of(front, class, &held).iter().all(|route| *route == owner), "{bytes}");
        front.check_invariants(adopter);
        let other = take(front, adopter, class);
        assert_eq!(counters.fresh_slabs.get(), 1, "{bytes}: the adopted slab is used up");
        held.into_iter().chain([other]).for_each(|block| give(front, Some(adopter), block));
        assert_eq!(front.heapless_frees(), 0);
        front.collect(adopter);
        front.check_invariants(adopter);
        assert_eq!(front.os.stats().in_use_bytes, 0, "{bytes}");
    }
}

/// Hunts: lines of one set of the cache for the first blocks of all classes, and a list of fresh blocks that has lost some or does not end.
#[test]
fn first_blocks_of_slabs_lie_anywhere_in_their_first_pages() {
    const PAGE_BYTES: usize = 4096;
    let front = new_front(256 << 20);
    let heap = new_heap(front, FrontPolicy::DEFAULT);
    let mut colours = Vec::new();
    for class in SizeClass::all().filter(|class| (64..=512).contains(&class.block_bytes())) {
        let mut blocks: Vec<_> = (0..capacity(class)).map(|_| take(front, heap, class).addr().get()).collect();
        assert_eq!(heap.counters.fresh_slabs.get(), 1 + colours.len() as u64, "one slab has room for them all");
        colours.push((blocks[0] % SLAB_BYTES) / 64);
        blocks.sort_unstable();
        let first = blocks[0];
        assert!(first % SLAB_BYTES < 64, "the slab is used from its beginning");
        let step = class.geometry().block_bytes as usize;
        let all = (0..blocks.len()).map(|index| first + index * step);
        assert!(all.eq(blocks), "{} B: each block once", class.block_bytes());
    }
    assert!(colours.iter().all(|line| *line < PAGE_BYTES / 64), "the first page is touched first: {colours:?}");
    let classes = colours.len();
    colours.sort_unstable();
    colours.dedup();
    assert!(2 * colours.len() > classes, "{classes} classes, lines {colours:?}");
}

/// A slab has something to offer if it has free blocks or ones that were never carved; one of the two is enough.
#[test]
fn a_slab_is_offered_with_free_blocks_or_with_blocks_to_carve() {
    let class = class(1024);
    for (taken, returned) in [(1, 0), (capacity(class), 1), (capacity(class), 0)] {
        let front = new_front(256 << 20);
        let policy = FrontPolicy { refill_one: true, ..uncached(true) };
        let [leaver, adopter] = [(); 2].map(|()| new_heap(front, policy));
        let mut blocks: Vec<_> = (0..taken).map(|_| take(front, leaver, class)).collect();
        (0..returned).for_each(|_| give(front, Some(leaver), blocks.pop().unwrap()));
        front.leave(leaver);
        let offers = blocks.len() < capacity(class);
        take(front, adopter, class);
        let counters = (adopter.counters.adopts.get(), adopter.counters.fresh_slabs.get());
        assert_eq!(counters, if offers { (1, 0) } else { (0, 1) }, "{taken} taken, {returned} returned");
        assert_eq!(front.orphans().0, u32::from(!offers));
        front.check_invariants(adopter);
    }
}

#[test]
fn an_address_tells_whose_a_block_is() {
    let front = new_front(256 << 20);
    let [heap, other] = [(); 2].map(|()| new_heap(front, FrontPolicy::DEFAULT));
    for bytes in [64, 1024, 20_000] {
        let class = class(bytes);
        let blocks: Vec<_> = (0..capacity(class)).map(|_| take(front, heap, class)).collect();
        for &block in &blocks {
            let address = block.addr().get();
            let place = BinPlace::of_class(class);
            assert_eq!(heap.own_at(address), Some((place, heap.unit_of(address))), "{bytes}");
            assert_eq!((heap.own_place_at(address), other.own_at(address)), (Some(place), None), "{bytes}");
            // SAFETY: the block is the test's.
            let is_own = |heap, class| unsafe { front.is_own(heap, class, block) };
            assert!(is_own(heap, class) && !is_own(other, class) && !is_own(heap, SizeClass::for_tiny(128)), "{bytes}");
            assert!(front.is_block_of(address, class) && !front.is_block_of(address + 8, class), "{bytes}");
        }
        front.leave(heap);
        heap.open(front.view());
        assert!(blocks.iter().all(|block| heap.own_at(block.addr().get()).is_none()), "{bytes}: nobody's");
        blocks.iter().for_each(|block| give(front, None, *block));
    }
    assert_eq!(front.heapless_frees() as usize, [64, 1024, 20_000].map(|bytes| capacity(class(bytes))).iter().sum());
    let window = front.os.window().unwrap();
    let end = window.base.addr() + window.slab_count as usize * SLAB_BYTES;
    for address in [0, window.base.addr() - 1, end, usize::MAX] {
        assert!(heap.own_at(address).is_none() && front.index_of(address).is_none(), "{address:#x}");
    }
}

#[test]
fn a_slab_that_is_given_back_is_nobodys() {
    for bytes in [64, 9000, 20_000] {
        let (front, class) = (new_front(256 << 20), class(bytes));
        let heap = new_heap(front, uncached(false));
        let blocks: Vec<_> = (0..capacity(class)).map(|_| take(front, heap, class)).collect();
        assert!(routes_of(front, class, &blocks).iter().all(|route| *route == Route::Owned(bin_ptr(heap, class))));
        blocks.iter().for_each(|block| give(front, Some(heap), *block));
        assert_eq!((heap.counters.retired_slabs.get(), front.os.stats().in_use_bytes), (1, 0), "{bytes}");
        assert!(routes_of(front, class, &blocks).iter().all(|route| *route == Route::Unused), "{bytes}");
        front.check_invariants(heap);
    }
}

/// The slab-reuse guard: damage that reached a free list ends the process before the slab serves anybody else.
#[cfg(not(any(miri, feature = "ablation-object-header")))]
#[test]
fn a_slab_whose_free_list_lost_a_block_is_not_given_back() {
    if Child::role().is_some() {
        let (front, class) = (new_front(256 << 20), class(1024));
        let heap = new_heap(front, FrontPolicy { slab_reuse_guard: true, ..uncached(false) });
        let blocks: Vec<_> = (0..capacity(class)).map(|_| take(front, heap, class)).collect();
        let (first, rest) = blocks.split_at(2);
        first.iter().for_each(|block| give(front, Some(heap), *block));
        // SAFETY: the block was freed, and the memory is still the front's: a write through a dangling pointer, which leaves no trace
        // but a link that leads nowhere.
        unsafe { first[1].cast::<usize>().write(0) };
        rest.iter().for_each(|block| give(front, Some(heap), *block));
        return;
    }
    let ended = Child::of_test("a_slab_whose_free_list_lost_a_block_is_not_given_back", "damage").run();
    assert!(ended.stderr.contains("slab is given back while blocks of it are elsewhere"), "{}", ended.stderr);
    assert!(ended.status.is_some_and(|status| !status.success()));
}

#[test]
fn one_empty_slab_of_a_unit_is_kept_and_carved_again() {
    let (front, class) = (new_front(256 << 20), class(1024));
    let heap = new_heap(front, uncached(true));
    let turn = |slabs: usize| {
        let mut blocks: Vec<_> = (0..slabs * capacity(class)).map(|_| take(front, heap, class)).collect();
        assert_eq!(front.os.stats().in_use_bytes, slabs * SLAB_BYTES);
        blocks.sort();
        blocks.dedup();
        assert_eq!(blocks.len(), slabs * capacity(class), "a block was handed out twice");
        blocks.into_iter().for_each(|block| give(front, Some(heap), block));
        front.check_invariants(heap);
        assert_eq!(front.os.stats().in_use_bytes, SLAB_BYTES);
        (heap.counters.fresh_slabs.get(), heap.counters.retired_slabs.get())
    };
    assert_eq!(turn(3), (3, 2));
    assert_eq!(turn(1), (3, 2), "the one that was kept");
    assert_eq!(turn(2), (4, 3));
    front.collect(heap);
    assert_eq!(front.os.stats().in_use_bytes, 0, "kept until the heap is tidied up");
}

/// Hunts: slabs that stay because a block of another one does, because they were kept to be carved, or because their last blocks wait
/// in the mail.
#[test]
fn tidying_up_gives_back_every_slab_of_which_nothing_is_in_use() {
    for (policy, slabs) in [(FrontPolicy::DEFAULT, 4), (uncached(true), 2), (uncached(false), 3)] {
        let (front, class) = (new_front(256 << 20), class(1024));
        let [heap, stranger] = [(); 2].map(|()| new_heap(front, policy));
        let mut blocks: Vec<_> = (0..slabs * capacity(class)).map(|_| take(front, heap, class)).collect();
        blocks.sort();
        let last = blocks.pop().unwrap();
        blocks.into_iter().for_each(|block| give(front, Some(heap), block));
        front.collect(heap);
        front.check_invariants(heap);
        assert_eq!(front.os.stats().in_use_bytes, SLAB_BYTES, "one block is in use");
        give(front, Some(stranger), last);
        front.flush_outbox(stranger);
        front.collect(heap);
        front.check_invariants(heap);
        assert_eq!(front.os.stats().in_use_bytes, 0, "it has come by mail");
    }
}

#[test]
fn an_empty_slab_of_several_units_is_not_kept() {
    let (front, class) = (new_front(256 << 20), class(20_000));
    assert!(class.geometry().units > 1, "the test needs such a class");
    let heap = new_heap(front, uncached(true));
    let blocks: Vec<_> = (0..2 * capacity(class)).map(|_| take(front, heap, class)).collect();
    blocks.into_iter().for_each(|block| give(front, Some(heap), block));
    assert_eq!((heap.counters.retired_slabs.get(), front.os.stats().in_use_bytes), (2, 0));
    front.check_invariants(heap);
}
