//! Blocks above 32 KiB: runs with their cache per thread, big blocks with their shelf.

use hakmem_base::SUPERSLAB_BYTES;
use hakmem_mid_pool::large_class;
use hakmem_policy::{FrozenPolicy, SIZE_GROUPS};

use super::costs::Counters;
use super::os::Os;

const UNIT_BYTES: u64 = hakmem_base::SLAB_BYTES as u64;
const SUPERSLAB: u64 = SUPERSLAB_BYTES as u64;
/// As in `mid-pool`: runs that a cache holds at most.
const SLOTS: usize = 56;
/// As in `bigcache`: extents kept at most, the size from which pages are moved, and the share of what is in use that may be kept.
const SHELF_PLACES: usize = 64;
const MOVE_MIN_BYTES: u64 = 4 << 20;
const RETAIN_SHARE: u64 = 8;

#[derive(Clone, Copy, Debug)]
struct CachedRun {
    first: u32,
    units: u32,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    first: u32,
    superslabs: u32,
    bytes: u64,
    since_ms: u64,
}

/// Requests of one size group and those that a cache served.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GroupCounts {
    /// Runs asked for.
    pub requests: u64,
    /// Of them, those that a thread's cache had.
    pub cache_hits: u64,
}

/// Runs and big blocks.
#[derive(Debug)]
pub struct Large {
    caches: Vec<Vec<CachedRun>>,
    shelf: Vec<Kept>,
    big_in_use: u64,
    policy: FrozenPolicy,
    pub groups: [GroupCounts; SIZE_GROUPS],
}

impl Large {
    pub fn new(policy: &FrozenPolicy, threads: u16) -> Self {
        Self {
            caches: vec![Vec::new(); usize::from(threads.max(1))],
            shelf: Vec::new(),
            big_in_use: 0,
            policy: policy.clone(),
            groups: [GroupCounts::default(); SIZE_GROUPS],
        }
    }

    pub fn set_policy(&mut self, policy: &FrozenPolicy) {
        self.policy = policy.clone();
    }

    /// A run for `bytes` bytes: its first unit, and how many it has.
    pub fn alloc_run(&mut self, thread: u16, bytes: u64, os: &mut Os, counters: &mut Counters) -> (u32, u32) {
        let units = bytes.div_ceil(UNIT_BYTES) as u32;
        let widest =
            ((bytes * u64::from(self.policy.w_max_large_permille) / 1000 / UNIT_BYTES) as u32).clamp(units, 32);
        let group = &mut self.groups[large_class(units)];
        group.requests += 1;
        let cache = &mut self.caches[thread as usize];
        let fits = cache.iter().enumerate().rev().filter(|(_, run)| (units..=widest).contains(&run.units));
        let run = match fits.min_by_key(|(_, run)| run.units).map(|(place, _)| place) {
            Some(place) => {
                group.cache_hits += 1;
                counters.cached_runs += 1;
                cache.remove(place)
            }
            None => CachedRun { first: os.take_units(units, counters), units },
        };
        os.touch(run.first, bytes, counters);
        (run.first, run.units)
    }

    pub fn free_run(&mut self, thread: u16, first: u32, units: u32, os: &mut Os, counters: &mut Counters) {
        let policy = &self.policy;
        let cache = &mut self.caches[thread as usize];
        let class = large_class(units);
        let max_units = policy.run_cache_bytes / UNIT_BYTES as u32;
        let max_runs = (policy.run_cache_runs as usize).min(SLOTS);
        let class_cap = policy.large_cap[class] as usize;
        if units > max_units || max_runs == 0 || class_cap == 0 {
            return os.give_units(first, units, counters);
        }
        let mut give = |run: CachedRun| os.give_units(run.first, run.units, counters);
        while cache.iter().filter(|run| large_class(run.units) == class).count() >= class_cap {
            let Some(oldest) = cache.iter().position(|run| large_class(run.units) == class) else { break };
            give(cache.remove(oldest));
        }
        while cache.len() >= max_runs || cache.iter().map(|run| run.units).sum::<u32>() + units > max_units {
            give(cache.remove(0));
        }
        cache.push(CachedRun { first, units });
    }

    /// A run changes its size in place; the units it has then.
    pub fn resize_run(
        &mut self,
        first: u32,
        units: u32,
        bytes: u64,
        os: &mut Os,
        counters: &mut Counters,
    ) -> Option<u32> {
        let wanted = bytes.div_ceil(UNIT_BYTES) as u32;
        let resized = if wanted > units {
            if !os.grow_units(first, units, wanted, counters) {
                return None;
            }
            wanted
        } else if (units - wanted) * 4 >= units && wanted < units {
            os.give_units(first + wanted, units - wanted, counters);
            wanted
        } else {
            units
        };
        os.touch(first, bytes, counters);
        Some(resized)
    }

    /// A big block: its first superslab.
    pub fn alloc_big(&mut self, bytes: u64, growing: bool, os: &mut Os, counters: &mut Counters) -> u32 {
        counters.big_requests += 1;
        let superslabs = superslabs_of(bytes);
        let widest = superslabs + (u64::from(superslabs) * u64::from(self.policy.big_slack_permille) / 1000) as u32;
        let fits =
            self.shelf.iter().enumerate().rev().filter(|(_, kept)| (superslabs..=widest).contains(&kept.superslabs));
        let place = fits.min_by_key(|(_, kept)| kept.superslabs).map(|(place, _)| place);
        let first = match place {
            Some(place) => {
                counters.big_cache_hits += 1;
                counters.cached_runs += 1;
                let kept = self.shelf.remove(place);
                if kept.superslabs > superslabs {
                    os.give_extent(kept.first + superslabs, kept.superslabs - superslabs, counters);
                }
                kept.first
            }
            None => {
                self.evict(os, counters, |_| true);
                self.take_fresh(bytes, growing, os, counters)
            }
        };
        self.big_in_use += bytes;
        os.touch(first * 32, bytes, counters);
        self.evict_due(os, counters);
        first
    }

    pub fn free_big(&mut self, first: u32, bytes: u64, os: &mut Os, counters: &mut Counters) {
        self.big_in_use -= bytes;
        let superslabs = superslabs_of(bytes);
        let bound = (self.policy.big_retain_bytes as u64).max(self.big_in_use / RETAIN_SHARE);
        if self.policy.big_retain_ms == 0 || bytes > bound {
            return os.give_extent(first, superslabs, counters);
        }
        while !self.shelf.is_empty() && (self.shelf_bytes() + bytes > bound || self.shelf.len() >= SHELF_PLACES) {
            let kept = self.shelf.remove(0);
            os.give_extent(kept.first, kept.superslabs, counters);
        }
        self.shelf.push(Kept { first, superslabs, bytes, since_ms: os.now_ms });
        self.evict_due(os, counters);
    }

    /// A big block changes its size in place or by moved pages: its first superslab then. `None`: it is copied.
    pub fn resize_big(
        &mut self,
        first: u32,
        old_bytes: u64,
        bytes: u64,
        os: &mut Os,
        counters: &mut Counters,
    ) -> Option<u32> {
        let (held, wanted) = (superslabs_of(old_bytes), superslabs_of(bytes));
        let huge = self.huge_superslabs(bytes);
        let place = if wanted <= held {
            if wanted < held {
                os.give_extent(first + wanted, held - wanted, counters);
            }
            first
        } else if os.grow_extent(first, held, bytes, huge, counters) {
            first
        } else if old_bytes >= MOVE_MIN_BYTES {
            counters.remaps += 1;
            let target = self.take_fresh(bytes, true, os, counters);
            os.move_pages(first, target, held);
            os.give_extent(first, held, counters);
            target
        } else {
            return None;
        };
        self.big_in_use = self.big_in_use + bytes - old_bytes;
        os.touch(place * 32, bytes, counters);
        Some(place)
    }

    /// Gives back what the shelf has kept too long.
    #[inline]
    pub fn evict_due(&mut self, os: &mut Os, counters: &mut Counters) {
        if self.shelf.is_empty() {
            return;
        }
        let delay = self.policy.big_retain_ms;
        if delay != u32::MAX {
            let now_ms = os.now_ms;
            self.evict(os, counters, |kept| kept.since_ms + u64::from(delay) <= now_ms);
        }
    }

    /// Bytes of cached runs and kept big blocks.
    pub fn cached_bytes(&self) -> u64 {
        let runs: u64 = self.caches.iter().flatten().map(|run| u64::from(run.units) * UNIT_BYTES).sum();
        runs + self.shelf_bytes()
    }

    /// Bytes of the shelf: a purge could return them.
    pub fn shelf_bytes(&self) -> u64 {
        self.shelf.iter().map(|kept| kept.bytes).sum()
    }

    /// Units of cached runs and kept big blocks, for the balance.
    pub fn cached_units(&self) -> u64 {
        let runs: u64 = self.caches.iter().flatten().map(|run| u64::from(run.units)).sum();
        runs + self.shelf.iter().map(|kept| u64::from(kept.superslabs) * 32).sum::<u64>()
    }

    fn evict(&mut self, os: &mut Os, counters: &mut Counters, goes: impl Fn(&Kept) -> bool) {
        self.shelf.retain(|kept| {
            let gone = goes(kept);
            if gone {
                os.give_extent(kept.first, kept.superslabs, counters);
            }
            !gone
        });
    }

    fn take_fresh(&self, bytes: u64, growing: bool, os: &mut Os, counters: &mut Counters) -> u32 {
        let superslabs = superslabs_of(bytes);
        let room = u64::from(superslabs) * u64::from(self.policy.realloc_room_permille) / 1000;
        os.take_extent(bytes, if growing { room as u32 } else { 0 }, self.huge_superslabs(bytes), counters)
    }

    /// Superslabs from the start of a big block that get huge pages: those that it fills.
    fn huge_superslabs(&self, bytes: u64) -> u32 {
        if bytes >= self.policy.big_thp_bytes as u64 { (bytes / SUPERSLAB) as u32 } else { 0 }
    }
}

/// Superslabs that a big block takes.
pub const fn superslabs_of(bytes: u64) -> u32 {
    bytes.div_ceil(SUPERSLAB) as u32
}
