//! The head of one slab's queue: first block, exact count and token in a single word.

use hakmem_atomic_ops::Shared32;
use hakmem_base::{MAX_SLAB_UNITS, SLAB_BYTES, SlabIndex, fatal, invariant, read_link, write_link};
use static_assertions::const_assert;

/// Blocks are eight-byte aligned, so offsets are kept in units of eight bytes.
const GRANULE_SHIFT: u32 = 3;
const OFFSET_BITS: u32 = 17;
const COUNT_BITS: u32 = 13;
const OFFSET_MASK: u32 = (1 << OFFSET_BITS) - 1;
/// The queued blocks are all that the slab has, and are not linked: their contents are gone.
const BARE: u32 = 1 << OFFSET_BITS;
const COUNT_SHIFT: u32 = OFFSET_BITS + 1;
const COUNT_ONE: u32 = 1 << COUNT_SHIFT;
const COUNT_MAX: u32 = (1 << COUNT_BITS) - 1;
const TOKEN: u32 = 1 << 31;

const_assert!(COUNT_SHIFT + COUNT_BITS + 1 == 32);
const_assert!(MAX_SLAB_UNITS * SLAB_BYTES <= 1 << (OFFSET_BITS + GRANULE_SHIFT));

/// The remote head of one slab. All zero means empty, token free.
#[derive(Debug, Default)]
#[repr(C)]
pub struct RemoteHead {
    /// `TOKEN | count << 18 | BARE | offset of the first block in the slab / 8`. Written by strangers.
    word: Shared32,
    /// Next slab in the mailbox or published list that this slab stands in.
    link: Shared32,
}

/// Blocks of one slab, linked through their link words, about to be handed over.
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    /// First block.
    pub first: *mut u8,
    /// Last block; its link word will be written.
    pub last: *mut u8,
    /// Number of blocks, at least 1.
    pub count: u32,
}

/// What a push found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Pushed {
    /// The pusher has taken the token: it has to notify the slab's owner, or publish the slab if nobody owns it.
    pub token_taken: bool,
    /// Blocks queued after the push.
    pub count: u32,
}

/// What a drain took out: `count` blocks linked from `first`, the last one's link being null, unless they are bare.
#[derive(Clone, Copy, Debug)]
pub struct Drained {
    /// First block, or null.
    pub first: *mut u8,
    /// Number of blocks.
    pub count: u32,
}

impl Drained {
    /// Whether these are all blocks of the slab, their links gone with their contents ([`RemoteHead::put_back_bare`]).
    #[inline]
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.count != 0 && self.first.is_null()
    }
}

/// Outcome of [`RemoteHead::release_token`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum TokenReleased {
    /// The token is free; the next push takes it.
    Released,
    /// Blocks have arrived since the last drain: the caller still holds the token and drains again.
    MoreFrees,
}

// SAFETY: zero is an empty queue, and nothing is dropped.
unsafe impl hakmem_base::ZeroValid for RemoteHead {}

impl RemoteHead {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self { word: Shared32::new(0), link: Shared32::new(0) }
    }

    /// Hands a chain over to whoever owns the slab.
    ///
    /// # Safety
    /// - All blocks of `chain` belong to this queue's slab, which begins at `slab_base`, are linked from `first` to `last`, and
    ///   are held by the caller (freed by it and on no list).
    #[inline]
    pub unsafe fn push(&self, chain: Chain, slab_base: *mut u8) -> Pushed {
        let offset = chain.first.addr().wrapping_sub(slab_base.addr());
        invariant!(offset < MAX_SLAB_UNITS * SLAB_BYTES, "remote free outside its slab");
        let mut word = self.word.load_relaxed();
        loop {
            let count = count_of(word) + chain.count;
            invariant!(count <= COUNT_MAX, "more remote frees than a slab has blocks");
            let next = first_of(word, slab_base);
            // SAFETY: the caller holds the chain until the exchange below wins.
            unsafe { write_link(chain.last, next) };
            let new = TOKEN | (count * COUNT_ONE) | ((offset >> GRANULE_SHIFT) as u32 & OFFSET_MASK);
            // ORDERING: pairs with `drain`: the blocks' links and the user's last writes to them travel.
            // Acquire as well: the taker of the token reads the route word after the previous holder's release.
            match self.word.cas_weak_acq_rel(word, new) {
                Ok(_) => return Pushed { token_taken: word & TOKEN == 0, count },
                Err(found) => word = found,
            }
        }
    }

    /// Takes all queued blocks out. The token stays where it is.
    ///
    /// Only the token's holder calls this: the slab's owner, or anybody while it has none.
    #[inline]
    #[must_use]
    pub fn drain(&self, slab_base: *mut u8) -> Drained {
        // ORDERING: pairs with `push`: the blocks' links and their users' last writes are visible afterwards; and with
        // `put_back_bare`: whoever took the contents away is done.
        let word = self.word.and_acq_rel(TOKEN);
        Drained { first: first_of(word, slab_base), count: count_of(word) }
    }

    /// Takes the queued blocks out if they are all `capacity` blocks of the slab and linked. The token stays where it is.
    ///
    /// Called by the token's holder, who may be a stranger: without the token the owner does not drain, and there is no block left
    /// that somebody could push. So the slab is the caller's until [`RemoteHead::put_back_bare`].
    #[must_use]
    pub fn take_whole(&self, capacity: u32) -> bool {
        let word = self.word.load_relaxed();
        // ORDERING: pairs with `push`: the users' last writes come before the contents go.
        count_of(word) == capacity && word & BARE == 0 && self.word.cas_acq_rel(word, TOKEN).is_ok()
    }

    /// Puts the `capacity` blocks that [`RemoteHead::take_whole`] took back, without their links: the contents may be gone.
    pub fn put_back_bare(&self, capacity: u32) {
        // ORDERING: pairs with `drain`: the contents are gone before the owner uses the blocks again.
        if self.word.cas_acq_rel(TOKEN, TOKEN | (capacity * COUNT_ONE) | BARE).is_err() {
            fatal("double free by another thread: more blocks of a slab came back than it has");
        }
    }

    /// Number of queued blocks at this moment.
    #[inline]
    #[must_use]
    pub fn count(&self) -> u32 {
        count_of(self.word.load_relaxed())
    }

    /// Whether the queue is empty and nobody holds the token: the slab may be retired by its owner.
    #[inline]
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        // ORDERING: pairs with `release_token`: what the token's last holder did to the lists is over.
        self.word.load_acquire() == 0
    }

    /// Takes the token if it is free.
    #[inline]
    #[must_use]
    pub fn try_take_token(&self) -> bool {
        // ORDERING: pairs with `release_token` (lists) and with `push` (queued blocks seen by the caller's next drain).
        self.word.or_acq_rel(TOKEN) & TOKEN == 0
    }

    /// Gives the token back unless blocks have arrived in the meantime. Called by its holder.
    #[inline]
    pub fn release_token(&self) -> TokenReleased {
        loop {
            // ORDERING: pairs with `push` and `try_take_token`: the next holder sees the lists without this slab.
            match self.word.cas_weak_acq_rel(TOKEN, 0) {
                Ok(_) => return TokenReleased::Released,
                Err(found) if count_of(found) != 0 => return TokenReleased::MoreFrees,
                Err(_spurious) => {}
            }
        }
    }

    /// The next slab in the list that this slab stands in. Read by whoever holds the list or the token.
    #[inline]
    #[must_use]
    pub fn link(&self) -> Option<SlabIndex> {
        SlabIndex::from_link(self.link.load_relaxed())
    }

    /// Sets the next slab; `None` ends the list. Called by the token's holder, who then publishes the list's head.
    #[inline]
    pub fn set_link(&self, next: Option<SlabIndex>) {
        self.link.store_relaxed(next.map_or(0, SlabIndex::get));
    }
}

impl Chain {
    /// The last block of a list of `count` blocks, found by walking it.
    ///
    /// # Safety
    /// - `first` heads a list of at least `count >= 1` linked blocks that the caller holds.
    #[must_use]
    pub unsafe fn walk(first: *mut u8, count: u32) -> Self {
        let mut last = first;
        for _ in 1..count {
            // SAFETY: the caller holds a list of `count` blocks; `last` is not yet its end.
            last = unsafe { read_link(last) };
        }
        Self { first, last, count }
    }
}

#[inline]
fn count_of(word: u32) -> u32 {
    (word & !TOKEN) >> COUNT_SHIFT
}

#[inline]
fn first_of(word: u32, slab_base: *mut u8) -> *mut u8 {
    if count_of(word) == 0 || word & BARE != 0 {
        core::ptr::null_mut()
    } else {
        slab_base.wrapping_add(((word & OFFSET_MASK) as usize) << GRANULE_SHIFT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hakmem_atomic_ops::SharedPtr;

    /// Blocks of 64 bytes at the start of an imaginary slab.
    struct Slab(Vec<[u64; 8]>);

    impl Slab {
        fn new() -> Self {
            Self(vec![[0; 8]; 512])
        }

        fn base(&mut self) -> *mut u8 {
            self.0.as_mut_ptr().cast()
        }

        fn block(&mut self, index: usize) -> *mut u8 {
            assert!(index < self.0.len());
            // Not by a reference to the block: pointers to others, and to this one, stay valid.
            self.0.as_mut_ptr().wrapping_add(index).cast()
        }
    }

    fn single(block: *mut u8) -> Chain {
        Chain { first: block, last: block, count: 1 }
    }

    fn addresses(drained: Drained) -> Vec<*mut u8> {
        let mut found = Vec::new();
        let mut block = drained.first;
        while !block.is_null() {
            found.push(block);
            // SAFETY: drained blocks belong to this test.
            block = unsafe { read_link(block) };
        }
        found
    }

    #[test]
    fn drain_returns_every_block_once_and_leaves_count_zero() {
        let mut slab = Slab::new();
        let base = slab.base();
        let head = RemoteHead::new();
        for index in 0..5 {
            // SAFETY: the block is the test's and pushed once.
            let pushed = unsafe { head.push(single(slab.block(index)), base) };
            assert_eq!(pushed, Pushed { token_taken: index == 0, count: index as u32 + 1 });
        }
        let drained = head.drain(base);
        assert_eq!(drained.count, 5);
        let expected: Vec<_> = (0..5).rev().map(|index| slab.block(index)).collect();
        assert_eq!(addresses(drained), expected);
        assert_eq!(head.count(), 0);
        assert!(!head.is_quiet(), "the token is still out");
        assert_eq!(head.release_token(), TokenReleased::Released);
        assert!(head.is_quiet());
    }

    #[test]
    fn a_list_that_was_walked_is_pushed_as_a_whole() {
        let mut slab = Slab::new();
        let base = slab.base();
        let head = RemoteHead::new();
        let listed: Vec<_> = (0..4).map(|index| slab.block(index)).collect();
        for pair in listed.windows(2) {
            // SAFETY: the blocks are the test's.
            unsafe { write_link(pair[0], pair[1]) };
        }
        for count in 1..=4_u32 {
            // SAFETY: the list has four blocks.
            let chain = unsafe { Chain::walk(listed[0], count) };
            assert_eq!((chain.first, chain.last, chain.count), (listed[0], listed[count as usize - 1], count));
        }
        // SAFETY: the block is the test's and pushed once.
        let _pushed = unsafe { head.push(single(slab.block(9)), base) };
        // SAFETY: the list has four blocks.
        let chain = unsafe { Chain::walk(listed[0], 4) };
        // SAFETY: they are the test's and pushed once.
        let pushed = unsafe { head.push(chain, base) };
        assert_eq!(pushed, Pushed { token_taken: false, count: 5 });
        assert_eq!(addresses(head.drain(base)), [&listed[..], &[slab.block(9)]].concat());
    }

    #[test]
    fn the_token_is_not_released_over_new_frees() {
        let mut slab = Slab::new();
        let base = slab.base();
        let head = RemoteHead::new();
        // SAFETY: the block is the test's and pushed once.
        let pushed = unsafe { head.push(single(slab.block(0)), base) };
        assert!(pushed.token_taken);
        assert_eq!(head.release_token(), TokenReleased::MoreFrees);
        assert!(!head.try_take_token());
        assert_eq!(head.drain(base).count, 1);
        assert_eq!(head.release_token(), TokenReleased::Released);
        assert!(head.try_take_token());
    }

    #[test]
    fn a_whole_slab_is_taken_and_put_back_bare() {
        let mut slab = Slab::new();
        let base = slab.base();
        let head = RemoteHead::new();
        for index in 0..3 {
            assert!(!head.take_whole(3), "{index} of 3 are not all");
            // SAFETY: the block is the test's and pushed once.
            let _pushed = unsafe { head.push(single(slab.block(index)), base) };
        }
        assert!(head.take_whole(3));
        assert_eq!(head.count(), 0);
        head.put_back_bare(3);
        assert!(!head.take_whole(3), "there is nothing left to let go");
        assert_eq!((head.count(), head.release_token()), (3, TokenReleased::MoreFrees));
        let drained = head.drain(base);
        assert_eq!((drained.count, drained.is_bare()), (3, true));
        assert!(!head.drain(base).is_bare(), "nothing is not bare");
        assert_eq!(head.release_token(), TokenReleased::Released);
    }

    #[test]
    fn concurrent_pushes_are_all_drained() {
        // Hunts: a push lost between two others, and a count that disagrees with the list.
        const THREADS: usize = 4;
        const EACH: usize = if cfg!(miri) { 12 } else { 128 };
        let mut slab = Slab::new();
        // One pointer for all of them: for Miri, a second `base()` or `block()` would end the first one's right to the memory.
        let base = SharedPtr::new(slab.base());
        let offsets: Vec<usize> = (0..THREADS * EACH).map(|index| index * size_of::<[u64; 8]>()).collect();
        let head = RemoteHead::new();
        let (mut taken, mut total) = (0, 0);
        std::thread::scope(|scope| {
            let (head, base) = (&head, &base);
            for share in offsets.chunks(EACH) {
                scope.spawn(move || {
                    let base = base.load_relaxed();
                    for &offset in share {
                        let block = base.wrapping_add(offset);
                        // What the user wrote last; the link overwrites it, the drain reads the link.
                        // SAFETY: each block is pushed by one thread, once.
                        unsafe { block.write_bytes(1, size_of::<[u64; 8]>()) };
                        // SAFETY: as above.
                        let _pushed = unsafe { head.push(single(block), base) };
                    }
                });
            }
            while total < (THREADS * EACH) as u32 {
                let drained = head.drain(base.load_relaxed());
                taken += addresses(drained).len();
                total += drained.count;
            }
        });
        assert_eq!(taken, THREADS * EACH);
        assert_eq!(head.count(), 0);
    }
}
