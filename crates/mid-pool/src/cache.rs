//! A thread's cache of freed runs.

use crate::context::{Block, GRAIN_BYTES, LARGE_CLASS_COUNT, RunContext, RunPolicy, Shape, large_class, most_units};
use crate::lanes::{FreeRun, Lanes, Lengths, MAX_RUNS};
use crate::raw::View;
use crate::shared::{self, hand_out, low_bits};
use core::cell::Cell;
use core::ptr::NonNull;
use hakmem_atomic_ops::Owned64;
use hakmem_base::{RUN_MAX_BYTES, SLAB_BYTES, SLAB_SHIFT, SLABS_PER_SUPERSLAB, SlabIndex};
use hakmem_ownership::RouteWord;
use static_assertions::const_assert;

/// Bundles are made of runs up to this long (units).
const BUNDLED_UNITS: u32 = 4;
/// Misses of one unit count in a row before a bundle is taken.
const MISSES_BEFORE_BUNDLE: u8 = 2;

/// Freed runs that one thread keeps, newest first out, oldest first back to the OS box. All-zero bytes are an empty cache.
///
/// Methods take `&self`; the cache is not `Sync`, so one thread calls them. The counters may be read by any thread. In this order, so
/// that what a request and a free of a few units need lies in neighbouring lines.
#[repr(C)]
pub struct RunCache {
    /// Where the runs lie for which there was room so far.
    view: View,
    allocated_bytes: Owned64,
    freed_bytes: Owned64,
    lanes: Lanes,
    missed_units: Cell<u8>,
    miss_streak: Cell<u8>,
    /// Without those that [`RunCache::allocate_again`] served, which the lanes count.
    requests: [Owned64; LARGE_CLASS_COUNT],
    hits: [Owned64; LARGE_CLASS_COUNT],
    bundles: Owned64,
}

const_assert!(size_of::<RunCache>() <= 1024);

/// Requests for runs of one class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RunFlow {
    /// Requests.
    pub requests: u64,
    /// Of these, requests that a cached run served.
    pub hits: u64,
}

impl RunCache {
    /// An empty cache.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            view: View::nowhere(),
            allocated_bytes: Owned64::new(0),
            freed_bytes: Owned64::new(0),
            lanes: Lanes::new(),
            missed_units: Cell::new(0),
            miss_streak: Cell::new(0),
            requests: [const { Owned64::new(0) }; LARGE_CLASS_COUNT],
            hits: [const { Owned64::new(0) }; LARGE_CLASS_COUNT],
            bundles: Owned64::new(0),
        }
    }

    /// A block of at least `bytes` bytes in the run that was freed last of those that have exactly as many units as it needs. `None`:
    /// there is none, and [`RunCache::allocate`] looks further.
    ///
    /// # Safety
    /// - The window and the route words that this cache was used with still exist.
    #[inline(always)]
    #[must_use]
    pub unsafe fn allocate_again(&self, bytes: usize) -> Option<NonNull<u8>> {
        let last = bytes.wrapping_sub(1);
        if last >= RUN_MAX_BYTES {
            return None;
        }
        let place = last >> SLAB_SHIFT;
        // SAFETY: a run that is kept lies in the window that the view knows.
        let (first, word) = self.lanes.take(place, |first| unsafe { self.view.word(first) })?;
        let usable_bytes = (last | (GRAIN_BYTES - 1)) + 1;
        self.allocated_bytes.add(usable_bytes as u64);
        word.set_run(place as u32 + 1, usable_bytes);
        Some(self.view.address_of(first))
    }

    /// A block of at least `bytes` bytes (1..=2 MiB), aligned to `align` (a power of two up to 2 MiB).
    #[must_use]
    pub fn allocate(&self, cx: &RunContext<'_>, bytes: usize, align: usize) -> Option<Block> {
        let shape = Shape::of(bytes, align)?;
        let widest = shape.widest(cx.policy.w_max_permille);
        let class = large_class(shape.units);
        count(&self.requests, class);
        let block = if let Some(run) = self.lanes.take_fit(cx, shape.units, widest, shape.align_units) {
            count(&self.hits, class);
            hand_out(cx, run.first, run.units, &shape, run.zeroed)
        } else {
            self.allocate_slow(cx, &shape)
        }?;
        self.allocated_bytes.add(shape.bytes as u64);
        Some(block)
    }

    /// Keeps the run of the freed block at `address`, which lies in the unit `index` with this word, if there is room for
    /// one of its length, and claims it. False: nothing was done, and whoever frees it looks at what it is.
    #[inline(always)]
    #[must_use]
    pub fn free_again(&self, address: usize, index: SlabIndex, word: &RouteWord) -> bool {
        let Some(run) = word.run() else { return false };
        if !address.is_multiple_of(SLAB_BYTES)
            || !self.lanes.put(run.further_units(), index, |kept| word.claim_to_keep(run, kept))
        {
            return false;
        }
        self.freed_bytes.add(run.bytes() as u64);
        true
    }

    /// Takes the run of a freed block of `units` units and `bytes` usable bytes, and keeps it where there is room. The caller has won
    /// `claim`.
    pub fn free(&self, cx: &RunContext<'_>, index: SlabIndex, units: u32, bytes: usize) {
        self.freed_bytes.add(bytes as u64);
        if !self.lanes.put_in_room(cx, FreeRun { first: index, units, zeroed: false }) {
            self.lanes.turn_away(units);
            cx.os.give_run(index, units);
        }
    }

    /// Changes a block's size without moving it; see [`shared::resize_in_place`]. A run that this cache keeps right behind
    /// the block counts as free. False: nothing changed, the caller moves the block.
    #[must_use]
    #[unsafe(link_section = ".text.hot.hakmem.long")]
    pub fn resize_in_place(&self, cx: &RunContext<'_>, index: SlabIndex, units: u32, new_bytes: usize) -> bool {
        let resized = shared::resize_in_place(cx, index, units, new_bytes).or_else(|| {
            let needed = Shape::of(new_bytes, 1)?.units;
            if index.slot() + needed > SLABS_PER_SUPERSLAB {
                return None;
            }
            let behind = self.lanes.remove_at(cx, index.add(units))?;
            cx.os.give_run(behind.first, behind.units);
            shared::resize_in_place(cx, index, units, new_bytes)
        });
        let Some(resized) = resized else { return false };
        if resized.new_bytes >= resized.old_bytes {
            self.allocated_bytes.add((resized.new_bytes - resized.old_bytes) as u64);
        } else {
            self.freed_bytes.add((resized.old_bytes - resized.new_bytes) as u64);
        }
        true
    }

    /// Gives all cached runs back, and begins anew: the next one to use this cache may be another thread.
    #[unsafe(link_section = ".text.hot.hakmem.long")]
    pub fn flush(&self, cx: &RunContext<'_>) {
        self.lanes.forget_room(Lengths::ALL);
        while let Some(run) = self.lanes.remove_any(cx) {
            cx.os.give_run(run.first, run.units);
        }
        self.lanes.note_trim();
    }

    /// Gives the runs back that came before the previous trim and were not used since.
    #[unsafe(link_section = ".text.hot.hakmem.long")]
    pub fn trim(&self, cx: &RunContext<'_>) {
        self.lanes.forget_room(Lengths::ALL);
        while let Some(run) = self.lanes.remove_stale(cx) {
            cx.os.give_run(run.first, run.units);
        }
        self.lanes.note_trim();
    }

    /// Gives back the runs that the bounds of `cx.policy` have no room for: after a change of the policy.
    #[inline]
    pub fn fit(&self, cx: &RunContext<'_>) {
        if self.lanes.held_runs() != 0 {
            self.fit_slow(cx);
        }
    }

    /// Bytes of the cached runs. Any thread may ask.
    #[must_use]
    #[unsafe(link_section = ".text.hot.hakmem")]
    pub fn cached_bytes(&self) -> usize {
        self.lanes.units() as usize * SLAB_BYTES
    }

    /// Requests so far, by class of the size asked for, and how many of them a cached run served. Any thread may ask.
    #[must_use]
    pub fn flow(&self) -> [RunFlow; LARGE_CLASS_COUNT] {
        let mut flow = [RunFlow::default(); LARGE_CLASS_COUNT];
        for (flow, (requests, hits)) in flow.iter_mut().zip(self.requests.iter().zip(&self.hits)) {
            *flow = RunFlow { requests: requests.get(), hits: hits.get() };
        }
        for (units, taken) in self.lanes.taken() {
            if let Some(flow) = flow.get_mut(large_class(units)) {
                flow.requests += taken;
                flow.hits += taken;
            }
        }
        flow
    }

    /// Requests served by a cached run. Any thread may ask.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.flow().iter().map(|flow| flow.hits).sum()
    }

    /// Requests that went to the OS box. Any thread may ask.
    #[must_use]
    pub fn misses(&self) -> u64 {
        self.flow().iter().map(|flow| flow.requests.saturating_sub(flow.hits)).sum()
    }

    /// Misses that took several runs at once. Any thread may ask.
    #[must_use]
    pub fn bundles(&self) -> u64 {
        self.bundles.get()
    }

    /// Usable bytes handed out so far, growth in place included. Any thread may ask.
    #[must_use]
    pub fn allocated_bytes(&self) -> u64 {
        self.allocated_bytes.get()
    }

    /// Usable bytes taken back so far (of blocks that any cache handed out), shrinking in place included. Any thread may ask.
    #[must_use]
    pub fn freed_bytes(&self) -> u64 {
        self.freed_bytes.get()
    }

    /// Panics (tests) or aborts if the cache's counts do not balance. No other thread may be active.
    pub fn check_invariants(&self, cx: &RunContext<'_>) {
        self.lanes.check_invariants(cx);
    }

    /// Requests and frees of one length leave room to each other and never look at the bounds: so room goes first, and then the runs
    /// that would be taken.
    #[cold]
    #[inline(never)]
    fn fit_slow(&self, cx: &RunContext<'_>) {
        let lanes = &self.lanes;
        lanes.forget_room(Lengths::ALL);
        for (class, &class_cap) in cx.policy.large_cap.iter().enumerate() {
            while lanes.held_of(class) > class_cap && self.let_go(cx, lengths_of_class(class)) {}
        }
        let (max_runs, max_units) = bounds(&cx.policy);
        let is_over = || lanes.held_runs() > max_runs || lanes.held_units() > max_units;
        while is_over() && self.let_go(cx, Lengths::ALL) {}
    }

    #[cold]
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.hakmem.long")]
    fn allocate_slow(&self, cx: &RunContext<'_>, shape: &Shape) -> Option<Block> {
        if self.lanes.is_missed(shape.units) && self.make_room(cx, shape.units) {
            self.view.learn(cx);
            self.lanes.leave_room(shape.units);
        }
        if let Some(block) = self.allocate_bundle(cx, shape) {
            return Some(block);
        }
        let run = cx.os.take_run(shape.units, shape.align_units).or_else(|| {
            // Out of memory: what this cache keeps may be what is missing.
            self.flush(cx);
            cx.os.take_run(shape.units, shape.align_units)
        })?;
        if run.clean != 0 {
            // The process grows: what idles here serves better elsewhere.
            self.trim(cx);
        }
        let all = low_bits(shape.units);
        hand_out(cx, run.first, shape.units, shape, run.clean & all == all)
    }

    /// After repeated misses of one small unit count: one longer run, cut into several.
    fn allocate_bundle(&self, cx: &RunContext<'_>, shape: &Shape) -> Option<Block> {
        let same = u32::from(self.missed_units.get()) == shape.units;
        let streak = if same { self.miss_streak.get().saturating_add(1) } else { 1 };
        self.missed_units.set(shape.units as u8);
        self.miss_streak.set(streak);
        let pieces = self.bundle_pieces(cx, shape);
        if pieces < 2 || streak < MISSES_BEFORE_BUNDLE || shape.align_units > 1 {
            return None;
        }
        let run = cx.os.take_run(shape.units * pieces, 1)?;
        self.bundles.add(1);
        let piece_clean = |piece: u32| {
            let bits = low_bits(shape.units);
            (run.clean >> (piece * shape.units)) & bits == bits
        };
        // Highest first, so that the cache, newest first, hands them out upwards.
        for piece in (1..pieces).rev() {
            let first = run.first.add(piece * shape.units);
            self.keep(cx, FreeRun { first, units: shape.units, zeroed: piece_clean(piece) });
        }
        hand_out(cx, run.first, shape.units, shape, piece_clean(0))
    }

    /// How many runs a bundle for this request has: as policy says, within a superslab and within what the cache may keep.
    fn bundle_pieces(&self, cx: &RunContext<'_>, shape: &Shape) -> u32 {
        if shape.units > BUNDLED_UNITS {
            return 1;
        }
        let class = large_class(shape.units);
        let cap = cx.policy.large_cap.get(class).copied().unwrap_or(0).min(cx.policy.cache_runs);
        let room = (cx.policy.cache_bytes as usize / SLAB_BYTES) as u32 / shape.units;
        let free_places = cap.min(room).saturating_sub(self.lanes.held_of(class));
        cx.policy.bundle_runs.min(SLABS_PER_SUPERSLAB / shape.units).min(free_places + 1)
    }

    /// Keeps a fresh run, and gives older ones back to the OS box where a bound would be passed.
    #[unsafe(link_section = ".text.hot.hakmem.long")]
    fn keep(&self, cx: &RunContext<'_>, run: FreeRun) {
        self.view.learn(cx);
        if self.make_room(cx, run.units) {
            self.lanes.put_new(cx, run);
        } else {
            cx.os.give_run(run.first, run.units);
        }
    }

    /// Gives the oldest runs of other lengths back until one of `units` units more is within every bound. False if it cannot be.
    fn make_room(&self, cx: &RunContext<'_>, units: u32) -> bool {
        let (policy, lanes) = (&cx.policy, &self.lanes);
        let class = large_class(units);
        let (max_runs, max_units) = bounds(policy);
        let class_cap = policy.large_cap.get(class).copied().unwrap_or(0);
        if units > max_units || max_runs == 0 || class_cap == 0 {
            return false;
        }
        let this = Lengths::between(units, units);
        let others = lengths_of_class(class).without(this);
        let is_over = || lanes.held_of(class) >= class_cap;
        while is_over() && self.let_go(cx, others) {}
        let is_full = || lanes.held_runs() >= max_runs || lanes.held_units() + units > max_units;
        while is_full() && self.let_go(cx, Lengths::ALL.without(this)) {}
        !is_over() && !is_full()
    }

    /// Lets room for runs of these lengths go, else the oldest run. False: there was neither.
    #[unsafe(link_section = ".text.hot.hakmem.long")]
    fn let_go(&self, cx: &RunContext<'_>, lengths: Lengths) -> bool {
        if self.lanes.forget_room(lengths) {
            return true;
        }
        let Some(oldest) = self.lanes.remove_oldest(cx, lengths) else { return false };
        cx.os.give_run(oldest.first, oldest.units);
        true
    }
}

/// Runs that the cache may have in all, and units of them.
fn bounds(policy: &RunPolicy) -> (u32, u32) {
    (policy.cache_runs.min(MAX_RUNS), policy.cache_bytes / SLAB_BYTES as u32)
}

/// The lengths of which [`large_class`] says `class`.
const fn lengths_of_class(class: usize) -> Lengths {
    let least = if class == 0 { 1 } else { most_units(class - 1) + 1 };
    Lengths::between(least, most_units(class))
}

#[inline]
fn count(counts: &[Owned64; LARGE_CLASS_COUNT], class: usize) {
    if let Some(count) = counts.get(class) {
        count.add(1);
    }
}

impl Default for RunCache {
    fn default() -> Self {
        Self::new()
    }
}
