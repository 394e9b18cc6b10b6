//! Remote frees collected by the freeing thread, so that one exchange hands over many.

use crate::queue::Chain;
use core::cell::Cell;
use hakmem_base::{SlabIndex, client_check, write_link};

/// Slabs that an outbox collects for at the same time.
const ENTRIES: usize = 32;

/// Chains of blocks that this thread has freed and other threads own, one per target slab.
///
/// Direct-mapped by slab: a block for a new slab displaces the chain that stands in its place. Only the thread that
/// holds the outbox touches it. All zero means empty.
#[derive(Debug)]
pub struct Outbox {
    entries: [Entry; ENTRIES],
    /// A block has come since the outbox was last seen empty: a thread that frees nothing of others does not look through it.
    in_use: Cell<bool>,
}

#[derive(Debug)]
struct Entry {
    first: Cell<*mut u8>,
    last: Cell<*mut u8>,
    slab: Cell<u32>,
    count: Cell<u32>,
}

impl Entry {
    const fn empty() -> Self {
        Self {
            first: Cell::new(core::ptr::null_mut()),
            last: Cell::new(core::ptr::null_mut()),
            slab: Cell::new(0),
            count: Cell::new(0),
        }
    }

    fn take(&self) -> Option<(SlabIndex, Chain)> {
        let count = self.count.replace(0);
        let slab = SlabIndex::from_link(self.slab.get())?;
        (count != 0).then(|| (slab, Chain { first: self.first.get(), last: self.last.get(), count }))
    }
}

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: [const { Entry::empty() }; ENTRIES], in_use: Cell::new(false) }
    }

    /// Adds `block` of `slab`. Returns a chain that has to be pushed now: the displaced one of another slab, or this
    /// slab's when it has reached `limit` blocks.
    ///
    /// # Safety
    /// - `block` is a block of `slab` that the caller holds: freed by its user and on no list.
    #[inline]
    #[must_use]
    pub unsafe fn add(&self, slab: SlabIndex, block: *mut u8, limit: u32) -> Option<(SlabIndex, Chain)> {
        let entry = self.entries.get(slab.to_usize() % ENTRIES)?;
        let displaced = if entry.count.get() != 0 && entry.slab.get() != slab.get() { entry.take() } else { None };
        let count = entry.count.get();
        if count == 0 {
            entry.slab.set(slab.get());
            entry.last.set(block);
            self.in_use.set(true);
        }
        let next = if count == 0 { core::ptr::null_mut() } else { entry.first.get() };
        client_check!(next != block, "double free: block already freed by this thread", block.addr());
        // SAFETY: the caller hands the block over to this outbox.
        unsafe { write_link(block, next) };
        entry.first.set(block);
        entry.count.set(count + 1);
        if displaced.is_none() && count + 1 >= limit { entry.take() } else { displaced }
    }

    /// Takes one chain out, in no particular order; `None` when the outbox is empty.
    #[must_use]
    #[unsafe(link_section = ".text.hot.hakmem")]
    pub fn take_any(&self) -> Option<(SlabIndex, Chain)> {
        if !self.in_use.get() {
            return None;
        }
        let taken = self.entries.iter().find_map(Entry::take);
        self.in_use.set(taken.is_some());
        taken
    }

    /// Blocks collected at this moment.
    #[must_use]
    pub fn block_count(&self) -> u32 {
        self.entries.iter().map(|entry| entry.count.get()).sum()
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hakmem_base::read_link;
    use proptest::prelude::*;

    #[test]
    fn blocks_of_a_slab_leave_together_at_the_limit_or_for_another_slab() {
        let mut memory = [[0_u64; 2]; 9];
        let blocks: Vec<*mut u8> = memory.iter_mut().map(|block| block.as_mut_ptr().cast()).collect();
        let outbox = Outbox::new();
        let (slab, in_its_place) = (SlabIndex::new(5), SlabIndex::new(5 + ENTRIES as u32));
        let add = |slab, index: usize, limit| {
            // SAFETY: each block is added once.
            unsafe { outbox.add(slab, blocks[index], limit) }.map(|(slab, chain)| (slab, chain.first, chain.count))
        };
        for index in 0..3 {
            assert_eq!(add(slab, index, 4), None);
        }
        assert_eq!((outbox.block_count(), add(slab, 3, 4)), (3, Some((slab, blocks[3], 4))));
        assert_eq!(add(slab, 4, 4), None);
        assert_eq!(add(slab, 5, 4), None);
        assert_eq!(add(in_its_place, 6, 4), Some((slab, blocks[5], 2)));
        assert_eq!(add(slab, 7, 1), Some((in_its_place, blocks[6], 1)), "the displaced chain goes first");
        assert_eq!(add(slab, 8, 1), Some((slab, blocks[8], 2)));
        assert_eq!(outbox.block_count(), 0);
        assert!(outbox.take_any().is_none());
    }

    proptest! {
        #[test]
        fn every_block_leaves_once_in_a_chain_of_its_own_slab(slabs in prop::collection::vec(prop_oneof![1_u32..40, 1_u32..1 << 20], 1..300), limit in 1_u32..20) {
            let mut memory = vec![[0_u64; 2]; slabs.len()];
            let blocks: Vec<*mut u8> = memory.iter_mut().map(|block| block.as_mut_ptr().cast()).collect();
            let outbox = Outbox::new();
            let mut left: Vec<(u32, *mut u8)> = Vec::new();
            let mut take = |slab: SlabIndex, chain: Chain| {
                let mut block = chain.first;
                for position in 0..chain.count {
                    left.push((slab.get(), block));
                    if position + 1 == chain.count {
                        assert_eq!(block, chain.last);
                    }
                    // SAFETY: the chain's blocks are the test's.
                    block = unsafe { read_link(block) };
                }
                assert!(chain.count <= limit.max(1));
            };
            for (&slab, &block) in slabs.iter().zip(&blocks) {
                // SAFETY: each block is added once.
                if let Some((slab, chain)) = unsafe { outbox.add(SlabIndex::new(slab), block, limit) } {
                    take(slab, chain);
                }
            }
            while let Some((slab, chain)) = outbox.take_any() {
                take(slab, chain);
            }
            prop_assert_eq!(outbox.block_count(), 0);
            let mut expected: Vec<_> = slabs.iter().copied().zip(blocks.iter().copied()).collect();
            expected.sort();
            left.sort();
            prop_assert_eq!(left, expected);
        }
    }
}
