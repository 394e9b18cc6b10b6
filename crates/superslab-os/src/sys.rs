//! Every system call of the box. Nothing else in it talks to the kernel.
//!
//! **Invariants.** `errno` is the same after a call as before it, because `free` must not change it. A function that
//! could damage memory is `unsafe` and lists what the caller proves.

use core::ffi::c_void;
use core::ptr::NonNull;
use hakmem_base::OS_PAGE_BYTES;
use hakmem_base::keeping_errno;

#[cfg(any(test, feature = "testing"))]
use crate::faults::{Call, is_refused};

#[cfg(not(any(test, feature = "testing")))]
#[derive(Clone, Copy)]
enum Call {
    Mmap,
    Mprotect,
    Madvise,
    Mremap,
}

#[cfg(not(any(test, feature = "testing")))]
fn is_refused(_call: Call) -> bool {
    false
}

/// Why the kernel did not do it: an `errno` value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refusal(i32);

impl Refusal {
    /// Out of memory, of address space or of mappings.
    pub(crate) fn is_enomem(self) -> bool {
        self.0 == libc::ENOMEM
    }
}

/// Runs one system call that reports failure by `is_failure`, and keeps `errno` as it was.
fn checked<R>(kind: Call, call: impl FnOnce() -> R, is_failure: impl FnOnce(&R) -> bool) -> Result<R, Refusal> {
    if is_refused(kind) {
        return Err(Refusal(libc::ENOMEM));
    }
    without_errno(call, is_failure)
}

fn without_errno<R>(call: impl FnOnce() -> R, is_failure: impl FnOnce(&R) -> bool) -> Result<R, Refusal> {
    // SAFETY: always returns this thread's errno location.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the location is valid for this thread's life.
    let saved = unsafe { *errno };
    let result = call();
    // SAFETY: as above.
    let code = unsafe { *errno };
    // SAFETY: as above.
    unsafe { *errno = saved };
    if is_failure(&result) { Err(Refusal(code)) } else { Ok(result) }
}

fn is_nonzero(result: &i32) -> bool {
    *result != 0
}

fn map_pages(hint: *mut u8, bytes: usize, protection: i32, extra_flags: i32) -> Result<NonNull<u8>, Refusal> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | extra_flags;
    let address = checked(
        Call::Mmap,
        // SAFETY: a new anonymous mapping at a place that the kernel chooses, or with MAP_FIXED_NOREPLACE at a place where
        // nothing is mapped: no existing memory changes.
        || unsafe { libc::mmap(hint.cast::<c_void>(), bytes, protection, flags, -1, 0) },
        |address| *address == libc::MAP_FAILED,
    )?;
    refuse_huge_pages(address, bytes);
    NonNull::new(address.cast::<u8>()).ok_or(Refusal(libc::ENOMEM))
}

/// Where the administrator gives huge pages to everything, the first byte of each table and of a small heap would bring 2 MiB. The
/// pool asks for them where the heap has grown. A kernel without huge pages refuses, which changes nothing.
fn refuse_huge_pages(start: *mut c_void, bytes: usize) {
    // SAFETY: the advice changes how memory is backed, never what it holds.
    let call = || unsafe { libc::madvise(start, bytes, libc::MADV_NOHUGEPAGE) };
    let _refused = without_errno(call, is_nonzero);
}

/// Zeroed, lazily touched memory of `bytes` bytes, aligned to an OS page.
#[unsafe(link_section = ".text.hot.hakmem")]
pub(crate) fn map_memory(bytes: usize) -> Result<NonNull<u8>, Refusal> {
    map_pages(core::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, 0)
}

/// `bytes` bytes of address space without memory behind them, aligned to `align` (both multiples of an OS page).
pub(crate) fn reserve_aligned(bytes: usize, align: usize) -> Result<NonNull<u8>, Refusal> {
    let with_slack = bytes.checked_add(align).ok_or(Refusal(libc::ENOMEM))?;
    let start = map_pages(core::ptr::null_mut(), with_slack, libc::PROT_NONE, 0)?;
    let before = start.as_ptr().align_offset(align);
    let base = start.as_ptr().wrapping_add(before);
    // SAFETY: the slack before the base is part of the mapping made above and nobody else knows it.
    unsafe { unmap(start.as_ptr(), before) };
    // SAFETY: the same for the slack behind the window.
    unsafe { unmap(base.wrapping_add(bytes), align - before) };
    NonNull::new(base).ok_or(Refusal(libc::ENOMEM))
}

/// As [`reserve_aligned`], at this place and nowhere else. Refused where anything is mapped in it already.
pub(crate) fn reserve_at(start: *mut u8, bytes: usize) -> Result<(), Refusal> {
    map_at(start, bytes, libc::PROT_NONE)
}

/// Maps pages at this place and nowhere else. Refused where anything is mapped in it already.
fn map_at(start: *mut u8, bytes: usize, protection: i32) -> Result<(), Refusal> {
    let mapped = map_pages(start, bytes, protection, libc::MAP_FIXED_NOREPLACE)?;
    if mapped.as_ptr() == start {
        return Ok(());
    }
    // A kernel older than the flag (Linux 4.17) takes the place for a wish.
    // SAFETY: mapped just now, and nobody knows it.
    unsafe { unmap(mapped.as_ptr(), bytes) };
    Err(Refusal(libc::EEXIST))
}

/// Gives a mapping (or a part of one) back; nothing happens for 0 bytes.
///
/// # Safety
/// - The range was mapped by this module and nobody uses it any more.
pub(crate) unsafe fn unmap(start: *mut u8, bytes: usize) {
    if bytes == 0 {
        return;
    }
    // SAFETY: the caller guarantees that the range is ours and unused.
    let call = || unsafe { libc::munmap(start.cast::<c_void>(), bytes) };
    // Never refused by a fault plan: there is no way to go on without the address space. A real failure leaves it mapped.
    let _still_mapped = keeping_errno(call);
}

/// Makes reserved address space readable and writable.
///
/// # Safety
/// - The range lies in a reservation made by [`reserve_aligned`].
pub(crate) unsafe fn make_writable(start: *mut u8, bytes: usize) -> Result<(), Refusal> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the caller guarantees that the range is reserved by us; gaining access harms nobody.
    checked(Call::Mprotect, || unsafe { libc::mprotect(start.cast::<c_void>(), bytes, protection) }, is_nonzero)?;
    Ok(())
}

/// Takes all access to the range away. What it holds stays.
///
/// # Safety
/// - The range lies in memory of ours, and nobody uses it until it is writable again.
pub(crate) unsafe fn make_inaccessible(start: *mut u8, bytes: usize) -> Result<(), Refusal> {
    // SAFETY: the caller guarantees that nobody reads or writes there.
    let call = || unsafe { libc::mprotect(start.cast::<c_void>(), bytes, libc::PROT_NONE) };
    checked(Call::Mprotect, call, is_nonzero)?;
    Ok(())
}

/// Gives the memory behind the range back; it reads as zero afterwards.
///
/// # Safety
/// - The range lies in memory of ours, and nobody needs its content.
pub(crate) unsafe fn discard(start: *mut u8, bytes: usize) -> Result<(), Refusal> {
    // SAFETY: the caller guarantees that the content is dead.
    let call = || unsafe { libc::madvise(start.cast::<c_void>(), bytes, libc::MADV_DONTNEED) };
    checked(Call::Madvise, call, is_nonzero)?;
    Ok(())
}

/// Asks for huge pages behind the range. A hint without effect on content.
pub(crate) fn advise_huge(start: *mut u8, bytes: usize) -> Result<(), Refusal> {
    // SAFETY: MADV_HUGEPAGE changes how memory is backed, never what it holds.
    let call = || unsafe { libc::madvise(start.cast::<c_void>(), bytes, libc::MADV_HUGEPAGE) };
    checked(Call::Madvise, call, is_nonzero)?;
    Ok(())
}

/// Takes [`advise_huge`] back for what is not in memory yet.
pub(crate) fn advise_small(start: *mut u8, bytes: usize) -> Result<(), Refusal> {
    // SAFETY: MADV_NOHUGEPAGE changes how memory is backed, never what it holds.
    let call = || unsafe { libc::madvise(start.cast::<c_void>(), bytes, libc::MADV_NOHUGEPAGE) };
    checked(Call::Madvise, call, is_nonzero)?;
    Ok(())
}

/// Says in bit 0 of `pages`, a byte for each OS page of the range, which are in memory. On `Err` nothing is known.
pub(crate) fn look_at(start: *mut u8, bytes: usize, pages: &mut [u8]) -> Result<(), Refusal> {
    if pages.len() < bytes.div_ceil(OS_PAGE_BYTES) {
        return Err(Refusal(libc::EINVAL));
    }
    // SAFETY: only looks; the kernel writes a byte for each page of the range, and there are as many.
    let call = || unsafe { libc::mincore(start.cast::<c_void>(), bytes, pages.as_mut_ptr()) };
    without_errno(call, is_nonzero)?;
    Ok(())
}

/// Moves the OS pages behind `from` to `to`; `from` reads as zero afterwards. On `Err` nothing moved.
///
/// Kernels before 6.17 unmap the destination before they find out that the source spans two mappings. So the source is
/// probed first, and a destination that got lost all the same is mapped again.
///
/// # Safety
/// - Both ranges lie in committed memory of ours, are aligned to OS pages and do not overlap.
/// - Nobody uses either during the call, and the content of `to` is dead.
pub(crate) unsafe fn move_pages(from: *mut u8, to: *mut u8, bytes: usize) -> Result<(), Refusal> {
    let source = from.cast::<c_void>();
    // A source inside one mapping cannot grow, because something is mapped behind it: ENOMEM. Across two: EFAULT.
    // SAFETY: without MAYMOVE nothing moves, and growing is impossible since the window goes on behind every source.
    let probe = || unsafe { libc::mremap(source, bytes, bytes + OS_PAGE_BYTES, 0) };
    match checked(Call::Mremap, probe, |result| *result == libc::MAP_FAILED) {
        Err(refusal) if refusal.is_enomem() => {}
        Err(refusal) => return Err(refusal),
        Ok(_) => return Err(Refusal(libc::EFAULT)),
    }
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    // SAFETY: the caller guarantees that both ranges are ours, idle, and that the destination's content is dead.
    let call = || unsafe { libc::mremap(source, bytes, bytes, flags, to.cast::<c_void>()) };
    let Err(refusal) = checked(Call::Mremap, call, |result| *result == libc::MAP_FAILED) else { return Ok(()) };
    let hole = map_at(to, bytes, libc::PROT_READ | libc::PROT_WRITE);
    // EEXIST: the destination was never unmapped, which is the usual case. A process that has all the mappings it may have
    // gets ENOMEM before the kernel looks, so that has to be asked in another way.
    if hole.is_err_and(|why| why.0 != libc::EEXIST) && !is_mapped(to, bytes) {
        hakmem_base::fatal_ptr("the destination of moved pages was lost", to.addr());
    }
    Err(refusal)
}

/// Whether every OS page of the range is mapped.
fn is_mapped(start: *mut u8, bytes: usize) -> bool {
    // SAFETY: without MS_INVALIDATE nothing changes: the call looks the range up, and anonymous memory has no file.
    keeping_errno(|| unsafe { libc::msync(start.cast::<c_void>(), bytes, libc::MS_ASYNC) }) == 0
}

/// Monotonic milliseconds, a few behind: reads memory shared with the kernel, no system call.
pub(crate) fn coarse_clock_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the timespec it is given. The clock exists on every Linux, so it does not fail nor set errno.
    let _result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// Bytes of physical memory, 0 if unknown. `sysconf` may open files and allocate, and brings 64 to 128 KiB of the C library into
/// memory; this is one system call.
#[must_use]
pub fn physical_bytes() -> usize {
    let mut info = core::mem::MaybeUninit::<libc::sysinfo>::zeroed();
    // SAFETY: writes the structure it is given.
    let result = keeping_errno(|| unsafe { libc::sysinfo(info.as_mut_ptr()) });
    if result != 0 {
        return 0;
    }
    // SAFETY: plain numbers, zeroed before and filled by the successful call.
    let info = unsafe { info.assume_init() };
    (info.totalram as usize).saturating_mul(info.mem_unit as usize)
}

/// The limit of this process's address space in bytes, if there is one.
pub(crate) fn address_space_limit() -> Option<usize> {
    // SAFETY: writes the structure it is given.
    limit(|limit| unsafe { libc::getrlimit(libc::RLIMIT_AS, limit) })
}

/// The limit of what this process may have of its own to write to, in bytes, if there is one.
pub(crate) fn data_limit() -> Option<usize> {
    // SAFETY: writes the structure it is given.
    limit(|limit| unsafe { libc::getrlimit(libc::RLIMIT_DATA, limit) })
}

/// The limit that `ask` fills in, if it is one.
fn limit(ask: impl FnOnce(*mut libc::rlimit) -> libc::c_int) -> Option<usize> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let result = keeping_errno(|| ask(&raw mut limit));
    (result == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_call_keeps_errno() {
        // SAFETY: always returns this thread's errno location.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: valid for this thread's life.
        unsafe { *errno = 77 };
        assert!(map_memory(usize::MAX - OS_PAGE_BYTES).is_err());
        // SAFETY: as above.
        assert_eq!(unsafe { *errno }, 77);
    }

    #[test]
    fn reservations_are_aligned() {
        let align = 2 << 20;
        let base = reserve_aligned(4 << 20, align).unwrap();
        assert_eq!(base.as_ptr().addr() % align, 0);
        // SAFETY: reserved above and never used.
        unsafe { unmap(base.as_ptr(), 4 << 20) };
    }

    #[test]
    fn a_hole_in_a_range_is_seen() {
        // A mapping of another test's may come to lie in the hole before it is looked at: not every time.
        let sees_a_hole = || {
            let start = map_memory(3 * OS_PAGE_BYTES).unwrap().as_ptr();
            assert!(is_mapped(start, 3 * OS_PAGE_BYTES));
            // SAFETY: mapped above and never used; the same for the other two pages below.
            unsafe { unmap(start.wrapping_add(OS_PAGE_BYTES), OS_PAGE_BYTES) };
            let is_seen = !is_mapped(start, 3 * OS_PAGE_BYTES);
            assert!(is_mapped(start, OS_PAGE_BYTES));
            for page in [start, start.wrapping_add(2 * OS_PAGE_BYTES)] {
                // SAFETY: as above; what lies between them now may be somebody else's.
                unsafe { unmap(page, OS_PAGE_BYTES) };
            }
            is_seen
        };
        assert!((0..100).any(|_| sees_a_hole()));
    }

    #[test]
    fn the_clock_runs_and_physical_memory_is_known() {
        let before = coarse_clock_ms();
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert!(coarse_clock_ms() > before);
        assert!(physical_bytes() > 64 << 20);
    }
}
