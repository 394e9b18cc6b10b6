//! How programs get what they read: compiled from `benches/programs`, or generated, and only when it is out of date.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};

use super::Places;

/// Needs of the programs that are compiled here.
pub const COMPILER: (&str, &str) = ("g++", "g++");

/// Where sources and scripts are kept.
fn kept(places: &Places, file: &str) -> PathBuf {
    places.root.join("benches/programs").join(file)
}

/// Makes the file `name` of the inputs unless it is newer than `sources`. `make` writes a file beside it, which becomes this one
/// when it is whole.
pub fn made(places: &Places, name: &str, sources: &[PathBuf], make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let time = |path: &Path| -> Option<SystemTime> { path.metadata().and_then(|found| found.modified()).ok() };
    let file = places.inputs.join(name);
    if time(&file).is_some_and(|made| sources.iter().all(|source| time(source).is_some_and(|source| source < made))) {
        return Ok(());
    }
    let unfinished = places.inputs.join(format!("unfinished-{name}"));
    make(&unfinished)?;
    std::fs::rename(&unfinished, &file).with_context(|| format!("cannot keep {}", file.display()))
}

/// Makes a text file from a generator of this program.
pub fn generated(places: &Places, name: &str, text: impl FnOnce() -> String) -> Result<()> {
    let this = std::env::current_exe().context("which program is this?")?;
    made(places, name, &[this], |file| std::fs::write(file, text()).context("cannot write"))
}

/// Compiles a C or C++ source of `benches/programs` into the program of the inputs.
pub fn compiled(places: &Places, source: &str) -> Result<()> {
    let file = kept(places, source);
    let is_c = file.extension() == Some(OsStr::new("c"));
    let sources = [file.clone(), kept(places, "common.h"), std::env::current_exe().context("which program is this?")?];
    made(places, "program", &sources, |output| {
        let mut compiler = Command::new(if is_c { "gcc" } else { "g++" });
        compiler.arg(if is_c { "-std=gnu11" } else { "-std=c++17" });
        // Without the builtin the compiler may not drop a pair of allocation and free.
        compiler.args(["-O2", "-pthread", "-fno-builtin-malloc", "-o"]).arg(output).arg(&file).arg("-lm");
        checked(&mut compiler)
    })
}

/// Runs a command of a preparation, which must succeed.
pub fn checked(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{} does not start", command.get_program().display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} ended with {}: {said}", command.get_program().display(), output.status);
    Ok(())
}

/// The program that [`compiled`] made, with these arguments.
pub fn program(places: &Places, arguments: &[&str]) -> Command {
    let mut command = Command::new(places.inputs.join("program"));
    command.args(arguments);
    command
}

/// A program of the system with a script of `benches/programs/applications`.
pub fn script(places: &Places, words: &[&str], file: &str) -> Command {
    let mut command = words_of(words);
    command.arg(kept(places, "applications").join(file));
    command
}

/// A program of the system with one of its inputs as last argument.
pub fn reads(places: &Places, words: &[&str], input: &str) -> Command {
    let mut command = words_of(words);
    command.arg(places.inputs.join(input));
    command
}

fn words_of(words: &[&str]) -> Command {
    let (program, arguments) = words.split_first().unwrap_or((&"false", &[]));
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_made_again_only_when_its_source_is_newer() {
        let scratch = tempfile::tempdir().unwrap();
        let places = Places { root: scratch.path(), inputs: scratch.path() };
        let source = scratch.path().join("source");
        std::fs::write(&source, "1").unwrap();
        let long_ago = SystemTime::now() - std::time::Duration::from_secs(1000);
        let set_time =
            |path: &Path, time| std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        set_time(&source, long_ago);
        let mut times_made = 0;
        let mut make = || {
            let write = |file: &Path| {
                times_made += 1;
                std::fs::write(file, "made").context("cannot write")
            };
            made(&places, "input", std::slice::from_ref(&source), write).unwrap();
        };
        make();
        make();
        set_time(&scratch.path().join("input"), long_ago - std::time::Duration::from_secs(1));
        make();
        assert_eq!(times_made, 2);
    }

    #[test]
    fn preparation_that_fails_leaves_no_input() {
        let scratch = tempfile::tempdir().unwrap();
        let places = Places { root: scratch.path(), inputs: scratch.path() };
        assert!(made(&places, "input", &[], |_| anyhow::bail!("no")).is_err());
        assert!(!scratch.path().join("input").exists());
    }
}
