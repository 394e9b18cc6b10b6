//! Everything the environment can set: the boot policy, the choices with names, and the profiles.
//!
//! **Invariants.** A profile's policy is valid; a profile is a delta of the default and nothing else.

use crate::knobs::FrozenPolicy;
use crate::value::{Kind, Value, ValueError};
use core::fmt::{self, Write};

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            pub(crate) const KIND: Kind = Kind::Choice(&[$($text,)+]);

            /// The name as a variable spells it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// The one with this name; case does not matter, and `_` equals `-`.
            #[must_use]
            pub fn from_name(name: &[u8]) -> Option<Self> {
                Self::ALL.iter().copied().find(|choice| is_same_name(choice.name().as_bytes(), name))
            }
        }

        impl Value for $name {
            fn parse(text: &[u8], _kind: &Kind) -> Result<Self, ValueError> {
                Self::from_name(text).ok_or(ValueError::Malformed)
            }

            fn is_within(&self, _kind: &Kind) -> bool {
                true
            }

            fn show(&self, _kind: &Kind, out: &mut dyn Write) -> fmt::Result {
                out.write_str(self.name())
            }
        }
    };
}

choice! {
    /// Which blocks up to 32 KiB go through thread caches, and which take the pool's route to the slabs themselves.
    RouteProfile {
        /// All go through thread caches.
        TinyFirst = "tiny-first",
        /// Those up to 1 KiB go through thread caches, mid blocks take the pool's route.
        TinyOnly = "tiny-only",
        /// All take the pool's route.
        PoolOnly = "pool-only",
    }
}

choice! {
    /// When the thread that purges an idle program's memory may be started.
    Scavenger {
        /// When much is purgeable and the program already has other threads.
        Auto = "auto",
        /// Never.
        Off = "off",
        /// Whenever much is purgeable.
        On = "on",
    }
}

choice! {
    /// Which pages a site rule asks for.
    Pages {
        /// Small ones: for blocks of which little is touched.
        Small = "small",
        /// Huge ones: for blocks that are filled.
        Huge = "huge",
    }
}

choice! {
    /// What the preload library does with a pointer that is not hakmem's.
    Foreign {
        /// Hands it to the next allocator if that one has handed out anything yet, else reports it and aborts.
        Auto = "auto",
        /// Hands it to the next allocator.
        Pass = "pass",
        /// Reports it and aborts.
        Reject = "reject",
    }
}

choice! {
    /// How LEARN chooses among whole policies, once no single step is left.
    Strategies {
        /// There are none to choose from.
        Off = "off",
        /// Elo ratings from games.
        Elo = "elo",
        /// UCB1.
        Ucb1 = "ucb1",
        /// UCB whose rewards fade.
        DiscountedUcb = "discounted-ucb",
        /// UCB over the latest rewards.
        SlidingUcb = "sliding-ucb",
        /// Thompson sampling.
        Thompson = "thompson",
        /// Chance.
        Random = "random",
    }
}

choice! {
    /// Whether policy changes while the program runs.
    Mode {
        /// The policy stays, and no thread looks.
        Frozen = "FROZEN",
        /// A thread measures and changes nothing.
        Observe = "OBSERVE",
        /// A thread measures and publishes better policies.
        Learn = "LEARN",
    }
}

choice! {
    /// A named starting point; single variables override it.
    Profile {
        /// The defaults.
        Default = "DEFAULT",
        /// Mixed small sizes (16 to 1024 bytes), the cautious one: pool flatten off, caches that start at a quarter
        /// and grow to half of the default's, and a
        /// `madvise` outside hakmem's ranges aborts.
        MixedTinyv3C7Safe = "MIXED_TINYV3_C7_SAFE",
        /// One narrow band of sizes under load (257 to 768 bytes): all blocks on the pool's route, flattened; caches start
        /// where they otherwise end and grow to twice that; refills of 16 KiB.
        C6HeavyLegacyPoolv1 = "C6_HEAVY_LEGACY_POOLV1",
        /// For looking at the front: ring and exit statistics on; caches neither trimmed nor shrunk, so that runs compare.
        DebugTinyFrontPerf = "DEBUG_TINY_FRONT_PERF",
    }
}

fn is_same_name(known: &[u8], given: &[u8]) -> bool {
    let plain = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    known.iter().map(plain).eq(given.iter().map(plain))
}

/// What the environment says. `'a` is the life of its bytes: texts such as paths are not copied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings<'a> {
    /// The boot policy.
    pub policy: FrozenPolicy,
    /// The profile it started from.
    pub profile: Profile,
    /// Whether policy changes while the program runs.
    pub mode: Mode,
    /// Policy file to start from; none if it was refused.
    pub policy_file: Option<&'a [u8]>,
    /// File for what was learned, at exit; `%p` in it stands for the process id.
    pub policy_out: Option<&'a [u8]>,
    /// Signal that freezes the policy; 0 is none.
    pub freeze_signal: u32,
    /// How long a window of observation lasts at most.
    pub learn_window_ms: u32,
    /// Allocations after which a window of observation ends.
    pub learn_window_allocs: u32,
    /// How whole policies are chosen.
    pub learn_strategies: Strategies,
    /// Capacities are steered with integral and derivative terms, too.
    pub learn_cap_terms: bool,
    /// Weight of memory in the score, in thousandths; time and page faults have the rest.
    pub learn_memory_permille: u32,
    /// In OBSERVE and LEARN one allocation of a class in this many is watched; 0 is as many as cost little, the largest value none.
    pub watch: u32,
    /// The policy file's site rules are in force.
    pub site_rules: bool,
    /// Bytes of the window to reserve; 0 lets the box decide.
    pub window_bytes: usize,
    /// Statistics as text on stderr at exit.
    pub stats: bool,
    /// Statistics of the superslab box on stderr at exit.
    pub ss_os_stats: bool,
    /// File for statistics as JSON at exit; `%p` in it stands for the process id.
    pub stats_file: Option<&'a [u8]>,
    /// SIGUSR2 writes a dump.
    pub dump_signal: bool,
    /// Folder for dumps.
    pub dump_dir: Option<&'a [u8]>,
    /// Events at the adoption boundary are recorded.
    pub tiny_ring: bool,
    /// What the preload library does with a pointer that is not hakmem's.
    pub foreign: Foreign,
    /// The hardened level.
    pub hardened: bool,
    /// At the hardened level: bytes of freed blocks per size class that wait before they are reused.
    pub quarantine_bytes: usize,
    /// At the hardened level: freed blocks per size class that wait.
    pub quarantine_blocks: usize,
    /// At the hardened level: guards that stand at a time; 0 goes by the mappings that the kernel allows.
    pub guards: usize,
    /// Guarded samples that there can be at a time.
    pub sample_slots: u32,
    /// Says at start what runs.
    pub verbose: bool,
}

impl Settings<'_> {
    /// What an empty environment says.
    pub const DEFAULT: Self = Self {
        policy: FrozenPolicy::DEFAULT,
        profile: Profile::Default,
        mode: Mode::Frozen,
        policy_file: None,
        policy_out: None,
        freeze_signal: 0,
        learn_window_ms: 100,
        learn_window_allocs: 1 << 18,
        learn_strategies: Strategies::Off,
        learn_cap_terms: false,
        learn_memory_permille: 300,
        watch: 0,
        site_rules: true,
        window_bytes: 0,
        stats: false,
        ss_os_stats: false,
        stats_file: None,
        dump_signal: false,
        dump_dir: None,
        tiny_ring: false,
        foreign: Foreign::Auto,
        hardened: cfg!(feature = "hardened"),
        quarantine_bytes: 512 << 10,
        quarantine_blocks: 2048,
        guards: 0,
        sample_slots: 256,
        verbose: false,
    };
}

impl Default for Settings<'_> {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Profile {
    /// What the profile sets when no other variable is there.
    #[must_use]
    pub const fn settings(self) -> Settings<'static> {
        let mut settings = Settings::DEFAULT;
        settings.profile = self;
        match self {
            Self::Default => {}
            Self::MixedTinyv3C7Safe => {
                settings.policy.pool_flatten = false;
                settings.policy.cache_blocks = 64;
                settings.policy.cache_bytes = 32 << 10;
                settings.policy.cache_max_blocks = 128;
                settings.policy.cache_max_bytes = 128 << 10;
                settings.policy.madvise_guard_abort = true;
            }
            Self::C6HeavyLegacyPoolv1 => {
                settings.policy.route_profile = RouteProfile::PoolOnly;
                settings.policy.pool_flatten = true;
                settings.policy.cache_blocks = 256;
                settings.policy.cache_bytes = 256 << 10;
                settings.policy.cache_max_blocks = 512;
                settings.policy.cache_max_bytes = 512 << 10;
                settings.policy.refill_bytes = 16 << 10;
            }
            Self::DebugTinyFrontPerf => {
                settings.policy.idle_trim = false;
                settings.policy.cache_shrink = false;
                settings.tiny_ring = true;
                settings.stats = true;
            }
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed_knobs(profile: Profile) -> Vec<&'static str> {
        let mut changed = Vec::new();
        profile.settings().policy.for_each_difference(&FrozenPolicy::DEFAULT, &mut |field| changed.push(field));
        changed
    }

    #[test]
    fn every_profile_has_a_valid_policy_and_its_own_name() {
        for profile in Profile::ALL {
            let settings = profile.settings();
            assert_eq!(settings.policy.validate(), Ok(()), "{profile:?}");
            assert_eq!(settings.profile, *profile);
            assert_eq!(Profile::from_name(profile.name().as_bytes()), Some(*profile));
        }
    }

    #[test]
    fn profiles_are_small_deltas_of_the_default() {
        assert_eq!(changed_knobs(Profile::Default), [""; 0]);
        assert_eq!(
            changed_knobs(Profile::MixedTinyv3C7Safe),
            ["cache_blocks", "cache_bytes", "cache_max_blocks", "cache_max_bytes", "madvise_guard_abort"]
        );
        assert_eq!(changed_knobs(Profile::C6HeavyLegacyPoolv1).len(), 6);
        assert_eq!(changed_knobs(Profile::DebugTinyFrontPerf), ["cache_shrink", "idle_trim"]);
    }

    #[test]
    fn flatten_belongs_to_the_legacy_pool_profile_alone() {
        for profile in Profile::ALL {
            let policy = profile.settings().policy;
            let is_legacy = *profile == Profile::C6HeavyLegacyPoolv1;
            assert_eq!(policy.pool_flatten, is_legacy);
            // Flatten without the pool's route would be a switch that nothing reads.
            assert_eq!(policy.route_profile == RouteProfile::PoolOnly, is_legacy);
        }
    }

    #[test]
    fn the_front_profile_turns_ring_and_statistics_on() {
        let settings = Profile::DebugTinyFrontPerf.settings();
        assert!(settings.tiny_ring && settings.stats);
    }

    #[test]
    fn names_ignore_case_and_the_kind_of_dash() {
        assert_eq!(RouteProfile::from_name(b"Tiny_Only"), Some(RouteProfile::TinyOnly));
        assert_eq!(Profile::from_name(b"mixed-tinyv3-c7-safe"), Some(Profile::MixedTinyv3C7Safe));
        assert_eq!(RouteProfile::from_name(b"tiny"), None);
        assert_eq!(RouteProfile::from_name(b""), None);
    }
}
