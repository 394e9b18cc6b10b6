//! What the allocator has done so far and holds now, for the learners: sums over all heaps, and what the system says of the process.
//!
//! Nothing is counted for this alone on the way of an allocation: the heaps' slow paths count anyway, in words that their thread
//! writes and any thread reads. A heap's numbers are as of its last slow path, a few thousand allocations of a class at most.
//!
//! **Not here.** What is made of the numbers.
//! **Invariants.** A reading changes nothing and holds no lock but the superslab box's, for the time of a copy. The sum of windows,
//! each from one reading to the next, is the window from the first to the last.

use core::ffi::c_int;
use hakmem_base::{CLASS_COUNT, OS_PAGE_BYTES, SUPERSLAB_BYTES, keeping_errno};
use hakmem_learner::{ClassWindow, GroupWindow, Window};

use crate::clock::monotonic_ns;
use crate::global::GLOBAL;
use crate::report::Reading;

/// Everything from the start of the process to now.
pub(crate) fn totals() -> Window {
    let os = GLOBAL.front.os.stats();
    let reading = Reading::now(0);
    let mut all = Window {
        elapsed_ns: monotonic_ns().saturating_sub(GLOBAL.learning.began_ns()),
        remote_frees: reading.front.remote_frees + GLOBAL.front.heapless_frees(),
        remote_pushes: reading.front.remote_pushes,
        drained_blocks: reading.front.drained_blocks,
        beats: reading.front.beats,
        idle_trims: reading.front.idle_trims,
        fresh_slabs: reading.front.fresh_slabs,
        retired_slabs: reading.front.retired_slabs,
        big_requests: reading.big.hits + reading.big.misses,
        big_cache_hits: reading.big.hits,
        purged_bytes: os.purged_bytes,
        // What holds memory now, and what did until it was purged.
        committed_bytes: (os.in_use_bytes + os.free_dirty_bytes) as u64 + os.purged_bytes,
        in_use_bytes: (os.in_use_bytes + reading.big.outside_bytes) as u64,
        live_bytes: reading.live_bytes(),
        cached_bytes: reading.front.cached_bytes + reading.runs.cached_bytes,
        purgeable_bytes: (os.free_dirty_bytes + reading.big.cached_bytes) as u64,
        resident_bytes: resident_bytes(),
        superslabs: u64::from(
            os.hot_superslabs + os.draining_superslabs + os.free_warm_superslabs + os.extent_superslabs,
        ),
        threads: u64::from(GLOBAL.registry.live.load_relaxed()),
        hindsight: GLOBAL.front.os.hindsight(),
        ..Window::default()
    };
    all.huge_superslabs = (os.huge_advised_bytes / SUPERSLAB_BYTES as u64).min(all.superslabs);
    add_process(&mut all);
    add_heaps(&mut all);
    all.allocs = all.classes.iter().map(|class| class.allocs).sum::<u64>()
        + all.run_groups.iter().map(|group| group.requests).sum::<u64>()
        + all.big_requests;
    all
}

fn add_heaps(all: &mut Window) {
    for record in GLOBAL.records() {
        for class in record.heap.used_classes() {
            // What a dynamic class does counts for the fixed one in whose place it is.
            let Some(sum) = all.classes.get_mut(class.fixed().index()) else { continue };
            let flow = record.heap.flow(class);
            sum.allocs += flow.allocs;
            sum.refills += u64::from(flow.refills);
            sum.spills += u64::from(flow.spills);
        }
        for (flow, sum) in record.runs.flow().iter().zip(&mut all.run_groups) {
            sum.requests += flow.requests;
            sum.cache_hits += flow.hits;
        }
    }
}

/// Blocks in use, by the fixed class of their size. Those in slabs without an owner are left out.
pub(crate) fn live_blocks() -> [u64; CLASS_COUNT] {
    let mut blocks = [0; CLASS_COUNT];
    for record in GLOBAL.records() {
        for class in record.heap.used_classes() {
            let counts = record.heap.bin(class).counts();
            if let Some(sum) = blocks.get_mut(class.fixed().index()) {
                *sum += u64::from(counts.delivered.saturating_sub(counts.cached));
            }
        }
    }
    blocks
}

/// What happened from an earlier reading to this one; levels are this one's.
pub(crate) fn between(earlier: &Window, now: &Window) -> Window {
    let mut window = now.clone();
    for (flow, before) in [
        (&mut window.elapsed_ns, earlier.elapsed_ns),
        (&mut window.cpu_ns, earlier.cpu_ns),
        (&mut window.system_ns, earlier.system_ns),
        (&mut window.page_faults, earlier.page_faults),
        (&mut window.allocs, earlier.allocs),
        (&mut window.big_requests, earlier.big_requests),
        (&mut window.big_cache_hits, earlier.big_cache_hits),
        (&mut window.remote_frees, earlier.remote_frees),
        (&mut window.remote_pushes, earlier.remote_pushes),
        (&mut window.drained_blocks, earlier.drained_blocks),
        (&mut window.beats, earlier.beats),
        (&mut window.idle_trims, earlier.idle_trims),
        (&mut window.fresh_slabs, earlier.fresh_slabs),
        (&mut window.retired_slabs, earlier.retired_slabs),
        (&mut window.purged_bytes, earlier.purged_bytes),
        (&mut window.committed_bytes, earlier.committed_bytes),
    ] {
        *flow = flow.saturating_sub(before);
    }
    window.hindsight = now.hindsight.since(&earlier.hindsight);
    for (class, before) in window.classes.iter_mut().zip(&earlier.classes) {
        *class = ClassWindow {
            allocs: class.allocs.saturating_sub(before.allocs),
            // The heaps' counts have 32 bits; so has their sum, as far as differences are concerned.
            refills: wrapped(class.refills, before.refills),
            spills: wrapped(class.spills, before.spills),
        };
    }
    for (group, before) in window.run_groups.iter_mut().zip(&earlier.run_groups) {
        *group = GroupWindow {
            requests: group.requests.saturating_sub(before.requests),
            cache_hits: group.cache_hits.saturating_sub(before.cache_hits),
        };
    }
    window
}

fn wrapped(now: u64, before: u64) -> u64 {
    u64::from((now as u32).wrapping_sub(before as u32))
}

/// CPU time and page faults of the process.
fn add_process(all: &mut Window) {
    // Miri's machine counts neither.
    if cfg!(miri) {
        return;
    }
    // SAFETY: all zero is a valid value to be filled.
    let mut usage = unsafe { core::mem::zeroed::<libc::rusage>() };
    // SAFETY: fills the structure.
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) } == 0 {
        let (user, system) = (nanoseconds(usage.ru_utime), nanoseconds(usage.ru_stime));
        all.cpu_ns = user + system;
        all.system_ns = system;
        all.page_faults = u64::try_from(usage.ru_minflt).unwrap_or(0);
    }
}

fn nanoseconds(time: libc::timeval) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_usec).unwrap_or(0) * 1000
}

/// Resident bytes of the process; 0 where `/proc` is missing. The file is opened anew each time: a descriptor kept open would be
/// closed by a program that closes all, and its number would then be another file's. System calls proper, which no library
/// that wraps the C library's sees.
fn resident_bytes() -> u64 {
    // Miri's machine has no /proc.
    if cfg!(miri) {
        return 0;
    }
    keeping_errno(|| {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        // SAFETY: the name ends with a zero byte.
        let fd = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/proc/self/statm".as_ptr(), flags) };
        let Some(fd) = c_int::try_from(fd).ok().filter(|fd| *fd >= 0) else { return 0 };
        let mut text = [0_u8; 128];
        // SAFETY: the buffer is as long as is said.
        let len = unsafe { libc::syscall(libc::SYS_read, fd, text.as_mut_ptr(), text.len()) };
        // SAFETY: opened above, closed once.
        unsafe { libc::syscall(libc::SYS_close, fd) };
        let text = usize::try_from(len).ok().and_then(|len| text.get(..len)).unwrap_or(&[]);
        second_number(text) * OS_PAGE_BYTES as u64
    })
}

/// The second of a list of numbers; 0 if there is none.
fn second_number(text: &[u8]) -> u64 {
    let digits = text.split(|byte| *byte == b' ').nth(1).unwrap_or(&[]);
    digits
        .iter()
        .fold(0, |number: u64, digit| number.saturating_mul(10).saturating_add(u64::from(digit.wrapping_sub(b'0'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_differences_and_levels_are_the_later_reading() {
        let mut earlier = Window { allocs: 10, live_bytes: 100, threads: 3, ..Window::default() };
        earlier.classes[5].refills = u64::from(u32::MAX);
        let mut now = Window { allocs: 25, live_bytes: 70, threads: 2, ..Window::default() };
        now.classes[5].refills = 4;
        let window = between(&earlier, &now);
        assert_eq!((window.allocs, window.live_bytes, window.threads), (15, 70, 2));
        assert_eq!(window.classes[5].refills, 5, "a count that has come round");
    }

    #[test]
    fn the_second_number_of_statm_is_read() {
        assert_eq!(second_number(b"1234 567 89 1 0 2 0\n"), 567);
        assert_eq!(second_number(b""), 0);
    }

    #[test]
    fn the_process_is_resident_and_has_used_time() {
        let totals = totals();
        assert!(totals.resident_bytes > 0 && totals.page_faults > 0, "{totals:?}");
    }
}
