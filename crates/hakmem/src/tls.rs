//! The thread's heap pointer, and beside it a count of frees for threads that have none: all that is thread-local.
//!
//! It never is null. A thread that has no heap points to a static empty one, whose lists are empty and whose bins no
//! route word names, so that every operation takes its slow path: this spares the fast path the question "initialised?".
//!
//! In executables `thread_local!` with a constant is one instruction. In a shared library it would be a call; there the
//! word is an initial-exec symbol defined in assembly (feature `initial-exec-tls`, x86-64; others fall back).

use crate::record::HeapRecord;

/// What a thread points to before its first slow path.
pub(crate) static EMPTY: HeapRecord = HeapRecord::new();
/// What a thread points to after its heap was given up, late in its end.
pub(crate) static GONE: HeapRecord = HeapRecord::new();

/// In which state the thread is.
#[derive(Clone, Copy)]
pub(crate) enum Holder {
    /// It has never needed a heap.
    Newcomer,
    /// It holds this one.
    Heap(&'static HeapRecord),
    /// It has given its heap up and is about to end.
    Leaver,
}

/// The record that this thread points to, for the fast path.
#[inline(always)]
pub(crate) fn record() -> &'static HeapRecord {
    // SAFETY: the word always points to a static record or to a heap record, neither of which is ever unmapped.
    unsafe { &*slot::get() }
}

/// Whether the thread points to the empty record: at the hardened level all do, because there every operation asks.
#[inline(always)]
pub(crate) fn is_without_heap() -> bool {
    core::ptr::eq(record(), &raw const EMPTY)
}

/// The thread's state, for slow paths.
#[inline]
pub(crate) fn holder() -> Holder {
    let record = record();
    if core::ptr::eq(record, &raw const EMPTY) {
        Holder::Newcomer
    } else if core::ptr::eq(record, &raw const GONE) {
        Holder::Leaver
    } else {
        Holder::Heap(record)
    }
}

/// The thread's heap, if it holds one.
#[inline]
pub(crate) fn heap() -> Option<&'static HeapRecord> {
    match holder() {
        Holder::Heap(record) => Some(record),
        Holder::Newcomer | Holder::Leaver => None,
    }
}

/// Counts a free of a thread without a heap: how many it has made.
pub(crate) fn count_lone_free() -> usize {
    slot::count_lone_free()
}

/// Points the thread to a record.
pub(crate) fn set(record: &'static HeapRecord) {
    slot::set(record);
}

#[cfg(not(all(feature = "initial-exec-tls", target_arch = "x86_64")))]
mod slot {
    use super::{EMPTY, HeapRecord};
    use core::cell::Cell;

    thread_local! {
        // A constant without a destructor: no registration, no allocation, valid to the very end of the thread.
        static RECORD: Cell<*const HeapRecord> = const { Cell::new(&raw const EMPTY) };
        static LONE_FREES: Cell<usize> = const { Cell::new(0) };
    }

    #[inline(always)]
    pub fn get() -> *const HeapRecord {
        RECORD.with(Cell::get)
    }

    pub fn set(record: &'static HeapRecord) {
        RECORD.with(|slot| slot.set(record));
    }

    pub fn count_lone_free() -> usize {
        LONE_FREES.with(|frees| {
            frees.set(frees.get().wrapping_add(1));
            frees.get()
        })
    }
}

#[cfg(all(feature = "initial-exec-tls", target_arch = "x86_64"))]
mod slot {
    use super::{EMPTY, HeapRecord};
    use core::arch::{asm, global_asm};

    global_asm!(
        ".section .tdata.hakmem_record,\"awT\",@progbits",
        ".globl hakmem_record_slot",
        ".hidden hakmem_record_slot",
        ".type hakmem_record_slot, @object",
        ".size hakmem_record_slot, 16",
        ".p2align 4",
        "hakmem_record_slot:",
        ".quad {empty}",
        ".quad 0",
        ".text",
        empty = sym EMPTY,
    );

    /// Distance of the word from the thread pointer: the same in all threads, so the compiler may keep it.
    #[inline(always)]
    fn offset() -> usize {
        let offset: usize;
        // SAFETY: reads a relocated constant of this library.
        unsafe {
            asm!(
                "mov {offset}, qword ptr [rip + hakmem_record_slot@GOTTPOFF]",
                offset = out(reg) offset,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        offset
    }

    #[inline(always)]
    pub fn get() -> *const HeapRecord {
        let record: *const HeapRecord;
        // SAFETY: the offset leads to this thread's word, which is initialised with the empty record's address.
        unsafe {
            asm!(
                "mov {record}, qword ptr fs:[{offset}]",
                offset = in(reg) offset(),
                record = lateout(reg) record,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        record
    }

    pub fn count_lone_free() -> usize {
        let frees: usize;
        // SAFETY: the word behind the one of `get`, which belongs to this thread.
        unsafe {
            asm!(
                "inc qword ptr fs:[{offset} + 8]",
                "mov {frees}, qword ptr fs:[{offset} + 8]",
                offset = in(reg) offset(),
                frees = lateout(reg) frees,
                options(nostack),
            );
        }
        frees
    }

    pub fn set(record: &'static HeapRecord) {
        // SAFETY: as in `get`; the word belongs to this thread.
        unsafe {
            asm!(
                "mov qword ptr fs:[{offset}], {record}",
                offset = in(reg) offset(),
                record = in(reg) core::ptr::from_ref(record),
                options(nostack, preserves_flags),
            );
        }
    }
}
