//! Where acquires and releases are called from: which of them a model reaches, and the one that is relaxed.

use core::panic::Location;
use core::sync::atomic::Ordering;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::string::String;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Variable that names the site (`file:line`) whose operations are relaxed.
pub const RELAX: &str = "HAKMEM_TEST_LOOM_RELAX";
/// Variable that names the file to which sites that a model reached are appended, one per line.
pub const SITES: &str = "HAKMEM_TEST_LOOM_SITES";

type Site = (&'static str, u32);

static REACHED: Mutex<BTreeSet<Site>> = Mutex::new(BTreeSet::new());
static PLAN: OnceLock<Plan> = OnceLock::new();

struct Plan {
    relaxed: Option<(String, u32)>,
    notes_sites: bool,
}

impl Plan {
    fn read() -> Self {
        let relaxed = std::env::var(RELAX).ok().map(|named| {
            let (file, line) = named.rsplit_once(':').expect("the relaxed site is a file and a line");
            (file.into(), line.parse().expect("the relaxed site's line is a number"))
        });
        Self { relaxed, notes_sites: std::env::var_os(SITES).is_some() }
    }
}

/// The ordering that an operation at `site` has in this process.
pub(super) fn effective(ordering: Ordering, site: &'static Location<'static>) -> Ordering {
    if ordering == Ordering::Relaxed {
        return ordering;
    }
    let plan = PLAN.get_or_init(Plan::read);
    if plan.notes_sites {
        REACHED.lock().unwrap_or_else(PoisonError::into_inner).insert((site.file(), site.line()));
    }
    match &plan.relaxed {
        Some((file, line)) if *line == site.line() && file == site.file() => Ordering::Relaxed,
        _ => ordering,
    }
}

/// Appends the sites reached so far to the file that [`SITES`] names.
pub(super) fn write_down() {
    let Some(path) = std::env::var_os(SITES) else { return };
    let mut text = String::new();
    for (file, line) in REACHED.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        text.push_str(&std::format!("{file}:{line}\n"));
    }
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("the file of sites opens");
    file.write_all(text.as_bytes()).expect("the file of sites can be written");
}
