/* `free` or `realloc` of an address at which no block begins.
 *
 * Caught: for addresses among hakmem's blocks its report; for others any fatal signal, as the library may hand them to
 * the allocator behind it, which has its own way to complain. */
#include "suite.h"

#include <sys/mman.h>

/* ---- into a block ---- */

static enum verdict free_at(size_t offset) {
    char *block = fresh();
    free(hidden(mistake ? block + offset : block));
    return MISSED;
}

CASE(free_off_by_1, ALL, REPORT, DEFAULT_BAR, "frees the address one byte into a block") { return free_at(1); }

CASE(free_off_by_8, SMALL | RUN, REPORT, DEFAULT_BAR, "frees the address 8 bytes into a block") { return free_at(8); }

CASE(free_off_by_16, ALL, REPORT, DEFAULT_BAR, "frees the address 16 bytes into a block") { return free_at(16); }

CASE(free_off_by_half, ALL, REPORT, DEFAULT_BAR, "frees the address in the middle of a block") {
    return free_at(size / 2);
}

CASE(free_off_by_a_page, LARGE, REPORT, DEFAULT_BAR, "frees the address one page into a block") {
    return free_at(4096);
}

CASE(free_off_by_64k, LARGE, REPORT, DEFAULT_BAR, "frees the address 64 KiB into a block") { return free_at(64 << 10); }

CASE(free_interior_by_stranger, SLABS, REPORT, DEFAULT_BAR, "another thread frees the address 16 bytes into a block") {
    char *block = fresh();
    in_thread(free_it, mistake ? block + 16 : block);
    return MISSED;
}

CASE(free_interior_of_freed, SMALL | RUN, REPORT, DEFAULT_BAR, "frees the address 16 bytes into a freed block") {
    char *block = fresh();
    free(block);
    if (mistake) free(hidden(block + 16));
    return MISSED;
}

/* ---- beside a block ---- */

CASE(free_one_past_end, LARGE, REPORT, BEYOND, "frees the address one past the end of a block") {
    char *block = fresh();
    char *end = block + size;
    while (is_neighbour(end)) {
        end += size;
    }
    free(hidden(mistake ? end : block));
    return MISSED;
}

CASE(free_never_handed_out, SLABS, REPORT, BEYOND,
     "frees an address behind a block at which the next block would begin, had it been handed out") {
    char *block = fresh();
    char *next = block + size;
    while (is_neighbour(next)) {
        next += size;
    }
    free(hidden(mistake ? next : block));
    return MISSED;
}

CASE(free_unused_part_of_the_heap, NONE, STOP, DEFAULT_BAR,
     "frees an address 1 GiB behind a block, where the heap has no blocks yet") {
    char *block = fresh();
    free(hidden(mistake ? block + (1 << 30) : block));
    return MISSED;
}

/* ---- not the heap's ---- */

static enum verdict free_stranger(void *address) {
    char *block = fresh();
    free(hidden(mistake ? address : block));
    return MISSED;
}

CASE(free_stack, NONE, STOP, DEFAULT_BAR, "frees the address of a local variable") {
    uint64_t local[16] __attribute__((aligned(16))) = {0};
    return free_stranger(&local[4]);
}

CASE(free_stack_like_a_chunk, NONE, STOP, DEFAULT_BAR,
     "frees a local variable behind words that look like the header of a block of glibc's") {
    uint64_t local[16] __attribute__((aligned(16))) = {0};
    local[3] = 0x41;
    local[11] = 0x41;
    return free_stranger(&local[4]);
}

static void free_own_stack(void *block) {
    uint64_t local[16] __attribute__((aligned(16))) = {0};
    free(hidden(mistake ? (void *)&local[4] : block));
}

CASE(free_stack_of_thread, NONE, STOP, DEFAULT_BAR, "a thread frees the address of a local variable of its own") {
    in_thread(free_own_stack, fresh());
    return MISSED;
}

CASE(free_static, NONE, STOP, DEFAULT_BAR, "frees the address of a static variable") {
    static uint64_t words[16] __attribute__((aligned(16)));
    return free_stranger(&words[4]);
}

CASE(free_static_like_a_chunk, NONE, STOP, DEFAULT_BAR,
     "frees a static variable behind words that look like the header of a block of glibc's") {
    static uint64_t words[16] __attribute__((aligned(16))) = {[3] = 0x41, [11] = 0x41};
    return free_stranger(&words[4]);
}

CASE(free_thread_local, NONE, STOP, DEFAULT_BAR, "frees the address of a thread-local variable") {
    static __thread uint64_t words[16] __attribute__((aligned(16)));
    return free_stranger(&words[4]);
}

CASE(free_literal, NONE, STOP, DEFAULT_BAR, "frees a string literal") {
    return free_stranger((void *)"a literal of some length");
}

CASE(free_function, NONE, STOP, DEFAULT_BAR, "frees the address of a function") {
    return free_stranger((void *)free_own_stack);
}

CASE(free_small_integer, NONE, STOP, DEFAULT_BAR, "frees the address 16, as after an offset to a null pointer") {
    return free_stranger((void *)16);
}

CASE(free_minus_one, NONE, STOP, DEFAULT_BAR, "frees the address -1, as MAP_FAILED") {
    return free_stranger((void *)-1);
}

CASE(free_far, NONE, STOP, DEFAULT_BAR, "frees an aligned address far from every mapping") {
    return free_stranger((void *)0x100000000000);
}

CASE(free_non_canonical, NONE, STOP, DEFAULT_BAR, "frees an address that the processor does not accept") {
    return free_stranger((void *)0x4141414141414140);
}

static char *pages(void) {
    char *found = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED) {
        cannot("mmap fails");
    }
    return found;
}

CASE(free_mapped_by_user, NONE, STOP, DEFAULT_BAR, "frees an address in memory that the program has mapped itself") {
    return free_stranger(pages() + 4096);
}

CASE(free_unmapped, NONE, STOP, DEFAULT_BAR,
     "frees an address in memory that the program has mapped and unmapped itself") {
    char *found = pages();
    munmap(found, 1 << 20);
    return free_stranger(found + 4096);
}

CASE(free_of_another_allocator, NONE, STOP, BEYOND,
     "frees a block of an allocator of the program's own, with dlmalloc's header before it") {
    uint64_t *chunk = (uint64_t *)(pages() + 4096);
    chunk[1] = 0x51;
    chunk[11] = 0x51;
    return free_stranger(chunk + 2);
}

/* ---- realloc ---- */

CASE(realloc_freed, ALL, REPORT, BEYOND, "reallocates a freed block to twice its size") {
    char *block = fresh();
    if (mistake) free(block);
    hidden(realloc(block, 2 * size));
    return MISSED;
}

CASE(realloc_freed_in_place, ALL, REPORT, BEYOND,
     "reallocates a freed block to one byte less, for which it would not move") {
    char *block = fresh();
    if (mistake) free(block);
    hidden(realloc(block, size - 1));
    return MISSED;
}

CASE(realloc_interior, ALL, REPORT, BEYOND, "reallocates the address 16 bytes into a block") {
    char *block = fresh();
    hidden(realloc(hidden(mistake ? block + 16 : block), size - 16));
    return MISSED;
}

CASE(realloc_stack, NONE, STOP, BEYOND, "reallocates the address of a local variable") {
    uint64_t local[16] __attribute__((aligned(16))) = {0};
    hidden(realloc(hidden(mistake ? (void *)&local[4] : (void *)fresh()), 128));
    return MISSED;
}
