//! The learning layer in a living process: modes, freezing, forks, exits, and a thread that is killed, stalled or never there.
//! What is learned, and whether it is any good, is tested where the algorithms are.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test may stop"
)]

use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use hakmem::{FrozenPolicy, Mode};
use hakmem_atomic_ops::{Flag, Shared32};
use hakmem_testkit::{Child, Random, thread_names};

#[global_allocator]
static ALLOCATOR: hakmem::Hakmem = hakmem::Hakmem;

/// What the learner's thread meets when it asks the system for the process's CPU time, which nobody else here does.
static TROUBLE: Shared32 = Shared32::new(NONE);
const NONE: u32 = 0;
/// The thread ends there and then, as if a sandbox had killed it.
const DEATH: u32 = 1;
/// It stays in the call until the trouble is over.
const STALL: u32 = 2;
/// It has met the trouble.
static IS_MET: Flag = Flag::new(false);
/// No thread is to be had.
static NO_THREADS: Flag = Flag::new(false);
/// Whoever starts a learning thread is told of it late: when it, and another one, have been there.
static IS_TOLD_LATE: Flag = Flag::new(false);

/// In place of the C library's, for the whole program.
///
/// # Safety
/// - As for the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrusage(who: c_int, usage: *mut libc::rusage) -> c_int {
    let is_learner = is_learning_thread();
    while is_learner && TROUBLE.load_relaxed() != NONE {
        IS_MET.store_release(true);
        if TROUBLE.load_relaxed() == DEATH {
            // SAFETY: ends this thread, without a word to anybody.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        }
        thread::sleep(Duration::from_millis(1));
    }
    // SAFETY: passed on to the caller.
    unsafe { libc::syscall(libc::SYS_getrusage, who, usage) as c_int }
}

type Start = extern "C" fn(*mut c_void) -> *mut c_void;
type Create = unsafe extern "C" fn(*mut libc::pthread_t, *const libc::pthread_attr_t, Start, *mut c_void) -> c_int;

/// In place of the C library's, for the whole program.
///
/// # Safety
/// - As for the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    if NO_THREADS.is_set_relaxed() {
        return libc::EAGAIN;
    }
    // SAFETY: the name ends with a zero byte.
    let real = unsafe { libc::dlsym(libc::RTLD_NEXT, c"pthread_create".as_ptr()) };
    // SAFETY: the C library's function of this name has this type.
    let real = unsafe { std::mem::transmute::<*mut c_void, Create>(real) };
    // SAFETY: passed on to the caller.
    let result = unsafe { real(thread, attributes, start, argument) };
    if IS_TOLD_LATE.is_set_relaxed() {
        IS_TOLD_LATE.store_release(false);
        thread::sleep(Duration::from_millis(500));
    }
    result
}

/// Whether this is the learning thread. Asked by it in the midst of a look, so it must not allocate.
fn is_learning_thread() -> bool {
    let mut name = [0_u8; 16];
    // SAFETY: writes at most sixteen bytes.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name.starts_with(b"hakmem-learn\0")
}

fn has_learner() -> bool {
    thread_names().iter().any(|name| name == "hakmem-learn")
}

/// Blocks of many sizes that come and go, so that caches run empty and full.
struct Work {
    random: Random,
    held: VecDeque<Vec<u8>>,
}

impl Work {
    fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), held: VecDeque::new() }
    }

    fn some(&mut self) {
        for _ in 0..2000 {
            let bytes = if self.random.below(200) == 0 { 100_000 } else { 1 + self.random.below(3000) };
            self.held.push_back(black_box(vec![1; bytes]));
            if self.held.len() > 3000 {
                self.held.drain(..1000);
            }
        }
    }

    /// Goes on until it is done, however long the machine takes.
    fn until(&mut self, mut is_done: impl FnMut() -> bool) {
        while !is_done() {
            self.some();
        }
    }

    /// Goes on until the learner has published `more` policies. Or has not, in a hundred windows: what it finds out by itself may
    /// be all there is to find.
    fn until_published(&mut self, more: u64) {
        let (seen, measured) = (published(), windows());
        self.until(|| published() >= seen + more || windows() > measured + 100);
    }
}

fn windows() -> u64 {
    hakmem::stats().learn_windows
}

fn published() -> u64 {
    hakmem::stats().learn_published
}

/// Runs `body` alone in a process of its own, with these variables.
#[track_caller]
fn alone(test: &str, variables: &[(&str, &str)], body: fn()) -> String {
    if Child::role().is_some() {
        body();
        return String::new();
    }
    // Shorter windows than a program would have: these tests wait for many.
    let child = Child::of_test(test, "alone").env("HAKMEM_LEARN_WINDOW_MS", "10");
    let child = variables.iter().fold(child, |child, (name, value)| child.env(name, value));
    let ended = child.run();
    ended.assert_success();
    eprint!("{}", ended.stderr);
    ended.stderr
}

const LEARN: (&str, &str) = ("HAKMEM_MODE", "LEARN");
const OBSERVE: (&str, &str) = ("HAKMEM_MODE", "OBSERVE");
const NO_SCAVENGER: (&str, &str) = ("HAKMEM_SCAVENGER", "off");

#[test]
fn frozen_has_no_thread_and_measures_nothing() {
    alone("frozen_has_no_thread_and_measures_nothing", &[], || {
        let mut work = Work::new(1);
        (0..500).for_each(|_| work.some());
        assert_eq!((hakmem::mode(), windows(), published(), has_learner()), (Mode::Frozen, 0, 0, false));
        assert!(hakmem::learned().is_none());
    });
}

#[test]
fn observe_measures_and_changes_nothing() {
    alone("observe_measures_and_changes_nothing", &[OBSERVE], || {
        let before = hakmem::policy();
        let mut work = Work::new(2);
        work.some();
        let heaps = hakmem::stats().peak_heaps;
        work.until(|| windows() > 20);
        assert!(has_learner());
        // A heap of its own would make a single-threaded program one that may have a scavenger.
        assert_eq!(hakmem::stats().peak_heaps, heaps, "the thread that measures has allocated");
        assert_eq!(hakmem::policy(), before);
        assert_eq!((before, hakmem::stats().policy_generation, published()), (FrozenPolicy::DEFAULT, 0, 0));
        assert!(hakmem::learned().is_none());
    });
}

#[test]
fn learn_publishes_policies_that_threads_pick_up() {
    alone("learn_publishes_policies_that_threads_pick_up", &[LEARN], || {
        let mut work = Work::new(3);
        work.until_published(3);
        let learned = hakmem::learned().unwrap();
        assert_eq!(learned.policy.validate(), Ok(()));
        assert!(!learned.evidence.is_empty() && learned.windows > 0);
        let stats = hakmem::stats();
        assert!(stats.learn_published > 0 && stats.learn_cpu_us > 0, "{stats:?}");
        assert!(stats.policy_generation >= stats.learn_published, "{stats:?}");
    });
}

/// Windows are differences of totals, and totals are what the program did.
#[test]
fn what_is_observed_adds_up_with_what_was_done() {
    alone("what_is_observed_adds_up_with_what_was_done", &[], || {
        let before = hakmem::observed();
        let blocks: Vec<Box<[u64; 25]>> = (0..100_000).map(|number| Box::new([number; 25])).collect();
        hakmem::collect();
        let window = hakmem::observed_since(&before);
        assert!((100_000..110_000).contains(&window.allocs), "{window:?}");
        let busiest = window.classes.iter().max_by_key(|class| class.allocs).unwrap();
        assert!(busiest.allocs >= 100_000 && busiest.refills > 0, "{busiest:?}");
        assert!(window.live_bytes >= 20_000_000 && window.resident_bytes >= window.live_bytes, "{window:?}");
        assert!(window.fresh_slabs > 300 && window.committed_bytes > 20_000_000, "{window:?}");
        assert!(window.page_faults > 10 && window.elapsed_ns > 0 && window.cpu_ns > 0, "{window:?}");
        let before = hakmem::observed();
        drop(blocks);
        hakmem::collect();
        let window = hakmem::observed_since(&before);
        assert!(window.retired_slabs > 300 && window.purged_bytes > 10_000_000, "{window:?}");
        assert!(window.live_bytes < 10_000_000, "{window:?}");
    });
}

#[test]
fn modes_change_at_run_time_and_frozen_ends_the_thread() {
    alone("modes_change_at_run_time_and_frozen_ends_the_thread", &[], || {
        let mut work = Work::new(4);
        work.some();
        assert!(hakmem::set_mode(Mode::Learn));
        work.until_published(1);
        hakmem::freeze();
        assert_eq!(hakmem::mode(), Mode::Frozen);
        work.until(|| !has_learner());
        let (generation, measured) = (hakmem::stats().policy_generation, windows());
        (0..500).for_each(|_| work.some());
        assert_eq!((hakmem::stats().policy_generation, windows()), (generation, measured));
        assert!(hakmem::learned().is_some(), "what was found is still there");
        assert!(hakmem::set_mode(Mode::Observe));
        work.until(|| windows() > measured + 3);
        assert_eq!(hakmem::stats().policy_generation, generation);
        assert!(hakmem::set_mode(Mode::Learn));
        work.until(|| hakmem::stats().policy_generation > generation);
    });
}

#[test]
fn a_check_waits_for_the_end_of_the_thread() {
    alone("a_check_waits_for_the_end_of_the_thread", &[], || {
        let mut work = Work::new(7);
        for round in 0..20 {
            let measured = windows();
            assert!(hakmem::set_mode(Mode::Learn));
            work.until(|| windows() > measured);
            if round % 2 == 0 {
                hakmem::freeze();
            } else {
                assert!(hakmem::set_mode(Mode::Frozen));
            }
            hakmem::check_invariants();
        }
    });
}

/// Hunts: a thread whose number its starter stores over that of the next one, which nobody joins then.
#[test]
fn a_thread_that_ends_before_its_starter_knows_it_is_not_mistaken_for_the_next_one() {
    alone("a_thread_that_ends_before_its_starter_knows_it_is_not_mistaken_for_the_next_one", &[], || {
        Work::new(13).some();
        thread::scope(|scope| {
            scope.spawn(|| {
                IS_TOLD_LATE.store_release(true);
                hakmem::set_mode(Mode::Observe)
            });
            while !has_learner() {
                thread::yield_now();
            }
            hakmem::set_mode(Mode::Frozen);
            while has_learner() {
                thread::yield_now();
            }
            TROUBLE.store_relaxed(STALL);
            hakmem::set_mode(Mode::Observe);
            while !IS_MET.is_set_relaxed() {
                thread::yield_now();
            }
        });
        hakmem::freeze();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(200));
                TROUBLE.store_relaxed(NONE);
            });
            hakmem::check_invariants();
            assert!(!has_learner(), "nobody has waited for it");
        });
    });
}

#[test]
fn a_signal_freezes() {
    let variables = [LEARN, ("HAKMEM_FREEZE_SIGNAL", "10")];
    alone("a_signal_freezes", &variables, || {
        let mut work = Work::new(5);
        work.until(|| windows() > 3);
        // SAFETY: the handler was installed at the first allocation.
        unsafe { libc::raise(libc::SIGUSR1) };
        assert_eq!(hakmem::mode(), Mode::Frozen);
        work.until(|| !has_learner());
    });
}

/// The program's own policy is where learning goes on.
#[test]
fn a_policy_of_the_programs_own_is_not_undone() {
    alone("a_policy_of_the_programs_own_is_not_undone", &[LEARN], || {
        let mut work = Work::new(6);
        for number in 1..5_u32 {
            work.until_published(1);
            let own = FrozenPolicy { heartbeat_allocs: 4096 + number, ..hakmem::policy() };
            hakmem::publish_policy(&own).unwrap();
            // The one that was on its way may still arrive; those after it are made of the program's.
            work.until_published(5);
        }
        assert!(published() > 0);
        assert_eq!(hakmem::policy().heartbeat_allocs, 4100);
    });
}

/// What nobody learned would have cost is said of the policy that learning began with, which is the program's own from then on.
#[test]
fn the_account_begins_anew_with_a_policy_of_the_programs_own() {
    alone("the_account_begins_anew_with_a_policy_of_the_programs_own", &[LEARN], || {
        /// Units that would have been purged, had nobody learned, after a rest of more than the default delay.
        fn purged_after_a_rest() -> u64 {
            let before = hakmem::observed().hindsight.unlearned.purged;
            drop(black_box((0..12_000).map(|_| vec![1; 1000]).collect::<Vec<Vec<u8>>>()));
            thread::sleep(Duration::from_millis(700));
            (0..3).for_each(|_| drop(black_box(vec![1; 300_000])));
            hakmem::observed().hindsight.unlearned.purged - before
        }
        let mut work = Work::new(14);
        work.until(|| windows() > 3);
        assert!(purged_after_a_rest() > 0);
        let own = FrozenPolicy { purge_delay_ms: u32::MAX, ..hakmem::policy() };
        hakmem::publish_policy(&own).unwrap();
        let measured = windows();
        work.until(|| windows() > measured + 3);
        assert_eq!(purged_after_a_rest(), 0, "under the program's own policy nothing is ever purged");
    });
}

#[test]
fn an_idle_program_has_an_idle_thread() {
    alone("an_idle_program_has_an_idle_thread", &[LEARN], || {
        let mut work = Work::new(7);
        work.until(|| windows() > 3);
        // The last window with something in it may be still under way.
        thread::sleep(Duration::from_millis(1500));
        let measured = windows();
        thread::sleep(Duration::from_millis(1500));
        assert_eq!(windows(), measured, "windows in which nothing was allocated");
        work.until(|| windows() > measured);
    });
}

#[test]
fn a_program_that_is_to_be_confined_has_no_thread_from_then_on() {
    alone("a_program_that_is_to_be_confined_has_no_thread_from_then_on", &[LEARN], || {
        let mut work = Work::new(9);
        work.until(|| windows() > 3);
        hakmem::expect_confinement();
        work.until(|| !has_learner());
        assert_eq!((hakmem::set_mode(Mode::Learn), hakmem::mode()), (false, Mode::Frozen));
        (0..500).for_each(|_| work.some());
        assert!(!has_learner());
    });
}

#[test]
fn the_hardened_level_has_no_mode_but_frozen() {
    let variables = [LEARN, ("HAKMEM_HARDENED", "1"), ("HAKMEM_VERBOSE", "1")];
    let said = alone("the_hardened_level_has_no_mode_but_frozen", &variables, || {
        let mut work = Work::new(14);
        work.some();
        for mode in [Mode::Observe, Mode::Learn] {
            assert_eq!((hakmem::set_mode(mode), hakmem::mode()), (false, Mode::Frozen));
        }
        (0..500).for_each(|_| work.some());
        assert!(!has_learner() && windows() == 0);
    });
    if Child::role().is_none() {
        assert!(said.contains("mode FROZEN, hardened level"), "{said}");
    }
}

/// Frees 12 MiB, of which nobody asks for a part again, and waits for it to go back without a scavenger: at most so long.
fn rests_with_little_waiting(longest: Duration) -> u64 {
    let mut work = Work::new(8);
    work.until(|| windows() > 3);
    drop(work);
    let blocks: Vec<Vec<u8>> = (0..12_000).map(|_| black_box(vec![1; 1000])).collect();
    drop(blocks);
    let begin = Instant::now();
    while hakmem::stats().free_dirty_bytes > 4 << 20 && begin.elapsed() < longest {
        thread::sleep(Duration::from_millis(100));
    }
    hakmem::stats().free_dirty_bytes
}

#[test]
fn who_learns_gives_the_little_back_that_a_resting_program_leaves() {
    alone("who_learns_gives_the_little_back_that_a_resting_program_leaves", &[LEARN, NO_SCAVENGER], || {
        let left = rests_with_little_waiting(Duration::from_secs(60));
        assert!(left <= 4 << 20, "{left} bytes still wait");
    });
}

#[test]
fn who_observes_leaves_a_resting_programs_memory_alone() {
    alone("who_observes_leaves_a_resting_programs_memory_alone", &[OBSERVE, NO_SCAVENGER], || {
        let left = rests_with_little_waiting(Duration::from_secs(2));
        assert!(left > 8 << 20, "{left} bytes wait: somebody has purged");
    });
}

/// Ends a child, with or without the library's own end.
fn end_child(is_proper: bool) -> ! {
    if is_proper {
        // SAFETY: the child has one thread beside the library's.
        unsafe { libc::exit(0) };
    }
    // SAFETY: takes a number.
    unsafe { libc::_exit(0) };
}

fn wait_for(process: libc::pid_t) {
    let mut status = 0;
    // SAFETY: waits for a child of this process.
    assert_eq!(unsafe { libc::waitpid(process, &raw mut status, 0) }, process);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "a child ended with {status:#x}");
}

/// Children fork at any moment of the thread's work, learn themselves, and end by `exit` or `_exit`.
#[test]
fn forked_children_begin_to_learn_anew() {
    alone("forked_children_begin_to_learn_anew", &[LEARN], || {
        let mut work = Work::new(8);
        work.until_published(1);
        for number in 0..20 {
            work.some();
            // SAFETY: the child allocates and ends; no lock of the test is held by another thread.
            let process = unsafe { libc::fork() };
            if process == 0 {
                let measured = windows();
                if number % 4 == 0 {
                    work.until(|| windows() > measured + 2 && has_learner());
                }
                end_child(number % 2 == 0);
            }
            wait_for(process);
        }
        let measured = windows();
        work.until(|| windows() > measured + 2);
    });
}

/// Hunts: an account of what other policies would have led to, kept at every take and give though nobody reads it.
#[test]
fn a_forked_child_that_does_not_learn_keeps_no_account() {
    alone("a_forked_child_that_does_not_learn_keeps_no_account", &[LEARN], || {
        let mut work = Work::new(14);
        work.until(|| windows() > 3);
        // SAFETY: the child allocates and ends; no lock of the test is held by another thread.
        let process = unsafe { libc::fork() };
        if process == 0 {
            hakmem::freeze();
            let before = hakmem::observed().hindsight;
            thread::sleep(Duration::from_millis(50));
            work.some();
            let is_kept = hakmem::observed().hindsight != before;
            // SAFETY: takes a number.
            unsafe { libc::_exit(is_kept.into()) };
        }
        wait_for(process);
    });
}

#[test]
fn a_process_ends_or_executes_another_program_in_the_midst_of_learning() {
    alone("a_process_ends_or_executes_another_program_in_the_midst_of_learning", &[LEARN], || {
        for number in 0..12_u64 {
            // SAFETY: as above.
            let process = unsafe { libc::fork() };
            if process == 0 {
                let mut work = Work::new(number);
                work.until(|| windows() >= number % 4);
                if number % 2 == 0 {
                    // SAFETY: a null-terminated list of texts.
                    unsafe { libc::execl(c"/bin/true".as_ptr(), c"true".as_ptr(), std::ptr::null::<u8>()) };
                }
                end_child(true);
            }
            wait_for(process);
        }
    });
}

#[test]
fn threads_come_and_go_while_policies_change() {
    alone("threads_come_and_go_while_policies_change", &[LEARN], || {
        let seed = Shared32::new(0);
        while published() < 5 && windows() < 100 {
            thread::scope(|scope| {
                for _ in 0..16 {
                    scope.spawn(|| {
                        let mut work = Work::new(u64::from(seed.add_relaxed(1)));
                        (0..20).for_each(|_| work.some());
                    });
                }
            });
        }
        hakmem::freeze();
        while has_learner() {
            thread::yield_now();
        }
        hakmem::check_invariants();
    });
}

/// The first look ends the thread for good.
#[test]
fn a_killed_thread_leaves_a_working_allocator() {
    alone("a_killed_thread_leaves_a_working_allocator", &[LEARN], || {
        let mut work = Work::new(9);
        work.until(|| windows() > 0);
        TROUBLE.store_relaxed(DEATH);
        work.until(|| IS_MET.is_set_relaxed() && !has_learner());
        TROUBLE.store_relaxed(NONE);
        use_everything(&mut work);
    });
}

#[test]
fn a_stalled_thread_leaves_a_working_allocator() {
    alone("a_stalled_thread_leaves_a_working_allocator", &[LEARN], || {
        let mut work = Work::new(10);
        work.until(|| windows() > 0);
        TROUBLE.store_relaxed(STALL);
        work.until(|| IS_MET.is_set_relaxed());
        use_everything(&mut work);
        // The end of the process waits for the thread.
        TROUBLE.store_relaxed(NONE);
    });
}

/// All that a program may ask of an allocator whose learner is in trouble.
fn use_everything(work: &mut Work) {
    let generation = hakmem::stats().policy_generation;
    (0..200).for_each(|_| work.some());
    assert_eq!(hakmem::stats().policy_generation, generation);
    hakmem::collect();
    let _found = hakmem::learned();
    hakmem::publish_policy(&hakmem::policy()).unwrap();
    thread::scope(|scope| {
        for seed in 0..4 {
            scope.spawn(move || Work::new(seed).some());
        }
    });
    // SAFETY: the child allocates and ends.
    let process = unsafe { libc::fork() };
    if process == 0 {
        TROUBLE.store_relaxed(NONE);
        let measured = windows();
        work.until(|| windows() > measured);
        end_child(true);
    }
    wait_for(process);
    hakmem::freeze();
}

#[test]
fn without_a_thread_to_be_had_frozen_goes_on_and_says_so_once() {
    let said = alone("without_a_thread_to_be_had_frozen_goes_on_and_says_so_once", &[LEARN], || {
        NO_THREADS.store_release(true);
        let mut work = Work::new(11);
        work.until(|| hakmem::mode() == Mode::Frozen);
        (0..500).for_each(|_| work.some());
        assert_eq!(windows(), 0);
    });
    if Child::role().is_none() {
        assert_eq!(said.matches("hakmem: no thread for the learner").count(), 1, "{said}");
    }
}

/// An empty folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("learning-{name}"));
    let _absent = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn what_was_learned_is_left_behind_and_is_where_the_next_process_starts() {
    const TEST: &str = "what_was_learned_is_left_behind_and_is_where_the_next_process_starts";
    match Child::role().as_deref() {
        Some("learn") => {
            let mut work = Work::new(12);
            work.until_published(3);
            hakmem::freeze();
            work.until(|| !has_learner());
            eprintln!("{:?}", hakmem::learned().unwrap().policy);
        }
        Some(_) => eprintln!("{:?}", hakmem::policy()),
        None => {
            let folder = folder("out");
            let out = folder.join("policy-%p.toml");
            let learned = Child::of_test(TEST, "learn")
                .env("HAKMEM_MODE", "LEARN")
                .env("HAKMEM_POLICY_OUT", out.to_str().unwrap())
                .run();
            learned.assert_success();
            let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
            let [file] = files.as_slice() else { panic!("{files:?}") };
            let text = fs::read_to_string(file).unwrap();
            let table: toml::Table = toml::from_str(&text).unwrap();
            assert!(table["evidence"].as_table().unwrap().len() > 5, "{text}");
            assert_eq!(table["source"]["runs"].as_integer(), Some(1), "{text}");
            let next = Child::of_test(TEST, "next").env("HAKMEM_POLICY", file.to_str().unwrap()).run();
            next.assert_success();
            let of = |text: &str| text.lines().find(|line| line.starts_with("FrozenPolicy")).unwrap().to_owned();
            let without_generation = |line: String| line.split_once(", ").unwrap().1.to_owned();
            assert_eq!(without_generation(of(&learned.stderr)), without_generation(of(&next.stderr)));
        }
    }
}

/// A few windows are no baseline: nothing was tried, and nothing is known that the file does not say better.
#[test]
fn a_process_that_has_learned_nothing_leaves_a_file_that_is_there() {
    const TEST: &str = "a_process_that_has_learned_nothing_leaves_a_file_that_is_there";
    if Child::role().is_some() {
        Work::new(13).until(|| windows() > 0);
        assert_eq!(published(), 0);
        return;
    }
    let folder = folder("nothing");
    let (there, absent) = (folder.join("there.toml"), folder.join("absent.toml"));
    fs::write(&there, "version = 1\n# What another process has learned.\n").unwrap();
    for out in [&there, &absent] {
        let child = Child::of_test(TEST, "learn").env("HAKMEM_MODE", "LEARN").env("HAKMEM_LEARN_WINDOW_MS", "500");
        let child =
            child.env("HAKMEM_LEARN_WINDOW_ALLOCS", "1073741824").env("HAKMEM_POLICY_OUT", out.to_str().unwrap());
        child.run().assert_success();
    }
    assert_eq!(fs::read_to_string(&there).unwrap(), "version = 1\n# What another process has learned.\n");
    assert!(fs::read_to_string(&absent).unwrap().contains("[evidence."));
}

#[test]
fn a_wrong_policy_file_is_refused_in_one_line_and_the_defaults_run() {
    const TEST: &str = "a_wrong_policy_file_is_refused_in_one_line_and_the_defaults_run";
    if Child::role().is_some() {
        let expected = FrozenPolicy { refill_bytes: 8192, ..FrozenPolicy::DEFAULT };
        assert_eq!(hakmem::policy(), expected);
        return;
    }
    let folder = folder("wrong");
    let large = "# nothing\n".repeat(10_000);
    for (name, text, complaint) in [
        ("version", "version = 2\n", "version.toml:1: version 2"),
        ("range", "version = 1\n[knobs]\noutbox_blocks = 0\n", "range.toml:3: outbox_blocks = 0 is out of range"),
        ("large", large.as_str(), "large.toml:1: longer than"),
    ] {
        let file = folder.join(format!("{name}.toml"));
        fs::write(&file, text).unwrap();
        assert_one_complaint(TEST, file.to_str().unwrap(), complaint);
    }
    assert_one_complaint(TEST, folder.join("none").to_str().unwrap(), "HAKMEM_POLICY: cannot read");
    assert_one_complaint(TEST, folder.to_str().unwrap(), "HAKMEM_POLICY: cannot read");
}

#[track_caller]
fn assert_one_complaint(test: &str, file: &str, complaint: &str) {
    // The variable counts, whatever becomes of the file.
    let ended = Child::of_test(test, "start").env("HAKMEM_POLICY", file).env("HAKMEM_REFILL_BYTES", "8K").run();
    ended.assert_success();
    let lines = ended.lines_of("hakmem: ");
    assert!(lines.len() == 1 && lines[0].contains(complaint), "{lines:?}, not {complaint}");
}
