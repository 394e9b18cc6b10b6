//! Which sizes and alignments the soak asks for: mostly small, all magnitudes, and the places where one route ends.

use hakmem_testkit::Random;

/// Sizes around which the allocator changes its mind.
const EDGES: [usize; 8] = [8, 16, 1 << 10, 32 << 10, 64 << 10, 1 << 20, 2 << 20, 4 << 20];

/// A size, log-uniform within a class of sizes that is chosen by weight.
pub fn any(random: &mut Random) -> usize {
    match random.below(1000) {
        0..860 => log_uniform(random, 1, 1 << 10),
        860..975 => log_uniform(random, 1 << 10, 32 << 10),
        975..991 => log_uniform(random, 32 << 10, 2 << 20),
        991..994 => log_uniform(random, 2 << 20, 24 << 20),
        _ => (EDGES[random.below(EDGES.len())] + random.below(3)).saturating_sub(1).max(1),
    }
}

/// A size up to 32 KiB.
pub fn small(random: &mut Random) -> usize {
    log_uniform(random, 1, 32 << 10)
}

/// A size that `realloc` may go to: from a few bytes to several MiB.
pub fn for_realloc(random: &mut Random, old_bytes: usize) -> usize {
    match random.below(8) {
        0 => log_uniform(random, 1, 8 << 20),
        1 | 2 => (old_bytes / 2).max(1),
        3 => old_bytes + 1,
        _ => (old_bytes + old_bytes / 2 + 16).min(12 << 20),
    }
}

/// Mostly the usual alignment, sometimes up to 4 MiB.
pub fn alignment(random: &mut Random) -> usize {
    match random.below(100) {
        0..90 => 8 << random.below(2),
        90..99 => 16 << random.below(9),
        _ => 4096 << random.below(11),
    }
}

/// Each doubling is as likely as any other.
fn log_uniform(random: &mut Random, low: usize, high: usize) -> usize {
    let doublings = (high / low).ilog2() as usize;
    let from = low << random.below(doublings);
    from + random.below(from)
}
