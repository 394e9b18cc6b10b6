//! A policy file as the input says: whatever it is, it is a valid policy, the same as for a full TOML parser, or a complaint.
#![no_main]

#[path = "../../crates/policy/tests/support/policy_file.rs"]
mod policy_file;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    _ = std::hint::black_box(policy_file::check(text));
});
