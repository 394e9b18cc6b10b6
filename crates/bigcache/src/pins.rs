//! Epoch pins for threads that walk the registry, without thread-local storage: a few handles that threads borrow.
//!
//! A handle of crossbeam-epoch belongs to one user at a time, not to one thread for ever. So a handful is registered once,
//! each behind a lock of its own, and a walker takes any free one: no registration per thread, no destructor at thread
//! exit, and at a fork all of them are idle, so that no epoch stays pinned in the child.
//!
//! **Re-entry.** crossbeam-epoch allocates through the global allocator, that is perhaps through us: when the handles are
//! made ([`Pins::prepare`], guarded by `builder`: a nested call is refused, other threads wait) and when a batch of retired
//! nodes is handed over (a pin slot is held then; a nested walk takes another slot). What it allocates are small blocks,
//! which never come to this box unless by a detour: one that cannot be served comes back as [`Pins::collect`]. It aborts the process when an allocation fails, so the allocator is
//! asked for the same sizes first, and when it has none the step is put off: that is a strong hint, not a proof, because
//! another thread may take what was just found.

use crate::node::{self, Node};
use crate::sys;
use alloc::alloc::{alloc, dealloc};
use core::alloc::Layout;
use core::ptr::NonNull;
use crossbeam_epoch::{Collector, Guard, LocalHandle};
use hakmem_atomic_ops::{Lock, LockGuard, Shared32, SharedUsize, spin_hint};
use hakmem_base::keeping_errno;

/// Walkers that can be on their way at once; more wait for each other.
const PIN_COUNT: usize = 8;
/// A nested walk needs a slot besides the one that its thread holds.
const MIN_PIN_COUNT: u32 = 2;
/// Retired nodes (an OS page each) that wait in a slot before they are handed over together.
const RETIRED_BATCH: u32 = 16;
/// Sizes and alignments that crossbeam-epoch 0.9 allocates: its global part, a participant, a bag in its queue.
const EPOCH_ALLOCATIONS: [(usize, usize); 3] = [(640, 128), (2304, 128), (2072, 8)];

/// The handles.
pub(crate) struct Pins {
    /// Slots that hold a handle. Written once, at the end of `prepare`.
    ready_count: Shared32,
    /// Mark of the thread inside `prepare`, 0 if none. Relaxed: a thread compares it with its own mark only.
    builder: SharedUsize,
    building: Lock<()>,
    /// Held inside `collect`, and only ever tried: see there.
    collecting: Lock<()>,
    slots: [Lock<PinSlot>; PIN_COUNT],
}

struct PinSlot {
    handle: Option<LocalHandle>,
    retired: *mut Node,
    retired_count: u32,
}

// SAFETY: a `LocalHandle` is not `Send` because one user at a time may touch its participant record; which thread that is
// does not matter to it. The slot's lock lets one user at a time in, and orders them. Nodes in `retired` belong to the slot.
unsafe impl Send for PinSlot {}

/// A pinned epoch: nodes reached while it lives stay mapped.
pub(crate) struct Pinned<'a> {
    // Fields are dropped in this order: the epoch is unpinned while the slot is still held.
    guard: Guard,
    slot: LockGuard<'a, PinSlot>,
}

impl Pins {
    pub(crate) const fn new() -> Self {
        Self {
            ready_count: Shared32::new(0),
            builder: SharedUsize::new(0),
            building: Lock::new(()),
            collecting: Lock::new(()),
            slots: [const { Lock::new(PinSlot { handle: None, retired: core::ptr::null_mut(), retired_count: 0 }) };
                PIN_COUNT],
        }
    }

    /// Makes the handles, once. False: no memory for them, or called from inside itself.
    pub(crate) fn prepare(&self) -> bool {
        self.is_ready() || self.prepare_slow()
    }

    /// Pins an epoch. `None` before `prepare` succeeded: then nothing is registered that could be walked.
    pub(crate) fn pin(&self) -> Option<Pinned<'_>> {
        // ORDERING: pairs with `prepare_slow`; the slots' handles travel.
        let ready_count = self.ready_count.load_acquire() as usize;
        let slots = self.slots.get(..ready_count)?;
        if slots.is_empty() {
            return None;
        }
        // Threads start at different slots, so that a few walkers do not meet.
        let start = (sys::thread_mark() >> 12) % slots.len();
        let order = slots.iter().cycle().skip(start).take(slots.len());
        loop {
            if let Some(slot) = order.clone().find_map(Lock::try_lock) {
                let guard = slot.handle.as_ref()?.pin();
                return Some(Pinned { guard, slot });
            }
            spin_hint();
        }
    }

    /// Hands all waiting retired nodes over and tries to get them unmapped. Slots that are in use are left out, and a call
    /// while another one is under way does nothing: an allocation that fails comes here to find memory, also one that was
    /// made inside [`Pins::prepare`], inside [`Pinned::hand_over`] or in here, where its thread holds a slot already.
    pub(crate) fn collect(&self) {
        let Some(_collecting) = self.collecting.try_lock() else { return };
        for slot in &self.slots {
            // Two advances of the epoch free what was retired before the first, if nobody is pinned; the third unmaps.
            for _ in 0..3 {
                let Some(slot) = slot.try_lock() else { break };
                let Some(handle) = slot.handle.as_ref() else { return };
                let guard = handle.pin();
                let mut pinned = Pinned { guard, slot };
                pinned.hand_over();
            }
        }
    }

    pub(crate) fn lock_for_fork(&self) {
        self.building.lock_for_fork();
        self.collecting.lock_for_fork();
        for slot in &self.slots {
            slot.lock_for_fork();
        }
    }

    /// # Safety
    /// - The thread (or the one it is a forked copy of) called `lock_for_fork`.
    pub(crate) unsafe fn unlock_after_fork(&self) {
        for slot in self.slots.iter().rev() {
            // SAFETY: passed on to the caller.
            unsafe { slot.unlock_after_fork() };
        }
        // SAFETY: as above.
        unsafe { self.collecting.unlock_after_fork() };
        // SAFETY: as above.
        unsafe { self.building.unlock_after_fork() };
    }

    fn is_ready(&self) -> bool {
        // ORDERING: pairs with `prepare_slow`; the slots' handles travel.
        self.ready_count.load_acquire() > 0
    }

    #[cold]
    #[inline(never)]
    fn prepare_slow(&self) -> bool {
        let me = sys::thread_mark();
        if self.builder.load_relaxed() == me {
            return false;
        }
        let _building = self.building.lock();
        if self.is_ready() {
            return true;
        }
        self.builder.store_relaxed(me);
        let made = self.make_handles();
        self.builder.store_relaxed(0);
        if made < MIN_PIN_COUNT {
            return false;
        }
        // ORDERING: pairs with `pin` and `is_ready`; the handles made above travel.
        self.ready_count.store_release(made);
        true
    }

    /// Fills as many slots as there is memory for; slots filled by an earlier try count.
    fn make_handles(&self) -> u32 {
        let mut collector = self.slots.first().and_then(|slot| Some(slot.lock().handle.as_ref()?.collector().clone()));
        let mut made = 0;
        for slot in &self.slots {
            let mut slot = slot.lock();
            if slot.handle.is_none() {
                if !allocator_has_room() {
                    break;
                }
                slot.handle = Some(collector.get_or_insert_with(Collector::new).register());
            }
            made += 1;
        }
        made
    }
}

impl Pinned<'_> {
    /// Unmaps the node's page once no walker can be on it.
    ///
    /// # Safety
    /// - The calling thread has just unlinked the node, under this pin, and retires it once.
    pub(crate) unsafe fn retire(&mut self, node: NonNull<Node>) {
        // SAFETY: passed on to the caller.
        self.slot.retired = unsafe { node::push_retired(node, self.slot.retired) };
        self.slot.retired_count += 1;
        if self.slot.retired_count >= RETIRED_BATCH {
            self.hand_over();
        }
    }

    /// Gives the slot's retired nodes to the collector, as one deferred call.
    fn hand_over(&mut self) {
        if !allocator_has_room() {
            return;
        }
        let chain = core::mem::replace(&mut self.slot.retired, core::ptr::null_mut());
        self.slot.retired_count = 0;
        if !chain.is_null() {
            // SAFETY: the nodes were unlinked under a pin of this collector at or before this one: whoever can still
            // reach them is pinned now. The call captures the chain alone, which nobody else has, and may run anywhere.
            unsafe { self.guard.defer_unchecked(move || unmap_chain(chain)) };
        }
        self.guard.flush();
    }
}

fn unmap_chain(chain: *mut Node) {
    // SAFETY: called once, by the collector, after every walker that was pinned when the nodes were retired has left.
    unsafe { node::unmap_retired(chain) };
}

/// Whether the global allocator can serve what crossbeam-epoch is about to ask for. It sets `errno` where it cannot, which is nobody's
/// business.
fn allocator_has_room() -> bool {
    let layouts = EPOCH_ALLOCATIONS.map(|(bytes, align)| Layout::from_size_align(bytes, align).ok());
    let blocks = layouts.map(|layout| {
        // SAFETY: the layouts have sizes other than zero. The black box: a pair of alloc and dealloc may be optimised away.
        let block = layout.map(|layout| core::hint::black_box(keeping_errno(|| unsafe { alloc(layout) })));
        block.and_then(NonNull::new).zip(layout)
    });
    let has_all = blocks.iter().all(Option::is_some);
    for (block, layout) in blocks.into_iter().flatten() {
        // SAFETY: allocated above with this layout, and never used.
        unsafe { dealloc(block.as_ptr(), layout) };
    }
    has_all
}
