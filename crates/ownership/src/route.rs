//! Encoding and transitions of the route word.

use hakmem_atomic_ops::SharedPtr;
use hakmem_base::{
    BIN_BYTES, BIN_COUNT, HEAP_RECORD_BYTES, OS_PAGE_BYTES, RUN_MAX_BYTES, SLABS_PER_SUPERSLAB, SizeClass,
};
use static_assertions::const_assert;

/// Address of a bin: names the owning heap (aligned to its record) and, by its offset there, the size class. Never followed here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct BinPtr(*mut ());

impl BinPtr {
    /// Wraps a bin's address.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: *mut ()) -> Self {
        Self(address)
    }

    /// The address, to compare.
    #[inline(always)]
    #[must_use]
    pub fn addr(self) -> usize {
        self.0.addr()
    }

    /// The address, to follow.
    #[inline(always)]
    #[must_use]
    pub const fn as_ptr(self) -> *mut () {
        self.0
    }
}

const TAG_MASK: usize = 0x7;
/// `class << 8 | TAG_ORPHAN`: a slab without an owner.
const TAG_ORPHAN: usize = 1;
/// `bytes << 16 | (units - 1) << 4 | TAG_RUN`: head of a run of slabs in use by one block.
const TAG_RUN: usize = 2;
/// `bytes (whole OS pages) | note << 3 | TAG_BIG`: head of a block that takes whole superslabs.
const TAG_BIG: usize = 3;
/// `note << 3 | TAG_HARDENED`: a unit of the hardened level.
const TAG_HARDENED: usize = 4;
/// `note << 3 | TAG_SAMPLED`: a unit of guarded samples.
const TAG_SAMPLED: usize = 5;
/// `1 << 63 | note << 32 | next << 3 | TAG_KEPT`: head of a free run that a thread keeps. No block begins there: it reads as unused.
const TAG_KEPT: usize = 6;
/// `note << 3 | TAG_WATCHED`: a unit of watched blocks.
const TAG_WATCHED: usize = 7;
const TAG_BITS: u32 = TAG_MASK.count_ones();
/// Notes that a big block can have: what the low bits of whole OS pages leave beside the tag.
pub const BIG_NOTES: u16 = (OS_PAGE_BYTES >> TAG_BITS) as u16;
const RUN_UNITS_SHIFT: u32 = 4;
const RUN_UNITS_MASK: usize = SLABS_PER_SUPERSLAB as usize - 1;
const RUN_BYTES_SHIFT: u32 = 16;
const KEPT_NOTE_SHIFT: u32 = 32;
/// Never set in an address of the user's half, so that no kept run looks like a bin.
const KEPT_BIT: usize = 1 << 63;

const_assert!(BIN_COUNT * BIN_BYTES <= HEAP_RECORD_BYTES);
const_assert!(OS_PAGE_BYTES > TAG_MASK);
const_assert!(RUN_MAX_BYTES.is_power_of_two());
// Tags live in address bits that bins, being 64-byte aligned, leave at zero.
const_assert!(BIN_BYTES > TAG_MASK);

/// What a unit of the window is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// Not handed out, kept by a thread, or inside a run or big block: no block begins here.
    Unused,
    /// A slab that belongs to the heap whose bin this is.
    Owned(BinPtr),
    /// A slab that belongs to nobody.
    Orphan(SizeClass),
    /// The first unit of a run: `units` units, of which the block uses `bytes` bytes.
    Run {
        /// 64 KiB units.
        units: u32,
        /// Bytes usable by the block.
        bytes: usize,
    },
    /// The first unit of a big block of `bytes` bytes (whole OS pages).
    Big {
        /// Bytes usable by the block.
        bytes: usize,
        /// Whoever handed it out has written this down beside it; below [`BIG_NOTES`].
        note: u16,
    },
    /// A unit of the hardened level; the number is that box's own.
    Hardened(usize),
    /// A unit of guarded samples; the number is that box's own.
    Sampled(usize),
    /// A unit of watched blocks; the number is that box's own.
    Watched(usize),
}

impl Route {
    /// Class of the slab that the unit belongs to, whether that has an owner or not; `None` if it is no slab's.
    #[inline]
    #[must_use]
    pub fn slab_class(self) -> Option<SizeClass> {
        match self {
            Self::Owned(bin) => class_of_bin(bin),
            Self::Orphan(class) => Some(class),
            _ => None,
        }
    }
}

/// The word of a run in use, as it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunWord(usize);

impl RunWord {
    /// 64 KiB units of the run, less one.
    #[inline(always)]
    #[must_use]
    pub const fn further_units(self) -> usize {
        (self.0 >> RUN_UNITS_SHIFT) & RUN_UNITS_MASK
    }

    /// 64 KiB units of the run.
    #[inline]
    #[must_use]
    pub const fn units(self) -> u32 {
        self.further_units() as u32 + 1
    }

    /// Bytes usable by the block.
    #[inline(always)]
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.0 >> RUN_BYTES_SHIFT
    }
}

/// What the head of a free run carries while a thread keeps it: the next run of the list that it is in, and a note of the keeper's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept(usize);

impl Kept {
    /// Of a keeper that has kept nothing yet. All zero.
    pub const UNSET: Self = Self(0);

    /// A `note` of at most 31 bits; behind the run comes none.
    #[inline]
    #[must_use]
    pub const fn new(note: u32) -> Self {
        Self(KEPT_BIT | ((note as usize) << KEPT_NOTE_SHIFT) | TAG_KEPT)
    }

    /// This note (of [`Kept::new`]) on a run before the one at unit `next`, below 2^29.
    #[inline(always)]
    #[must_use]
    pub const fn before(self, next: u32) -> Self {
        Self(self.0.wrapping_add((next as usize) << TAG_BITS))
    }

    /// The unit where the next run begins; 0: none.
    #[inline(always)]
    #[must_use]
    pub const fn next(self) -> u32 {
        self.0 as u32 >> TAG_BITS
    }

    /// The keeper's note.
    #[inline]
    #[must_use]
    pub const fn note(self) -> u32 {
        ((self.0 & !KEPT_BIT) >> KEPT_NOTE_SHIFT) as u32
    }
}

/// Outcome of [`RouteWord::try_acquire`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Acquired {
    /// The caller owns the slab now.
    Won,
    /// The slab has another owner, or is no slab any more.
    Lost,
}

/// The route word of one unit. All zero means [`Route::Unused`].
#[derive(Debug)]
#[repr(transparent)]
pub struct RouteWord(SharedPtr<()>);

/// The size class that a bin serves: its position in the heap record.
#[inline]
#[must_use]
pub fn class_of_bin(bin: BinPtr) -> Option<SizeClass> {
    SizeClass::from_index((bin.addr() & (HEAP_RECORD_BYTES - 1)) / BIN_BYTES)
}

impl RouteWord {
    /// An unused unit's word.
    #[must_use]
    pub const fn new() -> Self {
        Self(SharedPtr::new(core::ptr::null_mut()))
    }

    /// The word as it is, for the compare of the fast path: a bin's address, or something that is none.
    #[inline(always)]
    #[must_use]
    pub fn bits(&self) -> BinPtr {
        BinPtr(self.0.load_relaxed())
    }

    /// Reads and decodes the word.
    #[inline]
    #[must_use]
    pub fn route(&self) -> Route {
        Self::decode(self.load())
    }

    /// The bin of the slab that the unit is part of, if the slab has an owner: what most words say, without decoding the rest.
    #[inline(always)]
    #[must_use]
    pub fn owner(&self) -> Option<BinPtr> {
        let word = self.load();
        (!word.is_null() && word.addr() & TAG_MASK == 0).then_some(BinPtr(word))
    }

    #[inline(always)]
    fn load(&self) -> *mut () {
        // ORDERING: pairs with `bind`, `release` and `retire`: a stranger that follows a changed route to a mailbox
        // or list sees what its writer prepared there.
        self.0.load_acquire()
    }

    /// Whether the slab belongs to the heap of `bin`.
    #[inline]
    #[must_use]
    pub fn is_mine(&self, bin: BinPtr) -> bool {
        self.bits() == bin
    }

    /// A unit that the caller has just taken becomes part of a slab that the caller owns.
    #[inline]
    pub fn bind(&self, bin: BinPtr) {
        // ORDERING: pairs with `route`: the slab's initial state is visible to whoever finds its owner.
        self.0.store_release(bin.0);
    }

    /// Makes the caller the owner of an orphan slab. Exactly one of several callers wins.
    #[inline]
    pub fn try_acquire(&self, class: SizeClass, bin: BinPtr) -> Acquired {
        // ORDERING: pairs with `release`: the previous owner's last writes to the slab's state are visible to the winner.
        match self.0.cas_acq_rel(orphan_bits(class), bin.0) {
            Ok(_) => Acquired::Won,
            Err(_) => Acquired::Lost,
        }
    }

    /// Gives the slab up; it stays a slab of its class without an owner. Called by the owner only.
    #[inline]
    pub fn release(&self, class: SizeClass) {
        // ORDERING: pairs with `try_acquire` and `route`.
        self.0.store_release(orphan_bits(class));
    }

    /// The unit is no longer part of anything. Called by whoever holds it alone.
    #[inline]
    pub fn retire(&self) {
        // ORDERING: pairs with `route`.
        self.0.store_release(core::ptr::null_mut());
    }

    /// The unit is the head of a run of `units` units in use by one block of `bytes` bytes.
    #[inline]
    pub fn set_run(&self, units: u32, bytes: usize) {
        hakmem_base::invariant!(
            (1..=SLABS_PER_SUPERSLAB).contains(&units),
            "a run has more units than a superslab, or none"
        );
        // ORDERING: pairs with `route`.
        self.0.store_release(core::ptr::without_provenance_mut(run_bits(units, bytes)));
    }

    /// The unit is the head of a big block of `bytes` bytes, a whole number of OS pages, with a note below [`BIG_NOTES`].
    #[inline]
    pub fn set_big(&self, bytes: usize, note: u16) {
        hakmem_base::invariant!(bytes.is_multiple_of(OS_PAGE_BYTES), "big block is not a whole number of OS pages");
        // ORDERING: pairs with `route`.
        self.0.store_release(core::ptr::without_provenance_mut(big_bits(bytes, note)));
    }

    /// The unit belongs to the hardened level, which keeps `note` (at most 61 bits) here.
    #[inline]
    pub fn set_hardened(&self, note: usize) {
        // ORDERING: pairs with `route`.
        self.0.store_release(core::ptr::without_provenance_mut((note << TAG_BITS) | TAG_HARDENED));
    }

    /// The unit belongs to the box of guarded samples, which keeps `note` (at most 61 bits) here.
    #[inline]
    pub fn set_sampled(&self, note: usize) {
        // ORDERING: pairs with `route`.
        self.0.store_release(core::ptr::without_provenance_mut((note << TAG_BITS) | TAG_SAMPLED));
    }

    /// The unit belongs to the box of watched blocks, which keeps `note` (at most 61 bits) here.
    #[inline]
    pub fn set_watched(&self, note: usize) {
        // ORDERING: pairs with `route`.
        self.0.store_release(core::ptr::without_provenance_mut((note << TAG_BITS) | TAG_WATCHED));
    }

    /// Takes the word from the block `expected` (a run or big block being freed) to unused. False if it is not (any more)
    /// that block: freed twice, or by two threads at once.
    #[inline]
    #[must_use]
    pub fn claim(&self, expected: Route) -> bool {
        let bits = match expected {
            Route::Run { units, bytes } => run_bits(units, bytes),
            Route::Big { bytes, note } => big_bits(bytes, note),
            _ => return false,
        };
        self.claim_bits(bits, 0)
    }

    /// The run that begins here and is in use, if there is one: what [`RouteWord::route`] says, for the short way.
    #[inline(always)]
    #[must_use]
    pub fn run(&self) -> Option<RunWord> {
        let bits = self.bits().addr();
        (bits & TAG_MASK == TAG_RUN).then_some(RunWord(bits))
    }

    /// [`RouteWord::claim`] and [`RouteWord::keep`] in one step.
    #[inline(always)]
    #[must_use]
    pub fn claim_to_keep(&self, run: RunWord, kept: Kept) -> bool {
        self.claim_bits(run.0, kept.0)
    }

    #[inline(always)]
    fn claim_bits(&self, bits: usize, then: usize) -> bool {
        let (from, to) = (core::ptr::without_provenance_mut(bits), core::ptr::without_provenance_mut(then));
        // ORDERING: pairs with `set_run`/`set_big`; the freeing thread takes over what the allocating one recorded.
        self.0.cas_acq_rel(from, to).is_ok()
    }

    /// The unit is the head of a free run that the caller keeps. Relaxed: to others it is unused, and they follow nothing.
    #[inline]
    pub fn keep(&self, kept: Kept) {
        self.0.store_relaxed(core::ptr::without_provenance_mut(kept.0));
    }

    /// What the keeper of a free run wrote here. Nobody else has a use for it.
    #[inline(always)]
    #[must_use]
    pub fn kept(&self) -> Kept {
        let bits = self.bits().addr();
        hakmem_base::invariant!(bits & TAG_MASK == TAG_KEPT, "the route of a kept run says otherwise");
        Kept(bits)
    }

    #[inline]
    fn decode(word: *mut ()) -> Route {
        let bits = word.addr();
        match bits & TAG_MASK {
            0 if bits == 0 => Route::Unused,
            0 => Route::Owned(BinPtr(word)),
            TAG_ORPHAN => SizeClass::from_index(bits >> 8).map_or(Route::Unused, Route::Orphan),
            TAG_RUN => Route::Run { units: RunWord(bits).units(), bytes: RunWord(bits).bytes() },
            TAG_KEPT => Route::Unused,
            TAG_HARDENED => Route::Hardened(bits >> TAG_BITS),
            TAG_SAMPLED => Route::Sampled(bits >> TAG_BITS),
            TAG_WATCHED => Route::Watched(bits >> TAG_BITS),
            _ => {
                Route::Big { bytes: bits & !(OS_PAGE_BYTES - 1), note: (bits & (OS_PAGE_BYTES - 1)) as u16 >> TAG_BITS }
            }
        }
    }
}

// SAFETY: zero is `Unused`, and nothing is dropped.
unsafe impl hakmem_base::ZeroValid for RouteWord {}

impl Default for RouteWord {
    fn default() -> Self {
        Self::new()
    }
}

#[inline]
const fn big_bits(bytes: usize, note: u16) -> usize {
    bytes | ((note & (BIG_NOTES - 1)) as usize) << TAG_BITS | TAG_BIG
}

#[inline(always)]
const fn run_bits(units: u32, bytes: usize) -> usize {
    (bytes << RUN_BYTES_SHIFT) | ((units as usize).wrapping_sub(1) << RUN_UNITS_SHIFT) | TAG_RUN
}

#[inline]
fn orphan_bits(class: SizeClass) -> *mut () {
    core::ptr::without_provenance_mut((class.index() << 8) | TAG_ORPHAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn class(index: usize) -> SizeClass {
        SizeClass::from_index(index).unwrap()
    }

    fn bin(heap: usize, index: usize) -> BinPtr {
        BinPtr::new(core::ptr::without_provenance_mut((heap + 1) * HEAP_RECORD_BYTES + index * BIN_BYTES))
    }

    #[test]
    fn acquire_works_only_from_orphan() {
        let word = RouteWord::new();
        assert_eq!(word.try_acquire(class(3), bin(0, 3)), Acquired::Lost);
        word.bind(bin(0, 3));
        assert_eq!(word.try_acquire(class(3), bin(1, 3)), Acquired::Lost);
        assert!(word.is_mine(bin(0, 3)));
        word.release(class(3));
        assert_eq!(word.route(), Route::Orphan(class(3)));
        assert_eq!(word.try_acquire(class(4), bin(1, 4)), Acquired::Lost);
        assert_eq!(word.try_acquire(class(3), bin(1, 3)), Acquired::Won);
        assert_eq!(word.route(), Route::Owned(bin(1, 3)));
    }

    #[test]
    fn exactly_one_of_many_threads_acquires() {
        for _ in 0..200 {
            let word = RouteWord::new();
            word.release(class(7));
            let winners = std::thread::scope(|scope| {
                let word = &word;
                let tries: Vec<_> = (0..4)
                    .map(|heap| scope.spawn(move || word.try_acquire(class(7), bin(heap, 7)) == Acquired::Won))
                    .collect();
                tries.into_iter().map(|thread| thread.join().unwrap()).filter(|&won| won).count()
            });
            assert_eq!(winners, 1);
        }
    }

    #[test]
    fn a_block_is_claimed_once() {
        let word = RouteWord::new();
        word.set_run(3, 150_000);
        let route = word.route();
        assert!(word.claim(route));
        assert!(!word.claim(route));
        assert_eq!(word.route(), Route::Unused);
    }

    #[test]
    fn a_kept_run_is_nobodys_block_and_its_keeper_finds_the_next() {
        let word = RouteWord::new();
        assert_eq!(word.run(), None);
        word.set_run(3, 150_000);
        let run = word.run().unwrap();
        assert_eq!((run.units(), run.bytes()), (3, 150_000));
        let kept = Kept::new(0x7fff_ffff).before((1 << 29) - 1);
        assert!(word.claim_to_keep(run, kept));
        assert!(!word.claim_to_keep(run, kept) && word.run().is_none());
        assert_eq!((word.kept(), word.route(), word.owner()), (kept, Route::Unused, None));
        assert_eq!((kept.next(), kept.note(), Kept::new(5).next()), ((1 << 29) - 1, 0x7fff_ffff, 0));
        word.keep(Kept::new(5));
        assert_eq!((word.kept().note(), word.kept().next()), (5, 0));
    }

    proptest! {
        #[test]
        fn routes_survive_the_encoding(units in 1_u32..=32, bytes in 1_usize..=RUN_MAX_BYTES, pages in 1_usize..(1 << 30), index in 0..BIN_COUNT) {
            let word = RouteWord::new();
            word.set_run(units, bytes);
            prop_assert_eq!(word.route(), Route::Run { units, bytes });
            prop_assert_eq!(word.route().slab_class(), None);
            let note = (pages % usize::from(BIG_NOTES)) as u16;
            word.set_big(pages * OS_PAGE_BYTES, note);
            prop_assert_eq!(word.route(), Route::Big { bytes: pages * OS_PAGE_BYTES, note });
            word.release(class(index));
            prop_assert_eq!(word.route(), Route::Orphan(class(index)));
            prop_assert_eq!(word.route().slab_class(), Some(class(index)));
            word.bind(bin(5, index));
            prop_assert_eq!(word.route(), Route::Owned(bin(5, index)));
            prop_assert_eq!(word.route().slab_class(), Some(class(index)));
        }
    }
}
