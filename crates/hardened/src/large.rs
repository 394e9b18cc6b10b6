//! Blocks with units of their own, between two guards: too large, or aligned too far, for a slab.
//!
//! A block ends where its rear guard begins, as near as its alignment allows; the bytes between, and those before it up to the
//! front guard, hold its canary. Freed, all of it becomes inaccessible, without memory behind it, and waits in quarantine.
//!
//! **Invariants.** An entry is in use or quarantined as long as its units belong to the block; all of it is read and written
//! under one lock. System calls happen outside of it, while the entry's state keeps everybody else away.

use hakmem_base::{
    Door, OS_PAGE_BYTES, Request, SLAB_BYTES, SLABS_PER_SUPERSLAB, SUPERSLAB_BYTES, SlabIndex, ZeroValid,
};
use hakmem_superslab_os::{FlatTable, Purge};

use crate::class::make_zero;
use crate::context::{HardenedContext, Note};
use crate::findings::{Finding, Wish, check_claim};
use crate::guards;
use crate::level::Running;
use crate::quarantine::Quarantine;
use crate::raw;
use crate::secret::{Random, Secret};
use crate::slot::{Slot, State};
use crate::stats::{ClassCounters, Counters};

/// Share of the window that quarantined blocks may hold.
const QUARANTINE_SHARE: usize = 64;
/// Blocks that wait at most.
const QUARANTINE_BLOCKS: usize = 1024;

/// Where a block lies in the units that it takes. All in bytes from the first unit's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    /// Bytes of the front guard: where the data pages begin.
    lead: usize,
    /// Where the block begins.
    block: usize,
    /// Where the data pages end and the rear guard begins.
    end: usize,
    /// Units, a multiple of a superslab's if more than one superslab's.
    units: u32,
    /// Units that the first one is aligned to.
    align_units: u32,
}

impl Shape {
    /// `None`: no window holds it.
    pub(crate) fn of(bytes: usize, align: usize) -> Option<Self> {
        let (lead, block, end) = if align <= OS_PAGE_BYTES {
            let taken = bytes.max(1).checked_next_multiple_of(align.max(16))?;
            let end = OS_PAGE_BYTES.checked_add(taken.checked_next_multiple_of(OS_PAGE_BYTES)?)?;
            (OS_PAGE_BYTES, end - taken, end)
        } else {
            // The run begins at the alignment, and the block one alignment further on.
            (align, align, align.checked_add(bytes.max(1).checked_next_multiple_of(OS_PAGE_BYTES)?)?)
        };
        let mut units = end.checked_add(OS_PAGE_BYTES)?.div_ceil(SLAB_BYTES);
        if units > SLABS_PER_SUPERSLAB as usize || align > SUPERSLAB_BYTES {
            units = units.checked_next_multiple_of(SLABS_PER_SUPERSLAB as usize)?;
        }
        let align_units = if align <= OS_PAGE_BYTES { 1 } else { align.div_ceil(SLAB_BYTES) };
        Some(Self {
            lead,
            block,
            end,
            units: u32::try_from(units).ok()?,
            align_units: u32::try_from(align_units).ok()?,
        })
    }

    fn total(self) -> usize {
        self.units as usize * SLAB_BYTES
    }

    fn is_run(self) -> bool {
        self.units <= SLABS_PER_SUPERSLAB && self.align_units <= SLABS_PER_SUPERSLAB
    }
}

/// What is known of a large block, at the unit that it begins in.
#[derive(Debug)]
pub(crate) struct Entry {
    first: u32,
    state: u8,
    door: u8,
    align_shift: u8,
    guard_count: u8,
    block: usize,
    bytes: usize,
}

// SAFETY: plain numbers; nothing is dropped.
unsafe impl ZeroValid for Entry {}

/// A copy of an entry, to work with outside of the lock.
#[derive(Clone, Copy, Debug)]
struct Known {
    first: SlabIndex,
    shape: Shape,
    slot: Slot,
    address: usize,
    guard_count: u32,
}

impl Entry {
    fn known(&self) -> Option<Known> {
        let state = match self.state {
            1 => State::InUse,
            2 => State::Quarantined,
            _ => return None,
        };
        let align = 1_usize.checked_shl(u32::from(self.align_shift))?;
        let slot = Slot { state, bytes: self.bytes, align, door: Door::from_low_bits(self.door) };
        let shape = Shape::of(self.bytes, align)?;
        let (first, guard_count) = (SlabIndex::new(self.first), u32::from(self.guard_count));
        Some(Known { first, shape, slot, address: self.block, guard_count })
    }
}

/// What the lock of the large blocks covers.
#[derive(Debug)]
pub(crate) struct Larges {
    entries: FlatTable<Entry>,
    /// Heads of freed blocks.
    quarantine: Quarantine,
    quarantined_bytes: usize,
    limit_bytes: usize,
    random: Random,
}

/// What a call on the large blocks brings along.
#[derive(Clone, Copy)]
pub(crate) struct LargeContext<'a> {
    pub cx: HardenedContext<'a>,
    pub running: &'a Running,
    pub counters: &'a Counters,
    /// Written under the lock of the large blocks.
    pub counts: &'a ClassCounters,
    pub lock: &'a hakmem_atomic_ops::Lock<Larges>,
}

impl Larges {
    pub(crate) const fn new() -> Self {
        Self {
            entries: FlatTable::empty(),
            quarantine: Quarantine::none(),
            quarantined_bytes: 0,
            limit_bytes: 0,
            random: Random::new(0),
        }
    }

    /// Makes room for what is known of blocks. `false`: no memory.
    pub(crate) fn set_up(&mut self, cx: HardenedContext<'_>, blocks: usize, seed: u64) -> bool {
        let units = cx.routes.len();
        let Some(entries) = FlatTable::reserve(units) else { return false };
        self.entries = entries;
        self.random.stir(seed);
        self.limit_bytes = units / QUARANTINE_SHARE * SLAB_BYTES;
        self.quarantine = Quarantine::new(cx.arena, blocks.min(QUARANTINE_BLOCKS));
        true
    }

    pub(crate) fn stir(&mut self, seed: u64) {
        self.random.stir(seed);
    }

    fn known(&self, head: SlabIndex) -> Option<Known> {
        self.entries.get(head.to_usize())?.known()
    }

    /// The block in use that begins at `address`; anything else is a mistake.
    fn in_use(&self, head: SlabIndex, address: usize, wish: Wish) -> Result<Known, Finding> {
        let Some(known) = self.known(head) else { return Err(Finding::gone(address)) };
        if address != known.address {
            return Err(Finding::not_a_start(wish, address));
        }
        if known.slot.state != State::InUse {
            return Err(Finding::not_in_use(wish, known.slot, address));
        }
        Ok(known)
    }

    /// A freed block starts to wait. Returns the head of one that has waited enough.
    fn retain(&mut self, head: SlabIndex, bytes: usize, guard_count: u32) -> Option<SlabIndex> {
        if let Some(entry) = self.entries.get_mut(head.to_usize()) {
            entry.guard_count = guard_count as u8;
        }
        self.quarantined_bytes += bytes;
        let released = self.quarantine.push(head.to_usize(), &mut self.random);
        released.map(|head| SlabIndex::new(head as u32))
    }

    /// Forgets a block that leaves quarantine.
    fn forget(&mut self, head: SlabIndex) -> Option<Known> {
        let entry = self.entries.get_mut(head.to_usize())?;
        let known = entry.known()?;
        entry.state = 0;
        self.quarantined_bytes = self.quarantined_bytes.saturating_sub(known.shape.total());
        Some(known)
    }

    /// The next one to leave because too much waits, or with `everything` any.
    fn forget_surplus(&mut self, everything: bool) -> Option<Known> {
        if !everything && self.quarantined_bytes <= self.limit_bytes {
            return None;
        }
        let head = self.quarantine.pop()?;
        self.forget(SlabIndex::new(head as u32))
    }
}

/// A block, all zero. `None`: out of memory, or of window.
pub(crate) fn allocate(call: LargeContext<'_>, wanted: Slot) -> Option<*mut u8> {
    let LargeContext { cx, .. } = call;
    let shape = Shape::of(wanted.bytes, wanted.align)?;
    let (first, is_zero) = if shape.is_run() {
        let run = cx.os.take_run(shape.units, shape.align_units)?;
        (run.first, run.clean.count_ones() >= shape.units)
    } else {
        let superslabs = shape.units / SLABS_PER_SUPERSLAB;
        let extent = cx.os.take_extent(superslabs, 0, shape.align_units.div_ceil(SLABS_PER_SUPERSLAB))?;
        (extent.first, extent.zeroed)
    };
    if !is_zero {
        make_zero(cx, first, shape.lead, shape.end - shape.lead);
    }
    let ends = [(0, shape.lead), (shape.end, shape.total() - shape.end)];
    let guard_count = ends.into_iter().map(|(offset, bytes)| raise(call, first, offset, bytes)).sum();
    let block = cx.os.address_of(first).wrapping_add(shape.block);
    let known = Known { first, shape, slot: wanted, address: block.addr(), guard_count };
    for_each_slack(cx, known, call.running.secret, raw::fill);
    let head = first.add((shape.block / SLAB_BYTES) as u32);
    let mut larges = call.lock.lock();
    let Some(entry) = larges.entries.get_mut(head.to_usize()) else {
        drop(larges);
        give_units(call, known, false);
        return None;
    };
    *entry = Entry {
        first: first.get(),
        state: State::InUse as u8,
        door: wanted.door as u8,
        align_shift: wanted.align.trailing_zeros() as u8,
        guard_count: guard_count as u8,
        block: block.addr(),
        bytes: wanted.bytes,
    };
    call.counts.allocs.add(1);
    call.counts.live_bytes.add(wanted.bytes as u64);
    cx.set_routes(
        first,
        shape.units,
        |offset| {
            if first.add(offset) == head { Note::LargeHead } else { Note::LargeInside }
        },
    );
    Some(block)
}

/// Takes a block back.
pub(crate) fn free(call: LargeContext<'_>, head: SlabIndex, address: usize, claim: Request) -> Result<(), Finding> {
    let mut larges = call.lock.lock();
    let known = larges.in_use(head, address, Wish::Free)?;
    check_claim(claim, address, known.slot)?;
    if let Some(entry) = larges.entries.get_mut(head.to_usize()) {
        entry.state = State::Quarantined as u8;
    }
    call.counts.live_bytes.sub(known.slot.bytes as u64);
    drop(larges);
    check_slack(call, known)?;
    let Shape { lead, end, .. } = known.shape;
    let guard_count = close(call, known);
    if !call.cx.os.decommit(known.first, lead, end - lead) {
        hide(call, Known { guard_count, ..known });
    }
    let mut larges = call.lock.lock();
    let released = larges.retain(head, known.shape.total(), guard_count);
    let released = released.and_then(|head| larges.forget(head));
    count_quarantine(call, &larges);
    drop(larges);
    if let Some(released) = released {
        give_units(call, released, true);
    }
    release_surplus(call, false);
    Ok(())
}

fn raise(call: LargeContext<'_>, first: SlabIndex, offset: usize, bytes: usize) -> u32 {
    guards::raise(call.cx, call.running.limits.guards, call.counters, first, offset, bytes)
}

/// Makes all of a freed block inaccessible: its guards become one. Returns the guards that stand for it now.
fn close(call: LargeContext<'_>, known: Known) -> u32 {
    let total = known.shape.total();
    if known.guard_count == 0 {
        return raise(call, known.first, 0, total);
    }
    if !call.cx.os.protect(known.first, 0, total) {
        call.counters.guards_refused.add_relaxed(1);
    }
    known.guard_count
}

/// The kernel keeps the memory of a freed block: what it holds must not outlive it all the same.
#[cold]
fn hide(call: LargeContext<'_>, known: Known) {
    let Shape { lead, end, .. } = known.shape;
    if call.cx.os.unprotect(known.first, lead, end - lead) {
        let start = call.cx.os.address_of(known.first).wrapping_add(lead);
        // SAFETY: the block's own pages, which are writable again; its user has given it up.
        unsafe { raw::bytes_at(start, end - lead) }.fill(0);
        if known.guard_count > 0 && !call.cx.os.protect(known.first, lead, end - lead) {
            call.counters.guards_refused.add_relaxed(1);
        }
    }
}

/// Lets blocks go that have waited longest: while too much waits, or all. Returns how many.
pub(crate) fn release_surplus(call: LargeContext<'_>, everything: bool) -> usize {
    let mut count = 0;
    loop {
        let mut larges = call.lock.lock();
        let Some(known) = larges.forget_surplus(everything) else { return count };
        count_quarantine(call, &larges);
        drop(larges);
        give_units(call, known, true);
        count += 1;
    }
}

/// The block's units go back to the box below.
fn give_units(call: LargeContext<'_>, known: Known, is_clean: bool) {
    let LargeContext { cx, counters, .. } = call;
    cx.retire_routes(known.first, known.shape.units);
    if !guards::lower(cx, counters, known.first, known.shape.total(), known.guard_count) {
        return;
    }
    if known.shape.is_run() {
        cx.os.give_run(known.first, known.shape.units);
    } else {
        let purge = if is_clean { Purge::Now } else { Purge::Later };
        cx.os.give_extent(known.first, known.shape.units / SLABS_PER_SUPERSLAB, purge);
    }
}

/// The block gets a new size where it is, if it needs the same pages. `false`: the caller moves it. Either way it has been
/// looked at like a block that is freed.
pub(crate) fn resize(
    call: LargeContext<'_>,
    head: SlabIndex,
    address: usize,
    claim: Request,
    new_bytes: usize,
) -> Result<bool, Finding> {
    let mut larges = call.lock.lock();
    let known = larges.in_use(head, address, Wish::Resize)?;
    check_claim(claim, address, known.slot)?;
    check_slack(call, known)?;
    if Shape::of(new_bytes, known.slot.align) != Some(known.shape) {
        return Ok(false);
    }
    let Some(entry) = larges.entries.get_mut(head.to_usize()) else { return Ok(false) };
    entry.bytes = new_bytes;
    call.counts.live_bytes.add(new_bytes as u64);
    call.counts.live_bytes.sub(known.slot.bytes as u64);
    let resized = Known { slot: Slot { bytes: new_bytes, ..known.slot }, ..known };
    // What was slack and is the user's now must not show the canary.
    for_each_slack(call.cx, known, call.running.secret, |slack, _| slack.fill(0));
    for_each_slack(call.cx, resized, call.running.secret, raw::fill);
    Ok(true)
}

/// Bytes that the block at `address` was asked for with.
pub(crate) fn measure(call: LargeContext<'_>, head: SlabIndex, address: usize) -> Result<usize, Finding> {
    Ok(call.lock.lock().in_use(head, address, Wish::Measure)?.slot.bytes)
}

/// Looks at the canaries of a block that is never freed.
pub(crate) fn sweep(call: LargeContext<'_>, head: SlabIndex) -> Result<(), Finding> {
    let Some(larges) = call.lock.try_lock() else { return Ok(()) };
    match larges.known(head).filter(|known| known.slot.state == State::InUse) {
        Some(known) => check_slack(call, known),
        None => Ok(()),
    }
}

/// Calls `visit` with the bytes before the block and those behind it, and with its canary.
fn for_each_slack(cx: HardenedContext<'_>, known: Known, secret: Secret, mut visit: impl FnMut(&mut [u8], u64)) {
    let Shape { lead, block, end, .. } = known.shape;
    let start = cx.os.address_of(known.first);
    let behind = block + known.slot.bytes;
    for (from, to) in [(lead, block), (behind, end)] {
        // SAFETY: inside the block's data pages, outside of the block itself: nobody's but the box's.
        visit(unsafe { raw::bytes_at(start.wrapping_add(from), to - from) }, secret.canary(known.address));
    }
}

fn check_slack(call: LargeContext<'_>, known: Known) -> Result<(), Finding> {
    let (mut found, mut is_before) = (Ok(()), true);
    for_each_slack(call.cx, known, call.running.secret, |slack, canary| {
        if found.is_ok() && raw::first_difference(slack, canary).is_some() {
            let finding = if is_before { Finding::before_the_start } else { Finding::past_the_end };
            found = Err(finding(known.address, known.slot.bytes));
        }
        is_before = false;
    });
    found
}

fn count_quarantine(call: LargeContext<'_>, larges: &Larges) {
    call.counts.quarantined_bytes.set(larges.quarantined_bytes as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_ends_at_its_guard_as_near_as_its_alignment_allows() {
        for bytes in [1, 15, 16, 4096, 40_000, 300_001, (2 << 20) - 1, 5 << 20] {
            for align in [1, 16, 64, 4096, 8192, 1 << 16, 1 << 20, 1 << 21, 1 << 22] {
                let shape = Shape::of(bytes, align).unwrap();
                assert!(
                    shape.lead >= OS_PAGE_BYTES
                        && shape.block >= shape.lead
                        && shape.block.is_multiple_of(align.max(16))
                );
                assert!(shape.block + bytes <= shape.end && shape.end + OS_PAGE_BYTES <= shape.total());
                assert!(shape.end - (shape.block + bytes) < align.clamp(16, OS_PAGE_BYTES));
                assert!(align <= OS_PAGE_BYTES || shape.align_units as usize * SLAB_BYTES >= align);
            }
        }
    }

    #[test]
    fn sizes_that_no_address_space_holds_have_no_shape() {
        for (bytes, align) in [(usize::MAX, 1), (usize::MAX - 5000, 4096), (1 << 62, 1 << 63), (1, 1 << 63)] {
            assert_eq!(Shape::of(bytes, align), None);
        }
    }
}
