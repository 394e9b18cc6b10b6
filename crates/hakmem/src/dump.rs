//! Heap dumps: what the heaps and the window hold, as JSON and as a DOT graph. Safe to call in a signal handler: reads counters and
//! route words only.

use core::ffi::c_int;
use hakmem_atomic_ops::Shared32;
use hakmem_base::{BIN_COUNT, SLAB_BYTES, SizeClass};
use hakmem_mid_pool::{LARGE_CLASS_COUNT, large_class, most_units};
use hakmem_ownership::Route;
use hakmem_tiny_front::RingEvent;

use crate::files::{PathBuffer, close, complain_of, process};
use crate::global::GLOBAL;
use crate::report;
use crate::watcher;
use crate::writer::FdWriter;

/// Dumps so far, which number their files.
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
    let number = DUMPS.add_relaxed(1) + 1;
    let folder = GLOBAL.boot().dump_dir.as_bytes().unwrap_or(b".");
    let create = |suffix: &[u8]| {
        let mut name = PathBuffer::of(folder);
        name.text(b"/hakmem-").number(process()).text(b"-").number(number).text(suffix);
        name.create()
    };
    let Some(fd) = create(b".json") else { return complain_of("HAKMEM_DUMP_DIR", folder) };
    dump_json(fd);
    close(fd);
    if let Some(fd) = create(b".dot") {
        dump_dot(fd);
        close(fd);
    }
}
