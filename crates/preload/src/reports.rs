//! What glibc offers to look into and tune its malloc, answered for this one.

use core::ffi::{c_char, c_int};
use hakmem::raw;
use hakmem_base::Line;

/// `mallopt` parameter whose value glibc checks.
const M_MXFAST: c_int = 1;
/// Largest `M_MXFAST` that glibc accepts on 64-bit machines.
const MXFAST_MAX: c_int = 160;

/// Gives free memory back to the system; 1 if any was. The padding that glibc would keep is hakmem's own policy.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub extern "C" fn malloc_trim(_pad: usize) -> c_int {
    c_int::from(raw::trim())
}

/// Accepts what glibc accepts. The parameters steer parts that hakmem does not have (`HAKMEM_*` variables steer hakmem).
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub extern "C" fn mallopt(parameter: c_int, value: c_int) -> c_int {
    c_int::from(parameter != M_MXFAST || (0..=MXFAST_MAX).contains(&value))
}

/// Totals in glibc's structure: `uordblks` in use, `fordblks` free, `arena` both.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub extern "C" fn mallinfo2() -> libc::mallinfo2 {
    let totals = totals();
    libc::mallinfo2 {
        arena: totals.committed,
        ordblks: 1,
        smblks: 0,
        hblks: 0,
        hblkhd: 0,
        usmblks: 0,
        fsmblks: 0,
        uordblks: totals.live,
        fordblks: totals.committed.saturating_sub(totals.live),
        keepcost: totals.cached,
    }
}

/// [`mallinfo2`] in the old structure, whose fields end at 2 GiB.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub extern "C" fn mallinfo() -> libc::mallinfo {
    let wide = mallinfo2();
    libc::mallinfo {
        arena: narrow(wide.arena),
        ordblks: narrow(wide.ordblks),
        smblks: 0,
        hblks: 0,
        hblkhd: 0,
        usmblks: 0,
        fsmblks: 0,
        uordblks: narrow(wide.uordblks),
        fordblks: narrow(wide.fordblks),
        keepcost: narrow(wide.keepcost),
    }
}

/// Writes the totals to stderr.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub extern "C" fn malloc_stats() {
    let totals = totals();
    Line::new().text("committed bytes ").number(totals.committed).write();
    Line::new().text("in use bytes    ").number(totals.live).write();
    Line::new().text("cached bytes    ").number(totals.cached).write();
}

/// Writes the totals as XML in the form of glibc's `malloc_info`. `options` must be zero, else `EINVAL`.
///
/// # Safety
/// - `stream` is an open stdio stream.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn malloc_info(options: c_int, stream: *mut libc::FILE) -> c_int {
    if options != 0 {
        return libc::EINVAL;
    }
    let totals = totals();
    let free = totals.committed.saturating_sub(totals.live);
    let format: *const c_char = c"<malloc version=\"1\">\n<heap nr=\"0\">\n<sizes>\n</sizes>\n\
        <total type=\"fast\" count=\"0\" size=\"0\"/>\n<total type=\"rest\" count=\"1\" size=\"%zu\"/>\n\
        <system type=\"current\" size=\"%zu\"/>\n<system type=\"max\" size=\"%zu\"/>\n\
        <aspace type=\"total\" size=\"%zu\"/>\n<aspace type=\"mprotect\" size=\"%zu\"/>\n</heap>\n\
        <total type=\"fast\" count=\"0\" size=\"0\"/>\n<total type=\"rest\" count=\"1\" size=\"%zu\"/>\n\
        <total type=\"mmap\" count=\"0\" size=\"0\"/>\n\
        <system type=\"current\" size=\"%zu\"/>\n<system type=\"max\" size=\"%zu\"/>\n\
        <aspace type=\"total\" size=\"%zu\"/>\n<aspace type=\"mprotect\" size=\"%zu\"/>\n</malloc>\n"
        .as_ptr();
    let all = totals.committed;
    // SAFETY: the format takes ten `size_t`; the caller vouches for the stream.
    let _ = unsafe { libc::fprintf(stream, format, free, all, all, all, all, free, all, all, all, all) };
    0
}

struct Totals {
    committed: usize,
    live: usize,
    cached: usize,
}

fn totals() -> Totals {
    let stats = hakmem::stats();
    Totals {
        committed: stats.committed_bytes as usize,
        live: stats.live_bytes as usize,
        cached: stats.cached_bytes as usize,
    }
}

fn narrow(bytes: usize) -> c_int {
    c_int::try_from(bytes).unwrap_or(c_int::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mallopt_judges_as_glibc_does() {
        assert_eq!(mallopt(M_MXFAST, 64), 1);
        assert_eq!(mallopt(M_MXFAST, 161), 0);
        assert_eq!(mallopt(M_MXFAST, -1), 0);
        assert_eq!(mallopt(-8, 1), 1, "M_ARENA_MAX");
    }

    #[test]
    fn mallinfo2_balances() {
        let info = mallinfo2();
        assert_eq!(info.arena, info.uordblks + info.fordblks);
    }

    #[test]
    fn old_fields_stop_at_their_largest_value() {
        assert_eq!(narrow(usize::MAX), c_int::MAX);
        assert_eq!(narrow(5), 5);
    }

    #[test]
    fn malloc_info_writes_balanced_xml_and_refuses_options() {
        // SAFETY: takes no argument.
        let stream = unsafe { libc::tmpfile() };
        // SAFETY: the stream is open.
        assert_eq!(unsafe { malloc_info(1, stream) }, libc::EINVAL);
        // SAFETY: the stream is open.
        assert_eq!(unsafe { libc::ftell(stream) }, 0);
        // SAFETY: the stream is open.
        assert_eq!(unsafe { malloc_info(0, stream) }, 0);
        // SAFETY: the stream is open.
        unsafe { libc::rewind(stream) };
        let mut text = [0_u8; 4096];
        // SAFETY: the stream is open and the buffer has this size.
        let read = unsafe { libc::fread(text.as_mut_ptr().cast(), 1, text.len(), stream) };
        // SAFETY: the stream is open and not used afterwards.
        unsafe { libc::fclose(stream) };
        let text = core::str::from_utf8(&text[..read]).unwrap();
        assert!(text.starts_with("<malloc version=\"1\">\n<heap nr=\"0\">"));
        assert!(text.ends_with("</malloc>\n"));
        let sizes: Vec<_> = text.split("type=\"current\" size=\"").skip(1).map(|rest| rest.split('"').next()).collect();
        assert_eq!(sizes.len(), 2, "one heap and the sum of all");
        assert_eq!(sizes[0], sizes[1]);
        assert!(sizes[0].unwrap().parse::<usize>().is_ok());
    }
}
