//! What a model has for its words and probed places: loom's objects, made by the model's first thread, found by address.

use core::cell::{Cell, RefCell};
use core::sync::atomic::Ordering;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::thread_local;
use std::vec::Vec;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, AtomicU64};
use loom::sync::{Condvar, Mutex};

thread_local! {
    static STORE: RefCell<Option<Store>> = const { RefCell::new(None) };
    static RUNS: Cell<u64> = const { Cell::new(0) };
}

/// Loom's objects of one execution.
pub(crate) struct Store {
    spare32: Vec<Rc<AtomicU32>>,
    spare64: Vec<Rc<AtomicU64>>,
    spare_turns: Vec<Rc<AtomicU32>>,
    spare_cells: Vec<Rc<UnsafeCell<()>>>,
    words32: HashMap<usize, Entry<AtomicU32>>,
    words64: HashMap<usize, Entry<AtomicU64>>,
    cells: HashMap<usize, Rc<UnsafeCell<()>>>,
    futexes: Rc<FutexTable>,
}

/// The loom atomics of one word.
struct Entry<A> {
    atomic: Rc<A>,
    turn: Rc<AtomicU32>,
    /// The word's value when the atomic was assigned. The atomic holds the difference to it.
    first: u64,
    /// The last value stored, which stands in the word too. If the word says otherwise, another one has taken its place.
    mirror: u64,
}

/// What an operation on a word needs.
pub(crate) struct Word<A> {
    atomic: Rc<A>,
    turn: Rc<AtomicU32>,
    pub(crate) first: u64,
}

impl<A> Word<A> {
    /// The atomic, for the one operation that follows at once.
    ///
    /// loom remembers one last load of an atomic. Where two threads load and the second one then stores, it never tries the
    /// first load after that store. So before each operation comes an exchange of a second atomic, all of which depend
    /// on each other, so that loom tries them in every order. It is relaxed and nobody stores anything else: it orders nothing.
    pub(crate) fn enter(&self) -> &A {
        let _always_0 = self.turn.swap(0, Ordering::Relaxed);
        &self.atomic
    }
}

/// Who sleeps on which word; for all words of a model together.
#[derive(Default)]
pub(crate) struct FutexTable {
    /// `(address of the word, number of the sleeper)`, in the order in which they fell asleep.
    pub(crate) sleepers: Mutex<Sleepers>,
    pub(crate) woken: Condvar,
}

#[derive(Default)]
pub(crate) struct Sleepers {
    pub(crate) asleep: VecDeque<(usize, u64)>,
    pub(crate) next: u64,
}

impl Store {
    pub(super) fn install(words: usize, cells: usize) {
        RUNS.set(RUNS.get() + 1);
        let store = Self {
            spare32: (0..words).map(|_| Rc::new(AtomicU32::new(0))).collect(),
            spare64: (0..words).map(|_| Rc::new(AtomicU64::new(0))).collect(),
            spare_turns: (0..2 * words).map(|_| Rc::new(AtomicU32::new(0))).collect(),
            spare_cells: (0..cells).map(|_| Rc::new(UnsafeCell::new(()))).collect(),
            words32: HashMap::new(),
            words64: HashMap::new(),
            cells: HashMap::new(),
            futexes: Rc::default(),
        };
        // What a failed model left behind belongs to an execution that is gone.
        core::mem::forget(STORE.replace(Some(store)));
    }

    pub(super) fn remove() {
        drop(STORE.take());
    }

    pub(super) fn count_runs_from_zero() {
        RUNS.set(0);
    }

    pub(super) fn runs() -> u64 {
        RUNS.get()
    }

    pub(super) fn is_installed() -> bool {
        STORE.with_borrow(Option::is_some)
    }

    pub(crate) fn futexes() -> Option<Rc<FutexTable>> {
        STORE.with_borrow(|store| store.as_ref().map(|store| Rc::clone(&store.futexes)))
    }

    /// Calls `access` with the cell of a place. Outside a model nothing happens.
    pub(super) fn cell(place: usize, access: impl FnOnce(&UnsafeCell<()>)) {
        let cell = STORE.with_borrow_mut(|store| {
            let store = store.as_mut()?;
            let spare = &mut store.spare_cells;
            let cell = store.cells.entry(place).or_insert_with(|| {
                spare.pop().expect("more probed places than the model has room for: see `Model::room`")
            });
            Some(Rc::clone(cell))
        });
        if let Some(cell) = cell {
            access(&cell);
        }
    }

    pub(crate) fn word32(address: usize, value: u32) -> Option<Word<AtomicU32>> {
        STORE.with_borrow_mut(|store| {
            let store = store.as_mut()?;
            Some(find(&mut store.words32, &mut store.spare32, &mut store.spare_turns, address, u64::from(value)))
        })
    }

    pub(crate) fn word64(address: usize, value: u64) -> Option<Word<AtomicU64>> {
        STORE.with_borrow_mut(|store| {
            let store = store.as_mut()?;
            Some(find(&mut store.words64, &mut store.spare64, &mut store.spare_turns, address, value))
        })
    }

    pub(crate) fn mirror32(address: usize, value: u32) {
        STORE
            .with_borrow_mut(|store| mirror(store.as_mut().map(|store| &mut store.words32), address, u64::from(value)));
    }

    pub(crate) fn mirror64(address: usize, value: u64) {
        STORE.with_borrow_mut(|store| mirror(store.as_mut().map(|store| &mut store.words64), address, value));
    }
}

fn find<A>(
    words: &mut HashMap<usize, Entry<A>>,
    spare: &mut Vec<Rc<A>>,
    spare_turns: &mut Vec<Rc<AtomicU32>>,
    address: usize,
    value: u64,
) -> Word<A> {
    const NO_ROOM: &str = "more shared words than the model has room for: see `Model::room`";
    if words.get(&address).is_some_and(|entry| entry.mirror != value) {
        words.remove(&address);
    }
    let entry = words.entry(address).or_insert_with(|| Entry {
        atomic: spare.pop().expect(NO_ROOM),
        turn: spare_turns.pop().expect(NO_ROOM),
        first: value,
        mirror: value,
    });
    Word { atomic: Rc::clone(&entry.atomic), turn: Rc::clone(&entry.turn), first: entry.first }
}

fn mirror<A>(words: Option<&mut HashMap<usize, Entry<A>>>, address: usize, value: u64) {
    if let Some(entry) = words.and_then(|words| words.get_mut(&address)) {
        entry.mirror = value;
    }
}
