//! rpmalloc 1.4, which wants to be told when a thread begins and ends.
//!
//! Its own preloadable library replaces `pthread_create` for that. Here each allocation asks whether the thread is
//! known, which is what rpmalloc's preload build does anyway, and so threads are met however they were made.
//!
//! **Not here.** Alignments of 64 KiB and more, which rpmalloc refuses.
//! **Invariants.** A thread that rpmalloc knows has a value under [`end::KEY`], so that its end is noticed; when rpmalloc
//! was told of the end and the thread allocates again, it is met again.

mod known;

use core::ffi::{c_int, c_void};

// A block can be freed by a thread that is unknown, as threads are at their very end: it goes to the heap that it came from.
// Meeting them again for that would lose a heap for each.
use rpmalloc_sys::{rpcalloc, rpmalloc, rpmalloc_initialize, rpmemalign, rprealloc};
pub use rpmalloc_sys::{rpfree as free, rpmalloc_usable_size as usable_size};

macro_rules! once_known {
    ($(fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $function:ident;)*) => {
        $(
            /// # Safety
            /// - As for the function of the malloc family.
            #[inline(always)]
            pub unsafe fn $name($($argument: $type),*) $(-> $result)? {
                if known::is_known() {
                    // SAFETY: the thread is known; the rest is the caller's promise.
                    unsafe { $function($($argument),*) }
                } else {
                    // SAFETY: the caller's promise.
                    unsafe { slow::$name($($argument),*) }
                }
            }
        )*

        /// The same in a thread that rpmalloc does not know.
        mod slow {
            use super::*;

            $(
                #[cold]
                #[inline(never)]
                pub unsafe fn $name($($argument: $type),*) $(-> $result)? {
                    meet();
                    // SAFETY: the thread is known now; the rest is the caller's promise.
                    unsafe { $function($($argument),*) }
                }
            )*
        }
    };
}

once_known! {
    fn allocate(bytes: usize) -> *mut c_void = rpmalloc;
    fn allocate_zeroed(count: usize, bytes: usize) -> *mut c_void = rpcalloc;
    fn resize(block: *mut c_void, bytes: usize) -> *mut c_void = rprealloc;
    fn allocate_aligned(alignment: usize, bytes: usize) -> *mut c_void = rpmemalign;
}

unsafe extern "C" {
    // The crate declares it without its argument.
    #[link_name = "rpmalloc_thread_finalize"]
    fn finalize_thread(release_caches: c_int);
}

/// Tells rpmalloc of this thread and asks to be told of its end.
fn meet() {
    // First, because pthread_setspecific may allocate.
    known::set(true);
    // SAFETY: rpmalloc may be initialised again and then only looks at the thread.
    unsafe { rpmalloc_initialize() };
    end::ask_to_be_told();
}

mod end {
    //! How the end of a thread is noticed.

    use core::ffi::c_void;

    /// Written once, by [`create`].
    static mut KEY: libc::pthread_key_t = 0;
    static mut CREATED: libc::pthread_once_t = libc::PTHREAD_ONCE_INIT;

    extern "C" fn create() {
        let key = &raw mut KEY;
        // SAFETY: pthread_once calls this once, before anybody reads the key.
        let status = unsafe { libc::pthread_key_create(key, Some(forget)) };
        if status != 0 {
            std::process::abort();
        }
    }

    unsafe extern "C" fn forget(_value: *mut c_void) {
        // SAFETY: rpmalloc knows the thread, or there would be no value; whatever comes later meets it again.
        unsafe { super::finalize_thread(1) };
        super::known::set(false);
    }

    pub fn ask_to_be_told() {
        let created = &raw mut CREATED;
        // SAFETY: the static is used by pthread_once alone.
        unsafe { pthread_once(created, create) };
        // SAFETY: written before pthread_once returned, and never again.
        let key = unsafe { KEY };
        // SAFETY: the key exists; any pointer but null will do. Without memory for it the thread's caches are lost at its end.
        unsafe { libc::pthread_setspecific(key, core::ptr::without_provenance(1)) };
    }

    unsafe extern "C" {
        fn pthread_once(control: *mut libc::pthread_once_t, routine: extern "C" fn()) -> libc::c_int;
    }
}
