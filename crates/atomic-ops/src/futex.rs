//! The two futex calls. `errno` is kept: the caller may be a `free` that must not change it.

use crate::words::Shared32;
use hakmem_base::keeping_errno;

/// Sleeps while `word` is `value`, at most `timeout_ms` milliseconds. May return early for no reason.
pub(crate) fn wait(word: &Shared32, value: u32, timeout_ms: Option<u32>) {
    let time = timeout_ms.map(|milliseconds| libc::timespec {
        tv_sec: (milliseconds / 1000).into(),
        tv_nsec: libc::c_long::from(milliseconds % 1000) * 1_000_000,
    });
    call(word, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, value, time.as_ref());
}

/// Wakes one sleeper of `word`.
pub(crate) fn wake_one(word: &Shared32) {
    call(word, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1, None);
}

fn call(word: &Shared32, operation: i32, value: u32, time: Option<&libc::timespec>) {
    let time = time.map_or(core::ptr::null(), core::ptr::from_ref);
    // SAFETY: `word` is a live 32-bit word, `time` null or valid; the kernel compares and sleeps, or wakes.
    keeping_errno(|| unsafe { libc::syscall(libc::SYS_futex, core::ptr::from_ref(word), operation, value, time) });
}
