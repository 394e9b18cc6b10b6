//! The malloc family and the usual C++ operators over another allocator, as a shared library for `LD_PRELOAD`.
//!
//! Debian has mimalloc 2.0, jemalloc and tcmalloc as libraries; of mimalloc 2.3 and 3, snmalloc and rpmalloc there are only crates
//! with the C entry points. Each symbol here is one jump to such an entry point, so that what is measured is the peer.
//!
//! **Not here.** hakmem, and any repair of a peer: what it refuses is refused.
//! **Invariants.** Exactly one peer is compiled in. A block goes back to the peer that it came from, because every symbol
//! through which a program can get or return a block is exported.

#[cfg(any(
    all(feature = "mimalloc", feature = "snmalloc"),
    all(feature = "mimalloc", feature = "rpmalloc"),
    all(feature = "snmalloc", feature = "rpmalloc")
))]
compile_error!("a library is one peer: choose one of mimalloc, snmalloc, rpmalloc");

#[cfg(any(feature = "mimalloc", feature = "snmalloc", feature = "rpmalloc"))]
mod family;

#[cfg_attr(feature = "mimalloc", path = "mimalloc.rs")]
#[cfg_attr(feature = "snmalloc", path = "snmalloc.rs")]
#[cfg_attr(feature = "rpmalloc", path = "rpmalloc/mod.rs")]
#[cfg(any(feature = "mimalloc", feature = "snmalloc", feature = "rpmalloc"))]
mod peer;
