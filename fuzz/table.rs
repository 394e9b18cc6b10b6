//! The functions of the preload crate as the model of the malloc family calls them.
//!
//! Shared by the fuzz target, which links the crate, and by the crate's own tests, which call themselves `hakmem_preload`.

use core::ptr::null;
use hakmem_preload::{cplusplus as cxx, family, glibc, hak, reports};
use hakmem_testkit::model::family::{C_DOORS, Door, Family, Odd};
use hakmem_testkit::model::in_the_end;

// SAFETY (all of the table): the model hands in null or a block in use that it has given up, with the size and alignment
// that it asked for, and places that may be written.
#[allow(clippy::undocumented_unsafe_blocks, reason = "said once for all of the table")]
/// Every allocating symbol of the library, by what it means.
pub const FAMILY: Family = Family {
    malloc: &[
        ("malloc", |bytes| family::malloc(bytes), Door::Malloc),
        ("hak_malloc", |bytes| hak::hak_malloc(bytes), Door::Malloc),
        ("__libc_malloc", |bytes| glibc::__libc_malloc(bytes), Door::Malloc),
        ("operator new, nothrow", |bytes| cxx::_ZnwmRKSt9nothrow_t(bytes, null()), Door::New),
        ("operator new[], nothrow", |bytes| cxx::_ZnamRKSt9nothrow_t(bytes, null()), Door::NewArray),
    ],
    calloc: &[
        ("calloc", |count, bytes| family::calloc(count, bytes)),
        ("hak_calloc", |count, bytes| hak::hak_calloc(count, bytes)),
        ("__libc_calloc", |count, bytes| glibc::__libc_calloc(count, bytes)),
    ],
    aligned: &[
        ("memalign", |align, bytes| family::memalign(align, bytes), Odd::Rounds, Door::Memalign),
        ("aligned_alloc", |align, bytes| family::aligned_alloc(align, bytes), Odd::Rounds, Door::AlignedAlloc),
        ("__libc_memalign", |align, bytes| glibc::__libc_memalign(align, bytes), Odd::Rounds, Door::Memalign),
        ("hak_aligned_alloc", |align, bytes| hak::hak_aligned_alloc(align, bytes), Odd::Refuses, Door::Memalign),
        (
            "operator new, aligned",
            |align, bytes| cxx::_ZnwmSt11align_val_tRKSt9nothrow_t(bytes, align, null()),
            Odd::ReturnsNull,
            Door::NewAligned,
        ),
        (
            "operator new[], aligned",
            |align, bytes| cxx::_ZnamSt11align_val_tRKSt9nothrow_t(bytes, align, null()),
            Odd::ReturnsNull,
            Door::NewArrayAligned,
        ),
    ],
    posix_memalign: &[
        ("posix_memalign", |result, align, bytes| unsafe { family::posix_memalign(result, align, bytes) }),
        ("__posix_memalign", |result, align, bytes| unsafe { glibc::__posix_memalign(result, align, bytes) }),
    ],
    valloc: &[("valloc", |bytes| family::valloc(bytes)), ("__libc_valloc", |bytes| glibc::__libc_valloc(bytes))],
    pvalloc: &[("pvalloc", |bytes| family::pvalloc(bytes)), ("__libc_pvalloc", |bytes| glibc::__libc_pvalloc(bytes))],
    realloc: &[
        ("realloc", |block, bytes| unsafe { family::realloc(block, bytes) }),
        ("hak_realloc", |block, bytes| unsafe { hak::hak_realloc(block, bytes) }),
        ("__libc_realloc", |block, bytes| unsafe { glibc::__libc_realloc(block, bytes) }),
    ],
    reallocarray: &[
        ("reallocarray", |block, count, bytes| unsafe { family::reallocarray(block, count, bytes) }),
        ("__libc_reallocarray", |block, count, bytes| unsafe { glibc::__libc_reallocarray(block, count, bytes) }),
    ],
    free: &[
        ("free", |block, _, _| unsafe { family::free(block) }, C_DOORS),
        ("cfree", |block, _, _| unsafe { family::cfree(block) }, C_DOORS),
        ("hak_free", |block, _, _| unsafe { hak::hak_free(block) }, C_DOORS),
        ("__libc_free", |block, _, _| unsafe { glibc::__libc_free(block) }, C_DOORS),
        ("free_sized", |block, bytes, _| unsafe { family::free_sized(block, bytes) }, &[Door::Malloc]),
        (
            "free_aligned_sized",
            |block, bytes, align| unsafe { family::free_aligned_sized(block, align, bytes) },
            &[Door::AlignedAlloc],
        ),
        ("delete", |block, _, _| unsafe { cxx::_ZdlPv(block) }, &[Door::New]),
        ("delete, sized", |block, bytes, _| unsafe { cxx::_ZdlPvm(block, bytes) }, &[Door::New]),
        ("delete[]", |block, _, _| unsafe { cxx::_ZdaPv(block) }, &[Door::NewArray]),
        ("delete[], sized", |block, bytes, _| unsafe { cxx::_ZdaPvm(block, bytes) }, &[Door::NewArray]),
        ("delete, aligned", |block, _, align| unsafe { cxx::_ZdlPvSt11align_val_t(block, align) }, &[Door::NewAligned]),
        (
            "delete, sized and aligned",
            |block, bytes, align| unsafe { cxx::_ZdlPvmSt11align_val_t(block, bytes, align) },
            &[Door::NewAligned],
        ),
        (
            "delete[], sized and aligned",
            |block, bytes, align| unsafe { cxx::_ZdaPvmSt11align_val_t(block, bytes, align) },
            &[Door::NewArrayAligned],
        ),
    ],
    usable_size: &[
        ("malloc_usable_size", |block| unsafe { family::malloc_usable_size(block) }),
        ("hak_usable_size", |block| unsafe { hak::hak_usable_size(block) }),
    ],
    others: &[
        ("malloc_trim", |number| _ = reports::malloc_trim(number as usize)),
        ("hak_collect", |_| hak::hak_collect()),
        ("mallopt", |number| _ = reports::mallopt(number as i32, (number >> 32) as i32)),
        ("mallinfo2", |_| _ = reports::mallinfo2()),
        ("hak_configure", configure),
    ],
    keeps_errno: true,
};

/// Another profile, purge delay or bound on kept big blocks, all of them legal.
fn configure(number: u64) {
    const PROFILES: [&core::ffi::CStr; 2] = [c"MIXED_TINYV3_C7_SAFE", c"C6_HEAVY_LEGACY_POOLV1"];
    let profile = PROFILES.get(number as usize % 3).map_or(null(), |name| name.as_ptr());
    let pick = |shift: u32, choices: [u64; 4]| choices[(number >> shift) as usize % 4];
    let options = hak::hak_options_t {
        magic: hak::HAKMEM_ABI_MAGIC,
        abi_version: hak::HAKMEM_ABI_VERSION,
        struct_size: size_of::<hak::hak_options_t>(),
        profile,
        purge_delay_ms: pick(8, [hak::HAK_KEEP, 0, 1, 3_600_000]),
        big_retain_bytes: pick(16, [hak::HAK_KEEP, 0, 2 << 20, 1 << 30]),
        memory_limit_bytes: hak::HAK_KEEP,
        reserved: [0; 16],
    };
    // SAFETY: the structure is whole, and its profile is null or a C string.
    let answer = unsafe { hak::hak_configure(&raw const options) };
    assert_eq!(answer, hak::HAK_OK, "a legal structure was refused");
}

/// Frees what the run left in caches and says what is still held.
pub fn leftover() -> Result<(), String> {
    in_the_end(|| {
        hak::hak_collect();
        let stats = hakmem::stats();
        let left = [
            ("live bytes", stats.live_bytes),
            ("committed bytes", stats.committed_bytes),
            ("slabs without an owner", stats.orphan_slabs),
            ("bytes mapped outside the window", stats.outside_bytes),
            ("ranges kept from madvise", stats.outside_range),
        ];
        let found: Vec<_> = left.iter().filter(|(_, count)| *count != 0).collect();
        if found.is_empty() { Ok(()) } else { Err(format!("left over: {found:?}; {stats:?}")) }
    })
}
