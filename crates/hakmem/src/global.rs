//! The one instance of everything, and how it starts.

use core::ffi::CStr;
use core::fmt;
use hakmem_atomic_ops::{Flag, Lock, SetOnce, Shared32, Shared64, SharedPtr, SharedUsize};
use hakmem_base::{HEADER_BYTES, Line, MarkKey, fatal, keeping_errno};
use hakmem_bigcache::{BigCache, BigContext, BigHint, BigPolicy, SharedBigPolicy};
use hakmem_hardened::{Hardened, HardenedContext, Limits};
use hakmem_mid_pool::RunContext;
use hakmem_policy::{
    FieldError, Foreign, FrozenPolicy, PolicyCell, Scavenger, Settings, addresses_us, parse_environment,
    parse_environment_over,
};
use hakmem_sampled::SampledPool;
use hakmem_superslab_os::{MetaArena, OsPolicy};
use hakmem_tiny_front::{DynamicSet, Front, Tables};

use crate::asked::Asked;
use crate::company::Company;
use crate::hooks::{self, Hooks};
use crate::learning::{self, LearnerChoices};
use crate::policy_file;
use crate::record::{HeapRecord, big_policy, run_policy};
use crate::scavenger;
use crate::sites;
use crate::unread;
use crate::watcher;

pub(crate) static GLOBAL: Global = Global::new();

/// Longest path (bytes) taken from a variable.
const PATH_BYTES: usize = 512;

/// Everything that threads share. In this order, so that what every process writes lies in few OS pages; the first one is
/// written by the dynamic linker too, which relocates what stands before it.
#[repr(C)]
pub(crate) struct Global {
    ready: Flag,
    pub hooks: Hooks,
    pub scavenger: scavenger::State,
    pub unread: unread::State,
    pub company: Company,
    /// Set by [`expect_confinement`](crate::expect_confinement).
    pub is_confined: Flag,
    pub learning: learning::State,
    /// Held while the allocator starts. The environment's mistakes are said, and its policy file is read, at the first attempt only.
    pub setup: Lock<Attempt>,
    /// Numbers that other threads than a policy's publisher need at once.
    pub scavenge_min_bytes: SharedUsize,
    pub scavenger_mode: Shared32,
    pub big_policy: SharedBigPolicy,
    /// Physical memory of the machine; blocks larger than this are left to the kernel's judgement.
    pub physical_bytes: SharedUsize,
    pub front: Front,
    pub arena: MetaArena,
    pub registry: Registry,
    pub big: BigCache,
    pub policy: PolicyCell,
    pub heapless_runs: HeaplessRuns,
    /// Requests that ended in null and that no heap counts: those above 32 KiB, and those of threads that no heap could be had for.
    /// Relaxed, statistics.
    pub refused: Shared64,
    /// Times that window or tables could not be had at all; the next allocation tries again. Relaxed, statistics.
    pub starts_refused: Shared64,
    /// Stays empty where the environment says nothing.
    boot: SetOnce<Boot>,
    pub sampled: SampledPool,
    pub watcher: watcher::State,
    pub asked: Asked,
    pub sites: sites::State,
    pub hardened: Hardened,
    /// The policy that was published last, whose numbers the boxes have, and from which threads copy theirs; none yet: that of the start.
    pub applied: Lock<Option<FrozenPolicy>>,
}

/// What holds where the environment says nothing. Named, so that it lies with what every process reads (`layout.ld`).
#[unsafe(link_section = ".rodata.hot.hakmem")]
pub(crate) static UNTOLD: Settings<'static> = Settings::DEFAULT;

/// Bytes of runs that threads without a heap have taken and given back, for the statistics.
pub(crate) struct HeaplessRuns {
    pub allocated: Shared64,
    pub freed: Shared64,
}

/// Which attempt to make the allocator ready comes next: where there is no address space, each allocation makes one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    First,
    Later,
}

/// All heap records, and those without a thread.
pub(crate) struct Registry {
    /// Head of the list of all records ever made.
    pub all: SharedPtr<HeapRecord>,
    pub free: Lock<FreeRecords>,
    /// Heaps that threads hold, and the most there have been.
    pub live: Shared32,
    pub peak: Shared32,
}

/// Head of the list of records without a thread.
pub(crate) struct FreeRecords(pub *const HeapRecord);

// SAFETY: records may be taken over by any thread; the lock hands them over.
unsafe impl Send for FreeRecords {}

/// What the environment said, apart from the policy.
pub(crate) struct Boot {
    pub stats: bool,
    pub os_stats: bool,
    pub dump_signal: bool,
    pub freeze_signal: u32,
    pub foreign: Foreign,
    pub learner: LearnerChoices,
    pub sample_slots: u32,
    pub stats_file: PathText,
    pub dump_dir: PathText,
    pub policy_out: PathText,
}

impl Boot {
    const DEFAULT: Self = Self {
        stats: Settings::DEFAULT.stats,
        os_stats: Settings::DEFAULT.ss_os_stats,
        dump_signal: Settings::DEFAULT.dump_signal,
        freeze_signal: Settings::DEFAULT.freeze_signal,
        foreign: Settings::DEFAULT.foreign,
        learner: LearnerChoices::of(&Settings::DEFAULT),
        sample_slots: Settings::DEFAULT.sample_slots,
        stats_file: PathText::EMPTY,
        dump_dir: PathText::EMPTY,
        policy_out: PathText::EMPTY,
    };
}

/// A path, copied out of the environment, which the program may change.
pub(crate) struct PathText {
    bytes: [u8; PATH_BYTES],
    len: usize,
}

impl PathText {
    const EMPTY: Self = Self { bytes: [0; PATH_BYTES], len: 0 };

    fn new(text: Option<&[u8]>) -> Self {
        let mut path = Self::EMPTY;
        let text = text.unwrap_or(&[]);
        if let Some(target) = path.bytes.get_mut(..text.len()) {
            target.copy_from_slice(text);
            path.len = text.len();
        } else {
            hakmem_base::report("a path in HAKMEM_* is too long; ignored");
        }
        path
    }

    pub fn as_bytes(&self) -> Option<&[u8]> {
        self.bytes.get(..self.len).filter(|text| !text.is_empty())
    }
}

impl Global {
    const fn new() -> Self {
        Self {
            front: Front::new(),
            big: BigCache::new(),
            hardened: Hardened::new(),
            sampled: SampledPool::new(),
            watcher: watcher::State::new(),
            asked: Asked::new(),
            sites: sites::State::new(),
            policy: PolicyCell::new(),
            arena: MetaArena::new(),
            registry: Registry {
                all: SharedPtr::new(core::ptr::null_mut()),
                free: Lock::new(FreeRecords(core::ptr::null())),
                live: Shared32::new(0),
                peak: Shared32::new(0),
            },
            heapless_runs: HeaplessRuns { allocated: Shared64::new(0), freed: Shared64::new(0) },
            refused: Shared64::new(0),
            starts_refused: Shared64::new(0),
            boot: SetOnce::new(),
            setup: Lock::new(Attempt::First),
            applied: Lock::new(None),
            ready: Flag::new(false),
            hooks: Hooks::new(),
            scavenger: scavenger::State::new(),
            unread: unread::State::new(),
            company: Company::new(),
            is_confined: Flag::new(false),
            learning: learning::State::new(),
            scavenge_min_bytes: SharedUsize::new(FrozenPolicy::DEFAULT.scavenge_min_bytes),
            scavenger_mode: Shared32::new(Scavenger::Auto as u32),
            big_policy: SharedBigPolicy::new(&BigPolicy::DEFAULT),
            physical_bytes: SharedUsize::new(usize::MAX),
        }
    }

    /// Reads the environment and reserves the window, once. False: there is no address space.
    #[unsafe(link_section = ".text.hot.hakmem")]
    pub fn ensure_ready(&self) -> bool {
        // ORDERING: pairs with the store below: window and boot settings travel.
        if self.ready.is_set_acquire() {
            return true;
        }
        let mut setup = self.setup.lock();
        // ORDERING: as above.
        if self.ready.is_set_acquire() {
            return true;
        }
        self.physical_bytes.store_relaxed(physical_bytes());
        self.learning.begin();
        let said = read_environment(core::mem::replace(&mut *setup, Attempt::Later));
        let settings = said.as_ref().unwrap_or(&UNTOLD);
        // A cell without a boot policy says the default one.
        let is_boot_policy = match &said {
            Some(said) => self.policy.set_boot(said.policy.clone()).is_ok(),
            None => self.policy.generation() == 0,
        };
        if is_boot_policy {
            self.pass_on(&settings.policy, 0);
        }
        if !self.front.reserve(settings.window_bytes, MarkKey::from_random(random_bits())) {
            self.starts_refused.add_relaxed(1);
            return false;
        }
        if settings.hardened && !self.start_hardened(settings) {
            return false;
        }
        if let Some(said) = &said {
            self.heed(said);
        }
        hooks::create_exit_key();
        // ORDERING: pairs with the loads above.
        self.ready.store_release(true);
        true
    }

    /// Keeps what the environment said apart from the policy.
    #[cold]
    #[inline(never)]
    fn heed(&self, settings: &Settings<'_>) {
        self.front.ring.switch(settings.tiny_ring);
        learning::heed(settings);
        watcher::heed(settings);
        sites::heed(settings);
        self.boot.set(Boot {
            stats: settings.stats,
            os_stats: settings.ss_os_stats,
            dump_signal: settings.dump_signal,
            freeze_signal: settings.freeze_signal,
            foreign: settings.foreign,
            learner: LearnerChoices::of(settings),
            sample_slots: settings.sample_slots,
            stats_file: PathText::new(settings.stats_file),
            dump_dir: PathText::new(settings.dump_dir),
            policy_out: PathText::new(settings.policy_out),
        });
        if settings.verbose {
            complain(|line| write_what_runs(line, settings));
        }
    }

    /// What the environment said apart from the policy, or what holds when it says nothing.
    pub fn boot(&self) -> &Boot {
        self.boot.get().unwrap_or(const { &Boot::DEFAULT })
    }

    /// The hardened level begins with the first allocation or not at all. False: there is no memory for its tables, and then
    /// there is none to hand out either: a program that asked for the level does not run without it.
    #[cold]
    #[inline(never)]
    fn start_hardened(&self, settings: &Settings<'_>) -> bool {
        if HEADER_BYTES != 0 {
            fatal("the hardened level knows no blocks with headers, which this build measures");
        }
        let limits = Limits {
            quarantine_bytes: settings.quarantine_bytes,
            quarantine_blocks: settings.quarantine_blocks,
            guards: if settings.guards == 0 { crate::hardened::affordable_guards() } else { settings.guards as u64 },
        };
        self.front.tables().is_some_and(|tables| self.hardened.start(self.hardened_context(tables), limits))
    }

    pub fn hardened_context<'a>(&'a self, tables: &'a Tables) -> HardenedContext<'a> {
        HardenedContext {
            os: &self.front.os,
            routes: &tables.routes,
            arena: &self.arena,
            doors_mix: crate::operators::doors_mix,
        }
    }

    /// Whether `ensure_ready` has succeeded.
    pub fn is_ready(&self) -> bool {
        // ORDERING: pairs with `ensure_ready`.
        self.ready.is_set_acquire()
    }

    /// Lets threads and boxes have the numbers of a policy that has been published.
    fn apply(&self, policy: &FrozenPolicy, generation: u32) {
        let mut applied = self.applied.lock();
        if applied.as_ref().is_some_and(|now| generation < now.generation) {
            // Whoever published it was slower than the next one.
            return;
        }
        *applied = Some(FrozenPolicy { generation, ..policy.clone() });
        self.pass_on(policy, generation);
    }

    /// Passes a policy's numbers on to the boxes that have one copy.
    fn pass_on(&self, policy: &FrozenPolicy, generation: u32) {
        self.front.classes.set(DynamicSet::of_sizes(&policy.dynamic_classes), generation);
        self.front.os.set_policy(OsPolicy {
            purge_delay_ms: policy.purge_delay_ms,
            eager_free: policy.eager_free,
            tiering: policy.tiering,
            warm_superslabs: policy.warm_superslabs,
            prefill_superslabs: policy.prefill_superslabs,
            thp_heap_bytes: policy.thp_heap_bytes,
            thp_fill_units: policy.thp_fill_units,
            madvise_guard_abort: policy.madvise_guard_abort,
            memory_limit_bytes: policy.memory_limit_bytes,
        });
        self.unread.delay_ms.store_relaxed(policy.purge_delay_ms);
        self.big_policy.store(&big_policy(policy));
        self.scavenge_min_bytes.store_relaxed(policy.scavenge_min_bytes);
        self.scavenger_mode.store_relaxed(policy.scavenger as u32);
    }

    /// What a call to the box of runs brings along, with the policy that this heap has picked up; without a heap it is the one that the
    /// process began with.
    #[inline]
    pub fn run_context<'a>(&'a self, tables: &'a Tables, record: Option<&HeapRecord>) -> RunContext<'a> {
        let policy = record.map_or_else(|| run_policy(self.policy.boot()), |record| record.run_policy.get());
        RunContext { os: &self.front.os, routes: &tables.routes, policy }
    }

    /// The same for the box of big blocks. Without a heap the policy is the present one: a memory limit is one for everybody, and the
    /// scavenger must not give back what a learned policy keeps.
    #[inline]
    pub fn big_context<'a>(&'a self, tables: &'a Tables, record: Option<&HeapRecord>) -> BigContext<'a> {
        let policy = record.map_or_else(|| self.big_policy.load(), |record| record.big_policy.get());
        BigContext { os: &self.front.os, routes: &tables.routes, policy, hint: BigHint::NONE }
    }

    /// Every record ever made, newest first.
    pub fn records(&self) -> impl Iterator<Item = &'static HeapRecord> {
        // ORDERING: pairs with the push in attach: a record's first state travels.
        let mut next = self.registry.all.load_acquire();
        core::iter::from_fn(move || {
            // SAFETY: the list holds null or records, which are never unmapped.
            let record: &'static HeapRecord = unsafe { next.as_ref() }?;
            next = record.next_record.load_relaxed();
            Some(record)
        })
    }
}

/// Publishes a policy to all threads and boxes.
pub(crate) fn publish(policy: &FrozenPolicy) -> Result<u32, FieldError> {
    update(|current| current.clone_from(policy))
}

/// Publishes what `change` makes of the policy in force.
pub(crate) fn update(change: impl FnMut(&mut FrozenPolicy)) -> Result<u32, FieldError> {
    GLOBAL.ensure_ready();
    let policy = GLOBAL.policy.update(change)?;
    GLOBAL.apply(&policy, policy.generation);
    Ok(policy.generation)
}

/// The same, if the policy of this generation is still in force. `None`: somebody else's is.
pub(crate) fn publish_after(generation: u32, policy: &FrozenPolicy) -> Result<Option<u32>, FieldError> {
    let published = GLOBAL.policy.publish_after(generation, policy.clone())?;
    if let Some(generation) = published {
        GLOBAL.apply(policy, generation);
    }
    Ok(published)
}

/// Bits that nobody outside the process can guess, or, should the kernel refuse them, hardly.
pub(crate) fn random_bits() -> u64 {
    let mut bits = 0_u64;
    let bytes = size_of_val(&bits);
    // SAFETY: writes to a local of this many bytes. Does not wait: at boot time the pool may not be ready yet.
    let got = keeping_errno(|| unsafe { libc::getrandom((&raw mut bits).cast(), bytes, libc::GRND_NONBLOCK) });
    if usize::try_from(got) == Ok(bytes) {
        return bits;
    }
    // SAFETY: reads the auxiliary vector: the address of sixteen random bytes that the kernel gave the process.
    let seed = unsafe { libc::getauxval(libc::AT_RANDOM) } as *const [u64; 2];
    // SAFETY: null, or valid for the life of the process; may be unaligned.
    let [first, second] = if seed.is_null() { [0, 0] } else { unsafe { seed.read_unaligned() } };
    // libc uses these bytes for its own secrets: mixed, so that this one does not give those away.
    (first ^ second.rotate_left(32) ^ (&raw const bits).addr() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn physical_bytes() -> usize {
    match hakmem_superslab_os::physical_bytes() {
        0 => usize::MAX,
        bytes => bytes,
    }
}

/// Whether the environment has anything to say to hakmem.
///
/// A process with raised privileges (`AT_SECURE`) does not listen to variables that whoever started it could set.
pub(crate) fn is_spoken_to() -> bool {
    // SAFETY: reads the auxiliary vector, which Miri does not have.
    let is_raised = !cfg!(miri) && unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    !is_raised && addresses_us(Variables::first().map(|(name, _)| name))
}

/// Settings of the process's environment, if it says anything.
fn read_environment(attempt: Attempt) -> Option<Settings<'static>> {
    is_spoken_to().then(|| parse_variables(attempt))
}

/// Settings from variables; complaints go to stderr, once. Allocates nothing.
///
/// A later attempt reads the variables again instead of keeping what they said, because the program may have freed them; the policy
/// is that of the first one.
#[cold]
#[inline(never)]
fn parse_variables(attempt: Attempt) -> Settings<'static> {
    if attempt == Attempt::Later {
        return parse_environment(Variables::first(), &mut |_| {});
    }
    parse_environment_over(Variables::first(), &mut policy_file::read, &mut |complaint| {
        complain(|line| complaint.write_line(line));
    })
}

/// Policy, level and version of this process; a path last, because it may be long.
fn write_what_runs(line: &mut dyn fmt::Write, settings: &Settings<'_>) -> fmt::Result {
    write!(line, "profile {}, mode {}, ", settings.profile.name(), learning::mode().name())?;
    if settings.hardened {
        line.write_str("hardened level, ")?;
    } else if settings.policy.sample != 0 {
        write!(line, "one allocation in {} sampled, ", settings.policy.sample)?;
    }
    write!(line, "version {}", env!("CARGO_PKG_VERSION"))?;
    if let Some(path) = settings.policy_file {
        line.write_str(", policy file ")?;
        hakmem_policy::write_quoted(line, path)?;
    }
    Ok(())
}

/// Writes one line to stderr; what does not fit is cut.
pub(crate) fn complain(write: impl FnOnce(&mut Line) -> fmt::Result) {
    let mut line = Line::new();
    let _infallible = write(&mut line);
    line.write();
}

unsafe extern "C" {
    /// The process's environment: a null-terminated array of `NAME=value` texts. Null before libc has started.
    static environ: *const *const core::ffi::c_char;
}

/// Walks `environ`.
#[derive(Clone)]
struct Variables(*const *const core::ffi::c_char);

impl Variables {
    fn first() -> Self {
        // SAFETY: reads one word that libc keeps valid.
        Self(unsafe { environ })
    }
}

impl Iterator for Variables {
    type Item = (&'static [u8], &'static [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.0.is_null() {
                return None;
            }
            // SAFETY: not null, so it points to an entry of the array or to its end mark.
            let text = unsafe { *self.0 };
            if text.is_null() {
                return None;
            }
            self.0 = self.0.wrapping_add(1);
            // SAFETY: entries are null-terminated texts. They are read before the first allocation returns.
            let text = unsafe { CStr::from_ptr(text) }.to_bytes();
            if let Some(at) = text.iter().position(|&byte| byte == b'=')
                && let (Some(name), Some(value)) = (text.get(..at), text.get(at + 1..))
            {
                return Some((name, value));
            }
        }
    }
}
