//! Whether the program has more threads than one.
//!
//! Threads that allocate have heaps, which are counted. Of others, like those of a server that only wait for input, the C library knows:
//! glibc since 2.32 has a byte that says whether the process has a single thread. Without that byte heaps alone decide.
//!
//! **Invariants.** A thread of the library's own does not count: from its start on only what was known before does.

use hakmem_atomic_ops::Flag;

use crate::global::GLOBAL;

/// What was known before a thread of the library's own, or a fork, made the C library's answer useless.
pub(crate) struct Company {
    /// The C library's answer is useless.
    is_on_its_own: Flag,
    had_others: Flag,
}

impl Company {
    pub const fn new() -> Self {
        Self { is_on_its_own: Flag::new(false), had_others: Flag::new(false) }
    }

    /// Whether the program has, or had, a thread besides the one that asks.
    pub fn is_present(&self) -> bool {
        let is_known = self.had_others.is_set_relaxed() || GLOBAL.registry.peak.load_relaxed() > 1;
        is_known || (!self.is_on_its_own.is_set_relaxed() && c_library_knows_others())
    }

    /// In a forked child, which has one thread, whatever the C library says of its parent's: from now on heaps decide.
    pub fn forget_in_child(&self) {
        // ORDERING: the child has one thread; flags have no relaxed store.
        self.had_others.store_release(false);
        // ORDERING: as above.
        self.is_on_its_own.store_release(true);
    }

    /// Before the library starts a thread of its own.
    pub fn expect_own_thread(&self) {
        if !self.is_on_its_own.is_set_relaxed() && c_library_knows_others() {
            // ORDERING: nothing travels; flags have no relaxed store.
            self.had_others.store_release(true);
        }
        // ORDERING: as above. Between the two a stranger sees what the C library says, which is still true.
        self.is_on_its_own.store_release(true);
    }
}

/// `__libc_single_threaded`, a weak symbol: static, older and other C libraries lack it.
#[cfg(all(target_arch = "x86_64", target_env = "gnu", not(miri)))]
fn c_library_knows_others() -> bool {
    use core::arch::asm;

    let says_single: *const u8;
    // SAFETY: reads an address from the table of the dynamic linker, null if there is no such symbol.
    unsafe {
        asm!(
            ".weak __libc_single_threaded",
            "mov {says_single}, qword ptr [rip + __libc_single_threaded@GOTPCREL]",
            says_single = out(reg) says_single,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    // SAFETY: null, or a byte of the C library, which writes it when threads start and end; any value it has is an answer.
    !says_single.is_null() && unsafe { says_single.read_volatile() } == 0
}

#[cfg(not(all(target_arch = "x86_64", target_env = "gnu", not(miri))))]
fn c_library_knows_others() -> bool {
    false
}
