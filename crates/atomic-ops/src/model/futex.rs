//! The two futex calls in a model: whoever compares and finds the value sleeps until it is woken.
//!
//! The kernel compares and enqueues under a lock that a waker takes too, so a wake-up between the two is not lost; that is
//! what the table's mutex is for. Nobody wakes without a reason and time does not pass: a wake-up that is missing is a
//! deadlock, which loom reports. The mutex orders more than the kernel promises, but only threads that sleep or wake.

use crate::model::{FutexTable, futexes};
use crate::words::Shared32;

/// Sleeps while `word` is `value`. Outside a model it returns at once, which a futex may.
pub(crate) fn wait(word: &Shared32, value: u32, _timeout_ms: Option<u32>) {
    let Some(table) = futexes() else { return };
    let FutexTable { sleepers, woken } = &*table;
    let Ok(mut sleepers) = sleepers.lock() else { return };
    if word.latest() != value {
        return;
    }
    let me = (core::ptr::from_ref(word).addr(), sleepers.next);
    sleepers.next += 1;
    sleepers.asleep.push_back(me);
    while sleepers.asleep.contains(&me) {
        let Ok(again) = woken.wait(sleepers) else { return };
        sleepers = again;
    }
}

/// Wakes one sleeper of `word`, the one that has slept longest.
pub(crate) fn wake_one(word: &Shared32) {
    let Some(table) = futexes() else { return };
    let FutexTable { sleepers, woken } = &*table;
    let Ok(mut sleepers) = sleepers.lock() else { return };
    let address = core::ptr::from_ref(word).addr();
    if let Some(position) = sleepers.asleep.iter().position(|&(word, _)| word == address) {
        let _woken = sleepers.asleep.remove(position);
        woken.notify_all();
    }
}
