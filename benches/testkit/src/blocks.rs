//! Blocks whose every byte carries a pattern made from the block's own address and a stamp, checked before they are freed.
//!
//! A block handed out twice, a link word left inside a live block, or a purge of live pages shows as a wrong byte.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::ptr::NonNull;

use crate::Random;

/// A block full of its pattern. It must be checked by [`Filled::release`]; dropping it leaks.
#[derive(Debug)]
pub struct Filled {
    block: NonNull<u8>,
    layout: Layout,
    stamp: u64,
    /// Bytes that carry the pattern at the start of each 4 KiB.
    bytes_per_page: usize,
}

const PAGE_BYTES: usize = 4096;
/// What is added from word to word of the pattern.
const STEP: u64 = 0x0101_0101_0101_0101;
/// Bytes per page of a light block: a cache line.
const LIGHT_BYTES: usize = 64;

// SAFETY: a `Filled` is the only holder of its block, and blocks may be freed by any thread.
unsafe impl Send for Filled {}

/// What was wrong with a block.
pub type Damage = String;

impl Filled {
    /// Allocates `bytes` bytes (at least one) aligned to `align` and fills them; `None` when memory is refused.
    #[must_use]
    pub fn new(bytes: usize, align: usize, stamp: u64) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.max(1), align).ok()?;
        // SAFETY: the size is at least one.
        let block = NonNull::new(unsafe { alloc(layout) })?;
        let filled = Self { block, layout, stamp, bytes_per_page: PAGE_BYTES };
        filled.fill();
        Some(filled)
    }

    /// The same with the pattern in only one cache line of each 4 KiB, where the allocator's own time matters, too.
    #[must_use]
    pub fn light(bytes: usize, align: usize, stamp: u64) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.max(1), align).ok()?;
        // SAFETY: the size is at least one.
        let block = NonNull::new(unsafe { alloc(layout) })?;
        let filled = Self { block, layout, stamp, bytes_per_page: LIGHT_BYTES };
        filled.fill();
        Some(filled)
    }

    /// The same from `alloc_zeroed`, which is checked.
    ///
    /// # Errors
    /// Names the first byte that is not zero.
    pub fn zeroed(bytes: usize, align: usize, stamp: u64) -> Result<Option<Self>, Damage> {
        let Ok(layout) = Layout::from_size_align(bytes.max(1), align) else { return Ok(None) };
        // SAFETY: the size is at least one.
        let Some(block) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { return Ok(None) };
        let filled = Self { block, layout, stamp, bytes_per_page: PAGE_BYTES };
        if let Some(offset) = filled.bytes().iter().position(|&byte| byte != 0) {
            return Err(format!("alloc_zeroed: byte {offset} of {layout:?} at {block:?} is not zero"));
        }
        filled.fill();
        Ok(Some(filled))
    }

    /// Bytes asked for.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.layout.size()
    }

    /// Never true: a block has at least one byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.layout.size() == 0
    }

    /// Checks every byte that was written, and the alignment.
    ///
    /// # Errors
    /// Says which byte is wrong.
    pub fn check(&self) -> Result<(), Damage> {
        self.check_first(self.len(), self.seed())?;
        if self.block.addr().get().is_multiple_of(self.layout.align()) {
            return Ok(());
        }
        Err(format!("{:?} is not aligned for {:?}", self.block, self.layout))
    }

    /// Checks every byte and frees the block.
    ///
    /// # Errors
    /// Says which byte was wrong; the block is freed all the same.
    pub fn release(self) -> Result<(), Damage> {
        let checked = self.check();
        // SAFETY: the block was allocated with this layout, and `self` is its only holder.
        unsafe { dealloc(self.block.as_ptr(), self.layout) };
        checked
    }

    /// Checks, reallocates to `bytes`, checks what had to be kept, and refills. A refusal gives the block back unchanged.
    ///
    /// # Errors
    /// Says which byte was wrong.
    pub fn resize(mut self, bytes: usize) -> Result<Self, Damage> {
        self.check()?;
        let bytes = bytes.max(1);
        let seed = self.seed();
        // SAFETY: the block was allocated with this layout, `self` is its only holder, the new size is not zero and small.
        let moved = unsafe { realloc(self.block.as_ptr(), self.layout, bytes) };
        let Some(moved) = NonNull::new(moved) else { return Ok(self) };
        let kept = self.len().min(bytes);
        self.block = moved;
        self.layout = Layout::from_size_align(bytes, self.layout.align()).map_err(|error| error.to_string())?;
        self.check_first(kept, seed).map_err(|damage| format!("after realloc: {damage}"))?;
        self.fill();
        Ok(self)
    }

    fn seed(&self) -> u64 {
        (self.block.addr().get() as u64 ^ self.stamp).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the block holds `len` bytes; callers have written them or got them zeroed, and nobody else writes them.
        unsafe { std::slice::from_raw_parts(self.block.as_ptr(), self.layout.size()) }
    }

    fn fill(&self) {
        let seed = self.seed();
        // SAFETY: the block holds `len` bytes that only we touch.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.block.as_ptr(), self.layout.size()) };
        for (index, page) in bytes.chunks_mut(PAGE_BYTES).enumerate() {
            let written = page.len().min(self.bytes_per_page);
            let (words, rest) = page[..written].as_chunks_mut::<8>();
            let mut word = page_seed(seed, index);
            for place in words {
                *place = word.to_ne_bytes();
                word = word.wrapping_add(STEP);
            }
            rest.copy_from_slice(&word.to_ne_bytes()[..rest.len()]);
        }
    }

    /// Checks the pattern in the first `bytes` bytes, written with `seed`.
    fn check_first(&self, bytes: usize, seed: u64) -> Result<(), Damage> {
        for (index, page) in self.bytes()[..bytes].chunks(PAGE_BYTES).enumerate() {
            let page = &page[..page.len().min(self.bytes_per_page)];
            let (words, rest) = page.as_chunks::<8>();
            // Differences are gathered without a branch; where they are is looked up only when there are some.
            let mut word = page_seed(seed, index);
            let mut difference = 0;
            for found in words {
                difference |= u64::from_ne_bytes(*found) ^ word;
                word = word.wrapping_add(STEP);
            }
            if difference != 0 || *rest != word.to_ne_bytes()[..rest.len()] {
                return Err(self.describe(index, page, page_seed(seed, index)));
            }
        }
        Ok(())
    }

    #[cold]
    fn describe(&self, page_index: usize, page: &[u8], seed: u64) -> Damage {
        let expected = (0..).flat_map(|index: u64| seed.wrapping_add(index.wrapping_mul(STEP)).to_ne_bytes());
        let wrong: Vec<_> =
            page.iter().zip(expected).enumerate().filter(|(_, (found, wrote))| **found != *wrote).collect();
        let first = wrong.first().map(|(offset, (found, wrote))| {
            format!("the first at {}, found {found:#04x}, wrote {wrote:#04x}", page_index * PAGE_BYTES + offset)
        });
        format!(
            "{:?} at {:?} was overwritten: {} bytes of one page are wrong, {}",
            self.layout,
            self.block,
            wrong.len(),
            first.unwrap_or_default()
        )
    }
}

/// Pages of one block differ, so that pages that changed places are found.
const fn page_seed(seed: u64, page_index: usize) -> u64 {
    seed.wrapping_add((page_index as u64).wrapping_mul(0xd1b5_4a32_d192_ed03))
}

/// Slots of filled blocks that are replaced at random.
#[derive(Debug)]
pub struct Blocks {
    slots: Vec<Option<Filled>>,
    random: Random,
    make: fn(usize, usize, u64) -> Option<Filled>,
}

impl Blocks {
    /// Empty slots for blocks that are filled entirely.
    #[must_use]
    pub fn new(slots: usize, seed: u64) -> Self {
        Self { slots: (0..slots).map(|_| None).collect(), random: Random::new(seed), make: Filled::new }
    }

    /// Empty slots for light blocks.
    #[must_use]
    pub fn light(slots: usize, seed: u64) -> Self {
        Self { make: Filled::light, ..Self::new(slots, seed) }
    }

    /// Frees what a random slot holds, every byte checked, and puts a new block of `low..=high` bytes there.
    ///
    /// # Errors
    /// Says which byte was wrong, or that memory was refused.
    pub fn replace(&mut self, low: usize, high: usize) -> Result<(), Damage> {
        let (slot, size) = self.random.slot_and_size(self.slots.len(), low, high);
        let stamp = self.random.next();
        self.slots[slot].take().map_or(Ok(()), Filled::release)?;
        let block = (self.make)(size, 8, stamp).ok_or_else(|| format!("{size} bytes were refused"))?;
        self.slots[slot] = Some(block);
        Ok(())
    }

    /// Puts `block` into a random slot and returns what was there.
    pub fn exchange(&mut self, block: Option<Filled>) -> Option<Filled> {
        let slot = self.random.below(self.slots.len());
        std::mem::replace(&mut self.slots[slot], block)
    }

    /// Frees everything, every byte checked.
    ///
    /// # Errors
    /// Says which byte was wrong.
    pub fn release(&mut self) -> Result<(), Damage> {
        self.slots.iter_mut().filter_map(Option::take).try_for_each(Filled::release)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_found_wherever_it_is() {
        for offset in [0, 1, 7, 8, 99, 100] {
            let block = Filled::new(101, 8, 5).unwrap();
            block.check().unwrap();
            // SAFETY: `offset` is below the 101 bytes of the block.
            let byte = unsafe { block.block.as_ptr().add(offset) };
            // SAFETY: the byte is in the block, which is filled and which nobody else uses.
            let old = unsafe { byte.read() };
            // SAFETY: as above.
            unsafe { byte.write(old.wrapping_add(1)) };
            assert!(block.release().is_err(), "{offset}");
        }
    }

    #[test]
    fn resizing_keeps_and_refills() {
        let mut block = Filled::zeroed(10, 16, 7).unwrap().unwrap();
        for bytes in [1, 100, 5000, 300_000, 64, 8] {
            block = block.resize(bytes).unwrap();
            assert_eq!(block.len(), bytes);
        }
        block.release().unwrap();
    }

    #[test]
    fn replaced_blocks_are_all_released() {
        let mut blocks = Blocks::new(10, 1);
        for _ in 0..100 {
            blocks.replace(16, 100).unwrap();
        }
        blocks.release().unwrap();
        assert!(blocks.exchange(None).is_none());
    }
}
