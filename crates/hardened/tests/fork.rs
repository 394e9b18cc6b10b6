//! A fork: what is held meanwhile, and what the child does otherwise.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

mod support;

use support::{LIMITS, Level, bytes_of, finding, poke};

/// A sweep skips what somebody works at.
#[test]
fn before_a_fork_the_lock_of_every_class_is_taken() {
    let level = Level::new(LIMITS);
    for bytes in (8..1024).step_by(16).chain((1024..32_000).step_by(400)).chain([300_001]) {
        let block = level.allocate(bytes, 8).unwrap();
        let canary = bytes_of(block, bytes + 1)[bytes];
        poke(block, bytes as isize, 0);
        level.hardened.lock_for_fork();
        level.hardened.sweep(level.cx());
        // SAFETY: taken above.
        unsafe { level.hardened.unlock_after_fork() };
        let found = finding(|| level.hardened.sweep(level.cx()));
        assert_eq!(found, "write past the end of a block", "{bytes}");
        poke(block, bytes as isize, canary);
        level.free(block, bytes, 8);
    }
}

/// Where small blocks lie, and large ones, of which each is freed: these depend on the order in which blocks leave quarantine.
fn places(level: &Level) -> [Vec<usize>; 2] {
    let small = (0..40).map(|_| level.allocate(64, 8).unwrap().addr().get()).collect();
    let large = (0..300).map(|_| {
        let block = level.allocate(40_000, 8).unwrap();
        level.free(block, 40_000, 8);
        block.addr().get()
    });
    [small, large.collect()]
}

#[test]
#[cfg_attr(miri, ignore = "Miri's programs do not fork")]
fn a_child_chooses_other_places_than_its_parent() {
    let level = Level::new(LIMITS);
    let _both_have_begun = places(&level);
    let mut ends = [0; 2];
    // SAFETY: room for both ends.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    level.hardened.lock_for_fork();
    level.os.lock_for_fork();
    // SAFETY: the child calls this box, whose locks are held, `write`, and `_exit`.
    let child = unsafe { libc::fork() };
    // SAFETY: taken by this thread above, here or in the parent.
    unsafe { level.os.unlock_after_fork() };
    // SAFETY: as above.
    unsafe { level.hardened.unlock_after_fork() };
    if child == 0 {
        level.hardened.stir_in_child();
    }
    let own = places(&level);
    if child == 0 {
        for places in &own {
            // SAFETY: the list's own bytes.
            unsafe { libc::write(ends[1], places.as_ptr().cast(), size_of_val(places.as_slice())) };
        }
        // SAFETY: does not return, and runs nothing of the parent's.
        unsafe { libc::_exit(0) };
    }
    for places in &own {
        let mut childs = vec![0_usize; places.len()];
        let bytes = size_of_val(childs.as_slice());
        // SAFETY: the list is as long as is said. What was written in one piece is read in one piece.
        assert_eq!(unsafe { libc::read(ends[0], childs.as_mut_ptr().cast(), bytes) }, bytes as isize);
        assert!(childs.iter().all(|place| *place != 0) && childs != *places);
    }
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(child, core::ptr::null_mut(), 0) }, child);
}
