//! WARM: the cache is empty or full. One slab's whole free list in, or one block back to its slab; no list is walked, but
//! once at the beginning of a long run of frees.

use core::ptr::NonNull;
use hakmem_base::{
    BinPlace, FIRST_BLOCK_OFFSET, SLAB_BYTES, SizeClass, SlabIndex, client_check, fatal_ptr_class, invariant,
};

use crate::bin::Bin;
use crate::front::{Front, Tables};
use crate::heap::{Heap, Pop};
use crate::raw;
use crate::slab_state::Pushed;

/// Spills without a refill, in caps, after which the cache is taken to be of no use at present.
const SPILL_RUN: u32 = 4;
/// How much smaller the cap becomes then, and where that ends (blocks).
const SHRINK: u16 = 4;
const SMALLEST_CAP: u16 = 2;
/// Part of the first cap that a class begins with after such a run.
const LEFT_AFTER_RUN: u16 = 32;

impl Front {
    /// The cache of `class` is empty: fills it from the nearest supply and takes a block. `None` when out of memory. The caller
    /// asks [`Heap::is_at_beat`] afterwards: with distances between heartbeats as short as samples want them, the block taken
    /// may be the last one before a heartbeat.
    ///
    /// Order of supplies: own free lists, own mail, fresh blocks of the slab being carved, published slabs, a fresh slab.
    #[cold]
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.hakmem")]
    pub fn refill_slow(&self, heap: &Heap, class: SizeClass) -> Option<NonNull<u8>> {
        let tables = self.tables()?;
        let bin = heap.bin(class);
        // A nested allocation, of the registration or of the start of a thread, may have filled the cache already.
        match heap.pop(class) {
            Pop::Block(block) | Pop::Beat(block) => return Some(block),
            Pop::Empty => {}
        }
        if bin.is_set_up() {
            heap.rewind(bin, class);
            adapt_cap(heap, bin, class);
        } else {
            heap.note_use(class);
            bin.set_up(heap.policy(), class, heap.first_beat(class));
        }
        heap.counters.refills.add(1);
        heap.tally(class).refills.add(1);
        count_flatten_fallbacks(heap, class, 1);
        if self.supply(tables, heap, bin, class) {
            match heap.pop(class) {
                Pop::Block(block) | Pop::Beat(block) => return Some(block),
                Pop::Empty => {}
            }
        }
        let borrowed = self.borrow(heap, class);
        if borrowed.is_none() {
            heap.counters.out_of_memory.add(1);
        }
        borrowed
    }

    fn supply(&self, tables: &Tables, heap: &Heap, bin: &Bin, class: SizeClass) -> bool {
        if take_partial(tables, bin) {
            return true;
        }
        if heap.mailbox.has_mail() {
            self.read_mail(tables, heap);
            if take_partial(tables, bin) {
                return true;
            }
        }
        if carve(tables, heap, bin, class) {
            return true;
        }
        self.flush_outbox(heap);
        let policy = heap.policy();
        if policy.force_notify {
            self.look_for_missed_frees(tables, heap, bin, class);
            if take_partial(tables, bin) {
                return true;
            }
        }
        let adopted = policy.publish_adopt && self.adopt(tables, heap, bin, class, policy.must_adopt);
        if !adopted && !self.fresh_slab(tables, heap, bin, class) {
            return false;
        }
        take_partial(tables, bin) || carve(tables, heap, bin, class)
    }

    /// No memory for a slab of this class: a larger class's cache may have a block, if the rounding limit W_MAX allows it.
    fn borrow(&self, heap: &Heap, class: SizeClass) -> Option<NonNull<u8>> {
        let limit = class.block_bytes() as u64 * u64::from(heap.policy().w_max_permille) / 1000;
        let is_larger = |other: &SizeClass| other.block_bytes() > class.block_bytes();
        for larger in SizeClass::all().skip(class.fixed().index()).filter(is_larger) {
            if larger.block_bytes() as u64 > limit {
                return None;
            }
            // Blocks of a class are aligned to the largest power of two that divides its size.
            if larger.block_bytes().trailing_zeros() < class.block_bytes().trailing_zeros() {
                continue;
            }
            let popped = heap.pop(larger);
            if let Pop::Beat(_) = popped {
                heap.settle(heap.bin(larger), larger);
                heap.bin(larger).wind_up(heap.next_beat(larger));
            }
            if let Pop::Block(block) | Pop::Beat(block) = popped {
                heap.counters.borrowed.add(1);
                return Some(block);
            }
        }
        None
    }

    /// The cache's room is used up: returns this one block to its slab and leaves the cache alone, where that is a matter of a
    /// few words. False if nothing was done: [`Front::spill_slow`]. A program that frees a large structure comes here with
    /// every block, so this is written like a fast path: beside the block two words are written, of which [`Heap::push`] wrote one.
    /// `is_step`: the caller knows from [`Heap::is_step`] that a block begins there. Rust's short strings are blocks of 8 bytes, of
    /// which no step tells.
    ///
    /// # Safety
    /// - `block` is a block of a slab that `heap` owns, handed back by its user, in `unit` ([`Heap::unit_of`]); `place` is that of its
    ///   bin, whose room [`Heap::push`] has just taken below zero.
    #[inline(always)]
    #[must_use]
    pub unsafe fn spill(&self, heap: &Heap, place: BinPlace, unit: usize, block: NonNull<u8>, is_step: bool) -> bool {
        let (bin, address) = (heap.bin_at(place), block.addr().get());
        let begins = is_step || heap.is_step(bin, address) || place.class().is_unmarked_start(address);
        if !begins || bin.may_have_room() || bin.has_many_spills() {
            return false;
        }
        // SAFETY: the caller's block, on no list; where an address tells that a block begins there, the slab is one unit.
        unsafe { return_between(heap, unit, block) }
    }

    /// What [`Front::spill`] did not decide: the cache has room after all, or the block is its slab's first free one, or the last
    /// one out, or goes to a slab of several units, or something is wrong with it; or a run of spills is to be judged. True if
    /// memory may have become purgeable.
    ///
    /// # Safety
    /// - As for [`Front::spill`], which has just said no.
    #[must_use]
    #[unsafe(link_section = ".text.hot.hakmem")]
    pub unsafe fn spill_slow(&self, heap: &Heap, bin: &Bin, class: SizeClass, block: NonNull<u8>) -> bool {
        bin.take_push_back();
        heap.settle(bin, class);
        if bin.has_room_after_all() {
            // SAFETY: the caller's block, not yet on any list.
            let _pushed = unsafe { heap.push(bin, block) };
            return false;
        }
        let spills = heap.spills_of(class);
        spills.set(spills.get().saturating_add(1));
        let Some(tables) = self.tables() else { return false };
        // SAFETY: the caller's block, not yet on any list.
        let emptied = unsafe { return_block(tables, heap, bin, class, block) };
        if let Some(slab) = emptied {
            self.slab_is_empty(tables, heap, bin, class, slab, Keep::Policy);
        }
        if is_long_run(heap, bin, class) {
            self.empty_in_free_run(tables, heap, bin, class);
        }
        emptied.is_some()
    }

    /// The program has freed many times what the cache holds, and allocated nothing from it: the cached blocks would only
    /// keep slabs from becoming empty. They go back, and fewer are kept until the next refill.
    #[cold]
    #[inline(never)]
    fn empty_in_free_run(&self, tables: &Tables, heap: &Heap, bin: &Bin, class: SizeClass) {
        bin.cap.set((bin.cap.get() / SHRINK).max(SMALLEST_CAP));
        self.flush_bin(tables, heap, bin, class, Keep::Policy);
    }
}

/// Whether the spills since the last refill are so many that the cached blocks go back as well, with what is left of the cap.
///
/// It takes [`SPILL_RUN`] first caps of them, and for each step down a run of that step's cap more.
fn is_long_run(heap: &Heap, bin: &Bin, class: SizeClass) -> bool {
    let (cap, first) = (u32::from(bin.cap.get()), u32::from(heap.policy().initial_cap(class)));
    // With the smallest cap there is nothing left to empty.
    if cap <= u32::from(SMALLEST_CAP) || !heap.policy().cache_growth {
        return false;
    }
    let steps_down = first.saturating_sub(cap) * SPILL_RUN / (u32::from(SHRINK) - 1);
    heap.spills_of(class).get() >= (cap.max(first) * SPILL_RUN) + steps_down
}

/// Puts a block on the free list of its slab if that needs nothing else: others stand there already, and others are still out.
///
/// # Safety
/// - The block belongs to the slab of one unit at `unit`, which `heap` owns, and is on no list.
#[inline(always)]
#[must_use]
pub(crate) unsafe fn return_between(heap: &Heap, unit: usize, block: NonNull<u8>) -> bool {
    let offset = block.addr().get() as u32 & (SLAB_BYTES as u32 - 1);
    let Some(change) = heap.own_state(unit).push_between(offset) else { return false };
    let next = block.as_ptr().map_addr(|address| address ^ change as usize);
    // SAFETY: the caller's block; this thread owns the slab and so its free list.
    unsafe { raw::link_before(block.as_ptr(), next) };
    true
}

/// Puts a block on the free list of its slab, which `heap` owns. Returns the slab if none of its blocks is out any more:
/// the caller passes it on to [`Front::slab_is_empty`].
///
/// # Safety
/// - As for [`Front::spill`]; the block is on no list.
#[inline]
#[unsafe(link_section = ".text.hot.hakmem")]
pub(crate) unsafe fn return_block(
    tables: &Tables,
    heap: &Heap,
    bin: &Bin,
    class: SizeClass,
    block: NonNull<u8>,
) -> Option<SlabIndex> {
    let slab = tables.head_of(tables.unit_of(block.addr().get()), class);
    check_block(tables, slab, class, block);
    let offset = (block.addr().get() - tables.address_of(slab).addr()) as u32;
    let state = tables.state(slab);
    let (address, owner) = (block.addr().get(), core::ptr::from_ref(heap).addr());
    let next = match state.push_free(offset) {
        Pushed::First => core::ptr::null_mut(),
        Pushed::Before(first) => block.as_ptr().wrapping_sub(offset as usize).wrapping_add(first as usize),
        Pushed::Again => fatal_ptr_class("double free", address, class.block_bytes(), owner),
    };
    let Some(used) = state.take_back(1) else {
        fatal_ptr_class("double free", address, class.block_bytes(), owner);
    };
    // SAFETY: the caller's block; this thread owns the slab and so its free list.
    unsafe { raw::link_before(block.as_ptr(), next) };
    bin.delivered.sub(1);
    if next.is_null() {
        full_to_partial(tables, bin, slab);
    }
    (used == 0).then_some(slab)
}

/// A refill after spills: with a larger cache, both would have been spared. Not after a long run of them, which no cache would hold:
/// what is cached then only has to be given back, block by cold block.
fn adapt_cap(heap: &Heap, bin: &Bin, class: SizeClass) {
    let (policy, cap) = (heap.policy(), bin.cap.get());
    let spills = harvest_spills(heap, class);
    if cap == 0 || spills == 0 {
        return;
    }
    let (first, largest) = (policy.initial_cap(class), policy.max_cap(class));
    let is_long_run = policy.cache_growth && spills >= u32::from(largest) * SPILL_RUN;
    bin.cap.set(if is_long_run {
        cap.min((first / LEFT_AFTER_RUN).max(SMALLEST_CAP))
    } else if policy.cache_growth && spills >= u32::from(cap) {
        cap.saturating_mul(2).clamp(first, largest)
    } else {
        cap.min(largest)
    });
}

/// Moves the class's count of spills to the heap's counters.
pub(crate) fn harvest_spills(heap: &Heap, class: SizeClass) -> u32 {
    let spills = heap.spills_of(class).replace(0);
    if spills == 0 {
        return 0;
    }
    heap.counters.spills.add(u64::from(spills));
    heap.tally(class).spilled.add(spills);
    count_flatten_fallbacks(heap, class, spills);
    spills
}

/// What to do with a slab none of whose blocks is out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keep {
    /// Keep as many per bin as the policy says, to be carved again.
    Policy,
    /// Give it back.
    Nothing,
}

/// The flattened pool (spec section 6, profile d) counts what its thread cache could not serve.
pub(crate) fn count_flatten_fallbacks(heap: &Heap, class: SizeClass, count: u32) {
    let policy = heap.policy();
    if policy.pool_flatten && policy.is_pool_routed(class) {
        heap.counters.pool_flatten_fallbacks.add(u64::from(count));
    }
}

/// Reports a pointer that is not the start of one of the slab's blocks.
#[inline]
pub(crate) fn check_block(tables: &Tables, slab: SlabIndex, class: SizeClass, block: NonNull<u8>) {
    let address = block.addr().get();
    let offset = address.wrapping_sub(tables.address_of(slab).addr()) as u32;
    client_check!(
        class.geometry().block_at(offset).is_some(),
        "free of a pointer into a block, not to its start",
        address
    );
}

/// A slab gets its first free block.
pub(crate) fn full_to_partial(tables: &Tables, bin: &Bin, slab: SlabIndex) {
    tables.list(&bin.full).remove(slab);
    tables.list(&bin.partial).push_back(slab);
}

/// The cache takes the whole free list of the first partial slab.
#[unsafe(link_section = ".text.hot.hakmem")]
fn take_partial(tables: &Tables, bin: &Bin) -> bool {
    let Some(slab) = tables.list(&bin.partial).first() else { return false };
    let first = tables.first_free(slab);
    let count = tables.state(slab).deliver_all();
    invariant!(!first.is_null() && count != 0, "partial slab without free blocks");
    tables.list(&bin.partial).remove(slab);
    tables.list(&bin.full).push_back(slab);
    bin.delivered.add(count);
    bin.install(first, count);
    true
}

/// The index of the one among a slab's first `count` blocks that is handed out first. Slabs begin at multiples of 64 KiB: if it were
/// always the one at the lowest address, a few blocks of each of many classes would share few sets of the processor's cache
/// (colouring: Bonwick, "The Slab Allocator", 1994).
fn colour(slab: SlabIndex, count: u32) -> u32 {
    const GOLDEN: u32 = 0x9E37_79B1;
    ((slab.get().wrapping_mul(GOLDEN) >> 16) * count) >> 16
}

/// The cache takes fresh blocks: about one OS page of them at first, more as the slab is carved on.
#[unsafe(link_section = ".text.hot.hakmem")]
fn carve(tables: &Tables, heap: &Heap, bin: &Bin, class: SizeClass) -> bool {
    let Some(slab) = SlabIndex::from_link(bin.carve.get()) else { return false };
    let (state, geometry) = (tables.state(slab), class.geometry());
    let left = u32::from(geometry.capacity) - state.carved();
    let count = heap.policy().refill_blocks(class, state.carved(), bin.delivered.get()).min(left);
    if count == 0 {
        bin.carve.set(0);
        return false;
    }
    let first =
        tables.address_of(slab).wrapping_add(FIRST_BLOCK_OFFSET + (state.carved() * geometry.block_bytes) as usize);
    // Who goes on carving fills memory, and that goes best in order.
    let start = if state.carved() == 0 { colour(slab, count) } else { 0 };
    // SAFETY: this thread owns the slab, and these blocks have not been carved before.
    let head = unsafe { raw::link_fresh(first, count, geometry.block_bytes as usize, start, tables.key) };
    // SAFETY: as above.
    unsafe { heap.view().label.put_on(class, first, count) };
    state.carve(count);
    if count == left {
        bin.carve.set(0);
    }
    bin.delivered.add(count);
    bin.install(head, count);
    heap.counters.carves.add(1);
    true
}
