//! Stress programs: patterns of allocation that are hard on allocators, in C (`benches/programs/stress`).

use super::inputs::{COMPILER, compiled, program};
use super::{Cpus, PLAIN, Program};

macro_rules! stress {
    ($($name:literal: $source:literal $arguments:expr, $cpus:ident, $what:literal;)*) => {
        /// The patterns, some at more than one scale.
        pub const PROGRAMS: &[Program] = &[$(Program {
            name: $name,
            group: "stress",
            what: $what,
            needs: &[COMPILER],
            cpus: Cpus::$cpus,
            prepare: |places| compiled(places, concat!("stress/", $source, ".c")),
            command: |places| program(places, &$arguments),
            ..PLAIN
        }),*];
    };
}

stress! {
    "generations": "generations" [], All, "random replacement by threads that leave their blocks to successors, 8–1000 B";
    "generations-wide": "generations" ["8", "5000", "50000", "20", "16", "4000"], All, "the same with eight threads and 5000 blocks of 16–4000 B each";
    "pipeline": "pipeline" ["2", "2", "40000"], All, "two producers, two consumers that only free";
    "pipeline-one-to-three": "pipeline" ["1", "3", "60000"], All, "one producer, three consumers that only free";
    "batches": "batches" ["1", "200", "2000"], One, "batches by size, freed in five orders";
    "batches-threads": "batches" ["4", "100", "8000"], All, "the same in four threads, up to 8 KB";
    "lines-active": "lines" ["active", "2", "30000", "8000"], All, "two threads that write into small blocks of their own";
    "lines-passive": "lines" ["passive", "2", "30000", "8000"], All, "the same, the first block from another thread";
    "lines-oversubscribed": "lines" ["passive", "8", "8000", "8000"], All, "the same with eight threads";
    "graphs": "graphs" ["4", "10", "60000"], All, "bags of objects, exchanges through shared slots, threads that start again";
    "crossing": "crossing" ["4", "100", "3000", "16000"], All, "24 B to 16 KB, a third given to another thread";
    "crossing-64k": "crossing" ["2", "60", "2000", "65536"], All, "24 B to 64 KB, a third given to another thread";
    "replace-1k": "replace" ["1", "1000", "20000000", "4", "10"], One, "random replacement in 1000 slots, 16–1024 B";
    "replace-100k": "replace" ["1", "100000", "10000000", "4", "10"], One, "random replacement in 100,000 slots, 16–1024 B";
    "replace-1m": "replace" ["1", "1000000", "6000000", "4", "9"], One, "random replacement in a million slots, 16–512 B";
    "replace-wide": "replace" ["1", "4000", "3000000", "4", "16"], One, "random replacement in 4000 slots, 16 B to 64 KiB";
    "replace-threads": "replace" ["4", "20000", "4000000", "4", "12"], All, "random replacement in four threads, 16 B to 4 KiB";
    "loops": "loops" ["1", "40"], One, "plain loops of one size, in a process with one thread";
    "loops-threads": "loops" ["4", "20"], All, "plain loops of one size in four threads";
    "large": "large" ["1", "800", "16", "25"], One, "64 KiB to 32 MiB, each page written to once";
    "large-threads": "large" ["4", "1000", "15", "22"], All, "32 KiB to 4 MiB in four threads, each page written to once";
    "growth": "growth" ["6"], One, "strings and arrays that grow by realloc, up to 128 MiB";
    "phases": "phases" ["6", "300"], One, "the heap grows to 300 MiB, is freed, and small work goes on";
}
