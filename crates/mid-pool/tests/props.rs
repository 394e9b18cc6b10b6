//! Random requests against a plain list of the blocks in use.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use hakmem_base::{OS_PAGE_BYTES, RUN_MAX_BYTES, SLAB_BYTES};
use hakmem_mid_pool::{Block, RunCache, RunPolicy, shared};
use hakmem_testkit::cases;
use proptest::prelude::*;
use support::{Heap, fill, is_filled};

#[derive(Clone, Debug)]
enum Step {
    Allocate {
        cache: usize,
        bytes: usize,
        align_shift: u32,
    },
    Free {
        cache: usize,
        place: usize,
    },
    /// By the short way, if that is open.
    AllocateAgain {
        cache: usize,
        bytes: usize,
    },
    FreeAgain {
        cache: usize,
        place: usize,
    },
    Fit {
        policy: RunPolicy,
    },
    Resize {
        cache: usize,
        place: usize,
        bytes: usize,
    },
    FreeWithoutCache {
        place: usize,
    },
    AllocateWithoutCache {
        bytes: usize,
    },
    Trim {
        cache: usize,
    },
    Flush {
        cache: usize,
    },
    Purge,
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 32_769_usize..300_000, 2 => 300_000..=RUN_MAX_BYTES, 1 => Just(RUN_MAX_BYTES), 1 => 1_usize..40_000]
}

fn steps() -> impl Strategy<Value = Step> {
    let cache = || 0_usize..2;
    let place = || 0_usize..64;
    prop_oneof![
        8 => (cache(), sizes(), prop_oneof![8 => 4_u32..12, 1 => 16_u32..22])
            .prop_map(|(cache, bytes, align_shift)| Step::Allocate { cache, bytes, align_shift }),
        6 => (cache(), place()).prop_map(|(cache, place)| Step::Free { cache, place }),
        6 => (cache(), sizes()).prop_map(|(cache, bytes)| Step::AllocateAgain { cache, bytes }),
        6 => (cache(), place()).prop_map(|(cache, place)| Step::FreeAgain { cache, place }),
        1 => policies().prop_map(|policy| Step::Fit { policy }),
        3 => (cache(), place(), sizes()).prop_map(|(cache, place, bytes)| Step::Resize { cache, place, bytes }),
        1 => place().prop_map(|place| Step::FreeWithoutCache { place }),
        1 => sizes().prop_map(|bytes| Step::AllocateWithoutCache { bytes }),
        1 => cache().prop_map(|cache| Step::Trim { cache }),
        1 => cache().prop_map(|cache| Step::Flush { cache }),
        1 => Just(Step::Purge),
    ]
}

#[derive(Clone, Copy)]
struct Live {
    block: Block,
    bytes: usize,
    mark: u8,
}

struct Machine {
    heap: Heap,
    caches: [RunCache; 2],
    live: Vec<Live>,
    marks: u8,
    /// Bytes of blocks that came without a cache, less those of blocks that went without one.
    bytes_without_cache: i64,
}

impl Machine {
    fn new(policy: RunPolicy) -> Self {
        Self {
            heap: Heap::new(96 << 20, policy),
            caches: [RunCache::new(), RunCache::new()],
            live: Vec::new(),
            marks: 0,
            bytes_without_cache: 0,
        }
    }

    fn accept(&mut self, block: Block, requested: usize, align: usize) {
        let (_, units, bytes) = self.heap.run_of(block);
        assert!(bytes >= requested && bytes < requested + OS_PAGE_BYTES && units as usize * SLAB_BYTES >= bytes);
        assert_eq!(block.ptr.as_ptr().addr() % align, 0);
        let start = block.ptr.as_ptr().addr();
        for other in &self.live {
            let other_start = other.block.ptr.as_ptr().addr();
            assert!(start + bytes <= other_start || other_start + other.bytes <= start, "two blocks overlap");
        }
        if block.zeroed {
            assert!(is_filled(block, bytes, 0), "a zeroed block is not");
        }
        self.marks = self.marks % 250 + 1;
        fill(block, 0, bytes, self.marks);
        self.live.push(Live { block, bytes, mark: self.marks });
    }

    fn take(&mut self, place: usize) -> Option<(Live, hakmem_base::SlabIndex, u32, usize)> {
        let count = self.live.len();
        let live = (count > 0).then(|| self.live.swap_remove(place % count))?;
        assert!(is_filled(live.block, live.bytes, live.mark), "a block changed under its holder");
        let (index, units, bytes) = self.heap.claim(live.block).unwrap();
        assert_eq!(bytes, live.bytes);
        assert!(self.heap.claim(live.block).is_none());
        Some((live, index, units, bytes))
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Allocate { cache, bytes, align_shift } => {
                let block = self.caches[cache].allocate(&self.heap.cx(), bytes, 1 << align_shift);
                if let Some(block) = block {
                    self.accept(block, bytes, 1 << align_shift);
                }
            }
            Step::AllocateWithoutCache { bytes } => {
                if let Some(block) = shared::allocate(&self.heap.cx(), bytes, 16) {
                    self.bytes_without_cache += self.heap.run_of(block).2 as i64;
                    self.accept(block, bytes, 16);
                }
            }
            Step::Free { cache, place } => {
                if let Some((_, index, units, bytes)) = self.take(place) {
                    self.caches[cache].free(&self.heap.cx(), index, units, bytes);
                }
            }
            Step::AllocateAgain { cache, bytes } => {
                // SAFETY: the machine's heap is its caches' only one.
                if let Some(ptr) = unsafe { self.caches[cache].allocate_again(bytes) } {
                    self.accept(Block { ptr, zeroed: false }, bytes, 1);
                }
            }
            Step::FreeAgain { cache, place } => {
                if let Some(&live) = self.live.get(place) {
                    let address = live.block.ptr.addr().get();
                    let index = self.heap.os.index_of(address).unwrap();
                    let word = self.heap.routes.get(index.to_usize()).unwrap();
                    let is_kept = self.caches[cache].free_again(address, index, word);
                    assert!(is_kept || word.run().is_some(), "a block that was not freed is gone");
                    if is_kept {
                        assert!(!self.caches[cache].free_again(address, index, word), "freed twice");
                        self.live.swap_remove(place);
                    }
                }
            }
            Step::Fit { policy } => {
                self.heap.policy = policy;
                self.caches.iter().for_each(|cache| cache.fit(&self.heap.cx()));
            }
            Step::FreeWithoutCache { place } => {
                if let Some((_, index, units, bytes)) = self.take(place) {
                    self.bytes_without_cache -= bytes as i64;
                    shared::free(&self.heap.cx(), index, units);
                }
            }
            Step::Resize { cache, place, bytes } => self.resize(cache, place, bytes),
            Step::Trim { cache } => self.caches[cache].trim(&self.heap.cx()),
            Step::Flush { cache } => self.caches[cache].flush(&self.heap.cx()),
            Step::Purge => {
                self.heap.os.purge_all();
            }
        }
        for cache in &self.caches {
            cache.check_invariants(&self.heap.cx());
            assert!(cache.cached_bytes() <= self.heap.policy.cache_bytes as usize);
        }
        self.heap.os.check_invariants();
        let held = self.live.iter().map(|live| self.heap.run_of(live.block).1 as usize * SLAB_BYTES).sum::<usize>();
        let cached = self.caches.iter().map(RunCache::cached_bytes).sum::<usize>();
        assert_eq!(self.heap.os.stats().in_use_bytes, held + cached, "units are lost or held twice");
        let counted = |cache: &RunCache| cache.allocated_bytes() as i64 - cache.freed_bytes() as i64;
        let in_hands = self.live.iter().map(|live| live.bytes as i64).sum::<i64>();
        let through_caches = self.caches.iter().map(counted).sum::<i64>();
        assert_eq!(
            through_caches + self.bytes_without_cache,
            in_hands,
            "bytes handed out and taken back do not balance"
        );
    }

    fn resize(&mut self, cache: usize, place: usize, new_bytes: usize) {
        let count = self.live.len();
        if count == 0 {
            return;
        }
        let live = self.live[place % count];
        let (index, units, old_bytes) = self.heap.run_of(live.block);
        let is_done = self.caches[cache].resize_in_place(&self.heap.cx(), index, units, new_bytes);
        let (_, new_units, bytes) = self.heap.run_of(live.block);
        if !is_done {
            assert_eq!((new_units, bytes), (units, old_bytes));
            assert!(new_bytes > units as usize * SLAB_BYTES, "a block that fits its run did not stay");
            return;
        }
        assert!(bytes >= new_bytes && bytes < new_bytes + OS_PAGE_BYTES && new_units as usize * SLAB_BYTES >= bytes);
        assert!(is_filled(live.block, bytes.min(old_bytes), live.mark), "resizing lost contents");
        fill(live.block, old_bytes.min(bytes), bytes, live.mark);
        self.live[place % count].bytes = bytes;
    }

    fn finish(mut self) {
        while let Some((_, index, units, bytes)) = self.take(0) {
            self.caches[0].free(&self.heap.cx(), index, units, bytes);
        }
        self.caches.iter().for_each(|cache| cache.flush(&self.heap.cx()));
        self.heap.os.check_invariants();
        assert_eq!(self.heap.os.stats().in_use_bytes, 0);
    }
}

fn policies() -> impl Strategy<Value = RunPolicy> {
    let cap = || 0_u32..9;
    (0_u32..40, 0_u32..70, 900_u32..3000, 0_u32..9, [cap(), cap(), cap(), cap(), cap()]).prop_map(
        |(cached_units, cache_runs, w_max_permille, bundle_runs, large_cap)| RunPolicy {
            cache_bytes: cached_units << 16,
            cache_runs,
            w_max_permille,
            bundle_runs,
            large_cap,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(48), ..ProptestConfig::default() })]

    #[test]
    fn blocks_never_overlap_keep_their_contents_and_nothing_is_lost(
        policy in prop_oneof![Just(RunPolicy::DEFAULT), policies()],
        script in prop::collection::vec(steps(), 1..120),
    ) {
        let mut machine = Machine::new(policy);
        for step in &script {
            machine.step(step);
        }
        machine.finish();
    }
}
