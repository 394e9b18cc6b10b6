//! Tables that cost memory only where they are touched.

use crate::sys;
use core::ptr::NonNull;
use hakmem_base::{OS_PAGE_BYTES, ZeroValid};

/// A flat, zero-initialised table of fixed length in memory of its own. Untouched parts cost address space only.
#[derive(Debug)]
pub struct FlatTable<T> {
    entries: NonNull<T>,
    len: usize,
}

// SAFETY: the table owns its entries like a boxed slice does.
unsafe impl<T: Send> Send for FlatTable<T> {}
// SAFETY: as above; shared access gives out `&T` only.
unsafe impl<T: Sync> Sync for FlatTable<T> {}

impl<T> FlatTable<T> {
    /// A table without entries and without memory.
    #[must_use]
    pub const fn empty() -> Self {
        Self { entries: NonNull::dangling(), len: 0 }
    }

    /// The entry at `index`.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&T> {
        // SAFETY: `index < len` entries were mapped, zero is a value of `T` (`reserve`), and `get_mut` borrows exclusively.
        (index < self.len).then(|| unsafe { &*self.entries.as_ptr().wrapping_add(index) })
    }

    /// The entry at `index`, to change.
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        // SAFETY: as in `get`; the table is borrowed exclusively.
        (index < self.len).then(|| unsafe { &mut *self.entries.as_ptr().wrapping_add(index) })
    }

    /// Where the entries begin; dangling for an empty table.
    #[inline]
    #[must_use]
    pub fn as_ptr(&self) -> *const T {
        self.entries.as_ptr()
    }

    /// Number of entries.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the table has no entries.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<T: ZeroValid> FlatTable<T> {
    const FITS_A_PAGE: () = assert!(align_of::<T>() <= OS_PAGE_BYTES && size_of::<T>() > 0);

    /// A table of `len` zeros, or `None` if the kernel refuses.
    #[must_use]
    pub fn reserve(len: usize) -> Option<Self> {
        let () = Self::FITS_A_PAGE;
        if len == 0 {
            return Some(Self::empty());
        }
        let bytes = len.checked_mul(size_of::<T>())?;
        let entries = sys::map_memory(bytes).ok()?.cast::<T>();
        Some(Self { entries, len })
    }
}

impl<T> Drop for FlatTable<T> {
    fn drop(&mut self) {
        // SAFETY: `reserve` mapped exactly these bytes, and the borrow checker knows no reference into them any more.
        unsafe { sys::unmap(self.entries.as_ptr().cast::<u8>(), self.len * size_of::<T>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_start_as_zeros_and_end_at_their_length() {
        let mut table = FlatTable::<u64>::reserve(10_000).unwrap();
        assert!((0..10_000).all(|index| table.get(index) == Some(&0)));
        *table.get_mut(9_999).unwrap() = 7;
        assert_eq!((table.get(9_999), table.get(10_000), table.len()), (Some(&7), None, 10_000));
    }

    #[test]
    fn an_empty_table_has_nothing() {
        let table = FlatTable::<u64>::empty();
        assert!(table.is_empty() && table.get(0).is_none());
        assert!(FlatTable::<u32>::reserve(0).unwrap().is_empty());
    }
}
