//! Placeholder: filled in next.
//!
//! **Invariants.** None yet.
