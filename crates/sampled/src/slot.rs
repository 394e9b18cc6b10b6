//! The description of one slot: out of reach of its block, and readable by a report at any moment.

use hakmem_atomic_ops::{Shared32, Shared64, SharedUsize};
use static_assertions::const_assert_eq;

use crate::stamp::Stamp;
use crate::trace::{FRAMES, Trace};

/// What a slot is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Without a block so far.
    Fresh,
    /// Being handed out or taken back by one call.
    Busy,
    /// A block in use.
    Live,
    /// A freed block, without access.
    Freed,
}

impl State {
    fn from_bits(bits: u32) -> Self {
        match bits {
            0 => Self::Fresh,
            1 => Self::Busy,
            2 => Self::Live,
            _ => Self::Freed,
        }
    }
}

/// One slot. All zero is a fresh one.
///
/// The fields but `state` are relaxed: whoever moved the state to "busy" writes them, and moving it on publishes them. A report
/// may read them while the slot is handed out again; then it shows a mixture, and says so by the state it finds.
#[derive(Debug)]
pub(crate) struct Slot {
    state: Shared32,
    /// The next one in the queue of resting slots, as index + 1. Under the queue's lock.
    pub(crate) next: Shared32,
    /// The unit that it lies in.
    pub(crate) unit: Shared32,
    /// The block's address.
    pub(crate) block: SharedUsize,
    /// Its bytes.
    pub(crate) bytes: SharedUsize,
    /// The door it left through.
    pub(crate) door: Shared32,
    /// Offset of its pages in the unit, and how many bytes of pages.
    pub(crate) pages: SharedUsize,
    pub(crate) page_bytes: SharedUsize,
    pub(crate) allocated: SharedStamp,
    pub(crate) freed: SharedStamp,
}

// docs/sampling.md says how much memory slots take.
const_assert_eq!(size_of::<Slot>(), 400);

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

    /// Makes the slot busy if it is `expected`. True for one caller.
    #[must_use]
    pub(crate) fn try_claim(&self, expected: State) -> bool {
        // ORDERING: pairs with `publish`: the winner sees the whole description.
        self.state.cas_acq_rel(expected as u32, State::Busy as u32).is_ok()
    }
}

/// A [`Stamp`] in words that threads share.
#[derive(Debug)]
pub(crate) struct SharedStamp {
    thread: Shared32,
    len: Shared32,
    at_ms: Shared64,
    frames: [SharedUsize; FRAMES],
}

impl SharedStamp {
    pub(crate) fn write(&self, stamp: &Stamp) {
        self.thread.store_relaxed(stamp.thread);
        self.at_ms.store_relaxed(stamp.at_ms);
        let frames = stamp.trace.frames();
        self.len.store_relaxed(frames.len() as u32);
        for (slot, &frame) in self.frames.iter().zip(frames) {
            slot.store_relaxed(frame);
        }
    }

    pub(crate) fn read(&self) -> Stamp {
        let frames = self.frames.iter().take(self.len.load_relaxed() as usize).map(SharedUsize::load_relaxed);
        Stamp { thread: self.thread.load_relaxed(), at_ms: self.at_ms.load_relaxed(), trace: frames.collect::<Trace>() }
    }
}

#[cfg(test)]
pub(crate) fn new_slot() -> Slot {
    Slot {
        state: Shared32::new(0),
        next: Shared32::new(0),
        unit: Shared32::new(0),
        block: SharedUsize::new(0),
        bytes: SharedUsize::new(0),
        door: Shared32::new(0),
        pages: SharedUsize::new(0),
        page_bytes: SharedUsize::new(0),
        allocated: new_stamp(),
        freed: new_stamp(),
    }
}

#[cfg(test)]
fn new_stamp() -> SharedStamp {
    SharedStamp {
        thread: Shared32::new(0),
        len: Shared32::new(0),
        at_ms: Shared64::new(0),
        frames: [const { SharedUsize::new(0) }; FRAMES],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_back_as_it_was_written_even_over_a_longer_one() {
        let slot = new_slot();
        for len in [FRAMES, 3, 0] {
            let stamp = Stamp { thread: 7, at_ms: 1 << 40, trace: (1..=len).collect() };
            slot.freed.write(&stamp);
            assert_eq!(slot.freed.read(), stamp);
        }
    }

    #[test]
    fn of_many_claims_one_wins() {
        for _ in 0..100 {
            let slot = new_slot();
            slot.publish(State::Live);
            let winners = std::thread::scope(|scope| {
                let tries: Vec<_> = (0..4).map(|_| scope.spawn(|| slot.try_claim(State::Live))).collect();
                tries.into_iter().filter(|_| true).map(|thread| usize::from(thread.join().unwrap())).sum::<usize>()
            });
            assert_eq!((winners, slot.state()), (1, State::Busy));
        }
    }
}
