//! A trace executed by the real allocator in this process: what the model is judged by.
//!
//! hakmem is called directly; this program's own memory comes from another allocator and is subtracted. Policy comes from the
//! environment, so each policy is a process of its own. Events happen in the trace's order, each on its thread, and not before
//! their time; a block is written once in each OS page when it is handed out, as in the model.

use std::alloc::{GlobalAlloc as _, Layout};
use std::cell::UnsafeCell;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hakmem::Hakmem;
use hakmem_atomic_ops::Shared64;
use hakmem_base::OS_PAGE_BYTES;

use crate::trace::{Event, Trace, What};

static HAKMEM: Hakmem = Hakmem;

/// Alignment of the C library's blocks.
const ALIGN: usize = 16;
/// A program that is ahead of its trace by less than this does not sleep.
const SHORTEST_SLEEP: Duration = Duration::from_micros(200);
/// Time between two readings of the resident memory.
const READING: Duration = Duration::from_millis(5);

/// What a run cost.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Measured {
    /// CPU time in user mode. Of use on a quiet machine only.
    pub user_ns: u64,
    /// CPU time in the kernel. The same holds.
    pub system_ns: u64,
    /// Page faults.
    pub faults: u64,
    /// Resident bytes beyond those at the beginning, averaged over time.
    pub mean_resident_bytes: f64,
    /// The most that they were.
    pub peak_resident_bytes: u64,
}

/// What belongs to the thread whose turn it is.
struct Turn {
    /// The blocks that live, by number.
    blocks: Vec<UnsafeCell<(*mut u8, usize)>>,
    readings: UnsafeCell<Readings>,
}

// SAFETY: one thread at a time executes events: `position` is handed from one to the next with release and acquire.
unsafe impl Sync for Turn {}

struct Run<'t> {
    trace: &'t Trace,
    turn: Turn,
    /// The next event; it belongs to the thread that the event names.
    position: Shared64,
    start: Instant,
}

/// Runs a trace.
///
/// # Errors
/// If the process cannot be measured.
pub fn run(trace: &Trace) -> Result<Measured> {
    let empty = || UnsafeCell::new((null_mut(), 0));
    let blocks = (0..trace.block_count()).map(|_| empty()).collect();
    let before = usage()?;
    let turn = Turn { blocks, readings: UnsafeCell::new(Readings::begin()?) };
    let run = Run { trace, turn, position: Shared64::new(0), start: Instant::now() };
    std::thread::scope(|scope| {
        for thread in 1..trace.thread_count() {
            let run = &run;
            scope.spawn(move || run.play(thread));
        }
        run.play(0);
    });
    let after = usage()?;
    let readings = run.turn.readings.into_inner();
    Ok(Measured {
        user_ns: after.user_ns - before.user_ns,
        system_ns: after.system_ns - before.system_ns,
        faults: after.faults - before.faults,
        mean_resident_bytes: readings.byte_ns / readings.at.as_nanos().max(1) as f64,
        peak_resident_bytes: readings.peak - readings.first,
    })
}

/// Resident memory, by the trace's clock, so that a slow machine weighs as the model does.
struct Readings {
    /// What there was at the beginning; the others count from there.
    first: u64,
    last: u64,
    /// When it was read.
    at: Duration,
    byte_ns: f64,
    peak: u64,
}

impl Readings {
    fn begin() -> Result<Self> {
        let first = resident_bytes()?;
        Ok(Self { first, last: first, at: Duration::ZERO, byte_ns: 0.0, peak: first })
    }

    /// Reads once more; until now it was what it was the last time.
    fn read(&mut self, now: Duration) {
        self.byte_ns += (self.last as f64 - self.first as f64) * (now - self.at).as_nanos() as f64;
        self.at = now;
        self.last = resident_bytes().unwrap_or(self.last);
        self.peak = self.peak.max(self.last);
    }
}

impl Run<'_> {
    /// Executes the events of a thread, each in its turn.
    fn play(&self, thread: u16) {
        let mut due = Duration::ZERO;
        for (number, event) in self.trace.events().iter().enumerate() {
            due += Duration::from_nanos(event.delta_ns.into());
            if event.thread != thread {
                continue;
            }
            // ORDERING: pairs with `store_release` below: the blocks' table, the readings, and what was written to blocks.
            while self.position.load_acquire() != number as u64 {
                std::thread::yield_now();
            }
            if let Some(ahead) = due.checked_sub(self.start.elapsed()).filter(|ahead| *ahead > SHORTEST_SLEEP) {
                std::thread::sleep(ahead);
            }
            self.execute(event);
            self.read(due, number + 1 == self.trace.events().len());
            // ORDERING: pairs with `load_acquire` above.
            self.position.store_release(number as u64 + 1);
        }
    }

    /// Reads the resident memory if it is time, or if the trace is over.
    fn read(&self, now: Duration, is_over: bool) {
        // SAFETY: this thread has its turn: nobody else looks at the readings.
        let readings = unsafe { &mut *self.turn.readings.get() };
        if is_over || now >= readings.at + READING {
            readings.read(now);
        }
    }

    fn execute(&self, event: &Event) {
        match event.what {
            What::Alloc { block, size } => {
                let bytes = (size as usize).max(1);
                let Ok(layout) = Layout::from_size_align(bytes, ALIGN) else { return };
                // SAFETY: the layout has a size.
                let start = unsafe { HAKMEM.alloc(layout) };
                touch(start, bytes);
                self.set(block, (start, bytes));
            }
            What::Free { block } => {
                let (start, bytes) = self.get(block);
                let Ok(layout) = Layout::from_size_align(bytes, ALIGN) else { return };
                if !start.is_null() {
                    // SAFETY: the block's start and layout; the trace frees each block once.
                    unsafe { HAKMEM.dealloc(start, layout) };
                }
            }
            What::Resize { block, size } => {
                let (start, bytes) = self.get(block);
                let new_bytes = (size as usize).max(1);
                let Ok(layout) = Layout::from_size_align(bytes, ALIGN) else { return };
                if start.is_null() {
                    return;
                }
                // SAFETY: the block's start and layout; the new size is not 0.
                let moved = unsafe { HAKMEM.realloc(start, layout, new_bytes) };
                if !moved.is_null() {
                    touch(moved, new_bytes);
                    self.set(block, (moved, new_bytes));
                }
            }
            What::Phase | What::Pass => {}
        }
    }

    fn get(&self, block: u32) -> (*mut u8, usize) {
        let Some(entry) = self.turn.blocks.get(block as usize) else { return (null_mut(), 1) };
        // SAFETY: this thread has its turn: nobody else looks at the table.
        unsafe { *entry.get() }
    }

    fn set(&self, block: u32, place: (*mut u8, usize)) {
        if let Some(entry) = self.turn.blocks.get(block as usize) {
            // SAFETY: as above.
            unsafe { *entry.get() = place };
        }
    }
}

/// Writes to each OS page of a block.
fn touch(start: *mut u8, bytes: usize) {
    if start.is_null() {
        return;
    }
    for offset in (0..bytes).step_by(OS_PAGE_BYTES) {
        // SAFETY: within the block.
        unsafe { start.wrapping_add(offset).write_volatile(1) };
    }
}

struct Usage {
    user_ns: u64,
    system_ns: u64,
    faults: u64,
}

fn usage() -> Result<Usage> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the structure is this function's.
    let outcome = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    anyhow::ensure!(outcome == 0, "getrusage: {}", std::io::Error::last_os_error());
    // SAFETY: all zero is a valid structure, and the call has filled it.
    let usage = unsafe { usage.assume_init() };
    let nanoseconds = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1000;
    Ok(Usage {
        user_ns: nanoseconds(usage.ru_utime),
        system_ns: nanoseconds(usage.ru_stime),
        faults: usage.ru_minflt as u64,
    })
}

fn resident_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").context("/proc/self/statm")?;
    let pages: u64 = text.split(' ').nth(1).context("statm has a second number")?.parse()?;
    Ok(pages * OS_PAGE_BYTES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Builder;
    use hakmem_testkit::Child;

    /// Alone: what other tests of this program free meanwhile would be taken off.
    #[test]
    fn blocks_that_live_are_resident_and_threads_take_turns() {
        Child::alone("execute::tests::blocks_that_live_are_resident_and_threads_take_turns", || {
            let mut builder = Builder::default();
            let mut blocks = Vec::new();
            for step in 0..64 {
                builder.pass(500_000);
                blocks.push(builder.alloc(step % 3, 1 << 20));
            }
            for (step, block) in blocks.into_iter().enumerate() {
                builder.pass(500_000);
                builder.free(step as u16 % 2, block);
            }
            let measured = run(&builder.finish("turns").unwrap()).unwrap();
            assert!(measured.peak_resident_bytes >= 60 << 20, "{measured:?}");
            assert!(measured.mean_resident_bytes >= (16 << 20) as f64, "{measured:?}");
            assert!(measured.faults > 0, "{measured:?}");
        });
    }

    /// Alone: as above.
    #[test]
    fn memory_is_read_whichever_thread_is_busy_and_once_at_the_end() {
        Child::alone("execute::tests::memory_is_read_whichever_thread_is_busy_and_once_at_the_end", || {
            let mut builder = Builder::default();
            for _ in 0..32 {
                builder.pass(500_000);
                builder.alloc(1, 1 << 20);
            }
            let late = 64 << 20;
            builder.alloc(1, late);
            let measured = run(&builder.finish("busy").unwrap()).unwrap();
            assert!(measured.mean_resident_bytes >= (4 << 20) as f64, "{measured:?}");
            assert!(measured.peak_resident_bytes >= late, "{measured:?}");
        });
    }
}
