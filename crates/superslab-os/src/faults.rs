//! Refusals on demand, for tests of what happens when the kernel says no.
//!
//! The plan is global to the process, as the kernel is: tests that set it run one at a time.

use hakmem_atomic_ops::Shared64;

/// A kind of system call that can be refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// Reserving address space or mapping metadata memory.
    Mmap,
    /// Making a part of the window writable, or inaccessible.
    Mprotect,
    /// Purging or asking for huge pages.
    Madvise,
    /// Moving OS pages.
    Mremap,
}

/// Upper half: calls still to let through; lower half: calls still to refuse. Relaxed: the word is all there is.
struct Plan(Shared64);

static MMAP: Plan = Plan(Shared64::new(0));
static MPROTECT: Plan = Plan(Shared64::new(0));
static MADVISE: Plan = Plan(Shared64::new(0));
static MREMAP: Plan = Plan(Shared64::new(0));

fn plan(call: Call) -> &'static Plan {
    match call {
        Call::Mmap => &MMAP,
        Call::Mprotect => &MPROTECT,
        Call::Madvise => &MADVISE,
        Call::Mremap => &MREMAP,
    }
}

/// Lets `pass` calls of this kind through and refuses the `refuse` calls after them with `ENOMEM`.
pub fn refuse_calls(call: Call, pass: u32, refuse: u32) {
    plan(call).0.store_relaxed(u64::from(pass) << 32 | u64::from(refuse));
}

/// Ends every plan.
pub fn refuse_nothing() {
    for call in [Call::Mmap, Call::Mprotect, Call::Madvise, Call::Mremap] {
        refuse_calls(call, 0, 0);
    }
}

/// Whether the call that is about to happen is refused; uses up one step of the plan.
pub(crate) fn is_refused(call: Call) -> bool {
    let word = &plan(call).0;
    let mut seen = word.load_relaxed();
    loop {
        let (pass, refuse) = (seen >> 32, seen & 0xffff_ffff);
        if refuse == 0 {
            return false;
        }
        let next = if pass > 0 { (pass - 1) << 32 | refuse } else { refuse - 1 };
        // ORDERING: relaxed would do; another `is_refused` of this word is the only partner.
        match word.cas_weak_acq_rel(seen, next) {
            Ok(_) => return pass == 0,
            Err(found) => seen = found,
        }
    }
}
