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
}

impl Kept {
    const NONE: Self = Self { first: SlabIndex::new(0), superslabs: 0, touched_bytes: 0, since_ms: 0, huge: false };
}

/// The list. Places `0..len` are filled.
#[derive(Debug)]
pub(crate) struct Shelf {
    kept: [Kept; SHELF_PLACES],
    len: usize,
    touched_bytes: usize,
}

impl Shelf {
    pub(crate) const fn new() -> Self {
        Self { kept: [Kept::NONE; SHELF_PLACES], len: 0, touched_bytes: 0 }
    }

    pub(crate) fn touched_bytes(&self) -> usize {
        self.touched_bytes
    }

    /// Superslabs of all extents.
    pub(crate) fn superslabs(&self) -> u64 {
        self.filled().iter().map(|kept| u64::from(kept.superslabs)).sum()
    }

    /// When the oldest extent was freed; the far future if there is none.
    pub(crate) fn oldest_ms(&self) -> u64 {
        self.filled().first().map_or(u64::MAX, |kept| kept.since_ms)
    }

    /// Appends the newest. False if there is no place.
    pub(crate) fn push(&mut self, extent: Kept) -> bool {
        let Some(place) = self.kept.get_mut(self.len) else { return false };
        *place = extent;
        self.len += 1;
        self.touched_bytes += extent.touched_bytes;
        true
    }

    /// The newest of the shortest extents of `superslabs..=widest` superslabs that `is_aligned` agrees to.
    pub(crate) fn take_fit(
        &mut self,
        superslabs: u32,
        widest: u32,
        is_aligned: impl Fn(SlabIndex) -> bool,
    ) -> Option<Kept> {
        let fits = |kept: &Kept| (superslabs..=widest).contains(&kept.superslabs) && is_aligned(kept.first);
        let candidates = self.filled().iter().enumerate().filter(|(_, kept)| fits(kept));
        // Newest first, because `min_by_key` keeps the first of equals.
        let (position, _) = candidates.rev().min_by_key(|(_, kept)| kept.superslabs)?;
        self.remove(position)
    }

    pub(crate) fn take_oldest(&mut self) -> Option<Kept> {
        self.remove(0)
    }

    /// The oldest, if it was freed at `until_ms` or before.
    pub(crate) fn take_due(&mut self, until_ms: u64) -> Option<Kept> {
        if self.oldest_ms() <= until_ms { self.remove(0) } else { None }
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
        Some(extent)
    }

    /// Panics (tests) or aborts if the sums do not balance or two extents overlap.
    pub(crate) fn check_invariants(&self) {
        let sum = self.filled().iter().map(|kept| kept.touched_bytes).sum::<usize>();
        if sum != self.touched_bytes {
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
        Kept { first: SlabIndex::new(superslab * 32), superslabs, touched_bytes, since_ms, huge: false }
    }

    #[test]
    fn the_newest_of_the_tightest_fits_is_taken() {
        let mut shelf = Shelf::new();
        for extent in [kept(10, 9, 1), kept(20, 8, 2), kept(30, 8, 3), kept(40, 10, 4)] {
            assert!(shelf.push(extent));
        }
        shelf.check_invariants();
        let any = |_| true;
        let by_four = |first: SlabIndex| first.superslab().is_multiple_of(4);
        assert_eq!(shelf.take_fit(8, 9, any), Some(kept(30, 8, 3)));
        assert_eq!(shelf.take_fit(8, 9, by_four), Some(kept(20, 8, 2)));
        assert_eq!(shelf.take_fit(8, 9, by_four), None);
        assert_eq!(shelf.take_fit(8, 9, any), Some(kept(10, 9, 1)));
        assert_eq!(shelf.take_fit(8, 9, any), None);
        shelf.check_invariants();
        assert_eq!(shelf.touched_bytes(), 10 * SUPERSLAB_BYTES);
    }

    #[test]
    fn extents_leave_in_the_order_of_their_age() {
        let mut shelf = Shelf::new();
        assert_eq!(shelf.oldest_ms(), u64::MAX);
        assert!(shelf.push(kept(1, 2, 100)));
        assert!(shelf.push(kept(3, 2, 150)));
        assert_eq!(shelf.take_due(99), None);
        assert_eq!(shelf.take_due(120), Some(kept(1, 2, 100)));
        assert_eq!(shelf.take_due(120), None);
        assert_eq!(shelf.take_at(SlabIndex::new(96)), Some(kept(3, 2, 150)));
        assert_eq!(shelf.take_oldest(), None);
        assert_eq!(shelf.touched_bytes(), 0);
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
