//! Threads that come and go: each frees what others allocated, leaves blocks behind, and frees some as its last act.

use std::cell::RefCell;
use std::thread;
use std::time::Duration;

use hakmem_testkit::{Filled, Random};

use crate::shared::{Phase, Shared, fail, sound};
use crate::sizes;

/// Blocks that one thread allocates.
const BLOCKS: usize = 400;
/// Threads at a time.
const CREW: u64 = 3;

thread_local! {
    /// Blocks that a destructor of thread-local storage frees.
    static PARTING: RefCell<Parting> = const { RefCell::new(Parting(Vec::new())) };
}

struct Parting(Vec<Filled>);

impl Drop for Parting {
    fn drop(&mut self) {
        for block in self.0.drain(..) {
            // A destructor may allocate, too.
            let other = Filled::new(block.len(), 8, 1);
            sound(block.release());
            if let Some(other) = other {
                sound(other.release());
            }
        }
    }
}

/// Starts threads until the stop phase, but none while memory is limited: std cannot hear "no".
pub fn run(shared: &Shared, seed: u64) {
    let mut number = seed.wrapping_mul(1_000_000);
    while shared.phase() != Phase::Stop {
        let phase = shared.phase();
        if matches!(phase, Phase::Floor | Phase::Relief | Phase::Pressure) {
            thread::sleep(Duration::from_millis(2));
            continue;
        }
        start_crew(shared, number);
        number += CREW;
        let pause_ms = if phase == Phase::Churn { 1 } else { 20 };
        thread::sleep(Duration::from_millis(pause_ms));
    }
}

fn start_crew(shared: &Shared, number: u64) {
    let Ok(_alone) = shared.infallible.lock() else { fail("a thread panicked while it started threads") };
    thread::scope(|scope| {
        for number in number..number + CREW {
            scope.spawn(move || life(shared, number));
        }
    });
    shared.threads.add_relaxed(CREW);
}

fn life(shared: &Shared, number: u64) {
    let mut random = Random::new(number);
    let mut mine: Vec<Filled> = Vec::with_capacity(BLOCKS);
    for _ in 0..BLOCKS {
        let (bytes, stamp) = (sizes::small(&mut random), random.next());
        mine.extend(shared.allocate(bytes, 8, stamp, false));
    }
    for block in mine.drain(..) {
        match random.below(8) {
            // Left behind: its slab has no owner soon.
            0 | 1 => {
                if let Some(theirs) = shared.exchange(&mut random, Some(block)) {
                    shared.release(theirs);
                }
            }
            2 if block.len() < 4096 => {
                shared.live.sub_relaxed(block.len() as u64);
                PARTING.with_borrow_mut(|parting| parting.0.push(block));
            }
            _ => shared.release(block),
        }
    }
}
