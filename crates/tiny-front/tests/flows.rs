//! What a heap counts of the blocks that go through it.

#![allow(clippy::unwrap_used, reason = "test helpers: a panic is the test's failure")]

mod common;

use common::{give, new_front, new_heap, take};
use hakmem_base::SizeClass;
use hakmem_tiny_front::{ClassFlow, FrontPolicy};

/// What learners read must add up with what the program did: every allocation and every refill of the class and of no other
/// one, and the blocks that the cache had no room for.
#[test]
fn what_goes_through_a_class_is_counted_by_its_slow_paths() {
    let front = new_front(256 << 20);
    let heap = new_heap(front, FrontPolicy { cache_growth: false, ..FrontPolicy::DEFAULT });
    let (class, other) = (SizeClass::for_tiny(64), SizeClass::for_tiny(128));
    let blocks: Vec<_> = (0..1000).map(|_| take(front, heap, class)).collect();
    let left = u64::from(heap.bin(class).cached());
    blocks.into_iter().for_each(|block| give(front, Some(heap), block));
    let cached = u64::from(heap.bin(class).cached());
    front.collect(heap);
    let flow = heap.flow(class);
    assert_eq!(flow.allocs, 1000);
    assert_eq!(u64::from(flow.refills), heap.counters.refills.get());
    assert!(flow.refills > 1, "{flow:?}");
    assert_eq!(u64::from(flow.spills), left + 1000 - cached, "{flow:?}");
    assert_eq!(u64::from(flow.spills), heap.counters.spills.get());
    assert_eq!(heap.flow(other), ClassFlow::default());
}
