//! The malloc family, called as the input says, against its model.
#![no_main]

#[path = "../table.rs"]
mod table;

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: hakmem_testkit::model::small_pages_only(), |script: &[u8]| {
    let outcome = hakmem_testkit::model::family::run(&table::FAMILY, script);
    if let Err(damage) = outcome.map(|_| ()).and_then(|()| table::leftover()) {
        panic!("{damage}");
    }
});
