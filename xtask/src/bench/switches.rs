//! The switches that `cargo xtask sweep` turns, as data.

/// One switch and what it is set to beside its default.
pub struct Switch {
    /// The variable.
    pub variable: &'static str,
    /// Values to try; several variables that only make sense together stand in one text.
    pub values: &'static [&'static str],
}

const fn switch(variable: &'static str, values: &'static [&'static str]) -> Switch {
    Switch { variable, values }
}

/// What names a layout instead of a variable: hakmem built with the feature `ablation-VALUE`.
pub const LAYOUT: &str = "LAYOUT";

/// All of them, in the order of docs/env-vars.md. No value is the default.
pub const SWITCHES: &[Switch] = &[
    switch("HAKMEM_PROFILE", &["MIXED_TINYV3_C7_SAFE", "C6_HEAVY_LEGACY_POOLV1"]),
    switch("HAKMEM_MODE", &["OBSERVE", "LEARN"]),
    // Caps of the thread cache.
    switch("HAKMEM_CACHE_BLOCKS", &["32", "1024 HAKMEM_CACHE_MAX_BLOCKS=1024"]),
    switch("HAKMEM_CACHE_BYTES", &["16K HAKMEM_CACHE_MAX_BYTES=32K", "1M HAKMEM_CACHE_MAX_BYTES=1M"]),
    switch("HAKMEM_CACHE_GROWTH", &["0"]),
    switch("HAKMEM_CACHE_SHRINK", &["0"]),
    // Refill sizes.
    switch("HAKMEM_REFILL_BYTES", &["1K", "16K", "64K"]),
    switch("HAKMEM_REFILL_MAX_BLOCKS", &["16"]),
    switch("HAKMEM_REFILL_ONE", &["1"]),
    switch("HAKMEM_IDLE_TRIM", &["0"]),
    switch("HAKMEM_IDLE_TRIM_TICKS", &["4", "64"]),
    switch("HAKMEM_HEARTBEAT_ALLOCS", &["1024", "16384"]),
    // Routes.
    switch(
        "HAKMEM_ROUTE_PROFILE",
        &["tiny-only", "pool-only", "tiny-only HAKMEM_POOL_FLATTEN=1", "pool-only HAKMEM_POOL_FLATTEN=1"],
    ),
    switch("HAKMEM_SLAB_REUSE_GUARD", &["1"]),
    switch("HAKMEM_KEEP_EMPTY_SLABS", &["0"]),
    // Remote frees and adoption.
    switch("HAKMEM_OUTBOX_BLOCKS", &["1", "4", "64"]),
    switch("HAKMEM_OUTBOX_BYTES", &["1K", "16K"]),
    switch("HAKMEM_PUBLISH_ADOPT", &["0"]),
    switch("HAKMEM_MUST_ADOPT", &["1"]),
    switch("HAKMEM_FORCE_NOTIFY", &["1"]),
    // Mid and large blocks.
    switch("HAKMEM_RUN_CACHE_BYTES", &["0", "8M"]),
    switch("HAKMEM_W_MAX_MID", &["1000", "2000"]),
    switch("HAKMEM_W_MAX_LARGE", &["1000", "2000"]),
    switch("HAKMEM_BUNDLE_RUNS", &["4"]),
    // Big blocks.
    switch("HAKMEM_BIG_RETAIN_MS", &["20", "500", "500 HAKMEM_BIG_RETAIN_BYTES=256M"]),
    switch("HAKMEM_BIG_THP_BYTES", &["4M", "16M", "never"]),
    switch("HAKMEM_REALLOC_ROOM", &["0", "4000"]),
    // What is given back, and when.
    switch("HAKMEM_PURGE_DELAY_MS", &["0", "50", "1000", "never"]),
    switch("HAKMEM_EAGER_FREE", &["1"]),
    switch("HAKMEM_TIERING", &["0"]),
    switch("HAKMEM_WARM_SUPERSLABS", &["0", "4", "16"]),
    switch("HAKMEM_PREFILL_SUPERSLABS", &["2"]),
    switch("HAKMEM_THP_HEAP_BYTES", &["0", "32M", "128M", "never"]),
    switch("HAKMEM_THP_FILL_UNITS", &["16"]),
    switch("HAKMEM_SCAVENGER", &["off", "on"]),
    switch("HAKMEM_SCAVENGE_MIN_BYTES", &["1M", "32M"]),
    // Where a free looks (docs/decisions/0016-where-a-free-looks.md).
    switch(LAYOUT, &["slab-tail", "object-header"]),
];

/// Benchmarks of the Rust suite that a sweep runs unless the caller names others, with the percent of their usual operations that take
/// about a tenth of a second: few, and each with something to lose by some switch.
pub const BENCHES: &[(&str, u64)] = &[
    ("pair-dyn", 20),
    ("replace200k", 20),
    ("batch1000-random", 30),
    ("batch100k-random", 15),
    ("mixed400-8k-64k", 30),
    ("producer-consumer", 50),
    ("spawn", 30),
    ("large", 50),
    ("json", 60),
    ("btree", 25),
    ("fragmentation", 40),
];

/// The same of the preload suite.
pub const PROGRAMS: &[&str] = &["dot", "generations", "batches-threads", "crossing-64k", "large", "growth", "phases"];

#[cfg(test)]
mod tests {
    use super::super::programs::programs;
    use super::*;

    #[test]
    fn the_programs_of_a_sweep_are_in_the_suite() {
        assert!(PROGRAMS.iter().all(|name| programs().any(|program| program.name == *name)));
    }

    #[test]
    fn every_switch_is_a_variable_that_hakmem_knows() {
        let known = hakmem_policy::env_vars_markdown();
        let words = SWITCHES.iter().flat_map(|switch| switch.values).flat_map(|value| value.split(' ').skip(1));
        let others = words.filter_map(|word| word.split('=').next());
        let variables = SWITCHES.iter().map(|switch| switch.variable).filter(|name| *name != LAYOUT);
        for name in variables.chain(others) {
            assert!(known.contains(&format!("| `{name}` |")), "{name}");
        }
    }
    #[test]
    fn no_switch_is_turned_to_where_it_stands() {
        let known = hakmem_policy::env_vars_markdown();
        for switch in SWITCHES.iter().filter(|switch| switch.variable != LAYOUT) {
            let row = known.lines().find(|line| line.starts_with(&format!("| `{}` |", switch.variable))).unwrap();
            let default = row.split('|').nth(3).unwrap().trim().trim_matches('`');
            assert!(!switch.values.contains(&default), "{}={default}", switch.variable);
        }
    }

    #[test]
    fn every_layout_is_a_feature() {
        let manifest = include_str!("../../../crates/preload/Cargo.toml");
        let layouts = SWITCHES.iter().filter(|switch| switch.variable == LAYOUT).flat_map(|switch| switch.values);
        assert!(layouts.clone().count() > 1);
        for layout in layouts {
            assert!(manifest.contains(&format!("\nablation-{layout} = ")), "{layout}");
        }
    }
}
