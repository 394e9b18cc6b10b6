//! How a case ended, and whether that counts as caught.

use std::os::unix::process::ExitStatusExt as _;

use crate::launch::Finished;

/// Exit statuses of the suite (`misuse/main.c`).
const HARMLESS: i32 = 0;
const MISSED: i32 = 1;
const NOT_AVAILABLE: i32 = 3;

/// The words for a case about a function that the allocator lacks.
pub const NO_SUCH_FUNCTION: &str = "no such function";

/// What a case counts as caught.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Success {
    /// A line of hakmem's and SIGABRT.
    Report,
    /// Any fatal signal.
    Stop,
    /// The mistake has no effect, or any fatal signal.
    NoUse,
}

impl Success {
    /// By its name in the list of the suite.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Report, Self::Stop, Self::NoUse].into_iter().find(|success| success.name() == name)
    }

    /// Its name in the list of the suite.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Stop => "stop",
            Self::NoUse => "no use",
        }
    }
}

/// How a case ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// hakmem's report and SIGABRT; `late` when the case had come back and the program was ending.
    Reported { message: String, late: bool },
    /// A fatal signal without a report of hakmem's.
    Signalled { signal: i32, late: bool },
    /// It came back and said that the mistake had no effect.
    Harmless,
    /// It came back and nothing had stopped it.
    Missed,
    /// The allocator lacks the function that the case is about.
    NotAvailable,
    /// It was killed at its time limit.
    Hung,
    /// It ended in a way that no case ends in: the case is wrong, not the allocator.
    Broken(String),
}

impl Outcome {
    /// Judges the end of a process and what it wrote.
    pub fn of(finished: &Finished, stdout: &str, stderr: &str) -> Self {
        let late = stdout.contains("reached");
        let last_words = || stderr.lines().last().unwrap_or("no word").to_owned();
        match (finished.status.code(), finished.status.signal()) {
            _ if finished.timed_out => Self::Hung,
            (_, Some(signal)) => match report_in(stderr) {
                Some(message) if signal == libc::SIGABRT => Self::Reported { message, late },
                _ => Self::Signalled { signal, late },
            },
            (Some(HARMLESS), _) if late => Self::Harmless,
            (Some(MISSED), _) if late => Self::Missed,
            (Some(NOT_AVAILABLE), _) => Self::NotAvailable,
            _ => Self::Broken(format!("{}, {}", finished.describe(), last_words())),
        }
    }

    /// Whether it counts as caught. Other allocators need not report in hakmem's words.
    pub fn is_caught(&self, success: Success, by_hakmem: bool) -> bool {
        match self {
            Self::Reported { .. } => true,
            Self::Signalled { .. } => success != Success::Report || !by_hakmem,
            Self::Harmless => success == Success::NoUse,
            Self::Missed | Self::NotAvailable | Self::Hung | Self::Broken(_) => false,
        }
    }

    /// A few words for the table.
    pub fn words(&self) -> String {
        let at_exit = |late: &bool| if *late { " at exit" } else { "" };
        match self {
            Self::Reported { message, late } => format!("report{}: {message}", at_exit(late)),
            Self::Signalled { signal, late } => format!("{}{}", signal_name(*signal), at_exit(late)),
            Self::Harmless => "harmless".to_owned(),
            Self::Missed => "missed".to_owned(),
            Self::NotAvailable => NO_SUCH_FUNCTION.to_owned(),
            Self::Hung => "hangs".to_owned(),
            Self::Broken(why) => format!("broken: {why}"),
        }
    }
}

fn signal_name(signal: i32) -> String {
    match signal {
        libc::SIGSEGV => "SIGSEGV".to_owned(),
        libc::SIGABRT => "SIGABRT".to_owned(),
        libc::SIGBUS => "SIGBUS".to_owned(),
        libc::SIGILL => "SIGILL".to_owned(),
        libc::SIGTRAP => "SIGTRAP".to_owned(),
        other => format!("signal {other}"),
    }
}

/// What hakmem reported, without the addresses, which differ from run to run. Remarks about variables are no reports.
fn report_in(stderr: &str) -> Option<String> {
    let mut lines = stderr.lines().filter_map(|line| line.strip_prefix("hakmem: "));
    let line = lines.find(|line| !line.contains("HAKMEM_"))?;
    let text = line.split(" 0x").next().unwrap_or(line);
    let text = text.strip_suffix("pointer").unwrap_or(text).trim_end_matches([' ', ':', ',']);
    Some(text.replace('|', "/"))
}

#[cfg(test)]
mod tests {
    use std::process::ExitStatus;
    use std::time::Duration;

    use super::*;

    fn outcome(raw: i32, stdout: &str, stderr: &str) -> Outcome {
        let status = ExitStatus::from_raw(raw);
        Outcome::of(&Finished { status, wall: Duration::ZERO, peak_rss_bytes: 0, timed_out: false }, stdout, stderr)
    }

    #[test]
    fn report_needs_a_line_of_hakmems_and_an_abort() {
        let stderr =
            "hakmem: HAKMEM_X is not a variable of hakmem; ignored\nhakmem: double free: pointer 0x7f00\n  at 0x1\n";
        let reported = outcome(libc::SIGABRT, "", stderr);
        assert_eq!(reported, Outcome::Reported { message: "double free".to_owned(), late: false });
        assert_eq!(outcome(libc::SIGSEGV, "", stderr), Outcome::Signalled { signal: libc::SIGSEGV, late: false });
        let glibc = outcome(libc::SIGABRT, "reached\n", "hakmem: HAKMEM_X is unknown\nfree(): invalid pointer\n");
        assert_eq!(glibc.words(), "SIGABRT at exit");
    }

    #[test]
    fn only_a_case_that_came_back_is_missed_or_harmless() {
        assert_eq!(outcome(1 << 8, "reached\n", ""), Outcome::Missed);
        assert_eq!(outcome(0, "reached\n", ""), Outcome::Harmless);
        assert!(matches!(outcome(0, "", ""), Outcome::Broken(_)));
        assert!(matches!(outcome(2 << 8, "", "misuse: cannot be arranged: x"), Outcome::Broken(_)));
        assert_eq!(outcome(3 << 8, "", ""), Outcome::NotAvailable);
    }

    #[test]
    fn what_counts_depends_on_the_case() {
        let fault = Outcome::Signalled { signal: libc::SIGSEGV, late: false };
        assert!(!fault.is_caught(Success::Report, true) && fault.is_caught(Success::Report, false));
        assert!(fault.is_caught(Success::Stop, true) && fault.is_caught(Success::NoUse, true));
        assert!(Outcome::Harmless.is_caught(Success::NoUse, true) && !Outcome::Harmless.is_caught(Success::Stop, true));
        assert!(!Outcome::Missed.is_caught(Success::NoUse, true) && !Outcome::Hung.is_caught(Success::Stop, true));
    }
}
