//! Programs that people use, as Debian packages them (`benches/programs/applications`).

use std::process::Command;

use anyhow::{Context as _, Result};

use super::inputs::{checked, generated, made, reads, script};
use super::{Cpus, Output, PLAIN, Places, Preload, Program, generated as texts};

const PYTHON: &[(&str, &str)] = &[("/usr/bin/python3", "python3")];
const PHP: &[(&str, &str)] = &[("php", "php-cli")];

/// An application that only its own process measures.
const APPLICATION: Program = Program { group: "application", ..PLAIN };

/// The applications.
pub const PROGRAMS: &[Program] = &[
    Program {
        name: "redis",
        what: "a server under redis-benchmark; time to the last answer, memory of the server",
        needs: &[
            ("redis-server", "redis-server"),
            ("redis-benchmark", "redis-tools"),
            ("redis-cli", "redis-tools"),
            ("awk", "gawk"),
        ],
        cpus: Cpus::All,
        preload: Preload::ByCommand,
        command: |places| script(places, &["bash"], "redis.sh"),
        ..APPLICATION
    },
    Program {
        name: "python-objects",
        what: "objects, dictionaries and strings on a heap of 100 MiB",
        needs: PYTHON,
        command: |places| python(places, "objects.py"),
        ..APPLICATION
    },
    Program {
        name: "python-malloc",
        what: "the same with every object from malloc",
        needs: PYTHON,
        command: |places| {
            let mut command = python(places, "objects.py");
            command.env("PYTHONMALLOC", "malloc");
            command
        },
        ..APPLICATION
    },
    Program {
        name: "python-documents",
        what: "JSON, regular expressions, compression",
        needs: PYTHON,
        command: |places| python(places, "documents.py"),
        ..APPLICATION
    },
    Program {
        name: "python-loop",
        what: "an interpreter in the interpreter, with every object from malloc",
        needs: PYTHON,
        command: |places| {
            let mut command = python(places, "loop.py");
            command.env("PYTHONMALLOC", "malloc");
            command
        },
        ..APPLICATION
    },
    Program {
        name: "sqlite3",
        what: "250,000 rows in memory: indexes, joins, updates, window functions",
        needs: &[("sqlite3", "sqlite3")],
        command: |places| {
            let mut command = Command::new("sqlite3");
            let file = places.root.join("benches/programs/applications/orders.sql");
            command.args(["-batch", "-init", "/dev/null", ":memory:"]).arg(format!(".read {}", file.display()));
            command
        },
        ..APPLICATION
    },
    Program {
        name: "cc1",
        what: "gcc -O1 compiles a C file of 15,000 lines",
        needs: &[("gcc", "gcc")],
        prepare: |places| generated(places, "large.c", || texts::c_source(700)),
        command: |places| reads(places, &["gcc", "-O1", "-w", "-S", "-o", "/dev/null"], "large.c"),
        ..APPLICATION
    },
    Program {
        name: "g++",
        what: "g++ compiles templates over templates",
        needs: &[("g++", "g++")],
        command: |places| script(places, &["g++", "-O0", "-std=c++17", "-S", "-o", "/dev/null"], "templates.cc"),
        ..APPLICATION
    },
    Program {
        name: "clang++",
        what: "clang++ compiles the same",
        needs: &[("clang++", "clang")],
        command: |places| script(places, &["clang++", "-O1", "-std=c++17", "-S", "-o", "/dev/null"], "templates.cc"),
        ..APPLICATION
    },
    Program {
        name: "perl",
        what: "hashes of hashes, growing strings, regular expressions",
        needs: &[("perl", "perl")],
        command: |places| {
            let mut command = script(places, &["perl"], "words.pl");
            command.env("PERL_HASH_SEED", "0").env("PERL_PERTURB_KEYS", "0");
            command
        },
        ..APPLICATION
    },
    Program {
        name: "ruby",
        what: "objects, strings, blocks under its collector",
        needs: &[("ruby", "ruby")],
        command: |places| script(places, &["ruby", "--disable-gems"], "objects.rb"),
        ..APPLICATION
    },
    Program {
        name: "lua",
        what: "trees, tables, strings, closures",
        needs: &[("lua5.4", "lua5.4")],
        command: |places| script(places, &["lua5.4"], "trees.lua"),
        ..APPLICATION
    },
    Program {
        name: "gawk",
        what: "fields, associative arrays, substitutions",
        needs: &[("gawk", "gawk")],
        command: |places| script(places, &["gawk", "-f"], "table.awk"),
        ..APPLICATION
    },
    Program {
        name: "bash",
        what: "arrays, strings, a read loop",
        needs: &[("bash", "bash")],
        command: |places| script(places, &["bash"], "lines.sh"),
        ..APPLICATION
    },
    Program {
        name: "php",
        what: "objects and arrays in its own pools",
        needs: PHP,
        command: |places| script(places, &["php", "-n", "-d", "memory_limit=-1"], "shop.php"),
        ..APPLICATION
    },
    Program {
        name: "php-malloc",
        what: "the same with every object from malloc",
        needs: PHP,
        command: |places| {
            let mut command = script(places, &["php", "-n", "-d", "memory_limit=-1"], "shop.php");
            command.env("USE_ZEND_ALLOC", "0");
            command
        },
        ..APPLICATION
    },
    Program {
        name: "node",
        what: "JSON, buffers and compilation around a heap of its own",
        needs: &[("node", "nodejs")],
        cpus: Cpus::All,
        command: |places| script(places, &["node"], "objects.js"),
        ..APPLICATION
    },
    Program {
        name: "ghostscript",
        what: "draws 40 pages of text and shapes",
        needs: &[("gs", "ghostscript")],
        command: |places| {
            let flags = ["-dBATCH", "-dNOPAUSE", "-dSAFER", "-sDEVICE=ppmraw", "-r100", "-sOutputFile=/dev/null"];
            script(places, &[&["gs", "-q"], &flags[..]].concat(), "page.ps")
        },
        ..APPLICATION
    },
    Program {
        name: "z3",
        what: "bit vectors, quantifiers, arithmetic",
        needs: &[("z3", "z3")],
        command: |places| script(places, &["z3"], "puzzles.smt2"),
        ..APPLICATION
    },
    Program {
        name: "abc",
        what: "logic synthesis of a multiplier",
        needs: &[("berkeley-abc", "berkeley-abc")],
        command: |_| {
            let mut command = Command::new("berkeley-abc");
            let optimise =
                "balance; rewrite; refactor; balance; rewrite -z; balance; refactor -z; dch; if; print_stats";
            command.args(["-c", &format!("gen -N 32 -m multiplier.blif; strash; {optimise}")]);
            command
        },
        ..APPLICATION
    },
    Program {
        name: "yosys",
        what: "synthesis of a small unit in Verilog",
        needs: &[("yosys", "yosys")],
        command: |places| {
            let file = places.root.join("benches/programs/applications/unit.v");
            let mut command = Command::new("yosys");
            let work = format!("read_verilog {}; synth -top top; tee -o /dev/stdout stat", file.display());
            command.args(["-q", "-p", &work]);
            command
        },
        ..APPLICATION
    },
    Program {
        name: "xmllint",
        what: "a document of 20 MB as a tree, and a query",
        needs: &[("xmllint", "libxml2-utils")],
        prepare: |places| generated(places, "list.xml", || texts::xml(90_000)),
        command: |places| {
            let query = "concat(count(//part[@weight > 500]), ' ', string-length(string(/list)))";
            reads(places, &["xmllint", "--huge", "--xpath", query], "list.xml")
        },
        ..APPLICATION
    },
    Program {
        name: "jq",
        what: "groups and sums over a JSON document",
        needs: &[("jq", "jq")],
        prepare: |places| generated(places, "list.json", || texts::json(60_000)),
        command: |places| {
            let query = "group_by(.deep.a) | map({key: .[0].deep.a, count: length, tags: ([.[].tags[]] | unique | length)}) | length, (map(.tags) | add)";
            reads(places, &["jq", "-c", query], "list.json")
        },
        ..APPLICATION
    },
    Program {
        name: "convert",
        what: "ImageMagick: gradients, blur, resize, quantise",
        needs: &[("convert-im6.q16", "imagemagick")],
        cpus: Cpus::All,
        command: |_| {
            let mut command = Command::new("convert-im6.q16");
            command.args(
                "-size 1400x1000 gradient:red-blue -swirl 120 -blur 0x2 -resize 150% -colors 64 -format %wx%h-%k info:"
                    .split(' '),
            );
            command.env("MAGICK_THREAD_LIMIT", "2");
            command
        },
        ..APPLICATION
    },
    Program {
        name: "dot",
        what: "Graphviz lays a graph of 500 nodes out",
        needs: &[("dot", "graphviz")],
        prepare: |places| generated(places, "graph.dot", || texts::graph(500)),
        command: |places| reads(places, &["dot", "-Tplain", "-o/dev/null"], "graph.dot"),
        ..APPLICATION
    },
    Program {
        name: "git",
        what: "git packs a history of 3000 commits anew",
        needs: &[("git", "git")],
        prepare: repository,
        command: |places| {
            let mut command = Command::new("git");
            command.arg("--git-dir").arg(places.inputs.join("repository"));
            let window = ["--no-reuse-delta", "--no-reuse-object", "--window=30", "--threads=1"];
            command.args(["pack-objects", "-q", "--all"]).args(window).arg("pack");
            command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
            command
        },
        ..APPLICATION
    },
    Program {
        name: "rocksdb",
        what: "db_bench: random writes, compaction, random reads",
        needs: &[("db_bench", "rocksdb-tools")],
        cpus: Cpus::All,
        // The program is linked with jemalloc; the C library in front of it is what makes it use malloc of the C library.
        preload: Preload::ByCommand,
        output: Output::Contains("readrandom"),
        command: |_| {
            let mut command = Command::new("bash");
            let flags = "--num=150000 --value_size=200 --threads=2 --seed=1 --write_buffer_size=4194304 --compression_type=none --disable_wal";
            let work = format!(
                "LD_PRELOAD=${{BENCH_LIBRARY:-libc.so.6}} exec db_bench --db=\"$PWD/db\" --benchmarks=fillrandom,compact,readrandom {flags} 2>/dev/null"
            );
            command.args(["-c", &work]);
            command
        },
        ..APPLICATION
    },
];

fn python(places: &Places, file: &str) -> Command {
    let mut command = script(places, &["/usr/bin/python3", "-s"], file);
    command.env("PYTHONHASHSEED", "0");
    command
}

/// A bare repository with everything loose or in one pack; the runs read it.
fn repository(places: &Places) -> Result<()> {
    generated(places, "history", || texts::history(3000))?;
    made(places, "repository", &[places.inputs.join("history")], |directory| {
        let _was_there = std::fs::remove_dir_all(directory);
        let _out_of_date = std::fs::remove_dir_all(places.inputs.join("repository"));
        let quiet = |command: &mut Command| {
            checked(command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1"))
        };
        quiet(Command::new("git").args(["init", "-q", "--bare", "-b", "main"]).arg(directory))?;
        let history = std::fs::File::open(places.inputs.join("history")).context("the history is not there")?;
        quiet(Command::new("git").arg("--git-dir").arg(directory).args(["fast-import", "--quiet"]).stdin(history))
    })
}
