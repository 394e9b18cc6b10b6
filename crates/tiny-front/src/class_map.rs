//! Which class serves which size at present: the fixed ones, and the dynamic ones that policy has brought into force.
//!
//! **Not here.** Which dynamic classes a program should have. What a class is: that never changes (`hakmem_base::SizeClass`).
//! **Invariants.** Every entry names a class whose blocks hold all of its sizes, at any time, whoever reads while it is written.
//! **Access.** A look-up is one relaxed load by any thread; `set` writes under a lock. Nothing has to be ordered: who reads an
//! outdated entry gets a class that serves the size as well, and whose blocks are freed, resized and counted by what their
//! slab's route word says. So a class that leaves force needs no farewell: its blocks live on, and its slabs go back one by one.
//! **Why.** docs/decisions/0009-dynamic-classes.md

use hakmem_atomic_ops::{Lock, Owned8, Owned64};
use hakmem_base::{BinPlace, FINE_ENTRIES, MAX_SLAB_BLOCK_BYTES, SizeClass, TINY_MAX_BYTES, fine_bytes, fine_entry};

use crate::raw;

/// Classes by size above [`TINY_MAX_BYTES`].
#[derive(Debug)]
pub struct ClassMap {
    entries: [Owned8; FINE_ENTRIES],
    /// Dynamic classes that have ever been in force, low bits first: others have no slabs. Written under the lock.
    ever: [Owned64; 2],
    /// What the entries say, and as of which policy.
    in_force: Lock<InForce>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct InForce {
    dynamic: DynamicSet,
    generation: u32,
}

/// A set of dynamic classes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DynamicSet(u128);

impl DynamicSet {
    /// The classes that serve these sizes (bytes) better than fixed ones do; sizes for which there is none are left out.
    #[must_use]
    pub fn of_sizes(sizes: &[u32]) -> Self {
        let classes = sizes.iter().filter_map(|bytes| SizeClass::dynamic(*bytes as usize));
        Self(classes.fold(0, |set, class| set | Self::bit(class)))
    }

    /// Whether a class is in it.
    #[must_use]
    pub const fn holds(self, class: SizeClass) -> bool {
        self.0 & Self::bit(class) != 0
    }

    /// The classes, smallest first.
    pub fn iter(self) -> impl Iterator<Item = SizeClass> {
        SizeClass::all_dynamic().filter(move |class| self.holds(*class))
    }

    const fn bit(class: SizeClass) -> u128 {
        match class.index().checked_sub(hakmem_base::CLASS_COUNT) {
            Some(place) => 1 << place,
            None => 0,
        }
    }
}

const _: () = assert!(hakmem_base::DYNAMIC_CLASS_COUNT <= u128::BITS as usize);

impl ClassMap {
    /// The fixed classes.
    #[must_use]
    pub const fn new() -> Self {
        let mut entries = [const { Owned8::new(0) }; FINE_ENTRIES];
        let mut entry = 0;
        while entry < FINE_ENTRIES {
            #[expect(clippy::indexing_slicing, reason = "bounded by the loop, at compile time")]
            if let Some(class) = SizeClass::for_bytes(fine_bytes(entry)) {
                entries[entry] = Owned8::new(class.index() as u8);
            }
            entry += 1;
        }
        Self {
            entries,
            ever: [const { Owned64::new(0) }; 2],
            in_force: Lock::new(InForce { dynamic: DynamicSet(0), generation: 0 }),
        }
    }

    /// The class that serves `bytes` bytes at present, or `None` above [`MAX_SLAB_BLOCK_BYTES`].
    #[inline(always)]
    #[must_use]
    pub fn for_bytes(&self, bytes: usize) -> Option<SizeClass> {
        if bytes <= TINY_MAX_BYTES {
            Some(SizeClass::for_tiny(bytes))
        } else if bytes <= MAX_SLAB_BLOCK_BYTES {
            // SAFETY: the size has an entry, and `new` and `set` write indices of classes that hold it only.
            Some(unsafe { raw::class_at(&self.entries, fine_entry(bytes)) })
        } else {
            None
        }
    }

    /// Place of the bin of the class that serves `bytes` bytes, more than [`TINY_MAX_BYTES`], at present; `None` above
    /// [`MAX_SLAB_BLOCK_BYTES`].
    #[inline(always)]
    #[must_use]
    pub fn place_beyond_tiny(&self, bytes: usize) -> Option<BinPlace> {
        if bytes > MAX_SLAB_BLOCK_BYTES {
            return None;
        }
        // SAFETY: as in `for_bytes`.
        Some(BinPlace::of_class(unsafe { raw::class_at(&self.entries, fine_entry(bytes)) }))
    }

    /// From now on these dynamic classes are in force, and no others, unless a later generation has said otherwise already.
    #[unsafe(link_section = ".text.hot.hakmem")]
    pub fn set(&self, dynamic: DynamicSet, generation: u32) {
        let mut now = self.in_force.lock();
        if generation < now.generation {
            return;
        }
        let before = core::mem::replace(&mut *now, InForce { dynamic, generation });
        if before.dynamic == dynamic {
            return;
        }
        let [low, high] = &self.ever;
        low.set(low.get() | dynamic.0 as u64);
        high.set(high.get() | (dynamic.0 >> u64::BITS) as u64);
        for (entry, word) in self.entries.iter().enumerate() {
            if let Some(class) = class_of(fine_bytes(entry), dynamic) {
                word.set(class.index() as u8);
            }
        }
    }

    /// The dynamic classes that have ever been in force, perhaps without the latest.
    #[must_use]
    pub fn ever_in_force(&self) -> DynamicSet {
        let [low, high] = &self.ever;
        DynamicSet(u128::from(high.get()) << u64::BITS | u128::from(low.get()))
    }

    /// The dynamic classes that are in force.
    #[must_use]
    pub fn in_force(&self) -> DynamicSet {
        self.in_force.lock().dynamic
    }

    /// Takes the lock before a fork.
    pub fn lock_for_fork(&self) {
        self.in_force.lock_for_fork();
    }

    /// Releases what [`ClassMap::lock_for_fork`] took, in parent and child.
    ///
    /// # Safety
    /// - This thread (or the thread that it is a forked copy of) called `lock_for_fork`.
    pub unsafe fn unlock_after_fork(&self) {
        // SAFETY: passed on to the caller.
        unsafe { self.in_force.unlock_after_fork() };
    }
}

impl Default for ClassMap {
    fn default() -> Self {
        Self::new()
    }
}

/// The smallest class for a size among the fixed ones and these.
fn class_of(bytes: usize, dynamic: DynamicSet) -> Option<SizeClass> {
    let finest = SizeClass::finest(bytes)?;
    let mut in_gap =
        (finest.index()..).map_while(SizeClass::from_index).take_while(|class| class.fixed() == finest.fixed());
    Some(in_gap.find(|class| dynamic.holds(*class)).unwrap_or(finest.fixed()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hakmem_atomic_ops::Flag;
    use hakmem_testkit::cases;
    use proptest::prelude::*;

    /// The definition, class by class.
    fn plain(bytes: usize, dynamic: DynamicSet) -> Option<SizeClass> {
        let serves = |class: &SizeClass| {
            class.block_bytes() >= bytes && (!class.is_dynamic() || bytes > TINY_MAX_BYTES && dynamic.holds(*class))
        };
        SizeClass::every().filter(serves).min_by_key(|class| class.block_bytes())
    }

    #[test]
    fn a_new_map_knows_the_fixed_classes() {
        let map = ClassMap::new();
        for bytes in 0..=MAX_SLAB_BLOCK_BYTES + 1 {
            assert_eq!(map.for_bytes(bytes), SizeClass::for_bytes(bytes), "{bytes}");
            let beyond = (bytes > TINY_MAX_BYTES).then(|| map.place_beyond_tiny(bytes).map(BinPlace::class));
            assert!(beyond.is_none_or(|class| class == map.for_bytes(bytes)), "{bytes}");
        }
        assert_eq!(map.in_force(), DynamicSet::default());
    }

    #[test]
    fn sizes_that_no_dynamic_class_serves_better_make_none() {
        assert_eq!(DynamicSet::of_sizes(&[0, 1000, 1024, 4600, 4608, 32_768, 32_769, u32::MAX]), DynamicSet::default());
        let page = SizeClass::dynamic(4360).unwrap();
        assert_eq!(page.block_bytes(), 4368);
        assert!(DynamicSet::of_sizes(&[0, 4360]).holds(page));
    }

    #[test]
    fn an_older_policy_does_not_undo_a_newer_one() {
        let (map, pages) = (ClassMap::new(), DynamicSet::of_sizes(&[4360]));
        map.set(pages, 7);
        map.set(DynamicSet::default(), 6);
        assert_eq!(map.in_force(), pages);
        map.set(DynamicSet::default(), 7);
        assert_eq!(map.for_bytes(4360), SizeClass::for_bytes(4360));
        // Slabs of it may be there as long as the process is.
        map.set(DynamicSet::of_sizes(&[30_000]), 8);
        let ever: Vec<usize> = map.ever_in_force().iter().map(SizeClass::block_bytes).collect();
        assert_eq!(ever, [4368, 30_240]);
    }

    #[test]
    fn classes_do_not_change_while_the_map_is_locked_for_a_fork() {
        let (map, meeting, is_over) = (ClassMap::new(), std::sync::Barrier::new(2), Flag::new(false));
        map.lock_for_fork();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                meeting.wait();
                map.set(DynamicSet::of_sizes(&[4360]), 1);
                assert!(is_over.is_set_relaxed(), "the classes changed meanwhile");
            });
            meeting.wait();
            (0..200).for_each(|_| std::thread::yield_now());
            assert_eq!(map.for_bytes(4360), SizeClass::for_bytes(4360));
            // ORDERING: pairs with nothing: the lock carries it to the other thread.
            assert!(is_over.try_set_acq_rel());
            // SAFETY: this thread took it above.
            unsafe { map.unlock_after_fork() };
        });
        assert_eq!(map.in_force(), DynamicSet::of_sizes(&[4360]));
    }

    /// Two policies take turns while others look: each answer holds the size, whichever policy it belongs to.
    #[test]
    fn whoever_looks_while_classes_change_finds_one_that_holds_the_size() {
        let map = ClassMap::new();
        let rounds = if cfg!(miri) { 2 } else { 400 };
        std::thread::scope(|scope| {
            let done = hakmem_atomic_ops::Flag::new(false);
            let done = &*Box::leak(Box::new(done));
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.is_set_relaxed() {
                        for bytes in (1025..=MAX_SLAB_BLOCK_BYTES).step_by(509) {
                            let class = map.for_bytes(bytes).unwrap();
                            assert!(
                                class.block_bytes() >= bytes && class.fixed() == SizeClass::for_bytes(bytes).unwrap()
                            );
                        }
                    }
                });
            }
            for round in 0..rounds {
                let sizes: &[u32] = if round % 2 == 0 { &[4360, 8400, 1100] } else { &[4240, 9000, 30_000] };
                map.set(DynamicSet::of_sizes(sizes), round);
            }
            // ORDERING: pairs with nothing: the others look at each round, and nothing travels.
            done.store_release(true);
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: cases(100), ..ProptestConfig::default() })]

        #[test]
        fn a_size_is_served_by_the_smallest_class_in_force(
            sets in prop::collection::vec(prop::collection::vec(1000_u32..33_000, 0..8), 1..4),
            sizes in prop::collection::vec(0..=MAX_SLAB_BLOCK_BYTES + 4096, 1..200),
        ) {
            let map = ClassMap::new();
            for (generation, set) in sets.iter().enumerate() {
                let dynamic = DynamicSet::of_sizes(set);
                map.set(dynamic, generation as u32);
                for &bytes in &sizes {
                    prop_assert_eq!(map.for_bytes(bytes), plain(bytes, dynamic), "{} with {:?}", bytes, set);
                }
            }
        }
    }
}
