//! What the boxes are told to do: policy snapshots, profiles, and every `HAKMEM_*` variable, declared once.
//!
//! **Not here.** Fast paths (none calls this crate), mechanisms, learning, reading `environ`, printing.
//! **Invariants.** A snapshot is immutable and within bounds: [`PolicyCell`] refuses any other; generations rise by one
//! per publication; every knob has exactly one variable, and [`parse_environment`] returns a valid policy for any bytes.
//! **Access.** [`PolicyCell`]: any thread. [`PolicyCell::generation`] is one relaxed load; while it is 0 nothing here
//! touches `arc-swap`.
//! **Orderings.** A snapshot travels through `arc-swap`; the generation word only says that looking is worth it.
//! **Why.** The founding documents publish a policy with "no grace period", which frees what readers still hold.
//!
//! # Re-entrancy
//! Only two functions allocate, and both live behind a publication: [`PolicyCell::publish`] (the snapshot, and what
//! `arc-swap` sets up once per thread) and a thread's first [`PolicyCell::with`] or [`PolicyCell::load`] after one. In a
//! global allocator that allocation comes back to the allocator, so the caller sets its re-entry guard first, and under
//! the guard no cold path asks for a policy again. Everything else, [`parse_environment`] included, allocates nothing and
//! may run inside the first `malloc` of a process.

#![forbid(unsafe_code)]

mod cell;
mod env_table;
mod environment;
pub mod file;
mod knobs;
mod registry;
mod settings;
mod sites;
mod value;

pub use cell::{BootError, PolicyCell};
#[cfg(feature = "docs")]
pub use env_table::env_vars_markdown;
pub use env_table::write_env_table;
pub use environment::{Complaint, Problem, addresses_us, parse_environment, parse_environment_over};
pub use knobs::{FieldError, FrozenPolicy, SIZE_GROUPS};
pub use registry::{Alias, EnvVar, aliases, nearest_name, variables, write_quoted};
pub use settings::{Foreign, Mode, Pages, Profile, RouteProfile, Scavenger, Settings, Strategies};
pub use sites::{SITE_CALLS, SITE_RULES, SiteCall, SiteRule, write_calls, write_site};
pub use value::{Kind, SIZES, Unit, ValueError};
