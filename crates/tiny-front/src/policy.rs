//! The numbers of a policy snapshot that the front uses, as a plain copy inside each heap.

use hakmem_base::{CLASS_COUNT, OS_PAGE_BYTES, SizeClass, TINY_MAX_BYTES};
use hakmem_policy::{FrozenPolicy, RouteProfile, SIZE_GROUPS};

/// How many times the first step a refill's step grows to.
const REFILL_GROWTH: u32 = 4;
/// The same for a class with many blocks out, and the part of these that a step may be.
const LARGEST_REFILL_GROWTH: u32 = 8;
const REFILL_PART: u32 = 32;
/// log2 of the largest size of the first mid group.
const MID_GROUP_SHIFT: u32 = 11;

/// Copied from a [`FrozenPolicy`] when a heap is set up and whenever it picks up a new generation.
#[derive(Clone, Copy, Debug)]
pub struct FrontPolicy {
    /// Generation of the snapshot.
    pub generation: u32,
    /// Cap of a class at first, in blocks.
    pub cache_blocks: u32,
    /// Cap of a class at first, in bytes.
    pub cache_bytes: u32,
    /// Largest cap that growth reaches, in blocks.
    pub cache_max_blocks: u32,
    /// Largest cap that growth reaches, in bytes.
    pub cache_max_bytes: u32,
    /// CAP: OS pages that the cache of a mid class holds at most, by size group (up to 2, 4, 8, 16, 32 KiB).
    pub mid_cap: [u32; SIZE_GROUPS],
    /// Whether caps grow when a class overflows its cache.
    pub cache_growth: bool,
    /// Whether caps of idle classes shrink.
    pub cache_shrink: bool,
    /// Whether idle classes give their cached blocks back.
    pub idle_trim: bool,
    /// Heartbeats between two idle trims.
    pub idle_trim_beats: u32,
    /// Fresh bytes carved per refill.
    pub refill_bytes: u32,
    /// Most blocks carved per refill.
    pub refill_max_blocks: u32,
    /// Carve a single block per refill.
    pub refill_one: bool,
    /// Allocations of a class between two heartbeats.
    pub heartbeat_allocs: u32,
    /// One allocation in this many is a guarded sample; 0: none.
    pub sample: u32,
    /// Classes (one bit each) that the route profile sends to the pool.
    pub pool_classes: u128,
    /// Pool-routed classes use the thread cache all the same.
    pub pool_flatten: bool,
    /// Whether a bin keeps one empty slab.
    pub keep_empty_slabs: bool,
    /// Walk a slab's free list before it is given back.
    pub slab_reuse_guard: bool,
    /// Blocks collected per target slab before they are handed over.
    pub outbox_blocks: u32,
    /// Bytes collected per target slab before they are handed over.
    pub outbox_bytes: u32,
    /// Whether slabs without an owner are adopted.
    pub publish_adopt: bool,
    /// Try every published slab of the class before a fresh one is taken.
    pub must_adopt: bool,
    /// Look for remote frees that nobody announced before a fresh slab is taken.
    pub force_notify: bool,
    /// A mid block may be served from a larger class up to this factor (in 1/1000) of the class's own size.
    pub w_max_permille: u32,
}

impl FrontPolicy {
    /// What a heap holds before it is told a policy: all zero.
    // SAFETY: numbers and switches, of which all zero is a value.
    pub(crate) const UNSET: Self = unsafe { core::mem::zeroed() };

    /// The numbers of [`FrozenPolicy::DEFAULT`].
    pub const DEFAULT: Self = Self::from_frozen(&FrozenPolicy::DEFAULT);

    /// Copies what the front needs.
    #[must_use]
    pub const fn from_frozen(policy: &FrozenPolicy) -> Self {
        Self {
            generation: policy.generation,
            cache_blocks: policy.cache_blocks,
            cache_bytes: policy.cache_bytes,
            cache_max_blocks: policy.cache_max_blocks,
            cache_max_bytes: policy.cache_max_bytes,
            mid_cap: policy.mid_cap,
            cache_growth: policy.cache_growth,
            cache_shrink: policy.cache_shrink,
            idle_trim: policy.idle_trim,
            idle_trim_beats: policy.idle_trim_ticks,
            refill_bytes: policy.refill_bytes,
            refill_max_blocks: policy.refill_max_blocks,
            refill_one: policy.refill_one,
            heartbeat_allocs: policy.heartbeat_allocs,
            sample: policy.sample,
            pool_classes: pool_classes(policy),
            pool_flatten: policy.pool_flatten,
            keep_empty_slabs: policy.keep_empty_slabs,
            slab_reuse_guard: policy.slab_reuse_guard,
            outbox_blocks: policy.outbox_blocks,
            outbox_bytes: policy.outbox_bytes,
            publish_adopt: policy.publish_adopt,
            must_adopt: policy.must_adopt,
            force_notify: policy.force_notify,
            w_max_permille: policy.w_max_mid_permille,
        }
    }

    /// Cap of a class at first, in blocks: at least 2.
    #[must_use]
    pub fn initial_cap(&self, class: SizeClass) -> u16 {
        blocks(self.cache_blocks, self.cache_bytes.min(self.mid_bytes(class)), class)
    }

    /// Largest cap of a class, in blocks: at least 2.
    #[must_use]
    pub fn max_cap(&self, class: SizeClass) -> u16 {
        blocks(self.cache_max_blocks, self.cache_max_bytes.min(self.mid_bytes(class)), class)
            .max(self.initial_cap(class))
    }

    /// Bytes that CAP allows the cache of a mid class; no bound for a tiny one.
    fn mid_bytes(&self, class: SizeClass) -> u32 {
        let bytes = class.block_bytes();
        let group = bytes.next_power_of_two().trailing_zeros().checked_sub(MID_GROUP_SHIFT);
        match group.and_then(|group| self.mid_cap.get(group as usize)) {
            Some(&pages) if bytes > TINY_MAX_BYTES => pages.saturating_mul(OS_PAGE_BYTES as u32),
            _ => u32::MAX,
        }
    }

    /// Fresh blocks carved by a refill of a class that has carved `carved` blocks of its slab already, and has `out` blocks out of
    /// all its slabs: at least 1. A class that goes on carving is filled in growing steps, so that it visits the slow path less
    /// often; one that has much already in larger ones, which add little to what it has.
    #[must_use]
    pub fn refill_blocks(&self, class: SizeClass, carved: u32, out: u32) -> u32 {
        if self.refill_one || self.bypasses_cache(class) {
            return 1;
        }
        let first = class.geometry().blocks_in(self.refill_bytes);
        let in_slab = carved.min(first * REFILL_GROWTH);
        let of_all = (out / REFILL_PART).min(first.max(1) * LARGEST_REFILL_GROWTH);
        first.max(in_slab).max(of_all).clamp(1, self.refill_max_blocks.max(1))
    }

    /// Whether allocations of this class go past the thread cache, straight to its slabs.
    #[must_use]
    pub fn bypasses_cache(&self, class: SizeClass) -> bool {
        self.is_pool_routed(class) && !self.pool_flatten
    }

    /// Whether the route profile sends this class to the pool. A dynamic class goes the way of its fixed one.
    #[must_use]
    pub const fn is_pool_routed(&self, class: SizeClass) -> bool {
        self.pool_classes != 0 && self.pool_classes >> class.fixed().index() & 1 != 0
    }

    /// Pool-routed classes (one bit each) that use the thread cache all the same.
    #[must_use]
    pub const fn flattened_classes(&self) -> u128 {
        if self.pool_flatten { self.pool_classes } else { 0 }
    }

    /// Blocks that an outbox collects for one slab.
    #[must_use]
    pub fn outbox_limit(&self, class: SizeClass) -> u32 {
        class.geometry().blocks_in(self.outbox_bytes).clamp(1, self.outbox_blocks.max(1))
    }
}

const fn pool_classes(policy: &FrozenPolicy) -> u128 {
    let (mut classes, mut index) = (0, 0);
    while index < CLASS_COUNT
        && let Some(class) = SizeClass::from_index(index)
    {
        let is_pool = match policy.route_of(index as u32) {
            RouteProfile::TinyFirst => false,
            RouteProfile::TinyOnly => class.block_bytes() > TINY_MAX_BYTES,
            RouteProfile::PoolOnly => true,
        };
        classes |= (is_pool as u128) << index;
        index += 1;
    }
    classes
}

const _: () = assert!(CLASS_COUNT <= u128::BITS as usize);

/// Largest cap that a bin can hold.
const CAP_MAX: u32 = (u16::MAX / 2) as u32;

fn blocks(most: u32, bytes: u32, class: SizeClass) -> u16 {
    class.geometry().blocks_in(bytes).min(most).clamp(2, CAP_MAX) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mid_caps_bound_the_classes_of_their_group() {
        let mut policy = FrontPolicy { mid_cap: [1, 2, 4, 8, 16], ..FrontPolicy::DEFAULT };
        let cap = |policy: &FrontPolicy, bytes| policy.max_cap(SizeClass::for_bytes(bytes).unwrap());
        assert_eq!([1280, 2048, 4096, 8192].map(|bytes| cap(&policy, bytes)), [3, 2, 2, 2]);
        policy.mid_cap = [32; SIZE_GROUPS];
        assert_eq!([1280, 2048, 4096, 8192].map(|bytes| cap(&policy, bytes)), [102, 64, 32, 16]);
        assert_eq!(cap(&policy, 1024), cap(&FrontPolicy::DEFAULT, 1024));
    }

    #[test]
    fn refills_grow_with_the_slab_and_with_what_the_class_has() {
        let blocks =
            |bytes, carved, out| FrontPolicy::DEFAULT.refill_blocks(SizeClass::for_bytes(bytes).unwrap(), carved, out);
        assert_eq!([0, 8, 16, 64].map(|carved| blocks(512, carved, carved)), [8, 8, 16, 32]);
        assert_eq!([0, 64, 1024, 1 << 20].map(|out| blocks(512, 0, out)), [8, 8, 32, 64]);
        assert_eq!([0, 64, 1 << 20].map(|out| blocks(8192, 0, out)), [1, 2, 8]);
    }

    #[test]
    fn the_route_profile_becomes_a_set_of_classes() {
        let frozen =
            FrozenPolicy { route_profile: RouteProfile::TinyOnly, route_pool_classes: 1, ..FrozenPolicy::DEFAULT };
        let policy = FrontPolicy::from_frozen(&frozen);
        let is_pool = |bytes| policy.is_pool_routed(SizeClass::for_bytes(bytes).unwrap());
        assert_eq!([8, 16, 1024, 1280].map(is_pool), [true, false, false, true]);
    }
}
