//! A learner allocates nothing after it was made, under an allocator that counts.

use hakmem_learner::{Learner, Method, Options, Phase, Random, Window};
use hakmem_policy::FrozenPolicy;
use hakmem_testkit::Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

/// A program that uses everything, and whose sizes change every 2000 windows.
fn window(number: u32, policy: &FrozenPolicy, random: &mut Random) -> Window {
    let mut window = Window {
        elapsed_ns: 100_000_000,
        cpu_ns: 50_000_000 + random.below(5_000_000) as u64 + u64::from(policy.refill_bytes) * 100,
        system_ns: 1_000_000,
        page_faults: 100,
        allocs: 200_000,
        remote_frees: 10,
        beats: 10,
        purged_bytes: 1 << 20,
        committed_bytes: 1 << 20,
        live_bytes: 50 << 20,
        resident_bytes: 80 << 20,
        big_requests: 3,
        ..Window::EMPTY
    };
    let first = if (number / 2000).is_multiple_of(2) { 2 } else { 40 };
    for class in window.classes.iter_mut().skip(first).take(20) {
        (class.allocs, class.refills, class.spills) = (10_000, 500, 400);
    }
    for group in &mut window.run_groups {
        (group.requests, group.cache_hits) = (20, 10);
    }
    window
}

#[test]
fn a_learner_allocates_nothing_in_any_phase_of_its_life_with_any_method() {
    for (name, method) in Method::ALL {
        let options = Options { method, strategies: true, ..Options::default() };
        let mut policy = FrozenPolicy::DEFAULT;
        let mut random = Random::new(1);
        let (mut has_tried, mut has_rested) = (false, false);
        let mut learner = Learner::new(&policy, &options, 1);
        let (trials, allocations) = COUNTING.allocations_of(|| {
            for number in 0..5000 {
                let decision = learner.observe(&window(number, &policy, &mut random));
                if let Some(published) = decision.publish {
                    policy = published;
                }
                has_tried |= decision.phase == Phase::Canary;
                has_rested |= decision.phase == Phase::Frozen;
            }
            learner.evidence().map(|evidence| evidence.trials).sum::<u32>()
        });
        assert_eq!(allocations, 0, "{name}");
        assert!(has_tried && has_rested, "{name}");
        assert!(trials >= 5, "{name}: {trials}");
    }
}
