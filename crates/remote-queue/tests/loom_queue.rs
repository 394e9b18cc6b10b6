//! The remote queue in every order of events: blocks, count and token of one slab.
//!
//! Blocks are real memory, which loom does not see; what their users write is probed by the block's address.

#![cfg(alloc_loom)]

use hakmem_atomic_ops::model::{Model, thread, writes};
use hakmem_base::read_link;
use hakmem_remote_queue::{Chain, Drained, RemoteHead, TokenReleased};
use std::sync::Arc;

const BLOCKS: usize = 4;

/// A slab of a few blocks at the start of an imaginary superslab.
struct Slab {
    head: RemoteHead,
    /// Touched through probes only: what the holder of the token does to the lists that the slab stands in.
    lists: u8,
    memory: *mut [u64; 8],
}

// SAFETY: the blocks are handed from thread to thread by the queue, which is what the models check.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Slab {
    fn new() -> Arc<Self> {
        let memory = Box::leak(Box::new([[0_u64; 8]; BLOCKS])).as_mut_ptr();
        Arc::new(Self { head: RemoteHead::new(), lists: 0, memory })
    }

    fn base(&self) -> *mut u8 {
        self.memory.cast()
    }

    fn block(&self, index: usize) -> *mut u8 {
        self.memory.wrapping_add(index).cast()
    }

    /// The user's last write to a block, and its free by another thread. True if the free took the token.
    fn free(&self, index: usize) -> bool {
        writes(self.block(index));
        let chain = Chain { first: self.block(index), last: self.block(index), count: 1 };
        // SAFETY: each block is freed once between two drains.
        unsafe { self.head.push(chain, self.base()) }.token_taken
    }

    /// Takes the queue's blocks over as their next user would. Returns how many there were.
    fn drain(&self) -> u32 {
        let Drained { first, count } = self.head.drain(self.base());
        let (mut block, mut found) = (first, 0);
        while !block.is_null() {
            writes(block);
            // SAFETY: drained blocks belong to this thread.
            block = unsafe { read_link(block) };
            found += 1;
        }
        assert_eq!(found, count, "the count disagrees with the list");
        count
    }

    /// What the token's holder does: drains until the token can be given back.
    fn serve(&self) -> u32 {
        let mut drained = 0;
        loop {
            drained += self.drain();
            writes(&raw const self.lists);
            if self.head.release_token() == TokenReleased::Released {
                return drained;
            }
        }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: leaked by `new`, and no thread of the model has it any more.
        drop(unsafe { Box::from_raw(self.memory.cast::<[[u64; 8]; BLOCKS]>()) });
    }
}

#[test]
fn every_block_is_drained_once_with_its_users_last_writes() {
    // Hunts: a push between the drain's load and its store; a drained block without its user's writes; a list that is
    // shorter or longer than its count.
    Model::preemptions(3, 5).check(|| {
        let slab = Slab::new();
        let users: Vec<_> = (0..2)
            .map(|index| {
                let slab = Arc::clone(&slab);
                thread::spawn(move || slab.free(index))
            })
            .collect();
        let early = slab.drain();
        let takers = users.into_iter().map(|user| user.join().unwrap()).filter(|&taken| taken).count();
        assert_eq!(takers, 1, "nobody gave the token back");
        assert_eq!(early + slab.drain(), 2);
    });
}

#[test]
fn frees_that_nobody_announced_are_found_before_the_token_is_free() {
    // Hunts: a push that finds the token taken while its holder is giving it back: neither would look at the block. And a
    // new holder that does not see what the last one did to the lists.
    Model::preemptions(2, 4).check(|| {
        let slab = Slab::new();
        let users: Vec<_> = (0..2)
            .map(|index| {
                let slab = Arc::clone(&slab);
                thread::spawn(move || if slab.free(index) { slab.serve() } else { 0 })
            })
            .collect();
        let own = if slab.free(2) { slab.serve() } else { 0 };
        let drained = own + users.into_iter().map(|user| user.join().unwrap()).sum::<u32>();
        assert_eq!(drained, 3, "a block was left without a token, or drained twice");
        assert!(slab.head.is_quiet());
    });
}

#[test]
fn a_taken_token_shows_what_its_last_holder_did() {
    // Hunts: `try_take_token` right behind a `release_token`, as an owner that leaves or looks for missed frees does it.
    Model::exhaustive().check(|| {
        let slab = Slab::new();
        let user = {
            let slab = Arc::clone(&slab);
            thread::spawn(move || if slab.free(0) { slab.serve() } else { 0 })
        };
        let mine = if slab.head.try_take_token() {
            // Before the first drain, which would order the two as well.
            writes(&raw const slab.lists);
            slab.serve()
        } else {
            0
        };
        let theirs = user.join().unwrap();
        assert_eq!(mine + theirs, 1);
    });
}

#[test]
fn contents_go_after_the_last_use_of_every_block() {
    // Hunts: a holder of the token that takes the whole slab without having seen what the users of its blocks wrote last.
    Model::preemptions(3, 5).check(|| {
        let slab = Slab::new();
        assert!(slab.head.try_take_token());
        let users: Vec<_> = (0..2)
            .map(|index| {
                let slab = Arc::clone(&slab);
                thread::spawn(move || slab.free(index))
            })
            .collect();
        let is_bare = slab.head.take_whole(2);
        if is_bare {
            (0..2).for_each(|index| writes(slab.block(index)));
            slab.head.put_back_bare(2);
        }
        for user in users {
            assert!(!user.join().unwrap(), "the token was out");
        }
        let drained = slab.head.drain(slab.base());
        assert_eq!((drained.count, drained.is_bare()), (2, is_bare));
        assert_eq!(slab.head.release_token(), TokenReleased::Released);
    });
}

#[test]
fn a_quiet_slab_is_its_owners_alone() {
    // Hunts: an owner that retires a slab whose token's last holder is still busy with it.
    Model::exhaustive().check(|| {
        let slab = Slab::new();
        assert!(slab.head.try_take_token());
        let holder = {
            let slab = Arc::clone(&slab);
            thread::spawn(move || slab.serve())
        };
        if slab.head.is_quiet() {
            writes(&raw const slab.lists);
        }
        assert_eq!(holder.join().unwrap(), 0);
    });
}

#[test]
fn a_push_that_fails_on_a_drain_forgets_the_drained_blocks() {
    // Hunts: a push that links its chain before blocks which a drain takes at that moment, and then wins all the same
    // because the same word has come back (count, first block and token as before: a block freed again after its drain).
    Model::preemptions(3, 4).check(|| {
        let slab = Slab::new();
        assert!(slab.free(0));
        let user = {
            let slab = Arc::clone(&slab);
            thread::spawn(move || slab.free(1))
        };
        // The owner drains block 0, uses it, and it is freed again by a third thread, all during the push.
        let mut drained = slab.drain();
        let again = (drained > 0).then(|| {
            let slab = Arc::clone(&slab);
            thread::spawn(move || slab.free(0))
        });
        assert!(!user.join().unwrap(), "the token was taken");
        let expected = 2 + again.map_or(0, |user| u32::from(!user.join().unwrap()));
        drained += slab.drain();
        assert_eq!(drained, expected);
    });
}
