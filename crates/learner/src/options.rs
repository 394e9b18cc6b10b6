//! What is learned, and how.

use crate::duel::Limits;
use crate::knob::{Bounds, KNOBS, Knob};
use crate::score::Weights;
use crate::selector::Method;

/// What is learned, and how. [`Options::default`] is what mode LEARN runs with.
#[derive(Clone, PartialEq, Debug)]
pub struct Options {
    /// Capacities of caches, by hit rate.
    pub cap: bool,
    /// With the integral and the derivative terms of [`CapOptions::with_all_terms`](crate::CapOptions::with_all_terms).
    pub cap_terms: bool,
    /// Bytes that a thread caches per class.
    pub cache: bool,
    /// Rounding limits.
    pub w_max: bool,
    /// From which size on the heap gets huge pages.
    pub thp: bool,
    /// Purge delay.
    pub purge: bool,
    /// Bytes of a refill.
    pub refill: bool,
    /// Size of the outbox for remote frees.
    pub outbox: bool,
    /// Warm superslabs.
    pub warm: bool,
    /// How long big blocks are retained.
    pub retention: bool,
    /// Beats between idle trims.
    pub idle_trim: bool,
    /// Dynamic classes.
    pub dynamic: bool,
    /// Whole policies, once no single step is left. Off by default: in all programs of `examples/convergence.rs` they found nothing
    /// that steps had not found, and their trials cost about 1 %.
    pub strategies: bool,
    /// How the next try is chosen.
    pub method: Method,
    /// What counts how much.
    pub weights: Weights,
    /// Smallest and largest value of each knob, by [`Knob::index`].
    pub bounds: [Bounds; KNOBS],
    /// When a trial ends.
    pub limits: Limits,
    /// Windows that make the baseline.
    pub baseline_windows: u32,
    /// Events that a turn of a trial has at least.
    pub turn_events: u64,
    /// Turns end after this, if the program allocates anything at all.
    pub turn_longest_ns: u64,
    /// After a change of sides the delays that are on trial are waited for, but no longer than this.
    pub settle_longest_ns: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cap: true,
            cap_terms: false,
            cache: true,
            w_max: true,
            thp: true,
            purge: true,
            refill: true,
            outbox: true,
            warm: true,
            retention: true,
            idle_trim: true,
            dynamic: true,
            strategies: false,
            method: Method::UCB1,
            weights: Weights::default(),
            bounds: [Bounds::OPEN; KNOBS],
            limits: Limits::default(),
            baseline_windows: 4,
            turn_events: 2_500,
            turn_longest_ns: 2_000_000_000,
            settle_longest_ns: 1_000_000_000,
        }
    }
}

impl Options {
    /// Nothing is learned: what the single learners are compared with.
    #[must_use]
    pub fn none() -> Self {
        Self {
            cap: false,
            cache: false,
            w_max: false,
            thp: false,
            purge: false,
            refill: false,
            outbox: false,
            warm: false,
            retention: false,
            idle_trim: false,
            dynamic: false,
            strategies: false,
            ..Self::default()
        }
    }

    /// Whether a knob is learned on its own.
    #[must_use]
    pub const fn learns(&self, knob: Knob) -> bool {
        match knob {
            Knob::CacheBytes => self.cache,
            Knob::RefillBytes => self.refill,
            Knob::IdleTrim => self.idle_trim,
            Knob::DynamicClasses => self.dynamic,
            Knob::MidCap | Knob::LargeCap => self.cap,
            Knob::WMaxMid | Knob::WMaxLarge => self.w_max,
            Knob::Outbox => self.outbox,
            Knob::PurgeDelay => self.purge,
            Knob::Warm => self.warm,
            Knob::Thp => self.thp,
            Knob::BigRetain => self.retention,
        }
    }

    /// Bounds of a knob.
    #[must_use]
    pub fn bounds_of(&self, knob: Knob) -> Bounds {
        self.bounds.get(knob.index()).copied().unwrap_or(Bounds::OPEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_switch_is_for_its_own_knobs() {
        type Switch = fn(&mut Options);
        let switches: [(Switch, &[Knob]); 11] = [
            (|options| options.cap = true, &[Knob::MidCap, Knob::LargeCap]),
            (|options| options.cache = true, &[Knob::CacheBytes]),
            (|options| options.w_max = true, &[Knob::WMaxMid, Knob::WMaxLarge]),
            (|options| options.thp = true, &[Knob::Thp]),
            (|options| options.purge = true, &[Knob::PurgeDelay]),
            (|options| options.refill = true, &[Knob::RefillBytes]),
            (|options| options.outbox = true, &[Knob::Outbox]),
            (|options| options.warm = true, &[Knob::Warm]),
            (|options| options.retention = true, &[Knob::BigRetain]),
            (|options| options.idle_trim = true, &[Knob::IdleTrim]),
            (|options| options.dynamic = true, &[Knob::DynamicClasses]),
        ];
        for (switch, knobs) in switches {
            let mut options = Options::none();
            assert!(Knob::ALL.into_iter().all(|knob| !options.learns(knob)));
            switch(&mut options);
            assert!(Knob::ALL.into_iter().filter(|knob| options.learns(*knob)).eq(knobs.iter().copied()), "{knobs:?}");
        }
        assert!(Knob::ALL.into_iter().all(|knob| Options::default().learns(knob)));
    }
}
