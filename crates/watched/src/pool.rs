//! The slots, from the first block in one to the last.

use core::ptr::NonNull;
use hakmem_atomic_ops::{Lock, SetOnce, Shared64};
use hakmem_base::{Life, OS_PAGE_BYTES, SLABS_PER_SUPERSLAB_SHIFT, SizeClass, SlabIndex, fatal};
use hakmem_ownership::{Route, RouteWord};
use hakmem_superslab_os::{FlatTable, SuperslabOs};

use crate::group::{GROUPS, Group};
use crate::life::Birth;
use crate::ring::Ring;
use crate::slot::{Slot, State};

/// Slots of all groups. 4 MiB of addresses; memory follows as it is used.
const SLOTS: usize = if cfg!(alloc_loom) { 16 } else { 1 << 15 };

/// Where units come from and how they are recorded.
#[derive(Clone, Copy)]
pub struct WatchedContext<'a> {
    /// The box that owns the units.
    pub os: &'a SuperslabOs,
    /// One route word per unit of the window.
    pub routes: &'a FlatTable<RouteWord>,
}

/// What is wrong with a pointer into a unit of watched blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrong {
    /// No block has ever begun there.
    NoStart,
    /// The block has been freed.
    Freed,
}

/// Places for watched blocks. Usable as a static, and several times in one test.
#[derive(Debug)]
pub struct WatchedPool {
    slots: SetOnce<FlatTable<Slot>>,
    places: Lock<Places>,
    ring: Ring,
    births: Shared64,
    no_place: Shared64,
    lost: Shared64,
    live_bytes: Shared64,
}

/// Free slots, newest first, and how far the table is carved. Links are index + 1; 0 is none.
#[derive(Debug)]
struct Places {
    groups: [Free; GROUPS],
    /// Slots that have a unit.
    bound: u32,
}

#[derive(Clone, Copy, Debug)]
struct Free {
    newest: u32,
    /// The group's newest unit: slots that were never used, from `fresh` to `end`.
    fresh: u32,
    end: u32,
    unit: u32,
    /// Slots of its units.
    bound: u32,
}

/// What the pool has done and holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WatchedStats {
    /// Blocks handed out.
    pub births: u64,
    /// Blocks that were to be watched when there was no place.
    pub no_place: u64,
    /// Lives that were not told because the ring was full.
    pub lost: u64,
    /// Bytes of the blocks in use, rounded up to their size classes.
    pub live_bytes: u64,
}

impl WatchedPool {
    /// A pool without places.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            slots: SetOnce::new(),
            places: Lock::new(Places {
                groups: [Free { newest: 0, fresh: 0, end: 0, unit: 0, bound: 0 }; GROUPS],
                bound: 0,
            }),
            ring: Ring::new(),
            births: Shared64::new(0),
            no_place: Shared64::new(0),
            lost: Shared64::new(0),
            live_bytes: Shared64::new(0),
        }
    }

    /// Makes room for descriptions, once; units follow as they are needed. False: no memory.
    pub fn reserve(&self) -> bool {
        if self.slots.get().is_none() {
            let Some(table) = FlatTable::reserve(SLOTS) else { return false };
            // Another thread's table serves as well; this one is given back.
            let _first = self.slots.set(table);
        }
        self.ring.reserve()
    }

    /// Hands out a block of a class. `None`: there is no place; counted.
    pub fn allocate(&self, cx: &WatchedContext<'_>, class: SizeClass, birth: &Birth) -> Option<NonNull<u8>> {
        let group = Group::of(class);
        let (_, slot) = self.take(Some(cx), group)?;
        let unit = SlabIndex::new(slot.unit.load_relaxed());
        let offset = slot.place.load_relaxed() as usize * group.place_bytes();
        let block = NonNull::new(cx.os.address_of(unit).wrapping_add(offset))?;
        slot.class.store_relaxed(class.index() as u32);
        slot.write(birth);
        self.births.add_relaxed(1);
        self.live_bytes.add_relaxed(class.block_bytes() as u64);
        slot.publish(State::Live);
        Some(block)
    }

    /// Takes the block at `address` back, at `now_ns`; `note` stands in the route word of its unit. `allocs_of` says how many
    /// allocations a heap has made, if it can.
    ///
    /// # Errors
    /// There is no block in use that begins there.
    pub fn free(
        &self,
        note: usize,
        address: usize,
        now_ns: u64,
        allocs_of: impl FnOnce(usize) -> Option<u64>,
    ) -> Result<(), Wrong> {
        let (group, index, slot) = self.slot_at(note, address)?;
        if !slot.try_claim() {
            return Err(wrong(slot));
        }
        self.tell(&slot.read(), now_ns, allocs_of, None);
        self.live_bytes.sub_relaxed(block_bytes(slot) as u64);
        self.release(group, index, slot);
        Ok(())
    }

    /// Watches the run or big block of the caller's that begins at `unit` with this route word, where it is. False: there is no room.
    pub fn watch(&self, unit: SlabIndex, word: &RouteWord, birth: &Birth) -> bool {
        let (units, bytes) = match word.route() {
            Route::Run { units, bytes } => (units, bytes),
            Route::Big { bytes, note } => (0, bytes | usize::from(note)),
            _ => return false,
        };
        let Some((index, slot)) = self.take(None, Group::ELSEWHERE) else { return false };
        slot.unit.store_relaxed(unit.get());
        slot.class.store_relaxed(units);
        slot.place.store_relaxed(birth.probe);
        slot.elsewhere_bytes.store_relaxed(bytes);
        slot.write(birth);
        self.births.add_relaxed(1);
        slot.publish(State::Live);
        word.set_watched(Group::ELSEWHERE.note(index));
        true
    }

    /// What the word of the block at `unit` said before it was watched; `None` if `note`, its word, is that of a unit of places.
    ///
    /// # Errors
    /// The block has been freed.
    pub fn route_elsewhere(&self, note: usize, unit: SlabIndex) -> Option<Result<Route, Wrong>> {
        let (_, slot) = self.slot_elsewhere(note)?;
        let is_it = slot.state() == State::Live && slot.unit.load_relaxed() == unit.get();
        Some(if is_it { Ok(route(slot)) } else { Err(Wrong::Freed) })
    }

    /// Takes a block back that [`WatchedPool::watch`] watched: its word says "unused" then. What it was before is the caller's to free.
    /// `look` says how much of the superslab that begins at a unit is in memory (thousandths), if it can.
    ///
    /// # Errors
    /// The block has been freed.
    pub fn free_elsewhere(
        &self,
        unit: SlabIndex,
        word: &RouteWord,
        note: usize,
        now_ns: u64,
        allocs_of: impl FnOnce(usize) -> Option<u64>,
        look: impl FnOnce(SlabIndex) -> Option<u16>,
    ) -> Result<Route, Wrong> {
        let (index, slot) = self.claim_elsewhere(note, unit)?;
        let route = route(slot);
        self.tell(&slot.read(), now_ns, allocs_of, probe(slot).and_then(look));
        word.retire();
        self.release(Group::ELSEWHERE, index, slot);
        Ok(route)
    }

    /// Ends the watch over a block while it lives, which is about to be resized: its word says again what it said before. The birth is
    /// for another [`WatchedPool::watch`].
    ///
    /// # Errors
    /// The block has been freed.
    pub fn pause(&self, unit: SlabIndex, word: &RouteWord, note: usize) -> Result<(Route, Birth), Wrong> {
        let (index, slot) = self.claim_elsewhere(note, unit)?;
        let (route, birth) = (route(slot), slot.read());
        match route {
            Route::Run { units, bytes } => word.set_run(units, bytes),
            Route::Big { bytes, note } => word.set_big(bytes, note),
            _ => {}
        }
        self.births.sub_relaxed(1);
        self.release(Group::ELSEWHERE, index, slot);
        Ok((route, birth))
    }

    fn tell(&self, birth: &Birth, now_ns: u64, allocs_of: impl FnOnce(usize) -> Option<u64>, touched: Option<u16>) {
        let allocs = allocs_of(birth.heap).map(|allocs| allocs.saturating_sub(birth.allocs));
        if !self.ring.push(&life(birth, now_ns, allocs, touched)) {
            self.lost.add_relaxed(1);
        }
    }

    /// The block of a busy slot is gone.
    fn release(&self, group: Group, index: u32, slot: &Slot) {
        let mut places = self.places.lock();
        slot.publish(State::Free);
        if let Some(free) = places.groups.get_mut(group.index()) {
            slot.next.store_relaxed(free.newest);
            free.newest = index + 1;
        }
    }

    /// The slot of the block at `unit` with this note, for the caller alone.
    fn claim_elsewhere(&self, note: usize, unit: SlabIndex) -> Result<(u32, &Slot), Wrong> {
        let (index, slot) = self.slot_elsewhere(note).ok_or(Wrong::NoStart)?;
        let is_its = || slot.unit.load_relaxed() == unit.get();
        if !is_its() || !slot.try_claim() {
            return Err(Wrong::Freed);
        }
        // Of two frees the second one may come when the slot is the next block's already.
        if !is_its() {
            slot.publish(State::Live);
            return Err(Wrong::Freed);
        }
        Ok((index, slot))
    }

    fn slot_elsewhere(&self, note: usize) -> Option<(u32, &Slot)> {
        let (group, index) = Group::from_note(note);
        if group != Group::ELSEWHERE {
            return None;
        }
        match self.slots.get().and_then(|slots| slots.get(index)) {
            Some(slot) => Some((index as u32, slot)),
            None => fatal("a watched block without a slot"),
        }
    }

    /// Bytes of the block in use at `address`.
    ///
    /// # Errors
    /// There is no block in use that begins there.
    pub fn usable_bytes(&self, note: usize, address: usize) -> Result<usize, Wrong> {
        let (_, _, slot) = self.slot_at(note, address)?;
        if slot.state() == State::Live { Ok(block_bytes(slot)) } else { Err(wrong(slot)) }
    }

    /// The lives that have ended since the last time, oldest first.
    pub fn drain(&self, visit: impl FnMut(&Life)) {
        self.ring.drain(visit);
    }

    /// The lives of blocks in use so far. A block that is freed or handed out meanwhile may be left out. `look` as for
    /// [`WatchedPool::free_elsewhere`].
    pub fn for_each_alive(&self, now_ns: u64, look: impl Fn(SlabIndex) -> Option<u16>, mut visit: impl FnMut(&Life)) {
        let Some(slots) = self.slots.get() else { return };
        let bound = self.places.lock().bound;
        for slot in (0..bound as usize).filter_map(|index| slots.get(index)) {
            if slot.state() != State::Live {
                continue;
            }
            let (birth, touched) = (slot.read(), probe(slot).and_then(&look));
            // Handed out again in between it would be another block, with another time of birth; then it is a mixture at worst.
            if slot.state() == State::Live && slot.read() == birth {
                visit(&life(&birth, now_ns, None, touched));
            }
        }
    }

    /// A reading of all counters.
    #[must_use]
    pub fn stats(&self) -> WatchedStats {
        WatchedStats {
            births: self.births.load_relaxed(),
            no_place: self.no_place.load_relaxed(),
            lost: self.lost.load_relaxed(),
            live_bytes: self.live_bytes.load_relaxed(),
        }
    }

    /// Checks lists, states and counters against each other; a violation is fatal. While no other thread uses the pool.
    pub fn check_invariants(&self) {
        let Some(slots) = self.slots.get() else { return };
        let places = self.places.lock();
        let (mut listed, mut fresh) = (0_u32, 0);
        for free in &places.groups {
            fresh += free.end - free.fresh;
            let mut next = free.newest;
            while let Some(slot) = behind_link(next).and_then(|index| slots.get(index)) {
                listed += 1;
                if slot.state() != State::Free || listed > places.bound {
                    fatal("a free place of watched blocks is in use, or listed twice");
                }
                next = slot.next.load_relaxed();
            }
        }
        let bound = (0..places.bound as usize).filter_map(|index| slots.get(index));
        let live = bound.filter(|slot| slot.state() == State::Live);
        let (count, bytes) = live.fold((0, 0), |(count, bytes), slot| (count + 1, bytes + block_bytes(slot) as u64));
        if listed + fresh + count != places.bound || bytes != self.live_bytes.load_relaxed() {
            fatal("a place of watched blocks is neither in use nor free");
        }
    }

    /// Takes the locks before a fork.
    pub fn lock_for_fork(&self) {
        self.ring.lock_for_fork();
        self.places.lock_for_fork();
    }

    /// Releases what [`WatchedPool::lock_for_fork`] took, in parent and child.
    ///
    /// # Safety
    /// - This thread (or the thread that it is a forked copy of) called `lock_for_fork`.
    pub unsafe fn unlock_after_fork(&self) {
        // SAFETY: passed on to the caller.
        unsafe { self.places.unlock_after_fork() };
        // SAFETY: passed on to the caller.
        unsafe { self.ring.unlock_after_fork() };
    }

    /// In a forked child, after [`WatchedPool::unlock_after_fork`]: what its parent has not been told yet is not the child's.
    pub fn forget_in_child(&self) {
        self.ring.clear_in_child();
    }

    /// A slot of the group for the caller alone, busy: a freed one if there is any. `None` is counted.
    fn take(&self, cx: Option<&WatchedContext<'_>>, group: Group) -> Option<(u32, &Slot)> {
        let taken = self.try_take(cx, group);
        if taken.is_none() {
            self.no_place.add_relaxed(1);
        }
        taken
    }

    /// Without a context the slots get no unit.
    fn try_take(&self, cx: Option<&WatchedContext<'_>>, group: Group) -> Option<(u32, &Slot)> {
        let slots = self.slots.get()?;
        let mut places = self.places.lock();
        let Places { groups, bound } = &mut *places;
        let free = groups.get_mut(group.index())?;
        let index = match behind_link(free.newest) {
            Some(index) => {
                free.newest = slots.get(index)?.next.load_relaxed();
                index
            }
            None => {
                if free.fresh == free.end {
                    if free.bound == group.most_places() {
                        return None;
                    }
                    let unit = match cx {
                        Some(cx) => add_unit(cx, slots, *bound, group)?.get(),
                        None => 0,
                    };
                    (free.fresh, free.end, free.unit) = (*bound, *bound + group.places(), unit);
                    free.bound += group.places();
                    *bound = free.end;
                }
                let index = free.fresh as usize;
                let slot = slots.get(index)?;
                slot.unit.store_relaxed(free.unit);
                slot.place.store_relaxed(group.places() - (free.end - free.fresh));
                free.fresh += 1;
                index
            }
        };
        let slot = slots.get(index)?;
        slot.publish(State::Busy);
        Some((index as u32, slot))
    }

    fn slot_at(&self, note: usize, address: usize) -> Result<(Group, u32, &Slot), Wrong> {
        let (group, first) = Group::from_note(note);
        let index = first + group.place_at(address).ok_or(Wrong::NoStart)?;
        match self.slots.get().and_then(|slots| slots.get(index)) {
            Some(slot) => Ok((group, index as u32, slot)),
            None => fatal("a unit of watched blocks without slots"),
        }
    }
}

impl Default for WatchedPool {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes a unit and gives its places the slots from `first` on. `None`: slots or memory are used up.
fn add_unit(cx: &WatchedContext<'_>, slots: &FlatTable<Slot>, first: u32, group: Group) -> Option<SlabIndex> {
    if (first + group.places()) as usize > slots.len() {
        return None;
    }
    let unit = cx.os.take_run(1, 1)?.first;
    cx.routes.get(unit.to_usize())?.set_watched(group.note(first));
    Some(unit)
}

fn behind_link(link: u32) -> Option<usize> {
    link.checked_sub(1).map(|index| index as usize)
}

/// Bytes of a block in a place; 0 of one elsewhere, whose bytes others count.
fn block_bytes(slot: &Slot) -> usize {
    if slot.elsewhere_bytes.load_relaxed() != 0 {
        return 0;
    }
    SizeClass::from_index(slot.class.load_relaxed() as usize).map_or(0, SizeClass::block_bytes)
}

/// What a block elsewhere is.
fn route(slot: &Slot) -> Route {
    let bytes = slot.elsewhere_bytes.load_relaxed();
    match slot.class.load_relaxed() {
        0 => Route::Big { bytes: bytes & !(OS_PAGE_BYTES - 1), note: (bytes & (OS_PAGE_BYTES - 1)) as u16 },
        units => Route::Run { units, bytes },
    }
}

fn wrong(slot: &Slot) -> Wrong {
    if slot.state() == State::Fresh { Wrong::NoStart } else { Wrong::Freed }
}

/// The superslab of a block elsewhere that is looked at. A word that is read while the slot becomes another block's names a place that
/// the caller throws away.
fn probe(slot: &Slot) -> Option<SlabIndex> {
    if slot.elsewhere_bytes.load_relaxed() == 0 {
        return None;
    }
    let superslab = slot.place.load_relaxed().checked_sub(1)?;
    Some(SlabIndex::new(slot.unit.load_relaxed()).add(superslab << SLABS_PER_SUPERSLAB_SHIFT))
}

fn life(birth: &Birth, now_ns: u64, allocs: Option<u64>, touched_permille: Option<u16>) -> Life {
    let ns = now_ns.saturating_sub(birth.at_ns);
    Life { bytes: birth.bytes, weight: birth.weight, ns, allocs, at_ns: now_ns, touched_permille, frames: birth.frames }
}
