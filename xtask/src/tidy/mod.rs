//! `cargo xtask tidy`: rules of the house that neither the compiler nor clippy knows.
//!
//! **Invariants.** Every finding names a file or a crate and what is wrong with it; a rule that finds nothing to look at is itself a finding.

mod documents;
mod layers;
mod packages;
mod sources;

use std::process::ExitCode;

use anyhow::Result;

use crate::project::Project;

pub use layers::order as layer_order;
pub use sources::{Site, ordering_sites};

/// Checks everything, or rewrites the generated documents first.
pub fn tidy(project: &Project, fix: bool) -> Result<ExitCode> {
    if fix {
        for path in documents::rewrite(project)? {
            println!("rewrote {path}");
        }
    }
    Ok(if check(project)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the findings; true when there is none.
pub fn check(project: &Project) -> Result<bool> {
    let mut findings = layers::findings(project);
    findings.extend(sources::findings(project)?);
    findings.extend(documents::findings(project)?);
    findings.extend(packages::findings(project)?);
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    if findings.is_empty() {
        println!("tidy: layers, sources, documents and licences are in order");
    } else {
        eprintln!("tidy: {} findings", findings.len());
    }
    Ok(findings.is_empty())
}
