//! Handlers of forks that a constructor registered before anything was allocated, as a C library linked into the program may: they
//! allocate, before and after each fork, in both processes.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

use std::hint::black_box;

#[global_allocator]
static GLOBAL: hakmem::Hakmem = hakmem::Hakmem;

/// More than caches hold, so that slow paths and their locks are on the way.
extern "C" fn allocate() {
    let blocks: Vec<Box<[u8]>> = (0..64).map(|number| vec![1; number * 1100].into_boxed_slice()).collect();
    drop(black_box(blocks));
}

extern "C" fn begin() {
    // SAFETY: the handlers live as long as the program.
    unsafe { libc::pthread_atfork(Some(allocate), Some(allocate), Some(allocate)) };
}

// SAFETY: the section holds pointers to functions that run before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

#[test]
fn handlers_of_forks_that_came_first_allocate() {
    for _ in 0..20 {
        // SAFETY: the child allocates, which it may, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            allocate();
            // SAFETY: ends the process.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: the child is ours, and the status a local.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
    }
}
