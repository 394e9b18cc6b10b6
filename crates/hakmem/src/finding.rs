//! The report of a mistake with a sampled block: what, which block, and the stacks. docs/sampling.md shows one.
//!
//! Written piece by piece with `write`, so that what is known is on its way before the next piece is looked for.

use hakmem_atomic_ops::SharedUsize;
use hakmem_sampled::{Finding, Mistake, Stamp, Trace};

use crate::confined::is_confined;
use crate::global::GLOBAL;
use crate::sampler;
use crate::stacks::Stacks;
use crate::writer::FdWriter;

/// The thread that reports, by the address of its `errno`. Two mistakes at a time are one report: the first one's.
static REPORTER: SharedUsize = SharedUsize::new(0);
/// Seconds that a report may take. `dladdr` waits for the loader's lock, and whoever holds that may wait for the reporter.
const TIME_LIMIT: u32 = 30;

/// What an access was, as far as the processor says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86-64 is asked"))]
    Read,
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "as above"))]
    Write,
    /// The processor does not say, or nobody has taught this program how it says it.
    #[cfg_attr(target_arch = "x86_64", expect(dead_code, reason = "x86-64 always says"))]
    Unknown,
}

/// Reports a mistake that a free, a `realloc` or a question for a size brought to light, and aborts.
pub(crate) fn report(found: &Finding, here: &Trace) -> ! {
    report_at(found, None, || *here)
}

/// Reports an access that the kernel stopped, and aborts.
pub(crate) fn report_access(found: &Finding, access: Access, instruction: usize) -> ! {
    report_at(found, Some(access), || Trace::of_interrupted(instruction))
}

fn report_at(found: &Finding, access: Option<Access>, here: impl FnOnce() -> Trace) -> ! {
    be_the_reporter();
    GLOBAL.sampled.count_finding();
    let now = Stamp::now(sampler::thread_id(), Trace::EMPTY);
    let mut out = FdWriter::new(2);
    headline(&mut out, found, access);
    out.flush();
    let stacks = Stacks::new();
    out.text(if access.is_some() { "  accessed by thread " } else { "  found in thread " });
    out.number(u64::from(now.thread)).text(":\n").flush();
    // The instruction of an access stands there itself; all other addresses are those that calls return to.
    stacks.write(&mut out, &here(), access.is_some());
    for (what, stamp) in [("  freed ", &found.freed), ("  allocated ", &found.allocated)] {
        let Some(stamp) = stamp else { continue };
        out.text(what).number(now.at_ms.saturating_sub(stamp.at_ms)).text(" ms before by thread ");
        out.number(u64::from(stamp.thread)).text(":\n");
        stacks.write(&mut out, &stamp.trace, false);
    }
    out.text("hakmem: end of report (HAKMEM_SAMPLE, docs/sampling.md)\n").flush();
    // SAFETY: does not return.
    unsafe { libc::abort() }
}

/// Lets one thread through. Another one waits for the end of the process; the same one again has failed at its report.
fn be_the_reporter() {
    // SAFETY: always returns this thread's own, which no other thread shares.
    let me = unsafe { libc::__errno_location() }.addr();
    // ORDERING: decides who reports; nothing travels.
    match REPORTER.cas_acq_rel(0, me) {
        Ok(_) => limit_time(),
        // SAFETY: does not return.
        Err(found) if found == me => unsafe { libc::abort() },
        Err(_) => loop {
            // SAFETY: waits for a signal; the reporter's abort ends the process.
            unsafe { libc::pause() };
        },
    }
}

/// In a forked child: what its parent reports at this moment is the parent's, and nobody here comes to the end of it.
pub(crate) fn forget_in_child() {
    REPORTER.store_relaxed(0);
}

/// A report that hangs is ended by SIGALRM, so that a process with a mistake never stands still, unless it may not ask for that.
fn limit_time() {
    if is_confined() {
        return;
    }
    // SAFETY: the default action.
    unsafe { libc::signal(libc::SIGALRM, libc::SIG_DFL) };
    // SAFETY: all zero is a valid set to be filled.
    let mut alarm = unsafe { core::mem::zeroed::<libc::sigset_t>() };
    // SAFETY: fills the set.
    unsafe { libc::sigemptyset(&raw mut alarm) };
    // SAFETY: a set that is initialised, and a signal that exists.
    unsafe { libc::sigaddset(&raw mut alarm, libc::SIGALRM) };
    // SAFETY: reads the set.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const alarm, core::ptr::null_mut()) };
    // SAFETY: sets a timer.
    unsafe { libc::alarm(TIME_LIMIT) };
}

fn headline(out: &mut FdWriter, found: &Finding, access: Option<Access>) {
    out.text("hakmem: ").text(found.mistake.text());
    match access {
        Some(Access::Read) => out.text(": read at "),
        Some(Access::Write) => out.text(": write at "),
        Some(Access::Unknown) => out.text(": access at "),
        None => out.text(": pointer "),
    };
    out.hex(found.address);
    if let Mistake::WrongSize { claimed } = found.mistake {
        out.text(", freed as ").number(claimed as u64).text(" bytes");
    }
    if found.allocated.is_none() {
        out.text(", where no block has been\n");
        return;
    }
    let (first, end) = (found.block, found.block + found.bytes);
    if found.address < first {
        out.text(", ").number((first - found.address) as u64).text(" bytes before");
    } else if found.address >= end && found.address > first {
        out.text(", ").number((found.address - end) as u64).text(" bytes behind the end of");
    } else if found.address > first {
        out.text(", ").number((found.address - first) as u64).text(" bytes into");
    } else {
        out.text(", the start of");
    }
    out.text(" a block of ").number(found.bytes as u64).text(" bytes at ").hex(first).text("\n");
}
