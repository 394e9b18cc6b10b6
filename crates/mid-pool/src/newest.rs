//! The run that was freed last, apart from the list of the others.
//!
//! Most requests want a run of the length that was freed last, and most frees follow a request that took it: one word, compared and
//! written, serves both. A run that is taken leaves its *room*: one of the same length may come without another look at the bounds
//! of the cache, as long as nothing else has come meanwhile.

use hakmem_atomic_ops::Owned64;
use hakmem_base::SlabIndex;

/// `units << 32 | first unit`; first unit 0, which is never handed out: room for a run of that many units. 0: nothing.
pub(crate) struct Newest(Owned64);

const FIRST_BITS: u32 = 32;

impl Newest {
    pub(crate) const fn new() -> Self {
        Self(Owned64::new(0))
    }

    #[inline]
    fn first(&self) -> u32 {
        self.0.get() as u32
    }

    /// Units of the run. Other threads ask too.
    #[inline]
    pub(crate) fn units(&self) -> u32 {
        let word = self.0.get();
        if word as u32 == 0 { 0 } else { (word >> FIRST_BITS) as u32 }
    }

    /// Takes the run, if it has exactly `units` units; its room stays.
    #[inline]
    pub(crate) fn take(&self, units: u32) -> Option<SlabIndex> {
        let (word, room) = (self.0.get(), u64::from(units) << FIRST_BITS);
        let first = word as u32;
        if first == 0 || word ^ u64::from(first) != room {
            return None;
        }
        self.0.set(room);
        Some(SlabIndex::new(first))
    }

    /// Whether a run of `units` units was taken, and nothing has come since.
    #[inline]
    pub(crate) fn has_room(&self, units: u32) -> bool {
        self.0.get() == u64::from(units) << FIRST_BITS
    }

    /// Makes the run the newest one. Its place is empty; there is room in it, or the caller has looked at the bounds.
    #[inline]
    pub(crate) fn put(&self, first: SlabIndex, units: u32) {
        hakmem_base::invariant!(self.first() == 0, "the place of the newest run is taken");
        self.0.set(u64::from(units) << FIRST_BITS | u64::from(first.get()));
    }

    /// A run of `units` units has left the list: there is room for the next. The place is empty.
    #[inline]
    pub(crate) fn leave_room(&self, units: u32) {
        hakmem_base::invariant!(self.0.get() == 0, "the place of the newest run is taken");
        self.0.set(u64::from(units) << FIRST_BITS);
    }

    /// Empties the place, its room included: the run and its units, if there is one.
    pub(crate) fn clear(&self) -> Option<(SlabIndex, u32)> {
        let run = (SlabIndex::new(self.first()), self.units());
        self.0.set(0);
        (run.1 != 0).then_some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_leaves_room_for_one_of_its_length() {
        let newest = Newest::new();
        assert!(!newest.has_room(2));
        newest.put(SlabIndex::new(7), 2);
        assert_eq!((newest.take(1), newest.take(3), newest.units()), (None, None, 2));
        assert!(!newest.has_room(2), "the place is taken");
        assert_eq!(newest.take(2), Some(SlabIndex::new(7)));
        assert_eq!((newest.take(2), newest.units()), (None, 0));
        assert!(newest.has_room(2) && !newest.has_room(1));
        newest.put(SlabIndex::new(9), 2);
        assert_eq!(newest.clear(), Some((SlabIndex::new(9), 2)));
    }

    #[test]
    fn room_is_forgotten_when_the_place_is_cleared() {
        let newest = Newest::new();
        newest.put(SlabIndex::new(7), 32);
        assert_eq!(newest.take(32), Some(SlabIndex::new(7)));
        assert_eq!(newest.clear(), None);
        assert!(!newest.has_room(32));
    }
}
