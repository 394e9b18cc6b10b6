//! The C library's lock of all streams, around a fork.
//!
//! glibc's `fork` takes it after the handlers of `pthread_atfork`, so while this library's locks are held. But a thread in
//! `fflush(NULL)` has it while it waits for a stream, and whoever has that stream, in `getline` say, may wait for one of
//! this library's locks: all three for ever. Taken before them, by the same thread and so twice, it is free of that.

/// Takes the lock. Does nothing where the C library has none of this name.
pub(crate) fn lock() {
    call(functions()[0]);
}

/// Gives it back, in the parent.
pub(crate) fn unlock() {
    call(functions()[1]);
}

/// Makes it free in the child, in which `fork` may have done so before.
pub(crate) fn reset() {
    call(functions()[2]);
}

type Function = unsafe extern "C" fn();

fn call(function: Option<Function>) {
    if let Some(function) = function {
        // SAFETY: takes nothing. The thread that takes the lock gives it back, or its copy in the child does.
        unsafe { function() };
    }
}

// Addresses of functions that the C library may not have: zero then. Nothing in stable Rust says so.
#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64", not(miri)))]
core::arch::global_asm!(
    ".weak _IO_list_lock",
    ".weak _IO_list_unlock",
    ".weak _IO_list_resetlock",
    ".pushsection .data.rel.ro.hakmem,\"aw\",@progbits",
    ".balign 8",
    ".globl hakmem_stream_list",
    ".hidden hakmem_stream_list",
    "hakmem_stream_list:",
    ".quad _IO_list_lock",
    ".quad _IO_list_unlock",
    ".quad _IO_list_resetlock",
    ".popsection",
);

#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64", not(miri)))]
fn functions() -> [Option<Function>; 3] {
    unsafe extern "C" {
        #[link_name = "hakmem_stream_list"]
        static FUNCTIONS: [Option<Function>; 3];
    }
    // SAFETY: written by the loader before anything of this module runs, and never again.
    let functions = unsafe { FUNCTIONS };
    // All or nothing: a lock that is taken has to be given back.
    if functions.contains(&None) { [None; 3] } else { functions }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64", not(miri))))]
fn functions() -> [Option<Function>; 3] {
    [None; 3]
}
