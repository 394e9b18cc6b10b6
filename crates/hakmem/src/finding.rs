//! The report of a mistake with a sampled block: what, which block, and the stacks. docs/sampling.md shows one.
//!
//! Written piece by piece with `write`, so that what is known is on its way before the next piece is looked for.

use core::ffi::{CStr, c_void};
use core::mem::MaybeUninit;
use hakmem_atomic_ops::SharedUsize;
use hakmem_sampled::{Finding, Mistake, Stamp, Trace};

use crate::confined::is_confined;
use crate::global::GLOBAL;
use crate::sampler;
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
    let modules = Modules::known();
    out.text(if access.is_some() { "  accessed by thread " } else { "  found in thread " });
    out.number(u64::from(now.thread)).text(":\n").flush();
    // The instruction of an access stands there itself; all other addresses are those that calls return to.
    modules.write(&mut out, &here(), access.is_some());
    for (what, stamp) in [("  freed ", &found.freed), ("  allocated ", &found.allocated)] {
        let Some(stamp) = stamp else { continue };
        out.text(what).number(now.at_ms.saturating_sub(stamp.at_ms)).text(" ms before by thread ");
        out.number(u64::from(stamp.thread)).text(":\n");
        modules.write(&mut out, &stamp.trace, false);
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

/// What lies where in the program, as the loader knows it.
pub(crate) struct Modules {
    /// Where this library begins, if hakmem is one: its own calls are left out of stacks.
    own_library: Option<usize>,
}

impl Modules {
    pub fn known() -> Self {
        let base = |address: usize| module_of(address).map(|module| module.dli_fbase.addr());
        let own = base(Self::known as *const () as usize);
        // SAFETY: reads the auxiliary vector.
        let program = base(unsafe { libc::getauxval(libc::AT_ENTRY) } as usize);
        Self { own_library: own.filter(|_| own != program) }
    }

    /// A stack, one line a call.
    pub fn write(&self, out: &mut FdWriter, trace: &Trace, begins_with_instruction: bool) {
        let mut is_own_part = !begins_with_instruction;
        let mut number = 0;
        for (position, &address) in trace.frames().iter().enumerate() {
            // The call stands before the address that it returns to, which may belong to the next function already.
            let place = if position == 0 && begins_with_instruction { address } else { address.wrapping_sub(1) };
            let module = module_of(place);
            if let Some(module) = &module {
                is_own_part &= Some(module.dli_fbase.addr()) == self.own_library && module.dli_sname.is_null();
            }
            if is_own_part && self.own_library.is_some() {
                continue;
            }
            write_frame(out, number, address, place, module.as_ref());
            number += 1;
        }
        if number == 0 {
            out.text("    (no stack)\n");
        }
        out.flush();
    }
}

/// `    #0 0x7f.. /usr/lib/libx.so+0x1234 (name+0x12)`; the offset is what `addr2line -e` takes.
fn write_frame(out: &mut FdWriter, number: u64, address: usize, place: usize, module: Option<&libc::Dl_info>) {
    out.text("    #").number(number).text(" ").hex(address);
    if let Some(module) = module {
        if !module.dli_fname.is_null() {
            // SAFETY: the loader's own text, as long as the module is there.
            let name = unsafe { CStr::from_ptr(module.dli_fname) };
            out.text(" ").bytes(name.to_bytes()).text("+").hex(place.wrapping_sub(bias(module)));
        }
        if !module.dli_sname.is_null() {
            // SAFETY: as above.
            let name = unsafe { CStr::from_ptr(module.dli_sname) };
            out.text(" (").bytes(name.to_bytes()).text("+").hex(place.wrapping_sub(module.dli_saddr.addr())).text(")");
        }
    }
    out.text("\n");
}

/// Name of the function that `place` lies in (of a long one the beginning) and how far, or `?`; what a string would have to escape is
/// written as `?` too.
pub(crate) fn write_symbol(out: &mut FdWriter, place: usize) {
    /// Longest name (bytes).
    const MOST: usize = 100;
    let Some(module) = module_of(place).filter(|module| !module.dli_sname.is_null()) else {
        out.text("?");
        return;
    };
    // SAFETY: the loader's own text, as long as the module is there.
    let name = unsafe { CStr::from_ptr(module.dli_sname) };
    for byte in name.to_bytes().iter().take(MOST) {
        let is_plain = byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        out.bytes(&[if is_plain { *byte } else { b'?' }]);
    }
    out.text("+").hex(place.wrapping_sub(module.dli_saddr.addr()));
}

/// How far a module lies from where its file says: nowhere, for a program that is not position-independent.
pub(crate) fn bias(module: &libc::Dl_info) -> usize {
    /// `e_type` in the header of an ELF file, and its value for such a program.
    const TYPE_OFFSET: usize = 16;
    const FIXED: u16 = 2;
    // SAFETY: the loader maps a module's first page, which begins with the header, and keeps it readable.
    let kind = unsafe { module.dli_fbase.cast::<u8>().wrapping_add(TYPE_OFFSET).cast::<u16>().read_unaligned() };
    if kind == FIXED { 0 } else { module.dli_fbase.addr() }
}

pub(crate) fn module_of(address: usize) -> Option<libc::Dl_info> {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    let address = core::ptr::without_provenance::<c_void>(address);
    // SAFETY: any address may be asked for; fills the structure where it finds a module.
    let found = unsafe { libc::dladdr(address, info.as_mut_ptr()) };
    // SAFETY: all zero is a value of it.
    (found != 0).then(|| unsafe { info.assume_init() })
}
