//! COLD: mail that its owner does not read.
//!
//! A thread that sleeps runs no slow path. What others free of its blocks waits in its mailbox, and its slabs stay its own: nobody
//! else may take them over. But where every block of a slab has come back nobody needs its contents, and they can go. Whoever sorts
//! the mail fetches it, takes such slabs' blocks out of their queues, lets the memory go, puts the blocks back bare (see
//! remote-queue), and posts all slabs again. An owner that wakes up meanwhile finds less mail for a moment.

use hakmem_atomic_ops::probe;
use hakmem_base::{FIRST_BLOCK_OFFSET, SLAB_BYTES, SizeClass, SlabIndex};
use hakmem_ownership::Route;
use hakmem_publish_adopt::{Mailbox, SlabWords};

use crate::front::{Front, Tables};
use crate::heap::Heap;
use crate::layout;
use crate::raw;

/// Slabs whose contents go together, neighbours in one call to the kernel.
const BATCH: usize = 64;
/// Bytes that one look lets go at most, some ten milliseconds: so long a fork waits, and a waking owner misses its mail.
const LOOK_BYTES: usize = 256 << 20;

/// Which mail is sorted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unread {
    /// That of owners who have read none since the last look, at which some waited.
    SinceLastLook,
    /// All there is.
    All,
}

/// What a look at the mail of others found.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[must_use]
pub struct Look {
    /// Bytes of slabs that nobody needs any more; their memory was let go, unless the kernel refused.
    pub bytes: usize,
    /// The look ended before the mail did.
    pub is_cut_short: bool,
}

/// A slab whose blocks, all that `class` has, are the sorter's.
#[derive(Clone, Copy)]
struct Whole {
    slab: SlabIndex,
    class: SizeClass,
}

impl Whole {
    fn take(tables: &Tables, slab: SlabIndex) -> Option<Self> {
        // One whose owner has left waits for somebody to adopt it.
        let Route::Owned(bin) = tables.route_word(slab).route() else { return None };
        let class = hakmem_ownership::class_of_bin(bin)?;
        if !tables.remote(slab).take_whole(class.geometry().capacity.into()) {
            return None;
        }
        // SAFETY: the slab's memory, which is the sorter's.
        probe::writes(unsafe { raw::entry(tables.address_of(slab).cast_const(), FIRST_BLOCK_OFFSET) });
        Some(Self { slab, class })
    }

    fn units(&self) -> u32 {
        self.class.geometry().units.into()
    }
}

impl Front {
    /// Whether a slab has come back as a whole since the last look at what owners leave unread.
    #[inline]
    #[must_use]
    pub fn has_unread(&self) -> bool {
        self.has_unread.is_set_relaxed()
    }

    /// Every block of a slab of the mailbox's owner has come back.
    pub(crate) fn note_whole(&self, mailbox: &Mailbox) {
        if layout::MAY_BE_BARE {
            mailbox.set_has_whole(true);
            self.set_has_unread(true);
        }
    }

    fn set_has_unread(&self, has_unread: bool) {
        if self.has_unread.is_set_relaxed() != has_unread {
            // ORDERING: a hint; release only because flags have no relaxed store.
            self.has_unread.store_release(has_unread);
        }
    }

    /// Sorts the mail of others, and lets the memory of slabs go that have come back as a whole. One thread at a time, whose notes
    /// of a heap the next look needs, and not during a fork: the slabs' tokens are in its hands.
    pub fn sort_unread<'h>(&self, heaps: impl Iterator<Item = &'h Heap>, which: Unread) -> Look {
        let mut look = Look::default();
        let Some(tables) = self.tables() else { return look };
        // Before the look, so that what comes back meanwhile leads to another one.
        self.set_has_unread(false);
        let mut waits = false;
        for heap in heaps.filter(|heap| heap.mailbox.has_whole()) {
            if which == Unread::All || heap.has_slept() {
                heap.mailbox.set_has_whole(false);
                self.sort_mail(tables, heap, &mut look);
            } else if !heap.mailbox.has_mail() {
                // Its owner has read it, or left.
                heap.mailbox.set_has_whole(false);
            }
            waits |= heap.mailbox.has_whole();
        }
        if waits {
            self.set_has_unread(true);
        }
        look
    }

    fn sort_mail(&self, tables: &Tables, heap: &Heap, look: &mut Look) {
        let (mut batch, mut count) = ([None; BATCH], 0);
        for slab in heap.mailbox.fetch_unread(tables) {
            let whole = if look.is_cut_short { None } else { Whole::take(tables, slab) };
            let Some(whole) = whole else {
                self.announce(tables, slab);
                continue;
            };
            if let Some(place) = batch.get_mut(count) {
                *place = Some(whole);
                count += 1;
            }
            if count == BATCH {
                look.bytes += self.let_go(tables, &mut batch);
                look.is_cut_short = look.bytes >= LOOK_BYTES;
                count = 0;
            }
        }
        look.bytes += self.let_go(tables, &mut batch);
        if look.is_cut_short {
            heap.mailbox.set_has_whole(true);
        }
    }

    /// Drops the contents of the slabs in a batch, which is empty afterwards, and posts them again. Returns their bytes.
    fn let_go(&self, tables: &Tables, batch: &mut [Option<Whole>]) -> usize {
        let mut bytes = 0;
        batch.sort_unstable_by_key(|place| place.map(|whole| whole.slab.get()));
        for neighbours in batch.chunk_by_mut(are_neighbours) {
            let Some(first) = neighbours.first().copied().flatten() else { continue };
            let units = neighbours.iter().flatten().map(Whole::units).sum();
            // Refused or done in part (a page is locked): nobody needs what is left.
            let _is_done = self.os.discard_units(first.slab, units);
            for whole in neighbours.iter_mut().filter_map(Option::take) {
                let slab_bytes = whole.units() as usize * SLAB_BYTES;
                bytes += slab_bytes;
                tables.remote(whole.slab).put_back_bare(whole.class.geometry().capacity.into());
                self.announce(tables, whole.slab);
                if tables.route_word(whole.slab).owner().is_none() {
                    // Its owner has left meanwhile: somebody has to look for it.
                    self.freed_to_orphan(tables, slab_bytes as u64);
                }
            }
        }
        bytes
    }
}

impl Heap {
    /// Whether mail waits that has waited at the last look already, and the owner has read none since.
    fn has_slept(&self) -> bool {
        let mails = if self.mailbox.has_mail() { self.counters.mails.get() + 1 } else { 0 };
        let before = self.unread_at.get();
        self.unread_at.set(mails);
        mails != 0 && mails == before
    }
}

fn are_neighbours(left: &Option<Whole>, right: &Option<Whole>) -> bool {
    match (left, right) {
        (Some(left), Some(right)) => left.slab.add(left.units()) == right.slab,
        _ => false,
    }
}
