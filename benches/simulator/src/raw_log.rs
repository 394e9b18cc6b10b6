//! From the recorder's log to a trace: addresses become block numbers, clock readings become gaps.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::trace::{Builder, Trace};
use layout::{
    ADDRESS_BITS, ALLOC, FREE, HEADER_BYTES, MAGIC, NAME_OFFSET, RECORD_BYTES, RESIZE, RESIZED, TIME_BITS, UNNUMBERED,
};

#[path = "../../recorder/src/layout.rs"]
pub mod layout;

/// Unfinished records in a row after which the log is over: as many threads may have died in the middle of one.
const UNFINISHED: u32 = 4096;
/// The share of the gaps that are as short as the recorder's own time, for which they are taken.
const SHORTEST_PERMILLE: usize = 10;

/// A record of the log.
#[derive(Clone, Copy, Debug)]
struct Record {
    kind: u8,
    thread: u16,
    address: u64,
    time_ns: u64,
    size: u64,
}

impl Record {
    /// `None`: it was never finished.
    fn from_words([first, second, size]: [u64; 3]) -> Option<Self> {
        let kind = (second >> TIME_BITS) as u8;
        (kind != 0).then_some(Self {
            kind,
            thread: (first >> ADDRESS_BITS) as u16,
            address: first & ((1 << ADDRESS_BITS) - 1),
            time_ns: second & ((1 << TIME_BITS) - 1),
            size,
        })
    }
}

/// Makes a trace of a log.
///
/// # Errors
/// If it cannot be read, or is none.
pub fn convert(path: &Path) -> Result<Trace> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).with_context(|| path.display().to_string())?);
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header).with_context(|| path.display().to_string())?;
    ensure!(header.starts_with(&MAGIC), "{} is no log of the recorder", path.display());
    let name = header.get(NAME_OFFSET..).unwrap_or_default();
    let name = String::from_utf8_lossy(name.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    let (mut records, mut unfinished) = (Vec::new(), 0);
    let mut bytes = [0; RECORD_BYTES];
    while unfinished < UNFINISHED && file.read_exact(&mut bytes).is_ok() {
        let (words, _rest) = bytes.as_chunks::<8>();
        let words = <[[u8; 8]; 3]>::try_from(words).context("a record is three words")?.map(u64::from_le_bytes);
        match Record::from_words(words) {
            Some(record) => {
                records.push(record);
                unfinished = 0;
            }
            None => unfinished += 1,
        }
    }
    build(&name, &records)
}

fn build(name: &str, records: &[Record]) -> Result<Trace> {
    let own_ns = own_time(records);
    let mut builder = Builder::default();
    let (mut live, mut pending) = (HashMap::new(), HashMap::new());
    let mut before = records.first().map_or(0, |record| record.time_ns);
    for record in records {
        // Threads read their clocks before they get a place: times may go back a little.
        builder.pass(record.time_ns.saturating_sub(before).saturating_sub(own_ns));
        before = before.max(record.time_ns);
        let thread = record.thread;
        ensure!(thread != UNNUMBERED, "{name} had more threads in its life than a trace can number");
        match record.kind {
            ALLOC => {
                // Handed out again without a free that was seen: what freed it did not come by the recorder.
                if let Some(lost) = live.remove(&record.address) {
                    builder.free(thread, lost);
                }
                live.insert(record.address, builder.alloc(thread, record.size));
            }
            FREE => {
                if let Some(block) = live.remove(&record.address) {
                    builder.free(thread, block);
                }
            }
            RESIZE => {
                if let Some(block) = live.remove(&record.address) {
                    pending.insert(thread, (record.address, block));
                }
            }
            RESIZED => match (pending.remove(&thread), record.address, record.size) {
                (Some((_, block)), 0, 0) => builder.free(thread, block),
                // Refused: it stays what it was.
                (Some((address, block)), 0, _) => {
                    live.insert(address, block);
                }
                (Some((_, block)), address, size) => {
                    builder.resize(thread, block, size);
                    live.insert(address, block);
                }
                (None, 0, _) => {}
                // A block from before the log began.
                (None, address, size) => {
                    live.insert(address, builder.alloc(thread, size));
                }
            },
            _ => {}
        }
    }
    builder.finish(name)
}

/// What the recorder itself takes per event: the shortest gaps of a thread have nothing else in them.
fn own_time(records: &[Record]) -> u64 {
    let pairs = records.iter().zip(records.iter().skip(1));
    let mut gaps: Vec<u64> = pairs
        .filter(|(one, next)| one.thread == next.thread)
        .map(|(one, next)| next.time_ns.saturating_sub(one.time_ns))
        .collect();
    if gaps.is_empty() {
        return 0;
    }
    let place = gaps.len() * SHORTEST_PERMILLE / 1000;
    *gaps.select_nth_unstable(place).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::What;

    fn record(kind: u8, thread: u16, address: u64, time_ns: u64, size: u64) -> Record {
        Record { kind, thread, address, time_ns, size }
    }

    fn whats(records: &[Record]) -> Vec<What> {
        build("log", records).unwrap().events().iter().map(|event| event.what).collect()
    }

    #[test]
    fn addresses_become_numbers_that_are_used_again() {
        let found =
            whats(&[record(ALLOC, 0, 0x1000, 0, 10), record(FREE, 1, 0x1000, 5, 0), record(ALLOC, 0, 0x2000, 9, 20)]);
        let (alloc, free) = (|size| What::Alloc { block: 0, size }, What::Free { block: 0 });
        assert_eq!(found, [alloc(10), free, alloc(20)]);
    }

    #[test]
    fn a_block_that_moves_keeps_its_number_while_another_thread_takes_its_old_place() {
        let found = whats(&[
            record(ALLOC, 0, 0x1000, 0, 10),
            record(RESIZE, 0, 0x1000, 1, 0),
            record(ALLOC, 1, 0x1000, 2, 7),
            record(RESIZED, 0, 0x3000, 3, 99),
            record(FREE, 0, 0x3000, 4, 0),
        ]);
        assert_eq!(
            found,
            [
                What::Alloc { block: 0, size: 10 },
                What::Alloc { block: 1, size: 7 },
                What::Resize { block: 0, size: 99 },
                What::Free { block: 0 },
            ]
        );
    }

    #[test]
    fn a_refused_resize_changes_nothing_and_one_to_nothing_frees() {
        let refused = [
            record(ALLOC, 0, 0x1000, 0, 10),
            record(RESIZE, 0, 0x1000, 1, 0),
            record(RESIZED, 0, 0, 2, 1 << 60),
            record(RESIZE, 0, 0x1000, 3, 0),
            record(RESIZED, 0, 0, 4, 0),
        ];
        assert_eq!(whats(&refused), [What::Alloc { block: 0, size: 10 }, What::Free { block: 0 }]);
    }

    #[test]
    fn what_was_there_before_the_log_is_ignored() {
        assert_eq!(whats(&[record(FREE, 0, 0x1000, 0, 0)]), []);
    }

    #[test]
    fn a_log_of_more_threads_than_have_numbers_is_refused() {
        assert!(build("log", &[record(FREE, UNNUMBERED - 1, 0x1000, 0, 0)]).is_ok());
        assert!(build("log", &[record(FREE, UNNUMBERED, 0x1000, 0, 0)]).is_err());
    }

    #[test]
    fn the_recorders_own_time_is_taken_off() {
        let records: Vec<Record> = (0..200).map(|at| record(ALLOC, 0, 0x1000 + at * 16, at * 70, 16)).collect();
        assert_eq!(build("log", &records).unwrap().elapsed_ns(), 0);
    }
}
