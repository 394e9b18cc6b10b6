//! What happens when the kernel refuses guards or address space: the plan is global, so this is a program of its own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod support;

use hakmem_base::{OS_PAGE_BYTES, SLAB_BYTES, SUPERSLAB_BYTES, SlabIndex};
use hakmem_sampled::Mistake;
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
    // No block was ever there: neither an access nor a free has to do with one.
    let unit = guarded.os.units_used().find(|unit| guarded.is_sampled(*unit)).unwrap();
    let address = guarded.os.address_of(SlabIndex::new(unit)).addr();
    let found = guarded.judge(address).unwrap();
    assert_eq!((found.mistake, found.allocated, found.freed), (Mistake::Unknown, None, None));
    let found = guarded.give(address + 100).unwrap_err();
    assert_eq!((found.mistake, found.allocated, found.freed), (Mistake::InvalidFree, None, None));
    let blocks: Vec<_> = (0..4).map(|_| guarded.take(16, 16, true).unwrap()).collect();
    assert!(guarded.take(16, 16, true).is_none());
    // The guard over a freed block: it is freed all the same, and lies open.
    refuse_calls(Call::Mprotect, 0, 1);
    guarded.give(blocks[0].addr().get()).unwrap();
    assert_eq!(guarded.pool.stats().guards_refused, 4);
    assert!(guarded.give(blocks[0].addr().get()).is_err());
    // What lies open is closed with the next block of the slot, wherever in it that is.
    let next = guarded.take(16, 16, false).unwrap().addr().get();
    let unit = blocks[0].addr().get() & !(SLAB_BYTES - 1);
    assert_eq!(next & !(SLAB_BYTES - 1), unit);
    guarded.give(next).unwrap();
    let pages = (unit..unit + SLAB_BYTES).step_by(OS_PAGE_BYTES);
    assert_eq!(pages.filter(|page| !cfg!(miri) && guarded.is_readable(*page)).count(), 0);
    assert!(guarded.take(16, 16, true).is_some());
    guarded.pool.check_invariants();
    guarded.os.check_invariants();

    // Slots beyond those of the first run: it is tried again, and no other one is taken beside it.
    let many = Guarded::new(64);
    let units = SUPERSLAB_BYTES / SLAB_BYTES;
    let committed = many.os.take_run(units as u32, 1).unwrap();
    many.os.give_run(committed.first, units as u32);
    refuse_calls(Call::Mprotect, 0, 2);
    let before = many.os.in_use_bytes();
    for _ in 0..2 {
        assert!(many.take(16, 16, true).is_none());
        assert_eq!(many.os.in_use_bytes(), before + SUPERSLAB_BYTES);
    }

    // No address space for the first slots.
    let tight = Guarded::new(4);
    tight.os.set_policy(OsPolicy { memory_limit_bytes: 1 << 16, ..OsPolicy::default() });
    assert!(tight.take(16, 16, true).is_none());
    tight.os.set_policy(OsPolicy::default());
    assert!(tight.take(16, 16, true).is_some());
}
