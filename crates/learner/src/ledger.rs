//! Why each knob is where it is.

use crate::knob::{KNOBS, Knob, KnobValue};
use core::fmt::{self, Display, Formatter};

/// Why a knob has its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reason {
    /// Its turn has not come.
    #[default]
    Untried,
    /// Its learner is switched off.
    Off,
    /// Counts say that no other value could gain anything worth a trial.
    NothingAtStake,
    /// Trials showed no difference.
    NoDifference,
    /// What was tried was worse and taken back.
    RolledBack,
    /// What was tried was better.
    Better,
    /// The account of memory taken and given back says so.
    Foreseen,
    /// It is another way to keep memory, which would hide that from the account: nobody tries it.
    LeftAlone,
    /// The sizes of live blocks say so.
    Counted,
    /// It came with a whole policy that was better.
    Strategy,
    /// What was learned did not hold any more, and the value of the start is back.
    Outdated,
}

impl Reason {
    /// The reason as a sentence.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Untried => "its turn has not come, so the value is that of the start",
            Self::Off => "its learner is switched off, so the value is that of the start",
            Self::NothingAtStake => {
                "what another value could gain at most is too little for a trial, so none was tried"
            }
            Self::NoDifference => "other values made no difference that could be told from noise, so it stays",
            Self::RolledBack => "other values were tried, were worse, and were taken back",
            Self::Better => "this value was better in paired trials",
            Self::Foreseen => {
                "by the account of memory taken and given back no other value would have been cheaper by enough for a change"
            }
            Self::LeftAlone => "the delay of purges is set by account instead, so the value is that of the start",
            Self::Counted => {
                "these sizes have so many live blocks, or no size has, that classes of their own save memory"
            }
            Self::Strategy => "it belongs to a whole policy that was better in paired trials",
            Self::Outdated => "what was learned did not hold any more, so the value of the start is back",
        }
    }
}

impl Display for Reason {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str(self.sentence())
    }
}

/// What is known about a knob.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Evidence {
    /// The knob.
    pub knob: Knob,
    /// Its value in the boot policy.
    pub before: KnobValue,
    /// Its value in the best policy known.
    pub now: KnobValue,
    /// Trials of other values, whole policies included that would have changed it.
    pub trials: u32,
    /// Mean cost in the latest trial that decided: with the value that was kept. 0 when there was none, or when no trial put the
    /// knob where it is.
    pub with: f64,
    /// The same with the value that was not kept.
    pub without: f64,
    /// Why it is where it is.
    pub reason: Reason,
}

/// What is written down about a knob.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) trials: u32,
    pub(crate) with: f64,
    pub(crate) without: f64,
    pub(crate) reason: Reason,
}

/// What is written down about all knobs.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Ledger([Entry; KNOBS]);

impl Ledger {
    pub(crate) fn of(&self, knob: Knob) -> Entry {
        self.0.get(knob.index()).copied().unwrap_or_default()
    }

    /// The reason, where there was no trial to give a better one.
    pub(crate) fn explain(&mut self, knob: Knob, reason: Reason) {
        if let Some(entry) = self.0.get_mut(knob.index())
            && entry.trials == 0
        {
            entry.reason = reason;
        }
    }

    /// A trial that changed the knob has ended with these mean costs, of the value that is kept and of the other one.
    pub(crate) fn tried(&mut self, knob: Knob, with: f64, without: f64, reason: Reason) {
        let Some(entry) = self.0.get_mut(knob.index()) else { return };
        entry.trials = entry.trials.saturating_add(1);
        // What made a knob better stays on record when its next neighbour is no better still.
        let keeps = matches!(entry.reason, Reason::Better | Reason::Strategy)
            && !matches!(reason, Reason::Better | Reason::Strategy | Reason::Outdated);
        if !keeps {
            (entry.with, entry.without, entry.reason) = (with, without, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_made_a_knob_better_stays_on_record_until_something_else_does_or_it_is_outdated() {
        let mut ledger = Ledger::default();
        let mut after = |with, reason| {
            ledger.tried(Knob::Warm, with, 1.0, reason);
            let Entry { trials, with, reason, .. } = ledger.of(Knob::Warm);
            (trials, with, reason)
        };
        assert_eq!(after(0.9, Reason::NoDifference), (1, 0.9, Reason::NoDifference));
        assert_eq!(after(0.8, Reason::Better), (2, 0.8, Reason::Better));
        assert_eq!(after(0.7, Reason::RolledBack), (3, 0.8, Reason::Better));
        assert_eq!(after(0.6, Reason::Strategy), (4, 0.6, Reason::Strategy));
        assert_eq!(after(0.5, Reason::NoDifference), (5, 0.6, Reason::Strategy));
        assert_eq!(after(0.4, Reason::Better), (6, 0.4, Reason::Better));
        assert_eq!(after(0.3, Reason::Outdated), (7, 0.3, Reason::Outdated));
        assert_eq!(after(0.2, Reason::RolledBack), (8, 0.2, Reason::RolledBack));
        assert_eq!(ledger.of(Knob::Thp), Entry::default(), "other knobs know nothing of it");
    }

    #[test]
    fn a_trial_says_more_than_an_explanation() {
        let mut ledger = Ledger::default();
        ledger.explain(Knob::Outbox, Reason::NothingAtStake);
        assert_eq!(ledger.of(Knob::Outbox).reason, Reason::NothingAtStake);
        ledger.tried(Knob::Outbox, 1.0, 1.1, Reason::RolledBack);
        ledger.explain(Knob::Outbox, Reason::NothingAtStake);
        assert_eq!(ledger.of(Knob::Outbox).reason, Reason::RolledBack);
    }
}
