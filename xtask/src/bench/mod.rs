//! `cargo xtask bench`: every benchmark under every allocator, interleaved, each run in a fresh process.
#![allow(dead_code, reason = "the command that uses it comes with the next change")]

mod programs;
