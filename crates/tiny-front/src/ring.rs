//! The tiny ring: the last events around the adoption boundary. Off by default; recorded on cold paths only.

use hakmem_atomic_ops::{Flag, Shared32, Shared64};
use hakmem_base::SlabIndex;

/// Events kept. A power of two.
const EVENTS: usize = 1024;

/// What happened to a slab.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum RingEvent {
    /// A chain of blocks was pushed to its remote queue.
    RemotePush = 1,
    /// Its remote queue was drained.
    RemoteDrain = 2,
    /// It was posted to its owner, or published.
    MailboxPublish = 3,
    /// It was fetched from a mailbox or from the published slabs.
    MailboxFetch = 4,
    /// It was bound to a new owner.
    Bind = 5,
}

impl RingEvent {
    /// The event's name as in the founding documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RemotePush => "REMOTE_PUSH",
            Self::RemoteDrain => "REMOTE_DRAIN",
            Self::MailboxPublish => "MAILBOX_PUBLISH",
            Self::MailboxFetch => "MAILBOX_FETCH",
            Self::Bind => "BIND",
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::RemotePush),
            2 => Some(Self::RemoteDrain),
            3 => Some(Self::MailboxPublish),
            4 => Some(Self::MailboxFetch),
            5 => Some(Self::Bind),
            _ => None,
        }
    }
}

/// A ring that any thread writes and a dump reads. Entries are single words, so a torn one cannot be seen; an entry that
/// is being overtaken by a full turn of the ring shows the newer event.
#[derive(Debug)]
pub struct Ring {
    on: Flag,
    next: Shared32,
    events: [Shared64; EVENTS],
}

impl Ring {
    /// An empty ring that is off.
    #[must_use]
    pub const fn new() -> Self {
        Self { on: Flag::new(false), next: Shared32::new(0), events: [const { Shared64::new(0) }; EVENTS] }
    }

    /// Starts or stops recording.
    pub fn switch(&self, on: bool) {
        // ORDERING: nothing travels with the switch; release only because flags have no relaxed store.
        self.on.store_release(on);
    }

    /// Records an event of `slab` that concerned `count` blocks, if the ring is on.
    #[inline]
    pub fn record(&self, event: RingEvent, slab: SlabIndex, count: u32) {
        if self.on.is_set_relaxed() {
            self.record_slow(event, slab, count);
        }
    }

    #[cold]
    fn record_slow(&self, event: RingEvent, slab: SlabIndex, count: u32) {
        let position = self.next.add_relaxed(1);
        let word = (u64::from(event as u8) << 56) | (u64::from(count & 0xff_ffff) << 32) | u64::from(slab.get());
        if let Some(entry) = self.events.get(position as usize % EVENTS) {
            entry.store_relaxed(word);
        }
    }

    /// Calls `visit(event, slab, count)` for every entry, oldest first.
    pub fn for_each(&self, mut visit: impl FnMut(RingEvent, SlabIndex, u32)) {
        let next = self.next.load_relaxed() as usize;
        for position in next..next + EVENTS {
            let word = self.events.get(position % EVENTS).map_or(0, Shared64::load_relaxed);
            if let Some(event) = RingEvent::from_code((word >> 56) as u8) {
                visit(event, SlabIndex::new(word as u32), (word >> 32) as u32 & 0xff_ffff);
            }
        }
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_events_in_order() {
        let ring = Ring::new();
        ring.record(RingEvent::Bind, SlabIndex::new(1), 1);
        ring.switch(true);
        for slab in 0..EVENTS as u32 + 5 {
            ring.record(RingEvent::RemotePush, SlabIndex::new(slab), slab);
        }
        let mut seen = Vec::new();
        ring.for_each(|event, slab, count| seen.push((event, slab.get(), count)));
        assert_eq!(seen.len(), EVENTS);
        assert_eq!(seen.first(), Some(&(RingEvent::RemotePush, 5, 5)));
        assert_eq!(seen.last(), Some(&(RingEvent::RemotePush, EVENTS as u32 + 4, EVENTS as u32 + 4)));
    }
}
