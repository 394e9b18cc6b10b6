//! `setrlimit` and `prlimit`, by which programs limit their address space.

use core::ffi::{c_int, c_uint};

/// What the C library's functions of these names do, a system call; a limit of this process's own address space is told to
/// [`hakmem::expect_address_limit`] as well.
///
/// # Safety
/// - `new` is null or points to a limit, `old` is null or has room for one.
unsafe fn limit(pid: libc::pid_t, resource: c_uint, new: *const libc::rlimit64, old: *mut libc::rlimit64) -> c_int {
    let mut former = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // One place for both is read before it is written.
    let is_one_place = core::ptr::eq(new, old);
    let into = if is_one_place { &raw mut former } else { old };
    // SAFETY: passed on to the caller.
    let result = unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, new, into) as c_int };
    // SAFETY: the kernel has just read it.
    let set = if result == 0 { unsafe { new.as_ref() } } else { None };
    if let Some(set) = set {
        // SAFETY: no preconditions.
        if resource == libc::RLIMIT_AS && (pid == 0 || pid == unsafe { libc::getpid() }) {
            // No limit is the largest number.
            hakmem::expect_address_limit(usize::try_from(set.rlim_cur).unwrap_or(usize::MAX));
        }
        if is_one_place {
            // SAFETY: the caller's room for a limit.
            unsafe { old.write(former) };
        }
    }
    result
}

/// Sets a limit of this process; the C library's, and [`hakmem::expect_address_limit`].
///
/// # Safety
/// - `new` points to a limit.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn setrlimit(resource: c_uint, new: *const libc::rlimit64) -> c_int {
    // SAFETY: passed on to the caller.
    unsafe { limit(0, resource, new, core::ptr::null_mut()) }
}

/// [`setrlimit`], which has 64 bits here in any case.
///
/// # Safety
/// - As there.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn setrlimit64(resource: c_uint, new: *const libc::rlimit64) -> c_int {
    // SAFETY: passed on to the caller.
    unsafe { limit(0, resource, new, core::ptr::null_mut()) }
}

/// Reads and sets a limit of a process; the C library's, and [`hakmem::expect_address_limit`].
///
/// # Safety
/// - `new` is null or points to a limit, `old` is null or has room for one.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn prlimit(
    pid: libc::pid_t,
    resource: c_uint,
    new: *const libc::rlimit64,
    old: *mut libc::rlimit64,
) -> c_int {
    // SAFETY: passed on to the caller.
    unsafe { limit(pid, resource, new, old) }
}

/// [`prlimit`], which has 64 bits here in any case.
///
/// # Safety
/// - As there.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn prlimit64(
    pid: libc::pid_t,
    resource: c_uint,
    new: *const libc::rlimit64,
    old: *mut libc::rlimit64,
) -> c_int {
    // SAFETY: passed on to the caller.
    unsafe { limit(pid, resource, new, old) }
}
