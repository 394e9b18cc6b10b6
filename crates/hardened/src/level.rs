//! The level as a whole: which part serves a request, and where a pointer's block is.

use core::ptr::NonNull;
use hakmem_atomic_ops::{Lock, SetOnce, SharedPtr, probe};
use hakmem_base::{CLASS_COUNT, Door, Request, SLAB_SHIFT, SizeClass, SlabIndex, ZeroValid};
use hakmem_ownership::{Route, RouteWord};
use hakmem_superslab_os::FlatTable;

use crate::class::{self, Class, ClassContext};
use crate::context::{HardenedContext, Note};
use crate::findings::{Finding, Wish};
use crate::large::{self, LargeContext, Larges};
use crate::secret::{Secret, seed};
use crate::slab::{Slab, class_for};
use crate::slot::{Slot, State};
use crate::stats::{COUNTER_SETS, ClassCounters, Counters, HardenedStats};

/// How much waits in quarantine, and how many guards stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of blocks per size class.
    pub quarantine_bytes: usize,
    /// Blocks per size class, and large blocks in all.
    pub quarantine_blocks: usize,
    /// Guards that stand at a time. Each costs up to two of the process's mappings.
    pub guards: u64,
}

/// The level. Does nothing until [`Hardened::start`].
#[derive(Debug)]
pub struct Hardened {
    running: SetOnce<Running>,
    classes: [Lock<Class>; CLASS_COUNT],
    large: Lock<Larges>,
    /// One set per class, written under its lock; the last one is that of the large blocks.
    counts: [ClassCounters; COUNTER_SETS],
    counters: Counters,
}

static_assertions::assert_impl_all!(Hardened: Send, Sync);

/// What is decided at the start.
#[derive(Debug)]
pub(crate) struct Running {
    pub secret: Secret,
    pub seed: u64,
    pub limits: Limits,
    pub slabs: SlabTable,
}

/// The record of the slab that begins in a unit.
#[derive(Debug)]
pub(crate) struct SlabTable(FlatTable<SlabPtr>);

#[derive(Debug)]
struct SlabPtr(SharedPtr<Slab>);

// SAFETY: zero is the null pointer, and nothing is dropped.
unsafe impl ZeroValid for SlabPtr {}

impl SlabTable {
    pub(crate) fn set(&self, first: SlabIndex, slab: &'static Slab) {
        if let Some(place) = self.0.get(first.to_usize()) {
            // ORDERING: pairs with `get`: the record's first state travels.
            place.0.store_release(core::ptr::from_ref(slab).cast_mut());
        }
    }

    /// The record that last stood for a slab beginning here. Whether it still does is asked under its class's lock.
    fn get(&self, first: SlabIndex) -> Option<&'static Slab> {
        // ORDERING: pairs with `set`.
        let slab = self.0.get(first.to_usize())?.0.load_acquire();
        // SAFETY: null, or a record, which is never given back.
        let slab = unsafe { slab.as_ref() };
        slab.inspect(|slab| probe::reads(*slab))
    }

    /// The slab that a unit is part of, and its first unit.
    pub(crate) fn of_unit(&self, routes: &FlatTable<RouteWord>, unit: SlabIndex) -> Option<(&'static Slab, SlabIndex)> {
        let Route::Hardened(note) = routes.get(unit.to_usize())?.route() else { return None };
        let Note::Slab(back) = Note::decode(note) else { return None };
        let first = SlabIndex::new(unit.get().checked_sub(back)?);
        Some((self.get(first)?, first))
    }
}

/// Where the block of a pointer is.
#[derive(Clone, Copy)]
enum Home {
    Slab(&'static Slab, SlabIndex),
    Large(SlabIndex),
}

impl Hardened {
    /// A level that is off.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            running: SetOnce::new(),
            classes: [const { Lock::new(Class::new()) }; CLASS_COUNT],
            large: Lock::new(Larges::new()),
            counts: [const { ClassCounters::new() }; COUNTER_SETS],
            counters: Counters::new(),
        }
    }

    /// Switches the level on, for good. `false`: there is no memory for its tables.
    #[must_use]
    pub fn start(&self, cx: HardenedContext<'_>, limits: Limits) -> bool {
        if self.is_on() {
            return true;
        }
        let seeds = [seed(), seed(), seed(), seed()];
        let [inner, outer, order, large_order] = seeds.map(|(word, from_kernel)| {
            if !from_kernel {
                self.counters.seeds_refused.add_relaxed(1);
            }
            word
        });
        let Some(slabs) = FlatTable::reserve(cx.routes.len()) else { return false };
        if !self.large.lock().set_up(cx, limits.quarantine_blocks, large_order) {
            return false;
        }
        self.running.set(Running { secret: Secret::new(inner, outer), seed: order, limits, slabs: SlabTable(slabs) });
        true
    }

    /// Whether the level runs.
    #[inline]
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.running.get().is_some()
    }

    /// A block of `bytes` bytes at a multiple of `align` (a power of two), all zero. `None`: out of memory.
    #[must_use]
    pub fn allocate(&self, cx: HardenedContext<'_>, bytes: usize, align: usize, door: Door) -> Option<NonNull<u8>> {
        let running = self.running.get()?;
        let wanted = Slot { state: State::InUse, bytes, align, door };
        let Some(class) = class_for(bytes, align) else {
            return NonNull::new(large::allocate(self.large_call(cx, running)?, wanted)?);
        };
        let block = self.class(class)?.lock().allocate(self.class_call(cx, running, class)?, class, wanted);
        NonNull::new(or_report(block)?)
    }

    /// Takes a block back. `note` is what its unit's route word said.
    pub fn free(&self, cx: HardenedContext<'_>, block: NonNull<u8>, note: usize, claim: Request) {
        let mut freed = self.try_free(cx, block, note, claim);
        if let Err(finding) = &freed
            && let Some((door, back)) = finding.wrong_doors()
            && (cx.doors_mix)(door, back)
        {
            // Whoever stands between changes the size too, of a block of no bytes for example.
            freed = self.try_free(cx, block, note, Request::unsized_from(door));
        }
        or_report(freed);
    }

    fn try_free(
        &self,
        cx: HardenedContext<'_>,
        block: NonNull<u8>,
        note: usize,
        claim: Request,
    ) -> Result<(), Finding> {
        let address = block.addr().get();
        let freed = self.running.get().and_then(|running| {
            Some(match self.home(cx, running, address, note, Wish::Free)? {
                Home::Slab(slab, head) => {
                    let call = self.class_call(cx, running, slab.class)?;
                    self.class(slab.class)?.lock().free(call, slab, head, address, claim)
                }
                Home::Large(head) => large::free(self.large_call(cx, running)?, head, address, claim),
            })
        });
        freed.unwrap_or(Ok(()))
    }

    /// Looks at a block as [`Hardened::free`] does, and gives it `new_bytes` bytes where it is, if that is possible: `true`. Else
    /// nothing changes, and the caller moves it.
    #[must_use]
    pub fn resize(
        &self,
        cx: HardenedContext<'_>,
        block: NonNull<u8>,
        note: usize,
        claim: Request,
        new_bytes: usize,
    ) -> bool {
        let address = block.addr().get();
        let resized = self.running.get().and_then(|running| {
            Some(match self.home(cx, running, address, note, Wish::Resize)? {
                Home::Slab(slab, head) => {
                    let call = self.class_call(cx, running, slab.class)?;
                    self.class(slab.class)?.lock().resize(call, slab, head, address, claim, new_bytes)
                }
                Home::Large(head) => large::resize(self.large_call(cx, running)?, head, address, claim, new_bytes),
            })
        });
        or_report(resized.unwrap_or(Ok(false)))
    }

    /// Bytes that the block at `address` was asked for with.
    #[must_use]
    pub fn usable_size(&self, cx: HardenedContext<'_>, address: usize, note: usize) -> Option<usize> {
        let running = self.running.get()?;
        let bytes = match self.home(cx, running, address, note, Wish::Measure)? {
            Home::Slab(slab, head) => {
                let _held = self.class(slab.class)?.lock();
                Class::measure(slab, head, address)
            }
            Home::Large(head) => large::measure(self.large_call(cx, running)?, head, address),
        };
        Some(or_report(bytes))
    }

    fn home(
        &self,
        cx: HardenedContext<'_>,
        running: &Running,
        address: usize,
        note: usize,
        wish: Wish,
    ) -> Option<Home> {
        let unit = cx.os.index_of(address)?;
        match Note::decode(note) {
            Note::LargeHead => Some(Home::Large(unit)),
            Note::LargeInside => Finding::not_a_start(wish, address).report(),
            Note::Slab(back) => {
                let first = SlabIndex::new(unit.get().checked_sub(back)?);
                match running.slabs.get(first) {
                    Some(slab) => Some(Home::Slab(slab, first)),
                    None => Finding::gone(address).report(),
                }
            }
        }
    }

    /// Gives empty slabs back; with `everything`, what is in quarantine too. Returns whether something went back.
    pub fn collect(&self, cx: HardenedContext<'_>, everything: bool) -> bool {
        let Some(running) = self.running.get() else { return false };
        let mut count = 0;
        for (class, lock) in SizeClass::all().zip(&self.classes) {
            if let Some(call) = self.class_call(cx, running, class) {
                let collected = lock.lock().collect(call, class, everything);
                count += or_report(collected);
            }
        }
        if everything && let Some(call) = self.large_call(cx, running) {
            count += large::release_surplus(call, true);
        }
        count > 0
    }

    /// Looks at every block, in use or freed, for damage that no free has met. Skips what another thread works at.
    pub fn sweep(&self, cx: HardenedContext<'_>) {
        if let Some(running) = self.running.get() {
            self.sweep_slow(cx, running);
        }
    }

    #[cold]
    #[inline(never)]
    fn sweep_slow(&self, cx: HardenedContext<'_>, running: &Running) {
        let units = (cx.os.stats().committed_bytes >> SLAB_SHIFT) as u32;
        // Committed bytes do not count superslab 0, which is never handed out.
        for unit in (0..units + hakmem_base::SLABS_PER_SUPERSLAB).map(SlabIndex::new) {
            let Some(Route::Hardened(note)) = cx.routes.get(unit.to_usize()).map(RouteWord::route) else { continue };
            let swept = match Note::decode(note) {
                Note::Slab(0) => self.sweep_slab(running, unit),
                Note::LargeHead => self.large_call(cx, running).map(|call| large::sweep(call, unit)),
                Note::Slab(_) | Note::LargeInside => None,
            };
            or_report(swept.unwrap_or(Ok(())));
        }
    }

    fn sweep_slab(&self, running: &Running, unit: SlabIndex) -> Option<Result<(), Finding>> {
        let slab = running.slabs.get(unit)?;
        let _held = self.class(slab.class)?.try_lock()?;
        slab.is_at(unit).then(|| class::sweep(running.secret, slab))
    }

    fn class(&self, class: SizeClass) -> Option<&Lock<Class>> {
        self.classes.get(class.index())
    }

    fn class_call<'a>(
        &'a self,
        cx: HardenedContext<'a>,
        running: &'a Running,
        class: SizeClass,
    ) -> Option<ClassContext<'a>> {
        let counts = self.counts.get(class.index())?;
        Some(ClassContext { cx, running, counters: &self.counters, counts })
    }

    fn large_call<'a>(&'a self, cx: HardenedContext<'a>, running: &'a Running) -> Option<LargeContext<'a>> {
        let counts = self.counts.last()?;
        Some(LargeContext { cx, running, counters: &self.counters, counts, lock: &self.large })
    }

    /// A reading of the counters. Takes no lock.
    #[must_use]
    pub fn stats(&self) -> HardenedStats {
        let mut stats = HardenedStats {
            guards_standing: self.counters.guards_standing.load_relaxed(),
            guards_left_out: self.counters.guards_left_out.load_relaxed(),
            guards_refused: self.counters.guards_refused.load_relaxed(),
            stranded_bytes: self.counters.stranded_bytes.load_relaxed(),
            seeds_refused: self.counters.seeds_refused.load_relaxed(),
            ..HardenedStats::default()
        };
        for counts in &self.counts {
            stats.allocs += counts.allocs.get();
            stats.live_bytes += counts.live_bytes.get();
        }
        if let Some((large, classes)) = self.counts.split_last() {
            stats.quarantined_space_bytes = large.quarantined_bytes.get();
            stats.quarantined_bytes = classes.iter().map(|counts| counts.quarantined_bytes.get()).sum();
        }
        stats
    }

    /// Takes every lock, before a fork. Those of the boxes below come after these.
    pub fn lock_for_fork(&self) {
        for lock in &self.classes {
            lock.lock_for_fork();
        }
        self.large.lock_for_fork();
    }

    /// Releases what [`Hardened::lock_for_fork`] took, in parent and child.
    ///
    /// # Safety
    /// - This thread (or the thread that it is a forked copy of) called `lock_for_fork`.
    pub unsafe fn unlock_after_fork(&self) {
        // SAFETY: passed on to the caller.
        unsafe { self.large.unlock_after_fork() };
        for lock in &self.classes {
            // SAFETY: as above.
            unsafe { lock.unlock_after_fork() };
        }
    }

    /// In a forked child, after the locks are free again: where its blocks will lie is not what its parent chooses.
    pub fn stir_in_child(&self) {
        if !self.is_on() {
            return;
        }
        let (seed, _) = seed();
        for (lock, number) in self.classes.iter().zip(1..) {
            lock.lock().stir(seed.wrapping_mul(2 * number + 1));
        }
        self.large.lock().stir(seed);
    }

    /// Whether what is counted twice agrees. Takes every lock.
    ///
    /// # Panics
    /// If it does not.
    pub fn check_invariants(&self) {
        for lock in &self.classes {
            if !lock.lock().is_consistent() {
                hakmem_base::fatal("a class of the hardened level contradicts itself");
            }
        }
    }
}

/// Ends the process if a mistake was found. The caller holds no lock any more.
fn or_report<T>(outcome: Result<T, Finding>) -> T {
    outcome.unwrap_or_else(|finding| finding.report())
}

impl Default for Hardened {
    fn default() -> Self {
        Self::new()
    }
}
