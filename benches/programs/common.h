/* What the programs here share: random numbers, blocks that know what was written into them, threads.
 *
 * A program's output depends on its arguments alone: it is a sum over the contents of all blocks, read when they are freed, so
 * an allocator that hands memory out twice or loses bytes prints something else, and no order of threads matters. */
#ifndef PROGRAMS_COMMON_H
#define PROGRAMS_COMMON_H

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_THREADS = 16 };

/* The next number of a splitmix64 sequence. */
static inline uint64_t next_random(uint64_t *state) {
    uint64_t mixed = *state += 0x9e3779b97f4a7c15u;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    return mixed ^ (mixed >> 31);
}

static inline uint64_t random_below(uint64_t *state, uint64_t bound) {
    return ((next_random(state) >> 32) * bound) >> 32;
}

/* A size whose logarithm is about uniform, as sizes in real programs roughly are. */
static inline size_t random_size(uint64_t *state, unsigned low_bits, unsigned high_bits) {
    unsigned bits = low_bits + (unsigned)random_below(state, high_bits - low_bits);
    size_t base = (size_t)1 << bits;
    return base + random_below(state, base);
}

static inline void *or_die(void *block) {
    if (block == NULL) {
        fputs("out of memory\n", stderr);
        abort();
    }
    return block;
}

/* A block that begins with its size and a tag and ends with a byte of the tag: what a program reads of it later. */
struct block {
    uint32_t bytes;
    uint32_t tag;
};

static inline struct block *new_block(size_t bytes, uint32_t tag) {
    if (bytes < sizeof(struct block) + 1)
        bytes = sizeof(struct block) + 1;
    struct block *block = (struct block *)or_die(malloc(bytes));
    block->bytes = (uint32_t)bytes;
    block->tag = tag;
    ((unsigned char *)block)[bytes - 1] = (unsigned char)tag;
    return block;
}

/* Frees the block and returns its share of the output. */
static inline uint64_t free_block(struct block *block) {
    uint64_t share = (uint64_t)block->tag * 31 + block->bytes;
    if (((unsigned char *)block)[block->bytes - 1] != (unsigned char)block->tag) {
        fputs("a block has lost its last byte\n", stderr);
        abort();
    }
    block->tag = 0;
    free(block);
    return share;
}

/* A thread's work, as much of it as the caller needs to know. */
struct worker {
    pthread_t thread;
    unsigned index;
    uint64_t random;
    uint64_t sum;
};

/* Runs `work` in `count` threads, each with a worker of its own, and returns the sum of their sums. */
static inline uint64_t in_threads(unsigned count, uint64_t seed, void *(*work)(void *)) {
    struct worker workers[MOST_THREADS];
    uint64_t sum = 0;
    if (count > MOST_THREADS)
        abort();
    for (unsigned index = 0; index < count; index++) {
        workers[index] = (struct worker){.index = index, .random = seed * 1000 + index, .sum = 0};
        if (pthread_create(&workers[index].thread, NULL, work, &workers[index]) != 0)
            abort();
    }
    for (unsigned index = 0; index < count; index++) {
        pthread_join(workers[index].thread, NULL);
        sum += workers[index].sum;
    }
    return sum;
}

static inline unsigned long argument(int count, char **arguments, int index, unsigned long otherwise) {
    return index < count ? strtoul(arguments[index], NULL, 10) : otherwise;
}

static inline int print_sum(uint64_t sum) {
    return printf("%016llx\n", (unsigned long long)sum) > 0 ? 0 : 1;
}

#endif
