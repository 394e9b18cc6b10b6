//! Marks for plain data that a protocol hands over: models learn of each access and see two that nothing orders.
//!
//! Outside models these functions are empty.

/// The calling thread is about to read `data`.
#[inline(always)]
#[cfg_attr(alloc_loom, track_caller)]
pub fn reads<T: ?Sized>(data: &T) {
    #[cfg(alloc_loom)]
    crate::model::reads(core::ptr::from_ref(data).cast::<u8>());
    #[cfg(not(alloc_loom))]
    let _ = data;
}

/// The calling thread is about to write `data`.
#[inline(always)]
#[cfg_attr(alloc_loom, track_caller)]
pub fn writes<T: ?Sized>(data: &T) {
    #[cfg(alloc_loom)]
    crate::model::writes(core::ptr::from_ref(data).cast::<u8>());
    #[cfg(not(alloc_loom))]
    let _ = data;
}
