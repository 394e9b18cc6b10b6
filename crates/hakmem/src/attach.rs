//! Threads come and go: heap records are taken, recycled and given up.

use core::ptr::NonNull;
use hakmem_base::HEAP_RECORD_BYTES;

use crate::global::{GLOBAL, Global, UNTOLD};
use crate::hardened;
use crate::hooks;
use crate::record::HeapRecord;
use crate::sampler;
use crate::tls::{self, Holder};

/// The thread's heap; a newcomer gets one. `None` for a leaver, when there is no memory for a record, and at the hardened
/// level, which has no heaps.
#[inline]
pub(crate) fn heap_for_thread() -> Option<&'static HeapRecord> {
    match tls::holder() {
        Holder::Heap(record) => Some(record),
        Holder::Leaver => None,
        Holder::Newcomer => join_slow(),
    }
}

/// As [`heap_for_thread`], for a free. The C library frees what it kept of a thread at that thread's end, when nobody would give a heap
/// up any more: a newcomer that only frees does without one mostly. One that goes on like that gets a heap, for its outbox.
#[inline]
pub(crate) fn heap_for_free() -> Option<&'static HeapRecord> {
    match tls::holder() {
        Holder::Heap(record) => Some(record),
        Holder::Leaver => None,
        Holder::Newcomer => heap_for_newcomer_slow(),
    }
}

#[cold]
#[inline(never)]
fn heap_for_newcomer_slow() -> Option<&'static HeapRecord> {
    if tls::count_lone_free() < NEWCOMER_FREES { None } else { join_slow() }
}

/// Frees of a newcomer before it gets a heap: more than the C library makes at a thread's end.
const NEWCOMER_FREES: usize = 64;

#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.hakmem")]
fn join_slow() -> Option<&'static HeapRecord> {
    if !GLOBAL.ensure_ready() {
        return None;
    }
    if hardened::is_on() {
        hooks::install_once();
        return None;
    }
    let record = GLOBAL.take_record()?;
    record.exit_rounds.set(0);
    // From here on allocations of this thread work, those of the following calls included.
    tls::set(record);
    hooks::watch_thread(record);
    hooks::install_once();
    Some(record)
}

/// Runs `work` with a heap that is taken for this purpose and given up again: for threads late in their end.
pub(crate) fn with_passing_heap<R>(work: impl FnOnce(&'static HeapRecord) -> R) -> Option<R> {
    if !GLOBAL.ensure_ready() {
        return None;
    }
    let record = GLOBAL.take_record()?;
    let result = work(record);
    GLOBAL.give_up(record);
    Some(result)
}

/// The thread ends: its heap is given up. Later operations of the thread work without one.
pub(crate) fn detach_thread() {
    if let Some(record) = tls::heap() {
        tls::set(&tls::GONE);
        GLOBAL.give_up(record);
        crate::pages::maintain();
    }
}

impl Global {
    #[unsafe(link_section = ".text.hot.hakmem")]
    fn take_record(&self) -> Option<&'static HeapRecord> {
        let recycled = {
            let mut free = self.registry.free.lock();
            // SAFETY: the list holds null or records, which are never unmapped.
            let record = unsafe { free.0.as_ref() };
            if let Some(record) = record {
                free.0 = record.next_free.get();
            }
            record
        };
        let record = match recycled {
            Some(record) => record,
            None => self.make_record()?,
        };
        // What was published since is picked up at the first slow path.
        record.heap.stir(sampler::seed(record));
        record.set_policy(self.policy.boot_or(&UNTOLD.policy));
        record.heap.open(self.front.view());
        let live = self.registry.live.add_relaxed(1) + 1;
        self.registry.peak.max_relaxed(live);
        Some(record)
    }

    fn make_record(&self) -> Option<&'static HeapRecord> {
        let record: NonNull<HeapRecord> = self.arena.allocate(HEAP_RECORD_BYTES, HEAP_RECORD_BYTES)?.cast();
        // Not written: most of its OS pages are those of dynamic classes, which few heaps ever touch.
        // SAFETY: fresh memory of the record's size and alignment that reads as zero, which is a new record; never unmapped.
        let record: &'static HeapRecord = unsafe { record.as_ref() };
        let pointer = core::ptr::from_ref(record).cast_mut();
        let mut head = self.registry.all.load_relaxed();
        loop {
            record.next_record.store_relaxed(head);
            // ORDERING: pairs with `records`: the record's first state travels.
            match self.registry.all.cas_acq_rel(head, pointer) {
                Ok(_) => return Some(record),
                Err(found) => head = found,
            }
        }
    }

    /// Empties a heap and puts its record on the free list.
    fn give_up(&self, record: &'static HeapRecord) {
        if let Some(tables) = self.front.tables() {
            record.runs.flush(&self.run_context(tables, Some(record)));
        }
        self.front.leave(&record.heap);
        self.registry.live.sub_relaxed(1);
        let mut free = self.registry.free.lock();
        record.next_free.set(free.0);
        free.0 = record;
    }
}

/// A slow path's first step: takes a newer policy over, if there is one.
#[unsafe(link_section = ".text.hot.hakmem")]
pub(crate) fn pick_up_policy(record: &HeapRecord) {
    if !record.is_up_to_date() {
        pick_up_newer_slow(record);
    }
}

#[cold]
#[inline(never)]
fn pick_up_newer_slow(record: &HeapRecord) {
    // Not from the snapshot: to read one registers something for the thread's end, for which the C library waits for the dynamic linker,
    // and that may be busy with a constructor that waits for this thread.
    let newer = GLOBAL.applied.lock().clone();
    if let Some(policy) = newer {
        record.set_policy(&policy);
    }
}
