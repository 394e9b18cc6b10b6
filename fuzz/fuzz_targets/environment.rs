//! The environment as the input says: whatever it is, the policy is valid and the complaints can be printed.
#![no_main]

#[path = "../../crates/policy/tests/support/environment.rs"]
#[allow(dead_code, reason = "the test looks at more of the outcome")]
mod environment;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| {
    std::hint::black_box(environment::check(&environment::decode(script)));
});
