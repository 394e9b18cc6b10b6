//! What a call brings along, and what a route word of this level says.

use hakmem_base::{Door, SlabIndex};
use hakmem_ownership::RouteWord;
use hakmem_superslab_os::{FlatTable, MetaArena, SuperslabOs};

/// The boxes below.
#[derive(Clone, Copy)]
pub struct HardenedContext<'a> {
    /// The box that owns the superslabs.
    pub os: &'a SuperslabOs,
    /// One route word per unit of the window.
    pub routes: &'a FlatTable<RouteWord>,
    /// Memory for records.
    pub arena: &'a MetaArena,
    /// Whether a block that went out through the first door may come back through the second one without a mistake of the program's:
    /// `operator new` may be another library's on top of malloc while `operator delete` is ours. Asked with no lock held.
    pub doors_mix: fn(Door, Door) -> bool,
}

/// The number in a route word. All are small, so that no word equals the address of a bin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Note {
    /// A large block begins in this unit.
    LargeHead,
    /// Another unit of a large block.
    LargeInside,
    /// A unit of a slab, this many behind its first one.
    Slab(u32),
}

impl Note {
    pub(crate) fn encode(self) -> usize {
        match self {
            Self::LargeHead => 0,
            Self::LargeInside => 1,
            Self::Slab(back) => 2 + back as usize,
        }
    }

    pub(crate) fn decode(number: usize) -> Self {
        match number {
            0 => Self::LargeHead,
            1 => Self::LargeInside,
            number => Self::Slab((number - 2) as u32),
        }
    }
}

impl HardenedContext<'_> {
    /// The units belong to this level from now on.
    pub(crate) fn set_routes(&self, first: SlabIndex, units: u32, note_of: impl Fn(u32) -> Note) {
        for offset in 0..units {
            if let Some(word) = self.routes.get(first.add(offset).to_usize()) {
                word.set_hardened(note_of(offset).encode());
            }
        }
    }

    /// The units belong to nobody.
    pub(crate) fn retire_routes(&self, first: SlabIndex, units: u32) {
        for offset in 0..units {
            if let Some(word) = self.routes.get(first.add(offset).to_usize()) {
                word.retire();
            }
        }
    }
}
