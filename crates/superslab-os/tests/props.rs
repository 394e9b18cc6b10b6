//! Random actions against a plain model that remembers every unit.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use hakmem_base::{SLAB_BYTES, SLABS_PER_SUPERSLAB, SUPERSLAB_BYTES, SlabIndex};
use hakmem_superslab_os::{OsPolicy, Purge, SuperslabOs, WindowConfig};
use hakmem_testkit::cases;
use proptest::prelude::*;
use std::collections::BTreeMap;

const PAGE: usize = 4096;
const WINDOW_BYTES: usize = 32 << 20;

#[derive(Clone, Debug)]
enum Action {
    TakeRun { units: u32, align_shift: u32 },
    GiveRun { pick: usize },
    GrowRun { pick: usize, more: u32 },
    ShrinkRun { pick: usize, keep: u32 },
    TakeExtent { superslabs: u32, room: u32, align_shift: u32 },
    GiveExtent { pick: usize, purge: Purge },
    GrowExtent { pick: usize, more: u32 },
    ShrinkExtent { pick: usize, keep: u32 },
    Move { from: usize, to: usize },
    Decommit { pick: usize },
    PurgeAll,
    Policy { tiering: bool, warm: u32, delay_ms: u32, eager: bool, prefill: u32 },
}

fn action() -> impl Strategy<Value = Action> {
    let purge = prop_oneof![Just(Purge::Now), Just(Purge::Later)];
    let delay = prop_oneof![Just(0_u32), Just(1), Just(300), Just(u32::MAX)];
    let policy = (any::<bool>(), 0_u32..3, delay, any::<bool>(), 0_u32..6);
    prop_oneof![
        8 => (1_u32..=9, 0_u32..=3).prop_map(|(units, align_shift)| Action::TakeRun { units, align_shift }),
        2 => (10_u32..=32, 0_u32..=5).prop_map(|(units, align_shift)| Action::TakeRun { units, align_shift }),
        7 => any::<usize>().prop_map(|pick| Action::GiveRun { pick }),
        3 => (any::<usize>(), 1_u32..9).prop_map(|(pick, more)| Action::GrowRun { pick, more }),
        2 => (any::<usize>(), 0_u32..9).prop_map(|(pick, keep)| Action::ShrinkRun { pick, keep }),
        3 => (1_u32..4, 0_u32..3, 0_u32..3)
            .prop_map(|(superslabs, room, align_shift)| Action::TakeExtent { superslabs, room, align_shift }),
        2 => (any::<usize>(), purge).prop_map(|(pick, purge)| Action::GiveExtent { pick, purge }),
        2 => (any::<usize>(), 1_u32..4).prop_map(|(pick, more)| Action::GrowExtent { pick, more }),
        1 => (any::<usize>(), 1_u32..4).prop_map(|(pick, keep)| Action::ShrinkExtent { pick, keep }),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(from, to)| Action::Move { from, to }),
        1 => any::<usize>().prop_map(|pick| Action::Decommit { pick }),
        1 => Just(Action::PurgeAll),
        1 => policy.prop_map(|(tiering, warm, delay_ms, eager, prefill)| {
            Action::Policy { tiering, warm, delay_ms, eager, prefill }
        }),
    ]
}

/// Who holds what. Each held unit carries a tag of its own in one of its OS pages.
#[derive(Default)]
struct Model {
    runs: Vec<(SlabIndex, u32)>,
    extents: Vec<(SlabIndex, u32)>,
    tags: BTreeMap<u32, u8>,
    next_tag: u8,
}

struct Run<'a> {
    os: &'a SuperslabOs,
    model: Model,
}

impl Run<'_> {
    fn page(&self, unit: u32, page: usize) -> *mut u8 {
        self.os.address_of(SlabIndex::new(unit)).wrapping_add(page * PAGE)
    }

    fn peek(&self, unit: u32, page: usize) -> u8 {
        // SAFETY: called for units that the model holds.
        unsafe { self.page(unit, page).read() }
    }

    fn tag_page(tag: u8) -> usize {
        tag as usize % (SLAB_BYTES / PAGE)
    }

    /// Adds units to the model: nobody may hold them, and what is reported clean must read as zero.
    fn hold(&mut self, first: u32, units: u32, is_clean: impl Fn(u32) -> bool) {
        for unit in first..first + units {
            assert!(unit >= SLABS_PER_SUPERSLAB && (unit as usize) < WINDOW_BYTES / SLAB_BYTES);
            if is_clean(unit - first) {
                assert!((0..SLAB_BYTES / PAGE).all(|page| self.peek(unit, page) == 0), "unit {unit} is not clean");
            }
            self.model.next_tag = self.model.next_tag % 250 + 1;
            let tag = self.model.next_tag;
            // SAFETY: the unit was just handed out to this test.
            unsafe { self.page(unit, Self::tag_page(tag)).write(tag) };
            assert!(self.model.tags.insert(unit, tag).is_none(), "unit {unit} is held twice");
        }
    }

    /// Removes units from the model: their tags must still be there.
    fn release(&mut self, first: u32, units: u32) {
        for unit in first..first + units {
            let tag = self.model.tags.remove(&unit).unwrap();
            assert_eq!(self.peek(unit, Self::tag_page(tag)), tag, "unit {unit} lost its content");
        }
    }

    fn retag(&mut self, first: u32, units: u32) {
        for unit in first..first + units {
            let tag = self.model.tags[&unit];
            // SAFETY: the model holds the unit.
            unsafe { self.page(unit, Self::tag_page(tag)).write(tag) };
        }
    }

    fn step(&mut self, action: &Action) {
        let os = self.os;
        match *action {
            Action::TakeRun { units, align_shift } => {
                let Some(run) = os.take_run(units, 1 << align_shift) else { return };
                assert_eq!(run.first.get() % (1 << align_shift), 0);
                assert!(run.first.slot() + units <= SLABS_PER_SUPERSLAB);
                self.hold(run.first.get(), units, |unit| run.clean & (1 << unit) != 0);
                self.model.runs.push((run.first, units));
            }
            Action::GiveRun { pick } => {
                let Some(at) = pick.checked_rem(self.model.runs.len()) else { return };
                let (first, units) = self.model.runs.swap_remove(at);
                self.release(first.get(), units);
                os.give_run(first, units);
            }
            Action::GrowRun { pick, more } => {
                let Some(at) = pick.checked_rem(self.model.runs.len()) else { return };
                let (first, units) = self.model.runs[at];
                let behind = first.get() + units;
                let fits = first.slot() + units + more <= SLABS_PER_SUPERSLAB
                    && (behind..behind + more).all(|unit| !self.model.tags.contains_key(&unit));
                let grown = os.grow_run(first, units, units + more);
                assert_eq!(grown.is_some(), fits, "grows exactly if the units behind are free");
                if let Some(clean) = grown {
                    self.hold(behind, more, |unit| clean & (1 << unit) != 0);
                    self.model.runs[at].1 += more;
                }
            }
            Action::ShrinkRun { pick, keep } => {
                let Some(at) = pick.checked_rem(self.model.runs.len()) else { return };
                let (first, units) = self.model.runs[at];
                if keep < units {
                    self.release(first.get() + keep, units - keep);
                    os.shrink_run(first, units, keep);
                    self.model.runs[at].1 = keep;
                    self.model.runs.retain(|&(_, units)| units > 0);
                }
            }
            Action::TakeExtent { superslabs, room, align_shift } => {
                let Some(extent) = os.take_extent(superslabs, room, 1 << align_shift) else { return };
                assert_eq!(os.address_of(extent.first).addr() % (SUPERSLAB_BYTES << align_shift), 0);
                self.hold(extent.first.get(), superslabs * SLABS_PER_SUPERSLAB, |_| extent.zeroed);
                self.model.extents.push((extent.first, superslabs));
            }
            Action::GiveExtent { pick, purge } => {
                let Some(at) = pick.checked_rem(self.model.extents.len()) else { return };
                let (first, superslabs) = self.model.extents.swap_remove(at);
                self.release(first.get(), superslabs * SLABS_PER_SUPERSLAB);
                os.give_extent(first, superslabs, purge);
            }
            Action::GrowExtent { pick, more } => {
                let Some(at) = pick.checked_rem(self.model.extents.len()) else { return };
                let (first, superslabs) = self.model.extents[at];
                let behind = first.get() + superslabs * SLABS_PER_SUPERSLAB;
                let units = more * SLABS_PER_SUPERSLAB;
                let fits = (behind + units) as usize <= WINDOW_BYTES / SLAB_BYTES
                    && (behind..behind + units).all(|unit| !self.model.tags.contains_key(&unit));
                let grown = os.grow_extent(first, superslabs, superslabs + more);
                assert_eq!(grown.is_some(), fits, "grows exactly if the superslabs behind are free");
                if let Some(zeroed) = grown {
                    self.hold(behind, units, |_| zeroed);
                    self.model.extents[at].1 += more;
                }
            }
            Action::ShrinkExtent { pick, keep } => {
                let Some(at) = pick.checked_rem(self.model.extents.len()) else { return };
                let (first, superslabs) = self.model.extents[at];
                if keep < superslabs {
                    let behind = first.get() + keep * SLABS_PER_SUPERSLAB;
                    self.release(behind, (superslabs - keep) * SLABS_PER_SUPERSLAB);
                    os.shrink_extent(first, superslabs, keep);
                    self.model.extents[at].1 = keep;
                }
            }
            Action::Move { from, to } => {
                let count = self.model.extents.len();
                let (Some(from), Some(to)) = (from.checked_rem(count), to.checked_rem(count)) else { return };
                let ((source, a), (target, b)) = (self.model.extents[from], self.model.extents[to]);
                let superslabs = a.min(b);
                if from != to && os.move_pages(source, target, superslabs as usize * SUPERSLAB_BYTES) {
                    for unit in 0..superslabs * SLABS_PER_SUPERSLAB {
                        let tag = self.model.tags[&(source.get() + unit)];
                        assert_eq!(self.peek(target.get() + unit, Self::tag_page(tag)), tag, "the content arrived");
                        assert!((0..SLAB_BYTES / PAGE).all(|page| self.peek(source.get() + unit, page) == 0));
                    }
                    self.retag(source.get(), superslabs * SLABS_PER_SUPERSLAB);
                    self.retag(target.get(), superslabs * SLABS_PER_SUPERSLAB);
                }
            }
            Action::Decommit { pick } => {
                let Some(at) = pick.checked_rem(self.model.runs.len()) else { return };
                let (first, units) = self.model.runs[at];
                if os.decommit(first, 1, units as usize * SLAB_BYTES - 1) {
                    let others = (0..units).flat_map(|unit| (0..SLAB_BYTES / PAGE).map(move |page| (unit, page)));
                    assert!(others.skip(1).all(|(unit, page)| self.peek(first.get() + unit, page) == 0));
                    self.retag(first.get(), units);
                }
            }
            Action::PurgeAll => {
                os.purge_all();
                assert_eq!(os.purgeable_bytes(), 0);
            }
            Action::Policy { tiering, warm, delay_ms, eager, prefill } => os.set_policy(OsPolicy {
                tiering,
                warm_superslabs: warm,
                purge_delay_ms: delay_ms,
                eager_free: eager,
                prefill_superslabs: prefill,
                thp_heap_bytes: usize::MAX,
                ..OsPolicy::default()
            }),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(96), ..ProptestConfig::default() })]

    #[test]
    fn no_unit_is_shared_lost_or_wrongly_clean(actions in proptest::collection::vec(action(), 1..if cfg!(miri) { 20 } else { 120 })) {
        let os = SuperslabOs::new();
        os.set_policy(OsPolicy { thp_heap_bytes: usize::MAX, ..OsPolicy::default() });
        let window = os.reserve(WindowConfig { bytes: WINDOW_BYTES });
        prop_assert!(window.is_some());
        let mut run = Run { os: &os, model: Model::default() };
        for action in &actions {
            run.step(action);
            os.check_invariants();
            let stats = os.stats();
            prop_assert_eq!(stats.in_use_bytes, run.model.tags.len() * SLAB_BYTES);
            prop_assert!(stats.in_use_bytes + stats.free_dirty_bytes <= stats.committed_bytes);
        }
        for (first, units) in core::mem::take(&mut run.model.runs) {
            run.release(first.get(), units);
            os.give_run(first, units);
        }
        for (first, superslabs) in core::mem::take(&mut run.model.extents) {
            run.release(first.get(), superslabs * SLABS_PER_SUPERSLAB);
            os.give_extent(first, superslabs, Purge::Later);
        }
        os.purge_all();
        os.check_invariants();
        let stats = os.stats();
        prop_assert_eq!((stats.in_use_bytes, stats.free_dirty_bytes, stats.outside_range), (0, 0, 0));
        prop_assert_eq!(stats.free_clean_superslabs as usize * SUPERSLAB_BYTES, stats.committed_bytes);
        let everything = (WINDOW_BYTES / SUPERSLAB_BYTES) as u32 - 1;
        prop_assert_eq!(os.take_extent(everything, 0, 1).map(|extent| extent.zeroed), Some(true));
    }
}
