//! What stands in the rest of a block's pages, and whether it still does.

/// Neither a byte of text, nor zero, nor what programs fill memory with. The same always, so that one knows it in a core dump.
pub(crate) const CANARY: u8 = 0xb7;

/// Writes the canary.
///
/// # Safety
/// - `bytes` bytes from `start` on are the caller's alone.
pub(crate) unsafe fn fill(start: *mut u8, bytes: usize) {
    // SAFETY: the caller's memory.
    unsafe { start.write_bytes(CANARY, bytes) };
}

/// Offset of the first byte that is not the canary any more.
///
/// # Safety
/// - `bytes` bytes from `start` on can be read.
pub(crate) unsafe fn first_damage(start: *const u8, bytes: usize) -> Option<usize> {
    // SAFETY: readable; the block is being freed, so that only a program that is wrong anyway writes there now.
    let slack = unsafe { core::slice::from_raw_parts(start, bytes) };
    // All of it at once: this the compiler does many bytes at a time.
    if slack.iter().fold(0, |seen, byte| seen | (byte ^ CANARY)) == 0 {
        return None;
    }
    slack.iter().position(|&byte| byte != CANARY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_changed_byte_is_found() {
        let mut bytes = [0; 100];
        // SAFETY: a local.
        unsafe { fill(bytes.as_mut_ptr(), 100) };
        // SAFETY: as above.
        assert_eq!(unsafe { first_damage(bytes.as_ptr(), 100) }, None);
        for position in [99, 50, 0] {
            bytes[position] = 0;
            // SAFETY: as above.
            assert_eq!(unsafe { first_damage(bytes.as_ptr(), 100) }, Some(position));
        }
        // SAFETY: reads nothing.
        assert_eq!(unsafe { first_damage(bytes.as_ptr(), 0) }, None);
    }
}
