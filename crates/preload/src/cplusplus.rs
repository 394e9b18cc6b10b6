//! C++ `operator new` and `operator delete`, under their mangled names.
//!
//! An allocation that fails is handed to the C++ runtime's own operator: it asks `malloc` (ours) once more, runs the
//! program's new-handler as long as there is one, and throws `std::bad_alloc`, or in the `nothrow` form catches what the
//! handler threw and returns null. Rust can neither throw nor catch a C++ exception, and the runtime in use knows its own rules.
//!
//! A program may replace some operators and leave the others, which the standard defines by those (a sized `delete` calls the plain one,
//! `new[]` calls `new`). Ours do not call each other; where some are replaced, the others are the runtime's, which do.

use crate::family::{allocate_aligned, free_as};
use crate::next::Next;
use crate::outcome::{MAX_BYTES, out_of_memory};
use core::ffi::{CStr, c_void};
use core::mem::transmute;
use hakmem::raw::{self, Door, Request};
use hakmem_atomic_ops::Flag;
use hakmem_base::fatal;

/// `const std::nothrow_t&`.
type Nothrow = *const c_void;

/// Some operators are not ours. Set before the program runs, if ever.
static ARE_REPLACED: Flag = Flag::new(false);

/// Finds out whether the program, or a library before this one, has replaced some operators. Called by the dynamic linker, which has
/// loaded everything by then: asked later, by some thread, it might be busy with a constructor that waits for that thread.
#[cfg(not(any(test, fuzzing)))]
pub(crate) fn look_for_replaced() {
    if raw::operators_are_replaced() {
        // ORDERING: the thread that loads the library starts all others; release only because flags have no relaxed store.
        ARE_REPLACED.store_release(true);
    }
}

/// The runtime's operator of this name, as a function of this type.
macro_rules! runtimes {
    ($name:ident: $function:ty) => {{
        const NAME: &CStr = match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
            Ok(name) => name,
            Err(_) => panic!("a name ends with its only zero byte"),
        };
        static RUNTIMES: Next = Next::new(NAME);
        // SAFETY: the address is that of a function of this mangled name, which has this type.
        RUNTIMES.find_in_runtime().map(|found| unsafe { transmute::<*mut c_void, $function>(found.as_ptr()) })
    }};
}

/// Operators that are the runtime's if something holds, and ours otherwise.
macro_rules! operators_new {
    ($replaced:expr => $($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*): $allocate:expr, else $slow:ident;)*) => {$(
        $(#[$doc])*
        #[allow(non_snake_case, reason = "the name that C++ compilers give the operator")]
        #[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
        pub extern "C-unwind" fn $name($($argument: $type),*) -> *mut c_void {
            #[inline(always)]
            extern "C-unwind" fn ours($($argument: $type),*) -> *mut c_void {
                let block = $allocate;
                if block.is_null() { $slow($($argument),*) } else { block.cast() }
            }
            #[cold]
            #[inline(never)]
            extern "C-unwind" fn by_runtime($($argument: $type),*) -> *mut c_void {
                match runtimes!($name: unsafe extern "C-unwind" fn($($type),*) -> *mut c_void) {
                    // SAFETY: it takes what ours takes; what it throws passes through frames that have nothing to drop.
                    Some(runtimes) => unsafe { runtimes($($argument),*) },
                    None => ours($($argument),*),
                }
            }
            if $replaced { by_runtime($($argument),*) } else { ours($($argument),*) }
        }
    )*};
}

// What the others are made of.
operators_new! { false =>
    /// `operator new(size_t)`
    _Znwm(bytes: usize): raw::allocate(bytes, Door::New), else new_slow;
    /// `operator new(size_t, std::align_val_t)`
    _ZnwmSt11align_val_t(bytes: usize, alignment: usize): allocate_new(bytes, alignment, Door::New), else new_aligned_slow;
}

operators_new! { ARE_REPLACED.is_set_relaxed() =>
    /// `operator new[](size_t)`
    _Znam(bytes: usize): raw::allocate(bytes, Door::NewArray), else new_slow;
    /// `operator new(size_t, const std::nothrow_t&)`
    _ZnwmRKSt9nothrow_t(bytes: usize, nothrow: Nothrow): raw::allocate(bytes, Door::New), else new_nothrow_slow;
    /// `operator new[](size_t, const std::nothrow_t&)`
    _ZnamRKSt9nothrow_t(bytes: usize, nothrow: Nothrow): raw::allocate(bytes, Door::NewArray), else new_nothrow_slow;
    /// `operator new[](size_t, std::align_val_t)`
    _ZnamSt11align_val_t(bytes: usize, alignment: usize): allocate_new(bytes, alignment, Door::NewArray), else new_aligned_slow;
    /// `operator new(size_t, std::align_val_t, const std::nothrow_t&)`
    _ZnwmSt11align_val_tRKSt9nothrow_t(bytes: usize, alignment: usize, nothrow: Nothrow):
        allocate_new(bytes, alignment, Door::New), else new_aligned_nothrow_slow;
    /// `operator new[](size_t, std::align_val_t, const std::nothrow_t&)`
    _ZnamSt11align_val_tRKSt9nothrow_t(bytes: usize, alignment: usize, nothrow: Nothrow):
        allocate_new(bytes, alignment, Door::NewArray), else new_aligned_nothrow_slow;
}

/// As [`operators_new`].
macro_rules! operators_delete {
    ($replaced:expr => $($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*): $claim:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// - The pointer is null or comes from the matching `operator new` and was not deleted since.
        #[allow(non_snake_case, reason = "the name that C++ compilers give the operator")]
        #[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
        pub unsafe extern "C" fn $name(block: *mut c_void $(, $argument: $type)*) {
            #[inline(always)]
            unsafe extern "C" fn ours(block: *mut c_void $(, $argument: $type)*) {
                // SAFETY: the caller hands back a block of `operator new`, which is one of `malloc`'s.
                unsafe { free_as(block, || $claim) };
            }
            #[cold]
            #[inline(never)]
            unsafe extern "C" fn by_runtime(block: *mut c_void $(, $argument: $type)*) {
                match runtimes!($name: unsafe extern "C" fn(*mut c_void $(, $type)*)) {
                    // SAFETY: passed on to the caller.
                    Some(runtimes) => unsafe { runtimes(block $(, $argument)*) },
                    // SAFETY: as above.
                    None => unsafe { ours(block $(, $argument)*) },
                }
            }
            if $replaced {
                // SAFETY: passed on to the caller.
                unsafe { by_runtime(block $(, $argument)*) };
            } else {
                // SAFETY: as above.
                unsafe { ours(block $(, $argument)*) };
            }
        }
    )*};
}

// What the others are made of.
operators_delete! { false =>
    /// `operator delete(void*)`
    _ZdlPv(): Request::unsized_from(Door::New);
    /// `operator delete(void*, std::align_val_t)`
    _ZdlPvSt11align_val_t(_alignment: usize): Request::unsized_from(Door::New);
}

operators_delete! { ARE_REPLACED.is_set_relaxed() =>
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
    let runtime = runtimes!(_Znwm: unsafe extern "C-unwind" fn(usize) -> *mut c_void);
    let Some(runtime) = runtime else { nobody_to_throw() };
    // SAFETY: the operator takes any size; what it throws passes through frames that have nothing to drop.
    noted(unsafe { runtime(bytes) })
}

#[cold]
#[inline(never)]
extern "C-unwind" fn new_aligned_slow(bytes: usize, alignment: usize) -> *mut c_void {
    let runtime = runtimes!(_ZnwmSt11align_val_t: unsafe extern "C-unwind" fn(usize, usize) -> *mut c_void);
    let Some(runtime) = runtime else { nobody_to_throw() };
    // SAFETY: the operator takes any size and alignment; what it throws passes through frames that have nothing to drop.
    noted(unsafe { runtime(asked_of_runtime(bytes), alignment) })
}

#[cold]
#[inline(never)]
extern "C-unwind" fn new_nothrow_slow(bytes: usize, nothrow: Nothrow) -> *mut c_void {
    let runtime = runtimes!(_ZnwmRKSt9nothrow_t: unsafe extern "C-unwind" fn(usize, Nothrow) -> *mut c_void);
    let Some(runtime) = runtime else { return out_of_memory() };
    // SAFETY: the operator takes any size, and the caller's `nothrow` is passed on.
    noted(unsafe { runtime(bytes, nothrow) })
}

#[cold]
#[inline(never)]
extern "C-unwind" fn new_aligned_nothrow_slow(bytes: usize, alignment: usize, nothrow: Nothrow) -> *mut c_void {
    let runtime = runtimes!(_ZnwmSt11align_val_tRKSt9nothrow_t: unsafe extern "C-unwind" fn(usize, usize, Nothrow) -> *mut c_void);
    let Some(runtime) = runtime else { return out_of_memory() };
    // SAFETY: the operator takes any size and alignment, and the caller's `nothrow` is passed on.
    noted(unsafe { runtime(asked_of_runtime(bytes), alignment, nothrow) })
}

/// A block that the runtime has got in our place.
fn noted(block: *mut c_void) -> *mut c_void {
    if !block.is_null() {
        raw::note_help_of_runtime();
    }
    block
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
