//! The list of freed extents that wait for another use, oldest first. Plain data: the cache holds it under a lock.

use hakmem_base::SlabIndex;

/// Extents kept at most.
pub(crate) const SHELF_PLACES: usize = 64;

/// A freed extent with its contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kept {
    pub(crate) first: SlabIndex,
    pub(crate) superslabs: u32,
    /// Bytes that its last block had, from the start: as much memory as may stand behind it.
    pub(crate) touched_bytes: usize,
    /// When it was freed (coarse milliseconds).
    pub(crate) since_ms: u64,
    /// Huge pages were asked for.
    pub(crate) huge: bool,
    /// It waits for a block with this note; 0: for any without.
    pub(crate) note: u16,
    /// For so long (ms); 0: as long as policy says.
    pub(crate) keep_ms: u32,
}

impl Kept {
    const NONE: Self = Self {
        first: SlabIndex::new(0),
        superslabs: 0,
        touched_bytes: 0,
        since_ms: 0,
        huge: false,
        note: 0,
        keep_ms: 0,
    };

    /// When it has waited for long enough; the far future where policy says, and may say something else tomorrow.
    fn noted_due_ms(&self) -> u64 {
        if self.note == 0 { u64::MAX } else { self.since_ms + u64::from(self.keep_ms) }
    }
}

/// The list. Places `0..len` are filled.
#[derive(Debug)]
pub(crate) struct Shelf {
    kept: [Kept; SHELF_PLACES],
    len: usize,
    touched_bytes: usize,
    /// Of these, bytes of extents with a note.
    noted_bytes: usize,
}

impl Shelf {
    pub(crate) const fn new() -> Self {
        Self { kept: [Kept::NONE; SHELF_PLACES], len: 0, touched_bytes: 0, noted_bytes: 0 }
    }

    pub(crate) fn touched_bytes(&self) -> usize {
        self.touched_bytes
    }

    /// Bytes of the extents with a note.
    pub(crate) fn noted_bytes(&self) -> usize {
        self.noted_bytes
    }

    /// Whether one waits for a block with this note.
    pub(crate) fn has_noted(&self, note: u16) -> bool {
        self.filled().iter().any(|kept| kept.note == note)
    }

    /// When the first of those with a note has waited for long enough; the far future if there is none.
    pub(crate) fn noted_due_ms(&self) -> u64 {
        self.filled().iter().map(Kept::noted_due_ms).min().unwrap_or(u64::MAX)
    }

    /// Superslabs of all extents.
    pub(crate) fn superslabs(&self) -> u64 {
        self.filled().iter().map(|kept| u64::from(kept.superslabs)).sum()
    }

    /// When the oldest extent without a note was freed; the far future if there is none.
    pub(crate) fn oldest_ms(&self) -> u64 {
        self.filled().iter().find(|kept| kept.note == 0).map_or(u64::MAX, |kept| kept.since_ms)
    }

    /// Appends the newest. False if there is no place.
    pub(crate) fn push(&mut self, extent: Kept) -> bool {
        let Some(place) = self.kept.get_mut(self.len) else { return false };
        *place = extent;
        self.len += 1;
        self.touched_bytes += extent.touched_bytes;
        self.noted_bytes += if extent.note == 0 { 0 } else { extent.touched_bytes };
        true
    }

    /// The newest of the shortest extents of `superslabs..=widest` superslabs that wait for this note and that `is_aligned` agrees to.
    pub(crate) fn take_fit(
        &mut self,
        superslabs: u32,
        widest: u32,
        note: u16,
        is_aligned: impl Fn(SlabIndex) -> bool,
    ) -> Option<Kept> {
        let fits = |kept: &Kept| {
            kept.note == note && (superslabs..=widest).contains(&kept.superslabs) && is_aligned(kept.first)
        };
        let candidates = self.filled().iter().enumerate().filter(|(_, kept)| fits(kept));
        // Newest first, because `min_by_key` keeps the first of equals.
        let (position, _) = candidates.rev().min_by_key(|(_, kept)| kept.superslabs)?;
        self.remove(position)
    }

    pub(crate) fn take_oldest(&mut self) -> Option<Kept> {
        self.remove(0)
    }

    /// The oldest without a note.
    pub(crate) fn take_oldest_plain(&mut self) -> Option<Kept> {
        let position = self.filled().iter().position(|kept| kept.note == 0)?;
        self.remove(position)
    }

    /// The oldest that has waited for long enough: freed at `until_ms` or before, or, with a note, due at `now_ms`.
    pub(crate) fn take_due(&mut self, until_ms: u64, now_ms: u64) -> Option<Kept> {
        let is_due =
            |kept: &Kept| if kept.note == 0 { kept.since_ms <= until_ms } else { kept.noted_due_ms() <= now_ms };
        let position = self.filled().iter().position(is_due)?;
        self.remove(position)
    }

    /// The extent that begins at `first`.
    pub(crate) fn take_at(&mut self, first: SlabIndex) -> Option<Kept> {
        let position = self.filled().iter().position(|kept| kept.first == first)?;
        self.remove(position)
    }

    fn filled(&self) -> &[Kept] {
        self.kept.get(..self.len).unwrap_or(&[])
    }

    fn remove(&mut self, position: usize) -> Option<Kept> {
        let tail = self.kept.get_mut(position..self.len)?;
        let extent = *tail.first()?;
        tail.rotate_left(1);
        self.len -= 1;
        self.touched_bytes -= extent.touched_bytes;
        self.noted_bytes -= if extent.note == 0 { 0 } else { extent.touched_bytes };
        Some(extent)
    }

    /// Panics (tests) or aborts if the sums do not balance or two extents overlap.
    pub(crate) fn check_invariants(&self) {
        let sum = self.filled().iter().map(|kept| kept.touched_bytes).sum::<usize>();
        let noted = self.filled().iter().filter(|kept| kept.note != 0).map(|kept| kept.touched_bytes).sum::<usize>();
        if sum != self.touched_bytes || noted != self.noted_bytes {
            hakmem_base::fatal("big cache: touched bytes do not balance");
        }
        let ends = |kept: &Kept| (kept.first.superslab(), kept.first.superslab() + kept.superslabs);
        for (position, one) in self.filled().iter().enumerate() {
            for other in self.filled().iter().skip(position + 1) {
                let ((start, end), (other_start, other_end)) = (ends(one), ends(other));
                if start < other_end && other_start < end {
                    hakmem_base::fatal("big cache: two kept extents overlap");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hakmem_base::SUPERSLAB_BYTES;

    fn kept(superslab: u32, superslabs: u32, since_ms: u64) -> Kept {
        let touched_bytes = superslabs as usize * SUPERSLAB_BYTES;
        Kept {
            first: SlabIndex::new(superslab * 32),
            superslabs,
            touched_bytes,
            since_ms,
            huge: false,
            note: 0,
            keep_ms: 0,
        }
    }

    #[test]
    fn the_newest_of_the_tightest_fits_is_taken() {
        let mut shelf = Shelf::new();
        for extent in [kept(10, 9, 1), kept(20, 8, 2), kept(30, 8, 3), kept(40, 10, 4)] {
            assert!(shelf.push(extent));
        }
        shelf.check_invariants();
        let any = |_: SlabIndex| true;
        let by_four = |first: SlabIndex| first.superslab().is_multiple_of(4);
        assert_eq!(shelf.take_fit(8, 9, 0, any), Some(kept(30, 8, 3)));
        assert_eq!(shelf.take_fit(8, 9, 0, by_four), Some(kept(20, 8, 2)));
        assert_eq!(shelf.take_fit(8, 9, 0, by_four), None);
        assert_eq!(shelf.take_fit(8, 9, 0, any), Some(kept(10, 9, 1)));
        assert_eq!(shelf.take_fit(8, 9, 0, any), None);
        shelf.check_invariants();
        assert_eq!(shelf.touched_bytes(), 10 * SUPERSLAB_BYTES);
    }

    #[test]
    fn extents_leave_in_the_order_of_their_age() {
        let mut shelf = Shelf::new();
        assert_eq!(shelf.oldest_ms(), u64::MAX);
        assert!(shelf.push(kept(1, 2, 100)));
        assert!(shelf.push(kept(3, 2, 150)));
        assert_eq!(shelf.take_due(99, 500), None);
        assert_eq!(shelf.take_due(120, 500), Some(kept(1, 2, 100)));
        assert_eq!(shelf.take_due(120, 500), None);
        assert_eq!(shelf.take_at(SlabIndex::new(96)), Some(kept(3, 2, 150)));
        assert_eq!(shelf.take_oldest(), None);
        assert_eq!(shelf.touched_bytes(), 0);
    }

    #[test]
    fn what_waits_for_a_note_is_left_to_it_until_it_is_due() {
        let noted = |superslab, since_ms, note| Kept { note, keep_ms: 1000, ..kept(superslab, 4, since_ms) };
        let mut shelf = Shelf::new();
        for extent in [noted(10, 1, 7), kept(20, 4, 2), noted(30, 3, 8)] {
            assert!(shelf.push(extent));
        }
        shelf.check_invariants();
        assert_eq!((shelf.oldest_ms(), shelf.noted_due_ms()), (2, 1001));
        assert!(shelf.has_noted(7) && !shelf.has_noted(9));
        assert_eq!(shelf.take_fit(4, 4, 9, |_| true), None);
        assert_eq!(shelf.take_fit(4, 4, 8, |_| true), Some(noted(30, 3, 8)));
        assert_eq!(shelf.take_oldest_plain(), Some(kept(20, 4, 2)));
        assert_eq!(shelf.take_oldest_plain(), None);
        assert_eq!((shelf.oldest_ms(), shelf.noted_bytes()), (u64::MAX, 4 * SUPERSLAB_BYTES));
        assert_eq!(shelf.take_due(1000, 1000), None);
        assert_eq!(shelf.take_due(0, 1001), Some(noted(10, 1, 7)));
        assert_eq!((shelf.noted_due_ms(), shelf.noted_bytes()), (u64::MAX, 0));
        shelf.check_invariants();
    }

    #[test]
    fn a_full_shelf_refuses() {
        let mut shelf = Shelf::new();
        for place in 0..SHELF_PLACES as u32 {
            assert!(shelf.push(kept(1 + place * 2, 2, 0)));
        }
        assert!(!shelf.push(kept(1000, 2, 0)));
    }
}
