//! `simulator` as it is called.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

use std::path::Path;
use std::process::{Command, Output};

use hakmem_policy::FrozenPolicy;
use hakmem_policy::file::{Knobs, write_policy};
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
