//! After a spike of small blocks is freed, resident memory returns to within 10 % + 16 MiB of where it began: at once by
//! `collect()`, in band after a second of ordinary activity, and by itself in a multi-threaded program that stays idle. That goes for
//! a spike of one thread that another one has freed, too, while the first sleeps. What a spike of runs leaves in a thread's cache serves the small blocks that come after it.
//!
//! Seconds of activity are those that the thread really ran, and an idle program gets more of them on a busy machine, up to
//! [`LOOKS`]: what is judged is the memory, not the machine.
//!
//! Each case runs in its own process. `HAKTEST_SPIKE_MIB` sets the height; `HAKTEST_LONG=1` makes it 1 GiB.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::indexing_slicing, reason = "a test may stop")]

use std::hint::black_box;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use hakmem_testkit::{Child, Memory, Random, number_from_env};

#[global_allocator]
static GLOBAL: hakmem::Hakmem = hakmem::Hakmem;

/// Seconds that an idle program sleeps before each look at its memory. Few: to look is to allocate.
const LOOKS: [u64; 4] = [3, 6, 12, 24];

#[test]
fn collect_returns_a_spike_to_the_system() {
    Child::alone("collect_returns_a_spike_to_the_system", || {
        let spike = Spike::prepare();
        spike.rise_and_fall();
        hakmem::collect();
        spike.judge();
    });
}

#[test]
fn ordinary_activity_returns_a_spike_to_the_system() {
    Child::alone("ordinary_activity_returns_a_spike_to_the_system", || {
        let spike = Spike::prepare();
        spike.rise_and_fall();
        activity(Duration::from_secs(1));
        spike.judge();
    });
}

#[test]
fn a_few_looks_return_a_large_spike() {
    const TEST: &str = "a_few_looks_return_a_large_spike";
    if Child::role().is_none() {
        // What is freed is not to be due before all of it is, and nobody else looks.
        let child = Child::of_test(TEST, "check").env("HAKMEM_PURGE_DELAY_MS", "4000");
        return child.env("HAKMEM_SCAVENGER", "off").run().assert_success();
    }
    let spike = Spike { height_bytes: 512 << 20, ..Spike::prepare() };
    spike.rise_and_fall();
    thread::sleep(Duration::from_millis(4100));
    for _ in 0..12 * hakmem::FrozenPolicy::default().heartbeat_allocs {
        drop(black_box(Box::new([1_u8; 64])));
    }
    spike.judge();
}

#[test]
fn a_program_that_uses_nothing_but_runs_from_its_cache_returns_a_spike_to_the_system() {
    Child::alone("a_program_that_uses_nothing_but_runs_from_its_cache_returns_a_spike_to_the_system", || {
        let spike = Spike::prepare();
        spike.rise_and_fall();
        let end = own_time() + Duration::from_secs(1);
        while own_time() < end {
            drop(vec![1_u8; 100_000].into_boxed_slice());
        }
        spike.judge();
    });
}

#[test]
fn an_idle_program_with_threads_returns_a_spike_to_the_system() {
    Child::alone("an_idle_program_with_threads_returns_a_spike_to_the_system", || {
        returns_while_idle_in_company(Spike::prepare);
    });
}

#[test]
fn an_idle_program_with_threads_returns_a_small_spike_too() {
    Child::alone("an_idle_program_with_threads_returns_a_small_spike_too", || {
        returns_while_idle_in_company(|| Spike { height_bytes: 24 << 20, slack_kib: 8 << 10, ..Spike::prepare() });
    });
}

/// The spike is this thread's; another one, which has allocated before, sleeps meanwhile.
fn returns_while_idle_in_company(prepare: impl FnOnce() -> Spike) {
    let (stay, wait) = channel::<()>();
    let idle = thread::spawn(move || {
        activity(Duration::from_millis(20));
        let _hung_up = wait.recv();
    });
    let spike = prepare();
    spike.rise_and_fall();
    spike.wait_idle();
    spike.judge();
    drop(stay);
    idle.join().unwrap();
}

#[test]
fn a_spike_of_a_thread_that_ended_returns_to_the_system() {
    Child::alone("a_spike_of_a_thread_that_ended_returns_to_the_system", || {
        let spike = Spike::prepare();
        thread::scope(|scope| scope.spawn(|| spike.rise_and_fall()).join()).unwrap();
        spike.wait_idle();
        spike.judge();
    });
}

#[test]
fn a_spike_that_others_freed_returns_while_its_thread_sleeps() {
    Child::alone("a_spike_that_others_freed_returns_while_its_thread_sleeps", || {
        let spike = Spike::prepare();
        thread::scope(|scope| {
            let (to_freer, from_sleeper) = channel();
            let (wake, asleep) = channel::<()>();
            let spike = &spike;
            scope.spawn(move || {
                to_freer.send(spike.rise()).unwrap();
                let _hung_up = asleep.recv();
            });
            spike.fall(from_sleeper.recv().unwrap());
            activity(Duration::from_secs(1));
            spike.wait_idle();
            spike.judge();
            drop(wake);
        });
    });
}

/// Hunts: a kept block that is in the scavenger's hands while everything is counted.
#[test]
fn a_check_finds_every_block_while_the_scavenger_gives_kept_ones_back() {
    const BLOCKS: u64 = 60;
    const TEST: &str = "a_check_finds_every_block_while_the_scavenger_gives_kept_ones_back";
    if Child::role().is_none() {
        let child = Child::of_test(TEST, "check").env("HAKMEM_SCAVENGER", "on").env("HAKMEM_BIG_RETAIN_MS", "50");
        return child.env("HAKMEM_BIG_RETAIN_BYTES", "1G").run().assert_success();
    }
    for _ in 0..20 {
        let before = hakmem::stats().big_evictions;
        let blocks: Vec<Vec<u8>> = (0..BLOCKS).map(|_| Vec::with_capacity(3 << 20)).collect();
        drop(blocks);
        while hakmem::stats().big_evictions < before + BLOCKS {
            hakmem::check_invariants();
        }
    }
    assert!(hakmem::stats().scavenger_starts > 0);
}

#[test]
fn runs_that_idle_serve_small_blocks_when_the_heap_grows() {
    Child::alone("runs_that_idle_serve_small_blocks_when_the_heap_grows", || {
        let runs: Vec<Box<[u8]>> = (0..8).map(|_| vec![1; 250_000].into_boxed_slice()).collect();
        drop(runs);
        let cached = hakmem::stats().cached_bytes;
        assert!(cached > 1 << 20, "{cached} bytes: the test needs runs that idle");
        let _blocks: Vec<Box<[u8]>> = (0..8000).map(|_| vec![1; 1000].into_boxed_slice()).collect();
        let cached = hakmem::stats().cached_bytes;
        assert!(cached < 512 << 10, "{cached} bytes idle beside a heap that grew");
    });
}

struct Spike {
    start_kib: u64,
    height_bytes: u64,
    /// What may stay beyond a tenth of what there was before.
    slack_kib: u64,
}

impl Spike {
    fn prepare() -> Self {
        activity(Duration::from_millis(100));
        let height_bytes = number_from_env("HAKTEST_SPIKE_MIB", 256, 1024) << 20;
        Self { start_kib: Memory::now().resident_kib, height_bytes, slack_kib: 16 << 10 }
    }

    fn rise_and_fall(&self) {
        self.fall(self.rise());
    }

    fn rise(&self) -> Vec<Box<[u8]>> {
        let mut random = Random::new(1);
        let mut blocks: Vec<Box<[u8]>> = Vec::new();
        let mut bytes = 0;
        while bytes < self.height_bytes {
            let size = 16 + random.below(497);
            blocks.push(vec![1; size].into_boxed_slice());
            bytes += size as u64;
        }
        let risen = Memory::now().resident_kib - self.start_kib;
        assert!(risen * 1024 > self.height_bytes * 9 / 10, "the spike rose to {risen} KiB only");
        blocks
    }

    fn fall(&self, mut blocks: Vec<Box<[u8]>>) {
        let mut random = Random::new(3);
        // Not in the order of allocation: slabs empty late, as in life.
        for index in (1..blocks.len()).rev() {
            blocks.swap(index, random.below(index + 1));
        }
        drop(blocks);
    }

    fn bound_kib(&self) -> u64 {
        self.start_kib + self.start_kib / 10 + self.slack_kib
    }

    fn wait_idle(&self) {
        for seconds in LOOKS {
            thread::sleep(Duration::from_secs(seconds));
            if Memory::now().resident_kib <= self.bound_kib() {
                return;
            }
            eprintln!("spike: not back yet after {seconds} more seconds");
        }
    }

    #[track_caller]
    fn judge(&self) {
        let now = Memory::now();
        let bound = self.bound_kib();
        eprintln!(
            "spike: {} KiB resident before, {} KiB at the peak, {} KiB now, bound {bound} KiB; {:?}",
            self.start_kib,
            now.peak_kib,
            now.resident_kib,
            hakmem::stats()
        );
        assert!(now.resident_kib <= bound, "{} KiB stay resident, the bound is {bound} KiB", now.resident_kib);
    }
}

/// What programs do all the time: a few hundred blocks of 16 B to 1 KiB come and go. For that much of this thread's own time,
/// which passes only while it runs, and never faster than time does.
fn activity(length: Duration) {
    let mut random = Random::new(2);
    let mut blocks: Vec<Box<[u8]>> = (0..400).map(|_| Box::default()).collect();
    let end = own_time() + length;
    while own_time() < end {
        for _ in 0..1000 {
            let (slot, size) = random.slot_and_size(400, 16, 1024);
            blocks[slot] = vec![1; size].into_boxed_slice();
        }
    }
}

fn own_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a clock that every thread has, and a place for its time.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
