//! Random requests against a plain list of the blocks in use: every block keeps its bytes, no two overlap, none is lost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

mod support;

use core::ptr::NonNull;
use hakmem_hardened::Limits;
use hakmem_testkit::cases;
use proptest::prelude::*;
use support::{Level, bytes_of};

#[derive(Clone, Debug)]
enum Step {
    Allocate { bytes: usize, align_shift: u32 },
    Free { place: usize },
    Resize { place: usize, bytes: usize },
    Collect { everything: bool },
    Sweep,
    ForkedChild,
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0_usize..600, 4 => 600_usize..33_000, 2 => 33_000_usize..400_000, 1 => 400_000_usize..5_000_000]
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (sizes(), prop_oneof![8 => 0_u32..5, 2 => 5_u32..13, 1 => 13_u32..23])
            .prop_map(|(bytes, align_shift)| Step::Allocate { bytes, align_shift }),
        8 => (0_usize..200).prop_map(|place| Step::Free { place }),
        5 => (0_usize..200, sizes()).prop_map(|(place, bytes)| Step::Resize { place, bytes }),
        1 => any::<bool>().prop_map(|everything| Step::Collect { everything }),
        1 => Just(Step::Sweep),
        1 => Just(Step::ForkedChild),
    ]
}

struct Live {
    block: NonNull<u8>,
    bytes: usize,
    align: usize,
    mark: u8,
}

impl Live {
    fn check(&self, level: &Level) {
        assert!(bytes_of(self.block, self.bytes).iter().all(|&byte| byte == self.mark), "{} bytes changed", self.bytes);
        assert_eq!(level.usable_size(self.block), self.bytes);
    }
}

fn allocate(level: &Level, bytes: usize, align: usize, mark: u8) -> Option<Live> {
    let block = level.allocate(bytes, align)?;
    let contents = bytes_of(block, bytes);
    assert!(block.addr().get().is_multiple_of(align) && contents.iter().all(|&byte| byte == 0));
    contents.fill(mark);
    Some(Live { block, bytes, align, mark })
}

fn play(limits: Limits, steps: Vec<Step>) {
    let level = Level::new(limits);
    let mut live: Vec<Live> = Vec::new();
    for (number, step) in steps.into_iter().enumerate() {
        let mark = (number % 255) as u8 + 1;
        match step {
            Step::Allocate { bytes, align_shift } => live.extend(allocate(&level, bytes, 1 << align_shift, mark)),
            Step::Free { place } if !live.is_empty() => {
                let gone = live.swap_remove(place % live.len());
                gone.check(&level);
                level.free(gone.block, gone.bytes, gone.align);
            }
            Step::Resize { place, bytes } if !live.is_empty() => {
                let place = place % live.len();
                let old = &mut live[place];
                old.check(&level);
                if level.resize(old.block, old.bytes, old.align, bytes) {
                    let added = bytes_of(old.block, bytes);
                    assert!(added.iter().skip(old.bytes).all(|&byte| byte == 0));
                    added.fill(old.mark);
                    old.bytes = bytes;
                }
            }
            Step::Free { .. } | Step::Resize { .. } => {}
            Step::Collect { everything } => {
                level.hardened.collect(level.cx(), everything);
            }
            Step::Sweep => level.hardened.sweep(level.cx()),
            Step::ForkedChild => {
                level.hardened.lock_for_fork();
                // SAFETY: this thread took the locks in the line before.
                unsafe { level.hardened.unlock_after_fork() };
                level.hardened.stir_in_child();
            }
        }
        level.hardened.check_invariants();
        assert_eq!(level.hardened.stats().live_bytes, live.iter().map(|block| block.bytes as u64).sum::<u64>());
    }
    for block in &live {
        block.check(&level);
    }
    for gone in live {
        level.free(gone.block, gone.bytes, gone.align);
    }
    level.hardened.sweep(level.cx());
    level.hardened.collect(level.cx(), true);
    assert_eq!(level.os.in_use_bytes(), 0, "units were lost");
    assert!(
        (0..level.routes.len()).all(|unit| level.routes.get(unit).unwrap().route() == hakmem_ownership::Route::Unused)
    );
    level.os.check_invariants();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(48), ..ProptestConfig::default() })]

    #[test]
    fn every_block_keeps_its_bytes_and_everything_comes_back(
        steps in prop::collection::vec(steps(), 1..if cfg!(miri) { 30 } else { 300 }),
        quarantine_blocks in prop_oneof![Just(0_usize), Just(3), Just(100)],
        guards in prop_oneof![Just(0_u64), Just(5), Just(u64::MAX)],
    ) {
        play(Limits { quarantine_bytes: 1 << 20, quarantine_blocks, guards }, steps);
    }
}
