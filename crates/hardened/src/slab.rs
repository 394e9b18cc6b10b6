//! One slab: a run of units with a guard page at either end, cut into equal slots; and what is known of each slot.
//!
//! **Invariants.** `free_count` slots below `opened` have their bit set: exactly those in state fresh or free. `used` slots are
//! in use or quarantined. Slots from `opened` on are fresh and untouched.
//! **Access.** Everything under the lock of the slab's class; `class` never changes.

use core::cell::Cell;
use core::ptr;
use hakmem_base::{MAX_SLAB_BLOCK_BYTES, OS_PAGE_BYTES, SLAB_BYTES, SizeClass, SlabIndex};
use hakmem_superslab_os::MetaArena;

use crate::raw;
use crate::secret::Random;
use crate::slot::{Slot, State};

/// Bytes of canary behind every block, at least.
pub(crate) const CANARY_BYTES: usize = 8;
/// Largest alignment (bytes) that slots have: slots begin one OS page behind an aligned unit.
pub(crate) const SLOT_ALIGN_MAX: usize = OS_PAGE_BYTES;
/// A block is chosen among this many free slots at least, while the slab has them. More slots are opened only then, so that
/// a program with few blocks of a class touches few OS pages.
const CHOICE: u32 = 64;

/// The class whose slots hold `bytes` bytes and a canary at a multiple of `align`; `None` if slabs do not.
pub(crate) fn class_for(bytes: usize, align: usize) -> Option<SizeClass> {
    if align > SLOT_ALIGN_MAX || bytes > MAX_SLAB_BLOCK_BYTES {
        return None;
    }
    let align = align.max(16);
    SizeClass::for_bytes((bytes + CANARY_BYTES).next_multiple_of(align))
}

/// Units of a slab: enough for some dozen slots at least.
pub(crate) const fn units_of(class: SizeClass) -> u32 {
    match class.block_bytes() {
        0..=4096 => 4,
        4097..=8192 => 8,
        _ => 16,
    }
}

/// Slots of a slab.
pub(crate) const fn capacity_of(class: SizeClass) -> u32 {
    ((units_of(class) as usize * SLAB_BYTES - 2 * OS_PAGE_BYTES) / class.block_bytes()) as u32
}

/// What an address in a slab is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// The start of this slot.
    Slot(u32),
    /// Anything else.
    Inside,
}

/// The record of a slab, out of reach of its blocks. Recycled for slabs of the same class, never given back.
#[derive(Debug)]
pub(crate) struct Slab {
    pub class: SizeClass,
    slots: &'static [Cell<u32>],
    /// Bit i: slot i may be handed out.
    free: &'static [Cell<u64>],
    /// First unit of the run; 0 (a unit never handed out) while there is none.
    first: Cell<u32>,
    /// Where the slots begin.
    base: Cell<*mut u8>,
    opened: Cell<u32>,
    free_count: Cell<u32>,
    used: Cell<u32>,
    /// Guards that stand at the run's ends.
    guard_count: Cell<u32>,
    listed: Cell<bool>,
    previous: Cell<Option<&'static Self>>,
    next: Cell<Option<&'static Self>>,
}

// SAFETY: all cells are read and written under the lock of the slab's class only.
unsafe impl Sync for Slab {}
// SAFETY: as above; the record belongs to no thread.
unsafe impl Send for Slab {}

impl Slab {
    /// A record without a run.
    pub(crate) fn make(arena: &MetaArena, class: SizeClass) -> Option<&'static Self> {
        let capacity = capacity_of(class) as usize;
        let slots: &'static mut [u32] = raw::zeros(arena, capacity)?;
        let free: &'static mut [u64] = raw::zeros(arena, capacity.div_ceil(64))?;
        raw::keep(
            arena,
            Self {
                class,
                slots: Cell::from_mut(slots).as_slice_of_cells(),
                free: Cell::from_mut(free).as_slice_of_cells(),
                first: Cell::new(0),
                base: Cell::new(ptr::null_mut()),
                opened: Cell::new(0),
                free_count: Cell::new(0),
                used: Cell::new(0),
                guard_count: Cell::new(0),
                listed: Cell::new(false),
                previous: Cell::new(None),
                next: Cell::new(None),
            },
        )
    }

    /// Gives the record a run, whose slots all read as zero, and which this many of its guards stand around.
    pub(crate) fn place(&self, first: SlabIndex, start: *mut u8, guard_count: u32) {
        self.first.set(first.get());
        self.guard_count.set(guard_count);
        self.base.set(start.wrapping_add(OS_PAGE_BYTES));
    }

    /// Takes the run away and forgets its slots.
    pub(crate) fn displace(&self) {
        for word in self.slots.iter().take(self.opened.get() as usize) {
            word.set(0);
        }
        for word in self.free {
            word.set(0);
        }
        self.first.set(0);
        self.base.set(ptr::null_mut());
        self.opened.set(0);
        self.free_count.set(0);
        self.used.set(0);
    }

    /// Whether the record stands for the run that begins here.
    pub(crate) fn is_at(&self, first: SlabIndex) -> bool {
        self.first.get() == first.get()
    }

    pub(crate) fn first(&self) -> SlabIndex {
        SlabIndex::new(self.first.get())
    }

    pub(crate) fn guard_count(&self) -> u32 {
        self.guard_count.get()
    }

    /// Whether nothing of it is in use or in quarantine.
    pub(crate) fn is_empty(&self) -> bool {
        self.used.get() == 0
    }

    pub(crate) fn has_room(&self) -> bool {
        self.free_count.get() > 0 || self.opened.get() < capacity_of(self.class)
    }

    /// Slots that have been opened.
    pub(crate) fn opened(&self) -> u32 {
        self.opened.get()
    }

    /// What `address` is; it lies in the run.
    pub(crate) fn place_of(&self, address: usize) -> Place {
        let slot_bytes = self.class.block_bytes();
        match address.checked_sub(self.base.get().addr()) {
            Some(offset) if offset.is_multiple_of(slot_bytes) && offset / slot_bytes < self.slots.len() => {
                Place::Slot((offset / slot_bytes) as u32)
            }
            _ => Place::Inside,
        }
    }

    /// Where a slot begins.
    pub(crate) fn address_of(&self, index: u32) -> *mut u8 {
        self.base.get().wrapping_add(index as usize * self.class.block_bytes())
    }

    /// The bytes of a slot from `offset` on: of one in use only those behind its block.
    pub(crate) fn bytes_from(&self, index: u32, offset: usize) -> &'static mut [u8] {
        let bytes = self.class.block_bytes().saturating_sub(offset);
        // SAFETY: the slot lies in the run that the box holds, between the guards; the class's lock is held, and the box
        // looks at one slot at a time. The memory is the window's, which lives as long as the box.
        unsafe { raw::bytes_at(self.address_of(index).wrapping_add(offset), bytes) }
    }

    pub(crate) fn slot(&self, index: u32) -> Slot {
        Slot::unpack(self.slots.get(index as usize).map_or(0, Cell::get))
    }

    fn set_slot(&self, index: u32, slot: Slot) {
        if let Some(word) = self.slots.get(index as usize) {
            word.set(slot.pack());
        }
    }

    /// The slot gets a new size in its user's hands.
    pub(crate) fn resize(&self, index: u32, bytes: usize) {
        self.set_slot(index, Slot { bytes, ..self.slot(index) });
    }

    /// Takes a free slot at random.
    pub(crate) fn pick(&self, random: &mut Random) -> Option<u32> {
        if self.free_count.get() < CHOICE {
            self.open();
        }
        let opened = self.opened.get();
        if self.free_count.get() == 0 || opened == 0 {
            return None;
        }
        let index = self.free_from(random.below(opened))?;
        self.flip(index);
        self.free_count.set(self.free_count.get() - 1);
        self.used.set(self.used.get() + 1);
        Some(index)
    }

    /// The first slot with its bit set from `start` on, round the end.
    fn free_from(&self, start: u32) -> Option<u32> {
        let word_at = |at: usize| self.free.get(at).map_or(0, Cell::get);
        let begin = (start / 64) as usize;
        let found = |at: usize, word: u64| (word != 0).then(|| at as u32 * 64 + word.trailing_zeros());
        let first = word_at(begin) & (u64::MAX << (start % 64));
        found(begin, first)
            .or_else(|| (begin + 1..self.free.len()).find_map(|at| found(at, word_at(at))))
            .or_else(|| (0..=begin).find_map(|at| found(at, word_at(at))))
    }

    fn open(&self) {
        let begin = self.opened.get();
        let end = begin.saturating_add(CHOICE).min(capacity_of(self.class));
        (begin..end).for_each(|index| self.flip(index));
        self.opened.set(end);
        self.free_count.set(self.free_count.get() + (end - begin));
    }

    fn flip(&self, index: u32) {
        if let Some(word) = self.free.get((index / 64) as usize) {
            word.set(word.get() ^ 1 << (index % 64));
        }
    }

    /// The slot is in a user's hands.
    pub(crate) fn hand_out(&self, index: u32, slot: Slot) {
        self.set_slot(index, Slot { state: State::InUse, ..slot });
    }

    /// The slot was freed and waits. It keeps what was known of it, for the report of a second free.
    pub(crate) fn retain(&self, index: u32) {
        self.set_slot(index, Slot { state: State::Quarantined, ..self.slot(index) });
    }

    /// The slot may be handed out again.
    pub(crate) fn release(&self, index: u32) {
        self.set_slot(index, Slot { state: State::Free, ..self.slot(index) });
        self.flip(index);
        self.free_count.set(self.free_count.get() + 1);
        self.used.set(self.used.get() - 1);
    }

    /// Whether counters, bits and states agree.
    pub(crate) fn is_consistent(&self) -> bool {
        let opened = self.opened.get();
        let is_free = |index: u32| {
            let word = self.free.get((index / 64) as usize).map_or(0, Cell::get);
            word & 1 << (index % 64) != 0
        };
        let states_agree = (0..capacity_of(self.class)).all(|index| match self.slot(index).state {
            State::Fresh => is_free(index) == (index < opened),
            State::Free => is_free(index) && index < opened,
            State::InUse | State::Quarantined => !is_free(index) && index < opened,
        });
        let free: u32 = self.free.iter().map(|word| word.get().count_ones()).sum();
        states_agree && free == self.free_count.get() && self.used.get() + free == opened
    }
}

/// Slabs of a class that have room.
#[derive(Debug)]
pub(crate) struct SlabList {
    head: Option<&'static Slab>,
}

impl SlabList {
    pub(crate) const fn new() -> Self {
        Self { head: None }
    }

    pub(crate) fn head(&self) -> Option<&'static Slab> {
        self.head
    }

    /// Whether it holds `slab` and no other.
    pub(crate) fn is_only(&self, slab: &Slab) -> bool {
        self.head.is_some_and(|head| ptr::eq(head, slab) && head.next.get().is_none())
    }

    /// Adds a slab, if it is not there yet.
    pub(crate) fn add(&mut self, slab: &'static Slab) {
        if slab.listed.replace(true) {
            return;
        }
        slab.previous.set(None);
        slab.next.set(self.head);
        if let Some(head) = self.head {
            head.previous.set(Some(slab));
        }
        self.head = Some(slab);
    }

    /// Removes a slab, if it is there.
    pub(crate) fn remove(&mut self, slab: &'static Slab) {
        if !slab.listed.replace(false) {
            return;
        }
        match slab.previous.get() {
            Some(previous) => previous.next.set(slab.next.get()),
            None => self.head = slab.next.get(),
        }
        if let Some(next) = slab.next.get() {
            next.previous.set(slab.previous.get());
        }
        slab.previous.set(None);
        slab.next.set(None);
    }

    /// Its slabs, each of which may be removed once it has been returned.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'static Slab> + use<> {
        let mut next = self.head;
        core::iter::from_fn(move || {
            let slab = next?;
            next = slab.next.get();
            Some(slab)
        })
    }
}

/// Records without a run, linked through `next`.
#[derive(Debug)]
pub(crate) struct SpareSlabs {
    head: Option<&'static Slab>,
}

impl SpareSlabs {
    pub(crate) const fn new() -> Self {
        Self { head: None }
    }

    pub(crate) fn push(&mut self, slab: &'static Slab) {
        slab.next.set(self.head);
        self.head = Some(slab);
    }

    pub(crate) fn pop(&mut self) -> Option<&'static Slab> {
        let slab = self.head?;
        self.head = slab.next.replace(None);
        Some(slab)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_class_has_room_for_its_canary_and_its_alignment() {
        for bytes in (0..MAX_SLAB_BLOCK_BYTES).step_by(7) {
            for align in [1, 8, 16, 64, 512, 4096] {
                let Some(class) = class_for(bytes, align) else {
                    assert!(bytes + CANARY_BYTES > MAX_SLAB_BLOCK_BYTES - align, "{bytes} {align}");
                    continue;
                };
                assert!(class.block_bytes() >= bytes + CANARY_BYTES && class.block_bytes() % align.max(16) == 0);
            }
        }
        assert!(class_for(8, 8192).is_none() && class_for(usize::MAX, 1).is_none());
    }

    #[test]
    fn slots_and_guards_fit_into_the_run() {
        for class in SizeClass::all().skip(1) {
            let bytes = capacity_of(class) as usize * class.block_bytes() + 2 * OS_PAGE_BYTES;
            assert!(bytes <= units_of(class) as usize * SLAB_BYTES && capacity_of(class) >= 31);
        }
    }

    #[test]
    fn picks_take_each_slot_once_in_no_order() {
        let arena = MetaArena::new();
        let class = class_for(1000, 16).unwrap();
        let slab = Slab::make(&arena, class).unwrap();
        let mut random = Random::new(5);
        let slot = Slot { state: State::InUse, bytes: 1000, align: 16, door: hakmem_base::Door::Malloc };
        let mut order = Vec::new();
        while let Some(index) = slab.pick(&mut random) {
            slab.hand_out(index, slot);
            order.push(index);
            assert!(slab.is_consistent());
        }
        assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), capacity_of(class) as usize);
        assert!(!order.is_sorted() && !slab.has_room());
        assert!(order.iter().take(10).all(|&index| index < 2 * CHOICE), "few slots are opened at first");
        for &index in &order {
            slab.retain(index);
            assert!(!slab.is_empty());
            slab.release(index);
            assert!(slab.is_consistent());
        }
        assert!(slab.is_empty() && slab.has_room());
    }
}
