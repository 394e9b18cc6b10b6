//! crossbeam-epoch allocates while this box works for an allocator: what happens when that comes back to this box, and when
//! there is no memory for it. One test, because the global allocator is one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use hakmem_atomic_ops::{Flag, SharedUsize};
use hakmem_bigcache::{BigCache, BigPolicy};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use support::{Heap, address_of};

const MIB: usize = 1 << 20;

static CACHE: BigCache = BigCache::new();
static HEAP: std::sync::OnceLock<Heap> = std::sync::OnceLock::new();
/// The address of an outside block that nested lookups must find; 0: no nested lookups.
static SOUGHT: SharedUsize = SharedUsize::new(0);
static FOUND: SharedUsize = SharedUsize::new(0);
static MISSED: SharedUsize = SharedUsize::new(0);
/// Allocations ask for an outside block, too.
static GREEDY: Flag = Flag::new(false);
static GREEDY_REFUSED: SharedUsize = SharedUsize::new(0);
static GREEDY_SERVED: SharedUsize = SharedUsize::new(0);
/// What crossbeam-epoch asks for is refused.
static STINGY: Flag = Flag::new(false);
/// Times that a refused allocation flushed the box first.
static FLUSHED: SharedUsize = SharedUsize::new(0);

thread_local! {
    static IS_NESTED: Cell<bool> = const { Cell::new(false) };
}

/// The system's allocator, which looks outside blocks up whenever it is called.
struct Nosy;

impl Nosy {
    fn pry() {
        if IS_NESTED.replace(true) {
            return;
        }
        let sought = SOUGHT.load_relaxed();
        if sought != 0 {
            let counter = if CACHE.outside_find(sought).is_some() { &FOUND } else { &MISSED };
            counter.add_relaxed(1);
        }
        if GREEDY.is_set_relaxed()
            && let Some(heap) = HEAP.get()
        {
            match CACHE.allocate(&heap.cx(), 40 * MIB, 16, false) {
                None => _ = GREEDY_REFUSED.add_relaxed(1),
                Some(block) => {
                    GREEDY_SERVED.add_relaxed(1);
                    assert!(CACHE.outside_free(address_of(block)).is_some());
                }
            }
        }
        IS_NESTED.set(false);
    }
}

// SAFETY: passes everything on to the system's allocator, or refuses.
unsafe impl GlobalAlloc for Nosy {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::pry();
        if STINGY.is_set_relaxed() && (600..4096).contains(&layout.size()) {
            // As the facade does before it gives up: this box may keep what is missing.
            if let Some(heap) = HEAP.get() {
                CACHE.flush(&heap.cx());
                FLUSHED.add_relaxed(1);
            }
            return std::ptr::null_mut();
        }
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        Self::pry();
        // SAFETY: passed on.
        unsafe { System.dealloc(block, layout) };
    }
}

#[global_allocator]
static NOSY: Nosy = Nosy;

fn take(heap: &Heap) -> Option<usize> {
    CACHE.allocate(&heap.cx(), 40 * MIB, 16, false).map(address_of)
}

#[test]
#[cfg_attr(miri, ignore = "reads /proc/self/statm")]
fn nested_calls_and_refused_memory_neither_hang_nor_abort_nor_lose_a_block() {
    let policy = BigPolicy { thp_bytes: usize::MAX, ..BigPolicy::DEFAULT };
    let heap = HEAP.get_or_init(|| Heap::new(32 * MIB, policy));

    // No memory for the epochs: the request fails, the process lives, and the next request succeeds.
    STINGY.store_release(true);
    assert_eq!(take(heap), None);
    assert_eq!(CACHE.stats().outside_blocks, 0);
    STINGY.store_release(false);
    assert!(FLUSHED.load_relaxed() > 0, "nothing was nested");

    // Setting the epochs up asks for an outside block, which needs the epochs: refused, not waited for.
    GREEDY.store_release(true);
    let steady = take(heap).unwrap();
    assert!(GREEDY_REFUSED.load_relaxed() > 0, "nothing was nested");
    let served_before = GREEDY_SERVED.load_relaxed();

    // Handing retired nodes over allocates and frees while a pin is held; nested blocks come and go meanwhile.
    for _ in 0..100 {
        let block = take(heap).unwrap();
        assert!(CACHE.outside_free(block).is_some());
    }
    assert!(GREEDY_SERVED.load_relaxed() > served_before, "nothing was nested");
    GREEDY.store_release(false);

    // The same with lookups, from several threads.
    SOUGHT.store_relaxed(steady);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let block = take(heap).unwrap();
                    assert!(CACHE.outside_free(block).is_some());
                }
            });
        }
    });
    SOUGHT.store_relaxed(0);
    assert!(FOUND.load_relaxed() > 100);
    assert_eq!(MISSED.load_relaxed(), 0);

    // No memory for handing retired nodes over: they wait.
    STINGY.store_release(true);
    for _ in 0..100 {
        let block = take(heap).unwrap();
        assert!(CACHE.outside_free(block).is_some());
    }
    CACHE.flush(&heap.cx());
    STINGY.store_release(false);
    assert_eq!(CACHE.outside_find(steady), Some(40 * MIB));
    assert!(CACHE.outside_free(steady).is_some());
    let pages_before = mapped_pages();
    CACHE.flush(&heap.cx());
    assert!(mapped_pages() + 90 <= pages_before, "a hundred retired nodes, a page each, were not unmapped");
    CACHE.check_invariants();
}

/// OS pages of this process's address space.
fn mapped_pages() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse().unwrap()
}
