//! The whole way with the real library: run, search, write, and start a program with what was written. No time is looked at.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may stop")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Builds the library into a directory of its own: the outer cargo may hold the lock of the usual one.
fn library() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("preload");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--package", "hakmem-preload", "--manifest-path"])
        .arg(workspace)
        .arg("--target-dir")
        .arg(&target)
        .status()
        .unwrap();
    assert!(status.success(), "the preload library does not build");
    target.join("debug/libhakmem_preload.so")
}

fn tune(directory: &Path, library: &Path, task: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hakmem-tune"))
        .args([task, "--library"])
        .arg(library)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_program_is_run_searched_and_started_with_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let (at, library) = (directory.path(), library());
    let few = ["--reps", "1", "--budget", "24", "--pairs", "2", "--only", "refill_bytes", "--", "sort", "/dev/null"];
    let output = tune(at, &library, "run", &few);
    assert!(output.status.success(), "{}", said(&output));
    for part in ["LEARN costs", "LEARN came to", "screen 4/4", "Written: policy.toml"] {
        assert!(said(&output).contains(part), "{part} is missing in\n{}", said(&output));
    }
    let policy = std::fs::read_to_string(at.join("policy.toml")).unwrap();
    assert!(policy.contains("tool = \"hakmem-tune run") && policy.contains("[evidence.refill_bytes]"), "{policy}");
    assert!(std::fs::read_to_string(at.join("policy.svg")).unwrap().contains("<circle"));
    let passes = std::fs::read_to_string(at.join("policy.csv")).unwrap();
    let output = tune(at, &library, "run", &[&["--resume"], &few[..]].concat());
    assert!(output.status.success() && said(&output).contains("LEARN came to"), "{}", said(&output));
    assert!(!said(&output).contains("LEARN costs"), "what LEARN came to is kept: {}", said(&output));
    assert_eq!(
        std::fs::read_to_string(at.join("policy.csv")).unwrap(),
        passes,
        "the same search needed no further pass"
    );

    // A program of which LEARN leaves nothing: what another search has left is not where this one starts, nor where it goes on.
    let silent =
        [&few[..8], &["--out", "silent.toml", "--", "env", "-u", "HAKMEM_POLICY_OUT", "sort", "/dev/null"]].concat();
    std::fs::write(at.join("silent.learned.toml"), "version = 1\n[knobs]\npurge_delay_ms = 77\n").unwrap();
    let output = tune(at, &library, "run", &silent);
    assert!(output.status.success() && said(&output).contains("LEARN left no policy"), "{}", said(&output));
    let output = tune(at, &library, "run", &[&["--resume"], &silent[..]].concat());
    assert!(output.status.success() && said(&output).contains("LEARN left no policy"), "{}", said(&output));
    assert!(!said(&output).contains("LEARN costs"), "{}", said(&output));

    let start = |file: &str| {
        let run = Command::new("sh")
            .args(["-c", "echo started"])
            .env("LD_PRELOAD", &library)
            .env("HAKMEM_POLICY", at.join(file))
            .output();
        said(&run.unwrap())
    };
    assert_eq!(start("policy.toml"), "started\n");
    std::fs::write(at.join("wrong.toml"), "version = 1\n[knobs]\nrefill_byts = 3\n").unwrap();
    let complaint = start("wrong.toml");
    assert!(complaint.contains("started\n") && complaint.contains("did you mean refill_bytes?"), "{complaint}");
    assert!(start("absent.toml").contains("cannot read"), "a file that is not there is said to be");

    // One policy for two programs; what was run is not run again.
    let two = "[[program]]\nname = 'one'\ncommand = ['sort', '/dev/null']\nscratch = true\n\
               [[program]]\nname = 'two'\ncommand = 'cat </dev/null | sort'\nvariables = { LC_ALL = 'C' }\n";
    std::fs::write(at.join("two.toml"), two).unwrap();
    let both = ["--busy", "--budget", "24", "--pairs", "2", "--only", "refill_bytes", "--out", "both.toml"];
    let search = |more: &[&str]| tune(at, &library, "run", &[&both, more, &["--programs", "two.toml"]].concat());
    let output = search(&[]);
    assert!(output.status.success() && said(&output).contains("screen 4/4"), "{}", said(&output));
    let (policy, passes) = (at.join("both.toml"), at.join("both.csv"));
    assert!(std::fs::read_to_string(&policy).unwrap().contains("programs = [\"one\", \"two\"]"));
    let first = std::fs::read_to_string(&passes).unwrap();
    let output = search(&["--resume"]);
    assert!(output.status.success() && said(&output).contains("recorded passes first"), "{}", said(&output));
    assert_eq!(std::fs::read_to_string(&passes).unwrap(), first, "the same search needed no further pass");

    std::fs::write(at.join("try.toml"), "version = 1\n[knobs]\npurge_delay_ms = 1000\n").unwrap();
    let judged = ["--policy", "try.toml", "--pairs", "2", "--programs", "two.toml"];
    let output = tune(at, &library, "judge", &judged);
    assert!(!output.status.success(), "two pairs are chance at best: {}", said(&output));
    for part in ["| one |", "| two |", "| geometric mean |", "purge_delay_ms=1000: cost", "The defaults stay."] {
        assert!(said(&output).contains(part), "{part} is missing in\n{}", said(&output));
    }

    // Site rules are judged, and a search says that it leaves them out.
    std::fs::write(at.join("rules.toml"), "version = 1\n[[site]]\ncalls = 'p+0x1'\npages = 'small'\n").unwrap();
    let rules = ["--policy", "rules.toml", "--pairs", "1", "--out", "rules.csv", "--programs", "two.toml"];
    let output = tune(at, &library, "judge", &rules);
    assert!(said(&output).contains("defaults site p+0x1 pages=small: cost"), "{}", said(&output));
    let output = tune(at, &library, "judge", &[&["--resume"], &judged[..], &["--out", "rules.csv"]].concat());
    assert!(said(&output).contains("recorded is one of defaults site p+0x1 pages=small"), "{}", said(&output));
    let output = search(&["--start", "rules.toml"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("rules.toml has site rules (1)"), "{}", said(&output));

    // The shell takes its memory from the library, what it starts does not.
    let alone = ["--rounds", "1", "--", "sh", "-c", "env -u LD_PRELOAD sort /dev/null"];
    let output = tune(at, &library, "evaluate", &alone);
    assert!(!output.status.success() && said(&output).contains("nothing is known to use"), "{}", said(&output));

    let output =
        tune(at, &library, "evaluate", &["--rounds", "1", "--policy", "policy.toml", "--", "sort", "/dev/null"]);
    assert!(output.status.success(), "{}", said(&output));
    for row in ["| hakmem FROZEN | 1 |", "| hakmem OBSERVE | 1 |", "| hakmem LEARN | 1 |", "| hakmem policy | 1 |"] {
        assert!(said(&output).contains(row), "{row} is missing in\n{}", said(&output));
    }
    let runs = std::fs::read_to_string(at.join("hakmem-evaluation/runs.csv")).unwrap();
    assert_eq!(runs.lines().count(), 5, "{runs}");
}
