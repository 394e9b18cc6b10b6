//! Conservation, checked from scratch: every unit of the window and every counted byte against whoever should hold it.
//!
//! **Not here.** Repair, and anything that a running program needs: a check walks all tables of the window.

use hakmem_base::{SLAB_SHIFT, SLABS_PER_SUPERSLAB, SUPERSLAB_BYTES, fatal};
use hakmem_ownership::Route;
use hakmem_tiny_front::Tables;

use crate::global::GLOBAL;
use crate::scavenger;
use crate::watcher;

/// What the route words say: units by what they are used for, and bytes of the blocks that are one unit or more.
#[derive(Default)]
struct Census {
    slab_units: u64,
    run_units: u64,
    run_bytes: u64,
    big_units: u64,
    big_bytes: u64,
}

impl Census {
    fn take(tables: &Tables) -> Self {
        if GLOBAL.front.os.units_used().end as usize > tables.routes.len() {
            fatal("the window has fewer route words than units");
        }
        let mut census = Self::default();
        watcher::for_each_route(tables, |_, route| match route {
            Route::Unused => {}
            // Every unit of these carries its route.
            Route::Owned(_) | Route::Orphan(_) | Route::Hardened(_) | Route::Sampled(_) | Route::Watched(_) => {
                census.slab_units += 1;
            }
            Route::Run { units, bytes } => {
                census.run_units += u64::from(units);
                census.run_bytes += bytes as u64;
            }
            Route::Big { bytes, .. } => {
                census.big_units += (bytes.div_ceil(SUPERSLAB_BYTES) as u64) * u64::from(SLABS_PER_SUPERSLAB);
                census.big_bytes += bytes as u64;
            }
        });
        census
    }
}

/// Fatal if a box contradicts itself, if a unit is in use and nobody holds it (or two do), or if the counted bytes are
/// not those of the blocks.
pub(crate) fn check_invariants() {
    let Some(tables) = GLOBAL.front.tables() else { return };
    let _nothing_in_hand = scavenger::hold_back();
    GLOBAL.front.os.check_invariants();
    GLOBAL.big.check_invariants();
    GLOBAL.hardened.check_invariants();
    GLOBAL.sampled.check_invariants();
    GLOBAL.watcher.pool.check_invariants();
    let (mut cached_run_units, mut run_bytes) = (0, GLOBAL.heapless_runs.allocated.load_relaxed());
    run_bytes = run_bytes.wrapping_sub(GLOBAL.heapless_runs.freed.load_relaxed());
    for record in GLOBAL.records() {
        GLOBAL.front.check_invariants(&record.heap);
        record.runs.check_invariants(&GLOBAL.run_context(tables, Some(record)));
        cached_run_units += (record.runs.cached_bytes() >> SLAB_SHIFT) as u64;
        run_bytes = run_bytes.wrapping_add(record.runs.allocated_bytes()).wrapping_sub(record.runs.freed_bytes());
    }
    let os = GLOBAL.front.os.stats();
    let census = Census::take(tables);
    let kept_units = GLOBAL.big.kept_superslabs() * u64::from(SLABS_PER_SUPERSLAB);
    // What could not be made writable again has lost its routes and stays in use.
    let stranded_units = GLOBAL.hardened.stats().stranded_bytes >> SLAB_SHIFT;
    let held = census.slab_units + census.run_units + cached_run_units + census.big_units + kept_units + stranded_units;
    if held != (os.in_use_bytes >> SLAB_SHIFT) as u64 {
        fatal("units handed out are not those of slabs, runs, big blocks and their caches");
    }
    if census.run_bytes != run_bytes {
        fatal("counted bytes of runs are not those of the runs in use");
    }
    let big = GLOBAL.big.stats();
    if census.big_bytes + big.outside_bytes as u64 != big.allocated_bytes.wrapping_sub(big.freed_bytes) {
        fatal("counted bytes of big blocks are not those of the big blocks in use");
    }
}
