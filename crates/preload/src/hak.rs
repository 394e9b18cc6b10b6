//! The versioned `hak_*` API: what a program may ask of hakmem beyond the malloc family. `hakmem.h` is made from this file.
//!
//! A structure that crosses the border begins with magic, version and size, so that a program compiled against another
//! version is refused instead of misread; it ends with reserved space, so that fields can be added within a version.

use crate::family;
use core::ffi::{c_int, c_void};
use core::mem::offset_of;
use hakmem_base::Line;

/// First word of every structure of this API: "HAKM".
pub const HAKMEM_ABI_MAGIC: u32 = 0x4841_4B4D;
/// Version of this API. It rises when a program compiled against the former version would misread something.
pub const HAKMEM_ABI_VERSION: u32 = 1;

/// The call did what it was asked.
pub const HAK_OK: c_int = 0;
/// The structure, or the program, does not begin with `HAKMEM_ABI_MAGIC`.
pub const HAK_ERROR_MAGIC: c_int = 1;
/// The program was compiled against another version of this API.
pub const HAK_ERROR_VERSION: c_int = 2;
/// The structure is smaller than this version needs.
pub const HAK_ERROR_STRUCT_SIZE: c_int = 3;
/// A pointer that must not be null is null.
pub const HAK_ERROR_NULL: c_int = 4;
/// Writing to the file descriptor failed; `errno` says why.
pub const HAK_ERROR_WRITE: c_int = 5;

/// What hakmem holds, in bytes, and what it did since the process started.
#[repr(C)]
#[derive(Debug)]
#[allow(non_camel_case_types, reason = "the name that C programs use")]
pub struct hak_stats_t {
    /// In: `HAKMEM_ABI_MAGIC`.
    pub magic: u32,
    /// In: `HAKMEM_ABI_VERSION`.
    pub abi_version: u32,
    /// In: `sizeof(hak_stats_t)` as the program was compiled.
    pub struct_size: usize,
    /// Bytes of all blocks in use, as rounded by hakmem.
    pub live_bytes: u64,
    /// Bytes that are readable and writable, whether the kernel has put memory behind them yet or not.
    pub committed_bytes: u64,
    /// Bytes of free memory that hakmem keeps for later.
    pub cached_bytes: u64,
    /// Zero; later fields of this version go here.
    pub reserved: [u64; 16],
}

const _: () = assert!(offset_of!(hak_stats_t, struct_size) == 8, "the three fields that every version has");
const _: () = assert!(size_of::<hak_stats_t>() == 16 + 3 * 8 + 16 * 8);

/// The version of this API that the loaded library has.
#[unsafe(no_mangle)]
pub extern "C" fn hak_abi_version() -> u32 {
    HAKMEM_ABI_VERSION
}

/// Whether a program compiled with these two constants may use this library: `HAK_OK`, or an error, also said on stderr.
#[unsafe(no_mangle)]
pub extern "C" fn hak_check_abi(magic: u32, abi_version: u32) -> c_int {
    if magic != HAKMEM_ABI_MAGIC {
        let line = Line::new().text("ABI refused: magic is ").hex(magic as usize);
        line.text(", must be ").hex(HAKMEM_ABI_MAGIC as usize).write();
        return HAK_ERROR_MAGIC;
    }
    if abi_version != HAKMEM_ABI_VERSION {
        let line = Line::new().text("ABI refused: the program was compiled for version ").number(abi_version as usize);
        line.text(", this library has version ").number(HAKMEM_ABI_VERSION as usize).write();
        return HAK_ERROR_VERSION;
    }
    HAK_OK
}

/// `malloc` of this library, whichever `malloc` the program uses otherwise.
#[unsafe(no_mangle)]
pub extern "C" fn hak_malloc(bytes: usize) -> *mut c_void {
    family::malloc(bytes)
}

/// `calloc` of this library.
#[unsafe(no_mangle)]
pub extern "C" fn hak_calloc(count: usize, bytes: usize) -> *mut c_void {
    family::calloc(count, bytes)
}

/// `realloc` of this library.
///
/// # Safety
/// - As for `realloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hak_realloc(block: *mut c_void, bytes: usize) -> *mut c_void {
    // SAFETY: passed on.
    unsafe { family::realloc(block, bytes) }
}

/// A block at a multiple of `alignment`, which must be a power of two (else null and `EINVAL`).
#[unsafe(no_mangle)]
pub extern "C" fn hak_aligned_alloc(alignment: usize, bytes: usize) -> *mut c_void {
    if alignment.is_power_of_two() { family::memalign(alignment, bytes) } else { crate::outcome::invalid_argument() }
}

/// `free` of this library.
///
/// # Safety
/// - As for `free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hak_free(block: *mut c_void) {
    // SAFETY: passed on.
    unsafe { family::free(block) };
}

/// Bytes that may be used at `block`; zero for null.
///
/// # Safety
/// - As for `malloc_usable_size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hak_usable_size(block: *mut c_void) -> usize {
    // SAFETY: passed on.
    unsafe { family::malloc_usable_size(block) }
}

/// Gives what is free back to the system, as far as this thread can reach it.
#[unsafe(no_mangle)]
pub extern "C" fn hak_collect() {
    hakmem::collect();
}

/// Fills `stats`, whose first three fields the caller has set. `HAK_OK` or an error, then also said on stderr.
///
/// # Safety
/// - `stats` is null or points to at least `stats->struct_size` bytes, at least sixteen, that may be read and written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hak_stats(stats: *mut hak_stats_t) -> c_int {
    if stats.is_null() {
        Line::new().text("hak_stats: the pointer is null").write();
        return HAK_ERROR_NULL;
    }
    // SAFETY: the caller vouches for sixteen bytes, where every version has this field.
    let magic = unsafe { (*stats).magic };
    // SAFETY: the caller vouches for sixteen bytes, where every version has this field.
    let abi_version = unsafe { (*stats).abi_version };
    let refusal = hak_check_abi(magic, abi_version);
    if refusal != HAK_OK {
        return refusal;
    }
    // SAFETY: the caller vouches for sixteen bytes, where every version has this field.
    let struct_size = unsafe { (*stats).struct_size };
    if struct_size < size_of::<hak_stats_t>() {
        let line = Line::new().text("ABI refused: hak_stats_t of ").number(struct_size);
        line.text(" bytes, this version needs ").number(size_of::<hak_stats_t>()).write();
        return HAK_ERROR_STRUCT_SIZE;
    }
    let now = hakmem::stats();
    let filled = hak_stats_t {
        magic,
        abi_version,
        struct_size,
        live_bytes: now.live_bytes,
        committed_bytes: now.committed_bytes,
        cached_bytes: now.cached_bytes,
        reserved: [0; 16],
    };
    // SAFETY: the structure has at least the size of ours, as it just said.
    unsafe { stats.write(filled) };
    HAK_OK
}

/// Writes the heap as JSON to a file descriptor: `HAK_OK` or `HAK_ERROR_WRITE`.
#[unsafe(no_mangle)]
pub extern "C" fn hak_dump_json(fd: c_int) -> c_int {
    hakmem::dump_json(fd);
    HAK_OK
}

/// Writes the heap as a DOT graph to a file descriptor: `HAK_OK` or `HAK_ERROR_WRITE`.
#[unsafe(no_mangle)]
pub extern "C" fn hak_dump_dot(fd: c_int) -> c_int {
    hakmem::dump_dot(fd);
    HAK_OK
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> hak_stats_t {
        hak_stats_t {
            magic: HAKMEM_ABI_MAGIC,
            abi_version: HAKMEM_ABI_VERSION,
            struct_size: size_of::<hak_stats_t>(),
            live_bytes: 0,
            committed_bytes: 0,
            cached_bytes: 0,
            reserved: [7; 16],
        }
    }

    #[test]
    fn stats_of_the_right_version_are_filled() {
        let block = hak_malloc(100_000);
        let mut stats = fresh();
        // SAFETY: a live structure of full size.
        assert_eq!(unsafe { hak_stats(&raw mut stats) }, HAK_OK);
        assert!(stats.committed_bytes >= 100_000);
        assert_eq!(stats.reserved, [0; 16]);
        // SAFETY: the block is live.
        unsafe { hak_free(block) };
    }

    #[test]
    fn every_mismatch_is_refused_and_nothing_is_written() {
        let cases = [
            (hak_stats_t { magic: 1, ..fresh() }, HAK_ERROR_MAGIC),
            (hak_stats_t { abi_version: HAKMEM_ABI_VERSION + 1, ..fresh() }, HAK_ERROR_VERSION),
            (hak_stats_t { abi_version: 0, ..fresh() }, HAK_ERROR_VERSION),
            (hak_stats_t { struct_size: size_of::<hak_stats_t>() - 8, ..fresh() }, HAK_ERROR_STRUCT_SIZE),
        ];
        for (mut stats, error) in cases {
            // SAFETY: a live structure of full size.
            assert_eq!(unsafe { hak_stats(&raw mut stats) }, error);
            assert_eq!((stats.committed_bytes, stats.reserved), (0, [7; 16]));
        }
        // SAFETY: null is allowed.
        assert_eq!(unsafe { hak_stats(core::ptr::null_mut()) }, HAK_ERROR_NULL);
    }

    #[test]
    fn a_larger_structure_of_the_same_version_is_accepted() {
        let mut stats = hak_stats_t { struct_size: size_of::<hak_stats_t>() + 64, ..fresh() };
        // SAFETY: a live structure; the library writes no more than its own version has.
        assert_eq!(unsafe { hak_stats(&raw mut stats) }, HAK_OK);
        assert_eq!(stats.struct_size, size_of::<hak_stats_t>() + 64);
    }

    #[test]
    fn aligned_alloc_refuses_alignments_that_are_no_power_of_two() {
        for alignment in [0, 3, 24] {
            assert!(hak_aligned_alloc(alignment, 8).is_null());
        }
    }
}
