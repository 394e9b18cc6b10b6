//! What the soak asks of hakmem: statistics, `collect`, another policy. From the crate when it is compiled in, else through
//! the `hak_*` API of the library that is preloaded.

pub use imp::{collect, for_each, switch, switch_back};

/// One statistic.
pub fn value(wanted: &str) -> u64 {
    let mut found = None;
    for_each(&mut |name, value| {
        if name == wanted {
            found = Some(value);
        }
    });
    found.unwrap_or_else(|| crate::shared::fail("a statistic is missing"))
}

#[cfg(feature = "hakmem")]
mod imp {
    use hakmem::{FrozenPolicy, Profile};
    use hakmem_testkit::Random;

    use crate::shared::fail;

    /// Calls `visit` with every statistic.
    pub fn for_each(visit: &mut dyn FnMut(&'static str, u64)) {
        hakmem::stats().for_each(visit);
    }

    /// Gives back what is free.
    pub fn collect() {
        hakmem::collect();
    }

    /// The policy of the start, with a limit on memory (0 for none).
    pub fn switch_back(memory_limit_bytes: u64) {
        publish(&FrozenPolicy { memory_limit_bytes: memory_limit_bytes as usize, ..FrozenPolicy::DEFAULT });
    }

    /// Some other policy: a profile, and knobs turned at random.
    pub fn switch(random: &mut Random) {
        let profile = Profile::ALL[random.below(Profile::ALL.len())];
        let mut policy = profile.settings().policy;
        for _ in 0..random.below(6) {
            turn(&mut policy, random);
        }
        publish(&policy);
    }

    fn turn(policy: &mut FrozenPolicy, random: &mut Random) {
        let yes = random.below(2) == 0;
        let other = Profile::ALL[random.below(Profile::ALL.len())].settings().policy;
        match random.below(22) {
            0 => policy.purge_delay_ms = [0, 1, 50, 300, 2000][random.below(5)],
            1 => policy.eager_free = yes,
            2 => policy.tiering = yes,
            3 => policy.warm_superslabs = random.below(8) as u32,
            4 => policy.prefill_superslabs = random.below(4) as u32,
            5 => policy.publish_adopt = yes,
            6 => policy.must_adopt = yes,
            7 => policy.force_notify = yes,
            8 => policy.keep_empty_slabs = yes,
            9 => policy.pool_flatten = yes,
            10 => policy.route_profile = other.route_profile,
            11 => policy.route_pool_classes = u128::from(random.next()) & ((1 << 60) - 1),
            12 => policy.slab_reuse_guard = yes,
            13 => policy.refill_one = yes,
            14 => {
                policy.outbox_blocks = 1 + random.below(64) as u32;
                policy.outbox_bytes = 64 << random.below(12);
            }
            15 => {
                policy.run_cache_bytes = [0, 1 << 20, 8 << 20][random.below(3)];
                policy.run_cache_runs = random.below(64) as u32;
            }
            16 => policy.bundle_runs = 1 + random.below(8) as u32,
            17 => {
                policy.big_retain_bytes = [0, 8 << 20, 64 << 20, 128 << 20][random.below(4)];
                policy.big_retain_ms = [0, 100, 500, 3000][random.below(4)];
            }
            18 => policy.idle_trim_ticks = 1 + random.below(32) as u32,
            19 => policy.heartbeat_allocs = 64 << random.below(10),
            20 => {
                policy.thp_heap_bytes = [0, 32 << 20, usize::MAX][random.below(3)];
                policy.thp_fill_units = random.below(33) as u32;
            }
            _ => policy.scavenge_min_bytes = [0, 4 << 20, 32 << 20][random.below(3)],
        }
    }

    fn publish(policy: &FrozenPolicy) {
        if let Err(error) = hakmem::publish_policy(policy) {
            fail(&format!("a policy was refused: {error}: {policy:?}"));
        }
    }
}

#[cfg(not(feature = "hakmem"))]
mod imp {
    use core::ffi::{CStr, c_char, c_int, c_void};

    use hakmem_testkit::Random;

    use crate::shared::fail;

    const MAGIC: u32 = 0x4841_4B4D;
    const KEEP: u64 = u64::MAX;
    const PROFILES: [&CStr; 3] = [c"DEFAULT", c"MIXED_TINYV3_C7_SAFE", c"C6_HEAVY_LEGACY_POOLV1"];
    const NAMES: [&str; 14] = [
        "live_bytes",
        "committed_bytes",
        "cached_bytes",
        "peak_rss_bytes",
        "allocs",
        "refills",
        "remote_frees",
        "adopts",
        "purges",
        "purged_bytes",
        "window_bytes",
        "metadata_bytes",
        "live_heaps",
        "out_of_memory",
    ];

    /// As `hakmem.h` declares them.
    #[repr(C)]
    struct Stats {
        magic: u32,
        abi_version: u32,
        struct_size: usize,
        values: [u64; 14],
        reserved: [u64; 16],
    }

    #[repr(C)]
    struct Options {
        magic: u32,
        abi_version: u32,
        struct_size: usize,
        profile: *const c_char,
        purge_delay_ms: u64,
        big_retain_bytes: u64,
        memory_limit_bytes: u64,
        reserved: [u64; 16],
    }

    /// A function of the preloaded library.
    fn symbol(name: &CStr) -> *mut c_void {
        // SAFETY: the name is a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        if found.is_null() {
            fail("built without hakmem and started without its library in LD_PRELOAD");
        }
        found
    }

    /// Calls `visit` with every statistic of the API.
    pub fn for_each(visit: &mut dyn FnMut(&'static str, u64)) {
        // SAFETY: `hak_stats` has this type.
        let hak_stats: extern "C" fn(*mut Stats) -> c_int = unsafe { core::mem::transmute(symbol(c"hak_stats")) };
        let mut stats =
            Stats { magic: MAGIC, abi_version: 1, struct_size: size_of::<Stats>(), values: [0; 14], reserved: [0; 16] };
        if hak_stats(&raw mut stats) != 0 {
            fail("hak_stats refused");
        }
        NAMES.iter().zip(stats.values).for_each(|(name, value)| visit(name, value));
    }

    /// Gives back what is free.
    pub fn collect() {
        // SAFETY: `hak_collect` has this type.
        let hak_collect: extern "C" fn() = unsafe { core::mem::transmute(symbol(c"hak_collect")) };
        hak_collect();
    }

    /// The policy of the start, with a limit on memory (0 for none).
    pub fn switch_back(memory_limit_bytes: u64) {
        configure(PROFILES[0], KEEP, KEEP, memory_limit_bytes);
    }

    /// Some other policy: a profile, and knobs turned at random.
    pub fn switch(random: &mut Random) {
        let delay_ms = [KEEP, 0, 1, 50, 2000][random.below(5)];
        let retain_bytes = [KEEP, 0, 8 << 20, 128 << 20][random.below(4)];
        configure(PROFILES[random.below(PROFILES.len())], delay_ms, retain_bytes, 0);
    }

    fn configure(profile: &CStr, purge_delay_ms: u64, big_retain_bytes: u64, memory_limit_bytes: u64) {
        // SAFETY: `hak_configure` has this type.
        let hak_configure: extern "C" fn(*const Options) -> c_int =
            unsafe { core::mem::transmute(symbol(c"hak_configure")) };
        let options = Options {
            magic: MAGIC,
            abi_version: 1,
            struct_size: size_of::<Options>(),
            profile: profile.as_ptr(),
            purge_delay_ms,
            big_retain_bytes,
            memory_limit_bytes,
            reserved: [0; 16],
        };
        if hak_configure(&raw const options) != 0 {
            fail("hak_configure refused");
        }
    }
}
