//! What has to be over before everything is counted.

use std::thread::sleep;
use std::time::Duration;

use hakmem_testkit::thread_names;

/// Ends OBSERVE or LEARN and checks conservation: not before their thread, which allocates too, is gone.
pub fn check_at_rest() {
    hakmem::set_mode(hakmem::Mode::Frozen);
    while thread_names().iter().any(|name| name == "hakmem-learn") {
        sleep(Duration::from_millis(1));
    }
    hakmem::check_invariants();
}
