//! Guarded samples at the gates: a due one handed out, one taken back, and what is wrong with it reported.
//!
//! **Not here.** When a sample is due (the front counts), slots and guards (the box of samples), the report's text.
//! **Invariants.** A thread that is making a sample makes no second one: what the capture of a stack or a signal handler
//! allocates meanwhile goes the ordinary way.

use core::ptr::NonNull;
use hakmem_base::{Door, Request, fatal, keeping_errno};
use hakmem_sampled::{SampledContext, Stamp, Trace, Wanted};

use crate::clock;
use crate::confined::is_confined;
use crate::finding;
use crate::gates::finest_for;
use crate::global::GLOBAL;
use crate::raw::MIN_ALIGN;
use crate::record::HeapRecord;
use crate::segv;
use crate::tls;

fn context() -> Option<SampledContext<'static>> {
    let tables = GLOBAL.front.tables()?;
    Some(SampledContext { os: &GLOBAL.front.os, routes: &tables.routes })
}

/// The sample that is due for `request`; `None` if there is none to be had, and the allocation goes the ordinary way.
#[cold]
#[inline(never)]
pub(crate) fn allocate(record: &HeapRecord, request: Request) -> Option<NonNull<u8>> {
    let floor = 0_u8;
    record.unless_capturing(|| try_allocate(record, request, core::hint::black_box(&raw const floor))).flatten()
}

/// Like [`allocate`], for a block that slabs do not serve, if this one is to be a sample.
pub(crate) fn allocate_large(record: &HeapRecord, request: Request) -> Option<NonNull<u8>> {
    if record.heap.count_large_to_sample() { allocate(record, request) } else { None }
}

fn try_allocate(record: &HeapRecord, request: Request, floor: *const u8) -> Option<NonNull<u8>> {
    let (cx, boot) = (context()?, GLOBAL.boot());
    if !GLOBAL.sampled.reserve(boot.sample_slots) {
        return None;
    }
    segv::install();
    let wanted = Wanted {
        bytes: granted_bytes(request)?,
        align: granted_align(request),
        at_end: record.heap.random() & 1 == 0,
        door: request.door(),
    };
    GLOBAL.sampled.allocate(&cx, wanted, || Stamp::now(thread_id(), Trace::capture(floor)))
}

/// The kernel's id of this thread; 0 where it may not be asked.
pub(crate) fn thread_id() -> u32 {
    if cfg!(miri) || is_confined() {
        return 0;
    }
    // SAFETY: takes no argument and cannot fail.
    unsafe { libc::gettid() }.cast_unsigned()
}

/// What the user of the block may touch: what was asked for. A block that leaves through Rust's door has the size of the smallest class
/// that could serve it, because `realloc` within that leaves it where it is without a look at what it is.
fn granted_bytes(request: Request) -> Option<usize> {
    let bytes = request.bytes()?;
    match finest_for(bytes, request.align()) {
        Some(class) if request.door() == Door::Rust => Some(class.block_bytes()),
        _ => Some(bytes),
    }
}

/// What the address is a multiple of. C's doors promise 16, and name less where the size class gives as much by itself.
fn granted_align(request: Request) -> usize {
    match request.door() {
        Door::Rust => request.align(),
        Door::Malloc | Door::New | Door::NewArray => request.align().max(MIN_ALIGN),
    }
}

/// Takes a block back whose unit's route says "sampled".
#[cold]
#[inline(never)]
pub(crate) fn free(block: NonNull<u8>, note: usize, claim: Request) {
    let floor = 0_u8;
    let Some(cx) = context() else { fatal("a sampled unit without a window") };
    let claim = match granted_bytes(claim) {
        Some(bytes) => Request::new(bytes, claim.align(), claim.door()),
        None => claim,
    };
    let stamp = || Stamp::now(thread_id(), trace(core::hint::black_box(&raw const floor)));
    keeping_errno(|| {
        if let Err(found) = GLOBAL.sampled.free(&cx, note, block.addr().get(), claim, stamp) {
            finding::report(&found, &stamp().trace);
        }
    });
}

/// The calls that led here; none inside the making of a sample, where the unwinder is at work already.
fn trace(floor: *const u8) -> Trace {
    match tls::heap() {
        Some(record) => record.unless_capturing(|| Trace::capture(floor)).unwrap_or(Trace::EMPTY),
        None => Trace::capture(floor),
    }
}

/// Bytes of the block in use at `address`, whose unit's route says "sampled".
#[cold]
#[inline(never)]
pub(crate) fn usable_size(address: usize, note: usize) -> usize {
    let floor = 0_u8;
    match GLOBAL.sampled.usable_bytes(note, address) {
        Ok(bytes) => bytes,
        Err(found) => finding::report(&found, &trace(core::hint::black_box(&raw const floor))),
    }
}

/// Looks at the samples in use for damage that no free has met. At the end of the process.
pub(crate) fn sweep() {
    let floor = 0_u8;
    if let Some(found) = context().and_then(|cx| GLOBAL.sampled.sweep(&cx)) {
        finding::report(&found, &trace(core::hint::black_box(&raw const floor)));
    }
}

/// What makes the random numbers of a heap differ from those of others, of other processes, and of the same process's past.
pub(crate) fn seed(record: &HeapRecord) -> u64 {
    // Low bits of an address say little, and high bits of a time: turned round, the two complement each other.
    core::ptr::from_ref(record).addr() as u64 ^ clock::monotonic_ns().rotate_left(20)
}

/// In a forked child: it does not sample the same allocations as its parent and its siblings.
pub(crate) fn differ_in_child() {
    if let Some(record) = tls::heap() {
        // SAFETY: takes no argument.
        let process = unsafe { libc::getpid() };
        record.heap.stir(seed(record) ^ u64::from(process.cast_unsigned()).rotate_left(33));
    }
}
