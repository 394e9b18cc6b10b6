//! `cargo xtask loom --weaken`: each acquire and release relaxed in turn. Some model must fail, or a list says why none can.
//!
//! **Invariants.** Every site of the sources is judged: defended, or on the list with its reason. An entry of the list that
//! names no site, or one that a model does defend, is a finding.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Options;
use super::models::{self, Model, Outcome, Run};
use crate::project::Project;
use crate::tidy::{Site, ordering_sites};

/// Sites that no model can defend, each with its reason: lines of "- `file` `function` `method`: reason".
const UNDEFENDED: &str = "docs/undefended-orderings.md";

/// What became of one site.
enum Verdict {
    /// This model failed, with this complaint.
    Defended { model: String, complaint: String },
    /// The models that reach it pass all the same.
    Passed(usize),
    /// No model reaches it.
    Unreached,
}

/// Relaxes every site in turn. True if each is defended, or listed and really not.
pub fn check(project: &Project, models: &[Model], runs: &[Run], options: &Options) -> Result<bool> {
    let sites = ordering_sites(project)?;
    let text = std::fs::read_to_string(project.root().join(UNDEFENDED))
        .with_context(|| format!("cannot read {UNDEFENDED}"))?;
    let (listed, mut findings) = parse(&text);
    let verdicts = models::in_parallel(sites.len(), |index| match sites.get(index) {
        Some(site) => {
            let verdict = judge(site, models, runs, options);
            if let Ok(verdict) = &verdict {
                println!("{}", line(site, verdict));
            }
            verdict
        }
        None => Ok(Verdict::Unreached),
    });
    let mut defended = 0;
    let mut judged = Vec::new();
    for (site, verdict) in sites.iter().zip(verdicts) {
        let is_defended = matches!(verdict?, Verdict::Defended { .. });
        defended += usize::from(is_defended);
        judged.push((site.name(), format!("{}:{}", site.file, site.line), is_defended));
    }
    // With only some of the models, what is not defended says nothing.
    if options.only.is_none() {
        findings.extend(compare(&judged, &listed));
    }
    for finding in &findings {
        eprintln!("loom: {finding}");
    }
    println!(
        "loom: {} of {} sites are defended by a model, {} are listed in {UNDEFENDED}",
        defended,
        sites.len(),
        listed.len()
    );
    Ok(findings.is_empty())
}

/// Runs the models that reach the site, the ones of its own box and the quickest first, until one fails.
fn judge(site: &Site, models: &[Model], runs: &[Run], options: &Options) -> Result<Verdict> {
    let place = format!("{}:{}", site.file, site.line);
    let mut reaching: Vec<(&Model, &Run)> =
        models.iter().zip(runs).filter(|(_, run)| run.sites.contains(&place)).collect();
    reaching.sort_by_key(|(model, run)| (model.package != site.package, run.wall.max(Duration::from_millis(50))));
    for (model, _) in &reaching {
        let run = model.run(options.long, Some(&place))?;
        // A run without an end proves nothing.
        if run.outcome == Outcome::Failed {
            return Ok(Verdict::Defended { model: model.name(), complaint: run.complaint() });
        }
    }
    Ok(if reaching.is_empty() { Verdict::Unreached } else { Verdict::Passed(reaching.len()) })
}

fn line(site: &Site, verdict: &Verdict) -> String {
    let site = format!("{} ({}:{})", site.name(), site.file, site.line);
    match verdict {
        Verdict::Defended { model, complaint } => format!("defended   {site}\n           by {model}: {complaint}"),
        Verdict::Passed(count) => format!("undefended {site}: all {count} models that reach it pass"),
        Verdict::Unreached => format!("undefended {site}: no model reaches it"),
    }
}

/// The list: name of a site, reason. And lines that look like entries and are none.
fn parse(text: &str) -> (BTreeMap<String, String>, Vec<String>) {
    let (mut listed, mut findings) = (BTreeMap::new(), Vec::new());
    for (number, line) in text.lines().enumerate().filter(|(_, line)| line.starts_with("- `")) {
        let entry = line.strip_prefix("- ").and_then(|entry| entry.split_once(": "));
        match entry {
            Some((name, reason)) if name.matches('`').count() == 6 && !reason.trim().is_empty() => {
                if listed.insert(name.to_owned(), reason.to_owned()).is_some() {
                    findings.push(format!("{UNDEFENDED}:{}: {name} is listed twice", number + 1));
                }
            }
            _ => findings.push(format!("{UNDEFENDED}:{}: not \"- `file` `function` `method`: reason\"", number + 1)),
        }
    }
    (listed, findings)
}

/// Sites without a defence or a reason, and reasons without need. `judged` is `(name, place, is defended)`.
fn compare(judged: &[(String, String, bool)], listed: &BTreeMap<String, String>) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, place, is_defended) in judged {
        match (is_defended, listed.contains_key(name)) {
            (false, false) => findings.push(format!(
                "{place}: no model fails when {name} is relaxed; write one, or list it in {UNDEFENDED} with the reason"
            )),
            (true, true) => findings.push(format!("{UNDEFENDED}: {name} is listed, but a model defends it")),
            _ => {}
        }
    }
    for name in listed.keys().filter(|name| !judged.iter().any(|(site, ..)| site == *name)) {
        findings.push(format!("{UNDEFENDED}: {name} is listed, but there is no such site"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "`a.rs` `push` `swap_acquire`";

    fn listed(text: &str) -> BTreeMap<String, String> {
        let (listed, findings) = parse(text);
        assert!(findings.is_empty(), "{findings:?}");
        listed
    }

    fn site(is_defended: bool) -> Vec<(String, String, bool)> {
        vec![(NAME.to_owned(), "a.rs:7".to_owned(), is_defended)]
    }

    #[test]
    fn a_site_needs_a_model_or_a_reason() {
        assert_eq!(compare(&site(false), &BTreeMap::new()).len(), 1);
        assert!(compare(&site(true), &BTreeMap::new()).is_empty());
        assert!(compare(&site(false), &listed(&format!("text\n- {NAME}: a reason\n"))).is_empty());
    }

    #[test]
    fn a_reason_without_need_is_stale() {
        let list = listed(&format!("- {NAME}: a reason\n"));
        assert_eq!(compare(&site(true), &list).len(), 1);
        assert_eq!(compare(&[], &list).len(), 1);
    }

    #[test]
    fn an_entry_without_a_reason_is_found() {
        assert_eq!(parse(&format!("- {NAME}\n")).1.len(), 1);
        assert_eq!(parse(&format!("- {NAME}: \n")).1.len(), 1);
        assert_eq!(parse(&format!("- {NAME}: x\n- {NAME}: y\n")).1.len(), 1);
        assert_eq!(parse("- `a.rs` `push`: x\n").1.len(), 1);
    }
}
