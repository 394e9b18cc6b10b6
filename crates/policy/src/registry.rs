//! Every `HAKMEM_*` variable, once.
//!
//! **Invariants.** Names are unique over variables and aliases; every alias names a variable; there are at most 128
//! variables, so that the ones already seen fit into a word.

use crate::knobs::KNOB_VARIABLES;
use crate::settings::{Foreign, Mode, Profile, Settings, Strategies};
use crate::value::{Kind, Value, ValueError, bytes, count, milliseconds};
use core::fmt::{self, Write};

/// One variable.
#[derive(Debug)]
pub struct EnvVar {
    /// Its name.
    pub name: &'static str,
    /// The knob it sets, or `None` where it sets something outside the policy.
    pub field: Option<&'static str>,
    /// What it accepts.
    pub kind: Kind,
    /// What it means.
    pub doc: &'static str,
    /// Takes a value over into settings.
    pub(crate) apply: for<'a> fn(&mut Settings<'a>, &'a [u8]) -> Result<(), ValueError>,
    /// Writes the value that settings hold, as a text that `apply` takes.
    pub(crate) show: fn(&Settings<'_>, &mut dyn Write) -> fmt::Result,
}

/// Another name for a variable; the variable itself wins when both are set.
#[derive(Debug)]
pub struct Alias {
    /// The other name.
    pub name: &'static str,
    /// The variable it stands for.
    pub target: &'static str,
}

/// The variable whose value is a profile; it is read before all others.
pub(crate) const PROFILE_NAME: &str = "HAKMEM_PROFILE";
/// The variable whose value is a policy file; it is read after the profile.
pub(crate) const POLICY_FILE_NAME: &str = "HAKMEM_POLICY";
/// What all names begin with; others are none of our business.
pub(crate) const PREFIX: &[u8] = b"HAKMEM_";
/// Beginnings of names that the project's own tools read, not the allocator.
pub(crate) const TOOL_PREFIXES: [&[u8]; 3] = [b"HAKMEM_BENCH_", b"HAKMEM_STRESS_", b"HAKMEM_TEST_"];

/// `HAKMEM_WINDOW_BYTES`: from the smallest useful window to what 47 address bits hold.
const WINDOW_KIND: Kind = bytes(32 << 20, 1 << 46).or_zero();

/// `HAKMEM_QUARANTINE_BYTES`, `HAKMEM_QUARANTINE_BLOCKS`: from none to what 73 classes can hold on a large machine.
const QUARANTINE_BYTES_KIND: Kind = bytes(0, 256 << 20);
const QUARANTINE_BLOCKS_KIND: Kind = count(0, 1 << 20);
/// `HAKMEM_GUARDS`: more than a kernel lets a process have mappings for is of no use.
const GUARDS_KIND: Kind = count(1, 1 << 30).or_zero();
/// `HAKMEM_FREEZE_SIGNAL`: the kernel's numbers.
const FREEZE_SIGNAL_KIND: Kind = count(1, 64).or_zero();
/// `HAKMEM_LEARN_WINDOW_MS`, `HAKMEM_LEARN_WINDOW_ALLOCS`: short enough to decide within a second, long enough to measure in.
const LEARN_WINDOW_MS_KIND: Kind = milliseconds(10, 60_000);
const LEARN_WINDOW_ALLOCS_KIND: Kind = count(1 << 12, 1 << 30);
const LEARN_MEMORY_KIND: Kind = count(0, 1000);
/// `HAKMEM_WATCH`: every one up to hardly any.
const WATCH_KIND: Kind = count(1, 1 << 30).or_zero().or_never();
/// `HAKMEM_SAMPLE_SLOTS`: each takes 64 KiB of address space.
const SAMPLE_SLOTS_KIND: Kind = count(1, 65_536);

macro_rules! variable {
    ($name:expr, $field:ident, $kind:expr, $doc:literal) => {
        EnvVar {
            name: $name,
            field: None,
            kind: $kind,
            doc: $doc,
            apply: |settings, text| {
                settings.$field = Value::parse(text, &$kind)?;
                Ok(())
            },
            show: |settings, out| settings.$field.show(&$kind, out),
        }
    };
}

macro_rules! text_variable {
    ($name:expr, $field:ident, $doc:literal) => {
        EnvVar {
            name: $name,
            field: None,
            kind: Kind::Text,
            doc: $doc,
            apply: |settings, text| {
                settings.$field = Some(text);
                Ok(())
            },
            show: |settings, out| write_escaped(out, settings.$field.unwrap_or_default()),
        }
    };
}

const OTHER_VARIABLES: &[EnvVar] = &[
    EnvVar {
        name: PROFILE_NAME,
        field: None,
        kind: Profile::KIND,
        doc: " The starting point that all other variables change, wherever they stand.",
        apply: |settings, text| {
            *settings = <Profile as Value>::parse(text, &Profile::KIND)?.settings();
            Ok(())
        },
        show: |settings, out| out.write_str(settings.profile.name()),
    },
    variable!(
        "HAKMEM_MODE",
        mode,
        Mode::KIND,
        " Whether policy changes while the program runs: never (FROZEN), never although a thread measures (OBSERVE), or whenever that thread finds a better one (LEARN)."
    ),
    text_variable!(
        POLICY_FILE_NAME,
        policy_file,
        " Policy file to start from: what it says counts more than the profile and less than single variables. See docs/policy-file.md."
    ),
    text_variable!(
        "HAKMEM_POLICY_OUT",
        policy_out,
        " With LEARN: file for the policy that was learned, written at exit in the form that HAKMEM_POLICY reads; `%p` in it stands for the process id. A process that learned nothing leaves a file that is there as it is."
    ),
    variable!(
        "HAKMEM_FREEZE_SIGNAL",
        freeze_signal,
        FREEZE_SIGNAL_KIND,
        " Number of a signal upon which policy stays as it is, as after HAKMEM_MODE=FROZEN; 0 is none."
    ),
    variable!(
        "HAKMEM_LEARN_WINDOW_MS",
        learn_window_ms,
        LEARN_WINDOW_MS_KIND,
        " How long the thread that measures waits from one look to the next while the program allocates, at most, unless looks are dear: see docs/learning.md."
    ),
    variable!(
        "HAKMEM_LEARN_WINDOW_ALLOCS",
        learn_window_allocs,
        LEARN_WINDOW_ALLOCS_KIND,
        " Allocations of small blocks after which LEARN looks earlier, though never within 10 milliseconds."
    ),
    variable!(
        "HAKMEM_LEARN_STRATEGIES",
        learn_strategies,
        Strategies::KIND,
        " How LEARN chooses among whole policies, once no single step is left; `off`: there are none to choose from. See docs/learning.md for what they find, and cost."
    ),
    variable!(
        "HAKMEM_LEARN_CAP_TERMS",
        learn_cap_terms,
        Kind::Switch,
        " LEARN steers the capacities of caches with integral and derivative terms beside the proportional one."
    ),
    variable!(
        "HAKMEM_LEARN_MEMORY_PERMILLE",
        learn_memory_permille,
        LEARN_MEMORY_KIND,
        " How much memory counts in LEARN's score, in thousandths; processor time and page faults share the rest as 4 to 3."
    ),
    variable!(
        "HAKMEM_WATCH",
        watch,
        WATCH_KIND,
        " In OBSERVE and LEARN: one allocation of a size class in this many is watched from birth to death; 0 is as many as cost a thousandth of the processor time, `never` is none."
    ),
    variable!(
        "HAKMEM_SITE_RULES",
        site_rules,
        Kind::Switch,
        " The site rules of the policy file are in force: hints for the big blocks that single places in the program ask for."
    ),
    variable!(
        "HAKMEM_WINDOW_BYTES",
        window_bytes,
        WINDOW_KIND,
        " Address space to reserve at start; 0 is eight times the memory of the machine, at least 64G."
    ),
    variable!("HAKMEM_STATS", stats, Kind::Switch, " Statistics as text on stderr at exit."),
    variable!("HAKMEM_SS_OS_STATS", ss_os_stats, Kind::Switch, " Statistics of the superslab box on stderr at exit."),
    text_variable!(
        "HAKMEM_STATS_FILE",
        stats_file,
        " File for statistics as JSON at exit; `%p` in it stands for the process id."
    ),
    variable!("HAKMEM_DUMP_SIGNAL", dump_signal, Kind::Switch, " SIGUSR2 writes a heap dump."),
    text_variable!("HAKMEM_DUMP_DIR", dump_dir, " Folder for heap dumps; the working directory if not set."),
    variable!("HAKMEM_TINY_RING", tiny_ring, Kind::Switch, " Events at the adoption boundary are recorded."),
    variable!(
        "HAKMEM_FOREIGN",
        foreign,
        Foreign::KIND,
        " What the preload library does with a pointer that is not hakmem's: pass it to the next allocator, or abort; `auto` passes only if that allocator has handed out anything."
    ),
    variable!(
        "HAKMEM_HARDENED",
        hardened,
        Kind::Switch,
        " The hardened level, decided at start: guard pages, canaries, quarantine, every free checked. See docs/hardening.md."
    ),
    variable!(
        "HAKMEM_QUARANTINE_BYTES",
        quarantine_bytes,
        QUARANTINE_BYTES_KIND,
        " At the hardened level: bytes of freed blocks that wait, per size class, before they are handed out again."
    ),
    variable!(
        "HAKMEM_QUARANTINE_BLOCKS",
        quarantine_blocks,
        QUARANTINE_BLOCKS_KIND,
        " At the hardened level: freed blocks that wait, per size class; large ones in all."
    ),
    variable!(
        "HAKMEM_GUARDS",
        guards,
        GUARDS_KIND,
        " At the hardened level: guards that stand at a time, two for each slab and each large block; 0 is three eighths of vm.max_map_count."
    ),
    variable!(
        "HAKMEM_SAMPLE_SLOTS",
        sample_slots,
        SAMPLE_SLOTS_KIND,
        " Guarded samples that there can be at a time, freed ones that still rest included."
    ),
    variable!(
        "HAKMEM_VERBOSE",
        verbose,
        Kind::Switch,
        " One line on stderr at start says what runs: profile, mode, level, version, policy file."
    ),
];

const ALIASES: &[Alias] = &[
    Alias { name: "HAKMEM_SS_MADVISE_DSO_FAILFAST", target: "HAKMEM_MADVISE_GUARD_ABORT" },
    Alias { name: "HAKMEM_TINY_SS_ADOPT", target: "HAKMEM_PUBLISH_ADOPT" },
    Alias { name: "HAKMEM_TINY_MUST_ADOPT", target: "HAKMEM_MUST_ADOPT" },
    Alias { name: "HAKMEM_TINY_RF_FORCE_NOTIFY", target: "HAKMEM_FORCE_NOTIFY" },
    Alias { name: "HAKMEM_POOL_V1_FLATTEN_ENABLED", target: "HAKMEM_POOL_FLATTEN" },
    Alias { name: "HAKMEM_BUDGET_MID", target: "HAKMEM_MID_BUDGET" },
    Alias { name: "HAKMEM_BUDGET_LARGE", target: "HAKMEM_LARGE_BUDGET" },
    Alias { name: "HAKMEM_DEBUG_VERBOSE", target: "HAKMEM_VERBOSE" },
];

const _: () = assert!(KNOB_VARIABLES.len() + OTHER_VARIABLES.len() <= u128::BITS as usize, "seen variables are a u128");

/// All variables, those outside the policy first.
pub fn variables() -> impl Iterator<Item = &'static EnvVar> {
    OTHER_VARIABLES.iter().chain(KNOB_VARIABLES)
}

/// All other names of variables.
pub fn aliases() -> impl Iterator<Item = &'static Alias> {
    ALIASES.iter()
}

/// The variable of this name, with its position in [`variables`].
pub(crate) fn find(name: &[u8]) -> Option<(usize, &'static EnvVar)> {
    variables().enumerate().find(|(_, variable)| variable.name.as_bytes() == name)
}

/// Number of knobs.
pub(crate) const KNOB_COUNT: usize = KNOB_VARIABLES.len();

/// The variable that sets the knob of this name, with its position among the knobs.
pub(crate) fn knob_at(field: &[u8]) -> Option<(usize, &'static EnvVar)> {
    let is_it = |variable: &EnvVar| variable.field.is_some_and(|name| name.as_bytes() == field);
    KNOB_VARIABLES.iter().enumerate().find(|(_, variable)| is_it(variable))
}

/// The variable that sets this knob.
pub(crate) fn variable_of(field: &str) -> Option<&'static EnvVar> {
    knob_at(field.as_bytes()).map(|(_, variable)| variable)
}

impl EnvVar {
    /// What the variable means, as sentences.
    #[must_use]
    pub fn meaning(&self) -> &'static str {
        self.doc.trim()
    }

    /// Writes the value that `settings` hold for this variable, as a text that the variable accepts.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_value(&self, settings: &Settings<'_>, out: &mut dyn Write) -> fmt::Result {
        (self.show)(settings, out)
    }
}

/// Writes foreign bytes as one line of ASCII; anything unusual becomes `\xNN`.
pub(crate) fn write_escaped(out: &mut dyn Write, text: &[u8]) -> fmt::Result {
    for &byte in text {
        if byte == b' ' || (byte.is_ascii_graphic() && byte != b'\\') {
            out.write_char(char::from(byte))?;
        } else {
            out.write_str("\\x")?;
            for digit in [byte >> 4, byte & 15] {
                out.write_char(char::from_digit(u32::from(digit), 16).unwrap_or('?'))?;
            }
        }
    }
    Ok(())
}

/// Longest part (bytes) of a foreign text that a complaint repeats.
const QUOTED_BYTES: usize = 64;

/// Writes foreign bytes as one line of ASCII, cut where it gets long; anything unusual becomes `\xNN`.
///
/// # Errors
/// Those of `out`.
pub fn write_quoted(out: &mut dyn Write, text: &[u8]) -> fmt::Result {
    match text.split_at_checked(QUOTED_BYTES) {
        Some((beginning, rest)) if !rest.is_empty() => {
            write_escaped(out, beginning)?;
            out.write_str("...")
        }
        _ => write_escaped(out, text),
    }
}

/// Edits (insert, delete, replace) that a mistyped name may be away from a known one.
const NEAR_EDITS: u8 = 2;
/// Longest name that is compared.
const NEAR_BYTES: usize = 48;

/// The known name nearest to `name`, if at most two edits away.
#[must_use]
pub fn nearest_name(name: &[u8]) -> Option<&'static str> {
    nearest_of(variables().map(|variable| variable.name).chain(aliases().map(|alias| alias.name)), name)
}

/// The knob that may have been meant by `name`: the one whose variable it is, or one at most two edits away.
pub(crate) fn nearest_field(name: &[u8]) -> Option<&'static str> {
    let of_variable = find(name).and_then(|(_, variable)| variable.field);
    of_variable.or_else(|| nearest_of(KNOB_VARIABLES.iter().filter_map(|variable| variable.field), name))
}

fn nearest_of(names: impl Iterator<Item = &'static str>, name: &[u8]) -> Option<&'static str> {
    let distances = names.filter_map(|known| Some((edit_distance(known.as_bytes(), name)?, known)));
    distances
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= NEAR_EDITS)
        .map(|(_, known)| known)
}

/// Edits between two names, or `None` if their lengths alone rule out a small number.
fn edit_distance(known: &[u8], given: &[u8]) -> Option<u8> {
    if known.len().abs_diff(given.len()) > usize::from(NEAR_EDITS)
        || given.len() > NEAR_BYTES
        || known.len() > NEAR_BYTES
    {
        return None;
    }
    // One row of the table: edits between what was read of `known` and the first n bytes of `given`.
    let mut row = [0_u8; NEAR_BYTES + 1];
    for (length, slot) in (0_u8..).zip(row.iter_mut()) {
        *slot = length;
    }
    for &known_byte in known {
        let (first, rest) = row.split_first_mut()?;
        let mut diagonal = *first;
        *first += 1;
        let mut left = *first;
        for (slot, &given_byte) in rest.iter_mut().zip(given) {
            let replaced = diagonal + u8::from(!known_byte.eq_ignore_ascii_case(&given_byte));
            diagonal = *slot;
            *slot = replaced.min(diagonal + 1).min(left + 1);
            left = *slot;
        }
    }
    row.get(given.len()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FrozenPolicy;
    use std::collections::BTreeSet;

    fn shown(variable: &EnvVar, settings: &Settings<'_>) -> String {
        let mut text = String::new();
        variable.write_value(settings, &mut text).unwrap();
        text
    }

    /// A value that the variable accepts and that is not its default.
    fn another_value(variable: &EnvVar) -> String {
        let default = shown(variable, &Settings::DEFAULT);
        let candidates: Vec<String> = match variable.kind {
            Kind::Switch => vec!["0".into(), "1".into()],
            Kind::Number { min, max, .. } => vec![min.to_string(), max.to_string()],
            Kind::Five { min, max } => vec![min.to_string(), max.to_string()],
            Kind::Classes => vec!["5,9-11".into()],
            Kind::Sizes { max, .. } => vec![max.to_string()],
            Kind::Choice(names) => names.iter().map(|name| (*name).to_string()).collect(),
            Kind::Text => vec!["/tmp/%p".into()],
        };
        let is_another = |candidate: &String| {
            let mut settings = Settings::DEFAULT;
            (variable.apply)(&mut settings, candidate.as_bytes()).unwrap();
            shown(variable, &settings) != default
        };
        candidates.into_iter().find(is_another).unwrap()
    }

    #[test]
    fn every_knob_has_exactly_one_variable() {
        let mut set_by = Vec::new();
        for variable in variables().filter(|variable| variable.field.is_some()) {
            let text = another_value(variable);
            let mut settings = Settings::DEFAULT;
            (variable.apply)(&mut settings, text.as_bytes()).unwrap();
            let mut changed = Vec::new();
            settings.policy.for_each_difference(&FrozenPolicy::DEFAULT, &mut |field| changed.push(field));
            assert_eq!(changed, [variable.field.unwrap()], "{} changes its own knob only", variable.name);
            set_by.extend(changed);
            settings.policy = FrozenPolicy::DEFAULT;
            assert_eq!(settings, Settings::DEFAULT, "{} changes nothing outside the policy", variable.name);
        }
        assert_eq!(set_by, FrozenPolicy::FIELDS);
        // The fields as the compiler sees them, so that a field outside the declaration would be found.
        let debug = format!("{:?}", FrozenPolicy::DEFAULT);
        assert_eq!(debug.matches(": ").count(), FrozenPolicy::FIELDS.len() + 1, "all knobs and the generation");
    }

    #[test]
    fn a_knob_and_its_variable_have_the_same_name() {
        for variable in variables() {
            if let Some(field) = variable.field {
                let expected = field.strip_suffix("_permille").unwrap_or(field).to_uppercase();
                assert_eq!(variable.name, format!("HAKMEM_{expected}"));
            }
        }
    }

    #[test]
    fn every_variable_takes_back_what_it_shows() {
        for profile in Profile::ALL {
            let settings = profile.settings();
            for variable in variables().filter(|variable| variable.kind != Kind::Text) {
                let text = shown(variable, &settings);
                let mut again = settings.clone();
                assert_eq!((variable.apply)(&mut again, text.as_bytes()), Ok(()), "{}={text}", variable.name);
                assert_eq!(again, settings, "{}={text}", variable.name);
            }
        }
    }

    #[test]
    fn names_are_unique_and_begin_with_the_prefix() {
        let names: Vec<_> =
            variables().map(|variable| variable.name).chain(aliases().map(|alias| alias.name)).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        for name in names {
            assert!(name.as_bytes().starts_with(PREFIX) && name.len() <= NEAR_BYTES, "{name}");
            assert!(!TOOL_PREFIXES.iter().any(|prefix| name.as_bytes().starts_with(prefix)), "{name}");
        }
    }

    #[test]
    fn every_alias_names_a_variable() {
        for alias in aliases() {
            assert!(find(alias.target.as_bytes()).is_some(), "{}", alias.target);
            assert!(find(alias.name.as_bytes()).is_none());
        }
    }

    #[test]
    fn mistyped_names_find_the_one_that_was_meant() {
        assert_eq!(nearest_name(b"HAKMEM_CACHE_BLOKS"), Some("HAKMEM_CACHE_BLOCKS"));
        assert_eq!(nearest_name(b"HAKMEM_PROFIL"), Some("HAKMEM_PROFILE"));
        assert_eq!(nearest_name(b"hakmem_stats"), Some("HAKMEM_STATS"));
        assert_eq!(nearest_name(b"HAKMEM_TINY_SS_ADOPTT"), Some("HAKMEM_TINY_SS_ADOPT"));
        assert_eq!(nearest_name(b"HAKMEM_CACHE_BLKS"), Some("HAKMEM_CACHE_BLOCKS"), "two edits");
        assert_eq!(nearest_name(b"HAKMEM_CACHE_BLXXXS"), None, "three edits");
        assert_eq!(nearest_name(b"HAKMEM_SOMETHING_ELSE"), None);
        assert_eq!(nearest_name(&[b'H'; 500]), None);
        assert_eq!(nearest_name(b""), None);
    }

    #[test]
    fn edit_distance_counts_single_edits() {
        for (known, given, edits) in [
            ("KITTEN", "KITTEN", 0),
            ("KITTEN", "KITTN", 1),
            ("KITTEN", "SITTEN", 1),
            ("KITTEN", "SITTING", 3),
            ("AB", "", 2),
        ] {
            assert_eq!(edit_distance(known.as_bytes(), given.as_bytes()), Some(edits), "{known} {given}");
        }
        assert_eq!(edit_distance(b"KITTEN", b"KIT"), None);
    }

    #[test]
    fn unusual_bytes_are_escaped() {
        let mut text = String::new();
        write_escaped(&mut text, b"a b\n\xff\\").unwrap();
        assert_eq!(text, "a b\\x0a\\xff\\x5c");
    }
}
