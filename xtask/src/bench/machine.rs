//! On what the runs were made: without it a number means little a month later.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, Result};

use crate::project::Project;

/// The end of a commit's name where files differ from it.
pub const CHANGED: &str = ", with changes";

/// Name and value, in the order of the report. What cannot be found out says so.
pub fn facts(project: &Project, arguments: &str) -> Vec<(String, String)> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cpuinfo = read("/proc/cpuinfo");
    let memory_kib: f64 =
        field(&read("/proc/meminfo"), "MemTotal").split(' ').next().unwrap_or("").parse().unwrap_or(0.0);
    let virtualised = if cpuinfo.contains(" hypervisor") { " virtual" } else { "" };
    let mode = read("/sys/kernel/mm/transparent_hugepage/enabled");
    let commit = printed(project.root(), "git", &["rev-parse", "--short=12", "HEAD"]);
    let changed = printed(project.root(), "git", &["status", "--porcelain", "--untracked-files=no"]);
    let changed = if changed.is_empty() { "" } else { CHANGED };
    let entry = |name: &str, value: String| {
        (name.to_owned(), if value.trim().is_empty() { "unknown".to_owned() } else { value })
    };
    vec![
        entry("processor", field(&cpuinfo, "model name")),
        entry("processors", format!("{}{virtualised}", processors())),
        entry("memory", format!("{:.1} GiB", memory_kib / 1_048_576.0)),
        entry("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        entry("huge pages", in_brackets(&mode).to_owned()),
        entry("rustc", printed(project.root(), "rustc", &["--version"])),
        entry("commit", format!("{commit}{changed}")),
        entry("date", humantime::format_rfc3339_seconds(SystemTime::now()).to_string()),
        entry("command", arguments.to_owned()),
    ]
}

/// Processors that a process may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Has the kernel read a program or a library from the disk again, as one that was installed long ago. Of a file just written the page
/// cache holds large folios, and a process that touches a page of one maps all of it: 0.3 MiB more in a small process.
pub fn forget_how_written(path: &Path) -> Result<()> {
    let why = || format!("cannot read {} anew", path.display());
    let mut file = File::open(path).with_context(why)?;
    file.sync_all().with_context(why)?;
    // SAFETY: the descriptor is open; the advice drops clean pages of the cache and changes no contents.
    let _refused = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    std::io::copy(&mut file, &mut std::io::sink()).with_context(why)?;
    Ok(())
}

fn printed(directory: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(directory).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// The one of several words that is chosen.
fn in_brackets(text: &str) -> &str {
    text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("", |(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_name_what_a_number_depends_on() {
        let facts = facts(&Project::load().unwrap(), "cargo xtask bench");
        for name in ["processor", "kernel", "huge pages", "rustc", "commit", "date"] {
            assert!(facts.iter().any(|(known, value)| known == name && !value.is_empty()), "{name}: {facts:?}");
        }
        assert_eq!(in_brackets("always [madvise] never\n"), "madvise");
        assert_eq!(in_brackets(""), "");
    }
}
