//! When the next block is due to be looked at, as a guarded sample or a watched block: a random distance per class, counted down by
//! the heartbeats that exist anyway.
//!
//! Nothing here is called from a fast path: a pop counts `ticks` down whether anybody looks or not. If so, a bin is wound up for the
//! shorter of the usual distance and what is left to its next sample.

use core::cell::Cell;
use hakmem_base::SizeClass;

use crate::bin::Bin;
use crate::heap::Heap;
use crate::layout;

/// The odd constant of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// One heap's countdowns but those of its classes, which their tallies hold. All zero is a valid state.
#[derive(Debug)]
pub(crate) struct Pace {
    random: Cell<u64>,
    /// Allocations beyond the slabs' sizes until the next sample; 0: not drawn yet.
    large: Cell<u32>,
    /// Allocations since the last heartbeat that did the usual duties.
    since_routine: Cell<u32>,
    /// One allocation in this many is a watched block; 0: none.
    pub(crate) watch: Cell<u32>,
}

impl Pace {
    pub(crate) const fn new() -> Self {
        Self { random: Cell::new(0), large: Cell::new(0), since_routine: Cell::new(0), watch: Cell::new(0) }
    }

    /// Makes the distances to come other ones.
    pub(crate) fn stir(&self, seed: u64) {
        self.random.set(mix(self.random.get() ^ seed));
    }

    pub(crate) fn random(&self) -> u64 {
        self.random.set(self.random.get().wrapping_add(STEP));
        mix(self.random.get())
    }

    /// Allocations to wind a class's bin up for, at most `longest`: one in `mean` is a sample. `left` is what is left of the way
    /// to the next one beyond that; 0: the beat that comes is the sample.
    pub(crate) fn next(&self, left: &Cell<u32>, mean: u32, longest: u32) -> u32 {
        if left.get() == 0 {
            left.set(self.distance(mean));
        }
        let step = left.get().min(longest.max(1));
        left.set(left.get() - step);
        step
    }

    /// Like [`Pace::next`], for a class that begins to be sampled.
    pub(crate) fn first(&self, left: &Cell<u32>, mean: u32, longest: u32) -> u32 {
        left.set(self.first_distance(mean));
        self.next(left, mean, longest)
    }

    /// Counts one allocation beyond the slabs' sizes. True if it is a sample.
    pub(crate) fn count_large(&self, mean: u32) -> bool {
        if self.large.get() == 0 {
            self.large.set(self.first_distance(mean));
        }
        // A mean that has become shorter counts at once.
        let left = self.large.get().min(mean.saturating_mul(2)) - 1;
        self.large.set(if left == 0 { self.distance(mean) } else { left });
        left == 0
    }

    /// Counts allocations towards the usual duties. True if these are due.
    pub(crate) fn count_routine(&self, allocs: u32, period: u32) -> bool {
        let since = self.since_routine.get().saturating_add(allocs);
        self.since_routine.set(if since >= period { 0 } else { since });
        since >= period
    }

    /// Uniform on 1 ..= 2 * mean - 1, whose mean is `mean`; always 1 for 1.
    fn distance(&self, mean: u32) -> u32 {
        let span = u64::from(mean.max(1)) * 2 - 1;
        1 + ((span * (self.random() >> 32)) >> 32) as u32
    }

    /// The wait of somebody who arrives between two samples. Drawing a whole distance instead would sample classes and threads
    /// that allocate little about half as often as the others: the smaller of two draws has nearly the right distribution.
    fn first_distance(&self, mean: u32) -> u32 {
        self.distance(mean).min(self.distance(mean))
    }
}

impl Heap {
    /// One allocation of a class in this many is looked at, as a guarded sample or else a watched block; 0: none.
    pub(crate) fn mean_distance(&self) -> u32 {
        if !layout::WATCHES_SMALL {
            return 0;
        }
        match self.policy().sample {
            0 => self.pace.watch.get(),
            mean => mean,
        }
    }

    /// One allocation in this many is watched, unless the policy wants guarded samples instead; 0: none.
    #[inline]
    #[must_use]
    pub fn watch_distance(&self) -> u32 {
        self.pace.watch.get()
    }

    /// Changes [`Heap::watch_distance`]: all distances are drawn anew.
    pub fn set_watch_distance(&self, mean: u32) {
        self.pace.watch.set(mean);
        if self.policy().sample != 0 {
            return;
        }
        for (class, bin) in self.classes().filter(|(_, bin)| bin.is_set_up()) {
            self.settle(bin, class);
            let _counted = self.pace.count_routine(bin.passed(), u32::MAX);
            bin.wind_up(self.first_beat(class));
        }
    }

    /// Counts an allocation that is too large for a slab. True if it should be watched: one in a quarter of
    /// [`Heap::watch_distance`], because large blocks cost a program more each.
    #[inline]
    #[must_use]
    pub fn count_large_to_watch(&self) -> bool {
        let mean = self.watch_distance();
        mean != 0 && self.policy().sample == 0 && self.pace.count_large((mean / 4).max(1))
    }

    /// Allocations until the first heartbeat of a class under the present policy.
    #[unsafe(link_section = ".text.hot.hakmem")]
    pub(crate) fn first_beat(&self, class: SizeClass) -> u32 {
        match self.mean_distance() {
            0 => self.policy().heartbeat_allocs,
            mean => self.pace.first(&self.tally(class).left, mean, self.policy().heartbeat_allocs),
        }
    }

    /// Allocations from one heartbeat of a class to the next.
    pub(crate) fn next_beat(&self, class: SizeClass) -> u32 {
        match self.mean_distance() {
            0 => self.policy().heartbeat_allocs,
            mean => self.pace.next(&self.tally(class).left, mean, self.policy().heartbeat_allocs),
        }
    }

    /// Counts a bin's allocations between two heartbeats. Without sampling the way to the next one begins anew; with it the way
    /// goes on, because a bin that is refilled often would never come to its sample.
    #[unsafe(link_section = ".text.hot.hakmem")]
    pub(crate) fn rewind(&self, bin: &Bin, class: SizeClass) {
        self.settle(bin, class);
        if self.mean_distance() == 0 {
            return bin.wind_up(bin.reload.get());
        }
        let left = bin.ticks.get();
        let _counted = self.pace.count_routine(bin.passed(), u32::MAX);
        bin.wind_up(left.max(1));
    }

    /// Whether the block just popped was the last one before a heartbeat of its class.
    #[inline]
    #[must_use]
    pub fn is_at_beat(&self, class: SizeClass) -> bool {
        self.bin(class).ticks.get() == 0
    }

    /// Counts an allocation that is too large for a slab. True if it is to be a guarded sample.
    #[inline]
    #[must_use]
    pub fn count_large_to_sample(&self) -> bool {
        let mean = self.policy().sample;
        layout::WATCHES_SMALL && mean != 0 && self.pace.count_large(mean)
    }

    /// A random number. Not for secrets.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.pace.random()
    }

    /// Mixes `seed` into this heap's random numbers, so that they differ from those of other heaps, and of this one's copy in a
    /// forked child.
    pub fn stir(&self, seed: u64) {
        self.pace.stir(seed);
    }
}

const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples among `allocs` allocations, walked beat by beat.
    fn samples(pace: &Pace, mean: u32, longest: u32, allocs: u64) -> u64 {
        let left = Cell::new(0);
        let (mut passed, mut samples) = (u64::from(pace.first(&left, mean, longest)), 0);
        while passed <= allocs {
            samples += u64::from(left.get() == 0);
            passed += u64::from(pace.next(&left, mean, longest));
        }
        samples
    }

    #[test]
    fn one_allocation_in_n_is_a_sample_whether_n_is_below_or_above_the_longest_step() {
        for (mean, longest) in [(10, 4096), (1000, 4096), (5000, 4096), (5000, 64), (100_000, 4096)] {
            let pace = Pace::new();
            pace.stir(42);
            let expected = 2000;
            let found = samples(&pace, mean, longest, u64::from(mean) * expected);
            assert!(found.abs_diff(expected) < expected / 15, "{found} samples at a mean of {mean}");
        }
    }

    #[test]
    fn a_mean_of_one_samples_every_allocation() {
        let pace = Pace::new();
        assert_eq!(samples(&pace, 1, 4096, 1000), 1000);
        assert!((0..1000).all(|_| pace.count_large(1)));
    }

    #[test]
    fn short_lived_classes_are_sampled_as_often_as_long_lived_ones() {
        let (pace, mean, lives) = (Pace::new(), 1000, 20_000);
        pace.stir(7);
        let found: u64 = (0..lives).map(|_| samples(&pace, mean, 4096, 100)).sum();
        let expected = lives * 100 / u64::from(mean);
        assert!(found.abs_diff(expected) < expected / 10, "{found} instead of {expected}");
    }

    #[test]
    fn large_allocations_are_sampled_one_in_n() {
        let pace = Pace::new();
        pace.stir(9);
        let found = (0..1_000_000).filter(|_| pace.count_large(500)).count();
        assert!(found.abs_diff(2000) < 130, "{found}");
    }

    #[test]
    fn duties_keep_their_rate_however_short_the_beats_are() {
        let pace = Pace::new();
        let routine = (0..100_000).filter(|_| pace.count_routine(3, 4096)).count();
        assert!((70..=74).contains(&routine), "{routine}");
    }
}
