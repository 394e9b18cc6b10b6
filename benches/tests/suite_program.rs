//! The `suite` program, whose output other programs read.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::process::Command;

use hakmem_benches::suite::Bench;

fn output(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_suite")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_list_has_one_line_for_each_benchmark() {
    let list = output(&["--list"]);
    assert_eq!(list.lines().count(), Bench::all().count());
    for (line, bench) in list.lines().zip(Bench::all()) {
        assert!(line.starts_with(&format!("name={} group={} ", bench.name, bench.group.name())), "{line}");
        assert!(line.contains(&format!(" threads={} ops={} ", bench.threads, bench.ops)), "{line}");
        assert_eq!(line.contains(" parameter="), bench.parameter.is_some(), "{line}");
        assert!(line.ends_with(&format!(" operation=\"{}\"", bench.operation)), "{line}");
        assert!(!bench.operation.contains('"'), "{} would end its own quotation", bench.name);
    }
}

#[test]
fn a_run_prints_one_line_of_keys_with_numbers() {
    let line = output(&["replace400", "--ops", "1000"]);
    assert_eq!(line.lines().count(), 1);
    let (words, numbers): (Vec<_>, Vec<_>) = line
        .split_whitespace()
        .map(|word| word.split_once('=').unwrap())
        .partition(|(_, value)| value.parse::<f64>().is_err());
    assert_eq!(words, [("bench", "replace400"), ("allocator", hakmem_benches::ALLOCATOR_NAME)]);
    let keys: Vec<&str> = numbers.iter().map(|(key, _)| *key).collect();
    let expected = "ops ns_per_op peak_rss_kib end_rss_kib virtual_kib live_bytes live_rss_kib";
    assert_eq!(keys.join(" "), expected);
    assert!(numbers.iter().all(|(_, value)| value.parse::<f64>().unwrap() > 0.0), "{line}");
}

#[test]
fn an_unknown_benchmark_is_an_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_suite")).arg("no-such").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no benchmark is called no-such"));
}
