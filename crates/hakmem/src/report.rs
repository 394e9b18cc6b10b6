//! Statistics: one reading of all boxes, as a structure, as JSON, as text at exit.

use core::ffi::c_char;

use hakmem_bigcache::BigStats;
use hakmem_hardened::HardenedStats;
use hakmem_sampled::SampledStats;
use hakmem_superslab_os::OsStats;
use hakmem_tiny_front::FrontReport;

use crate::blocks;
use crate::confined::is_confined;
use crate::files::{process, write_named};
use crate::global::{Boot, GLOBAL};
use crate::learning;
use crate::modules;
use crate::scavenger;
use crate::sites;
use crate::stderr;
use crate::tls;
use crate::watcher;
use crate::writer::FdWriter;

macro_rules! stats {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// What the allocator has done and holds. Event counters count up for the life of the process; sizes are in
        /// bytes and of this moment. Numbers of other threads are up to a heartbeat (some thousand allocations) old.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[doc = $doc])+ pub $name: u64,)*
        }

        impl Stats {
            /// Calls `visit` with the name and value of every field, in order.
            pub fn for_each(&self, mut visit: impl FnMut(&'static str, u64)) {
                $(visit(stringify!($name), self.$name);)*
            }
        }
    };
}

stats! {
    /// Bytes of blocks in use, rounded as their sizes were; blocks on their way back to another thread count as used.
    live_bytes,
    /// Bytes that hold or may hold memory: handed out by the superslab box, or free there and not purged yet. Without
    /// [`Stats::quarantined_space_bytes`].
    committed_bytes,
    /// Bytes kept for later: thread caches, run caches, kept big blocks, free memory not purged yet.
    cached_bytes,
    /// Largest resident set of the process so far.
    peak_rss_bytes,
    /// Allocations up to 32 KiB; at the hardened level [`Stats::hardened_allocs`] counts instead.
    allocs,
    /// Of these, allocations that found their thread cache empty.
    refills,
    /// Share of allocations up to 32 KiB served by the thread cache, in 1/1000.
    cache_hit_permille,
    /// Blocks returned to their slab because the cache was full.
    spills,
    /// Blocks freed by a thread that does not own them.
    remote_frees,
    /// Exchanges that handed such blocks over.
    remote_pushes,
    /// Such blocks that their owners have taken back; an adoption takes back those of a slab without an owner, uncounted.
    drained_blocks,
    /// Slabs that came by mail.
    mails,
    /// Slabs adopted from threads that have ended.
    adopts,
    /// Slabs left behind by threads that have ended.
    released_slabs,
    /// Slabs without an owner at this moment.
    orphan_slabs,
    /// Slabs taken from the superslab box.
    fresh_slabs,
    /// Slabs given back to it.
    retired_slabs,
    /// Slabs whose return waited for a notification in flight.
    guarded_slabs,
    /// Remote frees found without notification (with `HAKMEM_FORCE_NOTIFY`; should be 0).
    missed_notifications,
    /// Pool-routed allocations that the flattened pool served from the thread cache.
    pool_flatten_hits,
    /// Pool-routed operations that it could not.
    pool_flatten_fallbacks,
    /// Runs (32 KiB to 2 MiB) served by a thread's cache.
    run_hits,
    /// Runs that came from the superslab box.
    run_misses,
    /// Big blocks served by a kept one.
    big_hits,
    /// Big blocks that took fresh superslabs.
    big_misses,
    /// Big blocks that grew by moving OS pages.
    big_moved,
    /// Kept big blocks given back.
    big_evictions,
    /// Bytes of blocks mapped outside the window.
    outside_bytes,
    /// Batches of memory purged.
    purges,
    /// Bytes purged.
    purged_bytes,
    /// Bytes free and dirty: what the next purge may return.
    free_dirty_bytes,
    /// Calls of madvise.
    madvise_calls,
    /// Calls of madvise that the kernel refused for want of memory or mappings.
    madvise_enomem,
    /// Calls of madvise that the kernel refused for another reason.
    madvise_failed,
    /// Times that madvise was given up for a while.
    madvise_disabled,
    /// Ranges outside hakmem's own that were kept from madvise (a bug if not 0).
    outside_range,
    /// Times that memory could not be committed.
    mprotect_refused,
    /// Mappings that could not be had: windows of the size asked for, tables, metadata, blocks outside the window.
    mmap_refused,
    /// Times that the policy's memory limit refused slabs or superslabs; one request may try several times.
    limit_refused,
    /// Blocks outside the window that could not be unmapped; their memory goes back, their address space stays.
    munmap_refused,
    /// Moves of OS pages that were refused: the block was copied, or moved in smaller parts.
    move_refused,
    /// Bytes advised to be huge pages.
    huge_advised_bytes,
    /// Superslabs with more than half of their slabs in use.
    hot_superslabs,
    /// Superslabs with at most half of their slabs in use.
    draining_superslabs,
    /// Superslabs with nothing in use.
    free_superslabs,
    /// Superslabs in use by big blocks.
    extent_superslabs,
    /// Bytes of the reserved window.
    window_bytes,
    /// Bytes of allocator metadata (heap records).
    metadata_bytes,
    /// Threads that hold a heap.
    live_heaps,
    /// Most threads that held one at a time.
    peak_heaps,
    /// Times the scavenger was started.
    scavenger_starts,
    /// Generation of the policy in force; 0 is the one that the process began with.
    policy_generation,
    /// Windows that the learning layer's thread has measured.
    learn_windows,
    /// Policies that it has published.
    learn_published,
    /// Its CPU time, in microseconds.
    learn_cpu_us,
    /// The same in millionths of the CPU time of the process.
    learn_cpu_ppm,
    /// Blocks whose lives were watched.
    watched,
    /// Blocks that were to be watched and whose lives are not known: no place for them, or nobody told in time.
    watched_lost,
    /// What watching has cost, in millionths of the CPU time of the process.
    watch_cpu_ppm,
    /// Site rules in force.
    site_rules,
    /// Big blocks of which it was asked whether a site rule is for them.
    site_walks,
    /// Of these, blocks for which one was.
    site_hits,
    /// Blocks handed out at the hardened level.
    hardened_allocs,
    /// Bytes of freed blocks that wait in quarantine.
    quarantined_bytes,
    /// Bytes of address space of freed large blocks in quarantine, without memory behind them.
    quarantined_space_bytes,
    /// Guards that stand: two for each slab and large block of the hardened level.
    guards_standing,
    /// Guards that were left out because as many as are allowed stood already.
    guards_left_out,
    /// Guard pages that the kernel refused.
    guards_refused,
    /// Bytes of address space lost because the kernel refused to make guard pages writable again.
    stranded_bytes,
    /// Blocks that the hardened level had no place for and that went unguarded.
    unguarded_blocks,
    /// Guarded samples handed out.
    samples,
    /// Samples that were due when no slot was free.
    sample_no_slot,
    /// Samples that were due and did not fit a slot.
    sample_unfit,
    /// Guards around samples that the kernel refused.
    sample_guards_refused,
    /// Mistakes proved with samples.
    sample_findings,
    /// Bytes of samples in use.
    sample_bytes,
    /// Refills that found no memory, and requests above 32 KiB that ended in null.
    out_of_memory,
}

/// A reading of all counters.
#[must_use]
pub fn stats() -> Stats {
    if let Some(record) = tls::heap() {
        GLOBAL.front.settle_counts(&record.heap);
    }
    collect_stats(&GLOBAL.front.os.stats())
}

/// A reading for a signal handler: takes no lock. What the superslab box counts under its lock reads as zero if it is held.
pub(crate) fn stats_in_handler() -> Stats {
    collect_stats(&GLOBAL.front.os.try_stats().unwrap_or_default())
}

/// Sums over all heaps, beside what the shared boxes count.
pub(crate) struct Reading {
    pub front: FrontReport,
    pub runs: Runs,
    pub big: BigStats,
    hardened: HardenedStats,
    sampled: SampledStats,
}

/// Sums over the heaps' caches of runs.
#[derive(Default)]
pub(crate) struct Runs {
    pub cached_bytes: u64,
    live_bytes: u64,
    hits: u64,
    misses: u64,
}

impl Reading {
    /// As of now; `flattened` is the set of classes whose pool is flattened. Takes no lock.
    pub fn now(flattened: u128) -> Self {
        let (mut front, mut runs) = (FrontReport::default(), Runs::default());
        for record in GLOBAL.records() {
            GLOBAL.front.report(&record.heap, flattened, &mut front);
            runs.cached_bytes += record.runs.cached_bytes() as u64;
            runs.live_bytes = runs.live_bytes.wrapping_add(record.runs.allocated_bytes());
            runs.live_bytes = runs.live_bytes.wrapping_sub(record.runs.freed_bytes());
            runs.hits += record.runs.hits();
            runs.misses += record.runs.misses();
        }
        runs.live_bytes = runs.live_bytes.wrapping_add(GLOBAL.heapless_runs.allocated.load_relaxed());
        runs.live_bytes = runs.live_bytes.wrapping_sub(GLOBAL.heapless_runs.freed.load_relaxed());
        // The heaps are not looked at all at once: of runs that change hands more may be seen to go than to come.
        runs.live_bytes = runs.live_bytes.cast_signed().max(0).cast_unsigned();
        let (big, hardened, sampled) = (GLOBAL.big.stats(), GLOBAL.hardened.stats(), GLOBAL.sampled.stats());
        Self { front, runs, big, hardened, sampled }
    }

    /// Bytes of blocks in use.
    pub fn live_bytes(&self) -> u64 {
        let (_, orphan_bytes) = GLOBAL.front.orphans();
        let slab_bytes = (self.front.delivered_bytes + orphan_bytes).saturating_sub(self.front.cached_bytes);
        let big_bytes = self.big.allocated_bytes.saturating_sub(self.big.freed_bytes);
        slab_bytes
            .wrapping_add(self.runs.live_bytes)
            .wrapping_add(big_bytes)
            .wrapping_add(self.hardened.live_bytes)
            .wrapping_add(self.sampled.live_bytes)
            .wrapping_add(GLOBAL.watcher.pool.stats().live_bytes)
    }
}

fn collect_stats(os: &OsStats) -> Stats {
    let flattened = tls::heap().map_or(0, |record| record.heap.policy().flattened_classes());
    let reading = Reading::now(flattened);
    let live_bytes = reading.live_bytes();
    let Reading { front, runs, big, hardened, sampled } = reading;
    let (orphan_slabs, _) = GLOBAL.front.orphans();
    let (learn, watch, sites) = (learning::costs(), watcher::costs(), sites::counts());
    Stats {
        live_bytes,
        committed_bytes: committed_bytes(os, big.outside_bytes, hardened.quarantined_space_bytes),
        cached_bytes: front.cached_bytes + runs.cached_bytes + (big.cached_bytes + os.free_dirty_bytes) as u64,
        peak_rss_bytes: peak_rss_bytes(),
        allocs: front.allocs,
        refills: front.refills,
        cache_hit_permille: (front.allocs.saturating_sub(front.refills) * 1000).checked_div(front.allocs).unwrap_or(0),
        spills: front.spills,
        remote_frees: front.remote_frees + GLOBAL.front.heapless_frees(),
        remote_pushes: front.remote_pushes,
        drained_blocks: front.drained_blocks,
        mails: front.mails,
        adopts: front.adopts,
        released_slabs: front.released_slabs,
        orphan_slabs: u64::from(orphan_slabs),
        fresh_slabs: front.fresh_slabs,
        retired_slabs: front.retired_slabs,
        guarded_slabs: front.guarded_slabs,
        missed_notifications: front.missed_notifications,
        pool_flatten_hits: front.pool_flatten_hits,
        pool_flatten_fallbacks: front.pool_flatten_fallbacks,
        run_hits: runs.hits,
        run_misses: runs.misses,
        big_hits: big.hits,
        big_misses: big.misses,
        big_moved: big.moved,
        big_evictions: big.evictions,
        outside_bytes: big.outside_bytes as u64,
        purges: os.purges,
        purged_bytes: os.purged_bytes,
        free_dirty_bytes: os.free_dirty_bytes as u64,
        madvise_calls: os.madvise_calls,
        madvise_enomem: os.madvise_enomem,
        madvise_failed: os.madvise_failed,
        madvise_disabled: os.madvise_disabled,
        outside_range: os.outside_range,
        mprotect_refused: os.mprotect_refused,
        mmap_refused: os.mmap_refused
            + GLOBAL.arena.refused()
            + big.maps_refused
            + GLOBAL.starts_refused.load_relaxed(),
        limit_refused: os.limit_refused,
        munmap_refused: big.unmaps_refused,
        move_refused: os.move_refused + big.moves_refused,
        huge_advised_bytes: os.huge_advised_bytes,
        hot_superslabs: u64::from(os.hot_superslabs),
        draining_superslabs: u64::from(os.draining_superslabs),
        free_superslabs: u64::from(os.free_warm_superslabs + os.free_clean_superslabs),
        extent_superslabs: u64::from(os.extent_superslabs),
        window_bytes: os.window_bytes as u64,
        metadata_bytes: GLOBAL.arena.reserved_bytes() as u64,
        live_heaps: u64::from(GLOBAL.registry.live.load_relaxed()),
        peak_heaps: u64::from(GLOBAL.registry.peak.load_relaxed()),
        scavenger_starts: u64::from(scavenger::starts()),
        policy_generation: u64::from(GLOBAL.policy.generation()),
        learn_windows: learn.windows,
        learn_published: learn.published,
        learn_cpu_us: learn.cpu_us,
        learn_cpu_ppm: learn.share_ppm,
        watched: watch.watched,
        watched_lost: watch.lost,
        watch_cpu_ppm: watch.share_ppm,
        site_rules: u64::from(sites.rules),
        site_walks: sites.walks,
        site_hits: sites.hits,
        hardened_allocs: hardened.allocs,
        quarantined_bytes: hardened.quarantined_bytes,
        quarantined_space_bytes: hardened.quarantined_space_bytes,
        guards_standing: hardened.guards_standing,
        guards_left_out: hardened.guards_left_out,
        guards_refused: hardened.guards_refused,
        stranded_bytes: hardened.stranded_bytes,
        unguarded_blocks: crate::hardened::unguarded_blocks(),
        samples: sampled.samples,
        sample_no_slot: sampled.no_slot,
        sample_unfit: sampled.unfit,
        sample_guards_refused: sampled.guards_refused,
        sample_findings: sampled.findings,
        sample_bytes: sampled.live_bytes,
        out_of_memory: front.out_of_memory + GLOBAL.refused.load_relaxed(),
    }
}

/// What waits in quarantine without memory belongs to the level and counts as handed out. It is counted without the lock of the box
/// below, and may be ahead of what that has counted.
fn committed_bytes(os: &OsStats, outside_bytes: usize, quarantined_space_bytes: u64) -> u64 {
    let in_use_bytes = (os.in_use_bytes as u64).saturating_sub(quarantined_space_bytes);
    in_use_bytes + (os.free_dirty_bytes + outside_bytes) as u64
}

fn peak_rss_bytes() -> u64 {
    // Miri's machine has no pages, and a confined process may not ask.
    if cfg!(miri) || is_confined() {
        return 0;
    }
    // SAFETY: all zero is a valid value to be filled.
    let mut usage = unsafe { core::mem::zeroed::<libc::rusage>() };
    // SAFETY: fills the structure.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024
}

/// Longest name of a machine, its end mark included.
const HOST_BYTES: usize = 65;

/// Writes the name of the program's file, so that a reader of many reports knows which is whose. What JSON would have to escape is
/// written as `?`.
pub(crate) fn write_program_name(out: &mut FdWriter) {
    write_plain(out, modules::program());
}

/// Writes the name of the machine, in the same form.
pub(crate) fn write_host_name(out: &mut FdWriter) {
    let mut name = [0_u8; HOST_BYTES];
    // SAFETY: the buffer is as long as is said.
    let refused = unsafe { libc::gethostname(name.as_mut_ptr().cast::<c_char>(), HOST_BYTES) };
    let name = name.split(|&byte| byte == 0).next().filter(|_| refused == 0);
    write_plain(out, name.unwrap_or(&[]));
}

fn write_plain(out: &mut FdWriter, text: &[u8]) {
    for byte in text {
        let needs_escape = !matches!(byte, b' '..=b'~') || matches!(byte, b'"' | b'\\');
        out.bytes(&[if needs_escape { b'?' } else { *byte }]);
    }
}

/// Writes the statistics as one flat JSON object.
pub(crate) fn write_json(out: &mut FdWriter, stats: &Stats) {
    write_members(out, stats);
    out.text("}\n");
}

fn write_members(out: &mut FdWriter, stats: &Stats) {
    out.text("{\"pid\":").number(u64::from(process()));
    out.text(",\"program\":\"");
    write_program_name(out);
    out.text("\",\"mode\":\"").text(learning::mode().name()).text("\"");
    stats.for_each(|name, value| {
        out.text(",\"").text(name).text("\":").number(value);
    });
}

/// Exit statistics, as the environment asked for them.
pub(crate) fn at_exit() {
    let boot = GLOBAL.boot();
    if boot.stats || boot.os_stats || boot.stats_file.as_bytes().is_some() {
        write_at_exit(boot);
    }
}

#[cold]
#[inline(never)]
fn write_at_exit(boot: &Boot) {
    let stats = stats();
    if boot.stats {
        let mut out = FdWriter::new(stderr::descriptor());
        out.text("hakmem: statistics\n");
        // A confined process may not be allowed to ask who it is.
        if !is_confined() {
            out.text("  pid ").number(u64::from(process())).text("\n  program ");
            write_program_name(&mut out);
            out.text("\n");
        }
        out.text("  mode ").text(learning::mode().name()).text("\n");
        stats.for_each(|name, value| {
            out.text("  ").text(name).text(" ").number(value).text("\n");
        });
        blocks::write_text(&mut out);
    }
    if boot.os_stats {
        let mut out = FdWriter::new(stderr::descriptor());
        out.text("[SS_OS_STATS] purges=").number(stats.purges);
        out.text(" purged_bytes=").number(stats.purged_bytes);
        out.text(" madvise_calls=").number(stats.madvise_calls);
        out.text(" madvise_enomem=").number(stats.madvise_enomem);
        out.text(" madvise_disabled=").number(stats.madvise_disabled);
        out.text(" outside_range=").number(stats.outside_range).text("\n");
    }
    let Some(path) = boot.stats_file.as_bytes() else { return };
    write_named("HAKMEM_STATS_FILE", path, |out| {
        write_members(out, &stats);
        blocks::write_json(out);
        out.text("}\n");
    });
}
