//! `cargo xtask loom`: every `tests/loom_*.rs` of the workspace, and what becomes of them when an ordering is relaxed.
//!
//! **Invariants.** Every model runs in a process of its own, so that a deadlock or an abort is that model's result. No model
//! found, or none in a file, is a failure.

mod models;
mod weaken;

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Result;

use crate::project::Project;
pub use models::lint;
use models::{Model, Outcome, Run};

/// What `cargo xtask loom` takes.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Options {
    /// Then relax each documented ordering in turn: some model must fail.
    #[arg(long)]
    pub weaken: bool,
    /// Explore the longer bounds.
    #[arg(long)]
    pub long: bool,
    /// Only models whose name, `package::file::name`, contains this.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
}

/// Runs the models; with `weaken` then relaxes the orderings. True if all is as it should be.
pub fn check(project: &Project, options: &Options) -> Result<bool> {
    let models = models::build(project, options.only.as_deref())?;
    let runs = models::run_all(&models, options.long);
    let failed: Vec<(&Model, &Run)> =
        models.iter().zip(&runs).filter(|(_, run)| run.outcome != Outcome::Passed).collect();
    for (model, run) in &failed {
        eprintln!("\nmodel {} {}:\n{}", model.name(), run.outcome.describe(), run.excerpt());
    }
    let sites: BTreeSet<_> = runs.iter().flat_map(|run| &run.sites).collect();
    println!(
        "loom: {} models, {} failed; they reach {} acquires and releases",
        models.len(),
        failed.len(),
        sites.len()
    );
    if !failed.is_empty() {
        return Ok(false);
    }
    if options.weaken { weaken::check(project, &models, &runs, options) } else { Ok(true) }
}

/// [`check`] as a task.
pub fn loom(project: &Project, options: &Options) -> Result<ExitCode> {
    Ok(if check(project, options)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
