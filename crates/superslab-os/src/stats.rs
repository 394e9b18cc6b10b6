//! What the box counts.

use hakmem_atomic_ops::{Shared64, SharedUsize};

/// A reading of every counter. The figures of one reading come from one moment where the pool's lock covers them;
/// counters of system calls may be a few calls newer.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsStats {
    /// Bytes of address space reserved as the window.
    pub window_bytes: usize,
    /// Bytes of the window that are readable and writable (superslab 0 is not).
    pub committed_bytes: usize,
    /// Bytes handed out: runs and extents.
    pub in_use_bytes: usize,
    /// The most bytes that were handed out at one time.
    pub in_use_peak_bytes: usize,
    /// Bytes free but dirty: what a purge would return. Excludes what a purge holds at this moment.
    pub free_dirty_bytes: usize,
    /// Superslabs cut into units with more than half of them handed out.
    pub hot_superslabs: u32,
    /// Superslabs cut into units with at most half of them handed out.
    pub draining_superslabs: u32,
    /// Superslabs with nothing handed out that hold dirty OS pages.
    pub free_warm_superslabs: u32,
    /// Committed superslabs with nothing handed out and nothing dirty.
    pub free_clean_superslabs: u32,
    /// Superslabs handed out whole, in extents.
    pub extent_superslabs: u32,
    /// FREE superslabs that the warm pool keeps beyond the purge delay.
    pub parked_superslabs: u32,
    /// Batches purged.
    pub purges: u64,
    /// Free dirty bytes returned by purges.
    pub purged_bytes: u64,
    /// Takes that were served by a FREE warm superslab.
    pub warm_hits: u64,
    /// Takes that opened a clean superslab.
    pub fresh_superslabs: u64,
    /// Takes refused because of [`OsPolicy::memory_limit_bytes`](crate::OsPolicy::memory_limit_bytes).
    pub limit_refused: u64,
    /// Calls of madvise.
    pub madvise_calls: u64,
    /// Calls of madvise that the kernel refused with `ENOMEM`.
    pub madvise_enomem: u64,
    /// Calls of madvise that the kernel refused for another reason.
    pub madvise_failed: u64,
    /// Times that madvise was given up for a while after consecutive refusals.
    pub madvise_disabled: u64,
    /// Ranges outside the committed window that were kept from the kernel.
    pub outside_range: u64,
    /// Times that committed memory could not grow.
    pub mprotect_refused: u64,
    /// Windows that could not be had at their size, because the kernel refused the address space or the tables for it.
    pub mmap_refused: u64,
    /// Bytes advised to be huge pages.
    pub huge_advised_bytes: u64,
    /// Bytes whose OS pages were moved instead of copied.
    pub moved_pages_bytes: u64,
    /// Moves of OS pages that the kernel refused.
    pub move_refused: u64,
}

/// Counters of system calls, written by any thread. Relaxed: nothing else travels with a count.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) purges: Shared64,
    pub(crate) purged_bytes: Shared64,
    pub(crate) limit_refused: Shared64,
    pub(crate) madvise_calls: Shared64,
    pub(crate) madvise_enomem: Shared64,
    pub(crate) madvise_failed: Shared64,
    pub(crate) madvise_disabled: Shared64,
    pub(crate) outside_range: Shared64,
    pub(crate) mprotect_refused: Shared64,
    pub(crate) mmap_refused: Shared64,
    pub(crate) huge_advised_bytes: Shared64,
    pub(crate) moved_pages_bytes: Shared64,
    pub(crate) move_refused: Shared64,
    /// Written under the pool's lock, read without it by the scavenger.
    pub(crate) free_dirty_bytes: SharedUsize,
    /// As above.
    pub(crate) in_use_bytes: SharedUsize,
}

impl Counters {
    pub(crate) const fn new() -> Self {
        Self {
            purges: Shared64::new(0),
            purged_bytes: Shared64::new(0),
            limit_refused: Shared64::new(0),
            madvise_calls: Shared64::new(0),
            madvise_enomem: Shared64::new(0),
            madvise_failed: Shared64::new(0),
            madvise_disabled: Shared64::new(0),
            outside_range: Shared64::new(0),
            mprotect_refused: Shared64::new(0),
            mmap_refused: Shared64::new(0),
            huge_advised_bytes: Shared64::new(0),
            moved_pages_bytes: Shared64::new(0),
            move_refused: Shared64::new(0),
            free_dirty_bytes: SharedUsize::new(0),
            in_use_bytes: SharedUsize::new(0),
        }
    }

    /// Copies the counters into a reading.
    pub(crate) fn fill(&self, stats: &mut OsStats) {
        stats.purges = self.purges.load_relaxed();
        stats.purged_bytes = self.purged_bytes.load_relaxed();
        stats.limit_refused = self.limit_refused.load_relaxed();
        stats.madvise_calls = self.madvise_calls.load_relaxed();
        stats.madvise_enomem = self.madvise_enomem.load_relaxed();
        stats.madvise_failed = self.madvise_failed.load_relaxed();
        stats.madvise_disabled = self.madvise_disabled.load_relaxed();
        stats.outside_range = self.outside_range.load_relaxed();
        stats.mprotect_refused = self.mprotect_refused.load_relaxed();
        stats.mmap_refused = self.mmap_refused.load_relaxed();
        stats.huge_advised_bytes = self.huge_advised_bytes.load_relaxed();
        stats.moved_pages_bytes = self.moved_pages_bytes.load_relaxed();
        stats.move_refused = self.move_refused.load_relaxed();
    }
}
