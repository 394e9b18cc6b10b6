//! A thread's cache of freed runs.

use crate::context::{Block, LARGE_CLASS_COUNT, RunContext, Shape, large_class};
use crate::newest::Newest;
use crate::shared::{self, hand_out, low_bits};
use crate::slots::{CachedRun, SLOT_COUNT, Slots};
use core::cell::Cell;
use hakmem_atomic_ops::Owned64;
use hakmem_base::{SLAB_BYTES, SLABS_PER_SUPERSLAB, SlabIndex};
use static_assertions::const_assert;

/// Bundles are made of runs up to this long (units).
const BUNDLED_UNITS: u32 = 4;
/// Misses of one unit count in a row before a bundle is taken.
const MISSES_BEFORE_BUNDLE: u8 = 2;

/// Freed runs that one thread keeps, newest first out, oldest first back to the OS box. All-zero bytes are an empty cache.
///
/// Methods take `&self`; the cache is not `Sync`, so one thread calls them. The counters may be read by any thread.
pub struct RunCache {
    /// The policy's bounds hold for `newest`, or the room that it left, and `slots` together.
    newest: Newest,
    slots: Slots,
    /// Flips at every trim.
    tick: Cell<bool>,
    missed_units: Cell<u8>,
    miss_streak: Cell<u8>,
    requests: [Owned64; LARGE_CLASS_COUNT],
    hits: [Owned64; LARGE_CLASS_COUNT],
    /// Requests served by the newest run at the first look; not among the others.
    again: [Owned64; LARGE_CLASS_COUNT],
    bundles: Owned64,
    allocated_bytes: Owned64,
    freed_bytes: Owned64,
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
            newest: Newest::new(),
            slots: Slots::new(),
            tick: Cell::new(false),
            missed_units: Cell::new(0),
            miss_streak: Cell::new(0),
            requests: [const { Owned64::new(0) }; LARGE_CLASS_COUNT],
            hits: [const { Owned64::new(0) }; LARGE_CLASS_COUNT],
            again: [const { Owned64::new(0) }; LARGE_CLASS_COUNT],
            bundles: Owned64::new(0),
            allocated_bytes: Owned64::new(0),
            freed_bytes: Owned64::new(0),
        }
    }

    /// A block of at least `bytes` bytes (1..=2 MiB) in the run that was freed last, if that has exactly as many units as it needs;
    /// else [`RunCache::allocate`] looks further.
    #[inline]
    #[must_use]
    pub fn allocate_again(&self, cx: &RunContext<'_>, bytes: usize) -> Option<Block> {
        let shape = Shape::of(bytes, 1)?;
        let first = self.newest.take(shape.units)?;
        count(&self.again, large_class(shape.units));
        self.allocated_bytes.add(shape.bytes as u64);
        hand_out(cx, first, shape.units, &shape, false)
    }

    /// A block of at least `bytes` bytes (1..=2 MiB), aligned to `align` (a power of two up to 2 MiB).
    #[must_use]
    pub fn allocate(&self, cx: &RunContext<'_>, bytes: usize, align: usize) -> Option<Block> {
        let shape = Shape::of(bytes, align)?;
        let widest = shape.widest(cx.policy.w_max_permille);
        let class = large_class(shape.units);
        count(&self.requests, class);
        self.list_newest();
        let block = if let Some(run) = self.slots.take_fit(shape.units, widest, shape.align_units) {
            count(&self.hits, class);
            self.newest.leave_room(u32::from(run.units));
            hand_out(cx, run.first, u32::from(run.units), &shape, run.zeroed)
        } else {
            self.allocate_slow(cx, &shape)
        }?;
        self.allocated_bytes.add(shape.bytes as u64);
        Some(block)
    }

    /// Keeps the run of a freed block of `units` units and `bytes` usable bytes where the run that was taken last had as many units,
    /// if `claim` is won. False: nothing was done, and [`RunCache::free`] does it or there was no such block.
    #[inline]
    #[must_use]
    pub fn free_again(&self, index: SlabIndex, units: u32, bytes: usize, claim: impl FnOnce() -> bool) -> bool {
        let is_kept = self.newest.has_room(units) && claim();
        if is_kept {
            self.newest.put(index, units);
            self.freed_bytes.add(bytes as u64);
        }
        is_kept
    }

    /// Keeps the run of a freed block of `units` units and `bytes` usable bytes. The caller has won `claim`.
    pub fn free(&self, cx: &RunContext<'_>, index: SlabIndex, units: u32, bytes: usize) {
        self.freed_bytes.add(bytes as u64);
        self.list_newest();
        if self.make_room(cx, units) {
            self.newest.put(index, units);
        } else {
            cx.os.give_run(index, units);
        }
    }

    /// Puts the newest run into the list, where longer or shorter requests and whoever lets the oldest go look for it.
    fn list_newest(&self) {
        if let Some((first, units)) = self.newest.clear() {
            let is_listed =
                self.slots.push(CachedRun { first, units: units as u8, zeroed: false, tick: self.tick.get() });
            hakmem_base::invariant!(is_listed, "run cache: the newest run finds no place in the list");
        }
    }

    /// Changes a block's size without moving it; see [`shared::resize_in_place`]. A run that this cache keeps right behind
    /// the block counts as free. False: nothing changed, the caller moves the block.
    #[must_use]
    pub fn resize_in_place(&self, cx: &RunContext<'_>, index: SlabIndex, units: u32, new_bytes: usize) -> bool {
        let resized = shared::resize_in_place(cx, index, units, new_bytes).or_else(|| {
            let needed = Shape::of(new_bytes, 1)?.units;
            if index.slot() + needed > SLABS_PER_SUPERSLAB {
                return None;
            }
            self.list_newest();
            let behind = self.slots.take_at(index.add(units))?;
            cx.os.give_run(behind.first, u32::from(behind.units));
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

    /// Gives all cached runs back.
    pub fn flush(&self, cx: &RunContext<'_>) {
        self.list_newest();
        while let Some(run) = self.slots.take_oldest() {
            cx.os.give_run(run.first, u32::from(run.units));
        }
    }

    /// Gives the runs back that came before the previous trim and were not used since.
    pub fn trim(&self, cx: &RunContext<'_>) {
        self.list_newest();
        while let Some(run) = self.slots.take_stale(self.tick.get()) {
            cx.os.give_run(run.first, u32::from(run.units));
        }
        self.tick.set(!self.tick.get());
    }

    /// Bytes of the cached runs. Any thread may ask.
    #[must_use]
    pub fn cached_bytes(&self) -> usize {
        (self.newest.units() + self.slots.units()) as usize * SLAB_BYTES
    }

    /// Requests so far, by class of the size asked for, and how many of them a cached run served. Any thread may ask.
    #[must_use]
    pub fn flow(&self) -> [RunFlow; LARGE_CLASS_COUNT] {
        let mut flow = [RunFlow::default(); LARGE_CLASS_COUNT];
        let counts = self.requests.iter().zip(&self.hits).zip(&self.again);
        for (flow, ((requests, hits), again)) in flow.iter_mut().zip(counts) {
            *flow = RunFlow { requests: requests.get() + again.get(), hits: hits.get() + again.get() };
        }
        flow
    }

    /// Requests served by a cached run. Any thread may ask.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.iter().chain(&self.again).map(Owned64::get).sum()
    }

    /// Requests that went to the OS box. Any thread may ask.
    #[must_use]
    pub fn misses(&self) -> u64 {
        let listed = |counts: &[Owned64; LARGE_CLASS_COUNT]| counts.iter().map(Owned64::get).sum::<u64>();
        listed(&self.requests).saturating_sub(listed(&self.hits))
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

    /// Panics (tests) or aborts if the cache's counts do not balance.
    pub fn check_invariants(&self) {
        self.slots.check_invariants();
    }

    #[cold]
    #[inline(never)]
    fn allocate_slow(&self, cx: &RunContext<'_>, shape: &Shape) -> Option<Block> {
        if let Some(block) = self.allocate_bundle(cx, shape) {
            return Some(block);
        }
        let run = cx.os.take_run(shape.units, shape.align_units).or_else(|| {
            // Out of memory: what this cache keeps may be what is missing.
            self.flush(cx);
            cx.os.take_run(shape.units, shape.align_units)
        })?;
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
            let (zeroed, tick) = (piece_clean(piece), self.tick.get());
            self.keep(cx, CachedRun { first, units: shape.units as u8, zeroed, tick });
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
        let free_places = cap.min(room).saturating_sub(self.slots.class_len(class));
        cx.policy.bundle_runs.min(SLABS_PER_SUPERSLAB / shape.units).min(free_places + 1)
    }

    /// Puts a run into the list, and the oldest ones back to the OS box where a bound would be passed. There is no newest run.
    fn keep(&self, cx: &RunContext<'_>, run: CachedRun) {
        if !(self.make_room(cx, u32::from(run.units)) && self.slots.push(run)) {
            cx.os.give_run(run.first, u32::from(run.units));
        }
    }

    /// Gives the oldest runs back until one of `units` units more is within every bound. False if it can never be.
    fn make_room(&self, cx: &RunContext<'_>, units: u32) -> bool {
        let policy = &cx.policy;
        let class = large_class(units);
        let max_units = policy.cache_bytes / SLAB_BYTES as u32;
        let max_runs = (policy.cache_runs as usize).min(SLOT_COUNT);
        let class_cap = policy.large_cap.get(class).copied().unwrap_or(0);
        if units > max_units || max_runs == 0 || class_cap == 0 {
            return false;
        }
        while self.slots.class_len(class) >= class_cap {
            let Some(oldest) = self.slots.take_oldest_of(class) else { break };
            cx.os.give_run(oldest.first, u32::from(oldest.units));
        }
        while self.slots.len() >= max_runs || self.slots.units() + units > max_units {
            let Some(oldest) = self.slots.take_oldest() else { break };
            cx.os.give_run(oldest.first, u32::from(oldest.units));
        }
        true
    }
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
