/* A spike of 1 GiB of mixed blocks, freed in random order, and a second of ordinary activity after it. What counts is what is
 * resident then beyond what was before and a tenth of it, printed as its peak. */
#include <time.h>

#include "../common.h"

enum { SLOTS = 20000, SPIKE_MIB = 1024 };

static struct block *slots[SLOTS];

static long resident_kib(void) {
    long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    if (statm == NULL || fscanf(statm, "%*d %ld", &pages) != 1)
        abort();
    fclose(statm);
    return pages * 4;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Replaces blocks for so many seconds, a little every millisecond. */
static void ordinary(uint64_t *random, double seconds) {
    for (double end = now() + seconds; now() < end;) {
        for (unsigned step = 0; step < 500; step++) {
            struct block **slot = &slots[random_below(random, SLOTS)];
            if (*slot != NULL)
                free_block(*slot);
            *slot = new_block(random_size(random, 4, 11), step);
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

int main(void) {
    /* How much is done in a second varies, so the spike has random numbers of its own. */
    uint64_t ordinary_random = 1, random = 2, sum = 0;
    ordinary(&ordinary_random, 0.5);
    size_t room = (size_t)SPIKE_MIB << 12, used = 0;
    struct block **spike = or_die(malloc(room * sizeof *spike));
    long before = resident_kib();
    for (size_t bytes = 0; bytes < (size_t)SPIKE_MIB << 20 && used < room; used++) {
        size_t size = random_size(&random, 7, 12);
        spike[used] = new_block(size, (uint32_t)used);
        bytes += size;
    }
    for (size_t index = 0; index < used; index++) {
        size_t other = index + random_below(&random, used - index);
        struct block *block = spike[other];
        spike[other] = spike[index];
        sum += free_block(block);
    }
    free(spike);
    ordinary(&ordinary_random, 1.0);
    long beyond = resident_kib() - before - before / 10;
    printf("figures: peak_rss_kib=%ld\n", beyond > 1 ? beyond : 1);
    return print_sum(sum);
}
