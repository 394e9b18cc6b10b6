//! Site rules out of what was seen: which places deserve one, and what it should say.
//!
//! **Which pages.** A site whose big blocks are mostly touched, or hardly, by a few looks. Where all sites are filled there is nothing to
//! say: the allocator finds that out by itself (docs/decisions/0014). Where one is not, its blocks get small pages and the filled ones' huge.
//!
//! **Waiting.** A site that has one block at a time and comes back later than freed memory keeps its pages. What faults cost it
//! is held against the memory that would wait, each as a part of what the program takes, by the weights of the score.
//!
//! **Which calls.** As few, from the innermost on, as tell the site from all that have big blocks and want something else; also from
//! those of which nothing is known.

use hakmem_base::{Frames, SITE_FRAMES};
use hakmem_policy::{Pages, SITE_RULES};

use crate::outlook::{FAULT_NS, HUGE_FAULT_NS};
use crate::score::Weights;
use crate::sites::{Site, Sites};

/// Thousandths of a block from which on it is filled, and below which it is hardly touched: as the box of big blocks has them.
const DENSE_PERMILLE: f64 = 500.0;
const SPARSE_PERMILLE: f64 = 250.0;
/// Looks that make sure.
const LOOKS: u32 = 2;
/// Part of the bytes of all big blocks below which a site is not worth a rule.
const LEAST_SHARE: f64 = 0.01;
/// Times that a site has to come back before its rests are believed, and how many of ten blocks have to.
const RETURNS: u64 = 8;
const RETURNS_IN_TEN: u64 = 8;
/// The longest rest (ns) that is waited for, how many times the usual one is waited, and the longest wait (ms).
const LONGEST_IDLE_NS: f64 = 20e9;
const WAIT_FACTOR: f64 = 3.0;
const LONGEST_WAIT_MS: f64 = 60_000.0;
const WAIT_STEP_MS: f64 = 100.0;
/// A gain (part of the composite cost) below which waiting is not worth a rule.
const LEAST_GAIN: f64 = 0.002;
/// What the kernel takes (ns) for a MiB, and in how many faults.
const MIB: f64 = (1 << 20) as f64;
const SMALL_MIB_FAULTS: f64 = 256.0;
const SMALL_MIB_NS: f64 = SMALL_MIB_FAULTS * FAULT_NS;
const HUGE_MIB_FAULTS: f64 = 0.5;
const HUGE_MIB_NS: f64 = HUGE_MIB_FAULTS * HUGE_FAULT_NS;

/// What the program took while its blocks were watched.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct SiteCosts {
    /// For how long (ns).
    pub elapsed_ns: u64,
    /// CPU time of the process (ns).
    pub cpu_ns: u64,
    /// Its page faults.
    pub page_faults: u64,
    /// Resident memory, in the mean.
    pub resident_bytes: u64,
    /// How long (ms) freed memory keeps its pages anyway; `u32::MAX`: for ever.
    pub purge_delay_ms: u32,
    /// What counts how much.
    pub weights: Weights,
}

/// A site that deserves a rule, and why.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SiteHint {
    /// The calls, innermost first; the first `depth` of them make the rule.
    pub frames: Frames,
    /// How many calls the rule has to name.
    pub depth: usize,
    /// Smallest and largest block that was seen, rounded to powers of two.
    pub bytes: [usize; 2],
    /// Which pages its blocks are to have.
    pub pages: Option<Pages>,
    /// How long (ms) a freed one is to wait; 0: not at all.
    pub keep_ms: u32,
    /// Blocks allocated, and their bytes.
    pub blocks: f64,
    /// Their bytes.
    pub allocated_bytes: f64,
    /// Freed ones that were seen.
    pub seen: u64,
    /// Looks at how much of them was touched; one that had lived for a second counts twice.
    pub looks: u32,
    /// What these said, in the mean (thousandths).
    pub touched_permille: Option<f64>,
    /// Times that it came back after the one before had been freed.
    pub returns: u64,
    /// How long after, in the middle (ns).
    pub idle_ns: Option<f64>,
}

/// What a site wants.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Wish {
    pages: Option<Pages>,
    waits: bool,
}

/// Shows the hints, most bytes first.
pub(crate) fn derive(sites: &Sites, costs: &SiteCosts, visit: &mut dyn FnMut(&SiteHint)) {
    let all_bytes: f64 = sites.iter().map(|site| site.big.bytes()).sum();
    let is_mixed = sites.iter().any(|site| density_of(site, all_bytes) == Some(Pages::Small));
    let wish = |site: &Site| Wish {
        pages: density_of(site, all_bytes).filter(|_| is_mixed),
        waits: wait_ms(site, costs, all_bytes) > 0,
    };
    let mut below = (f64::INFINITY, 0);
    for _ in 0..SITE_RULES {
        // The next site by bytes; of equals by place in the table.
        let next = sites
            .iter()
            .enumerate()
            .map(|(number, site)| (site.big.bytes(), number, site))
            .filter(|(bytes, number, _)| *bytes < below.0 || *bytes == below.0 && *number > below.1)
            .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        let Some((bytes, number, site)) = next.filter(|(bytes, ..)| *bytes > 0.0) else { return };
        below = (bytes, number);
        let wanted = wish(site);
        if wanted == Wish::default() {
            continue;
        }
        let alike = |depth: usize| {
            let calls = site.frames.get(..depth);
            sites.iter().filter(move |other| other.big.blocks() > 0.0 && other.frames.get(..depth) == calls)
        };
        let longest = site.frames.iter().position(|frame| *frame == 0).unwrap_or(SITE_FRAMES);
        let Some(depth) = (1..=longest).find(|depth| alike(*depth).all(|other| wish(other) == wanted)) else {
            continue;
        };
        // The first of those with these calls speaks for all of them.
        let is_first = !alike(depth).any(|other| {
            other.big.bytes() > bytes
                || other.big.bytes() == bytes && core::ptr::from_ref(other) < core::ptr::from_ref(site)
        });
        if is_first {
            visit(&hint_of(site, alike(depth), depth, wanted, |other| wait_ms(other, costs, all_bytes)));
        }
    }
}

/// The hint for sites whose first `depth` calls are those of `site`.
fn hint_of<'a>(
    site: &Site,
    alike: impl Iterator<Item = &'a Site>,
    depth: usize,
    wanted: Wish,
    wait_ms: impl Fn(&Site) -> u32,
) -> SiteHint {
    let mut hint = SiteHint {
        frames: site.frames,
        depth,
        bytes: [usize::MAX, 0],
        pages: wanted.pages,
        keep_ms: 0,
        blocks: 0.0,
        allocated_bytes: 0.0,
        seen: 0,
        looks: 0,
        touched_permille: None,
        returns: 0,
        idle_ns: site.big.idle_ns.get(),
    };
    let [mut least, mut most] = hint.bytes;
    let mut touched = 0.0;
    for site in alike {
        let big = &site.big;
        (least, most) = (least.min(big.least_bytes), most.max(big.most_bytes));
        hint.keep_ms = hint.keep_ms.max(if wanted.waits { wait_ms(site) } else { 0 });
        hint.blocks += big.blocks();
        hint.allocated_bytes += big.bytes();
        hint.seen += big.seen;
        hint.looks += big.looks();
        hint.returns += big.returns;
        touched += big.touched_permille().unwrap_or(0.0) * f64::from(big.looks());
    }
    hint.touched_permille = (hint.looks > 0).then(|| touched / f64::from(hint.looks));
    hint.bytes = [least.checked_ilog2().map_or(0, |log| 1 << log), most.checked_next_power_of_two().unwrap_or(most)];
    hint
}

/// Which pages fit a site's blocks, if that is known.
fn density_of(site: &Site, all_bytes: f64) -> Option<Pages> {
    let big = &site.big;
    let permille = big.touched_permille().filter(|_| big.looks() >= LOOKS && big.bytes() >= all_bytes * LEAST_SHARE)?;
    if permille >= DENSE_PERMILLE {
        Some(Pages::Huge)
    } else if permille < SPARSE_PERMILLE {
        Some(Pages::Small)
    } else {
        None
    }
}

/// How long (ms) a freed block of the site should wait for the next one; 0: not at all.
fn wait_ms(site: &Site, costs: &SiteCosts, all_bytes: f64) -> u32 {
    let big = &site.big;
    let comes_back = big.returns >= RETURNS && big.returns * 10 >= (big.returns + big.overlaps) * RETURNS_IN_TEN;
    let delay_ns = f64::from(costs.purge_delay_ms) * 1e6;
    let Some(idle_ns) = big.idle_ns.get().filter(|idle_ns| {
        let is_short = costs.purge_delay_ms != u32::MAX && *idle_ns > delay_ns && *idle_ns <= LONGEST_IDLE_NS;
        comes_back && is_short && big.bytes() >= all_bytes * LEAST_SHARE
    }) else {
        return 0;
    };
    // What nobody has looked at is taken for filled: that is what most buffers are.
    let touched = big.touched_permille().unwrap_or(1000.0) / 1000.0;
    let block_bytes = touched * big.bytes() / big.blocks().max(1.0);
    let is_huge = touched * 1000.0 >= DENSE_PERMILLE;
    let (mib_ns, mib_faults) = if is_huge { (HUGE_MIB_NS, HUGE_MIB_FAULTS) } else { (SMALL_MIB_NS, SMALL_MIB_FAULTS) };
    let mib = big.blocks() * block_bytes / MIB;
    let weights = &costs.weights;
    let cpu = (mib * mib_ns / costs.cpu_ns.max(1) as f64).min(1.0);
    let faults = (mib * mib_faults / costs.page_faults.max(1) as f64).min(1.0);
    let gain = weights.cpu * cpu + weights.faults * faults;
    // One block at a time waits, for the part of a rest that its pages would not be there.
    let waiting = (big.blocks() * (idle_ns - delay_ns) / costs.elapsed_ns.max(1) as f64).min(1.0);
    let loss = weights.memory * block_bytes * waiting / (costs.resident_bytes as f64).max(block_bytes).max(1.0);
    if gain - loss < LEAST_GAIN {
        return 0;
    }
    let steps = (idle_ns * WAIT_FACTOR / 1e6 / WAIT_STEP_MS) as u32 + 1;
    (steps * WAIT_STEP_MS as u32).min(LONGEST_WAIT_MS as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hakmem_base::Life;

    const MS: u64 = 1_000_000;
    const BLOCK: usize = 32 << 20;
    const COSTS: SiteCosts = SiteCosts {
        elapsed_ns: 100_000 * MS,
        cpu_ns: 10_000 * MS,
        page_faults: 100_000,
        resident_bytes: 500 << 20,
        purge_delay_ms: 300,
        weights: Weights { cpu: 0.4, faults: 0.3, memory: 0.3 },
    };

    fn frames(calls: &[usize]) -> Frames {
        let mut frames = [0; SITE_FRAMES];
        frames.iter_mut().zip(calls).for_each(|(frame, call)| *frame = *call);
        frames
    }

    /// `count` blocks, one each `period_ms`, that live for `ms` and of which so much is touched.
    fn blocks(sites: &mut Sites, calls: &[usize], count: u64, period_ms: u64, ms: u64, touched: Option<u16>) {
        for round in 0..count {
            let life =
                Life { bytes: BLOCK, weight: 1, frames: frames(calls), touched_permille: touched, ..Life::default() };
            sites.add(&Life { ns: ms * MS, at_ns: (round * period_ms + ms) * MS, ..life });
        }
    }

    fn derived(sites: &Sites) -> Vec<(Vec<usize>, Option<Pages>, u32)> {
        let mut found = Vec::new();
        derive(sites, &COSTS, &mut |hint| found.push((hint.frames[..hint.depth].to_vec(), hint.pages, hint.keep_ms)));
        found
    }

    #[test]
    fn places_that_touch_little_and_places_that_fill_their_blocks_get_the_pages_for_it() {
        let mut sites = Sites::new();
        blocks(&mut sites, &[1, 8, 9], 6, 10, 5, Some(15));
        blocks(&mut sites, &[2, 8, 9], 5, 10, 5, Some(1000));
        blocks(&mut sites, &[3, 8, 9], 4, 10, 5, Some(400));
        blocks(&mut sites, &[4, 8, 9], 3, 10, 5, None);
        assert_eq!(derived(&sites), [(vec![1], Some(Pages::Small), 0), (vec![2], Some(Pages::Huge), 0)]);
    }

    #[test]
    fn where_all_are_filled_nothing_is_said() {
        let mut sites = Sites::new();
        blocks(&mut sites, &[1], 5, 10, 5, Some(900));
        blocks(&mut sites, &[2], 5, 10, 5, Some(1000));
        assert_eq!(derived(&sites), []);
        let mut sites = Sites::new();
        blocks(&mut sites, &[1], 1, 10, 5, Some(10));
        assert_eq!(derived(&sites), [], "one look at a short life is not enough");
        blocks(&mut sites, &[1], 1, 10, 2000, Some(10));
        assert_eq!(derived(&sites).len(), 1);
    }

    /// All blocks come through one function of the program's own; a third place wants nothing, and a fourth what the first does.
    #[test]
    fn a_rule_names_as_few_calls_as_tell_its_place_from_the_others() {
        let mut sites = Sites::new();
        blocks(&mut sites, &[1, 10, 100], 6, 10, 5, Some(15));
        blocks(&mut sites, &[1, 10, 101], 5, 10, 5, Some(20));
        blocks(&mut sites, &[1, 11, 100], 5, 10, 5, Some(1000));
        blocks(&mut sites, &[1, 12, 100], 5, 10, 5, None);
        assert_eq!(derived(&sites), [(vec![1, 10], Some(Pages::Small), 0), (vec![1, 11], Some(Pages::Huge), 0)]);
        // Small blocks of a place say nothing about what big ones want.
        sites.add(&Life { bytes: 100, weight: 1_000_000, frames: frames(&[1, 10, 102]), ..Life::default() });
        assert_eq!(derived(&sites).len(), 2);
    }

    #[test]
    fn a_hint_adds_up_what_was_seen_of_all_places_that_its_calls_stand_for() {
        let mut sites = Sites::new();
        blocks(&mut sites, &[1, 100], 6, 10, 5, Some(15));
        blocks(&mut sites, &[2, 100], 5, 10, 5, Some(1000));
        let of = |calls: &[usize], bytes, weight| Life {
            bytes,
            weight,
            frames: frames(calls),
            touched_permille: Some(60),
            ns: 5 * MS,
            at_ns: 1000 * MS,
            ..Life::default()
        };
        // Blocks of other sizes, of which one stands for four; and a place with the same innermost call.
        sites.add(&of(&[1, 101], 5 << 20, 4));
        sites.add(&of(&[1, 101], 40 << 20, 1));
        let mut hints = Vec::new();
        derive(&sites, &COSTS, &mut |hint| hints.push(*hint));
        let hint = hints.iter().find(|hint| hint.pages == Some(Pages::Small)).unwrap();
        assert_eq!((&hint.frames[..hint.depth], hint.bytes), ([1].as_slice(), [4 << 20, 64 << 20]));
        assert_eq!((hint.blocks, hint.allocated_bytes), (11.0, ((6 * 32 + 4 * 5 + 40) << 20) as f64));
        assert_eq!((hint.seen, hint.looks), (8, 8));
        assert_eq!(hint.touched_permille, Some((6.0 * 15.0 + 2.0 * 60.0) / 8.0));
    }

    #[test]
    fn a_block_that_comes_back_after_its_pages_have_gone_waits() {
        let mut sites = Sites::new();
        blocks(&mut sites, &[1], 50, 1000, 100, Some(1000));
        // At once; for ever; all at a time; and not often enough to say.
        blocks(&mut sites, &[2], 50, 200, 100, Some(1000));
        blocks(&mut sites, &[3], 10, 30_000, 100, Some(1000));
        blocks(&mut sites, &[4], 50, 1000, 1500, Some(1000));
        blocks(&mut sites, &[5], 5, 1000, 100, Some(1000));
        assert_eq!(derived(&sites), [(vec![1], None, 2800)]);
    }

    #[test]
    fn what_waits_has_to_be_worth_its_memory() {
        let mut sites = Sites::new();
        blocks(&mut sites, &[1], 50, 1000, 100, Some(1000));
        let found = |costs: &SiteCosts| {
            let mut count = 0;
            derive(&sites, costs, &mut |_| count += 1);
            count
        };
        assert_eq!(found(&COSTS), 1);
        assert_eq!(found(&SiteCosts { resident_bytes: 40 << 20, ..COSTS }), 0, "the program is hardly larger");
        let weights = Weights::with_memory_permille(0);
        assert_eq!(found(&SiteCosts { resident_bytes: 40 << 20, weights, ..COSTS }), 1, "which is nobody's concern");
        assert_eq!(found(&SiteCosts { purge_delay_ms: u32::MAX, ..COSTS }), 0, "its pages stay anyway");
        assert_eq!(found(&SiteCosts { purge_delay_ms: 1000, ..COSTS }), 0, "they stay for long enough");
        assert_eq!(
            found(&SiteCosts { cpu_ns: 1_000_000 * MS, page_faults: 10_000_000, ..COSTS }),
            0,
            "its faults are nothing beside what the program does"
        );
    }
}
