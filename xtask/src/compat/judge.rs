//! Whether two runs of a program did the same, and whether hakmem took part in the second.

use anyhow::Result;

use super::cases::Case;
use crate::launch::Finished;
use crate::report::Summary;

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

/// What is wrong; nothing when the runs agree.
pub struct Verdict {
    /// One sentence each.
    pub problems: Vec<String>,
}

/// Compares a run without hakmem with one under it (or, without reports, with another run of its kind).
pub fn compare(case: &Case, first: &Outcome, second: &Outcome) -> Verdict {
    let mut problems = Vec::new();
    if !first.finished.status.success() {
        let how = first.finished.describe();
        problems.push(format!("fails without hakmem already ({how}): {}", last_line(&first.stderr)));
    }
    if !second.finished.status.success() || second.finished.timed_out {
        problems.push(format!("second run: {}", second.finished.describe()));
    }
    if first.stdout.is_empty() {
        problems.push("printed nothing that could be compared".to_owned());
    }
    if let Some(difference) = first_difference(&first.stdout, &second.stdout) {
        problems.push(difference);
    }
    for line in second.stderr.lines().filter(|line| line.starts_with("hakmem: ")) {
        problems.push(format!("hakmem reported: {line}"));
    }
    match &second.reports {
        None => {}
        Some(Err(error)) => problems.push(format!("a report cannot be read: {error:#}")),
        Some(Ok(summary)) => {
            if summary.process_count < case.least_processes {
                let found = summary.process_count;
                problems.push(format!("{found} processes reported, at least {} should", case.least_processes));
            }
            if summary.busiest_allocs < case.least_allocs {
                let found = summary.busiest_allocs;
                problems.push(format!(
                    "no process made more than {found} allocations, {} were expected",
                    case.least_allocs
                ));
            }
        }
    }
    Verdict { problems }
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

    const BUSY: u64 = 1 << 40;

    fn outcome(stdout: &str, code: i32, reports: Option<(u64, u64)>) -> Outcome {
        let finished = Finished {
            status: ExitStatus::from_raw(code << 8),
            wall: Duration::ZERO,
            peak_rss_bytes: 0,
            timed_out: false,
        };
        let summary = |(process_count, busiest_allocs)| {
            let mut summary = Summary::default();
            summary.process_count = process_count;
            summary.busiest_allocs = busiest_allocs;
            Ok(summary)
        };
        Outcome { finished, stdout: stdout.into(), stderr: String::new(), reports: reports.map(summary) }
    }

    fn problems(first: &Outcome, second: &Outcome) -> Vec<String> {
        compare(&CASES[0], first, second).problems
    }

    #[test]
    fn equal_runs_pass() {
        assert!(problems(&outcome("a\n", 0, None), &outcome("a\n", 0, Some((BUSY, BUSY)))).is_empty());
    }

    #[test]
    fn different_text_is_shown_with_its_line() {
        let found = problems(&outcome("a\nb\n", 0, None), &outcome("a\nc\n", 0, Some((BUSY, BUSY))));
        assert_eq!(found, ["stdout differs in line 2: \"b\" and \"c\""]);
        assert_eq!(problems(&outcome("a\n", 0, None), &outcome("a\nb", 0, None)).len(), 1);
    }

    #[test]
    fn status_silence_and_idle_hakmem_are_problems() {
        assert_eq!(problems(&outcome("a", 0, None), &outcome("a", 1, None)).len(), 1);
        assert_eq!(problems(&outcome("a", 1, None), &outcome("a", 0, None)).len(), 1);
        assert_eq!(problems(&outcome("", 0, None), &outcome("", 0, None)).len(), 1);
        assert_eq!(problems(&outcome("a", 0, None), &outcome("a", 0, Some((0, BUSY)))).len(), 1);
        assert_eq!(problems(&outcome("a", 0, None), &outcome("a", 0, Some((BUSY, 3)))).len(), 1);
    }

    #[test]
    fn line_of_hakmem_on_stderr_is_a_problem() {
        let mut second = outcome("a", 0, None);
        second.stderr = "warming up\nhakmem: free of a foreign pointer\n".to_owned();
        assert_eq!(problems(&outcome("a", 0, None), &second), ["hakmem reported: hakmem: free of a foreign pointer"]);
    }
}
