//! What is known of one slot of a slab, in one word outside of it.

use hakmem_base::{Door, MAX_SLAB_BLOCK_BYTES, OS_PAGE_BYTES};

/// Where a slot is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum State {
    /// Never handed out since its slab was made. Reads as zero.
    Fresh,
    /// In a user's hands.
    InUse,
    /// Freed, and not to be reused yet. Reads as zero.
    Quarantined,
    /// May be handed out again. Reads as zero.
    Free,
}

/// What is known of a block: what was asked for, and through which door.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    pub state: State,
    pub bytes: usize,
    pub align: usize,
    pub door: Door,
}

const STATE_SHIFT: u32 = 16;
const DOOR_SHIFT: u32 = 18;
const ALIGN_SHIFT: u32 = 20;
const _: () = assert!(MAX_SLAB_BLOCK_BYTES < 1 << STATE_SHIFT);
const _: () = assert!(OS_PAGE_BYTES.trailing_zeros() < 16);

impl Slot {
    pub(crate) fn pack(self) -> u32 {
        self.bytes as u32
            | (self.state as u32) << STATE_SHIFT
            | (self.door as u32) << DOOR_SHIFT
            | self.align.trailing_zeros() << ALIGN_SHIFT
    }

    pub(crate) fn unpack(word: u32) -> Self {
        let state = match (word >> STATE_SHIFT) & 3 {
            0 => State::Fresh,
            1 => State::InUse,
            2 => State::Quarantined,
            _ => State::Free,
        };
        Self {
            state,
            bytes: (word & 0xffff) as usize,
            align: 1 << ((word >> ALIGN_SHIFT) & 0xf),
            door: Door::from_low_bits((word >> DOOR_SHIFT) as u8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_survives_the_packing_and_zero_is_a_fresh_one() {
        for state in [State::Fresh, State::InUse, State::Quarantined, State::Free] {
            for door in [Door::Rust, Door::Malloc, Door::New, Door::NewArray] {
                for (bytes, align) in [(0, 1), (1, 8), (MAX_SLAB_BLOCK_BYTES, OS_PAGE_BYTES)] {
                    let slot = Slot { state, bytes, align, door };
                    assert_eq!(Slot::unpack(slot.pack()), slot);
                }
            }
        }
        assert_eq!(Slot::unpack(0).state, State::Fresh);
    }
}
