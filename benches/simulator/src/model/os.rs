//! The superslab box: units of superslabs, extents, what is dirty, what is resident, and when it is purged.
//!
//! **Not here.** The window's size and its refusals: the model never runs out of memory.
//! **Invariants.** `resident_pages` is the sum over all units; `free_dirty` over all superslabs ([`Os::check`]).

use hakmem_base::{Hindsight, SLABS_PER_SUPERSLAB};
use hakmem_policy::FrozenPolicy;
use hakmem_superslab_os::{ALWAYS_HUGE, Era, Ghost, IDLE_MS, WORLDS, idle_ms};

use super::costs::Counters;
use super::large::superslabs_of;

/// OS pages in a unit.
pub const PAGES_PER_UNIT: u32 = 16;
/// OS pages in a superslab.
const PAGES_PER_SUPERSLAB: u16 = (PAGES_PER_UNIT * SLABS_PER_SUPERSLAB) as u16;
const UNIT_BYTES: u64 = hakmem_base::SLAB_BYTES as u64;
const ALL: u32 = u32::MAX;

/// As in `superslab-os`: superslabs and ranges of one batch.
const BATCH_SUPERSLABS: u32 = 16;
const BATCH_RANGES: u32 = 64;
/// As there: looks per list, and altogether.
const TRIES_PER_BUCKET: u32 = 4;
const TRIES: u32 = 32;

const BUCKETS: usize = 64;
const WARM_BUCKET: u8 = 31;
const DIRTY_BUCKETS: u64 = (1 << (WARM_BUCKET + 1)) - 1;
const NO_BUCKET: u8 = 63;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Unused,
    Slabs,
    Warm,
    Extent,
}

#[derive(Clone, Debug)]
struct Superslab {
    free: u32,
    dirty: u32,
    /// Pages present in each unit, counted from its start: blocks are carved upwards.
    resident: [u8; SLABS_PER_SUPERSLAB as usize],
    resident_sum: u16,
    kind: Kind,
    huge: bool,
    queued: bool,
    parked: bool,
    bucket: u8,
    freed_at_ms: u64,
    next: u32,
    prev: u32,
    newer: u32,
    older: u32,
}

impl Superslab {
    const FRESH: Self = Self {
        free: 0,
        dirty: 0,
        resident: [0; SLABS_PER_SUPERSLAB as usize],
        resident_sum: 0,
        kind: Kind::Unused,
        huge: false,
        queued: false,
        parked: false,
        bucket: NO_BUCKET,
        freed_at_ms: 0,
        next: 0,
        prev: 0,
        newer: 0,
        older: 0,
    };

    fn bucket(&self, tiering: bool) -> u8 {
        let free = self.free.count_ones() as u8;
        let is_dirty = self.free & self.dirty != 0;
        match self.kind {
            Kind::Warm => WARM_BUCKET,
            Kind::Slabs if free == 0 => NO_BUCKET,
            Kind::Slabs if !tiering => 0,
            Kind::Slabs if u32::from(free) * 2 < SLABS_PER_SUPERSLAB => free - 1 + if is_dirty { 0 } else { 32 },
            Kind::Slabs => free - 16 + if is_dirty { 15 } else { 47 },
            Kind::Unused | Kind::Extent => NO_BUCKET,
        }
    }
}

/// What is purged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scope {
    Due,
    Growth(u32),
}

/// All superslabs. Number 0 is none.
#[derive(Debug)]
pub struct Os {
    superslabs: Vec<Superslab>,
    heads: [u32; BUCKETS],
    nonempty: u64,
    oldest: u32,
    newest: u32,
    parked: u32,
    /// The superslab that the batch purged last, if it was free as a whole.
    purged_last: Option<u32>,
    /// Units handed out.
    pub units_in_use: u64,
    /// Of them, those of extents.
    extent_units: u64,
    /// Units that are free and dirty.
    pub free_dirty: u64,
    /// Pages present.
    pub resident_pages: u64,
    /// Superslabs that are not unused.
    pub open: u32,
    /// Of them, those with huge pages.
    pub open_huge: u32,
    /// Milliseconds.
    pub now_ms: u64,
    /// When the next purge is due; `u64::MAX`: never.
    pub due_ms: u64,
    delay_ms: Option<u64>,
    warm_superslabs: u32,
    tiering: bool,
    eager: bool,
    thp_heap_bytes: u64,
    thp_fill_units: u32,
    /// What other policies would have led to: the allocator's own account.
    ghosts: Vec<Ghost>,
    era: Era,
    hindsight: Hindsight,
    swept_ms: u64,
}

impl Os {
    pub fn new(policy: &FrozenPolicy) -> Self {
        let mut os = Self {
            superslabs: vec![Superslab::FRESH],
            heads: [0; BUCKETS],
            nonempty: 0,
            oldest: 0,
            newest: 0,
            parked: 0,
            purged_last: None,
            units_in_use: 0,
            free_dirty: 0,
            resident_pages: 0,
            open: 0,
            open_huge: 0,
            now_ms: 0,
            due_ms: u64::MAX,
            delay_ms: None,
            warm_superslabs: 0,
            tiering: true,
            eager: false,
            thp_heap_bytes: 0,
            thp_fill_units: 0,
            extent_units: 0,
            ghosts: vec![Ghost::default()],
            era: Era::new(policy.purge_delay_ms),
            hindsight: Hindsight::EMPTY,
            swept_ms: 0,
        };
        os.set_policy(policy);
        os
    }

    pub fn set_policy(&mut self, policy: &FrozenPolicy) {
        self.era.set_delay(policy.purge_delay_ms);
        self.delay_ms = (policy.purge_delay_ms != u32::MAX).then_some(u64::from(policy.purge_delay_ms));
        self.warm_superslabs = policy.warm_superslabs;
        self.eager = policy.eager_free;
        self.thp_heap_bytes = policy.thp_heap_bytes as u64;
        self.thp_fill_units = policy.thp_fill_units;
        if self.tiering != policy.tiering {
            self.tiering = policy.tiering;
            (1..self.superslabs.len() as u32).for_each(|superslab| self.relist(superslab));
        }
        self.publish_due();
    }

    /// Hands out contiguous units of one superslab; the index of the first.
    pub fn take_units(&mut self, units: u32, counters: &mut Counters) -> u32 {
        counters.pool_visits += 1;
        let place = self
            .search(self.nonempty & DIRTY_BUCKETS, units, true)
            .or_else(|| self.search(self.nonempty, units, false));
        let was_unused = place.is_none();
        let (superslab, slot) = place.unwrap_or_else(|| (self.lowest_unused(1), 0));
        if was_unused {
            self.open_superslab(superslab, Kind::Slabs, counters);
            (self.superslabs[superslab as usize].free, self.superslabs[superslab as usize].dirty) = (ALL, 0);
        }
        self.hold(superslab, mask(slot, units));
        let heap_is_large = self.small_heap_bytes() > self.thp_heap_bytes;
        let record = &mut self.superslabs[superslab as usize];
        let is_filled = self.thp_fill_units != 0 && (!record.free).count_ones() >= self.thp_fill_units;
        if !record.huge && (is_filled || was_unused && heap_is_large) {
            record.huge = true;
            self.open_huge += 1;
        }
        self.purge_due(counters);
        superslab * SLABS_PER_SUPERSLAB + slot
    }

    /// Bytes of slabs and runs: extents do not count.
    const fn small_heap_bytes(&self) -> u64 {
        (self.units_in_use - self.extent_units) * UNIT_BYTES
    }

    /// Another season of the program has begun, for the account.
    pub const fn turn_season(&mut self) {
        self.era.turn();
    }

    /// What other policies would have led to, up to now.
    pub fn hindsight(&mut self) -> Hindsight {
        let now = self.now_ms as u32;
        for ghost in self.ghosts.iter_mut().filter(|ghost| !ghost.is_at_rest()) {
            ghost.settle(now, &self.era, &mut self.hindsight);
        }
        self.hindsight.elapsed_ms += self.now_ms - std::mem::replace(&mut self.swept_ms, self.now_ms);
        self.hindsight
    }

    /// The worlds in which the superslab had no page.
    fn ghost_takes(&mut self, superslab: u32, units: u32, touched: u32, level: u8) -> u32 {
        let now = self.now_ms as u32;
        self.era.visit(now);
        self.ghosts[superslab as usize].take(units, touched, level, now, &self.era, &mut self.hindsight)
    }

    /// What the process would have grown by is made up for by what has idled, longest first.
    fn ghosts_make_way(&mut self, mut debts: [u32; WORLDS]) {
        let now = self.now_ms as u32;
        for least_ms in IDLE_MS {
            for ghost in &mut self.ghosts {
                if debts == [0; WORLDS] {
                    return;
                }
                ghost.make_way(&mut debts, least_ms, now, &self.era, &mut self.hindsight);
            }
        }
    }

    fn ghost_gives(&mut self, superslab: u32, units: u32, is_clean: bool) {
        let now = self.now_ms as u32;
        self.era.visit(now);
        self.ghosts[superslab as usize].give(units, is_clean, now, &self.era, &mut self.hindsight);
    }

    /// Takes the units behind a run, if they are free.
    pub fn grow_units(&mut self, first: u32, units: u32, wanted: u32, counters: &mut Counters) -> bool {
        let (superslab, slot) = place_of(first);
        if slot + wanted > SLABS_PER_SUPERSLAB {
            return false;
        }
        counters.pool_visits += 1;
        let added = mask(slot + units, wanted - units);
        let record = &self.superslabs[superslab as usize];
        let fits = record.kind == Kind::Slabs && record.free & added == added;
        if fits {
            self.hold(superslab, added);
        }
        fits
    }

    /// Takes units back.
    pub fn give_units(&mut self, first: u32, units: u32, counters: &mut Counters) {
        counters.pool_visits += 1;
        let (superslab, slot) = place_of(first);
        let given = mask(slot, units);
        let now_ms = self.now_ms;
        let record = &mut self.superslabs[superslab as usize];
        debug_assert_eq!(record.free & given, 0);
        record.free |= given;
        record.dirty |= given;
        record.freed_at_ms = now_ms;
        if record.free == ALL {
            record.kind = Kind::Warm;
        }
        let purge_now = self.eager && record.free == ALL;
        self.free_dirty += u64::from(units);
        self.units_in_use -= u64::from(units);
        self.ghost_gives(superslab, given, false);
        self.relist(superslab);
        self.dequeue(superslab);
        if purge_now {
            self.purge_superslab(superslab, counters);
        } else {
            self.enqueue_newest(superslab);
        }
        self.publish_due();
        self.purge_due(counters);
    }

    /// Hands out whole superslabs; the first one's number. The first `huge` of them get huge pages.
    pub fn take_extent(&mut self, bytes: u64, room: u32, huge: u32, counters: &mut Counters) -> u32 {
        let (count, units) = (superslabs_of(bytes), bytes.div_ceil(UNIT_BYTES) as u32);
        counters.pool_visits += 1;
        let first = self.lowest_free(count + room);
        let grown = self.take_superslabs(first, count, first + huge, first * SLABS_PER_SUPERSLAB + units, counters);
        self.make_way(grown, counters);
        self.purge_due(counters);
        first
    }

    /// Lengthens an extent, if what is behind it is free.
    pub fn grow_extent(&mut self, first: u32, held: u32, bytes: u64, huge: u32, counters: &mut Counters) -> bool {
        let (wanted, units) = (superslabs_of(bytes), bytes.div_ceil(UNIT_BYTES) as u32);
        counters.pool_visits += 1;
        let is_free = |superslab| self.superslabs.get(superslab as usize).is_none_or(is_free);
        let fits = (first + held..first + wanted).all(is_free);
        if fits {
            let units_end = first * SLABS_PER_SUPERSLAB + units;
            let grown = self.take_superslabs(first + held, wanted - held, first + huge, units_end, counters);
            self.make_way(grown, counters);
        }
        fits
    }

    /// Takes superslabs of an extent back, with their contents or (after a move of their pages) without.
    pub fn give_extent(&mut self, first: u32, count: u32, counters: &mut Counters) {
        counters.pool_visits += 1;
        for superslab in first..first + count {
            let now_ms = self.now_ms;
            let record = &mut self.superslabs[superslab as usize];
            record.freed_at_ms = now_ms;
            self.units_in_use -= u64::from(SLABS_PER_SUPERSLAB);
            self.extent_units -= u64::from(SLABS_PER_SUPERSLAB);
            let is_clean = record.resident_sum == 0;
            self.ghost_gives(superslab, ALL, is_clean);
            let record = &mut self.superslabs[superslab as usize];
            if is_clean {
                (record.free, record.dirty) = (0, 0);
                self.close_superslab(superslab);
            } else {
                (record.kind, record.free, record.dirty) = (Kind::Warm, ALL, ALL);
                self.free_dirty += u64::from(SLABS_PER_SUPERSLAB);
                if self.eager {
                    self.purge_superslab(superslab, counters);
                } else {
                    self.enqueue_newest(superslab);
                }
            }
            self.relist(superslab);
        }
        self.publish_due();
        self.purge_due(counters);
    }

    /// Moves the pages of `count` superslabs to others; both are held.
    pub fn move_pages(&mut self, from: u32, to: u32, count: u32) {
        for offset in 0..count {
            let (source, target) = ((from + offset) as usize, (to + offset) as usize);
            self.resident_pages -= u64::from(self.superslabs[target].resident_sum);
            self.superslabs[target].resident = self.superslabs[source].resident;
            self.superslabs[target].resident_sum = self.superslabs[source].resident_sum;
            self.superslabs[source].resident = [0; SLABS_PER_SUPERSLAB as usize];
            self.superslabs[source].resident_sum = 0;
        }
    }

    /// The program writes to the first `pages` pages of a unit.
    #[inline]
    pub fn touch_unit(&mut self, unit: u32, pages: u32, counters: &mut Counters) {
        let (superslab, slot) = place_of(unit);
        let record = &mut self.superslabs[superslab as usize];
        let present = &mut record.resident[slot as usize];
        if u32::from(*present) >= pages {
            return;
        }
        if record.huge && record.resident_sum == 0 {
            record.resident = [PAGES_PER_UNIT as u8; SLABS_PER_SUPERSLAB as usize];
            record.resident_sum = PAGES_PER_SUPERSLAB;
            self.resident_pages += u64::from(PAGES_PER_SUPERSLAB);
            counters.huge_faults += 1;
            return;
        }
        let missing = pages - u32::from(*present);
        *present = pages as u8;
        record.resident_sum += missing as u16;
        self.resident_pages += u64::from(missing);
        counters.faults += u64::from(missing);
    }

    /// The program writes to `bytes` bytes from the start of a unit on.
    pub fn touch(&mut self, first: u32, bytes: u64, counters: &mut Counters) {
        let mut pages = bytes.div_ceil(hakmem_base::OS_PAGE_BYTES as u64);
        let mut unit = first;
        while pages > 0 {
            let here = pages.min(u64::from(PAGES_PER_UNIT));
            self.touch_unit(unit, here as u32, counters);
            pages -= here;
            unit += 1;
        }
    }

    /// Purges one batch of what has waited long enough.
    #[inline]
    pub fn purge_due(&mut self, counters: &mut Counters) {
        if self.now_ms >= self.due_ms {
            self.purge(Scope::Due, counters);
        }
    }

    /// Purges everything that has waited long enough.
    pub fn purge_all_due(&mut self, counters: &mut Counters) {
        while self.now_ms >= self.due_ms {
            self.purge(Scope::Due, counters);
        }
    }

    /// The process has grown by superslabs: as much that has idled for a while is purged.
    fn make_way(&mut self, grown: u32, counters: &mut Counters) {
        let mut left = u64::from(grown) * u64::from(SLABS_PER_SUPERSLAB);
        while left > 0 && self.free_dirty > 0 {
            let before = self.free_dirty;
            self.purge(Scope::Growth(left as u32), counters);
            let purged = before - self.free_dirty;
            if purged == 0 {
                return;
            }
            left = left.saturating_sub(purged);
        }
    }

    fn purge(&mut self, scope: Scope, counters: &mut Counters) {
        let (mut superslabs, mut ranges, mut collected) = (0, 0, 0);
        self.purged_last = None;
        while self.oldest != 0 && superslabs < BATCH_SUPERSLABS && ranges < BATCH_RANGES {
            let superslab = self.oldest;
            let record = &self.superslabs[superslab as usize];
            let age_ms = self.now_ms.saturating_sub(record.freed_at_ms);
            match scope {
                Scope::Growth(units) => {
                    if self.delay_ms.is_none_or(|delay_ms| age_ms < idle_ms(delay_ms as u32).into())
                        || collected >= units
                    {
                        break;
                    }
                    collected += (record.free & record.dirty).count_ones();
                }
                Scope::Due => {
                    if self.delay_ms.is_none_or(|delay| age_ms < delay) {
                        break;
                    }
                    if record.kind == Kind::Warm && self.parked < self.warm_superslabs {
                        self.dequeue(superslab);
                        self.superslabs[superslab as usize].parked = true;
                        self.parked += 1;
                        continue;
                    }
                }
            }
            superslabs += 1;
            ranges += self.purge_superslab(superslab, counters);
        }
        self.publish_due();
    }

    /// Gives the free dirty units of a superslab back to the kernel; the number of ranges.
    fn purge_superslab(&mut self, superslab: u32, counters: &mut Counters) -> u32 {
        self.dequeue(superslab);
        let record = &mut self.superslabs[superslab as usize];
        let dirty = record.free & record.dirty;
        let (mut ranges, mut pages, mut left) = (0_u32, 0_u32, record.free);
        while left != 0 {
            // The lowest group of contiguous free units: purged as one if any of them is dirty.
            let start = left.trailing_zeros();
            let length = (left >> start).trailing_ones();
            let group = mask(start, length);
            left &= !group;
            if group & dirty != 0 {
                ranges += 1;
                for slot in start..start + length {
                    pages += u32::from(std::mem::take(&mut record.resident[slot as usize]));
                }
                record.dirty &= !group;
            }
        }
        record.resident_sum -= pages as u16;
        self.resident_pages -= u64::from(pages);
        self.free_dirty -= u64::from(dirty.count_ones());
        // A free superslab next to one that was purged just before goes in the same call.
        let is_whole = record.kind == Kind::Warm;
        let continues = is_whole && self.purged_last.is_some_and(|last| last.abs_diff(superslab) == 1);
        self.purged_last = is_whole.then_some(superslab);
        counters.madvises += u64::from(ranges - u32::from(continues));
        counters.purged_pages += u64::from(pages);
        counters.purged_units += u64::from(dirty.count_ones());
        if self.superslabs[superslab as usize].free == ALL {
            self.close_superslab(superslab);
        }
        self.relist(superslab);
        ranges
    }

    fn take_superslabs(
        &mut self,
        first: u32,
        count: u32,
        huge_end: u32,
        units_end: u32,
        counters: &mut Counters,
    ) -> u32 {
        let (mut grown, mut debts) = (0, [0; WORLDS]);
        for superslab in first..first + count {
            self.ensure(superslab);
            self.dequeue(superslab);
            self.unpark(superslab);
            if self.superslabs[superslab as usize].kind == Kind::Unused {
                grown += 1;
                self.open_superslab(superslab, Kind::Extent, counters);
            }
            let record = &mut self.superslabs[superslab as usize];
            self.free_dirty -= u64::from((record.free & record.dirty).count_ones());
            (record.kind, record.free, record.dirty) = (Kind::Extent, 0, ALL);
            if superslab < huge_end && !record.huge {
                record.huge = true;
                self.open_huge += 1;
            }
            self.units_in_use += u64::from(SLABS_PER_SUPERSLAB);
            self.extent_units += u64::from(SLABS_PER_SUPERSLAB);
            let used = units_end.saturating_sub(superslab * SLABS_PER_SUPERSLAB).min(SLABS_PER_SUPERSLAB);
            let is_huge = superslab < huge_end || self.superslabs[superslab as usize].huge;
            let level = if is_huge { ALWAYS_HUGE } else { 0 };
            let opened = self.ghost_takes(superslab, ALL, if used == 0 { 0 } else { mask(0, used) }, level);
            for (world, debt) in debts.iter_mut().enumerate() {
                *debt += (opened >> world & 1) * SLABS_PER_SUPERSLAB;
            }
            self.relist(superslab);
        }
        self.ghosts_make_way(debts);
        self.publish_due();
        grown
    }

    fn search(&self, mut lists: u64, units: u32, dirty_only: bool) -> Option<(u32, u32)> {
        let mut tries = TRIES;
        while lists != 0 {
            let bucket = lists.trailing_zeros() as u8;
            lists &= lists - 1;
            let mut superslab = self.heads[bucket as usize];
            let mut tries_here = if self.tiering { TRIES_PER_BUCKET } else { TRIES };
            while superslab != 0 && tries_here > 0 && (tries > 0 || bucket == WARM_BUCKET) {
                let record = &self.superslabs[superslab as usize];
                let eligible = if dirty_only { record.free & record.dirty } else { record.free };
                if let Some(slot) = lowest_fit(eligible, units) {
                    return Some((superslab, slot));
                }
                superslab = record.next;
                tries_here -= 1;
                tries = tries.saturating_sub(1);
            }
        }
        None
    }

    /// Marks free units of a superslab as handed out.
    fn hold(&mut self, superslab: u32, units: u32) {
        self.unpark(superslab);
        let record = &mut self.superslabs[superslab as usize];
        debug_assert_eq!(record.free & units, units);
        let was_dirty = (record.free & record.dirty & units).count_ones();
        record.kind = Kind::Slabs;
        record.free &= !units;
        record.dirty |= units;
        let is_idle = record.free & record.dirty == 0;
        self.free_dirty -= u64::from(was_dirty);
        self.units_in_use += u64::from(units.count_ones());
        let is_huge = self.superslabs[superslab as usize].huge;
        let level = if is_huge { ALWAYS_HUGE } else { Hindsight::level_of(self.small_heap_bytes()) };
        self.ghost_takes(superslab, units, ALL, level);
        if is_idle {
            self.dequeue(superslab);
        } else if !self.superslabs[superslab as usize].queued {
            self.enqueue_newest(superslab);
        }
        self.relist(superslab);
        self.publish_due();
    }

    fn open_superslab(&mut self, superslab: u32, kind: Kind, counters: &mut Counters) {
        counters.committed_units += u64::from(SLABS_PER_SUPERSLAB);
        let record = &mut self.superslabs[superslab as usize];
        record.kind = kind;
        self.open += 1;
        self.open_huge += u32::from(record.huge);
    }

    fn close_superslab(&mut self, superslab: u32) {
        let record = &mut self.superslabs[superslab as usize];
        (record.kind, record.free) = (Kind::Unused, 0);
        self.open -= 1;
        self.open_huge -= u32::from(record.huge);
    }

    fn unpark(&mut self, superslab: u32) {
        let record = &mut self.superslabs[superslab as usize];
        if std::mem::take(&mut record.parked) {
            self.parked -= 1;
        }
    }

    /// The lowest place for `count` superslabs of which none was ever written, or was purged since.
    fn lowest_unused(&mut self, count: u32) -> u32 {
        self.lowest(count, |record| record.kind == Kind::Unused)
    }

    /// The lowest place for `count` superslabs that nobody holds.
    fn lowest_free(&mut self, count: u32) -> u32 {
        self.lowest(count, is_free)
    }

    fn lowest(&mut self, count: u32, fits: impl Fn(&Superslab) -> bool) -> u32 {
        let mut length = 0;
        for superslab in 1..self.superslabs.len() as u32 {
            length = if fits(&self.superslabs[superslab as usize]) { length + 1 } else { 0 };
            if length == count {
                return superslab + 1 - count;
            }
        }
        let first = self.superslabs.len() as u32 - length;
        self.ensure(first + count - 1);
        first
    }

    fn ensure(&mut self, superslab: u32) {
        while self.superslabs.len() as u32 <= superslab {
            self.superslabs.push(Superslab::FRESH);
            self.ghosts.push(Ghost::default());
        }
    }

    /// Units that there can be: the next free index.
    pub fn unit_count(&self) -> usize {
        self.superslabs.len() * SLABS_PER_SUPERSLAB as usize
    }

    fn relist(&mut self, superslab: u32) {
        let record = &self.superslabs[superslab as usize];
        let (old, new) = (record.bucket, record.bucket(self.tiering));
        if old == new {
            return;
        }
        if old != NO_BUCKET {
            let (next, prev) = (record.next, record.prev);
            if prev == 0 {
                self.heads[old as usize] = next;
                if next == 0 {
                    self.nonempty &= !(1 << old);
                }
            } else {
                self.superslabs[prev as usize].next = next;
            }
            if next != 0 {
                self.superslabs[next as usize].prev = prev;
            }
        }
        self.superslabs[superslab as usize].bucket = new;
        if new != NO_BUCKET {
            let next = std::mem::replace(&mut self.heads[new as usize], superslab);
            self.nonempty |= 1 << new;
            (self.superslabs[superslab as usize].next, self.superslabs[superslab as usize].prev) = (next, 0);
            if next != 0 {
                self.superslabs[next as usize].prev = superslab;
            }
        }
    }

    fn dequeue(&mut self, superslab: u32) {
        let record = &mut self.superslabs[superslab as usize];
        if !std::mem::take(&mut record.queued) {
            return;
        }
        let (older, newer) = (record.older, record.newer);
        if older == 0 {
            self.oldest = newer;
        } else {
            self.superslabs[older as usize].newer = newer;
        }
        if newer == 0 {
            self.newest = older;
        } else {
            self.superslabs[newer as usize].older = older;
        }
    }

    fn enqueue_newest(&mut self, superslab: u32) {
        let older = std::mem::replace(&mut self.newest, superslab);
        let now_ms = self.now_ms;
        let record = &mut self.superslabs[superslab as usize];
        (record.older, record.newer, record.queued, record.freed_at_ms) = (older, 0, true, now_ms);
        if older == 0 {
            self.oldest = superslab;
        } else {
            self.superslabs[older as usize].newer = superslab;
        }
    }

    #[inline]
    fn publish_due(&mut self) {
        self.due_ms = match (self.oldest, self.delay_ms) {
            (0, _) | (_, None) => u64::MAX,
            (oldest, Some(delay)) => self.superslabs[oldest as usize].freed_at_ms + delay,
        };
    }

    /// Checks sums and lists against each other.
    pub fn check(&self) {
        let (mut pages, mut free_dirty, mut in_use, mut open) = (0, 0, 0, 0);
        for (number, record) in self.superslabs.iter().enumerate().skip(1) {
            let sum: u64 = record.resident.iter().map(|pages| u64::from(*pages)).sum();
            assert_eq!(sum, u64::from(record.resident_sum), "resident pages of superslab {number}");
            pages += sum;
            free_dirty += u64::from((record.free & record.dirty).count_ones());
            in_use += match record.kind {
                Kind::Slabs | Kind::Extent => u64::from((!record.free).count_ones()),
                Kind::Unused | Kind::Warm => 0,
            };
            open += u32::from(record.kind != Kind::Unused);
            assert!(record.kind != Kind::Unused || sum == 0, "superslab {number} is unused and has pages");
            assert_eq!(record.bucket, record.bucket(self.tiering), "list of superslab {number}");
            assert_eq!(record.queued, record.free & record.dirty != 0 && !record.parked, "queue of superslab {number}");
        }
        assert_eq!(
            (pages, free_dirty, in_use, open),
            (self.resident_pages, self.free_dirty, self.units_in_use, self.open)
        );
    }
}

const fn is_free(record: &Superslab) -> bool {
    matches!(record.kind, Kind::Unused | Kind::Warm)
}

/// Superslab and slot of a unit.
pub const fn place_of(unit: u32) -> (u32, u32) {
    (unit / SLABS_PER_SUPERSLAB, unit % SLABS_PER_SUPERSLAB)
}

const fn mask(slot: u32, units: u32) -> u32 {
    if units >= SLABS_PER_SUPERSLAB { ALL } else { ((1 << units) - 1) << slot }
}

/// The lowest slot from which `units` bits are set.
const fn lowest_fit(bits: u32, units: u32) -> Option<u32> {
    let (mut starts, mut length) = (bits, 1);
    while length < units {
        let step = if units - length < length { units - length } else { length };
        starts &= starts >> step;
        length += step;
    }
    if starts == 0 { None } else { Some(starts.trailing_zeros()) }
}
