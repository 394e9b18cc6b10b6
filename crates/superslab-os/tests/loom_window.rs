//! The window and what grows in it, in every order of events: whoever sees the window sees its size, whoever gets units
//! that somebody gave back sees what that one did to them, and nobody gets what somebody else has.
//!
//! The system calls are real: the model's threads take turns on one thread of the machine, so the kernel sees a program
//! without threads. The pool's tables are plain data behind the lock, probed as one.

#![cfg(alloc_loom)]
#![allow(clippy::unwrap_used, reason = "test helpers outside #[test] functions: a panic is the test's failure")]

use hakmem_atomic_ops::model::{Model, thread, writes};
use hakmem_base::SLABS_PER_SUPERSLAB;
use hakmem_superslab_os::{MetaArena, OsPolicy, Run, SuperslabOs, Window, WindowConfig};
use std::sync::Arc;

const CONFIG: WindowConfig = WindowConfig { bytes: 32 << 20 };

/// The clock runs beside a model, so nothing may come due in it: each order of events must be repeatable.
fn without_purges() -> OsPolicy {
    OsPolicy { purge_delay_ms: u32::MAX, ..OsPolicy::new() }
}

fn place(window: Window, run: Run) -> *mut u8 {
    window.base.wrapping_add(run.first.to_usize() << 16)
}

#[test]
fn whoever_sees_the_window_sees_its_size() {
    // Hunts: a reader without the lock between the window's base and its slab count; two threads that both reserve.
    Model::exhaustive().check(|| {
        let os = Arc::new(SuperslabOs::new());
        let reserver = {
            let os = Arc::clone(&os);
            thread::spawn(move || os.reserve(CONFIG).unwrap().base.addr())
        };
        if let Some(window) = os.window() {
            assert_eq!(window.slab_count, 512, "a window without its size");
        }
        let mine = os.reserve(CONFIG).unwrap();
        assert_eq!(mine.base.addr(), reserver.join().unwrap());
    });
}

#[test]
fn units_that_change_hands_while_the_window_grows_belong_to_one_thread() {
    // Hunts: two takers that grow the committed part at the same time and get the same units; a taker of units that were
    // given back, without their last user's writes.
    Model::preemptions(2, 3).room(64, 64).check(|| {
        let os = Arc::new(SuperslabOs::new());
        os.set_policy(without_purges());
        let window = os.reserve(CONFIG).unwrap();
        let use_once = |os: &SuperslabOs, window: Window| {
            // Whole superslabs, so that each take needs one more committed unless one has come back.
            let run = os.take_run(SLABS_PER_SUPERSLAB, 1).unwrap();
            writes(place(window, run));
            // SAFETY: the run is this thread's, and committed.
            unsafe { place(window, run).write(1) };
            os.give_run(run.first, SLABS_PER_SUPERSLAB);
        };
        let other = {
            let os = Arc::clone(&os);
            thread::spawn(move || use_once(&os, window))
        };
        use_once(&os, window);
        other.join().unwrap();
        use_once(&os, window);
        os.check_invariants();
        assert_eq!(os.stats().in_use_bytes, 0);
    });
}

#[test]
fn metadata_is_handed_out_once() {
    // Hunts: two threads that cut the same piece, or that both map a chunk and lose a piece of one.
    Model::exhaustive().check(|| {
        let arena = Arc::new(MetaArena::new());
        let cut = |arena: &MetaArena| {
            let piece = arena.allocate(200 << 10, 64).unwrap();
            writes(piece.as_ptr());
            piece.addr().get()
        };
        let other = {
            let arena = Arc::clone(&arena);
            thread::spawn(move || cut(&arena))
        };
        let mine = cut(&arena);
        assert!(mine.abs_diff(other.join().unwrap()) >= 200 << 10, "two pieces overlap");
    });
}
