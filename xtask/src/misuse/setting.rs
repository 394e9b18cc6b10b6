//! What the suite runs under: the levels of hakmem, and other allocators beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::level::Level;

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
    variable: Option<(&'static str, &'static str)>,
    expected: String,
}

impl Setting {
    /// Makes `command` run under the allocator; the program refuses to run if its `malloc` is another's.
    pub fn apply(&self, command: &mut Command) {
        command.env("EXPECT_LIBRARY", &self.expected);
        if let Some(library) = &self.library {
            command.env("LD_PRELOAD", library);
        }
        command.envs(self.variable);
    }
}

/// The levels of hakmem, or those that were asked for; where there are samples, every allocation is one.
pub fn levels(only: &[Level], library: &Path) -> Vec<Setting> {
    let expected = library.file_name().unwrap_or_default().to_string_lossy();
    let setting = |level: Level| Setting {
        name: level.name().to_owned(),
        is_hakmem: true,
        library: Some(library.to_owned()),
        variable: level.variable_sampling("1"),
        expected: expected.clone().into_owned(),
    };
    Level::ALL.into_iter().filter(|level| only.is_empty() || only.contains(level)).map(setting).collect()
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
