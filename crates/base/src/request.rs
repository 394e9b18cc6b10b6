//! What a caller asked for, in one word, for the slow paths that need more of it than the size class.

/// Through which door a block left, or comes back. Levels that check it report a block that comes back through the wrong one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Door {
    /// Rust's `GlobalAlloc`.
    Rust,
    /// The malloc family.
    Malloc,
    /// `operator new` and `operator delete`.
    New,
    /// `operator new[]` and `operator delete[]`.
    NewArray,
}

/// Bytes, alignment and door of an allocation, or of a free as far as its caller names them.
///
/// One word, made by slow paths: made early, of a size that the caller names, it is two instructions more on every allocation and four
/// on every free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Request(u64);

const BYTES_BITS: u32 = 48;
const BYTES_MASK: u64 = (1 << BYTES_BITS) - 1;
const ALIGN_SHIFT: u32 = BYTES_BITS;
const ALIGN_MASK: u64 = 0x3f;
const DOOR_SHIFT: u32 = 56;
/// Set where the caller named no size.
const UNSIZED: u64 = 1 << 63;

impl Door {
    /// The door whose number ends in these two bits.
    #[inline]
    #[must_use]
    pub const fn from_low_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Rust,
            1 => Self::Malloc,
            2 => Self::New,
            _ => Self::NewArray,
        }
    }

    /// Whether frees through this door are checked: what leaves through it leaves without the mark of a free block, what
    /// comes back gets it. Rust's types keep safe code from freeing twice, and its sized frees are the shortest path there
    /// is, so they are checked only with the feature `checked`.
    #[inline(always)]
    #[must_use]
    pub const fn is_checked(self) -> bool {
        cfg!(feature = "checked") || !matches!(self, Self::Rust)
    }
}

impl Request {
    /// The most bytes that one can name. No address space of this kind of machine has as many: whoever allocates refuses more.
    pub const MAX_BYTES: usize = BYTES_MASK as usize;

    /// `bytes` bytes (at most [`Request::MAX_BYTES`]; more are cut) at a multiple of `align` (a power of two).
    #[inline(always)]
    #[must_use]
    pub const fn new(bytes: usize, align: usize, door: Door) -> Self {
        Self(
            (bytes as u64 & BYTES_MASK)
                | ((align.trailing_zeros() as u64) << ALIGN_SHIFT)
                | ((door as u64) << DOOR_SHIFT),
        )
    }

    /// A free that says only through which door it comes.
    #[inline(always)]
    #[must_use]
    pub const fn unsized_from(door: Door) -> Self {
        Self(UNSIZED | ((door as u64) << DOOR_SHIFT))
    }

    /// The size (bytes), if the caller named one.
    #[inline]
    #[must_use]
    pub const fn bytes(self) -> Option<usize> {
        if self.0 & UNSIZED == 0 { Some((self.0 & BYTES_MASK) as usize) } else { None }
    }

    /// The alignment (bytes); 1 where the caller named none.
    #[inline]
    #[must_use]
    pub const fn align(self) -> usize {
        1 << ((self.0 >> ALIGN_SHIFT) & ALIGN_MASK)
    }

    /// The door.
    #[inline]
    #[must_use]
    pub const fn door(self) -> Door {
        Door::from_low_bits((self.0 >> DOOR_SHIFT) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_bytes_alignment_and_door() {
        for door in [Door::Rust, Door::Malloc, Door::New, Door::NewArray] {
            for bytes in [0, 1, 4096, (1 << 47) + 5] {
                for align in [1, 16, 1 << 21, 1 << 46] {
                    let request = Request::new(bytes, align, door);
                    assert_eq!((request.bytes(), request.align(), request.door()), (Some(bytes), align, door));
                }
            }
            let request = Request::unsized_from(door);
            assert_eq!((request.bytes(), request.align(), request.door()), (None, 1, door));
        }
    }
}
