//! Children of the soak: forks that check what they inherited, and a program that has little address space.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use hakmem_testkit::{Filled, Random};

use crate::shared::{Shared, fail, sound};
use crate::sizes;
use crate::worker::Worker;

/// A child that takes longer than this waits for a lock that nobody will release.
const CHILD_LIMIT: Duration = Duration::from_secs(60);
/// Inherited blocks that a child looks at.
const CHECKED: usize = 300;
/// Blocks with which a child fills what memory it may have.
const FILLING: usize = 4096;
/// Bytes of data that a child may have beyond what it inherited.
const EXTRA_BYTES: u64 = 8 << 20;
/// Bytes of these blocks at most, because what the parent committed is there without a question to the kernel.
const FILLING_BYTES: usize = 64 << 20;
/// Bytes that no limit allows.
const TOO_MANY_BYTES: usize = 4 << 30;
/// Bytes of address space of a confined program.
const CONFINED_BYTES: u64 = 192 << 20;

/// Forks; the child works on the blocks of `worker` and ends; the parent waits for it.
pub fn fork_and_wait(worker: &mut Worker) {
    let choice = worker.random.next();
    let pid = fork();
    if pid == 0 {
        be_child(worker, choice, 0);
    }
    reap(pid);
    worker.shared.forks.add_relaxed(1);
}

fn fork() -> libc::pid_t {
    // SAFETY: the child calls the allocator, std's threads, and system calls; it ends by _exit. That a child of a process with
    // threads may allocate is what is tested.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        fail(&format!("fork: {}", std::io::Error::last_os_error()));
    }
    pid
}

fn reap(pid: libc::pid_t) {
    let end = Instant::now() + CHILD_LIMIT;
    loop {
        let mut status = 0;
        // SAFETY: a child of this thread's; the status is a live local.
        let reaped = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
        if reaped == pid && status == 0 {
            return;
        }
        if reaped != 0 {
            fail(&format!("child {pid} ended badly: wait status {status:#x}"));
        }
        if Instant::now() > end {
            let threads = describe_threads(pid);
            // SAFETY: two numbers; the child has not been reaped.
            unsafe { libc::kill(pid, libc::SIGABRT) };
            fail(&format!("child {pid} did not end within {CHILD_LIMIT:?}; its threads: {threads}"));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// State, system call and its arguments of every thread of a child: whether it waits, and for which word.
fn describe_threads(pid: libc::pid_t) -> String {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return "unknown".to_owned() };
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let describe = |thread: std::path::PathBuf| {
        let state = read(thread.join("status"));
        let state = state.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or("?").trim().to_owned();
        format!("[{state}; syscall {}]", read(thread.join("syscall")).trim())
    };
    threads.flatten().map(|thread| describe(thread.path())).collect()
}

/// The life of a child of a fork. Blocks of its own thread are whole; those of other threads are left alone, but for the
/// shelves', which are whole if their lock is free.
fn be_child(worker: &mut Worker, choice: u64, generation: u32) -> ! {
    let shared = worker.shared;
    worker.random = Random::new(choice);
    for slots in [&mut worker.short, &mut worker.pinned] {
        slots.iter().flatten().take(CHECKED).for_each(|block| sound(block.check()));
        // Freed and replaced: pages shared with the parent are copied, and the parent's blocks must not notice.
        for slot in slots.iter_mut().step_by(3) {
            if let Some(block) = slot.take() {
                shared.release(block);
            }
        }
    }
    for _ in 0..16 {
        if let Some(block) = shared.try_take(&mut worker.random) {
            shared.release(block);
        }
    }
    for slot in worker.short.iter_mut().filter(|slot| slot.is_none()) {
        let (bytes, stamp) = (sizes::small(&mut worker.random), worker.random.next());
        *slot = shared.allocate(bytes, 16, stamp, choice & 1 != 0);
    }
    if choice & 0x30 == 0 && !shared.is_limited() {
        let sent = worker.short.iter_mut().find_map(Option::take);
        let _joined = thread::spawn(move || sent.map(|block| sound(block.release()))).join();
    }
    if choice & 0xc0 == 0 && generation < 2 {
        let pid = fork();
        if pid == 0 {
            be_child(worker, choice >> 8, generation + 1);
        }
        reap(pid);
    }
    if choice & 0x300 == 0 {
        shared.set_limited(true);
        limit_data();
        fill_up(&mut worker.random, FILLING_BYTES);
    }
    worker.short.iter_mut().filter_map(Option::take).for_each(|block| shared.release(block));
    // SAFETY: ends the child; the handlers of exit belong to the parent.
    unsafe { libc::_exit(0) }
}

/// Limits the writable memory of this process to a little more than it has.
fn limit_data() {
    let mut text = [0; 4096];
    let fields = crate::sampler::read_text("/proc/self/status", &mut text);
    let bytes = crate::sampler::field_kib(fields, "VmData:") * 1024 + EXTRA_BYTES;
    set_limit(libc::RLIMIT_DATA, bytes).unwrap_or_else(|error| fail(&format!("RLIMIT_DATA: {error}")));
}

fn set_limit(resource: libc::__rlimit_resource_t, bytes: u64) -> std::io::Result<()> {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the structure is complete and live for the call.
    match unsafe { libc::setrlimit(resource, &raw const limit) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Takes blocks until there is no memory or enough is taken, checks all, frees them, and takes one more. More than there may
/// be is refused before, meanwhile and afterwards.
fn fill_up(random: &mut Random, most_bytes: usize) {
    let mut blocks = [const { None::<Filled> }; FILLING];
    let mut taken_bytes = 0;
    want_refusal();
    for place in &mut blocks {
        *place = Filled::new(sizes::any(random) + (64 << 10), 16, random.next());
        taken_bytes = place.as_ref().map_or(most_bytes, |block| taken_bytes + block.len());
        if taken_bytes >= most_bytes {
            break;
        }
    }
    want_refusal();
    // One grows until it cannot; then it is still what it was.
    let mut largest = blocks[0].take();
    while let Some(block) = largest.take() {
        let bytes = block.len() * 2;
        let block = sound(block.resize(bytes));
        if block.len() == bytes && bytes < most_bytes {
            largest = Some(block);
        } else {
            sound(block.release());
        }
    }
    blocks.iter_mut().filter_map(Option::take).for_each(|block| sound(block.release()));
    want_refusal();
    match Filled::new(64 << 10, 16, 1) {
        Some(block) => sound(block.release()),
        None => fail("memory that was freed cannot be had again"),
    }
}

/// Asks for more memory than there may be.
fn want_refusal() {
    if Filled::light(TOO_MANY_BYTES, 16, 1).is_some() {
        fail("a limit on memory was not noticed");
    }
}

/// Starts this program again with little address space and waits for it.
pub fn start_confined(shared: &Shared, seed: u64) {
    let Ok(program) = std::env::current_exe() else { fail("this program does not know its path") };
    let mut command = Command::new(program);
    command.args(["--confined", "--seed", &seed.to_string()]).stdin(Stdio::null());
    // SAFETY: the closure makes one system call.
    unsafe { command.pre_exec(|| set_limit(libc::RLIMIT_AS, CONFINED_BYTES)) };
    match command.status() {
        Ok(status) if status.success() => {
            shared.confined.add_relaxed(1);
        }
        Ok(status) => fail(&format!("the confined program ended badly: {status}")),
        Err(error) => fail(&format!("the confined program does not start: {error}")),
    }
}

/// The life of a confined program: fills its memory on two threads, twice.
pub fn be_confined(seed: u64) {
    for round in 0..2 {
        let mut random = Random::new(seed + round);
        fill_up(&mut random, usize::MAX);
    }
    let other = thread::Builder::new().spawn(move || fill_up(&mut Random::new(seed), usize::MAX));
    match other.map(thread::JoinHandle::join) {
        Ok(Ok(())) => {}
        Ok(Err(_)) => fail("a thread panicked"),
        Err(error) => fail(&format!("no thread though memory was freed: {error}")),
    }
}
