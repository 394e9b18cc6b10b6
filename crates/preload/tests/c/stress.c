/* Threads that come and go replace, resize and free each other's blocks of every size to 8 MiB; every byte is checked.
   Arguments: seconds, seed. */
#include "check.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

enum { LINES = 4, SLOTS = 300 };

struct block {
    unsigned char *bytes;
    size_t size;
};

static struct {
    pthread_mutex_t lock;
    struct block block;
} slots[SLOTS];
static struct timespec start;
static double seconds = 3;
static uint64_t seed = 1;
static atomic_long operations;
static atomic_int damage;

static double elapsed(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start.tv_sec) + (double)(now.tv_nsec - start.tv_nsec) / 1e9;
}

static uint64_t next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static uint64_t mark(const unsigned char *bytes, size_t size) {
    return ((uint64_t)(uintptr_t)bytes ^ size) * UINT64_C(0x9e3779b97f4a7c15);
}

static void fill(struct block block) {
    uint64_t word = mark(block.bytes, block.size);
    for (size_t at = 0; at < block.size; at += 8, word += UINT64_C(0x0101010101010101)) {
        memcpy(block.bytes + at, &word, block.size - at < 8 ? block.size - at : 8);
    }
}

static void check(const unsigned char *bytes, size_t size, uint64_t word) {
    for (size_t at = 0; at < size; at += 8, word += UINT64_C(0x0101010101010101)) {
        if (memcmp(bytes + at, &word, size - at < 8 ? size - at : 8) != 0) {
            fprintf(stderr, "stress: byte %zu of %zu at %p was overwritten (seed %llu)\n", at, size, (void *)bytes,
                    (unsigned long long)seed);
            damage = 1;
            return;
        }
    }
}

static size_t any_size(uint64_t *state) {
    unsigned doublings = next(state) % 16 == 0 ? 23 : 15;
    size_t low = (size_t)1 << next(state) % doublings;
    return low + next(state) % (low + 1);
}

static struct block any_block(uint64_t *state) {
    struct block block = {NULL, any_size(state)};
    void *place = NULL;
    switch (next(state) % 5) {
    case 0:
        block.bytes = calloc(1, block.size);
        for (size_t at = 0; block.bytes != NULL && at < block.size; at++) {
            if (block.bytes[at] != 0) {
                fprintf(stderr, "stress: calloc: byte %zu of %zu is not zero\n", at, block.size);
                damage = 1;
                break;
            }
        }
        break;
    case 1: {
        size_t alignment = (size_t)8 << next(state) % 14;
        if (posix_memalign(&place, alignment, block.size) == 0) {
            block.bytes = place;
            if (((uintptr_t)place & (alignment - 1)) != 0) {
                fprintf(stderr, "stress: %p is not aligned to %zu\n", place, alignment);
                damage = 1;
            }
        }
        break;
    }
    default:
        block.bytes = malloc(block.size);
    }
    if (block.bytes == NULL) {
        block.size = 0;
    }
    fill(block);
    return block;
}

static struct block resized(struct block block, uint64_t *state) {
    size_t size = any_size(state);
    uint64_t word = mark(block.bytes, block.size);
    unsigned char *moved = realloc(block.bytes, size);
    if (moved == NULL) {
        return block;
    }
    check(moved, block.size < size ? block.size : size, word);
    struct block result = {moved, size};
    fill(result);
    return result;
}

static void *life(void *argument) {
    uint64_t state = (uint64_t)(uintptr_t)argument | 1;
    double end = elapsed() + 0.02 + (double)(next(&state) % 200) / 1000;
    while (elapsed() < end && elapsed() < seconds && !damage) {
        for (int count = 0; count < 32; count++) {
            unsigned slot = next(&state) % SLOTS;
            struct block fresh = any_block(&state);
            if (next(&state) % 4 == 0) {
                fresh = resized(fresh, &state);
            }
            pthread_mutex_lock(&slots[slot].lock);
            struct block old = slots[slot].block;
            slots[slot].block = fresh;
            pthread_mutex_unlock(&slots[slot].lock);
            check(old.bytes, old.size, mark(old.bytes, old.size));
            free(old.bytes);
        }
        operations += 32;
    }
    return NULL;
}

static void *line(void *argument) {
    uint64_t state = seed * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)(uintptr_t)argument;
    while (elapsed() < seconds && !damage) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, life, (void *)(uintptr_t)next(&state)) != 0) {
            damage = 1;
            break;
        }
        pthread_join(thread, NULL);
    }
    return NULL;
}

int main(int argc, char **argv) {
    check_library();
    if (argc > 1) {
        seconds = atof(argv[1]);
    }
    if (argc > 2) {
        seed = strtoull(argv[2], NULL, 10);
    }
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int slot = 0; slot < SLOTS; slot++) {
        pthread_mutex_init(&slots[slot].lock, NULL);
    }
    pthread_t lines[LINES];
    for (size_t index = 0; index < LINES; index++) {
        CHECK(pthread_create(&lines[index], NULL, line, (void *)(index + 1)) == 0);
    }
    for (int index = 0; index < LINES; index++) {
        CHECK(pthread_join(lines[index], NULL) == 0);
    }
    for (int slot = 0; slot < SLOTS; slot++) {
        struct block block = slots[slot].block;
        check(block.bytes, block.size, mark(block.bytes, block.size));
        free(block.bytes);
    }
    CHECK(!damage);
    CHECK(operations > 100);
    fprintf(stderr, "stress: %ld operations, seed %llu\n", (long)operations, (unsigned long long)seed);
    return finish("stress");
}
