//! Guarded samples in whole processes: each mistake in a child of its own, which must end with the right report.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test may stop"
)]

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::thread;

use hakmem_testkit::{Child, Ended};

#[global_allocator]
static ALLOCATOR: hakmem::Hakmem = hakmem::Hakmem;

const PAGE: usize = 4096;
const BLOCK: Layout = match Layout::from_size_align(64, 16) {
    Ok(layout) => layout,
    Err(_) => panic!("64 bytes aligned to 16"),
};

/// At which end of its pages a block lies: against the guard there.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Begin,
    End,
}

/// A block on that side. Those on the other one stay in use.
#[inline(never)]
fn block_at(side: Side) -> *mut u8 {
    loop {
        // SAFETY: the layout is not empty.
        let block = black_box(unsafe { alloc(BLOCK) });
        assert!(!block.is_null());
        let found = if block.addr().is_multiple_of(PAGE) { Side::Begin } else { Side::End };
        assert!(found == Side::Begin || (block.addr() + BLOCK.size()).is_multiple_of(PAGE), "not a sample");
        if found == side {
            return block;
        }
    }
}

#[inline(never)]
fn release(block: *mut u8) {
    // SAFETY: as wrong as the test wants it.
    unsafe { dealloc(black_box(block), BLOCK) };
}

fn write_at(block: *mut u8, offset: isize) {
    // SAFETY: as wrong as the test wants it.
    unsafe { black_box(block).wrapping_offset(offset).write_volatile(1) };
}

/// A child in which every allocation is a sample. The test runner in it holds more blocks than the usual number of slots.
fn every_allocation(test: &str, role: &str) -> Child {
    Child::of_test(test, role).env("HAKMEM_SAMPLE", "1").env("HAKMEM_SAMPLE_SLOTS", "20000")
}

/// Runs the mistake `role` of the test `test` with every allocation a sample, and wants the report to begin like this.
#[track_caller]
fn reported(test: &str, role: &str, first_words: &str) -> Ended {
    let ended = every_allocation(test, role).run();
    eprintln!("{role}:\n{}", ended.stderr);
    let signal = ended.status.and_then(|status| status.signal());
    let lines = ended.lines_of("hakmem: ");
    assert!(lines[0].starts_with(&format!("hakmem: {first_words}")), "{role}: {lines:?}");
    assert!(lines.last().unwrap().starts_with("hakmem: end of report"), "{role}: {lines:?}");
    assert_eq!(signal, Some(libc::SIGABRT), "{role}");
    ended
}

/// Calls in the part of a report that begins with `heading`.
fn calls(ended: &Ended, heading: &str) -> usize {
    let part = ended.stderr.lines().skip_while(|line| !line.trim_start().starts_with(heading)).skip(1);
    part.take_while(|line| line.trim_start().starts_with('#')).count()
}

#[test]
fn accesses_outside_a_block_in_use_are_reported_with_its_allocation() {
    const TEST: &str = "accesses_outside_a_block_in_use_are_reported_with_its_allocation";
    match Child::role().as_deref() {
        Some("behind") => write_at(block_at(Side::End), 64),
        Some("far behind") => write_at(block_at(Side::End), 64 + 2 * PAGE as isize),
        Some("before") => write_at(block_at(Side::Begin), -1),
        Some("read before") => {
            // SAFETY: wrong on purpose.
            black_box(unsafe { block_at(Side::Begin).wrapping_sub(8).cast::<u64>().read_volatile() });
        }
        Some("behind, within the page") => {
            let block = block_at(Side::Begin);
            write_at(block, 64);
            release(block);
        }
        Some("before, within the page") => {
            let block = block_at(Side::End);
            write_at(block, -1);
            release(block);
        }
        Some(role) => panic!("no role {role}"),
        None => {
            for (role, words) in [
                ("behind", "access behind a block: write at "),
                ("far behind", "access behind a block: write at "),
                ("before", "access before a block: write at "),
                ("read before", "access before a block: read at "),
                ("behind, within the page", "written behind a block, seen at its free: pointer "),
                ("before, within the page", "written before a block, seen at its free: pointer "),
            ] {
                let ended = reported(TEST, role, words);
                assert!(ended.stderr.contains("a block of 64 bytes at 0x"), "{role}");
                assert!(calls(&ended, "allocated ") >= 3, "{role}");
                assert!(calls(&ended, "accessed by ") + calls(&ended, "found in ") >= 3, "{role}");
                assert_eq!(calls(&ended, "freed "), 0, "{role}");
            }
        }
    }
}

#[test]
fn uses_of_a_freed_block_are_reported_with_its_allocation_and_its_free() {
    const TEST: &str = "uses_of_a_freed_block_are_reported_with_its_allocation_and_its_free";
    if let Some(role) = Child::role() {
        let block = block_at(Side::End);
        release(block);
        match role.as_str() {
            "write" => write_at(block, 5),
            // SAFETY: wrong on purpose.
            "read" => drop(black_box(unsafe { block.read_volatile() })),
            "double free" => release(block),
            "double free in another thread" => {
                let block = block.expose_provenance();
                thread::spawn(move || release(std::ptr::with_exposed_provenance_mut(block))).join().unwrap();
            }
            // SAFETY: wrong on purpose.
            "realloc" => drop(black_box(unsafe { realloc(block, BLOCK, 5000) })),
            // SAFETY: wrong on purpose.
            "size" => drop(black_box(unsafe { hakmem::usable_size(block) })),
            _ => panic!("no role {role}"),
        }
        return;
    }
    for (role, words) in [
        ("write", "use after free: write at "),
        ("read", "use after free: read at "),
        ("double free", "double free: pointer "),
        ("double free in another thread", "double free: pointer "),
        ("realloc", "realloc or size of a freed block: pointer "),
        ("size", "realloc or size of a freed block: pointer "),
    ] {
        let ended = reported(TEST, role, words);
        for heading in ["allocated ", "freed "] {
            assert!(calls(&ended, heading) >= 3, "{role}: {heading}");
        }
    }
}

#[test]
fn frees_of_what_is_no_start_of_a_block_are_reported() {
    const TEST: &str = "frees_of_what_is_no_start_of_a_block_are_reported";
    match Child::role().as_deref() {
        Some("inside") => release(block_at(Side::End).wrapping_add(16)),
        Some("before") => release(block_at(Side::End).wrapping_sub(16)),
        Some("behind") => release(block_at(Side::End).wrapping_add(64)),
        // SAFETY: wrong on purpose.
        Some("realloc") => drop(black_box(unsafe { realloc(block_at(Side::End).wrapping_add(8), BLOCK, 5000) })),
        Some(role) => panic!("no role {role}"),
        None => {
            for role in ["inside", "before", "behind"] {
                let ended = reported(TEST, role, "free of a pointer into a block, not to its start: pointer ");
                assert!(calls(&ended, "allocated ") >= 3, "{role}");
            }
            reported(TEST, "realloc", "realloc or size of a pointer into a block, not to its start: pointer ");
        }
    }
}

#[test]
fn a_fault_elsewhere_reaches_whoever_it_was_for() {
    const TEST: &str = "a_fault_elsewhere_reaches_whoever_it_was_for";
    const NOWHERE: usize = 0x1234_5000;

    static BEFORE: std::sync::OnceLock<libc::sigaction> = std::sync::OnceLock::new();

    extern "C" fn call_the_one_before(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: the allocator's handler has this form.
        let handler = unsafe { std::mem::transmute::<usize, Handler>(BEFORE.get().unwrap().sa_sigaction) };
        handler(signal, info, context);
    }
    extern "C" fn leave(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the kernel's structure.
        let info = unsafe { &*info };
        // SAFETY: a fault has an address.
        let is_as_it_came = unsafe { info.si_addr() }.addr() == NOWHERE && info.si_code > 0;
        // SAFETY: ends the process.
        unsafe { libc::_exit(if is_as_it_came { 7 } else { 8 }) };
    }
    fn install(handler: usize, flags: libc::c_int) {
        // SAFETY: all zero is a valid action to be filled.
        let mut action = unsafe { std::mem::zeroed::<libc::sigaction>() };
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        // SAFETY: as above.
        let mut before = unsafe { std::mem::zeroed::<libc::sigaction>() };
        // SAFETY: complete.
        assert_eq!(unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, &raw mut before) }, 0);
        let _first = BEFORE.set(before);
    }
    fn sample() {
        // The first sample installs the allocator's handler; before it the program's is there.
        let policy = hakmem::FrozenPolicy { sample: 1, ..hakmem::policy() };
        hakmem::publish_policy(&policy).unwrap();
        black_box(
            (0..10_000_usize).map(|number| vec![number; number % 20 + 1]).fold(0, |sum, block| sum + block.len()),
        );
        assert!(hakmem::stats().samples > 100);
    }
    // SAFETY: wrong on purpose.
    let fault = || unsafe { std::ptr::without_provenance_mut::<u8>(NOWHERE).write_volatile(1) };
    if let Some(role) = Child::role() {
        match role.as_str() {
            "a handler installed before" => {
                install(leave as *const () as usize, libc::SA_SIGINFO);
                sample();
                fault();
            }
            "a handler installed after" => {
                sample();
                install(leave as *const () as usize, libc::SA_SIGINFO);
                fault();
            }
            "a handler installed after, and samples after that" => {
                sample();
                install(leave as *const () as usize, libc::SA_SIGINFO);
                sample();
                fault();
            }
            "a handler that calls the one before it" => {
                sample();
                install(call_the_one_before as *const () as usize, libc::SA_SIGINFO);
                sample();
                fault();
            }
            "no handler" => {
                install(libc::SIG_DFL, 0);
                sample();
                fault();
            }
            "a signal that is sent" => {
                install(libc::SIG_DFL, 0);
                sample();
                // SAFETY: ends this process.
                unsafe { libc::raise(libc::SIGSEGV) };
            }
            "a signal that is sent and ignored" => {
                install(libc::SIG_IGN, 0);
                sample();
                // SAFETY: ignored.
                unsafe { libc::raise(libc::SIGSEGV) };
                // SAFETY: ends the process.
                unsafe { libc::_exit(9) };
            }
            _ => panic!("no role {role}"),
        }
        return;
    }
    for (role, code, signal) in [
        ("a handler installed before", Some(7), None),
        ("a handler installed after", Some(7), None),
        ("a handler installed after, and samples after that", Some(7), None),
        ("a handler that calls the one before it", None, Some(libc::SIGSEGV)),
        ("no handler", None, Some(libc::SIGSEGV)),
        ("a signal that is sent", None, Some(libc::SIGSEGV)),
        ("a signal that is sent and ignored", Some(9), None),
    ] {
        let ended = Child::of_test(TEST, role).run();
        let status = ended.status.unwrap();
        assert_eq!((status.code(), status.signal()), (code, signal), "{role}:\n{}", ended.stderr);
        assert!(ended.lines_of("hakmem: ").is_empty(), "{role}");
    }
}

#[test]
fn a_handler_that_took_our_place_at_the_start_does_not_hide_mistakes() {
    const TEST: &str = "a_handler_that_took_our_place_at_the_start_does_not_hide_mistakes";
    if Child::role().is_some() {
        // Rust's own handler is there before this switches sampling on.
        hakmem::publish_policy(&hakmem::FrozenPolicy { sample: 1, ..hakmem::policy() }).unwrap();
        for _ in 0..10_000 {
            // SAFETY: the layout is not empty.
            release(unsafe { alloc(BLOCK) });
        }
        let block = block_at(Side::End);
        // SAFETY: replaces the allocator's handler, as a program's start does.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        release(block_at(Side::End));
        write_at(block, 64);
        return;
    }
    let ended = Child::of_test(TEST, "replaced").run();
    assert!(ended.lines_of("hakmem: ")[0].starts_with("hakmem: access behind a block: write at "), "{}", ended.stderr);
}

#[test]
fn one_allocation_in_n_is_a_sample() {
    if Child::role().is_some() {
        let before = hakmem::stats();
        let mut kept = Vec::new();
        for number in 0..10_000_000_usize {
            // All sizes that fit a slot; a few blocks stay for a while.
            let bytes = if number % 1000 == 0 { 40_000 } else { number % 700 + 1 };
            let layout = Layout::from_size_align(bytes, 8).unwrap();
            // SAFETY: the layout is not empty.
            let block = black_box(unsafe { alloc(layout) });
            if kept.len() < 50 {
                kept.push((block, layout));
            } else {
                let (old, layout) = std::mem::replace(&mut kept[number % 50], (block, layout));
                // SAFETY: allocated with this layout, above.
                unsafe { dealloc(old, layout) };
            }
        }
        let after = hakmem::stats();
        let mean: u64 = std::env::var("HAKMEM_SAMPLE").unwrap().parse().unwrap();
        let samples = after.samples - before.samples + after.sample_no_slot - before.sample_no_slot;
        let expected = 10_000_000 / mean;
        eprintln!("{samples} samples, {expected} expected, {} without a slot", after.sample_no_slot);
        assert!(samples.abs_diff(expected) <= expected / 10);
        assert_eq!(after.sample_findings, 0);
        hakmem::check_invariants();
        return;
    }
    for mean in ["100", "1000", "5000"] {
        let ended = Child::of_test("one_allocation_in_n_is_a_sample", "count").env("HAKMEM_SAMPLE", mean).run();
        ended.assert_success();
        eprint!("{}", ended.stderr);
    }
}

#[test]
fn every_allocation_that_fits_is_a_sample_when_n_is_one() {
    if Child::role().is_some() {
        let round = || {
            let before = hakmem::stats();
            let mut layouts: Vec<Layout> = Vec::with_capacity(1000);
            let sizes = [1, 8, 24, 64, 100, 1000, 3000, 4096, 9000, 32_768, 33_000, 50_000, 57_344];
            layouts.extend(sizes.iter().map(|&bytes| Layout::from_size_align(bytes, 8).unwrap()));
            layouts.push(Layout::from_size_align(64, 4096).unwrap());
            for &layout in &layouts {
                for _ in 0..3 {
                    // SAFETY: not empty.
                    let block = unsafe { alloc_zeroed(layout) };
                    // SAFETY: so many bytes, zeroed.
                    assert!(unsafe { std::slice::from_raw_parts(block, layout.size()) }.iter().all(|&byte| byte == 0));
                    // SAFETY: the block is this thread's.
                    unsafe { block.write_bytes(0xff, layout.size()) };
                    // SAFETY: allocated with this layout.
                    unsafe { dealloc(block, layout) };
                }
            }
            let after = hakmem::stats();
            let made = after.samples - before.samples;
            assert!(made > layouts.len() as u64 * 3 - 3, "{made} of {}", layouts.len() * 3);
            for (bytes, align) in [(57_345, 8), (5 << 20, 8), (64, 2 * PAGE), (50_000, 2 * PAGE)] {
                let layout = Layout::from_size_align(bytes, align).unwrap();
                // SAFETY: not empty.
                let block = black_box(unsafe { alloc(layout) });
                // SAFETY: allocated with this layout.
                unsafe { dealloc(block, layout) };
            }
            assert_eq!(hakmem::stats().sample_unfit - after.sample_unfit, 4);
        };
        round();
        // In a thread whose caches are empty, too.
        thread::spawn(round).join().unwrap();
        hakmem::check_invariants();
        return;
    }
    const TEST: &str = "every_allocation_that_fits_is_a_sample_when_n_is_one";
    every_allocation(TEST, "all").run().assert_success();
}

#[test]
fn contents_survive_realloc_between_samples_and_other_blocks() {
    if Child::role().is_some() {
        for (bytes, steps) in [(8, 12), (100, 10), (3000, 8)] {
            let mut layout = Layout::from_size_align(bytes, 8).unwrap();
            // SAFETY: not empty.
            let mut block = unsafe { alloc(layout) };
            // SAFETY: so many bytes.
            unsafe { block.write_bytes(9, bytes) };
            for step in 0..steps {
                let wanted = if step % 3 == 2 { layout.size() / 2 } else { layout.size() * 2 + 1 };
                // SAFETY: the block has this layout.
                block = unsafe { realloc(block, layout, wanted) };
                layout = Layout::from_size_align(wanted, 8).unwrap();
                // SAFETY: the first bytes are those that were written first.
                let kept = unsafe { std::slice::from_raw_parts(block, bytes.min(wanted)) };
                assert!(kept.iter().all(|&byte| byte == 9));
            }
            // SAFETY: the block has this layout.
            unsafe { dealloc(block, layout) };
        }
        // Steps for which other blocks get room to spare.
        let mut layout = Layout::from_size_align(4096, 8).unwrap();
        // SAFETY: not empty.
        let mut block = unsafe { alloc(layout) };
        while layout.size() < 32 << 10 {
            // SAFETY: the block has this layout.
            block = unsafe { realloc(block, layout, layout.size() + 104) };
            layout = Layout::from_size_align(layout.size() + 104, 8).unwrap();
        }
        // SAFETY: the block has this layout.
        unsafe { dealloc(block, layout) };
        // No block is of a size that only a part of is kept in mind.
        // SAFETY: not empty.
        assert!(black_box(unsafe { alloc(Layout::from_size_align((1 << 48) + 16, 8).unwrap()) }).is_null());
        // Lengths that a class serves without moving the block.
        let mut text = String::with_capacity(33);
        for _ in 0..2000 {
            text.push('x');
            text.reserve_exact(1);
        }
        assert!(text.bytes().all(|byte| byte == b'x'));
        return;
    }
    const TEST: &str = "contents_survive_realloc_between_samples_and_other_blocks";
    for mean in ["1", "2", "7"] {
        Child::of_test(TEST, "resize").env("HAKMEM_SAMPLE", mean).run().assert_success();
    }
}

#[test]
fn threads_and_forked_children_sample_on() {
    const TEST: &str = "threads_and_forked_children_sample_on";
    fn work() {
        let blocks: Vec<Vec<u8>> = (0..3000).map(|number| vec![number as u8; number % 3000 + 1]).collect();
        thread::spawn(move || drop(blocks)).join().unwrap();
    }
    if let Some(role) = Child::role() {
        let threads: Vec<_> = (0..4).map(|_| thread::spawn(work)).collect();
        for _ in 0..5 {
            // SAFETY: the child only works with memory and ends.
            let child = unsafe { libc::fork() };
            assert!(child >= 0);
            if child == 0 {
                let before = hakmem::stats().samples;
                for number in 0..100_usize {
                    black_box(vec![1_u8; number * 10 + 1]);
                }
                assert!(hakmem::stats().samples > before);
                if role == "mistake" {
                    let block = block_at(Side::End);
                    release(block);
                    write_at(block, 0);
                }
                // SAFETY: ends the child.
                unsafe { libc::_exit(0) };
            }
            let mut status = 0;
            // SAFETY: waits for the child above.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            let is_abort = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGABRT;
            assert_eq!((status == 0, is_abort), (role != "mistake", role == "mistake"));
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        hakmem::check_invariants();
        return;
    }
    for role in ["right", "mistake"] {
        let ended = every_allocation(TEST, role).run();
        ended.assert_success();
        assert_eq!(ended.lines_of("hakmem: use after free").len(), if role == "mistake" { 5 } else { 0 });
    }
}

#[test]
fn without_the_variable_nothing_is_sampled_and_no_handler_installed() {
    const TEST: &str = "without_the_variable_nothing_is_sampled_and_no_handler_installed";
    fn handler() -> usize {
        // SAFETY: all zero is a valid action to be filled.
        let mut action = unsafe { std::mem::zeroed::<libc::sigaction>() };
        // SAFETY: asks only.
        unsafe { libc::sigaction(libc::SIGSEGV, std::ptr::null(), &raw mut action) };
        action.sa_sigaction
    }
    if Child::role().is_some() {
        let before = handler();
        black_box((0..100_000_usize).map(|number| vec![number; 10]).fold(0, |sum, block| sum + block.len()));
        assert_eq!((handler(), hakmem::stats().samples), (before, 0));
        // Switched on while the program runs.
        hakmem::publish_policy(&hakmem::FrozenPolicy { sample: 50, ..hakmem::policy() }).unwrap();
        black_box((0..100_000_usize).map(|number| vec![number; 10]).fold(0, |sum, block| sum + block.len()));
        let samples = hakmem::stats().samples;
        assert!((1500..2500).contains(&samples) && handler() != before, "{samples}");
        // And off again.
        hakmem::publish_policy(&hakmem::FrozenPolicy { sample: 0, ..hakmem::policy() }).unwrap();
        black_box((0..10_000_usize).map(|number| vec![number; 10]).fold(0, |sum, block| sum + block.len()));
        let samples = hakmem::stats().samples;
        black_box((0..100_000_usize).map(|number| vec![number; 10]).fold(0, |sum, block| sum + block.len()));
        assert_eq!(hakmem::stats().samples, samples);
        return;
    }
    Child::of_test(TEST, "off").run().assert_success();
}
