//! The places in a program that its blocks come from: the busiest ones, in a table of fixed size.
//!
//! Space-saving (Metwally, Agrawal and El Abbadi, "Efficient computation of frequent and top-k elements in data streams", 2005), with
//! bytes as weights: a site that finds the table full takes the place of the one with the least bytes, and inherits these as
//! the bound of its error. A site that allocates more than `1 / SITES` of all bytes is in the table for certain.

use hakmem_base::{Frames, Life, SITE_FRAMES};

use crate::big::BigLives;
use crate::p2::Quantile;

/// Sites that are told apart.
const SITES: usize = 256;

/// What is known of one site.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub(crate) frames: Frames,
    /// Lives seen: freed blocks. 0 with no bytes either: an empty place.
    pub(crate) deaths: u64,
    /// What they stand for.
    pub(crate) weight: f64,
    pub(crate) bytes: f64,
    /// At most so many of `bytes` are those of sites that were here before.
    pub(crate) error_bytes: f64,
    /// Of `weight`, freed by another thread.
    pub(crate) strangers: f64,
    pub(crate) median_ns: Quantile,
    pub(crate) late_ns: Quantile,
    pub(crate) big: BigLives,
    /// Blocks in use; none but in a copy of the table that is made to be shown.
    pub(crate) alive: f64,
    pub(crate) alive_bytes: f64,
}

impl Site {
    pub(crate) const NONE: Self = Self {
        frames: [0; SITE_FRAMES],
        deaths: 0,
        weight: 0.0,
        bytes: 0.0,
        error_bytes: 0.0,
        strangers: 0.0,
        median_ns: Quantile::new(0.5),
        late_ns: Quantile::new(0.9),
        big: BigLives::NONE,
        alive: 0.0,
        alive_bytes: 0.0,
    };

    /// Bytes allocated there, as far as is known.
    pub(crate) fn all_bytes(&self) -> f64 {
        self.bytes + self.alive_bytes
    }

    fn is_empty(&self) -> bool {
        self.all_bytes() <= 0.0 && self.weight + self.alive <= 0.0
    }
}

/// The table.
#[derive(Clone, Debug)]
pub(crate) struct Sites([Site; SITES]);

impl Sites {
    pub(crate) const fn new() -> Self {
        Self([Site::NONE; SITES])
    }

    /// Makes the table an empty one, in place.
    pub(crate) fn clear(&mut self) {
        self.0.iter_mut().for_each(|site| *site = Site::NONE);
    }

    /// A block that was freed.
    pub(crate) fn add(&mut self, life: &Life) {
        let weight = f64::from(life.weight);
        let Some(site) = self.place_of(&life.frames) else { return };
        site.deaths += 1;
        site.weight += weight;
        site.bytes += weight * life.bytes as f64;
        site.strangers += if life.allocs.is_none() { weight } else { 0.0 };
        site.median_ns.add(life.ns as f64);
        site.late_ns.add(life.ns as f64);
        site.big.add(life);
    }

    /// Makes this table like another one, in place.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.0.copy_from_slice(&other.0);
    }

    /// A block in use, which may take the place of a site of freed ones: for a table that is shown and thrown away.
    pub(crate) fn add_alive(&mut self, life: &Life) {
        let weight = f64::from(life.weight);
        if let Some(site) = self.place_of(&life.frames) {
            site.alive += weight;
            site.alive_bytes += weight * life.bytes as f64;
            site.big.add_alive(life);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Site> {
        self.0.iter().filter(|site| !site.is_empty())
    }

    /// Where a site stands, or the place that it takes.
    fn place_of(&mut self, frames: &Frames) -> Option<&mut Site> {
        if let Some(index) = self.0.iter().position(|site| site.frames == *frames && !site.is_empty()) {
            return self.0.get_mut(index);
        }
        let least = self.0.iter_mut().min_by(|a, b| a.all_bytes().total_cmp(&b.all_bytes()))?;
        let inherited = least.all_bytes();
        *least = Site { frames: *frames, bytes: inherited, error_bytes: inherited, ..Site::NONE };
        Some(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    fn life(site: usize, bytes: usize) -> Life {
        Life { bytes, weight: 10, ns: 1000, allocs: Some(5), frames: [site; SITE_FRAMES], ..Life::default() }
    }

    #[test]
    fn a_site_is_found_again_and_adds_up() {
        let mut sites = Sites::new();
        for _ in 0..3 {
            sites.add(&life(1, 100));
            sites.add(&Life { allocs: None, ..life(2, 50) });
        }
        sites.add_alive(&life(2, 50));
        let [first, second] = [1, 2].map(|frame| sites.iter().find(|site| site.frames[0] == frame).unwrap());
        assert_eq!((first.deaths, first.weight, first.bytes, first.alive), (3, 30.0, 3000.0, 0.0));
        assert_eq!((second.strangers, second.alive, second.alive_bytes), (30.0, 10.0, 500.0));
        assert_eq!(first.median_ns.get(), Some(1000.0));
    }

    /// Far more sites than places, of which a few have most of the bytes: those are there, and their bytes are right within the
    /// error that stands beside them.
    #[test]
    fn busy_sites_survive_a_crowd_and_their_bytes_are_right_within_the_bound() {
        let (mut sites, mut random) = (Sites::new(), Random::new(3));
        let mut true_bytes = [0.0; 4];
        for _ in 0..40_000 {
            let site = if random.uniform() < 0.3 { random.below(4) } else { 100 + random.below(20_000) };
            sites.add(&life(site + 1, 64));
            if let Some(bytes) = true_bytes.get_mut(site) {
                *bytes += 640.0;
            }
        }
        for (number, bytes) in true_bytes.iter().enumerate() {
            let site = sites.iter().find(|site| site.frames[0] == number + 1).unwrap();
            assert!(site.bytes >= *bytes && site.bytes - site.error_bytes <= *bytes, "{site:?}, truly {bytes}");
        }
        let all: f64 = sites.iter().map(Site::all_bytes).sum();
        assert!((all / (40_000.0 * 640.0) - 1.0).abs() < 1e-9, "no byte is forgotten");
    }

    #[test]
    fn blocks_without_bytes_have_a_site_too() {
        let mut sites = Sites::new();
        (0..2).for_each(|_| sites.add(&life(7, 0)));
        assert_eq!(sites.iter().map(|site| site.deaths).collect::<Vec<_>>(), [2]);
    }
}
