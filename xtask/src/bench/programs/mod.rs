//! The programs of the preload suite: real ones and stress programs, each run under every allocator by `LD_PRELOAD`.
//!
//! **Not here.** Starting them, pinning, clocks, statistics: the runner does that for all of them alike.
//! **Invariants.** A program does the same work under every allocator; `prepare` alone may compile or generate, so that no run
//! pays for it; names are unique.

mod applications;
mod bars;
mod generated;
mod inputs;
mod kernels;
mod stress;

use std::path::Path;
use std::process::Command;

use anyhow::Result;

/// One program of the preload suite.
#[derive(Clone, Copy)]
pub struct Program {
    /// Its name on the command line and in tables.
    pub name: &'static str,
    /// What geometric means are taken over: "application", "kernel", "stress" or "bars".
    pub group: &'static str,
    /// What it does, in half a line.
    pub what: &'static str,
    /// Programs that must be installed, each with the Debian package that has it.
    pub needs: &'static [(&'static str, &'static str)],
    /// The processors that it may use.
    pub cpus: Cpus,
    /// Who sets `LD_PRELOAD`.
    pub preload: Preload,
    /// What it must print.
    pub output: Output,
    /// Makes what the runs read (compiles, unpacks, generates) in `inputs`. Called once before the first run, without preload.
    pub prepare: fn(&Places) -> Result<()>,
    /// One run, which takes a quarter of a second to five. Its working directory is an empty scratch directory of its own, as is
    /// `TMPDIR`. The wall time of the command is what is measured, and its CPU time, faults and peak with those of its
    /// descendants, unless it prints a line that says better, anywhere on stdout:
    /// `figures: seconds=1.25 peak_rss_kib=10240` with any of `seconds user_s system_s peak_rss_kib end_rss_kib virtual_kib
    /// minor_faults major_faults live_bytes live_rss_kib`.
    pub command: fn(&Places) -> Command,
}

/// Where a program finds things.
pub struct Places<'a> {
    /// The checkout: sources and inputs that are kept there.
    pub root: &'a Path,
    /// What `prepare` made; runs only read it. It survives from one call of the command to the next, so `prepare` may find its
    /// work done.
    pub inputs: &'a Path,
}

/// The processors that a run may use, the same under every allocator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cpus {
    /// One, always the same: for programs with a single thread, which the scheduler then cannot move.
    One,
    /// All that the runner may use.
    All,
}

/// Who sets `LD_PRELOAD`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preload {
    /// The runner, for the command and all that it starts.
    Everything,
    /// The command itself, for the process that is measured (a server, and not its client): it finds the library's path in
    /// `BENCH_LIBRARY`, or nothing there under the C library's own allocator.
    ByCommand,
}

/// What a program must print on stdout; the line `figures:` is taken out beforehand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// The same in every run under every allocator.
    Same,
    /// A text that contains this.
    Contains(&'static str),
}

/// What most of them have in common.
const PLAIN: Program = Program {
    name: "",
    group: "",
    what: "",
    needs: &[],
    cpus: Cpus::One,
    preload: Preload::Everything,
    output: Output::Same,
    prepare: |_| Ok(()),
    command: |_| Command::new("false"),
};

/// All of them, in the order of tables.
pub fn programs() -> impl Iterator<Item = &'static Program> {
    [applications::PROGRAMS, kernels::PROGRAMS, stress::PROGRAMS, bars::PROGRAMS].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_program_has_a_name_of_its_own_and_says_what_it_does() {
        let names: BTreeSet<&str> = programs().map(|program| program.name).collect();
        assert_eq!(names.len(), programs().count());
        assert!(programs().all(|program| !program.what.is_empty() && !program.group.is_empty()));
    }
}
