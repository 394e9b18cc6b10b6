//! What an attacker must not guess: the secret behind the canaries, and where the next block will lie.
//!
//! **Not here.** Cryptography. The generator is fast and its output is never shown; who can read a program's memory at will
//! can read the secret too.

use hakmem_base::keeping_errno;

/// Set in every byte of a canary: neither the end of a text nor ASCII text passes for one.
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
/// The odd constant of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Numbers nobody can foresee from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(bound) * (self.next() >> 32)) >> 32) as u32
    }

    /// Makes the sequence another one.
    pub(crate) fn stir(&mut self, seed: u64) {
        self.0 = mix(self.0 ^ seed);
    }
}

/// The process's secret.
///
/// Two words, one before the mixing and one after it (the construction of Even and Mansour): `mix` can be undone, so with one
/// word alone whoever reads one canary would know all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Secret {
    inner: u64,
    outer: u64,
}

impl Secret {
    pub(crate) const fn new(inner: u64, outer: u64) -> Self {
        Self { inner, outer }
    }

    /// The canary word of the block at `address`: another one for each place.
    #[inline]
    pub(crate) fn canary(self, address: usize) -> u64 {
        (mix(self.inner ^ address as u64) ^ self.outer) | HIGH_BITS
    }
}

#[inline]
const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A seed from the kernel. `false` beside it: the kernel gave none, and the seed is made of addresses and the clock.
pub(crate) fn seed() -> (u64, bool) {
    let mut word = 0_u64;
    // SAFETY: fills the eight bytes of a local. Without waiting: early in the boot of a machine it rather fails.
    let read =
        keeping_errno(|| unsafe { libc::getrandom((&raw mut word).cast(), size_of::<u64>(), libc::GRND_NONBLOCK) });
    if read == size_of::<u64>() as isize {
        return (word, true);
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the timespec it is given.
    let _always_there = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    // The stack's place is random where the kernel randomises at all.
    let here = (&raw const time).addr() as u64;
    (mix(here ^ (time.tv_nsec as u64).rotate_left(40) ^ time.tv_sec as u64), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canaries_differ_by_place_and_hold_no_text() {
        let secret = Secret::new(seed().0, seed().0);
        assert_ne!(secret.canary(0x1000), secret.canary(0x1010));
        for address in (0..16_000).step_by(16) {
            assert!(secret.canary(address).to_ne_bytes().iter().all(|byte| *byte >= 0x80));
        }
    }

    #[test]
    fn both_words_of_the_secret_count() {
        let [one, other, third] = [Secret::new(1, 2), Secret::new(1, 3), Secret::new(4, 2)].map(|it| it.canary(0x1000));
        // 2 and 3 differ in one bit that every canary shows, 1 and 4 in what is mixed.
        assert_eq!(one ^ other, 1);
        assert_ne!(one, third);
    }

    #[test]
    fn numbers_stay_below_their_bound_and_reach_all_of_it() {
        let mut random = Random::new(seed().0);
        let mut seen = [0; 7];
        for _ in 0..7000 {
            seen[random.below(7) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (500..1500).contains(count)), "{seen:?}");
        assert_eq!(random.below(1), 0);
    }

    #[test]
    fn two_seeds_differ() {
        assert_ne!(seed().0, seed().0);
    }
}
