//! Rounded sizes: 8 bytes, steps of 16 bytes to 256, then eight steps per doubling to 32 KiB; and dynamic ones in between.
//!
//! Worst over-allocation 12.5 % (above 256 bytes), 5.4 % on average over 16 B–1 KiB: measured against four steps per
//! doubling, which gives 9 % and 25 % (docs/decisions/0001-founding-measurements.md).
//!
//! **Dynamic classes.** Three more sizes lie between any two neighbours above 1 KiB. They serve nobody until a policy says so
//! (tiny-front's `ClassMap`), and a size that they serve now may be served otherwise a moment later. What never changes is what
//! a class *is*: its index, its blocks, its slabs. So a block of a class that is not in force any more is a block like others, and whoever
//! has read an outdated class for a size has one that is large enough (docs/decisions/0009-dynamic-classes.md).

use crate::layout::{FIRST_BLOCK_OFFSET, HEADER_BYTES, bytes_for_blocks};
use crate::{BIN_BYTES, MARKED_MIN_BYTES, SLAB_BYTES, TINY_MAX_BYTES};

/// Number of fixed size classes, those that are always in force. Their indices come first.
pub const CLASS_COUNT: usize = 17 + 7 * 8;
/// Index of the largest class that the tiny route serves.
const LAST_TINY: usize = 32;
/// Dynamic classes between two neighbouring fixed ones.
const PER_GAP: usize = 3;
/// Number of dynamic classes, those that a policy may bring into force. Their indices follow.
pub const DYNAMIC_CLASS_COUNT: usize = (CLASS_COUNT - 1 - LAST_TINY) * PER_GAP;
/// Number of all classes: a heap has a bin for each.
pub const BIN_COUNT: usize = CLASS_COUNT + DYNAMIC_CLASS_COUNT;
/// Largest block (bytes) that slabs serve; larger ones are runs or big blocks.
pub const MAX_SLAB_BLOCK_BYTES: usize = 32 * 1024 - HEADER_BYTES;

/// log2 of the granule of the lookup table for small sizes.
const SMALL_SHIFT: u32 = 3;
const SMALL_ENTRIES: usize = ((TINY_MAX_BYTES + HEADER_BYTES) >> SMALL_SHIFT) + 1;
/// log2 of the granule of the lookup table for sizes above [`TINY_MAX_BYTES`]: the step of the classes from 1 KiB to 2 KiB.
const MID_SHIFT: u32 = 7;
const MID_ENTRIES: usize = ((MAX_SLAB_BLOCK_BYTES + HEADER_BYTES) >> MID_SHIFT) + 1;
/// log2 of the granule in which sizes above [`TINY_MAX_BYTES`] are told apart where dynamic classes count: of all classes' sizes.
const FINE_SHIFT: u32 = 4;
/// Entries of a table that has one for each such granule, up to [`MAX_SLAB_BLOCK_BYTES`].
pub const FINE_ENTRIES: usize = ((MAX_SLAB_BLOCK_BYTES + HEADER_BYTES) >> FINE_SHIFT) + 1;

/// Index of a rounded size, `0..BIN_COUNT`: fixed classes in the order of their sizes, then the dynamic ones in that of theirs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(transparent)]
pub struct SizeClass(u8);

/// How slabs of one class are cut.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// Bytes of one block, and of the header that one layout puts before it.
    pub block_bytes: u32,
    /// `ceil(2^32 / block_bytes)`: turns the division by the block size into a multiplication.
    reciprocal: u32,
    /// Blocks in one slab (span).
    pub capacity: u16,
    /// Contiguous 64 KiB units that form one slab of this class.
    pub units: u16,
}

impl Geometry {
    /// What [`Geometry::is_step`] multiplies with; 0 for slabs of several units, where an address does not tell how far into
    /// the slab it is, and for blocks too small for a mark, so that fast paths that mark blocks never see one.
    #[inline]
    #[must_use]
    pub const fn step(&self) -> u32 {
        if self.units == 1 && self.block_bytes as usize >= MARKED_MIN_BYTES + HEADER_BYTES {
            self.reciprocal
        } else {
            0
        }
    }

    /// Whether `address` is a whole number of blocks into its unit, by one multiplication; never where `step` is 0.
    ///
    /// `offset * ceil(2^32 / d)`, cut to 32 bits, is below `ceil(2^32 / d)` exactly for multiples of `d`: Lemire, Kaser and
    /// Kurz, "Faster remainder by direct computation" (2019), which needs offsets of 16 and divisors of at most 13 bits.
    #[inline(always)]
    #[must_use]
    pub const fn is_step(address: usize, step: u32) -> bool {
        let offset = (address as u32).wrapping_sub(FIRST_BLOCK_OFFSET as u32) & (SLAB_BYTES as u32 - 1);
        offset.wrapping_mul(step) < step
    }

    /// Index of the block that begins `offset` bytes into the slab, or `None` if no block begins there.
    #[inline]
    #[must_use]
    pub const fn block_at(&self, offset: u32) -> Option<u32> {
        let Some(offset) = offset.checked_sub(FIRST_BLOCK_OFFSET as u32) else { return None };
        let index = ((offset as u64 * self.reciprocal as u64) >> 32) as u32;
        if index * self.block_bytes == offset && index < self.capacity as u32 { Some(index) } else { None }
    }

    /// Blocks in `bytes` bytes; may be one too many for more than a slab's bytes. A multiplication, not a division.
    #[inline]
    #[must_use]
    pub const fn blocks_in(&self, bytes: u32) -> u32 {
        ((bytes as u64 * self.reciprocal as u64) >> 32) as u32
    }
}

impl SizeClass {
    /// The fixed class for blocks of at least `bytes` bytes, or `None` above [`MAX_SLAB_BLOCK_BYTES`].
    ///
    /// A size that is a multiple of a power of two `a <= 32 KiB` gets a class whose blocks are all aligned to `a`.
    #[inline]
    #[must_use]
    pub const fn for_bytes(bytes: usize) -> Option<Self> {
        if bytes <= TINY_MAX_BYTES {
            Some(Self::for_tiny(bytes))
        } else if bytes <= MAX_SLAB_BLOCK_BYTES {
            Some(Self::for_mid(bytes))
        } else {
            None
        }
    }

    /// The class for a size of at most [`TINY_MAX_BYTES`]; a larger size gets the largest tiny class.
    #[inline]
    #[must_use]
    pub const fn for_tiny(bytes: usize) -> Self {
        let entry = (bytes + HEADER_BYTES + 7) >> SMALL_SHIFT;
        // The mask proves the bound to the compiler; `bytes <= 1024` gives `entry <= 128`.
        if entry < SMALL_ENTRIES { Self(lookup(&SMALL, entry)) } else { Self(lookup(&SMALL, SMALL_ENTRIES - 1)) }
    }

    const fn for_mid(bytes: usize) -> Self {
        Self(lookup(&MID, (bytes + HEADER_BYTES + 127) >> MID_SHIFT))
    }

    /// The smallest class, in force or not, for blocks of at least `bytes` bytes: no block that was ever handed out for as many is
    /// smaller. `None` above [`MAX_SLAB_BLOCK_BYTES`].
    #[inline]
    #[must_use]
    pub const fn finest(bytes: usize) -> Option<Self> {
        if bytes <= TINY_MAX_BYTES {
            Some(Self::for_tiny(bytes))
        } else if bytes <= MAX_SLAB_BLOCK_BYTES {
            Some(Self(lookup(&FINEST, fine_entry(bytes))))
        } else {
            None
        }
    }

    /// The dynamic class that serves `bytes` bytes best, if it does so better than the fixed one.
    #[must_use]
    pub const fn dynamic(bytes: usize) -> Option<Self> {
        match Self::finest(bytes) {
            Some(class) if class.is_dynamic() => Some(class),
            _ => None,
        }
    }

    /// Whether it is one that a policy brings into force.
    #[inline]
    #[must_use]
    pub const fn is_dynamic(self) -> bool {
        self.index() >= CLASS_COUNT
    }

    /// The fixed class for its blocks' size: itself, or the one that serves these sizes when it is not in force.
    #[inline]
    #[must_use]
    pub const fn fixed(self) -> Self {
        match self.index().checked_sub(CLASS_COUNT) {
            Some(place) => Self((LAST_TINY + 1 + place / PER_GAP) as u8),
            None => self,
        }
    }

    /// The class with this index, if there is one.
    #[inline]
    #[must_use]
    pub const fn from_index(index: usize) -> Option<Self> {
        if index < BIN_COUNT { Some(Self(index as u8)) } else { None }
    }

    /// The class with this index.
    ///
    /// # Safety
    /// - There is one: the index is below [`BIN_COUNT`].
    #[inline(always)]
    #[must_use]
    pub const unsafe fn from_index_unchecked(index: u8) -> Self {
        Self(index)
    }

    /// The index, `0..BIN_COUNT`.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Bytes of one block of this class.
    #[inline]
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        self.geometry().block_bytes as usize - HEADER_BYTES
    }

    /// Bytes of memory that one block takes: its part of a full slab.
    #[must_use]
    pub const fn slab_share(self) -> f64 {
        let geometry = self.geometry();
        (geometry.units as usize * SLAB_BYTES) as f64 / geometry.capacity as f64
    }

    /// How slabs of this class are cut.
    #[inline]
    #[must_use]
    pub const fn geometry(self) -> &'static Geometry {
        let table = (&raw const GEOMETRY).cast::<Geometry>();
        // SAFETY: a SizeClass is below BIN_COUNT, the table's length.
        let entry = unsafe { table.add(self.0 as usize) };
        // SAFETY: as above; the table is never written.
        unsafe { &*entry }
    }

    /// Whether `address`, in a slab of this class, is the start of a block too small for a mark: [`Geometry::is_step`] says nothing
    /// of the smallest class, whose blocks begin at every multiple of their size.
    #[inline(always)]
    #[must_use]
    pub const fn is_unmarked_start(self, address: usize) -> bool {
        self.0 == 0 && address.is_multiple_of(bytes_of(0))
    }

    /// Every fixed class, smallest first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..CLASS_COUNT).map(|index| Self(index as u8))
    }

    /// Every dynamic class, smallest first.
    pub fn all_dynamic() -> impl DoubleEndedIterator<Item = Self> {
        (CLASS_COUNT..BIN_COUNT).map(|index| Self(index as u8))
    }

    /// Every class: the fixed ones, then the dynamic ones.
    pub fn every() -> impl DoubleEndedIterator<Item = Self> {
        (0..BIN_COUNT).map(|index| Self(index as u8))
    }
}

/// The entry of a size above [`TINY_MAX_BYTES`] in a table of [`FINE_ENTRIES`].
#[inline(always)]
#[must_use]
pub const fn fine_entry(bytes: usize) -> usize {
    (bytes + HEADER_BYTES + (1 << FINE_SHIFT) - 1) >> FINE_SHIFT
}

/// The largest size that has this entry there.
#[inline]
#[must_use]
pub const fn fine_bytes(entry: usize) -> usize {
    (entry << FINE_SHIFT).saturating_sub(HEADER_BYTES)
}

/// Where in a heap record the bin of a class stands (bytes from the start): what `malloc` looks up in place of the class, to spare
/// the multiplication, and what `free` makes of a route word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct BinPlace(usize);

impl BinPlace {
    /// Place of the bin for `bytes <= TINY_MAX_BYTES` bytes at a multiple of 16.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "the entry is below the table's length")]
    pub const fn for_tiny_aligned(bytes: usize) -> Self {
        // The compare proves the bound to the compiler, which drops it where the caller has bounded `bytes`.
        Self(PLACES[if bytes < PLACE_ENTRIES { bytes } else { PLACE_ENTRIES - 1 }] as usize)
    }

    /// The place that many bytes into the record, if a bin is there. Offsets of bins only.
    #[inline(always)]
    #[must_use]
    pub const fn of_bin(offset: usize) -> Option<Self> {
        if offset < BIN_COUNT * BIN_BYTES { Some(Self(offset)) } else { None }
    }

    /// The place of a class's bin.
    #[inline(always)]
    #[must_use]
    pub const fn of_class(class: SizeClass) -> Self {
        Self(class.index() * BIN_BYTES)
    }

    /// Bytes from the start of the record.
    #[inline(always)]
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.0
    }

    /// The class whose bin it is.
    #[inline]
    #[must_use]
    pub const fn class(self) -> SizeClass {
        SizeClass((self.0 / BIN_BYTES) as u8)
    }
}

/// One entry per size, so that the look-up is a single load.
const PLACE_ENTRIES: usize = TINY_MAX_BYTES + 1;
static PLACES: [u16; PLACE_ENTRIES] = places();

/// The places for the classes of all sizes up to [`TINY_MAX_BYTES`]; classes of less than 16 bytes a block are replaced by the first
/// that has as much.
const fn places() -> [u16; PLACE_ENTRIES] {
    let classes = lookup_table::<{ PLACE_ENTRIES + HEADER_BYTES }>(0);
    let least = if HEADER_BYTES == 0 { 1 } else { 2 };
    let mut places = [0; PLACE_ENTRIES];
    let mut entry = 0;
    while entry < PLACE_ENTRIES {
        #[expect(clippy::indexing_slicing, reason = "bounded by the loop, at compile time")]
        {
            let class = classes[entry + HEADER_BYTES];
            let class = if class < least { least } else { class };
            places[entry] = class as u16 * BIN_BYTES as u16;
        }
        entry += 1;
    }
    places
}

#[unsafe(link_section = ".rodata.hot.hakmem")]
static SMALL: [u8; SMALL_ENTRIES] = lookup_table::<SMALL_ENTRIES>(SMALL_SHIFT);
#[unsafe(link_section = ".rodata.hot.hakmem")]
static MID: [u8; MID_ENTRIES] = lookup_table::<MID_ENTRIES>(MID_SHIFT);
#[unsafe(link_section = ".rodata.hot.hakmem")]
static FINEST: [u8; FINE_ENTRIES] = finest_table();
#[unsafe(link_section = ".rodata.hot.hakmem")]
static GEOMETRY: [Geometry; BIN_COUNT] = geometry_table();

#[inline]
#[expect(clippy::indexing_slicing, reason = "callers bound the entry; the tables cover every size up to their maximum")]
const fn lookup(table: &[u8], entry: usize) -> u8 {
    table[entry]
}

/// Bytes of a block of class `index`, with its header.
const fn bytes_of(index: usize) -> usize {
    match index {
        0 => 8 + HEADER_BYTES,
        1..=16 => index * 16,
        17..CLASS_COUNT => {
            let step = index - 17;
            let base = 256_usize << (step / 8);
            base + (base / 8) * (step % 8 + 1)
        }
        _ => dynamic_cut(index - CLASS_COUNT).block_bytes,
    }
}

/// Blocks and slabs of a dynamic class.
struct Cut {
    block_bytes: usize,
    units: usize,
}

/// The gap between two fixed classes has as many parts as classes, and one more. A dynamic class has the size, in its part, that cuts
/// a slab without a rest, as far as a multiple of 16 can; of several the one with the fewest units: where a slab has several, a free
/// takes a longer way.
const fn dynamic_cut(place: usize) -> Cut {
    let (below, above) = (bytes_of(LAST_TINY + place / PER_GAP), bytes_of(LAST_TINY + 1 + place / PER_GAP));
    let part = (above - below) / (PER_GAP + 1);
    let least = below + part * (place % PER_GAP + 1);
    let mut units = 1;
    while units <= MAX_SLAB_UNITS {
        let count = bytes_for_blocks(units) / least;
        let block_bytes = (bytes_for_blocks(units) / count) >> FINE_SHIFT << FINE_SHIFT;
        if count >= MIN_BLOCKS && block_bytes < least + part {
            return Cut { block_bytes, units };
        }
        units += 1;
    }
    Cut { block_bytes: least, units: units_for(least) }
}

const fn lookup_table<const ENTRIES: usize>(shift: u32) -> [u8; ENTRIES] {
    let mut table = [0; ENTRIES];
    let mut entry = 0;
    let mut class = 0;
    while entry < ENTRIES {
        while bytes_of(class) < entry << shift {
            class += 1;
        }
        #[expect(clippy::indexing_slicing, reason = "bounded by the loop, at compile time")]
        {
            table[entry] = class as u8;
        }
        entry += 1;
    }
    table
}

/// For each size the smallest class that holds it, in force or not.
const fn finest_table() -> [u8; FINE_ENTRIES] {
    let mut table = [0; FINE_ENTRIES];
    let mut entry = 0;
    let mut fixed = 0;
    while entry < FINE_ENTRIES {
        let bytes = entry << FINE_SHIFT;
        while bytes_of(fixed) < bytes {
            fixed += 1;
        }
        let mut class = fixed;
        let mut part = PER_GAP;
        while part > 0 && fixed > LAST_TINY {
            part -= 1;
            let dynamic = CLASS_COUNT + (fixed - 1 - LAST_TINY) * PER_GAP + part;
            if bytes_of(dynamic) >= bytes {
                class = dynamic;
            }
        }
        #[expect(clippy::indexing_slicing, reason = "bounded by the loop, at compile time")]
        {
            table[entry] = class as u8;
        }
        entry += 1;
    }
    table
}

/// Fewest blocks of a slab.
const MIN_BLOCKS: usize = 4;
/// Most units of a slab.
pub const MAX_SLAB_UNITS: usize = 8;

/// Units per slab: the fewest that hold four blocks and waste at most a tenth. What is wasted is hardly ever touched; what many units
/// cost is that one block holds them all (docs/decisions/0021-small-slabs.md).
const fn units_for(block_bytes: usize) -> usize {
    let mut units = 1;
    loop {
        let bytes = bytes_for_blocks(units);
        let waste = bytes % block_bytes;
        if bytes / block_bytes >= MIN_BLOCKS && waste * 10 <= bytes || units == MAX_SLAB_UNITS {
            return units;
        }
        units += 1;
    }
}

const fn geometry_table() -> [Geometry; BIN_COUNT] {
    let mut table = [Geometry { block_bytes: 0, reciprocal: 0, capacity: 0, units: 0 }; BIN_COUNT];
    let mut index = 0;
    while index < BIN_COUNT {
        let block_bytes = bytes_of(index);
        let units = if index < CLASS_COUNT { units_for(block_bytes) } else { dynamic_cut(index - CLASS_COUNT).units };
        let capacity = bytes_for_blocks(units) / block_bytes;
        let entry = Geometry {
            block_bytes: block_bytes as u32,
            reciprocal: (1_u64 << 32).div_ceil(block_bytes as u64) as u32,
            // A remote queue counts to 8191 (13 bits), so the 8-byte class gives up its last block.
            capacity: if capacity > 8191 { 8191 } else { capacity as u16 },
            units: units as u16,
        };
        #[expect(clippy::indexing_slicing, reason = "bounded by the loop, at compile time")]
        {
            table[index] = entry;
        }
        index += 1;
    }
    table
}

const _: () = assert!(bytes_of(CLASS_COUNT - 1) == MAX_SLAB_BLOCK_BYTES + HEADER_BYTES);
const _: () = assert!(BIN_COUNT <= u8::MAX as usize);
const _: () = assert!(bytes_of(LAST_TINY) == TINY_MAX_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn is_step_agrees_with_division_at_every_offset() {
        for geometry in SizeClass::every().map(SizeClass::geometry).filter(|geometry| geometry.step() != 0) {
            for offset in (0..SLAB_BYTES).step_by(if cfg!(miri) { 509 } else { 1 }) {
                assert_eq!(
                    Geometry::is_step(offset, geometry.step()),
                    (offset as u32).is_multiple_of(geometry.block_bytes),
                    "{geometry:?}, offset {offset}"
                );
            }
        }
    }

    #[test]
    fn nothing_is_a_step_in_a_slab_of_several_units() {
        assert!(!Geometry::is_step(0, 0));
        for geometry in SizeClass::every().map(SizeClass::geometry) {
            assert_eq!(geometry.step() == 0, geometry.units > 1 || geometry.block_bytes == 8, "{geometry:?}");
        }
    }

    #[test]
    fn classes_rise_and_waste_at_most_an_eighth() {
        let mut previous = 8;
        for class in SizeClass::all().skip(1) {
            let bytes = class.block_bytes();
            assert!(bytes > previous);
            assert!(bytes - previous <= (bytes / 8).max(16), "{bytes}");
            previous = bytes;
        }
    }

    #[test]
    fn dynamic_classes_lie_between_their_fixed_neighbours_and_never_meet() {
        for class in SizeClass::all_dynamic() {
            let fixed = class.fixed();
            let below = SizeClass::from_index(fixed.index() - 1).unwrap();
            assert!(
                below.block_bytes() < class.block_bytes() && class.block_bytes() < fixed.block_bytes(),
                "{class:?}"
            );
            assert_eq!(SizeClass::for_bytes(class.block_bytes()), Some(fixed));
            assert_eq!(SizeClass::finest(class.block_bytes()), Some(class));
            // Blocks of the malloc family are aligned to 16.
            assert!(class.block_bytes().is_multiple_of(16));
        }
        assert!(SizeClass::all_dynamic().map(SizeClass::block_bytes).is_sorted_by(|a, b| a < b));
        assert!(SizeClass::all().all(|class| class.fixed() == class && !class.is_dynamic()));
    }

    /// Blocks that are smaller are of no use if their slabs leave more over.
    #[test]
    fn a_dynamic_class_takes_no_more_memory_than_its_fixed_one() {
        for class in SizeClass::all_dynamic() {
            let (taken, otherwise) = (class.slab_share(), class.fixed().slab_share());
            assert!(taken <= otherwise, "{}: {taken} and {otherwise}", class.block_bytes());
        }
    }

    #[test]
    fn slabs_waste_little_and_fit_their_units() {
        for class in SizeClass::every() {
            let geometry = class.geometry();
            let slab = usize::from(geometry.units) * SLAB_BYTES;
            let used = usize::from(geometry.capacity) * class.block_bytes();
            assert!(used <= slab);
            assert!(slab - used <= slab / 10, "{}: {} of {slab} unused", class.block_bytes(), slab - used);
            assert!(geometry.capacity >= 4);
        }
    }

    proptest! {
        #[test]
        fn the_class_is_the_smallest_that_fits(bytes in 0_usize..=MAX_SLAB_BLOCK_BYTES) {
            let class = SizeClass::for_bytes(bytes).unwrap();
            prop_assert!(class.block_bytes() >= bytes);
            if let Some(below) = class.index().checked_sub(1).and_then(SizeClass::from_index) {
                prop_assert!(below.block_bytes() < bytes);
            }
        }

        #[test]
        fn the_finest_class_is_the_smallest_of_all_that_fit(bytes in 0_usize..=MAX_SLAB_BLOCK_BYTES) {
            let fitting = SizeClass::every().filter(|class| class.block_bytes() >= bytes);
            let finest = fitting.min_by_key(|class| class.block_bytes()).unwrap();
            prop_assert_eq!(SizeClass::finest(bytes), Some(finest));
            prop_assert_eq!(SizeClass::for_bytes(bytes), Some(finest.fixed()));
            prop_assert_eq!(SizeClass::dynamic(bytes), Some(finest).filter(|class| class.is_dynamic()));
        }

        #[test]
        fn a_multiple_of_an_alignment_gets_blocks_of_that_alignment(shift in 3_u32..=15, count in 1_usize..4096) {
            let alignment = 1_usize << shift;
            if let Some(class) = SizeClass::for_bytes(alignment * count) {
                prop_assert_eq!(class.block_bytes() % alignment, 0);
            }
        }

        #[test]
        fn block_at_accepts_exactly_the_starts(index in 0..BIN_COUNT, offset in 0_u32..(8 * SLAB_BYTES as u32)) {
            let geometry = SizeClass::from_index(index).unwrap().geometry();
            let expected = (offset % geometry.block_bytes == 0 && offset / geometry.block_bytes < u32::from(geometry.capacity))
                .then_some(offset / geometry.block_bytes);
            prop_assert_eq!(geometry.block_at(offset), expected);
        }
    }
}
