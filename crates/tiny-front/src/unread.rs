//! COLD: mail that its owner does not read.
//!
//! A thread that sleeps runs no slow path. What others free of its blocks waits in its mailbox, and its slabs stay its own: nobody
//! else may take them over. But where every block of a slab has come back nobody needs its contents, and they can go. Whoever sorts
//! the mail fetches it, takes such slabs' blocks out of their queues, lets the memory go, puts the blocks back bare (see
//! remote-queue), and posts all slabs again. An owner that wakes up meanwhile finds less mail for a moment.

use hakmem_atomic_ops::probe;
use hakmem_base::{FIRST_BLOCK_OFFSET, SLAB_BYTES, SizeClass, SlabIndex};
use hakmem_ownership::Route;
use hakmem_publish_adopt::SlabWords;
use hakmem_remote_queue::Chain;

use crate::front::{Front, Tables};
use crate::heap::Heap;
use crate::layout;
use crate::raw;

/// Slabs whose contents go together, neighbours in one call to the kernel.
const BATCH: usize = 64;

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
    /// Bytes of slabs whose memory was let go.
    pub bytes: usize,
    /// Mail waits that another look may sort.
    pub is_to_go_on: bool,
}

/// A slab whose blocks, `class`'s capacity of them, are the sorter's.
#[derive(Clone, Copy)]
struct Whole {
    slab: SlabIndex,
    class: SizeClass,
    /// Where the list of its blocks begins.
    first: *mut u8,
}

impl Whole {
    fn take(tables: &Tables, slab: SlabIndex) -> Option<Self> {
        // One whose owner has left waits for somebody to adopt it.
        let Route::Owned(bin) = tables.route_word(slab).route() else { return None };
        let class = hakmem_ownership::class_of_bin(bin)?;
        let base = tables.address_of(slab);
        let taken = tables.remote(slab).take_whole(class.geometry().capacity.into(), base)?;
        // SAFETY: the slab's memory, which is the sorter's.
        probe::writes(unsafe { raw::entry(base.cast_const(), FIRST_BLOCK_OFFSET) });
        Some(Self { slab, class, first: taken.first })
    }

    fn units(&self) -> u32 {
        self.class.geometry().units.into()
    }

    fn put_back(self, tables: &Tables, is_bare: bool) {
        let (remote, capacity) = (tables.remote(self.slab), u32::from(self.class.geometry().capacity));
        if is_bare {
            return remote.put_back_bare(capacity);
        }
        // SAFETY: the list came out of the queue, and its blocks are still the sorter's.
        let chain = unsafe { Chain::walk(self.first, capacity) };
        // SAFETY: as above.
        let _token_is_the_sorters = unsafe { remote.push(chain, tables.address_of(self.slab)) };
    }
}

impl Front {
    /// Whether a slab has come back as a whole since the last look at what owners leave unread.
    #[inline]
    #[must_use]
    pub fn has_unread(&self) -> bool {
        self.has_unread.is_set_relaxed()
    }

    /// Every block of a slab that has an owner has come back.
    pub(crate) fn note_unread(&self) {
        if !self.has_unread.is_set_relaxed() {
            // ORDERING: a hint; release only because flags have no relaxed store.
            self.has_unread.store_release(true);
        }
    }

    /// Sorts the mail of others, and lets the memory of slabs go that have come back as a whole. One thread at a time, and not
    /// during a fork: the slabs' tokens are in its hands.
    pub fn sort_unread<'h>(&self, heaps: impl Iterator<Item = &'h Heap>, which: Unread) -> Look {
        let mut look = Look::default();
        let Some(tables) = self.tables().filter(|_| layout::MAY_BE_BARE) else { return look };
        // ORDERING: a hint; before the look, so that what comes back meanwhile leads to another one.
        self.has_unread.store_release(false);
        for heap in heaps {
            let is_asleep = which == Unread::All || heap.has_slept();
            if is_asleep {
                look.bytes += self.sort_mail(tables, heap);
            }
            look.is_to_go_on |= !is_asleep && heap.mailbox.has_mail();
        }
        if look.is_to_go_on {
            self.note_unread();
        }
        look
    }

    /// Returns the bytes let go.
    fn sort_mail(&self, tables: &Tables, heap: &Heap) -> usize {
        let (mut bytes, mut batch, mut count) = (0, [None; BATCH], 0);
        for slab in heap.mailbox.fetch_unread(tables) {
            let Some(whole) = Whole::take(tables, slab) else {
                self.announce(tables, slab);
                continue;
            };
            if count == BATCH {
                bytes += self.let_go(tables, &mut batch);
                count = 0;
            }
            if let Some(place) = batch.get_mut(count) {
                *place = Some(whole);
                count += 1;
            }
        }
        bytes + self.let_go(tables, &mut batch)
    }

    /// Drops the contents of the slabs in a batch, which is empty afterwards, and posts them again. Returns the bytes let go.
    fn let_go(&self, tables: &Tables, batch: &mut [Option<Whole>]) -> usize {
        let mut bytes = 0;
        batch.sort_unstable_by_key(|place| place.map(|whole| whole.slab.get()));
        for neighbours in batch.chunk_by_mut(are_neighbours) {
            let Some(first) = neighbours.first().copied().flatten() else { continue };
            let units = neighbours.iter().flatten().map(Whole::units).sum();
            let is_bare = self.os.discard_units(first.slab, units);
            if is_bare {
                bytes += units as usize * SLAB_BYTES;
            }
            for whole in neighbours.iter_mut().filter_map(Option::take) {
                whole.put_back(tables, is_bare);
                self.announce(tables, whole.slab);
            }
        }
        bytes
    }
}

impl Heap {
    /// Whether mail waits that has waited at the last look already, and the owner has read none since.
    fn has_slept(&self) -> bool {
        let mails = if self.mailbox.has_mail() { self.counters.mails.get() + 1 } else { 0 };
        let before = self.unread_at.replace(mails);
        mails != 0 && mails == before
    }
}

fn are_neighbours(left: &Option<Whole>, right: &Option<Whole>) -> bool {
    match (left, right) {
        (Some(left), Some(right)) => left.slab.add(left.units()) == right.slab,
        _ => false,
    }
}
