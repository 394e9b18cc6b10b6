//! The current policy: a boot policy set once, then snapshots that replace each other while threads read.
//!
//! **Invariants.** The generation word never passes the generation of the current snapshot, and only rises. A reader sees
//! one whole snapshot, and it lives until its last reader is done.
//! **Access.** `boot`: written once, before threads exist that ask. `current`, `generation`: any thread.
//! **Why.** `arc-swap` gives the grace period: a snapshot that was replaced is freed after its last reader, not before.

use crate::knobs::{FieldError, FrozenPolicy};
use arc_swap::ArcSwapOption;
use hakmem_atomic_ops::Shared32;
use std::sync::{Arc, OnceLock};

/// Holds the policy of one allocator. Const-constructible; may stand in a static.
#[derive(Debug)]
pub struct PolicyCell {
    boot: OnceLock<FrozenPolicy>,
    current: ArcSwapOption<FrozenPolicy>,
    /// Generation of a snapshot that is visible already. Relaxed suffices: it is a hint that looking is worth it, and
    /// readers remember the generation inside the snapshot they got, never this one.
    generation: Shared32,
}

/// Why a boot policy was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootError {
    /// There is a boot policy already, or a publication.
    TooLate,
    /// The policy is not valid.
    Invalid(FieldError),
}

impl PolicyCell {
    /// A cell that says [`FrozenPolicy::DEFAULT`].
    #[must_use]
    pub const fn new() -> Self {
        Self { boot: OnceLock::new(), current: ArcSwapOption::const_empty(), generation: Shared32::new(0) }
    }

    /// Sets what holds until the first publication, as generation 0. Once, by the thread that starts the allocator.
    /// Allocates nothing.
    ///
    /// # Errors
    /// When the policy is invalid, or it is not the first.
    pub fn set_boot(&self, mut policy: FrozenPolicy) -> Result<(), BootError> {
        policy.validate().map_err(BootError::Invalid)?;
        policy.generation = 0;
        if self.generation() != 0 {
            return Err(BootError::TooLate);
        }
        self.boot.set(policy).map_err(|_| BootError::TooLate)
    }

    /// Replaces the policy and returns its generation, which is one more than the last. Allocates: see the crate's
    /// notes on re-entrancy. Publishers do not wait for each other or for readers.
    ///
    /// After 2^32 - 1 publications the generation stays where it is; readers then keep what they have.
    ///
    /// # Errors
    /// The first field that is wrong; nothing is published then.
    pub fn publish(&self, policy: FrozenPolicy) -> Result<u32, FieldError> {
        self.update(|current| current.clone_from(&policy)).map(|published| published.generation)
    }

    /// Publishes what `change` makes of the current policy, and returns it. Where somebody else publishes meanwhile, `change` is called
    /// again, with that policy. It allocates, as [`PolicyCell::publish`] does.
    ///
    /// # Errors
    /// As there.
    pub fn update(&self, mut change: impl FnMut(&mut FrozenPolicy)) -> Result<FrozenPolicy, FieldError> {
        loop {
            let current = self.current.load_full();
            let mut policy = current.as_deref().unwrap_or(self.boot()).clone();
            change(&mut policy);
            if let Some(generation) = self.publish_after(generation_of(current.as_deref()), policy.clone())? {
                return Ok(FrozenPolicy { generation, ..policy });
            }
        }
    }

    /// [`PolicyCell::publish`], if the policy of this generation is still the current one. `None`: it is not, and nothing happened.
    ///
    /// # Errors
    /// As there.
    pub fn publish_after(&self, generation: u32, policy: FrozenPolicy) -> Result<Option<u32>, FieldError> {
        policy.validate()?;
        let previous = self.current.rcu(|current| {
            if generation_of(current.as_deref()) != generation {
                return current.clone();
            }
            Some(Arc::new(FrozenPolicy { generation: next_generation(current.as_deref()), ..policy.clone() }))
        });
        if generation_of(previous.as_deref()) != generation {
            return Ok(None);
        }
        let generation = next_generation(previous.as_deref());
        self.announce(generation);
        Ok(Some(generation))
    }

    /// Says that a snapshot of this generation is there. After the swap, so that whoever sees the number finds that snapshot
    /// or a later one (or, on a machine that reorders, looks again at its next chance, because it remembers the snapshot's
    /// own number). A maximum, because publishers can arrive here in another order than they swapped.
    fn announce(&self, generation: u32) {
        self.generation.max_relaxed(generation);
    }

    /// Generation of the current policy; 0 is the boot policy. One relaxed load.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation.load_relaxed()
    }

    /// The boot policy, whatever was published since.
    #[must_use]
    pub fn boot(&self) -> &FrozenPolicy {
        self.boot_or(&FrozenPolicy::DEFAULT)
    }

    /// [`PolicyCell::boot`], or the caller's own copy of the default where none was set.
    pub fn boot_or<'a>(&'a self, default: &'a FrozenPolicy) -> &'a FrozenPolicy {
        self.boot.get().unwrap_or(default)
    }

    /// Calls `read` with the current policy. Remember [`FrozenPolicy::generation`] of what you got, not
    /// [`PolicyCell::generation`]. Before the first publication this touches the boot policy only; after it, a thread's
    /// first call allocates.
    pub fn with<R>(&self, read: impl FnOnce(&FrozenPolicy) -> R) -> R {
        if self.generation() == 0 {
            return read(self.boot());
        }
        let current = self.current.load();
        read(current.as_deref().unwrap_or(self.boot()))
    }

    /// The published policy for keeps, or `None` before the first publication. Allocates like [`PolicyCell::with`].
    #[must_use]
    pub fn load(&self) -> Option<Arc<FrozenPolicy>> {
        if self.generation() == 0 { None } else { self.current.load_full() }
    }
}

impl Default for PolicyCell {
    fn default() -> Self {
        Self::new()
    }
}

fn generation_of(current: Option<&FrozenPolicy>) -> u32 {
    current.map_or(0, |policy| policy.generation)
}

fn next_generation(current: Option<&FrozenPolicy>) -> u32 {
    generation_of(current).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_blocks(cache_blocks: u32) -> FrozenPolicy {
        FrozenPolicy { cache_blocks, cache_max_blocks: cache_blocks, ..FrozenPolicy::DEFAULT }
    }

    #[test]
    fn a_new_cell_says_the_default() {
        let cell = PolicyCell::new();
        assert_eq!(cell.generation(), 0);
        assert!(cell.load().is_none());
        assert!(cell.with(|policy| *policy == FrozenPolicy::DEFAULT));
    }

    #[test]
    fn the_boot_policy_is_set_once_and_before_publications() {
        let cell = PolicyCell::new();
        assert_eq!(cell.set_boot(FrozenPolicy { generation: 9, ..with_blocks(7) }), Ok(()));
        assert_eq!(cell.with(|policy| (policy.generation, policy.cache_blocks)), (0, 7));
        assert_eq!(cell.set_boot(with_blocks(8)), Err(BootError::TooLate));
        let published = PolicyCell::new();
        assert_eq!(published.publish(with_blocks(8)), Ok(1));
        assert_eq!(published.set_boot(with_blocks(7)), Err(BootError::TooLate));
    }

    #[test]
    fn publications_count_up_and_replace_each_other() {
        let cell = PolicyCell::new();
        for generation in 1..=5 {
            assert_eq!(cell.publish(with_blocks(generation * 10)), Ok(generation));
            assert_eq!(cell.generation(), generation);
            assert_eq!(cell.with(|policy| (policy.generation, policy.cache_blocks)), (generation, generation * 10));
        }
        assert_eq!(cell.load().unwrap().generation, 5);
        assert_eq!(cell.boot(), &FrozenPolicy::DEFAULT);
    }

    #[test]
    fn what_was_decided_before_somebody_else_published_is_dropped() {
        let cell = PolicyCell::new();
        assert_eq!(cell.publish_after(0, with_blocks(10)), Ok(Some(1)));
        assert_eq!(cell.publish_after(0, with_blocks(20)), Ok(None));
        assert_eq!((cell.generation(), cell.with(|policy| policy.cache_blocks)), (1, 10));
    }

    #[test]
    fn an_update_keeps_what_somebody_else_publishes_meanwhile() {
        let cell = PolicyCell::new();
        cell.set_boot(with_blocks(10)).unwrap();
        let mut calls = 0;
        let updated = cell.update(|policy| {
            calls += 1;
            if calls == 1 {
                cell.publish(FrozenPolicy { refill_max_blocks: 7, ..policy.clone() }).unwrap();
            }
            policy.outbox_blocks = 3;
        });
        let both = FrozenPolicy { generation: 2, refill_max_blocks: 7, outbox_blocks: 3, ..with_blocks(10) };
        assert_eq!((updated, calls), (Ok(both.clone()), 2));
        assert!(cell.with(|policy| *policy == both));
    }

    #[test]
    fn an_invalid_policy_changes_nothing() {
        let cell = PolicyCell::new();
        assert!(cell.publish(with_blocks(0)).is_err());
        assert!(matches!(cell.set_boot(with_blocks(0)), Err(BootError::Invalid(_))));
        assert_eq!(cell.generation(), 0);
        assert!(cell.with(|policy| *policy == FrozenPolicy::DEFAULT));
    }

    /// One publisher has swapped its snapshot in and is late with its number; another one comes and goes meanwhile.
    #[test]
    fn a_late_publisher_neither_shares_its_number_nor_turns_the_word_back() {
        let cell = PolicyCell::new();
        cell.publish(with_blocks(1)).unwrap();
        cell.current.store(Some(Arc::new(FrozenPolicy { generation: 2, ..with_blocks(2) })));
        assert_eq!(cell.publish(with_blocks(3)), Ok(3));
        assert_eq!(cell.load().unwrap().generation, 3);
        cell.announce(2);
        assert_eq!(cell.generation(), 3);
    }

    #[test]
    fn generations_stop_at_the_end_of_the_word() {
        let last = FrozenPolicy { generation: u32::MAX, ..FrozenPolicy::DEFAULT };
        assert_eq!(next_generation(Some(&last)), u32::MAX);
        assert_eq!(next_generation(None), 1);
    }

    #[test]
    fn the_replaced_snapshot_lives_as_long_as_its_reader() {
        let cell = PolicyCell::new();
        cell.publish(with_blocks(1)).unwrap();
        let old = Arc::downgrade(&cell.load().unwrap());
        cell.with(|policy| {
            cell.publish(with_blocks(2)).unwrap();
            assert_eq!(policy.cache_blocks, 1);
            assert!(old.upgrade().is_some());
        });
        assert!(old.upgrade().is_none());
    }
}
