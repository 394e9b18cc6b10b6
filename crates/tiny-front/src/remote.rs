//! Blocks that other threads own: out through the outbox, in through mail and drain.

use core::ptr::NonNull;
use hakmem_base::{SLAB_BYTES, SizeClass, SlabIndex, invariant};
use hakmem_ownership::Route;
use hakmem_publish_adopt::{SlabWords, notify};
use hakmem_remote_queue::Chain;

use crate::bin::Bin;
use crate::front::{Front, Tables};
use crate::heap::Heap;
use crate::raw;
use crate::ring::RingEvent;
use crate::warm::{Keep, check_block, full_to_partial};

impl Front {
    /// The slab of `class` that `block` lies in. Reports a pointer that is not the start of one of its blocks.
    #[inline]
    #[must_use]
    pub fn slab_of(&self, class: SizeClass, block: NonNull<u8>) -> Option<SlabIndex> {
        let tables = self.tables()?;
        let slab = tables.head_of(tables.unit_of(block.addr().get()), class);
        check_block(tables, slab, class, block);
        Some(slab)
    }

    /// Frees a block of a slab that the caller does not own. With a heap it is collected in the outbox, without one it is
    /// handed over at once. True if something was handed over: memory may have become purgeable.
    ///
    /// # Safety
    /// - `block` is a block of `slab`, a slab of `class`, and its user hands it back.
    #[inline]
    #[unsafe(link_section = ".text.hot.hakmem.long")]
    pub unsafe fn free_remote(
        &self,
        heap: Option<&Heap>,
        slab: SlabIndex,
        class: SizeClass,
        block: NonNull<u8>,
    ) -> bool {
        let Some(heap) = heap else {
            self.heapless_frees.add_relaxed(1);
            self.hand_over_slow(slab, Chain { first: block.as_ptr(), last: block.as_ptr(), count: 1 });
            return true;
        };
        heap.counters.remote_frees.add(1);
        crate::warm::count_flatten_fallbacks(heap, class, 1);
        let limit = heap.policy().outbox_limit(class);
        // SAFETY: the block is its user's no longer, and on no list.
        let Some((slab, chain)) = (unsafe { heap.outbox.add(slab, block.as_ptr(), limit) }) else { return false };
        heap.counters.remote_pushes.add(1);
        self.hand_over_slow(slab, chain);
        true
    }

    #[cold]
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.hakmem.long")]
    fn hand_over_slow(&self, slab: SlabIndex, chain: Chain) {
        if let Some(tables) = self.tables() {
            self.hand_over(tables, slab, chain);
        }
    }

    /// Pushes a chain to its slab's remote queue, and notifies when the push took the token.
    #[unsafe(link_section = ".text.hot.hakmem.long")]
    fn hand_over(&self, tables: &Tables, slab: SlabIndex, chain: Chain) {
        // SAFETY: chains come from an outbox, or are a single checked block: they belong to this slab.
        let pushed = unsafe { tables.remote(slab).push(chain, tables.address_of(slab)) };
        self.ring.record(RingEvent::RemotePush, slab, chain.count);
        if pushed.token_taken {
            self.announce(tables, slab);
        }
        match tables.route_word(slab).route() {
            Route::Owned(bin) => {
                let class = hakmem_ownership::class_of_bin(bin);
                if class.is_some_and(|class| pushed.count == u32::from(class.geometry().capacity)) {
                    self.note_whole(tables.mailbox_of(bin));
                }
            }
            Route::Orphan(class) => {
                // With the last of its blocks all of the slab is free, however few there were.
                let is_free = pushed.count >= tables.state(slab).used_perhaps();
                let slab_bytes = u64::from(class.geometry().units) * SLAB_BYTES as u64;
                let chain_bytes = u64::from(chain.count) * class.block_bytes() as u64;
                self.freed_to_orphan(tables, if is_free { slab_bytes } else { chain_bytes });
            }
            _ => {}
        }
    }

    /// Delivers the token of `slab`, which the caller holds.
    pub(crate) fn announce(&self, tables: &Tables, slab: SlabIndex) {
        self.ring.record(RingEvent::MailboxPublish, slab, tables.remote(slab).count());
        notify(tables, &self.published, slab);
    }

    /// Hands over everything that the heap has collected for others.
    pub fn flush_outbox(&self, heap: &Heap) {
        let Some(tables) = self.tables() else { return };
        while let Some((slab, chain)) = heap.outbox.take_any() {
            heap.counters.remote_pushes.add(1);
            self.hand_over(tables, slab, chain);
        }
    }

    /// Drains the slabs that strangers have posted to this heap.
    #[unsafe(link_section = ".text.hot.hakmem.long")]
    pub(crate) fn read_mail(&self, tables: &Tables, heap: &Heap) {
        for slab in heap.mailbox.fetch(tables) {
            self.receive(tables, heap, slab);
        }
    }

    /// One mailed slab with its token: drained if it is this heap's, else passed on.
    pub(crate) fn receive(&self, tables: &Tables, heap: &Heap, slab: SlabIndex) {
        heap.counters.mails.add(1);
        self.ring.record(RingEvent::MailboxFetch, slab, 1);
        let Some((bin, class)) = own_slab(tables, heap, slab) else {
            return self.announce(tables, slab);
        };
        self.drain(tables, heap, bin, class, slab);
        self.settle_token(tables, heap, bin, class, slab);
        if tables.state(slab).used() == 0 && bin.carve.get() != slab.get() {
            self.slab_is_empty(tables, heap, bin, class, slab, Keep::Policy);
        }
    }

    /// Moves the remote frees of a slab that this heap owns to its free list.
    pub(crate) fn drain(&self, tables: &Tables, heap: &Heap, bin: &Bin, class: SizeClass, slab: SlabIndex) {
        invariant!(tables.route_word(slab).is_mine(heap.bin_ptr(class)), "drain of somebody else's slab");
        let was_full = !tables.state(slab).has_free();
        let count = drain_to_free_list(tables, slab);
        if count == 0 {
            return;
        }
        self.ring.record(RingEvent::RemoteDrain, slab, count);
        bin.delivered.sub(count);
        heap.counters.drained_blocks.add(u64::from(count));
        // One that has come back without its contents has none to offer.
        if was_full && tables.state(slab).has_free() {
            full_to_partial(tables, bin, slab);
        }
    }

    /// `force_notify`: finds remote frees that no mail announced. Counted; there should be none.
    pub(crate) fn look_for_missed_frees(&self, tables: &Tables, heap: &Heap, bin: &Bin, class: SizeClass) {
        let mut missed = None;
        tables.list(&bin.full).for_each(|slab| {
            if missed.is_none() && tables.remote(slab).count() != 0 && tables.remote(slab).try_take_token() {
                missed = Some(slab);
            }
        });
        if let Some(slab) = missed {
            heap.counters.missed_notifications.add(1);
            self.drain(tables, heap, bin, class, slab);
            self.settle_token(tables, heap, bin, class, slab);
        }
    }
}

/// The bin of a slab, if `heap` owns it.
fn own_slab<'h>(tables: &Tables, heap: &'h Heap, slab: SlabIndex) -> Option<(&'h Bin, SizeClass)> {
    let word = tables.route_word(slab).bits();
    let bin = heap.own_bin(word)?;
    Some((bin, hakmem_ownership::class_of_bin(word)?))
}

/// Drain: all queued blocks of a slab move to its free list, by whoever owns it or holds an orphan's token; a slab whose blocks
/// are bare is one that has carved none. The only place where remote frees are merged. Returns how many they were.
#[unsafe(link_section = ".text.hot.hakmem.long")]
pub(crate) fn drain_to_free_list(tables: &Tables, slab: SlabIndex) -> u32 {
    let drained = tables.remote(slab).drain(tables.address_of(slab));
    if drained.count == 0 {
        return 0;
    }
    let state = tables.state(slab);
    if drained.is_bare() {
        if state.take_back(drained.count) != Some(0) {
            tables.fatal_in_slab("double free by another thread", tables.address_of(slab).addr());
        }
        state.uncarve();
        return drained.count;
    }
    let first = tables.first_free(slab);
    if !first.is_null() {
        // SAFETY: the drained chain is this thread's now, `count` blocks long.
        let chain = unsafe { Chain::walk(drained.first, drained.count) };
        // SAFETY: as above; the last block's link takes the old list behind it.
        unsafe { raw::link_before(chain.last, first) };
    }
    tables.set_first_free(slab, drained.first);
    if state.take_back(drained.count).is_none() {
        tables.fatal_in_slab("double free by another thread", drained.first.addr());
    }
    drained.count
}
