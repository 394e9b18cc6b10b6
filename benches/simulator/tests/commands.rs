//! `simulator` as it is called.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

use std::path::Path;
use std::process::{Command, Output};

use hakmem_policy::FrozenPolicy;
use hakmem_policy::file::{Knobs, write_policy};
use hakmem_simulator::raw_log::layout::{ALLOC, HEADER_BYTES, MAGIC, TIME_BITS};
use hakmem_simulator::trace::{Builder, Trace};

fn simulator(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simulator"));
    command.args(arguments).envs(variables.iter().copied()).output().unwrap()
}

fn utf8(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Blocks that come back, and again after a while in which their memory may be given back.
fn waves() -> Trace {
    let mut builder = Builder::default();
    for _ in 0..8 {
        let blocks: Vec<u32> = (0..64).map(|_| builder.alloc(0, 256 << 10)).collect();
        builder.pass(100_000_000);
        blocks.into_iter().for_each(|block| builder.free(0, block));
        builder.pass(100_000_000);
    }
    builder.finish("waves").unwrap()
}

/// What `replay` prints, the time that it took itself left out.
fn replayed(trace: &Path, variables: &[(&str, &str)]) -> String {
    let output = simulator(&["replay", utf8(trace)], variables);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    text.lines().last().and_then(|line| line.rsplit_once(',')).unwrap().0.to_owned()
}

#[test]
fn a_replay_goes_by_the_policy_file_that_the_allocator_would_go_by() {
    let scratch = tempfile::tempdir().unwrap();
    let (trace, policy) = (scratch.path().join("waves.trace"), scratch.path().join("policy.toml"));
    waves().save(&trace).unwrap();
    let mut text = String::new();
    let at_once = FrozenPolicy { purge_delay_ms: 0, ..FrozenPolicy::DEFAULT };
    write_policy(&at_once, Knobs::Changed, &mut text).unwrap();
    std::fs::write(&policy, text).unwrap();
    let by_file = replayed(&trace, &[("HAKMEM_POLICY", utf8(&policy))]);
    assert_eq!(by_file, replayed(&trace, &[("HAKMEM_PURGE_DELAY_MS", "0")]));
    assert_ne!(by_file, replayed(&trace, &[]));

    let missing = scratch.path().join("missing.toml");
    let refused = simulator(&["replay", utf8(&trace)], &[("HAKMEM_POLICY", utf8(&missing))]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("cannot read") && said.contains("missing.toml"), "{said}");
}

#[test]
fn a_recording_takes_no_log_of_an_earlier_one() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("traces");
    std::fs::create_dir_all(out.join("logs")).unwrap();
    let mut log = MAGIC.to_vec();
    log.resize(HEADER_BYTES, 0);
    log.extend([0x1000, u64::from(ALLOC) << TIME_BITS, 64].map(u64::to_le_bytes).concat());
    std::fs::write(out.join("logs/1.raw"), log).unwrap();
    // No library: the program runs, and nothing of it is recorded.
    let recorder = scratch.path().join("recorder.so");
    std::fs::write(&recorder, "").unwrap();
    let arguments = ["record", "--out", utf8(&out), "--recorder", utf8(&recorder), "--min-events", "1", "--", "true"];
    let said = String::from_utf8(simulator(&arguments, &[]).stderr).unwrap();
    assert!(said.contains("no process of true had 1 events"), "{said}");
    let left: Vec<_> = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["logs"], "what was there, and nothing more");
}
