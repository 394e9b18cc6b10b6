//! What a heap counts of the blocks that go through it, and what becomes of those that come back while it is not looked after.

#![allow(clippy::unwrap_used, reason = "test helpers: a panic is the test's failure")]

mod common;

use common::{give, new_front, new_heap, take, try_take};
use hakmem_base::{SLAB_BYTES, SizeClass};
use hakmem_superslab_os::OsPolicy;
use hakmem_tiny_front::{ClassFlow, Front, FrontPolicy, FrontReport, Heap, Unread};
use std::ptr::NonNull;

/// What learners read must add up with what the program did: every allocation and every refill of the class and of no other
/// one, and the blocks that the cache had no room for.
#[test]
fn what_goes_through_a_class_is_counted_by_its_slow_paths() {
    let front = new_front(256 << 20);
    let heap = new_heap(front, FrontPolicy { cache_growth: false, ..FrontPolicy::DEFAULT });
    let (class, other) = (SizeClass::for_tiny(64), SizeClass::for_tiny(128));
    let blocks: Vec<_> = (0..1000).map(|_| take(front, heap, class)).collect();
    let left = u64::from(heap.bin(class).cached());
    blocks.into_iter().for_each(|block| give(front, Some(heap), block));
    let cached = u64::from(heap.bin(class).cached());
    front.collect(heap);
    let flow = heap.flow(class);
    assert_eq!(flow.allocs, 1000);
    assert_eq!(u64::from(flow.refills), heap.counters.refills.get());
    assert!(flow.refills > 1, "{flow:?}");
    assert_eq!(u64::from(flow.spills), left + 1000 - cached, "{flow:?}");
    assert_eq!(u64::from(flow.spills), heap.counters.spills.get());
    assert_eq!(heap.flow(other), ClassFlow::default());
}

/// The regression of an unaligned one shows that not every block may be lent; this shows that some are.
#[test]
fn without_memory_for_a_slab_a_larger_class_lends_what_it_caches_within_the_limit() {
    let (class, larger) = (SizeClass::for_tiny(80), SizeClass::for_tiny(96));
    let exact = (larger.block_bytes() as u32 * 1000).div_ceil(class.block_bytes() as u32);
    for (w_max_permille, lends) in [(exact, true), (exact - 1, false), (1000, false)] {
        let front = new_front(256 << 20);
        let policy = FrontPolicy { w_max_permille, idle_trim: false, ..FrontPolicy::DEFAULT };
        let heap = new_heap(front, policy);
        let held = take(front, heap, larger);
        let cached = heap.bin(larger).cached();
        front.os.set_policy(OsPolicy { memory_limit_bytes: 1, ..OsPolicy::new() });
        let lent = try_take(front, heap, class);
        assert_eq!(lent.is_some(), lends, "{w_max_permille}");
        let counters = (heap.counters.borrowed.get(), heap.counters.out_of_memory.get());
        assert_eq!(counters, (lends.into(), (!lends).into()), "{w_max_permille}");
        assert_eq!(heap.bin(larger).cached(), cached - u32::from(lends), "{w_max_permille}");
        [Some(held), lent].into_iter().flatten().for_each(|block| give(front, Some(heap), block));
        front.check_invariants(heap);
        front.collect(heap);
        assert_eq!(front.os.stats().in_use_bytes, 0);
    }
}

/// A report is the sum of its heaps, exact for the thread that has settled its counts; what a flattened pool served from the cache
/// is told of the classes that the caller names.
#[test]
fn a_report_adds_up_what_its_heaps_hold_and_have_served() {
    let front = new_front(256 << 20);
    let policy = FrontPolicy { pool_classes: u128::MAX, pool_flatten: true, ..FrontPolicy::DEFAULT };
    let heaps = [(); 2].map(|()| new_heap(front, policy));
    let classes = [64, 1024].map(|bytes| SizeClass::for_bytes(bytes).unwrap());
    let (mut allocs, mut delivered_bytes, mut cached_bytes) = (0, 0, 0);
    for (heap, count) in heaps.into_iter().zip([10, 35]) {
        for class in classes {
            let mut blocks: Vec<_> = (0..count).map(|_| take(front, heap, class)).collect();
            give(front, Some(heap), blocks.pop().unwrap());
            front.settle_counts(heap);
            let bin = heap.bin(class);
            assert_eq!(heap.flow(class).allocs, count);
            assert_eq!(u64::from(bin.counts().delivered - bin.cached()), count - 1);
            allocs += count;
            delivered_bytes += u64::from(bin.counts().delivered) * class.block_bytes() as u64;
            cached_bytes += u64::from(bin.cached()) * class.block_bytes() as u64;
        }
    }
    let report_of = |flattened: u128| {
        let mut report = FrontReport::default();
        heaps.iter().for_each(|heap| front.report(heap, flattened, &mut report));
        report
    };
    let report = report_of(u128::MAX);
    assert_eq!((report.allocs, report.delivered_bytes, report.cached_bytes), (allocs, delivered_bytes, cached_bytes));
    assert_eq!(report.refills, heaps.iter().map(|heap| heap.counters.refills.get()).sum::<u64>());
    assert_eq!(report.pool_flatten_hits, allocs - report.pool_flatten_fallbacks);
    assert!(report.pool_flatten_fallbacks > 0 && report.pool_flatten_hits > 0, "{report:?}");
    assert_eq!(report_of(0).pool_flatten_hits, 0);
    let of_one = report_of(1 << classes[1].index()).pool_flatten_hits;
    assert!((1..report.pool_flatten_hits).contains(&of_one), "{of_one}");
}

/// The fast path leaves spills uncounted; whatever comes next has to count them before it forgets them.
#[test]
fn spills_are_counted_whatever_comes_behind_them() {
    let policy = FrontPolicy { cache_growth: false, ..FrontPolicy::DEFAULT };
    let class = SizeClass::for_tiny(64);
    type Step = fn(&Front, &Heap, FrontPolicy, SizeClass);
    let steps: [Step; 4] = [
        |_, heap, policy, _| heap.set_policy(policy),
        |_, heap, _, _| heap.set_watch_distance(50),
        |front, heap, _, class| {
            let _beat = front.beat_slow(heap, class);
        },
        |front, heap, _, _| front.settle_counts(heap),
    ];
    for step in steps {
        let front = new_front(256 << 20);
        let heap = new_heap(front, policy);
        let blocks: Vec<_> = (0..1000).map(|_| take(front, heap, class)).collect();
        let left = u64::from(heap.bin(class).cached());
        blocks.into_iter().for_each(|block| give(front, Some(heap), block));
        let cached = u64::from(heap.bin(class).cached());
        step(front, heap, policy, class);
        front.check_invariants(heap);
        front.collect(heap);
        assert_eq!(u64::from(heap.flow(class).spills), left + 1000 - cached);
        assert_eq!(front.os.stats().in_use_bytes, 0);
    }
}

/// A program that ends with a run of frees takes no slow path that would count them before the report.
#[test]
fn a_report_counts_the_spills_behind_the_last_slow_path() {
    let front = new_front(256 << 20);
    let heap = new_heap(front, FrontPolicy { cache_growth: false, ..FrontPolicy::DEFAULT });
    let class = SizeClass::for_tiny(64);
    let blocks: Vec<_> = (0..1000).map(|_| take(front, heap, class)).collect();
    let left = u64::from(heap.bin(class).cached());
    blocks.into_iter().for_each(|block| give(front, Some(heap), block));
    let spills = left + 1000 - u64::from(heap.bin(class).cached());
    assert!(spills > 0);
    front.settle_counts(heap);
    let mut report = FrontReport::default();
    front.report(heap, 0, &mut report);
    assert_eq!((report.spills, u64::from(heap.flow(class).spills)), (spills, spills));
    front.check_invariants(heap);
    front.collect(heap);
}

/// Slabs of one unit that a sleeper has filled, and all of whose blocks a stranger frees.
const SLABS: usize = 5;

/// A slab that keeps its words among its blocks keeps its contents.
const CAN_LET_GO: bool = !cfg!(feature = "ablation-slab-tail");

fn let_go(bytes: usize) -> usize {
    if CAN_LET_GO { bytes } else { 0 }
}

/// An owner and a stranger who has freed all that the owner allocated.
struct Sleeper {
    front: &'static Front,
    owner: &'static Heap,
    stranger: &'static Heap,
    class: SizeClass,
}

impl Sleeper {
    fn new(class: SizeClass) -> Self {
        Self::after(class, |_| {})
    }

    /// As [`Sleeper::new`], with something done to the blocks before they are freed.
    fn after(class: SizeClass, prepare: impl FnOnce(&[NonNull<u8>])) -> Self {
        let front = new_front(256 << 20);
        let policy = FrontPolicy { keep_empty_slabs: false, ..FrontPolicy::DEFAULT };
        let sleeper = Self { front, owner: new_heap(front, policy), stranger: new_heap(front, policy), class };
        let blocks = sleeper.take_slabs();
        prepare(&blocks);
        blocks.into_iter().for_each(|block| give(front, Some(sleeper.stranger), block));
        front.flush_outbox(sleeper.stranger);
        sleeper
    }

    /// All blocks of some slabs, written to their last byte.
    fn take_slabs(&self) -> Vec<NonNull<u8>> {
        let blocks: Vec<_> = (0..SLABS * usize::from(self.class.geometry().capacity))
            .map(|_| take(self.front, self.owner, self.class))
            .collect();
        for block in &blocks {
            // SAFETY: the block is the test's.
            unsafe { block.write_bytes(1, self.class.block_bytes()) };
        }
        blocks
    }

    /// Bytes let go, and whether another look may find more.
    fn sort(&self, which: Unread) -> (usize, bool) {
        let look = self.front.sort_unread([self.owner, self.stranger].into_iter(), which);
        assert!(!look.is_cut_short, "so little is sorted in one look");
        (look.bytes, self.front.has_unread())
    }

    /// The owner wakes up, uses its slabs again, and gives everything back.
    fn wakes_up(&self) {
        let blocks = self.take_slabs();
        let mut addresses: Vec<_> = blocks.iter().map(|block| block.addr()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), blocks.len(), "a block was handed out twice");
        self.front.check_invariants(self.owner);
        blocks.into_iter().for_each(|block| give(self.front, Some(self.owner), block));
        self.front.collect(self.owner);
        self.front.check_invariants(self.owner);
        assert_eq!(self.front.os.stats().in_use_bytes, 0, "a slab was lost");
    }
}

/// Hunts: a slab that is let go though its owner reads its mail, twice, or not at all; an owner that takes a slab without contents
/// for one with a free list.
#[test]
fn slabs_that_come_back_to_a_sleeper_lose_their_contents_at_the_second_look() {
    for bytes in [8, 64, 1000, 8192, 20_000] {
        let sleeper = Sleeper::new(SizeClass::for_bytes(bytes).unwrap());
        let slab_bytes = usize::from(sleeper.class.geometry().units) * SLAB_BYTES;
        assert_eq!(sleeper.front.has_unread(), CAN_LET_GO);
        assert_eq!(sleeper.sort(Unread::SinceLastLook), (0, CAN_LET_GO), "{bytes}: only a note of it");
        assert_eq!(sleeper.sort(Unread::SinceLastLook), (let_go(SLABS * slab_bytes), false), "{bytes}");
        assert_eq!(sleeper.sort(Unread::All), (0, false), "{bytes}: nothing is left");
        sleeper.wakes_up();
    }
}

/// The kernel empties what lies before a locked page, says no, and leaves the rest: links are gone although it refused.
#[cfg(not(miri))]
#[test]
fn a_locked_page_among_the_blocks_of_a_sleeper_is_no_harm() {
    let class = SizeClass::for_tiny(128);
    let sleeper = Sleeper::after(class, |blocks| {
        let middle = blocks.get(blocks.len() / 2).unwrap();
        // SAFETY: locks a page that is there.
        assert_eq!(unsafe { libc::mlock(middle.as_ptr().cast(), 1) }, 0);
    });
    assert_eq!(sleeper.sort(Unread::All).0, let_go(SLABS * SLAB_BYTES));
    sleeper.wakes_up();
}

#[test]
fn an_owner_that_reads_its_mail_between_two_looks_is_awake() {
    let sleeper = Sleeper::new(SizeClass::for_tiny(64));
    assert_eq!(sleeper.sort(Unread::SinceLastLook), (0, CAN_LET_GO));
    let block = take(sleeper.front, sleeper.owner, sleeper.class);
    give(sleeper.front, Some(sleeper.stranger), block);
    sleeper.front.flush_outbox(sleeper.stranger);
    assert_eq!(sleeper.sort(Unread::SinceLastLook).0, 0);
    sleeper.wakes_up();
}

/// Hunts: an orphan without contents that an adopter takes for one with blocks, or that nobody gives back.
#[test]
fn an_owner_may_end_while_its_slabs_are_without_contents() {
    for adopts in [false, true] {
        let sleeper = Sleeper::new(SizeClass::for_tiny(256));
        assert_eq!(sleeper.sort(Unread::All).0, let_go(SLABS * SLAB_BYTES));
        sleeper.front.leave(sleeper.owner);
        sleeper.owner.open(sleeper.front.view());
        if adopts {
            let block = take(sleeper.front, sleeper.stranger, sleeper.class);
            sleeper.front.check_invariants(sleeper.stranger);
            give(sleeper.front, Some(sleeper.stranger), block);
        }
        sleeper.front.collect(sleeper.stranger);
        assert_eq!(sleeper.front.orphans(), (0, 0));
        sleeper.wakes_up();
    }
}
