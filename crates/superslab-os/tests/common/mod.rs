//! What the tests of this box share: a box with a small window, and the memory that it hands out.

#![allow(dead_code, reason = "each test program uses its part")]

use hakmem_base::SlabIndex;
use hakmem_superslab_os::{OsPolicy, SuperslabOs, WindowConfig};

/// The window of most tests.
pub const WINDOW: WindowConfig = WindowConfig { bytes: 256 << 20 };

/// A box with a window of its own.
pub fn os_with(policy: OsPolicy) -> SuperslabOs {
    let os = SuperslabOs::new();
    os.set_policy(policy);
    assert!(os.reserve(WINDOW).is_some());
    os
}

/// A policy under which nothing is purged in band.
pub fn never() -> OsPolicy {
    OsPolicy { purge_delay_ms: u32::MAX, ..OsPolicy::default() }
}

/// The memory of units that the test holds.
#[expect(clippy::mut_from_ref, reason = "the units are handed out to one test, as memory of its own")]
pub fn bytes_at(os: &SuperslabOs, first: SlabIndex, bytes: usize) -> &mut [u8] {
    // SAFETY: the test holds the units that it names.
    unsafe { core::slice::from_raw_parts_mut(os.address_of(first), bytes) }
}
