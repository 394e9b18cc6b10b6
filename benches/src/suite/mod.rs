//! The benchmarks, one module per group. Each runs alone in a fresh process, because what ran before shapes an allocator's
//! later speed and memory.

mod batch;
mod collection;
mod common;
mod growth;
mod libraries;
mod measured;
mod replace;
mod scaling;
mod scenario;
mod threads;
mod tiny;

pub use measured::{Live, Measured};

/// What benchmarks have in common, and a section of a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// A block freed soon after its allocation.
    Tiny,
    /// Many blocks allocated, then freed in some order.
    Batch,
    /// A steady number of blocks, replaced at random.
    Replace,
    /// Several threads. All take `--threads`; an operation's time is wall time over the operations of all threads.
    Threads,
    /// Patterns of kinds of programs.
    Scenario,
    /// Blocks that grow.
    Growth,
    /// Collections and libraries as programs use them.
    Collection,
    /// Cost against the size of the heap and against what happened before.
    Scaling,
}

impl Group {
    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::Batch => "batch",
            Self::Replace => "replace",
            Self::Threads => "threads",
            Self::Scenario => "scenario",
            Self::Growth => "growth",
            Self::Collection => "collection",
            Self::Scaling => "scaling",
        }
    }

    /// A benchmark of this group.
    const fn bench(
        self,
        name: &'static str,
        ops: u64,
        operation: &'static str,
        run: fn(&Request) -> Measured,
    ) -> Bench {
        Bench { name, group: self, ops, operation, threads: 1, parameter: None, run }
    }
}

/// One benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Bench {
    /// Its name on the command line and in tables.
    pub name: &'static str,
    /// Where it belongs.
    pub group: Group,
    /// Operations of a run that takes a fraction of a second.
    pub ops: u64,
    /// What one operation is.
    pub operation: &'static str,
    /// Threads that it uses unless told otherwise.
    pub threads: usize,
    /// The option that it is meant to be run with, and values of interest, as on the command line of who plots it.
    pub parameter: Option<(&'static str, &'static str)>,
    run: fn(&Request) -> Measured,
}

/// What a run was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// About how many operations.
    pub ops: u64,
    /// How many threads, of benchmarks that have any choice.
    pub threads: usize,
    /// Bytes live while it runs, of benchmarks that have any choice.
    pub live_bytes: Option<u64>,
}

impl Bench {
    /// The same with this many threads by default.
    const fn on(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// The same, to be run with each of these values.
    const fn over(self, option: &'static str, values: &'static str) -> Self {
        Self { parameter: Some((option, values)), ..self }
    }

    /// Every benchmark, in the order of tables.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        let groups = [
            tiny::BENCHES,
            batch::BENCHES,
            replace::BENCHES,
            threads::BENCHES,
            scenario::BENCHES,
            growth::BENCHES,
            collection::BENCHES,
            libraries::BENCHES,
            scaling::BENCHES,
        ];
        groups.into_iter().flatten()
    }

    /// The benchmark of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::all().find(|bench| bench.name == name)
    }

    /// Runs it.
    #[must_use]
    pub fn run(&self, request: &Request) -> Measured {
        (self.run)(request)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_benchmark_is_found_by_its_name_and_runs() {
        let mut names = BTreeSet::new();
        for bench in Bench::all() {
            assert!(names.insert(bench.name), "two are called {}", bench.name);
            assert_eq!(Bench::named(bench.name).unwrap().name, bench.name);
            let ops = (bench.ops / 10_000).max(1);
            let measured = bench.run(&Request { ops, threads: bench.threads, live_bytes: Some(1 << 20) });
            assert!(measured.ops >= ops && measured.ns_per_op() > 0.0, "{}", bench.name);
            if let Some(live) = measured.live {
                assert!(live.bytes > 0 && live.rss_kib > 0, "{}", bench.name);
            }
        }
    }

    #[test]
    fn threads_are_as_many_as_asked_for_and_at_least_one_where_two_are_needed() {
        for bench in Bench::all().filter(|bench| bench.group == Group::Threads) {
            for threads in [1, 3] {
                let ops = bench.ops / 10_000 + 1;
                let measured = bench.run(&Request { ops, threads, live_bytes: None });
                assert!(measured.ops >= ops, "{} with {threads}", bench.name);
            }
        }
    }
}
