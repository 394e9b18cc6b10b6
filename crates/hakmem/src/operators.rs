//! Whether the operators of C++ are ours alone.
//!
//! A library that carries the C++ runtime in itself, LLVM's for example, has an `operator new` of its own, which calls malloc, and
//! exports it. Linked so that its own calls stay inside, it takes blocks from malloc and has them deleted by the program, whose
//! `operator delete` is the first one found: ours, when hakmem is preloaded. That is nobody's mistake.

use core::ffi::{CStr, c_void};
use core::mem::MaybeUninit;

const OPERATOR_NEW: &CStr = c"_Znwm";

/// Libraries whose operators call nothing that is not found first in ours, so that they never run beside ours.
const RUNTIMES: [&[u8]; 3] = [b"libstdc++.so", b"libc++.so", b"libc++abi.so"];

/// Whether somebody else defines `operator new`: before us, or behind us and not as the C++ runtime. No lock of hakmem's may be
/// held: the dynamic linker is asked.
#[cold]
pub(crate) fn are_shared() -> bool {
    let ours = object_of((are_shared as fn() -> bool) as *const c_void);
    let Some(ours) = ours else { return false };
    let first = defined_in(libc::RTLD_DEFAULT);
    let next = defined_in(libc::RTLD_NEXT);
    let is_foreign = |object: &Object| object.base != ours.base && !object.is_runtime();
    first.as_ref().is_some_and(is_foreign) || next.as_ref().is_some_and(is_foreign)
}

/// A loaded program or library.
struct Object {
    base: usize,
    path: &'static CStr,
}

impl Object {
    fn is_runtime(&self) -> bool {
        let name = self.path.to_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or(&[]);
        RUNTIMES.iter().any(|runtime| name.starts_with(runtime))
    }
}

fn defined_in(scope: *mut c_void) -> Option<Object> {
    // SAFETY: the name ends with a zero byte, and the scope is one of the two that always are.
    let symbol = unsafe { libc::dlsym(scope, OPERATOR_NEW.as_ptr()) };
    object_of(symbol)
}

fn object_of(address: *const c_void) -> Option<Object> {
    if address.is_null() {
        return None;
    }
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: the structure is the callee's to fill; any address may be asked for.
    if unsafe { libc::dladdr(address, info.as_mut_ptr()) } == 0 {
        return None;
    }
    // SAFETY: zero is a value of every field, and the callee has filled them.
    let info = unsafe { info.assume_init() };
    if info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the name of a loaded object ends with a zero byte and stays while that is loaded; the caller looks at it at once.
    let path = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(Object { base: info.dli_fbase.addr(), path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri's machine has no dynamic linker")]
    fn this_program_has_no_second_operator_new() {
        assert!(!are_shared());
    }

    #[test]
    fn runtimes_are_known_by_their_names() {
        let object = |path| Object { base: 0, path };
        assert!(object(c"/usr/lib/libstdc++.so.6").is_runtime());
        assert!(!object(c"/usr/lib/libLLVM.so.22.1").is_runtime());
    }
}
