//! Starting a program with or without the preload library, and waiting for it.
//!
//! **Invariants.** A started program is reaped exactly once; a program that outlives its limit is killed with its process group, and
//! so is one that runs in a group of its own when a signal ends this tool.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Once;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hakmem_atomic_ops::Shared32;

use crate::project::Project;

/// The preload library and the directory into which processes report.
pub struct Preload {
    library: PathBuf,
    reports: PathBuf,
}

impl Preload {
    /// `library` as LD_PRELOAD can name it, reports as `<pid>.json` under `reports`.
    pub fn new(library: PathBuf, reports: PathBuf) -> Result<Self> {
        // The dynamic loader splits LD_PRELOAD at spaces and colons and knows no escape.
        let awkward = |path: &Path| path.to_string_lossy().contains([' ', ':', '\t', '\n']);
        let mut chosen = library;
        if awkward(&chosen) {
            let copy = reports.join("libhakmem.so");
            std::fs::copy(&chosen, &copy).with_context(|| format!("cannot copy {}", chosen.display()))?;
            chosen = copy;
        }
        if awkward(&chosen) {
            bail!("LD_PRELOAD cannot name {}: it has a space or a colon", chosen.display());
        }
        Ok(Self { library: chosen, reports })
    }

    /// Where the reports arrive.
    pub fn reports(&self) -> &Path {
        &self.reports
    }

    /// Makes `command` and all that it starts use hakmem and report at exit.
    pub fn apply(&self, command: &mut Command) {
        let mut libraries = self.library.clone().into_os_string();
        if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
            libraries.push(":");
            libraries.push(others);
        }
        let mut stats_file = self.reports.clone().into_os_string();
        stats_file.push("/%p.json");
        command.env("LD_PRELOAD", libraries).env("HAKMEM_STATS_FILE", stats_file);
    }
}

/// Takes back what `cargo run` added to the environment, so that a program sees what its user's shell would give it.
pub fn clean_environment(project: &Project, command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text == "CARGO"
            || text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_MANIFEST_")
            || text.starts_with("CARGO_BIN_")
        {
            command.env_remove(&name);
        }
    }
    if let Some(paths) = std::env::var_os("LD_LIBRARY_PATH") {
        let ours = |path: &Path| path.starts_with(project.target()) || path.to_string_lossy().contains("/toolchains/");
        let kept: Vec<PathBuf> = std::env::split_paths(&paths).filter(|path| !ours(path)).collect();
        match std::env::join_paths(kept) {
            Ok(kept) if !kept.is_empty() => command.env("LD_LIBRARY_PATH", kept),
            _ => command.env_remove("LD_LIBRARY_PATH"),
        };
    }
}

/// How a program ended.
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// Wall-clock time from start to end.
    pub wall: Duration,
    /// Largest resident set of the program itself or a descendant it waited for.
    pub peak_rss_bytes: u64,
    /// It was killed because its time was up.
    pub timed_out: bool,
}

impl Finished {
    /// The status as a shell would report it.
    pub fn shell_code(&self) -> u8 {
        let code = self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0));
        u8::try_from(code & 0xff).unwrap_or(u8::MAX)
    }

    /// The status in words.
    pub fn describe(&self) -> String {
        if self.timed_out {
            return format!("killed after {:.0} s", self.wall.as_secs_f64());
        }
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => "ended without a status".to_owned(),
        }
    }
}

/// Starts `command` and waits for its end.
pub fn wait_for(command: &mut Command) -> io::Result<Finished> {
    let begin = Instant::now();
    let child = command.spawn()?;
    let (status, peak_rss_bytes) = reap(&child, 0)?.ok_or_else(|| io::Error::other("wait4 returned no process"))?;
    Ok(Finished { status, wall: begin.elapsed(), peak_rss_bytes, timed_out: false })
}

/// Like [`wait_for`] in a process group of its own, which is killed when `limit` has passed.
pub fn wait_for_at_most(command: &mut Command, limit: Duration) -> io::Result<Finished> {
    let begin = Instant::now();
    let running = Running::start(command)?;
    let child = &running.child;
    let mut timed_out = false;
    loop {
        if let Some((status, peak_rss_bytes)) = reap(child, libc::WNOHANG)? {
            return Ok(Finished { status, wall: begin.elapsed(), peak_rss_bytes, timed_out });
        }
        if !timed_out && begin.elapsed() > limit {
            timed_out = true;
            kill_group(child);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Programs that may run at a time: more than any machine has processors.
const PLACES: usize = 4096;

/// The groups of the programs that run; 0: none. The numbers are all that threads exchange.
static RUNNING: [Shared32; PLACES] = [const { Shared32::new(0) }; PLACES];

/// A program in a group of its own. Ends with its group when it is dropped.
struct Running {
    child: Child,
    place: Option<&'static Shared32>,
}

impl Running {
    fn start(command: &mut Command) -> io::Result<Self> {
        end_together();
        let child = command.process_group(0).spawn()?;
        // ORDERING: pairs with nothing: the number is all the data.
        let place = RUNNING.iter().find(|place| place.cas_acq_rel(0, child.id()).is_ok());
        Ok(Self { child, place })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What the program left running would disturb the next one.
        kill_group(&self.child);
        if let Some(place) = self.place {
            place.store_relaxed(0);
        }
    }
}

/// Ends what runs, and this tool as the signal would have.
extern "C" fn on_end(signal: libc::c_int) {
    for place in &RUNNING {
        let group = libc::pid_t::try_from(place.load_relaxed()).unwrap_or(0);
        if group > 0 {
            // SAFETY: takes two numbers, and is async-signal-safe.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
    }
    // SAFETY: the default action of a signal, in a handler.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: takes a number; the signal comes when the handler returns.
    unsafe { libc::raise(signal) };
}

/// Has the signals that end this tool end the programs in groups of their own, too, which a terminal does not reach.
fn end_together() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let handler = on_end as extern "C" fn(libc::c_int) as libc::sighandler_t;
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: the handler calls async-signal-safe functions only.
            let former = unsafe { libc::signal(signal, handler) };
            if former == libc::SIG_IGN {
                // SAFETY: as it was: under nohup, for example.
                unsafe { libc::signal(signal, libc::SIG_IGN) };
            }
        }
    });
}

fn kill_group(child: &Child) {
    let Ok(group) = libc::pid_t::try_from(child.id()) else { return };
    // SAFETY: kill takes two numbers; the group is the one that `child` was started as leader of. It may be gone already: then nothing happens.
    let _gone_already = unsafe { libc::kill(-group, libc::SIGKILL) };
}

fn reap(child: &Child, options: libc::c_int) -> io::Result<Option<(ExitStatus, u64)>> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    let mut status = 0;
    // SAFETY: rusage consists of integers, for which all bits zero is a value.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    loop {
        // SAFETY: `pid` is our child, which nobody else waits for (`Child::wait` is never called); both pointers are to live locals.
        let reaped = unsafe { libc::wait4(pid, &raw mut status, options, &raw mut usage) };
        if reaped == pid {
            let kib = u64::try_from(usage.ru_maxrss).unwrap_or(0);
            return Ok(Some((ExitStatus::from_raw(status), kib * 1024)));
        }
        if reaped == 0 {
            return Ok(None);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// From here on Ctrl-C ends the program that was started, not this tool, which still has its summary to print.
pub fn leave_interrupts_to_the_program() {
    extern "C" fn nothing(_signal: libc::c_int) {}
    let handler = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGINT, libc::SIGQUIT] {
        // A handler, unlike SIG_IGN, is back at the default in the program after exec.
        // SAFETY: the handler does nothing, so it is safe at any point of the program.
        let _previous = unsafe { libc::signal(signal, handler) };
    }
}

/// Finds `program` the way exec does.
pub fn find_program(program: &str) -> Option<PathBuf> {
    let is_program = |path: &Path| {
        use std::os::unix::fs::PermissionsExt as _;
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let paths: OsString = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).map(|directory| directory.join(program)).find(|path| is_program(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hakmem_testkit::Child as Tool;

    /// Programs that hold the tool's output open for as long as they run.
    const LIFETIME: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> io::Result<Finished> {
        wait_for_at_most(Command::new("sh").args(["-c", script]), LIFETIME)
    }

    fn run_two_and_end() {
        std::thread::scope(|scope| {
            let _programs = [0, 1].map(|_| scope.spawn(|| shell("sleep 60; true")));
            while RUNNING.iter().filter(|place| place.load_relaxed() != 0).count() < 2 {
                std::thread::yield_now();
            }
            // SAFETY: takes a number.
            unsafe { libc::raise(libc::SIGTERM) };
        });
    }

    #[test]
    fn signal_that_ends_the_tool_ends_all_that_it_started() {
        if Tool::role().is_some() {
            return run_two_and_end();
        }
        let begin = Instant::now();
        let ended = Tool::of_test("launch::tests::signal_that_ends_the_tool_ends_all_that_it_started", "tool").run();
        assert_eq!(ended.status.unwrap().signal(), Some(libc::SIGTERM));
        assert!(begin.elapsed() < LIFETIME, "a program outlived the tool");
    }

    #[test]
    fn signal_that_the_tool_was_told_to_ignore_ends_nothing() {
        Tool::alone("launch::tests::signal_that_the_tool_was_told_to_ignore_ends_nothing", || {
            // SAFETY: nobody handles the signal in this process.
            unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
            assert_eq!(shell("kill -HUP $PPID; sleep 0.1; exit 7").unwrap().shell_code(), 7);
        });
    }

    #[test]
    fn status_of_a_program_is_passed_on_as_a_shell_does() {
        let finished = wait_for(Command::new("sh").args(["-c", "exit 7"])).unwrap();
        assert_eq!(finished.shell_code(), 7);
        let finished = wait_for(Command::new("sh").args(["-c", "kill -9 $$"])).unwrap();
        assert_eq!(finished.shell_code(), 137);
    }

    #[test]
    fn program_that_outlives_its_limit_is_killed_with_what_it_started() {
        let mut command = Command::new("sh");
        let finished = wait_for_at_most(command.args(["-c", "sleep 600; true"]), Duration::from_millis(100)).unwrap();
        assert!(finished.timed_out);
        assert_eq!(finished.shell_code(), 137);
    }

    #[test]
    fn missing_program_is_not_found() {
        assert!(find_program("sh").is_some());
        assert!(find_program("no-such-program-here").is_none());
    }
}
