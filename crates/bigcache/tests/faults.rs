//! What happens when the kernel refuses. The plan of refusals is global: one test, in a process of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use hakmem_bigcache::{BigCache, BigPolicy};
use hakmem_superslab_os::{Call, refuse_calls, refuse_nothing};
use support::{Heap, address_of, fill, is_filled};

const MIB: usize = 1 << 20;

#[test]
fn pages_that_cannot_be_moved_are_copied() {
    let (heap, cache) = (Heap::new(1 << 30, BigPolicy::DEFAULT), BigCache::new());
    for round in 0..2 {
        let block = cache.allocate(&heap.cx(), 8 * MIB, 16, false).unwrap();
        assert!(!block.zeroed || is_filled(block, 8 * MIB, 0));
        fill(block, 0, 8 * MIB, 6 + round);
        refuse_calls(Call::Mremap, 0, 100);
        let moved = cache.move_to(&heap.cx(), heap.index_of(block), 8 * MIB, 20 * MIB).unwrap();
        refuse_nothing();
        assert!(is_filled(moved, 8 * MIB, 6 + round));
        heap.free(&cache, address_of(moved));
        cache.flush(&heap.cx());
    }
    heap.os.check_invariants();
}
