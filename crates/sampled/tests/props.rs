//! Random calls, right and wrong ones, against a list of the blocks that should be in use.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a panic is how a test fails")]

mod support;

use hakmem_sampled::{MAX_BYTES, Mistake};
use hakmem_testkit::cases;
use proptest::prelude::*;
use support::{Guarded, poke};

#[derive(Clone, Copy, Debug)]
enum Action {
    Take { bytes: usize, shift: u32, at_end: bool },
    Give(usize),
    GiveAgain,
    GiveInside(usize, usize),
    Overflow(usize),
}

fn action() -> impl Strategy<Value = Action> {
    let bytes = prop_oneof![4 => 0_usize..200, 2 => 0..9000_usize, 1 => 0..=MAX_BYTES];
    prop_oneof![
        4 => (bytes, 0_u32..=12, any::<bool>()).prop_map(|(bytes, shift, at_end)| Action::Take { bytes, shift, at_end }),
        3 => any::<usize>().prop_map(Action::Give),
        1 => Just(Action::GiveAgain),
        1 => (any::<usize>(), 1_usize..300).prop_map(|(which, offset)| Action::GiveInside(which, offset)),
        1 => any::<usize>().prop_map(Action::Overflow),
    ]
}

struct Block {
    ptr: std::ptr::NonNull<u8>,
    bytes: usize,
    mark: u8,
}

impl Block {
    fn address(&self) -> usize {
        self.ptr.addr().get()
    }

    fn check(&self) {
        // SAFETY: the block is in use and so many bytes long.
        let bytes = unsafe { core::slice::from_raw_parts(self.ptr.as_ptr(), self.bytes) };
        assert!(bytes.iter().all(|&byte| byte == self.mark));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(200), ..ProptestConfig::default() })]

    #[test]
    fn blocks_keep_their_content_and_every_wrong_free_is_found(actions in proptest::collection::vec(action(), 1..80)) {
        const SLOTS: usize = 12;
        let guarded = Guarded::new(SLOTS as u32);
        let (mut live, mut last_freed, mut mark) = (Vec::<Block>::new(), None, 0_u8);
        for action in actions {
            match action {
                Action::Take { bytes, shift, at_end } => {
                    let taken = guarded.take(bytes, 1 << shift, at_end);
                    prop_assert_eq!(taken.is_some(), live.len() < SLOTS);
                    let Some(ptr) = taken else { continue };
                    prop_assert_eq!(ptr.addr().get() % (1 << shift), 0);
                    mark = mark.wrapping_add(1);
                    // SAFETY: the block is the test's.
                    unsafe { ptr.write_bytes(mark, bytes) };
                    live.push(Block { ptr, bytes, mark });
                    if last_freed.is_some_and(|freed| live.iter().any(|block| block.address() == freed)) {
                        last_freed = None;
                    }
                }
                Action::Give(which) if !live.is_empty() => {
                    let block = live.swap_remove(which % live.len());
                    block.check();
                    prop_assert_eq!(guarded.give(block.address()), Ok(()));
                    last_freed = Some(block.address());
                }
                Action::GiveAgain => {
                    let Some(freed) = last_freed else { continue };
                    let mistake = guarded.give(freed).unwrap_err().mistake;
                    // The slot may hold a block at another place by now.
                    prop_assert!(matches!(mistake, Mistake::DoubleFree | Mistake::InvalidFree));
                }
                Action::GiveInside(which, offset) if !live.is_empty() => {
                    let block = &live[which % live.len()];
                    if offset < block.bytes {
                        let finding = guarded.give(block.address() + offset).unwrap_err();
                        prop_assert_eq!((finding.mistake, finding.block), (Mistake::InvalidFree, block.address()));
                    }
                }
                Action::Overflow(which) if !live.is_empty() => {
                    let block = &live[which % live.len()];
                    // What the guard behind the block would not see.
                    if !(block.address() + block.bytes).is_multiple_of(4096) {
                        poke(block.ptr, block.bytes as isize, 1);
                        let finding = guarded.give(block.address()).unwrap_err();
                        prop_assert_eq!(finding.mistake, Mistake::OverflowSeenLate);
                        poke(block.ptr, block.bytes as isize, 0xb7);
                    }
                }
                _ => {}
            }
            guarded.pool.check_invariants();
            prop_assert_eq!(guarded.pool.stats().live as usize, live.len());
        }
        live.iter().for_each(Block::check);
    }
}
