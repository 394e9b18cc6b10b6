//! A policy in words: what it changes, what that buys, and what it rests on.

use std::fmt::Write as _;

use anyhow::Result;
use hakmem_policy::FrozenPolicy;

use crate::document::{Document, Evidence};
use crate::knobs::{change_of, effect, is_same, value_of, variable_of};
use crate::sites;

/// The words.
pub fn explain(document: &Document, name: &str) -> Result<String> {
    let mut text = String::new();
    let change = change_of(&document.policy);
    let source = &document.source;
    match change.len() {
        0 if !document.sites.is_empty() => writeln!(text, "{name} changes no knob.")?,
        0 => writeln!(text, "{name} changes nothing: the defaults stay.")?,
        1 => writeln!(text, "{name} changes one knob of {}.", FrozenPolicy::FIELDS.len())?,
        count => writeln!(text, "{name} changes {count} knobs of {}.", FrozenPolicy::FIELDS.len())?,
    }
    if !source.tool.is_empty() {
        writeln!(text, "It was written by {}{}.", source.tool, made_for(document))?;
    }
    if source.cost > 0.0 {
        writeln!(
            text,
            "With it a run costs {} of what it costs with the defaults; it was cheaper in {} of {} pairs of runs ({}).",
            percent(source.cost),
            source.wins,
            source.pairs,
            if source.weights.is_empty() { "weights unknown" } else { &source.weights }
        )?;
        if !source.best.is_empty() {
            writeln!(
                text,
                "It did most for {}, and least for {}; each program's cost is by its own with the defaults.",
                source.best.join(", "),
                source.worst.join(", ")
            )?;
        }
    } else if !change.is_empty() && source.files.is_empty() {
        writeln!(text, "Nobody has compared it with the defaults: no figures are in the file.")?;
    }
    if !source.files.is_empty() {
        writeln!(text, "It was merged from {}. The whole has not been measured.", source.files.join(", "))?;
    }
    for (field, now) in &change {
        let before = value_of(&FrozenPolicy::DEFAULT, field);
        writeln!(text, "\n{field}: {before} -> {now}")?;
        if let Some(variable) = variable_of(field) {
            writeln!(text, "    {}", variable.meaning())?;
        }
        if let Some(effect) = effect(field, &before, now) {
            writeln!(text, "    This means: {effect}.")?;
        }
        match document.evidence.get(*field) {
            Some(evidence) => write_evidence(&mut text, evidence, now)?,
            None => writeln!(text, "    No evidence: somebody wrote it by hand, or it came along with another knob.")?,
        }
    }
    if !document.sites.is_empty() {
        let count = document.sites.len();
        writeln!(text, "\nIt has {count} site rule{}.", if count == 1 { "" } else { "s" })?;
        sites::explain(&document.sites, &mut text)?;
    }
    let kept: Vec<_> = document.evidence.iter().filter(|(field, _)| !change.contains_key(field.as_str())).collect();
    if !kept.is_empty() {
        writeln!(text, "\nKept at the default:")?;
        for (field, evidence) in kept {
            let trials = if evidence.trials > 0 { format!(" ({} trials)", evidence.trials) } else { String::new() };
            writeln!(text, "    {field}{trials}: {}", or_nothing(&evidence.reason))?;
            for dissent in &evidence.dissent {
                writeln!(text, "        against it: {dissent}")?;
            }
        }
    }
    Ok(text)
}

fn made_for(document: &Document) -> String {
    let source = &document.source;
    let mut text = String::new();
    if !source.command.is_empty() {
        text.push_str(&format!(" for `{}`", source.command));
    }
    if !source.host.is_empty() {
        text.push_str(&format!(" on {}", source.host));
    }
    if source.cpus > 0 {
        text.push_str(&format!(" with {} processors", source.cpus));
    }
    if source.runs > 0 {
        let of_each = if source.programs.is_empty() { "" } else { " of each" };
        text.push_str(&format!(", after {} run{}{of_each}", source.runs, if source.runs == 1 { "" } else { "s" }));
    }
    text
}

fn write_evidence(text: &mut String, evidence: &Evidence, now: &str) -> Result<()> {
    let trials = if evidence.trials == 1 { "1 trial".to_owned() } else { format!("{} trials", evidence.trials) };
    if evidence.score_with > 0.0 && evidence.score_without > 0.0 {
        writeln!(
            text,
            "    Evidence: {trials}; cost {} with it, {} without.",
            percent(evidence.score_with),
            percent(evidence.score_without)
        )?;
    } else if evidence.trials > 0 {
        writeln!(text, "    Evidence: {trials}.")?;
    }
    if !evidence.reason.is_empty() {
        writeln!(text, "    Why: {}", evidence.reason)?;
    }
    if !evidence.now.is_empty() && !is_same(&evidence.now, now) {
        writeln!(text, "    Careful: the evidence speaks of {}, the policy says {now}.", evidence.now)?;
    }
    for dissent in &evidence.dissent {
        writeln!(text, "    Against it: {dissent}")?;
    }
    Ok(())
}

fn percent(cost: f64) -> String {
    format!("{:.1} %", cost * 100.0)
}

fn or_nothing(reason: &str) -> &str {
    if reason.is_empty() { "no reason is given" } else { reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Source;
    use std::collections::BTreeMap;

    #[test]
    fn a_policy_says_what_why_and_on_what_grounds() {
        let evidence = Evidence {
            before: "300".into(),
            now: "1000".into(),
            trials: 12,
            score_with: 0.91,
            score_without: 1.0,
            reason: "Half the faults.".into(),
            dissent: vec!["b.toml (3 runs): purge_delay_ms=10".into()],
        };
        let kept = Evidence { trials: 3, reason: "Tried and not taken: 1K.".into(), ..Evidence::default() };
        let document = Document {
            policy: FrozenPolicy { purge_delay_ms: 1000, sample: 7, ..FrozenPolicy::DEFAULT },
            source: Source { tool: "hakmem-tune run".into(), cost: 0.91, wins: 8, pairs: 8, ..Source::default() },
            evidence: BTreeMap::from([("purge_delay_ms".into(), evidence), ("refill_bytes".into(), kept)]),
            sites: Vec::new(),
        };
        let text = explain(&document, "p.toml").unwrap();
        for part in [
            "p.toml changes 2 knobs of",
            "costs 91.0 % of what it costs with the defaults; it was cheaper in 8 of 8 pairs",
            "purge_delay_ms: 300 -> 1000\n    How long free memory keeps its pages",
            "This means: fewer faults when freed memory is wanted again",
            "12 trials; cost 91.0 % with it, 100.0 % without",
            "Why: Half the faults.",
            "Against it: b.toml (3 runs)",
            "sample: 0 -> 7",
            "No evidence",
            "refill_bytes (3 trials): Tried and not taken: 1K.",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn a_policy_for_many_says_whom_it_did_most_for() {
        let source = Source {
            tool: "hakmem-tune run".into(),
            command: "3 programs".into(),
            programs: vec!["a".into(), "b".into(), "c".into()],
            runs: 60,
            cost: 0.9,
            best: vec!["b 0.70".into()],
            worst: vec!["a 1.02".into()],
            ..Source::default()
        };
        let policy = FrozenPolicy { purge_delay_ms: 1000, ..FrozenPolicy::DEFAULT };
        let document = Document { policy, source, evidence: BTreeMap::new(), sites: Vec::new() };
        let text = explain(&document, "p.toml").unwrap();
        assert!(text.contains("for `3 programs`, after 60 runs of each"), "{text}");
        assert!(text.contains("It did most for b 0.70, and least for a 1.02;"), "{text}");
    }

    #[test]
    fn evidence_for_another_value_is_pointed_at() {
        let explained = |now: &str| {
            let evidence = Evidence { now: now.into(), ..Evidence::default() };
            let document = Document {
                policy: FrozenPolicy { cache_bytes: 65_536, ..FrozenPolicy::DEFAULT },
                source: Source::default(),
                evidence: BTreeMap::from([("cache_bytes".into(), evidence)]),
                sites: Vec::new(),
            };
            explain(&document, "x").unwrap()
        };
        assert!(explained("5").contains("the evidence speaks of 5, the policy says 64K"));
        assert!(!explained("65536").contains("Careful"), "another spelling");
    }

    #[test]
    fn the_defaults_change_nothing() {
        let document = Document {
            policy: FrozenPolicy::DEFAULT,
            source: Source::default(),
            evidence: BTreeMap::new(),
            sites: Vec::new(),
        };
        assert_eq!(explain(&document, "d.toml").unwrap(), "d.toml changes nothing: the defaults stay.\n");
    }
}
