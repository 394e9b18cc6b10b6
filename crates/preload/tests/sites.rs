//! Site rules in C programs: the rule for a place does what it says, whatever addresses the program has in a run, and a rule that is for
//! nobody is no harm. Names of places are taken from what OBSERVE prints, as a person would.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "a test may stop")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hakmem_testkit::{Child, Ended};
use support::{compile, compile_with, number, preload};

/// Big blocks of `sites.c pages`: eight tables at first, then a buffer and a table in each of 24 rounds.
const PAGES_BLOCKS: u64 = 8 + 2 * 24;

fn run(program: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Ended {
    let mut command = Command::new(program);
    preload(&mut command);
    command.args(arguments).env("HAKMEM_STATS", "1").envs(settings.iter().copied());
    let ended = Child::of(command).limit(Duration::from_secs(120)).run();
    ended.assert_success();
    ended
}

/// What the program says of itself.
fn told(ended: &Ended, name: &str) -> u64 {
    let line = ended.stdout.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().parse().unwrap()
}

/// The name of the call in `function` that asks for big blocks, as OBSERVE prints it.
fn call_in(function: &str, program: &Path, arguments: &[&str]) -> String {
    let seen = run(program, arguments, &[("HAKMEM_MODE", "OBSERVE"), ("HAKMEM_WATCH", "1")]);
    let mark = format!(" ({function}+");
    let line = seen.stderr.lines().find(|line| line.contains(&mark)).unwrap_or_else(|| {
        eprintln!("{}", seen.stderr);
        ""
    });
    let place = line.split(&mark).next().unwrap().rsplit(' ').next().unwrap();
    place.rsplit('/').next().unwrap().to_owned()
}

fn policy(name: &str, rules: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut text = String::from("version = 1\n");
    rules.iter().for_each(|(calls, hint)| text.push_str(&format!("[[site]]\ncalls = \"{calls}\"\n{hint}\n")));
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn pages_policy(name: &str, program: &Path) -> String {
    let [table, buffer] = ["take_table", "take_buffer"].map(|function| call_in(function, program, &["pages"]));
    policy(name, &[(&table, "pages = \"small\""), (&buffer, "pages = \"huge\"")])
}

fn has_huge_pages() -> bool {
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let has_them = setting.contains("[madvise]") || setting.contains("[always]");
    if !has_them {
        eprintln!("this machine has no huge pages: what they cost and save is not looked at");
    }
    has_them
}

/// Tables of which little is touched want small pages, buffers that are filled want huge ones, and they have one size: no policy for
/// all of them gives both.
#[test]
fn two_places_with_blocks_of_one_size_get_the_pages_that_fit_each() {
    let program = compile("sites.c");
    let file = pages_policy("pages.toml", &program);
    let ruled = run(&program, &["pages"], &[("HAKMEM_POLICY", &file)]);
    assert_eq!((number(&ruled, "site_rules"), number(&ruled, "site_hits")), (2, PAGES_BLOCKS));
    let small = run(&program, &["pages"], &[("HAKMEM_BIG_THP_BYTES", "never")]);
    let free = run(&program, &["pages"], &[]);
    assert_eq!((number(&free, "site_rules"), number(&free, "site_walks")), (0, 0));
    // One buffer and what eight tables touch.
    assert!(told(&ruled, "peak_mib") < 80, "{}", ruled.stdout);
    if has_huge_pages() {
        assert!(told(&free, "peak_mib") > 2 * told(&ruled, "peak_mib"), "{} {}", free.stdout, ruled.stdout);
        assert!(told(&small, "faults") > 2 * told(&ruled, "faults"), "{} {}", small.stdout, ruled.stdout);
    }
}

#[test]
fn a_rule_holds_in_every_run_in_a_forked_child_and_without_symbols() {
    let program = compile("sites.c");
    let file = pages_policy("every.toml", &program);
    let stripped: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stripped").join(program.file_name().unwrap());
    std::fs::create_dir_all(stripped.parent().unwrap()).unwrap();
    let status = Command::new("strip").arg("-o").args([&stripped, &program]).status();
    assert!(status.is_ok_and(|status| status.success()), "strip does not strip");
    for (program, arguments) in
        [(&program, &["pages"][..]), (&program, &["pages"]), (&program, &["pages", "forked"]), (&stripped, &["pages"])]
    {
        let ended = run(program, arguments, &[("HAKMEM_POLICY", &file)]);
        // The child ends before its parent, and tells first.
        assert_eq!(number(&ended, "site_hits"), PAGES_BLOCKS, "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn a_place_in_a_library_that_comes_and_goes_is_known_each_time() {
    let program = compile("sites.c");
    let plugin = compile_with("sites_plugin.c", &["-shared", "-fPIC"]);
    let arguments = ["plugin", plugin.to_str().unwrap()];
    let call = call_in("plugin_take", &program, &arguments);
    assert!(call.starts_with("sites_plugin_c+0x"), "{call}");
    let file = policy("plugin.toml", &[(&call, "pages = \"small\"")]);
    let ended = run(&program, &arguments, &[("HAKMEM_POLICY", &file)]);
    // Three times four from the library, and three from the program.
    assert_eq!((number(&ended, "site_hits"), number(&ended, "site_walks")), (12, 15), "{}", ended.stderr);
}

#[test]
fn rules_for_nobody_are_no_harm_and_can_be_turned_off() {
    let program = compile("sites.c");
    let call = call_in("take_table", &program, &["pages"]);
    let offset = call.rsplit('+').next().unwrap();
    let absent = format!("libabsent.so.7+{offset}");
    let longer = format!("{call} {call}");
    let file = policy("nobody.toml", &[(&absent, "pages = \"small\""), (&longer, "keep_ms = 9")]);
    let ended = run(&program, &["pages"], &[("HAKMEM_POLICY", &file)]);
    assert_eq!((number(&ended, "site_walks"), number(&ended, "site_hits")), (PAGES_BLOCKS, 0));
    let off = run(&program, &["pages"], &[("HAKMEM_POLICY", &file), ("HAKMEM_SITE_RULES", "0")]);
    assert_eq!((number(&off, "site_rules"), number(&off, "site_walks")), (0, 0));
    // Blocks of another size: nobody walks a stack for them.
    let file = policy("sizes.toml", &[(&call, "bytes = [4194304, 8388608]\npages = \"small\"")]);
    let ended = run(&program, &["pages"], &[("HAKMEM_POLICY", &file)]);
    assert_eq!((number(&ended, "site_rules"), number(&ended, "site_walks")), (1, 0));
}

#[test]
fn a_file_with_a_wrong_rule_is_refused_as_a_whole_with_one_line() {
    let program = compile("sites.c");
    let file = policy("wrong.toml", &[("a+0x1", "pages = \"small\""), ("a+1", "keep_ms = 5")]);
    let ended = run(&program, &["pages"], &[("HAKMEM_POLICY", &file)]);
    assert_eq!(number(&ended, "site_rules"), 0);
    let complaint = "wrong.toml:6: not understood; expected calls = \"module+0x12ab module+0x34\"";
    assert_eq!(ended.stderr.matches(complaint).count(), 1, "{}", ended.stderr);
}

/// One run in LEARN, in which every block is watched, leaves rules for both places; the next one goes by them.
#[test]
fn what_one_run_has_learned_serves_the_next() {
    let program = compile("sites.c");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("learned.toml").to_str().unwrap().to_owned();
    let learning = [("HAKMEM_MODE", "LEARN"), ("HAKMEM_WATCH", "1"), ("HAKMEM_POLICY_OUT", &file)];
    let free = run(&program, &["pages"], &learning);
    let learned = std::fs::read_to_string(&file).unwrap();
    if !has_huge_pages() {
        return;
    }
    for (function, pages) in [("take_table", "small"), ("take_buffer", "huge")] {
        let call = call_in(function, &program, &["pages"]);
        let rule = learned.split("[[site]]").find(|rule| rule.contains(&format!("calls = \"{call}\"\n")));
        assert!(rule.is_some_and(|rule| rule.contains(&format!("pages = \"{pages}\""))), "{call}: {learned}");
        assert!(rule.is_some_and(|rule| rule.contains(&format!("symbols = \"{function}+0x"))), "{learned}");
    }
    let ruled = run(&program, &["pages"], &[("HAKMEM_POLICY", &file)]);
    assert_eq!((number(&ruled, "site_rules"), number(&ruled, "site_hits")), (2, PAGES_BLOCKS));
    assert!(told(&free, "peak_mib") > 2 * told(&ruled, "peak_mib"), "{} {}", free.stdout, ruled.stdout);
    // A run that begins with rules and learns nothing about them passes them on, where no file is yet.
    let _absent = std::fs::remove_file(format!("{file}.2"));
    let learning = [("HAKMEM_MODE", "LEARN"), ("HAKMEM_WATCH", "never"), ("HAKMEM_POLICY_OUT", &*format!("{file}.2"))];
    run(&program, &["pages"], &[&learning[..], &[("HAKMEM_POLICY", &file)]].concat());
    let again = std::fs::read_to_string(format!("{file}.2")).unwrap();
    assert_eq!(again.matches("\n[[site]]\n").count(), 2, "{again}");
}

/// The buffer comes back later than freed memory keeps its pages; the batch does not come back for long. A longer delay for all would
/// keep both.
#[test]
fn a_block_waits_for_the_next_one_of_its_place_alone() {
    let program = compile("sites.c");
    let call = call_in("take_buffer", &program, &["keep"]);
    let file = policy("keep.toml", &[(&call, "keep_ms = 60000")]);
    let delay = ("HAKMEM_PURGE_DELAY_MS", "20");
    let ruled = run(&program, &["keep"], &[("HAKMEM_POLICY", &file), delay]);
    // All but the first of 24.
    assert_eq!((number(&ruled, "site_hits"), number(&ruled, "big_hits")), (24, 23), "{}", ruled.stderr);
    let free = run(&program, &["keep"], &[delay]);
    assert_eq!(number(&free, "big_hits"), 0);
    assert!(number(&free, "purged_bytes") > 2 * number(&ruled, "purged_bytes"), "{} {}", free.stderr, ruled.stderr);
    let all_kept = run(&program, &["keep"], &[("HAKMEM_PURGE_DELAY_MS", "never")]);
    assert!(told(&all_kept, "mean_mib") > 2 * told(&ruled, "mean_mib"), "{} {}", all_kept.stdout, ruled.stdout);
}
