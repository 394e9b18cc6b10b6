//! The state under the lock: which unit of which superslab is whose. No system call happens here.
//!
//! **Invariants.** Every superslab below `committed`, except number 0, is exactly one of: cut into units, part of an
//! extent, warm, unused. A superslab is in the list of its bucket and in the purge queue exactly when its bits say so.
//! Superslabs that are not committed are unused.

use crate::bits::{ALL, lowest_fit, mask};
use crate::free_map::{Avoid, FreeMap};
use crate::hindsight::{ALWAYS_HUGE, WORLDS, Watch};
use crate::policy::OsPolicy;
use crate::probe::Probe;
use crate::record::{
    BUCKET_COUNT, DIRTY_BUCKETS, HUGE, Kind, NO_BUCKET, PARKED, QUEUED, Record, Tier, URGENT, WARM_BUCKET,
    free_units_of,
};
use crate::table::FlatTable;
use hakmem_base::{Hindsight, SLAB_BYTES, SLABS_PER_SUPERSLAB, fatal};

/// Records that a search for several contiguous units looks at in one bucket.
const TRIES_PER_BUCKET: u32 = 4;
/// Records that it looks at altogether before it opens another superslab.
const TRIES: u32 = 32;

/// The superslabs of one window.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) records: FlatTable<Record>,
    pub(crate) map: FreeMap,
    pub(crate) policy: OsPolicy,
    /// First record of each bucket's list.
    heads: [u32; BUCKET_COUNT],
    /// Bit i: list i is not empty.
    nonempty: u64,
    /// Ends of the purge queue; 0 when it is empty.
    pub(crate) oldest: u32,
    pub(crate) newest: u32,
    /// Superslabs below this one are readable and writable.
    pub(crate) committed: u32,
    /// Superslabs by which the committed part grows next.
    pub(crate) commit_step: u32,
    /// Superslab number 0 counted in superslabs from address 0: aligns extents by address.
    pub(crate) phase: u32,
    pub(crate) units_in_use: u64,
    pub(crate) peak_units_in_use: u64,
    pub(crate) free_dirty_units: u64,
    pub(crate) hot: u32,
    pub(crate) draining: u32,
    pub(crate) warm: u32,
    pub(crate) parked: u32,
    pub(crate) extent_superslabs: u32,
    pub(crate) warm_hits: u64,
    pub(crate) fresh_superslabs: u64,
    pub(crate) probe: Probe,
    pub(crate) watch: Watch,
}

/// Where units fit into a superslab, at its first one only if nowhere else: a big block may have begun there, and as long as nothing else
/// does, a second free of that block is seen.
#[unsafe(link_section = ".text.hot.hakmem")]
fn fit(free: u32, units: u32, align: u32) -> Option<u32> {
    lowest_fit(free & !1, units, align).or_else(|| lowest_fit(free, units, align))
}

impl Pool {
    pub(crate) const fn empty() -> Self {
        Self {
            records: FlatTable::empty(),
            map: FreeMap::empty(),
            policy: OsPolicy::new(),
            heads: [0; BUCKET_COUNT],
            nonempty: 0,
            oldest: 0,
            newest: 0,
            committed: 1,
            commit_step: 1,
            phase: 0,
            units_in_use: 0,
            peak_units_in_use: 0,
            free_dirty_units: 0,
            hot: 0,
            draining: 0,
            warm: 0,
            parked: 0,
            extent_superslabs: 0,
            warm_hits: 0,
            fresh_superslabs: 0,
            probe: Probe::new(),
            watch: Watch::new(),
        }
    }

    /// Gives an empty pool its superslabs; `false` (and no change) without memory for the metadata.
    pub(crate) fn attach(&mut self, superslab_count: u32, phase: u32) -> bool {
        let Some(records) = FlatTable::reserve(superslab_count as usize) else { return false };
        let Some(mut map) = FreeMap::reserve(superslab_count) else { return false };
        // Superslab 0 stays unused for ever, so that 0 ends lists and slab index 0 means "none".
        map.set_used(0, 1);
        (self.records, self.map, self.phase) = (records, map, phase);
        true
    }

    pub(crate) fn superslab_count(&self) -> u32 {
        self.records.len() as u32
    }

    pub(crate) fn record(&mut self, superslab: u32) -> &mut Record {
        match self.records.get_mut(superslab as usize) {
            Some(record) => record,
            None => fatal("a superslab outside the window was named"),
        }
    }

    pub(crate) fn read(&self, superslab: u32) -> Record {
        match self.records.get(superslab as usize) {
            Some(record) => *record,
            None => fatal("a superslab outside the window was named"),
        }
    }

    /// Whether `units` more may be handed out.
    pub(crate) fn is_within_limit(&self, units: u64) -> bool {
        let limit = self.policy.memory_limit_bytes;
        limit == 0 || (self.units_in_use + units).saturating_mul(SLAB_BYTES as u64) <= limit as u64
    }

    /// Superslab and slot of free units in a superslab that is in use already, or in a warm one: where their OS pages are there
    /// already, else anywhere.
    pub(crate) fn place_units(&mut self, units: u32, align: u32) -> Option<(u32, u32)> {
        self.search(self.nonempty & DIRTY_BUCKETS, units, align, Record::free_dirty)
            .or_else(|| self.search(self.nonempty, units, align, |record| record.free))
    }

    /// As [`Pool::place_units`], however long the search: no other superslab can be had.
    #[cold]
    #[inline(never)]
    pub(crate) fn place_units_anywhere(&self, units: u32, align: u32) -> Option<(u32, u32)> {
        (1..self.committed).find_map(|superslab| Some((superslab, fit(self.read(superslab).free, units, align)?)))
    }

    /// Whether these units are free and dirty.
    pub(crate) fn waits_dirty(&self, superslab: u32, slot: u32, units: u32) -> bool {
        if superslab >= self.superslab_count() || slot + units > SLABS_PER_SUPERSLAB {
            return false;
        }
        let (record, wanted) = (self.read(superslab), mask(slot, units));
        matches!(record.kind, Kind::Slabs | Kind::Warm) && record.free_dirty() & wanted == wanted
    }

    /// The first fit among the bits that `eligible` names, in the lists given, for a bounded number of looks.
    fn search(&mut self, mut lists: u64, units: u32, align: u32, eligible: fn(&Record) -> u32) -> Option<(u32, u32)> {
        let tiering = self.policy.tiering;
        let mut tries = TRIES;
        while lists != 0 {
            let bucket = lists.trailing_zeros() as u8;
            lists &= lists - 1;
            if tiering && free_units_of(bucket) < units {
                continue;
            }
            if bucket == WARM_BUCKET
                && let Some(lowest) = self.place_superslab()
                && let Some(slot) = fit(eligible(&self.read(lowest)), units, align)
            {
                // Not the one that was given back last: it may lie in the midst of what a big block has left, and wants again.
                return Some((lowest, slot));
            }
            let mut superslab = self.head(bucket);
            let mut tries_here = if tiering { TRIES_PER_BUCKET } else { TRIES };
            while superslab != 0 && tries_here > 0 && (tries > 0 || bucket == WARM_BUCKET) {
                let record = self.read(superslab);
                if let Some(slot) = fit(eligible(&record), units, align) {
                    return Some((superslab, slot));
                }
                superslab = record.next;
                tries_here -= 1;
                tries = tries.saturating_sub(1);
            }
        }
        None
    }

    /// The lowest free superslab that is nobody's room, else the lowest free one.
    pub(crate) fn place_superslab(&mut self) -> Option<u32> {
        self.map.find(1, 1, 0, Avoid::UsedAndRoom).or_else(|| self.place_in_room(1, 1))
    }

    /// The lowest place for an extent, with room behind it if that can be had.
    pub(crate) fn place_extent(&mut self, superslabs: u32, room: u32, align: u32) -> Option<u32> {
        let phase = self.phase & (align - 1);
        let with_room = superslabs.checked_add(room)?;
        self.map
            .find(with_room, align, phase, Avoid::UsedAndRoom)
            .or_else(|| self.map.find(superslabs, align, phase, Avoid::UsedAndRoom))
            .or_else(|| self.place_in_room(superslabs, align))
    }

    /// The lowest place for an extent, whoever's room it is.
    pub(crate) fn place_in_room(&mut self, superslabs: u32, align: u32) -> Option<u32> {
        self.map.find(superslabs, align, self.phase & (align - 1), Avoid::Used)
    }

    /// Hands out free units; returns their clean bits, the first unit in bit 0.
    #[unsafe(link_section = ".text.hot.hakmem")]
    pub(crate) fn take_units(&mut self, superslab: u32, slot: u32, units: u32, now: u32) -> u32 {
        let wanted = mask(slot, units);
        let before = self.read(superslab);
        match before.kind {
            Kind::Unused => self.fresh_superslabs += 1,
            Kind::Warm => self.warm_hits += 1,
            Kind::Slabs => {}
            Kind::ExtentHead | Kind::ExtentTail => fatal("units of an extent were about to be handed out"),
        }
        let record = self.record(superslab);
        record.open();
        if record.free & wanted != wanted {
            fatal("units that are not free were about to be handed out");
        }
        let clean = (!record.dirty & wanted) >> slot;
        let dirty_taken = (record.free_dirty() & wanted).count_ones();
        record.free &= !wanted;
        record.dirty |= wanted;
        self.free_dirty_units -= u64::from(dirty_taken);
        self.add_in_use(units);
        self.settle(superslab, before.kind, Wait::Keep, now);
        if self.watch.is_on() {
            let is_huge = before.has(HUGE);
            let level = if is_huge { ALWAYS_HUGE } else { Hindsight::level_of(self.small_heap_bytes()) };
            let _opened = self.watch.take(superslab, wanted, ALL, level, now);
        }
        clean
    }

    /// Takes units back.
    pub(crate) fn give_units(&mut self, superslab: u32, slot: u32, units: u32, now: u32) {
        let given = mask(slot, units);
        let eager = self.policy.eager_free;
        let record = self.record(superslab);
        let before = record.kind;
        if before != Kind::Slabs || (record.free | record.purging) & given != 0 || given.count_ones() != units {
            fatal("a run was given back that is not handed out");
        }
        record.free |= given;
        record.freed_at = now;
        let wait = if eager && record.free == ALL { Wait::Urgent } else { Wait::Restart };
        self.free_dirty_units += u64::from(units);
        self.units_in_use -= u64::from(units);
        self.settle(superslab, before, wait, now);
        if self.watch.is_on() {
            self.watch.give(superslab, given, false, now);
        }
    }

    /// Hands out whole free superslabs as (part of) an extent, of which the first `used_units` units will be used; returns whether all
    /// of them read as zero.
    ///
    /// Extents are long: what is done for each of their superslabs is no more than what changes there.
    pub(crate) fn take_superslabs(&mut self, first: u32, count: u32, kind: Kind, used_units: u32, now: u32) -> bool {
        let mut clean = 0;
        for superslab in first..first + count {
            let record = self.record(superslab);
            match record.kind {
                Kind::Unused => clean += 1,
                Kind::Warm => self.cool(superslab),
                _ => fatal("a superslab that is not free was about to be handed out"),
            }
            let record = self.record(superslab);
            (record.free, record.dirty, record.purging) = (0, ALL, 0);
            record.kind = Kind::ExtentTail;
        }
        if kind == Kind::ExtentHead {
            self.record(first).kind = kind;
        }
        self.map.set_used(first, count);
        self.fresh_superslabs += u64::from(clean);
        self.warm_hits += u64::from(count - clean);
        self.extent_superslabs += count;
        self.add_in_use(count * SLABS_PER_SUPERSLAB);
        if self.watch.is_on() {
            self.watch_taking(first, count, used_units, now);
        }
        clean == count
    }

    /// [`Pool::take_superslabs`] for the account of other policies.
    fn watch_taking(&mut self, first: u32, count: u32, used_units: u32, now: u32) {
        let mut debts = [0; WORLDS];
        for superslab in first..first + count {
            let used = used_units.saturating_sub((superslab - first) * SLABS_PER_SUPERSLAB).min(SLABS_PER_SUPERSLAB);
            let touched = if used == 0 { 0 } else { mask(0, used) };
            let level = if self.read(superslab).has(HUGE) { ALWAYS_HUGE } else { 0 };
            let opened = self.watch.take(superslab, ALL, touched, level, now);
            let grows = debts.iter_mut().enumerate().filter(|(world, _)| opened >> world & 1 != 0);
            grows.for_each(|(_, debt)| *debt += SLABS_PER_SUPERSLAB);
        }
        self.watch.make_way(debts, self.committed, now);
    }

    /// Takes a warm superslab out of queue, list and counts.
    fn cool(&mut self, superslab: u32) {
        self.dequeue(superslab);
        self.unlist(superslab);
        let record = self.record(superslab);
        let dirty_units = record.free_dirty().count_ones();
        let was_parked = record.has(PARKED);
        record.clear(PARKED);
        record.tier = Tier::None;
        self.parked -= u32::from(was_parked);
        self.warm -= 1;
        self.free_dirty_units -= u64::from(dirty_units);
    }

    /// Takes back superslabs of an extent, with zeros in them or not.
    pub(crate) fn give_superslabs(&mut self, first: u32, count: u32, is_clean: bool, now: u32) {
        let eager = self.policy.eager_free;
        for superslab in first..first + count {
            let record = self.record(superslab);
            if !matches!(record.kind, Kind::ExtentHead | Kind::ExtentTail) {
                fatal("a superslab was given back that is part of no extent");
            }
            (record.freed_at, record.extent_superslabs, record.room) = (now, 0, 0);
            if is_clean {
                (record.kind, record.free, record.dirty) = (Kind::Unused, 0, 0);
                continue;
            }
            (record.kind, record.free, record.dirty) = (Kind::Warm, ALL, ALL);
            record.tier = Tier::Free;
            if eager {
                record.set(URGENT);
                self.enqueue_oldest(superslab);
            } else {
                self.enqueue_newest(superslab);
            }
        }
        if !is_clean {
            // The lowest ends up first in the list: what takes one of them leaves the others in one piece.
            (first..first + count).rev().for_each(|superslab| self.list(superslab, WARM_BUCKET));
        }
        self.map.set_free(first, count);
        let units = u64::from(count) * u64::from(SLABS_PER_SUPERSLAB);
        if !is_clean {
            self.warm += count;
            self.free_dirty_units += units;
        }
        self.extent_superslabs -= count;
        self.units_in_use -= units;
        if self.watch.is_on() {
            (first..first + count).for_each(|superslab| self.watch.give(superslab, ALL, is_clean, now));
        }
    }

    /// Begins or ends the account of what other policies would have led to.
    pub(crate) fn set_watch(&mut self, is_on: bool, now: u32) {
        self.watch.set(is_on, self.superslab_count(), self.policy.purge_delay_ms, now);
        if self.watch.is_on() {
            for superslab in 1..self.committed {
                let record = self.read(superslab);
                let held = match record.kind {
                    Kind::Unused | Kind::Warm => 0,
                    Kind::Slabs => !(record.free | record.purging),
                    Kind::ExtentHead | Kind::ExtentTail => ALL,
                };
                self.watch.begin(superslab, held, record.free_dirty(), record.has(HUGE), now);
            }
        }
    }

    /// Remembers length and room of the extent that begins at `first`, and marks the room.
    pub(crate) fn describe_extent(&mut self, first: u32, superslabs: u32, room: u32) {
        let old = self.read(first);
        self.map.set_room(first.saturating_add(old.extent_superslabs), old.room, false);
        let record = self.record(first);
        record.extent_superslabs = superslabs;
        record.room = room;
        self.map.set_room(first.saturating_add(superslabs), room, true);
    }

    /// Puts a superslab whose bits changed where it belongs now: free map, purge queue, bucket list, counts.
    #[unsafe(link_section = ".text.hot.hakmem")]
    pub(crate) fn settle(&mut self, superslab: u32, before: Kind, wait: Wait, now: u32) {
        let record = self.record(superslab);
        if record.kind == Kind::Slabs && record.free == ALL {
            record.kind = if record.dirty == 0 { Kind::Unused } else { Kind::Warm };
            if record.dirty == 0 {
                record.free = 0;
            }
        }
        let record = *record;
        let was_free = matches!(before, Kind::Unused | Kind::Warm);
        let is_free = matches!(record.kind, Kind::Unused | Kind::Warm);
        match (was_free, is_free) {
            (true, false) => self.map.set_used(superslab, 1),
            (false, true) => self.map.set_free(superslab, 1),
            _ => {}
        }
        self.requeue(superslab, wait, now);
        self.relist(superslab);
    }

    fn requeue(&mut self, superslab: u32, wait: Wait, now: u32) {
        let record = self.read(superslab);
        if record.has(PARKED) && record.kind != Kind::Warm {
            self.record(superslab).clear(PARKED);
            self.parked -= 1;
        }
        let record = self.read(superslab);
        // An extent's units are not free; a warm or cut superslab waits while it has free dirty units.
        if record.free_dirty() == 0 {
            self.dequeue(superslab);
        } else if wait == Wait::Urgent {
            self.dequeue(superslab);
            self.record(superslab).set(URGENT);
            self.enqueue_oldest(superslab);
        } else if wait == Wait::Restart && superslab != self.newest {
            self.dequeue(superslab);
            self.enqueue_newest(superslab);
        } else if !record.has(QUEUED) && !record.has(PARKED) {
            self.record(superslab).freed_at = now;
            self.enqueue_newest(superslab);
        }
    }

    #[unsafe(link_section = ".text.hot.hakmem")]
    fn relist(&mut self, superslab: u32) {
        let record = self.read(superslab);
        let (old, new) = (record.listed_in(), record.bucket(self.policy.tiering));
        if old != new {
            self.unlist(superslab);
            self.list(superslab, new);
        }
        let tier = record.computed_tier();
        if tier != record.tier {
            self.record(superslab).tier = tier;
            if let Some(count) = self.tier_count(record.tier) {
                *count -= 1;
            }
            if let Some(count) = self.tier_count(tier) {
                *count += 1;
            }
        }
    }

    /// Puts every superslab into the list that the present policy has for it.
    #[cold]
    #[inline(never)]
    pub(crate) fn relist_all(&mut self) {
        (1..self.committed).for_each(|superslab| self.relist(superslab));
    }

    fn tier_count(&mut self, tier: Tier) -> Option<&mut u32> {
        match tier {
            Tier::Hot => Some(&mut self.hot),
            Tier::Draining => Some(&mut self.draining),
            Tier::Free => Some(&mut self.warm),
            Tier::None => None,
        }
    }

    fn add_in_use(&mut self, units: u32) {
        self.units_in_use += u64::from(units);
        self.peak_units_in_use = self.peak_units_in_use.max(self.units_in_use);
    }

    pub(crate) fn head(&self, bucket: u8) -> u32 {
        self.heads.get(bucket as usize).copied().unwrap_or(0)
    }

    fn set_head(&mut self, bucket: u8, superslab: u32) {
        if let Some(head) = self.heads.get_mut(bucket as usize) {
            *head = superslab;
            let flag = 1 << bucket;
            self.nonempty = if superslab == 0 { self.nonempty & !flag } else { self.nonempty | flag };
        }
    }

    pub(crate) fn nonempty(&self) -> u64 {
        self.nonempty
    }

    #[unsafe(link_section = ".text.hot.hakmem")]
    fn unlist(&mut self, superslab: u32) {
        let record = self.read(superslab);
        if record.listed_in() == NO_BUCKET {
            return;
        }
        if record.prev == 0 {
            self.set_head(record.listed_in(), record.next);
        } else {
            self.record(record.prev).next = record.next;
        }
        if record.next != 0 {
            self.record(record.next).prev = record.prev;
        }
        let record = self.record(superslab);
        (record.next, record.prev) = (0, 0);
        record.set_listed_in(NO_BUCKET);
    }

    fn list(&mut self, superslab: u32, bucket: u8) {
        if bucket == NO_BUCKET {
            return;
        }
        let next = self.head(bucket);
        let record = self.record(superslab);
        (record.next, record.prev) = (next, 0);
        record.set_listed_in(bucket);
        if next != 0 {
            self.record(next).prev = superslab;
        }
        self.set_head(bucket, superslab);
    }

    /// Bytes of slabs and runs. Extents do not count: their holder decides about their pages, and beside them a small heap is still
    /// small.
    fn small_heap_bytes(&self) -> u64 {
        let units = self.units_in_use - u64::from(self.extent_superslabs) * u64::from(SLABS_PER_SUPERSLAB);
        units.saturating_mul(SLAB_BYTES as u64)
    }

    /// What is to be said to the kernel about a superslab of which a unit was just taken, and which `before` was of this kind. It counts
    /// as said.
    pub(crate) fn claim_advice(&mut self, superslab: u32, before: Kind) -> Advice {
        let policy = self.policy;
        let heap_is_large = self.small_heap_bytes() > policy.thp_heap_bytes as u64;
        let record = self.read(superslab);
        let is_filled = policy.thp_fill_units != 0 && record.units_in_use() >= policy.thp_fill_units;
        let wants_huge = is_filled || before == Kind::Unused && heap_is_large && self.probe.allows_huge();
        let advice = match (record.has(HUGE), wants_huge) {
            (false, true) => Advice::Huge,
            // An earlier use has left it so. In a small heap, and in a sparse one, each first touch would bring 2 MiB.
            (true, false) if before == Kind::Unused || before == Kind::Warm && !heap_is_large => Advice::Small,
            _ => Advice::Nothing,
        };
        match advice {
            Advice::Huge => self.record(superslab).set(HUGE),
            Advice::Small => self.record(superslab).clear(HUGE),
            Advice::Nothing => {}
        }
        if before == Kind::Unused {
            let is_huge = self.read(superslab).has(HUGE);
            self.probe.note_opened(superslab, is_huge);
        }
        advice
    }

    /// A superslab with small pages, and how many of its units are in use, if it is time to look how much of it is in memory: the
    /// heap is about to be large enough for huge pages.
    pub(crate) fn superslab_to_probe(&self) -> Option<(u32, u32)> {
        let (record, superslab) = (self.read(self.probe.superslab()), self.probe.superslab());
        let is_time = self.small_heap_bytes() > self.policy.thp_heap_bytes as u64 / 2;
        let is_small = record.kind == Kind::Slabs && !record.has(HUGE);
        (superslab != 0 && is_time && is_small).then(|| (superslab, record.units_in_use()))
    }
}

/// How a superslab is to be backed from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Advice {
    /// As it is.
    Nothing,
    /// By huge pages.
    Huge,
    /// By small pages, as far as nothing is in memory yet.
    Small,
}

/// What a change means for a superslab's place in the purge queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// Nothing was given back: it keeps its place.
    Keep,
    /// Something was given back: the wait begins anew.
    Restart,
    /// To be purged next.
    Urgent,
}
