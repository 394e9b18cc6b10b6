//! The hardened level at the gates: what reaches it, and what it leaves to the others.
//!
//! At this level no thread ever gets a heap. All of them point to the empty record for good, so every fast path misses and
//! comes to the cold gates, which come here: the level costs the default one no instruction on a fast path.

use core::ffi::CStr;
use core::ptr::NonNull;
use hakmem_atomic_ops::Shared64;
use hakmem_base::{Door, Request, keeping_errno};

use crate::global::GLOBAL;
use crate::large;
use crate::{pages, scavenger};

/// Blocks that found no place in the window and were mapped outside, without guards. Relaxed: a count.
static UNGUARDED: Shared64 = Shared64::new(0);

/// Mappings that Linux lets a process have unless its administrator says otherwise.
const USUAL_MAX_MAPPINGS: u64 = 65_530;

/// Guards that leave a quarter of the mappings that a process may have to the program, even if none of them meets another: each
/// then cuts a mapping twice.
pub(crate) fn affordable_guards() -> u64 {
    let mut text = [0_u8; 24];
    let bytes = read_start(c"/proc/sys/vm/max_map_count", &mut text);
    max_mappings(bytes) / 4 * 3 / 2
}

/// The number that the text begins with; the usual one if there is none.
fn max_mappings(text: &[u8]) -> u64 {
    let digits = text.iter().map_while(|byte| char::from(*byte).to_digit(10));
    let number = digits.fold(0, |number: u64, digit| number.saturating_mul(10).saturating_add(u64::from(digit)));
    if number == 0 { USUAL_MAX_MAPPINGS } else { number }
}

/// What a file begins with; nothing if it cannot be read.
fn read_start<'a>(path: &CStr, buffer: &'a mut [u8]) -> &'a [u8] {
    // Miri's machine has no /proc.
    if cfg!(miri) {
        return &[];
    }
    keeping_errno(|| {
        // SAFETY: the path is a C string.
        let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        if fd < 0 {
            return &[][..];
        }
        // SAFETY: the buffer is this long.
        let count = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
        // SAFETY: the descriptor was opened above.
        unsafe { libc::close(fd) };
        usize::try_from(count).ok().and_then(|count| buffer.get(..count)).unwrap_or_default()
    })
}

/// Whether the level runs: decided before the first allocation.
#[inline]
pub(crate) fn is_on() -> bool {
    GLOBAL.hardened.is_on()
}

/// Blocks that the level had no place for.
pub(crate) fn unguarded_blocks() -> u64 {
    UNGUARDED.load_relaxed()
}

/// A block, all zero, or null. The caller has found the level on.
pub(crate) fn allocate(bytes: usize, align: usize, door: Door) -> *mut u8 {
    let Some(tables) = GLOBAL.front.tables() else { return core::ptr::null_mut() };
    let cx = GLOBAL.hardened_context(tables);
    scavenger::stand_by();
    let mut block = GLOBAL.hardened.allocate(cx, bytes, align, door);
    // For a block that the machine has no memory for, what waits would be let go in vain, by whoever names such a size.
    let might_fit = bytes <= GLOBAL.physical_bytes.load_relaxed();
    if block.is_none() && might_fit && GLOBAL.hardened.collect(cx, true) {
        block = GLOBAL.hardened.allocate(cx, bytes, align, door);
    }
    let block = block.or_else(|| unguarded(bytes, align));
    block.map_or_else(large::refused, NonNull::as_ptr)
}

/// A block that the window has no place for, as the default level would map it.
#[cold]
fn unguarded(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    let tables = GLOBAL.front.tables()?;
    if bytes <= hakmem_base::RUN_MAX_BYTES {
        return None;
    }
    let block = GLOBAL.big.allocate(&GLOBAL.big_context(tables, None), bytes, align, false)?;
    UNGUARDED.add_relaxed(1);
    if !block.zeroed {
        // SAFETY: the block is at least `bytes` bytes long and nobody else's.
        unsafe { block.ptr.as_ptr().write_bytes(0, bytes) };
    }
    Some(block.ptr)
}

/// Takes a block back.
pub(crate) fn free(block: NonNull<u8>, note: usize, claim: Request) {
    if let Some(tables) = GLOBAL.front.tables() {
        GLOBAL.hardened.free(GLOBAL.hardened_context(tables), block, note, claim);
        pages::watch_purgeable();
    }
}

/// Bytes that the block at `address` was asked for with.
pub(crate) fn usable_size(address: usize, note: usize) -> Option<usize> {
    let tables = GLOBAL.front.tables()?;
    GLOBAL.hardened.usable_size(GLOBAL.hardened_context(tables), address, note)
}

/// Resizes a block of which `claim` names size, alignment and door. Null: out of memory, the block is as it was.
pub(crate) fn reallocate(block: NonNull<u8>, note: usize, claim: Request, new_bytes: usize) -> *mut u8 {
    let (Some(tables), Some(bytes)) = (GLOBAL.front.tables(), claim.bytes()) else { return core::ptr::null_mut() };
    let cx = GLOBAL.hardened_context(tables);
    if GLOBAL.hardened.resize(cx, block, note, claim, new_bytes) {
        return block.as_ptr();
    }
    let moved = if new_bytes > isize::MAX as usize {
        large::refused()
    } else {
        allocate(new_bytes, claim.align(), claim.door())
    };
    if let Some(moved) = NonNull::new(moved) {
        // SAFETY: both blocks are at least this long, and they are two blocks.
        unsafe { moved.as_ptr().copy_from_nonoverlapping(block.as_ptr(), bytes.min(new_bytes)) };
        GLOBAL.hardened.free(cx, block, note, claim);
    }
    moved
}

/// Gives empty slabs back. What is in quarantine stays there: a `malloc_trim` does not weaken the level.
pub(crate) fn collect() {
    if let Some(tables) = GLOBAL.front.tables() {
        GLOBAL.hardened.collect(GLOBAL.hardened_context(tables), false);
    }
}

/// Looks for damage that no free has met. At the end of the process.
pub(crate) fn sweep() {
    if let Some(tables) = GLOBAL.front.tables() {
        GLOBAL.hardened.sweep(GLOBAL.hardened_context(tables));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_mappings_is_read_and_the_usual_one_stands_in_for_it() {
        assert_eq!(max_mappings(b"1048576\n"), 1_048_576);
        for nothing in [&b""[..], b"0\n", b"many"] {
            assert_eq!(max_mappings(nothing), USUAL_MAX_MAPPINGS);
        }
        assert_eq!(max_mappings(&[b'9'; 24]), u64::MAX);
        assert!(read_start(c"/no/such/file", &mut [0; 8]).is_empty());
        assert!(affordable_guards() > 0);
    }
}
