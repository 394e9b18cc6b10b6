//! What the box counts.

use hakmem_atomic_ops::{Owned64, Shared64};
use hakmem_base::CLASS_COUNT;

/// A reading of the counters. Sizes are in bytes and of this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardenedStats {
    /// Blocks handed out so far.
    pub allocs: u64,
    /// Bytes that blocks in use were asked for with.
    pub live_bytes: u64,
    /// Bytes of slots in quarantine.
    pub quarantined_bytes: u64,
    /// Bytes of address space in quarantine, without memory behind them: freed large blocks and their guards.
    pub quarantined_space_bytes: u64,
    /// Guards that stand: ends of slabs and of large blocks; a freed large block keeps its own.
    pub guards_standing: u64,
    /// Guards that were left out because as many as are allowed stood already.
    pub guards_left_out: u64,
    /// Guards and freed large blocks that the kernel refused to make inaccessible.
    pub guards_refused: u64,
    /// Bytes of address space lost because the kernel refused to make guards writable again.
    pub stranded_bytes: u64,
    /// Seeds that the kernel did not give.
    pub seeds_refused: u64,
}

/// Counters of one class: written under its lock, read by statistics.
#[derive(Debug)]
pub(crate) struct ClassCounters {
    pub allocs: Owned64,
    pub live_bytes: Owned64,
    pub quarantined_bytes: Owned64,
}

impl ClassCounters {
    pub(crate) const fn new() -> Self {
        Self { allocs: Owned64::new(0), live_bytes: Owned64::new(0), quarantined_bytes: Owned64::new(0) }
    }
}

/// Counters without a class. Relaxed: nothing else travels with a count.
#[derive(Debug)]
pub(crate) struct Counters {
    pub guards_standing: Shared64,
    pub guards_left_out: Shared64,
    pub guards_refused: Shared64,
    pub stranded_bytes: Shared64,
    pub seeds_refused: Shared64,
}

impl Counters {
    pub(crate) const fn new() -> Self {
        Self {
            guards_standing: Shared64::new(0),
            guards_left_out: Shared64::new(0),
            guards_refused: Shared64::new(0),
            stranded_bytes: Shared64::new(0),
            seeds_refused: Shared64::new(0),
        }
    }
}

/// One counter set per class, and the last one for large blocks.
pub(crate) const COUNTER_SETS: usize = CLASS_COUNT + 1;
