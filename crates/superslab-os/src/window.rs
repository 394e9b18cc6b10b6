//! The reserved address range: how it is obtained, committed, and kept from every address that is not in it.
//!
//! **Invariants.** No advice reaches the kernel for a range that is not inside the committed part of the window. What is committed is
//! reserved, and so is a superslab behind it. Only what is behind that may be released: others' mappings may lie there then.
//! **Orderings.** `publish` (release of `base`) → `window` (acquire): whoever sees the base sees the size.

use crate::policy::WindowConfig;
use crate::stats::Counters;
use crate::sys::{self, Refusal};
use core::ptr::NonNull;
use hakmem_atomic_ops::{Flag, Shared32, Shared64, SharedPtr, SharedUsize};
use hakmem_base::{
    Line, SLAB_BYTES, SLAB_SHIFT, SLABS_PER_SUPERSLAB, SUPERSLAB_BYTES, SUPERSLAB_SHIFT, SlabIndex, fatal_ptr,
};

/// The smallest window that is worth having.
const MIN_WINDOW_BYTES: usize = 32 << 20;
/// A window of the automatic size is at least this large before it is cut down by limits.
const AUTO_MIN_BYTES: usize = 64 << 30;
/// Keeps slab indices in 32 bits and leaves room for others in 47 bits of address space.
const MAX_WINDOW_BYTES: usize = 1 << 45;
/// Below this a window is so small that large blocks soon go elsewhere, and the operator should know.
const SMALL_WINDOW_BYTES: usize = 1 << 30;
/// The boxes that keep tables with an entry for each unit take 32 bytes for one.
const WINDOW_BYTES_PER_TABLE_BYTE: usize = SLAB_BYTES / 32;
/// Consecutive refusals after which madvise is left alone for [`MADVISE_PAUSE_MS`].
const MADVISE_PATIENCE: u32 = 8;
/// How long (ms) madvise is left alone. Free memory stays dirty meanwhile.
const MADVISE_PAUSE_MS: u64 = 10_000;

/// The address range in which everything that the allocator hands out lies.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Where it begins; aligned to a superslab.
    pub base: *mut u8,
    /// Slabs (64 KiB units) in it, including those of superslab 0, which are never handed out.
    pub slab_count: u32,
}

// SAFETY: an address and a count; what may be done at the address is decided elsewhere.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

/// The reservation behind the window, and the state of its system calls.
#[derive(Debug)]
pub(crate) struct Reservation {
    /// Null until reserved. Written once.
    base: SharedPtr<u8>,
    /// Written once, before `base`.
    slab_count: Shared32,
    /// Bytes from the base that are writable; only grows, under the pool's lock. Relaxed: whoever asks about a range holds
    /// it, so its commit happened before in this thread or in the thread that handed it over.
    committed_bytes: SharedUsize,
    /// Bytes from the base that are reserved, without the superslab behind them; all of the window, unless something was released.
    /// Written under the pool's lock. Relaxed: of its own address everybody knows more than this says.
    reserved_bytes: SharedUsize,
    /// Bytes from the base beyond which nothing is reserved again. Under the pool's lock.
    most_bytes: SharedUsize,
    pub(crate) counters: Counters,
    /// Whether a range outside the window aborts.
    pub(crate) guard_abort: Flag,
    guard_reported: Flag,
    /// Consecutive refusals of madvise. Relaxed: a lost step delays the pause by a call.
    refusals: Shared32,
    /// Coarse time (ms) until which madvise is left alone. Relaxed: a hint.
    paused_until_ms: Shared64,
}

/// Bytes that the window should have.
fn wanted_bytes(config: WindowConfig) -> usize {
    if config.bytes == 0 {
        sys::physical_bytes().saturating_mul(8).clamp(AUTO_MIN_BYTES, MAX_WINDOW_BYTES).next_power_of_two()
    } else {
        config.bytes.clamp(MIN_WINDOW_BYTES, MAX_WINDOW_BYTES) & !(SUPERSLAB_BYTES - 1)
    }
}

/// The most bytes of a window whose heap may take `limit_bytes` bytes of data, tables included: these count as data from the start,
/// written to or not, and may take a sixteenth. The heap has many times the room that it can fill all the same.
fn useful_bytes(limit_bytes: usize) -> usize {
    let bytes = (limit_bytes / 16).saturating_mul(WINDOW_BYTES_PER_TABLE_BYTE);
    bytes.max(MIN_WINDOW_BYTES) & !(SUPERSLAB_BYTES - 1)
}

/// The most bytes that are reserved ahead: half of an address space of so many bytes, so that others find some too.
fn allowed_bytes(limit_bytes: usize) -> usize {
    (limit_bytes / 2).max(MIN_WINDOW_BYTES) & !(SUPERSLAB_BYTES - 1)
}

/// The most bytes of a limited address space that a window ever takes: what was committed once goes on counting, and after a heap
/// that filled everything was freed, others have to find some for a thread or a file.
fn most_bytes(limit_bytes: usize) -> usize {
    (limit_bytes - limit_bytes / 4).max(MIN_WINDOW_BYTES) & !(SUPERSLAB_BYTES - 1)
}

/// Begins a window `limit_bytes` below the end of the `bytes` bytes reserved at `base`, with one superslab of it reserved and one
/// behind that. Since the kernel puts others' mappings at the upper end, and all mappings together have no more than the limit, it can
/// grow into all that they leave. Returns base and reserved bytes; those given, if there is no such place.
fn make_room(base: NonNull<u8>, bytes: usize, limit_bytes: usize) -> (NonNull<u8>, usize) {
    let down = limit_bytes.saturating_sub(bytes) & !(SUPERSLAB_BYTES - 1);
    let lower = base.as_ptr().wrapping_sub(down);
    let Some(lower) = NonNull::new(lower).filter(|lower| *lower < base) else { return (base, bytes) };
    if sys::reserve_at(lower.as_ptr(), 2 * SUPERSLAB_BYTES).is_err() {
        return (base, bytes);
    }
    // SAFETY: reserved just now; nobody knows it.
    unsafe { sys::unmap(base.as_ptr(), bytes + SUPERSLAB_BYTES) };
    (lower, SUPERSLAB_BYTES)
}

/// Tells the operator about a window that limits made small. Once, because a window is reserved once.
fn report_small(bytes: usize, wanted: usize) {
    if bytes < SMALL_WINDOW_BYTES && bytes < wanted {
        let line = Line::new().text("only ").number(bytes >> 20).text(" MiB of address space could be reserved");
        line.text("; blocks beyond that are mapped one by one (address-space limit?)").write();
    }
}

impl Reservation {
    pub(crate) const fn new() -> Self {
        Self {
            base: SharedPtr::new(core::ptr::null_mut()),
            slab_count: Shared32::new(0),
            committed_bytes: SharedUsize::new(0),
            reserved_bytes: SharedUsize::new(0),
            most_bytes: SharedUsize::new(0),
            counters: Counters::new(),
            guard_abort: Flag::new(false),
            guard_reported: Flag::new(false),
            refusals: Shared32::new(0),
            paused_until_ms: Shared64::new(0),
        }
    }

    pub(crate) fn window(&self) -> Option<Window> {
        // ORDERING: pairs with `publish`; the slab count travels.
        let base = self.base.load_acquire();
        (!base.is_null()).then(|| Window { base, slab_count: self.slab_count.load_relaxed() })
    }

    /// Reserves address space, half as much after each refusal; where that is limited, next to none at first, in a window of three
    /// quarters of the limit; where data is limited, a window whose tables leave most of it to the heap. `accept` sees each window and may turn it down. The caller holds the pool's lock and found no window.
    pub(crate) fn reserve(&self, config: WindowConfig, mut accept: impl FnMut(Window) -> bool) -> Option<Window> {
        let useful = sys::data_limit().map_or(usize::MAX, useful_bytes);
        let wanted = wanted_bytes(config).min(useful);
        let limit = sys::address_space_limit();
        let most = limit.map_or(wanted, |limit| wanted.min(most_bytes(limit)));
        let mut bytes = limit.map_or(wanted, |limit| wanted.min(allowed_bytes(limit)));
        while bytes >= MIN_WINDOW_BYTES {
            // The superslab behind the window stays reserved too: so something is mapped behind every block.
            if let Ok(base) = sys::reserve_aligned(bytes + SUPERSLAB_BYTES, SUPERSLAB_BYTES) {
                let (base, reserved) = match limit {
                    Some(limit) if most > bytes => make_room(base, bytes, limit),
                    _ => (base, bytes),
                };
                let window_bytes = if reserved < bytes { most } else { bytes };
                let window = Window { base: base.as_ptr(), slab_count: (window_bytes >> SLAB_SHIFT) as u32 };
                if accept(window) {
                    self.publish(window, reserved);
                    report_small(window_bytes, most);
                    return Some(window);
                }
                // SAFETY: reserved just now; `accept` declined it, so nobody knows it.
                unsafe { sys::unmap(window.base, reserved + SUPERSLAB_BYTES) };
            }
            self.counters.mmap_refused.add_relaxed(1);
            bytes = (bytes / 2) & !(SUPERSLAB_BYTES - 1);
        }
        None
    }

    fn publish(&self, window: Window, reserved_bytes: usize) {
        self.slab_count.store_relaxed(window.slab_count);
        self.committed_bytes.store_relaxed(SUPERSLAB_BYTES);
        self.reserved_bytes.store_relaxed(reserved_bytes);
        self.most_bytes.store_relaxed((window.slab_count as usize) << SLAB_SHIFT);
        // ORDERING: pairs with `window`; the slab count travels.
        self.base.store_release(window.base);
    }

    /// Releases what is reserved and not committed, unless all that is reserved fits beside others' into an address space of so many
    /// bytes; and bounds what is reserved again. The caller holds the pool's lock.
    pub(crate) fn fit(&self, limit_bytes: usize) {
        let (committed, reserved) = (self.committed_bytes.load_relaxed(), self.reserved_bytes.load_relaxed());
        let window = (self.slab_count.load_relaxed() as usize) << SLAB_SHIFT;
        let beside_tables = limit_bytes.saturating_sub(window / WINDOW_BYTES_PER_TABLE_BYTE);
        self.most_bytes.store_relaxed(most_bytes(beside_tables).min(window));
        if committed < reserved && reserved > allowed_bytes(limit_bytes) {
            // First what others read, so that a mapping which comes to lie there is not taken for the window's.
            self.reserved_bytes.store_relaxed(committed);
            let behind = self.base.load_relaxed().wrapping_add(committed + SUPERSLAB_BYTES);
            // SAFETY: reserved, never committed, so nothing was ever there. One superslab stays behind what is committed.
            unsafe { sys::unmap(behind, reserved - committed) };
        }
    }

    /// Reserves the superslabs below `end` again, if they were released, the limit leaves others something beside them, and nobody else has
    /// mapped anything there.
    fn regain(&self, end: u32) -> bool {
        let (wanted, reserved) = ((end as usize) << SUPERSLAB_SHIFT, self.reserved_bytes.load_relaxed());
        if wanted <= reserved {
            return true;
        }
        if wanted > self.most_bytes.load_relaxed() {
            return false;
        }
        let behind = self.base.load_relaxed().wrapping_add(reserved + SUPERSLAB_BYTES);
        let is_done = sys::reserve_at(behind, wanted - reserved).is_ok();
        if is_done {
            self.reserved_bytes.store_relaxed(wanted);
        }
        is_done
    }

    /// Whether the window may come to have no place: it is small, half of it is in use, or it is not reserved to its end.
    #[inline]
    pub(crate) fn may_run_out(&self) -> bool {
        let most = self.most_bytes.load_relaxed();
        let in_use = self.counters.in_use_bytes.load_relaxed();
        most < SMALL_WINDOW_BYTES || in_use > most / 2 || self.reserved_bytes.load_relaxed() < most
    }

    /// Bytes from the base that are reserved.
    pub(crate) fn reserved_bytes(&self) -> usize {
        self.reserved_bytes.load_relaxed()
    }

    /// Whether the address lies in the window, where it is reserved.
    #[inline]
    pub(crate) fn has_reserved(&self, address: usize) -> bool {
        let base = self.base.load_relaxed();
        // Before the reservation it is 0 bytes; both may only be missing together for an address that is not ours.
        address.wrapping_sub(base.addr()) < self.reserved_bytes.load_relaxed() && !base.is_null()
    }

    /// Bytes from the window's start up to where something may be handed out: what is committed, superslab 0 included.
    pub(crate) fn committed_bytes(&self) -> usize {
        self.committed_bytes.load_relaxed()
    }

    /// Makes the superslabs from `committed` up to `end` writable.
    pub(crate) fn commit(&self, committed: u32, end: u32) -> bool {
        if !self.regain(end) {
            return false;
        }
        let base = self.base.load_relaxed();
        let start = base.wrapping_add((committed as usize) << SUPERSLAB_SHIFT);
        let bytes = ((end - committed) as usize) << SUPERSLAB_SHIFT;
        // SAFETY: the pool asks for superslabs below its count, which is the window's.
        if unsafe { sys::make_writable(start, bytes) }.is_err() {
            return false;
        }
        self.committed_bytes.store_relaxed((end as usize) << SUPERSLAB_SHIFT);
        true
    }

    #[inline]
    pub(crate) fn address_of(&self, index: SlabIndex) -> *mut u8 {
        self.base.load_relaxed().wrapping_add(index.to_usize() << SLAB_SHIFT)
    }

    #[inline]
    pub(crate) fn index_of(&self, address: usize) -> Option<SlabIndex> {
        let offset = address.wrapping_sub(self.base.load_relaxed().addr());
        self.has_reserved(address).then(|| SlabIndex::new((offset >> SLAB_SHIFT) as u32))
    }

    /// The start of the range if all of it is committed memory of the window; else the range is counted and reported.
    #[unsafe(link_section = ".text.hot.hakmem.long")]
    fn guarded(&self, first: SlabIndex, offset_bytes: usize, bytes: usize) -> Option<*mut u8> {
        let offset = (first.to_usize() << SLAB_SHIFT).checked_add(offset_bytes);
        let end = offset.and_then(|offset| offset.checked_add(bytes));
        let is_inside = first.get() >= SLABS_PER_SUPERSLAB
            && end.is_some_and(|end| end <= self.committed_bytes.load_relaxed())
            && bytes != 0;
        if is_inside {
            return Some(self.address_of(first).wrapping_add(offset_bytes));
        }
        self.counters.outside_range.add_relaxed(1);
        let address = self.address_of(first).addr().wrapping_add(offset_bytes);
        if self.guard_abort.is_set_relaxed() {
            fatal_ptr("advice for a range outside the committed window", address);
        }
        // ORDERING: one winner reports; no data travels.
        if self.guard_reported.try_set_acq_rel() {
            let line = Line::new().text("advice for a range outside the committed window was skipped: ");
            line.hex(address).text(", bytes ").number(bytes).write();
        }
        None
    }

    /// Gives the memory behind the range back. `false`: outside, paused or refused, and the content is unchanged.
    pub(crate) fn discard(&self, first: SlabIndex, offset_bytes: usize, bytes: usize) -> bool {
        let Some(start) = self.guarded(first, offset_bytes, bytes) else { return false };
        // SAFETY: inside the committed window, and the callers (purge, give, decommit) hold the units and drop their content.
        self.advise(|| unsafe { sys::discard(start, bytes) })
    }

    /// Takes all access to the range away, or gives it back. `false`: outside or refused, and access is as before (or, where
    /// the kernel went half the way, less than asked for in part of the range).
    pub(crate) fn set_access(&self, first: SlabIndex, offset_bytes: usize, bytes: usize, writable: bool) -> bool {
        let Some(start) = self.guarded(first, offset_bytes, bytes) else { return false };
        let result = if writable {
            // SAFETY: inside the committed window (guarded): part of the reservation.
            unsafe { sys::make_writable(start, bytes) }
        } else {
            // SAFETY: inside the committed window, and the caller holds the units and keeps everybody out.
            unsafe { sys::make_inaccessible(start, bytes) }
        };
        result.is_ok()
    }

    /// Asks for huge pages behind the range.
    pub(crate) fn advise_huge(&self, first: SlabIndex, offset_bytes: usize, bytes: usize) -> bool {
        let Some(start) = self.guarded(first, offset_bytes, bytes) else { return false };
        let is_done = self.hint(|| sys::advise_huge(start, bytes));
        if is_done {
            self.counters.huge_advised_bytes.add_relaxed(bytes as u64);
        }
        is_done
    }

    /// Takes [`Reservation::advise_huge`] back.
    pub(crate) fn advise_small(&self, first: SlabIndex, offset_bytes: usize, bytes: usize) -> bool {
        let Some(start) = self.guarded(first, offset_bytes, bytes) else { return false };
        self.hint(|| sys::advise_small(start, bytes))
    }

    /// Advice that a kernel without huge pages refuses each time: no reason to stop purging, which is advice too.
    fn hint(&self, call: impl FnOnce() -> Result<(), Refusal>) -> bool {
        if self.paused_until_ms.load_relaxed() > sys::coarse_clock_ms() {
            return false;
        }
        self.counters.madvise_calls.add_relaxed(1);
        let result = call();
        if let Err(refusal) = &result {
            self.count_refusal(refusal);
        }
        result.is_ok()
    }

    fn advise(&self, call: impl FnOnce() -> Result<(), Refusal>) -> bool {
        if self.paused_until_ms.load_relaxed() > sys::coarse_clock_ms() {
            return false;
        }
        self.counters.madvise_calls.add_relaxed(1);
        match call() {
            Ok(()) => {
                if self.refusals.load_relaxed() != 0 {
                    self.refusals.store_relaxed(0);
                }
                true
            }
            Err(refusal) => {
                self.note_refusal(refusal);
                false
            }
        }
    }

    #[cold]
    fn note_refusal(&self, refusal: Refusal) {
        self.count_refusal(&refusal);
        if self.refusals.add_relaxed(1) + 1 >= MADVISE_PATIENCE {
            self.refusals.store_relaxed(0);
            self.paused_until_ms.store_relaxed(sys::coarse_clock_ms() + MADVISE_PAUSE_MS);
            self.counters.madvise_disabled.add_relaxed(1);
        }
    }

    fn count_refusal(&self, refusal: &Refusal) {
        let counters = &self.counters;
        let counter = if refusal.is_enomem() { &counters.madvise_enomem } else { &counters.madvise_failed };
        counter.add_relaxed(1);
    }

    /// Coarse time (ms) before which a purge would be in vain.
    pub(crate) fn paused_until_ms(&self) -> u64 {
        self.paused_until_ms.load_relaxed()
    }

    /// Moves OS pages between two ranges that the caller holds.
    pub(crate) fn move_pages(&self, from: SlabIndex, to: SlabIndex, bytes: usize) -> bool {
        let (Some(source), Some(target)) = (self.guarded(from, 0, bytes), self.guarded(to, 0, bytes)) else {
            return false;
        };
        let (low, high) = (source.min(target), source.max(target));
        if high.addr() - low.addr() < bytes {
            return false;
        }
        // SAFETY: both lie in the committed window (guarded), do not overlap (checked), and the caller holds both.
        let is_done = unsafe { sys::move_pages(source, target, bytes) }.is_ok();
        let counters = &self.counters;
        if is_done {
            counters.moved_pages_bytes.add_relaxed(bytes as u64);
        } else {
            counters.move_refused.add_relaxed(1);
        }
        is_done
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(window) = self.window() {
            let bytes = self.reserved_bytes.load_relaxed();
            // SAFETY: these bytes are reserved, and the superslab behind them; the owner gives the whole box up.
            unsafe { sys::unmap(window.base, bytes + SUPERSLAB_BYTES) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_leaves_most_of_each_limit_to_others() {
        // Tables of a 2048th of the window take a sixteenth of the data that there may be.
        assert_eq!([0, 256 << 10, 1 << 20, 1 << 30].map(useful_bytes), [32 << 20, 32 << 20, 128 << 20, 128 << 30]);
        assert_eq!([0, 64 << 20, (1 << 30) + 1].map(allowed_bytes), [32 << 20, 32 << 20, 512 << 20]);
        assert_eq!([0, 64 << 20, 1 << 30].map(most_bytes), [32 << 20, 48 << 20, 768 << 20]);
        assert!(
            [useful_bytes, allowed_bytes, most_bytes]
                .map(|bytes| bytes(usize::MAX))
                .iter()
                .all(|bytes| *bytes > 1 << 60)
        );
    }
}
