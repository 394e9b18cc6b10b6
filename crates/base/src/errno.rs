//! `errno` stays what it was: a `free` must not change it, whatever system calls it makes.

/// Runs `call` and puts the calling thread's `errno` back afterwards.
#[inline]
pub fn keeping_errno<R>(call: impl FnOnce() -> R) -> R {
    // SAFETY: always returns this thread's errno location.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the location is valid for this thread's life.
    let saved = unsafe { *errno };
    let result = call();
    // SAFETY: as above.
    unsafe { *errno = saved };
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_call_leaves_errno_alone() {
        // SAFETY: always returns this thread's errno location.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: the location is valid for this thread's life.
        unsafe { *errno = 77 };
        // SAFETY: closing a descriptor that does not exist only fails.
        assert_eq!(keeping_errno(|| unsafe { libc::close(-1) }), -1);
        // SAFETY: as above.
        assert_eq!(unsafe { *errno }, 77);
    }
}
