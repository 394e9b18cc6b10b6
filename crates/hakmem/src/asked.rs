//! How often refills were asked for blocks of which sizes, for the learners: a refill is where the memory of a class may grow.
//!
//! **Not here.** What the learners make of it, and how many blocks are in use.

use hakmem_atomic_ops::Shared32;
use hakmem_base::{BIN_COUNT, SizeClass, TINY_MAX_BYTES};
use hakmem_learner::Sizes;

/// Refills since the last look, by the smallest class of all that holds what was asked for. Relaxed: counts, and nothing travels.
pub(crate) struct Asked([Shared32; BIN_COUNT]);

impl Asked {
    pub const fn new() -> Self {
        Self([const { Shared32::new(0) }; BIN_COUNT])
    }

    /// A refill in a mode that learns. Sizes for which there are fixed classes only do not matter.
    pub fn note(&self, bytes: usize) {
        if bytes > TINY_MAX_BYTES
            && let Some(class) = SizeClass::finest(bytes)
            && let Some(count) = self.0.get(class.index())
        {
            count.add_relaxed(1);
        }
    }

    /// Takes what was noted.
    pub fn take(&self) -> Sizes {
        let mut sizes = Sizes::new();
        for (class, count) in SizeClass::every().zip(&self.0) {
            let refills = count.load_relaxed();
            count.sub_relaxed(refills);
            sizes.record(class.block_bytes(), f64::from(refills));
        }
        sizes
    }
}
