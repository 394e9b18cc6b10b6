//! Mistakes of a Rust program, made through `GlobalAlloc` with a layout: one child process per mistake and size of block, and
//! what comes of each at present.
//!
//! The sized free of the facade trusts its layout and looks less than `free` does, so its table is not that of C
//! (`cargo xtask misuse`). A row is what is expected *now*, not what is wanted: when an outcome gets better, the test fails until
//! the row says so. Every row runs without its mistake, too, and must then end well.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may stop")]

use std::alloc::{GlobalAlloc as _, Layout, System, alloc, dealloc, realloc};
use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::ptr;
use std::thread;

use End::{AtOnce, NotAtOnce, Stopped, Unseen};
use hakmem_atomic_ops::Flag;
use hakmem_testkit::{Child, Ended};

#[global_allocator]
static GLOBAL: hakmem::Hakmem = hakmem::Hakmem;

/// One block of each is served by another part: two classes of slabs, a run, an extent.
const SIZES: [usize; 4] = [960, 8 << 10, 128 << 10, 4 << 20];

/// How a mistake ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// With a report, before the thread that made the mistake ends.
    AtOnce,
    /// With a report or a fault: the small free looks the route of an address up without asking whether it is in the window.
    Stopped,
    /// Later, or never: the thread's end, which gives back what it cached, sees some of these.
    NotAtOnce,
    /// Never, and no harm is done.
    Unseen,
}

/// What was seen of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    Report,
    LateReport,
    Fault,
    Nothing,
}

impl Seen {
    /// What a child came to; what no row may expect is an error.
    fn of(ended: &Ended) -> Result<Self, String> {
        let Some(status) = ended.status else { return Err("hangs".to_owned()) };
        let reached = ended.stderr.contains(REACHED.trim_end());
        match (status.code(), status.signal(), ended.lines_of("hakmem: ").len()) {
            (Some(0), _, 0) if reached => Ok(Self::Nothing),
            (_, Some(libc::SIGABRT), 1) => Ok(if reached { Self::LateReport } else { Self::Report }),
            (_, Some(libc::SIGSEGV), 0) if !reached => Ok(Self::Fault),
            _ => Err(format!("{status}: {}", ended.stderr)),
        }
    }
}

impl End {
    fn allows(self, seen: Seen) -> bool {
        match self {
            AtOnce => seen == Seen::Report,
            Stopped => matches!(seen, Seen::Report | Seen::Fault),
            NotAtOnce => matches!(seen, Seen::LateReport | Seen::Nothing),
            Unseen => seen == Seen::Nothing,
        }
    }
}

/// What comes of a free of a small block that the feature `checked` looks at.
const IF_CHECKED: End = if cfg!(feature = "checked") { AtOnce } else { NotAtOnce };

/// Written when the mistake is behind the thread.
const REACHED: &str = "the mistake was made\n";

/// A mistake, and what comes of it for each of [`SIZES`]. The function makes the mistake only if it is told to.
struct Row {
    name: &'static str,
    run: fn(Layout, bool),
    ends: [End; 4],
}

const fn row(name: &'static str, run: fn(Layout, bool), ends: [End; 4]) -> Row {
    Row { name, run, ends }
}

/// In the test: runs every row. In a child of it: makes one mistake.
#[track_caller]
fn check(test: &str, rows: &[Row]) {
    if let Some(role) = Child::role() {
        return make(&role, rows);
    }
    let mut wrong = String::new();
    for row in rows {
        for (bytes, expected) in SIZES.into_iter().zip(row.ends) {
            let run = |kind: &str| Child::of_test(test, &format!("{} {bytes} {kind}", row.name)).run();
            let seen = Seen::of(&run("mistake"));
            if !matches!(seen, Ok(seen) if expected.allows(seen)) {
                writeln!(wrong, "{} of {bytes} bytes: expected {expected:?}, found {seen:?}", row.name).unwrap();
            }
            let control = Seen::of(&run("control"));
            if control != Ok(Seen::Nothing) {
                writeln!(wrong, "{} of {bytes} bytes without the mistake: {control:?}", row.name).unwrap();
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "\n{wrong}(a row says what is expected at present: where the outcome is better, change the row)"
    );
}

/// Runs the row of that role in a thread that ends afterwards, and then ends the process.
fn make(role: &str, rows: &[Row]) {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid limit.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
    let words: Vec<&str> = role.split(' ').collect();
    let [name, bytes, kind] = words[..] else { panic!("{role}?") };
    let row = rows.iter().find(|row| row.name == name).unwrap();
    let layout = Layout::from_size_align(bytes.parse().unwrap(), 16).unwrap();
    let (run, mistake) = (row.run, kind == "mistake");
    thread::spawn(move || {
        run(layout, mistake);
        std::io::stderr().write_all(REACHED.as_bytes()).unwrap();
    })
    .join()
    .unwrap();
}

/// A block between neighbours that stay in use.
fn fresh(layout: Layout) -> *mut u8 {
    for _ in 0..3 {
        block(layout);
    }
    let block_between = block(layout);
    block(layout);
    block_between
}

fn block(layout: Layout) -> *mut u8 {
    // SAFETY: no size here is zero.
    let block = unsafe { alloc(layout) };
    assert!(!block.is_null());
    // SAFETY: the first byte of a block that is ours.
    unsafe { block.write(1) };
    black_box(block)
}

fn free(block: *mut u8, layout: Layout) {
    // SAFETY: none: where it is the mistake, the allocator must stop it.
    unsafe { dealloc(black_box(block), layout) };
}

/// A pointer that may go to another thread.
#[derive(Clone, Copy)]
struct Sent(*mut u8);
// SAFETY: an address; who uses it is what these tests are about.
unsafe impl Send for Sent {}

fn free_in_thread(block: *mut u8, layout: Layout) {
    let block = Sent(block);
    thread::spawn(move || free({ block }.0, layout)).join().unwrap();
}

fn half(layout: Layout) -> Layout {
    Layout::from_size_align(layout.size() / 2, layout.align()).unwrap()
}

fn double(layout: Layout) -> Layout {
    Layout::from_size_align(layout.size() * 2, layout.align()).unwrap()
}

// ---- freed twice ----

fn twice(layout: Layout, mistake: bool) {
    let block = fresh(layout);
    free(block, layout);
    if mistake {
        free(block, layout);
    }
}

fn twice_around_another_size(layout: Layout, mistake: bool) {
    let (block, other) = (fresh(layout), fresh(half(layout)));
    free(block, layout);
    free(other, half(layout));
    if mistake {
        free(block, layout);
    }
}

fn interleaved(layout: Layout, mistake: bool) {
    let (a, b) = (fresh(layout), fresh(layout));
    free(a, layout);
    free(b, layout);
    if mistake {
        free(a, layout);
    }
}

/// The stranger is there before: its start is many an allocation, and one of these may get what was freed.
fn owner_then_stranger(layout: Layout, mistake: bool) {
    let (block, is_freed) = (Sent(fresh(layout)), Flag::new(false));
    thread::scope(|scope| {
        let is_freed = &is_freed;
        scope.spawn(move || {
            // ORDERING: pairs with the store below.
            while !is_freed.is_set_acquire() {
                thread::yield_now();
            }
            if mistake {
                free({ block }.0, layout);
            }
        });
        free(block.0, layout);
        // ORDERING: pairs with the load above.
        is_freed.store_release(true);
    });
}

fn stranger_then_owner(layout: Layout, mistake: bool) {
    let block = fresh(layout);
    free_in_thread(block, layout);
    if mistake {
        free(block, layout);
    }
}

fn two_strangers(layout: Layout, mistake: bool) {
    let block = fresh(layout);
    free_in_thread(block, layout);
    if mistake {
        free_in_thread(block, layout);
    }
}

fn after_collect(layout: Layout, mistake: bool) {
    let (a, b) = (fresh(layout), fresh(layout));
    free(a, layout);
    free(b, layout);
    hakmem::collect();
    if mistake {
        free(a, layout);
    }
}

fn moved_by_realloc(layout: Layout, mistake: bool) {
    let old = fresh(layout);
    let (mut block, mut layout_now) = (old, layout);
    while block == old {
        // SAFETY: the block is live and has this layout; the new size is not zero and does not overflow.
        block = unsafe { realloc(block, layout_now, layout_now.size() * 2) };
        layout_now = double(layout_now);
        assert!(!block.is_null());
    }
    free(block, layout_now);
    if mistake {
        free(old, layout);
    }
}

fn vector_dropped_twice(layout: Layout, mistake: bool) {
    let vector: Vec<u8> = Vec::with_capacity(layout.size());
    let other: Vec<u8> = Vec::with_capacity(layout.size());
    // SAFETY: none: two owners of one buffer.
    let copy = unsafe { ptr::read(&raw const vector) };
    drop(black_box(vector));
    drop(black_box(other));
    if mistake { drop(black_box(copy)) } else { std::mem::forget(copy) }
}

#[test]
fn a_double_free_ends_as_the_table_says() {
    let rows = [
        row("twice", twice, [IF_CHECKED, IF_CHECKED, AtOnce, AtOnce]),
        row("around-another-size", twice_around_another_size, [IF_CHECKED, IF_CHECKED, AtOnce, AtOnce]),
        row("interleaved", interleaved, [IF_CHECKED, IF_CHECKED, AtOnce, AtOnce]),
        row("owner-then-stranger", owner_then_stranger, [IF_CHECKED, IF_CHECKED, AtOnce, AtOnce]),
        row("stranger-then-owner", stranger_then_owner, [IF_CHECKED, IF_CHECKED, AtOnce, AtOnce]),
        row("two-strangers", two_strangers, [IF_CHECKED, IF_CHECKED, AtOnce, AtOnce]),
        row("after-collect", after_collect, [IF_CHECKED, IF_CHECKED, AtOnce, AtOnce]),
        row("moved-by-realloc", moved_by_realloc, [IF_CHECKED, IF_CHECKED, AtOnce, AtOnce]),
        row("vector-dropped-twice", vector_dropped_twice, [IF_CHECKED, IF_CHECKED, AtOnce, AtOnce]),
    ];
    check("a_double_free_ends_as_the_table_says", &rows);
}

// ---- into a block ----

fn free_at(offset: usize, layout: Layout, mistake: bool) {
    let block = fresh(layout);
    free(block.wrapping_add(if mistake { offset } else { 0 }), layout);
}

#[test]
fn a_free_of_an_interior_pointer_ends_as_the_table_says() {
    let rows = [
        row("by-1", |layout, mistake| free_at(1, layout, mistake), [IF_CHECKED, IF_CHECKED, AtOnce, AtOnce]),
        row("by-8", |layout, mistake| free_at(8, layout, mistake), [IF_CHECKED, IF_CHECKED, AtOnce, AtOnce]),
        row("by-16", |layout, mistake| free_at(16, layout, mistake), [IF_CHECKED, IF_CHECKED, AtOnce, AtOnce]),
        row(
            "by-half",
            |layout, mistake| free_at(layout.size() / 2, layout, mistake),
            [IF_CHECKED, IF_CHECKED, AtOnce, AtOnce],
        ),
        row("by-a-stranger", by_a_stranger, [AtOnce, AtOnce, AtOnce, AtOnce]),
    ];
    check("a_free_of_an_interior_pointer_ends_as_the_table_says", &rows);
}

fn by_a_stranger(layout: Layout, mistake: bool) {
    let block = fresh(layout);
    free_in_thread(block.wrapping_add(if mistake { 16 } else { 0 }), layout);
}

// ---- with another layout ----

fn free_as(wrong: Layout, layout: Layout, mistake: bool) {
    free(fresh(layout), if mistake { wrong } else { layout });
}

#[test]
fn a_free_with_a_wrong_layout_ends_as_the_table_says() {
    let rows = [
        row("half", |layout, mistake| free_as(half(layout), layout, mistake), [Unseen; 4]),
        row("double", |layout, mistake| free_as(double(layout), layout, mistake), [Unseen; 4]),
        row("alignment", |layout, mistake| free_as(layout.align_to(1 << 20).unwrap(), layout, mistake), [Unseen; 4]),
        row("tiny", |layout, mistake| free_as(Layout::new::<u64>(), layout, mistake), [Unseen; 4]),
        row("huge", |layout, mistake| free_as(Layout::new::<[u8; 1 << 24]>(), layout, mistake), [Unseen; 4]),
    ];
    check("a_free_with_a_wrong_layout_ends_as_the_table_says", &rows);
}

// ---- not hakmem's ----

fn free_stranger(stranger: *mut u8, layout: Layout, mistake: bool) {
    let block = fresh(layout);
    free(if mistake { stranger } else { block }, layout);
}

fn of_the_system_allocator(layout: Layout, mistake: bool) {
    // SAFETY: no size here is zero.
    free_stranger(unsafe { System.alloc(layout) }, layout, mistake);
}

fn on_the_stack(layout: Layout, mistake: bool) {
    let mut local = [0_u64; 16];
    free_stranger(ptr::from_mut(&mut local).cast(), layout, mistake);
}

fn in_a_static(layout: Layout, mistake: bool) {
    static WORDS: [u64; 16] = [0; 16];
    free_stranger(ptr::from_ref(&WORDS).cast_mut().cast(), layout, mistake);
}

#[test]
fn a_free_of_a_foreign_pointer_ends_as_the_table_says() {
    let rows = [
        row("system", of_the_system_allocator, [Stopped, Stopped, AtOnce, AtOnce]),
        row("stack", on_the_stack, [Stopped, Stopped, AtOnce, AtOnce]),
        row("static", in_a_static, [Stopped, Stopped, AtOnce, AtOnce]),
        row("small-integer", small_integer, [Stopped, Stopped, AtOnce, AtOnce]),
        row("far", far, [Stopped, Stopped, AtOnce, AtOnce]),
        row("unused-heap", unused_heap, [AtOnce; 4]),
    ];
    check("a_free_of_a_foreign_pointer_ends_as_the_table_says", &rows);
}

fn small_integer(layout: Layout, mistake: bool) {
    free_stranger(ptr::without_provenance_mut(16), layout, mistake);
}

fn far(layout: Layout, mistake: bool) {
    free_stranger(ptr::without_provenance_mut(0x1000_0000_0000), layout, mistake);
}

fn unused_heap(layout: Layout, mistake: bool) {
    free_stranger(fresh(layout).wrapping_add(1 << 30), layout, mistake);
}
