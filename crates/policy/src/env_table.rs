//! The page `docs/env-vars.md`, written from the registry.
//!
//! **Invariants.** Every variable and every alias stands on the page once; defaults and profile columns are read from the
//! same settings that a program starts with.

use crate::registry::{EnvVar, aliases, variables};
use crate::settings::{Profile, Settings};
use core::fmt::{self, Write};

const INTRODUCTION: &str = "\
<!-- Generated from crates/policy by `cargo xtask tidy --fix`; change the registry, not this page. -->
# Environment variables

All are read once, at the first allocation of a process. An unknown name, a malformed value and a value out of range are
reported on stderr and ignored: what the policy file, the profile or the default says holds. An empty value counts as not set. Variables override the profile, whatever
order they stand in. Bytes take `K`, `M`, `G`, `T` (powers of 1024, also as `KiB` or `KB`), times take `ms` or `s`,
permille also a ratio (`1.6`), switches `1`, `on`, `true`, `yes` and their opposites; case does not matter in values with a
name. Of two values that do not fit each other one is changed, and that is reported too. Variables beginning with
`HAKMEM_BENCH_`, `HAKMEM_STRESS_` or `HAKMEM_TEST_` belong to the project's tools.
";

/// Writes the page.
///
/// # Errors
/// Those of `out`.
pub fn write_env_table(out: &mut dyn Write) -> fmt::Result {
    out.write_str(INTRODUCTION)?;
    out.write_str("\n## General\n\n")?;
    write_rows(out, &mut variables().filter(|variable| variable.field.is_none()))?;
    out.write_str("\n## Policy\n\nEach sets the knob of `FrozenPolicy` that has its name.\n\n")?;
    write_rows(out, &mut variables().filter(|variable| variable.field.is_some()))?;
    out.write_str(
        "\n## Other names\n\nThe variable itself wins when both are set.\n\n| name | stands for |\n|---|---|\n",
    )?;
    for alias in aliases() {
        writeln!(out, "| `{}` | `{}` |", alias.name, alias.target)?;
    }
    Ok(())
}

fn write_rows(out: &mut dyn Write, rows: &mut dyn Iterator<Item = &'static EnvVar>) -> fmt::Result {
    out.write_str("| name | accepts | default | meaning | profiles that differ |\n|---|---|---|---|---|\n")?;
    for variable in rows {
        write!(out, "| `{}` | ", variable.name)?;
        variable.kind.write_accepted(out)?;
        out.write_str(" | ")?;
        write_code(out, variable, &Settings::DEFAULT)?;
        write!(out, " | {} | ", variable.meaning())?;
        write_differences(out, variable)?;
        out.write_str(" |\n")?;
    }
    Ok(())
}

fn write_code(out: &mut dyn Write, variable: &EnvVar, settings: &Settings<'_>) -> fmt::Result {
    if holds_text(variable, settings, "")? {
        return out.write_str("not set");
    }
    out.write_str("`")?;
    variable.write_value(settings, out)?;
    out.write_str("`")
}

fn write_differences(out: &mut dyn Write, variable: &EnvVar) -> fmt::Result {
    let mut separator = "";
    for profile in Profile::ALL {
        let settings = profile.settings();
        // The profile variable itself differs everywhere, which says nothing.
        if variable.name == crate::registry::PROFILE_NAME || !differs_from_default(variable, &settings)? {
            continue;
        }
        write!(out, "{separator}{}: ", profile.name())?;
        write_code(out, variable, &settings)?;
        separator = ", ";
    }
    Ok(())
}

fn differs_from_default(variable: &EnvVar, settings: &Settings<'_>) -> Result<bool, fmt::Error> {
    let mut default = Text::new();
    variable.write_value(&Settings::DEFAULT, &mut default)?;
    Ok(!holds_text(variable, settings, default.as_str())?)
}

fn holds_text(variable: &EnvVar, settings: &Settings<'_>, expected: &str) -> Result<bool, fmt::Error> {
    let mut text = Text::new();
    variable.write_value(settings, &mut text)?;
    Ok(text.as_str() == expected)
}

/// Longest value (bytes) of a profile or the default.
const TEXT_BYTES: usize = 128;

/// A short text without allocation; one that does not fit is an error.
struct Text {
    bytes: [u8; TEXT_BYTES],
    len: usize,
}

impl Text {
    const fn new() -> Self {
        Self { bytes: [0; TEXT_BYTES], len: 0 }
    }

    fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// The page as a string.
#[cfg(feature = "docs")]
#[must_use]
pub fn env_vars_markdown() -> String {
    let mut page = String::new();
    // Writing to a string fails only where a value does not fit `Text`, which the unit test of the page rules out.
    let _complete = write_env_table(&mut page);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> String {
        let mut page = String::new();
        write_env_table(&mut page).unwrap();
        page
    }

    #[test]
    fn every_name_has_one_row() {
        let page = page();
        let names = variables().map(|variable| variable.name).chain(aliases().map(|alias| alias.name));
        for name in names {
            assert_eq!(page.matches(&format!("\n| `{name}` | ")).count(), 1, "{name}");
        }
    }

    #[test]
    fn rows_have_five_cells() {
        for row in page().lines().filter(|line| line.starts_with("| `HAKMEM_")) {
            let cells = row.matches(" | ").count() + 1;
            assert!(cells == 5 || (cells == 2 && row.ends_with("` |")), "{row}");
        }
    }

    #[test]
    fn defaults_and_profiles_are_told() {
        let page = page();
        let row = |name: &str| page.lines().find(|line| line.starts_with(&format!("| `{name}`"))).unwrap().to_string();
        assert!(row("HAKMEM_CACHE_BYTES").contains("bytes, 1K to 1G | `128K` | "));
        assert!(row("HAKMEM_CACHE_BYTES").contains("C6_HEAVY_LEGACY_POOLV1: `256K`"));
        assert!(row("HAKMEM_TINY_RING").ends_with("DEBUG_TINY_FRONT_PERF: `1` |"));
        assert!(row("HAKMEM_STATS_FILE").contains("| text | not set |"));
        assert!(!row("HAKMEM_TIERING").contains("FLATTEN") && row("HAKMEM_TIERING").ends_with("|  |"));
    }
}
