//! Freed blocks that wait before they may be handed out again.
//!
//! A block first takes a random place, from which a later one drives it out, and then stands in a queue: how long it waits
//! is both random and never short. (GrapheneOS's hardened_malloc does it in the same two steps.)
//!
//! **Invariants.** What is pushed comes out once. At most `capacity` entries wait.

use hakmem_superslab_os::MetaArena;

use crate::raw;
use crate::secret::Random;

/// Entries are numbers that are not 0: addresses or units.
#[derive(Debug)]
pub(crate) struct Quarantine {
    /// 0 is an empty place.
    random: &'static mut [usize],
    /// A ring; 0 is an empty place.
    queue: &'static mut [usize],
    /// The ring's oldest entry, and the place for the next one.
    next: usize,
    len: usize,
    /// Places that [`Quarantine::pop`] has found empty since the last push, in its order.
    emptied: usize,
}

impl Quarantine {
    /// One that keeps nothing.
    pub(crate) const fn none() -> Self {
        Self { random: &mut [], queue: &mut [], next: 0, len: 0, emptied: 0 }
    }

    /// Room for `capacity` entries, half of them at random places. Without memory for the queue they wait at random places only.
    pub(crate) fn new(arena: &MetaArena, capacity: usize) -> Self {
        let Some(random) = raw::zeros(arena, capacity.div_ceil(2)) else { return Self::none() };
        Self { random, queue: raw::zeros(arena, capacity / 2).unwrap_or_default(), ..Self::none() }
    }

    /// Takes an entry in. Returns the one that has waited long enough; the entry itself if nothing is kept.
    #[must_use]
    pub(crate) fn push(&mut self, entry: usize, random: &mut Random) -> Option<usize> {
        let (Ok(places), false) = (u32::try_from(self.random.len()), self.random.is_empty()) else {
            return Some(entry);
        };
        let Some(place) = self.random.get_mut(random.below(places) as usize) else { return Some(entry) };
        self.len += 1;
        self.emptied = 0;
        let driven_out = core::mem::replace(place, entry);
        if driven_out == 0 { None } else { self.queue_up(driven_out) }
    }

    fn queue_up(&mut self, entry: usize) -> Option<usize> {
        let places = self.queue.len();
        let Some(place) = self.queue.get_mut(self.next) else {
            self.len -= 1;
            return Some(entry);
        };
        self.next = (self.next + 1) % places;
        let oldest = core::mem::replace(place, entry);
        (oldest != 0).then(|| {
            self.len -= 1;
            oldest
        })
    }

    /// Takes one entry out before its time: the oldest of the queue, or if it is empty any.
    #[must_use]
    pub(crate) fn pop(&mut self) -> Option<usize> {
        let (newer, older) = self.queue.split_at_mut_checked(self.next).unwrap_or((&mut [], &mut []));
        let places = older.iter_mut().chain(newer).chain(self.random.iter_mut());
        // Who empties all of it looks at each place once.
        let (at, place) = places.enumerate().skip(self.emptied).find(|(_, entry)| **entry != 0)?;
        self.emptied = at + 1;
        self.len -= 1;
        Some(core::mem::take(place))
    }

    /// Entries that wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_goes_in_comes_out_once_and_not_at_once() {
        let arena = MetaArena::new();
        let mut random = Random::new(7);
        let mut quarantine = Quarantine::new(&arena, 64);
        let mut inside = BTreeSet::new();
        let mut shortest_wait = usize::MAX;
        for entry in 1..5000 {
            inside.insert(entry);
            if let Some(out) = quarantine.push(entry, &mut random) {
                assert!(inside.remove(&out), "{out} came out and was not inside");
                shortest_wait = shortest_wait.min(entry - out);
            }
            assert_eq!(quarantine.len(), inside.len());
            assert!(inside.len() <= 64);
        }
        assert!(shortest_wait >= 32, "an entry waited for {shortest_wait} others only");
        while let Some(out) = quarantine.pop() {
            assert!(inside.remove(&out));
        }
        assert!(inside.is_empty() && quarantine.len() == 0);
        assert!(quarantine.push(9, &mut random).is_none());
    }

    #[test]
    fn what_is_taken_out_in_between_leaves_the_rest_inside() {
        let (arena, mut random) = (MetaArena::new(), Random::new(7));
        let mut quarantine = Quarantine::new(&arena, 9);
        let mut inside = BTreeSet::new();
        for entry in 1..2000 {
            inside.insert(entry);
            let released = quarantine.push(entry, &mut random);
            let early = (0..entry % 3).filter_map(|_| quarantine.pop()).collect::<Vec<_>>();
            assert!(released.into_iter().chain(early).all(|out| inside.remove(&out)));
            assert_eq!(quarantine.len(), inside.len());
        }
        while let Some(out) = quarantine.pop() {
            assert!(inside.remove(&out));
        }
        assert!(inside.is_empty());
    }

    #[test]
    fn no_more_wait_than_are_allowed_to() {
        let (arena, mut random) = (MetaArena::new(), Random::new(7));
        for capacity in 1..10 {
            let mut quarantine = Quarantine::new(&arena, capacity);
            let released = (1..=100).filter(|&entry| quarantine.push(entry, &mut random).is_some()).count();
            assert_eq!((quarantine.len(), released), (capacity, 100 - capacity));
        }
    }

    #[test]
    fn the_order_is_not_that_of_the_frees() {
        let arena = MetaArena::new();
        let mut random = Random::new(7);
        let mut quarantine = Quarantine::new(&arena, 64);
        let out: Vec<usize> = (1..1000).filter_map(|entry| quarantine.push(entry, &mut random)).collect();
        assert!(!out.is_sorted());
    }

    #[test]
    fn one_without_room_keeps_nothing() {
        let mut random = Random::new(7);
        for mut quarantine in [Quarantine::none(), Quarantine::new(&MetaArena::new(), 0)] {
            assert_eq!(quarantine.push(5, &mut random), Some(5));
            assert_eq!((quarantine.pop(), quarantine.len()), (None, 0));
        }
    }
}
