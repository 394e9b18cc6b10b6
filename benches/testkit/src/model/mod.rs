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
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::Damage;

/// Asks the kernel for small pages only, for all of this process. Scripts touch a line here and there of large blocks; with
/// huge pages the kernel would spend most of a run on clearing what nobody looks at. A refusal costs time and nothing else.
pub fn small_pages_only() {
    // SAFETY: changes how the kernel backs memory, not what is in it.
    let _refused = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// Looks until there is nothing to report: what a thread of the allocator's own has in its hands at this moment, it gives back
/// in the next. All calls of a process together wait ten seconds at most, so that what is lost is not waited for again and
/// again.
///
/// # Errors
/// The last report.
pub fn in_the_end(mut look: impl FnMut() -> Result<(), Damage>) -> Result<(), Damage> {
    static WAITS: Mutex<u32> = Mutex::new(1000);
    loop {
        let outcome = look();
        let mut waits = WAITS.lock().unwrap_or_else(PoisonError::into_inner);
        if outcome.is_ok() || *waits == 0 {
            return outcome;
        }
        *waits -= 1;
        drop(waits);
        std::thread::sleep(Duration::from_millis(10));
    }
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
