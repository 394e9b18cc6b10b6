//! Whether the operators of C++ are ours alone.
//!
//! A library that carries the C++ runtime in itself, LLVM's for example, has an `operator new` of its own, which calls malloc, and
//! exports it. Linked so that its own calls stay inside, it takes blocks from malloc and has them deleted by the program, whose
//! `operator delete` is the first one found: ours, when hakmem is preloaded. That is nobody's mistake.
//!
//! And a program may replace some of the operators and leave the others to the runtime, where those call the ones that it replaced.

use core::ffi::{CStr, c_void};
use hakmem_atomic_ops::Flag;
use hakmem_base::Door;

use crate::modules::{dl_info, without_folder};

const OPERATOR_NEW: &CStr = c"_Znwm";

/// The operators that others are made of: those of one object, of arrays, and both with an alignment. One name behind the other, where
/// small processes have them in memory already: all of them ask.
#[unsafe(link_section = ".rodata.hot.hakmem")]
static REPLACEABLE: [u8; 112] = *b"_Znwm\0_ZdlPv\0_Znam\0_ZdaPv\0\
    _ZnwmSt11align_val_t\0_ZdlPvSt11align_val_t\0_ZnamSt11align_val_t\0_ZdaPvSt11align_val_t\0";

/// Libraries whose operators call nothing that is not found first in ours, so that they never run beside ours.
const RUNTIMES: [&[u8]; 3] = [b"libstdc++.so", b"libc++.so", b"libc++abi.so"];

/// The C++ runtime has got a block for an operator of ours, through malloc or another form of the operator.
static RUNTIME_HELPED: Flag = Flag::new(false);

/// Whether a block that went out through a door may come back through another one. No lock of hakmem's may be held: the dynamic
/// linker is asked.
#[cold]
pub(crate) fn doors_mix(out: Door, back: Door) -> bool {
    if out == Door::Rust || back == Door::Rust {
        return false;
    }
    RUNTIME_HELPED.is_set_relaxed() || (out == Door::Malloc || back == Door::Malloc) && are_shared()
}

/// The C++ runtime hands out a block in place of an operator of ours, after a new-handler has made room: the block has gone out through
/// the door that the runtime took, and will come back through that operator's.
#[cold]
pub fn note_help_of_runtime() {
    // ORDERING: says something of blocks that are handed out after it; who frees one got it from there.
    RUNTIME_HELPED.store_release(true);
}

/// Whether the program, or a library before ours, has replaced some operator. No lock of hakmem's may be held.
#[cold]
#[must_use]
#[unsafe(link_section = ".text.hot.hakmem")]
pub fn are_replaced() -> bool {
    let Some(ours) = ours() else { return false };
    let mut names =
        REPLACEABLE.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok());
    names.any(|name| defined_in(libc::RTLD_DEFAULT, name).is_some_and(|object| object.is_foreign(&ours)))
}

/// Whether somebody else defines `operator new`: before us, or behind us and not as the C++ runtime.
fn are_shared() -> bool {
    let Some(ours) = ours() else { return false };
    are_replaced() || defined_in(libc::RTLD_NEXT, OPERATOR_NEW).is_some_and(|object| object.is_foreign(&ours))
}

fn ours() -> Option<Object> {
    object_of((ours as fn() -> Option<Object>) as *const c_void)
}

/// A loaded program or library.
struct Object {
    base: usize,
    path: &'static CStr,
}

impl Object {
    #[inline]
    fn is_foreign(&self, ours: &Self) -> bool {
        self.base != ours.base && !self.is_runtime()
    }

    fn is_runtime(&self) -> bool {
        let name = without_folder(self.path.to_bytes());
        RUNTIMES.iter().any(|runtime| name.starts_with(runtime))
    }
}

fn defined_in(scope: *mut c_void, name: &CStr) -> Option<Object> {
    // SAFETY: the name ends with a zero byte, and the scope is one of the two that always are.
    let symbol = unsafe { libc::dlsym(scope, name.as_ptr()) };
    object_of(symbol)
}

fn object_of(address: *const c_void) -> Option<Object> {
    let info = dl_info(address.addr()).filter(|info| !address.is_null() && !info.dli_fname.is_null())?;
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
        assert!(!are_shared() && !are_replaced());
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri's machine has no dynamic linker")]
    fn doors_mix_where_the_runtime_has_helped_and_never_with_rust() {
        assert!(!doors_mix(Door::New, Door::NewArray) && !doors_mix(Door::Malloc, Door::New));
        note_help_of_runtime();
        assert!(doors_mix(Door::New, Door::NewArray) && doors_mix(Door::Malloc, Door::New));
        assert!(!doors_mix(Door::Malloc, Door::Rust) && !doors_mix(Door::Rust, Door::New));
        // ORDERING: this test alone uses the flag.
        RUNTIME_HELPED.store_release(false);
    }

    #[test]
    fn runtimes_are_known_by_their_names() {
        let object = |path| Object { base: 0, path };
        assert!(object(c"/usr/lib/libstdc++.so.6").is_runtime());
        assert!(!object(c"/usr/lib/libLLVM.so.22.1").is_runtime());
    }
}
