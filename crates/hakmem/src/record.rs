//! The heap record: what a thread holds, found from any route word that names it.

use core::cell::Cell;
use hakmem_atomic_ops::SharedPtr;
use hakmem_base::{HEAP_RECORD_BYTES, keeping_errno};
use hakmem_bigcache::BigPolicy;
use hakmem_mid_pool::{RunCache, RunPolicy};
use hakmem_policy::FrozenPolicy;
use hakmem_tiny_front::{FrontPolicy, Heap};

use crate::global::GLOBAL;
use crate::watcher;

/// Requests above 32 KiB between two heartbeats of these.
const LARGE_REQUESTS_PER_BEAT: u32 = 16;

/// One thread's heap. Allocated once, aligned to [`HEAP_RECORD_BYTES`], recycled by later threads, never unmapped.
#[repr(C)]
pub(crate) struct HeapRecord {
    /// First, so that its bins are at the start of the record.
    pub heap: Heap,
    pub runs: RunCache,
    /// The policy's generation for which runs may be handed out without another look: the present one, unless samples are on.
    again_generation: Cell<u64>,
    pub run_policy: Cell<RunPolicy>,
    pub big_policy: Cell<BigPolicy>,
    /// See [`HeapRecord::unless_capturing`].
    is_capturing: Cell<bool>,
    /// Requests above 32 KiB that its cache of runs did not serve at once.
    large_requests: Cell<u32>,
    /// Destructor rounds of the thread that have passed.
    pub exit_rounds: Cell<u8>,
    pub watch: watcher::Pace,
    /// Next record in the list of all records; written once, before the record is published.
    pub next_record: SharedPtr<HeapRecord>,
    /// Next record in the list of free ones; under the registry's lock.
    pub next_free: Cell<*const HeapRecord>,
}

const _: () = assert!(size_of::<HeapRecord>() <= HEAP_RECORD_BYTES);
const _: () = assert!(core::mem::offset_of!(HeapRecord, heap) == 0);

// SAFETY: cells are used by the thread that holds the record alone (the registry's lock hands it over); what other
// threads read are atomics: mailbox, counters, list pointers.
unsafe impl Sync for HeapRecord {}

impl HeapRecord {
    /// All zero: the two static records then take no page of the library's file, and a small process reads one of them. Whoever
    /// takes a record tells it the policy.
    pub const fn new() -> Self {
        Self {
            heap: Heap::unset(),
            runs: RunCache::new(),
            again_generation: Cell::new(0),
            run_policy: Cell::new(RunPolicy::UNSET),
            big_policy: Cell::new(BigPolicy::UNSET),
            is_capturing: Cell::new(false),
            large_requests: Cell::new(0),
            exit_rounds: Cell::new(0),
            watch: watcher::Pace::new(),
            next_record: SharedPtr::new(core::ptr::null_mut()),
            next_free: Cell::new(core::ptr::null()),
        }
    }

    /// Whether no newer policy waits to be picked up.
    #[inline]
    pub fn is_up_to_date(&self) -> bool {
        GLOBAL.policy.generation() == self.heap.policy().generation
    }

    /// Whether a run may be handed out without another look: no newer policy waits, and no request is to be a sample.
    #[inline(always)]
    pub fn serves_again(&self) -> bool {
        u64::from(GLOBAL.policy.generation()) == self.again_generation.get()
    }

    /// Sends the next request for a run the long way, where its block can be watched, even if the cache has a run for it.
    pub fn look_at_next_run(&self) {
        self.again_generation.set(u64::MAX);
    }

    /// True if [`HeapRecord::look_at_next_run`] was called since the last time, and this request is the one it meant.
    pub fn take_run_to_look_at(&self) -> bool {
        let numbers = self.heap.policy();
        let is_it = numbers.sample == 0 && self.again_generation.get() == u64::MAX;
        if is_it {
            self.again_generation.set(numbers.generation.into());
        }
        is_it
    }

    /// Does work that walks the stack or asks the loader, as the making of a sample does, and keeps `errno`. Such work may allocate:
    /// called from inside it, this does nothing and returns `None`.
    pub fn unless_capturing<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        if self.is_capturing.replace(true) {
            return None;
        }
        let result = keeping_errno(work);
        self.is_capturing.set(false);
        Some(result)
    }

    /// Counts a request above 32 KiB. True if a heartbeat is due: those of small classes do not come in a thread that allocates none.
    pub fn count_large_request(&self) -> bool {
        self.large_requests.set(self.large_requests.get().wrapping_add(1));
        self.large_requests.get().is_multiple_of(LARGE_REQUESTS_PER_BEAT)
    }

    /// Copies the numbers that this thread's slow paths use.
    #[unsafe(link_section = ".text.hot.hakmem")]
    pub fn set_policy(&self, policy: &FrozenPolicy) {
        self.heap.set_policy(FrontPolicy::from_frozen(policy));
        self.run_policy.set(run_policy(policy));
        // Without tables nothing is kept.
        if let Some(tables) = GLOBAL.front.tables() {
            self.runs.fit(&GLOBAL.run_context(tables, Some(self)));
        }
        let numbers = self.heap.policy();
        self.again_generation.set(if numbers.sample == 0 { numbers.generation.into() } else { u64::MAX });
        self.big_policy.set(big_policy(policy));
    }
}

pub(crate) fn run_policy(policy: &FrozenPolicy) -> RunPolicy {
    RunPolicy {
        cache_bytes: policy.run_cache_bytes,
        cache_runs: policy.run_cache_runs,
        w_max_permille: policy.w_max_large_permille,
        bundle_runs: policy.bundle_runs,
        large_cap: policy.large_cap,
    }
}

pub(crate) fn big_policy(policy: &FrozenPolicy) -> BigPolicy {
    BigPolicy {
        retain_bytes: policy.big_retain_bytes,
        retain_ms: policy.big_retain_ms,
        slack_permille: policy.big_slack_permille,
        thp_bytes: policy.big_thp_bytes,
        room_permille: policy.realloc_room_permille,
        outside: policy.memory_limit_bytes == 0,
        window_max_bytes: GLOBAL.physical_bytes.load_relaxed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fresh memory of the arena is taken for a new record as it is.
    #[test]
    fn a_new_record_is_all_zero() {
        // Zero before as well, so that what lies between fields is.
        let mut place = Box::<HeapRecord>::new_zeroed();
        place.write(const { HeapRecord::new() });
        let words = place.as_ptr().cast::<usize>();
        for index in 0..size_of::<HeapRecord>() / size_of::<usize>() {
            let word = words.wrapping_add(index);
            // SAFETY: within the record, every byte of which has been written.
            assert_eq!(unsafe { word.read_volatile() }, 0, "word {index}");
        }
    }
}
