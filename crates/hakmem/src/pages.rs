//! Giving memory back: on request, on heartbeats, and when an allocation fails.

use hakmem_superslab_os::SuperslabOs;

use crate::attach::{heap_for_thread, pick_up_policy};
use crate::global::GLOBAL;
use crate::hardened;
use crate::record::HeapRecord;
use crate::scavenger;
use crate::tls;
use crate::unread;

/// Bytes that a look at what is due purges at most, rounded up to batches: some 8 ms in the kernel.
const MOST_PER_LOOK: usize = 256 << 20;

/// What is due now: purges, kept big blocks that have become old, in small programs what waits in unread mail.
#[unsafe(link_section = ".text.hot.hakmem")]
pub(crate) fn maintain() {
    let front = &GLOBAL.front;
    purge_share(&front.os);
    if let Some(tables) = front.tables() {
        GLOBAL.big.evict_due(&GLOBAL.big_context(tables, tls::heap()));
    }
    // Who holds more has somebody in the background, or does not want it: as much as that is not sorted in passing.
    if held_bytes() < GLOBAL.scavenge_min_bytes.load_relaxed() {
        unread::sort_due();
    }
    watch_purgeable();
}

/// Purges one batch of what is due, and where much waits a quarter of it: there is one look in thousands of allocations, and a program
/// that has settled down after a large peak makes few.
#[inline]
fn purge_share(os: &SuperslabOs) {
    let mut left = (os.purgeable_bytes() / 4).min(MOST_PER_LOOK);
    loop {
        let purged = os.purge_due();
        if purged == 0 || purged >= left {
            return;
        }
        left -= purged;
    }
}

/// Bytes that a purge could return: free dirty memory and kept big blocks.
#[inline]
pub(crate) fn waiting_bytes() -> usize {
    GLOBAL.front.os.purgeable_bytes() + GLOBAL.big.cached_bytes()
}

/// Wakes the scavenger if much memory waits to be purged, or to be found in unread mail: a process that goes idle runs no slow path.
#[inline]
pub(crate) fn watch_purgeable() {
    let waiting = if unread::waits() { held_bytes() } else { waiting_bytes() };
    if waiting >= GLOBAL.scavenge_min_bytes.load_relaxed() {
        scavenger::wake();
    }
}

/// Bytes of the window that a program uses or that wait to be purged.
#[inline]
pub(crate) fn held_bytes() -> usize {
    GLOBAL.front.os.in_use_bytes() + waiting_bytes()
}

/// A heap has taken a slab: if it was memory that the process had to ask for, runs that have idled since the last time go back.
#[unsafe(link_section = ".text.hot.hakmem")]
pub(crate) fn trim_runs_in_growth(record: &HeapRecord) {
    if GLOBAL.front.os.purgeable_bytes() == 0
        && record.runs.cached_bytes() != 0
        && let Some(tables) = GLOBAL.front.tables()
    {
        record.runs.trim(&GLOBAL.run_context(tables, Some(record)));
    }
}

/// A heap takes slabs or runs: what keeps the books of blocks outside the window is made while it has a place for that.
#[inline]
pub(crate) fn look_ahead(record: &HeapRecord) {
    // Miri's window is small, and Miri does not take what the epoch does with pointers.
    if !cfg!(miri)
        && GLOBAL.front.os.may_run_out()
        && let Some(tables) = GLOBAL.front.tables()
    {
        GLOBAL.big.prepare_outside_slow(&GLOBAL.big_context(tables, Some(record)));
    }
}

/// Everything that this thread and the shared boxes hold and nobody uses.
pub(crate) fn collect() -> usize {
    let record = heap_for_thread();
    if let Some(record) = record {
        pick_up_policy(record);
    }
    reclaim(record);
    unread::sort_all();
    GLOBAL.front.os.purge_all()
}

/// An allocation failed: gives back what the shared boxes and this thread's heap, if it has one, keep for later, so that a second try
/// may succeed.
pub(crate) fn reclaim(record: Option<&HeapRecord>) {
    let Some(tables) = GLOBAL.front.tables() else { return };
    // This thread's mail may be in a sorter's hands.
    unread::wait_for_sorter();
    if let Some(record) = record {
        GLOBAL.front.collect(&record.heap);
        record.runs.flush(&GLOBAL.run_context(tables, Some(record)));
    }
    hardened::collect();
    GLOBAL.big.flush(&GLOBAL.big_context(tables, record));
}
