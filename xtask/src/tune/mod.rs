//! `cargo xtask tune` and `cargo xtask learn-report`: hakmem-tune with a fresh library, on a program of the caller's, on the
//! benchmarks of the project, or on its long-running programs.

mod report;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::bench::searched;
use crate::launch;
use crate::project::Project;

pub use report::{Options as ReportOptions, report};

/// What the command line chose.
#[derive(clap::Args)]
pub struct Options {
    /// One policy for the benchmarks of this suite, with less work each, instead of a program of the caller's (may be repeated).
    #[arg(long, value_enum, value_name = "SUITE")]
    suite: Vec<Asked>,
    /// Of the suites, only programs whose name contains this, comma-separated.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    program: Vec<String>,
    /// Judge this policy in pairs with the defaults (`hakmem-tune judge`) instead of searching one.
    #[arg(long, value_name = "FILE")]
    judge: Option<PathBuf>,
    /// A program of the suites that is not installed does not fail the command.
    #[arg(long)]
    allow_missing: bool,
    /// Options of `hakmem-tune run` (or `judge`), then, without a suite, `--` and the program with its arguments.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required_unless_present = "suite",
        value_name = "[OPTIONS] -- CMD"
    )]
    arguments: Vec<OsString>,
}

/// Programs that one policy may be searched for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Asked {
    /// Of the preload suite.
    Preload,
    /// Of the Rust suite.
    Rust,
    /// The long-running programs of `learn-report`.
    Phases,
}

/// Runs `hakmem-tune` with the caller's arguments.
pub fn tune(project: &Project, options: &Options) -> Result<ExitCode> {
    let tools = Tools::build(project)?;
    let mut command = tools.command(project, if options.judge.is_some() { "judge" } else { "run" });
    if let Some(policy) = &options.judge {
        command.arg("--policy").arg(policy);
    }
    if options.suite.is_empty() {
        // `--` before a command without options has been taken by the parser.
        if options.arguments.first().is_some_and(|first| !first.to_string_lossy().starts_with('-')) {
            command.arg("--");
        }
    } else {
        command.arg("--programs").arg(programs(project, options)?);
    }
    let status = command.args(&options.arguments).status().context("hakmem-tune does not start")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prepares the programs of the suites, and writes the file that names them.
fn programs(project: &Project, options: &Options) -> Result<PathBuf> {
    #[derive(serde::Serialize)]
    struct File {
        program: Vec<searched::Entry>,
    }
    let is_wanted =
        |name: &str| options.program.is_empty() || options.program.iter().any(|part| name.contains(part.as_str()));
    let (mut program, mut missing) = (Vec::new(), Vec::new());
    for suite in &options.suite {
        let (found, gone) = match suite {
            Asked::Preload => searched::of_preload(project, &is_wanted)?,
            Asked::Rust => (searched::of_rust(project, &is_wanted)?, Vec::new()),
            Asked::Phases => report::entries(project, &is_wanted)?,
        };
        program.extend(found);
        missing.extend(gone);
    }
    ensure!(!program.is_empty() || !missing.is_empty(), "no program has such a name");
    for name in &missing {
        eprintln!("NOT RUN: {name}");
    }
    ensure!(missing.is_empty() || options.allow_missing, "programs are missing; --allow-missing goes on without them");
    let place = project.target().join("tune");
    std::fs::create_dir_all(&place)?;
    let path = place.join("programs.toml");
    std::fs::write(&path, toml::to_string(&File { program })?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The tool and the library that it measures.
struct Tools {
    binary: PathBuf,
    library: PathBuf,
}

impl Tools {
    fn build(project: &Project) -> Result<Self> {
        let library = project.preload_library()?;
        project.build(&["--profile", "xtask", "--package", "hakmem-tune"])?;
        let binary = project.target().join("xtask").join("hakmem-tune");
        ensure!(binary.is_file(), "cargo built hakmem-tune, but {} is not there", binary.display());
        Ok(Self { binary, library })
    }

    fn command(&self, project: &Project, task: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg(task).arg("--library").arg(&self.library);
        launch::clean_environment(project, &mut command);
        command
    }
}
