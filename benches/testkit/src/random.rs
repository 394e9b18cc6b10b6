//! A fast random source: xorshift, one step per operation, so that it does not drown what is measured.

/// Random numbers from a seed; the same seed gives the same numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A source; any seed will do.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        // Seeds that differ in one bit must not start alike, and the state must not be zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03 | 1)
    }

    /// The next 64 bits.
    #[inline]
    pub const fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`.
    #[inline]
    pub const fn below(&mut self, bound: usize) -> usize {
        scale(self.next() >> 32, bound)
    }

    /// A slot below `slots` and a size in `low..=high`, both from one step.
    #[inline]
    pub const fn slot_and_size(&mut self, slots: usize, low: usize, high: usize) -> (usize, usize) {
        let bits = self.next();
        (scale(bits >> 32, slots), low + scale(bits & 0xffff_ffff, high - low + 1))
    }
}

/// The number that the environment gives for `name`; without it `short`, or `long` when `HAKTEST_LONG` is set and not 0.
///
/// # Panics
/// When it is there and is no number: a long run asked for wrongly must not silently be a short one.
#[must_use]
#[expect(clippy::panic, reason = "see above")]
pub fn number_from_env(name: &str, short: u64, long: u64) -> u64 {
    let Ok(text) = std::env::var(name) else { return if wants_long() { long } else { short } };
    text.trim().parse().unwrap_or_else(|error| panic!("{name}={text}: {error}"))
}

/// Whether `HAKTEST_LONG` is set and not 0.
pub(crate) fn wants_long() -> bool {
    std::env::var("HAKTEST_LONG").is_ok_and(|value| !value.is_empty() && value != "0")
}

/// How many cases a property is tried with: `HAKTEST_CASES` of them; without it `short`, or twenty times as many when
/// `HAKTEST_LONG` is set. Under Miri two, because each takes seconds there.
#[must_use]
pub fn cases(short: u32) -> u32 {
    if cfg!(miri) {
        return short.min(2);
    }
    number_from_env("HAKTEST_CASES", short.into(), u64::from(short) * 20) as u32
}

/// Maps 32 random bits to `0..bound` by multiplication.
#[inline]
const fn scale(bits: u64, bound: usize) -> usize {
    ((bits * bound as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_and_both_ends_of_the_sizes_are_met() {
        let mut random = Random::new(1);
        let mut slots = [0_u32; 400];
        let (mut smallest, mut largest) = (usize::MAX, 0);
        for _ in 0..400_000 {
            let (slot, size) = random.slot_and_size(400, 16, 1024);
            slots[slot] += 1;
            smallest = smallest.min(size);
            largest = largest.max(size);
        }
        assert_eq!((smallest, largest), (16, 1024));
        assert!(slots.iter().all(|&count| (700..1300).contains(&count)), "{slots:?}");
    }

    #[test]
    fn seeds_that_differ_in_one_bit_start_differently() {
        assert_ne!(Random::new(2).next() >> 32, Random::new(3).next() >> 32);
    }
}
