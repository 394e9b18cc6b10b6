//! A fast general-purpose memory allocator.
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: hakmem::Hakmem = hakmem::Hakmem;
//!
//! let numbers: Vec<u64> = (0..1000).collect();
//! assert!(hakmem::stats().live_bytes >= 8 * numbers.len() as u64);
//! ```
//!
//! Nothing needs configuring; `HAKMEM_*` variables (docs/env-vars.md) and [`publish_policy`] turn the knobs.
//!
//! Features, all off: `checked` (mistakes that only unsafe code can make are reported at the call; docs/misuse.md), `hardened` (the
//! hardened level unless `HAKMEM_HARDENED=0`; docs/hardening.md), `initial-exec-tls` (for a shared library that is loaded at the
//! start of a program, not by `dlopen`). The two `ablation-…` are for measuring this crate; `--all-features` does not build.
//!
//! **Not here.** Mechanisms: this crate composes the boxes. It alone has statics, thread-local storage and the gates at
//! which a pointer is routed, once.
//! **Invariants.** A thread uses one heap record at a time; records are never unmapped. A slow path may allocate (thread
//! registration, the start of a thread), and does so with no lock held and its heap in a consistent state.
//! **Why.** docs/architecture.md, docs/life-of-a-block.md

mod asked;
mod attach;
mod background;
mod blocks;
mod check;
mod clock;
mod company;
mod confined;
mod dump;
mod files;
mod finding;
mod gates;
mod global;
mod hardened;
mod hooks;
mod large;
mod learning;
mod limited;
mod modules;
mod observe;
mod operators;
mod pages;
mod policy_file;
pub mod raw;
mod record;
mod report;
mod sampler;
mod scavenger;
mod segv;
mod signals;
mod sites;
mod stacks;
mod stderr;
mod stdio;
mod tls;
mod unread;
mod watcher;
mod writer;

pub use blocks::dump_blocks;
pub use confined::expect_confinement;
pub use dump::{dump_dot, dump_json};
pub use hakmem_learner as learner;
pub use hakmem_policy::file::{FileError, FileProblem, parse_policy};
pub use hakmem_policy::{FieldError, FrozenPolicy, Mode, Profile};
pub use learning::{Learned, freeze, learned, mode, observed, observed_since, set_mode};
pub use limited::expect_address_limit;
pub use report::{Stats, stats};
pub use watcher::{ObservedBlocks, observed_blocks};

/// The README's Rust code is compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use hakmem_base::Door;

/// The allocator, for `#[global_allocator]`. Has no state of its own: all instances are the same allocator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hakmem;

// SAFETY: blocks come from the gates, which hand out memory of at least the size and alignment asked for that nobody else
// holds, and take it back once; no gate unwinds (findings abort).
unsafe impl GlobalAlloc for Hakmem {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        gates::allocate(layout.size(), layout.align(), Door::Rust)
    }

    #[inline(always)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        gates::allocate_zeroed(layout.size(), layout.align(), Door::Rust)
    }

    #[inline(always)]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller frees a block that `alloc` returned for this layout, so it is not null.
        let block = unsafe { NonNull::new_unchecked(ptr) };
        // SAFETY: as above.
        unsafe { gates::free_sized(block, layout.size(), layout.align()) };
    }

    #[inline(always)]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller resizes a block that `alloc` returned for this layout, so it is not null.
        let block = unsafe { NonNull::new_unchecked(ptr) };
        // SAFETY: as above.
        unsafe { gates::reallocate_sized(block, layout.size(), layout.align(), new_size) }
    }
}

/// Gives memory that nobody uses back to the operating system: the caches of this thread, slabs and runs that are entirely free, big
/// blocks kept for later, free superslabs. The caches of other threads stay as they are. Takes milliseconds per GiB returned.
pub fn collect() {
    pages::collect();
}

/// Bytes of the block at `ptr`, all of which the program may use: at least as many as it asked for. 0 for null, `None` for a pointer
/// that is not hakmem's.
///
/// # Safety
/// - `ptr` is null, not hakmem's, or the start of a block that is in use.
#[must_use]
pub unsafe fn usable_size(ptr: *const u8) -> Option<usize> {
    gates::usable_size(ptr.cast_mut(), Door::Rust)
}

/// Replaces the policy. Each thread picks the new one up at its next slow path. Returns the generation of the policy, which is one more
/// than that of the former one.
///
/// A policy file can be part of the program. What it says counts more than variables then, and its site rules are left out:
/// ```
/// let text = b"version = 1\n[knobs]\npurge_delay_ms = 1000\n"; // include_bytes!("policy.toml")
/// let policy = hakmem::parse_policy(text, &hakmem::policy())?;
/// hakmem::publish_policy(&policy)?;
/// assert_eq!(hakmem::policy().purge_delay_ms, 1000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The first knob that is out of its bounds or does not fit another one. Nothing has changed then.
pub fn publish_policy(policy: &FrozenPolicy) -> Result<u32, FieldError> {
    global::publish(policy)
}

/// Publishes what `change` makes of the policy in force, as [`publish_policy`] does. What somebody else publishes meanwhile is not lost:
/// `change` is called again then, with that policy.
///
/// # Errors
/// As there.
pub fn update_policy(change: impl FnMut(&mut FrozenPolicy)) -> Result<u32, FieldError> {
    global::update(change)
}

/// A copy of the policy that was published last, or of the one that the process began with.
#[must_use]
pub fn policy() -> FrozenPolicy {
    global::GLOBAL.policy.with(Clone::clone)
}

/// Checks whatever is known in two ways: the invariants of each box, every unit of the window against the slab, run or big block that
/// should hold it, and the counted bytes against the blocks. At the first contradiction it writes one line to stderr and aborts.
/// For tests, and for when damage is suspected: it walks all tables, which takes milliseconds per GiB in use.
///
/// Meanwhile no other thread may be inside the allocator. That includes hakmem's own thread of OBSERVE and LEARN: call
/// [`set_mode`] with [`Mode::Frozen`] before, and this function waits for the end of that thread. Do not call it in the child of a fork
/// of a program with threads, where the heaps of the other threads may be half-changed.
pub fn check_invariants() {
    learning::wait_for_end();
    check::check_invariants();
}
