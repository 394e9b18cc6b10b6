//! The machine's atomics by name and size, with a loom atomic beside each one that a model uses.

#![allow(clippy::disallowed_types, reason = "this module stands where the machine's atomics stand in ordinary builds")]

use super::sites::effective;
use super::store::Store;
use core::panic::Location;
use core::sync::atomic::Ordering;

macro_rules! word {
    ($name:ident, $value:ty, $bits:ty, $find:ident, $mirror:ident) => {
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub(crate) struct $name(core::sync::atomic::$name);

        impl $name {
            pub(crate) const fn new(value: $value) -> Self {
                Self(core::sync::atomic::$name::new(value))
            }

            fn place(&self) -> usize {
                core::ptr::from_ref(self).addr()
            }

            /// Stores the value in the word itself, for a word that is moved and for whoever looks from outside.
            fn keep(&self, value: $value) {
                self.0.store(value, Ordering::Relaxed);
                Store::$mirror(self.place(), value as $bits);
            }

            #[track_caller]
            pub(crate) fn load(&self, ordering: Ordering) -> $value {
                let ordering = effective(ordering, Location::caller());
                let plain = self.0.load(Ordering::Relaxed);
                match Store::$find(self.place(), plain as $bits) {
                    Some(word) => word.enter().load(ordering).wrapping_add(word.first as $bits) as $value,
                    None => self.0.load(ordering),
                }
            }

            #[track_caller]
            pub(crate) fn store(&self, value: $value, ordering: Ordering) {
                let ordering = effective(ordering, Location::caller());
                let plain = self.0.load(Ordering::Relaxed);
                match Store::$find(self.place(), plain as $bits) {
                    Some(word) => {
                        word.enter().store((value as $bits).wrapping_sub(word.first as $bits), ordering);
                        self.keep(value);
                    }
                    None => self.0.store(value, ordering),
                }
            }

            #[track_caller]
            pub(crate) fn swap(&self, value: $value, ordering: Ordering) -> $value {
                let ordering = effective(ordering, Location::caller());
                let plain = self.0.load(Ordering::Relaxed);
                match Store::$find(self.place(), plain as $bits) {
                    Some(word) => {
                        let before = word.enter().swap((value as $bits).wrapping_sub(word.first as $bits), ordering);
                        self.keep(value);
                        before.wrapping_add(word.first as $bits) as $value
                    }
                    None => self.0.swap(value, ordering),
                }
            }

            #[track_caller]
            pub(crate) fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                let site = Location::caller();
                let (success, failure) = (effective(success, site), effective(failure, site));
                let plain = self.0.load(Ordering::Relaxed);
                let Some(word) = Store::$find(self.place(), plain as $bits) else {
                    return self.0.compare_exchange(current, new, success, failure);
                };
                let first = word.first as $bits;
                let result = word.enter().compare_exchange(
                    (current as $bits).wrapping_sub(first),
                    (new as $bits).wrapping_sub(first),
                    success,
                    failure,
                );
                if result.is_ok() {
                    self.keep(new);
                }
                let shown = |found: $bits| found.wrapping_add(first) as $value;
                result.map(shown).map_err(shown)
            }

            /// Never fails without a reason: loom's does not either.
            #[allow(dead_code, reason = "one set of operations for all words")]
            #[track_caller]
            pub(crate) fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(current, new, success, failure)
            }
        }
    };
}

macro_rules! number {
    ($name:ident, $value:ty, $bits:ty, $find:ident, $($operation:ident: $of_any_first:literal, $apply:expr;)*) => {
        impl $name {$(
            #[track_caller]
            pub(crate) fn $operation(&self, operand: $value, ordering: Ordering) -> $value {
                let ordering = effective(ordering, Location::caller());
                let plain = self.0.load(Ordering::Relaxed);
                let Some(word) = Store::$find(self.place(), plain as $bits) else {
                    return self.0.$operation(operand, ordering);
                };
                assert!($of_any_first || word.first == 0, "a word whose bits are set or cleared begins with 0 in a model");
                let before = word.enter().$operation(operand as $bits, ordering).wrapping_add(word.first as $bits) as $value;
                let apply: fn($value, $value) -> $value = $apply;
                self.keep(apply(before, operand));
                before
            }
        )*}
    };
    ($name:ident, $value:ty, $bits:ty, $find:ident) => {
        number!($name, $value, $bits, $find,
            fetch_add: true, <$value>::wrapping_add;
            fetch_sub: true, <$value>::wrapping_sub;
            fetch_max: false, Ord::max;
            fetch_or: false, core::ops::BitOr::bitor;
            fetch_and: false, core::ops::BitAnd::bitand;
        );
    };
}

word!(AtomicU32, u32, u32, word32, mirror32);
word!(AtomicU64, u64, u64, word64, mirror64);
word!(AtomicUsize, usize, u64, word64, mirror64);
number!(AtomicU32, u32, u32, word32);
number!(AtomicU64, u64, u64, word64);
number!(AtomicUsize, usize, u64, word64);

impl AtomicU32 {
    /// The last value in modification order, as the kernel sees it.
    pub(crate) fn latest(&self) -> u32 {
        self.fetch_add(0, Ordering::Relaxed)
    }
}

/// A pointer travels as its address, whose provenance is exposed.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct AtomicPtr<T>(core::sync::atomic::AtomicPtr<T>);

impl<T> AtomicPtr<T> {
    pub(crate) const fn new(pointer: *mut T) -> Self {
        Self(core::sync::atomic::AtomicPtr::new(pointer))
    }

    fn place(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    fn plain(&self) -> u64 {
        self.0.load(Ordering::Relaxed).expose_provenance() as u64
    }

    fn keep(&self, pointer: *mut T) {
        self.0.store(pointer, Ordering::Relaxed);
        Store::mirror64(self.place(), pointer.expose_provenance() as u64);
    }

    #[track_caller]
    pub(crate) fn load(&self, ordering: Ordering) -> *mut T {
        let ordering = effective(ordering, Location::caller());
        match Store::word64(self.place(), self.plain()) {
            Some(word) => shown(word.enter().load(ordering).wrapping_add(word.first)),
            None => self.0.load(ordering),
        }
    }

    #[track_caller]
    pub(crate) fn store(&self, pointer: *mut T, ordering: Ordering) {
        let ordering = effective(ordering, Location::caller());
        match Store::word64(self.place(), self.plain()) {
            Some(word) => {
                word.enter().store((pointer.expose_provenance() as u64).wrapping_sub(word.first), ordering);
                self.keep(pointer);
            }
            None => self.0.store(pointer, ordering),
        }
    }

    #[track_caller]
    pub(crate) fn swap(&self, pointer: *mut T, ordering: Ordering) -> *mut T {
        let ordering = effective(ordering, Location::caller());
        match Store::word64(self.place(), self.plain()) {
            Some(word) => {
                let stored = (pointer.expose_provenance() as u64).wrapping_sub(word.first);
                let before = word.enter().swap(stored, ordering).wrapping_add(word.first);
                self.keep(pointer);
                shown(before)
            }
            None => self.0.swap(pointer, ordering),
        }
    }

    #[track_caller]
    pub(crate) fn compare_exchange(
        &self,
        current: *mut T,
        new: *mut T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<*mut T, *mut T> {
        let site = Location::caller();
        let (success, failure) = (effective(success, site), effective(failure, site));
        let Some(word) = Store::word64(self.place(), self.plain()) else {
            return self.0.compare_exchange(current, new, success, failure);
        };
        let stored = |pointer: *mut T| (pointer.expose_provenance() as u64).wrapping_sub(word.first);
        let result = word.enter().compare_exchange(stored(current), stored(new), success, failure);
        if result.is_ok() {
            self.keep(new);
        }
        let found = |found: u64| shown(found.wrapping_add(word.first));
        result.map(found).map_err(found)
    }
}

fn shown<T>(address: u64) -> *mut T {
    core::ptr::with_exposed_provenance_mut(address as usize)
}

/// A yes or no travels as 1 or 0.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct AtomicBool(core::sync::atomic::AtomicBool);

impl AtomicBool {
    pub(crate) const fn new(value: bool) -> Self {
        Self(core::sync::atomic::AtomicBool::new(value))
    }

    fn place(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    fn keep(&self, value: bool) {
        self.0.store(value, Ordering::Relaxed);
        Store::mirror64(self.place(), u64::from(value));
    }

    #[track_caller]
    pub(crate) fn load(&self, ordering: Ordering) -> bool {
        let ordering = effective(ordering, Location::caller());
        match Store::word64(self.place(), u64::from(self.0.load(Ordering::Relaxed))) {
            Some(word) => word.enter().load(ordering).wrapping_add(word.first) != 0,
            None => self.0.load(ordering),
        }
    }

    #[track_caller]
    pub(crate) fn store(&self, value: bool, ordering: Ordering) {
        let ordering = effective(ordering, Location::caller());
        match Store::word64(self.place(), u64::from(self.0.load(Ordering::Relaxed))) {
            Some(word) => {
                word.enter().store(u64::from(value).wrapping_sub(word.first), ordering);
                self.keep(value);
            }
            None => self.0.store(value, ordering),
        }
    }

    /// By a compare-and-swap, which does not write what stands there already: loom lets a write come after a plain store
    /// that it did not see, so that an exchange of true for true could undo a clearing, which no machine does.
    #[track_caller]
    pub(crate) fn swap(&self, value: bool, ordering: Ordering) -> bool {
        let ordering = effective(ordering, Location::caller());
        let Some(word) = Store::word64(self.place(), u64::from(self.0.load(Ordering::Relaxed))) else {
            return self.0.swap(value, ordering);
        };
        let read = match ordering {
            Ordering::Acquire | Ordering::AcqRel => Ordering::Acquire,
            Ordering::SeqCst => Ordering::SeqCst,
            _ => Ordering::Relaxed,
        };
        let stored = |value: bool| u64::from(value).wrapping_sub(word.first);
        let was_other = word.enter().compare_exchange(stored(!value), stored(value), ordering, read).is_ok();
        if was_other {
            self.keep(value);
        }
        was_other != value
    }
}
