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
    // Of four superslabs that are to move at once, then by two, then one by one, these are copied: all; the first; the first two;
    // and all again, which come where some were copied from before.
    for (mark, refused) in [(6, 100), (7, 3), (8, 4), (9, 100)] {
        let block = cache.allocate(&heap.cx(), 8 * MIB, 16, false).unwrap();
        assert!(!block.zeroed || is_filled(block, 8 * MIB, 0));
        fill(block, 0, 8 * MIB, mark);
        refuse_calls(Call::Mremap, 0, refused);
        let moved = cache.move_to(&heap.cx(), heap.index_of(block), 8 * MIB, 20 * MIB).unwrap();
        refuse_nothing();
        assert!(is_filled(moved, 8 * MIB, mark));
        heap.free(&cache, address_of(moved));
        cache.flush(&heap.cx());
    }
    heap.os.check_invariants();
}
