//! `prctl`, in which programs say that they are about to confine themselves.

use core::ffi::{c_int, c_long, c_ulong};

/// The C library's `prctl`, a system call and nothing else. A program that asks for a filter of system calls, or to gain no
/// privileges any more, which comes before most filters, makes hakmem careful first: see [`hakmem::expect_confinement`].
///
/// Declared with `...` in C; the arguments, of which callers may pass fewer, travel like those of a function of five.
///
/// # Safety
/// - As for the system call.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn prctl(
    option: c_int,
    second: c_ulong,
    third: c_ulong,
    fourth: c_ulong,
    fifth: c_ulong,
) -> c_int {
    if option == libc::PR_SET_SECCOMP || option == libc::PR_SET_NO_NEW_PRIVS {
        hakmem::expect_confinement();
    }
    // SAFETY: passed on.
    unsafe { libc::syscall(libc::SYS_prctl, c_long::from(option), second, third, fourth, fifth) as c_int }
}
