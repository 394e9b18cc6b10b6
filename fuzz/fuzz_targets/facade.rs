//! `GlobalAlloc` from several live threads, one step at a time as the input says, against its model.
#![no_main]

#[path = "../../crates/hakmem/tests/support/facade.rs"]
mod facade;

use hakmem_testkit::model::threads::{decode, run, show};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: hakmem_testkit::model::small_pages_only(), |script: &[u8]| {
    let steps = decode(script);
    if let Err(damage) = run(facade::Facade, &steps) {
        panic!("{damage}\n{}", show(&steps));
    }
});
