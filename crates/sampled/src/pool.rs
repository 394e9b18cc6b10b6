//! The slots, from the first look at one to the last rest.

use core::ptr::NonNull;
use hakmem_atomic_ops::{Flag, Lock, SetOnce, Shared64, spin_hint};
use hakmem_base::{OS_PAGE_BYTES, Request, SLAB_BYTES, SLABS_PER_SUPERSLAB, SlabIndex, fatal};
use hakmem_superslab_os::FlatTable;

use crate::canary;
use crate::context::{SampledContext, Wanted};
use crate::finding::{Finding, Mistake};
use crate::place::Place;
use crate::slot::{Slot, State};
use crate::stamp::Stamp;

/// A freed block of more OS pages than this gives its memory back: the others are cheaper kept than faulted in again.
const KEPT_PAGES: usize = 4;
/// Looks at a busy slot until it is not, before whoever reports goes on without.
const PATIENCE: u32 = 1 << 16;

/// Slots for guarded samples. Usable as a static, and several times in one test.
#[derive(Debug)]
pub struct SampledPool {
    slots: SetOnce<FlatTable<Slot>>,
    queue: Lock<Queue>,
    counters: Counters,
    /// The process is ending, and blocks in use are looked at.
    is_sweeping: Flag,
}

/// Slots at rest, oldest first, and how far the table is carved. Links are index + 1; 0 is none.
#[derive(Debug)]
struct Queue {
    oldest: u32,
    newest: u32,
    resting: u32,
    /// Slots that were handed out once.
    carved: u32,
    /// Slots whose unit is inaccessible but for its block.
    ready: u32,
    /// Slots that have a unit. The kernel has refused to guard those beyond the ready ones; it is asked again.
    bound: u32,
}

#[derive(Debug)]
struct Counters {
    samples: Shared64,
    no_slot: Shared64,
    unfit: Shared64,
    guards_refused: Shared64,
    findings: Shared64,
    live: Shared64,
    live_bytes: Shared64,
}

/// What the pool has done and holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SampledStats {
    /// Blocks handed out.
    pub samples: u64,
    /// Samples that were due when no slot was free.
    pub no_slot: u64,
    /// Samples that were due and too large, or too strictly aligned, for a slot.
    pub unfit: u64,
    /// Guards that the kernel refused to set or to lift. The allocation went the ordinary way, or a freed block lies open.
    pub guards_refused: u64,
    /// Mistakes proved.
    pub findings: u64,
    /// Blocks in use.
    pub live: u64,
    /// Their bytes.
    pub live_bytes: u64,
}

impl SampledPool {
    /// A pool without slots.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            slots: SetOnce::new(),
            queue: Lock::new(Queue { oldest: 0, newest: 0, resting: 0, carved: 0, ready: 0, bound: 0 }),
            counters: Counters {
                samples: Shared64::new(0),
                no_slot: Shared64::new(0),
                unfit: Shared64::new(0),
                guards_refused: Shared64::new(0),
                findings: Shared64::new(0),
                live: Shared64::new(0),
                live_bytes: Shared64::new(0),
            },
            is_sweeping: Flag::new(false),
        }
    }

    /// Makes room for descriptions of `slot_count` slots, once; address space follows as it is needed. False: no memory.
    pub fn reserve(&self, slot_count: u32) -> bool {
        if self.slots.get().is_some() {
            return true;
        }
        let Some(table) = FlatTable::reserve(slot_count as usize) else { return false };
        // Another thread's table serves as well; this one is given back.
        let _first = self.slots.set(table);
        true
    }

    /// Hands out a block between guard pages. `None`: it does not fit, there is no slot, or the kernel refuses; counted.
    pub fn allocate(
        &self,
        cx: &SampledContext<'_>,
        wanted: Wanted,
        stamp: impl FnOnce() -> Stamp,
    ) -> Option<NonNull<u8>> {
        let Some(place) = Place::of(wanted.bytes, wanted.align, wanted.at_end) else {
            self.counters.unfit.add_relaxed(1);
            return None;
        };
        let Some((index, slot)) = self.take_slot(cx) else {
            self.counters.no_slot.add_relaxed(1);
            return None;
        };
        let unit = SlabIndex::new(slot.unit.load_relaxed());
        if !cx.os.unprotect(unit, place.pages, place.page_bytes) {
            self.counters.guards_refused.add_relaxed(1);
            self.rest(index, slot);
            return None;
        }
        let start = cx.os.address_of(unit);
        let block = start.wrapping_add(place.block);
        slot.block.store_relaxed(block.addr());
        slot.bytes.store_relaxed(wanted.bytes);
        slot.door.store_relaxed(wanted.door as u32);
        slot.pages.store_relaxed(place.pages);
        slot.page_bytes.store_relaxed(place.page_bytes);
        slot.allocated.write(&stamp());
        let (before, behind) = (place.block - place.pages, place.end() - place.block - wanted.bytes);
        // SAFETY: the pages before the block are writable now, and the slot is this call's.
        unsafe { canary::fill(start.wrapping_add(place.pages), before) };
        // SAFETY: the same for those behind it.
        unsafe { canary::fill(block.wrapping_add(wanted.bytes), behind) };
        self.counters.samples.add_relaxed(1);
        self.counters.live.add_relaxed(1);
        self.counters.live_bytes.add_relaxed(wanted.bytes as u64);
        slot.publish(State::Live);
        NonNull::new(block)
    }

    /// Takes the block at `address` back; `note` stands in the route word of its unit. `claim` is what whoever
    /// frees it says of it.
    ///
    /// # Errors
    /// What is wrong: with the pointer, with the size, or with what stands around the block.
    #[expect(clippy::result_large_err, reason = "a finding ends the process")]
    pub fn free(
        &self,
        cx: &SampledContext<'_>,
        note: usize,
        address: usize,
        claim: Request,
        stamp: impl FnOnce() -> Stamp,
    ) -> Result<(), Finding> {
        let slot = self.slot(note);
        if !claim_block(slot, address) {
            if self.is_swept(slot, address) {
                return Ok(());
            }
            return Err(self.wrong_pointer(slot, address, Mistake::DoubleFree, Mistake::InvalidFree));
        }
        let bytes = slot.bytes.load_relaxed();
        let mistake = match wrong_size(slot, claim) {
            Some(claimed) => Some((Mistake::WrongSize { claimed }, address)),
            None => damage(cx, slot).map(|(side, place)| (side.at_free(), place)),
        };
        if let Some((mistake, place)) = mistake {
            slot.publish(State::Live);
            return Err(describe(slot, mistake, place));
        }
        slot.freed.write(&stamp());
        let (unit, pages) = (SlabIndex::new(slot.unit.load_relaxed()), slot.pages.load_relaxed());
        let page_bytes = slot.page_bytes.load_relaxed();
        if page_bytes > KEPT_PAGES * OS_PAGE_BYTES {
            // A hint: refused, the memory stays.
            let _gone = cx.os.decommit(unit, pages, page_bytes);
        }
        // All of the slot: what the kernel refused to close after an earlier block lies open still.
        if !cx.os.protect(unit, 0, SLAB_BYTES) {
            self.counters.guards_refused.add_relaxed(1);
        }
        self.counters.live.sub_relaxed(1);
        self.counters.live_bytes.sub_relaxed(bytes as u64);
        self.rest(note as u32, slot);
        Ok(())
    }

    /// Bytes of the block in use at `address`.
    ///
    /// # Errors
    /// There is no block in use that begins there.
    #[expect(clippy::result_large_err, reason = "a finding ends the process")]
    pub fn usable_bytes(&self, note: usize, address: usize) -> Result<usize, Finding> {
        let slot = self.slot(note);
        if settled(slot) == State::Live && slot.block.load_relaxed() == address || self.is_swept(slot, address) {
            return Ok(slot.bytes.load_relaxed());
        }
        Err(self.wrong_pointer(slot, address, Mistake::ResizeAfterFree, Mistake::InvalidResize))
    }

    /// What an access that the kernel stopped at `address`, in the unit with this note, was. `None`: no mistake with a sample. It lies
    /// inside a block in use, and this box did not take the access to it away. For signal handlers: waits for nothing and takes no lock.
    #[must_use]
    pub fn judge_access(&self, note: usize, address: usize) -> Option<Finding> {
        let slot = self.nearest(note, address);
        let (block, bytes) = (slot.block.load_relaxed(), slot.bytes.load_relaxed());
        let mistake = match settled(slot) {
            State::Freed => Mistake::UseAfterFree,
            State::Live if address < block => Mistake::Underflow,
            State::Live if address - block >= bytes => Mistake::Overflow,
            State::Live => return None,
            State::Busy | State::Fresh => Mistake::Unknown,
        };
        Some(describe(slot, mistake, address))
    }

    /// Looks around the blocks in use for damage that no free has met. At the end of the process: a free that meets this
    /// leaves its block as it is.
    #[must_use]
    pub fn sweep(&self, cx: &SampledContext<'_>) -> Option<Finding> {
        self.slots.get().and_then(|slots| self.sweep_slow(cx, slots))
    }

    #[cold]
    #[inline(never)]
    fn sweep_slow(&self, cx: &SampledContext<'_>, slots: &FlatTable<Slot>) -> Option<Finding> {
        // ORDERING: before the claims below; whoever finds a slot claimed by these finds the flag set.
        if !self.is_sweeping.try_set_acq_rel() {
            return None;
        }
        let carved = self.queue.lock().carved;
        (0..carved as usize).filter_map(|index| slots.get(index)).find_map(|slot| {
            if !slot.try_claim(State::Live) {
                return None;
            }
            let damage = damage(cx, slot);
            slot.publish(State::Live);
            damage.map(|(side, place)| describe(slot, side.at_exit(), place))
        })
    }

    /// Whether the slot of a block that is said to be in use is in the hands of the sweep.
    fn is_swept(&self, slot: &Slot, address: usize) -> bool {
        self.is_sweeping.is_set_relaxed() && slot.state() != State::Freed && slot.block.load_relaxed() == address
    }

    /// Counts a finding that is being reported.
    pub fn count_finding(&self) {
        self.counters.findings.add_relaxed(1);
    }

    /// A reading of all counters.
    #[must_use]
    pub fn stats(&self) -> SampledStats {
        SampledStats {
            samples: self.counters.samples.load_relaxed(),
            no_slot: self.counters.no_slot.load_relaxed(),
            unfit: self.counters.unfit.load_relaxed(),
            guards_refused: self.counters.guards_refused.load_relaxed(),
            findings: self.counters.findings.load_relaxed(),
            live: self.counters.live.load_relaxed(),
            live_bytes: self.counters.live_bytes.load_relaxed(),
        }
    }

    /// Checks queue, states and counters against each other; a violation is fatal. While no other thread uses the pool.
    pub fn check_invariants(&self) {
        let Some(slots) = self.slots.get() else { return };
        let queue = self.queue.lock();
        if queue.carved > queue.ready || queue.ready > queue.bound || queue.bound as usize > slots.len() {
            fatal("more slots were handed out than have a unit");
        }
        let (mut resting, mut next) = (0, queue.oldest);
        while let Some(slot) = behind_link(next).and_then(|index| slots.get(index as usize)) {
            resting += 1;
            if !matches!(slot.state(), State::Freed | State::Fresh) || resting > queue.carved {
                fatal("a slot at rest is in use, or stands in the queue twice");
            }
            next = slot.next.load_relaxed();
        }
        let states = (0..queue.carved as usize).filter_map(|index| slots.get(index)).map(Slot::state);
        let live = states.filter(|state| *state == State::Live).count() as u64;
        if resting != queue.resting || live != self.counters.live.load_relaxed() {
            fatal("slots at rest or in use are not as many as were counted");
        }
        if u64::from(resting) + live != u64::from(queue.carved) {
            fatal("a slot is neither in use nor at rest");
        }
    }

    /// Takes the lock before a fork.
    pub fn lock_for_fork(&self) {
        self.queue.lock_for_fork();
    }

    /// Releases what [`SampledPool::lock_for_fork`] took, in parent and child.
    ///
    /// # Safety
    /// - This thread (or the thread that it is a forked copy of) called `lock_for_fork`.
    pub unsafe fn unlock_after_fork(&self) {
        // SAFETY: passed on to the caller.
        unsafe { self.queue.unlock_after_fork() };
    }

    fn slot(&self, note: usize) -> &Slot {
        match self.slots.get().and_then(|slots| slots.get(note)) {
            Some(slot) => slot,
            None => fatal("a unit of samples without a slot"),
        }
    }

    /// A slot for the caller alone, busy: a fresh one as long as there are any, else the one that has rested longest.
    fn take_slot(&self, cx: &SampledContext<'_>) -> Option<(u32, &Slot)> {
        let slots = self.slots.get()?;
        let mut queue = self.queue.lock();
        if queue.carved == queue.ready {
            self.add_units(cx, slots, &mut queue);
        }
        if queue.carved < queue.ready {
            let index = queue.carved;
            let slot = slots.get(index as usize)?;
            queue.carved += 1;
            slot.publish(State::Busy);
            return Some((index, slot));
        }
        let index = behind_link(queue.oldest)?;
        let slot = slots.get(index as usize)?;
        queue.oldest = slot.next.load_relaxed();
        if queue.oldest == 0 {
            queue.newest = 0;
        }
        queue.resting -= 1;
        slot.publish(State::Busy);
        Some((index, slot))
    }

    /// Makes the next slots ready: a superslab's units at a time, all without access. Nothing happens where that cannot be had,
    /// and units that cannot be guarded now stay bound, so that there is never more than one such run of them.
    fn add_units(&self, cx: &SampledContext<'_>, slots: &FlatTable<Slot>, queue: &mut Queue) {
        if queue.bound == queue.ready {
            bind_units(cx, slots, queue);
        }
        let count = queue.bound - queue.ready;
        let Some(first) = slots.get(queue.ready as usize).filter(|_| count > 0) else { return };
        let unit = SlabIndex::new(first.unit.load_relaxed());
        if cx.os.protect(unit, 0, count as usize * SLAB_BYTES) {
            queue.ready = queue.bound;
        } else {
            self.counters.guards_refused.add_relaxed(1);
        }
    }

    /// The slot's block is gone: it rests behind all others.
    fn rest(&self, index: u32, slot: &Slot) {
        let mut queue = self.queue.lock();
        // One that the kernel would not open for its first block has had none.
        slot.publish(if slot.block.load_relaxed() == 0 { State::Fresh } else { State::Freed });
        slot.next.store_relaxed(0);
        let last = behind_link(queue.newest);
        match last.and_then(|last| self.slots.get()?.get(last as usize)) {
            Some(last) => last.next.store_relaxed(index + 1),
            None => queue.oldest = index + 1,
        }
        queue.newest = index + 1;
        queue.resting += 1;
    }

    /// A pointer that is not the start of a block in use.
    fn wrong_pointer(&self, slot: &Slot, address: usize, of_freed: Mistake, into: Mistake) -> Finding {
        let is_start = settled(slot) != State::Fresh && slot.block.load_relaxed() == address;
        describe(slot, if is_start { of_freed } else { into }, address)
    }

    /// The slot whose block lies nearest to `address`: an overflow may leap over the guards into the neighbour's unit.
    fn nearest(&self, note: usize, address: usize) -> &Slot {
        let own = self.slot(note);
        let unit = own.unit.load_relaxed();
        let distance = |slot: &Slot| {
            let (block, bytes) = (slot.block.load_relaxed(), slot.bytes.load_relaxed());
            // One without a block so far says 0, which is far away.
            if address < block { block - address } else { (address - block).saturating_sub(bytes) }
        };
        let neighbour = |index: Option<usize>, unit: u32| {
            let slot = self.slots.get()?.get(index?)?;
            (slot.unit.load_relaxed() == unit).then_some(slot)
        };
        let before = neighbour(note.checked_sub(1), unit.wrapping_sub(1));
        let behind = neighbour(note.checked_add(1), unit.wrapping_add(1));
        [before, behind].into_iter().flatten().fold(
            own,
            |best, other| {
                if distance(other) < distance(best) { other } else { best }
            },
        )
    }
}

impl Default for SampledPool {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes a run of units for the next slots.
fn bind_units(cx: &SampledContext<'_>, slots: &FlatTable<Slot>, queue: &mut Queue) {
    let count = (slots.len() as u32).saturating_sub(queue.bound).min(SLABS_PER_SUPERSLAB);
    let Some(run) = cx.os.take_run(count, 1) else { return };
    if run.clean.count_ones() < count {
        // Memory that a former user has touched is worth more elsewhere.
        let _given_back = cx.os.decommit(run.first, 0, count as usize * SLAB_BYTES);
    }
    for offset in 0..count {
        let (index, unit) = (queue.bound + offset, run.first.add(offset));
        let (Some(slot), Some(word)) = (slots.get(index as usize), cx.routes.get(unit.to_usize())) else {
            fatal("a unit of samples outside the tables");
        };
        slot.unit.store_relaxed(unit.get());
        word.set_sampled(index as usize);
    }
    queue.bound += count;
}

fn behind_link(link: u32) -> Option<u32> {
    link.checked_sub(1)
}

/// The slot for the caller alone, if it holds a block in use that begins at `address`.
fn claim_block(slot: &Slot, address: usize) -> bool {
    let is_its = || slot.block.load_relaxed() == address;
    while settled(slot) == State::Live && is_its() {
        if slot.try_claim(State::Live) {
            if is_its() {
                return true;
            }
            // Of two frees the second one may come when the slot is the next block's already.
            slot.publish(State::Live);
        }
    }
    false
}

/// The slot's state, once the call that has it in hand is done; "busy" if that takes too long.
fn settled(slot: &Slot) -> State {
    for _ in 0..PATIENCE {
        match slot.state() {
            State::Busy => spin_hint(),
            state => return state,
        }
    }
    State::Busy
}

/// The size that a free names, if that is wrong beyond doubt. A block that comes back through another door than it left through proves
/// nothing: a program that replaces some of the operators makes such pairs rightly.
fn wrong_size(slot: &Slot, claim: Request) -> Option<usize> {
    let (claimed, bytes) = (claim.bytes()?, slot.bytes.load_relaxed());
    let is_same_door = slot.door.load_relaxed() == claim.door() as u32;
    // No byte is one byte to the operators and to their callers.
    (is_same_door && claimed.max(1) != bytes.max(1)).then_some(claimed)
}

/// On which side of its block a write went wrong.
#[derive(Clone, Copy)]
enum Side {
    Before,
    Behind,
}

impl Side {
    fn at_free(self) -> Mistake {
        match self {
            Self::Before => Mistake::UnderflowSeenLate,
            Self::Behind => Mistake::OverflowSeenLate,
        }
    }

    fn at_exit(self) -> Mistake {
        match self {
            Self::Before => Mistake::UnderflowSeenAtExit,
            Self::Behind => Mistake::OverflowSeenAtExit,
        }
    }
}

/// What stands around a block, which the caller holds, and should not: where it begins.
fn damage(cx: &SampledContext<'_>, slot: &Slot) -> Option<(Side, usize)> {
    let start = cx.os.address_of(SlabIndex::new(slot.unit.load_relaxed())).wrapping_add(slot.pages.load_relaxed());
    let before = slot.block.load_relaxed() - start.addr();
    let behind = before + slot.bytes.load_relaxed();
    // SAFETY: the pages of a block in use can be read.
    if let Some(at) = unsafe { canary::first_damage(start, before) } {
        return Some((Side::Before, start.addr() + at));
    }
    let slack = slot.page_bytes.load_relaxed().saturating_sub(behind);
    // SAFETY: as above.
    let at = unsafe { canary::first_damage(start.wrapping_add(behind), slack) }?;
    Some((Side::Behind, start.addr() + behind + at))
}

fn describe(slot: &Slot, mistake: Mistake, address: usize) -> Finding {
    let state = slot.state();
    Finding {
        mistake,
        address,
        block: slot.block.load_relaxed(),
        bytes: slot.bytes.load_relaxed(),
        allocated: (state != State::Fresh).then(|| slot.allocated.read()),
        freed: (state == State::Freed).then(|| slot.freed.read()),
    }
}
