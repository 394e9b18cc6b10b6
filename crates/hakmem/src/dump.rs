//! Heap dumps: what the heaps hold, as JSON and as a DOT graph. Safe to call in a signal handler: reads counters only.

use core::ffi::{c_char, c_int};
use core::fmt::Write as _;
use hakmem_atomic_ops::Shared32;
use hakmem_tiny_front::RingEvent;

use crate::global::{ComplaintLine, GLOBAL};
use crate::report;
use crate::writer::FdWriter;

/// Longest path (bytes) of a dump file.
const PATH_BYTES: usize = 640;

static DUMPS: Shared32 = Shared32::new(0);

/// Writes a heap dump as JSON to the file descriptor `fd`: statistics, every heap's classes in use, the tiny ring.
pub fn dump_json(fd: c_int) {
    let mut out = FdWriter::new(fd);
    out.text("{\"stats\":");
    report::write_json(&mut out, &report::stats_in_handler());
    out.text(",\"heaps\":[");
    for (number, record) in GLOBAL.records().enumerate() {
        out.text(if number == 0 { "" } else { "," }).text("{\"heap\":").number(number as u64).text(",\"classes\":[");
        let mut separator = "";
        for class in record.heap.used_classes() {
            let counts = record.heap.bin(class).counts();
            if counts.delivered == 0 && counts.allocs == 0 {
                continue;
            }
            out.text(separator).text("{\"block_bytes\":").number(class.block_bytes() as u64);
            out.text(",\"delivered\":").number(u64::from(counts.delivered));
            out.text(",\"cached\":").number(u64::from(counts.cached));
            out.text(",\"allocs\":").number(counts.allocs).text("}");
            separator = ",";
        }
        out.text("]}");
    }
    out.text("],\"ring\":[");
    let mut separator = "";
    GLOBAL.front.ring.for_each(|event, slab, count| {
        out.text(separator).text("{\"event\":\"").text(RingEvent::name(event)).text("\",\"slab\":");
        out.number(u64::from(slab.get())).text(",\"blocks\":").number(u64::from(count)).text("}");
        separator = ",";
    });
    out.text("]}\n");
}

/// Writes a heap dump as a DOT graph to the file descriptor `fd`: heaps, their classes, and the superslab tiers.
pub fn dump_dot(fd: c_int) {
    let stats = report::stats_in_handler();
    let mut out = FdWriter::new(fd);
    out.text("digraph hakmem {\n  rankdir=LR;\n  node [shape=box];\n");
    out.text("  window [label=\"window\\nhot ").number(stats.hot_superslabs);
    out.text(" draining ").number(stats.draining_superslabs);
    out.text(" free ").number(stats.free_superslabs);
    out.text(" big ").number(stats.extent_superslabs).text("\"];\n");
    for (number, record) in GLOBAL.records().enumerate() {
        let number = number as u64;
        out.text("  heap").number(number).text(" [label=\"heap ").number(number).text("\"];\n");
        for class in record.heap.used_classes() {
            let counts = record.heap.bin(class).counts();
            if counts.delivered == 0 {
                continue;
            }
            out.text("  heap").number(number).text(" -> h").number(number).text("c").number(class.index() as u64);
            out.text(";\n  h").number(number).text("c").number(class.index() as u64).text(" [label=\"");
            out.number(class.block_bytes() as u64).text(" B\\n").number(u64::from(counts.delivered));
            out.text(" out, ").number(u64::from(counts.cached)).text(" cached\"];\n");
            out.text("  h").number(number).text("c").number(class.index() as u64).text(" -> window;\n");
        }
    }
    out.text("}\n");
}

/// Dumps both forms into the folder that `HAKMEM_DUMP_DIR` names, or the current one. Async-signal-safe.
pub(crate) fn to_files() {
    DUMPS.add_relaxed(1);
    let folder = GLOBAL.boot().dump_dir.as_bytes().unwrap_or(b".");
    let mut path = [0_u8; PATH_BYTES];
    let name = b"/hakmem-%p-";
    let (Some(start), Some(middle)) = (path.get_mut(..folder.len()), Some(folder.len())) else { return };
    start.copy_from_slice(folder);
    let Some(rest) = path.get_mut(middle..middle + name.len()) else { return };
    rest.copy_from_slice(name);
    let Some(path) = path.get(..folder.len() + name.len()) else { return };
    let Some(fd) = create(path, "json") else {
        complain_of("HAKMEM_DUMP_DIR", folder);
        return;
    };
    dump_json(fd);
    close(fd);
    if let Some(fd) = create(path, "dot") {
        dump_dot(fd);
        close(fd);
    }
}

/// Creates a file. `%p` in the path stands for the process id; a `suffix` follows behind the number of the dump.
pub(crate) fn create(path: &[u8], suffix: &str) -> Option<c_int> {
    let mut name = PathBuffer::of(path);
    if !suffix.is_empty() {
        name.number(DUMPS.load_relaxed());
        name.text(b".").text(suffix.as_bytes());
    }
    name.create()
}

/// Writes the file that a variable of the environment names; complains if it cannot.
pub(crate) fn write_named(variable: &str, path: &[u8], write: impl FnOnce(&mut FdWriter)) {
    if !write_whole(path, write) {
        complain_of(variable, path);
    }
}

fn complain_of(variable: &str, path: &[u8]) {
    let mut line = ComplaintLine::new();
    // A line that is full is cut: nothing to do about an error.
    let _cut = line
        .write_str(variable)
        .and_then(|()| line.write_str(": cannot write "))
        .and_then(|()| hakmem_policy::write_quoted(&mut line, path));
    line.end();
}

/// Writes a file as a whole or not at all: under another name first, which then becomes `path`'s. Whoever reads meanwhile, or writes the
/// same file, finds a whole one. What is no plain file (a pipe, a terminal, a link) is written as it is. Whether all went well.
fn write_whole(path: &[u8], write: impl FnOnce(&mut FdWriter)) -> bool {
    let name = PathBuffer::of(path);
    let mut beside = PathBuffer::of(path);
    beside.text(b".").number(process()).text(b".tmp");
    let is_plain = name.kind().is_none_or(|kind| kind == libc::S_IFREG);
    // A file may be one's own to write in a folder that is not.
    let aside = if is_plain { beside.create() } else { None };
    let Some(fd) = aside.or_else(|| name.create()) else { return false };
    let mut out = FdWriter::new(fd);
    write(&mut out);
    let is_whole = out.flush();
    close(fd);
    if aside.is_none() {
        return is_whole;
    }
    // SAFETY: both buffers end with a zero byte.
    let is_renamed = is_whole && unsafe { libc::rename(beside.as_ptr(), name.as_ptr()) } == 0;
    if !is_renamed {
        // SAFETY: as above.
        unsafe { libc::unlink(beside.as_ptr()) };
    }
    is_renamed
}

/// Whether there is such a file. `%p` as in [`create`].
pub(crate) fn is_there(path: &[u8]) -> bool {
    PathBuffer::of(path).kind().is_some()
}

pub(crate) fn close(fd: c_int) {
    // SAFETY: the descriptor came from `create`.
    unsafe { libc::close(fd) };
}

fn process() -> u32 {
    // SAFETY: takes no argument.
    unsafe { libc::getpid() }.cast_unsigned()
}

/// A path for the kernel. One that is too long is as long as the buffer, and names nothing.
struct PathBuffer {
    bytes: [u8; PATH_BYTES],
    len: usize,
}

impl PathBuffer {
    /// With the process id for `%p`.
    fn of(path: &[u8]) -> Self {
        let mut name = Self { bytes: [0; PATH_BYTES], len: 0 };
        let mut rest = path;
        while let Some((&byte, behind)) = rest.split_first() {
            if byte == b'%' && behind.first() == Some(&b'p') {
                name.number(process());
                rest = behind.get(1..).unwrap_or(&[]);
            } else {
                name.push(byte);
                rest = behind;
            }
        }
        name
    }

    fn as_ptr(&self) -> *const c_char {
        self.bytes.as_ptr().cast()
    }

    fn create(&self) -> Option<c_int> {
        if self.len >= PATH_BYTES - 1 {
            return None;
        }
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
        // SAFETY: the buffer is longer than the name, so it ends with a zero byte.
        let fd = unsafe { libc::open(self.as_ptr(), flags, 0o644) };
        (fd >= 0).then_some(fd)
    }

    /// Which kind of file it names; none if there is none.
    fn kind(&self) -> Option<libc::mode_t> {
        // SAFETY: all zero is a valid structure to be filled.
        let mut found = unsafe { core::mem::zeroed::<libc::stat>() };
        // SAFETY: the name ends with a zero byte; the structure is filled if there is such a file.
        let is_there = unsafe { libc::lstat(self.as_ptr(), &raw mut found) } == 0;
        is_there.then_some(found.st_mode & libc::S_IFMT)
    }

    fn text(&mut self, text: &[u8]) -> &mut Self {
        text.iter().for_each(|&byte| self.push(byte));
        self
    }

    fn push(&mut self, byte: u8) {
        // The last byte stays zero: it ends the text.
        if self.len < PATH_BYTES - 1
            && let Some(slot) = self.bytes.get_mut(self.len)
        {
            *slot = byte;
            self.len += 1;
        }
    }

    fn number(&mut self, value: u32) -> &mut Self {
        let mut divisor = 1;
        while value / divisor >= 10 {
            divisor *= 10;
        }
        while divisor > 0 {
            self.push(b'0' + ((value / divisor) % 10) as u8);
            divisor /= 10;
        }
        self
    }
}
