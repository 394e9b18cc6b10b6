//! What a slab's owner knows about it: sixteen bytes in a flat table, and the lists they form.

use hakmem_atomic_ops::{Owned32, Owned64};
use hakmem_base::{SlabIndex, invariant};
use static_assertions::const_assert;

/// Set in a stored offset, which is a multiple of eight: zero is "no block".
const IS_BLOCK: u32 = 1;
/// `counts` of one block carved, of one block used.
const CARVED_ONE: u32 = 1;
const USED_ONE: u32 = 1 << USED_SHIFT;
const USED_SHIFT: u32 = 16;
const CARVED_MASK: u32 = USED_ONE - 1;
/// Where `counts` begins in the word.
const COUNTS_SHIFT: u32 = 32;
/// `counts` of a unit that is not the first of its slab.
const TAIL: u32 = u32::MAX;

/// State of one slab, in the entry of its first unit; written by the owner, or by whoever holds an orphan's token.
///
/// All zero is the state of a slab that was just taken. Other threads may read it for a dump.
#[derive(Debug, Default)]
#[repr(C)]
pub struct SlabState {
    /// `counts << 32 | free`, read and written as a whole: a block that comes back costs one load and one store here.
    /// - `free`: `offset + 1` of the first block on the free list, 0 for none. In a tail unit: units back to the first.
    /// - `counts`: `used << 16 | carved`. What is used comes first: more than one is then a shift that leaves something.
    word: Owned64,
    /// Neighbours in the bin's circular list (link words).
    next: Owned32,
    prev: Owned32,
}

const_assert!(size_of::<SlabState>() == 16);

// SAFETY: zero is the state of a fresh slab, and nothing is dropped.
unsafe impl hakmem_base::ZeroValid for SlabState {}

impl SlabState {
    /// Puts the entry into the state of a fresh slab.
    pub(crate) fn reset(&self) {
        self.word.set(0);
        self.next.set(0);
        self.prev.set(0);
    }

    /// Marks a further unit of a slab, `back` units behind its first.
    pub(crate) fn mark_tail(&self, back: u32) {
        self.set(TAIL, back);
    }

    /// Units from this one back to the first unit of its slab.
    #[inline]
    pub(crate) fn units_back(&self) -> u32 {
        if self.counts() == TAIL { self.free() } else { 0 }
    }

    #[inline(always)]
    fn free(&self) -> u32 {
        self.word.get() as u32
    }

    #[inline(always)]
    fn counts(&self) -> u32 {
        (self.word.get() >> COUNTS_SHIFT) as u32
    }

    #[inline(always)]
    fn set(&self, counts: u32, free: u32) {
        self.word.set(u64::from(counts) << COUNTS_SHIFT | u64::from(free));
    }

    /// Blocks that are not on the slab's own free list.
    #[inline]
    #[must_use]
    pub fn used(&self) -> u32 {
        self.counts() >> USED_SHIFT
    }

    /// [`SlabState::used`], for a thread that has no claim on the slab: it may be others' by now.
    #[inline]
    pub(crate) fn used_perhaps(&self) -> u32 {
        (self.word.peek() >> COUNTS_SHIFT >> USED_SHIFT) as u32
    }

    /// Blocks that have ever been carved.
    #[inline]
    #[must_use]
    pub fn carved(&self) -> u32 {
        self.counts() & CARVED_MASK
    }

    /// Whether the slab has blocks on its free list.
    #[inline]
    #[must_use]
    pub fn has_free(&self) -> bool {
        self.free() != 0
    }

    /// Offset (bytes) of the first free block.
    #[inline]
    pub(crate) fn free_offset(&self) -> Option<u32> {
        self.free().checked_sub(IS_BLOCK)
    }

    #[inline]
    pub(crate) fn set_free_offset(&self, offset: Option<u32>) {
        self.set(self.counts(), offset.map_or(0, mark_of));
    }

    /// Puts a block on the free list where others stand already and others are still out: the rule when a program frees many.
    /// Returns the bits in which the offset of the block that was the first one differs; in any other case nothing is done.
    #[inline(always)]
    pub(crate) fn push_between(&self, offset: u32) -> Option<u32> {
        let word = self.word.get();
        let (first, used) = (word as u32, word >> COUNTS_SHIFT >> USED_SHIFT);
        let change = first ^ mark_of(offset);
        if used >> 1 == 0 || first == 0 || change == 0 {
            return None;
        }
        self.word.set((word ^ u64::from(change)) - (u64::from(USED_ONE) << COUNTS_SHIFT));
        Some(change)
    }

    /// Makes the block at `offset` the first one on the free list. Returns the offset of the one that was; it may be this one.
    #[inline]
    pub(crate) fn push_free(&self, offset: u32) -> Pushed {
        let (first, pushed) = (self.free(), mark_of(offset));
        self.set(self.counts(), pushed);
        match first {
            0 => Pushed::First,
            _ if first == pushed => Pushed::Again,
            _ => Pushed::Before(offset_of(first)),
        }
    }

    /// `count` fresh blocks have been carved and delivered.
    #[inline]
    pub(crate) fn carve(&self, count: u32) {
        self.word.add(u64::from(count * CARVED_ONE + count * USED_ONE) << COUNTS_SHIFT);
    }

    /// An empty slab forgets its carved blocks and the list they were on.
    pub(crate) fn uncarve(&self) {
        invariant!(self.used() == 0, "slab with blocks out is carved again");
        self.word.set(0);
    }

    /// All blocks of the slab are the owner's to forget, wherever they are listed.
    pub(crate) fn forget(&self) {
        self.word.set(0);
    }

    /// The whole free list has been delivered: every carved block is out now. Returns how many were on it.
    #[inline]
    pub(crate) fn deliver_all(&self) -> u32 {
        let (carved, used) = (self.carved(), self.used());
        invariant!(used <= carved, "slab has more blocks out than it has carved");
        self.set(carved * CARVED_ONE + carved * USED_ONE, 0);
        carved - used
    }

    /// `count` blocks have come back. Returns how many are still out, or `None` if fewer were out.
    #[inline]
    pub(crate) fn take_back(&self, count: u32) -> Option<u32> {
        let used = self.used().checked_sub(count)?;
        self.word.sub(u64::from(count * USED_ONE) << COUNTS_SHIFT);
        Some(used)
    }
}

/// `free` for the block at `offset`.
#[inline(always)]
const fn mark_of(offset: u32) -> u32 {
    offset + IS_BLOCK
}

#[inline(always)]
const fn offset_of(mark: u32) -> u32 {
    mark - IS_BLOCK
}

/// Where a block on a slab's free list has come to stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pushed {
    /// The list was empty.
    First,
    /// The first block was this one: a mistake.
    Again,
    /// The first block was the one at this offset.
    Before(u32),
}

/// Head of a circular list of slabs, kept in a bin. Functions take the table lookup, so that lists need no pointers.
pub(crate) struct SlabList<'a, F> {
    pub head: &'a Owned32,
    pub state_of: F,
}

impl<'t, F: Fn(SlabIndex) -> &'t SlabState> SlabList<'_, F> {
    /// The first slab.
    #[inline]
    pub fn first(&self) -> Option<SlabIndex> {
        SlabIndex::from_link(self.head.get())
    }

    /// Links `slab` in as the last one.
    pub fn push_back(&self, slab: SlabIndex) {
        let state = (self.state_of)(slab);
        match self.first() {
            None => {
                state.next.set(slab.get());
                state.prev.set(slab.get());
                self.head.set(slab.get());
            }
            Some(first) => {
                let first_state = (self.state_of)(first);
                let last = SlabIndex::new(first_state.prev.get());
                state.next.set(first.get());
                state.prev.set(last.get());
                (self.state_of)(last).next.set(slab.get());
                first_state.prev.set(slab.get());
            }
        }
    }

    /// Takes `slab`, which stands in this list, out of it.
    pub fn remove(&self, slab: SlabIndex) {
        let state = (self.state_of)(slab);
        let (next, prev) = (SlabIndex::new(state.next.get()), SlabIndex::new(state.prev.get()));
        if next == slab {
            self.head.set(0);
        } else {
            (self.state_of)(next).prev.set(prev.get());
            (self.state_of)(prev).next.set(next.get());
            if self.head.get() == slab.get() {
                self.head.set(next.get());
            }
        }
    }

    /// Slabs in the list, by walking it; for reports.
    pub fn for_each(&self, mut visit: impl FnMut(SlabIndex)) {
        let Some(first) = self.first() else { return };
        let mut slab = first;
        loop {
            let next = SlabIndex::new((self.state_of)(slab).next.get());
            visit(slab);
            if next == first {
                return;
            }
            slab = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn counts_balance_through_carve_deliver_and_return() {
        let state = SlabState::default();
        state.carve(10);
        assert_eq!((state.carved(), state.used()), (10, 10));
        assert_eq!(state.take_back(4), Some(6));
        assert_eq!(state.take_back(7), None);
        state.set_free_offset(Some(0));
        assert!(state.has_free());
        assert_eq!(state.deliver_all(), 4);
        assert_eq!((state.carved(), state.used(), state.has_free()), (10, 10, false));
    }

    #[test]
    fn a_block_pushed_says_what_it_stands_before() {
        let state = SlabState::default();
        assert_eq!(state.push_free(0), Pushed::First);
        assert_eq!(state.push_free(64), Pushed::Before(0));
        assert_eq!(state.push_free(64), Pushed::Again);
        assert_eq!(state.free_offset(), Some(64));
    }

    #[test]
    fn a_block_is_pushed_between_others_only() {
        let state = SlabState::default();
        state.carve(4);
        assert_eq!(state.push_between(64), None, "it would be the first one");
        assert_eq!(state.push_free(64), Pushed::First);
        assert_eq!(state.take_back(1), Some(3));
        assert_eq!(state.push_between(64), None, "it is there already");
        assert_eq!(state.push_between(192), Some(192 ^ 64));
        assert_eq!((state.free_offset(), state.carved(), state.used()), (Some(192), 4, 2));
        assert_eq!(state.push_between(128), Some(128 ^ 192));
        assert_eq!(state.push_between(0), None, "it is the last one out");
        assert_eq!((state.free_offset(), state.carved(), state.used()), (Some(128), 4, 1));
    }

    #[test]
    fn tails_lead_to_their_first_unit() {
        let state = SlabState::default();
        assert_eq!(state.units_back(), 0);
        state.mark_tail(3);
        assert_eq!(state.units_back(), 3);
    }

    proptest! {
        #[test]
        fn lists_behave_like_a_deque(actions in prop::collection::vec((0_u8..2, 1_u32..16), 0..200)) {
            let table: Vec<SlabState> = (0..16).map(|_| SlabState::default()).collect();
            let head = Owned32::new(0);
            let list = SlabList { head: &head, state_of: |slab: SlabIndex| &table[slab.to_usize()] };
            let mut model: VecDeque<u32> = VecDeque::new();
            for (action, slab) in actions {
                let position = model.iter().position(|&other| other == slab);
                match (action, position) {
                    (0, None) => { list.push_back(SlabIndex::new(slab)); model.push_back(slab); }
                    (1, Some(position)) => { list.remove(SlabIndex::new(slab)); model.remove(position); }
                    _ => {}
                }
                let mut seen = Vec::new();
                list.for_each(|slab| seen.push(slab.get()));
                prop_assert_eq!(&seen, &Vec::from(model.clone()));
            }
        }
    }
}
