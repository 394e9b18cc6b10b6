/* A block is freed twice, and has not been handed out again in between (but for `double_free_after_reuse`).
 *
 * Caught: hakmem's report, at the second free or at the latest at the program's end. */
#include "suite.h"

#include <unistd.h>

CASE(double_free_immediate, ALL, REPORT, DEFAULT_BAR, "frees a block twice in a row") {
    char *block = fresh();
    free(block);
    if (mistake) free(block);
    return MISSED;
}

CASE(double_free_after_one_other, ALL, REPORT, DEFAULT_BAR, "frees a block, one of another size, the first again") {
    char *block = fresh(), *other = block_of(size / 2);
    free(block);
    free(other);
    if (mistake) free(block);
    return MISSED;
}

CASE(double_free_interleaved, ALL, REPORT, DEFAULT_BAR, "frees a, b, a, all of one size") {
    char *a = fresh(), *b = block_of(size);
    free(a);
    free(b);
    if (mistake) free(a);
    return MISSED;
}

CASE(double_free_after_thousand, SLABS | RUN, REPORT, DEFAULT_BAR,
     "frees a block, 1000 others of the size, the first again") {
    static char *others[1000];
    char *block = fresh();
    for (int index = 0; index < 1000; index++) {
        others[index] = block_of(size);
    }
    free(block);
    for (int index = 0; index < 1000; index++) {
        free(others[index]);
    }
    if (mistake) free(block);
    return MISSED;
}

CASE(double_free_of_a_batch, SLABS, REPORT, DEFAULT_BAR, "frees 100 blocks, then the same 100 in the same order") {
    char *blocks[100];
    for (int index = 0; index < 100; index++) {
        blocks[index] = block_of(size);
    }
    for (int round = 0; round < (mistake ? 2 : 1); round++) {
        for (int index = 0; index < 100; index++) {
            free(blocks[index]);
        }
    }
    return MISSED;
}

CASE(double_free_slab_emptied, SLABS, REPORT, DEFAULT_BAR,
     "frees all blocks of several slabs, then one from the middle again") {
    static char *blocks[4096];
    for (size_t index = 0; index < many(); index++) {
        blocks[index] = block_of(size);
    }
    for (size_t index = 0; index < many(); index++) {
        free(blocks[index]);
    }
    if (mistake) free(blocks[many() / 2]);
    return MISSED;
}

CASE(double_free_after_trim, ALL, REPORT, DEFAULT_BAR, "frees many blocks, calls malloc_trim, frees one again") {
    static char *blocks[4096];
    for (size_t index = 0; index < many(); index++) {
        blocks[index] = block_of(size);
    }
    for (size_t index = 0; index < many(); index++) {
        free(blocks[index]);
    }
    malloc_trim(0);
    if (mistake) free(blocks[many() / 2]);
    return MISSED;
}

CASE(double_free_owner_then_stranger, ALL, REPORT, DEFAULT_BAR, "the owner frees a block, then another thread does") {
    char *block = fresh();
    free(block);
    in_thread(free_it, mistake ? block : NULL);
    return MISSED;
}

CASE(double_free_stranger_then_owner, ALL, REPORT, DEFAULT_BAR,
     "another thread frees a block and ends, then the owner does") {
    char *block = fresh();
    in_thread(free_it, block);
    if (mistake) free(block);
    return MISSED;
}

CASE(double_free_two_strangers, SLABS | RUN, REPORT, DEFAULT_BAR,
     "two other threads free a block, one after the other's end") {
    char *block = fresh();
    in_thread(free_it, block);
    in_thread(free_it, mistake ? block : NULL);
    return MISSED;
}

CASE(double_free_both_in_flight, SLABS, REPORT, DEFAULT_BAR,
     "two other threads free a block and live on, so that neither free has reached the owner") {
    char *block = fresh();
    in_staying_thread(free_it, block);
    in_staying_thread(free_it, mistake ? block : NULL);
    /* The owner goes on, and so meets what was handed over. */
    churn(size, 256);
    return MISSED;
}

static void free_around(void *argument) {
    char **blocks = argument;
    for (int index = 0; index < 8; index++) {
        free(blocks[index]);
    }
    if (mistake) free(blocks[0]);
}

CASE(double_free_by_one_stranger, SLABS, REPORT, DEFAULT_BAR,
     "another thread frees a block, seven others, the first again") {
    char *blocks[8];
    for (int index = 0; index < 8; index++) {
        blocks[index] = fresh();
    }
    in_thread(free_around, blocks);
    return MISSED;
}

static void allocate_it(void *place) { *(char **)place = fresh(); }

static void allocate_and_free_it(void *place) {
    allocate_it(place);
    free(*(char **)place);
}

CASE(double_free_after_owner_left, SLABS, REPORT, DEFAULT_BAR,
     "the owner of a block ends, another thread frees it twice") {
    char *block;
    in_thread(allocate_it, &block);
    free(block);
    if (mistake) free(block);
    return MISSED;
}

CASE(double_free_of_what_the_owner_freed, SLABS | RUN, REPORT, DEFAULT_BAR,
     "the owner of a block frees it and ends, another thread frees it again") {
    char *block;
    in_thread(allocate_and_free_it, &block);
    if (mistake) free(block);
    return MISSED;
}

CASE(
    double_free_after_reuse, ALL, REPORT, BEYOND,
    "frees a block, allocates until it is handed out again (or a quarantine did not let it), frees it by its old pointer") {
    char *stale = fresh();
    free(stale);
    char *block = NULL;
    for (size_t tries = 0; tries < many() && block != stale; tries++) {
        block = block_of(size);
    }
    if (mistake) free(stale);
    return MISSED;
}

CASE(double_free_of_moved, ALL, REPORT, DEFAULT_BAR, "frees the old address of a block that realloc has moved") {
    char *old = fresh(), *block = old;
    for (size_t bytes = 2 * size; block == old; bytes *= 2) {
        if (bytes > 64 * size || (block = hidden(realloc(block, bytes))) == NULL) {
            cannot("realloc does not move the block");
        }
    }
    free(mistake ? old : block);
    return MISSED;
}

CASE(double_free_after_realloc_to_zero, SMALL | RUN, REPORT, DEFAULT_BAR,
     "frees a block that realloc(p, 0) has freed") {
    char *block = fresh();
    if (hidden(realloc(block, hidden_size(0))) != NULL) {
        not_available("realloc to zero bytes that frees");
    }
    if (mistake) free(block);
    return MISSED;
}

CASE(double_free_calloc, SMALL, REPORT, DEFAULT_BAR, "frees a block of calloc twice") {
    char *block = hidden(calloc(4, size / 4));
    free(block);
    if (mistake) free(block);
    return MISSED;
}

CASE(double_free_aligned, ALL, REPORT, DEFAULT_BAR, "frees a block of memalign twice, another one in between") {
    char *block = hidden(memalign(256, size)), *other = hidden(memalign(256, size));
    free(block);
    free(other);
    if (mistake) free(block);
    return MISSED;
}

CASE(double_free_in_child, SMALL | RUN, REPORT, DEFAULT_BAR, "frees a block, forks, and the child frees it again") {
    char *block = fresh();
    free(block);
    pid_t child = fork();
    if (child == 0) {
        if (mistake) free(block);
        exit(MISSED);
    }
    return like_child(child);
}
