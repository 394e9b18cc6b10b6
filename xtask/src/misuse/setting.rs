//! What the suite runs under: the levels of hakmem, and other allocators beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

/// Levels of hakmem and the variable that switches each on.
const LEVELS: [(&str, Option<&str>); 3] =
    [("default", None), ("hardened", Some("HAKMEM_HARDENED")), ("sampled", Some("HAKMEM_SAMPLE"))];

/// Other allocators: name, Debian package, and the library to preload (none for the C library's own).
const PEERS: [(&str, &str, Option<&str>); 4] = [
    ("glibc", "libc6", None),
    ("mimalloc", "libmimalloc2.0", Some("libmimalloc.so.2.0")),
    ("jemalloc", "libjemalloc2", Some("libjemalloc.so.2")),
    ("tcmalloc", "libtcmalloc-minimal4", Some("libtcmalloc_minimal.so.4")),
];

/// One column of the table.
pub struct Setting {
    /// The heading of its column.
    pub name: String,
    /// One of hakmem's levels.
    pub is_hakmem: bool,
    library: Option<PathBuf>,
    variable: Option<&'static str>,
    expected: String,
}

impl Setting {
    /// Makes `command` run under the allocator; the program refuses to run if its `malloc` is another's.
    pub fn apply(&self, command: &mut Command) {
        command.env("EXPECT_LIBRARY", &self.expected);
        if let Some(library) = &self.library {
            command.env("LD_PRELOAD", library);
        }
        if let Some(variable) = self.variable {
            command.env(variable, "1");
        }
    }
}

/// Names of the levels, as columns.
pub fn level_names() -> impl Iterator<Item = &'static str> {
    LEVELS.iter().map(|(name, _)| *name)
}

/// The levels of hakmem, or those that were asked for.
pub fn levels(only: &[String], library: &Path) -> Result<Vec<Setting>> {
    for name in only {
        let known = level_names().collect::<Vec<_>>().join(", ");
        ensure!(level_names().any(|level| level == name), "there is no level `{name}`; there are {known}");
    }
    let chosen = LEVELS.iter().filter(|(name, _)| only.is_empty() || only.iter().any(|asked| asked == name));
    let registry = hakmem_policy::env_vars_markdown();
    let setting = |&(name, variable): &(&str, Option<&'static str>)| {
        if let Some(variable) = variable.filter(|variable| !registry.contains(&format!("`{variable}`"))) {
            eprintln!("xtask: {variable} is not in the registry: level `{name}` is the default one under another name");
        }
        let expected = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Setting { name: name.to_owned(), is_hakmem: true, library: Some(library.to_owned()), variable, expected }
    };
    Ok(chosen.map(setting).collect())
}

/// The other allocators that are installed, with their versions in the name. What is missing is said.
pub fn peers() -> Vec<Setting> {
    let mut found = Vec::new();
    for (name, package, library) in PEERS {
        let Some(version) = version_of(package) else {
            eprintln!("xtask: {package} is not installed: no column for {name}");
            continue;
        };
        found.push(Setting {
            name: format!("{name} {version}"),
            is_hakmem: false,
            library: library.map(PathBuf::from),
            variable: None,
            expected: library.map_or("libc.so", |_| name).to_owned(),
        });
    }
    found
}

/// Upstream's part of the version of an installed Debian package.
fn version_of(package: &str) -> Option<String> {
    let mut command = Command::new("dpkg-query");
    let output = command.args(["--show", "--showformat=${Version}", package]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let version: String = text.chars().take_while(|mark| mark.is_ascii_digit() || *mark == '.').collect();
    (output.status.success() && !version.is_empty()).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_that_does_not_exist_is_refused() {
        assert!(levels(&["hard".to_owned()], Path::new("lib.so")).is_err());
        let chosen = levels(&["default".to_owned()], Path::new("lib.so")).unwrap();
        assert_eq!(chosen.iter().map(|level| level.name.as_str()).collect::<Vec<_>>(), ["default"]);
    }
}
