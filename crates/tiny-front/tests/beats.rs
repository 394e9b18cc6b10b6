//! Heartbeats: how far apart they are, which allocations are looked at, and what a heap counts of itself.

#![allow(clippy::unwrap_used, reason = "test helpers: a panic is the test's failure")]

mod common;

use common::{give, new_front, new_heap, take};
use hakmem_base::SizeClass;
use hakmem_publish_adopt::SlabWords;
use hakmem_tiny_front::{Front, FrontPolicy, Heap, Pop};

/// Allocations of each test.
const ALLOCS: u32 = 20_000;

/// Heartbeats of some allocations that were due to be looked at, and those that were for the usual duties.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Beats {
    due: u32,
    routine: u32,
}

/// Allocates and frees blocks of these sizes in turns, as the gates do.
fn pairs(front: &Front, heap: &Heap, sizes: &[usize], count: u32) -> Beats {
    let mut beats = Beats::default();
    for (_, &bytes) in (0..count).zip(sizes.iter().cycle()) {
        let class = SizeClass::for_bytes(bytes).unwrap();
        let (block, is_at_beat) = match heap.pop(class) {
            Pop::Block(block) => (block, false),
            Pop::Beat(block) => (block, true),
            Pop::Empty => (front.refill_slow(heap, class).unwrap(), heap.is_at_beat(class)),
        };
        if is_at_beat {
            let beat = front.beat_slow(heap, class);
            beats.due += u32::from(beat.is_due);
            beats.routine += u32::from(beat.is_routine);
        }
        give(front, Some(heap), block);
    }
    beats
}

fn policy() -> FrontPolicy {
    FrontPolicy { heartbeat_allocs: 1000, ..FrontPolicy::DEFAULT }
}

#[test]
#[cfg_attr(miri, ignore = "many allocations, of which nothing but counts is looked at")]
fn without_samples_each_class_has_a_heartbeat_every_so_many_allocations() {
    let front = new_front(256 << 20);
    // A look at idle classes counts theirs, and their way to the next one begins anew.
    let heap = new_heap(front, FrontPolicy { idle_trim: false, ..policy() });
    assert_eq!(pairs(front, heap, &[64, 500], ALLOCS), Beats { due: 0, routine: ALLOCS / 1000 });
    assert_eq!((heap.counters.beats.get(), heap.allocs()), (u64::from(ALLOCS) / 1000, u64::from(ALLOCS)));
    assert!(!(0..1000).any(|_| heap.count_large_to_sample() || heap.count_large_to_watch()));
}

/// Where blocks have headers, small ones are not looked at.
#[cfg(not(feature = "ablation-object-header"))]
#[test]
#[cfg_attr(miri, ignore = "many allocations, of which nothing but counts is looked at")]
fn one_allocation_in_so_many_is_looked_at_and_duties_keep_their_rate() {
    let front = new_front(256 << 20);
    for mean in [1, 40, 3000] {
        let sampled = FrontPolicy { sample: mean, ..policy() };
        for (policy, watch) in [(sampled, 0), (policy(), mean), (sampled, 7)] {
            let heap = new_heap(front, policy);
            heap.stir(0x5eed);
            heap.set_watch_distance(watch);
            assert_eq!(heap.watch_distance(), watch);
            let beats = pairs(front, heap, &[64, 500, 64, 3000], ALLOCS);
            let (expected, tolerance) = (ALLOCS / mean, if mean == 1 { 0 } else { ALLOCS / mean / 8 + 4 });
            assert!(beats.due.abs_diff(expected) <= tolerance, "{beats:?} at a mean of {mean}");
            assert!((ALLOCS / 2000..=ALLOCS / 1000).contains(&beats.routine), "{beats:?} at a mean of {mean}");
            assert_eq!(heap.allocs(), ALLOCS.into());
        }
    }
}

/// Where blocks have headers, large ones are not sampled.
#[cfg(not(feature = "ablation-object-header"))]
#[test]
#[cfg_attr(miri, ignore = "many allocations, of which nothing but counts is looked at")]
fn large_blocks_are_sampled_or_else_watched_four_times_as_often() {
    let front = new_front(256 << 20);
    let counts = |policy: FrontPolicy, watch| {
        let heap = new_heap(front, policy);
        heap.stir(0x5eed);
        heap.set_watch_distance(watch);
        let count = |is_due: &dyn Fn() -> bool| (0..ALLOCS).filter(|_| is_due()).count() as u32;
        (count(&|| heap.count_large_to_sample()), count(&|| heap.count_large_to_watch()))
    };
    let sampled = FrontPolicy { sample: 400, ..policy() };
    let ((samples, none), (no_sample, watched)) = (counts(sampled, 400), counts(policy(), 400));
    assert_eq!((none, no_sample), (0, 0), "what is sampled is not watched");
    assert!(samples.abs_diff(ALLOCS / 400) < 20 && watched.abs_diff(ALLOCS / 100) < 40, "{samples}, {watched}");
    assert_eq!(counts(policy(), 0), (0, 0));
    assert_eq!(counts(policy(), 1).1, ALLOCS, "not more often than always");
}

#[test]
fn nothing_is_looked_at_any_more_once_nobody_wants_it() {
    let front = new_front(256 << 20);
    let heap = new_heap(front, policy());
    heap.stir(3);
    pairs(front, heap, &[64, 500], 100);
    heap.set_watch_distance(10);
    let watched = pairs(front, heap, &[64, 500], 1000);
    assert!(watched.due > 0 || cfg!(feature = "ablation-object-header"), "{watched:?}");
    heap.set_watch_distance(0);
    assert_eq!(pairs(front, heap, &[64, 500], 1000).due, 0);
    assert_eq!(heap.allocs(), 2100, "however often it has begun anew");
}

#[test]
fn a_heartbeat_reads_the_mail_and_sends_what_waits_for_others() {
    let front = new_front(256 << 20);
    let [owner, stranger] = [(); 2].map(|()| new_heap(front, policy()));
    let class = SizeClass::for_tiny(64);
    let mut blocks: Vec<_> = (0..8).map(|_| take(front, owner, class)).collect();
    let slab = front.slab_of(class, blocks[0]).unwrap();
    let queued = || front.tables().unwrap().remote(slab).count();
    // From here on neither of them needs anything from a slow path but its heartbeats.
    for heap in [owner, stranger] {
        pairs(front, heap, &[500], 1);
    }
    for (heap, block) in [(stranger, blocks.pop()), (stranger, blocks.pop())] {
        give(front, Some(heap), block.unwrap());
    }
    assert_eq!(queued(), 0, "they wait with the stranger");
    pairs(front, stranger, &[500], 1000);
    assert_eq!(queued(), 2);
    pairs(front, owner, &[500], 1000);
    assert_eq!(queued(), 0);
    front.check_invariants(owner);
}

#[test]
#[cfg_attr(miri, ignore = "many allocations, of which nothing but counts is looked at")]
fn a_class_that_idles_gives_back_what_it_caches_after_so_many_heartbeats() {
    for idle_trim in [true, false] {
        let front = new_front(256 << 20);
        let heap = new_heap(front, FrontPolicy { idle_trim, idle_trim_beats: 3, ..policy() });
        let report = || front.class_report(heap, SizeClass::for_tiny(64));
        pairs(front, heap, &[500, 64], 20);
        // The first look notes what a class has done so far, the second one sees that it has done nothing since.
        pairs(front, heap, &[500], 5000);
        assert!(report().cached > 0 && report().slabs == 1, "five heartbeats have one look");
        pairs(front, heap, &[500], 2000);
        assert_eq!((report().cached == 0, report().slabs == 0), (idle_trim, idle_trim));
        assert!(front.class_report(heap, SizeClass::for_tiny(500)).slabs == 1, "that one is busy");
    }
}

#[test]
#[cfg_attr(miri, ignore = "many allocations, of which nothing but counts is looked at")]
fn the_cap_of_a_class_that_idles_halves_down_to_a_fourth_of_its_first() {
    for cache_shrink in [true, false] {
        let front = new_front(256 << 20);
        let policy = FrontPolicy { idle_trim_beats: 1, cache_shrink, ..policy() };
        let (heap, class) = (new_heap(front, policy), SizeClass::for_tiny(64));
        let first = u32::from(policy.initial_cap(class));
        let cap = || front.class_report(heap, class).cap;
        pairs(front, heap, &[500, 64], 20);
        assert_eq!(cap(), first);
        let mut caps: Vec<u32> = (0..12).map(|_| (pairs(front, heap, &[500], 1000), cap()).1).collect();
        caps.dedup();
        let halved = [first, first / 2, first / 4];
        assert!(caps.ends_with(if cache_shrink { &halved[1..] } else { &halved[..1] }), "{caps:?}");
        assert!(caps.len() <= 3 && caps.is_sorted_by(|one, next| one > next), "{caps:?}");
    }
}

#[test]
fn random_numbers_differ_from_each_other_and_from_those_of_other_heaps() {
    let front = new_front(256 << 20);
    let [one, other, twin] = [1, 2, 1].map(|seed| {
        let heap = new_heap(front, policy());
        heap.stir(seed);
        [(); 100].map(|()| heap.random())
    });
    assert_eq!(one, twin);
    let mut all = [one, other].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 200);
}

#[test]
fn a_new_policy_reaches_every_class_that_is_in_use_dynamic_ones_too() {
    let front = new_front(256 << 20);
    let heap = new_heap(front, policy());
    let fixed = SizeClass::for_tiny(64);
    let dynamic = [1100, 4360, 30_000].map(|bytes| SizeClass::dynamic(bytes).unwrap());
    let used = || heap.used_classes().filter(|class| class.is_dynamic()).collect::<Vec<_>>();
    assert_eq!(used(), []);
    assert!(heap.used_classes().eq(SizeClass::all()));
    for class in dynamic {
        let block = take(front, heap, class);
        give(front, Some(heap), block);
    }
    let block = take(front, heap, fixed);
    give(front, Some(heap), block);
    assert_eq!(used(), dynamic);
    let next = FrontPolicy { pool_classes: u128::MAX, ..policy() };
    for (policy, is_cached) in [(policy(), true), (next, false), (policy(), true)] {
        heap.set_policy(policy);
        for class in [fixed, dynamic[0], dynamic[1], dynamic[2]] {
            assert_eq!(front.class_report(heap, class).cap != 0, is_cached, "{class:?}");
        }
        front.check_invariants(heap);
    }
    heap.set_policy(FrontPolicy { heartbeat_allocs: 10, idle_trim: false, ..policy() });
    assert_eq!(pairs(front, heap, &[64], 100).routine, 10);
    assert_eq!(heap.allocs(), 104);
    front.collect(heap);
    assert_eq!(front.os.stats().in_use_bytes, 0);
}
