//! A mistake that was proved, with all that is known of the block.

use crate::stamp::Stamp;

/// What the caller did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mistake {
    /// It touched a block that it had freed.
    UseAfterFree,
    /// It touched what is behind a block in use.
    Overflow,
    /// It touched what is before a block in use.
    Underflow,
    /// It had written behind the block, as the canary showed at the free. The finding's address is the first changed byte.
    OverflowSeenLate,
    /// It had written before the block, as the canary showed at the free. The finding's address is the first changed byte.
    UnderflowSeenLate,
    /// As `OverflowSeenLate`, of a block that is still in use when the process ends.
    OverflowSeenAtExit,
    /// As `UnderflowSeenLate`, of a block that is still in use when the process ends.
    UnderflowSeenAtExit,
    /// It freed a block twice.
    DoubleFree,
    /// It freed a pointer that is not the start of a block.
    InvalidFree,
    /// It named another size at the free than the block was asked for with.
    WrongSize {
        /// What it named (bytes).
        claimed: usize,
    },
    /// It resized a freed block, or asked for its size.
    ResizeAfterFree,
    /// It resized a pointer that is not the start of a block, or asked for its size.
    InvalidResize,
    /// It touched a slot between two uses: nothing more is known.
    Unknown,
}

impl Mistake {
    /// In words, as a report begins.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::UseAfterFree => "use after free",
            Self::Overflow => "access behind a block",
            Self::Underflow => "access before a block",
            Self::OverflowSeenLate => "written behind a block, seen at its free",
            Self::UnderflowSeenLate => "written before a block, seen at its free",
            Self::OverflowSeenAtExit => "written behind a block, seen at exit",
            Self::UnderflowSeenAtExit => "written before a block, seen at exit",
            Self::DoubleFree => "double free",
            Self::InvalidFree => "free of a pointer into a block, not to its start",
            Self::WrongSize { .. } => "free with a wrong size",
            Self::ResizeAfterFree => "realloc or size of a freed block",
            Self::InvalidResize => "realloc or size of a pointer into a block, not to its start",
            Self::Unknown => "access to a sampled block's slot",
        }
    }
}

/// A mistake, where, and the block that it was made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What.
    pub mistake: Mistake,
    /// The address that was touched or freed.
    pub address: usize,
    /// The block.
    pub block: usize,
    /// Its size (bytes).
    pub bytes: usize,
    /// Its allocation; `None` where there never was one.
    pub allocated: Option<Stamp>,
    /// Its free, if it is freed.
    pub freed: Option<Stamp>,
}
