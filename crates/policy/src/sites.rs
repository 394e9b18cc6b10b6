//! Site rules: what a policy file says of the big blocks that single places in a program ask for.
//!
//! A place is named by the calls that lead there, each as the file name of its module and the call's offset in it, so that a name
//! means the same in every run, wherever the kernel puts the module. `docs/policy-file.md` is the format's page.
//!
//! **Not here.** Which calls lead to an allocation (the facade walks the stack), and what comes of a hint (the box of big blocks).
//! **Invariants.** A rule has at least one call and one hint. What [`write_site`] writes, `parse_policy_file` reads as the same rule.

use core::fmt::{self, Write};

use crate::settings::Pages;
use crate::value::{Kind, bytes, milliseconds, write_decimal};

/// Rules that a file may have.
pub const SITE_RULES: usize = 64;
/// Calls that a rule may name.
pub const SITE_CALLS: usize = 8;

/// `keep_ms` of a rule.
pub(crate) const KEEP_KIND: Kind = milliseconds(1, 3_600_000);
/// Each end of a rule's `bytes`.
pub(crate) const SITE_BYTES_KIND: Kind = bytes(0, 1 << 47);

/// One call of a site.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SiteCall<'a> {
    /// File name of the program or library, without its folder.
    pub module: &'a [u8],
    /// Where the call stands in it: what `addr2line -e` takes.
    pub offset: u64,
}

/// What to do with the big blocks of one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SiteRule<'a> {
    pub(crate) calls: [SiteCall<'a>; SITE_CALLS],
    pub(crate) call_count: usize,
    /// Smallest block (bytes) that the rule is for.
    pub least_bytes: usize,
    /// Largest block.
    pub most_bytes: usize,
    /// Which pages its blocks get.
    pub pages: Option<Pages>,
    /// How long (ms) a freed block waits whole for the next one of the site; 0: as policy has it for all.
    pub keep_ms: u32,
}

impl<'a> SiteRule<'a> {
    /// A rule for these calls, innermost first, without a hint. `None` if there are none, more than [`SITE_CALLS`], or one whose
    /// module a file cannot name.
    #[must_use]
    pub fn new(calls: &[SiteCall<'a>]) -> Option<Self> {
        let mut rule = Self {
            calls: [SiteCall::default(); SITE_CALLS],
            call_count: calls.len(),
            least_bytes: 0,
            most_bytes: usize::MAX,
            pages: None,
            keep_ms: 0,
        };
        let is_named = !calls.is_empty() && calls.iter().all(|call| is_nameable(call.module));
        rule.calls.get_mut(..calls.len()).filter(|_| is_named)?.copy_from_slice(calls);
        Some(rule)
    }

    /// The calls, innermost first.
    #[must_use]
    pub fn calls(&self) -> &[SiteCall<'a>] {
        self.calls.get(..self.call_count).unwrap_or(&[])
    }

    /// Reads the calls as a file spells them.
    pub(crate) fn parse(text: &'a [u8]) -> Option<Self> {
        let mut calls = [SiteCall::default(); SITE_CALLS];
        let mut count = 0;
        for word in text.split(|&byte| byte == b' ') {
            *calls.get_mut(count)? = SiteCall::parse(word)?;
            count += 1;
        }
        Self::new(calls.get(..count)?)
    }
}

impl<'a> SiteCall<'a> {
    fn parse(word: &'a [u8]) -> Option<Self> {
        let plus = word.iter().rposition(|&byte| byte == b'+')?;
        let (module, rest) = word.split_at_checked(plus)?;
        let digits = rest.strip_prefix(b"+0x").filter(|digits| (1..=16).contains(&digits.len()))?;
        let mut offset = 0;
        for digit in digits {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            offset = offset << 4 | u64::from(value);
        }
        Some(Self { module, offset })
    }
}

/// Whether a file can name this module: neither blanks nor what a string would have to escape.
fn is_nameable(module: &[u8]) -> bool {
    let is_plain = |byte: &u8| !byte.is_ascii_whitespace() && !byte.is_ascii_control() && !matches!(byte, b'"' | b'\\');
    !module.is_empty() && module.iter().all(is_plain) && core::str::from_utf8(module).is_ok()
}

/// Writes a rule as a table of a policy file, a blank line ahead of it.
///
/// # Errors
/// Those of `out`.
pub fn write_site(rule: &SiteRule<'_>, out: &mut dyn Write) -> fmt::Result {
    out.write_str("\n[[site]]\ncalls = \"")?;
    write_calls(rule, out)?;
    out.write_str("\"\n")?;
    if (rule.least_bytes, rule.most_bytes) != (0, usize::MAX) {
        out.write_str("bytes = [")?;
        write_decimal(out, rule.least_bytes as u64)?;
        out.write_str(", ")?;
        write_decimal(out, rule.most_bytes as u64)?;
        out.write_str("]\n")?;
    }
    if let Some(pages) = rule.pages {
        out.write_str("pages = \"")?;
        out.write_str(pages.name())?;
        out.write_str("\"\n")?;
    }
    if rule.keep_ms > 0 {
        out.write_str("keep_ms = ")?;
        write_decimal(out, rule.keep_ms.into())?;
        out.write_str("\n")?;
    }
    Ok(())
}

/// Writes the calls of a rule as a file spells them.
///
/// # Errors
/// Those of `out`.
pub fn write_calls(rule: &SiteRule<'_>, out: &mut dyn Write) -> fmt::Result {
    for (number, call) in rule.calls().iter().enumerate() {
        out.write_str(if number == 0 { "" } else { " " })?;
        // Text that is not UTF-8 makes no rule.
        out.write_str(core::str::from_utf8(call.module).unwrap_or_default())?;
        out.write_str("+0x")?;
        write_hex(out, call.offset)?;
    }
    Ok(())
}

fn write_hex(out: &mut dyn Write, number: u64) -> fmt::Result {
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = (number >> (place * 4)) as u32 & 15;
        out.write_char(char::from_digit(digit, 16).unwrap_or('?'))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_as_they_are_written() {
        for text in ["a+0x0", "libx.so.1+0x7f3 my-program+0xfffffffffffffff0", "a+b+0x1"] {
            let rule = SiteRule::parse(text.as_bytes()).unwrap();
            let mut written = String::new();
            write_calls(&rule, &mut written).unwrap();
            assert_eq!(written, text);
        }
        let nine = ["a+0x1"; 9].join(" ");
        for text in
            ["", "a", "+0x1", "a+1", "a+0x", "a+0xG", "a+0xA", "a+0x1 ", "a+0x1  b+0x2", &nine, "a+0x12345678123456781"]
        {
            assert_eq!(SiteRule::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_module_that_a_file_cannot_name_makes_no_rule() {
        for module in ["", "a b", "a\"", "a\\", "a\n"] {
            assert_eq!(SiteRule::new(&[SiteCall { module: module.as_bytes(), offset: 1 }]), None);
        }
        assert_eq!(SiteRule::new(&[SiteCall { module: b"\xff", offset: 1 }]), None);
        assert!(SiteRule::new(&[SiteCall { module: "libß.so".as_bytes(), offset: 1 }]).is_some());
    }
}
