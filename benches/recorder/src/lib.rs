//! Stands in front of an allocator (`LD_PRELOAD=libhakmem_recorder.so:libhakmem.so`), passes every request on, and writes it down.
//!
//! **Not here.** An allocator, and traces: what is written is a log ([`layout`]), of which `simulator record` makes a trace.
//! **Invariants.** Every request reaches the next allocator unchanged, and its answer the program. Nothing here allocates. Without the
//! variable that names the folder for logs, nothing is written.
//! **Disturbance.** An event costs a clock reading, an atomic addition and three stores to a mapped file; the log's pages count as
//! resident memory of the process, and its time stamps contain the recorder's own time (the simulator takes it off again).

pub mod layout;
mod log;
mod next;

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;

use layout::{ALLOC, FREE, RESIZE, RESIZED};
use next::{Next, early, is_early};

type Allocate = unsafe extern "C" fn(usize) -> *mut c_void;
type AllocateZeroed = unsafe extern "C" fn(usize, usize) -> *mut c_void;
type Reallocate = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
type AllocateAligned = unsafe extern "C" fn(usize, usize) -> *mut c_void;
type AllocateTo = unsafe extern "C" fn(*mut *mut c_void, usize, usize) -> c_int;
type Release = unsafe extern "C" fn(*mut c_void);

static MALLOC: Next = Next::new(c"malloc");
static CALLOC: Next = Next::new(c"calloc");
static REALLOC: Next = Next::new(c"realloc");
static MEMALIGN: Next = Next::new(c"memalign");
static ALIGNED_ALLOC: Next = Next::new(c"aligned_alloc");
static POSIX_MEMALIGN: Next = Next::new(c"posix_memalign");
static FREE_NEXT: Next = Next::new(c"free");

/// Calls a function of the allocator behind, or gives the last argument back where there is none.
macro_rules! call_next {
    ($next:ident as $type:ty, ($($argument:expr),*), $otherwise:expr) => {{
        let function = $next.find();
        if function.is_null() {
            $otherwise
        } else {
            // SAFETY: the function of this name in the C library has this type.
            let function = unsafe { core::mem::transmute::<*mut c_void, $type>(function) };
            // SAFETY: the caller's arguments, unchanged.
            unsafe { function($($argument),*) }
        }
    }};
}

extern "C" fn library_init() {
    log::begin();
    // SAFETY: the handler stays loaded: a preloaded library is never unloaded.
    unsafe { libc::pthread_atfork(None, None, Some(log::begin_in_child)) };
}

// SAFETY: the section holds pointers to functions that the dynamic linker calls once.
#[used]
#[unsafe(link_section = ".init_array")]
static LIBRARY_INIT: extern "C" fn() = library_init;

fn handed_out(block: *mut c_void, bytes: usize) -> *mut c_void {
    if !block.is_null() {
        log::write(ALLOC, block.addr(), bytes);
    }
    block
}

/// `malloc` of the C library.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(bytes: usize) -> *mut c_void {
    handed_out(call_next!(MALLOC as Allocate, (bytes), early(bytes)), bytes)
}

/// `calloc` of the C library.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, bytes: usize) -> *mut c_void {
    let all = count.saturating_mul(bytes);
    handed_out(call_next!(CALLOC as AllocateZeroed, (count, bytes), early(all)), all)
}

/// `realloc` of the C library.
///
/// # Safety
/// - As its manual says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, bytes: usize) -> *mut c_void {
    if block.is_null() {
        return malloc(bytes);
    }
    if is_early(block) {
        let moved = malloc(bytes);
        if !moved.is_null() {
            let held = next::early_bytes_from(block).min(bytes);
            // SAFETY: as many bytes are left in the early memory; what is copied beyond the block is never looked at.
            unsafe { moved.cast::<u8>().copy_from_nonoverlapping(block.cast(), held) };
        }
        return moved;
    }
    log::write(RESIZE, block.addr(), 0);
    let moved = call_next!(REALLOC as Reallocate, (block, bytes), null_mut());
    log::write(RESIZED, moved.addr(), bytes);
    moved
}

/// `reallocarray` of the C library.
///
/// # Safety
/// - As its manual says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(block: *mut c_void, count: usize, bytes: usize) -> *mut c_void {
    match count.checked_mul(bytes) {
        // SAFETY: passed on to the caller.
        Some(all) => unsafe { realloc(block, all) },
        None => {
            // SAFETY: no precondition.
            let errno = unsafe { libc::__errno_location() };
            // SAFETY: the thread's own.
            unsafe { errno.write(libc::ENOMEM) };
            null_mut()
        }
    }
}

/// `free` of the C library.
///
/// # Safety
/// - As its manual says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    if block.is_null() || is_early(block) {
        return;
    }
    log::write(FREE, block.addr(), 0);
    call_next!(FREE_NEXT as Release, (block), ());
}

/// `memalign` of the C library.
#[unsafe(no_mangle)]
pub extern "C" fn memalign(alignment: usize, bytes: usize) -> *mut c_void {
    handed_out(call_next!(MEMALIGN as AllocateAligned, (alignment, bytes), null_mut()), bytes)
}

/// `aligned_alloc` of the C library.
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(alignment: usize, bytes: usize) -> *mut c_void {
    handed_out(call_next!(ALIGNED_ALLOC as AllocateAligned, (alignment, bytes), null_mut()), bytes)
}

/// `posix_memalign` of the C library.
///
/// # Safety
/// - As its manual says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(target: *mut *mut c_void, alignment: usize, bytes: usize) -> c_int {
    let outcome = call_next!(POSIX_MEMALIGN as AllocateTo, (target, alignment, bytes), libc::ENOMEM);
    if outcome == 0 {
        // SAFETY: the call has written it.
        handed_out(unsafe { *target }, bytes);
    }
    outcome
}

/// Ends the process where `operator new` would throw: that takes a C++ runtime.
fn or_end(block: *mut c_void) -> *mut c_void {
    if block.is_null() {
        // SAFETY: no precondition.
        unsafe { libc::abort() };
    }
    block
}

/// C++'s operators: an allocator behind may export them itself, and they would pass this library by.
macro_rules! operators {
    (new: $($name:ident ($($argument:ident: $type:ty),*) = $block:expr;)+) => {$(
        /// `operator new`.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($argument: $type),*) -> *mut c_void {
            $block
        }
    )+};
    (delete: $($name:ident ($($argument:ident: $type:ty),*);)+) => {$(
        /// `operator delete`.
        ///
        /// # Safety
        /// - The block came from `operator new`.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(block: *mut c_void $(, $argument: $type)*) {
            // SAFETY: passed on to the caller.
            unsafe { free(block) };
        }
    )+};
}

operators! { new:
    _Znwm(bytes: usize) = or_end(malloc(bytes));
    _Znam(bytes: usize) = or_end(malloc(bytes));
    _ZnwmSt11align_val_t(bytes: usize, alignment: usize) = or_end(memalign(alignment, bytes));
    _ZnamSt11align_val_t(bytes: usize, alignment: usize) = or_end(memalign(alignment, bytes));
    _ZnwmRKSt9nothrow_t(bytes: usize, _tag: *const c_void) = malloc(bytes);
    _ZnamRKSt9nothrow_t(bytes: usize, _tag: *const c_void) = malloc(bytes);
    _ZnwmSt11align_val_tRKSt9nothrow_t(bytes: usize, alignment: usize, _tag: *const c_void) = memalign(alignment, bytes);
    _ZnamSt11align_val_tRKSt9nothrow_t(bytes: usize, alignment: usize, _tag: *const c_void) = memalign(alignment, bytes);
}

operators! { delete:
    _ZdlPv();
    _ZdaPv();
    _ZdlPvm(_bytes: usize);
    _ZdaPvm(_bytes: usize);
    _ZdlPvSt11align_val_t(_alignment: usize);
    _ZdaPvSt11align_val_t(_alignment: usize);
    _ZdlPvmSt11align_val_t(_bytes: usize, _alignment: usize);
    _ZdaPvmSt11align_val_t(_bytes: usize, _alignment: usize);
    _ZdlPvRKSt9nothrow_t(_tag: *const c_void);
    _ZdaPvRKSt9nothrow_t(_tag: *const c_void);
}
