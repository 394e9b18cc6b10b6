//! The pool's invariants, checked from scratch.

use crate::bits::ALL;
use crate::pool::Pool;
use crate::record::{BUCKET_COUNT, Kind, NO_BUCKET, PARKED, QUEUED, Tier};
use hakmem_base::{SLABS_PER_SUPERSLAB, fatal};

#[derive(Default)]
struct Sums {
    units_in_use: u64,
    units_free: u64,
    units_purging: u64,
    free_dirty_units: u64,
    tiers: [u32; 3],
    extent_superslabs: u32,
    parked: u32,
    queued: u32,
    listed: u32,
}

fn require(fact: bool, what: &'static str) {
    if !fact {
        fatal(what);
    }
}

impl Pool {
    /// Fatal if anything contradicts anything else.
    pub(crate) fn check(&self) {
        if self.records.is_empty() {
            return;
        }
        let mut sums = Sums::default();
        for superslab in 1..self.committed {
            self.check_record(superslab, &mut sums);
        }
        if self.committed < self.superslab_count() {
            require(self.read(self.committed).kind == Kind::Unused, "a superslab is in use before it is committed");
        }
        let committed_units = u64::from(self.committed - 1) * u64::from(SLABS_PER_SUPERSLAB);
        let accounted = sums.units_in_use + sums.units_free + sums.units_purging;
        require(accounted == committed_units, "units in use, free and in purge do not add up to the committed ones");
        require(sums.units_in_use == self.units_in_use, "the count of units in use is wrong");
        require(sums.free_dirty_units == self.free_dirty_units, "the count of free dirty units is wrong");
        require(sums.tiers == [self.hot, self.draining, self.warm], "the counts of tiers are wrong");
        require(sums.extent_superslabs == self.extent_superslabs, "the count of superslabs in extents is wrong");
        require(sums.parked == self.parked, "the count of parked superslabs is wrong");
        self.check_queue(sums.queued);
        self.check_lists(sums.listed);
    }

    fn check_record(&self, superslab: u32, sums: &mut Sums) {
        let record = self.read(superslab);
        let in_use = record.units_in_use();
        sums.units_in_use += u64::from(in_use);
        sums.units_purging += u64::from(record.purging.count_ones());
        sums.units_free += u64::from(SLABS_PER_SUPERSLAB - in_use - record.purging.count_ones());
        sums.free_dirty_units += u64::from(record.free_dirty().count_ones());
        sums.parked += u32::from(record.has(PARKED));
        sums.queued += u32::from(record.has(QUEUED));
        sums.listed += u32::from(record.listed_in() != NO_BUCKET);
        let is_free = matches!(record.kind, Kind::Unused | Kind::Warm);
        require(self.map.is_used(superslab) != is_free, "the free map contradicts a superslab");
        require(record.tier == record.computed_tier(), "a superslab is counted in the wrong tier");
        require(
            record.listed_in() == record.bucket(self.policy.tiering),
            "a superslab is not in the list of its bucket",
        );
        match record.tier {
            Tier::Hot => sums.tiers[0] += 1,
            Tier::Draining => sums.tiers[1] += 1,
            Tier::Free => sums.tiers[2] += 1,
            Tier::None => {}
        }
        match record.kind {
            Kind::Unused => require(record.free == 0, "an unused superslab has free bits"),
            Kind::Warm => require(record.free == ALL && record.dirty != 0, "a warm superslab is not free and dirty"),
            Kind::Slabs => {
                require(record.free != ALL, "a superslab without used units counts as cut");
                require(record.free & record.purging == 0, "a unit is free and in purge");
                require(record.dirty | record.free | record.purging == ALL, "a unit in use is not counted dirty");
            }
            Kind::ExtentHead => {
                sums.extent_superslabs += 1;
                self.check_extent_at(superslab);
            }
            Kind::ExtentTail => {
                sums.extent_superslabs += 1;
                let before = self.read(superslab - 1).kind;
                require(matches!(before, Kind::ExtentHead | Kind::ExtentTail), "a tail follows no extent");
            }
        }
        let waits = record.has(QUEUED) || record.has(PARKED);
        require(
            waits == (record.free_dirty() != 0),
            "a superslab with free dirty units waits for no purge, or reversed",
        );
        require(!(record.has(QUEUED) && record.has(PARKED)), "a parked superslab is queued");
    }

    fn check_extent_at(&self, first: u32) {
        let superslabs = self.read(first).extent_superslabs;
        require(superslabs != 0, "an extent has no length");
        for tail in first + 1..first + superslabs {
            require(self.read(tail).kind == Kind::ExtentTail, "an extent has a hole");
        }
        let end = first + superslabs;
        if end < self.superslab_count() {
            require(self.read(end).kind != Kind::ExtentTail, "an extent is longer than its head says");
        }
    }

    fn check_queue(&self, expected: u32) {
        let (mut at, mut older, mut count) = (self.oldest, 0, 0);
        while at != 0 && count <= expected {
            let record = self.read(at);
            require(record.has(QUEUED) && record.older == older, "the purge queue is damaged");
            (older, at) = (at, record.newer);
            count += 1;
        }
        require(older == self.newest && count == expected, "the purge queue does not hold what is marked as queued");
    }

    fn check_lists(&self, expected: u32) {
        let mut count = 0;
        for bucket in 0..BUCKET_COUNT as u8 {
            let (mut at, mut prev) = (self.head(bucket), 0);
            require((at != 0) == (self.nonempty() >> bucket & 1 == 1), "the summary of the lists is wrong");
            while at != 0 && count <= expected {
                let record = self.read(at);
                require(record.listed_in() == bucket && record.prev == prev, "a list of superslabs is damaged");
                (prev, at) = (at, record.next);
                count += 1;
            }
        }
        require(count == expected, "the lists do not hold what is marked as listed");
    }
}
