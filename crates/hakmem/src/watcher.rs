//! Watched blocks at the gates: one handed out where the front says so, one taken back; how often, by what it costs; and what the
//! learning thread makes of their lives.
//!
//! **The distance** from one watched block to the next is steered by its price: both ends of a watched life are timed, and what that
//! adds up to is held against the CPU time of the process. Where places run out, it grows as well. Between two looks of the learning thread a bound of each
//! thread's own holds: from one watched block to the next it lets [`GAP_FACTOR`] times as much time pass as one costs.
//!
//! **Not here.** When a block is due (the front counts), places and the ring (the box of watched blocks), sketches (the learner).
//! **Invariants.** FROZEN watches nothing and has no memory for it. A thread that is at it watches no second block: what the
//! capture of a stack or a signal handler allocates meanwhile goes the ordinary way.

use core::cell::Cell;
use core::ptr::NonNull;
use hakmem_atomic_ops::{Lock, Shared32, Shared64};
use hakmem_base::{
    RUN_MAX_BYTES, Request, SITE_FRAMES, SLAB_BYTES, SLABS_PER_SUPERSLAB_SHIFT, SUPERSLAB_BYTES, SizeClass, SlabIndex,
    fatal_ptr,
};
use hakmem_learner::{Blocks, SiteCosts, SiteHint, Summary, Visit, Window};
use hakmem_ownership::Route;
use hakmem_policy::{Mode, Settings};
use hakmem_publish_adopt::SlabWords as _;
use hakmem_sampled::Trace;
use hakmem_tiny_front::Tables;
use hakmem_watched::{Birth, WatchedContext, WatchedPool, Wrong};

use crate::clock;
use crate::global::GLOBAL;
use crate::large;
use crate::learning;
use crate::modules::Module;
use crate::observe;
use crate::record::HeapRecord;
use crate::tls;

/// The part of the CPU time of the process that watching aims at, in millionths.
const TARGET_PPM: u64 = 1000;
/// Allocations of a class from one watched block to the next: at first, and bounds.
const FIRST_DISTANCE: u32 = 1 << 15;
const LEAST_DISTANCE: u32 = 1 << 6;
const LARGEST_DISTANCE: u32 = 1 << 24;
/// CPU time (ns) that a process has used before its first block is watched. Whoever walks the first stack of a process reads much that
/// nobody has read before, which takes up to a thousandth of this.
const FIRST_AFTER_CPU_NS: u64 = 300_000_000;
/// What a watched life is believed to cost (ns) before any has ended, and how many times as much time lies between two.
const FIRST_COST_NS: u32 = 8000;
const GAP_FACTOR: u64 = 512;
/// Between two superslabs with small pages in big blocks, which tell how much of these is touched, lies so much time (ms): each costs as
/// many page faults as it has pages, up to a quarter of a millisecond.
const PROBE_GAP_MS: u32 = 64;
/// A distance that the environment leaves to the price, and one that means none at all: the values of `HAKMEM_WATCH`.
const BY_PRICE: u32 = 0;
const NEVER: u32 = u32::MAX;

/// What is known of watched blocks.
pub(crate) struct State {
    pub pool: WatchedPool,
    /// What `HAKMEM_WATCH` says.
    wanted: Shared32,
    /// The distance that threads are to keep; 0: none.
    distance: Shared32,
    /// What a watched life costs.
    cost_ns: Shared32,
    /// What all of them have cost.
    spent_ns: Shared64,
    /// Blocks that were due too soon after another one.
    crowded: Shared64,
    /// When the last big block got its superslab to be looked at (ms).
    last_probe_ms: Shared32,
    /// Windows, and what was resident in all of them together (MiB).
    windows: Shared64,
    resident_mib: Shared64,
    /// Lives that have ended. In memory that is taken when the first one is.
    blocks: Lock<Option<&'static mut Blocks>>,
}

/// A heap's own part. Small: heap records are full.
pub(crate) struct Pace {
    /// When its last watched block was born, in steps of [`TICK_SHIFT`].
    last: Cell<u32>,
    /// Requests for runs when the last one was watched, and for big blocks since then.
    seen_runs: Cell<u32>,
    passed_big: Cell<u32>,
    /// Binary digits of the shared distance that the heap's was made of, which changes by powers of two.
    digits: Cell<u8>,
}

/// log2 of the nanoseconds that [`Pace`] counts in.
const TICK_SHIFT: u32 = 16;

impl Pace {
    pub const fn new() -> Self {
        Self { last: Cell::new(0), seen_runs: Cell::new(0), passed_big: Cell::new(0), digits: Cell::new(0) }
    }

    /// Requests for runs since the last time, at least one.
    fn passed_runs(&self, record: &HeapRecord) -> u32 {
        let requests = record.runs.flow().iter().map(|flow| flow.requests).sum::<u64>() as u32;
        requests.wrapping_sub(self.seen_runs.replace(requests)).max(1)
    }

    /// Notes the distance that is to be kept; whether it is another one than the last time.
    fn note(&self, distance: u32) -> bool {
        let digits = (u32::BITS - distance.leading_zeros()) as u8;
        self.digits.replace(digits) != digits
    }

    /// True if more than `gap_ns` have passed since the last time that this was true.
    fn try_begin(&self, gap_ns: u64, now_ns: u64) -> bool {
        let now = (now_ns >> TICK_SHIFT) as u32;
        let is_past = u64::from(now.wrapping_sub(self.last.get())) > gap_ns >> TICK_SHIFT;
        if is_past {
            self.last.set(now);
        }
        is_past
    }
}

impl State {
    pub const fn new() -> Self {
        Self {
            pool: WatchedPool::new(),
            wanted: Shared32::new(BY_PRICE),
            distance: Shared32::new(0),
            cost_ns: Shared32::new(FIRST_COST_NS),
            spent_ns: Shared64::new(0),
            crowded: Shared64::new(0),
            last_probe_ms: Shared32::new(0),
            windows: Shared64::new(0),
            resident_mib: Shared64::new(0),
            blocks: Lock::new(None),
        }
    }
}

/// What the environment asked for.
pub(crate) fn heed(settings: &Settings<'_>) {
    let state = &GLOBAL.watcher;
    state.wanted.store_relaxed(settings.watch);
    state.distance.store_relaxed(match settings.watch {
        BY_PRICE | NEVER => 0,
        fixed => fixed,
    });
}

/// On an allocation's slow path in OBSERVE and LEARN: the thread keeps the present distance.
pub(crate) fn keep_pace() {
    let distance = GLOBAL.watcher.distance.load_relaxed();
    if let Some(record) = tls::heap()
        && record.watch.note(distance)
    {
        record.heap.set_watch_distance(distance);
    }
}

fn context() -> Option<WatchedContext<'static>> {
    let tables = GLOBAL.front.tables()?;
    Some(WatchedContext { os: &GLOBAL.front.os, routes: &tables.routes })
}

/// The watched block that is due for `request`; `None` if there is none to be had, and the allocation goes the ordinary way.
/// `floor` lies in the frame of the gate.
#[cold]
#[inline(never)]
pub(crate) fn allocate(
    record: &HeapRecord,
    class: SizeClass,
    request: Request,
    floor: *const u8,
) -> Option<NonNull<u8>> {
    record.unless_capturing(|| try_allocate(record, class, request, floor)).flatten()
}

fn try_allocate(record: &HeapRecord, class: SizeClass, request: Request, floor: *const u8) -> Option<NonNull<u8>> {
    let state = &GLOBAL.watcher;
    let weight = record.heap.watch_distance();
    if learning::mode() == Mode::Frozen {
        let _forgotten = record.watch.note(0);
        record.heap.set_watch_distance(0);
        return None;
    }
    let begin_ns = clock::monotonic_ns();
    if !try_begin(record, begin_ns) {
        state.crowded.add_relaxed(1);
        record.heap.set_watch_distance(weight.saturating_mul(2).min(LARGEST_DISTANCE));
        return None;
    }
    let (cx, bytes) = (context()?, request.bytes()?);
    if !state.pool.reserve() {
        return None;
    }
    record.look_at_next_run();
    let block = state.pool.allocate(&cx, class, &birth(record, bytes, weight, floor));
    state.spent_ns.add_relaxed(clock::monotonic_ns() - begin_ns);
    block
}

fn birth(record: &HeapRecord, bytes: usize, weight: u32, floor: *const u8) -> Birth {
    let (mut frames, mut depth) = ([0; SITE_FRAMES], 0);
    Trace::walk(floor, &mut |address| {
        // The calls of a library that hakmem is tell nothing about the program.
        let is_own = depth == 0 && Module::of(address.wrapping_sub(1)).is_some_and(|module| module.is_own_library());
        if !is_own && let Some(frame) = frames.get_mut(depth) {
            *frame = address;
            depth += 1;
        }
        depth < SITE_FRAMES
    });
    let (heap, allocs) = (core::ptr::from_ref(record).addr(), record.heap.allocs());
    Birth { bytes, weight, at_ns: clock::monotonic_ns(), heap, allocs, probe: 0, frames }
}

/// Whether the thread may watch a block now: not too soon after the last one, on the scale of what one costs. Where the environment says
/// how many are watched, it always may.
fn try_begin(record: &HeapRecord, now_ns: u64) -> bool {
    let state = &GLOBAL.watcher;
    let gap_ns = u64::from(state.cost_ns.load_relaxed()) * GAP_FACTOR;
    state.wanted.load_relaxed() != BY_PRICE || record.watch.try_begin(gap_ns, now_ns)
}

/// A run or big block was handed out on the long way: watches it if it is its turn, where it is. A run is if it is `is_chosen`; `floor`
/// lies in the frame of whoever asks.
///
/// Runs mostly come on a short way that knows no countdown. So one is chosen by closing that way for the next run, whenever a
/// small block is watched and now and then on the long way. Whether it is too soon was asked then. It stands for as many as have passed since the last one.
#[cold]
#[inline(never)]
pub(crate) fn see_large(record: &HeapRecord, block: NonNull<u8>, bytes: usize, is_chosen: bool, floor: *const u8) {
    let _is_watched = record.unless_capturing(|| try_see_large(record, block, bytes, is_chosen, floor));
}

fn try_see_large(record: &HeapRecord, block: NonNull<u8>, bytes: usize, is_chosen: bool, floor: *const u8) {
    let (state, is_run) = (&GLOBAL.watcher, bytes <= RUN_MAX_BYTES);
    let begin_ns = clock::monotonic_ns();
    if record.heap.count_large_to_watch() && try_begin(record, begin_ns) {
        record.look_at_next_run();
    }
    if record.heap.watch_distance() == 0 || is_run && !is_chosen {
        return;
    }
    if !is_run {
        record.watch.passed_big.set(record.watch.passed_big.get() + 1);
        if !try_begin(record, begin_ns) {
            state.crowded.add_relaxed(1);
            return;
        }
    }
    let Some((unit, word)) = GLOBAL.front.unit_of(block.addr().get()) else { return };
    if !state.pool.reserve() {
        return;
    }
    let weight = if is_run { record.watch.passed_runs(record) } else { record.watch.passed_big.take() };
    let probe = if is_run { 0 } else { probe(unit, bytes, begin_ns) };
    let birth = Birth { probe, ..birth(record, bytes, weight, floor) };
    // Where there is no room the pool counts it.
    let _is_watched = state.pool.watch(unit, word, &birth);
    state.spent_ns.add_relaxed(clock::monotonic_ns() - begin_ns);
}

/// Chooses a superslab of a fresh big block that will tell how much of the block is touched, counted from 1; 0: none. It gets small pages,
/// of which none is there: among huge ones a touch of a byte looks like one of 2 MiB. In LEARN only: OBSERVE leaves blocks as they are.
fn probe(unit: SlabIndex, bytes: usize, now_ns: u64) -> u32 {
    let (state, now_ms) = (&GLOBAL.watcher, (now_ns / 1_000_000) as u32);
    // Neither the first one, which has what headers a program writes, nor the last one.
    let superslab = (bytes / SUPERSLAB_BYTES / 2) as u32;
    let is_whole = (superslab as usize + 1) * SUPERSLAB_BYTES <= bytes;
    let is_too_soon = state.wanted.load_relaxed() == BY_PRICE
        && now_ms.wrapping_sub(state.last_probe_ms.load_relaxed()) < PROBE_GAP_MS;
    if learning::mode() != Mode::Learn || !is_whole || is_too_soon {
        return 0;
    }
    state.last_probe_ms.store_relaxed(now_ms);
    let (os, first) = (&GLOBAL.front.os, unit.add(superslab << SLABS_PER_SUPERSLAB_SHIFT));
    // Nobody has written to the block yet, and what reads as zero does so afterwards.
    let is_ready = os.zero_extent(first, SUPERSLAB_BYTES) && os.advise_small(first, 1);
    if is_ready { superslab + 1 } else { 0 }
}

/// Thousandths of the superslab that begins at `first` that are in memory.
fn look(first: SlabIndex) -> Option<u16> {
    let permille = GLOBAL.front.os.resident_permille(first, SUPERSLAB_BYTES)?;
    u16::try_from(permille).ok()
}

/// A watched run or big block that is about to be resized.
pub(crate) struct Paused {
    route: Route,
    birth: Birth,
}

/// Ends the watch over a block for the time that it is resized; `None` if it is a small one.
#[cold]
#[inline(never)]
pub(crate) fn pause(block: NonNull<u8>, note: usize) -> Option<Paused> {
    let address = block.addr().get();
    let (unit, word) = GLOBAL.front.unit_of(address)?;
    match GLOBAL.watcher.pool.route_elsewhere(note, unit)? {
        Ok(_) if address.is_multiple_of(SLAB_BYTES) => {}
        Ok(_) => fatal_ptr("realloc of a pointer into a block, not to its start", address),
        Err(_) => fatal_ptr("pointer to a block that has been freed", address),
    }
    match GLOBAL.watcher.pool.pause(unit, word, note) {
        Ok((route, birth)) => Some(Paused { route, birth }),
        Err(_) => fatal_ptr("pointer to a block that has been freed", address),
    }
}

impl Paused {
    /// What the block is.
    pub fn route(&self) -> Route {
        self.route
    }

    /// Watches it again, where it is now, and with another size if it has one.
    pub fn go_on(mut self, block: NonNull<u8>, new_bytes: Option<usize>) {
        self.birth.bytes = new_bytes.unwrap_or(self.birth.bytes);
        if let Some((unit, word)) = GLOBAL.front.unit_of(block.addr().get()) {
            // Where there is no room the pool counts it.
            let _is_watched = GLOBAL.watcher.pool.watch(unit, word, &self.birth);
        }
    }
}

/// Route of the block at `unit` without its watch; `None` if it is a small one, or has been freed.
pub(crate) fn route_elsewhere(note: usize, unit: usize) -> Option<Route> {
    GLOBAL.watcher.pool.route_elsewhere(note, SlabIndex::new(unit as u32))?.ok()
}

/// Calls `visit` with every unit of the window that may be in use, and what for. Watched runs and big blocks are what they are without
/// their watch. Reads each word once, and takes no lock.
pub(crate) fn for_each_route(tables: &Tables, mut visit: impl FnMut(SlabIndex, Route)) {
    for unit in GLOBAL.front.os.units_used().map(SlabIndex::new) {
        let route = match tables.route_word(unit).route() {
            Route::Watched(note) => route_elsewhere(note, unit.to_usize()).unwrap_or(Route::Watched(note)),
            route => route,
        };
        visit(unit, route);
    }
}

/// Takes a block back whose unit's route says "watched".
#[cold]
#[inline(never)]
pub(crate) fn free(block: NonNull<u8>, note: usize) {
    let (state, now_ns, address) = (&GLOBAL.watcher, clock::monotonic_ns(), block.addr().get());
    let allocs_of = |heap: usize| {
        let record = tls::heap().filter(|record| core::ptr::from_ref(*record).addr() == heap);
        record.map(|record| record.heap.allocs())
    };
    let freed = match GLOBAL.front.unit_of(address) {
        Some((unit, word)) if state.pool.route_elsewhere(note, unit).is_some() => {
            if !address.is_multiple_of(SLAB_BYTES) {
                fatal_ptr("free of a pointer into a block, not to its start", address);
            }
            state.pool.free_elsewhere(unit, word, note, now_ns, allocs_of, look).map(Some)
        }
        _ => state.pool.free(note, address, now_ns, allocs_of).map(|()| None),
    };
    state.spent_ns.add_relaxed(clock::monotonic_ns() - now_ns);
    match freed {
        Ok(None) => {}
        Ok(Some(route)) => large::free_claimed_slow(block, route),
        Err(Wrong::NoStart) => fatal_ptr("free of a pointer into a block, not to its start", address),
        Err(Wrong::Freed) => fatal_ptr("double free", address),
    }
}

/// Bytes of the block in use at `address`, whose unit's route says "watched".
#[cold]
#[inline(never)]
pub(crate) fn usable_size(address: usize, note: usize) -> usize {
    let pool = &GLOBAL.watcher.pool;
    let elsewhere = GLOBAL.front.index_of(address).and_then(|unit| pool.route_elsewhere(note, unit));
    let found = match elsewhere {
        Some(Ok(Route::Run { bytes, .. } | Route::Big { bytes, .. })) => Ok(bytes),
        Some(Ok(_) | Err(_)) => Err(Wrong::Freed),
        None => pool.usable_bytes(note, address),
    };
    match found {
        Ok(bytes) => bytes,
        Err(Wrong::NoStart) => fatal_ptr("pointer into a block, not to its start", address),
        Err(Wrong::Freed) => fatal_ptr("pointer to a block that has been freed", address),
    }
}

/// One look of the learning thread: takes the lives that have ended to the others, and chooses the distance by what they cost.
pub(crate) struct Look {
    spent_ns: u64,
    births: u64,
    no_place: u64,
}

impl Look {
    /// The process has shown that it is worth a look.
    pub fn begin() -> Self {
        begin_to_watch();
        Self::now()
    }

    fn now() -> Self {
        let stats = GLOBAL.watcher.pool.stats();
        Self { spent_ns: GLOBAL.watcher.spent_ns.load_relaxed(), births: stats.births, no_place: stats.no_place }
    }

    pub fn next(&mut self, window: &Window) {
        collect();
        GLOBAL.watcher.windows.add_relaxed(1);
        GLOBAL.watcher.resident_mib.add_relaxed(window.resident_bytes >> 20);
        let (state, before) = (&GLOBAL.watcher, core::mem::replace(self, Self::now()));
        // Births go back for the time of a `realloc` of a watched block.
        let spent_ns = self.spent_ns.saturating_sub(before.spent_ns);
        let births = self.births.saturating_sub(before.births);
        if let Some(cost_ns) = spent_ns.checked_div(births) {
            // Half of what it was and half of what it is: single ones that were interrupted say little.
            let cost_ns = u64::midpoint(cost_ns, u64::from(state.cost_ns.load_relaxed()));
            state.cost_ns.store_relaxed(u32::try_from(cost_ns).unwrap_or(u32::MAX));
        }
        let distance = state.distance.load_relaxed();
        if distance == 0 {
            begin_to_watch();
        // Without a clock of the process the thread's own bound is all there is.
        } else if state.wanted.load_relaxed() == BY_PRICE && window.cpu_ns > 0 {
            let mut distance = next_distance(distance, spent_ns, window.cpu_ns);
            if self.no_place > before.no_place {
                distance = distance.saturating_mul(2).min(LARGEST_DISTANCE);
            }
            state.distance.store_relaxed(distance);
        }
    }
}

/// Whether what blocks cost decides how many are watched, and not a switch.
pub(crate) fn is_by_price() -> bool {
    GLOBAL.watcher.wanted.load_relaxed() == BY_PRICE
}

/// Watches blocks from now on, if the process has done enough to pay for it and nothing else was asked for.
fn begin_to_watch() {
    let state = &GLOBAL.watcher;
    let is_wanted = state.wanted.load_relaxed() == BY_PRICE && state.distance.load_relaxed() == 0;
    if is_wanted && clock::process_cpu_ns() >= FIRST_AFTER_CPU_NS {
        state.distance.store_relaxed(FIRST_DISTANCE);
    }
}

/// Further apart at once where it costs too much, closer by and by where it costs little.
fn next_distance(distance: u32, spent_ns: u64, cpu_ns: u64) -> u32 {
    let share_ppm = clock::share_ppm(spent_ns, cpu_ns);
    let next = if share_ppm > TARGET_PPM * 2 {
        let times = (share_ppm / TARGET_PPM).next_power_of_two().min(1 << 16);
        u32::try_from(u64::from(distance) * times).unwrap_or(u32::MAX)
    } else if share_ppm < TARGET_PPM / 4 {
        distance / 2
    } else {
        distance
    };
    next.clamp(LEAST_DISTANCE, LARGEST_DISTANCE)
}

/// Takes the lives that have ended to the others.
fn collect() {
    if GLOBAL.watcher.pool.stats().births > 0 {
        let mut blocks = GLOBAL.watcher.blocks.lock();
        collect_into(&mut blocks);
    }
}

fn collect_into(blocks: &mut Option<&'static mut Blocks>) {
    if blocks.is_none() {
        *blocks = room_for_blocks();
    }
    if let Some(blocks) = blocks {
        GLOBAL.watcher.pool.drain(|life| blocks.add(life));
    }
}

/// In memory that lives as long as the process: the thread that measures must not allocate, or it would have a heap.
fn room_for_blocks() -> Option<&'static mut Blocks> {
    let memory = GLOBAL.arena.allocate(size_of::<Blocks>(), align_of::<Blocks>())?.cast::<Blocks>();
    // SAFETY: fresh memory of this size and alignment that nobody else has. All of it is zero, and `Blocks` is made of numbers.
    let blocks: &'static mut Blocks = unsafe { &mut *memory.as_ptr() };
    blocks.clear();
    Some(blocks)
}

/// What the watched blocks of the program say; see [`observed_blocks`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ObservedBlocks {
    /// Sizes, lifetimes, sites.
    pub summary: Summary,
    /// Blocks that were watched.
    pub watched: u64,
    /// Blocks that were to be watched and whose lives are not known: there was no place for them, or the ring was full.
    pub lost: u64,
    /// Blocks that were not watched because the thread had watched another one just before.
    pub crowded: u64,
    /// One allocation of a class in this many is watched at present.
    pub distance: u32,
    /// What watching has cost: nanoseconds of all threads together.
    pub spent_ns: u64,
}

/// What the watched blocks say of the sizes, lifetimes and origins of all blocks of the program. `None` if none has been watched: only
/// OBSERVE and LEARN watch blocks, as many as cost a thousandth of the processor time.
#[must_use]
pub fn observed_blocks() -> Option<ObservedBlocks> {
    let (state, stats) = (&GLOBAL.watcher, GLOBAL.watcher.pool.stats());
    if stats.births == 0 {
        return None;
    }
    let mut blocks = state.blocks.lock();
    collect_into(&mut blocks);
    let now_ns = clock::monotonic_ns();
    let for_each_alive = |visit: &mut Visit<'_>| state.pool.for_each_alive(now_ns, look, visit);
    let summary = blocks.as_mut()?.summary(now_ns.saturating_sub(GLOBAL.learning.began_ns()), &for_each_alive);
    Some(ObservedBlocks {
        summary,
        watched: stats.births,
        lost: stats.no_place + stats.lost,
        crowded: state.crowded.load_relaxed(),
        distance: state.distance.load_relaxed(),
        spent_ns: state.spent_ns.load_relaxed(),
    })
}

/// Shows what watched blocks say that site rules should be made of, for a policy with this purge delay.
pub(crate) fn for_each_hint(purge_delay_ms: u32, visit: &mut dyn FnMut(&SiteHint)) {
    let state = &GLOBAL.watcher;
    if state.pool.stats().births == 0 {
        return;
    }
    let mut blocks = state.blocks.lock();
    collect_into(&mut blocks);
    let (now_ns, totals) = (clock::monotonic_ns(), observe::totals());
    let costs = SiteCosts {
        elapsed_ns: now_ns.saturating_sub(GLOBAL.learning.began_ns()),
        cpu_ns: totals.cpu_ns,
        page_faults: totals.page_faults,
        resident_bytes: (state.resident_mib.load_relaxed() << 20)
            .checked_div(state.windows.load_relaxed())
            .unwrap_or(totals.resident_bytes),
        purge_delay_ms,
        weights: GLOBAL.boot().learner.weights(),
    };
    let for_each_alive = |visit: &mut Visit<'_>| state.pool.for_each_alive(now_ns, look, visit);
    if let Some(blocks) = blocks.as_mut() {
        blocks.for_each_hint(&costs, &for_each_alive, visit);
    }
}

/// Whether there is anything to show.
pub(crate) fn has_hints(purge_delay_ms: u32) -> bool {
    let mut is_any = false;
    for_each_hint(purge_delay_ms, &mut |_| is_any = true);
    is_any
}

/// For the statistics.
pub(crate) struct Costs {
    pub watched: u64,
    pub lost: u64,
    pub share_ppm: u64,
}

pub(crate) fn costs() -> Costs {
    let (state, stats) = (&GLOBAL.watcher, GLOBAL.watcher.pool.stats());
    Costs {
        watched: stats.births,
        lost: stats.no_place + stats.lost,
        share_ppm: clock::share_of_process_ppm(state.spent_ns.load_relaxed()),
    }
}

/// Before a fork, ahead of the locks of what is below.
pub(crate) fn lock_for_fork() {
    GLOBAL.watcher.blocks.lock_for_fork();
}

/// After it, in parent and child.
///
/// # Safety
/// - This thread (or the thread that it is a forked copy of) called [`lock_for_fork`].
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: passed on to the caller.
    unsafe { GLOBAL.watcher.blocks.unlock_after_fork() };
}

/// A forked child begins anew: what its parent's blocks were is not its own. Those in use stay watched. After the locks were released.
pub(crate) fn forget_in_child() {
    let state = &GLOBAL.watcher;
    state.pool.forget_in_child();
    state.spent_ns.store_relaxed(0);
    state.crowded.store_relaxed(0);
    state.windows.store_relaxed(0);
    state.resident_mib.store_relaxed(0);
    if let Some(blocks) = state.blocks.lock().as_mut() {
        blocks.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_lets_the_gap_pass_and_hears_of_each_distance_once() {
        let pace = Pace::new();
        let begin_ns = (1 << 50) + (1 << 40);
        assert!(pace.try_begin(2_000_000, begin_ns));
        assert!(!pace.try_begin(2_000_000, begin_ns) && !pace.try_begin(2_000_000, begin_ns + 1_900_000));
        assert!(pace.try_begin(2_000_000, begin_ns + 2_200_000));
        assert!(!pace.try_begin(2_000_000, begin_ns + 2_300_000));
        for distance in [64, 128, LARGEST_DISTANCE, NEVER - 1, 0] {
            assert!(pace.note(distance) && !pace.note(distance));
        }
    }

    #[test]
    fn the_distance_grows_at_once_with_the_price_and_shrinks_by_halves() {
        // A tenth of the time: a hundred times what is aimed at.
        assert_eq!(next_distance(1024, 100_000, 1_000_000), 1024 * 128);
        assert_eq!(next_distance(1024, 0, 1_000_000), 512);
        assert_eq!(next_distance(1024, 1000, 1_000_000), 1024);
        assert_eq!(next_distance(LEAST_DISTANCE, 0, 1), LEAST_DISTANCE);
        assert_eq!(next_distance(LARGEST_DISTANCE, u64::MAX, 1), LARGEST_DISTANCE);
    }

    /// A program whose allocations cost a tenth as much as the last one's, or ten times as much: from any distance to
    /// within the aim, give or take what a factor of two steps over.
    #[test]
    fn the_price_comes_to_the_target_from_both_sides() {
        for (allocs, mut distance) in [(1_000_000_u64, LEAST_DISTANCE), (1_000_000, LARGEST_DISTANCE), (1000, 1 << 15)]
        {
            let spent = |distance: u32| allocs * 5000 / u64::from(distance);
            for _ in 0..30 {
                distance = next_distance(distance, spent(distance), 100_000_000);
            }
            let share_ppm = spent(distance) / 100;
            assert!(share_ppm <= TARGET_PPM * 2, "{share_ppm} at {distance}");
            assert!(share_ppm >= TARGET_PPM / 8 || distance == LEAST_DISTANCE, "{share_ppm} at {distance}");
        }
    }
}
