//! The programs, what they need, and how much hakmem must have done for a run to count.

use super::execute::is_there;

/// When a case runs without being named.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// In the quick form, and there at every level.
    QuickAtAllLevels,
    /// In the quick form, at the default level.
    Quick,
    /// In the full form only: large, or slow, or its packages are.
    Full,
}

/// One program; its inputs are in `compat/<name>/`.
pub struct Case {
    /// Name of the case and its directory.
    pub name: &'static str,
    /// What it does, in a few words.
    pub what: &'static str,
    /// Programs it starts, each with the Debian package that brings it.
    pub needs: &'static [(&'static str, &'static str)],
    /// Which form it belongs to.
    pub share: Share,
    /// Whose work it is about: how the name of the file that these processes execute begins.
    pub program: &'static str,
    /// Fewest of these processes that must have reported. Others may leave by a signal or `_exit`, without a report.
    pub least_processes: usize,
    /// Fewest allocations that the busiest of them must have made. Zero: it has an allocator of its own, and hakmem is only loaded.
    pub least_allocs: u64,
}

impl Case {
    /// Needs that are not installed.
    pub fn missing(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let absent = |&&(need, _): &&(&'static str, &'static str)| !is_there(need);
        [("bash", "bash")].iter().filter(absent).chain(self.needs.iter().filter(absent)).copied()
    }
}

/// In the order in which they run.
pub const CASES: [Case; 36] = [
    Case {
        name: "python3",
        what: "json and pickle, threads, fork and exec, with and without its own allocator",
        needs: &[("python3", "python3"), ("sort", "coreutils")],
        share: Share::QuickAtAllLevels,
        program: "python3",
        least_processes: 5,
        least_allocs: 100_000,
    },
    Case {
        name: "perl",
        what: "hashes, regular expressions, sorting, fork",
        needs: &[("perl", "perl")],
        share: Share::Quick,
        program: "perl",
        least_processes: 1,
        least_allocs: 100_000,
    },
    Case {
        name: "sqlite3",
        what: "200,000 rows, indexes, joins, window functions",
        needs: &[("sqlite3", "sqlite3")],
        share: Share::QuickAtAllLevels,
        program: "sqlite3",
        least_processes: 3,
        least_allocs: 10_000,
    },
    Case {
        name: "redis",
        what: "a server under redis-benchmark, a save by fork, a restart, digests of its contents",
        needs: &[("redis-server", "redis-server"), ("redis-benchmark", "redis-tools"), ("redis-cli", "redis-tools")],
        share: Share::Quick,
        program: "redis-",
        least_processes: 10,
        least_allocs: 100_000,
    },
    Case {
        name: "gcc",
        what: "compiles a C++ file twice, compares the objects, runs the result",
        needs: &[("g++", "g++")],
        share: Share::Quick,
        program: "cc1plus",
        least_processes: 2,
        least_allocs: 100_000,
    },
    Case {
        name: "git",
        what: "500 files, renames, a merge, gc, repack with threads, clone, log, blame",
        needs: &[("git", "git")],
        share: Share::Quick,
        program: "git",
        least_processes: 50,
        least_allocs: 5_000,
    },
    Case {
        name: "node",
        what: "worker threads, buffers handed over, compression, scrypt",
        needs: &[("node", "nodejs")],
        share: Share::Quick,
        program: "node",
        least_processes: 1,
        least_allocs: 50_000,
    },
    Case {
        name: "cargo",
        what: "builds and tests a small crate, offline, and runs it",
        needs: &[("cargo", "cargo"), ("cc", "gcc")],
        share: Share::Quick,
        program: "cargo",
        least_processes: 3,
        least_allocs: 5_000,
    },
    Case {
        name: "postgres",
        what: "a server under pgbench, queries with compiled expressions, a dump",
        needs: &[("pg_createcluster", "postgresql"), ("setpriv", "util-linux")],
        share: Share::Full,
        program: "postgres",
        least_processes: 10,
        least_allocs: 100_000,
    },
    Case {
        name: "mariadb",
        what: "a server with four clients, joins, JSON, alterations, a check of its tables",
        needs: &[("mariadbd", "mariadb-server"), ("mariadb", "mariadb-client")],
        share: Share::Full,
        program: "mariadbd",
        least_processes: 1,
        least_allocs: 100_000,
    },
    Case {
        name: "lmdb",
        what: "load, copy, compact and dump a database",
        needs: &[("mdb_load", "lmdb-utils"), ("awk", "mawk")],
        share: Share::Full,
        program: "mdb_",
        least_processes: 8,
        least_allocs: 300,
    },
    Case {
        name: "python-tests",
        what: "thirty-three modules of Python's own tests, every object from malloc",
        needs: &[("/usr/lib/python3.11/test/test_list.py", "libpython3.11-testsuite")],
        share: Share::Full,
        program: "python3",
        least_processes: 50,
        least_allocs: 1_000_000,
    },
    Case {
        name: "ruby",
        what: "hashes, threads, fibers, compaction, marshalling, fork",
        needs: &[("ruby", "ruby")],
        share: Share::Full,
        program: "ruby",
        least_processes: 1,
        least_allocs: 100_000,
    },
    Case {
        name: "lua",
        what: "tables, coroutines, weak references, both collectors",
        needs: &[("lua5.4", "lua5.4")],
        share: Share::QuickAtAllLevels,
        program: "lua",
        least_processes: 1,
        least_allocs: 500_000,
    },
    Case {
        name: "tcl",
        what: "dictionaries, interpreters, big numbers, encodings",
        needs: &[("tclsh", "tcl")],
        share: Share::Quick,
        program: "tclsh",
        least_processes: 1,
        least_allocs: 500,
    },
    Case {
        name: "php",
        what: "arrays, cycles, generators, with and without its own pools",
        needs: &[("php", "php-cli")],
        share: Share::Full,
        program: "php",
        least_processes: 2,
        least_allocs: 200_000,
    },
    Case {
        name: "guile",
        what: "a conservative collector, threads, big numbers",
        needs: &[("guile", "guile-3.0")],
        share: Share::Full,
        program: "guile",
        least_processes: 1,
        least_allocs: 4_000,
    },
    Case {
        name: "java",
        what: "javac, then threads, direct buffers and compression under three collectors",
        needs: &[("javac", "openjdk-17-jdk-headless")],
        share: Share::Full,
        program: "java",
        least_processes: 4,
        least_allocs: 30_000,
    },
    Case {
        name: "clang",
        what: "compiles a C++ file twice, compares objects and syntax trees, runs the result",
        needs: &[("clang++", "clang"), ("g++", "g++")],
        share: Share::Full,
        program: "clang",
        least_processes: 2,
        least_allocs: 1_000_000,
    },
    Case {
        name: "go",
        what: "builds a program with cgo, whose goroutines allocate in C",
        needs: &[("go", "golang-go"), ("gcc", "gcc")],
        share: Share::Full,
        program: "program",
        least_processes: 1,
        least_allocs: 20_000,
    },
    Case {
        name: "nginx",
        what: "a server under ab and wrk, compression, a reload under load",
        needs: &[("nginx", "nginx-light"), ("ab", "apache2-utils"), ("wrk", "wrk")],
        share: Share::Full,
        program: "nginx",
        least_processes: 3,
        least_allocs: 20_000,
    },
    Case {
        name: "lighttpd",
        what: "a server under ab",
        needs: &[("lighttpd", "lighttpd"), ("ab", "apache2-utils")],
        share: Share::Quick,
        program: "lighttpd",
        least_processes: 1,
        least_allocs: 1_000,
    },
    Case {
        name: "chromium",
        what: "a page with a script, without a screen; serves its malloc itself, hakmem lies beside it",
        needs: &[("chromium", "chromium")],
        share: Share::Full,
        program: "chromium",
        least_processes: 1,
        least_allocs: 0,
    },
    Case {
        name: "webkit",
        what: "a page with a script to pictures and PDF",
        needs: &[("wkhtmltoimage", "wkhtmltopdf")],
        share: Share::Full,
        program: "wkhtmlto",
        least_processes: 3,
        least_allocs: 20_000,
    },
    Case {
        name: "ffmpeg",
        what: "encodes, decodes and filters with threads",
        needs: &[("ffmpeg", "ffmpeg")],
        share: Share::Full,
        program: "ffmpeg",
        least_processes: 9,
        least_allocs: 5_000,
    },
    Case {
        name: "imagemagick",
        what: "draws, distorts and converts pictures",
        needs: &[("convert-im6.q16", "imagemagick-6.q16")],
        share: Share::Full,
        program: "convert",
        least_processes: 10,
        least_allocs: 2_000,
    },
    Case {
        name: "ghostscript",
        what: "pages to PDF, pictures and text",
        needs: &[("gs", "ghostscript")],
        share: Share::Full,
        program: "gs",
        least_processes: 6,
        least_allocs: 4_000,
    },
    Case {
        name: "pandoc",
        what: "one text to seven formats and back",
        needs: &[("pandoc", "pandoc"), ("awk", "mawk")],
        share: Share::Full,
        program: "pandoc",
        least_processes: 9,
        least_allocs: 700,
    },
    Case {
        name: "gawk",
        what: "arrays of arrays, regular expressions, long strings",
        needs: &[("gawk", "gawk")],
        share: Share::QuickAtAllLevels,
        program: "gawk",
        least_processes: 1,
        least_allocs: 300_000,
    },
    Case {
        name: "jq",
        what: "3,000 objects, grouped, streamed, reduced",
        needs: &[("jq", "jq")],
        share: Share::Quick,
        program: "jq",
        least_processes: 8,
        least_allocs: 100_000,
    },
    Case {
        name: "compress",
        what: "xz, zstd, gzip, bzip2 and sort, with threads and dictionaries",
        needs: &[("xz", "xz-utils"), ("zstd", "zstd"), ("bzip2", "bzip2"), ("awk", "mawk")],
        share: Share::Quick,
        program: "zstd",
        least_processes: 20,
        least_allocs: 50,
    },
    Case {
        name: "openssl",
        what: "digests, ciphers, keys, certificates",
        needs: &[("openssl", "openssl")],
        share: Share::Quick,
        program: "openssl",
        least_processes: 50,
        least_allocs: 50_000,
    },
    Case {
        name: "make",
        what: "a parallel build with generated rules",
        needs: &[("make", "make"), ("gcc", "gcc")],
        share: Share::Quick,
        program: "make",
        least_processes: 5,
        least_allocs: 8_000,
    },
    Case {
        name: "vim",
        what: "substitutions, undo, macros and buffers from a script",
        needs: &[("vim", "vim")],
        share: Share::Full,
        program: "vim",
        least_processes: 1,
        least_allocs: 1_000_000,
    },
    Case {
        name: "gdb",
        what: "a program with threads, breakpoints, calls into it, Python",
        needs: &[("gdb", "gdb"), ("gcc", "gcc")],
        share: Share::Full,
        program: "gdb",
        least_processes: 1,
        least_allocs: 300_000,
    },
    Case {
        name: "stress",
        what: "every size to 8 MiB, threads that come and go, blocks freed by other threads, every byte checked",
        needs: &[("g++", "g++")],
        share: Share::QuickAtAllLevels,
        program: "stress",
        least_processes: 1,
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
