//! The fast paths of the Rust front, each in a function of its own that callgrind counts (`cargo xtask instructions`).
//!
//! **Not here.** The counting, and the C front (`benches/programs/counted.c`, which does the same).
//! **Invariants.** Every function is entered equally often and does its operation once; `counted_nothing` does all but that.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::hint::black_box;
use std::ptr::{null_mut, without_provenance_mut};
use std::time::Duration;

use hakmem_benches::{ALLOCATOR, Allocator};

#[global_allocator]
static GLOBAL: Allocator = ALLOCATOR;

/// Blocks that are there at once: few enough to stay in every allocator's cache.
const BLOCKS: usize = 64;
/// A size that the compiler knows.
const CONSTANT: Layout = Layout::new::<[u64; 8]>();
/// What a block of it is resized to: the same size class everywhere.
const SMALLER: usize = 60;
/// A size that a run of slabs serves.
const RUN: usize = 48 << 10;

macro_rules! counted {
    ($($constant:ident, $dynamic:ident: |$slot:ident, $layout:ident| $operation:block)*) => {$(
        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $constant($slot: &mut *mut u8, _bytes: usize) {
            let $layout = CONSTANT;
            $operation
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $dynamic($slot: &mut *mut u8, bytes: usize) {
            // SAFETY: `main` passes the size of a layout with this alignment.
            let $layout = unsafe { Layout::from_size_align_unchecked(bytes, CONSTANT.align()) };
            $operation
        }
    )*};
}

counted! {
    counted_nothing_constant, counted_nothing_dynamic: |slot, layout| {
        *slot = black_box(without_provenance_mut(layout.size()));
    }
    counted_alloc_constant, counted_alloc_dynamic: |slot, layout| {
        // SAFETY: the layout has a size.
        *slot = black_box(unsafe { alloc(layout) });
    }
    counted_free_constant, counted_free_dynamic: |slot, layout| {
        // SAFETY: `main` frees what was allocated with this layout.
        unsafe { dealloc(*slot, layout) };
        *slot = black_box(null_mut());
    }
    counted_zeroed_constant, counted_zeroed_dynamic: |slot, layout| {
        // SAFETY: the layout has a size.
        *slot = black_box(unsafe { alloc_zeroed(layout) });
    }
    counted_pair_constant, counted_pair_dynamic: |slot, layout| {
        // SAFETY: the layout has a size.
        *slot = black_box(unsafe { alloc(layout) });
        // SAFETY: allocated just now with this layout.
        unsafe { dealloc(*slot, layout) };
    }
    counted_run_constant, counted_run_dynamic: |slot, layout| {
        // SAFETY: the alignment is that of a layout, and the size is far from the largest.
        let layout = unsafe { Layout::from_size_align_unchecked(layout.size() * (RUN / CONSTANT.size()), layout.align()) };
        // SAFETY: the layout has a size.
        let block = black_box(unsafe { alloc(layout) });
        // SAFETY: allocated just now with this layout.
        unsafe { dealloc(block, layout) };
        *slot = black_box(*slot);
    }
    counted_realloc_constant, counted_realloc_dynamic: |slot, layout| {
        // SAFETY: `main` resizes what was allocated with this layout.
        *slot = black_box(unsafe { realloc(*slot, layout, SMALLER) });
    }
}

/// Blocks that keep slow paths busy for a while: in a mode that has a thread, it is started by them. Callgrind runs one thread
/// at a time, so that this one has to rest for the other to look.
const BUSY_BLOCKS: usize = 2000;
const BUSY_BYTES: usize = 8 << 10;
const RESTS: usize = 20;
const REST: Duration = Duration::from_millis(20);

fn keep_slow_paths_busy() {
    drop(black_box((0..BUSY_BLOCKS).map(|_| Vec::<u8>::with_capacity(BUSY_BYTES)).collect::<Vec<_>>()));
}

fn main() {
    keep_slow_paths_busy();
    if std::env::var_os("HAKMEM_MODE").is_some() {
        for _ in 0..RESTS {
            std::thread::sleep(REST);
            keep_slow_paths_busy();
        }
    }
    let rounds: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(100);
    let bytes = black_box(CONSTANT.size());
    let mut slots = [null_mut(); BLOCKS];
    // What happens once in a thread's life is not counted.
    for _ in 0..100 {
        for slot in &mut slots {
            // SAFETY: the layout has a size.
            *slot = black_box(unsafe { alloc(CONSTANT) });
        }
        for slot in &slots {
            // SAFETY: allocated just now with this layout.
            unsafe { dealloc(*slot, CONSTANT) };
        }
    }
    for _ in 0..rounds {
        for operation in [
            counted_nothing_constant,
            counted_pair_constant,
            counted_alloc_constant,
            counted_free_constant,
            counted_zeroed_constant,
            counted_run_constant,
            counted_realloc_constant,
        ] {
            slots.iter_mut().for_each(|slot| operation(slot, bytes));
        }
        free_uncounted(&slots);
        for operation in [
            counted_nothing_dynamic,
            counted_pair_dynamic,
            counted_alloc_dynamic,
            counted_free_dynamic,
            counted_zeroed_dynamic,
            counted_run_dynamic,
            counted_realloc_dynamic,
        ] {
            slots.iter_mut().for_each(|slot| operation(slot, bytes));
        }
        free_uncounted(&slots);
    }
}

/// Frees blocks that were resized.
fn free_uncounted(slots: &[*mut u8]) {
    // SAFETY: the alignment is that of a layout and the size is small.
    let smaller = unsafe { Layout::from_size_align_unchecked(SMALLER, CONSTANT.align()) };
    for &slot in slots {
        // SAFETY: the block was allocated with this alignment and resized to this size.
        unsafe { dealloc(slot, smaller) };
    }
}
