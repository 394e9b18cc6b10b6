//! Made-up traces: programs whose load changes, and programs whose load does not, from a seed.
//!
//! Each stands for a way in which a policy that was right becomes wrong. The stationary ones are controls: nothing is to be
//! gained there by learning while the program runs, but much can be lost.

use anyhow::{Context as _, Result};
use fastrand::Rng;

use crate::trace::{Builder, Trace};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const MS: u64 = 1_000_000;

/// A workload that can be made.
#[derive(Clone, Copy)]
pub struct Synthetic {
    /// Its name.
    pub name: &'static str,
    /// What it stands for.
    pub what: &'static str,
    /// Whether its load changes.
    pub changes: bool,
    make: fn(&mut Load),
}

impl Synthetic {
    /// The trace that this seed makes.
    ///
    /// # Errors
    /// If the workload does what no program can (a test makes each of them).
    pub fn make(&self, seed: u64) -> Result<Trace> {
        let mut load = Load::new(seed);
        (self.make)(&mut load);
        load.builder.finish(self.name)
    }
}

/// All workloads.
pub const ALL: &[Synthetic] = &[
    Synthetic { name: "day-night", what: "a server: busy days, quiet nights", changes: true, make: day_night },
    Synthetic {
        name: "compiler",
        what: "a compiler daemon: bursts of small and of large units, then idle",
        changes: true,
        make: compiler,
    },
    Synthetic {
        name: "batch",
        what: "a batch job: an index grows, is worked on with large buffers, shrinks",
        changes: true,
        make: batch,
    },
    Synthetic {
        name: "roles",
        what: "two threads: producer and consumer, the other way round, each for itself",
        changes: true,
        make: roles,
    },
    Synthetic {
        name: "fragments",
        what: "many small blocks, most of them freed, then large blocks",
        changes: true,
        make: fragments,
    },
    Synthetic {
        name: "adversary",
        what: "whatever pays in one phase costs in the next, in phases of changing length",
        changes: true,
        make: adversary,
    },
    Synthetic {
        name: "steady-small",
        what: "8192 slots of small blocks, replaced at random",
        changes: false,
        make: steady_small,
    },
    Synthetic { name: "steady-server", what: "a server under constant load", changes: false, make: steady_server },
    Synthetic {
        name: "steady-buffers",
        what: "buffers of 1 to 16 MiB, one every few milliseconds",
        changes: false,
        make: steady_buffers,
    },
    Synthetic {
        name: "steady-pipe",
        what: "one thread allocates, another one frees",
        changes: false,
        make: steady_pipe,
    },
];

/// The workload with this name.
///
/// # Errors
/// If there is none.
pub fn find(name: &str) -> Result<&'static Synthetic> {
    let known = || ALL.iter().map(|workload| workload.name).collect::<Vec<_>>().join(", ");
    ALL.iter()
        .find(|workload| workload.name == name)
        .with_context(|| format!("no workload {name}; there are: {}", known()))
}

/// What generators have in common.
struct Load {
    builder: Builder,
    rng: Rng,
}

impl Load {
    fn new(seed: u64) -> Self {
        Self { builder: Builder::default(), rng: Rng::with_seed(seed) }
    }

    /// Work between two requests of the program: 80 to 240 ns.
    fn work(&mut self) {
        let nanoseconds = self.rng.u64(80..240);
        self.builder.pass(nanoseconds);
    }

    fn wait_ms(&mut self, milliseconds: u64) {
        // A gap of exactly a millisecond would count as work.
        self.builder.pass(milliseconds * MS + 1);
    }

    /// Sizes of objects: mostly some tens of bytes, up to `most`.
    fn small(&mut self, most: u64) -> u64 {
        let share = self.rng.f64();
        (16.0 * (most as f64 / 16.0).powf(share * share)) as u64
    }

    fn between(&mut self, least: u64, most: u64) -> u64 {
        self.rng.u64(least..=most)
    }

    fn alloc(&mut self, thread: u16, size: u64) -> u32 {
        self.work();
        self.builder.alloc(thread, size)
    }

    fn free(&mut self, thread: u16, block: u32) {
        self.work();
        self.builder.free(thread, block);
    }

    fn free_all(&mut self, thread: u16, blocks: Vec<u32>) {
        blocks.into_iter().for_each(|block| self.free(thread, block));
    }

    /// Takes a block out of `blocks` at random and frees it.
    fn free_any(&mut self, thread: u16, blocks: &mut Vec<u32>) {
        if !blocks.is_empty() {
            let place = self.rng.usize(..blocks.len());
            let block = blocks.swap_remove(place);
            self.free(thread, block);
        }
    }

    /// A request to a server: objects, a buffer for the answer, and something that outlives it.
    fn request(&mut self, thread: u16, sessions: &mut Vec<u32>, kept: usize) {
        let objects: Vec<u32> = (0..self.rng.usize(10..40))
            .map(|_| {
                let size = self.small(4 * KIB);
                self.alloc(thread, size)
            })
            .collect();
        let size = self.between(2 * KIB, 200 * KIB);
        let buffer = self.alloc(thread, size);
        self.work();
        self.builder.resize(thread, buffer, size + size / 2);
        let size = self.small(2 * KIB);
        let session = self.alloc(thread, size);
        sessions.push(session);
        self.free(thread, buffer);
        self.free_all(thread, objects);
        while sessions.len() > kept {
            self.free_any(thread, sessions);
        }
    }

    /// A vector that grows by doubling; its last block.
    fn grow(&mut self, thread: u16, from: u64, to: u64) -> u32 {
        let block = self.alloc(thread, from);
        let mut size = from;
        while size < to {
            size *= 2;
            self.builder.pass(size / 16);
            self.builder.resize(thread, block, size);
        }
        block
    }
}

/// Days of twenty seconds with a cache of large objects, nights of fifteen in which most of it is let go.
fn day_night(load: &mut Load) {
    let (mut sessions, mut cache) = (Vec::new(), Vec::new());
    for _day in 0..4 {
        for _tick in 0..2000 {
            for _ in 0..2 {
                load.request(0, &mut sessions, 20_000);
            }
            if load.rng.u32(..2) == 0 {
                let size = load.between(128 * KIB, 6 * MIB);
                let entry = load.alloc(0, size);
                cache.push(entry);
            }
            if cache.len() > 24 {
                load.free_any(0, &mut cache);
            }
            load.wait_ms(10);
        }
        load.builder.phase();
        load.free_all(0, std::mem::take(&mut cache));
        for _tick in 0..150 {
            load.request(0, &mut sessions, 2000);
            load.wait_ms(100);
        }
        load.builder.phase();
    }
    load.free_all(0, sessions);
}

/// Units of two kinds; each builds a tree that dies at its end, with tables that grow.
fn compiler(load: &mut Load) {
    for round in 0..8 {
        let is_large = round % 2 == 1;
        let (units, nodes, waits_ms) = if is_large { (3, 40_000, 900) } else { (40, 2500, 250) };
        for _unit in 0..units {
            let mut tree = Vec::with_capacity(nodes);
            let mut tables = Vec::new();
            for node in 0..nodes {
                let size = load.small(if is_large { 2 * KIB } else { 512 });
                tree.push(load.alloc(0, size));
                if node % 4 == 3 {
                    load.free_any(0, &mut tree);
                }
                if node % 2000 == 1999 {
                    tables.push(load.grow(0, 4 * KIB, if is_large { 8 * MIB } else { 512 * KIB }));
                }
            }
            load.free_all(0, tables);
            load.free_all(0, tree);
            load.wait_ms(waits_ms);
        }
        load.builder.phase();
    }
}

/// An index that grows, is sorted in passes with large buffers, and shrinks from everywhere at once.
fn batch(load: &mut Load) {
    for _job in 0..3 {
        let mut index = Vec::new();
        for entry in 0..70_000 {
            let size = load.small(8 * KIB);
            index.push(load.alloc(0, size));
            if entry % 700 == 0 {
                load.wait_ms(20);
            }
        }
        load.builder.phase();
        for _pass in 0..120 {
            let sizes = [load.between(2 * MIB, 24 * MIB), load.between(256 * KIB, 2 * MIB)];
            let buffers = sizes.map(|size| load.alloc(0, size));
            load.builder.pass(900_000);
            for _ in 0..200 {
                let size = load.small(KIB);
                let block = load.alloc(0, size);
                load.free(0, block);
            }
            load.free_all(0, buffers.to_vec());
            // Around the default purge delay.
            let wait_ms = load.between(40, 400);
            load.wait_ms(wait_ms);
        }
        load.builder.phase();
        let mut removed = 0;
        while !index.is_empty() {
            load.free_any(0, &mut index);
            removed += 1;
            if removed % 700 == 0 {
                load.wait_ms(30);
            }
        }
        load.wait_ms(3000);
        load.builder.phase();
    }
}

/// Who frees what whom changes.
fn roles(load: &mut Load) {
    for round in 0..9 {
        let (producer, consumer) = match round % 3 {
            0 => (0, 1),
            1 => (1, 0),
            _ => (0, 0),
        };
        let mut queue = std::collections::VecDeque::new();
        for item in 0..45_000 {
            let size = load.small(if round % 2 == 0 { 512 } else { 16 * KIB });
            queue.push_back(load.alloc(producer, size));
            if queue.len() > 600
                && let Some(block) = queue.pop_front()
            {
                load.free(consumer, block);
            }
            if item % 450 == 0 {
                load.wait_ms(50);
            }
        }
        load.free_all(consumer, queue.into());
        load.builder.phase();
    }
}

/// A heap with holes everywhere, then requests that do not fit into them.
fn fragments(load: &mut Load) {
    for _round in 0..3 {
        let mut blocks = Vec::new();
        for block in 0..90_000 {
            let size = load.small(6 * KIB);
            blocks.push(load.alloc(0, size));
            if block % 900 == 0 {
                load.wait_ms(25);
            }
        }
        load.builder.phase();
        load.rng.shuffle(&mut blocks);
        let rest = blocks.split_off(blocks.len() - blocks.len() / 12);
        load.free_all(0, blocks);
        let mut large = Vec::new();
        for step in 0..5000 {
            let size = if step % 8 == 0 { load.between(2 * MIB, 12 * MIB) } else { load.between(40 * KIB, MIB) };
            large.push(load.alloc(0, size));
            if large.len() > 30 {
                load.free_any(0, &mut large);
            }
            if step % 5 == 0 {
                load.wait_ms(12);
            }
        }
        load.free_all(0, large);
        load.free_all(0, rest);
        load.wait_ms(2000);
        load.builder.phase();
    }
}

/// Memory that comes back just after it was given up, then memory that never comes back; phases of three to twelve seconds.
fn adversary(load: &mut Load) {
    let mut lengths = [3, 6, 12, 4, 8, 5, 10, 3, 7, 12, 5, 9];
    load.rng.shuffle(&mut lengths);
    let mut sessions = Vec::new();
    for (phase, seconds) in lengths.into_iter().enumerate() {
        if phase % 2 == 0 {
            for _ in 0..seconds * 2 {
                let buffers: Vec<u32> = (0..12)
                    .map(|_| {
                        let size = load.between(3 * MIB, 6 * MIB);
                        load.alloc(0, size)
                    })
                    .collect();
                load.free_all(0, buffers);
                for _ in 0..30 {
                    load.request(0, &mut sessions, 4000);
                }
                load.wait_ms(470);
                // The slow path of a request is where a purge that is due happens.
                load.request(0, &mut sessions, 4000);
                load.wait_ms(30);
            }
        } else {
            let hoard: Vec<u32> = (0..24_000)
                .map(|_| {
                    let size = load.small(16 * KIB);
                    load.alloc(0, size)
                })
                .collect();
            load.free_all(0, hoard);
            for _ in 0..seconds * 20 {
                load.request(0, &mut sessions, 500);
                load.wait_ms(50);
            }
        }
        load.builder.phase();
    }
    load.free_all(0, sessions);
}

fn steady_small(load: &mut Load) {
    let mut slots: Vec<u32> = (0..8192)
        .map(|_| {
            let size = load.small(KIB);
            load.alloc(0, size)
        })
        .collect();
    for step in 0..400_000 {
        let place = load.rng.usize(..slots.len());
        let size = load.small(KIB);
        let block = load.alloc(0, size);
        slots.push(block);
        let old = slots.swap_remove(place);
        load.free(0, old);
        if step % 400 == 0 {
            load.wait_ms(40);
        }
    }
    load.free_all(0, slots);
}

fn steady_server(load: &mut Load) {
    let mut sessions = Vec::new();
    for tick in 0..16_000 {
        load.request(0, &mut sessions, 8000);
        if tick % 2 == 0 {
            load.wait_ms(5);
        }
    }
    load.free_all(0, sessions);
}

fn steady_buffers(load: &mut Load) {
    let mut buffers = Vec::new();
    for _ in 0..4000 {
        let size = load.between(MIB, 16 * MIB);
        buffers.push(load.alloc(0, size));
        if buffers.len() > 6 {
            load.free_any(0, &mut buffers);
        }
        for _ in 0..100 {
            let size = load.small(KIB);
            let block = load.alloc(0, size);
            load.free(0, block);
        }
        load.wait_ms(10);
    }
    load.free_all(0, buffers);
}

fn steady_pipe(load: &mut Load) {
    let mut queue = std::collections::VecDeque::new();
    for item in 0..400_000 {
        let size = load.small(2 * KIB);
        queue.push_back(load.alloc(0, size));
        if queue.len() > 300
            && let Some(block) = queue.pop_front()
        {
            load.free(1, block);
        }
        if item % 400 == 0 {
            load.wait_ms(40);
        }
    }
    load.free_all(1, queue.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_is_a_trace_and_the_same_seed_makes_the_same_one() {
        for workload in ALL {
            let trace = workload.make(7).unwrap();
            assert!(trace.events().len() > 200_000, "{}: {} events", workload.name, trace.events().len());
            assert!(trace.elapsed_ns() > 30_000 * MS, "{}: {} ns", workload.name, trace.elapsed_ns());
            assert_eq!(trace, workload.make(7).unwrap(), "{}", workload.name);
        }
    }

    #[test]
    fn a_workload_that_changes_says_where() {
        for workload in ALL {
            let trace = workload.make(1).unwrap();
            let phases = trace.events().iter().filter(|event| event.what == crate::trace::What::Phase).count();
            assert_eq!(workload.changes, phases > 1, "{}: {phases} phases", workload.name);
        }
    }
}
