//! The gates with real threads, short enough for Miri (`cargo xtask miri`), which sees every access to a block, which
//! pointer it goes through, and every race. Runs everywhere.
//!
//! hakmem is not the global allocator here, so that the only pointers to its blocks are this file's, without a `Box` around.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use hakmem::{FrozenPolicy, Hakmem};
use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::ptr::NonNull;
use std::sync::mpsc::channel;
use std::sync::{Barrier, Mutex};
use std::thread;

/// How often a race is tried.
const ROUNDS: usize = if cfg!(miri) { 1 } else { 100 };
/// Blocks of a thread in one round.
const BLOCKS: usize = if cfg!(miri) { 30 } else { 300 };

/// A block with a mark at its ends and in between; freed when dropped, by whichever thread.
struct Block {
    start: NonNull<u8>,
    layout: Layout,
    mark: u8,
}

// SAFETY: a block is its holder's, whichever thread that is.
unsafe impl Send for Block {}

impl Block {
    fn new(bytes: usize, mark: u8) -> Self {
        Self::aligned(bytes, 8, mark)
    }

    fn aligned(bytes: usize, align: usize, mark: u8) -> Self {
        let layout = Layout::from_size_align(bytes, align).unwrap();
        // SAFETY: no block of this file is empty.
        let start = NonNull::new(unsafe { Hakmem.alloc(black_box(layout)) }).unwrap();
        assert!(start.addr().get().is_multiple_of(align));
        let block = Self { start, layout, mark };
        block.fill();
        block
    }

    fn places(&self) -> impl Iterator<Item = *mut u8> {
        let bytes = self.layout.size();
        let step = (bytes / 8).max(1);
        (0..bytes).step_by(step).chain([bytes - 1]).map(|offset| self.start.as_ptr().wrapping_add(offset))
    }

    fn fill(&self) {
        for place in self.places() {
            // SAFETY: a byte of a block that this value holds.
            unsafe { place.write(self.mark) };
        }
    }

    fn check(&self) {
        for place in self.places() {
            // SAFETY: as above, and written by `fill`.
            assert_eq!(unsafe { place.read() }, self.mark, "a block changed under its holder");
        }
    }

    fn resize(&mut self, bytes: usize) {
        self.check();
        // SAFETY: allocated for this layout; not 0 bytes.
        let start = unsafe { Hakmem.realloc(self.start.as_ptr(), self.layout, bytes) };
        self.start = NonNull::new(start).unwrap();
        // SAFETY: the first byte, kept by the resize.
        assert_eq!(unsafe { start.read() }, self.mark);
        assert!(start.addr().is_multiple_of(self.layout.align()));
        self.layout = Layout::from_size_align(bytes, self.layout.align()).unwrap();
        self.fill();
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.check();
        }
        // SAFETY: allocated for this layout, held, and given up here.
        unsafe { Hakmem.dealloc(self.start.as_ptr(), self.layout) };
    }
}

#[test]
fn blocks_that_change_hands_come_back_whole() {
    // Hunts: remote frees against the owner's drain, the mail about them, and the outbox's flush at a thread's end.
    for _ in 0..ROUNDS {
        let (to_second, first_mail) = channel::<Block>();
        let (to_first, second_mail) = channel::<Block>();
        thread::scope(|scope| {
            for (mark, send, receive) in [(1, to_second, second_mail), (2, to_first, first_mail)] {
                scope.spawn(move || {
                    for number in 0..BLOCKS {
                        send.send(Block::new(16 + number % 5 * 300, mark)).unwrap();
                        if number % 3 == 0 {
                            drop(receive.try_recv());
                        }
                    }
                    drop(send);
                    receive.iter().for_each(drop);
                });
            }
        });
    }
}

#[test]
fn an_owner_ends_while_strangers_free_its_blocks_and_others_adopt_its_slabs() {
    // Hunts: release of slabs, closing of the mailbox, publishing and adoption, all about the same slabs.
    for _ in 0..ROUNDS {
        let parcel = Mutex::new(Vec::new());
        let start = Barrier::new(3);
        thread::scope(|scope| {
            let (parcel, start) = (&parcel, &start);
            scope.spawn(move || {
                *parcel.lock().unwrap() = (0..BLOCKS * 2).map(|_| Block::new(2000, 7)).collect();
                start.wait();
            });
            for mark in [1, 2] {
                scope.spawn(move || {
                    start.wait();
                    let mut own = Vec::new();
                    for _ in 0..BLOCKS {
                        drop(parcel.lock().unwrap().pop());
                        own.push(Block::new(2000, mark));
                    }
                });
            }
        });
    }
}

#[test]
#[cfg_attr(feature = "hardened", ignore = "threads share their slabs at the hardened level: nothing is left behind")]
fn a_thread_that_needs_blocks_adopts_what_another_one_left() {
    let before = hakmem::stats().adopts;
    let left = thread::spawn(|| {
        let mut blocks: Vec<_> = (0..BLOCKS).map(|_| Block::new(1700, 8)).collect();
        blocks.split_off(BLOCKS / 2)
    });
    let left = left.join().unwrap();
    thread::spawn(|| drop((0..BLOCKS * 2).map(|_| Block::new(1700, 9)).collect::<Vec<_>>())).join().unwrap();
    drop(left);
    assert!(hakmem::stats().adopts > before, "nothing was adopted");
}

#[test]
fn a_heap_record_serves_one_thread_after_the_other() {
    // Hunts: what the last holder wrote to the record without a hand-over to the next one.
    for _ in 0..ROUNDS * 3 {
        let kept = thread::spawn(|| Block::new(64, 5)).join().unwrap();
        let others = thread::spawn(|| Block::new(64, 6));
        drop(kept);
        drop(others.join().unwrap());
    }
}

#[test]
fn runs_and_big_blocks_may_be_freed_by_anybody() {
    // Hunts: a run's route claimed and reused while its last holder's writes are still on the way.
    for _ in 0..ROUNDS {
        let (send, receive) = channel::<Block>();
        thread::scope(|scope| {
            scope.spawn(move || {
                for number in 0..BLOCKS / 6 {
                    send.send(Block::new(40_000 + number * 70_000, 3)).unwrap();
                }
                send.send(Block::new(3 << 20, 4)).unwrap();
            });
            scope.spawn(move || receive.iter().for_each(drop));
        });
    }
}

#[test]
fn blocks_of_every_kind_keep_their_contents_when_they_are_resized() {
    let sizes: &[usize] = if cfg!(miri) {
        &[24, 100, 5000, 33_000, 70_000, 150_000, 2_200_000, 40_000, 8]
    } else {
        &[24, 100, 5000, 33_000, 70_000, 150_000, 1 << 20, 2_200_000, 9 << 20, 30 << 20, 3 << 20, 40_000, 8]
    };
    for align in [1, 16, 64, 4096] {
        let mut block = Block::aligned(1, align, 11);
        sizes.iter().for_each(|&bytes| block.resize(bytes));
    }
}

#[test]
fn zeroed_blocks_read_as_zero_after_dirty_ones() {
    for bytes in [40, 3000, 50_000, 2_500_000] {
        for _ in 0..3 {
            let layout = Layout::from_size_align(bytes, 8).unwrap();
            // SAFETY: the size is not 0.
            let start = NonNull::new(unsafe { Hakmem.alloc_zeroed(black_box(layout)) }).unwrap();
            let zeroed = Block { start, layout, mark: 0 };
            zeroed.check();
            drop(zeroed);
            drop(Block::new(bytes, 0xff));
        }
    }
}

#[test]
fn collecting_takes_nothing_from_threads_that_work() {
    // Hunts: a collect that purges, or gives back, what another thread is about to use.
    let kept = Block::new(1000, 1);
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            for number in 0..BLOCKS {
                drop(Block::new(700 + number * 50, 4));
            }
        });
        while !worker.is_finished() {
            hakmem::collect();
        }
    });
    kept.check();
}

#[test]
fn threads_pick_a_policy_up_while_they_allocate() {
    thread::scope(|scope| {
        for mark in [1, 2] {
            scope.spawn(move || {
                for number in 0..BLOCKS {
                    drop(Block::new(64 << (number % 8), mark));
                }
            });
        }
        for cache_blocks in [4, 64, 8] {
            let policy = FrozenPolicy { cache_blocks, ..hakmem::policy() };
            hakmem::publish_policy(&policy).unwrap();
        }
    });
}

#[test]
fn samples_are_taken_if_and_only_if_the_environment_asks_for_them() {
    let blocks: Vec<_> = (0..50).map(|_| Block::new(100, 4)).collect();
    thread::spawn(|| drop(blocks)).join().unwrap();
    let samples = hakmem::stats().samples;
    assert_eq!(samples > 0, std::env::var_os("HAKMEM_SAMPLE").is_some(), "{samples} samples");
}
