//! The models: found in the workspace, built under `--cfg alloc_loom`, each run in a process of its own.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::launch;
use crate::project::Project;

/// How the files of models are called.
const PREFIX: &str = "loom_";
/// Longest run of one model: against a hang, so much longer than any takes on a busy machine.
const QUICK_LIMIT: Duration = Duration::from_secs(600);
const LONG_LIMIT: Duration = Duration::from_secs(3600);

/// One `#[test]` of a `tests/loom_*.rs`.
#[derive(Debug)]
pub struct Model {
    pub package: String,
    file: String,
    test: String,
    binary: PathBuf,
}

/// How a model ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Passed,
    Failed,
    TimedOut,
}

/// One run of a model.
#[derive(Debug)]
pub struct Run {
    pub outcome: Outcome,
    pub wall: Duration,
    /// `file:line` of each acquire and release that it reached.
    pub sites: BTreeSet<String>,
    output: String,
}

impl Outcome {
    pub fn describe(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::TimedOut => "TIMED OUT",
        }
    }
}

impl Model {
    /// `hakmem-remote-queue::loom_queue::every_block_…`.
    pub fn name(&self) -> String {
        format!("{}::{}::{}", self.package, self.file, self.test)
    }

    /// Runs the model. `relaxed` names the site (`file:line`) whose operations are relaxed.
    pub fn run(&self, long: bool, relaxed: Option<&str>) -> Result<Run> {
        let scratch = tempfile::tempdir().context("no temporary directory")?;
        let (output, sites) = (scratch.path().join("output"), scratch.path().join("sites"));
        let mut command = Command::new(&self.binary);
        command.args(["--exact", &self.test, "--nocapture", "--test-threads", "1"]).stdin(Stdio::null());
        let file = File::create(&output).context("cannot write to the temporary directory")?;
        command.stdout(file.try_clone()?).stderr(file);
        for name in ["HAKMEM_TEST_LOOM_LONG", "HAKMEM_TEST_LOOM_RELAX", "LOOM_MAX_PREEMPTIONS", "LOOM_MAX_BRANCHES"] {
            command.env_remove(name);
        }
        command.env("HAKMEM_TEST_LOOM_SITES", &sites).env("RUST_BACKTRACE", "0");
        if long {
            command.env("HAKMEM_TEST_LOOM_LONG", "1");
        }
        if let Some(relaxed) = relaxed {
            command.env("HAKMEM_TEST_LOOM_RELAX", relaxed);
        }
        let begin = Instant::now();
        let finished = launch::wait_for_at_most(&mut command, if long { LONG_LIMIT } else { QUICK_LIMIT })
            .with_context(|| format!("{} does not start", self.binary.display()))?;
        let outcome = match (finished.timed_out, finished.status.success()) {
            (true, _) => Outcome::TimedOut,
            (false, true) => Outcome::Passed,
            (false, false) => Outcome::Failed,
        };
        let text = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        let output = text(&output);
        ensure!(
            outcome != Outcome::Passed || output.contains("exploring: "),
            "{} passed without a word from a model: is it one?",
            self.name()
        );
        Ok(Run { outcome, wall: begin.elapsed(), sites: text(&sites).lines().map(str::to_owned).collect(), output })
    }
}

impl Run {
    /// A run that did not come about.
    fn broken(why: &str) -> Self {
        Self { outcome: Outcome::Failed, wall: Duration::ZERO, sites: BTreeSet::new(), output: why.to_owned() }
    }

    /// The last lines of what the model said.
    pub fn excerpt(&self) -> String {
        let lines: Vec<&str> = self.output.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines.iter().skip(lines.len().saturating_sub(25));
        last.map(|line| format!("    {line}\n")).collect()
    }

    /// What the model complained about: the message of its first panic.
    pub fn complaint(&self) -> String {
        let mut lines = self.output.lines().skip_while(|line| !line.contains("panicked at"));
        let place = lines.next().unwrap_or("").to_owned();
        lines.next().map_or(place, |message| message.trim().to_owned())
    }

    /// Orders of events explored, and the bound.
    fn explored(&self) -> String {
        let told: Vec<&str> =
            self.output.lines().filter_map(|line| Some(line.split_once("model: ")?.1.trim())).collect();
        told.join("; ")
    }
}

/// Builds every model, or those whose name contains `only`.
pub fn build(project: &Project, only: Option<&str>) -> Result<Vec<Model>> {
    let mut models = Vec::new();
    for package in project.packages() {
        let files: Vec<&str> =
            package.targets.iter().map(|target| target.name.as_str()).filter(|name| name.starts_with(PREFIX)).collect();
        if files.is_empty() {
            continue;
        }
        for (file, binary) in build_package(project, &package.name, &files)? {
            let listed = Command::new(&binary).args(["--list", "--format", "terse"]).output()?;
            ensure!(listed.status.success(), "{} does not list its tests", binary.display());
            let text = String::from_utf8_lossy(&listed.stdout).into_owned();
            let tests: Vec<&str> = text.lines().filter_map(|line| line.strip_suffix(": test")).collect();
            ensure!(!tests.is_empty(), "{}::{file} has no model", package.name);
            models.extend(tests.into_iter().map(|test| Model {
                package: package.name.to_string(),
                file: file.clone(),
                test: test.to_owned(),
                binary: binary.clone(),
            }));
        }
    }
    models.retain(|model| only.is_none_or(|only| model.name().contains(only)));
    if models.is_empty() {
        bail!("no model to run");
    }
    Ok(models)
}

/// Builds the model files of one package: in one cargo call the packages' features would add up.
fn build_package(project: &Project, package: &str, files: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    let mut command = project.cargo([
        "test",
        "--quiet",
        "--no-run",
        "--message-format",
        "json-render-diagnostics",
        "--package",
        package,
    ]);
    for file in files {
        command.args(["--test", file]);
    }
    let built = as_models(project, &mut command).stderr(Stdio::inherit()).output().context("cargo does not start")?;
    ensure!(built.status.success(), "the models of {package} do not build");
    let mut binaries = Vec::new();
    for message in cargo_metadata::Message::parse_stream(built.stdout.as_slice()) {
        if let cargo_metadata::Message::CompilerArtifact(artifact) = message?
            && let Some(binary) = artifact.executable
            && files.contains(&artifact.target.name.as_str())
        {
            binaries.push((artifact.target.name, binary.into_std_path_buf()));
        }
    }
    ensure!(
        binaries.len() == files.len(),
        "cargo built {} of {} model files of {package}",
        binaries.len(),
        files.len()
    );
    Ok(binaries)
}

/// Clippy's opinion of the models, which no other build contains.
pub fn lint(project: &Project) -> Result<bool> {
    let mut command = project.cargo(["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]);
    Ok(as_models(project, &mut command).status().context("cargo does not start")?.success())
}

/// Has cargo build the boxes for models. RUSTFLAGS reach every dependency, so these builds have a directory of their own.
fn as_models<'a>(project: &Project, command: &'a mut Command) -> &'a mut Command {
    let mut flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    flags.push_str(" --cfg alloc_loom");
    command.env("RUSTFLAGS", flags.trim()).env("CARGO_TARGET_DIR", project.target().join("loom"))
}

/// Runs all models, as many at a time as there are processors, and says what each explored.
pub fn run_all(models: &[Model], long: bool) -> Vec<Run> {
    in_parallel(models.len(), |index| {
        let Some(model) = models.get(index) else { return Run::broken("no such model") };
        let run = model.run(long, None).unwrap_or_else(|error| Run::broken(&format!("{error:#}")));
        println!(
            "{:<9} {:>6.1} s  {}  [{}]",
            run.outcome.describe(),
            run.wall.as_secs_f64(),
            model.name(),
            run.explored()
        );
        run
    })
}

/// Calls `work` for every index, on every processor, and returns the results in order.
pub fn in_parallel<R: Send>(count: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let results: Vec<Mutex<Option<R>>> = (0..count).map(|_| Mutex::new(None)).collect();
    let indices = Mutex::new(0..count);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let next = indices.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((index, slot)) = next.and_then(|index| Some((index, results.get(index)?))) else { return };
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(work(index));
                }
            });
        }
    });
    results.into_iter().filter_map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}
