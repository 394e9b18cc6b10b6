//! Size classes and slab indices against plain arithmetic.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may stop")]

use hakmem_base::{
    BIN_COUNT, MAX_SLAB_BLOCK_BYTES, SLAB_BYTES, SLABS_PER_SUPERSLAB, SizeClass, SlabIndex, TINY_MAX_BYTES,
};
use hakmem_testkit::cases;
use proptest::prelude::*;

/// The smallest class that holds `bytes` and whose blocks are at least `at_least` bytes, found by looking at each.
fn plain_class(bytes: usize, at_least: usize) -> Option<SizeClass> {
    SizeClass::all().find(|class| class.block_bytes() >= bytes.max(at_least))
}

fn class() -> impl Strategy<Value = SizeClass> {
    (0..BIN_COUNT).prop_map(|index| SizeClass::from_index(index).unwrap())
}

/// Any size, mostly small, and the borders.
fn bytes() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => 0..=TINY_MAX_BYTES,
        4 => 0..=MAX_SLAB_BLOCK_BYTES + 4096,
        2 => class().prop_flat_map(|class| class.block_bytes() - 1..=class.block_bytes() + 1),
        1 => any::<usize>(),
    ]
}

#[test]
fn the_tables_hold_for_every_size_that_they_serve() {
    // Miri would take half an hour for all of them.
    let step = if cfg!(miri) { 127 } else { 1 };
    for bytes in (0..=MAX_SLAB_BLOCK_BYTES).step_by(step) {
        assert_eq!(SizeClass::for_bytes(bytes), plain_class(bytes, 8), "{bytes}");
    }
    for bytes in (0..=TINY_MAX_BYTES).step_by(step) {
        assert_eq!(Some(SizeClass::for_tiny(bytes)), plain_class(bytes, 8), "{bytes}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(2000), ..ProptestConfig::default() })]

    #[test]
    fn the_class_of_a_size_is_the_smallest_that_holds_it(bytes in bytes()) {
        prop_assert_eq!(SizeClass::for_bytes(bytes), plain_class(bytes, 8));
    }

    #[test]
    fn a_multiple_of_a_power_of_two_gets_blocks_that_are_aligned_to_it(shift in 0_u32..=15, factor in any::<usize>()) {
        let align = 1_usize << shift;
        let bytes = align * (1 + factor % (MAX_SLAB_BLOCK_BYTES / align));
        let class = SizeClass::for_bytes(bytes).unwrap();
        // A block begins at a multiple of its size, counted from a slab, which is aligned to more than any class.
        prop_assert!(class.block_bytes().is_multiple_of(align), "{} for {} at {}", class.block_bytes(), bytes, align);
        prop_assert!(SLAB_BYTES.is_multiple_of(align));
    }

    #[test]
    fn an_index_beyond_the_last_class_is_none(index in any::<usize>()) {
        let class = SizeClass::from_index(index);
        prop_assert_eq!(class.map(SizeClass::index), (index < BIN_COUNT).then_some(index));
    }

    #[test]
    fn offsets_in_a_slab_are_divided_as_plain_division_does(class in class(), offset in any::<u32>()) {
        let geometry = class.geometry();
        let bytes = geometry.block_bytes;
        let offset = offset % (u32::from(geometry.units) * SLAB_BYTES as u32);
        prop_assert_eq!(bytes as usize, class.block_bytes());
        // One too many for some of the last bytes of a block, far into a slab of several units.
        let is_exact = offset < SLAB_BYTES as u32 || offset.is_multiple_of(bytes);
        prop_assert!((0..=u32::from(!is_exact)).contains(&(geometry.blocks_in(offset) - offset / bytes)));
        let index = offset / bytes;
        let is_start = offset.is_multiple_of(bytes) && index < u32::from(geometry.capacity);
        prop_assert_eq!(geometry.block_at(offset), is_start.then_some(index));
        let start = index.min(u32::from(geometry.capacity) - 1) * bytes;
        prop_assert_eq!(geometry.block_at(start), Some(start / bytes));
    }

    #[test]
    fn a_slab_index_is_its_superslab_and_its_place_there(index in 0..u32::MAX - 64, count in 0_u32..64) {
        let slab = SlabIndex::new(index);
        prop_assert!(slab.slot() < SLABS_PER_SUPERSLAB);
        prop_assert_eq!(slab.superslab() * SLABS_PER_SUPERSLAB + slab.slot(), index);
        prop_assert_eq!(slab.add(count).get(), index + count);
        prop_assert_eq!(slab.to_usize(), index as usize);
        prop_assert_eq!(SlabIndex::from_link(index), (index != 0).then_some(slab));
    }
}
