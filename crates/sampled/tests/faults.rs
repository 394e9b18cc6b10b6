//! What happens when the kernel refuses guards or address space: the plan is global, so this is a program of its own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod support;

use hakmem_base::SLAB_BYTES;
use hakmem_superslab_os::{Call, OsPolicy, refuse_calls, refuse_nothing};
use support::Guarded;

#[test]
fn refused_guards_cost_samples_and_nothing_else() {
    let guarded = Guarded::new(4);
    let in_use = || guarded.os.stats().in_use_bytes;
    // The guards of the first units: these wait for the next try, and no others are taken.
    assert!(guarded.os.take_run(1, 1).is_some(), "the window is committed");
    let before = in_use();
    refuse_calls(Call::Mprotect, 0, 2);
    for tries in 1..=2 {
        assert!(guarded.take(16, 16, true).is_none());
        assert_eq!((in_use(), guarded.pool.stats().no_slot), (before + 4 * SLAB_BYTES, tries));
        guarded.pool.check_invariants();
    }
    // The access to a block's pages: the slot rests, and is used later.
    refuse_calls(Call::Mprotect, 1, 1);
    assert!(guarded.take(16, 16, true).is_none());
    guarded.pool.check_invariants();
    refuse_nothing();
    let blocks: Vec<_> = (0..4).map(|_| guarded.take(16, 16, true).unwrap()).collect();
    assert!(guarded.take(16, 16, true).is_none());
    // The guard over a freed block: it is freed all the same, and lies open.
    refuse_calls(Call::Mprotect, 0, 1);
    guarded.give(blocks[0].addr().get()).unwrap();
    assert_eq!(guarded.pool.stats().guards_refused, 4);
    assert!(guarded.give(blocks[0].addr().get()).is_err());
    assert!(guarded.take(16, 16, true).is_some());
    guarded.pool.check_invariants();
    guarded.os.check_invariants();

    // No address space for the first slots.
    let tight = Guarded::new(4);
    tight.os.set_policy(OsPolicy { memory_limit_bytes: 1 << 16, ..OsPolicy::default() });
    assert!(tight.take(16, 16, true).is_none());
    tight.os.set_policy(OsPolicy::default());
    assert!(tight.take(16, 16, true).is_some());
}
