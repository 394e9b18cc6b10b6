//! What is known about one superslab. Plain data; the pool's lock covers it.

use crate::bits::ALL;
use hakmem_base::SLABS_PER_SUPERSLAB;
use hakmem_base::ZeroValid;

/// Bytes of metadata per superslab: 0.002 % of it.
const RECORD_BYTES: usize = 48;

/// The use of a superslab. 0 (untouched metadata) is a free, clean one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Free; reads as zero; possibly not committed yet.
    Unused = 0,
    /// Cut into units, of which some are handed out or in a purger's hands.
    Slabs = 1,
    /// Free, with dirty units.
    Warm = 2,
    /// First superslab of an extent.
    ExtentHead = 3,
    /// Further superslab of an extent.
    ExtentTail = 4,
}

/// Occupancy classes of superslabs that are cut into units.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Tier {
    /// Not cut into units, or clean and free.
    None = 0,
    /// More than half handed out.
    Hot = 1,
    /// At most half handed out.
    Draining = 2,
    /// Nothing handed out, dirty.
    Free = 3,
}

/// MADV_HUGEPAGE was applied to the whole superslab; the mapping keeps that across all uses.
pub(crate) const HUGE: u8 = 1;
/// In the queue of superslabs that wait for a purge.
pub(crate) const QUEUED: u8 = 2;
/// FREE, and kept by the warm pool beyond the delay. Not queued.
pub(crate) const PARKED: u8 = 4;
/// Queued to be purged at the next opportunity, whatever its age.
pub(crate) const URGENT: u8 = 8;

/// Lists by occupancy, in order of preference; see [`Record::bucket`].
pub(crate) const BUCKET_COUNT: usize = 63;
/// The list of FREE superslabs with dirty units.
pub(crate) const WARM_BUCKET: u8 = 31;
/// Lists of superslabs with free dirty units, one bit each: what is taken there costs no fault and no memory.
pub(crate) const DIRTY_BUCKETS: u64 = (1 << (WARM_BUCKET + 1)) - 1;
/// In no list.
pub(crate) const NO_BUCKET: u8 = 255;

/// One superslab.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Record {
    /// Units nobody holds.
    pub(crate) free: u32,
    /// Units that may hold something other than zeros. A unit that is handed out counts as dirty.
    pub(crate) dirty: u32,
    /// Units in a purger's hands: neither free nor handed out.
    pub(crate) purging: u32,
    /// Low half of the coarse clock (ms) when a unit was last given back.
    pub(crate) freed_at: u32,
    /// List of the bucket; 0 ends it, because superslab 0 is never used.
    pub(crate) next: u32,
    pub(crate) prev: u32,
    /// Purge queue, from the longest wait to the shortest; 0 ends it.
    pub(crate) newer: u32,
    pub(crate) older: u32,
    /// Superslabs of the extent that begins here.
    pub(crate) extent_superslabs: u32,
    /// Superslabs behind that extent that were marked as its room.
    pub(crate) room: u32,
    pub(crate) kind: Kind,
    /// Bucket whose list this record is in, plus one.
    list: u8,
    pub(crate) tier: Tier,
    pub(crate) flags: u8,
}

const _: () = assert!(size_of::<Record>() <= RECORD_BYTES);

// SAFETY: every field is a number or an enum whose zero is declared, and nothing has a destructor.
unsafe impl ZeroValid for Record {}

impl Record {
    /// The list that the record is in.
    pub(crate) fn listed_in(&self) -> u8 {
        self.list.wrapping_sub(1)
    }

    pub(crate) fn set_listed_in(&mut self, bucket: u8) {
        self.list = bucket.wrapping_add(1);
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(crate) fn set(&mut self, flag: u8) {
        self.flags |= flag;
    }

    pub(crate) fn clear(&mut self, flag: u8) {
        self.flags &= !flag;
    }

    /// Units that are free and dirty.
    pub(crate) fn free_dirty(&self) -> u32 {
        self.free & self.dirty
    }

    /// Units handed out.
    pub(crate) fn units_in_use(&self) -> u32 {
        match self.kind {
            Kind::Slabs => (!(self.free | self.purging)).count_ones(),
            Kind::ExtentHead | Kind::ExtentTail => SLABS_PER_SUPERSLAB,
            Kind::Unused | Kind::Warm => 0,
        }
    }

    pub(crate) fn computed_tier(&self) -> Tier {
        match self.kind {
            Kind::Slabs if self.free.count_ones() * 2 < SLABS_PER_SUPERSLAB => Tier::Hot,
            Kind::Slabs => Tier::Draining,
            Kind::Warm => Tier::Free,
            Kind::Unused | Kind::ExtentHead | Kind::ExtentTail => Tier::None,
        }
    }

    /// The list that the record belongs in: first those with dirty free units, because their OS pages are there already, FREE
    /// ones included; then those that would grow. Within that HOT ones before DRAINING ones, and the fullest first.
    pub(crate) fn bucket(&self, tiering: bool) -> u8 {
        let free_units = self.free.count_ones() as u8;
        match (self.kind, self.computed_tier()) {
            (Kind::Warm, _) => WARM_BUCKET,
            (Kind::Slabs, _) if free_units == 0 => NO_BUCKET,
            (Kind::Slabs, _) if !tiering => 0,
            (Kind::Slabs, Tier::Hot) => free_units - 1 + if self.free_dirty() != 0 { 0 } else { 32 },
            (Kind::Slabs, _) => free_units - 16 + if self.free_dirty() != 0 { 15 } else { 47 },
            _ => NO_BUCKET,
        }
    }

    /// Turns an unused or warm record into a superslab whose units are all free.
    pub(crate) fn open(&mut self) {
        if self.kind == Kind::Unused {
            (self.free, self.dirty, self.purging) = (ALL, 0, 0);
        }
        self.kind = Kind::Slabs;
    }
}

/// Units that a record in this bucket has free (tiering on).
pub(crate) const fn free_units_of(bucket: u8) -> u32 {
    match bucket {
        0..=30 => bucket as u32 + 1,
        WARM_BUCKET => SLABS_PER_SUPERSLAB,
        _ => bucket as u32 - 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(free: u32, dirty: u32) -> Record {
        let table = crate::table::FlatTable::<Record>::reserve(1).unwrap();
        let mut record = *table.get(0).unwrap();
        (record.kind, record.free, record.dirty) = (Kind::Slabs, free, dirty | !free);
        record
    }

    #[test]
    fn untouched_metadata_is_an_unused_record_in_no_list() {
        let table = crate::table::FlatTable::<Record>::reserve(1).unwrap();
        let record = table.get(0).unwrap();
        assert_eq!((record.kind, record.tier, record.listed_in()), (Kind::Unused, Tier::None, NO_BUCKET));
    }

    #[test]
    fn half_of_a_superslab_is_not_more_than_half() {
        let tier_of = |free_units| record(crate::bits::mask(0, free_units), 0).computed_tier();
        assert_eq!([15, 16].map(tier_of), [Tier::Hot, Tier::Draining]);
    }

    #[test]
    fn each_occupancy_has_a_bucket_of_its_own_that_names_its_free_units() {
        let mut seen = std::collections::BTreeSet::new();
        for free_units in 1..=31_u32 {
            for dirty in [0, ALL] {
                let bucket = record(crate::bits::mask(0, free_units), dirty).bucket(true);
                assert_eq!(free_units_of(bucket), free_units);
                assert!(seen.insert(bucket));
                assert_eq!(dirty == ALL, DIRTY_BUCKETS >> bucket & 1 == 1);
            }
        }
    }

    #[test]
    fn a_draining_superslab_is_never_preferred_to_a_hot_one_of_its_kind() {
        for dirty in [0, ALL] {
            let fullest_draining = record(crate::bits::mask(0, 16), dirty).bucket(true);
            let emptiest_hot = record(crate::bits::mask(0, 15), dirty).bucket(true);
            assert!(emptiest_hot < fullest_draining);
        }
    }

    #[test]
    fn memory_that_is_there_is_preferred_to_memory_that_is_not() {
        let emptiest_dirty = record(crate::bits::mask(0, 31), ALL).bucket(true);
        let fullest_clean = record(1, 0).bucket(true);
        assert!(emptiest_dirty < WARM_BUCKET && WARM_BUCKET < fullest_clean);
    }
}
