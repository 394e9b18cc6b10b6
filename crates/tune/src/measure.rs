//! One run of a program: how long it took, what it cost the processor, how often it faulted, and how much memory it held when.
//!
//! **Not here.** Which allocator it runs with, and what the numbers mean.
//! **Invariants.** A started program is reaped exactly once. One that outlives its limit is killed with its process group, and so
//! is whatever a program leaves running. Memory is that of the program and its descendants as long as each has its parent: what
//! a program starts and orphans is not counted, so that a load generator can stay out of the figures.

use hakmem_atomic_ops::Shared32;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// Looks at memory per run, about: the time between two grows with the run, within these bounds.
const LOOKS: u32 = 250;
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(50);

/// Bytes by which two of the kernel's counts of one process's memory may differ: each processor adds up some pages for itself first.
const COUNTED_LATE: f64 = 1048576.0;

/// What one run took.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Seconds from start to end.
    pub wall: f64,
    /// Seconds of processor, of the program and the descendants that it waited for.
    pub cpu: f64,
    /// Page faults of the same, those that read a disk included.
    pub faults: f64,
    /// Largest resident set of one of them, in bytes.
    pub peak_rss: f64,
    /// Resident set of all of them over time, in bytes; the peak where a run was over before it was looked at.
    pub mean_rss: f64,
    /// Seconds since the start, and bytes resident then.
    pub curve: Vec<(f64, f64)>,
}

/// How a run ended, with its figures.
pub struct Finished {
    /// Exit status.
    pub status: ExitStatus,
    /// It was killed because its time was up.
    pub timed_out: bool,
    /// What it took.
    pub usage: Usage,
}

impl Finished {
    /// What is wrong with the end, if anything is.
    pub fn trouble(&self) -> Option<String> {
        if self.timed_out {
            return Some(format!("it was killed after {:.0} s", self.usage.wall));
        }
        match (self.status.code(), self.status.signal()) {
            (Some(0), _) => None,
            (Some(code), _) => Some(format!("exit status {code}")),
            (None, signal) => Some(format!("killed by signal {}", signal.unwrap_or(0))),
        }
    }
}

/// The signal that this tool shall end by; 0: none.
static ENDING: Shared32 = Shared32::new(0);

extern "C" fn on_end(signal: libc::c_int) {
    ENDING.store_relaxed(signal.cast_unsigned());
}

/// Has the signals that end this tool end the program that it measures first: that runs in a group of its own, which a terminal does
/// not reach. Then [`end_as_asked`] may end the tool, once nothing is left of its temporary files.
fn end_together() {
    let handler = on_end as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: the handler stores a number.
        let former = unsafe { libc::signal(signal, handler) };
        if former == libc::SIG_IGN {
            // SAFETY: as it was: under nohup, for example.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
}

/// An error once a signal has asked for the end.
fn go_on() -> io::Result<()> {
    match ENDING.load_relaxed() {
        0 => Ok(()),
        signal => Err(io::Error::other(format!("ended by signal {signal}"))),
    }
}

/// Ends this tool by the signal that asked for it, if one has.
pub fn end_as_asked() {
    let signal = ENDING.load_relaxed().cast_signed();
    if signal != 0 {
        // SAFETY: the default action of a signal that can be caught.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        // SAFETY: takes a number.
        unsafe { libc::raise(signal) };
    }
}

/// A program that runs. Ends with its group when it is dropped.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> io::Result<Self> {
        end_together();
        go_on()?;
        Ok(Self(command.process_group(0).spawn()?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What the program left running would disturb the next run.
        kill_group(&self.0);
    }
}

/// Runs `command` to its end, for `limit` at most. An error once this tool shall end.
pub fn run(command: &mut Command, limit: Duration) -> io::Result<Finished> {
    let begin = Instant::now();
    let running = Running::start(command)?;
    let child = &running.0;
    // The kernel counts this process, as it was at the start, towards the peak of what it starts.
    let mine = high_water("self") + COUNTED_LATE;
    let mut timed_out = false;
    let mut curve = Vec::new();
    let mut highest = 0.0_f64;
    loop {
        if let Some((status, usage)) = reap(child)? {
            go_on()?;
            let counted = usage.ru_maxrss as f64 * 1024.0;
            let peak = if counted <= mine && highest > 0.0 { highest } else { counted };
            return Ok(Finished { status, timed_out, usage: finish(&usage, begin.elapsed(), peak, curve) });
        }
        let elapsed = begin.elapsed();
        if has_executed(child.id()) {
            let (resident, high) = memory_of_tree(child.id());
            highest = highest.max(high);
            curve.push((elapsed.as_secs_f64(), resident));
        }
        timed_out |= elapsed > limit;
        if timed_out || go_on().is_err() {
            kill_group(child);
        }
        std::thread::sleep((elapsed / LOOKS).clamp(SHORTEST, LONGEST));
    }
}

fn finish(usage: &libc::rusage, wall: Duration, peak_rss: f64, curve: Vec<(f64, f64)>) -> Usage {
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let wall = wall.as_secs_f64();
    Usage {
        wall,
        cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        faults: (usage.ru_minflt + usage.ru_majflt) as f64,
        peak_rss,
        mean_rss: mean_over_time(&curve, wall).unwrap_or(peak_rss),
        curve,
    }
}

/// The mean of a curve whose values each hold until the next one; `None` where there are too few to say.
fn mean_over_time(curve: &[(f64, f64)], end: f64) -> Option<f64> {
    const FEWEST: usize = 5;
    let (first, _) = curve.first().filter(|_| curve.len() >= FEWEST)?;
    let ends = curve.iter().skip(1).map(|(time, _)| *time).chain([end]);
    let area: f64 = curve.iter().zip(ends).map(|((time, bytes), end)| bytes * (end - time)).sum();
    (end > *first).then(|| area / (end - first))
}

fn kill_group(child: &Child) {
    let Ok(group) = libc::pid_t::try_from(child.id()) else { return };
    // SAFETY: kill takes two numbers; the group is the one that `child` was started as leader of, or it is gone already.
    let _gone_already = unsafe { libc::kill(-group, libc::SIGKILL) };
}

fn reap(child: &Child) -> io::Result<Option<(ExitStatus, libc::rusage)>> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    let mut status = 0;
    // SAFETY: rusage consists of integers, for which all bits zero is a value.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    loop {
        // SAFETY: `pid` is our child, which nobody else waits for (`Child::wait` is never called); both pointers are to live locals.
        let reaped = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) };
        if reaped == pid {
            return Ok(Some((ExitStatus::from_raw(status), usage)));
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

/// Bytes resident in a process and its descendants, and the most that one of them ever had. A process that ends meanwhile counts
/// nothing.
fn memory_of_tree(pid: u32) -> (f64, f64) {
    let mut waiting = vec![pid];
    let (mut resident, mut highest) = (0.0, 0.0_f64);
    while let Some(pid) = waiting.pop() {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        resident += field(&status, "VmRSS:");
        highest = highest.max(field(&status, "VmHWM:"));
        for thread in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            waiting.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    (resident, highest)
}

/// Whether a process has memory of its own. One that is being started has that of its parent for a moment longer than the parent
/// waits for it.
fn has_executed(pid: u32) -> bool {
    /// Kernel's flag of a task that was forked and has not executed anything since (include/linux/sched.h).
    const PF_FORKNOEXEC: u32 = 0x40;
    /// Fields of /proc/PID/stat between the name, which may contain anything, and the flags.
    const BEFORE_FLAGS: usize = 6;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let flags = after_name.split_whitespace().nth(BEFORE_FLAGS).and_then(|flags| flags.parse::<u32>().ok());
    flags.is_some_and(|flags| flags & PF_FORKNOEXEC == 0)
}

/// The most that a process ever had resident, in bytes.
fn high_water(process: &str) -> f64 {
    field(&std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default(), "VmHWM:")
}

/// A field of /proc/PID/status that is given in kB, in bytes; 0 where there is none.
fn field(status: &str, name: &str) -> f64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<f64>().ok());
    value.unwrap_or(0.0) * 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Finished {
        run(Command::new("sh").args(["-c", script]), Duration::from_secs(60)).unwrap()
    }

    #[test]
    fn the_mean_weighs_each_value_with_the_time_it_held() {
        let curve = [(0.0, 10.0), (1.0, 20.0), (2.0, 20.0), (3.0, 0.0), (9.0, 100.0)];
        assert_eq!(mean_over_time(&curve, 10.0), Some(15.0));
        assert_eq!(mean_over_time(&curve[..4], 10.0), None);
    }

    #[test]
    fn the_peak_of_a_small_program_is_its_own() {
        // This process has touched 64 MiB and more each time, which the kernel would count for `sleep`.
        let mut large = Vec::new();
        for _ in 0..5 {
            large.push(vec![1_u8; 64 << 20]);
            let small = shell("exec sleep 0.1").usage.peak_rss;
            assert!(small > 1e5 && small < 32e6, "{small}");
            // Over before there are looks enough for a mean.
            let short = shell("exec sleep 0.002").usage;
            assert!(short.mean_rss <= short.peak_rss * 1.000_001, "{} {}", short.mean_rss, short.peak_rss);
        }
        assert!(large.iter().flatten().all(|byte| *byte == 1));
    }

    #[test]
    fn a_process_that_has_executed_nothing_is_not_looked_at() {
        // SAFETY: the child only waits to be killed.
        let child = unsafe { libc::fork() };
        if child == 0 {
            loop {
                // SAFETY: takes nothing.
                unsafe { libc::pause() };
            }
        }
        let executed = has_executed(u32::try_from(child).unwrap());
        // SAFETY: the child is ours.
        unsafe { libc::kill(child, libc::SIGKILL) };
        // SAFETY: as above; its status is of no interest.
        unsafe { libc::waitpid(child, core::ptr::null_mut(), 0) };
        assert!(!executed && has_executed(std::process::id()));
    }

    #[test]
    fn a_program_is_measured_with_what_it_started() {
        let alone = shell("sleep 0.2");
        // 64 MiB in a child: `head` and `tail` hold what they were given.
        let more = shell("head -c 67108864 /dev/zero | tail -c 67108864 | (sleep 0.3; wc -c)");
        assert!(alone.trouble().is_none() && more.trouble().is_none());
        let highest = more.usage.curve.iter().map(|(_, bytes)| *bytes).fold(0.0, f64::max);
        assert!(highest > 64e6 && more.usage.peak_rss > 64e6, "{highest} {}", more.usage.peak_rss);
        assert!(more.usage.faults > alone.usage.faults + 10_000.0, "{} {}", more.usage.faults, alone.usage.faults);
        assert!(alone.usage.mean_rss > 0.0 && alone.usage.mean_rss < 64e6);
    }

    #[test]
    fn a_bad_end_is_named() {
        assert_eq!(shell("exit 3").trouble().unwrap(), "exit status 3");
        assert_eq!(shell("kill -9 $$").trouble().unwrap(), "killed by signal 9");
        let late = run(Command::new("sh").args(["-c", "sleep 600; true"]), Duration::from_millis(50)).unwrap();
        assert!(late.timed_out && late.trouble().unwrap().starts_with("it was killed after"));
    }
}
