//! A program that limits its address space while it runs.
//!
//! The kernel counts the whole window towards `RLIMIT_AS`, though next to nothing of it is in use: under a limit that is lower, the
//! program could map nothing any more. So what is not in use is released, and taken again bit by bit as the heap grows.

use crate::global::GLOBAL;

/// The address space of this process (`RLIMIT_AS`) is limited to `limit_bytes` bytes, or is about to be: if hakmem reserves more
/// than half of them, it releases what it does not use. From then on it reserves as it grows, up to three quarters of the limit, and big blocks beyond
/// that are mapped one by one. A limit that is higher, or none (`usize::MAX`), is told the same way.
///
/// The preload library calls this by itself when a program sets the limit by `setrlimit` or `prlimit`. A Rust program calls it before
/// it does so. In a child that shares its parent's memory (`vfork`) the window is the parent's, which goes on with what is left of it.
pub fn expect_address_limit(limit_bytes: usize) {
    GLOBAL.front.os.fit(limit_bytes);
}
