//! Files that variables of the environment name. Allocates nothing, and works in a signal handler.

use core::ffi::{c_char, c_int};

use crate::stderr;
use crate::writer::FdWriter;

/// Longest path (bytes), its end mark included.
const PATH_BYTES: usize = 640;

/// Writes the file at `path`, which the environment's `variable` names; `%p` in it stands for the process id. Complains if it cannot.
pub(crate) fn write_named(variable: &str, path: &[u8], write: impl FnOnce(&mut FdWriter)) {
    if !write_whole(path, write) {
        complain_of(variable, path);
    }
}

pub(crate) fn complain_of(variable: &str, path: &[u8]) {
    let mut out = FdWriter::new(stderr::descriptor());
    out.text("hakmem: ").text(variable).text(": cannot write ");
    let _infallible = hakmem_policy::write_quoted(&mut out, path);
    out.text("\n");
}

/// Writes a file as a whole or not at all: under another name first, which then becomes `path`'s. Whoever reads meanwhile, or writes the
/// same file, finds a whole one. What is no plain file (a pipe, a terminal, a link) is written as it is. Whether all went well.
fn write_whole(path: &[u8], write: impl FnOnce(&mut FdWriter)) -> bool {
    let name = PathBuffer::of(path);
    let mut beside = PathBuffer::of(path);
    beside.text(b".").number(process()).text(b".tmp");
    let is_plain = name.kind().is_none_or(|kind| kind == libc::S_IFREG);
    // A file may be one's own to write in a folder that is not.
    let aside = if is_plain { beside.create() } else { None };
    let Some(fd) = aside.or_else(|| name.create()) else { return false };
    let mut out = FdWriter::new(fd);
    write(&mut out);
    let is_whole = out.flush();
    close(fd);
    if aside.is_none() {
        return is_whole;
    }
    // SAFETY: both buffers end with a zero byte.
    let is_renamed = is_whole && unsafe { libc::rename(beside.as_ptr(), name.as_ptr()) } == 0;
    if !is_renamed {
        // SAFETY: as above.
        unsafe { libc::unlink(beside.as_ptr()) };
    }
    is_renamed
}

/// Whether there is such a file; `%p` in the path stands for the process id.
pub(crate) fn is_there(path: &[u8]) -> bool {
    PathBuffer::of(path).kind().is_some()
}

pub(crate) fn close(fd: c_int) {
    // SAFETY: the descriptor came from `PathBuffer::create`.
    unsafe { libc::close(fd) };
}

pub(crate) fn process() -> u32 {
    // SAFETY: takes no argument.
    unsafe { libc::getpid() }.cast_unsigned()
}

/// A path for the kernel. One that is too long fills the buffer, and no file is created from it.
pub(crate) struct PathBuffer {
    bytes: [u8; PATH_BYTES],
    len: usize,
}

impl PathBuffer {
    /// With the process id for `%p`.
    pub fn of(path: &[u8]) -> Self {
        let mut name = Self { bytes: [0; PATH_BYTES], len: 0 };
        let mut rest = path;
        while let Some((&byte, behind)) = rest.split_first() {
            if byte == b'%' && behind.first() == Some(&b'p') {
                name.number(process());
                rest = behind.get(1..).unwrap_or(&[]);
            } else {
                name.push(byte);
                rest = behind;
            }
        }
        name
    }

    fn as_ptr(&self) -> *const c_char {
        self.bytes.as_ptr().cast()
    }

    pub fn create(&self) -> Option<c_int> {
        if self.len >= PATH_BYTES - 1 {
            return None;
        }
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
        // SAFETY: the buffer is longer than the name, so it ends with a zero byte.
        let fd = unsafe { libc::open(self.as_ptr(), flags, 0o644) };
        (fd >= 0).then_some(fd)
    }

    /// Which kind of file it names; none if there is none.
    fn kind(&self) -> Option<libc::mode_t> {
        // SAFETY: all zero is a valid structure to be filled.
        let mut found = unsafe { core::mem::zeroed::<libc::stat>() };
        // SAFETY: the name ends with a zero byte; the structure is filled if there is such a file.
        let is_there = unsafe { libc::lstat(self.as_ptr(), &raw mut found) } == 0;
        is_there.then_some(found.st_mode & libc::S_IFMT)
    }

    pub fn text(&mut self, text: &[u8]) -> &mut Self {
        text.iter().for_each(|&byte| self.push(byte));
        self
    }

    fn push(&mut self, byte: u8) {
        // The last byte stays zero: it ends the text.
        if self.len < PATH_BYTES - 1
            && let Some(slot) = self.bytes.get_mut(self.len)
        {
            *slot = byte;
            self.len += 1;
        }
    }

    pub fn number(&mut self, value: u32) -> &mut Self {
        let mut divisor = 1;
        while value / divisor >= 10 {
            divisor *= 10;
        }
        while divisor > 0 {
            self.push(b'0' + ((value / divisor) % 10) as u8);
            divisor /= 10;
        }
        self
    }
}
