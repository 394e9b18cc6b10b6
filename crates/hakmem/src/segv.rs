//! The handler of SIGSEGV, there only while samples are made: an access to a sample's pages is a finding, all else is passed on.
//!
//! **Invariants.** What is passed on arrives as it came: at the program's own handler with the same arguments, or as a fault at
//! the same instruction where there is none, so that a core dump shows the right place.
//!
//! A protected page of anonymous memory raises SIGSEGV and nothing else on Linux; SIGBUS is left alone.

use core::ffi::{c_int, c_void};
use core::ptr;
use hakmem_atomic_ops::{Flag, SetOnce, Shared64};
use hakmem_base::keeping_errno;
use hakmem_ownership::Route;

use crate::confined::is_confined;
use crate::finding::{self, Access};
use crate::global::GLOBAL;
use crate::signals::action_of;

/// The handler found first, and the one that took our place later.
static FORMERS: [Former; 2] = [const { Former::new() }; 2];
static INSTALLED: Flag = Flag::new(false);
/// Places for faults that were passed on last.
const PASSED_COUNT: usize = 64;
/// Each stands where the address of its description leads, because a thread that faults may have no heap. Relaxed: a thread looks for
/// what it wrote itself. A fault whose mark another thread writes over is passed on once more than need be.
static PASSED: [Shared64; PASSED_COUNT] = [const { Shared64::new(0) }; PASSED_COUNT];
/// Low bits of a mark: how far below the description the frame lay that passed the fault on, in steps of 16 bytes. The others are the
/// description's address.
const DEPTH_BITS: u32 = 16;

/// A handler that was there before ours.
struct Former {
    action: SetOnce<libc::sigaction>,
    /// It wanted to be called once, and has been.
    is_spent: Flag,
}

impl Former {
    const fn new() -> Self {
        Self { action: SetOnce::new(), is_spent: Flag::new(false) }
    }
}

type Handler = unsafe extern "C" fn(c_int);
type InfoHandler = unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// Sees to it that the handler is there before a sample is. Who installs one later takes its place; then this one is put before
/// that one, once, because Rust's runtime and many a program do so at their start. A program that insists has its own alone
/// from then on, and loses the reports of accesses, unless it calls ours.
pub(crate) fn install() {
    let [first, later] = &FORMERS;
    if cfg!(miri) || is_confined() || later.action.get().is_some() {
        return;
    }
    // ORDERING: decides who installs; nothing travels.
    let former = if INSTALLED.is_set_relaxed() || !INSTALLED.try_set_acq_rel() { later } else { first };
    let Some(present) = action_of(libc::SIGSEGV) else { return };
    // Of two threads one gets to put the later one down; the first one's place is ours by the flag.
    if is_ours(&present) || !former.action.set(present) {
        return;
    }
    // SAFETY: all zero is a valid action to be filled.
    let mut action = unsafe { core::mem::zeroed::<libc::sigaction>() };
    action.sa_sigaction = on_fault as *const () as usize;
    // What the former handler wanted of its surroundings it gets: it may be called from this one.
    action.sa_mask = present.sa_mask;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | (present.sa_flags & (libc::SA_NODEFER | libc::SA_RESTART));
    // SAFETY: the action is complete; `uninstall` takes it back before its code goes.
    unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, ptr::null_mut()) };
}

fn is_ours(action: &libc::sigaction) -> bool {
    action.sa_sigaction == on_fault as *const () as usize
}

/// The library is about to go: the handler goes with it, unless somebody has installed another one over it, or nobody may.
pub(crate) fn uninstall() {
    let [first, later] = &FORMERS;
    if !is_confined()
        && let Some(former) = later.action.get().or_else(|| first.action.get())
        && action_of(libc::SIGSEGV).is_some_and(|present| is_ours(&present))
    {
        // SAFETY: puts back what was there.
        unsafe { libc::sigaction(libc::SIGSEGV, former, ptr::null_mut()) };
    }
}

unsafe extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes valid structures.
    let code = unsafe { (*info).si_code };
    // Of a signal that somebody sent, the address means nothing.
    if code > 0 {
        // SAFETY: as above.
        let info = unsafe { &*info };
        // SAFETY: this signal's information has an address.
        let address = unsafe { info.si_addr() }.addr();
        if let Some(Route::Sampled(note)) = GLOBAL.front.route_of(address).map(|word| word.route())
            && let Some(found) = GLOBAL.sampled.judge_access(note, address)
        {
            // SAFETY: the kernel passes the interrupted thread's state.
            let (instruction, access) = unsafe { interrupted(context) };
            finding::report_access(&found, access, instruction);
        }
    }
    let here = 0_u8;
    let former = whose_turn(info.addr(), (&raw const here).addr());
    // SAFETY: passed on as it came.
    keeping_errno(|| unsafe { pass_on(former, signal, info, context) });
}

/// The later handler, or the first one when the later one passes the same fault back to us: it kept ours as the one before it.
/// Then our own call for this fault is still under way, further up the same stack.
fn whose_turn(info: usize, frame: usize) -> &'static Former {
    let [first, later] = &FORMERS;
    if later.action.get().is_none() || came_back(info, frame) { first } else { later }
}

/// Whether the fault that `info` describes has been passed on by a frame above this one. Two threads' descriptions lie on two stacks.
fn came_back(info: usize, frame: usize) -> bool {
    let depth = (info.saturating_sub(frame) as u64 / 16).min((1 << DEPTH_BITS) - 1);
    let fault = (info as u64) << DEPTH_BITS | depth;
    // Fibonacci hashing: stacks lie a round distance apart.
    let hash = (info as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let Some(place) = PASSED.get(hash as usize % PASSED_COUNT) else { return false };
    let passed = place.load_relaxed();
    place.store_relaxed(fault);
    passed >> DEPTH_BITS == fault >> DEPTH_BITS && passed < fault
}

/// # Safety
/// - The arguments are those of a signal handler.
unsafe fn pass_on(former: &Former, signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes valid structures.
    let is_fault = unsafe { (*info).si_code } > 0;
    let (handler, flags) =
        former.action.get().map_or((libc::SIG_DFL, 0), |action| (action.sa_sigaction, action.sa_flags));
    // The kernel does not let a fault be ignored.
    if handler == libc::SIG_IGN && !is_fault {
        return;
    }
    // ORDERING: decides who calls a handler that is called once; nothing travels.
    let is_spent = flags & libc::SA_RESETHAND != 0 && !former.is_spent.try_set_acq_rel();
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN || is_spent {
        // SAFETY: default action, ours no more: the fault comes again when this returns.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        if !is_fault {
            // SAFETY: takes no argument.
            let (process, thread) = (unsafe { libc::getpid() }, unsafe { libc::gettid() });
            // SAFETY: sends the same signal, with the same information, to this thread, which has it blocked until it returns.
            unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, signal, info) };
        }
    } else if flags & libc::SA_SIGINFO != 0 {
        // SAFETY: the program installed this address as a handler of this form.
        let handler = unsafe { core::mem::transmute::<usize, InfoHandler>(handler) };
        // SAFETY: with the kernel's own arguments.
        unsafe { handler(signal, info, context) };
    } else {
        // SAFETY: as above.
        let handler = unsafe { core::mem::transmute::<usize, Handler>(handler) };
        // SAFETY: as above.
        unsafe { handler(signal) };
    }
}

/// Where a thread was interrupted, and what it was doing.
///
/// # Safety
/// - `context` is the third argument of a handler of a fault.
#[cfg(target_arch = "x86_64")]
unsafe fn interrupted(context: *mut c_void) -> (usize, Access) {
    /// Bit of a page fault's error code: it was a write.
    const WRITE: i64 = 2;
    // SAFETY: the caller's promise.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let register = |index: c_int| registers.get(index as usize).copied().unwrap_or(0);
    let access = if register(libc::REG_ERR) & WRITE != 0 { Access::Write } else { Access::Read };
    (register(libc::REG_RIP) as usize, access)
}

/// Where a thread was interrupted, and what it was doing.
///
/// # Safety
/// - `context` is the third argument of a handler of a fault.
#[cfg(target_arch = "aarch64")]
unsafe fn interrupted(context: *mut c_void) -> (usize, Access) {
    // SAFETY: the caller's promise.
    (unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.pc } as usize, Access::Unknown)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn interrupted(_context: *mut c_void) -> (usize, Access) {
    (0, Access::Unknown)
}
