//! What a call brings along: the box below, the route words, the numbers of the present policy; and a request in superslabs.

use hakmem_atomic_ops::{Flag, Shared32, SharedUsize};
use hakmem_base::{OS_PAGE_BYTES, SLABS_PER_SUPERSLAB_SHIFT, SUPERSLAB_BYTES, SUPERSLAB_SHIFT, SlabIndex};
use hakmem_ownership::RouteWord;
use hakmem_superslab_os::{FlatTable, SuperslabOs};

/// How much freed memory is kept, for how long, and how big blocks are backed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BigPolicy {
    /// Freed bytes that may be kept; an eighth of the bytes in use, if that is more.
    pub retain_bytes: usize,
    /// How long a freed block is kept (milliseconds). 0: its superslabs return to the pool at once, which purges them after its own
    /// delay. Measured (docs/decisions/0013): what is kept whole helps only a block of its size, while the rest of the program grows
    /// beside it; in the pool neighbours join, and whoever needs memory next takes it.
    pub retain_ms: u32,
    /// A kept extent serves a request if it has at most this many thousandths more superslabs than needed; what is too
    /// much is cut off and goes back to the OS box with its contents, so slack is no waste. Measured with random sizes of
    /// 3 to 32 MiB: 1000 instead of 125 takes 0.4 to 0.95 of the time at 1.0 to 1.3 times the peak; 3000 adds peak only.
    pub slack_permille: u32,
    /// Blocks of at least this many bytes get huge pages.
    pub thp_bytes: usize,
    /// Address space left free behind a block that grew by moving, in thousandths of its size.
    pub room_permille: u32,
    /// Whether a block may be mapped outside the window when the window has no place for it. False where a limit of the
    /// heap's size counts the window only.
    pub outside: bool,
    /// Blocks of more bytes than this are mapped outside, where the kernel judges whether it can ever back them: the
    /// window is reserved without that check.
    pub window_max_bytes: usize,
}

impl BigPolicy {
    /// Of a record that has not been told one yet: all zero.
    pub const UNSET: Self = Self {
        retain_bytes: 0,
        retain_ms: 0,
        slack_permille: 0,
        thp_bytes: 0,
        room_permille: 0,
        outside: false,
        window_max_bytes: 0,
    };

    /// The numbers used when nobody says otherwise.
    pub const DEFAULT: Self = Self {
        retain_bytes: 64 << 20,
        retain_ms: 0,
        slack_permille: 500,
        thp_bytes: 4 << 20,
        room_permille: 1000,
        outside: true,
        window_max_bytes: usize::MAX,
    };
}

impl Default for BigPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The numbers in force, for whoever holds no copy of them. Each is right by itself; a reader may see some of a newer policy.
#[derive(Debug)]
pub struct SharedBigPolicy {
    retain_bytes: SharedUsize,
    retain_ms: Shared32,
    slack_permille: Shared32,
    thp_bytes: SharedUsize,
    room_permille: Shared32,
    outside: Flag,
    window_max_bytes: SharedUsize,
}

impl SharedBigPolicy {
    /// Begins with these numbers.
    #[must_use]
    pub const fn new(policy: &BigPolicy) -> Self {
        Self {
            retain_bytes: SharedUsize::new(policy.retain_bytes),
            retain_ms: Shared32::new(policy.retain_ms),
            slack_permille: Shared32::new(policy.slack_permille),
            thp_bytes: SharedUsize::new(policy.thp_bytes),
            room_permille: Shared32::new(policy.room_permille),
            outside: Flag::new(policy.outside),
            window_max_bytes: SharedUsize::new(policy.window_max_bytes),
        }
    }

    /// Puts other numbers in force. Called by one thread at a time.
    pub fn store(&self, policy: &BigPolicy) {
        self.retain_bytes.store_relaxed(policy.retain_bytes);
        self.retain_ms.store_relaxed(policy.retain_ms);
        self.slack_permille.store_relaxed(policy.slack_permille);
        self.thp_bytes.store_relaxed(policy.thp_bytes);
        self.room_permille.store_relaxed(policy.room_permille);
        // ORDERING: nothing travels; flags have no relaxed store.
        self.outside.store_release(policy.outside);
        self.window_max_bytes.store_relaxed(policy.window_max_bytes);
    }

    /// The numbers at present.
    #[must_use]
    pub fn load(&self) -> BigPolicy {
        BigPolicy {
            retain_bytes: self.retain_bytes.load_relaxed(),
            retain_ms: self.retain_ms.load_relaxed(),
            slack_permille: self.slack_permille.load_relaxed(),
            thp_bytes: self.thp_bytes.load_relaxed(),
            room_permille: self.room_permille.load_relaxed(),
            outside: self.outside.is_set_relaxed(),
            window_max_bytes: self.window_max_bytes.load_relaxed(),
        }
    }
}

/// What is wanted for one block, whatever policy says of all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BigHint {
    /// Whose hint it is: a number of the caller's that the block carries. 0: nobody's.
    pub note: u16,
    /// Which pages the block gets; `None`: as policy and the blocks freed before have it.
    pub pages: Option<HintedPages>,
    /// How long the block waits, once it is freed, for the next one with this note (milliseconds); 0: as policy has it.
    pub keep_ms: u32,
}

/// Which pages a block gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HintedPages {
    /// Small ones.
    Small,
    /// Huge ones.
    Huge,
}

impl BigHint {
    /// No hint.
    pub const NONE: Self = Self { note: 0, pages: None, keep_ms: 0 };
}

/// Where extents come from and how blocks are recorded.
#[derive(Clone, Copy)]
pub struct BigContext<'a> {
    /// The box that owns the superslabs.
    pub os: &'a SuperslabOs,
    /// One route word per unit of the window.
    pub routes: &'a FlatTable<RouteWord>,
    /// The present numbers.
    pub policy: BigPolicy,
    /// What is wanted for the block that the call is about.
    pub hint: BigHint,
}

impl<'a> BigContext<'a> {
    /// Whether a block of so many bytes is to have huge pages, as far as its size and its hint say.
    pub(crate) fn wants_huge(&self, bytes: usize) -> bool {
        match self.hint.pages {
            Some(pages) => pages == HintedPages::Huge,
            None => bytes >= self.policy.thp_bytes,
        }
    }

    /// Whether a block is beyond what the window is for.
    pub(crate) fn belongs_outside(&self, shape: &Shape) -> bool {
        self.policy.outside && shape.bytes > self.policy.window_max_bytes
    }

    /// The note of kept extents that may serve the block.
    pub(crate) fn kept_note(&self) -> u16 {
        if self.hint.keep_ms > 0 { self.hint.note } else { 0 }
    }

    pub(crate) fn word(&self, index: SlabIndex) -> Option<&'a RouteWord> {
        self.routes.get(index.to_usize())
    }
}

/// A request in superslabs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    /// Whole OS pages.
    pub(crate) bytes: usize,
    /// Bytes; a power of two.
    pub(crate) align: usize,
    pub(crate) superslabs: u32,
    pub(crate) align_superslabs: u32,
}

impl Shape {
    /// None if the request is empty or larger than any address space.
    pub(crate) fn of(bytes: usize, align: usize) -> Option<Self> {
        let bytes = bytes.checked_next_multiple_of(OS_PAGE_BYTES)?;
        if bytes == 0 || bytes > isize::MAX as usize || !align.is_power_of_two() {
            return None;
        }
        let superslabs = superslabs_of(bytes)?;
        let align_superslabs = u32::try_from((align >> SUPERSLAB_SHIFT).max(1)).ok()?;
        Some(Self { bytes, align, superslabs, align_superslabs })
    }

    /// The longest kept extent that may serve the request.
    pub(crate) fn widest(&self, slack_permille: u32) -> u32 {
        let slack = u64::from(self.superslabs) * u64::from(slack_permille) / 1000;
        self.superslabs.saturating_add(u32::try_from(slack).unwrap_or(u32::MAX))
    }

    /// Superslabs of address space that should stay free behind the block.
    pub(crate) fn room(&self, room_permille: u32) -> u32 {
        let room = u64::from(self.superslabs) * u64::from(room_permille) / 1000;
        u32::try_from(room).unwrap_or(u32::MAX)
    }
}

/// Superslabs of a block of `bytes` bytes; none if no window could hold as many.
pub(crate) fn superslabs_of(bytes: usize) -> Option<u32> {
    let superslabs = u32::try_from(bytes.div_ceil(SUPERSLAB_BYTES)).ok()?;
    (superslabs <= u32::MAX >> SLABS_PER_SUPERSLAB_SHIFT).then_some(superslabs)
}

/// The unit where the superslab `count` places behind that of `first` begins.
pub(crate) fn superslab_behind(first: SlabIndex, count: u32) -> SlabIndex {
    first.add(count << SLABS_PER_SUPERSLAB_SHIFT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_rounded_to_pages_and_superslabs() {
        let shape = Shape::of(SUPERSLAB_BYTES + 1, 16).unwrap();
        assert_eq!((shape.bytes, shape.superslabs, shape.align_superslabs), (SUPERSLAB_BYTES + OS_PAGE_BYTES, 2, 1));
        assert_eq!(Shape::of(100, 4 * SUPERSLAB_BYTES).unwrap().align_superslabs, 4);
        assert_eq!(Shape::of(0, 16), None);
        assert_eq!(Shape::of(usize::MAX, 16), None);
        assert_eq!(Shape::of(isize::MAX as usize, 16), None);
    }

    #[test]
    fn numbers_that_were_put_in_force_are_those_at_present() {
        let shared = SharedBigPolicy::new(&BigPolicy::UNSET);
        assert_eq!(shared.load(), BigPolicy::UNSET);
        let other = BigPolicy {
            retain_bytes: 1,
            retain_ms: 2,
            slack_permille: 3,
            thp_bytes: 4,
            room_permille: 5,
            outside: true,
            window_max_bytes: 6,
        };
        for policy in [other, BigPolicy::DEFAULT, BigPolicy::UNSET] {
            shared.store(&policy);
            assert_eq!(shared.load(), policy);
            assert_eq!(SharedBigPolicy::new(&policy).load(), policy);
        }
    }

    #[test]
    fn slack_counts_whole_superslabs() {
        let widest = |superslabs: usize| Shape::of(superslabs * SUPERSLAB_BYTES, 16).unwrap().widest(125);
        assert_eq!((widest(2), widest(7), widest(8), widest(80)), (2, 7, 9, 90));
    }
}
