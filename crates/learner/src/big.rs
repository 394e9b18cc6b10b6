//! The big blocks of one site: how much of them is touched, and how long one that was freed would have to wait for the next.

use hakmem_base::{Life, RUN_MAX_BYTES};

use crate::p2::Quantile;

/// A block that has lived for so long (ns) is what it will be: it counts for two looks.
const SETTLED_NS: u64 = 1_000_000_000;

/// What is known of blocks above 2 MiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BigLives {
    /// Freed blocks that were seen.
    pub(crate) seen: u64,
    /// What they and those in use stand for.
    freed: Sum,
    alive: Sum,
    /// Smallest and largest block.
    pub(crate) least_bytes: usize,
    pub(crate) most_bytes: usize,
    /// When the last one was freed.
    last_ns: u64,
    /// Blocks that were asked for after the one before had been freed, and before.
    pub(crate) returns: u64,
    pub(crate) overlaps: u64,
    /// How long after, in the middle (ns).
    pub(crate) idle_ns: Quantile,
}

/// Weights of blocks, and of those of them that were looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    blocks: f64,
    bytes: f64,
    looks: u32,
    touched: f64,
}

impl Sum {
    const NONE: Self = Self { blocks: 0.0, bytes: 0.0, looks: 0, touched: 0.0 };

    fn add(&mut self, life: &Life) {
        let weight = f64::from(life.weight);
        self.blocks += weight;
        self.bytes += weight * life.bytes as f64;
        if let Some(permille) = life.touched_permille {
            let looks = if life.ns >= SETTLED_NS { 2 } else { 1 };
            self.looks += looks;
            self.touched += f64::from(looks) * f64::from(permille);
        }
    }
}

impl BigLives {
    pub(crate) const NONE: Self = Self {
        seen: 0,
        freed: Sum::NONE,
        alive: Sum::NONE,
        least_bytes: usize::MAX,
        most_bytes: 0,
        last_ns: 0,
        returns: 0,
        overlaps: 0,
        idle_ns: Quantile::new(0.5),
    };

    /// A block that was freed. They come in the order of their ends, or nearly.
    pub(crate) fn add(&mut self, life: &Life) {
        if life.bytes <= RUN_MAX_BYTES {
            return;
        }
        self.freed.add(life);
        self.bound(life.bytes);
        let begin_ns = life.at_ns.saturating_sub(life.ns);
        if self.seen > 0 {
            match begin_ns.checked_sub(self.last_ns) {
                Some(gap_ns) => {
                    self.returns += 1;
                    // Where blocks were passed by in between, each had its part of the gap.
                    let others = u64::from(life.weight.max(1)) - 1;
                    let idle_ns = gap_ns.saturating_sub(others.saturating_mul(life.ns)) / (others + 1);
                    self.idle_ns.add(idle_ns as f64);
                }
                None => self.overlaps += 1,
            }
        }
        self.seen += 1;
        self.last_ns = self.last_ns.max(life.at_ns);
    }

    /// A block in use.
    pub(crate) fn add_alive(&mut self, life: &Life) {
        if life.bytes > RUN_MAX_BYTES {
            self.alive.add(life);
            self.bound(life.bytes);
        }
    }

    fn bound(&mut self, bytes: usize) {
        self.least_bytes = self.least_bytes.min(bytes);
        self.most_bytes = self.most_bytes.max(bytes);
    }

    /// Blocks allocated.
    pub(crate) fn blocks(&self) -> f64 {
        self.freed.blocks + self.alive.blocks
    }

    /// Their bytes.
    pub(crate) fn bytes(&self) -> f64 {
        self.freed.bytes + self.alive.bytes
    }

    /// Looks at blocks; one that has lived for a second counts twice.
    pub(crate) fn looks(&self) -> u32 {
        self.freed.looks + self.alive.looks
    }

    /// Thousandths of the blocks that are touched, in the mean of the looks.
    pub(crate) fn touched_permille(&self) -> Option<f64> {
        let looks = self.looks();
        (looks > 0).then(|| (self.freed.touched + self.alive.touched) / f64::from(looks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn life(begin_ms: u64, end_ms: u64) -> Life {
        let (at_ns, ns) = (end_ms * MS, (end_ms - begin_ms) * MS);
        Life { bytes: 4 << 20, weight: 1, ns, at_ns, ..Life::default() }
    }

    #[test]
    fn a_site_with_one_block_at_a_time_says_how_long_it_rests_in_between() {
        let mut lives = BigLives::NONE;
        (0..10).for_each(|round| lives.add(&life(round * 100, round * 100 + 30)));
        assert_eq!(
            (lives.seen, lives.returns, lives.overlaps, lives.idle_ns.get()),
            (10, 9, 0, Some(70.0 * MS as f64))
        );
        // Three more of 30 ms each were not seen: five rests in 500 ms.
        let mut lives = BigLives::NONE;
        (0..10).for_each(|round| lives.add(&Life { weight: 5, ..life(round * 500, round * 500 + 30) }));
        assert_eq!(lives.idle_ns.get(), Some(70.0 * MS as f64));
    }

    #[test]
    fn blocks_that_overlap_and_small_ones_are_told_apart() {
        let mut lives = BigLives::NONE;
        (0..10).for_each(|round| lives.add(&life(round * 100, round * 100 + 130)));
        lives.add(&Life { bytes: RUN_MAX_BYTES, ..life(5000, 6000) });
        assert_eq!((lives.seen, lives.returns, lives.overlaps), (10, 0, 9));
    }

    #[test]
    fn blocks_in_use_count_too() {
        let mut lives = BigLives::NONE;
        lives.add(&Life { touched_permille: Some(1000), ..life(0, 10) });
        lives.add_alive(&Life { touched_permille: Some(100), ..life(0, 2000) });
        lives.add_alive(&life(0, 2000));
        assert_eq!((lives.blocks(), lives.looks(), lives.touched_permille()), (3.0, 3, Some(400.0)));
    }
}
