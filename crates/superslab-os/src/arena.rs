//! Memory for metadata that lives as long as the process.

use crate::sys;
use core::ptr::NonNull;
use hakmem_atomic_ops::{Lock, Shared64, SharedUsize};
use hakmem_base::OS_PAGE_BYTES;

/// Bytes mapped at a time; larger requests get a mapping of their own size.
const CHUNK_BYTES: usize = 256 * 1024;

/// Hands out zeroed memory and never takes it back.
#[derive(Debug)]
pub struct MetaArena {
    chunk: Lock<Chunk>,
    /// Written under the lock, read by statistics.
    reserved_bytes: SharedUsize,
    /// Chunks that the kernel refused; relaxed, statistics.
    refused: Shared64,
}

#[derive(Debug)]
struct Chunk {
    next: *mut u8,
    left: usize,
}

// SAFETY: the chunk's unused part belongs to the arena alone, whichever thread holds the lock.
unsafe impl Send for Chunk {}

impl Chunk {
    fn cut(&mut self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let padding = self.next.align_offset(align);
        let used = bytes.checked_add(padding)?;
        if self.next.is_null() || used > self.left {
            return None;
        }
        let block = self.next.wrapping_add(padding);
        self.next = self.next.wrapping_add(used);
        self.left -= used;
        NonNull::new(block)
    }
}

impl MetaArena {
    /// An arena without memory.
    #[must_use]
    pub const fn new() -> Self {
        let chunk = Chunk { next: core::ptr::null_mut(), left: 0 };
        Self { chunk: Lock::new(chunk), reserved_bytes: SharedUsize::new(0), refused: Shared64::new(0) }
    }

    /// `bytes` zeroed bytes aligned to `align` (a power of two), for ever; `None` if the kernel refuses.
    #[unsafe(link_section = ".text.hot.hakmem")]
    pub fn allocate(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        if bytes == 0 || !align.is_power_of_two() {
            return None;
        }
        let mut chunk = self.chunk.lock();
        if let Some(block) = chunk.cut(bytes, align) {
            return Some(block);
        }
        let needed = bytes.checked_add(align)?.checked_next_multiple_of(OS_PAGE_BYTES)?;
        let mapped_bytes = needed.max(CHUNK_BYTES);
        let Ok(start) = sys::map_memory(mapped_bytes) else {
            self.refused.add_relaxed(1);
            return None;
        };
        self.reserved_bytes.add_relaxed(mapped_bytes);
        let mut fresh = Chunk { next: start.as_ptr(), left: mapped_bytes };
        let block = fresh.cut(bytes, align);
        // The chunk with more left serves the next requests; the rest of the other is wasted, and stays untouched.
        if fresh.left > chunk.left {
            *chunk = fresh;
        }
        block
    }

    /// Bytes of address space that the arena holds.
    #[must_use]
    pub fn reserved_bytes(&self) -> usize {
        self.reserved_bytes.load_relaxed()
    }

    /// Times that the kernel refused memory for the arena.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load_relaxed()
    }

    /// Takes the arena's lock before a fork.
    pub fn lock_for_fork(&self) {
        self.chunk.lock_for_fork();
    }

    /// Releases what [`MetaArena::lock_for_fork`] took, in parent and child.
    ///
    /// # Safety
    /// - This thread (or the thread that it is a forked copy of) called `lock_for_fork`.
    pub unsafe fn unlock_after_fork(&self) {
        // SAFETY: passed on to the caller.
        unsafe { self.chunk.unlock_after_fork() };
    }
}

impl Default for MetaArena {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_zeroed_aligned_and_apart() {
        let arena = MetaArena::new();
        let mut ends = 0;
        for round in 0..if cfg!(miri) { 22 } else { 200 } {
            let align = 8 << (round % 11);
            let block = arena.allocate(3000, align).unwrap();
            assert_eq!(block.as_ptr().addr() % align, 0);
            // SAFETY: the arena handed out 3000 bytes.
            let bytes = unsafe { core::slice::from_raw_parts_mut(block.as_ptr(), 3000) };
            assert!(bytes.iter().all(|&byte| byte == 0), "written before: overlaps an earlier block");
            bytes.fill(0xaa);
            ends += 3000;
        }
        assert!(arena.reserved_bytes() >= ends);
    }

    #[test]
    fn large_requests_get_their_own_mapping() {
        let arena = MetaArena::new();
        assert!(arena.allocate(3 * CHUNK_BYTES, 8192).is_some());
        assert!(arena.allocate(0, 8).is_none());
        assert!(arena.allocate(usize::MAX, 8).is_none());
        assert!(arena.allocate(8, 3).is_none());
    }
}
