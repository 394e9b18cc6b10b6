//! Blocks, sizes and orders that the benchmarks share.

use std::mem::MaybeUninit;

use hakmem_testkit::Random;

/// A block of some size.
pub(super) type Block = Box<[MaybeUninit<u8>]>;

/// A block of `bytes` bytes whose first byte has been written, as any real use would.
#[inline(always)]
pub(super) fn block(bytes: usize) -> Block {
    let mut block = Box::new_uninit_slice(bytes);
    if let Some(first) = block.first_mut() {
        first.write(1);
    }
    block
}

/// A block whose pages have all been written.
#[inline(always)]
pub(super) fn touched(bytes: usize) -> Block {
    let mut block: Block = Box::new_uninit_slice(bytes);
    for page in block.chunks_mut(4096) {
        page[0].write(1);
    }
    block
}

/// A block of `low..=high` bytes.
pub(super) fn random_block(random: &mut Random, low: usize, high: usize) -> Block {
    block(low + random.below(high - low + 1))
}

/// How many bytes were requested for `blocks`.
pub(super) fn requested<'a>(blocks: impl IntoIterator<Item = &'a Block>) -> u64 {
    blocks.into_iter().map(|block| block.len() as u64).sum()
}

/// `count` sizes of `low..=high` bytes, drawn beforehand so that drawing is not measured.
pub(super) fn sizes(count: usize, low: usize, high: usize, random: &mut Random) -> Vec<u32> {
    (0..count).map(|_| (low + random.below(high - low + 1)) as u32).collect()
}

/// The numbers below `len` in random order.
pub(super) fn shuffled(len: usize, random: &mut Random) -> Vec<u32> {
    let mut order: Vec<u32> = (0..len as u32).collect();
    for index in (1..len).rev() {
        order.swap(index, random.below(index + 1));
    }
    order
}

/// Slots of blocks that are replaced at random.
pub(super) struct Slots {
    blocks: Vec<Block>,
    random: Random,
    low: usize,
    high: usize,
}

impl Slots {
    /// As many blocks of `low..=high` bytes.
    pub(super) fn new(slots: usize, low: usize, high: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let blocks = (0..slots).map(|_| random_block(&mut random, low, high)).collect();
        Self { blocks, random, low, high }
    }

    /// The same, each slot replaced about twice: from a fresh heap's order to a used one's.
    pub(super) fn used(slots: usize, low: usize, high: usize, seed: u64) -> Self {
        let mut slots = Self::new(slots, low, high, seed);
        slots.replace(2 * slots.blocks.len() as u64);
        slots
    }

    /// Replaces a random one, `ops` times.
    #[inline]
    pub(super) fn replace(&mut self, ops: u64) {
        for _ in 0..ops {
            let (slot, size) = self.random.slot_and_size(self.blocks.len(), self.low, self.high);
            if let Some(place) = self.blocks.get_mut(slot) {
                *place = std::hint::black_box(block(size));
            }
        }
    }

    /// Writes to the first byte of a random one, `ops` times: what a replacement costs a program beside its allocator.
    pub(super) fn touch(&mut self, ops: u64) {
        for _ in 0..ops {
            let (slot, size) = self.random.slot_and_size(self.blocks.len(), self.low, self.high);
            if let Some(first) = self.blocks.get_mut(slot).and_then(|block| block.first_mut()) {
                first.write(size as u8);
            }
        }
    }

    /// The blocks.
    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffled_order_holds_each_index_once() {
        let mut order = shuffled(100, &mut Random::new(9));
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn replaced_slots_stay_as_many_and_within_their_sizes() {
        let mut slots = Slots::used(50, 16, 64, 1);
        slots.replace(1000);
        slots.touch(100);
        assert_eq!(slots.blocks().len(), 50);
        assert!(slots.blocks().iter().all(|block| (16..=64).contains(&block.len())));
        assert!((50 * 16..=50 * 64).contains(&requested(slots.blocks())));
    }
}
