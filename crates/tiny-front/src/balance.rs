//! What a heap's numbers say, and whether they agree with its lists.

use hakmem_base::{SizeClass, SlabIndex, fatal};
use hakmem_publish_adopt::SlabWords;

use crate::counters::{ClassReport, FrontReport};
use crate::front::Front;
use crate::heap::Heap;
use crate::raw;
use crate::warm::harvest_spills;

impl Front {
    /// Adds the heap's counters to a report. Any thread may ask; numbers of other threads are up to a heartbeat old.
    ///
    /// `flattened` is the set of classes whose pool is flattened (one bit each): the heap's own copy of the policy is its
    /// thread's alone to read.
    pub fn report(&self, heap: &Heap, flattened: u128, report: &mut FrontReport) {
        heap.counters.add_to(report);
        let mut pool_allocs = 0;
        for (class, bin) in heap.classes() {
            if flattened >> class.fixed().index() & 1 != 0 {
                pool_allocs += bin.allocs.get();
            }
            report.allocs += bin.allocs.get();
            report.delivered_bytes += u64::from(bin.delivered.get()) * class.block_bytes() as u64;
            report.cached_bytes += u64::from(bin.cached_seen.get()) * class.block_bytes() as u64;
        }
        report.pool_flatten_hits += pool_allocs.saturating_sub(heap.counters.pool_flatten_fallbacks.get());
    }

    /// Brings the numbers of the calling thread's own heap up to date before a report.
    pub fn settle_counts(&self, heap: &Heap) {
        for (class, bin) in heap.classes() {
            if bin.is_set_up() {
                heap.rewind(bin, class);
                harvest_spills(heap, class);
            }
        }
    }

    /// One class of a heap, for tests. Called by the heap's own thread: the lists are walked.
    #[must_use]
    pub fn class_report(&self, heap: &Heap, class: SizeClass) -> ClassReport {
        let bin = heap.bin(class);
        heap.settle(bin, class);
        let mut report = ClassReport {
            delivered: bin.delivered.get(),
            cached: bin.cached(),
            cap: u32::from(bin.cap.get()),
            ..ClassReport::default()
        };
        let Some(tables) = self.tables() else { return report };
        tables.list(&bin.partial).for_each(|_| report.partial_slabs += 1);
        tables.list(&bin.full).for_each(|_| report.slabs += 1);
        report.slabs += report.partial_slabs;
        report
    }

    /// Checks the balance of a heap: every list against every count. Called by the heap's own thread, in tests.
    ///
    /// # Panics
    /// Reports the first violation through [`fatal`].
    pub fn check_invariants(&self, heap: &Heap) {
        let Some(tables) = self.tables() else { return };
        for (class, bin) in heap.classes() {
            heap.settle(bin, class);
            let (mut used, mut cached) = (0, 0);
            let mut block = bin.head.get();
            while !block.is_null() {
                cached += 1;
                // SAFETY: the cache's list is this thread's.
                block = unsafe { raw::behind(block) };
            }
            check(cached == bin.cached(), "cached blocks disagree with the room counter");
            let mut visit = |slab: SlabIndex, partial: bool| {
                let state = tables.state(slab);
                used += state.used();
                check(state.has_free() == partial, "slab stands in the wrong list");
                check(tables.route_word(slab).is_mine(heap.bin_ptr(class)), "slab in a list of a stranger");
                check(state.used() <= state.carved(), "more blocks out than carved");
                check(state.carved() <= u32::from(class.geometry().capacity), "more blocks carved than fit");
                check(tables.remote(slab).count() <= state.used(), "more remote frees than blocks out");
                let (mut free, mut block) = (0, tables.first_free(slab));
                while !block.is_null() {
                    free += 1;
                    // SAFETY: the slab's free list is its owner's.
                    block = unsafe { raw::behind(block) };
                }
                check(free + state.used() == state.carved(), "free + used != carved");
            };
            tables.list(&bin.partial).for_each(|slab| visit(slab, true));
            tables.list(&bin.full).for_each(|slab| visit(slab, false));
            check(used == bin.delivered.get(), "delivered blocks disagree with the slabs");
            check(cached <= used, "more cached blocks than delivered ones");
        }
    }
}

fn check(fact: bool, what: &'static str) {
    if !fact {
        fatal(what);
    }
}
