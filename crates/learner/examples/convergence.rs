//! How many windows each controller needs, as CSV: `cargo run --release -p hakmem-learner --example convergence [-- --curves]`.
//!
//! Programs are the synthetic ones of the tests: stationary, with 2 % noise in CPU time, a tenth of a second per window. Each row
//! is the median of 21 seeds. `near`: windows until the best policy known stays within a fifth of what there is to gain;
//! `rested`: until nothing was left to try; `gained`: part of what there is to gain, in percent; `mean_cost`: over the first 3000
//! windows, trials included, in percent of the boot policy's. With `--curves`: the mean cost of each window, in percent.

#![allow(clippy::print_stdout, reason = "printing is what it is for")]

#[path = "../tests/support/mod.rs"]
mod support;

use hakmem_learner::{CapController, CapOptions, Demand, Method, Options, Random};
use support::{DAY, NIGHT, Program, settle};

const SEEDS: u64 = 21;
const WINDOWS: u32 = 3000;

fn main() {
    let wants_curves = std::env::args().any(|argument| argument == "--curves");
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
    let windows = |reached: Vec<Option<u32>>| {
        let mut reached: Vec<_> = reached.into_iter().map(|windows| windows.unwrap_or(u32::MAX)).collect();
        reached.sort_unstable();
        let median = reached.get(reached.len() / 2).copied().unwrap_or(u32::MAX);
        if median == u32::MAX { "never".to_owned() } else { median.to_string() }
    };
    let percent = |values: Vec<f64>| {
        let mut values = values;
        values.sort_unstable_by(f64::total_cmp);
        100.0 * values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    println!(
        "{name},{program_name},{},{},{:.0},{:.1}",
        windows(lives.iter().map(|life| life.near).collect()),
        windows(lives.iter().map(|life| life.rested).collect()),
        percent(lives.iter().map(|life| life.gained).collect()),
        percent(lives.iter().map(|life| life.mean_cost).collect()),
    );
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
