//! The levels of protection at which programs are run.

use clap::ValueEnum;

/// How much hakmem looks for misuse.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Level {
    /// What runs when nobody says anything.
    Default,
    /// Every check.
    Hardened,
    /// One allocation in a hundred stands alone between guard pages.
    Sampled,
}

impl Level {
    /// Its name on the command line and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Hardened => "hardened",
            Self::Sampled => "sampled",
        }
    }

    /// The variable that asks for it.
    pub const fn variable(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Default => None,
            Self::Hardened => Some(("HAKMEM_HARDENED", "1")),
            Self::Sampled => Some(("HAKMEM_SAMPLE", "100")),
        }
    }
}
