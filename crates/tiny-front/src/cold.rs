//! COLD: slabs change hands. The one adoption boundary, fresh slabs, slabs that are given back.

use hakmem_base::{FIRST_BLOCK_OFFSET, SizeClass, SlabIndex, fatal, invariant};
use hakmem_ownership::Acquired;
use hakmem_publish_adopt::SlabWords;
use hakmem_remote_queue::TokenReleased;

use crate::bin::Bin;
use crate::front::{Front, Tables};
use crate::heap::Heap;
use crate::layout;
use crate::remote::drain_to_free_list;
use crate::ring::RingEvent;
use crate::warm::Keep;

/// Published slabs looked at per refill, unless adoption is a must.
const ADOPT_TRIES: u32 = 2;
/// Bytes freed to orphans before published slabs are searched for empty ones.
const REAP_BYTES: u64 = 1 << 20;

impl Front {
    /// Takes over a published slab of `class`: `drain -> bind -> acquire`, in this order and only here.
    ///
    /// Until the acquire the token, which came with the slab, is what makes this thread the only one to touch its state;
    /// it is given back last, so that no stranger can publish the slab a second time in between.
    pub(crate) fn adopt(&self, tables: &Tables, heap: &Heap, bin: &Bin, class: SizeClass, must: bool) -> bool {
        invariant!(bin.carve.get() == 0, "slab is adopted while one waits to be carved");
        let mut tries = ADOPT_TRIES;
        while let Some(slab) = self.published.take(tables, class) {
            self.ring.record(RingEvent::MailboxFetch, slab, 1);
            let state = tables.state(slab);
            // Drain.
            self.drain_orphan(tables, class, slab);
            let can_carve = state.carved() < u32::from(class.geometry().capacity);
            if !state.has_free() && !can_carve {
                if tables.remote(slab).release_token() == TokenReleased::MoreFrees {
                    self.published.publish(tables, class, slab);
                }
                tries = tries.saturating_sub(1);
                if tries == 0 && !must {
                    return false;
                }
                continue;
            }
            // Bind.
            self.orphan_slabs.sub_relaxed(1);
            self.orphan_bytes.sub_relaxed(bytes_out(tables, class, slab));
            bin.delivered.add(state.used());
            if state.has_free() {
                tables.list(&bin.partial).push_back(slab);
            } else {
                tables.list(&bin.full).push_back(slab);
            }
            if can_carve {
                bin.carve.set(slab.get());
            }
            let first = tables.address_of(slab).wrapping_add(FIRST_BLOCK_OFFSET);
            // SAFETY: the slab's blocks, of which those that have been carved have headers where there are any.
            unsafe { heap.view().label.put_on(class, first, state.carved()) };
            // Acquire.
            if tables.route_word(slab).try_acquire(class, heap.bin_ptr(class)) == Acquired::Lost {
                fatal("adopted slab has an owner");
            }
            for unit in 1..u32::from(class.geometry().units) {
                tables.route_word(slab.add(unit)).bind(heap.bin_ptr(class));
            }
            heap.counters.adopts.add(1);
            self.ring.record(RingEvent::Bind, slab, state.carved() - state.used());
            self.settle_token(tables, heap, bin, class, slab);
            return true;
        }
        false
    }

    /// Takes a fresh slab from the superslab box.
    pub(crate) fn fresh_slab(&self, tables: &Tables, heap: &Heap, bin: &Bin, class: SizeClass) -> bool {
        let units = u32::from(class.geometry().units);
        self.trim_before_growth(tables, heap);
        // A thread that does what another one did touches the same OS pages of its slabs, and no further ones.
        let Some(run) = self.os.take_run_again(units, self.last_place(class)) else { return false };
        let slab = run.first;
        layout::begin(tables, slab, units);
        invariant!(tables.remote(slab).is_quiet(), "fresh slab with remote frees");
        tables.state(slab).reset();
        tables.route_word(slab).bind(heap.bin_ptr(class));
        for unit in 1..units {
            tables.state(slab.add(unit)).mark_tail(unit);
            tables.route_word(slab.add(unit)).bind(heap.bin_ptr(class));
        }
        tables.list(&bin.full).push_back(slab);
        bin.carve.set(slab.get());
        heap.counters.fresh_slabs.add(1);
        true
    }

    /// None of the slab's blocks is out: carve it again from the start, or give it back.
    #[unsafe(link_section = ".text.hot.hakmem")]
    pub(crate) fn slab_is_empty(
        &self,
        tables: &Tables,
        heap: &Heap,
        bin: &Bin,
        class: SizeClass,
        slab: SlabIndex,
        keep: Keep,
    ) {
        let state = tables.state(slab);
        invariant!(state.used() == 0, "slab is not empty");
        let other_carve = bin.carve.get() != 0 && bin.carve.get() != slab.get();
        let small = class.geometry().units == 1;
        if keep == Keep::Policy && small && !other_carve && heap.policy().keep_empty_slabs {
            if state.has_free() {
                tables.list(&bin.partial).remove(slab);
                tables.list(&bin.full).push_back(slab);
            }
            state.uncarve();
            bin.carve.set(slab.get());
            return;
        }
        // Whatever the policy says: a stranger may be about to post the slab. Whoever reads that mail comes back here.
        if !tables.remote(slab).is_quiet() {
            heap.counters.guarded_slabs.add(1);
            return;
        }
        if bin.carve.get() == slab.get() {
            bin.carve.set(0);
        }
        tables.list(if state.has_free() { &bin.partial } else { &bin.full }).remove(slab);
        if cfg!(debug_assertions) || heap.policy().slab_reuse_guard {
            check_whole(tables, class, slab);
        }
        heap.counters.retired_slabs.add(1);
        self.give_back(tables, class, slab);
    }

    /// Gives an empty slab, which is in no list and whose queue is quiet, back to the superslab box.
    pub(crate) fn give_back(&self, tables: &Tables, class: SizeClass, slab: SlabIndex) {
        let units = u32::from(class.geometry().units);
        for unit in 0..units {
            tables.state(slab.add(unit)).reset();
            tables.route_word(slab.add(unit)).retire();
        }
        layout::end(tables, slab, units);
        self.set_last_place(class, slab);
        self.os.give_run(slab, units);
    }

    /// Gives back the token of a slab that this heap owns; what arrives meanwhile is drained.
    pub(crate) fn settle_token(&self, tables: &Tables, heap: &Heap, bin: &Bin, class: SizeClass, slab: SlabIndex) {
        while tables.remote(slab).release_token() == TokenReleased::MoreFrees {
            self.drain(tables, heap, bin, class, slab);
        }
    }

    /// Gives back published slabs that have become empty. One thread at a time; the others go on.
    pub(crate) fn reap(&self, tables: &Tables) -> u32 {
        // ORDERING: pairs with the store at the end. It decides who reaps; what is known of a slab travels with its token.
        if !self.reaping.try_set_acq_rel() {
            return 0;
        }
        self.orphan_freed.store_relaxed(0);
        let mut reaped = 0;
        for class in SizeClass::all().chain(self.classes.ever_in_force().iter()) {
            let mut kept = None;
            for _ in 0..self.published.count(class) {
                let Some(slab) = self.published.take(tables, class) else { break };
                self.drain_orphan(tables, class, slab);
                if self.retire_orphan(tables, class, slab) {
                    reaped += 1;
                } else {
                    // Not yet back: the published slabs are a stack, whose next one would be this one again.
                    tables.remote(slab).set_link(kept);
                    kept = Some(slab);
                }
            }
            while let Some(slab) = kept {
                kept = tables.remote(slab).link();
                self.published.publish(tables, class, slab);
            }
        }
        // ORDERING: pairs with the claim above.
        self.reaping.store_release(false);
        reaped
    }

    /// Gives an orphan, whose token the caller holds, back if none of its blocks is out. False: the caller still holds the token.
    fn retire_orphan(&self, tables: &Tables, class: SizeClass, slab: SlabIndex) -> bool {
        if tables.state(slab).used() != 0 || tables.remote(slab).release_token() == TokenReleased::MoreFrees {
            return false;
        }
        self.orphan_slabs.sub_relaxed(1);
        self.give_back(tables, class, slab);
        true
    }

    /// Moves the remote frees of an orphan, whose token the caller holds, to its free list.
    fn drain_orphan(&self, tables: &Tables, class: SizeClass, slab: SlabIndex) {
        let count = drain_to_free_list(tables, slab);
        self.ring.record(RingEvent::RemoteDrain, slab, count);
        self.orphan_bytes.sub_relaxed(u64::from(count) * class.block_bytes() as u64);
    }

    /// Counts bytes freed to slabs without an owner, those of a slab that is free as a whole; now and then that is a reason to look for
    /// empty ones.
    pub(crate) fn freed_to_orphan(&self, tables: &Tables, bytes: u64) {
        let freed = self.orphan_freed.add_relaxed(bytes) + bytes;
        let share = u64::from(self.orphan_slabs.load_relaxed()) * (hakmem_base::SLAB_BYTES as u64 / 4);
        if freed >= REAP_BYTES.max(share) {
            self.reap(tables);
        }
    }

    /// The owner leaves: the slab stays behind without one, and is published if it has something to offer.
    pub(crate) fn release_slab(&self, tables: &Tables, heap: &Heap, class: SizeClass, slab: SlabIndex) {
        let state = tables.state(slab);
        let offers = state.has_free() || state.carved() < u32::from(class.geometry().capacity);
        self.orphan_slabs.add_relaxed(1);
        self.orphan_bytes.add_relaxed(bytes_out(tables, class, slab));
        heap.counters.released_slabs.add(1);
        let remote = tables.remote(slab);
        // Before the route says so: an orphan whose token is free may be emptied, reaped and reused by strangers at once.
        let is_held = remote.try_take_token();
        for unit in (0..u32::from(class.geometry().units)).rev() {
            tables.route_word(slab.add(unit)).release(class);
        }
        // From here on the state belongs to whoever holds the token.
        if is_held && (offers || remote.release_token() == TokenReleased::MoreFrees) {
            self.announce(tables, slab);
        }
    }
}

/// Bytes of the slab's blocks that are out.
fn bytes_out(tables: &Tables, class: SizeClass, slab: SlabIndex) -> u64 {
    u64::from(tables.state(slab).used()) * class.block_bytes() as u64
}

/// Slab-reuse guard: every carved block of a slab that is given back is on its free list.
fn check_whole(tables: &Tables, class: SizeClass, slab: SlabIndex) {
    let (mut count, mut block) = (0, tables.first_free(slab));
    let base = tables.address_of(slab).addr();
    while !block.is_null() && count <= u32::from(class.geometry().capacity) {
        let offset = block.addr().wrapping_sub(base) as u32;
        if class.geometry().block_at(offset).is_none() {
            tables.fatal_in_slab("free list of a slab leads outside it", block.addr());
        }
        count += 1;
        // SAFETY: the block is on the free list of a slab that the caller holds.
        block = unsafe { crate::raw::behind(block) };
    }
    if count != tables.state(slab).carved() {
        tables.fatal_in_slab("slab is given back while blocks of it are elsewhere", base);
    }
}
