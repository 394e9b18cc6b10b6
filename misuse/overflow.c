/* Writes and reads outside a block, by little and by much.
 *
 * No case asks for malloc_usable_size: what lies behind the requested size is not the program's.
 * Caught: any fatal signal, at the access, at a free, or at the program's end. */
#include "suite.h"

/* Writes `count` bytes at `offset` from the block's start in the mistaken run, and the block's last byte in the other.
 */
static void write_at(char *block, ptrdiff_t offset, size_t count) {
    char *from = hidden(mistake ? block + offset : block + size - 1);
    memset(from, 'x', mistake ? count : 1);
}

static enum verdict write_and_free(ptrdiff_t offset, size_t count) {
    char *block = fresh();
    write_at(block, offset, count);
    free(block);
    return MISSED;
}

static enum verdict write_and_keep(ptrdiff_t offset, size_t count) {
    write_at(fresh(), offset, count);
    return MISSED;
}

CASE(write_1_past, ALL, STOP, BEYOND, "writes one byte past the end of a block and frees it") {
    return write_and_free((ptrdiff_t)size, 1);
}

CASE(write_nul_past, SLABS, STOP, BEYOND,
     "writes a zero byte past the end of a block, as after a string, and frees it") {
    char *block = fresh();
    memset(block, 'x', size);
    *(char *)hidden(mistake ? block + size : block + size - 1) = 0;
    free(block);
    return MISSED;
}

CASE(write_8_past, SLABS, STOP, BEYOND, "writes 8 bytes past the end of a block and frees it") {
    return write_and_free((ptrdiff_t)size, 8);
}

CASE(write_8k_past, ALL, STOP, BEYOND, "writes 8 KiB past the end of a block and frees it") {
    return write_and_free((ptrdiff_t)size, 8192);
}

CASE(write_1_before, ALL, STOP, BEYOND, "writes one byte before a block and frees it") { return write_and_free(-1, 1); }

CASE(write_8_before, SLABS, STOP, BEYOND, "writes 8 bytes before a block and frees it") {
    return write_and_free(-8, 8);
}

CASE(write_8k_before, SMALL | RUN, STOP, BEYOND, "writes 8 KiB before a block and frees it") {
    return write_and_free(-8192, 8192);
}

CASE(write_1_past_kept, SLABS | RUN, STOP, BEYOND, "writes one byte past the end of a block that is never freed") {
    return write_and_keep((ptrdiff_t)size, 1);
}

CASE(write_1_before_kept, SMALL, STOP, BEYOND, "writes one byte before a block that is never freed") {
    return write_and_keep(-1, 1);
}

/* The block is a little larger than it has to be: 60 bytes get 64, 8188 get 8192, and so on. */
static enum verdict write_slack(bool frees) {
    char *block = fresh_of(size - 4);
    *(char *)hidden(mistake ? block + size - 4 : block + size - 5) = 'x';
    if (frees) free(block);
    return MISSED;
}

CASE(write_slack, ALL, STOP, BEYOND,
     "asks for a size 4 bytes below a round one, writes one byte past it, frees the block") {
    return write_slack(true);
}

CASE(write_slack_kept, SMALL, STOP, BEYOND, "the same with a block that is never freed") { return write_slack(false); }

CASE(write_past_shrunk, SMALL | RUN, STOP, BEYOND,
     "shrinks a block with realloc by 4 bytes, writes one byte past its new end, frees it") {
    char *block = hidden(realloc(fresh(), size - 4));
    *(char *)hidden(mistake ? block + size - 4 : block + size - 5) = 'x';
    free(block);
    return MISSED;
}

CASE(write_past_aligned, SMALL, STOP, BEYOND, "writes one byte past the end of a block of memalign and frees it") {
    char *block = hidden(memalign(64, size));
    write_at(block, (ptrdiff_t)size, 1);
    free(block);
    return MISSED;
}

CASE(write_past_calloc, SMALL, STOP, BEYOND, "writes one byte past the end of a block of calloc and frees it") {
    char *block = hidden(calloc(1, size));
    write_at(block, (ptrdiff_t)size, 1);
    free(block);
    return MISSED;
}

CASE(write_to_zero_bytes, NONE, STOP, BEYOND, "writes a byte to a block of zero bytes and frees it") {
    char *block = fresh_of(0);
    if (mistake) *(char *)hidden(block) = 'x';
    free(block);
    return MISSED;
}

CASE(read_far_past, ALL, STOP, BEYOND, "reads on and on past the end of a block, until 1 MiB behind it") {
    char *block = fresh();
    volatile char *from = hidden(block);
    char sum = 0;
    for (size_t at = 0; at < (mistake ? size + (1 << 20) : size); at += 64) {
        sum ^= from[at];
    }
    hidden(&sum);
    return MISSED;
}
