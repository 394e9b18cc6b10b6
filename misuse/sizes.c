/* Sizes that no block can have: products that overflow, negative numbers, alignments beyond reason.
 *
 * Caught: null, and nothing else changed. What `errno` then says is a matter of the manual, and tested elsewhere. */
#include "suite.h"

static enum verdict is_refused(void *block) { return block == NULL ? HARMLESS : MISSED; }

CASE(malloc_largest, NONE, NO_USE, BEYOND, "malloc(SIZE_MAX)") {
    return is_refused(malloc(hidden_size(mistake ? SIZE_MAX : 64)));
}

CASE(malloc_above_ptrdiff, NONE, NO_USE, BEYOND, "malloc(PTRDIFF_MAX + 1)") {
    return is_refused(malloc(hidden_size(mistake ? (size_t)PTRDIFF_MAX + 1 : 64)));
}

CASE(malloc_negative, NONE, NO_USE, BEYOND, "malloc(-64), which wraps to zero when a header is added") {
    return is_refused(malloc(hidden_size(mistake ? (size_t)-64 : 64)));
}

CASE(calloc_overflow, NONE, NO_USE, BEYOND, "calloc whose product is 16 after an overflow") {
    return is_refused(calloc(hidden_size(mistake ? SIZE_MAX / 16 + 2 : 4), 16));
}

CASE(reallocarray_overflow, NONE, NO_USE, BEYOND,
     "reallocarray whose product is 16 after an overflow; the block must stay as it was") {
    char *block = fresh();
    memset(block, 'x', size);
    enum verdict verdict = is_refused(reallocarray(block, hidden_size(mistake ? SIZE_MAX / 16 + 2 : 4), 16));
    return verdict == HARMLESS && block[0] == 'x' && block[size - 1] == 'x' ? HARMLESS : MISSED;
}

CASE(realloc_largest, ALL, NO_USE, BEYOND, "realloc(p, SIZE_MAX - 8); the block must stay as it was") {
    char *block = fresh();
    memset(block, 'x', size);
    char *moved = hidden(realloc(block, hidden_size(mistake ? SIZE_MAX - 8 : size)));
    if (!mistake) {
        return HARMLESS;
    }
    return is_refused(moved) == HARMLESS && block[0] == 'x' && block[size - 1] == 'x' ? HARMLESS : MISSED;
}

CASE(memalign_overflow, NONE, NO_USE, BEYOND, "memalign(4096, SIZE_MAX - 64), which overflows when it is rounded up") {
    return is_refused(memalign(4096, hidden_size(mistake ? SIZE_MAX - 64 : 64)));
}

CASE(memalign_largest_alignment, NONE, NO_USE, BEYOND, "memalign with an alignment of half the address space") {
    return is_refused(memalign(hidden_size(mistake ? (size_t)1 << 63 : 64), 64));
}

CASE(posix_memalign_overflow, NONE, NO_USE, BEYOND,
     "posix_memalign of SIZE_MAX - 64 bytes: an error number, and the result is left alone") {
    void *block = &block;
    int status = posix_memalign(&block, 4096, hidden_size(mistake ? SIZE_MAX - 64 : 64));
    return status != 0 && block == &block ? HARMLESS : MISSED;
}

CASE(pvalloc_overflow, NONE, NO_USE, BEYOND, "pvalloc(SIZE_MAX), which overflows when it is rounded up") {
    return is_refused(pvalloc(hidden_size(mistake ? SIZE_MAX : 64)));
}
