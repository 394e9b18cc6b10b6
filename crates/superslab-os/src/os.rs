//! The public face: every operation takes the lock, lets the pool decide, and makes system calls.

use crate::policy::{OsPolicy, WindowConfig};
use crate::pool::{Advice, Pool};
use crate::purge::{Batch, Scope};
use crate::record::{HUGE, Kind};
use crate::residence;
use crate::stats::OsStats;
use crate::sys;
use crate::window::{Reservation, Window};
use core::ops::Range;
use hakmem_atomic_ops::{Flag, Lock, LockGuard, Shared64};
use hakmem_base::{
    Hindsight, OS_PAGE_BYTES, SLAB_BYTES, SLAB_SHIFT, SLABS_PER_SUPERSLAB, SUPERSLAB_BYTES, SUPERSLAB_SHIFT, SlabIndex,
    fatal,
};

/// Superslabs by which the committed part grows at most in one step (64 MiB).
const MAX_COMMIT_STEP: u32 = 32;
/// Nothing waits for a purge.
const NEVER: u64 = u64::MAX;

/// Contiguous units inside one superslab.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The first unit.
    pub first: SlabIndex,
    /// Bit i: unit i of the run is known to read as zero.
    pub clean: u32,
}

/// Contiguous whole superslabs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// First unit of the first superslab.
    pub first: SlabIndex,
    /// How many superslabs.
    pub superslabs: u32,
    /// Whether all of it is known to read as zero.
    pub zeroed: bool,
}

/// What becomes of the OS pages behind an extent that is given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purge {
    /// They go back to the kernel before the call returns.
    Now,
    /// They stay for the next user until the purge delay is over.
    Later,
    /// There are none worth keeping: the caller knows that all of the extent reads as zero
    /// (after [`SuperslabOs::move_pages`] or [`SuperslabOs::decommit`]).
    Clean,
}

/// The window and everything in it.
#[derive(Debug)]
pub struct SuperslabOs {
    pool: Lock<Pool>,
    /// Held by whoever has units in a purger's hands, so that a fork can wait for them. Taken before `pool`.
    purger: Lock<Batch>,
    reservation: Reservation,
    /// Nobody may ask the kernel what is in memory any more.
    is_blind: Flag,
    /// Coarse time (ms) at which a purge is due. Written under `pool`; relaxed, because a purger looks again under it.
    due_at_ms: Shared64,
}

// Statics hold the box, and any thread may call it.
static_assertions::assert_impl_all!(SuperslabOs: Send, Sync);

/// Why nothing was handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refused {
    /// The window or the kernel has no more, or a purger holds what is left.
    NoPlace,
    /// The memory limit forbids it.
    Limit,
}

/// What is to be done without the lock when units were taken, mostly nothing.
struct Opened {
    advice: Advice,
    /// Another one is to be looked at, with so many units in use.
    probe: Option<(u32, u32)>,
}

fn index_of_superslab(superslab: u32) -> SlabIndex {
    SlabIndex::new(superslab * SLABS_PER_SUPERSLAB)
}

impl SuperslabOs {
    /// A box without a window.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            pool: Lock::new(Pool::empty()),
            purger: Lock::new(Batch::new()),
            reservation: Reservation::new(),
            is_blind: Flag::new(false),
            due_at_ms: Shared64::new(NEVER),
        }
    }

    /// Reserves the window, or returns the one that exists. Asks for less after each refusal, down to 32 MiB; of a
    /// limited address space it reserves next to nothing ahead. `None`: nothing could be had.
    pub fn reserve(&self, config: WindowConfig) -> Option<Window> {
        let mut pool = self.pool.lock();
        if let Some(window) = self.reservation.window() {
            return Some(window);
        }
        self.reservation.reserve(config, |window| {
            let phase = (window.base.addr() >> SUPERSLAB_SHIFT) as u32;
            pool.attach(window.slab_count / SLABS_PER_SUPERSLAB, phase)
        })
    }

    /// The window, once reserved.
    #[inline]
    #[must_use]
    pub fn window(&self) -> Option<Window> {
        self.reservation.window()
    }

    /// The process is about to have an address space of at most so many bytes. If more than half of them are reserved, what is not
    /// committed is released; the window then grows into what it needs, up to three quarters of them, as long as nobody else has mapped
    /// anything there.
    pub fn fit(&self, limit_bytes: usize) {
        let _pool = self.pool.lock();
        self.reservation.fit(limit_bytes);
    }

    /// The units of the window that may be in use, now or ever before. One relaxed load, for whoever looks at all of them.
    #[must_use]
    pub fn units_used(&self) -> Range<u32> {
        SLABS_PER_SUPERSLAB..(self.reservation.committed_bytes() >> SLAB_SHIFT) as u32
    }

    /// Whether the address lies in the window, where it is reserved. Elsewhere in it there is somebody else's memory, or nothing.
    #[inline]
    #[must_use]
    pub fn has_reserved(&self, address: usize) -> bool {
        self.reservation.has_reserved(address)
    }

    /// Whether the window may soon have no place for what is asked for. Cheap.
    #[inline]
    #[must_use]
    pub fn may_run_out(&self) -> bool {
        self.reservation.may_run_out()
    }

    /// Replaces the policy. What the warm pool keeps waits for a purge anew.
    #[unsafe(link_section = ".text.hot.hakmem")]
    pub fn set_policy(&self, policy: OsPolicy) {
        let (mut pool, now) = self.lock();
        let changes_lists = pool.policy.tiering != policy.tiering;
        pool.policy = policy;
        if changes_lists {
            pool.relist_all();
        }
        pool.watch.set_delay(policy.purge_delay_ms);
        pool.unpark_all(now as u32);
        // ORDERING: a switch of its own, read relaxed; no data travels.
        self.reservation.guard_abort.store_release(policy.madvise_guard_abort);
        self.publish(&pool, now);
    }

    /// Hands out 1 to 32 contiguous units inside one superslab, the first at a multiple of `align_units` (a power of two, at
    /// most 32). `None`: window or memory limit exhausted, or the kernel refused.
    #[must_use]
    pub fn take_run(&self, units: u32, align_units: u32) -> Option<Run> {
        self.take_run_at(units, align_units, None)
    }

    /// Like [`SuperslabOs::take_run`], but the run that begins at `before` if it waits to be used again: who uses the same of its OS
    /// pages as the last time touches no others.
    #[must_use]
    pub fn take_run_again(&self, units: u32, before: Option<SlabIndex>) -> Option<Run> {
        self.take_run_at(units, 1, before)
    }

    #[unsafe(link_section = ".text.hot.hakmem")]
    fn take_run_at(&self, units: u32, align_units: u32, before: Option<SlabIndex>) -> Option<Run> {
        if units == 0
            || units > SLABS_PER_SUPERSLAB
            || !align_units.is_power_of_two()
            || align_units > SLABS_PER_SUPERSLAB
        {
            return None;
        }
        let mut taken = self.try_take_run(units, align_units, before);
        if matches!(taken, Err(Refused::NoPlace)) {
            self.wait_for_purger();
            taken = self.try_take_run(units, align_units, None);
        }
        let (run, opened) = taken.ok()?;
        if opened.advice != Advice::Nothing || opened.probe.is_some() {
            self.heed_slow(run.first.superslab(), &opened);
        }
        // What waits dirty did not fit.
        if run.clean != 0 && self.purgeable_bytes() != 0 {
            self.purge_for_growth(run.clean.count_ones());
        }
        self.purge_due();
        Some(run)
    }

    /// Does what was found to be due when a unit of the superslab was taken.
    #[cold]
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.hakmem.long")]
    fn heed_slow(&self, superslab: u32, opened: &Opened) {
        let superslab = index_of_superslab(superslab);
        let _is_done = match opened.advice {
            Advice::Nothing => true,
            Advice::Huge => self.reservation.advise_huge(superslab, 0, SUPERSLAB_BYTES),
            Advice::Small => self.reservation.advise_small(superslab, 0, SUPERSLAB_BYTES),
        };
        if let Some((superslab, units)) = opened.probe
            && let Some(permille) = self.resident_permille(index_of_superslab(superslab), SUPERSLAB_BYTES)
        {
            self.pool.lock().probe.judge(permille, units);
        }
    }

    #[inline(never)]
    #[unsafe(link_section = ".text.hot.hakmem")]
    fn try_take_run(&self, units: u32, align_units: u32, before: Option<SlabIndex>) -> Result<(Run, Opened), Refused> {
        let (mut pool, now) = self.lock();
        self.check_limit(&pool, u64::from(units))?;
        let place = before.map(|unit| (unit.superslab(), unit.slot()));
        let place = place.filter(|&(superslab, slot)| pool.waits_dirty(superslab, slot, units));
        let (superslab, slot) = match place.or_else(|| pool.place_units(units, align_units)) {
            Some(place) => place,
            None => {
                let fresh = pool.place_superslab().ok_or(Refused::NoPlace);
                match fresh.and_then(|superslab| self.commit_or_place_below(&mut pool, superslab, 1, 1)) {
                    Ok(superslab) => (superslab, 0),
                    Err(refused) => pool.place_units_anywhere(units, align_units).ok_or(refused)?,
                }
            }
        };
        let kind = pool.read(superslab).kind;
        let clean = pool.take_units(superslab, slot, units, now as u32);
        let advice = pool.claim_advice(superslab, kind);
        let probe = if kind == Kind::Unused { pool.superslab_to_probe() } else { None };
        self.publish(&pool, now);
        Ok((Run { first: index_of_superslab(superslab).add(slot), clean }, Opened { advice, probe }))
    }

    /// Takes a run back. Its content counts as dirty from now on.
    #[unsafe(link_section = ".text.hot.hakmem")]
    pub fn give_run(&self, first: SlabIndex, units: u32) {
        self.give_units(first, units);
        self.purge_due();
    }

    fn give_units(&self, first: SlabIndex, units: u32) {
        if units == 0 {
            return;
        }
        let (mut pool, now) = self.lock();
        pool.give_units(first.superslab(), first.slot(), units, now as u32);
        self.publish(&pool, now);
    }

    /// Lengthens a run in place, if the units behind it are free. Returns the clean bits of the units added.
    #[must_use]
    pub fn grow_run(&self, first: SlabIndex, units: u32, new_units: u32) -> Option<u32> {
        let added = new_units.checked_sub(units).filter(|&added| added > 0)?;
        let slot = first.slot() + units;
        if slot.checked_add(added)? > SLABS_PER_SUPERSLAB {
            return None;
        }
        let (mut pool, now) = self.lock();
        self.check_limit(&pool, u64::from(added)).ok()?;
        let wanted = crate::bits::mask(slot, added);
        let record = pool.read(first.superslab());
        if record.kind != Kind::Slabs || record.free & wanted != wanted {
            return None;
        }
        let clean = pool.take_units(first.superslab(), slot, added, now as u32);
        self.publish(&pool, now);
        Some(clean)
    }

    /// Takes the units of a run behind the first `keep_units` back.
    pub fn shrink_run(&self, first: SlabIndex, units: u32, keep_units: u32) {
        if keep_units < units {
            self.give_run(first.add(keep_units), units - keep_units);
        }
    }

    /// Hands out whole contiguous superslabs, aligned by address to `align_superslabs` superslabs (a power of two). `room`
    /// more behind them are left free while there is another place.
    #[must_use]
    pub fn take_extent(&self, superslabs: u32, room: u32, align_superslabs: u32) -> Option<Extent> {
        self.take_extent_for(superslabs, room, align_superslabs, superslabs.saturating_mul(SLABS_PER_SUPERSLAB))
    }

    /// Like [`SuperslabOs::take_extent`], where no more than the first `used_units` units will be used.
    #[must_use]
    pub fn take_extent_for(
        &self,
        superslabs: u32,
        room: u32,
        align_superslabs: u32,
        used_units: u32,
    ) -> Option<Extent> {
        if superslabs == 0 || !align_superslabs.is_power_of_two() {
            return None;
        }
        let mut extent = self.try_take_extent(superslabs, room, align_superslabs, used_units);
        if matches!(extent, Err(Refused::NoPlace)) {
            self.wait_for_purger();
            extent = self.try_take_extent(superslabs, room, align_superslabs, used_units);
        }
        let (extent, grown) = extent.ok()?;
        if grown > 0 {
            self.purge_for_growth(grown.saturating_mul(SLABS_PER_SUPERSLAB));
        }
        self.purge_due();
        Some(extent)
    }

    /// The extent, and how many of its superslabs make the process grow.
    fn try_take_extent(
        &self,
        superslabs: u32,
        room: u32,
        align: u32,
        used_units: u32,
    ) -> Result<(Extent, u32), Refused> {
        let (mut pool, now) = self.lock();
        self.check_limit(&pool, u64::from(superslabs) * u64::from(SLABS_PER_SUPERSLAB))?;
        let first = pool.place_extent(superslabs, room, align).ok_or(Refused::NoPlace)?;
        let first = self.commit_or_place_below(&mut pool, first, superslabs, align)?;
        let fresh_before = pool.fresh_superslabs;
        let zeroed = pool.take_superslabs(first, superslabs, Kind::ExtentHead, used_units, now as u32);
        let grown = (pool.fresh_superslabs - fresh_before) as u32;
        pool.describe_extent(first, superslabs, room);
        self.publish(&pool, now);
        Ok((Extent { first: index_of_superslab(first), superslabs, zeroed }, grown))
    }

    /// Takes an extent back.
    pub fn give_extent(&self, first: SlabIndex, superslabs: u32, purge: Purge) {
        let is_clean = match purge {
            Purge::Now => self.reservation.discard(first, 0, (superslabs as usize) << SUPERSLAB_SHIFT),
            Purge::Later => false,
            Purge::Clean => true,
        };
        let (mut pool, now) = self.lock();
        Self::check_extent(&pool, first, superslabs);
        pool.describe_extent(first.superslab(), superslabs, 0);
        pool.give_superslabs(first.superslab(), superslabs, is_clean, now as u32);
        if purge == Purge::Now && is_clean {
            let units = u64::from(superslabs) * u64::from(SLABS_PER_SUPERSLAB);
            self.reservation.counters.purged_bytes.add_relaxed(units << SLAB_SHIFT);
        }
        self.publish(&pool, now);
        drop(pool);
        self.purge_due();
    }

    /// Thousandths of the first `bytes` bytes of an extent that are in memory, by a sample. `None`: the kernel does not say.
    #[must_use]
    pub fn resident_permille(&self, first: SlabIndex, bytes: usize) -> Option<u32> {
        if self.is_blind.is_set_relaxed() { None } else { residence::permille(self.address_of(first), bytes) }
    }

    /// From now on the kernel is not asked what is in memory: the process is about to be confined to other system calls.
    pub fn stop_looking(&self) {
        // ORDERING: a switch that is read relaxed; no data travels.
        self.is_blind.store_release(true);
    }

    /// Drops the contents of the first `bytes` bytes (whole OS pages) of an extent that the caller holds. True: they read
    /// as zero now, and hold no memory until they are written. False: the kernel refused, nothing has changed.
    #[must_use]
    pub fn zero_extent(&self, first: SlabIndex, bytes: usize) -> bool {
        self.reservation.discard(first, 0, bytes)
    }

    /// Drops the contents of units that the caller holds. True: they read as zero now, and hold no memory until they are
    /// written. False: the kernel refused, perhaps after a part (it goes from mapping to mapping, and a locked one ends it).
    #[must_use]
    pub fn discard_units(&self, first: SlabIndex, units: u32) -> bool {
        self.reservation.discard(first, 0, (units as usize) << SLAB_SHIFT)
    }

    fn check_extent(pool: &Pool, first: SlabIndex, superslabs: u32) {
        let head = pool.read(first.superslab());
        if first.slot() != 0 || head.kind != Kind::ExtentHead || head.extent_superslabs != superslabs {
            fatal("an extent was named that is not handed out");
        }
    }

    /// Lengthens an extent in place, if the superslabs behind it are free. Returns whether the added part reads as zero.
    #[must_use]
    pub fn grow_extent(&self, first: SlabIndex, superslabs: u32, new_superslabs: u32) -> Option<bool> {
        let added = new_superslabs.checked_sub(superslabs).filter(|&added| added > 0)?;
        let (mut pool, now) = self.lock();
        Self::check_extent(&pool, first, superslabs);
        self.check_limit(&pool, u64::from(added) * u64::from(SLABS_PER_SUPERSLAB)).ok()?;
        let start = first.superslab() + superslabs;
        if !pool.map.are_free(start, added) {
            return None;
        }
        self.ensure_committed(&mut pool, start + added).ok()?;
        let fresh_before = pool.fresh_superslabs;
        let zeroed = pool.take_superslabs(start, added, Kind::ExtentTail, added * SLABS_PER_SUPERSLAB, now as u32);
        let grown = (pool.fresh_superslabs - fresh_before) as u32;
        let room = pool.read(first.superslab()).room.saturating_sub(added);
        pool.describe_extent(first.superslab(), new_superslabs, room);
        self.publish(&pool, now);
        drop(pool);
        self.purge_for_growth(grown.saturating_mul(SLABS_PER_SUPERSLAB));
        Some(zeroed)
    }

    /// Takes the superslabs of an extent behind the first `keep` back; `keep` is at least 1.
    pub fn shrink_extent(&self, first: SlabIndex, superslabs: u32, keep: u32) {
        if keep == 0 || keep >= superslabs {
            return;
        }
        let (mut pool, now) = self.lock();
        Self::check_extent(&pool, first, superslabs);
        pool.describe_extent(first.superslab(), keep, 0);
        pool.give_superslabs(first.superslab() + keep, superslabs - keep, false, now as u32);
        self.publish(&pool, now);
        drop(pool);
        self.purge_due();
    }

    /// Moves the OS pages of `bytes` bytes (rounded up to an OS page) from one place that the caller holds to another, whose
    /// content is lost. `from` reads as zero afterwards. `false`: nothing moved, and the caller copies.
    #[must_use]
    pub fn move_pages(&self, from: SlabIndex, to: SlabIndex, bytes: usize) -> bool {
        let Some(bytes) = bytes.checked_next_multiple_of(OS_PAGE_BYTES) else { return false };
        if !self.reservation.move_pages(from, to, bytes) {
            return false;
        }
        // The huge-page advice travels with the mapping.
        if from.slot() == 0 && to.slot() == 0 {
            let mut pool = self.pool.lock();
            for offset in 0..(bytes >> SUPERSLAB_SHIFT) as u32 {
                let is_huge = pool.read(from.superslab() + offset).has(HUGE);
                let target = pool.record(to.superslab() + offset);
                if is_huge { target.set(HUGE) } else { target.clear(HUGE) }
            }
        }
        true
    }

    /// Asks for huge pages behind the whole superslabs within `bytes` bytes from `first` on, which the caller holds.
    pub fn advise_huge(&self, first: SlabIndex, bytes: usize) -> bool {
        let begin = first.superslab() + u32::from(first.slot() != 0);
        let end = ((first.to_usize() << SLAB_SHIFT).saturating_add(bytes) >> SUPERSLAB_SHIFT) as u32;
        if begin >= end {
            return false;
        }
        self.advise(begin, end, true)
    }

    /// Takes that back for the first `superslabs` superslabs from `first` on, which the caller holds, as far as nothing is in memory yet.
    pub fn advise_small(&self, first: SlabIndex, superslabs: u32) -> bool {
        self.advise(first.superslab(), first.superslab() + superslabs, false)
    }

    fn advise(&self, begin: u32, end: u32, huge: bool) -> bool {
        let (mut is_done, mut at) = (true, begin);
        while let Some((from, to)) = self.next_other(at, end, huge) {
            let (first, bytes) = (index_of_superslab(from), ((to - from) as usize) << SUPERSLAB_SHIFT);
            let is_advised = if huge {
                self.reservation.advise_huge(first, 0, bytes)
            } else {
                self.reservation.advise_small(first, 0, bytes)
            };
            if is_advised {
                let mut pool = self.pool.lock();
                for superslab in from..to {
                    let record = pool.record(superslab);
                    if huge { record.set(HUGE) } else { record.clear(HUGE) }
                }
            }
            is_done &= is_advised;
            at = to;
        }
        is_done
    }

    /// The first superslabs in `begin..end` that are not advised so yet: the advice stays for as long as the mapping does.
    fn next_other(&self, begin: u32, end: u32, huge: bool) -> Option<(u32, u32)> {
        let pool = self.pool.lock();
        let is_so = |superslab: &u32| pool.read(*superslab).has(HUGE) == huge;
        let from = (begin..end).find(|superslab| !is_so(superslab))?;
        Some((from, (from..end).find(is_so).unwrap_or(end)))
    }

    /// Gives the whole OS pages within a range that the caller holds back to the kernel; they read as zero afterwards.
    pub fn decommit(&self, first: SlabIndex, offset_bytes: usize, bytes: usize) -> bool {
        let start = offset_bytes.next_multiple_of(OS_PAGE_BYTES);
        let end = offset_bytes.saturating_add(bytes) & !(OS_PAGE_BYTES - 1);
        start < end && self.reservation.discard(first, start, end - start)
    }

    /// Makes whole OS pages of a range that the caller holds inaccessible: guards, and blocks that nobody may touch any more.
    /// `false`: the kernel refused (it counts mappings), and nothing is guarded, or a part of what is more than a page. Before the
    /// units are given back the caller makes them writable again.
    #[must_use]
    pub fn protect(&self, first: SlabIndex, offset_bytes: usize, bytes: usize) -> bool {
        self.reservation.set_access(first, offset_bytes, bytes, false)
    }

    /// Undoes [`SuperslabOs::protect`]. `false`: the kernel refused; units that are not writable must not be given back.
    #[must_use]
    pub fn unprotect(&self, first: SlabIndex, offset_bytes: usize, bytes: usize) -> bool {
        self.reservation.set_access(first, offset_bytes, bytes, true)
    }

    /// Purges one batch of what has been free and dirty for longer than the delay. Returns the bytes purged. Cheap when
    /// nothing is due; does nothing when another thread is purging.
    #[inline]
    pub fn purge_due(&self) -> usize {
        let due_at = self.due_at_ms.load_relaxed();
        if due_at == NEVER || sys::coarse_clock_ms() < due_at { 0 } else { self.purge_due_slow() }
    }

    /// The process has grown by `units`: as many that have idled for a while are purged, so that it does not hold both.
    #[cold]
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.hakmem.long")]
    fn purge_for_growth(&self, units: u32) {
        let mut left = (units as usize) << SLAB_SHIFT;
        if left.min(self.purgeable_bytes()) == 0 {
            return;
        }
        let Some(mut batch) = self.purger.try_lock() else { return };
        // A batch is bounded, the growth is not.
        while left > 0
            && let Some(bytes) =
                self.purge_batch(&mut batch, Scope::Growth((left >> SLAB_SHIFT) as u32)).filter(|&bytes| bytes > 0)
        {
            left = left.saturating_sub(bytes);
        }
    }

    #[cold]
    #[inline(never)]
    fn purge_due_slow(&self) -> usize {
        self.purger.try_lock().map_or(0, |mut batch| self.purge_batch(&mut batch, Scope::Due).unwrap_or(0))
    }

    /// Purges everything that is free and dirty, the warm pool included. Returns the bytes purged.
    pub fn purge_all(&self) -> usize {
        let mut batch = self.purger.lock();
        self.pool.lock().unpark_all(sys::coarse_clock_ms() as u32);
        let mut total = 0;
        while let Some(bytes) = self.purge_batch(&mut batch, Scope::All).filter(|&bytes| bytes > 0) {
            total += bytes;
        }
        total
    }

    /// `None`: nothing to purge.
    #[unsafe(link_section = ".text.hot.hakmem.long")]
    fn purge_batch(&self, batch: &mut Batch, scope: Scope) -> Option<usize> {
        let (mut pool, now) = self.lock();
        let has_work = pool.collect(batch, scope, now as u32);
        self.publish(&pool, now);
        drop(pool);
        if !has_work {
            return None;
        }
        batch.discard_ranges(|first, units| self.reservation.discard(first, 0, (units as usize) << SLAB_SHIFT));
        batch.thinned().for_each(|superslab| _ = self.advise_small(index_of_superslab(superslab), 1));
        let (mut pool, now) = self.lock();
        let purged_bytes = (pool.finish(batch, now as u32) as usize) << SLAB_SHIFT;
        self.publish(&pool, now);
        drop(pool);
        self.reservation.counters.purges.add_relaxed(1);
        self.reservation.counters.purged_bytes.add_relaxed(purged_bytes as u64);
        Some(purged_bytes)
    }

    /// Waits until no unit is in a purger's hands: what looked exhausted may not be.
    #[cold]
    fn wait_for_purger(&self) {
        drop(self.purger.lock());
    }

    /// Bytes handed out, as of the last change. One relaxed load.
    #[must_use]
    pub fn in_use_bytes(&self) -> usize {
        self.reservation.counters.in_use_bytes.load_relaxed()
    }

    /// Bytes that are free but dirty.
    #[inline]
    #[must_use]
    pub fn purgeable_bytes(&self) -> usize {
        self.reservation.counters.free_dirty_bytes.load_relaxed()
    }

    /// Milliseconds until [`SuperslabOs::purge_due`] has something to do; `None` if nothing waits for it.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u32> {
        let due_at = self.due_at_ms.load_relaxed();
        let wait = due_at.saturating_sub(sys::coarse_clock_ms());
        (due_at != NEVER).then(|| u32::try_from(wait).unwrap_or(u32::MAX))
    }

    /// Begins to keep account of what other policies would have led to, from now on; or ends it. The policy in force is the first one
    /// of [`Hindsight::unlearned`]. Who acts upon the account calls [`SuperslabOs::purge_due`] when something falls due: it supposes so.
    pub fn watch(&self, is_on: bool) {
        self.pool.lock().set_watch(is_on, sys::coarse_clock_ms() as u32);
    }

    /// Another season of the program has begun, for the account.
    pub fn turn_season(&self) {
        self.pool.lock().watch.turn();
    }

    /// What other policies would have led to while somebody watched.
    #[must_use]
    pub fn hindsight(&self) -> Hindsight {
        let (mut pool, now) = self.lock();
        let committed = pool.committed;
        pool.watch.read(committed, now as u32)
    }

    /// A reading of all counters.
    #[must_use]
    pub fn stats(&self) -> OsStats {
        self.read(&self.pool.lock())
    }

    /// As [`SuperslabOs::stats`], for a signal handler: `None` if the lock is held.
    #[must_use]
    pub fn try_stats(&self) -> Option<OsStats> {
        self.pool.try_lock().map(|pool| self.read(&pool))
    }

    fn read(&self, pool: &Pool) -> OsStats {
        let mut stats = OsStats::default();
        self.reservation.counters.fill(&mut stats);
        stats.window_bytes = self.reservation.reserved_bytes();
        stats.committed_bytes = ((pool.committed - 1) as usize) << SUPERSLAB_SHIFT;
        stats.in_use_bytes = pool.units_in_use as usize * SLAB_BYTES;
        stats.in_use_peak_bytes = pool.peak_units_in_use as usize * SLAB_BYTES;
        stats.free_dirty_bytes = pool.free_dirty_units as usize * SLAB_BYTES;
        stats.hot_superslabs = pool.hot;
        stats.draining_superslabs = pool.draining;
        stats.free_warm_superslabs = pool.warm;
        stats.extent_superslabs = pool.extent_superslabs;
        let others = pool.hot + pool.draining + pool.warm + pool.extent_superslabs;
        stats.free_clean_superslabs = (pool.committed - 1).saturating_sub(others);
        stats.parked_superslabs = pool.parked;
        stats.warm_hits = pool.warm_hits;
        stats.fresh_superslabs = pool.fresh_superslabs;
        stats
    }

    /// Checks the bits of every superslab against counts, lists and queue; a violation is fatal. For tests.
    pub fn check_invariants(&self) {
        self.pool.lock().check();
    }

    /// Waits for purges in flight and takes every lock, before a fork.
    pub fn lock_for_fork(&self) {
        self.purger.lock_for_fork();
        self.pool.lock_for_fork();
    }

    /// Releases what [`SuperslabOs::lock_for_fork`] took, in parent and child.
    ///
    /// # Safety
    /// - This thread (or the thread that it is a forked copy of) called `lock_for_fork`.
    pub unsafe fn unlock_after_fork(&self) {
        // SAFETY: passed on to the caller.
        unsafe { self.pool.unlock_after_fork() };
        // SAFETY: as above.
        unsafe { self.purger.unlock_after_fork() };
    }

    /// Where the unit begins. Meaningful for indices of the window.
    #[inline]
    #[must_use]
    pub fn address_of(&self, index: SlabIndex) -> *mut u8 {
        self.reservation.address_of(index)
    }

    /// The unit that the address lies in, if it lies in the window, where it is reserved.
    #[inline]
    #[must_use]
    pub fn index_of(&self, address: usize) -> Option<SlabIndex> {
        self.reservation.index_of(address)
    }

    /// The pool, and what time it is now that nobody else changes it: no change is stamped earlier than the one before it. A clock that was
    /// looked at while waiting for the lock would make memory that has just come look older than any delay.
    #[inline]
    fn lock(&self) -> (LockGuard<'_, Pool>, u64) {
        let pool = self.pool.lock();
        (pool, sys::coarse_clock_ms())
    }

    fn check_limit(&self, pool: &Pool, units: u64) -> Result<(), Refused> {
        if pool.is_within_limit(units) {
            return Ok(());
        }
        self.reservation.counters.limit_refused.add_relaxed(1);
        Err(Refused::Limit)
    }

    /// Makes a place that was found writable. Where the kernel refuses, a lower one is as good: only room was spared.
    fn commit_or_place_below(
        &self,
        pool: &mut LockGuard<'_, Pool>,
        first: u32,
        superslabs: u32,
        align: u32,
    ) -> Result<u32, Refused> {
        let Err(refused) = self.ensure_committed(pool, first + superslabs) else { return Ok(first) };
        let lower = pool.place_in_room(superslabs, align).filter(|&lower| lower < first).ok_or(refused)?;
        self.ensure_committed(pool, lower + superslabs).map(|()| lower)
    }

    /// Makes the superslabs below `end` writable, in growing steps so that there are few system calls and one mapping.
    #[unsafe(link_section = ".text.hot.hakmem")]
    fn ensure_committed(&self, pool: &mut LockGuard<'_, Pool>, end: u32) -> Result<(), Refused> {
        if end <= pool.committed {
            return Ok(());
        }
        let step = pool.commit_step.max(pool.policy.prefill_superslabs);
        let ahead = end.max(pool.committed.saturating_add(step)).min(pool.superslab_count());
        for target in [ahead, end] {
            if self.reservation.commit(pool.committed, target) {
                pool.committed = target;
                pool.commit_step = (pool.commit_step * 2).min(MAX_COMMIT_STEP);
                return Ok(());
            }
            self.reservation.counters.mprotect_refused.add_relaxed(1);
            pool.commit_step = 1;
            if target == end {
                break;
            }
        }
        Err(Refused::NoPlace)
    }

    /// Makes the outcome of a change visible to those who read without the lock.
    fn publish(&self, pool: &Pool, now: u64) {
        let due_at = match pool.due_in(now as u32) {
            None => NEVER,
            Some(wait) => (now + u64::from(wait)).max(self.reservation.paused_until_ms()),
        };
        self.due_at_ms.store_relaxed(due_at);
        self.reservation.counters.free_dirty_bytes.store_relaxed(pool.free_dirty_units as usize * SLAB_BYTES);
        self.reservation.counters.in_use_bytes.store_relaxed(pool.units_in_use as usize * SLAB_BYTES);
    }
}

impl Default for SuperslabOs {
    fn default() -> Self {
        Self::new()
    }
}
