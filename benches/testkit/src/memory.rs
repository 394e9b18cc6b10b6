//! Memory readings from `/proc`, in KiB.

use std::fs::read_to_string;

/// Memory of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident now.
    pub resident_kib: u64,
    /// The most that was ever resident.
    pub peak_kib: u64,
    /// The most address space that was ever mapped, reserved ranges included.
    pub virtual_kib: u64,
}

impl Memory {
    /// Reads it; zeros where `/proc` is missing.
    #[must_use]
    pub fn now() -> Self {
        let text = read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            resident_kib: field(&text, "VmRSS:"),
            peak_kib: field(&text, "VmHWM:"),
            virtual_kib: field(&text, "VmPeak:"),
        }
    }
}

/// The most that was ever resident in this process.
#[must_use]
pub fn peak_rss_kib() -> u64 {
    Memory::now().peak_kib
}

/// Memory that new programs could have without swapping.
#[must_use]
pub fn available_kib() -> u64 {
    field(&read_to_string("/proc/meminfo").unwrap_or_default(), "MemAvailable:")
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_at_least_what_is_resident_and_both_are_read() {
        let memory = Memory::now();
        assert!(memory.resident_kib > 100);
        assert!(memory.peak_kib >= memory.resident_kib && memory.virtual_kib >= memory.peak_kib);
        assert!(available_kib() > 0);
    }
}
