//! A value that is written once and read by everybody afterwards.

use crate::probe;
use crate::words::Flag;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;

/// Empty until [`SetOnce::set`]; then shared for good. Never dropped: it lives in statics.
#[derive(Debug)]
pub struct SetOnce<T> {
    claimed: Flag,
    ready: Flag,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the value is written by the one thread that claimed it, before `ready`, and only shared afterwards.
unsafe impl<T: Send + Sync> Sync for SetOnce<T> {}

impl<T> SetOnce<T> {
    /// Nothing set yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { claimed: Flag::new(false), ready: Flag::new(false), value: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// Stores `value` unless somebody already has. True for the one caller whose value is used.
    pub fn set(&self, value: T) -> bool {
        // ORDERING: only decides who writes; the value travels with `ready`.
        if !self.claimed.try_set_acq_rel() {
            return false;
        }
        probe::writes(&self.value);
        // SAFETY: the claim makes this the only writer, and no reader looks before `ready`.
        let slot = unsafe { &mut *self.value.get() };
        slot.write(value);
        // ORDERING: pairs with `get`: the value travels.
        self.ready.store_release(true);
        true
    }

    /// The value, once it is set.
    #[inline]
    #[must_use]
    pub fn get(&self) -> Option<&T> {
        // ORDERING: pairs with `set`.
        if self.ready.is_set_acquire() {
            probe::reads(&self.value);
            // SAFETY: nothing writes the slot once `ready` is set.
            let slot = unsafe { &*self.value.get() };
            // SAFETY: `ready` is set after the value was written.
            Some(unsafe { slot.assume_init_ref() })
        } else {
            None
        }
    }
}

impl<T> Default for SetOnce<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_stays() {
        let cell = SetOnce::new();
        assert_eq!(cell.get(), None);
        assert!(cell.set(7));
        assert!(!cell.set(8));
        assert_eq!(cell.get(), Some(&7));
    }
}
