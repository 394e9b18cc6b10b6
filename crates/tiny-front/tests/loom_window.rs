//! The front's copies of the window in every order of events: a thread that frees a foreign pointer asks for a route while
//! another one is just reserving the window.

#![cfg(alloc_loom)]
#![allow(clippy::unwrap_used, reason = "test helpers outside #[test] functions: a panic is the test's failure")]

use hakmem_atomic_ops::model::{Model, thread};
use hakmem_base::{MarkKey, SLAB_BYTES, SUPERSLAB_BYTES};
use hakmem_ownership::Route;
use hakmem_tiny_front::Front;
use std::sync::Arc;

#[test]
fn a_foreign_pointer_is_foreign_while_the_window_is_reserved() {
    // Hunts: a reader that sees the slab count and not yet the base: a low address would lie in a window that begins at 0.
    Model::exhaustive().room(64, 64).deep().check(|| {
        let front = Arc::new(Front::new());
        let stranger = {
            let front = Arc::clone(&front);
            thread::spawn(move || {
                assert!(front.route_of(SLAB_BYTES).is_none());
                assert!(front.index_of(SLAB_BYTES).is_none());
            })
        };
        assert!(front.reserve(32 << 20, MarkKey::NONE));
        let window = front.tables().unwrap().window;
        assert_eq!(front.route_of(window.base.addr() + SLAB_BYTES).unwrap().route(), Route::Unused);
        stranger.join().unwrap();
        drop(front);
        let bytes = window.slab_count as usize * SLAB_BYTES + SUPERSLAB_BYTES;
        // SAFETY: the front is gone, and the window was its alone.
        unsafe { libc::munmap(window.base.cast(), bytes) };
    });
}
