//! How much of an extent is in memory, as the kernel says.

use crate::sys;
use hakmem_base::{OS_PAGE_BYTES, SUPERSLAB_BYTES};

/// Pages that one call looks at. The kernel takes about 2 ns for each, and 200 for the call.
const PIECE_PAGES: usize = 128;
const PIECE_BYTES: usize = PIECE_PAGES * OS_PAGE_BYTES;
const PIECES_PER_SUPERSLAB: usize = SUPERSLAB_BYTES / PIECE_BYTES;
/// Pieces of a long extent that are looked at.
const SAMPLES: usize = 8;

/// Thousandths of the `bytes` bytes from `start` on that are in memory: of all of them, or of pieces spread over them, each another part
/// of its superslab than the one before. `None` if the kernel does not say.
pub(crate) fn permille(start: *mut u8, bytes: usize) -> Option<u32> {
    let pieces = bytes.div_ceil(PIECE_BYTES);
    let samples = pieces.min(SAMPLES);
    let mut pages = [0_u8; PIECE_PAGES];
    let (mut seen, mut present) = (0, 0);
    for sample in 0..samples {
        let piece = if pieces <= SAMPLES { sample } else { spread(sample, pieces / PIECES_PER_SUPERSLAB) };
        let offset = piece * PIECE_BYTES;
        let length = PIECE_BYTES.min(bytes - offset);
        sys::look_at(start.wrapping_add(offset), length, &mut pages).ok()?;
        let pages = pages.get(..length.div_ceil(OS_PAGE_BYTES))?;
        seen += pages.len();
        present += pages.iter().map(|page| usize::from(page & 1)).sum::<usize>();
    }
    (present * 1000).checked_div(seen).map(|permille| permille as u32)
}

/// The piece that a sample of an extent of so many whole superslabs looks at.
fn spread(sample: usize, superslabs: usize) -> usize {
    sample * superslabs / SAMPLES * PIECES_PER_SUPERSLAB + sample % PIECES_PER_SUPERSLAB
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    const PAGES_PER_SUPERSLAB: usize = SUPERSLAB_BYTES / OS_PAGE_BYTES;

    fn mapped(superslabs: usize) -> *mut u8 {
        sys::map_memory(superslabs * SUPERSLAB_BYTES).map_or(core::ptr::null_mut(), |start| start.as_ptr())
    }

    #[test]
    fn what_was_touched_is_in_memory_and_the_rest_is_not() {
        let start = mapped(3);
        let bytes = SUPERSLAB_BYTES + 10 * OS_PAGE_BYTES;
        assert_eq!(permille(start, bytes), Some(0));
        for page in 0..bytes / OS_PAGE_BYTES {
            // SAFETY: inside the mapping, which is nobody else's.
            unsafe { start.wrapping_add(page * OS_PAGE_BYTES).write(1) };
            if page == PAGES_PER_SUPERSLAB - 1 {
                assert_eq!(permille(start, bytes), Some(980));
            }
        }
        assert_eq!(permille(start, bytes), Some(1000), "what lies behind the last byte does not count");
        // SAFETY: mapped above, not used any more.
        unsafe { sys::unmap(start, 3 * SUPERSLAB_BYTES) };
    }

    #[test]
    fn of_a_long_extent_superslabs_from_all_parts_are_looked_at() {
        let start = mapped(50);
        for superslab in 0..50 {
            // SAFETY: inside the mapping, which is nobody else's.
            unsafe { start.wrapping_add(superslab * SUPERSLAB_BYTES).write_bytes(1, SUPERSLAB_BYTES / 2) };
        }
        assert_eq!(permille(start, 50 * SUPERSLAB_BYTES), Some(500));
        // SAFETY: mapped above, not used any more.
        unsafe { sys::unmap(start, 50 * SUPERSLAB_BYTES) };
    }

    #[test]
    fn of_a_hole_nothing_is_known() {
        let start = mapped(1);
        // SAFETY: mapped above; nothing is left to look at.
        unsafe { sys::unmap(start, SUPERSLAB_BYTES) };
        assert_eq!(permille(start, SUPERSLAB_BYTES), None);
        assert_eq!(permille(start, 0), None);
    }
}
