//! Slabs without an owner that have free blocks, one stack per size class.

use crate::SlabWords;
use hakmem_atomic_ops::{Shared32, Shared64};
use hakmem_base::{BIN_COUNT, SizeClass, SlabIndex};

/// Published slabs by class.
///
/// A stack's head carries a tag that changes with every exchange, so that a pop that was overtaken by a pop and a push
/// of the same slab fails (the ABA problem). Reading the link of a slab that has just been popped by somebody else is
/// harmless: the link words are never unmapped.
#[derive(Debug)]
pub struct Published {
    heads: [Shared64; BIN_COUNT],
    counts: [Shared32; BIN_COUNT],
}

#[derive(Clone, Copy)]
struct Head {
    slab: u32,
    tag: u32,
}

impl Head {
    fn unpack(word: u64) -> Self {
        Self { slab: word as u32, tag: (word >> 32) as u32 }
    }

    fn followed_by(self, slab: u32) -> u64 {
        (u64::from(self.tag.wrapping_add(1)) << 32) | u64::from(slab)
    }
}

impl Published {
    /// Nothing published.
    #[must_use]
    pub const fn new() -> Self {
        Self { heads: [const { Shared64::new(0) }; BIN_COUNT], counts: [const { Shared32::new(0) }; BIN_COUNT] }
    }

    /// Offers `slab`, whose token the caller holds, to whoever needs blocks of `class`.
    pub fn publish<W: SlabWords>(&self, words: &W, class: SizeClass, slab: SlabIndex) {
        let Some((head, count)) = self.of(class) else { return };
        let mut word = head.load_relaxed();
        loop {
            let top = Head::unpack(word);
            words.remote(slab).set_link(SlabIndex::from_link(top.slab));
            // ORDERING: pairs with `take`: the slab's link and its released state travel.
            match head.cas_weak_acq_rel(word, top.followed_by(slab.get())) {
                Ok(_) => break,
                Err(found) => word = found,
            }
        }
        count.add_relaxed(1);
    }

    /// Takes one published slab with its token, if there is one.
    #[must_use]
    pub fn take<W: SlabWords>(&self, words: &W, class: SizeClass) -> Option<SlabIndex> {
        let (head, count) = self.of(class)?;
        // ORDERING: pairs with `publish`.
        let mut word = head.load_acquire();
        loop {
            let top = Head::unpack(word);
            let slab = SlabIndex::from_link(top.slab)?;
            let below = words.remote(slab).link().map_or(0, SlabIndex::get);
            // ORDERING: pairs with `publish`: the slab's released state is visible to the taker.
            match head.cas_weak_acq_rel(word, top.followed_by(below)) {
                Ok(_) => {
                    count.sub_relaxed(1);
                    return Some(slab);
                }
                Err(found) => word = found,
            }
        }
    }

    /// Published slabs of `class`, roughly: a hint whether a look is worth it.
    #[inline]
    #[must_use]
    pub fn count(&self, class: SizeClass) -> u32 {
        // Sum of increments and decrements that may overtake each other by a few.
        self.of(class).map_or(0, |(_, count)| (count.load_relaxed() as i32).max(0) as u32)
    }

    fn of(&self, class: SizeClass) -> Option<(&Shared64, &Shared32)> {
        Some((self.heads.get(class.index())?, self.counts.get(class.index())?))
    }
}

impl Default for Published {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_has_changed_is_never_the_same_again() {
        let mut words = vec![0_u64];
        for slab in [7, 0, 7, 9, 7, u32::MAX, 7] {
            let head = Head::unpack(words.last().copied().unwrap());
            let word = head.followed_by(slab);
            assert_eq!(Head::unpack(word).slab, slab);
            assert!(!words.contains(&word), "slab {slab} stands there as it did before");
            words.push(word);
        }
        let last_tag = Head { slab: 7, tag: u32::MAX };
        assert_eq!(Head::unpack(last_tag.followed_by(3)).slab, 3, "tags begin anew and leave the slab alone");
    }
}
