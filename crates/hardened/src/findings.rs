//! What is reported, in which words. Every finding ends the process.

use hakmem_base::{Door, Line, Request, fatal_block, fatal_line, fatal_ptr};

use crate::slot::State;

/// What the caller wanted with a pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    Free,
    Resize,
    Measure,
}

/// No block begins at `address`.
#[cold]
pub(crate) fn not_a_start(wish: Wish, address: usize) -> ! {
    fatal_ptr(
        match wish {
            Wish::Free => "free of a pointer into a block, not to its start",
            Wish::Resize => "realloc of a pointer into a block, not to its start",
            Wish::Measure => "realloc or malloc_usable_size of a pointer into a block, not to its start",
        },
        address,
    )
}

/// The block at `address` is not in use.
#[cold]
pub(crate) fn not_in_use(wish: Wish, state: State, address: usize, bytes: usize) -> ! {
    let what = match (wish, state) {
        (Wish::Free, State::Quarantined) => "double free (the block is in quarantine)",
        (Wish::Free, State::Free) => "double free (the block left quarantine and was not handed out again)",
        (Wish::Free, _) => "free of a pointer to a block that was never handed out",
        (Wish::Resize, State::Quarantined | State::Free) => "realloc of a freed block",
        (Wish::Resize, _) => "realloc of a block that was never handed out",
        (Wish::Measure, State::Quarantined | State::Free) => "realloc or malloc_usable_size of a freed block",
        (Wish::Measure, _) => "realloc or malloc_usable_size of a block that was never handed out",
    };
    fatal_block(what, address, bytes)
}

/// The slab or block that the pointer led to is gone.
#[cold]
pub(crate) fn gone(address: usize) -> ! {
    fatal_ptr("pointer to no block (freed before, or into the middle of one)", address)
}

#[cold]
pub(crate) fn past_the_end(address: usize, bytes: usize) -> ! {
    fatal_block("write past the end of a block", address, bytes)
}

#[cold]
pub(crate) fn before_the_start(address: usize, bytes: usize) -> ! {
    fatal_block("write before the start of a block", address, bytes)
}

#[cold]
pub(crate) fn after_free(address: usize, bytes: usize) -> ! {
    fatal_block("write to a freed block", address, bytes)
}

/// Compares what a free says of its block with what is known of it.
#[inline]
pub(crate) fn check_claim(claim: Request, address: usize, bytes: usize, align: usize, door: Door) {
    if claim.door() != door {
        wrong_door(claim.door(), door, address, bytes);
    }
    if let Some(claimed) = claim.bytes() {
        if claimed != bytes {
            wrong_size(claimed, address, bytes);
        }
        // Rust names the alignment always. C names it rarely, and up to 16 all alignments are one there.
        if claim.align() != align && (door == Door::Rust || claim.align() > 16) {
            wrong_align(claim.align(), address, align);
        }
    }
}

#[cold]
fn wrong_door(back: Door, out: Door, address: usize, bytes: usize) -> ! {
    let out = match out {
        Door::Rust => "block of Rust's allocator",
        Door::Malloc => "block of malloc",
        Door::New => "block of operator new",
        Door::NewArray => "block of operator new[]",
    };
    let back = match back {
        Door::Rust => " freed by Rust's allocator",
        Door::Malloc => " freed by free or realloc",
        Door::New => " freed by operator delete",
        Door::NewArray => " freed by operator delete[]",
    };
    let line = Line::new().text(out).text(back).text(": pointer ").hex(address);
    fatal_line(line.text(", ").number(bytes).text(" bytes"), "block freed through another door than it came from")
}

#[cold]
fn wrong_size(claimed: usize, address: usize, bytes: usize) -> ! {
    let what = "block freed with another size than it was asked for";
    let line = Line::new().text(what).text(": pointer ").hex(address);
    fatal_line(line.text(", ").number(bytes).text(" bytes, freed as ").number(claimed), what)
}

#[cold]
fn wrong_align(claimed: usize, address: usize, align: usize) -> ! {
    let what = "block freed with another alignment than it was asked for";
    let line = Line::new().text(what).text(": pointer ").hex(address);
    fatal_line(line.text(", alignment ").number(align).text(", freed as ").number(claimed), what)
}
