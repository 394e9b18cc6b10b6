//! Handlers of signals that a setting asks for. Who had the signal before gets it back when the library goes. The handler of SIGSEGV, which
//! passes on what is not its own, is in `segv.rs`.

use core::ffi::c_int;
use core::ptr;
use hakmem_atomic_ops::SetOnce;

use crate::confined::is_confined;

/// A handler of ours, and whom it replaced.
pub(crate) struct Handler {
    run: extern "C" fn(c_int),
    replaced: SetOnce<(c_int, libc::sigaction)>,
}

impl Handler {
    pub const fn new(run: extern "C" fn(c_int)) -> Self {
        Self { run, replaced: SetOnce::new() }
    }

    /// Handles `signal` from now on; false if it cannot be handled.
    pub fn install(&self, signal: c_int) -> bool {
        let Some(present) = action_of(signal) else { return false };
        // SAFETY: an all-zero action is a valid one to fill in.
        let mut action = unsafe { core::mem::zeroed::<libc::sigaction>() };
        action.sa_sigaction = self.run as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: the action is complete; `uninstall` takes it back before its code goes.
        let is_done = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } == 0;
        is_done && self.replaced.set((signal, present))
    }

    /// The library is about to go: the handler goes with it, unless somebody has installed another one over it, or nobody may.
    pub fn uninstall(&self) {
        if !is_confined()
            && let Some((signal, replaced)) = self.replaced.get()
            && action_of(*signal).is_some_and(|present| present.sa_sigaction == self.run as *const () as usize)
        {
            // SAFETY: puts back what was there.
            unsafe { libc::sigaction(*signal, replaced, ptr::null_mut()) };
        }
    }
}

/// What is done about a signal now; none if there is no such signal.
pub(crate) fn action_of(signal: c_int) -> Option<libc::sigaction> {
    // SAFETY: all zero is a valid action to be filled.
    let mut present = unsafe { core::mem::zeroed::<libc::sigaction>() };
    // SAFETY: asks only.
    let asked = unsafe { libc::sigaction(signal, ptr::null(), &raw mut present) };
    (asked == 0).then_some(present)
}

#[cfg(test)]
mod tests {
    use super::*;

    extern "C" fn ours(_: c_int) {}
    extern "C" fn anothers(_: c_int) {}

    fn running(signal: c_int) -> usize {
        action_of(signal).map_or(0, |action| action.sa_sigaction)
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no signals")]
    fn a_handler_gives_its_signal_back_unless_another_one_has_it() {
        let signal = libc::SIGRTMIN() + 3;
        let handler = Handler::new(ours);
        assert!(handler.install(signal));
        assert_eq!(running(signal), ours as *const () as usize);
        handler.uninstall();
        assert_eq!(running(signal), libc::SIG_DFL);
        let (handler, other) = (Handler::new(ours), Handler::new(anothers));
        assert!(handler.install(signal) && other.install(signal));
        handler.uninstall();
        assert_eq!(running(signal), anothers as *const () as usize);
        other.uninstall();
        assert!(!Handler::new(ours).install(libc::SIGKILL));
    }
}
