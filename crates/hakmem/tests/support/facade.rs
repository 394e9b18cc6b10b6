//! The facade as a subject of the lock-step model: shared by the property test and the fuzz target.
//!
//! The program's own allocator must be another one, so that nothing but the model's blocks is in use.

use std::alloc::{GlobalAlloc, Layout};
use std::fmt::Write;
use std::ptr::NonNull;
use std::sync::Mutex;

use hakmem::Hakmem;
use hakmem_policy::{Kind, parse_environment, variables};
use hakmem_testkit::Damage;
use hakmem_testkit::model::in_the_end;
use hakmem_testkit::model::threads::Subject;

/// Knobs that a script must not turn: with the first, requests that can be served are refused; the second commits up to
/// 2 GiB at once.
const LEFT_ALONE: [&str; 2] = ["memory_limit_bytes", "prefill_superslabs"];

/// Turned only where the environment samples anyway: slots keep their units for ever, and one superslab with a slot in it
/// would hide that another one was not given back.
const SAMPLING: &str = "sample";

/// The allocator as [`hakmem::Hakmem`] gives it.
#[derive(Clone, Copy)]
pub struct Facade;

/// Names and values of the variables that a script has set since the last reset; the policy is what they say together.
static TURNED: Mutex<Vec<(&str, String)>> = Mutex::new(Vec::new());

// SAFETY: passed on to an allocator that keeps the contract.
unsafe impl GlobalAlloc for Facade {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: passed on to the caller.
        unsafe { Hakmem.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: passed on to the caller.
        unsafe { Hakmem.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: passed on to the caller.
        unsafe { Hakmem.dealloc(block, layout) };
    }
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: passed on to the caller.
        unsafe { Hakmem.realloc(block, layout, bytes) }
    }
}

impl Subject for Facade {
    unsafe fn usable(&self, block: NonNull<u8>) -> Option<usize> {
        // SAFETY: the block is in use.
        unsafe { hakmem::usable_size(block.as_ptr()) }
    }

    fn collect(&self) {
        hakmem::collect();
    }

    fn turn(&self, knob: u16, value: u64) {
        let samples = hakmem::stats().samples > 0;
        let may_turn = |field| !LEFT_ALONE.contains(&field) && (samples || field != SAMPLING);
        let turnable = || variables().filter(|known| known.field.is_some_and(may_turn));
        let Some(variable) = turnable().nth(usize::from(knob) % turnable().count()) else { return };
        let mut turned = TURNED.lock().unwrap();
        turned.retain(|(name, _)| *name != variable.name);
        turned.push((variable.name, text_of(variable.kind, value)));
        publish(&turned);
    }

    fn reset(&self) {
        let mut turned = TURNED.lock().unwrap();
        turned.clear();
        publish(&turned);
    }

    fn leftover(&self) -> Result<(), Damage> {
        in_the_end(|| {
            hakmem::collect();
            left()
        })
    }
}

/// What is not free at this moment.
fn left() -> Result<(), Damage> {
    let stats = hakmem::stats();
    // At the hardened level freed blocks wait, and no `collect` weakens that. Slots of samples are kept for ever.
    let is_kept = stats.quarantined_bytes + stats.quarantined_space_bytes + stats.samples > 0;
    let left = [
        ("live bytes", stats.live_bytes),
        ("committed bytes", if is_kept { 0 } else { stats.committed_bytes }),
        ("slabs without an owner", stats.orphan_slabs),
        ("bytes mapped outside the window", stats.outside_bytes),
        ("heaps beside this thread's", stats.live_heaps.saturating_sub(1)),
        ("bytes in samples", stats.sample_bytes),
        ("samples found damaged", stats.sample_findings),
        ("notifications missed", stats.missed_notifications),
        ("ranges kept from madvise", stats.outside_range),
    ];
    let found: Vec<_> = left.iter().filter(|(_, count)| *count != 0).collect();
    if found.is_empty() { Ok(()) } else { Err(format!("left over: {found:?}; {stats:?}")) }
}

/// Publishes what the process began with and what was turned since; what does not fit is bent to fit, as for the environment.
fn publish(turned: &[(&str, String)]) {
    let environment: Vec<(String, String)> = std::env::vars().collect();
    let began_with = environment.iter().map(|(name, text)| (name.as_bytes(), text.as_bytes()));
    // Of two equal names the first counts.
    let pairs = turned.iter().map(|(name, text)| (name.as_bytes(), text.as_bytes())).chain(began_with);
    let policy = parse_environment(pairs, &mut |_| {}).policy;
    hakmem::publish_policy(&policy).unwrap();
}

/// A value that the kind accepts: bounds, small numbers and powers of two more often than others.
fn text_of(kind: Kind, value: u64) -> String {
    let number = |min: u64, max: u64, value: u64| match value % 4 {
        0 => min,
        1 => max,
        2 => min.saturating_add(value >> 2 & 63).min(max),
        _ => (1_u64 << (value >> 2 & 63)).clamp(min, max),
    };
    match kind {
        Kind::Switch => (value & 1).to_string(),
        Kind::Number { never: true, .. } if value % 16 == 15 => "never".to_owned(),
        Kind::Number { zero: true, .. } if value % 16 == 14 => "0".to_owned(),
        Kind::Number { min, max, .. } => number(min, max, value).to_string(),
        Kind::Five { min, max } => {
            let mut text = String::new();
            for place in 0..5 {
                let separator = if place == 0 { "" } else { "," };
                write!(text, "{separator}{}", number(min, max, value >> (6 * place))).unwrap();
            }
            text
        }
        Kind::Sizes { min, max } => {
            // None now and then, else up to three, which may lie in one gap.
            let sizes = (0..value % 4).map(|place| (min + (value >> (9 * place + 8)) % (max - min + 1)).to_string());
            if value.is_multiple_of(4) { "none".to_owned() } else { sizes.collect::<Vec<_>>().join(",") }
        }
        Kind::Classes => format!("{:#x}", u128::from(value) << (value % 64) & ((1 << 73) - 1)),
        Kind::Choice(names) => names[value as usize % names.len()].to_owned(),
        Kind::Text => String::new(),
    }
}
