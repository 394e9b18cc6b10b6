//! After a spike of small blocks is freed, resident memory returns to within 10 % + 16 MiB of where it began: at once by
//! `collect()`, in band after a second of ordinary activity, and by itself in a multi-threaded program that stays idle.
//!
//! Each case runs in its own process. `HAKTEST_SPIKE_MIB` sets the height; `HAKTEST_LONG=1` makes it 1 GiB.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::indexing_slicing, reason = "a test may stop")]

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use hakmem_testkit::{Child, Memory, Random, number_from_env};

#[global_allocator]
static GLOBAL: hakmem::Hakmem = hakmem::Hakmem;

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
fn an_idle_program_with_threads_returns_a_spike_to_the_system() {
    Child::alone("an_idle_program_with_threads_returns_a_spike_to_the_system", || {
        let (stay, wait) = channel::<()>();
        let idle = thread::spawn(move || {
            activity(Duration::from_millis(20));
            let _hung_up = wait.recv();
        });
        let spike = Spike::prepare();
        spike.rise_and_fall();
        thread::sleep(Duration::from_secs(3));
        spike.judge();
        drop(stay);
        idle.join().unwrap();
    });
}

#[test]
fn a_spike_of_a_thread_that_ended_returns_to_the_system() {
    Child::alone("a_spike_of_a_thread_that_ended_returns_to_the_system", || {
        let spike = Spike::prepare();
        thread::scope(|scope| scope.spawn(|| spike.rise_and_fall()).join()).unwrap();
        thread::sleep(Duration::from_secs(3));
        spike.judge();
    });
}

struct Spike {
    start_kib: u64,
    height_bytes: u64,
}

impl Spike {
    fn prepare() -> Self {
        activity(Duration::from_millis(100));
        let height_bytes = number_from_env("HAKTEST_SPIKE_MIB", 256, 1024) << 20;
        Self { start_kib: Memory::now().resident_kib, height_bytes }
    }

    fn rise_and_fall(&self) {
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
        // Not in the order of allocation: slabs empty late, as in life.
        for index in (1..blocks.len()).rev() {
            blocks.swap(index, random.below(index + 1));
        }
        drop(blocks);
    }

    #[track_caller]
    fn judge(&self) {
        let now = Memory::now();
        let bound = self.start_kib + self.start_kib / 10 + (16 << 10);
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

/// What programs do all the time: a few hundred blocks of 16 B to 1 KiB come and go.
fn activity(length: Duration) {
    let mut random = Random::new(2);
    let mut blocks: Vec<Box<[u8]>> = (0..400).map(|_| Box::default()).collect();
    let end = Instant::now() + length;
    while Instant::now() < end {
        for _ in 0..1000 {
            let (slot, size) = random.slot_and_size(400, 16, 1024);
            blocks[slot] = vec![1; size].into_boxed_slice();
        }
    }
}
