//! What the processes of a run reported about hakmem when they ended.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::table;

/// What one process did with the allocator.
pub struct Process {
    /// Name of the file that it executed.
    pub program: String,
    /// Small allocations from its threads' heaps.
    pub allocs: u64,
    /// Allocations at the hardened level.
    pub hardened_allocs: u64,
    /// Allocations that got a place between guard pages by sampling.
    pub samples: u64,
}

/// Reports of all processes of a run, added up.
#[derive(Default)]
pub struct Summary {
    /// The processes one by one, in no order.
    pub processes: Vec<Process>,
    /// Processes that wrote a report.
    pub process_count: u64,
    /// Largest of the processes' peaks.
    pub peak_rss_bytes: u64,
    /// Sum over the processes at their ends.
    pub live_bytes: u64,
    /// Allocations of all processes.
    pub allocs: u64,
    /// Allocations at the hardened level of all processes; not among `allocs`.
    pub hardened_allocs: u64,
    refills: u64,
    remote_frees: u64,
    adopts: u64,
    purges: u64,
    purged_bytes: u64,
    // Hit rate weighted with allocations, in permille times allocations.
    weighted_hits: u128,
}

impl Summary {
    /// Reads every `*.json` in `directory`. A report that cannot be read is an error: it may hide a damaged process.
    pub fn read(directory: &Path) -> Result<Self> {
        let mut summary = Self::default();
        for entry in std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let text = std::fs::read_to_string(&path)?;
                summary.add(&text).with_context(|| format!("report {}: {text:?}", path.display()))?;
            }
        }
        Ok(summary)
    }

    fn add(&mut self, text: &str) -> Result<()> {
        let report: Value = serde_json::from_str(text).context("not JSON")?;
        let number = |key: &str| match report.get(key).and_then(Value::as_u64) {
            Some(value) => Ok(value),
            None => bail!("no number `{key}`"),
        };
        let allocs = number("allocs")?;
        self.process_count += 1;
        self.peak_rss_bytes = self.peak_rss_bytes.max(number("peak_rss_bytes")?);
        self.live_bytes += number("live_bytes")?;
        self.allocs += allocs;
        let hardened_allocs = number("hardened_allocs")?;
        self.hardened_allocs += hardened_allocs;
        self.processes.push(Process {
            program: report.get("program").and_then(Value::as_str).context("no text `program`")?.to_owned(),
            allocs,
            hardened_allocs,
            samples: number("samples")?,
        });
        self.refills += number("refills")?;
        self.remote_frees += number("remote_frees")?;
        self.adopts += number("adopts")?;
        self.purges += number("purges")?;
        self.purged_bytes += number("purged_bytes")?;
        self.weighted_hits += u128::from(number("cache_hit_permille")?) * u128::from(allocs);
        Ok(())
    }

    fn hit_percent(&self) -> String {
        if self.allocs == 0 {
            return "-".to_owned();
        }
        let permille = self.weighted_hits / u128::from(self.allocs);
        format!("{}.{} %", permille / 10, permille % 10)
    }

    /// The summary as lines for a person.
    pub fn lines(&self) -> Vec<String> {
        if self.process_count == 0 {
            return vec![
                "no process reported. Statically linked and set-user-id programs do not load the library;".to_owned(),
                "a process that is killed or leaves through _exit writes no report.".to_owned(),
            ];
        }
        let among = if self.process_count == 1 { String::new() } else { "largest process".to_owned() };
        let sum = if self.process_count == 1 { String::new() } else { "sum at their ends".to_owned() };
        let row = |name: &str, value: String, note: String| vec![name.to_owned(), value, note];
        let rows = [
            row("processes", table::count(self.process_count), String::new()),
            row("peak RSS", table::bytes(self.peak_rss_bytes), among),
            row("live bytes", table::bytes(self.live_bytes), sum),
            row("allocations", table::count(self.allocs), String::new()),
            row("cache hit rate", self.hit_percent(), format!("{} refills", table::count(self.refills))),
            row("remote frees", table::count(self.remote_frees), format!("{} adoptions", table::count(self.adopts))),
            row("purges", table::count(self.purges), table::bytes(self.purged_bytes)),
        ];
        table::lines(&rows, &[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"{"pid":1,"program":"sh","peak_rss_bytes":1048576,"live_bytes":10,"allocs":300,"hardened_allocs":7,
        "samples":2,"refills":3,
        "cache_hit_permille":990,"remote_frees":1,"adopts":0,"purges":2,"purged_bytes":4096}"#;

    #[test]
    fn counters_add_up_and_peaks_do_not() {
        let mut summary = Summary::default();
        summary.add(ONE).unwrap();
        summary.add(&ONE.replace("300", "100").replace("990", "590").replace("1048576", "2097152")).unwrap();
        assert_eq!((summary.process_count, summary.allocs), (2, 400));
        assert_eq!(summary.processes.iter().map(|process| process.allocs).collect::<Vec<_>>(), [300, 100]);
        assert_eq!((summary.peak_rss_bytes, summary.live_bytes), (2 << 20, 20));
        assert_eq!(summary.hardened_allocs, 14);
        assert_eq!(summary.hit_percent(), "89.0 %");
    }

    #[test]
    fn report_without_a_counter_is_refused_by_name() {
        let error = Summary::default().add(&ONE.replace("purged_bytes", "purged")).unwrap_err();
        assert!(error.to_string().contains("purged_bytes"), "{error}");
    }

    #[test]
    fn silence_is_explained() {
        assert!(Summary::default().lines().concat().contains("no process reported"));
    }
}
