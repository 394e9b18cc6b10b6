//! The programs, what they need, and how much hakmem must have done for a run to count.

use crate::launch;

/// One program; its inputs are in `compat/<name>/`.
pub struct Case {
    /// Name of the case and its directory.
    pub name: &'static str,
    /// What it does, in a few words.
    pub what: &'static str,
    /// Programs it starts, each with the Debian package that brings it.
    pub needs: &'static [(&'static str, &'static str)],
    /// Fewest processes that must have reported.
    pub least_processes: u64,
    /// Fewest allocations that one of them must have made: more than bash, which also reports, ever makes here.
    pub least_allocs: u64,
}

impl Case {
    /// Needs that are not installed.
    pub fn missing(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let absent = |&&(program, _): &&(&'static str, &'static str)| launch::find_program(program).is_none();
        [("bash", "bash")].iter().filter(absent).chain(self.needs.iter().filter(absent)).copied()
    }
}

/// In the order in which they run.
pub const CASES: [Case; 9] = [
    Case {
        name: "python3",
        what: "json and pickle, threads, fork and exec, with and without its own allocator",
        needs: &[("python3", "python3"), ("sort", "coreutils")],
        least_processes: 5,
        least_allocs: 100_000,
    },
    Case {
        name: "perl",
        what: "hashes, regular expressions, sorting, fork",
        needs: &[("perl", "perl")],
        least_processes: 1,
        least_allocs: 100_000,
    },
    Case {
        name: "sqlite3",
        what: "200,000 rows, indexes, joins, window functions",
        needs: &[("sqlite3", "sqlite3")],
        least_processes: 3,
        least_allocs: 10_000,
    },
    Case {
        name: "redis",
        what: "a server under redis-benchmark, a save by fork, a restart, digests of its contents",
        needs: &[("redis-server", "redis-server"), ("redis-benchmark", "redis-tools"), ("redis-cli", "redis-tools")],
        least_processes: 10,
        least_allocs: 100_000,
    },
    Case {
        name: "gcc",
        what: "compiles a C++ file twice, compares the objects, runs the result",
        needs: &[("g++", "g++")],
        least_processes: 8,
        least_allocs: 100_000,
    },
    Case {
        name: "git",
        what: "500 files, renames, a merge, gc, repack with threads, clone, log, blame",
        needs: &[("git", "git")],
        least_processes: 50,
        least_allocs: 5_000,
    },
    Case {
        name: "node",
        what: "worker threads, buffers handed over, compression, scrypt",
        needs: &[("node", "nodejs")],
        least_processes: 1,
        least_allocs: 50_000,
    },
    Case {
        name: "cargo",
        what: "builds and tests a small crate, offline, and runs it",
        needs: &[("cargo", "cargo"), ("cc", "gcc")],
        least_processes: 5,
        least_allocs: 20_000,
    },
    Case {
        name: "stress",
        what: "every size to 8 MiB, threads that come and go, blocks freed by other threads, every byte checked",
        needs: &[("g++", "g++")],
        least_processes: 4,
        least_allocs: 1_000,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_its_inputs_and_no_input_lacks_a_case() {
        let inputs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../compat");
        let mut found: Vec<String> = std::fs::read_dir(&inputs)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.join("run.sh").is_file())
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        found.sort();
        let mut listed: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        listed.sort_unstable();
        assert_eq!(found, listed);
    }
}
