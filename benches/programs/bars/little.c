/* A small program: a thousand blocks, 100 KB. What counts is the memory that is its own, printed as its peak: pages of program text
 * are shared by all processes, anonymous ones are not. */
#include "../common.h"

int main(void) {
    static struct block *blocks[1000];
    uint64_t random = 1, sum = 0;
    for (unsigned index = 0; index < 1000; index++)
        blocks[index] = new_block(50 + random_below(&random, 101), index);
    FILE *rollup = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    unsigned long anonymous = 0;
    while (rollup != NULL && fgets(line, sizeof line, rollup) != NULL)
        if (sscanf(line, "Anonymous: %lu", &anonymous) == 1)
            break;
    for (unsigned index = 0; index < 1000; index++)
        sum += free_block(blocks[index]);
    if (anonymous == 0)
        return 1;
    printf("figures: peak_rss_kib=%lu\n", anonymous);
    return print_sum(sum);
}
