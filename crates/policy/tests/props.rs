//! Random environments and values against what must hold for all of them, and the cell against a list of snapshots.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may stop")]

#[path = "support/environment.rs"]
mod environment;
#[path = "support/policy_file.rs"]
mod policy_file;

use hakmem_policy::file::{Knobs, parse_policy};
use hakmem_policy::{BootError, FrozenPolicy, PolicyCell, Settings, parse_environment, variables};
use hakmem_testkit::cases;
use hakmem_testkit::model::corpus;
use proptest::collection::vec;
use proptest::prelude::*;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn parse(pairs: &Pairs) -> (Settings<'_>, Vec<String>) {
    let mut complaints = Vec::new();
    let borrowed = pairs.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    let settings = parse_environment(borrowed, &mut |complaint| complaints.push(complaint.to_string()));
    (settings, complaints)
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<_> = variables().map(|variable| variable.name.as_bytes().to_vec()).collect();
    prop_oneof![
        6 => proptest::sample::select(known),
        1 => vec(any::<u8>(), 0..60).prop_map(|tail| [b"HAKMEM_".as_slice(), &tail].concat()),
        1 => vec(any::<u8>(), 0..20),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => any::<u64>().prop_map(|number| number.to_string().into_bytes()),
        3 => (0_u32..2000).prop_map(|number| number.to_string().into_bytes()),
        2 => "[0-9]{1,4}(K|M|G|T|KiB|ms|s|\\.[0-9]{1,3})?".prop_map(String::into_bytes),
        2 => "[0-9]{1,3}([,-][0-9]{1,3}){0,5}".prop_map(String::into_bytes),
        1 => "(0x[0-9a-f]{0,33}|never|none|on|off|yes)".prop_map(String::into_bytes),
        2 => vec(any::<u8>(), 0..40),
    ]
}

fn pairs() -> impl Strategy<Value = Pairs> {
    vec((name(), value()), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(256), ..ProptestConfig::default() })]

    #[test]
    fn any_environment_gives_a_valid_policy(pairs in pairs()) {
        let (settings, complaints) = parse(&pairs);
        prop_assert_eq!(settings.policy.validate(), Ok(()));
        prop_assert_eq!(settings.policy.generation, 0);
        for complaint in complaints {
            prop_assert!(complaint.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{}", complaint);
        }
    }

    #[test]
    fn the_order_of_different_names_does_not_matter(mut pairs in pairs()) {
        pairs.sort();
        pairs.dedup_by(|left, right| left.0 == right.0);
        let mut reversed = pairs.clone();
        reversed.reverse();
        prop_assert_eq!(parse(&pairs).0, parse(&reversed).0);
    }

    #[test]
    fn settings_written_out_are_read_back_the_same(pairs in pairs()) {
        let (settings, _) = parse(&pairs);
        // Texts are escaped when written; they are compared by the unit tests.
        let settings = Settings { stats_file: None, dump_dir: None, policy_file: None, policy_out: None, ..settings };
        let written: Pairs = variables()
            .map(|variable| {
                let mut text = String::new();
                variable.write_value(&settings, &mut text).unwrap();
                (variable.name.as_bytes().to_vec(), text.into_bytes())
            })
            .collect();
        let (again, complaints) = parse(&written);
        prop_assert_eq!(complaints, Vec::<String>::new());
        prop_assert_eq!(again, settings);
    }

    #[test]
    fn a_name_outside_the_prefix_never_matters(name in vec(any::<u8>(), 0..30), value in vec(any::<u8>(), 0..30)) {
        prop_assume!(!name.starts_with(b"HAKMEM_"));
        let pairs = vec![(name, value)];
        prop_assert_eq!(parse(&pairs), (Settings::DEFAULT, vec![]));
    }

    #[test]
    fn sizes_are_read_as_the_arithmetic_says(number in 0_u64..5000, (suffix, factor) in proptest::sample::select(vec![
        ("", 1_u64), ("B", 1), ("K", 1 << 10), ("kb", 1 << 10), ("KiB", 1 << 10), ("M", 1 << 20), ("MiB", 1 << 20),
        ("G", 1 << 30), ("gib", 1 << 30), ("T", 1 << 40),
    ])) {
        let text = format!("{number}{suffix}");
        let pairs = vec![(b"HAKMEM_BIG_RETAIN_BYTES".to_vec(), text.clone().into_bytes())];
        let (settings, complaints) = parse(&pairs);
        let bytes = number * factor;
        if bytes == 0 || (2 << 20..=1 << 40).contains(&bytes) {
            prop_assert_eq!(settings.policy.big_retain_bytes as u64, bytes, "{}", text);
            prop_assert!(complaints.is_empty());
        } else {
            prop_assert_eq!(settings.policy, FrozenPolicy::DEFAULT);
            prop_assert_eq!(complaints.len(), 1);
        }
    }
}

/// A line as somebody might write it into a policy file, right or wrong.
fn file_line() -> impl Strategy<Value = String> {
    let fields: Vec<_> = variables().filter_map(|variable| variable.field).collect();
    let value = prop_oneof![
        4 => "[0-9]{1,4}",
        2 => "\"[0-9]{1,4}(K|M|G|ms|s)?\"",
        2 => "\\[[0-9]{1,2}(, ?[0-9]{1,2}){0,5}\\]",
        2 => "[0-9]\\.[0-9]{1,4}",
        2 => "(true|false|\"never\"|\"none\"|\"0-3,7\"|'tiny-only'|\"auto\")",
        1 => "[ -~]{0,20}",
    ];
    prop_oneof![
        12 => (proptest::sample::select(fields), value).prop_map(|(field, value)| format!("{field} = {value}")),
        1 => Just("[knobs]".to_owned()),
        1 => "\\[{1,2}[a-z\". ]{1,12}\\]{1,2}( #.*)?",
        1 => "[a-z_.\" ]{1,9} ?= ?[ -~]{0,20}",
        1 => "[ -~]{0,40}",
        1 => any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(512), ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_to_a_file_is_read_back_whatever_stood_before(policy in pairs(), base in pairs()) {
        let (policy, base) = (parse(&policy).0.policy, parse(&base).0.policy);
        let all = policy_file::written(&policy, Knobs::All);
        prop_assert_eq!(parse_policy(all.as_bytes(), &base), Ok(policy.clone()));
        let changed = policy_file::written(&policy, Knobs::Changed);
        prop_assert_eq!(parse_policy(changed.as_bytes(), &FrozenPolicy::DEFAULT), Ok(policy));
    }

    #[test]
    fn any_lines_are_a_policy_or_a_complaint(head in 0..8, lines in vec(file_line(), 0..12)) {
        let head = if head == 0 { "" } else { "version = 1\n[knobs]\n" };
        let _either = policy_file::check(format!("{head}{}", lines.join("\n")).as_bytes());
    }

    #[test]
    fn any_bytes_are_a_policy_or_a_complaint(policy in pairs(), text in vec(any::<u8>(), 0..60), at in any::<usize>()) {
        let _either = policy_file::check(&text);
        // A valid file with a hole of any bytes.
        let mut file = policy_file::written(&parse(&policy).0.policy, Knobs::All).into_bytes();
        let at = at % file.len();
        let end = (at + text.len() / 8).min(file.len());
        file.splice(at..end, text);
        let _either = policy_file::check(&file);
    }
}

#[test]
fn the_fuzzers_corpus_of_files_is_replayed() {
    let (mut changed, mut complaints) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for (name, script) in corpus("policy_file") {
        println!("{name}");
        match policy_file::check(&script) {
            Ok(policy) => policy.for_each_difference(&FrozenPolicy::DEFAULT, &mut |field| _ = changed.insert(field)),
            // Without place, names and values.
            Err(complaint) => _ = complaints.insert(complaint.split(':').nth(2).unwrap_or_default().to_owned()),
        }
    }
    let untouched: Vec<_> = FrozenPolicy::FIELDS.iter().filter(|field| !changed.contains(**field)).collect();
    assert!(untouched.is_empty(), "the corpus does not set these knobs: {untouched:?}");
    let expected = [
        "not understood",
        "no `version = 1`",
        "this hakmem reads version",
        "stands outside",
        "for the second time",
        "is not a knob",
        "did you mean",
        "is not understood",
        "is out of range",
        "does not fit",
    ];
    for part in expected {
        assert!(complaints.iter().any(|complaint| complaint.contains(part)), "the corpus lacks a file that `{part}`");
    }
}

#[test]
fn the_fuzzers_corpus_is_replayed() {
    let (mut changed, mut complaints) = (std::collections::BTreeSet::new(), 0);
    for (name, script) in corpus("environment") {
        println!("{name}");
        let outcome = environment::check(&environment::decode(&script));
        changed.extend(outcome.changed);
        complaints += outcome.complaints.len();
    }
    assert!(complaints > 20, "the corpus complains {complaints} times");
    let untouched: Vec<_> = variables().map(|known| known.name).filter(|name| !changed.contains(name)).collect();
    assert_eq!(untouched, [""; 0], "the corpus does not set these variables");
}

#[derive(Clone, Debug)]
enum Step {
    Boot(FrozenPolicy),
    Publish(FrozenPolicy),
    /// A reader looks at the word and, if it is news, at the snapshot: what a slow path does.
    PickUp {
        reader: usize,
    },
    /// A snapshot is kept while others replace it.
    Keep,
    Drop,
}

const READERS: usize = 3;

/// A policy with a mark to know it by; one in four is out of bounds or does not fit itself.
fn policy() -> impl Strategy<Value = FrozenPolicy> {
    (1_u32..60_000, 0_u8..8).prop_map(|(mark, flaw)| {
        let policy = FrozenPolicy { outbox_bytes: mark + 16, ..FrozenPolicy::DEFAULT };
        match flaw {
            0 => FrozenPolicy { outbox_blocks: 0, ..policy },
            1 => FrozenPolicy { cache_blocks: 300, cache_max_blocks: 299, ..policy },
            _ => policy,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(256), ..ProptestConfig::default() })]

    #[test]
    fn snapshots_replace_each_other_and_live_as_long_as_they_are_kept(steps in vec(prop_oneof![
        1 => policy().prop_map(Step::Boot),
        6 => policy().prop_map(Step::Publish),
        6 => (0..READERS).prop_map(|reader| Step::PickUp { reader }),
        3 => Just(Step::Keep),
        2 => Just(Step::Drop),
    ], 1..60)) {
        let cell = PolicyCell::new();
        // The boot policy, then all that was published: the position is the generation.
        let mut model = vec![FrozenPolicy::DEFAULT];
        let mut is_booted = false;
        let mut kept = Vec::new();
        let mut seen = [0_u32; READERS];
        for step in steps {
            match step {
                Step::Boot(policy) => {
                    let expected = match policy.validate() {
                        Err(error) => Err(BootError::Invalid(error)),
                        Ok(()) if is_booted || model.len() > 1 => Err(BootError::TooLate),
                        Ok(()) => Ok(()),
                    };
                    prop_assert_eq!(cell.set_boot(policy.clone()), expected);
                    if expected.is_ok() {
                        (model[0], is_booted) = (policy, true);
                    }
                }
                Step::Publish(policy) => {
                    let generation = model.len() as u32;
                    let expected = policy.validate().map(|()| generation);
                    prop_assert_eq!(cell.publish(policy.clone()), expected);
                    if expected.is_ok() {
                        model.push(FrozenPolicy { generation, ..policy });
                    }
                }
                Step::PickUp { reader } => {
                    let is_news = cell.generation() != seen[reader];
                    prop_assert_eq!(is_news, model.len() as u32 - 1 != seen[reader]);
                    if is_news {
                        seen[reader] = cell.with(|policy| policy.generation);
                    }
                    prop_assert_eq!(seen[reader] as usize, model.len() - 1);
                }
                Step::Keep => {
                    let snapshot = cell.load();
                    prop_assert_eq!(snapshot.is_some(), model.len() > 1);
                    kept.extend(snapshot);
                }
                Step::Drop => drop(kept.pop()),
            }
            let now = model.last().unwrap();
            prop_assert!(cell.with(|policy| policy == now));
            prop_assert_eq!((cell.generation() as usize, cell.boot()), (model.len() - 1, &model[0]));
            for snapshot in &kept {
                prop_assert_eq!(&**snapshot, &model[snapshot.generation as usize]);
            }
        }
    }

    #[test]
    fn every_bound_of_every_knob_is_kept(place in any::<usize>(), number in any::<u64>()) {
        use hakmem_policy::Kind;
        let knobs: Vec<_> = variables().filter(|variable| variable.field.is_some()).collect();
        let knob = knobs[place % knobs.len()];
        let Kind::Number { min, max, zero, .. } = knob.kind else { return Ok(()) };
        // The bounds, their neighbours, and any number.
        for value in [min, max, min.saturating_sub(1), max.saturating_add(1), number, 0] {
            let pairs = vec![(knob.name.as_bytes().to_vec(), value.to_string().into_bytes())];
            let (settings, complaints) = parse(&pairs);
            let is_within = (min..=max).contains(&value) || zero && value == 0;
            let mut shown = String::new();
            knob.write_value(&settings, &mut shown).unwrap();
            if !is_within {
                prop_assert_eq!(settings.policy, FrozenPolicy::DEFAULT, "{}={}", knob.name, value);
                prop_assert_eq!(complaints.len(), 1, "{}={}", knob.name, value);
            } else if complaints.is_empty() {
                // A value that does not fit another knob is changed, with a complaint.
                let pairs = vec![(knob.name.as_bytes().to_vec(), shown.into_bytes())];
                prop_assert_eq!(parse(&pairs).0, settings.clone(), "{}={}", knob.name, value);
            }
        }
    }
}
