//! One clear line on fd 2, without allocating, formatting machinery or locks.

use core::ffi::{c_int, c_void};
use core::fmt;

/// Bytes that one report line can hold; longer text is cut.
const LINE_BYTES: usize = 200;

/// A line of text assembled on the stack.
pub struct Line {
    bytes: [u8; LINE_BYTES],
    len: usize,
}

impl Line {
    /// A line that begins with the library's name.
    #[must_use]
    pub fn new() -> Self {
        let line = Self { bytes: [0; LINE_BYTES], len: 0 };
        line.text("hakmem: ")
    }

    /// Appends text.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        for &byte in text.as_bytes() {
            self.push(byte);
        }
        self
    }

    /// Appends a number in hexadecimal, with `0x`.
    #[must_use]
    pub fn hex(mut self, value: usize) -> Self {
        self = self.text("0x");
        let digits = (usize::BITS - value.leading_zeros()).div_ceil(4).max(1);
        for position in (0..digits).rev() {
            let nibble = ((value >> (position * 4)) & 0xf) as u8;
            self.push(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
        }
        self
    }

    /// Appends a number in decimal.
    #[must_use]
    pub fn number(mut self, value: usize) -> Self {
        let mut divisor = 1_usize;
        while value / divisor >= 10 {
            divisor *= 10;
        }
        while divisor > 0 {
            self.push(b'0' + ((value / divisor) % 10) as u8);
            divisor /= 10;
        }
        self
    }

    /// The text so far, without a line end.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// Writes the line and its end to fd 2. A failing write is ignored: there is nowhere left to say so.
    pub fn write(mut self) {
        if let Some(slot) = self.bytes.get_mut(self.len.min(LINE_BYTES - 1)) {
            *slot = b'\n';
        }
        let len = (self.len + 1).min(LINE_BYTES);
        let _written = write_to(2, self.bytes.get(..len).unwrap_or(&[]));
    }

    fn push(&mut self, byte: u8) {
        // The last byte stays free for the line end.
        if self.len < LINE_BYTES - 1
            && let Some(slot) = self.bytes.get_mut(self.len)
        {
            *slot = byte;
            self.len += 1;
        }
    }
}

/// Text that does not fit is cut, which is no error.
impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.push(byte));
        Ok(())
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes to the file descriptor `fd` what the kernel takes of `bytes`; how many, or -1 with `errno` set.
///
/// The system call itself: the C library's function is a cancellation point, where a thread that is to be cancelled would end in the
/// midst of an allocation or of a report, and the process would go on with what was reported.
pub fn write_to(fd: c_int, bytes: &[u8]) -> isize {
    let (start, len) = (bytes.as_ptr().cast::<c_void>(), bytes.len());
    // Miri knows the function only.
    if cfg!(miri) {
        // SAFETY: `len` bytes may be read at `start`.
        return unsafe { libc::write(fd, start, len) };
    }
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_write, fd, start, len) as isize }
}

/// Writes one line `hakmem: text` to fd 2 and goes on.
#[cold]
pub fn report(text: &str) {
    Line::new().text(text).write();
}

/// Reports damage or misuse and aborts.
///
/// # Panics
/// With feature `testing` it panics instead, so that a test can catch it, but not in a child process that the testkit started.
#[cold]
#[inline(never)]
pub fn fatal(what: &'static str) -> ! {
    end(Line::new().text(what), what)
}

/// Like [`fatal`], naming the pointer.
///
/// # Panics
/// With feature `testing` it panics instead.
#[cold]
#[inline(never)]
pub fn fatal_ptr(what: &'static str, address: usize) -> ! {
    end(Line::new().text(what).text(": pointer ").hex(address), what)
}

/// Like [`fatal_ptr`], naming the block size (bytes) of the slab that the pointer lies in, and its owner.
///
/// # Panics
/// With feature `testing` it panics instead.
#[cold]
#[inline(never)]
pub fn fatal_ptr_class(what: &'static str, address: usize, block_bytes: usize, owner: usize) -> ! {
    let line = Line::new().text(what).text(": pointer ").hex(address);
    let line = line.text(", size class ").number(block_bytes).text(" bytes, owner ");
    end(line.hex(owner), what)
}

/// Like [`fatal_ptr`], naming the bytes that the block was asked for with.
///
/// # Panics
/// With feature `testing` it panics instead.
#[cold]
#[inline(never)]
pub fn fatal_block(what: &'static str, address: usize, bytes: usize) -> ! {
    let line = Line::new().text(what).text(": pointer ").hex(address);
    end(line.text(", ").number(bytes).text(" bytes"), what)
}

/// Reports a line that the caller has put together, and aborts. `what` is its fixed part.
///
/// # Panics
/// With feature `testing` it panics instead, with `what`.
#[cold]
#[inline(never)]
pub fn fatal_line(line: Line, what: &'static str) -> ! {
    end(line, what)
}

#[cold]
fn end(line: Line, what: &'static str) -> ! {
    #[cfg(feature = "testing")]
    if !is_child_of_a_test() {
        #[expect(clippy::panic, reason = "tests catch the finding")]
        {
            panic!("{what}");
        }
    }
    let _same_text_as_line = what;
    line.write();
    // SAFETY: abort takes no argument and does not return.
    unsafe { libc::abort() }
}

/// Whether the testkit started this process to see how it ends. Where one cargo call adds up the features of several packages, tests of
/// the facade run on boxes with this feature.
#[cfg(feature = "testing")]
fn is_child_of_a_test() -> bool {
    // SAFETY: the name ends in 0; who changes the environment does so before a test starts its threads.
    !unsafe { libc::getenv(c"HAKTEST_ROLE".as_ptr()) }.is_null()
}

/// A mistake of the caller: always checked, reported with fixed text, then abort.
#[macro_export]
macro_rules! client_check {
    ($fact:expr, $what:literal, $address:expr) => {
        if !$fact {
            $crate::fatal_ptr($what, $address);
        }
    };
}

/// A fact that our own code guarantees: checked in debug builds, free in release builds.
#[macro_export]
macro_rules! invariant {
    ($fact:expr, $what:literal) => {
        if cfg!(debug_assertions) && !$fact {
            $crate::fatal($what);
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &Line) -> &str {
        core::str::from_utf8(line.as_bytes()).unwrap()
    }

    #[test]
    fn numbers_are_written_in_both_bases() {
        let line = Line::new().hex(0xdead_beef).text(" ").number(0).text(" ").number(1030);
        assert_eq!(text(&line), "hakmem: 0xdeadbeef 0 1030");
    }

    #[test]
    fn long_lines_are_cut_not_overrun() {
        let mut line = Line::new();
        for _ in 0..100 {
            line = line.text("0123456789");
        }
        assert_eq!(line.as_bytes().len(), LINE_BYTES - 1);
    }
}
