/* Phases that come every 100 ms: 100 MiB of mixed blocks are built up, used, dropped, and the program rests until the next. What
 * counts is the processor time of the system, which is what it takes to give memory back and to get it again.
 *
 * paced PHASES */
#include <time.h>

#include "../common.h"

enum { MEBIBYTES = 100, PHASE_MS = 100 };

int main(int count, char **arguments) {
    unsigned long phases = argument(count, arguments, 1, 30);
    size_t room = (size_t)MEBIBYTES << 12;
    struct block **blocks = or_die(malloc(room * sizeof *blocks));
    uint64_t random = 1, sum = 0;
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (unsigned long phase = 0; phase < phases; phase++) {
        size_t used = 0;
        for (size_t bytes = 0; bytes < (size_t)MEBIBYTES << 20 && used < room; used++) {
            size_t size = random_size(&random, 8, 14);
            blocks[used] = new_block(size, (uint32_t)used);
            memset(blocks[used] + 1, 1, size - sizeof(struct block) - 1);
            bytes += size;
        }
        while (used > 0)
            sum += free_block(blocks[--used]);
        next.tv_nsec += PHASE_MS * 1000000;
        if (next.tv_nsec >= 1000000000) {
            next.tv_nsec -= 1000000000;
            next.tv_sec++;
        }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
    free(blocks);
    return print_sum(sum);
}
