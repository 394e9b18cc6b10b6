//! The whole allocator under the preload library while the kernel refuses: every single call of a scenario once, and every
//! call from each one on. What may happen then is in docs/faults.md.
//!
//! The refusals are injected between the finished library and the C library (`faults.c` says how), so what is tested is
//! what is shipped. Each run is a process of its own, start of the allocator included.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "a test may stop")]

mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use hakmem_testkit::{Child, Ended};
use support::{compile, preload};

/// System calls that the library makes to get and give memory, each with the error numbers that the kernel has for them.
const CALLS: [(&str, &[i32]); 5] = [
    ("mmap", &[libc::ENOMEM, libc::EAGAIN]),
    ("munmap", &[libc::ENOMEM]),
    ("madvise", &[libc::ENOMEM, libc::EINVAL]),
    ("mremap", &[libc::ENOMEM, libc::EFAULT]),
    ("mprotect", &[libc::ENOMEM, libc::EACCES]),
];

/// The environment of all runs: a small window, so that blocks have to be mapped outside it; advice for huge pages; no
/// thread of the library's own and no purge that depends on the time, so that every run makes the same calls.
const SETTINGS: [(&str, &str); 4] = [
    ("HAKMEM_WINDOW_BYTES", "64M"),
    ("HAKMEM_BIG_THP_BYTES", "8M"),
    ("HAKMEM_BIG_RETAIN_MS", "never"),
    ("HAKMEM_SCAVENGER", "off"),
];

/// When the library purges by itself. Also decides how many calls of madvise a run makes.
#[derive(Clone, Copy)]
enum Purges {
    /// Only when the program asks for it.
    OnRequest,
    /// At every free.
    AtOnce,
}

/// The class of block in which crossbeam-epoch keeps deferred calls.
const EPOCH_BAG_BYTES: u64 = 2304;

/// What a run printed about itself: numbers by name.
type Numbers = BTreeMap<String, u64>;

/// Runs the scenario with this plan; with none every call goes through.
fn run(plan: Option<&str>, purges: Purges) -> Ended {
    let mut command = Command::new(compile("faults.c"));
    preload(&mut command);
    let delay = match purges {
        Purges::OnRequest => "never",
        Purges::AtOnce => "0",
    };
    command.envs(SETTINGS).env("HAKMEM_PURGE_DELAY_MS", delay);
    if let Some(plan) = plan {
        command.env("FAULT", plan);
    }
    Child::of(command).run()
}

/// The numbers of a run that ended well, or what is wrong with it.
fn numbers_of(ended: &Ended) -> Result<Numbers, String> {
    if !ended.status.is_some_and(|status| status.success()) {
        return Err(format!("ended with {:?}\n{}{}", ended.status, ended.stdout, ended.stderr));
    }
    let pairs = ended.stdout.split_whitespace().filter_map(|word| word.split_once('='));
    Ok(pairs.filter_map(|(name, number)| Some((name.to_owned(), number.parse().ok()?))).collect())
}

/// What all runs of one kind of call and error number came to.
#[derive(Default, Debug)]
struct Tally {
    runs: u64,
    refused_calls: u64,
    runs_with_null: u64,
    null_requests: u64,
    /// Runs in which no counter of the library's shows that something was refused.
    runs_without_trace: u64,
}

/// The counters of refusals. `madvise_disabled` and `out_of_memory` are consequences.
const COUNTERS: [&str; 6] =
    ["mprotect_refused", "madvise_enomem", "madvise_failed", "move_refused", "mmap_refused", "munmap_refused"];

/// Refuses each call of `name` once (`count` 1), or all from it on.
fn refuse_each(name: &str, error: i32, count: u32, purges: Purges, quiet: &Numbers) -> Result<Tally, String> {
    let mut tally = Tally::default();
    for number in 0..quiet[name] {
        let plan = format!("{name}:{number}:{count}:{error}");
        let wrong = |what: String| format!("FAULT={plan}: {what}");
        let found = numbers_of(&run(Some(&plan), purges)).map_err(wrong)?;
        if found["refused"] == 0 {
            return Err(format!("FAULT={plan}: nothing was refused; the runs do not make the same calls"));
        }
        // What crossbeam-epoch holds depends on how many outside blocks there were; a lost block would not fit the steps.
        if !found["live"].abs_diff(quiet["live"]).is_multiple_of(EPOCH_BAG_BYTES) || found["live"] > 2 * quiet["live"] {
            let (live, expected) = (found["live"], quiet["live"]);
            return Err(format!("FAULT={plan}: {live} bytes stay in use, {expected} without refusals"));
        }
        tally.runs += 1;
        tally.refused_calls += found["refused"];
        tally.runs_with_null += u64::from(found["null"] > 0);
        tally.null_requests += found["null"];
        let is_counted = COUNTERS.iter().any(|counter| found[*counter] > quiet[*counter]);
        tally.runs_without_trace += u64::from(!is_counted);
    }
    // The others have calls whose refusal changes nothing but where memory stands: hints for outside blocks, slack of
    // mappings that is not unmapped, growth in place.
    if ["mmap", "mprotect"].contains(&name) && tally.runs_without_trace != 0 {
        return Err(format!("{name} refused with {error}: {tally:?}"));
    }
    Ok(tally)
}

/// Every call of every kind, with every error number, refused for `count` calls: two at a time.
fn refuse_everything(count: u32, purges: Purges) {
    let quiet = numbers_of(&run(None, purges)).unwrap();
    assert_eq!((quiet["refused"], quiet["null"]), (0, 0));
    let plans = CALLS.iter().flat_map(|(name, errors)| errors.iter().map(move |error| (*name, *error)));
    for (name, _) in CALLS {
        assert!(quiet[name] > 2, "the scenario makes only {} calls of {name}", quiet[name]);
    }
    let plans = Mutex::new(plans);
    let failures = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some((name, error)) = plans.lock().unwrap().next() else { return };
            match refuse_each(name, error, count, purges, &quiet) {
                Ok(tally) => eprintln!("{name} refused with {error}: {tally:?}"),
                Err(failure) => failures.lock().unwrap().push(failure),
            }
        }
    };
    thread::scope(|scope| [(); 2].map(|()| scope.spawn(work)).map(|worker| worker.join().unwrap()));
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn each_single_refusal_is_survived_and_nothing_is_lost() {
    refuse_everything(1, Purges::OnRequest);
}

#[test]
fn refusals_from_any_call_on_are_survived_and_nothing_is_lost() {
    refuse_everything(u32::MAX, Purges::OnRequest);
}

#[test]
#[ignore = "the same with five times as many calls of madvise, for `cargo xtask health --full`"]
fn refusals_are_survived_when_every_free_purges() {
    refuse_everything(1, Purges::AtOnce);
    // Two in a row (the second try is refused as well), and enough for madvise to be left alone for a while.
    refuse_everything(2, Purges::AtOnce);
    refuse_everything(9, Purges::AtOnce);
    refuse_everything(u32::MAX, Purges::AtOnce);
}
