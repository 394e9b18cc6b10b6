//! A report is one line on fd 2, and what is fatal ends the process behind it.

#![cfg(not(any(miri, feature = "testing")))]

use hakmem_base::{Line, fatal, fatal_block, fatal_line, fatal_ptr, fatal_ptr_class, report};
use hakmem_testkit::Child;
use std::os::unix::process::ExitStatusExt;

const SIGABRT: i32 = 6;

#[test]
fn every_report_is_one_line_and_only_fatal_ones_end_the_process() {
    match Child::role().as_deref() {
        Some("report") => return report("something is odd"),
        Some("long") => return report(&"0123456789".repeat(100)),
        Some("fatal") => fatal("damage"),
        Some("pointer") => fatal_ptr("damage", 0x10_9af0),
        Some("class") => fatal_ptr_class("damage", 0x20, 48, 0xf00),
        Some("block") => fatal_block("damage", 0x30, 1009),
        Some("line") => fatal_line(Line::new().text("damage ").number(77), "damage"),
        _ => {}
    }
    let long = format!("hakmem: {}", &"0123456789".repeat(20)[..191]);
    for (role, line, signal) in [
        ("report", "hakmem: something is odd", None),
        ("long", long.as_str(), None),
        ("fatal", "hakmem: damage", Some(SIGABRT)),
        ("pointer", "hakmem: damage: pointer 0x109af0", Some(SIGABRT)),
        ("class", "hakmem: damage: pointer 0x20, size class 48 bytes, owner 0xf00", Some(SIGABRT)),
        ("block", "hakmem: damage: pointer 0x30, 1009 bytes", Some(SIGABRT)),
        ("line", "hakmem: damage 77", Some(SIGABRT)),
    ] {
        let ended = Child::of_test("every_report_is_one_line_and_only_fatal_ones_end_the_process", role).run();
        assert_eq!(ended.stderr, format!("{line}\n"), "{role}");
        assert_eq!(ended.status.map(|status| status.signal()), Some(signal), "{role}");
    }
}
