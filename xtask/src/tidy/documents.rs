//! Documents that are generated, and documents that must agree with the code.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::layers;
use crate::compat;
use crate::project::Project;
use crate::table::placed;

const ENV_VARS: &str = "docs/env-vars.md";
const ARCHITECTURE: &str = "docs/architecture.md";
const COMPAT: &str = "docs/compat.md";

/// A document with the text it should have.
struct Expected {
    path: PathBuf,
    name: &'static str,
    found: Option<String>,
    wanted: String,
}

/// Documents that differ from what the code says.
pub fn findings(project: &Project) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for document in expected(project)? {
        match document.found {
            None => findings.push(format!("{}: does not exist; `cargo xtask tidy --fix` writes it", document.name)),
            Some(found) if found != document.wanted => {
                let line =
                    found.lines().zip(document.wanted.lines()).take_while(|(have, want)| have == want).count() + 1;
                findings.push(format!("{}:{line}: out of date; `cargo xtask tidy --fix` rewrites it", document.name));
            }
            Some(_) => {}
        }
    }
    findings.extend(unknown_variables(project)?);
    Ok(findings)
}

/// Variables that a document names and the registry does not know.
fn unknown_variables(project: &Project) -> Result<Vec<String>> {
    let page = hakmem_policy::env_vars_markdown();
    let mut paths: Vec<PathBuf> = ["README.md", "AGENTS.md"].map(|name| project.root().join(name)).to_vec();
    for directory in ["docs", "docs/decisions"] {
        for entry in std::fs::read_dir(project.root().join(directory))? {
            paths.push(entry?.path());
        }
    }
    let mut findings = Vec::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let shown = path.strip_prefix(project.root()).unwrap_or(path).display();
        for (number, line) in text.lines().enumerate() {
            for name in variable_names(line).filter(|name| !page.contains(&format!("`{name}`"))) {
                findings.push(format!("{shown}:{}: names `{name}`, which is not in the registry", number + 1));
            }
        }
    }
    Ok(findings)
}

/// Names of variables in a line. `HAKMEM_*`, prefixes, and what belongs to the C header or to tools is none.
fn variable_names(line: &str) -> impl Iterator<Item = &str> {
    let other = ["HAKMEM_ABI_", "HAKMEM_BENCH_", "HAKMEM_STRESS_", "HAKMEM_TEST_"];
    line.split(|mark: char| !mark.is_ascii_alphanumeric() && mark != '_')
        .filter(|word| word.strip_prefix("HAKMEM_").is_some_and(|rest| !rest.is_empty() && !rest.ends_with('_')))
        .filter(move |word| !other.iter().any(|prefix| word.starts_with(prefix)))
}

/// Brings the documents up to date and returns the names of those that changed.
pub fn rewrite(project: &Project) -> Result<Vec<&'static str>> {
    let mut changed = Vec::new();
    for document in expected(project)? {
        if document.found.as_ref() != Some(&document.wanted) {
            std::fs::write(&document.path, &document.wanted)
                .with_context(|| format!("cannot write {}", document.path.display()))?;
            changed.push(document.name);
        }
    }
    Ok(changed)
}

fn expected(project: &Project) -> Result<Vec<Expected>> {
    let env_vars = project.root().join(ENV_VARS);
    let found = match std::fs::read_to_string(&env_vars) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        other => Some(other.with_context(|| format!("cannot read {ENV_VARS}"))?),
    };
    Ok(vec![
        with_list(project, ARCHITECTURE, "crates", &crate_list(project))?,
        with_list(project, COMPAT, "cases", &compat::cases_markdown())?,
        Expected { path: env_vars, name: ENV_VARS, found, wanted: hakmem_policy::env_vars_markdown() },
    ])
}

/// The table of crates, layers bottom up, then what stands beside them.
fn crate_list(project: &Project) -> String {
    let order = layers::order(project);
    let mut packages = project.packages();
    packages.sort_by_key(|package| order.iter().position(|name| *name == package.name.as_str()).unwrap_or(order.len()));
    let mut text = String::from("| crate | directory | what it is | uses |\n|---|---|---|---|\n");
    for package in packages {
        let directory = package.manifest_path.as_std_path().parent().unwrap_or(project.root());
        let directory = directory.strip_prefix(project.root()).unwrap_or(directory).display();
        let what = package.description.as_deref().unwrap_or("");
        let mut used: Vec<&str> = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind == cargo_metadata::DependencyKind::Normal)
            .filter(|dependency| order.contains(&dependency.name))
            .map(|dependency| dependency.name.trim_start_matches("hakmem-"))
            .collect();
        used.sort_unstable();
        used.dedup();
        let _infallible = writeln!(text, "| `{}` | `{directory}` | {what} | {} |", package.name, used.join(", "));
    }
    text
}

/// A document that people write, with one list in it that is generated.
fn with_list(project: &Project, document: &'static str, name: &str, list: &str) -> Result<Expected> {
    let path = project.root().join(document);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {document}"))?;
    let wanted = placed(&text, name, "tidy", list).context(document)?;
    Ok(Expected { path, name: document, found: Some(text), wanted })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_told_from_prefixes_and_macros() {
        let line = "`HAKMEM_STATS=1`, HAKMEM_*, HAKMEM_TEST_X, HAKMEM_ABI_MAGIC and (HAKMEM_NO_SUCH)";
        assert_eq!(variable_names(line).collect::<Vec<_>>(), ["HAKMEM_STATS", "HAKMEM_NO_SUCH"]);
        assert!(hakmem_policy::env_vars_markdown().contains("`HAKMEM_STATS`"));
    }
}
