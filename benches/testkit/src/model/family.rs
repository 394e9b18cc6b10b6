//! The malloc family, called as a script says and judged by what the C standard, POSIX and glibc's manual promise.
//!
//! **Invariants.** Every request that the machine can serve is served, every impossible one refused with the right
//! `errno`; a call that succeeds leaves `errno` alone; a refused `realloc` leaves the block as it was. Blocks are aligned,
//! as long as `malloc_usable_size` says, zero where `calloc` gave them, and keep their contents ([`Held`]).

use core::ffi::{c_int, c_void};
use core::fmt::Debug;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ptr::NonNull;

use crate::Damage;
use crate::model::bytes::Bytes;
use crate::model::held::{Block, Held, Request};

/// The functions under test, each with the name that a report calls it by. Those of one list mean the same.
#[derive(Clone, Copy)]
#[allow(missing_docs, reason = "each is the function of that name")]
#[allow(clippy::type_complexity, reason = "a table of C functions is what this is")]
pub struct Family {
    /// `malloc` and its equals.
    pub malloc: &'static [(&'static str, fn(usize) -> *mut c_void, Door)],
    pub calloc: &'static [(&'static str, fn(usize, usize) -> *mut c_void)],
    /// `memalign(alignment, bytes)` and its equals.
    pub aligned: &'static [(&'static str, fn(usize, usize) -> *mut c_void, Odd, Door)],
    pub posix_memalign: &'static [(&'static str, unsafe fn(*mut *mut c_void, usize, usize) -> c_int)],
    pub valloc: &'static [(&'static str, fn(usize) -> *mut c_void)],
    pub pvalloc: &'static [(&'static str, fn(usize) -> *mut c_void)],
    pub realloc: &'static [(&'static str, unsafe fn(*mut c_void, usize) -> *mut c_void)],
    pub reallocarray: &'static [(&'static str, unsafe fn(*mut c_void, usize, usize) -> *mut c_void)],
    /// `free(block)` and its kin, which may also be told the size and the alignment asked for, with the doors whose blocks
    /// they may be given. The first ones take what no other one takes.
    pub free: &'static [(&'static str, unsafe fn(*mut c_void, usize, usize), &'static [Door])],
    pub usable_size: &'static [(&'static str, unsafe fn(*mut c_void) -> usize)],
    /// Calls without a block, such as `malloc_trim`: any number may come in, and nothing that is held may change.
    pub others: &'static [(&'static str, fn(u64))],
    /// Whether a call that succeeds leaves `errno` alone; C does not ask for it.
    pub keeps_errno: bool,
}

/// Where a block came from: it decides which function may free it, and whether `realloc` may have it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Door {
    /// `malloc`, `calloc`, `realloc`.
    Malloc,
    /// `aligned_alloc`.
    AlignedAlloc,
    /// The rest of the C family, whose blocks no sized free may be given.
    Memalign,
    /// `operator new`.
    New,
    /// `operator new[]`.
    NewArray,
    /// `operator new` with an alignment.
    NewAligned,
    /// `operator new[]` with an alignment.
    NewArrayAligned,
}

/// Doors of C, whose blocks `free` and `realloc` take.
pub const C_DOORS: &[Door] = &[Door::Malloc, Door::AlignedAlloc, Door::Memalign];

/// What an allocating function does with an alignment that is no power of two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Odd {
    /// Takes the next power of two; `EINVAL` if there is none.
    Rounds,
    /// Null and `EINVAL`.
    Refuses,
    /// Null, as C++ has it.
    ReturnsNull,
}

/// What a script did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Calls made.
    pub calls: usize,
    /// Names of the functions that served a request (or did what they do).
    pub served: BTreeSet<&'static str>,
    /// Names of the functions that refused one.
    pub refused: BTreeSet<&'static str>,
}

/// What stands in `errno` before each call.
const ERRNO_BEFORE: c_int = 4095;
/// Where `posix_memalign` is to write.
const RESULT_BEFORE: usize = 0x7777;
/// Alignment of every block, whatever was asked for.
const ALIGNMENT: usize = 16;
const OS_PAGE_BYTES: usize = 4096;
/// A request up to this many bytes, alignment included, has to be served.
const SERVED_BYTES: usize = 64 << 20;
/// What a script may hold; beyond it, it frees before it allocates.
const HELD_BYTES: usize = 192 << 20;
/// A request that large, size and alignment together, is impossible.
const IMPOSSIBLE_BYTES: usize = isize::MAX as usize;
/// Calls that a report of damage repeats.
const LAST_CALLS: usize = 24;

/// Runs a whole script and frees what it leaves.
///
/// # Errors
/// What the family did wrong, and the calls that led to it.
pub fn run(family: &Family, script: &[u8]) -> Result<Report, Damage> {
    let mut machine = Machine {
        family,
        held: Held::new(),
        doors: HashMap::new(),
        script: Bytes::new(script),
        report: Report::default(),
        last: VecDeque::new(),
    };
    let outcome = machine.run();
    outcome.map_err(|damage| {
        let calls = machine.last.iter().map(|call| format!("\n  {call}")).collect::<String>();
        format!("call {}: {damage}; the last calls:{calls}", machine.report.calls)
    })?;
    Ok(machine.report)
}

struct Machine<'a> {
    family: &'a Family,
    held: Held,
    /// How each block in use was asked for, by its address.
    doors: HashMap<usize, (Door, usize)>,
    script: Bytes<'a>,
    report: Report,
    last: VecDeque<String>,
}

/// What has to become of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Served,
    Refused(c_int),
    /// It depends on the machine.
    Open,
}

/// A request of that size and alignment (a power of two).
fn fate_of(bytes: Option<usize>, align: usize) -> Fate {
    let Some(bytes) = bytes else { return Fate::Refused(libc::ENOMEM) };
    match bytes.checked_add(if align > ALIGNMENT { align } else { 0 }) {
        Some(sum) if sum <= SERVED_BYTES => Fate::Served,
        Some(sum) if sum <= IMPOSSIBLE_BYTES => Fate::Open,
        _ => Fate::Refused(libc::ENOMEM),
    }
}

impl Machine<'_> {
    fn run(&mut self) -> Result<(), Damage> {
        while !self.script.is_empty() {
            self.step()?;
        }
        while self.held.count() > 0 {
            self.free(0)?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Damage> {
        let kind = self.script.byte();
        let which = usize::from(kind / 16);
        match kind % 16 {
            0..=2 => self.malloc(which),
            3 => self.calloc(which),
            4 | 5 => self.realloc(which),
            6 => self.reallocarray(which),
            7 => self.aligned(which),
            8 => self.posix_memalign(which),
            9 => self.page_aligned(which),
            10..=13 => self.free(which),
            14 => self.usable_size(which),
            _ => self.other(which),
        }
    }

    fn malloc(&mut self, which: usize) -> Result<(), Damage> {
        let bytes = self.script.any_size();
        let &(name, malloc, door) = choose(self.family.malloc, which)?;
        self.note(name, &[&bytes])?;
        let (block, errno) = with_errno(|| malloc(bytes));
        self.allocated(name, block, errno, plain(bytes), fate_of(Some(bytes), 1), (door, 1))
    }

    fn calloc(&mut self, which: usize) -> Result<(), Damage> {
        let (count, bytes) = self.count_and_bytes();
        let &(name, calloc) = choose(self.family.calloc, which)?;
        self.note(name, &[&count, &bytes])?;
        let (block, errno) = with_errno(|| calloc(count, bytes));
        let product = count.checked_mul(bytes);
        let request = Request { zeroed: true, ..plain(product.unwrap_or(0)) };
        self.allocated(name, block, errno, request, fate_of(product, 1), (Door::Malloc, 1))
    }

    fn aligned(&mut self, which: usize) -> Result<(), Damage> {
        let (align, bytes) = (self.script.any_alignment(), self.script.any_size());
        let &(name, aligned, odd, door) = choose(self.family.aligned, which)?;
        self.note(name, &[&align, &bytes])?;
        let (block, errno) = with_errno(|| aligned(align, bytes));
        let given = align.checked_next_power_of_two();
        let request = Request { align: given.unwrap_or(1).max(ALIGNMENT), ..plain(bytes) };
        let fate = match given {
            Some(given) if odd == Odd::Rounds || given == align => fate_of(Some(bytes), given),
            _ => Fate::Refused(libc::EINVAL),
        };
        // C++ says no more than that the result is null.
        let errno = if odd == Odd::ReturnsNull && block.is_null() { expected_errno(fate) } else { errno };
        self.allocated(name, block, errno, request, fate, (door, align))
    }

    fn posix_memalign(&mut self, which: usize) -> Result<(), Damage> {
        let (align, bytes) = (self.script.any_alignment(), self.script.any_size());
        let &(name, posix_memalign) = choose(self.family.posix_memalign, which)?;
        self.note(name, &[&align, &bytes])?;
        let before = core::ptr::without_provenance_mut(RESULT_BEFORE);
        let mut result: *mut c_void = before;
        // SAFETY: `result` is a live local.
        let (error, errno) = with_errno(|| unsafe { posix_memalign(&raw mut result, align, bytes) });
        if errno != ERRNO_BEFORE && self.family.keeps_errno {
            return Err(format!("{name} left {errno} in errno"));
        }
        let is_possible = align.is_power_of_two() && align >= size_of::<*mut c_void>();
        let fate = if is_possible { fate_of(Some(bytes), align) } else { Fate::Refused(libc::EINVAL) };
        let (block, errno) = if error == 0 { (result, ERRNO_BEFORE) } else { (core::ptr::null_mut(), error) };
        if error != 0 && result != before {
            return Err(format!("{name} failed and wrote {result:?}"));
        }
        let request = Request { align: if is_possible { align.max(ALIGNMENT) } else { 1 }, ..plain(bytes) };
        self.allocated(name, block, errno, request, fate, (Door::Memalign, align))
    }

    fn page_aligned(&mut self, which: usize) -> Result<(), Damage> {
        let bytes = self.script.any_size();
        let whole_pages = which % 2 == 1;
        let list = if whole_pages { self.family.pvalloc } else { self.family.valloc };
        let &(name, call) = choose(list, which / 2)?;
        self.note(name, &[&bytes])?;
        let (block, errno) = with_errno(|| call(bytes));
        let asked = if whole_pages { bytes.checked_next_multiple_of(OS_PAGE_BYTES) } else { Some(bytes) };
        let request = Request { align: OS_PAGE_BYTES, ..plain(asked.unwrap_or(0)) };
        self.allocated(name, block, errno, request, fate_of(asked, OS_PAGE_BYTES), (Door::Memalign, OS_PAGE_BYTES))
    }

    fn realloc(&mut self, which: usize) -> Result<(), Damage> {
        let (place, bytes) = (self.script.short(), self.script.any_size());
        let &(name, realloc) = choose(self.family.realloc, which)?;
        self.resize(name, place, Some(bytes), &|block| {
            // SAFETY: the block is null, or in use and the model's to resize.
            unsafe { realloc(block, bytes) }
        })
    }

    fn reallocarray(&mut self, which: usize) -> Result<(), Damage> {
        let place = self.script.short();
        let (count, bytes) = self.count_and_bytes();
        let &(name, reallocarray) = choose(self.family.reallocarray, which)?;
        self.resize(name, place, count.checked_mul(bytes), &|block| {
            // SAFETY: the block is null, or in use and the model's to resize.
            unsafe { reallocarray(block, count, bytes) }
        })
    }

    fn resize(
        &mut self,
        name: &'static str,
        place: u16,
        bytes: Option<usize>,
        call: &dyn Fn(*mut c_void) -> *mut c_void,
    ) -> Result<(), Damage> {
        // One in eight resizes nothing, which allocates.
        let old = if place.is_multiple_of(8) { None } else { self.held.take(usize::from(place))? };
        if let Some(block) = old
            && !C_DOORS.contains(&self.door_of(&block).0)
        {
            return self.held.put_back(block);
        }
        self.note(name, &[&old.map(|block| (block.pointer, block.asked)), &bytes])?;
        let (block, errno) = with_errno(|| call(as_void(old)));
        let request = plain(bytes.unwrap_or(0));
        let fate = fate_of(bytes, 1);
        let door = (Door::Malloc, 1);
        let Some(old) = old else { return self.allocated(name, block, errno, request, fate, door) };
        if bytes == Some(0) {
            self.doors.remove(&old.pointer.addr().get());
            self.judge_errno(name, errno, ERRNO_BEFORE)?;
            return if block.is_null() { Ok(()) } else { Err(format!("{name} to zero bytes returned {block:?}")) };
        }
        let Some(block) = self.judge(name, block, errno, fate)? else { return self.held.put_back(old) };
        let usable = self.usable_of(block)?;
        self.held.admit_resized(&old, block, request, usable)?;
        self.doors.remove(&old.pointer.addr().get());
        self.doors.insert(block.addr().get(), door);
        self.let_go_of_huge(request.asked)
    }

    fn free(&mut self, which: usize) -> Result<(), Damage> {
        let place = usize::from(self.script.short());
        // One in 32 frees nothing.
        let block = if place % 32 == 31 && !self.script.is_empty() { None } else { self.held.take(place)? };
        self.free_block(which, block)
    }

    fn free_block(&mut self, which: usize, block: Option<Block>) -> Result<(), Damage> {
        let (door, align) = block.map_or((Door::Malloc, 1), |block| self.door_of(&block));
        // The function that was chosen, or the next one that may have the block.
        let (before, from) = self.family.free.split_at(which % self.family.free.len());
        let fitting = from.iter().chain(before).find(|(_, _, doors)| doors.contains(&door));
        let &(name, free, _) = fitting.ok_or_else(|| format!("nothing frees blocks of {door:?}"))?;
        self.note(name, &[&block.map(|block| (block.pointer, block.asked))])?;
        let asked = block.map_or(0, |block| block.asked);
        block.and_then(|block| self.doors.remove(&block.pointer.addr().get()));
        // SAFETY: the block is null, or in use and the model's to free, with the size and alignment it was asked for.
        let ((), errno) = with_errno(|| unsafe { free(as_void(block), asked, align) });
        self.report.served.insert(name);
        self.judge_errno(name, errno, ERRNO_BEFORE)
    }

    fn usable_size(&mut self, which: usize) -> Result<(), Damage> {
        let place = usize::from(self.script.short());
        let &(name, usable_size) = choose(self.family.usable_size, which)?;
        self.note(name, &[&place])?;
        let block = if place % 32 == 31 { None } else { self.held.pick(place) };
        // SAFETY: the block is null or in use.
        let (usable, errno) = with_errno(|| unsafe { usable_size(as_void(block)) });
        self.report.served.insert(name);
        if usable != block.map_or(0, |block| block.usable) {
            return Err(format!("{name} says {usable} for {block:?}"));
        }
        block.map_or(Ok(()), |block| block.check())?;
        self.judge_errno(name, errno, ERRNO_BEFORE)
    }

    fn other(&mut self, which: usize) -> Result<(), Damage> {
        let number = self.script.long();
        let &(name, call) = choose(self.family.others, which)?;
        self.note(name, &[&number])?;
        call(number);
        self.report.served.insert(name);
        self.held.check()
    }

    /// Judges a new block or a refusal.
    fn allocated(
        &mut self,
        name: &'static str,
        block: *mut c_void,
        errno: c_int,
        request: Request,
        fate: Fate,
        door: (Door, usize),
    ) -> Result<(), Damage> {
        let Some(block) = self.judge(name, block, errno, fate)? else { return Ok(()) };
        let request = Request { align: request.align.max(ALIGNMENT), ..request };
        let usable = self.usable_of(block)?;
        self.held.admit(block, request, usable)?;
        self.doors.insert(block.addr().get(), door);
        self.let_go_of_huge(request.asked)
    }

    fn judge(
        &mut self,
        name: &'static str,
        block: *mut c_void,
        errno: c_int,
        fate: Fate,
    ) -> Result<Option<NonNull<u8>>, Damage> {
        let block = NonNull::new(block.cast::<u8>());
        let done = if block.is_some() { &mut self.report.served } else { &mut self.report.refused };
        done.insert(name);
        match (block, fate) {
            (Some(_), Fate::Served | Fate::Open) => self.judge_errno(name, errno, ERRNO_BEFORE)?,
            (None, Fate::Refused(expected)) => self.judge_errno(name, errno, expected)?,
            (None, Fate::Open) => self.judge_errno(name, errno, libc::ENOMEM)?,
            (Some(block), Fate::Refused(_)) => return Err(format!("{name} granted an impossible request: {block:?}")),
            (None, Fate::Served) => return Err(format!("{name} refused a request that it can serve, errno {errno}")),
        }
        Ok(block)
    }

    fn judge_errno(&self, name: &str, errno: c_int, expected: c_int) -> Result<(), Damage> {
        if errno == expected || expected == ERRNO_BEFORE && !self.family.keeps_errno {
            return Ok(());
        }
        Err(format!("{name} left {errno} in errno, not {expected}"))
    }

    fn usable_of(&self, block: NonNull<u8>) -> Result<usize, Damage> {
        let &(_, usable_size) = choose(self.family.usable_size, 0)?;
        // SAFETY: the block has just been handed out.
        Ok(unsafe { usable_size(block.as_ptr().cast()) })
    }

    /// The door and the alignment that the block was asked for.
    fn door_of(&self, block: &Block) -> (Door, usize) {
        self.doors.get(&block.pointer.addr().get()).copied().unwrap_or((Door::Malloc, 1))
    }

    /// Blocks that no test can afford to fill go at once: resizing them could copy terabytes of nothing.
    fn let_go_of_huge(&mut self, asked: usize) -> Result<(), Damage> {
        if asked <= SERVED_BYTES {
            return Ok(());
        }
        let newest = self.held.count() - 1;
        let block = self.held.take(newest)?;
        self.free_block(0, block)
    }

    /// Writes the call down, and makes room for what it may return.
    fn note(&mut self, name: &'static str, arguments: &[&dyn Debug]) -> Result<(), Damage> {
        while self.held.bytes() > HELD_BYTES {
            let block = self.held.take(0)?;
            self.free_block(0, block)?;
        }
        self.report.calls += 1;
        if self.last.len() == LAST_CALLS {
            self.last.pop_front();
        }
        self.last.push_back(format!("{name} {arguments:?}"));
        Ok(())
    }

    /// Factors of a size; one product in eight overflows or is impossible.
    fn count_and_bytes(&mut self) -> (usize, usize) {
        let kind = self.script.byte();
        match kind % 8 {
            0 => (self.script.any_size(), self.script.any_size()),
            1 => (usize::MAX / usize::from(kind).max(1), usize::from(self.script.byte())),
            2 => (0, self.script.any_size()),
            3 | 4 => (usize::from(self.script.byte()), usize::from(self.script.short())),
            5 => (self.script.size(), 1),
            _ => (1, self.script.size()),
        }
    }
}

const fn plain(asked: usize) -> Request {
    Request { asked, align: ALIGNMENT, zeroed: false }
}

const fn expected_errno(fate: Fate) -> c_int {
    match fate {
        Fate::Refused(errno) => errno,
        Fate::Served | Fate::Open => libc::ENOMEM,
    }
}

fn as_void(block: Option<Block>) -> *mut c_void {
    block.map_or(core::ptr::null_mut(), |block| block.pointer.as_ptr().cast())
}

fn choose<F>(list: &'static [F], which: usize) -> Result<&'static F, Damage> {
    let place = which.checked_rem(list.len()).ok_or("a list of functions is empty")?;
    Ok(&list[place])
}

/// The result of `call` and the `errno` that it left.
fn with_errno<T>(call: impl FnOnce() -> T) -> (T, c_int) {
    // SAFETY: takes no argument; the result is valid for the life of the calling thread.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the word belongs to this thread.
    unsafe { errno.write(ERRNO_BEFORE) };
    let result = call();
    // SAFETY: the word belongs to this thread.
    (result, unsafe { errno.read() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;
    use std::cell::Cell;

    unsafe extern "C" {
        fn valloc(bytes: usize) -> *mut c_void;
        fn pvalloc(bytes: usize) -> *mut c_void;
    }

    // SAFETY (all of the table): the functions of the C library, whose conditions are those that the model keeps.
    #[allow(clippy::undocumented_unsafe_blocks, reason = "one line above for all")]
    const C_LIBRARY: Family = Family {
        malloc: &[("malloc", |bytes| unsafe { libc::malloc(bytes) }, Door::Malloc)],
        calloc: &[("calloc", |count, bytes| unsafe { libc::calloc(count, bytes) })],
        aligned: &[("memalign", |align, bytes| unsafe { libc::memalign(align, bytes) }, Odd::Rounds, Door::Memalign)],
        posix_memalign: &[("posix_memalign", |result, align, bytes| unsafe {
            libc::posix_memalign(result, align, bytes)
        })],
        valloc: &[("valloc", |bytes| unsafe { valloc(bytes) })],
        pvalloc: &[("pvalloc", |bytes| unsafe { pvalloc(bytes) })],
        realloc: &[("realloc", |block, bytes| unsafe { libc::realloc(block, bytes) })],
        reallocarray: &[("reallocarray", |block, count, bytes| unsafe { libc::reallocarray(block, count, bytes) })],
        free: &[("free", |block, _, _| unsafe { libc::free(block) }, C_DOORS)],
        usable_size: &[("malloc_usable_size", |block| unsafe { libc::malloc_usable_size(block) })],
        others: &[("nothing", |_| {})],
        keeps_errno: false,
    };

    fn script(seed: u64, bytes: usize) -> Vec<u8> {
        let mut random = Random::new(seed);
        (0..bytes).map(|_| (random.next() >> 32) as u8).collect()
    }

    #[test]
    fn the_c_library_passes() {
        let mut seen = Report::default();
        for seed in 0..40 {
            let report = run(&C_LIBRARY, &script(seed, 2000)).unwrap();
            seen.calls += report.calls;
            seen.served.extend(report.served);
            seen.refused.extend(report.refused);
        }
        assert!(seen.calls > 5000);
        assert_eq!(seen.served.len(), 11, "{:?}", seen.served);
        assert_eq!(seen.refused.len(), 8, "{:?}", seen.refused);
    }

    /// Runs scripts until one is found that the broken family does not survive.
    fn finds(family: Family) -> String {
        (0..200).find_map(|seed| run(&family, &script(seed, 2000)).err()).unwrap()
    }

    #[test]
    fn what_a_family_can_get_wrong_is_found() {
        // SAFETY (all closures): functions of the C library, misused only in ways that stay inside its blocks.
        #![allow(clippy::undocumented_unsafe_blocks, reason = "one line above for all")]
        let right = C_LIBRARY;
        let overflow = Family {
            calloc: &[("calloc", |count, bytes| unsafe { libc::calloc(1, count.wrapping_mul(bytes)) })],
            ..right
        };
        assert!(finds(overflow).contains("granted an impossible request"));
        let dirty = Family {
            calloc: &[("calloc", |count, bytes| {
                let block = unsafe { libc::calloc(count, bytes) };
                if !block.is_null() && count * bytes > 100 {
                    unsafe { block.cast::<u8>().wrapping_add(99).write(1) };
                }
                block
            })],
            ..right
        };
        assert!(finds(dirty).contains("not zero"));
        let misaligned = Family {
            aligned: &[("memalign", |_, bytes| unsafe { libc::malloc(bytes) }, Odd::Rounds, Door::Memalign)],
            ..right
        };
        assert!(finds(misaligned).contains("aligned"));
        let forgetful = Family {
            realloc: &[("realloc", |block, bytes| {
                unsafe { libc::free(block) };
                if bytes == 0 { core::ptr::null_mut() } else { unsafe { libc::calloc(1, bytes) } }
            })],
            ..right
        };
        assert!(finds(forgetful).contains("contents of"));
        let silent = Family {
            malloc: &[(
                "malloc",
                |bytes| {
                    let block = unsafe { libc::malloc(bytes) };
                    let errno = unsafe { libc::__errno_location() };
                    unsafe { errno.write(ERRNO_BEFORE) };
                    block
                },
                Door::Malloc,
            )],
            ..right
        };
        assert!(finds(silent).contains("in errno"));
        let eager = Family {
            posix_memalign: &[("posix_memalign", |result, align, bytes| {
                unsafe { result.write(core::ptr::null_mut()) };
                unsafe { libc::posix_memalign(result, align, bytes) }
            })],
            ..right
        };
        assert!(finds(eager).contains("failed and wrote"));
    }

    #[test]
    fn a_block_handed_out_twice_is_found() {
        thread_local! { static LAST: Cell<*mut c_void> = const { Cell::new(core::ptr::null_mut()) } }
        let family = Family {
            malloc: &[(
                "malloc",
                |bytes| {
                    let last = LAST.get();
                    if bytes == 40 && !last.is_null() {
                        return last;
                    }
                    // SAFETY: no condition.
                    let block = unsafe { libc::calloc(1, bytes.max(40)) };
                    if bytes < 1 << 20 {
                        LAST.set(block);
                    }
                    block
                },
                Door::Malloc,
            )],
            // Nothing is freed, so that the pointer stays good.
            free: &[("free", |_, _, _| {}, C_DOORS)],
            ..C_LIBRARY
        };
        // malloc(40) twice: kind 0, size by one byte.
        let found = run(&family, &[0, 8, 0, 40, 0, 8, 0, 40]).unwrap_err();
        assert!(found.contains("overlaps"), "{found}");
    }
}
