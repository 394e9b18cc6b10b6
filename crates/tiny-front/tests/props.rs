//! The front against a plain model: heaps that allocate, free their own and each other's blocks, leave and come back.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test helpers: a panic is the test's failure"
)]

mod common;

use common::{give, new_front, new_heap, take};
use hakmem_atomic_ops::SharedPtr;
use hakmem_base::{MAX_SLAB_BLOCK_BYTES, SizeClass};
use hakmem_testkit::cases;
use hakmem_tiny_front::{Front, FrontPolicy, Heap};
use proptest::prelude::*;
use std::ptr::NonNull;

const HEAPS: usize = 3;
/// The longest list of actions, and the most blocks that one of them takes or frees.
const ACTIONS: usize = if cfg!(miri) { 20 } else { 120 };
const MOST_BLOCKS: u8 = if cfg!(miri) { 6 } else { u8::MAX };

/// Whether `seed` stands all over a block. Miri, which is slow, sees every fiftieth byte.
fn is_filled(contents: &[u8], seed: u8) -> bool {
    contents.iter().step_by(if cfg!(miri) { 50 } else { 1 }).all(|&byte| byte == seed)
}

/// A block and the pattern that its user wrote.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Live {
    block: NonNull<u8>,
    bytes: usize,
    seed: u8,
}

struct World {
    front: &'static Front,
    heaps: Vec<&'static Heap>,
    live: Vec<Live>,
}

impl World {
    fn new(policy: FrontPolicy) -> Self {
        let front = new_front(256 << 20);
        let heaps = (0..HEAPS).map(|_| new_heap(front, policy)).collect();
        Self { front, heaps, live: Vec::new() }
    }

    fn allocate(&mut self, heap: usize, bytes: usize, seed: u8) {
        let class = SizeClass::for_bytes(bytes).unwrap();
        let heap = self.heaps[heap];
        let block = take(self.front, heap, class);
        // SAFETY: the block is ours and at least `bytes` long.
        unsafe { block.as_ptr().write_bytes(seed, bytes) };
        self.live.push(Live { block, bytes, seed });
    }

    fn free(&mut self, heap: usize, index: usize) {
        let Live { block, bytes, seed } = self.live.swap_remove(index % self.live.len());
        // SAFETY: the block is live, `bytes` long.
        let contents = unsafe { std::slice::from_raw_parts(block.as_ptr(), bytes) };
        assert!(is_filled(contents, seed), "block was overwritten");
        give(self.front, Some(self.heaps[heap]), block);
    }
}

#[derive(Clone, Debug)]
enum Action {
    Allocate { heap: usize, bytes: usize, count: u8 },
    Free { heap: usize, index: usize, count: u8 },
    HeaplessFree { index: usize },
    Leave { heap: usize },
    Collect { heap: usize },
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let bytes = prop_oneof![4 => 1_usize..200, 2 => 200_usize..4000, 1 => 4000..=MAX_SLAB_BLOCK_BYTES];
    let action = prop_oneof![
        6 => (0..HEAPS, bytes, 0..=MOST_BLOCKS).prop_map(|(heap, bytes, count)| Action::Allocate { heap, bytes, count }),
        6 => (0..HEAPS, any::<usize>(), 0..=MOST_BLOCKS).prop_map(|(heap, index, count)| Action::Free { heap, index, count }),
        1 => any::<usize>().prop_map(|index| Action::HeaplessFree { index }),
        1 => (0..HEAPS).prop_map(|heap| Action::Leave { heap }),
        1 => (0..HEAPS).prop_map(|heap| Action::Collect { heap }),
    ];
    prop::collection::vec(action, 1..ACTIONS)
}

fn policies() -> impl Strategy<Value = FrontPolicy> {
    (any::<bool>(), any::<bool>(), any::<bool>(), 2_u32..100, any::<bool>()).prop_map(
        |(refill_one, must_adopt, force_notify, cache_blocks, growth)| FrontPolicy {
            refill_one,
            must_adopt,
            force_notify,
            cache_blocks,
            cache_growth: growth,
            heartbeat_allocs: 100,
            idle_trim_beats: 3,
            ..FrontPolicy::DEFAULT
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(60), ..ProptestConfig::default() })]
    #[test]
    fn blocks_are_never_lost_doubled_or_overwritten(policy in policies(), actions in actions()) {
        let mut world = World::new(policy);
        for (step, action) in actions.into_iter().enumerate() {
            match action {
                Action::Allocate { heap, bytes, count } => {
                    for _ in 0..count {
                        world.allocate(heap, bytes, count);
                    }
                }
                Action::Free { heap, index, count } => {
                    for step in 0..usize::from(count) {
                        if world.live.is_empty() {
                            break;
                        }
                        world.free(heap, index.wrapping_add(step * 7));
                    }
                }
                Action::HeaplessFree { index } if !world.live.is_empty() => {
                    let index = index % world.live.len();
                    let block = world.live.swap_remove(index).block;
                    give(world.front, None, block);
                }
                Action::HeaplessFree { .. } => {}
                Action::Leave { heap } => {
                    world.front.leave(world.heaps[heap]);
                    world.heaps[heap].open(world.front.view());
                }
                Action::Collect { heap } => world.front.collect(world.heaps[heap]),
            }
            // Miri, which is slow, looks now and then.
            if cfg!(miri) && step % 8 != 7 {
                continue;
            }
            for heap in &world.heaps {
                world.front.check_invariants(heap);
            }
            world.front.os.check_invariants();
        }
        // Everything freed and collected: every slab goes back.
        while !world.live.is_empty() {
            world.free(0, 0);
        }
        for round in 0..2 {
            for heap in &world.heaps {
                world.front.collect(heap);
                if round == 1 {
                    world.front.leave(heap);
                    heap.open(world.front.view());
                }
            }
        }
        world.front.collect(world.heaps[0]);
        prop_assert_eq!(world.front.os.stats().in_use_bytes, 0);
        prop_assert_eq!(world.front.orphans(), (0, 0));
    }
}

/// A block on its way to another thread, its bytes and its pattern.
type Parcel = (SharedPtr<u8>, usize, u8);

#[test]
fn threads_that_exchange_blocks_and_leave_lose_nothing() {
    // Hunts: refill, remote free, leave and adoption of the same slabs at the same time.
    const THREADS: usize = if cfg!(miri) { 3 } else { 4 };
    const ROUNDS: usize = if cfg!(miri) { 3 } else { 60 };
    const STEPS: u32 = if cfg!(miri) { 30 } else { 2000 };
    const LIFE: usize = if cfg!(miri) { 2 } else { 10 };
    let front = new_front(1 << 30);
    let exchange: Vec<std::sync::Mutex<Vec<Parcel>>> = (0..THREADS).map(|_| Default::default()).collect();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let exchange = &exchange;
            scope.spawn(move || {
                let policy = FrontPolicy { heartbeat_allocs: 500, cache_blocks: 16, ..FrontPolicy::DEFAULT };
                let heap = new_heap(front, policy);
                let mut random = thread as u64 * 7919 + 1;
                for round in 0..ROUNDS {
                    for step in 0..STEPS {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        let bytes = 1 + (random >> 33) as usize % if step % 50 == 0 { 30_000 } else { 600 };
                        let class = SizeClass::for_bytes(bytes).unwrap();
                        let block = take(front, heap, class);
                        let seed = random as u8;
                        // SAFETY: the block is ours and `bytes` long.
                        unsafe { block.as_ptr().write_bytes(seed, bytes) };
                        let target = (random >> 20) as usize % THREADS;
                        exchange[target].lock().unwrap().push((SharedPtr::new(block.as_ptr()), bytes, seed));
                    }
                    let mine = std::mem::take(&mut *exchange[thread].lock().unwrap());
                    for (block, bytes, seed) in mine {
                        let block = NonNull::new(block.load_relaxed()).unwrap();
                        // SAFETY: handed over by its allocating thread.
                        let contents = unsafe { std::slice::from_raw_parts(block.as_ptr(), bytes) };
                        assert!(is_filled(contents, seed), "block was overwritten");
                        give(front, Some(heap), block);
                    }
                    if round % LIFE == LIFE - 1 {
                        front.leave(heap);
                        heap.open(front.view());
                    }
                    if !cfg!(miri) || round == ROUNDS - 1 {
                        front.check_invariants(heap);
                    }
                }
                front.leave(heap);
            });
        }
    });
    let heap = new_heap(front, FrontPolicy::DEFAULT);
    for (block, ..) in exchange.iter().flat_map(|list| std::mem::take(&mut *list.lock().unwrap())) {
        give(front, Some(heap), NonNull::new(block.load_relaxed()).unwrap());
    }
    front.collect(heap);
    front.collect(heap);
    front.leave(heap);
    front.os.check_invariants();
    assert_eq!(front.os.stats().in_use_bytes, 0, "slabs were lost");
    assert_eq!(front.orphans(), (0, 0));
}
