/* The fast paths of the C front, each in a function of its own that callgrind counts (`cargo xtask instructions`); the Rust
 * front's are in benches/src/bin/counted.rs.
 *
 * counted ROUNDS */
#include "common.h"

#include <unistd.h>

enum { BLOCKS = 64, BYTES = 64, SMALLER = 60, RUN = 48 << 10 };

/* Blocks that keep slow paths busy for a while: in a mode that has a thread, it is started by them. Callgrind runs one thread at
 * a time, so that this one has to rest for the other to look. */
enum { BUSY_BLOCKS = 2000, BUSY_BYTES = 8 << 10, RESTS = 20, REST_US = 20000 };

#define COUNTED __attribute__((noinline)) void

/* All but the operation. */
COUNTED counted_nothing(void *volatile *slot, size_t bytes) {
    *slot = (void *)bytes;
}

COUNTED counted_alloc(void *volatile *slot, size_t bytes) {
    *slot = malloc(bytes);
}

COUNTED counted_free(void *volatile *slot, size_t bytes) {
    free(*slot);
    *slot = (void *)bytes;
}

COUNTED counted_zeroed(void *volatile *slot, size_t bytes) {
    *slot = calloc(1, bytes);
}

COUNTED counted_pair(void *volatile *slot, size_t bytes) {
    *slot = malloc(bytes);
    free(*slot);
}

COUNTED counted_run(void *volatile *slot, size_t bytes) {
    void *volatile block = malloc(bytes);
    free(block);
    (void)slot;
}

COUNTED counted_realloc(void *volatile *slot, size_t bytes) {
    *slot = realloc(*slot, bytes);
}

typedef void operation(void *volatile *slot, size_t bytes);

static void all(operation *operate, void *volatile *slots, size_t bytes) {
    for (unsigned index = 0; index < BLOCKS; index++)
        operate(&slots[index], bytes);
}

static void keep_slow_paths_busy(void) {
    static void *volatile busy[BUSY_BLOCKS];
    for (unsigned index = 0; index < BUSY_BLOCKS; index++)
        busy[index] = malloc(BUSY_BYTES);
    for (unsigned index = 0; index < BUSY_BLOCKS; index++)
        free(busy[index]);
}

int main(int count, char **arguments) {
    unsigned long rounds = argument(count, arguments, 1, 100);
    void *volatile slots[BLOCKS];
    keep_slow_paths_busy();
    for (unsigned rest = 0; getenv("HAKMEM_MODE") != NULL && rest < RESTS; rest++) {
        usleep(REST_US);
        keep_slow_paths_busy();
    }
    /* What happens once in a thread's life is not counted. */
    for (unsigned round = 0; round < 100; round++) {
        for (unsigned index = 0; index < BLOCKS; index++)
            slots[index] = malloc(BYTES);
        for (unsigned index = 0; index < BLOCKS; index++)
            free(slots[index]);
    }
    free(realloc(calloc(1, BYTES), SMALLER));
    for (unsigned long round = 0; round < rounds; round++) {
        all(counted_nothing, slots, BYTES);
        all(counted_pair, slots, BYTES);
        all(counted_alloc, slots, BYTES);
        all(counted_free, slots, BYTES);
        all(counted_zeroed, slots, BYTES);
        all(counted_run, slots, RUN);
        all(counted_realloc, slots, SMALLER);
        for (unsigned index = 0; index < BLOCKS; index++)
            free(slots[index]);
    }
    return 0;
}
