//! Programs that are there for one bar each: start-up, small memory, memory given back (`benches/programs/bars`). Some print as
//! time or memory what their bar is about, which their table of figures then shows under that heading.

use std::process::Command;

use super::inputs::{COMPILER, compiled, program};
use super::{PLAIN, Preload, Program};

/// One per bar.
pub const PROGRAMS: &[Program] = &[
    Program {
        name: "true",
        group: "bars",
        what: "start and end of a hundred processes that do nothing",
        command: |_| {
            let mut command = Command::new("bash");
            command.args(["-c", "for ((run = 0; run < 100; run++)); do /bin/true || exit 1; done"]);
            command
        },
        ..PLAIN
    },
    Program {
        name: "little",
        group: "bars",
        what: "a thousand blocks, 100 KB; memory: what is anonymous",
        needs: &[COMPILER],
        prepare: |places| compiled(places, "bars/little.c"),
        command: |places| program(places, &[]),
        ..PLAIN
    },
    Program {
        name: "spike",
        group: "bars",
        what: "1 GiB and a second of ordinary work after it; memory: beyond 1.1 times that before",
        needs: &[COMPILER],
        prepare: |places| compiled(places, "bars/spike.c"),
        command: |places| program(places, &[]),
        ..PLAIN
    },
    Program {
        name: "paced",
        group: "bars",
        what: "100 MiB every 100 ms; time: the system's share by that without purging",
        needs: &[COMPILER],
        preload: Preload::ByCommand,
        prepare: |places| compiled(places, "bars/paced.c"),
        command: |places| {
            let mut command = Command::new("bash");
            command.arg(places.root.join("benches/programs/bars/paced.sh")).arg(places.inputs.join("program"));
            command
        },
        ..PLAIN
    },
];
