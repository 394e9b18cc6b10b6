//! Guards: pages without access, and how many of them may stand at a time.
//!
//! Each guard cuts a mapping of the process in two or three, and the kernel lets a process have about 65 000 of them
//! (`vm.max_map_count`). One that has used them up cannot start a thread or map a file any more, so guards stop before that:
//! beyond their limit the level goes on without, and counts what it left out.
//!
//! **Invariants.** `standing` is the sum of what [`raise`] returned and [`lower`] has not taken back; it does not stay above the
//! limit.

use hakmem_base::{OS_PAGE_BYTES, SlabIndex};

use crate::context::HardenedContext;
use crate::stats::Counters;

/// Makes pages of a range that the caller holds inaccessible, if the limit and the kernel allow it. Returns how many guards
/// stand more than before: none or one, which is only a part of one where the kernel stopped half the way and would not go back.
pub(crate) fn raise(
    cx: HardenedContext<'_>,
    limit: u64,
    counters: &Counters,
    first: SlabIndex,
    offset: usize,
    bytes: usize,
) -> u32 {
    if counters.guards_standing.add_relaxed(1) >= limit {
        counters.guards_standing.sub_relaxed(1);
        counters.guards_left_out.add_relaxed(1);
        return 0;
    }
    if !cx.os.protect(first, offset, bytes) {
        counters.guards_refused.add_relaxed(1);
        // Of several mappings, the kernel changes the first ones before it refuses.
        if bytes <= OS_PAGE_BYTES || cx.os.unprotect(first, offset, bytes) {
            counters.guards_standing.sub_relaxed(1);
            return 0;
        }
    }
    1
}

/// Makes a range that holds `count` guards writable again. `false`: the kernel refused, and the range must not be given back;
/// it is counted.
#[must_use]
pub(crate) fn lower(cx: HardenedContext<'_>, counters: &Counters, first: SlabIndex, bytes: usize, count: u32) -> bool {
    if count == 0 {
        return true;
    }
    // The whole range at once: what was never guarded does not mind.
    if !cx.os.unprotect(first, 0, bytes) {
        counters.stranded_bytes.add_relaxed(bytes as u64);
        return false;
    }
    counters.guards_standing.sub_relaxed(u64::from(count));
    true
}
