//! Models: the boxes' own code under loom, which runs every order of events that the memory model allows (up to a bound).
//!
//! loom's atomics register themselves when they are made, so they cannot be made in a constant, in zeroed memory or by a
//! thread that others do not follow. Ours must be all of that. So a word keeps its layout and its constructor, and what
//! stands *beside* it is a loom atomic from a store that the model's first thread filled: assigned by the word's address
//! when it is first used, and holding the difference to the word's first value. Outside a model a word is what it always is.
//!
//! **Not here.** What the models are about: each box has its own in `tests/loom_*.rs`.
//! **Invariants.** An operation at the site that [`RELAX`] names is relaxed, in every model of the process, and no other one.
//! **Access.** loom runs the threads of a model one at a time on one thread of the machine, so thread-local state is shared
//! by a model and separate between models. Nothing is borrowed across an operation of loom, where threads change.
//! **Bounds.** A word that is moved after its first use starts anew from its last value. [`Owned32`](crate::Owned32) and
//! [`Owned64`](crate::Owned64) are probed strictly: what the boxes allow for statistics, a reader that nothing orders,
//! is a race here.

#![allow(missing_docs, reason = "test support that no ordinary build contains")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "test support: a panic is the model's failure"
)]

mod sites;
mod store;
pub mod thread;
pub(crate) mod words;

pub use sites::{RELAX, SITES};

pub(crate) use store::FutexTable;

use std::rc::Rc;
use store::Store;

/// If set, models explore their longer bounds.
pub const LONG: &str = "HAKMEM_TEST_LOOM_LONG";

/// How far a model is explored.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    preemptions: Option<usize>,
    words: usize,
    cells: usize,
    branches: usize,
    is_deep: bool,
}

impl Model {
    /// Every order of events.
    #[must_use]
    pub fn exhaustive() -> Self {
        Self { preemptions: None, words: 24, cells: 24, branches: 10_000, is_deep: false }
    }

    /// Every order with at most `quick` preemptions, or `long` ones under [`LONG`]; threads that wait or end give way freely.
    #[must_use]
    pub fn preemptions(quick: usize, long: usize) -> Self {
        let bound = if std::env::var_os(LONG).is_some() { long } else { quick };
        Self { preemptions: Some(bound), ..Self::exhaustive() }
    }

    /// Room for this many different shared words and this many probed places.
    #[must_use]
    pub fn room(self, words: usize, cells: usize) -> Self {
        Self { words, cells, ..self }
    }

    /// For scenarios that need more stack than loom gives a model's first thread (32 KiB): they run in a second one.
    #[must_use]
    pub fn deep(self) -> Self {
        Self { is_deep: true, ..self }
    }

    /// Runs `scenario` in every order.
    pub fn check(self, scenario: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = self.preemptions;
        builder.max_branches = self.branches;
        let bound = self.preemptions.map_or_else(|| "exhaustive".into(), |bound| std::format!("{bound} preemptions"));
        std::println!("exploring: {bound}");
        Store::count_runs_from_zero();
        let scenario = std::sync::Arc::new(scenario);
        builder.check(move || {
            Store::install(self.words, self.cells);
            if self.is_deep {
                let scenario = std::sync::Arc::clone(&scenario);
                thread::spawn(move || scenario()).join().expect("the model's second thread ends");
            } else {
                run_here(&*scenario);
            }
            Store::remove();
        });
        sites::write_down();
        std::println!("model: {} orders of events ({bound})", Store::runs());
    }
}

/// Its own function, so that the first thread's frame has no room for a scenario that runs in the second one.
#[inline(never)]
fn run_here(scenario: &(dyn Fn() + Send + Sync)) {
    scenario();
}

/// A plain access to whatever begins at `place` is about to read it. Races with an unordered [`writes`].
#[track_caller]
pub fn reads(place: *const u8) {
    Store::cell(place.addr(), |cell| cell.with(|_| ()));
}

/// A plain access to whatever begins at `place` is about to write it. Races with every unordered access.
#[track_caller]
pub fn writes(place: *const u8) {
    Store::cell(place.addr(), |cell| cell.with_mut(|_| ()));
}

/// Who sleeps, in a model.
pub(crate) fn futexes() -> Option<Rc<FutexTable>> {
    Store::futexes()
}

/// Lets the other threads of the model run.
pub(crate) fn spin_hint() {
    if Store::is_installed() {
        loom::thread::yield_now();
    } else {
        core::hint::spin_loop();
    }
}
