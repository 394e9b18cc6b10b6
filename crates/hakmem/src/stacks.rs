//! Stacks as text: which module and which function each call is in.

use core::ffi::CStr;
use hakmem_sampled::Trace;

use crate::modules::{bias, dl_info, own_library};
use crate::writer::FdWriter;

/// Writes stacks, without the calls of hakmem itself.
pub(crate) struct Stacks {
    own_library: Option<usize>,
}

impl Stacks {
    pub fn new() -> Self {
        Self { own_library: own_library() }
    }

    /// Writes a stack, one line a call. `begins_with_instruction`: its first address is that of an instruction, like that of an access
    /// which the kernel stopped; all others are addresses that calls return to.
    pub fn write(&self, out: &mut FdWriter, trace: &Trace, begins_with_instruction: bool) {
        let mut is_own_part = !begins_with_instruction;
        let mut number = 0;
        for (position, &address) in trace.frames().iter().enumerate() {
            // The call stands before the address that it returns to, which may belong to the next function already.
            let place = if position == 0 && begins_with_instruction { address } else { address.wrapping_sub(1) };
            let module = dl_info(place);
            if let Some(module) = &module {
                is_own_part &= Some(module.dli_fbase.addr()) == self.own_library && module.dli_sname.is_null();
            }
            if is_own_part && self.own_library.is_some() {
                continue;
            }
            write_frame(out, number, address, place, module.as_ref());
            number += 1;
        }
        if number == 0 {
            out.text("    (no stack)\n");
        }
        out.flush();
    }
}

/// `    #0 0x7f.. /usr/lib/libx.so+0x1234 (name+0x12)`; the offset is what `addr2line -e` takes.
fn write_frame(out: &mut FdWriter, number: u64, address: usize, place: usize, module: Option<&libc::Dl_info>) {
    out.text("    #").number(number).text(" ").hex(address);
    if let Some(module) = module {
        if !module.dli_fname.is_null() {
            // SAFETY: the loader's own text, as long as the module is there.
            let name = unsafe { CStr::from_ptr(module.dli_fname) };
            out.text(" ").bytes(name.to_bytes()).text("+").hex(place.wrapping_sub(bias(module)));
        }
        if !module.dli_sname.is_null() {
            // SAFETY: as above.
            let name = unsafe { CStr::from_ptr(module.dli_sname) };
            out.text(" (").bytes(name.to_bytes()).text("+").hex(place.wrapping_sub(module.dli_saddr.addr())).text(")");
        }
    }
    out.text("\n");
}

/// Writes the name of the function that `place` lies in (of a long one the beginning) and the distance from its start; `?` if it has
/// no name, and for each character that a string would have to escape.
pub(crate) fn write_symbol(out: &mut FdWriter, place: usize) {
    /// Longest name (bytes).
    const MOST: usize = 100;
    let Some(module) = dl_info(place).filter(|module| !module.dli_sname.is_null()) else {
        out.text("?");
        return;
    };
    // SAFETY: the loader's own text, as long as the module is there.
    let name = unsafe { CStr::from_ptr(module.dli_sname) };
    for byte in name.to_bytes().iter().take(MOST) {
        let is_plain = byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        out.bytes(&[if is_plain { *byte } else { b'?' }]);
    }
    out.text("+").hex(place.wrapping_sub(module.dli_saddr.addr()));
}
