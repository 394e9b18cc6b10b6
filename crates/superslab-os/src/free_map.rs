//! Which superslabs of the window are free, and which of the free ones are better left alone.
//!
//! One bit per superslab, inverted so that untouched (zero) memory means free. A summary bit stands for a word of 64
//! superslabs without a free one that is not room, so that a search skips 8 GiB per summary word.

use crate::table::FlatTable;
use hakmem_base::ZeroValid;

const WORD_BITS: u32 = 64;
/// Words in a group: as many as a summary word has bits.
const GROUP_WORDS: usize = WORD_BITS as usize;

/// The superslabs of a window.
#[derive(Debug)]
pub(crate) struct FreeMap {
    groups: FlatTable<Group>,
    superslab_count: u32,
    /// No word before this one has a superslab that is neither used nor room.
    low_word: u32,
}

/// The bits of 4096 superslabs, side by side: all that a small process needs of them lies in one OS page.
#[derive(Debug)]
struct Group {
    used: [u64; GROUP_WORDS],
    /// Kept behind an extent for it to grow into: avoided while there is another place.
    room: [u64; GROUP_WORDS],
    full: u64,
}

// SAFETY: arrays of plain numbers: zero is a value and nothing is dropped.
unsafe impl ZeroValid for Group {}

/// Which superslabs a search may return.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Avoid {
    /// Only used ones are passed over.
    Used,
    /// Used ones and the room behind extents.
    UsedAndRoom,
}

fn set_bit(word: Option<&mut u64>, bit: u32, value: bool) {
    if let Some(word) = word {
        let flag = 1 << (bit % WORD_BITS);
        *word = if value { *word | flag } else { *word & !flag };
    }
}

impl FreeMap {
    pub(crate) const fn empty() -> Self {
        Self { groups: FlatTable::empty(), superslab_count: 0, low_word: 0 }
    }

    /// A map of `superslab_count` free superslabs.
    pub(crate) fn reserve(superslab_count: u32) -> Option<Self> {
        let words = superslab_count.div_ceil(WORD_BITS);
        let groups = FlatTable::reserve((words as usize).div_ceil(GROUP_WORDS))?;
        let mut map = Self { groups, superslab_count, low_word: 0 };
        for beyond in superslab_count..words * WORD_BITS {
            set_bit(map.used_word_mut(beyond), beyond, true);
        }
        Some(map)
    }

    fn group_of(&self, word: u32) -> Option<&Group> {
        self.groups.get(word as usize / GROUP_WORDS)
    }

    /// Superslabs beyond the window count as used.
    fn used_word(&self, word: u32) -> u64 {
        self.group_of(word).and_then(|group| group.used.get(word as usize % GROUP_WORDS)).map_or(u64::MAX, |bits| *bits)
    }

    fn room_word(&self, word: u32) -> u64 {
        self.group_of(word).and_then(|group| group.room.get(word as usize % GROUP_WORDS)).map_or(u64::MAX, |bits| *bits)
    }

    fn used_word_mut(&mut self, superslab: u32) -> Option<&mut u64> {
        let word = (superslab / WORD_BITS) as usize;
        self.groups.get_mut(word / GROUP_WORDS)?.used.get_mut(word % GROUP_WORDS)
    }

    pub(crate) fn is_used(&self, superslab: u32) -> bool {
        self.used_word(superslab / WORD_BITS) & (1 << (superslab % WORD_BITS)) != 0
    }

    /// Whether `count` superslabs from `first` on are free, room or not.
    pub(crate) fn are_free(&self, first: u32, count: u32) -> bool {
        first.checked_add(count).is_some_and(|end| end <= self.superslab_count)
            && self.first_taken(first, first + count, Avoid::Used).is_none()
    }

    /// Marks `count` superslabs from `first` on as used. What was room before is so again when it is free.
    pub(crate) fn set_used(&mut self, first: u32, count: u32) {
        self.change(first, count, |used, _, bits| *used |= bits);
    }

    /// Marks `count` superslabs from `first` on as free.
    pub(crate) fn set_free(&mut self, first: u32, count: u32) {
        self.change(first, count, |used, _, bits| *used &= !bits);
    }

    /// Sets or clears the hint for the free superslabs among `count` from `first` on.
    pub(crate) fn set_room(&mut self, first: u32, count: u32, is_room: bool) {
        self.change(first, count, |used, room, bits| {
            *room = if is_room { *room & !bits | bits & !*used } else { *room & !bits };
        });
    }

    /// Calls `change` with each pair of words, used and room, and the bits in it that stand for the superslabs.
    fn change(&mut self, first: u32, count: u32, change: impl Fn(&mut u64, &mut u64, u64)) {
        let end = first.saturating_add(count).min(self.superslab_count);
        let mut position = first;
        while position < end {
            let (index, bit) = (position / WORD_BITS, position % WORD_BITS);
            let bits = (end - position).min(WORD_BITS - bit);
            let Some(group) = self.groups.get_mut(index as usize / GROUP_WORDS) else { return };
            let place = index as usize % GROUP_WORDS;
            let (Some(used), Some(room)) = (group.used.get_mut(place), group.room.get_mut(place)) else { return };
            change(used, room, (u64::MAX >> (WORD_BITS - bits)) << bit);
            self.summarise(index);
            position += bits;
        }
    }

    /// The lowest `count` contiguous superslabs with `(first + phase) % align == 0`.
    #[unsafe(link_section = ".text.hot.hakmem")]
    pub(crate) fn find(&mut self, count: u32, align: u32, phase: u32, avoid: Avoid) -> Option<u32> {
        if count == 0 || count > self.superslab_count || !align.is_power_of_two() {
            return None;
        }
        let mut position = if avoid == Avoid::UsedAndRoom { self.low_word * WORD_BITS } else { 0 };
        let mut saw_any = false;
        loop {
            let open = self.next_open(position, avoid)?;
            if !saw_any && avoid == Avoid::UsedAndRoom {
                self.low_word = open / WORD_BITS;
                saw_any = true;
            }
            let first = (open.checked_add(phase)?.checked_next_multiple_of(align)?).checked_sub(phase)?;
            let end = first.checked_add(count).filter(|&end| end <= self.superslab_count)?;
            match self.first_taken(first, end, avoid) {
                None => return Some(first),
                Some(taken) => position = taken + 1,
            }
        }
    }

    fn taken_word(&self, index: u32, avoid: Avoid) -> u64 {
        let used = self.used_word(index);
        if avoid == Avoid::UsedAndRoom { used | self.room_word(index) } else { used }
    }

    fn summarise(&mut self, index: u32) {
        let is_full = self.taken_word(index, Avoid::UsedAndRoom) == u64::MAX;
        let full = self.groups.get_mut(index as usize / GROUP_WORDS).map(|group| &mut group.full);
        set_bit(full, index, is_full);
        if !is_full {
            self.low_word = self.low_word.min(index);
        }
    }

    /// The first superslab at or after `from` that is not to be avoided.
    fn next_open(&self, from: u32, avoid: Avoid) -> Option<u32> {
        let words = self.superslab_count.div_ceil(WORD_BITS);
        let mut index = from / WORD_BITS;
        let mut before = (1_u64 << (from % WORD_BITS)) - 1;
        while index < words {
            let taken = self.taken_word(index, avoid) | before;
            if taken != u64::MAX {
                return Some(index * WORD_BITS + taken.trailing_ones());
            }
            before = 0;
            index = if avoid == Avoid::UsedAndRoom { self.next_word_not_full(index + 1, words) } else { index + 1 };
        }
        None
    }

    fn next_word_not_full(&self, from: u32, words: u32) -> u32 {
        let mut index = from;
        while index < words {
            let full = self.group_of(index).map_or(u64::MAX, |group| group.full) >> (index % WORD_BITS);
            if full.trailing_ones() < WORD_BITS - index % WORD_BITS {
                return index + full.trailing_ones();
            }
            index = (index / WORD_BITS + 1) * WORD_BITS;
        }
        words
    }

    /// The first superslab in `first..end` that is to be avoided.
    fn first_taken(&self, first: u32, end: u32, avoid: Avoid) -> Option<u32> {
        let mut position = first;
        while position < end {
            let taken = self.taken_word(position / WORD_BITS, avoid) >> (position % WORD_BITS);
            if taken != 0 {
                return Some(position + taken.trailing_zeros()).filter(|&found| found < end);
            }
            position = (position / WORD_BITS + 1) * WORD_BITS;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_search_skips_full_words_and_respects_the_end() {
        let mut map = FreeMap::reserve(5000).unwrap();
        map.set_used(0, 4700);
        assert_eq!(map.find(1, 1, 0, Avoid::UsedAndRoom), Some(4700));
        assert_eq!(map.find(300, 1, 0, Avoid::UsedAndRoom), Some(4700));
        assert_eq!(map.find(301, 1, 0, Avoid::UsedAndRoom), None);
        map.set_free(17, 1);
        assert_eq!(map.find(1, 1, 0, Avoid::UsedAndRoom), Some(17));
    }

    #[test]
    fn room_is_avoided_until_it_is_all_that_is_left() {
        let mut map = FreeMap::reserve(64).unwrap();
        map.set_room(0, 60, true);
        assert_eq!(map.find(2, 1, 0, Avoid::UsedAndRoom), Some(60));
        assert_eq!(map.find(8, 1, 0, Avoid::UsedAndRoom), None);
        assert_eq!(map.find(8, 1, 0, Avoid::Used), Some(0));
        map.set_room(0, 60, false);
        assert_eq!(map.find(8, 1, 0, Avoid::UsedAndRoom), Some(0));
    }

    #[derive(Clone, Debug)]
    enum Action {
        Use(u32, u32),
        Free(u32, u32),
        Room(u32, u32, bool),
        Find(u32, u32, u32, bool),
    }

    /// Two words and a bit, so that few actions fill a part of it.
    const COUNT: u32 = 140;

    fn lengths() -> impl Strategy<Value = u32> {
        prop_oneof![4 => Just(1), 1 => 0_u32..90]
    }

    fn actions() -> impl Strategy<Value = Vec<Action>> {
        let action = prop_oneof![
            6 => (0_u32..COUNT, lengths()).prop_map(|(first, count)| Action::Use(first, count)),
            5 => (0_u32..COUNT, lengths()).prop_map(|(first, count)| Action::Free(first, count)),
            2 => (0_u32..COUNT, 0_u32..90, any::<bool>()).prop_map(|(first, count, on)| Action::Room(first, count, on)),
            4 => (1_u32..9, 0_u32..5, 0_u32..32, any::<bool>()).prop_map(|(c, a, p, r)| Action::Find(c, 1 << a, p, r)),
        ];
        proptest::collection::vec(action, 1..400)
    }

    proptest! {
        #[test]
        fn searches_find_what_a_plain_search_finds(actions in actions()) {
            let mut map = FreeMap::reserve(COUNT).unwrap();
            let (mut used, mut room) = ([false; COUNT as usize], [false; COUNT as usize]);
            for action in actions {
                match action {
                    Action::Use(first, count) => {
                        map.set_used(first, count);
                        (first..(first + count).min(COUNT)).for_each(|at| used[at as usize] = true);
                    }
                    Action::Free(first, count) => {
                        map.set_free(first, count);
                        (first..(first + count).min(COUNT)).for_each(|at| used[at as usize] = false);
                    }
                    Action::Room(first, count, on) => {
                        map.set_room(first, count, on);
                        for at in first..(first + count).min(COUNT) {
                            room[at as usize] = on && !used[at as usize];
                        }
                    }
                    Action::Find(count, align, phase, avoid_room) => {
                        let avoid = if avoid_room { Avoid::UsedAndRoom } else { Avoid::Used };
                        let plain = (0..COUNT).find(|&first| {
                            (first + phase) % align == 0 && first + count <= COUNT && (first..first + count).all(|at| {
                                !(used[at as usize] || avoid_room && room[at as usize])
                            })
                        });
                        prop_assert_eq!(map.find(count, align, phase, avoid), plain);
                    }
                }
            }
        }
    }
}
