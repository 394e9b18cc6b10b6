//! C++ `operator new` and `operator delete`, under their mangled names.
//!
//! An allocation that fails is handed to the C++ runtime's own operator: it asks `malloc` (ours) once more, runs the
//! program's new-handler as long as there is one, and throws `std::bad_alloc`, or in the `nothrow` form catches what the
//! handler threw and returns null. Rust can neither throw nor catch a C++ exception, and the runtime in use knows its own rules.

use crate::family::{allocate_aligned, free_as};
use crate::next::Next;
use crate::outcome::{MAX_BYTES, out_of_memory};
use core::ffi::c_void;
use core::mem::transmute;
use hakmem::raw::{self, Door, Request};
use hakmem_base::fatal;

/// `const std::nothrow_t&`.
type Nothrow = *const c_void;

type New = unsafe extern "C-unwind" fn(usize) -> *mut c_void;
type NewAligned = unsafe extern "C-unwind" fn(usize, usize) -> *mut c_void;
type NewNothrow = unsafe extern "C-unwind" fn(usize, Nothrow) -> *mut c_void;
type NewAlignedNothrow = unsafe extern "C-unwind" fn(usize, usize, Nothrow) -> *mut c_void;

static NEW: Next = Next::new(c"_Znwm");
static NEW_ALIGNED: Next = Next::new(c"_ZnwmSt11align_val_t");
static NEW_NOTHROW: Next = Next::new(c"_ZnwmRKSt9nothrow_t");
static NEW_ALIGNED_NOTHROW: Next = Next::new(c"_ZnwmSt11align_val_tRKSt9nothrow_t");

macro_rules! operators_new {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*): $allocate:expr, else $slow:ident;)*) => {$(
        $(#[$doc])*
        #[allow(non_snake_case, reason = "the name that C++ compilers give the operator")]
        #[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
        pub extern "C-unwind" fn $name($($argument: $type),*) -> *mut c_void {
            let block = $allocate;
            if block.is_null() { $slow($($argument),*) } else { block.cast() }
        }
    )*};
}

operators_new! {
    /// `operator new(size_t)`
    _Znwm(bytes: usize): raw::allocate(bytes, Door::New), else new_slow;
    /// `operator new[](size_t)`
    _Znam(bytes: usize): raw::allocate(bytes, Door::NewArray), else new_slow;
    /// `operator new(size_t, const std::nothrow_t&)`
    _ZnwmRKSt9nothrow_t(bytes: usize, nothrow: Nothrow): raw::allocate(bytes, Door::New), else new_nothrow_slow;
    /// `operator new[](size_t, const std::nothrow_t&)`
    _ZnamRKSt9nothrow_t(bytes: usize, nothrow: Nothrow): raw::allocate(bytes, Door::NewArray), else new_nothrow_slow;
    /// `operator new(size_t, std::align_val_t)`
    _ZnwmSt11align_val_t(bytes: usize, alignment: usize): allocate_new(bytes, alignment, Door::New), else new_aligned_slow;
    /// `operator new[](size_t, std::align_val_t)`
    _ZnamSt11align_val_t(bytes: usize, alignment: usize): allocate_new(bytes, alignment, Door::NewArray), else new_aligned_slow;
    /// `operator new(size_t, std::align_val_t, const std::nothrow_t&)`
    _ZnwmSt11align_val_tRKSt9nothrow_t(bytes: usize, alignment: usize, nothrow: Nothrow):
        allocate_new(bytes, alignment, Door::New), else new_aligned_nothrow_slow;
    /// `operator new[](size_t, std::align_val_t, const std::nothrow_t&)`
    _ZnamSt11align_val_tRKSt9nothrow_t(bytes: usize, alignment: usize, nothrow: Nothrow):
        allocate_new(bytes, alignment, Door::NewArray), else new_aligned_nothrow_slow;
}

macro_rules! operators_delete {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*): $claim:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// - The pointer is null or comes from the matching `operator new` and was not deleted since.
        #[allow(non_snake_case, reason = "the name that C++ compilers give the operator")]
        #[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
        pub unsafe extern "C" fn $name(block: *mut c_void $(, $argument: $type)*) {
            // SAFETY: the caller hands back a block of `operator new`, which is one of `malloc`'s.
            unsafe { free_as(block, || $claim) };
        }
    )*};
}

operators_delete! {
    /// `operator delete(void*)`
    _ZdlPv(): Request::unsized_from(Door::New);
    /// `operator delete[](void*)`
    _ZdaPv(): Request::unsized_from(Door::NewArray);
    /// `operator delete(void*, size_t)`
    _ZdlPvm(bytes: usize): Request::new(bytes, 1, Door::New);
    /// `operator delete[](void*, size_t)`
    _ZdaPvm(bytes: usize): Request::new(bytes, 1, Door::NewArray);
    /// `operator delete(void*, const std::nothrow_t&)`
    _ZdlPvRKSt9nothrow_t(_nothrow: Nothrow): Request::unsized_from(Door::New);
    /// `operator delete[](void*, const std::nothrow_t&)`
    _ZdaPvRKSt9nothrow_t(_nothrow: Nothrow): Request::unsized_from(Door::NewArray);
    /// `operator delete(void*, std::align_val_t)`
    _ZdlPvSt11align_val_t(_alignment: usize): Request::unsized_from(Door::New);
    /// `operator delete[](void*, std::align_val_t)`
    _ZdaPvSt11align_val_t(_alignment: usize): Request::unsized_from(Door::NewArray);
    /// `operator delete(void*, size_t, std::align_val_t)`
    _ZdlPvmSt11align_val_t(bytes: usize, alignment: usize): Request::new(bytes, alignment, Door::New);
    /// `operator delete[](void*, size_t, std::align_val_t)`
    _ZdaPvmSt11align_val_t(bytes: usize, alignment: usize): Request::new(bytes, alignment, Door::NewArray);
    /// `operator delete(void*, std::align_val_t, const std::nothrow_t&)`
    _ZdlPvSt11align_val_tRKSt9nothrow_t(_alignment: usize, _nothrow: Nothrow): Request::unsized_from(Door::New);
    /// `operator delete[](void*, std::align_val_t, const std::nothrow_t&)`
    _ZdaPvSt11align_val_tRKSt9nothrow_t(_alignment: usize, _nothrow: Nothrow): Request::unsized_from(Door::NewArray);
}

/// A block for an aligned `operator new`; an alignment that is no power of two fails, as in libstdc++.
#[inline]
fn allocate_new(bytes: usize, alignment: usize, door: Door) -> *mut u8 {
    if alignment.is_power_of_two() { allocate_aligned(bytes, alignment, door) } else { core::ptr::null_mut() }
}

#[cold]
#[inline(never)]
extern "C-unwind" fn new_slow(bytes: usize) -> *mut c_void {
    let Some(runtime) = NEW.find_in_runtime() else { nobody_to_throw() };
    // SAFETY: the address is that of a function of this mangled name, which has this type.
    let runtime = unsafe { transmute::<*mut c_void, New>(runtime.as_ptr()) };
    // SAFETY: the operator takes any size; what it throws passes through frames that have nothing to drop.
    unsafe { runtime(bytes) }
}

#[cold]
#[inline(never)]
extern "C-unwind" fn new_aligned_slow(bytes: usize, alignment: usize) -> *mut c_void {
    let Some(runtime) = NEW_ALIGNED.find_in_runtime() else { nobody_to_throw() };
    // SAFETY: the address is that of a function of this mangled name, which has this type.
    let runtime = unsafe { transmute::<*mut c_void, NewAligned>(runtime.as_ptr()) };
    // SAFETY: the operator takes any size and alignment; what it throws passes through frames that have nothing to drop.
    unsafe { runtime(asked_of_runtime(bytes), alignment) }
}

#[cold]
#[inline(never)]
extern "C-unwind" fn new_nothrow_slow(bytes: usize, nothrow: Nothrow) -> *mut c_void {
    let Some(runtime) = NEW_NOTHROW.find_in_runtime() else { return out_of_memory() };
    // SAFETY: the address is that of a function of this mangled name, which has this type.
    let runtime = unsafe { transmute::<*mut c_void, NewNothrow>(runtime.as_ptr()) };
    // SAFETY: the operator takes any size, and the caller's `nothrow` is passed on.
    unsafe { runtime(bytes, nothrow) }
}

#[cold]
#[inline(never)]
extern "C-unwind" fn new_aligned_nothrow_slow(bytes: usize, alignment: usize, nothrow: Nothrow) -> *mut c_void {
    let Some(runtime) = NEW_ALIGNED_NOTHROW.find_in_runtime() else { return out_of_memory() };
    // SAFETY: the address is that of a function of this mangled name, which has this type.
    let runtime = unsafe { transmute::<*mut c_void, NewAlignedNothrow>(runtime.as_ptr()) };
    // SAFETY: the operator takes any size and alignment, and the caller's `nothrow` is passed on.
    unsafe { runtime(asked_of_runtime(bytes), alignment, nothrow) }
}

/// The size as the runtime's aligned operators are asked for it. They round it up to the alignment without a look at the
/// overflow (libstdc++ up to 12 at least), and an impossible size would become a block of zero bytes.
fn asked_of_runtime(bytes: usize) -> usize {
    bytes.min(MAX_BYTES)
}

#[cold]
fn nobody_to_throw() -> ! {
    fatal("out of memory in operator new, and no C++ runtime to throw std::bad_alloc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_new_has_its_delete_and_aligns() {
        let nothrow = core::ptr::null();
        for alignment in [1, 16, 64, 4096, 1 << 16] {
            let block = _ZnwmSt11align_val_t(100, alignment);
            assert_eq!(block.addr() % alignment.max(16), 0);
            // SAFETY: the block is live.
            unsafe { _ZdlPvmSt11align_val_t(block, 100, alignment) };
            let block = _ZnamSt11align_val_tRKSt9nothrow_t(100, alignment, nothrow);
            assert_eq!(block.addr() % alignment.max(16), 0);
            // SAFETY: the block is live.
            unsafe { _ZdaPvSt11align_val_tRKSt9nothrow_t(block, alignment, nothrow) };
        }
        for block in [_Znwm(0), _Znam(8), _ZnwmRKSt9nothrow_t(8, nothrow), _ZnamRKSt9nothrow_t(9000, nothrow)] {
            assert!(!block.is_null());
            // SAFETY: the block is live.
            unsafe { _ZdlPv(block) };
        }
    }

    #[test]
    fn a_nothrow_new_that_fails_without_a_runtime_returns_null() {
        let nothrow = core::ptr::null();
        assert!(_ZnwmRKSt9nothrow_t(usize::MAX, nothrow).is_null());
        assert!(_ZnwmSt11align_val_tRKSt9nothrow_t(8, 24, nothrow).is_null());
    }
}
