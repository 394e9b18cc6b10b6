//! Where statistics go at the end of a process that has closed its stderr by then, as every program of coreutils does.
//!
//! Only where statistics are asked for: who waits for the other end of a pipe waits for this descriptor too.

use core::ffi::c_int;
use hakmem_atomic_ops::SetOnce;

use crate::confined::is_confined;

const STDERR: c_int = 2;
/// The least number that the copy gets: programs take the lowest ones, and some close those that they know of.
const LEAST_COPY: c_int = 200;

/// A copy of stderr as it was at the start.
static COPY: SetOnce<Copy> = SetOnce::new();

struct Copy {
    descriptor: c_int,
    file: File,
}

/// What tells one open file from another.
type File = (libc::dev_t, libc::ino_t);

/// Takes the copy.
pub(crate) fn keep() {
    // SAFETY: takes numbers; who executes another program does not pass the copy on.
    let descriptor = unsafe { libc::fcntl(STDERR, libc::F_DUPFD_CLOEXEC, LEAST_COPY) };
    if let Some(file) = file_of(descriptor) {
        COPY.set(Copy { descriptor, file });
    }
}

/// Stderr, or the copy where there is none any more.
pub(crate) fn descriptor() -> c_int {
    let is_same = |copy: &&Copy| file_of(STDERR).is_none() && file_of(copy.descriptor) == Some(copy.file);
    COPY.get().filter(|_| !is_confined()).filter(is_same).map_or(STDERR, |copy| copy.descriptor)
}

fn file_of(descriptor: c_int) -> Option<File> {
    // SAFETY: all zero is a valid structure to be filled.
    let mut found = unsafe { core::mem::zeroed::<libc::stat>() };
    // SAFETY: fills the structure, for an open descriptor.
    (unsafe { libc::fstat(descriptor, &raw mut found) } == 0).then_some((found.st_dev, found.st_ino))
}
