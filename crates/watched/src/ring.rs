//! Lives on their way from the threads that end them to whoever makes something of them.
//!
//! A bounded queue with a turn in each cell (after D. Vyukov's bounded queue): a writer takes a cell by moving `tail` on, writes it, and
//! then says by the cell's turn that it is full. Nobody waits: a writer that finds the ring full counts its life as lost.
//!
//! **Invariants.** A cell's turn is even while it may be written, for the time that `tail` comes by for the turn / 2-th time, and
//! odd while it may be read. All zero is an empty ring.

use hakmem_atomic_ops::{Lock, SetOnce, Shared64};
use hakmem_base::{Life, SITE_FRAMES};
use hakmem_superslab_os::FlatTable;

/// Lives that the ring holds. Few where steps are dear, so that it is full and goes round all the same.
const CELLS: u64 = if cfg!(alloc_loom) {
    2
} else if cfg!(miri) {
    32
} else {
    512
};
const WORDS: usize = 6 + SITE_FRAMES;
/// In place of a number that is not known.
const UNKNOWN: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct Ring {
    cells: SetOnce<FlatTable<Cell>>,
    tail: Shared64,
    /// Where the reader is.
    head: Lock<u64>,
}

#[derive(Debug)]
struct Cell {
    turn: Shared64,
    /// Relaxed: `turn` publishes them.
    words: [Shared64; WORDS],
}

// SAFETY: atomic numbers only, of which zero is a value, and nothing is dropped.
unsafe impl hakmem_base::ZeroValid for Cell {}

impl Ring {
    pub(crate) const fn new() -> Self {
        Self { cells: SetOnce::new(), tail: Shared64::new(0), head: Lock::new(0) }
    }

    /// Gets its memory, once. False: there is none.
    pub(crate) fn reserve(&self) -> bool {
        if self.cells.get().is_some() {
            return true;
        }
        let Some(cells) = FlatTable::reserve(CELLS as usize) else { return false };
        // Another thread's table serves as well; this one is given back.
        let _first = self.cells.set(cells);
        true
    }

    /// False: there is no room.
    #[must_use]
    pub(crate) fn push(&self, life: &Life) -> bool {
        let Some(cells) = self.cells.get() else { return false };
        let mut position = self.tail.load_relaxed();
        loop {
            let Some(cell) = cells.get((position % CELLS) as usize) else { return false };
            let wanted = position / CELLS * 2;
            // ORDERING: pairs with the reader's release in `drain`: it has read what this overwrites.
            let turn = cell.turn.load_acquire();
            if turn < wanted {
                return false;
            }
            if turn > wanted {
                position = self.tail.load_relaxed();
                continue;
            }
            // ORDERING: only decides whose cell it is; the words travel with `turn`.
            match self.tail.cas_weak_acq_rel(position, position + 1) {
                Ok(_) => {
                    cell.write(life);
                    // ORDERING: pairs with `drain`: the words travel.
                    cell.turn.store_release(wanted + 1);
                    return true;
                }
                Err(found) => position = found,
            }
        }
    }

    /// Takes out what is there, oldest first. A second reader waits for the first one.
    pub(crate) fn drain(&self, mut visit: impl FnMut(&Life)) {
        let Some(cells) = self.cells.get() else { return };
        let mut head = self.head.lock();
        // One round at most: writers that are as fast as the reader must not keep it here.
        for _ in 0..CELLS {
            let Some(cell) = cells.get((*head % CELLS) as usize) else { return };
            let full = *head / CELLS * 2 + 1;
            // ORDERING: pairs with `push`: the words travel.
            if cell.turn.load_acquire() != full {
                return;
            }
            let life = cell.read();
            // ORDERING: pairs with `push`: the words have been read.
            cell.turn.store_release(full + 1);
            *head += 1;
            visit(&life);
        }
    }

    pub(crate) fn lock_for_fork(&self) {
        self.head.lock_for_fork();
    }

    /// # Safety
    /// - This thread (or the thread that it is a forked copy of) called [`Ring::lock_for_fork`].
    pub(crate) unsafe fn unlock_after_fork(&self) {
        // SAFETY: passed on to the caller.
        unsafe { self.head.unlock_after_fork() };
    }

    /// In a forked child, which has one thread: a writer of the parent's may have stopped half-way.
    pub(crate) fn clear_in_child(&self) {
        let Some(cells) = self.cells.get() else { return };
        (0..cells.len()).filter_map(|index| cells.get(index)).for_each(|cell| cell.turn.store_relaxed(0));
        self.tail.store_relaxed(0);
        *self.head.lock() = 0;
    }
}

impl Cell {
    fn write(&self, life: &Life) {
        let touched = life.touched_permille.map_or(UNKNOWN, u64::from);
        let known =
            [life.bytes as u64, u64::from(life.weight), life.ns, life.allocs.unwrap_or(UNKNOWN), life.at_ns, touched];
        let frames = life.frames.iter().map(|frame| *frame as u64);
        for (word, value) in self.words.iter().zip(known.into_iter().chain(frames)) {
            word.store_relaxed(value);
        }
    }

    fn read(&self) -> Life {
        let [bytes, weight, ns, allocs, at_ns, touched, frames @ ..] = &self.words;
        let mut life = Life {
            bytes: bytes.load_relaxed() as usize,
            weight: weight.load_relaxed() as u32,
            ns: ns.load_relaxed(),
            allocs: Some(allocs.load_relaxed()).filter(|allocs| *allocs != UNKNOWN),
            at_ns: at_ns.load_relaxed(),
            touched_permille: u16::try_from(touched.load_relaxed()).ok(),
            ..Life::default()
        };
        for (frame, word) in life.frames.iter_mut().zip(frames) {
            *frame = word.load_relaxed() as usize;
        }
        life
    }
}

#[cfg(all(test, not(alloc_loom)))]
mod tests {
    use super::*;

    fn life(number: u64) -> Life {
        let number = number as usize;
        let touched_permille = number.checked_sub(3).map(|touched| touched as u16);
        let frames = [number; SITE_FRAMES];
        Life {
            bytes: number,
            weight: 3,
            ns: number as u64 * 7,
            allocs: None,
            at_ns: number as u64,
            touched_permille,
            frames,
        }
    }

    fn drained(ring: &Ring) -> Vec<Life> {
        let mut lives = Vec::new();
        ring.drain(|life| lives.push(*life));
        lives
    }

    #[test]
    fn lives_come_out_whole_and_in_order_over_many_rounds() {
        let ring = Ring::new();
        assert!(!ring.push(&life(1)), "without memory nothing is kept");
        assert!(ring.reserve() && ring.reserve());
        let mut next = 0;
        for round in 0..if cfg!(miri) { 6 } else { 50 } {
            let count = CELLS - round;
            (next..next + count).for_each(|number| assert!(ring.push(&life(number))));
            assert_eq!(drained(&ring), (next..next + count).map(life).collect::<Vec<_>>());
            next += count;
        }
        let known = Life { allocs: Some(0), ..life(5) };
        assert!(ring.push(&known));
        assert_eq!(drained(&ring), [known]);
    }

    #[test]
    fn a_full_ring_takes_nothing_until_it_is_read() {
        let ring = Ring::new();
        assert!(ring.reserve());
        (0..CELLS).for_each(|number| assert!(ring.push(&life(number))));
        assert!(!ring.push(&life(0)) && !ring.push(&life(0)));
        assert_eq!(drained(&ring).len() as u64, CELLS);
        assert!(ring.push(&life(9)));
        ring.clear_in_child();
        assert_eq!(drained(&ring), []);
        assert!(ring.push(&life(10)));
        assert_eq!(drained(&ring), [life(10)]);
    }

    #[test]
    fn of_many_writers_no_life_is_torn_told_twice_or_silently_lost() {
        let ring = Ring::new();
        assert!(ring.reserve());
        let (writers, each) = (4_u64, if cfg!(miri) { 100 } else { 20_000 });
        let kept = Shared64::new(0);
        let running = Shared64::new(writers);
        let mut seen = Vec::new();
        std::thread::scope(|scope| {
            let (ring, kept, running) = (&ring, &kept, &running);
            for writer in 0..writers {
                scope.spawn(move || {
                    (0..each).for_each(|number| {
                        kept.add_relaxed(u64::from(ring.push(&life(writer * each + number))));
                    });
                    running.sub_relaxed(1);
                });
            }
            while running.load_relaxed() > 0 {
                ring.drain(|life| seen.push(*life));
            }
        });
        ring.drain(|life| seen.push(*life));
        assert_eq!(seen.len() as u64, kept.load_relaxed());
        assert!(seen.iter().all(|seen| *seen == life(seen.bytes as u64)));
        let mut numbers: Vec<_> = seen.iter().map(|life| life.bytes).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), seen.len());
    }
}
