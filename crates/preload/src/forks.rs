//! `__register_atfork`, by which programs and libraries have something done around their forks: what `pthread_atfork`, which is linked
//! into each of them, calls.

use core::ffi::{CStr, c_int, c_void};

use crate::next::Next;

/// A handler.
type Handler = Option<unsafe extern "C" fn()>;
/// The function.
type Register = unsafe extern "C" fn(Handler, Handler, Handler, *mut c_void) -> c_int;

/// Its name, where small processes have it in memory already: all of them look it up.
#[unsafe(link_section = ".rodata.hot.hakmem")]
static NAME: [u8; 18] = *b"__register_atfork\0";

static REGISTER: Next = Next::new(match CStr::from_bytes_with_nul(&NAME) {
    Ok(name) => name,
    Err(_) => panic!(),
});

/// The C library's function of this name, after hakmem's own handlers are registered: they have to be the first, so that those of others
/// may allocate, and wait for threads that do. A library's constructor may be here before any allocation.
///
/// # Safety
/// - As there: the handlers may be called until `object` is unloaded.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
#[unsafe(link_section = ".text.hot.hakmem")]
pub unsafe extern "C" fn __register_atfork(
    prepare: Handler,
    parent: Handler,
    child: Handler,
    object: *mut c_void,
) -> c_int {
    hakmem::raw::expect_fork_handlers();
    let Some(register) = REGISTER.find() else { return libc::ENOMEM };
    // SAFETY: the C library's function of this name has this type.
    let register: Register = unsafe { core::mem::transmute(register) };
    // SAFETY: passed on to the caller.
    unsafe { register(prepare, parent, child, object) }
}
