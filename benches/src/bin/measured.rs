//! Runs one program and writes what the run cost: the small process between `cargo xtask bench` and what it measures.
//!
//! `measured FILE one|all MIB [NAME=VALUE …] -- PROGRAM ARGUMENT…` runs the program on one processor or all, with these variables
//! added to its environment, and writes one line of `key=value` pairs to FILE. `measured touch` writes most of the free memory,
//! `measured touch MIB` that much: before each run it warms what the run will get, because a host may take free memory away
//! within seconds, and gives it back slowly (a first touch of 1 GiB took 2.1 s, the second 0.11 s, the next after 8 s 2.1 s again).
//!
//! **Why a process of its own.** The kernel counts a parent's resident set towards the peak of the child that it starts, up to the
//! child's `exec`: a peak below the size of the starter cannot be seen. This one has 2 MiB.
//! **Invariants.** The status of the program is this program's status; a program that does not start leaves no file.
#![allow(clippy::print_stderr, reason = "a command-line tool talks to its terminal")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, ExitStatus};
use std::thread;
use std::time::Instant;

use hakmem_testkit::available_kib;

/// How often the memory of the running program is looked at.
const LOOK_MS: libc::c_int = 10;
/// Steps of the fixed work beside which a run is judged: a few milliseconds.
const SPIN_STEPS: u64 = 4_000_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["touch"] => {
            touch(available_kib() / 4 * 3);
            Ok(0)
        }
        ["touch", mib] => {
            touch(mib.parse().unwrap_or(0) * 1024);
            Ok(0)
        }
        [file, cpus @ ("one" | "all"), warmed_mib, rest @ ..] => measure(file, *cpus == "one", warmed_mib, rest),
        _ => Err(io::Error::other(
            "usage: measured FILE one|all MIB [NAME=VALUE ...] -- PROGRAM ARGUMENT...\n       measured touch [MIB]",
        )),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("measured: {error}");
            ExitCode::from(125)
        }
    }
}

/// Writes `kib` KiB once, in huge pages where the kernel has them, so that no later run pays for the machine's first touch.
fn touch(kib: u64) {
    const PAGE_BYTES: usize = 4096;
    let bytes = usize::try_from(kib).unwrap_or(0) * 1024;
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new anonymous mapping at a place that the kernel chooses.
    let start = unsafe { libc::mmap(core::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return;
    }
    // SAFETY: the range was mapped above; the advice does not change what it holds. A kernel without huge pages refuses.
    let _refused = unsafe { libc::madvise(start, bytes, libc::MADV_HUGEPAGE) };
    for offset in (0..bytes).step_by(PAGE_BYTES) {
        // SAFETY: below the end of the mapping, which is writable and nobody else's.
        unsafe { start.cast::<u8>().wrapping_add(offset).write(1) };
    }
    // SAFETY: as above; nothing points into it.
    let _unmapped = unsafe { libc::munmap(start, bytes) };
}

fn measure(file: &str, on_one: bool, warmed_mib: &str, rest: &[&str]) -> io::Result<u8> {
    let mut parts = rest.splitn(2, |word| *word == "--");
    let (variables, command) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Some((program, arguments)) = command.split_first() else { return Err(io::Error::other("no program to run")) };
    let allowed = allowed_cpus()?;
    let cpus: Vec<usize> = if on_one { allowed.last().copied().into_iter().collect() } else { allowed.clone() };
    let mut command = Command::new(program);
    command.args(arguments).envs(variables.iter().filter_map(|variable| variable.split_once('=')));

    let toucher = std::env::current_exe()?;
    let _warmed = Command::new(toucher).args(["touch", warmed_mib]).status()?;
    let spin_before = spin(&cpus)?;
    let busy_before = busy_ticks()?;
    // The program inherits it; this process, which looks at it now and then, goes back to where it may be.
    pin(&cpus)?;
    let begin = Instant::now();
    let child = command.spawn().map_err(|error| io::Error::other(format!("{program}: {error}")));
    pin(&allowed)?;
    let pid = libc::pid_t::try_from(child?.id()).map_err(io::Error::other)?;
    let memory = watch(pid)?;
    let (status, usage) = reap(pid)?;
    let wall = begin.elapsed().as_secs_f64();
    let busy = busy_ticks()?.saturating_sub(busy_before) as f64 / ticks_per_second();
    let spin_ms = spin_before.max(spin(&cpus)?);

    let (user, system) = (seconds(usage.ru_utime), seconds(usage.ru_stime));
    let mut line = format!("wall_s={wall:.6} user_s={user:.6} system_s={system:.6} peak_rss_kib={}", usage.ru_maxrss);
    let _text = write!(
        line,
        " end_rss_kib={} virtual_kib={} minor_faults={} major_faults={} spin_ms={spin_ms:.3} others_s={:.2}",
        memory.rss_kib,
        memory.virtual_kib,
        usage.ru_minflt,
        usage.ru_majflt,
        (busy - user - system).max(0.0)
    );
    std::fs::write(file, line + "\n")?;
    Ok(u8::try_from(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)) & 0xff).unwrap_or(u8::MAX))
}

/// What was last seen of a program's memory, and the most address space that it had.
#[derive(Default)]
struct Memory {
    rss_kib: u64,
    virtual_kib: u64,
}

/// Waits until the program has ended, without reaping it, and looks at its memory meanwhile.
fn watch(pid: libc::pid_t) -> io::Result<Memory> {
    // SAFETY: the call takes two numbers; `pid` is our child, which nobody has reaped.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let opened = libc::c_int::try_from(opened).ok().filter(|descriptor| *descriptor >= 0);
    let Some(opened) = opened else { return Err(io::Error::last_os_error()) };
    // SAFETY: the kernel has just opened it for us, and nobody else knows it.
    let process = unsafe { OwnedFd::from_raw_fd(opened) };
    let mut memory = Memory::default();
    loop {
        let mut event = libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `event` is one live pollfd, as the count says.
        let ended = unsafe { libc::poll(&raw mut event, 1, LOOK_MS) };
        if ended > 0 {
            return Ok(memory);
        }
        // Between its end and this line it is a zombie, which has no memory and lists none.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        memory.rss_kib = kib(&status, "VmRSS:").unwrap_or(memory.rss_kib);
        memory.virtual_kib = kib(&status, "VmPeak:").unwrap_or(memory.virtual_kib);
    }
}

fn kib(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

fn reap(pid: libc::pid_t) -> io::Result<(ExitStatus, libc::rusage)> {
    let mut status = 0;
    // SAFETY: rusage consists of integers, for which all bits zero is a value.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    // SAFETY: `pid` is our child, which nobody else waits for; both pointers are to live locals.
    let reaped = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    if reaped == pid { Ok((ExitStatus::from_raw(status), usage)) } else { Err(io::Error::last_os_error()) }
}

fn seconds(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 / 1e6
}

/// Milliseconds that fixed work takes on each of these processors at once; the slowest counts.
fn spin(cpus: &[usize]) -> io::Result<f64> {
    fn work() -> f64 {
        let start = Instant::now();
        let mut value = 1_u64;
        for _ in 0..SPIN_STEPS {
            value = black_box(value.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7));
        }
        start.elapsed().as_secs_f64() * 1000.0
    }
    let workers: Vec<_> = cpus.iter().map(|&cpu| thread::spawn(move || pin(&[cpu]).map(|()| work()))).collect();
    workers.into_iter().try_fold(0.0_f64, |slowest, worker| {
        let took = worker.join().map_err(|_| io::Error::other("the spin panicked"))??;
        Ok(slowest.max(took))
    })
}

/// Time that all processors together were busy since the machine started, in ticks.
fn busy_ticks() -> io::Result<u64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let first = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = first.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; what comes after is part of user and nice.
    Ok(ticks.iter().take(8).enumerate().filter(|(place, _)| !matches!(place, 3 | 4)).map(|(_, ticks)| ticks).sum())
}

fn ticks_per_second() -> f64 {
    // SAFETY: the call takes a number and returns one.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks as f64 } else { 100.0 }
}

/// The processors that this process may run on, in ascending order.
fn allowed_cpus() -> io::Result<Vec<usize>> {
    // SAFETY: a cpu_set_t consists of integers, for which all bits zero is a value.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: `set` is live and as large as the second argument says.
    let failed = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    let most = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    // SAFETY: the index is below CPU_SETSIZE.
    Ok((0..most).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect())
}

/// Lets the calling thread, and what it starts, run on these processors only.
fn pin(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: a cpu_set_t consists of integers, for which all bits zero is a value.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    for &cpu in cpus {
        // SAFETY: the numbers come from `allowed_cpus`, so they are below CPU_SETSIZE.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `set` is live and as large as the second argument says.
    let failed = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
