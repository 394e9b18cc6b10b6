//! What happens when the kernel says no. Refusals are the process's, so this is a program of its own and one test.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod support;

#[cfg(not(miri))]
use hakmem_base::OS_PAGE_BYTES;
use hakmem_superslab_os::{Call, refuse_calls, refuse_nothing};
#[cfg(not(miri))]
use support::is_readable;
use support::{LIMITS, Level, bytes_of};

#[test]
fn without_guards_the_level_goes_on_and_without_the_way_back_units_are_kept_and_counted() {
    let level = Level::new(LIMITS);
    // Commits the window's beginning, so that what is refused below are guards.
    let first = level.allocate(100, 8).unwrap();
    level.free(first, 100, 8);
    refuse_calls(Call::Mprotect, 0, u32::MAX);
    let (slot, large) = (level.allocate(3000, 8).unwrap(), level.allocate(40_000, 8).unwrap());
    assert_eq!(level.hardened.stats().guards_refused, 4);
    level.free(slot, 3000, 8);
    level.free(large, 40_000, 8);
    assert_eq!(level.hardened.stats().guards_refused, 5, "the freed block stays accessible");
    level.hardened.collect(level.cx(), true);
    let stats = level.hardened.stats();
    assert!(stats.stranded_bytes >= 64 << 10, "{stats:?}");
    assert_eq!(level.os.in_use_bytes() as u64, stats.stranded_bytes);
    refuse_nothing();

    // A discard that is refused must not let an old block's bytes through to the next one.
    let (run, units) = (level.os.take_run(32, 1).unwrap().first, 32);
    bytes_of(core::ptr::NonNull::new(level.os.address_of(run)).unwrap(), 2 << 20).fill(9);
    level.os.give_run(run, units);
    refuse_calls(Call::Madvise, 0, u32::MAX);
    for _ in 0..3 {
        for bytes in [3000, 40_000, 3 << 20] {
            let block = level.allocate(bytes, 8).unwrap();
            let contents = bytes_of(block, bytes);
            assert!(contents.iter().all(|&byte| byte == 0), "{bytes} bytes of an old block");
            contents.fill(9);
            level.free(block, bytes, 8);
            #[cfg(not(miri))]
            if bytes >= 40_000 {
                assert!(!is_readable(block.addr().get()), "a freed large block is open");
                let (unit, page) = (level.os.index_of(block.addr().get()).unwrap(), block.addr().get() & 0xf000);
                assert!(level.os.unprotect(unit, page, OS_PAGE_BYTES));
                assert!(bytes_of(block, 1000).iter().all(|&byte| byte == 0), "its bytes have outlived it");
                assert!(level.os.protect(unit, page, OS_PAGE_BYTES));
            }
        }
        level.hardened.collect(level.cx(), true);
    }
    refuse_nothing();
    level.hardened.check_invariants();
    level.os.check_invariants();
}
