//! DYN1 and DYN2: which dynamic classes a program would like to have in force, and what they would save.
//!
//! A block of 4360 bytes lives in a class of 4608 bytes, of which 14 share a slab of 64 KiB: 321 bytes are nobody's. A histogram of
//! sizes, weighted by what is live, finds where such blocks pile up, and for each fixed class the one dynamic class below it that
//! would save most. Sizes are told apart as finely as there are classes.

use hakmem_base::{BIN_COUNT, CLASS_COUNT, SizeClass};

/// How much of what size, up to 32 KiB, by the smallest class of all that holds it.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// Weight of each class, and the sum of `weight * bytes` in it.
    bins: [Bin; BIN_COUNT],
    blocks: f64,
    /// Memory that all of them take in the fixed classes.
    taken: f64,
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
    /// Bytes of the blocks of the fixed class for these sizes.
    pub fixed_bytes: usize,
    /// Bytes that it saves beside the fixed ones alone, for the weight that was recorded: live bytes, if that was live blocks.
    pub saved_bytes: f64,
    /// The same as a part of the memory that all blocks take in the fixed classes.
    pub saved_share: f64,
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
        Self { bins: [Bin { weight: 0.0, bytes: 0.0 }; BIN_COUNT], blocks: 0.0, taken: 0.0 }
    }

    /// Records blocks of a size: as many as are live, or, by Little's law, as many as come in a second times the seconds that they
    /// live. Sizes above 32 KiB have no class and are left out.
    pub fn record(&mut self, bytes: usize, weight: f64) {
        let Some(class) = SizeClass::finest(bytes) else { return };
        if !weight.is_finite() || weight <= 0.0 {
            return;
        }
        if let Some(bin) = self.bins.get_mut(class.index()) {
            bin.weight += weight;
            bin.bytes += weight * bytes as f64;
            self.blocks += weight;
            self.taken += weight * class.fixed().slab_share();
        }
    }

    /// Takes what was recorded elsewhere since the last time. What was known before counts less, as far as there is news: of the sizes of
    /// each fixed class by itself.
    pub fn follow(&mut self, news: &Self, kept: f64) {
        let news_of = news.weights();
        let before = core::mem::take(self);
        for (class, (old, new)) in SizeClass::every().zip(before.bins.iter().zip(&news.bins)) {
            let is_news = news_of.get(class.fixed().index()).is_some_and(|weight| *weight > 0.0);
            self.add(old, if is_news { kept } else { 1.0 });
            self.add(new, 1.0);
        }
    }

    /// A mean size of a bin is one of the bin.
    fn add(&mut self, bin: &Bin, factor: f64) {
        if bin.weight > 0.0 {
            self.record((bin.bytes / bin.weight) as usize, bin.weight * factor);
        }
    }

    /// Weight by fixed class.
    fn weights(&self) -> [f64; CLASS_COUNT] {
        let mut sums = [0.0; CLASS_COUNT];
        for (class, bin) in SizeClass::every().zip(&self.bins) {
            if let Some(sum) = sums.get_mut(class.fixed().index()) {
                *sum += bin.weight;
            }
        }
        sums
    }

    /// The same sizes in other numbers: as many blocks of each fixed class's sizes as `blocks` says. Of sizes that were never seen
    /// there are none.
    #[must_use]
    pub fn scaled_to(&self, blocks: &[u64; CLASS_COUNT]) -> Self {
        let seen = self.weights();
        let mut scaled = Self::new();
        for (class, bin) in SizeClass::every().zip(&self.bins).filter(|(_, bin)| bin.weight > 0.0) {
            let of = class.fixed().index();
            let (Some(seen), Some(blocks)) = (seen.get(of), blocks.get(of)) else { continue };
            scaled.add(bin, *blocks as f64 / seen);
        }
        scaled
    }

    /// The dynamic classes that save most, at most one below each fixed one, most saved first: DYN1, DYN2, …
    #[must_use]
    pub fn dynamic_classes<const N: usize>(&self) -> [Option<DynamicClass>; N] {
        let mut best = [None; N];
        for fixed in SizeClass::all() {
            if let Some(found) = self.best_below(fixed) {
                insert(&mut best, found, |class| class.saved_bytes);
            }
        }
        best
    }

    /// What a dynamic class saves where it is the only one beside its fixed one: all blocks up to its size are its.
    #[must_use]
    pub fn saved_by(&self, class: SizeClass) -> f64 {
        let fixed = class.fixed();
        let moved = SizeClass::all_dynamic().filter(|other| other.fixed() == fixed && other.index() <= class.index());
        let weight: f64 = moved.filter_map(|other| self.bins.get(other.index())).map(|bin| bin.weight).sum();
        weight * (fixed.slab_share() - class.slab_share())
    }

    fn best_below(&self, fixed: SizeClass) -> Option<DynamicClass> {
        let below = SizeClass::all_dynamic().filter(|class| class.fixed() == fixed);
        let savings = below.map(|class| (class, self.saved_by(class))).filter(|(_, saved)| *saved > 0.0);
        let (class, saved_bytes) = savings.max_by(|one, other| one.1.total_cmp(&other.1))?;
        Some(DynamicClass {
            block_bytes: class.block_bytes(),
            fixed_bytes: fixed.block_bytes(),
            saved_bytes,
            saved_share: saved_bytes / self.taken,
        })
    }

    /// Memory handed out beyond what was asked for, as a part of all that is taken in the fixed classes.
    #[must_use]
    pub fn waste_share(&self) -> f64 {
        let asked: f64 = self.bins.iter().map(|bin| bin.bytes).sum();
        if self.taken > 0.0 { (1.0 - asked / self.taken).max(0.0) } else { 0.0 }
    }
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
    fn a_class_just_above_a_peak_saves_what_the_peak_wastes() {
        let mut sizes = Sizes::new();
        sizes.record(4600, 500.0);
        sizes.record(4360, 1000.0);
        let [Some(found), second] = sizes.dynamic_classes::<2>() else { panic!("nothing found") };
        assert_eq!((found.block_bytes, found.fixed_bytes, second), (4368, 4608, None));
        // Of 64 KiB, 14 blocks of 4608 bytes take a fourteenth each, 15 of 4368 a fifteenth.
        let saved = 1000.0 * (65_536.0 / 14.0 - 65_536.0 / 15.0);
        assert!((found.saved_bytes / saved - 1.0).abs() < 1e-9, "{found:?}");
        assert!((found.saved_share / (saved / (1500.0 * 65_536.0 / 14.0)) - 1.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn few_blocks_that_were_seen_stand_for_all_there_are() {
        let mut sizes = Sizes::new();
        sizes.record(4360, 3.0);
        sizes.record(4600, 1.0);
        sizes.record(100, 5000.0);
        let mut blocks = [0; CLASS_COUNT];
        blocks[SizeClass::for_bytes(4360).unwrap().index()] = 80_000;
        blocks[SizeClass::for_bytes(9000).unwrap().index()] = 1;
        let [Some(found), None] = sizes.scaled_to(&blocks).dynamic_classes::<2>() else { panic!("not one") };
        assert!((found.saved_bytes / (60_000.0 * (65_536.0 / 14.0 - 65_536.0 / 15.0)) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn small_sizes_have_no_dynamic_class() {
        let mut sizes = Sizes::new();
        sizes.record(520, 1e6);
        assert_eq!(sizes.dynamic_classes::<1>(), [None]);
    }

    #[test]
    fn what_was_known_gives_way_where_there_is_news_and_nowhere_else() {
        let (mut sizes, mut news) = (Sizes::new(), Sizes::new());
        sizes.record(4360, 1000.0);
        sizes.record(8500, 1000.0);
        news.record(4100, 1000.0);
        (0..10).for_each(|_| sizes.follow(&news, 0.5));
        let found = sizes.dynamic_classes::<3>().map(|class| class.map(|class| class.block_bytes));
        assert_eq!(found, [Some(4224), Some(8544), None]);
        let saved = SizeClass::dynamic(8500).map_or(0.0, |class| sizes.saved_by(class));
        assert!((saved / (1000.0 * (65_536.0 / 7.0 - 196_608.0 / 23.0)) - 1.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn no_class_saves_more_than_is_wasted(blocks in prop::collection::vec((0..40_000_usize, 0.0..1e6_f64), 0..200)) {
            let mut sizes = Sizes::new();
            let mut wasted = 0.0;
            for (bytes, weight) in blocks {
                sizes.record(bytes, weight);
                if let Some(class) = SizeClass::for_bytes(bytes) {
                    wasted += weight * (class.slab_share() - bytes as f64);
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
