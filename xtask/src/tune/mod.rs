//! `cargo xtask tune` and `cargo xtask learn-report`: hakmem-tune with a fresh library, on a program of the caller's or on the
//! long-running programs of the project.

mod report;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::launch;
use crate::project::Project;

pub use report::{Options as ReportOptions, report};

/// Runs `hakmem-tune run` with the caller's arguments.
pub fn tune(project: &Project, arguments: &[OsString]) -> Result<ExitCode> {
    let tools = Tools::build(project)?;
    let mut command = tools.command(project, "run");
    // `--` before a command without options has been taken by the parser.
    if arguments.first().is_some_and(|first| !first.to_string_lossy().starts_with('-')) {
        command.arg("--");
    }
    let status = command.args(arguments).status().context("hakmem-tune does not start")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
