//! Any bytes as a policy file, and what must hold for them: shared by a test and the fuzz target.
//!
//! The judge is a full TOML parser: what the reader takes, it must take too, and the knobs must say the same.

use hakmem_policy::file::{Knobs, POLICY_FILE_BYTES, parse_policy, write_policy};
use hakmem_policy::{FrozenPolicy, Settings, parse_environment, variables};
use toml::{Table, Value};

/// Longest complaint: names and values are quoted in part, and the rest is fixed text.
const COMPLAINT_BYTES: usize = 1024;

/// Reads the file on top of the defaults and checks what must hold. The policy, or the complaint about the file.
///
/// # Panics
/// When something does not.
pub fn check(text: &[u8]) -> Result<FrozenPolicy, String> {
    let policy = match parse_policy(text, &FrozenPolicy::DEFAULT) {
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
    let text = std::str::from_utf8(text).unwrap();
    match text.parse::<Table>() {
        Ok(document) => assert_eq!(as_the_judge_reads(&document), policy, "a full parser reads another policy"),
        // The lines of tables that are skipped are not looked at closely.
        Err(error) => assert!(has_other_tables(text), "a full parser refuses it: {error}"),
    }
    Ok(policy)
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
