//! Any bytes as a policy file, and what must hold for them: shared by a test and the fuzz target.
//!
//! The judge is a full TOML parser: what the reader takes, it must take too, and the knobs must say the same.

use hakmem_policy::file::{Knobs, POLICY_FILE_BYTES, parse_policy, parse_policy_file, write_policy};
use hakmem_policy::{
    FrozenPolicy, SITE_RULES, Settings, SiteRule, parse_environment, variables, write_calls, write_site,
};
use toml::{Table, Value};

/// Longest complaint: names and values are quoted in part, and the rest is fixed text.
const COMPLAINT_BYTES: usize = 1024;

/// Reads the file on top of the defaults and checks what must hold. The policy, or the complaint about the file.
///
/// # Panics
/// When something does not.
pub fn check(text: &[u8]) -> Result<FrozenPolicy, String> {
    let mut rules = Vec::new();
    let policy = match parse_policy_file(text, &FrozenPolicy::DEFAULT, &mut |rule| rules.push(*rule)) {
        Ok(policy) => policy,
        Err(error) => {
            let complaint = error.to_string();
            let line_count = text.split(|&byte| byte == b'\n').count();
            assert!((1..=line_count).contains(&(error.line as usize)), "{complaint}");
            assert!(complaint.len() <= COMPLAINT_BYTES, "{} bytes: {complaint}", complaint.len());
            assert!(complaint.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{complaint:?}");
            return Err(complaint);
        }
    };
    assert!(text.len() <= POLICY_FILE_BYTES);
    assert_eq!(policy.validate(), Ok(()), "the policy is not valid");
    for knobs in [Knobs::All, Knobs::Changed] {
        assert_eq!(parse_policy(written(&policy, knobs).as_bytes(), &FrozenPolicy::DEFAULT), Ok(policy.clone()));
    }
    rules_are_written_as_they_were_read(&rules);
    let text = std::str::from_utf8(text).unwrap();
    match text.parse::<Table>() {
        Ok(document) => {
            assert_eq!(as_the_judge_reads(&document), policy, "a full parser reads another policy");
            let judged = document.get("site").map_or(&[][..], |sites| sites.as_array().unwrap());
            assert_eq!(judged.len(), rules.len(), "a full parser reads other rules");
            judged.iter().zip(&rules).for_each(|(table, rule)| assert_eq!(told(table), told_of(rule)));
        }
        // The lines of tables that are skipped are not looked at closely.
        Err(error) => assert!(has_other_tables(text), "a full parser refuses it: {error}"),
    }
    Ok(policy)
}

fn rules_are_written_as_they_were_read(rules: &[SiteRule<'_>]) {
    assert!(rules.len() <= SITE_RULES);
    let mut text = String::from("version = 1\n");
    rules.iter().for_each(|rule| write_site(rule, &mut text).unwrap());
    let mut again = Vec::new();
    parse_policy_file(text.as_bytes(), &FrozenPolicy::DEFAULT, &mut |rule| again.push(told_of(rule))).unwrap();
    assert_eq!(again, rules.iter().map(told_of).collect::<Vec<_>>());
}

/// What a rule says, as text.
fn told_of(rule: &SiteRule<'_>) -> [String; 4] {
    let mut calls = String::new();
    write_calls(rule, &mut calls).unwrap();
    let (least, most) = (rule.least_bytes as i64, rule.most_bytes as i64);
    let bytes = if most == -1 { String::new() } else { format!("{least},{most}") };
    let keep_ms = if rule.keep_ms == 0 { String::new() } else { rule.keep_ms.to_string() };
    [calls, bytes, rule.pages.map_or(String::new(), |pages| pages.name().to_owned()), keep_ms]
}

fn told(table: &Value) -> [String; 4] {
    let keep_ms = table.get("keep_ms").map_or(String::new(), spelled);
    // A time may have a unit.
    let keep_ms = match keep_ms.trim_end_matches("ms").strip_suffix('s') {
        Some(seconds) => format!("{seconds}000"),
        None => keep_ms.trim_end_matches("ms").to_owned(),
    };
    let of = |key: &str| table.get(key).map_or(String::new(), spelled);
    [of("calls"), of("bytes"), of("pages").to_lowercase().replace('_', "-"), keep_ms]
}

/// The policy as a file.
pub fn written(policy: &FrozenPolicy, knobs: Knobs) -> String {
    let mut text = String::new();
    write_policy(policy, knobs, &mut text).unwrap();
    text
}

fn has_other_tables(text: &str) -> bool {
    let is_other =
        |line: &str| line.starts_with('[') && line.trim_matches(['[', ' ', '\t']).split(']').next() != Some("knobs");
    text.lines().map(str::trim).any(is_other)
}

/// The knobs of a document, taken as variables of the same names would be.
fn as_the_judge_reads(document: &Table) -> FrozenPolicy {
    assert_eq!(document.get("version"), Some(&Value::Integer(1)));
    let nothing = Table::new();
    let knobs = document.get("knobs").map_or(&nothing, |knobs| knobs.as_table().unwrap());
    let pairs: Vec<(&str, String)> = knobs
        .iter()
        .map(|(field, value)| {
            let variable = variables().find(|variable| variable.field == Some(field)).unwrap();
            (variable.name, spelled(value))
        })
        .collect();
    let borrowed = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let settings: Settings<'_> = parse_environment(borrowed, &mut |complaint| panic!("{complaint}"));
    settings.policy
}

fn spelled(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(ratio) => format!("{ratio:.3}"),
        Value::Boolean(switch) => switch.to_string(),
        Value::Array(items) => items.iter().map(spelled).collect::<Vec<_>>().join(","),
        Value::Datetime(_) | Value::Table(_) => panic!("{value:?} is no value of a knob"),
    }
}
