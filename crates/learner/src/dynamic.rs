//! The controller of dynamic classes (DYN1, DYN2): which are in force, by what is live.
//!
//! What a class saves follows from the sizes of the blocks that live and needs no trial: a class that nobody asks for costs nothing, and
//! what one saves is known from what the same blocks would take in the fixed classes. So classes are not tried but counted, at looks at the
//! blocks that are alive. A class comes into force when it has been worth it at several looks in a row, and leaves it when it has not been
//! for longer: between the two shares lies room for a program whose sizes sway, and for the error of counting few blocks.
//!
//! How many blocks live is counted, by fixed class; which sizes these have, refills tell: what makes a class grow comes from them. Watched
//! blocks would not do: one in so many allocations is watched, and of large blocks there are few.
//!
//! **Not here.** Where the sizes come from, what a class is, and how it comes and goes (docs/decisions/0009-dynamic-classes.md).

use crate::sizes::Sizes;
use hakmem_base::{CLASS_COUNT, SizeClass};
use hakmem_policy::{FrozenPolicy, SIZES};

/// Part of the program's live bytes that a class must save to come into force, and below which it leaves it.
const ENTERS: f64 = 0.01;
const LEAVES: f64 = 0.0025;
/// Bytes that it must save: less is not worth the OS pages that its bins take in each thread.
const LEAST_BYTES: f64 = 256.0 * 1024.0;
/// Looks in a row that it takes for one and for the other.
const LOOKS_TO_ENTER: u32 = 3;
const LOOKS_TO_LEAVE: u32 = 12;
/// How much more another class of the same gap must save to take the place of the one in force.
const BETTER: f64 = 1.25;
/// What is left at a look of what former looks saw of sizes that there is news of.
const KEPT: f64 = 0.5;
/// Dynamic classes that are asked for at a time, at most: DYN1, DYN2 and two more. The boot policy may have more.
const MOST: usize = 4;

/// A class and for how many looks in a row it has been asked for, or in vain.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Entry {
    class: SizeClass,
    looks: u32,
}

/// What is known of the sizes of live blocks, and the classes that follow from it.
#[derive(Clone, Debug)]
pub(crate) struct DynamicClasses {
    seen: Sizes,
    /// The same in the numbers of the latest look.
    live: Sizes,
    /// In force; `looks` in which they were worth too little.
    chosen: [Option<Entry>; SIZES],
    /// Not yet; `looks` in which they were worth it.
    rising: [Option<Entry>; MOST],
    /// Whether there was ever a look.
    is_known: bool,
}

impl DynamicClasses {
    /// Nothing is known; what the boot policy has in force stays until looks say that it is in vain.
    pub(crate) fn new(boot: &FrozenPolicy) -> Self {
        let (mut chosen, mut last) = ([None; SIZES], None);
        let classes = boot.dynamic_classes.iter().filter_map(|bytes| SizeClass::dynamic(*bytes as usize));
        // Sizes next to each other may be of one class.
        let classes = classes.filter(|class| last.replace(*class) != Some(*class));
        chosen.iter_mut().zip(classes).for_each(|(place, class)| *place = Some(Entry { class, looks: 0 }));
        Self { seen: Sizes::new(), live: Sizes::new(), chosen, rising: [None; MOST], is_known: false }
    }

    /// Whether it says anything.
    pub(crate) const fn is_active(&self) -> bool {
        self.is_known
    }

    /// Takes a look at a program with so many live bytes: `blocks` live of the sizes of each fixed class, and `asked` is what refills were
    /// asked for since the last look.
    pub(crate) fn look(&mut self, live_bytes: u64, blocks: &[u64; CLASS_COUNT], asked: &Sizes) {
        self.is_known = true;
        self.seen.follow(asked, KEPT);
        self.live = self.seen.scaled_to(blocks);
        let share = |bytes: f64| if live_bytes == 0 { 0.0 } else { bytes / live_bytes as f64 };
        for place in &mut self.chosen {
            if let Some(entry) = place {
                let is_idle = share(self.live.saved_by(entry.class)) < LEAVES;
                entry.looks = if is_idle { entry.looks + 1 } else { 0 };
                if entry.looks >= LOOKS_TO_LEAVE {
                    *place = None;
                }
            }
        }
        let before = core::mem::take(&mut self.rising);
        for (place, found) in self.live.dynamic_classes::<MOST>().into_iter().flatten().enumerate() {
            let Some(class) = SizeClass::dynamic(found.block_bytes) else { continue };
            if share(found.saved_bytes) < ENTERS || found.saved_bytes < LEAST_BYTES || !self.is_news(class) {
                continue;
            }
            let known = before.iter().flatten().find(|entry| entry.class == class);
            let looks = known.map_or(1, |entry| entry.looks + 1);
            if looks < LOOKS_TO_ENTER {
                if let Some(place) = self.rising.get_mut(place) {
                    *place = Some(Entry { class, looks });
                }
            } else {
                self.enter(class);
            }
        }
    }

    /// Whether no class in force serves nearly as well. The boot policy may have several of one gap.
    fn is_news(&self, class: SizeClass) -> bool {
        let mut rivals = self.chosen.iter().flatten().filter(|entry| entry.class.fixed() == class.fixed());
        rivals.all(|rival| self.live.saved_by(class) > BETTER * self.live.saved_by(rival.class))
    }

    /// In the place of one of the same gap, else in a free one.
    fn enter(&mut self, class: SizeClass) {
        let is_rival = |place: &Option<Entry>| place.is_some_and(|entry| entry.class.fixed() == class.fixed());
        let is_full = self.chosen.iter().flatten().count() >= MOST;
        let free = self.chosen.iter().position(Option::is_none).filter(|_| !is_full);
        let place = self.chosen.iter().position(is_rival).or(free);
        if let Some(place) = place.and_then(|place| self.chosen.get_mut(place)) {
            *place = Some(Entry { class, looks: 0 });
        }
    }

    /// Puts the classes into a policy.
    pub(crate) fn apply(&self, policy: &mut FrozenPolicy) {
        if !self.is_known {
            return;
        }
        let mut sizes = [0_u32; SIZES];
        let chosen = self.chosen.iter().flatten().filter_map(|entry| u32::try_from(entry.class.block_bytes()).ok());
        sizes.iter_mut().zip(chosen).for_each(|(size, bytes)| *size = bytes);
        // Zeros are behind the last one.
        sizes.sort_unstable_by_key(|size| if *size == 0 { u32::MAX } else { *size });
        policy.dynamic_classes = sizes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: u64 = 64 << 20;

    /// A look at so many live blocks of a size, which three refills were for.
    fn look(classes: &mut DynamicClasses, bytes: usize, blocks: u64) {
        let mut by_class = [0; CLASS_COUNT];
        by_class[SizeClass::for_bytes(bytes).unwrap().index()] = blocks;
        let mut asked = Sizes::new();
        asked.record(bytes, 3.0);
        classes.look(LIVE, &by_class, &asked);
    }

    #[test]
    fn classes_of_the_boot_policy_stay_however_many_they_are() {
        let sizes = [1100, 1400, 2200, 2900, 4400, 5600, 8800, 11_200].map(|bytes| {
            let fixed = SizeClass::for_bytes(bytes).unwrap();
            let gap = SizeClass::all_dynamic().filter(|class| class.fixed() == fixed);
            gap.map(|class| class.block_bytes() as u32).next().unwrap()
        });
        let boot = FrozenPolicy { dynamic_classes: sizes, ..FrozenPolicy::DEFAULT };
        assert_eq!(boot.validate(), Ok(()));
        let mut classes = DynamicClasses::new(&boot);
        look(&mut classes, 100, 1);
        assert_eq!(in_force(&classes), sizes);
    }

    fn in_force(classes: &DynamicClasses) -> Vec<u32> {
        let mut policy = FrozenPolicy::DEFAULT;
        classes.apply(&mut policy);
        assert_eq!(policy.validate(), Ok(()));
        policy.dynamic_classes.into_iter().filter(|bytes| *bytes != 0).collect()
    }

    #[test]
    fn a_peak_that_lasts_gets_a_class_and_one_that_passes_does_not() {
        let mut classes = DynamicClasses::new(&FrozenPolicy::DEFAULT);
        look(&mut classes, 4360, 8000);
        look(&mut classes, 4360, 8000);
        assert_eq!(in_force(&classes), []);
        look(&mut classes, 4360, 8000);
        look(&mut classes, 4360, 8000);
        assert_eq!(in_force(&classes), [4368]);
    }

    #[test]
    fn a_class_leaves_force_when_its_blocks_have_gone_and_not_before() {
        let mut classes = DynamicClasses::new(&FrozenPolicy::DEFAULT);
        (0..5).for_each(|_| look(&mut classes, 4360, 8000));
        // Half of it is gone, which would not bring it into force, but keeps it there.
        (0..50).for_each(|_| look(&mut classes, 4360, 1500));
        assert_eq!(in_force(&classes), [4368]);
        (0..30).for_each(|_| look(&mut classes, 64, 8000));
        assert_eq!(in_force(&classes), []);
    }

    #[test]
    fn what_saves_little_of_the_live_bytes_gets_no_class() {
        let mut classes = DynamicClasses::new(&FrozenPolicy::DEFAULT);
        (0..20).for_each(|_| look(&mut classes, 4360, 800));
        assert_eq!(in_force(&classes), []);
        // A size that the fixed class serves as well.
        (0..20).for_each(|_| look(&mut classes, 4600, 80_000));
        assert_eq!(in_force(&classes), []);
    }

    #[test]
    fn the_peak_of_a_gap_may_move() {
        let mut classes = DynamicClasses::new(&FrozenPolicy::DEFAULT);
        (0..5).for_each(|_| look(&mut classes, 4360, 8000));
        (0..20).for_each(|_| look(&mut classes, 4100, 9000));
        assert_eq!(in_force(&classes), [4224]);
    }

    fn booted(sizes: &[u32]) -> DynamicClasses {
        let mut dynamic_classes = [0; SIZES];
        dynamic_classes.iter_mut().zip(sizes).for_each(|(place, size)| *place = *size);
        let boot = FrozenPolicy { dynamic_classes, ..FrozenPolicy::DEFAULT };
        assert_eq!(boot.validate(), Ok(()));
        DynamicClasses::new(&boot)
    }

    #[test]
    fn two_sizes_of_the_boot_policy_may_be_of_one_class_and_two_of_its_classes_of_one_gap() {
        let mut classes = booted(&[4360, 4365]);
        look(&mut classes, 4360, 8000);
        assert_eq!(in_force(&classes), [4368]);
        let mut classes = booted(&[4200, 4360]);
        (0..5).for_each(|_| look(&mut classes, 4360, 8000));
        assert_eq!(in_force(&classes), [4224, 4368]);
        (0..10).for_each(|_| look(&mut classes, 4360, 8000));
        assert_eq!(in_force(&classes), [4368]);
    }

    #[test]
    fn what_the_boot_policy_has_in_force_stays_while_it_is_of_use() {
        let mut classes = booted(&[4360, 8400]);
        (0..30).for_each(|_| look(&mut classes, 4360, 8000));
        assert_eq!(in_force(&classes), [4368]);
    }
}
