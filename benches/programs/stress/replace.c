/* An array of blocks of which a random one is replaced or freed, over and over: the sizes mix in every slab and bin, and with
 * many slots every access misses the caches.
 *
 * replace THREADS SLOTS REPLACEMENTS LEAST_BITS MOST_BITS */
#include "../common.h"

static unsigned long slots, replacements, least_bits, most_bits;

static void *work(void *argument) {
    struct worker *self = argument;
    struct block **blocks = or_die(calloc(slots, sizeof *blocks));
    for (unsigned long round = 0; round < replacements; round++) {
        struct block **slot = &blocks[random_below(&self->random, slots)];
        if (*slot != NULL) {
            self->sum += free_block(*slot);
            *slot = NULL;
        } else {
            size_t bytes = random_size(&self->random, (unsigned)least_bits, (unsigned)most_bits);
            *slot = new_block(bytes, (uint32_t)round);
        }
    }
    for (unsigned long index = 0; index < slots; index++)
        if (blocks[index] != NULL)
            self->sum += free_block(blocks[index]);
    free(blocks);
    return NULL;
}

int main(int count, char **arguments) {
    unsigned threads = (unsigned)argument(count, arguments, 1, 1);
    slots = argument(count, arguments, 2, 100000);
    replacements = argument(count, arguments, 3, 10000000);
    least_bits = argument(count, arguments, 4, 4);
    most_bits = argument(count, arguments, 5, 10);
    return print_sum(in_threads(threads, 1, work));
}
