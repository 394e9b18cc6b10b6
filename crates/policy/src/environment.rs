//! From the bytes of the environment to settings, with a complaint for each variable that was not taken.
//!
//! **Not here.** Reading `environ`, printing: the caller brings names and values and delivers complaints.
//! **Invariants.** The policy that comes out is valid whatever went in. The result does not depend on the order of the
//! variables, except that of two equal names the first counts, as for `getenv`. Nothing is allocated.

use crate::knobs::FrozenPolicy;
use crate::registry::{
    EnvVar, POLICY_FILE_NAME, PREFIX, PROFILE_NAME, TOOL_PREFIXES, aliases, find, nearest_name, variable_of,
    write_quoted,
};
use crate::settings::Settings;
use crate::value::{Kind, ValueError};
use core::fmt::{self, Display, Formatter, Write};

/// What is wrong with a variable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    /// No variable has this name.
    UnknownName {
        /// The known name that may have been meant.
        nearest: Option<&'static str>,
    },
    /// The value does not read as what the variable accepts.
    Malformed {
        /// What it accepts.
        kind: Kind,
    },
    /// The value is outside the variable's bounds.
    OutOfRange {
        /// What it accepts.
        kind: Kind,
    },
    /// The value of the variable did not fit another one and was changed.
    Conflict {
        /// The variable that it has to fit.
        with: &'static str,
    },
}

/// A variable that was not taken as it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Complaint<'a> {
    /// Name of the variable.
    pub name: &'a [u8],
    /// Its value; empty for a [`Problem::Conflict`].
    pub value: &'a [u8],
    /// What is wrong.
    pub problem: Problem,
}

impl Complaint<'_> {
    /// Writes one line without its end and without the formatting machinery, for use before allocation works.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_line(&self, out: &mut dyn Write) -> fmt::Result {
        write_quoted(out, self.name)?;
        if matches!(self.problem, Problem::Malformed { .. } | Problem::OutOfRange { .. }) {
            out.write_str("=")?;
            write_quoted(out, self.value)?;
        }
        match self.problem {
            Problem::UnknownName { nearest: None } => out.write_str(" is not a variable of hakmem; ignored"),
            Problem::UnknownName { nearest: Some(nearest) } => {
                out.write_str(" is not a variable of hakmem; did you mean ")?;
                out.write_str(nearest)?;
                out.write_str("? ignored")
            }
            Problem::Malformed { kind } => {
                out.write_str(" is not understood; accepted: ")?;
                kind.write_accepted(out)?;
                out.write_str("; ignored")
            }
            Problem::OutOfRange { kind } => {
                out.write_str(" is out of range; accepted: ")?;
                kind.write_accepted(out)?;
                out.write_str("; ignored")
            }
            Problem::Conflict { with } => {
                out.write_str(" did not fit ")?;
                out.write_str(with)?;
                out.write_str("; changed to fit")
            }
        }
    }
}

impl Display for Complaint<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        self.write_line(out)
    }
}

/// Whether any name begins with `HAKMEM_`. If none does, [`parse_environment`] comes to [`Settings::DEFAULT`], and its code need
/// not be touched, which a small process would pay for in memory.
pub fn addresses_us<'a>(mut names: impl Iterator<Item = &'a [u8]>) -> bool {
    names.any(|name| name.starts_with(PREFIX))
}

/// Reads the environment. `variables` yields every name and value (it is walked more than once); names that do not begin
/// with `HAKMEM_`, and those of the project's tools, are skipped. An empty value counts as not set.
///
/// The profile is applied first, then single variables, then aliases of variables that are not set. A policy file is named in the
/// settings and not read: see [`parse_environment_over`].
pub fn parse_environment<'a, I>(variables: I, complain: &mut dyn FnMut(Complaint<'a>)) -> Settings<'a>
where
    I: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
{
    parse_environment_over(variables, &mut |_path, policy| Some(policy.clone()), complain)
}

/// As [`parse_environment`], over a policy file: `read_file` is called with its path and the profile's policy, and what it returns,
/// a valid policy, takes the place of the latter. Without one the settings name no policy file.
pub fn parse_environment_over<'a, I>(
    variables: I,
    read_file: &mut dyn FnMut(&'a [u8], &FrozenPolicy) -> Option<FrozenPolicy>,
    complain: &mut dyn FnMut(Complaint<'a>),
) -> Settings<'a>
where
    I: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
{
    let is_ours = |name: &[u8]| name.starts_with(PREFIX) && !TOOL_PREFIXES.iter().any(|tool| name.starts_with(tool));
    let ours = variables.filter(|(name, value)| is_ours(name) && !value.is_empty());
    let mut reader = Reader { settings: Settings::DEFAULT, seen: 0, complain };
    for first in [PROFILE_NAME, POLICY_FILE_NAME] {
        for (name, value) in ours.clone() {
            if name == first.as_bytes() {
                reader.take(name, name, value);
            }
        }
    }
    if let Some(path) = reader.settings.policy_file {
        match read_file(path, &reader.settings.policy) {
            Some(policy) => reader.settings.policy = policy,
            None => reader.settings.policy_file = None,
        }
    }
    for (name, value) in ours.clone() {
        if find(name).is_some() {
            reader.take(name, name, value);
        } else if alias_target(name).is_none() {
            let problem = Problem::UnknownName { nearest: nearest_name(name) };
            (reader.complain)(Complaint { name, value, problem });
        }
    }
    for (name, value) in ours {
        if let Some(target) = alias_target(name) {
            reader.take(name, target, value);
        }
    }
    reader.finish()
}

fn alias_target(name: &[u8]) -> Option<&'static [u8]> {
    aliases().find(|alias| alias.name.as_bytes() == name).map(|alias| alias.target.as_bytes())
}

/// Settings on their way, and which variables have been read already (by position in the registry).
struct Reader<'a, 'c> {
    settings: Settings<'a>,
    seen: u128,
    complain: &'c mut dyn FnMut(Complaint<'a>),
}

impl<'a> Reader<'a, '_> {
    /// Applies the variable `target`, unless it was read already; complaints use the name that the user wrote.
    fn take(&mut self, name: &'a [u8], target: &[u8], value: &'a [u8]) {
        let Some((position, variable)) = find(target) else { return };
        if self.seen & (1 << position) != 0 {
            return;
        }
        self.seen |= 1 << position;
        if let Err(error) = (variable.apply)(&mut self.settings, value.trim_ascii()) {
            let problem = problem_of(error, variable);
            (self.complain)(Complaint { name, value, problem });
        }
    }

    fn finish(self) -> Settings<'a> {
        let Self { mut settings, seen, complain } = self;
        let is_asked_for = |name: &str| find(name.as_bytes()).is_some_and(|(position, _)| seen & (1 << position) != 0);
        // A largest cap that was asked for holds against a first one that was not; everything else is `repair`'s to settle.
        let policy = &mut settings.policy;
        for (first, largest, name, with) in [
            (&mut policy.cache_blocks, policy.cache_max_blocks, "HAKMEM_CACHE_BLOCKS", "HAKMEM_CACHE_MAX_BLOCKS"),
            (&mut policy.cache_bytes, policy.cache_max_bytes, "HAKMEM_CACHE_BYTES", "HAKMEM_CACHE_MAX_BYTES"),
        ] {
            if *first > largest && is_asked_for(with) && !is_asked_for(name) {
                *first = largest;
                complain(Complaint { name: name.as_bytes(), value: b"", problem: Problem::Conflict { with } });
            }
        }
        settings.policy.repair(&mut |field, with| {
            let (Some(changed), Some(with)) = (variable_of(field), variable_of(with)) else { return };
            let problem = Problem::Conflict { with: with.name };
            complain(Complaint { name: changed.name.as_bytes(), value: b"", problem });
        });
        settings
    }
}

fn problem_of(error: ValueError, variable: &EnvVar) -> Problem {
    match error {
        ValueError::Malformed => Problem::Malformed { kind: variable.kind },
        ValueError::OutOfRange => Problem::OutOfRange { kind: variable.kind },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mode, Profile};

    fn parse<'a>(pairs: &[(&'a str, &'a str)]) -> (Settings<'a>, Vec<String>) {
        let mut complaints = Vec::new();
        let bytes = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let settings = parse_environment(bytes, &mut |complaint| complaints.push(complaint.to_string()));
        (settings, complaints)
    }

    #[test]
    fn only_names_that_begin_as_ours_do_address_us() {
        let is_heard = |names: &[&'static str]| addresses_us(names.iter().map(|name| name.as_bytes()));
        assert!(!is_heard(&[]) && !is_heard(&["PATH", "HAKMEM", "XHAKMEM_STATS", ""]));
        assert!(is_heard(&["PATH", "HAKMEM_STATS"]) && is_heard(&["HAKMEM_"]));
    }

    #[test]
    fn an_empty_environment_says_the_defaults() {
        assert_eq!(parse(&[]), (Settings::DEFAULT, vec![]));
        assert_eq!(parse(&[("PATH", "/bin"), ("HAKMEM", "1"), ("XHAKMEM_STATS", "1")]), (Settings::DEFAULT, vec![]));
    }

    #[test]
    fn variables_are_taken() {
        let (settings, complaints) = parse(&[
            ("HAKMEM_CACHE_BLOCKS", "128"),
            ("HAKMEM_BIG_RETAIN_BYTES", "1G"),
            ("HAKMEM_STATS", "on"),
            ("HAKMEM_STATS_FILE", "/tmp/%p.json"),
            ("HAKMEM_WINDOW_BYTES", " 64GiB "),
            ("HAKMEM_FOREIGN", "reject"),
        ]);
        assert_eq!(complaints, [""; 0]);
        assert_eq!((settings.policy.cache_blocks, settings.policy.big_retain_bytes), (128, 1 << 30));
        assert_eq!((settings.stats, settings.window_bytes), (true, 64 << 30));
        assert_eq!(settings.stats_file, Some(b"/tmp/%p.json".as_slice()));
        assert_eq!(settings.foreign, crate::Foreign::Reject);
    }

    #[test]
    fn bad_input_is_named_and_the_default_used() {
        for (name, value, complaint) in [
            (
                "HAKMEM_CACHE_BLOKS",
                "1",
                "HAKMEM_CACHE_BLOKS is not a variable of hakmem; did you mean HAKMEM_CACHE_BLOCKS? ignored",
            ),
            ("HAKMEM_NO_SUCH_THING", "1", "HAKMEM_NO_SUCH_THING is not a variable of hakmem; ignored"),
            (
                "HAKMEM_CACHE_BLOCKS",
                "many",
                "HAKMEM_CACHE_BLOCKS=many is not understood; accepted: number, 1 to 65536; ignored",
            ),
            ("HAKMEM_CACHE_BYTES", "2G", "HAKMEM_CACHE_BYTES=2G is out of range; accepted: bytes, 1K to 1G; ignored"),
            (
                "HAKMEM_STATS",
                "\n\u{ff}",
                "HAKMEM_STATS=\\x0a\\xc3\\xbf is not understood; accepted: on or off; ignored",
            ),
            ("HAKMEM_MODE", "THAW", "HAKMEM_MODE=THAW is not understood; accepted: FROZEN, OBSERVE, LEARN; ignored"),
            (
                "HAKMEM_PROFILE",
                "FAST",
                "HAKMEM_PROFILE=FAST is not understood; accepted: DEFAULT, MIXED_TINYV3_C7_SAFE, C6_HEAVY_LEGACY_POOLV1, \
                 DEBUG_TINY_FRONT_PERF; ignored",
            ),
        ] {
            assert_eq!(parse(&[(name, value)]), (Settings::DEFAULT, vec![complaint.to_string()]));
        }
    }

    #[test]
    fn a_malformed_value_keeps_what_the_profile_says() {
        let (settings, complaints) =
            parse(&[("HAKMEM_CACHE_BLOCKS", "x"), ("HAKMEM_PROFILE", "C6_HEAVY_LEGACY_POOLV1")]);
        assert_eq!(settings, Profile::C6HeavyLegacyPoolv1.settings());
        assert_eq!(complaints.len(), 1);
    }

    #[test]
    fn variables_override_the_profile_in_any_order() {
        let flatten = ("HAKMEM_POOL_FLATTEN", "0");
        let profile = ("HAKMEM_PROFILE", "c6_heavy_legacy_poolv1");
        let (settings, complaints) = parse(&[flatten, profile]);
        assert_eq!((settings.clone(), complaints), parse(&[profile, flatten]));
        assert!(!settings.policy.pool_flatten);
        assert_eq!(settings.policy.cache_max_blocks, 512);
        assert_eq!(settings.profile, Profile::C6HeavyLegacyPoolv1);
    }

    #[test]
    fn an_alias_stands_for_its_variable_and_yields_to_it() {
        assert!(!parse(&[("HAKMEM_TINY_SS_ADOPT", "0")]).0.policy.publish_adopt);
        assert!(parse(&[("HAKMEM_TINY_SS_ADOPT", "0"), ("HAKMEM_PUBLISH_ADOPT", "1")]).0.policy.publish_adopt);
        let (settings, complaints) = parse(&[("HAKMEM_TINY_MUST_ADOPT", "x")]);
        assert!(!settings.policy.must_adopt);
        assert_eq!(complaints, ["HAKMEM_TINY_MUST_ADOPT=x is not understood; accepted: on or off; ignored"]);
    }

    #[test]
    fn a_policy_file_counts_more_than_the_profile_and_less_than_variables() {
        let variables = [
            ("HAKMEM_REFILL_BYTES", "2048"),
            ("HAKMEM_POLICY", "a.toml"),
            ("HAKMEM_PROFILE", "C6_HEAVY_LEGACY_POOLV1"),
        ];
        let bytes = variables.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let mut read_file = |path: &[u8], policy: &FrozenPolicy| {
            assert_eq!(path, b"a.toml");
            Some(FrozenPolicy { refill_bytes: 1024, purge_delay_ms: 5, ..policy.clone() })
        };
        let policy = parse_environment_over(bytes, &mut read_file, &mut |_| panic!("a complaint")).policy;
        assert_eq!((policy.refill_bytes, policy.purge_delay_ms, policy.cache_max_blocks), (2048, 5, 512));
    }

    #[test]
    fn the_first_of_two_equal_names_counts() {
        assert_eq!(parse(&[("HAKMEM_CACHE_BLOCKS", "7"), ("HAKMEM_CACHE_BLOCKS", "8")]).0.policy.cache_blocks, 7);
    }

    #[test]
    fn values_that_do_not_fit_each_other_are_changed_and_named() {
        let (settings, complaints) = parse(&[("HAKMEM_CACHE_BLOCKS", "512")]);
        assert_eq!(settings.policy.cache_max_blocks, 512);
        assert_eq!(complaints, ["HAKMEM_CACHE_MAX_BLOCKS did not fit HAKMEM_CACHE_BLOCKS; changed to fit"]);
    }

    #[test]
    fn of_two_values_that_do_not_fit_the_one_that_was_asked_for_holds() {
        let (settings, complaints) = parse(&[("HAKMEM_CACHE_MAX_BLOCKS", "64"), ("HAKMEM_CACHE_MAX_BYTES", "16K")]);
        let policy = &settings.policy;
        assert_eq!((policy.cache_blocks, policy.cache_max_blocks), (64, 64));
        assert_eq!((policy.cache_bytes, policy.cache_max_bytes), (16 << 10, 16 << 10));
        let said = |unit| format!("HAKMEM_CACHE_{unit} did not fit HAKMEM_CACHE_MAX_{unit}; changed to fit");
        assert_eq!(complaints, [said("BLOCKS"), said("BYTES")]);
        let both = [("HAKMEM_CACHE_MAX_BLOCKS", "64"), ("HAKMEM_CACHE_BLOCKS", "512")];
        assert_eq!(parse(&both).0.policy.cache_max_blocks, 512);
    }

    #[test]
    fn empty_values_and_names_of_tools_are_skipped() {
        let (settings, complaints) =
            parse(&[("HAKMEM_STATS", ""), ("HAKMEM_NOPE", ""), ("HAKMEM_STRESS_SECONDS", "60")]);
        assert_eq!((settings, complaints), (Settings::DEFAULT, vec![]));
    }

    #[test]
    fn the_mode_is_frozen_unless_another_one_is_asked_for() {
        assert_eq!(parse(&[("HAKMEM_MODE", "frozen")]), (Settings::DEFAULT, vec![]));
        assert_eq!(Settings::DEFAULT.mode, Mode::Frozen);
        for (name, mode) in [("observe", Mode::Observe), ("LEARN", Mode::Learn)] {
            let (settings, complaints) = parse(&[("HAKMEM_MODE", name)]);
            assert_eq!((settings, complaints), (Settings { mode, ..Settings::DEFAULT }, vec![]));
        }
    }

    #[test]
    fn long_values_are_cut_in_complaints() {
        let long = "9".repeat(500);
        let (settings, complaints) = parse(&[("HAKMEM_OUTBOX_BLOCKS", &long)]);
        assert_eq!(settings.policy, FrozenPolicy::DEFAULT);
        assert!(complaints[0].len() < 200 && complaints[0].contains("999..."), "{complaints:?}");
    }
}
