//! Policy files: the one that the process starts with, and the one that it leaves behind. `docs/policy-file.md` is the format.
//!
//! **Not here.** The format (`hakmem_policy::file`).
//! **Invariants.** Reading allocates nothing: it happens inside the first `malloc`. A file that cannot be read, or of which one
//! line is wrong, is reported in one line and changes nothing.

use core::ffi::{CStr, c_int};
use core::fmt::{self, Write as _};
use core::ptr::NonNull;
use hakmem_base::keeping_errno;
use hakmem_learner::SiteHint;
use hakmem_policy::file::{Knobs, POLICY_FILE_BYTES, parse_policy_file, write_policy};
use hakmem_policy::{FrozenPolicy, SITE_CALLS, SITE_RULES, SiteCall, SiteRule, write_site};

use crate::files::{close, write_named};
use crate::global::complain;
use crate::learning::Learned;
use crate::modules::Module;
use crate::report;
use crate::sites;
use crate::stacks;
use crate::watcher;
use crate::writer::FdWriter;

/// Room for the largest file and one byte more, which tells that a file is larger.
const BUFFER_BYTES: usize = POLICY_FILE_BYTES + 1;
/// Longest path that is read from, its end mark included.
const PATH_BYTES: usize = 1024;

/// The policy that the file at `path` makes of `base`, if it is one.
pub(crate) fn read(path: &[u8], base: &FrozenPolicy) -> Option<FrozenPolicy> {
    keeping_errno(|| {
        let buffer = Buffer::map();
        let text = buffer.as_ref().and_then(|buffer| buffer.fill(path));
        let Some(text) = text else {
            complain(|line| {
                line.write_str("HAKMEM_POLICY: cannot read ")?;
                hakmem_policy::write_quoted(line, path)
            });
            return None;
        };
        let mut rules = 0;
        match parse_policy_file(text, base, &mut |_| rules += 1) {
            Ok(policy) => {
                let len = text.len();
                if rules > 0
                    && let Some(buffer) = buffer
                {
                    sites::install(buffer.keep(len), rules);
                }
                Some(policy)
            }
            Err(error) => {
                complain(|line| error.write_line(path, line));
                None
            }
        }
    })
}

/// Memory of its own for the file's text: the stack may be the smallest there is.
struct Buffer(NonNull<u8>);

impl Buffer {
    fn map() -> Option<Self> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh mapping, wherever the kernel has room.
        let start = unsafe { libc::mmap(core::ptr::null_mut(), BUFFER_BYTES, access, kind, -1, 0) };
        (start != libc::MAP_FAILED).then(|| NonNull::new(start.cast()).map(Self))?
    }

    /// Reads the file; what is longer than the buffer stays away.
    fn fill(&self, path: &[u8]) -> Option<&[u8]> {
        let mut name = [0_u8; PATH_BYTES];
        name.get_mut(..path.len()).filter(|_| path.len() < PATH_BYTES)?.copy_from_slice(path);
        let name = CStr::from_bytes_until_nul(&name).ok()?;
        // A pipe is opened, and refused, without waiting for who might write to it.
        let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: the name ends with a zero byte.
        let fd = unsafe { libc::open(name.as_ptr(), flags) };
        if fd < 0 {
            return None;
        }
        let len = if is_file(fd) { self.fill_from(fd) } else { None };
        close(fd);
        // SAFETY: the kernel has written so many bytes of the mapping, which lives as long as the buffer.
        len.map(|len| unsafe { core::slice::from_raw_parts(self.0.as_ptr(), len) })
    }

    /// The first `len` bytes, which have been read, for as long as the process lives: site rules name modules by it.
    fn keep(self, len: usize) -> &'static [u8] {
        let buffer = core::mem::ManuallyDrop::new(self);
        // SAFETY: the kernel has written so many bytes of the mapping, which nobody unmaps any more.
        unsafe { core::slice::from_raw_parts(buffer.0.as_ptr(), len) }
    }

    fn fill_from(&self, fd: c_int) -> Option<usize> {
        let mut len = 0;
        while len < BUFFER_BYTES {
            let end = self.0.as_ptr().wrapping_add(len);
            // SAFETY: what is left of the mapping is as long as is said.
            let read = unsafe { libc::read(fd, end.cast(), BUFFER_BYTES - len) };
            match usize::try_from(read).ok()? {
                0 => break,
                more => len += more,
            }
        }
        Some(len)
    }
}

fn is_file(fd: c_int) -> bool {
    // SAFETY: all zero is a valid structure to be filled.
    let mut found = unsafe { core::mem::zeroed::<libc::stat>() };
    // SAFETY: fills the structure, for an open descriptor.
    let is_known = unsafe { libc::fstat(fd, &raw mut found) } == 0;
    is_known && found.st_mode & libc::S_IFMT == libc::S_IFREG
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and no slice of it outlives the buffer.
        unsafe { libc::munmap(self.0.as_ptr().cast(), BUFFER_BYTES) };
    }
}

/// Writes down what was learned: the whole policy, where it comes from, and the evidence for each knob. `path` may have `%p` for
/// the process id.
pub(crate) fn write(path: &[u8], policy: &FrozenPolicy, learned: Option<&Learned>) {
    write_named("HAKMEM_POLICY_OUT", path, |out| {
        let _infallible = write_text(out, policy, learned);
    });
}

fn write_text(out: &mut FdWriter, policy: &FrozenPolicy, learned: Option<&Learned>) -> fmt::Result {
    write_policy(policy, Knobs::All, out)?;
    out.text("\n[source]\ntool = \"hakmem, HAKMEM_MODE=LEARN\"\ncommand = \"");
    report::write_program_name(out);
    out.text("\"\nhost = \"");
    report::write_host_name(out);
    out.text("\"\nruns = 1\n");
    if let Some(learned) = learned {
        write_evidence(out, learned)?;
    }
    write_sites(out, policy)
}

fn write_evidence(out: &mut FdWriter, learned: &Learned) -> fmt::Result {
    let Learned { phase, windows, published, .. } = learned;
    writeln!(out, "windows = {windows}\npublished = {published}\nphase = \"{phase:?}\"")?;
    for found in &learned.evidence {
        writeln!(out, "\n[evidence.{}]\nbefore = \"{}\"\nnow = \"{}\"", found.knob.field(), found.before, found.now)?;
        writeln!(out, "trials = {}", found.trials)?;
        if found.with > 0.0 {
            writeln!(out, "score_with = {:.6}\nscore_without = {:.6}", found.with, found.without)?;
        }
        writeln!(out, "reason = \"{}\"", found.reason)?;
    }
    Ok(())
}

/// The site rules: those that were learned, and of those that the process began with the ones about other calls.
fn write_sites(out: &mut FdWriter, policy: &FrozenPolicy) -> fmt::Result {
    let (mut count, mut replaced, mut result) = (0, 0_u64, Ok(()));
    watcher::for_each_hint(policy.purge_delay_ms, &mut |hint| {
        let mut written = |rule: &SiteRule<'_>| {
            for (number, former) in sites::rules().iter().enumerate() {
                replaced |= u64::from(former.calls() == rule.calls()) << number;
            }
            count += 1;
            write_site(rule, out)?;
            if out.written() < POLICY_FILE_BYTES / 2 { write_site_evidence(out, hint) } else { Ok(()) }
        };
        if result.is_ok() {
            result = with_rule(hint, &mut written);
        }
    });
    result?;
    for (number, former) in sites::rules().iter().enumerate() {
        if replaced & (1 << number) == 0 && count < SITE_RULES {
            count += 1;
            write_site(former, out)?;
        }
    }
    Ok(())
}

/// Passes on what a hint comes to, unless one of its calls has no name: its module is gone, or called what a file cannot say.
fn with_rule(hint: &SiteHint, write: &mut dyn FnMut(&SiteRule<'_>) -> fmt::Result) -> fmt::Result {
    let mut modules = [None; SITE_CALLS];
    let depth = hint.depth.min(SITE_CALLS);
    for (module, frame) in modules.iter_mut().zip(&hint.frames).take(depth) {
        // The call stands before the address that it returns to.
        *module = Module::of(frame.wrapping_sub(1));
    }
    let mut calls = [SiteCall::default(); SITE_CALLS];
    for ((call, module), frame) in calls.iter_mut().zip(&modules).zip(&hint.frames).take(depth) {
        let Some(module) = module else { return Ok(()) };
        *call = SiteCall { module: module.name(), offset: frame.wrapping_sub(1).wrapping_sub(module.bias) as u64 };
    }
    let Some(mut rule) = calls.get(..depth).and_then(SiteRule::new) else { return Ok(()) };
    [rule.least_bytes, rule.most_bytes] = hint.bytes;
    (rule.pages, rule.keep_ms) = (hint.pages, hint.keep_ms);
    write(&rule)
}

/// Why, for people and tools. As long as the file is short: one that is too long would not be read at all.
fn write_site_evidence(out: &mut FdWriter, hint: &SiteHint) -> fmt::Result {
    out.text("\n[site.evidence]\nsymbols = \"");
    for (number, frame) in hint.frames.iter().take(hint.depth).enumerate() {
        out.text(if number == 0 { "" } else { " " });
        stacks::write_symbol(out, frame.wrapping_sub(1));
    }
    let mib = hint.allocated_bytes / (1 << 20) as f64;
    writeln!(out, "\"\nblocks = {:.0}\nmib = {mib:.1}\nseen = {}\nlooks = {}", hint.blocks, hint.seen, hint.looks)?;
    if let Some(touched) = hint.touched_permille {
        writeln!(out, "touched_permille = {touched:.0}")?;
    }
    writeln!(out, "returns = {}", hint.returns)?;
    if let Some(idle_ns) = hint.idle_ns {
        writeln!(out, "idle_ms = {:.1}", idle_ns / 1e6)?;
    }
    Ok(())
}
