//! Arithmetic on the bitmap of one superslab: bit `i` stands for unit `i`.

use hakmem_base::SLABS_PER_SUPERSLAB;

/// All units of a superslab.
pub(crate) const ALL: u32 = u32::MAX;

/// The bits of `units` units from `slot` on; what would lie beyond the superslab is cut off.
pub(crate) const fn mask(slot: u32, units: u32) -> u32 {
    let ones = if units >= SLABS_PER_SUPERSLAB { ALL } else { (1 << units) - 1 };
    if slot >= SLABS_PER_SUPERSLAB { 0 } else { ones << slot }
}

/// Bits at multiples of `align` (a power of two).
const fn aligned_slots(align: u32) -> u32 {
    match align {
        0 | 1 => ALL,
        2 => 0x5555_5555,
        4 => 0x1111_1111,
        8 => 0x0101_0101,
        16 => 0x0001_0001,
        _ => 1,
    }
}

/// The lowest slot, a multiple of `align`, from which `units` bits of `free` are set.
pub(crate) const fn lowest_fit(free: u32, units: u32, align: u32) -> Option<u32> {
    if units == 0 || units > SLABS_PER_SUPERSLAB {
        return None;
    }
    // Bit i of `starts` stays set while the `have` bits from i on are set.
    let mut starts = free;
    let mut have = 1;
    while have < units {
        let step = if have < units - have { have } else { units - have };
        starts &= starts >> step;
        have += step;
    }
    starts &= aligned_slots(align);
    if starts == 0 { None } else { Some(starts.trailing_zeros()) }
}

/// The maximal groups of set bits as (slot, units), lowest first.
pub(crate) fn groups(bits: u32) -> impl Iterator<Item = (u32, u32)> {
    let mut rest = bits;
    core::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let slot = rest.trailing_zeros();
        let units = (rest >> slot).trailing_ones();
        rest &= !mask(slot, units);
        Some((slot, units))
    })
}

/// The groups of `free` that contain a bit of `dirty`, whole: one long range costs the kernel less than two short ones.
pub(crate) fn groups_touching(free: u32, dirty: u32) -> u32 {
    groups(free)
        .map(|(slot, units)| mask(slot, units))
        .filter(|group| group & dirty != 0)
        .fold(0, |all, group| all | group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn masks_cover_whole_superslabs_and_stop_at_their_end() {
        assert_eq!(mask(0, 32), ALL);
        assert_eq!(mask(31, 1), 1 << 31);
        assert_eq!(mask(30, 32), 0b11 << 30);
    }

    proptest! {
        #[test]
        fn the_lowest_fit_is_what_a_plain_search_finds(free: u32, units in 1_u32..=32, shift in 0_u32..=5) {
            let align = 1 << shift;
            let plain = (0..32).step_by(align as usize).find(|&slot| {
                slot + units <= 32 && (slot..slot + units).all(|unit| free & (1 << unit) != 0)
            });
            prop_assert_eq!(lowest_fit(free, units, align), plain);
        }

        #[test]
        fn groups_rebuild_the_bits(bits: u32) {
            let mut rebuilt = 0_u32;
            let mut end = 0;
            for (slot, units) in groups(bits) {
                prop_assert!(rebuilt == 0 || slot > end, "groups are maximal and ascend");
                end = slot + units;
                rebuilt |= mask(slot, units);
            }
            prop_assert_eq!(rebuilt, bits);
        }

        #[test]
        fn widened_groups_contain_the_dirty_bits_and_only_free_ones(free: u32, dirty: u32) {
            let wide = groups_touching(free, dirty);
            prop_assert_eq!(wide & !free, 0);
            prop_assert_eq!(wide & dirty, free & dirty);
        }
    }
}
