//! Allocation traces: what a program asked of its allocator, on which thread, and how long after the request before.
//!
//! # The format, version 1
//! Every number is a varint: seven bits to the byte, the lowest first, the top bit set on all bytes but the last, at most ten.
//!
//! ```text
//! file    = "HAKTRACE" version name-bytes name event* end
//! event   = tag [thread] delta fields        tag: bits 0-2 the kind, bit 3 "a thread number follows"
//! kind 1  = alloc:  block size               block: zigzag of the difference to the block named before
//! kind 2  = free:   block
//! kind 3  = resize: block size
//! kind 4  = phase:  (none)                   the load changes here: oracles may change policy
//! kind 5  = pass:   (none)                   time passes, for gaps longer than a delta can say
//! end     = 0 events                         how many there were: a file that was cut short is refused
//! ```
//! `delta` is the time in nanoseconds since the event before; without a thread number it happened on the same thread. Block numbers
//! are small: the one that became free last is used first, so a table indexed by them has as many entries as blocks ever lived at once.
//!
//! **Invariants.** What [`Writer`] writes, [`Reader`] reads back, event for event. [`Trace::new`] accepts only traces in which a
//! block is allocated before it is freed, and freed before its number is used again.

use std::io::{self, BufRead, Write};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

const MAGIC: &[u8; 8] = b"HAKTRACE";
const VERSION: u64 = 1;
const KIND_BITS: u8 = 0b111;
const THREAD_FOLLOWS: u8 = 0b1000;
/// Names longer than this are not names (bytes).
const NAME_MAX: u64 = 4096;

/// One thing that a program did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// What it was.
    pub what: What,
    /// Time since the event before, in nanoseconds.
    pub delta_ns: u32,
    /// The thread that did it, counted from 0; [`Trace::new`] refuses the highest number.
    pub thread: u16,
}

/// What a program asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// A block of `size` bytes, called `block` from here on.
    Alloc {
        /// Its number.
        block: u32,
        /// Bytes asked for.
        size: u64,
    },
    /// A block comes back.
    Free {
        /// Its number.
        block: u32,
    },
    /// A block changes its size; it may move.
    Resize {
        /// Its number.
        block: u32,
        /// Bytes asked for.
        size: u64,
    },
    /// The load changes here.
    Phase,
    /// Nothing but time.
    Pass,
}

/// A trace in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trace {
    /// What was recorded.
    pub name: String,
    events: Vec<Event>,
    blocks: u32,
    threads: u16,
}

impl Trace {
    /// A trace of these events.
    ///
    /// # Errors
    /// The first event that no program can cause.
    pub fn new(name: &str, events: Vec<Event>) -> Result<Self> {
        let mut live = Vec::new();
        let mut threads = 0;
        for (position, event) in events.iter().enumerate() {
            let place = || format!("{name}: event {position}");
            let beyond =
                event.thread.checked_add(1).context("more threads than a trace can number").with_context(place)?;
            threads = threads.max(beyond);
            check_event(&mut live, event.what).with_context(place)?;
        }
        Ok(Self { name: name.to_owned(), events, blocks: live.len() as u32, threads })
    }

    /// Reads a trace file.
    ///
    /// # Errors
    /// If it cannot be read, or is no trace.
    pub fn load(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
        let reader = Reader::new(io::BufReader::new(file)).with_context(|| path.display().to_string())?;
        let name = reader.name().to_owned();
        let events = reader.collect::<Result<Vec<_>>>().with_context(|| path.display().to_string())?;
        Self::new(&name, events)
    }

    /// Writes a trace file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
        let mut writer = Writer::new(io::BufWriter::new(file), &self.name)?;
        for event in &self.events {
            writer.write(event)?;
        }
        writer.finish()?;
        Ok(())
    }

    /// The events in order.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Block numbers are below this.
    #[must_use]
    pub fn block_count(&self) -> u32 {
        self.blocks
    }

    /// Thread numbers are below this.
    #[must_use]
    pub fn thread_count(&self) -> u16 {
        self.threads
    }

    /// Time from the first event to the last, in nanoseconds.
    #[must_use]
    pub fn elapsed_ns(&self) -> u64 {
        self.events.iter().map(|event| u64::from(event.delta_ns)).sum()
    }

    /// The trace in a fraction of its time.
    #[must_use]
    pub fn faster(mut self, times: u32) -> Self {
        self.events.iter_mut().for_each(|event| event.delta_ns /= times.max(1));
        self
    }

    /// The trace cut into this many phases of equal length in time, where it names none itself: a recorded program does not say where
    /// its load changes.
    #[must_use]
    pub fn with_phases(mut self, count: u32) -> Self {
        if count < 2 || self.events.iter().any(|event| event.what == What::Phase) {
            return self;
        }
        let length = self.elapsed_ns() / u64::from(count);
        let (mut now, mut border) = (0, length);
        let mut cut = Vec::with_capacity(self.events.len() + count as usize);
        for event in self.events {
            now += u64::from(event.delta_ns);
            while now > border && border < length * u64::from(count) {
                cut.push(Event { what: What::Phase, delta_ns: 0, thread: event.thread });
                border += length;
            }
            cut.push(event);
        }
        self.events = cut;
        self
    }

    /// What frees all that lives at the end, so that the trace can begin again. A recorded program runs for seconds, a server for days:
    /// rounds are the load that comes back.
    #[must_use]
    pub fn tail(&self) -> Vec<Event> {
        let mut live = vec![None; self.blocks as usize];
        for event in &self.events {
            match event.what {
                What::Alloc { block, .. } => set(&mut live, block, Some(event.thread)),
                What::Free { block } => set(&mut live, block, None),
                What::Resize { .. } | What::Phase | What::Pass => {}
            }
        }
        let left = live.iter().enumerate().filter_map(|(block, owner)| owner.map(|thread| (block as u32, thread)));
        left.map(|(block, thread)| Event { what: What::Free { block }, delta_ns: 100, thread }).collect()
    }
}

fn set<T>(table: &mut [T], block: u32, value: T) {
    if let Some(entry) = table.get_mut(block as usize) {
        *entry = value;
    }
}

/// Whether a program can do this now; `live` has an entry for each block number seen so far.
fn check_event(live: &mut Vec<bool>, what: What) -> Result<()> {
    match what {
        What::Alloc { block, .. } => {
            let place = block as usize;
            ensure!(place <= live.len(), "block {block} is numbered too high");
            if place == live.len() {
                live.push(false);
            }
            ensure!(live.get(place) == Some(&false), "block {block} is allocated twice");
            set(live, block, true);
        }
        What::Free { block } | What::Resize { block, .. } => {
            ensure!(live.get(block as usize) == Some(&true), "block {block} does not live");
            set(live, block, matches!(what, What::Resize { .. }));
        }
        What::Phase | What::Pass => {}
    }
    Ok(())
}

/// Gives blocks their numbers: the one that became free last is used first.
#[derive(Debug, Default)]
pub struct Numbers {
    free: Vec<u32>,
    next: u32,
}

impl Numbers {
    /// A number for a new block.
    pub fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    /// The number's block is gone.
    pub fn give(&mut self, number: u32) {
        self.free.push(number);
    }
}

/// Writes a trace, event by event.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    thread: u16,
    block: u32,
    events: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a trace with this name.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(mut out: W, name: &str) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        let mut writer = Self { out, thread: 0, block: 0, events: 0 };
        writer.number(VERSION)?;
        writer.number(name.len() as u64)?;
        writer.out.write_all(name.as_bytes())?;
        Ok(writer)
    }

    /// The next event.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, event: &Event) -> io::Result<()> {
        self.events += 1;
        let (kind, block, size) = match event.what {
            What::Alloc { block, size } => (1, Some(block), Some(size)),
            What::Free { block } => (2, Some(block), None),
            What::Resize { block, size } => (3, Some(block), Some(size)),
            What::Phase => (4, None, None),
            What::Pass => (5, None, None),
        };
        let thread_follows = event.thread != self.thread;
        self.out.write_all(&[kind | if thread_follows { THREAD_FOLLOWS } else { 0 }])?;
        if thread_follows {
            self.number(u64::from(event.thread))?;
            self.thread = event.thread;
        }
        self.number(u64::from(event.delta_ns))?;
        if let Some(block) = block {
            self.number(zigzag(i64::from(block) - i64::from(self.block)))?;
            self.block = block;
        }
        size.map_or(Ok(()), |size| self.number(size))
    }

    /// Ends the trace.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0])?;
        self.number(self.events)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn number(&mut self, mut number: u64) -> io::Result<()> {
        let mut bytes = [0_u8; 10];
        let mut length = 0;
        for byte in &mut bytes {
            *byte = (number & 0x7f) as u8;
            number >>= 7;
            length += 1;
            if number == 0 {
                break;
            }
            *byte |= 0x80;
        }
        self.out.write_all(bytes.get(..length).unwrap_or(&bytes))
    }
}

/// Reads a trace, event by event.
#[derive(Debug)]
pub struct Reader<R: BufRead> {
    input: R,
    name: String,
    thread: u16,
    block: u32,
    events: u64,
    is_over: bool,
}

impl<R: BufRead> Reader<R> {
    /// Begins to read a trace.
    ///
    /// # Errors
    /// If it is none, or of another version.
    pub fn new(mut input: R) -> Result<Self> {
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic).context("too short for a trace")?;
        ensure!(&magic == MAGIC, "not a trace: it does not begin with HAKTRACE");
        let mut reader = Self { input, name: String::new(), thread: 0, block: 0, events: 0, is_over: false };
        let version = reader.number()?;
        ensure!(version == VERSION, "trace of version {version}; this program reads version {VERSION}");
        let length = reader.number()?;
        ensure!(length <= NAME_MAX, "a name of {length} bytes");
        let mut name = vec![0; length as usize];
        reader.input.read_exact(&mut name)?;
        reader.name = String::from_utf8(name).context("the name is not UTF-8")?;
        Ok(reader)
    }

    /// What was recorded.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn event(&mut self) -> Result<Option<Event>> {
        let tag = self.byte()?;
        if tag == 0 {
            let events = self.number()?;
            ensure!(events == self.events, "the trace says {events} events and has {}", self.events);
            return Ok(None);
        }
        if tag & THREAD_FOLLOWS != 0 {
            self.thread = u16::try_from(self.number()?).context("thread number")?;
        }
        let delta_ns = u32::try_from(self.number()?).context("time")?;
        let what = match tag & KIND_BITS {
            1 => What::Alloc { block: self.block()?, size: self.number()? },
            2 => What::Free { block: self.block()? },
            3 => What::Resize { block: self.block()?, size: self.number()? },
            4 => What::Phase,
            5 => What::Pass,
            kind => bail!("event {} is of the unknown kind {kind}", self.events),
        };
        ensure!(tag & !(KIND_BITS | THREAD_FOLLOWS) == 0, "event {} has an unknown flag", self.events);
        self.events += 1;
        Ok(Some(Event { what, delta_ns, thread: self.thread }))
    }

    fn block(&mut self) -> Result<u32> {
        let block = i64::from(self.block).checked_add(unzigzag(self.number()?));
        self.block = block.and_then(|block| u32::try_from(block).ok()).context("block number")?;
        Ok(self.block)
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.input.read_exact(&mut byte).context("the trace is cut short")?;
        let [byte] = byte;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64> {
        let mut number = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            ensure!(bits << shift >> shift == bits, "a number of more than 64 bits");
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        bail!("a number of more than ten bytes")
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let event = self.event().transpose();
        self.is_over = !matches!(event, Some(Ok(_)));
        event
    }
}

const fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

const fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// Puts events together: numbers blocks, and splits gaps that are too long for one delta.
#[derive(Debug, Default)]
pub struct Builder {
    events: Vec<Event>,
    numbers: Numbers,
    waiting_ns: u64,
}

impl Builder {
    /// Lets time pass.
    pub fn pass(&mut self, nanoseconds: u64) {
        self.waiting_ns += nanoseconds;
    }

    /// A new block; its number.
    pub fn alloc(&mut self, thread: u16, size: u64) -> u32 {
        let block = self.numbers.take();
        self.push(thread, What::Alloc { block, size });
        block
    }

    /// A block comes back.
    pub fn free(&mut self, thread: u16, block: u32) {
        self.numbers.give(block);
        self.push(thread, What::Free { block });
    }

    /// A block changes its size.
    pub fn resize(&mut self, thread: u16, block: u32, size: u64) {
        self.push(thread, What::Resize { block, size });
    }

    /// The load changes.
    pub fn phase(&mut self) {
        self.push(0, What::Phase);
    }

    /// Events so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing has happened yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The trace.
    ///
    /// # Errors
    /// The first event that no program can cause.
    pub fn finish(self, name: &str) -> Result<Trace> {
        Trace::new(name, self.events)
    }

    fn push(&mut self, thread: u16, what: What) {
        while self.waiting_ns > u64::from(u32::MAX) {
            self.events.push(Event { what: What::Pass, delta_ns: u32::MAX, thread });
            self.waiting_ns -= u64::from(u32::MAX);
        }
        let delta_ns = std::mem::take(&mut self.waiting_ns) as u32;
        self.events.push(Event { what, delta_ns, thread });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let what = prop_oneof![
            (any::<u32>(), any::<u64>()).prop_map(|(block, size)| What::Alloc { block, size }),
            any::<u32>().prop_map(|block| What::Free { block }),
            (any::<u32>(), any::<u64>()).prop_map(|(block, size)| What::Resize { block, size }),
            Just(What::Phase),
            Just(What::Pass),
        ];
        let event =
            (what, any::<u32>(), any::<u16>()).prop_map(|(what, delta_ns, thread)| Event { what, delta_ns, thread });
        prop::collection::vec(event, 0..200)
    }

    fn written(name: &str, events: &[Event]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), name).unwrap();
        events.iter().for_each(|event| writer.write(event).unwrap());
        writer.finish().unwrap()
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(name in ".{0,40}", events in events()) {
            let bytes = written(&name, &events);
            let reader = Reader::new(bytes.as_slice()).unwrap();
            prop_assert_eq!(reader.name(), name);
            prop_assert_eq!(reader.collect::<Result<Vec<_>>>().unwrap(), events);
        }

        #[test]
        fn a_trace_that_was_cut_short_is_refused(events in events(), at in any::<prop::sample::Index>()) {
            let bytes = written("cut", &events);
            let cut = &bytes[..at.index(bytes.len())];
            let read = Reader::new(cut).and_then(|reader| reader.collect::<Result<Vec<_>>>());
            prop_assert!(read.is_err());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let file = [MAGIC.as_slice(), &[1, 0], &bytes].concat();
            let _either_way = Reader::new(file.as_slice()).unwrap().collect::<Result<Vec<_>>>();
        }
    }

    #[test]
    fn another_version_is_refused_by_its_number() {
        let mut bytes = written("new", &[]);
        bytes[MAGIC.len()] = 2;
        let refusal = Reader::new(bytes.as_slice()).unwrap_err().to_string();
        assert!(refusal.contains("version 2"), "{refusal}");
    }

    #[test]
    fn what_no_program_can_do_is_no_trace() {
        let event = |what| Event { what, delta_ns: 0, thread: 0 };
        let (alloc, free) = (What::Alloc { block: 0, size: 1 }, What::Free { block: 0 });
        assert!(Trace::new("good", [alloc, free, alloc].map(event).to_vec()).is_ok());
        for bad in [vec![free], vec![alloc, alloc], vec![alloc, free, free], vec![What::Alloc { block: 7, size: 1 }]] {
            assert!(Trace::new("bad", bad.into_iter().map(event).collect()).is_err());
        }
    }

    #[test]
    fn a_thread_that_cannot_be_counted_is_refused() {
        let of_thread = |thread| Trace::new("threads", vec![Event { what: What::Pass, delta_ns: 0, thread }]);
        assert_eq!(of_thread(u16::MAX - 1).unwrap().thread_count(), u16::MAX);
        let refusal = format!("{:#}", of_thread(u16::MAX).unwrap_err());
        assert!(refusal.contains("event 0: more threads"), "{refusal}");
    }

    #[test]
    fn a_common_event_takes_few_bytes() {
        let mut builder = Builder::default();
        let blocks: Vec<u32> = (0..100)
            .map(|_| {
                builder.pass(90);
                builder.alloc(0, 64)
            })
            .collect();
        blocks.into_iter().for_each(|block| {
            builder.pass(90);
            builder.free(0, block)
        });
        let trace = builder.finish("small").unwrap();
        assert!(written("small", trace.events()).len() <= 200 * 4 + 20);
    }

    #[test]
    fn a_long_wait_is_split_and_not_shortened() {
        let mut builder = Builder::default();
        builder.pass(10_000_000_000);
        builder.alloc(0, 1);
        let trace = builder.finish("idle").unwrap();
        assert_eq!(trace.elapsed_ns(), 10_000_000_000);
    }

    #[test]
    fn after_its_tail_a_trace_can_begin_again() {
        let mut builder = Builder::default();
        let kept = builder.alloc(0, 10);
        let freed = builder.alloc(1, 20);
        builder.free(0, freed);
        builder.resize(0, kept, 30);
        let trace = builder.finish("twice").unwrap();
        let twice = [trace.events(), &trace.tail(), trace.events()].concat();
        assert!(Trace::new("twice", twice).is_ok());
    }

    #[test]
    fn phases_of_equal_length_are_cut_where_the_trace_names_none() {
        let mut builder = Builder::default();
        for _ in 0..100 {
            builder.pass(1000);
            builder.alloc(0, 8);
        }
        let trace = builder.finish("plain").unwrap().with_phases(4);
        assert_eq!(trace.events().iter().filter(|event| event.what == What::Phase).count(), 3);
        assert_eq!(trace.clone().with_phases(9), trace);
    }
}
