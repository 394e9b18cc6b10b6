//! The programs of `misuse/`: compiled into one, asked for its list of cases, and run one case per process.
//!
//! **Invariants.** Every source of the directory is compiled; a case is named once; a run that outlives its limit is killed and counts as not caught.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::outcome::{Outcome, Success};
use super::setting::Setting;
use crate::launch;

/// Far more than a case needs, so that only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(30);

/// Nothing optimised, no call of the malloc family understood as one; the warnings that the mistakes deserve are off.
const FLAGS: [&str; 10] = [
    "-O0",
    "-g",
    "-fno-builtin",
    "-pthread",
    "-Wall",
    "-Wextra",
    "-Wno-use-after-free",
    "-Wno-free-nonheap-object",
    "-Wno-mismatched-dealloc",
    "-Wno-alloc-size-larger-than",
];

/// A mistake with the size of the block that it is made with.
pub struct Case {
    /// Source file, which is also the group it is listed under.
    pub file: String,
    line: u32,
    /// Name of the mistake.
    pub name: String,
    /// `small`, `mid`, `run`, `big`, or `-`.
    pub size: String,
    /// What counts as caught.
    pub success: Success,
    /// The default level has to catch it.
    pub in_default_bar: bool,
    /// The mistake in words.
    pub what: String,
}

/// The compiled suite.
pub struct Suite {
    binary: PathBuf,
    /// Its cases, in the order of the sources.
    pub cases: Vec<Case>,
}

impl Suite {
    /// Compiles `sources` into `scratch`.
    pub fn build(sources: &Path, scratch: &Path) -> Result<Self> {
        let binary = scratch.join("misuse");
        let mut link = Command::new("c++");
        link.arg("-pthread").arg("-o").arg(&binary);
        let mut paths: Vec<PathBuf> = std::fs::read_dir(sources)
            .with_context(|| format!("cannot list {}", sources.display()))?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        paths.sort();
        for path in paths {
            let (compiler, standard) = match path.extension().and_then(|extension| extension.to_str()) {
                Some("c") => ("cc", "-std=gnu11"),
                Some("cpp") => ("c++", "-std=c++17"),
                _ => continue,
            };
            let object = scratch.join(path.with_extension("o").file_name().unwrap_or_default());
            let mut compile = Command::new(compiler);
            compile.arg(standard).args(FLAGS);
            if compiler == "c++" {
                compile.arg("-Wno-mismatched-new-delete");
            }
            succeed(compile.arg("-c").arg(&path).arg("-o").arg(&object))?;
            link.arg(object);
        }
        succeed(link.arg("-ldl"))?;
        let listed = Command::new(&binary).arg("--list").output().context("the suite does not start")?;
        ensure!(listed.status.success(), "the suite does not list its cases ({})", listed.status);
        let cases = read_list(&String::from_utf8(listed.stdout)?)?;
        Ok(Self { binary, cases })
    }

    /// Runs one case under an allocator, with its mistake or as its control twin.
    pub fn run(&self, case: &Case, setting: &Setting, control: bool) -> Result<Outcome> {
        let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let mut command = Command::new(&self.binary);
        command.arg(&case.name).arg(&case.size).args(control.then_some("control"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HAKMEM_") || name == "LD_PRELOAD" {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        setting.apply(&mut command);
        let finished = launch::wait_for_at_most(&mut command, LIMIT).context("the suite does not start")?;
        Ok(Outcome::of(&finished, &text_of(&mut stdout)?, &text_of(&mut stderr)?))
    }
}

fn text_of(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn succeed(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("{name} does not start: install a C and a C++ compiler"))?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}

/// The output of `--list`: file, line, name, size, success, bar, words, separated by tabs.
pub fn read_list(text: &str) -> Result<Vec<Case>> {
    let mut cases = text.lines().map(read_case).collect::<Result<Vec<_>>>()?;
    cases.sort_by(|left, right| (&left.file, left.line).cmp(&(&right.file, right.line)));
    let mut named = BTreeSet::new();
    for case in &cases {
        ensure!(named.insert((&case.name, &case.size)), "two cases are named {} {}", case.name, case.size);
    }
    ensure!(!cases.is_empty(), "the suite has no case");
    Ok(cases)
}

fn read_case(line: &str) -> Result<Case> {
    let columns: Vec<&str> = line.splitn(7, '\t').collect();
    let [file, number, name, size, success, bar, what] = columns[..] else {
        bail!("the suite lists {line:?}, which has not seven columns");
    };
    Ok(Case {
        file: file.to_owned(),
        line: number.parse().with_context(|| format!("line of {line:?}"))?,
        name: name.to_owned(),
        size: size.to_owned(),
        success: Success::named(success).with_context(|| format!("what counts as caught in {line:?}"))?,
        in_default_bar: bar == "bar",
        what: what.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_put_in_the_order_of_the_sources() {
        let list = "b.c\t9\ttwo\tsmall\tstop\t\tsecond\nb.c\t4\tone\tsmall\treport\tbar\tfirst\n";
        let cases = read_list(list).unwrap();
        assert_eq!(cases.iter().map(|case| case.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
        assert!(cases[0].in_default_bar && !cases[1].in_default_bar);
    }

    #[test]
    fn case_with_two_meanings_is_refused() {
        let line = "b.c\t9\ttwo\tsmall\tstop\t\tsecond\n";
        assert!(read_list(&line.repeat(2)).is_err());
        assert!(read_list(&line.replace("stop", "luck")).is_err());
        assert!(read_list("").is_err());
    }
}
