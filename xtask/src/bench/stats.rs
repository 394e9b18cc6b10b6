//! The few statistics that tables and plots are made of.

use statrs::statistics::{Data, OrderStatistics as _, Statistics as _};

/// Where the values of several runs lie.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spread {
    /// A quarter of the values lie below it.
    pub low: f64,
    /// Half of them.
    pub median: f64,
    /// Three quarters.
    pub high: f64,
}

impl Spread {
    /// `None` of no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().collect();
        if values.is_empty() {
            return None;
        }
        let mut data = Data::new(values);
        Some(Self { low: data.lower_quartile(), median: data.median(), high: data.upper_quartile() })
    }

    /// The middle half of the values as a share of the median: 0.02 is ±1 %.
    pub fn relative(&self) -> f64 {
        if self.median > 0.0 { (self.high - self.low) / self.median } else { 0.0 }
    }
}

/// The median; `None` of no values.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    Spread::of(values).map(|spread| spread.median)
}

/// The geometric mean, the only one that ratios have; `None` of no values, and of values that are no ratios.
pub fn geometric_mean(ratios: impl IntoIterator<Item = f64>) -> Option<f64> {
    let ratios: Vec<f64> = ratios.into_iter().collect();
    let fit = !ratios.is_empty() && ratios.iter().all(|ratio| ratio.is_finite() && *ratio > 0.0);
    fit.then(|| ratios.geometric_mean())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_and_no_values() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
        let one = Spread::of([7.0]).unwrap();
        assert_eq!((one.low, one.median, one.high), (7.0, 7.0, 7.0));
    }

    #[test]
    fn one_outlier_moves_neither_median_nor_quartiles_far() {
        let spread = Spread::of([10.0, 11.0, 10.5, 10.2, 900.0]).unwrap();
        assert!(spread.low >= 10.0 && (spread.median - 10.5).abs() < 1e-9, "{spread:?}");
        let calm = Spread::of([10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 900.0]).unwrap();
        assert!(calm.relative() < 1e-9, "{calm:?}");
    }

    #[test]
    fn geometric_means_treat_twice_and_half_alike() {
        assert!((geometric_mean([2.0, 0.5, 1.0]).unwrap() - 1.0).abs() < 1e-12);
        assert!((geometric_mean([2.0, 8.0]).unwrap() - 4.0).abs() < 1e-12);
        assert_eq!(geometric_mean([]), None);
        assert_eq!(geometric_mean([1.0, 0.0]), None);
    }
}
