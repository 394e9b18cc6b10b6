//! What the threads of the soak share: the phase, the budget, the shelves through which blocks change hands, the counters.
//!
//! **Invariants.** `live` is the sum of the lengths of all blocks in this process that hold a pattern.
//! **Access.** All words: any thread, relaxed; nothing travels with them. What blocks hold travels with the shelves' locks.

use std::sync::Mutex;

use hakmem_atomic_ops::{Shared32, Shared64};
use hakmem_testkit::{Damage, Filled, Random};

/// Bytes that blocks of one process may hold.
pub const LIVE_CAP_BYTES: u64 = 900 << 20;
/// Places on each shelf.
const SHELF_SLOTS: usize = 256;
/// Shelves, each behind its own lock, so that the locks are seldom contended.
const SHELVES: usize = 8;

/// What the workers are to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Phase {
    /// All patterns around a middling amount of memory.
    Mix,
    /// All patterns, to hundreds of MiB.
    Grow,
    /// Most blocks are freed by another thread than allocated them.
    HandOver,
    /// Memory is limited: take until there is none.
    Pressure,
    /// Free only, so that whoever lifts the limit has memory to do it with.
    Relief,
    /// All patterns with little memory and many short threads.
    Churn,
    /// Free all but the long-lived blocks, and wait.
    Floor,
    /// End.
    Stop,
}

impl Phase {
    const ALL: [Self; 8] =
        [Self::Mix, Self::Grow, Self::HandOver, Self::Pressure, Self::Relief, Self::Churn, Self::Floor, Self::Stop];

    /// Its name in the samples.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mix => "mix",
            Self::Grow => "grow",
            Self::HandOver => "hand-over",
            Self::Pressure => "pressure",
            Self::Relief => "relief",
            Self::Churn => "churn",
            Self::Floor => "floor",
            Self::Stop => "stop",
        }
    }
}

/// One shelf.
type Shelf = Mutex<Vec<Option<Filled>>>;

/// Everything that the threads share.
pub struct Shared {
    /// Threads that allocate.
    pub worker_count: u64,
    phase: Shared32,
    /// Bytes around which the workers keep the blocks in use.
    target: Shared64,
    /// Lengths of all blocks in use.
    pub live: Shared64,
    /// Not 0: memory is limited and may be refused.
    limited: Shared32,
    /// Workers that wait in the floor phase.
    pub resting: Shared64,
    /// Children that workers may start.
    pub fork_tickets: Shared64,
    shelves: Vec<Shelf>,
    /// Held by whoever allocates with no way to hear "no": std's threads and processes. Whoever limits memory holds it meanwhile.
    pub infallible: Mutex<()>,
    /// Allocations, frees and reallocations.
    pub operations: Shared64,
    /// Allocations that were refused while memory was limited.
    pub refusals: Shared64,
    /// Children that ended well.
    pub forks: Shared64,
    /// Threads that the churner started.
    pub threads: Shared64,
    /// Policies published.
    pub switches: Shared64,
    /// Calls of `collect`.
    pub collections: Shared64,
    /// Programs that ran out of address space and ended well.
    pub confined: Shared64,
    /// Rounds of all phases.
    pub cycles: Shared64,
    /// Bytes lost on purpose.
    pub leaked: Shared64,
}

impl Shared {
    /// Empty shelves.
    pub fn new(worker_count: u64) -> Self {
        let shelf = || Mutex::new((0..SHELF_SLOTS).map(|_| None).collect());
        Self {
            worker_count,
            phase: Shared32::new(Phase::Mix as u32),
            target: Shared64::new(0),
            live: Shared64::new(0),
            limited: Shared32::new(0),
            resting: Shared64::new(0),
            fork_tickets: Shared64::new(0),
            shelves: (0..SHELVES).map(|_| shelf()).collect(),
            infallible: Mutex::new(()),
            operations: Shared64::new(0),
            refusals: Shared64::new(0),
            forks: Shared64::new(0),
            threads: Shared64::new(0),
            switches: Shared64::new(0),
            collections: Shared64::new(0),
            confined: Shared64::new(0),
            cycles: Shared64::new(0),
            leaked: Shared64::new(0),
        }
    }

    /// The phase.
    pub fn phase(&self) -> Phase {
        Phase::ALL[self.phase.load_relaxed() as usize]
    }

    /// Tells the workers what to do and around how much memory.
    pub fn enter(&self, phase: Phase, target_bytes: u64) {
        self.target.store_relaxed(target_bytes.min(LIVE_CAP_BYTES));
        self.phase.store_relaxed(phase as u32);
    }

    /// Whether the blocks hold more than the phase wants.
    pub fn is_over_target(&self) -> bool {
        self.live.load_relaxed() > self.target.load_relaxed()
    }

    /// From here on memory may be refused, or no more. Said before it is limited and after the limit is lifted.
    pub fn set_limited(&self, limited: bool) {
        self.limited.store_relaxed(u32::from(limited));
    }

    /// Whether memory may be refused.
    pub fn is_limited(&self) -> bool {
        self.limited.load_relaxed() != 0
    }

    /// A block full of its pattern; `None` if memory is refused, which is a finding unless it is limited.
    pub fn allocate(&self, bytes: usize, align: usize, stamp: u64, zeroed: bool) -> Option<Filled> {
        if self.live.load_relaxed() + bytes as u64 > LIVE_CAP_BYTES {
            return None;
        }
        let limited_before = self.is_limited();
        let block = if zeroed { sound(Filled::zeroed(bytes, align, stamp)) } else { Filled::new(bytes, align, stamp) };
        self.operations.add_relaxed(1);
        match &block {
            Some(block) => {
                self.live.add_relaxed(block.len() as u64);
            }
            None => self.refused(limited_before, bytes),
        }
        block
    }

    /// Checks every byte and frees.
    pub fn release(&self, block: Filled) {
        self.live.sub_relaxed(block.len() as u64);
        self.operations.add_relaxed(1);
        sound(block.release());
    }

    /// Checks every byte, reallocates, checks what had to be kept.
    pub fn resize(&self, block: Filled, bytes: usize) -> Filled {
        let old_bytes = block.len() as u64;
        if self.live.load_relaxed() + bytes as u64 > LIVE_CAP_BYTES + old_bytes {
            return block;
        }
        let limited_before = self.is_limited();
        let block = sound(block.resize(bytes));
        self.operations.add_relaxed(1);
        self.live.add_relaxed(block.len() as u64);
        self.live.sub_relaxed(old_bytes);
        if block.len() != bytes {
            self.refused(limited_before, bytes);
        }
        block
    }

    fn refused(&self, limited_before: bool, bytes: usize) {
        if !limited_before && !self.is_limited() {
            fail(&format!("{bytes} bytes were refused though memory was not limited"));
        }
        self.refusals.add_relaxed(1);
    }

    /// Puts `block` somewhere on a shelf and takes away what was there. `None` for `block` only takes.
    pub fn exchange(&self, random: &mut Random, block: Option<Filled>) -> Option<Filled> {
        let shelf = &self.shelves[random.below(SHELVES)];
        let mut slots = shelf.lock().unwrap_or_else(|_| fail("a thread panicked with a shelf in its hands"));
        let slot = random.below(SHELF_SLOTS);
        std::mem::replace(&mut slots[slot], block)
    }

    /// Takes a block unless the shelf is locked: for a child of a fork, where whoever held the lock does not exist.
    pub fn try_take(&self, random: &mut Random) -> Option<Filled> {
        let mut slots = self.shelves[random.below(SHELVES)].try_lock().ok()?;
        slots[random.below(SHELF_SLOTS)].take()
    }

    /// Frees what is on the shelves.
    pub fn release_shelves(&self) {
        for shelf in &self.shelves {
            let mut slots = shelf.lock().unwrap_or_else(|_| fail("a thread panicked with a shelf in its hands"));
            slots.iter_mut().filter_map(Option::take).for_each(|block| self.release(block));
        }
    }

    /// What was done, in one line.
    pub fn counts(&self) -> String {
        self.all_counts().map(|(what, count)| format!("{count} {what}")).join(", ")
    }

    /// The first kind of event that a run of this program must have and this one had not.
    pub fn what_never_happened(&self) -> Option<&'static str> {
        self.all_counts().into_iter().find(|&(_, count)| count == 0).map(|(what, _)| what)
    }

    fn all_counts(&self) -> [(&'static str, u64); 8] {
        [
            ("operations", self.operations.load_relaxed()),
            ("cycles", self.cycles.load_relaxed()),
            ("policy switches", self.switches.load_relaxed()),
            ("collections", self.collections.load_relaxed()),
            ("threads", self.threads.load_relaxed()),
            ("forks", self.forks.load_relaxed()),
            ("refusals", self.refusals.load_relaxed()),
            ("confined programs", self.confined.load_relaxed()),
        ]
    }
}

/// What an operation on a block gave; damage ends the process.
pub fn sound<T>(outcome: Result<T, Damage>) -> T {
    outcome.unwrap_or_else(|damage| fail(&damage))
}

/// Says what is wrong and ends this process with status 1. Usable in a child of a fork: no lock of std is taken.
#[cold]
pub fn fail(finding: &str) -> ! {
    let line = format!("soak: {finding}\n");
    // SAFETY: the text is live for the call. Nothing is left to do about an error.
    unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
    // SAFETY: ends the process; handlers of exit could wait for a lock that this process inherited.
    unsafe { libc::_exit(1) }
}
