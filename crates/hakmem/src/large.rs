//! Blocks above 32 KiB: runs up to 2 MiB, whole superslabs beyond. The route decides once; the boxes do the rest.

use core::ptr::NonNull;
use hakmem_base::{
    Door, MAX_SLAB_BLOCK_BYTES, OS_PAGE_BYTES, RUN_MAX_BYTES, Request, SLAB_BYTES, SlabIndex, fatal_ptr,
};
use hakmem_bigcache::{BigContext, BigHint};
use hakmem_mid_pool::shared;
use hakmem_ownership::{Route, RouteWord};
use hakmem_policy::Mode;
use hakmem_tiny_front::Tables;

use crate::attach::{heap_for_free, heap_for_thread, pick_up_policy};
use crate::global::GLOBAL;
use crate::hardened;
use crate::learning;
use crate::pages;
use crate::record::HeapRecord;
use crate::sampler;
use crate::scavenger;
use crate::sites;
use crate::tls;
use crate::watcher;

/// Blocks from this size on get their zeros from the kernel. Below it, writing them costs no more than the page faults do.
const PURGED_WHEN_ZEROED_BYTES: usize = 32 << 20;

/// A block that slabs do not serve, because of its size or its alignment. Null when out of memory.
///
/// Most requests find a run of the right length in the cache of a thread that has nothing else to do first. A thread without a heap
/// has an empty cache.
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem.long")]
pub(crate) fn allocate_slow(bytes: usize, align: usize, door: Door) -> *mut u8 {
    let record = tls::record();
    if align <= SLAB_BYTES
        && record.serves_again()
        // SAFETY: the window and its tables are never unmapped.
        && let Some(block) = unsafe { record.runs.allocate_again(bytes) }
    {
        return block.as_ptr();
    }
    core::hint::cold_path();
    allocate(bytes, align, door, false, false)
}

/// Like [`allocate_slow`], reading as zero.
#[cold]
#[inline(never)]
pub(crate) fn allocate_zeroed_slow(bytes: usize, align: usize, door: Door) -> *mut u8 {
    allocate(bytes, align, door, true, false)
}

/// Like [`allocate_slow`], for a block that has grown and may grow again.
pub(crate) fn allocate_growing_slow(bytes: usize, align: usize, door: Door) -> *mut u8 {
    allocate(bytes, align, door, false, true)
}

#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem.long")]
fn allocate(bytes: usize, align: usize, door: Door, zeroed: bool, growing: bool) -> *mut u8 {
    if bytes > Request::MAX_BYTES || !align.is_power_of_two() || !GLOBAL.ensure_ready() {
        return refused();
    }
    let (Some(tables), record) = (GLOBAL.front.tables(), heap_for_thread()) else { return refused() };
    match record {
        Some(record) => {
            pick_up_policy(record);
            if let Some(sample) = sampler::allocate_large(record, Request::new(bytes, align, door)) {
                if zeroed {
                    // SAFETY: the block is `bytes` bytes long and nobody else's.
                    unsafe { sample.write_bytes(0, bytes) };
                }
                return sample.as_ptr();
            }
            if record.count_large_request() {
                GLOBAL.front.exchange_mail(&record.heap);
                pages::maintain();
            }
            pages::look_ahead(record);
        }
        None if hardened::is_on() => return hardened::allocate(bytes, align, door),
        None => {}
    }
    scavenger::stand_by();
    learning::stir(bytes);
    let mut hint = BigHint::NONE;
    if bytes > RUN_MAX_BYTES
        && let Some(record) = record
        && sites::are_ruled()
    {
        let floor = 0_u8;
        hint = sites::hint(record, bytes, zeroed, core::hint::black_box(&raw const floor));
    }
    let block = try_allocate(tables, record, bytes, align, growing, hint).or_else(|| {
        pages::reclaim(record);
        try_allocate(tables, record, bytes, align, growing, hint)
    });
    let Some(block) = block else { return refused() };
    if zeroed && !block.zeroed && !zero_by_purging(block.ptr, bytes) {
        // SAFETY: the block is at least `bytes` bytes long and nobody else's.
        unsafe { block.ptr.as_ptr().write_bytes(0, bytes) };
    }
    if let Some(record) = record {
        let is_chosen = record.take_run_to_look_at();
        if learning::mode() != Mode::Frozen {
            let floor = 0_u8;
            watcher::see_large(record, block.ptr, bytes, is_chosen, core::hint::black_box(&raw const floor));
        }
    }
    block.ptr.as_ptr()
}

/// Null, counted: for a request that no heap counts.
#[cold]
#[inline(never)]
pub(crate) fn refused() -> *mut u8 {
    GLOBAL.refused.add_relaxed(1);
    core::ptr::null_mut()
}

/// Makes a fresh big block zero without touching its pages, if it is large. Programs ask `calloc` for tables of gigabytes of
/// which they use little; one dirty superslab in such a block must not make all of it resident.
fn zero_by_purging(block: NonNull<u8>, bytes: usize) -> bool {
    if bytes < PURGED_WHEN_ZEROED_BYTES {
        return false;
    }
    let Some(index) = GLOBAL.front.index_of(block.addr().get()) else { return false };
    GLOBAL.front.os.zero_extent(index, bytes.next_multiple_of(OS_PAGE_BYTES))
}

#[unsafe(link_section = ".text.hot.hakmem.long")]
fn try_allocate(
    tables: &Tables,
    record: Option<&HeapRecord>,
    bytes: usize,
    align: usize,
    growing: bool,
    hint: BigHint,
) -> Option<hakmem_mid_pool::Block> {
    if bytes <= RUN_MAX_BYTES && align <= RUN_MAX_BYTES {
        let bytes = bytes.max(1);
        let cx = GLOBAL.run_context(tables, record);
        return match record {
            Some(record) => record.runs.allocate(&cx, bytes, align),
            None => {
                let block = shared::allocate(&cx, bytes, align)?;
                GLOBAL.heapless_runs.allocated.add_relaxed(usable_bytes(block.ptr));
                Some(block)
            }
        };
    }
    let block = GLOBAL.big.allocate(&big_context(tables, record, hint), bytes, align, growing)?;
    Some(hakmem_mid_pool::Block { ptr: block.ptr, zeroed: block.zeroed })
}

fn big_context<'a>(tables: &'a Tables, record: Option<&HeapRecord>, hint: BigHint) -> BigContext<'a> {
    BigContext { hint, ..GLOBAL.big_context(tables, record) }
}

/// Usable bytes of a block that was just handed out.
fn usable_bytes(block: NonNull<u8>) -> u64 {
    crate::gates::usable_size(block.as_ptr(), Door::Rust).unwrap_or(0) as u64
}

/// Frees a run where most of them go: among those of its length that this thread keeps. False: nothing was done.
#[inline(always)]
pub(crate) fn free_again(address: usize, index: SlabIndex, word: &RouteWord) -> bool {
    tls::record().runs.free_again(address, index, word)
}

/// Frees a run or big block whose route the caller has claimed.
#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem.long")]
pub(crate) fn free_claimed_slow(block: NonNull<u8>, route: Route) {
    let (Some(tables), Some(index)) = (GLOBAL.front.tables(), GLOBAL.front.index_of(block.addr().get())) else {
        return;
    };
    let record = heap_for_free();
    match (route, record) {
        (Route::Run { units, bytes }, Some(record)) => {
            record.runs.free(&GLOBAL.run_context(tables, Some(record)), index, units, bytes);
        }
        (Route::Run { units, bytes }, None) => {
            shared::free(&GLOBAL.run_context(tables, None), index, units);
            GLOBAL.heapless_runs.freed.add_relaxed(bytes as u64);
        }
        (Route::Big { bytes, note }, record) => {
            GLOBAL.big.free(&big_context(tables, record, sites::hint_of(note)), index, bytes);
        }
        _ => {
            fatal_ptr("claimed block is no run", block.addr().get());
        }
    }
    pages::watch_purgeable();
}

/// Resizes a run or big block without copying: in place, or by moving its OS pages. `None`: the caller copies.
pub(crate) fn resize(block: NonNull<u8>, route: Route, align: usize, new_bytes: usize) -> Option<NonNull<u8>> {
    // Usable bytes are whole OS pages: as long as the number of them stays, nothing changes.
    if let Route::Run { bytes, .. } | Route::Big { bytes, .. } = route
        && bytes.checked_sub(new_bytes).is_some_and(|spare| spare < OS_PAGE_BYTES)
    {
        return Some(block);
    }
    let (tables, index) = (GLOBAL.front.tables()?, GLOBAL.front.index_of(block.addr().get())?);
    let record = heap_for_thread();
    match route {
        Route::Run { units, bytes } => {
            // Shrunk below what slabs serve, a block moves to one, unless little would be gained.
            if new_bytes > RUN_MAX_BYTES || (new_bytes <= MAX_SLAB_BLOCK_BYTES && new_bytes <= bytes - bytes / 4) {
                return None;
            }
            let new_bytes = new_bytes.max(1);
            let cx = GLOBAL.run_context(tables, record);
            let done = match record {
                Some(record) => record.runs.resize_in_place(&cx, index, units, new_bytes),
                None => {
                    let resized = shared::resize_in_place(&cx, index, units, new_bytes);
                    if let Some(resized) = resized {
                        GLOBAL.heapless_runs.freed.add_relaxed(resized.old_bytes as u64);
                        GLOBAL.heapless_runs.allocated.add_relaxed(resized.new_bytes as u64);
                    }
                    resized.is_some()
                }
            };
            done.then_some(block)
        }
        Route::Big { bytes, note } => {
            // In place it would hold a superslab, however little it uses of it after many small steps.
            let is_little = new_bytes < bytes && new_bytes <= RUN_MAX_BYTES / 4 * 3;
            if new_bytes <= RUN_MAX_BYTES && (new_bytes <= bytes - bytes / 4 || is_little) {
                return None;
            }
            let cx = big_context(tables, record, sites::hint_of(note));
            if GLOBAL.big.resize_in_place(&cx, index, bytes, new_bytes) {
                return Some(block);
            }
            if align > RUN_MAX_BYTES {
                return None;
            }
            GLOBAL.big.move_to(&cx, index, bytes, new_bytes).map(|moved| moved.ptr)
        }
        _ => None,
    }
}
