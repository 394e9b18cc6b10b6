//! Which run comes when: rounds in which every cell runs once, in an order that is shuffled anew, until each has enough clean runs.
//!
//! The host slows down by up to 60 % unannounced. So each run stands between two spins of fixed work, and is dropped when the
//! slower of them was slow; and no allocator has a time of day of its own.
//!
//! **Invariants.** A cell runs at most once in a round. A cell without any clean run keeps all its runs, which the report says.
//! A cell that failed is not run again.

use anyhow::{Error, Result};

use super::stats;

/// A run is dropped when the spin beside it took this much longer than the median spin.
const SLOW_SPIN: f64 = 1.15;
/// Rounds beyond those asked for, to replace dropped runs.
const EXTRA_ROUNDS: usize = 3;

/// Runs after which what there is so far is told.
const TOLD_EVERY: usize = 200;

/// What the plan must know of a run.
pub trait Spun {
    /// Which processors were spun: times of one and of all are not compared.
    fn spin_kind(&self) -> usize;
    /// The slower of the two spins.
    fn spin_ms(&self) -> f64;
}

/// One run of one cell.
#[derive(Debug)]
pub struct Planned<R> {
    pub cell: usize,
    pub round: usize,
    pub kept: bool,
    pub run: R,
}

/// What came of all rounds.
pub struct Outcome<R> {
    /// Every run, in the order in which they ran.
    pub runs: Vec<Planned<R>>,
    /// Cells that failed, with why.
    pub failures: Vec<(usize, Error)>,
}

/// Runs `cells` cells, after the runs that `begun` holds. `perform` is given the cell and the share of the work that is done;
/// `so_far`, after every round and now and then within one, all there is.
pub fn interleaved<R: Spun>(
    cells: usize,
    reps: usize,
    seed: u64,
    begun: Vec<Planned<R>>,
    mut perform: impl FnMut(usize, f64) -> Result<R>,
    mut so_far: impl FnMut(&Outcome<R>) -> Result<()>,
) -> Result<Outcome<R>> {
    let first = begun.iter().map(|run| run.round).max().unwrap_or(0);
    let mut outcome = Outcome { runs: begun, failures: Vec::new() };
    for round in first..reps + EXTRA_ROUNDS {
        // Without the exception below: a cell that has only runs beside slow spins still wants a clean one.
        drop_slow(&mut outcome.runs);
        let Outcome { runs, failures } = &outcome;
        let failed = |cell| failures.iter().any(|(which, _)| *which == cell);
        let mut order: Vec<usize> = (0..cells).filter(|&cell| clean(runs, cell) < reps && !failed(cell)).collect();
        if order.is_empty() {
            break;
        }
        // Each round has a seed of its own, so that one that goes on where another one ended does as that would have done.
        fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round as u64).shuffle(&mut order);
        order.retain(|&cell| !runs.iter().any(|run| run.round == round && run.cell == cell));
        for (place, &cell) in order.iter().enumerate() {
            let of_round = place as f64 / order.len() as f64;
            match perform(cell, ((round as f64 + of_round) / reps as f64).min(1.0)) {
                Ok(run) => outcome.runs.push(Planned { cell, round, kept: true, run }),
                Err(error) => outcome.failures.push((cell, error)),
            }
            if (place + 1) % TOLD_EVERY == 0 {
                judge(&mut outcome.runs, cells);
                so_far(&outcome)?;
            }
        }
        judge(&mut outcome.runs, cells);
        so_far(&outcome)?;
    }
    Ok(outcome)
}

/// Which runs count: those that are not slow, and all of a cell that has only slow ones.
fn judge<R: Spun>(runs: &mut [Planned<R>], cells: usize) {
    drop_slow(runs);
    for cell in 0..cells {
        if clean(runs, cell) == 0 {
            runs.iter_mut().filter(|run| run.cell == cell).for_each(|run| run.kept = true);
        }
    }
}

fn clean<R>(runs: &[Planned<R>], cell: usize) -> usize {
    runs.iter().filter(|run| run.cell == cell && run.kept).count()
}

/// Decides of all runs anew: the median spin is known the better the more there were.
fn drop_slow<R: Spun>(runs: &mut [Planned<R>]) {
    for kind in 0..2 {
        let of_kind = |planned: &Planned<R>| planned.run.spin_kind() == kind;
        let Some(usual) = stats::median(runs.iter().filter(|run| of_kind(run)).map(|run| run.run.spin_ms())) else {
            continue;
        };
        for planned in runs.iter_mut().filter(|run| of_kind(run)) {
            planned.kept = planned.run.spin_ms() <= usual * SLOW_SPIN;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use anyhow::bail;

    use super::*;

    struct Spin(f64);

    impl Spun for Spin {
        fn spin_kind(&self) -> usize {
            0
        }
        fn spin_ms(&self) -> f64 {
            self.0
        }
    }

    fn run(cells: usize, reps: usize, seed: u64, perform: impl FnMut(usize, f64) -> Result<Spin>) -> Outcome<Spin> {
        interleaved(cells, reps, seed, Vec::new(), perform, |_| Ok(())).unwrap()
    }

    #[test]
    fn a_cell_with_slow_runs_only_gets_another_one_and_keeps_them_until_then() {
        let mut count = 0;
        let mut kept = Vec::new();
        let outcome = interleaved(
            3,
            1,
            1,
            Vec::new(),
            |cell, _| {
                count += 1;
                Ok(Spin(if cell == 0 && count <= 3 { 20.0 } else { 10.0 }))
            },
            |so_far| {
                kept.push(so_far.runs.iter().filter(|run| run.kept).count());
                Ok(())
            },
        );
        assert_eq!(outcome.unwrap().runs.iter().filter(|run| run.kept).count(), 3);
        assert_eq!(kept, [3, 3]);
    }

    #[test]
    fn every_cell_runs_once_a_round_in_an_order_of_its_own() {
        let seen = RefCell::new(Vec::new());
        let outcome = run(20, 4, 7, |cell, share| {
            assert!((0.0..=1.0).contains(&share));
            seen.borrow_mut().push(cell);
            Ok(Spin(10.0))
        });
        assert_eq!(outcome.runs.len(), 80);
        let seen = seen.into_inner();
        let rounds: Vec<&[usize]> = seen.chunks(20).collect();
        for round in &rounds {
            let mut sorted = round.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..20).collect::<Vec<_>>());
        }
        assert_ne!(rounds[0], rounds[1]);
    }

    #[test]
    fn a_plan_goes_on_where_an_earlier_one_ended() {
        let whole = run(5, 3, 7, |_, _| Ok(Spin(10.0)));
        let order = |outcome: &Outcome<Spin>| -> Vec<(usize, usize)> {
            outcome.runs.iter().map(|run| (run.round, run.cell)).collect()
        };
        let mut begun = run(5, 2, 7, |_, _| Ok(Spin(10.0))).runs;
        begun.truncate(8);
        let mut count = 0;
        let perform = |_, _| {
            count += 1;
            Ok(Spin(10.0))
        };
        let gone_on = interleaved(5, 3, 7, begun, perform, |_| Ok(())).unwrap();
        assert_eq!((count, order(&gone_on)), (7, order(&whole)));
    }

    #[test]
    fn a_run_beside_a_slow_spin_is_dropped_and_made_up_for() {
        let mut count = 0;
        let outcome = run(2, 5, 1, |_, _| {
            count += 1;
            Ok(Spin(if count == 3 { 11.6 } else { 10.0 }))
        });
        assert_eq!(outcome.runs.len(), 11);
        assert_eq!(outcome.runs.iter().filter(|run| !run.kept).count(), 1);
        assert!((0..2).all(|cell| clean(&outcome.runs, cell) == 5));
    }

    #[test]
    fn a_machine_that_stays_slow_ends_after_the_extra_rounds() {
        let mut count = 0_u32;
        let outcome = run(1, 5, 1, |_, _| {
            count += 1;
            Ok(Spin(f64::from(count * count * 10)))
        });
        assert_eq!(outcome.runs.len(), 5 + EXTRA_ROUNDS);
        assert!(clean(&outcome.runs, 0) > 0);
    }

    #[test]
    fn a_cell_that_fails_is_named_and_left_out_of_later_rounds() {
        let mut tries = 0;
        let outcome = run(2, 3, 1, |cell, _| {
            if cell == 1 {
                tries += 1;
                bail!("it crashed");
            }
            Ok(Spin(1.0))
        });
        assert_eq!((tries, outcome.runs.len()), (1, 3));
        assert_eq!(outcome.failures.len(), 1);
        assert_eq!(outcome.failures[0].0, 1);
    }
}
