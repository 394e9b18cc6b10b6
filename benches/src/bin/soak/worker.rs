//! One allocating thread of the soak.
//!
//! **Invariants.** The vectors never grow, so that a step allocates blocks and nothing else, and can be refused any of them.

use std::thread;
use std::time::Duration;

use hakmem_testkit::{Filled, Random};

use crate::children;
use crate::facts;
use crate::shared::{Phase, Shared};
use crate::sizes;

/// Blocks that are soon replaced.
const SHORT_SLOTS: usize = 400;
/// Blocks that live for most of a cycle, and make up its bulk.
const LONG_SLOTS: usize = 12_000;
/// Blocks that outlive cycles, so that no slab around them is ever entirely free.
const PINNED_SLOTS: usize = 400;
/// Blocks that are reallocated over and over.
const CHAIN_SLOTS: usize = 24;
/// Steps between two looks at the phase.
const STEPS: usize = 64;
/// One chance in this many is used to replace a pinned block.
const PINNED_ONE_IN: usize = 3;

type Slots = Vec<Option<Filled>>;

/// The blocks of one thread.
pub struct Worker<'a> {
    pub shared: &'a Shared,
    pub random: Random,
    pub short: Slots,
    pub long: Slots,
    pub pinned: Slots,
    chains: Slots,
}

impl<'a> Worker<'a> {
    /// Without blocks.
    pub fn new(shared: &'a Shared, seed: u64, number: u64) -> Self {
        let slots = |count| (0..count).map(|_| None).collect();
        Self {
            shared,
            random: Random::new(seed.wrapping_mul(1000).wrapping_add(number)),
            short: slots(SHORT_SLOTS),
            long: slots(LONG_SLOTS),
            pinned: slots(PINNED_SLOTS),
            chains: slots(CHAIN_SLOTS),
        }
    }

    /// Until the stop phase.
    pub fn run(&mut self) {
        loop {
            match self.shared.phase() {
                Phase::Stop => break,
                Phase::Floor => self.rest(),
                Phase::Relief => self.free_some(STEPS),
                phase => {
                    (0..STEPS).for_each(|_| self.step(phase));
                    if take_ticket(self.shared) {
                        children::fork_and_wait(self);
                    }
                }
            }
        }
        self.release_passing();
        release_all(self.shared, &mut self.pinned);
    }

    fn step(&mut self, phase: Phase) {
        if phase != Phase::Pressure && self.shared.is_over_target() {
            return self.free_some(2);
        }
        match self.random.below(100) {
            0..20 => self.replace_short(),
            20..40 if phase != Phase::HandOver => self.replace_long(),
            40..46 if phase != Phase::HandOver => self.go_on_with_a_chain(),
            46..50 => self.pair(),
            50..52 => self.replace_pinned(),
            52..90 if phase == Phase::Grow => self.replace_long(),
            52..60 if phase != Phase::HandOver => self.free_some(1),
            _ => self.hand_over(),
        }
    }

    fn fresh(&mut self, bytes: usize) -> Option<Filled> {
        let (align, stamp) = (sizes::alignment(&mut self.random), self.random.next());
        self.shared.allocate(bytes, align, stamp, self.random.below(8) == 0)
    }

    fn replace_short(&mut self) {
        let bytes = sizes::any(&mut self.random);
        let slot = self.random.below(SHORT_SLOTS);
        // Freed first or last: both orders are common.
        if self.random.below(2) == 0 {
            release(self.shared, &mut self.short[slot]);
        }
        let block = self.fresh(bytes);
        release(self.shared, &mut self.short[slot]);
        self.short[slot] = block;
    }

    fn replace_long(&mut self) {
        let bytes = sizes::any(&mut self.random);
        let slot = self.random.below(LONG_SLOTS);
        let block = self.fresh(bytes);
        release(self.shared, &mut self.long[slot]);
        self.long[slot] = block;
    }

    fn replace_pinned(&mut self) {
        if self.random.below(PINNED_ONE_IN) != 0 {
            return;
        }
        let bytes = sizes::small(&mut self.random);
        let slot = self.random.below(PINNED_SLOTS);
        let block = self.fresh(bytes);
        release(self.shared, &mut self.pinned[slot]);
        self.pinned[slot] = block;
    }

    fn go_on_with_a_chain(&mut self) {
        let slot = self.random.below(CHAIN_SLOTS);
        self.chains[slot] = match self.chains[slot].take() {
            None => self.fresh(16),
            Some(block) => {
                let bytes = sizes::for_realloc(&mut self.random, block.len());
                Some(self.shared.resize(block, bytes))
            }
        };
    }

    /// Allocated and freed at once.
    fn pair(&mut self) {
        let bytes = sizes::any(&mut self.random);
        if let Some(block) = self.fresh(bytes) {
            self.shared.release(block);
        }
    }

    /// A block goes to a shelf; what stood in its place was allocated by some thread and is freed here.
    fn hand_over(&mut self) {
        let bytes = sizes::any(&mut self.random);
        let mine = self.fresh(bytes);
        if let Some(theirs) = self.shared.exchange(&mut self.random, mine) {
            self.shared.release(theirs);
        }
    }

    fn free_some(&mut self, count: usize) {
        for _ in 0..count {
            let slot = self.random.below(LONG_SLOTS);
            release(self.shared, &mut self.long[slot]);
            let slot = self.random.below(SHORT_SLOTS);
            release(self.shared, &mut self.short[slot]);
            let slot = self.random.below(CHAIN_SLOTS * 8);
            if let Some(place) = self.chains.get_mut(slot) {
                release(self.shared, place);
            }
        }
        if let Some(theirs) = self.shared.exchange(&mut self.random, None) {
            self.shared.release(theirs);
        }
    }

    /// Frees all but the pinned blocks and waits for the next phase. A block that stays pinned keeps its slab.
    fn rest(&mut self) {
        self.release_passing();
        facts::collect();
        self.shared.resting.add_relaxed(1);
        while self.shared.phase() == Phase::Floor {
            thread::sleep(Duration::from_millis(2));
        }
        self.shared.resting.sub_relaxed(1);
    }

    fn release_passing(&mut self) {
        for slots in [&mut self.short, &mut self.long, &mut self.chains] {
            release_all(self.shared, slots);
        }
    }
}

fn release(shared: &Shared, slot: &mut Option<Filled>) {
    if let Some(block) = slot.take() {
        shared.release(block);
    }
}

fn release_all(shared: &Shared, slots: &mut [Option<Filled>]) {
    slots.iter_mut().for_each(|slot| release(shared, slot));
}

fn take_ticket(shared: &Shared) -> bool {
    let tickets = shared.fork_tickets.load_relaxed();
    tickets > 0 && shared.fork_tickets.cas_acq_rel(tickets, tickets - 1).is_ok()
}
