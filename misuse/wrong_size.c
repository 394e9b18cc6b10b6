/* A free that names another size or alignment than the block has.
 *
 * Caught: hakmem's report. An allocator that ignores the numbers frees the right block, but has not seen the mistake.
 */
#include "suite.h"

/* C23; glibc has had them since 2.43. */
extern void free_sized(void *block, size_t bytes) __attribute__((weak));
extern void free_aligned_sized(void *block, size_t alignment, size_t bytes) __attribute__((weak));

static enum verdict free_as(size_t bytes) {
    if (free_sized == NULL) {
        not_available("free_sized");
    }
    free_sized(fresh(), mistake ? bytes : size);
    return MISSED;
}

CASE(free_sized_smaller, SLABS | RUN, REPORT, BEYOND, "free_sized with half of the block's size") {
    return free_as(size / 2);
}

CASE(free_sized_larger, SLABS | RUN, REPORT, BEYOND, "free_sized with twice the block's size") {
    return free_as(size * 2);
}

CASE(free_aligned_sized_wrong_alignment, SMALL, REPORT, BEYOND,
     "free_aligned_sized with an alignment that the block does not have") {
    if (free_aligned_sized == NULL) {
        not_available("free_aligned_sized");
    }
    char *block = hidden(aligned_alloc(64, size));
    size_t alignment = 64;
    while ((uintptr_t)block % alignment == 0) {
        alignment *= 2;
    }
    free_aligned_sized(block, mistake ? alignment : 64, size);
    return MISSED;
}
