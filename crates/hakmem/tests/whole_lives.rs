//! Whole lives of threads in a program all of whose blocks are hakmem's, those of the standard library included.
//!
//! Short enough for Miri (`cargo xtask miri`), which sees every access and every race; runs everywhere. Miri's aliasing
//! models are off for this program: they take a `Box` that is being dropped for unaliased until the drop returns, although
//! its block is the allocator's again by then. `model_checked.rs` has them on.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::hint::black_box;
use std::sync::mpsc::channel;
use std::sync::{Barrier, Mutex};
use std::thread;

#[global_allocator]
static GLOBAL: hakmem::Hakmem = hakmem::Hakmem;

/// How often a race is tried.
const ROUNDS: usize = if cfg!(miri) { 1 } else { 100 };
/// Blocks of a thread in one round.
const BLOCKS: usize = if cfg!(miri) { 15 } else { 300 };

/// A block of its own, with `mark` all over it.
fn marked(bytes: usize, mark: u8) -> Box<[u8]> {
    black_box(vec![mark; bytes].into_boxed_slice())
}

fn check(block: &[u8], mark: u8) {
    assert!(block.iter().all(|&byte| byte == mark), "a block changed under its holder");
}

#[test]
fn blocks_that_change_hands_come_back_whole() {
    // Hunts: remote frees against the owner's drain, the mail about them, and the outbox's flush at a thread's end.
    for _ in 0..ROUNDS {
        let (to_second, first_mail) = channel::<Box<[u8]>>();
        let (to_first, second_mail) = channel::<Box<[u8]>>();
        thread::scope(|scope| {
            for (own_mark, send, receive) in [(1, to_second, second_mail), (2, to_first, first_mail)] {
                scope.spawn(move || {
                    for number in 0..BLOCKS {
                        send.send(marked(16 + number % 5 * 300, own_mark)).unwrap();
                        if number % 3 == 0
                            && let Ok(block) = receive.try_recv()
                        {
                            check(&block, 3 - own_mark);
                        }
                    }
                    drop(send);
                    receive.iter().for_each(|block| check(&block, 3 - own_mark));
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
                let blocks: Vec<_> = (0..BLOCKS).map(|_| marked(2000, 7)).collect();
                *parcel.lock().unwrap() = blocks;
                start.wait();
            });
            for mark in [1, 2] {
                scope.spawn(move || {
                    start.wait();
                    let mut own = Vec::new();
                    for _ in 0..BLOCKS {
                        if let Some(block) = parcel.lock().unwrap().pop() {
                            check(&block, 7);
                        }
                        own.push(marked(2000, mark));
                    }
                    own.iter().for_each(|block| check(block, mark));
                });
            }
        });
    }
}

thread_local! {
    /// Its destructor frees and allocates when the thread's other variables may be gone.
    static LAST_WORDS: LastWords = const { LastWords(Mutex::new(Vec::new())) };
}

struct LastWords(Mutex<Vec<Box<[u8]>>>);

impl Drop for LastWords {
    fn drop(&mut self) {
        let mut blocks = self.0.lock().unwrap();
        blocks.iter().for_each(|block| check(block, 9));
        blocks.push(marked(100, 9));
        blocks.push(marked(100_000, 9));
    }
}

#[test]
fn a_thread_allocates_and_frees_to_its_very_end() {
    for _ in 0..ROUNDS {
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| LAST_WORDS.with(|words| words.0.lock().unwrap().push(marked(500, 9))));
            }
        });
    }
}

#[test]
fn a_heap_record_serves_one_thread_after_the_other() {
    // Hunts: what the last holder wrote to the record without a hand-over to the next one.
    for _ in 0..ROUNDS * 3 {
        let kept = thread::spawn(|| marked(64, 5)).join().unwrap();
        let others = thread::spawn(|| marked(64, 6));
        check(&kept, 5);
        drop(kept);
        check(&others.join().unwrap(), 6);
    }
}

#[test]
fn collecting_takes_nothing_from_threads_that_work() {
    // Hunts: a collect that purges, or gives back, what another thread is about to use.
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            for number in 0..BLOCKS {
                let block = marked(700 + number * 50, 4);
                check(&black_box(block), 4);
            }
        });
        while !worker.is_finished() {
            hakmem::collect();
        }
    });
}
