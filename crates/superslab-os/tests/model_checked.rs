//! A walk short enough for Miri: every access to handed-out memory is checked there. Runs everywhere.
//!
//! `MIRIFLAGS='-Zmiri-strict-provenance -Zmiri-ignore-leaks' cargo +nightly miri test -p hakmem-superslab-os --test
//! model_checked`. Leaks are ignored because an arena never gives memory back.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use hakmem_base::SLAB_BYTES;
use hakmem_superslab_os::{FlatTable, MetaArena, OsPolicy, Purge, SuperslabOs, WindowConfig};

#[test]
fn two_threads_take_write_give_and_purge() {
    let os = SuperslabOs::new();
    os.set_policy(OsPolicy { purge_delay_ms: 0, warm_superslabs: 0, ..OsPolicy::default() });
    assert!(os.reserve(WindowConfig { bytes: 32 << 20 }).is_some());
    std::thread::scope(|scope| {
        for thread in 1..=2_u8 {
            let os = &os;
            scope.spawn(move || {
                for round in 0..4_u32 {
                    let run = os.take_run(1 + round % 3, 1).unwrap();
                    let start = os.address_of(run.first);
                    // SAFETY: the unit was just handed out to this thread.
                    let before = unsafe { start.read() };
                    assert!(before == 0 || run.clean & 1 == 0);
                    // SAFETY: as above, still held.
                    unsafe { start.write(thread) };
                    // SAFETY: as above; the last byte of the run.
                    unsafe { start.wrapping_add((1 + round as usize % 3) * SLAB_BYTES - 1).write(thread) };
                    // SAFETY: as above.
                    assert_eq!(unsafe { start.read() }, thread);
                    os.give_run(run.first, 1 + round % 3);
                }
            });
        }
    });
    os.check_invariants();
    // Who gives while the other purges leaves it to the next one, and after the last there is none.
    let left = os.purgeable_bytes();
    assert_eq!((os.stats().in_use_bytes, os.purge_all(), os.purgeable_bytes()), (0, left, 0));
}

#[test]
fn extents_arenas_and_tables_lie_in_memory_of_their_own() {
    let os = SuperslabOs::new();
    assert!(os.reserve(WindowConfig { bytes: 32 << 20 }).is_some());
    let (from, to) = (os.take_extent(1, 0, 1).unwrap(), os.take_extent(1, 0, 1).unwrap());
    // SAFETY: the extent was just handed out.
    unsafe { os.address_of(from.first).write(7) };
    assert!(os.move_pages(from.first, to.first, SLAB_BYTES));
    // SAFETY: as above, for the other one.
    assert_eq!(unsafe { os.address_of(to.first).read() }, 7);
    os.give_extent(from.first, 1, Purge::Clean);
    os.give_extent(to.first, 1, Purge::Later);
    os.check_invariants();
    let arena = MetaArena::new();
    let block = arena.allocate(8192, 8192).unwrap();
    // SAFETY: the arena handed out 8192 bytes.
    unsafe { block.as_ptr().wrapping_add(8191).write(1) };
    let table = FlatTable::<u64>::reserve(1000).unwrap();
    assert_eq!(table.get(999), Some(&0));
}
