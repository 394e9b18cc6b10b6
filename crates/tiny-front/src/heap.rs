//! HOT: one thread's heap and the two operations that programs spend their time in.
//!
//! Nothing here locks, calls, looks anything up beyond the route word, or exchanges atomically. What does not fit goes
//! to `warm.rs` (refill, overflow), `remote.rs` (other threads' blocks) and `cold.rs` (slabs change hands).

use core::cell::Cell;
use core::ptr::NonNull;
use hakmem_atomic_ops::Owned64;
use hakmem_base::{
    BIN_BYTES, BIN_COUNT, BinPlace, CLASS_COUNT, DYNAMIC_CLASS_COUNT, Geometry, MarkKey, OS_PAGE_BYTES, SLAB_SHIFT,
    SizeClass,
};
use hakmem_ownership::BinPtr;
use hakmem_publish_adopt::Mailbox;
use hakmem_remote_queue::Outbox;
use static_assertions::const_assert_eq;

use crate::bin::Bin;
use crate::counters::{ClassFlow, ClassTally, FrontCounters};
use crate::layout::{self, Label, Words};
use crate::pace::Pace;
use crate::policy::FrontPolicy;
use crate::raw;
use crate::slab_state::SlabState;

/// One thread's bins, outbox and mailbox. Lives at the start of a record that is aligned to its size and recycled, never unmapped.
///
/// What dynamic classes need lies together and ends with an OS page: while none is in force, a thread has no memory there, and the
/// first page, with the bins up to 16 KiB, and the one behind the gap are all that most threads touch.
///
/// Cells, not `&mut`: a slow path may allocate (a thread's registration does), which enters the heap again.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Heap {
    bins: [Bin; BIN_COUNT],
    /// What slow paths note of each dynamic class beside its bin.
    dynamic_tallies: [ClassTally; DYNAMIC_CLASS_COUNT],
    _to_page_end: [Cell<u8>; TO_PAGE_END],
    view: Cell<View>,
    /// Slabs of this heap that received remote frees. Written by strangers.
    pub(crate) mailbox: Mailbox,
    pub(crate) outbox: Outbox,
    pub(crate) policy: Cell<FrontPolicy>,
    /// Counters of this heap's slow paths.
    pub counters: FrontCounters,
    /// Heartbeats since the last idle trim.
    pub(crate) beats_since_trim: Cell<u32>,
    /// Slabs taken since the last look at idle classes.
    pub(crate) slabs_since_trim: Cell<u32>,
    /// Allocations of the heap at which growth may look for idle classes again.
    pub(crate) next_growth_trim: Cell<u64>,
    /// Mails that the owner had read, plus one, when somebody last looked at mail that waited; 0: none did. Written by who sorts.
    pub(crate) unread_at: Owned64,
    /// What slow paths note of each fixed class beside its bin.
    tallies: [ClassTally; CLASS_COUNT],
    /// Dynamic classes whose bins this heap has ever used, one bit each: others need not be looked at. Any thread may read it.
    dynamic_used: [Owned64; DYNAMIC_CLASS_COUNT.div_ceil(u64::BITS as usize)],
    /// Countdowns to guarded samples and watched blocks.
    pub(crate) pace: Pace,
}

/// What frees have to know of the window that do not know the size of their block, or find no room in the cache. Each heap has a copy, next
/// to its bins.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct View {
    pub(crate) key: MarkKey,
    pub(crate) base: usize,
    pub(crate) slab_count: usize,
    pub(crate) words: Words,
    pub(crate) label: Label,
}

impl View {
    /// Before there is a window: every pointer lies outside it.
    pub const NONE: Self = Self { key: MarkKey::NONE, base: 0, slab_count: 0, words: Words::NONE, label: Label::NONE };
}

const TO_PAGE_END: usize = (BIN_COUNT * BIN_BYTES + DYNAMIC_CLASS_COUNT * size_of::<ClassTally>())
    .next_multiple_of(OS_PAGE_BYTES)
    - (BIN_COUNT * BIN_BYTES + DYNAMIC_CLASS_COUNT * size_of::<ClassTally>());

// Bins are at the start of the record: a route word's offset in its record gives the class.
const_assert_eq!(core::mem::offset_of!(Heap, bins), 0);
const_assert_eq!(core::mem::offset_of!(Heap, view) % OS_PAGE_BYTES, 0);

/// What [`Heap::pop`] found.
#[derive(Clone, Copy, Debug)]
pub enum Pop {
    /// A block.
    Block(NonNull<u8>),
    /// A block, and it is time for the heartbeat.
    Beat(NonNull<u8>),
    /// The list is empty: refill.
    Empty,
}

impl Heap {
    /// A heap that was never used: every list empty.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bins: [const { Bin::new() }; BIN_COUNT],
            dynamic_tallies: [const { ClassTally::new() }; DYNAMIC_CLASS_COUNT],
            _to_page_end: [const { Cell::new(0) }; TO_PAGE_END],
            view: Cell::new(View::NONE),
            mailbox: Mailbox::new(),
            outbox: Outbox::new(),
            policy: Cell::new(FrontPolicy::DEFAULT),
            counters: FrontCounters::new(),
            beats_since_trim: Cell::new(0),
            slabs_since_trim: Cell::new(0),
            next_growth_trim: Cell::new(0),
            unread_at: Owned64::new(0),
            tallies: [const { ClassTally::new() }; CLASS_COUNT],
            dynamic_used: [const { Owned64::new(0) }; DYNAMIC_CLASS_COUNT.div_ceil(u64::BITS as usize)],
            pace: Pace::new(),
        }
    }

    /// As [`Heap::new`], but without a policy, so that it is all zero: such a static takes no room in a file, and none in memory
    /// until it is written. It gets a policy before it serves a thread.
    #[must_use]
    pub const fn unset() -> Self {
        Self { policy: Cell::new(FrontPolicy::UNSET), ..Self::new() }
    }

    /// The bin of a class.
    #[inline(always)]
    #[must_use]
    pub fn bin(&self, class: SizeClass) -> &Bin {
        // SAFETY: a SizeClass is below BIN_COUNT, the length of the array.
        unsafe { self.bins.get_unchecked(class.index()) }
    }

    /// The address that route words of this heap's slabs of `class` carry.
    #[inline]
    #[must_use]
    pub(crate) fn bin_ptr(&self, class: SizeClass) -> BinPtr {
        raw::bin_ptr(self, class.index())
    }

    /// Takes the newest block of `class` off the cache.
    #[inline(always)]
    #[must_use]
    pub fn pop(&self, class: SizeClass) -> Pop {
        Self::pop_bin(self.bin(class))
    }

    /// The bin at its place in the record.
    #[inline(always)]
    #[must_use]
    pub fn bin_at(&self, place: BinPlace) -> &Bin {
        // SAFETY: a BinPlace is the offset of a bin, and bins are at the start of the record.
        unsafe { raw::bin_at(self, place) }
    }

    /// Like [`Heap::pop`], for a bin named by its place in the record.
    #[inline(always)]
    #[must_use]
    pub fn pop_at(&self, place: BinPlace) -> Pop {
        Self::pop_bin(self.bin_at(place))
    }

    #[inline(always)]
    fn pop_bin(bin: &Bin) -> Pop {
        let Some(block) = NonNull::new(bin.head.get()) else { return Pop::Empty };
        // SAFETY: a block on the cache's list is free and held by this thread.
        bin.head.set(unsafe { raw::behind(block.as_ptr()) });
        let ticks = bin.ticks.get().wrapping_sub(1);
        bin.ticks.set(ticks);
        if ticks == 0 { Pop::Beat(block) } else { Pop::Block(block) }
    }

    /// The bin that a route word names, if it is one of this heap's: owner check and class in one compare.
    #[inline(always)]
    #[must_use]
    pub fn own_bin(&self, route: BinPtr) -> Option<&Bin> {
        self.place_of(route).map(|place| self.bin_at(place))
    }

    #[inline(always)]
    pub(crate) fn place_of(&self, route: BinPtr) -> Option<BinPlace> {
        BinPlace::of_bin(route.addr().wrapping_sub(core::ptr::from_ref(self).addr()))
    }

    /// Whether a route word names this heap's bin of `class`: owner and size in one compare, for frees that know the size.
    #[inline(always)]
    #[must_use]
    pub fn is_own_bin(&self, route: BinPtr, class: SizeClass) -> bool {
        route.addr() == core::ptr::from_ref(self.bin(class)).addr()
    }

    /// Puts a block back on the cache. False when its room is used up: [`Front::spill`](crate::Front::spill).
    ///
    /// # Safety
    /// - `block` belongs to a slab of this bin and is held by the caller: its user has freed it.
    #[inline(always)]
    #[must_use]
    pub unsafe fn push(&self, bin: &Bin, block: NonNull<u8>) -> bool {
        let room = bin.room.get().wrapping_sub(1);
        bin.room.set(room);
        if room < 0 {
            return false;
        }
        // SAFETY: the caller holds the block; this thread holds the list.
        unsafe { raw::link_before(block.as_ptr(), bin.head.get()) };
        bin.head.set(block.as_ptr());
        true
    }

    /// Place of the bin of the slab that `address` lies in, if it is this heap's: range check, owner check and class. Not the bin:
    /// addressed off the heap pointer as the allocation does, head and counts go from one to the other inside the processor
    /// (docs/decisions/0002).
    #[inline(always)]
    #[must_use]
    pub fn own_place_at(&self, address: usize) -> Option<BinPlace> {
        self.own_at(address).map(|(place, _)| place)
    }

    /// As [`Heap::own_place_at`], with [`Heap::unit_of`] the address.
    #[inline(always)]
    #[must_use]
    pub fn own_at(&self, address: usize) -> Option<(BinPlace, usize)> {
        let (view, unit) = (self.view(), self.unit_of(address));
        if unit < view.slab_count {
            // SAFETY: the index is below the number of units.
            return unsafe { layout::place_at(self, view, unit, address) }.map(|place| (place, unit));
        }
        None
    }

    /// Index in the window of the unit that `address` lies in; beyond the window's units, where the address does.
    #[inline(always)]
    #[must_use]
    pub fn unit_of(&self, address: usize) -> usize {
        address.wrapping_sub(self.view().base) >> SLAB_SHIFT
    }

    /// State of the slab of one unit at `unit`, one of this heap's.
    #[inline(always)]
    pub(crate) fn own_state(&self, unit: usize) -> &SlabState {
        // SAFETY: what a heap owns lies in the window that it knows.
        unsafe { self.view().words.state(unit) }
    }

    /// Whether a block of this bin can begin at `address`, which lies in one of its slabs. Never true where an address alone
    /// does not tell (slabs of several units).
    #[inline(always)]
    #[must_use]
    pub fn is_step(&self, bin: &Bin, address: usize) -> bool {
        Geometry::is_step(address, bin.step.get())
    }

    /// The secret in the marks of free blocks.
    #[inline(always)]
    #[must_use]
    pub fn mark_key(&self) -> MarkKey {
        self.view().key
    }

    #[inline(always)]
    pub(crate) fn view(&self) -> &View {
        // SAFETY: written by `open` alone, before the heap's thread uses it.
        unsafe { &*self.view.as_ptr() }
    }

    /// What slow paths have noted of a class.
    #[inline]
    pub(crate) fn tally(&self, class: SizeClass) -> &ClassTally {
        match class.index().checked_sub(CLASS_COUNT) {
            // SAFETY: a SizeClass is below BIN_COUNT, so this is below the number of dynamic ones, the length of the array.
            Some(place) => unsafe { self.dynamic_tallies.get_unchecked(place) },
            // SAFETY: a class that is not dynamic is below CLASS_COUNT, the length of the array.
            None => unsafe { self.tallies.get_unchecked(class.index()) },
        }
    }

    /// The bin of a class is used for the first time.
    pub(crate) fn note_use(&self, class: SizeClass) {
        let Some(place) = class.index().checked_sub(CLASS_COUNT) else { return };
        if let Some(word) = self.dynamic_used.get(place / u64::BITS as usize) {
            word.set(word.get() | 1 << (place % u64::BITS as usize));
        }
    }

    /// Spills of a class since its last refill.
    #[inline]
    pub(crate) fn spills_of(&self, class: SizeClass) -> &Cell<u32> {
        &self.tally(class).spills
    }

    /// What has gone through a class so far, as of its last slow path. Any thread may ask.
    #[must_use]
    pub fn flow(&self, class: SizeClass) -> ClassFlow {
        let tally = self.tally(class);
        ClassFlow { allocs: self.bin(class).counts().allocs, refills: tally.refills.get(), spills: tally.spilled.get() }
    }

    /// Counts the spills that the bin has not been asked for yet. A slow path's first step, before `room` is written.
    pub(crate) fn settle(&self, bin: &Bin, class: SizeClass) {
        let taken = bin.take_spills();
        if taken != 0 {
            let spills = self.spills_of(class);
            spills.set(spills.get().saturating_add(taken));
        }
    }

    /// Every fixed class of this heap, and every dynamic one that it has ever used.
    pub fn used_classes(&self) -> impl Iterator<Item = SizeClass> {
        let words = self.dynamic_used.iter().enumerate();
        let places = words.flat_map(|(number, word)| {
            let mut left = word.get();
            core::iter::from_fn(move || {
                let place = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(CLASS_COUNT + number * u64::BITS as usize + place)
            })
        });
        SizeClass::all().chain(places.filter_map(SizeClass::from_index))
    }

    /// The same with their bins.
    pub(crate) fn classes(&self) -> impl Iterator<Item = (SizeClass, &Bin)> {
        self.used_classes().map(|class| (class, self.bin(class)))
    }

    /// The policy numbers that this heap works with.
    #[inline]
    #[must_use]
    pub fn policy(&self) -> &FrontPolicy {
        // SAFETY: the cell is written by `set_policy` alone, which no holder of this borrow calls: borrows end within
        // one step of a slow path, before anything that could enter the heap again.
        unsafe { &*self.policy.as_ptr() }
    }

    /// Works with these numbers from now on.
    #[unsafe(link_section = ".text.hot.hakmem")]
    pub fn set_policy(&self, policy: FrontPolicy) {
        self.policy.set(policy);
        for (class, bin) in self.classes() {
            if bin.is_set_up() {
                self.settle(bin, class);
                bin.set_up(&policy, class, self.first_beat(class));
            }
        }
    }

    /// Allocations of this heap so far, of all classes. For its own thread.
    #[must_use]
    pub fn allocs(&self) -> u64 {
        self.classes().map(|(_, bin)| bin.allocs.get() + u64::from(bin.passed())).sum()
    }

    /// Gets to know the window and accepts mail: called when a thread takes the record over.
    pub fn open(&self, view: View) {
        self.view.set(view);
        self.mailbox.open();
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}
