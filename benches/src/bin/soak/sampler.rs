//! What memory the process holds, as lines of a CSV file.
//!
//! **Invariants.** Taking a sample allocates nothing: it is taken while memory is refused, too.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use crate::facts;
use crate::shared::{Shared, fail};

/// Longest line.
const LINE_BYTES: usize = 4096;

/// Writes samples.
pub struct Sampler<'a> {
    file: File,
    begin: Instant,
    shared: &'a Shared,
}

impl<'a> Sampler<'a> {
    /// Begins the file with the names of the columns.
    pub fn create(path: &Path, shared: &'a Shared) -> io::Result<Self> {
        let mut file = File::create(path)?;
        write!(
            file,
            "seconds,phase,mark,rss_bytes,data_bytes,soak_live_bytes,operations,refusals,forks,threads,switches"
        )?;
        facts::for_each(&mut |name, _| {
            // A name that is not written shows as a missing column to whoever reads the file.
            let _cut = write!(file, ",{name}");
        });
        writeln!(file)?;
        Ok(Self { file, begin: Instant::now(), shared })
    }

    fn write(&mut self, mark: &str) -> io::Result<()> {
        let mut text = [0; 4096];
        let status = read_text("/proc/self/status", &mut text);
        let shared = self.shared;
        let mut line = [0; LINE_BYTES];
        let mut rest = &mut line[..];
        let (seconds, phase) = (self.begin.elapsed().as_secs_f64(), shared.phase().name());
        let (rss, data) = (field_kib(status, "VmRSS:") * 1024, field_kib(status, "VmData:") * 1024);
        write!(rest, "{seconds:.2},{phase},{mark},{rss},{data}")?;
        let counts =
            [&shared.live, &shared.operations, &shared.refusals, &shared.forks, &shared.threads, &shared.switches];
        for count in counts {
            write!(rest, ",{}", count.load_relaxed())?;
        }
        let mut outcome = Ok(());
        facts::for_each(&mut |_, value| {
            if outcome.is_ok() {
                outcome = write!(rest, ",{value}");
            }
        });
        outcome?;
        writeln!(rest)?;
        let length = LINE_BYTES - rest.len();
        self.file.write_all(&line[..length])
    }
}

/// Takes a sample; `mark` says what is special about it.
pub fn take(sampler: &Mutex<Sampler>, mark: &str) {
    let Ok(mut sampler) = sampler.lock() else { fail("a thread panicked while it took a sample") };
    if let Err(error) = sampler.write(mark) {
        fail(&format!("a sample could not be written: {error}"));
    }
}

/// The beginning of a file; nothing if it cannot be read.
pub fn read_text<'a>(path: &str, buffer: &'a mut [u8]) -> &'a str {
    let length = File::open(path).and_then(|mut file| file.read(buffer)).unwrap_or(0);
    std::str::from_utf8(&buffer[..length]).unwrap_or("")
}

/// The number behind `name` in a text of `/proc`. A missing one ends the run: it would be judged by zeros.
pub fn field_kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| fail(&format!("/proc/self/status has no {name}")))
}
