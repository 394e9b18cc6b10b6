//! Random numbers for the learners: seeded, so that a run can be told again, and independent of everything outside.
//!
//! SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014); normal numbers by the polar
//! method (Marsaglia and Bray, 1964).

use crate::math::ln;

/// A source of random numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The source that this seed names; any will do.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0.0..1.0`.
    pub const fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub const fn below(&mut self, bound: usize) -> usize {
        ((self.next() as u128 * bound as u128) >> 64) as usize
    }

    /// A number from the normal distribution with mean 0 and deviation 1.
    pub fn normal(&mut self) -> f64 {
        loop {
            let (x, y) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let square = x * x + y * y;
            if square > 0.0 && square < 1.0 {
                return x * (-2.0 * ln(square) / square).sqrt();
            }
        }
    }

    /// The place of a set bit of `set` whose worth is largest; one of them if several are worth the same.
    pub(crate) fn worthiest(&mut self, set: u64, worth: impl Fn(usize) -> f64) -> Option<usize> {
        let most = members(set).map(&worth).fold(f64::NEG_INFINITY, f64::max);
        self.member(members(set).filter(|place| worth(*place) >= most).fold(0, |set, place| set | 1 << place))
    }

    /// The place of a set bit of `set`, each with the same probability.
    pub fn member(&mut self, set: u64) -> Option<usize> {
        let skip = self.below(set.count_ones() as usize);
        members(set).nth(skip)
    }
}

/// Places of the set bits, lowest first.
pub(crate) fn members(set: u64) -> impl Iterator<Item = usize> {
    (0..u64::BITS as usize).filter(move |place| set >> place & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        // First outputs for seed 1234567, from the reference implementation.
        let mut random = Random::new(1_234_567);
        assert_eq!([random.next(), random.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn normal_numbers_have_mean_0_and_deviation_1() {
        let mut random = Random::new(5);
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..20_000 {
            let x = random.normal();
            sum += x;
            squares += x * x;
        }
        assert!((sum / 20_000.0).abs() < 0.03, "{sum}");
        assert!((squares / 20_000.0 - 1.0).abs() < 0.05, "{squares}");
    }

    #[test]
    fn every_member_is_drawn_and_nothing_else() {
        let mut random = Random::new(9);
        let mut seen = 0_u64;
        for _ in 0..200 {
            seen |= 1 << random.member(0b1011_0001).unwrap();
        }
        assert_eq!(seen, 0b1011_0001);
        assert_eq!(random.member(0), None);
    }
}
