//! A test runs itself again as a child, alone in a fresh process, under a time limit.

use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::random::wants_long;

/// Names, in the environment, the part of a test program that a child is to run.
const ROLE: &str = "HAKTEST_ROLE";

/// A child of this test program.
#[derive(Debug)]
pub struct Child {
    command: Command,
    limit: Duration,
}

/// How a child ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status; `None` when it was killed at its time limit.
    pub status: Option<ExitStatus>,
    /// All it wrote to fd 1.
    pub stdout: String,
    /// All it wrote to fd 2.
    pub stderr: String,
}

impl Child {
    /// What this process is to do if it is a child. An empty role is none.
    #[must_use]
    pub fn role() -> Option<String> {
        std::env::var(ROLE).ok().filter(|role| !role.is_empty())
    }

    /// This program again, running only `test` (an exact name) with `role`.
    ///
    /// # Panics
    /// When this program does not know its own path.
    #[must_use]
    #[expect(clippy::expect_used, reason = "no test can go on without it")]
    pub fn of_test(test: &str, role: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.args([test, "--exact", "--nocapture", "--include-ignored", "--test-threads=1"]).env(ROLE, role);
        // The allocator reports names that begin like its own and that it does not know; some tests count its lines.
        command.env_remove("HAKMEM_STRESS_SECONDS");
        Self::of(command)
    }

    /// Runs `body` in a process of its own: this program again, with only `test` (an exact name).
    ///
    /// # Panics
    /// When the child fails, with what it wrote.
    #[track_caller]
    #[expect(clippy::print_stderr, reason = "a test's output is the test runner's to show")]
    pub fn alone(test: &str, body: fn()) {
        if Self::role().is_some() {
            return body();
        }
        let ended = Self::of_test(test, "alone").run();
        ended.assert_success();
        eprint!("{}", ended.stderr);
    }

    /// Any other program.
    #[must_use]
    pub fn of(command: Command) -> Self {
        Self { command, limit: Duration::from_secs(if wants_long() { 7200 } else { 600 }) }
    }

    /// Another limit than ten minutes (two hours with `HAKTEST_LONG`), which is against hangs: on a busy machine children are
    /// slow.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it to its end, or to its limit, at which it is killed.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    #[expect(clippy::expect_used, reason = "no test can go on without it")]
    pub fn run(mut self) -> Ended {
        let command = self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the child starts");
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        let end = Instant::now() + self.limit;
        let status = loop {
            match child.try_wait().expect("the child can be waited for") {
                Some(status) => break Some(status),
                None if Instant::now() < end => thread::sleep(Duration::from_millis(5)),
                None => {
                    let _gone_by_itself = child.kill();
                    let _reaped = child.wait();
                    break None;
                }
            }
        };
        // Grandchildren may hold the pipes open after a kill; a test that failed that way need not wait for them.
        let text = |reader: thread::JoinHandle<String>| {
            if status.is_some() || reader.is_finished() { reader.join().unwrap_or_default() } else { String::new() }
        };
        Ended { stdout: text(stdout), stderr: text(stderr), status }
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _cut = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Ended {
    /// Wants exit status 0.
    ///
    /// # Panics
    /// With what the child wrote, otherwise.
    #[track_caller]
    pub fn assert_success(&self) {
        assert!(
            self.status.is_some_and(|status| status.success()),
            "the child ended with {} and wrote:\n{}\n{}",
            self.status.map_or_else(|| "its time limit".into(), |status| status.to_string()),
            self.stdout,
            self.stderr
        );
    }

    /// The lines on fd 2 that begin with `prefix`.
    #[must_use]
    pub fn lines_of(&self, prefix: &str) -> Vec<&str> {
        self.stderr.lines().filter(|line| line.starts_with(prefix)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Child::of(command)
    }

    #[test]
    fn output_and_status_come_back() {
        let ended = shell("echo out; echo 'x: one' >&2; echo two >&2; exit 3").run();
        assert_eq!(ended.status.unwrap().code(), Some(3));
        assert_eq!((ended.stdout.as_str(), ended.lines_of("x: ")), ("out\n", vec!["x: one"]));
    }

    #[test]
    fn a_child_that_hangs_is_killed_at_its_limit() {
        let ended = shell("exec sleep 600").limit(Duration::from_millis(200)).run();
        assert!(ended.status.is_none());
    }
}
