//! All quantiles of a stream in a few kilobytes: a t-digest.
//!
//! Dunning and Ertl, "Computing extremely accurate quantiles using t-digests" (2019), the merging variant with the scale
//! function k₁: values collect in a buffer; when it is full they are merged with the centroids, of which one may be the larger the
//! nearer it is to the median. So the tails, where lifetimes and sizes matter, are the most exact.
//!
//! Ours, because the published crates (`tdigest`, `tdigests`) make a new `Vec` per merge, and this runs inside an allocator: here
//! everything is an array.

use crate::math::{asin, sin};

/// How many centroids there are about: more is more exact.
const COMPRESSION: f64 = 100.0;
/// Room for centroids: k₁ allows two for each unit of its range, at most.
const CENTROIDS: usize = 128;
const BUFFER: usize = 128;

/// Values of about the same size.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Centroid {
    mean: f64,
    weight: f64,
}

/// A sketch of a distribution.
#[derive(Clone, Debug)]
pub struct Digest {
    /// Centroids in order of their means; the values that came since follow them.
    items: [Centroid; CENTROIDS + BUFFER],
    centroids: usize,
    len: usize,
    weight: f64,
    least: f64,
    most: f64,
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

impl Digest {
    /// A sketch of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            items: [Centroid { mean: 0.0, weight: 0.0 }; CENTROIDS + BUFFER],
            centroids: 0,
            len: 0,
            weight: 0.0,
            least: f64::INFINITY,
            most: f64::NEG_INFINITY,
        }
    }

    /// Sum of the weights seen.
    #[must_use]
    pub const fn weight(&self) -> f64 {
        self.weight
    }

    /// Takes a value that counts `weight` times; what is not finite, and weights that are not above 0, are left out.
    pub fn add(&mut self, value: f64, weight: f64) {
        if !value.is_finite() || !weight.is_finite() || weight <= 0.0 {
            return;
        }
        if self.len == self.items.len() {
            self.compress();
        }
        if let Some(place) = self.items.get_mut(self.len) {
            *place = Centroid { mean: value, weight };
            self.len += 1;
            self.weight += weight;
            self.least = self.least.min(value);
            self.most = self.most.max(value);
        }
    }

    /// Takes in what another one has seen.
    pub fn merge(&mut self, other: &Self) {
        for item in other.items.get(..other.len).unwrap_or(&[]) {
            self.add(item.mean, item.weight);
        }
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
    }

    /// The value below which `share` of the weight lies; none of nothing.
    pub fn quantile(&mut self, share: f64) -> Option<f64> {
        self.compress();
        let items = self.items.get(..self.len).filter(|items| !items.is_empty())?;
        let wanted = share.clamp(0.0, 1.0) * self.weight;
        // Half of a centroid's weight lies on either side of its mean; between two means it spreads evenly.
        let (mut before, mut place) = (self.least, 0.0);
        let mut done = 0.0;
        for item in items {
            let middle = done + item.weight / 2.0;
            if wanted < middle {
                return Some(between(before, item.mean, (wanted - place) / (middle - place)));
            }
            (before, place) = (item.mean, middle);
            done += item.weight;
        }
        let rest = self.weight - place;
        Some(if rest > 0.0 { between(before, self.most, (wanted - place) / rest) } else { self.most })
    }

    /// Merges what has come since into the centroids.
    fn compress(&mut self) {
        if self.len == self.centroids {
            return;
        }
        let Some(items) = self.items.get_mut(..self.len) else { return };
        items.sort_unstable_by(|a, b| a.mean.total_cmp(&b.mean));
        let mut kept = 0_usize;
        let mut done = 0.0;
        let mut limit = self.weight * share_at(k(0.0) + 1.0);
        for index in 0..self.len {
            let Some(next) = self.items.get(index).copied() else { return };
            let last = kept.checked_sub(1).and_then(|last| self.items.get_mut(last));
            match last {
                // The last place takes what the bound would refuse: weights so unequal that rounding shows.
                Some(last) if done + next.weight <= limit || kept == CENTROIDS => {
                    last.weight += next.weight;
                    last.mean += (next.mean - last.mean) * (next.weight / last.weight);
                }
                _ => {
                    limit = self.weight * share_at(k(done / self.weight) + 1.0);
                    if let Some(place) = self.items.get_mut(kept) {
                        *place = next;
                    }
                    kept += 1;
                }
            }
            done += next.weight;
        }
        (self.centroids, self.len) = (kept, kept);
    }
}

/// The scale function k₁.
fn k(share: f64) -> f64 {
    COMPRESSION / core::f64::consts::TAU * asin(2.0 * share.clamp(0.0, 1.0) - 1.0)
}

/// Its inverse, 1 beyond its end.
fn share_at(k: f64) -> f64 {
    let angle = k * core::f64::consts::TAU / COMPRESSION;
    if angle >= core::f64::consts::FRAC_PI_2 { 1.0 } else { f64::midpoint(sin(angle), 1.0) }
}

fn between(low: f64, high: f64, part: f64) -> f64 {
    (low + (high - low) * part.clamp(0.0, 1.0)).clamp(low.min(high), high.max(low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;
    use proptest::prelude::*;

    fn exact(sorted: &[f64], share: f64) -> f64 {
        sorted[((sorted.len() - 1) as f64 * share).round() as usize]
    }

    #[test]
    fn quantiles_of_a_hundred_thousand_values_are_exact_in_rank() {
        let mut random = Random::new(31);
        // Sizes: many small, few large, over six decades.
        let mut values: Vec<f64> = (0..100_000).map(|_| (3.0 * random.normal() + 5.0).exp()).collect();
        let mut digest = Digest::new();
        values.iter().for_each(|value| digest.add(*value, 1.0));
        values.sort_unstable_by(f64::total_cmp);
        for (share, tolerance) in
            [(0.001, 0.0005), (0.01, 0.002), (0.25, 0.01), (0.5, 0.01), (0.99, 0.002), (0.999, 0.0005)]
        {
            let estimate = digest.quantile(share).unwrap();
            let rank = values.partition_point(|value| *value < estimate) as f64 / 100_000.0;
            assert!((rank - share).abs() < tolerance, "{share}: {rank}");
        }
        assert_eq!(digest.quantile(0.0), Some(values[0]));
        assert_eq!(digest.quantile(1.0), Some(values[99_999]));
    }

    #[test]
    fn few_values_come_back_as_they_are() {
        let mut digest = Digest::new();
        assert_eq!(digest.quantile(0.5), None);
        digest.add(7.0, 1.0);
        assert_eq!(digest.quantile(0.3), Some(7.0));
        [1.0, 2.0].iter().for_each(|value| digest.add(*value, 1.0));
        assert_eq!(digest.quantile(0.5), Some(2.0));
    }

    #[test]
    fn what_has_no_weight_or_is_not_finite_is_left_out() {
        let mut digest = Digest::new();
        for (value, weight) in
            [(f64::NAN, 1.0), (f64::INFINITY, 1.0), (9.0, f64::INFINITY), (9.0, f64::NAN), (9.0, 0.0), (9.0, -1.0)]
        {
            digest.add(value, weight);
        }
        assert_eq!((digest.weight(), digest.quantile(0.5)), (0.0, None));
        digest.add(3.0, 2.0);
        assert_eq!((digest.weight(), digest.quantile(1.0)), (2.0, Some(3.0)));
    }

    #[test]
    fn between_the_last_two_values_weight_spreads_evenly() {
        let mut digest = Digest::new();
        [0.0, 10.0].iter().for_each(|value| digest.add(*value, 1.0));
        // The middle of the first value's weight is at a quarter, that of the second at three quarters.
        let quantiles = [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| digest.quantile(share).unwrap());
        assert_eq!(quantiles, [0.0, 0.0, 5.0, 10.0, 10.0]);
        // Of one centroid of many values, the upper half lies between its mean and the largest of them.
        let mut heavy = Digest { most: 20.0, ..digest };
        let quantiles = [0.75, 0.875, 1.0].map(|share| heavy.quantile(share).unwrap());
        assert_eq!(quantiles, [10.0, 15.0, 20.0]);
    }

    #[test]
    fn two_sketches_merge_into_that_of_all() {
        let mut random = Random::new(2);
        let (mut low, mut high, mut all) = (Digest::new(), Digest::new(), Vec::new());
        for _ in 0..5000 {
            let (a, b) = (random.uniform(), 10.0 + random.uniform());
            low.add(a, 1.0);
            high.add(b, 1.0);
            all.extend([a, b]);
        }
        low.merge(&high);
        all.sort_unstable_by(f64::total_cmp);
        for share in [0.1, 0.4, 0.6, 0.9] {
            assert!((low.quantile(share).unwrap() - exact(&all, share)).abs() < 0.05, "{share}");
        }
    }

    proptest! {
        #[test]
        fn quantiles_rise_and_lie_within_what_was_seen(
            values in prop::collection::vec((-1e9..1e9_f64, 1e-3..1e6_f64), 1..1000),
        ) {
            let mut digest = Digest::new();
            for (value, weight) in &values {
                digest.add(*value, *weight);
            }
            let weight: f64 = values.iter().map(|(_, weight)| weight).sum();
            prop_assert!((digest.weight() / weight - 1.0).abs() < 1e-9);
            let quantiles: Vec<_> = (0..=50).map(|step| digest.quantile(f64::from(step) / 50.0).unwrap()).collect();
            prop_assert!(quantiles.is_sorted(), "{:?}", quantiles);
            let least = values.iter().map(|(value, _)| *value).fold(f64::INFINITY, f64::min);
            let most = values.iter().map(|(value, _)| *value).fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(quantiles[0] >= least && quantiles[50] <= most);
            prop_assert!(digest.centroids <= CENTROIDS);
        }
    }
}
