//! One size class: its slabs, its quarantine, and everything that happens to its blocks. All of it under the class's lock.
//!
//! **Invariants.** A slab with room is in `with_room` and no other is. A slot in quarantine stands there once. Bytes of a
//! slot behind what was asked for hold its canary while it is in use; a slot that is not in use reads as zero.

use hakmem_base::{OS_PAGE_BYTES, Request, SLAB_BYTES, SizeClass, SlabIndex};

use crate::context::{HardenedContext, Note};
use crate::findings::{Finding, Wish, check_claim};
use crate::guards;
use crate::level::{Limits, Running};
use crate::quarantine::Quarantine;
use crate::raw;
use crate::secret::{Random, Secret};
use crate::slab::{CANARY_BYTES, Place, Slab, SlabList, SpareSlabs, class_for, units_of};
use crate::slot::{Slot, State};
use crate::stats::{ClassCounters, Counters};

/// What the lock of a class covers.
#[derive(Debug)]
pub(crate) struct Class {
    with_room: SlabList,
    spare: SpareSlabs,
    quarantine: Quarantine,
    random: Random,
    is_set_up: bool,
}

/// What a call on a class brings along.
#[derive(Clone, Copy)]
pub(crate) struct ClassContext<'a> {
    pub cx: HardenedContext<'a>,
    pub running: &'a Running,
    pub counters: &'a Counters,
    /// Those of this class; written under its lock.
    pub counts: &'a ClassCounters,
}

impl Class {
    pub(crate) const fn new() -> Self {
        Self {
            with_room: SlabList::new(),
            spare: SpareSlabs::new(),
            quarantine: Quarantine::none(),
            random: Random::new(0),
            is_set_up: false,
        }
    }

    /// A block, all zero. `None`: out of memory.
    pub(crate) fn allocate(
        &mut self,
        call: ClassContext<'_>,
        class: SizeClass,
        wanted: Slot,
    ) -> Result<Option<*mut u8>, Finding> {
        if !self.is_set_up {
            self.set_up(call, class);
        }
        let Some(slab) = self.with_room.head().or_else(|| self.fresh_slab(call, class)) else { return Ok(None) };
        let Some(index) = slab.pick(&mut self.random) else { return Ok(None) };
        if !slab.has_room() {
            self.with_room.remove(slab);
        }
        let before = slab.slot(index);
        let address = slab.address_of(index);
        if before.state == State::Free && !raw::is_zero(slab.bytes_from(index, 0)) {
            return Err(Finding::after_free(address.addr(), before.bytes));
        }
        write_canary(call.running.secret, slab, index, wanted.bytes);
        slab.hand_out(index, wanted);
        call.counts.allocs.add(1);
        call.counts.live_bytes.add(wanted.bytes as u64);
        Ok(Some(address))
    }

    fn set_up(&mut self, call: ClassContext<'_>, class: SizeClass) {
        self.is_set_up = true;
        self.random.stir(call.running.seed ^ class.index() as u64);
        self.quarantine = Quarantine::new(call.cx.arena, call.running.limits.entries_for(class.block_bytes()));
    }

    /// A slab that was just cut from a run, in the list of those with room.
    fn fresh_slab(&mut self, call: ClassContext<'_>, class: SizeClass) -> Option<&'static Slab> {
        let HardenedContext { os, arena, .. } = call.cx;
        let slab = match self.spare.pop() {
            Some(slab) => slab,
            None => Slab::make(arena, class)?,
        };
        let units = units_of(class);
        let Some(run) = os.take_run(units, 1) else {
            self.spare.push(slab);
            return None;
        };
        let bytes = units as usize * SLAB_BYTES;
        if run.clean.count_ones() < units {
            make_zero(call.cx, run.first, 0, bytes);
        }
        let ends = [0, bytes - OS_PAGE_BYTES];
        let guard = |offset| {
            guards::raise(call.cx, call.running.limits.guards, call.counters, run.first, offset, OS_PAGE_BYTES)
        };
        slab.place(run.first, os.address_of(run.first), ends.into_iter().map(guard).sum());
        call.running.slabs.set(run.first, slab);
        call.cx.set_routes(run.first, units, Note::Slab);
        self.with_room.add(slab);
        Some(slab)
    }

    /// Takes a block back.
    pub(crate) fn free(
        &mut self,
        call: ClassContext<'_>,
        slab: &'static Slab,
        head: SlabIndex,
        address: usize,
        claim: Request,
    ) -> Result<(), Finding> {
        let (index, slot) = in_use(slab, head, address, Wish::Free)?;
        check_claim(claim, address, slot)?;
        check_canaries(call.running.secret, slab, index, slot.bytes)?;
        slab.bytes_from(index, 0).fill(0);
        slab.retain(index);
        call.counts.live_bytes.sub(slot.bytes as u64);
        let released = self.quarantine.push(address, &mut self.random);
        if let Some(released) = released {
            self.release(call, slab.class, released)?;
        }
        self.count_quarantine(call, slab.class);
        Ok(())
    }

    /// The block gets a new size where it is, if the class serves that too. `false`: the caller moves it. Either way it has
    /// been looked at like a block that is freed.
    pub(crate) fn resize(
        &mut self,
        call: ClassContext<'_>,
        slab: &'static Slab,
        head: SlabIndex,
        address: usize,
        claim: Request,
        new_bytes: usize,
    ) -> Result<bool, Finding> {
        let (index, slot) = in_use(slab, head, address, Wish::Resize)?;
        check_claim(claim, address, slot)?;
        check_canaries(call.running.secret, slab, index, slot.bytes)?;
        if class_for(new_bytes, slot.align) != Some(slab.class) {
            return Ok(false);
        }
        // What becomes the user's must not show the canary.
        slab.bytes_from(index, slot.bytes).fill(0);
        write_canary(call.running.secret, slab, index, new_bytes);
        slab.resize(index, new_bytes);
        call.counts.live_bytes.add(new_bytes as u64);
        call.counts.live_bytes.sub(slot.bytes as u64);
        Ok(true)
    }

    /// Bytes that the block at `address` was asked for with.
    pub(crate) fn measure(slab: &Slab, head: SlabIndex, address: usize) -> Result<usize, Finding> {
        Ok(in_use(slab, head, address, Wish::Measure)?.1.bytes)
    }

    /// A block leaves quarantine.
    fn release(&mut self, call: ClassContext<'_>, class: SizeClass, address: usize) -> Result<(), Finding> {
        let found = call.cx.os.index_of(address).and_then(|unit| call.running.slabs.of_unit(call.cx.routes, unit));
        let Some((slab, _)) = found else { return Ok(()) };
        let Place::Slot(index) = slab.place_of(address) else { return Ok(()) };
        if !raw::is_zero(slab.bytes_from(index, 0)) {
            return Err(Finding::after_free(address, slab.slot(index).bytes));
        }
        slab.release(index);
        hakmem_base::invariant!(slab.class == class, "a block waited in another class's quarantine");
        self.with_room.add(slab);
        if slab.is_empty() && !self.with_room.is_only(slab) {
            self.give_back(call, slab)?;
        }
        Ok(())
    }

    /// An empty slab goes back to the box below.
    fn give_back(&mut self, call: ClassContext<'_>, slab: &'static Slab) -> Result<(), Finding> {
        self.with_room.remove(slab);
        check_free_slots(slab)?;
        let (first, units, guard_count) = (slab.first(), units_of(slab.class), slab.guard_count());
        slab.displace();
        call.cx.retire_routes(first, units);
        self.spare.push(slab);
        if guards::lower(call.cx, call.counters, first, units as usize * SLAB_BYTES, guard_count) {
            call.cx.os.give_run(first, units);
        }
        Ok(())
    }

    /// Gives back the slabs that are empty; with `everything`, those too that only wait for their quarantine. Returns how many.
    pub(crate) fn collect(
        &mut self,
        call: ClassContext<'_>,
        class: SizeClass,
        everything: bool,
    ) -> Result<usize, Finding> {
        while everything && let Some(address) = self.quarantine.pop() {
            self.release(call, class, address)?;
        }
        self.count_quarantine(call, class);
        let mut count = 0;
        for slab in self.with_room.iter() {
            if slab.is_empty() {
                self.give_back(call, slab)?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// In a forked child: other choices than the parent's.
    pub(crate) fn stir(&mut self, seed: u64) {
        self.random.stir(seed);
    }

    fn count_quarantine(&self, call: ClassContext<'_>, class: SizeClass) {
        call.counts.quarantined_bytes.set((self.quarantine.len() * class.block_bytes()) as u64);
    }

    /// Whether the lists say what the slabs say.
    pub(crate) fn is_consistent(&self) -> bool {
        self.with_room.iter().all(|slab| slab.has_room() && slab.is_consistent())
    }
}

impl Limits {
    /// Blocks of this size that wait at most.
    fn entries_for(self, block_bytes: usize) -> usize {
        (self.quarantine_bytes / block_bytes).min(self.quarantine_blocks)
    }
}

/// The slot that begins at `address`, in use; anything else is a mistake.
fn in_use(slab: &Slab, head: SlabIndex, address: usize, wish: Wish) -> Result<(u32, Slot), Finding> {
    if !slab.is_at(head) {
        return Err(Finding::gone(address));
    }
    let Place::Slot(index) = slab.place_of(address) else { return Err(Finding::not_a_start(wish, address)) };
    let slot = slab.slot(index);
    if slot.state != State::InUse {
        return Err(Finding::not_in_use(wish, slot, address));
    }
    Ok((index, slot))
}

fn write_canary(secret: Secret, slab: &Slab, index: u32, bytes: usize) {
    raw::fill(slab.bytes_from(index, bytes), secret.canary(slab.address_of(index).addr()));
}

/// Offset behind the block's end at which its canary is damaged.
fn damage(secret: Secret, slab: &Slab, index: u32, bytes: usize) -> Option<usize> {
    raw::first_difference(slab.bytes_from(index, bytes), secret.canary(slab.address_of(index).addr()))
}

/// Looks behind a block and at the end of its lower neighbour, where its own underflows show.
fn check_canaries(secret: Secret, slab: &Slab, index: u32, bytes: usize) -> Result<(), Finding> {
    let address = slab.address_of(index).addr();
    if damage(secret, slab, index, bytes).is_some() {
        return Err(Finding::past_the_end(address, bytes));
    }
    let Some(below) = index.checked_sub(1) else { return Ok(()) };
    let neighbour = slab.slot(below);
    if neighbour.state == State::InUse {
        return match damage(secret, slab, below, neighbour.bytes) {
            // From its first byte on: more likely the neighbour's own overflow.
            Some(0) => Err(Finding::past_the_end(slab.address_of(below).addr(), neighbour.bytes)),
            Some(_) => Err(Finding::before_the_start(address, bytes)),
            None => Ok(()),
        };
    }
    if raw::is_zero(slab.bytes_from(below, slab.class.block_bytes() - 2 * CANARY_BYTES)) {
        Ok(())
    } else {
        Err(Finding::before_the_start(address, bytes))
    }
}

fn check_free_slots(slab: &Slab) -> Result<(), Finding> {
    for index in 0..slab.opened() {
        let slot = slab.slot(index);
        if matches!(slot.state, State::Free | State::Quarantined) && !raw::is_zero(slab.bytes_from(index, 0)) {
            return Err(Finding::after_free(slab.address_of(index).addr(), slot.bytes));
        }
    }
    Ok(())
}

/// Looks at every slot that has been in use.
pub(crate) fn sweep(secret: Secret, slab: &Slab) -> Result<(), Finding> {
    for index in 0..slab.opened() {
        let slot = slab.slot(index);
        if slot.state == State::InUse {
            check_canaries(secret, slab, index, slot.bytes)?;
        }
    }
    check_free_slots(slab)
}

/// Makes a range that was just taken read as zero.
pub(crate) fn make_zero(cx: HardenedContext<'_>, first: SlabIndex, offset: usize, bytes: usize) {
    if !cx.os.decommit(first, offset, bytes) {
        // SAFETY: the units were just taken, and the committed window is readable and writable.
        unsafe { raw::bytes_at(cx.os.address_of(first).wrapping_add(offset), bytes) }.fill(0);
    }
}
