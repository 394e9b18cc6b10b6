//! The versioned `hak_*` API: what a program may ask of hakmem beyond the malloc family. `hakmem.h` is made from this file.
//!
//! A structure that crosses the border begins with magic, version and size, so that a program compiled against another
//! version is refused instead of misread; it ends with reserved space, so that fields can be added within a version.

use crate::family;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::offset_of;
use hakmem::{FrozenPolicy, Mode, Profile};
use hakmem_base::Line;

/// First word of every structure of this API: "HAKM".
pub const HAKMEM_ABI_MAGIC: u32 = 0x4841_4B4D;
/// Version of this API. It rises when a program compiled against the former version would misread something.
pub const HAKMEM_ABI_VERSION: u32 = 1;

/// The call did what it was asked.
pub const HAK_OK: c_int = 0;
/// The structure, or the program, does not begin with `HAKMEM_ABI_MAGIC`.
pub const HAK_ERROR_MAGIC: c_int = 1;
/// The program was compiled against another version of this API.
pub const HAK_ERROR_VERSION: c_int = 2;
/// The structure is smaller than this version needs.
pub const HAK_ERROR_STRUCT_SIZE: c_int = 3;
/// A pointer that must not be null is null.
pub const HAK_ERROR_NULL: c_int = 4;
/// The file descriptor is not open for writing.
pub const HAK_ERROR_FD: c_int = 5;
/// No profile has this name.
pub const HAK_ERROR_PROFILE: c_int = 6;
/// A number is out of its bounds.
pub const HAK_ERROR_VALUE: c_int = 7;
/// There is no thread for this mode: the system has none to give, or the program is confined or runs at the hardened level.
pub const HAK_ERROR_THREAD: c_int = 8;

/// Mode: the policy stays, and no thread looks.
pub const HAK_MODE_FROZEN: c_int = 0;
/// Mode: a thread measures and changes nothing.
pub const HAK_MODE_OBSERVE: c_int = 1;
/// Mode: a thread measures and publishes better policies.
pub const HAK_MODE_LEARN: c_int = 2;

/// In a `hak_options_t`: leave this number as it is.
pub const HAK_KEEP: u64 = u64::MAX;

/// What hakmem holds, in bytes, and what it did since the process started.
#[repr(C)]
#[derive(Debug)]
#[allow(non_camel_case_types, reason = "the name that C programs use")]
pub struct hak_stats_t {
    /// In: `HAKMEM_ABI_MAGIC`.
    pub magic: u32,
    /// In: `HAKMEM_ABI_VERSION`.
    pub abi_version: u32,
    /// In: `sizeof(hak_stats_t)` as the program was compiled.
    pub struct_size: usize,
    /// Bytes of all blocks in use, rounded as hakmem rounds sizes.
    pub live_bytes: u64,
    /// Bytes that hold or may hold memory: in use, or free and not purged yet.
    pub committed_bytes: u64,
    /// Bytes of free memory kept for later.
    pub cached_bytes: u64,
    /// Largest resident set of the process so far.
    pub peak_rss_bytes: u64,
    /// Allocations up to 32 KiB; 0 at the hardened level, which does not count them here.
    pub allocs: u64,
    /// Of these, allocations that found their thread cache empty.
    pub refills: u64,
    /// Blocks freed by another thread than the one that owns them.
    pub remote_frees: u64,
    /// Slabs adopted from threads that have ended.
    pub adopts: u64,
    /// Batches of memory given back to the system.
    pub purges: u64,
    /// Bytes given back to the system.
    pub purged_bytes: u64,
    /// Bytes of the reserved address range that blocks lie in.
    pub window_bytes: u64,
    /// Bytes of allocator metadata (heap records).
    pub metadata_bytes: u64,
    /// Threads that hold a heap.
    pub live_heaps: u64,
    /// Refills that found no memory, and requests above 32 KiB that ended in null.
    pub out_of_memory: u64,
    /// The mode that runs: `HAK_MODE_FROZEN`, `HAK_MODE_OBSERVE` or `HAK_MODE_LEARN`.
    pub mode: u64,
    /// Generation of the policy in force; 0 is the one that the process began with.
    pub policy_generation: u64,
    /// Windows that the learning thread has measured.
    pub learn_windows: u64,
    /// Policies that it has published.
    pub learn_published: u64,
    /// Its CPU time, in microseconds.
    pub learn_cpu_us: u64,
    /// The same in millionths of the CPU time of the process.
    pub learn_cpu_ppm: u64,
    /// Blocks whose lives were watched (modes OBSERVE and LEARN).
    pub watched: u64,
    /// Blocks that were to be watched and whose lives are not known.
    pub watched_lost: u64,
    /// What watching has cost, in millionths of the CPU time of the process.
    pub watch_cpu_ppm: u64,
    /// Times that the memory limit refused slabs or superslabs; one request may try several times.
    pub limit_refused: u64,
    /// Zero; later fields of this version go here.
    pub reserved: [u64; 6],
}

/// What a program may choose at run time. The same choices exist as `HAKMEM_*` variables; what is set last counts.
#[repr(C)]
#[derive(Debug)]
#[allow(non_camel_case_types, reason = "the name that C programs use")]
pub struct hak_options_t {
    /// `HAKMEM_ABI_MAGIC`.
    pub magic: u32,
    /// `HAKMEM_ABI_VERSION`.
    pub abi_version: u32,
    /// `sizeof(hak_options_t)` as the program was compiled.
    pub struct_size: usize,
    /// Name of a profile to start from; null starts from the present policy.
    pub profile: *const c_char,
    /// Milliseconds that free memory waits before it goes back to the system: up to 3600000, `UINT32_MAX` for ever, or `HAK_KEEP`.
    pub purge_delay_ms: u64,
    /// Bytes of freed blocks above 2 MiB that may be kept for the next one, if `HAKMEM_BIG_RETAIN_MS` or a site rule keeps any: 0,
    /// 2 MiB to 1 TiB, or `HAK_KEEP`.
    pub big_retain_bytes: u64,
    /// Bytes of slabs and superslabs that may be handed out at most, those that caches keep included: 2 MiB to 256 TiB,
    /// 0 for no limit, or `HAK_KEEP`.
    pub memory_limit_bytes: u64,
    /// Zero; later fields of this version go here.
    pub reserved: [u64; 16],
}

const _: () = assert!(offset_of!(hak_options_t, struct_size) == 8, "the three fields that every version has");
const _: () =
    assert!(size_of::<hak_options_t>() == 16 + 4 * 8 + 16 * 8, "a field was added without taking reserved space");
const _: () = assert!(offset_of!(hak_stats_t, struct_size) == 8, "the three fields that every version has");
const _: () =
    assert!(size_of::<hak_stats_t>() == 16 + 24 * 8 + 6 * 8, "a field was added without taking reserved space");

/// What every structure of this API begins with, in every version.
///
/// cbindgen:ignore
#[repr(C)]
struct Header {
    magic: u32,
    abi_version: u32,
    struct_size: usize,
}

const _: () = assert!(size_of::<Header>() == 16);

/// The version of this API that the loaded library has.
#[unsafe(no_mangle)]
pub extern "C" fn hak_abi_version() -> u32 {
    HAKMEM_ABI_VERSION
}

/// Whether a program compiled with these two constants may use this library: `HAK_OK`, or an error, also said on stderr.
#[unsafe(no_mangle)]
pub extern "C" fn hak_check_abi(magic: u32, abi_version: u32) -> c_int {
    if magic != HAKMEM_ABI_MAGIC {
        let line = Line::new().text("ABI refused: magic is ").hex(magic as usize);
        line.text(", must be ").hex(HAKMEM_ABI_MAGIC as usize).write();
        return HAK_ERROR_MAGIC;
    }
    if abi_version != HAKMEM_ABI_VERSION {
        let line = Line::new().text("ABI refused: the program was compiled for version ").number(abi_version as usize);
        line.text(", this library has version ").number(HAKMEM_ABI_VERSION as usize).write();
        return HAK_ERROR_VERSION;
    }
    HAK_OK
}

/// `malloc` of this library, whichever `malloc` the program uses otherwise.
#[unsafe(no_mangle)]
pub extern "C" fn hak_malloc(bytes: usize) -> *mut c_void {
    family::malloc(bytes)
}

/// `calloc` of this library.
#[unsafe(no_mangle)]
pub extern "C" fn hak_calloc(count: usize, bytes: usize) -> *mut c_void {
    family::calloc(count, bytes)
}

/// `realloc` of this library.
///
/// # Safety
/// - As for `realloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hak_realloc(block: *mut c_void, bytes: usize) -> *mut c_void {
    // SAFETY: passed on.
    unsafe { family::realloc(block, bytes) }
}

/// A block at a multiple of `alignment`, which must be a power of two (else null and `EINVAL`).
#[unsafe(no_mangle)]
pub extern "C" fn hak_aligned_alloc(alignment: usize, bytes: usize) -> *mut c_void {
    if alignment.is_power_of_two() { family::memalign(alignment, bytes) } else { crate::outcome::invalid_argument() }
}

/// `free` of this library.
///
/// # Safety
/// - As for `free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hak_free(block: *mut c_void) {
    // SAFETY: passed on.
    unsafe { family::free(block) };
}

/// Bytes that may be used at `block`; zero for null.
///
/// # Safety
/// - As for `malloc_usable_size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hak_usable_size(block: *mut c_void) -> usize {
    // SAFETY: passed on.
    unsafe { family::malloc_usable_size(block) }
}

/// Gives what is free back to the system, as far as this thread can reach it.
#[unsafe(no_mangle)]
pub extern "C" fn hak_collect() {
    hakmem::collect();
}

/// Checks everything that hakmem counts twice and aborts with one line if something contradicts something else: for tests,
/// and for a suspicion. No other thread may be allocating meanwhile, nor may this be the child of a fork in a program with
/// threads. The thread of LEARN and OBSERVE is one, too: set the mode to FROZEN before; this waits for its end.
#[unsafe(no_mangle)]
pub extern "C" fn hak_check_invariants() {
    hakmem::check_invariants();
}

/// Fills `stats`, whose first three fields the caller has set. `HAK_OK` or an error, then also said on stderr.
///
/// # Safety
/// - `stats` is null or points to at least `stats->struct_size` bytes, at least sixteen, that may be read and written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hak_stats(stats: *mut hak_stats_t) -> c_int {
    // SAFETY: passed on to the caller.
    let refusal = unsafe { refuse_structure(stats.cast(), "hak_stats_t", size_of::<hak_stats_t>()) };
    if refusal != HAK_OK {
        return refusal;
    }
    let now = hakmem::stats();
    // SAFETY: the structure has at least the size of ours, as it said when it was checked.
    let struct_size = unsafe { (*stats).struct_size };
    let filled = hak_stats_t {
        magic: HAKMEM_ABI_MAGIC,
        abi_version: HAKMEM_ABI_VERSION,
        struct_size,
        live_bytes: now.live_bytes,
        committed_bytes: now.committed_bytes,
        cached_bytes: now.cached_bytes,
        peak_rss_bytes: now.peak_rss_bytes,
        allocs: now.allocs,
        refills: now.refills,
        remote_frees: now.remote_frees,
        adopts: now.adopts,
        purges: now.purges,
        purged_bytes: now.purged_bytes,
        window_bytes: now.window_bytes,
        metadata_bytes: now.metadata_bytes,
        live_heaps: now.live_heaps,
        out_of_memory: now.out_of_memory,
        mode: hakmem::mode() as u64,
        policy_generation: now.policy_generation,
        learn_windows: now.learn_windows,
        learn_published: now.learn_published,
        learn_cpu_us: now.learn_cpu_us,
        learn_cpu_ppm: now.learn_cpu_ppm,
        watched: now.watched,
        watched_lost: now.watched_lost,
        watch_cpu_ppm: now.watch_cpu_ppm,
        limit_refused: now.limit_refused,
        reserved: [0; 6],
    };
    // SAFETY: as above.
    unsafe { stats.write(filled) };
    HAK_OK
}

/// Changes the policy of the running process. `HAK_OK` or an error, then also said on stderr, and nothing has changed.
///
/// # Safety
/// - `options` is null or points to at least `options->struct_size` bytes, at least sixteen, that may be read.
/// - `options->profile` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hak_configure(options: *const hak_options_t) -> c_int {
    // SAFETY: passed on to the caller.
    let refusal = unsafe { refuse_structure(options.cast(), "hak_options_t", size_of::<hak_options_t>()) };
    if refusal != HAK_OK {
        return refusal;
    }
    // SAFETY: the structure has at least the size of ours, as it said when it was checked.
    let options = unsafe { &*options };
    let profile = if options.profile.is_null() {
        None
    } else {
        // SAFETY: not null, so a C string by the caller's promise.
        let name = unsafe { CStr::from_ptr(options.profile) };
        let Some(profile) = Profile::from_name(name.to_bytes()) else {
            Line::new().text("hak_configure: no profile has this name: ").text(name.to_str().unwrap_or("?")).write();
            return HAK_ERROR_PROFILE;
        };
        Some(profile.settings().policy)
    };
    let choose = match choice(options) {
        Ok(choose) => choose,
        Err(field) => return refuse_value(field),
    };
    let published = hakmem::update_policy(|policy| {
        if let Some(profile) = &profile {
            policy.clone_from(profile);
        }
        choose(policy);
    });
    match published {
        Ok(_) => HAK_OK,
        Err(error) => refuse_value(error.field()),
    }
}

/// What copies the numbers that are not to be kept. The name of the one that does not fit its type is the error.
fn choice(options: &hak_options_t) -> Result<impl Fn(&mut FrozenPolicy), &'static str> {
    let purge_delay_ms = chosen(options.purge_delay_ms, "purge_delay_ms")?;
    let big_retain_bytes = chosen(options.big_retain_bytes, "big_retain_bytes")?;
    let memory_limit_bytes = chosen(options.memory_limit_bytes, "memory_limit_bytes")?;
    Ok(move |policy: &mut FrozenPolicy| {
        policy.purge_delay_ms = purge_delay_ms.unwrap_or(policy.purge_delay_ms);
        policy.big_retain_bytes = big_retain_bytes.unwrap_or(policy.big_retain_bytes);
        policy.memory_limit_bytes = memory_limit_bytes.unwrap_or(policy.memory_limit_bytes);
    })
}

fn chosen<T: TryFrom<u64>>(number: u64, field: &'static str) -> Result<Option<T>, &'static str> {
    if number == HAK_KEEP { Ok(None) } else { T::try_from(number).map(Some).map_err(|_| field) }
}

fn refuse_value(field: &str) -> c_int {
    Line::new().text("hak_configure: out of bounds: ").text(field).write();
    HAK_ERROR_VALUE
}

/// The mode that runs: `HAK_MODE_FROZEN`, `HAK_MODE_OBSERVE` or `HAK_MODE_LEARN`.
#[unsafe(no_mangle)]
pub extern "C" fn hak_mode() -> c_int {
    hakmem::mode() as c_int
}

/// Changes the mode; a policy that was published stays in force. `HAK_OK`, `HAK_ERROR_VALUE` for a number that is no mode, or
/// `HAK_ERROR_THREAD`: the mode needs a thread, there is none to be had, and `HAK_MODE_FROZEN` runs.
#[unsafe(no_mangle)]
pub extern "C" fn hak_set_mode(mode: c_int) -> c_int {
    match Mode::ALL.iter().find(|known| **known as c_int == mode) {
        None => HAK_ERROR_VALUE,
        Some(known) if hakmem::set_mode(*known) => HAK_OK,
        Some(_) => HAK_ERROR_THREAD,
    }
}

/// Keeps the policy as it is from now on. One store: signal handlers may call it.
#[unsafe(no_mangle)]
pub extern "C" fn hak_freeze() {
    hakmem::freeze();
}

/// Checks the three fields that every structure of every version begins with; the rest is not touched.
///
/// # Safety
/// - `header` is null or points to at least sixteen bytes that may be read.
unsafe fn refuse_structure(header: *const Header, name: &str, needed_bytes: usize) -> c_int {
    // SAFETY: the caller vouches for sixteen bytes, where every version has these fields.
    let Some(header) = (unsafe { header.as_ref() }) else {
        Line::new().text("ABI refused: the pointer to ").text(name).text(" is null").write();
        return HAK_ERROR_NULL;
    };
    let refusal = hak_check_abi(header.magic, header.abi_version);
    if refusal != HAK_OK {
        return refusal;
    }
    if header.struct_size < needed_bytes {
        let line = Line::new().text("ABI refused: ").text(name).text(" of ").number(header.struct_size);
        line.text(" bytes, this version needs ").number(needed_bytes).write();
        return HAK_ERROR_STRUCT_SIZE;
    }
    HAK_OK
}

/// Whether `fd` can be written to: `HAK_OK`, or `HAK_ERROR_FD`, with `errno` set if it is not even open.
fn check_fd(fd: c_int) -> c_int {
    // SAFETY: asks about a number; no memory is involved.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags == -1 || flags & libc::O_ACCMODE == libc::O_RDONLY { HAK_ERROR_FD } else { HAK_OK }
}

/// Writes the heap as JSON to a file descriptor: `HAK_OK` or `HAK_ERROR_FD`. What a full disk cuts off is not reported.
#[unsafe(no_mangle)]
pub extern "C" fn hak_dump_json(fd: c_int) -> c_int {
    let refusal = check_fd(fd);
    if refusal == HAK_OK {
        hakmem::dump_json(fd);
    }
    refusal
}

/// Writes what watched blocks say (modes OBSERVE and LEARN: sizes, lifetimes, the calls that allocate) as JSON to a file descriptor:
/// `HAK_OK` or `HAK_ERROR_FD`. Not for signal handlers.
#[unsafe(no_mangle)]
pub extern "C" fn hak_dump_blocks(fd: c_int) -> c_int {
    let refusal = check_fd(fd);
    if refusal == HAK_OK {
        hakmem::dump_blocks(fd);
    }
    refusal
}

/// Writes the heap as a DOT graph to a file descriptor: `HAK_OK` or `HAK_ERROR_FD`. What a full disk cuts off is not reported.
#[unsafe(no_mangle)]
pub extern "C" fn hak_dump_dot(fd: c_int) -> c_int {
    let refusal = check_fd(fd);
    if refusal == HAK_OK {
        hakmem::dump_dot(fd);
    }
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> hak_stats_t {
        hak_stats_t {
            magic: HAKMEM_ABI_MAGIC,
            abi_version: HAKMEM_ABI_VERSION,
            struct_size: size_of::<hak_stats_t>(),
            live_bytes: 0,
            committed_bytes: 0,
            cached_bytes: 0,
            peak_rss_bytes: 0,
            allocs: 0,
            refills: 0,
            remote_frees: 0,
            adopts: 0,
            purges: 0,
            purged_bytes: 0,
            window_bytes: 0,
            metadata_bytes: 0,
            live_heaps: 0,
            out_of_memory: 0,
            mode: 7,
            policy_generation: 0,
            learn_windows: 0,
            learn_published: 0,
            learn_cpu_us: 0,
            learn_cpu_ppm: 0,
            watched: 7,
            watched_lost: 7,
            watch_cpu_ppm: 7,
            limit_refused: 7,
            reserved: [7; 6],
        }
    }

    #[test]
    fn stats_of_the_right_version_are_filled() {
        let block = hak_malloc(100_000);
        let mut stats = fresh();
        // SAFETY: a live structure of full size.
        assert_eq!(unsafe { hak_stats(&raw mut stats) }, HAK_OK);
        assert!(stats.committed_bytes >= 100_000);
        assert_eq!((stats.watched, stats.watched_lost, stats.watch_cpu_ppm, stats.limit_refused), (0, 0, 0, 0));
        assert_eq!(stats.reserved, [0; 6]);
        // SAFETY: the block is live.
        unsafe { hak_free(block) };
    }

    #[test]
    fn modes_are_numbers_and_what_is_no_mode_is_refused() {
        let numbers = [HAK_MODE_FROZEN, HAK_MODE_OBSERVE, HAK_MODE_LEARN];
        assert_eq!([Mode::Frozen, Mode::Observe, Mode::Learn].map(|mode| mode as c_int), numbers);
        assert_eq!(
            (hak_set_mode(3), hak_set_mode(-1), hak_mode()),
            (HAK_ERROR_VALUE, HAK_ERROR_VALUE, HAK_MODE_FROZEN)
        );
        assert_eq!((hak_set_mode(HAK_MODE_OBSERVE), hak_mode()), (HAK_OK, HAK_MODE_OBSERVE));
        hak_freeze();
        assert_eq!(hak_mode(), HAK_MODE_FROZEN);
    }

    #[test]
    fn every_mismatch_is_refused_and_nothing_is_written() {
        let cases = [
            (hak_stats_t { magic: 1, ..fresh() }, HAK_ERROR_MAGIC),
            (hak_stats_t { abi_version: HAKMEM_ABI_VERSION + 1, ..fresh() }, HAK_ERROR_VERSION),
            (hak_stats_t { abi_version: 0, ..fresh() }, HAK_ERROR_VERSION),
            (hak_stats_t { struct_size: size_of::<hak_stats_t>() - 8, ..fresh() }, HAK_ERROR_STRUCT_SIZE),
        ];
        for (mut stats, error) in cases {
            // SAFETY: a live structure of full size.
            assert_eq!(unsafe { hak_stats(&raw mut stats) }, error);
            assert_eq!((stats.committed_bytes, stats.reserved), (0, [7; 6]));
        }
        // SAFETY: null is allowed.
        assert_eq!(unsafe { hak_stats(core::ptr::null_mut()) }, HAK_ERROR_NULL);
    }

    #[test]
    fn a_larger_structure_of_the_same_version_is_accepted() {
        let mut stats = hak_stats_t { struct_size: size_of::<hak_stats_t>() + 64, ..fresh() };
        // SAFETY: a live structure; the library writes no more than its own version has.
        assert_eq!(unsafe { hak_stats(&raw mut stats) }, HAK_OK);
        assert_eq!(stats.struct_size, size_of::<hak_stats_t>() + 64);
    }

    fn keep_all() -> hak_options_t {
        hak_options_t {
            magic: HAKMEM_ABI_MAGIC,
            abi_version: HAKMEM_ABI_VERSION,
            struct_size: size_of::<hak_options_t>(),
            profile: core::ptr::null(),
            purge_delay_ms: HAK_KEEP,
            big_retain_bytes: HAK_KEEP,
            memory_limit_bytes: HAK_KEEP,
            reserved: [0; 16],
        }
    }

    /// One test, because there is one policy per process.
    #[test]
    fn options_change_what_they_name_and_are_refused_whole() {
        let before = hakmem::policy();
        let options = hak_options_t { purge_delay_ms: 1234, ..keep_all() };
        // SAFETY: a live structure of full size.
        assert_eq!(unsafe { hak_configure(&raw const options) }, HAK_OK);
        let after = hakmem::policy();
        assert_eq!(after, FrozenPolicy { purge_delay_ms: 1234, generation: after.generation, ..before });

        let refused = [
            (hak_options_t { magic: 0, ..keep_all() }, HAK_ERROR_MAGIC),
            (hak_options_t { struct_size: 16, ..keep_all() }, HAK_ERROR_STRUCT_SIZE),
            (hak_options_t { profile: c"NO_SUCH_PROFILE".as_ptr(), ..keep_all() }, HAK_ERROR_PROFILE),
            (hak_options_t { purge_delay_ms: 1 << 40, ..keep_all() }, HAK_ERROR_VALUE),
            (hak_options_t { purge_delay_ms: 5, memory_limit_bytes: 4096, ..keep_all() }, HAK_ERROR_VALUE),
        ];
        for (options, error) in refused {
            // SAFETY: a live structure, of full size where it says so.
            assert_eq!(unsafe { hak_configure(&raw const options) }, error);
            assert_eq!(hakmem::policy(), after);
        }

        let options = hak_options_t { profile: c"MIXED_TINYV3_C7_SAFE".as_ptr(), ..keep_all() };
        // SAFETY: a live structure of full size.
        assert_eq!(unsafe { hak_configure(&raw const options) }, HAK_OK);
        assert_eq!(hakmem::policy().cache_max_blocks, Profile::MixedTinyv3C7Safe.settings().policy.cache_max_blocks);
        let default = hak_options_t { profile: c"DEFAULT".as_ptr(), ..keep_all() };
        // SAFETY: a live structure of full size.
        assert_eq!(unsafe { hak_configure(&raw const default) }, HAK_OK);

        // Interleaving: one thread has read the policy when another one publishes its own change.
        let configure = |options: hak_options_t, field: fn(&FrozenPolicy) -> usize, expected: usize| {
            // SAFETY: a live structure of full size.
            assert_eq!(unsafe { hak_configure(&raw const options) }, HAK_OK);
            assert_eq!(field(&hakmem::policy()), expected);
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for bytes in (64_usize << 20..).take(20_000) {
                    let options = hak_options_t { big_retain_bytes: bytes as u64, ..keep_all() };
                    configure(options, |policy| policy.big_retain_bytes, bytes);
                }
            });
            scope.spawn(|| {
                for bytes in (1_usize << 40..).take(20_000) {
                    let options = hak_options_t { memory_limit_bytes: bytes as u64, ..keep_all() };
                    configure(options, |policy| policy.memory_limit_bytes, bytes);
                }
            });
        });
        // SAFETY: a live structure of full size.
        assert_eq!(unsafe { hak_configure(&raw const default) }, HAK_OK);
    }

    #[test]
    fn dumps_need_a_descriptor_that_can_be_written() {
        assert_eq!(hak_dump_json(-1), HAK_ERROR_FD);
        // SAFETY: the path is a C string.
        let read_only = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY) };
        assert_eq!(hak_dump_dot(read_only), HAK_ERROR_FD);
        // SAFETY: the path is a C string.
        let writable = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY) };
        assert_eq!(hak_dump_json(writable), HAK_OK);
        assert_eq!(hak_dump_dot(writable), HAK_OK);
        assert_eq!((hak_dump_blocks(writable), hak_dump_blocks(read_only)), (HAK_OK, HAK_ERROR_FD));
        for fd in [read_only, writable] {
            // SAFETY: opened above.
            unsafe { libc::close(fd) };
        }
    }

    #[test]
    fn the_family_under_its_other_names_does_what_it_does() {
        assert_eq!(
            (hak_abi_version(), hak_check_abi(HAKMEM_ABI_MAGIC, hak_abi_version())),
            (HAKMEM_ABI_VERSION, HAK_OK)
        );
        let block = hak_calloc(10, 100);
        // SAFETY: a live block of 1000 bytes.
        assert!(unsafe { core::slice::from_raw_parts(block.cast::<u8>(), 1000) }.iter().all(|byte| *byte == 0));
        // SAFETY: the block is live, and its old name is not used again.
        let block = unsafe { hak_realloc(block, 5000) };
        // SAFETY: the block is live; null is allowed.
        let usable = [block, core::ptr::null_mut()].map(|block| unsafe { hak_usable_size(block) });
        assert!(usable[0] >= 5000 && usable[1] == 0);
        let aligned = hak_aligned_alloc(4096, 10);
        assert!(!aligned.is_null() && aligned.addr().is_multiple_of(4096));
        for block in [block, aligned] {
            // SAFETY: the block is live.
            unsafe { hak_free(block) };
        }
        assert!(hak_calloc(usize::MAX, 2).is_null());
    }

    #[test]
    fn aligned_alloc_refuses_alignments_that_are_no_power_of_two() {
        for alignment in [0, 3, 24] {
            assert!(hak_aligned_alloc(alignment, 8).is_null());
        }
    }
}
