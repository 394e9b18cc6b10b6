//! The blocks in use: where they lie, which must not be the same place twice, and what stands in them.
//!
//! **Invariants.** No two blocks overlap in their usable bytes. Each block carries a pattern made from its stamp, so that
//! contents that moved, or changed places with another block's, are found.

use std::collections::BTreeMap;
use std::ptr::NonNull;

use crate::Damage;

/// Bytes at the start of a block that all carry the pattern; of the rest, some lines and the end do.
const WHOLE_BYTES: usize = 4096;
/// Bytes of such a line.
const LINE_BYTES: usize = 64;
/// Most lines of a block.
const LINES: usize = 64;
/// Blocks up to this size are looked at byte by byte when they ought to be zero, larger ones once per OS page.
const WHOLE_ZERO_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = 4096;
/// Zeroed blocks above this size are looked at where they carry the pattern only: a look costs an OS page.
const PAGED_ZERO_BYTES: usize = 64 << 20;

/// A block in use.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// Where it begins.
    pub pointer: NonNull<u8>,
    /// Bytes asked for.
    pub asked: usize,
    /// Bytes that may be used, all of them in nobody else's block.
    pub usable: usize,
    /// What its address is a multiple of.
    pub align: usize,
    stamp: u64,
}

// SAFETY: a `Block` is a note about memory that whoever holds the note may use; any thread may hold it.
unsafe impl Send for Block {}

/// All blocks in use.
#[derive(Debug, Default)]
pub struct Held {
    blocks: BTreeMap<usize, Block>,
    /// Addresses in no order that means something, for picking one by number.
    order: Vec<usize>,
    bytes: usize,
    stamps: u64,
}

impl Held {
    /// No blocks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of blocks.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.order.len()
    }

    /// Usable bytes of all blocks.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a new block in: aligned, overlapping none, zero if it is said to be. Its usable bytes get a pattern.
    ///
    /// # Errors
    /// What is wrong with the block; it is not taken in.
    pub fn admit(&mut self, block: NonNull<u8>, request: Request, usable: usize) -> Result<(), Damage> {
        self.judge(block, request, usable)?;
        if request.zeroed {
            check_zero(block, request.asked)?;
        }
        self.insert(block, request, usable);
        Ok(())
    }

    /// Takes a block in that holds the contents of `old`, which has been [taken](Self::take) out: what both sizes cover.
    ///
    /// # Errors
    /// What is wrong with the block; it is not taken in.
    pub fn admit_resized(
        &mut self,
        old: &Block,
        block: NonNull<u8>,
        request: Request,
        usable: usize,
    ) -> Result<(), Damage> {
        self.judge(block, request, usable)?;
        check_pattern(block, old.stamp, old.usable, old.asked.min(request.asked))
            .map_err(|damage| format!("contents of {old:?} after it became {request:?}: {damage}"))?;
        self.insert(block, request, usable);
        Ok(())
    }

    /// Takes a block back in that was taken out and is as it was.
    ///
    /// # Errors
    /// It is not as it was.
    pub fn put_back(&mut self, block: Block) -> Result<(), Damage> {
        block.check()?;
        self.bytes += block.usable;
        self.order.push(block.pointer.addr().get());
        self.blocks.insert(block.pointer.addr().get(), block);
        Ok(())
    }

    /// A block by number; any number will do if there is a block.
    #[must_use]
    pub fn pick(&self, place: usize) -> Option<Block> {
        let address = self.order.get(place.checked_rem(self.order.len())?)?;
        self.blocks.get(address).copied()
    }

    /// Takes a block out by number, checked, to be freed or resized.
    ///
    /// # Errors
    /// Its contents have changed.
    pub fn take(&mut self, place: usize) -> Result<Option<Block>, Damage> {
        let Some(place) = place.checked_rem(self.order.len()) else { return Ok(None) };
        let address = self.order.swap_remove(place);
        let block = self.blocks.remove(&address);
        if let Some(block) = block {
            self.bytes -= block.usable;
            block.check()?;
        }
        Ok(block)
    }

    /// Checks every block.
    ///
    /// # Errors
    /// The first one whose contents have changed.
    pub fn check(&self) -> Result<(), Damage> {
        self.blocks.values().try_for_each(Block::check)
    }

    fn judge(&self, block: NonNull<u8>, request: Request, usable: usize) -> Result<(), Damage> {
        let start = block.addr().get();
        if !start.is_multiple_of(request.align) {
            return Err(format!("{start:#x} is not aligned for {request:?}"));
        }
        if usable < request.asked {
            return Err(format!("{start:#x} has {usable} usable bytes for {request:?}"));
        }
        let Some(end) = start.checked_add(usable.max(1)) else {
            return Err(format!("{start:#x} with {usable} bytes passes the end of the address space"));
        };
        // The nearest block that begins before the end is the only one that can reach into the new block.
        if let Some((&other, found)) = self.blocks.range(..end).next_back()
            && other + found.usable.max(1) > start
        {
            return Err(format!("{start:#x} with {usable} bytes for {request:?} overlaps {found:?}"));
        }
        Ok(())
    }

    fn insert(&mut self, pointer: NonNull<u8>, request: Request, usable: usize) {
        self.stamps += 1;
        let block = Block { pointer, asked: request.asked, usable, align: request.align, stamp: self.stamps };
        block.fill();
        self.bytes += usable;
        self.order.push(pointer.addr().get());
        self.blocks.insert(pointer.addr().get(), block);
    }
}

/// What a block was asked for as.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Bytes.
    pub asked: usize,
    /// What the address must be a multiple of, a power of two.
    pub align: usize,
    /// Whether it must read as zero.
    pub zeroed: bool,
}

impl Block {
    /// Checks the pattern.
    ///
    /// # Errors
    /// Says where it differs.
    pub fn check(&self) -> Result<(), Damage> {
        check_pattern(self.pointer, self.stamp, self.usable, self.usable)
            .map_err(|damage| format!("{self:?}: {damage}"))
    }

    fn fill(&self) {
        for (first, end) in places(self.usable) {
            for offset in first..end {
                // SAFETY: the offset is below the usable bytes of a block that only the model's holder uses.
                let place = unsafe { self.pointer.as_ptr().add(offset) };
                // SAFETY: as above.
                unsafe { place.write(pattern(self.stamp, offset)) };
            }
        }
    }
}

/// The ranges of a block of `bytes` bytes that carry the pattern. Most of a large block stays untouched.
fn places(bytes: usize) -> impl Iterator<Item = (usize, usize)> {
    let step = (bytes / LINES).next_multiple_of(LINE_BYTES).max(1024);
    let whole = bytes.min(WHOLE_BYTES);
    let lines = (1..=LINES).map(move |index| WHOLE_BYTES + index * step).map(|first| (first, first + LINE_BYTES));
    let end = (bytes.saturating_sub(LINE_BYTES).max(whole), bytes);
    core::iter::once((0, whole)).chain(lines.take_while(move |line| line.1 < end.0)).chain(core::iter::once(end))
}

fn pattern(stamp: u64, offset: usize) -> u8 {
    let mixed = (stamp ^ (offset as u64 >> 3)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (8 * (offset & 7))) as u8 ^ (mixed >> 56) as u8
}

/// Checks what a block of `written` bytes carries in its first `kept` bytes.
fn check_pattern(block: NonNull<u8>, stamp: u64, written: usize, kept: usize) -> Result<(), Damage> {
    for (first, end) in places(written) {
        for offset in first..end.min(kept) {
            // SAFETY: the caller's block has `kept` bytes.
            let place = unsafe { block.as_ptr().add(offset) };
            // SAFETY: as above; they have been written, or moved here from where they were.
            let (found, wrote) = (unsafe { place.read() }, pattern(stamp, offset));
            if found != wrote {
                return Err(format!("byte {offset} is {found:#04x}, was {wrote:#04x}"));
            }
        }
    }
    Ok(())
}

fn check_zero(block: NonNull<u8>, bytes: usize) -> Result<(), Damage> {
    let is_zero = |first: usize, end: usize| {
        // SAFETY: the offset is below the block's bytes.
        let start = unsafe { block.as_ptr().add(first) };
        // SAFETY: the range lies in the caller's block, which was handed out as zeroed memory.
        let found = unsafe { std::slice::from_raw_parts(start, end - first) };
        match found.iter().position(|&byte| byte != 0) {
            Some(at) => Err(format!("byte {} of {bytes} at {block:?} is not zero", first + at)),
            None => Ok(()),
        }
    };
    if bytes <= WHOLE_ZERO_BYTES {
        return is_zero(0, bytes);
    }
    if bytes <= PAGED_ZERO_BYTES {
        (0..bytes).step_by(PAGE_BYTES).try_for_each(|first| is_zero(first, bytes.min(first + LINE_BYTES)))?;
    }
    places(bytes).try_for_each(|(first, end)| is_zero(first, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Request = Request { asked: 64, align: 16, zeroed: false };

    #[repr(align(64))]
    struct Memory([u8; 16384]);

    fn at(memory: &mut Memory, offset: usize) -> NonNull<u8> {
        NonNull::new(memory.0[offset..].as_mut_ptr()).unwrap()
    }

    #[test]
    fn blocks_that_overlap_by_one_byte_are_refused_from_both_sides() {
        let mut memory = Memory([0; 16384]);
        let base = at(&mut memory, 0);
        // SAFETY: all offsets are inside the memory.
        let place = |offset: usize| unsafe { base.add(offset) };
        let mut held = Held::new();
        held.admit(place(1024), PLAIN, 64).unwrap();
        for (offset, usable) in [(1024, 64), (960, 65), (1072, 64), (512, 4096), (1024, 0x8000_0000)] {
            assert!(held.admit(place(offset), PLAIN, usable).unwrap_err().contains("overlaps"), "{offset}");
        }
        held.admit(place(960), PLAIN, 64).unwrap();
        held.admit(place(1088), PLAIN, 64).unwrap();
        assert_eq!((held.count(), held.bytes()), (3, 192));
        held.check().unwrap();
    }

    #[test]
    fn misaligned_short_and_dirty_blocks_are_refused() {
        let mut memory = Memory([0; 16384]);
        memory.0[100] = 1;
        let mut held = Held::new();
        assert!(held.admit(at(&mut memory, 8), PLAIN, 64).unwrap_err().contains("aligned"));
        assert!(held.admit(at(&mut memory, 0), PLAIN, 63).unwrap_err().contains("usable"));
        let zeroed = Request { zeroed: true, ..PLAIN };
        assert!(held.admit(at(&mut memory, 64), zeroed, 64).unwrap_err().contains("not zero"));
        held.admit(at(&mut memory, 0), zeroed, 64).unwrap();
    }

    #[test]
    fn a_changed_byte_is_found_where_the_pattern_is() {
        for (bytes, offset) in [(64, 0), (64, 63), (4096, 4095), (16000, 4096 + 1024), (16000, 15999), (5000, 4999)] {
            let mut memory = Memory([0; 16384]);
            let base = at(&mut memory, 0);
            let mut held = Held::new();
            held.admit(base, Request { asked: bytes, ..PLAIN }, bytes).unwrap();
            // SAFETY: the offset is inside the block.
            let mut place = unsafe { base.add(offset) };
            // SAFETY: as above; nobody else looks at it.
            *unsafe { place.as_mut() } ^= 0x40;
            assert!(held.check().is_err(), "{bytes} {offset}");
            assert!(held.take(0).is_err(), "{bytes} {offset}");
        }
    }

    #[test]
    fn contents_lost_on_the_way_to_a_new_size_are_found() {
        let mut memory = Memory([0; 16384]);
        let base = at(&mut memory, 0);
        let mut held = Held::new();
        held.admit(base, Request { asked: 5000, ..PLAIN }, 5008).unwrap();
        let old = held.take(7).unwrap().unwrap();
        // SAFETY: the offset is inside the memory.
        let moved = unsafe { base.add(8192) };
        // SAFETY: both ranges lie in the memory.
        unsafe { moved.copy_from_nonoverlapping(base, 4998) };
        assert!(held.admit_resized(&old, moved, Request { asked: 8000, ..PLAIN }, 8000).is_err());
        held.admit_resized(&old, moved, Request { asked: 4998, ..PLAIN }, 5008).unwrap();
        held.check().unwrap();
    }
}
