//! What each mechanism costs: one table of measured numbers, and the counters that they are multiplied with.
//!
//! **Why.** The numbers are from docs/decisions/0001-founding-measurements.md and benches/instructions.toml, on one kind of machine.
//! Learners are compared by ratios of sums of these, so what matters is the order of magnitude between a fault and a refill; the
//! document of results says what changes when a fault costs half or twice as much.

/// Nanoseconds for one of each.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Costs {
    /// Taking a block off a thread's list and putting it back: half of a pair each.
    pub fast: f64,
    /// A refill, without what it brings.
    pub refill: f64,
    /// Carving one fresh block.
    pub carve: f64,
    /// A block that goes back to its slab because the list has no room.
    pub spill: f64,
    /// Flushing one cached block to its slab.
    pub flush: f64,
    /// A block put into the outbox.
    pub remote_free: f64,
    /// A chain handed to its slab, with the notification.
    pub remote_push: f64,
    /// A slab drained.
    pub drain: f64,
    /// A heartbeat.
    pub beat: f64,
    /// Units taken from or given to the superslab box: its lock, its lists.
    pub pool_visit: f64,
    /// A run from the thread's cache, or a big block from the shelf.
    pub cached_run: f64,
    /// A 4 KiB page touched for the first time, or again after a purge.
    pub fault: f64,
    /// A huge page touched for the first time: 512 pages are zeroed at once.
    pub huge_fault: f64,
    /// One `madvise`.
    pub madvise: f64,
    /// What it costs more for each page that goes.
    pub purged_page: f64,
    /// Moving a big block by its page tables.
    pub remap: f64,
    /// Copying one byte of a block that moves.
    pub copy_byte: f64,
    /// The share of the program's own work that huge pages save once all of a large heap has them (docs/decisions/0012: 6 to 22 % for
    /// interpreters with heaps of 100 to 300 MiB; the lower end).
    pub huge_saving: f64,
    /// Bytes of memory from which that holds in full.
    pub huge_saving_bytes: f64,
}

impl Costs {
    /// The measured table.
    pub const MEASURED: Self = Self {
        fast: 2.5,
        refill: 40.0,
        carve: 1.2,
        spill: 6.0,
        flush: 4.0,
        remote_free: 6.0,
        remote_push: 45.0,
        drain: 40.0,
        beat: 250.0,
        pool_visit: 130.0,
        cached_run: 30.0,
        fault: 2500.0,
        huge_fault: 486_000.0,
        madvise: 18_800.0,
        purged_page: 140.0,
        remap: 12_000.0,
        copy_byte: 0.1,
        huge_saving: 0.06,
        huge_saving_bytes: 100.0 * 1024.0 * 1024.0,
    };
}

impl Costs {
    /// The kernel's prices, times this: whoever believes in the measured ones is wrong by as much.
    #[must_use]
    pub fn with_kernel(&self, factor: f64) -> Self {
        Self {
            fault: self.fault * factor,
            huge_fault: self.huge_fault * factor,
            madvise: self.madvise * factor,
            purged_page: self.purged_page * factor,
            remap: self.remap * factor,
            ..*self
        }
    }

    /// Every price off by up to 30 %, each in its own way: does what was learned depend on the learner knowing them?
    #[must_use]
    pub fn perturbed(&self, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut off = |price: f64| price * (0.7 + 0.6 * rng.f64());
        Self {
            fast: off(self.fast),
            refill: off(self.refill),
            carve: off(self.carve),
            spill: off(self.spill),
            flush: off(self.flush),
            remote_free: off(self.remote_free),
            remote_push: off(self.remote_push),
            drain: off(self.drain),
            beat: off(self.beat),
            pool_visit: off(self.pool_visit),
            cached_run: off(self.cached_run),
            fault: off(self.fault),
            huge_fault: off(self.huge_fault),
            madvise: off(self.madvise),
            purged_page: off(self.purged_page),
            remap: off(self.remap),
            copy_byte: off(self.copy_byte),
            huge_saving: off(self.huge_saving),
            huge_saving_bytes: self.huge_saving_bytes,
        }
    }
}

/// How often each thing happened. Counts only rise; a window is a difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Blocks handed out.
    pub allocs: u64,
    /// Blocks that came back.
    pub frees: u64,
    /// Refills of a class.
    pub refills: u64,
    /// Fresh blocks carved.
    pub carved: u64,
    /// Blocks that found no room.
    pub spills: u64,
    /// Cached blocks given back to their slabs at once.
    pub flushed: u64,
    /// Blocks freed by threads that do not own them.
    pub remote_frees: u64,
    /// Chains of them handed over.
    pub remote_pushes: u64,
    /// Slabs drained.
    pub drains: u64,
    /// Blocks drained.
    pub drained_blocks: u64,
    /// Heartbeats.
    pub beats: u64,
    /// Classes trimmed because they had been idle.
    pub idle_trims: u64,
    /// Slabs taken.
    pub fresh_slabs: u64,
    /// Slabs given back.
    pub retired_slabs: u64,
    /// Visits of the superslab box.
    pub pool_visits: u64,
    /// Runs and big blocks that a cache served.
    pub cached_runs: u64,
    /// Requests above 2 MiB.
    pub big_requests: u64,
    /// Those that the shelf served.
    pub big_cache_hits: u64,
    /// Faults that brought a 4 KiB page.
    pub faults: u64,
    /// Faults that brought a huge page.
    pub huge_faults: u64,
    /// Calls of `madvise`.
    pub madvises: u64,
    /// Pages that they took away.
    pub purged_pages: u64,
    /// Units that a purge made clean.
    pub purged_units: u64,
    /// Big blocks moved by their page tables.
    pub remaps: u64,
    /// Bytes copied because a block moved.
    pub copied_bytes: u64,
    /// Units of superslabs committed.
    pub committed_units: u64,
}

impl Counters {
    /// What happened since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            allocs: self.allocs - earlier.allocs,
            frees: self.frees - earlier.frees,
            refills: self.refills - earlier.refills,
            carved: self.carved - earlier.carved,
            spills: self.spills - earlier.spills,
            flushed: self.flushed - earlier.flushed,
            remote_frees: self.remote_frees - earlier.remote_frees,
            remote_pushes: self.remote_pushes - earlier.remote_pushes,
            drains: self.drains - earlier.drains,
            drained_blocks: self.drained_blocks - earlier.drained_blocks,
            beats: self.beats - earlier.beats,
            idle_trims: self.idle_trims - earlier.idle_trims,
            fresh_slabs: self.fresh_slabs - earlier.fresh_slabs,
            retired_slabs: self.retired_slabs - earlier.retired_slabs,
            pool_visits: self.pool_visits - earlier.pool_visits,
            cached_runs: self.cached_runs - earlier.cached_runs,
            big_requests: self.big_requests - earlier.big_requests,
            big_cache_hits: self.big_cache_hits - earlier.big_cache_hits,
            faults: self.faults - earlier.faults,
            huge_faults: self.huge_faults - earlier.huge_faults,
            madvises: self.madvises - earlier.madvises,
            purged_pages: self.purged_pages - earlier.purged_pages,
            purged_units: self.purged_units - earlier.purged_units,
            remaps: self.remaps - earlier.remaps,
            copied_bytes: self.copied_bytes - earlier.copied_bytes,
            committed_units: self.committed_units - earlier.committed_units,
        }
    }

    /// Nanoseconds spent in the allocator, without the kernel.
    #[must_use]
    pub fn user_ns(&self, costs: &Costs) -> f64 {
        let of = |count: u64, cost: f64| count as f64 * cost;
        of(self.allocs + self.frees, costs.fast)
            + of(self.refills, costs.refill)
            + of(self.carved, costs.carve)
            + of(self.spills, costs.spill)
            + of(self.flushed, costs.flush)
            + of(self.remote_frees, costs.remote_free)
            + of(self.remote_pushes, costs.remote_push)
            + of(self.drains, costs.drain)
            + of(self.beats, costs.beat)
            + of(self.pool_visits, costs.pool_visit)
            + of(self.cached_runs, costs.cached_run)
            + of(self.copied_bytes, costs.copy_byte)
    }

    /// Nanoseconds spent in the kernel for the allocator.
    #[must_use]
    pub fn system_ns(&self, costs: &Costs) -> f64 {
        let of = |count: u64, cost: f64| count as f64 * cost;
        of(self.faults, costs.fault)
            + of(self.huge_faults, costs.huge_fault)
            + of(self.madvises, costs.madvise)
            + of(self.purged_pages, costs.purged_page)
            + of(self.remaps, costs.remap)
    }
}
