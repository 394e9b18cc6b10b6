//! A file that names several programs, for which one policy is to be found.
//!
//! ```toml
//! [[program]]
//! name = "api"
//! command = ["./api", "--requests", "20000"]      # or one text, for a shell
//! variables = { API_THREADS = "2" }
//! library = "API_ALLOCATOR"                       # the variable in which the command wants the path; "inside": it is linked in
//! scratch = true                                  # each run in an empty directory of its own, which is also TMPDIR
//! ```
//!
//! Name and command are needed. Without `library` the command and all that it starts run with the library preloaded.
//!
//! **Invariants.** Names are unique, and no command is empty. A key that nobody knows is an error: a spelling mistake must not
//! measure something else.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::subject::{Library, Program};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    program: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    command: Command,
    #[serde(default)]
    variables: BTreeMap<String, String>,
    #[serde(default)]
    library: Option<String>,
    #[serde(default)]
    scratch: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Command {
    Words(Vec<String>),
    Text(String),
}

/// Reads the file.
pub fn read(path: &Path, limit: Duration) -> Result<Vec<Program>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text, limit).with_context(|| format!("{} is no list of programs", path.display()))
}

fn parse(text: &str, limit: Duration) -> Result<Vec<Program>> {
    let file: File = toml::from_str(text)?;
    ensure!(!file.program.is_empty(), "it has none");
    let mut names = BTreeSet::new();
    let mut programs = Vec::new();
    for entry in file.program {
        ensure!(!entry.name.trim().is_empty(), "a program has no name");
        ensure!(names.insert(entry.name.clone()), "two programs are called {}", entry.name);
        let words = match entry.command {
            Command::Words(words) => words,
            Command::Text(text) if text.trim().is_empty() => Vec::new(),
            Command::Text(text) => vec!["sh".to_owned(), "-c".to_owned(), text],
        };
        ensure!(!words.is_empty(), "{} has no command", entry.name);
        let library = match entry.library.as_deref() {
            None | Some("LD_PRELOAD") => Library::Preloaded,
            Some("inside") => Library::Inside,
            Some(variable) => Library::Named(variable.to_owned()),
        };
        programs.push(Program {
            name: entry.name,
            command: words.into_iter().map(OsString::from).collect(),
            variables: entry.variables.into_iter().collect(),
            library,
            scratch: entry.scratch,
            limit,
        });
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Program>> {
        parse(text, Duration::from_secs(1))
    }

    #[test]
    fn programs_are_read_with_what_they_run_with() {
        let text = "[[program]]\nname = 'a'\ncommand = ['x', 'y z']\nvariables = { B = '1' }\nscratch = true\n\
                    [[program]]\nname = 'b'\ncommand = 'one | two'\nlibrary = 'PATH_OF_IT'\n\
                    [[program]]\nname = 'c'\ncommand = ['c']\nlibrary = 'inside'\n";
        let programs = parsed(text).unwrap();
        let [a, b, c] = &programs[..] else { panic!("{programs:?}") };
        assert_eq!(a.shown(), "x 'y z'");
        assert_eq!((a.called().as_str(), a.scratch, &a.library), ("a", true, &Library::Preloaded));
        assert_eq!(a.variables, [("B".to_owned(), "1".to_owned())]);
        assert_eq!(b.shown(), "sh -c 'one | two'");
        assert_eq!((b.scratch, &b.library), (false, &Library::Named("PATH_OF_IT".to_owned())));
        assert_eq!(c.library, Library::Inside);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let one = "[[program]]\nname = 'a'\ncommand = 'x'\n";
        for (text, complaint) in [
            ("program = []", "it has none"),
            (&*format!("{one}{one}"), "two programs are called a"),
            ("[[program]]\nname = 'a'\ncommand = ' '\n", "a has no command"),
            ("[[program]]\nname = 'a'\ncommand = []\n", "a has no command"),
            ("[[program]]\nname = ''\ncommand = 'x'\n", "has no name"),
            ("[[program]]\nname = 'a'\ncommand = 'x'\nvariabels = {}\n", "variabels"),
            ("[[program]]\nname = 'a'\n", "command"),
        ] {
            let error = parsed(text).map(|_| ()).unwrap_err();
            assert!(format!("{error:#}").contains(complaint), "{error:#}");
        }
    }
}
