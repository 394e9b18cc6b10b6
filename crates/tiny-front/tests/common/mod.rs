//! What the tests of this box share: heaps, and the gates in their simplest form.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "test helpers: a panic is the test's failure")]

use hakmem_base::{BinPlace, HEAP_RECORD_BYTES, MarkKey, SizeClass};
use hakmem_ownership::class_of_bin;
use hakmem_superslab_os::MetaArena;
use hakmem_tiny_front::{Front, FrontPolicy, Heap, Pop};
use std::ptr::NonNull;

/// A front with a window of its own.
pub fn new_front(window_bytes: usize) -> &'static Front {
    let front = Box::leak(Box::new(Front::new()));
    assert!(front.reserve(window_bytes, MarkKey::from_random(0x5eed_1e55_0bad_cafe)));
    front
}

/// A heap in a record of its own.
pub fn new_heap(front: &Front, policy: FrontPolicy) -> &'static Heap {
    let arena: &MetaArena = Box::leak(Box::new(MetaArena::new()));
    let record = arena.allocate(HEAP_RECORD_BYTES, HEAP_RECORD_BYTES).unwrap().cast::<Heap>();
    // SAFETY: fresh, aligned, large enough, and never freed.
    unsafe { record.write(Heap::new()) };
    // SAFETY: written in the line before.
    let heap = unsafe { record.as_ref() };
    heap.open(front.view());
    heap.set_policy(policy);
    heap
}

/// The alloc gate.
pub fn try_take(front: &Front, heap: &Heap, class: SizeClass) -> Option<NonNull<u8>> {
    match heap.pop(class) {
        Pop::Block(block) => Some(block),
        Pop::Beat(block) => {
            let _sampled_by_the_facade = front.beat_slow(heap, class);
            Some(block)
        }
        Pop::Empty => front.refill_slow(heap, class),
    }
}

/// The alloc gate where memory does not run out.
pub fn take(front: &Front, heap: &Heap, class: SizeClass) -> NonNull<u8> {
    try_take(front, heap, class).unwrap()
}

/// The free gate.
pub fn give(front: &Front, heap: Option<&Heap>, block: NonNull<u8>) {
    let word = front.route_of(block.addr().get()).unwrap();
    if let Some(heap) = heap
        && let Some(bin) = heap.own_bin(word.bits())
    {
        let class = class_of_bin(word.bits()).unwrap();
        // SAFETY: the block is freed once, by its holder.
        if !unsafe { heap.push(bin, block) } {
            // SAFETY: as above; push had no room.
            if !unsafe { front.spill(heap, BinPlace::of_class(class), heap.unit_of(block.addr().get()), block, false) }
            {
                // SAFETY: as above; the spill left the block to this.
                let _emptied = unsafe { front.spill_slow(heap, bin, class, block) };
            }
        }
        return;
    }
    let class = word.route().slab_class().unwrap();
    let slab = front.slab_of(class, block).unwrap();
    // SAFETY: the block is freed once, by its holder.
    let _handed_over = unsafe { front.free_remote(heap, slab, class, block) };
}
