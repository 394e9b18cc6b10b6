//! Policies of several programs or hosts as one.
//!
//! Each group of knobs that belong together is voted on: a file votes for its values with as many voices as it has runs behind
//! it, also for the default where it tried others; a file that never looked at the group abstains. The values that win stood in
//! one of the files, because nobody has measured an average.
//!
//! **Invariants.** The result is a valid policy. Who was outvoted is named in the evidence.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use hakmem_policy::FrozenPolicy;

use crate::document::{Document, Evidence, Source};
use crate::knobs::{Change, change_of, group_of, named, policy_of, value_of};
use crate::sites;

/// A file with its name.
pub struct Member {
    /// What it is called in the evidence.
    pub name: String,
    /// What it says.
    pub document: Document,
}

/// A disagreement: the knobs, what was taken, and who wanted something else.
#[derive(Debug, PartialEq)]
pub struct Conflict {
    /// What was taken.
    pub taken: String,
    /// How many runs stand behind it.
    pub voices: u64,
    /// Who wanted something else: name, values, runs.
    pub against: Vec<(String, String, u64)>,
}

/// One file's vote on a group.
struct Vote<'a> {
    member: &'a Member,
    values: Change,
    voices: u64,
}

/// Merges policies; the conflicts that were voted on come with the result.
pub fn merge(members: &[Member]) -> Result<(Document, Vec<Conflict>)> {
    ensure!(members.len() > 1, "merging takes two files or more");
    let mut change = Change::new();
    let mut evidence = BTreeMap::new();
    let mut conflicts = Vec::new();
    let mut waiting: Vec<&'static str> = FrozenPolicy::FIELDS.to_vec();
    waiting.reverse();
    while let Some(field) = waiting.pop() {
        let group = group_of(field);
        waiting.retain(|other| !group.contains(other));
        let votes: Vec<Vote<'_>> = members.iter().filter_map(|member| vote(member, &group)).collect();
        let Some(winner) = elect(&votes) else { continue };
        let (for_it, against): (Vec<&Vote<'_>>, Vec<&Vote<'_>>) = votes.iter().partition(|vote| vote.values == winner);
        let shown = |values: &Change| {
            let all: Vec<String> = group
                .iter()
                .filter(|field| is_touched(&votes, field))
                .map(|field| shown_value(values, field))
                .collect();
            all.join(" ")
        };
        if !against.is_empty() {
            conflicts.push(Conflict {
                taken: shown(&winner),
                voices: for_it.iter().map(|vote| vote.voices).sum(),
                against: against
                    .iter()
                    .map(|vote| (vote.member.name.clone(), shown(&vote.values), vote.voices))
                    .collect(),
            });
        }
        for field in group.iter().copied().filter(|field| is_touched(&votes, field)) {
            evidence.insert(field.to_owned(), evidence_of(field, &winner, &for_it, &against));
        }
        change.extend(winner);
    }
    let policy = match policy_of(&change) {
        Ok(policy) => policy,
        Err(error) => bail!("the values that won do not fit each other: {error:#}; leave one of the files out"),
    };
    let source = Source {
        tool: "hakmem-tune merge".into(),
        runs: members.iter().map(voices).sum(),
        files: members.iter().map(|member| format!("{} ({} runs)", member.name, voices(member))).collect(),
        ..Source::default()
    };
    let rules: Vec<_> =
        members.iter().map(|member| (member.name.as_str(), voices(member), member.document.sites.as_slice())).collect();
    Ok((Document { policy, source, evidence, sites: sites::merge(&rules) }, conflicts))
}

/// A file without a count of runs is somebody's word: it has one voice.
fn voices(member: &Member) -> u64 {
    member.document.source.runs.max(1)
}

fn vote<'a>(member: &'a Member, group: &[&'static str]) -> Option<Vote<'a>> {
    let mut values = change_of(&member.document.policy);
    values.retain(|field, _| group.contains(field));
    let evidence = &member.document.evidence;
    let was_tried = group.iter().any(|field| evidence.get(*field).is_some_and(|found| found.trials > 0));
    (was_tried || !values.is_empty()).then(|| Vote { member, values, voices: voices(member) })
}

/// The values with the most voices; of equals those of the file with the lowest cost, then the first.
fn elect(votes: &[Vote<'_>]) -> Option<Change> {
    let strength = |values: &Change| -> (u64, f64) {
        let same = || votes.iter().filter(|vote| vote.values == *values);
        let cost = |vote: &Vote<'_>| Some(vote.member.document.source.cost).filter(|cost| *cost > 0.0).unwrap_or(1.0);
        (same().map(|vote| vote.voices).sum(), same().map(cost).fold(f64::INFINITY, f64::min))
    };
    let mut best: Option<(&Change, (u64, f64))> = None;
    for vote in votes {
        let mine = strength(&vote.values);
        if best.is_none_or(|(_, held)| mine.0 > held.0 || (mine.0 == held.0 && mine.1 < held.1)) {
            best = Some((&vote.values, mine));
        }
    }
    best.map(|(values, _)| values.clone())
}

fn is_touched(votes: &[Vote<'_>], field: &str) -> bool {
    votes.iter().any(|vote| vote.values.contains_key(field) || vote.member.document.evidence.contains_key(field))
}

fn shown_value(values: &Change, field: &'static str) -> String {
    let value = values.get(field).cloned().unwrap_or_else(|| value_of(&FrozenPolicy::DEFAULT, field));
    named(&Change::from([(field, value)]))
}

fn evidence_of(field: &'static str, winner: &Change, for_it: &[&Vote<'_>], against: &[&Vote<'_>]) -> Evidence {
    let known: Vec<(&Evidence, f64)> = for_it
        .iter()
        .filter_map(|vote| Some((vote.member.document.evidence.get(field)?, vote.voices as f64)))
        .collect();
    let mean = |part: fn(&Evidence) -> f64| {
        let scored = || known.iter().filter(|(evidence, _)| part(evidence) > 0.0);
        let weight: f64 = scored().map(|(_, voices)| voices).sum();
        if weight > 0.0 {
            scored().map(|(evidence, voices)| part(evidence) * voices).sum::<f64>() / weight
        } else {
            0.0
        }
    };
    let before = value_of(&FrozenPolicy::DEFAULT, field);
    let first_reason = known.iter().map(|(evidence, _)| evidence.reason.as_str()).find(|reason| !reason.is_empty());
    Evidence {
        now: winner.get(field).cloned().unwrap_or_else(|| before.clone()),
        before,
        trials: known.iter().map(|(evidence, _)| evidence.trials).sum(),
        score_with: mean(|evidence| evidence.score_with),
        score_without: mean(|evidence| evidence.score_without),
        reason: format!(
            "{} of {} files agree. {}",
            for_it.len(),
            for_it.len() + against.len(),
            first_reason.unwrap_or("")
        ),
        dissent: against
            .iter()
            .map(|vote| format!("{} ({} runs): {}", vote.member.name, vote.voices, shown_value(&vote.values, field)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, runs: u64, policy: FrozenPolicy, tried: &[&str]) -> Member {
        let one = |field: &&str| ((*field).to_owned(), Evidence { trials: 2, score_with: 0.9, ..Evidence::default() });
        let evidence = tried.iter().map(one).collect();
        let source = Source { runs, ..Source::default() };
        Member { name: name.into(), document: Document { policy, source, evidence, sites: Vec::new() } }
    }

    fn purge(purge_delay_ms: u32) -> FrozenPolicy {
        FrozenPolicy { purge_delay_ms, ..FrozenPolicy::DEFAULT }
    }

    #[test]
    fn the_value_with_most_runs_behind_it_wins_and_the_others_are_named() {
        let members = [
            member("a", 10, purge(1000), &["purge_delay_ms"]),
            member("b", 6, purge(10), &["purge_delay_ms"]),
            member("c", 5, purge(10), &["purge_delay_ms"]),
        ];
        let (document, conflicts) = merge(&members).unwrap();
        assert_eq!(document.policy, purge(10));
        assert_eq!(document.source.runs, 21);
        let expected = Conflict {
            taken: "purge_delay_ms=10".into(),
            voices: 11,
            against: vec![("a".into(), "purge_delay_ms=1000".into(), 10)],
        };
        assert_eq!(conflicts, [expected]);
        let evidence = &document.evidence["purge_delay_ms"];
        assert_eq!((evidence.before.as_str(), evidence.now.as_str(), evidence.trials), ("300", "10", 4));
        assert_eq!(evidence.dissent, ["a (10 runs): purge_delay_ms=1000"]);
        assert!(evidence.reason.starts_with("2 of 3 files agree."));
    }

    #[test]
    fn a_default_that_was_tried_votes_and_one_that_was_not_abstains() {
        let tried = [member("a", 3, purge(10), &[]), member("b", 5, FrozenPolicy::DEFAULT, &["purge_delay_ms"])];
        assert_eq!(merge(&tried).unwrap().0.policy, FrozenPolicy::DEFAULT);
        let untried = [member("a", 3, purge(10), &[]), member("b", 5, FrozenPolicy::DEFAULT, &[])];
        let (document, conflicts) = merge(&untried).unwrap();
        assert_eq!((document.policy, conflicts.len()), (purge(10), 0));
        // What a learner writes of a knob whose turn did not come.
        let mut listed = [member("a", 3, purge(10), &[]), member("b", 5, FrozenPolicy::DEFAULT, &["purge_delay_ms"])];
        listed[1].document.evidence.get_mut("purge_delay_ms").unwrap().trials = 0;
        assert_eq!(merge(&listed).unwrap().0.policy, purge(10));
    }

    #[test]
    fn a_file_without_a_count_of_runs_has_one_voice() {
        let members = [member("a", 1, purge(10), &[]), member("b", 0, purge(77), &[]), member("c", 0, purge(77), &[])];
        let (document, conflicts) = merge(&members).unwrap();
        assert_eq!((document.policy, document.source.runs, conflicts[0].voices), (purge(77), 3, 2));
        assert_eq!(document.source.files, ["a (1 runs)", "b (1 runs)", "c (1 runs)"]);
    }

    #[test]
    fn of_equal_voices_the_lowest_cost_wins_and_then_the_first() {
        let taken = |costs: [f64; 3]| {
            let mut members =
                [member("a", 4, purge(10), &[]), member("b", 4, purge(77), &[]), member("c", 4, purge(99), &[])];
            members.iter_mut().zip(costs).for_each(|(member, cost)| member.document.source.cost = cost);
            merge(&members).unwrap().0.policy.purge_delay_ms
        };
        assert_eq!(taken([0.9, 0.8, 0.85]), 77);
        assert_eq!(taken([0.9, 0.9, 0.9]), 10);
        // A cost that nobody measured is that of the defaults.
        assert_eq!(taken([0.0, 0.0, 0.95]), 99);
        assert_eq!(taken([0.0, 1.1, 1.2]), 10);
    }

    #[test]
    fn scores_of_those_who_agree_are_averaged_by_their_runs() {
        let scored = |name: &str, runs, purge_delay_ms, score_with, score_without| {
            let mut member = member(name, runs, purge(purge_delay_ms), &["purge_delay_ms"]);
            let evidence = member.document.evidence.get_mut("purge_delay_ms").unwrap();
            (evidence.score_with, evidence.score_without) = (score_with, score_without);
            member
        };
        let members = [
            scored("a", 10, 10, 0.9, 0.0),
            scored("b", 5, 10, 0.6, 1.5),
            scored("c", 2, 10, 0.0, 0.0),
            scored("d", 9, 77, 0.1, 0.1),
        ];
        let evidence = merge(&members).unwrap().0.evidence.remove("purge_delay_ms").unwrap();
        assert!((evidence.score_with - 0.8).abs() < 1e-9, "{evidence:?}");
        assert!((evidence.score_without - 1.5).abs() < 1e-9, "what nobody measured does not count: {evidence:?}");
    }

    #[test]
    fn knobs_that_belong_together_come_from_one_file() {
        let small = FrozenPolicy { cache_blocks: 8, cache_max_blocks: 16, ..FrozenPolicy::DEFAULT };
        let large = FrozenPolicy { cache_blocks: 1024, cache_max_blocks: 2048, ..FrozenPolicy::DEFAULT };
        let (document, _) = merge(&[member("a", 2, small.clone(), &[]), member("b", 1, large, &[])]).unwrap();
        assert_eq!(document.policy, small);
    }

    #[test]
    fn different_knobs_add_up() {
        let outbox = FrozenPolicy { outbox_blocks: 64, ..FrozenPolicy::DEFAULT };
        let (document, conflicts) = merge(&[member("a", 1, purge(10), &[]), member("b", 9, outbox, &[])]).unwrap();
        assert_eq!(document.policy, FrozenPolicy { outbox_blocks: 64, ..purge(10) });
        assert!(conflicts.is_empty());
    }

    #[test]
    fn merging_does_not_depend_on_the_order_unless_voices_are_equal() {
        let members =
            || [member("a", 4, purge(10), &[]), member("b", 9, purge(77), &[]), member("c", 4, purge(10), &[])];
        let mut reversed = members();
        reversed.reverse();
        assert_eq!(merge(&members()).unwrap().0.policy, merge(&reversed).unwrap().0.policy);
        assert!(merge(&members()[..1]).is_err());
    }
}
