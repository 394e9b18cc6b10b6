//! The malloc family, the C++ operators and the versioned `hak_*` API, as a shared library for `LD_PRELOAD` or `-lhakmem`.
//!
//! **Not here.** Any allocator state: each symbol checks its arguments as glibc documents, calls `hakmem::raw`, and turns
//! the outcome into a C result.
//! **Invariants.** A foreign pointer is judged by its address and never dereferenced. `errno` is written only where a call
//! fails and its manual says so; `free` and `posix_memalign` leave it alone. Nothing here allocates, formats or locks on
//! the way of an allocation. No symbol is exported into this crate's own test binary, which keeps its allocator.
//! **Unwinding.** Symbols are `extern "C"`: a Rust panic (there should be none) ends the process at this border. The one
//! exception is the throwing `operator new`, through which `std::bad_alloc` of the C++ runtime travels; it is
//! `extern "C-unwind"` and needs the `unwind` panic strategy, or the border would stop the exception too.

// The fuzzer's table of functions is compiled here too, where this crate is itself.
#[cfg(test)]
extern crate self as hakmem_preload;

pub mod confinement;
pub mod cplusplus;
pub mod family;
mod foreign;
pub mod forks;
pub mod glibc;
pub mod hak;
pub mod limits;
#[cfg(test)]
mod model_tests;
mod next;
mod outcome;
pub mod reports;

const _: () = assert!(cfg!(panic = "unwind"), "std::bad_alloc has to pass through operator new");

/// Runs when the library is loaded, for what the environment wants even of a process that never allocates, and for what only the
/// dynamic linker's own thread may ask.
///
/// A preloaded library's constructor runs before those of the program but after its first allocations, which work without it.
#[cfg(not(any(test, fuzzing)))]
extern "C" fn library_init() {
    cplusplus::look_for_replaced();
    hakmem::raw::initialise_if_spoken_to();
}

/// Runs when the process exits normally or the library is unloaded.
#[cfg(not(any(test, fuzzing)))]
extern "C" fn library_fini() {
    hakmem::raw::library_fini();
}

// SAFETY: the section holds pointers to functions that the dynamic linker calls once, as `library_init` expects.
#[cfg(not(any(test, fuzzing)))]
#[used]
#[unsafe(link_section = ".init_array")]
static LIBRARY_INIT: extern "C" fn() = library_init;

// SAFETY: the section holds pointers to functions that the dynamic linker calls once, as `library_fini` expects.
#[cfg(not(any(test, fuzzing)))]
#[used]
#[unsafe(link_section = ".fini_array")]
static LIBRARY_FINI: extern "C" fn() = library_fini;
