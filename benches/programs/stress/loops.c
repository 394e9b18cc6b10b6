/* The plainest loops: a number of blocks of one size is allocated and then freed in the same order.
 *
 * loops THREADS MILLIONS_OF_PAIRS */
#include "../common.h"

enum { MOST_LIVE = 1600 };

static const unsigned lives[] = {1, 25, 100, 400, MOST_LIVE};
static const size_t sizes[] = {16, 64, 256, 1024};
static unsigned long pairs;

static void *work(void *argument) {
    struct worker *self = argument;
    struct block *blocks[MOST_LIVE];
    for (unsigned which = 0; which < sizeof lives / sizeof *lives; which++) {
        unsigned live = lives[which];
        for (unsigned size = 0; size < sizeof sizes / sizeof *sizes; size++) {
            for (unsigned long done = 0; done < pairs; done += live) {
                for (unsigned index = 0; index < live; index++)
                    blocks[index] = new_block(sizes[size], index);
                for (unsigned index = 0; index < live; index++)
                    self->sum += free_block(blocks[index]);
            }
        }
    }
    return NULL;
}

int main(int count, char **arguments) {
    unsigned threads = (unsigned)argument(count, arguments, 1, 1);
    pairs = argument(count, arguments, 2, 40) * 1000000 / (sizeof lives / sizeof *lives) / (sizeof sizes / sizeof *sizes);
    if (threads > 1)
        return print_sum(in_threads(threads, 1, work));
    /* On the main thread of a process that never has another. */
    struct worker alone = {.random = 1};
    work(&alone);
    return print_sum(alone.sum);
}
