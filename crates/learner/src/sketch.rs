//! What single blocks say: sizes, lifetimes, and the classes that a program would like to have.
//!
//! A [`crate::Window`] has counts per class and no more. Whoever sees single blocks (a sampler, a trace) fills one of these; it takes
//! no memory but its own.

use crate::digest::Digest;
use crate::p2::Quantile;
use crate::sizes::Sizes;

/// Sketches of the blocks seen.
#[derive(Clone, Debug)]
pub struct Sketch {
    /// Sizes up to 32 KiB, weighted by how long the blocks live: what is live of each size, by Little's law.
    pub sizes: Sizes,
    /// Sizes.
    pub bytes: Digest,
    /// Lifetimes, in whatever unit they are given: nanoseconds or events.
    pub lifetimes: Digest,
    /// The size that half of the blocks do not exceed, as the founding documents estimate it.
    pub median_bytes: Quantile,
    /// The size that 99 of 100 blocks do not exceed.
    pub p99_bytes: Quantile,
}

impl Default for Sketch {
    fn default() -> Self {
        Self::new()
    }
}

impl Sketch {
    /// Nothing seen.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            sizes: Sizes::new(),
            bytes: Digest::new(),
            lifetimes: Digest::new(),
            median_bytes: Quantile::new(0.5),
            p99_bytes: Quantile::new(0.99),
        }
    }

    /// Takes a block that has been freed, or that has lived so long so far.
    pub fn block(&mut self, bytes: usize, lifetime: f64) {
        self.sizes.record(bytes, lifetime);
        self.lifetimes.add(lifetime, 1.0);
        self.bytes.add(bytes as f64, 1.0);
        self.median_bytes.add(bytes as f64);
        self.p99_bytes.add(bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_live_long_count_for_what_is_live() {
        let mut sketch = Sketch::new();
        for _ in 0..1000 {
            sketch.block(64, 1.0);
        }
        for _ in 0..10 {
            sketch.block(2400, 10_000.0);
        }
        assert!(sketch.bytes.quantile(0.5).is_some_and(|bytes| (64.0..70.0).contains(&bytes)));
        assert!(sketch.median_bytes.get().is_some_and(|bytes| (64.0..70.0).contains(&bytes)));
        let [Some(wanted)] = sketch.sizes.dynamic_classes::<1>() else { panic!("none") };
        assert_eq!(wanted.block_bytes, 2432);
        assert!(wanted.saved_share > 0.04, "{wanted:?}");
        assert_eq!(sketch.lifetimes.quantile(1.0), Some(10_000.0));
    }
}
