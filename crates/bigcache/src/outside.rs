//! Blocks outside the window: for when the window is too small or full. Found by address, without a lock.
//!
//! **Not here.** The mappings themselves (`node`), epochs (`pins`).
//! **Invariants.** A node is linked once, in the bucket of its block's address. Its link is marked by the one thread that
//! frees the block, and does not change any more from then on; whoever takes a marked node out of the list retires it.
//! `count` is at least the number of blocks that callers hold.
//! **Access.** Any thread, under an epoch pin. A walker that stands on a node that was taken out meanwhile goes on from it:
//! its link leads to nodes that were in the list when it was marked, and all of them stay mapped while the walker is pinned.
//! **Why.** T. Harris, "A Pragmatic Implementation of Non-Blocking Linked-Lists"; M. Michael, "High Performance Dynamic
//! Lock-Free Hash Tables and List-Based Sets". New nodes go to the front, because addresses are unique.

use crate::node::{self, Node, is_removed, target, with_removed};
use crate::pins::{Pinned, Pins};
use crate::sys;
use core::ptr::NonNull;
use hakmem_atomic_ops::{Shared64, SharedPtr, SharedUsize, probe};
use hakmem_base::OS_PAGE_BYTES;
use static_assertions::const_assert;

/// One in a model, so that all of its blocks meet in it.
const BUCKET_COUNT: usize = if cfg!(alloc_loom) { 1 } else { 64 };
const_assert!(BUCKET_COUNT.is_power_of_two());

/// A bucket's first node. Any thread changes it by CAS; never marked.
type Head = SharedPtr<Node>;

/// The registry.
pub(crate) struct Outside {
    pins: Pins,
    buckets: [Head; BUCKET_COUNT],
    /// Blocks, counted from before they are handed out until after they are freed. Relaxed: see `find`.
    count: SharedUsize,
    /// Bytes of these blocks. Relaxed: statistics.
    bytes: SharedUsize,
    /// Blocks that the kernel would not map, freed ones that it would not unmap, and larger ones to which it would not move one, or for
    /// whose node there was no page. Relaxed: statistics.
    maps_refused: Shared64,
    unmaps_refused: Shared64,
    moves_refused: Shared64,
}

impl Outside {
    pub(crate) const fn new() -> Self {
        Self {
            pins: Pins::new(),
            buckets: [const { SharedPtr::new(core::ptr::null_mut()) }; BUCKET_COUNT],
            count: SharedUsize::new(0),
            bytes: SharedUsize::new(0),
            maps_refused: Shared64::new(0),
            unmaps_refused: Shared64::new(0),
            moves_refused: Shared64::new(0),
        }
    }

    /// Blocks that the kernel would not map, those that it would not unmap, and those that it would not move.
    pub(crate) fn refused(&self) -> (u64, u64, u64) {
        (self.maps_refused.load_relaxed(), self.unmaps_refused.load_relaxed(), self.moves_refused.load_relaxed())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load_relaxed()
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load_relaxed()
    }

    /// Makes what [`Outside::allocate`] needs of the global allocator. A failure is tried again there.
    pub(crate) fn prepare(&self) {
        let _is_ready = self.pins.prepare();
    }

    /// Maps a zeroed block of `bytes` bytes (whole OS pages).
    pub(crate) fn allocate(&self, bytes: usize, align: usize, huge: bool) -> Option<NonNull<u8>> {
        // Freeing needs an epoch, so without one no block is handed out.
        if !self.pins.prepare() {
            return None;
        }
        let Some(node) = node::map_block(bytes, align) else {
            self.maps_refused.add_relaxed(1);
            return None;
        };
        // SAFETY: just made, and not yet in the list.
        let block = unsafe { node.as_ref() }.block;
        if huge {
            sys::advise_huge(block, bytes);
        }
        self.count.add_relaxed(1);
        self.bytes.add_relaxed(bytes);
        self.insert(node);
        NonNull::new(block)
    }

    /// The usable bytes of the block at `address`, or `None` if there is none.
    ///
    /// Whoever holds the block sees a `count` above zero: it was counted before the holder got it and is counted out after
    /// it is freed. So the usual case, no blocks at all, costs one load.
    pub(crate) fn find(&self, address: usize) -> Option<usize> {
        if self.count.load_relaxed() == 0 {
            return None;
        }
        let _pinned = self.pins.pin()?;
        let node = self.find_pinned(address)?;
        // SAFETY: reached under the pin, which lives to the end of this function.
        Some(unsafe { node.as_ref() }.bytes.load_relaxed())
    }

    /// Frees the block at `address` and returns its bytes. `None`: there is no such block (any more).
    pub(crate) fn free(&self, address: usize) -> Option<usize> {
        if self.count.load_relaxed() == 0 {
            return None;
        }
        let mut pinned = self.pins.pin()?;
        let node = self.find_pinned(address)?;
        // SAFETY: reached under the pin, which lives to the end of this function.
        let record = unsafe { node.as_ref() };
        if !mark_removed(record) {
            return None;
        }
        let bytes = record.bytes.load_relaxed();
        // SAFETY: this thread alone marked the node, so it alone unmaps the block, whose user gave it up. Walkers read
        // nodes only.
        if !unsafe { sys::unmap(record.block, bytes) } {
            self.unmaps_refused.add_relaxed(1);
        }
        self.unlink_removed(address, &mut pinned);
        self.bytes.sub_relaxed(bytes);
        self.count.sub_relaxed(1);
        Some(bytes)
    }

    /// Changes the size of the block at `address` (whole OS pages) where it is. The caller holds the block.
    pub(crate) fn resize(&self, address: usize, new_bytes: usize) -> bool {
        let Some(_pinned) = self.pins.pin() else { return false };
        let Some(node) = self.find_pinned(address) else { return false };
        // SAFETY: reached under the pin, which lives to the end of this function.
        let record = unsafe { node.as_ref() };
        let old_bytes = record.bytes.load_relaxed();
        if new_bytes > old_bytes {
            // Without the node's page: advice about huge pages has made two mappings of what was one.
            // SAFETY: the block is the end of the mapping that `map_block` made, or since that advice one of its own.
            if !unsafe { sys::grow_mapping(record.block, old_bytes, new_bytes) } {
                return false;
            }
            self.bytes.add_relaxed(new_bytes - old_bytes);
        } else {
            // SAFETY: the caller holds the block and gives this part of it up.
            if !unsafe { sys::unmap(record.block.wrapping_add(new_bytes), old_bytes - new_bytes) } {
                // Still mapped, so still the block's.
                self.unmaps_refused.add_relaxed(1);
                return true;
            }
            self.bytes.sub_relaxed(old_bytes - new_bytes);
        }
        record.bytes.store_relaxed(new_bytes);
        true
    }

    /// A larger block (whole OS pages) with the contents of the one at `address`, which is gone afterwards: its OS pages change their
    /// address. `None`: nothing changed. The caller holds the block.
    pub(crate) fn move_to(&self, address: usize, new_bytes: usize) -> Option<NonNull<u8>> {
        let mut pinned = self.pins.pin()?;
        let node = self.find_pinned(address)?;
        // SAFETY: reached under the pin, which lives to the end of this function.
        let record = unsafe { node.as_ref() };
        let Some(page) = sys::map(OS_PAGE_BYTES) else {
            self.moves_refused.add_relaxed(1);
            return None;
        };
        // Before the block moves: its address may be another's at once.
        if !mark_removed(record) {
            // SAFETY: mapped above, and nobody knows it.
            let _is_unmapped = unsafe { sys::unmap(page.as_ptr(), OS_PAGE_BYTES) };
            return None;
        }
        self.unlink_removed(address, &mut pinned);
        let old_bytes = record.bytes.load_relaxed();
        // SAFETY: the caller holds the block, and this thread alone marked its node.
        let moved = unsafe { sys::move_mapping(record.block, old_bytes, new_bytes) };
        self.moves_refused.add_relaxed(moved.is_none().into());
        let (block, bytes) = moved.map_or((record.block, old_bytes), |moved| (moved.as_ptr(), new_bytes));
        self.bytes.add_relaxed(bytes - old_bytes);
        // SAFETY: mapped above, and nobody knows it.
        self.insert(unsafe { node::fill_in(page, block, bytes) });
        moved
    }

    /// Unmaps the nodes of freed blocks, as far as no walker is on them.
    pub(crate) fn collect(&self) {
        self.pins.collect();
    }

    pub(crate) fn lock_for_fork(&self) {
        self.pins.lock_for_fork();
    }

    /// # Safety
    /// - The thread (or the one it is a forked copy of) called `lock_for_fork`.
    pub(crate) unsafe fn unlock_after_fork(&self) {
        // SAFETY: passed on to the caller.
        unsafe { self.pins.unlock_after_fork() };
    }

    fn head(&self, address: usize) -> Option<&Head> {
        // Fibonacci hashing: neighbours differ in few bits, high ones of the product differ in all of them.
        let hash = (address / OS_PAGE_BYTES).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as usize);
        self.buckets.get(hash.checked_shr(usize::BITS - BUCKET_COUNT.trailing_zeros()).unwrap_or(0))
    }

    fn insert(&self, node: NonNull<Node>) {
        // SAFETY: just made by the calling thread, and freed only by whoever gets the block, after this.
        let record = unsafe { node.as_ref() };
        let Some(head) = self.head(record.block.addr()) else { return };
        // ORDERING: pairs with `unlink_removed`, whose CAS may have written the head; nothing is read through it here.
        let mut first = head.load_acquire();
        loop {
            record.next.store_relaxed(first);
            // ORDERING: pairs with `find_pinned` and `unlink_removed`; the node's fields travel.
            match head.cas_acq_rel(first, node.as_ptr()) {
                Ok(_) => return,
                Err(found) => first = found,
            }
        }
    }

    /// The node of the block at `address`, if it is not removed. The caller is pinned and stays so while it uses the node.
    fn find_pinned(&self, address: usize) -> Option<NonNull<Node>> {
        // ORDERING: pairs with `insert`; the nodes' fields travel.
        let mut link = self.head(address)?.load_acquire();
        while let Some(node) = target(link) {
            // SAFETY: reached from the list under a pin: its page is unmapped only after the pin ends.
            let record = unsafe { node.as_ref() };
            // ORDERING: pairs with `insert`, as above, for the node behind; with `mark_removed` nothing but the mark travels.
            link = record.next.load_acquire();
            probe::reads(&record.block);
            // A removed node may have the address of a new one: the block's memory is free at once, the node's page is not.
            if record.block.addr() == address && !is_removed(link) {
                return Some(node);
            }
        }
        None
    }

    /// Takes all removed nodes out of the bucket of `address` and retires them. Afterwards every node that was removed
    /// before is out, whoever took it.
    fn unlink_removed(&self, address: usize, pinned: &mut Pinned<'_>) {
        let Some(head) = self.head(address) else { return };
        while !Self::unlink_pass(head, pinned) {}
    }

    /// One walk over a bucket. False: another thread changed a link first, and the walk begins again.
    fn unlink_pass(head: &Head, pinned: &mut Pinned<'_>) -> bool {
        let mut before = head;
        // ORDERING: pairs with `insert`; the nodes' fields travel.
        let mut link = before.load_acquire();
        while let Some(node) = target(link) {
            // SAFETY: reached from the list under the pin.
            let record = unsafe { node.as_ref() };
            // ORDERING: pairs with `insert` and `mark_removed`.
            let next = record.next.load_acquire();
            if !is_removed(next) {
                (before, link) = (&record.next, next);
                continue;
            }
            let behind = next.map_addr(|bits| bits & !1);
            // ORDERING: pairs with `find_pinned`. Fails if `before` was marked or got another successor meanwhile.
            if before.cas_acq_rel(node.as_ptr(), behind).is_err() {
                return false;
            }
            // SAFETY: the CAS took the only link that led to the node, so this thread unlinked it, once.
            unsafe { pinned.retire(node) };
            link = behind;
        }
        true
    }

    /// Panics (tests) or aborts if a node is removed or stands in the wrong bucket, or the counts do not balance. No other
    /// thread may be active.
    pub(crate) fn check_invariants(&self) {
        let Some(_pinned) = self.pins.pin() else { return };
        let (mut count, mut bytes) = (0, 0);
        for head in &self.buckets {
            let mut link = head.load_relaxed();
            while let Some(node) = target(link) {
                // SAFETY: reached from the list under the pin.
                let record = unsafe { node.as_ref() };
                link = record.next.load_relaxed();
                if is_removed(link) || !self.head(record.block.addr()).is_some_and(|own| core::ptr::eq(own, head)) {
                    hakmem_base::fatal("outside blocks: a node stands where it does not belong");
                }
                count += 1;
                bytes += record.bytes.load_relaxed();
            }
        }
        if count != self.count() || bytes != self.bytes() {
            hakmem_base::fatal("outside blocks: counts do not balance");
        }
    }
}

/// Marks the node as removed; true for the one thread that did.
fn mark_removed(record: &Node) -> bool {
    // ORDERING: pairs with `insert` and `unlink_pass`, which write the link.
    let mut next = record.next.load_acquire();
    while !is_removed(next) {
        // ORDERING: pairs with `find_pinned` and `unlink_pass`, which look at the mark.
        match record.next.cas_acq_rel(next, with_removed(next)) {
            Ok(_) => return true,
            Err(found) => next = found,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 3 << 20;

    #[test]
    fn a_block_is_found_until_it_is_freed_once() {
        let outside = Outside::new();
        assert_eq!(outside.find(0x1000), None);
        assert_eq!(outside.free(0x1000), None);
        let blocks: Vec<_> = (0..if cfg!(miri) { 20 } else { 200 })
            .map(|_| outside.allocate(BYTES, 16, false).unwrap().as_ptr().addr())
            .collect();
        outside.check_invariants();
        for &block in &blocks {
            assert_eq!(outside.find(block), Some(BYTES));
            assert_eq!(outside.find(block + OS_PAGE_BYTES), None);
        }
        for &block in &blocks {
            assert_eq!(outside.free(block), Some(BYTES));
            assert_eq!(outside.free(block), None);
        }
        outside.check_invariants();
        assert_eq!((outside.count(), outside.bytes()), (0, 0));
        outside.collect();
    }

    /// The interleaving: one thread has marked a node and not taken it out yet, another looks for the address.
    #[test]
    fn a_removed_node_that_still_stands_in_its_bucket_is_not_found() {
        let outside = Outside::new();
        let block = outside.allocate(BYTES, 16, false).unwrap();
        let address = block.as_ptr().addr();
        let mut pinned = outside.pins.pin().unwrap();
        let node = outside.find_pinned(address).unwrap();
        // SAFETY: reached under the pin.
        let record = unsafe { node.as_ref() };
        assert!(mark_removed(record));
        assert!(!mark_removed(record));
        assert_eq!((outside.find(address), outside.free(address)), (None, None));
        outside.unlink_removed(address, &mut pinned);
        // SAFETY: the pin still lives, so the node's page is there; the block was never unmapped.
        assert!(unsafe { sys::unmap(record.block, BYTES) });
        drop(pinned);
        outside.count.sub_relaxed(1);
        outside.bytes.sub_relaxed(BYTES);
        outside.check_invariants();
    }

    #[test]
    #[cfg_attr(miri, ignore = "the interpreter's kernel moves nothing")]
    fn a_block_that_moves_keeps_its_contents_and_is_found_where_it_is() {
        let outside = Outside::new();
        let block = outside.allocate(BYTES, 16, false).unwrap();
        // SAFETY: the test's block.
        unsafe { block.write_bytes(7, BYTES) };
        let address = block.addr().get();
        assert!(outside.move_to(address + OS_PAGE_BYTES, 5 * BYTES).is_none());
        assert!(outside.move_to(address, 1 << 47).is_none(), "no address space is as large");
        assert_eq!(outside.find(address), Some(BYTES));
        let moved = outside.move_to(address, 5 * BYTES).unwrap();
        outside.check_invariants();
        assert_eq!(outside.find(moved.addr().get()), Some(5 * BYTES));
        assert!(moved == block || outside.find(address).is_none());
        // SAFETY: the block is as long.
        let bytes = unsafe { core::slice::from_raw_parts(moved.as_ptr(), 5 * BYTES) };
        assert!(bytes.iter().enumerate().all(|(at, &byte)| byte == if at < BYTES { 7 } else { 0 }));
        assert!(outside.resize(moved.addr().get(), 2 * BYTES));
        assert_eq!(outside.free(moved.addr().get()), Some(2 * BYTES));
        outside.check_invariants();
        outside.collect();
    }

    #[test]
    fn blocks_shrink_and_grow_in_place() {
        let outside = Outside::new();
        for huge in [false, true] {
            // The part given up is free again, unless another thread of the process took it: one of several tries grows.
            let grows = || {
                let block = outside.allocate(BYTES, 1 << 21, huge).unwrap();
                assert!(outside.resize(block.as_ptr().addr(), BYTES / 3));
                assert_eq!(outside.find(block.as_ptr().addr()), Some(BYTES / 3));
                let has_grown = outside.resize(block.as_ptr().addr(), BYTES / 3 + OS_PAGE_BYTES);
                if has_grown {
                    let grown_part = block.as_ptr().wrapping_add(BYTES / 3);
                    // SAFETY: the block has this page now.
                    assert_eq!(unsafe { grown_part.read() }, 0);
                }
                outside.check_invariants();
                assert!(!outside.resize(block.as_ptr().addr() + 4096, BYTES));
                assert!(outside.free(block.as_ptr().addr()).is_some());
                has_grown
            };
            assert!((0..20).any(|_| grows()), "huge pages: {huge}");
        }
        assert!(outside.allocate(1 << 47, 16, false).is_none());
        outside.check_invariants();
    }
}
