//! Site rules in files and tools: read as the allocator does, with their evidence; merged; said in words.
//!
//! **Invariants.** Of rules for the same calls a merged file has one, which stood in one of the files. Who was outvoted is named.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use hakmem_policy::{SITE_RULES, SiteRule, write_calls};
use serde::{Deserialize, Serialize};

/// A rule for the big blocks of one place.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Site {
    /// The calls, as a file spells them.
    pub calls: String,
    /// Smallest and largest block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<[u64; 2]>,
    /// `small` or `huge`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages: Option<String>,
    /// How long a freed block waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_ms: Option<u32>,
    /// Why.
    #[serde(default, skip_serializing_if = "SiteEvidence::is_none")]
    pub evidence: SiteEvidence,
}

/// What a rule rests on. Everything may be missing.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SiteEvidence {
    /// The calls by name, as far as the program has names.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub symbols: String,
    /// Blocks allocated, and their MiB.
    pub blocks: u64,
    /// Their MiB.
    pub mib: f64,
    /// Freed ones that were watched.
    pub seen: u64,
    /// Looks at how much of them was touched.
    pub looks: u64,
    /// What these said, in the mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub touched_permille: Option<u64>,
    /// Times that the place came back.
    pub returns: u64,
    /// How long after the free, in the middle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<f64>,
    /// Who found something else, when files were merged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dissent: Vec<String>,
}

impl SiteEvidence {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What stands beside a rule in a file.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Noted {
    evidence: SiteEvidence,
}

impl Site {
    /// A rule as the allocator reads it, with what stands beside it.
    pub fn new(rule: &SiteRule<'_>, noted: Noted) -> Self {
        let mut calls = String::new();
        // A string takes all that is written to it.
        let _infallible = write_calls(rule, &mut calls);
        let has_range = (rule.least_bytes, rule.most_bytes) != (0, usize::MAX);
        Self {
            calls,
            bytes: has_range.then_some([rule.least_bytes as u64, rule.most_bytes as u64]),
            pages: rule.pages.map(|pages| pages.name().to_owned()),
            keep_ms: Some(rule.keep_ms).filter(|keep_ms| *keep_ms > 0),
            evidence: noted.evidence,
        }
    }

    /// What it does, in short.
    fn hint(&self) -> String {
        let pages = self.pages.iter().map(|pages| format!("pages={pages}"));
        let keep = self.keep_ms.iter().map(|keep_ms| format!("keep_ms={keep_ms}"));
        pages.chain(keep).collect::<Vec<_>>().join(" ")
    }
}

/// The rules as a file has them, without what they rest on.
pub fn rules_of(sites: &[Site]) -> Result<String> {
    let bare = |site: &Site| Site { evidence: SiteEvidence::default(), ..site.clone() };
    let rule = |site: &Site| toml::to_string(&BTreeMap::from([("site", [bare(site)])]));
    sites.iter().map(rule).collect::<Result<_, _>>().context("cannot write site rules")
}

/// The rules in a line, each as ` site p+0x1 q+0x2 pages=small`.
pub fn named(sites: &[Site]) -> String {
    let range = |site: &Site| site.bytes.map_or(String::new(), |[least, most]| format!(" bytes={least}-{most}"));
    sites.iter().map(|site| format!(" site {}{} {}", site.calls, range(site), site.hint())).collect()
}

/// One vote: the file's name, its voices, and its rule.
type Vote<'a> = (&'a str, u64, &'a Site);

/// One rule for each place that any of the files knows, with the hint that has most runs behind it. A file without a rule for a place has no voice
/// there. Beyond what a file has room for, the places with most bytes stay.
pub fn merge(files: &[(&str, u64, &[Site])]) -> Vec<Site> {
    let mut places: BTreeMap<&str, Vec<Vote<'_>>> = BTreeMap::new();
    for (name, voices, sites) in files {
        for site in *sites {
            places.entry(&site.calls).or_default().push((name, *voices, site));
        }
    }
    let mut merged: Vec<Site> = places.values().filter_map(|votes| elect(votes)).collect();
    merged.sort_by(|a, b| b.evidence.mib.total_cmp(&a.evidence.mib).then_with(|| a.calls.cmp(&b.calls)));
    merged.truncate(SITE_RULES);
    merged
}

fn elect(votes: &[Vote<'_>]) -> Option<Site> {
    let strength = |hint: &str| -> u64 { votes.iter().filter(|vote| vote.2.hint() == hint).map(|vote| vote.1).sum() };
    let mut best: Option<(&Vote<'_>, u64)> = None;
    for vote in votes {
        let voices = strength(&vote.2.hint());
        if best.is_none_or(|(_, held)| voices > held) {
            best = Some((vote, voices));
        }
    }
    let (winner, _) = best?;
    let (for_it, against): (Vec<&Vote<'_>>, Vec<&Vote<'_>>) =
        votes.iter().partition(|vote| vote.2.hint() == winner.2.hint());
    let sum = |part: fn(&SiteEvidence) -> u64| for_it.iter().map(|vote| part(&vote.2.evidence)).sum();
    let ranges: Option<Vec<[u64; 2]>> = for_it.iter().map(|vote| vote.2.bytes).collect();
    let evidence = SiteEvidence {
        blocks: sum(|evidence| evidence.blocks),
        mib: for_it.iter().map(|vote| vote.2.evidence.mib).sum(),
        seen: sum(|evidence| evidence.seen),
        looks: sum(|evidence| evidence.looks),
        returns: sum(|evidence| evidence.returns),
        dissent: against
            .iter()
            .map(|(name, voices, site)| format!("{name} ({voices} runs): {}", site.hint()))
            .collect(),
        ..winner.2.evidence.clone()
    };
    let widest = |ranges: Vec<[u64; 2]>| {
        let least = ranges.iter().map(|[least, _]| *least).min()?;
        Some([least, ranges.iter().map(|[_, most]| *most).max()?])
    };
    Some(Site { bytes: ranges.and_then(widest), evidence, ..winner.2.clone() })
}

/// The rules in words.
pub fn explain(sites: &[Site], text: &mut String) -> Result<()> {
    for site in sites {
        let evidence = &site.evidence;
        let known = !evidence.symbols.is_empty();
        writeln!(text, "\nsite {}", if known { &evidence.symbols } else { &site.calls })?;
        if known {
            writeln!(text, "    That is {}, the innermost call first.", site.calls)?;
        }
        match site.bytes {
            Some([least, most]) => {
                writeln!(text, "    For its blocks of {:.0} to {:.0} KiB:", kib(least), kib(most))?;
            }
            None => writeln!(text, "    For its blocks above 2 MiB:")?,
        }
        match site.pages.as_deref() {
            Some("small") => {
                writeln!(
                    text,
                    "    Small pages: what is not touched takes no memory, and what is costs a fault for each 4 KiB."
                )?;
            }
            Some(_) => writeln!(text, "    Huge pages: one fault for each 2 MiB, and memory for all of them.")?,
            None => {}
        }
        if let Some(keep_ms) = site.keep_ms {
            writeln!(
                text,
                "    A freed block waits {keep_ms} ms for the next one of the site, and for nobody else: no faults when it comes, and its memory meanwhile."
            )?;
        }
        write_evidence(evidence, text)?;
    }
    Ok(())
}

fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

fn write_evidence(evidence: &SiteEvidence, text: &mut String) -> Result<()> {
    if evidence.blocks == 0 {
        writeln!(text, "    No evidence: somebody wrote it by hand.")?;
    } else {
        write!(text, "    Why: {} blocks, {:.0} MiB in all", evidence.blocks, evidence.mib)?;
        if let Some(permille) = evidence.touched_permille {
            write!(text, ", {:.1} % of them touched by {} looks", permille as f64 / 10.0, evidence.looks)?;
        }
        if let Some(idle_ms) = evidence.idle_ms.filter(|_| evidence.returns > 0) {
            write!(
                text,
                "; {} times the next one came after the free, {idle_ms:.0} ms in the middle",
                evidence.returns
            )?;
        }
        writeln!(text, ".")?;
    }
    for dissent in &evidence.dissent {
        writeln!(text, "    Against it: {dissent}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(calls: &str, pages: Option<&str>, keep_ms: Option<u32>, mib: f64) -> Site {
        let evidence = SiteEvidence { blocks: 3, mib, returns: 2, idle_ms: Some(700.0), ..SiteEvidence::default() };
        Site { calls: calls.into(), bytes: Some([4096, 8192]), pages: pages.map(str::to_owned), keep_ms, evidence }
    }

    #[test]
    fn places_add_up_and_where_files_disagree_the_runs_decide() {
        let (a, b) = (site("p+0x1", Some("small"), None, 5.0), site("p+0x1", Some("huge"), None, 9.0));
        let other = Site { bytes: Some([2048, 4096]), ..site("p+0x2", None, Some(9), 70.0) };
        let (first, second, third) = ([a.clone(), other], [b.clone()], [a, site("p+0x2", None, Some(9), 1.0)]);
        let merged = merge(&[("a", 2, &first), ("b", 5, &second), ("c", 1, &third)]);
        let [waits, pages] = &merged[..] else { panic!("{merged:?}") };
        assert_eq!((waits.calls.as_str(), waits.bytes, waits.evidence.mib), ("p+0x2", Some([2048, 8192]), 71.0));
        assert_eq!((waits.evidence.blocks, waits.evidence.dissent.len()), (6, 0));
        assert_eq!(pages.pages, b.pages);
        assert_eq!(pages.evidence.dissent, ["a (2 runs): pages=small", "c (1 runs): pages=small"]);
    }

    #[test]
    fn a_crowd_is_cut_to_the_places_with_most_bytes() {
        let crowd: Vec<Site> =
            (0..SITE_RULES + 5).map(|number| site(&format!("p+{number:#x}"), None, Some(1), number as f64)).collect();
        let merged = merge(&[("a", 1, &crowd), ("b", 1, &[])]);
        assert_eq!((merged.len(), merged[0].evidence.mib as usize), (SITE_RULES, SITE_RULES + 4));
    }

    #[test]
    fn a_rule_says_what_it_does_and_why() {
        let mut named = site("p+0x1 p+0x2", Some("small"), Some(2100), 96.0);
        named.evidence = SiteEvidence {
            symbols: "load+0x5 main+0x9".into(),
            looks: 4,
            touched_permille: Some(15),
            ..named.evidence
        };
        let by_hand = Site { evidence: SiteEvidence::default(), bytes: None, ..site("q+0x7", Some("huge"), None, 0.0) };
        let mut text = String::new();
        explain(&[named, by_hand], &mut text).unwrap();
        for part in [
            "site load+0x5 main+0x9\n    That is p+0x1 p+0x2",
            "blocks of 4 to 8 KiB",
            "Small pages: what is not touched takes no memory",
            "A freed block waits 2100 ms",
            "3 blocks, 96 MiB in all, 1.5 % of them touched by 4 looks; 2 times the next one came after the free, 700 ms",
            "site q+0x7\n    For its blocks above 2 MiB:\n    Huge pages",
            "No evidence: somebody wrote it by hand.",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
