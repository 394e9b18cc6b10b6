//! Functions of the libraries behind this one, found by name when they are needed for the first time.

use core::cell::Cell;
use core::ffi::{CStr, c_void};
use core::ptr::{NonNull, null_mut};
use hakmem_atomic_ops::SharedPtr;

/// Libraries that hold a C++ runtime, asked in this order when the global scope has none (`dlopen` without `RTLD_GLOBAL`).
const RUNTIMES: [&CStr; 3] = [c"libstdc++.so.6", c"libc++.so.1", c"libc++abi.so.1"];

thread_local! {
    /// True while this thread is inside the dynamic linker, which may itself allocate and free.
    static LOOKING_UP: Cell<bool> = const { Cell::new(false) };
}

/// A function that stands behind ours in the dynamic linker's search order.
pub(crate) struct Next {
    name: &'static CStr,
    /// Its address once it was looked up. Relaxed is enough: the address is all the data, and every lookup finds the same.
    address: SharedPtr<c_void>,
}

impl Next {
    pub(crate) const fn new(name: &'static CStr) -> Self {
        Self { name, address: SharedPtr::new(null_mut()) }
    }

    /// The function's address, or `None` if nobody has it or this call comes from inside a lookup.
    pub(crate) fn find(&self) -> Option<NonNull<c_void>> {
        self.find_with(search_behind)
    }

    /// Like [`Next::find`], for a function of the C++ runtime, which may be loaded outside the global scope.
    pub(crate) fn find_in_runtime(&self) -> Option<NonNull<c_void>> {
        self.find_with(|name| search_behind(name).or_else(|| RUNTIMES.iter().find_map(|library| search(library, name))))
    }

    fn find_with(&self, look_up: impl FnOnce(&CStr) -> Option<NonNull<c_void>>) -> Option<NonNull<c_void>> {
        let known = NonNull::new(self.address.load_relaxed());
        if known.is_some() || LOOKING_UP.replace(true) {
            return known;
        }
        let found = look_up(self.name);
        LOOKING_UP.set(false);
        if let Some(address) = found {
            self.address.store_relaxed(address.as_ptr());
        }
        found
    }
}

/// Searches the global scope, behind this library.
fn search_behind(name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: the name is a C string; the lookup has no other precondition.
    NonNull::new(unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) })
}

/// Searches one library, if it is loaded. It then stays loaded: the address is kept.
fn search(library: &CStr, name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: the name is a C string; `RTLD_NOLOAD` runs no constructors.
    let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    let handle = NonNull::new(handle)?;
    // SAFETY: the handle is live and the name is a C string.
    NonNull::new(unsafe { libc::dlsym(handle.as_ptr(), name.as_ptr()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nobody_has_is_not_found_and_leaves_lookups_open() {
        let next = Next::new(c"hakmem_no_such_symbol");
        assert_eq!(next.find(), None);
        assert_eq!(next.find_in_runtime(), None);
        assert!(!LOOKING_UP.get());
    }

    #[test]
    fn a_lookup_from_inside_a_lookup_gives_up() {
        let next = Next::new(c"free");
        LOOKING_UP.set(true);
        assert_eq!(next.find(), None);
        LOOKING_UP.set(false);
        assert!(next.find().is_some());
    }
}
