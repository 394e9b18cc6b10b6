//! A fork while other threads work with the box.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use hakmem_atomic_ops::Flag;
use hakmem_bigcache::{BigCache, BigPolicy};
use support::{Heap, address_of};

const MIB: usize = 1 << 20;

/// Hunts: a child that waits for a lock or a pin slot of a thread that it does not have, or in which an epoch stays pinned.
#[test]
#[cfg_attr(miri, ignore = "Miri's programs do not fork")]
fn a_child_goes_on_with_blocks_inside_and_outside() {
    let (heap, cache) = (Heap::new(32 * MIB, BigPolicy::DEFAULT), BigCache::new());
    let take = |bytes| cache.allocate(&heap.cx(), bytes, 16, false).map(address_of);
    let steady = take(50 * MIB).unwrap();
    let stop = Flag::new(false);
    std::thread::scope(|scope| {
        for bytes in [3 * MIB, 40 * MIB, 45 * MIB] {
            let (heap, cache, stop) = (&heap, &cache, &stop);
            scope.spawn(move || {
                while !stop.is_set_relaxed() {
                    let block = cache.allocate(&heap.cx(), bytes, 16, false).map(address_of).unwrap();
                    assert!(heap.free(cache, block));
                }
            });
        }
        let all_well = (0..30).all(|_| {
            cache.lock_for_fork();
            heap.os.lock_for_fork();
            // SAFETY: the child calls this box, whose locks are held, and `_exit`.
            let child = unsafe { libc::fork() };
            // SAFETY: taken by this thread above, here or in the parent.
            unsafe { heap.os.unlock_after_fork() };
            // SAFETY: as above.
            unsafe { cache.unlock_after_fork() };
            if child == 0 {
                // SAFETY: ends the child if it hangs.
                unsafe { libc::alarm(20) };
                let is_well = (0..40).all(|_| {
                    let blocks = [take(40 * MIB), take(3 * MIB)];
                    cache.outside_find(steady) == Some(50 * MIB)
                        && blocks.into_iter().all(|block| block.is_some_and(|block| heap.free(&cache, block)))
                });
                // SAFETY: does not return, and runs nothing of the parent's.
                unsafe { libc::_exit(i32::from(!is_well)) };
            }
            let mut status = -1;
            // SAFETY: waits for the child made above.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            waited == child && status == 0
        });
        stop.store_release(true);
        assert!(all_well, "a child failed or hung");
    });
    assert!(heap.free(&cache, steady));
    cache.check_invariants();
}
