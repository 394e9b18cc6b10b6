//! Many readers and several publishers on one cell.

use hakmem_policy::{FrozenPolicy, PolicyCell};
use std::sync::{Barrier, Mutex, Weak};
use std::thread;

const READERS: usize = if cfg!(miri) { 3 } else { 6 };
const PUBLICATIONS: u32 = if cfg!(miri) { 12 } else { 3000 };

/// A policy whose fields follow from `seed`, so that a mix of two snapshots shows.
fn woven(seed: u32) -> FrozenPolicy {
    let blocks = seed % 1000 + 1;
    FrozenPolicy {
        cache_blocks: blocks,
        cache_max_blocks: blocks + 7,
        idle_trim_ticks: blocks * 3,
        thp_heap_bytes: blocks as usize * 4096,
        mid_cap: [blocks % 60; 5],
        ..FrozenPolicy::DEFAULT
    }
}

fn assert_whole(policy: &FrozenPolicy) {
    let generation = policy.generation;
    assert_eq!(*policy, FrozenPolicy { generation, ..woven(policy.cache_blocks - 1) });
}

/// Hunts a snapshot freed under its reader, or kept for ever: readers hold one while the writer replaces it.
#[test]
fn every_replaced_snapshot_is_whole_while_read_and_freed_afterwards() {
    static CELL: PolicyCell = PolicyCell::new();
    CELL.set_boot(woven(0)).unwrap();
    let start = Barrier::new(READERS + 1);
    let mut published = Vec::new();
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    let mut last = 0;
                    let mut changes = 0_u32;
                    while last < PUBLICATIONS {
                        let seen = if reader % 2 == 0 {
                            CELL.with(|policy| {
                                assert_whole(policy);
                                policy.generation
                            })
                        } else {
                            CELL.load().map_or(0, |policy| {
                                assert_whole(&policy);
                                policy.generation
                            })
                        };
                        assert!(seen >= last, "generations only rise");
                        changes += u32::from(seen != last);
                        last = seen;
                        if changes.is_multiple_of(16) {
                            thread::yield_now();
                        }
                    }
                    changes
                })
            })
            .collect();
        start.wait();
        for seed in 1..=PUBLICATIONS {
            assert_eq!(CELL.publish(woven(seed)), Ok(seed));
            published.push(CELL.load().map_or_else(Weak::new, |snapshot| std::sync::Arc::downgrade(&snapshot)));
            if seed % 64 == 0 {
                thread::yield_now();
            }
        }
        for reader in readers {
            assert!(reader.join().unwrap() >= 1);
        }
    });
    assert_eq!(CELL.generation(), PUBLICATIONS);
    let alive: Vec<_> = published.iter().filter_map(Weak::upgrade).map(|snapshot| snapshot.generation).collect();
    assert_eq!(alive, [PUBLICATIONS], "the current snapshot lives, the others are freed");
}

/// Hunts two publishers that stamp the same number, or an earlier snapshot that replaces a later one.
#[test]
fn publishers_on_several_threads_get_different_generations() {
    const PUBLISHERS: u32 = 4;
    const EACH: u32 = if cfg!(miri) { 6 } else { 10_000 };
    let cell = PolicyCell::new();
    let start = Barrier::new(PUBLISHERS as usize);
    let all = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let (cell, all, start) = (&cell, &all, &start);
            scope.spawn(move || {
                let mut mine = Vec::new();
                start.wait();
                for round in 0..EACH {
                    let generation = cell.publish(woven(publisher * EACH + round)).unwrap();
                    assert!(cell.generation() >= generation, "the number of a finished publication is out");
                    cell.with(|policy| {
                        assert_whole(policy);
                        assert!(policy.generation >= generation);
                    });
                    mine.push(generation);
                }
                all.lock().unwrap().extend(mine);
            });
        }
    });
    let mut all = all.into_inner().unwrap();
    all.sort_unstable();
    assert!(all.iter().copied().eq(1..=PUBLISHERS * EACH));
    assert_eq!(cell.generation(), PUBLISHERS * EACH);
    assert_eq!(cell.load().unwrap().generation, PUBLISHERS * EACH);
}
