//! What all heaps share: the window's tables, the superslab box, the published slabs.

use core::ptr::NonNull;
use hakmem_atomic_ops::{Flag, SetOnce, Shared32, Shared64, SharedPtr, SharedUsize};
use hakmem_base::{BIN_COUNT, MarkKey, SLAB_BYTES, SLAB_SHIFT, SizeClass, SlabIndex, fatal_ptr, fatal_ptr_class};
use hakmem_ownership::{BinPtr, Route, RouteWord};
use hakmem_publish_adopt::{Mailbox, Published, SlabWords};
use hakmem_remote_queue::RemoteHead;
use hakmem_superslab_os::{FlatTable, SuperslabOs, Window};

use crate::class_map::ClassMap;
use crate::heap::{Heap, View};
use crate::layout::{self, Labels, OfSlabs, Words};
use crate::raw;
use crate::ring::Ring;
use crate::slab_state::{SlabList, SlabState};

/// The window and its flat tables: 32 bytes per slab, split by who writes them.
#[derive(Debug)]
pub struct Tables {
    /// The reserved window.
    pub window: Window,
    /// Owner and class of each unit: read by every free, written on bind and unbind.
    pub routes: FlatTable<RouteWord>,
    /// Owner-only state.
    pub slabs: FlatTable<SlabState>,
    /// Written by strangers.
    pub remotes: FlatTable<RemoteHead>,
    /// The secret in the marks of free blocks.
    pub key: MarkKey,
    #[cfg_attr(
        not(feature = "ablation-slab-tail"),
        expect(dead_code, reason = "one layout needs more than three tables")
    )]
    pub(crate) of_slabs: OfSlabs,
}

/// Shared state of the front. Usable as a static, and several times in one test.
#[derive(Debug)]
pub struct Front {
    /// Copies of what `tables` holds, for the fast path; zero until the window is reserved, which sends every free to the
    /// slow path. Written once; whoever has a block to free has seen them.
    base: SharedUsize,
    slab_count: SharedUsize,
    pub(crate) routes: SharedPtr<RouteWord>,
    /// `routes` moved back by the window's base, so that it is indexed by `address >> 16`.
    routes_by_address: SharedPtr<RouteWord>,
    tables: SetOnce<Tables>,
    /// Which class serves which size.
    pub classes: ClassMap,
    /// The superslab box.
    pub os: SuperslabOs,
    pub(crate) published: Published,
    /// The last events around the adoption boundary.
    pub ring: Ring,
    /// The slab of each class that was given back last (0: none). Relaxed: a hint, which is judged under the pool's lock.
    last_places: [Shared32; BIN_COUNT],
    /// Slabs without an owner.
    pub(crate) orphan_slabs: Shared32,
    /// Bytes of blocks that are out of orphan slabs, as of their release.
    pub(crate) orphan_bytes: Shared64,
    /// Bytes freed to orphan slabs since the last reap.
    pub(crate) orphan_freed: Shared64,
    pub(crate) reaping: Flag,
    /// A slab has come back as a whole, and its owner may not know. A hint.
    pub(crate) has_unread: Flag,
    /// Blocks handed over for which the pusher had no heap to count in.
    pub(crate) heapless_frees: Shared64,
    labels: Labels,
}

impl Front {
    /// Nothing reserved yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            base: SharedUsize::new(0),
            slab_count: SharedUsize::new(0),
            routes: SharedPtr::new(core::ptr::null_mut()),
            routes_by_address: SharedPtr::new(core::ptr::null_mut()),
            tables: SetOnce::new(),
            classes: ClassMap::new(),
            os: SuperslabOs::new(),
            published: Published::new(),
            ring: Ring::new(),
            last_places: [const { Shared32::new(0) }; BIN_COUNT],
            orphan_slabs: Shared32::new(0),
            orphan_bytes: Shared64::new(0),
            orphan_freed: Shared64::new(0),
            reaping: Flag::new(false),
            has_unread: Flag::new(false),
            heapless_frees: Shared64::new(0),
            labels: Labels::new(),
        }
    }

    /// Reserves window and tables; `key` is in the marks of free blocks. Idempotent; called with the facade's set-up lock held.
    ///
    /// # Errors
    /// `false` when the kernel grants no address space.
    #[must_use]
    pub fn reserve(&self, window_bytes: usize, key: MarkKey) -> bool {
        if self.tables.get().is_some() {
            return true;
        }
        let config = hakmem_superslab_os::WindowConfig { bytes: window_bytes };
        let Some(window) = self.os.reserve(config) else { return false };
        let count = window.slab_count as usize;
        let (Some(routes), Some(slabs), Some(remotes)) =
            (FlatTable::<RouteWord>::reserve(count), FlatTable::reserve(count), FlatTable::reserve(count))
        else {
            return false;
        };
        let Some(of_slabs) = OfSlabs::reserve(count) else { return false };
        let base = window.base.addr();
        let first = routes.as_ptr().cast_mut();
        if !self.tables.set(Tables { window, routes, slabs, remotes, key, of_slabs }) {
            return true;
        }
        self.routes_by_address.store_relaxed(first.wrapping_sub(base >> SLAB_SHIFT));
        self.routes.store_relaxed(first);
        self.base.store_relaxed(base);
        // ORDERING: pairs with `index_at`; base and routes travel.
        self.slab_count.store_release(count);
        true
    }

    /// The tables, once reserved.
    #[inline]
    #[must_use]
    pub fn tables(&self) -> Option<&Tables> {
        self.tables.get()
    }

    /// What a heap has to know of the window before it is used. Asked for anew whenever a thread takes a heap over.
    #[must_use]
    pub fn view(&self) -> View {
        self.tables().map_or(View::NONE, |tables| View {
            key: tables.key,
            base: tables.window.base.addr(),
            slab_count: tables.window.slab_count as usize,
            words: Words::of(tables),
            label: self.labels.draw(tables.window.base),
        })
    }

    /// Route word of the unit that `address` lies in; `None` outside the reserved part of the window.
    #[inline]
    #[must_use]
    pub fn route_of(&self, address: usize) -> Option<&RouteWord> {
        self.unit_of(address).map(|(_, word)| word)
    }

    /// As [`Front::route_of`], with the unit's index.
    #[inline]
    #[must_use]
    pub fn unit_of(&self, address: usize) -> Option<(SlabIndex, &RouteWord)> {
        self.unit_at(address).filter(|_| self.os.has_reserved(address))
    }

    /// As [`Front::unit_of`], also where the window is not reserved: the unit reads as unused there. One subtraction, one compare.
    #[inline(always)]
    #[must_use]
    pub fn unit_at(&self, address: usize) -> Option<(SlabIndex, &RouteWord)> {
        let index = self.index_at(address)?;
        // SAFETY: the index is below the table's length.
        Some((SlabIndex::new(index as u32), unsafe { layout::route_of_unit(self, index) }))
    }

    /// Whether a block of ours lies in a slab of `heap`'s bin of `class`: owner and size in one compare, for frees that know the size.
    ///
    /// # Safety
    /// - `block` was handed out by this front and has not been freed.
    #[inline(always)]
    #[must_use]
    pub unsafe fn is_own(&self, heap: &Heap, class: SizeClass, block: NonNull<u8>) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { layout::is_own(self, heap, class, block) }
    }

    /// Route word of the unit that a live block of ours lies in, without asking whether it is ours.
    ///
    /// # Safety
    /// - `block` was handed out by this front and has not been freed.
    #[inline(always)]
    #[cfg(not(any(feature = "ablation-slab-tail", feature = "ablation-object-header")))]
    pub(crate) unsafe fn route_of_own(&self, block: NonNull<u8>) -> BinPtr {
        let word = self.routes_by_address.load_relaxed().wrapping_add(block.addr().get() >> SLAB_SHIFT);
        // SAFETY: the block lies in the window, so the word lies in the table.
        unsafe { raw::entry(word, 0) }.bits()
    }

    /// Index of the unit that `address` lies in, if that is reserved.
    #[inline]
    #[must_use]
    pub fn index_of(&self, address: usize) -> Option<SlabIndex> {
        self.unit_of(address).map(|(index, _)| index)
    }

    /// Index of the unit that `address` lies in, reserved or not; `None` outside the window.
    #[inline(always)]
    fn index_at(&self, address: usize) -> Option<usize> {
        // ORDERING: pairs with `reserve`: whoever sees the count sees the base. The count first: a base of 0 with a count would
        // make low addresses ours, for a thread that frees a foreign pointer while another one reserves the window.
        let slab_count = self.slab_count.load_acquire();
        let index = address.wrapping_sub(self.base.load_relaxed()) >> SLAB_SHIFT;
        (index < slab_count).then_some(index)
    }

    /// The secret in the marks of free blocks.
    #[must_use]
    pub fn mark_key(&self) -> MarkKey {
        self.tables().map_or(MarkKey::NONE, |tables| tables.key)
    }

    /// Whether a block of `class` begins at `address`, which lies in a slab of that class.
    #[inline]
    #[must_use]
    pub fn is_block_of(&self, address: usize, class: SizeClass) -> bool {
        self.tables().is_some_and(|tables| tables.is_block_of(tables.unit_of(address), class, address))
    }

    /// Reports what is wrong with a pointer into a slab in use, and aborts. The line names its block size and its owner.
    ///
    /// # Panics
    /// With feature `testing` it panics instead.
    #[cold]
    pub fn fatal_in_slab(&self, what: &'static str, address: usize) -> ! {
        match self.tables() {
            Some(tables) => tables.fatal_in_slab(what, address),
            None => fatal_ptr(what, address),
        }
    }

    /// Where a slab of `class` was given back last.
    pub(crate) fn last_place(&self, class: SizeClass) -> Option<SlabIndex> {
        SlabIndex::from_link(self.last_places.get(class.index())?.load_relaxed())
    }

    pub(crate) fn set_last_place(&self, class: SizeClass, slab: SlabIndex) {
        if let Some(place) = self.last_places.get(class.index()) {
            place.store_relaxed(slab.get());
        }
    }

    /// In a forked child: a reaper of the parent does not go on here.
    pub fn forget_in_child(&self) {
        // ORDERING: the child has one thread; release only because flags have no relaxed store.
        self.reaping.store_release(false);
    }

    /// Slabs without an owner, and the bytes of their blocks that were out when they were released.
    #[must_use]
    pub fn orphans(&self) -> (u32, u64) {
        (self.orphan_slabs.load_relaxed(), self.orphan_bytes.load_relaxed())
    }

    /// Blocks freed by threads without a heap.
    #[must_use]
    pub fn heapless_frees(&self) -> u64 {
        self.heapless_frees.load_relaxed()
    }
}

impl Default for Front {
    fn default() -> Self {
        Self::new()
    }
}

impl Tables {
    /// State of a slab in use.
    #[inline]
    pub(crate) fn state(&self, slab: SlabIndex) -> &SlabState {
        layout::state(self, slab)
    }

    /// Start of a unit.
    #[inline]
    #[must_use]
    pub fn address_of(&self, slab: SlabIndex) -> *mut u8 {
        self.window.base.wrapping_add(slab.to_usize() * SLAB_BYTES)
    }

    /// First unit of the slab of `class` that `unit` is part of.
    #[inline]
    pub(crate) fn head_of(&self, unit: SlabIndex, class: SizeClass) -> SlabIndex {
        if class.geometry().units == 1 { unit } else { SlabIndex::new(unit.get() - self.state(unit).units_back()) }
    }

    /// Whether a block of `class` begins at `address`, which lies in `unit` of a slab of that class.
    #[inline]
    fn is_block_of(&self, unit: SlabIndex, class: SizeClass, address: usize) -> bool {
        let offset = address - self.address_of(self.head_of(unit, class)).addr();
        class.geometry().block_at(offset as u32).is_some()
    }

    /// Unit that an address in the window lies in.
    #[inline]
    pub(crate) fn unit_of(&self, address: usize) -> SlabIndex {
        SlabIndex::new((address.wrapping_sub(self.window.base.addr()) >> SLAB_SHIFT) as u32)
    }

    /// Reports what is wrong with a pointer into a slab in use, and aborts. The line names block size and owner (0: nobody) by the
    /// slab's route word.
    #[cold]
    #[inline(never)]
    pub(crate) fn fatal_in_slab(&self, what: &'static str, address: usize) -> ! {
        let route = self.route_word(self.unit_of(address)).route();
        let owner = match route {
            // SAFETY: the bin comes from a route word that names an owner.
            Route::Owned(bin) => core::ptr::from_ref(unsafe { raw::heap_of(bin) }).addr(),
            _ => 0,
        };
        match route.slab_class() {
            Some(class) => fatal_ptr_class(what, address, class.block_bytes(), owner),
            None => fatal_ptr(what, address),
        }
    }

    /// A list of slabs with this head.
    #[inline]
    pub(crate) fn list<'a>(
        &'a self,
        head: &'a hakmem_atomic_ops::Owned32,
    ) -> SlabList<'a, impl Fn(SlabIndex) -> &'a SlabState> {
        SlabList { head, state_of: move |slab| self.state(slab) }
    }

    /// First block on a slab's free list, or null.
    #[inline]
    pub(crate) fn first_free(&self, slab: SlabIndex) -> *mut u8 {
        self.state(slab)
            .free_offset()
            .map_or(core::ptr::null_mut(), |offset| self.address_of(slab).wrapping_add(offset as usize))
    }

    /// Makes `block` the first one on its slab's free list.
    #[inline]
    pub(crate) fn set_first_free(&self, slab: SlabIndex, block: *mut u8) {
        let offset = block.addr() - self.address_of(slab).addr();
        self.state(slab).set_free_offset(Some(offset as u32));
    }
}

impl SlabWords for Tables {
    #[inline]
    fn remote(&self, slab: SlabIndex) -> &RemoteHead {
        layout::remote(self, slab)
    }

    #[inline]
    fn route_word(&self, slab: SlabIndex) -> &RouteWord {
        layout::route(self, slab)
    }

    #[inline]
    fn mailbox_of(&self, bin: BinPtr) -> &Mailbox {
        // SAFETY: the bin comes from a route word that names an owner.
        &unsafe { raw::heap_of(bin) }.mailbox
    }
}
