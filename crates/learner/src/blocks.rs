//! What single blocks say: sizes, lifetimes, where they come from, and the classes that a program would like to have.
//!
//! A [`crate::Window`] has counts per class and no more. Whoever sees single blocks (a sampler, a trace) fills one of these; it takes
//! no memory but its own, some 150 KiB.
//!
//! **Lifetimes of what still lives.** A block in use has lived for so long *so far*. Leaving such blocks out would make a program that
//! keeps its blocks look like one that throws them away, so they count with their age: quantiles are too low where much is alive, and
//! the share that is alive stands beside them.

use hakmem_base::{Frames, Life};

use crate::digest::Digest;
use crate::hints::{self, SiteCosts, SiteHint};
use crate::p2::Quantile;
use crate::sites::{Site, Sites};
use crate::sizes::{DynamicClass, Sizes};

/// Groups of sizes: up to 64 and 256 bytes, 1, 4 and 32 KiB, 2 MiB, and above.
pub const BLOCK_GROUPS: usize = 7;
const GROUP_TOPS: [usize; BLOCK_GROUPS] = [64, 256, 1 << 10, 4 << 10, 32 << 10, 2 << 20, usize::MAX];
/// Sites that a summary names.
pub const TOP_SITES: usize = 24;

/// Whoever is shown blocks.
pub type Visit<'a> = dyn FnMut(&Life) + 'a;

/// Sketches of the blocks seen.
#[derive(Clone, Debug)]
pub struct Blocks {
    groups: [Group; BLOCK_GROUPS],
    /// Sizes up to 32 KiB, weighted by how long the blocks lived: what is live of each size, by Little's law.
    sizes: Sizes,
    /// What the weights in `sizes` add up to in bytes that were asked for.
    byte_ns: f64,
    median_bytes: Quantile,
    late_bytes: Quantile,
    deaths: u64,
    sites: Sites,
    /// The same with the blocks that were in use when somebody asked.
    shown: Sites,
}

/// Freed blocks of one group of sizes.
#[derive(Clone, Debug)]
struct Group {
    weight: f64,
    bytes: f64,
    strangers: f64,
    lifetimes: Digest,
    median_allocs: Quantile,
}

/// What is known of a group of sizes.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct GroupSummary {
    /// Largest size of the group (bytes).
    pub up_to_bytes: usize,
    /// Blocks allocated.
    pub blocks: f64,
    /// Their bytes.
    pub bytes: f64,
    /// Part of the blocks that is in use.
    pub alive_share: f64,
    /// Part of the freed ones that another thread freed.
    pub stranger_share: f64,
    /// Half of the blocks, 90 and 99 of a hundred lived at most so long (nanoseconds).
    pub lifetime_ns: [f64; 3],
    /// Half of the blocks that their own thread freed lived for at most so many of its allocations.
    pub median_allocs: Option<f64>,
}

/// What is known of a site.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SiteSummary {
    /// The calls that led there, innermost first; 0 where there are no more.
    pub frames: Frames,
    /// Blocks allocated.
    pub blocks: f64,
    /// Their bytes.
    pub bytes: f64,
    /// At most so many of these are other sites' that the table had no room for.
    pub error_bytes: f64,
    /// Blocks in use.
    pub alive: f64,
    /// Their bytes.
    pub alive_bytes: f64,
    /// Part of the freed ones that another thread freed.
    pub stranger_share: f64,
    /// Freed blocks that were seen: what the estimates rest on.
    pub seen: u64,
    /// Half of them, and nine of ten, lived at most so long (nanoseconds).
    pub lifetime_ns: Option<[f64; 2]>,
}

/// All that is known of a program's blocks.
#[derive(Clone, PartialEq, Debug)]
pub struct Summary {
    /// Freed blocks that were seen.
    pub deaths: u64,
    /// Blocks in use that were seen.
    pub alive: u64,
    /// The size that half of the freed blocks, and 99 of a hundred, do not exceed.
    pub freed_bytes: Option<[f64; 2]>,
    /// By size.
    pub groups: [GroupSummary; BLOCK_GROUPS],
    /// Most bytes first.
    pub sites: [Option<SiteSummary>; TOP_SITES],
    /// The classes that would save most; bytes are the mean over time.
    pub wanted: [Option<DynamicClass>; 2],
    /// Bytes handed out beyond what was asked for, as a part of all bytes handed out up to 32 KiB.
    pub waste_share: f64,
}

impl Group {
    const fn new() -> Self {
        Self { weight: 0.0, bytes: 0.0, strangers: 0.0, lifetimes: Digest::new(), median_allocs: Quantile::new(0.5) }
    }

    fn add(&mut self, life: &Life) {
        let weight = f64::from(life.weight);
        self.weight += weight;
        self.bytes += weight * life.bytes as f64;
        self.lifetimes.add(life.ns as f64, weight);
        match life.allocs {
            Some(allocs) => self.median_allocs.add(allocs as f64),
            None => self.strangers += weight,
        }
    }
}

impl Default for Blocks {
    fn default() -> Self {
        Self::new()
    }
}

impl Blocks {
    /// Nothing seen.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            groups: [const { Group::new() }; BLOCK_GROUPS],
            sizes: Sizes::new(),
            byte_ns: 0.0,
            median_bytes: Quantile::new(0.5),
            late_bytes: Quantile::new(0.99),
            deaths: 0,
            sites: Sites::new(),
            shown: Sites::new(),
        }
    }

    /// Makes of this what [`Blocks::new`] is, piece by piece: for memory that is all zero, and stacks that are small.
    pub fn clear(&mut self) {
        self.groups.iter_mut().for_each(|group| *group = Group::new());
        self.sizes = Sizes::new();
        (self.byte_ns, self.deaths) = (0.0, 0);
        (self.median_bytes, self.late_bytes) = (Quantile::new(0.5), Quantile::new(0.99));
        self.sites.clear();
        self.shown.clear();
    }

    /// Takes a block that has been freed.
    pub fn add(&mut self, life: &Life) {
        if let Some(group) = self.groups.get_mut(group_of(life.bytes)) {
            group.add(life);
        }
        self.sizes.record(life.bytes, time_weight(life));
        self.median_bytes.add(life.bytes as f64);
        self.late_bytes.add(life.bytes as f64);
        self.deaths += 1;
        self.sites.add(life);
    }

    /// Shows what is worth a rule of the sites that big blocks come from: most bytes first, no more than a policy file has room for.
    /// `for_each_alive` as for [`Blocks::summary`].
    pub fn for_each_hint(
        &mut self,
        costs: &SiteCosts,
        for_each_alive: &dyn Fn(&mut Visit<'_>),
        visit: &mut dyn FnMut(&SiteHint),
    ) {
        self.shown.copy_from(&self.sites);
        for_each_alive(&mut |life| self.shown.add_alive(life));
        hints::derive(&self.shown, costs, visit);
    }

    /// What is known after `elapsed_ns`. `for_each_alive` calls back with each block that is in use; it is called several times.
    pub fn summary(&mut self, elapsed_ns: u64, for_each_alive: &dyn Fn(&mut Visit<'_>)) -> Summary {
        self.shown.copy_from(&self.sites);
        let mut sizes = self.sizes.clone();
        let mut alive = 0;
        for_each_alive(&mut |life| {
            alive += 1;
            sizes.record(life.bytes, time_weight(life));
            self.shown.add_alive(life);
        });
        let mut summary = Summary {
            deaths: self.deaths,
            alive,
            freed_bytes: self.median_bytes.get().zip(self.late_bytes.get()).map(|(median, late)| [median, late]),
            groups: [GroupSummary::default(); BLOCK_GROUPS],
            sites: [None; TOP_SITES],
            wanted: sizes.dynamic_classes(),
            waste_share: sizes.waste_share(),
        };
        for wanted in summary.wanted.iter_mut().flatten() {
            wanted.saved_bytes /= elapsed_ns.max(1) as f64;
        }
        for (index, (group, out)) in self.groups.iter().zip(&mut summary.groups).enumerate() {
            *out = summary_of(group, index, for_each_alive);
        }
        for site in self.shown.iter() {
            insert_site(&mut summary.sites, site);
        }
        summary
    }
}

/// One group, with its blocks in use.
fn summary_of(group: &Group, index: usize, for_each_alive: &dyn Fn(&mut Visit<'_>)) -> GroupSummary {
    let mut lifetimes = group.lifetimes.clone();
    let (mut alive, mut alive_bytes) = (0.0, 0.0);
    for_each_alive(&mut |life| {
        if group_of(life.bytes) == index {
            let weight = f64::from(life.weight);
            alive += weight;
            alive_bytes += weight * life.bytes as f64;
            lifetimes.add(life.ns as f64, weight);
        }
    });
    let blocks = group.weight + alive;
    GroupSummary {
        up_to_bytes: GROUP_TOPS.get(index).copied().unwrap_or(usize::MAX),
        blocks,
        bytes: group.bytes + alive_bytes,
        alive_share: part(alive, blocks),
        stranger_share: part(group.strangers, group.weight),
        lifetime_ns: [0.5, 0.9, 0.99].map(|share| lifetimes.quantile(share).unwrap_or(0.0)),
        median_allocs: group.median_allocs.get(),
    }
}

/// Puts a site where it belongs among those with the most bytes.
fn insert_site(largest: &mut [Option<SiteSummary>], site: &Site) {
    // What was inherited from others is theirs.
    let own_bytes = |site: &SiteSummary| site.bytes - site.error_bytes;
    let mut item = Some(SiteSummary {
        frames: site.frames,
        blocks: site.weight + site.alive,
        bytes: site.all_bytes(),
        error_bytes: site.error_bytes,
        alive: site.alive,
        alive_bytes: site.alive_bytes,
        stranger_share: part(site.strangers, site.weight),
        seen: site.deaths,
        lifetime_ns: site.median_ns.get().zip(site.late_ns.get()).map(|(median, late)| [median, late]),
    });
    for place in largest {
        if item.as_ref().map_or(-1.0, own_bytes) > place.as_ref().map_or(-1.0, own_bytes) {
            core::mem::swap(place, &mut item);
        }
    }
}

fn part(some: f64, all: f64) -> f64 {
    if all > 0.0 { some / all } else { 0.0 }
}

/// How much a block adds to what is live of its size.
fn time_weight(life: &Life) -> f64 {
    f64::from(life.weight) * life.ns as f64
}

fn group_of(bytes: usize) -> usize {
    GROUP_TOPS.iter().position(|top| bytes <= *top).unwrap_or(BLOCK_GROUPS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;
    use hakmem_base::SITE_FRAMES;

    fn life(bytes: usize, ns: u64, site: usize) -> Life {
        Life { bytes, weight: 100, ns, allocs: Some(ns / 10), frames: [site; SITE_FRAMES], ..Life::default() }
    }

    fn nobody(_: &mut Visit<'_>) {}

    #[test]
    fn blocks_that_live_long_count_for_what_is_live() {
        let mut blocks = Blocks::new();
        (0..1000).for_each(|_| blocks.add(&life(64, 1, 1)));
        (0..10).for_each(|_| blocks.add(&life(4360, 10_000, 2)));
        let summary = blocks.summary(1_000_000, &nobody);
        assert!(summary.freed_bytes.is_some_and(|[median, late]| (64.0..70.0).contains(&median) && late < 4360.0));
        let [Some(wanted), _] = summary.wanted else { panic!("none") };
        assert_eq!(wanted.block_bytes, 4368);
        // Ten times a hundred blocks for 10 µs of a millisecond: ten at a time, of which each would save 312 bytes.
        assert!((wanted.saved_bytes - 3120.8).abs() < 0.1, "{wanted:?}");
        assert!(wanted.saved_share > 0.04 && summary.waste_share >= wanted.saved_share, "{wanted:?}");
    }

    #[test]
    fn who_asks_changes_nothing_though_more_sites_than_there_is_room_for_have_blocks_in_use() {
        let mut blocks = Blocks::new();
        (1..=400).for_each(|site| blocks.add(&life(1000, 1000, site)));
        let alive = |visit: &mut Visit<'_>| (1..=400).for_each(|site| visit(&life(1000, 1000, site)));
        let first = blocks.summary(1, &alive);
        assert!((0..20).all(|_| blocks.summary(1, &alive) == first));
    }

    #[test]
    fn groups_have_their_own_lifetimes_shares_and_sites() {
        let (mut blocks, mut random) = (Blocks::new(), Random::new(4));
        for _ in 0..5000 {
            blocks.add(&life(48, (random.uniform() * 1000.0) as u64, 1));
            blocks.add(&Life { allocs: None, ..life(3000, 50_000 + (random.uniform() * 1000.0) as u64, 2) });
        }
        let summary = blocks.summary(1, &nobody);
        let [small, _, _, page, ..] = summary.groups;
        assert!((small.lifetime_ns[0] / 500.0 - 1.0).abs() < 0.1 && small.lifetime_ns[2] > 950.0, "{small:?}");
        assert!((page.lifetime_ns[0] / 50_500.0 - 1.0).abs() < 0.01, "{page:?}");
        assert_eq!((small.stranger_share, page.stranger_share, page.alive_share), (0.0, 1.0, 0.0));
        assert_eq!((small.blocks, page.bytes, page.up_to_bytes), (500_000.0, 1_500_000_000.0, 4096));
        assert!(
            small.median_allocs.is_some_and(|allocs| (45.0..55.0).contains(&allocs)) && page.median_allocs.is_none()
        );
        let [Some(first), Some(second), None, ..] = summary.sites else { panic!("{:?}", summary.sites) };
        assert_eq!((first.frames[0], second.frames[0], first.seen), (2, 1, 5000));
        assert!(second.lifetime_ns.is_some_and(|[half, late]| half < 550.0 && late > 850.0), "{second:?}");
    }

    /// Half of the blocks are never freed: who looks at freed ones only would say that blocks live for a microsecond.
    #[test]
    fn blocks_in_use_count_with_their_age() {
        let mut blocks = Blocks::new();
        let kept: Vec<Life> = (0..1000).map(|_| life(100, 1_000_000, 5)).collect();
        (0..1000).for_each(|_| blocks.add(&life(100, 1000, 6)));
        for _ in 0..2 {
            let summary = blocks.summary(1, &|visit| kept.iter().for_each(&mut *visit));
            let group = summary.groups[1];
            assert_eq!((group.alive_share, group.blocks, summary.alive), (0.5, 200_000.0, 1000));
            assert!(group.lifetime_ns[1] > 900_000.0, "{group:?}");
            let [Some(first), Some(second), None, ..] = summary.sites else { panic!("{:?}", summary.sites) };
            assert_eq!((first.alive + second.alive, first.blocks, second.blocks), (100_000.0, 100_000.0, 100_000.0));
            assert_eq!(first.lifetime_ns.is_some(), first.alive == 0.0);
        }
        assert_eq!(blocks.summary(1, &nobody).alive, 0);
    }

    #[test]
    fn cleared_blocks_are_new_ones() {
        let mut blocks = Box::new(Blocks::new());
        (0..100).for_each(|number| blocks.add(&life(number * 50, 5, number)));
        blocks.clear();
        assert_eq!(format!("{blocks:?}"), format!("{:?}", Blocks::new()));
    }
}
