//! Blocks up to 32 KiB: each thread's lists, the slabs behind them, and frees by other threads.
//!
//! A block is known by its slab alone: which of a slab's blocks it is makes no difference to what is counted, because blocks are
//! carved upwards and so touch pages in that order. A list is therefore a stack of (slab, how many of its blocks).

use hakmem_base::{CLASS_COUNT, SizeClass};
use hakmem_tiny_front::FrontPolicy;

use super::costs::Counters;
use super::os::Os;

/// As in `tiny-front`: spills in caps that are a run of frees, what the cap shrinks by then, and where that ends.
const SPILL_RUN: u32 = 4;
const SHRINK: u32 = 4;
const SMALLEST_CAP: u32 = 2;
/// As there: slabs taken from one look at idle classes to the next.
const SLABS_PER_TRIM: u32 = 8;
/// As in `remote-queue`.
const OUTBOX_ENTRIES: usize = 32;
const NOBODY: u16 = u16::MAX;

/// A slab, found by the number of its first unit.
#[derive(Clone, Debug)]
struct Slab {
    owner: u16,
    class: u8,
    is_partial: bool,
    /// Stands in its owner's mailbox.
    is_posted: bool,
    /// Blocks that are not on the slab's free list: the program's, and those in a thread's list.
    used: u32,
    free: u32,
    carved: u32,
    remote: u32,
    prev: u32,
    next: u32,
}

const NO_SLAB: Slab = Slab {
    owner: NOBODY,
    class: 0,
    is_partial: false,
    is_posted: false,
    used: 0,
    free: 0,
    carved: 0,
    remote: 0,
    prev: 0,
    next: 0,
};

/// What policy says about one class.
#[derive(Clone, Copy, Debug, Default)]
struct ClassPolicy {
    initial_cap: u32,
    max_cap: u32,
    outbox: u32,
    bypasses: bool,
}

/// How a class is cut.
#[derive(Clone, Copy, Debug)]
struct Cut {
    block_bytes: u32,
    capacity: u32,
    units: u32,
}

/// One class of one thread.
#[derive(Clone, Debug, Default)]
struct Bin {
    list: Vec<(u32, u32)>,
    length: u32,
    cap: u32,
    limit: u32,
    spills: u32,
    ticks: u32,
    allocs: u64,
    allocs_at_trim: u64,
    first_partial: u32,
    last_partial: u32,
    carve: u32,
    /// Blocks out of the slabs: live, listed here, or under way.
    out: u32,
    is_set_up: bool,
}

#[derive(Debug)]
struct Thread {
    bins: Vec<Bin>,
    outbox: [(u32, u32); OUTBOX_ENTRIES],
    mail: Vec<u32>,
    beats_since_trim: u32,
    slabs_since_trim: u32,
}

impl Thread {
    fn new() -> Self {
        Self {
            bins: vec![Bin::default(); CLASS_COUNT],
            outbox: [(0, 0); OUTBOX_ENTRIES],
            mail: Vec::new(),
            beats_since_trim: 0,
            slabs_since_trim: 0,
        }
    }
}

/// Counts of one class, summed over all threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClassCounts {
    /// Blocks handed out.
    pub allocs: u64,
    /// Refills of threads' lists.
    pub refills: u64,
    /// Blocks that found no room in one.
    pub spills: u64,
}

/// All threads.
#[derive(Debug)]
pub struct Front {
    threads: Vec<Thread>,
    slabs: Vec<Slab>,
    cuts: Vec<Cut>,
    policy: FrontPolicy,
    class_policy: Vec<ClassPolicy>,
    pub classes: [ClassCounts; CLASS_COUNT],
}

impl Front {
    pub fn new(policy: &FrontPolicy, threads: u16) -> Self {
        let cuts = SizeClass::all().map(|class| {
            let geometry = class.geometry();
            Cut {
                block_bytes: geometry.block_bytes,
                capacity: u32::from(geometry.capacity),
                units: u32::from(geometry.units),
            }
        });
        let mut front = Self {
            threads: (0..threads.max(1)).map(|_| Thread::new()).collect(),
            slabs: Vec::new(),
            cuts: cuts.collect(),
            policy: *policy,
            class_policy: Vec::new(),
            classes: [ClassCounts::default(); CLASS_COUNT],
        };
        front.set_policy(policy);
        front
    }

    pub fn set_policy(&mut self, policy: &FrontPolicy) {
        self.policy = *policy;
        let of_class = |class: SizeClass| ClassPolicy {
            initial_cap: u32::from(policy.initial_cap(class)),
            max_cap: u32::from(policy.max_cap(class)),
            outbox: policy.outbox_limit(class),
            bypasses: policy.bypasses_cache(class),
        };
        self.class_policy = SizeClass::all().map(of_class).collect();
        for thread in &mut self.threads {
            for (bin, class) in thread.bins.iter_mut().zip(&self.class_policy) {
                if bin.is_set_up && !(class.initial_cap..=class.max_cap).contains(&bin.cap) || class.bypasses {
                    bin.cap = if class.bypasses { 0 } else { class.initial_cap };
                    bin.limit = bin.cap;
                }
                bin.ticks = policy.heartbeat_allocs;
            }
        }
    }

    /// A block of a class for a thread: its slab. The second is true when a heartbeat is due.
    #[inline]
    pub fn alloc(&mut self, thread: u16, class: usize, os: &mut Os, counters: &mut Counters) -> (u32, bool) {
        let bin = &mut self.threads[thread as usize].bins[class];
        if bin.length == 0 {
            self.refill(thread, class, os, counters);
        }
        let bin = &mut self.threads[thread as usize].bins[class];
        bin.length -= 1;
        bin.allocs += 1;
        bin.ticks -= 1;
        let is_beat = bin.ticks == 0;
        let slab = match bin.list.last_mut() {
            Some((slab, count)) => {
                let slab = *slab;
                *count -= 1;
                if *count == 0 {
                    bin.list.pop();
                }
                slab
            }
            None => 0,
        };
        (slab, is_beat)
    }

    /// A block comes back.
    #[inline]
    pub fn free(&mut self, thread: u16, slab: u32, os: &mut Os, counters: &mut Counters) {
        let record = &self.slabs[slab as usize];
        let class = record.class as usize;
        if record.owner != thread {
            return self.free_remote(thread, slab, class, os, counters);
        }
        let bin = &mut self.threads[thread as usize].bins[class];
        if bin.length < bin.limit {
            bin.length += 1;
            match bin.list.last_mut() {
                Some((top, count)) if *top == slab => *count += 1,
                _ => bin.list.push((slab, 1)),
            }
        } else {
            self.spill(thread, slab, class, os, counters);
        }
    }

    /// What a heartbeat does.
    pub fn beat(&mut self, thread: u16, class: usize, os: &mut Os, counters: &mut Counters) {
        counters.beats += 1;
        self.threads[thread as usize].bins[class].ticks = self.policy.heartbeat_allocs;
        self.read_mail(thread, os, counters);
        let record = &mut self.threads[thread as usize];
        record.beats_since_trim += 1;
        if self.policy.idle_trim && record.beats_since_trim >= self.policy.idle_trim_beats {
            record.beats_since_trim = 0;
            self.trim_idle(thread, true, os, counters);
        }
    }

    /// Blocks in the threads' lists, in bytes.
    pub fn cached_bytes(&self) -> u64 {
        let of_thread = |thread: &Thread| -> u64 {
            let cached = thread.bins.iter().zip(&self.cuts);
            cached.map(|(bin, cut)| u64::from(bin.length) * u64::from(cut.block_bytes)).sum()
        };
        self.threads.iter().map(of_thread).sum()
    }

    /// The class of the slab.
    #[inline]
    pub fn class_of(&self, slab: u32) -> usize {
        self.slabs[slab as usize].class as usize
    }

    fn refill(&mut self, thread: u16, class: usize, os: &mut Os, counters: &mut Counters) {
        let policy = self.class_policy[class];
        let bin = &mut self.threads[thread as usize].bins[class];
        if bin.is_set_up {
            let spills = std::mem::take(&mut bin.spills);
            if bin.cap != 0 {
                let grown = if self.policy.cache_growth && spills >= bin.cap { bin.cap * 2 } else { bin.cap };
                bin.cap = grown.clamp(policy.initial_cap, policy.max_cap);
            }
        } else {
            bin.is_set_up = true;
            bin.cap = if policy.bypasses { 0 } else { policy.initial_cap };
        }
        bin.ticks = self.policy.heartbeat_allocs;
        counters.refills += 1;
        self.classes[class].refills += 1;
        if self.take_partial(thread, class) {
            return;
        }
        if !self.threads[thread as usize].mail.is_empty() {
            self.read_mail(thread, os, counters);
            if self.take_partial(thread, class) {
                return;
            }
        }
        if self.carve(thread, class, os, counters) {
            return;
        }
        self.flush_outbox(thread, counters);
        self.fresh_slab(thread, class, os, counters);
        self.carve(thread, class, os, counters);
    }

    fn install(bin: &mut Bin, slab: u32, count: u32) {
        bin.list.push((slab, count));
        bin.length = count;
        bin.limit = if bin.cap == 0 { 0 } else { bin.cap.max(count + bin.cap / 2) };
    }

    fn take_partial(&mut self, thread: u16, class: usize) -> bool {
        let slab = self.threads[thread as usize].bins[class].first_partial;
        if slab == 0 {
            return false;
        }
        self.leave_partial(slab);
        let record = &mut self.slabs[slab as usize];
        let count = std::mem::take(&mut record.free);
        record.used += count;
        let bin = &mut self.threads[thread as usize].bins[class];
        bin.out += count;
        Self::install(bin, slab, count);
        true
    }

    fn carve(&mut self, thread: u16, class: usize, os: &mut Os, counters: &mut Counters) -> bool {
        let bin = &mut self.threads[thread as usize].bins[class];
        let slab = bin.carve;
        if slab == 0 {
            return false;
        }
        let (record, cut) = (&mut self.slabs[slab as usize], self.cuts[class]);
        let left = cut.capacity - record.carved;
        let Some(size_class) = SizeClass::from_index(class) else { return false };
        let count = self.policy.refill_blocks(size_class, record.carved, bin.out).min(left);
        if count == left {
            bin.carve = 0;
        }
        if count == 0 {
            return false;
        }
        record.carved += count;
        record.used += count;
        bin.out += count;
        counters.carved += u64::from(count);
        // Carving writes a link into every block: the pages are touched here, block by block of the first page each.
        os.touch(slab, u64::from(record.carved) * u64::from(cut.block_bytes), counters);
        Self::install(bin, slab, count);
        true
    }

    fn fresh_slab(&mut self, thread: u16, class: usize, os: &mut Os, counters: &mut Counters) {
        let record = &mut self.threads[thread as usize];
        record.slabs_since_trim += 1;
        if self.policy.idle_trim && (record.slabs_since_trim >= SLABS_PER_TRIM || os.free_dirty == 0) {
            record.slabs_since_trim = 0;
            self.trim_idle(thread, false, os, counters);
        }
        counters.fresh_slabs += 1;
        let slab = os.take_units(self.cuts[class].units, counters);
        if self.slabs.len() < os.unit_count() {
            self.slabs.resize(os.unit_count(), NO_SLAB);
        }
        self.slabs[slab as usize] = Slab { owner: thread, class: class as u8, ..NO_SLAB };
        self.threads[thread as usize].bins[class].carve = slab;
    }

    fn spill(&mut self, thread: u16, slab: u32, class: usize, os: &mut Os, counters: &mut Counters) {
        counters.spills += 1;
        self.classes[class].spills += 1;
        self.threads[thread as usize].bins[class].spills += 1;
        self.return_blocks(slab, 1, true, os, counters);
        let bin = &mut self.threads[thread as usize].bins[class];
        if bin.cap > SMALLEST_CAP && self.policy.cache_growth && bin.spills >= bin.cap * SPILL_RUN {
            bin.cap = (bin.cap / SHRINK).max(SMALLEST_CAP);
            self.flush_bin(thread, class, true, os, counters);
        }
    }

    /// Blocks go back to their slab's free list; an empty slab is kept or given back.
    fn return_blocks(&mut self, slab: u32, count: u32, keep: bool, os: &mut Os, counters: &mut Counters) {
        let record = &mut self.slabs[slab as usize];
        record.free += count;
        record.used -= count;
        self.threads[record.owner as usize].bins[record.class as usize].out -= count;
        let is_empty = record.used == 0;
        if !record.is_partial {
            self.enter_partial(slab);
        }
        if is_empty {
            self.slab_is_empty(slab, keep, os, counters);
        }
    }

    fn slab_is_empty(&mut self, slab: u32, keep: bool, os: &mut Os, counters: &mut Counters) {
        let record = &self.slabs[slab as usize];
        let (thread, class) = (record.owner, record.class as usize);
        let carve = self.threads[thread as usize].bins[class].carve;
        if keep && self.cuts[class].units == 1 && (carve == 0 || carve == slab) && self.policy.keep_empty_slabs {
            self.leave_partial(slab);
            let record = &mut self.slabs[slab as usize];
            (record.free, record.carved) = (0, 0);
            self.threads[thread as usize].bins[class].carve = slab;
            return;
        }
        if record.remote != 0 || record.is_posted {
            return;
        }
        if carve == slab {
            self.threads[thread as usize].bins[class].carve = 0;
        }
        self.leave_partial(slab);
        self.slabs[slab as usize].owner = NOBODY;
        counters.retired_slabs += 1;
        os.give_units(slab, self.cuts[class].units, counters);
    }

    fn flush_bin(&mut self, thread: u16, class: usize, keep: bool, os: &mut Os, counters: &mut Counters) {
        let bin = &mut self.threads[thread as usize].bins[class];
        let mut list = std::mem::take(&mut bin.list);
        bin.limit = bin.cap;
        counters.flushed += u64::from(std::mem::take(&mut bin.length));
        for &(slab, count) in &list {
            self.return_blocks(slab, count, keep, os, counters);
        }
        list.clear();
        let bin = &mut self.threads[thread as usize].bins[class];
        bin.list = list;
        let carve = bin.carve;
        if !keep && carve != 0 && self.slabs[carve as usize].used == 0 {
            self.slab_is_empty(carve, false, os, counters);
        }
    }

    fn trim_idle(&mut self, thread: u16, routine: bool, os: &mut Os, counters: &mut Counters) {
        for class in 0..CLASS_COUNT {
            let bin = &mut self.threads[thread as usize].bins[class];
            if !bin.is_set_up || bin.allocs != std::mem::replace(&mut bin.allocs_at_trim, bin.allocs) {
                continue;
            }
            if bin.length != 0 || bin.carve != 0 {
                counters.idle_trims += 1;
                self.flush_bin(thread, class, false, os, counters);
            }
            let smallest = (self.class_policy[class].initial_cap / 4).max(2);
            let bin = &mut self.threads[thread as usize].bins[class];
            if routine && self.policy.cache_shrink && bin.cap > smallest {
                bin.cap = (bin.cap / 2).max(2);
            }
        }
    }

    fn free_remote(&mut self, thread: u16, slab: u32, class: usize, os: &mut Os, counters: &mut Counters) {
        counters.remote_frees += 1;
        let limit = self.class_policy[class].outbox;
        let entry = &mut self.threads[thread as usize].outbox[slab as usize % OUTBOX_ENTRIES];
        let displaced = if entry.1 != 0 && entry.0 != slab { std::mem::take(entry) } else { (0, 0) };
        *entry = (slab, entry.1 + 1);
        let chain = if displaced.1 == 0 && entry.1 >= limit { std::mem::take(entry) } else { displaced };
        if chain.1 != 0 {
            self.hand_over(chain.0, chain.1, counters);
            // The visit of the slow path is where the freeing thread notices that something is due.
            os.purge_due(counters);
        }
    }

    fn hand_over(&mut self, slab: u32, count: u32, counters: &mut Counters) {
        counters.remote_pushes += 1;
        let record = &mut self.slabs[slab as usize];
        record.remote += count;
        if !std::mem::replace(&mut record.is_posted, true) {
            self.threads[record.owner as usize].mail.push(slab);
        }
    }

    fn flush_outbox(&mut self, thread: u16, counters: &mut Counters) {
        for entry in 0..OUTBOX_ENTRIES {
            let (slab, count) = std::mem::take(&mut self.threads[thread as usize].outbox[entry]);
            if count != 0 {
                self.hand_over(slab, count, counters);
            }
        }
    }

    fn read_mail(&mut self, thread: u16, os: &mut Os, counters: &mut Counters) {
        for slab in std::mem::take(&mut self.threads[thread as usize].mail) {
            let record = &mut self.slabs[slab as usize];
            record.is_posted = false;
            let count = std::mem::take(&mut record.remote);
            counters.drains += 1;
            counters.drained_blocks += u64::from(count);
            self.return_blocks(slab, count, true, os, counters);
        }
    }

    fn enter_partial(&mut self, slab: u32) {
        let record = &mut self.slabs[slab as usize];
        let bin = &mut self.threads[record.owner as usize].bins[record.class as usize];
        record.is_partial = true;
        (record.prev, record.next) = (bin.last_partial, 0);
        let last = std::mem::replace(&mut bin.last_partial, slab);
        if last == 0 {
            bin.first_partial = slab;
        } else {
            self.slabs[last as usize].next = slab;
        }
    }

    fn leave_partial(&mut self, slab: u32) {
        let record = &mut self.slabs[slab as usize];
        if !std::mem::take(&mut record.is_partial) {
            return;
        }
        let (prev, next) = (record.prev, record.next);
        let bin = &mut self.threads[record.owner as usize].bins[record.class as usize];
        if prev == 0 {
            bin.first_partial = next;
        }
        if next == 0 {
            bin.last_partial = prev;
        }
        if prev != 0 {
            self.slabs[prev as usize].next = next;
        }
        if next != 0 {
            self.slabs[next as usize].prev = prev;
        }
    }

    /// Folds the threads' allocation counts into the classes', for a window.
    pub fn count_allocs(&mut self) {
        for (class, counts) in self.classes.iter_mut().enumerate() {
            counts.allocs = self.threads.iter().map(|thread| thread.bins[class].allocs).sum();
        }
    }

    /// Threads that have allocated.
    pub fn active_threads(&self) -> u32 {
        self.threads.iter().filter(|thread| thread.bins.iter().any(|bin| bin.is_set_up)).count() as u32
    }

    /// Units of all slabs.
    pub fn slab_units(&self) -> u64 {
        let slabs = self.slabs.iter().filter(|slab| slab.owner != NOBODY);
        slabs.map(|slab| u64::from(self.cuts[slab.class as usize].units)).sum()
    }

    /// Checks the balance of every slab: what is out is in a list, in an outbox, in a queue, or the program's.
    pub fn check(&self, owned_by_program: &[u32]) {
        let mut out: Vec<u64> = owned_by_program.iter().map(|count| u64::from(*count)).collect();
        out.resize(self.slabs.len(), 0);
        for thread in &self.threads {
            for bin in &thread.bins {
                assert_eq!(bin.length, bin.list.iter().map(|(_, count)| count).sum::<u32>());
                bin.list.iter().for_each(|&(slab, count)| out[slab as usize] += u64::from(count));
            }
            let collected = thread.outbox.iter().filter(|(_, count)| *count != 0);
            collected.for_each(|&(slab, count)| out[slab as usize] += u64::from(count));
        }
        for (number, slab) in self.slabs.iter().enumerate().filter(|(_, slab)| slab.owner != NOBODY) {
            assert_eq!(u64::from(slab.used), out[number] + u64::from(slab.remote), "blocks out of slab {number}");
            assert_eq!(slab.used + slab.free, slab.carved, "carved blocks of slab {number}");
            assert_eq!(slab.is_partial, slab.free != 0, "list of slab {number}");
        }
    }
}
