//! What a benchmark measured.

use std::time::{Duration, Instant};

use hakmem_testkit::Memory;

/// How long how many operations took, and what was live.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Operations in the measured time; may differ a little from what was asked for.
    pub ops: u64,
    /// Wall time.
    pub time: Duration,
    /// The moment at which the benchmark held most, if there is one.
    pub live: Option<Live>,
    /// The time of as many operations that touch the same memory without allocating, where that was measured.
    pub baseline: Option<Duration>,
}

/// The moment at which a benchmark holds most: its internal and external fragmentation together.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// Bytes that were requested and are not freed.
    pub bytes: u64,
    /// Resident memory of the process.
    pub rss_kib: u64,
}

impl Live {
    /// Reads the resident memory, now that `bytes` bytes are live.
    #[must_use]
    pub fn now(bytes: u64) -> Self {
        Self { bytes, rss_kib: Memory::now().resident_kib }
    }
}

impl Measured {
    /// Runs `work`, which does `ops` operations.
    pub(super) fn timed(ops: u64, work: impl FnOnce()) -> Self {
        let start = Instant::now();
        work();
        Self { ops, time: start.elapsed(), live: None, baseline: None }
    }

    /// The same, with the moment at which most was live.
    #[must_use]
    pub(super) fn holding(self, live: Live) -> Self {
        Self { live: Some(live), ..self }
    }

    /// Nanoseconds per operation.
    #[must_use]
    pub fn ns_per_op(&self) -> f64 {
        self.time.as_nanos() as f64 / self.ops.max(1) as f64
    }

    /// Nanoseconds per operation of the baseline.
    #[must_use]
    pub fn baseline_ns_per_op(&self) -> Option<f64> {
        self.baseline.map(|time| time.as_nanos() as f64 / self.ops.max(1) as f64)
    }
}
