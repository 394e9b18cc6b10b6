//! The description of one watched block, out of its reach.

use hakmem_atomic_ops::{Shared32, Shared64, SharedUsize};
use hakmem_base::SITE_FRAMES;
use static_assertions::const_assert_eq;

use crate::life::Birth;

/// What a slot is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Never used.
    Fresh,
    /// Being handed out or taken back by one call.
    Busy,
    /// A block in use.
    Live,
    /// Freed.
    Free,
}

impl State {
    fn from_bits(bits: u32) -> Self {
        match bits {
            0 => Self::Fresh,
            1 => Self::Busy,
            2 => Self::Live,
            _ => Self::Free,
        }
    }
}

/// One slot. All zero is a fresh one.
///
/// The fields but `state` are relaxed: whoever moved the state to "busy" writes them, and moving it on publishes them.
#[derive(Debug)]
pub(crate) struct Slot {
    state: Shared32,
    /// The next free one of its group, as index + 1. Under the pool's lock.
    pub(crate) next: Shared32,
    /// The unit that its place is in, and the place's number there. Written once; of a block that has its place elsewhere, the unit where
    /// it begins, and [`Birth::probe`].
    pub(crate) unit: Shared32,
    pub(crate) place: Shared32,
    /// Index of the block's size class; of a block that has its place elsewhere 64 KiB units, 0 for a big one.
    pub(crate) class: Shared32,
    /// Of such a block: bytes that may be used, and what a big one has noted in the bits that whole OS pages leave; else 0.
    pub(crate) elsewhere_bytes: SharedUsize,
    weight: Shared32,
    bytes: SharedUsize,
    at_ns: Shared64,
    heap: SharedUsize,
    allocs: Shared64,
    frames: [SharedUsize; SITE_FRAMES],
}

// docs/learning.md says how much memory watched blocks take.
const_assert_eq!(size_of::<Slot>(), 128);

// SAFETY: atomic numbers only, of which zero is a value, and nothing is dropped.
unsafe impl hakmem_base::ZeroValid for Slot {}

impl Slot {
    pub(crate) fn state(&self) -> State {
        // ORDERING: pairs with `publish`: the description travels.
        State::from_bits(self.state.load_acquire())
    }

    /// From "busy", by the call that made it so.
    pub(crate) fn publish(&self, state: State) {
        // ORDERING: pairs with `state` and `try_claim`: the description travels.
        self.state.store_release(state as u32);
    }

    /// Makes the slot busy if a block in use is in it. True for one caller.
    #[must_use]
    pub(crate) fn try_claim(&self) -> bool {
        // ORDERING: pairs with `publish`: the winner sees the whole description.
        self.state.cas_acq_rel(State::Live as u32, State::Busy as u32).is_ok()
    }

    pub(crate) fn write(&self, birth: &Birth) {
        self.bytes.store_relaxed(birth.bytes);
        self.weight.store_relaxed(birth.weight);
        self.at_ns.store_relaxed(birth.at_ns);
        self.heap.store_relaxed(birth.heap);
        self.allocs.store_relaxed(birth.allocs);
        for (slot, &frame) in self.frames.iter().zip(&birth.frames) {
            slot.store_relaxed(frame);
        }
    }

    pub(crate) fn read(&self) -> Birth {
        let mut birth = Birth {
            bytes: self.bytes.load_relaxed(),
            weight: self.weight.load_relaxed(),
            at_ns: self.at_ns.load_relaxed(),
            heap: self.heap.load_relaxed(),
            allocs: self.allocs.load_relaxed(),
            ..Birth::default()
        };
        for (frame, slot) in birth.frames.iter_mut().zip(&self.frames) {
            *frame = slot.load_relaxed();
        }
        birth
    }
}
