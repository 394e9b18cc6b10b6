//! What happened between two looks at the allocator, as plain numbers.
//!
//! Flows are differences between the looks, levels are what the later look saw. Blocks are counted, not bytes, unless the name
//! says bytes. A number that its source cannot tell is 0, and the learners leave out what they would have made of it.

use crate::cap::Demand;
use hakmem_base::{CLASS_COUNT, Hindsight, SizeClass};
use hakmem_policy::SIZE_GROUPS;

/// One size class in a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClassWindow {
    /// Blocks handed to the program.
    pub allocs: u64,
    /// Allocations that found the thread's cache empty and went to a slab (visits, not blocks brought back).
    pub refills: u64,
    /// Frees that found the thread's cache full and went to a slab.
    pub spills: u64,
}

/// One group of runs (above 32 KiB and up to 128, 256, 512 KiB, 1 and 2 MiB) in a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GroupWindow {
    /// Runs handed to the program.
    pub requests: u64,
    /// Of these, served by a thread's cache.
    pub cache_hits: u64,
}

/// What happened between two looks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Window {
    /// Length of the window; 0 when there is no clock.
    pub elapsed_ns: u64,
    /// CPU time of the whole process, in user and system mode; 0 when the system does not tell.
    pub cpu_ns: u64,
    /// The part of `cpu_ns` in system mode; 0 when the system does not tell.
    pub system_ns: u64,
    /// Page faults of the process, without those that read a file; 0 also when the system does not tell.
    pub page_faults: u64,
    /// Blocks handed to the program, of all sizes: the event clock.
    pub allocs: u64,
    /// Blocks up to 32 KiB, by size class.
    pub classes: [ClassWindow; CLASS_COUNT],
    /// Runs, by size group.
    pub run_groups: [GroupWindow; SIZE_GROUPS],
    /// Big blocks (above 2 MiB) handed to the program.
    pub big_requests: u64,
    /// Of these, served by the shelf of freed ones.
    pub big_cache_hits: u64,
    /// Blocks freed by threads that do not own them.
    pub remote_frees: u64,
    /// Chains of such blocks that were pushed to their slab.
    pub remote_pushes: u64,
    /// Such blocks that their owners took back.
    pub drained_blocks: u64,
    /// Heartbeats of threads.
    pub beats: u64,
    /// Idle trims of threads.
    pub idle_trims: u64,
    /// Slabs taken from the superslab box.
    pub fresh_slabs: u64,
    /// Slabs given back to it.
    pub retired_slabs: u64,
    /// Bytes given back to the kernel.
    pub purged_bytes: u64,
    /// Bytes newly made usable.
    pub committed_bytes: u64,
    /// Level: bytes in slabs, runs and big blocks that are handed out, whoever uses their blocks.
    pub in_use_bytes: u64,
    /// Level: bytes that the program holds; 0 when unknown, which leaves memory out of the score.
    pub live_bytes: u64,
    /// Level: bytes in the caches of threads.
    pub cached_bytes: u64,
    /// Level: free bytes whose pages are still there.
    pub purgeable_bytes: u64,
    /// Level: resident bytes of the process; 0 when unknown, which leaves memory out of the score.
    pub resident_bytes: u64,
    /// Level: superslabs.
    pub superslabs: u64,
    /// Level: of these, with huge pages.
    pub huge_superslabs: u64,
    /// Level: threads with a heap.
    pub threads: u64,
    /// What other purge delays and huge-page sizes would have led to since the window before, times between windows included; no
    /// time has passed in it where nobody keeps account.
    pub hindsight: Hindsight,
}

impl Window {
    /// A window in which nothing happened.
    pub const EMPTY: Self = Self {
        elapsed_ns: 0,
        cpu_ns: 0,
        system_ns: 0,
        page_faults: 0,
        allocs: 0,
        classes: [ClassWindow { allocs: 0, refills: 0, spills: 0 }; CLASS_COUNT],
        run_groups: [GroupWindow { requests: 0, cache_hits: 0 }; SIZE_GROUPS],
        big_requests: 0,
        big_cache_hits: 0,
        remote_frees: 0,
        remote_pushes: 0,
        drained_blocks: 0,
        beats: 0,
        idle_trims: 0,
        fresh_slabs: 0,
        retired_slabs: 0,
        purged_bytes: 0,
        committed_bytes: 0,
        in_use_bytes: 0,
        live_bytes: 0,
        cached_bytes: 0,
        purgeable_bytes: 0,
        resident_bytes: 0,
        superslabs: 0,
        huge_superslabs: 0,
        threads: 0,
        hindsight: Hindsight::EMPTY,
    };

    /// Allocations that found a thread's cache empty.
    #[must_use]
    pub fn refills(&self) -> u64 {
        self.classes.iter().fold(0, |sum, class| sum.saturating_add(class.refills))
    }

    /// Frees that found a thread's cache full.
    #[must_use]
    pub fn spills(&self) -> u64 {
        self.classes.iter().fold(0, |sum, class| sum.saturating_add(class.spills))
    }

    /// Runs handed to the program.
    #[must_use]
    pub fn run_requests(&self) -> u64 {
        self.run_groups.iter().fold(0, |sum, group| sum.saturating_add(group.requests))
    }

    /// Runs that no thread's cache could serve.
    #[must_use]
    pub fn run_misses(&self) -> u64 {
        self.run_groups.iter().fold(0, |sum, group| sum.saturating_add(group.requests.saturating_sub(group.cache_hits)))
    }

    /// Each class with what it did.
    pub(crate) fn by_class(&self) -> impl Iterator<Item = (SizeClass, &ClassWindow)> {
        SizeClass::all().zip(&self.classes)
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// What the mid groups asked for, and what their caches did not have.
pub(crate) fn mid_demands(window: &Window) -> [Demand; SIZE_GROUPS] {
    let mut demands = [Demand::default(); SIZE_GROUPS];
    for (class, seen) in window.by_class() {
        if let Some(demand) = mid_group(class).and_then(|group| demands.get_mut(group)) {
            demand.requests = demand.requests.saturating_add(seen.allocs);
            demand.misses = demand.misses.saturating_add(seen.refills);
        }
    }
    demands
}

/// The same for the groups of runs.
pub(crate) fn run_demands(window: &Window) -> [Demand; SIZE_GROUPS] {
    window
        .run_groups
        .map(|group| Demand { requests: group.requests, misses: group.requests.saturating_sub(group.cache_hits) })
}

/// The mid size group (up to 2, 4, 8, 16 and 32 KiB) of a class; none for tiny ones.
pub(crate) fn mid_group(class: SizeClass) -> Option<usize> {
    let bytes = class.block_bytes();
    if bytes <= hakmem_base::TINY_MAX_BYTES {
        return None;
    }
    Some((bytes.next_power_of_two() / (2 * hakmem_base::TINY_MAX_BYTES)).trailing_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mid_classes_fall_into_the_five_groups_of_the_policy() {
        let group = |bytes: usize| mid_group(SizeClass::for_bytes(bytes).unwrap());
        assert_eq!(group(1024), None);
        assert_eq!(group(1025), Some(0));
        assert_eq!(group(2048), Some(0));
        assert_eq!(group(2049), Some(1));
        assert_eq!(group(16 << 10), Some(3));
        assert_eq!(group(32 << 10), Some(SIZE_GROUPS - 1));
    }
}
