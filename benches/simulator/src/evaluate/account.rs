//! Whether the account is right: what it says of each purge delay, beside a replay under that delay.
//!
//! The account (`hakmem_base::Hindsight`) is kept while one delay runs and speaks of all of them. It cannot see that other pages being
//! there would have changed where memory is taken, so it is at its best near the delay that runs.

use hakmem_base::DELAYS_MS;
use hakmem_learner::Bill;
use hakmem_policy::FrozenPolicy;

use super::Cost;
use super::runs::{Subject, attended};
use crate::model::{Costs, Machine};

/// Time between two readings, as in the allocator.
const READING_NS: u64 = 100_000_000;

/// One delay.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    /// It (ms).
    pub delay_ms: u32,
    /// What a round would cost, by the account.
    pub said: Cost,
    /// What it costs.
    pub is: Cost,
}

/// Keeps account of the second round under a policy whose delay is on the list.
#[must_use]
pub fn account(subject: &Subject, running: &FrozenPolicy, costs: &Costs) -> Vec<Said> {
    let mut machine = Machine::new(&subject.trace, running, costs);
    machine.attend();
    let mut due_ns = READING_NS;
    let mut round = || {
        for event in subject.round() {
            machine.step(event);
            if machine.now_ns() >= due_ns {
                due_ns = machine.now_ns() + READING_NS;
                let _so_far = machine.hindsight();
            }
        }
        (machine.totals(), machine.hindsight())
    };
    let (first, second) = (round(), round());
    let (real, flows) = (Cost::of(&second.0.since(&first.0)), second.1.since(&first.1).here);
    let bills = flows.map(|flow| Bill::of(&flow, running.thp_heap_bytes as u64));
    let place = DELAYS_MS.iter().filter(|delay_ms| **delay_ms < running.purge_delay_ms).count();
    let runs = bills.get(place).copied().unwrap_or_default();
    let said = bills.into_iter().map(|bill| Cost {
        cpu_ns: real.cpu_ns + bill.cpu_ns - runs.cpu_ns,
        faults: real.faults + bill.faults - runs.faults,
        byte_ns: real.byte_ns + (bill.byte_ms - runs.byte_ms) * 1e6,
    });
    let of = |(delay_ms, said): (u32, Cost)| {
        let policy = FrozenPolicy { purge_delay_ms: delay_ms, ..running.clone() };
        Said { delay_ms, said, is: Cost::sum(&attended(subject, &policy, costs)) }
    };
    DELAYS_MS.into_iter().zip(said).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;

    #[test]
    fn what_runs_is_told_as_it_is_and_both_say_that_longer_delays_keep_more_and_fault_less() {
        let subject = Subject::new(synthetic::find("compiler").unwrap().make(1).unwrap());
        let policy = FrozenPolicy::DEFAULT;
        let rows = account(&subject, &policy, &Costs::MEASURED);
        let runs = rows.iter().find(|row| row.delay_ms == policy.purge_delay_ms).unwrap();
        assert_eq!(runs.said.faults, runs.is.faults);
        assert!((runs.said.byte_ns - runs.is.byte_ns).abs() < runs.is.byte_ns * 1e-6);
        let (shortest, longest) = (rows.first().unwrap(), rows.last().unwrap());
        for pick in [|row: &Said| row.said, |row: &Said| row.is] {
            let (short, long) = (pick(shortest), pick(longest));
            assert!(short.faults > runs.is.faults && runs.is.faults > long.faults, "{rows:?}");
            assert!(short.byte_ns < runs.is.byte_ns && runs.is.byte_ns < long.byte_ns, "{rows:?}");
        }
    }
}
