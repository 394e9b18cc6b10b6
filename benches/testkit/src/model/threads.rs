//! Live threads that allocate, resize and free each other's blocks, one step at a time: the order is the script's, so a
//! run can be repeated, and every block is looked at between two steps.
//!
//! **Invariants.** What [`Held`] says of blocks. A request that the machine can serve is served. When all blocks are free
//! and all threads gone, [`Subject::leftover`] has nothing to report.
//! **Not here.** Races: no two threads are inside the allocator at the same time.

use std::alloc::{GlobalAlloc, Layout};
use std::fmt::Write as _;
use std::ptr::NonNull;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use crate::Damage;
use crate::model::bytes::{Bytes, SIZE_MAX};
use crate::model::held::{Block, Held, Request};

/// The allocator under test. All copies are the same allocator.
pub trait Subject: GlobalAlloc + Copy + Send + 'static {
    /// Usable bytes of a block in use; `None` if the allocator does not know the block.
    ///
    /// # Safety
    /// - `block` is in use.
    unsafe fn usable(&self, block: NonNull<u8>) -> Option<usize>;
    /// Gives back what nobody uses.
    fn collect(&self);
    /// Changes how the allocator works: knob and value, any numbers.
    fn turn(&self, knob: u16, value: u64);
    /// Puts all knobs back.
    fn reset(&self);
    /// What is not free although nothing is in use and no other thread has been here since [`Subject::reset`].
    ///
    /// # Errors
    /// Names it.
    fn leftover(&self) -> Result<(), Damage>;
}

/// Threads that can live at a time.
pub const THREADS: u8 = 4;

/// One step. Threads are born at their first step; block numbers wrap around, and steps without a block do nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "fields as in `Layout`; the rest is said at the variant")]
pub enum Step {
    /// `count` blocks, one by one.
    Allocate { thread: u8, bytes: usize, align_shift: u8, zeroed: bool, count: u8 },
    /// Block number `place`, whoever allocated it.
    Resize { thread: u8, place: u16, bytes: usize },
    /// `count` blocks from number `place` on, `stride` apart, whoever allocated them.
    Free { thread: u8, place: u16, stride: u8, count: u8 },
    /// The usable size of block number `place`.
    Usable { thread: u8, place: u16 },
    /// Gives back what nobody uses.
    Collect { thread: u8 },
    /// The thread ends; what it allocated lives on.
    Exit { thread: u8 },
    /// Changes how the allocator works.
    Turn { thread: u8, knob: u16, value: u64 },
    /// Every byte of every block.
    Check,
}

/// What a script did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Blocks allocated.
    pub allocated: usize,
    /// Blocks freed by another thread than the one that allocated them, or that last resized them.
    pub remote: usize,
    /// Threads that have lived.
    pub threads: usize,
}

impl std::ops::Add for Report {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            allocated: self.allocated + other.allocated,
            remote: self.remote + other.remote,
            threads: self.threads + other.threads,
        }
    }
}

/// Bytes that a script may hold; allocations beyond it are skipped.
const HELD_BYTES: usize = 96 << 20;
/// Largest alignment, as a power of two: beyond a superslab.
const ALIGN_SHIFT_MAX: u8 = 22;

/// Runs a whole script; then frees all blocks, and all threads end.
///
/// # Errors
/// What the allocator did wrong, and in which step.
pub fn run<S: Subject>(subject: S, steps: &[Step]) -> Result<Report, Damage> {
    let mut machine = Machine {
        subject,
        held: Held::new(),
        threads: Default::default(),
        allocated_by: std::collections::HashMap::new(),
        report: Report::default(),
    };
    for (number, step) in steps.iter().enumerate() {
        machine.step(*step).map_err(|damage| format!("step {number}, {step:?}: {damage}"))?;
    }
    machine.finish().map_err(|damage| format!("at the end: {damage}"))?;
    Ok(machine.report)
}

/// Steps from bytes; any bytes will do.
#[must_use]
pub fn decode(script: &[u8]) -> Vec<Step> {
    let mut bytes = Bytes::new(script);
    let mut steps = Vec::new();
    while !bytes.is_empty() {
        let kind = bytes.byte();
        let thread = (kind >> 4) % THREADS;
        steps.push(match kind % 16 {
            0..=4 => Step::Allocate {
                thread,
                bytes: bytes.size(),
                align_shift: match bytes.byte() {
                    usual @ ..192 => usual % 5,
                    rare => (rare - 192) % (ALIGN_SHIFT_MAX + 1),
                },
                zeroed: kind >= 192,
                count: 1 + bytes.byte() % 64,
            },
            5..=9 => Step::Free { thread, place: bytes.short(), stride: bytes.byte(), count: 1 + bytes.byte() % 64 },
            10 | 11 => Step::Resize { thread, place: bytes.short(), bytes: bytes.size() },
            12 => Step::Usable { thread, place: bytes.short() },
            13 => Step::Exit { thread },
            14 => Step::Turn { thread, knob: bytes.short(), value: bytes.long() },
            _ if kind >= 64 => Step::Collect { thread },
            _ => Step::Check,
        });
    }
    steps
}

/// A step as its thread sees it.
enum Command {
    Allocate { layout: Layout, zeroed: bool, count: usize },
    Resize { block: Block, layout: Layout, bytes: usize },
    Free { blocks: Vec<(Block, Layout)> },
    Usable { block: Block },
    Collect,
    Turn { knob: u16, value: u64 },
}

/// What came of it: one for each block that was asked about.
#[derive(Clone, Copy)]
struct Answer {
    block: Option<NonNull<u8>>,
    usable: Option<usize>,
}

// SAFETY: whoever receives the answer is the only one to use the block.
unsafe impl Send for Answer {}

/// A live thread: it waits for a command, carries it out, answers, and waits again.
struct Worker {
    commands: SyncSender<Command>,
    answers: Receiver<Vec<Answer>>,
    thread: JoinHandle<()>,
}

impl Worker {
    fn new<S: Subject>(subject: S) -> Self {
        let (commands, orders) = sync_channel::<Command>(0);
        let (replies, answers) = sync_channel(1);
        let thread = thread::spawn(move || {
            for command in orders {
                if replies.send(carry_out(subject, command)).is_err() {
                    break;
                }
            }
        });
        Self { commands, answers, thread }
    }

    fn ask(&self, command: Command) -> Result<Vec<Answer>, Damage> {
        self.commands.send(command).map_err(|_| "the thread has died")?;
        self.answers.recv().map_err(|_| "the thread has died".to_owned())
    }

    /// Waits until the thread is gone, with all that its end sets off.
    fn end(self) -> Result<(), Damage> {
        drop(self.commands);
        self.thread.join().map_err(|_| "the thread panicked".to_owned())
    }
}

fn carry_out<S: Subject>(subject: S, command: Command) -> Vec<Answer> {
    let allocate = |layout, zeroed| match zeroed {
        // SAFETY: the model's layouts have a size.
        false => unsafe { subject.alloc(layout) },
        // SAFETY: as above.
        true => unsafe { subject.alloc_zeroed(layout) },
    };
    let blocks = match command {
        Command::Allocate { layout, zeroed, count } => (0..count).map(|_| allocate(layout, zeroed)).collect(),
        Command::Resize { block, layout, bytes } => {
            // SAFETY: the block is in use, has this layout, and the model has taken it out; the new size is not zero.
            vec![unsafe { subject.realloc(block.pointer.as_ptr(), layout, bytes) }]
        }
        Command::Free { blocks } => {
            for (block, layout) in blocks {
                // SAFETY: the block is in use, has this layout, and the model has taken it out.
                unsafe { subject.dealloc(block.pointer.as_ptr(), layout) };
            }
            Vec::new()
        }
        Command::Usable { block } => vec![block.pointer.as_ptr()],
        Command::Collect => {
            subject.collect();
            Vec::new()
        }
        Command::Turn { knob, value } => {
            subject.turn(knob, value);
            Vec::new()
        }
    };
    let answer = |block| {
        let block = NonNull::new(block);
        // SAFETY: the block was handed out just now, or the model holds it.
        Answer { block, usable: block.and_then(|block| unsafe { subject.usable(block) }) }
    };
    blocks.into_iter().map(answer).collect()
}

struct Machine<S> {
    subject: S,
    held: Held,
    threads: [Option<Worker>; THREADS as usize],
    /// Number of the thread (counting from the first born) that a block came from.
    allocated_by: std::collections::HashMap<usize, u8>,
    report: Report,
}

impl<S: Subject> Machine<S> {
    fn ask(&mut self, thread: u8, command: Command) -> Result<Vec<Answer>, Damage> {
        let place = &mut self.threads[usize::from(thread % THREADS)];
        if place.is_none() {
            self.report.threads += 1;
        }
        place.get_or_insert_with(|| Worker::new(self.subject)).ask(command)
    }

    fn step(&mut self, step: Step) -> Result<(), Damage> {
        match step {
            Step::Allocate { thread, bytes, align_shift, zeroed, count } => {
                self.allocate(thread, layout_of(bytes, 1 << align_shift.min(ALIGN_SHIFT_MAX))?, zeroed, count.into())
            }
            Step::Resize { thread, place, bytes } => self.resize(thread, place, bytes),
            Step::Free { thread, place, stride, count } => {
                let places = (0..usize::from(count)).map(|number| usize::from(place) + number * usize::from(stride));
                self.free(thread, places)
            }
            Step::Usable { thread, place } => {
                let Some(block) = self.held.pick(usize::from(place)) else { return Ok(()) };
                let answers = self.ask(thread, Command::Usable { block })?;
                let usable = answers.first().and_then(|answer| answer.usable);
                if usable == Some(block.usable) {
                    return block.check();
                }
                Err(format!("{block:?} has {usable:?} usable bytes now"))
            }
            Step::Collect { thread } => {
                self.ask(thread, Command::Collect)?;
                self.held.check()
            }
            Step::Exit { thread } => {
                let worker = self.threads[usize::from(thread % THREADS)].take();
                // The next thread of this number is another one.
                self.allocated_by.retain(|_, allocator| *allocator != thread % THREADS);
                worker.map_or(Ok(()), Worker::end)
            }
            Step::Turn { thread, knob, value } => {
                self.ask(thread, Command::Turn { knob, value })?;
                Ok(())
            }
            Step::Check => self.held.check(),
        }
    }

    fn allocate(&mut self, thread: u8, layout: Layout, zeroed: bool, count: usize) -> Result<(), Damage> {
        let room = HELD_BYTES.saturating_sub(self.held.bytes());
        let count = count.min(room / (layout.size() + layout.align()));
        let answers = self.ask(thread, Command::Allocate { layout, zeroed, count })?;
        for answer in answers {
            let (block, usable) = complete(answer)?;
            self.report.allocated += 1;
            self.allocated_by.insert(block.addr().get(), thread % THREADS);
            self.held.admit(block, Request { asked: layout.size(), align: layout.align(), zeroed }, usable)?;
        }
        Ok(())
    }

    fn resize(&mut self, thread: u8, place: u16, bytes: usize) -> Result<(), Damage> {
        let bytes = bytes.clamp(1, SIZE_MAX);
        if self.held.bytes() + bytes > HELD_BYTES {
            return Ok(());
        }
        let Some(old) = self.held.take(usize::from(place))? else { return Ok(()) };
        let layout = layout_of(old.asked, old.align)?;
        let answers = self.ask(thread, Command::Resize { block: old, layout, bytes })?;
        let (block, usable) = complete(*answers.first().ok_or("no answer")?)?;
        if block != old.pointer {
            self.allocated_by.remove(&old.pointer.addr().get());
            self.allocated_by.insert(block.addr().get(), thread % THREADS);
        }
        self.held.admit_resized(&old, block, Request { asked: bytes, align: old.align, zeroed: false }, usable)
    }

    fn free(&mut self, thread: u8, places: impl Iterator<Item = usize>) -> Result<(), Damage> {
        let mut blocks = Vec::new();
        for place in places {
            let Some(block) = self.held.take(place)? else { break };
            if self.allocated_by.remove(&block.pointer.addr().get()) != Some(thread % THREADS) {
                self.report.remote += 1;
            }
            blocks.push((block, layout_of(block.asked, block.align)?));
        }
        self.ask(thread, Command::Free { blocks })?;
        Ok(())
    }

    /// Threads take turns in freeing, end one by one, and what is left is counted.
    fn finish(&mut self) -> Result<(), Damage> {
        let living: Vec<u8> = (0..THREADS).filter(|&thread| self.threads[usize::from(thread)].is_some()).collect();
        for number in 0_usize.. {
            if self.held.count() == 0 {
                break;
            }
            let thread = number.checked_rem(living.len()).map_or(0, |place| living[place]);
            // Some at a time, so that each thread frees blocks of all others.
            self.free(thread, [0; 8].into_iter())?;
        }
        for thread in self.threads.iter_mut().filter_map(Option::take) {
            thread.end()?;
        }
        self.subject.reset();
        let subject = self.subject;
        let last = thread::spawn(move || {
            subject.collect();
            subject.leftover()
        });
        last.join().map_err(|_| "the last thread panicked".to_owned())?
    }
}

fn complete(answer: Answer) -> Result<(NonNull<u8>, usize), Damage> {
    let block = answer.block.ok_or("a request that can be served was refused")?;
    let usable = answer.usable.ok_or_else(|| format!("{block:?} has no usable size"))?;
    Ok((block, usable))
}

fn layout_of(bytes: usize, align: usize) -> Result<Layout, Damage> {
    Layout::from_size_align(bytes.clamp(1, SIZE_MAX), align).map_err(|error| error.to_string())
}

/// A script as text, one step per line, as a test can take it over.
#[must_use]
pub fn show(steps: &[Step]) -> String {
    steps.iter().fold(String::new(), |mut text, step| {
        let _cannot_fail = writeln!(text, "    Step::{step:?},");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;
    use std::alloc::System;
    use std::sync::Mutex;

    /// The system's allocator with a mistake.
    #[derive(Clone, Copy)]
    struct Subjected(Mistake);

    #[derive(Clone, Copy, PartialEq)]
    enum Mistake {
        None,
        KeepsOneBlock,
        ScribblesOnCollect,
        WrongUsableAfterTurn,
        LosesContents,
    }

    static LAST: Mutex<usize> = Mutex::new(0);
    static TURNED: Mutex<bool> = Mutex::new(false);
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    // SAFETY: the system's allocator, but for the mistakes, which stay inside blocks in use.
    unsafe impl GlobalAlloc for Subjected {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: passed on.
            let block = unsafe { System.alloc(layout) };
            *LAST.lock().unwrap() = block.expose_provenance();
            block
        }
        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            *LAST.lock().unwrap() = 0;
            // SAFETY: passed on.
            unsafe { System.dealloc(block, layout) };
        }
        unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
            *LAST.lock().unwrap() = 0;
            // SAFETY: passed on.
            let moved = unsafe { System.realloc(block, layout, bytes) };
            if self.0 == Mistake::LosesContents && bytes > layout.size() {
                // SAFETY: the block is larger than the layout's size, which is at least one.
                unsafe { moved.wrapping_add(layout.size() - 1).write(0xEE) };
            }
            moved
        }
    }

    impl Subject for Subjected {
        unsafe fn usable(&self, block: NonNull<u8>) -> Option<usize> {
            // SAFETY: the block is in use.
            let usable = unsafe { libc::malloc_usable_size(block.as_ptr().cast()) };
            Some(usable - usize::from(self.0 == Mistake::WrongUsableAfterTurn && *TURNED.lock().unwrap()))
        }
        fn collect(&self) {
            let last = std::ptr::with_exposed_provenance_mut::<u8>(*LAST.lock().unwrap());
            if self.0 == Mistake::ScribblesOnCollect && !last.is_null() {
                // SAFETY: the newest block, which is in use.
                unsafe { last.write(0xEE) };
            }
        }
        fn turn(&self, _knob: u16, _value: u64) {
            *TURNED.lock().unwrap() = true;
        }
        fn reset(&self) {
            *TURNED.lock().unwrap() = false;
        }
        fn leftover(&self) -> Result<(), Damage> {
            if self.0 == Mistake::KeepsOneBlock { Err("a block".to_owned()) } else { Ok(()) }
        }
    }

    fn script(seed: u64) -> Vec<Step> {
        let mut random = Random::new(seed);
        decode(&(0..400).map(|_| (random.next() >> 32) as u8).collect::<Vec<_>>())
    }

    #[test]
    fn the_system_passes_and_blocks_change_hands() {
        let _alone = ONE_AT_A_TIME.lock();
        let mut seen = Report::default();
        for seed in 0..20 {
            seen = seen + run(Subjected(Mistake::None), &script(seed)).unwrap();
        }
        assert!(seen.remote > 200 && seen.allocated > 1000 && seen.threads > 80, "{seen:?}");
    }

    #[test]
    fn what_an_allocator_can_get_wrong_is_found() {
        let _alone = ONE_AT_A_TIME.lock();
        let finds = |mistake| (0..60).find_map(|seed| run(Subjected(mistake), &script(seed)).err()).unwrap();
        assert!(finds(Mistake::KeepsOneBlock).contains("at the end: a block"));
        assert!(finds(Mistake::ScribblesOnCollect).contains("Collect"));
        assert!(finds(Mistake::WrongUsableAfterTurn).contains("usable bytes"));
        assert!(finds(Mistake::LosesContents).contains("contents of"));
    }
}
