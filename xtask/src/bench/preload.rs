//! The preload suite: programs that know nothing of an allocator, with each one's library in front of the C library.
//!
//! **Invariants.** A library that the loader would leave out is an error, not a run under the C library's allocator.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::job::{Expected, Job};
use super::machine::forget_how_written;
use super::programs::{Output, Places, Preload, Program};
use super::results::{Allocator, Row, Suite, Unit};
use crate::launch;
use crate::project::{Project, copied};

/// Peers unless the caller names others.
pub const PEERS: [&str; 8] =
    ["mimalloc2", "mimalloc2.3", "mimalloc3", "jemalloc", "tcmalloc", "snmalloc", "rpmalloc", "glibc"];

/// Where the library of a peer comes from.
enum Source {
    /// The C library has its own.
    None,
    /// A Debian package, and the file's name in it.
    Debian(&'static str, &'static str),
    /// Built from the crate, with this feature of the package with all such libraries.
    Crate(&'static str, &'static str),
}

const SOURCES: [(&str, Source); 8] = [
    ("glibc", Source::None),
    ("mimalloc2", Source::Debian("libmimalloc2.0", "libmimalloc.so.2.0")),
    ("jemalloc", Source::Debian("libjemalloc2", "libjemalloc.so.2")),
    ("tcmalloc", Source::Debian("libtcmalloc-minimal4", "libtcmalloc_minimal.so.4")),
    // As of 2025: another arena, and 4 MiB more in every process than the one before.
    ("mimalloc2.3", Source::Crate("mimalloc-v2", "libmimalloc-sys")),
    ("mimalloc3", Source::Crate("mimalloc", "libmimalloc-sys")),
    ("snmalloc", Source::Crate("snmalloc", "snmalloc-sys")),
    ("rpmalloc", Source::Crate("rpmalloc", "rpmalloc-sys")),
];

/// The variable in which a program that preloads by itself finds the library.
pub const LIBRARY: &str = "BENCH_LIBRARY";

const PEER_PACKAGE: &str = "hakmem-peer-library";

/// An allocator as a library.
pub struct Library {
    pub name: String,
    pub version: String,
    /// `None` is the C library.
    path: Option<PathBuf>,
}

/// The preload library as it is now, copied so that a build beside does not change it half way.
pub fn hakmem(project: &Project, build: &Path) -> Result<Library> {
    let path = keep(&project.preload_library()?, build, "hakmem")?;
    Ok(Library { name: "hakmem".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned(), path: Some(path) })
}

/// The same with one of the layouts that are there to be measured. In the directory of benchmarks: the library of everything else
/// that the project runs stays what it is.
pub fn with_layout(project: &Project, build: &Path, layout: &str) -> Result<Library> {
    eprintln!("building the preload library with {layout}");
    let (directory, feature) = (build.to_string_lossy(), format!("ablation-{layout}"));
    project.build(&["--release", "--package", "hakmem-preload", "--features", &feature, "--target-dir", &directory])?;
    let path = keep(&build.join("release").join("libhakmem_preload.so"), build, &format!("hakmem-{layout}"))?;
    Ok(Library { name: "hakmem".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned(), path: Some(path) })
}

/// A library that was built before.
pub fn kept(name: &str, path: &Path) -> Result<Library> {
    let path = path.canonicalize().with_context(|| format!("{name}: there is no {}", path.display()))?;
    forget_how_written(&path)?;
    let library = Library { name: name.to_owned(), version: "a library that was kept".to_owned(), path: Some(path) };
    library.check()?;
    Ok(library)
}

/// A peer's library; the error says why it is not there.
pub fn peer(project: &Project, build: &Path, name: &str) -> Result<Library> {
    let (_, source) = SOURCES
        .iter()
        .find(|(known, _)| *known == name)
        .with_context(|| format!("no such peer; there are {}", SOURCES.map(|(known, _)| known).join(", ")))?;
    let (version, path) = match source {
        Source::None => (debian_version("libc6").unwrap_or_default(), None),
        Source::Debian(package, file) => {
            let version =
                debian_version(package).with_context(|| format!("Debian package {package} is not installed"))?;
            let path = Path::new("/usr/lib/x86_64-linux-gnu").join(file);
            ensure!(path.is_file(), "{} is not there", path.display());
            (format!("{version} (Debian)"), Some(path))
        }
        Source::Crate(feature, library) => {
            let package =
                project.package(PEER_PACKAGE).with_context(|| format!("there is no package {PEER_PACKAGE}"))?;
            let has = package.features.contains_key(*feature);
            ensure!(has, "package {PEER_PACKAGE} has no feature {feature}");
            eprintln!("building {name} as a library");
            let directory = build.to_string_lossy();
            let arguments = ["--release", "--package", PEER_PACKAGE, "--no-default-features", "--features", feature];
            project.build(&[&arguments[..], &["--target-dir", &directory]].concat())?;
            let built = build.join("release").join(format!("lib{}.so", PEER_PACKAGE.replace('-', "_")));
            (super::rust::locked_version(project, library), Some(keep(&built, build, name)?))
        }
    };
    let library = Library { name: name.to_owned(), version, path };
    library.check()?;
    Ok(library)
}

fn keep(built: &Path, build: &Path, name: &str) -> Result<PathBuf> {
    let path = copied(built, &build.join("programs"), &format!("lib{name}.so"))?;
    forget_how_written(&path)?;
    path.canonicalize().context("the copy is gone")
}

fn debian_version(package: &str) -> Option<String> {
    let query = ["--show", "--showformat", "${db:Status-Abbrev} ${Version}", package];
    let output = Command::new("dpkg-query").args(query).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.strip_prefix("ii ")?.trim();
    (!version.is_empty()).then(|| version.to_owned())
}

impl Library {
    /// The C library's own allocator.
    pub const fn none() -> Self {
        Self { name: String::new(), version: String::new(), path: None }
    }

    /// The loader leaves out what it cannot load with no more than a line on stderr.
    fn check(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let awkward = path.to_string_lossy().contains([' ', ':']);
        ensure!(!awkward, "LD_PRELOAD cannot name {}: it has a space or a colon", path.display());
        let output = Command::new("/bin/true").env("LD_PRELOAD", path).output().context("/bin/true does not start")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && !said.contains("cannot be preloaded"), "{}: {}", output.status, said.trim());
        Ok(())
    }

    /// As an entry of the results.
    pub fn described(&self) -> Allocator {
        Allocator { suite: Suite::Preload, name: self.name.clone(), version: self.version.clone() }
    }
}

/// What a program lacks on this machine, in words.
pub fn missing(program: &Program) -> Option<String> {
    let missing: Vec<String> = program
        .needs
        .iter()
        .filter(|(name, _)| !Path::new(name).is_file() && launch::find_program(name).is_none())
        .map(|(name, package)| format!("{name} (Debian package {package})"))
        .collect();
    (!missing.is_empty()).then(|| format!("{} not installed", missing.join(", ")))
}

/// Makes a program's inputs.
pub fn prepare(project: &Project, build: &Path, program: &Program) -> Result<PathBuf> {
    let inputs = build.join("inputs").join(program.name);
    std::fs::create_dir_all(&inputs)?;
    let inputs = inputs.canonicalize()?;
    let places = Places { root: project.root(), inputs: &inputs };
    (program.prepare)(&places).with_context(|| format!("preparing {}", program.name))?;
    Ok(inputs)
}

/// A program as a row.
pub fn row(program: &Program) -> Row {
    let (name, group, what) = (program.name.to_owned(), program.group.to_owned(), program.what.to_owned());
    Row { suite: Suite::Preload, name, group, what, unit: Unit::Seconds, point: None }
}

/// One of its runs.
pub fn job(
    project: &Project,
    program: &Program,
    inputs: &Path,
    library: &Library,
    variables: &[(String, String)],
) -> Job {
    let command = (program.command)(&Places { root: project.root(), inputs });
    let mut all = variables.to_vec();
    let text = |value: &std::ffi::OsStr| value.to_string_lossy().into_owned();
    all.extend(command.get_envs().filter_map(|(name, value)| Some((text(name), text(value?)))));
    if let Some(path) = &library.path {
        let path = text(path.as_os_str());
        all.push((LIBRARY.to_owned(), path.clone()));
        if program.preload == Preload::Everything {
            all.push(("LD_PRELOAD".to_owned(), path));
        }
    }
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    Job {
        command: words.map(ToOwned::to_owned).collect(),
        variables: all,
        cpus: program.cpus,
        expected: match program.output {
            Output::Same => Expected::Same,
            Output::Contains(part) => Expected::Contains(part.to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::programs::programs;
    use super::*;

    #[test]
    fn every_peer_has_a_source() {
        assert!(PEERS.iter().all(|peer| SOURCES.iter().any(|(name, _)| name == peer)));
    }

    #[test]
    fn a_library_that_the_loader_leaves_out_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("libnone.so");
        std::fs::write(&path, "no library").unwrap();
        assert!(kept("none", &path).is_err());
        assert!(kept("none", &directory.path().join("libgone.so")).is_err());
    }

    #[test]
    fn the_library_reaches_the_program_and_nothing_else() {
        let project = Project::load().unwrap();
        let library = Library { name: "x".to_owned(), version: String::new(), path: Some("/lib/x.so".into()) };
        let program = programs().find(|program| program.preload == Preload::Everything).unwrap();
        let with = job(&project, program, Path::new("/"), &library, &[("HAKMEM_STATS".to_owned(), "1".to_owned())]);
        assert!(with.variables.contains(&("LD_PRELOAD".to_owned(), "/lib/x.so".to_owned())));
        assert!(with.variables.iter().any(|(name, _)| name == "HAKMEM_STATS"));
        let own = Library { path: None, ..library };
        assert!(
            !job(&project, program, Path::new("/"), &own, &[]).variables.iter().any(|(name, _)| name == "LD_PRELOAD")
        );
    }
}
