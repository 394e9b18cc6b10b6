//! Types that fresh memory of the operating system already is a value of.

/// Types for which memory full of zeros is a value.
///
/// # Safety
/// - All-zero bytes are a valid value of the type.
/// - Dropping a value has no effect: tables never drop what they hold.
pub unsafe trait ZeroValid {}

macro_rules! zero_valid {
    ($($name:ty),*) => {$(
        // SAFETY: a plain number: zero is a value and nothing is dropped.
        unsafe impl ZeroValid for $name {}
    )*};
}
zero_valid!(u8, u16, u32, u64, usize);
