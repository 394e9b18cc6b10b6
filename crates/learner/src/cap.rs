//! CAP: capacities of caches, steered by hit rate.
//!
//! Each size group has a loop: its hit rate is compared with a target (0.65 for mid blocks, 0.55 for runs: the founding documents'),
//! and its capacity moved in steps in proportion to what is missing. A dead-band keeps it from answering noise. The five
//! capacities together must stay within a budget; when they want more, those with hits to spare give first, and what is still too
//! much is shared out by water-filling: everybody gets as much for each miss, up to what he wants.
//!
//! Integral and derivative terms are there and off. The integral is bounded, and rests while the capacity cannot follow
//! (conditional integration); the derivative is of the hit rate, not of the error, and passes a first-order filter (Åström and
//! Hägglund, "PID Controllers", 1995). In all tests of this crate the proportional term alone is as fast and never overshoots,
//! because the process has no inertia of its own: a cache's hit rate follows its capacity within a window.

use hakmem_policy::SIZE_GROUPS;

/// What a group did in a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Demand {
    /// Requests.
    pub requests: u64,
    /// Of these, not served by the cache.
    pub misses: u64,
}

/// What happens to a capacity whose hit rate is above its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Surplus {
    /// It is given up only when another group wants it: a cache that is not used is emptied by idle trims anyway.
    GivenToOthers,
    /// It shrinks until the hit rate is on target, as the founding documents have it.
    GivenUp,
}

/// A controller of five capacities.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CapOptions {
    /// Hit rate aimed at.
    pub target: f64,
    /// Differences up to this are let pass.
    pub dead_band: f64,
    /// Units that a difference of one dead-band moves a capacity.
    pub step: u32,
    /// Steps at most in a window.
    pub most_steps: f64,
    /// Smallest capacity.
    pub min: u32,
    /// Largest capacity.
    pub max: u32,
    /// Requests below which a window says nothing about a group.
    pub min_requests: u64,
    /// What happens to a surplus.
    pub surplus: Surplus,
    /// Factor of the error.
    pub proportional: f64,
    /// Factor of the error's sum; 0 is off.
    pub integral: f64,
    /// Factor of the hit rate's change; 0 is off.
    pub derivative: f64,
}

impl CapOptions {
    /// For the mid groups (capacities in OS pages).
    pub const MID: Self = Self {
        target: 0.65,
        dead_band: 0.05,
        step: 4,
        most_steps: 4.0,
        min: 4,
        max: 256,
        min_requests: 64,
        surplus: Surplus::GivenToOthers,
        proportional: 1.0,
        integral: 0.0,
        derivative: 0.0,
    };
    /// For the groups of runs (capacities in runs).
    pub const LARGE: Self =
        Self { target: 0.55, step: 1, most_steps: 2.0, min: 1, max: 32, min_requests: 16, ..Self::MID };

    /// With the integral and the derivative terms, which save a window where the way is long.
    #[must_use]
    pub const fn with_all_terms(self) -> Self {
        Self { integral: 0.5, derivative: 0.3, ..self }
    }
}

/// The state of one group's loop.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Loop {
    integral: f64,
    hit_rate: Option<f64>,
    slope: f64,
    /// The last wish was not granted.
    is_saturated: bool,
}

/// Steers five capacities.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CapController {
    options: CapOptions,
    loops: [Loop; SIZE_GROUPS],
}

/// The integral moves a capacity by at most as much as the proportional term.
const INTEGRAL_LIMIT: f64 = 1.0;
/// Part of a new slope that the filter lets through.
const SLOPE_FILTER: f64 = 0.3;

impl CapController {
    /// A controller at rest.
    #[must_use]
    pub const fn new(options: CapOptions) -> Self {
        const AT_REST: Loop = Loop { integral: 0.0, hit_rate: None, slope: 0.0, is_saturated: false };
        Self { options, loops: [AT_REST; SIZE_GROUPS] }
    }

    /// The capacities for the next window.
    pub fn step(
        &mut self,
        caps: &[u32; SIZE_GROUPS],
        demands: &[Demand; SIZE_GROUPS],
        budget: u32,
    ) -> [u32; SIZE_GROUPS] {
        let options = self.options;
        let mut wishes = *caps;
        let mut floors = *caps;
        for (((wish, floor), demand), state) in wishes.iter_mut().zip(&mut floors).zip(demands).zip(&mut self.loops) {
            let change = state.change(demand, &options);
            let moved =
                (i64::from(*wish) + change).clamp(options.min.into(), options.max.max(options.min).into()) as u32;
            state.is_saturated = i64::from(moved) != i64::from(*wish) + change;
            if change > 0 {
                *wish = moved.max(*wish);
                *floor = *wish;
            } else if change < 0 {
                *floor = moved.min(*floor);
            }
        }
        if options.surplus == Surplus::GivenUp {
            // A floor is below the capacity only where there is a surplus.
            wishes
                .iter_mut()
                .zip(&floors)
                .zip(caps)
                .filter(|((_, floor), cap)| floor < cap)
                .for_each(|((wish, floor), _)| *wish = *floor);
        }
        let granted = share_out(&wishes, &floors, demands, budget);
        for ((state, granted), wish) in self.loops.iter_mut().zip(&granted).zip(&wishes) {
            state.is_saturated |= granted < wish;
        }
        granted
    }
}

impl Loop {
    /// Units by which the capacity should change.
    fn change(&mut self, demand: &Demand, options: &CapOptions) -> i64 {
        if demand.requests < options.min_requests.max(1) {
            return 0;
        }
        let hit_rate = 1.0 - demand.misses.min(demand.requests) as f64 / demand.requests as f64;
        let error = options.target - hit_rate;
        if let Some(before) = self.hit_rate.replace(hit_rate) {
            self.slope += SLOPE_FILTER * (hit_rate - before - self.slope);
        }
        if error.abs() <= options.dead_band {
            self.integral = 0.0;
            return 0;
        }
        if !self.is_saturated {
            self.integral = (self.integral + error).clamp(-INTEGRAL_LIMIT, INTEGRAL_LIMIT);
        }
        let wanted = options.proportional * error + options.integral * self.integral - options.derivative * self.slope;
        let steps = (wanted / options.dead_band.max(1e-3)).clamp(-options.most_steps, options.most_steps);
        (steps * f64::from(options.step)).round() as i64
    }
}

/// Cuts wishes down to a budget. Who has a floor below his wish gives first, in proportion; then the budget is shared out by
/// water-filling on the misses.
fn share_out(
    wishes: &[u32; SIZE_GROUPS],
    floors: &[u32; SIZE_GROUPS],
    demands: &[Demand; SIZE_GROUPS],
    budget: u32,
) -> [u32; SIZE_GROUPS] {
    let sum = |caps: &[u32; SIZE_GROUPS]| caps.iter().map(|cap| u64::from(*cap)).sum::<u64>();
    let too_much = sum(wishes).saturating_sub(budget.into());
    if too_much == 0 {
        return *wishes;
    }
    let spare: u64 = wishes.iter().zip(floors).map(|(wish, floor)| u64::from(wish.saturating_sub(*floor))).sum();
    let mut caps = *wishes;
    if spare > 0 {
        for (cap, floor) in caps.iter_mut().zip(floors) {
            let own = u64::from(cap.saturating_sub(*floor));
            *cap -= (own * too_much.min(spare)).div_ceil(spare).min(own) as u32;
        }
    }
    if sum(&caps) <= budget.into() {
        return caps;
    }
    water_fill(&caps, demands, budget)
}

/// Shares a budget out: everybody gets as much for each miss, up to his wish. The sum is at most the budget, and less only if all
/// wishes are granted.
#[must_use]
pub fn water_fill(wishes: &[u32; SIZE_GROUPS], demands: &[Demand; SIZE_GROUPS], budget: u32) -> [u32; SIZE_GROUPS] {
    let mut granted = [0; SIZE_GROUPS];
    let mut left = budget;
    // Each round the budget that is left goes to those who still want some, in proportion to their misses; who is full drops out.
    // A round that fills nobody has shared out all but what rounding keeps.
    for _ in 0..=SIZE_GROUPS {
        let is_open = |(wish, granted): (&u32, &u32)| wish > granted;
        let weight = |demand: &Demand| 1 + u128::from(demand.misses);
        let total: u128 = wishes
            .iter()
            .zip(&granted)
            .zip(demands)
            .filter(|(pair, _)| is_open(*pair))
            .map(|(_, demand)| weight(demand))
            .sum();
        if total == 0 || left == 0 {
            return granted;
        }
        let round = left;
        for ((wish, granted), demand) in wishes.iter().zip(&mut granted).zip(demands) {
            if wish > granted {
                let share = (u128::from(round) * weight(demand) / total) as u32;
                let given = share.min(wish - *granted);
                *granted += given;
                left -= given;
            }
        }
    }
    // What rounding kept, one by one to whoever still wants some.
    for (wish, granted) in wishes.iter().zip(&mut granted) {
        let given = left.min(wish - *granted);
        *granted += given;
        left -= given;
    }
    granted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;
    use proptest::prelude::*;

    /// A cache whose hit rate is `1 - exp(-capacity / scale)`.
    fn demand(cap: u32, scale: f64, noise: f64, random: &mut Random) -> Demand {
        let hit_rate = 1.0 - (-f64::from(cap) / scale).exp() + noise * random.normal();
        let misses = (10_000.0 * (1.0 - hit_rate.clamp(0.0, 1.0))) as u64;
        Demand { requests: 10_000, misses }
    }

    /// Capacities after each of 60 windows in which every group is such a cache.
    fn run(options: CapOptions, start: u32, scale: f64, noise: f64) -> Vec<u32> {
        let mut controller = CapController::new(options);
        let mut random = Random::new(6);
        let mut caps = [start; SIZE_GROUPS];
        (0..60)
            .map(|_| {
                let demands = caps.map(|cap| demand(cap, scale, noise, &mut random));
                caps = controller.step(&caps, &demands, 10_000);
                caps[0]
            })
            .collect()
    }

    #[test]
    fn a_capacity_that_is_too_small_is_on_target_within_ten_windows_and_stays() {
        let caps = run(CapOptions::MID, 4, 60.0, 0.01);
        // 0.60 is reached at 55.
        assert!(caps[10..].iter().all(|cap| (52..=66).contains(cap)), "{caps:?}");
        assert!(caps[12..].windows(2).all(|pair| pair[0] == pair[1]), "{caps:?}");
    }

    #[test]
    fn a_surplus_is_kept_by_default_and_given_up_on_request() {
        assert_eq!(*run(CapOptions::MID, 200, 60.0, 0.0).last().unwrap(), 200);
        let shrinking = run(CapOptions { surplus: Surplus::GivenUp, ..CapOptions::MID }, 200, 60.0, 0.0);
        assert!((60..=76).contains(shrinking.last().unwrap()), "{shrinking:?}");
    }

    #[test]
    fn integral_and_derivative_terms_do_not_oscillate() {
        let caps = run(CapOptions::MID.with_all_terms(), 4, 60.0, 0.0);
        assert!(caps[20..].windows(2).all(|pair| pair[0] == pair[1]), "{caps:?}");
    }

    #[test]
    fn noise_within_the_dead_band_moves_nothing() {
        let steady = 63;
        let caps = run(CapOptions::MID, steady, 60.0, 0.01);
        assert!(caps.iter().all(|cap| *cap == steady), "{caps:?}");
    }

    /// What a group did whose hit rate is so many percent.
    fn hits(percent: u64) -> Demand {
        Demand { requests: 10_000, misses: 100 * (100 - percent) }
    }

    #[test]
    fn the_integral_makes_steps_longer_while_an_error_lasts() {
        let mut controller = CapController::new(CapOptions { integral: 0.5, ..CapOptions::MID });
        let mut caps = [50; SIZE_GROUPS];
        let mut steps = Vec::new();
        for _ in 0..4 {
            let next = controller.step(&caps, &[hits(55); SIZE_GROUPS], 10_000);
            steps.push(next[0] - caps[0]);
            caps = next;
        }
        // A tenth too low: twice the dead-band, half of that more after each window, and at most four steps of 4.
        assert_eq!(steps, [12, 16, 16, 16]);
    }

    #[test]
    fn the_integral_rests_while_bounds_or_budget_hold_a_capacity_back() {
        for (max, budget) in [(20, 10_000), (256, 100), (20, 50)] {
            let options = CapOptions {
                max,
                integral: 0.5,
                step: 10,
                most_steps: 100.0,
                surplus: Surplus::GivenUp,
                ..CapOptions::MID
            };
            let after = |held: u32| {
                let mut controller = CapController::new(options);
                let mut caps = [20; SIZE_GROUPS];
                for _ in 0..held {
                    caps = controller.step(&caps, &[hits(0); SIZE_GROUPS], budget);
                }
                (caps, controller.step(&caps, &[hits(100); SIZE_GROUPS], budget))
            };
            let (held, released) = after(40);
            assert_eq!((held, released), after(1), "at most {max}, budget {budget}");
            // All hits: the capacity answers at once, and does not first work off forty windows of misses.
            assert!(released.iter().zip(&held).all(|(now, before)| now < before), "{released:?} of {held:?}");
        }
    }

    #[test]
    fn the_derivative_damps_a_capacity_whose_hit_rate_rises() {
        let options = CapOptions { derivative: 1.0, step: 10, most_steps: 100.0, ..CapOptions::MID };
        let mut controller = CapController::new(options);
        let mut change = |percent| controller.step(&[50; SIZE_GROUPS], &[hits(percent); SIZE_GROUPS], 10_000)[0] - 50;
        // 0.4 too low: 8 dead-bands. Then 0.2 too low after a rise of 0.2, of which the filter lets pass 0.06, and then 0.042.
        assert_eq!([change(25), change(45), change(45)], [80, 28, 32]);
    }

    #[test]
    fn too_few_requests_say_nothing_about_a_capacity() {
        for (requests, capacity) in [(0, 50), (63, 50), (64, 66)] {
            let mut controller = CapController::new(CapOptions::MID);
            let demand = Demand { requests, misses: requests };
            let caps = controller.step(&[50; SIZE_GROUPS], &[demand; SIZE_GROUPS], 10_000);
            assert_eq!(caps, [capacity; SIZE_GROUPS], "{requests} requests");
        }
    }

    #[test]
    fn under_a_budget_those_with_hits_to_spare_give_first() {
        // They have more misses than who is short, so water-filling alone would leave them all they have.
        let spare = Demand { requests: 1_000_000, misses: 10_000 };
        let short = Demand { requests: 1000, misses: 900 };
        let caps = |demands| CapController::new(CapOptions::MID).step(&[60; SIZE_GROUPS], &demands, 300);
        assert_eq!(caps([spare, spare, short, spare, spare]), [56, 56, 76, 56, 56]);
        // In proportion to what they have to spare, 16 and 8; who is on target gives nothing.
        let little = Demand { requests: 1_000_000, misses: 250_000 };
        let on_target = Demand { requests: 1000, misses: 350 };
        assert_eq!(caps([spare, little, short, on_target, on_target]), [49, 54, 76, 60, 60]);
    }

    #[test]
    fn water_rises_as_fast_for_each_miss() {
        let misses = |misses| Demand { requests: 1000, misses };
        let demands = [misses(99), misses(99), misses(199), misses(0), misses(0)];
        assert_eq!(water_fill(&[1000, 10, 1000, 0, 0], &demands, 160), [50, 10, 100, 0, 0]);
    }

    fn five(most: u32) -> impl Strategy<Value = [u32; SIZE_GROUPS]> {
        prop::array::uniform5(0..=most)
    }

    fn demands() -> impl Strategy<Value = [Demand; SIZE_GROUPS]> {
        let misses = prop_oneof![1 => Just(0), 3 => any::<u64>()];
        prop::array::uniform5((any::<u64>(), misses).prop_map(|(requests, misses)| Demand { requests, misses }))
    }

    proptest! {
        #[test]
        fn water_stays_within_wishes_and_budget_and_none_is_left(wishes in five(1 << 20), demands in demands(), budget in 0..1_u32 << 23) {
            let granted = water_fill(&wishes, &demands, budget);
            prop_assert!(granted.iter().zip(&wishes).all(|(granted, wish)| granted <= wish));
            let wanted: u32 = wishes.iter().sum();
            prop_assert_eq!(granted.iter().sum::<u32>(), wanted.min(budget));
        }

        #[test]
        fn capacities_stay_within_their_bounds_and_budget(
            steps in prop::collection::vec(demands(), 1..30),
            budget in 20..1000_u32,
            gives_up in any::<bool>(),
            integral in 0.0..3.0_f64,
        ) {
            let surplus = if gives_up { Surplus::GivenUp } else { Surplus::GivenToOthers };
            let options = CapOptions { surplus, integral, derivative: 0.5, ..CapOptions::MID };
            let mut controller = CapController::new(options);
            let mut caps = [4; SIZE_GROUPS];
            for demands in steps {
                let next = controller.step(&caps, &demands, budget);
                prop_assert!(next.iter().sum::<u32>() <= budget);
                prop_assert!(next.iter().all(|cap| *cap <= options.max));
                let farthest = (options.most_steps * f64::from(options.step)) as u32;
                prop_assert!(next.iter().zip(&caps).all(|(next, cap)| *next <= cap + farthest));
                caps = next;
            }
        }
    }
}
