//! The knobs that are learned: where each stands in a policy, and which values are tried.
//!
//! A knob with a list of values is moved to a neighbour of its present value, never further: what was learned about a value says
//! most about the next one. The capacities have no list; their controller (`cap.rs`) says what to try.

use core::fmt::{self, Display, Formatter};
use hakmem_policy::{FrozenPolicy, SIZE_GROUPS, SIZES};

/// How many there are.
pub const KNOBS: usize = Knob::ALL.len();

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A part of the policy that is learned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Knob {
    /// Bytes that a thread may cache per size class.
    CacheBytes,
    /// Fresh bytes that a refill carves.
    RefillBytes,
    /// Heartbeats between two idle trims.
    IdleTrim,
    /// Capacities of the mid size groups.
    MidCap,
    /// Capacities of the groups of runs.
    LargeCap,
    /// How much larger a mid block may be than asked for.
    WMaxMid,
    /// How much larger a run may be than asked for.
    WMaxLarge,
    /// Remote frees that are collected per slab.
    Outbox,
    /// How long free memory keeps its pages.
    PurgeDelay,
    /// Free superslabs that always keep their pages.
    Warm,
    /// Bytes in use from which on superslabs get huge pages.
    Thp,
    /// How long a freed big block waits whole.
    BigRetain,
    /// Sizes that have a class of their own.
    DynamicClasses,
}

/// The value of a knob.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KnobValue {
    /// One number; `u64::MAX` is "never".
    Number(u64),
    /// One number per size group.
    Five([u32; SIZE_GROUPS]),
    /// A set of sizes: smallest first, zeros behind the last.
    Sizes([u32; SIZES]),
}

impl Display for KnobValue {
    /// As the policy's variables write it.
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(NEVER) => out.write_str("never"),
            Self::Number(value) => write!(out, "{value}"),
            Self::Five([a, b, c, d, e]) => write!(out, "{a},{b},{c},{d},{e}"),
            Self::Sizes([0, ..]) => out.write_str("none"),
            Self::Sizes(sizes) => {
                for (place, size) in sizes.iter().filter(|size| **size != 0).enumerate() {
                    write!(out, "{}{size}", if place == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

/// The value that stands for "never".
pub const NEVER: u64 = u64::MAX;

/// Bytes of the outbox for each of its blocks: as the defaults have it, 16 blocks or 4 KiB.
const OUTBOX_BLOCK_BYTES: u64 = 256;

impl Knob {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::CacheBytes,
        Self::RefillBytes,
        Self::IdleTrim,
        Self::MidCap,
        Self::LargeCap,
        Self::WMaxMid,
        Self::WMaxLarge,
        Self::Outbox,
        Self::PurgeDelay,
        Self::Warm,
        Self::Thp,
        Self::BigRetain,
        Self::DynamicClasses,
    ];

    /// Its number, below [`KNOBS`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Name of the field of [`FrozenPolicy`] that it sets; the first, if there are two.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::CacheBytes => "cache_max_bytes",
            Self::RefillBytes => "refill_bytes",
            Self::IdleTrim => "idle_trim_ticks",
            Self::MidCap => "mid_cap",
            Self::LargeCap => "large_cap",
            Self::WMaxMid => "w_max_mid_permille",
            Self::WMaxLarge => "w_max_large_permille",
            Self::Outbox => "outbox_blocks",
            Self::PurgeDelay => "purge_delay_ms",
            Self::Warm => "warm_superslabs",
            Self::Thp => "thp_heap_bytes",
            Self::BigRetain => "big_retain_ms",
            Self::DynamicClasses => "dynamic_classes",
        }
    }

    /// The field that goes with the first, if there is one.
    #[must_use]
    pub const fn second_field(self) -> Option<&'static str> {
        match self {
            Self::CacheBytes => Some("cache_bytes"),
            Self::Outbox => Some("outbox_bytes"),
            _ => None,
        }
    }

    /// The values that are tried, in order; none for capacities and sizes.
    #[must_use]
    pub const fn arms(self) -> &'static [u64] {
        match self {
            Self::CacheBytes => &[32 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB],
            Self::RefillBytes => &[1024, 2048, 4096, 8192, 16_384, 32_768],
            Self::IdleTrim => &[4, 8, 16, 32, 64, 128],
            Self::MidCap | Self::LargeCap | Self::DynamicClasses => &[],
            // These two lists are the founding documents'.
            Self::WMaxMid => &[1400, 1600, 1800, 2000],
            Self::WMaxLarge => &[1250, 1500, 1750, 2000],
            Self::Outbox => &[4, 8, 16, 32, 64],
            Self::PurgeDelay => &[10, 30, 100, 300, 1000, 3000, 10_000, 60_000, NEVER],
            Self::Warm => &[0, 1, 2, 4, 8, 16, 32],
            Self::Thp => &[4 * MIB, 8 * MIB, 16 * MIB, 32 * MIB, 64 * MIB, 256 * MIB, NEVER],
            Self::BigRetain => &[0, 300, 1000],
        }
    }

    /// Its value in a policy.
    #[must_use]
    pub fn value(self, policy: &FrozenPolicy) -> KnobValue {
        match self {
            Self::MidCap => KnobValue::Five(policy.mid_cap),
            Self::LargeCap => KnobValue::Five(policy.large_cap),
            Self::DynamicClasses => KnobValue::Sizes(policy.dynamic_classes),
            _ => KnobValue::Number(self.number(policy)),
        }
    }

    /// Its value in a policy as a number; for capacities and sizes their sum.
    #[must_use]
    pub fn number(self, policy: &FrozenPolicy) -> u64 {
        match self {
            Self::CacheBytes => policy.cache_max_bytes.into(),
            Self::RefillBytes => policy.refill_bytes.into(),
            Self::IdleTrim => policy.idle_trim_ticks.into(),
            Self::MidCap => policy.mid_cap.iter().map(|cap| u64::from(*cap)).sum(),
            Self::LargeCap => policy.large_cap.iter().map(|cap| u64::from(*cap)).sum(),
            Self::WMaxMid => policy.w_max_mid_permille.into(),
            Self::WMaxLarge => policy.w_max_large_permille.into(),
            Self::Outbox => policy.outbox_blocks.into(),
            Self::PurgeDelay => widened(policy.purge_delay_ms),
            Self::Warm => policy.warm_superslabs.into(),
            Self::Thp => policy.thp_heap_bytes as u64,
            Self::BigRetain => widened(policy.big_retain_ms),
            Self::DynamicClasses => policy.dynamic_classes.iter().map(|size| u64::from(*size)).sum(),
        }
    }

    /// Gives it another value; nothing happens to capacities and sizes.
    pub fn set(self, policy: &mut FrozenPolicy, value: u64) {
        let short = u32::try_from(value).unwrap_or(u32::MAX);
        match self {
            Self::CacheBytes => {
                policy.cache_max_bytes = short;
                policy.cache_bytes = policy.cache_bytes.min(short);
            }
            Self::RefillBytes => policy.refill_bytes = short,
            Self::IdleTrim => policy.idle_trim_ticks = short,
            Self::MidCap | Self::LargeCap | Self::DynamicClasses => {}
            Self::WMaxMid => policy.w_max_mid_permille = short,
            Self::WMaxLarge => policy.w_max_large_permille = short,
            Self::Outbox => {
                policy.outbox_blocks = short;
                policy.outbox_bytes = u32::try_from(value.saturating_mul(OUTBOX_BLOCK_BYTES)).unwrap_or(u32::MAX);
            }
            Self::PurgeDelay => policy.purge_delay_ms = short,
            Self::Warm => policy.warm_superslabs = short,
            Self::Thp => policy.thp_heap_bytes = usize::try_from(value).unwrap_or(usize::MAX),
            Self::BigRetain => policy.big_retain_ms = short,
        }
    }

    /// Gives `to` the value, with all that belongs to it, that `from` has.
    pub fn copy(self, from: &FrozenPolicy, to: &mut FrozenPolicy) {
        match self {
            Self::CacheBytes => (to.cache_bytes, to.cache_max_bytes) = (from.cache_bytes, from.cache_max_bytes),
            Self::MidCap => to.mid_cap = from.mid_cap,
            Self::LargeCap => to.large_cap = from.large_cap,
            Self::DynamicClasses => to.dynamic_classes = from.dynamic_classes,
            Self::Outbox => (to.outbox_blocks, to.outbox_bytes) = (from.outbox_blocks, from.outbox_bytes),
            _ => self.set(to, self.number(from)),
        }
    }

    /// The next value in a direction, within `bounds`; none at the end of the list.
    #[must_use]
    pub fn neighbour(self, policy: &FrozenPolicy, direction: Direction, bounds: Bounds) -> Option<u64> {
        let now = self.number(policy);
        let mut arms = self.arms().iter().copied().filter(|arm| bounds.holds(*arm));
        match direction {
            Direction::Down => arms.rfind(|arm| *arm < now),
            Direction::Up => arms.find(|arm| *arm > now),
        }
    }
}

const fn widened(milliseconds: u32) -> u64 {
    if milliseconds == u32::MAX { NEVER } else { milliseconds as u64 }
}

/// Which neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The next smaller value.
    Down,
    /// The next larger value.
    Up,
}

/// Smallest and largest value that may be tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Smallest.
    pub min: u64,
    /// Largest.
    pub max: u64,
}

impl Bounds {
    /// No bounds but the list's ends.
    pub const OPEN: Self = Self { min: 0, max: NEVER };

    /// Whether a value lies within.
    #[must_use]
    pub const fn holds(self, value: u64) -> bool {
        self.min <= value && value <= self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_knobs_are_their_places() {
        for (index, knob) in Knob::ALL.into_iter().enumerate() {
            assert_eq!(knob.index(), index);
        }
    }

    #[test]
    fn every_field_is_one_of_the_policy() {
        for knob in Knob::ALL {
            assert!(FrozenPolicy::FIELDS.contains(&knob.field()), "{knob:?}");
            assert!(knob.second_field().is_none_or(|field| FrozenPolicy::FIELDS.contains(&field)), "{knob:?}");
        }
    }

    #[test]
    fn every_value_on_a_list_makes_a_valid_policy_that_differs_in_the_knobs_fields_only() {
        for knob in Knob::ALL {
            assert!(knob.arms().is_sorted_by(|a, b| a < b), "{knob:?}");
            for &arm in knob.arms() {
                let mut policy = FrozenPolicy::DEFAULT;
                knob.set(&mut policy, arm);
                assert_eq!(policy.validate(), Ok(()), "{knob:?} {arm}");
                assert_eq!(knob.number(&policy), arm);
                policy.for_each_difference(&FrozenPolicy::DEFAULT, &mut |field| {
                    assert!(field == knob.field() || Some(field) == knob.second_field(), "{knob:?} changed {field}");
                });
                let mut copy = FrozenPolicy::DEFAULT;
                knob.copy(&policy, &mut copy);
                assert_eq!(copy, policy);
            }
        }
    }

    #[test]
    fn neighbours_are_the_next_values_on_the_list_and_within_bounds() {
        let mut policy = FrozenPolicy::DEFAULT;
        let knob = Knob::PurgeDelay;
        assert_eq!(knob.neighbour(&policy, Direction::Up, Bounds::OPEN), Some(1000));
        assert_eq!(knob.neighbour(&policy, Direction::Down, Bounds::OPEN), Some(100));
        assert_eq!(knob.neighbour(&policy, Direction::Down, Bounds { min: 200, max: NEVER }), None);
        // A value that is not on the list has neighbours too.
        knob.set(&mut policy, 50);
        assert_eq!(knob.neighbour(&policy, Direction::Up, Bounds::OPEN), Some(100));
        assert_eq!(knob.neighbour(&policy, Direction::Down, Bounds::OPEN), Some(30));
        knob.set(&mut policy, NEVER);
        assert_eq!(knob.number(&policy), NEVER);
        assert_eq!(knob.neighbour(&policy, Direction::Up, Bounds::OPEN), None);
    }
}
