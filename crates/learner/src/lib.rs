//! What the allocator learns about the program it serves: windows of numbers in, a better policy out.
//!
//! **Not here.** Clocks, files, threads, atomics, statics, the allocator itself: whoever holds a [`Learner`] measures a
//! [`Window`], calls [`Learner::observe`], and publishes what comes back. Nothing here is ever called from a fast path.
//! **Invariants.** What is published is valid (`FrozenPolicy::validate`) and within its [`Options`]' bounds; what was on trial and
//! did not win is taken back; the same windows and seed give the same decisions; a step in the steady state allocates nothing.
//! **Access.** One thread, by `&mut`.
//! **Why.** docs/learning.md
//!
//! # Reading order
//! [`Window`] is what is seen, `score` what it costs, `knob` what can be changed. `duel` compares two policies in a program that
//! does not hold still. `stakes` says what could be gained at most, and `bandit`, `elo` and `selector` what to try next; `cap` steers capacities, `league` lets whole policies
//! compete, `moves` makes single steps. `drift` says when the program has become another one, `page` is what is known about one
//! phase of it, and `learner` is the life that these add up to. `p2`, `digest`, `sizes`, `sites` and `big`
//! make up `blocks`, for whoever sees single blocks: samplers, traces, tools. `hints` makes rules of them.

#![forbid(unsafe_code)]

mod bandit;
mod big;
mod blocks;
mod canary;
mod cap;
mod digest;
mod drift;
mod duel;
mod dynamic;
mod elo;
mod foresight;
mod hints;
mod knob;
mod league;
mod learner;
mod ledger;
mod math;
mod moves;
mod options;
mod outlook;
mod p2;
mod page;
mod random;
mod score;
mod selector;
mod sites;
mod sizes;
mod stakes;
mod window;

pub use bandit::{Arm, Bandit, MAX_ARMS, Rule};
pub use blocks::{BLOCK_GROUPS, Blocks, GroupSummary, SiteSummary, Summary, TOP_SITES, Visit};
pub use cap::{CapController, CapOptions, Demand, Surplus, water_fill};
pub use digest::Digest;
pub use drift::{Fit, PageHinkley, Shape, ShapeWatch};
pub use duel::{Duel, Gains, Limits, MAX_PAIRS, Pace, Side, Verdict};
pub use elo::{Elo, EloOptions, Rating};
pub use hakmem_base::{Frames, Life, SITE_FRAMES};
pub use hints::{SiteCosts, SiteHint};
pub use knob::{Bounds, Direction, KNOBS, Knob, KnobValue, NEVER};
pub use league::{Candidate, League, Match, STRATEGIES};
pub use learner::{Decision, Learner, Phase};
pub use ledger::{Evidence, Reason};
pub use moves::{Move, Moves};
pub use options::Options;
pub use outlook::Bill;
pub use p2::Quantile;
pub use random::Random;
pub use score::{Rates, Tally, Weights};
pub use selector::{Method, Selector, reward_of};
pub use sizes::{DynamicClass, Sizes};
pub use stakes::Stakes;
pub use window::{ClassWindow, GroupWindow, Window};
