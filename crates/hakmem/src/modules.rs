//! Which program or library an address belongs to, and where in it: names for calls that mean the same in every run.
//!
//! From glibc 2.35 on the loader says so without a lock (`_dl_find_object`); with older ones it is `dladdr`.
//!
//! **Not here.** Functions' names, which take longer (`stacks.rs`).
//! **Invariants.** Allocates nothing.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::MaybeUninit;
use hakmem_atomic_ops::SetOnce;

/// A program or library, as far as an address in it tells.
#[derive(Clone, Copy)]
pub(crate) struct Module {
    /// Where it begins, which tells it from all others.
    pub base: usize,
    /// How far it lies from where its file says.
    pub bias: usize,
    /// Its file's name without the folder. Valid as long as the module is there: the caller does not keep it.
    name: *const c_char,
}

/// Longest name of the program's file.
const PROGRAM_BYTES: usize = 256;

/// The program's own name: the loader has none for it.
static PROGRAM: SetOnce<([u8; PROGRAM_BYTES], usize)> = SetOnce::new();

/// `struct dl_find_object`, and more room than any version of it needs.
#[repr(C)]
struct Found {
    flags: u64,
    map_start: *mut c_void,
    map_end: *mut c_void,
    link_map: *const LinkMap,
    rest: [u64; 16],
}

/// The beginning of `struct link_map`.
#[repr(C)]
struct LinkMap {
    bias: usize,
    name: *const c_char,
}

type FindObject = unsafe extern "C" fn(*mut c_void, *mut Found) -> c_int;

// The address of a function that the C library may not have: zero then. Nothing in stable Rust says so.
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(miri)))]
core::arch::global_asm!(
    ".weak _dl_find_object",
    ".pushsection .data.rel.ro.hakmem,\"aw\",@progbits",
    ".balign 8",
    ".globl hakmem_find_object",
    ".hidden hakmem_find_object",
    "hakmem_find_object:",
    ".quad _dl_find_object",
    ".popsection",
);

#[cfg(all(target_os = "linux", target_pointer_width = "64", not(miri)))]
fn find_object() -> Option<FindObject> {
    unsafe extern "C" {
        #[link_name = "hakmem_find_object"]
        static FIND_OBJECT: Option<FindObject>;
    }
    // SAFETY: written by the loader before anything of this module runs, and never again.
    unsafe { FIND_OBJECT }
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64", not(miri))))]
fn find_object() -> Option<FindObject> {
    None
}

impl Module {
    /// The one that `address` lies in.
    pub fn of(address: usize) -> Option<Self> {
        let Some(find) = find_object() else { return Self::by_dladdr(address) };
        // SAFETY: numbers and pointers, of which zero is a value.
        let mut found = unsafe { core::mem::zeroed::<Found>() };
        // SAFETY: any address may be asked for; fills the structure if it finds a module.
        if unsafe { find(core::ptr::without_provenance_mut(address), &raw mut found) } != 0 {
            return None;
        }
        // SAFETY: the loader's own description, which is there as long as the module is.
        let link_map = unsafe { found.link_map.as_ref() }?;
        Some(Self { base: found.map_start.addr(), bias: link_map.bias, name: link_map.name })
    }

    fn by_dladdr(address: usize) -> Option<Self> {
        let info = dl_info(address)?;
        Some(Self { base: info.dli_fbase.addr(), bias: bias(&info), name: info.dli_fname })
    }

    /// The file's name. The program's is that of the file that is executed, whatever name it was called by.
    pub fn name(&self) -> &[u8] {
        // SAFETY: null, or the loader's own text, which is there as long as the module is.
        let path = if self.name.is_null() { &[][..] } else { unsafe { CStr::from_ptr(self.name) }.to_bytes() };
        if path.is_empty() || find_object().is_none() && self.is_program() { program() } else { without_folder(path) }
    }

    /// `dladdr` gives the program the name that it was called by.
    fn is_program(&self) -> bool {
        // SAFETY: reads the auxiliary vector.
        let entry = unsafe { libc::getauxval(libc::AT_ENTRY) } as usize;
        Self::of(entry).is_some_and(|program| program.base == self.base)
    }

    /// Whether this is hakmem as a library of its own, whose calls are no part of a site.
    pub fn is_own_library(&self) -> bool {
        own_library() == Some(self.base)
    }
}

/// Where hakmem begins, if it is a library of its own.
pub(crate) fn own_library() -> Option<usize> {
    let own = Module::of(own_library as *const () as usize)?;
    (!own.is_program()).then_some(own.base)
}

/// How far a module lies from where its file says: nowhere, for a program that is not position-independent.
pub(crate) fn bias(module: &libc::Dl_info) -> usize {
    /// `e_type` in the header of an ELF file, and its value for such a program.
    const TYPE_OFFSET: usize = 16;
    const FIXED: u16 = 2;
    // SAFETY: the loader maps a module's first page, which begins with the header, and keeps it readable.
    let kind = unsafe { module.dli_fbase.cast::<u8>().wrapping_add(TYPE_OFFSET).cast::<u16>().read_unaligned() };
    if kind == FIXED { 0 } else { module.dli_fbase.addr() }
}

/// What `dladdr` says of an address. Takes the loader's lock.
pub(crate) fn dl_info(address: usize) -> Option<libc::Dl_info> {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    let address = core::ptr::without_provenance::<c_void>(address);
    // SAFETY: any address may be asked for; fills the structure where it finds a module.
    let found = unsafe { libc::dladdr(address, info.as_mut_ptr()) };
    // SAFETY: all zero is a value of it.
    (found != 0).then(|| unsafe { info.assume_init() })
}

pub(crate) fn without_folder(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

/// Name of the file that this process executes, without its folder; nothing where /proc is missing. A command's own idea of its name may
/// be a link or a title.
pub(crate) fn program() -> &'static [u8] {
    // Miri's machine has no /proc.
    if cfg!(miri) {
        return &[];
    }
    if PROGRAM.get().is_none() {
        let mut path = [0_u8; PROGRAM_BYTES * 4];
        // SAFETY: the name ends with a zero byte; the buffer is as long as is said.
        let len = unsafe { libc::readlink(c"/proc/self/exe".as_ptr(), path.as_mut_ptr().cast::<c_char>(), path.len()) };
        let path = usize::try_from(len).ok().and_then(|len| path.get(..len)).unwrap_or(&[]);
        let name = without_folder(path);
        let mut known = [0_u8; PROGRAM_BYTES];
        let len = name.len().min(PROGRAM_BYTES);
        if let (Some(place), Some(name)) = (known.get_mut(..len), name.get(..len)) {
            place.copy_from_slice(name);
        }
        // Another thread has found the same.
        let _first = PROGRAM.set((known, len));
    }
    PROGRAM.get().and_then(|(name, len)| name.get(..*len)).unwrap_or(&[])
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn the_program_and_a_library_are_told_apart_and_named() {
        let here = the_program_and_a_library_are_told_apart_and_named as *const () as usize;
        let there = libc::getenv as *const () as usize;
        let (own, other) = (Module::of(here).unwrap(), Module::of(there).unwrap());
        assert!(own.base != other.base && other.name().starts_with(b"libc."), "{:?}", other.name());
        let exe = std::env::current_exe().unwrap();
        assert_eq!(own.name(), exe.file_name().unwrap().as_encoded_bytes());
        assert!(!own.is_own_library() && !other.is_own_library());
        assert!(Module::of(8).is_none());
    }

    #[test]
    fn an_older_loader_says_the_same() {
        for address in [an_older_loader_says_the_same as *const () as usize, libc::getenv as *const () as usize] {
            let (now, before) = (Module::of(address).unwrap(), Module::by_dladdr(address).unwrap());
            assert_eq!(now.bias, before.bias);
            assert_eq!(now.name(), without_folder(before.name()));
        }
    }
}
