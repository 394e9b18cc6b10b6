//! DYN1 and DYN2: which size classes a program would like to have, and what they would save.
//!
//! A block of 1040 bytes lives in a class of 1152 bytes: 112 bytes are nobody's. A histogram of sizes, weighted by what is live,
//! finds where such blocks pile up, and for each fixed class the one more class below it that would save most.
//!
//! **Evidence only.** The allocator has no dynamic classes (docs/decisions/0009-dynamic-classes-not-built.md says why, and at
//! which saving that would change: 5 % of resident memory). Nothing here changes a policy.

use hakmem_base::SizeClass;

/// Sizes are told apart by this many bytes up to 1 KiB, ...
const FINE: usize = 16;
const FINE_BINS: usize = 1024 / FINE;
/// ... and by this many above.
const COARSE: usize = 128;
const COARSE_BINS: usize = (32_768 - 1024) / COARSE;
const BINS: usize = FINE_BINS + COARSE_BINS;

/// How much of what size, up to 32 KiB.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// Weight of each bin, and the sum of `weight * bytes` in it.
    bins: [Bin; BINS],
    blocks: f64,
    bytes: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    weight: f64,
    bytes: f64,
}

/// A class that the program would like to have.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct DynamicClass {
    /// Bytes of its blocks.
    pub block_bytes: usize,
    /// Bytes of the blocks that they have now.
    pub fixed_bytes: usize,
    /// Bytes that it would save, for the weight that was recorded: live bytes, if that was live blocks.
    pub saved_bytes: f64,
    /// The same as a part of all bytes handed out, rounded up to classes as they are now.
    pub saved_share: f64,
}

/// A size that many blocks have.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Peak {
    /// Largest size in the bin.
    pub bytes: usize,
    /// Its part of all blocks.
    pub share: f64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self::new()
    }
}

impl Sizes {
    /// Nothing recorded.
    #[must_use]
    pub const fn new() -> Self {
        Self { bins: [Bin { weight: 0.0, bytes: 0.0 }; BINS], blocks: 0.0, bytes: 0.0 }
    }

    /// Records blocks of a size: as many as are live, or, by Little's law, as many as come in a second times the seconds that they
    /// live. Sizes above 32 KiB have no class and are left out.
    pub fn record(&mut self, bytes: usize, weight: f64) {
        let Some(class) = SizeClass::for_bytes(bytes) else { return };
        if !weight.is_finite() || weight <= 0.0 {
            return;
        }
        if let Some(bin) = self.bins.get_mut(bin_of(bytes)) {
            bin.weight += weight;
            bin.bytes += weight * bytes as f64;
            self.blocks += weight;
            self.bytes += weight * class.block_bytes() as f64;
        }
    }

    /// Makes all that was recorded count less.
    pub fn fade(&mut self, factor: f64) {
        for bin in &mut self.bins {
            bin.weight *= factor;
            bin.bytes *= factor;
        }
        self.blocks *= factor;
        self.bytes *= factor;
    }

    /// The sizes that stand out: bins with more than both neighbours and at least `share` of all blocks, largest first.
    #[must_use]
    pub fn peaks<const N: usize>(&self, share: f64) -> [Option<Peak>; N] {
        let mut peaks = [None; N];
        let weight = |index: Option<usize>| index.and_then(|index| self.bins.get(index)).map_or(0.0, |bin| bin.weight);
        for (index, bin) in self.bins.iter().enumerate() {
            let is_peak = bin.weight > weight(index.checked_sub(1)) && bin.weight >= weight(Some(index + 1));
            if is_peak && bin.weight >= share * self.blocks {
                let peak = Peak { bytes: top_of(index), share: bin.weight / self.blocks };
                insert(&mut peaks, peak, |peak| peak.share);
            }
        }
        peaks
    }

    /// The best further classes, at most one below each fixed one, most saved first: DYN1, DYN2, …
    #[must_use]
    pub fn dynamic_classes<const N: usize>(&self) -> [Option<DynamicClass>; N] {
        let mut best = [None; N];
        let mut below = 0;
        for class in SizeClass::all() {
            let fixed = class.block_bytes();
            if let Some(found) = self.best_between(below, fixed) {
                insert(&mut best, found, |class| class.saved_bytes);
            }
            below = fixed;
        }
        best
    }

    /// The class between two fixed ones that saves most: all blocks up to its size would move to it.
    fn best_between(&self, below: usize, fixed: usize) -> Option<DynamicClass> {
        let (mut moved, mut best) = (0.0, None::<DynamicClass>);
        for index in bin_of(below + 1)..=bin_of(fixed) {
            let top = top_of(index);
            moved += self.bins.get(index)?.weight;
            if top >= fixed {
                break;
            }
            let saved_bytes = moved * (fixed - top) as f64;
            if saved_bytes > best.map_or(0.0, |best| best.saved_bytes) {
                let saved_share = saved_bytes / self.bytes;
                best = Some(DynamicClass { block_bytes: top, fixed_bytes: fixed, saved_bytes, saved_share });
            }
        }
        best
    }

    /// Bytes handed out beyond what was asked for, as a part of all bytes handed out.
    #[must_use]
    pub fn waste_share(&self) -> f64 {
        let asked: f64 = self.bins.iter().map(|bin| bin.bytes).sum();
        if self.bytes > 0.0 { (1.0 - asked / self.bytes).max(0.0) } else { 0.0 }
    }
}

/// The bin of a size: bin 0 holds 0 to 16 bytes.
const fn bin_of(bytes: usize) -> usize {
    if bytes <= 1024 { bytes.saturating_sub(1) / FINE } else { FINE_BINS + (bytes - 1025) / COARSE }
}

/// The largest size in a bin.
const fn top_of(bin: usize) -> usize {
    if bin < FINE_BINS { (bin + 1) * FINE } else { 1024 + (bin - FINE_BINS + 1) * COARSE }
}

/// Puts an item where it belongs among the largest ones.
fn insert<T: Copy>(largest: &mut [Option<T>], item: T, key: impl Fn(&T) -> f64) {
    let mut item = Some(item);
    for place in largest {
        let is_larger = item.as_ref().map_or(0.0, &key) > place.as_ref().map_or(0.0, &key);
        if is_larger {
            core::mem::swap(place, &mut item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bins_and_their_tops_agree() {
        for bytes in 1..=32_768 {
            let bin = bin_of(bytes);
            assert!(bin < BINS && bytes <= top_of(bin), "{bytes}");
            assert!(bin == 0 || bytes > top_of(bin - 1), "{bytes}");
        }
    }

    #[test]
    fn a_class_just_above_a_peak_saves_what_the_peak_wastes() {
        let mut sizes = Sizes::new();
        sizes.record(2304, 500.0);
        // 2305 to 2560 bytes are one class; 1000 blocks of 2400 waste 160 each, and 2432 is the nearest bin.
        sizes.record(2400, 1000.0);
        let [Some(found), second] = sizes.dynamic_classes::<2>() else { panic!("nothing found") };
        assert_eq!((found.block_bytes, found.fixed_bytes), (2432, 2560));
        assert_eq!(found.saved_bytes, 128_000.0);
        assert_eq!(second, None);
        let total = 1000.0 * 2560.0 + 500.0 * 2304.0;
        assert!((found.saved_share - 128_000.0 / total).abs() < 1e-12);
    }

    #[test]
    fn peaks_come_largest_first() {
        let mut sizes = Sizes::new();
        for (bytes, weight) in [(64, 50.0), (80, 10.0), (512, 100.0), (5000, 30.0), (9000, 1.0)] {
            sizes.record(bytes, weight);
        }
        let peaks = sizes.peaks::<4>(0.05).map(|peak| peak.map(|peak| peak.bytes));
        assert_eq!(peaks, [Some(512), Some(64), Some(5120), None]);
    }

    proptest! {
        #[test]
        fn no_class_saves_more_than_is_wasted(blocks in prop::collection::vec((0..40_000_usize, 0.0..1e6_f64), 0..200)) {
            let mut sizes = Sizes::new();
            let mut wasted = 0.0;
            for (bytes, weight) in blocks {
                sizes.record(bytes, weight);
                if let Some(class) = SizeClass::for_bytes(bytes) {
                    wasted += weight * (class.block_bytes() - bytes) as f64;
                }
            }
            let found = sizes.dynamic_classes::<2>();
            let saved: f64 = found.iter().flatten().map(|class| class.saved_bytes).sum();
            prop_assert!(saved <= wasted * (1.0 + 1e-9) + 1e-6);
            for class in found.iter().flatten() {
                prop_assert!(class.block_bytes < class.fixed_bytes && class.saved_share <= sizes.waste_share() + 1e-9);
                prop_assert!(SizeClass::for_bytes(class.block_bytes).unwrap().block_bytes() == class.fixed_bytes);
            }
        }
    }
}
