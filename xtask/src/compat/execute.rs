//! One run of one case, in a directory of its own.
//!
//! **Invariants.** The library is a copy made before the first run, so that a build that goes on beside does not change it half way.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::cases::Case;
use super::judge::Outcome;
use crate::launch::{self, Preload};
use crate::level::Level;
use crate::project::Project;
use crate::report::Summary;

/// The libraries of all runs of one call, where every user may read them: a server may leave root's rights before it loads them.
pub struct Libraries {
    directory: TempDir,
    saboteur: Option<PathBuf>,
}

impl Libraries {
    /// Builds the preload library, and with `sabotage` the saboteur, and copies them.
    pub fn new(project: &Project, sabotage: bool) -> Result<Self> {
        let directory = public_directory()?;
        fs::copy(project.preload_library()?, directory.path().join("libhakmem.so"))
            .context("cannot copy the library")?;
        let mut libraries = Self { directory, saboteur: None };
        if sabotage {
            let saboteur = libraries.directory.path().join("libsaboteur.so");
            let source = project.root().join("compat").join("saboteur.c");
            let mut compiler = Command::new("cc");
            compiler.args(["-O1", "-fPIC", "-shared", "-Wall", "-Werror", "-o"]).arg(&saboteur).arg(source).arg("-ldl");
            ensure!(compiler.status().context("cc does not start")?.success(), "the saboteur does not compile");
            libraries.saboteur = Some(saboteur);
        }
        Ok(libraries)
    }

    fn apply(&self, case: &Case, level: Level, reports: PathBuf, command: &mut Command) -> Result<()> {
        let library = self.directory.path().join("libhakmem.so");
        Preload::new(library.clone(), reports)?.apply(command);
        command.envs(level.variable());
        if let Some(saboteur) = &self.saboteur {
            let mut both = saboteur.clone().into_os_string();
            both.push(":");
            both.push(&library);
            command.env("LD_PRELOAD", both).env("COMPAT_SABOTAGE", case.program);
        }
        Ok(())
    }
}

/// What one run is under, and how long it may take.
pub struct Run<'a> {
    /// hakmem and the level; nothing for the run that others are compared with.
    pub under: Option<(&'a Libraries, Level)>,
    /// After this the run is killed.
    pub limit: Duration,
    /// How long the stress case runs.
    pub stress_seconds: u64,
}

/// Runs a case in an empty directory; its output and reports go to files beside that directory, so that no pipe can fill up.
pub fn execute(project: &Project, case: &Case, run: &Run<'_>) -> Result<Outcome> {
    let directory = public_directory()?;
    let inside = |name: &str| directory.path().join(name);
    fs::create_dir(inside("work"))?;
    fs::create_dir(inside("reports"))?;
    fs::set_permissions(inside("reports"), Permissions::from_mode(0o1777))?;
    let inputs = project.root().join("compat").join(case.name);
    let mut command = Command::new("bash");
    command
        .arg(inputs.join("run.sh"))
        .current_dir(inside("work"))
        .env("COMPAT_DIR", &inputs)
        .env("TMPDIR", inside("work"))
        .env("COMPAT_STRESS_SECONDS", run.stress_seconds.to_string())
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(File::create(inside("stdout"))?)
        .stderr(File::create(inside("stderr"))?);
    launch::clean_environment(project, &mut command);
    if let Some((libraries, level)) = run.under {
        libraries.apply(case, level, inside("reports"), &mut command)?;
    }
    let limit = run.limit + Duration::from_secs(run.stress_seconds);
    let finished = launch::wait_for_at_most(&mut command, limit).context("bash does not start")?;
    Ok(Outcome {
        finished,
        stdout: fs::read(inside("stdout"))?,
        stderr: String::from_utf8_lossy(&fs::read(inside("stderr"))?).into_owned(),
        reports: run.under.map(|_| Summary::read(&inside("reports"))),
    })
}

fn public_directory() -> Result<TempDir> {
    let directory = tempfile::Builder::new().prefix("hakmem-compat-").tempdir().context("no temporary directory")?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    Ok(directory)
}

/// Whether a need of a case is there: a program in the path, or a file that no program of a telling name stands for.
pub fn is_there(need: &str) -> bool {
    if need.starts_with('/') { Path::new(need).exists() } else { launch::find_program(need).is_some() }
}
