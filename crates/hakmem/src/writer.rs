//! Text to a file descriptor through a small buffer, without allocating.

use core::ffi::c_int;
use core::fmt;
use hakmem_base::write_to;
use std::io::{Error, ErrorKind};

const BUFFER_BYTES: usize = 1024;

/// Collects text and writes it out when the buffer is full and at the end. A write error ends the output: a report has an end
/// missing, never a part of its middle.
pub(crate) struct FdWriter {
    fd: c_int,
    buffer: [u8; BUFFER_BYTES],
    len: usize,
    flushed: usize,
    has_failed: bool,
}

impl FdWriter {
    pub fn new(fd: c_int) -> Self {
        Self { fd, buffer: [0; BUFFER_BYTES], len: 0, flushed: 0, has_failed: false }
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        for &byte in bytes {
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

    /// A number in hexadecimal, with `0x`.
    pub fn hex(&mut self, value: usize) -> &mut Self {
        self.text("0x");
        let digits = (usize::BITS - value.leading_zeros()).div_ceil(4).max(1);
        for position in (0..digits).rev() {
            let nibble = ((value >> (position * 4)) & 0xf) as u8;
            self.bytes(&[if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }]);
        }
        self
    }

    /// Writes out what there is; whether all of the text so far has been written.
    pub fn flush(&mut self) -> bool {
        let mut from = 0;
        while let Some(rest) = self.buffer.get(from..self.len)
            && !rest.is_empty()
            && !self.has_failed
        {
            match usize::try_from(write_to(self.fd, rest)) {
                Ok(written) if written > 0 => from += written,
                Err(_) if Error::last_os_error().kind() == ErrorKind::Interrupted => {}
                _ => self.has_failed = true,
            }
        }
        self.flushed += self.len;
        self.len = 0;
        !self.has_failed
    }

    /// Bytes so far.
    pub fn written(&self) -> usize {
        self.flushed + self.len
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
