//! What is found, and in which words it is reported.
//!
//! A finding is a value until the caller has let go of its lock: [`Finding::report`] ends the process, but by way of the
//! program's handler of `SIGABRT`, and one that allocates must not wait for a lock that its own thread holds.

use hakmem_base::{Door, Line, Request, fatal_block, fatal_line, fatal_ptr};

use crate::slot::{Slot, State};

/// What the caller wanted with a pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    Free,
    Resize,
    Measure,
}

/// A mistake, at the address that says most about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) struct Finding {
    what: What,
    address: usize,
    /// Of the block, as far as they are known.
    bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    /// No block begins there.
    NotAStart(Wish),
    /// A block begins there that is in this state and not in use.
    NotInUse(Wish, State),
    /// The slab or block that the pointer led to is gone.
    Gone,
    PastTheEnd,
    BeforeTheStart,
    AfterFree,
    WrongDoor {
        out: Door,
        back: Door,
    },
    WrongSize {
        claimed: usize,
    },
    WrongAlign {
        claimed: usize,
        align: usize,
    },
}

impl Finding {
    pub(crate) const fn not_a_start(wish: Wish, address: usize) -> Self {
        Self { what: What::NotAStart(wish), address, bytes: 0 }
    }

    pub(crate) const fn not_in_use(wish: Wish, slot: Slot, address: usize) -> Self {
        Self { what: What::NotInUse(wish, slot.state), address, bytes: slot.bytes }
    }

    pub(crate) const fn gone(address: usize) -> Self {
        Self { what: What::Gone, address, bytes: 0 }
    }

    pub(crate) const fn past_the_end(address: usize, bytes: usize) -> Self {
        Self { what: What::PastTheEnd, address, bytes }
    }

    pub(crate) const fn before_the_start(address: usize, bytes: usize) -> Self {
        Self { what: What::BeforeTheStart, address, bytes }
    }

    pub(crate) const fn after_free(address: usize, bytes: usize) -> Self {
        Self { what: What::AfterFree, address, bytes }
    }

    /// The doors that the block left and came back by, if nothing else is known to be wrong.
    pub(crate) fn wrong_doors(&self) -> Option<(Door, Door)> {
        if let What::WrongDoor { out, back } = self.what { Some((out, back)) } else { None }
    }

    /// Writes the line and ends the process. No lock may be held.
    #[cold]
    pub(crate) fn report(self) -> ! {
        let Self { what, address, bytes } = self;
        match what {
            What::NotAStart(wish) => fatal_ptr(into_a_block(wish), address),
            What::NotInUse(wish, state) => fatal_block(of_no_use(wish, state), address, bytes),
            What::Gone => fatal_ptr("pointer to no block (freed before, or into the middle of one)", address),
            What::PastTheEnd => fatal_block("write past the end of a block", address, bytes),
            What::BeforeTheStart => fatal_block("write before the start of a block", address, bytes),
            What::AfterFree => fatal_block("write to a freed block", address, bytes),
            What::WrongDoor { out, back } => {
                let line = Line::new().text(left_by(out)).text(came_by(back)).text(": pointer ").hex(address);
                let what = "block freed through another door than it came from";
                fatal_line(line.text(", ").number(bytes).text(" bytes"), what)
            }
            What::WrongSize { claimed } => {
                let what = "block freed with another size than it was asked for";
                let line = Line::new().text(what).text(": pointer ").hex(address);
                fatal_line(line.text(", ").number(bytes).text(" bytes, freed as ").number(claimed), what)
            }
            What::WrongAlign { claimed, align } => {
                let what = "block freed with another alignment than it was asked for";
                let line = Line::new().text(what).text(": pointer ").hex(address);
                fatal_line(line.text(", alignment ").number(align).text(", freed as ").number(claimed), what)
            }
        }
    }
}

/// Compares what a free says of its block with what is known of it.
#[inline]
pub(crate) fn check_claim(claim: Request, address: usize, slot: Slot) -> Result<(), Finding> {
    let Slot { bytes, align, door, .. } = slot;
    let finding = |what| Err(Finding { what, address, bytes });
    if claim.door() != door {
        return finding(What::WrongDoor { out: door, back: claim.door() });
    }
    if let Some(claimed) = claim.bytes() {
        // No bytes are served as one.
        if claimed.max(1) != bytes.max(1) {
            return finding(What::WrongSize { claimed });
        }
        // Rust names the alignment always. C names it rarely, and up to 16 all alignments are one there.
        if claim.align() != align && (door == Door::Rust || claim.align() > 16) {
            return finding(What::WrongAlign { claimed: claim.align(), align });
        }
    }
    Ok(())
}

const fn into_a_block(wish: Wish) -> &'static str {
    match wish {
        Wish::Free => "free of a pointer into a block, not to its start",
        Wish::Resize => "realloc of a pointer into a block, not to its start",
        Wish::Measure => "realloc or malloc_usable_size of a pointer into a block, not to its start",
    }
}

const fn of_no_use(wish: Wish, state: State) -> &'static str {
    match (wish, state) {
        (Wish::Free, State::Quarantined) => "double free (the block is in quarantine)",
        (Wish::Free, State::Free) => "double free (the block left quarantine and was not handed out again)",
        (Wish::Free, _) => "free of a pointer to a block that was never handed out",
        (Wish::Resize, State::Quarantined | State::Free) => "realloc of a freed block",
        (Wish::Resize, _) => "realloc of a block that was never handed out",
        (Wish::Measure, State::Quarantined | State::Free) => "realloc or malloc_usable_size of a freed block",
        (Wish::Measure, _) => "realloc or malloc_usable_size of a block that was never handed out",
    }
}

const fn left_by(door: Door) -> &'static str {
    match door {
        Door::Rust => "block of Rust's allocator",
        Door::Malloc => "block of malloc",
        Door::New => "block of operator new",
        Door::NewArray => "block of operator new[]",
    }
}

const fn came_by(door: Door) -> &'static str {
    match door {
        Door::Rust => " freed by Rust's allocator",
        Door::Malloc => " freed by free or realloc",
        Door::New => " freed by operator delete",
        Door::NewArray => " freed by operator delete[]",
    }
}
