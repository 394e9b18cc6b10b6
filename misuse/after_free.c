/* Writes to freed blocks, and what they may lead to.
 *
 * Caught: a write, by any fatal signal, at the write or later. Where a list link is forged: the forged address is never
 * handed out. */
#include "suite.h"

static void write_if(char *place) {
    if (mistake) memset(hidden(place), 'A', 8);
}

/* ---- the write itself ---- */

CASE(write_freed_start, ALL, STOP, BEYOND, "writes to the first bytes of a freed block, then ends") {
    char *block = fresh();
    free(block);
    write_if(block);
    return MISSED;
}

CASE(write_freed_middle, SLABS | RUN, STOP, BEYOND, "writes to the middle of a freed block, then ends") {
    char *block = fresh();
    free(block);
    write_if(block + size / 2);
    return MISSED;
}

CASE(write_freed_then_reuse, ALL, STOP, BEYOND,
     "writes to the middle of a freed block, then goes on allocating and freeing its size") {
    char *block = fresh();
    free(block);
    write_if(block + size / 2);
    for (int round = 0; round < 8; round++) {
        churn(size, many());
    }
    return MISSED;
}

CASE(write_freed_after_others, SLABS, STOP, BEYOND,
     "frees a block, allocates and frees 500 others, then writes to the first") {
    char *block = fresh();
    free(block);
    for (int index = 0; index < 500; index++) {
        free(block_of(32 + (size_t)index));
    }
    write_if(block + size / 2);
    return MISSED;
}

CASE(write_moved, SLABS | RUN, STOP, BEYOND, "writes to the old address of a block that realloc has moved") {
    char *old = fresh(), *block = old;
    for (size_t bytes = 2 * size; block == old; bytes *= 2) {
        if (bytes > 64 * size || (block = hidden(realloc(block, bytes))) == NULL) {
            cannot("realloc does not move the block");
        }
    }
    write_if(old + size / 2);
    return MISSED;
}

static void allocate_and_free_it(void *place) {
    *(char **)place = fresh();
    free(*(char **)place);
}

CASE(write_freed_by_dead_owner, SLABS, STOP, BEYOND,
     "the owner of a block frees it and ends, then another thread writes to it") {
    char *block;
    in_thread(allocate_and_free_it, &block);
    write_if(block + size / 2);
    return MISSED;
}

CASE(write_freed_by_stranger, SLABS, STOP, BEYOND, "another thread frees a block, then its owner writes to it") {
    char *block = fresh();
    in_thread(free_it, block);
    write_if(block + size / 2);
    return MISSED;
}

/* ---- forged links ---- */

static char bait[64 << 10] __attribute__((aligned(64)));

/* Whether one of the next blocks of `size` lies in the bait. They stay in use. */
static enum verdict is_bait_taken(void) {
    for (size_t index = 0; index < 512; index++) {
        char *block = hidden(malloc(size));
        if (block >= bait && block < bait + sizeof bait) {
            return MISSED;
        }
    }
    return HARMLESS;
}

static void forge(char *place, const void *target) { memcpy(hidden(place), &target, sizeof target); }

CASE(link_forged, SLABS, NO_USE, BEYOND,
     "writes the address of a static variable to the first word of a freed block, then allocates") {
    char *a = fresh(), *b = fresh();
    free(a);
    free(b);
    if (mistake) forge(b, bait);
    return is_bait_taken();
}

CASE(link_forged_second_word, SMALL, NO_USE, BEYOND,
     "writes the address of a static variable to the second word of a freed block, then allocates") {
    char *a = fresh(), *b = fresh();
    free(a);
    free(b);
    if (mistake) forge(b + 8, bait);
    return is_bait_taken();
}

CASE(
    link_forged_by_overflow, SMALL, NO_USE, BEYOND,
    "frees every other block of a row, writes the address of a static variable past the ends of the rest, then allocates") {
    static char *blocks[256];
    for (int index = 0; index < 256; index++) {
        blocks[index] = block_of(size);
    }
    for (int index = 0; index < 256; index += 2) {
        free(blocks[index]);
    }
    for (int index = 1; mistake && index < 256; index += 2) {
        for (size_t past = 0; past < 64; past += 8) {
            forge(blocks[index] + size + past, bait);
        }
    }
    return is_bait_taken();
}

CASE(
    link_forged_of_remote_free, SMALL, NO_USE, BEYOND,
    "another thread frees two blocks and lives on, their owner writes the address of a static variable to their first words, then allocates") {
    char *a = fresh(), *b = fresh();
    in_staying_thread(free_it, a);
    in_staying_thread(free_it, b);
    if (mistake) {
        forge(a, bait);
        forge(b, bait);
    }
    for (int round = 0; round < 16; round++) {
        if (is_bait_taken() == MISSED) {
            return MISSED;
        }
    }
    return HARMLESS;
}

CASE(link_to_live_block, SMALL, NO_USE, BEYOND,
     "writes the address of a block in use to the first word of a freed block, then allocates") {
    char *victim = block_of(size), *a = fresh(), *b = fresh();
    free(a);
    free(b);
    if (mistake) forge(b, victim);
    for (int index = 0; index < 512; index++) {
        if (hidden(malloc(size)) == victim) {
            return MISSED;
        }
    }
    return HARMLESS;
}

CASE(link_low_byte, SMALL, NO_USE, BEYOND,
     "adds 16 to the lowest byte of the first word of a freed block, then allocates; caught if no two blocks overlap") {
    static char *blocks[512];
    char *a = fresh(), *b = fresh();
    free(a);
    free(b);
    if (mistake) *(unsigned char *)hidden(b) += 16;
    for (int index = 0; index < 512; index++) {
        blocks[index] = hidden(malloc(size));
        for (int other = 0; other < index; other++) {
            ptrdiff_t distance = blocks[index] - blocks[other];
            if (distance > -(ptrdiff_t)size && distance < (ptrdiff_t)size) {
                return MISSED;
            }
        }
    }
    return HARMLESS;
}
