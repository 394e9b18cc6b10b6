//! The levels of protection at which programs are run.

use clap::ValueEnum;

/// How much hakmem looks for misuse.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Level {
    /// What runs when nobody says anything.
    Default,
    /// Every check.
    Hardened,
    /// Some allocations stand alone between guard pages.
    Sampled,
}

impl Level {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 3] = [Self::Default, Self::Hardened, Self::Sampled];

    /// Its name on the command line and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Hardened => "hardened",
            Self::Sampled => "sampled",
        }
    }

    /// The variable that asks for it, with samples as often as tests take them: one allocation in a hundred.
    pub const fn variable(self) -> Option<(&'static str, &'static str)> {
        self.variable_sampling("100")
    }

    /// The same with one allocation in `one_in` sampled, if it is that level.
    pub const fn variable_sampling(self, one_in: &'static str) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Default => None,
            Self::Hardened => Some(("HAKMEM_HARDENED", "1")),
            Self::Sampled => Some(("HAKMEM_SAMPLE", one_in)),
        }
    }
}
