//! Allocating, freeing, resizing and moving big blocks.

use crate::context::{BigContext, HintedPages, Shape, superslab_behind, superslabs_of};
use crate::density::{Backing, Density};
use crate::outside::Outside;
use crate::shelf::{Kept, Shelf};
use crate::sys;
use core::ptr::NonNull;
use hakmem_atomic_ops::{Lock, Shared64, SharedUsize};
use hakmem_base::{OS_PAGE_BYTES, SLAB_BYTES, SUPERSLAB_BYTES, SlabIndex};
use hakmem_mid_pool::Block;
use hakmem_ownership::Route;
use hakmem_superslab_os::Purge;

/// Blocks from this size on are moved by page tables rather than copied (bytes).
const MOVE_MIN_BYTES: usize = 4 << 20;
/// A shrunk block's tail is given back if it has at least this many bytes ...
const DECOMMIT_MIN_BYTES: usize = 256 << 10;
/// ... and at least one in this many of the block's.
const DECOMMIT_SHARE: usize = 8;
/// Freed bytes may be kept up to one in this many of the bytes in use, if that is more than policy says.
const RETAIN_SHARE: usize = 8;
/// What the last superslab of a block may lack and have huge pages like the others.
const LAST_LACKS_BYTES: usize = SUPERSLAB_BYTES / 4;

/// Counters of a [`BigCache`]. Events count up for ever; `cached_bytes`, `outside_*` are what is there now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BigStats {
    /// Requests served by a kept extent.
    pub hits: u64,
    /// Requests that took fresh superslabs or an outside block.
    pub misses: u64,
    /// Kept extents given back because of their age, a bound, or a request for fresh memory.
    pub evictions: u64,
    /// Blocks moved by page tables.
    pub moved: u64,
    /// Bytes of kept extents.
    pub cached_bytes: usize,
    /// Usable bytes handed out so far, growth included.
    pub allocated_bytes: u64,
    /// Usable bytes taken back so far, shrinking included.
    pub freed_bytes: u64,
    /// Blocks outside the window.
    pub outside_blocks: usize,
    /// Their bytes.
    pub outside_bytes: usize,
    /// Blocks that the kernel would not map outside the window.
    pub maps_refused: u64,
    /// Freed or shrunk outside blocks that the kernel would not unmap: address space without memory stays behind.
    pub unmaps_refused: u64,
    /// Outside blocks that the kernel would not move: they were copied.
    pub moves_refused: u64,
}

/// Big blocks and the cache of freed ones. One per allocator, shared by all threads.
pub struct BigCache {
    shelf: Lock<Shelf>,
    /// Mirrors of the shelf, written under its lock. Relaxed: who acts on them takes the lock and looks again.
    cached_bytes: SharedUsize,
    oldest_ms: Shared64,
    noted_due_ms: Shared64,
    /// Statistics; relaxed.
    hits: Shared64,
    misses: Shared64,
    evictions: Shared64,
    moved: Shared64,
    allocated_bytes: Shared64,
    freed_bytes: Shared64,
    outside: Outside,
    density: Density,
}

impl BigCache {
    /// An empty cache.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            shelf: Lock::new(Shelf::new()),
            cached_bytes: SharedUsize::new(0),
            oldest_ms: Shared64::new(u64::MAX),
            noted_due_ms: Shared64::new(u64::MAX),
            hits: Shared64::new(0),
            misses: Shared64::new(0),
            evictions: Shared64::new(0),
            moved: Shared64::new(0),
            allocated_bytes: Shared64::new(0),
            freed_bytes: Shared64::new(0),
            outside: Outside::new(),
            density: Density::new(),
        }
    }

    /// A block of at least `bytes` bytes, aligned to `align` (a power of two). With `growing`, for a block that is being
    /// enlarged, address space is left free behind it. Blocks up to 2 MiB are served too: what alignment above 2 MiB needs.
    ///
    /// The block lies outside the window if that has no place; it is then freed by [`BigCache::outside_free`].
    #[must_use]
    #[unsafe(link_section = ".text.hot.hakmem.long")]
    pub fn allocate(&self, cx: &BigContext<'_>, bytes: usize, align: usize, growing: bool) -> Option<Block> {
        let shape = Shape::of(bytes, align)?;
        let block = match self.take_kept(cx, &shape) {
            Some(kept) => {
                self.hits.add_relaxed(1);
                hand_out(cx, kept.first, shape.bytes, false)
            }
            None => {
                self.misses.add_relaxed(1);
                // None fits: back in the pool they join with their neighbours, and what is taken is dirty where it can be.
                if self.cached_bytes() != 0 {
                    self.evict_all(cx, Shelf::take_oldest_plain);
                }
                if cx.os.may_run_out() {
                    self.prepare_outside_slow(cx);
                }
                match self.take_fresh(cx, &shape, growing) {
                    Some((first, zeroed)) => hand_out(cx, first, shape.bytes, zeroed),
                    None => self.allocate_outside(cx, &shape)?,
                }
            }
        };
        self.allocated_bytes.add_relaxed(shape.bytes as u64);
        self.evict_due(cx);
        Some(block)
    }

    /// While the allocator has memory: makes what it is asked for when a block is mapped outside for the first time.
    #[cold]
    #[inline(never)]
    pub fn prepare_outside_slow(&self, cx: &BigContext<'_>) {
        if cx.policy.outside {
            self.outside.prepare();
        }
    }

    /// Keeps or gives back the superslabs of a freed block of `bytes` usable bytes. The caller has won `claim`.
    pub fn free(&self, cx: &BigContext<'_>, index: SlabIndex, bytes: usize) {
        self.freed_bytes.add_relaxed(bytes as u64);
        let Some(superslabs) = superslabs_of(bytes) else { return };
        let bound = self.retain_bound(cx);
        let kept = Kept {
            first: index,
            superslabs,
            touched_bytes: bytes,
            since_ms: sys::coarse_clock_ms(),
            huge: cx.wants_huge(bytes),
            note: cx.kept_note(),
            keep_ms: cx.hint.keep_ms,
        };
        if kept.note != 0 && self.keep_noted(kept, bound) {
            self.evict_due(cx);
            return;
        }
        if cx.policy.retain_ms == 0 || bytes > bound {
            self.give(cx, index, superslabs, bytes);
            return;
        }
        let kept = Kept { note: 0, ..kept };
        while let Some(victim) = self.take(|shelf| {
            let plain_bytes = shelf.touched_bytes() - shelf.noted_bytes();
            if plain_bytes + bytes > bound { shelf.take_oldest_plain() } else { None }
        }) {
            self.evict(cx, victim);
        }
        while let Some(victim) = self.take(|shelf| if shelf.push(kept) { None } else { shelf.take_oldest() }) {
            self.evict(cx, victim);
        }
        self.evict_due(cx);
    }

    /// Keeps an extent for the next block with its note: one for each note, whatever its size, and further ones as far as all of them
    /// stay within what may be kept. False: nothing was done.
    fn keep_noted(&self, kept: Kept, bound: usize) -> bool {
        let mut is_kept = false;
        let _none = self.take(|shelf| {
            let fits = !shelf.has_noted(kept.note) || shelf.noted_bytes() + kept.touched_bytes <= bound;
            is_kept = fits && shelf.push(kept);
            None
        });
        is_kept
    }

    /// Changes the size of a block without moving it: inside its superslabs, into free ones behind it, or by giving some
    /// back. False: nothing changed, the caller moves the block.
    #[must_use]
    pub fn resize_in_place(&self, cx: &BigContext<'_>, index: SlabIndex, old_bytes: usize, new_bytes: usize) -> bool {
        let (Some(shape), Some(held)) = (Shape::of(new_bytes, 1), superslabs_of(old_bytes)) else { return false };
        let Some(word) = cx.word(index) else { return false };
        hakmem_base::invariant!(
            word.route() == Route::Big { bytes: old_bytes, note: cx.hint.note },
            "resized block is not what its route says"
        );
        if shape.superslabs > held {
            if cx.belongs_outside(&shape) || !self.grow_extent(cx, index, held, shape.superslabs) {
                return false;
            }
            word.set_big(shape.bytes, cx.hint.note);
            self.advise_growth(cx, index, old_bytes, shape.bytes);
        } else {
            // The route shrinks first: once the superslabs are given back, they may be another block's.
            word.set_big(shape.bytes, cx.hint.note);
            if shape.superslabs < held {
                cx.os.shrink_extent(index, held, shape.superslabs);
            }
            let held_bytes = old_bytes.min(shape.superslabs as usize * SUPERSLAB_BYTES);
            let tail_bytes = held_bytes.saturating_sub(shape.bytes);
            if tail_bytes >= DECOMMIT_MIN_BYTES && tail_bytes >= shape.bytes / DECOMMIT_SHARE {
                cx.os.decommit(index, shape.bytes, tail_bytes);
            }
        }
        self.count_resize(old_bytes, shape.bytes);
        true
    }

    /// A larger block with the contents of this one, which is gone afterwards: its OS pages change their address, and only
    /// what the kernel cannot move is copied. `None`: nothing changed, the caller allocates and copies.
    #[must_use]
    pub fn move_to(&self, cx: &BigContext<'_>, index: SlabIndex, old_bytes: usize, new_bytes: usize) -> Option<Block> {
        let (shape, held) = (Shape::of(new_bytes, 1)?, superslabs_of(old_bytes)?);
        if old_bytes < MOVE_MIN_BYTES || shape.bytes < old_bytes {
            return None;
        }
        let word = cx.word(index)?;
        // Fresh superslabs, never kept ones: what stands behind the destination is lost.
        let (first, _zeroed) = self.take_fresh(cx, &shape, true)?;
        let all_moved = carry(cx, index, first, old_bytes, held);
        word.retire();
        cx.os.give_extent(index, held, if all_moved { Purge::Clean } else { Purge::Now });
        self.moved.add_relaxed(1);
        self.count_resize(old_bytes, shape.bytes);
        Some(hand_out(cx, first, shape.bytes, false))
    }

    /// Gives back what was kept for longer than policy says. Returns the bytes. Cheap when nothing is due.
    #[inline]
    pub fn evict_due(&self, cx: &BigContext<'_>) -> usize {
        let (oldest_ms, noted_due_ms) = (self.oldest_ms.load_relaxed(), self.noted_due_ms.load_relaxed());
        if oldest_ms == u64::MAX && noted_due_ms == u64::MAX {
            return 0;
        }
        self.evict_due_slow(cx, oldest_ms, noted_due_ms)
    }

    #[cold]
    #[inline(never)]
    fn evict_due_slow(&self, cx: &BigContext<'_>, oldest_ms: u64, noted_due_ms: u64) -> usize {
        let now_ms = sys::coarse_clock_ms();
        let until_ms = now_ms.saturating_sub(u64::from(cx.policy.retain_ms));
        if oldest_ms > until_ms && noted_due_ms > now_ms {
            return 0;
        }
        self.evict_all(cx, |shelf| shelf.take_due(until_ms, now_ms))
    }

    /// Gives back all kept extents. Returns their bytes.
    pub fn flush(&self, cx: &BigContext<'_>) -> usize {
        self.outside.collect();
        self.evict_all(cx, Shelf::take_oldest)
    }

    /// Bytes of the kept extents.
    #[must_use]
    pub fn cached_bytes(&self) -> usize {
        self.cached_bytes.load_relaxed()
    }

    /// Superslabs of the kept extents. Takes the shelf's lock.
    #[must_use]
    pub fn kept_superslabs(&self) -> u64 {
        self.shelf.lock().superslabs()
    }

    /// The usable bytes of the outside block at `address`; `None` if there is none. Takes no lock that an allocation of
    /// another thread waits for.
    #[must_use]
    pub fn outside_find(&self, address: usize) -> Option<usize> {
        self.outside.find(address)
    }

    /// Frees the outside block at `address` and returns its bytes; `None` if there is none (any more).
    #[must_use]
    pub fn outside_free(&self, address: usize) -> Option<usize> {
        let bytes = self.outside.free(address)?;
        self.freed_bytes.add_relaxed(bytes as u64);
        Some(bytes)
    }

    /// Changes the size of the outside block at `address` where it is. False: nothing changed, the caller moves it.
    #[must_use]
    pub fn outside_resize(&self, address: usize, new_bytes: usize) -> bool {
        let (Some(old_bytes), Some(shape)) = (self.outside.find(address), Shape::of(new_bytes, 1)) else {
            return false;
        };
        let is_done = shape.bytes == old_bytes || self.outside.resize(address, shape.bytes);
        if is_done {
            self.count_resize(old_bytes, self.outside.find(address).unwrap_or(old_bytes));
        }
        is_done
    }

    /// As [`BigCache::move_to`], for the outside block at `address`.
    #[must_use]
    pub fn outside_move(&self, address: usize, new_bytes: usize) -> Option<NonNull<u8>> {
        let (old_bytes, shape) = (self.outside.find(address)?, Shape::of(new_bytes, 1)?);
        if shape.bytes <= old_bytes {
            return None;
        }
        let moved = self.outside.move_to(address, shape.bytes)?;
        self.moved.add_relaxed(1);
        self.count_resize(old_bytes, shape.bytes);
        Some(moved)
    }

    /// A reading of all counters.
    #[must_use]
    pub fn stats(&self) -> BigStats {
        let (maps_refused, unmaps_refused, moves_refused) = self.outside.refused();
        BigStats {
            hits: self.hits.load_relaxed(),
            misses: self.misses.load_relaxed(),
            evictions: self.evictions.load_relaxed(),
            moved: self.moved.load_relaxed(),
            cached_bytes: self.cached_bytes(),
            allocated_bytes: self.allocated_bytes.load_relaxed(),
            freed_bytes: self.freed_bytes.load_relaxed(),
            outside_blocks: self.outside.count(),
            outside_bytes: self.outside.bytes(),
            maps_refused,
            unmaps_refused,
            moves_refused,
        }
    }

    /// Panics (tests) or aborts if the lists or counts do not balance. No other thread may be active.
    pub fn check_invariants(&self) {
        let shelf = self.shelf.lock();
        shelf.check_invariants();
        let is_mirrored = shelf.touched_bytes() == self.cached_bytes()
            && shelf.oldest_ms() == self.oldest_ms.load_relaxed()
            && shelf.noted_due_ms() == self.noted_due_ms.load_relaxed();
        if !is_mirrored {
            hakmem_base::fatal("big cache: its mirrors are out of date");
        }
        drop(shelf);
        self.outside.check_invariants();
    }

    /// Takes every lock of the box, before a fork and before the OS box's.
    pub fn lock_for_fork(&self) {
        self.outside.lock_for_fork();
        self.shelf.lock_for_fork();
    }

    /// Releases what [`BigCache::lock_for_fork`] took, in parent and child.
    ///
    /// # Safety
    /// - This thread (or the thread that it is a forked copy of) called `lock_for_fork`.
    pub unsafe fn unlock_after_fork(&self) {
        // SAFETY: passed on to the caller.
        unsafe { self.shelf.unlock_after_fork() };
        // SAFETY: as above.
        unsafe { self.outside.unlock_after_fork() };
    }

    /// A kept extent for the request, cut to size.
    fn take_kept(&self, cx: &BigContext<'_>, shape: &Shape) -> Option<Kept> {
        if self.cached_bytes() == 0 {
            return None;
        }
        let align_bytes = shape.align.max(SUPERSLAB_BYTES);
        let is_aligned = |first: SlabIndex| cx.os.address_of(first).addr() & (align_bytes - 1) == 0;
        let widest = shape.widest(cx.policy.slack_permille);
        let kept = self.take(|shelf| shelf.take_fit(shape.superslabs, widest, cx.kept_note(), is_aligned))?;
        if kept.superslabs > shape.superslabs {
            cx.os.shrink_extent(kept.first, kept.superslabs, shape.superslabs);
        }
        if cx.wants_huge(shape.bytes) && !kept.huge {
            advise_huge(cx, kept.first, shape.bytes);
        }
        Some(kept)
    }

    /// Fresh superslabs for the request, and whether they read as zero.
    #[unsafe(link_section = ".text.hot.hakmem.long")]
    fn take_fresh(&self, cx: &BigContext<'_>, shape: &Shape, growing: bool) -> Option<(SlabIndex, bool)> {
        if cx.belongs_outside(shape) {
            return None;
        }
        let room = if growing { shape.room(cx.policy.room_permille) } else { 0 };
        let used_units = u32::try_from(shape.bytes.div_ceil(SLAB_BYTES)).unwrap_or(u32::MAX);
        let take = || cx.os.take_extent_for(shape.superslabs, room, shape.align_superslabs, used_units);
        let extent = take().or_else(|| {
            // The window is full or the memory limit reached: what is kept here may be what is missing.
            self.evict_all(cx, Shelf::take_oldest);
            take()
        })?;
        let backing = match cx.hint.pages {
            Some(HintedPages::Small) => Some(Backing::Small),
            Some(HintedPages::Huge) => Some(Backing::Huge),
            None if shape.bytes < cx.policy.thp_bytes => None,
            // A block that grows is full so far.
            None => Some(if growing { Backing::Huge } else { self.density.backing() }),
        };
        if let Some(backing) = backing {
            back(cx, extent.first, shape, backing);
        }
        Some((extent.first, extent.zeroed))
    }

    /// Gives the superslabs of a freed block of `bytes` bytes to the pool. If such blocks get huge pages, a look at how much of them it
    /// used guides the next ones; blocks of which a hint says it say nothing about the others.
    fn give(&self, cx: &BigContext<'_>, first: SlabIndex, superslabs: u32, bytes: usize) {
        if bytes >= cx.policy.thp_bytes
            && cx.hint.pages.is_none()
            && self.density.count()
            && let Some(permille) = cx.os.resident_permille(first, bytes)
        {
            self.density.note(permille);
        }
        cx.os.give_extent(first, superslabs, Purge::Later);
    }

    fn allocate_outside(&self, cx: &BigContext<'_>, shape: &Shape) -> Option<Block> {
        if !cx.policy.outside {
            return None;
        }
        let ptr = self.outside.allocate(shape.bytes, shape.align, cx.wants_huge(shape.bytes))?;
        Some(Block { ptr, zeroed: true })
    }

    /// Grows an extent. One that is kept right behind it counts as free.
    fn grow_extent(&self, cx: &BigContext<'_>, index: SlabIndex, held: u32, wanted: u32) -> bool {
        let grow = || cx.os.grow_extent(index, held, wanted).is_some();
        if grow() {
            return true;
        }
        let Some(behind) = self.take(|shelf| shelf.take_at(superslab_behind(index, held))) else { return false };
        // Its memory is warm, and if growing succeeds it is used at once.
        self.evictions.add_relaxed(1);
        cx.os.give_extent(behind.first, behind.superslabs, Purge::Later);
        grow()
    }

    /// Huge pages for a block that grew to `new_bytes`: for the new part, or for all of it if it was too small before.
    fn advise_growth(&self, cx: &BigContext<'_>, index: SlabIndex, old_bytes: usize, new_bytes: usize) {
        if !cx.wants_huge(new_bytes) {
            return;
        }
        let was_huge = cx.wants_huge(old_bytes);
        let advised = if was_huge { (old_bytes / SUPERSLAB_BYTES) as u32 } else { 0 };
        let advised_bytes = advised as usize * SUPERSLAB_BYTES;
        advise_huge(cx, superslab_behind(index, advised), new_bytes - advised_bytes);
    }

    /// How many bytes may be kept now.
    fn retain_bound(&self, cx: &BigContext<'_>) -> usize {
        let live = self.allocated_bytes.load_relaxed().saturating_sub(self.freed_bytes.load_relaxed());
        cx.policy.retain_bytes.max(live as usize / RETAIN_SHARE)
    }

    fn count_resize(&self, old_bytes: usize, new_bytes: usize) {
        if new_bytes >= old_bytes {
            self.allocated_bytes.add_relaxed((new_bytes - old_bytes) as u64);
        } else {
            self.freed_bytes.add_relaxed((old_bytes - new_bytes) as u64);
        }
    }

    fn evict_all(&self, cx: &BigContext<'_>, mut choose: impl FnMut(&mut Shelf) -> Option<Kept>) -> usize {
        let mut bytes = 0;
        while let Some(victim) = self.take(&mut choose) {
            bytes += victim.touched_bytes;
            self.evict(cx, victim);
        }
        bytes
    }

    fn evict(&self, cx: &BigContext<'_>, victim: Kept) {
        self.evictions.add_relaxed(1);
        cx.os.give_extent(victim.first, victim.superslabs, Purge::Later);
    }

    /// Changes the shelf under its lock and brings the mirrors up to date. No system call happens in here.
    fn take(&self, choose: impl FnOnce(&mut Shelf) -> Option<Kept>) -> Option<Kept> {
        let mut shelf = self.shelf.lock();
        let kept = choose(&mut shelf);
        self.cached_bytes.store_relaxed(shelf.touched_bytes());
        self.oldest_ms.store_relaxed(shelf.oldest_ms());
        self.noted_due_ms.store_relaxed(shelf.noted_due_ms());
        kept
    }
}

impl Default for BigCache {
    fn default() -> Self {
        Self::new()
    }
}

/// Tells the kernel how a fresh block's superslabs are to be backed, whatever they were before.
fn back(cx: &BigContext<'_>, first: SlabIndex, shape: &Shape, backing: Backing) {
    let small = match backing {
        Backing::Small => shape.superslabs,
        Backing::AllButFirst => 1,
        Backing::Huge => 0,
    };
    let _is_done = cx.os.advise_small(first, small);
    let small_bytes = small as usize * SUPERSLAB_BYTES;
    advise_huge(cx, superslab_behind(first, small), shape.bytes.saturating_sub(small_bytes));
}

/// Huge pages behind the superslabs that the next `bytes` bytes of a block fill, or nearly: what a last one lacks would be taken all the same.
fn advise_huge(cx: &BigContext<'_>, first: SlabIndex, bytes: usize) {
    // A refusal leaves the block backed otherwise, and as good.
    let _is_done = cx.os.advise_huge(first, bytes.saturating_add(LAST_LACKS_BYTES));
}

/// Moves `superslabs` superslabs, of which a block uses `bytes` bytes, from one extent to another; copies what cannot be moved. True if
/// nothing was copied: then `from` reads as zero.
///
/// The kernel moves what lies in one of its mappings. Huge-page advice and earlier moves cut the window into several, but only between
/// superslabs: nothing less is moved or advised. So a refused part is tried again in halves.
fn carry(cx: &BigContext<'_>, from: SlabIndex, to: SlabIndex, bytes: usize, superslabs: u32) -> bool {
    if cx.os.move_pages(from, to, superslabs as usize * SUPERSLAB_BYTES) {
        return true;
    }
    let half = superslabs / 2;
    if half == 0 {
        let (source, target) = (cx.os.address_of(from), cx.os.address_of(to));
        // SAFETY: the caller holds both extents, which are at least this long and two.
        unsafe { target.copy_from_nonoverlapping(source, bytes) };
        return false;
    }
    let half_bytes = half as usize * SUPERSLAB_BYTES;
    let first_moved = carry(cx, from, to, half_bytes, half);
    let (from, to) = (superslab_behind(from, half), superslab_behind(to, half));
    carry(cx, from, to, bytes - half_bytes, superslabs - half) && first_moved
}

/// Records a taken extent as a block.
fn hand_out(cx: &BigContext<'_>, first: SlabIndex, bytes: usize, zeroed: bool) -> Block {
    let (Some(word), Some(ptr)) = (cx.word(first), NonNull::new(cx.os.address_of(first))) else {
        hakmem_base::fatal("an extent lies outside the window");
    };
    hakmem_base::invariant!(bytes.is_multiple_of(OS_PAGE_BYTES), "a big block is not a whole number of OS pages");
    hakmem_base::invariant!(word.route() == Route::Unused, "an extent was handed out twice");
    word.set_big(bytes, cx.hint.note);
    Block { ptr, zeroed }
}
