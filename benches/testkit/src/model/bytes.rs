//! A script as bytes: numbers are read off its front, and it goes on with zeros when it is used up.

/// What is left of a script.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(&'a [u8]);

/// Largest size that [`Bytes::size`] gives.
pub const SIZE_MAX: usize = 16 << 20;

impl<'a> Bytes<'a> {
    /// The whole script.
    #[must_use]
    pub const fn new(script: &'a [u8]) -> Self {
        Self(script)
    }

    /// Whether it is used up.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    /// The next two bytes as a number.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// The next eight bytes as a number.
    pub fn long(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A size that the allocator has to serve: mostly small, often at a border between two classes or routes.
    pub fn size(&mut self) -> usize {
        let kind = self.byte();
        let size = match kind % 16 {
            0..=5 => usize::from(self.byte()),
            6..=8 => usize::from(self.short() % 1100),
            9..=10 => usize::from(self.short()),
            11..=12 => self.near(22),
            13 => usize::from(self.short()) * 32,
            14 => usize::from(self.short()) << 6,
            _ => usize::from(self.short()) << 8,
        };
        size.min(SIZE_MAX)
    }

    /// Any size at all; one in eight is beyond what a machine has, or what a pointer difference can say.
    pub fn any_size(&mut self) -> usize {
        match self.byte() % 64 {
            0 => self.near(63),
            1 => usize::MAX - usize::from(self.short()),
            2 => (isize::MAX as usize).wrapping_add_signed(self.step()),
            3 => self.long() as usize,
            4..=7 => self.near(40),
            _ => self.size(),
        }
    }

    /// An alignment as the family may be asked for it, one in four no power of two.
    pub fn any_alignment(&mut self) -> usize {
        match self.byte() % 32 {
            0 => self.near(63),
            1 => self.long() as usize,
            2..=4 => usize::from(self.byte()),
            5..=7 => usize::from(self.short()),
            8..=9 => 1 << (self.byte() % 64),
            10..=16 => 1 << (self.byte() % 23),
            _ => 1 << (self.byte() % 13),
        }
    }

    /// A power of two, at most `1 << doublings`, give or take a little.
    fn near(&mut self, doublings: u8) -> usize {
        let power = 1_usize << (self.byte() % (doublings + 1));
        power.wrapping_add_signed(self.step())
    }

    /// From -128 to 127.
    fn step(&mut self) -> isize {
        isize::from(self.byte().cast_signed())
    }

    fn array<const COUNT: usize>(&mut self) -> [u8; COUNT] {
        let mut array = [0; COUNT];
        let (now, rest) = self.0.split_at(self.0.len().min(COUNT));
        array[..now.len()].copy_from_slice(now);
        self.0 = rest;
        array
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    #[test]
    fn a_script_goes_on_with_zeros() {
        let mut bytes = Bytes::new(&[1, 2, 3]);
        assert_eq!((bytes.byte(), bytes.is_empty(), bytes.long(), bytes.is_empty()), (1, false, 0x0302, true));
        assert_eq!(bytes.short(), 0);
    }

    #[test]
    fn sizes_reach_every_route_and_both_ends_of_the_address_space() {
        let mut random = Random::new(3);
        let script: Vec<u8> = (0..400_000).map(|_| random.next() as u8).collect();
        let mut bytes = Bytes::new(&script);
        let mut sizes = Vec::new();
        while !bytes.is_empty() {
            sizes.push(bytes.any_size());
        }
        let met = |low: usize, high: usize| sizes.iter().filter(|size| (low..=high).contains(size)).count();
        assert!(met(0, 1024) > sizes.len() / 3);
        for (low, high) in [(0, 0), (1025, 32 << 10), (32 << 10 | 1, 2 << 20), (2 << 20 | 1, SIZE_MAX)] {
            assert!(met(low, high) > 20, "{low} to {high}");
        }
        for (low, high) in [(1 << 40, isize::MAX as usize), (isize::MAX as usize + 1, usize::MAX)] {
            assert!(met(low, high) > 20, "{low} to {high}");
        }
    }
}
