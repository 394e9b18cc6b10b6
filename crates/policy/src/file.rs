//! Policy files: from the bytes of a `policy.toml` to a policy, and back.
//!
//! A file is read inside the first `malloc` of a process, so the reader allocates nothing and knows only the part of TOML that a
//! policy needs; whatever it accepts means the same to a full TOML parser. `docs/policy-file.md` is the format's page:
//!
//! - a line is blank, a comment, a `[table]`, or `key = value`, where a value ends on its line; keys and table names are bare;
//! - `version = 1` comes before the first table, and nothing else does;
//! - `[knobs]` holds `field = value` with the fields of [`FrozenPolicy`]; a value is what the knob's variable takes: an
//!   integer, a ratio with a point, `true` or `false`, a string without escapes, or an array of integers;
//! - each `[[site]]` is a rule for the big blocks of one place in the program (`sites.rs`);
//! - all other tables (evidence, source) are for the tools: their lines are skipped, but must be of this form.
//!
//! **Not here.** Opening files, printing, and what the other tables mean.
//! **Invariants.** A file is taken as a whole or not at all, and what is taken is a valid policy. What [`write_policy`] writes,
//! [`parse_policy`] reads as the same policy. Neither allocates.

use crate::knobs::{FieldError, FrozenPolicy};
use crate::registry::{EnvVar, KNOB_COUNT, knob_at, nearest_field, variables, write_quoted};
use crate::settings::{Pages, Settings};
use crate::sites::{KEEP_KIND, SITE_BYTES_KIND, SITE_RULES, SiteRule};
use crate::value::{Kind, Value, ValueError, write_decimal};
use core::fmt::{self, Display, Formatter, Write};

/// The version of the format that is read and written.
pub const POLICY_FILE_VERSION: u32 = 1;

/// The largest file, so that a reader can have a buffer of fixed size. A policy with evidence for every knob takes a quarter.
pub const POLICY_FILE_BYTES: usize = 64 << 10;

/// What is wrong with a file, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileError<'a> {
    /// Line, counted from 1.
    pub line: u32,
    /// What is wrong there.
    pub problem: FileProblem<'a>,
}

/// What is wrong with a line of a policy file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileProblem<'a> {
    /// The file is longer than [`POLICY_FILE_BYTES`].
    TooLong,
    /// The line is not of a form that the reader knows.
    Syntax {
        /// What would be.
        expected: &'static str,
    },
    /// No `version` before the first table, or none at all.
    MissingVersion,
    /// The file has another version of the format.
    WrongVersion {
        /// The one it has.
        found: &'a [u8],
    },
    /// A key that stands before the first table and is not `version`.
    Stray {
        /// The key.
        key: &'a [u8],
    },
    /// A key or table that the file has already had.
    Repeated {
        /// Its name.
        name: &'static str,
    },
    /// No knob has this name.
    UnknownKnob {
        /// The name.
        name: &'a [u8],
        /// The knob that may have been meant.
        nearest: Option<&'static str>,
    },
    /// A site rule has no such key.
    UnknownSiteKey {
        /// The key.
        name: &'a [u8],
    },
    /// A site rule that names no calls, or does nothing.
    UselessSite,
    /// More than [`SITE_RULES`] site rules.
    TooManySites,
    /// The value does not read as what the knob accepts.
    Malformed {
        /// The knob.
        field: &'static str,
        /// The value.
        value: &'a [u8],
        /// What the knob accepts.
        kind: Kind,
    },
    /// The value is outside the knob's bounds.
    OutOfRange {
        /// The knob.
        field: &'static str,
        /// The value.
        value: &'a [u8],
        /// What the knob accepts.
        kind: Kind,
    },
    /// Two knobs do not fit each other.
    Conflict {
        /// The knob that would have to change.
        field: &'static str,
        /// The knob that it has to fit.
        with: &'static str,
    },
}

impl FileError<'_> {
    /// Writes `file:line: what`, without an end of line and without the formatting machinery, for use before allocation works.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_line(&self, file: &[u8], out: &mut dyn Write) -> fmt::Result {
        write_quoted(out, file)?;
        out.write_str(":")?;
        write_decimal(out, u64::from(self.line))?;
        out.write_str(": ")?;
        self.problem.write(out)
    }
}

impl Display for FileError<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        self.write_line(b"policy.toml", out)
    }
}

impl core::error::Error for FileError<'_> {}

impl FileProblem<'_> {
    fn write(&self, out: &mut dyn Write) -> fmt::Result {
        match *self {
            Self::TooLong => {
                out.write_str("longer than ")?;
                write_decimal(out, POLICY_FILE_BYTES as u64)?;
                out.write_str(" bytes")
            }
            Self::Syntax { expected } => {
                out.write_str("not understood; expected ")?;
                out.write_str(expected)
            }
            Self::MissingVersion => out.write_str("no `version = 1` before the first table"),
            Self::WrongVersion { found } => {
                out.write_str("version ")?;
                write_quoted(out, found)?;
                out.write_str("; this hakmem reads version ")?;
                write_decimal(out, u64::from(POLICY_FILE_VERSION))
            }
            Self::Stray { key } => {
                write_quoted(out, key)?;
                out.write_str(" stands outside every table; knobs belong below [knobs]")
            }
            Self::Repeated { name } => {
                out.write_str(name)?;
                out.write_str(" for the second time")
            }
            Self::UnknownKnob { name, nearest } => {
                write_quoted(out, name)?;
                out.write_str(" is not a knob")?;
                let Some(nearest) = nearest else { return Ok(()) };
                out.write_str("; did you mean ")?;
                out.write_str(nearest)?;
                out.write_str("?")
            }
            Self::UnknownSiteKey { name } => {
                write_quoted(out, name)?;
                out.write_str(" is no key of a [[site]]; there are calls, bytes, pages, keep_ms")
            }
            Self::UselessSite => out.write_str("a [[site]] needs calls, and pages or keep_ms or both"),
            Self::TooManySites => {
                out.write_str("more than ")?;
                write_decimal(out, SITE_RULES as u64)?;
                out.write_str(" site rules")
            }
            Self::Malformed { field, value, kind } => {
                write_refused(out, field, value, " is not understood; accepted: ", &kind)
            }
            Self::OutOfRange { field, value, kind } => {
                write_refused(out, field, value, " is out of range; accepted: ", &kind)
            }
            Self::Conflict { field, with } => {
                out.write_str(field)?;
                out.write_str(" does not fit ")?;
                out.write_str(with)
            }
        }
    }
}

fn write_refused(out: &mut dyn Write, field: &str, value: &[u8], why: &str, kind: &Kind) -> fmt::Result {
    out.write_str(field)?;
    out.write_str(" = ")?;
    write_quoted(out, value)?;
    out.write_str(why)?;
    kind.write_accepted(out)
}

/// Reads a policy file; knobs that it does not name stay as in `base`, which is valid.
///
/// # Errors
/// The first line that is wrong. Then nothing of the file counts.
pub fn parse_policy<'a>(text: &'a [u8], base: &FrozenPolicy) -> Result<FrozenPolicy, FileError<'a>> {
    parse_policy_file(text, base, &mut |_| {})
}

/// The same, and `on_site` gets each site rule as it comes: at most [`SITE_RULES`].
///
/// # Errors
/// The first line that is wrong. Then nothing of the file counts, also no rule that has been passed on.
pub fn parse_policy_file<'a>(
    text: &'a [u8],
    base: &FrozenPolicy,
    on_site: &mut dyn FnMut(&SiteRule<'a>),
) -> Result<FrozenPolicy, FileError<'a>> {
    let settings = Settings { policy: base.clone(), ..Settings::DEFAULT };
    let mut reader = Reader {
        settings,
        table: Table::Top,
        has_version: false,
        has_knobs: false,
        lines: [0; KNOB_COUNT],
        line: 0,
        site: Site::NONE,
        sites: 0,
        on_site,
    };
    if text.len() > POLICY_FILE_BYTES {
        return Err(FileError { line: 1, problem: FileProblem::TooLong });
    }
    for line in text.split(|&byte| byte == b'\n') {
        reader.line += 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        reader.take_line(line).map_err(|problem| reader.blame(problem))?;
    }
    reader.finish()
}

/// Where the lines go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    Top,
    Knobs,
    Site,
    Other,
}

/// A file on its way.
struct Reader<'a, 's> {
    settings: Settings<'a>,
    table: Table,
    has_version: bool,
    has_knobs: bool,
    /// The line of each knob that the file sets, by its position; 0 for the others.
    lines: [u32; KNOB_COUNT],
    line: u32,
    /// The site rule that is being read.
    site: Site<'a>,
    /// Site rules that have begun.
    sites: usize,
    on_site: &'s mut dyn FnMut(&SiteRule<'a>),
}

/// A site rule on its way. The hints may come before the calls.
#[derive(Clone, Copy)]
struct Site<'a> {
    /// The line that it began at; 0: there is none.
    line: u32,
    calls: Option<SiteRule<'a>>,
    bytes: Option<(usize, usize)>,
    pages: Option<Pages>,
    keep_ms: Option<u32>,
}

impl<'a> Site<'a> {
    const NONE: Self = Self { line: 0, calls: None, bytes: None, pages: None, keep_ms: None };

    /// The rule, if it has calls and says something.
    fn rule(&self) -> Option<SiteRule<'a>> {
        let rule = self.calls.filter(|_| self.pages.is_some() || self.keep_ms.is_some())?;
        let (least_bytes, most_bytes) = self.bytes.unwrap_or((rule.least_bytes, rule.most_bytes));
        Some(SiteRule { least_bytes, most_bytes, pages: self.pages, keep_ms: self.keep_ms.unwrap_or(0), ..rule })
    }
}

const EXPECTED_LINE: &str = "[table], key = value, or a comment";
const EXPECTED_TABLE: &str = "a bare name in brackets, [knobs] without tables below it, and each rule as [[site]]";
const EXPECTED_VALUE: &str =
    "a value that ends on its line: an integer, true, false, a string without escapes, or [integers]";

const EXPECTED_CALLS: &str =
    "calls = \"module+0x12ab module+0x34\": one to eight, the innermost first, a blank between two";
const EXPECTED_RANGE: &str = "bytes = [least, most]";

type Step<'a, T = ()> = Result<T, FileProblem<'a>>;

const fn syntax<'a, T>(expected: &'static str) -> Step<'a, T> {
    Err(FileProblem::Syntax { expected })
}

impl<'a> Reader<'a, '_> {
    /// What is wrong with the present line, or with the site rule that ends before it.
    fn blame(&self, problem: FileProblem<'a>) -> FileError<'a> {
        let line = if problem == FileProblem::UselessSite { self.site.line } else { self.line };
        FileError { line, problem }
    }

    fn take_line(&mut self, line: &'a [u8]) -> Step<'a> {
        if line.iter().any(|&byte| byte != b'\t' && byte.is_ascii_control()) || core::str::from_utf8(line).is_err() {
            return syntax("text in UTF-8");
        }
        match blank_trimmed(line) {
            [] | [b'#', ..] => Ok(()),
            header @ [b'[', ..] => self.take_header(header),
            pair => {
                let at = pair.iter().position(|&byte| byte == b'=');
                let (key, rest) = at.and_then(|at| pair.split_at_checked(at)).unwrap_or((pair, b""));
                let key = blank_trimmed(key);
                let Some(value) = rest.strip_prefix(b"=").filter(|_| is_dotted_name(key)) else {
                    return syntax(EXPECTED_LINE);
                };
                self.take_pair(key, blank_trimmed(value))
            }
        }
    }

    fn take_header(&mut self, header: &'a [u8]) -> Step<'a> {
        let closing = header.iter().position(|&byte| byte == b']');
        let Some((opened, rest)) = closing.and_then(|at| header.split_at_checked(at)) else {
            return syntax(EXPECTED_TABLE);
        };
        let (name, rest) = match opened {
            [b'[', b'[', name @ ..] => (name, rest.strip_prefix(b"]]")),
            [_, name @ ..] => (name, rest.strip_prefix(b"]")),
            [] => (opened, None),
        };
        let name = blank_trimmed(name);
        if !is_dotted_name(name) || !rest.is_some_and(is_rest_of_line) {
            return syntax(EXPECTED_TABLE);
        }
        if !self.has_version {
            return Err(FileProblem::MissingVersion);
        }
        self.end_site()?;
        let is_list = opened.starts_with(b"[[");
        let first = blank_trimmed(name.split(|&byte| byte == b'.').next().unwrap_or(name));
        self.table = if first == b"site" {
            if name == b"site" && is_list {
                self.begin_site()?
            } else if name == b"site" || self.sites == 0 {
                return syntax(EXPECTED_TABLE);
            } else {
                Table::Other
            }
        } else if first != b"knobs" {
            Table::Other
        } else if name != b"knobs" || is_list {
            return syntax(EXPECTED_TABLE);
        } else if self.has_knobs {
            return Err(FileProblem::Repeated { name: "[knobs]" });
        } else {
            self.has_knobs = true;
            Table::Knobs
        };
        Ok(())
    }

    fn take_pair(&mut self, key: &'a [u8], value: &'a [u8]) -> Step<'a> {
        match self.table {
            Table::Top if key == b"version" => self.take_version(value),
            Table::Top => Err(FileProblem::Stray { key }),
            Table::Knobs => self.take_knob(key, value),
            Table::Site => self.take_site_key(key, value),
            Table::Other => {
                // A string over several lines could hide a [knobs].
                let is_long = |text: &[u8]| text == b"\"\"\"" || text == b"'''";
                if value.is_empty() || value.windows(3).any(is_long) { syntax(EXPECTED_VALUE) } else { Ok(()) }
            }
        }
    }

    fn take_version(&mut self, value: &'a [u8]) -> Step<'a> {
        if self.has_version {
            return Err(FileProblem::Repeated { name: "version" });
        }
        self.has_version = true;
        match Literal::read(value)? {
            Literal::Bare(b"1") => Ok(()),
            _ => Err(FileProblem::WrongVersion { found: value }),
        }
    }

    fn take_knob(&mut self, key: &'a [u8], value: &'a [u8]) -> Step<'a> {
        let knob = knob_at(key).and_then(|(position, knob)| Some((self.lines.get_mut(position)?, knob, knob.field?)));
        let Some((line, knob, field)) = knob else {
            return Err(FileProblem::UnknownKnob { name: key, nearest: nearest_field(key) });
        };
        if *line != 0 {
            return Err(FileProblem::Repeated { name: field });
        }
        *line = self.line;
        let kind = knob.kind;
        let (value, is_of_kind) = match Literal::read(value)? {
            Literal::Bare(text) | Literal::Text(text) => (text, true),
            Literal::Array(text) => (text, matches!(kind, Kind::Five { .. } | Kind::Sizes { .. } | Kind::Classes)),
        };
        let taken = if is_of_kind { (knob.apply)(&mut self.settings, value) } else { Err(ValueError::Malformed) };
        taken.map_err(|error| match error {
            ValueError::OutOfRange => FileProblem::OutOfRange { field, value, kind },
            ValueError::Malformed => FileProblem::Malformed { field, value, kind },
        })
    }

    fn begin_site(&mut self) -> Step<'a, Table> {
        self.sites += 1;
        if self.sites > SITE_RULES {
            return Err(FileProblem::TooManySites);
        }
        self.site = Site { line: self.line, ..Site::NONE };
        Ok(Table::Site)
    }

    /// Another table begins, or the file ends.
    fn end_site(&mut self) -> Step<'a> {
        if self.site.line != 0 {
            let rule = self.site.rule().ok_or(FileProblem::UselessSite)?;
            (self.on_site)(&rule);
            self.site = Site::NONE;
        }
        Ok(())
    }

    fn take_site_key(&mut self, key: &'a [u8], value: &'a [u8]) -> Step<'a> {
        let literal = Literal::read(value)?;
        match key {
            b"calls" => {
                let Literal::Text(text) = literal else { return syntax(EXPECTED_CALLS) };
                let Some(rule) = SiteRule::parse(text) else { return syntax(EXPECTED_CALLS) };
                set_once(&mut self.site.calls, rule, "calls")
            }
            b"bytes" => {
                let Literal::Array(text) = literal else { return syntax(EXPECTED_RANGE) };
                let Some((least, most)) = split_around(text, b',') else { return syntax(EXPECTED_RANGE) };
                let least = site_value::<usize>("bytes", blank_trimmed(least), SITE_BYTES_KIND)?;
                let most = site_value::<usize>("bytes", blank_trimmed(most), SITE_BYTES_KIND)?;
                if least > most {
                    return syntax(EXPECTED_RANGE);
                }
                set_once(&mut self.site.bytes, (least, most), "bytes")
            }
            b"pages" => {
                let (Literal::Text(text) | Literal::Bare(text) | Literal::Array(text)) = literal;
                set_once(&mut self.site.pages, site_value("pages", text, Pages::KIND)?, "pages")
            }
            b"keep_ms" => {
                let (Literal::Text(text) | Literal::Bare(text) | Literal::Array(text)) = literal;
                set_once(&mut self.site.keep_ms, site_value("keep_ms", text, KEEP_KIND)?, "keep_ms")
            }
            name => Err(FileProblem::UnknownSiteKey { name }),
        }
    }

    fn finish(mut self) -> Result<FrozenPolicy, FileError<'a>> {
        self.end_site().map_err(|problem| self.blame(problem))?;
        if !self.has_version {
            return Err(FileError { line: self.line, problem: FileProblem::MissingVersion });
        }
        let line_of = |field: &str| knob_at(field.as_bytes()).and_then(|(position, _)| self.lines.get(position));
        match self.settings.policy.validate() {
            Ok(()) => Ok(self.settings.policy),
            Err(FieldError::Conflict { field, with }) => {
                let line = line_of(field).max(line_of(with)).copied().unwrap_or(0);
                Err(FileError { line, problem: FileProblem::Conflict { field, with } })
            }
            // Not of this file: `apply` keeps the bounds.
            Err(FieldError::OutOfRange { field, kind }) => {
                Err(FileError { line: 0, problem: FileProblem::OutOfRange { field, value: b"", kind } })
            }
        }
    }
}

/// A value of a site rule.
fn site_value<'a, T: Value>(field: &'static str, value: &'a [u8], kind: Kind) -> Step<'a, T> {
    T::parse(value, &kind).map_err(|error| match error {
        ValueError::OutOfRange => FileProblem::OutOfRange { field, value, kind },
        ValueError::Malformed => FileProblem::Malformed { field, value, kind },
    })
}

fn set_once<'a, T>(place: &mut Option<T>, value: T, name: &'static str) -> Step<'a> {
    if place.replace(value).is_some() { Err(FileProblem::Repeated { name }) } else { Ok(()) }
}

/// A value as the file spells it, without its quotes or brackets.
#[derive(Clone, Copy)]
enum Literal<'a> {
    Bare(&'a [u8]),
    Text(&'a [u8]),
    Array(&'a [u8]),
}

impl<'a> Literal<'a> {
    /// Reads the value that a line ends with, a comment apart.
    fn read(text: &'a [u8]) -> Step<'a, Self> {
        let (literal, rest) = match text {
            [quote @ (b'"' | b'\''), inner @ ..] => {
                let Some((inner, rest)) = split_around(inner, *quote) else { return syntax(EXPECTED_VALUE) };
                if *quote == b'"' && inner.contains(&b'\\') {
                    return syntax(EXPECTED_VALUE);
                }
                (Self::Text(inner), rest)
            }
            [b'[', inner @ ..] => {
                let Some((inner, rest)) = split_around(inner, b']') else { return syntax(EXPECTED_VALUE) };
                if !inner.split(|&byte| byte == b',').all(|item| is_integer(blank_trimmed(item))) {
                    return syntax(EXPECTED_VALUE);
                }
                (Self::Array(inner), rest)
            }
            _ => {
                let end = text.iter().position(|&byte| is_blank(byte) || byte == b'#').unwrap_or(text.len());
                let (bare, rest) = text.split_at_checked(end).unwrap_or((text, b""));
                if !(bare == b"true" || bare == b"false" || is_integer(bare) || is_ratio(bare)) {
                    return syntax(EXPECTED_VALUE);
                }
                (Self::Bare(bare), rest)
            }
        };
        if is_rest_of_line(rest) { Ok(literal) } else { syntax(EXPECTED_VALUE) }
    }
}

/// What stands before the first `mark` and what behind it.
fn split_around(text: &[u8], mark: u8) -> Option<(&[u8], &[u8])> {
    let (before, from_mark) = text.split_at_checked(text.iter().position(|&byte| byte == mark)?)?;
    from_mark.split_first().map(|(_, behind)| (before, behind))
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Without the blanks at both ends.
fn blank_trimmed(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_blank(*first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_blank(*last)
    {
        text = rest;
    }
    text
}

fn is_rest_of_line(text: &[u8]) -> bool {
    matches!(blank_trimmed(text), [] | [b'#', ..])
}

fn is_dotted_name(text: &[u8]) -> bool {
    let is_bare = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    text.split(|&byte| byte == b'.').map(blank_trimmed).all(|part| !part.is_empty() && part.iter().all(is_bare))
}

fn is_integer(text: &[u8]) -> bool {
    text == b"0" || (matches!(text, [b'1'..=b'9', ..]) && text.iter().all(u8::is_ascii_digit))
}

fn is_ratio(text: &[u8]) -> bool {
    split_around(text, b'.').is_some_and(|(whole, fraction)| {
        is_integer(whole) && !fraction.is_empty() && fraction.iter().all(u8::is_ascii_digit)
    })
}

/// Which knobs a file names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Knobs {
    /// All: the file means the same whatever the defaults of the version that reads it.
    All,
    /// Those that differ from the defaults.
    Changed,
}

/// Writes a policy file: the version and `[knobs]`, without allocating and without the formatting machinery.
///
/// # Errors
/// Those of `out`.
pub fn write_policy(policy: &FrozenPolicy, knobs: Knobs, out: &mut dyn Write) -> fmt::Result {
    out.write_str("version = ")?;
    write_decimal(out, u64::from(POLICY_FILE_VERSION))?;
    out.write_str("\n\n[knobs]\n")?;
    let settings = Settings { policy: policy.clone(), ..Settings::DEFAULT };
    for knob in variables() {
        let Some(field) = knob.field else { continue };
        let mut is_changed = false;
        policy.for_each_difference(&FrozenPolicy::DEFAULT, &mut |changed| is_changed |= changed == field);
        if knobs == Knobs::All || is_changed {
            out.write_str(field)?;
            out.write_str(" = ")?;
            write_knob_value(knob, &settings, out)?;
            out.write_str("\n")?;
        }
    }
    Ok(())
}

/// Writes the value of one knob as a policy file spells it.
///
/// # Errors
/// Those of `out`.
pub fn write_knob_value(knob: &EnvVar, settings: &Settings<'_>, out: &mut dyn Write) -> fmt::Result {
    let mut digits = AllDigits(true);
    knob.write_value(settings, &mut digits)?;
    let (before, after) = match knob.kind {
        Kind::Switch => return knob.write_value(settings, &mut AsWords(out)),
        Kind::Five { .. } => ("[", "]"),
        Kind::Number { .. } if digits.0 => ("", ""),
        Kind::Number { .. } | Kind::Sizes { .. } | Kind::Classes | Kind::Choice(_) | Kind::Text => ("\"", "\""),
    };
    out.write_str(before)?;
    knob.write_value(settings, out)?;
    out.write_str(after)
}

/// Whether all that was written are digits.
struct AllDigits(bool);

impl Write for AllDigits {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 &= text.bytes().all(|byte| byte.is_ascii_digit());
        Ok(())
    }
}

/// A switch as TOML has it.
struct AsWords<'a>(&'a mut dyn Write);

impl Write for AsWords<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_str(if text == "1" { "true" } else { "false" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::RouteProfile;

    fn read(text: &str) -> Result<FrozenPolicy, String> {
        parse_policy(text.as_bytes(), &FrozenPolicy::DEFAULT).map_err(|error| error.to_string())
    }

    fn written(policy: &FrozenPolicy, knobs: Knobs) -> String {
        let mut text = String::new();
        write_policy(policy, knobs, &mut text).unwrap();
        text
    }

    #[test]
    fn knobs_are_read_in_every_spelling_that_toml_has() {
        let policy = read(concat!(
            "# learned on a quiet host\r\n",
            "version = 1 # the format\n\n",
            "[source]\nhost = \"a # b\"\nruns = 7\n\n",
            " [ knobs ] # what the allocator reads\n",
            "cache_blocks=64\n",
            "\tcache_bytes = '64K'\n",
            "purge_delay_ms = \"never\" # comment\n",
            "w_max_mid_permille = 1.4\n",
            "idle_trim = false\n",
            "mid_cap = [1, 2,3 , 4,\t5]\n",
            "large_cap = 9\n",
            "route_pool_classes = \"0-3,7\"\n",
            "route_profile = \"tiny_only\"\n",
            "[evidence.cache_blocks]\ncache_blocks = 99\nreason = 'less memory'\n",
            "[[hosts]]\nname = \"x\"",
        ));
        let expected = FrozenPolicy {
            cache_blocks: 64,
            cache_bytes: 64 << 10,
            purge_delay_ms: u32::MAX,
            w_max_mid_permille: 1400,
            idle_trim: false,
            mid_cap: [1, 2, 3, 4, 5],
            large_cap: [9; 5],
            route_pool_classes: 0x8f,
            route_profile: RouteProfile::TinyOnly,
            ..FrozenPolicy::DEFAULT
        };
        assert_eq!(policy, Ok(expected));
    }

    #[test]
    fn knobs_that_a_file_does_not_name_stay_as_they_were() {
        let base = FrozenPolicy { cache_blocks: 7, outbox_blocks: 9, generation: 3, ..FrozenPolicy::DEFAULT };
        let policy = parse_policy(b"version = 1\n[knobs]\noutbox_blocks = 10\n", &base);
        assert_eq!(policy, Ok(FrozenPolicy { outbox_blocks: 10, ..base }));
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line_with_its_place() {
        let crowd = format!("version = 1\n{}", "[[site]]\ncalls = 'a+0x1'\nkeep_ms = 5\n".repeat(SITE_RULES + 1));
        let long = format!("version = 1\n#{}\n", "x".repeat(POLICY_FILE_BYTES));
        for (text, complaint) in [
            ("", "1: no `version = 1` before the first table"),
            ("\n[knobs]\nversion = 1", "2: no `version = 1` before the first table"),
            ("version = 2", "1: version 2; this hakmem reads version 1"),
            ("version = '1'", "1: version '1'; this hakmem reads version 1"),
            ("version = 1\nversion = 1", "2: version for the second time"),
            ("version = 1\n\nsample = 3", "3: sample stands outside every table; knobs belong below [knobs]"),
            ("version = 1\n[knobs]\n[knobs]", "3: [knobs] for the second time"),
            ("version = 1\n[knobs]\nidle_trim = true\nidle_trim = true", "4: idle_trim for the second time"),
            ("version = 1\n[knobs]\ncache_bloks = 3", "3: cache_bloks is not a knob; did you mean cache_blocks?"),
            ("version = 1\n[knobs]\nHAKMEM_SAMPLE = 3", "3: HAKMEM_SAMPLE is not a knob; did you mean sample?"),
            ("version = 1\n[knobs]\nspeed = 3", "3: speed is not a knob"),
            (
                "version = 1\n[knobs]\ncache_bytes = \"2G\"",
                "3: cache_bytes = 2G is out of range; accepted: bytes, 1K to 1G",
            ),
            ("version = 1\n[knobs]\nidle_trim = 2", "3: idle_trim = 2 is not understood; accepted: on or off"),
            (
                "version = 1\n[knobs]\nsample = [5]",
                "3: sample = 5 is not understood; accepted: number, 1 to 16777216, or 0",
            ),
            ("version = 1\n[knobs]\ncache_blocks = 512\n[x]\n", "3: cache_max_blocks does not fit cache_blocks"),
            ("version = 1\n[[site]]\ncalls = 'a+0x1'\n", "2: a [[site]] needs calls, and pages or keep_ms or both"),
            ("version = 1\n[[site]]\nkeep_ms = 1\n[x]", "2: a [[site]] needs calls, and pages or keep_ms or both"),
            (
                "version = 1\n[[site]]\ncall = 'a+0x1'",
                "3: call is no key of a [[site]]; there are calls, bytes, pages, keep_ms",
            ),
            ("version = 1\n[[site]]\npages = 'large'", "3: pages = large is not understood; accepted: small, huge"),
            (
                "version = 1\n[[site]]\nkeep_ms = 0",
                "3: keep_ms = 0 is out of range; accepted: milliseconds, 1 to 3600000",
            ),
            ("version = 1\n[[site]]\nkeep_ms = 5\nkeep_ms = 5", "4: keep_ms for the second time"),
            ("version = 1\n[[site]]\nbytes = [9, 8]", "3: not understood; expected bytes = [least, most]"),
            (
                "version = 1\n[[site]]\nbytes = [1, 2, 3]",
                "3: bytes = 2, 3 is not understood; accepted: bytes, 0 to 128T",
            ),
            (crowd.as_str(), "194: more than 64 site rules"),
            ("version = 1\n[knobs]\nmid_cap = 60\nmid_budget = 299", "4: mid_cap does not fit mid_budget"),
            (long.as_str(), "1: longer than 65536 bytes"),
        ] {
            assert_eq!(read(text), Err(format!("policy.toml:{complaint}")), "{text}");
        }
    }

    #[test]
    fn the_largest_file_is_read_and_one_byte_more_is_too_much() {
        let head = "version = 1\n[knobs]\nsample = 3\n#";
        let filled = |bytes: usize| format!("{head}{}", "x".repeat(bytes - head.len()));
        assert_eq!(read(&filled(POLICY_FILE_BYTES)).map(|policy| policy.sample), Ok(3));
        let refused = Err("policy.toml:1: longer than 65536 bytes".to_string());
        assert_eq!(read(&filled(POLICY_FILE_BYTES + 1)), refused);
    }

    #[test]
    fn a_site_rule_may_be_for_blocks_of_a_single_size() {
        let text = b"version = 1\n[[site]]\ncalls = 'a+0x1'\nbytes = [4194304, 4194304]\nkeep_ms = 5";
        let mut rules = Vec::new();
        let policy = parse_policy_file(text, &FrozenPolicy::DEFAULT, &mut |rule| rules.push(*rule));
        assert_eq!(policy, Ok(FrozenPolicy::DEFAULT));
        let ranges: Vec<_> = rules.iter().map(|rule| (rule.least_bytes, rule.most_bytes)).collect();
        assert_eq!(ranges, [(4 << 20, 4 << 20)]);
    }

    #[test]
    fn site_rules_are_passed_on_in_order_and_read_as_they_are_written() {
        let text = concat!(
            "version = 1\n[[site]] # the loader\ncalls = \"app+0x10 libx.so.1+0xff\"\npages = 'small'\n",
            "[site.evidence]\nblocks = 7\nkeep_ms = 'not read'\n[knobs]\nsample = 3\n",
            "[[ site ]]\nkeep_ms = 250\nbytes = [4194304 , 8388608]\ncalls = 'app+0x20'",
        );
        let mut rules = Vec::new();
        let policy = parse_policy_file(text.as_bytes(), &FrozenPolicy::DEFAULT, &mut |rule| rules.push(*rule));
        assert_eq!(policy.unwrap().sample, 3);
        let [first, second] = rules[..] else { panic!("{rules:?}") };
        assert_eq!(
            (first.calls().len(), first.calls()[1].module, first.calls()[1].offset),
            (2, &b"libx.so.1"[..], 255)
        );
        assert_eq!((first.pages, first.keep_ms, first.most_bytes), (Some(Pages::Small), 0, usize::MAX));
        assert_eq!(
            (second.pages, second.keep_ms, second.least_bytes, second.most_bytes),
            (None, 250, 4 << 20, 8 << 20)
        );
        let mut written = String::from("version = 1\n");
        rules.iter().for_each(|rule| crate::sites::write_site(rule, &mut written).unwrap());
        let mut again = Vec::new();
        parse_policy_file(written.as_bytes(), &FrozenPolicy::DEFAULT, &mut |rule| again.push(*rule)).unwrap();
        assert_eq!(format!("{again:?}"), format!("{rules:?}"));
    }

    #[test]
    fn what_only_a_full_parser_would_understand_is_refused() {
        for line in [
            "[knobs",
            "[knobs] x",
            "[knobs]]",
            "[[knobs]]",
            "[knobs.x]",
            "[site]",
            "[site.evidence]",
            "[[site.evidence]]",
            "[\"knobs\"]",
            "[a..b]",
            "[]",
            "key",
            "= 1",
            "\"key\" = 1",
            "key =",
            "key = \"\"\"",
            "key = '''",
            "key = 1\u{7f}",
            "key = 1\u{0}",
            "key \r = 1",
        ] {
            let error = read(&format!("version = 1\n[source]\n{line}\n")).unwrap_err();
            assert!(error.starts_with("policy.toml:3: not understood; expected "), "{line}: {error}");
        }
        for value in [
            "64K",
            "on",
            "never",
            "007",
            "+1",
            "-1",
            "1_000",
            "0x10",
            "1e3",
            ".5",
            "1.",
            "1 2",
            "\"64K",
            "\"64K' x",
            "\"6\\u0034\"",
            "[1,2,3,4,5,]",
            "[1,,2]",
            "[]",
            "[\"1\"]",
            "[1",
            "[[1]]",
            "{ }",
            "",
        ] {
            let error = read(&format!("version = 1\n[knobs]\ncache_blocks = {value}")).unwrap_err();
            assert!(error.starts_with("policy.toml:3: not understood; expected a value"), "{value}: {error}");
        }
        assert!(parse_policy(b"version = 1\n# \xff", &FrozenPolicy::DEFAULT).is_err());
    }

    #[test]
    fn a_file_names_all_knobs_or_those_that_changed() {
        assert_eq!(written(&FrozenPolicy::DEFAULT, Knobs::Changed), "version = 1\n\n[knobs]\n");
        let policy = FrozenPolicy {
            refill_one: true,
            mid_cap: [1, 2, 3, 4, 5],
            purge_delay_ms: u32::MAX,
            big_retain_bytes: 3 << 20,
            warm_superslabs: 0,
            ..FrozenPolicy::DEFAULT
        };
        let changed = concat!(
            "version = 1\n\n[knobs]\nrefill_one = true\nmid_cap = [1,2,3,4,5]\nbig_retain_bytes = \"3M\"\n",
            "purge_delay_ms = \"never\"\nwarm_superslabs = 0\n",
        );
        assert_eq!(written(&policy, Knobs::Changed), changed);
        let all = written(&policy, Knobs::All);
        assert_eq!(all.lines().count(), FrozenPolicy::FIELDS.len() + 3);
        let other = FrozenPolicy { purge_delay_ms: 3, cache_growth: false, ..FrozenPolicy::DEFAULT };
        assert_eq!(parse_policy(all.as_bytes(), &other), Ok(policy));
    }
}
