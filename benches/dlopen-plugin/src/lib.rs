//! A shared library whose Rust code allocates with hakmem, to be loaded and unloaded by programs that know nothing of it.
//!
//! **Invariants.** Nothing that was allocated here is live when [`plugin_work`] returns, except in thread-local storage.

use std::cell::RefCell;
use std::collections::BTreeMap;

#[global_allocator]
static GLOBAL: hakmem::Hakmem = hakmem::Hakmem;

thread_local! {
    /// Outlives the call, so that the thread's end frees into the library.
    static KEPT: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Allocates, frees and keeps a little per thread; returns a number that depends on every byte that was written.
#[unsafe(no_mangle)]
pub extern "C" fn plugin_work(seed: u64) -> u64 {
    let mut tree = BTreeMap::new();
    for number in 0..500_u64 {
        let mixed = (seed + number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        tree.insert(mixed, vec![number as u8; (mixed % 3000) as usize]);
    }
    tree.retain(|key, _| key % 3 != 0);
    let large: Vec<u64> = (0..100_000).collect();
    let other = std::thread::spawn(move || {
        let text: String = (0..1000).map(|number: u64| number.to_string()).collect();
        text.len() as u64
    });
    let other = other.join().unwrap_or(0);
    let _thread_is_ending = KEPT.try_with(|kept| kept.borrow_mut().push(format!("kept {seed}")));
    let bytes: u64 = tree.values().flatten().map(|&byte| u64::from(byte)).sum();
    bytes + large.iter().sum::<u64>() + other
}
