//! What every box agrees on: sizes of slabs and superslabs, slab indices, size classes, and how a fatal finding is reported.
//!
//! **Not here.** State, system calls other than `write` and `abort`, atomics, policy.
//! **Invariants.** Every constant that another constant relies on is tied to it by a const assertion; a [`SizeClass`] is
//! always below [`BIN_COUNT`]; nothing in this crate allocates.

#![cfg_attr(not(feature = "testing"), no_std)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("hakmem is for 64-bit Linux: elsewhere, leave the dependency out with [target.'cfg(…)'.dependencies]");

mod block;
mod consts;
mod errno;
mod fatal;
mod hindsight;
mod layout;
mod life;
mod mark;
mod request;
mod size_class;
mod slab_index;
mod zero_valid;

pub use block::{read_link, write_link};
pub use consts::*;
pub use errno::keeping_errno;
pub use fatal::{Line, fatal, fatal_block, fatal_line, fatal_ptr, fatal_ptr_class, report, write_to};
pub use hindsight::{DELAYS, DELAYS_MS, Flow, HUGE_FROM_BYTES, Hindsight, LEVELS};
pub use layout::{FIRST_BLOCK_OFFSET, HEADED_ALIGN, HEADER_BYTES, TAIL_BYTES};
pub use life::{Frames, Life, SITE_FRAMES};
pub use mark::{MARKED_MIN_BYTES, MarkKey};
pub use request::{Door, Request};
pub use size_class::{
    BIN_COUNT, BinPlace, CLASS_COUNT, DYNAMIC_CLASS_COUNT, FINE_ENTRIES, Geometry, MAX_SLAB_BLOCK_BYTES,
    MAX_SLAB_UNITS, SizeClass, fine_bytes, fine_entry,
};
pub use slab_index::SlabIndex;
pub use zero_valid::ZeroValid;
