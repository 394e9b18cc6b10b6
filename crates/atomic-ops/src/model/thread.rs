//! Threads of a model, with room for the boxes' own frames.

pub use loom::thread::{JoinHandle, yield_now};

/// Words of a thread's stack: 512 KiB, of which only what is touched costs memory.
const STACK_WORDS: usize = 1 << 16;

/// Starts a thread of the model.
pub fn spawn<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
    let builder = loom::thread::Builder::new().stack_size(STACK_WORDS);
    builder.spawn(work).expect("loom starts a thread")
}
