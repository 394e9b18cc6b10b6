//! How many windows each controller needs, as CSV: `cargo run --release -p hakmem-learner --example convergence`, with
//! `-- --curves` or `-- --account` for a part.
//!
//! Programs are the synthetic ones of the tests: stationary, with 2 % noise in CPU time, a tenth of a second per window. Each row
//! is the median of 21 seeds. `near`: windows until the best policy known stays within a fifth of what there is to gain;
//! `rested`: until nothing was left to try; `gained`: part of what there is to gain, in percent; `mean_cost`: over the first 3000
//! windows, trials included, in percent of the boot policy's. With `--curves`: the mean cost of each window, in percent.
//!
//! With `--account`, and at the end: the same programs in turn, twenty seconds each, as seasons of one program with an account of what other
//! purge delays would have led to. `set`: windows of the season until the delay was another one than it began with; `near`: until
//! its cost was for good within a fifth of what there is to gain, which is what the delay gains that the season has at last.

#![allow(clippy::print_stdout, reason = "printing is what it is for")]

#[path = "../tests/support/mod.rs"]
mod support;

use hakmem_learner::{CapController, CapOptions, Demand, Learner, Method, Options, Random};
use hakmem_policy::FrozenPolicy;
use support::{DAY, NIGHT, Program, Run, settle};

const SEEDS: u64 = 21;
const WINDOWS: u32 = 3000;

fn main() {
    let wants = |name: &str| std::env::args().any(|argument| argument == name);
    if wants("--account") {
        return account();
    }
    let wants_curves = wants("--curves");
    if wants_curves {
        println!("learner,program,window,cost_percent");
    } else {
        println!("learner,program,near,rested,gained_percent,mean_cost_percent");
        caps();
    }
    for (program_name, program) in [("day", DAY), ("night", NIGHT)] {
        for (name, options) in learners() {
            row(&name, program_name, &program, &options, wants_curves);
        }
    }
    if !wants_curves {
        account();
    }
}

/// Each knob alone, then everything by each method.
fn learners() -> Vec<(String, Options)> {
    let none = Options::none;
    let mut learners = vec![
        ("purge delay".to_owned(), Options { purge: true, ..none() }),
        ("warm superslabs".to_owned(), Options { warm: true, ..none() }),
        ("cache bytes".to_owned(), Options { cache: true, ..none() }),
        ("refill bytes".to_owned(), Options { refill: true, ..none() }),
        ("idle trim".to_owned(), Options { idle_trim: true, ..none() }),
        ("capacities".to_owned(), Options { cap: true, ..none() }),
    ];
    for (name, method) in Method::ALL {
        learners.push((format!("steps by {name}"), Options { method, ..Options::default() }));
        learners.push((format!("all by {name}"), Options { method, strategies: true, ..Options::default() }));
    }
    learners
}

fn row(name: &str, program_name: &str, program: &Program, options: &Options, wants_curves: bool) {
    let mut sums = vec![0.0; WINDOWS as usize];
    let lives: Vec<_> = (1..=SEEDS)
        .map(|seed| {
            let mut costs = Vec::new();
            let settled = settle(program, options, seed, WINDOWS, &mut costs);
            sums.iter_mut().zip(&costs).for_each(|(sum, cost)| *sum += cost);
            settled
        })
        .collect();
    if wants_curves {
        for (window, sum) in sums.iter().enumerate().filter(|(window, _)| window % 10 == 0) {
            println!("{name},{program_name},{window},{:.2}", 100.0 * sum / SEEDS as f64);
        }
        return;
    }
    println!(
        "{name},{program_name},{},{},{:.0},{:.1}",
        windows(lives.iter().map(|life| life.near).collect()),
        windows(lives.iter().map(|life| life.rested).collect()),
        percent(lives.iter().map(|life| life.gained).collect()),
        percent(lives.iter().map(|life| life.mean_cost).collect()),
    );
}

/// The median of what some lives reached.
fn windows(reached: Vec<Option<u32>>) -> String {
    let mut reached: Vec<_> = reached.into_iter().map(|windows| windows.unwrap_or(u32::MAX)).collect();
    reached.sort_unstable();
    let median = reached.get(reached.len() / 2).copied().unwrap_or(u32::MAX);
    if median == u32::MAX { "never".to_owned() } else { median.to_string() }
}

fn percent(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    100.0 * values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Windows of a season, and how often each comes.
const SEASON: u32 = 200;
const VISITS: usize = 4;

/// What a visit to a season was like: the policy of each of its windows, the one before them first.
type Visit = Vec<FrozenPolicy>;

/// Purge delays by account, season by season.
fn account() {
    println!("season,visit,set,near,mean_cost_percent");
    let programs = [("day", DAY), ("night", NIGHT)];
    let lives: Vec<Vec<Visit>> =
        (1..=SEEDS).map(|seed| live_through(&programs.map(|(_, program)| program), seed)).collect();
    for (place, (name, program)) in programs.iter().enumerate() {
        for visit in 0..VISITS {
            let (mut set, mut near, mut costs) = (Vec::new(), Vec::new(), Vec::new());
            for visits in &lives {
                let Some(seen) = visits.get(visit * programs.len() + place) else { continue };
                let last = visits.get((VISITS - 1) * programs.len() + place).and_then(|seen| seen.last());
                let least = last.map_or(f64::NAN, |policy| program.cost(policy));
                let of_windows: Vec<f64> =
                    seen.iter().take(SEASON as usize).map(|policy| program.cost(policy)).collect();
                let begins = seen.first().map(|policy| policy.purge_delay_ms);
                let other = |policy: &FrozenPolicy| Some(policy.purge_delay_ms) != begins;
                set.push(seen.iter().position(other).map(|window| window as u32));
                let is_far = |cost: &f64| *cost > least + 0.2 * (1.0 - least);
                near.push(Some(of_windows.iter().rposition(is_far).map_or(0, |window| window as u32 + 1)));
                costs.push(of_windows.iter().sum::<f64>() / of_windows.len() as f64);
            }
            println!("{name},{},{},{},{:.1}", visit + 1, windows(set), windows(near), percent(costs));
        }
    }
}

/// All visits to all programs, in the order in which they come.
fn live_through(programs: &[Program], seed: u64) -> Vec<Visit> {
    let learner = Learner::new(&FrozenPolicy::DEFAULT, &Options::default(), seed);
    let mut run = Run { has_account: true, ..Run::new(learner, seed) };
    let mut visits = Vec::new();
    for _ in 0..VISITS {
        for program in programs {
            let mut seen = vec![run.policy.clone()];
            for _ in 0..SEASON {
                run.step(program);
                seen.push(run.policy.clone());
            }
            visits.push(seen);
        }
    }
    visits
}

/// The controllers of capacities: windows until the hit rate of a cache with hit rate `1 - exp(-capacity / 60)` is on target.
fn caps() {
    let proportional = CapOptions::MID;
    for (name, options) in [
        ("cap P", proportional),
        ("cap PI", CapOptions { integral: 0.5, ..proportional }),
        ("cap PID", CapOptions { integral: 0.5, derivative: 0.3, ..proportional }),
    ] {
        for start in [4_u32, 20, 200] {
            let mut controller =
                CapController::new(CapOptions { surplus: hakmem_learner::Surplus::GivenUp, ..options });
            let mut caps = [start; 5];
            let mut random = Random::new(1);
            let mut last_off = 0;
            for window in 1..=100_u32 {
                let hit_rate = |cap: u32| 1.0 - (-f64::from(cap) / 60.0).exp();
                let demands = caps.map(|cap| {
                    let seen = (hit_rate(cap) + 0.01 * random.normal()).clamp(0.0, 1.0);
                    Demand { requests: 10_000, misses: (10_000.0 * (1.0 - seen)) as u64 }
                });
                caps = controller.step(&caps, &demands, 10_000);
                let off = hit_rate(caps.first().copied().unwrap_or(0)) - options.target;
                if off.abs() > 1.2 * options.dead_band {
                    last_off = window;
                }
            }
            println!("{name} from {start},cache,{},{},,", last_off + 1, last_off + 1);
        }
    }
}
