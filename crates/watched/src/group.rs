//! Which places a unit is cut into: powers of two, so that a dozen units serve all size classes.

use hakmem_base::{MAX_SLAB_BLOCK_BYTES, SLAB_BYTES, SizeClass};
use static_assertions::const_assert;

/// log2 of the smallest place.
const LEAST_SHIFT: u32 = 4;
/// Groups of places: 16 bytes to 32 KiB, and the blocks that have places elsewhere.
pub(crate) const GROUPS: usize = (MAX_SLAB_BLOCK_BYTES.next_power_of_two().trailing_zeros() - LEAST_SHIFT + 2) as usize;
/// Slots for the latter that are taken at a time.
const ELSEWHERE: u32 = 64;
/// Most places of a unit: more would be memory that is never needed.
const MOST_PLACES: usize = 256;
/// Most units of a group: what is never given back is bounded, whoever asks for however many watched blocks.
const MOST_UNITS: u32 = 16;
const GROUP_BITS: u32 = 4;

const_assert!(GROUPS <= 1 << GROUP_BITS);

/// One size of places.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Group(u32);

impl Group {
    /// Blocks that are watched where they are: runs and big blocks.
    pub(crate) const ELSEWHERE: Self = Self(GROUPS as u32 - 1);

    /// The one whose places hold a block of this class, as aligned as the class has it.
    pub(crate) fn of(class: SizeClass) -> Self {
        Self(class.block_bytes().next_power_of_two().trailing_zeros().max(LEAST_SHIFT) - LEAST_SHIFT)
    }

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }

    /// Bytes of a place.
    pub(crate) fn place_bytes(self) -> usize {
        1 << (self.0 + LEAST_SHIFT)
    }

    /// Places of a unit, or slots that are taken at a time.
    pub(crate) fn places(self) -> u32 {
        if self == Self::ELSEWHERE {
            return ELSEWHERE;
        }
        (SLAB_BYTES / self.place_bytes()).min(MOST_PLACES) as u32
    }

    /// Places of all its units together.
    pub(crate) fn most_places(self) -> u32 {
        self.places() * MOST_UNITS
    }

    /// What the route word of a unit says whose first slot this is.
    pub(crate) fn note(self, first_slot: u32) -> usize {
        (first_slot as usize) << GROUP_BITS | self.index()
    }

    /// Group and first slot of a unit, by its route word.
    pub(crate) fn from_note(note: usize) -> (Self, usize) {
        (Self(note as u32 & ((1 << GROUP_BITS) - 1)), note >> GROUP_BITS)
    }

    /// Number in its unit of the place that begins at `address`; none if no place does.
    pub(crate) fn place_at(self, address: usize) -> Option<usize> {
        let offset = address & (SLAB_BYTES - 1);
        let place = offset / self.place_bytes();
        (offset.is_multiple_of(self.place_bytes()) && place < self.places() as usize).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_holds_its_class_and_is_as_aligned() {
        for class in SizeClass::all() {
            let group = Group::of(class);
            assert!(group.place_bytes() >= class.block_bytes() && group.index() < GROUPS);
            let alignment = 1 << class.block_bytes().trailing_zeros();
            assert_eq!(group.place_bytes() % alignment, 0);
            assert!(group.places() as usize * group.place_bytes() <= SLAB_BYTES);
        }
    }

    #[test]
    fn a_note_tells_who_has_a_place_elsewhere() {
        let note = Group::ELSEWHERE.note(7);
        assert_eq!(Group::from_note(note), (Group::ELSEWHERE, 7));
        assert!(SizeClass::all().all(|class| Group::of(class) != Group::ELSEWHERE));
    }

    #[test]
    fn all_groups_together_have_room_for_their_slots() {
        let groups = (0..GROUPS as u32).map(Group);
        assert!(groups.map(Group::most_places).sum::<u32>() <= 1 << 15);
    }

    #[test]
    fn notes_and_addresses_lead_back() {
        for class in SizeClass::all() {
            let group = Group::of(class);
            assert_eq!(Group::from_note(group.note(1234)), (group, 1234));
            let last = group.places() as usize - 1;
            let address = SLAB_BYTES * 7 + last * group.place_bytes();
            assert_eq!((group.place_at(address), group.place_at(address + 8)), (Some(last), None));
        }
        assert_eq!(Group::of(SizeClass::for_tiny(16)).place_at(MOST_PLACES * 16), None);
    }
}
