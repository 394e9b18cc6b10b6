//! Plain models of an allocator, driven by scripts that property tests draw and fuzzers write.
//!
//! [`held`] knows the blocks in use and what stands in them; [`family`] calls the malloc family and judges each result;
//! [`threads`] lets several live threads allocate and free in lock-step, so that a run can be repeated. A script is a
//! list of bytes or of steps, and any script is a legal use of the allocator: what is found is the allocator's mistake.

pub mod bytes;
pub mod family;
pub mod held;
pub mod threads;

pub use bytes::SIZE_MAX;

use std::path::Path;

/// Asks the kernel for small pages only, for all of this process. Scripts touch a line here and there of large blocks; with
/// huge pages the kernel would spend most of a run on clearing what nobody looks at. A refusal costs time and nothing else.
pub fn small_pages_only() {
    // SAFETY: changes how the kernel backs memory, not what is in it.
    let _refused = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// The scripts that are kept for a fuzz target, by name.
///
/// # Panics
/// When there are none: a test that replays nothing must not pass.
#[must_use]
#[expect(clippy::panic, clippy::unwrap_used, reason = "see above")]
pub fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut scripts: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).unwrap()))
        .collect();
    assert!(!scripts.is_empty(), "{} is empty", folder.display());
    scripts.sort();
    scripts
}
