//! What a package takes along when it is published: the texts of the licences, which cargo packs only from a package's own folder.

use std::path::Path;

use anyhow::{Context, Result};

use crate::project::Project;

const LICENCES: [&str; 2] = ["LICENSE-MIT", "LICENSE-APACHE"];

/// Packages that may be published and lack a licence, or have another text than the workspace.
pub fn findings(project: &Project) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let packages = project.packages();
    let published = packages.iter().filter(|package| package.publish.is_none());
    for folder in published.filter_map(|package| package.manifest_path.parent()) {
        found.extend(missing(project.root(), folder.as_std_path())?);
    }
    Ok(found)
}

fn missing(root: &Path, folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for licence in LICENCES {
        let text = std::fs::read(root.join(licence)).with_context(|| format!("the workspace has no {licence}"))?;
        if std::fs::read(folder.join(licence)).ok().as_ref() != Some(&text) {
            let name = folder.join(licence);
            found.push(format!("{}: make it a link to the workspace's", name.display()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_licence_that_is_missing_or_different_is_found() {
        let project = Project::load().unwrap();
        assert_eq!(findings(&project).unwrap(), [""; 0]);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("LICENSE-MIT"), "do as you like").unwrap();
        std::fs::copy(project.root().join("LICENSE-APACHE"), folder.path().join("LICENSE-APACHE")).unwrap();
        let found = missing(project.root(), folder.path()).unwrap();
        assert!(found.len() == 1 && found[0].contains("LICENSE-MIT: "), "{found:?}");
    }
}
