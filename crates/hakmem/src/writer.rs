//! Text to a file descriptor through a small buffer, without allocating.

use core::ffi::{c_int, c_void};
use core::fmt;

const BUFFER_BYTES: usize = 1024;

/// Collects text and writes it out when the buffer is full and at the end. Write errors end the output silently: reports
/// are written at exit and in signal handlers, where nobody can be told.
pub(crate) struct FdWriter {
    fd: c_int,
    buffer: [u8; BUFFER_BYTES],
    len: usize,
}

impl FdWriter {
    pub fn new(fd: c_int) -> Self {
        Self { fd, buffer: [0; BUFFER_BYTES], len: 0 }
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        for &byte in text.as_bytes() {
            if self.len == BUFFER_BYTES {
                self.flush();
            }
            if let Some(slot) = self.buffer.get_mut(self.len) {
                *slot = byte;
                self.len += 1;
            }
        }
        self
    }

    pub fn number(&mut self, value: u64) -> &mut Self {
        let mut digits = [0_u8; 20];
        let mut rest = value;
        let mut first = digits.len();
        for (position, digit) in digits.iter_mut().enumerate().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
            first = position;
            if rest == 0 {
                break;
            }
        }
        let digits = digits.get(first..).and_then(|digits| core::str::from_utf8(digits).ok());
        self.text(digits.unwrap_or(""))
    }

    pub fn flush(&mut self) {
        let mut from = 0;
        while let Some(rest) = self.buffer.get(from..self.len)
            && !rest.is_empty()
        {
            // SAFETY: the bytes are the buffer's.
            let written = unsafe { libc::write(self.fd, rest.as_ptr().cast::<c_void>(), rest.len()) };
            match usize::try_from(written) {
                Ok(written) if written > 0 => from += written,
                _ => break,
            }
        }
        self.len = 0;
    }
}

impl fmt::Write for FdWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text(text);
        Ok(())
    }
}

impl Drop for FdWriter {
    fn drop(&mut self) {
        self.flush();
    }
}
