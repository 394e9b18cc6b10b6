//! The knobs from outside: which steps the search takes, what a step buys, and policies as sets of changes.
//!
//! **Invariants.** No knob is in two dimensions, so the steps of different dimensions never disagree. Every step is a valid policy.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow};
use hakmem_policy::file::parse_policy;
use hakmem_policy::{EnvVar, FrozenPolicy, Settings, variables};

/// What a policy changes of the defaults: knob and value, as its variable spells it.
pub type Change = BTreeMap<&'static str, String>;

/// Knobs that are turned together, and the settings that are tried.
pub struct Dimension {
    /// What it is called.
    pub name: &'static str,
    /// Each one a few knobs with their values. The defaults are the step not taken.
    pub steps: &'static [&'static [(&'static str, &'static str)]],
}

macro_rules! steps_of {
    ($field:literal: $($value:literal),+) => {
        Dimension { name: $field, steps: &[$(&[($field, $value)]),+] }
    };
}

/// What the search turns, those that tend to matter first.
pub const DIMENSIONS: &[Dimension] = &[
    steps_of!("purge_delay_ms": "10", "100", "1000", "5000", "never"),
    steps_of!("thp_heap_bytes": "0", "4M", "16M", "32M", "128M", "never"),
    Dimension {
        name: "caches",
        steps: &[
            &[("cache_blocks", "64"), ("cache_bytes", "32K"), ("cache_max_blocks", "64"), ("cache_max_bytes", "64K")],
            &[
                ("cache_blocks", "128"),
                ("cache_bytes", "64K"),
                ("cache_max_blocks", "128"),
                ("cache_max_bytes", "128K"),
            ],
            &[
                ("cache_blocks", "512"),
                ("cache_bytes", "256K"),
                ("cache_max_blocks", "512"),
                ("cache_max_bytes", "512K"),
            ],
            &[
                ("cache_blocks", "1024"),
                ("cache_bytes", "512K"),
                ("cache_max_blocks", "2048"),
                ("cache_max_bytes", "2M"),
            ],
        ],
    },
    steps_of!("refill_bytes": "1K", "8K", "16K", "64K"),
    steps_of!("big_retain_ms": "50", "500", "never"),
    steps_of!("big_thp_bytes": "4M", "32M", "never"),
    steps_of!("run_cache_bytes": "0", "512K", "8M"),
    steps_of!("warm_superslabs": "0", "4", "16"),
    Dimension {
        name: "idle trim",
        steps: &[
            &[("idle_trim_ticks", "4")],
            &[("idle_trim_ticks", "64")],
            &[("idle_trim", "0"), ("cache_shrink", "0")],
        ],
    },
    Dimension {
        name: "outbox",
        steps: &[
            &[("outbox_blocks", "4"), ("outbox_bytes", "1K")],
            &[("outbox_blocks", "64"), ("outbox_bytes", "16K")],
            &[("outbox_blocks", "256"), ("outbox_bytes", "64K")],
        ],
    },
    Dimension {
        name: "scavenger",
        steps: &[
            &[("scavenge_min_bytes", "2M")],
            &[("scavenge_min_bytes", "32M")],
            &[("scavenger", "on"), ("scavenge_min_bytes", "1M")],
            &[("scavenger", "off")],
        ],
    },
    steps_of!("heartbeat_allocs": "1024", "16384"),
    steps_of!("keep_empty_slabs": "0"),
    steps_of!("thp_fill_units": "8", "16", "24", "30"),
    steps_of!("prefill_superslabs": "4"),
    steps_of!("realloc_room_permille": "0", "4000"),
    steps_of!("tiering": "0"),
    steps_of!("w_max_large_permille": "1250", "2000"),
    steps_of!("w_max_mid_permille": "1250", "2000"),
    steps_of!("bundle_runs": "4"),
    Dimension {
        name: "capacities",
        steps: &[
            &[("mid_cap", "15,15,15,15,15"), ("large_cap", "4,3,2,2,1")],
            &[
                ("mid_cap", "240,240,240,240,240"),
                ("mid_budget", "1200"),
                ("large_cap", "32,24,16,12,8"),
                ("large_budget", "100"),
            ],
        ],
    },
];

/// Knobs that are meant for each other: a policy made of several takes each group from one of them.
pub const GROUPS: &[&[&str]] = &[
    &["cache_blocks", "cache_bytes", "cache_max_blocks", "cache_max_bytes"],
    &["mid_cap", "mid_budget"],
    &["large_cap", "large_budget"],
    &["route_profile", "route_tiny_classes", "route_pool_classes"],
    &["outbox_blocks", "outbox_bytes"],
    &["idle_trim", "idle_trim_ticks", "cache_shrink"],
    &["scavenger", "scavenge_min_bytes"],
];

/// What it means to turn a knob up, and down; of a switch, on and off.
const EFFECTS: &[(&str, &str, &str)] = &[
    (
        "purge_delay_ms",
        "fewer faults when freed memory is wanted again, and more memory meanwhile",
        "less memory after a peak, and faults when it is wanted again",
    ),
    (
        "thp_heap_bytes",
        "huge pages later, so that a small heap stays small",
        "huge pages earlier: far fewer faults and TLB misses, and memory in steps of 2 MiB",
    ),
    ("thp_fill_units", "huge pages only for superslabs that fill up", "huge pages for superslabs that are hardly used"),
    (
        "cache_blocks",
        "fewer visits of the slabs, and more memory in each thread",
        "less memory in each thread, and more visits of the slabs",
    ),
    (
        "cache_bytes",
        "fewer visits of the slabs, and more memory in each thread",
        "less memory in each thread, and more visits of the slabs",
    ),
    ("cache_max_blocks", "busy classes may keep more in their thread", "busy classes go to their slabs more often"),
    ("cache_max_bytes", "busy classes may keep more in their thread", "busy classes go to their slabs more often"),
    (
        "refill_bytes",
        "fewer refills, and pages touched before they are needed",
        "pages are touched later, by more refills",
    ),
    (
        "big_retain_ms",
        "big blocks come back without faults, and their memory is kept",
        "memory of big blocks is given back sooner",
    ),
    ("big_thp_bytes", "huge pages for the largest blocks only", "huge pages for smaller big blocks too"),
    (
        "run_cache_bytes",
        "fewer visits of the pool for blocks of 32 KiB to 2 MiB, and more memory in each thread",
        "less memory in each thread, and more visits of the pool for blocks of 32 KiB to 2 MiB",
    ),
    (
        "warm_superslabs",
        "more free memory keeps its pages whatever the purge delay",
        "less free memory keeps its pages",
    ),
    ("idle_trim_ticks", "idle classes keep their blocks longer", "idle classes give their blocks back sooner"),
    ("idle_trim", "idle classes give their blocks back", "idle classes keep their blocks"),
    ("cache_shrink", "caches of idle classes start small again", "caches never shrink"),
    (
        "outbox_blocks",
        "remote frees travel in larger batches: less traffic between processors, later reuse",
        "remote frees come home sooner, in smaller batches",
    ),
    (
        "outbox_bytes",
        "remote frees travel in larger batches: less traffic between processors, later reuse",
        "remote frees come home sooner, in smaller batches",
    ),
    ("heartbeat_allocs", "purging is looked at less often", "purging is looked at more often"),
    (
        "keep_empty_slabs",
        "an empty slab is carved again without a visit of the pool",
        "empty slabs are free for other classes",
    ),
    ("prefill_superslabs", "memory is committed ahead of need", "memory is committed when it is needed"),
    (
        "realloc_room_permille",
        "blocks that grow stay where they are more often",
        "less address space behind blocks that grow",
    ),
    ("tiering", "the fullest superslab serves first, so that others empty", "the first superslab that fits serves"),
    (
        "w_max_large_permille",
        "more requests of 32 KiB and more are served by a larger cached block, which is wasted in part",
        "cached blocks of 32 KiB and more serve closer sizes only: less waste, more visits of the pool",
    ),
    (
        "w_max_mid_permille",
        "more requests of 1 to 32 KiB are served by a larger cached block, which is wasted in part",
        "cached blocks of 1 to 32 KiB serve closer sizes only: less waste, more visits of the slabs",
    ),
    (
        "bundle_runs",
        "fewer visits of the pool for blocks of 32 KiB to 2 MiB, and more of them held ready",
        "fewer blocks of 32 KiB to 2 MiB are held ready, and more visits of the pool",
    ),
    ("mid_cap", "threads cache more blocks of 1 to 32 KiB", "threads cache fewer blocks of 1 to 32 KiB"),
    ("large_cap", "threads cache more blocks of 32 KiB to 2 MiB", "threads cache fewer blocks of 32 KiB to 2 MiB"),
    (
        "mid_budget",
        "capacities of blocks up to 32 KiB may add up to more",
        "capacities of blocks up to 32 KiB add up to less",
    ),
    ("large_budget", "capacities above 32 KiB may add up to more", "capacities above 32 KiB add up to less"),
    (
        "scavenge_min_bytes",
        "the purging thread stands by only in larger programs",
        "the purging thread stands by in smaller programs too",
    ),
];

/// What a change of this knob buys and costs, where that is known; of capacities, where they add up to more or to less.
pub fn effect(field: &str, before: &str, now: &str) -> Option<&'static str> {
    let (_, up, down) = EFFECTS.iter().find(|(known, ..)| *known == field)?;
    match magnitude(now)?.partial_cmp(&magnitude(before)?)? {
        Ordering::Greater => Some(up),
        Ordering::Less => Some(down),
        Ordering::Equal => None,
    }
}

/// A value as a number to compare: `64K`, `never`, `on`; of several in a list, their sum.
fn magnitude(text: &str) -> Option<f64> {
    if text.contains(',') {
        return text.split(',').map(|number| magnitude(number.trim())).sum();
    }
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (digits, suffix) = text.split_at_checked(digits)?;
    let factor = match suffix {
        "never" => return Some(f64::INFINITY),
        "true" | "on" => return Some(1.0),
        "false" | "off" => return Some(0.0),
        "" | "ms" => 1.0,
        "s" => 1e3,
        "K" => 1024.0,
        "M" => 1_048_576.0,
        "G" => 1_073_741_824.0,
        "T" => 1_099_511_627_776.0,
        _ => return None,
    };
    digits.parse::<f64>().ok().map(|number| number * factor)
}

/// Whether two texts spell the same value: `65536` and `64K`.
pub fn is_same(left: &str, right: &str) -> bool {
    let is_equal =
        |left: &str, right: &str| left == right || magnitude(left).is_some_and(|value| magnitude(right) == Some(value));
    let (mut left, mut right) = (left.split(','), right.split(','));
    loop {
        match (left.next(), right.next()) {
            (Some(one), Some(other)) if is_equal(one.trim(), other.trim()) => {}
            (one, other) => return one.is_none() && other.is_none(),
        }
    }
}

/// The variable of a knob.
pub fn variable_of(field: &str) -> Option<&'static EnvVar> {
    variables().find(|variable| variable.field == Some(field))
}

/// The value of a knob, as its variable spells it.
pub fn value_of(policy: &FrozenPolicy, field: &str) -> String {
    let settings = Settings { policy: policy.clone(), ..Settings::DEFAULT };
    let mut text = String::new();
    let _infallible = variable_of(field).map(|variable| variable.write_value(&settings, &mut text));
    text
}

/// What `policy` changes of the defaults.
pub fn change_of(policy: &FrozenPolicy) -> Change {
    let mut change = Change::new();
    policy.for_each_difference(&FrozenPolicy::DEFAULT, &mut |field| _ = change.insert(field, value_of(policy, field)));
    change
}

/// The defaults with `change`.
pub fn policy_of(change: &Change) -> Result<FrozenPolicy> {
    let lines: Vec<String> = change.iter().map(|(field, value)| format!("{field} = \"{value}\"")).collect();
    let text = format!("version = 1\n[knobs]\n{}\n", lines.join("\n"));
    parse_policy(text.as_bytes(), &FrozenPolicy::DEFAULT)
        .map_err(|error| anyhow!("{error}"))
        .with_context(|| format!("no policy has {}", named(change)))
}

/// A step as a change.
pub fn step(settings: &[(&'static str, &'static str)]) -> Change {
    settings.iter().map(|(field, value)| (*field, (*value).to_owned())).collect()
}

/// `purge_delay_ms=1000 warm_superslabs=4`, or `defaults`.
pub fn named(change: &Change) -> String {
    let parts: Vec<String> = change.iter().map(|(field, value)| format!("{field}={value}")).collect();
    if parts.is_empty() { "defaults".to_owned() } else { parts.join(" ") }
}

/// The knobs that are turned together with this one.
pub fn group_of(field: &'static str) -> Vec<&'static str> {
    let group = GROUPS.iter().find(|group| group.contains(&field));
    group.map_or_else(|| vec![field], |group| group.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_step_is_a_valid_policy_that_is_not_the_default() {
        for dimension in DIMENSIONS {
            for settings in dimension.steps {
                let change = step(settings);
                let policy = policy_of(&change).unwrap();
                assert_ne!(policy, FrozenPolicy::DEFAULT, "{}", named(&change));
                assert!(change_of(&policy).keys().all(|field| change.contains_key(field)), "{}", named(&change));
            }
        }
    }

    #[test]
    fn no_knob_is_in_two_dimensions_or_in_two_groups() {
        let mut owner = BTreeMap::new();
        for dimension in DIMENSIONS {
            for (field, _) in dimension.steps.iter().copied().flatten() {
                assert_eq!(*owner.entry(field).or_insert(dimension.name), dimension.name, "{field}");
                assert!(variable_of(field).is_some(), "{field}");
            }
        }
        let grouped: Vec<_> = GROUPS.iter().copied().flatten().collect();
        assert_eq!(grouped.iter().collect::<BTreeSet<_>>().len(), grouped.len());
    }

    #[test]
    fn all_steps_together_fit_each_other() {
        // One step of each dimension, the first ones and then the last ones: what the search may come to.
        for last in [false, true] {
            let mut all = Change::new();
            for dimension in DIMENSIONS {
                let chosen = if last { dimension.steps.last() } else { dimension.steps.first() };
                all.extend(step(chosen.unwrap()));
            }
            policy_of(&all).unwrap();
        }
    }

    #[test]
    fn every_knob_of_the_search_says_what_it_buys() {
        for (field, value) in DIMENSIONS.iter().flat_map(|dimension| dimension.steps.iter().copied().flatten()) {
            let before = value_of(&FrozenPolicy::DEFAULT, field);
            let is_choice = matches!(variable_of(field).unwrap().kind, hakmem_policy::Kind::Choice(_));
            assert!(effect(field, &before, value).is_some() || is_choice, "{field}: {before} -> {value}");
        }
    }

    #[test]
    fn a_policy_and_its_change_say_the_same() {
        let policy = FrozenPolicy { mid_cap: [1, 2, 3, 4, 5], purge_delay_ms: u32::MAX, ..FrozenPolicy::DEFAULT };
        let change = change_of(&policy);
        assert_eq!(named(&change), "mid_cap=1,2,3,4,5 purge_delay_ms=never");
        assert_eq!(policy_of(&change).unwrap(), policy);
        assert_eq!(named(&Change::new()), "defaults");
        let wrong = Change::from([("cache_blocks", "0".to_owned())]);
        assert!(format!("{:#}", policy_of(&wrong).unwrap_err()).contains("out of range"));
    }

    #[test]
    fn up_and_down_mean_different_things() {
        let up = effect("purge_delay_ms", "300", "never").unwrap();
        let down = effect("purge_delay_ms", "300", "10").unwrap();
        assert_ne!(up, down);
        assert_eq!(effect("thp_heap_bytes", "32M", "128M"), effect("thp_heap_bytes", "512K", "1M"));
        assert_eq!(effect("route_profile", "a", "b"), None);
        // Other capacities that add up to the same are neither more nor less.
        assert_eq!(effect("mid_cap", "60,60,60,60,60", "100,60,60,60,20"), None);
        assert_ne!(effect("mid_cap", "60,60,60,60,60", "15,15,15,15,15"), effect("mid_cap", "1,1,1,1,1", "9,9,9,9,9"));
    }

    #[test]
    fn a_value_may_be_spelled_in_several_ways() {
        assert!(is_same("65536", "64K") && is_same("1,2,1K", "1, 2, 1024") && is_same("auto", "auto"));
        assert!(!is_same("1,2", "2,1") && !is_same("1,2", "1,2,3") && !is_same("auto", "on"));
    }
}
