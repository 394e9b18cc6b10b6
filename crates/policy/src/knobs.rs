//! The knobs: one declaration each, which makes the field, its default, its bounds and its variable.
//!
//! **Invariants.** [`FrozenPolicy::validate`] accepts exactly the policies whose fields are within their own bounds and
//! fit each other; `repair` makes fields that are within bounds fit each other, and is the identity on valid policies.

use crate::registry::EnvVar;
use crate::settings::{RouteProfile, Scavenger};
use crate::value::{Kind, SIZES, Value, bytes, count, milliseconds, permille};
use core::fmt::{self, Display, Formatter};

/// Groups of sizes, one doubling each, that capacities ([`FrozenPolicy::mid_cap`]) are given for.
pub const SIZE_GROUPS: usize = 5;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Which field of a policy is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FieldError {
    /// The field is outside its own bounds.
    OutOfRange {
        /// Name of the field.
        field: &'static str,
        /// Its bounds.
        kind: Kind,
    },
    /// The field does not fit another one.
    Conflict {
        /// Name of the field that [`parse_environment`](crate::parse_environment) would change.
        field: &'static str,
        /// Name of the field that it has to fit.
        with: &'static str,
    },
}

impl FieldError {
    /// Name of the field.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        match self {
            Self::OutOfRange { field, .. } | Self::Conflict { field, .. } => field,
        }
    }
}

impl Display for FieldError {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { field, kind } => {
                write!(out, "{field} is out of range: ")?;
                kind.write_accepted(out)
            }
            Self::Conflict { field, with } => write!(out, "{field} does not fit {with}"),
        }
    }
}

impl core::error::Error for FieldError {}

macro_rules! knobs {
    ($($(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr, $kind:expr, $env:literal;)+) => {
        /// Every number that a box reads from policy. Immutable once published.
        ///
        /// Boxes copy the few fields they need when they meet a new [`generation`](Self::generation), on a cold path.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct FrozenPolicy {
            /// Which publication this is; 0 is the boot policy. Stamped by [`PolicyCell::publish`](crate::PolicyCell::publish).
            pub generation: u32,
            $(
                $(#[doc = $doc])+
                ///
                #[doc = concat!("Variable `", $env, "`; values `", stringify!($kind), "`.")]
                pub $field: $type,
            )+
        }

        impl FrozenPolicy {
            /// What runs when nobody says anything.
            pub const DEFAULT: Self = Self { generation: 0, $($field: $default,)+ };

            /// Names of all knobs, in the order of their declaration.
            pub const FIELDS: &'static [&'static str] = &[$(stringify!($field),)+];

            /// Calls `differs` with the name of every knob whose value is another one in `other`.
            pub fn for_each_difference(&self, other: &Self, differs: &mut dyn FnMut(&'static str)) {
                $(if self.$field != other.$field {
                    differs(stringify!($field));
                })+
            }

            fn check_bounds(&self) -> Result<(), FieldError> {
                $(if !self.$field.is_within(&$kind) {
                    return Err(FieldError::OutOfRange { field: stringify!($field), kind: $kind });
                })+
                Ok(())
            }
        }

        /// One variable per knob, in the order of their declaration.
        pub(crate) const KNOB_VARIABLES: &[EnvVar] = &[$(EnvVar {
            name: $env,
            field: Some(stringify!($field)),
            kind: $kind,
            doc: concat!($($doc,)+),
            apply: |settings, text| {
                settings.policy.$field = Value::parse(text, &$kind)?;
                Ok(())
            },
            show: |settings, out| settings.policy.$field.show(&$kind, out),
        },)+];
    };
}

knobs! {
    /// Blocks that a thread may cache per size class at first.
    cache_blocks: u32 = 256, count(1, 65_536), "HAKMEM_CACHE_BLOCKS";
    /// Bytes that a thread may cache per size class at first; one block is always allowed.
    cache_bytes: u32 = 128 << 10, bytes(KIB, GIB), "HAKMEM_CACHE_BYTES";
    /// Blocks that a thread may cache per size class after growth.
    cache_max_blocks: u32 = 256, count(1, 65_536), "HAKMEM_CACHE_MAX_BLOCKS";
    /// Bytes that a thread may cache per size class after growth.
    cache_max_bytes: u32 = 256 << 10, bytes(KIB, GIB), "HAKMEM_CACHE_MAX_BYTES";
    /// The cache of a class grows from its first to its largest cap while it is in use.
    cache_growth: bool = true, Kind::Switch, "HAKMEM_CACHE_GROWTH";
    /// An idle trim halves the caps of classes that have allocated nothing since the last look at idle classes.
    cache_shrink: bool = true, Kind::Switch, "HAKMEM_CACHE_SHRINK";
    /// Fresh bytes that one refill carves from a slab; at least one block.
    refill_bytes: u32 = 4096, bytes(16, MIB), "HAKMEM_REFILL_BYTES";
    /// Fresh blocks that one refill carves at most.
    refill_max_blocks: u32 = 256, count(1, 65_536), "HAKMEM_REFILL_MAX_BLOCKS";
    /// A refill takes a single block, whatever the two numbers above say (ablation).
    refill_one: bool = false, Kind::Switch, "HAKMEM_REFILL_ONE";
    /// A thread gives the caches of classes that it no longer uses back to their slabs.
    idle_trim: bool = true, Kind::Switch, "HAKMEM_IDLE_TRIM";
    /// Heartbeats between two idle trims of a thread.
    idle_trim_ticks: u32 = 16, count(1, MIB), "HAKMEM_IDLE_TRIM_TICKS";
    /// Allocations of one size class between two heartbeats, the visits of a slow path that also purge what is due.
    heartbeat_allocs: u32 = 4096, count(64, 1 << 24), "HAKMEM_HEARTBEAT_ALLOCS";
    /// Guarded sampling: on average one allocation in this many sits alone between guard pages; 0 is off, 1 is every one that
    /// fits. See docs/sampling.md.
    sample: u32 = 0, count(1, 1 << 24).or_zero(), "HAKMEM_SAMPLE";
    /// Which blocks up to 32 KiB go through thread caches: all (tiny-first), those up to 1 KiB (tiny-only), or none (pool-only).
    route_profile: RouteProfile = RouteProfile::TinyFirst, RouteProfile::KIND, "HAKMEM_ROUTE_PROFILE";
    /// Size classes that go through thread caches, whatever the route profile says.
    route_tiny_classes: u128 = 0, Kind::Classes, "HAKMEM_ROUTE_TINY_CLASSES";
    /// Size classes that take the pool's route, whatever the route profile says.
    route_pool_classes: u128 = 0, Kind::Classes, "HAKMEM_ROUTE_POOL_CLASSES";
    /// Dynamic classes: sizes (bytes) that a program has many live blocks of. A further class serves each, with blocks of that size or
    /// little more, where the fixed classes would round it up by more. See docs/decisions/0009-dynamic-classes.md.
    dynamic_classes: [u32; SIZES] = [0; SIZES], Kind::Sizes { min: 1025, max: 32 * KIB }, "HAKMEM_DYNAMIC_CLASSES";
    /// The free list of an empty slab is walked and counted before another size class may use the slab: one more look at
    /// every block of it. Debug builds always do.
    slab_reuse_guard: bool = false, Kind::Switch, "HAKMEM_SLAB_REUSE_GUARD";
    /// A thread keeps one empty slab per size class up to 10 KiB, to carve it again, instead of returning it.
    keep_empty_slabs: bool = true, Kind::Switch, "HAKMEM_KEEP_EMPTY_SLABS";
    /// Blocks on the pool's route go through the thread's cache all the same, instead of one by one to and from their slab.
    pool_flatten: bool = false, Kind::Switch, "HAKMEM_POOL_FLATTEN";

    /// Remote frees that a thread collects per target slab before it hands them over.
    outbox_blocks: u32 = 16, count(1, 1024), "HAKMEM_OUTBOX_BLOCKS";
    /// Bytes of remote frees that a thread collects per target slab before it hands them over.
    outbox_bytes: u32 = 4096, bytes(16, 16 * MIB), "HAKMEM_OUTBOX_BYTES";
    /// Slabs without an owner are published, and refills adopt them.
    publish_adopt: bool = true, Kind::Switch, "HAKMEM_PUBLISH_ADOPT";
    /// A refill goes through all published slabs of its class for one with free blocks, instead of two, before it takes a fresh slab.
    must_adopt: bool = false, Kind::Switch, "HAKMEM_MUST_ADOPT";
    /// A refill looks for remote frees that nobody announced before it takes a fresh slab (finds lost notifications).
    force_notify: bool = false, Kind::Switch, "HAKMEM_FORCE_NOTIFY";

    /// Bytes of freed runs (32 KiB to 2 MiB) that a thread caches.
    run_cache_bytes: u32 = 2 << 20, bytes(64 * KIB, GIB).or_zero(), "HAKMEM_RUN_CACHE_BYTES";
    /// Freed runs that a thread caches.
    run_cache_runs: u32 = 16, count(0, 64), "HAKMEM_RUN_CACHE_RUNS";
    /// How much larger than the request a cached mid block may be that serves it.
    w_max_mid_permille: u32 = 1600, permille(1000, 4000), "HAKMEM_W_MAX_MID";
    /// How much larger than the request a cached run may be that serves it.
    w_max_large_permille: u32 = 1500, permille(1000, 4000), "HAKMEM_W_MAX_LARGE";
    /// Runs of one size that a refill of the run cache takes in one visit of the pool.
    bundle_runs: u32 = 1, count(1, 16), "HAKMEM_BUNDLE_RUNS";
    /// Capacity of a thread's cache for each class of the mid size groups up to 2, 4, 8, 16 and 32 KiB, in OS pages.
    mid_cap: [u32; SIZE_GROUPS] = [60; SIZE_GROUPS], Kind::Five { min: 0, max: MIB }, "HAKMEM_MID_CAP";
    /// Capacity of the large size groups up to 64, 128, 256 and 512 KiB, and above, in runs that a thread caches.
    large_cap: [u32; SIZE_GROUPS] = [16, 12, 8, 6, 4], Kind::Five { min: 0, max: MIB }, "HAKMEM_LARGE_CAP";
    /// What the capacities of the mid size groups may add up to.
    mid_budget: u32 = 300, count(0, 8 * MIB), "HAKMEM_MID_BUDGET";
    /// What the capacities of the large size groups may add up to.
    large_budget: u32 = 50, count(0, 8 * MIB), "HAKMEM_LARGE_BUDGET";

    /// Bytes of freed big blocks (above 2 MiB) that wait whole for the next one, where `HAKMEM_BIG_RETAIN_MS` or a site rule lets any wait.
    big_retain_bytes: usize = 64 << 20, bytes(2 * MIB, TIB).or_zero(), "HAKMEM_BIG_RETAIN_BYTES";
    /// How long a freed big block waits whole for the next one of its size; 0: its superslabs return to the pool at once, where
    /// they join their neighbours and wait for a purge like all free memory.
    big_retain_ms: u32 = 0, milliseconds(0, 3_600_000).or_never(), "HAKMEM_BIG_RETAIN_MS";
    /// A retained big block serves requests that it exceeds by at most this part of their size.
    big_slack_permille: u32 = 500, permille(0, 1000), "HAKMEM_BIG_SLACK";
    /// Big blocks of at least this size get huge pages.
    big_thp_bytes: usize = 2 << 20, bytes(2 * MIB, TIB).or_zero().or_never(), "HAKMEM_BIG_THP_BYTES";
    /// Address room, in relation to its size, that is kept behind a big block which grew by `realloc`.
    realloc_room_permille: u32 = 1000, permille(0, 16_000), "HAKMEM_REALLOC_ROOM";

    /// How long free memory keeps its pages before they are purged; 0 purges at once.
    purge_delay_ms: u32 = 300, milliseconds(0, 3_600_000).or_never(), "HAKMEM_PURGE_DELAY_MS";
    /// A superslab is purged the moment it is entirely free (ablation).
    eager_free: bool = false, Kind::Switch, "HAKMEM_EAGER_FREE";
    /// Allocation prefers the fullest superslab, so that others empty, instead of the first that fits.
    tiering: bool = true, Kind::Switch, "HAKMEM_TIERING";
    /// Free superslabs that keep their pages when the purge delay has passed. With a delay of 0, or with `eager_free`, pages go before.
    warm_superslabs: u32 = 1, count(0, 65_536), "HAKMEM_WARM_SUPERSLABS";
    /// Superslabs that are made writable at once, at least, when the heap needs a fresh one. They take no memory before they are used.
    prefill_superslabs: u32 = 0, count(0, 1024), "HAKMEM_PREFILL_SUPERSLABS";
    /// Fresh superslabs get huge pages once slabs and runs hold this many bytes.
    thp_heap_bytes: usize = 8 << 20, bytes(0, TIB).or_never(), "HAKMEM_THP_HEAP_BYTES";
    /// A superslab gets huge pages once this many of its 32 slabs are handed out; 0 is never.
    thp_fill_units: u32 = 0, count(0, 32), "HAKMEM_THP_FILL_UNITS";
    /// A `madvise` outside hakmem's own ranges aborts, instead of being skipped, counted and logged once.
    madvise_guard_abort: bool = false, Kind::Switch, "HAKMEM_MADVISE_GUARD_ABORT";
    /// Bytes of slabs and superslabs that may be handed out at most, those that caches keep included; above it allocation fails.
    /// 0 is no limit.
    memory_limit_bytes: usize = 0, bytes(2 * MIB, 256 * TIB).or_zero(), "HAKMEM_MEMORY_LIMIT_BYTES";

    /// A thread that purges when the program is idle: when the program has other threads anyway, never, or always.
    scavenger: Scavenger = Scavenger::Auto, Scavenger::KIND, "HAKMEM_SCAVENGER";
    /// The scavenger stands by while the program holds this many bytes, and purges when as many wait.
    scavenge_min_bytes: usize = 8 << 20, bytes(0, TIB), "HAKMEM_SCAVENGE_MIN_BYTES";
}

impl Default for FrozenPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl FrozenPolicy {
    /// Checks every field against its bounds, and the fields against each other.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn validate(&self) -> Result<(), FieldError> {
        self.check_bounds()?;
        let mut first = None;
        // The repairs on a copy say what does not fit.
        self.clone().repair(&mut |field, with| {
            first.get_or_insert(FieldError::Conflict { field, with });
        });
        first.map_or(Ok(()), Err)
    }

    /// The route profile as one size class sees it: pool-only or tiny-first where the class is listed, else the general one.
    #[must_use]
    pub const fn route_of(&self, class_index: u32) -> RouteProfile {
        if is_member(self.route_pool_classes, class_index) {
            RouteProfile::PoolOnly
        } else if is_member(self.route_tiny_classes, class_index) {
            RouteProfile::TinyFirst
        } else {
            self.route_profile
        }
    }

    /// Makes the fields fit each other and names each one that had to change, with the one it has to fit.
    pub(crate) fn repair(&mut self, changed: &mut dyn FnMut(&'static str, &'static str)) {
        if self.cache_max_blocks < self.cache_blocks {
            self.cache_max_blocks = self.cache_blocks;
            changed("cache_max_blocks", "cache_blocks");
        }
        if self.cache_max_bytes < self.cache_bytes {
            self.cache_max_bytes = self.cache_bytes;
            changed("cache_max_bytes", "cache_bytes");
        }
        if self.route_tiny_classes & self.route_pool_classes != 0 {
            self.route_tiny_classes &= !self.route_pool_classes;
            changed("route_tiny_classes", "route_pool_classes");
        }
        if scale_to_budget(&mut self.mid_cap, self.mid_budget) {
            changed("mid_cap", "mid_budget");
        }
        if scale_to_budget(&mut self.large_cap, self.large_budget) {
            changed("large_cap", "large_budget");
        }
    }
}

const fn is_member(set: u128, class_index: u32) -> bool {
    class_index < u128::BITS && set & (1 << class_index) != 0
}

/// Lowers capacities in proportion until they add up to at most `budget`. True if that was needed.
fn scale_to_budget(caps: &mut [u32; SIZE_GROUPS], budget: u32) -> bool {
    let sum: u64 = caps.iter().map(|cap| u64::from(*cap)).sum();
    if sum <= u64::from(budget) {
        return false;
    }
    for cap in caps {
        // The quotient is at most `cap`, because the budget is below the sum.
        *cap = (u64::from(*cap) * u64::from(budget) / sum) as u32;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        assert_eq!(FrozenPolicy::DEFAULT.validate(), Ok(()));
        assert_eq!(FrozenPolicy::default(), FrozenPolicy::DEFAULT);
    }

    #[test]
    fn a_field_out_of_bounds_is_named() {
        let policy = FrozenPolicy { outbox_blocks: 0, ..FrozenPolicy::DEFAULT };
        let error = policy.validate().unwrap_err();
        assert!(matches!(error, FieldError::OutOfRange { field: "outbox_blocks", .. }));
        assert_eq!(error.to_string(), "outbox_blocks is out of range: number, 1 to 1024");
    }

    #[test]
    fn a_conflict_is_named_and_repaired() {
        let conflicts = [
            FrozenPolicy { cache_blocks: 512, ..FrozenPolicy::DEFAULT },
            FrozenPolicy { cache_max_bytes: 4096, ..FrozenPolicy::DEFAULT },
            FrozenPolicy { route_tiny_classes: 6, route_pool_classes: 4, ..FrozenPolicy::DEFAULT },
            FrozenPolicy { mid_budget: 299, ..FrozenPolicy::DEFAULT },
            FrozenPolicy { large_cap: [0, 0, 0, 0, 51], ..FrozenPolicy::DEFAULT },
        ];
        for conflict in conflicts {
            assert!(matches!(conflict.validate(), Err(FieldError::Conflict { .. })), "{conflict:?}");
            let mut repaired = conflict.clone();
            repaired.repair(&mut |_, _| {});
            assert_eq!(repaired.validate(), Ok(()));
            let mut changes = 0;
            repaired.for_each_difference(&conflict, &mut |_| changes += 1);
            assert_eq!(changes, 1);
        }
    }

    #[test]
    fn capacities_shrink_in_proportion() {
        let mut caps = [10, 20, 30, 40, 0];
        assert!(scale_to_budget(&mut caps, 50));
        assert_eq!(caps, [5, 10, 15, 20, 0]);
        assert!(!scale_to_budget(&mut caps, 50));
        let mut largest = [u32::MAX; SIZE_GROUPS];
        assert!(scale_to_budget(&mut largest, 0));
        assert_eq!(largest, [0; SIZE_GROUPS]);
    }

    #[test]
    fn a_class_may_have_a_route_of_its_own() {
        let route_profile = RouteProfile::TinyOnly;
        let policy = FrozenPolicy {
            route_profile,
            route_tiny_classes: 1 << 3,
            route_pool_classes: 1 << 127,
            ..FrozenPolicy::DEFAULT
        };
        assert_eq!(policy.route_of(3), RouteProfile::TinyFirst);
        assert_eq!(policy.route_of(127), RouteProfile::PoolOnly);
        assert_eq!(policy.route_of(4), RouteProfile::TinyOnly);
        assert_eq!(policy.route_of(128), RouteProfile::TinyOnly);
    }
}
