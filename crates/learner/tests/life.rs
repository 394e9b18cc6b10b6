//! Whole lives of learners, in programs made of a few causes.

mod support;

use hakmem_learner::{Bounds, Knob, Learner, Method, Options, Phase, Reason, Window};
use hakmem_policy::FrozenPolicy;
use proptest::prelude::*;
use support::{DAY, NIGHT, Program, Run, settle};

fn learner(options: &Options, seed: u64) -> Learner {
    Learner::new(&FrozenPolicy::DEFAULT, options, seed)
}

#[test]
fn every_method_finds_most_of_what_there_is_to_gain() {
    // Better by hand: memory that is wanted again in 60 s is purged at once.
    let by_hand = NIGHT.cost(&FrozenPolicy { purge_delay_ms: 10, warm_superslabs: 0, ..FrozenPolicy::DEFAULT });
    for (name, method) in Method::ALL {
        let mut run = Run::new(learner(&Options { method, strategies: true, ..Options::default() }, 1), 2);
        run.mean_cost(&NIGHT, 6000);
        assert!(run.rested.is_some(), "{name}");
        let cost = NIGHT.cost(run.learner.best());
        assert!(cost < 1.0 - 0.7 * (1.0 - by_hand), "{name}: {cost} {by_hand}");
    }
}

#[test]
fn where_nothing_is_to_be_gained_the_boot_policy_stays() {
    let idle = Program { idle: 0.0, runs: 0.0, noise: 0.05, ..DAY };
    let options = Options { cache: false, refill: false, ..Options::default() };
    let mut run = Run::new(learner(&options, 3), 4);
    run.mean_cost(&idle, 4000);
    assert!(run.rested.is_some());
    // Warm superslabs cost memory here, and nothing else matters.
    let same = FrozenPolicy { warm_superslabs: 1, ..run.learner.best().clone() };
    assert_eq!(same, FrozenPolicy::DEFAULT);
}

#[test]
fn a_program_made_to_punish_every_trial_loses_little_in_the_long_run() {
    // Any other purge delay costs more, and so does whatever else is tried.
    let trap = Program { trap: 0.5, idle: 1e6, ..DAY };
    let options = Options { cache: false, refill: false, cap: false, warm: false, ..Options::default() };
    let mut run = Run::new(learner(&options, 5), 6);
    let mean = run.mean_cost(&trap, 20_000);
    assert!(run.rested.is_some());
    assert!(mean < 1.01, "{mean}");
    assert_eq!(run.learner.best().purge_delay_ms, 300);
    let evidence = run.learner.evidence().find(|evidence| evidence.knob == Knob::PurgeDelay).unwrap();
    assert_eq!(evidence.reason, Reason::RolledBack);
    assert!(evidence.with < evidence.without, "what was kept costs less: {evidence:?}");
}

#[test]
fn a_phase_that_comes_back_finds_its_policy_at_once() {
    let mut run = Run::new(learner(&Options::default(), 7), 8);
    for program in [&DAY, &NIGHT, &DAY, &NIGHT] {
        run.mean_cost(program, 5000);
    }
    assert_eq!(run.learner.phases(), 2);
    for program in [&DAY, &NIGHT] {
        // Two windows to see the change.
        run.mean_cost(program, 3);
        let best = run.learner.best_now().clone();
        assert_eq!(run.policy, best);
        assert!(program.cost(&best) < 0.97, "{}", program.cost(&best));
        let later = run.mean_cost(program, 500);
        assert!(later < program.cost(&best) + 0.01, "{later}");
    }
}

#[test]
fn what_was_learned_is_given_up_when_it_costs_more_than_the_boot_policy() {
    let mut run = Run::new(learner(&Options::default(), 9), 10);
    run.mean_cost(&NIGHT, 6000);
    let learned = run.learner.best().purge_delay_ms;
    assert!(learned < 300, "{learned}");
    // The same sizes, rate and live bytes; but what idles is wanted again at once, and a short delay is punished.
    let other = Program { reuse_ms: 200.0, trap: 0.5, ..NIGHT };
    run.mean_cost(&other, 6000);
    assert_eq!(run.learner.phases(), 1);
    assert!(other.cost(run.learner.best()) < 1.0, "{}", other.cost(run.learner.best()));
    assert!(run.learner.best().purge_delay_ms >= 300);
}

#[test]
fn the_same_windows_and_seed_give_the_same_decisions() {
    let decisions = || {
        let mut run = Run::new(learner(&Options::default(), 11), 12);
        (0..1500)
            .map(|number| {
                run.step(if number / 500 == 1 { &NIGHT } else { &DAY });
                run.policy.clone()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(decisions(), decisions());
}

/// Windows of any numbers at all.
fn any_window() -> impl Strategy<Value = Window> {
    (prop::array::uniform24(any::<u64>()), any::<u64>(), 0..16_u32).prop_map(|(numbers, mut bits, shift)| {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x] =
            numbers.map(|n| n >> (shift * 4));
        let mut window = Window {
            elapsed_ns: a,
            cpu_ns: b,
            system_ns: c,
            page_faults: d,
            allocs: e,
            big_requests: f,
            big_cache_hits: g,
            remote_frees: h,
            remote_pushes: i,
            drained_blocks: j,
            beats: k,
            idle_trims: l,
            fresh_slabs: m,
            retired_slabs: n,
            purged_bytes: o,
            committed_bytes: p,
            in_use_bytes: q,
            live_bytes: r,
            cached_bytes: s,
            purgeable_bytes: t,
            resident_bytes: u,
            superslabs: v,
            huge_superslabs: w,
            threads: x,
            ..Window::EMPTY
        };
        let mut next = || {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bits >> (shift * 4)
        };
        for class in &mut window.classes {
            (class.allocs, class.refills, class.spills) = (next(), next(), next());
        }
        for group in &mut window.run_groups {
            (group.requests, group.cache_hits) = (next(), next());
        }
        window
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: hakmem_testkit::cases(64), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_seen_what_is_published_is_valid_within_bounds_and_changes_learned_knobs_only(
        windows in prop::collection::vec((any_window(), 1..60_u32), 1..12),
        method in 0..Method::ALL.len(),
        seed in any::<u64>(),
    ) {
        let mut options = Options { method: Method::ALL[method].1, outbox: false, strategies: seed % 2 == 0, ..Options::default() };
        options.bounds[Knob::PurgeDelay.index()] = Bounds { min: 30, max: 1000 };
        options.bounds[Knob::RefillBytes.index()] = Bounds { min: 2048, max: 8192 };
        let mut learner = learner(&options, seed);
        let known: Vec<_> = Knob::ALL.iter().flat_map(|knob| [Some(knob.field()), knob.second_field()]).flatten().collect();
        for (window, times) in windows {
            for _ in 0..times {
                let Some(published) = learner.observe(&window).publish else { continue };
                prop_assert_eq!(published.validate(), Ok(()));
                prop_assert!((30..=1000).contains(&published.purge_delay_ms));
                prop_assert!((2048..=8192).contains(&published.refill_bytes));
                let mut stranger = None;
                published.for_each_difference(&FrozenPolicy::DEFAULT, &mut |field| {
                    if !known.contains(&field) || (!options.strategies && field.starts_with("outbox")) {
                        stranger = Some(field);
                    }
                });
                prop_assert_eq!(stranger, None);
            }
        }
        prop_assert_eq!(learner.best().validate(), Ok(()));
    }
}

#[test]
fn the_first_trial_begins_within_a_second() {
    let mut run = Run::new(learner(&Options::default(), 1), 1);
    let first = (1..).find(|_| run.step(&DAY) == Phase::Canary || run.policy != FrozenPolicy::DEFAULT).unwrap();
    assert!(first <= 10, "{first} windows of a tenth of a second");
}

#[test]
fn each_learner_is_near_its_best_within_the_windows_that_the_manual_says() {
    // Median of five seeds, of the numbers that `examples/convergence.rs` prints for 21, with half as much again to spare.
    let none = Options::none;
    for (name, options, program, most) in [
        ("purge delay", Options { purge: true, ..none() }, DAY, 190),
        ("purge delay by night", Options { purge: true, ..none() }, NIGHT, 120),
        ("warm superslabs", Options { warm: true, ..none() }, DAY, 90),
        ("cache bytes", Options { cache: true, ..none() }, NIGHT, 80),
        ("everything", Options::default(), DAY, 190),
        ("everything by night", Options::default(), NIGHT, 320),
        (
            "everything, and strategies by Elo",
            Options { strategies: true, method: Method::ELO, ..Options::default() },
            DAY,
            190,
        ),
    ] {
        let mut near: Vec<_> = (1..=5)
            .map(|seed| settle(&program, &options, seed, 1500, &mut Vec::new()).near.unwrap_or(u32::MAX))
            .collect();
        near.sort_unstable();
        assert!(near[2] <= most, "{name}: {near:?}");
    }
}
