//! The allocator behind this library, found by name, and a little memory for the time while it is being found.

use core::cell::Cell;
use core::ffi::{CStr, c_void};
use core::ptr::null_mut;
use hakmem_atomic_ops::{SharedPtr, SharedUsize};

/// A function of the allocator behind.
pub struct Next {
    name: &'static CStr,
    /// Relaxed: the address is all the data, and every look-up finds the same.
    address: SharedPtr<c_void>,
}

thread_local! {
    static IS_LOOKING: Cell<bool> = const { Cell::new(false) };
}

impl Next {
    pub const fn new(name: &'static CStr) -> Self {
        Self { name, address: SharedPtr::new(null_mut()) }
    }

    /// The function's address. Null inside the dynamic linker's own look-up: [`early`] serves that.
    pub fn find(&self) -> *mut c_void {
        let known = self.address.load_relaxed();
        if !known.is_null() || IS_LOOKING.replace(true) {
            return known;
        }
        // SAFETY: the name is a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        IS_LOOKING.set(false);
        self.address.store_relaxed(found);
        found
    }
}

const EARLY_BYTES: usize = 64 << 10;

#[repr(align(64))]
struct Early(core::cell::UnsafeCell<[u8; EARLY_BYTES]>);

// SAFETY: each byte is handed out once, by an atomic addition.
unsafe impl Sync for Early {}

static EARLY: Early = Early(core::cell::UnsafeCell::new([0; EARLY_BYTES]));
static EARLY_USED: SharedUsize = SharedUsize::new(0);

/// Zeroed memory that is never taken back, for what the dynamic linker allocates during a look-up. Null when it is used up.
pub fn early(bytes: usize) -> *mut c_void {
    let wanted = bytes.saturating_add(63) & !63;
    let start = EARLY_USED.add_relaxed(wanted.min(EARLY_BYTES));
    if wanted > EARLY_BYTES || start.saturating_add(wanted) > EARLY_BYTES {
        return null_mut();
    }
    EARLY.0.get().cast::<u8>().wrapping_add(start).cast()
}

/// Whether `block` came from [`early`].
pub fn is_early(block: *mut c_void) -> bool {
    block.addr().wrapping_sub(EARLY.0.get().addr()) < EARLY_BYTES
}

/// Bytes from `block`, which came from [`early`], to the end of that memory.
pub fn early_bytes_from(block: *mut c_void) -> usize {
    EARLY_BYTES - block.addr().wrapping_sub(EARLY.0.get().addr())
}
