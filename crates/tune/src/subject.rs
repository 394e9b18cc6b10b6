//! What a program runs with: an allocator, by its library, and the variables that set it up.
//!
//! **Invariants.** Nothing of the caller's environment tunes an allocator: `LD_PRELOAD` and all `HAKMEM_*` variables are taken
//! away first. A run that ends badly is no measurement.

use std::ffi::OsString;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use hakmem_policy::FrozenPolicy;
use hakmem_policy::file::{Knobs, write_policy};

use crate::measure::{self, Usage};
use crate::sites::{self, Site};

/// An allocator with its settings.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What tables call it.
    pub name: String,
    /// Its library.
    pub library: PathBuf,
    /// Its variables.
    pub variables: Vec<(String, OsString)>,
    /// The policy of hakmem. It is handed over as a file, defaults too: what runs is what may be written, and costs the same to read.
    pub policy: Option<FrozenPolicy>,
    /// The site rules of hakmem, which stand in the same file.
    pub sites: Vec<Site>,
}

impl Subject {
    /// hakmem with a policy.
    pub fn hakmem(library: &Path, policy: FrozenPolicy) -> Self {
        Self {
            name: "hakmem".to_owned(),
            library: library.to_owned(),
            variables: Vec::new(),
            policy: Some(policy),
            sites: Vec::new(),
        }
    }

    /// The same with site rules.
    pub fn with_sites(self, sites: &[Site]) -> Self {
        Self { sites: sites.to_vec(), ..self }
    }

    /// Another allocator.
    pub fn peer(name: &str, library: PathBuf) -> Self {
        Self { name: name.to_owned(), library, variables: Vec::new(), policy: None, sites: Vec::new() }
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

/// How a program comes by the allocator's library.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Library {
    /// It is preloaded into the command and all that this starts.
    #[default]
    Preloaded,
    /// The command finds the path in this variable, and preloads the library into what is to be measured.
    Named(String),
    /// hakmem is linked into the program.
    Inside,
}

/// A program and its arguments, to be run many times.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// What tables call it; where it is empty, its command does.
    pub name: String,
    /// Program and arguments; not empty.
    pub command: Vec<OsString>,
    /// Its variables.
    pub variables: Vec<(String, String)>,
    /// How it comes by the library.
    pub library: Library,
    /// Each run has an empty directory of its own to work in.
    pub scratch: bool,
    /// The longest that a run may take.
    pub limit: Duration,
}

impl Program {
    /// One run.
    pub fn run(&self, subject: &Subject) -> Result<Usage> {
        self.run_and_listen(subject).map(|(usage, _)| usage)
    }

    /// One run, and what it said on stderr.
    fn run_and_listen(&self, subject: &Subject) -> Result<(Usage, String)> {
        let (program, arguments) = self.command.split_first().context("no program was named")?;
        let mut errors = tempfile::tempfile().context("no temporary file")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors.try_clone()?);
        for (name, _) in std::env::vars_os() {
            if name.as_bytes().starts_with(b"HAKMEM_") || name == "LD_PRELOAD" {
                command.env_remove(name);
            }
        }
        match &self.library {
            Library::Preloaded => _ = command.env("LD_PRELOAD", &subject.library),
            Library::Named(variable) => _ = command.env(variable, &subject.library),
            Library::Inside => {}
        }
        let scratch = if self.scratch { Some(tempfile::tempdir().context("no temporary directory")?) } else { None };
        if let Some(scratch) = &scratch {
            command.current_dir(scratch.path()).env("TMPDIR", scratch.path());
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let file = subject.policy.as_ref().map(|policy| file_of(policy, &subject.sites)).transpose()?;
        if let Some(file) = &file {
            command.env("HAKMEM_POLICY", file.path());
        }
        command.envs(subject.variables.iter().map(|(name, value)| (name, value)));
        let finished = measure::run(&mut command, self.limit)
            .with_context(|| format!("{} cannot be started", program.to_string_lossy()))?;
        let mut said = Vec::new();
        errors.rewind()?;
        errors.read_to_end(&mut said)?;
        let said = String::from_utf8_lossy(&said).into_owned();
        if let Some(trouble) = finished.trouble() {
            let lines: Vec<&str> = said.lines().collect();
            let last = lines.get(lines.len().saturating_sub(5)..).unwrap_or_default();
            bail!("{} under {}: {trouble}\n{}", self.called(), subject.name, last.join("\n"));
        }
        Ok((finished.usage, said))
    }

    /// What tables call it.
    pub fn called(&self) -> String {
        if self.name.is_empty() { self.shown() } else { self.name.clone() }
    }

    /// The command as somebody would type it, about.
    pub fn shown(&self) -> String {
        let shown = |word: &OsString| {
            let word = word.to_string_lossy();
            if word.is_empty() || word.contains(' ') { format!("'{word}'") } else { word.into_owned() }
        };
        self.command.iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    /// What makes its runs differ from those of another program: all but the name, and the limit, within which every measured run was.
    pub fn setup(&self) -> String {
        let scratch = if self.scratch { ", in an empty directory" } else { "" };
        format!("{:?} with {:?}, {:?}{scratch}", self.command, self.variables, self.library)
    }

    /// Fails if the program does not take its memory from the library, as programs do that are linked statically, or if the
    /// library knows no policy files: then nothing that is measured would mean anything.
    pub fn check_that_it_listens(&self, library: &Path) -> Result<()> {
        let reports = tempfile::tempdir().context("no temporary directory")?;
        let mut pattern = reports.path().as_os_str().to_owned();
        pattern.push("/%p.json");
        let subject = Subject::hakmem(library, FrozenPolicy::DEFAULT);
        let (_, said) = self.run_and_listen(&subject.with("HAKMEM_STATS_FILE", pattern).with("HAKMEM_VERBOSE", "1"))?;
        if self.is_preloaded_into_a_shell() {
            ensure!(
                one_is_no_shell(reports.path())?,
                "of what the shell of {} starts, nothing is known to use {}: give a program without a shell before it",
                self.called(),
                library.display()
            );
        } else {
            // Some programs end without reports, others keep their start to themselves.
            ensure!(
                said.contains("hakmem: ") || std::fs::read_dir(reports.path())?.next().is_some(),
                "{} did not use {}: is it linked statically, or does it clear its environment?",
                self.called(),
                library.display()
            );
        }
        if let Some(complaint) = said.lines().find(|line| line.contains("HAKMEM_POLICY")) {
            bail!("{} does not take a policy file: {complaint}", library.display());
        }
        Ok(())
    }

    /// Whether the command is a text for a shell, which takes its memory from the library whatever becomes of the programs in the text.
    fn is_preloaded_into_a_shell(&self) -> bool {
        let [shell, option, ..] = &self.command[..] else { return false };
        let name = Path::new(shell).file_name().unwrap_or_default().to_string_lossy();
        self.library == Library::Preloaded && SHELLS.contains(&&*name) && option == "-c"
    }
}

const SHELLS: [&str; 4] = ["sh", "dash", "bash", "zsh"];

/// Whether one of the reports is by another program than a shell.
fn one_is_no_shell(reports: &Path) -> Result<bool> {
    for entry in std::fs::read_dir(reports)? {
        let report = std::fs::read_to_string(entry?.path())?;
        let program = report.split_once("\"program\":\"").and_then(|(_, rest)| rest.split('"').next());
        if program.is_some_and(|program| !SHELLS.contains(&program)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A policy as a file, which is gone when the run is over.
fn file_of(policy: &FrozenPolicy, sites: &[Site]) -> Result<tempfile::NamedTempFile> {
    let mut text = String::new();
    write_policy(policy, Knobs::Changed, &mut text).context("cannot write a policy")?;
    text.push_str(&sites::rules_of(sites)?);
    let mut file = tempfile::NamedTempFile::new().context("no temporary file")?;
    file.write_all(text.as_bytes())?;
    Ok(file)
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
    preloadable(found)
}

/// The library of another allocator. The loader leaves out what it cannot load with no more than a line on stderr.
pub fn find_peer(named: &Path) -> Result<PathBuf> {
    let found = preloadable(named)?;
    let probe = Command::new("/bin/true").env("LD_PRELOAD", &found).output().context("/bin/true does not start")?;
    let said = String::from_utf8_lossy(&probe.stderr);
    let is_taken = probe.status.success() && !said.contains("cannot be preloaded");
    ensure!(is_taken, "the loader does not take {}: {}", found.display(), said.trim());
    Ok(found)
}

/// A library's path as the dynamic loader takes it, whatever directory a program works in.
fn preloadable(library: &Path) -> Result<PathBuf> {
    let found = library.canonicalize().with_context(|| format!("no library at {}", library.display()))?;
    // The dynamic loader splits LD_PRELOAD at spaces and colons and knows no escape.
    ensure!(!found.to_string_lossy().contains([' ', ':']), "LD_PRELOAD cannot name {}", found.display());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Document;

    #[test]
    fn only_a_text_for_a_shell_that_is_preloaded_itself_stands_behind_a_shell() {
        let behind = |words: &[&str], library| {
            let command = words.iter().map(OsString::from).collect();
            Program { command, library, ..Program::default() }.is_preloaded_into_a_shell()
        };
        assert!(behind(&["/bin/sh", "-c", "sort x"], Library::Preloaded));
        assert!(!behind(&["sh", "-c", "sort x"], Library::Named("PATH_OF_IT".to_owned())));
        assert!(!behind(&["bash", "script"], Library::Preloaded) && !behind(&["sort", "-c", "x"], Library::Preloaded));
    }

    #[test]
    fn the_file_of_a_run_has_the_site_rules_of_its_policy() {
        let text =
            b"version = 1\n[knobs]\npurge_delay_ms = 7\n[[site]]\ncalls = 'p+0x1 q+0x2'\nbytes = [5, 9]\nkeep_ms = 3\n\
                     [site.evidence]\nblocks = 4\n[[site]]\ncalls = 'p+0x9'\npages = 'huge'\n";
        let document = Document::from_text(text, "x").unwrap();
        let again = Document::read(file_of(&document.policy, &document.sites).unwrap().path()).unwrap();
        assert_eq!(again.policy, document.policy);
        assert_eq!(sites::named(&again.sites), sites::named(&document.sites));
        assert_eq!(again.sites.len(), 2);
    }

    #[test]
    fn a_shell_is_no_proof_and_what_it_starts_is() {
        let reports = tempfile::tempdir().unwrap();
        let report = |name: &str, program: &str| {
            let text = format!("{{\"pid\":1,\"program\":\"{program}\",\"mode\":\"FROZEN\"}}\n");
            std::fs::write(reports.path().join(name), text).unwrap();
        };
        assert!(!one_is_no_shell(reports.path()).unwrap());
        report("1.json", "bash");
        assert!(!one_is_no_shell(reports.path()).unwrap());
        report("2.json", "sort");
        assert!(one_is_no_shell(reports.path()).unwrap());
    }
}
