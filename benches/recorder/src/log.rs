//! The log: a file mapped into the process, filled by one atomic addition and three stores per event.
//!
//! **Invariants.** Each place is written by the thread that its addition gave it to. A full log is left as it is. After a fork the child
//! writes to a log of its own.

use core::cell::Cell;
use core::ptr::null_mut;
use hakmem_atomic_ops::{Shared32, Shared64, SharedPtr};

use crate::layout::{ADDRESS_BITS, HEADER_BYTES, MAGIC, NAME_OFFSET, RECORD_BYTES, TIME_BITS, UNNUMBERED};

/// Bytes of a log: address space and a sparse file; what is not written takes no room.
const LOG_BYTES: usize = 3 << 30;
const RECORDS: u64 = ((LOG_BYTES - HEADER_BYTES) / RECORD_BYTES) as u64;

/// Start of the mapped log; null before there is one. Relaxed: the mapping is made by the constructor or by a fork's child, in which
/// there is one thread.
static LOG: SharedPtr<u64> = SharedPtr::new(null_mut());
/// The next free place. Relaxed: the number is all that threads exchange.
static NEXT: Shared64 = Shared64::new(0);
/// Numbers given to threads.
static THREADS: Shared32 = Shared32::new(0);

thread_local! {
    /// This thread's number, from 1; 0: it has none yet.
    static THREAD: Cell<u32> = const { Cell::new(0) };
}

/// Writes one event.
pub fn write(kind: u8, address: usize, size: usize) {
    let log = LOG.load_relaxed();
    if log.is_null() {
        return;
    }
    let thread = THREAD.with(|number| {
        if number.get() == 0 {
            number.set(THREADS.add_relaxed(1) + 1);
        }
        (number.get() - 1).min(UNNUMBERED.into())
    });
    let place = NEXT.add_relaxed(1);
    if place >= RECORDS {
        return;
    }
    let words = [
        (address as u64 & ((1 << ADDRESS_BITS) - 1)) | u64::from(thread) << ADDRESS_BITS,
        (now_ns() & ((1 << TIME_BITS) - 1)) | u64::from(kind) << TIME_BITS,
        size as u64,
    ];
    let record = log.wrapping_byte_add(HEADER_BYTES + place as usize * RECORD_BYTES).cast::<[u64; 3]>();
    // SAFETY: the place is below the log's end, and this thread's alone; the mapping stays for as long as the process.
    unsafe { record.write(words.map(u64::to_le)) };
}

/// Begins this process's log, if the folder for logs is named.
pub fn begin() {
    // SAFETY: a C string; nothing changes the environment while constructors run.
    let folder = unsafe { libc::getenv(c"HAKMEM_TEST_RECORD_DIR".as_ptr()) };
    if folder.is_null() {
        return;
    }
    let mut path = [0; 4096];
    // SAFETY: no precondition.
    let process = unsafe { libc::getpid() };
    // SAFETY: the buffer's length is given, and the format's arguments are a C string and a number.
    unsafe { libc::snprintf(path.as_mut_ptr(), path.len(), c"%s/%d.raw".as_ptr(), folder, process) };
    // SAFETY: a C string.
    let file =
        unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC, 0o600) };
    // SAFETY: no precondition: a bad descriptor is refused.
    if file < 0 || unsafe { libc::ftruncate(file, LOG_BYTES as libc::off_t) } != 0 {
        return;
    }
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_NORESERVE);
    // SAFETY: a new mapping of a file of that length.
    let log = unsafe { libc::mmap(null_mut(), LOG_BYTES, protection, flags, file, 0) };
    // SAFETY: opened above; the mapping keeps the file.
    unsafe { libc::close(file) };
    if log == libc::MAP_FAILED {
        return;
    }
    let header = log.cast::<u8>();
    // SAFETY: the mapping is longer than the header.
    unsafe { header.copy_from_nonoverlapping(MAGIC.as_ptr(), MAGIC.len()) };
    // SAFETY: as above; the kernel writes at most 16 bytes, which end within the header.
    unsafe { libc::prctl(libc::PR_GET_NAME, header.wrapping_add(NAME_OFFSET)) };
    NEXT.store_relaxed(0);
    LOG.store_relaxed(log.cast());
}

/// In a forked child: the parent's log is the parent's.
pub extern "C" fn begin_in_child() {
    let log = LOG.load_relaxed();
    LOG.store_relaxed(null_mut());
    if !log.is_null() {
        // SAFETY: the mapping of the parent's log, which the child has no use for.
        unsafe { libc::munmap(log.cast(), LOG_BYTES) };
        begin();
    }
}

fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is this function's.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
