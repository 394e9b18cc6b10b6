//! Giving back: a heartbeat's idle trim, `collect`, and the end of a thread.

use core::ptr::NonNull;
use hakmem_base::{SizeClass, SlabIndex};
use hakmem_publish_adopt::SlabWords;

use crate::bin::Bin;
use crate::front::{Front, Tables};
use crate::heap::Heap;
use crate::raw;
use crate::warm::{Keep, harvest_spills, return_between, return_block};

/// What a heartbeat was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Beat {
    /// The allocation that it came with is to be looked at: as a guarded sample or, if policy wants none, a watched block.
    pub is_due: bool,
    /// The usual number of allocations has passed: what is due now and then is due.
    pub is_routine: bool,
}

/// Slabs that a heap takes from one look at its idle classes to the next, if memory waits to be used again.
const SLABS_PER_TRIM: u32 = 8;
/// Allocations that pass before growth looks for idle classes again, for each class that its last look found idle: where sizes
/// alternate, every class is idle for a moment, and its slab would wander from class to class.
const ALLOCS_PER_TRIMMED_CLASS: u64 = 256;

/// Why idle classes are looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trim {
    Routine,
    BeforeGrowth,
}

impl Front {
    /// Every few thousand allocations of a class: counts them, reads mail, trims classes that have been idle. With blocks
    /// looked at beats come when one is due as well, and every few thousand allocations one of them does the rest.
    #[cold]
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.hakmem")]
    pub fn beat_slow(&self, heap: &Heap, class: SizeClass) -> Beat {
        let bin = heap.bin(class);
        let policy = heap.policy();
        let looks = heap.mean_distance() != 0;
        let is_due = looks && heap.tally(class).left.get() == 0;
        let is_routine = !looks || heap.pace.count_routine(bin.passed(), policy.heartbeat_allocs);
        heap.settle(bin, class);
        bin.wind_up(heap.next_beat(class));
        if is_routine {
            self.routine(heap);
        }
        Beat { is_due, is_routine }
    }

    /// Reads what came for the heap, and sends what waits for others: a heap that never runs out of slabs would keep their blocks for good.
    pub fn exchange_mail(&self, heap: &Heap) {
        let Some(tables) = self.tables() else { return };
        if heap.mailbox.has_mail() {
            self.read_mail(tables, heap);
        }
        self.flush_outbox(heap);
    }

    fn routine(&self, heap: &Heap) {
        heap.counters.beats.add(1);
        let Some(tables) = self.tables() else { return };
        self.exchange_mail(heap);
        let beats = heap.beats_since_trim.get() + 1;
        heap.beats_since_trim.set(beats);
        if heap.policy().idle_trim && beats >= heap.policy().idle_trim_beats {
            heap.beats_since_trim.set(0);
            let _trimmed = self.trim_idle(tables, heap, Trim::Routine);
        }
    }

    /// The heap needs a slab: what classes hold that have allocated nothing since the last trim serves better than memory that the
    /// process has to ask for. Where memory waits to be used again, this is asked every few slabs only: a heap whose slabs go from
    /// class to class would leave some behind in each.
    pub(crate) fn trim_before_growth(&self, tables: &Tables, heap: &Heap) {
        let slabs = heap.slabs_since_trim.get() + 1;
        heap.slabs_since_trim.set(slabs);
        if heap.policy().idle_trim && (slabs >= SLABS_PER_TRIM || self.os.purgeable_bytes() == 0) {
            let allocs = heap.allocs();
            if allocs < heap.next_growth_trim.get() {
                return;
            }
            heap.slabs_since_trim.set(0);
            let trimmed = self.trim_idle(tables, heap, Trim::BeforeGrowth);
            heap.next_growth_trim.set(allocs + u64::from(trimmed) * ALLOCS_PER_TRIMMED_CLASS);
        }
    }

    /// Classes that have allocated nothing since the last trim give their cached blocks back; at a routine trim their cap halves.
    /// Returns how many had something to give.
    #[cold]
    #[inline(never)]
    #[unsafe(link_section = ".text.hot.hakmem")]
    fn trim_idle(&self, tables: &Tables, heap: &Heap, trim: Trim) -> u32 {
        let policy = heap.policy();
        let mut trimmed = 0;
        for (class, bin) in heap.classes() {
            if !bin.is_set_up() {
                continue;
            }
            heap.rewind(bin, class);
            let allocs = bin.allocs.get() as u32;
            if heap.tally(class).trimmed_at.replace(allocs) != allocs {
                continue;
            }
            if bin.cached() != 0 || bin.carve.get() != 0 {
                trimmed += 1;
                self.flush_bin(tables, heap, bin, class, Keep::Nothing);
            }
            let smallest = policy.initial_cap(class) / 4;
            if trim == Trim::Routine && policy.cache_shrink && bin.cap.get() > smallest.max(2) {
                bin.cap.set((bin.cap.get() / 2).max(2));
            }
        }
        heap.counters.idle_trims.add(u64::from(trimmed));
        trimmed
    }

    /// Gives back everything that the heap holds and nobody uses: outbox, mail, caches, empty slabs.
    pub fn collect(&self, heap: &Heap) {
        let Some(tables) = self.tables() else { return };
        self.flush_outbox(heap);
        self.read_mail(tables, heap);
        for (class, bin) in heap.classes() {
            if bin.is_set_up() {
                self.flush_bin(tables, heap, bin, class, Keep::Nothing);
                harvest_spills(heap, class);
            }
        }
        self.reap(tables);
    }

    /// The heap's thread ends: caches to their slabs, empty slabs to the superslab box, the others left to whoever adopts
    /// them. Afterwards the heap is as good as new; its mailbox stays closed until [`Heap::open`].
    pub fn leave(&self, heap: &Heap) {
        let Some(tables) = self.tables() else { return };
        self.flush_outbox(heap);
        self.read_mail(tables, heap);
        for (class, bin) in heap.classes() {
            if !bin.is_set_up() {
                continue;
            }
            self.flush_bin(tables, heap, bin, class, Keep::Nothing);
            harvest_spills(heap, class);
            for head in [&bin.partial, &bin.full] {
                while let Some(slab) = tables.list(head).first() {
                    tables.list(head).remove(slab);
                    bin.delivered.sub(tables.state(slab).used());
                    if tables.state(slab).used() == 0 && tables.remote(slab).is_quiet() {
                        heap.counters.retired_slabs.add(1);
                        self.give_back(tables, class, slab);
                    } else {
                        self.release_slab(tables, heap, class, slab);
                    }
                }
            }
            bin.carve.set(0);
        }
        for slab in heap.mailbox.close(tables) {
            self.announce(tables, slab);
        }
    }

    /// Returns the cached blocks of a class to their slabs.
    #[unsafe(link_section = ".text.hot.hakmem")]
    pub(crate) fn flush_bin(&self, tables: &Tables, heap: &Heap, bin: &Bin, class: SizeClass, keep: Keep) {
        heap.rewind(bin, class);
        let (cached, mut next) = (bin.cached(), NonNull::new(bin.head.get()));
        bin.install(core::ptr::null_mut(), 0);
        if keep == Keep::Nothing && cached == bin.delivered.get() {
            return self.forget_all(tables, heap, bin, class);
        }
        while let Some(block) = next {
            // SAFETY: the list was the cache's; this thread holds it.
            next = NonNull::new(unsafe { raw::behind(block.as_ptr()) });
            let address = block.addr().get();
            // SAFETY: a cached block belongs to a slab of this heap and is on no other list now; where a step is, that is one unit.
            if heap.is_step(bin, address) && unsafe { return_between(heap, heap.unit_of(address), block) } {
                bin.delivered.sub(1);
                continue;
            }
            // SAFETY: as above.
            if let Some(slab) = unsafe { return_block(tables, heap, bin, class, block) } {
                self.slab_is_empty(tables, heap, bin, class, slab, keep);
            }
        }
        // A kept empty slab has no cached block that would lead here.
        if let (Keep::Nothing, Some(slab)) = (keep, SlabIndex::from_link(bin.carve.get()))
            && tables.state(slab).used() == 0
        {
            self.slab_is_empty(tables, heap, bin, class, slab, keep);
        }
    }

    /// Every block of the class that is out of its slab was in the cache, which has been dropped: all its slabs are empty,
    /// without a look at each block.
    fn forget_all(&self, tables: &Tables, heap: &Heap, bin: &Bin, class: SizeClass) {
        bin.delivered.set(0);
        // Slabs whose token is out stay, at the end of the full list. Counted before the first of them comes there, each is looked at once.
        let counted = [&bin.partial, &bin.full].map(|head| {
            let mut slabs = 0;
            tables.list(head).for_each(|_| slabs += 1);
            (head, slabs)
        });
        for (head, slabs) in counted {
            for _ in 0..slabs {
                let Some(slab) = tables.list(head).first() else { break };
                tables.list(head).remove(slab);
                tables.list(&bin.full).push_back(slab);
                tables.state(slab).forget();
                self.slab_is_empty(tables, heap, bin, class, slab, Keep::Nothing);
            }
        }
    }
}
