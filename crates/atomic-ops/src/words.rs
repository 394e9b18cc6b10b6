//! Newtypes over the machine's atomic words.

#![expect(clippy::disallowed_types, reason = "this module is where the newtypes are made")]

// What the shared words stand on. Owned words have the machine's own in models too: see `probe`.
#[cfg(alloc_loom)]
use crate::model::words as backing;
#[cfg(not(alloc_loom))]
use core::sync::atomic as backing;

use crate::probe;
use core::sync::atomic::Ordering;

/// Tells the processor that this is a spin loop.
#[inline]
pub fn spin_hint() {
    #[cfg(alloc_loom)]
    crate::model::spin_hint();
    #[cfg(not(alloc_loom))]
    core::hint::spin_loop();
}

macro_rules! shared_word {
    ($(#[$doc:meta])* $name:ident, $atomic:ident, $value:ty) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub struct $name(backing::$atomic);

        impl $name {
            /// A word that holds `value`.
            #[must_use]
            pub const fn new(value: $value) -> Self {
                Self(backing::$atomic::new(value))
            }

            /// Reads without ordering anything.
            #[inline]
            #[cfg_attr(alloc_loom, track_caller)]
            #[must_use]
            pub fn load_relaxed(&self) -> $value {
                self.0.load(Ordering::Relaxed)
            }

            /// Reads; what was written before the matching release is visible afterwards.
            #[inline]
            #[cfg_attr(alloc_loom, track_caller)]
            #[must_use]
            pub fn load_acquire(&self) -> $value {
                self.0.load(Ordering::Acquire)
            }

            /// Writes without ordering anything.
            #[inline]
            #[cfg_attr(alloc_loom, track_caller)]
            pub fn store_relaxed(&self, value: $value) {
                self.0.store(value, Ordering::Relaxed);
            }

            /// Writes; everything written before is visible to whoever acquires this value.
            #[inline]
            #[cfg_attr(alloc_loom, track_caller)]
            pub fn store_release(&self, value: $value) {
                self.0.store(value, Ordering::Release);
            }

            /// Exchanges, acquiring and releasing.
            #[inline]
            #[cfg_attr(alloc_loom, track_caller)]
            pub fn swap_acq_rel(&self, value: $value) -> $value {
                self.0.swap(value, Ordering::AcqRel)
            }

            /// Replaces `current` by `new` or returns what stands there; may fail without a reason. Acquires and releases.
            ///
            /// # Errors
            /// The value found, when it was not `current` or the processor gave up.
            #[inline]
            #[cfg_attr(alloc_loom, track_caller)]
            pub fn cas_weak_acq_rel(&self, current: $value, new: $value) -> Result<$value, $value> {
                self.0.compare_exchange_weak(current, new, Ordering::AcqRel, Ordering::Acquire)
            }

            /// Replaces `current` by `new` or returns what stands there. Acquires and releases.
            ///
            /// # Errors
            /// The value found, when it was not `current`.
            #[inline]
            #[cfg_attr(alloc_loom, track_caller)]
            pub fn cas_acq_rel(&self, current: $value, new: $value) -> Result<$value, $value> {
                self.0.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
            }
        }
    };
}

macro_rules! shared_number {
    ($name:ident, $value:ty) => {
        impl $name {
            /// Adds (wrapping) without ordering anything; returns the previous value.
            #[inline]
            #[cfg_attr(alloc_loom, track_caller)]
            pub fn add_relaxed(&self, value: $value) -> $value {
                self.0.fetch_add(value, Ordering::Relaxed)
            }

            /// Subtracts (wrapping) without ordering anything; returns the previous value.
            #[inline]
            #[cfg_attr(alloc_loom, track_caller)]
            pub fn sub_relaxed(&self, value: $value) -> $value {
                self.0.fetch_sub(value, Ordering::Relaxed)
            }

            /// Raises the word to at least `value`.
            #[inline]
            #[cfg_attr(alloc_loom, track_caller)]
            pub fn max_relaxed(&self, value: $value) {
                self.0.fetch_max(value, Ordering::Relaxed);
            }

            /// Sets bits, acquiring and releasing; returns the previous value.
            #[inline]
            #[cfg_attr(alloc_loom, track_caller)]
            pub fn or_acq_rel(&self, bits: $value) -> $value {
                self.0.fetch_or(bits, Ordering::AcqRel)
            }

            /// Clears all bits that are not in `mask`, acquiring and releasing; returns the previous value.
            #[inline]
            #[cfg_attr(alloc_loom, track_caller)]
            pub fn and_acq_rel(&self, mask: $value) -> $value {
                self.0.fetch_and(mask, Ordering::AcqRel)
            }
        }
    };
}

shared_word!(
    /// A 32-bit word that several threads write.
    Shared32, AtomicU32, u32
);
shared_word!(
    /// A 64-bit word that several threads write.
    Shared64, AtomicU64, u64
);
shared_word!(
    /// A pointer-sized number that several threads write.
    SharedUsize, AtomicUsize, usize
);
shared_number!(Shared32, u32);
shared_number!(Shared64, u64);
shared_number!(SharedUsize, usize);

/// A pointer that several threads write.
#[derive(Debug)]
#[repr(transparent)]
pub struct SharedPtr<T>(backing::AtomicPtr<T>);

impl<T> SharedPtr<T> {
    /// A word that holds `pointer`.
    #[must_use]
    pub const fn new(pointer: *mut T) -> Self {
        Self(backing::AtomicPtr::new(pointer))
    }

    /// Reads without ordering anything.
    #[inline]
    #[cfg_attr(alloc_loom, track_caller)]
    #[must_use]
    pub fn load_relaxed(&self) -> *mut T {
        self.0.load(Ordering::Relaxed)
    }

    /// Reads; what was written before the matching release is visible afterwards.
    #[inline]
    #[cfg_attr(alloc_loom, track_caller)]
    #[must_use]
    pub fn load_acquire(&self) -> *mut T {
        self.0.load(Ordering::Acquire)
    }

    /// Writes without ordering anything.
    #[inline]
    #[cfg_attr(alloc_loom, track_caller)]
    pub fn store_relaxed(&self, pointer: *mut T) {
        self.0.store(pointer, Ordering::Relaxed);
    }

    /// Writes; everything written before is visible to whoever acquires this pointer.
    #[inline]
    #[cfg_attr(alloc_loom, track_caller)]
    pub fn store_release(&self, pointer: *mut T) {
        self.0.store(pointer, Ordering::Release);
    }

    /// Exchanges, acquiring and releasing.
    #[inline]
    #[cfg_attr(alloc_loom, track_caller)]
    pub fn swap_acq_rel(&self, pointer: *mut T) -> *mut T {
        self.0.swap(pointer, Ordering::AcqRel)
    }

    /// Replaces `current` by `new` or returns what stands there. Acquires and releases.
    ///
    /// # Errors
    /// The pointer found, when it was not `current`.
    #[inline]
    #[cfg_attr(alloc_loom, track_caller)]
    pub fn cas_acq_rel(&self, current: *mut T, new: *mut T) -> Result<*mut T, *mut T> {
        self.0.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
    }
}

/// A yes/no word that several threads write.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Flag(backing::AtomicBool);

impl Flag {
    /// A flag that is `value`.
    #[must_use]
    pub const fn new(value: bool) -> Self {
        Self(backing::AtomicBool::new(value))
    }

    /// Reads without ordering anything.
    #[inline]
    #[cfg_attr(alloc_loom, track_caller)]
    #[must_use]
    pub fn is_set_relaxed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Reads; what was written before the flag was set is visible afterwards.
    #[inline]
    #[cfg_attr(alloc_loom, track_caller)]
    #[must_use]
    pub fn is_set_acquire(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Writes; everything written before is visible to whoever acquires the flag.
    #[inline]
    #[cfg_attr(alloc_loom, track_caller)]
    pub fn store_release(&self, value: bool) {
        self.0.store(value, Ordering::Release);
    }

    /// Sets the flag; true for exactly one caller until it is cleared.
    #[inline]
    #[cfg_attr(alloc_loom, track_caller)]
    #[must_use]
    pub fn try_set_acq_rel(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

macro_rules! owned_word {
    ($name:ident, $atomic:ident, $value:ty, $doc:literal) => {
        #[doc = $doc]
        ///
        /// Written by one thread at a time (a hand-over orders the writers); others may read a slightly old value.
        /// Relaxed is enough: no other data travels with the word. Compiles to plain moves.
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub struct $name(core::sync::atomic::$atomic);

        impl $name {
            /// A word that holds `value`.
            #[must_use]
            pub const fn new(value: $value) -> Self {
                Self(core::sync::atomic::$atomic::new(value))
            }

            /// Reads.
            #[inline]
            #[cfg_attr(alloc_loom, track_caller)]
            #[must_use]
            pub fn get(&self) -> $value {
                probe::reads(self);
                self.0.load(Ordering::Relaxed)
            }

            /// Reads for a hint, without a claim on the word: what is read may be old by now, and models do not learn of it.
            #[inline]
            #[must_use]
            pub fn peek(&self) -> $value {
                self.0.load(Ordering::Relaxed)
            }

            /// Writes. Only the word's present writer calls this.
            #[inline]
            #[cfg_attr(alloc_loom, track_caller)]
            pub fn set(&self, value: $value) {
                probe::writes(self);
                self.0.store(value, Ordering::Relaxed);
            }

            /// Adds (wrapping). Only the word's present writer calls this: it is a load and a store, not one step.
            #[inline]
            #[cfg_attr(alloc_loom, track_caller)]
            pub fn add(&self, value: $value) {
                self.set(self.get().wrapping_add(value));
            }

            /// Subtracts (wrapping). Only the word's present writer calls this.
            #[inline]
            #[cfg_attr(alloc_loom, track_caller)]
            pub fn sub(&self, value: $value) {
                self.set(self.get().wrapping_sub(value));
            }
        }
    };
}

owned_word!(Owned8, AtomicU8, u8, "A byte with a single writer.");
owned_word!(Owned32, AtomicU32, u32, "A 32-bit word with a single writer.");
owned_word!(Owned64, AtomicU64, u64, "A 64-bit word with a single writer.");

#[cfg(alloc_loom)]
impl Shared32 {
    /// What the kernel would find in the word.
    pub(crate) fn latest(&self) -> u32 {
        self.0.latest()
    }
}

macro_rules! zero_valid {
    ($($name:ty),*) => {$(
        // SAFETY: an atomic number without other fields: zero is a value and nothing is dropped.
        unsafe impl hakmem_base::ZeroValid for $name {}
    )*};
}
zero_valid!(Shared32, Shared64, SharedUsize, Owned8, Owned32, Owned64);
// SAFETY: an atomic pointer without other fields: null is a value and nothing is dropped.
unsafe impl<T> hakmem_base::ZeroValid for SharedPtr<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_caller_sets_a_flag() {
        let flag = Flag::new(false);
        let winners = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..4).map(|_| scope.spawn(|| usize::from(flag.try_set_acq_rel()))).collect();
            tries.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(winners, 1);
        flag.store_release(false);
        assert!(flag.try_set_acq_rel());
    }

    #[test]
    fn owned_words_wrap() {
        let word = Owned32::new(0);
        word.sub(1);
        assert_eq!(word.get(), u32::MAX);
        word.add(2);
        assert_eq!(word.get(), 1);
    }

    #[test]
    fn cas_reports_what_it_found() {
        let word = Shared64::new(5);
        assert_eq!(word.cas_acq_rel(4, 6), Err(5));
        assert_eq!(word.cas_acq_rel(5, 6), Ok(5));
        assert_eq!(word.load_acquire(), 6);
    }
}
