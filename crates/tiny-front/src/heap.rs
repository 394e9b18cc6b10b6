//! HOT: one thread's heap and the two operations that programs spend their time in.
//!
//! Nothing here locks, calls, looks anything up beyond the route word, or exchanges atomically. What does not fit goes
//! to `warm.rs` (refill, overflow), `remote.rs` (other threads' blocks) and `cold.rs` (slabs change hands).

use core::cell::Cell;
use core::ptr::NonNull;
use hakmem_base::{BIN_BYTES, CLASS_COUNT, SizeClass};
use hakmem_ownership::BinPtr;
use hakmem_publish_adopt::Mailbox;
use hakmem_remote_queue::Outbox;
use static_assertions::const_assert_eq;

use crate::bin::Bin;
use crate::counters::FrontCounters;
use crate::policy::FrontPolicy;
use crate::raw;

/// One thread's bins, outbox and mailbox. Lives at the start of an 8 KiB-aligned record that is recycled, never unmapped.
///
/// Cells, not `&mut`: a slow path may allocate (a policy pick-up does), which enters the heap again.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Heap {
    bins: [Bin; CLASS_COUNT],
    /// Slabs of this heap that received remote frees. Written by strangers.
    pub(crate) mailbox: Mailbox,
    pub(crate) outbox: Outbox,
    pub(crate) policy: Cell<FrontPolicy>,
    /// Counters of this heap's slow paths.
    pub counters: FrontCounters,
    /// Heartbeats since the last idle trim.
    pub(crate) beats_since_trim: Cell<u32>,
    /// Low bits of each class's allocation count at the last idle trim.
    pub(crate) trimmed_at: [Cell<u32>; CLASS_COUNT],
}

// Bins are at the start of the record: a route word's offset in its record gives the class.
const_assert_eq!(core::mem::offset_of!(Heap, bins), 0);

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
            bins: [const { Bin::new() }; CLASS_COUNT],
            mailbox: Mailbox::new(),
            outbox: Outbox::new(),
            policy: Cell::new(FrontPolicy::DEFAULT),
            counters: FrontCounters::new(),
            beats_since_trim: Cell::new(0),
            trimmed_at: [const { Cell::new(0) }; CLASS_COUNT],
        }
    }

    /// The bin of a class.
    #[inline(always)]
    #[must_use]
    pub fn bin(&self, class: SizeClass) -> &Bin {
        // SAFETY: a SizeClass is below CLASS_COUNT, the length of the array.
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
        let bin = self.bin(class);
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
        let offset = route.addr().wrapping_sub(core::ptr::from_ref(self).addr());
        if offset < CLASS_COUNT * BIN_BYTES {
            // SAFETY: the word lies inside this heap's bins.
            Some(unsafe { raw::own_bin(route) })
        } else {
            None
        }
    }

    /// Whether a route word names this heap's bin of `class`: owner and size in one compare, for frees that know the size.
    #[inline(always)]
    #[must_use]
    pub fn is_own_bin(&self, route: BinPtr, class: SizeClass) -> bool {
        route.addr() == core::ptr::from_ref(self.bin(class)).addr()
    }

    /// Puts a block back on the cache. False when its room is used up: [`Front::spill_slow`](crate::Front::spill_slow).
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

    /// Whether `block` is the newest block of the cache: it has just been freed.
    #[inline(always)]
    #[must_use]
    pub fn is_newest(&self, bin: &Bin, block: NonNull<u8>) -> bool {
        bin.head.get() == block.as_ptr()
    }

    /// Every class of this heap with its bin.
    pub(crate) fn classes(&self) -> impl Iterator<Item = (SizeClass, &Bin)> {
        SizeClass::all().map(|class| (class, self.bin(class)))
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
    pub fn set_policy(&self, policy: FrontPolicy) {
        self.policy.set(policy);
        for (class, bin) in self.classes() {
            if bin.is_set_up() {
                bin.set_up(&policy, class);
            }
        }
    }

    /// Accepts mail: called when a thread takes the record over.
    pub fn open(&self) {
        self.mailbox.open();
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}
