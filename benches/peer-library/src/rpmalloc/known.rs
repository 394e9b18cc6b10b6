//! Whether rpmalloc has been told of this thread: one byte in the thread's static storage.
//!
//! `thread_local!` in a shared library is a function call, as expensive as an allocation; hence assembly.

use core::arch::{asm, global_asm};

global_asm!(
    ".section .tbss.peer_thread_is_known,\"awT\",@nobits",
    ".globl peer_thread_is_known",
    ".hidden peer_thread_is_known",
    ".type peer_thread_is_known, @object",
    ".size peer_thread_is_known, 1",
    "peer_thread_is_known:",
    ".zero 1",
    ".text",
);

/// Distance of the byte from the thread pointer.
#[inline(always)]
fn offset() -> usize {
    let offset: usize;
    // SAFETY: reads a relocated constant of this library.
    unsafe {
        asm!(
            "mov {offset}, qword ptr [rip + peer_thread_is_known@GOTTPOFF]",
            offset = out(reg) offset,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    offset
}

#[inline(always)]
pub fn is_known() -> bool {
    let known: u32;
    // SAFETY: the offset leads to this thread's byte, which is 0 or 1.
    unsafe {
        asm!(
            "movzx {known:e}, byte ptr fs:[{offset}]",
            offset = in(reg) offset(),
            known = lateout(reg) known,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    known != 0
}

pub fn set(known: bool) {
    // SAFETY: as in `is_known`; the byte belongs to this thread.
    unsafe {
        asm!(
            "mov byte ptr fs:[{offset}], {known}",
            offset = in(reg) offset(),
            known = in(reg_byte) u8::from(known),
            options(nostack, preserves_flags),
        );
    }
}
