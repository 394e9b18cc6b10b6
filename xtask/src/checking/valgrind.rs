//! `cargo xtask valgrind`: C and C++ programs on the preload library under memcheck.
//!
//! **Invariants.** hakmem serves the program, not valgrind: a process in which hakmem served few requests is a failure. One
//! run has a known finding, which must be made: memcheck looks at hakmem's own code.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Tally, not_run, starts};
use crate::launch::{self, Finished, Preload};
use crate::level::Level;
use crate::project::Project;
use crate::report::Summary;

/// What `cargo xtask valgrind` takes.
#[derive(clap::Args, Default)]
pub struct Options {
    /// Only the short programs, at the default level.
    #[arg(long)]
    pub quick: bool,
    /// A machine without valgrind does not fail the command.
    #[arg(long)]
    pub allow_missing: bool,
}

/// Valgrind runs a program's threads one at a time and everything some thirty times slower; only a hang takes this long.
const LIMIT: Duration = Duration::from_secs(600);
/// Exit status when memcheck has found something.
const FOUND: i32 = 99;
/// The known findings that are no mistakes, below this crate's sources.
const SUPPRESSIONS: &str = "src/checking/memcheck.supp";
/// A program that hakmem's `free` has such a finding with.
const KNOWN: Case = Case { source: "unwritten.c", arguments: &[], is_quick: true };
/// Requests that hakmem serves in the least of these programs.
const LEAST_ALLOCS: u64 = 100;

/// A program of `crates/preload/tests/c`.
struct Case {
    source: &'static str,
    arguments: &'static [&'static str],
    is_quick: bool,
}

const CASES: &[Case] = &[
    KNOWN,
    Case { source: "malloc_family.c", arguments: &[], is_quick: true },
    Case { source: "new_delete.cpp", arguments: &["no-refusals"], is_quick: true },
    Case { source: "thread_exit.c", arguments: &[], is_quick: true },
    Case { source: "early_late.c", arguments: &[], is_quick: false },
    Case { source: "exact_sizes.c", arguments: &[], is_quick: false },
    Case { source: "stress.c", arguments: &["5", "1"], is_quick: false },
    Case { source: "forks.c", arguments: &["30", "300"], is_quick: false },
];

const LEFT_OUT: &[(&str, &str)] = &[
    (
        "new_delete.cpp, refusals",
        "libstdc++'s operator new throws on behalf of hakmem's; valgrind replaces it by one that cannot throw",
    ),
    (
        "stack_cache.c",
        "its subject, the C library's cache of thread stacks, is emptied differently by valgrind's scheduler",
    ),
    ("misuse.c", "wrong on purpose"),
    ("limits of blocks", "memcheck knows hakmem's mappings, not its blocks: docs/checking-tools.md"),
];

/// Runs the programs; fails if memcheck found something, or if valgrind is not there.
pub fn valgrind(project: &Project, options: &Options) -> Result<ExitCode> {
    for (program, package) in [("valgrind", "valgrind"), ("cc", "gcc"), ("c++", "g++")] {
        if !starts(program) {
            let why = format!("no `{program}`: apt-get install {package}");
            return Ok(not_run("valgrind", &why, options.allow_missing));
        }
    }
    let library = project.preload_library()?;
    let scratch = tempfile::tempdir().context("no place for programs")?;
    let bench = Bench { project, library, scratch: scratch.path() };
    let mut tally = Tally::new("valgrind");
    tally.take(&format!("{} without suppressions", KNOWN.source), || bench.known_finding_is_made());
    let levels: &[Level] = if options.quick { &[Level::Default] } else { &Level::ALL };
    for &level in levels {
        for case in CASES.iter().filter(|case| case.is_quick || !options.quick) {
            let name = format!("{} at level {}", case.source, level.name());
            tally.take(&name, || bench.has_no_finding(case, level));
        }
    }
    for (what, why) in LEFT_OUT {
        tally.leave_out(format!("{what}: {why}"));
    }
    Ok(tally.end())
}

/// Where programs run.
struct Bench<'a> {
    project: &'a Project,
    library: PathBuf,
    scratch: &'a Path,
}

impl Bench<'_> {
    fn has_no_finding(&self, case: &Case, level: Level) -> Result<String> {
        let reports = self.scratch.join(format!("{}-{}-reports", case.source, level.name()));
        std::fs::create_dir(&reports)?;
        let preload = Preload::new(self.library.clone(), reports)?;
        let suppressions = self.project.root().join("xtask").join(SUPPRESSIONS);
        let finished = self.run(case, level, &preload, Some(&suppressions))?;
        ensure!(finished.status.success(), "{} ({FOUND}: memcheck found something)", finished.describe());
        let summary = Summary::read(preload.reports())?;
        let served = if level == Level::Hardened { summary.hardened_allocs } else { summary.allocs };
        ensure!(served >= LEAST_ALLOCS, "hakmem served {served} requests only");
        Ok(format!("{served} requests served by hakmem"))
    }

    fn known_finding_is_made(&self) -> Result<String> {
        let preload = Preload::new(self.library.clone(), self.scratch.to_path_buf())?;
        let finished = self.run(&KNOWN, Level::Default, &preload, None)?;
        ensure!(finished.status.code() == Some(FOUND), "{}: memcheck sees nothing in hakmem", finished.describe());
        Ok("found, as it must be".into())
    }

    fn run(&self, case: &Case, level: Level, preload: &Preload, suppressions: Option<&Path>) -> Result<Finished> {
        let mut command = Command::new("valgrind");
        // Without the synonym, valgrind would put its own malloc in the place of any library's.
        command.args(["--quiet", "--soname-synonyms=somalloc=nouserintercepts", "--leak-check=no", "--num-callers=30"]);
        if let Some(file) = suppressions {
            command.arg(format!("--suppressions={}", file.display()));
        }
        command.arg(format!("--error-exitcode={FOUND}")).arg(self.compile(case)?).args(case.arguments);
        preload.apply(&mut command);
        // A window that fits into the address space that valgrind leaves, whatever the machine.
        command.env("HAKMEM_WINDOW_BYTES", "4G").env("EXPECT_LIBRARY", "hakmem").envs(level.variable());
        launch::clean_environment(self.project, &mut command);
        launch::wait_for_at_most(&mut command, LIMIT).context("valgrind does not start")
    }

    fn compile(&self, case: &Case) -> Result<PathBuf> {
        let program = self.scratch.join(case.source.replace('.', "_"));
        let is_cpp = case.source.ends_with("pp");
        let (compiler, standard) = if is_cpp { ("c++", "-std=c++17") } else { ("cc", "-std=gnu11") };
        let source = self.project.root().join("crates/preload/tests/c").join(case.source);
        let mut compile = Command::new(compiler);
        compile.args([standard, "-O1", "-g", "-pthread", "-o"]).args([&program, &source]).arg("-ldl");
        ensure!(compile.status()?.success(), "{compiler} does not compile {}", case.source);
        Ok(program)
    }
}
