//! The box through its public face.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a panic is how a test fails")]

mod support;

use hakmem_base::{Life, SITE_FRAMES};
use hakmem_base::{SLAB_BYTES, SizeClass, SlabIndex};
use hakmem_ownership::{Route, RouteWord};
use hakmem_watched::{Birth, WatchedContext, WatchedPool, Wrong};
use support::{World, birth};

fn class(bytes: usize) -> SizeClass {
    SizeClass::for_bytes(bytes).unwrap()
}

fn life(ns: u64, allocs: Option<u64>) -> Life {
    Life { bytes: 100, weight: 7, ns, allocs, frames: [3; SITE_FRAMES], ..Life::default() }
}

#[test]
fn a_life_is_told_once_with_all_that_is_known_of_it() {
    let world = World::new();
    let block = world.take(100, &birth(100, 50));
    assert_eq!(world.pool.usable_bytes(world.note(block), block), Ok(class(100).block_bytes()));
    assert_eq!(world.alive(80), [Life { at_ns: 80, ..life(30, None) }]);
    assert_eq!(world.give(block, 1050), Ok(()));
    let told = Life { at_ns: 1050, ..life(1000, Some(25)) };
    assert_eq!((world.told(), world.told(), world.alive(80)), (vec![told], vec![], vec![]));
    let stats = world.pool.stats();
    assert_eq!((stats.births, stats.live_bytes, stats.lost, stats.no_place), (1, 0, 0, 0));
    world.pool.check_invariants();
}

#[test]
fn a_life_that_another_heap_ends_has_no_number_of_allocations() {
    let world = World::new();
    let block = world.take(5000, &birth(5000, 0));
    assert_eq!(world.pool.free(world.note(block), block, 10, |_heap| None), Ok(()));
    assert_eq!(world.told()[0].allocs, None);
}

/// Of every class as many as there are places for in the largest groups, whose classes share 32.
#[test]
fn blocks_are_apart_aligned_as_their_class_and_long_enough() {
    let world = World::new();
    let mut places = Vec::new();
    for class in SizeClass::all() {
        for _ in 0..if cfg!(miri) { 1 } else { 4 } {
            let block = world.take(class.block_bytes(), &birth(class.block_bytes(), 0));
            assert_eq!(block % (1 << class.block_bytes().trailing_zeros()), 0, "{class:?}");
            world.fill(block, class.block_bytes());
            places.push((block, class.block_bytes()));
        }
    }
    places.sort_unstable();
    assert!(places.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0));
    assert!(places.iter().all(|(block, bytes)| block & !(SLAB_BYTES - 1) == (block + bytes - 1) & !(SLAB_BYTES - 1)));
    let all: usize = places.iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(world.pool.stats().live_bytes, all as u64);
    world.pool.check_invariants();
    for (block, _) in &places {
        assert_eq!(world.give(*block, 1), Ok(()));
        world.told();
    }
    world.pool.check_invariants();
}

#[test]
fn freed_places_serve_again_before_new_ones() {
    let world = World::new();
    let first: Vec<_> = (0..5).map(|_| world.take(200, &birth(200, 0))).collect();
    first.iter().for_each(|block| world.give(*block, 1).unwrap());
    let mut again: Vec<_> = (0..5).map(|_| world.take(256, &birth(256, 0))).collect();
    again.sort_unstable();
    assert_eq!(again, first, "of another class whose blocks fit the same places");
    assert_eq!(world.pool.usable_bytes(world.note(first[0]), first[0]), Ok(256));
}

#[test]
fn wrong_pointers_are_told_apart() {
    let world = World::new();
    let block = world.take(48, &birth(48, 0));
    for wrong in [block + 1, block + 16, block + 64, block + SLAB_BYTES - 64] {
        assert_eq!(world.give(wrong, 1), Err(Wrong::NoStart), "{wrong:x} beside {block:x}");
        assert_eq!(world.pool.usable_bytes(world.note(wrong), wrong), Err(Wrong::NoStart));
    }
    assert_eq!(world.give(block, 1), Ok(()));
    assert_eq!(world.give(block, 1), Err(Wrong::Freed));
    assert_eq!(world.pool.usable_bytes(world.note(block), block), Err(Wrong::Freed));
    assert_eq!(world.told().len(), 1);
    world.pool.check_invariants();
}

#[test]
fn what_does_not_fit_the_ring_is_counted_as_lost() {
    let world = World::new();
    let count = if cfg!(miri) { 40 } else { 600 };
    let blocks: Vec<_> = (0..count).map(|_| world.take(16, &birth(16, 0))).collect();
    blocks.iter().for_each(|block| world.give(*block, 1).unwrap());
    let told = world.told().len() as u64;
    assert!(told < count && told + world.pool.stats().lost == count);
    assert_eq!(world.give(world.take(16, &birth(16, 0)), 1), Ok(()));
    assert_eq!(world.told().len(), 1, "there is room again");
}

#[test]
fn places_are_bounded_and_what_finds_none_is_counted() {
    let world = World::new();
    let mut blocks = Vec::new();
    while let Some(block) = world.try_take(32 << 10, &birth(1, 0)) {
        blocks.push(block);
    }
    assert_eq!((blocks.len(), world.pool.stats().no_place), (32, 1), "16 units of two places");
    world.pool.check_invariants();
    assert_eq!(world.give(blocks[7], 1), Ok(()));
    assert_eq!(world.try_take(32 << 10, &birth(1, 0)), Some(blocks[7]));
    assert!(world.try_take(16 << 10, &birth(1, 0)).is_some(), "others have places of their own");
}

#[test]
fn of_many_frees_at_once_one_wins() {
    let world = World::new();
    for round in 0..if cfg!(miri) { 5 } else { 500 } {
        let block = world.take(100, &birth(100, round));
        let won = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..3).map(|_| scope.spawn(|| world.give(block, round + 1).is_ok())).collect();
            tries.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum::<usize>()
        });
        assert_eq!((won, world.told().len()), (1, 1));
    }
    world.pool.check_invariants();
}

#[test]
fn a_child_is_not_told_what_its_parent_was_to_be_told() {
    let world = World::new();
    let (freed, kept) = (world.take(16, &birth(16, 0)), world.take(16, &birth(16, 0)));
    world.give(freed, 1).unwrap();
    world.pool.lock_for_fork();
    // SAFETY: taken in the line before.
    unsafe { world.pool.unlock_after_fork() };
    world.pool.forget_in_child();
    assert_eq!(world.told(), []);
    world.give(kept, 5).unwrap();
    assert_eq!(world.told().len(), 1);
}

#[test]
fn a_block_elsewhere_is_watched_where_it_is_and_its_route_comes_back() {
    let world = World::new();
    for (number, (units, bytes)) in [(3, 150_000), (0, 5 << 20)].into_iter().enumerate() {
        let unit = SlabIndex::new(40 + number as u32);
        let word = world.routes.get(unit.to_usize()).unwrap();
        if units == 0 {
            word.set_big(bytes, 5);
        } else {
            word.set_run(units, bytes);
        }
        let before = word.route();
        assert!(world.pool.watch(unit, word, &birth(bytes - 7, 10)));
        let Route::Watched(note) = word.route() else { panic!("{:?}", word.route()) };
        assert_eq!(world.pool.route_elsewhere(note, unit), Some(Ok(before)));
        assert_eq!(world.pool.route_elsewhere(note, SlabIndex::new(50)), Some(Err(Wrong::Freed)), "another block's");
        assert_eq!(world.alive(30).len(), 1);
        let (route, paused) = world.pool.pause(unit, word, note).unwrap();
        assert_eq!((route, word.route(), paused), (before, before, birth(bytes - 7, 10)));
        assert_eq!(world.pool.pause(unit, word, note), Err(Wrong::Freed));
        assert!(world.pool.watch(unit, word, &paused));
        let Route::Watched(note) = word.route() else { panic!("{:?}", word.route()) };
        assert_eq!(world.pool.free_elsewhere(unit, word, note, 60, |_| Some(101), |_| None), Ok(before));
        assert_eq!(word.route(), Route::Unused);
        assert_eq!(world.pool.free_elsewhere(unit, word, note, 60, |_| None, |_| None), Err(Wrong::Freed));
        let told = world.told();
        assert_eq!((told.len(), told[0].bytes, told[0].ns, told[0].allocs), (1, bytes - 7, 50, Some(1)));
        world.pool.check_invariants();
    }
    assert_eq!((world.pool.stats().births, world.pool.stats().live_bytes), (2, 0));
}

/// The third superslab of a block that begins at unit 64 is looked at, while it lives and at its end.
#[test]
fn the_superslab_that_was_chosen_at_birth_is_looked_at() {
    let world = World::new();
    let unit = SlabIndex::new(64);
    let word = world.routes.get(unit.to_usize()).unwrap();
    for (probe, told) in [(3, Some(7)), (0, None)] {
        word.set_big(8 << 20, 0);
        assert!(world.pool.watch(unit, word, &Birth { probe, ..birth(8 << 20, 10) }));
        let Route::Watched(note) = word.route() else { panic!("{:?}", word.route()) };
        let look = |seen: SlabIndex| (seen.get() == 64 + 2 * 32).then_some(7);
        let mut alive = Vec::new();
        world.pool.for_each_alive(30, look, |life| alive.push(life.touched_permille));
        assert_eq!(alive, [told]);
        world.pool.free_elsewhere(unit, word, note, 60, |_| None, look).unwrap();
        assert_eq!(world.told()[0].touched_permille, told);
    }
}

#[test]
fn a_unit_of_places_is_not_a_block_elsewhere_and_the_other_way_round() {
    let world = World::new();
    let block = world.take(100, &birth(100, 0));
    let unit = world.os.index_of(block).unwrap();
    assert_eq!(world.pool.route_elsewhere(world.note(block), unit), None);
    let word = world.routes.get(unit.to_usize()).unwrap();
    assert!(!world.pool.watch(unit, word, &birth(100, 0)), "it is neither a run nor a big block");
    world.pool.check_invariants();
}

/// A second free, or resize, of a block whose slot is another block's by now.
#[test]
fn an_old_note_leads_to_nobody_elses_block() {
    let world = World::new();
    let [first, next] = [40, 50].map(|unit| (SlabIndex::new(unit), world.routes.get(unit as usize).unwrap()));
    let watch = |(unit, word): (SlabIndex, &RouteWord)| {
        word.set_run(2, 100_000);
        assert!(world.pool.watch(unit, word, &birth(100_000, 0)));
        let Route::Watched(note) = word.route() else { panic!("{:?}", word.route()) };
        note
    };
    let free = |(unit, word), note| world.pool.free_elsewhere(unit, word, note, 60, |_| None, |_| None);
    let note = watch(first);
    free(first, note).unwrap();
    assert_eq!(watch(next), note, "the slot serves again");
    assert_eq!(free(first, note), Err(Wrong::Freed));
    assert_eq!(world.pool.pause(first.0, first.1, note), Err(Wrong::Freed));
    assert_eq!(first.1.route(), Route::Unused);
    assert_eq!(free(next, note), Ok(Route::Run { units: 2, bytes: 100_000 }));
    world.pool.check_invariants();
}

#[test]
fn of_many_frees_of_a_block_elsewhere_one_wins() {
    let world = World::new();
    let (unit, word) = (SlabIndex::new(40), world.routes.get(40).unwrap());
    for round in 0..if cfg!(miri) { 5 } else { 500 } {
        word.set_run(1, 60_000);
        assert!(world.pool.watch(unit, word, &birth(60_000, round)));
        let Route::Watched(note) = word.route() else { panic!("{:?}", word.route()) };
        let won = std::thread::scope(|scope| {
            let free = || world.pool.free_elsewhere(unit, word, note, round + 1, |_| None, |_| None).is_ok();
            let tries: Vec<_> = (0..3).map(|_| scope.spawn(free)).collect();
            tries.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum::<usize>()
        });
        assert_eq!((won, world.told().len()), (1, 1));
    }
    world.pool.check_invariants();
}

/// The watch over a block ends for the time of a resize; meanwhile somebody else may have taken its slot.
#[test]
fn a_life_that_finds_no_slot_again_is_lost_once() {
    let world = World::new();
    let words: Vec<RouteWord> = (0..1025).map(|_| RouteWord::new()).collect();
    let watch = |number: usize| world.pool.watch(SlabIndex::new(number as u32), &words[number], &birth(60_000, 0));
    words.iter().for_each(|word| word.set_run(1, 65_536));
    assert!((0..1024).all(watch));
    let Route::Watched(note) = words[7].route() else { panic!("{:?}", words[7].route()) };
    world.pool.pause(SlabIndex::new(7), &words[7], note).unwrap();
    assert!(watch(1024) && !watch(7));
    let stats = world.pool.stats();
    assert_eq!((stats.births, stats.no_place, stats.lost), (1024, 1, 0));
    assert_eq!(words[7].route(), Route::Run { units: 1, bytes: 65_536 });
    world.pool.check_invariants();
}

#[test]
fn without_memory_nothing_is_watched() {
    let (world, pool) = (World::new(), WatchedPool::new());
    let cx = WatchedContext { os: &world.os, routes: &world.routes };
    assert!(pool.allocate(&cx, class(100), &birth(100, 0)).is_none());
    let word = RouteWord::new();
    word.set_run(1, 60_000);
    assert!(!pool.watch(SlabIndex::new(40), &word, &birth(60_000, 0)));
    assert_eq!((pool.stats().births, pool.stats().no_place), (0, 2));
    pool.for_each_alive(1, |_| None, |life| panic!("{life:?}"));
    pool.check_invariants();
}

#[test]
fn nobody_gets_a_place_or_is_told_a_life_while_a_fork_is_prepared() {
    let world = World::new();
    let take = |world: &World| _ = world.take(100, &birth(100, 0));
    let be_told = |world: &World| _ = world.told();
    for work in [take as fn(&World), be_told] {
        world.pool.lock_for_fork();
        let is_done = hakmem_atomic_ops::Flag::new(false);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                work(&world);
                // ORDERING: says that it is done; nothing travels.
                is_done.store_release(true);
            });
            // Most of the time the other one is at it meanwhile.
            for _ in 0..200 {
                assert!(!is_done.is_set_relaxed());
                std::thread::yield_now();
            }
            // SAFETY: taken above.
            unsafe { world.pool.unlock_after_fork() };
            other.join().unwrap();
        });
    }
}

#[test]
fn slots_for_blocks_elsewhere_are_bounded() {
    let world = World::new();
    let words: Vec<RouteWord> = (0..1100).map(|_| RouteWord::new()).collect();
    let watched = words.iter().enumerate().filter(|(number, word)| {
        word.set_run(1, 65_536);
        world.pool.watch(SlabIndex::new(*number as u32), word, &birth(60_000, 0))
    });
    assert_eq!(watched.count(), 1024);
    assert_eq!((world.pool.stats().births, world.pool.stats().no_place), (1024, 76));
    world.pool.check_invariants();
}
