//! Does what is set by account help by the clock, too?
//!
//! An account is as good as its prices and as what it leaves out. So what each season really costs in CPU time, faults and
//! resident memory is remembered twice: under the boot policy's settings, which every new season begins with, and under the
//! account's. All seasons count together, each by the time that the program spends in it, because a season may keep memory for
//! the sake of the next. If the account is dearer by 2 % and three standard errors, more where little was measured, the boot
//! policy's settings come back and stay for half a minute, in which they are measured anew; each time that this happens again, for
//! twice as long.
//!
//! What the boot policy cost while the program warmed up says little. So after twenty seconds, and then after eight times as long each
//! time, its settings come back for a check: until it has met the seasons that the account was measured in, a minute at
//! most.
//!
//! **Not here.** Small differences in the means of a program that is never alike: those are within the noise, and stay.

use crate::Window;
use crate::foresight::SEASONS;
use crate::score::Weights;

/// Time (ms) of a season that makes one measurement: windows are no witnesses independent of each other.
const CHUNK_MS: f64 = 500.0;
/// Part of the time that must be covered by seasons with both sides: the others may be what the account pays for.
const COVERED: f64 = 0.9;
/// Measurements that a side needs before it counts, and after which new ones push out old ones.
const LEAST_CHUNKS: f64 = 3.0;
const MOST_CHUNKS: f64 = 80.0;
/// What is let pass: a part of the score, and standard errors beyond it. Twice as many where there are three measurements: their own
/// spread is as uncertain.
const TOLERANCE: f64 = 0.02;
const ERRORS: f64 = 3.0;
const ERRORS_OF_FEW: f64 = 9.0;
/// How long (ms) the account is not listened to after its first failure, and at most.
const FIRST_REST_MS: f64 = 30_000.0;
const LONGEST_REST_MS: f64 = 1_800_000.0;
/// How long (ms) the account runs before the first check, and how much longer before each other one.
const FIRST_CHECK_MS: f64 = 20_000.0;
const CHECKS_GROW: f64 = 8.0;
/// How long (ms) a check takes: at least, and at most if not all seasons come by; and what is left out of it, in which the program still
/// has what the account kept.
const CHECK_LEAST_MS: f64 = 10_000.0;
const CHECK_MOST_MS: f64 = 60_000.0;
const SETTLES_MS: f64 = 2000.0;
/// Faults of a millisecond that are none.
const FAULT_FLOOR: f64 = 0.05;

/// CPU time (ns), faults and resident bytes of a millisecond.
type Rates = [f64; 3];

/// What a season costs under one of two policies.
#[derive(Clone, Copy, Debug, Default)]
struct Side {
    open_ms: f64,
    open: Rates,
    chunks: f64,
    mean: Rates,
    variance: Rates,
}

impl Side {
    fn add(&mut self, window: &Window, elapsed_ms: f64) {
        let seen = [window.cpu_ns as f64, window.page_faults as f64, window.resident_bytes as f64 * elapsed_ms];
        self.open.iter_mut().zip(seen).for_each(|(sum, more)| *sum += more);
        self.open_ms += elapsed_ms;
        if self.open_ms < CHUNK_MS {
            return;
        }
        self.chunks = (self.chunks + 1.0).min(MOST_CHUNKS);
        let open_ms = core::mem::take(&mut self.open_ms);
        let rates = core::mem::take(&mut self.open).map(|sum| sum / open_ms);
        for ((mean, variance), rate) in self.mean.iter_mut().zip(&mut self.variance).zip(rates) {
            let off = rate - *mean;
            *mean += off / self.chunks;
            *variance += (off * (rate - *mean) - *variance) / self.chunks;
        }
    }

    fn is_known(&self) -> bool {
        self.chunks >= LEAST_CHUNKS
    }
}

/// What one season costs by the clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clocked {
    elapsed_ms: f64,
    boot: Side,
    account: Side,
}

impl Clocked {
    /// Takes a window in which the boot policy's settings ran, the account's, or both: it may have come to the same.
    pub(crate) fn add(&mut self, window: &Window, elapsed_ms: f64, is_boot: bool, is_account: bool) {
        self.elapsed_ms += elapsed_ms;
        for (side, runs) in [(&mut self.boot, is_boot), (&mut self.account, is_account)] {
            if runs {
                side.add(window, elapsed_ms);
            }
        }
    }

    fn forget(&mut self, rests: bool) {
        // While the account rests the boot policy is measured anew; when it is listened to again, so is the account.
        if rests { &mut self.boot } else { &mut self.account }.clone_from(&Side::default());
    }
}

/// What is going on.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The account is listened to, for so long (ms) until the next check.
    Listens { left_ms: f64 },
    /// The boot policy's settings are back for a check, since so long (ms).
    Checks { since_ms: f64 },
    /// They are back because the account has failed, for so long (ms).
    Rests { left_ms: f64 },
}

/// The judge of all seasons.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Canary {
    stage: Stage,
    check_ms: f64,
    rest_ms: f64,
}

impl Canary {
    pub(crate) const fn new() -> Self {
        Self { stage: Stage::Listens { left_ms: FIRST_CHECK_MS }, check_ms: FIRST_CHECK_MS, rest_ms: FIRST_REST_MS }
    }

    /// Whether the account is not listened to for now.
    pub(crate) const fn rests(&self) -> bool {
        !matches!(self.stage, Stage::Listens { .. })
    }

    /// Whether the account has been found dearer, and rests for that.
    pub(crate) const fn has_failed(&self) -> bool {
        matches!(self.stage, Stage::Rests { .. })
    }

    /// Whether what the program costs now is what the policy costs that runs.
    pub(crate) fn is_settled(&self) -> bool {
        !matches!(self.stage, Stage::Checks { since_ms } if since_ms < SETTLES_MS)
    }

    /// Time has passed and seasons have been measured: shall the account go on?
    pub(crate) fn judge<'s>(
        &mut self,
        seasons: impl Iterator<Item = &'s mut Clocked>,
        elapsed_ms: f64,
        weights: &Weights,
    ) {
        let mut all = [const { None }; SEASONS];
        all.iter_mut().zip(seasons).for_each(|(place, season)| *place = Some(season));
        let loss = Loss::of(all.iter().flatten().map(|season| &**season), weights);
        let forget = |rests| all.into_iter().flatten().for_each(|season| season.forget(rests));
        match &mut self.stage {
            Stage::Listens { left_ms } => {
                *left_ms -= elapsed_ms;
                if loss.is_clear() {
                    self.rest();
                    forget(true);
                } else if *left_ms <= 0.0 {
                    self.stage = Stage::Checks { since_ms: 0.0 };
                    forget(true);
                }
            }
            Stage::Checks { since_ms } => {
                *since_ms += elapsed_ms;
                let has_met_all = *since_ms >= CHECK_LEAST_MS && loss.met >= COVERED;
                if !has_met_all && *since_ms < CHECK_MOST_MS {
                    return;
                }
                if loss.is_clear() {
                    self.rest();
                } else {
                    self.check_ms = (self.check_ms * CHECKS_GROW).min(LONGEST_REST_MS);
                    self.stage = Stage::Listens { left_ms: self.check_ms };
                }
            }
            Stage::Rests { left_ms } => {
                *left_ms -= elapsed_ms;
                if *left_ms <= 0.0 {
                    self.stage = Stage::Listens { left_ms: self.check_ms };
                    forget(false);
                }
            }
        }
    }

    pub(crate) fn rest(&mut self) {
        self.stage = Stage::Rests { left_ms: self.rest_ms };
        self.rest_ms = (self.rest_ms * 2.0).min(LONGEST_REST_MS);
    }
}

/// How much dearer the account is than the boot policy: a part of the score, its standard error, and how well that is known.
#[derive(Clone, Copy, Debug)]
struct Loss {
    mean: f64,
    error: f64,
    /// Part of the time that is covered by seasons which were seen with both; of the time in seasons which were seen with the account.
    covered: f64,
    met: f64,
    /// Measurements in the season with the fewest.
    fewest: f64,
}

impl Loss {
    fn of<'s>(seasons: impl Iterator<Item = &'s Clocked>, weights: &Weights) -> Self {
        let (mut boot, mut account, mut variance) = ([0.0; 3], [0.0; 3], [0.0; 3]);
        let (mut all_ms, mut account_ms, mut covered_ms, mut fewest) = (0.0, 0.0, 0.0, MOST_CHUNKS);
        for season in seasons {
            let time = season.elapsed_ms;
            all_ms += time;
            account_ms += if season.account.is_known() { time } else { 0.0 };
            if !(season.boot.is_known() && season.account.is_known()) {
                continue;
            }
            let sides = season.boot.mean.iter().zip(&season.account.mean);
            let spreads = season.boot.variance.iter().zip(&season.account.variance);
            let sums = boot.iter_mut().zip(&mut account).zip(&mut variance);
            for (((boot, account), variance), (means, spread)) in sums.zip(sides.zip(spreads)) {
                *boot += time * means.0;
                *account += time * means.1;
                *variance += time * time * (spread.0 / season.boot.chunks + spread.1 / season.account.chunks);
            }
            covered_ms += time;
            fewest = fewest.min(season.boot.chunks).min(season.account.chunks);
            boot[1] += time * FAULT_FLOOR;
            account[1] += time * FAULT_FLOOR;
        }
        let (mut mean, mut square) = (0.0, 0.0);
        let parts = [weights.cpu, weights.faults, weights.memory];
        for (((boot, account), variance), weight) in boot.iter().zip(&account).zip(&variance).zip(parts) {
            if *boot > 0.0 {
                mean += weight * (account / boot - 1.0);
                square += weight * weight * variance / (boot * boot);
            }
        }
        let part = |whole_ms: f64| if whole_ms > 0.0 { covered_ms / whole_ms } else { 0.0 };
        Self { mean, error: libm::sqrt(square), covered: part(all_ms), met: part(account_ms), fewest }
    }

    fn is_clear(&self) -> bool {
        self.covered >= COVERED && self.mean > TOLERANCE + (ERRORS + ERRORS_OF_FEW / self.fewest) * self.error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn window(random: &mut Random, cost: f64) -> Window {
        let noisy = |random: &mut Random, mean: f64| (mean * (1.0 + 0.2 * random.normal())).max(0.0) as u64;
        Window {
            cpu_ns: noisy(random, 20_000_000.0 * cost),
            page_faults: noisy(random, 400.0 * cost),
            resident_bytes: 64 << 20,
            ..Window::EMPTY
        }
    }

    /// Windows until the account is put to rest; 1000 if it never is. The boot policy costs 1, and so much as long as the program warms up.
    fn lives(warm_up: f64, cost: f64, seed: u64) -> u32 {
        let (mut canary, mut season, mut random) = (Canary::new(), Clocked::default(), Random::new(seed));
        for number in 0..1000 {
            let is_young = number < 60;
            let is_boot = is_young || canary.rests();
            let seen = window(
                &mut random,
                if is_young {
                    warm_up
                } else if is_boot {
                    1.0
                } else {
                    cost
                },
            );
            season.add(&seen, 100.0, is_boot && canary.is_settled(), !is_boot);
            canary.judge(core::iter::once(&mut season), 100.0, &Weights::default());
            if canary.has_failed() {
                return number;
            }
        }
        1000
    }

    #[test]
    fn an_account_that_costs_a_fifth_more_is_put_to_rest_within_seconds() {
        let worst = (0..50).map(|seed| lives(1.0, 1.2, seed)).max();
        assert!(worst.is_some_and(|windows| windows < 160), "{worst:?}");
    }

    #[test]
    fn a_check_finds_what_a_warm_up_hides() {
        let ends: Vec<u32> = (0..50).map(|seed| lives(2.0, 1.2, seed)).collect();
        assert!(ends.iter().all(|windows| (250..400).contains(windows)), "{ends:?}");
    }

    #[test]
    fn one_that_costs_the_same_or_less_goes_on() {
        let stopped = |cost| (0..100).filter(|seed| lives(1.0, cost, *seed) < 1000).count();
        assert!(stopped(1.0) <= 3, "{}", stopped(1.0));
        assert_eq!(stopped(0.9), 0);
    }

    #[test]
    fn what_one_season_pays_for_another_is_no_loss() {
        let (mut canary, mut random) = (Canary::new(), Random::new(3));
        let mut seasons = [Clocked::default(); 2];
        for number in 0..1000 {
            let is_boot = number < 100 || canary.rests();
            let costs = if is_boot { [1.0, 1.0] } else { [1.3, 0.6] };
            let season = number % 2;
            seasons[season].add(&window(&mut random, costs[season]), 100.0, is_boot && canary.is_settled(), !is_boot);
            canary.judge(seasons.iter_mut(), 100.0, &Weights::default());
            assert!(!canary.has_failed(), "after {number} windows");
        }
    }

    #[test]
    fn it_comes_back_after_half_a_minute_and_rests_longer_each_time() {
        let (mut canary, mut season, mut random) = (Canary::new(), Clocked::default(), Random::new(5));
        let mut rests = Vec::new();
        let mut began = None;
        for number in 0..4000_u32 {
            let is_boot = canary.rests() || number < 60;
            season.add(&window(&mut random, if is_boot { 1.0 } else { 1.5 }), 100.0, is_boot, !is_boot);
            canary.judge(core::iter::once(&mut season), 100.0, &Weights::default());
            match (canary.has_failed(), began) {
                (true, None) => began = Some(number),
                (false, Some(start)) => {
                    rests.push(number - start);
                    began = None;
                }
                _ => {}
            }
        }
        assert_eq!(rests.get(..3), Some([300, 600, 1200].as_slice()));
    }

    /// A window of this length with so much CPU time and so many faults of a millisecond, and resident memory.
    fn steady(elapsed_ms: f64, cpu: f64, faults: f64, resident_bytes: u64) -> Window {
        Window {
            cpu_ns: (cpu * elapsed_ms) as u64,
            page_faults: (faults * elapsed_ms) as u64,
            resident_bytes,
            ..Window::EMPTY
        }
    }

    #[test]
    fn an_account_is_judged_by_three_measurements_of_half_a_second_each() {
        let (mut canary, mut season) = (Canary::new(), Clocked::default());
        for number in 0..200 {
            let is_boot = number < 50;
            let seen = steady(100.0, if is_boot { 1000.0 } else { 3000.0 }, 0.0, 64 << 20);
            season.add(&seen, 100.0, is_boot, !is_boot);
            canary.judge(core::iter::once(&mut season), 100.0, &Weights::default());
            assert_eq!(canary.has_failed(), number >= 64, "after {number} windows");
            if canary.has_failed() {
                return;
            }
        }
    }

    /// Time (s) of each check's beginning and end, in a program whose season is `season(second)` of two, and costs the same always.
    fn checks(season: impl Fn(u32) -> usize) -> Vec<(u32, u32)> {
        let (mut canary, mut seasons) = (Canary::new(), [Clocked::default(); 2]);
        let (mut checks, mut began) = (Vec::new(), None);
        for second in 0..5200 {
            let is_boot = canary.rests() || second < 10;
            let seen = steady(1000.0, 1000.0, 1.0, 64 << 20);
            seasons[season(second)].add(&seen, 1000.0, is_boot && canary.is_settled(), !is_boot);
            canary.judge(seasons.iter_mut(), 1000.0, &Weights::default());
            assert!(!canary.has_failed());
            match (canary.rests(), began) {
                (true, None) => began = Some(second),
                (false, Some(start)) => {
                    checks.push((start, second));
                    began = None;
                }
                _ => {}
            }
            // A check begins with what the account has kept, which is no measure of the boot policy.
            assert_eq!(canary.is_settled(), began.is_none_or(|start| second >= start + 2), "second {second}");
        }
        checks
    }

    #[test]
    fn checks_come_after_eight_times_as_long_each_time_and_take_ten_seconds() {
        let ends = [(19, 29), (189, 199), (1479, 1489), (3289, 3299), (5099, 5109)];
        assert_eq!(checks(|_| 0), ends);
    }

    #[test]
    fn a_check_waits_for_a_season_that_the_account_was_measured_in_for_a_minute_at_most() {
        // The other season was there in the first fifteen seconds only; at the second check that is less than a tenth of the time.
        assert_eq!(checks(|second| usize::from(second < 15))[..2], [(19, 79), (239, 249)]);
        // Here it comes back thirty seconds after the check has begun.
        assert_eq!(checks(|second| usize::from(second < 15 || (49..60).contains(&second)))[0], (19, 51));
    }

    /// A season that costs this under the boot policy and that under the account, each measured so often.
    fn measured(boot: &Window, account: &Window, times: [u32; 2]) -> Clocked {
        let mut season = Clocked::default();
        (0..times[0]).for_each(|_| season.add(boot, 500.0, true, false));
        (0..times[1]).for_each(|_| season.add(account, 500.0, false, true));
        season
    }

    #[test]
    fn a_loss_counts_where_nearly_all_of_the_time_has_been_seen_with_both() {
        let (cheap, dear) = (steady(500.0, 1000.0, 1.0, 64 << 20), steady(500.0, 2000.0, 1.0, 64 << 20));
        let both = measured(&cheap, &dear, [45, 45]);
        for (other, is_clear) in
            [([10, 0], true), ([13, 0], false), ([0, 13], false), ([10, 3], true), ([43, 2], false)]
        {
            let seasons = [both, measured(&cheap, &dear, other)];
            let loss = Loss::of(seasons.iter(), &Weights::default());
            assert_eq!(loss.is_clear(), is_clear, "{other:?}: {loss:?}");
            assert!((loss.mean - Weights::default().cpu).abs() < 1e-9, "{loss:?}");
        }
    }

    #[test]
    fn memory_counts_by_the_time_that_it_is_held() {
        let weights = Weights { cpu: 0.0, faults: 0.0, memory: 1.0 };
        let mut season = Clocked::default();
        for _ in 0..3 {
            season.add(&steady(500.0, 1.0, 0.0, 100_000_000), 500.0, true, false);
            season.add(&steady(100.0, 1.0, 0.0, 50_000_000), 100.0, false, true);
            season.add(&steady(400.0, 1.0, 0.0, 150_000_000), 400.0, false, true);
        }
        let loss = Loss::of([season].iter(), &weights);
        assert!((loss.mean - 0.3).abs() < 1e-9 && loss.is_clear(), "{loss:?}");
    }

    #[test]
    fn a_few_faults_more_are_a_small_part_of_nearly_none() {
        let weights = Weights { cpu: 0.0, faults: 1.0, memory: 0.0 };
        let loss = |boot, account| {
            let (boot, account) = (steady(500.0, 1.0, boot, 1 << 20), steady(500.0, 1.0, account, 1 << 20));
            Loss::of([measured(&boot, &account, [3, 3])].iter(), &weights).mean
        };
        // Five and ten in half a second, on top of twenty-five that are none.
        assert!((loss(0.01, 0.02) - 1.0 / 6.0).abs() < 1e-9, "{}", loss(0.01, 0.02));
        assert!((loss(1.0, 2.0) - 1.0 / 1.05).abs() < 1e-9, "{}", loss(1.0, 2.0));
    }
}
