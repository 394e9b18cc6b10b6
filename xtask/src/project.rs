//! Where the workspace lies, what it consists of, and how cargo is called for it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::{Metadata, MetadataCommand, Package};

/// The workspace as `cargo metadata` describes it.
pub struct Project {
    metadata: Metadata,
}

impl Project {
    /// Reads the workspace that this tool was built from.
    pub fn load() -> Result<Self> {
        // The variable is set under `cargo run`; a copied binary falls back to the current directory.
        let mut command = MetadataCommand::new();
        if let Some(manifest_dir) = std::env::var_os("CARGO_MANIFEST_DIR") {
            command.current_dir(PathBuf::from(manifest_dir));
        }
        command.no_deps();
        let metadata = command.exec().context("cargo metadata failed: is this a checkout of hakmem?")?;
        let project = Self { metadata };
        ensure!(
            project.package("hakmem-preload").is_some(),
            "the workspace at {} has no package hakmem-preload",
            project.root().display()
        );
        Ok(project)
    }

    /// Directory of the root manifest.
    pub fn root(&self) -> &Path {
        self.metadata.workspace_root.as_std_path()
    }

    /// Directory of build outputs.
    pub fn target(&self) -> &Path {
        self.metadata.target_directory.as_std_path()
    }

    /// Members of the workspace, by name.
    pub fn packages(&self) -> Vec<&Package> {
        let mut packages = self.metadata.workspace_packages();
        packages.sort_by(|left, right| left.name.cmp(&right.name));
        packages
    }

    /// One member.
    pub fn package(&self, name: &str) -> Option<&Package> {
        self.packages().into_iter().find(|package| package.name.as_str() == name)
    }

    /// `[workspace.metadata]` of the root manifest.
    pub fn workspace_metadata(&self) -> &serde_json::Value {
        &self.metadata.workspace_metadata
    }

    /// Whether a member has a binary or test target of that name.
    pub fn has_target(&self, package: &str, target: &str) -> bool {
        self.package(package).is_some_and(|package| package.targets.iter().any(|found| found.name == target))
    }

    /// A cargo command in the workspace root.
    pub fn cargo<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(arguments).current_dir(self.root());
        command
    }

    /// Builds with cargo's own output on the terminal (all of it on fd 2).
    pub fn build(&self, arguments: &[&str]) -> Result<()> {
        let status = self.cargo(["build", "--quiet"]).args(arguments).status().context("cargo does not start")?;
        if !status.success() {
            bail!("cargo build {} failed ({status})", arguments.join(" "));
        }
        Ok(())
    }

    /// Builds a program of `hakmem-benches` with this allocator. A copy, because the next build with another one replaces it.
    pub fn bench_program(&self, program: &str, allocator: &str) -> Result<PathBuf> {
        let mut arguments = vec!["--release", "--package", "hakmem-benches", "--bin", program];
        if allocator != "hakmem" {
            arguments.extend(["--no-default-features", "--features", allocator]);
        }
        self.build(&arguments)?;
        let built = self.target().join("release").join(program);
        copied(&built, &self.target().join("xtask"), &format!("{program}-{allocator}"))
    }

    /// Builds the preload library and returns its path.
    pub fn preload_library(&self) -> Result<PathBuf> {
        self.build(&["--release", "--package", "hakmem-preload"])?;
        let library = self.target().join("release").join("libhakmem_preload.so");
        ensure!(library.is_file(), "cargo built hakmem-preload, but {} is not there", library.display());
        Ok(library)
    }
}

/// A copy of what cargo has built, under this name in this directory.
pub fn copied(built: &Path, directory: &Path, name: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let copy = directory.join(name);
    // Removed first: a program that still runs cannot be overwritten, and one that maps a library would be changed.
    let _was_there = std::fs::remove_file(&copy);
    std::fs::copy(built, &copy).with_context(|| format!("cannot copy {}", built.display()))?;
    Ok(copy)
}
