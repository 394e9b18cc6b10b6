//! Site rules at the gates: which rule of the policy file, if any, is for a big block that is asked for.
//!
//! A rule names calls. Whoever asks for a block above 2 MiB while rules are in force, and only then, has the innermost calls of its
//! stack looked at, one by one, until no rule can be meant any more. The longest rule that fits wins; of equals, the first.
//!
//! **Not here.** What a hint does (the box of big blocks), reading the file (`policy_file.rs`), learning rules.
//! **Invariants.** Without rules nothing here is asked but one word, and that for big blocks only. Rules are there before the first
//! allocation or never; they are never changed. A rule for a module that is not there is never met, and no harm.

use core::ptr::NonNull;
use hakmem_atomic_ops::{SetOnce, Shared32, Shared64};
use hakmem_bigcache::{BigHint, HintedPages};
use hakmem_ownership::BIG_NOTES;
use hakmem_policy::file::parse_policy_file;
use hakmem_policy::{FrozenPolicy, Pages, SITE_RULES, Settings, SiteRule};
use hakmem_sampled::Trace;

use crate::global::GLOBAL;
use crate::modules::Module;
use crate::record::HeapRecord;

const _: () = assert!(SITE_RULES < BIG_NOTES as usize && SITE_RULES <= u64::BITS as usize);

/// The rules, and what became of them.
pub(crate) struct State {
    rules: SetOnce<&'static [SiteRule<'static>]>,
    /// How many are in force.
    count: Shared32,
    /// Statistics; relaxed.
    walks: Shared64,
    hits: Shared64,
}

impl State {
    pub const fn new() -> Self {
        Self { rules: SetOnce::new(), count: Shared32::new(0), walks: Shared64::new(0), hits: Shared64::new(0) }
    }
}

/// Takes the `count` rules of a policy file that has been found to be right. Inside the first allocation.
pub(crate) fn install(text: &'static [u8], count: usize) {
    let Some(bytes) = count.checked_mul(size_of::<SiteRule<'static>>()) else { return };
    let Some(memory) = GLOBAL.arena.allocate(bytes, align_of::<SiteRule<'static>>()) else { return };
    let memory: NonNull<SiteRule<'static>> = memory.cast();
    let mut known = 0;
    // It was read before, so nothing can be wrong with it.
    let _policy = parse_policy_file(text, &FrozenPolicy::DEFAULT, &mut |rule| {
        if known < count {
            let place = memory.as_ptr().wrapping_add(known);
            // SAFETY: fresh memory for `count` rules, of which this is one.
            unsafe { place.write(*rule) };
            known += 1;
        }
    });
    // SAFETY: so many were written, and the arena takes nothing back.
    let rules = unsafe { core::slice::from_raw_parts(memory.as_ptr(), known) };
    if GLOBAL.sites.rules.set(rules) {
        GLOBAL.sites.count.store_relaxed(known as u32);
    }
}

/// What the environment asked for.
pub(crate) fn heed(settings: &Settings<'_>) {
    if !settings.site_rules {
        GLOBAL.sites.count.store_relaxed(0);
    }
}

/// Whether there are rules in force.
#[inline]
pub(crate) fn are_ruled() -> bool {
    GLOBAL.sites.count.load_relaxed() != 0
}

/// Those in force.
pub(crate) fn rules() -> &'static [SiteRule<'static>] {
    if are_ruled() { GLOBAL.sites.rules.get().copied().unwrap_or(&[]) } else { &[] }
}

/// What is wanted for a big block that is being asked for. `floor` lies in the frame of whoever asks.
#[cold]
#[inline(never)]
pub(crate) fn hint(record: &HeapRecord, bytes: usize, zeroed: bool, floor: *const u8) -> BigHint {
    let rules = rules();
    let mut wanted = 0_u64;
    for (number, rule) in rules.iter().enumerate() {
        wanted |= u64::from((rule.least_bytes..=rule.most_bytes).contains(&bytes)) << number;
    }
    if wanted == 0 {
        return BigHint::NONE;
    }
    let found = record.unless_capturing(|| {
        GLOBAL.sites.walks.add_relaxed(1);
        find(rules, wanted, floor)
    });
    let Some(number) = found.flatten() else { return BigHint::NONE };
    GLOBAL.sites.hits.add_relaxed(1);
    let hint = hint_of(number as u16 + 1);
    // What waits has contents: a block that is to be zero is no use for it, and would not come back to it.
    if zeroed && hint.keep_ms > 0 { BigHint { note: 0, keep_ms: 0, ..hint } } else { hint }
}

/// The hint that a block with this note was allocated with.
pub(crate) fn hint_of(note: u16) -> BigHint {
    let rule = usize::from(note).checked_sub(1).and_then(|number| rules().get(number));
    rule.map_or(BigHint::NONE, |rule| BigHint {
        note,
        pages: rule.pages.map(|pages| match pages {
            Pages::Small => HintedPages::Small,
            Pages::Huge => HintedPages::Huge,
        }),
        keep_ms: rule.keep_ms,
    })
}

/// The rule among those `wanted` (a bit each) whose calls are the innermost ones of the stack above `floor`.
fn find(rules: &[SiteRule<'_>], mut wanted: u64, floor: *const u8) -> Option<usize> {
    let (mut depth, mut found) = (0, None);
    Trace::walk(floor, &mut |address| {
        // The call stands before the address that it returns to, which may belong to the next function already.
        let call = address.wrapping_sub(1);
        let Some(module) = Module::of(call) else { return false };
        if depth == 0 && module.is_own_library() {
            return true;
        }
        let offset = call.wrapping_sub(module.bias) as u64;
        let mut open = 0;
        for (number, rule) in rules.iter().enumerate().filter(|(number, _)| wanted & (1 << number) != 0) {
            let is_met =
                rule.calls().get(depth).is_some_and(|wanted| wanted.offset == offset && wanted.module == module.name());
            if is_met && rule.calls().len() == depth + 1 {
                // Of those of one length the first: later ones of the same calls are never met.
                if found.is_none_or(|(_, length)| length < depth + 1) {
                    found = Some((number, depth + 1));
                }
            } else if is_met {
                open |= 1 << number;
            }
        }
        wanted = open;
        depth += 1;
        open != 0
    });
    found.map(|(number, _)| number)
}

/// For the statistics.
pub(crate) struct Counts {
    pub rules: u32,
    pub walks: u64,
    pub hits: u64,
}

pub(crate) fn counts() -> Counts {
    let state = &GLOBAL.sites;
    Counts { rules: state.count.load_relaxed(), walks: state.walks.load_relaxed(), hits: state.hits.load_relaxed() }
}
