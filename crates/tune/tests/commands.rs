//! The commands as people call them: files, words and exit statuses. No time is looked at.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may stop")]

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

fn tune(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hakmem-tune")).args(arguments).current_dir(directory).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn file(directory: &Path, name: &str, text: &str) {
    std::fs::write(directory.join(name), text).unwrap();
}

#[test]
fn policies_are_merged_by_the_runs_behind_them_and_conflicts_are_stated() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    file(at, "a.toml", "version = 1\n[knobs]\npurge_delay_ms = 10\n[source]\nruns = 5\n");
    file(at, "b.toml", "version = 1\n[knobs]\npurge_delay_ms = 1000\noutbox_blocks = 64\n[source]\nruns = 9\n");
    let output = tune(at, &["merge", "a.toml", "b.toml", "--out", "fleet.toml"]);
    assert!(output.status.success(), "{}", said(&output));
    for part in ["conflict: purge_delay_ms=1000 (9 runs) was taken", "a.toml: purge_delay_ms=10 (5 runs)"] {
        assert!(said(&output).contains(part), "{part} is missing in\n{}", said(&output));
    }
    let fleet = std::fs::read_to_string(at.join("fleet.toml")).unwrap();
    assert!(fleet.contains("purge_delay_ms = 1000\n") && fleet.contains("outbox_blocks = 64\n"), "{fleet}");
    let output = tune(at, &["explain", "fleet.toml"]);
    assert!(output.status.success() && said(&output).contains("purge_delay_ms: 300 -> 1000"), "{}", said(&output));
}

/// Whoever reads a policy file meanwhile finds the former one or the new one: what is missing at its end would be believed.
#[test]
fn a_file_that_is_written_takes_the_place_of_the_former_as_a_whole() {
    use std::os::unix::fs::MetadataExt as _;
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    file(at, "a.toml", "version = 1\n[knobs]\npurge_delay_ms = 10\n");
    file(at, "b.toml", "version = 1\n[knobs]\nrefill_bytes = 1024\n");
    file(at, "fleet.toml", "version = 1\n");
    let reader = std::fs::File::open(at.join("fleet.toml")).unwrap();
    let output = tune(at, &["merge", "a.toml", "b.toml", "--out", "fleet.toml"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(std::io::read_to_string(&reader).unwrap(), "version = 1\n");
    let written = std::fs::metadata(at.join("fleet.toml")).unwrap();
    let mode = |name: &str| std::fs::metadata(at.join(name)).unwrap().mode();
    assert_eq!(mode("fleet.toml"), mode("a.toml"), "others may read it as other files");
    assert!(written.len() > 40 && std::fs::read_dir(at).unwrap().count() == 3, "and nothing lies beside it");
    // A link stays one, and a pipe too.
    std::os::unix::fs::symlink("fleet.toml", at.join("link.toml")).unwrap();
    let output = tune(at, &["merge", "a.toml", "a.toml", "--out", "link.toml"]);
    assert!(output.status.success() && at.join("link.toml").is_symlink(), "{}", said(&output));
    assert!(!std::fs::read_to_string(at.join("fleet.toml")).unwrap().contains("refill_bytes"));
    assert!(tune(at, &["merge", "a.toml", "b.toml", "--out", "/dev/stdout"]).status.success());
}

#[test]
fn wrong_files_are_refused_by_name_and_line() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    file(at, "good.toml", "version = 1\n");
    file(at, "version.toml", "version = 2\n");
    file(at, "range.toml", "version = 1\n[knobs]\ncache_bytes = \"2G\"\n");
    for (name, complaint) in [
        ("version.toml", "version.toml:1: version 2; this hakmem reads version 1"),
        ("range.toml", "range.toml:3: cache_bytes = 2G is out of range; accepted: bytes, 1K to 1G"),
        ("absent.toml", "cannot read absent.toml"),
    ] {
        for arguments in [vec!["explain", name], vec!["merge", "good.toml", name, "--out", "out.toml"]] {
            let output = tune(at, &arguments);
            assert!(!output.status.success() && said(&output).contains(complaint), "{}", said(&output));
        }
    }
    assert!(!at.join("out.toml").exists());
}

#[test]
fn a_program_that_ignores_the_library_or_fails_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    // A library that is none: the loader says so and goes on without it, as for a static program.
    file(at, "libhakmem.so", "not a library");
    let run = |rest: &[&str]| tune(at, &[&["run", "--library", "libhakmem.so", "--pairs", "4", "--"], rest].concat());
    let output = run(&["true"]);
    assert!(!output.status.success() && said(&output).contains("did not use"), "{}", said(&output));
    assert!(said(&output).contains("4 pairs can confirm nothing"), "{}", said(&output));
    let output = tune(at, &["run", "--library", "libhakmem.so", "--budget", "16", "--", "true"]);
    assert!(
        !output.status.success() && said(&output).contains("a budget of 16 passes tries nothing"),
        "{}",
        said(&output)
    );
    let output = run(&["sh", "-c", "echo broken >&2; exit 3"]);
    assert!(said(&output).contains("exit status 3") && said(&output).contains("broken"), "{}", said(&output));
    // Beside cargo's own copy of the tool there may be a library that somebody has built. A link, because a copy that another
    // thread's child still has open for writing cannot be run.
    let alone = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let copy = alone.path().join("hakmem-tune");
    std::fs::hard_link(env!("CARGO_BIN_EXE_hakmem-tune"), &copy).unwrap();
    let output = Command::new(&copy).args(["run", "--", "true"]).current_dir(alone.path()).output().unwrap();
    assert!(!output.status.success() && said(&output).contains("name it with --library"), "{}", said(&output));
    let judge = |policy: &str| tune(at, &["judge", "--library", "libhakmem.so", "--policy", policy, "--", "true"]);
    assert!(said(&judge("absent.toml")).contains("cannot read absent.toml"));
    file(at, "nothing.toml", "version = 1\n");
    assert!(said(&judge("nothing.toml")).contains("nothing.toml is the defaults"));
    file(at, "rules.toml", "version = 1\n[[site]]\ncalls = 'p+0x1'\npages = 'small'\n");
    let output = judge("rules.toml");
    assert!(said(&output).contains("did not use"), "site rules are something to judge: {}", said(&output));
    file(at, "none.toml", "program = []\n");
    let output = tune(at, &["run", "--library", "libhakmem.so", "--programs", "none.toml"]);
    assert!(said(&output).contains("none.toml is no list of programs: it has none"), "{}", said(&output));
    let output = tune(at, &["run", "--library", "libhakmem.so", "--programs", "none.toml", "--", "true"]);
    assert!(!output.status.success() && said(&output).contains("cannot be used with"), "{}", said(&output));
    let output = tune(at, &["run", "--only", "speed", "--", "true"]);
    assert!(said(&output).contains("no dimension `speed`; there are purge_delay_ms"), "{}", said(&output));
    // Nothing is worse than that.
    for nonsense in ["--tolerance=NaN", "--tolerance-each=inf", "--least-gain=-1"] {
        let output = tune(at, &["run", "--library", "libhakmem.so", nonsense, "--", "true"]);
        assert!(
            !output.status.success() && said(&output).contains("a percentage is 0 or more"),
            "{nonsense}: {}",
            said(&output)
        );
    }
}

#[test]
fn a_peer_that_the_loader_would_leave_out_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    file(at, "libhakmem.so", "not a library");
    file(at, "libnone.so", "not a library");
    file(at, "of two.so", "not a library");
    file(at, "inside.toml", "[[program]]\nname = 'own'\ncommand = ['true']\nlibrary = 'inside'\n");
    let evaluate = |peer: &str, program: &[&str]| {
        let fixed = ["evaluate", "--library", "libhakmem.so", "--peer", peer];
        let output = tune(at, &[&fixed, program].concat());
        assert!(!output.status.success());
        said(&output)
    };
    for (peer, complaint) in [
        ("none=libnone.so", "none cannot be compared: the loader does not take"),
        ("gone=libgone.so", "gone cannot be compared: no library at libgone.so"),
        ("two=of two.so", "LD_PRELOAD cannot name"),
    ] {
        let text = evaluate(peer, &["--", "true"]);
        assert!(text.contains(complaint), "{complaint} is missing in\n{text}");
    }
    let text = evaluate("none=libnone.so", &["--programs", "inside.toml"]);
    assert!(text.contains("own has hakmem inside"), "{text}");
}

#[test]
fn a_signal_ends_the_tool_and_its_program_and_leaves_no_file_behind() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    file(at, "libhakmem.so", "not a library");
    std::fs::create_dir(at.join("temporary")).unwrap();
    // Whoever starts the tool ignores one signal, as nohup does.
    let script = format!(
        "trap '' HUP; exec '{}' run --library libhakmem.so -- sh -c 'echo $$ > starting; mv starting started; exec sleep 600'",
        env!("CARGO_BIN_EXE_hakmem-tune")
    );
    let mut tool = Command::new("sh");
    let mut tool = tool.args(["-c", &script]).current_dir(at).env("TMPDIR", at.join("temporary")).spawn().unwrap();
    while !at.join("started").exists() {
        assert!(tool.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(1));
    }
    let program = std::fs::read_to_string(at.join("started")).unwrap();
    for signal in ["HUP", "TERM"] {
        assert!(Command::new("kill").args(["-s", signal, &tool.id().to_string()]).status().unwrap().success());
    }
    assert_eq!(tool.wait().unwrap().signal(), Some(libc::SIGTERM));
    assert!(!Path::new("/proc").join(program.trim()).exists(), "the program runs on");
    assert_eq!(std::fs::read_dir(at.join("temporary")).unwrap().count(), 0, "a file is left");
}
