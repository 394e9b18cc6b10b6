//! One quantile in five numbers.
//!
//! P² (Jain and Chlamtac, "The P² algorithm for dynamic calculation of quantiles and histograms without storing observations",
//! 1985): five markers stand at the minimum, the maximum, the quantile and half-way to both; each value moves them by at most one
//! place, along a parabola through their neighbours. No memory but these, no error bound; good for smooth distributions.

/// An estimate of one quantile.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Quantile {
    share: f64,
    count: u64,
    /// Heights of the markers; the first values seen, in order, while there are fewer than five.
    heights: [f64; 5],
    /// Places of the markers among the values seen, from 1.
    places: [f64; 5],
}

impl Quantile {
    /// The quantile below which `share` (0 to 1) of the values lie.
    #[must_use]
    pub const fn new(share: f64) -> Self {
        Self { share: share.clamp(0.0, 1.0), count: 0, heights: [0.0; 5], places: [1.0, 2.0, 3.0, 4.0, 5.0] }
    }

    /// Values seen.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Takes a value; one that is not finite is left out.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        if let Some(place) = usize::try_from(self.count).ok().and_then(|count| self.heights.get_mut(count)) {
            *place = value;
            self.count += 1;
            if let Some(seen) = self.heights.get_mut(..self.count as usize) {
                seen.sort_unstable_by(f64::total_cmp);
            }
            return;
        }
        self.count += 1;
        let [low, .., high] = &mut self.heights;
        *low = low.min(value);
        *high = high.max(value);
        let last = self.places.len() - 1;
        for (index, (place, height)) in self.places.iter_mut().zip(&self.heights).enumerate() {
            // The maximum has one more below it always, the minimum never.
            if index == last || (index > 0 && value < *height) {
                *place += 1.0;
            }
        }
        for index in 1..last {
            self.move_marker(index);
        }
    }

    /// Moves an inner marker by a place if it is a place or more from where it should be.
    fn move_marker(&mut self, index: usize) {
        let part = [0.0, self.share / 2.0, self.share, f64::midpoint(1.0, self.share), 1.0];
        let (Some([q0, q, q1]), Some([n0, n, n1]), Some(part)) =
            (around(&self.heights, index), around(&self.places, index), part.get(index))
        else {
            return;
        };
        let off = 1.0 + (self.count - 1) as f64 * part - n;
        let step = if off >= 1.0 && n1 - n > 1.0 {
            1.0
        } else if off <= -1.0 && n - n0 > 1.0 {
            -1.0
        } else {
            return;
        };
        let parabola =
            q + step / (n1 - n0) * ((n - n0 + step) * (q1 - q) / (n1 - n) + (n1 - n - step) * (q - q0) / (n - n0));
        let moved = if q0 < parabola && parabola < q1 {
            parabola
        } else if step > 0.0 {
            q + (q1 - q) / (n1 - n)
        } else {
            q - (q0 - q) / (n0 - n)
        };
        if let (Some(height), Some(place)) = (self.heights.get_mut(index), self.places.get_mut(index)) {
            *height = moved;
            *place += step;
        }
    }

    /// The quantile; none before the first value.
    #[must_use]
    pub fn get(&self) -> Option<f64> {
        match self.count {
            0 => None,
            // The nearest of what was seen.
            1..=4 => self.heights.get((self.share * (self.count - 1) as f64 + 0.5) as usize).copied(),
            _ => self.heights.get(2).copied(),
        }
    }
}

fn around(numbers: &[f64; 5], index: usize) -> Option<[f64; 3]> {
    numbers.get(index.checked_sub(1)?..=index + 1)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;
    use proptest::prelude::*;

    #[test]
    fn the_papers_example_comes_out() {
        // Jain and Chlamtac, table I: the median of 20 numbers, estimated as 4.44 where the sample's is 2.83.
        let values = [
            0.02, 0.15, 0.74, 3.39, 0.83, 22.37, 10.15, 15.43, 38.62, 15.92, 34.60, 10.28, 1.47, 0.40, 0.05, 11.39,
            0.27, 0.42, 0.09, 11.37,
        ];
        let mut median = Quantile::new(0.5);
        values.iter().for_each(|value| median.add(*value));
        assert!((median.get().unwrap() - 4.44).abs() < 0.01, "{median:?}");
    }

    #[test]
    fn quantiles_of_smooth_distributions_are_near() {
        let mut random = Random::new(5);
        for share in [0.1, 0.5, 0.9, 0.99] {
            let (mut uniform, mut exponential) = (Quantile::new(share), Quantile::new(share));
            for _ in 0..50_000 {
                uniform.add(random.uniform());
                exponential.add(-(1.0 - random.uniform()).ln());
            }
            assert!((uniform.get().unwrap() - share).abs() < 0.01, "{share}");
            let true_one = -(1.0_f64 - share).ln();
            assert!((exponential.get().unwrap() / true_one - 1.0).abs() < 0.06, "{share}");
        }
    }

    #[test]
    fn of_up_to_four_values_the_nearest_is_the_quantile() {
        for (share, expected) in
            [(0.0, [1.0; 4]), (0.5, [1.0, 2.0, 2.0, 3.0]), (0.9, [1.0, 2.0, 3.0, 4.0]), (0.2, [1.0, 1.0, 1.0, 2.0])]
        {
            let mut quantile = Quantile::new(share);
            assert_eq!(quantile.get(), None);
            let seen = [1.0, 2.0, 3.0, 4.0].map(|value| {
                quantile.add(value);
                quantile.get().unwrap()
            });
            assert_eq!(seen, expected, "{share}");
        }
    }

    #[test]
    fn quantiles_of_values_that_are_all_alike_or_of_two_kinds_are_these() {
        for share in [0.1, 0.5, 0.9] {
            let (mut same, mut two) = (Quantile::new(share), Quantile::new(share));
            for number in 0..10_000_u32 {
                same.add(7.0);
                two.add(if number % 4 == 0 { 1000.0 } else { 1.0 });
            }
            assert_eq!(same.get(), Some(7.0));
            let (least, most) = if share < 0.75 { (1.0, 10.0) } else { (990.0, 1000.0) };
            assert!(two.get().is_some_and(|estimate| (least..=most).contains(&estimate)), "{share}: {two:?}");
        }
    }

    proptest! {
        #[test]
        fn a_quantile_lies_between_the_smallest_and_the_largest_value(
            values in prop::collection::vec(prop::num::f64::ANY, 1..300),
            share in 0.0..=1.0_f64,
        ) {
            // Sums of numbers near the end of the range are none.
            let values: Vec<_> = values.into_iter().filter(|value| value.is_finite()).map(|value| value % 1e100).collect();
            let mut quantile = Quantile::new(share);
            values.iter().for_each(|value| quantile.add(*value));
            match quantile.get() {
                None => prop_assert!(values.is_empty()),
                Some(estimate) => {
                    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
                    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    prop_assert!(least <= estimate && estimate <= most, "{} not in {}..{}", estimate, least, most);
                }
            }
        }
    }
}
