//! Numbers that steer the box; plain data, replaced as a whole.

/// What the owner of a [`SuperslabOs`](crate::SuperslabOs) may turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OsPolicy {
    /// Age (ms) at which free dirty memory is purged in band. `u32::MAX`: never in band; 0: as soon as it gets free.
    pub purge_delay_ms: u32,
    /// Purges a superslab the moment it is entirely free, whatever the delay and the warm pool say (ablation).
    pub eager_free: bool,
    /// Prefers the fullest superslab (true) or the first found (false).
    pub tiering: bool,
    /// FREE superslabs that keep their dirty OS pages beyond the delay: depth of the warm pool.
    pub warm_superslabs: u32,
    /// Superslabs that are committed at once, at least, when the committed part of the window grows.
    pub prefill_superslabs: u32,
    /// Bytes in use, extents apart, above which fresh superslabs get `MADV_HUGEPAGE` before their first touch; `usize::MAX`: never.
    pub thp_heap_bytes: usize,
    /// Units handed out of a superslab at which it gets `MADV_HUGEPAGE` if it has not yet; 0: off.
    pub thp_fill_units: u32,
    /// Aborts, instead of counting, when a madvise range is outside what this box committed.
    pub madvise_guard_abort: bool,
    /// Hard limit of the bytes handed out, in whole slabs; 0: none.
    pub memory_limit_bytes: usize,
}

impl OsPolicy {
    /// The defaults, usable in constants.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            purge_delay_ms: 300,
            eager_free: false,
            tiering: true,
            warm_superslabs: 1,
            prefill_superslabs: 0,
            thp_heap_bytes: 8 << 20,
            thp_fill_units: 0,
            madvise_guard_abort: false,
            memory_limit_bytes: 0,
        }
    }
}

impl Default for OsPolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// How much address space to reserve.
#[derive(Clone, Copy, Debug, Default)]
pub struct WindowConfig {
    /// Bytes of the window; 0: eight times the physical memory, at least 64 GiB, rounded up to a power of two.
    pub bytes: usize,
}
