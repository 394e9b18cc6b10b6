//! An outside block's record, in an OS page of its own: right before the block, until that has moved away.
//!
//! **Invariants.** Whoever walks over a node finds the same block in it for ever; a block that moves gets another node. The block's
//! memory goes when the block is freed, the node's page when no thread can be walking over it any more.

use crate::sys;
use core::cell::Cell;
use core::ptr::NonNull;
use hakmem_atomic_ops::{SharedPtr, SharedUsize, probe};
use hakmem_base::OS_PAGE_BYTES;
use static_assertions::const_assert;

/// Set in a link: the node that holds the link is removed, and the link does not change any more.
const REMOVED: usize = 1;

/// The record of one outside block.
#[derive(Debug)]
pub(crate) struct Node {
    /// The next node of the bucket; bit 0 is [`REMOVED`]. Any thread reads and changes it, the latter by CAS.
    pub(crate) next: SharedPtr<Node>,
    /// The block's usable bytes, whole OS pages. Written by the block's holder. Relaxed: the holder orders its own uses.
    pub(crate) bytes: SharedUsize,
    /// The block's first byte, with the provenance of the whole mapping.
    pub(crate) block: *mut u8,
    /// The next retired node. Touched only by whoever unlinked this one, and later by whoever unmaps it.
    retired_next: Cell<*mut Node>,
}

const_assert!(size_of::<Node>() <= OS_PAGE_BYTES);
const_assert!(align_of::<Node>() > REMOVED);

/// Whether the node that `link` was read from is removed.
pub(crate) fn is_removed(link: *mut Node) -> bool {
    link.addr() & REMOVED != 0
}

/// The link with its mark.
pub(crate) fn with_removed(link: *mut Node) -> *mut Node {
    link.map_addr(|bits| bits | REMOVED)
}

/// The node that a link leads to.
pub(crate) fn target(link: *mut Node) -> Option<NonNull<Node>> {
    NonNull::new(link.map_addr(|bits| bits & !REMOVED))
}

/// A fresh mapping for a block of `bytes` bytes (whole OS pages) at a multiple of `align`, with its node filled in.
pub(crate) fn map_block(bytes: usize, align: usize) -> Option<NonNull<Node>> {
    let align = align.max(OS_PAGE_BYTES);
    // The first aligned address at least a page behind the start is at most `align` behind it.
    let mapped_bytes = bytes.checked_add(align)?;
    let start = sys::map(mapped_bytes)?.as_ptr();
    let after_node = start.wrapping_add(OS_PAGE_BYTES);
    let block = after_node.wrapping_add(after_node.align_offset(align));
    let node = block.wrapping_sub(OS_PAGE_BYTES);
    let (before, used) = (node.addr() - start.addr(), OS_PAGE_BYTES + bytes);
    // SAFETY: the part before the node is ours (mapped above) and nobody knows of it. A refusal leaves it mapped, unused.
    let _is_unmapped = unsafe { sys::unmap(start, before) };
    // SAFETY: the same for the part behind the block.
    let _is_unmapped = unsafe { sys::unmap(node.wrapping_add(used), mapped_bytes - before - used) };
    // SAFETY: a page of ours that nobody else knows yet.
    Some(unsafe { fill_in(NonNull::new(node)?, block, bytes) })
}

/// Makes a page the node of a block of `bytes` bytes.
///
/// # Safety
/// - The page is mapped, and nobody else's.
pub(crate) unsafe fn fill_in(page: NonNull<u8>, block: *mut u8, bytes: usize) -> NonNull<Node> {
    let node = page.cast::<Node>();
    let record = Node {
        next: SharedPtr::new(core::ptr::null_mut()),
        bytes: SharedUsize::new(bytes),
        block,
        retired_next: Cell::new(core::ptr::null_mut()),
    };
    // SAFETY: passed on to the caller; aligned to a page.
    unsafe { node.write(record) };
    // SAFETY: written in the line before.
    let record = unsafe { node.as_ref() };
    probe::writes(&record.block);
    probe::writes(&record.retired_next);
    node
}

/// Puts a node in front of a chain of retired ones and returns the new chain.
///
/// # Safety
/// - The calling thread unlinked `node`, and nobody retired it before.
pub(crate) unsafe fn push_retired(node: NonNull<Node>, chain: *mut Node) -> *mut Node {
    // SAFETY: the page stays mapped until the chain is unmapped, which comes later.
    let record = unsafe { node.as_ref() };
    probe::writes(&record.retired_next);
    // The field is the unlinker's.
    record.retired_next.set(chain);
    node.as_ptr()
}

/// Unmaps the pages of a chain of retired nodes.
///
/// # Safety
/// - The chain was made by [`push_retired`], is unmapped once, and no thread can still reach any of its nodes.
pub(crate) unsafe fn unmap_retired(mut chain: *mut Node) {
    while let Some(node) = NonNull::new(chain) {
        // SAFETY: still mapped: it is unmapped below, and the chain has each node once.
        chain = unsafe { node.as_ref() }.retired_next.get();
        // SAFETY: the caller guarantees that nobody reaches the node; its block was unmapped when it was freed. If the
        // kernel refuses, the page stays mapped without memory behind it.
        let _is_unmapped = unsafe { sys::unmap(node.as_ptr().cast::<u8>(), OS_PAGE_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_zeroed_and_behind_their_node() {
        for align in [16, 4096, 1 << 16, 4 << 20] {
            let node = map_block(3 << 20, align).unwrap();
            // SAFETY: just mapped, nobody else has it.
            let block = unsafe { node.as_ref() }.block;
            assert_eq!(block.addr() % align, 0);
            assert_eq!(node.addr().get() + OS_PAGE_BYTES, block.addr());
            // SAFETY: the mapping has these bytes.
            let bytes = unsafe { core::slice::from_raw_parts_mut(block, 3 << 20) };
            assert!(bytes.iter().all(|&byte| byte == 0));
            bytes.fill(0xee);
            // SAFETY: nobody uses the mapping any more.
            assert!(unsafe { sys::unmap(node.as_ptr().cast::<u8>(), OS_PAGE_BYTES + (3 << 20)) });
        }
        assert!(map_block(usize::MAX & !4095, 16).is_none());
        assert!(map_block(1 << 60, 16).is_none());
    }

    #[test]
    fn marks_leave_the_target_alone() {
        let node = core::ptr::without_provenance_mut::<Node>(0x7000);
        assert!(!is_removed(node) && is_removed(with_removed(node)));
        assert_eq!(target(with_removed(node)), NonNull::new(node));
        assert_eq!(target(with_removed(core::ptr::null_mut())), None);
    }
}
