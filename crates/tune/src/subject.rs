//! What a program runs with: an allocator, by its library, and the variables that set it up.
//!
//! **Invariants.** Nothing of the caller's environment tunes an allocator: `LD_PRELOAD` and all `HAKMEM_*` variables are taken
//! away first. A run that ends badly is no measurement.

use std::ffi::OsString;
use std::io::{Read as _, Seek as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::knobs::{Change, variable_of};
use crate::measure::{self, Usage};

/// An allocator with its settings.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What tables call it.
    pub name: String,
    /// Its library; none for the C library's own allocator.
    pub library: Option<PathBuf>,
    /// Its variables.
    pub variables: Vec<(String, OsString)>,
}

impl Subject {
    /// hakmem with a policy that differs from the defaults by `change`.
    pub fn hakmem(library: &Path, change: &Change) -> Self {
        let set = |(field, value): (&&str, &String)| Some((variable_of(field)?.name.to_owned(), value.into()));
        Self {
            name: "hakmem".to_owned(),
            library: Some(library.to_owned()),
            variables: change.iter().filter_map(set).collect(),
        }
    }

    /// The same with one more variable.
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// The same under another name.
    pub fn called(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }
}

/// A program and its arguments, to be run many times.
#[derive(Clone, Debug)]
pub struct Program {
    /// Program and arguments; not empty.
    pub command: Vec<OsString>,
    /// The longest that a run may take.
    pub limit: Duration,
}

impl Program {
    /// One run.
    pub fn run(&self, subject: &Subject) -> Result<Usage> {
        let (program, arguments) = self.command.split_first().context("no program was named")?;
        let mut errors = tempfile::tempfile().context("no temporary file")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors.try_clone()?);
        for (name, _) in std::env::vars_os() {
            if name.as_bytes().starts_with(b"HAKMEM_") || name == "LD_PRELOAD" {
                command.env_remove(name);
            }
        }
        if let Some(library) = &subject.library {
            command.env("LD_PRELOAD", library);
        }
        command.envs(subject.variables.iter().map(|(name, value)| (name, value)));
        let finished = measure::run(&mut command, self.limit)
            .with_context(|| format!("{} cannot be started", program.to_string_lossy()))?;
        if let Some(trouble) = finished.trouble() {
            let mut text = String::new();
            errors.rewind()?;
            // A program may write anything; what is not text is of no use in a message.
            let _unreadable = errors.read_to_string(&mut text);
            let last: Vec<&str> = text.lines().rev().take(5).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            bail!("{} under {}: {trouble}\n{}", self.shown(), subject.name, last.join("\n"));
        }
        Ok(finished.usage)
    }

    /// The command as somebody would type it, about.
    pub fn shown(&self) -> String {
        let shown = |word: &OsString| {
            let word = word.to_string_lossy();
            if word.is_empty() || word.contains(' ') { format!("'{word}'") } else { word.into_owned() }
        };
        self.command.iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    /// Fails if the program does not take its memory from the library, as programs do that are linked statically.
    pub fn check_that_it_listens(&self, library: &Path) -> Result<()> {
        let reports = tempfile::tempdir().context("no temporary directory")?;
        let mut pattern = reports.path().as_os_str().to_owned();
        pattern.push("/%p.json");
        self.run(&Subject::hakmem(library, &Change::new()).with("HAKMEM_STATS_FILE", pattern))?;
        ensure!(
            std::fs::read_dir(reports.path())?.next().is_some(),
            "{} did not use {}: is it linked statically, or does it clear its environment?",
            self.shown(),
            library.display()
        );
        Ok(())
    }
}

/// The preload library: the one that was named, or one that lies where a build or an installation puts it.
pub fn find_library(named: Option<&Path>) -> Result<PathBuf> {
    let beside: Vec<PathBuf> = match named {
        Some(path) => vec![path.to_owned()],
        None => {
            let program = std::env::current_exe().context("where is this program?")?;
            let directory = program.parent().unwrap_or(Path::new("."));
            let names = ["libhakmem.so", "libhakmem_preload.so", "../lib/libhakmem.so"];
            names.iter().map(|name| directory.join(name)).collect()
        }
    };
    let Some(found) = beside.iter().find(|path| path.is_file()) else {
        let tried: Vec<String> = beside.iter().map(|path| path.display().to_string()).collect();
        bail!("no library at {}; name it with --library", tried.join(", "));
    };
    let found = found.canonicalize()?;
    // The dynamic loader splits LD_PRELOAD at spaces and colons and knows no escape.
    ensure!(!found.to_string_lossy().contains([' ', ':']), "LD_PRELOAD cannot name {}", found.display());
    Ok(found)
}
