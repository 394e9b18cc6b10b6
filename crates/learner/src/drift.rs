//! Has the program changed? Two watchers: one over what it asks for, one over what that costs.
//!
//! What it asks for is a [`Shape`]: how allocations spread over sizes, how fast they come, how much is live. It does not depend on
//! policy, so a change in it is the program's own. A new shape that lasts two windows is a new phase.
//!
//! What it costs is watched by Page and Hinkley's test (Page, "Continuous inspection schemes", 1954; Hinkley, 1971) while nothing
//! is on trial: a cost that has risen without any change of shape says that what was learned does not hold any more.

use crate::Window;
use crate::math::log2;
use crate::window::mid_group;

/// Two for each doubling up to 16 KiB, one from there to 32 KiB, one per group of runs, one for big blocks.
const BINS: usize = 24 + 5 + 1;
/// Fewer events say too little about sizes.
const MIN_EVENTS: u64 = 256;

/// What a program asks for in a window.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Shape {
    /// Share of each bin in the allocations.
    blocks: [f64; BINS],
    /// Share of each bin in their bytes.
    bytes: [f64; BINS],
    has_sizes: bool,
    /// log2 of allocations per second.
    rate: f64,
    /// log2 of live bytes.
    live: f64,
}

impl Shape {
    /// The shape of a window.
    #[must_use]
    pub fn of(window: &Window) -> Self {
        let mut blocks = [0.0; BINS];
        let mut bytes = [0.0; BINS];
        let mut add = |bin: usize, count: u64, each: f64| {
            if let (Some(blocks), Some(bytes)) = (blocks.get_mut(bin), bytes.get_mut(bin)) {
                *blocks += count as f64;
                *bytes += count as f64 * each;
            }
        };
        for (class, seen) in window.by_class() {
            let each = class.block_bytes();
            // 8 bytes is bin 0; mid classes are told apart as finely.
            let half = usize::from(each as f64 > 1.5 * (each.next_power_of_two() / 2) as f64);
            let octave = each.next_power_of_two().trailing_zeros().saturating_sub(3) as usize;
            debug_assert!(mid_group(class).is_none() || octave >= 8);
            add((2 * octave + half).saturating_sub(1).min(23), seen.allocs, each as f64);
        }
        for (group, seen) in window.run_groups.iter().enumerate() {
            add(24 + group, seen.requests, (96_u64 << (10 + group)) as f64);
        }
        add(BINS - 1, window.big_requests, (4_u64 << 20) as f64);
        let has_sizes = normalise(&mut blocks) && normalise(&mut bytes) && window.allocs >= MIN_EVENTS;
        let seconds = window.elapsed_ns.max(1) as f64 / 1e9;
        Self {
            blocks,
            bytes,
            has_sizes,
            rate: log2(1.0 + window.allocs as f64 / seconds),
            live: log2(1.0 + window.live_bytes as f64 / (1 << 20) as f64),
        }
    }

    /// How different two shapes are, from 0 to 1.
    #[must_use]
    pub fn distance(&self, other: &Self) -> f64 {
        let sizes = if self.has_sizes && other.has_sizes {
            // Few large blocks are as much a phase as many small ones, but their number is noisy.
            total_variation(&self.blocks, &other.blocks).max(0.6 * total_variation(&self.bytes, &other.bytes))
        } else {
            0.0
        };
        sizes.max(octaves(self.rate, other.rate)).max(octaves(self.live, other.live)).min(1.0)
    }

    /// Moves towards another shape by a part.
    fn approach(&mut self, other: &Self, part: f64) {
        if other.has_sizes {
            let part = if self.has_sizes { part } else { 1.0 };
            for (own, new) in [(&mut self.blocks, &other.blocks), (&mut self.bytes, &other.bytes)] {
                own.iter_mut().zip(new).for_each(|(own, new)| *own += part * (new - *own));
            }
            self.has_sizes = true;
        }
        self.rate += part * (other.rate - self.rate);
        self.live += part * (other.live - self.live);
    }
}

/// A difference of two doublings is worth as much as half of all allocations moving elsewhere.
fn octaves(one: f64, other: f64) -> f64 {
    (one - other).abs() / 4.0
}

fn normalise(shares: &mut [f64; BINS]) -> bool {
    let sum: f64 = shares.iter().sum();
    if sum > 0.0 {
        shares.iter_mut().for_each(|share| *share /= sum);
    }
    sum > 0.0
}

fn total_variation(one: &[f64; BINS], other: &[f64; BINS]) -> f64 {
    one.iter().zip(other).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0
}

/// What a window says about the phase.
#[derive(Clone, Copy, PartialEq, Debug)]
#[expect(clippy::large_enum_variant, reason = "it lives for a moment")]
pub enum Fit {
    /// It belongs to it.
    Same,
    /// It does not; whether it is a moment or another phase, the next one will tell.
    Strange,
    /// Another phase has begun, with this shape.
    Another(Shape),
}

/// Follows the shape of one phase and says when another has begun.
#[derive(Clone, Debug, Default)]
pub struct ShapeWatch {
    phase: Option<Shape>,
    /// Mean distance of a window of this phase to it.
    spread: f64,
    /// The window before, if it did not fit.
    stranger: Option<Shape>,
}

/// At this distance a window does not fit, if the phase is steady.
const STRANGE: f64 = 0.25;
/// At this many times the phase's own spread, if it is not.
const STRANGE_SPREADS: f64 = 3.0;
/// Part by which a phase follows its windows.
const FOLLOW: f64 = 0.1;

impl ShapeWatch {
    /// Takes a window's shape.
    pub fn observe(&mut self, shape: &Shape) -> Fit {
        let Some(phase) = &mut self.phase else {
            self.begin(*shape);
            return Fit::Same;
        };
        let distance = phase.distance(shape);
        let limit = STRANGE.max(STRANGE_SPREADS * self.spread);
        if distance <= limit {
            phase.approach(shape, FOLLOW);
            self.spread += FOLLOW * (distance - self.spread);
            self.stranger = None;
            return Fit::Same;
        }
        // Two in a row that are like each other: not a moment of something else, but something else.
        match self.stranger.replace(*shape) {
            Some(before) if before.distance(shape) <= limit => {
                self.begin(*shape);
                Fit::Another(*shape)
            }
            // A program that is never alike makes a phase that is wide.
            _ => {
                self.spread += FOLLOW * (distance - self.spread);
                Fit::Strange
            }
        }
    }

    /// The shape of the phase so far.
    #[must_use]
    pub const fn phase(&self) -> Option<&Shape> {
        self.phase.as_ref()
    }

    fn begin(&mut self, shape: Shape) {
        *self = Self { phase: Some(shape), spread: 0.0, stranger: None };
    }
}

/// Page and Hinkley's test for a mean that has risen.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PageHinkley {
    /// Rises below this are let pass.
    tolerance: f64,
    /// How large the sum of what is above must become.
    threshold: f64,
    mean: f64,
    count: u32,
    sum: f64,
    lowest: f64,
}

impl PageHinkley {
    /// A test that lets pass what is below `tolerance`, and speaks when the sum of what is above reaches `threshold`.
    #[must_use]
    pub const fn new(tolerance: f64, threshold: f64) -> Self {
        Self { tolerance, threshold, mean: 0.0, count: 0, sum: 0.0, lowest: 0.0 }
    }

    /// Takes a value; true if the mean has risen, after which the test begins anew.
    pub fn observe(&mut self, value: f64) -> bool {
        self.count = self.count.saturating_add(1);
        self.mean += (value - self.mean) / f64::from(self.count);
        self.sum += value - self.mean - self.tolerance;
        self.lowest = self.lowest.min(self.sum);
        let has_risen = self.sum - self.lowest > self.threshold;
        if has_risen {
            *self = Self::new(self.tolerance, self.threshold);
        }
        has_risen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use proptest::prelude::*;

    fn window(classes: &[(usize, u64)], rate: u64) -> Window {
        let mut window =
            Window { elapsed_ns: 1_000_000_000 * 1000 / rate.max(1), live_bytes: 8 << 20, ..Window::EMPTY };
        for &(class, allocs) in classes {
            window.classes[class].allocs = allocs;
            window.allocs += allocs;
        }
        window
    }

    fn noisy(random: &mut Random, mean: f64) -> u64 {
        (mean * (1.0 + 0.1 * random.normal())).max(0.0) as u64
    }

    #[test]
    fn a_steady_program_is_one_phase_and_another_one_is_seen_after_two_windows() {
        let mut random = Random::new(8);
        let mut watch = ShapeWatch::default();
        for _ in 0..500 {
            let now = window(&[(3, noisy(&mut random, 600.0)), (20, noisy(&mut random, 400.0))], 100_000);
            assert_eq!(watch.observe(&Shape::of(&now)), Fit::Same);
        }
        let other = Shape::of(&window(&[(3, 100), (50, 900)], 100_000));
        assert_eq!(watch.observe(&other), Fit::Strange);
        assert_eq!(watch.observe(&other), Fit::Another(other));
        assert_eq!(watch.observe(&other), Fit::Same);
    }

    #[test]
    fn a_single_odd_window_is_no_phase() {
        let mut watch = ShapeWatch::default();
        let usual = Shape::of(&window(&[(3, 1000)], 100_000));
        let odd = Shape::of(&window(&[(60, 1000)], 100_000));
        for number in 0..50 {
            let shape = if number % 7 == 3 { &odd } else { &usual };
            assert!(!matches!(watch.observe(shape), Fit::Another(_)));
        }
    }

    #[test]
    fn a_program_that_is_never_alike_makes_a_phase_that_is_wide() {
        let mut random = Random::new(2);
        let mut watch = ShapeWatch::default();
        let mut strange = 0;
        for number in 0..200 {
            let share = random.below(1001) as u64;
            let seen = watch.observe(&Shape::of(&window(&[(3, 1000 - share), (50, share)], 100_000)));
            strange += u32::from(number >= 20 && seen != Fit::Same);
        }
        assert!(strange <= 9, "{strange}");
        // A program that has become steady is a narrow one again.
        let steady = Shape::of(&window(&[(3, 500), (50, 500)], 100_000));
        for _ in 0..50 {
            watch.observe(&steady);
        }
        assert_eq!(watch.observe(&Shape::of(&window(&[(3, 900), (50, 100)], 100_000))), Fit::Strange);
    }

    #[test]
    fn the_same_sizes_at_a_tenth_of_the_rate_are_another_phase() {
        let mut watch = ShapeWatch::default();
        let (day, night) = (window(&[(3, 1000)], 100_000), window(&[(3, 1000)], 10_000));
        for _ in 0..5 {
            assert_eq!(watch.observe(&Shape::of(&day)), Fit::Same);
        }
        assert_eq!(watch.observe(&Shape::of(&night)), Fit::Strange);
        assert!(matches!(watch.observe(&Shape::of(&night)), Fit::Another(_)));
    }

    /// A window with so many runs in each group and so many big blocks, and nothing else.
    fn large(run_groups: [u64; 5], big_requests: u64) -> Window {
        let mut window = Window { allocs: 1000, big_requests, ..window(&[], 100_000) };
        window.run_groups.iter_mut().zip(run_groups).for_each(|(group, requests)| group.requests = requests);
        Window { allocs: 1000, ..window }
    }

    #[test]
    fn sizes_that_are_half_as_large_again_are_told_apart_and_so_are_all_kinds_of_large_blocks() {
        let mut kinds: Vec<_> = hakmem_base::SizeClass::all()
            .map(|class| (class.block_bytes(), Shape::of(&window(&[(class.index(), 1000)], 100_000))))
            .collect();
        for group in 0..5 {
            let mut groups = [0; 5];
            groups[group] = 1000;
            kinds.push((64 << (10 + group), Shape::of(&large(groups, 0))));
        }
        kinds.push((4 << 20, Shape::of(&large([0; 5], 1000))));
        for (bytes, one) in &kinds {
            let is_apart = |others: usize| 2 * others >= 3 * bytes && (*bytes <= 16 << 10 || others > 32 << 10);
            for (others, other) in kinds.iter().filter(|(others, _)| is_apart(*others)) {
                assert_eq!(one.distance(other), 1.0, "{bytes} and {others}");
            }
        }
    }

    #[test]
    fn a_few_large_blocks_are_as_much_a_phase_as_many_small_ones() {
        let small = window(&[(3, 1000)], 100_000);
        for other in [large([5, 0, 0, 0, 0], 0), large([0, 0, 0, 0, 5], 0), large([0; 5], 5)] {
            let mixed = Window { run_groups: other.run_groups, big_requests: other.big_requests, ..small.clone() };
            assert!(Shape::of(&small).distance(&Shape::of(&mixed)) > 2.0 * STRANGE);
        }
    }

    #[test]
    fn sixteen_times_the_live_memory_is_another_phase_unless_it_is_little() {
        let live = |live_bytes| Shape::of(&Window { live_bytes, ..window(&[(3, 1000)], 100_000) });
        assert!(live(8 << 20).distance(&live(128 << 20)) > STRANGE);
        assert!(live(8 << 30).distance(&live(128 << 30)) > STRANGE);
        assert!(live(50 << 10).distance(&live(800 << 10)) < STRANGE);
    }

    #[test]
    fn few_events_say_nothing_about_sizes() {
        let of = |class, allocs| Shape::of(&window(&[(class, allocs)], 1_000_000));
        for (events, other_events, distance) in [(255, 255, 0.0), (255, 256, 0.0), (256, 255, 0.0), (256, 256, 1.0)] {
            let seen = of(3, events).distance(&of(50, other_events));
            assert!((seen - distance).abs() < 0.01, "{events} and {other_events}: {seen}");
        }
    }

    #[test]
    fn a_program_that_changes_slowly_is_one_phase() {
        let mut watch = ShapeWatch::default();
        for number in 0..1000_u64 {
            let rate = 1000 * 1.01_f64.powi(number as i32) as u64;
            let live_bytes = (8 << 20) << (number / 128);
            let now = Window { live_bytes, ..window(&[(3, 1000 - number), (50, number)], rate) };
            assert_eq!(watch.observe(&Shape::of(&now)), Fit::Same, "window {number}");
        }
    }

    #[test]
    fn page_hinkley_sees_a_rise_of_a_tenth_and_sleeps_through_noise() {
        let mut random = Random::new(4);
        let mut test = PageHinkley::new(0.01, 0.5);
        assert!((0..2000).all(|_| !test.observe(0.03 * random.normal())));
        let delay = (0..200).position(|_| test.observe(0.1 + 0.03 * random.normal()));
        assert!(delay.is_some_and(|windows| windows < 20), "{delay:?}");
    }

    proptest! {
        #[test]
        fn a_distance_is_symmetric_within_bounds_and_0_to_itself(
            one in prop::collection::vec(any::<u32>(), hakmem_base::CLASS_COUNT),
            other in prop::collection::vec(any::<u32>(), hakmem_base::CLASS_COUNT),
            rate in 1..1_000_000_000_u64,
        ) {
            let shape = |counts: &[u32]| {
                let counts: Vec<_> = counts.iter().enumerate().map(|(class, count)| (class, u64::from(*count))).collect();
                Shape::of(&window(&counts, rate))
            };
            let (one, other) = (shape(&one), shape(&other));
            prop_assert_eq!(one.distance(&one), 0.0);
            let distance = one.distance(&other);
            prop_assert!((0.0..=1.0).contains(&distance));
            prop_assert_eq!(distance, other.distance(&one));
        }
    }
}
