//! Whether two runs of a program did the same, and whether hakmem took part in the second, at the level that was asked for.

use std::collections::BTreeSet;

use anyhow::Result;

use super::cases::Case;
use crate::launch::Finished;
use crate::level::Level;
use crate::report::{Process, Summary};

/// Everything a run left behind.
pub struct Outcome {
    /// How it ended.
    pub finished: Finished,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it said on the side.
    pub stderr: String,
    /// Reports of the processes, if the run was under hakmem.
    pub reports: Option<Result<Summary>>,
}

/// What shows that the run without hakmem (`first`) proves nothing, one sentence each.
pub fn flaws(first: &Outcome) -> Vec<String> {
    let mut flaws = Vec::new();
    if !first.finished.status.success() || first.finished.timed_out {
        let how = first.finished.describe();
        flaws.push(format!("fails without hakmem already ({how}): {}", last_line(&first.stderr)));
    }
    if first.stdout.is_empty() {
        flaws.push("printed nothing that could be compared".to_owned());
    }
    flaws
}

/// In what the second run was not like the first, one sentence each.
pub fn differences(first: &Outcome, second: &Outcome) -> Vec<String> {
    let mut differences = Vec::new();
    if !second.finished.status.success() || second.finished.timed_out {
        differences.push(second.finished.describe());
    }
    differences.extend(first_difference(&first.stdout, &second.stdout));
    let of_hakmem = second.stderr.lines().filter(|line| line.starts_with("hakmem: "));
    differences.extend(of_hakmem.map(|line| format!("hakmem reported: {line}")));
    differences
}

/// What is missing to believe that the program ran on hakmem at `level`, one sentence each.
pub fn absences(case: &Case, level: Level, reports: &Result<Summary>) -> Vec<String> {
    let summary = match reports {
        Ok(summary) => summary,
        Err(error) => return vec![format!("a report cannot be read: {error:#}")],
    };
    let processes: Vec<&Process> = under_test(case, summary).collect();
    let program = case.program;
    let mut absences = Vec::new();
    if processes.len() < case.least_processes {
        let (found, least) = (processes.len(), case.least_processes);
        let names: BTreeSet<&str> = summary.processes.iter().map(|process| process.program.as_str()).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        absences.push(format!("{found} processes of {program} reported, at least {least} should; reports of: {names}"));
    }
    let busiest = processes.iter().map(|process| served(process)).max().unwrap_or(0);
    if busiest < case.least_allocs {
        let least = case.least_allocs;
        absences.push(format!("no process of {program} made more than {busiest} allocations, {least} were expected"));
    }
    let at_wrong_level = processes.iter().filter(|process| !is_at(level, process)).count();
    if at_wrong_level > 0 {
        absences.push(format!("{at_wrong_level} processes of {program} were not at level {}", level.name()));
    }
    // How many samples one process gets is a matter of chance.
    if level == Level::Sampled && case.least_allocs > 0 && !processes.iter().any(|process| process.samples > 0) {
        absences.push(format!("no process of {program} sampled an allocation"));
    }
    absences
}

/// The processes whose work the case is about.
pub fn under_test<'a>(case: &'a Case, summary: &'a Summary) -> impl Iterator<Item = &'a Process> {
    summary.processes.iter().filter(|process| process.program.starts_with(case.program))
}

/// Allocations that hakmem served, at whatever level.
pub const fn served(process: &Process) -> u64 {
    process.allocs + process.hardened_allocs
}

const fn is_at(level: Level, process: &Process) -> bool {
    match level {
        Level::Default => process.hardened_allocs == 0 && process.samples == 0,
        // No thread gets a heap of its own at this level.
        Level::Hardened => process.allocs == 0,
        Level::Sampled => process.hardened_allocs == 0,
    }
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or("it said nothing")
}

/// The first line in which the texts differ, if they do.
fn first_difference(first: &[u8], second: &[u8]) -> Option<String> {
    if first == second {
        return None;
    }
    let mut left = first.split(|&byte| byte == b'\n');
    let mut right = second.split(|&byte| byte == b'\n');
    for number in 1.. {
        let (one, other) = (left.next(), right.next());
        if one != other {
            let shown = |line: Option<&[u8]>| match line {
                Some(line) => format!("{:?}", String::from_utf8_lossy(line.get(..200).unwrap_or(line))),
                None => "the end".to_owned(),
            };
            return Some(format!("stdout differs in line {number}: {} and {}", shown(one), shown(other)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;
    use std::time::Duration;

    use super::super::cases::CASES;
    use super::*;

    fn outcome(stdout: &str, code: i32) -> Outcome {
        let finished = Finished {
            status: ExitStatus::from_raw(code << 8),
            wall: Duration::ZERO,
            peak_rss_bytes: 0,
            timed_out: false,
        };
        Outcome { finished, stdout: stdout.into(), stderr: String::new(), reports: None }
    }

    /// As many processes as the first case wants, each with these numbers.
    fn reports(program: &str, allocs: u64, hardened_allocs: u64, samples: u64) -> Result<Summary> {
        let mut summary = Summary::default();
        for _ in 0..CASES[0].least_processes {
            summary.processes.push(Process { program: program.to_owned(), allocs, hardened_allocs, samples });
        }
        Ok(summary)
    }

    #[test]
    fn equal_runs_pass() {
        assert!(flaws(&outcome("a\n", 0)).is_empty());
        assert!(differences(&outcome("a\n", 0), &outcome("a\n", 0)).is_empty());
    }

    #[test]
    fn different_text_is_shown_with_its_line() {
        let found = differences(&outcome("a\nb\n", 0), &outcome("a\nc\n", 0));
        assert_eq!(found, ["stdout differs in line 2: \"b\" and \"c\""]);
        assert_eq!(differences(&outcome("a\n", 0), &outcome("a\nb", 0)).len(), 1);
    }

    #[test]
    fn status_and_hang_are_differences() {
        assert_eq!(differences(&outcome("a", 0), &outcome("a", 1)), ["exit status 1"]);
        let mut hung = outcome("a", 0);
        hung.finished.timed_out = true;
        assert_eq!(differences(&outcome("a", 0), &hung).len(), 1);
    }

    #[test]
    fn run_that_fails_or_prints_nothing_without_hakmem_is_flawed() {
        assert_eq!(flaws(&outcome("a", 1)).len(), 1);
        assert_eq!(flaws(&outcome("", 0)).len(), 1);
    }

    #[test]
    fn line_of_hakmem_on_stderr_is_a_difference() {
        let mut second = outcome("a", 0);
        second.stderr = "warming up\nhakmem: free of a foreign pointer\n".to_owned();
        assert_eq!(differences(&outcome("a", 0), &second), ["hakmem reported: hakmem: free of a foreign pointer"]);
    }

    #[test]
    fn program_without_the_library_is_absent_however_busy_others_were() {
        let case = &CASES[0];
        assert!(absences(case, Level::Default, &reports(case.program, 1 << 40, 0, 0)).is_empty());
        assert_eq!(absences(case, Level::Default, &reports("bash", 1 << 40, 0, 0)).len(), 2);
        assert_eq!(absences(case, Level::Default, &Ok(Summary::default())).len(), 2);
        assert_eq!(absences(case, Level::Default, &reports(case.program, 3, 0, 0)).len(), 1);
        assert_eq!(absences(case, Level::Default, &Err(anyhow::anyhow!("half a report"))).len(), 1);
    }

    #[test]
    fn process_at_another_level_is_found() {
        let case = &CASES[0];
        let busy = 1 << 40;
        for (level, right, wrong) in [
            (Level::Default, (busy, 0, 0), (0, busy, 0)),
            (Level::Default, (busy, 0, 0), (busy, 0, 5)),
            (Level::Hardened, (0, busy, 0), (busy, 0, 0)),
            (Level::Sampled, (busy, 0, 5), (busy, 0, 0)),
            (Level::Sampled, (busy, 0, 5), (0, busy, 5)),
        ] {
            assert!(absences(case, level, &reports(case.program, right.0, right.1, right.2)).is_empty(), "{level:?}");
            let found = absences(case, level, &reports(case.program, wrong.0, wrong.1, wrong.2));
            assert_eq!(found.len(), 1, "{level:?} {wrong:?} {found:?}");
        }
    }
}
