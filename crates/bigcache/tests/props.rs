//! Random requests against a plain list of the blocks in use.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use hakmem_base::SUPERSLAB_BYTES;
use hakmem_bigcache::{BigCache, BigPolicy, Block};
use hakmem_testkit::cases;
use proptest::prelude::*;
use support::{Heap, Place, address_of, fill, is_filled};

const MIB: usize = 1 << 20;

#[derive(Clone, Debug)]
enum Step {
    Allocate { bytes: usize, align_shift: u32, growing: bool },
    Free { place: usize },
    Resize { place: usize, bytes: usize },
    Move { place: usize, more: usize },
    EvictDue,
    Flush,
    Purge,
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        5 => 2 * MIB + 1..12 * MIB,
        2 => (1_usize..8).prop_map(|superslabs| superslabs * SUPERSLAB_BYTES),
        1 => 12 * MIB..40 * MIB,
        1 => 1..2 * MIB,
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let place = || 0_usize..32;
    prop_oneof![
        8 => (sizes(), prop_oneof![6 => 4_u32..13, 1 => 20_u32..25], any::<bool>())
            .prop_map(|(bytes, align_shift, growing)| Step::Allocate { bytes, align_shift, growing }),
        6 => place().prop_map(|place| Step::Free { place }),
        4 => (place(), sizes()).prop_map(|(place, bytes)| Step::Resize { place, bytes }),
        2 => (place(), 0..8 * MIB).prop_map(|(place, more)| Step::Move { place, more }),
        1 => Just(Step::EvictDue),
        1 => Just(Step::Flush),
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
    cache: BigCache,
    live: Vec<Live>,
    marks: u8,
}

impl Machine {
    fn bytes_of(&self, block: Block) -> usize {
        self.heap.bytes_of(&self.cache, block)
    }

    fn accept(&mut self, block: Block, requested: usize, align: usize) {
        let bytes = self.bytes_of(block);
        assert_eq!(bytes, requested.next_multiple_of(4096));
        assert_eq!(address_of(block) % align, 0);
        if block.zeroed {
            assert!(is_filled(block, bytes, 0), "a zeroed block is not");
        }
        self.marks = self.marks % 250 + 1;
        fill(block, 0, bytes, self.marks);
        self.live.push(Live { block, bytes, mark: self.marks });
    }

    fn step(&mut self, step: &Step) {
        let count = self.live.len();
        match *step {
            Step::Allocate { bytes, align_shift, growing } => {
                let block = self.cache.allocate(&self.heap.cx(), bytes, 1 << align_shift, growing).unwrap();
                self.accept(block, bytes, 1 << align_shift);
            }
            Step::Free { place } if count > 0 => {
                let live = self.live.swap_remove(place % count);
                assert!(is_filled(live.block, live.bytes, live.mark), "a block changed under its holder");
                assert!(self.heap.free(&self.cache, address_of(live.block)));
                assert!(!self.heap.free(&self.cache, address_of(live.block)));
            }
            Step::Resize { place, bytes } if count > 0 => self.resize(place % count, bytes),
            Step::Move { place, more } if count > 0 => self.relocate(place % count, more),
            Step::EvictDue => _ = self.cache.evict_due(&self.heap.cx()),
            Step::Flush => _ = self.cache.flush(&self.heap.cx()),
            Step::Purge => _ = self.heap.os.purge_all(),
            Step::Free { .. } | Step::Resize { .. } | Step::Move { .. } => {}
        }
        self.check();
    }

    fn resize(&mut self, position: usize, new_bytes: usize) {
        let live = self.live[position];
        let whole = new_bytes.next_multiple_of(4096);
        let (is_done, fits) = match self.heap.place_of(&self.cache, address_of(live.block)).unwrap() {
            Place::Window(index, old_bytes) => (
                self.cache.resize_in_place(&self.heap.cx(), index, old_bytes, new_bytes),
                whole.div_ceil(SUPERSLAB_BYTES) <= old_bytes.div_ceil(SUPERSLAB_BYTES),
            ),
            Place::Outside(old_bytes) => {
                (self.cache.outside_resize(address_of(live.block), new_bytes), whole <= old_bytes)
            }
        };
        let bytes = self.bytes_of(live.block);
        assert_eq!(bytes, if is_done { whole } else { live.bytes });
        assert!(is_done || !fits, "a block that fits where it is did not stay");
        assert!(is_filled(live.block, bytes.min(live.bytes), live.mark), "resizing lost contents");
        fill(live.block, live.bytes.min(bytes), bytes, live.mark);
        self.live[position].bytes = bytes;
    }

    fn relocate(&mut self, position: usize, more: usize) {
        let live = self.live[position];
        let Some(Place::Window(index, old_bytes)) = self.heap.place_of(&self.cache, address_of(live.block)) else {
            return;
        };
        let new_bytes = old_bytes + more;
        let moved = self.cache.move_to(&self.heap.cx(), index, old_bytes, new_bytes);
        let Some(block) = moved else {
            assert_eq!(self.bytes_of(live.block), old_bytes);
            return;
        };
        assert!(is_filled(block, old_bytes, live.mark), "moving lost contents");
        self.live.swap_remove(position);
        self.accept(block, new_bytes, SUPERSLAB_BYTES);
    }

    fn check(&self) {
        self.cache.check_invariants();
        self.heap.os.check_invariants();
        let mut ranges: Vec<_> = self.live.iter().map(|live| (address_of(live.block), live.bytes)).collect();
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "two blocks overlap");
        let stats = self.cache.stats();
        let held = self.live.iter().map(|live| live.bytes).sum::<usize>();
        assert_eq!(stats.allocated_bytes - stats.freed_bytes, held as u64, "bytes do not balance");
        let inside = ranges.iter().filter(|range| self.heap.os.index_of(range.0).is_some());
        let held_inside = inside.map(|range| range.1.next_multiple_of(SUPERSLAB_BYTES)).sum::<usize>();
        let in_use = self.heap.os.stats().in_use_bytes;
        assert!(in_use >= held_inside + stats.cached_bytes, "an extent is held by a block and by the cache");
        assert!(stats.cached_bytes > 0 || in_use == held_inside, "superslabs are lost");
    }

    fn finish(mut self) {
        for live in std::mem::take(&mut self.live) {
            assert!(is_filled(live.block, live.bytes, live.mark), "a block changed under its holder");
            assert!(self.heap.free(&self.cache, address_of(live.block)));
        }
        self.cache.flush(&self.heap.cx());
        self.check();
        assert_eq!(self.heap.os.stats().in_use_bytes, 0);
        assert_eq!(self.cache.stats().outside_blocks, 0);
    }
}

fn policies() -> impl Strategy<Value = BigPolicy> {
    (0..80 * MIB, prop_oneof![Just(0_u32), Just(1), Just(100_000)], 0_u32..3000, 0_u32..2000).prop_map(
        |(retain_bytes, retain_ms, slack_permille, room_permille)| BigPolicy {
            retain_bytes,
            retain_ms,
            slack_permille,
            room_permille,
            thp_bytes: usize::MAX,
            outside: true,
            window_max_bytes: usize::MAX,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(40), ..ProptestConfig::default() })]

    // A small window, so that some blocks lie outside.
    #[test]
    fn blocks_never_overlap_keep_their_contents_and_nothing_is_lost(
        policy in policies(),
        window_mib in prop_oneof![Just(32_usize), Just(128)],
        script in prop::collection::vec(steps(), 1..if cfg!(miri) { 12 } else { 60 }),
    ) {
        let heap = Heap::new(window_mib * MIB, policy);
        let mut machine = Machine { heap, cache: BigCache::new(), live: Vec::new(), marks: 0 };
        for step in &script {
            machine.step(step);
        }
        machine.finish();
    }
}
