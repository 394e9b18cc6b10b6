//! Heap dumps: what the heaps and the window hold, as JSON and as a DOT graph. Safe to call in a signal handler: reads counters and
//! route words only.

use core::ffi::{c_char, c_int};
use hakmem_atomic_ops::Shared32;
use hakmem_base::{BIN_COUNT, SLAB_BYTES, SizeClass};
use hakmem_mid_pool::{LARGE_CLASS_COUNT, large_class, most_units};
use hakmem_ownership::Route;
use hakmem_tiny_front::RingEvent;

use crate::global::GLOBAL;
use crate::report;
use crate::stderr;
use crate::watcher;
use crate::writer::FdWriter;

/// Longest path (bytes) of a dump file.
const PATH_BYTES: usize = 640;

static DUMPS: Shared32 = Shared32::new(0);

/// Blocks in use, and their bytes.
#[derive(Clone, Copy, Default)]
struct Held {
    blocks: u64,
    bytes: u64,
}

/// What the window holds beside the heaps' own slabs.
struct Holdings {
    /// Units of slabs without an owner, by size class.
    orphan_units: [u64; BIN_COUNT],
    /// Runs in use, by large class.
    runs: [Held; LARGE_CLASS_COUNT],
    big: Held,
    hardened_units: u64,
    sampled_units: u64,
    watched_units: u64,
}

impl Holdings {
    /// `each_big` is called with the address and the bytes of every big block.
    fn take(mut each_big: impl FnMut(usize, usize)) -> Self {
        let mut held = Self {
            orphan_units: [0; BIN_COUNT],
            runs: [Held::default(); LARGE_CLASS_COUNT],
            big: Held::default(),
            hardened_units: 0,
            sampled_units: 0,
            watched_units: 0,
        };
        let Some(tables) = GLOBAL.front.tables() else { return held };
        watcher::for_each_route(tables, |unit, route| match route {
            Route::Unused | Route::Owned(_) => {}
            Route::Orphan(class) => {
                held.orphan_units.get_mut(class.index()).into_iter().for_each(|units| *units += 1);
            }
            Route::Run { units, bytes } => {
                held.runs.get_mut(large_class(units)).into_iter().for_each(|runs| runs.add(bytes));
            }
            Route::Big { bytes, .. } => {
                held.big.add(bytes);
                each_big(GLOBAL.front.os.address_of(unit).addr(), bytes);
            }
            Route::Hardened(_) => held.hardened_units += 1,
            Route::Sampled(_) => held.sampled_units += 1,
            Route::Watched(_) => held.watched_units += 1,
        });
        held
    }

    /// Slabs without an owner of the classes that have any: bytes of a block, slabs.
    fn orphans(&self) -> impl Iterator<Item = (u64, u64)> {
        let slabs = |class: SizeClass| {
            self.orphan_units.get(class.index()).map(|units| units / u64::from(class.geometry().units))
        };
        SizeClass::all()
            .chain(SizeClass::all_dynamic())
            .filter_map(move |class| Some((class.block_bytes() as u64, slabs(class)?)))
            .filter(|&(_, slabs)| slabs != 0)
    }

    /// Runs of the large classes that have any in use: bytes of the class's largest, and what is held.
    fn runs(&self) -> impl Iterator<Item = (u64, Held)> {
        let most_bytes = |class| u64::from(most_units(class)) * SLAB_BYTES as u64;
        self.runs
            .iter()
            .enumerate()
            .filter(|(_, held)| held.blocks != 0)
            .map(move |(class, &held)| (most_bytes(class), held))
    }
}

impl Held {
    fn add(&mut self, bytes: usize) {
        self.blocks += 1;
        self.bytes += bytes as u64;
    }
}

/// Writes a heap dump as JSON to the file descriptor `fd`: statistics, every heap's classes in use, what else the window holds (slabs
/// without an owner, runs by their size, each big block), the tiny ring. Blocks that the program frees meanwhile may be in it or not.
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
    out.text("],\"big\":[");
    let mut separator = "";
    let held = Holdings::take(|address, bytes| {
        out.text(separator).text("{\"address\":\"").hex(address).text("\",\"bytes\":").number(bytes as u64).text("}");
        separator = ",";
    });
    out.text("],\"runs\":[");
    let mut separator = "";
    for (most_bytes, runs) in held.runs() {
        out.text(separator).text("{\"most_bytes\":").number(most_bytes).text(",\"blocks\":").number(runs.blocks);
        out.text(",\"bytes\":").number(runs.bytes).text("}");
        separator = ",";
    }
    out.text("],\"orphans\":[");
    let mut separator = "";
    for (block_bytes, slabs) in held.orphans() {
        out.text(separator).text("{\"block_bytes\":").number(block_bytes).text(",\"slabs\":").number(slabs).text("}");
        separator = ",";
    }
    out.text("],\"hardened_units\":").number(held.hardened_units);
    out.text(",\"sampled_units\":").number(held.sampled_units);
    out.text(",\"watched_units\":").number(held.watched_units);
    out.text(",\"ring\":[");
    let mut separator = "";
    GLOBAL.front.ring.for_each(|event, slab, count| {
        out.text(separator).text("{\"event\":\"").text(RingEvent::name(event)).text("\",\"slab\":");
        out.number(u64::from(slab.get())).text(",\"blocks\":").number(u64::from(count)).text("}");
        separator = ",";
    });
    out.text("]}\n");
}

/// Writes a heap dump as a DOT graph to the file descriptor `fd`: heaps, their classes, the superslab tiers, runs and big blocks.
pub fn dump_dot(fd: c_int) {
    let stats = report::stats_in_handler();
    let mut out = FdWriter::new(fd);
    out.text("digraph hakmem {\n  rankdir=LR;\n  node [shape=box];\n");
    out.text("  window [label=\"window\\nhot ").number(stats.hot_superslabs);
    out.text(" draining ").number(stats.draining_superslabs);
    out.text(" free ").number(stats.free_superslabs);
    out.text(" big ").number(stats.extent_superslabs).text("\"];\n");
    let held = Holdings::take(|_, _| {});
    for (number, (most_bytes, runs)) in (0..).zip(held.runs()) {
        out.text("  window -> runs").number(number).text(";\n  runs").number(number).text(" [label=\"runs to ");
        out.number(most_bytes >> 10).text(" KiB\\n").number(runs.blocks).text(" in use\"];\n");
    }
    if held.big.blocks != 0 {
        out.text("  window -> big;\n  big [label=\"big blocks\\n").number(held.big.blocks).text(" in use, ");
        out.number(held.big.bytes >> 20).text(" MiB\"];\n");
    }
    for (block_bytes, slabs) in held.orphans() {
        out.text("  window -> orphans").number(block_bytes).text(";\n  orphans").number(block_bytes).text(" [label=\"");
        out.number(block_bytes).text(" B\\n").number(slabs).text(" slabs without owner\"];\n");
    }
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
    let mut out = FdWriter::new(stderr::descriptor());
    out.text("hakmem: ").text(variable).text(": cannot write ");
    let _infallible = hakmem_policy::write_quoted(&mut out, path);
    out.text("\n");
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

pub(crate) fn process() -> u32 {
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
