//! A script of bytes as an environment, and what must hold for any environment: shared by a test and the fuzz target.
//!
//! Records end with a zero byte. `name=value` is one variable; `@` and a byte, then the value, is the variable or alias
//! that the byte counts to, so that a fuzzer need not guess forty names.

use hakmem_policy::{PolicyCell, Settings, aliases, parse_environment, variables};

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// What an environment came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Variables that changed something.
    pub changed: Vec<&'static str>,
    /// Complaints, as written.
    pub complaints: Vec<String>,
}

/// Longest complaint: the name and the value are quoted in part, and the rest is fixed text.
const COMPLAINT_BYTES: usize = 1024;

/// The variables that a script sets.
pub fn decode(script: &[u8]) -> Pairs {
    let names: Vec<&str> = variables().map(|variable| variable.name).chain(aliases().map(|alias| alias.name)).collect();
    let records = script.split(|&byte| byte == 0).filter(|record| !record.is_empty());
    records
        .map(|record| match record {
            [b'@', place, value @ ..] => (names[usize::from(*place) % names.len()].as_bytes().to_vec(), value.to_vec()),
            _ => match record.iter().position(|&byte| byte == b'=') {
                Some(at) => (record[..at].to_vec(), record[at + 1..].to_vec()),
                None => (record.to_vec(), Vec::new()),
            },
        })
        .collect()
}

fn parse(pairs: &Pairs) -> (Settings<'_>, Vec<String>) {
    let mut complaints = Vec::new();
    let borrowed = pairs.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    let settings = parse_environment(borrowed, &mut |complaint| complaints.push(complaint.to_string()));
    (settings, complaints)
}

/// Reads the environment and checks what must hold.
///
/// # Panics
/// When something does not.
pub fn check(pairs: &Pairs) -> Outcome {
    let (settings, complaints) = parse(pairs);
    assert_eq!(settings.policy.validate(), Ok(()), "the policy is not valid");
    assert_eq!(settings.policy.generation, 0);
    for complaint in &complaints {
        assert!(complaint.len() <= COMPLAINT_BYTES, "{} bytes: {complaint}", complaint.len());
        assert!(complaint.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "not printable: {complaint:?}");
    }
    // Every pair complains twice at most: for itself, and because it does not fit another one.
    assert!(complaints.len() <= 2 * pairs.len().max(1) + 16, "{} complaints", complaints.len());

    // Of equal names the first counts; apart from that the order means nothing.
    let mut once = pairs.clone();
    let mut seen = std::collections::BTreeSet::new();
    once.retain(|(name, value)| value.is_empty() || seen.insert(name.clone()));
    assert_eq!(parse(&once).0, settings, "a later variable of the same name counted");
    once.reverse();
    assert_eq!(parse(&once).0, settings, "the order counted");

    // Written out and read again, nothing changes and nothing is complained about.
    let quiet = Settings { stats_file: None, dump_dir: None, policy_file: None, policy_out: None, ..settings.clone() };
    let written: Pairs = variables().map(|variable| (variable.name.into(), shown(variable, &quiet).into())).collect();
    assert_eq!(parse(&written), (quiet, vec![]), "written out and read again");

    // A cell takes it, at boot and later, and says the same.
    let cell = PolicyCell::new();
    assert_eq!(cell.set_boot(settings.policy.clone()), Ok(()));
    assert!(cell.with(|policy| *policy == settings.policy));
    assert_eq!(cell.publish(settings.policy.clone()), Ok(1));
    let mut differing = Vec::new();
    cell.with(|policy| policy.for_each_difference(&settings.policy, &mut |field| differing.push(field)));
    assert_eq!(differing, [""; 0]);

    let default = Settings::DEFAULT;
    let is_changed = |variable: &&hakmem_policy::EnvVar| shown(variable, &settings) != shown(variable, &default);
    Outcome { changed: variables().filter(is_changed).map(|variable| variable.name).collect(), complaints }
}

fn shown(variable: &hakmem_policy::EnvVar, settings: &Settings<'_>) -> String {
    let mut text = String::new();
    variable.write_value(settings, &mut text).unwrap();
    text
}
