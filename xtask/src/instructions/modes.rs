//! Whether the fast paths can tell the modes apart: they must not, to the instruction.
//!
//! What is compared is each function's own instructions per call, callees left out: the slow paths, which the fast ones call now and
//! then, do look at the mode, and come as often as the policy in force lets them.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::callgrind::{self, Profile};
use super::{build_counted, build_counted_c};
use crate::project::Project;

const MODES: [&str; 3] = ["FROZEN", "OBSERVE", "LEARN"];
/// Functions of the preload library whose own instructions are the fast paths.
const C_PATHS: [&str; 4] = ["malloc", "free", "calloc", "realloc"];
/// A call that takes its slow path leaves the function elsewhere, and not every mode has equally many of these: one in fifty or
/// so of an instruction. One instruction more on the fast path would be a whole one.
const SLACK: f64 = 0.5;

/// Runs both programs in each mode and compares. Says what differs.
pub(super) fn are_equal(project: &Project) -> Result<bool> {
    let rust = is_equal(&build_counted(project, "hakmem")?, None, |name| {
        name.starts_with("counted_") && !name.starts_with("counted_nothing")
    })?;
    let c = is_equal(&build_counted_c(project)?, Some(&project.preload_library()?), |name| C_PATHS.contains(&name))?;
    Ok(rust && c)
}

fn is_equal(program: &Path, library: Option<&Path>, is_path: impl Fn(&str) -> bool) -> Result<bool> {
    let mut profiles = MODES.iter().map(|mode| run(program, library, mode));
    let frozen = profiles.next().context("no mode")??;
    let paths: Vec<&str> = frozen.own.keys().map(String::as_str).filter(|name| is_path(name)).collect();
    ensure!(paths.len() >= C_PATHS.len(), "the profile of {} has only {paths:?}", program.display());
    let mut good = true;
    for (mode, profile) in MODES.iter().skip(1).zip(profiles) {
        good &= judge(mode, &paths, &frozen, &profile?);
    }
    Ok(good)
}

/// A run in this mode, in which the thread that the mode has must have looked at least once.
fn run(program: &Path, library: Option<&Path>, mode: &str) -> Result<Profile> {
    let variables = [("HAKMEM_MODE", mode), ("HAKMEM_LEARN_WINDOW_MS", "10"), ("HAKMEM_STATS", "1")];
    let profile = callgrind::profile(program, library, &variables)?;
    let windows = profile.said.lines().find_map(|line| line.trim().strip_prefix("learn_windows ")?.parse::<u64>().ok());
    let windows = windows.context("no statistics were written")?;
    ensure!((windows > 0) == (mode != "FROZEN"), "{mode}: {windows} windows were measured");
    Ok(profile)
}

fn judge(mode: &str, paths: &[&str], frozen: &Profile, other: &Profile) -> bool {
    let mut good = true;
    for &path in paths {
        match (frozen.own.get(path), other.own.get(path)) {
            (Some(before), Some(now)) if (now - before).abs() < SLACK => {}
            (before, now) => {
                eprintln!("{path}: {before:.2?} instructions in FROZEN, {now:.2?} in {mode}");
                good = false;
            }
        }
    }
    if good {
        println!("{mode}: the instructions of FROZEN in {}", paths.join(", "));
    }
    good
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(malloc: f64) -> Profile {
        Profile { own: [("malloc".to_owned(), malloc), ("free".to_owned(), 20.0)].into(), ..Profile::default() }
    }

    #[test]
    fn one_instruction_more_or_a_function_that_is_missing_fails() {
        let frozen = profile(21.0);
        assert!(judge("LEARN", &["malloc", "free"], &frozen, &profile(21.04)));
        assert!(!judge("LEARN", &["malloc", "free"], &frozen, &profile(22.0)));
        assert!(!judge("LEARN", &["malloc", "free"], &frozen, &profile(20.0)));
        assert!(!judge("LEARN", &["calloc"], &frozen, &frozen), "nothing to compare is no agreement");
    }
}
