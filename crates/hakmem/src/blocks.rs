//! What watched blocks say, as text beside the exit statistics and as JSON in them. Allocates nothing.

use core::ffi::c_int;
use core::fmt::{Display, Formatter, Result, Write};
use hakmem_learner::{GroupSummary, SiteSummary};
use hakmem_sampled::Trace;

use crate::learning;
use crate::stacks::Stacks;
use crate::watcher::{self, ObservedBlocks};
use crate::writer::FdWriter;

/// Sites that the text shows with their calls.
const SITES_SHOWN: usize = 10;
/// Smallest part of what small blocks take that is worth a line.
const SAVING_SHOWN: f64 = 0.001;
const MIB: f64 = 1048576.0;

/// Sizes, lifetimes and sites, if any block was watched. Errors of the descriptor end the text.
pub(crate) fn write_text(out: &mut FdWriter) {
    if let Some(observed) = watcher::observed_blocks() {
        let _cut = write_observed(out, &observed);
    }
}

fn write_observed(out: &mut FdWriter, observed: &ObservedBlocks) -> Result {
    let (summary, distance) = (&observed.summary, observed.distance);
    writeln!(out, "hakmem: blocks, by {} that were watched, one in {distance} at last", observed.watched)?;
    writeln!(
        out,
        "  {:>9} {:>11} {:>9} {:>7} {:>7}  {:>8} {:>8} {:>8} {:>9}",
        "bytes", "blocks", "MiB", "in use", "foreign", "50 %", "90 %", "99 %", "median"
    )?;
    writeln!(
        out,
        "  {:>9} {:>11} {:>9} {:>7} {:>7}  {:^26} {:>9}",
        "up to", "", "", "", "frees", "lived", "in allocs"
    )?;
    for group in summary.groups.iter().filter(|group| group.blocks > 0.0) {
        write_group(out, group)?;
    }
    for wanted in summary.wanted.iter().flatten().filter(|wanted| wanted.saved_share >= SAVING_SHOWN) {
        writeln!(
            out,
            "  a class of {} bytes beside that of {} would save {:.1} % of what small blocks take",
            wanted.block_bytes,
            wanted.fixed_bytes,
            wanted.saved_share * 100.0
        )?;
    }
    let stacks = Stacks::new();
    for site in summary.sites.iter().flatten().take(SITES_SHOWN) {
        write_site(out, site)?;
        stacks.write(out, &calls(site), false);
    }
    Ok(())
}

fn write_group(out: &mut FdWriter, group: &GroupSummary) -> Result {
    let [half, most, nearly_all] = group.lifetime_ns.map(Time);
    match group.up_to_bytes {
        usize::MAX => write!(out, "  {:>9}", "more")?,
        bytes => write!(out, "  {bytes:>9}")?,
    }
    let (alive, foreign) = (group.alive_share * 100.0, group.stranger_share * 100.0);
    write!(out, " {:>11.0} {:>9.1} {alive:>5.1} % {foreign:>5.1} %", group.blocks, group.bytes / MIB)?;
    write!(out, "  {half:>8} {most:>8} {nearly_all:>8}")?;
    match group.median_allocs {
        Some(allocs) => writeln!(out, " {allocs:>9.0}"),
        None => writeln!(out, " {:>9}", "?"),
    }
}

fn write_site(out: &mut FdWriter, site: &SiteSummary) -> Result {
    write!(
        out,
        "  {:.1} MiB in {:.0} blocks, {:.1} MiB in use",
        site.bytes / MIB,
        site.blocks,
        site.alive_bytes / MIB
    )?;
    if let Some([half, most]) = site.lifetime_ns {
        write!(out, "; half lived {}, 90 % {}, as {} say", Time(half), Time(most), site.seen)?;
    }
    writeln!(out)
}

fn calls(site: &SiteSummary) -> Trace {
    site.frames.iter().copied().take_while(|frame| *frame != 0).collect()
}

/// Writes what watched blocks say as a JSON object to the file descriptor `fd`: the mode, and `blocks` if any was watched.
pub fn dump_blocks(fd: c_int) {
    let mut out = FdWriter::new(fd);
    out.text("{\"mode\":\"").text(learning::mode().name()).text("\"");
    write_json(&mut out);
    out.text("}\n");
}

/// A member `blocks` for the statistics' JSON object, if any block was watched.
pub(crate) fn write_json(out: &mut FdWriter) {
    if let Some(observed) = watcher::observed_blocks() {
        let _cut = write_observed_json(out, &observed);
    }
}

fn write_observed_json(out: &mut FdWriter, observed: &ObservedBlocks) -> Result {
    let summary = &observed.summary;
    write!(out, ",\"blocks\":{{\"distance\":{},\"groups\":[", observed.distance)?;
    for (number, group) in summary.groups.iter().filter(|group| group.blocks > 0.0).enumerate() {
        let [half, most, nearly_all] = group.lifetime_ns;
        write!(out, "{}{{\"up_to\":{},\"blocks\":{:.0}", comma(number), group.up_to_bytes, group.blocks)?;
        write!(out, ",\"bytes\":{:.0},\"alive_share\":{:.4}", group.bytes, group.alive_share)?;
        write!(
            out,
            ",\"foreign_share\":{:.4},\"lived_ns\":[{half:.0},{most:.0},{nearly_all:.0}]}}",
            group.stranger_share
        )?;
    }
    out.text("],\"wanted_classes\":[");
    for (number, wanted) in summary.wanted.iter().flatten().enumerate() {
        write!(out, "{}{{\"bytes\":{},\"saved_share\":{:.4}}}", comma(number), wanted.block_bytes, wanted.saved_share)?;
    }
    out.text("],\"sites\":[");
    for (number, site) in summary.sites.iter().flatten().enumerate() {
        write!(out, "{}{{\"blocks\":{:.0},\"bytes\":{:.0}", comma(number), site.blocks, site.bytes)?;
        write!(out, ",\"alive_bytes\":{:.0},\"error_bytes\":{:.0}", site.alive_bytes, site.error_bytes)?;
        if let Some([half, most]) = site.lifetime_ns {
            write!(out, ",\"lived_ns\":[{half:.0},{most:.0}]")?;
        }
        out.text(",\"calls\":[");
        for (depth, frame) in calls(site).frames().iter().enumerate() {
            write!(out, "{}\"{frame:#x}\"", comma(depth))?;
        }
        out.text("]}");
    }
    out.text("]}");
    Ok(())
}

fn comma(number: usize) -> &'static str {
    if number == 0 { "" } else { "," }
}

/// Nanoseconds, in the unit that fits.
struct Time(f64);

impl Display for Time {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        let (value, unit) = match self.0 {
            ns if ns < 1e3 => (ns, "ns"),
            ns if ns < 1e6 => (ns / 1e3, "us"),
            ns if ns < 1e9 => (ns / 1e6, "ms"),
            ns => (ns / 1e9, "s"),
        };
        // As one word, so that a column can hold it.
        let mut text = Word::default();
        write!(text, "{value:.*} {unit}", if value < 10.0 { 1 } else { 0 })?;
        out.pad(text.as_str())
    }
}

/// A few characters on the stack; what does not fit is an error.
#[derive(Default)]
struct Word {
    bytes: [u8; 16],
    len: usize,
}

impl Word {
    fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or("")
    }
}

impl Write for Word {
    fn write_str(&mut self, text: &str) -> Result {
        let end = self.len + text.len();
        let place = self.bytes.get_mut(self.len..end).ok_or(core::fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_fits() {
        let shown: Vec<String> =
            [0.0, 999.0, 1500.0, 2.5e7, 61e9].iter().map(|ns| format!("{:>6}", Time(*ns))).collect();
        assert_eq!(shown, ["0.0 ns", "999 ns", "1.5 us", " 25 ms", "  61 s"]);
    }
}
