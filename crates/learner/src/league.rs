//! Strategies: whole policies that compete, because a policy is more than the sum of its knobs and a large difference is seen
//! sooner than a small one.
//!
//! Two ways to find the best of them, by the method of choice:
//! - **Elo**: short games between pairs move ratings. After each round of games the best few survive; the others make way for
//!   mutants of the survivors (one or two knobs to a neighbouring value). When the same one leads after two rounds, it is
//!   tried against the policy that runs.
//! - **a bandit**: it says which one is tried next against the policy that runs, each once.
//!
//! Either way no strategy becomes the policy without a whole trial against it, with rollback.

use crate::knob::{Direction, KNOBS, Knob, NEVER};
use crate::moves::Move;
use crate::options::Options;
use crate::random::{Random, members};
use crate::selector::{Selector, reward_of};
use hakmem_policy::FrozenPolicy;

/// How many compete.
pub const STRATEGIES: usize = 8;
/// How many survive a round.
const SURVIVORS: usize = 3;
/// Games of a round.
const GAMES: u32 = STRATEGIES as u32;
/// Rounds after which the leader is taken, whether or not it has changed.
const MOST_ROUNDS: u32 = 4;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// What the first strategies change. What they leave out stays as it is.
const FIRST: [(&str, &[(Knob, u64)]); STRATEGIES] = [
    (
        "lean",
        &[
            (Knob::CacheBytes, 64 * KIB),
            (Knob::RefillBytes, 2048),
            (Knob::IdleTrim, 4),
            (Knob::PurgeDelay, 30),
            (Knob::Warm, 0),
        ],
    ),
    ("returns at once", &[(Knob::PurgeDelay, 10), (Knob::Warm, 0), (Knob::Thp, NEVER), (Knob::BigRetain, 0)]),
    ("plain pages", &[(Knob::Thp, NEVER), (Knob::PurgeDelay, 100)]),
    (
        "throughput",
        &[
            (Knob::CacheBytes, MIB),
            (Knob::RefillBytes, 16 * KIB),
            (Knob::PurgeDelay, 3000),
            (Knob::Warm, 8),
            (Knob::Outbox, 64),
        ],
    ),
    ("keeps", &[(Knob::PurgeDelay, 10_000), (Knob::Warm, 32), (Knob::BigRetain, 1000)]),
    ("huge pages", &[(Knob::Thp, 4 * MIB), (Knob::PurgeDelay, 1000)]),
    ("bursts", &[(Knob::CacheBytes, 512 * KIB), (Knob::RefillBytes, 32 * KIB), (Knob::Warm, 16), (Knob::IdleTrim, 64)]),
    ("passes on", &[(Knob::Outbox, 64), (Knob::RefillBytes, 8192), (Knob::WMaxLarge, 2000)]),
];

/// A whole policy that competes.
#[derive(Clone, PartialEq, Debug)]
pub struct Candidate {
    /// What it sets.
    pub policy: FrozenPolicy,
    /// Its name; a mutant has that of its first ancestor.
    pub name: &'static str,
}

/// The next trial that the league asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Match {
    /// A short game between two candidates.
    Game(usize, usize),
    /// A whole trial against the policy that runs.
    Trial(usize),
}

/// Candidates and what is known of them.
#[derive(Clone, Debug)]
pub struct League {
    candidates: [Candidate; STRATEGIES],
    selector: Selector,
    /// Candidates (one bit each) that had their trial.
    tried: u64,
    games: u32,
    rounds: u32,
    leader: Option<usize>,
    is_over: bool,
}

impl League {
    /// The first candidates, made from `boot`, within the bounds.
    #[must_use]
    pub fn new(boot: &FrozenPolicy, options: &Options) -> Self {
        let candidates = FIRST.map(|(name, changes)| {
            let mut policy = boot.clone();
            for &(knob, value) in changes {
                set_within(knob, &mut policy, value, options);
            }
            Candidate { policy, name }
        });
        Self {
            candidates,
            selector: Selector::new(options.method),
            tried: 0,
            games: 0,
            rounds: 0,
            leader: None,
            is_over: !options.strategies,
        }
    }

    /// A candidate's policy as it would run now: `best` with what the candidate changes of `boot`, where that has anything at
    /// stake. None if that is `best` itself. Beside it what it could gain.
    #[must_use]
    pub fn policy(
        &self,
        candidate: usize,
        boot: &FrozenPolicy,
        best: &FrozenPolicy,
        stake: impl Fn(Move) -> f64,
    ) -> Option<(FrozenPolicy, f64)> {
        let mut policy = best.clone();
        let mut gain = 0.0;
        let candidate = &self.candidates.get(candidate)?.policy;
        for knob in Knob::ALL.into_iter().filter(|knob| knob.value(candidate) != knob.value(boot)) {
            let is_more = knob.number(candidate) > knob.number(best);
            let stake = stake(Move { knob, direction: if is_more { Direction::Up } else { Direction::Down } });
            if stake > 0.0 && knob.value(candidate) != knob.value(best) {
                knob.copy(candidate, &mut policy);
                gain += stake;
            }
        }
        (policy != *best && policy.validate().is_ok()).then_some((policy, gain))
    }

    /// A candidate's name.
    #[must_use]
    pub fn name(&self, candidate: usize) -> &'static str {
        self.candidates.get(candidate).map_or("", |candidate| candidate.name)
    }

    /// What to play next; none when the league is over. `open` are the candidates (one bit each) that
    /// differ from what runs, `stake` what each could gain.
    pub fn next(
        &mut self,
        open: u64,
        stake: impl Fn(usize) -> f64,
        options: &Options,
        random: &mut Random,
    ) -> Option<Match> {
        if self.is_over {
            return None;
        }
        let next = match &self.selector {
            Selector::Elo(elo) => {
                if self.games >= GAMES {
                    let leader = elo.leader(open);
                    self.games = 0;
                    self.rounds += 1;
                    if self.rounds >= MOST_ROUNDS || (leader.is_some() && leader == self.leader) {
                        self.is_over = true;
                        return leader.map(Match::Trial);
                    }
                    self.leader = leader;
                    self.renew(options, random);
                }
                let Selector::Elo(elo) = &self.selector else { return None };
                match elo.pair(open, stake, random) {
                    Some((one, other)) => Some(Match::Game(one, other)),
                    None => elo.leader(open & !self.tried).map(Match::Trial),
                }
            }
            Selector::Bandit(_) => self.selector.choose(open & !self.tried, stake, random).map(Match::Trial),
        };
        self.is_over = next.is_none();
        next
    }

    /// A game has ended with this gain of the second over the first.
    pub fn game_ended(&mut self, one: usize, other: usize, gain: f64, min_gain: f64) {
        self.games += 1;
        if let Selector::Elo(elo) = &mut self.selector {
            let outcome = if gain > min_gain {
                0.0
            } else if gain < -min_gain {
                1.0
            } else {
                0.5
            };
            elo.game(one, other, outcome);
        }
    }

    /// A trial against the policy that runs has ended with this gain.
    pub fn trial_ended(&mut self, candidate: usize, gain: f64) {
        self.tried |= 1_u64.checked_shl(candidate as u32).unwrap_or(0);
        self.selector.reward(candidate, reward_of(gain));
    }

    /// The program has changed: they compete again, and what is known counts less.
    pub fn reopen(&mut self, options: &Options) {
        self.selector.fade(0.3);
        (self.tried, self.games, self.rounds, self.leader) = (0, 0, 0, None);
        self.is_over = !options.strategies;
    }

    /// The best survive, mutants of them take the places of the others.
    fn renew(&mut self, options: &Options, random: &mut Random) {
        let Selector::Elo(elo) = &mut self.selector else { return };
        let mut survivors = 0_u64;
        for _ in 0..SURVIVORS {
            let others = ((1 << STRATEGIES) - 1) & !survivors;
            survivors |= elo.leader(others).map_or(0, |best| 1 << best);
        }
        for place in (0..STRATEGIES).filter(|place| survivors >> place & 1 == 0) {
            let Some(parent) = elo.draw(survivors, |_| 0.0, random) else { return };
            let Some(mut child) = self.candidates.get(parent).cloned() else { return };
            for _ in 0..=random.below(2) {
                mutate(&mut child.policy, options, random);
            }
            elo.replace(place, (elo.rating(parent).points + crate::elo::START) / 2.0);
            if let Some(candidate) = self.candidates.get_mut(place) {
                *candidate = child;
            }
        }
    }

    /// All candidates, with rating or mean reward.
    pub fn standings(&self) -> impl Iterator<Item = (&Candidate, f64)> {
        self.candidates.iter().enumerate().map(|(place, candidate)| {
            let standing = match &self.selector {
                Selector::Elo(elo) => elo.rating(place).points,
                Selector::Bandit(bandit) => bandit.arm(place).mean(),
            };
            (candidate, standing)
        })
    }
}

/// Moves one knob to a neighbour of its value, if the bounds allow it.
fn mutate(policy: &mut FrozenPolicy, options: &Options, random: &mut Random) {
    let Some(knob) = Knob::ALL.into_iter().nth(random.below(KNOBS)) else { return };
    let direction = if random.below(2) == 0 { Direction::Down } else { Direction::Up };
    if let Some(mutant) = (Move { knob, direction }).applied_to(policy, options) {
        *policy = mutant;
    }
}

/// Sets a knob to the value, or to the nearest on its list that is within bounds; leaves it where there is none.
fn set_within(knob: Knob, policy: &mut FrozenPolicy, value: u64, options: &Options) {
    let bounds = options.bounds_of(knob);
    let allowed = knob.arms().iter().copied().filter(|arm| bounds.holds(*arm));
    let Some(nearest) = allowed.min_by_key(|arm| arm.abs_diff(value)) else { return };
    let mut changed = policy.clone();
    knob.set(&mut changed, nearest);
    if changed.validate().is_ok() {
        *policy = changed;
    }
}

/// The set of candidates for which `policy` has one.
pub(crate) fn open_candidates(is_open: impl Fn(usize) -> bool) -> u64 {
    members((1 << STRATEGIES) - 1).filter(|place| is_open(*place)).fold(0, |set, place| set | 1 << place)
}

const _: () = assert!(STRATEGIES <= crate::bandit::MAX_ARMS, "one arm for each strategy");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knob::Bounds;
    use crate::selector::Method;

    const ALL: u64 = (1 << STRATEGIES) - 1;

    #[test]
    fn the_first_candidates_are_valid_and_all_different() {
        let league = League::new(&FrozenPolicy::DEFAULT, &Options::default());
        let policies: Vec<_> = league.standings().map(|(candidate, _)| candidate.policy.clone()).collect();
        for (place, policy) in policies.iter().enumerate() {
            assert_eq!(policy.validate(), Ok(()));
            assert_ne!(*policy, FrozenPolicy::DEFAULT);
            assert!(!policies[..place].contains(policy), "{place}");
        }
    }

    #[test]
    fn candidates_and_mutants_stay_within_bounds() {
        let mut options = Options { method: Method::ELO, strategies: true, ..Options::default() };
        options.bounds[Knob::PurgeDelay.index()] = Bounds { min: 100, max: 1000 };
        let mut league = League::new(&FrozenPolicy::DEFAULT, &options);
        let mut random = Random::new(3);
        for _ in 0..100 {
            league.renew(&options, &mut random);
            for (candidate, _) in league.standings() {
                assert!((100..=1000).contains(&candidate.policy.purge_delay_ms));
                assert_eq!(candidate.policy.validate(), Ok(()));
            }
        }
    }

    /// Plays until the league is over, where `worth` says what a policy is worth. The candidates tried, in order.
    fn play(method: Method, seed: u64, worth: impl Fn(&FrozenPolicy) -> f64) -> (League, Vec<FrozenPolicy>) {
        let options = Options { method, strategies: true, ..Options::default() };
        let mut league = League::new(&FrozenPolicy::DEFAULT, &options);
        let mut random = Random::new(seed);
        let mut tried = Vec::new();
        while let Some(next) = league.next(ALL, |_| 0.0, &options, &mut random) {
            let value = |candidate: usize| worth(&league.candidates[candidate].policy);
            match next {
                Match::Game(one, other) => {
                    let gain = value(other) - value(one) + 0.01 * random.normal();
                    league.game_ended(one, other, gain, 0.005);
                }
                Match::Trial(candidate) => {
                    let gain = value(candidate);
                    tried.push(league.candidates[candidate].policy.clone());
                    league.trial_ended(candidate, gain);
                }
            }
        }
        (league, tried)
    }

    #[test]
    fn ratings_put_forward_a_candidate_among_the_best() {
        // The shorter the delay, the better: 10 ms is best, and 30 ms next.
        let worth = |policy: &FrozenPolicy| -0.05 * f64::from(policy.purge_delay_ms).log10();
        let good = (0..20)
            .filter(|seed| {
                let (_, tried) = play(Method::ELO, *seed, worth);
                assert_eq!(tried.len(), 1);
                tried[0].purge_delay_ms <= 30
            })
            .count();
        assert!(good >= 17, "{good}");
    }

    #[test]
    fn a_bandit_tries_each_candidate_once() {
        for method in [Method::UCB1, Method::THOMPSON, Method::RANDOM] {
            let (mut league, tried) = play(method, 1, |_| 0.0);
            assert_eq!(tried.len(), STRATEGIES);
            let options = Options { method, strategies: true, ..Options::default() };
            league.reopen(&options);
            assert!(league.next(ALL, |_| 0.0, &options, &mut Random::new(1)).is_some());
        }
    }

    fn by_ratings() -> (League, Options) {
        let options = Options { method: Method::ELO, strategies: true, ..Options::default() };
        (League::new(&FrozenPolicy::DEFAULT, &options), options)
    }

    fn elo(league: &mut League) -> &mut crate::Elo {
        let Selector::Elo(elo) = &mut league.selector else { panic!("a league by ratings") };
        elo
    }

    /// Games until the league puts a candidate forward, and which; `after_game` is called with the number of games so far.
    fn games(mut after_game: impl FnMut(&mut League, u32)) -> (u32, usize) {
        let (mut league, options) = by_ratings();
        let mut random = Random::new(6);
        for number in 1.. {
            match league.next(ALL, |_| 0.0, &options, &mut random) {
                Some(Match::Game(one, other)) => league.game_ended(one, other, 0.0, 0.005),
                Some(Match::Trial(candidate)) => {
                    assert_eq!(league.next(ALL, |_| 0.0, &options, &mut random), None, "the league is over");
                    return (number - 1, candidate);
                }
                None => break,
            }
            after_game(&mut league, number);
        }
        unreachable!("somebody is put forward");
    }

    #[test]
    fn who_leads_after_two_rounds_in_a_row_is_put_forward_and_whoever_leads_after_four() {
        let same = games(|league, _| elo(league).replace(5, 2000.0));
        assert_eq!(same, (2 * GAMES, 5));
        let another_each_round = games(|league, number| {
            let round = number.div_ceil(GAMES);
            elo(league).replace(round as usize, 2000.0 + 100.0 * f64::from(round));
        });
        assert_eq!(another_each_round, (4 * GAMES, 4));
    }

    #[test]
    fn a_game_is_won_by_more_than_the_least_gain_and_else_a_draw() {
        for (gain, points) in
            [(0.0051, [1484.0, 1516.0]), (-0.0051, [1516.0, 1484.0]), (0.004, [1500.0; 2]), (-0.004, [1500.0; 2])]
        {
            let (mut league, _) = by_ratings();
            league.game_ended(0, 1, gain, 0.005);
            assert_eq!([0, 1].map(|player| elo(&mut league).rating(player).points), points, "{gain}");
        }
    }

    #[test]
    fn the_best_three_survive_a_round_and_their_mutants_begin_half_way_to_them() {
        let (mut league, options) = by_ratings();
        for place in 0..STRATEGIES {
            elo(&mut league).replace(place, if place % 2 == 0 { 2000.0 + 100.0 * place as f64 } else { 1400.0 });
        }
        let before = league.candidates.clone();
        league.renew(&options, &mut Random::new(1));
        let mut changed = 0;
        for (place, candidate) in league.candidates.iter().enumerate() {
            if [2, 4, 6].contains(&place) {
                assert_eq!(*candidate, before[place]);
                continue;
            }
            let parent = [2, 4, 6].into_iter().find(|parent| before[*parent].name == candidate.name);
            let parent = parent.unwrap_or_else(|| panic!("{} is no child of the best", candidate.name));
            let Selector::Elo(elo) = &league.selector else { panic!("a league by ratings") };
            assert_eq!(elo.rating(place), crate::Rating { points: 1750.0 + 50.0 * parent as f64, games: 0 });
            let policy = &before[parent].policy;
            let moved = Knob::ALL.iter().filter(|knob| knob.value(&candidate.policy) != knob.value(policy)).count();
            assert!(moved <= 2, "{moved} knobs");
            changed += usize::from(moved > 0);
        }
        assert!(changed > 0);
    }

    #[test]
    fn who_is_alone_is_tried_without_a_game_and_once() {
        let (mut league, options) = by_ratings();
        let mut random = Random::new(2);
        assert_eq!(league.next(1 << 4, |_| 0.0, &options, &mut random), Some(Match::Trial(4)));
        league.trial_ended(4, 0.0);
        assert_eq!(league.next(1 << 2, |_| 0.0, &options, &mut random), Some(Match::Trial(2)));
        league.trial_ended(2, 0.0);
        assert_eq!(league.next(1 << 4, |_| 0.0, &options, &mut random), None);
    }

    #[test]
    fn the_open_candidates_are_those_that_have_a_policy() {
        assert_eq!(open_candidates(|_| true), ALL);
        assert_eq!(open_candidates(|place| place == 1 || place == 7), 0b1000_0010);
        assert_eq!(open_candidates(|_| false), 0);
    }

    #[test]
    fn what_is_at_stake_for_a_candidate_is_asked_in_the_direction_that_it_changes_a_knob() {
        let (league, boot) = (League::new(&FrozenPolicy::DEFAULT, &Options::default()), FrozenPolicy::DEFAULT);
        let names: Vec<_> = league.standings().map(|(candidate, _)| candidate.name).collect();
        for (name, direction) in [("lean", Direction::Down), ("keeps", Direction::Up)] {
            let candidate = names.iter().position(|known| *known == name).unwrap();
            for asked in [Direction::Down, Direction::Up] {
                let stake = |step| if step == (Move { knob: Knob::PurgeDelay, direction: asked }) { 0.5 } else { 0.0 };
                let open = league.policy(candidate, &boot, &boot, stake);
                assert_eq!(open.map(|(_, gain)| gain), (asked == direction).then_some(0.5), "{name} {asked:?}");
            }
        }
    }

    #[test]
    fn knobs_with_nothing_at_stake_are_not_part_of_a_strategy() {
        let (league, boot) = (League::new(&FrozenPolicy::DEFAULT, &Options::default()), FrozenPolicy::DEFAULT);
        assert_eq!(league.policy(0, &boot, &boot, |_| 0.0), None);
        let stake = |step: Move| f64::from(u8::from(step.knob == Knob::PurgeDelay));
        let only_purge = league.policy(0, &boot, &boot, stake);
        assert_eq!(only_purge, Some((FrozenPolicy { purge_delay_ms: 30, ..FrozenPolicy::DEFAULT }, 1.0)));
    }
}
